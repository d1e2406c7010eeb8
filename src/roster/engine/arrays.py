"""Owns which paths of events may hold arrays: whatever else is asked for is read without taking its parents apart.

A path is noted with the first event that has an array there and stays, so one too many does no harm. What lies
inside an array is not noted apart. Holds no transaction of its own.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

import duckdb

from roster.model.schema import EVENT_REST
from roster.query.sql_expr import Arrays

PATHS_MAX = 1_000
"""Paths noted whole, and then as many again by their first key; with more of them an array may be anywhere."""
_ANYWHERE: tuple[str, ...] = ()
_PORTION = 2_000
"""Structures looked at together."""

Paths = frozenset[tuple[str, ...]]


def learn_arrays(connection: duckdb.DuckDBPyConnection, texts: str) -> None:
    """Note the paths of arrays in what the SELECT `texts` gives, as `said`: JSON of the rest of events."""
    known, fresh = _read(connection), Paths()
    structures = f"SELECT DISTINCT json_structure(said)::VARCHAR FROM ({texts}) WHERE contains(said::VARCHAR, '[')"
    told = connection.execute(structures)
    while portion := told.fetchmany(_PORTION):
        held = known | fresh
        found = {path for (text,) in portion for path in _paths(text) if not _is_known(path, held)}
        fresh = _bounded(fresh | found, known)
    if fresh:
        connection.execute("INSERT INTO array_paths SELECT unnest($1::VARCHAR[][])", [[list(path) for path in fresh]])


def _bounded(found: Paths, known: Paths) -> Paths:
    """What to note: the paths, or where they are too many, what they begin with."""
    heads = frozenset(path[:1] for path in found)
    for fresh, most in ((found, PATHS_MAX), (heads, 2 * PATHS_MAX)):
        if len(known | fresh) <= most:
            return fresh
    return frozenset({_ANYWHERE})


def _is_known(path: tuple[str, ...], known: Paths) -> bool:
    return any(path[:n] in known for n in range(len(path) + 1))


def read_arrays(connection: duckdb.DuckDBPyConnection) -> Arrays:
    """Where arrays may be, as this snapshot knows."""
    return Arrays(EVENT_REST.name, _read(connection))


def _read(connection: duckdb.DuckDBPyConnection) -> Paths:
    return frozenset(tuple(keys) for (keys,) in connection.execute("SELECT keys FROM array_paths").fetchall())


def _paths(structure: str) -> Iterable[tuple[str, ...]]:
    """The outermost arrays of a structure as `json_structure` tells it; anywhere in one too deep to look through."""
    try:
        return list(_outermost(json.loads(structure), ()))
    except RecursionError:
        return [_ANYWHERE]


def _outermost(structure: Any, keys: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    match structure:
        case list():
            yield keys
        case dict():
            for key, inner in structure.items():
                yield from _outermost(inner, (*keys, key))
