"""Owns the soak workload: a day of traffic in minutes, with its hours busy and quiet, late events, and batches twice.

After each hour it is waited until all is stored. What is looked at is what stays: memory, file, work when all is quiet.
By hand: the stored rows written to a file of their own, which has no holes and nothing that was replaced.
"""

from __future__ import annotations

import json
import math
import random
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import duckdb

from bench.intake import wait_stored
from bench.measure import Contender, Outcome, quantile, same
from bench.server import Keys, Server, Wire
from bench.stream import MARK, PATH, SMALL_EVENTS, newest_rows, sdk_event
from bench.world import END_MS, Size

HOURS, SAMPLE_HOURS = 24, 6
"""The memory is read every so many hours, and a small world has only these hours."""
HOUR_MS = 3_600_000
BATCH = 500
CONNECTIONS = 4
LATE_SHARE, TWICE_SHARE = 0.05, 0.05
LATE_HOURS_MAX = 8
QUIET_S, IDLE_S = 40.0, 30.0
"""Waited after the last event until sessions have ended, and then watched for work."""
_AT = "%AT%"


def _day(events: int, seed: int) -> list[list[tuple[str, int]]]:
    """The batches of each hour: mark, and time of the first event; those that come twice are there twice."""
    dice = random.Random(seed)
    weights = [1.2 - math.cos(2 * math.pi * (hour - 3) / HOURS) for hour in range(HOURS)]
    day = []
    for hour, weight in enumerate(weights):
        batches = max(1, round(events / BATCH * weight / sum(weights)))
        marks: list[tuple[str, int]] = []
        for number in range(batches):
            late = dice.random() < LATE_SHARE
            of_hour = max(0, hour - dice.randint(1, LATE_HOURS_MAX)) if late else hour
            at_ms = END_MS + of_hour * HOUR_MS + HOUR_MS * number // batches
            marks += [(f"soak-{hour}-{number}", at_ms)] * (2 if dice.random() < TWICE_SHARE else 1)
        day.append(marks)
    return day


def run_soak(data: Path, keys: Keys, size: Size) -> Outcome:
    """A fifth of the world's events in a day; read back, then left alone."""
    day = _day(size.events // 5, size.seed)
    lines = [json.dumps(sdk_event(place, size.profiles) | {"date": _AT}) for place in range(BATCH)]
    short = size.events < SMALL_EVENTS
    made: list[Contender] = []
    waits_ms: list[float] = []
    sent = twice = 0
    grown = -_stored_bytes(data)
    with Server(data, keys) as server:
        with ExitStack() as stack, ThreadPoolExecutor(CONNECTIONS) as pool:
            wires = [stack.enter_context(server.wire()) for _ in range(CONNECTIONS)]
            for hour in range(0, HOURS, SAMPLE_HOURS if short else 1):
                marks = day[hour]
                shares = [(wire, marks[n::CONNECTIONS], lines) for n, wire in enumerate(wires)]
                for waits in pool.map(_send, shares):
                    waits_ms += waits
                sent += len(set(marks))
                twice += len(marks) - len(set(marks))
                wait_stored(data)
                if hour % SAMPLE_HOURS == 0:
                    made.append(Contender(f"memory after hour {hour}", (server.memory_bytes()[1] / 1e6,), "MB"))
        made.append(Contender("acknowledgement p99", (quantile(tuple(waits_ms), 0.99),)))
        time.sleep(1.0 if short else QUIET_S)
        made.append(Contender("processor when idle", (_busy_share(server, 1.0 if short else IDLE_S) * 100,), "%"))
        made.append(Contender("memory when idle", (server.memory_bytes()[1] / 1e6,), "MB"))
    grown += _stored_bytes(data)
    rows, by_hand_bytes = _write_anew(data)
    same("soak, events read back", rows, sent * len(newest_rows(BATCH, size.profiles)))
    made.append(Contender("growth of the file", (grown / 1e6,), "MB", "its rows in a file of their own"))
    made.append(Contender("its rows in a file of their own", (by_hand_bytes / 1e6,), "MB"))
    note = f"{sent * BATCH:,} events of {HOURS} hours, {twice * BATCH:,} of them sent twice; {rows:,} rows, each once"
    return Outcome("soak", note, tuple(made))


def _send(share: tuple[Wire, list[tuple[str, int]], list[str]]) -> list[float]:
    """Milliseconds each batch waited for its answer."""
    wire, marks, lines = share
    waits_ms = []
    for mark, at_ms in marks:
        dated = (line.replace(f'"{_AT}"', str(at_ms + place)) for place, line in enumerate(lines))
        packed = wire.pack("POST", PATH, "\n".join(dated).replace(MARK, mark).encode())
        started_s = time.perf_counter()
        wire.send(packed)
        waits_ms.append((time.perf_counter() - started_s) * 1000)
    return waits_ms


def _busy_share(server: Server, seconds: float) -> float:
    """Of one processor."""
    before_s = server.processor_s()
    time.sleep(seconds)
    return (server.processor_s() - before_s) / seconds


def _stored_bytes(data: Path) -> int:
    return sum(path.stat().st_size for path in data.glob("engine.duckdb*"))


def _write_anew(data: Path) -> tuple[int, int]:
    """Rows of the day without its sessions, and the bytes of a file that holds these and the sessions alone."""
    target = data / "soak.duckdb"
    with duckdb.connect(str(target)) as database:
        database.execute(f"ATTACH '{data / 'engine.duckdb'}' AS product (READ_ONLY)")
        database.execute("CREATE TABLE events AS FROM product.events WHERE application_id = 'stream' ORDER BY rowid")
        found = database.execute("SELECT count(*) FROM events WHERE type <> 'session'").fetchone()
    return (found[0] if found else 0), target.stat().st_size
