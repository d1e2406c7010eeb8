"""Owns telling who is affected by a change of a mapping: segments whose members move, and who names what goes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from roster.analyses.members import condition_of
from roster.analyses.names import names_of_segment
from roster.analyses.preview import SIDES, Comparison
from roster.analyses.scopes import World, profile_scope
from roster.base.errors import Error
from roster.model.mapping import Mapping, find_connection
from roster.model.steps import MappingStep, StepKind
from roster.operations.context import Context, Request
from roster.operations.uses import shown_uses, used_by
from roster.query.expr import Expr

SEGMENTS_AT_ONCE = 50


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
    counted: list[tuple[dict[str, Any], tuple[Expr, Expr]]] = []
    for segment in context.store.list_segments():
        if segment.entity is not before.entity:
            continue
        if not moved & {*names_of_segment(before, segment), *names_of_segment(after, segment)}:
            continue
        line: dict[str, Any] = {"id": segment.id, "name": segment.name}
        told.append(line)
        try:
            old, new = (condition_of(w, segment, s)[0] for w, s in zip((before, after), scopes, strict=True))
            counted.append((line, (old, new)))
        except Error as error:
            line["unreadable"] = error.text()
    for some in batched(counted, SEGMENTS_AT_ONCE):
        plan = comparison.members([conditions for _, conditions in some])
        numbers = iter(context.engine.run([plan], context.limits.budget(), request.cancel)[0].rows[0])
        for line, _ in some:
            line |= {name: next(numbers) for name in ("before", "after", "enter", "leave")}
    return told


def batched(
    counted: list[tuple[dict[str, Any], tuple[Expr, Expr]]], size: int
) -> Iterator[list[tuple[dict[str, Any], tuple[Expr, Expr]]]]:
    """Portions of a list."""
    return (counted[i : i + size] for i in range(0, len(counted), size))
