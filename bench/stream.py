"""Owns the stream workload: events of browser SDKs without a pause, also beside queries, counted by reading back.

The senders keep their connections busy; what the server cannot store in time it must acknowledge later, not lose.
"""

from __future__ import annotations

import json
import threading
import time
import urllib.request
from contextlib import ExitStack
from pathlib import Path

import duckdb

from bench.measure import Contender, Outcome, quantile, same
from bench.server import Keys, Server, Wire
from bench.world import END_MS, Size

PATH = "/api/v2/rum?ddsource=browser"
RUNS = ((1, 8), (100, 8), (1000, 8), (1000, 64))
"""Events of a request and connections; the last but one is the one beside queries."""
QUERIES_BESIDE = 4
PAUSE_S = 0.2
_MARK = "\0mark"
_USERS_PATH = "/api/v2/product-analytics/users/query"
_EVENTS_PATH = "/api/v2/product-analytics/users/event_filtered_query"
_KINDS = ("view", "action", "resource", "view", "error")


def _event(place: int, profiles: int) -> dict[str, object]:
    """One event as an SDK sends it, its identity still open."""
    kind, user = _KINDS[place % len(_KINDS)], (place // 10 * 7919) % profiles
    visit = f"{_MARK}-{place // 10}"
    own: dict[str, object] = {"id": f"{_MARK}-{place}", "type": "click", "target": {"name": "Buy"}}
    event: dict[str, object] = {
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


class Senders:
    """Threads that send batches for some seconds; every batch has identities of its own."""

    def __init__(self, server: Server, keys: Keys, batch: int, profiles: int) -> None:
        lines = [json.dumps(_event(place, profiles)) for place in range(batch)]
        self._body = "\n".join(lines).replace(json.dumps(_MARK)[1:-1], "%MARK%").encode()
        self._server = server
        self._batch = batch
        self._turn = threading.Lock()
        self._number = 0
        self.views = sum(_KINDS[place % len(_KINDS)] == "view" for place in range(batch))
        self.acknowledged = 0
        self.waits_ms: list[float] = []

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
                mark = f"{name}-{self._number}".encode()
            packed = wire.pack("POST", PATH, self._body.replace(b"%MARK%", mark))
            started_s = time.perf_counter()
            answered = wire.send(packed)
            with self._turn:
                self.waits_ms.append((time.perf_counter() - started_s) * 1000)
                if b"request_id" in answered:
                    self.acknowledged += self._batch


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
                path, body = (_USERS_PATH, page) if number % 2 else (_EVENTS_PATH, event)
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
    made: list[Contender] = []
    sent = 0
    with Server(data, keys) as server:
        for batch, connections in RUNS:
            name = f"batches of {batch:,}, {connections} connections"
            sent += _measure(server, keys, size, batch, connections, seconds, name, made)
        with Readers(server) as readers:
            sent += _measure(server, keys, size, 1000, 8, seconds, f"beside {QUERIES_BESIDE} queries", made)
        waits = tuple(readers.waits_ms) or (0.0,)
        made.append(Contender("queries beside, p95", (quantile(waits, 0.95),)))
        made.append(Contender("memory of the server, highest", (server.peak_bytes()[0] / 1e6,), "MB"))
        steps = _steps(server)
    stored = duckdb.connect(str(data / "engine.duckdb"), read_only=True)
    found = stored.execute(
        "SELECT count(*) FROM events WHERE application_id = 'stream' AND type <> 'session'"
    ).fetchall()
    stored.close()
    same("stream, events read back", found[0][0], sent)
    return Outcome("stream", f"{sent:,} events acknowledged, each read back once; {steps}", tuple(made))


def _measure(
    server: Server,
    keys: Keys,
    size: Size,
    batch: int,
    connections: int,
    seconds: float,
    name: str,
    made: list[Contender],
) -> int:
    """Send, wait until all is stored, note rates; gives the number of distinct events."""
    senders = Senders(server, keys, batch, size.profiles)
    started_s = time.perf_counter()
    rate = senders.run(connections, seconds, name.replace(" ", "-"))
    ended_s = time.perf_counter()
    while any((server.data / "log").glob("events-*.ndjson")):
        time.sleep(0.01)
    drained_s = time.perf_counter()
    made.append(Contender(f"{name}, acknowledged", (rate,), "events/s"))
    made.append(Contender(f"{name}, stored", (senders.acknowledged / (drained_s - started_s),), "events/s"))
    made.append(Contender(f"{name}, acknowledgement p99", (quantile(tuple(senders.waits_ms), 0.99),)))
    made.append(Contender(f"{name}, last one stored after", (drained_s - ended_s,), "s"))
    distinct = len({json.dumps([e["type"], _id(e)]) for e in (_event(place, size.profiles) for place in range(batch))})
    return senders.acknowledged // batch * distinct


def _id(event: dict[str, object]) -> object:
    own = event[str(event["type"])]
    assert isinstance(own, dict)
    return own["id"]


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
