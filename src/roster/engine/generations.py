"""Owns which generations of tables are stored, their names, columns and versions; reads no files and no requests.

A generation is a table `rows_<hex>_<n>` of all its row versions and a view `table_<hex>_<n>` of the current
ones. It exists once `table_versions` has a version of it; what else bears such a name is a leftover.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import duckdb

from roster.base.errors import Code, Error
from roster.base.time import instant
from roster.engine.cells import SQL_TYPES, quoted
from roster.model.reference_table import Table
from roster.model.schema import Type
from roster.query.dialect import table_name

OPEN = 2**63 - 1
"""`_to` of a current row."""

OWN = ("_row", "_from", "_to", "_id", "_fresh", "_since")
"""Columns of ours beside those of the definition; `_fresh` only where a sync read a part of the rows.

`_since` only where history is kept; see `past`.
"""

_VERSIONS = """CREATE TABLE IF NOT EXISTS table_versions
    (id VARCHAR, generation BIGINT, version BIGINT, "at" TIMESTAMP, superseded TIMESTAMP)"""
_STORED = {
    "VIEW": "SELECT view_name FROM duckdb_views() WHERE NOT internal",
    "TABLE": "SELECT table_name FROM duckdb_tables() WHERE NOT temporary",
}
_VIEWS = ("table", "fresh", "spans")
_LEFTOVER = re.compile(r"(table|fresh|spans|rows|past|shared)_[0-9a-f]{32}(_[0-9]+)?|stage_[0-9]+")
_TYPES = {name: type for type, name in SQL_TYPES.items() if type is not Type.ANY}


@dataclass(frozen=True, slots=True)
class Increment:
    """How a relation came to be: of the rows of `before`, with those of `fresh` put in, each at its place `_row`."""

    before: str
    fresh: str


def number(connection: duckdb.DuckDBPyConnection, sql: str, *parameters: object) -> int:
    found = connection.execute(sql, list(parameters)).fetchone()
    return int(found[0]) if found else 0


def hex_of(id: str) -> str:
    """An id as it stands in names. Error: INVALID."""
    try:
        return UUID(id).hex
    except ValueError as error:
        raise Error(Code.INVALID, "table ID must be a valid UUID format") from error


def rows_name(id: str, generation: int) -> str:
    """The table of all row versions of a generation."""
    return f"rows_{hex_of(id)}_{generation}"


def relation_name(id: str, generation: int) -> str:
    """The relation of the current rows of a generation, as `relation_of` names it."""
    return f"table:{id}:{generation}"


def _view_name(id: str, generation: int, kind: str = "table") -> str:
    """What shows the current rows of a generation; as `fresh`, only those that its sync read."""
    return table_name(f"{kind}:{hex_of(id)}:{generation}")


def spans_name(id: str, generation: int) -> str:
    """What shows the current rows of a generation with all that they were; only where history is kept."""
    return _view_name(id, generation, "spans")


def prepare(connection: duckdb.DuckDBPyConnection) -> None:
    """Make room for versions, and remove what an older layout or a killed process left."""
    described = "SELECT column_name FROM duckdb_columns() WHERE table_name = 'table_versions'"
    columns = {name for (name,) in connection.execute(described).fetchall()}
    if columns and "superseded" not in columns:
        connection.execute("DROP TABLE table_versions")
    connection.execute(_VERSIONS)
    known = connection.execute("SELECT DISTINCT id, generation FROM table_versions").fetchall()
    kept = {name for id, g in known for name in (rows_name(id, g), f"past_{hex_of(id)}", f"shared_{hex_of(id)}")}
    kept |= {_view_name(id, g, kind) for id, g in known for kind in _VIEWS}
    for kind, sql in _STORED.items():
        for (name,) in connection.execute(sql).fetchall():
            if _LEFTOVER.fullmatch(name) and name not in kept:
                connection.execute(f"DROP {kind} {quoted(name)}")


def next_version(connection: duckdb.DuckDBPyConnection, id: str) -> int:
    """The version that follows all kept ones, of whatever generation."""
    return number(connection, "SELECT coalesce(max(version), 0) + 1 FROM table_versions WHERE id = ?", id)


def find_version(connection: duckdb.DuckDBPyConnection, table: Table) -> int:
    """The newest version of a table's present generation. Error: NOT_FOUND."""
    sql = "SELECT coalesce(max(version), 0) FROM table_versions WHERE id = ? AND generation = ?"
    version = number(connection, sql, table.id, table.generation)
    if not version:
        raise Error(Code.NOT_FOUND, "table not found")
    return version


def generation_of(connection: duckdb.DuckDBPyConnection, id: str, version: int) -> int | None:
    """The generation that a version belongs to; None when the version is no longer kept."""
    sql = "SELECT generation FROM table_versions WHERE id = ? AND version = ?"
    found = connection.execute(sql, [id, version]).fetchone()
    return int(found[0]) if found else None


def generations_of(connection: duckdb.DuckDBPyConnection, id: str) -> list[tuple[int, datetime | None]]:
    """The stored generations of a table, each with the time since when it is known to be superseded."""
    sql = "SELECT generation, max(superseded) FROM table_versions WHERE id = ? GROUP BY ALL ORDER BY ALL"
    return [(int(generation), since) for generation, since in connection.execute(sql, [id]).fetchall()]


def mark_superseded(connection: duckdb.DuckDBPyConnection, id: str, generation: int, since: datetime | None) -> None:
    """Keep since when nobody begins to read a generation; None when it counts."""
    sql = "UPDATE table_versions SET superseded = ? WHERE id = ? AND generation = ?"
    connection.execute(sql, [since, id, generation])


def add_version(connection: duckdb.DuckDBPyConnection, id: str, generation: int, version: int, at_ms: int) -> None:
    """Start a version of a generation."""
    insert = "INSERT INTO table_versions VALUES (?, ?, ?, ?, NULL)"
    connection.execute(insert, [id, generation, version, instant(at_ms)])


def forget_versions(connection: duckdb.DuckDBPyConnection, table: Table, expired_ms: int) -> None:
    """Drop what was superseded within the present generation before a time."""
    chosen = "id = ? AND generation = ?"
    sql = f'SELECT coalesce(max(version), 0) FROM table_versions WHERE {chosen} AND "at" <= ?'
    oldest = number(connection, sql, table.id, table.generation, instant(expired_ms))
    sql = f"DELETE FROM table_versions WHERE {chosen} AND version < ?"
    connection.execute(sql, [table.id, table.generation, oldest])
    connection.execute(f"DELETE FROM {rows_name(table.id, table.generation)} WHERE _to <= ?", [oldest])


def stored_types(connection: duckdb.DuckDBPyConnection, id: str, generation: int) -> dict[str, Type]:
    """The columns that the rows of a generation have, with the types they are stored as."""
    found = connection.execute(f"DESCRIBE {rows_name(id, generation)}").fetchall()
    return {str(row[0]): _TYPES[str(row[1])] for row in found if row[0] not in OWN}


def make_view(connection: duckdb.DuckDBPyConnection, table: Table) -> None:
    """Show the current rows of the generation that a table names, with the columns it names."""
    _make_view(connection, table, _view_name(table.id, table.generation), f"_to = {OPEN}")


def make_fresh_view(connection: duckdb.DuckDBPyConnection, table: Table) -> str:
    """Show only those of its current rows that its sync read; gives the relation."""
    view = _view_name(table.id, table.generation, "fresh")
    _make_view(connection, table, view, f"_to = {OPEN} AND _fresh")
    return f"fresh:{table.id}:{table.generation}"


def _make_view(connection: duckdb.DuckDBPyConnection, table: Table, view: str, where: str) -> None:
    columns = "".join(f", {quoted(c.name)}" for c in table.columns)
    rows = rows_name(table.id, table.generation)
    connection.execute(f"CREATE OR REPLACE VIEW {view} AS SELECT _row{columns} FROM {rows} WHERE {where}")


def drop_generation(connection: duckdb.DuckDBPyConnection, id: str, generation: int) -> None:
    """Remove a generation, its views and versions; one that is not there is no error."""
    for kind in _VIEWS:
        connection.execute(f"DROP VIEW IF EXISTS {_view_name(id, generation, kind)}")
    connection.execute(f"DROP TABLE IF EXISTS {rows_name(id, generation)}")
    connection.execute("DELETE FROM table_versions WHERE id = ? AND generation = ?", [id, generation])
