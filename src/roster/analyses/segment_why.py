"""Owns why one profile belongs to a segment or does not: a plan a rule, and what its row says. Runs nothing."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping as Map, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, assert_never

from roster.analyses.event_world import EventWorld, during
from roster.analyses.funnel import behind
from roster.analyses.journey import LEVEL, Carried, Target, column_in, flows
from roster.analyses.member_pages import present
from roster.analyses.members import MEMBER, OPERATORS, keys_of_rule, span_of
from roster.analyses.names import keys_of
from roster.analyses.scopes import World, profile_scope, resolve_at
from roster.base.errors import Error
from roster.base.time import instant, iso_ms
from roster.model import formula
from roster.model.formula import Formula
from roster.model.schema import KEY_ATTRIBUTE, Entity, Type
from roster.model.segment import Segment, definition_of
from roster.model.segment_query import (
    QUERY_AT,
    AccountSearch,
    Definition,
    Performed,
    ProfileSearch,
    Rule,
    StaticList,
    TableRows,
    TookSteps,
    places_of,
)
from roster.query import search
from roster.query.expr import Column, Compare, Expr, If, IsNull, Literal, Not, conjunction
from roster.query.plan import Agg, Aggregate, Filter, Join, Measure, Named, Plan, Project
from roster.query.relations import OWNER_OF_EVENT, count_rows, profile_key, where

_ONE, _ZERO, _NONE = Literal(1, Type.INTEGER), Literal(0, Type.INTEGER), Literal(None, Type.INTEGER)
Row = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Clause:
    """One thing a rule asks, whether it is so, the values it looked at, and what it would need."""

    text: str
    holds: bool
    seen: Map[str, Any]
    needs: str


@dataclass(frozen=True, slots=True)
class Part:
    """A rule: the plan to run, and how its rows become clauses, all of which must hold."""

    name: str
    kind: str
    plan: Plan
    read: Callable[[Sequence[Row]], list[Clause]]


def membership(world: EventWorld, segment: Segment, key: str) -> tuple[Plan, tuple[str, ...]]:
    """One row with 1 for a member and 0 for another profile; none where there is no such profile. And warnings."""
    profiles, condition, warnings = present(world, segment, world.of(segment.entity).relation)
    found = Filter(profiles, _is(profile_key(segment.entity), key))
    return Project(found, (("member", If(condition, _ONE, _ZERO)),)), warnings


def parts_of(world: EventWorld, segment: Segment, key: str) -> list[Part]:
    """The rules of a segment, asked of one profile; none of a segment that cannot be read any more."""
    try:
        return _parts(world, segment.entity, definition_of(segment), key)
    except Error:
        return []


def _parts(world: EventWorld, entity: Entity, definition: Definition, key: str) -> list[Part]:
    parts = [_of_profile(world, entity, rule, n, key) for n, rule in enumerate(definition.profiles)]
    rules = zip(places_of(definition.rules), definition.rules, strict=True)
    return parts + [_of_rule(world, entity, rule, key, at) for at, rule in rules]


def _is(column: Expr, key: str) -> Expr:
    return Compare("=", column, Literal(key, Type.STRING))


def _of_profile(world: EventWorld, entity: Entity, rule: ProfileSearch, place: int, key: str) -> Part:
    profiles = world.of(entity)
    plan = Filter(profiles.relation, _is(profile_key(entity), key))
    return _searched(profiles, plan, rule, "profiles", f"{QUERY_AT}/profiles/{place}/query")


def _of_rule(world: EventWorld, entity: Entity, rule: Rule, key: str, at: str) -> Part:
    match rule:
        case AccountSearch():
            account = profile_key(Entity.ACCOUNTS)
            mine = Filter(world.users.relation, _is(profile_key(Entity.USERS), key))
            theirs = Project(mine, (("#account", account),))
            on = (account, Column("#account", Type.STRING))
            plan = Join(world.accounts.relation, theirs, "semi", (on,))
            return _searched(world.accounts, plan, rule, "accounts", f"{at}/query")
        case Performed():
            return _of_events(world, entity, rule, key, at)
        case TookSteps():
            return _of_journey(world, entity, rule, key, at)
        case TableRows():
            return _of_table(world, entity, rule, key, at)
        case StaticList():
            return _of_list(world, entity, rule, key, at)
    assert_never(rule)


def _searched(world: World, plan: Plan, rule: ProfileSearch | AccountSearch, kind: str, at: str) -> Part:
    """A search, taken apart where its parts must all be true."""
    tree, scope = search.parse(rule.query), profile_scope(world)
    items = tree.items if isinstance(tree, search.And) else (tree,)
    texts = [search.text_of(item) for item in items]
    columns: list[Named] = []
    names: list[list[str]] = []
    for n, item in enumerate(items):
        condition = resolve_at(at, texts[n], scope, world.now_ms).where
        columns.append((f"holds{n}", If(condition, _ONE, _ZERO)))
        found = {name: world.find(name) for name in keys_of(item)}
        meant = {name: Column(a.name, a.type) for name, a in found.items() if a is not None}
        names.append(list(meant))
        columns += [(f"{n} {name}", column) for name, column in meant.items()]

    def read(rows: Sequence[Row]) -> list[Clause]:
        cells = iter(rows[0]) if rows else iter(())
        clauses = []
        for text, seen in zip(texts, names, strict=True):
            holds = next(cells, 0) == 1
            values = {name: next(cells, None) for name in seen}
            clauses.append(Clause(text, holds, values, f"{text} must be true{_told(values)}"))
        return clauses

    return Part(rule.name, kind, Project(plan, tuple(columns)), read)


def _told(values: Map[str, Any]) -> str:
    said = (f"{name} is {_plain(value)}" for name, value in values.items())
    return f"; {', '.join(said)}" if values else ""


def _plain(value: Any) -> str:
    if value is None:
        return "missing"
    return iso_ms(value) if isinstance(value, datetime) else repr(value)


def _of_events(world: EventWorld, entity: Entity, rule: Performed, key: str, at: str) -> Part:
    span = span_of(rule.when, world.now_ms)
    found = world.resolve(f"{at}/query", rule.query).where
    mine = conjunction(during(span), _is(OWNER_OF_EVENT[entity], key), found)
    plan = count_rows(where(world.relation, mine))
    op = rule.op or ">="
    period = f"from {iso_ms(instant(span.from_ms))} to {iso_ms(instant(span.to_ms))}"
    text = f"{op} {rule.count} events of {rule.query or '*'} {period}"

    def read(rows: Sequence[Row]) -> list[Clause]:
        count = rows[0][0]
        holds = count > 0 and _COMPARE[OPERATORS[op]](count, rule.count)  # nobody is found by having no events
        needs = f"events of {rule.query or '*'} must number {op} {rule.count}; there are {count}"
        return [Clause(text, holds, {"events": count}, needs)]

    return Part(rule.name, "event_platforms", plan, read)


_COMPARE: dict[str, Callable[[int, int], bool]] = {
    "=": int.__eq__,
    ">=": int.__ge__,
    "<=": int.__le__,
    ">": int.__gt__,
    "<": int.__lt__,
}


def _of_journey(world: EventWorld, entity: Entity, rule: TookSteps, key: str, at: str) -> Part:
    """How far the farthest flow of the profile got."""
    journey = world.read_journey(json.loads(rule.search), span_of(rule.when, world.now_ms), f"{at}/search")
    made, _ = flows(world, journey, [Carried("#owner", 0, OWNER_OF_EVENT[entity])])
    mine = where(made, _is(column_in(made, "#owner"), key))
    admitted = If(behind(Target(0, journey.steps - 1), dropped=rule.dropped), _ONE, _NONE)
    measures = (Measure("taken", Agg.MAX, LEVEL), Measure("behind", Agg.COUNT, admitted))
    aliases = [node.alias for node in journey.nodes]
    text = f"{' -> '.join(aliases)} {'not completed' if rule.dropped else 'completed'}"

    def read(rows: Sequence[Row]) -> list[Clause]:
        taken, count = rows[0][0] or 0, rows[0][1]
        after = aliases[taken] if taken < len(aliases) else None
        seen = {"steps_taken": taken, "steps": len(aliases), "next_step": after}
        lacking = "the journey must end before its last step" if after is None else f"step {after} must be taken"
        return [Clause(text, count > 0, seen, f"{lacking}; {taken} of {len(aliases)} steps are taken")]

    return Part(rule.name, "journeys", Aggregate(mine, (), measures), read)


def _of_table(world: EventWorld, entity: Entity, rule: TableRows, key: str, at: str) -> Part:
    keys, _ = keys_of_rule(world, entity, rule, at)
    profiles = world.of(entity)
    attribute = profiles.find(rule.attribute)
    value = Column(attribute.name, attribute.type) if attribute else Literal(None, Type.STRING)
    mine = Join(
        Filter(profiles.relation, _is(profile_key(entity), key)), keys, "left", ((profile_key(entity), MEMBER),)
    )
    plan = Project(mine, (("found", If(Not(IsNull(MEMBER)), _ONE, _ZERO)), ("value", value)))
    text = f"{rule.attribute} is in {rule.table}.{rule.column}"
    text += f" where {rule.query}" if rule.query else ""

    def read(rows: Sequence[Row]) -> list[Clause]:
        found, held = rows[0] if rows else (0, None)
        values = {rule.attribute: held}
        return [Clause(text, found == 1, values, f"a row of {rule.table} must have it{_told(values)}")]

    return Part(rule.name, "reference_tables", plan, read)


def _of_list(world: EventWorld, entity: Entity, rule: StaticList, key: str, at: str) -> Part:
    keys, _ = keys_of_rule(world, entity, rule, at)
    plan = count_rows(Filter(keys, _is(MEMBER, key)))

    def read(rows: Sequence[Row]) -> list[Clause]:
        text = f"on the list {rule.id}"
        return [Clause(text, rows[0][0] > 0, {KEY_ATTRIBUTE[entity]: key}, f"{key} must be on the list {rule.id}")]

    return Part(rule.name, "static", plan, read)


def blame(tree: Formula, holds: Map[str, bool]) -> tuple[str, bool] | None:
    """The first name of a formula that keeps it from being true, and what it would have to be; None where it is."""
    return _towards(tree, holds, wanted=True)


def _towards(tree: Formula, holds: Map[str, bool], *, wanted: bool) -> tuple[str, bool] | None:
    """The same, for a formula that is wanted true or false."""
    match tree:
        case formula.Name(name):
            return None if holds[name] is wanted else (name, wanted)
        case formula.Not(item):
            return _towards(item, holds, wanted=not wanted)
        case formula.And(items) | formula.Or(items):
            blamed = [_towards(item, holds, wanted=wanted) for item in items]
            all_needed = isinstance(tree, formula.And) is wanted
            if not all_needed and None in blamed:
                return None
            return next((one for one in blamed if one is not None), None)
    assert_never(tree)
