"""Owns retention: who is in which cohort since when, and in which periods they return, as plans. Runs nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from roster.analyses.audience import Audience, restrict
from roster.analyses.base_query import BaseQuery, find_events
from roster.analyses.event_world import ACCOUNT, PERSON, TIME, EventWorld, during, identified, profile_column, text_of
from roster.analyses.explore import group_values
from roster.analyses.groups import BY, GroupBy, key_of, keyed, rank_of, ranked
from roster.analyses.periods import place_in
from roster.analyses.retention_periods import Periods
from roster.base.time import Range, instant
from roster.model.schema import EVENT_COLUMNS, KEY_ATTRIBUTE, Column as SchemaColumn, Entity, Type
from roster.query.expr import (
    Bucket,
    Call,
    Cast,
    Column,
    Compare,
    Expr,
    Fn,
    IsNull,
    Literal,
    Not,
    columns_of,
    conjunction,
)
from roster.query.plan import Agg, Aggregate, Filter, Join, Limit, Measure, Named, Plan, Project, Sort, SortKey, Values
from roster.query.relations import count_rows, profile_key, where

ENTITY_OF: dict[Entity, Expr] = {Entity.USERS: PERSON, Entity.ACCOUNTS: ACCOUNT}
ENTITY = Column("entity", Type.STRING)
ENTRY = Column("entry", Type.TIMESTAMP)
COHORT = Column("cohort", Type.INTEGER)
RETURNER = Column("#returner", Type.STRING)
PLACE = Column("#place", Type.INTEGER)
LAST = Column("#last", Type.TIMESTAMP)
COUNT = "count"
BY_COUNT = Measure(BY, Agg.COUNT)


@dataclass(frozen=True, slots=True)
class Retention:
    """Which entities, and what they did first and then. `returned` None: the same as for the cohort.

    `or_after`: a return in any later period counts too. `first_only`: only the first cohort of each entity.
    """

    span: Range
    entity: Entity
    periods: Periods
    cohort: BaseQuery
    returned: BaseQuery | None
    or_after: bool
    audience: Audience
    search: BaseQuery
    first_only: bool = False
    identified_only: bool = False


@dataclass(frozen=True, slots=True)
class RetentionGroup:
    """Groups by the value of a facet on the event of entry; `returns`: on the first event of return in the cell."""

    group: GroupBy
    returns: bool


@dataclass(frozen=True, slots=True)
class Traffic:
    """The events that matter, the conditions to enter a cohort and to return, and whether the two are the same."""

    plan: Plan
    entity: Expr
    entered: Expr
    returned: Expr
    same: bool
    warnings: tuple[str, ...]

    def entering(self) -> Plan:
        return where(self.plan, conjunction(self.entered, Not(IsNull(self.entity))))

    def returning(self) -> Plan:
        return where(self.plan, conjunction(self.returned, Not(IsNull(self.entity))))

    def is_return(self, time: Expr) -> Expr:
        """A return at this time comes after the entry; where entry and return are the same it is another event."""
        return Compare(">" if self.same else ">=", time, ENTRY)


def traffic_of(world: EventWorld, asked: Retention) -> Traffic:
    """The events of the range that the audience and the search admit. Errors: INVALID, NOT_FOUND."""
    traffic = where(world.relation, during(asked.span))
    plan, warnings = restrict(identified(traffic) if asked.identified_only else traffic, world, asked.audience)
    search = world.narrow(asked.search.at, asked.search.text)
    whose = ENTITY_OF[asked.entity]
    plan, entered, doubts = find_events(where(plan, search.where), world, asked.cohort, whose, "cohort")
    warnings = [*warnings, *search.warnings, *doubts]
    if asked.returned is None or _same(world, asked.cohort, asked.returned):
        return Traffic(plan, whose, entered, entered, True, tuple(warnings))
    plan, returned, doubts = find_events(plan, world, asked.returned, whose, "return")
    return Traffic(plan, whose, entered, returned, False, (*warnings, *doubts))


def _same(world: EventWorld, one: BaseQuery, other: BaseQuery) -> bool:
    """Whether two queries find the same events, however they are spelled."""
    return one.occurrences == other.occurrences and (
        world.resolve(one.at, one.text).where == world.resolve(other.at, other.text).where
    )


def entries(traffic: Traffic, asked: Retention) -> Plan:
    """A row an entity and cohort: `entity`, `cohort`, and `entry`, the time of its first event in the period."""
    who = (ENTITY.name, traffic.entity)
    first = Measure(ENTRY.name, Agg.MIN, TIME)
    if not asked.first_only:
        place = (COHORT.name, place_in(TIME, asked.periods.edges))
        return Aggregate(traffic.entering(), (who, place), (first,))
    once = Aggregate(traffic.entering(), (who,), (first,))
    return Project(
        once, ((ENTITY.name, ENTITY), (COHORT.name, place_in(ENTRY, asked.periods.edges)), (first.name, ENTRY))
    )


def of_profile(value: Expr, entity: Entity) -> bool:
    """Whether a value is told by the profile of the entity alone."""
    return all(name.startswith(f"{entity}.") for name in columns_of(value))


def beside_profiles(plan: Plan, world: EventWorld, entity: Entity, values: Sequence[Expr]) -> Plan:
    """The rows, each beside the attributes of its entity's profile that the values read."""
    names = sorted(frozenset[str]().union(*(columns_of(v) for v in values)))
    if not names:
        return plan
    known = {profile_column(entity, a.name, a.type).name: Column(a.name, a.type) for a in world.of(entity).attributes}
    key = Column(f"{entity}.#key", Type.STRING)
    columns: tuple[Named, ...] = (
        (key.name, profile_key(entity)),
        *((name, known[name]) for name in names),
    )
    return Join(plan, Project(world.of(entity).relation, columns), "left", ((ENTITY, key),))


def entries_beside(
    world: EventWorld, traffic: Traffic, asked: Retention, values: Sequence[Expr]
) -> tuple[Plan, list[Expr]]:
    """Entries, and each value as it is there: on the event of entry, of several at one time the smallest."""
    plan = entries(traffic, asked)
    on_events = [v for v in values if not of_profile(v, asked.entity)]
    told = {v: Column(f"#value{n}", Type.STRING) for n, v in enumerate(dict.fromkeys(on_events))}
    if told:
        renamed = tuple((f"#{c.name}", Column(c.name, c.type)) for c in (ENTITY, COHORT, ENTRY))
        mine, place, time = (Column(f"#{c.name}", c.type) for c in (ENTITY, COHORT, ENTRY))
        met = Join(traffic.entering(), Project(plan, renamed), "inner", ((traffic.entity, mine), (TIME, time)))
        keys = ((ENTITY.name, mine), (COHORT.name, place), (ENTRY.name, time))
        plan = Aggregate(met, keys, tuple(Measure(c.name, Agg.MIN, text_of(v)) for v, c in told.items()))
    of_profiles = [v for v in values if v not in told]
    return beside_profiles(plan, world, asked.entity, of_profiles), [told.get(v, v) for v in values]


def group_names(count: int) -> tuple[Named, ...]:
    """The ranks of groups, then their values."""
    places = range(count)
    return (*((rank_of(n).name, rank_of(n)) for n in places), *((key_of(n).name, key_of(n)) for n in places))


@dataclass(frozen=True, slots=True)
class Counted:
    """Plans of rows to be tallied, and warnings. Without `wide`: the cohorts' sizes, then those who return."""

    plans: tuple[Plan, ...]
    warnings: tuple[str, ...]
    same: bool
    wide: bool = False


def count_long(world: EventWorld, asked: Retention, traffic: Traffic, groups: Sequence[RetentionGroup]) -> Counted:
    """Sizes: ranks and values of groups, `cohort`, `count`; returns: the same with the period's place before `count`.

    With `or_after` each entity is counted once a cohort, in the place of its last return. Groups are those of entries.
    """
    values, warnings = group_values(world, [g.group for g in groups])
    plan, told = entries_beside(world, traffic, asked, values)
    plain = [g.group for g in groups]
    plan = ranked(keyed(plan, plain, values, told), plain, (BY_COUNT,) * len(plain))
    named = group_names(len(plain))
    sizes = Aggregate(plan, (*named, (COHORT.name, COHORT)), (Measure(COUNT, Agg.COUNT),))
    returns = _returns(traffic, asked)
    met: Plan = Filter(Join(plan, returns, "inner", ((ENTITY, RETURNER),)), traffic.is_return(LAST))
    keys = (*named, (COHORT.name, COHORT))
    if asked.periods.grid is not None:
        cells = Aggregate(met, (*keys, (PLACE.name, PLACE)), (Measure(COUNT, Agg.COUNT),))
    else:
        met, column = own_column(met, asked.periods, LAST)
        once = Aggregate(met, ((ENTITY.name, ENTITY), *keys, (PLACE.name, column)), ())
        cells = Aggregate(once, (*keys, (PLACE.name, PLACE)), (Measure(COUNT, Agg.COUNT),))
    return Counted((sizes, cells), (*traffic.warnings, *warnings), traffic.same)


def _returns(traffic: Traffic, asked: Retention) -> Plan:
    """A row an entity and shared period, with the time of the last return in it; with `or_after` a row an entity.

    Without shared periods a row an entity and time.
    """
    who = (RETURNER.name, traffic.entity)
    last = Measure(LAST.name, Agg.MAX, TIME)
    grid = asked.periods.grid
    if asked.or_after:
        once = Aggregate(traffic.returning(), (who,), (last,))
        if grid is None:
            return once
        return Project(once, ((RETURNER.name, RETURNER), (PLACE.name, place_in(LAST, grid)), (LAST.name, LAST)))
    if grid is None:
        return Aggregate(traffic.returning(), (who, (LAST.name, TIME)), ())
    return Aggregate(traffic.returning(), (who, (PLACE.name, place_in(TIME, grid))), (last,))


def own_column(plan: Plan, periods: Periods, time: Expr) -> tuple[Plan, Expr]:
    """Rows with a cohort beside its start, and the column that a time lies in, counted from there."""
    of, start = Column("#of", Type.INTEGER), Column("#start", Type.INTEGER)
    starts = Values(
        (SchemaColumn(of.name, of.type), SchemaColumn(start.name, start.type)), tuple(enumerate(periods.edges[:-1]))
    )
    since = Call(Fn.SUBTRACT, (Cast(time, Type.INTEGER), start))
    return Join(plan, starts, "inner", ((COHORT, of),)), Bucket(Cast(since, Type.TIMESTAMP), 0, periods.width_ms)


@dataclass(frozen=True, slots=True)
class CellRequest:
    """Who is in a cell: which attributes of their profiles, how many."""

    retention: Retention
    cohort: int
    column: int
    columns: tuple[str, ...]
    limit: int


@dataclass(frozen=True, slots=True)
class Listed:
    """The plans of the rows in the order of their keys, and of how many there are, and warnings."""

    plans: tuple[Plan, ...]
    warnings: tuple[str, ...]


def in_column(asked: Retention, cohort: int, column: int) -> Expr:
    """An event lies in a cohort's period of return; with `or_after`, or later."""
    period = asked.periods.period(cohort, column)
    within: Expr = Compare(">=", TIME, Literal(instant(period.from_ms), Type.TIMESTAMP))
    if asked.or_after:
        return within
    return conjunction(within, Compare("<", TIME, Literal(instant(period.to_ms), Type.TIMESTAMP)))


def cell_entities(traffic: Traffic, asked: Retention, cohort: int, column: int) -> Plan:
    """A row an entity of the cell: `entity`, `cohort`, `entry`."""
    plan: Plan = Filter(entries(traffic, asked), Compare("=", COHORT, Literal(cohort, Type.INTEGER)))
    if traffic.same and column == 0:
        return plan
    last = Measure(LAST.name, Agg.MAX, TIME)
    within = Filter(traffic.returning(), in_column(asked, cohort, column))
    returns = Aggregate(within, ((RETURNER.name, traffic.entity),), (last,))
    return Filter(Join(plan, returns, "inner", ((ENTITY, RETURNER),)), traffic.is_return(LAST))


KEY_NAMES = {Entity.USERS: "@usr.id", Entity.ACCOUNTS: "@account.id"}
_PATHS = {c.path: c.name for c in EVENT_COLUMNS}


def list_cell(world: EventWorld, asked: CellRequest) -> Listed:
    """The entities of a cell: a column a name in the order asked; a name is a profile's attribute, or the key.

    Paths of the event that say who someone is, such as @usr.email, mean the attribute they give.
    """
    entity = asked.retention.entity
    traffic = traffic_of(world, asked.retention)
    people = cell_entities(traffic, asked.retention, asked.cohort, asked.column)
    values, warnings = [], list(traffic.warnings)
    for name in asked.columns:
        value = _attribute(world, entity, name)
        if value is None:
            warnings.append(world.unknown(name, entity))
        values.append(Literal(None, Type.STRING) if value is None else value)
    total = count_rows(people, "total")
    limited = Limit(Sort(people, (SortKey(ENTITY),)), asked.limit)
    others = [v for v in values if v != ENTITY]
    beside = Sort(beside_profiles(limited, world, entity, others), (SortKey(ENTITY),))
    named = tuple((f"{place} {name}", v) for place, (name, v) in enumerate(zip(asked.columns, values, strict=True)))
    return Listed((Project(beside, named), total), tuple(warnings))


def _attribute(world: EventWorld, entity: Entity, name: str) -> Expr | None:
    key = KEY_ATTRIBUTE[entity]
    if name.removeprefix("@") in (key, KEY_NAMES[entity][1:]):
        return ENTITY
    found = world.of(entity).find(name) or world.of(entity).find(_PATHS.get(name.removeprefix("@"), ""))
    return profile_column(entity, found.name, found.type) if found else None
