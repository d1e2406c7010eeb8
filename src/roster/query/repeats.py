"""Owns finding the aggregates that one plan holds more than once, so that they are computed once. Changes no plan."""

from __future__ import annotations

from collections.abc import Iterator

from roster.query.plan import Aggregate, Plan, inputs_of


def repeated_aggregates(plan: Plan) -> tuple[Aggregate, ...]:
    """The aggregates that occur more than once; not those that occur only inside another such one."""
    seen: list[Aggregate] = []
    repeated: list[Aggregate] = []
    waiting = [plan]
    while waiting:
        for aggregate in _outermost(waiting.pop()):
            if aggregate not in seen:
                seen.append(aggregate)
                waiting.append(aggregate.input)
            elif aggregate not in repeated:
                repeated.append(aggregate)
    return tuple(repeated)


def _outermost(plan: Plan) -> Iterator[Aggregate]:
    if isinstance(plan, Aggregate):
        yield plan
        return
    for each in inputs_of(plan):
        yield from _outermost(each)
