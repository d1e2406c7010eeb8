"""Owns when sources sync: their tables, schedules, retries, cancelling, telling of states. Knows no step of it."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace

import structlog

from roster.base.errors import Code, Error
from roster.model.connection import Connection
from roster.model.held import held_name, is_reference, make_held, readers_of
from roster.model.mapping import Mapping
from roster.model.reference_table import Table
from roster.model.schema import Entity
from roster.model.sync import ENDED, Phase, Run, State, Step, Sync, Trigger
from roster.operations.keys import LOCAL
from roster.ports import Cancel, Clock, Jobs, Loaded, Notice, Notices, Store
from roster.sync.run import STOPPING, run_sync, settle_now
from roster.sync.state import interval_s
from roster.sync.trial import on_trial
from roster.sync.work import Ports

log = structlog.get_logger("roster.sync")

LOOK_EVERY_S = 15.0
PICK_UP_EVERY_S = 1.0
TURN_RETRY_S = 0.25
NEWER = 100
WAITING_EVERY_S = 60
"""A source that is not there yet is looked for this often, or at its own interval when that is shorter."""
RETRIED = frozenset({Code.BUSY.value, Code.TIMEOUT.value, Code.INTERNAL.value})
"""Failures that another try may mend; the others wait for their time, or for somebody."""


@dataclass(frozen=True, slots=True)
class Pace:
    """How runs follow one another; each is a setting."""

    at_once: int
    attempts_max: int
    retry_s: float
    jitter: float
    runs_kept: int


def queue_run(
    store: Store,
    clock: Clock,
    table_id: str,
    trigger: Trigger,
    *,
    forced: bool = False,
    accepted: bool = False,
    attempt: int = 1,
) -> Run:
    """A run that waits for its turn; one of that table that has not ended yet is that run.

    But one that runs already is not what was `forced` or `accepted` after it began: that waits behind it.
    """
    present = [r for r in store.unfinished_runs() if r.table_id == table_id]
    if present and not (forced or accepted):
        return present[0]
    fresh = Run(clock.new_id(), table_id, trigger, Phase.QUEUED, Step.READ, attempt, queued_ms=clock.now_ms())
    run = next((r for r in present if r.phase is Phase.QUEUED), fresh)
    run = replace(run, forced=run.forced or forced, accepted=run.accepted or accepted)
    store.write_run(run)
    if run.forced:  # what was read before counts no more, even if this run fails
        store.change_sync(table_id, lambda sync: replace(sync, fingerprint="", cursor=""))
    return run


class Syncs:
    """Keeps every source syncing. One run of a table at a time; all state is in the store."""

    def __init__(self, ports: Ports, jobs: Jobs, pace: Pace, notices: Notices | None = None) -> None:
        self._ports = ports
        self._store = ports.store
        self._jobs = jobs
        self._pace = pace
        self._notices = notices
        self._turns = threading.Semaphore(pace.at_once)
        self._lock = threading.RLock()
        self._held: set[str] = set()
        self._running: dict[str, Cancel] = {}
        self._stopping = False
        self._telling = threading.Lock()

    def start(self) -> None:
        """Go on with what a crash or a stop interrupted, then keep the schedules."""
        unfinished = self._store.unfinished_runs()
        known = {run.id for run in unfinished}
        for folder in self._ports.folder.glob("*"):
            if folder.name not in known:
                shutil.rmtree(folder, ignore_errors=True)
        for run in unfinished:
            self._enqueue(run)
        self.declare()
        for sync in self._store.list_syncs():
            last = self._store.find_run(sync.run_id) if sync.failures else None
            if last is not None:
                self._plan_retry(last)
        self._jobs.repeat("look", self.look, LOOK_EVERY_S, LOOK_EVERY_S, 0.0)
        self._jobs.repeat("pick up", self.pick_up, PICK_UP_EVERY_S, PICK_UP_EVERY_S, 0.0)

    def stop(self) -> None:
        """Interrupt running syncs; they go on at the next start."""
        with self._lock:
            self._stopping = True
            for cancel in self._running.values():
                cancel.cancel(STOPPING)
        self._jobs.stop()

    def on_trial(
        self, mapping: Mapping, connection: Connection, cancel: Cancel
    ) -> AbstractContextManager[tuple[Table, Loaded]]:
        """See the port."""
        return on_trial(self._ports, mapping, connection, cancel)

    # what is declared

    def declare(self) -> None:
        """Make the tables that connections call for, remove those nobody does, and schedule every source."""
        with self._lock:
            wanted = self._wanted()
            tables = {t.name: t for t in self._store.list_tables()}
            for name, table in wanted.items():
                if name not in tables:
                    self._store.add_table(table, who=table.created_by)
                    tables[name] = table
            for table in list(tables.values()):
                if table.owner and table.name not in wanted:
                    self.forget(table.id)
                    self._store.remove_table(table.id, who=LOCAL.id, now_ms=self._ports.clock.now_ms())
                    self._ports.tables.drop_table(table.id)
                elif table.origin is not None:
                    self._schedule(table)

    def _wanted(self) -> dict[str, Table]:
        found = {}
        for entity in Entity:
            for connection in self._store.read_mapping(entity).connections:
                if not is_reference(connection):
                    clock = self._ports.clock
                    found[held_name(entity, connection)] = make_held(entity, connection, clock.new_id(), clock.now_ms())
        return found

    def _schedule(self, table: Table) -> None:
        sync = self._store.read_sync(table.id)
        now_ms = self._ports.clock.now_ms()
        if sync is None:
            self._store.write_sync(Sync(table.id, State.SYNCING, now_ms, "the first sync has not ended"))
            self.begin(table.id, Trigger.CREATED)
            sync = self._store.read_sync(table.id)
        every = self.every_s(table)
        if sync is None or every is None:
            self._jobs.cancel(f"schedule {table.id}")
            return
        if sync.synced_ms is None:
            every = min(every, WAITING_EVERY_S)
        due_ms = (sync.tried_ms or now_ms) + every * 1000
        first_s = max(0.0, (due_ms - now_ms) / 1000)
        self._jobs.repeat(
            f"schedule {table.id}",
            lambda: self._begin_on_time(table.id),
            float(every),
            first_s,
            every * self._pace.jitter,
        )

    def every_s(self, table: Table) -> int | None:
        """Seconds between two syncs of a table; None when it syncs on request only."""
        rules = self._ports.rules
        return interval_s(table, rules.every_s if table.owner else rules.cloud_every_s)

    def _begin_on_time(self, table_id: str) -> None:
        if self._store.find_table(table_id) is not None:
            self.begin(table_id, Trigger.SCHEDULE)

    def forget(self, table_id: str) -> None:
        """End what runs or waits for a table that goes."""
        self._jobs.cancel(f"schedule {table_id}")
        self._jobs.cancel(f"retry {table_id}")
        self.cancel(table_id, LOCAL.id)

    # runs

    def begin(
        self, table_id: str, trigger: Trigger, *, forced: bool = False, accepted: bool = False, attempt: int = 1
    ) -> Run:
        """Have a table synced soon; a run that has not ended yet is that run."""
        with self._lock:
            run = queue_run(
                self._store,
                self._ports.clock,
                table_id,
                trigger,
                forced=forced,
                accepted=accepted,
                attempt=attempt,
            )
            self._jobs.cancel(f"retry {table_id}")
            if run.id not in self._running:
                self._enqueue(run)
            return run

    def pick_up(self) -> None:
        """Begin the runs that commands beside this process have queued, and those that a full disk threw out.

        Runs that such commands asked to cancel are ended: those that read something may be waiting for a word.
        """
        for run in self._store.unfinished_runs():
            running = self._running.get(run.id)
            if running is None:
                self._enqueue(run)
            elif run.cancel_asked:
                running.cancel()

    def cancel(self, table_id: str, who: str) -> Run | None:
        """Ask for the end of a table's runs, the first of which is given; None when nothing runs."""
        with self._lock:
            found = [r for r in self._store.unfinished_runs() if r.table_id == table_id]
            if not found and f"retry {table_id}" in self._jobs.ids():
                found = self._store.list_runs(table_id, 1)
            self._jobs.cancel(f"retry {table_id}")
            for run in found:
                self._store.ask_cancel(run.id, who=who, now_ms=self._ports.clock.now_ms())
                if run.id in self._running:
                    self._running[run.id].cancel()
            return found[0] if found else None

    def _enqueue(self, run: Run, after_s: float = 0.0) -> None:
        self._jobs.start(f"run {run.id}", lambda: self._work(run.id), after_s)

    def _work(self, run_id: str) -> None:
        """One run, when it is its turn; else it comes back a moment later."""
        run = self._store.find_run(run_id)
        if run is None or run.phase in ENDED or self._stopping:
            return
        with self._turn(run.table_id) as taken:
            run = self._store.find_run(run_id)
            if run is None or run.phase in ENDED:
                return
            if taken:
                self._finish(self._run(run))
        if taken:
            self._tell(run.table_id)
        else:
            self._enqueue(run, TURN_RETRY_S)

    @contextmanager
    def _turn(self, table_id: str) -> Iterator[bool]:
        """Whether one of the places for runs is free and nobody else is at this table."""
        if not self._turns.acquire(blocking=False):
            yield False
            return
        try:
            with self._hold(table_id) as taken:
                yield taken
        finally:
            self._turns.release()

    @contextmanager
    def _hold(self, table_id: str) -> Iterator[bool]:
        """Whether no other run is at this table."""
        with self._lock:
            taken = table_id not in self._held
            self._held.add(table_id)
        try:
            yield taken
        finally:
            if taken:
                with self._lock:
                    self._held.discard(table_id)

    def _run(self, run: Run) -> Run:
        cancel = Cancel()
        with self._lock:
            self._running[run.id] = cancel
            if self._stopping:
                return run
        try:
            return run_sync(self._ports, run, cancel)
        finally:
            with self._lock:
                del self._running[run.id]

    def _finish(self, run: Run) -> None:
        """Log it, try again or reschedule, and let old rows go."""
        if run.phase not in ENDED:
            return
        table = self._store.find_table(run.table_id)
        failure = run.failure
        fields = {"run": run.id, "phase": run.phase, "rows": run.rows, "bytes": run.bytes, "attempt": run.attempt}
        log.info("sync ended", source=table.name if table else run.table_id, **fields, why=failure and failure.message)
        self._store.forget_runs(run.table_id, self._pace.runs_kept)
        if table is None:
            self._ports.tables.drop_table(run.table_id)  # what the run filled while the table was removed
            return
        self._plan_retry(run)
        self._schedule(table)
        self._ports.tables.drop_generations({table.id: (table.generation,)}, self._ports.clock.now_ms())

    def _plan_retry(self, run: Run) -> None:
        """Try a failed run again after a while, if that may help; each further try waits double."""
        failure = run.failure
        if run.phase is Phase.FAILED and failure and failure.code in RETRIED and run.attempt < self._pace.attempts_max:
            delay_s = self._pace.retry_s * 2.0 ** (run.attempt - 1)
            self._jobs.start(f"retry {run.table_id}", lambda: self._retry(run), delay_s)

    def _retry(self, run: Run) -> None:
        if self._store.find_table(run.table_id) is not None:
            self.begin(run.table_id, Trigger.RETRY, forced=run.forced, accepted=run.accepted, attempt=run.attempt + 1)

    # states

    def look(self) -> None:
        """See which sources have become stale, tell of it, and let old rows go."""
        tables = self._store.list_tables()
        for table in tables:
            if table.origin is not None:
                self._settle(table)
        # newer generations than those named may be being filled at this moment
        busy = {run.table_id for run in self._store.unfinished_runs()}
        current = {t.id: range(t.generation, t.generation + (NEWER if t.id in busy else 1)) for t in tables}
        self._ports.tables.drop_generations(current, self._ports.clock.now_ms())
        for table in tables:  # last, and not on after a failure: a webhook may take its time to fail
            if table.origin is not None and not self._tell(table.id):
                return

    def _settle(self, table: Table) -> None:
        """A sync under way does not make a source fresh: it becomes stale all the same."""
        sync = self._store.read_sync(table.id)
        if sync is None:
            return
        last = self._store.find_run(sync.run_id) if sync.run_id else None
        told = last is not None and (last.phase is Phase.FAILED or sync.synced_ms is None)
        failure = last.failure if last and told else None

        def change(kept: Sync) -> Sync:
            return settle_now(self._ports, table, kept, failure) if kept.run_id == sync.run_id else kept

        self._store.change_sync(table.id, change)

    def _tell(self, table_id: str) -> bool:
        """Tell the webhook of a state it has not been told; False when it does not take it: the next look tells."""
        if self._notices is None:
            return True
        with self._telling:  # a look and the end of a run must not both tell of one change
            table, sync = self._store.find_table(table_id), self._store.read_sync(table_id)
            if table is None or sync is None or sync.told == sync.state or sync.state is State.SYNCING:
                return True
            try:
                self._notices.tell(self._notice(table, sync))
            except Error as error:
                log.warning("the webhook was not told", source=table.name, why=error.message)
                return False
            self._store.change_sync(table.id, lambda kept: replace(kept, told=sync.state.value))
            return True

    def _notice(self, table: Table, sync: Sync) -> Notice:
        mappings = [self._store.read_mapping(entity) for entity in Entity]
        readers = readers_of(table, mappings, self._store.list_tables())
        return Notice(
            source_id=table.id,
            source=table.owner or table.name,
            state=sync.state.value,
            before=sync.told,
            since_ms=sync.since_ms,
            reason=sync.reason,
            connections=tuple(f"{m.entity}/{c.id}" for m, c in readers),
            at_ms=self._ports.clock.now_ms(),
        )
