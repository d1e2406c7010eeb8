"""Owns who is behind a number: users or accounts of a bar, a point, a cell or a link, as keys. Runs nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from roster.analyses.event_world import TIME, EventWorld, during, text_of
from roster.analyses.explore import Selection, group_values, selected_events
from roster.analyses.groups import GroupBy, in_group, keyed
from roster.analyses.members import MEMBER, distinct_keys
from roster.analyses.profiles import attribute_columns
from roster.analyses.retention import (
    COHORT,
    ENTITY,
    Retention,
    RetentionGroup,
    Traffic,
    cell_entities,
    entries_beside,
    in_column,
    traffic_of,
)
from roster.analyses.sankey import Kind, Pathways, keys_of_paths, shown_values, steps_of_paths
from roster.base.time import Range
from roster.model.schema import Entity, Type
from roster.query.expr import Column, Compare, Expr, Literal
from roster.query.plan import (
    Agg,
    Aggregate,
    Filter,
    Join,
    Limit,
    Measure,
    Named,
    Plan,
    Project,
    Rank,
    Sort,
    SortKey,
    Window,
)
from roster.query.relations import OWNER_OF_EVENT, profile_key, where


def keys_of_events(
    world: EventWorld,
    entity: Entity,
    selection: Selection,
    groups: Sequence[GroupBy],
    tags: Sequence[str],
    bucket: Range | None,
) -> tuple[Plan, list[str]]:
    """The users or accounts of the events of one group, told by the values of its facets; and warnings.

    `bucket`: only of the events in it; which events are selected does not depend on it.
    """
    plan, warnings = selected_events(world, selection)
    plan = plan if bucket is None else where(plan, during(bucket))
    values, doubts = group_values(world, groups)
    rows = where(keyed(plan, groups, values), in_group(tags))
    return distinct_keys(rows, OWNER_OF_EVENT[entity]), [*warnings, *doubts]


@dataclass(frozen=True, slots=True)
class Cell:
    """A cell of retention, and of groups the one with these values."""

    cohort: int
    column: int
    groups: tuple[RetentionGroup, ...] = ()
    tags: tuple[str, ...] = ()


def keys_in_cell(world: EventWorld, asked: Retention, cell: Cell) -> tuple[Plan, list[str]]:
    """The entities of a cell of retention, and warnings."""
    traffic = traffic_of(world, asked)
    people = cell_entities(traffic, asked, cell.cohort, cell.column)
    warnings = list(traffic.warnings)
    for by_return in (False, True):
        pairs = [(g.group, tag) for g, tag in zip(cell.groups, cell.tags, strict=True) if g.returns is by_return]
        if pairs:
            groups, tags = [group for group, _ in pairs], [tag for _, tag in pairs]
            values, doubts = group_values(world, groups)
            if by_return and not (traffic.same and cell.column == 0):
                rows, told = _first_returns(traffic, asked, cell, people, values)
            else:
                rows, told = entries_beside(world, traffic, asked, values)
                rows = Filter(rows, Compare("=", COHORT, Literal(cell.cohort, Type.INTEGER)))
            chosen = distinct_keys(where(keyed(rows, groups, values, told), in_group(tags)), ENTITY)
            people = Join(people, chosen, "semi", ((ENTITY, MEMBER),))
            warnings += doubts
    return distinct_keys(people, ENTITY), warnings


def _first_returns(
    traffic: Traffic, asked: Retention, cell: Cell, people: Plan, values: Sequence[Expr]
) -> tuple[Plan, list[Expr]]:
    """A row an entity of a cell with its first return there, and the values: of several at one time the smallest."""
    who, at, turn = Column("#who", Type.STRING), Column("#at", TIME.type), Column("#turn", Type.INTEGER)
    told = [Column(f"#returned{n}", Type.STRING) for n in range(len(values))]
    texts: tuple[Named, ...] = tuple((c.name, text_of(v)) for c, v in zip(told, values, strict=True))
    events = Filter(traffic.returning(), in_column(asked, cell.cohort, cell.column))
    named = Project(events, ((who.name, traffic.entity), (at.name, TIME), *texts))
    met = Filter(Join(people, named, "inner", ((ENTITY, who),)), traffic.is_return(at))
    smallest = tuple(Measure(c.name, Agg.MIN, c) for c in told)
    moments = Aggregate(met, ((ENTITY.name, ENTITY), (at.name, at)), smallest)
    turns = Window(moments, turn.name, Rank.ROW_NUMBER, None, (ENTITY,), (SortKey(at),))
    return Filter(turns, Compare("=", turn, Literal(1, Type.INTEGER))), [*told]


@dataclass(frozen=True, slots=True)
class Stop:
    """One value of a column, None for any; or all that it does not show by themselves, or the end of paths."""

    value: str | None = None
    kind: Kind = Kind.REGULAR


@dataclass(frozen=True, slots=True)
class Passage:
    """A step of paths, from a column (0-based) to the next."""

    column: int
    source: Stop
    target: Stop


_SOURCE, _TARGET, _END = Column("source", Type.STRING), Column("target", Type.STRING), Column("end", Type.INTEGER)


def keys_on_paths(world: EventWorld, entity: Entity, asked: Pathways, passage: Passage) -> tuple[Plan, list[str]]:
    """The users or accounts whose paths take a step, told by the event that the step ends with; and warnings.

    Of a drop-off it is the event that the path ends with.
    """
    owner, place = Column("#owner", Type.STRING), passage.column + 1
    steps, warnings = steps_of_paths(world, asked, ((owner.name, OWNER_OF_EVENT[entity]),))
    on = _at(steps, place + 1)
    if passage.target.kind is Kind.DROPOFF:
        keys = keys_of_paths(asked)
        theirs = tuple(Column(f"#on.{n}", key.type) for n, key in enumerate(keys))
        named: tuple[Named, ...] = tuple((their.name, key) for their, key in zip(theirs, keys, strict=True))
        ended = Join(_at(steps, place), Project(on, named), "anti", tuple(zip(keys, theirs, strict=True)))
        plan = _through(ended, steps, asked, place, _TARGET, passage.source)
    else:
        plan = _through(on, steps, asked, place, _SOURCE, passage.source)
        plan = _through(plan, steps, asked, place + 1, _TARGET, passage.target)
    return distinct_keys(plan, owner), warnings


def _at(steps: Plan, place: int) -> Plan:
    """The steps that end at a place."""
    return Filter(steps, Compare("=", _END, Literal(place, Type.INTEGER)))


def _through(plan: Plan, steps: Plan, asked: Pathways, place: int, side: Column, stop: Stop) -> Plan:
    """Those of the steps in `plan` whose value on a side, which lies at a place, is of the stop."""
    if stop.kind is Kind.OTHER:
        shown = Column(f"#shown.{side.name}", side.type)
        return Join(plan, shown_values(steps, asked, place, shown.name), "anti", ((side, shown),))
    return plan if stop.value is None else where(plan, Compare("=", side, Literal(stop.value, Type.STRING)))


def list_people(
    world: EventWorld, entity: Entity, keys: Plan, names: Sequence[str], limit: int
) -> tuple[Plan, list[str]]:
    """Attributes of the profiles of these keys, a column a name, in the order of their keys; and warnings."""
    profiles, key = world.of(entity), profile_key(entity)
    columns, warnings = attribute_columns(profiles, names)
    rows = Join(profiles.relation, keys, "semi", ((key, MEMBER),))
    return Project(Limit(Sort(rows, (SortKey(key),)), limit), columns), warnings
