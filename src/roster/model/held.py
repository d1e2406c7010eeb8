"""Owns which table each connection reads, and the tables that connections of outside sources own. No I/O."""

from __future__ import annotations

from collections.abc import Sequence

from roster.base.values import digest
from roster.model.connection import REFERENCE_TABLE, Connection
from roster.model.mapping import Mapping
from roster.model.reference_table import Table, normalise_name
from roster.model.schema import Entity
from roster.model.source import HISTORY, options_of, parse_origin


def sources_of(mapping: Mapping, tables: Sequence[Table]) -> dict[str, Table]:
    """The table with rows behind each connection; connections that still wait are absent."""
    return {id: table for id, table in tables_of(mapping, tables).items() if table.columns}


def tables_of(mapping: Mapping, tables: Sequence[Table]) -> dict[str, Table]:
    """The table behind each connection, filled or not; connections without one are absent."""
    by_id = {t.id: t for t in tables if not t.owner}
    by_name = {t.name: t for t in tables}
    found = {c.id: _find(by_id, by_name, mapping.entity, c) for c in mapping.connections}
    return {id: table for id, table in found.items() if table is not None}


def asks_history(connection: Connection) -> bool:
    """Whether a connection asks that what its source's rows were is kept: `history` in its metadata is `true`."""
    return dict(connection.metadata).get(HISTORY, "").strip().lower() == "true"


def keeps_history(table: Table, mappings: Sequence[Mapping], tables: Sequence[Table]) -> bool:
    """Whether any connection that reads a table asks for its history."""
    return any(asks_history(connection) for _, connection in readers_of(table, mappings, tables))


def is_reference(connection: Connection) -> bool:
    """Whether a connection reads a reference table, not an outside source of its own."""
    return connection.type == REFERENCE_TABLE


def _find(by_id: dict[str, Table], by_name: dict[str, Table], entity: Entity, connection: Connection) -> Table | None:
    """A reference table is named in the metadata, else by the connection's own name."""
    if not is_reference(connection):
        return by_name.get(held_name(entity, connection))
    named = dict(connection.metadata)
    if "table_id" in named:
        return by_id.get(named["table_id"])
    table = by_name.get(_normalised(named.get("table_name", connection.id)))
    return table if table is not None and not table.owner else None


def _normalised(name: str) -> str:
    return normalise_name(name) if any(c.isascii() and c.isalpha() for c in name) else name


def owner_of(entity: Entity, connection: Connection) -> str:
    """How a connection is named as the owner of a table."""
    return f"{entity}/{connection.id}"


def held_name(entity: Entity, connection: Connection) -> str:
    """The name of the table a connection owns. Another source or join under the same id is another table."""
    defined = [connection.type, options_of(dict(connection.metadata)), connection.join_attribute]
    return f"{owner_of(entity, connection)}@{digest(defined)[:12]}"


def make_held(entity: Entity, connection: Connection, id: str, now_ms: int) -> Table:
    """The table of a connection before its first sync: no columns, no rows, generation 0."""
    return Table(
        id=id,
        name=held_name(entity, connection),
        columns=(),
        primary_key="",
        source=connection.type.upper(),
        description="",
        tags=(),
        row_count=0,
        created_by=connection.created_by,
        updated_by=connection.created_by,
        created_ms=now_ms,
        updated_ms=now_ms,
        generation=0,
        owner=owner_of(entity, connection),
        origin=parse_origin(connection.type, dict(connection.metadata)),
        sync_enabled=True,
    )


def key_named(table: Table, connection: Connection | None) -> str:
    """The name of the column that identifies a row: the table's, else the source's `key`, else what is joined on."""
    told = table.origin.get("key") if table.origin else ""
    return table.primary_key or told or (connection.join_attribute if connection else "")


def readers_of(
    table: Table, mappings: Sequence[Mapping], tables: Sequence[Table]
) -> tuple[tuple[Mapping, Connection], ...]:
    """The connections that read a table, whether it has rows yet or not."""
    return tuple(
        (mapping, connection)
        for mapping in mappings
        for found in [tables_of(mapping, tables)]
        for connection in mapping.connections
        if connection.id in found and found[connection.id].id == table.id
    )
