"""Wire events become canonical lines: what is lifted, kept, refused, and under which identity."""

from __future__ import annotations

import json
from itertools import count
from typing import Any

import pytest
from hypothesis import given, strategies as st

from roster.base.errors import Code, Error
from roster.intake.event import EVENT_BYTES_MAX, Batch, canonical_events, canonical_lines, instant_ms
from roster.intake.reasons import Reason
from roster.model.schema import EVENT_COLUMNS

NOW_MS = 1_790_000_000_123
GOOD = {"type": "server", "application": {"id": "app"}, "event": {"name": "paid"}, "usr": {"id": "u1"}}


def take(body: Any, key: str | None = None) -> Batch:
    ids = count(1)
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return canonical_events(raw, received_ms=NOW_MS, new_id=lambda: f"id-{next(ids)}", idempotency_key=key)


def lines(body: Any, key: str | None = None) -> list[Any]:
    return [json.loads(line) for line in take(body, key).lines]


def refused(body: Any) -> Error:
    with pytest.raises(Error) as caught:
        take(body)
    return caught.value


def test_a_server_event_is_lifted_and_nothing_is_dropped() -> None:
    wire = GOOD | {
        "date": 1_700_000_000_000,
        "usr": {"id": "u1", "email": "a@b.c", "plan": "pro"},
        "view": {"loading_time": 7.0, "time_spent": "long"},
        "customer": {"tier": "gold", "tags": ["x", None, 1.5]},
        "geo": {"city": 5},
    }
    assert lines(wire) == [
        {
            "fresh": True,
            "k": "id-1",
            "time": 1_700_000_000_000,
            "type": "server",
            "user_id": "u1",
            "user_email": "a@b.c",
            "loading_time": 7,
            "event_name": "paid",
            "application_id": "app",
            "rest": {
                "usr": {"plan": "pro"},
                "view": {"time_spent": "long"},
                "customer": {"tier": "gold", "tags": ["x", None, 1.5]},
                "geo": {"city": 5},
            },
        }
    ]


def test_hot_paths_have_one_key_or_two() -> None:
    """The lifting looks no deeper."""
    assert {c.path.count(".") for c in EVENT_COLUMNS} == {0, 1}


def test_one_event_an_array_and_ndjson_are_all_taken() -> None:
    text = json.dumps(GOOD).encode()
    assert take(text).accepted == 1
    assert take(json.dumps(GOOD, indent=2).encode()).accepted == 1
    assert take([GOOD, GOOD, GOOD]).accepted == 3
    assert take(text + b"\n\n" + text + b"\r\n").accepted == 2
    assert take([]).accepted == 0


@pytest.mark.parametrize(
    ("change", "at"),
    [
        ({"type": "view"}, "/type"),
        ({"type": None}, "/type"),
        ({"application": {}}, "/application/id"),
        ({"application": {"id": ""}}, "/application/id"),
        ({"application": {"id": True}}, "/application/id"),
        ({"application": "app"}, "/application/id"),
        ({"event": {}}, "/event/name"),
        ({"event": {"name": 5}}, "/event/name"),
        ({"event": {"name": "x", "id": 1.5}}, "/event/id"),
        ({"usr": {}}, "/usr/id"),
        ({"usr": {"id": ""}}, "/usr/id"),
        ({"usr": {"id": ["u1"]}}, "/usr/id"),
        ({"account": {"id": {}}}, "/account/id"),
        ({"date": "yesterday"}, "/date"),
        ({"date": True}, "/date"),
        ({"date": 10**18}, "/date"),
        ({"timestamp": -1}, "/timestamp"),
    ],
)
def test_a_bad_event_is_refused_with_its_place(change: dict[str, Any], at: str) -> None:
    error = refused(GOOD | change)
    assert (error.code, error.at) == (Code.INVALID, at)
    error = refused([GOOD, GOOD | change])
    assert (error.code, error.at) == (Code.INVALID, "/1" + at)
    error = refused(b"\n".join(json.dumps(event).encode() for event in (GOOD, GOOD, GOOD | change)))
    assert (error.code, error.at) == (Code.INVALID, "/2" + at)


@pytest.mark.parametrize(
    ("body", "at"),
    [
        (b"", ""),
        (b"  \n ", ""),
        (b'{"a":1,}', ""),
        (b'{"a":\n1,\n}', ""),
        (b'{"a":NaN}', ""),
        (b'{"a":1e400}', ""),
        (b'{"a":"\xff"}', ""),
        (b"5", ""),
        (b'[{"type":"server"},3]', "/0/application/id"),
        (json.dumps([GOOD, 3]).encode(), "/1"),
        (json.dumps(GOOD).encode() + b"\n{nope", "/1"),
        (b"[" * 100_000, ""),
    ],
)
def test_what_is_no_json_object_is_refused(body: bytes, at: str) -> None:
    error = refused(body)
    assert (error.code, error.at) == (Code.INVALID, at)


def test_limits_hold() -> None:
    nested: Any = 1
    for _ in range(31):
        nested = [nested]
    assert lines(GOOD | {"x": nested})[0]["rest"]["x"] == nested
    assert "32 levels" in refused(GOOD | {"x": [nested]}).message
    assert str(EVENT_BYTES_MAX) in refused(GOOD | {"x": "y" * EVENT_BYTES_MAX}).message
    assert refused(GOOD | {"x": int("9" * 400)}).code is Code.INVALID
    assert refused(b" " * (5 * 1024 * 1024 + 1)).code is Code.TOO_LARGE


def test_ids_may_be_integers_and_become_text() -> None:
    ids = {"application": {"id": 1}, "usr": {"id": 42}, "account": {"id": 7}, "session": {"id": 0}}
    (line,) = lines(GOOD | ids)
    assert (line["application_id"], line["user_id"], line["account_id"], line["session_id"]) == ("1", "42", "7", "0")
    (line,) = lines(GOOD | {"usr": {"id": ""}, "account": {"id": "a"}})
    assert "user_id" not in line
    assert line["rest"] == {"usr": {"id": ""}}


def test_identity_is_the_event_id_else_the_idempotency_key_else_fresh() -> None:
    own = GOOD | {"event": {"name": "paid", "id": "e1"}}
    assert [(line["k"], line.get("fresh")) for line in lines([GOOD, own])] == [("id-1", True), ("e1", None)]
    assert [(line["k"], line.get("fresh")) for line in lines([GOOD, own], "key")] == [("key/0", None), ("e1", None)]


def test_cut_surrogates_are_repaired_and_whole_ones_kept() -> None:
    body = json.dumps(GOOD)[:-1].encode() + rb', "a":"x\ud83d", "b":"\ude00y", "c":"\ud83d\ude00", "d":"\\ud83d"}'
    assert lines(body)[0]["rest"] == {"a": "x\ufffd", "b": "\ufffdy", "c": "\U0001f600", "d": "\\ud83d"}


def test_odd_numbers_and_names_are_written_so_that_readers_agree() -> None:
    (line,) = lines(GOOD | {"big": 10**30, "wide": 2**64 - 1, "n\0ul": "a\0b"})
    assert line["rest"] == {"big": 1e30, "wide": 2**64 - 1, "n\ufffdul": "a\0b"}


@pytest.mark.parametrize(
    ("value", "at_ms"),
    [
        (1_732_400_000_123, 1_732_400_000_123),
        (1_732_400_000_123.9, 1_732_400_000_123),
        (1_732_400_000, 1_732_400_000_000),
        ("1732400000123", 1_732_400_000_123),
        ("2024-11-23T22:13:20.123Z", 1_732_400_000_123),
        ("2024-11-24T00:13:20.123999+02:00", 1_732_400_000_123),
        ("2024-11-23 22:13:20", 1_732_400_000_000),
        ("2024-11-23", 1_732_320_000_000),
        ("1969-12-31", None),
        ("", None),
        ("soon", None),
        (None, None),
        ([], None),
        (253_402_300_800_000, None),
    ],
)
def test_times_are_read(value: Any, at_ms: int | None) -> None:
    assert instant_ms(value) == at_ms


def test_the_time_of_arrival_is_the_default() -> None:
    assert lines(GOOD)[0]["time"] == NOW_MS
    assert lines(GOOD | {"timestamp": "2024-11-23"})[0]["time"] == 1_732_320_000_000
    (line,) = lines(GOOD | {"date": 1_732_400_000_123, "timestamp": 5})
    assert (line["time"], line["rest"]) == (1_732_400_000_123, {"timestamp": 5})


def rum(*events: dict[str, Any]) -> Batch:
    return canonical_lines([json.dumps(event).encode() for event in events], spare_key=lambda row: f"row-{row}")


def test_sdk_events_are_identified_by_what_they_tell_of() -> None:
    batch = rum(
        {"type": "action", "date": 1, "action": {"id": "a", "target": {"name": "t"}}},
        {"type": "error", "date": 1, "error": {"id": "e"}, "action": {"id": ["a", "b"]}},
        {"type": "view", "date": 1, "view": {"id": "v", "url": "/"}, "_dd": {"document_version": 4}},
        {"type": "view", "date": 1, "view": {"id": "v"}},
        {"type": "resource", "date": 1, "resource": {}},
        {"type": "server", "date": 1, "event": {"id": "s"}},
    )
    found = [json.loads(line) for line in batch.lines]
    assert [(line["k"], line.get("v")) for line in found] == [
        ("action:a", None),
        ("error:e", None),
        ("view:v", 4),
        ("view:v", 0),
        ("row-4", None),
        ("s", None),
    ]
    assert found[0]["rest"] == {"action": {"id": "a", "target": {"name": "t"}}}
    assert found[0]["action_name"] == "t"
    assert found[2]["rest"] == {"_dd": {"document_version": 4}, "view": {"url_path": "/", "url_path_group": "/"}}
    assert found[2]["view_id"] == "v"


def test_bad_lines_are_told_from_good_ones() -> None:
    batch = canonical_lines(
        [b'{"type":"x","date":1}', b"nope", b'{"date":1}', b'{"type":"x"}'], spare_key=str, first=10
    )
    assert batch.accepted == 1
    assert [(r.index, r.reason, r.error.at, r.line) for r in batch.rejected[1:]] == [
        (12, Reason.NO_TYPE, "/type", b'{"date":1}'),
        (13, Reason.BAD_TIME, "/date", b'{"type":"x"}'),
    ]
    assert (batch.rejected[0].index, batch.rejected[0].reason) == (11, Reason.NOT_JSON)


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text().filter(lambda k: "\0" not in k), inner, max_size=3)
    ),
    max_leaves=8,
)
paths = [c.path for c in EVENT_COLUMNS if c.path not in ("date", "type", "event.id")]


@given(st.dictionaries(st.sampled_from(paths) | st.text("abc", min_size=1, max_size=2), values, max_size=6))
def test_lifting_loses_nothing(flat: dict[str, Any]) -> None:
    """Putting the columns back where they came from gives the wire event, ids as text."""
    wire: dict[str, Any] = {"type": "custom", "date": 1_700_000_000_000}
    for path, value in flat.items():
        head, _, tail = path.partition(".")
        if not tail:
            wire[head] = value
        elif isinstance(wire.setdefault(head, {}), dict):
            wire[head][tail] = value
    line = json.loads(rum(wire).lines[0])
    back = line.get("rest", {})
    for column in EVENT_COLUMNS:
        if column.name in line:
            head, _, tail = column.path.partition(".")
            if tail:
                back.setdefault(head, {})[tail] = line[column.name]
            else:
                back[head] = line[column.name]
    back["date"] = line["time"]
    if isinstance(back.get("view"), dict):
        back["view"] = {key: value for key, value in back["view"].items() if not key.startswith("url_")}
    assert textual(back) == textual(wire)


def textual(value: Any, key: str = "") -> Any:
    """Ids as text, numbers by their value."""
    if isinstance(value, dict):
        return {k: textual(v, k) for k, v in value.items()}
    if key in ("id", "anonymous_id") and isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return value
