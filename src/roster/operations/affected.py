"""Owns telling who is affected by a change of a mapping: segments whose members move, and who names what goes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from roster.analyses.members import condition_of
from roster.analyses.names import names_of_segment
from roster.analyses.preview import SIDES, Comparison
from roster.analyses.scopes import World, profile_scope
from roster.base.errors import Error
from roster.model.mapping import Mapping, find_connection
from roster.model.steps import MappingStep, StepKind
from roster.operations.context import Context, Request
from roster.operations.segments import count_conditions
from roster.operations.uses import shown_uses, used_by
from roster.query.expr import And, Expr


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
    for segment in context.store.list_segments():
        if segment.entity is not before.entity:
            continue
        if not moved & {*names_of_segment(before, segment), *names_of_segment(after, segment)}:
            continue
        line: dict[str, Any] = {"id": segment.id, "name": segment.name}
        told.append(line)
        try:
            old, new = (condition_of(w, segment, s)[0] for w, s in zip((before, after), scopes, strict=True))
        except Error as error:
            line["unreadable"] = error.text()
            continue
        counted.append(line)
        conditions += [old, new, And((old, new))]
    counts = iter(count_conditions(context, request, comparison.both_sides(), conditions))
    for line, was, now, stay in zip(counted, counts, counts, counts, strict=True):
        line |= {"before": was, "after": now, "enter": now - stay, "leave": was - stay}
    return told
