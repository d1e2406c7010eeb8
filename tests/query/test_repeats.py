"""What a plan computes more than once is one named query, and means the same."""

from __future__ import annotations

import duckdb

from oracle import evaluate
from roster.model.schema import Column as SchemaColumn, Type
from roster.query.dialect import DUCKDB
from roster.query.expr import Column, Compare, Literal
from roster.query.plan import Agg, Aggregate, Filter, Join, Measure, Plan, Project, Union, Values
from roster.query.repeats import repeated_aggregates
from roster.query.sql import render

NAME, COUNT = Column("name", Type.STRING), Column("count", Type.INTEGER)
ROWS = Values((SchemaColumn("name", Type.STRING),), (("a",), ("b",), ("a",), (None,)))
COUNTED = Aggregate(ROWS, (("name", NAME),), (Measure("count", Agg.COUNT),))
TOTAL = Aggregate(COUNTED, (), (Measure("count", Agg.SUM, COUNT),))


def more_than(plan: Plan, count: int) -> Plan:
    return Filter(plan, Compare(">", COUNT, Literal(count, Type.INTEGER)))


def answer(plan: Plan) -> list[tuple[object, ...]]:
    rendered = render(plan, DUCKDB)
    return duckdb.connect().execute(rendered.sql, list(rendered.parameters)).fetchall()


def test_only_what_repeats_has_a_name() -> None:
    assert repeated_aggregates(COUNTED) == ()
    assert repeated_aggregates(TOTAL) == ()
    twice = Union((more_than(COUNTED, 1), more_than(COUNTED, 0)))
    assert repeated_aggregates(twice) == (COUNTED,)
    assert "WITH" not in render(TOTAL, DUCKDB).sql
    assert render(twice, DUCKDB).sql.count("VALUES") == 1


def test_what_repeats_inside_what_repeats_is_named_once() -> None:
    """The inner one is read by the outer one's query only, so it needs no name."""
    assert repeated_aggregates(Union((TOTAL, TOTAL))) == (TOTAL,)
    assert set(repeated_aggregates(Union((TOTAL, TOTAL, Project(COUNTED, (("count", COUNT),)))))) == {TOTAL, COUNTED}


def test_the_answer_is_the_same() -> None:
    other = Project(COUNTED, (("other", NAME), ("many", COUNT)))
    joined = Join(more_than(COUNTED, 0), other, "left", ((NAME, Column("other", Type.STRING)),))
    for plan in (
        Union((more_than(COUNTED, 1), more_than(COUNTED, 0))),
        Union((TOTAL, TOTAL, Project(COUNTED, (("count", COUNT),)))),
        joined,
        Join(COUNTED, other, "anti", ((NAME, Column("other", Type.STRING)),)),
    ):
        assert sorted(answer(plan), key=repr) == sorted(evaluate(plan, {}), key=repr)
