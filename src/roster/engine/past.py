"""Owns the history of rows in DuckDB: since when each row is as it is, and what rows were before. Asks nobody why.

A generation with history has a column `_since`. What its rows were before is in one table a table, `past_<hex>`,
which only grows: a row goes there, with the time until which it counted and the generation in whose making or
life it ended. A generation sees what ended before it and in it; so one that is filled and never named changes
nothing, and is forgotten when that number is filled again. `spans_<hex>_<n>` shows a generation's rows with all
that they were.

`shared_<hex>` has the folded keys, as e-mails are compared, that more than one row ever had. It is there to spare
queries the search; one too many does no harm.
"""

from __future__ import annotations

from collections.abc import Mapping as Map
from datetime import datetime

import duckdb

from roster.base.time import instant
from roster.engine.cells import SQL_TYPES, quoted
from roster.engine.generations import OPEN, hex_of, rows_name, spans_name, stored_types
from roster.model.reference_table import Table
from roster.model.schema import Type
from roster.query.dialect import DUCKDB, table_name
from roster.query.expr import Cast, Column, Expr
from roster.query.over_time import FOLDED
from roster.query.plan import Plan, Read, Values
from roster.query.relations import normalise_key
from roster.query.rewrite import drop_empty, map_inputs, relations_of
from roster.query.sql_expr import Parameters, Scope, column, render_expr

FOREVER = datetime(9999, 12, 31, 23, 59, 59, 999999)
"""Until when a present row is as it is."""

_OWN = "_row BIGINT, _id VARCHAR, _since TIMESTAMP, _until TIMESTAMP, _gen BIGINT, _late BOOLEAN"
_MADE = "SELECT count(*) FROM duckdb_tables() WHERE table_name = ?"
_COLUMNS = "SELECT column_name FROM duckdb_columns() WHERE table_name = ?"


def past_name(id: str) -> str:
    """The table of what the rows of a table were."""
    return f"past_{hex_of(id)}"


def shared_name(id: str) -> str:
    """The table of folded keys that several rows of a table have or had."""
    return f"shared_{hex_of(id)}"


def _has_past(connection: duckdb.DuckDBPyConnection, id: str) -> bool:
    found = connection.execute(_MADE, [past_name(id)]).fetchone()
    return found is not None and found[0] > 0


def _columns(connection: duckdb.DuckDBPyConnection, name: str) -> list[str]:
    return [str(found) for (found,) in connection.execute(_COLUMNS, [name]).fetchall()]


def keeps_since(connection: duckdb.DuckDBPyConnection, table: Table) -> bool:
    """Whether the rows of a table's generation say since when they are as they are."""
    return "_since" in _columns(connection, rows_name(table.id, table.generation))


def moment(connection: duckdb.DuckDBPyConnection, table: Table, at_ms: int) -> datetime:
    """The time of a change: as told, but not before any change that is known already. Clocks go back at times."""
    known = [instant(at_ms)]
    if keeps_since(connection, table):
        known += connection.execute(f"SELECT max(_since) FROM {rows_name(table.id, table.generation)}").fetchone() or ()
    if _has_past(connection, table.id):
        ended = f"SELECT max(_until) FROM {past_name(table.id)} WHERE _gen <= ?"
        known += connection.execute(ended, [table.generation]).fetchone() or ()
    return max(time for time in known if time is not None)


def begin(connection: duckdb.DuckDBPyConnection, table: Table, at: datetime) -> None:
    """From now on the rows of a table have a history: all that is there is as it is since `at`."""
    rows = rows_name(table.id, table.generation)
    connection.execute(f"ALTER TABLE {rows} ADD COLUMN _since TIMESTAMP DEFAULT TIMESTAMP '{at}'")
    connection.execute(f"ALTER TABLE {rows} ALTER COLUMN _since DROP DEFAULT")
    show(connection, table)
    _note_shared(connection, table, "TRUE")


def going_on(connection: duckdb.DuckDBPyConnection, table: Table, now_ms: int, *, history: bool) -> datetime | None:
    """The time of a change of rows whose history is kept, begun now where it is asked for; None where it is not."""
    keeps = keeps_since(connection, table)
    if not keeps and not history:
        return None
    at = moment(connection, table, now_ms)
    if not keeps:
        begin(connection, table, at)
    return at


def end(connection: duckdb.DuckDBPyConnection, table: Table) -> None:
    """From now on the rows of a table have no history, and what they were is forgotten."""
    connection.execute(f"DROP VIEW IF EXISTS {spans_name(table.id, table.generation)}")
    connection.execute(f"ALTER TABLE {rows_name(table.id, table.generation)} DROP COLUMN _since")
    drop_past(connection, table.id)


def show(connection: duckdb.DuckDBPyConnection, table: Table) -> None:
    """Let the spans of a generation be read, with the columns that the table names, as they are stored now."""
    past, types = past_name(table.id), stored_types(connection, table.id, table.generation)
    connection.execute(f"CREATE TABLE IF NOT EXISTS {past} ({_OWN})")
    connection.execute(f"CREATE TABLE IF NOT EXISTS {shared_name(table.id)} ({quoted(FOLDED.name)} VARCHAR)")
    known = _columns(connection, past)
    for name, type in types.items():
        if _place(name, type) not in known:
            connection.execute(f"ALTER TABLE {past} ADD COLUMN {quoted(_place(name, type))} {SQL_TYPES[type]}")
            known.append(_place(name, type))
    present = "".join(f", {quoted(c.name)}" for c in table.columns)
    before = "".join(f", {_stored(c.name, types[c.name], known)} AS {quoted(c.name)}" for c in table.columns)
    n = int(table.generation)
    connection.execute(
        f"""CREATE OR REPLACE VIEW {spans_name(table.id, table.generation)} AS
            SELECT _row, _id, _since, TIMESTAMP '{FOREVER}' AS _until{present}
            FROM {rows_name(table.id, table.generation)} WHERE _to = {OPEN}
            UNION ALL
            SELECT _row, _id, _since, _until{before} FROM {past} WHERE _gen = {n} OR (_gen < {n} AND NOT _late)"""
    )


def _place(name: str, type: Type) -> str:
    """The column of the past for what was stored as that type: a column that is retyped has several."""
    return f"{name}:{(Type.STRING if type is Type.ANY else type).value}"


def _stored(name: str, type: Type, known: list[str]) -> str:
    """A value of the past as the type it would be stored as now, null when it is none."""
    mine = _place(name, type)
    values = [quoted(mine)]
    for other in known:
        before, _, kind = other.rpartition(":")
        if before == name and other != mine:
            values.append(_cast(other, Type(kind), type))
    return f"coalesce({', '.join(values)})" if len(values) > 1 else values[0]


def _cast(name: str, stored: Type, type: Type) -> str:
    """As a query casts: a cell that the type does not take is stored as text, and queries read it so."""
    return _sql(Cast(Column(name, stored), type), name)


def _sql(expr: Expr, name: str) -> str:
    """An expression over one column, which binds no values."""
    return render_expr(expr, Scope(DUCKDB, Parameters(), {name: column(name)})).sql(dialect=DUCKDB.grammar)


def note_changed(connection: duckdb.DuckDBPyConnection, table: Table) -> None:
    """Look at the keys of the rows in `temp.changed`, which were put into the table."""
    _note_shared(connection, table, "_id IN (SELECT _id FROM temp.changed)")


def _note_shared(connection: duckdb.DuckDBPyConnection, table: Table, chosen: str) -> None:
    """Look whether rows of the condition, which may be new, have a folded key that another row has or had."""
    shared, folded = shared_name(table.id), _sql(normalise_key(Column("_id", Type.STRING), "user_email"), "_id")
    rows = rows_name(table.id, table.generation)
    connection.execute(
        f"""INSERT INTO {shared} SELECT key FROM (
            SELECT {folded} AS key, _id FROM {spans_name(table.id, table.generation)}) AS spans
            WHERE key IN (SELECT {folded} FROM {rows} AS own WHERE _to = {OPEN} AND {chosen})
            AND key NOT IN (FROM {shared}) GROUP BY key HAVING min(_id) <> max(_id)"""
    )


def end_rows(connection: duckdb.DuckDBPyConnection, table: Table, at: datetime, chosen: str, *given: object) -> None:
    """Put current rows of a table into its past, as being so until `at`: those of which the condition is true."""
    late = "SELECT count(*) > 0 FROM table_versions WHERE id = ? AND generation > ?"
    found = connection.execute(late, [table.id, table.generation]).fetchone()
    late_now = bool(found and found[0])  # what was filled from the rows before must not see this
    _end(connection, table, table.generation, at, chosen, *given, late=late_now)


def _end(
    connection: duckdb.DuckDBPyConnection,
    table: Table,
    generation: int,
    at: datetime,
    chosen: str,
    *given: object,
    late: bool,
) -> None:
    types = stored_types(connection, table.id, table.generation)
    cells = "".join(f", {quoted(name)} AS {quoted(_place(name, type))}" for name, type in types.items())
    connection.execute(
        f"""INSERT INTO {past_name(table.id)} BY NAME
            SELECT _row, _id, _since, TIMESTAMP '{at}' AS _until, {generation} AS _gen, {late} AS _late{cells}
            FROM {rows_name(table.id, table.generation)}
            WHERE _to = {OPEN} AND {chosen}""",
        list(given),
    )


def pass_on(connection: duckdb.DuckDBPyConnection, table: Table, before: Table | None, at: datetime | None) -> None:
    """Have a generation that was just filled see the past: that of the one before it, and what it ended itself.

    `at`: the time of the change, None when the generation keeps no history. A row with the same `_since` in both
    generations did not change.
    """
    past = past_name(table.id)
    if _has_past(connection, table.id):  # what an earlier making of this generation left
        connection.execute(f"DELETE FROM {past} WHERE _gen >= ?", [table.generation])
    if at is None:
        return
    new = "TRUE"
    if before is not None and keeps_since(connection, before):
        connection.execute(f"UPDATE {past} SET _late = FALSE WHERE _gen = ? AND _late", [before.generation])
        target = rows_name(table.id, table.generation)
        stays = f"EXISTS (FROM {target} AS new WHERE new._id = {rows_name(before.id, before.generation)}._id"
        stays += f" AND new._since = {rows_name(before.id, before.generation)}._since)"
        _end(connection, before, table.generation, at, f"NOT {stays}", late=False)
        new = f"own._id NOT IN (SELECT _id FROM {rows_name(before.id, before.generation)} WHERE _to = {OPEN})"
    show(connection, table)
    _note_shared(connection, table, new)


def since(at: datetime, before: Map[str, Type], named: set[str], same: list[str]) -> tuple[str, str]:
    """SQL of `_since`: for a row that was given, and for one that stayed without being given.

    `old` is the row before: with the same values it is as it is since then. `before`: its columns. `same`: for
    each column whether the values are the same. A column that is gone is a change too.
    """
    gone = [f"old.{quoted(name)} IS NULL" for name in before if name not in named]
    now = f"TIMESTAMP '{at}'"
    stayed = " AND ".join(["old._since IS NOT NULL", *gone])
    given = " AND ".join([stayed, *same])
    return f"CASE WHEN {given} THEN old._since ELSE {now} END", f"CASE WHEN {stayed} THEN old._since ELSE {now} END"


def spare_search(connection: duckdb.DuckDBPyConnection, plan: Plan) -> Plan:
    """The plan without looking for rows that share a key, where this snapshot says that there are none."""
    empty = {
        relation
        for relation in relations_of(plan)
        if relation.startswith("shared:") and not connection.execute(f"FROM {table_name(relation)} LIMIT 1").fetchone()
    }
    return drop_empty(_without(plan, empty)) if empty else plan


def _without(plan: Plan, empty: set[str]) -> Plan:
    if isinstance(plan, Read) and plan.relation in empty:
        return Values(plan.schema, ())
    return map_inputs(plan, lambda input: _without(input, empty))


def drop_past(connection: duckdb.DuckDBPyConnection, id: str) -> None:
    """Forget what the rows of a table were; none is no error."""
    for name in (past_name(id), shared_name(id)):
        connection.execute(f"DROP TABLE IF EXISTS {name}")
