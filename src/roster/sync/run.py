"""Owns one run of a sync: a literal list of steps over the ports; schedules nothing and knows no door.

A run never changes what readers see until its last step, and that is one transaction. Interrupted at any
point it goes on at its step, or begins that step anew: reading leaves files in the run's folder, staging
fills a generation nobody reads yet, swapping names it.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import structlog

from roster.base.errors import Code, Error
from roster.base.values import digest
from roster.model.cloud_table import members_of
from roster.model.held import sources_of, tables_of
from roster.model.reference_table import Table
from roster.model.schema import Entity
from roster.model.source import full_every_s
from roster.model.sync import ENDED, Failure, Fetched, Phase, Run, Step, Sync
from roster.ports import Cancel, Reading, Wanted
from roster.query.relations import profiles
from roster.sync.staging import check, stage
from roster.sync.state import interval_s, settle
from roster.sync.work import Ports, Work, present

log = structlog.get_logger("roster.sync")


STOPPING = "stopping"
"""Why a run is interrupted that goes on at the next start."""

FULL = ("No space left on device", "database or disk is full")

Action = Callable[[Ports, Work], Work]


def run_sync(ports: Ports, run: Run, cancel: Cancel) -> Run:
    """Do what is left of a run; gives it ended, or as it was when the server stops (`cancel.why` is STOPPING).

    Errors of the source end the run, not the caller.
    """
    folder = ports.folder / run.id
    try:
        ended = _take_steps(ports, _begin(ports, run, cancel), folder)
    except Error as error:
        ended = _fail(ports, run, cancel, _no_space(error) or error)
    except Exception as error:
        log.exception("sync failed", run=run.id)
        unknown = Error(Code.INTERNAL, "internal error", hint="the log has the trace")
        ended = _fail(ports, run, cancel, _no_space(error) or unknown)
    if ended.phase in ENDED:
        shutil.rmtree(folder, ignore_errors=True)
    return ended


def _take_steps(ports: Ports, work: Work, folder: Path) -> Run:
    left = _left(work, folder)
    for step, action in STEPS:
        if step in left:
            work = _note(ports, replace(work, run=replace(work.run, step=step)))
            work = action(ports, work)
            if work.run.phase in ENDED:
                break
    return work.run


def _left(work: Work, folder: Path) -> tuple[Step, ...]:
    """The steps still to do: files that were read whole, from where the source still is, need not be read again."""
    order = tuple(step for step, _ in STEPS)
    fetched = work.run.fetched
    kept = fetched is not None and all((folder / name).is_file() for name in fetched.names)
    kept = kept and fetched is not None and fetched.origin == _digest(work.table)
    return order[order.index(Step.STAGE) :] if kept else order


def _begin(ports: Ports, run: Run, cancel: Cancel) -> Work:
    table = ports.store.find_table(run.table_id)
    sync = ports.store.read_sync(run.table_id)
    if table is None or sync is None or table.origin is None:
        raise Error(Code.NOT_FOUND, "the source was removed meanwhile")
    mappings = tuple(ports.store.read_mapping(entity) for entity in Entity)
    started_ms = run.started_ms or ports.clock.now_ms()
    begun = replace(run, phase=Phase.RUNNING, started_ms=started_ms, failure=None)
    return Work(begun, table, sync, mappings, tuple(ports.store.list_tables()), cancel)


def _note(ports: Ports, work: Work) -> Work:
    """Keep how far the run is. Error: TIMEOUT when somebody asked to cancel it."""
    if ports.store.write_run(work.run):
        work.cancel.cancel()
    if work.cancel.cancelled:
        raise _Cancelled(Code.TIMEOUT, "the sync was cancelled")
    return work


class _Cancelled(Error):
    """Told apart from a failure: a cancelled run is not tried again."""


def _no_space(error: BaseException) -> Error | None:
    """What a full disk is, whoever ran into it: the engine, our own records or a file; None for all else."""
    cause: BaseException | None = error
    while cause is not None:
        if any(words in str(cause) for words in FULL):
            return Error(Code.BUSY, "no space is left in the data folder", hint="free some; it is tried again")
        cause = cause.__cause__ or cause.__context__
    return None


def _fail(ports: Ports, run: Run, cancel: Cancel, error: Error) -> Run:
    kept = ports.store.find_run(run.id) or run
    if cancel.why == STOPPING:
        return kept
    shutil.rmtree(ports.folder / run.id, ignore_errors=True)  # first: it may be what fills the disk
    cancelled = isinstance(error, _Cancelled) or cancel.cancelled
    failure = Failure(error.code.value, error.message, error.hint, error.at)
    phase = Phase.CANCELLED if cancelled else Phase.FAILED
    ended = replace(kept, phase=phase, ended_ms=ports.clock.now_ms(), failure=failure, fetched=None)
    table = ports.store.find_table(run.table_id)
    if table is not None:
        ports.store.change_sync(table.id, lambda sync: conclude(ports, table, sync, ended), ended)
    return ended


def _read(ports: Ports, work: Work) -> Work:
    """Bring the rows of the source into the run's folder; an unchanged source ends the run here."""
    folder = ports.folder / work.run.id
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    origin = work.table.origin
    assert origin is not None
    full = work.run.forced or work.sync.synced_ms is None or _full_is_due(ports, work)
    wanted = Wanted(
        origin,
        credentials_of(ports, work.table),
        folder,
        "" if work.run.forced else work.sync.fingerprint,
        "" if full or work.sync.drifts else work.sync.cursor,  # paused fields need all rows once they are back
        full,
    )
    fetched = _fetch(ports, work, wanted)
    if fetched is None:
        return _unchanged(ports, work)
    fetched = replace(fetched, origin=_digest(work.table))
    rows = fetched.rows if fetched.rows is not None else work.run.rows
    return replace(work, run=replace(work.run, fetched=fetched, rows=rows, bytes=fetched.bytes))


def _full_is_due(ports: Ports, work: Work) -> bool:
    origin, last_ms = work.table.origin, work.sync.full_ms
    every = full_every_s(origin) if origin and origin.get("cursor") else None
    return every is not None and (last_ms is None or ports.clock.now_ms() >= last_ms + every * 1000)


def _digest(table: Table) -> str:
    return digest(asdict(table.origin)) if table.origin else ""


def _stage(ports: Ports, work: Work) -> Work:
    """Stage what was read; when its numbers do not say that this is all that changed, read and stage all of it."""
    staged = stage(ports, work)
    if _adds_up(staged):
        return staged
    log.info("rows went or came behind the cursor, reading all of the source", source=work.table.name)
    run = replace(work.run, forced=True, fetched=None)
    return stage(ports, _read(ports, replace(work, run=run)))


def _adds_up(work: Work) -> bool:
    """Whether a source holds the rows that it held before and the new ones together, as far as that can be told.

    With fewer, some are gone. With more, some came that the cursor does not show: where a row is told by its key
    alone. A source that held several rows of one key, or rows without one, may hold more of these now.
    """
    fetched, now = work.fetched(), present(work.staged).rows
    if not fetched.changes_only or fetched.total is None:
        return True
    before = work.sync.total if work.sync.total is not None else work.table.row_count
    expected = before + (now - work.table.row_count)
    return fetched.total == expected or (fetched.total > expected and before > work.table.row_count)


def credentials_of(ports: Ports, table: Table) -> dict[str, str]:
    """The members of the source's secret. Error: NOT_FOUND when a named one is missing."""
    name = table.origin.get("secret") if table.origin else ""
    if not name:
        return {}
    secret = ports.store.find_secret(name)
    if secret is not None:
        return members_of(table) | ports.vault.open(name, secret.sealed)
    if not table.owner:
        # a cloud table cannot name a secret: without one by its account's name it is read as anybody
        return members_of(table)
    hint = f"`roster secret set {name}`, or PUT /api/roster/secrets/{name}"
    raise Error(Code.NOT_FOUND, f"there is no secret {name!r}", hint=hint)


def _fetch(ports: Ports, work: Work, wanted: Wanted) -> Fetched | None:
    def report(reading: Reading) -> None:
        noted = replace(
            work.run,
            rows=reading.rows,
            bytes=reading.bytes,
            rows_total=reading.rows_total,
            bytes_total=reading.bytes_total,
        )
        if ports.store.write_run(noted):
            work.cancel.cancel()

    return ports.sources.fetch(wanted, report, work.cancel)


def _unchanged(ports: Ports, work: Work) -> Work:
    now_ms = ports.clock.now_ms()
    run = replace(work.run, phase=Phase.UNCHANGED, ended_ms=now_ms)
    ports.store.change_sync(work.table.id, lambda sync: conclude(ports, work.table, sync, run), run)
    return replace(work, run=run)


def _swap(ports: Ports, work: Work) -> Work:
    """Build the ready-made joins aside, name the new generation in one step, then let the old joins go."""
    fetched, table = work.fetched(), present(work.next)
    _make_ready(ports, work)
    _note(ports, work)
    now_ms = ports.clock.now_ms()  # only now: building the joins is the longest part of a run
    run = replace(work.run, phase=Phase.DONE, ended_ms=now_ms, fetched=None)
    sync = replace(
        ports.store.read_sync(table.id) or work.sync,  # it may have become stale meanwhile
        fingerprint="" if work.drifts and _is_outdated(ports, work) else fetched.fingerprint,
        cursor=fetched.cursor,
        total=fetched.total,
        full_ms=work.sync.full_ms if fetched.changes_only else now_ms,
        drifts=work.drifts,
        offered=present(work.columns).offered,
        coverage=run.coverage,
    )
    sync = conclude(ports, table, sync, run)
    if not ports.store.swap_table(replace(table, updated_ms=now_ms), sync, run):
        raise Error(Code.BUSY, "the source was removed or changed meanwhile")
    _let_go(ports, work)
    return replace(work, run=run, sync=sync)


def _is_outdated(ports: Ports, work: Work) -> bool:
    """Whether fields changed while the run went on: what it paused may be others, which the next run must see."""
    return any(ports.store.read_mapping(mapping.entity) != mapping for mapping in work.mappings)


def _make_ready(ports: Ports, work: Work) -> None:
    """Build the joins aside. Where that fails, queries make them themselves: only a full disk stops the run."""
    try:
        _materialise(ports, work, both=True)
    except Exception as error:
        if _no_space(error) is not None:
            raise
        log.exception("joins could not be made ready", run=work.run.id)


def _let_go(ports: Ports, work: Work) -> None:
    """Forget the joins with the old generation. The swap has happened: failing here is no failure of the run."""
    try:
        _materialise(ports, work, both=False)
    except Exception:
        log.exception("old joins could not be let go", run=work.run.id)


def conclude(ports: Ports, table: Table, sync: Sync, run: Run) -> Sync:
    """What is known of a source after a run of it has ended. A cancelled one says nothing of good values."""
    now_ms = ports.clock.now_ms()
    if run.phase is Phase.CANCELLED and sync.synced_ms is not None:
        return replace(sync, tried_ms=now_ms)
    good = run.phase in (Phase.DONE, Phase.UNCHANGED)
    failed = run.phase is Phase.FAILED
    known = replace(
        sync,
        run_id=run.id,
        tried_ms=now_ms,
        synced_ms=now_ms if good else sync.synced_ms,
        failures=0 if good else sync.failures + failed,
    )
    return settle_now(ports, table, known, None if good else run.failure)


def settle_now(ports: Ports, table: Table, sync: Sync, failure: Failure | None) -> Sync:
    """The sync in its state of this moment."""
    rules = ports.rules
    every = interval_s(table, rules.every_s if table.owner else rules.cloud_every_s)
    return settle(sync, every, rules.stale_after, ports.clock.now_ms(), failure)


def _materialise(ports: Ports, work: Work, *, both: bool) -> None:
    """Keep the joins with the next generation ready; `both`: beside those with the present one.

    Other tables and the fields are as they are now: other runs may have swapped since this one began.
    """
    tables = ports.store.list_tables()
    following = [present(work.next) if t.id == work.table.id else t for t in tables]
    for entity in Entity:
        mapping = ports.store.read_mapping(entity)
        if work.table.id not in {t.id for t in tables_of(mapping, tables).values()}:
            continue
        worlds: Sequence[Sequence[Table]] = (tables, following) if both else (tables,)
        ports.engine.materialise(mapping.entity, [profiles(mapping, sources_of(mapping, w)).input for w in worlds])


STEPS: tuple[tuple[Step, Action], ...] = (
    (Step.READ, _read),
    (Step.STAGE, _stage),
    (Step.CHECK, check),
    (Step.SWAP, _swap),
)
