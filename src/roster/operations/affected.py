"""Owns telling who is affected by a change of a mapping: segments whose members move, and who names what goes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from roster.analyses.event_world import EventWorld
from roster.analyses.members import marked
from roster.analyses.names import names_of_segment
from roster.analyses.preview import SIDES, Comparison
from roster.analyses.scopes import World, profile_scope
from roster.base.errors import Error
from roster.model.mapping import Mapping, find_connection
from roster.model.schema import KEY_ATTRIBUTE, Type
from roster.model.segment import Segment
from roster.model.steps import MappingStep, StepKind
from roster.operations.context import Context, Request
from roster.operations.event_worlds import event_world_around
from roster.operations.segment_answers import count_conditions
from roster.operations.uses import shown_uses, used_by
from roster.query.expr import And, Column, Expr
from roster.query.plan import Plan
from roster.query.resolve import Scope


def tell_uses(context: Context, before: Mapping, steps: Sequence[MappingStep]) -> list[dict[str, Any]]:
    """Who names the fields that are renamed or deleted; those that nobody names are left out."""
    ids = [s.was.id for s in steps if s.was and s.kind in (StepKind.DELETE_FIELD, StepKind.RENAME_FIELD)]
    for step in steps:
        gone = find_connection(before, step.connection_id) if step.kind is StepKind.DELETE_CONNECTION else None
        ids += [f.id for f in gone.fields] if gone else []
    found = used_by(context, before.entity, list(dict.fromkeys(ids))) if ids else {}
    return [{"field": id} | shown_uses(context, uses) for id, uses in found.items() if uses.is_used()]


def tell_segments(
    context: Context, request: Request, comparison: Comparison, before: World, after: World
) -> list[dict[str, Any]]:
    """Segments that name what changes: members before and after, how many enter and leave; counted in one pass."""
    moved = {reading.name for reading in comparison.readings}
    scopes = [profile_scope(world, side) for world, side in zip((before, after), SIDES, strict=True)]
    told: list[dict[str, Any]] = []
    counted: list[dict[str, Any]] = []
    conditions: list[Expr] = []
    worlds = [event_world_around(context, world) for world in (before, after)]
    plan = comparison.both_sides()
    key = Column(SIDES[0] + KEY_ATTRIBUTE[before.entity], Type.STRING)
    for segment in context.store.list_segments():
        if segment.entity is not before.entity:
            continue
        if not moved & {*names_of_segment(before, segment), *names_of_segment(after, segment)}:
            continue
        line: dict[str, Any] = {"id": segment.id, "name": segment.name}
        told.append(line)
        try:
            (old, new), plan = _both(worlds, segment, plan, key, scopes)
        except Error as error:
            line["unreadable"] = error.text()
            continue
        counted.append(line)
        conditions += [old, new, And((old, new))]
    counts = iter(count_conditions(context, request, plan, conditions))
    for line, was, now, stay in zip(counted, counts, counts, counts, strict=True):
        line |= {"before": was, "after": now, "enter": now - stay, "leave": was - stay}
    return told


def _both(
    worlds: Sequence[EventWorld], segment: Segment, plan: Plan, key: Expr, scopes: Sequence[Scope]
) -> tuple[list[Expr], Plan]:
    """What is true of a segment's members before and after, and the profiles beside what that needs."""
    conditions: list[Expr] = []
    for world, scope, side in zip(worlds, scopes, SIDES, strict=True):
        plan, condition, _ = marked(world, segment, plan, key, scope, side)
        conditions.append(condition)
    return conditions, plan
