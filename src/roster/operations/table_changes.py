"""Owns the change of a reference table: what it is called, new columns, a new file, where its bucket is."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from roster.base.errors import Code, Error
from roster.base.values import canonical
from roster.model.cloud_table import merge_details, origin_of
from roster.model.reference_table import Table, column_of, outward
from roster.model.schema import Schema
from roster.operations.bodies import decode
from roster.operations.bodies_tables import (
    PatchFileMetadata,
    PatchTableAttributes,
    PatchTableBody,
    SchemaBody,
)
from roster.operations.context import Context, Reply, Request
from roster.operations.reference_tables import (
    SCHEMA,
    asks_history,
    begin_sync,
    change_definition,
    declared_columns,
    find_table,
    local_upload,
    normalised,
    refuse_upload,
)
from roster.operations.uploads import forget_upload, parts_of, sweep_uploads, wanted_upload
from roster.ports import ANEW, Merge


def update_reference_table(context: Context, request: Request) -> Reply:
    """Change a table: all of the request or nothing. A new upload replaces all rows; columns can only be added."""
    id = find_table(context, request.path["id"]).id
    data = decode(PatchTableBody, request.body).data
    if data is None:
        raise Error(Code.INVALID, "the change is missing", at="/data")
    asked = data.attributes or PatchTableAttributes()
    sweep_uploads(context)
    with _alone(id):
        table = find_table(context, id)
        upload_id = _upload_of(table, asked.file_metadata)
        changed = _changed(table, asked)
        if upload_id:
            changed = _replaced(context, request, changed, upload_id)
        elif changed != table:
            changed = _renewed(context, request, table, changed)
    if changed != table:
        context.sources_changed()
    return Reply()


_BUSY: set[str] = set()
_TAKING = threading.Lock()


@contextmanager
def _alone(id: str) -> Iterator[None]:
    """Two changes of one table would fill the same generation. Error: CONFLICT while another one is at it."""
    with _TAKING:
        if id in _BUSY:
            message = "another change of this table is under way"
            raise Error(Code.CONFLICT, message, hint="send it again when that one has been answered")
        _BUSY.add(id)
    try:
        yield
    finally:
        with _TAKING:
            _BUSY.discard(id)


def _upload_of(table: Table, metadata: PatchFileMetadata | None) -> str | None:
    """The upload that replaces the rows. Error: INVALID for metadata of another kind of source: that is fixed."""
    if metadata is None:
        return None
    if table.origin is not None:
        refuse_upload(table.source, metadata.upload_id)
        return None
    return local_upload(metadata)


def _changed(table: Table, asked: PatchTableAttributes) -> Table:
    """The definition with what a request asks for; rows aside."""
    changed = table
    if asked.description is not None:
        changed = replace(changed, description=asked.description)
    if asked.tags is not None:
        changed = replace(changed, tags=tuple(asked.tags))
    if asked.table_schema is not None:
        changed = replace(changed, columns=_widened(table, asked.table_schema))
    if table.origin is not None and asked.file_metadata is not None:
        changed = _relocated(changed, asked.file_metadata)
    return changed


def _widened(table: Table, schema: SchemaBody) -> Schema:
    """The columns with new ones after them. Errors: INVALID for a changed key, a changed or missing column."""
    key = normalised(schema.primary_keys[0], f"{SCHEMA}/primary_keys/0")
    if key != table.primary_key:
        message = f"the primary key is {table.primary_key!r} and stays so"
        raise Error(Code.INVALID, message, at=f"{SCHEMA}/primary_keys/0", hint=f"give {table.primary_key!r}")
    given = declared_columns(schema)
    names = [column.name for column in given]
    missing = next((c.name for c in table.columns if c.name not in names), None)
    if missing is not None:
        hint = (
            f"columns can only be added, not renamed or removed; there are: {', '.join(c.name for c in table.columns)}"
        )
        raise Error(Code.INVALID, f"the column {missing!r} is missing", at=f"{SCHEMA}/fields", hint=hint)
    for i, column in enumerate(given):
        known = column_of(table, column.name)
        if known is not None and outward(known.type) != outward(column.type):
            message = f"the column {column.name!r} is {outward(known.type)} and stays so"
            raise Error(Code.INVALID, message, at=f"{SCHEMA}/fields/{i}/type", hint=f"give {outward(known.type)}")
    new = tuple(column for column in given if column_of(table, column.name) is None)
    return (*table.columns, *new)


def _relocated(table: Table, metadata: PatchFileMetadata) -> Table:
    """The table with another place of its file, or another say about its schedule."""
    if metadata.sync_enabled is not None:
        table = replace(table, sync_enabled=metadata.sync_enabled)
    if metadata.access_details is not None:
        given = metadata.access_details.model_dump(exclude_none=True)
        details = merge_details(json.loads(table.access_details), given)
        table = replace(table, origin=origin_of(table.source, details), access_details=canonical(details))
    return table


def _replaced(context: Context, request: Request, table: Table, upload_id: str) -> Table:
    """Fill the next generation from an upload, then name it together with all else that changed."""
    upload = wanted_upload(context, upload_id)
    now_ms = context.clock.now_ms()
    filled = replace(table, generation=table.generation + 1, held=(), updated_ms=now_ms)
    merge = Merge(find_table(context, table.id), since_ms=now_ms) if asks_history(context, table) else ANEW
    paths = parts_of(context, upload)
    loaded = context.tables.create_table(filled, paths, "csv", upload.headers, declared=True, merge=merge)

    def name(kept: Table) -> Table:
        return _stamped(request, replace(filled, row_count=loaded.rows), kept, now_ms)

    changed = change_definition(context, table.id, name, who=request.caller.id)
    forget_upload(context, upload)
    return changed


def _renewed(context: Context, request: Request, before: Table, table: Table) -> Table:
    """Keep a definition whose rows stay; a cloud table that reads something else now is synced."""
    now_ms = context.clock.now_ms()

    def name(kept: Table) -> Table:
        rows = replace(table, generation=kept.generation, row_count=kept.row_count, held=kept.held)
        if table.columns != before.columns:
            context.tables.add_columns(rows)
        return _stamped(request, rows, kept, now_ms)

    changed = change_definition(context, table.id, name, who=request.caller.id)
    if (table.origin, table.columns) != (before.origin, before.columns):
        begin_sync(context, changed, forced=True)
    elif table.sync_enabled != before.sync_enabled:
        begin_sync(context, changed)
    return changed


def _stamped(request: Request, table: Table, kept: Table, now_ms: int) -> Table:
    return replace(table, updated_by=request.caller.id, updated_ms=max(kept.updated_ms, now_ms))
