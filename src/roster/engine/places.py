"""Owns finding events by place: reading wide columns of few events without reading those of all."""

from __future__ import annotations

from typing import Any

import duckdb

PLACES_MAX = 20_000


def at_places(connection: duckdb.DuckDBPyConnection, condition: str, parameters: dict[str, Any] | None = None) -> str:
    """A condition that few events meet as the list of their places: joined with, `rest` would be read of every event.

    Gives the condition itself when more than PLACES_MAX meet it.
    """
    found = connection.execute(f"SELECT rowid FROM events WHERE {condition} LIMIT {PLACES_MAX + 1}", parameters)
    places = found.fetchall()
    if len(places) > PLACES_MAX:
        return condition
    return f"rowid IN ({', '.join(str(int(place)) for (place,) in places)})" if places else "false"
