"""Owns the periods of a retention: those of its cohorts, and those in which each cohort may return. Runs nothing."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, field

from roster.analyses.periods import DAY_MS, Interval, calendar_edges
from roster.base.errors import Code, Error
from roster.base.time import INSTANT_MS_MAX, Range

UNITS_MS = {"day": DAY_MS, "week": 7 * DAY_MS, "month": 30 * DAY_MS}
COHORTS_MAX = 200
COLUMNS_MAX = 200


@dataclass(frozen=True, slots=True)
class Fixed:
    """Periods of one width, wherever clocks change. `unit`, `count`: how a request states the width, where whole."""

    width_ms: int
    unit: str = field(default="millisecond", compare=False)
    count: int = field(default=0, compare=False)


Every = Interval | Fixed


@dataclass(frozen=True, slots=True)
class Periods:
    """Cohort `c` has the events from `edges[c]` up to `edges[c + 1]`; its columns count periods of return from 0 on.

    `grid`: edges of periods of return that all cohorts share, where there are such; column 0 of a cohort is the
    period in place `bases[c]`. Without a grid they are spans of `width_ms` from the cohort's own start on, and
    bases are 0. `end_ms`: data ends there.
    """

    edges: tuple[int, ...]
    end_ms: int
    grid: tuple[int, ...] | None
    bases: tuple[int, ...]
    width_ms: int

    @property
    def cohorts(self) -> int:
        return len(self.edges) - 1

    @property
    def aligned(self) -> bool:
        """Periods of return are those of the cohorts."""
        return self.grid == self.edges

    def cohort(self, cohort: int) -> Range:
        return Range(self.edges[cohort], self.edges[cohort + 1])

    def columns(self, cohort: int) -> int:
        """How many periods of return of a cohort begin before the data ends."""
        if self.grid is not None:
            return len(self.grid) - 1 - self.bases[cohort]
        return -((self.edges[cohort] - self.end_ms) // self.width_ms)

    def period(self, cohort: int, column: int) -> Range:
        """The period of return of a cell."""
        if self.grid is not None:
            place = self.bases[cohort] + column
            return Range(self.grid[place], self.grid[place + 1])
        since = self.edges[cohort] + column * self.width_ms
        return Range(since, since + self.width_ms)


def lay_out(span: Range, cohort: Every, returned: Every, at: str, return_at: str) -> Periods:
    """The periods of a range. Errors: INVALID for too many; `at`: where the intervals stand in the request."""
    edges = _edges(span, cohort, at)
    if len(edges) - 1 > COHORTS_MAX:
        raise _too_many(len(edges) - 1, "cohorts", COHORTS_MAX, at)
    reach = Range(edges[0], span.to_ms)
    starts = edges[:-1]
    if returned == cohort:
        made = Periods(edges, span.to_ms, edges, tuple(range(len(starts))), 0)
    elif isinstance(returned, Interval):
        grid = _edges(reach, returned, return_at)
        made = Periods(edges, span.to_ms, grid, tuple(bisect_right(grid, s) - 1 for s in starts), 0)
    else:
        width_ms = returned.width_ms
        if any((s - edges[0]) % width_ms for s in starts):
            made = Periods(edges, span.to_ms, None, (0,) * len(starts), width_ms)
        else:
            grid = _edges(reach, returned, return_at)
            made = Periods(edges, span.to_ms, grid, tuple((s - edges[0]) // width_ms for s in starts), width_ms)
    if made.columns(0) > COLUMNS_MAX:
        raise _too_many(made.columns(0), "periods of return", COLUMNS_MAX, return_at)
    return made


def _edges(span: Range, every: Every, at: str) -> tuple[int, ...]:
    """Starts of the periods that meet the range, and the end of the last one. Fixed ones count from its start."""
    if isinstance(every, Interval):
        try:
            return calendar_edges(span, every, at)
        except (OverflowError, ValueError) as error:
            raise Error(Code.INVALID, "the calendar has no such periods", at=at, hint="use shorter ones") from error
    count = -((span.from_ms - span.to_ms) // every.width_ms)
    if count > COHORTS_MAX * COLUMNS_MAX:
        raise _too_many(count, "periods", COLUMNS_MAX, at)
    return tuple(span.from_ms + n * every.width_ms for n in range(count + 1))


def _too_many(count: int, what: str, most: int, at: str) -> Error:
    hint = f"at most {most}: use a longer interval or a shorter range"
    return Error(Code.INVALID, f"{count:,} {what} are too many", at=at, hint=hint)


def fixed(unit: str, value: float, at: str) -> Fixed:
    """A day is 24 h, a week 7 days, a month 30 days. Error: INVALID for less than 1 ms, or more than all time."""
    if not value * UNITS_MS[unit] <= INSTANT_MS_MAX or round(value * UNITS_MS[unit]) < 1:
        hint = "at least one millisecond, and less than all time"
        raise Error(Code.INVALID, f"an interval of {value:g} {unit}s is not possible", at=f"{at}/value", hint=hint)
    width_ms = round(value * UNITS_MS[unit])
    return Fixed(width_ms, unit, int(value)) if value == int(value) else Fixed(width_ms, count=width_ms)
