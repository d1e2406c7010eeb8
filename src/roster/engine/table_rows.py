"""Owns turning given rows, of a file or a request, into typed rows beside a table; changes no table.

A load or a change has a connection of its own; what it prepares is in that connection's temporary
tables: `cells` (texts as given) and `changed` (typed rows).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import duckdb

from roster.base.errors import Code, Error
from roster.engine.cells import given, inward, key_text, misfit, quoted
from roster.engine.table_files import TextFile
from roster.model.reference_table import Row, Table, match_headers, outward
from roster.model.schema import Column, Type
from roster.ports import Loaded

OPEN = 2**63 - 1
"""`_to` of a current row."""


def number(connection: duckdb.DuckDBPyConnection, sql: str, *parameters: object) -> int:
    found = connection.execute(sql, list(parameters)).fetchone()
    return int(found[0]) if found else 0


def _key(table: Table) -> tuple[int, Column]:
    found = next(((i, c) for i, c in enumerate(table.columns) if c.name == table.primary_key), None)
    if found is None:
        raise Error(Code.INVALID, f"the primary key {table.primary_key!r} is no column")
    return found


def stage_file(
    connection: duckdb.DuckDBPyConnection, table: Table, file: TextFile, rows: Path, *, declared: bool
) -> Loaded:
    """Check a file and write its rows, typed and with the last of each key, to the Parquet file `rows`."""
    positions = match_headers(file.names, table.columns)
    sides = zip(positions, table.columns, strict=True)
    cells = "".join(f", nullif({given(c.type, f'c{position}')}, '') AS t{i}" for i, (position, c) in enumerate(sides))
    connection.execute(f"CREATE TEMP TABLE cells AS SELECT n{cells} FROM ({file.sql})", list(file.parameters))
    total = number(connection, "SELECT count(*) FROM temp.cells")
    file.check_count(total)
    keyless = _leave_out_keyless(connection, table) if not declared else 0
    refuse_misfits(connection, table, file.place, declared=declared)
    at, key = _key(table)
    id = key_text(key.type, f"t{at}")
    connection.execute(f"CREATE TEMP TABLE kept AS SELECT max(n) AS n FROM temp.cells GROUP BY {id}")
    kept = number(connection, "SELECT count(*) FROM temp.kept")
    values = "".join(f", {inward(c.type, f't{i}')} AS x{i}" for i, c in enumerate(table.columns))
    choice = "WHERE n IN (SELECT n FROM temp.kept)" if kept < total - keyless else ""
    target = str(rows).replace("'", "''")
    connection.execute(
        f"COPY (SELECT n AS _row, {id} AS _id{values} FROM temp.cells {choice}) TO '{target}' (FORMAT parquet)"
    )
    return Loaded(kept, total - keyless - kept, keyless)


def _leave_out_keyless(connection: duckdb.DuckDBPyConnection, table: Table) -> int:
    """Take the rows without a key out of `temp.cells`; how many there were."""
    at, key = _key(table)
    return number(connection, f"DELETE FROM temp.cells WHERE {key_text(key.type, f't{at}')} IS NULL")


def refuse_misfits(
    connection: duckdb.DuckDBPyConnection, table: Table, place: Callable[[int], str], *, declared: bool
) -> None:
    """Error: INVALID for the first row of `temp.cells` without a key, or with a cell its column does not take."""
    at, key = _key(table)
    typed = [(i, c) for i, c in enumerate(table.columns) if c.type not in (Type.STRING, Type.ANY)]
    tests = [misfit(c.type, f"t{i}", int32_only=declared) for i, c in typed]
    tests.append(f"{key_text(key.type, f't{at}')} IS NULL")
    checks = ", ".join(f"min(n) FILTER (WHERE {test})" for test in tests)
    found = connection.execute(f"SELECT {checks} FROM temp.cells").fetchone() or ()
    wrong = [(n, i) for i, n in enumerate(found) if n is not None]
    if not wrong:
        return
    n, which = min(wrong)
    if which == len(typed):
        raise Error(Code.INVALID, f"{place(n)}: the primary key {key.name!r} is empty", hint="every row needs its key")
    i, column = typed[which]
    cell = connection.execute(f"SELECT left(t{i}, 80) FROM temp.cells WHERE n = ?", [n]).fetchone() or ("",)
    kind = outward(column.type) if declared else column.type.value
    message = f"{place(n)}: column {column.name!r} is {kind} and does not take {cell[0]!r}"
    raise Error(Code.INVALID, message, hint="correct the cell, or declare the column as STRING")


def stage_rows(connection: duckdb.DuckDBPyConnection, table: Table, rows: Sequence[Row]) -> set[int]:
    """Fill `temp.cells` with rows: texts `t<i>`, and `h<i>` for whether the row gives that column.

    Gives the columns that any row gives, the key aside. One JSON text carries all rows: binding them
    one by one is far slower.
    """
    at, key = _key(table)
    index = {c.name: i for i, c in enumerate(table.columns)}
    merged: dict[str, dict[str, str | None]] = {}
    present: set[int] = set()
    for row in rows:
        texts = merged.setdefault(row.id, {f"t{at}": row.id})
        for name, value in row.values.items():
            if name != key.name:
                present.add(index[name])
                texts[f"t{index[name]}"] = None if value is None else str(value)
    items = [{"n": n, "v": texts} for n, texts in enumerate(merged.values())]
    cells = ""
    for i, column in enumerate(table.columns):
        text, has = f"(v ->> 't{i}')", f"json_exists(v, '$.t{i}')"
        if i not in present and i != at:
            text, has = "CAST(NULL AS VARCHAR)", "FALSE"
        cells += f", {given(column.type, text)} AS t{i}, {has} AS h{i}"
    connection.execute(
        f"""CREATE TEMP TABLE cells AS SELECT n{cells} FROM (
            SELECT unnest(from_json(?, '[{{"n": "BIGINT", "v": "JSON"}}]'), recursive := true))""",
        [json.dumps(items)],
    )
    return present


def merge_rows(connection: duckdb.DuckDBPyConnection, table: Table, rows: str, present: set[int]) -> int:
    """Fill `temp.changed` with the rows of `temp.cells` that are new to the table `rows` or differ; gives their number.

    A row that exists keeps its place in the order.
    """
    at, key = _key(table)
    id = key_text(key.type, f"t{at}")
    values, differences = "", "old._id IS NULL"
    for i, column in enumerate(table.columns):
        value, held = inward(column.type, f"t{i}"), f"old.{quoted(column.name)}"
        if i == at:
            values += f", {value} AS x{i}"
        elif i in present:
            values += f", CASE WHEN h{i} THEN {value} ELSE {held} END AS x{i}"
            differences += f" OR (h{i} AND {value} IS DISTINCT FROM {held})"
        else:
            values += f", {held} AS x{i}"
    last = number(connection, f"SELECT coalesce(max(_row), 0) FROM {rows}")
    names = "".join(f", x{i}" for i in range(len(table.columns)))
    connection.execute(
        f"""CREATE TEMP TABLE changed AS
            SELECT coalesce(_row, {last} + row_number() OVER (ORDER BY _row IS NOT NULL, n)) AS _row, _id{names}
            FROM (SELECT cells.n, old._row, {id} AS _id{values} FROM temp.cells
                LEFT JOIN (FROM {rows} WHERE _to = {OPEN}) AS old ON old._id = {id}
                WHERE cells.n IN (SELECT max(n) FROM temp.cells GROUP BY {id}) AND ({differences}))"""
    )
    return number(connection, "SELECT count(*) FROM temp.changed")
