"""Profiles kept up with events equal profiles built anew, and both equal a plain-Python model."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import duckdb
import pytest
from hypothesis import given, settings, strategies as st

from roster.base.time import instant
from roster.engine.connection import Duck, DuckLimits
from roster.engine.events import DuckEvents
from roster.intake.event import canonical_lines
from roster.model.schema import EVENT_SCHEMA, KEY_ATTRIBUTE, TRACKED, Entity, Type, profile_schema
from roster.ports import Applied

SQL_TYPES = {
    Type.STRING: "VARCHAR",
    Type.INTEGER: "BIGINT",
    Type.NUMBER: "DOUBLE",
    Type.TIMESTAMP: "TIMESTAMP",
    Type.ANY: "VARIANT",
}
Profiles = dict[Entity, dict[str, dict[str, Any]]]
Event = dict[str, Any]


@dataclass
class World:
    """A database, and the keys it said have changed."""

    duck: Duck
    folder: Path
    events: DuckEvents
    changed: dict[Entity, set[str]] = field(default_factory=dict)
    number: int = 0

    def clear(self) -> None:
        with self.duck.write() as connection:
            for table in (
                *("events", "users", "accounts", "user_sessions", "user_accounts", "engine_state"),
                *("identities", "trait_kinds", "stale_sessions", "session_spans", "view_parts"),
            ):
                connection.execute(f"DELETE FROM {table}")
        self.number = 0

    def apply(self, lines: list[bytes]) -> Applied:
        self.number += 1
        path = self.folder / "segment.ndjson"
        path.write_bytes(b"".join(line + b"\n" for line in lines))
        return self.events.apply_segment(self.number, path)

    def profiles(self) -> Profiles:
        connection = self.duck.cursor()
        found: Profiles = {}
        for entity in Entity:
            names = [c.name for c in profile_schema(entity)]
            shown = ", ".join("traits::JSON::VARCHAR" if name == "traits" else name for name in names)
            rows = [
                (*row[:-1], json.loads(row[-1]) if row[-1] else None)
                for row in connection.execute(f"SELECT {shown} FROM {entity}").fetchall()
            ]
            found[entity] = {row[0]: dict(zip(names, row, strict=True)) for row in rows}
            assert len(found[entity]) == len(rows)
        connection.close()
        return found


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with tempfile.TemporaryDirectory() as folder:
        changed: dict[Entity, set[str]] = {}

        def note(connection: duckdb.DuckDBPyConnection, entity: Entity, table: str) -> None:
            rows = connection.execute(f'SELECT "{KEY_ATTRIBUTE[entity]}" FROM "{table}"').fetchall()
            changed[entity] = {key for (key,) in rows}

        duck = Duck(Path(folder) / "roster.duckdb", DuckLimits(memory="500MB", threads=1, spill="1GB"))
        yield World(duck, Path(folder), DuckEvents(duck, note), changed)
        duck.close()


def test_the_tables_begin_with_the_columns_of_the_model(world: World) -> None:
    connection = world.duck.cursor()
    for table, schema in (("events", EVENT_SCHEMA), *((e.value, profile_schema(e)) for e in Entity)):
        rows = connection.execute(f"DESCRIBE {table}").fetchall()
        assert [row[:2] for row in rows][: len(schema)] == [(c.name, SQL_TYPES[c.type]) for c in schema]
    connection.close()


@dataclass
class Model:
    """What the engine should hold: canonical events by identity."""

    stored: dict[str, Event] = field(default_factory=dict)

    def apply(self, events: list[Event]) -> Applied:
        """Of one identity the first event wins, of views the newest version; a batch is looked at as a whole."""
        batch: dict[str, Event] = {}
        for event in events:
            held = batch.get(event["k"])
            if held is None or event.get("v", -1) > held.get("v", -1):
                batch[event["k"]] = event
        stored = 0
        for key, event in batch.items():
            held = self.stored.get(key)
            if held is None or ("v" in event and "v" in held and event["v"] > held["v"]):
                self.stored[key] = event
                stored += 1
        return Applied(stored, len(events) - stored)

    def profiles(self) -> Profiles:
        return {entity: {key: self.profile(entity, key) for key in self.keys(entity)} for entity in Entity}

    def identities(self) -> dict[str, str]:
        """The first user seen under each anonymous id; at the same time the smaller one."""
        claims = sorted((e["time"], e["user_id"], e["anonymous_id"]) for e in self.stored.values() if _names_both(e))
        return {anonymous: user for _, user, anonymous in reversed(claims)}

    def owner(self, entity: Entity, event: Event) -> str | None:
        own: str | None = event.get(KEY_ATTRIBUTE[entity])
        if entity is Entity.ACCOUNTS or own is not None:
            return own
        return self.identities().get(event.get("anonymous_id", ""))

    def keys(self, entity: Entity) -> set[str]:
        return {key for e in self.stored.values() if (key := self.owner(entity, e)) is not None}

    def profile(self, entity: Entity, key: str) -> dict[str, Any]:
        mine = [e for e in self.stored.values() if self.owner(entity, e) == key]
        times = [e["time"] for e in mine]
        found: dict[str, Any] = {KEY_ATTRIBUTE[entity]: key}
        found |= {"first_seen": instant(min(times)), "last_seen": instant(max(times))}
        for tracked in TRACKED[entity]:
            values = [(e["time"], e[tracked.column]) for e in mine if e.get(tracked.column)]
            best = (min if tracked.earliest else max)(values, default=(0, None))
            found[tracked.id] = best[1]
        said = "usr" if entity is Entity.USERS else "account"
        traits = [(e["time"], json.dumps(e["rest"][said])) for e in mine if said in e.get("rest", {})]
        found["traits"] = json.loads(max(traits)[1]) if traits else None
        if entity is Entity.ACCOUNTS:
            users = {self.owner(Entity.USERS, e) for e in mine} - {None}
            return found | {"user_count": len(users)}
        loading = [e["loading_time"] for e in mine if e["type"] == "view" and "loading_time" in e]
        return found | {
            "session_count": len({e["session_id"] for e in mine if "session_id" in e}),
            "events_count": len(mine),
            "view_count": sum(e["type"] == "view" for e in mine),
            "action_count": sum(e["type"] == "action" for e in mine),
            "error_count": sum(e["type"] == "error" for e in mine),
            "avg_loading_time": sum(loading) / len(loading) if loading else None,
        }


def _names_both(event: Event) -> bool:
    return "user_id" in event and "anonymous_id" in event


def optional(path: str, values: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Nothing, or one path with a value."""
    return st.just({}) | values.map(lambda value: {path: value})


wire_events = st.tuples(
    st.sampled_from(["view", "view", "view", "action", "error", "server"]).map(lambda type: {"type": type}),
    st.integers(1_700_000_000_000, 1_700_000_000_003).map(lambda at: {"date": at}),
    optional("usr.id", st.sampled_from(["u1", "u2", "\u00fc3"])),
    optional("usr.anonymous_id", st.sampled_from(["n1", "n2"])),
    optional("usr.plan", st.sampled_from(["a", "b"])),
    optional("account.seats", st.sampled_from([1, 2.5])),
    optional("account.id", st.sampled_from(["a1", "a2"])),
    optional("account.name", st.sampled_from(["", "A", "B"])),
    optional("session.id", st.sampled_from(["s1", "s2"])),
    optional("usr.email", st.sampled_from(["", "x@y", "Z@y"])),
    optional("geo.city", st.sampled_from(["", "Rome", "\U0001f600", "\uffee"])),
    optional("view.loading_time", st.integers(0, 10**12)),
    optional("view.id", st.sampled_from(["v1", "v2", "v3"])),
    optional("event.id", st.sampled_from(["e1", "e2"])),
    optional("_dd.document_version", st.integers(0, 3)),
).map(lambda parts: nested({path: value for part in parts for path, value in part.items()}))


def nested(flat: dict[str, Any]) -> dict[str, Any]:
    wire: dict[str, Any] = {}
    for path, value in flat.items():
        head, _, tail = path.partition(".")
        if tail:
            wire.setdefault(head, {})[tail] = value
        else:
            wire[head] = value
    return wire


@settings(max_examples=25)
@given(st.lists(st.lists(wire_events, max_size=8), min_size=1, max_size=5))
def test_incremental_equals_rebuilt_equals_the_model(world: World, batches: list[list[dict[str, Any]]]) -> None:
    world.clear()
    model, row = Model(), 0
    for wires in batches:
        texts = [json.dumps(wire).encode() for wire in wires]
        batch = canonical_lines(texts, spare_key=lambda at: f"row-{at}", first=row)
        assert batch.rejected == []
        row += len(wires)
        before = model.profiles()
        assert world.apply(batch.lines) == model.apply([json.loads(line) for line in batch.lines])
        expected = model.profiles()
        assert world.profiles() == expected
        for entity in Entity:
            keys = before[entity].keys() | expected[entity].keys()
            moved = {key for key in keys if before[entity].get(key) != expected[entity].get(key)}
            assert moved <= world.changed[entity]
    world.events.rebuild_profiles()
    assert world.profiles() == model.profiles()
    assert all(model.keys(entity) == world.changed[entity] for entity in Entity)


@settings(max_examples=10)
@given(st.lists(wire_events, min_size=2, max_size=12), st.randoms(use_true_random=False))
def test_the_order_and_the_portions_do_not_matter(world: World, wires: list[dict[str, Any]], random: Any) -> None:
    """Of events that all have identities of their own."""
    texts = [json.dumps(wire | {"type": "server", "event": {"id": str(n)}}).encode() for n, wire in enumerate(wires)]
    lines = canonical_lines(texts, spare_key=str).lines
    world.clear()
    world.apply(lines)
    at_once = world.profiles()
    world.clear()
    random.shuffle(lines)
    cut = random.randrange(len(lines))
    for portion in (lines[:cut], lines[cut:]):
        world.apply(portion)
    assert world.profiles() == at_once


def view(version: int, **columns: Any) -> bytes:
    event = {"k": "view:v", "v": version, "type": "view", "view_id": "v"} | columns
    return json.dumps(event | {"rest": {"_dd": {"document_version": version}}}).encode()


def test_a_newer_view_counts_once_with_its_newest_values(world: World) -> None:
    world.clear()
    own = {"time": 1_700_000_000_000, "user_id": "u", "session_id": "s"}
    world.apply([view(1, **own, loading_time=10)])
    assert world.apply([view(3, **own, loading_time=50), view(2, **own, loading_time=9)]) == Applied(1, 1)
    assert world.apply([view(2, **own, loading_time=7)]) == Applied(0, 1)
    (user,) = world.profiles()[Entity.USERS].values()
    assert (user["events_count"], user["view_count"], user["session_count"]) == (1, 1, 1)
    assert user["avg_loading_time"] == 50.0


def test_sums_beyond_64_bits_are_held(world: World) -> None:
    world.clear()
    longest = 2**63 - 1
    for n in range(3):
        event = {"k": str(n), "time": n, "type": "view", "user_id": "u", "loading_time": longest}
        world.apply([json.dumps(event).encode()])
    (user,) = world.profiles()[Entity.USERS].values()
    assert user["avg_loading_time"] == pytest.approx(longest)


def test_a_view_that_changes_hands_leaves_nothing_behind(world: World) -> None:
    world.clear()
    at = 1_700_000_000_000
    world.apply([view(1, time=at, user_id="u1", account_id="a1", session_id="s", city="Rome")])
    world.apply([view(2, time=at, user_id="u2", account_id="a2", session_id="s")])
    found = world.profiles()
    assert found[Entity.USERS].keys() == {"u2"}
    assert found[Entity.USERS]["u2"]["first_city"] is None
    assert found[Entity.ACCOUNTS].keys() == {"a2"}
    assert world.changed == {Entity.USERS: {"u1", "u2"}, Entity.ACCOUNTS: {"a1", "a2"}}


def test_a_late_event_does_not_overwrite_newer_values(world: World) -> None:
    world.clear()
    for key, at, city, email in (("1", 5, "Rome", "new@x"), ("2", 1, "Oslo", "old@x"), ("3", 9, "", "")):
        event = {"k": key, "time": 1_700_000_000_000 + at, "type": "action", "user_id": "u"}
        world.apply([json.dumps(event | {"city": city, "user_email": email}).encode()])
    (user,) = world.profiles()[Entity.USERS].values()
    assert (user["first_city"], user["last_city"], user["user_email"]) == ("Oslo", "Rome", "new@x")
    assert user["last_seen"] == instant(1_700_000_000_009)


def test_many_profiles_are_rebuilt_in_portions(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.clear()
    lines = [
        json.dumps({"k": str(n), "time": 1_700_000_000_000 + n, "type": "error", "user_id": f"u{n % 20}",
                    "account_id": f"a{n % 3}", "session_id": f"s{n % 7}"}).encode()
        for n in range(100)
    ]  # fmt: skip
    world.apply(lines)
    kept = world.profiles()
    monkeypatch.setattr("roster.engine.profiles._PORTION", 30)
    world.events.rebuild_profiles()
    assert world.profiles() == kept
    assert kept[Entity.USERS]["u3"]["session_count"] == 5
