"""Members of segments of all kinds of rules: the same by count, by pages, in files, one by one, and in plain Python."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import duckdb
import pytest
from hypothesis import given, note, settings, strategies as st

from analyses import segment_model as model
from analyses.event_worlds import (
    CRM,
    DAY_MS,
    FIRMS,
    HOUR_MS,
    MANY,
    NOW_MS,
    SEARCHES,
    WORLD,
    WORLDS,
    Small,
    connect,
    put,
    rows_of,
)
from analyses.segment_model import Body, Told, Tree
from analyses.test_journey import STEPS, worlds
from roster.analyses.event_world import EventWorld
from roster.analyses.member_pages import compare_members, file_members, page_members
from roster.analyses.members import LISTS, count_members, marked, members
from roster.analyses.segment_why import blame, membership, parts_of
from roster.model.reference_table import relation_of
from roster.model.schema import KEY_ATTRIBUTE, Entity, Type
from roster.model.segment import Segment, definition_of, draft
from roster.operations.event_worlds import read_search
from roster.query.expr import Column
from worlds import World as Tables

PEOPLE: dict[str, Any] = {
    "tier:gold": lambda p: p["tier"] == "gold",
    "-tier:gold": lambda p: p["tier"] != "gold",
    "@score:>=2 first_country_code:DE": lambda p: (p["score"] or 0) >= 2 and p["first_country_code"] == "DE",
    "session_count:>1": lambda p: p["session_count"] > 1,
    "user_id:(u0 OR u1)": lambda p: p["user_id"] in ("u0", "u1"),
    "*": lambda p: True,
}
FIRM: dict[str, Any] = {
    "size:big": lambda a: a["size"] == "big",
    "-size:big account_id:a0": lambda a: a["size"] != "big" and a["account_id"] == "a0",
}
LISTED = {"l1": ["u0", "u2", "gone", "a1"], "l2": []}
pick = st.sampled_from
SOME = settings(MANY, max_examples=WORLDS // 2 + 1)
"""Each takes several plans of its own."""


def around(now_ms: int) -> EventWorld:
    users, accounts = (replace(one, now_ms=now_ms) for one in (WORLD.users, WORLD.accounts))
    return EventWorld(users, accounts, {}, (CRM, FIRMS), read_search, members)


@st.composite
def rules(draw: st.DrawFn, entity: str, name: str) -> tuple[str, Body]:
    kinds = ["profiles", "event_platforms", "event_platforms", "journeys", "journeys", "reference_tables", "static"]
    kind = draw(pick([*kinds, "accounts"] if entity == "users" else kinds))
    rule: Body = {"name": name}
    match kind:
        case "profiles":
            rule["query"] = draw(pick(sorted(PEOPLE if entity == "users" else {*FIRM, "*"})))
        case "accounts":
            rule["query"] = draw(pick(sorted(FIRM)))
        case "event_platforms":
            rule |= {"query": draw(pick((*STEPS[:1] * 6, *STEPS[3:4] * 12, *STEPS, *SEARCHES)))[0]} | draw(periods())
            operator = draw(pick((None, "=", ">=", ">=", "<=", "<=", ">", "<")))
            if operator:
                rule["occurrences"] = {"operator": operator, "value": draw(pick(("2", "3", "4")))}
        case "journeys":
            aliases = draw(st.lists(pick("abc"), min_size=1, max_size=3))
            nodes = {
                a: {"data_source": "product_analytics", "search": {"query": STEPS[n][0]}} for n, a in enumerate("abc")
            }
            search = {"expression": " -> ".join(aliases), "node_objects": nodes}
            search["join_keys"] = {"primary": draw(pick(("@session.id", "@usr.id", "@account.id")))}
            rule |= {"search": search, "conversion_type": draw(pick(("conversion", "drop-off")))} | draw(periods())
        case "reference_tables":
            mine = ("crm", "email", "@usr.email", ("", "tier:gold", "-tier:gold"))
            table, column, facet, filters = (
                mine if entity == "users" else ("firms", "firm", "@account.id", ("", "size:big"))
            )
            rule |= {"table_name": table, "columns": [], "filter_query": draw(pick(filters))}
            rule["join_condition"] = {"column_name": column, "facet": facet}
        case _:
            rule |= {"id": draw(pick(("l1", "l1", "l2"))), "user_count": 0}
    return kind, rule


@st.composite
def periods(draw: st.DrawFn) -> Body:
    return draw(pick(({}, {}, {}, {}, {"within_ms": 0}, {"from": 2, "to": 26}, {"from": 1}, {"to": 24})))


def placed(rule: Body, start_ms: int, now_ms: int) -> Body:
    """Hours of a period as times of a world."""
    times: Body = {name: start_ms + rule[name] * HOUR_MS for name in ("from", "to") if name in rule}
    return rule | times | ({"within_ms": max(now_ms - start_ms - HOUR_MS, 0)} if "within_ms" in rule else {})


@st.composite
def trees(draw: st.DrawFn, names: list[str]) -> Tree:
    tree = st.recursive(
        pick(names),
        lambda inner: st.one_of(
            st.tuples(st.just("!"), inner), st.tuples(pick(("&&", "||")), st.lists(inner, min_size=2, max_size=3))
        ),
        max_leaves=5,
    )
    return draw(st.one_of(st.none(), tree))


def text_of(tree: Tree) -> str:
    match tree:
        case None:
            return ""
        case str():
            return tree
        case ("!", inner):
            return f"NOT({text_of(inner)})"
        case (op, inner):
            return "(" + f" {op} ".join(map(text_of, inner)) + ")"
    raise AssertionError(tree)


@st.composite
def queries(draw: st.DrawFn) -> tuple[Body, Tree]:
    entity = draw(pick(("users", "users", "accounts")))
    names = [f"r{n}" for n in range(draw(pick((1, 1, 1, 2, 3))))]
    query: Body = {"entity": entity}
    for name in names:
        kind, rule = draw(rules(entity, name))
        query.setdefault(kind, []).append(rule)
    tree = draw(trees(names))
    return query | {"combination": text_of(tree)}, tree


def with_lists(small: Small, accounts: list[str | None]) -> Small:
    """The world with kept lists, and with the accounts that users have now."""
    tables, schemas = dict(small.tables.tables), dict(small.tables.schemas)
    tables["users"] = [u | {"account_id": accounts[n % len(accounts)]} for n, u in enumerate(tables["users"])]
    tables["static_members"] = [{"list": id, "key": key} for id, keys in LISTED.items() for key in keys]
    schemas["static_members"] = LISTS.schema
    return replace(small, tables=Tables(schemas, tables))


def told_of(small: Small, now_ms: int) -> Told:
    tables = small.tables.tables
    crm = {_email(r["email"]): r for r in tables[relation_of(CRM)] if _email(r["email"])}
    firms = {r["firm"]: r for r in tables[relation_of(FIRMS)]}
    none = {"tier": None, "ltv": None}
    users = [u | (crm.get(_email(u["user_email"])) or none) for u in tables["users"]]
    users = [u | {"score": None if u["ltv"] in (None, "n/a") else float(u["ltv"])} for u in users]
    accounts = [a | {"size": (firms.get(a["account_id"]) or {}).get("size")} for a in tables["accounts"]]
    rows = {"crm": tables[relation_of(CRM)], "firms": tables[relation_of(FIRMS)]}
    means = dict((*SEARCHES, *STEPS))
    return Told({"users": users, "accounts": accounts}, small.facts, rows, LISTED, now_ms, means, {**PEOPLE, **FIRM})


def _email(text: str | None) -> str:
    return (text or "").strip().lower()


@pytest.fixture(scope="module")
def engine() -> duckdb.DuckDBPyConnection:
    return connect()


@SOME
@given(st.data())
def test_members_are_the_same_wherever_they_are_told(engine: duckdb.DuckDBPyConnection, data: st.DataObject) -> None:
    small = with_lists(data.draw(worlds()), data.draw(st.lists(pick(("a0", "a1", "a9", None)), min_size=4, max_size=4)))
    now_ms = data.draw(pick((*(small.start_ms + 3 * DAY_MS,) * 5, NOW_MS, small.start_ms + 2 * HOUR_MS)))
    query, tree = data.draw(queries())
    for kind in ("event_platforms", "journeys"):
        query = query | {kind: [placed(rule, small.start_ms, now_ms) for rule in query.get(kind, ())]}
    put(engine, small)
    expected = model.members(query, tree, told_of(small, now_ms))
    note(str((query, expected)))
    world, segment = around(now_ms), draft("s", "s", query, "", (), who="", now_ms=0)
    assert sorted(key for (key,) in rows_of(engine, members(world, segment))) == expected
    profiles, condition, _ = marked(world, segment, world.of(segment.entity).relation, key_of(segment))
    assert rows_of(engine, count_members(profiles, [condition])) == [(len(expected),)]
    check = data.draw(pick((check_pages, check_changes, check_why, check_why)))
    check(
        engine, world, segment, expected, [p[key_of(segment).name] for p in small.tables.tables[segment.entity.value]]
    )


def key_of(segment: Segment) -> Column:
    return Column(KEY_ATTRIBUTE[segment.entity], Type.STRING)


def check_pages(
    engine: duckdb.DuckDBPyConnection, world: EventWorld, segment: Segment, expected: list[str], _: list[str]
) -> None:
    key = key_of(segment).name
    paged: list[str] = []
    while True:
        page = page_members(world, segment, (key,), 2, paged[-1] if paged else None)
        rows = rows_of(engine, page.rows)
        paged += [own for own, _ in rows]
        if len(rows) < 2:
            break
    assert rows_of(engine, page.total) == [(len(expected),)]
    assert paged == expected
    assert rows_of(engine, file_members(world, segment, (key,))[0]) == [(own,) for own in expected]


def check_changes(
    engine: duckdb.DuckDBPyConnection, world: EventWorld, segment: Segment, expected: list[str], _: list[str]
) -> None:
    turned = compare_members(world, segment, "l1", 2)
    entered, left = sorted({*expected} - {*LISTED["l1"]}), sorted({*LISTED["l1"]} - {*expected})
    assert rows_of(engine, turned.entered_count) == [(len(entered),)]
    assert rows_of(engine, turned.left_count) == [(len(left),)]
    assert [rows_of(engine, plan) for plan in (turned.entered, turned.left)] == [
        [(key,) for key in keys[:2]] for keys in (entered, left)
    ]


def check_why(
    engine: duckdb.DuckDBPyConnection, world: EventWorld, segment: Segment, expected: list[str], profiles: list[str]
) -> None:
    """Blame falls on who is out only, and on a rule that is not as it would have to be."""
    key = profiles[0]
    assert rows_of(engine, membership(world, segment, key)[0]) == [(int(key in expected),)]
    clauses = {part.name: part.read(rows_of(engine, part.plan)) for part in parts_of(world, segment, key)}
    holds = {name: all(clause.holds for clause in one) for name, one in clauses.items()}
    blamed = blame(definition_of(segment).combination, holds)
    assert (blamed is None) is (key in expected)
    if blamed is not None:
        assert holds[blamed[0]] is not blamed[1]
    assert rows_of(engine, membership(world, segment, "nobody at all")[0]) == []


@pytest.mark.parametrize("entity", Entity)
def test_nobody_is_no_member(engine: duckdb.DuckDBPyConnection, entity: Entity) -> None:
    """A rule asked of a profile that has nothing says so."""
    query = {"entity": entity.value, "event_platforms": [{"name": "e", "query": "*"}]}
    segment = draft("s", "s", query, "", (), who="", now_ms=0)
    (part,) = parts_of(around(NOW_MS), segment, "nobody")
    (clause,) = part.read([(0,)])
    assert (clause.holds, clause.seen, clause.needs) == (
        False,
        {"events": 0},
        "events of * must number >= 1; there are 0",
    )
