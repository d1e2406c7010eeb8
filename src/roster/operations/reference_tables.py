"""Owns the reference-table operations on tables: create, list, get, delete. Rows and changes are elsewhere."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from threading import Lock
from typing import Any
from uuid import UUID

from roster.base.errors import Code, Error, did_you_mean
from roster.base.time import instant, iso_ms
from roster.base.values import canonical
from roster.model.cloud_table import SCHEMA_ERROR, VALIDATION_ERROR, error_type, origin_of, shown_status
from roster.model.held import keeps_history
from roster.model.reference_table import Table, inward, normalise_name, number_duplicates, outward
from roster.model.schema import Column, Entity, Schema
from roster.model.sync import Phase, State, Sync, Trigger
from roster.operations.bodies import decode
from roster.operations.bodies_tables import (
    CreateTableAttributes,
    CreateTableBody,
    FileMetadata,
    PatchFileMetadata,
    SchemaBody,
)
from roster.operations.context import Context, Reply, Request
from roster.operations.uploads import forget_upload, parts_of, sweep_uploads, wanted_upload
from roster.ports import Loaded, Merge

LOCAL_FILE = "LOCAL_FILE"
FILE_METADATA = "/data/attributes/file_metadata"
SCHEMA = "/data/attributes/schema"
SORTS = ("updated_at", "table_name", "status")


def create_reference_table(context: Context, request: Request) -> Reply:
    """Make a table of an uploaded file, or of one in a bucket that is synced; columns and key are as declared."""
    data = decode(CreateTableBody, request.body).data
    if data is None or data.attributes is None:
        raise Error(Code.INVALID, "the table to create is missing", at="/data/attributes")
    asked = data.attributes
    sweep_uploads(context)
    made = (
        _create_local(context, request, asked) if asked.source == LOCAL_FILE else _create_cloud(context, request, asked)
    )
    return Reply({"data": shown_table(context, made, context.store.read_sync(made.id))})


def _create_local(context: Context, request: Request, asked: CreateTableAttributes) -> Table:
    upload_id = local_upload(asked.file_metadata)
    table = _declared(context, request, asked)
    upload = wanted_upload(context, upload_id)
    made, _ = add_table(context, table, parts_of(context, upload), "csv", upload.headers, declared=True)
    forget_upload(context, upload)
    return made


def local_upload(metadata: FileMetadata | PatchFileMetadata | None) -> str:
    """The upload that a table of a local file is made of. Error: INVALID, as recorded, when none is named."""
    if metadata is None or not metadata.upload_id:
        raise Error(Code.INVALID, "upload_id is required for tables with 'LOCAL_FILE' source")
    for name in ("access_details", "sync_enabled"):
        if getattr(metadata, name) is not None:
            message = f"{name} is for tables in a bucket, and this one has {LOCAL_FILE!r} source"
            raise Error(Code.INVALID, message, at=f"{FILE_METADATA}/{name}", hint="leave it out")
    return metadata.upload_id


def _create_cloud(context: Context, request: Request, asked: CreateTableAttributes) -> Table:
    metadata = asked.file_metadata or FileMetadata()
    refuse_upload(asked.source, metadata.upload_id)
    for name in ("access_details", "sync_enabled"):
        if getattr(metadata, name) is None:
            message = f"{name} is required for tables with {asked.source!r} source"
            raise Error(Code.INVALID, message, at=f"{FILE_METADATA}/{name}")
    assert metadata.access_details is not None
    details = metadata.access_details.model_dump(exclude_none=True)
    table = replace(
        _declared(context, request, asked),
        origin=origin_of(asked.source, details),
        sync_enabled=bool(metadata.sync_enabled),
        access_details=canonical(details),
    )
    made, _ = add_table(context, table, [], "csv", declared=True)
    begin_sync(context, made)
    return made


def refuse_upload(source: str, upload_id: str | None) -> None:
    """Error: INVALID for an upload that is given to a table of a bucket."""
    if upload_id is not None:
        message = f"upload_id is for tables of uploaded files, and this one has {source!r} source"
        raise Error(Code.INVALID, message, at=f"{FILE_METADATA}/upload_id", hint="leave it out")


def begin_sync(context: Context, table: Table, *, forced: bool = False) -> None:
    """Schedule a table as it is declared now and read its source; `forced`: whatever was read before."""
    if table.origin is None:
        return
    context.syncs.declare()
    if table.sync_enabled or forced:
        context.syncs.begin(table.id, Trigger.MANUAL, forced=forced)


def _declared(context: Context, request: Request, asked: CreateTableAttributes) -> Table:
    columns = declared_columns(asked.table_schema)
    names = [c.name for c in columns]
    key = normalised(asked.table_schema.primary_keys[0], f"{SCHEMA}/primary_keys/0")
    if key not in names:
        hint = did_you_mean(key, names) or f"columns: {', '.join(names)}"
        raise Error(Code.INVALID, f"the primary key {key!r} is no column", at=f"{SCHEMA}/primary_keys/0", hint=hint)
    now_ms = context.clock.now_ms()
    return Table(
        id=context.clock.new_id(),
        name=normalised(asked.table_name, "/data/attributes/table_name"),
        columns=columns,
        primary_key=key,
        source=asked.source,
        description=asked.description or "",
        tags=tuple(asked.tags or ()),
        row_count=0,
        created_by=request.caller.id,
        updated_by=request.caller.id,
        created_ms=now_ms,
        updated_ms=now_ms,
    )


def declared_columns(schema: SchemaBody) -> Schema:
    """The columns a request declares, their names normalised and made distinct."""
    named = [normalised(field.name, f"{SCHEMA}/fields/{i}/name") for i, field in enumerate(schema.fields)]
    names = number_duplicates(named)
    return tuple(Column(name, inward(field.type)) for name, field in zip(names, schema.fields, strict=True))


def normalised(name: str, at: str) -> str:
    """A name in the documented form. Error: INVALID with its place."""
    try:
        return normalise_name(name)
    except Error as error:
        raise error.under(at) from error


def add_table(
    context: Context,
    table: Table,
    paths: list[Path],
    format: str,
    headers: Sequence[str] = (),
    *,
    declared: bool = False,
) -> tuple[Table, Loaded]:
    """Load the rows, then make the table known; a name that is taken leaves nothing behind."""
    held = reference_tables(context)
    if len(held) >= context.limits.tables_max:
        hint = "delete one, or raise the setting tables_max"
        raise Error(Code.INVALID, f"there are {len(held)} tables already", hint=hint)
    if any(t.name == table.name for t in held):
        hint = "choose another name, or delete that table"
        raise Error(Code.INVALID, f"a table named {table.name!r} exists", at="/data/attributes/table_name", hint=hint)
    merge = Merge(None, since_ms=table.created_ms if asks_history(context, table) else None)
    loaded = context.tables.create_table(table, paths, format, headers, declared=declared, merge=merge)
    made = replace(table, row_count=loaded.rows)
    try:
        context.store.add_table(made, who=table.created_by)
    except Error as error:
        context.tables.drop_table(table.id)
        if error.code is not Code.CONFLICT:
            raise
        # somebody was first meanwhile: told as if they had been before
        raise Error(Code.INVALID, error.message, at=error.at, hint=error.hint) from error
    context.sources_changed()
    return made, loaded


def asks_history(context: Context, table: Table) -> bool:
    """Whether any connection asks that what the rows of a table were is kept."""
    mappings = [context.store.read_mapping(entity) for entity in Entity]
    others = [t for t in context.store.list_tables() if t.id != table.id]
    return keeps_history(table, mappings, [*others, table])


def reference_tables(context: Context) -> list[Table]:
    """All tables but those that belong to connections."""
    return [table for table in context.store.list_tables() if not table.owner]


_CHANGING = Lock()


def change_definition(context: Context, id: str, change: Callable[[Table], Table], *, who: str) -> Table:
    """Apply a change to the definition as it is kept at this moment, with no other one between.

    Error: NOT_FOUND.
    """
    with _CHANGING:
        changed = change(find_table(context, id))
        context.store.update_table(changed, who=who)
        return changed


# showing


def shown_table(context: Context, table: Table, sync: Sync | None) -> dict[str, Any]:
    """A table as the API shows it; a closed object, so no key beyond the documented ones."""
    attributes: dict[str, Any] = {
        "created_by": table.created_by,
        "description": table.description,
        "last_updated_by": table.updated_by,
        "row_count": table.row_count,
        "schema": {
            "fields": [{"name": c.name, "type": outward(c.type)} for c in table.columns],
            "primary_keys": [table.primary_key],
        },
        "source": table.source,
        "status": shown_status(table, sync),
        "table_name": table.name,
        "tags": list(table.tags),
        "updated_at": iso_ms(instant(table.updated_ms)),
    }
    if table.origin is not None:
        attributes["file_metadata"] = {
            "access_details": json.loads(table.access_details),
            "sync_enabled": table.sync_enabled,
            **_shown_errors(context, sync),
        }
    return {"id": table.id, "type": "reference_table", "attributes": attributes}


def _shown_errors(context: Context, sync: Sync | None) -> dict[str, Any]:
    """Why the last sync failed, or what it could not read; the rows of the last good one are served."""
    run = context.store.find_run(sync.run_id) if sync and sync.run_id else None
    if run is not None and run.failure is not None and run.phase is Phase.FAILED:
        failure = run.failure
        told = f"{failure.message}; {failure.hint}" if failure.hint else failure.message
        return {"error_message": told, "error_row_count": 0, "error_type": error_type(failure, run.step)}
    misfits = run.misfits if run is not None else 0
    if sync is not None and sync.state is State.DRIFTED:
        return {"error_message": sync.reason, "error_row_count": misfits, "error_type": SCHEMA_ERROR}
    if misfits:
        told = f"{misfits} rows have cells that are no value of their column; they are kept, and read as missing"
        return {"error_message": told, "error_row_count": misfits, "error_type": VALIDATION_ERROR}
    return {}


def list_reference_tables(context: Context, request: Request) -> Reply:
    """Tables, sorted and filtered, by page."""
    limit = request.number("page[limit]", 15, 1, 100)
    offset = request.number("page[offset]", 0, 0, 2**53)
    sort = request.query.get("sort", ["-updated_at"])[-1]
    field = sort.removeprefix("-")
    if field not in SORTS:
        hint = f"allowed: {', '.join(SORTS)}, each also with '-' before it"
        raise Error(Code.INVALID, f"cannot sort by {sort!r}", at="parameter sort", hint=hint)
    syncs = {sync.table_id: sync for sync in context.store.list_syncs()}

    def rank(table: Table) -> Any:
        ranks = {"table_name": table.name, "status": shown_status(table, syncs.get(table.id))}
        return ranks.get(field, table.updated_ms)

    kept = [t for t in reference_tables(context) if _passes(t, syncs.get(t.id), request)]
    kept.sort(key=lambda t: t.id)
    kept.sort(key=rank, reverse=sort.startswith("-"))
    return Reply({"data": [shown_table(context, t, syncs.get(t.id)) for t in kept[offset : offset + limit]]})


def _passes(table: Table, sync: Sync | None, request: Request) -> bool:
    def wanted(name: str) -> str | None:
        return request.query[name][-1] if name in request.query else None

    status, exact, part = (
        wanted(n) for n in ("filter[status]", "filter[table_name][exact]", "filter[table_name][contains]")
    )
    return (
        (status is None or shown_status(table, sync) == status)
        and (exact is None or table.name == exact)
        and (part is None or part in table.name)
    )


def find_table(context: Context, id: str) -> Table:
    """The reference table of that id. Errors as recorded from the API: INVALID for no UUID, NOT_FOUND."""
    try:
        known_as = str(UUID(id))
    except ValueError as error:
        raise Error(Code.INVALID, "table ID must be a valid UUID format") from error
    table = context.store.find_table(known_as)
    if table is None or table.owner:
        raise Error(Code.NOT_FOUND, "table not found")
    return table


def get_table(context: Context, request: Request) -> Reply:
    """One table."""
    table = find_table(context, request.path["id"])
    return Reply({"data": shown_table(context, table, context.store.read_sync(table.id))})


def delete_table(context: Context, request: Request) -> Reply:
    """Remove a table and its rows; connections that read it wait for another."""
    table = find_table(context, request.path["id"])
    if table.origin is not None:
        context.syncs.forget(table.id)
    context.store.remove_table(table.id, who=request.caller.id, now_ms=context.clock.now_ms())
    context.tables.drop_table(table.id)
    context.sources_changed()
    return Reply()
