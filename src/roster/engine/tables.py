"""Owns the rows of tables in DuckDB: loading, staging, versions, pages, changes. Reads no files and no requests.

Rows are multi-versioned: a change closes rows (`_to`) and adds rows (`_from`), so pages of one version
are one snapshot. A table has generations, each with rows of its own; see `generations`. A file's rows are
built in a table `stage_<n>`, which becomes a generation in one short transaction.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping as Map, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from datetime import datetime
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory

import duckdb

from roster.base.errors import Code, Error
from roster.base.time import instant
from roster.engine.cells import SQL_TYPES, quoted, shown
from roster.engine.connection import Duck
from roster.engine.generations import (
    OPEN,
    Increment,
    add_version,
    drop_generation,
    find_version,
    forget_versions,
    generation_of,
    generations_of,
    make_fresh_view,
    make_view,
    mark_superseded,
    next_version,
    number,
    prepare,
    relation_name,
    rows_name,
    stored_types,
)
from roster.engine.past import drop_past, end, end_rows, going_on, keeps_since, moment, note_changed, pass_on, show
from roster.engine.table_files import infer_schema, no_file, open_file
from roster.engine.table_merge import Filled, fill, fill_empty, read_before
from roster.engine.table_rows import asked_as, merge_rows, refuse_misfits, stage_rows, type_file
from roster.model.reference_table import (
    INT32_MAX,
    INT32_MIN,
    Row,
    Table,
    column_of,
    fits_text,
    relation_of,
    stored_columns,
)
from roster.model.schema import Column, Schema, Type
from roster.ports import ANEW, Loaded, Merge, RowPage, Staged

SNAPSHOT_TTL_MS = 600_000
OnChanged = Callable[[duckdb.DuckDBPyConnection, str, str | Increment | None], None]
"""Given the relation that changed, and a table of its rows before and after when only some changed in place.

Of a generation that was filled: how it differs from the one before, when it is that with some rows put in.
"""


class DuckTables:
    """The Tables port on DuckDB.

    `on_table_changed` is called inside the transaction of every change. A version can be read for
    `snapshot_ttl_ms` after it was superseded, at least.
    """

    def __init__(self, duck: Duck, on_table_changed: OnChanged, snapshot_ttl_ms: int = SNAPSHOT_TTL_MS) -> None:
        self._duck = duck
        self._on_table_changed = on_table_changed
        self._snapshot_ttl_ms = snapshot_ttl_ms
        self._stages = count()
        self._folder = duck.path.with_suffix(".loads")
        shutil.rmtree(self._folder, ignore_errors=True)  # what a killed process left
        with duck.write() as connection:
            prepare(connection)

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

    def inspect_file(self, paths: Sequence[Path], format: str, known: Schema = ()) -> Schema:
        """Column names as written, with types; see the port."""
        with self._load() as (connection, folder), open_file(connection, paths, format, (), folder) as file:
            return infer_schema(connection, file, known)

    def create_table(
        self,
        table: Table,
        paths: Sequence[Path],
        format: str,
        headers: Sequence[str] = (),
        *,
        declared: bool = False,
        merge: Merge = ANEW,
    ) -> Loaded:
        """Fill a generation from a file in parts (none: an empty table), anew.

        `headers`, `declared`, `merge`: see the port. Errors: INVALID with line and column; nothing is changed then.
        """
        every = range(len(table.columns))
        # rows may be written beside a load, but not while their history is continued
        alone = nullcontext() if merge.since_ms is None else self._duck.write()
        with alone, self._load() as (connection, folder), self._stage(connection) as target:
            at = self._moment(connection, table, merge)
            if not paths:
                fill_empty(connection, target, table)
                filled = Filled(Loaded(0, 0), 0, ())
            else:
                with open_file(connection, paths, format, headers, folder) as file:
                    typed = type_file(connection, table, file, folder, every, int32_only=declared)
                    refuse_misfits(connection, table, typed, file.place, declared=declared, keyed=declared)
                    filled = fill(connection, target, table, typed, merge, read_before(connection, merge.before), at)
                    file.check_count(filled.read())
            with self._duck.write() as writer:
                self._publish(writer, table, target, merge, at if paths else None)
        return filled.loaded

    def stage_table(self, table: Table, paths: Sequence[Path], format: str, merge: Merge) -> Staged:
        """Fill a generation for a sync; see the port. Whatever fails leaves it as it was."""
        taken = [i for i, c in enumerate(table.columns) if c.name not in merge.carried]
        with self._load() as (connection, folder), self._stage(connection) as target:
            before, at = read_before(connection, merge.before), self._moment(connection, table, merge)
            opened = open_file(connection, paths, format, (), folder) if paths else no_file(table.columns)
            with opened as file:
                typed = type_file(connection, table, file, folder, taken, any_key=True)
                filled = fill(connection, target, table, typed, merge, before, at)
                file.check_count(filled.read())
            with self._duck.write() as writer:
                self._publish(writer, table, target, merge, at)
                fresh = make_fresh_view(writer, table) if merge.changes_only else relation_of(table)
                if merge.changes_only and merge.before and find_version(writer, merge.before) == before.version:
                    self._on_table_changed(writer, relation_of(table), Increment(relation_of(merge.before), fresh))
        return Staged(filled.loaded, filled.rows, filled.held, fresh)

    @contextmanager
    def _stage(self, connection: duckdb.DuckDBPyConnection) -> Iterator[str]:
        """The name of a table to build rows in; what is not published goes."""
        target = f"stage_{next(self._stages)}"
        try:
            yield target
        finally:
            connection.execute(f"DROP TABLE IF EXISTS {target}")

    def _moment(self, connection: duckdb.DuckDBPyConnection, table: Table, merge: Merge) -> datetime | None:
        """The time of a change whose history is kept; None when it is not."""
        return moment(connection, merge.before or table, merge.since_ms) if merge.since_ms is not None else None

    def _publish(
        self, connection: duckdb.DuckDBPyConnection, table: Table, target: str, merge: Merge, at: datetime | None
    ) -> None:
        """Make a built table the generation that `table` names."""
        version = next_version(connection, table.id)
        drop_generation(connection, table.id, table.generation)
        connection.execute(f"ALTER TABLE {target} RENAME TO {rows_name(table.id, table.generation)}")
        make_view(connection, table)
        pass_on(connection, table, merge.before, at)
        add_version(connection, table.id, table.generation, version, table.updated_ms)
        self._on_table_changed(connection, relation_of(table), None)

    def drop_table(self, id: str) -> None:
        """Remove the rows of all generations; an unknown id is no error."""
        with self._duck.write() as connection:
            for generation, _ in generations_of(connection, id):
                self._drop(connection, id, generation)
            drop_past(connection, id)

    def _drop(self, connection: duckdb.DuckDBPyConnection, id: str, generation: int) -> None:
        drop_generation(connection, id, generation)
        self._on_table_changed(connection, relation_name(id, generation), None)

    def drop_generations(self, current: Map[str, Sequence[int]], now_ms: int) -> None:
        """Forget generations that are not current and no page may still read; see the port.

        Each goes its time after the first call that says so: one that was filled a moment ago may be named the next.
        """
        expired = instant(now_ms - self._snapshot_ttl_ms)
        with self._duck.write() as connection:
            for id, kept in current.items():
                for generation, since in generations_of(connection, id):
                    if generation in kept:
                        if since is not None:
                            mark_superseded(connection, id, generation, None)
                    elif since is None:
                        mark_superseded(connection, id, generation, instant(now_ms))
                    elif since <= expired:
                        self._drop(connection, id, generation)

    def add_columns(self, table: Table) -> None:
        """Add the columns of the definition that the rows do not have yet, empty."""
        with self._duck.write() as connection:
            if self._widen(connection, table):
                self._on_table_changed(connection, relation_of(table), None)

    def _widen(self, connection: duckdb.DuckDBPyConnection, table: Table) -> bool:
        find_version(connection, table)
        rows = rows_name(table.id, table.generation)
        held = stored_types(connection, table.id, table.generation)
        missing = [c for c in stored_columns(table) if c.name not in held]
        for column in missing:
            connection.execute(f"ALTER TABLE {rows} ADD COLUMN {quoted(column.name)} {SQL_TYPES[column.type]}")
        if missing:
            make_view(connection, table)
            if keeps_since(connection, table):
                show(connection, table)
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

    def count_rows(self, table: Table) -> int:
        """Number of current rows of the present generation. Error: NOT_FOUND."""
        with self._read() as connection:
            find_version(connection, table)
            rows = rows_name(table.id, table.generation)
            return number(connection, f"SELECT count(*) FROM {rows} WHERE _to = {OPEN}")

    def table_version(self, table: Table) -> int:
        """The newest version of the present generation. Error: NOT_FOUND."""
        with self._read() as connection:
            return find_version(connection, table)

    def read_rows(self, table: Table, version: int, after: int, limit: int) -> RowPage:
        """Rows as of `version`, from 0 on. Error: CONFLICT when that version is no longer kept."""
        with self._read() as connection:
            find_version(connection, table)
            generation = generation_of(connection, table.id, version)
            if generation is None:
                raise Error(Code.CONFLICT, "the page token has expired", hint="start again from the first page")
            sought = _sought(connection, table, generation)
            found = connection.execute(
                f"""SELECT _row, {sought.selection} WHERE _row > ? AND _from <= ? AND _to > ?
                    ORDER BY _row LIMIT ?""",
                [after, version, version, limit + 1],
            ).fetchall()
        rows = [sought.row(found_row[1:]) for found_row in found[:limit]]
        return RowPage(rows, found[limit - 1][0] if len(found) > limit else None)

    def find_rows(self, table: Table, ids: Sequence[str]) -> list[Row]:
        """Rows with these primary keys, each once, in the order asked; absent ones left out."""
        with self._read() as connection:
            find_version(connection, table)
            sought = _sought(connection, table, table.generation)
            found = connection.execute(
                f"""SELECT {sought.selection}
                    WHERE _to = {OPEN} AND _id IN (SELECT unnest(CAST(? AS VARCHAR[])))""",
                [list(ids)],
            ).fetchall()
        rows = {row.id: row for row in map(sought.row, found)}
        return [rows[id] for id in dict.fromkeys(ids) if id in rows]

    def begin_history(self, table: Table, now_ms: int) -> None:
        """Keep what rows are from now on, unless that is done already. Error: NOT_FOUND."""
        with self._duck.write() as connection:
            find_version(connection, table)
            going_on(connection, table, now_ms, history=True)

    def end_history(self, table: Table) -> None:
        """Forget what the rows of a table were, and note it no more."""
        with self._duck.write() as connection:
            if keeps_since(connection, table):
                end(connection, table)

    def has_history(self, table: Table) -> bool:
        """Whether the present generation can be read with all that its rows were."""
        with self._read() as connection:
            return keeps_since(connection, table)

    def upsert_rows(self, table: Table, rows: Sequence[Row], now_ms: int, *, history: bool = False) -> None:
        """Update or insert rows by their id; columns that a row does not give keep their value.

        Rows are as `check_values` gives them. What would change nothing makes no version.
        """
        with self._duck.write() as connection:
            self._widen(connection, table)
            stored = stored_types(connection, table.id, table.generation)
            asked = asked_as(table, stored)
            name = rows_name(table.id, table.generation)
            typed, present = stage_rows(connection, asked, rows)
            refuse_misfits(connection, asked, typed, lambda n: f"/data/{n}", declared=False, keyed=True)
            if not merge_rows(connection, asked, typed, name, present, stored):
                return
            version = self._begin_version(connection, table, now_ms)
            at = going_on(connection, table, now_ms, history=history)
            if at is not None:
                end_rows(connection, table, at, "_id IN (SELECT _id FROM temp.changed)")
            connection.execute(
                f"UPDATE {name} SET _to = ? WHERE _to = {OPEN} AND _id IN (SELECT _id FROM temp.changed)", [version]
            )
            names = "".join(f", {quoted(c.name)}" for c in table.columns) + (", _since" if at else "")
            values = "".join(f", x{i}" for i in range(len(table.columns))) + (f", TIMESTAMP '{at}'" if at else "")
            connection.execute(
                f"""INSERT INTO {name} (_row, _from, _to, _id{names})
                    SELECT _row, ?, {OPEN}, _id{values} FROM temp.changed""",
                [version],
            )
            if at is not None:
                note_changed(connection, table)
            self._tell_touched(connection, table, version)

    def delete_rows(self, table: Table, ids: Sequence[str], now_ms: int, *, history: bool = False) -> int:
        """Delete rows by their id; gives how many there were."""
        chosen = f"_to = {OPEN} AND _id IN (SELECT unnest(CAST(? AS VARCHAR[])))"
        with self._duck.write() as connection:
            find_version(connection, table)
            rows = rows_name(table.id, table.generation)
            gone = number(connection, f"SELECT count(*) FROM {rows} WHERE {chosen}", list(ids))
            if gone:
                version = self._begin_version(connection, table, now_ms)
                at = going_on(connection, table, now_ms, history=history)
                if at is not None:
                    end_rows(connection, table, at, chosen, list(ids))
                connection.execute(f"UPDATE {rows} SET _to = ? WHERE {chosen}", [version, list(ids)])
                self._tell_touched(connection, table, version)
        return gone

    def _begin_version(self, connection: duckdb.DuckDBPyConnection, table: Table, now_ms: int) -> int:
        """Forget what no page may still read, and start the next version."""
        forget_versions(connection, table, now_ms - self._snapshot_ttl_ms)
        version = next_version(connection, table.id)
        add_version(connection, table.id, table.generation, version, now_ms)
        return version

    def _tell_touched(self, connection: duckdb.DuckDBPyConnection, table: Table, version: int) -> None:
        """Tell of the rows that a version opened or closed."""
        rows = rows_name(table.id, table.generation)
        connection.execute(f"CREATE TEMP TABLE touched AS FROM {rows} WHERE _from = {version} OR _to = {version}")
        self._on_table_changed(connection, relation_of(table), "touched")


@dataclass(frozen=True, slots=True)
class _Sought:
    """What to select of a generation's rows, and how a row found goes out.

    `columns`: as declared. `stored`: as they are stored; a column that is not is shown as empty.
    """

    rows: str
    columns: Schema
    stored: Map[str, Type]

    @property
    def selection(self) -> str:
        held = self.stored
        values = (shown(held[c.name], quoted(c.name)) if c.name in held else "NULL" for c in self.columns)
        return f"_id, {', '.join(values)} FROM {self.rows}"

    def row(self, found: tuple[object, ...]) -> Row:
        """A row as it goes out: text or 32-bit integers, larger ones as text, nulls left out."""
        id, *cells = found
        pairs = zip(self.columns, cells, strict=True)
        return Row(str(id), {c.name: _outward(c.type, cell) for c, cell in pairs if cell is not None})


def _sought(connection: duckdb.DuckDBPyConnection, table: Table, generation: int) -> _Sought:
    """The columns a definition names; of another generation than its present one, those its rows have."""
    stored = stored_types(connection, table.id, generation)
    columns = table.columns
    if generation != table.generation:
        columns = tuple(column_of(table, name) or Column(name, type) for name, type in stored.items())
    return _Sought(rows_name(table.id, generation), columns, stored)


def _outward(type: Type, cell: object) -> object:
    if type is Type.INTEGER and isinstance(cell, str) and fits_text(type, cell):
        cell = int(cell)
    return str(cell) if isinstance(cell, int) and not INT32_MIN <= cell <= INT32_MAX else cell
