"""Owns the members of segments as plans over profiles. Runs nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import assert_never

from roster.analyses.scopes import World, profile_scope, resolve_at
from roster.model import formula
from roster.model.formula import Formula, names_in
from roster.model.schema import KEY_ATTRIBUTE, Type
from roster.model.segment import QUERY_AT, Segment, definition_of
from roster.query.expr import And, Column, Expr, If, Literal, Not, Or
from roster.query.plan import Agg, Aggregate, Measure, Plan, Project
from roster.query.relations import where
from roster.query.resolve import Scope

_ONE, _NONE = Literal(1, Type.INTEGER), Literal(None, Type.INTEGER)


def members(world: World, segment: Segment) -> Plan:
    """The keys of the profiles that belong to a segment, each once. `world` is that of the segment's entity.

    Error: INVALID, where the mapping changed so that a search means nothing any more.
    """
    condition, _ = condition_of(world, segment)
    key = Column(KEY_ATTRIBUTE[world.entity], Type.STRING)
    return Project(where(world.relation, condition), ((key.name, key),))


def condition_of(world: World, segment: Segment, scope: Scope | None = None) -> tuple[Expr, tuple[str, ...]]:
    """What is true of the segment's profiles, and warnings. Error: INVALID with the place in its `data_query`.

    `scope`: that of the world, where it is at hand.
    """
    definition = definition_of(segment)
    scope = scope or profile_scope(world)
    conditions: dict[str, Expr] = {}
    warnings: list[str] = []
    for i, search in enumerate(definition.profiles):
        resolved = resolve_at(f"{QUERY_AT}/profiles/{i}/query", search.query, scope, world.now_ms)
        conditions[search.name] = resolved.where
        warnings += resolved.warnings
    unused = [name for name in conditions if name not in names_in(definition.combination)]
    warnings += [f"search {name!r} takes no part: the combination does not name it" for name in unused]
    return _combine(definition.combination, conditions), tuple(dict.fromkeys(warnings))


def _combine(tree: Formula, conditions: dict[str, Expr]) -> Expr:
    match tree:
        case formula.Name(name):
            return conditions[name]
        case formula.Not(item):
            return Not(_combine(item, conditions))
        case formula.And(items):
            return And(tuple(_combine(i, conditions) for i in items))
        case formula.Or(items):
            return Or(tuple(_combine(i, conditions) for i in items))
    assert_never(tree)


def count_members(profiles: Plan, conditions: Sequence[Expr]) -> Plan:
    """One row: for each condition how many profiles it is true of. All are told in one pass over the profiles."""
    measures = tuple(Measure(f"count{i}", Agg.COUNT, If(c, _ONE, _NONE)) for i, c in enumerate(conditions))
    return Aggregate(profiles, (), measures)
