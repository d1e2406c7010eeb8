"""Owns finding what one plan or several hold more than once, so that it is computed once. Runs nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

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
    parts_of,
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
    """What several of the plans compute alike, each part before those that read it, then the plans in their order.

    Only what is small beside the rows it is made of is worth keeping: matched steps, aggregates, what follows them.
    """
    held = _count_holders(plans) if len(plans) > 1 else Counter[Plan]()
    if max(held.values(), default=0) < 2:
        return [Part(plan) for plan in plans]
    spared = [prune(plan, _repeats(held)) for plan in plans]  # what a plan does not read is not kept for it
    repeats = _repeats(_count_holders(spared))
    kept: dict[Plan, tuple[Read, Plan]] = {}
    parts = [Part(prune(_read_common(plan, repeats, kept))) for plan in spared]
    for read, plan in reversed(kept.values()):
        below = (found for part in parts for found in parts_of(part.plan))
        readers = [found for found in below if isinstance(found, Read) and found.relation == read.relation]
        if len(readers) == 1:
            parts = [replace(part, plan=_put(part.plan, readers[0], plan)) for part in parts]
        elif readers:
            needed = {column.name for found in readers for column in found.schema}
            parts.insert(0, Part(prune(_named(plan, needed)), read.relation))
    return parts


def _count_holders(plans: Sequence[Plan]) -> Counter[Plan]:
    """How many of the plans hold each part that is worth keeping."""
    return Counter(part for plan in plans for part in set(filter(_is_condensed, parts_of(plan))))


def _repeats(holders: Counter[Plan]) -> Callable[[Plan], bool]:
    """Whether several plans hold a part; most plans are told apart without looking at all that they hold."""
    return lambda plan: _is_condensed(plan) and holders[plan] > 1


def _is_condensed(plan: Plan) -> bool:
    match plan:
        case MatchSteps() | Aggregate():
            return True
        case Filter() | Project() | Window() | Join() | Union():
            return all(map(_is_condensed, inputs_of(plan)))
        case _:
            return False


def _read_common(plan: Plan, repeats: Callable[[Plan], bool], kept: dict[Plan, tuple[Read, Plan]]) -> Plan:
    """The plan with parts that repeat replaced by reads; they are added to `kept`, inner ones first."""
    made = map_inputs(plan, lambda input: _read_common(input, repeats, kept))
    if not repeats(plan):
        return made
    if plan not in kept:
        schema = tuple(SchemaColumn(f"c{n}", column.type) for n, column in enumerate(schema_of(plan)))
        kept[plan] = Read(f"{COMMON}{len(kept)}", schema), made
    read = kept[plan][0]
    pairs = zip(schema_of(plan), read.schema, strict=True)
    return Project(read, tuple((column.name, Column(place.name, place.type)) for column, place in pairs))


def _named(plan: Plan, needed: set[str]) -> Plan:
    """The needed columns of a kept part, named by their places."""
    places = ((f"c{n}", column) for n, column in enumerate(schema_of(plan)))
    return Project(plan, tuple((place, Column(c.name, c.type)) for place, c in places if place in needed))


def _put(plan: Plan, read: Read, part: Plan) -> Plan:
    """The plan with a part in the place where it reads it."""
    if plan == read:
        return prune(_named(part, {column.name for column in read.schema}))
    return map_inputs(plan, lambda input: _put(input, read, part))
