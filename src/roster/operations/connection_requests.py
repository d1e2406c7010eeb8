"""Owns reading the bodies that create and update connections as requests of the model; changes nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, get_args

from pydantic import BaseModel

from roster.base.errors import Code, Error, did_you_mean
from roster.model.bulk import COLUMN, parse_naming
from roster.model.connection import Bulk, CreateRequest, Field, FieldUpdate, UpdateRequest, parse_type
from roster.model.rules import (
    NO_RULES,
    Conflict,
    Rules,
    parse_allowed,
    parse_choice,
    parse_nulls,
    parse_order,
    parse_pattern,
)
from roster.operations.bodies import (
    BulkBody,
    ConflictBody,
    CreateConnectionBody,
    FieldBody,
    FieldUpdateBody,
    UpdateConnectionAttributes,
    UpdateConnectionBody,
    decode,
)

AT = "/data/attributes"


def unknown_members(body: bytes, model: type[BaseModel]) -> tuple[str, ...]:
    """For a preview: members that nobody reads; clients may send more than we know, people mistype."""
    return tuple(_unknown(json.loads(body), model, ""))


def _unknown(value: Any, model: type[BaseModel], at: str) -> Iterator[str]:
    known = {field.alias or name: field.annotation for name, field in model.model_fields.items()}
    for name, inner in value.items():
        if name not in known:
            hint = did_you_mean(name, known)
            yield f"nothing reads {at}/{name}" + (f"; {hint}" if hint else "")
            continue
        below = next((t for t in _types(known[name]) if isinstance(t, type) and issubclass(t, BaseModel)), None)
        if below is not None:
            items = inner if isinstance(inner, list) else [inner]
            for i, item in enumerate(items):
                if isinstance(item, dict):
                    yield from _unknown(item, below, f"{at}/{name}" + (f"/{i}" if isinstance(inner, list) else ""))


def _types(annotation: Any) -> Iterator[Any]:
    yield annotation
    for part in get_args(annotation):
        yield from _types(part)


def read_create(body: bytes) -> CreateRequest:
    """What a body asks to create. Errors: INVALID with the place."""
    data = decode(CreateConnectionBody, body).data
    if data is None or data.attributes is None:
        raise Error(Code.INVALID, "the connection to create is missing", at=AT)
    asked, at = data.attributes, f"{AT}/fields"
    given = asked.fields or []
    return CreateRequest(
        data.id or "",
        asked.type,
        asked.join_type,
        asked.join_attribute,
        tuple(_field(f, f"{at}/{i}") for i, f in enumerate(given)),
        tuple(sorted((asked.metadata or {}).items())),
        _conflicts([(f.id, f.conflict, f"{at}/{i}/conflict") for i, f in enumerate(given)]),
        _bulk(asked.fields_from_columns),
    )


def read_update(body: bytes) -> UpdateRequest:
    """What a body asks to change. Errors: INVALID with the place."""
    data = decode(UpdateConnectionBody, body).data
    if data is None:
        raise Error(Code.INVALID, "the connection to update is missing", at="/data", hint="name it in /data/id")
    asked = data.attributes or UpdateConnectionAttributes()
    add, update = asked.fields_to_add or [], asked.fields_to_update or []
    add_at, update_at = f"{AT}/fields_to_add", f"{AT}/fields_to_update"
    conflicts = [(f.id, f.conflict, f"{add_at}/{i}/conflict") for i, f in enumerate(add)]
    conflicts += [
        (u.updated_field_id or u.field_id, u.updated_conflict, f"{update_at}/{i}/updated_conflict")
        for i, u in enumerate(update)
    ]
    return UpdateRequest(
        data.id,
        tuple(_field(f, f"{add_at}/{i}") for i, f in enumerate(add)),
        tuple(_field_update(u, f"{update_at}/{i}") for i, u in enumerate(update)),
        tuple(asked.fields_to_delete or []),
        _conflicts(conflicts),
        _bulk(asked.fields_from_columns),
    )


def _field(body: FieldBody, at: str) -> Field:
    rules = Rules(
        NO_RULES.nulls if body.null_rule is None else parse_nulls(body.null_rule, f"{at}/null_rule"),
        parse_allowed(body.allowed_values or [], f"{at}/allowed_values"),
        parse_pattern(body.pattern or "", f"{at}/pattern"),
    )
    return Field(
        body.id,
        body.source_name,
        parse_type(body.type, f"{at}/type"),
        body.display_name or "",
        body.description or "",
        tuple(body.groups or ()),
        rules,
    )


def _field_update(body: FieldUpdateBody, at: str) -> FieldUpdate:
    type, nulls, allowed, pattern = (
        body.updated_type,
        body.updated_null_rule,
        body.updated_allowed_values,
        body.updated_pattern,
    )
    return FieldUpdate(
        body.field_id,
        body.updated_field_id,
        body.updated_display_name,
        body.updated_description,
        tuple(body.updated_groups) if body.updated_groups is not None else None,
        parse_type(type, f"{at}/updated_type") if type is not None else None,
        parse_nulls(nulls, f"{at}/updated_null_rule") if nulls is not None else None,
        parse_allowed(allowed, f"{at}/updated_allowed_values") if allowed is not None else None,
        parse_pattern(pattern, f"{at}/updated_pattern") if pattern is not None else None,
    )


def _conflicts(given: list[tuple[str, ConflictBody | None, str]]) -> tuple[Conflict, ...]:
    return tuple(
        Conflict(id, parse_choice(body.rule, f"{at}/rule"), parse_order(body.order or [], f"{at}/order"))
        for id, body, at in given
        if body is not None
    )


def _bulk(body: BulkBody | None) -> Bulk | None:
    if body is None:
        return None
    naming = parse_naming(body.naming, f"{AT}/fields_from_columns/naming") if body.naming is not None else COLUMN
    return Bulk(tuple(body.but or ()), naming)
