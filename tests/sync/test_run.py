"""Runs of a sync on a real engine and real records: what readers see, what is counted, what is refused."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from roster.base.errors import Code, Error
from roster.engine.duckdb import DuckEngine
from roster.model.connection import Field, UpdateRequest
from roster.model.mapping import Mapping
from roster.model.rules import Choice, Conflict
from roster.model.schema import Entity, Type
from roster.model.sync import Coverage, DriftKind, Phase, Run, State, Step
from roster.ports import Cancel
from roster.query.plan import Plan
from roster.sync.coverage import quarantined
from roster.sync.run import STOPPING, run_sync
from sync.world import BUDGET, World

ANN = {"email": "Ann@x.org", "tier": "gold", "score": 1}
BOB = {"email": "bob@x.org", "tier": "iron", "score": 2.5}
CAT = {"email": "cat@x.org", "tier": "gold", "score": 3}
USERS = {"u1": "ann@x.org", "u2": "bob@x.org", "u3": "nobody@x.org"}


def coverage(run: Run) -> Coverage:
    assert len(run.coverage) == 1
    return run.coverage[0]


def adds_up(run: Run) -> Coverage:
    c = coverage(run)
    assert c.rows == run.rows == c.matched + c.unmatched + c.duplicate
    assert c.cells == c.accepted + c.null + c.quarantined
    assert c.profiles == c.profiles_matched + c.profiles_unmatched
    assert run.rows == run.stored + run.duplicate + run.keyless
    return c


def test_a_first_sync_shows_its_values(world: World) -> None:
    world.send(USERS)
    run = world.sync([ANN, BOB, CAT])
    assert (run.phase, run.failure) == (Phase.DONE, None)
    assert world.served() == {"u1": ("gold", 1.0), "u2": ("iron", 2.5), "u3": (None, None)}
    c = adds_up(run)
    assert (c.rows, c.matched, c.unmatched, c.duplicate) == (3, 2, 1, 0)
    assert (c.cells, c.accepted, c.null, c.quarantined) == (6, 6, 0, 0)
    assert (c.profiles, c.profiles_matched) == (3, 2)
    assert world.sync_record().state is State.OK
    assert world.table().row_count == 3


def test_an_unchanged_source_is_not_staged(world: World) -> None:
    world.sync([ANN])
    generation = world.table().generation
    assert world.sync().phase is Phase.UNCHANGED
    assert (world.table().generation, world.source.reads) == (generation, 1)
    assert world.sync(forced=True).phase is Phase.DONE


def test_messy_keys_are_counted_and_the_last_row_counts(world: World) -> None:
    world.send(USERS)
    rows = [
        ANN,
        {"email": " ann@X.org ", "tier": "late", "score": 9},
        {"email": "bob@x.org", "tier": "first", "score": 1},
        {"email": "bob@x.org", "tier": "second", "score": "x"},
        {"email": "", "tier": "keyless", "score": 1},
        {"email": None, "tier": "keyless", "score": None},
    ]
    run = world.sync(rows)
    c = adds_up(run)
    assert (run.stored, run.duplicate, run.keyless) == (3, 1, 2)
    assert (c.matched, c.unmatched, c.duplicate) == (2, 2, 2)
    assert (c.cells, c.quarantined) == (6, 1)
    assert world.served() == {"u1": ("late", 9.0), "u2": ("second", None), "u3": (None, None)}


def test_rows_gone_from_the_source_lose_their_values(world: World) -> None:
    world.send(USERS)
    world.sync([ANN, BOB])
    assert world.sync([BOB]).phase is Phase.DONE
    assert world.served()["u1"] == (None, None)


@pytest.mark.parametrize("left", [[], [ANN]])
def test_a_source_that_lost_most_rows_is_refused_until_somebody_accepts(world: World, left: list[Any]) -> None:
    world.send(USERS)
    world.sync([ANN, BOB, CAT])
    before = world.served()
    run = world.sync(left)
    assert run.phase is Phase.FAILED
    assert run.failure is not None and run.failure.code == Code.CONFLICT and "accept_loss" in run.failure.hint
    assert (world.served(), world.sync_record().state) == (before, State.FAILING)
    assert world.sync(accepted=True, forced=True).phase is Phase.DONE
    assert (world.table().row_count, world.sync_record().state) == (len(left), State.OK)


def test_a_dropped_column_pauses_only_its_fields(world: World) -> None:
    world.send(USERS)
    world.sync([ANN, BOB])
    run = world.sync([{"email": "ann@x.org", "score": 5}, {"email": "bob@x.org", "score": 6}])
    assert run.phase is Phase.DONE
    assert world.served() == {"u1": (None, 5.0), "u2": ("iron", 6.0), "u3": (None, None)}
    known = world.sync_record()
    assert known.state is State.DRIFTED
    (drift,) = known.drifts
    assert (drift.column, drift.kind, drift.fields) == ("tier", DriftKind.DROPPED, ("users/crm/tier",))
    back = world.sync([ANN, BOB])
    assert (back.phase, world.sync_record().state, world.sync_record().drifts) == (Phase.DONE, State.OK, ())


def test_a_renamed_column_is_proposed_by_its_values(world: World) -> None:
    rows = [{"email": f"u{i}@x.org", "tier": f"t{i % 3}", "score": i, "same": "t1"} for i in range(9)]
    world.sync(rows)
    renamed = [{"email": r["email"], "level": r["tier"], "score": r["score"], "fresh": "t1"} for r in rows]
    world.sync(renamed)
    (drift,) = world.sync_record().drifts
    assert (drift.renamed_to, drift.overlap) == ("level", 1.0)
    assert "level" in world.sync_record().reason
    field = Field("tier", "level", Type.STRING)
    world.update(UpdateRequest("crm", add=(field,), delete=("tier",)))
    assert world.sync(forced=True).phase is Phase.DONE
    assert world.sync_record().drifts == ()


def test_a_retyped_column_is_paused_and_single_cells_are_quarantined(world: World) -> None:
    world.send(USERS)
    world.sync([ANN, BOB])
    world.sync([ANN, BOB | {"score": "n/a"}, CAT])
    assert world.sync_record().state is State.OK
    assert world.served()["u2"] == ("iron", None)
    connection = world.mapping().connections[0]
    plan = quarantined(connection, world.table(), "score", 10)
    assert plan is not None
    assert world.engine.run([plan], BUDGET)[0].rows == [("bob@x.org", "n/a", False)]
    world.sync([ANN | {"score": "one"}, BOB | {"score": "two"}, CAT | {"score": "three", "tier": "new"}])
    (drift,) = world.sync_record().drifts
    assert (drift.column, drift.kind) == ("score", DriftKind.RETYPED)
    assert world.served()["u1"] == ("gold", 1.0)


def test_quarantined_cells_are_judged_anew_when_the_type_of_the_field_changes(world: World) -> None:
    world.send(USERS)
    world.sync([ANN, BOB | {"score": "n/a"}])
    field = Field("score", "score", Type.STRING)
    world.update(UpdateRequest("crm", add=(field,), delete=("score",)))
    assert world.served()["u2"] == ("iron", "n/a")
    plan = quarantined(world.mapping().connections[0], world.table(), "score", 10)
    assert plan is not None
    assert world.engine.run([plan], BUDGET)[0].rows == []


def test_new_columns_are_offered(world: World) -> None:
    world.sync([ANN, BOB])
    world.sync([ANN | {"region": "eu"}, BOB | {"region": "us"}])
    assert [c.name for c in world.sync_record().offered] == ["region"]
    assert world.sync_record().state is State.OK


def test_a_failure_leaves_the_last_good_values(world: World) -> None:
    world.send(USERS)
    world.sync([ANN, BOB])
    before = world.served()
    world.source.failure = Error(Code.BUSY, "the connection was cut")
    run = world.sync([CAT])
    assert (run.phase, run.failure and run.failure.code) == (Phase.FAILED, "busy")
    assert (world.served(), world.sync_record().state, world.sync_record().failures) == (before, State.FAILING, 1)
    world.source.failure = None
    world.sync([ANN, BOB, CAT])
    assert (world.sync_record().state, world.sync_record().failures) == (State.OK, 0)


def test_what_is_not_there_yet_is_waited_for(world: World) -> None:
    world.source.failure = Error(Code.NOT_FOUND, "there is no table people")
    world.sync()
    assert world.sync_record().state is State.WAITING


def test_a_missing_secret_is_waited_for(world: World) -> None:
    table = world.table()
    assert table.origin is not None
    named = replace(table.origin, options=(*table.origin.options, ("secret", "crm")))
    world.store.update_table(replace(table, origin=named), who="t")
    run = world.sync([ANN])
    assert run.failure is not None and "secret 'crm'" in run.failure.message
    assert world.sync_record().state is State.WAITING


def test_changes_by_cursor_overlay_the_rows_before(world: World) -> None:
    world.source.cursor = "at"
    world.send(USERS)
    world.sync([ANN | {"at": 1}, BOB | {"at": 2}])
    run = world.sync([ANN | {"at": 1}, BOB | {"at": 3, "tier": "zinc"}, CAT | {"at": 4}])
    c = adds_up(run)
    assert (run.rows, c.matched, c.unmatched) == (2, 1, 1)
    assert world.served() == {"u1": ("gold", 1.0), "u2": ("zinc", 2.5), "u3": (None, None)}
    assert world.table().row_count == 3


def test_rows_deleted_in_a_source_with_a_cursor_are_noticed(world: World) -> None:
    world.source.cursor = "at"
    world.send(USERS)
    world.sync([ANN | {"at": 1}, BOB | {"at": 2}, CAT | {"at": 3}])
    world.sync([BOB | {"at": 2}, CAT | {"at": 4}])
    assert world.table().row_count == 2
    assert world.served()["u1"] == (None, None)


def test_rows_that_come_behind_the_cursor_are_noticed(world: World) -> None:
    world.source.cursor = "at"
    world.send(USERS)
    world.sync([BOB | {"at": 5}])
    world.sync([BOB | {"at": 5}, ANN | {"at": 3}])
    assert world.served()["u1"] == ("gold", 1.0)
    assert (world.table().row_count, world.sync_record().state) == (2, State.OK)


def test_a_source_with_several_rows_of_a_key_is_not_read_whole_each_time(world: World) -> None:
    world.source.cursor = "at"
    world.send(USERS)
    world.sync([ANN | {"at": 1}, ANN | {"at": 2}])
    reads = world.source.reads
    run = world.sync([ANN | {"at": 1}, ANN | {"at": 2}, ANN | {"at": 3, "tier": "zinc"}])
    assert (world.source.reads, run.rows) == (reads + 1, 2)
    assert world.served()["u1"] == ("zinc", 1.0)


@pytest.mark.parametrize("more", [{"Tier": "x"}, {"EMail": "x"}, {" SCORE ": 7, "Score": 8}])
def test_a_new_column_spelled_like_another_changes_nothing(world: World, more: dict[str, Any]) -> None:
    world.send(USERS)
    world.sync([ANN, BOB])
    before = world.served()
    assert world.sync([ANN | more, BOB | more]).phase is Phase.DONE
    assert (world.served(), world.sync_record().state) == (before, State.OK)
    assert len(world.sync_record().offered) == len(more)


def test_the_column_that_says_what_is_newest_pauses_what_it_decides(world: World) -> None:
    def order(mapping: Mapping) -> Mapping:
        (crm,) = mapping.connections
        crm = replace(crm, metadata=(*crm.metadata, ("changed_at", "at")))
        newest = (Conflict("tier", Choice.NEWEST),)
        return replace(mapping, version=mapping.version + 1, connections=(crm,), conflicts=newest)

    world.change(order)
    world.send(USERS)
    world.sync([ANN | {"at": "2026-05-01"}, BOB | {"at": "2026-05-01"}])
    world.sync([ANN | {"changed_on": "2026-05-02", "tier": "zinc", "score": 9}, BOB | {"changed_on": "2026-05-01"}])
    assert world.served()["u1"] == ("gold", 9.0)
    (drift,) = world.sync_record().drifts
    assert (drift.column, drift.fields, world.sync_record().state) == ("at", ("users/crm/tier",), State.DRIFTED)
    world.sync([ANN | {"at": "2026-05-02", "tier": "zinc", "score": 9}, BOB | {"at": "2026-05-01"}])
    assert (world.served()["u1"], world.sync_record().state) == (("zinc", 9.0), State.OK)


def test_a_cancelled_run_changes_nothing(world: World) -> None:
    world.sync([ANN])
    cancel = Cancel()
    world.source.during = cancel.cancel
    run = world.sync([ANN, BOB], cancel=cancel)
    assert run.phase is Phase.CANCELLED
    assert (world.table().row_count, world.sync_record().state) == (1, State.OK)


def test_a_cancelled_run_does_not_make_a_failing_source_good(world: World) -> None:
    world.sync([ANN])
    world.source.failure = Error(Code.UNAUTHENTICATED, "the password is wrong")
    world.sync()
    before = world.sync_record()
    cancel = Cancel()
    cancel.cancel()
    assert world.sync(cancel=cancel).phase is Phase.CANCELLED
    after = world.sync_record()
    assert (after.state, after.reason, after.since_ms) == (State.FAILING, before.reason, before.since_ms)
    assert (after.run_id, after.failures) == (before.run_id, 1)


def test_an_unchanged_source_is_not_staged_while_it_drifts(world: World) -> None:
    world.sync([ANN, BOB])
    assert world.sync([{"email": "ann@x.org", "score": 1}, {"email": "bob@x.org", "score": 2}]).phase is Phase.DONE
    assert world.sync_record().state is State.DRIFTED
    assert world.sync().phase is Phase.UNCHANGED
    assert world.sync_record().state is State.DRIFTED


def test_a_run_asked_to_end_from_elsewhere_ends(world: World) -> None:
    world.sync([ANN])
    run = world.begin()
    world.source.during = lambda: world.store.ask_cancel(run.id) and None
    world.source.rows = [ANN, BOB]
    assert run_sync(world.ports, run, Cancel()).phase is Phase.CANCELLED


@pytest.mark.parametrize("step", list(Step))
def test_an_interrupted_run_goes_on_at_its_step(world: World, step: Step, monkeypatch: pytest.MonkeyPatch) -> None:
    """Interrupted as by a stop just before a step; what was read whole is not read again."""
    world.send(USERS)
    world.sync([ANN])
    cancel, run = Cancel(), world.begin()
    world.source.rows = [ANN, BOB]
    store, kept = world.store, world.store.write_run

    def interrupted(written: Run) -> bool:
        if written.step is step and written.phase is Phase.RUNNING:
            cancel.cancel(STOPPING)
        return kept(written)

    monkeypatch.setattr(store, "write_run", interrupted)
    stopped = run_sync(world.ports, run, cancel)
    monkeypatch.undo()
    assert stopped.phase is Phase.RUNNING
    assert world.served()["u2"] == (None, None)
    (left,) = world.store.unfinished_runs()
    ended = run_sync(world.ports, left, Cancel())
    assert ended.phase is Phase.DONE
    assert world.served()["u2"] == ("iron", 2.5)
    assert world.source.reads == 2 if step is not Step.READ else 3
    adds_up(ended)


def test_readers_see_old_or_new_while_a_sync_runs(world: World) -> None:
    world.send(USERS)
    world.sync([ANN, BOB])
    before = world.served()
    seen: list[Any] = []
    world.source.during = lambda: seen.append(world.served())
    world.sync([ANN | {"tier": "new"}, BOB | {"tier": "new"}])
    assert seen == [before]
    assert {row[0] for row in world.served().values()} == {"new", None}


def test_a_run_ends_after_its_joins_are_built(world: World) -> None:
    """Its record would leave out the longest part of the work else."""
    built_ms: list[int] = []

    class Watched(DuckEngine):
        def materialise(self, entity: Entity, plans: Sequence[Plan]) -> None:
            super().materialise(entity, plans)
            built_ms.append(world.clock.now_ms())

    world.send(USERS)
    world.ports = replace(world.ports, engine=Watched(world.duck, world.enriched))
    run = world.sync([ANN, BOB])
    assert (run.phase, len(built_ms)) == (Phase.DONE, 2)
    assert run.ended_ms is not None and built_ms[0] < run.ended_ms < built_ms[1]
