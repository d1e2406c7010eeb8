"""Owns the start workload: from spawning a process to its first answer, and the memory it then holds.

By hand: a Python process that opens the same file under the same limits and runs the page's SQL.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

from bench.measure import Contender, Outcome, same
from bench.queries import READS, enriched
from bench.server import Keys, Server
from roster.settings import Settings

ROUNDS_MAX = 7
IDLE_S = 1.0
OPEN, FIRST, BY_HAND = "port open", "first answer", "first answer by hand"
RSS, ANON, RSS_BY_HAND, ANON_BY_HAND = "idle RSS", "of it anonymous", "idle RSS by hand", "of it anonymous by hand"
_SCRIPT = """
import duckdb, json, sys
path, config, statements = json.loads(sys.argv[1])
connection = duckdb.connect(path, config=config)
answers = [connection.execute(sql).fetchall() for sql in statements]
print(answers[1][0][0], flush=True)
sys.stdin.readline()
for line in open("/proc/self/status"):
    if line.startswith(("VmRSS", "RssAnon")):
        print(line.split()[1], flush=True)
"""


def run_start(data: Path, keys: Keys, rounds: int) -> Outcome:
    """Each round starts and stops a server, then the process by hand, on the same data folder."""
    samples: dict[str, list[float]] = {n: [] for n in (OPEN, FIRST, BY_HAND, RSS, ANON, RSS_BY_HAND, ANON_BY_HAND)}
    for number in range(-1, min(rounds, ROUNDS_MAX)):
        ours, our_total = _start_server(data, keys)
        theirs, their_total = _start_by_hand(data)
        same("start, total of the first page", our_total, their_total)
        if number >= 0:
            for name, value in (ours | theirs).items():
                samples[name].append(value)
    bases = {FIRST: BY_HAND, RSS: RSS_BY_HAND, ANON: ANON_BY_HAND}
    units = dict.fromkeys((RSS, ANON, RSS_BY_HAND, ANON_BY_HAND), "MB")
    note = f"files in the page cache; the first answer is that of `page`; memory {IDLE_S:g} s after it"
    made = (Contender(n, tuple(s), units.get(n, "ms"), bases.get(n)) for n, s in samples.items())
    return Outcome("start", note, tuple(made))


def _start_server(data: Path, keys: Keys) -> tuple[dict[str, float], int]:
    started_s = time.perf_counter()
    with Server(data, keys) as server:
        open_ms = (time.perf_counter() - started_s) * 1000
        with server.wire() as wire:
            answer = wire.ask("POST", READS[0].path, READS[0].body)
            first_ms = (time.perf_counter() - started_s) * 1000
        time.sleep(IDLE_S)
        rss, anonymous = server.memory_bytes()
    total = answer["data"]["attributes"]["total"]
    return {OPEN: open_ms, FIRST: first_ms, RSS: rss / 1e6, ANON: anonymous / 1e6}, total


def _start_by_hand(data: Path) -> tuple[dict[str, float], int]:
    settings = Settings(data=data)
    config = {"memory_limit": settings.engine_memory, "threads": settings.engine_threads}
    words = json.dumps([str(data / "engine.duckdb"), config, READS[0].by_hand(enriched())])
    started_s = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-c", _SCRIPT, words], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    line = process.stdout.readline()
    first_ms = (time.perf_counter() - started_s) * 1000
    time.sleep(IDLE_S)
    rest, _ = process.communicate("\n", timeout=60)
    rss, anonymous = (int(line) * 1024 / 1e6 for line in rest.split())
    return {BY_HAND: first_ms, RSS_BY_HAND: rss, ANON_BY_HAND: anonymous}, int(line)
