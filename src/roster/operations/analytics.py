"""Owns the plain analyses of events: scalar, timeseries and list."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from roster.analyses.explore import Explored, ListRequest, Selection, list_events, scalar, timeseries
from roster.analyses.groups import GroupBy
from roster.analyses.measures import Compute, unit_of
from roster.analyses.periods import fitting_ms, fixed_edges
from roster.base.errors import Code, Error
from roster.base.time import Range
from roster.operations.analysis import (
    QUERY_AT,
    answer,
    frame,
    number,
    read_audience,
    read_base_query,
    read_compute,
    read_groups,
    read_interval_ms,
    read_range,
    told_range,
    unit_list,
)
from roster.operations.bodies import decode
from roster.operations.bodies_analyses import AnalyticsBody, AnalyticsListBody, AnalyticsQuery
from roster.operations.context import Context, Reply, Request
from roster.operations.event_worlds import event_world_of
from roster.operations.profiles import shown

COLUMNS_DEFAULT = ("date", "@type", "@usr.id", "@session.id", "@view.name", "@action.name")
LIST_LIMIT_DEFAULT = 100
POINTS_MAX = 500_000
"""Series times buckets of one answer."""


def query_scalar(context: Context, request: Request) -> Reply:
    """One number over the events that match, or one a group."""
    asked = decode(AnalyticsBody, request.body).data.attributes
    selection, compute, groups = read_analytics(asked.from_, asked.to, asked.query)
    world = event_world_of(context, request)
    made = scalar(world, selection, compute, groups)
    answers = answer(context, request, world, "QueryProductAnalyticsScalar", made.plans, made.warnings)
    if isinstance(answers, Reply):
        return answers
    columns = scalar_columns(groups, answers[0].rows, "query", unit_list(unit_of(compute)))
    understood = _understood(selection.span, compute, groups)
    id = asked.request_id or context.clock.new_id()
    return frame(id, "scalar_response", {"columns": columns}, understood, made.warnings)


def scalar_columns(
    groups: Sequence[GroupBy], rows: Sequence[tuple[Any, ...]], name: str, unit: list[dict[str, Any]] | None
) -> list[dict[str, Any]]:
    """A column a group, and the numbers; rows hold the groups' values, then the number."""
    columns: list[dict[str, Any]] = [
        {"name": g.facet, "type": "group", "values": [row[n] for row in rows], "meta": {"unit": None}}
        for n, g in enumerate(groups)
    ]
    values = [number(row[len(groups)]) for row in rows]
    return [*columns, {"name": name, "type": "number", "values": values, "meta": {"unit": unit}}]


def query_timeseries(context: Context, request: Request) -> Reply:
    """Numbers over time: one series, or one a group."""
    asked = decode(AnalyticsBody, request.body).data.attributes
    selection, compute, groups = read_analytics(asked.from_, asked.to, asked.query)
    at = f"{QUERY_AT}/compute/interval"
    width_ms = read_interval_ms(asked.query.compute.interval, at) or fitting_ms(selection.span)
    edges = fixed_edges(selection.span, width_ms, at)
    world = event_world_of(context, request)
    made: Explored = timeseries(world, selection, compute, groups, edges)
    answers = answer(context, request, world, "QueryProductAnalyticsTimeseries", made.plans, made.warnings)
    if isinstance(answers, Reply):
        return answers
    attributes = series_over(edges, width_ms, len(groups), answers[0].rows, unit_list(unit_of(compute)))
    understood = _understood(selection.span, compute, groups) | {"interval": width_ms}
    id = asked.request_id or context.clock.new_id()
    return frame(id, "timeseries_response", attributes, understood, made.warnings)


def series_over(
    edges: Sequence[int],
    width_ms: int,
    groups: int,
    rows: Sequence[tuple[Any, ...]],
    unit: list[dict[str, Any]] | None,
) -> dict[str, Any]:
    """Series over the starts of the buckets. Rows hold the ranks of their groups, the groups' values, the bucket's
    place and the number, those of one series together; a bucket without a row is null. Without rows all is empty.
    """
    if not rows:
        return {"series": [], "times": [], "values": [], "intervals": []}
    times = list(edges[:-1])
    values: dict[tuple[Any, ...], list[float | None]] = {}
    for row in rows:
        tags = row[groups : 2 * groups]
        values.setdefault(tags, [None] * len(times))[row[2 * groups]] = number(row[2 * groups + 1])
        if len(values) * len(times) > POINTS_MAX:
            hint = f"at most {POINTS_MAX:,} points: use a longer interval, or a smaller limit of groups"
            raise Error(Code.TOO_LARGE, "the answer has too many points", hint=hint)
    known = {"unit": unit} if unit else {}  # the contract has no null here
    series = [{"group_tags": list(tags), "query_index": 0} | known for tags in values]
    interval = {"milliseconds": width_ms, "start_time": times[0], "times": times, "type": "fixed"}
    return {"series": series, "times": times, "values": list(values.values()), "intervals": [interval]}


def query_list(context: Context, request: Request) -> Reply:
    """Events that match, a record each, the newest first unless asked otherwise."""
    asked = decode(AnalyticsListBody, request.body).data.attributes
    query = asked.query
    span = read_range(asked.from_, asked.to)
    selection = Selection(
        span,
        read_base_query(query.query, f"{QUERY_AT}/query"),
        read_audience(query.audience_filters, f"{QUERY_AT}/audience_filters"),
    )
    columns = tuple(dict.fromkeys(query.columns or COLUMNS_DEFAULT))
    sort = query.sort.facet if query.sort else None
    descending = (query.sort.order if query.sort else None) != "asc"
    limit = query.limit or LIST_LIMIT_DEFAULT
    world = event_world_of(context, request)
    made = list_events(world, ListRequest(selection, columns, sort, descending, limit))
    answers = answer(context, request, world, "QueryProductAnalyticsList", made.plans, made.warnings)
    if isinstance(answers, Reply):
        return answers
    records = [dict(zip(columns, map(shown, row), strict=True)) for row in answers[0].rows]
    attributes = {"records": records, "total_count": answers[1].rows[0][0]}
    understood = told_range(span) | {"columns": list(columns), "limit": limit, "sort": sort or "date"}
    id = context.clock.new_id()
    return frame(id, "list_response", attributes, understood, made.warnings)


def read_analytics(from_ms: int, to_ms: int, query: AnalyticsQuery) -> tuple[Selection, Compute, tuple[GroupBy, ...]]:
    """Which events, what is computed of them and in which groups. Errors: INVALID with the place."""
    selection = Selection(
        read_range(from_ms, to_ms),
        read_base_query(query.query, f"{QUERY_AT}/query"),
        read_audience(query.audience_filters, f"{QUERY_AT}/audience_filters"),
    )
    compute = read_compute(query.compute, f"{QUERY_AT}/compute")
    return selection, compute, read_groups(query.group_by, f"{QUERY_AT}/group_by", compute.aggregation)


def _understood(span: Range, compute: Compute, groups: Sequence[GroupBy]) -> dict[str, Any]:
    told = told_range(span) | {"aggregation": compute.aggregation}
    if compute.metric is not None:
        told["metric"] = compute.metric
    if groups:
        told["group_by"] = [{"facet": g.facet, "limit": g.limit} for g in groups]
    return told
