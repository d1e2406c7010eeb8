"""Owns event intake over the API: checked, written to the synced log, then acknowledged."""

from __future__ import annotations

from roster.intake.event import canonical_events
from roster.operations.context import Context, Reply, Request


def submit_product_analytics_event(context: Context, request: Request) -> Reply:
    """Take one server event, an array of them, or NDJSON; all of a request or nothing."""
    batch = canonical_events(
        request.body,
        received_ms=context.clock.now_ms(),
        new_id=context.clock.new_id,
        idempotency_key=request.headers.get("dd-idempotency-key"),
        bytes_max=context.limits.event_body_bytes_max,
    )
    context.log.append(batch.lines)
    return Reply({})
