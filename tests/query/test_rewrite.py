"""Rewrites keep every answer: random plans over random worlds, before and after, by the oracle alone."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import HealthCheck, given, reject, settings, strategies as st

from oracle import TooManyRows, evaluate, same_rows
from random_plans import cases, is_ordered
from roster.query.plan import Plan, Read, Values
from roster.query.rewrite import Rewrite, drop_empty, fold_filters, map_inputs, prune
from worlds import World

MANY = settings(max_examples=200, deadline=None, print_blob=True, suppress_health_check=list(HealthCheck))


def emptied(plan: Plan, relations: set[str]) -> Plan:
    if isinstance(plan, Read) and plan.relation in relations:
        return Values(plan.schema, ())
    return map_inputs(plan, lambda input: emptied(input, relations))


@MANY
@given(case=cases(), data=st.data(), rewrite=st.sampled_from([drop_empty, fold_filters, prune]))
def test_a_rewrite_keeps_every_answer(case: tuple[World, Plan], data: st.DataObject, rewrite: Rewrite) -> None:
    world, plan = case
    chosen = data.draw(st.sets(st.sampled_from(sorted(world.tables))))
    world = replace(world, tables={name: [] if name in chosen else rows for name, rows in world.tables.items()})
    plan = emptied(plan, chosen)
    try:
        expected = evaluate(plan, world.tables)
        actual = evaluate(rewrite(plan), world.tables)
    except TooManyRows:
        reject()
    assert same_rows(expected, actual, is_ordered(plan) and is_ordered(rewrite(plan)))
