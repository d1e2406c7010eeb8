"""Owns finding rows by place: reading wide columns of few rows without reading those of all."""

from __future__ import annotations

from typing import Any

import duckdb

PLACES_MAX = 5_000
SPREAD_MAX = 8
"""Rows between the first and the last place for each row that is wanted, where one range is read."""
DIGEST = "md5_number_lower(event_id)"
"""A number of an event's identity, kept beside it: to look through these is many times quicker than through texts."""


def at_places(
    connection: duckdb.DuckDBPyConnection, table: str, condition: str, parameters: dict[str, Any] | None = None
) -> str:
    """The condition with the places that meet it: a join alone would read every column of all rows.

    Places close together are one range; few others are listed; otherwise it is the condition itself.
    """
    places = f"FROM {table} WHERE {condition}"
    found = connection.execute(f"SELECT count(*), min(rowid), max(rowid) {places}", parameters).fetchone()
    count, first, last = found or (0, None, None)
    if not count:
        return "false"
    if last - first < SPREAD_MAX * count:
        return f"rowid BETWEEN {first} AND {last} AND {condition}"
    if count > PLACES_MAX:
        return condition
    listed = connection.execute(f"SELECT rowid {places}", parameters).fetchall()
    return f"rowid IN ({', '.join(str(int(place)) for (place,) in listed)})"


def at_ids(connection: duckdb.DuckDBPyConnection, ids: str) -> str:
    """The condition that the stored events meet whose identities the SELECT `ids` gives, as `event_id`."""
    found_at = at_places(connection, "events", f"digest IN (SELECT {DIGEST} FROM ({ids}))")
    return f"{found_at} AND event_id IN ({ids})"
