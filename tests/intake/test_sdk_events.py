"""SDK events: recorded traffic of three SDK versions, identity, clock, and what is derived."""

from __future__ import annotations

import json
from collections import Counter
from hashlib import sha256
from typing import Any

import pytest

from roster.intake.arrival import Arrival
from roster.intake.decode import Batch, origin_of, rum_events
from sdk_events import CHROME, DAY_MS, NOW_MS, PLACE, event, line, recorded, take


def run(came: Arrival) -> Batch:
    return rum_events(came, origin_of(came, keep_ms=457 * DAY_MS, place=PLACE, keep_ip=False))[0]


@pytest.mark.parametrize(
    ("name", "types"),
    [
        ("browser_plain", {"view": 5, "action": 7, "error": 2, "resource": 5, "long_task": 5, "vital": 1}),
        ("browser_compress", {}),
        ("browser_v4", {}),
    ],
)
def test_recorded_traffic_is_taken_whole(name: str, types: dict[str, int]) -> None:
    taken: list[dict[str, Any]] = []
    for came in recorded(name):
        batch = run(came)
        sent = [json.loads(text) for text in came.body.split(b"\n")]
        assert batch.rejected == []
        assert [json.loads(text)["type"] for text in batch.lines] == [
            e["type"] for e in sent if e["type"] != "telemetry"
        ]
        assert sum(batch.dropped.values()) == sum(e["type"] == "telemetry" for e in sent)
        taken += map(json.loads, batch.lines)
    for found in taken:
        kind, rest = found["type"], found["rest"]
        assert found["k"].startswith(f"{kind}:")
        assert ("v" in found) == (kind == "view")
        assert (found["env"], found["service"], found["version"]) == ("test", "shop-web", "1.2.3")
        assert (found["browser_name"], found["os_name"], found["device_type"]) == ("HeadlessChrome", "Linux", "desktop")
        assert rest["browser"]["version_major"] == "156"
        assert (found["country_code"], found["city"], found["region"]) == ("DE", "Kiel", "Holstein")
        assert rest["geo"] == {"country": "Germany"}
        assert (rest["view"]["url_host"], rest["view"]["url_scheme"]) == ("127.0.0.1", "http")
        assert "view_url" in found
        assert rest["session"]["useragent"].startswith("Mozilla/5.0")
        assert "ip" not in rest["session"]
        assert ("action_name" in found) == (kind == "action")
    if name == "browser_plain":
        names = {e["action_name"] for e in taken if e["type"] == "action"}
        assert {"Click on Buy now", "Click on Add to cart", "checkout"} <= names
        mine = [e for e in taken if e.get("user_id") == "user-1"]
        assert {(e["user_email"], e["account_id"], e["rest"]["usr"]["plan"]) for e in mine} == {
            ("jane@example.com", "acct-1", "pro")
        }
        assert Counter(e["type"] for e in taken) == types


def test_the_same_batch_twice_gives_the_same_identities() -> None:
    for came in recorded("browser_plain"):
        first, again = (run(came).lines for _ in range(2))
        assert first == again
        assert not any(b'"fresh"' in text for text in first)


def test_identity() -> None:
    bare = json.dumps(event(x=1)).encode()
    batch = take(
        event("view", view={"id": "v"}, _dd={"document_version": 3}),
        event("view", view={"id": "v"}),
        event("view_update", view={"id": "v"}, _dd={"document_version": 4}),
        event("action", action={"id": "a"}, view={"id": "v"}),
        event("vital", vital={"id": "t"}),
        event("error", error={"message": "no id"}),
        event("resource", resource={"id": 5}),
        bare,
    )
    found = [json.loads(text) for text in batch.lines]
    assert [(e["k"], e.get("v")) for e in found[:5]] == [
        ("view:v", 3),
        ("view:v", 0),
        ("view_update:v:4", 4),
        ("action:a", None),
        ("vital:t", None),
    ]
    assert found[2]["type"], found[2]["view_id"] == ("view_update", "v")
    assert all(e["k"].startswith("sha:") for e in found[5:])
    assert found[7]["k"] == f"sha:{sha256(bare).hexdigest()}"


@pytest.mark.parametrize(
    ("date", "received", "batch", "more", "expected"),
    [
        (-5000, 0, 0, {}, -5000),
        (-5000, 59_000, 0, {}, -5000),
        (-5000, 90_400, 0, {}, 85_000),
        (-5000, -3_600_600, 0, {}, -3_605_600),
        (-5000, -40_123, 0, {}, -45_123),
        (0, -1, 0, {}, -1),
        (-5000, 0, None, {}, -5000),
        (10_000, 0, 0, {}, 0),
        (-5000, 90_000, 0, {"type": "resource", "_dd": {"drift": -2000}}, 83_000),
        (-5000, 0, 0, {"type": "resource", "_dd": {"drift": -2000}}, -5000),
        (90_000, 0, 0, {"type": "long_task", "_dd": {"drift": -120_000}}, -30_000),
        (-5000, 0, 0, {"type": "resource", "_dd": {"drift": 7_200_000}}, -5000),
        (-5000, 0, 0, {"_dd": {"drift": -7_200_000}}, -5000),
        (-5000, 0, 0, {"type": "resource", "_dd": {"drift": "soon"}}, -5000),
    ],
)
def test_the_clock_of_the_sender(
    date: int, received: int, batch: int | None, more: dict[str, Any], expected: int
) -> None:
    """All in milliseconds from one moment."""
    batch_ms = None if batch is None else NOW_MS + batch
    found = line(event() | {"date": NOW_MS + date} | more, received_ms=NOW_MS + received, batch_ms=batch_ms)
    assert found["time"] == NOW_MS + expected


def test_a_clock_that_is_ahead_keeps_the_order() -> None:
    """The last view names the user of a session: it must not move to where an earlier one is."""
    sent = [event("view", view={"id": str(n)}) | {"date": NOW_MS + 20_000 + n} for n in range(5)]
    batch = take(*sent, batch_ms=NOW_MS + 20_010)
    assert [json.loads(text)["time"] - NOW_MS for text in batch.lines] == [-10, -9, -8, -7, -6]
    later = line(sent[1], batch_ms=NOW_MS + 23_010, received_ms=NOW_MS + 3000)
    assert later["time"] == NOW_MS - 9, "a later version of a view does not move it"


@pytest.mark.parametrize("written", [3, 3.0, "3", "3.0"])
def test_a_version_is_a_number_however_it_is_written(written: Any) -> None:
    said = {"view": {"id": "v"}, "_dd": {"document_version": written}}
    assert line(event("view", **said))["v"] == 3
    assert line(event("view_update", **said))["k"] == "view_update:v:3"


def test_a_clock_that_starts_in_1970_is_put_right() -> None:
    found = line(event() | {"date": 50_000}, batch_ms=60_000)
    assert found["time"] == NOW_MS - 10_000


def test_an_action_gets_a_name() -> None:
    def name(**action: Any) -> Any:
        return line(event("action", action=action)).get("action_name")

    assert name(type="custom", target={"name": "checkout"}) == "checkout"
    assert name(type="click", target={"name": "Buy"}) == "Click on Buy"
    assert name(type="tap", target={"name": "log_in"}) == "tap on log_in"
    assert name(type="back") == "back"
    assert name(type="click", target={"name": 5}) == "click"
    assert name(type="click", target="x", name="own") == "own"
    assert name(target={"name": "Buy"}) == "Buy"
    assert name() is None
    assert "action_name" not in line(event("error", action={"type": "click", "target": {"name": "x"}}))


def test_tags_fill_what_the_event_does_not_say() -> None:
    found = line(event(ddtags="env:a,version:", version="2"), tags="env:b,service:s,version:9,retry_count:1")
    assert (found["env"], found["service"], found["version"]) == ("a", "s", "2")


def test_what_the_event_says_itself_wins() -> None:
    own = event(
        source="react-native",
        os={"name": "iOS", "version": "18"},
        device={"type": "mobile", "model": "iPhone16,1"},
        geo={"country": "Chile"},
        session={"id": "s", "useragent": "mine", "ip": "::1"},
        view={"url": "https://a.b/c", "url_path": "mine"},
    )
    found = line(own, user_agent=CHROME, place=PLACE, peer="192.0.2.1", keep_ip=True)
    assert "browser_name" not in found
    assert (found["os_name"], found["os_version"], found["device_type"]) == ("iOS", "18", "mobile")
    assert found["rest"]["device"] == {"model": "iPhone16,1"}
    assert found["rest"]["geo"] == {"country": "Chile"}
    assert "country_code" not in found
    assert found["rest"]["session"] == {"useragent": "mine", "ip": "::1"}
    assert found["rest"]["view"] == {
        "url_path": "mine",
        "url_path_group": "/c",
        "url_host": "a.b",
        "url_scheme": "https",
    }


@pytest.mark.parametrize(
    ("said", "source"),
    [
        ({"source": "browser", "container": {"source": "ios", "view": {"id": "v"}}}, "browser"),
        ({"source": "browser"}, "android"),
        ({"container": {"source": "android"}}, ""),
        ({"source": "ios"}, "browser"),
    ],
)
def test_a_page_in_an_app_takes_no_browser_and_no_device_of_the_app(said: dict[str, Any], source: str) -> None:
    for agent in (CHROME, "Dalvik/2.1.0 (Linux; U; Android 14; Pixel 8 Build/UD1A)"):
        found = line(event(**said), source=source, user_agent=agent)
        assert not {"browser_name", "browser_version", "device_type"} & set(found)
        assert not {"browser", "device"} & set(found["rest"])


@pytest.mark.parametrize("container", [None, "ios", {"source": 5}, {"source": "browser"}])
def test_a_page_in_a_page_takes_both(container: Any) -> None:
    found = line(event(source="browser", container=container), source="browser", user_agent=CHROME)
    assert (found["browser_name"], found["device_type"]) == ("Chrome", "desktop")


def test_the_address_is_kept_only_when_wanted() -> None:
    assert "session" not in line(event(), peer="192.0.2.1").get("rest", {})
    assert line(event(), peer="192.0.2.1", keep_ip=True)["rest"]["session"] == {"ip": "192.0.2.1"}


def test_a_device_is_completed() -> None:
    found = line(event("view", view={"id": "v"}, device={"locale": "de"}), user_agent=CHROME)
    assert (found["device_type"], found["rest"]["device"]) == ("desktop", {"locale": "de"})


def test_events_may_be_an_array_or_written_over_lines() -> None:
    both = [event("action", action={"id": "a"}), event("action", action={"id": "b"})]
    for body in (json.dumps(both).encode(), json.dumps(both, indent=1).encode()):
        assert [json.loads(x)["k"] for x in take(body).lines] == ["action:a", "action:b"]
    assert take(json.dumps(both[0], indent=1).encode()).accepted == 1
    assert take(b"").lines == take(b" \n\r\n").lines == []
