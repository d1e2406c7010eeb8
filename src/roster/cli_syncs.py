"""Owns the commands about sources and their syncs. Wires nothing itself."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Annotated

from cyclopts import App, Parameter
from rich.console import Console
from rich.progress import BarColumn, Progress as Bar, TextColumn
from rich.table import Column as Heading, Table as Grid

from roster.base.errors import Code, Error
from roster.base.time import instant, iso_ms
from roster.model.sync import ENDED, Phase, Run, State, Trigger
from roster.operations.context import Context, Records, Request
from roster.operations.keys import LOCAL
from roster.operations.sources import find_source, list_quarantine, progress, syncable
from roster.operations.syncing import queue_run

POLL_S = 0.2
NO_VALUE = {"negative": ()}


@dataclass(frozen=True, slots=True)
class Doors:
    """How commands reach the data folder: whole, or only our own records beside a running server."""

    open_product: Callable[[], AbstractContextManager[Context]]
    open_records: Callable[[], AbstractContextManager[Records]]


def add_sources(app: App, doors: Doors, out: Console) -> None:
    """The commands `roster source ...`."""
    source = App(name="source", help="Sources and their syncs.")
    app.command(source)
    _add_looks(source, doors, out)
    _add_actions(source, doors, out)


def _add_looks(source: App, doors: Doors, out: Console) -> None:
    @source.command(name="list")
    def list_sources() -> None:
        """Show every source, its state and why."""
        grid = Grid(Heading("name", no_wrap=True), "kind", "state", "since", "rows", "reason")
        with doors.open_records() as records:
            syncs = {s.table_id: s for s in records.store.list_syncs()}
            for table in records.store.list_tables():
                sync = syncs.get(table.id)
                state, reason = (sync.state, sync.reason) if sync else (State.OK, "")
                since = _time(sync.since_ms if sync else table.created_ms)
                kind = table.origin.kind if table.origin else "upload"
                grid.add_row(table.owner or table.name, kind, state, since, f"{table.row_count:,}", reason)
        out.print(grid)

    @source.command
    def runs(name: str, /, *, limit: int = 20) -> None:
        """Show the runs of a source, newest first.

        Parameters
        ----------
        name
            As `roster source list` shows it, or its id.
        limit
            Runs at most.
        """
        grid = Grid(Heading("started", no_wrap=True), "why", "phase", "step", "try", "rows", "stored", "failure")
        with doors.open_records() as records:
            table = find_source(records.store, name)
            for run in records.store.list_runs(table.id, limit):
                failure = run.failure.message if run.failure else ""
                numbers = (str(run.attempt), f"{run.rows:,}", f"{run.stored:,}")
                grid.add_row(_time(run.started_ms), run.trigger, run.phase, run.step, *numbers, failure)
        out.print(grid)

    @source.command
    def quarantine(name: str, /, *, limit: int = 100) -> None:
        """Show cells that are no value of their field. Not beside a running server.

        Parameters
        ----------
        name
            As `roster source list` shows it, or its id.
        limit
            Cells at most.
        """
        asked = {"page[limit]": [str(limit)]}
        with doors.open_product() as context:
            reply = list_quarantine(context, Request(LOCAL, path={"id": name}, query=asked))
        grid = Grid("connection", "field", "row", "reason")
        for cell in reply.body["data"]["attributes"]["cells"]:
            grid.add_row(cell["connection"], cell["field"], cell["row_key"], cell["reason"])
        out.print(grid)


def _time(at_ms: int | None) -> str:
    return iso_ms(instant(at_ms)) if at_ms is not None else ""


def _add_actions(source: App, doors: Doors, out: Console) -> None:
    @source.command
    def sync(
        name: str,
        /,
        *,
        force: Annotated[bool, Parameter(negative=())] = False,
        accept_loss: Annotated[bool, Parameter(negative=())] = False,
    ) -> None:
        """Sync a source now and wait for it; beside a running server, the server does it.

        Parameters
        ----------
        name
            As `roster source list` shows it, or its id.
        force
            Read it even when it is unchanged.
        accept_loss
            Allow that many rows go.
        """
        try:
            with doors.open_product() as context:
                table = syncable(context.store, name)
                forced = force or accept_loss
                run = context.syncs.begin(table.id, Trigger.MANUAL, forced=forced, accepted=accept_loss)
                ended = _watch(context.records, run, out)
        except Error as error:
            if error.code is not Code.BUSY:
                raise
            ended = _sync_beside(doors, name, out, forced=force or accept_loss, accepted=accept_loss)
        _report(ended, out)

    @source.command
    def cancel(name: str, /) -> None:
        """Ask for the end of a source's run; what is held stays.

        Parameters
        ----------
        name
            As `roster source list` shows it, or its id.
        """
        with doors.open_records() as records:
            table = find_source(records.store, name)
            run = next((r for r in records.store.unfinished_runs() if r.table_id == table.id), None)
            if run is None or not records.store.ask_cancel(run.id, who=LOCAL.id, now_ms=records.clock.now_ms()):
                raise Error(Code.CONFLICT, f"nothing runs for {name!r}")
        out.print(f"asked to cancel run {run.id}", highlight=False)


def _sync_beside(doors: Doors, name: str, out: Console, *, forced: bool, accepted: bool) -> Run:
    """Queue the run in our own records, where the running server finds it."""
    with doors.open_records() as records:
        table = syncable(records.store, name)
        run = queue_run(records.store, records.clock, table.id, Trigger.MANUAL, forced=forced, accepted=accepted)
        return _watch(records, run, out)


def _watch(records: Records, run: Run, out: Console) -> Run:
    """A bar with step, rows, rate and the time that is left, until the run has ended."""
    columns = (TextColumn("{task.description:8}"), BarColumn(), TextColumn("{task.fields[told]}"))
    with Bar(*columns, console=out) as bar:
        task = bar.add_task(run.step, total=None, told="")
        while run.phase not in ENDED:
            time.sleep(POLL_S)
            found = records.store.find_run(run.id)
            if found is None:
                raise Error(Code.NOT_FOUND, "the run is gone: its source was removed meanwhile")
            run = found
            shown = progress(run, records.clock.now_ms())
            left = f", {shown['eta_s']:g} s left" if shown["eta_s"] else ""
            told = f"{run.rows:,} rows, {shown['rows_per_s']:,} rows/s{left}"
            bar.update(task, description=run.step, total=1.0, completed=shown["share"] or 0.0, told=told)
    return run


def _report(run: Run, out: Console) -> None:
    """What became of a run; a failure is this command's failure."""
    if run.failure is not None:
        code = Code.CONFLICT if run.phase is Phase.CANCELLED else Code(run.failure.code)
        raise Error(code, run.failure.message, hint=run.failure.hint)
    if run.phase is Phase.UNCHANGED:
        out.print("unchanged: nothing to do")
        return
    out.print(
        f"{run.rows:,} rows read: {run.stored:,} stored, {run.duplicate:,} duplicate, {run.keyless:,} without a key",
        highlight=False,
    )
    for c in run.coverage:
        out.print(
            f"{c.entity}/{c.connection_id}: {c.profiles_matched:,} of {c.profiles:,} profiles matched, "
            f"{c.quarantined:,} of {c.cells:,} cells quarantined",
            highlight=False,
        )
