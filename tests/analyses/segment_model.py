"""Owns what segments mean, in plain Python from facts, profiles and the `data_query`; knows no plans and no SQL."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from analyses import journey_model
from analyses.event_worlds import Fact, Meaning

Profile = dict[str, Any]
Body = dict[str, Any]
Tree = Any
"""A name, ("!", tree), ("&&", trees) or ("||", trees)."""
KEYS = {"users": "user_id", "accounts": "account_id"}
OWNERS = {"users": "@usr.id", "accounts": "@account.id"}


@dataclass(frozen=True)
class Told:
    """All there is: profiles of both kinds with what their tables say, events, tables, lists, and the moment."""

    profiles: Mapping[str, Sequence[Profile]]
    facts: Sequence[Fact]
    tables: Mapping[str, Sequence[dict[str, Any]]]
    lists: Mapping[str, Sequence[str]]
    now_ms: int
    means: Mapping[str, Meaning]
    """Searches over events."""
    finds: Mapping[str, Callable[[dict[str, Any]], bool]]
    """Searches over profiles, and over rows of tables."""


def members(query: Body, tree: Tree, told: Told) -> list[str]:
    """The keys of the members in order. `tree` is what the combination says."""
    entity = query.get("entity", "users")
    found = dict(_rules(query, entity, told))
    tree = tree or ("&&", list(found))
    return sorted(p[KEYS[entity]] for p in told.profiles[entity] if _holds(tree, p[KEYS[entity]], found))


def _holds(tree: Tree, key: str, found: Mapping[str, set[Any]]) -> bool:
    match tree:
        case str():
            return key in found[tree]
        case ("!", inner):
            return not _holds(inner, key, found)
        case ("&&", inner):
            return all(_holds(one, key, found) for one in inner)
        case (_, inner):
            return any(_holds(one, key, found) for one in inner)
    raise AssertionError(tree)


def _rules(query: Body, entity: str, told: Told) -> list[tuple[str, set[Any]]]:
    """Each rule's name and the keys that it admits."""
    key = KEYS[entity]
    found: list[tuple[str, set[Any]]] = []
    for rule in query.get("profiles", ()):
        found.append((rule["name"], {p[key] for p in told.profiles[entity] if told.finds[rule["query"]](p)}))
    for rule in query.get("accounts", ()):
        theirs = {a["account_id"] for a in told.profiles["accounts"] if told.finds[rule["query"]](a)}
        found.append((rule["name"], {p[key] for p in told.profiles["users"] if p["account_id"] in theirs}))
    for rule in query.get("event_platforms", ()):
        found.append((rule["name"], _performed(rule, entity, told)))
    for rule in query.get("journeys", ()):
        found.append((rule["name"], _took(rule, entity, told)))
    for rule in query.get("reference_tables", ()):
        found.append((rule["name"], _in_table(rule, entity, told)))
    for rule in query.get("static", ()):
        found.append((rule["name"], set(told.lists[rule["id"]])))
    return found


def _span(rule: Body, now_ms: int) -> tuple[int, int]:
    if rule.get("within_ms") is not None:
        return now_ms - rule["within_ms"], now_ms + 1
    low = rule.get("from") or 0
    return low, rule["to"] if rule.get("to") is not None else max(now_ms, low) + 1


def _performed(rule: Body, entity: str, told: Told) -> set[Any]:
    low, high = _span(rule, told.now_ms)
    counts = Counter(e[OWNERS[entity]] for e in told.facts if low <= e["ms"] < high and told.means[rule["query"]](e))
    often = rule.get("occurrences") or {"operator": ">=", "value": "1"}
    fits = journey_model.COMPARE[often["operator"]]
    return {who for who, count in counts.items() if who is not None and fits(count, int(often["value"]))}


def _took(rule: Body, entity: str, told: Told) -> set[Any]:
    given = journey_model.Given(told.facts, _span(rule, told.now_ms), told.now_ms, told.means, lambda _: True)
    flows = journey_model.flows(rule["search"], given, total=False)
    last = len(journey_model.steps_of(rule["search"]))
    wanted = range(1, last) if rule.get("conversion_type") == "drop-off" else (last,)
    return {flow.least(0, OWNERS[entity]) for flow in flows if flow.level in wanted} - {None}


def _in_table(rule: Body, entity: str, told: Told) -> set[Any]:
    column, facet = rule["join_condition"]["column_name"], rule["join_condition"]["facet"]
    attribute = {"@usr.id": "user_id", "@usr.email": "user_email", "@account.id": "account_id"}[facet]
    rows = [r for r in told.tables[rule["table_name"]] if told.finds[rule.get("filter_query") or "*"](r)]
    held = {_plain(row[column], attribute) for row in rows} - {""}
    return {p[KEYS[entity]] for p in told.profiles[entity] if _plain(p[attribute], attribute) in held}


def _plain(value: str | None, attribute: str) -> str:
    return (value or "").strip().lower() if attribute == "user_email" else value or ""
