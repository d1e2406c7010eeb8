"""Owns the operations on sources: list, show, sync now, cancel, runs, quarantined cells. Runs no sync itself."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from roster.base.errors import Code, Error, did_you_mean
from roster.base.time import instant, iso_ms
from roster.model.connection import Connection, find_column
from roster.model.held import owner_of, readers_of
from roster.model.mapping import Mapping
from roster.model.reference_table import Table
from roster.model.schema import Column, Entity, Type
from roster.model.sync import ENDED, Coverage, Drift, Run, State, Sync, Trigger
from roster.operations.context import Context, Reply, Request, run_plans
from roster.operations.mapping import shown_field
from roster.ports import Store
from roster.sync.coverage import quarantined, why_quarantined

RUNS_LISTED = 20
CELLS_LISTED = 100
CELLS_LISTED_MAX = 10_000


def list_sources(context: Context, request: Request) -> Reply:
    """Every source with its state: reference tables, and the tables that connections of other sources own."""
    tables = context.store.list_tables()
    syncs = {s.table_id: s for s in context.store.list_syncs()}
    return Reply({"data": [shown_source(context, t, syncs.get(t.id), tables) for t in tables]})


def find_source(store: Store, name: str) -> Table:
    """The source of an id, a table's name, or `entity/connection`. Error: NOT_FOUND with the nearest."""
    tables = store.list_tables()
    found = [t for t in tables if name in (t.id, t.name, t.owner)]
    if not found:
        known = [t.owner or t.name for t in tables]
        hint = did_you_mean(name, known) or "GET /api/roster/sources lists them"
        raise Error(Code.NOT_FOUND, f"there is no source {name!r}", at="parameter id", hint=hint)
    return found[-1]


def get_source(context: Context, request: Request) -> Reply:
    """One source: its state since when and why, its last run, drift, new columns, what its connections match."""
    table = find_source(context.store, request.path["id"])
    sync = context.store.read_sync(table.id)
    return Reply({"data": shown_source(context, table, sync, context.store.list_tables())})


def shown_source(context: Context, table: Table, sync: Sync | None, tables: list[Table]) -> dict[str, Any]:
    """A source as the API shows it. Never a member of a secret, only a secret's name."""
    mappings = [context.store.read_mapping(entity) for entity in Entity]
    readers = readers_of(table, mappings, tables)
    run = context.store.find_run(sync.run_id) if sync and sync.run_id else None
    now = next((r for r in context.store.unfinished_runs() if r.table_id == table.id), None)
    attributes: dict[str, Any] = {
        "name": table.owner or table.name,
        "kind": table.origin.kind if table.origin else "upload",
        "options": dict(table.origin.options) if table.origin else {},
        "state": (sync.state if sync else State.OK).value,
        "since": _time(sync.since_ms if sync else table.created_ms),
        "reason": sync.reason if sync else "",
        "rows": table.row_count,
        "columns": [{"name": c.name, "type": c.type.value} for c in table.columns],
        "key": table.primary_key,
        "connections": [owner_of(m.entity, c) for m, c in readers],
        "every_s": context.syncs.every_s(table),
        "last_tried": _time(sync.tried_ms) if sync else None,
        "last_synced": _time(sync.synced_ms) if sync else _time(table.updated_ms),
        "failures": sync.failures if sync else 0,
        "drift": [_shown_drift(d, readers) for d in sync.drifts] if sync else [],
        "offered": [{"name": c.name, "type": c.type.value} for c in sync.offered] if sync else [],
        "coverage": [shown_coverage(c) for c in sync.coverage] if sync else [],
        "run": shown_run(run) if run else None,
        "running": shown_run(now, context.clock.now_ms()) if now else None,
    }
    return {"id": table.id, "type": "source", "attributes": attributes}


def _time(at_ms: int | None) -> str | None:
    return iso_ms(instant(at_ms)) if at_ms is not None else None


def _shown_drift(drift: Drift, readers: tuple[tuple[Mapping, Connection], ...]) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "column": drift.column,
        "kind": drift.kind.value,
        "since": _time(drift.since_ms),
        "reason": drift.reason,
        "paused": list(drift.fields),
    }
    if drift.renamed_to:
        shown["renamed_to"] = drift.renamed_to
        shown["overlap"] = round(drift.overlap, 4)
        shown["repair"] = [_repair(drift, m, c) for m, c in readers if _misled(drift, m, c)]
    return shown


def _misled(drift: Drift, mapping: Mapping, connection: Connection) -> list[str]:
    """The fields of a connection whose own column has another name now."""
    mine = f"{owner_of(mapping.entity, connection)}/"
    column = (Column(drift.column, Type.ANY),)
    fields = (f.id for f in connection.fields if find_column(f.source_name, column))
    return [id for id in fields if f"{mine}{id}" in drift.fields]


def _repair(drift: Drift, mapping: Mapping, connection: Connection) -> dict[str, Any]:
    """The update of the connection that reads the new column under the old ids: send it as it stands."""
    ids = _misled(drift, mapping, connection)
    fields = [replace(f, source_name=drift.renamed_to) for f in connection.fields if f.id in ids]
    added = [shown_field(f, None) for f in fields]  # the rule that sources of one attribute have agreed on stays
    attributes = {"fields_to_delete": ids, "fields_to_add": added}
    body = {"data": {"type": "connection_id", "id": connection.id, "attributes": attributes}}
    return {"put": f"/api/v2/product-analytics/{mapping.entity}/mapping/connection", "body": body}


def shown_coverage(c: Coverage) -> dict[str, Any]:
    """A line of counters; rows, cells and profiles each add up."""
    return {
        "connection": f"{c.entity}/{c.connection_id}",
        "rows": {"read": c.rows, "matched": c.matched, "unmatched": c.unmatched, "duplicate": c.duplicate},
        "cells": {"read": c.cells, "accepted": c.accepted, "null": c.null, "quarantined": c.quarantined},
        "profiles": {"all": c.profiles, "matched": c.profiles_matched, "unmatched": c.profiles_unmatched},
    }


def shown_run(run: Run, now_ms: int | None = None) -> dict[str, Any]:
    """A run as the API shows it; `now_ms` adds rate and remaining time to one that has not ended."""
    shown: dict[str, Any] = {
        "id": run.id,
        "source_id": run.table_id,
        "trigger": run.trigger.value,
        "phase": run.phase.value,
        "step": run.step.value,
        "attempt": run.attempt,
        "queued": _time(run.queued_ms),
        "started": _time(run.started_ms),
        "ended": _time(run.ended_ms),
        "rows": {
            "read": run.rows,
            "stored": run.stored,
            "duplicate": run.duplicate,
            "keyless": run.keyless,
            "misfits": run.misfits,
        },
        "bytes": run.bytes,
        "coverage": [shown_coverage(c) for c in run.coverage],
        "failure": _shown_failure(run),
    }
    if now_ms is not None and run.phase not in ENDED:
        shown["progress"] = progress(run, now_ms)
    return shown


def _shown_failure(run: Run) -> dict[str, str] | None:
    failure = run.failure
    return {"code": failure.code, "message": failure.message, "hint": failure.hint} if failure else None


def progress(run: Run, now_ms: int) -> dict[str, Any]:
    """How far a run's reading is: totals where the source told them, rows and bytes a second, seconds left."""
    spent_s = max(now_ms - (run.started_ms or now_ms), 1) / 1000
    if run.bytes_total:
        done, total = run.bytes, run.bytes_total
    else:
        done, total = run.rows, run.rows_total or 0
    share = min(done / total, 1.0) if total else None
    return {
        "rows_total": run.rows_total,
        "bytes_total": run.bytes_total,
        "rows_per_s": round(run.rows / spent_s),
        "bytes_per_s": round(run.bytes / spent_s),
        "share": round(share, 4) if share is not None else None,
        "eta_s": round(spent_s * (1 - share) / share, 1) if share else None,
    }


def syncable(store: Store, name: str) -> Table:
    """The source of that name, which must be one that syncs. Errors: NOT_FOUND, INVALID."""
    table = find_source(store, name)
    if table.origin is None:
        message = f"the rows of {table.name!r} come by upload or request: there is nothing to sync"
        raise Error(Code.INVALID, message, at="parameter id", hint="upload a file, or write rows")
    return table


def start_sync(context: Context, request: Request) -> Reply:
    """Sync a source now: `force=true` reads it even when it is unchanged, `accept_loss=true` allows many rows to go."""
    table = syncable(context.store, request.path["id"])
    accepted = request.flag("accept_loss")
    forced = request.flag("force") or accepted
    run = context.syncs.begin(table.id, Trigger.MANUAL, forced=forced, accepted=accepted)
    return Reply({"data": {"id": run.id, "type": "run", "attributes": shown_run(run, context.clock.now_ms())}})


def cancel_sync(context: Context, request: Request) -> Reply:
    """Ask for the end of a source's run; what is held stays as it is."""
    table = find_source(context.store, request.path["id"])
    run = context.syncs.cancel(table.id, request.caller.id)
    if run is None:
        raise Error(Code.CONFLICT, f"nothing runs for {table.owner or table.name!r}", at="parameter id")
    return Reply({"data": {"id": run.id, "type": "run", "attributes": shown_run(run, context.clock.now_ms())}})


def list_runs(context: Context, request: Request) -> Reply:
    """The runs of a source, newest first."""
    table = find_source(context.store, request.path["id"])
    limit = request.number("page[limit]", RUNS_LISTED, 1, 1000)
    now_ms = context.clock.now_ms()
    runs = context.store.list_runs(table.id, limit)
    return Reply({"data": [{"id": r.id, "type": "run", "attributes": shown_run(r, now_ms)} for r in runs]})


def get_run(context: Context, request: Request) -> Reply:
    """One run: its step, how far it is, what it counted, why it failed."""
    run = context.store.find_run(request.path["id"])
    if run is None:
        raise Error(Code.NOT_FOUND, f"there is no run {request.path['id']!r}", at="parameter id")
    return Reply({"data": {"id": run.id, "type": "run", "attributes": shown_run(run, context.clock.now_ms())}})


def list_quarantine(context: Context, request: Request) -> Reply:
    """Cells that are no value of their field, each with its row's key; told by connection and field."""
    table = find_source(context.store, request.path["id"])
    limit = request.number("page[limit]", CELLS_LISTED, 1, CELLS_LISTED_MAX)
    mappings = [context.store.read_mapping(entity) for entity in Entity]
    cells: list[dict[str, Any]] = []
    for mapping, connection in readers_of(table, mappings, context.store.list_tables()):
        for field in connection.fields:
            plan = quarantined(connection, table, field.id, limit - len(cells)) if len(cells) < limit else None
            if plan is None:
                continue
            answers = run_plans(context, request, [plan])
            cells += [
                {
                    "connection": owner_of(mapping.entity, connection),
                    "field": field.id,
                    "row_key": key,
                    "value": value,
                    "reason": why_quarantined(field, value, is_typed),
                }
                for key, value, is_typed in answers[0].rows
            ]
    return Reply({"data": {"id": table.id, "type": "quarantine", "attributes": {"cells": cells}}})
