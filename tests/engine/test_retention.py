"""What is too old goes: the engine is as if old events had never come, but for what profiles that stay remember."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from engine.test_erasure import AT, Engine, numbered, open_engine, owner_of, people
from roster.model.schema import Entity
from roster.ports import Forgotten

DAY_MS = 86_400_000
CUT = AT + 2500
SETTLED = AT + 30 * DAY_MS


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    opened = open_engine(tmp_path)
    yield opened
    opened.duck.close()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    opened = open_engine(tmp_path_factory.mktemp("engine"))
    yield opened
    opened.duck.close()


def keys(engine: Engine, sql: str) -> set[Any]:
    return {row if len(row) > 1 else row[0] for row in engine.rows(sql)}


@settings(max_examples=15)
@given(drawn=st.lists(people, min_size=1, max_size=14), portion=st.integers(1, 4))
def test_the_world_without_old_events(shared: Engine, drawn: list[dict[str, Any]], portion: int) -> None:
    engine, events = shared, numbered(drawn)
    engine.clear()
    engine.apply(events)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("roster.engine.retention.EVENTS_PORTION", portion)
        patch.setattr("roster.engine.retention.PROFILES_PORTION", portion)
        found = engine.events.forget_before(CUT)
    young = [e for e in events if e["time"] >= CUT]
    owners = {owner_of(e, events) for e in young} - {None}
    accounts = {e["account_id"] for e in young if "account_id" in e}
    assert keys(engine, "SELECT event_id FROM events") == {e["k"] for e in young}
    assert found.events == len(events) - len(young)
    assert keys(engine, "SELECT user_id FROM users") == owners
    assert keys(engine, "SELECT account_id FROM accounts") == accounts
    assert keys(engine, "SELECT DISTINCT user_id FROM user_sessions") <= owners
    links = keys(engine, "SELECT user_id, account_id FROM user_accounts")
    assert {user for user, _ in links} <= owners
    assert {account for _, account in links} <= accounts
    counted = dict(engine.rows("SELECT account_id, user_count FROM accounts"))
    assert counted == {account: sum(a == account for _, a in links) for account in accounts}
    for user, first, last, count in engine.rows("SELECT user_id, first_seen, last_seen, events_count FROM users"):
        theirs = [e["time"] for e in events if owner_of(e, events) == user]
        assert (len(theirs), min(theirs), max(theirs)) == (count, *(round(t.timestamp() * 1000) for t in (first, last)))
    assert keys(engine, "SELECT user_id FROM identities") <= owners
    assert engine.events.forget_before(CUT) == Forgotten()


def test_a_profile_that_goes_is_told_and_one_that_stays_remembers(engine: Engine) -> None:
    def event(key: str, at: int, **more: Any) -> dict[str, Any]:
        return {"k": key, "type": "action", "time": at, "account_id": "a"} | more

    engine.apply([event("1", AT, user_id="old"), event("2", AT, user_id="kept", city="Rome", session_id="s")])
    engine.apply([event("3", CUT, user_id="kept", session_id="s")])
    assert engine.rows("SELECT user_count FROM accounts") == [(2,)]
    assert engine.events.forget_before(CUT) == Forgotten(events=2, users=1)
    assert engine.changed == {Entity.USERS: {"old"}, Entity.ACCOUNTS: {"a"}}
    assert engine.rows("SELECT user_id, events_count, session_count, first_city FROM users") == [("kept", 2, 1, "Rome")]
    assert engine.rows("SELECT user_count FROM accounts") == [(1,)]
    engine.apply([event("4", CUT + 1, user_id="old")])
    assert engine.rows("SELECT user_count FROM accounts") == [(2,)]
    assert engine.rows("SELECT events_count FROM users WHERE user_id = 'old'") == [(1,)]


def test_sessions_and_parts_of_views_go_with_their_events(engine: Engine) -> None:
    own = {"type": "view", "user_id": "u", "v": 1, "rest": {}}
    engine.apply([{"k": "view:v1", "view_id": "v1", "session_id": "s1", "time": AT} | own])
    engine.apply([{"k": "view:v2", "view_id": "v2", "session_id": "s2", "time": AT + 10 * DAY_MS} | own])
    engine.events.settle(SETTLED)
    assert keys(engine, "SELECT event_id FROM events") == {"view:v1", "view:v2", "session:s1", "session:s2"}
    assert engine.events.forget_before(AT + DAY_MS) == Forgotten(events=1, sessions=1)
    assert keys(engine, "SELECT event_id FROM events") == {"view:v2", "session:s2"}
    assert keys(engine, "SELECT session_id FROM session_spans") == {"s2"}
    engine.events.settle(SETTLED)
    assert keys(engine, "SELECT event_id FROM events") == {"view:v2", "session:s2"}
    assert engine.rows("SELECT count(*) FROM view_parts WHERE view_id = 'v1'") == [(0,)]


def test_deleting_old_days_rewrites_nothing(engine: Engine) -> None:
    """Whole parts of the file are let go of: what is read and written does not depend on what stays."""
    with engine.duck.write() as connection:
        connection.execute(f"""
            INSERT INTO events BY NAME
            SELECT 'k' || i AS event_id, epoch_ms({AT} + i * 1000) AS time, 'view' AS type, md5(i::VARCHAR) AS view_url,
                json_object('n', i)::JSON::VARIANT AS rest
            FROM range(500000) AS rows (i) ORDER BY i""")
    engine.duck.checkpoint()
    used = blocks(engine)
    assert engine.events.forget_before(AT + 300_000 * 1000).events == 300_000
    engine.duck.checkpoint()
    assert blocks(engine) < used * 0.65
    assert engine.rows("SELECT count(*), min(rest::JSON::VARCHAR) FROM events")[0][0] == 200_000


def blocks(engine: Engine) -> int:
    return int(engine.rows("SELECT used_blocks FROM pragma_database_size()")[0][0])


def test_the_text_of_an_event_stays_whole(engine: Engine) -> None:
    engine.apply([{"k": "1", "type": "server", "time": CUT, "user_id": "u", "rest": {"a": {"b": [1, None]}}}])
    engine.events.forget_before(CUT)
    ((rest,),) = engine.rows("SELECT rest::JSON::VARCHAR FROM events")
    assert json.loads(rest) == {"a": {"b": [1, None]}}
