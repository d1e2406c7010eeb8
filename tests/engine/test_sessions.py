"""Rows of sessions equal a plain-Python model of their events, however these came; partial views come to whole ones."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st
from structlog.testing import capture_logs

from roster.base.time import epoch_ms
from roster.engine import view_updates
from roster.engine.connection import Duck, DuckLimits
from roster.engine.events import DuckEvents
from roster.engine.view_updates import PARTS_MAX
from roster.intake.steps import EVENT_BYTES_MAX, KEYS_MAX

START_MS = 1_700_000_000_000
MINUTE_MS = 60_000
Event = dict[str, Any]


class Engine:
    """Events on a database of their own."""

    def __init__(self, folder: Path) -> None:
        self.duck = Duck(folder / "roster.duckdb", DuckLimits("500MB", 1, "1GB"))
        self.events = DuckEvents(self.duck, lambda *_: None)
        self._folder = folder
        self._number = 0

    def apply(self, *events: Event) -> None:
        self._number += 1
        path = self._folder / "segment.ndjson"
        path.write_text("".join(json.dumps(event) + "\n" for event in events))
        self.events.apply_segment(self._number, path)

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        connection = self.duck.cursor()
        try:
            return connection.execute(sql).fetchall()
        finally:
            connection.close()

    def clear(self) -> None:
        with self.duck.write() as connection:
            for (name,) in self.rows("SELECT table_name FROM duckdb_tables() WHERE NOT temporary"):
                connection.execute(f'DELETE FROM "{name}"')
        self._number = 0

    def sessions(self, now_ms: int = START_MS) -> dict[str, dict[str, Any]]:
        self.events.settle(now_ms)
        rows = self.rows(
            "SELECT session_id, time, user_id, resolved_user_id, anonymous_id, city, rest::JSON::VARCHAR, event_id "
            "FROM events WHERE type = 'session'"
        )
        found = {}
        for session, time, user, resolved, anonymous, city, rest, event_id in rows:
            assert event_id == f"session:{session}" and session not in found
            own = {"time": epoch_ms(time), "user_id": user, "resolved": resolved, "anonymous_id": anonymous}
            said = json.loads(rest)
            found[session] = own | {"city": city} | said.pop("session") | {"said": said}
        return found


@pytest.fixture(scope="module")
def opened() -> Iterator[Engine]:
    with tempfile.TemporaryDirectory() as folder:
        engine = Engine(Path(folder))
        yield engine
        engine.duck.close()


@pytest.fixture
def engine(opened: Engine) -> Engine:
    opened.clear()
    return opened


def view(id: str, version: int = 1, *, at: int = 0, session: str = "s", rest: Any = None, **columns: Any) -> Event:
    said = {"_dd": {"document_version": version}} | (rest or {})
    event = {"k": f"view:{id}", "v": version, "type": "view", "view_id": id, "time": START_MS + at}
    return event | {"session_id": session, "rest": said} | columns


def partial(id: str, version: int, *, at: int = 0, rest: Any = None, **columns: Any) -> Event:
    event = view(id, version, at=at, rest=rest, **columns)
    return event | {"k": f"view_update:{id}:{version}", "type": "view_update"}


OBJECTS = ("usr", "account", "geo", "device", "os", "browser")
moments = st.integers(0, 6).map(lambda n: n * 37 * MINUTE_MS)
optional = st.sampled_from([{}, {"user_id": "u1"}, {"user_id": "u2"}])
sdk_events = st.tuples(
    st.sampled_from(["view", "view", "action", "error", "resource", "long_task", "server"]),
    st.integers(0, 5),
    st.integers(1, 3),
    moments,
    st.sampled_from(["s1", "s2", None]),
    optional,
    st.sampled_from([{}, {"anonymous_id": "n1"}]),
    st.sampled_from([{}, {"city": "Rome"}, {"city": "Oslo"}]),
    st.sampled_from([0, 10, 90]),
    st.sampled_from([None, True, False]),
)


def made(drawn: tuple[Any, ...]) -> Event:
    kind, id, version, at, session, user, anonymous, city, minutes, is_active = drawn
    own = {"session_id": session} if session else {}
    common = {"time": START_MS + at} | own | user | anonymous | city
    if kind == "view":
        said: dict[str, Any] = (
            {"session": {"type": "user"}} if is_active is None else {"session": {"is_active": is_active}}
        )
        said |= {} if is_active is None else {name: {"of": id, "at": at} for name in OBJECTS[: id + 1]}
        spent = {"time_spent": minutes * MINUTE_MS * 1_000_000, "view_name": f"page {id}"}
        event = view(f"v{id}", version, rest=said)
        del event["session_id"]
        return event | spent | common
    frustration = {"rest": {"action": {"frustration": {"type": ["rage_click", "dead_click"][: id % 3]}}}}
    return {"k": f"{kind}:{id}", "type": kind} | (frustration if kind == "action" else {}) | common


def expected(events: list[Event], now_ms: int) -> dict[str, dict[str, Any]]:
    """The sessions of stored events."""
    claims = sorted((e["time"], e["user_id"]) for e in events if "anonymous_id" in e and "user_id" in e)
    found = {}
    for id in {e["session_id"] for e in events if "session_id" in e and e["type"] != "server"}:
        mine = [e for e in events if e.get("session_id") == id and e["type"] != "server"]
        mine.sort(key=lambda e: (e["time"], e["k"]))
        views = [e for e in mine if e["type"] == "view"]
        since = mine[0]["time"]
        until = max(e["time"] + (e["time_spent"] // 1_000_000 if e["type"] == "view" else 0) for e in mine)
        ended = any(e["rest"].get("session", {}).get("is_active") is False for e in views)
        last = views[-1] if views else {}
        resolved = last.get("user_id") or (claims[0][1] if claims and "anonymous_id" in last else None)
        counts = {
            name: {"count": sum(e["type"] == name for e in mine)}
            for name in ("view", "action", "error", "resource", "long_task")
        }
        frustrations = [len(e["rest"]["action"]["frustration"]["type"]) for e in mine if e["type"] == "action"]
        session = {
            "time": since,
            "user_id": last.get("user_id"),
            "resolved": resolved,
            "anonymous_id": last.get("anonymous_id"),
            "city": next((e["city"] for e in reversed(mine) if "city" in e), None),
            "time_spent": min(until - since, 240 * MINUTE_MS) * 1_000_000,
            "is_active": not ended and until > now_ms - 15 * MINUTE_MS and since > now_ms - 240 * MINUTE_MS,
            "said": {name: value for name, value in last.get("rest", {}).items() if name in OBJECTS},
            "has_replay": False,
            "frustration": {"count": sum(frustrations)},
        }
        if views:
            session["initial_view"] = {"id": views[0]["view_id"], "name": views[0]["view_name"]}
            session["last_view"] = {"id": last["view_id"], "name": last["view_name"]}
        if mine[0]["type"] == "view" and "type" in mine[0]["rest"].get("session", {}):
            session["type"] = "user"
        found[id] = session | counts
    return found


@settings(max_examples=20, deadline=None)
@given(st.lists(sdk_events, min_size=1, max_size=24), st.integers(1, 3), st.integers(0, 300))
def test_sessions_equal_the_model(opened: Engine, drawn: list[Any], portions: int, later: int) -> None:
    opened.clear()
    stored: dict[str, Event] = {}
    events = [made(one) for one in drawn]
    size = -(-len(events) // portions)
    for start in range(0, len(events), size):
        batch: dict[str, Event] = {}
        for event in events[start : start + size]:
            held = batch.get(event["k"])
            if held is None or event.get("v", 0) > held.get("v", 0):
                batch[event["k"]] = event
        for key, event in batch.items():
            if key not in stored or event.get("v", 0) > stored[key].get("v", 0):
                stored[key] = event
        opened.apply(*events[start : start + size])
        now_ms = START_MS + later * MINUTE_MS
        got = opened.sessions(now_ms)
        for session in got.values():
            assert session.pop("type", "user") == "user"
        wanted = expected(list(stored.values()), now_ms)
        for session in wanted.values():
            session.pop("type", None)
        assert got == wanted
    opened.events.rebuild_profiles()
    again = opened.sessions(now_ms)
    for session in again.values():
        session.pop("type", None)
    assert again == wanted


def test_a_session_ends_by_itself_when_nothing_comes(engine: Engine) -> None:
    engine.apply(view("a", time_spent=60 * 10**9))
    assert engine.sessions(START_MS + 2 * MINUTE_MS)["s"]["is_active"] is True
    assert engine.sessions(START_MS + 16 * MINUTE_MS + 1)["s"]["is_active"] is False


def test_a_session_ends_after_four_hours_whatever_comes(engine: Engine) -> None:
    minutes = 4 * 60
    engine.apply(*(view(f"v{n}", at=n * 10 * MINUTE_MS) for n in range(minutes // 10)))
    assert engine.sessions(START_MS + minutes * MINUTE_MS - 1)["s"]["is_active"] is True
    assert engine.sessions(START_MS + minutes * MINUTE_MS)["s"]["is_active"] is False
    engine.apply(view("late", at=minutes * MINUTE_MS))
    assert engine.sessions(START_MS + minutes * MINUTE_MS + 1)["s"]["is_active"] is False


def test_a_session_says_what_its_last_view_says(engine: Engine) -> None:
    first = {"usr": {"plan": "free", "since": 1}, "account": {"tier": "a"}, "os": {"version_major": "9"}}
    last = {
        "usr": {"plan": "pro", "roles": ["a", "b"], "none": None},
        "geo": {"country": "Chile"},
        "device": {"brand": "Apple"},
        "browser": {"version_major": "131"},
        "session": {"useragent": "Mozilla", "ip": "192.0.2.1"},
        "context": {"big": 1},
    }
    engine.apply(view("a", rest=first), view("b", at=1, rest=last), view("x", session="t", rest={"usr": 7}))
    action = {
        "k": "action:a",
        "type": "action",
        "time": START_MS + 2,
        "session_id": "s",
        "rest": {"usr": {"plan": "x"}},
    }
    engine.apply(action)
    found = engine.sessions()
    assert found["s"]["said"] == {
        "usr": {"plan": "pro", "roles": ["a", "b"]},
        **{name: last[name] for name in ("geo", "device", "browser")},
    }
    assert (found["s"]["useragent"], found["s"]["ip"]) == ("Mozilla", "192.0.2.1")
    assert found["t"]["said"] == {"usr": 7}
    engine.events.rebuild_profiles()
    assert engine.sessions() == found


def test_who_logged_out_before_the_last_view_is_not_the_sessions_user(engine: Engine) -> None:
    engine.apply(view("a", user_id="u", user_email="u@x"), view("b", at=MINUTE_MS))
    assert engine.sessions()["s"]["user_id"] is None
    engine.apply(view("c", at=2 * MINUTE_MS, user_id="w"))
    assert engine.sessions()["s"]["user_id"] == "w"


def test_the_parts_of_the_address_come_along(engine: Engine) -> None:
    said = {"view": {"url_path": "/dashboard/1", "url_path_group": "/dashboard/?", "referrer": "https://x"}}
    engine.apply(view("a", view_url="https://h/dashboard/1", rest=said))
    session = engine.sessions()["s"]
    assert session["initial_view"] == said["view"] | {"id": "a", "url": "https://h/dashboard/1"}
    assert session["referrer"] == "https://x"


def merged(engine: Engine) -> dict[str, Any]:
    """The one stored view, its columns and its rest."""
    rows = engine.rows("SELECT loading_time, user_id, user_email, rest::JSON::VARCHAR FROM events WHERE type = 'view'")
    ((loading_time, user, email, rest),) = rows
    assert engine.rows("SELECT count(*) FROM events WHERE type NOT IN ('view', 'session')") == [(0,)]
    return {"loading_time": loading_time, "user_id": user, "user_email": email} | json.loads(rest)


FIRST = view(
    "a", 1, user_id="u", user_email="u@x", loading_time=5, rest={"context": {"a": 1}, "view": {"action": {"count": 0}}}
)
SECOND = partial("a", 2, rest={"view": {"action": {"count": 1}}, "context": {"b": 2}})
THIRD = partial(
    "a", 3, loading_time=9, rest={"view": {"error": {"count": 1}}, "_dd": {"page_states": [{"state": "x"}]}}
)
FOURTH = partial("a", 4, user_id="w", rest={"_dd": {"document_version": 4, "page_states": [{"state": "y"}]}})


def with_version(event: Event) -> Event:
    said = {"document_version": event["v"]} | event["rest"].get("_dd", {})
    return event | {"rest": event["rest"] | {"_dd": said}}


PARTS = [with_version(part) for part in (FIRST, SECOND, THIRD, FOURTH)]
WHOLE = {
    "loading_time": 9,
    "user_id": "w",
    "user_email": None,
    "context": {"b": 2},
    "view": {"action": {"count": 1}, "error": {"count": 1}},
    "_dd": {"document_version": 4, "page_states": [{"state": "x"}, {"state": "y"}]},
}


@settings(max_examples=12, deadline=None)
@given(st.permutations(range(4)), st.lists(st.integers(0, 3), max_size=3), st.integers(1, 4))
def test_partial_views_come_to_the_same_in_any_order(
    opened: Engine, order: list[int], again: list[int], size: int
) -> None:
    opened.clear()
    sent = [PARTS[n] for n in (*order, *again)]
    for start in range(0, len(sent), size):
        opened.apply(*sent[start : start + size])
    assert merged(opened) == WHOLE
    assert opened.rows("SELECT events_count, user_id FROM users") == [(1, "w")]


def test_a_newer_whole_version_ends_the_parts(engine: Engine) -> None:
    engine.apply(*PARTS)
    engine.apply(with_version(view("a", 5, user_id="u", loading_time=7)))
    assert merged(engine)["loading_time"] == 7
    assert engine.rows("SELECT * FROM view_parts") == []
    engine.apply(PARTS[1])
    assert merged(engine)["loading_time"] == 7
    engine.apply(with_version(partial("a", 6, loading_time=8)))
    assert merged(engine) | {"_dd": None} == {"loading_time": 8, "user_id": "u", "user_email": None, "_dd": None}


def test_parts_of_a_view_are_bounded_in_number(engine: Engine) -> None:
    whole = with_version(view("a", 1))
    parts = [with_version(partial("a", 2 + n, loading_time=n)) for n in range(PARTS_MAX + 50)]
    with capture_logs() as logs:
        engine.apply(*parts[300:], whole)
        engine.apply(*parts[:300])
    assert merged(engine)["loading_time"] == PARTS_MAX - 1
    assert engine.rows("SELECT count(*) FROM view_parts") == [(PARTS_MAX + 1,)]
    assert [(log["log_level"], log["updates"]) for log in logs] == [("warning", 50)]
    engine.apply(with_version(view("a", 1000, loading_time=7)))
    assert merged(engine)["loading_time"] == 7
    engine.apply(with_version(partial("a", 1001, loading_time=8)))
    assert merged(engine)["loading_time"] == 8


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
@pytest.mark.parametrize(
    "large",
    [{f"k{n}": 1 for n in range(KEYS_MAX - 100)}, {"text": "é" * (EVENT_BYTES_MAX // 2 - 20_000)}],
    ids=["keys", "bytes"],
)
def test_a_merged_view_is_no_larger_than_an_event(engine: Engine, large: Event, order: tuple[int, ...]) -> None:
    grown = {f"g{n}": "x" * 100 for n in range(400)}
    whole = with_version(view("a", 1, rest={"one": large}))
    parts = [with_version(partial("a", 2 + n, loading_time=n, rest=rest)) for n, rest in enumerate(({}, grown, {}))]
    with capture_logs() as logs:
        engine.apply(whole, *(parts[n] for n in order))
    found = merged(engine)
    assert found["loading_time"] == 2
    assert found["one"] == large
    assert "g0" not in found
    assert [log["updates"] for log in logs] == [1]


def test_many_large_views_are_merged_in_portions(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(view_updates, "_PORTIONS", view_updates._PORTIONS.replace("32000000", "3000"))
    sent = [with_version(view(f"v{n}", 1, rest={"text": "x" * 1000})) for n in range(20)]
    engine.apply(*sent)
    engine.apply(*(with_version(partial(f"v{n}", 2, loading_time=n)) for n in range(20)))
    rows = engine.rows("SELECT view_id, loading_time, length((rest::JSON)->>'text') FROM events WHERE type = 'view'")
    assert sorted(rows) == sorted((f"v{n}", n, 1000) for n in range(20))
    portions = engine.rows("SELECT count(*) FROM view_parts")
    assert portions == [(40,)]


def test_parts_that_come_before_their_view_show_at_once(engine: Engine) -> None:
    engine.apply(PARTS[2])
    assert merged(engine)["loading_time"] == 9
    assert engine.sessions()["s"]["view"]["count"] == 1
