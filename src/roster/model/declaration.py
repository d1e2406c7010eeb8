"""Owns the declaration: connections, tables and segments of an organisation as one value and as plain JSON. No I/O."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from roster.base.errors import Code, Error, did_you_mean
from roster.base.values import canonical
from roster.model.connection import parse_connection_id, parse_field_id, parse_type
from roster.model.schema import Entity

CONFLICT = "conflict"
RULES: dict[str, Any] = {CONFLICT: None, "null_rule": "skip", "allowed_values": [], "pattern": ""}
"""Members of a field that the contract does not have, each with the value that says the same as none."""
LOCAL_FILE = "LOCAL_FILE"


@dataclass(frozen=True, slots=True)
class DeclaredField:
    """One custom attribute. `rules` are members of RULES with their values as canonical JSON, sorted by name.

    `renamed_from` is a wish, not a part of what is compared.
    """

    id: str
    source_name: str
    type: str
    display_name: str = ""
    description: str = ""
    groups: tuple[str, ...] = ()
    rules: tuple[tuple[str, str], ...] = ()
    renamed_from: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class DeclaredConnection:
    """A connection without who made it and how it stands; fields and metadata sorted by name."""

    id: str
    type: str
    join_type: str
    join_attribute: str
    metadata: tuple[tuple[str, str], ...] = ()
    fields: tuple[DeclaredField, ...] = ()


@dataclass(frozen=True, slots=True)
class DeclaredTable:
    """A reference table without its rows. `access_details` is canonical JSON, empty for tables without a bucket.

    `id` is known of what is at a far end only.
    """

    name: str
    source: str
    primary_key: str
    columns: tuple[tuple[str, str], ...]
    description: str = ""
    tags: tuple[str, ...] = ()
    sync_enabled: bool | None = None
    access_details: str = ""
    id: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class DeclaredSegment:
    """A segment; `data_query` is canonical JSON. `id` is known of what is at a far end only."""

    name: str
    data_query: str
    description: str = ""
    tags: tuple[str, ...] = ()
    id: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class Declaration:
    """All of an organisation that can be declared, sorted by name. None: nothing is said of that part."""

    users: tuple[DeclaredConnection, ...] | None = None
    accounts: tuple[DeclaredConnection, ...] | None = None
    tables: tuple[DeclaredTable, ...] | None = None
    segments: tuple[DeclaredSegment, ...] | None = None

    def connections(self, entity: Entity) -> tuple[DeclaredConnection, ...] | None:
        return self.users if entity is Entity.USERS else self.accounts


def to_json(declaration: Declaration) -> dict[str, Any]:
    """The plain form: things under their names, what is empty left out."""
    plain: dict[str, Any] = {}
    for entity in Entity:
        connections = declaration.connections(entity)
        if connections is not None:
            plain[entity.value] = {"connections": {c.id: connection_json(c) for c in connections}}
    if declaration.tables is not None:
        plain["tables"] = {t.name: table_json(t) for t in declaration.tables}
    if declaration.segments is not None:
        plain["segments"] = {s.name: segment_json(s) for s in declaration.segments}
    return plain


def connection_json(c: DeclaredConnection) -> dict[str, Any]:
    """One connection in the plain form."""
    join = {"type": c.join_type, "attribute": c.join_attribute}
    plain: dict[str, Any] = {"type": c.type, "join": join, "metadata": dict(c.metadata)}
    return _filled(plain | {"fields": {f.id: field_json(f) for f in c.fields}})


def field_json(f: DeclaredField) -> dict[str, Any]:
    """One field in the plain form."""
    plain: dict[str, Any] = {"source_name": f.source_name, "type": f.type, "display_name": f.display_name}
    plain |= {"description": f.description, "groups": list(f.groups)}
    return _filled(plain | {name: json.loads(text) for name, text in f.rules} | {"renamed_from": f.renamed_from})


def table_json(t: DeclaredTable) -> dict[str, Any]:
    """One table in the plain form."""
    plain: dict[str, Any] = {"source": t.source, "primary_key": t.primary_key, "columns": dict(t.columns)}
    plain |= {"description": t.description, "tags": list(t.tags)}
    if t.access_details:
        plain |= {"sync_enabled": bool(t.sync_enabled), "access_details": json.loads(t.access_details)}
    return _filled(plain)


def segment_json(s: DeclaredSegment) -> dict[str, Any]:
    """One segment in the plain form."""
    return _filled({"description": s.description, "tags": list(s.tags)}) | {"data_query": json.loads(s.data_query)}


def _filled(plain: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in plain.items() if value not in ("", [], {})}


# reading


def read_declaration(plain: Any, at: str = "") -> Declaration:
    """The declaration of a plain form. Error: INVALID with a pointer to what is unknown, missing or wrong."""
    given = _object(plain, at, ("users", "accounts", "tables", "segments"))
    parts: dict[str, Any] = {}
    for entity in Entity:
        if entity.value in given:
            parts[entity.value] = _read_entity(given[entity.value], f"{at}/{entity.value}")
    if "tables" in given:
        named = _named(given["tables"], f"{at}/tables")
        parts["tables"] = tuple(_read_table(name, one, f"{at}/tables/{_part(name)}") for name, one in named)
    if "segments" in given:
        named = _named(given["segments"], f"{at}/segments")
        parts["segments"] = tuple(_read_segment(name, one, f"{at}/segments/{_part(name)}") for name, one in named)
    return Declaration(**parts)


def _read_entity(plain: Any, at: str) -> tuple[DeclaredConnection, ...]:
    given = _object(plain, at, ("connections",))
    at = f"{at}/connections"
    everything = _object(given.get("connections"), at)
    connections = [_read_connection(id, one, f"{at}/{_part(id)}") for id, one in everything.items()]
    _refuse_unshared(connections, at)
    return settle(connections)


def _read_connection(id: str, plain: Any, at: str) -> DeclaredConnection:
    given = _object(plain, at, ("type", "join", "metadata", "fields"), required=("type", "join"))
    join = _object(given["join"], f"{at}/join", ("type", "attribute"), required=("type", "attribute"))
    metadata = _object(given.get("metadata"), f"{at}/metadata")
    named = _named(given.get("fields"), f"{at}/fields")
    fields = tuple(_read_field(name, one, f"{at}/fields/{_part(name)}") for name, one in named)
    for f in fields:
        if f.renamed_from in {other.id for other in fields} and f.renamed_from:
            message = f"renamed_from names {f.renamed_from!r}, which is a field of its own here"
            place = f"{at}/fields/{_part(f.id)}/renamed_from"
            raise Error(Code.INVALID, message, at=place, hint="to exchange two fields, exchange their source_name")
    return DeclaredConnection(
        parse_connection_id(id, at),
        _text(given, "type", at),
        _text(join, "type", f"{at}/join"),
        _text(join, "attribute", f"{at}/join"),
        tuple(sorted((name, _text(metadata, name, f"{at}/metadata")) for name in metadata)),
        fields,
    )


def _read_field(id: str, plain: Any, at: str) -> DeclaredField:
    texts = ("source_name", "type", "display_name", "description")
    known = (*texts, "groups", *RULES, "renamed_from")
    given = _object(plain, at, known, required=("source_name", "type"))
    rules = {name: given[name] for name in RULES if given.get(name) is not None}
    if CONFLICT in rules:
        place = f"{at}/{CONFLICT}"
        rule = _object(rules[CONFLICT], place, ("rule", "order"), required=("rule",))
        rules[CONFLICT] = {"rule": _text(rule, "rule", place), "order": list(_texts(rule, "order", place))}
    return DeclaredField(
        parse_field_id(id, at),
        _text(given, "source_name", at),
        parse_type(_text(given, "type", at), f"{at}/type").value,
        _text(given, "display_name", at),
        _text(given, "description", at),
        _texts(given, "groups", at),
        kept_rules(rules),
        _text(given, "renamed_from", at).removeprefix("@"),
    )


def kept_rules(rules: dict[str, Any]) -> tuple[tuple[str, str], ...]:
    """Rules as a field holds them: those that say something, sorted."""
    said = ((name, value) for name, value in rules.items() if value is not None and value != RULES[name])
    return tuple(sorted((name, canonical(value)) for name, value in said))


def _read_table(name: str, plain: Any, at: str) -> DeclaredTable:
    known = ("source", "primary_key", "columns", "description", "tags", "sync_enabled", "access_details")
    given = _object(plain, at, known, required=("source", "primary_key", "columns"))
    columns = _object(given["columns"], f"{at}/columns")
    enabled = given.get("sync_enabled")
    if enabled is not None and not isinstance(enabled, bool):
        raise Error(Code.INVALID, f"{enabled!r} is not true or false", at=f"{at}/sync_enabled")
    details = _object(given.get("access_details"), f"{at}/access_details")
    source = _text(given, "source", at)
    if details and source == LOCAL_FILE:
        message = "access_details are for tables in a bucket"
        raise Error(Code.INVALID, message, at=f"{at}/access_details", hint=f"its source is {LOCAL_FILE}")
    key = _text(given, "primary_key", at)
    if key not in columns:
        hint = did_you_mean(key, columns) or f"columns: {', '.join(columns)}"
        raise Error(Code.INVALID, f"the primary key {key!r} is no column", at=f"{at}/primary_key", hint=hint)
    return DeclaredTable(
        name,
        source,
        key,
        tuple((column, _text(columns, column, f"{at}/columns")) for column in columns),
        _text(given, "description", at),
        _texts(given, "tags", at),
        bool(enabled) if details else None,
        canonical(details) if details else "",
    )


def _read_segment(name: str, plain: Any, at: str) -> DeclaredSegment:
    given = _object(plain, at, ("description", "tags", "data_query"), required=("data_query",))
    query = canonical(_object(given["data_query"], f"{at}/data_query"))
    return DeclaredSegment(name, query, _text(given, "description", at), _texts(given, "tags", at))


def _object(plain: Any, at: str, known: Sequence[str] | None = None, required: Sequence[str] = ()) -> dict[str, Any]:
    """The members of an object; nothing is an empty one. Error: INVALID."""
    if plain is None:
        plain = {}
    if not isinstance(plain, dict):
        raise Error(Code.INVALID, "this is no object", at=at or "/", hint="write names with values under it")
    for name in plain if known is not None else ():
        if name not in (known or ()):
            hint = did_you_mean(name, known or ()) or f"known: {', '.join(known or ())}"
            raise Error(Code.INVALID, f"unknown member {name!r}", at=f"{at}/{_part(name)}", hint=hint)
    for name in required:
        if plain.get(name) is None:
            raise Error(Code.INVALID, f"{name!r} is missing", at=at or "/")
    return plain


def _named(plain: Any, at: str) -> list[tuple[str, Any]]:
    return sorted(_object(plain, at).items())


def _text(given: dict[str, Any], name: str, at: str) -> str:
    value = given.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):
        hint = f'write it in quotes: "{str(value).lower() if isinstance(value, bool) else value}"'
        raise Error(Code.INVALID, f"{name} is no text", at=f"{at}/{_part(name)}", hint=hint)
    return value


def _texts(given: dict[str, Any], name: str, at: str) -> tuple[str, ...]:
    values = given.get(name)
    if values is None:
        return ()
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        message = f"{name} is no list of texts"
        raise Error(Code.INVALID, message, at=f"{at}/{name}", hint="write numbers, true and false in quotes")
    return tuple(values)


def _part(name: str) -> str:
    return name.replace("~", "~0").replace("/", "~1")


# ids that several connections offer


def settle(connections: Sequence[DeclaredConnection]) -> tuple[DeclaredConnection, ...]:
    """The connections by id, each conflict rule at every field of its id and with its whole order.

    Whom an order leaves out comes after it, as the connections stand.
    """
    rules: dict[str, Any] = {}
    offering: dict[str, list[str]] = {}
    for c in connections:
        for f in c.fields:
            offering.setdefault(f.id, []).append(c.id)
            rule = dict(f.rules).get(CONFLICT)
            if rule is not None:
                rules.setdefault(f.id, json.loads(rule))
    whole = {
        id: canonical(rule | {"order": list(dict.fromkeys([*rule["order"], *offering[id]]))})
        for id, rule in rules.items()
    }
    settled = (replace(c, fields=_sorted(_with_conflict(f, whole.get(f.id)) for f in c.fields)) for c in connections)
    return tuple(sorted(settled, key=lambda c: c.id))


def _sorted(fields: Any) -> tuple[DeclaredField, ...]:
    return tuple(sorted(fields, key=lambda f: f.id))


def _with_conflict(f: DeclaredField, rule: str | None) -> DeclaredField:
    return f if rule is None else replace(f, rules=tuple(sorted((dict(f.rules) | {CONFLICT: rule}).items())))


def _refuse_unshared(connections: Sequence[DeclaredConnection], at: str) -> None:
    """Error: INVALID for one id in two connections that do not say, or not alike, which of them counts."""
    seen: dict[str, tuple[str, DeclaredField]] = {}
    for c in connections:
        for f in c.fields:
            place = f"{at}/{_part(c.id)}/fields/{_part(f.id)}"
            other, same = seen.setdefault(f.id.lower(), (c.id, f))
            if other == c.id:
                continue
            said = {rule for rule in (dict(f.rules).get(CONFLICT), dict(same.rules).get(CONFLICT)) if rule}
            if not said or f.id != same.id:
                hint = "choose another id, or say with `conflict` which of them counts"
                raise Error(Code.INVALID, f"{f.id!r} is also a field of connection {other!r}", at=place, hint=hint)
            if len(said) > 1:
                message = f"{f.id!r} has another conflict rule in connection {other!r}"
                raise Error(Code.INVALID, message, at=f"{place}/{CONFLICT}", hint="say it once, or alike")
