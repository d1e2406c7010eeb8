"""Owns who belongs to a segment, as a `data_query` states it: named rules and a formula over them. Counts nobody."""

from __future__ import annotations

from collections.abc import Callable, Mapping as Map, Sequence
from dataclasses import dataclass
from typing import Any

from roster.base.errors import Code, Error, did_you_mean
from roster.base.values import canonical
from roster.model.formula import NAME_FORM, WORDS, Formula, parse_formula
from roster.model.schema import KEY_ATTRIBUTE, Entity

RULES_MAX = 50
QUERY_AT = "/data/attributes/data_query"
MEMBERS = ("profiles", "accounts", "event_platforms", "journeys", "reference_tables", "static")
OPERATORS = ("=", ">=", "<=", ">", "<")
FACETS = {Entity.USERS: "@usr.id", Entity.ACCOUNTS: "@account.id"}
"""The facet of events that names the profiles of each entity."""


@dataclass(frozen=True, slots=True)
class ProfileSearch:
    """Profiles that a search finds."""

    name: str
    query: str


@dataclass(frozen=True, slots=True)
class AccountSearch:
    """Users whose current account a search finds."""

    name: str
    query: str


@dataclass(frozen=True, slots=True)
class Period:
    """Half-open, in epoch ms; with `within_ms` the time up to now. Nothing given: all time up to now."""

    from_ms: int | None = None
    to_ms: int | None = None
    within_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Performed:
    """Profiles with events that a search finds: `count` of them as `op` says, any without."""

    name: str
    query: str
    when: Period
    op: str | None = None
    count: int = 1


@dataclass(frozen=True, slots=True)
class TookSteps:
    """Profiles whose journey converted, or dropped off. `search` is the canonical JSON of a journey's search."""

    name: str
    search: str
    dropped: bool
    when: Period


@dataclass(frozen=True, slots=True)
class TableRows:
    """Profiles whose attribute equals a column of a reference table, in rows that a search over its columns finds."""

    name: str
    table: str
    column: str
    attribute: str
    query: str


@dataclass(frozen=True, slots=True)
class StaticList:
    """Profiles of a kept list."""

    name: str
    id: str


Rule = AccountSearch | Performed | TookSteps | TableRows | StaticList
_LISTS: dict[type[Rule], str] = {
    AccountSearch: "accounts",
    Performed: "event_platforms",
    TookSteps: "journeys",
    TableRows: "reference_tables",
    StaticList: "static",
}


@dataclass(frozen=True, slots=True)
class Definition:
    """Who belongs to a segment: searches over profiles, other rules, and the formula over their names."""

    entity: Entity
    profiles: tuple[ProfileSearch, ...]
    combination: Formula
    rules: tuple[Rule, ...] = ()


def places_of(rules: Sequence[Rule]) -> list[str]:
    """Where each rule stands in the request: those of one list stand together, in its order."""
    lists = [_LISTS[type(rule)] for rule in rules]
    return [f"{QUERY_AT}/{name}/{lists[:n].count(name)}" for n, name in enumerate(lists)]


def read_definition(plain: Any) -> Definition:
    """The definition that a `data_query` states; its searches are not read here. Errors: INVALID, UNSUPPORTED."""
    given = _object(plain, QUERY_AT, ("entity", "combination", "templates", *MEMBERS))
    if given.get("templates"):
        hint = "write the rules themselves"
        raise Error(Code.UNSUPPORTED, "templates are not served", at=f"{QUERY_AT}/templates", hint=hint)
    entity = given.get("entity", Entity.USERS.value)
    if entity not in tuple(Entity):
        hint = "allowed: users, accounts"
        raise Error(Code.INVALID, f"unknown entity {entity!r}", at=f"{QUERY_AT}/entity", hint=hint)
    placed: list[tuple[str, ProfileSearch | Rule]] = []
    for member in MEMBERS:
        rules, at = given.get(member) or [], f"{QUERY_AT}/{member}"
        if not isinstance(rules, list):
            raise Error(Code.INVALID, "this is not a list", at=at)
        placed += [(f"{at}/{n}", _READERS[member](rule, Entity(entity), f"{at}/{n}")) for n, rule in enumerate(rules)]
    read = _told_apart(placed)
    combination = given.get("combination") or ""
    at = f"{QUERY_AT}/combination"
    if not isinstance(combination, str):
        raise Error(Code.INVALID, "the combination is not a text", at=at)
    formula = parse_formula(combination, [rule.name for rule in read], at)
    searches = tuple(rule for rule in read if isinstance(rule, ProfileSearch))
    return Definition(Entity(entity), searches, formula, tuple(r for r in read if not isinstance(r, ProfileSearch)))


def _told_apart(placed: list[tuple[str, ProfileSearch | Rule]]) -> list[ProfileSearch | Rule]:
    """The rules without their places. Errors: INVALID for none, too many, or two of one name."""
    if not 1 <= len(placed) <= RULES_MAX:
        hint = f"1 to {RULES_MAX} rules in {', '.join(MEMBERS)}"
        raise Error(Code.INVALID, "the rules of the segment are missing or too many", at=QUERY_AT, hint=hint)
    taken: set[str] = set()
    for at, rule in placed:
        if rule.name in taken:
            raise Error(Code.INVALID, f"two rules are named {rule.name!r}", at=f"{at}/name")
        taken.add(rule.name)
    return [rule for _, rule in placed]


def _profile(plain: Any, _: Entity, at: str) -> ProfileSearch:
    given = _object(plain, at, ("name", "query"))
    return ProfileSearch(_name(given, at), _text(given, "query", at))


def _account(plain: Any, entity: Entity, at: str) -> AccountSearch:
    given = _object(plain, at, ("name", "query"))
    if entity is not Entity.USERS:
        hint = "use profiles: they are accounts already"
        raise Error(Code.INVALID, "only users have an account", at=at, hint=hint)
    return AccountSearch(_name(given, at), _text(given, "query", at))


def _performed(plain: Any, entity: Entity, at: str) -> Performed:
    given = _object(plain, at, ("name", "query", "facet", "from", "to", "within_ms", "occurrences"))
    facet = given.get("facet") or FACETS[entity]
    if facet != FACETS[entity]:
        hint = f"{FACETS[entity]} for a segment of {entity}"
        raise Error(Code.INVALID, f"the facet {facet!r} names no {entity}", at=f"{at}/facet", hint=hint)
    op, count = _occurrences(given.get("occurrences"), f"{at}/occurrences")
    return Performed(_name(given, at), _text(given, "query", at), _period(given, at), op, count)


def _occurrences(plain: Any, at: str) -> tuple[str | None, int]:
    if plain is None:
        return None, 1
    given = _object(plain, at, ("operator", "value"))
    op, value = given.get("operator"), str(given.get("value"))
    if op not in OPERATORS:
        raise Error(
            Code.INVALID, f"unknown operator {op!r}", at=f"{at}/operator", hint=f"allowed: {' '.join(OPERATORS)}"
        )
    if not value.isascii() or not value.isdecimal() or len(value) > 15:
        raise Error(Code.INVALID, f"the value is {value!r}", at=f"{at}/value", hint="a whole number")
    if (op in ("=", "<=") and int(value) == 0) or (op == "<" and int(value) <= 1):
        hint = "for those who never did it write NOT before the name in the combination"
        raise Error(Code.INVALID, "nobody has no events", at=at, hint=hint)
    return str(op), int(value)


def _sequence(plain: Any, entity: Entity, at: str) -> TookSteps:
    given = _object(plain, at, ("name", "search", "conversion_type", "group_by", "from", "to", "within_ms"))
    group_by = given.get("group_by") or FACETS[entity]
    if group_by != FACETS[entity]:
        hint = f"{FACETS[entity]} for a segment of {entity}"
        raise Error(Code.INVALID, f"group_by {group_by!r} names no {entity}", at=f"{at}/group_by", hint=hint)
    kind = given.get("conversion_type", "conversion")
    if kind not in ("conversion", "drop-off"):
        hint = "allowed: conversion, drop-off"
        raise Error(Code.INVALID, f"unknown conversion_type {kind!r}", at=f"{at}/conversion_type", hint=hint)
    if not isinstance(given.get("search"), dict):
        hint = "an object with expression and node_objects, as journey/funnel takes it"
        raise Error(Code.INVALID, "the journey's search is missing", at=f"{at}/search", hint=hint)
    return TookSteps(_name(given, at), canonical(given["search"]), kind == "drop-off", _period(given, at))


def _table_rows(plain: Any, entity: Entity, at: str) -> TableRows:
    given = _object(plain, at, ("name", "table_name", "columns", "join_condition", "filter_query"))
    join = _object(given.get("join_condition"), f"{at}/join_condition", ("column_name", "facet"))
    facet = _text(join, "facet", f"{at}/join_condition")
    attribute = KEY_ATTRIBUTE[entity] if facet == FACETS[entity] else _PATHS.get(facet, facet.removeprefix("@"))
    column = _text(join, "column_name", f"{at}/join_condition")
    query = given.get("filter_query") or ""
    if not isinstance(query, str):
        raise Error(Code.INVALID, "the filter_query is not a text", at=f"{at}/filter_query")
    return TableRows(_name(given, at), _text(given, "table_name", at), column, attribute, query)


_PATHS = {"@usr.email": "user_email", "@usr.name": "user_name", "@account.name": "account_name"}


def _static(plain: Any, _: Entity, at: str) -> StaticList:
    given = _object(plain, at, ("id", "name", "user_count"))
    return StaticList(_name(given, at), _text(given, "id", at))


_READERS: dict[str, Callable[[Any, Entity, str], ProfileSearch | Rule]] = {
    "profiles": _profile,
    "accounts": _account,
    "event_platforms": _performed,
    "journeys": _sequence,
    "reference_tables": _table_rows,
    "static": _static,
}


def _period(given: Map[str, Any], at: str) -> Period:
    values = {name: given.get(name) for name in ("from", "to", "within_ms")}
    for name, value in values.items():
        if value is not None and (not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**47):
            raise Error(Code.INVALID, f"{name} is {value!r}", at=f"{at}/{name}", hint="milliseconds")
    from_ms, to_ms, within_ms = values.values()
    if within_ms is not None and (from_ms is not None or to_ms is not None):
        raise Error(Code.INVALID, "within_ms and from or to exclude each other", at=f"{at}/within_ms")
    if from_ms is not None and to_ms is not None and from_ms >= to_ms:
        raise Error(Code.INVALID, "from is not before to", at=f"{at}/from", hint="epoch milliseconds")
    return Period(from_ms, to_ms, within_ms)


def _name(given: Map[str, Any], at: str) -> str:
    name = given.get("name")
    if not isinstance(name, str) or not NAME_FORM.fullmatch(name) or name.lower() in WORDS:
        hint = "use 1 to 100 letters (a-z, A-Z), digits, '_', '.' or '-'; not AND, OR or NOT"
        raise Error(Code.INVALID, f"{name!r} cannot be the name of a rule", at=f"{at}/name", hint=hint)
    return name


def _text(given: Map[str, Any], member: str, at: str) -> str:
    value = given.get(member)
    if not isinstance(value, str):
        hint = "for everything write *" if member == "query" else ""
        raise Error(Code.INVALID, f"the {member} is not a text", at=f"{at}/{member}", hint=hint)
    return value


def _object(plain: Any, at: str, known: tuple[str, ...]) -> Map[str, Any]:
    if not isinstance(plain, dict):
        raise Error(Code.INVALID, "this is not an object", at=at, hint=f"known members: {', '.join(known)}")
    for member in plain:
        if member not in known:
            hint = did_you_mean(member, known) or f"known: {', '.join(known)}"
            raise Error(Code.INVALID, f"there is no member {member!r}", at=at, hint=hint)
    return plain
