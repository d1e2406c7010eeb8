"""Owns making static segments: who is on the list is found once, and stays so."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from roster.analyses.event_world import EventWorld
from roster.analyses.static_lists import given_ids, given_rows, match_given
from roster.base.errors import Code, Error
from roster.base.values import digest
from roster.model.reference_table import Table, normalise_name, normalise_names
from roster.model.schema import KEY_ATTRIBUTE, Column, Entity, Type
from roster.model.segment import Segment, draft, lists_of
from roster.model.segment_query import FACETS
from roster.operations.analysis import AT
from roster.operations.behind import BEHIND, Found, find_behind, of_step
from roster.operations.bodies import decode
from roster.operations.bodies_static import (
    JourneyQueryBody,
    StaticSegmentAttributes,
    StaticSegmentBody,
    StepBody,
)
from roster.operations.context import Context, Reply, Request, run_plans
from roster.operations.event_worlds import event_world_of
from roster.operations.segment_answers import tell_one
from roster.operations.segments import check_room, keep_segment, name_taken, preview
from roster.operations.uploads import forget_upload, parts_of, wanted_upload
from roster.query.plan import Plan
from roster.query.relations import EMAIL
from roster.query.search import And, Key, Match, Pattern, text_of

WAYS = ("journey_query_object", "ids", "upload_id", *BEHIND)
RULE = "listed"
"""The name of the only rule of a static segment."""


def create_static_segment(context: Context, request: Request) -> Reply:
    """Keep users or accounts as a segment: those of a list, or those who are behind a step or a cell at this moment."""
    asked = decode(StaticSegmentBody, request.body).data.attributes
    way = _way(asked)
    id, held = _list_id(context, asked)
    if held is not None:
        return tell_one(context, request, held)
    world = event_world_of(context)
    with _found(context, request, world, asked, way) as found:
        plans = [found.listing.given, found.listing.matched, found.listing.profiles]
        given, matched, profiles = (int(a.rows[0][0]) for a in run_plans(context, request, plans))
        meta: dict[str, Any] = {"matched": matched, "unknown": given - matched, "understood": found.understood}
        meta |= {"warnings": list(found.warnings)} if found.warnings else {}
        wanted = _drafted(context, request, asked, found.entity, id, given if asked.match != "email" else profiles)
        check_room(context, wanted.name)
        if request.flag("dry_run"):
            return _preview(context, request, wanted, profiles, meta)
        keys, budget = found.listing.keys, context.limits.budget(request.caller.api_key_id)
        context.lists.keep(id, found.entity, keys, context.clock.now_ms(), budget, request.cancel)
    reply = keep_segment(context, request, world, wanted, meta)
    if asked.upload_id is not None:
        forget_upload(context, wanted_upload(context, asked.upload_id))
    return reply


def _way(asked: StaticSegmentAttributes) -> str:
    """How the request says who is on the list. Error: INVALID unless it is exactly one, and all parts belong to it."""
    ways = [name for name in WAYS if getattr(asked, name) is not None]
    if len(ways) != 1:
        hint = f"exactly one of {', '.join(WAYS)}"
        raise Error(Code.INVALID, "it is not clear who is on the list", at=AT, hint=hint)
    for part, owners in (("column", ("upload_id",)), ("match", ("upload_id", "ids"))):
        if getattr(asked, part) is not None and ways[0] not in owners:
            hint = f"it goes with {' and '.join(owners)}"
            raise Error(Code.INVALID, f"{part} has no meaning with {ways[0]}", at=f"{AT}/{part}", hint=hint)
    return ways[0]


def _list_id(context: Context, asked: StaticSegmentAttributes) -> tuple[str, Segment | None]:
    """The id of the list of a request, the same for the same request, and the segment it made before.

    So a request that is sent again answers with the members of the first time. Error: CONFLICT for a name
    that another segment has.
    """
    id = digest(asked.model_dump(mode="json", by_alias=True, exclude={"description", "tags"}))
    segments = context.store.list_segments()
    held = next((s for s in segments if s.name == asked.name), None)
    if held is not None:
        same = (held.description, held.tags) == (asked.description or "", tuple(asked.tags or ()))
        if not same or lists_of(held) != {id}:
            raise name_taken(asked.name)
        return id, held
    taken = any(id in lists_of(s) for s in segments)  # by a segment that goes on with the list of one that is gone
    return (context.clock.new_id() if taken else id), None


def _drafted(
    context: Context, request: Request, asked: StaticSegmentAttributes, entity: Entity, list_id: str, count: int
) -> Segment:
    rule = {"id": list_id, "name": RULE, "user_count": count}
    query = {"static": [rule]} | ({"entity": entity.value} if entity is not Entity.USERS else {})
    tags, now_ms = tuple(asked.tags or ()), context.clock.now_ms()
    id = context.clock.new_id()
    return draft(id, asked.name, query, asked.description or "", tags, who=request.caller.id, now_ms=now_ms)


def _preview(context: Context, request: Request, wanted: Segment, profiles: int, meta: dict[str, Any]) -> Reply:
    """The segment as it would be: its list is not kept, so that its count is told beside."""
    reply = preview(context, request, wanted, meta)
    reply.body["data"]["attributes"]["row_count"] = profiles
    return reply


@contextmanager
def _found(
    context: Context, request: Request, world: EventWorld, asked: StaticSegmentAttributes, way: str
) -> Iterator[Found]:
    """Who is on the list, for as long as the block lasts."""
    entity = Entity(asked.entity or Entity.USERS)
    match way:
        case "upload_id":
            with _uploaded(context, request, asked) as table:
                given = given_rows(table, table.primary_key, f"{AT}/column")
                yield _given(world, entity, given, asked, {"column": table.primary_key})
        case "ids":
            yield _given(world, entity, given_ids(asked.ids or []), asked, {})
        case "journey_query_object" if asked.journey_query_object is not None:
            yield _of_nodes(world, entity, asked.journey_query_object)
        case _:
            yield find_behind(world, asked)


def _given(
    world: EventWorld, entity: Entity, given: Plan, asked: StaticSegmentAttributes, told: dict[str, Any]
) -> Found:
    if asked.match == "email" and entity is not Entity.USERS:
        raise Error(Code.INVALID, "accounts have no e-mail", at=f"{AT}/match", hint="give their ids")
    attribute = EMAIL if asked.match == "email" else KEY_ATTRIBUTE[entity]
    return Found(entity, match_given(world, entity, given, attribute), {"matched_on": attribute} | told)


@contextmanager
def _uploaded(context: Context, request: Request, asked: StaticSegmentAttributes) -> Iterator[Table]:
    """The uploaded file as a table of its own, whose key is the column that counts; it goes with the block."""
    try:
        upload = wanted_upload(context, asked.upload_id or "")
        paths = parts_of(context, upload)
    except Error as error:
        raise Error(error.code, error.message, at=f"{AT}/upload_id", hint=error.hint) from error
    names = normalise_names(list(upload.headers))
    try:
        column = names[0] if asked.column is None else normalise_name(asked.column)
    except Error as error:
        raise error.under(f"{AT}/column") from error
    if column not in names:
        hint = f"columns: {', '.join(names)}"
        raise Error(Code.INVALID, f"the file has no column {asked.column!r}", at=f"{AT}/column", hint=hint)
    columns = tuple(Column(name, Type.STRING) for name in names)
    who, now_ms = request.caller.id, context.clock.now_ms()
    table = Table(
        id=context.clock.new_id(),
        name=upload.table_name,
        columns=columns,
        primary_key=column,
        source="LOCAL_FILE",
        description="",
        tags=(),
        row_count=0,
        created_by=who,
        updated_by=who,
        created_ms=now_ms,
        updated_ms=now_ms,
    )
    context.tables.create_table(table, paths, "csv", upload.headers)
    try:
        yield table
    finally:
        context.tables.drop_table(table.id)


def _of_nodes(world: EventWorld, entity: Entity, asked: JourneyQueryBody) -> Found:
    """Who took the nodes in order at any time: the filters of a node must all hold, their values match exactly."""
    names = [f"node{n}" for n in range(len(asked.nodes))]
    nodes = {}
    for name, node in zip(names, asked.nodes, strict=True):
        matches = tuple(Match(Key(f.attribute), _exactly(f.value)) for f in node.filters)
        query = text_of(And(matches) if len(matches) > 1 else matches[0])
        nodes[name] = {"data_source": "product_analytics", "search": {"query": query}}
    search = {"expression": " -> ".join(names), "node_objects": nodes, "join_keys": {"primary": FACETS[entity]}}
    step = {"from": 0, "to": world.now_ms + 1, "query": {"search": search}}
    return of_step(world, entity, StepBody.model_validate(step), "journey_query_object")


def _exactly(value: str) -> Pattern:
    return Pattern((value,) if value else (), quoted=True)
