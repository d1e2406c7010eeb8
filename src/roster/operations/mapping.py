"""Owns the mapping operations: create, update, delete and list connections, get the mapping, its versions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from roster.base.errors import Code, Error
from roster.base.time import instant, iso_ms
from roster.model.connection import Connection, CreateRequest, Field, FieldUpdate, UpdateRequest, parse_type
from roster.model.mapping import Mapping, Version, attributes, create, delete, update
from roster.model.schema import Entity, Schema, Type
from roster.operations.bodies import (
    CreateConnectionBody,
    FieldBody,
    UpdateConnectionAttributes,
    UpdateConnectionBody,
    decode,
)
from roster.operations.context import Context, Reply, Request, entity_of
from roster.operations.profiles import envelope, sources_of

SHOWN_TYPES = {Type.INTEGER: "number"}
"""Types as the mapping shows them, where they differ from ours."""


def create_connection(context: Context, request: Request) -> Reply:
    """Bring columns of a source into the profiles of an entity."""
    entity = entity_of(request)
    data = decode(CreateConnectionBody, request.body).data
    if data is None or data.attributes is None:
        raise Error(Code.INVALID, "the connection to create is missing", at="/data/attributes")
    asked = data.attributes
    wanted = CreateRequest(
        data.id or "",
        asked.type,
        asked.join_type,
        asked.join_attribute,
        tuple(_field(f, f"/data/attributes/fields/{i}") for i, f in enumerate(asked.fields or [])),
        tuple(sorted((asked.metadata or {}).items())),
    )

    def change(mapping: Mapping) -> Mapping:
        made = create(mapping, wanted, who=request.caller.id, now_ms=now_ms, source_columns=None, fields_max=fields_max)
        new = next((c for c in made.connections if c not in mapping.connections), None)
        columns = _source_columns(context, made, new.id) if new else None
        if columns is None:
            return made
        return create(
            mapping, wanted, who=request.caller.id, now_ms=now_ms, source_columns=columns, fields_max=fields_max
        )

    now_ms, fields_max = context.clock.now_ms(), context.limits.fields_max
    return _commit(context, request, entity, change, now_ms)


def update_connection(context: Context, request: Request) -> Reply:
    """Delete, rename and add fields of a connection in one step: all of it or nothing."""
    entity = entity_of(request)
    data = decode(UpdateConnectionBody, request.body).data
    if data is None:
        raise Error(Code.INVALID, "the connection to update is missing", at="/data", hint="name it in /data/id")
    asked = data.attributes or UpdateConnectionAttributes()
    at = "/data/attributes/fields_to_add"
    wanted = UpdateRequest(
        data.id,
        tuple(_field(f, f"{at}/{i}") for i, f in enumerate(asked.fields_to_add or [])),
        tuple(
            FieldUpdate(
                u.field_id,
                u.updated_field_id,
                u.updated_display_name,
                u.updated_description,
                tuple(u.updated_groups) if u.updated_groups is not None else None,
            )
            for u in asked.fields_to_update or []
        ),
        tuple(asked.fields_to_delete or []),
    )

    def change(mapping: Mapping) -> Mapping:
        columns = _source_columns(context, mapping, data.id)
        return update(
            mapping, wanted, who=request.caller.id, now_ms=now_ms, source_columns=columns, fields_max=fields_max
        )

    now_ms, fields_max = context.clock.now_ms(), context.limits.fields_max
    return _commit(context, request, entity, change, now_ms)


def delete_connection(context: Context, request: Request) -> Reply:
    """Take a connection and its fields out of the mapping; its source stays."""
    id = request.path["id"]
    return _commit(
        context,
        request,
        entity_of(request),
        lambda mapping: delete(mapping, id),
        context.clock.now_ms(),
        {"delete": id},
    )


def _commit(
    context: Context,
    request: Request,
    entity: Entity,
    change: Callable[[Mapping], Mapping],
    now_ms: int,
    kept: Any = None,
) -> Reply:
    """Apply a change as the next version, unless If-Match names another than the present one."""

    def guarded(mapping: Mapping) -> Mapping:
        changed = change(mapping)
        wanted = request.headers.get("if-match")
        if changed != mapping and wanted is not None and not _matches(wanted, mapping.version):
            hint = "read the mapping again and repeat the change on it"
            message = f"the mapping has version {etag(mapping.version)}, not {wanted}"
            raise Error(Code.STALE, message, at="header If-Match", hint=hint)
        return changed

    mapping = context.store.change_mapping(
        entity,
        guarded,
        who=request.caller.id,
        why=request.headers.get("x-roster-reason", ""),
        request=kept if kept is not None else request.body.decode(),
        now_ms=now_ms,
    )
    context.sources_changed()
    return Reply(headers={"etag": etag(mapping.version)})


def _matches(if_match: str, version: int) -> bool:
    """Whether an If-Match header names a version: `*`, or tags with commas between, weak ones too."""
    tags = [tag.strip().removeprefix("W/") for tag in if_match.split(",")]
    return "*" in tags or etag(version) in tags


def etag(version: int) -> str:
    """A mapping version as an entity tag."""
    return f'"{version}"'


def _field(body: FieldBody, at: str) -> Field:
    return Field(
        body.id,
        body.source_name,
        parse_type(body.type, f"{at}/type"),
        body.display_name or "",
        body.description or "",
        tuple(body.groups or ()),
    )


def _source_columns(context: Context, mapping: Mapping, connection_id: str) -> Schema | None:
    """The columns of a connection's source, None while it waits."""
    table = sources_of(mapping, context.store.list_tables()).get(connection_id)
    return table.columns if table else None


def get_mapping(context: Context, request: Request) -> Reply:
    """Every attribute of an entity: built-ins under their id, custom ones as `@id`."""
    entity = entity_of(request)
    mapping = context.store.read_mapping(entity, _version(request))
    shown = [
        {
            "attribute": a.id,
            "display_name": a.display_name,
            "description": a.description,
            "groups": list(a.groups),
            "is_custom": a.is_custom,
            "type": SHOWN_TYPES.get(a.type, a.type.value),
        }
        for a in attributes(mapping)
    ]
    body = envelope("get_mappings_response", "get_mappings_response", {"attributes": shown})
    return Reply(body, {"etag": etag(mapping.version)})


def _version(request: Request) -> int | None:
    return request.number("version", 0, 0, 2**53) if "version" in request.query else None


def list_connections(context: Context, request: Request) -> Reply:
    """The connections of an entity with their fields and what they are waiting for."""
    mapping = context.store.read_mapping(entity_of(request))
    sources = sources_of(mapping, context.store.list_tables())
    shown = [_shown_connection(mapping, c, c.id in sources, context) for c in mapping.connections]
    body = envelope("list_connections_response", "list_connections_response", {"connections": shown})
    return Reply(body, {"etag": etag(mapping.version)})


def _shown_connection(mapping: Mapping, connection: Connection, held: bool, context: Context) -> dict[str, Any]:
    now_ms = context.clock.now_ms()
    live = [
        a for a in mapping.aliases if a.connection_id == connection.id and now_ms < a.at_ms + context.limits.alias_ms()
    ]
    state = {"roster_state": "ok"} if held else {"roster_state": "waiting", "roster_waits_for": _waits_for(connection)}
    aliases = {"roster_aliases": ", ".join(f"{a.old_id} -> {a.new_id}" for a in live)} if live else {}
    return {
        "id": connection.id,
        "type": connection.type,
        "join": {"attribute": connection.join_attribute, "type": connection.join_type},
        "fields": [
            {
                "id": f.id,
                "source_name": f.source_name,
                "type": f.type.value,
                "display_name": f.display_name,
                "description": f.description,
                "groups": list(f.groups),
            }
            for f in connection.fields
        ],
        "metadata": dict(connection.metadata) | state | aliases,
        "created_at": iso_ms(instant(connection.created_ms)),
        "created_by": connection.created_by,
        "updated_at": iso_ms(instant(connection.updated_ms)),
        "updated_by": connection.updated_by,
    }


def _waits_for(connection: Connection) -> str:
    named = dict(connection.metadata)
    return f"reference table {named.get('table_id') or named.get('table_name') or connection.id}"


def list_mapping_versions(context: Context, request: Request) -> Reply:
    """Every version of the mapping, newest first: who, when, why, the request and what it changed."""
    versions = context.store.list_versions(entity_of(request))
    return Reply(envelope("mapping_versions", "mapping_versions", {"versions": [_shown_version(v) for v in versions]}))


def _shown_version(version: Version) -> dict[str, Any]:
    return {
        "version": version.version,
        "at": iso_ms(instant(version.at_ms)),
        "who": version.who,
        "why": version.why,
        "request": version.request,
        "diff": [{"at": d.at, "before": d.before, "after": d.after} for d in version.diff],
    }
