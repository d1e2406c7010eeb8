"""Owns storing events exactly once, with the profiles built from them, in one transaction a call.

Events pass through a temporary table `staging`: their columns, `n` (order in their file), `fresh`
(nobody else can know the identity), `v` (document version, views only), `merged` (a view made of parts),
`resolved_user_id` where only the anonymous id tells whose event it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping as Map
from contextlib import contextmanager
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import duckdb

from roster.base.errors import Code, Error
from roster.engine.arrays import learn_arrays
from roster.engine.connection import Duck
from roster.engine.event_files import stage_file
from roster.engine.identity import learn, relearn, resolve_staged
from roster.engine.lifecycle import DuckLifecycle
from roster.engine.places import DIGEST, at_ids
from roster.engine.profiles import (
    INPUTS,
    OWNER,
    PROFILE_INPUTS,
    SUBSUMED,
    Changed,
    list_keys,
    merge_rows,
    rebuild,
    recompute,
)
from roster.engine.sessions import mark_all, mark_ended, note_stale, settle_portion
from roster.engine.staging import COLUMNS, create_staging, stage_lines
from roster.engine.traits import learn_kinds, read_types
from roster.engine.upgrades import upgrade
from roster.engine.view_updates import merge_updates
from roster.model.schema import KEY_ATTRIBUTE, Entity, Type
from roster.ports import Applied, Progress

_CHUNK = 250_000
"""Rows between two reports of progress."""

_FIRST_ONLY = """
    DELETE FROM staging WHERE rowid IN (
        SELECT rowid FROM (
            SELECT rowid, row_number() OVER (PARTITION BY event_id ORDER BY v DESC NULLS LAST, n) AS place
            FROM staging WHERE NOT fresh)
        WHERE place > 1)"""
_STAGED_IDS = "SELECT event_id FROM staging WHERE NOT fresh"
_KNOWN = "CREATE OR REPLACE TEMP TABLE known AS SELECT event_id FROM events WHERE {}"
_REPLACED = f"""
    CREATE OR REPLACE TEMP TABLE replaced AS
    SELECT old.place, old.event_id, {SUBSUMED} AS subsumed, old.anonymous_id, old.resolved_user_id,
        {", ".join(f"old.{c}" for c in PROFILE_INPUTS)}
    FROM (SELECT *, rowid AS place FROM events WHERE {{}}) AS old JOIN staging AS new USING (event_id)
    WHERE old.type = 'view' AND (new.v > coalesce(old.v, 0) OR new.merged)"""
_ONLY_NEW = """
    DELETE FROM staging
    WHERE event_id IN (SELECT event_id FROM known) AND event_id NOT IN (SELECT event_id FROM replaced)"""
_DERIVED = f"{OWNER} AS resolved_user_id, v, user_traits, account_traits, {DIGEST} AS digest"
_DROP_OLD = "DELETE FROM events WHERE rowid IN (SELECT place FROM replaced)"

_CHANGES = f"""
    SELECT 1 AS sign, {INPUTS} FROM staging
    UNION ALL SELECT -1 AS sign, {INPUTS} FROM replaced WHERE subsumed"""
_KNOWN_NOW = """user_id IS NULL AND type <> 'session'
    AND anonymous_id IN (SELECT anonymous_id FROM moved WHERE before IS NULL)"""
_CHANGES_AND_KNOWN_NOW = f"""{_CHANGES}
    UNION ALL SELECT 1 AS sign, {INPUTS} FROM events WHERE {_KNOWN_NOW}"""
_TOUCHED = f"""(
    SELECT {INPUTS} FROM staging UNION ALL SELECT {INPUTS} FROM replaced
    UNION ALL BY NAME SELECT unnest([before, after]) AS user_id FROM moved
    UNION ALL BY NAME SELECT account_id FROM stale_accounts)"""
_TOUCHED_AND_KNOWN_NOW = f"""(
    SELECT * FROM {_TOUCHED} UNION ALL BY NAME SELECT DISTINCT account_id FROM events
    WHERE user_id IS NULL AND anonymous_id IN (SELECT anonymous_id FROM moved))"""


def create_tables(connection: duckdb.DuckDBPyConnection) -> None:
    """Make the tables of `schema.sql` that are not there yet."""
    for statement in duckdb.extract_statements(files("roster.engine").joinpath("schema.sql").read_text("utf-8")):
        connection.execute(statement)


class DuckEvents(DuckLifecycle):
    """The Events port on DuckDB. `on_profiles_changed` runs inside each transaction that changes profiles."""

    def __init__(self, duck: Duck, on_profiles_changed: Changed) -> None:
        super().__init__(duck, on_profiles_changed)
        self._learned = 0
        self._traits: dict[Entity, tuple[int, dict[str, Type]]] = {}
        with duck.write() as connection:
            create_tables(connection)
            upgrade(connection)

    def applied_segment(self) -> int:
        """Number of the newest stored segment, 0 for none."""
        connection = self._duck.cursor()
        try:
            return _read_applied(connection)
        finally:
            connection.close()

    def apply_segment(self, number: int, path: Path) -> Applied:
        """Store a closed segment of canonical lines; twice is once. Error: INVALID when a line is none."""
        with _data_errors(path), self._duck.write() as connection:
            if number <= _read_applied(connection):
                return Applied(0, 0)
            create_staging(connection)
            stage_lines(connection, path)
            applied = self._store(connection, lambda _: None)
            connection.execute("DELETE FROM engine_state WHERE name = 'applied_segment'")
            connection.execute("INSERT INTO engine_state VALUES ('applied_segment', ?)", [number])
        self._learned += 1
        return applied

    def load_file(self, path: Path, format: str, columns: Map[str, str], report: Callable[[Progress], None]) -> Applied:
        """Store the events of a CSV, NDJSON or Parquet file; see the port and `event_files`."""
        with _data_errors(path), self._duck.write() as connection:
            create_staging(connection)
            left_out = stage_file(connection, path, format, columns, report)
            applied = self._store(connection, report)
        self._learned += 1
        return replace(applied, left_out=left_out)

    def settle(self, now_ms: int) -> None:
        """Bring the rows of sessions up to their events, a portion a transaction."""
        with self._duck.write() as connection:
            mark_ended(connection, now_ms)
        while True:
            with self._duck.write() as connection:
                if not settle_portion(connection, now_ms):
                    return

    def read_traits(self, entity: Entity) -> Map[str, Type]:
        """Attributes that events give to an entity's profiles, each with the type that fits all values seen."""
        learned, held = self._learned, self._traits.get(entity)
        if held is not None and held[0] == learned:
            return held[1]
        connection = self._duck.cursor()
        try:
            types = read_types(connection, entity)
        finally:
            connection.close()
        self._traits[entity] = (learned, types)
        return types

    def rebuild_profiles(self) -> None:
        """Compute all profiles anew from the stored events."""
        with self._duck.write() as connection:
            for entity in Entity:
                list_keys(connection, entity, entity)
            relearn(connection)
            rebuild(connection)
            mark_all(connection)
            for entity in Entity:
                key, name = KEY_ATTRIBUTE[entity], f"changed_{entity}"
                connection.execute(f"INSERT INTO {name} SELECT {key} FROM {entity} ANTI JOIN {name} USING ({key})")
                self._on_profiles_changed(connection, entity, name)

    def _store(self, connection: duckdb.DuckDBPyConnection, report: Callable[[Progress], None]) -> Applied:
        """Store what is staged and not known yet, and bring the profiles up to it."""
        staged = _count(connection, "staging")
        merge_updates(connection)
        learn_arrays(connection, "SELECT opened AS said FROM staging")
        resolve_staged(connection)
        connection.execute(_FIRST_ONLY)
        found_at = at_ids(connection, _STAGED_IDS)
        for statement in (_KNOWN.format(found_at), _REPLACED.format(found_at), _ONLY_NEW, _DROP_OLD):
            connection.execute(statement)
        stored = _count(connection, "staging")
        _insert(connection, stored, report)
        report(Progress("profiles", 0, stored))
        learn(connection)
        learn_kinds(connection)
        _list_stale(connection)
        someone_moved = _count(connection, "moved") > 0
        merge_rows(connection, f"({_CHANGES_AND_KNOWN_NOW if someone_moved else _CHANGES})")
        if _count(connection, "stale_users") or _count(connection, "stale_accounts"):
            recompute(connection, "stale_users", "stale_accounts")
        touched = _TOUCHED_AND_KNOWN_NOW if someone_moved else _TOUCHED
        for entity in Entity:
            self._on_profiles_changed(connection, entity, list_keys(connection, touched, entity))
        note_stale(connection)
        report(Progress("profiles", stored, stored))
        return Applied(stored, staged - stored)


def _insert(connection: duckdb.DuckDBPyConnection, rows: int, report: Callable[[Progress], None]) -> None:
    names = ", ".join(f'"{name}"' for name, _ in COLUMNS)
    done = 0
    report(Progress("store", 0, rows))
    bounds = connection.execute("SELECT min(n), max(n) + 1 FROM staging").fetchone() if rows else None
    for start in range(bounds[0], bounds[1], _CHUNK) if bounds else ():
        chunk = f"FROM staging WHERE n >= {start} AND n < {start + _CHUNK}"
        found = connection.execute(f"INSERT INTO events BY NAME SELECT {names}, rest, {_DERIVED} {chunk}").fetchone()
        done += found[0] if found else 0
        report(Progress("store", done, rows))


def _list_stale(connection: duckdb.DuckDBPyConnection) -> None:
    """Profiles that lose something: by a version that says less than the one it replaces, or events to another user."""
    lost = f"(SELECT {INPUTS} FROM replaced WHERE NOT subsumed)"
    connection.execute(f"""
        CREATE OR REPLACE TEMP TABLE stale_users AS
        SELECT user_id FROM {lost} WHERE user_id IS NOT NULL
        UNION SELECT unnest([before, after]) FROM moved WHERE before IS NOT NULL
        EXCEPT SELECT NULL""")
    connection.execute(f"""
        CREATE OR REPLACE TEMP TABLE stale_accounts AS
        SELECT account_id FROM {lost} WHERE account_id IS NOT NULL
        UNION SELECT account_id FROM user_accounts WHERE user_id IN (
            SELECT unnest([before, after]) FROM moved WHERE before IS NOT NULL)""")


def _count(connection: duckdb.DuckDBPyConnection, table: str) -> int:
    found = connection.execute(f"SELECT count(*) FROM {table}").fetchone()
    return int(found[0]) if found else 0


def _read_applied(connection: duckdb.DuckDBPyConnection) -> int:
    found = connection.execute("SELECT value FROM engine_state WHERE name = 'applied_segment'").fetchone()
    return int(found[0]) if found else 0


@contextmanager
def _data_errors(path: Path) -> Iterator[None]:
    """What the data of the file can cause is the caller's fault, a disk or memory that is full a passing state."""
    try:
        yield
    except (duckdb.InvalidInputException, duckdb.ConversionException, duckdb.OutOfRangeException) as error:
        lines = [line for line in str(error).splitlines() if line.strip()]
        raise Error(Code.INVALID, f"{path.name} cannot be read: {' '.join(lines[:3])}") from error
    except (duckdb.IOException, duckdb.OutOfMemoryException) as error:
        raise Error(Code.BUSY, f"{path.name} cannot be stored now: {error}", hint="is the disk full?") from error
