"""Owns counting retention in one row an entity: quick where periods are few. Runs nothing.

An entity's events are read once and grouped by nothing but the entity; what it did in which period are columns.
"""

from __future__ import annotations

from collections.abc import Sequence

from roster.analyses.event_world import TIME, EventWorld
from roster.analyses.explore import group_values
from roster.analyses.groups import BY, grouped, keyed
from roster.analyses.periods import place_in
from roster.analyses.retention import (
    ENTITY,
    Counted,
    Retention,
    RetentionGroup,
    Traffic,
    beside_profiles,
    of_profile,
)
from roster.model.schema import Type
from roster.query.expr import Call, Column, Compare, Expr, Fn, If, IsNull, Literal, Not, Or, conjunction
from roster.query.plan import Agg, Aggregate, Measure, Plan, Project, schema_of
from roster.query.relations import where

PERIODS_MAX = 32
"""With more, a row an entity and period is quicker."""
_PLACE = Column("#place", Type.INTEGER)
_ENTERED, _RETURNED = Column("#entered", Type.BOOLEAN), Column("#returned", Type.BOOLEAN)
_FIRST_PLACE, _LAST_PLACE = Column("#first", Type.INTEGER), Column("#last", Type.INTEGER)
_LAST = Column("#last_time", Type.TIMESTAMP)
_SIZE = Column("#size", Type.INTEGER)
_NO_TIME, _NONE = Literal(None, Type.TIMESTAMP), Literal(None, Type.INTEGER)


def is_wide(world: EventWorld, asked: Retention, groups: Sequence[RetentionGroup]) -> bool:
    """Whether the rows can be counted so: shared periods, and groups that profiles alone tell."""
    if not asked.periods.aligned or asked.periods.cohorts > PERIODS_MAX or any(g.returns for g in groups):
        return False
    values, _ = group_values(world, [g.group for g in groups])
    return all(of_profile(value, asked.entity) for value in values)


def count_wide(world: EventWorld, asked: Retention, traffic: Traffic, groups: Sequence[RetentionGroup]) -> Counted:
    """A row a group, the best first: its values, the size of each cohort, then each cohort's columns one by one.

    Where entry and return are the same, column 0 is left out: it is the size.
    """
    values, warnings = group_values(world, [g.group for g in groups])
    cohorts = range(asked.periods.cohorts)
    plan = beside_profiles(_people(asked, traffic), world, asked.entity, values)
    members = [_is_member(asked, traffic, cohort) for cohort in cohorts]
    measures = [Measure(f"{cohort}", Agg.COUNT, _one(member)) for cohort, member in enumerate(members)]
    for cohort in cohorts:
        for column in range(1 if traffic.same else 0, asked.periods.columns(cohort)):
            both = conjunction(members[cohort], _returns(asked, traffic, cohort, column))
            measures.append(Measure(f"{cohort}.{column}", Agg.COUNT, _one(both)))
    if groups:
        plan = _with_size(plan, members)
    plain = [g.group for g in groups]
    by = Measure(BY, Agg.SUM, _SIZE)
    made = grouped(keyed(plan, plain, values), plain, (by,) * len(plain), measures)
    return Counted((made,), (*traffic.warnings, *warnings), traffic.same, wide=True)


def _people(asked: Retention, traffic: Traffic) -> Plan:
    """A row an entity with what it did in each period."""
    same, periods = traffic.same, range(asked.periods.cohorts)
    wanted = traffic.entered if same else Or((traffic.entered, traffic.returned))
    marks = () if same else ((_ENTERED.name, traffic.entered), (_RETURNED.name, traffic.returned))
    place = (_PLACE.name, place_in(TIME, asked.periods.edges))
    rows = Project(
        where(traffic.plan, conjunction(wanted, Not(IsNull(traffic.entity)))),
        ((ENTITY.name, traffic.entity), (TIME.name, TIME), place, *marks),
    )
    measures: list[Measure] = []
    if asked.first_only:
        measures.append(Measure(_FIRST_PLACE.name, Agg.MIN, _PLACE if same else If(_ENTERED, _PLACE, _NONE)))
    if asked.or_after:
        measures.append(Measure(_LAST_PLACE.name, Agg.MAX, _PLACE if same else If(_RETURNED, _PLACE, _NONE)))
        if not same:
            measures.append(Measure(_LAST.name, Agg.MAX, If(_RETURNED, TIME, _NO_TIME)))
    for k in periods:
        here = Compare("=", _PLACE, Literal(k, Type.INTEGER))
        if same:
            measures.append(Measure(_did(k).name, Agg.COUNT, _one(here)))
            continue
        measures.append(Measure(_entry(k).name, Agg.MIN, If(conjunction(_ENTERED, here), TIME, _NO_TIME)))
        if not asked.or_after:
            measures.append(Measure(_last(k).name, Agg.MAX, If(conjunction(_RETURNED, here), TIME, _NO_TIME)))
    return Aggregate(rows, ((ENTITY.name, ENTITY),), tuple(measures))


def _did(period: int) -> Column:
    return Column(f"#did{period}", Type.INTEGER)


def _entry(period: int) -> Column:
    return Column(f"#entry{period}", Type.TIMESTAMP)


def _last(period: int) -> Column:
    return Column(f"#last{period}", Type.TIMESTAMP)


def _one(condition: Expr) -> Expr:
    return If(condition, Literal(1, Type.INTEGER), _NONE)


def _is_member(asked: Retention, traffic: Traffic, cohort: int) -> Expr:
    if asked.first_only:
        return Compare("=", _FIRST_PLACE, Literal(cohort, Type.INTEGER))
    return Compare(">", _did(cohort), Literal(0, Type.INTEGER)) if traffic.same else Not(IsNull(_entry(cohort)))


def _returns(asked: Retention, traffic: Traffic, cohort: int, column: int) -> Expr:
    """What is true of those who return in a column; where entry and return are the same, of columns after 0."""
    period = cohort + column
    if column == 0:
        return Compare(">=", _LAST if asked.or_after else _last(period), _entry(cohort))
    if asked.or_after:
        return Compare(">=", _LAST_PLACE, Literal(period, Type.INTEGER))
    return Compare(">", _did(period), Literal(0, Type.INTEGER)) if traffic.same else Not(IsNull(_last(period)))


def _with_size(plan: Plan, members: Sequence[Expr]) -> Plan:
    """Those who are in a cohort, beside in how many: groups are ranked by it."""
    zero, one = Literal(0, Type.INTEGER), Literal(1, Type.INTEGER)
    size: Expr = zero
    for member in members:
        size = Call(Fn.ADD, (size, If(member, one, zero)))
    named = tuple((c.name, Column(c.name, c.type)) for c in schema_of(plan))
    return where(Project(plan, (*named, (_SIZE.name, size))), Compare(">", _SIZE, zero))
