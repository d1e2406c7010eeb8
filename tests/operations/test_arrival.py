"""What is known of a request of events, and an answer that pages can read even when something breaks."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import anyio
import pytest

from inside import CALLER, Inside, inside
from roster.http.app import DoorLimits, build_app
from roster.http.intake_door import IntakeLimits
from roster.model.access import KeyKind
from roster.operations.context import Request
from roster.operations.intake import arrival_of
from roster.operations.keys import create_key


@pytest.fixture(scope="module")
def product(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Inside]:
    with inside(tmp_path_factory.mktemp("arrival"), []) as made:
        yield made


def test_a_browser(product: Inside) -> None:
    query = {
        "ddsource": ["browser"],
        "batch_time": ["1795426626216"],
        "ddtags": ["env:test,version:1", "retry_count:1"],
    }
    headers = {"user-agent": "Mozilla/5.0", "x-roster-peer": "203.0.113.9"}
    arrival = arrival_of(product.context, Request(CALLER, b"{}", query=query, headers=headers))
    assert (arrival.body, arrival.batch_ms, arrival.source) == (b"{}", 1795426626216, "browser")
    assert arrival.tags == "env:test,version:1,retry_count:1"
    assert (arrival.peer, arrival.user_agent, arrival.key_id) == ("203.0.113.9", "Mozilla/5.0", CALLER.api_key_id)
    assert arrival.idempotency_key is None


def test_a_mobile_sdk(product: Inside) -> None:
    headers = {"dd-evp-origin": "android", "dd-idempotency-key": "da39a3ee", "user-agent": "Datadog/2 (Android 15)"}
    arrival = arrival_of(product.context, Request(CALLER, headers=headers))
    assert (arrival.source, arrival.idempotency_key, arrival.batch_ms) == ("android", "da39a3ee", None)
    assert arrival_of(product.context, Request(CALLER, query={"dd-evp-origin": ["ios"]})).source == "ios"


@pytest.mark.parametrize("text", ["", "now", "-1", "0", "1e9", "٣", "9" * 15, "9" * 5000, "1795426626216.5"])
def test_a_clock_that_is_none(product: Inside, text: str) -> None:
    assert arrival_of(product.context, Request(CALLER, query={"batch_time": [text]})).batch_ms is None


@pytest.mark.parametrize(
    ("given", "peer"),
    [
        ("::ffff:203.0.113.9", "203.0.113.9"),
        ("2001:DB8::0001", "2001:db8::1"),
        ("", ""),
        ("unix:", ""),
        ("1.2.3.4.5", ""),
        ("<script>", ""),
    ],
)
def test_addresses(product: Inside, given: str, peer: str) -> None:
    assert arrival_of(product.context, Request(CALLER, headers={"x-roster-peer": given})).peer == peer


class BrokenLog:
    """Fails as nobody foresaw."""

    def append(self, lines: list[bytes]) -> None:
        raise ZeroDivisionError("secret of the log")


class Ears:
    """Keeps what would be synced."""

    def __init__(self) -> None:
        self.lines: list[bytes] = []

    def append(self, lines: list[bytes]) -> None:
        self.lines += lines


def post(product: Inside, log: Any, headers: list[tuple[bytes, bytes]]) -> list[dict[str, Any]]:
    """What the door sends for one action."""
    context = replace(product.context, log=log)
    _, secret = create_key(context.records, KeyKind.CLIENT, "page")
    body = json.dumps(
        {"type": "action", "date": context.clock.now_ms(), "action": {"id": "a", "type": "custom"}}
    ).encode()
    limits = DoorLimits(
        body_bytes={"event_body_bytes_max": 1000},
        rate_limits={},
        queries_at_once=1,
        threads=1,
        intake=IntakeLimits(bytes_at_once_max=1000, body_timeout_s=10, threads=1),
    )
    scope = {
        "type": "http",
        "method": "POST",
        "path": "/api/v2/rum",
        "raw_path": b"/api/v2/rum",
        "query_string": f"dd-api-key={secret}".encode(),
        "headers": headers,
        "client": ("198.51.100.7", 1),
    }
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    anyio.run(build_app(context, limits), scope, receive, send)
    return sent


def test_a_fault_of_ours_is_told_to_pages_too(product: Inside) -> None:
    start, body = post(product, BrokenLog(), [])
    assert start["status"] == 500
    assert (b"access-control-allow-origin", b"*") in start["headers"]
    assert b"secret of the log" not in body["body"]
    assert json.loads(body["body"])["errors"][0]["status"] == "500"


def test_a_lying_length_changes_nothing(product: Inside) -> None:
    for text in (b"-1", b"x", "٣".encode(), b""):
        ears = Ears()
        start, _ = post(product, ears, [(b"content-length", text)])
        assert start["status"] == 202
        assert len(ears.lines) == 1
    start, _ = post(product, Ears(), [(b"content-length", b"1001")])
    assert start["status"] == 413
