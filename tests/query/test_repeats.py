"""What a plan computes more than once is one named query, and means the same."""

from __future__ import annotations

from typing import Any

import duckdb
from hypothesis import HealthCheck, given, settings

from oracle import TooManyRows, evaluate, same_rows
from random_plans import cases, is_ordered, relations_of
from roster.model.schema import Column as SchemaColumn, Type
from roster.query.dialect import DUCKDB, table_name
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
    parts_of,
)
from roster.query.repeats import Part, repeated_aggregates, split_common
from roster.query.sql import render
from worlds import World, load

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


def test_equal_plans_run_once() -> None:
    """What repeats only inside of what repeats is not kept apart."""
    kept, *asked = split_common([TOTAL, TOTAL])
    assert sorted(answer(kept.plan)) == sorted(answer(TOTAL))
    assert asked == [asked[0]] * 2
    assert "Values" not in str(asked)


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


def test_what_a_plan_does_not_read_is_not_kept_for_it() -> None:
    """Each plan takes one of two joins: neither part is held by both."""
    users = Read("users", (SchemaColumn("user_id", Type.STRING),))
    other = Project(COUNTED, (("name2", NAME), ("count2", COUNT)))
    named = Column("user_id", Type.STRING)
    both = Join(Join(users, COUNTED, "left", ((named, NAME),)), other, "left", ((named, Column("name2", Type.STRING)),))
    plans = [
        Aggregate(both, (), (Measure("first", Agg.SUM, COUNT),)),
        Aggregate(both, (), (Measure("second", Agg.SUM, Column("count2", Type.INTEGER)),)),
        Aggregate(both, (), (Measure("rows", Agg.COUNT),)),
    ]
    kept, first, second, rows = split_common(plans)
    assert kept.plan == Project(COUNTED, (("c0", NAME), ("c1", COUNT)))
    assert rows.plan == Aggregate(users, (), (Measure("rows", Agg.COUNT),))
    assert (len(joins_of(first.plan)), len(joins_of(second.plan))) == (1, 1)


def joins_of(plan: Plan) -> list[Plan]:
    return [part for part in parts_of(plan) if isinstance(part, Join)]


def answers(connection: duckdb.DuckDBPyConnection, parts: list[Part]) -> list[list[tuple[Any, ...]]]:
    """The rows of the plans that were asked for, the others kept as the engine keeps them."""
    found = []
    for part in parts:
        made = render(part.plan, DUCKDB)
        if part.kept_as:
            sql = f"CREATE TEMP TABLE {table_name(part.kept_as)} AS {made.sql}"
            connection.execute(sql, list(made.parameters))
        else:
            found.append(connection.execute(made.sql, list(made.parameters)).fetchall())
    return found


def test_a_part_that_another_one_needs_too_is_kept_before_it() -> None:
    big = Aggregate(more_than(COUNTED, 0), (), (Measure("big", Agg.COUNT),))
    once = Project(big, (("big", Column("big", Type.INTEGER)),))
    parts = split_common([Limit(big, 1), Limit(once, 2), TOTAL])
    kept, inner, *asked = parts
    assert kept.plan == Project(COUNTED, (("c0", NAME), ("c1", COUNT)))
    assert kept.kept_as in str(inner.plan) and "Values" not in str(inner.plan)
    assert [part.kept_as for part in asked] == ["", "", ""]
    assert answers(duckdb.connect(), parts) == [[(3,)], [(3,)], [(4,)]]


@settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck))
@given(case=cases())
def test_plans_that_share_answer_as_apart(case: tuple[World, Plan]) -> None:
    """A plan beside its number of rows, and beside itself."""
    world, plan = case
    plans = [plan, Aggregate(plan, (), (Measure("rows", Agg.COUNT),)), plan]
    try:
        wanted = [evaluate(each, world.tables) for each in plans]
    except TooManyRows:
        return
    with duckdb.connect(config={"threads": 1}) as connection:
        for statement in DUCKDB.setup:
            connection.execute(statement)
        load(connection, world, relations_of(plan))
        shared = answers(connection, split_common(plans))
    for each, rows, found in zip(plans, wanted, shared, strict=True):
        assert same_rows(rows, found, is_ordered(each))
