"""Owns the mapping operations: create, update, delete and list connections, get the mapping; how a change is kept."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping as Map, Sequence
from typing import Any

from roster.base.errors import Code, Error
from roster.base.time import instant, iso_ms
from roster.model.changes import create, delete, draft, update, warnings
from roster.model.connection import REFERENCE_TABLE, Connection, CreateRequest, Field, UpdateRequest
from roster.model.held import is_reference, sources_of, tables_of
from roster.model.mapping import Mapping, attributes, traits
from roster.model.reference_table import Table
from roster.model.rules import NO_RULES, Conflict
from roster.model.schema import Entity, Type
from roster.model.source import find_kind, parse_origin
from roster.model.sync import State, Sync, Trigger
from roster.operations.bodies import CreateConnectionBody, UpdateConnectionBody
from roster.operations.connection_requests import read_create, read_update, unknown_members
from roster.operations.context import Context, Reply, Request, entity_of
from roster.operations.preview import preview
from roster.operations.profiles import envelope
from roster.operations.uses import shown_aliases
from roster.sync.coverage import counted_for
from roster.sync.state import connection_state

SHOWN_TYPES = {Type.INTEGER: "number"}
"""Types as the mapping shows them, where they differ from ours."""


def create_connection(context: Context, request: Request) -> Reply:
    """Bring columns of a source into the profiles of an entity."""
    entity = entity_of(request)
    wanted = read_create(request.body)

    def change(mapping: Mapping) -> Mapping:
        return create_on(context, mapping, wanted, context.store.list_tables(), request.caller.id, now_ms)

    check_source(context, wanted.type, wanted.metadata)
    now_ms = context.clock.now_ms()

    def warn(_: Mapping) -> tuple[str, ...]:
        return unknown_members(request.body, CreateConnectionBody)

    return commit(context, request, entity, change, now_ms, warn=warn, then=context.syncs.declare)


def update_connection(context: Context, request: Request) -> Reply:
    """Delete, rename and add fields of a connection in one step: all of it or nothing."""
    entity = entity_of(request)
    wanted = read_update(request.body)

    def change(mapping: Mapping) -> Mapping:
        return update_on(context, mapping, wanted, context.store.list_tables(), request.caller.id, now_ms)

    now_ms = context.clock.now_ms()

    def resume() -> None:
        resume_paused(context, entity, wanted.connection_id)

    def warn(mapping: Mapping) -> tuple[str, ...]:
        return (*unknown_members(request.body, UpdateConnectionBody), *warnings(mapping, wanted))

    return commit(context, request, entity, change, now_ms, warn=warn, then=resume)


def check_source(context: Context, type: str, metadata: Iterable[tuple[str, str]]) -> None:
    """Error: FORBIDDEN, INVALID for an outside source that may not be read; other types are told by the change."""
    if type != REFERENCE_TABLE and find_kind(type) is not None:
        context.sources.check(parse_origin(type, dict(metadata)))


def create_on(
    context: Context, mapping: Mapping, wanted: CreateRequest, tables: Sequence[Table], who: str, now_ms: int
) -> Mapping:
    """The mapping with a new connection, held against the table behind it. Errors: as `create`."""
    new = draft(mapping.entity, wanted)
    table = sources_of(Mapping(mapping.entity, 0, (new,)), tables).get(new.id)
    return create(
        mapping,
        wanted,
        who=who,
        now_ms=now_ms,
        source_columns=table.columns if table else None,
        primary_key=table.primary_key if table else "",
        fields_max=context.limits.fields_max,
    )


def update_on(
    context: Context, mapping: Mapping, wanted: UpdateRequest, tables: Sequence[Table], who: str, now_ms: int
) -> Mapping:
    """The mapping after an update, held against the table behind the connection. Errors: as `update`."""
    table = sources_of(mapping, tables).get(wanted.connection_id)
    return update(
        mapping,
        wanted,
        who=who,
        now_ms=now_ms,
        source_columns=table.columns if table else None,
        primary_key=table.primary_key if table else "",
        fields_max=context.limits.fields_max,
    )


def resume_paused(context: Context, entity: Entity, connection_id: str) -> None:
    """A changed field may take what a paused one did not: look at the source again."""
    mapping = context.store.read_mapping(entity)
    table = tables_of(mapping, context.store.list_tables()).get(connection_id)
    sync = context.store.read_sync(table.id) if table and table.origin else None
    if sync is not None and sync.drifts:
        context.syncs.begin(sync.table_id, Trigger.MAPPING, forced=True)


def delete_connection(context: Context, request: Request) -> Reply:
    """Take a connection and its fields out of the mapping; its source stays."""
    id = request.path["id"]
    now_ms = context.clock.now_ms()
    kept = {"delete": id}
    return commit(
        context, request, entity_of(request), lambda m: delete(m, id), now_ms, kept=kept, then=context.syncs.declare
    )


def commit(
    context: Context,
    request: Request,
    entity: Entity,
    change: Callable[[Mapping], Mapping],
    now_ms: int,
    *,
    then: Callable[[], None],
    kept: Any = None,
    warn: Callable[[Mapping], tuple[str, ...]] = lambda _: (),
) -> Reply:
    """Apply a change as the next version, unless If-Match names another than the present one; `then` do this.

    A dry run stops before: it answers what would change, and what `warn` says of the present mapping.
    """

    def guarded(mapping: Mapping) -> Mapping:
        changed = change(mapping)
        wanted = request.headers.get("if-match")
        if changed != mapping and wanted is not None and not _matches(wanted, mapping.version):
            hint = "read the mapping again and repeat the change on it"
            message = f"the mapping has version {etag(mapping.version)}, not {wanted}"
            raise Error(Code.STALE, message, at="header If-Match", hint=hint)
        return changed

    if request.flag("dry_run"):
        present = context.store.read_mapping(entity)
        return preview(context, request, present, guarded(present), warn(present))
    mapping = context.store.change_mapping(
        entity,
        guarded,
        who=request.caller.id,
        why=request.headers.get("x-roster-reason", ""),
        request=kept if kept is not None else request.body.decode(),
        now_ms=now_ms,
    )
    context.sources_changed()
    then()
    return Reply(headers={"etag": etag(mapping.version)})


def _matches(if_match: str, version: int) -> bool:
    """Whether an If-Match header names a version: `*`, or tags with commas between, weak ones too."""
    tags = [tag.strip().removeprefix("W/") for tag in if_match.split(",")]
    return "*" in tags or etag(version) in tags


def etag(version: int) -> str:
    """A mapping version as an entity tag."""
    return f'"{version}"'


def get_mapping(context: Context, request: Request) -> Reply:
    """Every attribute of an entity: built-ins under their id, custom ones as `@id`."""
    entity = entity_of(request)
    mapping = context.store.read_mapping(entity, request.version("version"))
    shown = [
        {
            "attribute": a.id,
            "display_name": a.display_name,
            "description": a.description,
            "groups": list(a.groups),
            "is_custom": a.is_custom,
            "type": SHOWN_TYPES.get(a.type, a.type.value),
        }
        for a in (*attributes(mapping), *traits(mapping, context.events.read_traits(mapping.entity)))
    ]
    body = envelope("get_mappings_response", "get_mappings_response", {"attributes": shown})
    return Reply(body, {"etag": etag(mapping.version)})


def list_connections(context: Context, request: Request) -> Reply:
    """The connections of an entity with their fields, and the state of each since when and why."""
    mapping = context.store.read_mapping(entity_of(request), request.version("version"))
    tables = tables_of(mapping, context.store.list_tables())
    syncs = {s.table_id: s for s in context.store.list_syncs()}
    shown = [_shown_connection(mapping, c, tables.get(c.id), syncs, context) for c in mapping.connections]
    body = envelope("list_connections_response", "list_connections_response", {"connections": shown})
    return Reply(body, {"etag": etag(mapping.version)})


def _shown_connection(
    mapping: Mapping, connection: Connection, table: Table | None, syncs: Map[str, Sync], context: Context
) -> dict[str, Any]:
    conflicts = {c.field_id: c for c in mapping.conflicts}
    sync = syncs.get(table.id) if table else None
    old_ids = shown_aliases(context, mapping, connection.id)
    aliases = {"roster_aliases": old_ids} if old_ids else {}
    return {
        "id": connection.id,
        "type": connection.type,
        "join": {"attribute": connection.join_attribute, "type": connection.join_type},
        "fields": [shown_field(f, conflicts.get(f.id)) for f in connection.fields],
        "metadata": dict(connection.metadata) | _shown_state(mapping, connection, table, sync) | aliases,
        "created_at": iso_ms(instant(connection.created_ms)),
        "created_by": connection.created_by,
        "updated_at": iso_ms(instant(connection.updated_ms)),
        "updated_by": connection.updated_by,
    }


def shown_field(field: Field, conflict: Conflict | None) -> dict[str, Any]:
    """A field as it is listed, which is how it could be added."""
    return {
        "id": field.id,
        "source_name": field.source_name,
        "type": field.type.value,
        "display_name": field.display_name,
        "description": field.description,
        "groups": list(field.groups),
    } | _shown_rules(field, conflict)


def _shown_rules(field: Field, conflict: Conflict | None) -> dict[str, Any]:
    """Only the rules that were given: a field without them is shown as the contract has it."""
    rules = {"null_rule": field.rules.nulls.value} if field.rules.nulls is not NO_RULES.nulls else {}
    allowed = {"allowed_values": list(field.rules.allowed)} if field.rules.allowed else {}
    pattern = {"pattern": field.rules.pattern} if field.rules.pattern else {}
    agreed = {"conflict": {"rule": conflict.choice.value, "order": list(conflict.order)}} if conflict else {}
    return rules | allowed | pattern | agreed


def _shown_state(mapping: Mapping, connection: Connection, table: Table | None, sync: Sync | None) -> dict[str, str]:
    """State, since when, why, and what the last sync matched; texts, as metadata must be."""
    state, reason, since_ms = connection_state(mapping, connection, table, sync, _waits_for(connection))
    shown = {"roster_state": state.value, "roster_since": iso_ms(instant(since_ms or connection.created_ms))}
    if state is State.WAITING and is_reference(connection) and table is None:
        shown["roster_waits_for"] = _waits_for(connection)
    if reason:
        shown["roster_reason"] = reason
    if sync is not None and sync.synced_ms is not None:
        shown["roster_synced"] = iso_ms(instant(sync.synced_ms))
    for c in sync.coverage if sync else ():
        if counted_for(c, mapping.entity, connection):
            shown["roster_profiles_matched"] = f"{c.profiles_matched} of {c.profiles}"
            shown["roster_cells_quarantined"] = str(c.quarantined)
    return shown


def _waits_for(connection: Connection) -> str:
    named = dict(connection.metadata)
    if not is_reference(connection):
        return f"the first sync of {connection.type}"
    return f"reference table {named.get('table_id') or named.get('table_name') or connection.id}"
