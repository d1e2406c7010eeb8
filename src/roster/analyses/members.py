"""Owns the members of segments as plans over profiles. Runs nothing."""

from __future__ import annotations

import json
from collections.abc import Mapping as Map, Sequence
from dataclasses import dataclass, replace
from typing import assert_never

from roster.analyses.audience import keys_found
from roster.analyses.base_query import BaseQuery, Occurrences, find_events
from roster.analyses.event_world import EventWorld, during
from roster.analyses.funnel import FlowGroup, behind, carried_groups, keyed_flows
from roster.analyses.groups import in_group
from roster.analyses.journey import Carried, Journey, Target, column_in, flows, time_of
from roster.analyses.scopes import World, combine, profile_scope, resolve_at
from roster.base.errors import Code, Error, did_you_mean
from roster.base.time import Range
from roster.model.formula import names_in
from roster.model.reference_table import Table, relation_of, stored_columns
from roster.model.schema import Column as SchemaColumn, Entity, Type
from roster.model.segment import Segment, definition_of
from roster.model.segment_query import (
    QUERY_AT,
    AccountSearch,
    Performed,
    Period,
    Rule,
    StaticList,
    TableRows,
    TookSteps,
    places_of,
)
from roster.query.expr import Column, Compare, CompareOp, Expr, If, IsNull, Literal, Not
from roster.query.plan import Agg, Aggregate, Filter, Join, Measure, Plan, Project, Read
from roster.query.relations import OWNER_OF_EVENT, declared, normalise_key, profile_key, where
from roster.query.resolve import Resolved, Scope

_ONE, _NONE = Literal(1, Type.INTEGER), Literal(None, Type.INTEGER)
MEMBER = Column("#member", Type.STRING)
"""The one column of the plan of a rule: keys of profiles, each once."""
LIST, KEY = Column("list", Type.STRING), Column("key", Type.STRING)
LISTS = Read("static_members", (SchemaColumn(LIST.name, LIST.type), SchemaColumn(KEY.name, KEY.type)))
OPERATORS: dict[str, CompareOp] = {"=": "=", ">=": ">=", "<=": "<=", ">": ">", "<": "<"}


def members(world: EventWorld, segment: Segment) -> Plan:
    """The keys of the profiles that belong to a segment, each once.

    Error: INVALID, where the mapping changed so that a search means nothing any more.
    """
    profiles = world.of(segment.entity)
    key = profile_key(segment.entity)
    plan, condition, _ = marked(world, segment, profiles.relation, key)
    return Project(where(plan, condition), ((key.name, key),))


def marked(
    world: EventWorld, segment: Segment, profiles: Plan, key: Expr, scope: Scope | None = None, prefix: str = ""
) -> tuple[Plan, Expr, tuple[str, ...]]:
    """Profiles beside what the segment's rules need, the condition that is true of its members, and warnings.

    Errors: INVALID with the place in its `data_query`. `scope`: that of its entity, where it is at hand.
    `prefix` tells the columns of several segments apart.
    """
    marks: dict[str, Expr] = {}
    warnings: list[str] = []
    rules = definition_of(segment).rules
    others = {id: other for id, other in world.segments.items() if id != segment.id}  # none is a part of itself
    world = replace(world, segments=others) if rules else world
    for at, rule in zip(places_of(rules), rules, strict=True):
        keys, doubts = keys_of_rule(world, segment.entity, rule, at)
        mark = Column(f"#{prefix}{segment.id}.{rule.name}", Type.STRING)
        profiles = Join(profiles, Project(keys, ((mark.name, MEMBER),)), "left", ((key, mark),))
        marks[rule.name] = Not(IsNull(mark))
        warnings += doubts
    condition, doubts = condition_of(world.of(segment.entity), segment, scope, marks)
    return profiles, condition, tuple(dict.fromkeys([*warnings, *doubts]))


def condition_of(
    world: World, segment: Segment, scope: Scope | None = None, marks: Map[str, Expr] | None = None
) -> tuple[Expr, list[str]]:
    """What is true of the segment's profiles, and warnings. Error: INVALID with the place in its `data_query`.

    `marks`: what is true of the profiles of each rule that is no search over profiles.
    """
    definition = definition_of(segment)
    scope = scope or profile_scope(world)
    conditions: dict[str, Expr] = dict(marks or {})
    warnings: list[str] = []
    for i, search in enumerate(definition.profiles):
        resolved = resolve_at(f"{QUERY_AT}/profiles/{i}/query", search.query, scope, world.now_ms)
        conditions[search.name] = resolved.where
        warnings += resolved.warnings
    unused = [name for name in conditions if name not in names_in(definition.combination)]
    warnings += [f"search {name!r} takes no part: the combination does not name it" for name in unused]
    return combine(definition.combination, conditions), list(dict.fromkeys(warnings))


def count_members(profiles: Plan, conditions: Sequence[Expr]) -> Plan:
    """One row: for each condition how many profiles it is true of. All are told in one pass over the profiles."""
    measures = tuple(Measure(f"count{i}", Agg.COUNT, If(c, _ONE, _NONE)) for i, c in enumerate(conditions))
    return Aggregate(profiles, (), measures)


def keys_of_rule(world: EventWorld, entity: Entity, rule: Rule, at: str) -> tuple[Plan, list[str]]:
    """The keys of the profiles a rule admits, each once, as MEMBER; and warnings. `at`: where the rule stands."""
    match rule:
        case AccountSearch(_, query):
            return _of_accounts(world, query, at)
        case Performed():
            return _of_events(world, entity, rule, at)
        case TookSteps():
            return _of_journey(world, entity, rule, at)
        case TableRows():
            return _of_table(world, entity, rule, at)
        case StaticList(_, id):
            listed = Filter(LISTS, Compare("=", LIST, Literal(id, Type.STRING)))
            return Project(listed, ((MEMBER.name, KEY),)), []
    assert_never(rule)


def distinct_keys(plan: Plan, key: Expr) -> Plan:
    """The values of a key, each once, as MEMBER."""
    return Filter(Aggregate(plan, ((MEMBER.name, key),), ()), Not(IsNull(MEMBER)))


def _of_accounts(world: EventWorld, query: str, at: str) -> tuple[Plan, list[str]]:
    """Users whose current account is found."""
    accounts, warnings = keys_found(world.accounts, f"{at}/query", query)
    key = profile_key(Entity.ACCOUNTS)
    users = Join(world.users.relation, accounts, "semi", ((key, key),))
    return Project(users, ((MEMBER.name, profile_key(Entity.USERS)),)), warnings


def _of_events(world: EventWorld, entity: Entity, rule: Performed, at: str) -> tuple[Plan, list[str]]:
    """Profiles with events, or with so many."""
    owner = OWNER_OF_EVENT[entity]
    query = BaseQuery(rule.query, f"{at}/query")
    events = where(world.relation, during(span_of(rule.when, world.now_ms)))
    if rule.op is not None:
        query = BaseQuery(query.text, query.at, Occurrences(OPERATORS[rule.op], rule.count))
    plan, condition, warnings = find_events(events, world, query, owner)
    return distinct_keys(where(plan, condition), owner), warnings


def _of_journey(world: EventWorld, entity: Entity, rule: TookSteps, at: str) -> tuple[Plan, list[str]]:
    """Profiles of whoever took all steps, or the first one and not all."""
    journey = world.read_journey(json.loads(rule.search), span_of(rule.when, world.now_ms), f"{at}/search")
    return keys_behind(world, entity, journey, Target(0, journey.steps - 1), dropped=rule.dropped)


@dataclass(frozen=True, slots=True)
class Part:
    """Of the flows only those of one group, by the values of its facets, or that began in a span of time."""

    groups: tuple[FlowGroup, ...] = ()
    tags: tuple[str, ...] = ()
    began: Range | None = None


def keys_behind(
    world: EventWorld, entity: Entity, journey: Journey, target: Target, *, dropped: bool, part: Part = Part()
) -> tuple[Plan, list[str]]:
    """The keys of the profiles behind flows that converted at the target or dropped off there, each once."""
    carried, doubts = carried_groups(world, part.groups)
    plan, warnings = flows(world, journey, [*carried, Carried("#owner", 0, OWNER_OF_EVENT[entity])])
    plan = where(plan, behind(target, dropped=dropped))
    if part.began is not None:
        plan = where(plan, during(part.began, time_of(0)))
    plan = where(keyed_flows(plan, part.groups, carried), in_group(part.tags))
    return distinct_keys(plan, column_in(plan, "#owner")), [*warnings, *doubts]


def _of_table(world: EventWorld, entity: Entity, rule: TableRows, at: str) -> tuple[Plan, list[str]]:
    """Profiles whose attribute equals a column of the rows that are found."""
    table = next((t for t in world.tables if rule.table in (t.name, t.id)), None)
    if table is None:
        hint = did_you_mean(rule.table, tuple(t.name for t in world.tables))
        raise Error(Code.INVALID, f"there is no table {rule.table!r}", at=f"{at}/table_name", hint=hint)
    column = next((c for c in table.columns if c.name == rule.column), None)
    if column is None:
        hint = did_you_mean(rule.column, tuple(c.name for c in table.columns))
        message = f"{table.name} has no column {rule.column!r}"
        raise Error(Code.INVALID, message, at=f"{at}/join_condition/column_name", hint=hint)
    profiles = world.of(entity)
    found = profiles.find(rule.attribute)
    if found is None:
        raise Error(Code.INVALID, f"{entity} have no attribute {rule.attribute!r}", at=f"{at}/join_condition/facet")
    resolved = _search_rows(table, rule.query, world, f"{at}/filter_query")
    stored = Read(relation_of(table), stored_columns(table))
    theirs = normalise_key(_column(table, column), found.name)
    ours = normalise_key(Column(found.name, found.type), found.name)
    rows = Project(where(stored, resolved.where), (("#theirs", theirs),))
    joined = Join(profiles.relation, rows, "semi", ((ours, Column("#theirs", Type.STRING)),))
    return Project(joined, ((MEMBER.name, profile_key(entity)),)), resolved.warnings


def _search_rows(table: Table, query: str, world: EventWorld, at: str) -> Resolved:
    columns = {c.name: _column(table, c) for c in table.columns}
    texts = tuple(c for c in columns.values())
    scope = Scope(lambda name: columns.get(name.removeprefix("@")), texts, texts, tuple(columns), world.users.terms_max)
    return resolve_at(at, query, scope, world.now_ms)


def _column(table: Table, column: SchemaColumn) -> Expr:
    return declared(column, {c.name: c.type for c in stored_columns(table)})


def span_of(when: Period, now_ms: int) -> Range:
    """A period as a range; without an end it ends after now."""
    if when.within_ms is not None:
        return Range(now_ms - when.within_ms, now_ms + 1)
    from_ms = when.from_ms or 0
    return Range(from_ms, when.to_ms if when.to_ms is not None else max(now_ms, from_ms) + 1)
