"""Segments, formulas, saved queries and uses as values: what they take, refuse, and how they change."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from roster.base.errors import Code, Error
from roster.base.values import canonical
from roster.model import saved_query
from roster.model.formula import DEPTH_MAX, And, Formula, Name, Not, Or, names_in, parse_formula
from roster.model.schema import Entity
from roster.model.segment import Segment, change, definition_of, draft
from roster.model.segment_query import (
    AccountSearch,
    Definition,
    Performed,
    Period,
    ProfileSearch,
    StaticList,
    TableRows,
    TookSteps,
    read_definition,
)
from roster.model.use import Use, add_up

A, B, C = Name("a"), Name("b"), Name("c-1")
KNOWN = ("a", "b", "c-1")
QUERY: dict[str, Any] = {"profiles": [{"name": "a", "query": "tier:gold"}]}


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("", And((A, B, C))),
        ("  ", And((A, B, C))),
        ("a", A),
        (" ( a ) ", A),
        ("(a && b) && NOT(c-1)", And((And((A, B)), Not(C)))),
        ("a AND b OR c-1", Or((And((A, B)), C))),
        ("a or b and c-1", Or((A, And((B, C))))),
        ("a||b&&c-1", Or((A, And((B, C))))),
        ("!a && b", And((Not(A), B))),
        ("not not a", Not(Not(A))),
        ("!(a || b)", Not(Or((A, B)))),
        ("a && b && c-1 && a", And((A, B, C, A))),
    ],
)
def test_a_formula_means(text: str, meant: Formula) -> None:
    assert parse_formula(text, KNOWN, "/x") == meant


@pytest.mark.parametrize(
    ("text", "at", "said"),
    [
        ("a b", "character 3", "join with AND or OR"),
        ("a && ", "character 5", "too early"),
        ("&& a", "character 1", "missing before '&&'"),
        ("a && d", "character 6", "nothing is named 'd'"),
        ("(a || b", "character 1", "not closed"),
        ("a)", "character 2", "not expected"),
        ("a &  b", "character 3", "no meaning"),
        ("  é", "character 3", "no meaning"),
        ("A", "character 1", "known: a, b, c-1"),
        ("!" * (DEPTH_MAX + 2) + "a", f"character {DEPTH_MAX + 2}", "too deeply"),
        ("(" * (DEPTH_MAX + 2) + "a", f"character {DEPTH_MAX + 2}", "too deeply"),
        ("a " * 6000, "", "12000 characters"),
    ],
)
def test_a_wrong_formula_is_told_with_its_place(text: str, at: str, said: str) -> None:
    with pytest.raises(Error) as refused:
        parse_formula(text, KNOWN, "/x")
    assert (refused.value.code, refused.value.at) == (Code.INVALID, f"/x {at}".strip())
    assert said in refused.value.text()


def test_names_of_a_formula() -> None:
    assert names_in(parse_formula("a || !(b && a)", KNOWN, "")) == {"a", "b"}


SEARCH = {"expression": "A", "node_objects": {}}
WRONG_RULES: list[tuple[str, dict[str, Any], str, str]] = [
    ("event_platforms", {"query": 5}, "/query", "write *"),
    ("event_platforms", {"query": "*", "facet": "@account.id"}, "/facet", "@usr.id for a segment of users"),
    ("event_platforms", {"query": "*", "from": "now"}, "/from", "milliseconds"),
    ("event_platforms", {"query": "*", "from": 5, "to": 5}, "/from", "not before"),
    ("event_platforms", {"query": "*", "from": 5, "within_ms": 5}, "/within_ms", "exclude"),
    ("event_platforms", {"query": "*", "occurrences": {"operator": "~", "value": "1"}}, "/occurrences/operator", ">="),
    ("event_platforms", {"query": "*", "occurrences": {"operator": "=", "value": "x"}}, "/occurrences/value", "whole"),
    ("event_platforms", {"query": "*", "occurrences": {"operator": "=", "value": "0"}}, "/occurrences", "NOT"),
    ("event_platforms", {"query": "*", "windw": 5}, "", "known: name, query"),
    ("journeys", {"search": SEARCH, "group_by": "@session.id"}, "/group_by", "@usr.id"),
    ("journeys", {"search": SEARCH, "conversion_type": "drop"}, "/conversion_type", "drop-off"),
    ("journeys", {"search": "A"}, "/search", "expression"),
    ("reference_tables", {"table_name": "crm"}, "/join_condition", "not an object"),
    ("static", {}, "/id", "not a text"),
]


def rule(member: str, given: dict[str, Any]) -> dict[str, Any]:
    return {"data_query": {member: [{"name": "a"} | given]}}


def made(**changes: Any) -> Segment:
    given = {"name": "Gold", "data_query": QUERY, "description": "", "tags": ()} | changes
    return draft("s1", **given, who="ann", now_ms=5)


def test_a_definition() -> None:
    plain = {"entity": "accounts", "profiles": [{"name": "a", "query": "x:1"}, {"name": "b", "query": ""}]}
    searches = (ProfileSearch("a", "x:1"), ProfileSearch("b", ""))
    assert read_definition(plain) == Definition(Entity.ACCOUNTS, searches, And((A, B)))
    assert read_definition(plain | {"combination": "!a", "event_platforms": []}).combination == Not(A)
    assert definition_of(made(data_query=plain)) == read_definition(plain)


@pytest.mark.parametrize(
    ("changes", "at", "said"),
    [
        ({"data_query": {}}, "/data_query", "1 to 50"),
        ({"data_query": {"profiles": []}}, "/data_query", "1 to 50"),
        ({"data_query": {"profiles": [QUERY["profiles"][0]] * 51}}, "/data_query", "1 to 50"),
        *((rule(member, wrong), f"/data_query/{member}/0{at}", said) for member, wrong, at, said in WRONG_RULES),
        ({"data_query": {"profiles": QUERY["profiles"] * 2}}, "/data_query/profiles/1/name", "two rules"),
        ({"data_query": {"profiles": ["x"]}}, "/data_query/profiles/0", "not an object"),
        ({"data_query": {"profiles": [{"name": "not", "query": ""}]}}, "/data_query/profiles/0/name", "not AND"),
        ({"data_query": {"profiles": [{"name": "a b", "query": ""}]}}, "/data_query/profiles/0/name", "'a b'"),
        ({"data_query": {"profiles": [{"name": "a"}]}}, "/data_query/profiles/0/query", "write *"),
        ({"data_query": {"profiles": [{"name": "a", "query": "", "to": 1}]}}, "/data_query/profiles/0", "'to'"),
        ({"data_query": QUERY | {"combination": "a && c"}}, "/data_query/combination character 6", "'c'"),
        ({"data_query": QUERY | {"combination": 5}}, "/data_query/combination", "not a text"),
        ({"data_query": QUERY | {"entity": "user"}}, "/data_query/entity", "users, accounts"),
        ({"data_query": QUERY | {"entity": []}}, "/data_query/entity", "users, accounts"),
        ({"data_query": QUERY | {"combinaton": "a"}}, "/data_query", "did you mean 'combination'?"),
        ({"name": " "}, "/name", "1 to 200"),
        ({"name": "a\nb"}, "/name", "printable"),
        ({"name": "x" * 201}, "/name", "1 to 200"),
        ({"description": "x" * 5001}, "/description", "5000"),
        ({"description": "\0"}, "/description", "zero"),
        ({"tags": ("",)}, "/tags", "1 to 200"),
        ({"tags": ("x",) * 51}, "/tags", "at most 50"),
    ],
)
def test_a_wrong_segment_is_refused(changes: dict[str, Any], at: str, said: str) -> None:
    with pytest.raises(Error) as refused:
        made(**changes)
    assert (refused.value.code, refused.value.at) == (Code.INVALID, f"/data/attributes{at}")
    assert said in refused.value.text()


def test_what_is_drafted_but_not_served_is_named() -> None:
    with pytest.raises(Error) as refused:
        made(data_query=QUERY | {"templates": [{"template_id": "b"}]})
    assert (refused.value.code, refused.value.at) == (Code.UNSUPPORTED, "/data/attributes/data_query/templates")


def test_rules_of_every_kind_are_read() -> None:
    search = {"expression": "A", "node_objects": {}}
    count = {"operator": ">=", "value": "3"}
    join = {"column_name": "email", "facet": "@usr.email"}
    plain = {
        "accounts": [{"name": "big", "query": "user_count:>5"}],
        "event_platforms": [
            {"name": "did", "query": "*", "facet": "@usr.id", "from": 5, "to": 9},
            {"name": "often", "query": "*", "within_ms": 7, "occurrences": count},
        ],
        "journeys": [{"name": "left", "search": search, "conversion_type": "drop-off"}],
        "reference_tables": [
            {"name": "rows", "table_name": "crm", "join_condition": join, "filter_query": "tier:gold"}
        ],
        "static": [{"name": "kept", "id": "l1", "user_count": 4}],
    }
    assert read_definition(plain).rules == (
        AccountSearch("big", "user_count:>5"),
        Performed("did", "*", Period(5, 9)),
        Performed("often", "*", Period(within_ms=7), ">=", 3),
        TookSteps("left", canonical(search), dropped=True, when=Period()),
        TableRows("rows", "crm", "email", "user_email", "tier:gold"),
        StaticList("kept", "l1"),
    )


def test_a_change_is_a_version_and_no_change_is_none() -> None:
    first = made()
    assert change(first, who="bob", now_ms=9) is first
    assert change(first, name="Gold", data_query=dict(QUERY), tags=(), description="", who="bob", now_ms=9) is first
    second = change(first, tags=("a",), who="bob", now_ms=9)
    assert second == replace(first, tags=("a",), version=2, modified_ms=9, modified_by="bob")
    third = change(second, data_query=QUERY | {"entity": "accounts"}, who="eve", now_ms=10)
    assert (third.entity, third.version, third.tags, third.created_by) == (Entity.ACCOUNTS, 3, ("a",), "ann")


def test_the_digest_is_that_of_who_belongs() -> None:
    assert made().digest == made(name="Other", tags=("x",), data_query=dict(QUERY)).digest
    assert made().digest != made(data_query=QUERY | {"combination": "!a"}).digest
    assert made().digest != made(data_query=QUERY | {"entity": "accounts"}).digest


def test_a_query_to_save() -> None:
    query = saved_query.draft("a.b", "QueryAccounts", {"b": 1, "a": {}}, who="ann", now_ms=3)
    assert (query.entity, query.raw(), saved_query.body_json(query)) == (
        Entity.ACCOUNTS,
        b'{"a":{},"b":1}',
        {"b": 1, "a": {}},
    )
    for name, operation, said in (("a/b", "QueryUsers", "1 to 100"), ("a", "QueryUser", "did you mean 'QueryUsers'?")):
        with pytest.raises(Error) as refused:
            saved_query.draft(name, operation, {}, who="ann", now_ms=3)
        assert said in refused.value.text()


def test_uses_of_one_place_add_up() -> None:
    use = Use(Entity.USERS, "level", "tier", "QueryUsers", "ann", 2, 10)
    other = replace(use, spelled="level")
    assert add_up([use, other, replace(use, count=3, last_ms=7)]) == [replace(use, count=5), other]
    assert (use.is_old, other.is_old) == (True, False)
