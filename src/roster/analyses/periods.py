"""Owns periods: spans of time that follow one another, fixed or by the calendar of a time zone. Reads no clock."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from roster.base.errors import Code, Error, did_you_mean
from roster.base.time import Range, epoch_ms, instant
from roster.model.schema import Type
from roster.query.expr import Bucket, Compare, Expr, If, Literal

SECOND_MS, MINUTE_MS, HOUR_MS, DAY_MS = 1000, 60_000, 3_600_000, 86_400_000
PERIODS_MAX = 5_000
_NICE_MS = tuple(
    unit * count
    for unit, counts in (
        (SECOND_MS, (1, 5, 10, 30)),
        (MINUTE_MS, (1, 5, 10, 30)),
        (HOUR_MS, (1, 2, 6, 12)),
        (DAY_MS, (1, 7, 30, 90, 365)),
    )
    for count in counts
)
BUCKETS_WANTED = 100


class Step(StrEnum):
    MINUTE = "minute"
    HOUR = "hour"
    DAY = "day"
    WEEK = "week"
    MONTH = "month"
    QUARTER = "quarter"
    YEAR = "year"


_MONTHS = {Step.MONTH: 1, Step.QUARTER: 3, Step.YEAR: 12}
_WIDTH = {
    Step.MINUTE: timedelta(minutes=1),
    Step.HOUR: timedelta(hours=1),
    Step.DAY: timedelta(days=1),
    Step.WEEK: timedelta(days=7),
}
_DAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
_YEAR_MONTHS = (
    "january",
    "february",
    "march",
    "april",
    "may",
    "june",
    "july",
    "august",
    "september",
    "october",
    "november",
    "december",
)
_ZERO = datetime(1970, 1, 1)


@dataclass(frozen=True, slots=True)
class Interval:
    """`count` calendar steps in a time zone; `offset`: hours into the day, days after Monday, days into the month, or
    months into the year or quarter at which a period begins."""

    step: Step
    count: int = 1
    offset: int = 0
    zone: str = "UTC"


def fitting_ms(span: Range) -> int:
    """The interval for which a range has about a hundred buckets."""
    wanted = (span.to_ms - span.from_ms) / BUCKETS_WANTED
    return next((ms for ms in _NICE_MS if ms >= wanted), _NICE_MS[-1])


def fixed_edges(span: Range, width_ms: int, at: str) -> tuple[int, ...]:
    """Starts of the buckets that meet the range, multiples of the width, and the end of the last one.

    Error: INVALID when there would be too many.
    """
    first, last = span.from_ms // width_ms, (span.to_ms - 1) // width_ms
    if last - first >= PERIODS_MAX:
        hint = f"use an interval of at least {(span.to_ms - span.from_ms) // PERIODS_MAX + 1} ms"
        raise Error(Code.INVALID, f"{last - first + 1:,} buckets are too many", at=at, hint=hint)
    return tuple(n * width_ms for n in range(first, last + 2))


def calendar_edges(span: Range, interval: Interval, at: str) -> tuple[int, ...]:
    """Starts of the calendar periods that meet the range, and the end of the last one, in epoch ms.

    A period begins at its local time, at the first of two; a local time that a change of clocks skips is taken as the
    instant of the change. Minutes and hours also begin where a change of clocks leads into others.
    """
    zone = ZoneInfo(interval.zone)
    within_day = interval.step in (Step.MINUTE, Step.HOUR)
    edges: list[int] = []
    for at_ms in _short_starts(span, interval, zone) if within_day else _long_starts(span, interval, zone):
        if edges and at_ms <= edges[-1]:
            continue
        edges.append(at_ms)
        if len(edges) > PERIODS_MAX:
            raise Error(Code.INVALID, f"more than {PERIODS_MAX:,} periods", at=at, hint="use a longer interval")
        if at_ms >= span.to_ms:
            break
    first = bisect_right(edges, span.from_ms) - 1
    return tuple(edges[first:])


def _short_starts(span: Range, interval: Interval, zone: ZoneInfo) -> Iterator[int]:
    """Starts of periods of minutes or hours: instants at which the local time enters another such span."""
    width_ms = _WIDTH[interval.step] * interval.count // timedelta(milliseconds=1)
    shift_ms = _shift_ms(span.from_ms, zone)
    at_ms = (span.from_ms + shift_ms) // width_ms * width_ms - shift_ms
    if (before_ms := _shift_ms(at_ms, zone)) != shift_ms:
        change_ms = _change(at_ms, span.from_ms, zone)
        entered = (change_ms - 1 + before_ms) // width_ms != (change_ms + shift_ms) // width_ms
        at_ms = change_ms if entered else (change_ms + before_ms) // width_ms * width_ms - before_ms
    while True:
        yield at_ms
        at_ms = _next_start(at_ms, width_ms, zone)


def _next_start(at_ms: int, width_ms: int, zone: ZoneInfo) -> int:
    """The next instant at which the local time is in another span of this width."""
    shift_ms = _shift_ms(at_ms, zone)
    place = (at_ms + shift_ms) // width_ms
    while True:
        next_ms = (place + 1) * width_ms - shift_ms
        if _shift_ms(next_ms, zone) == shift_ms:
            return next_ms
        change_ms = _change(at_ms, next_ms, zone)
        shift_ms = _shift_ms(change_ms, zone)
        if (change_ms + shift_ms) // width_ms != place:
            return change_ms
        at_ms = change_ms


def _shift_ms(at_ms: int, zone: ZoneInfo) -> int:
    """How far local time is ahead of UTC."""
    return epoch_ms(_local(at_ms, zone)) - at_ms


def _change(low_ms: int, high_ms: int, zone: ZoneInfo) -> int:
    """The instant of the change of clocks between two instants with different clocks."""
    before_ms = _shift_ms(low_ms, zone)
    while high_ms - low_ms > 1:
        middle_ms = (low_ms + high_ms) // 2
        if _shift_ms(middle_ms, zone) == before_ms:
            low_ms = middle_ms
        else:
            high_ms = middle_ms
    return high_ms


def _long_starts(span: Range, interval: Interval, zone: ZoneInfo) -> Iterator[int]:
    """Starts of periods of days and more, the first one not after the range's start."""
    for start in _starts(span, interval, zone):
        yield _at(start, zone)


def _starts(span: Range, interval: Interval, zone: ZoneInfo) -> Iterator[datetime]:
    """Their local times."""
    step, count = interval.step, interval.count
    local = _local(span.from_ms, zone)
    if step in _MONTHS:
        yield from _month_starts(local, _MONTHS[step] * count, interval)
        return
    width = _WIDTH[step] * count
    origin = _ZERO + _origin(interval)
    start = origin + (local - origin) // width * width - width
    while True:
        yield start
        start += width


def _origin(interval: Interval) -> timedelta:
    match interval.step:
        case Step.DAY:
            return timedelta(hours=interval.offset)
        case Step.WEEK:
            return timedelta(days=4 + interval.offset)  # the first Monday after the epoch, a Thursday
        case _:
            return timedelta()


def _month_starts(local: datetime, months: int, interval: Interval) -> Iterator[datetime]:
    is_month = interval.step is Step.MONTH
    shift, day = (0, interval.offset) if is_month else (interval.offset, 0)
    place = (local.year * 12 + local.month - 1 - shift) // months * months + shift - months
    while True:
        first = datetime(place // 12, place % 12 + 1, 1)
        following = datetime((place + 1) // 12, (place + 1) % 12 + 1, 1)
        yield min(first + timedelta(days=day), following - timedelta(days=1))
        place += months


def _local(at_ms: int, zone: ZoneInfo) -> datetime:
    return instant(at_ms).replace(tzinfo=UTC).astimezone(zone).replace(tzinfo=None)


def _at(local: datetime, zone: ZoneInfo) -> int:
    at_ms = epoch_ms(local.replace(tzinfo=zone))
    skipped = _local(at_ms, zone) != local
    return _change(epoch_ms(local.replace(tzinfo=zone, fold=1)), at_ms, zone) if skipped else at_ms


def read_interval(step: str, count: int | None, alignment: str | None, zone: str | None, at: str) -> Interval:
    """A calendar interval as a request states it. Errors: INVALID with the place and what is allowed."""
    try:
        ZoneInfo(zone or "UTC")
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        hint = "an IANA name such as Europe/Berlin, or UTC"
        raise Error(Code.INVALID, f"unknown time zone {zone!r}", at=f"{at}/timezone", hint=hint) from error
    return Interval(Step(step), count or 1, _offset(Step(step), alignment, f"{at}/alignment"), zone or "UTC")


def _offset(step: Step, alignment: str | None, at: str) -> int:
    if not alignment:
        return 0
    text = alignment.strip().lower()
    match step:
        case Step.DAY:
            found = _hour(text)
            wanted = "an hour such as 1am, 2pm or 14"
        case Step.WEEK:
            found = _name(text, _DAYS)
            wanted = "a day such as monday"
        case Step.MONTH:
            found = _ordinal(text)
            wanted = "a day such as 1st or 15th"
        case Step.QUARTER | Step.YEAR:
            found = _name(text, _YEAR_MONTHS)
            wanted = "a month such as january"
        case _:
            found, wanted = None, f"none for {step}"
    if found is None:
        near = did_you_mean(text, (*_DAYS, *_YEAR_MONTHS))
        raise Error(Code.INVALID, f"alignment {alignment!r} has no meaning here", at=at, hint=near or wanted)
    return found % 3 if step is Step.QUARTER else found


def _hour(text: str) -> int | None:
    half = text[-2:] if text.endswith(("am", "pm")) else ""
    number = text.removesuffix(half).strip() if half else text
    if not number.isascii() or not number.isdecimal() or len(number) > 2:
        return None
    hour = int(number)
    if not half:
        return hour if hour < 24 else None
    return hour % 12 + 12 * (half == "pm") if 1 <= hour <= 12 else None


def _name(text: str, names: Sequence[str]) -> int | None:
    return next((n for n, name in enumerate(names) if len(text) >= 3 and name.startswith(text)), None)


def _ordinal(text: str) -> int | None:
    number = text.rstrip("stndrh")
    return int(number) - 1 if number.isascii() and number.isdecimal() and 1 <= int(number) <= 31 else None


def place_in(time: Expr, edges: Sequence[int]) -> Expr:
    """Which period a time lies in, from 0 on, given that it lies in one: INTEGER, null for no time.

    Periods of one width are a division; where the width changes, as with months or clocks, each run of equal ones is.
    """
    runs = list(_runs(edges))
    expr: Expr = _run(time, edges, runs[-1][0])
    for first, last in reversed(runs[:-1]):
        before = Compare("<", time, Literal(instant(edges[last]), Type.TIMESTAMP))
        expr = If(before, _run(time, edges, first), expr)
    return expr


def _runs(edges: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Places of the first and last edge of each run of periods of one width."""
    first = 0
    for n in range(1, len(edges)):
        if n == len(edges) - 1 or edges[n + 1] - edges[n] != edges[first + 1] - edges[first]:
            yield first, n
            first = n


def _run(time: Expr, edges: Sequence[int], first: int) -> Bucket:
    """Buckets of the run's width, counted so that the one at its first edge has that edge's number."""
    width_ms = edges[first + 1] - edges[first]
    return Bucket(time, edges[first] - first * width_ms, width_ms)
