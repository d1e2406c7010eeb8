"""Owns the operations on segments: create, list, get, update, delete; each answer tells the present count."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

from roster.analyses.event_world import EventWorld
from roster.analyses.members import count_members, marked
from roster.analyses.scopes import profile_scope
from roster.base.errors import Code, Error
from roster.base.time import instant, iso_ms
from roster.model.schema import KEY_ATTRIBUTE, Entity, Type
from roster.model.segment import Segment, change, draft
from roster.operations.bodies import decode
from roster.operations.bodies_segments import CreateSegmentBody, UpdateSegmentBody
from roster.operations.context import Context, Reply, Request, run_plans
from roster.operations.event_worlds import event_world_of
from roster.query.expr import FALSE, Column, Expr
from roster.query.plan import Plan

COUNTED_AT_ONCE = 50
"""Segments that are counted in one pass over the profiles."""
TYPE = "combination"
"""Of the drafted kinds of segments the one that ours are: named parts and a formula over them."""
SORTS = ("name", "created_at", "modified_at", "row_count")


def create_segment(context: Context, request: Request) -> Reply:
    """Keep searches over profiles, and a formula over them, as a named segment."""
    asked = decode(CreateSegmentBody, request.body).data.attributes
    wanted = draft(
        context.clock.new_id(),
        asked.name,
        asked.data_query,
        asked.description or "",
        tuple(asked.tags or ()),
        who=request.caller.id,
        now_ms=context.clock.now_ms(),
    )
    _check_readable(context, wanted)
    held = context.store.list_segments()
    if len(held) >= context.limits.segments_max and all(s.name != wanted.name for s in held):
        hint = "delete one, or raise the setting segments_max"
        raise Error(Code.INVALID, f"there are {len(held)} segments already", hint=hint)
    return _one(context, request, context.store.add_segment(wanted))


def _check_readable(context: Context, segment: Segment) -> None:
    """Error: INVALID for a rule that cannot be read, with its place."""
    world = event_world_of(context)
    marked(world, segment, world.of(segment.entity).relation, _key(segment.entity))


def _key(entity: Entity) -> Expr:
    return Column(KEY_ATTRIBUTE[entity], Type.STRING)


def list_segments(context: Context, request: Request) -> Reply:
    """All segments, each with its present count; `sort` by name, created_at, modified_at or row_count, `limit`."""
    most = context.limits.segments_max
    limit = request.number("limit", most, 1, most)
    sort = request.query.get("sort", ["name"])[-1]
    if sort.removeprefix("-") not in SORTS:
        hint = f"allowed: {', '.join(SORTS)}, with - before it for descending"
        raise Error(Code.INVALID, f"unknown order {sort!r}", at="parameter sort", hint=hint)
    shown, warnings = _shown(context, request, context.store.list_segments())
    shown.sort(key=lambda s: s["attributes"][sort.removeprefix("-")], reverse=sort.startswith("-"))
    return _answer(shown[:limit], warnings)


def get_segment(context: Context, request: Request) -> Reply:
    """One segment with its present count."""
    return _one(context, request, find_segment(context, request.path["segment_id"]))


def find_segment(context: Context, id: str) -> Segment:
    """The segment of an id. Error: NOT_FOUND."""
    found = context.store.find_segment(id)
    if found is None:
        hint = "GET /api/v2/rum/segment lists them"
        raise Error(Code.NOT_FOUND, f"there is no segment {id!r}", at="parameter segment_id", hint=hint)
    return found


def update_segment(context: Context, request: Request) -> Reply:
    """Change what is given of a segment; the rest stays."""
    data, id = decode(UpdateSegmentBody, request.body).data, request.path["segment_id"]
    if data.id != id:
        hint = f"the path names {id!r}"
        raise Error(Code.INVALID, f"the body is about segment {data.id!r}", at="/data/id", hint=hint)
    asked, now_ms = data.attributes, context.clock.now_ms()

    def changed(segment: Segment) -> Segment:
        return change(
            segment,
            name=asked.name,
            data_query=asked.data_query,
            description=asked.description,
            tags=None if asked.tags is None else tuple(asked.tags),
            who=request.caller.id,
            now_ms=now_ms,
        )

    wanted = changed(find_segment(context, id))
    if asked.data_query is not None:
        _check_readable(context, wanted)
    context.store.change_segment(id, changed)
    return Reply()


def delete_segment(context: Context, request: Request) -> Reply:
    """Forget a segment."""
    now_ms, who = context.clock.now_ms(), request.caller.id
    found = find_segment(context, request.path["segment_id"])
    gone = context.store.remove_segment(found.id, who=who, now_ms=now_ms) or found
    attributes = {"uuid": gone.id, "name": gone.name, "disabled_at": iso_ms(instant(now_ms)), "disabled_by": who}
    return Reply({"data": {"id": gone.id, "type": "deleted_segment", "attributes": attributes}})


def _one(context: Context, request: Request, segment: Segment) -> Reply:
    shown, warnings = _shown(context, request, [segment])
    return _answer(shown[0], warnings)


def _answer(data: Any, warnings: Iterable[str]) -> Reply:
    told = list(dict.fromkeys(warnings))
    return Reply({"data": data} | ({"meta": {"warnings": told}} if told else {}))


def _shown(context: Context, request: Request, segments: Sequence[Segment]) -> tuple[list[dict[str, Any]], list[str]]:
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
    return [_shown_one(s, counts[s.id], org, names) for s in segments], warnings


def _count(
    context: Context, request: Request, world: EventWorld, entity: Entity, segments: Sequence[Segment]
) -> tuple[dict[str, int], list[str]]:
    """The present members of each; a segment whose search means nothing any more has none, and a warning says so."""
    conditions: list[Expr] = []
    warnings: list[str] = []
    scope = profile_scope(world.of(entity))
    plan: Plan = world.of(entity).relation
    for segment in segments:
        try:
            plan, condition, doubts = marked(world, segment, plan, _key(entity), scope)
        except Error as error:
            condition, doubts = FALSE, (f"it has no members: {error.text()}",)
        conditions.append(condition)
        warnings += [f"segment {segment.name!r}: {doubt}" for doubt in doubts]
    counted = count_conditions(context, request, plan, conditions)
    return dict(zip((s.id for s in segments), counted, strict=True)), warnings


def count_conditions(context: Context, request: Request, profiles: Plan, conditions: Sequence[Expr]) -> list[int]:
    """Of how many profiles each condition is true, all of one snapshot."""
    starts = range(0, len(conditions), COUNTED_AT_ONCE)
    plans = [count_members(profiles, conditions[start : start + COUNTED_AT_ONCE]) for start in starts]
    return [int(count) for answer in run_plans(context, request, plans) for count in answer.rows[0]]


def _shown_one(segment: Segment, count: int, org: int, names: dict[str, str]) -> dict[str, Any]:
    attributes = {
        "uuid": segment.id,
        "name": segment.name,
        "description": segment.description,
        "tags": list(segment.tags),
        "version": segment.version,
        "org_id": org,
        "row_count": count,
        "created_at": iso_ms(instant(segment.created_ms)),
        "modified_at": iso_ms(instant(segment.modified_ms)),
        "created_by": _person(segment.created_by, names),
        "modified_by": _person(segment.modified_by, names),
        "source": "user_created",
        "type": TYPE,
        "data_query": json.loads(segment.data_query),
        "entity": segment.entity.value,
        "hash": segment.digest,
    }
    return {"id": segment.id, "type": "segment", "attributes": attributes}


def _person(id: str, names: dict[str, str]) -> dict[str, str]:
    """Who made something: we know a key's name, and no person's."""
    name = names.get(id, id)
    return {"id": id, "uuid": id, "handle": name, "name": name, "icon": ""}
