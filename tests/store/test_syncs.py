"""The records of syncing on a real database: what goes in comes out, a swap is one step, a cancel is never lost."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from roster.base.errors import Code, Error
from roster.model.reference_table import Table
from roster.model.schema import Column, Type
from roster.model.source import Origin
from roster.model.sync import (
    ENDED,
    Coverage,
    Drift,
    DriftKind,
    Failure,
    Fetched,
    Phase,
    Run,
    State,
    Step,
    Sync,
    Trigger,
)
from roster.ports import Store
from roster.store.connections import Connections
from roster.store.database import Database

WRITER = Path(__file__).with_name("writing_process.py")
ORIGIN = Origin("postgres", (("database", "crm"), ("host", "db"), ("secret", "crm"), ("table", "public.people")))
TABLE = Table(
    id="t1",
    name="users/crm@0123456789ab",
    columns=(Column("email", Type.STRING), Column("mrr", Type.NUMBER)),
    primary_key="email",
    source="POSTGRES",
    description="",
    tags=("crm",),
    row_count=3_000_000_000,
    created_by="ann",
    updated_by="ann",
    created_ms=1_700_000_000_000,
    updated_ms=1_700_000_000_000,
    generation=4,
    held=(("mrr", Type.STRING),),
    owner="users/crm",
    origin=ORIGIN,
    sync_enabled=True,
    access_details='{"aws_detail":{"aws_bucket_name":"é"}}',
)
COVERAGE = Coverage("users", "crm", 10, 6, 3, 1, 18, 12, 5, 1, 1_000, 6, 994)
DRIFT = Drift("mrr", DriftKind.DROPPED, 8, "column 'mrr' is gone", ("users/crm/mrr",), "arr", 0.97)
SYNC = Sync(
    table_id="t1",
    state=State.DRIFTED,
    since_ms=1_700_000_000_001,
    reason="column 'mrr' is gone",
    fingerprint="f" * 64,
    cursor="2026-01-01T00:00:00Z",
    full_ms=1,
    tried_ms=2,
    synced_ms=3,
    total=12,
    failures=5,
    run_id="r1",
    drifts=(DRIFT,),
    offered=(Column("arr", Type.NUMBER), Column("day", Type.DATE)),
    coverage=(COVERAGE, replace(COVERAGE, entity="accounts")),
    told="ok",
)
RUN = Run("r1", "t1", Trigger.SCHEDULE, Phase.QUEUED, Step.READ, 1, queued_ms=1_700_000_000_000)
WHOLE_RUN = replace(
    RUN,
    id="r2",
    phase=Phase.FAILED,
    step=Step.SWAP,
    attempt=5,
    queued_ms=1_700_000_000_001,
    started_ms=2,
    ended_ms=3,
    rows=3_000_000_000,
    rows_total=4_000_000_000,
    bytes=5_000_000_000,
    bytes_total=6_000_000_000,
    stored=7,
    duplicate=8,
    keyless=9,
    accepted=True,
    forced=True,
    cancel_asked=True,
    fetched=Fetched(("0.arrow", "1.arrow"), "arrow", "fp", "c", True, 10, 11, 12),
    coverage=(COVERAGE,),
    failure=Failure("busy", "cut off", "try again", "/x"),
)


@pytest.fixture
def store(database: Database) -> Store:
    """Records with one table."""
    database.add_table(TABLE, who="ann")
    return database


def test_what_describes_a_source_comes_back(database: Database) -> None:
    plain = replace(TABLE, id="t2", name="plain", origin=None, held=(), owner="", sync_enabled=False, access_details="")
    for table in (TABLE, plain):
        database.add_table(table, who="ann")
        assert database.find_table(table.id) == table
    assert database.list_audit(2)[1].detail["origin"] == {"kind": "postgres", "options": dict(ORIGIN.options)}


def test_absent_is_null_in_the_database(store: Store, where: str) -> None:
    """Not the JSON text `null`, which nobody who looks at the tables expects."""
    store.write_run(RUN)
    connections = Connections(where)
    with connections.read() as connection:
        query = "SELECT count(*) FROM sync_runs WHERE fetched IS NULL AND failure IS NULL"
        assert connection.exec_driver_sql(query).scalar() == 1
    connections.close()


# where a source stands


@pytest.mark.parametrize("sync", [SYNC, Sync("t1", State.WAITING, 7)])
def test_a_sync_comes_back(store: Store, sync: Sync) -> None:
    assert store.read_sync("t1") is None
    for kept in (sync, replace(sync, reason="another", offered=(), coverage=())):
        store.write_sync(kept)
        assert store.read_sync("t1") == kept
        assert store.list_syncs() == [kept]


def test_a_sync_is_changed_from_what_is_kept_at_this_moment(store: Store) -> None:
    store.change_sync("t1", lambda kept: replace(kept, failures=1))
    assert store.read_sync("t1") is None
    store.write_sync(replace(SYNC, failures=0))
    with ThreadPoolExecutor(4) as pool:
        for _ in range(20):
            pool.submit(store.change_sync, "t1", lambda kept: replace(kept, failures=kept.failures + 1))
    store.change_sync("t1", lambda kept: replace(kept, told="failing"), WHOLE_RUN)
    assert store.read_sync("t1") == replace(SYNC, failures=20, told="failing")
    assert store.find_run("r2") == WHOLE_RUN
    store.change_sync("gone", lambda kept: kept, replace(RUN, table_id="gone"))
    assert store.find_run("r1") is None


def test_a_sync_of_a_table_that_is_gone_is_not_kept(store: Store) -> None:
    store.write_sync(SYNC)
    store.remove_table("t1", who="ann", now_ms=9)
    store.write_sync(SYNC)
    assert store.list_syncs() == []


# runs


@pytest.mark.parametrize("run", [RUN, WHOLE_RUN])
def test_a_run_comes_back(store: Store, run: Run) -> None:
    assert store.find_run(run.id) is None
    assert store.write_run(run) is run.cancel_asked
    assert store.find_run(run.id) == run
    later = replace(run, rows=1, rows_total=None, fetched=None, failure=None, coverage=())
    store.write_run(later)
    assert store.find_run(run.id) == later


def test_runs_are_listed_newest_first_and_unfinished_oldest_first(store: Store) -> None:
    store.add_table(replace(TABLE, id="t2", name="other"), who="ann")
    runs = [replace(RUN, id=f"r{i}", queued_ms=10 - i, phase=phase) for i, phase in enumerate(Phase)]
    other = replace(RUN, id="other", table_id="t2", queued_ms=1)
    for run in (*runs, other):
        store.write_run(run)
    assert store.list_runs("t1", 100) == runs
    assert store.list_runs("t1", 2) == runs[:2]
    assert store.unfinished_runs() == [other, *(r for r in reversed(runs) if r.phase not in ENDED)]


def test_runs_of_one_moment_are_in_order_of_their_attempts(store: Store) -> None:
    runs = [replace(RUN, id=id, attempt=n) for n, id in enumerate("bca", 1)]
    for run in reversed(runs):
        store.write_run(run)
    assert store.unfinished_runs() == runs
    assert store.list_runs("t1", 3) == runs[::-1]


def test_old_runs_are_forgotten(store: Store) -> None:
    store.add_table(replace(TABLE, id="t2", name="other"), who="ann")
    ended = [replace(RUN, id=f"e{i}", phase=Phase.DONE, queued_ms=i) for i in range(5)]
    others = [replace(RUN, queued_ms=0), replace(ended[0], id="t2", table_id="t2")]
    for run in (*ended, *others):
        store.write_run(run)
    store.forget_runs("t1", keep=7)
    assert len(store.list_runs("t1", 100)) == 6
    store.forget_runs("t1", keep=2)
    assert store.list_runs("t1", 100) == [ended[4], ended[3], others[0]]
    store.forget_runs("t1", keep=0)
    assert store.list_runs("t1", 100) == [others[0]]
    assert store.list_runs("t2", 100) == [others[1]]


def test_runs_and_sync_go_with_their_table(store: Store) -> None:
    store.add_table(replace(TABLE, id="t2", name="other"), who="ann")
    store.write_sync(SYNC)
    store.write_sync(replace(SYNC, table_id="t2"))
    for run in (RUN, replace(WHOLE_RUN, phase=Phase.DONE), replace(RUN, id="r3", table_id="t2")):
        store.write_run(run)
    store.remove_table("t1", who="ann", now_ms=9)
    assert [s.table_id for s in store.list_syncs()] == ["t2"]
    assert (store.find_run("r1"), store.list_runs("t1", 10)) == (None, [])
    assert [r.id for r in store.unfinished_runs()] == ["r3"]


def test_a_run_whose_table_is_gone_is_not_wanted(store: Store) -> None:
    store.write_run(RUN)
    store.remove_table("t1", who="ann", now_ms=9)
    assert store.write_run(replace(RUN, phase=Phase.RUNNING))
    assert store.find_run("r1") is None
    assert not store.ask_cancel("r1")


# cancelling


def test_a_cancel_is_told_and_stays(store: Store) -> None:
    assert store.write_run(RUN) is False
    assert store.ask_cancel("r1")
    assert store.ask_cancel("r1"), "twice is once"
    for phase in (Phase.RUNNING, Phase.CANCELLED):
        assert store.write_run(replace(RUN, phase=phase)) is True
        assert store.find_run("r1") == replace(RUN, phase=phase, cancel_asked=True)
    assert not store.ask_cancel("r1"), "it has ended"
    assert not store.ask_cancel("r2")


def test_who_asked_first_is_in_the_audit_log(database: Database) -> None:
    database.add_table(TABLE, who="ann")
    database.write_run(RUN)
    database.ask_cancel("r1", who="bob", now_ms=8)
    database.ask_cancel("r1", who="eve", now_ms=9)
    database.ask_cancel("r2", who="eve", now_ms=9)
    told = [(e.at_ms, e.who, e.action, e.target, e.detail) for e in database.list_audit(10)]
    assert told[:-1] == [(8, "bob", "run.cancel_asked", "r1", {"table_id": "t1"})]


def test_no_cancel_is_lost_between_processes(database: Database, where: str) -> None:
    """One process writes progress as fast as it can, as it knows it; another asks for the end of each run."""
    database.add_table(TABLE, who="ann")
    with subprocess.Popen(
        [sys.executable, str(WRITER), "progress", where, "20"], stdout=subprocess.PIPE, text=True
    ) as p:
        assert p.stdout is not None
        heard = []
        for line in p.stdout:
            run_id, rows = line.split()
            heard.append(run_id)
            if rows == "begun":
                assert database.ask_cancel(run_id)
    assert p.returncode == 0
    runs = database.list_runs("t1", 100)
    assert len(runs) == 20
    assert heard.count("run-0") == 2
    assert {(r.phase, r.cancel_asked) for r in runs} == {(Phase.CANCELLED, True)}


# the swap


def swapped(table: Table) -> Table:
    return replace(
        table,
        columns=(Column("id", Type.STRING),),
        primary_key="id",
        row_count=5,
        generation=table.generation + 1,
        held=(),
        updated_ms=table.updated_ms + 1,
    )


DONE = replace(WHOLE_RUN, id="r1", phase=Phase.DONE, failure=None, cancel_asked=False)


def test_a_swap_is_one_step(store: Store) -> None:
    store.write_run(RUN)
    assert store.swap_table(swapped(TABLE), SYNC, DONE)
    assert store.find_table("t1") == swapped(TABLE)
    assert store.read_sync("t1") == SYNC
    assert store.find_run("r1") == DONE


def test_a_swap_keeps_what_others_changed_meanwhile(store: Store) -> None:
    meanwhile = replace(TABLE, description="who pays", tags=("x",), sync_enabled=False, access_details="{}")
    store.update_table(replace(meanwhile, updated_by="bob", updated_ms=TABLE.updated_ms + 50), who="bob")
    store.write_run(RUN)
    store.ask_cancel("r1")
    assert store.swap_table(swapped(TABLE), SYNC, DONE)
    assert store.find_table("t1") == replace(
        swapped(TABLE),
        description="who pays",
        tags=("x",),
        sync_enabled=False,
        access_details="{}",
        updated_by="bob",
        updated_ms=TABLE.updated_ms + 50,
    )
    assert store.find_run("r1") == replace(DONE, cancel_asked=True), "it came too late, and is not forgotten"


def changed(store: Store, **what: Any) -> None:
    store.update_table(replace(TABLE, **what), who="bob")


@pytest.mark.parametrize(
    "what",
    [
        {"origin": Origin("postgres", (("table", "other"),))},
        {"origin": None},
        {"generation": 5},
        {"generation": 6},
    ],
)
def test_a_swap_that_lost_a_race_changes_nothing(store: Store, what: dict[str, Any]) -> None:
    store.write_run(RUN)
    store.write_sync(replace(SYNC, state=State.OK))
    changed(store, **what)
    assert not store.swap_table(swapped(TABLE), SYNC, DONE)
    assert store.find_table("t1") == replace(TABLE, **what)
    assert store.read_sync("t1") == replace(SYNC, state=State.OK)
    assert store.find_run("r1") == RUN


def test_a_table_that_is_gone_is_not_swapped(store: Store) -> None:
    store.remove_table("t1", who="bob", now_ms=9)
    assert not store.swap_table(swapped(TABLE), SYNC, DONE)
    assert (store.list_tables(), store.list_syncs(), store.list_runs("t1", 9)) == ([], [], [])


def test_of_swaps_at_once_one_wins(store: Store) -> None:
    runs = [replace(DONE, id=f"r{i}") for i in range(8)]
    with ThreadPoolExecutor(8) as threads:
        won = list(threads.map(lambda r: store.swap_table(swapped(TABLE), replace(SYNC, run_id=r.id), r), runs))
    assert won.count(True) == 1
    sync = store.read_sync("t1")
    assert sync is not None
    assert sync.run_id == runs[won.index(True)].id
    assert [r.id for r in store.list_runs("t1", 10)] == [sync.run_id]


# updates beside swaps


def test_an_update_does_not_take_back_a_swap(database: Database) -> None:
    """Somebody read the table, a sync swapped it, then they write what they changed."""
    database.add_table(TABLE, who="ann")
    assert database.swap_table(swapped(TABLE), SYNC, DONE)
    database.update_table(replace(TABLE, description="who pays", row_count=1, updated_by="bob"), who="bob")
    assert database.find_table("t1") == replace(swapped(TABLE), description="who pays", updated_by="bob")
    assert set(database.list_audit(1)[0].detail) == {"/description", "/updated_by"}
    database.update_table(TABLE, who="ann")
    assert database.find_table("t1") == replace(swapped(TABLE), updated_by="ann")
    database.update_table(TABLE, who="ann")
    assert len(database.list_audit(10)) == 3, "nothing changed the last time"


def test_an_upload_names_the_next_generation(store: Store) -> None:
    local = replace(TABLE, id="t2", name="local", origin=None, owner="")
    store.add_table(local, who="ann")
    store.update_table(swapped(local), who="ann")
    assert store.find_table("t2") == swapped(local)


def test_names_of_owned_tables_are_taken_once_too(store: Store) -> None:
    with pytest.raises(Error) as caught:
        store.add_table(replace(TABLE, id="t2"), who="ann")
    assert caught.value.code is Code.CONFLICT
