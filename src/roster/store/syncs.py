"""Owns the records of syncing in SQL: where each source stands, its runs, and the swap; decides nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from sqlalchemy import Connection, Select, delete, desc, select, update

from roster.model.reference_table import Table
from roster.model.sync import ENDED, Run, Sync
from roster.store.connections import Connections
from roster.store.records import record_of_run, record_of_sync, record_of_table, run_of, sync_of
from roster.store.statements import find_table_row, put_row, write_audit
from roster.store.tables import reference_tables, sync_runs, syncs

ENDED_PHASES = tuple(phase.value for phase in ENDED)
NEWEST_FIRST = (desc(sync_runs.c.queued_ms), desc(sync_runs.c.attempt), desc(sync_runs.c.id))
OLDEST_FIRST = (sync_runs.c.queued_ms, sync_runs.c.attempt, sync_runs.c.id)


class SyncRecords:
    """The part of the records that syncing reads and writes; every method is one transaction."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections

    def swap_table(self, table: Table, sync: Sync, run: Run) -> bool:
        """Name a table's new generation and keep its sync and run, in one step.

        Only what describes the rows is taken from `table`; the rest, and what the webhook was told, stays as
        others have left it. False, and nothing is changed, when the table is gone, reads from elsewhere by now,
        or is not at the generation before.
        """
        with self._connections.write() as connection:
            kept = find_table_row(connection, table.id)
            if kept is None or kept.origin != table.origin or kept.generation != table.generation - 1:
                return False
            if not kept.owner and kept.columns != table.columns:  # a column was declared meanwhile
                return False
            record = record_of_table(with_rows_of(kept, table))
            connection.execute(update(reference_tables).where(reference_tables.c.id == table.id), record)
            known = _find_sync(connection, table.id)
            told = known.told if known else sync.told
            put_row(connection, syncs, "table_id", record_of_sync(replace(sync, told=told)))
            _put_run(connection, run)
            return True

    def read_sync(self, table_id: str) -> Sync | None:
        with self._connections.read() as connection:
            return _find_sync(connection, table_id)

    def list_syncs(self) -> list[Sync]:
        """By table."""
        with self._connections.read() as connection:
            rows = connection.execute(select(syncs).order_by(syncs.c.table_id)).mappings().all()
        return [sync_of(row) for row in rows]

    def write_sync(self, sync: Sync) -> None:
        """Keep where the syncing of a table stands; for a table that is gone it does nothing."""
        with self._connections.write() as connection:
            if find_table_row(connection, sync.table_id) is not None:
                put_row(connection, syncs, "table_id", record_of_sync(sync))

    def change_sync(self, table_id: str, change: Callable[[Sync], Sync], ended: Run | None = None) -> None:
        """Change where the syncing of a table stands, from what is kept at this moment; none is kept: nothing.

        A run that has ended is kept in the same step.
        """
        with self._connections.write() as connection:
            if find_table_row(connection, table_id) is None:
                return
            if ended is not None:
                _put_run(connection, ended)
            kept = _find_sync(connection, table_id)
            changed = change(kept) if kept else None
            if changed is not None and changed != kept:
                put_row(connection, syncs, "table_id", record_of_sync(changed))

    def write_run(self, run: Run) -> bool:
        """Keep a run, new or known; gives whether somebody asked to cancel it, which nothing takes back.

        A run whose table is gone is not kept, and nobody wants it any more: that counts as asked.
        """
        with self._connections.write() as connection:
            if find_table_row(connection, run.table_id) is None:
                return True
            return _put_run(connection, run)

    def find_run(self, id: str) -> Run | None:
        with self._connections.read() as connection:
            row = connection.execute(select(sync_runs).where(sync_runs.c.id == id)).mappings().first()
        return None if row is None else run_of(row)

    def list_runs(self, table_id: str, limit: int) -> list[Run]:
        """Newest first."""
        of_table = select(sync_runs).where(sync_runs.c.table_id == table_id)
        return self._runs(of_table.order_by(*NEWEST_FIRST).limit(limit))

    def unfinished_runs(self) -> list[Run]:
        """Runs that have not ended, oldest first."""
        return self._runs(select(sync_runs).where(sync_runs.c.phase.not_in(ENDED_PHASES)).order_by(*OLDEST_FIRST))

    def ask_cancel(self, run_id: str, *, who: str = "", now_ms: int = 0) -> bool:
        """Ask for the end of a run, from any process; False when there is no such run or it has ended.

        The first to ask is in the audit log, when told who it is.
        """
        with self._connections.write() as connection:
            row = connection.execute(select(sync_runs).where(sync_runs.c.id == run_id)).mappings().first()
            if row is None or row["phase"] in ENDED_PHASES:
                return False
            if not row["cancel_asked"]:
                connection.execute(update(sync_runs).where(sync_runs.c.id == run_id).values(cancel_asked=True))
                if who:
                    write_audit(connection, now_ms, who, "run.cancel_asked", run_id, {"table_id": row["table_id"]})
            return True

    def forget_runs(self, table_id: str, keep: int) -> None:
        """Remove all but the newest ended runs of a table."""
        ended = sync_runs.c.table_id == table_id, sync_runs.c.phase.in_(ENDED_PHASES)
        with self._connections.write() as connection:
            ids = connection.execute(select(sync_runs.c.id).where(*ended).order_by(*NEWEST_FIRST)).scalars().all()
            if ids[keep:]:
                connection.execute(delete(sync_runs).where(sync_runs.c.id.in_(ids[keep:])))

    def _runs(self, query: Select[tuple[object, ...]]) -> list[Run]:
        with self._connections.read() as connection:
            rows = connection.execute(query).mappings().all()
        return [run_of(row) for row in rows]


def with_rows_of(table: Table, other: Table) -> Table:
    """`table` with the generation of `other` and all that describes its rows."""
    return replace(
        table,
        columns=other.columns,
        primary_key=other.primary_key,
        row_count=other.row_count,
        generation=other.generation,
        held=other.held,
        updated_ms=max(table.updated_ms, other.updated_ms),
    )


def remove_syncing(connection: Connection, table_id: str) -> None:
    """Remove the sync and the runs of a table, in the transaction that removes the table."""
    connection.execute(delete(syncs).where(syncs.c.table_id == table_id))
    connection.execute(delete(sync_runs).where(sync_runs.c.table_id == table_id))


def _find_sync(connection: Connection, table_id: str) -> Sync | None:
    row = connection.execute(select(syncs).where(syncs.c.table_id == table_id)).mappings().first()
    return None if row is None else sync_of(row)


def _put_run(connection: Connection, run: Run) -> bool:
    """Whether it is to be cancelled. What somebody asked for stays asked, and a run that has ended stays so."""
    row = connection.execute(select(sync_runs).where(sync_runs.c.id == run.id)).mappings().first()
    kept = run_of(row) if row is not None else run
    merged = replace(
        run,
        cancel_asked=kept.cancel_asked or run.cancel_asked,
        forced=kept.forced or run.forced,
        accepted=kept.accepted or run.accepted,
    )
    if kept.phase not in ENDED or run.phase in ENDED:
        put_row(connection, sync_runs, "id", record_of_run(merged))
    return merged.cancel_asked
