"""Owns connections, their fields and the requests that make and change them, as values; changes live in mapping."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from roster.base.errors import Code, Error, did_you_mean
from roster.base.values import canonical, digest
from roster.model.reference_table import normalise_name
from roster.model.rules import NO_RULES, Conflict, Nulls, Rules
from roster.model.schema import BUILTINS, Entity, Schema, Type
from roster.model.source import KIND_NAMES, find_kind, parse_origin

FIELD_TYPES = (Type.STRING, Type.NUMBER, Type.BOOLEAN, Type.TIMESTAMP)
SYNONYMS = {
    Type.STRING: ("text", "str", "varchar", "keyword"),
    Type.NUMBER: ("int", "integer", "float", "double", "decimal", "numeric", "long"),
    Type.BOOLEAN: ("bool",),
    Type.TIMESTAMP: ("date", "datetime", "time"),
}
REFERENCE_TABLE = "ref_table"
CONNECTION_TYPES = (REFERENCE_TABLE, *KIND_NAMES)
JOIN_SYNONYMS = {Entity.USERS: {"email": "user_email"}, Entity.ACCOUNTS: {}}
"""Join types that are spelled differently from the profile attribute they name."""
ID_FORM = re.compile(r"[A-Za-z0-9._-]{1,200}")
ID_HINT = "use 1 to 200 letters (a-z, A-Z), digits, '_', '.' or '-'"


@dataclass(frozen=True, slots=True)
class Field:
    """One custom attribute of a connection; `type` is one of FIELD_TYPES."""

    id: str
    source_name: str
    type: Type
    display_name: str = ""
    description: str = ""
    groups: tuple[str, ...] = ()
    rules: Rules = NO_RULES


@dataclass(frozen=True, slots=True)
class FieldUpdate:
    """What an update says of one field: None leaves as it is, an empty value clears."""

    field_id: str
    updated_field_id: str | None = None
    updated_display_name: str | None = None
    updated_description: str | None = None
    updated_groups: tuple[str, ...] | None = None
    updated_type: Type | None = None
    updated_nulls: Nulls | None = None
    updated_allowed: tuple[str, ...] | None = None
    updated_pattern: str | None = None


@dataclass(frozen=True, slots=True)
class Bulk:
    """A wish for a field over every column but the key and `but`, its id as `naming` makes it of `{column}`."""

    but: tuple[str, ...] = ()
    naming: str = "{column}"


@dataclass(frozen=True, slots=True)
class CreateRequest:
    """A wish for a new connection; an empty `connection_id` asks for one to be made."""

    connection_id: str
    type: str
    join_type: str
    join_attribute: str
    fields: tuple[Field, ...] = ()
    metadata: tuple[tuple[str, str], ...] = ()
    conflicts: tuple[Conflict, ...] = ()
    bulk: Bulk | None = None


@dataclass(frozen=True, slots=True)
class UpdateRequest:
    """A wish to change the fields of a connection: delete, then update, then add.

    `conflicts` name ids as they are afterwards.
    """

    connection_id: str
    add: tuple[Field, ...] = ()
    update: tuple[FieldUpdate, ...] = ()
    delete: tuple[str, ...] = ()
    conflicts: tuple[Conflict, ...] = ()
    bulk: Bulk | None = None


@dataclass(frozen=True, slots=True)
class Applied:
    """An update whose effect still stands: no later change has touched any field id it names."""

    digest: str
    ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Connection:
    """A source joined to an entity. `created_from` is the digest of the create request, `applied` oldest first."""

    id: str
    type: str
    join_type: str
    join_attribute: str
    fields: tuple[Field, ...]
    metadata: tuple[tuple[str, str], ...]
    created_ms: int
    created_by: str
    updated_ms: int
    updated_by: str
    created_from: str = ""
    applied: tuple[Applied, ...] = ()


def parse_type(text: str, at: str = "") -> Type:
    """The field type of that name or synonym, in any case. Error: INVALID."""
    name = text.strip().lower()
    for type in FIELD_TYPES:
        if name == type or name in SYNONYMS[type]:
            return type
    allowed = "; ".join(f"{type} ({', '.join(SYNONYMS[type])})" for type in FIELD_TYPES)
    raise Error(Code.INVALID, f"unknown field type {text!r}", at=at, hint=f"allowed, with synonyms: {allowed}")


def parse_field_id(text: str, at: str = "") -> str:
    """A field id without its leading '@'. Error: INVALID for another form."""
    plain = text.removeprefix("@")
    if not ID_FORM.fullmatch(plain):
        raise Error(Code.INVALID, f"{text!r} cannot be a field id", at=at, hint=ID_HINT)
    return plain


def parse_connection_id(text: str, at: str = "") -> str:
    """A connection id. Error: INVALID for a form that clients do not all encode alike in a path."""
    if not ID_FORM.fullmatch(text):
        raise Error(Code.INVALID, f"{text!r} cannot be a connection id", at=at, hint=ID_HINT)
    return text


def parse_join_type(entity: Entity, text: str, at: str = "") -> str:
    """The profile attribute that a join type names (`email` is `user_email`). Error: INVALID."""
    name = JOIN_SYNONYMS[entity].get(text, text)
    known = [b.id for b in BUILTINS[entity]]
    if name in known:
        return name
    allowed = ", ".join([*JOIN_SYNONYMS[entity], *known])
    raise Error(Code.INVALID, f"{entity} cannot be joined by {text!r}", at=at, hint=f"allowed: {allowed}")


def find_column(name: str, columns: Schema) -> str | None:
    """The source column that `name` means: as written, else in its normalised form."""
    names = {c.name for c in columns}
    if name in names:
        return name
    try:
        plain = normalise_name(name)
    except Error:
        return None  # what has no normal form is no column
    return plain if plain in names else None


def find_join_column(entity: Entity, join_attribute: str, columns: Schema, at: str = "") -> str | None:
    """The source column to join on; None when `join_attribute` names the entity's side: take the primary key.

    Error: INVALID when it is neither a column nor an attribute of the entity.
    """
    column = find_column(join_attribute, columns)
    if column is not None:
        return column
    attribute = join_attribute.removeprefix("@")
    if attribute in JOIN_SYNONYMS[entity] or any(b.id == attribute for b in BUILTINS[entity]):
        return None
    message = f"{join_attribute!r} is neither a column of the source nor an attribute of {entity}"
    raise Error(Code.INVALID, message, at=at, hint=hint_columns(join_attribute, columns))


def hint_columns(name: str, columns: Schema) -> str:
    """The nearest columns, else all of them."""
    names = [c.name for c in columns]
    return did_you_mean(name, names) or f"columns: {', '.join(names)}"


def tidy_create(entity: Entity, request: CreateRequest) -> CreateRequest:
    """The request with plain ids and sorted metadata, its id made when it has none. Errors: INVALID, UNSUPPORTED."""
    at = "/data/attributes"
    if request.type not in CONNECTION_TYPES and find_kind(request.type) is None:
        hint = f"supported: {', '.join(CONNECTION_TYPES)}"
        raise Error(Code.UNSUPPORTED, f"unsupported connection type {request.type!r}", at=f"{at}/type", hint=hint)
    if request.type != REFERENCE_TABLE:
        parse_origin(request.type, dict(request.metadata), f"{at}/metadata")
    parse_join_type(entity, request.join_type, f"{at}/join_type")
    if not request.join_attribute.strip():
        raise Error(Code.INVALID, "join_attribute is empty", at=f"{at}/join_attribute", hint="name a source column")
    fields = _tidy_fields(request.fields, f"{at}/fields")
    plain = replace(
        request,
        fields=fields,
        metadata=tuple(sorted(request.metadata)),
        conflicts=_tidy_conflicts(request.conflicts),
    )
    if plain.connection_id:
        parse_connection_id(plain.connection_id, "/data/id")
        return plain
    # made from the definition, so that the request repeated finds what it made the first time
    return replace(plain, connection_id=f"connection-{request_digest(plain)[:12]}")


def tidy_update(request: UpdateRequest) -> UpdateRequest:
    """The request with plain ids. Error: INVALID for a bad id or one that comes twice."""
    at = "/data/attributes"
    updates_at, deletes_at = f"{at}/fields_to_update", f"{at}/fields_to_delete"
    add = _tidy_fields(request.add, f"{at}/fields_to_add")
    update = tuple(_tidy_field_update(u, f"{updates_at}/{i}") for i, u in enumerate(request.update))
    delete = tuple(parse_field_id(text, f"{deletes_at}/{i}") for i, text in enumerate(request.delete))
    _refuse_twice([u.field_id for u in update], updates_at, "/field_id")
    _refuse_twice([u.updated_field_id for u in update], updates_at, "/updated_field_id")
    _refuse_twice(delete, deletes_at, "")
    return replace(request, add=add, update=update, delete=delete, conflicts=_tidy_conflicts(request.conflicts))


def _tidy_conflicts(conflicts: tuple[Conflict, ...]) -> tuple[Conflict, ...]:
    return tuple(replace(c, field_id=c.field_id.removeprefix("@")) for c in conflicts)


def _tidy_fields(fields: tuple[Field, ...], at: str) -> tuple[Field, ...]:
    tidy = tuple(_tidy_field(field, f"{at}/{i}") for i, field in enumerate(fields))
    _refuse_twice([field.id for field in tidy], at, "/id")
    return tidy


def _tidy_field(field: Field, at: str) -> Field:
    if not field.source_name.strip():
        raise Error(Code.INVALID, "source_name is empty", at=f"{at}/source_name", hint="name a source column")
    return replace(field, id=parse_field_id(field.id, f"{at}/id"), type=parse_type(field.type, f"{at}/type"))


def _tidy_field_update(update: FieldUpdate, at: str) -> FieldUpdate:
    old, new = parse_field_id(update.field_id, f"{at}/field_id"), update.updated_field_id
    if new is not None:
        new = parse_field_id(new, f"{at}/updated_field_id")
    return replace(update, field_id=old, updated_field_id=new)


def _refuse_twice(ids: Sequence[str | None], at: str, member: str) -> None:
    seen: set[str] = set()
    for i, id in enumerate(ids):
        if id is None:
            continue
        if id.lower() in seen:
            raise Error(Code.INVALID, f"{id!r} comes twice in one request", at=f"{at}/{i}{member}", hint="keep one")
        seen.add(id.lower())


def ids_of(request: UpdateRequest) -> tuple[str, ...]:
    """Every field id an update names, sorted."""
    ids = {*request.delete, *(f.id for f in request.add), *(u.field_id for u in request.update)}
    ids |= {c.field_id for c in request.conflicts}
    return tuple(sorted(ids | {u.updated_field_id for u in request.update if u.updated_field_id is not None}))


def request_digest(request: CreateRequest | UpdateRequest) -> str:
    """Equal for equal tidy requests. Error: INVALID for text that is not Unicode."""
    try:
        return digest(asdict(request))
    except UnicodeEncodeError:
        message = "the request holds an unpaired surrogate"
        raise Error(Code.INVALID, message, at="/data", hint="send text as UTF-8") from None


def to_json(connection: Connection) -> dict[str, Any]:
    """Everything a connection holds, as plain JSON for storing."""
    plain: dict[str, Any] = json.loads(canonical(asdict(connection)))
    return plain


def from_json(plain: dict[str, Any]) -> Connection:
    """The connection that `to_json` wrote."""
    return Connection(
        **{
            **plain,
            "fields": tuple(_field_from_json(f) for f in plain["fields"]),
            "metadata": tuple((key, value) for key, value in plain["metadata"]),
            "applied": tuple(Applied(a["digest"], tuple(a["ids"])) for a in plain["applied"]),
        }
    )


def _field_from_json(plain: dict[str, Any]) -> Field:
    rules = plain.get("rules", {})  # mappings of before there were rules have none
    if rules:
        rules = {**rules, "nulls": Nulls(rules["nulls"]), "allowed": tuple(rules["allowed"])}
    return Field(**{**plain, "type": Type(plain["type"]), "groups": tuple(plain["groups"]), "rules": Rules(**rules)})
