"""What is not taken and why: every reason, hostile bodies, and that nothing but a Batch or an Error comes out."""

from __future__ import annotations

import json
import tracemalloc
from typing import Any

import pytest
from hypothesis import given, strategies as st

from roster.base.errors import Code, Error
from roster.intake import texts
from roster.intake.decode import SDK_STEPS, Batch, run_steps
from roster.intake.event import canonical_events, server_events
from roster.intake.reasons import DROPPED, Reason
from roster.intake.steps import KEYS_MAX, Draft, Origin
from roster.intake.tally import Tally
from roster.intake.texts import EVENTS_MAX
from roster.model.schema import EVENT_COLUMNS
from sdk_events import DAY_MS, NOW_MS, event, line, take

GOOD = json.dumps(event("action", action={"id": "good"})).encode()
SDK_REASONS = [
    (b"nope", Reason.NOT_JSON),
    (b'{"type":"x","a":NaN}', Reason.NOT_JSON),
    (b'{"type":"x","a":Infinity}', Reason.NOT_JSON),
    (b'{"type":"x","a":1e999}', Reason.NOT_JSON),
    (b'{"type":"x","a":"\xff\xfe"}', Reason.NOT_JSON),
    (b'{"type":"x","a":' + b"9" * 5000 + b"}", Reason.NOT_JSON),
    (b"[1]", Reason.NOT_OBJECT),
    (b'"text"', Reason.NOT_OBJECT),
    (b'{"type":"x","date":1795426700000,"a":"' + b"y" * 1_000_000 + b'"}', Reason.TOO_LARGE),
    (b'{"type":"x","date":1795426700000,"a":' + b"[" * 40 + b"]" * 40 + b"}", Reason.TOO_DEEP),
    (b'{"type":"x","a":' + b"[" * 400_000 + b"]" * 400_000 + b"}", Reason.TOO_DEEP),
    (b'{"type":"x","date":1795426700000,"a":' + b"9" * 400 + b"}", Reason.BAD_NUMBER),
    (json.dumps(event(**{f"k{n}": n for n in range(50_000)})).encode(), Reason.TOO_MANY_KEYS),
    (json.dumps(event(a=[{"b": 1, "c": 2} for _ in range(KEYS_MAX)])).encode(), Reason.TOO_MANY_KEYS),
    (b'{"date":1795426700000}', Reason.NO_TYPE),
    (b'{"type":"","date":1795426700000}', Reason.NO_TYPE),
    (json.dumps(event("view_update", view={"id": "v"}, _dd={"document_version": "x3"})).encode(), Reason.NO_ID),
    (json.dumps(event("view_update", view={"id": "v"}, _dd={"document_version": 3.5})).encode(), Reason.NO_ID),
    (b'{"type":["view"],"date":1795426700000}', Reason.NO_TYPE),
    (json.dumps(event("view", view={"url": "/"})).encode(), Reason.NO_ID),
    (json.dumps(event("view", view={"id": {}})).encode(), Reason.NO_ID),
    (json.dumps(event("view", view={"id": "x" * 1000})).encode(), Reason.NO_ID),
    (json.dumps(event("view_update", view={"id": "v"})).encode(), Reason.NO_ID),
    (json.dumps(event("view_update", view={"id": "v"}, _dd={"document_version": True})).encode(), Reason.NO_ID),
    (b'{"type":"x"}', Reason.BAD_TIME),
    (b'{"type":"x","date":"soon"}', Reason.BAD_TIME),
    (b'{"type":"x","date":-1}', Reason.BAD_TIME),
    (b'{"type":"x","date":1e300}', Reason.BAD_TIME),
    (json.dumps(event() | {"date": NOW_MS - 458 * DAY_MS}).encode(), Reason.TOO_OLD),
    (json.dumps(event("session", session={"id": "s"})).encode(), Reason.SESSION),
    (json.dumps(event("telemetry", telemetry={})).encode(), Reason.TELEMETRY),
]


@pytest.mark.parametrize(("text", "reason"), SDK_REASONS, ids=lambda v: v.value if isinstance(v, Reason) else "")
def test_one_bad_line_is_told_and_fails_no_other(text: bytes, reason: Reason) -> None:
    batch = take(GOOD, text, GOOD)
    assert batch.accepted == 2
    assert batch.reasons() == {reason: 1}
    if reason not in DROPPED:
        (rejected,) = batch.rejected
        assert (rejected.index, rejected.line, rejected.reason) == (1, text, reason)
        assert rejected.text


def server_reason(text: bytes) -> Reason:
    batch, error = server_events(text, Origin(NOW_MS), new_id=lambda: "id")
    assert error is not None
    assert batch.lines == []
    return batch.rejected[0].reason


def test_every_reason_has_a_test() -> None:
    """`replay` is counted where recordings arrive, `internal` and `misplaced` below and with the files."""
    server: dict[str, Any] = {"type": "server", "application": {"id": "a"}, "event": {"name": "e"}, "usr": {"id": "u"}}
    bad = [server | {"event": {}}, server | {"usr": {}}, server | {"application": {}}, server | {"type": "view"}]
    found = {server_reason(json.dumps(e).encode()) for e in bad}
    assert found == {Reason.NO_NAME, Reason.NO_OWNER, Reason.NO_ID, Reason.NO_TYPE}
    here = {reason for _, reason in SDK_REASONS}
    assert set(Reason) - here - found == {Reason.REPLAY, Reason.INTERNAL, Reason.MISPLACED}


def test_a_fault_of_ours_costs_one_event_and_is_told() -> None:
    def fail(draft: Draft) -> None:
        if draft.index == 1:
            raise ZeroDivisionError

    drafts = [Draft(n, GOOD, {}, origin=Origin(NOW_MS)) for n in range(3)]
    run_steps(drafts, (*SDK_STEPS, fail))
    assert [d.error and (d.error.reason, d.error.code) for d in drafts] == [
        None,
        (Reason.INTERNAL, Code.INTERNAL),
        None,
    ]


@pytest.mark.parametrize("body", [b"nope", b"no\npe\n", b"\xff\xfe\x00", b"{", b"[1,"])
def test_a_body_without_any_json_is_refused(body: bytes) -> None:
    with pytest.raises(Error) as caught:
        take(body)
    assert caught.value.code is Code.INVALID


def test_json_that_is_no_event_is_only_rejected() -> None:
    assert take(b"5").reasons() == take(b"[5]").reasons() == {Reason.NOT_OBJECT: 1}
    assert take(b"5\n6\nnope").reasons() == {Reason.NOT_OBJECT: 2, Reason.NOT_JSON: 1}


@pytest.mark.parametrize("body", [b"1\n" * (EVENTS_MAX + 1), b"[" + b"1," * EVENTS_MAX + b"1]"])
def test_a_body_holds_a_bounded_number_of_events(body: bytes) -> None:
    with pytest.raises(Error) as caught:
        take(body)
    assert caught.value.code is Code.TOO_LARGE


def test_what_stands_inside_of_events_is_no_number_of_events() -> None:
    inner = [{"state": "x,[{", "at": [0, 1, '"', "\\"]}] * 9_000
    sent = [event("action", action={"id": str(n)}, a=[0] * 60_000, b=inner[:2000], c="," * 60_000) for n in range(3)]
    assert take(json.dumps(sent).encode()).accepted == 3
    assert take(json.dumps(sent, indent=1).encode()).accepted == 3


@pytest.mark.parametrize("element", [b"{}", b"[]", b"0", b'"a"', b'{"a":[{},{"b":"]},{"}]}'])
def test_a_hostile_array_is_refused_before_its_values_fill_the_memory(element: bytes) -> None:
    body = b"[" + b",".join([element] * (5_000_000 // (len(element) + 1))) + b"]"
    for judge in (lambda: take(body), lambda: canonical_events(body, received_ms=NOW_MS, new_id=lambda: "id")):
        tracemalloc.start()
        with pytest.raises(Error) as caught:
            judge()
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert (caught.value.code, caught.value.reason) == (Code.TOO_LARGE, Reason.TOO_LARGE)
        assert peak < 4 * len(body)


def test_odd_texts_are_taken_as_readers_agree() -> None:
    text = json.dumps(event(a={"n\0ul": "a\0b", "big": 10**30, "cut": 0}))[:-1].encode() + rb',"b":"x\ud83d"}'
    assert line(text)["rest"] == {"a": {"n\ufffdul": "a\0b", "big": 1e30, "cut": 0}, "b": "x\ufffd"}
    deep: Any = 1
    for _ in range(31):
        deep = {"a": deep}
    assert line(event(x=deep))["rest"]["x"] == deep
    assert line(event(x="{" * 5000))["rest"]["x"] == "{" * 5000


WRONG = [None, True, 5, -1.5, "", "x\0y", [], [1], {}, {"id": {"id": 1}}, 2**70]


@pytest.mark.parametrize("wrong", WRONG, ids=repr)
def test_wrong_types_in_every_lifted_place_are_kept_where_they_were(wrong: Any) -> None:
    for column in EVENT_COLUMNS:
        head, _, key = column.path.partition(".")
        if head in ("date", "type"):
            continue
        for value in ({key: wrong} if key else wrong, wrong):
            batch = take(event(**{head: value}), user_agent="Mozilla/5.0", tags="env:a", peer="::1", keep_ip=True)
            assert isinstance(json.loads(batch.lines[0]), dict)
    for place in ("_dd", "ddtags", "source", "context", "session", "device"):
        for kind in ("view", "action", "x"):
            sent = event(kind, **{kind: {"id": "i", "target": wrong}} | {place: wrong})
            assert take(sent, user_agent="Mozilla/5.0", keep_ip=True, peer="::1").accepted == 1


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=8,
)
heads = sorted({c.path.partition(".")[0] for c in EVENT_COLUMNS} | {"_dd", "ddtags", "source", "context"})
keys = st.sampled_from(sorted({c.path.rpartition(".")[2] for c in EVENT_COLUMNS} | {"target", "useragent", "drift"}))
events = st.dictionaries(
    st.sampled_from(heads) | st.text(max_size=3), values | st.dictionaries(keys, values, max_size=4), max_size=6
).map(lambda e: {"type": "view", "date": NOW_MS} | e)


@given(st.lists(events | values | st.binary(max_size=20), max_size=4))
def test_nothing_but_a_batch_or_an_error_comes_out(sent: list[Any]) -> None:
    texts = [e if isinstance(e, bytes) else json.dumps(e).encode() for e in sent]
    for facts in ({}, {"batch_ms": 1, "user_agent": "x", "tags": "env:\0", "peer": "p", "keep_ip": True}):
        try:
            batch = take(*texts, **facts)
        except Error as error:
            assert error.code is Code.INVALID
            continue
        assert isinstance(batch, Batch)
        assert Reason.INTERNAL not in batch.reasons()
        assert all(json.loads(text)["k"] for text in batch.lines)


@given(st.lists(events, max_size=3))
def test_the_same_batch_twice_gives_the_same_keys(sent: list[Any]) -> None:
    texts = [json.dumps(e).encode() for e in sent]
    try:
        assert take(*texts).lines == take(*texts).lines
    except Error as error:
        assert error.code is Code.INVALID


def test_steps_are_counted_and_timed_once_a_batch() -> None:
    ticks = iter(range(10_000))
    tally = Tally(lambda: float(next(ticks)))
    drafts = [Draft(n, text, {}, origin=Origin(NOW_MS)) for n, text in enumerate((GOOD, b"nope", GOOD, b"{}"))]
    run_steps(drafts, SDK_STEPS, tally)
    found = tally.read().steps
    assert list(found) == [step.__name__ for step in SDK_STEPS]
    assert [(found[n].events, found[n].refused, found[n].seconds) for n in ("parse", "check_type", "encode")] == [
        (4, 1, 1.0),
        (3, 1, 1.0),
        (2, 0, 1.0),
    ]
    tally.add("rum", 2, {Reason.NOT_JSON: 1, Reason.TELEMETRY: 2})
    totals = tally.read().tracks["rum"]
    assert (totals.received, totals.accepted, totals.rejected, totals.dropped) == (5, 2, 1, 2)


strings = st.sampled_from(["", 'a,"[{\\', '\\\\"', "é\n,", "]}"])
trees = st.recursive(
    st.none() | st.integers(0, 9) | strings,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(strings, inner, max_size=4),
    max_leaves=12,
)


@given(st.lists(trees, min_size=1, max_size=9), st.sampled_from([None, 1]), st.booleans())
def test_elements_are_counted_in_the_text_as_they_are(values: list[Any], indent: int | None, ascii: bool) -> None:
    body = json.dumps(values, indent=indent, ensure_ascii=ascii).encode()
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(texts, "EVENTS_MAX", 4)
        patched.setattr(texts, "_CHUNK_BYTES", 7)
        try:
            assert [json.loads(text) for text in texts.split(body)] == values
            assert len(values) <= 4
        except Error as error:
            assert error.code is Code.TOO_LARGE
            assert len(values) > 4
