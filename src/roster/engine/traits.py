"""Owns which attributes events give to users and accounts beside the built-in ones, and of which type."""

from __future__ import annotations

import duckdb

from roster.model.schema import Entity, Type

KINDS_MAX = 200
"""Pairs of a name and a kind of value that are noted of one entity; what comes later is kept with the events only."""
NAMES_MAX = 50
"""Names in one event: an object of more is no description of a user."""
CHARACTERS_MAX = 200
_KINDS = {
    "VARCHAR": Type.STRING,
    "BOOLEAN": Type.BOOLEAN,
    **dict.fromkeys(("BIGINT", "UBIGINT", "DOUBLE", "HUGEINT"), Type.NUMBER),
}
_COLUMNS = {Entity.USERS: "user_traits", Entity.ACCOUNTS: "account_traits"}


def learn_kinds(connection: duckdb.DuckDBPyConnection, rows: str = "staging") -> None:
    """Note the kinds of values that these events, with their traits beside, give under each name."""
    for entity, column in _COLUMNS.items():
        connection.execute(
            f"""
            INSERT INTO trait_kinds
            SELECT $entity AS entity, said.key AS name, said.type AS kind
            FROM (SELECT DISTINCT {column}::JSON AS object FROM {rows}
                WHERE {column} IS NOT NULL AND len(json_keys({column}::JSON)) <= {NAMES_MAX}),
                LATERAL (SELECT key, type FROM json_each(object)) AS said
            WHERE length(said.key) BETWEEN 1 AND {CHARACTERS_MAX} AND list_contains($kinds, said.type)
                AND said.key NOT IN ('id', 'name', 'email', 'anonymous_id')
                AND (said.key, said.type) NOT IN (SELECT (name, kind) FROM trait_kinds WHERE entity = $entity)
            GROUP BY ALL
            LIMIT greatest(0, $kinds_max - (SELECT count(*) FROM trait_kinds WHERE entity = $entity))
            """,
            {"entity": entity.value, "kinds": list(_KINDS), "kinds_max": KINDS_MAX},
        )


def read_types(connection: duckdb.DuckDBPyConnection, entity: Entity) -> dict[str, Type]:
    """Names with the type that fits all values seen under them, sorted: a string where kinds differ."""
    rows = connection.execute(
        "SELECT name, list(kind) FROM trait_kinds WHERE entity = ? GROUP BY name ORDER BY name", [entity.value]
    ).fetchall()
    seen = {name: {_KINDS[kind] for kind in kinds} for name, kinds in rows}
    return {name: next(iter(types)) if len(types) == 1 else Type.STRING for name, types in seen.items()}
