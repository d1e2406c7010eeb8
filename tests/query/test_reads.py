"""How many rows a plan reads: each relation as often as it is read, events within the time that bounds them."""

from __future__ import annotations

from datetime import datetime

from roster.model.schema import Column as Stored, Type
from roster.query.expr import And, Column, Compare, Expr, Literal, Or
from roster.query.plan import Agg, Aggregate, Filter, Join, Measure, Plan, Project, Read
from roster.query.reads import count_reads

EVENTS = Read("events", (Stored("time", Type.TIMESTAMP), Stored("user", Type.STRING)))
USERS = Read("users", (Stored("id", Type.STRING), Stored("last_seen", Type.TIMESTAMP)))
USER = Column("user", Type.STRING)


def since(hour: int, column: str = "time") -> Expr:
    return Compare(">=", Column(column, Type.TIMESTAMP), Literal(datetime(2026, 3, 1, hour), Type.TIMESTAMP))


def count(read: Plan) -> Plan:
    return Aggregate(read, (), (Measure("rows", Agg.COUNT),))


def test_each_read_is_counted_within_its_own_time() -> None:
    is_ann = Compare("=", USER, Literal("ann", Type.STRING))
    bounded = Filter(Filter(EVENTS, And((since(1), is_ann))), since(2))
    joined = Join(bounded, USERS, "left", ((USER, Column("id", Type.STRING)),))
    assert count_reads(Aggregate(Filter(joined, since(3)), (), (Measure("n", Agg.COUNT),))) == [
        ("events", count(Filter(EVENTS, And((since(2), since(1)))))),
        ("users", count(USERS)),
    ]


def test_what_bounds_no_stored_time_for_all_rows_does_not_count() -> None:
    either = Filter(EVENTS, Or((since(1), since(2))))
    made_anew = Filter(Project(EVENTS, (("time", Literal(None, Type.TIMESTAMP)),)), since(1))
    assert count_reads(either) == count_reads(made_anew) == [("events", count(EVENTS))]
