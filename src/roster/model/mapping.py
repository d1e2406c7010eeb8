"""Owns the mapping of an entity, its history and the pure changes of it; never stores, never reads a source."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping as Map
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from roster.base.errors import Code, Error, did_you_mean
from roster.base.values import Difference, canonical, diff
from roster.model import connection
from roster.model.connection import (
    Applied,
    Connection,
    CreateRequest,
    Field,
    FieldUpdate,
    UpdateRequest,
    find_column,
    find_join_column,
    hint_columns,
    ids_of,
    request_digest,
    tidy_create,
    tidy_update,
)
from roster.model.schema import BUILTINS, Entity, Schema, Type

FIELDS_MAX = 200
APPLIED_MAX = 32
"""How many standing updates a connection remembers."""
ATTRIBUTES_AT = "/data/attributes"


@dataclass(frozen=True, slots=True)
class Alias:
    """An id that a field had before it was renamed. `old_id` is never live, `new_id` always is."""

    old_id: str
    new_id: str
    connection_id: str
    at_ms: int


@dataclass(frozen=True, slots=True)
class Mapping:
    """All custom attributes of one entity. Field ids are unique over it and the built-ins, case ignored."""

    entity: Entity
    version: int
    connections: tuple[Connection, ...] = ()
    aliases: tuple[Alias, ...] = ()


@dataclass(frozen=True, slots=True)
class Version:
    """One record of history: who made this mapping, when, why, by which request, and what it changed."""

    version: int
    at_ms: int
    who: str
    why: str
    request: Any = field(hash=False)
    diff: tuple[Difference, ...] = field(hash=False)
    mapping: Mapping


@dataclass(frozen=True, slots=True)
class Attribute:
    """One attribute as readers see it: `id` as shown (custom ones as `@name`), `name` without the '@'."""

    id: str
    name: str
    type: Type
    display_name: str
    description: str
    groups: tuple[str, ...]
    is_custom: bool
    connection_id: str | None = None
    source_name: str | None = None


def empty(entity: Entity) -> Mapping:
    """The mapping before the first change: version 0."""
    return Mapping(entity, 0)


def attributes(mapping: Mapping) -> tuple[Attribute, ...]:
    """Built-ins first, then the fields of each connection in order."""
    builtins = [
        Attribute(b.id, b.id, b.type, b.display_name, b.description, b.groups, is_custom=False)
        for b in BUILTINS[mapping.entity]
    ]
    custom = [_custom(c, f) for c in mapping.connections for f in c.fields]
    return (*builtins, *custom)


def _custom(c: Connection, f: Field) -> Attribute:
    label = f.display_name or humanise(f.id)
    return Attribute(f"@{f.id}", f.id, f.type, label, f.description, f.groups, True, c.id, f.source_name)


def humanise(id: str) -> str:
    """A label for an id: `customer_tier` is `Customer Tier`."""
    return " ".join(word[0].upper() + word[1:] for word in re.split(r"[_.-]+", id) if word) or id


def find(
    mapping: Mapping, name: str, now_ms: int, alias_ttl_ms: int, known: Map[str, Attribute] | None = None
) -> Attribute | None:
    """The attribute of that name, with or without '@'; else the one that had it until `alias_ttl_ms` ago.

    `known`: the mapping's attributes by name, where they are at hand.
    """
    plain = name.removeprefix("@")
    by_name = known or {a.name: a for a in attributes(mapping)}
    if plain in by_name:
        return by_name[plain]
    live = (a for a in mapping.aliases if a.old_id == plain and now_ms < a.at_ms + alias_ttl_ms)
    return next((by_name[a.new_id] for a in live), None)


def find_connection(mapping: Mapping, id: str) -> Connection | None:
    """The connection of that id, or None."""
    return next((c for c in mapping.connections if c.id == id), None)


def create(
    mapping: Mapping,
    request: CreateRequest,
    *,
    who: str,
    now_ms: int,
    source_columns: Schema | None,
    fields_max: int = FIELDS_MAX,
) -> Mapping:
    """The mapping with a new connection; the same one when that definition is already there.

    `source_columns` is None while the source is unknown. Errors: INVALID, CONFLICT, UNSUPPORTED.
    """
    request = tidy_create(mapping.entity, request)
    origin = request_digest(request)
    known = find_connection(mapping, request.connection_id)
    if known is not None:
        if known.created_from == origin or _defines(request, known):
            return mapping
        message = f"connection {known.id!r} exists with another definition"
        raise Error(Code.CONFLICT, message, at="/data/id", hint="update or delete it, or choose another id")
    if request.connection_id.lower() in {c.id.lower() for c in mapping.connections}:
        message = f"a connection exists whose id differs from {request.connection_id!r} only in case"
        raise Error(Code.CONFLICT, message, at="/data/id", hint="choose another id")
    if source_columns is not None:
        find_join_column(mapping.entity, request.join_attribute, source_columns, f"{ATTRIBUTES_AT}/join_attribute")
    at = f"{ATTRIBUTES_AT}/fields"
    _check_new(mapping, request.connection_id, request.fields, {}, at)
    _check_sources(request.fields, (), source_columns, at)
    _check_count(len(request.fields), 0, fields_max, at)
    made = Connection(
        id=request.connection_id,
        type=request.type,
        join_type=request.join_type,
        join_attribute=request.join_attribute,
        fields=request.fields,
        metadata=request.metadata,
        created_ms=now_ms,
        created_by=who,
        updated_ms=now_ms,
        updated_by=who,
        created_from=origin,
    )
    return _next(mapping, (*mapping.connections, made), mapping.aliases)


def _defines(request: CreateRequest, c: Connection) -> bool:
    asked = (request.type, request.join_type, request.join_attribute, request.metadata, set(request.fields))
    return asked == (c.type, c.join_type, c.join_attribute, c.metadata, set(c.fields))


def delete(mapping: Mapping, connection_id: str) -> Mapping:
    """The mapping without that connection, its fields and their old ids. Error: NOT_FOUND."""
    gone = _connection(mapping, connection_id, "")
    return _next(mapping, tuple(c for c in mapping.connections if c is not gone), mapping.aliases)


def update(
    mapping: Mapping,
    request: UpdateRequest,
    *,
    who: str,
    now_ms: int,
    source_columns: Schema | None,
    fields_max: int = FIELDS_MAX,
) -> Mapping:
    """The mapping after delete, update, add; the same one when all of it is done already.

    `source_columns` is None while the source is unknown. Errors: NOT_FOUND, INVALID, CONFLICT.
    """
    old = _connection(mapping, request.connection_id, "/data/id")
    request = tidy_update(request)
    mark = Applied(request_digest(request), ids_of(request))
    if mark in old.applied:
        return mapping
    before = {f.id: f for f in old.fields}
    done = _done_renames(mapping, old, request)
    # a target of a rename done earlier is what this request made, not what it means to delete
    gone = set(request.delete) - set(done.values())
    kept = {id: f for id, f in before.items() if id not in gone}
    renamed, renames = _apply_updates(mapping, old, kept, request, done)
    at = f"{ATTRIBUTES_AT}/fields_to_add"
    _check_new(mapping, old.id, request.add, renamed, at)
    after = renamed | {f.id: f for f in request.add}
    if after == before:
        return mapping
    _check_sources(request.add, old.fields, source_columns, at)
    _check_count(len(after), len(before), fields_max, at)
    touched = {id for id in before.keys() | after.keys() if before.get(id) != after.get(id)}
    standing = [a for a in old.applied if touched.isdisjoint(a.ids)]
    new = replace(
        old,
        fields=tuple(after.values()),
        updated_ms=now_ms,
        updated_by=who,
        applied=(*standing, mark)[-APPLIED_MAX:],
    )
    connections = tuple(new if c is old else c for c in mapping.connections)
    return _next(mapping, connections, _follow(mapping.aliases, old.id, renames, now_ms))


def _done_renames(mapping: Mapping, old: Connection, request: UpdateRequest) -> dict[str, str]:
    """Renames of the request that history shows as done: old id to live id."""
    named = {u.field_id for u in request.update}
    past = {(a.old_id, a.new_id) for a in mapping.aliases if a.connection_id == old.id}
    asked = [(u.field_id, u.updated_field_id) for u in request.update if u.updated_field_id is not None]
    return {a: b for a, b in asked if (a, b) in past and b not in named}


def _apply_updates(
    mapping: Mapping, old: Connection, fields: dict[str, Field], request: UpdateRequest, done: dict[str, str]
) -> tuple[dict[str, Field], dict[str, str]]:
    """The fields after all updates at once, and the renames made: old id to new id."""
    at = f"{ATTRIBUTES_AT}/fields_to_update"
    changed: dict[str, Field] = {}
    for i, u in enumerate(request.update):
        id = done.get(u.field_id, u.field_id)
        if id not in fields:
            raise _no_field(mapping, old, request, u.field_id, f"{at}/{i}/field_id")
        changed[id] = _relabel(fields[id], u)
    renames = {id: f.id for id, f in changed.items() if f.id != id}
    staying = {id.lower() for id in fields if id not in renames}
    for i, u in enumerate(request.update):
        new = renames.get(u.field_id)
        if new is None:
            continue
        owner = _owner(mapping, new, old.id) or (f"connection {old.id!r}" if new.lower() in staying else None)
        if owner is not None:
            message = f"{new!r} is taken by {owner}"
            raise Error(Code.CONFLICT, message, at=f"{at}/{i}/updated_field_id", hint="choose another id")
    after = [changed.get(id, f) for id, f in fields.items()]
    return {f.id: f for f in after}, renames


def _relabel(f: Field, u: FieldUpdate) -> Field:
    return replace(
        f,
        id=f.id if u.updated_field_id is None else u.updated_field_id,
        display_name=f.display_name if u.updated_display_name is None else u.updated_display_name,
        description=f.description if u.updated_description is None else u.updated_description,
        groups=f.groups if u.updated_groups is None else u.updated_groups,
    )


def _no_field(mapping: Mapping, c: Connection, request: UpdateRequest, id: str, at: str) -> Error:
    message = f"connection {c.id!r} has no field {id!r}"
    if id in request.delete and any(f.id == id for f in c.fields):
        return Error(Code.NOT_FOUND, message, at=at, hint="this request deletes it first")
    owner = _owner(mapping, id, c.id)
    if owner is not None:
        return Error(Code.NOT_FOUND, message, at=at, hint=f"it belongs to {owner}")
    return Error(Code.NOT_FOUND, message, at=at, hint=_nearest(mapping, c, id))


def _nearest(mapping: Mapping, c: Connection, id: str) -> str:
    for alias in mapping.aliases:
        if (alias.old_id, alias.connection_id) == (id, c.id):
            return f"it was renamed to {alias.new_id!r}"
    return did_you_mean(id, [f.id for f in c.fields])


def _follow(aliases: tuple[Alias, ...], connection_id: str, renames: dict[str, str], now_ms: int) -> tuple[Alias, ...]:
    """Old aliases pointing at the new ids, and one more for each rename."""
    moved = (replace(a, new_id=renames.get(a.new_id, a.new_id)) for a in aliases)
    return (*moved, *(Alias(old, new, connection_id, now_ms) for old, new in renames.items()))


def _next(mapping: Mapping, connections: tuple[Connection, ...], aliases: Iterable[Alias]) -> Mapping:
    """The next version; aliases go whose old id is taken again or whose field is gone."""
    live = {f.id: c.id for c in connections for f in c.fields}
    kept = tuple(a for a in aliases if a.old_id not in live and live.get(a.new_id) == a.connection_id)
    return Mapping(mapping.entity, mapping.version + 1, connections, kept)


def _connection(mapping: Mapping, id: str, at: str) -> Connection:
    found = find_connection(mapping, id)
    if found is None:
        hint = did_you_mean(id, [c.id for c in mapping.connections])
        raise Error(Code.NOT_FOUND, f"{mapping.entity} have no connection {id!r}", at=at, hint=hint)
    return found


def _owner(mapping: Mapping, id: str, but: str) -> str | None:
    """Who else than the connection `but` has that id, case ignored: engines do not tell `Tier` from `tier`."""
    folded = id.lower()
    if any(b.id == folded for b in BUILTINS[mapping.entity]):
        return "a built-in attribute"
    owners = (c.id for c in mapping.connections for f in c.fields if c.id != but and f.id.lower() == folded)
    owner = next(owners, None)
    return None if owner is None else f"connection {owner!r}"


def _check_new(mapping: Mapping, id: str, new: tuple[Field, ...], present: dict[str, Field], at: str) -> None:
    """Error: CONFLICT for an id that is taken, but for the same field of the same connection."""
    mine = {name.lower() for name in present}
    for i, f in enumerate(new):
        owner = _owner(mapping, f.id, id)
        if owner is not None:
            message = f"{f.id!r} is taken by {owner}"
            raise Error(Code.CONFLICT, message, at=f"{at}/{i}/id", hint="choose another id")
        if f.id.lower() in mine and present.get(f.id) != f:
            message = f"{f.id!r} is taken by connection {id!r} with another definition"
            hint = "change it with fields_to_update, or delete it in the same request to replace it"
            raise Error(Code.CONFLICT, message, at=f"{at}/{i}/id", hint=hint)


def _check_sources(new: tuple[Field, ...], known: tuple[Field, ...], columns: Schema | None, at: str) -> None:
    """Error: INVALID for a source_name that the source does not have."""
    if columns is None:
        return
    for i, f in enumerate(new):
        if f not in known and find_column(f.source_name, columns) is None:
            message = f"the source has no column {f.source_name!r}"
            raise Error(Code.INVALID, message, at=f"{at}/{i}/source_name", hint=hint_columns(f.source_name, columns))


def _check_count(count: int, before: int, fields_max: int, at: str) -> None:
    if count > fields_max and count > before:
        hint = f"at most {fields_max} (setting fields_max)"
        raise Error(Code.INVALID, f"{count} fields are too many for one connection", at=at, hint=hint)


def warnings(mapping: Mapping, request: UpdateRequest) -> tuple[str, ...]:
    """What a preview should say of deletes that find nothing. Errors: as `update` for ids that cannot be."""
    c = _connection(mapping, request.connection_id, "/data/id")
    live = {f.id for f in c.fields}
    at = f"{ATTRIBUTES_AT}/fields_to_delete"
    ids = enumerate(tidy_update(request).delete)
    return tuple(_no_field(mapping, c, request, id, f"{at}/{i}").text() for i, id in ids if id not in live)


def diff_versions(old: Mapping, new: Mapping) -> tuple[Difference, ...]:
    """What changed of connections, fields and old ids, each under its id; stamps are left out."""
    return diff(_outline(old), _outline(new))


def _outline(mapping: Mapping) -> dict[str, Any]:
    aliases = {a.old_id: a.new_id for a in mapping.aliases}
    return {"connections": {c.id: _outline_connection(c) for c in mapping.connections}, "aliases": aliases}


def _outline_connection(c: Connection) -> dict[str, Any]:
    fields = {f.id: {**asdict(f), "groups": list(f.groups)} for f in c.fields}
    for plain in fields.values():
        del plain["id"]
    join = {"type": c.join_type, "attribute": c.join_attribute}
    return {"type": c.type, "join": join, "metadata": dict(c.metadata), "fields": fields}


def to_json(mapping: Mapping) -> dict[str, Any]:
    """Everything a mapping holds, as plain JSON for storing."""
    plain: dict[str, Any] = json.loads(canonical(asdict(mapping)))
    return plain


def from_json(plain: dict[str, Any]) -> Mapping:
    """The mapping that `to_json` wrote."""
    connections = tuple(connection.from_json(c) for c in plain["connections"])
    return Mapping(Entity(plain["entity"]), plain["version"], connections, tuple(Alias(**a) for a in plain["aliases"]))


def version_to_json(version: Version) -> dict[str, Any]:
    """Everything a record of history holds, as plain JSON for storing."""
    plain: dict[str, Any] = json.loads(canonical(asdict(version)))
    return plain


def version_from_json(plain: dict[str, Any]) -> Version:
    """The record that `version_to_json` wrote."""
    differences = tuple(Difference(**d) for d in plain["diff"])
    return Version(**{**plain, "diff": differences, "mapping": from_json(plain["mapping"])})
