"""Owns which paths of events may hold arrays: whatever else is asked for is read without taking its parents apart.

A path is noted with the first event that has an array there and stays, so one too many does no harm. What lies
inside an array is not noted apart. Holds no transaction of its own.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import duckdb

from roster.model.schema import EVENT_REST
from roster.query.sql_expr import Arrays

PATHS_MAX = 1_000
"""Paths noted; with more of them an array may be anywhere."""
_ANYWHERE: tuple[str, ...] = ()


def learn_arrays(connection: duckdb.DuckDBPyConnection, texts: str) -> None:
    """Note the paths of arrays in what the SELECT `texts` gives, as `said`: JSON of the rest of events."""
    structures = f"SELECT DISTINCT json_structure(said)::VARCHAR FROM ({texts}) WHERE contains(said::VARCHAR, '[')"
    found = {path for (text,) in connection.execute(structures).fetchall() for path in _paths(json.loads(text))}
    known = _read(connection)
    if found <= known or _ANYWHERE in known:
        return
    fresh = found - known if len(found | known) <= PATHS_MAX else {_ANYWHERE}
    connection.execute("INSERT INTO array_paths SELECT unnest($1::VARCHAR[][])", [[list(path) for path in fresh]])


def read_arrays(connection: duckdb.DuckDBPyConnection) -> Arrays:
    """Where arrays may be, as this snapshot knows."""
    return Arrays(EVENT_REST.name, _read(connection))


def _read(connection: duckdb.DuckDBPyConnection) -> frozenset[tuple[str, ...]]:
    return frozenset(tuple(keys) for (keys,) in connection.execute("SELECT keys FROM array_paths").fetchall())


def _paths(structure: Any, keys: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The outermost arrays of a structure as `json_structure` tells it."""
    match structure:
        case list():
            yield keys
        case dict():
            for key, inner in structure.items():
                yield from _paths(inner, (*keys, key))
