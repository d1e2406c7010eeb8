"""Owns looking at what the intake took and what it did not, and running the latter anew."""

from __future__ import annotations

import json
from typing import Any

from roster.base.errors import Code, Error, did_you_mean
from roster.base.time import instant, iso_ms
from roster.intake.reasons import DROPPED, Reason
from roster.intake.rejected import Kept
from roster.intake.samples import Sample
from roster.operations.bodies import decode
from roster.operations.bodies_intake import ReplayBody
from roster.operations.context import Context, Reply, Request

LISTED = 100
LISTED_MAX = 1000
KEPT_REASONS = [reason.value for reason in Reason if reason not in DROPPED]


def list_received(context: Context, request: Request) -> Reply:
    """The newest events that were taken, as they are stored, the newest first; `limit` of them."""
    request.only("limit")
    limit = request.number("limit", LISTED, 1, LISTED_MAX)
    found = context.intake.samples.read(limit)
    return Reply({"data": [_received(place, sample) for place, sample in enumerate(found)]})


def list_rejected(context: Context, request: Request) -> Reply:
    """The newest events that were not taken and why, the newest first; `limit` of them, of one `reason` if given."""
    request.only("limit", "reason")
    limit = request.number("limit", LISTED, 1, LISTED_MAX)
    reason = request.query.get("reason", [None])[-1]
    if reason is not None and reason not in KEPT_REASONS:
        hint = did_you_mean(reason, KEPT_REASONS) or f"known: {', '.join(KEPT_REASONS)}"
        raise Error(Code.INVALID, f"unknown reason {reason!r}", at="parameter reason", hint=hint)
    found = context.intake.rejected.read(limit, context.clock.now_ms(), reason)
    return Reply({"data": [_rejected(kept) for kept in found]})


def replay_rejected(context: Context, request: Request) -> Reply:
    """Run rejected events anew, as they came: those that pass now are stored and leave the list."""
    body = decode(ReplayBody, request.body) if request.body.strip() else ReplayBody()
    reason = body.reason.value if body.reason is not None else None
    ids = frozenset(body.ids) if body.ids is not None else None
    replayed, still_rejected = context.intake.replay(context.log.append, reason, ids)
    attributes = {"replayed": replayed, "still_rejected": still_rejected}
    return Reply({"data": {"id": "replay", "type": "events_replayed", "attributes": attributes}})


def _received(place: int, sample: Sample) -> dict[str, Any]:
    attributes: dict[str, Any] = {
        "received_at": iso_ms(instant(sample.received_ms)),
        "received_ms": sample.received_ms,
        "track": sample.track,
        "key_id": sample.key_id,
        "clipped": sample.clipped,
    }
    attributes["event"] = sample.line.decode("utf-8", "replace") if sample.clipped else json.loads(sample.line)
    return {"id": str(place), "type": "received_event", "attributes": attributes}


def _rejected(kept: Kept) -> dict[str, Any]:
    attributes = {
        "received_at": iso_ms(instant(kept.received_ms)),
        "received_ms": kept.received_ms,
        "reason": kept.reason,
        "text": kept.text,
        "track": kept.track,
        "key_id": kept.key_id,
        "line": kept.line,
        "clipped": kept.clipped,
    }
    return {"id": kept.id, "type": "rejected_event", "attributes": attributes}
