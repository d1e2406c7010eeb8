"""Owns the operations on retention: grid, scalar, timeseries and list."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from roster.analyses.event_world import EventWorld
from roster.analyses.measures import FRACTION
from roster.analyses.retention import (
    KEY_NAMES,
    CellRequest,
    Counted,
    Retention,
    RetentionGroup,
    count_long,
    list_cell,
    traffic_of,
)
from roster.analyses.retention_grid import Cell, Row, Scope, number_of, rows_of, tally
from roster.analyses.retention_periods import Every, Periods
from roster.analyses.retention_returns import count_by_returns
from roster.analyses.retention_wide import count_wide, is_wide
from roster.base.errors import Code, Error
from roster.model.schema import Entity
from roster.operations.analysis import QUERY_AT, answer, frame, read_range, unit_list
from roster.operations.analytics import scalar_columns, series_over
from roster.operations.bodies import decode
from roster.operations.bodies_retention import FormulaRetentionBody, GridBody, RetentionListBody
from roster.operations.context import Context, Reply, Request
from roster.operations.event_worlds import event_world_of
from roster.operations.profiles import shown
from roster.operations.retention_requests import (
    SCOPE_AT,
    GridRequest,
    name_of,
    read_grid,
    read_retention,
    read_scope,
    told_grid,
    told_retention,
    unit_of_interval,
)

LIST_LIMIT_DEFAULT = 100
COLUMNS_MAX = 1000
COLUMNS_DEFAULT = {Entity.USERS: ("@usr.id", "user_email"), Entity.ACCOUNTS: ("@account.id", "account_name")}


def count_retention(world: EventWorld, asked: Retention, groups: Sequence[RetentionGroup]) -> Counted:
    """The plans that count cohorts and returns, the quickest that can."""
    traffic = traffic_of(world, asked)
    if is_wide(world, asked, traffic, groups):
        return count_wide(world, asked, traffic, groups)
    if any(g.returns for g in groups):
        return count_by_returns(world, asked, traffic, groups)
    return count_long(world, asked, traffic, groups)


def _run(
    context: Context, request: Request, grid: GridRequest, operation: str
) -> tuple[list[list[Row]], tuple[str, ...]] | Reply:
    """The rows of each group, and warnings; or with `explain=true` what would be done."""
    world = event_world_of(context, request)
    counted = count_retention(world, grid.retention, grid.groups)
    warnings = (*grid.warnings, *counted.warnings)
    answers = answer(context, request, world, operation, counted.plans, warnings)
    if isinstance(answers, Reply):
        return answers
    retention = grid.retention
    rows = [a.rows for a in answers]
    found = tally(counted, rows, retention.periods, grid.groups, or_after=retention.or_after)
    until_ms = min(world.now_ms, retention.span.to_ms)
    return [rows_of(group, retention.periods, until_ms, rates=grid.rates) for group in found], warnings


def _unit(grid: GridRequest) -> list[dict[str, Any]] | None:
    return unit_list(FRACTION) if grid.rates else None


def query_retention_grid(context: Context, request: Request) -> Reply:
    """Cohorts, and of each how many return in which period; of each group the weighted row first."""
    asked = decode(GridBody, request.body).data.attributes
    grid = read_grid(asked)
    ran = _run(context, request, grid, "QueryProductAnalyticsRetentionGrid")
    if isinstance(ran, Reply):
        return ran
    found, warnings = ran
    unit = {"unit": _unit(grid)} if grid.rates else {}
    rows = [_told_row(grid, row) | unit for group in found for row in group if grid.scope.admits(row)]
    attributes = {
        "cohorts": [row for row in rows if row["cells"]],
        "retention_entity": asked.query.search.retention_entity,
        "retention_periods": _told_periods(grid.retention.periods, grid.again, grid.scope),
    } | unit
    understood = told_grid(grid, _told_scope(grid.scope) or "all cells")
    return frame(context.clock.new_id(), "retention_grid_response", attributes, understood, warnings)


def _told_periods(periods: Periods, every: Every, scope: Scope) -> list[dict[str, Any]]:
    """The columns: how far after the cohort each begins."""
    unit, step = unit_of_interval(every)
    return [{"unit": unit, "value": n * step} for n in range(periods.columns(0)) if scope.column in (None, n)]


def _told_row(grid: GridRequest, row: Row) -> dict[str, Any]:
    cells = [_told_cell(grid, row, cell) for cell in row.cells if grid.scope.column in (None, cell.column)]
    told: dict[str, Any] = {"cells": cells, "group_tags": list(row.tags)}
    if row.cohort is None:
        return told | {"name": "weighted average", "type": "aggregated"}
    span = grid.retention.periods.cohort(row.cohort)
    return told | {
        "cohort_index": row.cohort,
        "cohort_size": row.size,
        "cohort_start_time": span.from_ms,
        "cohort_end_time": span.to_ms,
        "name": name_of(span.from_ms, grid.every),
        "type": "raw",
    }


def _told_cell(grid: GridRequest, row: Row, cell: Cell) -> dict[str, Any]:
    told: dict[str, Any] = {
        "return_period_index": cell.column,
        "cell_value": cell.value,
        "cell_relative_value_change": cell.change,
        "is_partial_data": cell.partial,
    }
    if cell.rate is not None:
        told["cell_rate"] = cell.rate
    if row.cohort is None:
        return told | {"type": "aggregated"}
    period = grid.retention.periods.period(row.cohort, cell.column)
    return told | {
        "cell_count": cell.count,
        "return_period_start_time": period.from_ms,
        "return_period_end_time": period.to_ms,
        "type": "raw",
    }


def query_retention_scalar(context: Context, request: Request) -> Reply:
    """One number of the grid, or one a group."""
    grid = read_grid(decode(FormulaRetentionBody, request.body).data.attributes)
    ran = _run(context, request, grid, "QueryProductAnalyticsRetentionScalar")
    if isinstance(ran, Reply):
        return ran
    found, warnings = ran
    rows = [(*g[0].tags, number_of(g, grid.scope, grid.aggregation, rates=grid.rates)) for g in found]
    columns = scalar_columns([g.group for g in grid.groups], rows, "query", _unit(grid))
    computed = _told_scope(grid.scope) or "the weighted row over its return periods from 1 on"
    understood = told_grid(grid, computed)
    return frame(context.clock.new_id(), "scalar_response", {"columns": columns}, understood, warnings)


def query_retention_timeseries(context: Context, request: Request) -> Reply:
    """One return period over the cohorts, or one cohort over its return periods."""
    grid = read_grid(decode(FormulaRetentionBody, request.body).data.attributes)
    scope, periods = grid.scope, grid.retention.periods
    if scope.weighted:
        hint = "name a cohort by its index, or a return period"
        raise Error(Code.INVALID, "the weighted row has no times", at=SCOPE_AT, hint=hint)
    ran = _run(context, request, grid, "QueryProductAnalyticsRetentionTimeseries")
    if isinstance(ran, Reply):
        return ran
    found, warnings = ran
    along = scope.cohort is not None and scope.column is None
    column = scope.column if scope.column is not None else min(1, periods.columns(0) - 1)
    if along:
        spans = [periods.period(scope.cohort or 0, n) for n in range(periods.columns(scope.cohort or 0))]
        computed = f"cohort {scope.cohort} by return period"
    else:
        cohorts = range(periods.cohorts) if scope.cohort is None else [scope.cohort]
        spans = [periods.cohort(n) for n in cohorts]
        computed = f"return period {column} by cohort"
    points: list[tuple[Any, ...]] = []
    for place, group in enumerate(found):
        ranks = (place,) * len(grid.groups)
        raw = [row for row in group if row.cohort is not None and scope.admits(row)]
        cells = list(raw[0].cells) if along else [_at(row, column) for row in raw]
        points += [(*ranks, *group[0].tags, n, c.value if c else None) for n, c in enumerate(cells)]
    edges = [*(span.from_ms for span in spans), spans[-1].to_ms]
    attributes = series_over(edges, spans[0].to_ms - spans[0].from_ms, len(grid.groups), points, _unit(grid))
    understood = told_grid(grid, computed)
    return frame(context.clock.new_id(), "timeseries_response", attributes, understood, warnings)


def _at(row: Row, column: int) -> Cell | None:
    return row.cells[column] if column < len(row.cells) else None


def _told_scope(scope: Scope) -> str:
    """A scope in words, nothing for all."""
    parts = [f"cohort {scope.cohort}"] if scope.cohort is not None else ["the weighted row"] if scope.weighted else []
    return ", ".join([*parts, *([f"return period {scope.column}"] if scope.column is not None else [])])


def query_retention_list(context: Context, request: Request) -> Reply:
    """Who is in one cell, in the order of their keys."""
    asked = decode(RetentionListBody, request.body).data.attributes
    query = asked.query
    span = read_range(asked.from_, asked.to)
    retention, every, again = read_retention(
        query.search, span, identified_only=asked.exclude_anonymous_traffic or False
    )
    scope = read_scope(query.computation_scope, retention.periods)
    if scope.cohort is None or scope.column is None:
        at = f"{SCOPE_AT}/cohort_target"
        raise Error(Code.INVALID, "a list needs one cohort", at=at, hint='use {"type": "index", "value": 0}')
    paths = [c.field.path for c in query.columns or () if c.field and c.field.path]
    columns = tuple(dict.fromkeys(paths)) or COLUMNS_DEFAULT[retention.entity]
    if len(columns) > COLUMNS_MAX:
        message = f"{len(columns)} columns are too many"
        raise Error(Code.INVALID, message, at=f"{QUERY_AT}/columns", hint=f"at most {COLUMNS_MAX}")
    limit = LIST_LIMIT_DEFAULT if query.limit is None else query.limit
    rows_max = context.limits.query_rows_max
    world = event_world_of(context, request)
    kept = min(limit or rows_max, rows_max)
    made = list_cell(world, CellRequest(retention, scope.cohort, scope.column, columns, kept))
    answers = answer(context, request, world, "QueryProductAnalyticsRetentionList", made.plans, made.warnings)
    if isinstance(answers, Reply):
        return answers
    records = [dict(zip(columns, map(shown, row), strict=True)) for row in answers[0].rows]
    total, warnings = answers[1].rows[0][0], list(made.warnings)
    if len(records) < min(total, limit or total):
        warnings.append(f"cut to {rows_max} records (setting query_rows_max)")
    understood = told_retention(retention, every, again) | {
        "cell": {"cohort": scope.cohort, "return_period": scope.column},
        "columns": list(columns),
        "limit": limit,
        "sort": KEY_NAMES[retention.entity],
        "total": total,
    }
    attributes = {"records": records, "retention_entity": query.search.retention_entity}
    return frame(context.clock.new_id(), "retention_list_response", attributes, understood, warnings)
