"""Owns which custom attributes a segment or a query names, read as the query itself reads them. Builds no plan."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping as Map
from dataclasses import replace
from typing import Any, assert_never

from roster.analyses.event_world import EventWorld
from roster.analyses.facets import FacetRequest
from roster.analyses.profiles import PageRequest
from roster.analyses.scopes import World, event_scope
from roster.model.schema import Entity
from roster.model.segment import Segment, definition_of
from roster.model.segment_query import AccountSearch, Performed, StaticList, TableRows, TookSteps
from roster.query import search

Names = dict[str, str]
"""As spelled, old ids included, without '@' → the id that is meant."""


Said = Iterator[tuple[Entity | None, str]]
"""Names as written, each with whose attribute it must be; None: it stands in a search over events."""


def names_of_segment(world: EventWorld, entity: Entity, segment: Segment) -> Names:
    """Those that are of users, or of accounts, in all of its rules and in the segments that these name."""
    fresh = replace(world, users=replace(world.users, named={}), accounts=replace(world.accounts, named={}))
    found: Names = {}
    for whose, name in _said(world, segment, frozenset()):
        if whose is None:
            fresh.scope.find(name)
        elif whose is entity:
            found |= _meant(fresh.of(entity), [name])
    return found | fresh.of(entity).named


def _said(world: EventWorld, segment: Segment, within: frozenset[str]) -> Said:
    """`within`: ids of segments that name this one."""
    definition = definition_of(segment)
    for profiles in definition.profiles:
        yield from _in_search(segment.entity, profiles.query)
    for rule in definition.rules:
        match rule:
            case AccountSearch():
                yield from _in_search(Entity.ACCOUNTS, rule.query)
            case Performed():
                yield from _in_search(None, rule.query)
            case TookSteps():
                yield from _in_journey(world, json.loads(rule.search), within | {segment.id})
            case TableRows():
                yield segment.entity, rule.attribute
            case StaticList():
                pass
            case _:
                assert_never(rule)


def _in_search(whose: Entity | None, query: str | None) -> Said:
    for key in keys_of(search.parse(query or "")):
        yield whose, key


def _in_journey(world: EventWorld, stated: Map[str, Any], within: frozenset[str]) -> Said:
    """`stated`: a journey's search as requests state it; it was read when the segment was made."""
    filters = stated.get("filters") or {}
    audience = filters.get("audience_filters") or {}
    yield from _in_search(None, filters.get("string_filter"))
    for node in stated["node_objects"].values():
        yield from _in_search(None, node["search"].get("query"))
    for exclusion in stated.get("exclusions") or ():
        yield from _in_search(None, exclusion["query"])
    for name in (stated.get("join_keys") or {}).get("secondary") or ():
        yield None, name
    for entity in Entity:
        for group in audience.get(entity.value) or ():
            yield from _in_search(entity, group.get("query"))
    for named in audience.get("segments") or ():
        other = world.segments.get(named["segment_id"])
        if other is not None and other.id not in within:
            yield from _said(world, other, within)


def names_of_page(world: World, request: PageRequest) -> Names:
    """Of the search, the columns, the order and the search of events."""
    selection = request.selection
    sort = [request.sort] if request.sort else []
    found = _meant(world, (*keys_of(search.parse(selection.query)), *(request.columns or ()), *sort))
    if selection.event_query is None:
        return found
    return found | _meant_on_events(world, [selection.event_query])


def _meant_on_events(world: World, queries: Iterable[str]) -> Names:
    fresh = replace(world, named={})
    scope = event_scope(fresh)
    for query in queries:
        for key in keys_of(search.parse(query)):
            scope.find(key)
    return fresh.named


def names_of_facet(world: World, request: FacetRequest) -> Names:
    """Of the facet and its search."""
    return _meant(world, (request.attribute, *keys_of(search.parse(request.query))))


def _meant(world: World, names: Iterable[str]) -> Names:
    found = ((name.removeprefix("@"), world.find(name)) for name in names)
    return {spelled: a.name for spelled, a in found if a is not None and a.is_custom}


def keys_of(tree: search.Tree) -> Iterator[str]:
    """The attributes a search names, as written."""
    match tree:
        case search.Everything() | search.Text():
            return
        case search.And(items) | search.Or(items):
            for item in items:
                yield from keys_of(item)
        case search.Not(item):
            yield from keys_of(item)
        case search.Match(key) | search.Compare(key) | search.Range(key) | search.Cidr(key):
            yield key.name
        case _:
            assert_never(tree)
