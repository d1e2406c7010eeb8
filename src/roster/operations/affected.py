"""Owns telling who is affected by a change of a mapping: segments whose members move, and who names what goes."""

from __future__ import annotations

from collections.abc import Sequence, Set
from typing import Any

from roster.analyses.members import members
from roster.analyses.names import names_of_segment
from roster.analyses.scopes import World
from roster.base.errors import Error
from roster.model.mapping import Mapping, find_connection
from roster.model.schema import KEY_ATTRIBUTE, Type
from roster.model.segment import Segment
from roster.model.steps import MappingStep, StepKind
from roster.operations.context import Context, Request
from roster.operations.uses import shown_uses, used_by
from roster.query.expr import Column
from roster.query.plan import Agg, Aggregate, Join, Measure


def tell_uses(context: Context, before: Mapping, steps: Sequence[MappingStep]) -> list[dict[str, Any]]:
    """Who names the fields that are renamed or deleted; those that nobody names are left out."""
    ids = [s.was.id for s in steps if s.was and s.kind in (StepKind.DELETE_FIELD, StepKind.RENAME_FIELD)]
    for step in steps:
        gone = find_connection(before, step.connection_id) if step.kind is StepKind.DELETE_CONNECTION else None
        ids += [f.id for f in gone.fields] if gone else []
    found = used_by(context, before.entity, list(dict.fromkeys(ids))) if ids else {}
    return [{"field": id} | shown_uses(context, uses) for id, uses in found.items() if uses.is_used()]


def tell_segments(
    context: Context, request: Request, before: World, after: World, moved: Set[str]
) -> list[dict[str, Any]]:
    """Segments that name what changes: members before and after, how many enter and leave."""
    told = []
    for segment in context.store.list_segments():
        if segment.entity is before.entity and moved & {
            *names_of_segment(before, segment),
            *names_of_segment(after, segment),
        }:
            told.append({"id": segment.id, "name": segment.name} | _move(context, request, before, after, segment))
    return told


def _move(context: Context, request: Request, before: World, after: World, segment: Segment) -> dict[str, Any]:
    try:
        old, new = members(before, segment), members(after, segment)
    except Error as error:
        return {"unreadable": error.text()}
    key = Column(KEY_ATTRIBUTE[before.entity], Type.STRING)
    enter, leave = (Join(one, other, "anti", ((key, key),)) for one, other in ((new, old), (old, new)))
    plans = [Aggregate(plan, (), (Measure("members", Agg.COUNT),)) for plan in (old, new, enter, leave)]
    answers = context.engine.run(plans, context.limits.budget(), request.cancel)
    return {name: a.rows[0][0] for name, a in zip(("before", "after", "enter", "leave"), answers, strict=True)}
