"""Owns the rows of reference tables in DuckDB: loading, versions, pages, changes. Reads no files and no requests.

Rows are multi-versioned: a change closes rows (`_to`) and adds rows (`_from`), so pages of one version
are one snapshot. `rows_<hex>` holds all versions, the view `table_<hex>` the current rows for queries.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from uuid import UUID

import duckdb

from roster.base.errors import Code, Error
from roster.base.time import instant
from roster.engine.cells import SQL_TYPES, quoted, shown
from roster.engine.connection import Duck
from roster.engine.table_files import infer_schema, open_file
from roster.engine.table_rows import OPEN, merge_rows, number, refuse_misfits, stage_file, stage_rows
from roster.model.reference_table import INT32_MAX, INT32_MIN, Row, Table
from roster.model.schema import Schema
from roster.ports import Loaded, RowPage

SNAPSHOT_TTL_MS = 600_000
VERSIONS = 'CREATE TABLE IF NOT EXISTS table_versions (id VARCHAR, version BIGINT, "at" TIMESTAMP)'


class DuckTables:
    """The Tables port on DuckDB.

    `on_table_changed` is called inside the transaction of every change. A version can be read for
    `snapshot_ttl_ms` after it was superseded, at least.
    """

    def __init__(
        self,
        duck: Duck,
        on_table_changed: Callable[[duckdb.DuckDBPyConnection, str], None],
        snapshot_ttl_ms: int = SNAPSHOT_TTL_MS,
    ) -> None:
        self._duck = duck
        self._on_table_changed = on_table_changed
        self._snapshot_ttl_ms = snapshot_ttl_ms
        self._folder = duck.path.with_suffix(".loads")
        shutil.rmtree(self._folder, ignore_errors=True)  # what a killed process left
        with duck.write() as connection:
            connection.execute(VERSIONS)

    @contextmanager
    def _load(self) -> Iterator[tuple[duckdb.DuckDBPyConnection, Path]]:
        """A connection and a folder that leave nothing behind."""
        self._folder.mkdir(exist_ok=True)
        connection = self._duck.cursor()
        try:
            with TemporaryDirectory(dir=self._folder) as folder:
                yield connection, Path(folder)
        except duckdb.OutOfMemoryException as error:
            hint = "raise the setting engine_memory or engine_spill"
            raise Error(Code.BUSY, "the file needs more memory than the engine may use", hint=hint) from error
        finally:
            connection.close()

    def inspect_file(self, paths: Sequence[Path], format: str) -> Schema:
        """Column names as written and the narrowest type each column's values all fit."""
        with self._load() as (connection, folder), open_file(connection, paths, format, (), folder) as file:
            return infer_schema(connection, file)

    def create_table(
        self,
        table: Table,
        paths: Sequence[Path],
        format: str,
        headers: Sequence[str] = (),
        *,
        declared: bool = False,
    ) -> Loaded:
        """Fill a table from a file in parts (none: an empty table); a table of that id is replaced whole.

        `headers`, `declared`: see the port. Errors: INVALID with line and column; nothing is changed then.
        """
        with self._load() as (connection, folder):
            rows = folder / "rows.parquet"
            loaded = Loaded(0, 0)
            if paths:
                with open_file(connection, paths, format, headers, folder) as file:
                    loaded = stage_file(connection, table, file, rows, declared=declared)
            with self._duck.write() as writer:
                self._replace(writer, table, rows if paths else None)
        return loaded

    def _replace(self, connection: duckdb.DuckDBPyConnection, table: Table, rows: Path | None) -> None:
        hex = _hex(table.id)
        version = _newest(connection, table.id) + 1
        connection.execute("DELETE FROM table_versions WHERE id = ?", [table.id])
        at = instant(table.updated_ms)
        connection.execute("INSERT INTO table_versions VALUES (?, ?, ?)", [table.id, version, at])
        columns = "".join(f", {quoted(c.name)} {SQL_TYPES[c.type]}" for c in table.columns)
        columns = f"_row BIGINT, _from BIGINT, _to BIGINT, _id VARCHAR{columns}"
        connection.execute(f"CREATE OR REPLACE TABLE rows_{hex} ({columns})")
        if rows is not None:
            values = "".join(f", x{i}" for i in range(len(table.columns)))
            connection.execute(
                f"INSERT INTO rows_{hex} SELECT _row, ?, {OPEN}, _id{values} FROM read_parquet(?) ORDER BY _row",
                [version, str(rows)],
            )
        _make_view(connection, hex, table.columns)
        self._on_table_changed(connection, table.id)

    def drop_table(self, id: str) -> None:
        """Remove the rows; an unknown id is no error."""
        hex = _hex(id)
        with self._duck.write() as connection:
            if not _newest(connection, id):
                return
            connection.execute(f"DROP VIEW IF EXISTS table_{hex}")
            connection.execute(f"DROP TABLE IF EXISTS rows_{hex}")
            connection.execute("DELETE FROM table_versions WHERE id = ?", [id])
            self._on_table_changed(connection, id)

    def add_columns(self, table: Table) -> None:
        """Add the columns of the definition that the rows do not have yet, empty."""
        with self._duck.write() as connection:
            if self._widen(connection, table):
                self._on_table_changed(connection, table.id)

    def _widen(self, connection: duckdb.DuckDBPyConnection, table: Table) -> bool:
        hex = _hex(table.id)
        held = _held(connection, table.id)
        missing = [c for c in table.columns if c.name not in held]
        for column in missing:
            connection.execute(f"ALTER TABLE rows_{hex} ADD COLUMN {quoted(column.name)} {SQL_TYPES[column.type]}")
        if missing:
            _make_view(connection, hex, table.columns)
        return bool(missing)

    @contextmanager
    def _read(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """A connection that sees one snapshot."""
        connection = self._duck.cursor()
        try:
            connection.execute("BEGIN TRANSACTION READ ONLY")
            yield connection
        finally:
            connection.close()

    def list_tables(self) -> list[str]:
        """Ids of all tables that hold rows or could."""
        with self._read() as connection:
            found = connection.execute("SELECT DISTINCT id FROM table_versions ORDER BY id").fetchall()
        return [str(id) for (id,) in found]

    def count_rows(self, id: str) -> int:
        """Number of current rows. Error: NOT_FOUND."""
        with self._read() as connection:
            _version(connection, id)
            return number(connection, f"SELECT count(*) FROM rows_{_hex(id)} WHERE _to = {OPEN}")

    def table_version(self, id: str) -> int:
        """Grows with every change of the rows. Error: NOT_FOUND."""
        with self._read() as connection:
            return _version(connection, id)

    def read_rows(self, table: Table, version: int, after: int, limit: int) -> RowPage:
        """Rows as of `version`, from 0 on. Error: CONFLICT when that version is no longer kept."""
        with self._read() as connection:
            _version(connection, table.id)
            kept = "SELECT count(*) FROM table_versions WHERE id = ? AND version = ?"
            if not number(connection, kept, table.id, version):
                raise Error(Code.CONFLICT, "the page token has expired", hint="start again from the first page")
            found = connection.execute(
                f"""SELECT _row, {_selection(connection, table)} WHERE _row > ? AND _from <= ? AND _to > ?
                    ORDER BY _row LIMIT ?""",
                [after, version, version, limit + 1],
            ).fetchall()
        rows = [_row(table, found_row[1:]) for found_row in found[:limit]]
        return RowPage(rows, found[limit - 1][0] if len(found) > limit else None)

    def find_rows(self, table: Table, ids: Sequence[str]) -> list[Row]:
        """Rows with these primary keys, each once, in the order asked; absent ones left out."""
        with self._read() as connection:
            _version(connection, table.id)
            found = connection.execute(
                f"""SELECT {_selection(connection, table)}
                    WHERE _to = {OPEN} AND _id IN (SELECT unnest(CAST(? AS VARCHAR[])))""",
                [list(ids)],
            ).fetchall()
        rows = {row.id: row for row in (_row(table, r) for r in found)}
        return [rows[id] for id in dict.fromkeys(ids) if id in rows]

    def upsert_rows(self, table: Table, rows: Sequence[Row], now_ms: int) -> None:
        """Update or insert rows by their id; columns that a row does not give keep their value.

        Rows are as `check_values` gives them. What would change nothing makes no version.
        """
        with self._duck.write() as connection:
            self._widen(connection, table)
            hex = _hex(table.id)
            present = stage_rows(connection, table, rows)
            refuse_misfits(connection, table, lambda n: f"/data/{n}", declared=False)
            if not merge_rows(connection, table, f"rows_{hex}", present):
                return
            version = self._begin_version(connection, table.id, now_ms)
            connection.execute(
                f"UPDATE rows_{hex} SET _to = ? WHERE _to = {OPEN} AND _id IN (SELECT _id FROM temp.changed)", [version]
            )
            names = "".join(f", {quoted(c.name)}" for c in table.columns)
            values = "".join(f", x{i}" for i in range(len(table.columns)))
            connection.execute(
                f"""INSERT INTO rows_{hex} (_row, _from, _to, _id{names})
                    SELECT _row, ?, {OPEN}, _id{values} FROM temp.changed""",
                [version],
            )
            self._on_table_changed(connection, table.id)

    def delete_rows(self, table: Table, ids: Sequence[str], now_ms: int) -> int:
        """Delete rows by their id; gives how many there were."""
        hex = _hex(table.id)
        chosen = f"_to = {OPEN} AND _id IN (SELECT unnest(CAST(? AS VARCHAR[])))"
        with self._duck.write() as connection:
            _version(connection, table.id)
            count = number(connection, f"SELECT count(*) FROM rows_{hex} WHERE {chosen}", list(ids))
            if count:
                version = self._begin_version(connection, table.id, now_ms)
                connection.execute(f"UPDATE rows_{hex} SET _to = ? WHERE {chosen}", [version, list(ids)])
                self._on_table_changed(connection, table.id)
        return count

    def _begin_version(self, connection: duckdb.DuckDBPyConnection, id: str, now_ms: int) -> int:
        """Forget what no page may still read, and start the next version."""
        expired = instant(now_ms - self._snapshot_ttl_ms)
        superseded = 'SELECT coalesce(max(version), 0) FROM table_versions WHERE id = ? AND "at" <= ?'
        oldest = number(connection, superseded, id, expired)
        connection.execute("DELETE FROM table_versions WHERE id = ? AND version < ?", [id, oldest])
        connection.execute(f"DELETE FROM rows_{_hex(id)} WHERE _to <= ?", [oldest])
        version = _version(connection, id) + 1
        connection.execute("INSERT INTO table_versions VALUES (?, ?, ?)", [id, version, instant(now_ms)])
        return version


def _hex(id: str) -> str:
    try:
        return UUID(id).hex
    except ValueError as error:
        raise Error(Code.INVALID, "table ID must be a valid UUID format") from error


def _newest(connection: duckdb.DuckDBPyConnection, id: str) -> int:
    return number(connection, "SELECT coalesce(max(version), 0) FROM table_versions WHERE id = ?", id)


def _version(connection: duckdb.DuckDBPyConnection, id: str) -> int:
    version = _newest(connection, id)
    if not version:
        raise Error(Code.NOT_FOUND, "table not found")
    return version


def _held(connection: duckdb.DuckDBPyConnection, id: str) -> set[str]:
    """Names of the columns that the stored rows have."""
    _version(connection, id)
    return {str(row[0]) for row in connection.execute(f"DESCRIBE rows_{_hex(id)}").fetchall()}


def _make_view(connection: duckdb.DuckDBPyConnection, hex: str, columns: Schema) -> None:
    names = "".join(f", {quoted(c.name)}" for c in columns)
    connection.execute(f"CREATE OR REPLACE VIEW table_{hex} AS SELECT _row{names} FROM rows_{hex} WHERE _to = {OPEN}")


def _selection(connection: duckdb.DuckDBPyConnection, table: Table) -> str:
    held = _held(connection, table.id)
    values = (shown(c.type, quoted(c.name)) if c.name in held else "NULL" for c in table.columns)
    return f"_id, {', '.join(values)} FROM rows_{_hex(table.id)}"


def _row(table: Table, found: tuple[object, ...]) -> Row:
    """A row as it goes out: text or 32-bit integers, larger ones as text, nulls left out."""
    id, *cells = found
    values = {c.name: _outward(cell) for c, cell in zip(table.columns, cells, strict=True) if cell is not None}
    return Row(str(id), values)


def _outward(cell: object) -> object:
    return str(cell) if isinstance(cell, int) and not INT32_MIN <= cell <= INT32_MAX else cell
