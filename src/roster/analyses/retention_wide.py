"""Owns counting retention in one row an entity: quick where it is about one event and few periods. Runs nothing.

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
from roster.query.expr import Call, Column, Compare, Expr, Fn, If, Literal, conjunction
from roster.query.plan import Agg, Aggregate, Measure, Plan, Project, schema_of
from roster.query.relations import where

PERIODS_MAX = 20
"""With more, a row an entity and period is quicker."""
_PLACE = Column("#place", Type.INTEGER)
_FIRST, _LAST = Column("#first", Type.INTEGER), Column("#last", Type.INTEGER)
_SIZE = Column("#size", Type.INTEGER)
_ZERO, _ONE = Literal(0, Type.INTEGER), Literal(1, Type.INTEGER)


def is_wide(world: EventWorld, asked: Retention, traffic: Traffic, groups: Sequence[RetentionGroup]) -> bool:
    """Whether it can be counted so: by one event, in shared periods, in groups that profiles alone tell."""
    periods = asked.periods
    if not (traffic.same and periods.aligned) or periods.cohorts > PERIODS_MAX or any(g.returns for g in groups):
        return False
    values, _ = group_values(world, [g.group for g in groups])
    return all(of_profile(value, asked.entity) for value in values)


def count_wide(world: EventWorld, asked: Retention, traffic: Traffic, groups: Sequence[RetentionGroup]) -> Counted:
    """A row a group, the best first: its values, the size of each cohort, then each cohort's columns from 1 on."""
    values, warnings = group_values(world, [g.group for g in groups])
    plan = beside_profiles(_people(asked, traffic), world, asked.entity, values)
    members = [_is_member(asked, cohort) for cohort in range(asked.periods.cohorts)]
    measures = [Measure(f"{cohort}", Agg.COUNT, _one(member)) for cohort, member in enumerate(members)]
    for cohort, member in enumerate(members):
        for column in range(1, asked.periods.columns(cohort)):
            both = conjunction(member, _returns(asked, cohort + column))
            measures.append(Measure(f"{cohort}.{column}", Agg.COUNT, _one(both)))
    if groups:
        plan = _with_size(plan, members)
    plain = [g.group for g in groups]
    by = Measure(BY, Agg.SUM, _SIZE)
    made = grouped(keyed(plan, plain, values), plain, (by,) * len(plain), measures)
    return Counted((made,), (*traffic.warnings, *warnings), same=True, wide=True)


def _people(asked: Retention, traffic: Traffic) -> Plan:
    """A row an entity with how often it did it in each period, and the first and last of these."""
    place = (_PLACE.name, place_in(TIME, asked.periods.edges))
    rows = Project(traffic.entering(), ((ENTITY.name, traffic.entity), place))
    often = [
        Measure(_often(k).name, Agg.COUNT, _one(Compare("=", _PLACE, Literal(k, Type.INTEGER))))
        for k in range(asked.periods.cohorts)
    ]
    first = [Measure(_FIRST.name, Agg.MIN, _PLACE)] if asked.first_only else []
    last = [Measure(_LAST.name, Agg.MAX, _PLACE)] if asked.or_after else []
    return Aggregate(rows, ((ENTITY.name, ENTITY),), (*often, *first, *last))


def _often(number: int) -> Column:
    return Column(f"#often{number}", Type.INTEGER)


def _one(condition: Expr) -> Expr:
    return If(condition, _ONE, Literal(None, Type.INTEGER))


def _is_member(asked: Retention, number: int) -> Expr:
    if asked.first_only:
        return Compare("=", _FIRST, Literal(number, Type.INTEGER))
    return Compare(">", _often(number), _ZERO)


def _returns(asked: Retention, number: int) -> Expr:
    """Whoever entered in an earlier period returns in this one."""
    if asked.or_after:
        return Compare(">=", _LAST, Literal(number, Type.INTEGER))
    return Compare(">", _often(number), _ZERO)


def _with_size(plan: Plan, members: Sequence[Expr]) -> Plan:
    """Those who are in a cohort, beside in how many: groups are ranked by it."""
    size: Expr = _ZERO
    for member in members:
        size = Call(Fn.ADD, (size, If(member, _ONE, _ZERO)))
    named = tuple((c.name, Column(c.name, c.type)) for c in schema_of(plan))
    return where(Project(plan, (*named, (_SIZE.name, size))), Compare(">", _SIZE, _ZERO))
