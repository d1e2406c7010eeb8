"""Owns the sync workload: a file into all profiles, whole, unchanged and by cursor, and readers beside it.

By hand: the same rows stored, joined and counted by statements on a copy of the database, in the same rounds.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from bench.measure import Contender, Outcome, quantile, same, time_ms
from bench.server import Keys, Server, Wire
from bench.sync_by_hand import ByHand
from bench.sync_readers import FACET, NOTE, PAGE, Asked, reading
from bench.sync_source import COLUMNS, change_database, fields, write_database, write_file
from bench.world import CONNECTION, MAPPING, Size
from roster.settings import Settings

SHOP = "shop"
ROUNDS_MAX = 5
READ_S = 4.0
POLL_S = 0.02
RECORD_SLACK_MS = 500.0
"""What a look may come late, on a busy machine."""
WAIT_S = 900.0
ENDED = ("done", "unchanged", "failed", "cancelled")
STEPS = ("read", "stage", "check", "swap")
SHARES = (50, 95, 99)
NEVER = "366d"
WHOLE, COMMIT, BY_HAND = (
    "sync of a changed file",
    "the same from its end of reading on",
    "stored, joined, counted by hand",
)

Samples = dict[str, list[float]]


@dataclass(frozen=True, slots=True)
class Synced:
    """A run as it was seen: its record, when each step began and it ended (here), its highest memory in MB."""

    run: dict[str, Any]
    asked_s: float
    began_s: dict[str, float]
    ended_s: float
    server_mb: float
    child_mb: float

    def whole_ms(self) -> float:
        """From the request to the first look that shows it ended."""
        return (self.ended_s - self.asked_s) * 1000

    def commit_ms(self) -> float:
        """From the first look that shows reading over."""
        begun = [at for step, at in self.began_s.items() if step != STEPS[0]]
        return (self.ended_s - min(begun, default=self.asked_s)) * 1000

    def recorded_ms(self) -> float:
        """From begin to end as its own record says."""
        started, ended = (datetime.fromisoformat(self.run[name]) for name in ("started", "ended"))
        return (ended - started).total_seconds() * 1000

    def step_ms(self, step: str) -> float:
        """To within the time between two looks."""
        later = [at for name, at in self.began_s.items() if STEPS.index(name) > STEPS.index(step)]
        begun = self.began_s.get(step)
        return 0.0 if begun is None else (min(later, default=self.ended_s) - begun) * 1000

    def counts(self) -> list[int]:
        """What `ByHand.sync` gives."""
        (line,) = self.run["coverage"]
        rows, profiles = line["rows"], line["profiles"]
        stored, keys = self.run["rows"]["stored"], rows["read"] - rows["duplicate"]
        matched = [profiles["all"], profiles["matched"]]
        return [rows["read"], stored, keys, rows["matched"], line["cells"]["accepted"], *matched]


def run_syncs(data: Path, keys: Keys, size: Size, rounds: int) -> Iterator[Outcome]:
    """Files in rounds with the work by hand, then readers beside syncs, then other ways to the same rows."""
    folder = data.resolve() / "sources"
    folder.mkdir()
    copied = shutil.copy(data / "engine.duckdb", folder / "hand.duckdb")
    settings = {"source_folders": json.dumps([str(folder)]), "snapshot_ttl_s": "1", "log_level": "info"}
    by_hand = ByHand(Path(copied), Settings(data=data))
    try:
        with Server(data, keys, settings) as server, server.wire() as wire:
            wire.ask("DELETE", f"{MAPPING}/{CONNECTION}")
            bench = _Bench(folder, size, min(rounds, ROUNDS_MAX), server, wire, by_hand)
            yield bench.run_files()
            yield bench.run_readers()
            yield bench.run_others()
    finally:
        by_hand.close()


class _Bench:
    """The server, its source folder and the work by hand."""

    def __init__(self, folder: Path, size: Size, rounds: int, server: Server, wire: Wire, by_hand: ByHand) -> None:
        self._folder = folder
        self._size = size
        self._rounds = rounds
        self._server = server
        self._wire = wire
        self._by_hand = by_hand
        self._kept = [folder / f"kept{generation}.parquet" for generation in (1, 2)]
        self._path = folder / "shop.parquet"

    def run_files(self) -> Outcome:
        """Every round another generation, then a file that is the same, then one with some rows changed."""
        for generation, path in enumerate(self._kept, 1):
            write_file(self._size, path, generation)
        self._give(0)
        samples: Samples = {}
        self._connect("file", {"path": str(self._path)})
        for number in range(1, self._rounds + 1):
            self._give(number)
            self._by_hand_beside(samples, number)
            _take(samples, "the same file again", self._sync("unchanged").whole_ms())
            self._path.touch()
            _take(samples, "the same file, touched", self._sync("unchanged").whole_ms())
            write_file(self._size, self._path, number % 2 + 1, changed=number)
            _take(samples, "1 % of the rows changed", self._sync("done").whole_ms())
        bases = dict.fromkeys((WHOLE, COMMIT), BY_HAND)
        note = (
            f"{self._size.rows:,} rows of {len(COLUMNS)} columns in Parquet ({self._path.stat().st_size / 1e6:.0f} MB) "
            f"into {self._size.profiles:,} profiles by e-mail; counters equal to those by hand"
        )
        return Outcome("syncs", note, _contenders(samples, bases))

    def _by_hand_beside(self, samples: Samples, number: int) -> None:
        works: list[Callable[[], None]] = [
            lambda: self._take_sync(samples, number),
            lambda: self._take_hand(samples),
        ]
        for work in works if number % 2 else works[::-1]:
            work()
        same("syncs, counters", self._counted, self._counted_by_hand)

    def _take_sync(self, samples: Samples, number: int) -> None:
        synced = self._sync("done")
        self._counted = synced.counts()
        _take(samples, WHOLE, synced.whole_ms())
        _take(samples, COMMIT, synced.commit_ms())
        _take_steps(samples, "step", synced)
        _take(samples, "memory of the server, highest", synced.server_mb)
        _take(samples, "memory of the reading process, highest", synced.child_mb)

    def _take_hand(self, samples: Samples) -> None:
        taken_ms, self._counted_by_hand = time_ms(lambda: self._by_hand.sync(self._path))
        _take(samples, BY_HAND, taken_ms)

    def run_readers(self) -> Outcome:
        """Readers before, during and after a sync, in every round; no answer may be of two generations."""
        samples: Samples = {}
        counted = 0
        for number in range(self._rounds):
            self._give(number)
            with reading(self._server) as readers:
                before_s = readers.wait(READ_S)
                begun_s = time.perf_counter()
                synced = self._sync("done")
                readers.wait(READ_S)
                answers = readers.between(before_s, time.perf_counter())
            counted += len(answers)
            phases = {
                "before": [a for a in answers if a.sent_s < begun_s],
                "during": [a for a in answers if begun_s <= a.sent_s < synced.ended_s],
                "swap": [a for a in answers if synced.began_s.get("swap", synced.ended_s) <= a.sent_s < synced.ended_s],
                "after": [a for a in answers if a.sent_s >= synced.ended_s],
            }
            _take_phases(samples, phases)
            _take(samples, "sync beside readers", synced.whole_ms())
        bases = {name: f"{name.rpartition(', ')[0]}, before" for name in samples if name.endswith(PHASES_COMPARED)}
        return Outcome(
            "sync_readers", f"{NOTE}; {counted:,} answers, each of one generation", _contenders(samples, bases)
        )

    def run_others(self) -> Outcome:
        """The same rows from CSV, and from a database by its cursor."""
        samples: Samples = {}
        self._wire.ask("DELETE", f"{MAPPING}/{SHOP}")
        path = self._folder / "shop.csv"
        write_file(self._size, path, 1)
        synced = self._connect("file", {"path": str(path)})
        _take(samples, "first sync of a CSV file", synced.whole_ms())
        _take(samples, "CSV, step stage", synced.step_ms("stage"))
        _take(samples, "CSV, memory of the server, highest", synced.server_mb)
        taken_ms, counts = time_ms(lambda: self._by_hand.sync(path))
        same("syncs, counters of CSV", synced.counts(), counts)
        _take(samples, "CSV, stored, joined, counted by hand", taken_ms)
        self._wire.ask("DELETE", f"{MAPPING}/{SHOP}")
        path = self._folder / "shop.db"
        write_database(self._size, path)
        synced = self._connect("sqlite", {"path": str(path), "table": "people", "cursor": "changed"})
        _take(samples, "first sync of an SQLite table", synced.whole_ms())
        same("syncs, counters of SQLite", synced.counts(), counts)
        for number in range(1, self._rounds + 1):
            change_database(self._size, path, number)
            synced = self._sync("done")
            _take(samples, "1 % of the rows changed, by cursor", synced.whole_ms())
            _take_steps(samples, "by cursor, step", synced)
            _take(samples, "by cursor, memory of the server, highest", synced.server_mb)
        bases = {"first sync of a CSV file": "CSV, stored, joined, counted by hand"}
        return Outcome("sync_others", "the rows of `syncs` from other places", _contenders(samples, bases))

    def _give(self, number: int) -> None:
        """Put the other generation where the source is, whole."""
        aside = self._path.with_name("aside.parquet")
        shutil.copy(self._kept[number % 2], aside)
        aside.rename(self._path)

    def _connect(self, kind: str, metadata: dict[str, str]) -> Synced:
        """Make the connection and follow its first sync."""
        attributes = {
            "type": kind,
            "join_type": "email",
            "join_attribute": "email",
            "metadata": metadata | {"every": NEVER},
            "fields": fields(),
        }
        body = {"data": {"type": "connection_id", "id": SHOP, "attributes": attributes}}

        def start() -> str:
            self._wire.ask("POST", MAPPING, body)
            deadline_s = time.monotonic() + WAIT_S
            while time.monotonic() < deadline_s:
                source = self._wire.ask("GET", f"/api/roster/sources/users%2F{SHOP}")["data"]["attributes"]
                run = source["running"] or source["run"]
                if run:
                    return str(run["id"])
                time.sleep(POLL_S)
            raise RuntimeError("the first sync did not begin")

        return self._follow(start, "done")

    def _sync(self, phase: str) -> Synced:
        """Have it synced; it must end in this phase."""

        def start() -> str:
            return str(self._wire.ask("POST", f"/api/roster/sources/users%2F{SHOP}/sync")["data"]["id"])

        return self._follow(start, phase)

    def _follow(self, start: Callable[[], str], phase: str) -> Synced:
        self._server.forget_peak()
        asked_s = time.perf_counter()
        id = start()
        began_s: dict[str, float] = {}
        child = 0
        deadline_s = time.monotonic() + WAIT_S
        while time.monotonic() < deadline_s:
            run = self._wire.ask("GET", f"/api/roster/runs/{id}")["data"]["attributes"]
            if run["phase"] in ENDED:
                break
            if run["phase"] == "running":
                began_s.setdefault(run["step"], time.perf_counter())
            child = max(child, self._server.peak_bytes()[1])
            time.sleep(POLL_S)
        ended_s = time.perf_counter()
        if run["phase"] != phase:
            raise RuntimeError(f"a sync is {run['phase']}, not {phase}: {run['failure']}")
        synced = Synced(run, asked_s, began_s, ended_s, self._server.peak_bytes()[0] / 1e6, child / 1e6)
        _check_record(synced)
        return synced


def _check_record(synced: Synced) -> None:
    """Error: RuntimeError when a run's record leaves out a part of the work that was seen from here."""
    seen_ms = sum(map(synced.step_ms, STEPS))
    if synced.recorded_ms() < seen_ms - RECORD_SLACK_MS:
        raise RuntimeError(f"a run says it took {synced.recorded_ms():.0f} ms, its steps took {seen_ms:.0f} ms")


PHASES_COMPARED = ("during", "swap", "after")


def _take(samples: Samples, name: str, value: float) -> None:
    samples.setdefault(name, []).append(value)


def _take_steps(samples: Samples, name: str, synced: Synced) -> None:
    """Those that were seen: in a small world a step may be over between two looks."""
    for step in STEPS:
        if synced.step_ms(step) > 0:
            _take(samples, f"{name} {step}", synced.step_ms(step))


def _take_phases(samples: Samples, phases: dict[str, list[Asked]]) -> None:
    """Quantiles of each phase, and of each kind of request."""
    for what in (PAGE, FACET):
        for share in SHARES:
            for phase, answers in phases.items():
                taken = tuple(a.taken_ms for a in answers if a.what == what)
                if taken:
                    _take(samples, f"{what} p{share}, {phase}", quantile(taken, share / 100))


def _contenders(samples: Samples, bases: dict[str, str]) -> tuple[Contender, ...]:
    def unit(name: str) -> str:
        return "MB" if "memory" in name else "ms"

    def base(name: str) -> str | None:
        """None as well when a phase was too short for an answer in some round: then rounds cannot be paired."""
        found = bases.get(name)
        return found if found and len(samples[found]) == len(samples[name]) else None

    return tuple(Contender(n, tuple(taken), unit(n), base(n)) for n, taken in samples.items())
