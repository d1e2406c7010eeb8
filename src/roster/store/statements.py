"""Owns the statements that several kinds of records share: finding a table, putting a row, auditing; opens nothing."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, Table as Rows, insert, select, update

from roster.model.reference_table import Table
from roster.store.records import Record, table_of
from roster.store.tables import audit, reference_tables


def find_table_row(connection: Connection, id: str) -> Table | None:
    """The table of that id, as kept at this moment."""
    row = connection.execute(select(reference_tables).where(reference_tables.c.id == id)).mappings().first()
    return None if row is None else table_of(row)


def put_row(connection: Connection, rows: Rows, key: str, record: Record) -> None:
    """Replace the row whose `key` column is that of the record, or make it; only while other writers wait."""
    changed = connection.execute(update(rows).where(rows.c[key] == record[key]), record)
    if changed.rowcount == 0:
        connection.execute(insert(rows), record)


def write_audit(connection: Connection, at_ms: int, who: str, action: str, target: str, detail: dict[str, Any]) -> None:
    """Keep what was done, in the transaction that does it."""
    row = {"at_ms": at_ms, "who": who, "action": action, "target": target, "detail": detail}
    connection.execute(insert(audit), row)
