"""Owns small random worlds of events, users and accounts: as tables for the engine, as plain facts for models.

A fact is one event as a dict: the names that searches and groups use give its values, those of its user and account
too; `id`, `ms`, `person` and `type` beside them.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from random import Random
from typing import Any

import duckdb
from hypothesis import HealthCheck, currently_in_test_context, note, settings, strategies as st

from roster.analyses.event_world import EventWorld
from roster.analyses.scopes import World
from roster.base.time import epoch_ms, instant
from roster.model.changes import create
from roster.model.connection import CreateRequest, Field
from roster.model.mapping import empty
from roster.model.reference_table import Table, relation_of
from roster.model.schema import EVENT_SCHEMA, Column, Entity, Schema, Type, profile_schema
from roster.query.dialect import DUCKDB
from roster.query.plan import Plan
from roster.query.rewrite import rewrite_all
from roster.query.sql import render
from told_texts import listed
from worlds import World as Tables, load

WORLDS = int(os.environ.get("ROSTER_WORLDS", "40"))
MANY = settings(max_examples=WORLDS, deadline=None, print_blob=True, suppress_health_check=list(HealthCheck))
HOUR_MS, DAY_MS = 3_600_000, 86_400_000
SEEDS = st.integers(0, 2**64 - 1)
NOW_MS = 1_765_000_000_000
STARTS = (
    1_743_202_800_000,  # 2025-03-29 00:00 in Berlin; clocks go forward in the night of the 30th
    1_761_343_200_000,  # 2025-10-25 00:00 in Berlin; they go back in the night of the 26th
    1_767_135_600_000,  # 2025-12-31 00:00 in Berlin
)
Fact = dict[str, Any]
Meaning = Callable[[Fact], bool]
Search = tuple[str, Meaning]
Admitted = tuple[list[tuple[str, str, str]], str, Meaning]
"""Groups as (name, entity, search), a formula, and whether an event is admitted."""


def _table(id: str, name: str, columns: tuple[str, ...]) -> Table:
    return Table(
        id=id,
        name=name,
        columns=tuple(Column(c, Type.STRING) for c in columns),
        primary_key=columns[0],
        source="LOCAL_FILE",
        description="",
        tags=(),
        row_count=0,
        created_by="",
        updated_by="",
        created_ms=0,
        updated_ms=0,
    )


CRM = _table("6f7a3ad2-4f0f-4a3e-9a62-1f4f0c1f1b10", "crm", ("email", "tier", "ltv"))
FIRMS = _table("0d5ac7f0-66c8-44a5-9f0a-b1a7a5a6f111", "firms", ("firm", "size"))


def _world(entity: Entity, table: Table, request: CreateRequest) -> World:
    mapping = create(empty(entity), request, who="", now_ms=0, source_columns=table.columns)
    return World(mapping, {table.name: table}, NOW_MS, 0)


USER_FIELDS = (Field("tier", "tier", Type.STRING), Field("score", "ltv", Type.NUMBER))
WORLD = EventWorld(
    _world(Entity.USERS, CRM, CreateRequest("crm", "ref_table", "email", "email", USER_FIELDS)),
    _world(
        Entity.ACCOUNTS,
        FIRMS,
        CreateRequest("firms", "ref_table", "account_id", "firm", (Field("size", "size", Type.STRING),)),
    ),
)

EMAILS = ("ann@x.io", "ANN@x.io ", "bob@y.io", "eve@x.io", None)
VIEWS = ("home", "cart", "Cart", "shop/é", "other", "1:home", "N/A", None)
PLANS = ("pro", "free", "é", 2, 2.5, 10, "9", True, ["a", "b"], ["b", 2, "pro", 2, None, ["a"]], [], "[b", None)
SESSIONS = ("s0", "s1", "s2", "s3", None)
USERS = ("u0", "u1", "u2", "u9", None)
"""u9 has events and no profile; without a user an event may have an anonymous id."""


@dataclass(frozen=True)
class Small:
    """One world: its tables, and its events as facts in no order."""

    tables: Tables
    facts: list[Fact]
    start_ms: int


def smalls(
    events_max: int = 12, sessions: Sequence[str | None] = SESSIONS, users: Sequence[str | None] = USERS
) -> st.SearchStrategy[Small]:
    """Worlds by a seed: hypothesis by itself prefers those in which hardly anything happens."""
    return SEEDS.map(lambda seed: small_of(Random(seed), events_max, sessions, users))


def small_of(
    random: Random, events_max: int, sessions: Sequence[str | None] = SESSIONS, users: Sequence[str | None] = USERS
) -> Small:
    """Mostly as many events as there may be, of some of these sessions and users: fewer of them meet more often."""
    pick = random.choice
    profiles = [
        {c.name: None for c in profile_schema(Entity.USERS)}
        | {
            "user_id": f"u{n}",
            "user_email": pick(EMAILS),
            "first_country_code": pick(["DE", "FR", None]),
            "session_count": random.randint(0, 3),
        }
        for n in range(random.randint(1, 4))
    ]
    accounts = [{c.name: None for c in profile_schema(Entity.ACCOUNTS)} | {"account_id": f"a{n}"} for n in range(2)]
    crm = [
        {
            "_row": n,
            "email": pick(EMAILS),
            "tier": pick(["gold", "Gold", "silver", None]),
            "ltv": pick(["1", "2.5", "10", "n/a", None]),
        }
        for n in range(random.randint(0, 4))
    ]
    firms = [{"_row": n, "firm": f"a{n}", "size": pick(["big", "small", None])} for n in range(2)]
    start_ms = pick(STARTS)
    count = pick([0, 3, events_max // 2, *[events_max] * 9])
    events = [_event(random, n, start_ms, sessions, users) for n in range(count)]
    schemas: dict[str, Schema] = {
        "users": profile_schema(Entity.USERS),
        "accounts": profile_schema(Entity.ACCOUNTS),
        relation_of(CRM): (Column("_row", Type.INTEGER), *CRM.columns),
        relation_of(FIRMS): (Column("_row", Type.INTEGER), *FIRMS.columns),
        "events": EVENT_SCHEMA,
    }
    rows = {"users": profiles, "accounts": accounts, relation_of(CRM): crm, relation_of(FIRMS): firms, "events": events}
    return Small(Tables(schemas, rows), facts_of(rows), start_ms)


def _event(
    random: Random, n: int, start_ms: int, sessions: Sequence[str | None], users: Sequence[str | None]
) -> dict[str, Any]:
    """Times meet often, lie around midnight and around changes of clocks, and are now and then a millisecond off."""
    pick = random.choice
    user = pick(users)
    hours = pick([*range(6), *range(22, 30), 47, 48, 49])
    return {c.name: None for c in EVENT_SCHEMA} | {
        "event_id": f"e{random.randint(0, 9)}{n}",
        "time": instant(start_ms + hours * HOUR_MS + pick([0, 0, 0, 1, -1])),
        "type": pick(["view", "view", "view", "action", "session"]),
        "user_id": user,
        "resolved_user_id": user,
        "anonymous_id": pick(["x", "y", None]),
        "account_id": pick(["a0", "a1", "a9", None]),
        "session_id": pick(sessions),
        "view_name": pick(VIEWS),
        "action_name": pick(["buy", "look", None, None]),
        "loading_time": pick([None, 0, 5, 3_000_000_000]),
        "rest": pick([None, *({"context": {"plan": plan}} for plan in PLANS)]),
    }


def facts_of(rows: dict[str, list[dict[str, Any]]]) -> list[Fact]:
    """The events beside what is true of their users and accounts."""
    tiers = {_email(r["email"]): r for r in rows[relation_of(CRM)] if _email(r["email"])}
    users = {u["user_id"]: u | (tiers.get(_email(u["user_email"])) or {}) for u in rows["users"]}
    firms = {r["firm"]: r for r in rows[relation_of(FIRMS)]}
    accounts = {a["account_id"] for a in rows["accounts"]}
    facts = []
    for event in rows["events"]:
        user = users.get(event["resolved_user_id"], {})
        firm = firms.get(event["account_id"], {}) if event["account_id"] in accounts else {}
        facts.append(
            {
                "id": event["event_id"],
                "ms": epoch_ms(event["time"]),
                "type": event["type"],
                "person": event["resolved_user_id"] or event["anonymous_id"],
                "date": event["time"],
                "@type": event["type"],
                "@usr.id": event["resolved_user_id"],
                "@session.id": event["session_id"],
                "@account.id": event["account_id"],
                "@view.name": event["view_name"],
                "@view.loading_time": event["loading_time"],
                "@action.name": event["action_name"],
                "@context.plan": ((event["rest"] or {}).get("context") or {}).get("plan"),
                "has_profile": bool(user),
                "first_country_code": user.get("first_country_code"),
                "session_count": user.get("session_count"),
                "@tier": user.get("tier"),
                "@score": _number(user.get("ltv")),
                "@size": firm.get("size"),
            }
        )
    return facts


def _email(text: str | None) -> str:
    return (text or "").strip(" ").lower()


def _number(text: str | None) -> float | None:
    return None if text in (None, "n/a") else float(text or "")


def texts_of(value: Any) -> list[str]:
    """The groups of an event with this value: an array has one for each of its texts."""
    return sorted({t for t in map(text_of, value if isinstance(value, list) else [value]) if t is not None})


def told_of(value: Any) -> str | None:
    """The same in one text, as it is carried on."""
    return listed(texts_of(value))


def text_of(value: Any) -> str | None:
    """A value as text; an array is none."""
    match value:
        case None | list() | dict():
            return None
        case bool():
            return "true" if value else "false"
        case float():
            return str(int(value)) if value == int(value) else repr(value)
        case datetime():
            return value.isoformat(timespec="milliseconds") + "Z"
        case _:
            return str(value)


def number_of(value: Any) -> float | None:
    """A value as a number; a text may be one."""
    if isinstance(value, str):
        return float(value) if value.isdecimal() else None
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def untyped_order(value: Any, descending: bool) -> tuple[bool, float, str] | None:
    """The place of a value without a type: numbers before texts, whichever way each of them goes; None: nowhere."""
    number, text = number_of(value), text_of(value)
    return None if text is None else ((number is not None) is descending, number or 0, text)


SEARCHES: tuple[Search, ...] = (
    ("", lambda e: e["type"] != "session"),
    ("*", lambda e: e["type"] != "session"),
    ("@type:view", lambda e: e["type"] == "view"),
    ("@type:(view OR session)", lambda e: e["type"] in ("view", "session")),
    ("@view.name:home", lambda e: e["type"] != "session" and e["@view.name"] == "home"),
    ("-@view.name:home", lambda e: e["type"] != "session" and e["@view.name"] != "home"),
    ("@view.name:*a*", lambda e: e["type"] != "session" and "a" in (e["@view.name"] or "")),
    ("@context.plan:pro", lambda e: e["type"] != "session" and "pro" in texts_of(e["@context.plan"])),
    ("@context.plan:b", lambda e: e["type"] != "session" and "b" in texts_of(e["@context.plan"])),
    ("@tier:gold", lambda e: e["type"] != "session" and e["@tier"] == "gold"),
    ("-tier:gold", lambda e: e["type"] != "session" and e["@tier"] != "gold"),
    ("@score:>=2.5", lambda e: e["type"] != "session" and (e["@score"] or 0) >= 2.5),
    ("@size:big @type:view", lambda e: e["type"] == "view" and e["@size"] == "big"),
    ("first_country_code:DE", lambda e: e["type"] != "session" and e["first_country_code"] == "DE"),
    ("@type:s*", lambda e: e["type"] == "session"),
    ("*:s1", lambda e: e["type"] != "session" and e["@session.id"] == "s1"),
    ("@session.id:s1 -@type:action", lambda e: e["type"] == "view" and e["@session.id"] == "s1"),
    (
        "@type:view OR @session.id:s1",
        lambda e: e["type"] == "view" or (e["type"], e["@session.id"]) == ("action", "s1"),
    ),
    ("@type:session OR @view.name:home", lambda e: e["type"] == "session" or e["@view.name"] == "home"),
)
"""Searches over events with their meaning. Rows of sessions take part only where a search asks for them."""
FILTERS: tuple[Search, ...] = (
    ("@type:view", lambda e: e["type"] == "view"),
    ("-@view.name:home", lambda e: e["@view.name"] != "home"),
    ("@type:(view OR session)", lambda e: e["type"] in ("view", "session")),
    ("@tier:gold", lambda e: e["@tier"] == "gold"),
    ("*:s1", lambda e: e["@session.id"] == "s1"),
    ("*", lambda e: True),
    ("", lambda e: True),
)
"""The same, before other searches: these decide about the rows of sessions."""
FACETS = ("@view.name", "@context.plan", "@tier", "@score", "@size", "first_country_code", "@session.id", "@usr.id")
"""Of every kind of attribute: of the event, deep in it, of its user, built-in and from a table, and of its account."""


def audiences() -> st.SearchStrategy[Admitted]:
    return SEEDS.map(lambda seed: audience_of(Random(seed)))


def audience_of(random: Random, everyone: float = 0.7) -> Admitted:
    """Groups as (name, entity, search), a formula, and whether an event is admitted."""
    groups = [
        ("gold", "users", "tier:gold"),
        ("german", "users", "first_country_code:DE"),
        ("big", "accounts", "size:big"),
    ]

    def gold(e: Fact) -> bool:
        return bool(e["@tier"] == "gold")

    def german(e: Fact) -> bool:
        return bool(e["first_country_code"] == "DE")

    def big(e: Fact) -> bool:
        return bool(e["@size"] == "big")

    formulas: list[tuple[str, Meaning]] = [
        ("gold", gold),
        ("NOT gold", lambda e: not gold(e)),
        ("big", big),
        ("gold OR big", lambda e: gold(e) or big(e)),
        ("german AND NOT big", lambda e: german(e) and not big(e)),
        ("NOT (gold AND german) OR big", lambda e: not (gold(e) and german(e)) or big(e)),
        ("", lambda e: gold(e) and german(e) and big(e)),
    ]
    if random.random() < everyone:
        return [], "", lambda e: True
    formula, meaning = random.choice(formulas)
    return groups, formula, meaning


def spans() -> st.SearchStrategy[tuple[int, int]]:
    return SEEDS.map(lambda seed: span_of(Random(seed)))


def span_of(random: Random, all: float = 0.5) -> tuple[int, int]:
    """Hours after a world's start, half-open; often all of it, now and then without any event."""
    if random.random() < all:
        return -1, 59
    pick = random.choice
    low = pick([-1, -1, -1, 0, 2, 23])
    return low, low + pick([60, 60, 60, 60, 60, 25, 3, 1])


def connect() -> duckdb.DuckDBPyConnection:
    connection = duckdb.connect(config={"threads": 1, "preserve_insertion_order": False})
    for statement in DUCKDB.setup:
        connection.execute(statement)
    return connection


def put(connection: duckdb.DuckDBPyConnection, small: Small) -> None:
    """Make the world's tables anew."""
    load(connection, small.tables, set(small.tables.tables))


def rows_of(connection: duckdb.DuckDBPyConnection, plan: Plan) -> list[tuple[Any, ...]]:
    """The engine's rows of a plan over the world that was put last."""
    rendered = render(rewrite_all(plan), DUCKDB)
    if currently_in_test_context():
        note(rendered.sql)
    return connection.execute(rendered.sql, list(rendered.parameters)).fetchall()
