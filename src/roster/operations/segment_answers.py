"""Owns how segments are told: each with its present count, and when that was counted."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping as Map, Sequence
from typing import Any

from roster.analyses.event_world import EventWorld
from roster.analyses.member_pages import present
from roster.analyses.members import count_members
from roster.analyses.scopes import profile_scope
from roster.base.time import instant, iso_ms
from roster.model.schema import Entity
from roster.model.segment import Segment, kind_of
from roster.operations.context import Context, Reply, Request, run_plans
from roster.operations.event_worlds import event_world_of
from roster.query.expr import Expr
from roster.query.plan import Plan

COUNTED_AT_ONCE = 50
"""Segments that are counted in one pass over the profiles."""


def tell_one(context: Context, request: Request, segment: Segment, meta: Map[str, Any] | None = None) -> Reply:
    """A segment with its present count."""
    shown, warnings = tell(context, request, [segment])
    return told(shown[0], warnings, meta)


def told(data: Any, warnings: Iterable[str], meta: Map[str, Any] | None = None) -> Reply:
    """An answer; beside it in `meta` what there is to say."""
    doubts = list(dict.fromkeys([*(meta or {}).get("warnings", ()), *warnings]))
    beside = {**(meta or {}), **({"warnings": doubts} if doubts else {})}
    return Reply({"data": data} | ({"meta": beside} if beside else {}))


def tell(context: Context, request: Request, segments: Sequence[Segment]) -> tuple[list[dict[str, Any]], list[str]]:
    """Segments as the API shows them, and warnings."""
    counts: dict[str, int] = {}
    warnings: list[str] = []
    world = event_world_of(context)
    for entity in Entity:
        mine = [s for s in segments if s.entity is entity]
        if mine:
            counted, doubts = _count(context, request, world, entity, mine)
            counts |= counted
            warnings += doubts
    names = {key.owner_id: key.name for key in context.store.list_keys()}
    org = int(context.store.organisation_id().replace("-", "")[:12], 16)
    return [_shown(s, counts[s.id], world.now_ms, org, names) for s in segments], warnings


def _count(
    context: Context, request: Request, world: EventWorld, entity: Entity, segments: Sequence[Segment]
) -> tuple[dict[str, int], list[str]]:
    """The present members of each, and warnings."""
    conditions: list[Expr] = []
    warnings: list[str] = []
    scope = profile_scope(world.of(entity))
    plan: Plan = world.of(entity).relation
    for segment in segments:
        plan, condition, doubts = present(world, segment, plan, scope)
        conditions.append(condition)
        warnings += [f"segment {segment.name!r}: {doubt}" for doubt in doubts]
    counted = count_conditions(context, request, plan, conditions)
    return dict(zip((s.id for s in segments), counted, strict=True)), warnings


def count_conditions(context: Context, request: Request, profiles: Plan, conditions: Sequence[Expr]) -> list[int]:
    """Of how many profiles each condition is true, all of one snapshot."""
    starts = range(0, len(conditions), COUNTED_AT_ONCE)
    plans = [count_members(profiles, conditions[start : start + COUNTED_AT_ONCE]) for start in starts]
    return [int(count) for answer in run_plans(context, request, plans) for count in answer.rows[0]]


def _shown(segment: Segment, count: int, now_ms: int, org: int, names: dict[str, str]) -> dict[str, Any]:
    attributes = {
        "uuid": segment.id,
        "name": segment.name,
        "description": segment.description,
        "tags": list(segment.tags),
        "version": segment.version,
        "org_id": org,
        "row_count": count,
        "computed_at": iso_ms(instant(now_ms)),
        "created_at": iso_ms(instant(segment.created_ms)),
        "modified_at": iso_ms(instant(segment.modified_ms)),
        "created_by": _person(segment.created_by, names),
        "modified_by": _person(segment.modified_by, names),
        "source": "user_created",
        "type": kind_of(segment),
        "data_query": json.loads(segment.data_query),
        "entity": segment.entity.value,
        "hash": segment.digest,
    }
    return {"id": segment.id, "type": "segment", "attributes": attributes}


def _person(id: str, names: dict[str, str]) -> dict[str, str]:
    """Who made something: we know a key's name, and no person's."""
    name = names.get(id, id)
    return {"id": id, "uuid": id, "handle": name, "name": name, "icon": ""}
