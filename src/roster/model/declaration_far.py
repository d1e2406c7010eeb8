"""Owns what stands at a far end as a declaration: from a mapping, and from what the API lists. Asks nobody."""

from __future__ import annotations

import json
from collections.abc import Mapping as Map, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

from roster.base.errors import Error
from roster.base.values import canonical
from roster.model.connection import Connection, Field, parse_type
from roster.model.declaration import (
    CONFLICT,
    RULES,
    DeclaredConnection,
    DeclaredField,
    DeclaredSegment,
    DeclaredTable,
    kept_rules,
    settle,
)
from roster.model.mapping import Mapping

OWN = "roster_"
"""How members of metadata begin that a Roster adds to show how a connection stands."""
TABLE_ID, TABLE_NAME = "table_id", "table_name"
STATIC, INITIAL = "static", "initial"


def declare_mapping(mapping: Mapping) -> tuple[DeclaredConnection, ...]:
    """The connections of a mapping as declared ones."""
    conflicts = {c.field_id: {"rule": c.choice.value, "order": list(c.order)} for c in mapping.conflicts}
    return settle([_declare(c, conflicts) for c in mapping.connections])


def _declare(c: Connection, conflicts: Map[str, Any]) -> DeclaredConnection:
    fields = tuple(_declare_field(f, conflicts.get(f.id)) for f in c.fields)
    return DeclaredConnection(c.id, c.type, c.join_type, c.join_attribute, tuple(sorted(c.metadata)), fields)


def _declare_field(f: Field, conflict: Any) -> DeclaredField:
    rules = {"null_rule": f.rules.nulls.value, "allowed_values": list(f.rules.allowed), "pattern": f.rules.pattern}
    kept = kept_rules(rules | {CONFLICT: conflict})
    return DeclaredField(f.id, f.source_name, f.type.value, f.display_name, f.description, f.groups, kept)


def declare_listed(listed: Sequence[Map[str, Any]]) -> tuple[DeclaredConnection, ...]:
    """The connections that ListConnections answers."""
    return settle([_listed_connection(c) for c in listed])


def _listed_connection(c: Map[str, Any]) -> DeclaredConnection:
    join = c.get("join") or {}
    metadata = (c.get("metadata") or {}).items()
    return DeclaredConnection(
        c.get("id") or "",
        c.get("type") or "",
        join.get("type") or "",
        join.get("attribute") or "",
        tuple(sorted((name, text) for name, text in metadata if not name.startswith(OWN))),
        tuple(_listed_field(f) for f in c.get("fields") or ()),
    )


def _listed_field(f: Map[str, Any]) -> DeclaredField:
    type = f.get("type") or ""
    with suppress(Error):  # a type we do not know is shown as it is
        type = parse_type(type).value
    return DeclaredField(
        f.get("id") or "",
        f.get("source_name") or "",
        type,
        f.get("display_name") or "",
        f.get("description") or "",
        tuple(f.get("groups") or ()),
        kept_rules({name: f.get(name) for name in RULES}),
    )


def name_tables(connections: Sequence[DeclaredConnection], names: Map[str, str]) -> tuple[DeclaredConnection, ...]:
    """The connections with the names of tables in place of their ids, which mean nothing elsewhere."""
    return tuple(_name_table(c, names) for c in connections)


def _name_table(c: DeclaredConnection, names: Map[str, str]) -> DeclaredConnection:
    metadata = dict(c.metadata)
    if metadata.get(TABLE_ID) not in names:
        return c
    named = {name: text for name, text in metadata.items() if name != TABLE_ID}
    return replace(c, metadata=tuple(sorted((named | {TABLE_NAME: names[metadata[TABLE_ID]]}).items())))


def declare_tables(listed: Sequence[Map[str, Any]]) -> tuple[DeclaredTable, ...]:
    """The tables that ListTables answers, by name."""
    return tuple(sorted((_listed_table(t) for t in listed), key=lambda t: t.name))


def _listed_table(listed: Map[str, Any]) -> DeclaredTable:
    given = listed.get("attributes") or {}
    schema, file = given.get("schema") or {}, given.get("file_metadata") or {}
    details = file.get("access_details") or {}
    return DeclaredTable(
        given.get("table_name") or "",
        given.get("source") or "",
        (schema.get("primary_keys") or [""])[0],
        tuple((f["name"], f["type"]) for f in schema.get("fields") or ()),
        given.get("description") or "",
        tuple(given.get("tags") or ()),
        bool(file.get("sync_enabled")) if details else None,
        canonical(details) if details else "",
        listed.get("id") or "",
    )


def declare_segments(listed: Sequence[Map[str, Any]]) -> tuple[tuple[DeclaredSegment, ...], tuple[str, ...]]:
    """The segments that ListRumSegments answers, by name; and notes on those that cannot be declared."""
    found, notes = [], []
    for one in listed:
        given = one.get("attributes") or {}
        name = given.get("name") or ""
        if given.get("source") == INITIAL:
            continue  # the product's own, the same everywhere
        if given.get("type") == STATIC:
            notes.append(f"segment {name!r} is a fixed list of people and is left out")
            continue
        query = canonical(given.get("data_query") or {})
        tags = tuple(given.get("tags") or ())
        found.append(DeclaredSegment(name, query, given.get("description") or "", tags, one.get("id") or ""))
    return tuple(sorted(found, key=lambda s: s.name)), tuple(notes)


def merge_access(kept: str, wanted: str) -> str:
    """Access details with the wanted members over the kept ones, as a far end merges them."""
    have, want = json.loads(kept or "{}"), json.loads(wanted or "{}")
    return canonical({name: {**have.get(name, {}), **want.get(name, {})} for name in {**have, **want}})
