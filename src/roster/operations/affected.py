"""Owns telling who is affected by a change of a mapping: segments whose members move, and who names what goes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from roster.analyses.event_world import EventWorld
from roster.analyses.members import marked
from roster.analyses.names import names_of_segment
from roster.analyses.preview import SIDES, Comparison
from roster.analyses.scopes import World, profile_scope
from roster.base.errors import Error
from roster.model.mapping import Mapping, find_connection
from roster.model.schema import KEY_ATTRIBUTE, Entity, Type
from roster.model.segment import Segment
from roster.model.steps import MappingStep, StepKind
from roster.operations.context import Context, Request
from roster.operations.event_worlds import event_world_around
from roster.operations.segment_answers import count_conditions
from roster.operations.uses import shown_uses, used_by
from roster.query.expr import And, Column, Expr
from roster.query.plan import Plan
from roster.query.relations import profile_key
from roster.query.resolve import Scope


def tell_uses(context: Context, before: Mapping, steps: Sequence[MappingStep]) -> list[dict[str, Any]]:
    """Who names the fields that are renamed or deleted; those that nobody names are left out."""
    ids = [s.was.id for s in steps if s.was and s.kind in (StepKind.DELETE_FIELD, StepKind.RENAME_FIELD)]
    for step in steps:
        gone = find_connection(before, step.connection_id) if step.kind is StepKind.DELETE_CONNECTION else None
        ids += [f.id for f in gone.fields] if gone else []
    found = used_by(context, before.entity, list(dict.fromkeys(ids))) if ids else {}
    return [{"field": id} | shown_uses(context, uses) for id, uses in found.items() if uses.is_used()]


@dataclass(slots=True)
class _Counting:
    """Segments of one entity and what is counted of each: its members before, after, and both before and after."""

    plan: Plan
    key: Expr
    scopes: Sequence[Scope]
    lines: list[dict[str, Any]] = field(default_factory=list)
    conditions: list[Expr] = field(default_factory=list)


def tell_segments(
    context: Context, request: Request, comparison: Comparison, before: World, after: World
) -> list[dict[str, Any]]:
    """Segments that name what changes: members before and after, how many enter and leave.

    Those of one entity are counted in one pass.
    """
    moved = {reading.name for reading in comparison.readings}
    worlds = [event_world_around(context, world) for world in (before, after)]
    told: list[dict[str, Any]] = []
    counting: dict[Entity, _Counting] = {}
    for segment in context.store.list_segments():
        if not moved & {name for world in worlds for name in names_of_segment(world, before.entity, segment)}:
            continue
        line: dict[str, Any] = {"id": segment.id, "name": segment.name}
        told.append(line)
        if segment.entity not in counting:
            counting[segment.entity] = _counting(worlds, comparison, before.entity, segment.entity)
        ours = counting[segment.entity]
        try:
            (old, new), ours.plan = _both(worlds, segment, ours.plan, ours.key, ours.scopes)
        except Error as error:
            line["unreadable"] = error.text()
            continue
        ours.lines.append(line)
        ours.conditions += [old, new, And((old, new))]
    for ours in counting.values():
        counts = iter(count_conditions(context, request, ours.plan, ours.conditions))
        for line, was, now, stay in zip(ours.lines, counts, counts, counts, strict=True):
            line |= {"before": was, "after": now, "enter": now - stay, "leave": was - stay}
    return told


def _counting(worlds: Sequence[EventWorld], comparison: Comparison, changed: Entity, entity: Entity) -> _Counting:
    """Nothing yet: the profiles of both sides, or those of the other entity, which are the same on both."""
    if entity is changed:
        key = Column(SIDES[0] + KEY_ATTRIBUTE[entity], Type.STRING)
        scopes = [profile_scope(world.of(entity), side) for world, side in zip(worlds, SIDES, strict=True)]
        return _Counting(comparison.both_sides(), key, scopes)
    profiles = worlds[0].of(entity)
    return _Counting(profiles.relation, profile_key(entity), [profile_scope(profiles)] * len(SIDES))


def _both(
    worlds: Sequence[EventWorld], segment: Segment, plan: Plan, key: Expr, scopes: Sequence[Scope]
) -> tuple[list[Expr], Plan]:
    """What is true of a segment's members before and after, and the profiles beside what that needs."""
    conditions: list[Expr] = []
    for world, scope, side in zip(worlds, scopes, SIDES, strict=True):
        plan, condition, _ = marked(world, segment, plan, key, scope, side)
        conditions.append(condition)
    return conditions, plan
