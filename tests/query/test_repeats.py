"""What a plan computes more than once is one named query, and means the same."""

from __future__ import annotations

import duckdb

from oracle import evaluate
from roster.model.schema import Column as SchemaColumn, Type
from roster.query.dialect import DUCKDB
from roster.query.expr import Column, Compare, Literal
from roster.query.plan import (
    Agg,
    Aggregate,
    Filter,
    Join,
    Limit,
    Measure,
    Plan,
    Project,
    Read,
    Sort,
    SortKey,
    Union,
    Values,
)
from roster.query.repeats import Part, repeated_aggregates, split_common
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


def test_what_several_plans_compute_alike_is_kept_once_with_the_columns_they_read() -> None:
    named = Filter(COUNTED, Compare("=", NAME, Literal("a", Type.STRING)))
    kept, total, _, rows = split_common([TOTAL, Aggregate(named, (), (Measure("rows", Agg.COUNT),)), ROWS])
    assert kept == Part(Project(COUNTED, (("c0", NAME), ("c1", COUNT))), "common:0")
    counts = Project(Read("common:0", (SchemaColumn("c1", Type.INTEGER),)), (("count", Column("c1", Type.INTEGER)),))
    assert total == Part(Aggregate(counts, (), TOTAL.measures))
    assert rows == Part(ROWS)
    assert split_common([TOTAL, TOTAL])[0] == Part(Project(TOTAL, (("c0", COUNT),)), "common:0")


def test_a_column_that_no_plan_reads_is_not_kept() -> None:
    kept, *_ = split_common([TOTAL, Project(COUNTED, (("many", COUNT),))])
    assert kept.plan == Project(COUNTED, (("c1", COUNT),))


def test_rows_and_their_order_are_not_kept() -> None:
    """Keeping events would cost more than reading them twice, and what is kept forgets its order."""
    some = Filter(ROWS, Compare("=", NAME, Literal("a", Type.STRING)))
    assert split_common([some, Limit(some, 1)]) == [Part(some), Part(Limit(some, 1))]
    first = Limit(Sort(COUNTED, (SortKey(COUNT),)), 1)
    kept, asked, _ = split_common([first, Project(first, (("many", COUNT),))])
    assert kept.plan == Project(COUNTED, (("c0", NAME), ("c1", COUNT)))
    assert isinstance(asked.plan, Limit)


def test_plans_that_share_nothing_stay_as_they_are() -> None:
    assert split_common([TOTAL]) == [Part(TOTAL)]
    assert split_common([]) == []
