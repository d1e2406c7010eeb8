"""Owns the operations on the members of a segment: pages, files, sending, and who entered and left since a time."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from itertools import islice
from typing import Any, cast

from roster.analyses.member_pages import COLUMNS_MAX, compare_members, file_members, page_members
from roster.base.errors import Code, Error
from roster.base.time import INSTANT_MS_MAX, instant, iso_ms
from roster.model.schema import KEY_ATTRIBUTE
from roster.model.segment import Segment
from roster.operations.context import Context, Reply, Request, run_plans
from roster.operations.event_worlds import event_world_of
from roster.operations.profiles import shown
from roster.operations.segment_answers import told
from roster.operations.segment_snapshots import snapshots_of
from roster.operations.segments import find_segment
from roster.ports import Cancel, FileFormat, Notices, SentMembers
from roster.query.plan import Plan

LIMIT_DEFAULT = 100
PORTION = 1000
"""Members that are sent at once."""
MEDIA = {
    "csv": "text/csv; charset=utf-8",
    "ndjson": "application/x-ndjson",
    "parquet": "application/vnd.apache.parquet",
}


def list_members(context: Context, request: Request) -> Reply:
    """The members of a segment now, by pages in the order of their keys; `columns` names attributes."""
    request.only("limit", "cursor", "columns")
    segment, columns = _asked(context, request)
    limit = request.number("limit", LIMIT_DEFAULT, 1, context.limits.profiles_limit_max)
    after = _place(request.query["cursor"][-1]) if "cursor" in request.query else None
    world = event_world_of(context)
    page = page_members(world, segment, columns, limit, after)
    rows, total = run_plans(context, request, [page.rows, page.total])
    records = [dict(zip(columns, map(shown, row[1:]), strict=True)) for row in rows.rows]
    attributes = {
        "entity": segment.entity.value,
        "members": records,
        "total": total.rows[0][0],
        "next_cursor": _cursor(rows.rows[-1][0]) if len(records) == limit else None,
        "version": segment.version,
        "computed_at": iso_ms(instant(world.now_ms)),
    }
    return told({"id": segment.id, "type": "segment_members", "attributes": attributes}, page.warnings)


def _asked(context: Context, request: Request) -> tuple[Segment, tuple[str, ...]]:
    """The segment of a path, and the columns a request names; the key where it names none."""
    segment = find_segment(context, request.path["segment_id"])
    names = [name.strip() for text in request.query.get("columns", []) for name in text.split(",")]
    columns = tuple(dict.fromkeys(name for name in names if name)) or (KEY_ATTRIBUTE[segment.entity],)
    if len(columns) > COLUMNS_MAX:
        hint = f"at most {COLUMNS_MAX}"
        raise Error(Code.INVALID, f"{len(columns)} columns are too many", at="parameter columns", hint=hint)
    return segment, columns


def _cursor(key: str) -> str:
    return base64.urlsafe_b64encode(json.dumps(key).encode()).decode().rstrip("=")


def _place(cursor: str) -> str:
    """Error: INVALID for what is no cursor of ours."""
    try:
        key = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
        if isinstance(key, str):
            key.encode()
            return key
    except (ValueError, TypeError):
        pass
    raise Error(Code.INVALID, "the cursor cannot be read", at="parameter cursor", hint="send next_cursor as it came")


def export_members(context: Context, request: Request) -> Reply:
    """All members of a segment as a file: `format` csv, ndjson or parquet; `columns` names attributes."""
    request.only("format", "columns")
    segment, columns = _asked(context, request)
    format = request.query.get("format", ["csv"])[-1]
    if format not in MEDIA:
        hint = f"allowed: {', '.join(MEDIA)}"
        raise Error(Code.INVALID, f"unknown format {format!r}", at="parameter format", hint=hint)
    world = event_world_of(context)
    plan, warnings = file_members(world, segment, columns)
    content = _export(context, request, plan, cast("FileFormat", format))
    headers = {
        "content-type": MEDIA[format],
        "content-disposition": f'attachment; filename="segment-{segment.id}.{format}"',
        "x-roster-computed-at": iso_ms(instant(world.now_ms)),
    }
    if warnings:
        headers["x-roster-warnings"] = json.dumps(list(dict.fromkeys(warnings)))  # all ASCII
    return Reply(headers=headers, stream=content)


def _export(context: Context, request: Request, plan: Plan, format: FileFormat) -> Iterator[bytes]:
    return context.engine.export(plan, format, context.limits.budget(request.caller.api_key_id), request.cancel)


def send_members(context: Context, request: Request) -> Reply:
    """Send all members of a segment to the webhook, in portions of one moment; `columns` names attributes."""
    request.only("columns")
    segment, columns = _asked(context, request)
    if context.notices is None:
        raise Error(Code.CONFLICT, "there is no webhook to send to", hint="set webhook_url")
    world = event_world_of(context)
    plan, warnings = file_members(world, segment, columns)
    sending_id = context.clock.new_id()
    sent = place = 0
    for place, (members, is_last) in enumerate(_portions(_export(context, request, plan, "ndjson"))):
        portion = SentMembers(
            sending_id=sending_id,
            segment_id=segment.id,
            segment=segment.name,
            version=segment.version,
            entity=segment.entity.value,
            members=members,
            place=place,
            is_last=is_last,
            computed_at_ms=world.now_ms,
        )
        _send(context.notices, portion, sent, request.cancel)
        sent += len(members)
    attributes = {"sent": sent, "portions": place + 1, "computed_at": iso_ms(instant(world.now_ms))}
    return told({"id": sending_id, "type": "segment_sent", "attributes": attributes}, warnings)


def _send(notices: Notices, portion: SentMembers, sent: int, cancel: Cancel | None) -> None:
    """Errors: TIMEOUT when the caller has left, BUSY when the webhook does not take it."""
    if cancel is not None and cancel.cancelled:
        raise Error(Code.TIMEOUT, f"the caller left after {sent:,} members were sent")
    try:
        notices.tell(portion)
    except Error as error:
        hint = "send again: a sending without its last portion is to be forgotten"
        raise Error(error.code, f"{error.message} after {sent:,} members were sent", hint=hint) from error


def _portions(file: Iterator[bytes]) -> Iterator[tuple[tuple[dict[str, Any], ...], bool]]:
    """The rows of a file of JSON lines in portions, each with whether it is the last; one without rows for none."""
    rows = _rows(file)
    portion = tuple(islice(rows, PORTION))
    while following := tuple(islice(rows, PORTION)):
        yield portion, False
        portion = following
    yield portion, True


def _rows(file: Iterator[bytes]) -> Iterator[dict[str, Any]]:
    rest = b""
    for part in file:
        *lines, rest = (rest + part).split(b"\n")
        yield from map(json.loads, lines)


def list_changes(context: Context, request: Request) -> Reply:
    """Who entered and who left since the newest snapshot at or before `since` (epoch ms)."""
    request.only("since", "limit")
    segment = find_segment(context, request.path["segment_id"])
    if "since" not in request.query:
        raise Error(Code.INVALID, "since is missing", at="parameter since", hint="epoch milliseconds")
    since_ms = request.number("since", 0, 0, INSTANT_MS_MAX)
    limit = request.number("limit", LIMIT_DEFAULT, 1, context.limits.profiles_limit_max)
    kept = snapshots_of(context.lists.list_lists(), segment)
    before = [one for one in kept if one.kept_ms <= since_ms]
    if not before:
        oldest = f"the oldest snapshot is of {kept[0].kept_ms}" if kept else "there is none: see segment_snapshots_days"
        message = f"no snapshot is as old as {iso_ms(instant(since_ms))}"
        raise Error(Code.NOT_FOUND, message, at="parameter since", hint=oldest)
    world = event_world_of(context)
    made = compare_members(world, segment, before[-1].id, limit)
    plans = [made.entered, made.entered_count, made.left, made.left_count]
    entered, entered_count, left, left_count = (answer.rows for answer in run_plans(context, request, plans))
    attributes: dict[str, Any] = {
        "entity": segment.entity.value,
        "since": since_ms,
        "snapshot": before[-1].kept_ms,
        "snapshot_at": iso_ms(instant(before[-1].kept_ms)),
        "computed_at": iso_ms(instant(world.now_ms)),
        "entered": {"count": entered_count[0][0], "keys": [key for (key,) in entered]},
        "left": {"count": left_count[0][0], "keys": [key for (key,) in left]},
    }
    return told({"id": segment.id, "type": "segment_changes", "attributes": attributes}, made.warnings)
