"""Owns filling a generation of rows from typed rows and the generation before it; publishes nothing."""

from __future__ import annotations

from collections.abc import Mapping as Map
from dataclasses import dataclass
from datetime import datetime

import duckdb

from roster.engine.cells import SQL_TYPES, bare, quoted, turned
from roster.engine.generations import OPEN, find_version, number, rows_name, stored_types
from roster.engine.past import keeps_since, since
from roster.engine.table_rows import Typed
from roster.model.reference_table import Table
from roster.model.schema import Type
from roster.ports import Loaded, Merge


@dataclass(frozen=True, slots=True)
class Before:
    """The current rows before, as the relation `sql`, their columns with the types they are stored as."""

    sql: str
    types: Map[str, Type]
    last: int
    version: int = 0
    keeps: bool = False
    """Whether they say since when they are as they are."""


@dataclass(frozen=True, slots=True)
class Filled:
    """What a new generation holds: see `Staged`."""

    loaded: Loaded
    rows: int
    held: tuple[tuple[str, Type], ...]

    def read(self) -> int:
        """How many rows the file had."""
        return self.loaded.rows + self.loaded.duplicates + self.loaded.keyless


NOTHING = Before("SELECT CAST(NULL AS VARCHAR) AS _id, CAST(NULL AS BIGINT) AS _row WHERE FALSE", {}, 0)


def read_before(connection: duckdb.DuckDBPyConnection, before: Table | None) -> Before:
    """The rows a sync meets."""
    if before is None or not before.columns:
        return NOTHING
    rows, version = rows_name(before.id, before.generation), find_version(connection, before)
    last = number(connection, f"SELECT coalesce(max(_row), 0) FROM {rows}")
    types = stored_types(connection, before.id, before.generation)
    return Before(f"FROM {rows} WHERE _to = {OPEN}", types, last, version, keeps_since(connection, before))


def fill_empty(connection: duckdb.DuckDBPyConnection, target: str, table: Table) -> None:
    """A generation without rows."""
    columns = "".join(f", {quoted(c.name)} {SQL_TYPES[c.type]}" for c in table.columns)
    connection.execute(f"CREATE TABLE {target} (_row BIGINT, _from BIGINT, _to BIGINT, _id VARCHAR{columns})")


def fill(
    connection: duckdb.DuckDBPyConnection,
    target: str,
    table: Table,
    typed: Typed,
    merge: Merge,
    before: Before,
    at: datetime | None = None,
) -> Filled:
    """Make the table `target` of the last row of each key and what `merge` keeps; `_from` of all rows is 0.

    `at`: the time of the change when history is kept.
    """
    total = number(connection, f"SELECT count(*) FROM ({typed.sql})", *typed.parameters)
    connection.execute(
        f"""CREATE TEMP TABLE kept AS SELECT _id, max(n) AS n, count(*) AS given FROM ({typed.sql})
            WHERE _id IS NOT NULL GROUP BY _id""",
        list(typed.parameters),
    )
    kept = number(connection, "SELECT count(*) FROM temp.kept")
    keyed = number(connection, "SELECT coalesce(sum(given), 0) FROM temp.kept")
    loaded = Loaded(kept, keyed - kept, total - keyed)
    given = f"SELECT * FROM ({typed.sql}) WHERE " + (
        "_id IS NOT NULL" if keyed == kept else "n IN (SELECT n FROM temp.kept)"
    )
    typed = Typed(given, typed.parameters, typed.unsure)
    types = _settle(connection, table, typed, merge, before)
    connection.execute(
        f"CREATE TABLE {target} AS {_rows(table, typed, merge, before, types, at)}", list(typed.parameters)
    )
    rows = number(connection, f"SELECT count(*) FROM {target}") if merge.changes_only else kept
    held = tuple((c.name, type) for c, type in zip(table.columns, types, strict=True) if type is not c.type)
    return Filled(loaded, rows, held)


def _settle(
    connection: duckdb.DuckDBPyConnection, table: Table, typed: Typed, merge: Merge, before: Before
) -> list[Type]:
    """The types that columns are stored as: as before when carried, text when a cell demands it, else as declared."""
    misfits = [f"coalesce(bool_or(m{i} IS NOT NULL), false)" for i in typed.unsure]
    wrong = set()
    if misfits:
        found = connection.execute(f"SELECT {', '.join(misfits)} FROM ({typed.sql})", list(typed.parameters)).fetchone()
        wrong = {i for i, is_wrong in zip(typed.unsure, found or (), strict=True) if is_wrong}
    if merge.changes_only:
        wrong |= _misfits_before(connection, table, merge, before)
    types = []
    for i, column in enumerate(table.columns):
        if column.name in merge.carried:
            types.append(_same_or(column.type, before.types.get(column.name, column.type)))
        else:
            types.append(Type.STRING if i in wrong else column.type)
    return types


def _same_or(declared: Type, stored: Type) -> Type:
    return declared if SQL_TYPES[declared] == SQL_TYPES[stored] else stored


def _misfits_before(connection: duckdb.DuckDBPyConnection, table: Table, merge: Merge, before: Before) -> set[int]:
    """Columns of which a row that stays has a cell that is no value of the type they have now."""
    tests = {}
    for i, column in enumerate(table.columns):
        stored = before.types.get(column.name)
        if stored is not None and column.name not in merge.carried and SQL_TYPES[stored] != SQL_TYPES[column.type]:
            cell = quoted(column.name)
            filled = bare(cell) if stored is Type.STRING else cell
            value = turned(stored, column.type, cell)
            is_kept = f"{value} IS NOT NULL"
            if stored is Type.INTEGER:  # past 2^53 the nearest NUMBER may be another
                is_kept = f"{turned(column.type, stored, value)} IS NOT DISTINCT FROM {cell}"
            tests[i] = f"coalesce(bool_or({filled} IS NOT NULL AND NOT ({is_kept})), false)"
    if not tests:
        return set()
    kept = f"FROM ({before.sql}) ANTI JOIN temp.kept USING (_id)"
    found = connection.execute(f"SELECT {', '.join(tests.values())} {kept}").fetchone() or ()
    return {i for i, is_wrong in zip(tests, found, strict=True) if is_wrong}


def _rows(table: Table, typed: Typed, merge: Merge, before: Before, types: list[Type], at: datetime | None) -> str:
    """The SELECT of all rows of the generation."""
    given, stayed = "", ""
    same = []
    for i, (column, type) in enumerate(zip(table.columns, types, strict=True)):
        name = quoted(column.name)
        empty = f"CAST(NULL AS {SQL_TYPES[type]})"
        stored = before.types.get(column.name)
        old = turned(stored, type, f"old.{name}") if stored is not None else empty
        value = turned(column.type, type, f"given.x{i}") if column.name not in merge.carried else old
        if type is not column.type and i in typed.unsure and column.name not in merge.carried:
            value = f"coalesce({value}, given.m{i})"
        given += f", {value} AS {name}"
        stayed += f", {old} AS {name}"
        same.append(f"{value} IS NOT DISTINCT FROM {old}")
    is_met = bool(merge.changes_only or merge.carried)
    if at is not None:
        times = (f"TIMESTAMP '{at}'",) * 2
        if before.keeps:
            is_met, times = True, since(at, before.types, {c.name for c in table.columns}, same)
        given, stayed = f"{given}, {times[0]} AS _since", f"{stayed}, {times[1]} AS _since"
    place = f"coalesce(old._row, {before.last} + given.n)" if merge.changes_only else "given.n"
    mark = (", TRUE AS _fresh", ", FALSE AS _fresh") if merge.changes_only else ("", "")
    own = f"CAST(0 AS BIGINT) AS _from, CAST({OPEN} AS BIGINT) AS _to"
    join = f"LEFT JOIN ({before.sql}) AS old ON old._id = given._id" if is_met else ""
    sql = f"SELECT {place} AS _row, {own}, given._id{given}{mark[0]} FROM ({typed.sql}) AS given {join}"
    if merge.changes_only:
        kept = f"FROM ({before.sql}) AS old ANTI JOIN temp.kept ON kept._id = old._id"
        sql += f" UNION ALL SELECT old._row, {own}, old._id{stayed}{mark[1]} {kept}"
    return sql
