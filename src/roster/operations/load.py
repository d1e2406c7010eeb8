"""Owns loading files by command: events with a declared column mapping, and reference tables."""

from __future__ import annotations

from collections.abc import Callable, Mapping as Map
from dataclasses import replace
from pathlib import Path

from roster.base.errors import Code, Error, did_you_mean
from roster.model.held import keeps_history, sources_of
from roster.model.reference_table import Table, normalise_name, normalise_names
from roster.model.schema import Column, Entity
from roster.model.source import format_of_name
from roster.operations.bodies_tables import COLUMNS_MAX
from roster.operations.context import Context
from roster.operations.keys import LOCAL
from roster.operations.reference_tables import add_table
from roster.operations.uploads import sweep_uploads
from roster.ports import Applied, Loaded, Progress
from roster.query.plan import Project
from roster.query.relations import profiles


def load_events(
    context: Context, path: Path, columns: Map[str, str], report: Callable[[Progress], None], format: str | None = None
) -> Applied:
    """Store the events of a file; `columns` maps event paths (`usr.id`) to columns, or constants (`=view`)."""
    if not path.is_file():
        raise Error(Code.NOT_FOUND, f"there is no file {path}")
    applied = context.events.load_file(path, format_of_name(path.name, format or ""), columns, report)
    report(Progress("sessions", 0, None))
    context.events.settle(context.clock.now_ms())
    return applied


def load_table(
    context: Context, path: Path, name: str | None, key: str | None, format: str | None = None
) -> tuple[Table, Loaded]:
    """Make a reference table of a file: the narrowest types its values fit, its first column the key unless told."""
    if not path.is_file():
        raise Error(Code.NOT_FOUND, f"there is no file {path}")
    kind = format_of_name(path.name, format or "")
    found = context.tables.inspect_file([path], kind)
    if len(found) > COLUMNS_MAX:
        raise Error(Code.INVALID, f"the file has {len(found)} columns", hint=f"a table has at most {COLUMNS_MAX}")
    names = normalise_names([c.name for c in found])
    columns = tuple(Column(n, c.type) for n, c in zip(names, found, strict=True))
    primary_key = normalise_name(key) if key else names[0]
    if primary_key not in names:
        hint = did_you_mean(primary_key, names) or f"columns: {', '.join(names)}"
        raise Error(Code.INVALID, f"the key {primary_key!r} is no column", hint=hint)
    now_ms = context.clock.now_ms()
    table = Table(
        id=context.clock.new_id(),
        name=normalise_name(name or path.name.split(".")[0]),
        columns=columns,
        primary_key=primary_key,
        source="LOCAL_FILE",
        description="",
        tags=(),
        row_count=0,
        created_by=LOCAL.id,
        updated_by=LOCAL.id,
        created_ms=now_ms,
        updated_ms=now_ms,
    )
    return add_table(context, table, [path], kind)


def materialise_profiles(context: Context) -> None:
    """Have the engine keep every entity's profiles joined with their present sources, and settle their histories."""
    settle_histories(context)
    tables = context.store.list_tables()
    for entity in Entity:
        mapping = context.store.read_mapping(entity)
        relation: Project = profiles(mapping, sources_of(mapping, tables))
        context.engine.materialise(entity, [relation.input])


def settle_histories(context: Context) -> None:
    """Have the engine keep what rows are from now on where connections ask for it, and forget it where none does."""
    mappings = [context.store.read_mapping(entity) for entity in Entity]
    tables = context.store.list_tables()
    for table in tables:
        if not table.columns:
            continue
        wanted = keeps_history(table, mappings, tables)
        if wanted != context.tables.has_history(table):
            try:
                if wanted:
                    context.tables.begin_history(table, context.clock.now_ms())
                else:
                    context.tables.end_history(table)
            except Error as error:
                if error.code is not Code.NOT_FOUND:  # it was dropped, or moved on, meanwhile
                    raise


def recover(context: Context) -> None:
    """Put right what a crash may leave: rows of tables nobody knows, counts that are behind, dead uploads."""
    known = {t.id: t for t in context.store.list_tables()}
    kept = set(context.tables.list_tables())
    for id in kept - known.keys():
        context.tables.drop_table(id)
    for id in kept & known.keys():
        if not known[id].generation:  # a first sync filled a generation that was never named
            continue
        rows = context.tables.count_rows(known[id])
        if rows != known[id].row_count:
            context.store.update_table(replace(known[id], row_count=rows), who=LOCAL.id)
    sweep_uploads(context)
