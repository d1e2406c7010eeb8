"""Owns bodies of SDK events for tests: made ones, and the recorded ones of tests/data/wire."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from roster.intake.arrival import Arrival
from roster.intake.decode import Batch, origin_of, rum_events

NOW_MS = 1_795_426_700_000
DAY_MS = 86_400_000
WIRE = Path(__file__).parent / "data" / "wire"
CHROME = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/131.0.0.0 Safari/537.36"
PLACE = {"country": "Germany", "country_iso_code": "DE", "city": "Kiel", "country_subdivision": "Holstein"}


def event(type: str = "custom", **more: Any) -> dict[str, Any]:
    return {"type": type, "date": NOW_MS - 1000, **more}


def arrival(*events: Any, **facts: Any) -> Arrival:
    lines = [e if isinstance(e, bytes) else json.dumps(e).encode() for e in events]
    return replace(Arrival(b"\n".join(lines), NOW_MS), **facts)


def take(*events: Any, place: dict[str, str] | None = None, keep_ip: bool = False, **facts: Any) -> Batch:
    """Error: that of a body without any JSON."""
    came = arrival(*events, **facts)
    batch, error = rum_events(came, origin_of(came, keep_ms=457 * DAY_MS, place=place or {}, keep_ip=keep_ip))
    if error is not None:
        raise error
    return batch


def line(of: Any, **facts: Any) -> dict[str, Any]:
    """The one canonical line of one event."""
    batch = take(of, **facts)
    assert batch.rejected == []
    (text,) = batch.lines
    found: dict[str, Any] = json.loads(text)
    return found


def recorded(name: str) -> list[Arrival]:
    """The requests of a recorded visit, as the door would tell of them."""
    found = []
    for request in json.loads((WIRE / f"{name}.json").read_text("utf-8")):
        query = parse_qs(urlsplit(parse_qs(urlsplit(request["line"].split(" ")[1]).query)["ddforward"][0]).query)
        batch_ms = int(query["batch_time"][0])
        found.append(
            Arrival(
                body=request["body"].encode(),
                received_ms=batch_ms + 12,
                batch_ms=batch_ms,
                source="browser",
                tags=query.get("ddtags", [""])[0],
                user_agent=dict(request["headers"])["User-Agent"],
            )
        )
    return found
