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

from bench.measure import Contender, Outcome, quantile, same
from bench.server import Keys, Server, Wire
from bench.stream import MARK, PATH, SMALL_EVENTS, newest_rows, open_marks, sdk_event
from bench.world import END_MS, Size

HOURS = 24
HOUR_MS = 3_600_000
BATCH = 500
CONNECTIONS = 4
LATE_SHARE, TWICE_SHARE = 0.05, 0.05
LATE_HOURS_MAX = 8
QUIET_S, IDLE_S = 40.0, 30.0
"""Waited after the last event until sessions have ended, and then watched for work."""
_AT = "%AT%"


class Day:
    """The batches of a day by a seed: how many an hour, of which time, and which come twice."""

    def __init__(self, events: int, seed: int) -> None:
        self._dice = random.Random(seed)
        weights = [1.2 - math.cos(2 * math.pi * (hour - 3) / HOURS) for hour in range(HOURS)]
        self.batches = [max(1, round(events / BATCH * weight / sum(weights))) for weight in weights]

    def marks(self, hour: int) -> list[tuple[str, int]]:
        """Each batch of an hour: its mark and the time of its first event; those that come twice are there twice."""
        made = []
        for number in range(self.batches[hour]):
            late = self._dice.random() < LATE_SHARE
            of_hour = max(0, hour - self._dice.randint(1, LATE_HOURS_MAX)) if late else hour
            at_ms = END_MS + of_hour * HOUR_MS + HOUR_MS * number // self.batches[hour]
            made += [(f"soak-{hour}-{number}", at_ms)] * (2 if self._dice.random() < TWICE_SHARE else 1)
        return made


def run_soak(data: Path, keys: Keys, size: Size) -> Outcome:
    """A fifth of the world's events in a day; read back, then left alone."""
    day = Day(size.events // 5, size.seed)
    lines = [open_marks(json.dumps(sdk_event(place, size.profiles) | {"date": _AT})) for place in range(BATCH)]
    short = size.events < SMALL_EVENTS
    made: list[Contender] = []
    waits_ms: list[float] = []
    sent = twice = 0
    grown = -_stored_bytes(data)
    with Server(data, keys) as server:
        with ExitStack() as stack, ThreadPoolExecutor(CONNECTIONS) as pool:
            wires = [stack.enter_context(server.wire()) for _ in range(CONNECTIONS)]
            for hour in range(0, HOURS, 6 if short else 1):
                marks = day.marks(hour)
                shares = [(wire, marks[n::CONNECTIONS], lines) for n, wire in enumerate(wires)]
                for waits in pool.map(_send, shares):
                    waits_ms += waits
                sent += len(set(marks))
                twice += len(marks) - len(set(marks))
                _wait_stored(server)
                if hour % 6 == 0:
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


def _wait_stored(server: Server) -> None:
    while any((server.data / "log").glob("events-*.ndjson")):
        time.sleep(0.02)


def _busy_share(server: Server, seconds: float) -> float:
    """Of one processor."""
    before_s = server.processor_s()
    time.sleep(seconds)
    return (server.processor_s() - before_s) / seconds


def _stored_bytes(data: Path) -> int:
    return sum(path.stat().st_size for path in data.glob("engine.duckdb*") if path.is_file())


def _write_anew(data: Path) -> tuple[int, int]:
    """Rows of the day without its sessions, and the bytes of a file that holds these and the sessions alone."""
    target = data / "soak.duckdb"
    with duckdb.connect(str(target)) as database:
        database.execute(f"ATTACH '{data / 'engine.duckdb'}' AS product (READ_ONLY)")
        database.execute("CREATE TABLE events AS FROM product.events WHERE application_id = 'stream' ORDER BY rowid")
        found = database.execute("SELECT count(*) FROM events WHERE type <> 'session'").fetchone()
    return (found[0] if found else 0), target.stat().st_size
