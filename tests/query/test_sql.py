"""Statements: values are bound, names are quoted, shapes are as meant, order survives many threads."""

from __future__ import annotations

import gc
import subprocess
import sys
from pathlib import Path
from typing import Any

import duckdb
import pytest
import sqlglot
from hypothesis import HealthCheck, given, settings
from sqlglot import exp

from oracle import evaluate, same_rows
from random_plans import cases
from roster.model.schema import Column as SchemaColumn, Type
from roster.query.dialect import DUCKDB, identifiers, table_name
from roster.query.expr import (
    AnyOf,
    Cast,
    Column,
    Compare,
    Expr,
    Get,
    IsNull,
    Item,
    Like,
    Literal,
    Not,
    Pieces,
    Texts,
    Wild,
)
from roster.query.plan import Agg, Aggregate, Filter, Join, Limit, Measure, Plan, Project, Read, Sort, SortKey, Values
from roster.query.sql import render
from roster.query.sql_expr import block_bounds
from worlds import World, load

SOME = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
OWN_TEXTS = {"", "\\"}
"""The only texts that the renderer writes itself."""

HOSTILE = """x"; DROP TABLE users; --'"""


@pytest.fixture
def connection() -> duckdb.DuckDBPyConnection:
    return opened(duckdb.connect())


def opened(connection: duckdb.DuckDBPyConnection) -> duckdb.DuckDBPyConnection:
    for statement in DUCKDB.setup:
        connection.execute(statement)
    return connection


def rows_of(connection: duckdb.DuckDBPyConnection, plan: Plan) -> list[tuple[Any, ...]]:
    rendered = render(plan, DUCKDB)
    return connection.execute(rendered.sql, list(rendered.parameters)).fetchall()


def table(*columns: tuple[str, Type], relation: str = "users") -> Read:
    return Read(relation, tuple(SchemaColumn(name, type) for name, type in columns))


def one_line(plan: Plan) -> str:
    return " ".join(render(plan, DUCKDB).sql.split())


@SOME
@given(case=cases())
def test_a_statement_holds_no_value_of_the_plan(case: tuple[World, Plan]) -> None:
    sql = render(case[1], DUCKDB).sql
    tree = sqlglot.parse_one(sql, dialect="duckdb")
    assert tree.sql(dialect="duckdb", pretty=True) == sql
    for literal in tree.find_all(exp.Literal):
        if literal.is_string:
            assert literal.this in OWN_TEXTS
        elif not isinstance(literal.parent, exp.Parameter | exp.Placeholder):
            assert int(literal.this) <= 64, "an ordinal, a level or part of a place"
    assert not list(tree.find_all(exp.Drop, exp.Command))


@SOME
@given(case=cases())
def test_parameters_are_numbered_in_the_order_of_their_values(case: tuple[World, Plan]) -> None:
    rendered = render(case[1], DUCKDB)
    assert rendered == render(case[1], DUCKDB)
    tree = sqlglot.parse_one(rendered.sql, dialect="duckdb")
    numbers = {int(node.name) for node in tree.find_all(exp.Placeholder, exp.Parameter)}
    assert numbers == set(range(1, len(rendered.parameters) + 1))


def test_hostile_names_and_values_stay_names_and_values(connection: duckdb.DuckDBPyConnection) -> None:
    quoted = HOSTILE.replace('"', '""')
    connection.execute(f'CREATE TABLE users ("{quoted}" TEXT)')
    connection.execute("INSERT INTO users VALUES ($1), ('y')", [HOSTILE])
    column = Column(HOSTILE, Type.STRING)
    same = Filter(table((HOSTILE, Type.STRING)), Compare("=", column, Literal(HOSTILE, Type.STRING)))
    assert rows_of(connection, Project(same, ((HOSTILE + "2", column),))) == [(HOSTILE,)]
    assert connection.execute("SELECT count(*) FROM users").fetchall() == [(2,)]


def test_names_that_differ_in_case_stay_apart(connection: duckdb.DuckDBPyConnection) -> None:
    values = Values((SchemaColumn("tier", Type.INTEGER), SchemaColumn("Tier", Type.INTEGER)), ((1, 2),))
    upper = Filter(values, Compare("=", Column("Tier", Type.INTEGER), Literal(2, Type.INTEGER)))
    assert rows_of(connection, upper) == [(1, 2)]
    assert rows_of(connection, Project(upper, (("TIER", Column("Tier", Type.INTEGER)),))) == [(2,)]
    assert identifiers(["a", "A", "a~2", "b"]) == ("a", "A~2", "a~2~2", "b")


def test_a_table_is_named_after_its_relation() -> None:
    assert table_name("table:0b5c3a4e-9d1f-4a52-8f6e-1f2d3c4b5a69") == "table_0b5c3a4e9d1f4a528f6e1f2d3c4b5a69"
    assert table_name("users") == "users"


NAME = Column("name", Type.STRING)
NAMED = table(("name", Type.STRING), ("n", Type.INTEGER))


@pytest.mark.parametrize(
    ("pieces", "condition"),
    [
        ((), '"name" = $1'),
        (("a",), '"name" = $1'),
        (("a", Wild.ANY), 'STARTS_WITH("name", $1)'),
        ((Wild.ANY, "a"), 'ENDS_WITH("name", $1)'),
        ((Wild.ANY, "a", Wild.ANY), 'CONTAINS("name", $1)'),
        (("a", Wild.ONE), "\"name\" LIKE $1 ESCAPE '\\'"),
    ],
)
def test_frequent_patterns_take_the_quick_functions(pieces: Pieces, condition: str) -> None:
    assert one_line(Filter(NAMED, Like(NAME, pieces))).endswith(f"WHERE {condition}")


def test_filter_project_sort_and_limit_share_one_select() -> None:
    known = Filter(NAMED, Not(IsNull(NAME)))
    plan = Limit(Sort(Project(known, (("who", NAME),)), (SortKey(Column("who", Type.STRING), True),)), 5)
    assert one_line(plan) == (
        'SELECT "name" AS "who" FROM "users" WHERE NOT "name" IS NULL ORDER BY "who" DESC LIMIT $1'
    )


def test_an_alias_does_not_capture_a_sort_key(connection: duckdb.DuckDBPyConnection) -> None:
    """In ORDER BY an alias wins over a column of the same name."""
    values = Values((SchemaColumn("a", Type.INTEGER), SchemaColumn("b", Type.INTEGER)), ((1, 9), (2, 8)))
    a, b = Column("a", Type.INTEGER), Column("b", Type.INTEGER)
    assert rows_of(connection, Project(Sort(values, (SortKey(a),)), (("a", b),))) == [(9,), (8,)]


def test_a_chain_of_joins_is_one_select() -> None:
    joined: Plan = NAMED
    for n in range(3):
        right = Read(f"table:{n}", (SchemaColumn(f"k{n}", Type.STRING),))
        joined = Join(joined, right, "left", ((NAME, Column(f"k{n}", Type.STRING)),))
    sql = one_line(Filter(joined, IsNull(Column("k1", Type.STRING))))
    assert sql.count("SELECT") == 1
    assert sql.count("LEFT JOIN") == 3


def test_sums_of_integers_are_exact_beyond_64_bits(connection: duckdb.DuckDBPyConnection) -> None:
    n = Column("n", Type.INTEGER)
    values = Values((SchemaColumn("n", Type.INTEGER),), ((2**63 - 1,), (2**63 - 1,)))
    assert rows_of(connection, Aggregate(values, (), (Measure("s", Agg.SUM, n),))) == [(2**64 - 2,)]


def test_block_bounds() -> None:
    assert block_bounds("10.0.0.0/8") == ("0" * 20 + "ffff0a000000", "0" * 20 + "ffff0affffff")
    assert block_bounds("::/0") == ("0" * 32, "f" * 32)


def test_set_up_may_run_again(connection: duckdb.DuckDBPyConnection) -> None:
    opened(connection)


def test_a_projection_keeps_the_order_of_many_rows_on_many_threads() -> None:
    connection = opened(duckdb.connect(config={"threads": 4, "preserve_insertion_order": False}))
    connection.execute("CREATE TABLE users AS SELECT hash(i)::TEXT AS name, i AS n FROM range(400000) AS r(i)")
    lower = Sort(NAMED, (SortKey(Column("n", Type.INTEGER), True),))
    plan = Project(lower, (("n", Cast(NAME, Type.STRING)), ("m", Column("n", Type.INTEGER))))
    assert one_line(plan).count("SELECT") == 2, "the order comes from a sub-select"
    assert [m for _, m in rows_of(connection, plan)] == list(range(399_999, -1, -1))


ANY = Column("rest", Type.ANY)
DOCUMENTS: list[Any] = [
    {"k": 1, "K": 2},
    {"k": [{"a": "x"}, {"a": ["y", None]}]},
    {"k": {"a": "x"}},
    [{"k": "1"}, {"k": True}],
    {"k": [[1, 2], 3]},
    "text",
    None,
]


@pytest.mark.parametrize(
    "expr",
    [
        *(Cast(Get(ANY, "k"), type) for type in Type),
        AnyOf(ANY, ("k", "a"), Compare("=", Cast(Item(), Type.STRING), Literal("x", Type.STRING))),
        AnyOf(ANY, ("k", "a"), Not(Compare("=", Cast(Item(), Type.STRING), Literal("x", Type.STRING)))),
        AnyOf(ANY, ("k",), Compare(">=", Cast(Item(), Type.NUMBER), Literal(2, Type.NUMBER))),
        AnyOf(ANY, ("k",), Cast(Item(), Type.BOOLEAN)),
        Texts(ANY, ("k",)),
        Texts(ANY, ("k", "a")),
    ],
)
def test_documents_read_the_same_from_a_compacted_file(expr: Expr, tmp_path: Path) -> None:
    """A checkpoint shreds semi-structured columns into typed ones."""
    schema = (SchemaColumn("rest", Type.ANY),)
    world = World({"events": schema}, {"events": [{"rest": d} for d in DOCUMENTS * 50]})
    connection = opened(duckdb.connect(str(tmp_path / "events.duckdb")))
    load(connection, world, {"events"})
    connection.execute("CHECKPOINT")
    plan = Project(Read("events", schema), (("value", expr),))
    actual = rows_of(connection, plan)
    connection.close()
    assert same_rows(evaluate(plan, world.tables), actual, ordered=False)


def test_rendering_loads_nothing() -> None:
    """What a first statement loads, two threads with a first statement each can meet half made."""
    program = (
        "import sys; from roster.query import dialect, plan, sql\n"
        "before = set(sys.modules)\n"
        "sql.render(plan.Values((), ((),)), dialect.DUCKDB)\n"
        "assert set(sys.modules) == before, set(sys.modules) - before"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_statement_leaves_next_to_nothing_to_collect() -> None:
    """A collection stops all threads: with trees full of circles it came every few seconds and took 0.2 s."""
    n, m = Column("n", Type.INTEGER), Column("m", Type.INTEGER)
    counted = Aggregate(Read("events", (SchemaColumn("n", n.type),)), (("n", n),), (Measure("count", Agg.COUNT),))
    joined = Join(counted, Project(counted, (("m", n),)), "left", ((n, m),))
    plan = Limit(Sort(Filter(joined, Compare("<", n, Literal(9, n.type))), (SortKey(n),)), 5)
    render(plan, DUCKDB)
    gc.collect()
    gc.disable()
    try:
        render(plan, DUCKDB)
        assert gc.collect() < 20, "hundreds with trees that go round; a thread beside may leave some"
    finally:
        gc.enable()
