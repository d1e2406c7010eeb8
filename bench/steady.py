"""Owns the steady workload: batches at a fixed rate beside queries; when each is acknowledged, when a query sees it.

A batch has its time whether the one before is answered or not, and its wait counts from that time: a server that
lags cannot slow its senders down and so look fast. By hand: one row in one durable transaction, looked for at once.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from bench.intake import append_sql, open_by_hand
from bench.measure import Contender, Outcome, quantile, same
from bench.server import Keys, Server
from bench.stream import EVENTS_PATH, MARK, PATH, QUERIES_BESIDE, SMALL_EVENTS, Readers, sdk_event, sdk_lines
from bench.world import END_MS, Size
from roster.base.time import instant, iso_ms

RATES = (1_000, 5_000, 10_000)
"""Events a second."""
BATCH = 100
CONNECTIONS = 8
LOOK_S, LOOK_MAX_S = 0.02, 300.0
"""Between two looks for an event, and until it counts as lost."""
_APPEND = append_sql(
    {"event_id": "VARCHAR", "time": "TIMESTAMP", "type": "VARCHAR", "user_id": "VARCHAR", "rest": "JSON"}
)


def _pace(server: Server, lines: str, rate: int, numbers: Iterator[int], began_s: float) -> list[float]:
    """Send batches at their times over one connection; gives the milliseconds each was late with its answer."""
    waits_ms = []
    with server.wire() as wire:
        for number in numbers:
            packed = wire.pack("POST", PATH, lines.replace(MARK, f"steady-{rate}-{number}").encode())
            due_s = began_s + number * BATCH / rate
            time.sleep(max(0.0, due_s - time.perf_counter()))
            wire.send(packed)
            waits_ms.append((time.perf_counter() - due_s) * 1000)
    return waits_ms


def run_steady(data: Path, keys: Keys, size: Size) -> Outcome:
    """Each rate for a while, four queries beside it all the time."""
    seconds = min(20.0, size.events / 50_000)
    lines = sdk_lines(BATCH, size.profiles)
    rates = RATES if size.events >= SMALL_EVENTS else RATES[:1]
    made: list[Contender] = []
    probes = 0
    with Server(data, keys) as server, Readers(server) as readers:
        for rate in rates:
            numbers, began_s = iter(range(max(1, round(rate * seconds / BATCH)))), time.perf_counter()
            with ThreadPoolExecutor(CONNECTIONS) as pool:
                paced = [pool.submit(_pace, server, lines, rate, numbers, began_s) for _ in range(CONNECTIONS)]
                seen_ms = [_probe(server, probes)]
                while not all(sender.done() for sender in paced):
                    seen_ms.append(_probe(server, probes + len(seen_ms)))
            probes += len(seen_ms)
            name = f"{rate:,} events/s"
            waits, seen = tuple(wait for sender in paced for wait in sender.result()), tuple(seen_ms)
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
    event = sdk_event(0, 1) | {"usr": {"id": user}, "session": {"id": user, "type": "user"}}
    event["view"] = {"id": user, "url": "https://shop.example/", "referrer": ""}
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
    with open_by_hand(data) as database:
        for number in range(rounds):
            row = {"event_id": f"p{number}", "time": iso_ms(instant(END_MS)), "type": "view", "user_id": f"p{number}"}
            started_s = time.perf_counter()
            database.execute(_APPEND, [json.dumps([row | {"rest": {}}])])
            found = database.execute("SELECT user_id FROM events WHERE user_id = ?", [row["user_id"]]).fetchall()
            waits_ms.append((time.perf_counter() - started_s) * 1000)
            same("steady, by hand", found, [(row["user_id"],)])
    return tuple(waits_ms)
