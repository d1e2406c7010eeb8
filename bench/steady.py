"""Owns the steady workload: batches at a fixed rate beside queries; when each is acknowledged, when a query sees it.

A batch has its time whether the one before is answered or not, and its wait counts from that time: a server that
lags cannot slow its senders down and so look fast. By hand: one row in one durable transaction, looked for at once.
"""

from __future__ import annotations

import json
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from uuid import UUID, uuid5

from bench.intake import append_sql, open_by_hand
from bench.measure import Contender, Outcome, quantile, same
from bench.server import Keys, Server
from bench.stream import EVENTS_PATH, MARK, PATH, QUERIES_BESIDE, SMALL_EVENTS, Readers, open_marks, sdk_event
from bench.world import END_MS, Size
from roster.base.time import instant, iso_ms

RATES = (1_000, 5_000, 10_000)
"""Events a second."""
BATCH = 100
CONNECTIONS = 8
LOOK_S, LOOK_MAX_S = 0.02, 300.0
"""Between two looks for an event, and until it counts as lost."""
_NAMES = UUID(int=0)
_APPEND = append_sql(
    {"event_id": "VARCHAR", "time": "TIMESTAMP", "type": "VARCHAR", "user_id": "VARCHAR", "rest": "JSON"}
)


class Paced:
    """Sends batches at their times over several connections."""

    def __init__(self, server: Server, rate: int, seconds: float, profiles: int) -> None:
        self._body = open_marks("\n".join(json.dumps(sdk_event(place, profiles)) for place in range(BATCH)))
        self._server = server
        self._rate = rate
        self._last = max(1, round(rate * seconds / BATCH))
        self._turn = threading.Lock()
        self._next = 0
        self._started_s = time.perf_counter()
        self.waits_ms: list[float] = []
        self._threads = [threading.Thread(target=self._send) for _ in range(CONNECTIONS)]

    def _send(self) -> None:
        with self._server.wire() as wire:
            while True:
                with self._turn:
                    number, self._next = self._next, self._next + 1
                if number >= self._last:
                    return
                packed = wire.pack("POST", PATH, self._body.replace(MARK, f"steady-{self._rate}-{number}").encode())
                due_s = self._started_s + number * BATCH / self._rate
                time.sleep(max(0.0, due_s - time.perf_counter()))
                wire.send(packed)
                self.waits_ms.append((time.perf_counter() - due_s) * 1000)

    def __enter__(self) -> Paced:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        for thread in self._threads:
            thread.join()

    @property
    def goes_on(self) -> bool:
        return any(thread.is_alive() for thread in self._threads)


def run_steady(data: Path, keys: Keys, size: Size) -> Outcome:
    """Each rate for a while, four queries beside it all the time."""
    seconds = min(20.0, size.events / 50_000)
    rates = RATES if size.events >= SMALL_EVENTS else RATES[:1]
    made: list[Contender] = []
    probes = 0
    with Server(data, keys) as server, Readers(server) as readers:
        for rate in rates:
            with Paced(server, rate, seconds, size.profiles) as paced:
                seen_ms = [_probe(server, probes)]
                while paced.goes_on:
                    seen_ms.append(_probe(server, probes + len(seen_ms)))
            probes += len(seen_ms)
            name = f"{rate:,} events/s"
            waits, seen = tuple(paced.waits_ms), tuple(seen_ms)
            made.append(Contender(f"{name}, acknowledged, p50", (quantile(waits, 0.5),)))
            made.append(Contender(f"{name}, acknowledged, p99", (quantile(waits, 0.99),)))
            made.append(Contender(f"{name}, seen by a query, p50", (quantile(seen, 0.5),), base="seen by hand, p50"))
            made.append(Contender(f"{name}, seen by a query, the last", (max(seen),)))
            made.append(Contender(f"{name}, queries beside, p95", (quantile(tuple(readers.waits_ms), 0.95),)))
            readers.waits_ms.clear()
    made.append(Contender("seen by hand, p50", (quantile(_by_hand(data, 20), 0.5),)))
    note = f"batches of {BATCH}, {CONNECTIONS} connections, {QUERIES_BESIDE} queries beside, {probes} events looked for"
    return Outcome("steady", note, tuple(made))


def _probe(server: Server, number: int) -> float:
    """Milliseconds from the acknowledgement of an event of a new user until a query finds that user."""
    user = f"probe-{number}"
    event = sdk_event(0, 1) | {"usr": {"id": user}, "session": {"id": user, "type": "user"}, "date": END_MS}
    event["view"] = {"id": str(uuid5(_NAMES, user)), "url": "https://shop.example/", "referrer": ""}
    asked = {"event_query": {"query": f"@session.id:{user}"}, "limit": 1}
    body = {"data": {"type": "query_event_filtered_users_request", "attributes": asked}}
    with server.wire() as wire:
        wire.send(wire.pack("POST", PATH, json.dumps(event).encode()))
        sent_s = time.perf_counter()
        while time.perf_counter() - sent_s < LOOK_MAX_S:
            if wire.ask("POST", EVENTS_PATH, body)["data"]["attributes"]["hits"]:
                return (time.perf_counter() - sent_s) * 1000
            time.sleep(LOOK_S)
    raise RuntimeError(f"steady: the event of {user} was acknowledged and is not seen after {LOOK_MAX_S:.0f} s")


def _by_hand(data: Path, rounds: int) -> tuple[float, ...]:
    """Milliseconds until a row appended by hand is found."""
    waits_ms = []
    with ExitStack() as stack:
        database = stack.enter_context(open_by_hand(data))
        for number in range(rounds):
            row = {"event_id": f"p{number}", "time": iso_ms(instant(END_MS)), "type": "view", "user_id": f"p{number}"}
            started_s = time.perf_counter()
            database.execute(_APPEND, [json.dumps([row | {"rest": {}}])])
            found = database.execute("SELECT user_id FROM events WHERE user_id = ?", [row["user_id"]]).fetchall()
            waits_ms.append((time.perf_counter() - started_s) * 1000)
            same("steady, by hand", found, [(row["user_id"],)])
    return tuple(waits_ms)
