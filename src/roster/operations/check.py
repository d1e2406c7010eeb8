"""Owns the look over a data folder: what is there, and whether what is derived equals its source."""

from __future__ import annotations

from roster.model.held import sources_of
from roster.model.schema import EVENT_SCHEMA, Entity
from roster.operations.context import Context
from roster.query.plan import Agg, Aggregate, Measure, Plan, Read
from roster.query.relations import read_profiles


def look_over(context: Context) -> list[tuple[str, str]]:
    """Lines of name and finding: keys, events, profiles, tables and connections that wait."""
    live = [k for k in context.store.list_keys() if k.revoked_ms is None]
    tables = context.store.list_tables()
    found = [("organisation", context.store.organisation_id()), ("live keys", str(len(live)))]
    found.append(("events", f"{_count(context, Read('events', EVENT_SCHEMA)):,}"))
    for entity in Entity:
        mapping = context.store.read_mapping(entity)
        sources = sources_of(mapping, tables)
        waiting = [c.id for c in mapping.connections if c.id not in sources]
        counted = f"{_count(context, read_profiles(entity)):,}, mapping version {mapping.version}"
        found.append((str(entity), counted + (f", waiting for a table: {', '.join(waiting)}" if waiting else "")))
    for table in tables:
        rows = context.tables.count_rows(table) if table.generation else 0
        agrees = "" if rows == table.row_count else f", but {table.row_count:,} on record"
        sync = context.store.read_sync(table.id)
        state = f", {sync.state}: {sync.reason}".removesuffix(": ") if sync else ""
        found.append((f"table {table.owner or table.name}", f"{rows:,} rows{agrees}{state}"))
    return found


def _count(context: Context, plan: Plan) -> int:
    counted = Aggregate(plan, (), (Measure("count", Agg.COUNT),))
    rows = context.engine.run([counted], context.limits.budget())[0].rows
    return int(rows[0][0])
