"""Many writers at once, in threads and processes, and writers that are killed: no change is lost or half made."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from threading import Barrier

from roster.model.mapping import Mapping, Version, diff_versions, empty
from roster.model.schema import Entity
from roster.store.database import Database
from store.writing_process import add_field, connect

WRITER = Path(__file__).with_name("writing_process.py")
THREADS = 100
PROCESSES, CHANGES = 4, 10
KILLS = 10


def fields_of(mapping: Mapping) -> set[str]:
    return {f.id for c in mapping.connections for f in c.fields}


def assert_serial(database: Database) -> list[Version]:
    """History is whole: contiguous, each version made from the one before, each with its audit row."""
    history = database.list_versions(Entity.USERS)[::-1]
    assert [v.version for v in history] == list(range(1, len(history) + 1))
    before = empty(Entity.USERS)
    for version in history:
        mapping = database.read_mapping(Entity.USERS, version.version)
        assert mapping.version == version.version
        assert version.diff == diff_versions(before, mapping)
        before = mapping
    audited = [e.detail["version"] for e in database.list_audit(10_000) if e.action == "mapping.changed"]
    assert audited[::-1] == [v.version for v in history]
    assert database.read_mapping(Entity.USERS) == before
    return history


def begin(database: Database) -> None:
    database.change_mapping(Entity.USERS, connect, who="test", why="", request=None, now_ms=1)


def test_threads_lose_no_change(database: Database) -> None:
    begin(database)
    names = [f"field_{i}" for i in range(THREADS)]
    together = Barrier(THREADS)

    def change(name: str) -> int:
        together.wait()
        version = add_field(database, name).version
        assert name in fields_of(database.read_mapping(Entity.USERS))
        return version

    with ThreadPoolExecutor(THREADS) as threads:
        versions = list(threads.map(change, names))
    assert sorted(versions) == list(range(2, THREADS + 2))
    history = assert_serial(database)
    assert fields_of(database.read_mapping(Entity.USERS)) == set(names)
    kept = [fields_of(database.read_mapping(Entity.USERS, v.version)) for v in history]
    for version, (old, new) in zip(history[1:], pairwise(kept), strict=True):
        assert new - old == {version.who}


def test_processes_lose_no_change(database: Database, where: str) -> None:
    begin(database)
    arguments = [sys.executable, str(WRITER), "add", where]
    running = [subprocess.Popen([*arguments, f"p{i}", str(CHANGES)]) for i in range(PROCESSES)]
    assert [p.wait() for p in running] == [0] * PROCESSES
    history = assert_serial(database)
    assert len(history) == 1 + PROCESSES * CHANGES
    assert fields_of(database.read_mapping(Entity.USERS)) == {
        f"p{i}_{k}" for i in range(PROCESSES) for k in range(CHANGES)
    }


def test_a_killed_writer_leaves_whole_versions(where: str) -> None:
    seed = random.randrange(10**9)
    print("seed", seed)
    dice = random.Random(seed)
    acknowledged = 0
    for _ in range(KILLS):
        before = acknowledged
        arguments = [sys.executable, str(WRITER), "churn", where]
        with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as writer:
            assert writer.stdout is not None
            for _ in range(dice.randrange(1, 20)):
                acknowledged = int(writer.stdout.readline())
            time.sleep(dice.random() * 0.004)  # anywhere inside a later change
            writer.kill()
            heard = [int(line) for line in writer.stdout if line.endswith("\n")]
            acknowledged = max([acknowledged, *heard])
        assert acknowledged > before
        database = Database.open(where, organisation_id_if_new="org-1", now_ms=1)
        history = assert_serial(database)
        database.close()
        # one more may be kept than was heard of: killed between its commit and its print
        assert len(history) - acknowledged in (0, 1)
