"""Kills the server again and again while events and changes of the mapping come in: what was acknowledged is there."""

from __future__ import annotations

import json
import os
import random
import re
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from http.client import HTTPException
from pathlib import Path
from typing import Any

import pytest

from servers import Answered, Server

pytestmark = pytest.mark.e2e

KILLS = int(os.environ.get("ROSTER_KILLS", "4"))
SEED = int(os.environ.get("ROSTER_SEED", "1"))
WRITERS = 3
WAIT_S = 60.0
"""How long anything may take before the test gives up."""

BASE = "/api/v2/product-analytics/users"
CONNECTION = f"{BASE}/mapping/connection"
COLUMNS = 6
FIELDS_MAX = 10
SETTINGS = {
    "apply_interval_s": "0.02",
    "rate_limits": json.dumps({"events": "9999999/minute", "audience_write": "9999999/minute"}),
}


def ask(
    server: Server, verb: str, path: str, body: Any = None, headers: dict[str, str] | None = None, *, keys: bool = True
) -> Answered | None:
    """The answer, or None when the server was gone before it had given one."""
    try:
        return server.ask(verb, path, body, headers=headers, keys=keys)
    except (OSError, HTTPException):
        return None


# events


@dataclass(frozen=True)
class Batch:
    """One request of events, each of a user of its own. `safe`: its identities make sending it again harmless."""

    body: bytes
    headers: dict[str, str]
    users: frozenset[str]
    safe: bool


def make_batch(dice: random.Random, name: str) -> Batch:
    """Events of all forms: one object, an array, lines; known by their id, by the request's key, or by nothing."""
    kind = dice.choice(["ids", "key", "nothing"])
    size = dice.choice([1, 1, 2, 7, 40, 250])
    users = [f"{name}.{i}" for i in range(size)]
    events = []
    for user in users:
        named = {"name": "bought"} | ({"id": f"event of {user}"} if kind == "ids" else {})
        wide = {"note": "x" * dice.choice([0, 10, 2000])}
        events.append({"type": "server", "application": {"id": "shop"}, "event": named, "usr": {"id": user}, **wide})
    lines = [json.dumps(event) for event in events]
    body = lines[0] if size == 1 else dice.choice(["\n".join(lines), f"[{','.join(lines)}]"])
    headers = {"DD-Idempotency-Key": f"key of {name}"} if kind == "key" else {}
    return Batch(body.encode(), headers, frozenset(users), kind != "nothing")


@dataclass
class Ledger:
    """What became of the batches: acknowledged ones are there once, unanswered ones at most once."""

    kept: set[str] = field(default_factory=set)
    unanswered: list[Batch] = field(default_factory=list)
    open: set[str] = field(default_factory=set)
    turn: threading.Lock = field(default_factory=threading.Lock)

    def note(self, batch: Batch, answer: Answered | None) -> bool:
        with self.turn:
            if answer is None:
                self.unanswered.append(batch)
                return False
            assert (answer.status, answer.body) == (202, b"{}"), answer
            self.kept |= batch.users
            return True


def send_events(server: Server, ledger: Ledger, dice: random.Random, name: str) -> None:
    """Send batches until the server is gone."""
    for n in range(1_000_000):
        batch = make_batch(dice, f"{name}-{n}")
        if not ledger.note(batch, ask(server, "POST", "/api/v2/prodlytics", batch.body, batch.headers)):
            return


def send_again(server: Server, ledger: Ledger, dice: random.Random) -> None:
    """What clients do with requests that nobody answered: some send them again, some twice, some give up."""
    unanswered, ledger.unanswered = ledger.unanswered, []
    for batch in unanswered:
        times = dice.choice([0, 1, 2]) if batch.safe else 0
        for _ in range(times):
            assert ledger.note(batch, ask(server, "POST", "/api/v2/prodlytics", batch.body, batch.headers))
        if not times:
            ledger.open |= batch.users


def query(server: Server, **attributes: Any) -> dict[str, Any]:
    body = {"data": {"type": "query_users_request", "attributes": {"limit": 10_000, **attributes}}}
    answer = server.ask("POST", f"{BASE}/query", body)
    assert answer.status == 200, answer.body
    found: dict[str, Any] = answer.json()["data"]["attributes"]
    return found


def check_events(server: Server, ledger: Ledger, rounds: range) -> None:
    """Every acknowledged event is there, none is there twice, and nothing is there that nobody sent."""
    wanted = {name: {u for u in ledger.kept if u.startswith(name)} for name in writers(rounds)}
    deadline_s = time.monotonic() + WAIT_S
    for name, users in wanted.items():
        while True:
            found = query(server, query=f"user_id:{name}-*", select_columns=["user_id", "events_count"])
            counts = {hit["user_id"]: hit["events_count"] for hit in found["hits"]}
            assert len(counts) == found["total"] <= 10_000
            if users <= counts.keys() or time.monotonic() > deadline_s:
                break
            time.sleep(0.05)
        assert users - counts.keys() == set(), "an acknowledged event is lost"
        assert counts.keys() - users - ledger.open == set(), "an event is there that nobody sent"
        assert {u: n for u, n in counts.items() if n != 1} == {}, "an event is there twice"


def writers(rounds: range) -> Iterator[str]:
    return (f"r{n}w{w}" for n in rounds for w in range(WRITERS))


# the mapping

Fields = dict[str, str]
"""Field id to source column, as the connection should be."""


@dataclass(frozen=True)
class Change:
    """One update: its body and the fields after it."""

    body: bytes
    after: Fields


def make_change(dice: random.Random, fields: Fields, n: int) -> Change:
    """Delete, rename and add at once; ids come back after they were deleted, with another column."""
    after = dict(fields)
    deleted = [id for id in list(after) if dice.random() < 0.25 or len(after) > FIELDS_MAX]
    for id in deleted:
        del after[id]
    renamed = {id: f"renamed_{n}_{i}" for i, id in enumerate(after) if dice.random() < 0.25}
    after = {renamed.get(id, id): source for id, source in after.items()}
    reused = [id for id in deleted if dice.random() < 0.5]
    added = {id: f"c{dice.randrange(COLUMNS)}" for id in [*reused, f"field_{n}"]}
    after |= added
    attributes = {
        "fields_to_delete": deleted,
        "fields_to_update": [{"field_id": old, "updated_field_id": new} for old, new in renamed.items()],
        "fields_to_add": [{"id": id, "source_name": s, "type": "string"} for id, s in added.items()],
    }
    return Change(
        json.dumps({"data": {"type": "connection_id", "id": "people", "attributes": attributes}}).encode(), after
    )


@dataclass
class Editor:
    """The one who updates the mapping, and what it knows of its versions."""

    fields: Fields = field(default_factory=dict)
    version: int = 1
    number: int = 0
    history: dict[int, Change] = field(default_factory=dict)
    pending: Change | None = None

    def note(self, change: Change, version: int) -> None:
        self.fields, self.version, self.history[version] = change.after, version, change


def version_of(answer: Answered) -> int:
    return int(answer.headers["etag"].strip('"'))


def edit(server: Server, editor: Editor, dice: random.Random) -> None:
    """Update the connection until the server is gone."""
    while True:
        editor.number += 1
        change = make_change(dice, editor.fields, editor.number)
        answer = ask(server, "PUT", CONNECTION, change.body)
        if answer is None:
            editor.pending = change
            return
        assert (answer.status, answer.body) == (200, b""), answer
        assert version_of(answer) == editor.version + 1
        editor.note(change, editor.version + 1)


def read_fields(server: Server) -> tuple[Fields, int]:
    answer = server.ask("GET", f"{BASE}/mapping/connections")
    (connection,) = answer.json()["data"]["attributes"]["connections"]
    assert connection["metadata"]["roster_state"] == "ok"
    return {f["id"]: f["source_name"] for f in connection["fields"]}, version_of(answer)


def check_mapping(server: Server, editor: Editor) -> None:
    """Acknowledged updates are there; the unanswered one whole or absent, and whole once it is sent again."""
    found, version = read_fields(server)
    pending, editor.pending = editor.pending, None
    if pending is not None:
        if version == editor.version + 1:
            editor.note(pending, version)
        assert (found, version) == (editor.fields, editor.version), "an update is lost, or there in part"
        answer = server.ask("PUT", CONNECTION, pending.body)
        assert answer.status == 200, answer
        if version_of(answer) != version:
            assert pending is not editor.history.get(version), "an update sent again made a second version"
            assert version_of(answer) == version + 1
            editor.note(pending, version + 1)
        found, version = read_fields(server)
    assert (found, version) == (editor.fields, editor.version)
    check_readers(server, editor)


def check_readers(server: Server, editor: Editor) -> None:
    """The mapping, its history and the values of a query say the same."""
    shown = server.ask("GET", f"{BASE}/mapping")
    assert version_of(shown) == editor.version
    customs = {a["attribute"] for a in shown.json()["data"]["attributes"]["attributes"] if a["is_custom"]}
    assert customs == {f"@{id}" for id in editor.fields}
    versions = server.ask("GET", f"{BASE}/mapping/versions").json()["data"]["attributes"]["versions"]
    assert [v["version"] for v in versions] == list(range(editor.version, 0, -1))
    kept = {v["version"]: v["request"].encode() for v in versions}
    assert {n: kept[n] for n in editor.history} == {n: change.body for n, change in editor.history.items()}
    names = [f"@{id}" for id in editor.fields]
    (hit,) = query(server, query="user_id:fixed", select_columns=["user_id", *names])["hits"]
    values = {f"@{id}": f"value of {source}" for id, source in editor.fields.items()}
    assert hit == {"user_id": "fixed", **values}


# the test


def prepare(folder: Path) -> Server:
    """A server with a table, a connection to it, and one user who is in the table."""
    table = folder / "people.csv"
    names = [f"c{i}" for i in range(COLUMNS)]
    table.write_text(f"user_id,{','.join(names)}\nfixed,{','.join(f'value of {name}' for name in names)}\n")
    server = Server(folder, **SETTINGS)
    server.cli("table", "load", str(table), "--key", "user_id")
    server.start()
    attributes = {"type": "ref_table", "join_type": "user_id", "join_attribute": "user_id"}
    body = {"data": {"type": "connection_id", "id": "people", "attributes": attributes}}
    assert server.ask("POST", CONNECTION, body).status == 201
    event = {"type": "server", "application": {"id": "shop"}, "event": {"name": "bought"}, "usr": {"id": "fixed"}}
    assert server.ask("POST", "/api/v2/prodlytics", event).status == 202
    deadline_s = time.monotonic() + WAIT_S
    while not query(server)["total"]:
        assert time.monotonic() < deadline_s
        time.sleep(0.05)
    return server


def kill_among(server: Server, work: list[Callable[[], None]], enough: Callable[[], bool]) -> None:
    """All at work, each until the server is gone; it dies as soon as enough is done."""
    with ThreadPoolExecutor(len(work)) as pool:
        running = [pool.submit(one) for one in work]
        deadline_s = time.monotonic() + WAIT_S
        while not enough() and time.monotonic() < deadline_s:
            if any(future.done() for future in running):
                break
            time.sleep(0.001)
        server.kill()
        for future in running:
            future.result(WAIT_S)
    assert enough()


def start_again(server: Server, dice: random.Random) -> None:
    """Start it; sometimes it is killed once more while it recovers."""
    if dice.random() < 0.4:
        server.start()
        time.sleep(dice.random() * 0.3)
        server.kill()
    server.start()


def work_until_killed(server: Server, ledger: Ledger, editor: Editor, dice: random.Random, number: int) -> None:
    """Writers and the editor at work, until some of it is acknowledged; then the server dies among them."""
    users, updates = len(ledger.kept) + dice.randrange(1, 3000), editor.version + dice.randrange(0, 12)
    work = [
        partial(send_events, server, ledger, random.Random(dice.random()), name)
        for name in writers(range(number, number + 1))
    ]
    work.append(partial(edit, server, editor, random.Random(dice.random())))
    kill_among(server, work, lambda: len(ledger.kept) >= users and editor.version >= updates)


def test_what_was_acknowledged_survives_kills(tmp_path: Path) -> None:
    print(f"ROSTER_SEED={SEED} ROSTER_KILLS={KILLS}")
    dice = random.Random(SEED)
    ledger, editor = Ledger(), Editor()
    server = prepare(tmp_path)
    try:
        for number in range(KILLS):
            work_until_killed(server, ledger, editor, dice, number)
            start_again(server, dice)
            send_again(server, ledger, dice)
            check_mapping(server, editor)
            check_events(server, ledger, range(number, number + 1))
        check_events(server, ledger, range(KILLS))
        total = query(server, limit=1, select_columns=["user_id"])["total"]
        assert query(server, query="events_count:>1", limit=1)["total"] == 0
        server.stop()
        stored = re.search(r"^events +([0-9,]+)$", server.cli("check"), re.MULTILINE)
        assert stored, "the events themselves are counted, not only the counters of profiles"
        assert stored[1] == f"{total:,}"
        print(f"{total:,} events, {len(ledger.open):,} of requests given up, mapping version {editor.version}")
    finally:
        server.stop()
