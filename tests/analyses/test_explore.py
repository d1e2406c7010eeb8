"""Scalars, timeseries and lists: the engine's rows are those that plain Python makes of the same events."""

from __future__ import annotations

from random import Random
from typing import Any

import duckdb
import pytest
from hypothesis import given, note, strategies as st

from analyses import explore_model as model
from analyses.event_worlds import (
    FACETS,
    HOUR_MS,
    MANY,
    OFTEN,
    SEEDS,
    WORLD,
    Fact,
    Meaning,
    Search,
    Small,
    audiences,
    connect,
    put,
    rows_of,
    smalls,
    spans,
)
from analyses.explore_model import Grouped, Measured
from roster.analyses.audience import Audience, Group
from roster.analyses.base_query import BaseQuery, Occurrences
from roster.analyses.explore import ListRequest, Selection, list_events, scalar, timeseries
from roster.analyses.groups import GroupBy
from roster.analyses.measures import Compute
from roster.analyses.periods import fixed_edges
from roster.base.time import Range
from roster.model.formula import parse_formula
from roster.model.schema import Entity

AGGREGATIONS = ("cardinality", "sum", "avg", "min", "max", "median", "pc75", "pc99")
METRICS = ("@view.loading_time", "@score", "session_count", "@context.plan", "@tier")
COLUMNS = ("@view.name", "@tier", "@score", "@size", "first_country_code", "date", "@usr.id", "@view.loading_time")
Chosen = tuple[Selection, list[Fact]]


@pytest.fixture(scope="module")
def connection() -> duckdb.DuckDBPyConnection:
    return connect()


@st.composite
def selections(draw: st.DrawFn) -> tuple[Small, Selection, list[Fact]]:
    """A world, a selection of its events, and which these are."""
    small = draw(smalls(16))
    pick = Random(draw(SEEDS)).choice
    search: Search = pick(OFTEN)
    from_ms, to_ms = (small.start_ms + hour * HOUR_MS for hour in draw(spans()))
    given_audience: tuple[list[tuple[str, str, str]], str, Meaning] = draw(audiences())
    groups, formula, admits = given_audience
    found = [e for e in small.facts if from_ms <= e["ms"] < to_ms and search[1](e) and admits(e)]
    occurrences = None
    if pick((True, False, False, False)):
        op, count = pick(sorted(model.OPS)), pick((0, 1, 2, 2, 3))
        occurrences = Occurrences(op, count)
        found = model.often(found, op, count)
    selection = Selection(
        Range(from_ms, to_ms),
        BaseQuery(search[0], "/q", occurrences),
        Audience(
            tuple(Group(n, Entity(e), q, "/a") for n, e, q in groups),
            parse_formula(formula, [name for name, _, _ in groups], "/f"),
        ),
    )
    note(f"{selection}")
    return small, selection, found


@st.composite
def measures(draw: st.DrawFn) -> Measured:
    pick = Random(draw(SEEDS)).choice
    aggregation = pick(("count", *AGGREGATIONS))
    return Measured(aggregation, None if aggregation == "count" else pick(METRICS))


@st.composite
def group_bys(draw: st.DrawFn) -> list[Grouped]:
    facets = draw(st.lists(st.sampled_from(FACETS), max_size=3, unique=True))
    return [
        Grouped(
            facet,
            draw(st.sampled_from([1, 2, 3, 100])),
            draw(st.booleans()),
            draw(st.none() | measures()),
            draw(st.booleans()),
        )
        for facet in facets
    ]


def compute_of(measure: Measured) -> Compute:
    return Compute(measure.aggregation, measure.metric, "/c")


def as_asked(groups: list[Grouped]) -> list[GroupBy]:
    return [
        GroupBy(
            g.facet,
            "/g",
            g.limit,
            g.exclude_missing,
            None,
            compute_of(g.rank) if g.rank else None,
            g.descending,
        )
        for g in groups
    ]


def close(rows: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """Numbers as near as sums in another order are."""
    return [(*row[:-1], None if row[-1] is None else pytest.approx(float(row[-1]))) for row in rows]


@MANY
@given(chosen=selections(), measure=measures(), groups=group_bys())
def test_scalars(
    connection: duckdb.DuckDBPyConnection,
    chosen: tuple[Small, Selection, list[Fact]],
    measure: Measured,
    groups: list[Grouped],
) -> None:
    small, selection, events = chosen
    note(f"{measure} {groups}")
    put(connection, small)
    (plan,) = scalar(WORLD, selection, compute_of(measure), as_asked(groups)).plans
    wanted = model.scalar(events, measure, groups)
    assert rows_of(connection, plan) == close(wanted if groups or wanted else [(0,)])


@MANY
@given(
    chosen=selections(),
    measure=measures(),
    groups=group_bys(),
    width_ms=st.sampled_from([1, 7, 24]).map(lambda hours: hours * HOUR_MS),
)
def test_timeseries(
    connection: duckdb.DuckDBPyConnection,
    chosen: tuple[Small, Selection, list[Fact]],
    measure: Measured,
    groups: list[Grouped],
    width_ms: int,
) -> None:
    small, selection, events = chosen
    note(f"{measure} {groups} {width_ms}")
    put(connection, small)
    edges = fixed_edges(selection.span, width_ms, "/i")
    (plan,) = timeseries(WORLD, selection, compute_of(measure), as_asked(groups), edges).plans
    found = [row[len(groups) :] for row in rows_of(connection, plan)]
    assert found == close(model.timeseries(events, measure, groups, width_ms, selection.span.from_ms))


@MANY
@given(
    chosen=selections(),
    columns=st.lists(st.sampled_from(COLUMNS), min_size=1, max_size=4, unique=True),
    sort=st.none() | st.sampled_from([*COLUMNS, "@type", "@context.plan"]),
    descending=st.booleans(),
    limit=st.sampled_from([1, 3, 100]),
)
def test_lists(
    connection: duckdb.DuckDBPyConnection,
    chosen: tuple[Small, Selection, list[Fact]],
    columns: list[str],
    sort: str | None,
    descending: bool,
    limit: int,
) -> None:
    small, selection, events = chosen
    note(f"{columns} {sort} {descending} {limit}")
    put(connection, small)
    rows, total = list_events(WORLD, ListRequest(selection, tuple(columns), sort, descending, limit)).plans
    assert rows_of(connection, rows) == model.listed(events, columns, sort, descending, limit)
    assert rows_of(connection, total) == [(len(events),)]
