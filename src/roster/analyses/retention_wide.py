"""Owns counting retention in one row an entity: quick where it is about one event and few periods. Runs nothing.

An entity's events are read once and grouped by nothing but the entity; the periods in which it did it are bits.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

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
from roster.query.expr import Call, Column, Compare, Expr, Fn, HasBit, If, Literal, conjunction
from roster.query.plan import Agg, Aggregate, Measure, Plan, Project

PERIODS_MAX = 16
"""With more, a row an entity and period is quicker. At most BIT_MAX + 1."""
_PLACE, _FIRST = Column("#place", Type.INTEGER), Column("#first", Type.INTEGER)
_MASK, _ALIKE = Column("#mask", Type.INTEGER), Column("#alike", Type.INTEGER)


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
    # Whoever is in one group and did the same counts the same: there are few such rows, and many numbers to be made.
    keys = [*(key_of(n) for n in range(len(plain))), *[_FIRST] * asked.first_only, _MASK]
    alike = Aggregate(people, tuple((key.name, key) for key in keys), (Measure(_ALIKE.name, Agg.COUNT),))
    members = [_is_member(asked, cohort) for cohort in range(asked.periods.cohorts)]
    sizes = [_those(member) for member in members]
    measures = [Measure(f"{cohort}", Agg.SUM, size) for cohort, size in enumerate(sizes)]
    for cohort, member in enumerate(members):
        for column in range(1, asked.periods.columns(cohort)):
            both = conjunction(member, _returns(asked, cohort + column))
            measures.append(Measure(f"{cohort}.{column}", Agg.SUM, _those(both)))
    by = Measure(BY, Agg.SUM, reduce(lambda left, right: Call(Fn.ADD, (left, right)), sizes))
    made = grouped(alike, plain, (by,) * len(plain), measures)
    return Counted((made,), (*traffic.warnings, *warnings), same=True, wide=True)


def _people(asked: Retention, traffic: Traffic) -> Plan:
    """A row an entity with a bit for each period in which it did it, and the first of these where that matters."""
    place = (_PLACE.name, place_in(TIME, asked.periods.edges))
    rows = Project(traffic.entering(), ((ENTITY.name, traffic.entity), place))
    first = [Measure(_FIRST.name, Agg.MIN, _PLACE)] if asked.first_only else []
    return Aggregate(rows, ((ENTITY.name, ENTITY),), (*first, Measure(_MASK.name, Agg.BITS, _PLACE)))


def _those(condition: Expr) -> Expr:
    """How many people a row counts where the condition holds."""
    return If(condition, _ALIKE, Literal(0, Type.INTEGER))


def _is_member(asked: Retention, number: int) -> Expr:
    return Compare("=", _FIRST, Literal(number, Type.INTEGER)) if asked.first_only else HasBit(_MASK, number)


def _returns(asked: Retention, number: int) -> Expr:
    """Whoever entered in an earlier period returns in this one, or with `or_after` in it or a later one."""
    if asked.or_after:
        return Compare(">=", _MASK, Literal(1 << number, Type.INTEGER))
    return HasBit(_MASK, number)
