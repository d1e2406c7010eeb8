"""Owns turning given rows, of a file or a request, into typed rows beside a table; changes no table.

A load or a change has a connection of its own; what it prepares is in that connection's temporary
tables: `cells` (texts as given), `kept` (which rows of a file count) and `changed` (typed rows).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping as Map, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import duckdb

from roster.base.errors import Code, Error
from roster.engine.cells import SQL_TYPES, direct, given, inward, key_text, quoted, text_of, turned
from roster.engine.generations import OPEN, number
from roster.engine.table_files import TextFile
from roster.model.reference_table import INT32_MAX, INT32_MIN, Row, Table, match_headers, outward
from roster.model.schema import Column, Type

_TEXTS = (Type.STRING, Type.ANY)
_TIMES = (Type.DATE, Type.TIMESTAMP)


@dataclass(frozen=True, slots=True)
class Typed:
    """Rows as the relation `sql`: `n` (place of the row), `_id` (its key as text, null for none), `x<i>` (cell i).

    `m<i>`, for the columns in `unsure`: the text of a cell that is no value of its column, else null.
    """

    sql: str
    parameters: tuple[object, ...]
    unsure: tuple[int, ...]


def find_key(table: Table) -> tuple[int, Column]:
    """The place of the primary key among the columns. Error: INVALID."""
    found = next(((i, c) for i, c in enumerate(table.columns) if c.name == table.primary_key), None)
    if found is None:
        raise Error(Code.INVALID, f"the primary key {table.primary_key!r} is no column")
    return found


def type_file(
    connection: duckdb.DuckDBPyConnection,
    table: Table,
    file: TextFile,
    folder: Path,
    taken: Sequence[int],
    *,
    int32_only: bool = False,
    any_key: bool = False,
) -> Typed:
    """The rows of a file, with those columns of the table that are `taken` from it.

    Columns that have their type in the file are read where they are. Texts are read once, into `folder`.
    `any_key`: a key that is no value of its column is a key all the same.
    """
    positions = match_headers(file.names, tuple(table.columns[i] for i in taken))
    straight: set[int] = set()
    cells = ""
    for i, p in zip(taken, positions, strict=True):
        type = table.columns[i].type
        value = direct(type, file.kinds[p], f"p{p}") if file.kinds and not int32_only else None
        if value is None:
            cells += f", nullif({given(type, f'c{p}')}, '') AS t{i}"
            continue
        straight.add(i)
        cells += f", {value} AS x{i}"
        if type in _TIMES:
            cells += (
                f", CASE WHEN ({value}) IS NULL AND p{p} IS NOT NULL THEN {text_of(file.kinds[p], f'p{p}')} END AS t{i}"
            )
    inner = f"SELECT n{cells} FROM ({file.sql})"
    typed = type_cells(table, inner, taken, straight, int32_only=int32_only, any_key=any_key)
    typed = replace(typed, parameters=file.parameters)
    if len(straight) == len(taken):
        return typed
    target = folder / "typed.parquet"
    connection.execute(f"COPY ({typed.sql}) TO '{_literal(target)}' (FORMAT parquet)", list(typed.parameters))
    return replace(typed, sql=f"SELECT * FROM read_parquet('{_literal(target)}')", parameters=())


def _literal(path: Path) -> str:
    return str(path).replace("'", "''")


def type_cells(
    table: Table,
    inner: str,
    taken: Sequence[int],
    straight: Collection[int] = (),
    beside: str = "",
    *,
    int32_only: bool = False,
    any_key: bool = False,
) -> Typed:
    """The cells of `inner` (`t<i>`: text as `inward` takes it, `x<i>`: value of a `straight` column) as values.

    `beside`: further columns of it to keep, each with a comma before it.
    """
    at, key = find_key(table)
    values, texts, cells, misfits = "", "", "", ""
    unsure = []
    for i in taken:
        type = table.columns[i].type
        values += f", x{i}" if i in straight else f", {inward(type, f't{i}')} AS x{i}"
        cells += f", x{i}"
        if type not in _TEXTS and (i not in straight or type in _TIMES):
            texts += f", t{i}"
            wrong = f"x{i} IS NULL"
            if int32_only and type is Type.INTEGER:
                wrong = f"(x{i} BETWEEN {INT32_MIN} AND {INT32_MAX}) IS NOT TRUE"
            misfits += f", CASE WHEN {wrong} THEN t{i} END AS m{i}"
            unsure.append(i)
    id = key_text(key.type, f"x{at}")
    id = f"coalesce({id}, t{at})" if any_key and at in unsure else id
    sql = f"SELECT n, {id} AS _id{cells}{misfits}{beside} FROM (SELECT n{values}{texts}{beside} FROM ({inner}))"
    return Typed(sql, (), tuple(unsure))


def refuse_misfits(
    connection: duckdb.DuckDBPyConnection,
    table: Table,
    typed: Typed,
    place: Callable[[int], str],
    *,
    declared: bool,
    keyed: bool,
) -> None:
    """Error: INVALID for the first row with a cell its column does not take or, when all must be `keyed`, without key.

    `declared`: types are named as the API names them.
    """
    checks = [f"min(n) FILTER (WHERE m{i} IS NOT NULL)" for i in typed.unsure]
    checks.append("min(n) FILTER (WHERE _id IS NULL)")
    where = "" if keyed else "WHERE _id IS NOT NULL"
    sql = f"SELECT {', '.join(checks)} FROM ({typed.sql}) {where}"
    found = connection.execute(sql, list(typed.parameters)).fetchone() or ()
    wrong = [(n, which) for which, n in enumerate(found) if n is not None]
    if not wrong:
        return
    n, which = min(wrong)
    if which == len(typed.unsure):
        key = table.primary_key
        raise Error(Code.INVALID, f"{place(n)}: the primary key {key!r} is empty", hint="every row needs its key")
    i = typed.unsure[which]
    column = table.columns[i]
    sql = f"SELECT left(m{i}, 80) FROM ({typed.sql}) WHERE n = {int(n)}"
    cell = connection.execute(sql, list(typed.parameters)).fetchone() or ("",)
    kind = outward(column.type) if declared else column.type.value
    message = f"{place(n)}: column {column.name!r} is {kind} and does not take {cell[0]!r}"
    raise Error(Code.INVALID, message, hint="correct the cell, or declare the column as STRING")


def stage_rows(connection: duckdb.DuckDBPyConnection, table: Table, rows: Sequence[Row]) -> tuple[Typed, set[int]]:
    """Rows of a request, with `h<i>` for whether the row gives that column, and which columns any row gives.

    The key is aside. One JSON text carries all rows: binding them one by one is far slower.
    """
    at, key = find_key(table)
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
    taken = sorted({*present, at})
    cells = ""
    for i in taken:
        text = given(table.columns[i].type, f"(v ->> 't{i}')")
        cells += f", {text} AS t{i}, json_exists(v, '$.t{i}') AS h{i}"
    connection.execute(
        f"""CREATE TEMP TABLE cells AS SELECT n{cells} FROM (
            SELECT unnest(from_json(?, '[{{"n": "BIGINT", "v": "JSON"}}]'), recursive := true))""",
        [json.dumps(items)],
    )
    beside = "".join(f", h{i}" for i in taken)
    return type_cells(table, "FROM temp.cells", taken, beside=beside), present


def merge_rows(
    connection: duckdb.DuckDBPyConnection,
    table: Table,
    typed: Typed,
    rows: str,
    present: set[int],
    stored: Map[str, Type],
) -> int:
    """Fill `temp.changed` with the given rows that are new to the table `rows` or differ; gives their number.

    `stored`: the types the table stores its columns as. A row that exists keeps its place in the order.
    """
    at, _ = find_key(table)
    values, differences = "", "old._id IS NULL"
    for i, column in enumerate(table.columns):
        value, held = turned(column.type, stored[column.name], f"given.x{i}"), f"old.{quoted(column.name)}"
        if i == at:
            values += f", {value} AS x{i}"
        elif i in present:
            values += f", CASE WHEN given.h{i} THEN {value} ELSE {held} END AS x{i}"
            differences += f" OR (given.h{i} AND {value} IS DISTINCT FROM {held})"
        else:
            values += f", {held} AS x{i}"
    last = number(connection, f"SELECT coalesce(max(_row), 0) FROM {rows}")
    names = "".join(f", x{i}" for i in range(len(table.columns)))
    connection.execute(f"CREATE TEMP TABLE given AS {typed.sql}")
    connection.execute(
        f"""CREATE TEMP TABLE changed AS
            SELECT coalesce(_row, {last} + row_number() OVER (ORDER BY _row IS NOT NULL, n)) AS _row, _id{names}
            FROM (SELECT given.n, old._row, given._id{values} FROM temp.given
                LEFT JOIN (FROM {rows} WHERE _to = {OPEN}) AS old ON old._id = given._id
                WHERE given.n IN (SELECT max(n) FROM temp.given GROUP BY _id) AND ({differences}))"""
    )
    return number(connection, "SELECT count(*) FROM temp.changed")


def asked_as(table: Table, stored: Map[str, Type]) -> Table:
    """The table with the types that rows of a request must have: as declared, or as a column is held but for text."""
    columns = (
        c if SQL_TYPES[stored[c.name]] == SQL_TYPES[Type.STRING] else Column(c.name, stored[c.name])
        for c in table.columns
    )
    return replace(table, columns=tuple(columns))
