"""Owns the command: `python -m bench [workload ...]`. Makes or reuses a world, runs, prints, writes JSON."""

from __future__ import annotations

import argparse
import fcntl
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from bench.analyses import ANALYSES
from bench.analysis_runs import run_analysis
from bench.databases import run_databases
from bench.engines import run_engines
from bench.history import run_history
from bench.intake import run_intake
from bench.measure import Outcome
from bench.previews import run_previews
from bench.queries import READS
from bench.reads import run_read
from bench.report import machine, table, write_json
from bench.server import Server
from bench.soak import run_soak
from bench.sources import run_sources
from bench.start import run_start
from bench.steady import run_steady
from bench.stream import run_stream
from bench.syncs import run_syncs
from bench.update import run_update
from bench.world import HOME, Size, World, open_world
from roster.main import Product, SystemClock

NAMES = (
    "start",
    *(r.name for r in READS),
    *(a.name for a in ANALYSES),
    "previews",
    "update",
    "history",
    "syncs",
    "intake",
    "stream",
    "steady",
    "soak",
    "sources",
    "databases",
    "engines",
)
NEED_PROGRAMS = ("sources", "databases", "engines")
UNASKED = tuple(name for name in NAMES if name not in NEED_PROGRAMS)
"""All but what needs programs of others."""
ALL_OF = {"analyses": tuple(a.name for a in ANALYSES)}
"""Names that stand for several workloads."""


def main(words: list[str] | None = None) -> int:
    """Run the named workloads, all when none is named."""
    parser = argparse.ArgumentParser("bench", description=__doc__)
    parser.add_argument(
        "workload",
        nargs="*",
        help=f"any of {', '.join(NAMES)}; all but {', '.join(NEED_PROGRAMS)} when none is named",
    )
    parser.add_argument("--profiles", type=int, default=1_000_000)
    parser.add_argument("--rows", type=int, default=1_000_000, help="rows of the CRM table")
    parser.add_argument("--events", type=int, default=10_000_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--folder", type=Path, default=HOME, help="where worlds and results.json are kept")
    asked = parser.parse_args(words)
    named = [name for word in asked.workload for name in ALL_OF.get(word, (word,))]
    unknown = set(named) - set(NAMES)
    if unknown or not 0 < asked.profiles <= asked.events or asked.rounds < 1 or asked.rows < 1:
        parser.error(f"unknown workload {', '.join(sorted(unknown))}" if unknown else "a size is out of range")
    size = Size(asked.profiles, asked.rows, asked.events, asked.seed)
    chosen = tuple(named) or UNASKED
    asked.folder.mkdir(parents=True, exist_ok=True)
    with (asked.folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            parser.error(f"another benchmark runs in {asked.folder}")
        world = open_world(size, _say, asked.folder)
        outcomes = []
        for outcome in run(world, size, chosen, asked.rounds):
            _say(f"{outcome.workload} done")
            outcomes.append(outcome)
    told = machine(size, asked.rounds)
    print(table(outcomes))
    print("machine: " + ", ".join(f"{name} {value}" for name, value in told.items()))
    write_json(asked.folder / "results.json", world, told, outcomes)
    return 0


def _say(line: str) -> None:
    print(time.strftime("%H:%M:%S"), line, file=sys.stderr)


def run(world: World, size: Size, chosen: tuple[str, ...], rounds: int) -> Iterator[Outcome]:
    """The chosen workloads on a copy of the world that is thrown away afterwards."""
    copy = world.lend()
    try:
        if "start" in chosen:
            yield run_start(copy, world.keys, rounds)
        yield from _run_paired(world, copy, chosen, rounds)
        if "history" in chosen:
            yield run_history(world.lend(), world, size, rounds)
        if "intake" in chosen:
            yield run_intake(copy, world.keys, size, rounds)
        if "stream" in chosen:
            yield run_stream(world.lend(), world.keys, size)
        if "steady" in chosen:
            yield run_steady(world.lend(), world.keys, size)
        if "soak" in chosen:
            yield run_soak(world.lend(), world.keys, size)
        if "syncs" in chosen:
            yield from run_syncs(world.lend(), world.keys, size, rounds)
        if "sources" in chosen:
            yield from run_sources(size.rows, rounds)
        if "engines" in chosen:
            yield from run_engines(world.lend(), world.keys, rounds)
        if "databases" in chosen:
            yield from run_databases(world.lend(), world.keys, size, rounds)
    finally:
        shutil.rmtree(copy)


def _run_paired(world: World, copy: Path, chosen: tuple[str, ...], rounds: int) -> Iterator[Outcome]:
    """What runs over HTTP on the copy and by hand on the original, in the same rounds."""
    reads, analyses = [r for r in READS if r.name in chosen], [a for a in ANALYSES if a.name in chosen]
    if not reads and not analyses and not {"previews", "update"} & {*chosen}:
        return
    product = Product(world.settings(), SystemClock())
    connection = product.duck.cursor()
    try:
        with Server(copy, world.keys) as server, server.wire() as wire:
            for read in reads:
                yield run_read(read, product.context, connection, wire, world.table_id, rounds)
            for analysis in analyses:
                yield run_analysis(analysis, product.context, connection, server, wire, rounds)
            if "previews" in chosen:
                yield run_previews(connection, server, wire, world.table_id, rounds)
            if "update" in chosen:
                yield run_update(connection, wire, rounds)
    finally:
        connection.close()
        product.log.close()
        product.duck.close()
        product.store.close()


if __name__ == "__main__":
    sys.exit(main())
