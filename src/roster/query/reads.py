"""Owns how many rows a plan has to look at, as plans that count them. Runs nothing."""

from __future__ import annotations

from collections.abc import Iterator

from roster.model.schema import Type
from roster.query.expr import Column, Compare, Expr, Literal, conjunction, conjuncts
from roster.query.plan import Agg, Aggregate, Filter, Measure, Plan, Read, inputs_of


def count_reads(plan: Plan) -> list[tuple[str, Plan]]:
    """For each relation a plan reads, as often as it does, the count of its rows in the time that is asked for."""
    return [(relation, Aggregate(read, (), (Measure("rows", Agg.COUNT),))) for relation, read in _reads(plan, ())]


def _reads(plan: Plan, when: tuple[Expr, ...]) -> Iterator[tuple[str, Plan]]:
    match plan:
        case Read(relation):
            yield relation, Filter(plan, conjunction(*when)) if when else plan
        case Filter(input, where):
            yield from _reads(input, (*when, *(part for part in conjuncts(where) if _is_about_time(part))))
        case _:
            for input in inputs_of(plan):
                yield from _reads(input, ())


def _is_about_time(part: Expr) -> bool:
    """Whether it bounds a stored time: blocks of rows outside are passed over."""
    match part:
        case Compare(_, Column(_, Type.TIMESTAMP), Literal()):
            return True
    return False
