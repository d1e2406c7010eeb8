"""Random retentions over random worlds: the engine's cells are those of a plain reading of what was asked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import duckdb
import pytest
from hypothesis import assume, given, note, strategies as st

from analyses import retention_model as model
from analyses.event_worlds import (
    DAY_MS,
    FACETS,
    FILTERS,
    HOUR_MS,
    MANY,
    SEARCHES,
    WORLD,
    Fact,
    Small,
    audiences,
    connect,
    facts_of,
    put,
    rows_of as run,
    smalls,
    spans,
    text_of,
    told_of,
)
from roster.analyses.audience import EVERYONE, Audience, Group
from roster.analyses.base_query import BaseQuery, Occurrences
from roster.analyses.groups import GroupBy
from roster.analyses.periods import Interval, Step
from roster.analyses.retention import (
    CellRequest,
    Counted,
    Retention,
    RetentionGroup,
    count_long,
    list_cell,
    traffic_of,
)
from roster.analyses.retention_grid import Scope, Tally, number_of, rows_of, tally
from roster.analyses.retention_periods import Every, Fixed, lay_out
from roster.analyses.retention_returns import count_by_returns
from roster.analyses.retention_wide import count_wide, is_wide
from roster.base.time import Range, epoch_ms, instant
from roster.model.formula import Formula, parse_formula
from roster.model.schema import Entity
from worlds import World as Tables


def moved(event: Fact, start_ms: int, later: int, hour_ms: int) -> int:
    return start_ms + (epoch_ms(event["time"]) - start_ms) * (hour_ms // HOUR_MS) + later * hour_ms


FULL = smalls(10).filter(lambda small: len(small.facts) > 3)


@st.composite
def stretched(draw: st.DrawFn) -> tuple[Small, int]:
    """A world whose hours are longer, so that they reach over weeks and months; and how long they are.

    Its events happen again later, so that many come back.
    """
    small, hour_ms = draw(FULL), HOUR_MS * draw(st.sampled_from([1, 7, 30]))
    rows = dict(small.tables.tables)
    again = draw(st.sampled_from([(0,), (0, 24), (0, 24), (0, 3, 25), (0, 12, 24, 36)]))
    rows["events"] = [
        e | {"event_id": f"{e['event_id']}-{later}", "time": instant(moved(e, small.start_ms, later, hour_ms))}
        for e in rows["events"]
        for later in again
    ]
    return Small(Tables(small.tables.schemas, rows), facts_of(rows), small.start_ms), hour_ms


INTERVALS: list[tuple[str, Any, str]] = [
    ("day", None, "UTC"),
    ("week", None, "UTC"),
    ("week", None, "Europe/Berlin"),
    ("month", None, "Europe/Berlin"),
    ("fixed", 7 * DAY_MS, ""),
    ("fixed", 10 * DAY_MS + 3_600_000, ""),
]


SOURCES = {"@tier": Entity.USERS, "@score": Entity.USERS, "first_country_code": Entity.USERS, "@size": Entity.ACCOUNTS}
"""Whose attribute it is: a group may say so."""


def every(interval: tuple[str, Any, str]) -> Every:
    unit, width, zone = interval
    return Fixed(width) if unit == "fixed" else Interval(Step(unit), zone=zone)


@dataclass(frozen=True)
class Case:
    """A world, and the same request twice: as the product has it, and as the model does."""

    small: Small
    asked: Retention
    groups: tuple[RetentionGroup, ...]
    meant: model.Asked


@st.composite
def cases(draw: st.DrawFn, groups_min: int = 0, groups_max: int = 2, returns: bool | None = None) -> Case:
    pick = st.sampled_from
    small, hour_ms = draw(stretched())
    since, until = (small.start_ms + hours * hour_ms for hours in draw(st.just((-1, 60)) | spans()))
    cohort, own = draw(st.just(SEARCHES[2]) | pick(SEARCHES)), draw(st.none() | pick(SEARCHES))
    interval, again = draw(pick(INTERVALS)), draw(st.none() | pick(INTERVALS))
    at_least = draw(pick((0, 0, 0, 2)))
    occurrences = Occurrences(">=", at_least) if at_least else None
    entity = draw(pick(Entity))
    parts, formula, admitted = draw(st.just(([], "", lambda _: True)) | audiences())
    searched = draw(st.just(("", lambda _: True)) | pick(FILTERS))
    audience = Audience(tuple(Group(n, Entity(e), t, "/a") for n, e, t in parts), formula_of(formula, parts))
    span = Range(since, until)
    periods = lay_out(span, every(interval), every(again or interval), "/i", "/r")
    asked = Retention(
        span,
        entity,
        periods,
        BaseQuery(cohort[0], "/c", occurrences),
        BaseQuery(own[0], "/r", occurrences) if own else None,
        draw(st.booleans()),
        audience,
        BaseQuery(searched[0], "/s"),
        draw(st.booleans()),
        draw(pick((False, False, True))),
    )
    kinds = st.booleans() if returns is None else st.just(returns)
    one = st.tuples(pick((*FACETS, *["@context.plan"] * 4)), kinds, pick((1, 2, 100)), st.booleans())
    chosen = draw(st.lists(one, min_size=groups_min, max_size=groups_max))
    cohorts = (
        model.fixed(since, until, interval[1])
        if interval[0] == "fixed"
        else model.calendar((since, until), interval[0], interval[2])
    )
    same = own is None or own[0] == cohort[0] or {own[0], cohort[0]} == {"", "*"}
    meant = model.Asked(
        (since, until),
        lambda e: e["person"] if entity is Entity.USERS else e["@account.id"],
        cohort[1],
        None if own is None or same else own[1],
        at_least,
        asked.or_after,
        asked.first_only,
        asked.identified_only,
        lambda e: admitted(e) and searched[1](e),
        cohorts,
        model.columns_of(cohorts, until, None if again in (None, interval) else again),
        [model.Group(value_of(facet), kind, limit, missing) for facet, kind, limit, missing in chosen],
    )
    groups = tuple(
        RetentionGroup(GroupBy(facet, "/g", limit, missing, SOURCES.get(facet) if named else None), kind)
        for (facet, kind, limit, missing), named in zip(
            chosen, draw(st.tuples(st.booleans(), st.booleans())), strict=False
        )
    )
    return Case(small, asked, groups, meant)


def value_of(facet: str) -> model.Value:
    return lambda e: told_of(e[facet]) if facet == "@context.plan" else text_of(e[facet])


def formula_of(text: str, parts: Any) -> Formula:
    return parse_formula(text, [n for n, _, _ in parts], "/f") if parts else EVERYONE.formula


@pytest.fixture(scope="module")
def connection() -> duckdb.DuckDBPyConnection:
    return connect()


def cells(connection: duckdb.DuckDBPyConnection, asked: Retention, counted: Counted, groups: Any) -> list[Any]:
    answers = [run(connection, plan) for plan in counted.plans]
    found = tally(counted, answers, asked.periods, groups, or_after=asked.or_after)
    return [(t.tags, list(t.sizes), [list(c) for c in t.counts]) for t in found]


@MANY
@given(case=cases(returns=False))
def test_grids(connection: duckdb.DuckDBPyConnection, case: Case) -> None:
    asked, groups, meant = case.asked, case.groups, case.meant
    note(f"{asked}\n{groups}")
    put(connection, case.small)
    periods = asked.periods
    assert [(s.from_ms, s.to_ms) for s in map(periods.cohort, range(periods.cohorts))] == meant.cohorts
    told = [[periods.period(c, i) for i in range(periods.columns(c))] for c in range(periods.cohorts)]
    assert [[(s.from_ms, s.to_ms) for s in spans] for spans in told] == meant.columns
    wanted = model.grid(meant, case.small.facts)
    traffic = traffic_of(WORLD, asked)
    assert cells(connection, asked, count_long(WORLD, asked, traffic, groups), groups) == wanted
    if is_wide(WORLD, asked, traffic, groups):
        assert cells(connection, asked, count_wide(WORLD, asked, traffic, groups), groups) == wanted


@MANY
@given(case=cases(groups_min=1, returns=True) | cases(groups_min=2))
def test_groups_of_returns(connection: duckdb.DuckDBPyConnection, case: Case) -> None:
    asked, groups = case.asked, case.groups
    assume(any(g.returns for g in groups))
    note(f"{asked}\n{groups}")
    put(connection, case.small)
    wanted = model.grid(case.meant, case.small.facts)
    assert cells(connection, asked, count_by_returns(WORLD, asked, traffic_of(WORLD, asked), groups), groups) == wanted


@MANY
@given(case=cases(groups_max=0), place=st.tuples(st.integers(0, 9), st.integers(0, 9)))
def test_lists(connection: duckdb.DuckDBPyConnection, case: Case, place: tuple[int, int]) -> None:
    asked, meant = case.asked, case.meant
    note(f"{asked}")
    put(connection, case.small)
    cohort = place[0] % asked.periods.cohorts
    column = place[1] % asked.periods.columns(cohort)
    events = case.small.facts
    wanted = model.members(meant, events, cohort, column)
    (group,) = model.grid(meant, events)
    assert len(wanted) == group[2][cohort][column], "a cell and its list agree"
    key, path, tag = (
        ("@usr.id", "@usr.id", "@tier") if asked.entity is Entity.USERS else ("account_id", "@account.id", "@size")
    )
    tags = {e[path]: e[tag] for e in events}
    made = list_cell(WORLD, CellRequest(asked, cohort, column, (key, tag), 3))
    assert run(connection, made.plans[0]) == [(who, tags.get(who)) for who in wanted[:3]]
    assert run(connection, made.plans[1]) == [(len(wanted),)]


@MANY
@given(case=cases(groups_max=0), later=st.integers(-2, 60))
def test_weighted_rows(case: Case, later: int) -> None:
    asked, meant = case.asked, case.meant
    now = case.small.start_ms + later * DAY_MS
    ((tags, sizes, counted),) = model.grid(meant, case.small.facts)
    found = Tally(tags, tuple(sizes), tuple(map(tuple, counted)))
    until = min(now, asked.span.to_ms)
    weighted, *raw = rows_of(found, asked.periods, until, rates=True)
    over = [[end <= until for _, end in columns] for columns in meant.columns]
    assert [[not cell.partial for cell in row.cells] for row in raw] == over
    rates = model.weighted(found.sizes, found.counts, over)
    assert [cell.rate for cell in weighted.cells] == rates
    (counts,) = [r for r in rows_of(found, asked.periods, until, rates=False) if r.cohort is None]
    complete = [
        sum(c[i] for c, o in zip(found.counts, over, strict=True) if i < len(c) and o[i]) for i in range(len(rates))
    ]
    assert [cell.value for cell in counts.cells] == [
        float(n) if r is not None else None for n, r in zip(complete, rates, strict=True)
    ]
    after = [rate for rate in rates[1:] or rates if rate is not None]
    mean = sum(after) / len(after) if after else None
    assert number_of([weighted, *raw], Scope(), "avg", rates=True) == (pytest.approx(mean) if after else None)
