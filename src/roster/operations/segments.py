"""Owns the operations on segments: create, list, get, update, delete, initialize, templates."""

from __future__ import annotations

from collections.abc import Mapping as Map
from dataclasses import replace
from typing import Any

from roster.analyses.event_world import EventWorld
from roster.analyses.member_pages import present
from roster.analyses.members import marked
from roster.base.errors import Code, Error
from roster.base.time import instant, iso_ms
from roster.model.segment import Segment, change, draft, lists_of, says_the_same
from roster.operations.bodies import decode
from roster.operations.bodies_segments import CreateSegmentBody, UpdateSegmentBody
from roster.operations.context import Context, Reply, Request
from roster.operations.event_worlds import event_world_of
from roster.operations.segment_answers import count_conditions, tell, tell_one, told
from roster.operations.segment_snapshots import drop_unneeded, keep_snapshot
from roster.query.expr import And, Expr, Not
from roster.query.plan import Plan
from roster.query.relations import profile_key

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
    world = event_world_of(context)
    _check_readable(context, world, wanted)
    check_room(context, wanted.name)
    if request.flag("dry_run"):
        return preview(context, request, held_as(context, wanted) or wanted)
    return keep_segment(context, request, world, wanted)


def check_room(context: Context, name: str) -> None:
    """Error: INVALID where there are as many segments as there may be."""
    held = context.store.list_segments()
    if len(held) >= context.limits.segments_max and all(s.name != name for s in held):
        hint = "delete one, or raise the setting segments_max"
        raise Error(Code.INVALID, f"there are {len(held)} segments already", hint=hint)


def keep_segment(
    context: Context, request: Request, world: EventWorld, wanted: Segment, meta: Map[str, Any] | None = None
) -> Reply:
    """Keep a new segment with its first snapshot, and tell it; one that is there already stays as it is."""
    made = context.store.add_segment(wanted)
    if made.id == wanted.id:
        keep_snapshot(context, world, made, request)
    return tell_one(context, request, made, meta)


def held_as(context: Context, wanted: Segment) -> Segment | None:
    """The segment of that name, where it says the same. Error: CONFLICT where it says something else."""
    held = next((s for s in context.store.list_segments() if s.name == wanted.name and s.id != wanted.id), None)
    if held is not None and not says_the_same(held, wanted):
        raise name_taken(wanted.name)
    return held


def name_taken(name: str) -> Error:
    hint = "choose another name"
    return Error(Code.CONFLICT, f"a segment named {name!r} exists", at="/data/attributes/name", hint=hint)


def preview(context: Context, request: Request, segment: Segment, meta: Map[str, Any] | None = None) -> Reply:
    """What a change would answer, without it."""
    return replace(tell_one(context, request, segment, meta), status=200)


def _check_readable(context: Context, world: EventWorld, segment: Segment) -> tuple[Plan, Expr]:
    """Profiles and what is true of members. Error: INVALID for a rule that cannot be read, with its place."""
    plan, condition, _ = marked(world, segment, world.of(segment.entity).relation, profile_key(segment.entity))
    kept = {one.id: one.entity for one in context.lists.list_lists()} if lists_of(segment) else {}
    for id in lists_of(segment):
        if kept.get(id) is not segment.entity:
            hint = "POST /api/v2/rum/segment/static makes a list; name the one of its data_query"
            at = "/data/attributes/data_query/static"
            raise Error(Code.INVALID, f"there is no list {id!r} of {segment.entity}", at=at, hint=hint)
    return plan, condition


def list_segments(context: Context, request: Request) -> Reply:
    """All segments, each with its present count; `sort` by name, created_at, modified_at or row_count, `limit`."""
    most = context.limits.segments_max
    limit = request.number("limit", most, 1, most)
    sort = request.query.get("sort", ["name"])[-1]
    if sort.removeprefix("-") not in SORTS:
        hint = f"allowed: {', '.join(SORTS)}, with - before it for descending"
        raise Error(Code.INVALID, f"unknown order {sort!r}", at="parameter sort", hint=hint)
    shown, warnings = tell(context, request, context.store.list_segments())
    shown.sort(key=lambda s: s["attributes"][sort.removeprefix("-")], reverse=sort.startswith("-"))
    return told(shown[:limit], warnings)


def get_segment(context: Context, request: Request) -> Reply:
    """One segment with its present count."""
    return tell_one(context, request, find_segment(context, request.path["segment_id"]))


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

    before = find_segment(context, id)
    wanted = changed(before)
    world = event_world_of(context)
    if asked.data_query is not None:
        _check_readable(context, world, wanted)
    if request.flag("dry_run"):
        return _preview_update(context, request, world, before, wanted)
    made = context.store.change_segment(id, changed)
    if made.digest != before.digest:
        keep_snapshot(context, world, made, request)
        drop_unneeded(context, before)
    return Reply()


def _preview_update(context: Context, request: Request, world: EventWorld, old: Segment, new: Segment) -> Reply:
    """The segment as it would be; in `meta` how many would enter and leave."""
    if any(s.name == new.name and s.id != new.id for s in context.store.list_segments()):
        raise name_taken(new.name)
    if old.entity is not new.entity:
        counts = [tell(context, request, [s])[0][0]["attributes"]["row_count"] for s in (new, old)]
    else:
        plan: Plan = world.of(new.entity).relation
        plan, was, _ = present(world, old, plan, prefix="old.")
        plan, will, _ = marked(world, new, plan, profile_key(new.entity), prefix="new.")
        counts = count_conditions(context, request, plan, [And((will, Not(was))), And((was, Not(will)))])
    entered, left = counts
    return preview(context, request, new, {"entered": entered, "left": left})


def delete_segment(context: Context, request: Request) -> Reply:
    """Forget a segment."""
    now_ms, who = context.clock.now_ms(), request.caller.id
    found = find_segment(context, request.path["segment_id"])
    gone = context.store.remove_segment(found.id, who=who, now_ms=now_ms) or found
    drop_unneeded(context, gone)
    attributes = {"uuid": gone.id, "name": gone.name, "disabled_at": iso_ms(instant(now_ms)), "disabled_by": who}
    return Reply({"data": {"id": gone.id, "type": "deleted_segment", "attributes": attributes}})


def list_templates(context: Context, request: Request) -> Reply:
    """Templates of segments: there are none."""
    return Reply({"data": []})


def initialize_segments(context: Context, request: Request) -> Reply:
    """Make the segments that come with the product: there are none, so nothing is done."""
    return Reply()
