"""Owns the operations on rows of reference tables: list, get, batch, upsert, delete."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from dataclasses import replace
from typing import Any
from urllib.parse import quote

from roster.base.errors import Code, Error
from roster.model.reference_table import Row, Table, check_values, column_of, kept_id
from roster.operations.bodies import decode
from roster.operations.bodies_tables import BatchRowsBody, DeleteRowsBody, UpsertRowsBody
from roster.operations.context import Context, Reply, Request
from roster.operations.reference_tables import asks_history, change_definition, find_table

ROWS_LISTED_MAX = 10_000_000


def list_rows(context: Context, request: Request) -> Reply:
    """Rows by page, all pages of one snapshot."""
    table = find_table(context, request.path["id"])
    limit = request.number("page[limit]", 100, 1, 1000)
    if table.row_count > ROWS_LISTED_MAX:
        raise Error(Code.INVALID, f"the table has more than {ROWS_LISTED_MAX:,} rows", hint="get rows by their id")
    token = request.query.get("page[continuation_token]", [""])[-1]
    version, after = _read_token(token) if token else (context.tables.table_version(table), 0)
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
    kept = _kept_ids(table, ids)
    rows = context.tables.find_rows(table, list(dict.fromkeys(kept)))
    found = {r.id for r in rows}
    meta = {
        "found_count": len(rows),
        "not_found": [id for id, as_kept in zip(ids, kept, strict=True) if as_kept not in found],
        "requested_count": len(ids),
    }
    return Reply({"data": [shown_row(r) for r in rows], "meta": meta})


def query_batch_rows(context: Context, request: Request) -> Reply:
    """The rows of the asked primary keys, of a table that the body names; absent ones are left out."""
    data = decode(BatchRowsBody, request.body).data
    if data is None or data.attributes is None:
        raise Error(Code.INVALID, "the rows to query are missing", at="/data/attributes")
    table = find_table(context, data.attributes.table_id)
    rows = context.tables.find_rows(table, list(dict.fromkeys(_kept_ids(table, data.attributes.row_ids))))
    answer = {
        "id": context.clock.new_id(),
        "type": data.type,
        "relationships": {"rows": {"data": [{"id": r.id, "type": "row"} for r in rows]}},
    }
    return Reply({"data": answer, "included": [shown_row(r) for r in rows]})


def upsert_rows(context: Context, request: Request) -> Reply:
    """Update or insert rows by primary key; columns not given keep their value."""
    _check_size(context, request)
    table = _writable(context, request)
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
    context.tables.upsert_rows(table, rows, now_ms, history=asks_history(context, table))
    _count_again(context, request, table, now_ms)
    return Reply()


def delete_rows(context: Context, request: Request) -> Reply:
    """Delete rows by primary key; absent ones are no error."""
    _check_size(context, request)
    table = _writable(context, request)
    now_ms = context.clock.now_ms()
    ids = _kept_ids(table, [r.id for r in decode(DeleteRowsBody, request.body).data])
    context.tables.delete_rows(table, ids, now_ms, history=asks_history(context, table))
    _count_again(context, request, table, now_ms)
    return Reply()


def _kept_ids(table: Table, ids: Sequence[str]) -> list[str]:
    """Ids as rows are kept under."""
    key = column_of(table, table.primary_key)
    return [kept_id(key, id) if key else id for id in ids]


def _writable(context: Context, request: Request) -> Table:
    """The table whose rows a request changes. Error: CONFLICT when they come from a bucket."""
    table = find_table(context, request.path["id"])
    if table.origin is not None:
        message = f"the rows of {table.name!r} come from its {table.source} file: the next sync would undo this"
        raise Error(Code.CONFLICT, message, hint="change the file")
    return table


def _check_size(context: Context, request: Request) -> None:
    limit = context.limits.rows_body_bytes_max
    if len(request.body) > limit:
        hint = f"at most {limit} bytes (setting rows_body_bytes_max); send several requests"
        raise Error(Code.TOO_LARGE, f"the body has {len(request.body)} bytes", hint=hint)


def _count_again(context: Context, request: Request, table: Table, now_ms: int) -> None:
    """Keep the number of rows. Whoever writes it counts after all that were done before, so the last one is right."""

    def counted(kept: Table) -> Table:
        rows = context.tables.count_rows(kept)
        return replace(kept, row_count=rows, updated_ms=max(kept.updated_ms, now_ms), updated_by=request.caller.id)

    change_definition(context, table.id, counted, who=request.caller.id)
    context.sources_changed()
