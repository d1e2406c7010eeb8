"""A few plans as people read them: outline, SQL, rows. `GOLDEN=write pytest` writes the file anew; read its diff."""

from __future__ import annotations

import os
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pytest

from roster.model.schema import Column as SchemaColumn, Schema, Type
from roster.query.dialect import DUCKDB
from roster.query.expr import (
    AnyOf,
    Cast,
    Column,
    Compare,
    InBlocks,
    Item,
    Like,
    Literal,
    Not,
    Or,
    Texts,
    Wild,
)
from roster.query.outline import outline
from roster.query.plan import (
    Agg,
    Aggregate,
    FillTime,
    Filter,
    Join,
    Limit,
    MatchSteps,
    Measure,
    Plan,
    Project,
    Rank,
    Read,
    Sort,
    SortKey,
    Spread,
    Step,
    Union,
    Window,
)
from roster.query.sql import render
from worlds import World, load

GOLDEN = Path(__file__).parent.parent / "golden" / "plans.case"
DAY = datetime(2024, 1, 1)
TABLE = "table:0b5c3a4e-9d1f-4a52-8f6e-1f2d3c4b5a69"


def schema(**types: Type) -> Schema:
    return tuple(SchemaColumn(name, type) for name, type in types.items())


EVENTS = schema(user_id=Type.STRING, time=Type.TIMESTAMP, event_id=Type.INTEGER, view=Type.STRING, rest=Type.ANY)
USERS = schema(user_id=Type.STRING, email=Type.STRING, session_count=Type.INTEGER)
CRM = schema(mail=Type.STRING, tier=Type.STRING)


def event(user: str, hour: int, id: int, view: str, rest: Any = None) -> dict[str, Any]:
    return {"user_id": user, "time": DAY + timedelta(hours=hour), "event_id": id, "view": view, "rest": rest}


WORLD = World(
    {"events": EVENTS, "users": USERS, TABLE: CRM},
    {
        "events": [
            event("u1", 0, 1, "home", {"geo": {"ip": "10.0.0.7"}, "cart": [{"sku": "a"}, {"sku": "b"}]}),
            event("u1", 1, 2, "cart", {"geo": {"ip": "8.8.8.8"}}),
            event("u1", 30, 3, "pay"),
            event("u2", 2, 4, "home", {"cart": {"sku": "b"}}),
            event("u2", 26, 5, "cart"),
        ],
        "users": [
            {"user_id": "u1", "email": "Ann@Example.com", "session_count": 3},
            {"user_id": "u2", "email": "bob@example.org", "session_count": 1},
            {"user_id": "u3", "email": None, "session_count": None},
        ],
        TABLE: [{"mail": "Ann@Example.com", "tier": "gold"}],
    },
)


def text(value: str) -> Literal:
    return Literal(value, Type.STRING)


def column(name: str) -> Column:
    types = {c.name: c.type for c in (*EVENTS, *USERS, *CRM)}
    return Column(name, types[name])


def is_view(name: str) -> Compare:
    return Compare("=", column("view"), text(name))


EVENT_ROWS = Read("events", EVENTS)
USER_ROWS = Read("users", USERS)
ENRICHED = Join(USER_ROWS, Read(TABLE, CRM), "left", ((column("email"), column("mail")),))
ROWS = Measure("n", Agg.COUNT)
START_MS = 1704067200000
HOUR_MS = 3_600_000
BY_EMAIL = Like(column("email"), (Wild.ANY, "example.c", Wild.ANY), fold=True)

PLANS: dict[str, Plan] = {
    "a page of enriched profiles": Limit(
        Sort(
            Project(
                Filter(ENRICHED, Or((BY_EMAIL, Not(Compare("=", column("tier"), text("gold")))))),
                (("user_id", column("user_id")), ("@tier", column("tier")), ("sessions", column("session_count"))),
            ),
            (SortKey(Column("sessions", Type.INTEGER), descending=True), SortKey(column("user_id"))),
        ),
        25,
    ),
    "did one thing and not another": Join(
        Join(USER_ROWS, Filter(EVENT_ROWS, is_view("cart")), "semi", ((column("user_id"), column("user_id")),)),
        Filter(EVENT_ROWS, is_view("pay")),
        "anti",
        ((column("user_id"), column("user_id")),),
    ),
    "a path through arrays": Project(
        Filter(EVENT_ROWS, AnyOf(column("rest"), ("cart", "sku"), Compare("=", Cast(Item(), Type.STRING), text("b")))),
        (("event_id", column("event_id")),),
    ),
    "addresses in a block": Aggregate(
        Filter(EVENT_ROWS, AnyOf(column("rest"), ("geo", "ip"), InBlocks(Cast(Item(), Type.STRING), ("10.0.0.0/8",)))),
        (),
        (ROWS, Measure("users", Agg.DISTINCT, column("user_id"))),
    ),
    "groups by a path through arrays": Aggregate(
        Spread(EVENT_ROWS, "sku", Texts(column("rest"), ("cart", "sku"))),
        (("value", Column("sku", Type.STRING)),),
        (ROWS,),
    ),
    "a facet": Sort(
        Aggregate(EVENT_ROWS, (("value", column("view")),), (ROWS,)),
        (SortKey(Column("n", Type.INTEGER), descending=True), SortKey(Column("value", Type.STRING))),
    ),
    "the latest event of each user": Filter(
        Window(
            Project(EVENT_ROWS, tuple((name, column(name)) for name in ("user_id", "time", "view"))),
            "rank",
            Rank.ROW_NUMBER,
            None,
            (column("user_id"),),
            (SortKey(column("time"), descending=True),),
        ),
        Compare("=", Column("rank", Type.INTEGER), Literal(1, Type.INTEGER)),
    ),
    "two answers as one": Union(
        (
            Project(EVENT_ROWS, (("id", column("user_id")),)),
            Project(USER_ROWS, (("id", Cast(column("session_count"), Type.STRING)),)),
        )
    ),
    "a funnel": MatchSteps(
        EVENT_ROWS,
        column("user_id"),
        column("time"),
        (
            Step(is_view("home")),
            Step(is_view("cart"), (("id", column("event_id")),)),
            Step(is_view("pay"), unless=is_view("home")),
        ),
        24 * HOUR_MS,
        "every",
    ),
    "how far sessions get": MatchSteps(
        EVENT_ROWS, column("user_id"), column("time"), (Step(is_view("home")), Step(is_view("pay"))), None, "first"
    ),
    "a complete time axis": FillTime(
        Aggregate(EVENT_ROWS, (("hour", column("time")),), (ROWS,)), "hour", START_MS, START_MS + 4 * HOUR_MS, HOUR_MS
    ),
}


def spelled(name: str, plan: Plan) -> str:
    connection = duckdb.connect()
    for statement in DUCKDB.setup:
        connection.execute(statement)
    load(connection, WORLD, set(WORLD.schemas))
    rendered = render(plan, DUCKDB)
    rows = connection.execute(rendered.sql, list(rendered.parameters)).fetchall()
    lines = [str(row) for row in (rows if isinstance(plan, Sort | Limit) else sorted(rows, key=repr))]
    return "\n".join([f"=== {name}", outline(plan), "---", rendered.sql, str(rendered.parameters), "---", *lines, ""])


def kept() -> dict[str, str]:
    parts = GOLDEN.read_text().split("=== ")[1:]
    return {part.split("\n", 1)[0]: "=== " + part.rstrip("\n") + "\n" for part in parts}


@pytest.mark.parametrize("name", PLANS)
def test_the_plan_is_spelled_as_kept(name: str) -> None:
    if os.environ.get("GOLDEN") == "write":
        GOLDEN.write_text("\n".join(spelled(n, p) for n, p in PLANS.items()))
    assert spelled(name, PLANS[name]) == kept()[name]


def test_no_case_is_left_over() -> None:
    assert list(kept()) == list(PLANS)
