"""Owns the grid of a retention: cohorts, their cells, the weighted row, and numbers made of cells. Reads no data."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from statistics import fmean, median
from typing import Any

from roster.analyses.retention import Counted, RetentionGroup
from roster.analyses.retention_periods import Periods

Tags = tuple[str, ...]
ROLL_UPS: dict[str, Callable[[Sequence[float]], float]] = {
    "sum": sum,
    "avg": fmean,
    "min": min,
    "max": max,
    "median": median,
}
NATURAL = ("count", "cardinality")
AGGREGATIONS = (*NATURAL, *ROLL_UPS)


@dataclass(frozen=True, slots=True)
class Tally:
    """One group: its values, the size of each cohort, and how many return in each of its columns."""

    tags: Tags
    sizes: tuple[int, ...]
    counts: tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True)
class Cell:
    """`count` is None in the weighted row; `rate` and `value` are None where there is nothing to weigh."""

    column: int
    count: int | None
    rate: float | None
    value: float | None
    change: float | None
    partial: bool


@dataclass(frozen=True, slots=True)
class Row:
    """A cohort of a group; `cohort` and `size` are None for the weighted row."""

    tags: Tags
    cohort: int | None
    size: int | None
    cells: tuple[Cell, ...]


@dataclass(frozen=True, slots=True)
class Scope:
    """A part of the grid: a cohort (or the weighted row), a column, or where they cross."""

    cohort: int | None = None
    weighted: bool = False
    column: int | None = None

    def admits(self, row: Row) -> bool:
        if self.weighted:
            return row.cohort is None
        return self.cohort is None or row.cohort == self.cohort


WHOLE = Scope()


Rows = Sequence[tuple[Any, ...]]


def tally(
    counted: Counted, answers: Sequence[Rows], periods: Periods, groups: Sequence[RetentionGroup], *, or_after: bool
) -> list[Tally]:
    """What the rows of the plans say, a group each in their order; without groups there is always one."""
    if counted.wide:
        found = [_of_wide(row, len(groups), periods) for row in answers[0]]
    else:
        found = _of_long(counted, answers, periods, groups, or_after=or_after)
    return found if found or groups else [_empty((), periods).told()]


def _of_wide(row: tuple[Any, ...], groups: int, periods: Periods) -> Tally:
    numbers = (number or 0 for number in row[groups:])
    sizes = tuple(next(numbers) for _ in range(periods.cohorts))
    counts = tuple((size, *islice(numbers, periods.columns(cohort) - 1)) for cohort, size in enumerate(sizes))
    return Tally(row[:groups], sizes, counts)


@dataclass(slots=True)
class _Sheet:
    tags: Tags
    sizes: list[int]
    counts: list[list[int]]

    def told(self) -> Tally:
        return Tally(self.tags, tuple(self.sizes), tuple(map(tuple, self.counts)))


def _empty(tags: Tags, periods: Periods) -> _Sheet:
    cohorts = range(periods.cohorts)
    return _Sheet(tags, [0] * periods.cohorts, [[0] * periods.columns(c) for c in cohorts])


def _of_long(
    counted: Counted, answers: Sequence[Rows], periods: Periods, groups: Sequence[RetentionGroup], *, or_after: bool
) -> list[Tally]:
    of_entries = sum(not g.returns for g in groups)
    of_returns = len(groups) - of_entries
    sizes: dict[tuple[Any, ...], list[int]] = {}
    for row in answers[0]:
        sizes.setdefault(row[: 2 * of_entries], [0] * periods.cohorts)[row[-2]] = row[-1]
    sheets: dict[tuple[Any, ...], _Sheet] = {}
    if not of_returns:
        for key, held in sizes.items():
            sheets[key] = _empty(key[of_entries:], periods)
            sheets[key].sizes = held
            if counted.same:
                for cohort, size in enumerate(held):
                    sheets[key].counts[cohort][0] = size
    for row in answers[1]:
        outer, inner = row[: 2 * of_entries], row[2 * of_entries : 2 * len(groups)]
        key = (*outer, *inner)
        if key not in sheets:
            tags = _in_order(groups, outer[of_entries:], inner[of_returns:])
            sheets[key] = _empty(tags, periods)
            sheets[key].sizes = sizes[outer]
        _add(sheets[key], row[2 * len(groups) :], periods, same=counted.same, or_after=or_after)
    order = sorted(sheets, key=lambda k: (k[:of_entries], k[2 * of_entries : 2 * of_entries + of_returns]))
    return [sheets[key].told() for key in order]


def _in_order(groups: Sequence[RetentionGroup], of_entries: Sequence[str], of_returns: Sequence[str]) -> Tags:
    entries, returns = iter(of_entries), iter(of_returns)
    return tuple(next(returns if g.returns else entries) for g in groups)


def _add(sheet: _Sheet, row: tuple[Any, ...], periods: Periods, *, same: bool, or_after: bool) -> None:
    """Count those of a row: cohort, place, maybe the place of the return before, how many."""
    cohort, place, count = row[0], row[1], row[-1]
    if place is None:
        sheet.counts[cohort][0] += count
        return
    before = row[2] if len(row) == 4 else None
    last = place - periods.bases[cohort]
    since = 0 if before is None else before - periods.bases[cohort] + 1
    for column in range(max(since if or_after else last, 1 if same else 0), last + 1):
        sheet.counts[cohort][column] += count


def rows_of(found: Tally, periods: Periods, until_ms: int, *, rates: bool) -> list[Row]:
    """The weighted row, then the cohorts of a group. Values are rates or counts; periods that end later are partial."""
    raw: list[Row] = []
    for cohort, (size, counts) in enumerate(zip(found.sizes, found.counts, strict=True)):
        cells: list[Cell] = []
        for column, count in enumerate(counts):
            rate = count / size if size else 0.0
            value = rate if rates else float(count)
            change = _change(cells[-1].value, value) if cells else None
            partial = periods.period(cohort, column).to_ms > until_ms
            cells.append(Cell(column, count, rate, value, change, partial))
        raw.append(Row(found.tags, cohort, size, tuple(cells)))
    return [_weighted(found.tags, raw, rates=rates), *raw]


def _change(before: float | None, value: float | None) -> float | None:
    """How much a value differs from the one before, in parts of that."""
    return (value - before) / before if before and value is not None else None


def _weighted(tags: Tags, raw: Sequence[Row], *, rates: bool) -> Row:
    """Each column over the cohorts whose period is over: those who return, of all who might."""
    cells: list[Cell] = []
    for column in range(max(len(row.cells) for row in raw)):
        over = [row for row in raw if column < len(row.cells) and not row.cells[column].partial]
        count = sum(row.cells[column].count or 0 for row in over)
        size = sum(row.size or 0 for row in over)
        rate = (count / size if size else 0.0) if over else None
        value = rate if rates else float(count) if over else None
        change = _change(cells[-1].value, value) if cells else None
        cells.append(Cell(column, None, rate, value, change, not over))
    return Row(tags, None, None, tuple(cells))


def roll_up(values: Sequence[float], aggregation: str, *, rates: bool) -> float | None:
    """One number of many; counts add up and rates average unless asked otherwise. Of nothing: None."""
    if not values:
        return None
    name = ("avg" if rates else "sum") if aggregation in NATURAL else aggregation
    return float(ROLL_UPS[name](values))


def number_of(rows: Sequence[Row], scope: Scope, aggregation: str, *, rates: bool) -> float | None:
    """One number of a group's rows. Only complete periods take part, but a cell is told as it is."""
    if scope.column is None:
        (row,) = [r for r in rows if r.cohort == scope.cohort]
        cells = row.cells[1:] or row.cells
        return roll_up([c.value for c in cells if c.value is not None and not c.partial], aggregation, rates=rates)
    column = scope.column
    if scope.weighted or scope.cohort is not None:
        (row,) = [r for r in rows if r.cohort == scope.cohort]
        return row.cells[column].value
    weighted, *raw = rows
    if aggregation in NATURAL or (rates and aggregation == "avg"):
        return weighted.cells[column].value
    cells = tuple(r.cells[column] for r in raw if column < len(r.cells))
    return roll_up([c.value for c in cells if c.value is not None and not c.partial], aggregation, rates=rates)
