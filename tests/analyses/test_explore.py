"""Scalars, timeseries and lists: the engine's rows are those that plain Python makes of the same events."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import Any

import duckdb
import pytest
from hypothesis import given, note

from analyses import explore_model as model
from analyses.event_worlds import (
    FACETS,
    HOUR_MS,
    MANY,
    SEARCHES,
    SEEDS,
    WORLD,
    Fact,
    Small,
    audience_of,
    connect,
    put,
    rows_of,
    small_of,
    span_of,
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
MOSTLY = (*SEARCHES[:3] * 15, *SEARCHES)


@pytest.fixture(scope="module")
def connection() -> duckdb.DuckDBPyConnection:
    return connect()


@dataclass(frozen=True)
class Case:
    """A world, a selection of its events, which these are, and what is computed of them."""

    small: Small
    selection: Selection
    events: list[Fact]
    measure: Measured
    groups: list[Grouped]
    width_ms: int
    listing: ListRequest


def case_of(random: Random) -> Case:
    pick = random.choice
    small = small_of(random, 20)
    text, finds = pick(MOSTLY)
    from_ms, to_ms = (small.start_ms + hour * HOUR_MS for hour in span_of(random, 0.7))
    parts, formula, admits = audience_of(random, 0.85)
    found = [e for e in small.facts if from_ms <= e["ms"] < to_ms and finds(e) and admits(e)]
    occurrences = None
    if random.random() < 0.25:
        op, count = pick(sorted(model.OPS)), pick((0, 1, 2, 2, 3))
        occurrences = Occurrences(op, count)
        found = model.often(found, op, count)
    names = [name for name, _, _ in parts]
    audience = Audience(tuple(Group(n, Entity(e), q, "/a") for n, e, q in parts), parse_formula(formula, names, "/f"))
    selection = Selection(Range(from_ms, to_ms), BaseQuery(text, "/q", occurrences), audience)
    facets = random.sample(FACETS, pick((0, 1, 1, 2, 2, 3)))
    groups = [
        Grouped(facet, pick((1, 2, 3, 100)), pick((True, False)), pick((None, measure_of(random))), pick((True, False)))
        for facet in facets
    ]
    columns = tuple(random.sample(COLUMNS, pick((1, 2, 4))))
    sort = pick((None, *COLUMNS, "@type", "@context.plan"))
    listing = ListRequest(selection, columns, sort, pick((True, False)), pick((1, 3, 100)))
    return Case(small, selection, found, measure_of(random), groups, pick((1, 7, 24)) * HOUR_MS, listing)


def measure_of(random: Random) -> Measured:
    aggregation = random.choice(("count", *AGGREGATIONS))
    return Measured(aggregation, None if aggregation == "count" else random.choice(METRICS))


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
@given(case=SEEDS.map(lambda seed: case_of(Random(seed))))
def test_every_answer_is_that_of_the_events(connection: duckdb.DuckDBPyConnection, case: Case) -> None:
    note(f"{case}")
    put(connection, case.small)
    span, groups, listing = case.selection.span, case.groups, case.listing
    asked = (WORLD, case.selection, compute_of(case.measure), as_asked(groups))
    (plan,) = scalar(*asked).plans
    assert rows_of(connection, plan) == close(model.scalar(case.events, case.measure, groups))
    (plan,) = timeseries(*asked, fixed_edges(span, case.width_ms, "/i")).plans
    found = [row[len(groups) :] for row in rows_of(connection, plan)]
    assert found == close(model.timeseries(case.events, case.measure, groups, case.width_ms, span.from_ms))
    rows, total = list_events(WORLD, listing).plans
    wanted = model.listed(case.events, listing.columns, listing.sort, listing.descending, listing.limit)
    assert rows_of(connection, rows) == wanted
    assert rows_of(connection, total) == [(len(case.events),)]


def test_the_worlds_have_events_to_compare() -> None:
    """A test of random worlds in which nothing happens would show nothing."""
    cases = [case_of(Random(seed)) for seed in range(200)]
    assert sum(len(c.events) > 4 for c in cases) > 80
    assert sum(len(model.scalar(c.events, c.measure, c.groups)) > 2 for c in cases) > 30
