"""Owns staging what was read and checking it: columns, losses, drift, counts. Changes nothing that readers see."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from roster.base.errors import Code, Error
from roster.model.connection import Connection
from roster.model.held import keeps_history
from roster.model.reference_table import Table, relation_of
from roster.model.rules import NO_RULES
from roster.model.sync import Drift, DriftKind
from roster.ports import Answer, Merge
from roster.query.plan import Plan
from roster.sync.columns import cursor_of, settle_columns, uses_of
from roster.sync.coverage import (
    CANDIDATES_MAX,
    Cells,
    agreeing,
    best_match,
    count_cells,
    count_matches,
    count_misfits,
    read_cells,
    read_coverage,
)
from roster.sync.work import Ports, Work, present

Known = dict[Plan, Answer]
"""What was asked in one check already."""


def stage(ports: Ports, work: Work) -> Work:
    """Fill the next generation with the rows that were read."""
    paths = _files(ports, work)
    # an emptied file of lines names no columns: that is a loss of rows, not of columns
    stay = work.table.columns if work.fetched().changes_only else ()
    found = ports.tables.inspect_file(paths, work.fetched().format, stay) if paths else work.table.columns
    columns = settle_columns(work.table, work.readers(), found, work.sync.offered)
    table = replace(
        work.table,
        columns=columns.next,
        primary_key=columns.primary_key,
        generation=work.table.generation + 1,
        held=(),
    )
    return _stage_again(ports, replace(work, columns=columns, next=table), columns.paused)


def _stage_again(ports: Ports, work: Work, carried: tuple[str, ...]) -> Work:
    fetched, table = work.fetched(), present(work.next)
    before = work.table if work.table.columns else None
    keeps = keeps_history(work.table, work.mappings, work.tables)
    merge = Merge(before, carried, fetched.changes_only, work.run.started_ms if keeps else None)
    staged = ports.tables.stage_table(table, _files(ports, work), fetched.format, merge)
    filled = replace(table, held=staged.held, row_count=staged.rows)
    loaded = staged.loaded
    run = replace(
        work.run,
        rows=loaded.rows + loaded.duplicates + loaded.keyless,
        stored=loaded.rows,
        duplicate=loaded.duplicates,
        keyless=loaded.keyless,
    )
    return replace(work, next=filled, staged=staged, run=run)


def _files(ports: Ports, work: Work) -> list[Path]:
    """What was read; none when a source that had rows is an empty file now."""
    paths = [ports.folder / work.run.id / name for name in work.fetched().names]
    return paths if not work.table.columns or any(path.stat().st_size for path in paths) else []


def check(ports: Ports, work: Work) -> Work:
    """Refuse a loss of rows nobody asked for, pause fields whose column changed, count what meets what."""
    _refuse_shrinking(ports, work)
    columns = present(work.columns)
    known: Known = {}
    retyped = _retyped(ports, work, known)
    drifts = [*(_dropped(ports, work, name) for name in columns.missing), *retyped]
    if retyped:
        work = _stage_again(ports, work, (*columns.paused, *(d.column for d in retyped)))
        known = {}
    coverage = []
    for mapping, connection in work.readers():
        table, fresh = present(work.next), present(work.staged).fresh
        plans = [count_cells(connection, table, fresh), *count_matches(mapping.entity, connection, table, fresh)]
        answers = _ask(ports, work, plans, known)
        loaded = present(work.staged).loaded
        coverage.append(read_coverage(mapping.entity, connection, table, loaded, answers))
    run = replace(work.run, coverage=tuple(coverage), misfits=_misfit_rows(ports, work))
    return replace(work, drifts=tuple(drifts), run=run)


def _ask(ports: Ports, work: Work, plans: Sequence[Plan], known: Known) -> list[Answer]:
    """Answers in the order of the plans; one that is known is not asked for again: it reads all rows."""
    fresh = [plan for plan in plans if plan not in known]
    known.update(zip(fresh, ports.engine.run(fresh, ports.rules.budget, work.cancel), strict=True))
    return [known[plan] for plan in plans]


def _misfit_rows(ports: Ports, work: Work) -> int:
    table = present(work.next)
    if not table.held:
        return 0
    plan = count_misfits(table, present(work.staged).fresh)
    return int(ports.engine.run([plan], ports.rules.budget, work.cancel)[0].rows[0][0])


def _refuse_shrinking(ports: Ports, work: Work) -> None:
    before, after = work.table.row_count, present(work.next).row_count
    asked = ports.store.find_run(work.run.id) or work.run  # somebody may have allowed it meanwhile
    if asked.accepted or before == 0 or before - after <= before * ports.rules.shrink_max:
        return
    lost = "is empty" if after == 0 else f"has {after:,} rows"
    hint = "if that is right, sync with accept_loss=true, or raise the setting sync_shrink_max"
    raise Error(Code.CONFLICT, f"the source {lost}, and had {before:,}", hint=hint)


def _retyped(ports: Ports, work: Work, known: Known) -> list[Drift]:
    """Columns of which too many cells no longer fit a field that they did fit before."""
    found: dict[str, Drift] = {}
    if not work.table.columns:
        return []
    for _, connection in work.readers():
        misfits = _misfits(ports, work, connection, present(work.next), known)
        if misfits:
            before = _misfits(ports, work, connection, work.table, known)
            for id, cells in misfits.items():
                if id not in before and cells.column not in present(work.columns).missing:
                    found.setdefault(cells.column, _retyped_drift(ports, work, cells))
    return list(found.values())


def _misfits(ports: Ports, work: Work, connection: Connection, table: Table, known: Known) -> dict[str, Cells]:
    """Fields of which too many cells of a table do not fit."""
    # by type alone: what only the rules of a field refuse is quarantined, and pauses nothing
    connection = replace(connection, fields=tuple(replace(f, rules=NO_RULES) for f in connection.fields))
    (answer,) = _ask(ports, work, [count_cells(connection, table, relation_of(table))], known)
    cells = read_cells(connection, table, answer)[1]
    return {c.field_id: c for c in cells if c.misfits() > ports.rules.misfits_max}


def _retyped_drift(ports: Ports, work: Work, cells: Cells) -> Drift:
    share = round(cells.misfits() * 100)
    reason = f"{share} % of the cells of column {cells.column!r} are no values of its field any more"
    return _drift(ports, work, cells.column, DriftKind.RETYPED, reason)


def _drift(ports: Ports, work: Work, column: str, kind: DriftKind, reason: str) -> Drift:
    uses = uses_of(work.readers(), present(work.next).columns)
    fields = tuple(use.name() for use in uses if column in (*use.columns(), use.joined_on(work.table.columns)))
    known = next((d for d in work.sync.drifts if (d.column, d.kind) == (column, kind)), None)
    since_ms = known.since_ms if known else ports.clock.now_ms()
    paused = f"; paused: {', '.join(fields)}" if fields else ""
    return Drift(column, kind, since_ms, reason + paused, fields)


def _dropped(ports: Ports, work: Work, column: str) -> Drift:
    """A column that is gone, with the new one whose values agree best with it."""
    reason = f"the source no longer has column {column!r}"
    if column == cursor_of(work.table):
        reason += ", its cursor: all of it is read each time"
    drift = _drift(ports, work, column, DriftKind.DROPPED, reason)
    held = {c.name for c in work.table.columns} - {c.name for c in work.sync.offered}
    new = [c.name for c in present(work.next).columns if c.name not in held][:CANDIDATES_MAX]
    if not new or not work.table.columns:
        return drift
    answers = ports.engine.run(agreeing(work.table, present(work.next), column, new), ports.rules.budget, work.cancel)
    name, share = best_match(new, answers)
    if not name:
        return drift
    told = f"{drift.reason}; probably renamed to {name!r} ({share:.0%} of the values agree)"
    return replace(drift, renamed_to=name, overlap=share, reason=told)
