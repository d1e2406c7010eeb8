"""Periods: every instant lies in exactly the one that its local time says, whatever clocks do."""

from __future__ import annotations

from bisect import bisect_right
from calendar import monthrange
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import duckdb
import pytest
from hypothesis import example, given, note, strategies as st

from analyses.event_worlds import DAY_MS, HOUR_MS, MANY, connect, rows_of
from oracle_values import value_of
from roster.analyses.periods import (
    PERIODS_MAX,
    Interval,
    Step,
    calendar_edges,
    fitting_ms,
    fixed_edges,
    place_in,
    read_interval,
)
from roster.base.errors import Code, Error
from roster.base.time import Range, epoch_ms, instant
from roster.model.schema import Column as SchemaColumn, Type
from roster.query.expr import Column
from roster.query.plan import Project, Sort, SortKey, Values

ZONES = ("UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata", "Australia/Lord_Howe")
WIDTH_MS = {Step.MINUTE: 60_000, Step.HOUR: HOUR_MS, Step.DAY: DAY_MS, Step.WEEK: 7 * DAY_MS}
MONTHS = {Step.MONTH: 1, Step.QUARTER: 3, Step.YEAR: 12}
LONGEST_MS = {Step.MINUTE: 4 * HOUR_MS, Step.HOUR: 5 * DAY_MS, Step.DAY: 400 * DAY_MS}
OFFSETS = {Step.DAY: 23, Step.WEEK: 6, Step.MONTH: 30, Step.QUARTER: 2, Step.YEAR: 11}
TIME = Column("time", Type.TIMESTAMP)


def at(text: str) -> int:
    return epoch_ms(datetime.fromisoformat(text))


CHANGES = tuple(
    at(text)
    for text in (
        "2025-03-30T01:00",  # Berlin skips 02:00 to 03:00
        "2025-10-26T01:00",  # Berlin has 02:00 to 03:00 twice
        "2025-03-09T07:00",  # New York skips an hour
        "2025-11-02T06:00",  # New York has one twice
        "2025-04-05T15:00",  # Lord Howe has 01:30 to 02:00 twice
        "2025-10-04T15:30",  # Lord Howe skips 02:00 to 02:30
    )
)


def label(at_ms: int, interval: Interval) -> int:
    """Which period the local time of an instant says."""
    local = datetime.fromtimestamp(at_ms // 1000, UTC).astimezone(ZoneInfo(interval.zone)).replace(tzinfo=None)
    if interval.step not in MONTHS:
        since = {
            Step.DAY: datetime(1970, 1, 1) + timedelta(hours=interval.offset),
            Step.WEEK: datetime(1970, 1, 5) + timedelta(days=interval.offset),
        }.get(interval.step, datetime(1970, 1, 1))
        return (local - since) // timedelta(milliseconds=WIDTH_MS[interval.step] * interval.count)
    month = local.year * 12 + local.month - 1
    if interval.step is Step.MONTH:
        begins = min(interval.offset + 1, monthrange(local.year, local.month)[1])
        month -= local.day < begins
    else:
        month -= interval.offset
    return month // (MONTHS[interval.step] * interval.count)


@st.composite
def intervals(draw: st.DrawFn) -> Interval:
    step = draw(st.sampled_from(Step))
    offset = draw(st.sampled_from([0, 0, *range(OFFSETS.get(step, 0) + 1)]))
    return Interval(step, draw(st.sampled_from([1, 1, 1, 2, 3, 7])), offset, draw(st.sampled_from(ZONES)))


@st.composite
def ranges(draw: st.DrawFn, longest_ms: int) -> Range:
    """Near a change of clocks, or anywhere."""
    near = st.builds(lambda c, ms: c + ms, st.sampled_from(CHANGES), st.integers(-3 * HOUR_MS, 3 * HOUR_MS))
    from_ms = draw(st.sampled_from(CHANGES) | near | st.integers(at("1971-01-01"), at("2037-01-01")))
    return Range(from_ms, from_ms + draw(st.integers(1, longest_ms)))


@st.composite
def laid_out(draw: st.DrawFn) -> tuple[Interval, Range, list[int]]:
    """An interval, a range, and instants of it."""
    interval = draw(intervals())
    span = draw(ranges(LONGEST_MS.get(interval.step, 3000 * DAY_MS)))
    inside = st.integers(span.from_ms, span.to_ms - 1)
    return interval, span, [span.from_ms, span.to_ms - 1, *draw(st.lists(inside, max_size=20))]


@MANY
@given(laid_out())
def test_every_instant_is_in_the_period_that_its_local_time_says(given: tuple[Interval, Range, list[int]]) -> None:
    interval, span, instants = given
    edges = calendar_edges(span, interval, "/i")
    note(f"{interval} {span} {[str(instant(e)) for e in edges[:50]]}")
    assert list(edges) == sorted(set(edges))
    assert edges[0] <= span.from_ms < edges[1]
    assert edges[-2] < span.to_ms <= edges[-1]
    near = [at_ms for edge in (*edges, *CHANGES) for at_ms in (edge - 1, edge, edge + 1)]
    for at_ms in (*instants, *near):
        if edges[0] <= at_ms < edges[-1]:
            place = bisect_right(edges, at_ms) - 1
            assert label(at_ms, interval) == label(edges[place], interval), str(instant(at_ms))
    labels = [label(edge, interval) for edge in edges]
    assert all(a != b for a, b in pairwise(labels))


@pytest.fixture(scope="module")
def connection() -> duckdb.DuckDBPyConnection:
    return connect()


@MANY
@given(laid_out())
def test_the_engine_places_times_in_their_periods(
    connection: duckdb.DuckDBPyConnection, given: tuple[Interval, Range, list[int]]
) -> None:
    interval, span, instants = given
    edges = calendar_edges(span, interval, "/i")
    inner = [ms for edge in edges[1:-1] for ms in (edge - 1, edge)]
    times = sorted({*instants, *inner[:20], *inner[-20:]})
    wanted = [bisect_right(edges, ms) - 1 for ms in times]
    place = place_in(TIME, edges)
    assert [value_of(place, {"time": instant(ms)}) for ms in times] == wanted
    rows = Values((SchemaColumn(TIME.name, TIME.type),), tuple((instant(ms),) for ms in times))
    plan = Project(Sort(rows, (SortKey(TIME),)), (("time", TIME), ("place", place)))
    assert [found for _, found in rows_of(connection, plan)] == wanted


@MANY
@given(
    span=ranges(1000 * DAY_MS),
    width_ms=st.sampled_from([1, 60_000, HOUR_MS, DAY_MS, 7 * DAY_MS, 90 * DAY_MS]),
)
@example(span=Range(0, DAY_MS), width_ms=DAY_MS)
def test_fixed_buckets_are_multiples_that_cover_the_range(span: Range, width_ms: int) -> None:
    buckets = (span.to_ms - 1) // width_ms - span.from_ms // width_ms + 1
    if buckets > PERIODS_MAX:
        with pytest.raises(Error) as caught:
            fixed_edges(span, width_ms, "/i")
        assert (caught.value.code, caught.value.at) == (Code.INVALID, "/i")
        return
    edges = fixed_edges(span, width_ms, "/i")
    assert list(edges) == [edges[0] + n * width_ms for n in range(buckets + 1)]
    assert edges[0] % width_ms == 0
    assert edges[0] <= span.from_ms < edges[1]
    assert edges[-2] < span.to_ms <= edges[-1]


@given(st.integers(1, 4000 * DAY_MS))
def test_the_interval_that_is_chosen_gives_about_a_hundred_buckets(length_ms: int) -> None:
    width_ms = fitting_ms(Range(0, length_ms))
    assert length_ms / width_ms <= 100
    assert length_ms / width_ms > 10 or width_ms == 1000


def test_hours_of_the_night_in_which_clocks_change() -> None:
    """Worked by hand: Berlin on 30 March has no hour from 2 to 3, on 26 October it lasts twice as long."""
    hour = Interval(Step.HOUR, zone="Europe/Berlin")
    spring = calendar_edges(Range(at("2025-03-29T23:00"), at("2025-03-30T03:00")), hour, "/i")
    assert [str(instant(e))[11:16] for e in spring] == ["23:00", "00:00", "01:00", "02:00", "03:00"]
    autumn = calendar_edges(Range(at("2025-10-25T23:00"), at("2025-10-26T03:00")), hour, "/i")
    assert [str(instant(e))[11:16] for e in autumn] == ["23:00", "00:00", "02:00", "03:00"]
    day = Interval(Step.DAY, zone="Europe/Berlin")
    days = calendar_edges(Range(at("2025-10-25T12:00"), at("2025-10-27T12:00")), day, "/i")
    assert [(b - a) // HOUR_MS for a, b in pairwise(days)] == [24, 25, 24]


@pytest.mark.parametrize(
    ("step", "alignment", "offset"),
    [
        ("day", None, 0),
        ("day", "1am", 1),
        ("day", "12am", 0),
        ("day", "12pm", 12),
        ("day", "14", 14),
        ("week", "monday", 0),
        ("week", "Sun", 6),
        ("month", "1st", 0),
        ("month", "31st", 30),
        ("quarter", "february", 1),
        ("quarter", "May", 1),
        ("year", "april", 3),
    ],
)
def test_alignments(step: str, alignment: str | None, offset: int) -> None:
    assert read_interval(step, None, alignment, None, "/i") == Interval(Step(step), 1, offset, "UTC")


@pytest.mark.parametrize(
    ("step", "alignment", "zone", "place"),
    [
        ("day", "25", None, "/i/alignment"),
        ("day", "13pm", None, "/i/alignment"),
        ("week", "someday", None, "/i/alignment"),
        ("month", "32nd", None, "/i/alignment"),
        ("month", "0th", None, "/i/alignment"),
        ("year", "smarch", None, "/i/alignment"),
        ("hour", "5", None, "/i/alignment"),
        ("day", None, "Mars/Olympus", "/i/timezone"),
        ("day", None, "../etc/passwd", "/i/timezone"),
    ],
)
def test_what_has_no_meaning_is_refused(step: str, alignment: str | None, zone: str | None, place: str) -> None:
    with pytest.raises(Error) as caught:
        read_interval(step, None, alignment, zone, "/i")
    assert (caught.value.code, caught.value.at) == (Code.INVALID, place)
    assert caught.value.hint


def test_too_many_periods_are_refused() -> None:
    with pytest.raises(Error) as caught:
        calendar_edges(Range(0, 10 * DAY_MS), Interval(Step.MINUTE), "/i")
    assert (caught.value.code, caught.value.at) == (Code.INVALID, "/i")
