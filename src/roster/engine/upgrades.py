"""Owns bringing a database that an earlier Roster made up to the present tables, once, at its first start."""

from __future__ import annotations

import duckdb

from roster.engine.arrays import learn_arrays
from roster.engine.identity import relearn
from roster.engine.places import DIGEST
from roster.engine.profiles import rebuild
from roster.engine.sessions import mark_all
from roster.engine.staging import SAID, VERSION
from roster.engine.traits import learn_kinds

_ADDED = {
    "events": {
        "resolved_user_id": "VARCHAR",
        "v": "BIGINT",
        "user_traits": "VARCHAR",
        "account_traits": "VARCHAR",
    },
    "users": {"traits": "VARIANT", "traits_text": "VARCHAR", "traits_text_at": "TIMESTAMP"},
    "accounts": {"traits": "VARIANT", "traits_text": "VARCHAR", "traits_text_at": "TIMESTAMP"},
}
"""Columns that tables made by earlier versions lack."""
_ARRAYS = "arrays_learned"
"""Once 1, arrays of all stored events are noted."""


def upgrade(connection: duckdb.DuckDBPyConnection) -> None:
    """Add what is missing and compute it from the stored events; nothing when all is there."""
    described = "SELECT column_name FROM duckdb_columns() WHERE table_name = 'events'"
    present = {name for (name,) in connection.execute(described).fetchall()}
    if "digest" not in present:
        connection.execute('ALTER TABLE events ADD COLUMN "digest" UBIGINT')
        connection.execute(f"UPDATE events SET digest = {DIGEST}")
    if not connection.execute(f"SELECT 1 FROM engine_state WHERE name = '{_ARRAYS}'").fetchall():
        learn_arrays(connection, "SELECT rest::JSON AS said FROM events")
        connection.execute(f"INSERT INTO engine_state VALUES ('{_ARRAYS}', 1)")
    if "resolved_user_id" in present:
        return
    for table, columns in _ADDED.items():
        for name, type in columns.items():
            connection.execute(f'ALTER TABLE {table} ADD COLUMN "{name}" {type}')
    connection.execute("UPDATE events SET resolved_user_id = user_id")
    connection.execute(f"UPDATE events SET v = {VERSION} WHERE type = 'view'")
    said = (f"{name} = {sql.replace('said', 'rest::JSON')}" for name, sql in SAID.items())
    connection.execute(f"UPDATE events SET {', '.join(said)}")
    relearn(connection)
    learn_kinds(connection, "events")
    rebuild(connection)
    mark_all(connection)
    known = {name for (name,) in connection.execute("SELECT table_name FROM duckdb_tables()").fetchall()}
    for table in known & {"enriched_layout", "enriched_source"}:
        connection.execute(f"DELETE FROM {table}")  # what they name lacks the new columns
