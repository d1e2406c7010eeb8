"""Owns the temporary table that events pass through, and reading canonical lines into it."""

from __future__ import annotations

import glob
from pathlib import Path

import duckdb

from roster.model.schema import EVENT_COLUMNS, Type

_SQL_TYPES = {Type.STRING: "VARCHAR", Type.INTEGER: "BIGINT", Type.TIMESTAMP: "TIMESTAMP"}

COLUMNS = tuple((column.name, _SQL_TYPES[column.type]) for column in EVENT_COLUMNS)
"""Typed columns of events with their SQL types."""

_LINE = {"k": "VARCHAR", "fresh": "BOOLEAN", "v": "BIGINT", "rest": "JSON"} | {
    name: "BIGINT" if type == "TIMESTAMP" else type for name, type in COLUMNS if name != "event_id"
}
_LINE_COLUMNS = ", ".join(f"'{name}': '{type}'" for name, type in _LINE.items())
_PLAIN = ", ".join(f'"{name}"' for name, _ in COLUMNS if name not in ("event_id", "time"))
_IF_OBJECT = "nullif(regexp_extract((said->'{0}')::VARCHAR, '(?s)^[{{].+[}}]$'), '')"
SAID = {"user_traits": _IF_OBJECT.format("usr"), "account_traits": _IF_OBJECT.format("account")}
"""What an event says of user and account: the text of objects inside `said`, its `rest` as JSON."""
OPENED = "CASE WHEN contains(said::VARCHAR, '[') THEN said END"
"""What an event says where an array may be in it."""
_TRAITS = ", ".join(f"{sql} AS {name}" for name, sql in SAID.items())
SPLIT = f"SELECT * EXCLUDE (said), said::VARIANT AS rest, {OPENED} AS opened, {_TRAITS}"
"""Of rows with `said`: what staging holds of it."""
VERSION = "coalesce(TRY_CAST(variant_extract(variant_extract(rest, '_dd'), 'document_version') AS BIGINT), 0)"
"""The version of a view, as its `rest` says it."""
_STAGE_LINES = f"""
    INSERT INTO staging BY NAME {SPLIT} FROM (
        SELECT k AS event_id, $first + row_number() OVER () AS n, coalesce(fresh, false) AS fresh, v,
            make_timestamp_ms(time) AS time, {_PLAIN}, rest AS said
        FROM read_json($path, format = 'newline_delimited', columns = {{{_LINE_COLUMNS}}}))"""


def create_staging(connection: duckdb.DuckDBPyConnection) -> None:
    """An empty staging table; it goes with the connection."""
    columns = ", ".join(f'"{name}" {type}' for name, type in COLUMNS)
    connection.execute(
        f"CREATE OR REPLACE TEMP TABLE staging "
        f"(n BIGINT, fresh BOOLEAN, v BIGINT, {columns}, rest VARIANT, resolved_user_id VARCHAR, merged BOOLEAN, "
        "user_traits VARCHAR, account_traits VARCHAR, opened JSON)"
    )


def stage_lines(connection: duckdb.DuckDBPyConnection, path: Path, first: int = 0) -> None:
    """Add the canonical lines of a file, which come after `first` others. Errors are DuckDB's."""
    connection.execute(_STAGE_LINES, {"path": glob.escape(str(path)), "first": first})
