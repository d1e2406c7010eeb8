"""Owns the reference-table operations: create, get, list, delete, and their rows."""

from __future__ import annotations

import base64
import binascii
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote
from uuid import UUID

from roster.base.errors import Code, Error, did_you_mean
from roster.base.time import instant, iso_ms
from roster.model.reference_table import (
    Row,
    Table,
    check_values,
    inward,
    normalise_name,
    normalise_names,
    outward,
)
from roster.model.schema import Column
from roster.operations.bodies import decode
from roster.operations.bodies_tables import CreateTableAttributes, CreateTableBody, DeleteRowsBody, UpsertRowsBody
from roster.operations.context import Context, Reply, Request
from roster.operations.uploads import parts_of
from roster.ports import Loaded

SORTS = {"updated_at": "updated_ms", "table_name": "name", "status": "status"}
ROWS_LISTED_MAX = 10_000_000


def create_reference_table(context: Context, request: Request) -> Reply:
    """Make a table of an uploaded file; columns and primary key are as declared."""
    data = decode(CreateTableBody, request.body).data
    if data is None or data.attributes is None:
        raise Error(Code.INVALID, "the table to create is missing", at="/data/attributes")
    asked = data.attributes
    if asked.source != "LOCAL_FILE":
        raise Error(
            Code.UNSUPPORTED,
            f"source {asked.source} is not supported yet",
            at="/data/attributes/source",
            hint="LOCAL_FILE with an upload_id works",
        )
    metadata = asked.file_metadata
    if metadata is None or not metadata.upload_id:
        raise Error(Code.INVALID, "upload_id is required for tables with 'LOCAL_FILE' source")
    table = _declared(context, request, asked)
    upload = context.store.find_upload(metadata.upload_id)
    if upload is None:
        at = "/data/attributes/file_metadata/upload_id"
        raise Error(Code.INVALID, f"unknown upload {metadata.upload_id!r}", at=at, hint="create an upload first")
    paths = parts_of(context, upload)
    made, _ = add_table(context, table, paths, "csv", upload.headers, declared=True)
    shutil.rmtree(context.uploads / upload.id, ignore_errors=True)  # another table of this upload may be first
    return Reply({"data": shown_table(made)})


def _declared(context: Context, request: Request, asked: CreateTableAttributes) -> Table:
    at = "/data/attributes/schema"
    names = normalise_names([f.name for f in asked.table_schema.fields])
    columns = tuple(Column(n, inward(f.type)) for n, f in zip(names, asked.table_schema.fields, strict=True))
    key = normalise_name(asked.table_schema.primary_keys[0])
    if key not in names:
        hint = did_you_mean(key, names) or f"columns: {', '.join(names)}"
        raise Error(Code.INVALID, f"the primary key {key!r} is no column", at=f"{at}/primary_keys/0", hint=hint)
    now_ms = context.clock.now_ms()
    return Table(
        id=context.clock.new_id(),
        name=_name(asked.table_name),
        columns=columns,
        primary_key=key,
        source="LOCAL_FILE",
        description=asked.description or "",
        tags=tuple(asked.tags or ()),
        row_count=0,
        created_by=request.caller.id,
        updated_by=request.caller.id,
        created_ms=now_ms,
        updated_ms=now_ms,
    )


def _name(text: str) -> str:
    try:
        return normalise_name(text)
    except Error as error:
        raise error.under("/data/attributes/table_name") from error


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
    held = context.store.list_tables()
    if len(held) >= context.limits.tables_max:
        hint = "delete one, or raise the setting tables_max"
        raise Error(Code.INVALID, f"there are {len(held)} tables already", hint=hint)
    if any(t.name == table.name for t in held):
        hint = "choose another name, or delete that table"
        raise Error(Code.INVALID, f"a table named {table.name!r} exists", at="/data/attributes/table_name", hint=hint)
    loaded = context.tables.create_table(table, paths, format, headers, declared=declared)
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


def shown_table(table: Table) -> dict[str, Any]:
    """A table as the API shows it; a closed object, so no key beyond the documented ones."""
    return {
        "id": table.id,
        "type": "reference_table",
        "attributes": {
            "created_by": table.created_by,
            "description": table.description,
            "last_updated_by": table.updated_by,
            "row_count": table.row_count,
            "schema": {
                "fields": [{"name": c.name, "type": outward(c.type)} for c in table.columns],
                "primary_keys": [table.primary_key],
            },
            "source": table.source,
            "status": table.status,
            "table_name": table.name,
            "tags": list(table.tags),
            "updated_at": iso_ms(instant(table.updated_ms)),
        },
    }


def list_reference_tables(context: Context, request: Request) -> Reply:
    """Tables, sorted and filtered, by page."""
    limit = request.number("page[limit]", 15, 1, 100)
    offset = request.number("page[offset]", 0, 0, 2**53)
    sort = request.query.get("sort", ["-updated_at"])[-1]
    field = sort.removeprefix("-")
    if field not in SORTS:
        hint = f"allowed: {', '.join(SORTS)}, each also with '-' before it"
        raise Error(Code.INVALID, f"cannot sort by {sort!r}", at="parameter sort", hint=hint)
    kept = [t for t in context.store.list_tables() if _passes(t, request)]
    kept.sort(key=lambda t: t.id)
    kept.sort(key=lambda t: getattr(t, SORTS[field]), reverse=sort.startswith("-"))
    return Reply({"data": [shown_table(t) for t in kept[offset : offset + limit]]})


def _passes(table: Table, request: Request) -> bool:
    def wanted(name: str) -> str | None:
        return request.query[name][-1] if name in request.query else None

    status, exact, part = (
        wanted(n) for n in ("filter[status]", "filter[table_name][exact]", "filter[table_name][contains]")
    )
    return (
        (status is None or table.status == status)
        and (exact is None or table.name == exact)
        and (part is None or part in table.name)
    )


def find_table(context: Context, id: str) -> Table:
    """The table of that id. Errors as recorded from the API: INVALID for no UUID, NOT_FOUND."""
    try:
        canonical = str(UUID(id))
    except ValueError as error:
        raise Error(Code.INVALID, "table ID must be a valid UUID format") from error
    table = context.store.find_table(canonical)
    if table is None:
        raise Error(Code.NOT_FOUND, "table not found")
    return table


def get_table(context: Context, request: Request) -> Reply:
    """One table."""
    return Reply({"data": shown_table(find_table(context, request.path["id"]))})


def delete_table(context: Context, request: Request) -> Reply:
    """Remove a table and its rows; connections that read it wait for another."""
    table = find_table(context, request.path["id"])
    context.store.remove_table(table.id, who=request.caller.id, now_ms=context.clock.now_ms())
    context.tables.drop_table(table.id)
    context.sources_changed()
    return Reply()


def list_rows(context: Context, request: Request) -> Reply:
    """Rows by page, all pages of one snapshot."""
    table = find_table(context, request.path["id"])
    limit = request.number("page[limit]", 100, 1, 1000)
    if table.row_count > ROWS_LISTED_MAX:
        raise Error(Code.INVALID, f"the table has more than {ROWS_LISTED_MAX} rows", hint="get rows by their id")
    token = request.query.get("page[continuation_token]", [""])[-1]
    version, after = _read_token(token) if token else (context.tables.table_version(table.id), 0)
    page = context.tables.read_rows(table, version, after, limit)
    base = f"/api/v2/reference-tables/tables/{table.id}/rows/list?page[limit]={limit}"
    here = f"{base}&page[continuation_token]={quote(token)}" if token else base
    body: dict[str, Any] = {"data": [shown_row(r) for r in page.rows], "links": {"first": base, "self": here}}
    if page.next_after is not None:
        following = _write_token(version, page.next_after)
        body["links"]["next"] = f"{base}&page[continuation_token]={quote(following)}"
        body["meta"] = {"page": {"next_continuation_token": following}}
    return Reply(body)


def _write_token(version: int, after: int) -> str:
    return base64.urlsafe_b64encode(f"{version}.{after}".encode()).decode().rstrip("=")


def _read_token(token: str) -> tuple[int, int]:
    try:
        text = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True).decode("ascii")
        version, after = (int(part) for part in text.split("."))
        if not (0 <= version < 2**63 and 0 <= after < 2**63):
            raise ValueError("out of range")
    except (binascii.Error, ValueError) as error:
        at = "parameter page[continuation_token]"
        raise Error(Code.INVALID, "this is no continuation token", at=at, hint="use the token as given") from error
    return version, after


def shown_row(row: Row) -> dict[str, Any]:
    return {"id": row.id, "type": "row", "attributes": {"values": row.values}}


def get_rows_by_id(context: Context, request: Request) -> Reply:
    """The rows of the asked primary keys, and which were not found."""
    table = find_table(context, request.path["id"])
    ids = list(dict.fromkeys(request.query.get("row_id", [])))
    if not ids:
        raise Error(Code.INVALID, "row_id is missing", at="parameter row_id", hint="repeat it for several rows")
    rows = context.tables.find_rows(table, ids)
    found = {r.id for r in rows}
    meta = {
        "found_count": len(rows),
        "not_found": [id for id in ids if id not in found],
        "requested_count": len(ids),
    }
    return Reply({"data": [shown_row(r) for r in rows], "meta": meta})


def upsert_rows(context: Context, request: Request) -> Reply:
    """Update or insert rows by primary key; columns not given keep their value."""
    _check_size(context, request)
    table = find_table(context, request.path["id"])
    rows = [
        check_values(table, Row(r.id, r.attributes.values if r.attributes else {}), f"/data/{i}")
        for i, r in enumerate(decode(UpsertRowsBody, request.body).data)
    ]
    seen: set[str] = set()
    for i, row in enumerate(rows):
        if row.id in seen:
            message = f"row {row.id!r} comes twice in one request"
            raise Error(Code.INVALID, message, at=f"/data/{i}/id", hint="send each id once")
        seen.add(row.id)
    now_ms = context.clock.now_ms()
    context.tables.upsert_rows(table, rows, now_ms)
    _count_again(context, request, table, now_ms)
    return Reply()


def delete_rows(context: Context, request: Request) -> Reply:
    """Delete rows by primary key; absent ones are no error."""
    _check_size(context, request)
    table = find_table(context, request.path["id"])
    now_ms = context.clock.now_ms()
    context.tables.delete_rows(table, [r.id for r in decode(DeleteRowsBody, request.body).data], now_ms)
    _count_again(context, request, table, now_ms)
    return Reply()


def _check_size(context: Context, request: Request) -> None:
    limit = context.limits.rows_body_bytes_max
    if len(request.body) > limit:
        hint = f"at most {limit} bytes (setting rows_body_bytes_max); send several requests"
        raise Error(Code.TOO_LARGE, f"the body has {len(request.body)} bytes", hint=hint)


def _count_again(context: Context, request: Request, table: Table, now_ms: int) -> None:
    """Keep the number of rows; whoever writes it last looks again, so that writers at once leave the right one."""
    kept, count = -1, context.tables.count_rows(table.id)
    while kept != count:
        changed = replace(table, row_count=count, updated_ms=now_ms, updated_by=request.caller.id)
        context.store.update_table(changed, who=request.caller.id)
        kept, count = count, context.tables.count_rows(table.id)
    context.sources_changed()
