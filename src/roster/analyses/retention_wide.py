"""Owns counting retention in one row an entity: quick where it is about one event and few periods. Runs nothing.

An entity's events are read once and grouped by nothing but the entity; what it did in which period are columns.
"""

from __future__ import annotations

from collections.abc import Sequence

from roster.analyses.event_world import TIME, EventWorld
from roster.analyses.explore import group_values
from roster.analyses.groups import BY, grouped, key_of, keyed
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
from roster.query.plan import Agg, Aggregate, Measure, Plan, Project
from roster.query.relations import where

PERIODS_MAX = 20
"""With more, a row an entity and period is quicker."""
_PLACE = Column("#place", Type.INTEGER)
_FIRST, _LAST = Column("#first", Type.INTEGER), Column("#last", Type.INTEGER)
_ALIKE, _SIZE = Column("#alike", Type.INTEGER), Column("#size", Type.INTEGER)
_ZERO = Literal(0, Type.INTEGER)


def is_wide(world: EventWorld, asked: Retention, traffic: Traffic, groups: Sequence[RetentionGroup]) -> bool:
    """Whether it can be counted so: by one event, in shared periods, in groups that profiles alone tell."""
    periods = asked.periods
    if not (traffic.same and periods.aligned) or periods.cohorts > PERIODS_MAX or any(g.returns for g in groups):
        return False
    values, _ = group_values(world, [g.group for g in groups])
    return all(of_profile(value, asked.entity) for value in values)


def count_wide(world: EventWorld, asked: Retention, traffic: Traffic, groups: Sequence[RetentionGroup]) -> Counted:
    """A row a group, the best first: its values, the size of each cohort, then each cohort's columns from 1 on.

    Of nobody at all the numbers are null.
    """
    plain = [g.group for g in groups]
    values, warnings = group_values(world, plain)
    people = keyed(beside_profiles(_people(asked, traffic), world, asked.entity, values), plain, values)
    members = [_is_member(asked, cohort) for cohort in _periods(asked)]
    sizes = [_those(member) for member in members]
    measures = [Measure(f"{cohort}", Agg.SUM, size) for cohort, size in enumerate(sizes)]
    for cohort, member in enumerate(members):
        for column in range(1, asked.periods.columns(cohort)):
            both = conjunction(member, _returns(asked, cohort + column))
            measures.append(Measure(f"{cohort}.{column}", Agg.SUM, _those(both)))
    by = Measure(BY, Agg.SUM, _SIZE)
    made = grouped(_alike(asked, people, len(plain), sizes), plain, (by,) * len(plain), measures)
    return Counted((made,), (*traffic.warnings, *warnings), same=True, wide=True)


def _people(asked: Retention, traffic: Traffic) -> Plan:
    """A row an entity with whether it did it in each period, and the first and last of these where they matter."""
    place = (_PLACE.name, place_in(TIME, asked.periods.edges))
    rows = Project(traffic.entering(), ((ENTITY.name, traffic.entity), place))
    did = [Measure(_did(k).name, Agg.MAX, Compare("=", _PLACE, Literal(k, Type.INTEGER))) for k in _periods(asked)]
    first = [Measure(_FIRST.name, Agg.MIN, _PLACE)] if asked.first_only else []
    last = [Measure(_LAST.name, Agg.MAX, _PLACE)] if asked.or_after else []
    return Aggregate(rows, ((ENTITY.name, ENTITY),), (*did, *first, *last))


def _alike(asked: Retention, people: Plan, groups: int, sizes: Sequence[Expr]) -> Plan:
    """People of one group who did the same are one row: how many, and in how many cohorts all of them are in all.

    There are few such rows, and many numbers to be made of them.
    """
    keys = [key_of(n) for n in range(groups)]
    keys += [_did(k) for k in _periods(asked)] + [_FIRST] * asked.first_only + [_LAST] * asked.or_after
    counted = Aggregate(people, tuple((key.name, key) for key in keys), (Measure(_ALIKE.name, Agg.COUNT),))
    total: Expr = _ZERO
    for size in sizes:
        total = Call(Fn.ADD, (total, size))
    named = tuple((c.name, c) for c in (*keys, _ALIKE))
    return where(Project(counted, (*named, (_SIZE.name, total))), Compare(">", _SIZE, _ZERO))


def _periods(asked: Retention) -> range:
    return range(asked.periods.cohorts)


def _did(number: int) -> Column:
    return Column(f"#did{number}", Type.BOOLEAN)


def _those(condition: Expr) -> Expr:
    """How many people a row counts where the condition holds."""
    return If(condition, _ALIKE, _ZERO)


def _is_member(asked: Retention, number: int) -> Expr:
    return Compare("=", _FIRST, Literal(number, Type.INTEGER)) if asked.first_only else _did(number)


def _returns(asked: Retention, number: int) -> Expr:
    """Whoever entered in an earlier period returns in this one."""
    return Compare(">=", _LAST, Literal(number, Type.INTEGER)) if asked.or_after else _did(number)
