"""Owns what scalars, timeseries and lists must be, in plain Python from lists of events; knows no plans and no SQL."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from analyses.event_worlds import Fact, number_of, text_of, texts_of, untyped_order

DEEP = "@context.plan"
"""A path that events have no column for: it may hold anything."""
Op = Callable[[int, int], bool]
OPS: dict[str, Op] = {
    "=": lambda a, b: a == b,
    ">=": lambda a, b: a >= b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    "<": lambda a, b: a < b,
}


@dataclass(frozen=True)
class Measured:
    """An aggregation of a metric."""

    aggregation: str
    metric: str | None = None


@dataclass(frozen=True)
class Grouped:
    facet: str
    limit: int
    exclude_missing: bool
    rank: Measured | None
    descending: bool


def often(events: Sequence[Fact], op: str, count: int) -> list[Fact]:
    """The events of whoever has so many of them."""
    counts: dict[str, int] = defaultdict(int)
    for event in events:
        if event["person"] is not None:
            counts[event["person"]] += 1
    return [e for e in events if e["person"] is not None and OPS[op](counts[e["person"]], count)]


def measured(events: Sequence[Fact], measure: Measured) -> float | None:
    if measure.aggregation == "count":
        return len(events)
    values = [e[measure.metric] for e in events]
    if measure.aggregation == "cardinality":
        return len({text_of(v) for v in values} - {None})
    numbers = sorted(n for v in values if (n := number_of(v)) is not None)
    if not numbers:
        return None
    match measure.aggregation:
        case "sum":
            return sum(numbers)
        case "avg":
            return sum(numbers) / len(numbers)
        case "min":
            return numbers[0]
        case "max":
            return numbers[-1]
    share = 0.5 if measure.aggregation == "median" else int(measure.aggregation.removeprefix("pc")) / 100
    place = share * (len(numbers) - 1)
    low = int(place)
    high = min(low + 1, len(numbers) - 1)
    return numbers[low] + (numbers[high] - numbers[low]) * (place - low)


def groups_of(events: Sequence[Fact], groups: Sequence[Grouped], computed: Measured) -> list[tuple[Any, list[Fact]]]:
    """The groups that stay, as (values, events), in their order: each facet's best within the one before."""
    if not groups:
        return [((), list(events))]
    first, *rest = groups
    by_value: dict[str, list[Fact]] = defaultdict(list)
    for event in events:
        for text in texts_of(event[first.facet]) or ([] if first.exclude_missing else ["N/A"]):
            by_value[text].append(event)
    rank = first.rank or computed
    ranked = [(measured(theirs, rank), value, theirs) for value, theirs in by_value.items()]
    ranked.sort(key=lambda item: item[1])
    ranked.sort(key=lambda item: -(item[0] or 0) if first.descending else item[0] or 0)
    ranked.sort(key=lambda item: item[0] is None)
    found = []
    for _, value, theirs in ranked[: first.limit]:
        found += [((value, *more), inner) for more, inner in groups_of(theirs, rest, computed)]
    return found


def scalar(events: Sequence[Fact], computed: Measured, groups: Sequence[Grouped]) -> list[tuple[Any, ...]]:
    """The groups' values, then the number; without groups one number, also of no events."""
    return [(*values, measured(theirs, computed)) for values, theirs in _kept(events, groups, computed)]


def timeseries(
    events: Sequence[Fact], computed: Measured, groups: Sequence[Grouped], width_ms: int, from_ms: int
) -> list[tuple[Any, ...]]:
    """The groups' values, the bucket's place, and the number, of each bucket that has events."""
    first = from_ms // width_ms
    found = []
    for values, theirs in _kept(events, groups, computed):
        buckets: dict[int, list[Fact]] = defaultdict(list)
        for event in theirs:
            buckets[event["ms"] // width_ms - first].append(event)
        found += [(*values, place, measured(buckets[place], computed)) for place in sorted(buckets)]
    return found


def _kept(events: Sequence[Fact], groups: Sequence[Grouped], computed: Measured) -> list[tuple[Any, list[Fact]]]:
    """Groups by every facet; an event that any of them leaves out is in none, not even where groups are ranked."""
    left_out = {g.facet for g in groups if g.exclude_missing}
    return groups_of([e for e in events if all(texts_of(e[f]) for f in left_out)], groups, computed)


def listed(
    events: Sequence[Fact], columns: Sequence[str], sort: str | None, descending: bool, limit: int
) -> list[tuple[Any, ...]]:
    """Rows of the columns' values; nulls last, and events of one value by time in the same direction, then by id."""
    rows = sorted(events, key=lambda e: e["id"])
    rows.sort(key=lambda e: e["ms"], reverse=descending)
    if sort is not None:
        value = {e["id"]: untyped_order(e[sort], descending) if sort == DEEP else e[sort] for e in rows}
        known = [e for e in rows if value[e["id"]] is not None]
        known.sort(key=lambda e: value[e["id"]], reverse=descending)
        rows = known + [e for e in rows if value[e["id"]] is None]
    return [tuple(e[c] for c in columns) for e in rows[:limit]]
