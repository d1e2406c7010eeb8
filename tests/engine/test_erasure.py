"""An erased user leaves nothing: the engine is as if the user's events had never come."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import pytest
from hypothesis import given, settings, strategies as st

from roster.engine.compaction import compact
from roster.engine.connection import Duck, DuckLimits
from roster.engine.duckdb import DuckEngine
from roster.engine.enriched import Enriched
from roster.engine.events import DuckEvents
from roster.engine.lists import DuckLists
from roster.model.schema import KEY_ATTRIBUTE, Entity

LIMITS = DuckLimits(memory="500MB", threads=1, spill="1GB")
AT = 1_700_000_000_000
LATER = AT + 86_400_000
TABLES = ("users", "accounts", "user_sessions", "user_accounts", "identities", "session_spans", "stale_sessions")


@dataclass
class Engine:
    """A database, and the keys it said have changed."""

    duck: Duck
    folder: Path
    events: DuckEvents
    changed: dict[Entity, set[str]]
    number: int = 0

    def clear(self) -> None:
        with self.duck.write() as connection:
            for table in ("events", "view_parts", "trait_kinds", "engine_state", *TABLES):
                connection.execute(f"DELETE FROM {table}")
        self.number = 0

    def apply(self, events: list[dict[str, Any]]) -> None:
        self.number += 1
        path = self.folder / "segment.ndjson"
        path.write_text("".join(json.dumps(event) + "\n" for event in events))
        self.events.apply_segment(self.number, path)

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        connection = self.duck.cursor()
        rows = connection.execute(sql).fetchall()
        connection.close()
        return rows

    def state(self) -> dict[str, list[str]]:
        """Every table, its rows as sorted text."""
        found = {table: sorted(map(repr, self.rows(f"FROM {table}"))) for table in TABLES}
        found["events"] = sorted(map(repr, self.rows("SELECT * REPLACE (rest::JSON::VARCHAR AS rest) FROM events")))
        return found


def open_engine(folder: Path) -> Engine:
    changed: dict[Entity, set[str]] = {}

    def note(connection: duckdb.DuckDBPyConnection, entity: Entity, table: str) -> None:
        rows = connection.execute(f'SELECT "{KEY_ATTRIBUTE[entity]}" FROM "{table}"').fetchall()
        changed[entity] = {key for (key,) in rows}

    duck = Duck(folder / "engine.duckdb", LIMITS)
    return Engine(duck, folder, DuckEvents(duck, note), changed)


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    with tempfile.TemporaryDirectory() as folder:
        opened = open_engine(Path(folder))
        yield opened
        opened.duck.close()


def optional(name: str, values: list[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.just({}) | st.sampled_from(values).map(lambda value: {name: value})


# a view keeps its user: that one which changes hands is another's event from then on
people = st.tuples(
    optional("user_id", ["u1", "u2", "u3"]),
    optional("anonymous_id", ["n1", "n2"]),
    optional("account_id", ["a1", "a2"]),
    optional("account_name", ["A", "B"]),
    optional("session_id", ["s1", "s2"]),
    optional("user_email", ["x@y.z", "q@y.z"]),
    optional("city", ["Rome", "Oslo"]),
    st.sampled_from(["view", "action", "error", "server"]).map(lambda type: {"type": type}),
    st.integers(0, 5).map(lambda n: {"time": AT + n * 1000}),
).map(lambda parts: {name: value for part in parts for name, value in part.items()})


def numbered(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    found = []
    for n, event in enumerate(events):
        own = {"k": f"view:v{n}", "v": 1, "view_id": f"v{n}"} if event["type"] == "view" else {"k": f"e{n}"}
        said = {key: event[name] for key, name in (("email", "user_email"),) if name in event}
        found.append(own | event | {"rest": {"usr": said | {"plan": f"p{n % 2}"}}})
    return found


def owner_of(event: dict[str, Any], events: list[dict[str, Any]]) -> str | None:
    """The event's own user, else the first one known under its anonymous id."""
    if "user_id" in event:
        return str(event["user_id"])
    claims = [
        (e["time"], e["user_id"])
        for e in events
        if "user_id" in e and "anonymous_id" in event and e.get("anonymous_id") == event["anonymous_id"]
    ]
    return min(claims)[1] if claims else None


@settings(max_examples=int(os.environ.get("ROSTER_ERASURES", "15")))
@given(st.lists(people, min_size=1, max_size=14), st.integers(0, 14))
def test_erased_equals_never_having_come(engine: Engine, drawn: list[dict[str, Any]], cut: int) -> None:
    events = numbered(drawn)
    engine.clear()
    engine.apply([e for e in events if owner_of(e, events) != "u1"])
    engine.events.settle(LATER)
    expected = engine.state()
    engine.clear()
    for portion in (events[:cut], events[cut:]):
        engine.apply(portion)
    engine.events.settle(LATER)
    counted = engine.events.erase_user("u1", dry_run=True)
    assert engine.events.erase_user("u1") == counted
    assert counted.counts["events"] == sum(owner_of(e, events) == "u1" for e in events)
    assert engine.changed[Entity.USERS] == {"u1"}
    engine.events.settle(LATER)
    assert engine.state() == expected
    assert set(engine.events.erase_user("u1").counts.values()) == {0}


def test_a_dry_run_changes_nothing(engine: Engine) -> None:
    engine.clear()
    engine.apply(numbered([{"type": "view", "time": AT, "user_id": "u1", "session_id": "s1", "anonymous_id": "n1"}]))
    engine.events.settle(LATER)
    before = engine.state()
    found = engine.events.erase_user("u1", dry_run=True)
    assert (found.counts["events"], found.counts["sessions"], found.counts["profiles"]) == (1, 1, 1)
    assert found.anonymous_ids == ("n1",)
    assert engine.state() == before


def test_an_account_that_only_loses_a_user_keeps_the_rest(engine: Engine) -> None:
    def event(id: str, at: int, name: str = "A") -> dict[str, Any]:
        said = {"time": AT + at, "user_id": id, "account_id": "a", "account_name": name}
        return {"k": f"{id}-{at}", "type": "action", "rest": {"account": {"by": id}}} | said

    engine.clear()
    engine.apply([event("u2", 0), event("u1", 1, "B"), event("u2", 2, "C"), event("u3", 3, "D")])
    users = "SELECT user_count, account_name, epoch_ms(first_seen), epoch_ms(last_seen) FROM accounts"
    assert engine.rows(users) == [(3, "D", AT, AT + 3)]
    engine.events.erase_user("u1")
    assert engine.rows(users) == [(2, "D", AT, AT + 3)]
    engine.events.erase_user("u3")
    assert engine.rows(users) == [(1, "C", AT, AT + 2)]
    engine.events.erase_user("u2")
    assert engine.rows(users) == []


SECRET_ID, SECRET_EMAIL = "person-7f3a9c", "person.7f3a9c@example.com"


def world_with_a_person(rows: int) -> list[dict[str, Any]]:
    events = []
    for n in range(rows):
        mine = n % 97 == 5
        id, email = (SECRET_ID, SECRET_EMAIL) if mine else (f"other-{n % 50}", f"other.{n % 50}@example.com")
        event = {"k": f"view:v{n}", "v": 1, "type": "view", "view_id": f"v{n}", "time": AT + n, "user_id": id}
        event |= {"user_email": email, "session_id": f"s-{id}-{n // 300}", "account_id": f"a{n % 3}"}
        events.append(event | {"rest": {"usr": {"email": email, "crm": f"crm of {id}"}}})
    return events


def all_text(engine: Engine) -> str:
    """Every value of every table of the file."""
    tables = engine.rows("SELECT table_name FROM duckdb_tables() WHERE NOT internal AND NOT temporary")
    return "\n".join(repr(row) for (name,) in tables for row in engine.rows(f'FROM "{name}"'))


def test_no_table_and_after_compaction_no_byte_has_the_person(tmp_path: Path) -> None:
    engine = open_engine(tmp_path)
    engine.apply(world_with_a_person(4000))
    engine.events.settle(LATER)
    lists = DuckLists(engine.duck, DuckEngine(engine.duck, Enriched(engine.duck)))
    lists.keep_keys("theirs", Entity.USERS, [SECRET_ID, "other-1"], AT)
    lists.keep_keys("of accounts", Entity.ACCOUNTS, ["a1"], AT)
    engine.duck.checkpoint()
    assert SECRET_ID in all_text(engine)
    assert SECRET_EMAIL in all_text(engine)
    others = engine.rows("SELECT * EXCLUDE (traits) FROM users WHERE user_id <> 'person-7f3a9c' ORDER BY user_id")
    engine.events.erase_user(SECRET_ID)
    assert [(kept.id, kept.count) for kept in lists.list_lists()] == [("of accounts", 1), ("theirs", 1)]
    left = all_text(engine)
    assert SECRET_ID not in left
    assert SECRET_EMAIL not in left
    engine.duck.close()
    path = tmp_path / "engine.duckdb"
    before, after = compact(path, LIMITS)
    assert after <= before
    assert sorted(p.name for p in tmp_path.iterdir() if p.is_file()) == ["engine.duckdb", "segment.ndjson"]
    raw = path.read_bytes()
    assert SECRET_ID.encode() not in raw
    assert SECRET_EMAIL.encode() not in raw
    again = open_engine(tmp_path)
    again.number = engine.number
    assert again.rows("SELECT * EXCLUDE (traits) FROM users ORDER BY user_id") == others
    again.apply([{"k": "new", "type": "server", "time": AT, "user_id": SECRET_ID}])
    assert again.rows(f"SELECT events_count FROM users WHERE user_id = '{SECRET_ID}'") == [(1,)]
    again.duck.close()


KILLED = """
import os, sys
from pathlib import Path
from roster.engine.connection import Duck, DuckLimits
from roster.engine.events import DuckEvents
calls = 0
def die(connection, entity, table):
    global calls
    calls += 1
    if calls == int(sys.argv[2]):
        os.kill(os.getpid(), 9)
duck = Duck(Path(sys.argv[1]) / "engine.duckdb", DuckLimits("500MB", 1, "1GB"))
events = DuckEvents(duck, die)
checkpoint = duck.checkpoint
duck.checkpoint = lambda: os.kill(os.getpid(), 9) if sys.argv[2] == "3" else checkpoint()
events.erase_user("person-7f3a9c")
"""


@pytest.mark.parametrize(("at", "is_there"), [(1, True), (2, True), (3, False)])
def test_a_kill_leaves_an_erase_whole_or_not_done(tmp_path: Path, at: int, is_there: bool) -> None:
    """Inside the transaction, at its end, and between its end and the checkpoint."""
    engine = open_engine(tmp_path)
    engine.apply(world_with_a_person(500))
    engine.events.settle(LATER)
    before = engine.state()
    engine.duck.close()
    command = [sys.executable, "-c", KILLED, str(tmp_path), str(at)]
    assert subprocess.run(command, env=os.environ, check=False).returncode == -signal.SIGKILL
    engine = open_engine(tmp_path)
    if is_there:
        assert engine.state() == before
    else:
        assert SECRET_ID not in all_text(engine)
    engine.duck.close()


def test_a_running_query_does_not_stop_an_erase(engine: Engine) -> None:
    engine.clear()
    engine.apply(world_with_a_person(300))
    reader = engine.duck.cursor()
    reader.execute("BEGIN TRANSACTION READ ONLY")
    reader.execute("SELECT count(*) FROM events").fetchall()
    assert engine.events.erase_user(SECRET_ID).counts["profiles"] == 1
    assert engine.rows(f"SELECT count(*) FROM users WHERE user_id = '{SECRET_ID}'") == [(0,)]
    reader.close()
