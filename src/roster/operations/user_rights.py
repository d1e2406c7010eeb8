"""Owns what a person may ask for: all that is kept of one user, and that nothing is kept any more."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from roster.base.errors import Code, Error
from roster.base.time import instant, iso_ms
from roster.intake.texts import decode
from roster.model.erasure import Erasure, subject_of
from roster.model.schema import Entity
from roster.operations.context import Context, Reply, Request
from roster.operations.profiles import envelope, query_users, world_of
from roster.operations.provenance import get_provenance

EVENTS_DEFAULT = 1_000
EVENTS_MAX = 10_000
RECEIPTS_DEFAULT = 100
RECEIPTS_MAX = 1_000


def erase_user(context: Context, request: Request) -> Reply:
    """Remove all that is kept of one user, now, and answer with the receipt; `dry_run` only counts."""
    request.only("dry_run")
    dry_run = request.flag("dry_run")
    user_id = request.path["id"]
    context.traces.settle()
    if dry_run:
        counts = _erase(context, user_id, dry_run=True)
        return Reply(envelope(user_id, "erasure_preview", {"counts": counts, **_left_alone(context, user_id)}))
    begun = Erasure(
        id=context.clock.new_id(),
        subject=subject_of(user_id, context.pepper),
        at_ms=context.clock.now_ms(),
        who=request.caller.id,
        finished_ms=None,
        counts={},
    )
    context.store.add_erasure(begun)  # first: a receipt without an end tells of a crash on the way
    counts = _erase(context, user_id, dry_run=False)
    done = replace(begun, finished_ms=context.clock.now_ms(), counts=counts)
    context.store.finish_erasure(done)
    shown = _shown(done)
    shown["attributes"] |= _left_alone(context, user_id)
    return Reply({"data": shown})


def _erase(context: Context, user_id: str, *, dry_run: bool) -> dict[str, int]:
    """What goes, by kind. Lines beside the engine go first: only the engine knows whose they are."""
    known = context.events.erase_user(user_id, dry_run=True)
    traces = context.traces.drop([user_id, *known.anonymous_ids], known.emails, dry_run=dry_run)
    if not dry_run:
        known = context.events.erase_user(user_id)
    return {**known.counts, **traces}


def _left_alone(context: Context, user_id: str) -> dict[str, Any]:
    """What is not ours to remove: rows of sources, and searches that somebody wrote with the id in them."""
    world = world_of(context, Entity.USERS)
    segments = [s.id for s in context.store.list_segments() if user_id in s.data_query]
    queries = [q.name for q in context.store.list_queries() if user_id in q.body]
    return {
        "not_erased": {
            "sources": sorted({t.owner or t.name for t in world.sources.values()}),
            "segments": segments,
            "saved_queries": queries,
        }
    }


def list_erasures(context: Context, request: Request) -> Reply:
    """Receipts of erased users, the newest first; `user_id` asks for those of one user."""
    request.only("user_id", "limit")
    subject = subject_of(request.query["user_id"][-1], context.pepper) if "user_id" in request.query else None
    limit = request.number("limit", RECEIPTS_DEFAULT, 1, RECEIPTS_MAX)
    return Reply({"data": [_shown(e) for e in context.store.list_erasures(subject=subject, limit=limit)]})


def _shown(erasure: Erasure) -> dict[str, Any]:
    finished = iso_ms(instant(erasure.finished_ms)) if erasure.finished_ms is not None else None
    attributes = {
        "subject": erasure.subject,
        "at": iso_ms(instant(erasure.at_ms)),
        "by": erasure.who,
        "finished_at": finished,
        "counts": dict(erasure.counts),
    }
    return {"id": erasure.id, "type": "erasure", "attributes": attributes}


def export_user(context: Context, request: Request) -> Reply:
    """All that is kept of one user: profile, sources of its attributes, accounts, identities, events by pages."""
    request.only("limit", "cursor")
    user_id = request.path["id"]
    limit = request.number("limit", EVENTS_DEFAULT, 1, EVENTS_MAX)
    after = _place(request.query["cursor"][-1]) if "cursor" in request.query else None
    context.traces.settle()
    page = context.events.list_events(user_id, limit=limit, after=after)
    attributes: dict[str, Any] = {} if after else _about(context, request, user_id)
    if not after and attributes["profile"] is None and not page.events and not any(attributes["lines"].values()):
        raise Error(Code.NOT_FOUND, f"nothing is kept of the user {user_id!r}", at="parameter id")
    attributes["events"] = page.events
    attributes["next_cursor"] = _cursor(page.after) if page.after else None
    return Reply(envelope(user_id, "user_export", attributes))


def export_lines(context: Context, request: Request) -> Iterator[dict[str, Any]]:
    """The whole export as single values: first what is known of the user, then each event. Error: NOT_FOUND."""
    cursor: str | None = None
    while True:
        query = {"limit": [str(EVENTS_MAX)]} | ({"cursor": [cursor]} if cursor else {})
        found = export_user(context, replace(request, query=query)).body["data"]["attributes"]
        events, next_cursor = found.pop("events"), found.pop("next_cursor")
        if cursor is None:
            yield found
        yield from events
        cursor = next_cursor
        if cursor is None:
            return


def _about(context: Context, request: Request, user_id: str) -> dict[str, Any]:
    """Profile, where its custom attributes come from, accounts, identities, and lines beside the engine."""
    world = world_of(context, Entity.USERS)
    quoted = user_id.replace("\\", "\\\\").replace('"', '\\"')
    attributes = {"query": f'user_id:"{quoted}"', "limit": 2}
    body = json.dumps({"data": {"type": "query_users_request", "attributes": attributes}}).encode()
    hits = query_users(context, replace(request, body=body, query={})).body["data"]["attributes"]["hits"]
    profile = next((hit for hit in hits if hit["user_id"] == user_id), None)
    customs = [a.id for a in world.customs()] if profile else []
    sources = {id: _source(context, request, user_id, id) for id in customs}
    lines = _lines(context, user_id)
    return {"profile": profile, "sources": sources, **context.events.list_links(user_id), "lines": lines}


def _lines(context: Context, user_id: str) -> dict[str, list[Any]]:
    """What an erase would remove beside the engine, by place: values of lines that are JSON, else their text."""
    known = context.events.erase_user(user_id, dry_run=True)
    found = context.traces.read([user_id, *known.anonymous_ids], known.emails)
    return {place: [_value(line) for line in lines] for place, lines in found.items()}


def _value(line: bytes) -> Any:
    try:
        return decode(line)
    except Error:
        return line.decode("utf-8", "replace")


def _source(context: Context, request: Request, user_id: str, attribute: str) -> dict[str, Any] | None:
    """The connection, table and column a value comes from, None when no source has one."""
    asked = replace(request, path={"entity": "users", "id": user_id, "attribute": attribute}, query={})
    found = get_provenance(context, asked).body["data"]["attributes"]
    for offer in found["offers"]:
        if offer.get("counts"):
            return {name: offer.get(name) for name in ("connection", "table", "source_column", "row_key", "read_at")}
    return None


def _cursor(place: tuple[int, str]) -> str:
    return base64.urlsafe_b64encode(json.dumps(place).encode()).decode().rstrip("=")


def _place(cursor: str) -> tuple[int, str]:
    """Error: INVALID for what is no cursor of ours."""
    try:
        at, key = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
        if isinstance(at, int) and isinstance(key, str) and abs(at) < 2**58:
            return at, key
    except (ValueError, TypeError):
        pass
    raise Error(Code.INVALID, "the cursor cannot be read", at="parameter cursor", hint="send next_cursor as it came")
