"""Owns finding what one plan or several hold more than once, so that it is computed once. Runs nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from roster.model.schema import Column as SchemaColumn
from roster.query.expr import Column
from roster.query.plan import (
    Aggregate,
    Filter,
    Join,
    MatchSteps,
    Plan,
    Project,
    Read,
    Union,
    Window,
    inputs_of,
    schema_of,
)
from roster.query.rewrite import map_inputs, prune


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


COMMON = "common:"
"""How the names of relations begin that hold what several plans compute alike while they run."""


@dataclass(frozen=True, slots=True)
class Part:
    """A plan; `kept_as`: the relation in which later ones read its rows, empty for one that was asked for."""

    plan: Plan
    kept_as: str = ""


def split_common(plans: Sequence[Plan]) -> list[Part]:
    """What several of the plans compute alike, then each plan in its order, reading that.

    Only what is small beside the rows it is made of is worth keeping: matched steps, aggregates, what follows them.
    """
    holders = Counter(part for plan in plans for part in set(_condensed_parts(plan)))
    common: dict[Plan, Read] = {}
    reading = [prune(_read_common(plan, holders, common)) for plan in plans]
    needed = {(read.relation, column.name) for plan in reading for read in _reads(plan) for column in read.schema}
    kept = [Part(_narrowed(plan, read, needed), read.relation) for plan, read in common.items()]
    return [*kept, *map(Part, reading)]


def _condensed_parts(plan: Plan) -> Iterator[Plan]:
    if _is_condensed(plan):
        yield plan
    for each in inputs_of(plan):
        yield from _condensed_parts(each)


def _is_condensed(plan: Plan) -> bool:
    match plan:
        case MatchSteps() | Aggregate():
            return True
        case Filter() | Project() | Window() | Join() | Union():
            return all(map(_is_condensed, inputs_of(plan)))
        case _:
            return False


def _read_common(plan: Plan, holders: Counter[Plan], common: dict[Plan, Read]) -> Plan:
    """The plan with its outermost parts that others hold too replaced by reads, which are added to `common`."""
    if holders[plan] < 2:
        return map_inputs(plan, lambda input: _read_common(input, holders, common))
    columns = [(column, SchemaColumn(f"c{n}", column.type)) for n, column in enumerate(schema_of(plan))]
    read = common.setdefault(plan, Read(f"{COMMON}{len(common)}", tuple(kept for _, kept in columns)))
    return Project(read, tuple((column.name, Column(kept.name, kept.type)) for column, kept in columns))


def _reads(plan: Plan) -> Iterator[Read]:
    if isinstance(plan, Read):
        yield plan
    for each in inputs_of(plan):
        yield from _reads(each)


def _narrowed(plan: Plan, read: Read, needed: set[tuple[str, str]]) -> Plan:
    pairs = zip(schema_of(plan), read.schema, strict=True)
    kept = [(place.name, Column(c.name, c.type)) for c, place in pairs if (read.relation, place.name) in needed]
    return Project(plan, tuple(kept))
