"""Owns which custom attributes a segment or a query names, read as the query itself reads them. Builds no plan."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import assert_never

from roster.analyses.facets import FacetRequest
from roster.analyses.profiles import PageRequest
from roster.analyses.scopes import World, event_scope
from roster.model.segment import Segment, definition_of
from roster.model.segment_query import Performed, Rule, TookSteps
from roster.query import search

Names = dict[str, str]
"""As spelled, old ids included, without '@' → the id that is meant."""


def names_of_segment(world: World, segment: Segment) -> Names:
    """`world` is that of the segment's entity."""
    definition = definition_of(segment)
    queries = (s.query for s in definition.profiles)
    found = _meant(world, (key for query in queries for key in keys_of(search.parse(query))))
    return found | _meant_on_events(world, [query for rule in definition.rules for query in _event_queries(rule)])


def _event_queries(rule: Rule) -> Iterator[str]:
    """The searches over events of a rule."""
    match rule:
        case Performed(_, query):
            yield query
        case TookSteps(_, search_text):
            stated = json.loads(search_text)
            for node in (stated.get("node_objects") or {}).values():
                yield node.get("search", {}).get("query") or ""
            yield (stated.get("filters") or {}).get("string_filter") or ""
        case _:
            return


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
