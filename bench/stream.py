"""Owns the stream workload: events of browser SDKs without a pause, also beside queries, counted by reading back.

The senders keep their connections busy; what the server cannot store in time it must acknowledge later, not lose.
By hand: the rows of the same batches appended to a table like the product's, one durable transaction a batch.
"""

from __future__ import annotations

import json
import threading
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import duckdb

from bench.intake import append_sql, open_by_hand, wait_stored
from bench.measure import Contender, Outcome, quantile, same
from bench.server import Keys, Server, Wire
from bench.world import END_MS, Size
from roster.base.time import instant, iso_ms

PATH = "/api/v2/rum?ddsource=browser"
RUNS = ((1, 8), (100, 8), (1000, 8), (1000, 64))
"""Events of a request and connections; the last but one is the one beside queries."""
SMALL_EVENTS, SMALL_SHARE = 100_000, 8
"""In worlds of fewer events every eighth connection is enough."""
QUERIES_BESIDE = 4
PAUSE_S = 0.2
MARK = "%MARK%"
"""In the text of a batch: where its identities differ from those of others."""
_USERS_PATH = "/api/v2/product-analytics/users/query"
EVENTS_PATH = "/api/v2/product-analytics/users/event_filtered_query"
_KINDS = ("view", "action", "resource", "view", "error")
_TEXTS = ("type", "user_id", "session_id", "view_id", "view_url", "application_id", "service", "env", "version")
_APPEND = append_sql({"event_id": "VARCHAR", "time": "TIMESTAMP", **dict.fromkeys(_TEXTS, "VARCHAR"), "rest": "JSON"})
_MISSING = f"""
    SELECT {", ".join(_TEXTS)} FROM events EXCEPT ALL SELECT {", ".join(_TEXTS)} FROM product.events LIMIT 5"""


def sdk_event(place: int, profiles: int) -> dict[str, Any]:
    """One event as an SDK sends it, its identity still open."""
    kind, user = _KINDS[place % len(_KINDS)], (place // 10 * 7919) % profiles
    visit = f"{MARK}-{place // 10}"
    own = {"id": f"{MARK}-{place}", "type": "click", "target": {"name": "Buy"}}
    event = {
        "type": kind,
        "date": END_MS + place,
        "application": {"id": "stream"},
        "session": {"id": visit, "type": "user"},
        "view": {
            "id": f"{visit}-{place // 5}",
            "url": f"https://shop.example/p/{user}?utm_source=mail",
            "referrer": "",
        },
        "usr": {"id": f"u{user}", "email": f"u{user}@shop.example", "plan": "pro", "seats": user % 9},
        "service": "shop",
        "version": "1.2.3",
        "ddtags": "sdk_version:7.16.2,env:prod,service:shop,version:1.2.3",
        "_dd": {"format_version": 2, "drift": 0, "document_version": 1 + place % 5},
        "context": {"cart": {"items": user % 5}, "beta": True},
        "connectivity": {"status": "connected", "effective_type": "4g"},
        "display": {"viewport": {"width": 1280, "height": 800}},
    }
    return event | ({} if kind == "view" else {kind: own})


def sdk_lines(batch: int, profiles: int) -> str:
    """A batch as an SDK sends it, a line an event."""
    return "\n".join(json.dumps(sdk_event(place, profiles)) for place in range(batch))


class Senders:
    """Threads that send batches for some seconds; every batch has identities of its own."""

    def __init__(self, server: Server, batch: int, profiles: int) -> None:
        self._body = sdk_lines(batch, profiles).encode()
        self._server = server
        self.batch = batch
        self._turn = threading.Lock()
        self._number = 0
        self.marks: list[str] = []
        """Those of the batches that were acknowledged."""
        self.waits_ms: list[float] = []

    @property
    def acknowledged(self) -> int:
        """Events."""
        return len(self.marks) * self.batch

    def run(self, connections: int, seconds: float, name: str) -> float:
        """Events acknowledged a second."""
        until_s = time.perf_counter() + seconds
        with ExitStack() as stack:
            wires = [stack.enter_context(self._server.wire()) for _ in range(connections)]
            threads = [threading.Thread(target=self._send, args=(wire, until_s, name)) for wire in wires]
            started_s = time.perf_counter()
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            return self.acknowledged / (time.perf_counter() - started_s)

    def _send(self, wire: Wire, until_s: float, name: str) -> None:
        while time.perf_counter() < until_s:
            with self._turn:
                self._number += 1
                mark = f"{name}-{self._number}"
            packed = wire.pack("POST", PATH, self._body.replace(MARK.encode(), mark.encode()))
            started_s = time.perf_counter()
            answered = wire.send(packed)
            with self._turn:
                self.waits_ms.append((time.perf_counter() - started_s) * 1000)
                if b"request_id" in answered:
                    self.marks.append(mark)


def _row(event: dict[str, Any]) -> dict[str, Any]:
    """The same event as a row of the table."""
    user, view = event["usr"], event["view"]
    return {
        "event_id": _id(event),
        "time": iso_ms(instant(event["date"])),
        "type": event["type"],
        "user_id": user["id"],
        "session_id": event["session"]["id"],
        "view_id": view["id"],
        "view_url": view["url"],
        "application_id": event["application"]["id"],
        "service": event["service"],
        "env": "prod",
        "version": event["version"],
        "rest": {name: event[name] for name in ("usr", "view", "_dd", "context", "connectivity", "display", "ddtags")},
    }


def newest_rows(batch: int, profiles: int) -> list[dict[str, Any]]:
    """The rows that a batch comes to."""
    events = (sdk_event(place, profiles) for place in range(batch))
    return list({(event["type"], _id(event)): _row(event) for event in events}.values())


class ByHand:
    """Appends the rows of batches that were acknowledged; of a view only its newest version is a row."""

    def __init__(self, data: Path, profiles: int) -> None:
        self._database = open_by_hand(data)
        self.profiles = profiles

    def run(self, senders: Senders, connections: int, seconds: float) -> float:
        """Events committed a second, for at most so long."""
        rows = json.dumps(newest_rows(senders.batch, self.profiles))
        marks = list(senders.marks)
        started_s = time.perf_counter()

        def append(database: duckdb.DuckDBPyConnection) -> int:
            done = 0
            while time.perf_counter() - started_s < seconds:
                try:
                    mark = marks.pop()
                except IndexError:
                    break
                database.execute(_APPEND, [rows.replace(MARK, mark)])
                done += 1
            return done

        with ThreadPoolExecutor(connections) as pool, ExitStack() as stack:
            cursors = [stack.enter_context(closing(self._database.cursor())) for _ in range(connections)]
            done = sum(pool.map(append, cursors))
        return done * senders.batch / (time.perf_counter() - started_s)

    def compare(self, product: Path) -> None:
        """That the product has every row appended by hand."""
        self._database.execute(f"ATTACH '{product}' AS product (READ_ONLY)")
        same("stream, stored events", self._database.execute(_MISSING).fetchall(), [])
        self._database.close()


class Readers:
    """Loops that query with short pauses until they are stopped."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._stop = threading.Event()
        self.waits_ms: list[float] = []
        self._threads = [threading.Thread(target=self._loop, args=(n,)) for n in range(QUERIES_BESIDE)]

    def _loop(self, number: int) -> None:
        page = {"data": {"type": "query_users_request", "attributes": {"query": "user_email:*1*", "limit": 25}}}
        event = {"data": {"type": "query_event_filtered_users_request", "attributes": {"limit": 25}}}
        event["data"]["attributes"]["event_query"] = {"query": "@type:action"}  # type: ignore[index]
        with self._server.wire() as wire:
            while not self._stop.wait(PAUSE_S):
                path, body = (_USERS_PATH, page) if number % 2 else (EVENTS_PATH, event)
                started_s = time.perf_counter()
                wire.ask("POST", path, body)
                self.waits_ms.append((time.perf_counter() - started_s) * 1000)

    def __enter__(self) -> Readers:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()


def run_stream(data: Path, keys: Keys, size: Size) -> Outcome:
    """Every batch size for some seconds; then 1,000 at a time beside queries; all read back in the end."""
    seconds = min(20.0, size.events / 50_000)
    share = SMALL_SHARE if size.events < SMALL_EVENTS else 1
    made: list[Contender] = []
    sent = 0
    by_hand = ByHand(data, size.profiles)
    with Server(data, keys) as server:
        for batch, connections in ((b, c // share) for b, c in RUNS):
            name = f"batches of {batch:,}, {connections} connections"
            sent += _measure(server, by_hand, batch, connections, seconds, name, made)
        with Readers(server) as readers:
            sent += _measure(server, by_hand, 1000, 8 // share, seconds, f"beside {QUERIES_BESIDE} queries", made)
        waits = tuple(readers.waits_ms) or (0.0,)
        made.append(Contender("queries beside, p95", (quantile(waits, 0.95),)))
        made.append(server.peak())
        steps = _steps(server)
    stored = duckdb.connect(str(data / "engine.duckdb"), read_only=True)
    found = stored.execute(
        "SELECT count(*) FROM events WHERE application_id = 'stream' AND type <> 'session'"
    ).fetchall()
    stored.close()
    by_hand.compare(data / "engine.duckdb")
    same("stream, events read back", found[0][0], sent)
    return Outcome("stream", f"{sent:,} events acknowledged, each read back once; {steps}", tuple(made))


def _measure(
    server: Server,
    by_hand: ByHand,
    batch: int,
    connections: int,
    seconds: float,
    name: str,
    made: list[Contender],
) -> int:
    """Send, wait until all is stored, note rates; gives the number of distinct events."""
    senders = Senders(server, batch, by_hand.profiles)
    started_s = time.perf_counter()
    rate = senders.run(connections, seconds, name.replace(" ", "-"))
    ended_s = time.perf_counter()
    wait_stored(server.data)
    drained_s = time.perf_counter()
    base = f"{name}, by hand"
    made.append(Contender(f"{name}, acknowledged", (rate,), "events/s", base))
    made.append(Contender(f"{name}, stored", (senders.acknowledged / (drained_s - started_s),), "events/s", base))
    made.append(Contender(base, (by_hand.run(senders, connections, seconds),), "events/s"))
    made.append(Contender(f"{name}, acknowledgement p99", (quantile(tuple(senders.waits_ms), 0.99),)))
    made.append(Contender(f"{name}, last one stored after", (drained_s - ended_s,), "s"))
    return len(senders.marks) * len(newest_rows(batch, by_hand.profiles))


def _id(event: dict[str, Any]) -> str:
    return str(event[event["type"]]["id"])


def _steps(server: Server) -> str:
    """Where decoding spent its time, by the server's own count."""
    with urllib.request.urlopen(f"http://127.0.0.1:{server.port}/metrics") as answer:
        lines = answer.read().decode().splitlines()
    seconds = {
        line.split('step="')[1].split('"')[0]: float(line.rsplit(" ", 1)[1])
        for line in lines
        if line.startswith("roster_intake_step_seconds") and 'step="' in line
    }
    return "decoding: " + ", ".join(f"{name} {spent:.1f} s" for name, spent in sorted(seconds.items(), key=_spent))


def _spent(item: tuple[str, float]) -> float:
    return -item[1]
