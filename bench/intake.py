"""Owns the intake workload: server events acknowledged a second, by batch size and connections.

By hand: the same rows inserted into a table like the product's, one durable transaction a batch.
The product acknowledges from its log and stores in the background, also while it is measured.
"""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import duckdb

from bench.measure import Contender, Outcome, same
from bench.server import Keys, Server
from bench.world import END_MS, Size
from roster.base.time import instant, iso_ms
from roster.engine.events import create_tables
from roster.settings import Settings

PATH = "/api/v2/prodlytics"
REQUESTS = {1: 400, 100: 120, 1000: 32}
"""Requests of a round by their number of events, shared out over the connections; fewer in a small world."""
CONNECTIONS = (1, 8)
ROUNDS_MAX = 5
BODIES = 16
DRAINED = "stored, after the last acknowledgement"
_COLUMNS = {
    "event_id": "VARCHAR",
    "time": "TIMESTAMP",
    "type": "VARCHAR",
    "user_id": "VARCHAR",
    "account_id": "VARCHAR",
    "session_id": "VARCHAR",
    "event_name": "VARCHAR",
    "application_id": "VARCHAR",
    "rest": "JSON",
}


def append_sql(columns: dict[str, str]) -> str:
    """A statement that appends the rows of one JSON text; `rest` is among the columns."""
    return f"""
        INSERT INTO events BY NAME SELECT * REPLACE (rest::VARIANT AS rest)
        FROM (SELECT unnest(from_json($1, '{json.dumps([columns])}'), recursive := true))"""


_APPEND = append_sql(_COLUMNS)
_STORED = f"""
    SELECT {", ".join(f'"{c}"' for c in _COLUMNS if c not in ("event_id", "rest"))}, rest::JSON::VARCHAR AS rest,
        count(*) AS n FROM {{}}.events WHERE type = 'server' GROUP BY ALL"""

Sender = Callable[[int], None]
"""Sends or appends body number n."""


def open_by_hand(data: Path) -> duckdb.DuckDBPyConnection:
    """A database of its own in the data folder, with the product's tables and settings."""
    settings = Settings(data=data)
    config: dict[str, str | bool | int | float | list[str]] = {
        "threads": settings.engine_threads,
        "memory_limit": settings.engine_memory,
        "checkpoint_threshold": "256MB",
    }
    database = duckdb.connect(str(data / "by_hand.duckdb"), config=config)
    create_tables(database)
    return database


def make_events(count: int, profiles: int, dice: random.Random) -> list[dict[str, Any]]:
    """Server events as the wire has them."""
    events = []
    for _ in range(count):
        user = int(profiles * dice.random() ** 2)
        context = {"amount": dice.randrange(100_000) / 100, "currency": "EUR", "items": dice.randrange(9)}
        events.append(
            {
                "type": "server",
                "date": END_MS + dice.randrange(1_000_000),
                "application": {"id": "shop"},
                "event": {"name": f"order {dice.choice(('paid', 'sent', 'returned'))}"},
                "usr": {"id": f"u{user}"},
                "account": {"id": f"a{user % 500}"},
                "session": {"id": f"s{user}-{dice.randrange(3)}"},
                "context": context,
            }
        )
    return events


def as_rows(events: Sequence[dict[str, Any]]) -> str:
    """The same events as rows of the table, in one JSON text."""
    rows = [
        {
            "event_id": f"{random.getrandbits(128):032x}",
            "time": iso_ms(instant(event["date"])),
            "type": event["type"],
            "user_id": event["usr"]["id"],
            "account_id": event["account"]["id"],
            "session_id": event["session"]["id"],
            "event_name": event["event"]["name"],
            "application_id": event["application"]["id"],
            "rest": {"context": event["context"]},
        }
        for event in events
    ]
    return json.dumps(rows)


def run_intake(data: Path, keys: Keys, size: Size, rounds: int) -> Outcome:
    """Every batch size over one and over eight connections; in the end both stores hold the same rows."""
    database = open_by_hand(data)
    requests = {batch: int(count * min(1, size.events / 1_000_000)) for batch, count in REQUESTS.items()}
    dice = random.Random(size.seed)
    bodies = {batch: [make_events(batch, size.profiles, dice) for _ in range(BODIES)] for batch in REQUESTS}
    samples: dict[str, list[float]] = {}
    with Server(data, keys) as server:
        for number in range(-1, min(rounds, ROUNDS_MAX)):
            for batch, connections in ((b, c) for b in REQUESTS for c in CONNECTIONS):
                name = f"batches of {batch:,}, {connections} connection{'s' * (connections > 1)}"
                each = max(1, requests[batch] // connections)
                ours = _send(server, bodies[batch], connections, each)
                started_s = time.perf_counter()
                wait_stored(data)
                drained_s = time.perf_counter() - started_s
                theirs = _append(database, bodies[batch], connections, each)
                if number >= 0:
                    for key, value in ((name, ours), (f"{name}, by hand", theirs), (f"{name}: {DRAINED}", drained_s)):
                        samples.setdefault(key, []).append(value)
    counted = _compare(database, data)
    database.close()
    note = f"server events with three attributes; {counted:,} events equal in both stores in the end"
    made = []
    for name, taken in samples.items():
        unit = "s" if name.endswith(DRAINED) else "events/s"
        base = None if unit == "s" or name.endswith("by hand") else f"{name}, by hand"
        made.append(Contender(name, tuple(taken), unit, base))
    return Outcome("intake", note, tuple(made))


def _send(server: Server, bodies: list[list[dict[str, Any]]], connections: int, each: int) -> float:
    """Events acknowledged a second over HTTP."""
    with ExitStack() as stack:
        wires = [stack.enter_context(server.wire()) for _ in range(connections)]
        packed = [wires[0].pack("POST", PATH, body) for body in bodies]

        def sender(place: int) -> Sender:
            return lambda n: _accept(wires[place].send(packed[n]))

        return _rate(len(bodies[0]), each, [sender(place) for place in range(connections)])


def _accept(answer: bytes) -> None:
    if answer != b"{}":
        raise RuntimeError(f"not an acknowledgement: {answer[:200]!r}")


def _append(
    database: duckdb.DuckDBPyConnection, bodies: list[list[dict[str, Any]]], connections: int, each: int
) -> float:
    """Events committed a second by hand."""
    rows = [as_rows(body) for body in bodies]
    cursors = [database.cursor() for _ in range(connections)]

    def sender(place: int) -> Sender:
        def append(n: int) -> None:
            cursors[place].execute(_APPEND, [rows[n]])

        return append

    try:
        return _rate(len(bodies[0]), each, [sender(place) for place in range(connections)])
    finally:
        for cursor in cursors:
            cursor.close()


def _rate(batch: int, each: int, senders: list[Sender]) -> float:
    """Events a second when every sender makes `each` requests and all begin together."""
    errors: list[Exception] = []
    gate = threading.Barrier(len(senders) + 1)

    def work(place: int, send: Sender) -> None:
        gate.wait()
        try:
            for n in range(each):
                send((place * each + n) % BODIES)
        except Exception as error:  # noqa: BLE001 - raised again below, in the thread that measures
            errors.append(error)

    threads = [threading.Thread(target=work, args=item) for item in enumerate(senders)]
    for thread in threads:
        thread.start()
    gate.wait()
    started_s = time.perf_counter()
    for thread in threads:
        thread.join()
    taken_s = time.perf_counter() - started_s
    if errors:
        raise errors[0]
    return each * len(senders) * batch / taken_s


def wait_stored(data: Path) -> None:
    """Return when no segment of the log waits to be applied."""
    deadline_s = time.monotonic() + 600
    while any((data / "log").glob("events-*.ndjson")):
        if time.monotonic() > deadline_s:
            raise RuntimeError("acknowledged events were not stored within ten minutes")
        time.sleep(0.01)


def _compare(database: duckdb.DuckDBPyConnection, data: Path) -> int:
    """Number of events in each store, after making sure that they are the same ones."""
    database.execute(f"ATTACH '{data / 'engine.duckdb'}' AS product (READ_ONLY)")
    own = database.execute("SELECT current_database()").fetchall()[0][0]
    ours, theirs = _STORED.format("product"), _STORED.format(own)
    for left, right in ((ours, theirs), (theirs, ours)):
        same("intake, stored events", database.execute(f"({left}) EXCEPT ({right}) LIMIT 5").fetchall(), [])
    found = database.execute(f"SELECT sum(n)::BIGINT FROM ({ours})").fetchall()
    return int(found[0][0])
