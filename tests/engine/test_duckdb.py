"""A run keeps to its budget: time, rows and memory; it can be cancelled; the engine works on after each."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from roster.base.errors import Code, Error
from roster.engine.connection import Duck, DuckLimits
from roster.engine.duckdb import DuckEngine
from roster.engine.enriched import Enriched
from roster.model.schema import Column as SchemaColumn, Type
from roster.ports import Budget, Cancel
from roster.query.expr import BLANKS, Call, Column, Compare, Fn, Literal
from roster.query.plan import Agg, Aggregate, Filter, Join, Limit, Measure, Plan, Project, Read, Sort, SortKey, Values

N = SchemaColumn("n", Type.INTEGER)
NUMBERS = Read("numbers", (N,))
AMPLE = Budget(timeout_s=60, rows_max=10)
COUNT: Plan = Aggregate(NUMBERS, (), (Measure("count", Agg.COUNT),))


@pytest.fixture
def duck(tmp_path: Path) -> Iterator[Duck]:
    opened = Duck(tmp_path / "engine.duckdb", DuckLimits("300MB", 2, "1GB"))
    with opened.write() as connection:
        connection.execute("CREATE TABLE numbers AS SELECT range AS n FROM range(2000000)")
    yield opened
    opened.close()


@pytest.fixture
def engine(duck: Duck) -> DuckEngine:
    return DuckEngine(duck, Enriched(duck))


def endless() -> Plan:
    """Pairs of numbers in order: 2·10¹² comparisons."""
    other = Project(NUMBERS, (("m", Column("n", Type.INTEGER)),))
    pairs = Join(NUMBERS, other, "inner", ())
    ordered = Filter(pairs, Compare("<", Column("n", Type.INTEGER), Column("m", Type.INTEGER)))
    return Aggregate(ordered, (), (Measure("count", Agg.COUNT), Measure("sum", Agg.SUM, Column("m", Type.INTEGER))))


def test_a_query_over_its_time_ends_readably(engine: DuckEngine) -> None:
    with pytest.raises(Error) as caught:
        engine.run([endless()], Budget(timeout_s=0.3, rows_max=10))
    assert caught.value.code is Code.TIMEOUT
    assert "query_timeout_s" in caught.value.text()
    assert engine.run([COUNT], AMPLE)[0].rows == [(2_000_000,)]


def test_a_query_can_be_cancelled_from_another_thread(engine: DuckEngine) -> None:
    cancel = Cancel()
    timer = threading.Timer(0.3, cancel.cancel)
    timer.start()
    with pytest.raises(Error) as caught:
        engine.run([endless()], AMPLE, cancel)
    timer.join()
    assert caught.value.message == "the query was cancelled"
    assert engine.run([COUNT], AMPLE)[0].rows == [(2_000_000,)]


def test_a_query_cancelled_before_it_starts_does_not_run(engine: DuckEngine) -> None:
    cancel = Cancel()
    cancel.cancel()
    with pytest.raises(Error) as caught:
        engine.run([endless()], AMPLE, cancel)
    assert caught.value.code is Code.TIMEOUT


def test_what_plans_share_is_read_once(engine: DuckEngine) -> None:
    """And counts once against the rows that a run may look at."""
    is_small = Compare("<", Column("n", Type.INTEGER), Literal(1000, Type.INTEGER))
    halves = Aggregate(NUMBERS, (("is_small", is_small),), (Measure("count", Agg.COUNT),))
    groups = Aggregate(halves, (), (Measure("groups", Agg.COUNT),))
    total = Aggregate(halves, (), (Measure("total", Agg.SUM, Column("count", Type.INTEGER)),))
    told = engine.explain([groups, total], AMPLE)
    assert [(made.kept_as, made.reads) for made in told] == [
        ("common:0", (("numbers", 2_000_000),)),
        ("", ()),
        ("", ()),
    ]
    budget = Budget(timeout_s=60, rows_max=10, reads_max=2_000_000)
    answers = engine.run([groups, total], budget)
    assert [(a.schema[0].name, a.rows) for a in answers] == [("groups", [(2,)]), ("total", [(2_000_000,)])]
    with pytest.raises(Error) as caught:
        engine.run([groups, COUNT], budget)
    assert caught.value.code is Code.TOO_LARGE


def test_too_many_rows_are_refused(engine: DuckEngine) -> None:
    with pytest.raises(Error) as caught:
        engine.run([NUMBERS], AMPLE)
    assert caught.value.code is Code.TOO_LARGE
    assert "query_rows_max" in caught.value.text()


def test_too_little_memory_ends_the_query_not_the_process(tmp_path: Path) -> None:
    duck = Duck(tmp_path / "small.duckdb", DuckLimits("25MB", 2, "1MB"))
    with duck.write() as connection:
        connection.execute("CREATE TABLE numbers AS SELECT range AS n FROM range(2000000)")
    engine = DuckEngine(duck, Enriched(duck))
    item = Column("n", Type.INTEGER)
    many = Aggregate(NUMBERS, (("n", item),), (Measure("d", Agg.DISTINCT, item),))
    with pytest.raises(Error) as caught:
        engine.run([Sort(many, (SortKey(Column("d", Type.INTEGER)),))], Budget(60, 5_000_000))
    assert caught.value.code is Code.BUSY
    assert engine.run([COUNT], AMPLE)[0].rows == [(2_000_000,)]
    duck.close()


def test_all_plans_of_a_run_see_one_snapshot(duck: Duck, engine: DuckEngine) -> None:
    """Rows are added all the while; two counts of one run never differ."""
    done = threading.Event()

    def grow() -> None:
        while not done.is_set():
            with duck.write() as connection:
                connection.execute("INSERT INTO numbers VALUES (0)")

    writer = threading.Thread(target=grow)
    writer.start()
    try:
        for _ in range(30):
            first, second = engine.run([COUNT, Aggregate(Limit(NUMBERS, 10**9), (), COUNT.measures)], AMPLE)
            assert first.rows == second.rows
    finally:
        done.set()
        writer.join()


def test_explain_is_the_run_stopped_early(engine: DuckEngine) -> None:
    wanted = Filter(NUMBERS, Compare("=", Column("n", Type.INTEGER), Literal(7, Type.INTEGER)))
    (made,) = engine.explain([wanted], AMPLE)
    assert made.parameters == (7,)
    assert "7" not in made.sql.replace("$1", "")
    assert "Sequential Scan" in made.physical
    assert engine.run([wanted], AMPLE)[0].rows == [(7,)]


def test_trimming_takes_every_blank_off_both_ends_and_nothing_else(engine: DuckEngine) -> None:
    bodies = ["", "a", "a b", "é", "e\u0301", "\u200b", "\x01", "~", "\x7f", "\u0085", "\U0001f986"]
    ends = ["", *BLANKS]
    texts = [end + body for body in bodies for end in ends] + [body + end for body in bodies for end in ends]
    text = SchemaColumn("text", Type.STRING)
    given = Values((SchemaColumn("n", Type.INTEGER), text), tuple(enumerate(texts)))
    trimmed = Project(given, (("n", Column("n", Type.INTEGER)), ("t", Call(Fn.TRIM, (Column("text", Type.STRING),)))))
    answer = engine.run([trimmed], Budget(timeout_s=60, rows_max=10_000))[0]
    assert dict(answer.rows) == {n: text.strip(BLANKS) for n, text in enumerate(texts)}
