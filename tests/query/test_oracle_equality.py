"""Random plans over random worlds: DuckDB's rows equal the oracle's. ROSTER_WORLDS sets how many."""

from __future__ import annotations

import os

import duckdb
import pytest
from hypothesis import HealthCheck, given, note, reject, settings

from oracle import TooManyRows, evaluate, same_rows
from random_plans import cases, is_ordered, relations_of
from roster.query.dialect import DUCKDB
from roster.query.plan import Plan
from roster.query.sql import render
from worlds import World, load

WORLDS = int(os.environ.get("ROSTER_WORLDS", "150"))
MANY = settings(max_examples=WORLDS, deadline=None, print_blob=True, suppress_health_check=list(HealthCheck))


@pytest.fixture(scope="module")
def connection() -> duckdb.DuckDBPyConnection:
    connection = duckdb.connect(config={"threads": 1, "preserve_insertion_order": False})
    for statement in DUCKDB.setup:
        connection.execute(statement)
    return connection


@MANY
@given(case=cases())
def test_every_plan_gives_the_rows_of_the_oracle(
    connection: duckdb.DuckDBPyConnection, case: tuple[World, Plan]
) -> None:
    world, plan = case
    try:
        expected = evaluate(plan, world.tables)
    except TooManyRows:
        reject()
    load(connection, world, relations_of(plan))
    rendered = render(plan, DUCKDB)
    note(rendered.sql)
    note(str(rendered.parameters))
    actual = connection.execute(rendered.sql, list(rendered.parameters)).fetchall()
    assert same_rows(expected, actual, is_ordered(plan)), (expected, actual)
