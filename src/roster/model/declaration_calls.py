"""Owns which requests of the API carry out a step, as values; sends none of them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from roster.base.errors import Code, Error
from roster.model.declaration import DeclaredConnection, DeclaredField, DeclaredSegment, DeclaredTable
from roster.model.declaration_steps import ConnectionStep, FieldStep, SegmentStep, Step, TableStep, Verb, field_changes
from roster.model.schema import Entity

TABLES = "/api/v2/reference-tables/tables"
SEGMENTS = "/api/v2/rum/segment"


@dataclass(frozen=True, slots=True)
class Call:
    """One request; `done` are statuses other than 2xx that mean it is done already."""

    verb: str
    path: str
    body: Any = None
    done: tuple[int, ...] = ()


def mapping_path(entity: Entity) -> str:
    return f"/api/v2/product-analytics/{entity.value}/mapping"


def calls_of(step: Step, *, bare: bool) -> tuple[Call, ...]:
    """The requests of a step, in order; sending them again after an interruption does no harm.

    `bare`: the far end may not delete and add one id in one request, so these are two.
    """
    match step:
        case ConnectionStep():
            return _connection_calls(step, bare)
        case TableStep():
            return (_table_call(step),)
        case SegmentStep():
            return (_segment_call(step),)


def _connection_calls(step: ConnectionStep, bare: bool) -> tuple[Call, ...]:
    path = f"{mapping_path(step.entity)}/connection"
    remove = Call("DELETE", f"{path}/{quote(step.id, safe='')}", done=(404,))
    match step.verb:
        case Verb.DELETE:
            return (remove,)
        case Verb.CREATE if step.now:
            return (Call("POST", path, create_body(step.now)),)
        case Verb.REPLACE if step.now:
            return (remove, Call("POST", path, create_body(step.now)))
        case Verb.UPDATE:
            return tuple(Call("PUT", path, body) for body in update_bodies(step, bare=bare))
    raise Error(Code.INTERNAL, f"no request does {step.verb} of connection {step.id}")


def create_body(c: DeclaredConnection) -> dict[str, Any]:
    """The body that makes a connection."""
    attributes: dict[str, Any] = {"type": c.type, "join_type": c.join_type, "join_attribute": c.join_attribute}
    if c.metadata:
        attributes["metadata"] = dict(c.metadata)
    return _connection_body(c.id, attributes | {"fields": [_field(f) for f in c.fields]})


def update_bodies(step: ConnectionStep, *, bare: bool) -> list[dict[str, Any]]:
    """The bodies that update a connection: one, or with `bare` two when an id is deleted and added again."""
    remade = [f for f in step.fields if f.verb is Verb.REPLACE]
    gone = [f.was.id for f in step.fields if f.verb in (Verb.DELETE, Verb.REPLACE) and f.was]
    moved = [_field_update(f) for f in step.fields if f.verb in (Verb.RENAME, Verb.UPDATE)]
    come = [_field(f.now) for f in step.fields if f.verb in (Verb.CREATE, Verb.REPLACE) and f.now]
    rest: dict[str, list[Any]] = {"fields_to_update": moved, "fields_to_add": come}
    parts: list[dict[str, list[Any]]] = (
        [{"fields_to_delete": gone}, rest] if bare and remade else [{"fields_to_delete": gone} | rest]
    )
    return [_connection_body(step.id, {name: given for name, given in part.items() if given}) for part in parts]


def _connection_body(id: str, attributes: dict[str, Any]) -> dict[str, Any]:
    return {"data": {"type": "connection_id", "id": id, "attributes": attributes}}


def _field(f: DeclaredField) -> dict[str, Any]:
    plain: dict[str, Any] = {"id": f.id, "source_name": f.source_name, "type": f.type}
    told = {"display_name": f.display_name, "description": f.description, "groups": list(f.groups)}
    return plain | {name: value for name, value in told.items() if value} | {n: json.loads(t) for n, t in f.rules}


def _field_update(step: FieldStep) -> dict[str, Any]:
    assert step.was is not None and step.now is not None
    changed = {f"updated_{name}": change["after"] for name, change in field_changes(step).items()}
    renamed = {"updated_field_id": step.now.id} if step.now.id != step.was.id else {}
    return {"field_id": step.was.id} | renamed | {name: value for name, value in changed.items() if value is not None}


def _table_call(step: TableStep) -> Call:
    table = step.now
    assert table is not None
    if step.verb is Verb.CREATE:
        fixed = {"table_name": table.name, "source": table.source, "schema": _schema(table)}
        told = {"description": table.description, "tags": list(table.tags), "file_metadata": _file(table)}
        return Call("POST", TABLES, _table_body(fixed | told))
    assert step.was is not None
    attributes: dict[str, Any] = {"description": table.description, "tags": list(table.tags)}
    if table.columns != step.was.columns:
        attributes["schema"] = _schema(table)
    if (table.access_details, table.sync_enabled) != (step.was.access_details, step.was.sync_enabled):
        attributes["file_metadata"] = _file(table)
    return Call("PATCH", f"{TABLES}/{quote(step.was.id, safe='')}", _table_body(attributes))


def _table_body(attributes: dict[str, Any]) -> dict[str, Any]:
    return {"data": {"type": "reference_table", "attributes": attributes}}


def _schema(table: DeclaredTable) -> dict[str, Any]:
    return {
        "fields": [{"name": name, "type": type} for name, type in table.columns],
        "primary_keys": [table.primary_key],
    }


def _file(table: DeclaredTable) -> dict[str, Any]:
    return {"access_details": json.loads(table.access_details or "{}"), "sync_enabled": bool(table.sync_enabled)}


def _segment_call(step: SegmentStep) -> Call:
    match step:
        case SegmentStep(Verb.DELETE, _, was) if was:
            return Call("DELETE", f"{SEGMENTS}/{quote(was.id, safe='')}", done=(404,))
        case SegmentStep(Verb.CREATE, _, _, now) if now:
            return Call("POST", SEGMENTS, {"data": {"type": "segment", "attributes": _segment(now)}})
        case SegmentStep(_, _, _, now) if now:
            body = {"data": {"id": now.id, "type": "segment", "attributes": _segment(now)}}
            return Call("PUT", f"{SEGMENTS}/{quote(now.id, safe='')}", body)
    raise Error(Code.INTERNAL, f"no request does {step.verb} of segment {step.name}")


def _segment(s: DeclaredSegment) -> dict[str, Any]:
    query = json.loads(s.data_query)
    return {"name": s.name, "description": s.description, "tags": list(s.tags), "data_query": query}
