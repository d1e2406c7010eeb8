"""What the intake took and what it did not can be looked at, and the latter run anew, exactly once."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from inside import CALLER, Inside, inside
from roster.base.errors import Code, Error
from roster.http.intake_metrics import IntakeCollector
from roster.intake.reasons import Reason
from roster.operations import intake, intake_samples


@pytest.fixture
def product(tmp_path: Path) -> Iterator[Inside]:
    with inside(tmp_path, [("u1", "a@b.c")]) as made:
        yield made


def send(product: Inside, *events: Any, **query: str) -> None:
    lines = [e if isinstance(e, bytes) else json.dumps(e).encode() for e in events]
    intake.submit_rum(product.context, replace(product.request(**query), body=b"\n".join(lines)))


def rejected(product: Inside, **query: str) -> list[dict[str, Any]]:
    request = replace(product.request(), query={name: [value] for name, value in query.items()})
    found: list[dict[str, Any]] = intake_samples.list_rejected(product.context, request).body["data"]
    return found


def received(product: Inside) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = intake_samples.list_received(product.context, product.request()).body["data"]
    return found


def replay(product: Inside, body: Any = None) -> dict[str, Any]:
    answer: dict[str, Any] = intake_samples.replay_rejected(product.context, product.request(body)).body["data"]
    return answer["attributes"]


def now(product: Inside) -> int:
    return product.context.clock.now_ms()


def action(product: Inside, id: str, user: str, **more: Any) -> dict[str, Any]:
    return {"type": "action", "date": now(product), "action": {"id": id}, "usr": {"id": user}} | more


def test_both_are_listed(product: Inside) -> None:
    send(product, action(product, "a", "u2"), b'{"type":"x"}', b"nope", {"type": "telemetry"})
    (sample,) = received(product)
    assert sample["attributes"]["event"]["k"] == "action:a"
    assert (sample["attributes"]["track"], sample["attributes"]["key_id"]) == ("rum", CALLER.api_key_id)
    newest, oldest = rejected(product)
    assert (newest["attributes"]["reason"], newest["attributes"]["line"]) == ("not_json", "nope")
    assert (oldest["attributes"]["reason"], oldest["attributes"]["line"]) == ("bad_time", '{"type":"x"}')
    assert rejected(product, reason="bad_time") == [oldest]
    assert rejected(product, limit="1") == [newest]
    with pytest.raises(Error) as caught:
        rejected(product, reason="bad_tme")
    assert (caught.value.code, caught.value.hint) == (Code.INVALID, "did you mean 'bad_time' or 'bad_number'?")


def test_the_address_of_a_sender_is_not_kept_with_what_was_rejected(product: Inside) -> None:
    request = replace(product.request(), body=b'{"type":"x"}\n{}', headers={"x-roster-peer": "192.0.2.77"})
    intake.submit_rum(product.context, request)
    for path in (product.folder / "data" / "intake-rejected").iterdir():
        assert b"192.0.2.77" not in path.read_bytes()


def test_what_passes_now_is_stored_once_and_leaves_the_list(product: Inside) -> None:
    old = action(product, "old", "u-old") | {"date": now(product) - 500 * 86_400_000}
    send(product, old, b"nope", ddtags="env:prod")
    assert replay(product) == {"replayed": 0, "still_rejected": 2}
    held = product.product.intake
    product.product.context = replace(product.context, intake=replace(held, events_days=1000.0))
    assert replay(product, {"reason": "not_json"}) == {"replayed": 0, "still_rejected": 1}
    assert replay(product, {"reason": "too_old", "ids": ["other"]}) == {"replayed": 0, "still_rejected": 0}
    ids = [event["id"] for event in rejected(product, reason="too_old")]
    assert replay(product, {"ids": ids}) == {"replayed": 1, "still_rejected": 0}
    assert [event["attributes"]["line"] for event in rejected(product)] == ["nope"]
    product.product.applier.flush()
    assert "u-old" in product.values(["session_count"])


def test_a_server_is_told_and_its_bad_event_is_kept(product: Inside) -> None:
    good = {"type": "server", "application": {"id": "a"}, "event": {"name": "e"}, "usr": {"id": "u9"}}
    with pytest.raises(Error) as caught:
        intake.submit_product_analytics_event(product.context, product.request([good, good | {"usr": {}}]))
    assert caught.value.at == "/1/usr/id"
    (kept,) = rejected(product)
    assert (kept["attributes"]["reason"], kept["attributes"]["track"]) == ("no_owner", "prodlytics")
    assert json.loads(kept["attributes"]["line"])["usr"] == {}
    assert received(product) == []
    assert replay(product) == {"replayed": 0, "still_rejected": 1}
    intake.submit_product_analytics_event(product.context, product.request(good))
    assert received(product)[0]["attributes"]["track"] == "prodlytics"


def test_a_body_of_broken_lines_is_refused_and_kept_line_by_line(product: Inside) -> None:
    with pytest.raises(Error) as caught:
        send(product, b"one", b'{"two":', b"three")
    assert caught.value.code is Code.INVALID
    assert [kept["attributes"]["line"] for kept in rejected(product)] == ["three", '{"two":', "one"]
    counts = product.product.intake.tally.read()
    assert (counts.tracks["rum"].received, counts.tracks["rum"].rejected) == (3, 3)
    assert counts.reasons == {("rum", Reason.NOT_JSON): 3}
    assert (counts.steps["parse"].events, counts.steps["parse"].refused) == (3, 3)


def test_one_event_over_many_lines_counts_once(product: Inside) -> None:
    send(product, json.dumps(action(product, "a", "u2"), indent=1).encode())
    counts = product.product.intake.tally.read()
    assert (counts.tracks["rum"].received, counts.tracks["rum"].accepted) == (1, 1)
    assert (counts.steps["parse"].events, counts.steps["parse"].refused) == (1, 0)


@pytest.mark.parametrize(
    ("body", "code", "reason"),
    [
        (b'{"type": nope', Code.INVALID, Reason.NOT_JSON),
        (b'{"type":\n nope\n}', Code.INVALID, Reason.NOT_JSON),
        (b"[" + b"0," * 200_000 + b"0]", Code.TOO_LARGE, Reason.TOO_LARGE),
        (b" " * 6_000_000, Code.TOO_LARGE, Reason.TOO_LARGE),
        (b"[[[]]]", Code.INVALID, Reason.NOT_OBJECT),
    ],
    ids=["no JSON", "no lines", "too many", "too large", "no object"],
)
@pytest.mark.parametrize("track", ["prodlytics", "rum"])
def test_bodies_refused_as_a_whole_are_counted_by_reason_and_kept(
    product: Inside, track: str, body: bytes, code: Code, reason: Reason
) -> None:
    submit = intake.submit_rum if track == "rum" else intake.submit_product_analytics_event
    if (track == "rum" and reason is Reason.NOT_OBJECT) or body.isspace():
        track, submit = "prodlytics", intake.submit_product_analytics_event
    with pytest.raises(Error) as caught:
        submit(product.context, replace(product.request(), body=body))
    assert caught.value.code is code
    counts = product.product.intake.tally.read()
    total = counts.tracks[track]
    assert total.received == total.rejected == counts.reasons[track, reason] == len(rejected(product)) > 0
    assert {kept["attributes"]["reason"] for kept in rejected(product)} == {reason.value}


def test_a_server_event_older_than_events_are_kept_is_refused(product: Inside) -> None:
    good = {"type": "server", "application": {"id": "a"}, "event": {"name": "e", "id": "1"}, "usr": {"id": "u9"}}
    days = product.product.intake.events_days
    for age, is_taken in ((days - 1, True), (days + 1, False)):
        event = good | {"date": now(product) - int(age * 86_400_000)}
        request = product.request([event])
        if is_taken:
            intake.submit_product_analytics_event(product.context, request)
            continue
        with pytest.raises(Error) as caught:
            intake.submit_product_analytics_event(product.context, request)
        assert (caught.value.code, caught.value.reason, caught.value.at) == (Code.INVALID, "too_old", "/0/date")
    assert [kept["attributes"]["reason"] for kept in rejected(product)] == ["too_old"]
    assert replay(product) == {"replayed": 0, "still_rejected": 1}
    product.product.context = replace(product.context, intake=replace(product.product.intake, events_days=days + 2))
    assert replay(product) == {"replayed": 1, "still_rejected": 0}


def test_a_store_that_cannot_be_written_fails_no_event(product: Inside) -> None:
    (product.folder / "data" / "intake-rejected").write_text("in the way")
    send(product, action(product, "a", "u2"), b"nope")
    assert len(received(product)) == 1
    assert product.product.intake.tally.read().unkept == 1


def test_the_metrics_tell_of_it(product: Inside) -> None:
    send(product, action(product, "a", "u2"), b"nope", {"type": "telemetry"})
    intake.submit_replay(product.context, product.request())
    found = {
        (sample.name, *sample.labels.values()): sample.value
        for metric in IntakeCollector(product.product.intake.tally).collect()
        for sample in metric.samples
    }
    assert found["roster_intake_events_total", "rum", "accepted"] == 1
    assert found["roster_intake_events_total", "rum", "rejected"] == 1
    assert found["roster_intake_events_total", "rum", "dropped"] == 1
    assert found["roster_intake_refused_total", "replay", "replay"] == 1
    assert found["roster_intake_step_events_total", "parse"] == 3
    assert found["roster_intake_unkept_total",] == 0
