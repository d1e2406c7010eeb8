"""Owns the pure changes of a mapping: create, update and delete a connection. Never stores, never reads a source."""

from __future__ import annotations

from collections.abc import Iterable, Mapping as Map
from dataclasses import replace

from roster.base.errors import Code, Error, did_you_mean
from roster.model.bulk import fields_of
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
from roster.model.mapping import Alias, Mapping, find_connection
from roster.model.rules import Conflict, Rules, check_rules
from roster.model.schema import BUILTINS, Entity, Schema, Type
from roster.model.source import CHANGED_AT

FIELDS_MAX = 200
APPLIED_MAX = 32
"""How many standing updates a connection remembers."""
ATTRIBUTES_AT = "/data/attributes"
BULK_AT = f"{ATTRIBUTES_AT}/fields_from_columns"


def create(
    mapping: Mapping,
    request: CreateRequest,
    *,
    who: str,
    now_ms: int,
    source_columns: Schema | None,
    primary_key: str = "",
    fields_max: int = FIELDS_MAX,
) -> Mapping:
    """The mapping with a new connection; the same one when that definition is already there.

    `source_columns` is None while the source is unknown. Errors: INVALID, CONFLICT, UNSUPPORTED.
    """
    request = tidy_create(mapping.entity, request)
    origin = request_digest(request)
    known = find_connection(mapping, request.connection_id)
    if known is not None:
        if known.created_from == origin or _defines(mapping, request, known):
            return mapping
        message = f"connection {known.id!r} exists with another definition"
        raise Error(Code.CONFLICT, message, at="/data/id", hint="update or delete it, or choose another id")
    if request.connection_id.lower() in {c.id.lower() for c in mapping.connections}:
        message = f"a connection exists whose id differs from {request.connection_id!r} only in case"
        raise Error(Code.CONFLICT, message, at="/data/id", hint="choose another id")
    if source_columns is not None:
        find_join_column(mapping.entity, request.join_attribute, source_columns, f"{ATTRIBUTES_AT}/join_attribute")
        _check_changed_at(dict(request.metadata).get(CHANGED_AT, ""), source_columns)
    at, named = f"{ATTRIBUTES_AT}/fields", len(request.fields)
    if request.bulk is not None:
        keys = (request.join_attribute, primary_key)
        more = fields_of(request.bulk, source_columns, keys, request.fields, BULK_AT)
        request = replace(request, fields=request.fields + more)
    conflicts = _settle_conflicts(mapping, request.conflicts)
    _check_new(mapping, request.connection_id, request.fields, {}, conflicts, at, named)
    _check_sources(request.fields, (), source_columns, at)
    _check_count(len(request.fields), 0, fields_max, at)
    made = replace(_made(request, who, now_ms), created_from=origin)
    others = (_forget(c, _agreed(mapping, conflicts)) for c in mapping.connections)
    return _next(mapping, (*others, made), mapping.aliases, conflicts)


def draft(entity: Entity, request: CreateRequest) -> Connection:
    """The connection that a request would make, as far as it tells its source. Errors: INVALID, UNSUPPORTED."""
    return _made(tidy_create(entity, request), "", 0)


def _made(request: CreateRequest, who: str, now_ms: int) -> Connection:
    return Connection(
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
    )


def _defines(mapping: Mapping, request: CreateRequest, c: Connection) -> bool:
    asked = (request.type, request.join_type, request.join_attribute, request.metadata, set(request.fields))
    same = request.bulk is None and asked == (c.type, c.join_type, c.join_attribute, c.metadata, set(c.fields))
    return same and set(request.conflicts) <= set(mapping.conflicts)


def delete(mapping: Mapping, connection_id: str) -> Mapping:
    """The mapping without that connection, its fields and their old ids. Error: NOT_FOUND."""
    gone = _connection(mapping, connection_id, "")
    return _next(mapping, tuple(c for c in mapping.connections if c is not gone), mapping.aliases, mapping.conflicts)


def update(
    mapping: Mapping,
    request: UpdateRequest,
    *,
    who: str,
    now_ms: int,
    source_columns: Schema | None,
    primary_key: str = "",
    fields_max: int = FIELDS_MAX,
) -> Mapping:
    """The mapping after delete, update, add; the same one when all of it is done already.

    `source_columns` is None while the source is unknown. Errors: NOT_FOUND, INVALID, CONFLICT.
    """
    old = _connection(mapping, request.connection_id, "/data/id")
    request = tidy_update(request)
    mark, named = Applied(request_digest(request), ids_of(request)), len(request.add)
    if mark in old.applied and request.bulk is None:
        return mapping
    if request.bulk is not None:
        keys = (old.join_attribute, primary_key)
        known = (*(f for f in old.fields if f.id not in request.delete), *request.add)
        more = fields_of(request.bulk, source_columns, keys, known, BULK_AT)
        request = replace(request, add=request.add + more)
    before = {f.id: f for f in old.fields}
    done = _done_renames(mapping, old, request)
    # a target of a rename done earlier is what this request made, not what it means to delete
    gone = set(request.delete) - set(done.values())
    kept = {id: f for id, f in before.items() if id not in gone}
    conflicts = _settle_conflicts(mapping, request.conflicts)
    renamed, renames = _apply_updates(mapping, old, kept, request, done, conflicts)
    conflicts = _follow_renames(conflicts, renames)
    at = f"{ATTRIBUTES_AT}/fields_to_add"
    _check_new(mapping, old.id, request.add, renamed, conflicts, at, named)
    after = renamed | {f.id: f for f in request.add}
    if after == before and conflicts == mapping.conflicts:
        return mapping
    _check_sources(request.add, old.fields, source_columns, at)
    _check_count(len(after), len(before), fields_max, at)
    touched = {id for id in before.keys() | after.keys() if before.get(id) != after.get(id)}
    types = {id: after[id].type for id in before.keys() & after.keys() if before[id].type is not after[id].type}
    agreed = _agreed(mapping, conflicts) | types.keys()
    standing = [a for a in old.applied if (touched | agreed).isdisjoint(a.ids)]
    new = replace(
        old,
        fields=tuple(after.values()),
        updated_ms=now_ms,
        updated_by=who,
        applied=(*standing, mark)[-APPLIED_MAX:],
    )
    connections = tuple(new if c is old else _retype(_forget(c, agreed), types) for c in mapping.connections)
    return _next(mapping, connections, _follow(mapping.aliases, old.id, renames, now_ms), conflicts)


def _agreed(mapping: Mapping, conflicts: tuple[Conflict, ...]) -> set[str]:
    """Ids whose conflict rule is another one than before."""
    return {c.field_id for c in {*conflicts}.symmetric_difference(mapping.conflicts)}


def _forget(c: Connection, agreed: set[str]) -> Connection:
    """The connection without the memory of updates that named ids whose conflict rule has changed."""
    standing = tuple(a for a in c.applied if agreed.isdisjoint(a.ids))
    return c if standing == c.applied else replace(c, applied=standing)


def _retype(c: Connection, types: Map[str, Type]) -> Connection:
    """The connection with fields that share an id of the type that it has now."""
    fields = tuple(replace(f, type=types.get(f.id, f.type)) for f in c.fields)
    return c if fields == c.fields else replace(c, fields=fields)


def _follow_renames(conflicts: tuple[Conflict, ...], renames: Map[str, str]) -> tuple[Conflict, ...]:
    """A renamed field takes the rule of its id along, unless the new id has one."""
    rules = {c.field_id: c for c in conflicts}
    moved = {new: replace(rules[old], field_id=new) for old, new in renames.items() if old in rules}
    return tuple((moved | rules).values()) if moved else conflicts


def _settle_conflicts(mapping: Mapping, asked: tuple[Conflict, ...]) -> tuple[Conflict, ...]:
    """The conflict rules with those asked for in place of the same ids'."""
    rules = {c.field_id: c for c in (*mapping.conflicts, *asked)}
    return tuple(rules.values())


def _done_renames(mapping: Mapping, old: Connection, request: UpdateRequest) -> dict[str, str]:
    """Renames of the request that history shows as done: old id to live id."""
    named = {u.field_id for u in request.update}
    past = {(a.old_id, a.new_id) for a in mapping.aliases if a.connection_id == old.id}
    asked = [(u.field_id, u.updated_field_id) for u in request.update if u.updated_field_id is not None]
    return {a: b for a, b in asked if (a, b) in past and b not in named}


def _apply_updates(
    mapping: Mapping,
    old: Connection,
    fields: dict[str, Field],
    request: UpdateRequest,
    done: dict[str, str],
    conflicts: tuple[Conflict, ...],
) -> tuple[dict[str, Field], dict[str, str]]:
    """The fields after all updates at once, and the renames made: old id to new id."""
    at = f"{ATTRIBUTES_AT}/fields_to_update"
    changed: dict[str, Field] = {}
    for i, u in enumerate(request.update):
        id = done.get(u.field_id, u.field_id)
        if id not in fields:
            raise _no_field(mapping, old, request, u.field_id, f"{at}/{i}/field_id")
        changed[id] = _change_field(fields[id], u, f"{at}/{i}")
    renames = {id: f.id for id, f in changed.items() if f.id != id}
    staying = {id.lower() for id in fields if id not in renames}
    for i, u in enumerate(request.update):
        new = changed[done.get(u.field_id, u.field_id)]
        place = f"{at}/{i}/{'updated_type' if u.updated_field_id is None else 'updated_field_id'}"
        retyped = new.type is not fields[done.get(u.field_id, u.field_id)].type and u.field_id not in renames
        _refuse_taken(mapping, new, old.id, conflicts, place, retyped=retyped)
        if u.field_id in renames and new.id.lower() in staying:
            message = f"{new.id!r} is taken by connection {old.id!r}"
            raise Error(Code.CONFLICT, message, at=place, hint="choose another id")
    after = [changed.get(id, f) for id, f in fields.items()]
    return {f.id: f for f in after}, renames


def _change_field(f: Field, u: FieldUpdate, at: str) -> Field:
    rules = Rules(
        nulls=f.rules.nulls if u.updated_nulls is None else u.updated_nulls,
        allowed=f.rules.allowed if u.updated_allowed is None else u.updated_allowed,
        pattern=f.rules.pattern if u.updated_pattern is None else u.updated_pattern,
    )
    return replace(
        f,
        type=f.type if u.updated_type is None else u.updated_type,
        rules=check_rules(rules, at),
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


def _next(
    mapping: Mapping,
    connections: tuple[Connection, ...],
    aliases: Iterable[Alias],
    conflicts: Iterable[Conflict],
) -> Mapping:
    """The next version; old ids go that are taken again or whose field is gone, and rules of ids that are gone."""
    live = {(f.id, c.id) for c in connections for f in c.fields}
    ids = {id for id, _ in live}
    kept = tuple(a for a in aliases if a.old_id not in ids and (a.new_id, a.connection_id) in live)
    rules = tuple(sorted((c for c in conflicts if c.field_id in ids), key=lambda c: c.field_id))
    return Mapping(mapping.entity, mapping.version + 1, connections, kept, rules)


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


def _refuse_taken(
    mapping: Mapping, f: Field, id: str, conflicts: tuple[Conflict, ...], at: str, *, retyped: bool = False
) -> None:
    """Error: CONFLICT when another connection than `id` has the field's id, and they do not share it.

    A `retyped` field takes those that share its id along.
    """
    owner = _owner(mapping, f.id, id)
    if owner is None:
        return
    others = [o for c in mapping.connections for o in c.fields if c.id != id and o.id.lower() == f.id.lower()]
    if not others or any(o.id != f.id for o in others):
        raise Error(Code.CONFLICT, f"{f.id!r} is taken by {owner}", at=at, hint="choose another id")
    if f.id not in {c.field_id for c in conflicts}:
        hint = "choose another id, or say with `conflict` which of them counts"
        raise Error(Code.CONFLICT, f"{f.id!r} is taken by {owner}", at=at, hint=hint)
    if others[0].type is not f.type and not retyped:
        message = f"{f.id!r} is {others[0].type} in {owner}, and fields that share an id are of one type"
        raise Error(Code.CONFLICT, message, at=at, hint=f"make it {others[0].type}, or choose another id")


def _check_new(
    mapping: Mapping,
    id: str,
    new: tuple[Field, ...],
    present: dict[str, Field],
    conflicts: tuple[Conflict, ...],
    at: str,
    named: int,
) -> None:
    """Error: CONFLICT for an id that is taken, but for the same field of the same connection.

    `named`: how many the request names one by one; the others are of its bulk.
    """
    mine = {name.lower() for name in present}
    for i, f in enumerate(new):
        id_at = f"{at}/{i}/id" if i < named else BULK_AT
        check_rules(f.rules, f"{at}/{i}")
        _refuse_taken(mapping, f, id, conflicts, id_at)
        if f.id.lower() in mine and present.get(f.id) != f:
            message = f"{f.id!r} is taken by connection {id!r} with another definition"
            hint = "change it with fields_to_update, or delete it in the same request to replace it"
            raise Error(Code.CONFLICT, message, at=id_at, hint=hint)


def _check_sources(new: tuple[Field, ...], known: tuple[Field, ...], columns: Schema | None, at: str) -> None:
    """Error: INVALID for a source_name that the source does not have."""
    if columns is None:
        return
    for i, f in enumerate(new):
        if f not in known and find_column(f.source_name, columns) is None:
            message = f"the source has no column {f.source_name!r}"
            raise Error(Code.INVALID, message, at=f"{at}/{i}/source_name", hint=hint_columns(f.source_name, columns))


def _check_changed_at(name: str, columns: Schema) -> None:
    """Error: INVALID for a column of times that the source does not have."""
    if name.strip() and find_column(name, columns) is None:
        message, at = f"the source has no column {name!r}", f"{ATTRIBUTES_AT}/metadata/{CHANGED_AT}"
        raise Error(Code.INVALID, message, at=at, hint=hint_columns(name, columns))


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
