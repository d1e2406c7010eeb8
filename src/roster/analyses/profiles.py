"""Owns profile pages: users or accounts that match, counted and sorted, by attributes and by their events."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from roster.analyses.event_world import during
from roster.analyses.scopes import World, event_scope, profile_scope, resolve_at
from roster.base.errors import Code, Error
from roster.base.time import Range
from roster.model.held import asks_history
from roster.model.mapping import Attribute
from roster.model.schema import KEY_ATTRIBUTE, Entity, Type
from roster.query.expr import TRUE, Column, Expr, Literal, Or, columns_of, conjunction
from roster.query.over_time import events_over_time
from roster.query.plan import Join, Limit, Named, Plan, Project, Sort, SortKey
from roster.query.relations import OWNER_OF_EVENT, count_rows, events, profile_key, where
from roster.query.resolve import contains, unknown_name, wildcards

SORT_DEFAULT = "last_seen"


@dataclass(frozen=True, slots=True)
class Selection:
    """Which profiles: a search, a wildcard term, and having an event in a range that matches a search."""

    query: str = ""
    wildcard_term: str = ""
    event_query: str | None = None
    event_range: Range | None = None
    at_event_time: bool = False
    """Whether the search of events sees custom attributes as they were at the event's time."""


@dataclass(frozen=True, slots=True)
class PageRequest:
    """Which columns of which profiles, in which order, how many. No columns: all attributes."""

    selection: Selection
    columns: tuple[str, ...] | None
    sort: str | None
    descending: bool
    limit: int


@dataclass(frozen=True, slots=True)
class Page:
    """The plans of a page and of its total, the names its columns answer to, and warnings."""

    rows: Plan
    total: Plan
    names: tuple[str, ...]
    warnings: tuple[str, ...]


def page(world: World, request: PageRequest) -> Page:
    """Build the page; names that mean nothing become empty columns and a warning."""
    plan, warnings = selected(world, request.selection)
    total = count_rows(plan, "total")
    keys, sort_warnings = _sort_keys(world, request)
    columns, column_warnings = attribute_columns(world, request.columns)
    rows = Project(Limit(Sort(plan, keys), request.limit), columns)
    names = request.columns if request.columns is not None else tuple(a.id for a in world.attributes)
    return Page(rows, total, names, tuple(dict.fromkeys([*warnings, *sort_warnings, *column_warnings])))


def selected(world: World, selection: Selection) -> tuple[Plan, list[str]]:
    """The profiles of a selection with all their attributes, and warnings."""
    scope = profile_scope(world)
    resolved = resolve_at("/data/attributes/query", selection.query, scope, world.now_ms)
    conditions = [resolved.where]
    if selection.wildcard_term:
        pieces = wildcards(selection.wildcard_term)
        conditions.append(Or(tuple(contains(t, pieces) for t in scope.texts)))
    plan = where(world.relation, conjunction(*conditions))
    if selection.event_query is None and selection.event_range is None:
        return plan, resolved.warnings
    matching, warnings = matching_events(world, selection)
    key = profile_key(world.entity)
    return Join(plan, matching, "semi", ((key, key),)), resolved.warnings + warnings


def matching_events(world: World, selection: Selection) -> tuple[Plan, list[str]]:
    """The profile key of every event of the selection."""
    scope = event_scope(world)
    resolved = resolve_at("/data/attributes/event_query/query", selection.event_query or "", scope, world.now_ms)
    within = TRUE if selection.event_range is None else during(selection.event_range)
    where_all = conjunction(within, resolved.where)
    plan = where(_events(world, selection, resolved.where), where_all)
    return Project(plan, ((KEY_ATTRIBUTE[world.entity], OWNER_OF_EVENT[world.entity]),)), resolved.warnings


def _events(world: World, selection: Selection, condition: Expr) -> Plan:
    """Events with the custom attributes of their users, as they are now or were then."""
    if selection.at_event_time:
        named = columns_of(condition)
        return events_over_time(world.mapping, world.timed, _timed(tuple(a for a in world.customs() if a.id in named)))
    return events(world.relation if world.entity is Entity.USERS else None, world.customs())


def _timed(customs: tuple[Attribute, ...]) -> tuple[Attribute, ...]:
    """The attributes of a search as of the event's time. Error: INVALID for those without history."""
    lacking = [a.id for a in customs if not all(asks_history(offer.connection) for offer in a.offers)]
    if lacking:
        connections = {o.connection.id for a in customs for o in a.offers if not asks_history(o.connection)}
        message = f"no history is kept of {', '.join(lacking)}"
        hint = f"set `history` to `true` in the metadata of connection {', '.join(sorted(connections))}"
        raise Error(Code.INVALID, message, at="/data/attributes/event_query/query", hint=hint)
    return customs


def _sort_keys(world: World, request: PageRequest) -> tuple[tuple[SortKey, ...], list[str]]:
    """The asked order, then the profile's key, so that the order is total."""
    key = KEY_ATTRIBUTE[world.entity]
    tie = SortKey(Column(key, Type.STRING))
    name = request.sort or SORT_DEFAULT
    found = world.find(name)
    if found is None:
        return (tie,), [unknown_name(name, profile_scope(world))]
    first = SortKey(Column(found.name, found.type), request.descending)
    return ((first,) if found.name == key else (first, tie)), []


def _meant(world: World, names: Sequence[str] | None) -> list[tuple[str, Attribute | None]]:
    """Names with what they mean; who asks for all attributes names none of them."""
    if names is None:
        return [(a.id, a) for a in world.attributes]
    return [(name, world.find(name)) for name in names]


def attribute_columns(world: World, names: Sequence[str] | None) -> tuple[tuple[Named, ...], list[str]]:
    """One column a name, all attributes for None, and warnings of names that mean nothing: they are empty.

    Columns are numbered: the caller's spelling need not be a name the plan knows.
    """
    columns: list[Named] = []
    warnings = []
    for position, (name, found) in enumerate(_meant(world, names)):
        if found is None:
            warnings.append(unknown_name(name, profile_scope(world)))
        value: Expr = Column(found.name, found.type) if found else Literal(None, Type.STRING)
        columns.append((f"{position} {name}", value))
    return tuple(columns), warnings
