"""Random profile and event queries: the engine, the oracle and a plain reading of the query agree.

A query is drawn together with what it means in plain Python, so that the search language, its
resolution, the plan, the rewrites and the SQL are all held against something that knows none of them.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from datetime import datetime
from typing import Any

import duckdb
import pytest
from hypothesis import HealthCheck, given, note, settings, strategies as st

from oracle import evaluate
from roster.analyses.facets import FacetRequest, facet
from roster.analyses.profiles import PageRequest, Selection, page
from roster.analyses.scopes import World
from roster.base.time import Range, epoch_ms, instant
from roster.model.changes import create
from roster.model.connection import CreateRequest, Field
from roster.model.mapping import empty
from roster.model.reference_table import Table, relation_of
from roster.model.schema import EVENT_SCHEMA, Column, Entity, Type, profile_schema
from roster.query.dialect import DUCKDB
from roster.query.plan import Plan
from roster.query.rewrite import rewrite_all
from roster.query.sql import render
from worlds import World as Tables, load

WORLDS = int(os.environ.get("ROSTER_WORLDS", "150"))
MANY = settings(max_examples=WORLDS, deadline=None, print_blob=True, suppress_health_check=list(HealthCheck))
NOW_MS = 1_750_000_000_000
HOUR_MS = 3_600_000
Profile = dict[str, Any]
Query = tuple[str, Callable[[Profile], bool]]

CRM = Table(
    id="6f7a3ad2-4f0f-4a3e-9a62-1f4f0c1f1b10",
    name="crm",
    columns=tuple(Column(n, Type.STRING) for n in ("email", "tier", "ltv", "active")),
    primary_key="email",
    source="LOCAL_FILE",
    description="",
    tags=(),
    row_count=0,
    created_by="",
    updated_by="",
    created_ms=0,
    updated_ms=0,
)
FIELDS = (
    Field("tier", "tier", Type.STRING),
    Field("value", "ltv", Type.NUMBER),
    Field("active", "active", Type.BOOLEAN),
)
MAPPING = create(
    empty(Entity.USERS),
    CreateRequest("crm", "ref_table", "email", "email", FIELDS),
    who="",
    now_ms=0,
    source_columns=CRM.columns,
)
WORLD = World(MAPPING, {"crm": CRM}, NOW_MS, 0)

EMAILS = ["ann@x.io", "ANN@x.io ", "bob@y.io", "Bob@y.io", "eve@x.io", None, ""]
TIERS = ["gold", "Gold", "silver", "go*ld", "a b", "é", None, ""]
NUMBERS = ["1", "2.5", "10", "007", "n/a", None, "-3", " 4 "]
TRUTHS = ["true", "False", "maybe", None]
VIEWS = ["home", "cart", "Home page", None]


@st.composite
def tables(draw: st.DrawFn) -> Tables:
    """A few users, CRM rows with messy keys, and events of those users."""
    users = [
        {c.name: None for c in profile_schema(Entity.USERS)}
        | {
            "user_id": f"u{n}",
            "user_email": draw(st.sampled_from(EMAILS)),
            "session_count": draw(st.integers(0, 4)),
            "last_seen": instant(NOW_MS - draw(st.integers(0, 5)) * HOUR_MS),
        }
        for n in range(draw(st.integers(0, 6)))
    ]
    rows = [
        {
            "_row": n,
            "email": draw(st.sampled_from(EMAILS)),
            "tier": draw(st.sampled_from(TIERS)),
            "ltv": draw(st.sampled_from(NUMBERS)),
            "active": draw(st.sampled_from(TRUTHS)),
        }
        for n in range(draw(st.integers(0, 6)))
    ]
    events = [
        {c.name: None for c in EVENT_SCHEMA}
        | {
            "event_id": f"e{n}",
            "time": instant(NOW_MS - draw(st.integers(0, 5)) * HOUR_MS),
            "type": draw(st.sampled_from(["view", "action"])),
            "user_id": draw(st.sampled_from(["u0", "u1", "u2", "u9", None])),
            "resolved_user_id": draw(st.sampled_from(["u0", "u1", "u2", "u9", None])),
            "view_name": draw(st.sampled_from(VIEWS)),
            "loading_time": draw(st.sampled_from([None, 0, 5, 3_000_000_000])),
            "rest": draw(st.sampled_from([None, {"cart": {"size": 2}}, {"cart": {"size": "2"}}, {"tags": ["a", "b"]}])),
        }
        for n in range(draw(st.integers(0, 8)))
    ]
    schemas = {
        "users": profile_schema(Entity.USERS),
        relation_of(CRM): (Column("_row", Type.INTEGER), *CRM.columns),
        "events": EVENT_SCHEMA,
    }
    return Tables(schemas, {"users": users, relation_of(CRM): rows, "events": events})


def email_key(text: str | None) -> str:
    return (text or "").strip(" ").lower()


def number_of(text: str | None) -> float | None:
    try:
        return float(text or "")
    except ValueError:
        return None


def profiles_of(world: Tables) -> list[Profile]:
    """What every user's profile must be: the last CRM row whose normalised e-mail is the user's."""
    by_key = {email_key(r["email"]): r for r in world.tables[relation_of(CRM)] if email_key(r["email"])}
    found = []
    for user in world.tables["users"]:
        row = by_key.get(email_key(user["user_email"]), {}) if email_key(user["user_email"]) else {}
        truth = {"true": True, "False": False}.get(row.get("active") or "")
        found.append(user | {"tier": row.get("tier"), "value": number_of(row.get("ltv")), "active": truth})
    return found


def clauses() -> st.SearchStrategy[Query]:
    """One term and its meaning; missing values satisfy no term."""
    at = st.sampled_from(["", "@"])
    words = st.sampled_from(
        [("gold", "gold"), ('"go*ld"', "go*ld"), ('"a b"', "a b"), (r"a\ b", "a b"), ("é", "é"), ('""', "")]
    )
    return st.one_of(
        st.builds(lambda p, w: (f"{p}tier:{w[0]}", lambda r: r["tier"] == w[1]), at, words),
        st.builds(lambda p: (f"{p}tier:*", lambda r: r["tier"] is not None), at),
        st.builds(lambda p: (f"{p}tier:go*", lambda r: (r["tier"] or "").startswith("go")), at),
        st.builds(lambda p: (f"{p}tier:?old", lambda r: len(r["tier"] or "") == 4 and r["tier"].endswith("old")), at),
        st.just(("tier:(gold OR silver)", lambda r: r["tier"] in ("gold", "silver"))),
        st.just(("user_email:*@x.io", lambda r: (r["user_email"] or "").endswith("@x.io"))),
        st.builds(
            lambda op, n: (f"value:{op}{n}", lambda r: r["value"] is not None and compare(op, r["value"], n)),
            st.sampled_from([">", ">=", "<", "<="]),
            st.sampled_from([-3, 0, 2.5, 7, 10]),
        ),
        st.just(("value:[1 TO 7]", lambda r: r["value"] is not None and 1 <= r["value"] <= 7)),
        st.just(("value:{1 TO *]", lambda r: r["value"] is not None and r["value"] > 1)),
        st.just(("value:7", lambda r: r["value"] == 7)),
        st.just(("active:true", lambda r: r["active"] is True)),
        st.builds(lambda n: (f"session_count:{n}", lambda r: r["session_count"] == n), st.integers(0, 4)),
        st.builds(lambda h: (f"last_seen:>now-{h}h", lambda r: hours_ago(r) < h), st.integers(0, 5)),
        st.just(("nobody_has_this:1", lambda r: False)),
        st.just(("*", lambda r: True)),
        st.just(("OLD", lambda r: any("old" in str(r[n]).lower() for n in ("tier", "user_email") if r[n] is not None))),
    )


def compare(op: str, left: float, right: float) -> bool:
    return {">": left > right, ">=": left >= right, "<": left < right, "<=": left <= right}[op]


def hours_ago(profile: Profile) -> float:
    return (NOW_MS - epoch_ms(profile["last_seen"])) / HOUR_MS


def combine(inner: st.SearchStrategy[Query]) -> st.SearchStrategy[Query]:
    return st.one_of(
        st.builds(lambda a, b: (f"({a[0]}) AND ({b[0]})", lambda r: a[1](r) and b[1](r)), inner, inner),
        st.builds(lambda a, b: (f"({a[0]}) ({b[0]})", lambda r: a[1](r) and b[1](r)), inner, inner),
        st.builds(lambda a, b: (f"({a[0]}) OR ({b[0]})", lambda r: a[1](r) or b[1](r)), inner, inner),
        st.builds(lambda a: (f"-({a[0]})", lambda r: not a[1](r)), inner),
        st.builds(lambda a: (f"NOT ({a[0]})", lambda r: not a[1](r)), inner),
    )


QUERIES = st.recursive(clauses(), combine, max_leaves=5)
EVENT_CLAUSES: list[Query] = [
    ("@type:view", lambda e: e["type"] == "view"),
    ("@view.name:home", lambda e: e["view_name"] == "home"),
    ("-@view.name:home", lambda e: e["view_name"] != "home"),
    ("@view.loading_time:>=3s", lambda e: (e["loading_time"] or 0) >= 3_000_000_000),
    ("@cart.size:2", lambda e: str(((e["rest"] or {}).get("cart") or {}).get("size")) == "2"),
    ("@tags:b", lambda e: "b" in ((e["rest"] or {}).get("tags") or [])),
    ("page", lambda e: "page" in (e["view_name"] or "").lower()),
    ("", lambda e: True),
]


@pytest.fixture(scope="module")
def connection() -> duckdb.DuckDBPyConnection:
    connection = duckdb.connect(config={"threads": 1, "preserve_insertion_order": False})
    for statement in DUCKDB.setup:
        connection.execute(statement)
    return connection


def answers(connection: duckdb.DuckDBPyConnection, plan: Plan, world: Tables) -> list[tuple[Any, ...]]:
    """The engine's rows of the rewritten plan, which must be the oracle's of the plan as made."""
    rendered = render(rewrite_all(plan), DUCKDB)
    note(rendered.sql)
    found = connection.execute(rendered.sql, list(rendered.parameters)).fetchall()
    assert found == evaluate(plan, world.tables)
    return found


@MANY
@given(world=tables(), query=QUERIES, descending=st.booleans(), limit=st.integers(1, 7))
def test_pages_and_totals(
    connection: duckdb.DuckDBPyConnection, world: Tables, query: Query, descending: bool, limit: int
) -> None:
    text, meaning = query
    note(text)
    load(connection, world, set(world.tables))
    wanted = sorted((p for p in profiles_of(world) if meaning(p)), key=lambda p: str(p["user_id"]))
    wanted.sort(key=lambda p: p["last_seen"], reverse=descending)
    made = page(
        WORLD, PageRequest(Selection(query=text), ("user_id", "@tier", "value"), "last_seen", descending, limit)
    )
    rows = answers(connection, made.rows, world)
    assert rows == [(p["user_id"], p["tier"], p["value"]) for p in wanted][:limit]
    assert answers(connection, made.total, world) == [(len(wanted),)]


@MANY
@given(world=tables(), query=QUERIES, term=st.sampled_from(["", "ol", "OL", "?o"]))
def test_facets(connection: duckdb.DuckDBPyConnection, world: Tables, query: Query, term: str) -> None:
    text, meaning = query
    note(text)
    load(connection, world, set(world.tables))
    counted = Counter(p["tier"] for p in profiles_of(world) if meaning(p) and p["tier"] is not None)
    kept = {value: count for value, count in counted.items() if matches_term(value, term)}
    wanted = sorted(kept.items(), key=lambda item: (-item[1], item[0]))
    made = facet(WORLD, FacetRequest("tier", text, term, 10))
    assert answers(connection, made.values, world) == wanted


def matches_term(value: str, term: str) -> bool:
    if term == "?o":
        return "o" in value.lower()[1:]
    return term.lower() in value.lower()


@MANY
@given(
    world=tables(),
    query=QUERIES,
    event=st.sampled_from(EVENT_CLAUSES),
    hours=st.tuples(st.integers(0, 5), st.integers(0, 5)),
)
def test_event_filtered_users(
    connection: duckdb.DuckDBPyConnection, world: Tables, query: Query, event: Query, hours: tuple[int, int]
) -> None:
    note(f"{query[0]} / {event[0]}")
    load(connection, world, set(world.tables))
    range = Range(NOW_MS - max(hours) * HOUR_MS, NOW_MS - min(hours) * HOUR_MS)

    def inside(moment: datetime) -> bool:
        return range.from_ms <= epoch_ms(moment) < range.to_ms

    did = {e["resolved_user_id"] for e in world.tables["events"] if inside(e["time"]) and event[1](e)}
    wanted = sorted(p["user_id"] for p in profiles_of(world) if p["user_id"] in did and query[1](p))
    selection = Selection(query=query[0], event_query=event[0], event_range=range)
    made = page(WORLD, PageRequest(selection, ("user_id",), "user_id", False, 100))
    assert [row[0] for row in answers(connection, made.rows, world)] == wanted
    assert answers(connection, made.total, world) == [(len(wanted),)]
