"""Owns storing events exactly once, with the profiles built from them, in one transaction a call.

Events pass through a temporary table `staging`: their columns, `n` (order in their file), `fresh`
(nobody else can know the identity), `v` (document version, views only), `rest` still as JSON text.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping as Map
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path

import duckdb

from roster.base.errors import Code, Error
from roster.engine.connection import Duck
from roster.engine.event_files import stage_file
from roster.engine.profiles import PROFILE_INPUTS, SUBSUMED, Changed, list_keys, merge_rows, rebuild, recompute
from roster.engine.staging import COLUMNS, create_staging, stage_lines
from roster.model.schema import KEY_ATTRIBUTE, Entity
from roster.ports import Applied, Progress

_CHUNK = 250_000
"""Rows between two reports of progress."""

_FIRST_ONLY = """
    DELETE FROM staging WHERE rowid IN (
        SELECT rowid FROM (
            SELECT rowid, row_number() OVER (PARTITION BY event_id ORDER BY v DESC NULLS LAST, n) AS place
            FROM staging WHERE NOT fresh)
        WHERE place > 1)"""
_KNOWN = """
    CREATE OR REPLACE TEMP TABLE known AS
    SELECT events.event_id, events.rowid AS place
    FROM events JOIN (SELECT event_id FROM staging WHERE NOT fresh) USING (event_id)"""
_VERSION = "TRY_CAST(variant_extract(variant_extract(old.rest, '_dd'), 'document_version') AS BIGINT)"
_REPLACED = f"""
    CREATE OR REPLACE TEMP TABLE replaced AS
    SELECT old.rowid AS place, old.event_id, {SUBSUMED} AS subsumed, {", ".join(f"old.{c}" for c in PROFILE_INPUTS)}
    FROM events AS old JOIN staging AS new USING (event_id)
    WHERE old.rowid IN (SELECT place FROM known) AND old.type = 'view' AND new.v > coalesce({_VERSION}, 0)"""
_ONLY_NEW = """
    DELETE FROM staging
    WHERE event_id IN (SELECT event_id FROM known) AND event_id NOT IN (SELECT event_id FROM replaced)"""
_DROP_OLD = "DELETE FROM events WHERE rowid IN (SELECT place FROM replaced)"

_INPUTS = ", ".join(PROFILE_INPUTS)
_ROWS = f"""(
    SELECT 1 AS sign, {_INPUTS} FROM staging
    UNION ALL SELECT -1 AS sign, {_INPUTS} FROM replaced WHERE subsumed)"""
_TOUCHED = f"(SELECT {_INPUTS} FROM staging UNION ALL SELECT {_INPUTS} FROM replaced)"


def create_tables(connection: duckdb.DuckDBPyConnection) -> None:
    """Make the tables of `schema.sql` that are not there yet."""
    for statement in duckdb.extract_statements(files("roster.engine").joinpath("schema.sql").read_text("utf-8")):
        connection.execute(statement)


class DuckEvents:
    """The Events port on DuckDB. `on_profiles_changed` runs inside each transaction that changes profiles."""

    def __init__(self, duck: Duck, on_profiles_changed: Changed) -> None:
        self._duck = duck
        self._on_profiles_changed = on_profiles_changed
        with duck.write() as connection:
            create_tables(connection)

    def applied_segment(self) -> int:
        """Number of the newest stored segment, 0 for none."""
        connection = self._duck.cursor()
        try:
            return _read_applied(connection)
        finally:
            connection.close()

    def apply_segment(self, number: int, path: Path) -> Applied:
        """Store a closed segment of canonical lines; twice is once. Error: INVALID when a line is none."""
        with self._duck.write() as connection:
            if number <= _read_applied(connection):
                return Applied(0, 0)
            create_staging(connection)
            with _data_errors(path):
                stage_lines(connection, path)
            applied = self._store(connection, path, lambda _: None)
            connection.execute("DELETE FROM engine_state WHERE name = 'applied_segment'")
            connection.execute("INSERT INTO engine_state VALUES ('applied_segment', ?)", [number])
            return applied

    def load_file(self, path: Path, format: str, columns: Map[str, str], report: Callable[[Progress], None]) -> Applied:
        """Store the events of a CSV, NDJSON or Parquet file; see the port and `event_files`."""
        with self._duck.write() as connection:
            create_staging(connection)
            with _data_errors(path):
                stage_file(connection, path, format, columns, report)
            return self._store(connection, path, report)

    def rebuild_profiles(self) -> None:
        """Compute all profiles anew from the stored events."""
        with self._duck.write() as connection:
            for entity in Entity:
                list_keys(connection, entity, entity)
            rebuild(connection)
            for entity in Entity:
                key, name = KEY_ATTRIBUTE[entity], f"changed_{entity}"
                connection.execute(f"INSERT INTO {name} SELECT {key} FROM {entity} ANTI JOIN {name} USING ({key})")
                self._on_profiles_changed(connection, entity, name)

    def _store(self, connection: duckdb.DuckDBPyConnection, path: Path, report: Callable[[Progress], None]) -> Applied:
        """Store what is staged and not known yet, and bring the profiles up to it."""
        staged = _count(connection, "staging")
        for statement in (_FIRST_ONLY, _KNOWN, _REPLACED, _ONLY_NEW, _DROP_OLD):
            connection.execute(statement)
        stored = _count(connection, "staging")
        with _data_errors(path):
            _insert(connection, stored, report)
        report(Progress("profiles", 0, stored))
        merge_rows(connection, _ROWS)
        _recompute_unsubsumed(connection)
        for entity in Entity:
            self._on_profiles_changed(connection, entity, list_keys(connection, _TOUCHED, entity))
        report(Progress("profiles", stored, stored))
        return Applied(stored, staged - stored)


def _insert(connection: duckdb.DuckDBPyConnection, rows: int, report: Callable[[Progress], None]) -> None:
    names = ", ".join(f'"{name}"' for name, _ in COLUMNS)
    done = 0
    report(Progress("store", 0, rows))
    bounds = connection.execute("SELECT min(n), max(n) + 1 FROM staging").fetchone() if rows else None
    for start in range(bounds[0], bounds[1], _CHUNK) if bounds else ():
        chunk = f"FROM staging WHERE n >= {start} AND n < {start + _CHUNK}"
        found = connection.execute(
            f"INSERT INTO events BY NAME SELECT {names}, rest::VARIANT AS rest {chunk}"
        ).fetchone()
        done += found[0] if found else 0
        report(Progress("store", done, rows))


def _recompute_unsubsumed(connection: duckdb.DuckDBPyConnection) -> None:
    """A replaced version took with it something the new one does not say: look at all events of its profiles."""
    for entity in Entity:
        key = KEY_ATTRIBUTE[entity]
        connection.execute(
            f"CREATE OR REPLACE TEMP TABLE stale_{entity} AS "
            f"SELECT DISTINCT {key} FROM replaced WHERE NOT subsumed AND {key} IS NOT NULL"
        )
    if _count(connection, "stale_users") or _count(connection, "stale_accounts"):
        recompute(connection, "stale_users", "stale_accounts")


def _count(connection: duckdb.DuckDBPyConnection, table: str) -> int:
    found = connection.execute(f"SELECT count(*) FROM {table}").fetchone()
    return int(found[0]) if found else 0


def _read_applied(connection: duckdb.DuckDBPyConnection) -> int:
    found = connection.execute("SELECT value FROM engine_state WHERE name = 'applied_segment'").fetchone()
    return int(found[0]) if found else 0


@contextmanager
def _data_errors(path: Path) -> Iterator[None]:
    """Only what the data of the file can cause is the caller's fault; anything else stays what it is."""
    try:
        yield
    except (duckdb.InvalidInputException, duckdb.ConversionException, duckdb.OutOfRangeException) as error:
        lines = [line for line in str(error).splitlines() if line.strip()]
        raise Error(Code.INVALID, f"{path.name} cannot be read: {' '.join(lines[:3])}") from error
