"""Owns which ready-made joins are stored: their rows, and the views that show them. Decides nothing about them.

A layout is read as the view `<entity>_enriched_<n>` over a table `<entity>_enriched_rows_<n>`. Two layouts may
share a table, when they differ in few profiles only: `#edition` then says of each row which of them shows it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import duckdb

from roster.engine.places import at_places
from roster.model.schema import KEY_ATTRIBUTE, Entity, profile_schema
from roster.query.dialect import DUCKDB
from roster.query.narrow import narrow_to
from roster.query.plan import Plan, Read
from roster.query.sql import Rendered, render

ALL, FORMER, LATER = 0, 1, 2
"""Editions. A row is shown by all layouts over its table or by one; a layout has its table alone or with another."""

DDL = (
    """CREATE TABLE IF NOT EXISTS enriched_layout
        (name VARCHAR, entity VARCHAR, layout VARCHAR, "rows" VARCHAR, edition INTEGER)""",
    "CREATE TABLE IF NOT EXISTS enriched_source (name VARCHAR, relation VARCHAR)",
    "CREATE TABLE IF NOT EXISTS enriched_missed (name VARCHAR, key VARCHAR)",
    "CREATE TABLE IF NOT EXISTS enriched_increment (relation VARCHAR, before VARCHAR, fresh VARCHAR)",
)
_STORED = {
    "VIEW": "SELECT view_name FROM duckdb_views() WHERE NOT internal",
    "TABLE": "SELECT table_name FROM duckdb_tables() WHERE NOT temporary",
}
_OURS = re.compile(r"(users|accounts)_enriched(_rows)?(_[0-9]+)?")


@dataclass(frozen=True, slots=True)
class Layout:
    """Which joins the relation `name` holds (by digest, innermost first), and the table and edition it shows."""

    name: str
    entity: Entity
    joins: tuple[str, ...]
    rows: str
    edition: int = ALL


def rows_of(name: str) -> str:
    """The table made for the layout of that name."""
    return name.replace("_enriched_", "_enriched_rows_")


def prepare(connection: duckdb.DuckDBPyConnection) -> None:
    """Make room for layouts, and remove what an older layout or a killed process left."""
    described = "SELECT column_name FROM duckdb_columns() WHERE table_name = 'enriched_layout'"
    columns = {name for (name,) in connection.execute(described).fetchall()}
    if columns and "edition" not in columns:
        connection.execute("DROP TABLE enriched_layout")
        connection.execute("DROP TABLE enriched_source")
    for statement in DDL:
        connection.execute(statement)
    connection.execute("DELETE FROM enriched_missed")
    kept = {name for layout in read_layouts(connection) for name in (layout.name, layout.rows)}
    for kind, sql in _STORED.items():
        for (name,) in connection.execute(sql).fetchall():
            if _OURS.fullmatch(name) and name not in kept:
                connection.execute(f'DROP {kind} "{name}"')


def free_name(connection: duckdb.DuckDBPyConnection, entity: Entity, building: set[str]) -> str:
    """A name for a layout that none has, nor a table; none of `building` either."""
    stored = {name for sql in _STORED.values() for (name,) in connection.execute(sql).fetchall()} | building
    names = (f"{entity.value}_enriched_{i + 1}" for i in range(len(stored) + 1))
    return next(name for name in names if not {name, rows_of(name)} & stored)


def read_layouts(connection: duckdb.DuckDBPyConnection) -> list[Layout]:
    """All layouts that can be read, by name."""
    found = connection.execute('SELECT name, entity, layout, "rows", edition FROM enriched_layout ORDER BY name')
    return [
        Layout(name, Entity(entity), tuple(json.loads(joins)), *rest) for name, entity, joins, *rest in found.fetchall()
    ]


def add_layout(connection: duckdb.DuckDBPyConnection, layout: Layout, relations: Iterable[str]) -> None:
    """Let a layout be read; `relations` are what it was made of."""
    values = [layout.name, layout.entity.value, json.dumps(layout.joins), layout.rows, layout.edition]
    connection.execute("INSERT INTO enriched_layout VALUES (?, ?, ?, ?, ?)", values)
    for relation in sorted(relations):
        connection.execute("INSERT INTO enriched_source VALUES (?, ?)", [layout.name, relation])
    _show(connection, layout)


def share(connection: duckdb.DuckDBPyConnection, former: Layout, changed: str) -> None:
    """Put the rows of the table `changed` beside those of the same profiles that a layout alone on its table shows.

    From then on it is the former of two; the rows of the table are the later's.
    """
    key, rows = KEY_ATTRIBUTE[former.entity], former.rows
    mine = f'"{key}" IN (SELECT "{key}" FROM "{changed}")'
    connection.execute(f'UPDATE "{rows}" SET "#edition" = {FORMER} WHERE {mine}')
    connection.execute(f'INSERT INTO "{rows}" BY NAME SELECT * REPLACE ({LATER} AS "#edition") FROM "{changed}"')
    _set_edition(connection, former, FORMER)


def drop_layout(connection: duckdb.DuckDBPyConnection, name: str) -> None:
    """Forget a layout; one that shared its table has it alone from then on. An unknown one is no error."""
    layouts = {layout.name: layout for layout in read_layouts(connection)}
    gone = layouts.pop(name, None)
    if gone is None:
        return
    connection.execute(f'DROP VIEW IF EXISTS "{name}"')
    connection.execute("DELETE FROM enriched_layout WHERE name = ?", [name])
    connection.execute("DELETE FROM enriched_source WHERE name = ?", [name])
    left = next((layout for layout in layouts.values() if layout.rows == gone.rows), None)
    if left is None:
        connection.execute(f'DROP TABLE IF EXISTS "{gone.rows}"')
        return
    connection.execute(f'DELETE FROM "{gone.rows}" WHERE "#edition" = {gone.edition}')
    connection.execute(f'UPDATE "{gone.rows}" SET "#edition" = {ALL} WHERE "#edition" = {left.edition}')
    _set_edition(connection, left, ALL)


def _set_edition(connection: duckdb.DuckDBPyConnection, layout: Layout, edition: int) -> None:
    connection.execute("UPDATE enriched_layout SET edition = ? WHERE name = ?", [edition, layout.name])
    _show(connection, replace(layout, edition=edition))


def _show(connection: duckdb.DuckDBPyConnection, layout: Layout) -> None:
    others = "" if layout.edition == ALL else f'WHERE "#edition" <> {FORMER + LATER - layout.edition}'
    connection.execute(
        f'CREATE OR REPLACE VIEW "{layout.name}" AS SELECT * EXCLUDE ("#edition") FROM "{layout.rows}" {others}'
    )


def renew(
    connection: duckdb.DuckDBPyConnection, entity: Entity, shown: Sequence[tuple[Layout, Plan]], keys: str
) -> None:
    """Compute anew the profiles whose key the SELECT `keys` gives in a table, for all layouts over it."""
    key, rows = KEY_ATTRIBUTE[entity], shown[0][0].rows
    connection.execute(f"CREATE OR REPLACE TEMP TABLE renewed_keys AS {keys}")
    if connection.execute("FROM temp.renewed_keys LIMIT 1").fetchone() is None:
        return
    connection.execute(f'DELETE FROM "{rows}" WHERE "{key}" IN (SELECT key FROM temp.renewed_keys)')
    for layout, plan in shown:
        few = compute_few(connection, entity, plan, "FROM temp.renewed_keys", layout.edition)
        connection.execute(f'INSERT INTO "{rows}" BY NAME {few.sql}', list(few.parameters))


def compute_few(
    connection: duckdb.DuckDBPyConnection, entity: Entity, plan: Plan, keys: str, edition: int = ALL
) -> Rendered:
    """The SELECT of the rows that a plan gives for the profiles whose key the SELECT `keys` gives."""
    mine = f'"{KEY_ATTRIBUTE[entity]}" IN ({keys})'
    connection.execute(
        f"CREATE OR REPLACE TEMP TABLE renewed AS SELECT * FROM {entity} WHERE {at_places(connection, entity, mine)}"
    )
    rendered = render(narrow_to(plan, entity, Read("renewed", profile_schema(entity))), DUCKDB)
    return replace(rendered, sql=with_edition(rendered.sql, edition))


def with_edition(sql: str, edition: int = ALL) -> str:
    """The SELECT of a table's rows, with their edition beside."""
    return f'SELECT *, CAST({edition} AS TINYINT) AS "#edition" FROM ({sql})'
