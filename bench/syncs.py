"""Owns the sync workload: a file into all profiles, whole, unchanged and by cursor, and readers beside it.

By hand: the same rows stored, joined and counted by statements on a copy of the database, in the same rounds.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from bench.measure import Outcome, same, time_ms
from bench.server import PEAK, Keys, Server
from bench.sync_by_hand import ByHand
from bench.sync_readers import NOTE, against_before, sync_beside
from bench.sync_runs import Samples, Syncing, contenders, take, take_by_cursor, take_steps
from bench.sync_source import COLUMNS, change_database, write_database, write_file
from bench.world import CONNECTION, MAPPING, Size
from roster.settings import Settings

ROUNDS_MAX = 5
WHOLE, COMMIT, BY_HAND = (
    "sync of a changed file",
    "the same from its end of reading on",
    "stored, joined, counted by hand",
)


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
            bench = _Bench(folder, size, min(rounds, ROUNDS_MAX), Syncing(server, wire), by_hand)
            yield bench.run_files()
            yield bench.run_readers()
            yield bench.run_others()
    finally:
        by_hand.close()


class _Bench:
    """The server, its source folder and the work by hand."""

    def __init__(self, folder: Path, size: Size, rounds: int, syncing: Syncing, by_hand: ByHand) -> None:
        self._folder = folder
        self._size = size
        self._rounds = rounds
        self._syncing = syncing
        self._by_hand = by_hand
        self._kept = [folder / f"kept{generation}.parquet" for generation in (1, 2)]
        self._path = folder / "shop.parquet"

    def run_files(self) -> Outcome:
        """Every round another generation, then a file that is the same, then one with some rows changed."""
        for generation, path in enumerate(self._kept, 1):
            write_file(self._size, path, generation)
        self._give(0)
        samples: Samples = {}
        self._syncing.connect("file", {"path": str(self._path)})
        for number in range(1, self._rounds + 1):
            self._give(number)
            self._by_hand_beside(samples, number)
            take(samples, "the same file again", self._syncing.sync("unchanged").whole_ms())
            self._path.touch()
            take(samples, "the same file, touched", self._syncing.sync("unchanged").whole_ms())
            write_file(self._size, self._path, number % 2 + 1, changed=number)
            take(samples, "1 % of the rows changed", self._syncing.sync("done").whole_ms())
        bases = dict.fromkeys((WHOLE, COMMIT), BY_HAND)
        note = (
            f"{self._size.rows:,} rows of {len(COLUMNS)} columns in Parquet ({self._path.stat().st_size / 1e6:.0f} MB) "
            f"into {self._size.profiles:,} profiles by e-mail; counters equal to those by hand"
        )
        return Outcome("syncs", note, contenders(samples, bases))

    def _by_hand_beside(self, samples: Samples, number: int) -> None:
        works: list[Callable[[], None]] = [
            lambda: self._take_sync(samples, number),
            lambda: self._take_hand(samples),
        ]
        for work in works if number % 2 else works[::-1]:
            work()
        same("syncs, counters", self._counted, self._counted_by_hand)

    def _take_sync(self, samples: Samples, number: int) -> None:
        synced = self._syncing.sync("done")
        self._counted = synced.counts()
        take(samples, WHOLE, synced.whole_ms())
        take(samples, COMMIT, synced.commit_ms())
        take_steps(samples, "step", synced)
        take(samples, PEAK, synced.server_mb)
        take(samples, "memory of the reading process, highest", synced.child_mb)

    def _take_hand(self, samples: Samples) -> None:
        taken_ms, self._counted_by_hand = time_ms(lambda: self._by_hand.sync(self._path))
        take(samples, BY_HAND, taken_ms)

    def run_readers(self) -> Outcome:
        """Readers before, during and after a sync, in every round; no answer may be of two generations."""
        samples: Samples = {}
        counted = 0
        for number in range(self._rounds):
            self._give(number)
            counted += sync_beside(self._syncing, samples)
        return Outcome(
            "sync_readers",
            f"{NOTE}; {counted:,} answers, each of one generation",
            contenders(samples, against_before(samples)),
        )

    def run_others(self) -> Outcome:
        """The same rows from CSV, and from a database by its cursor."""
        samples: Samples = {}
        self._syncing.disconnect()
        path = self._folder / "shop.csv"
        write_file(self._size, path, 1)
        synced = self._syncing.connect("file", {"path": str(path)})
        take(samples, "first sync of a CSV file", synced.whole_ms())
        take(samples, "CSV, step stage", synced.step_ms("stage"))
        take(samples, f"CSV, {PEAK}", synced.server_mb)
        taken_ms, counts = time_ms(lambda: self._by_hand.sync(path))
        same("syncs, counters of CSV", synced.counts(), counts)
        take(samples, "CSV, stored, joined, counted by hand", taken_ms)
        self._syncing.disconnect()
        path = self._folder / "shop.db"
        write_database(self._size, path)
        synced = self._syncing.connect("sqlite", {"path": str(path), "table": "people", "cursor": "changed"})
        take(samples, "first sync of an SQLite table", synced.whole_ms())
        same("syncs, counters of SQLite", synced.counts(), counts)
        for number in range(1, self._rounds + 1):
            change_database(self._size, path, number)
            take_by_cursor(samples, self._syncing.sync("done"))
        bases = {"first sync of a CSV file": "CSV, stored, joined, counted by hand"}
        return Outcome("sync_others", "the rows of `syncs` from other places", contenders(samples, bases))

    def _give(self, number: int) -> None:
        """Put the other generation where the source is, whole."""
        aside = self._path.with_name("aside.parquet")
        shutil.copy(self._kept[number % 2], aside)
        aside.rename(self._path)
