"""Owns the three plain analyses of events: a number, numbers over time, and events themselves. Runs nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from roster.analyses.audience import Audience, restrict
from roster.analyses.base_query import BaseQuery, find_events
from roster.analyses.event_world import PERSON, TIME, EventWorld, during, order_by
from roster.analyses.groups import GroupBy, grouped, keyed, over_time, ranked, ranks_of
from roster.analyses.measures import Compute, measure_of
from roster.analyses.periods import place_in
from roster.base.errors import Code, Error
from roster.base.time import Range
from roster.model.schema import Type
from roster.query.expr import Column, Expr, Literal
from roster.query.plan import Limit, Named, Plan, Project, Sort, SortKey
from roster.query.relations import count_rows, where

VALUE = "value"


@dataclass(frozen=True, slots=True)
class Selection:
    """Which events: of a range, found by a query, of an audience."""

    span: Range
    query: BaseQuery
    audience: Audience


@dataclass(frozen=True, slots=True)
class Explored:
    """The plans of an analysis, and warnings."""

    plans: tuple[Plan, ...]
    warnings: tuple[str, ...]


def selected_events(world: EventWorld, selection: Selection) -> tuple[Plan, list[str]]:
    """The events of a selection with all attributes beside, and warnings."""
    plan, warnings = restrict(where(world.relation, during(selection.span)), world, selection.audience)
    found, condition, doubts = find_events(plan, world, selection.query, PERSON)
    return where(found, condition), warnings + doubts


def group_values(world: EventWorld, groups: Sequence[GroupBy]) -> tuple[list[Expr], list[str]]:
    """The value of each group's facet on an event, and warnings."""
    values: list[Expr] = []
    warnings: list[str] = []
    for group in groups:
        value = world.group_value(group.facet, group.source)
        if value is None:
            warnings.append(world.unknown(group.facet, group.source) if group.source else f"unknown {group.facet!r}")
        values.append(Literal(None, Type.STRING) if value is None else value)
    return values, warnings


def scalar(world: EventWorld, selection: Selection, compute: Compute, groups: Sequence[GroupBy]) -> Explored:
    """One row a group, the best first: the values of its facets as text, then `value`."""
    plan, warnings = selected_events(world, selection)
    values, doubts = group_values(world, groups)
    measure = measure_of(VALUE, compute, world.facet)
    ranks = ranks_of(groups, compute, world.facet)
    plan = grouped(keyed(plan, groups, values), groups, ranks, (measure,))
    return Explored((plan,), (*warnings, *doubts))


def timeseries(
    world: EventWorld, selection: Selection, compute: Compute, groups: Sequence[GroupBy], edges: Sequence[int]
) -> Explored:
    """One row a group and bucket that has events: the group's values, the bucket's place in `edges`, `value`."""
    plan, warnings = selected_events(world, selection)
    values, doubts = group_values(world, groups)
    rows = ranked(keyed(plan, groups, values), groups, ranks_of(groups, compute, world.facet))
    plan = over_time(rows, len(groups), place_in(TIME, edges), (measure_of(VALUE, compute, world.facet),))
    return Explored((plan,), (*warnings, *doubts))


@dataclass(frozen=True, slots=True)
class ListRequest:
    """Which columns of which events, in which order, how many. `sort` None: by time."""

    selection: Selection
    columns: tuple[str, ...]
    sort: str | None
    descending: bool
    limit: int


def list_events(world: EventWorld, request: ListRequest) -> Explored:
    """The plans of the rows, a column a name in the order asked, and of how many there are in all."""
    plan, warnings = selected_events(world, request.selection)
    total = count_rows(plan, "total")
    order: list[SortKey] = []
    if request.sort is not None:
        order += order_by(_sortable(world, request.sort), descending=request.descending)
    order += [SortKey(TIME, request.descending), SortKey(Column("event_id", Type.STRING))]
    columns: list[Named] = []
    for place, name in enumerate(request.columns):
        value = world.facet(name)
        columns.append((f"{place} {name}", Literal(None, Type.STRING) if value is None else value))
    return Explored((Project(Limit(Sort(plan, tuple(order)), request.limit), tuple(columns)), total), tuple(warnings))


def _sortable(world: EventWorld, name: str) -> Expr:
    value = world.facet(name)
    if value is None:
        raise Error(Code.INVALID, f"unknown facet {name!r}", at="/data/attributes/query/sort/facet")
    return value
