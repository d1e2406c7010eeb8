"""Owns event intake over the API: checked, written to the synced log, then acknowledged."""

from __future__ import annotations

from ipaddress import IPv6Address, ip_address

from roster.intake.arrival import Arrival
from roster.operations.context import Context, Reply, Request

BATCH_MS_MAX = 253_402_300_799_999
"""The last millisecond of the year 9999: more is no clock."""
TAGS_CHARACTERS_MAX = 8_192


def arrival_of(context: Context, request: Request) -> Arrival:
    """What is known of a request of events: its query, its headers and where it came from.

    The door keeps the headers; `x-roster-peer` is its own word for the address of the sender.
    """
    return Arrival(
        body=request.body,
        received_ms=context.clock.now_ms(),
        batch_ms=_instant_ms(_last(request, "batch_time")),
        source=_last(request, "ddsource")
        or _last(request, "dd-evp-origin")
        or request.headers.get("dd-evp-origin", ""),
        tags=",".join(tags for tags in request.query.get("ddtags", []) if tags)[:TAGS_CHARACTERS_MAX],
        peer=_address(request.headers.get("x-roster-peer", "")),
        user_agent=request.headers.get("user-agent", ""),
        idempotency_key=request.headers.get("dd-idempotency-key") or None,
        key_id=request.caller.api_key_id,
    )


def _last(request: Request, name: str) -> str:
    return request.query.get(name, [""])[-1]


def _instant_ms(text: str) -> int | None:
    """Epoch milliseconds as SDKs write them; None for anything else: a wrong clock must not lose a batch."""
    value = int(text) if text.isascii() and text.isdecimal() and len(text) < 16 else 0
    return value if 0 < value <= BATCH_MS_MAX else None


def _address(text: str) -> str:
    """An IP address in its plain form; empty for what is none, such as the name of a socket."""
    try:
        address = ip_address(text)
    except ValueError:
        return ""
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return str(mapped or address)


def submit_rum(context: Context, request: Request) -> Reply:
    """Take a batch of events of a browser or mobile SDK; a bad line never fails its batch."""
    context.intake.take_rum(arrival_of(context, request), context.log.append)
    return Reply({"request_id": context.clock.new_id()})


def submit_replay(context: Context, request: Request) -> Reply:
    """Take a part of a session recording and discard it: Roster keeps none, and SDKs must not send it again."""
    context.intake.drop_replay()
    return Reply({"request_id": context.clock.new_id()})


def submit_product_analytics_event(context: Context, request: Request) -> Reply:
    """Take one server event, an array of them, or NDJSON; all of a request or nothing."""
    bytes_max = context.limits.event_body_bytes_max
    context.intake.take_server(arrival_of(context, request), context.log.append, bytes_max)
    return Reply({})
