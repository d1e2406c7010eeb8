"""Owns the operations on journeys: funnel, scalar, timeseries and list."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

from roster.analyses.funnel import (
    CONVERSION,
    DROPOFF,
    METRICS,
    RATE,
    TIME_TO_CONVERT,
    Asked,
    FlowCompute,
    MembersRequest,
    check_times,
    counts_flows,
    funnel,
    journey_list,
    journey_scalar,
    journey_timeseries,
)
from roster.analyses.journey import Journey, Key
from roster.analyses.measures import FRACTION, MILLISECOND, Compute, Unit, unit_of
from roster.analyses.periods import fitting_ms, fixed_edges
from roster.base.errors import Code, Error
from roster.operations.analysis import (
    AT,
    QUERY_AT,
    answer,
    frame,
    number,
    read_interval_ms,
    read_range,
    unit_list,
)
from roster.operations.analytics import scalar_columns, series_over
from roster.operations.bodies import decode
from roster.operations.bodies_journey import FunnelBody, GraphAttributes, GraphBody, JourneyListBody, JourneySearchBody
from roster.operations.context import Context, Reply, Request
from roster.operations.event_worlds import event_world_of
from roster.operations.journey_requests import (
    AGGREGATION_DEFAULT,
    DropoffFilter,
    read_dropoffs,
    read_dropped,
    read_expression,
    read_flow_groups,
    read_journey,
    read_target,
    told_journey,
    without_effect,
)
from roster.operations.profiles import shown

LIST_LIMIT_DEFAULT = 100
ENTITY_OF = {Key.SESSION: "session", Key.USER: "user", Key.ACCOUNT: "account"}
COMPARE: dict[str, Callable[[float, float], bool]] = {
    "=": operator.eq,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


def query_funnel(context: Context, request: Request) -> Reply:
    """How many sessions, users or accounts take each step, and how long they need from one to the next."""
    asked = decode(FunnelBody, request.body).data.attributes
    query, given = asked.query, asked.query.compute
    aggregation = (given.aggregation if given else None) or AGGREGATION_DEFAULT
    journey = read_journey(
        query.search,
        read_range(asked.from_, asked.to),
        total=aggregation == "count",
        identified_only=asked.exclude_anonymous_traffic or False,
    )
    aliases = read_expression(query.search)
    groups = read_flow_groups(query.group_by, aliases, aggregation)
    compute = _funnel_compute(aggregation, given.metric if given else None, journey)
    dropoffs = read_dropoffs(query.search, aliases)
    world = event_world_of(context, request)
    made = funnel(world, journey, compute, groups)
    warnings = made.warnings if groups else (*made.warnings, *without_effect(dropoffs))
    answers = answer(context, request, world, "QueryProductAnalyticsJourneyFunnel", made.plans, warnings)
    if isinstance(answers, Reply):
        return answers
    names = [column.name for column in answers[0].schema]
    overall = dict(zip(names, answers[0].rows[0], strict=True))
    rows = answers[1].rows if groups else []
    split = [(row[: len(groups)], dict(zip(names, row[len(groups) :], strict=True))) for row in rows]
    split = [part for part in split if all(_admits(part[1], wanted) for wanted in dropoffs)]
    understood = told_journey(journey) | {"aggregation": aggregation, "metric": _metric_told(compute, journey)}
    attributes = _funnel_answer(overall, split, aliases)
    return frame(context.clock.new_id(), "funnel_response", attributes, understood, warnings)


def _metric_told(compute: Compute | None, journey: Journey) -> str:
    return journey.key.value if compute is None else compute.metric or ""


def _funnel_compute(aggregation: str, metric: str | None, journey: Journey) -> Compute | None:
    """What is computed at each step beside flows; None where flows are what is counted."""
    if metric == CONVERSION or counts_flows(journey, metric):
        if aggregation in ("count", "cardinality"):
            return None
        hint = "count and cardinality need none; for others name a facet such as @view.loading_time"
        raise Error(Code.INVALID, f"{aggregation} needs a metric", at=f"{QUERY_AT}/compute/metric", hint=hint)
    if metric in METRICS:
        hint = "a funnel answers rates and times by itself; journey/scalar computes this"
        raise Error(Code.INVALID, f"{metric} is no metric of a funnel", at=f"{QUERY_AT}/compute/metric", hint=hint)
    return Compute(aggregation, metric, f"{QUERY_AT}/compute")


def _admits(values: dict[str, Any], wanted: DropoffFilter) -> bool:
    """Whether a group's drop-off rate is as the filter wants it."""
    entered, converted = values[f"count{wanted.target.start}"], values[f"count{wanted.target.end}"]
    return COMPARE[wanted.op](100 * (entered - converted) / entered if entered else 0.0, wanted.percent)


def _funnel_answer(
    overall: dict[str, Any], split: Sequence[tuple[tuple[Any, ...], dict[str, Any]]], aliases: list[str]
) -> dict[str, Any]:
    last = len(aliases) - 1
    steps = [
        {
            "label": alias,
            "value": _value(overall, n),
            "unit": "millisecond",
            "elapsed_time_to_next_step": _elapsed(overall, n, last),
            "groups": [
                {
                    "group_tags": list(tags),
                    "value": _value(values, n),
                    "conversion_count": values[f"count{n}"],
                    "elapsed_time_to_next_step": _elapsed(values, n, last),
                }
                for tags, values in split
            ],
        }
        for n, alias in enumerate(aliases)
    ]
    entered, converted = overall["count0"], overall[f"count{last}"]
    return {
        "initial_count": entered,
        "end_to_end_conversion_rate": _rate(converted, entered),
        "end_to_end_elapsed_time": _spread(overall, last),
        "funnel_steps": steps,
    }


def _value(values: dict[str, Any], step: int) -> float:
    """The value of a step; nothing to compute is 0."""
    return float(values.get(f"value{step}", values[f"count{step}"]) or 0)


def _elapsed(values: dict[str, Any], step: int, last: int) -> dict[str, int]:
    return {"min": 0, "max": 0, "avg": 0} if step == last else _spread(values, step)


def _spread(values: dict[str, Any], step: int) -> dict[str, int]:
    """Whole milliseconds, 0 where nobody went on."""
    return {name: round(values[f"{name}{step}"] or 0) for name in ("min", "max", "avg")}


def _rate(part: int, whole: int) -> float:
    return part / whole if whole else 0.0


def query_journey_scalar(context: Context, request: Request) -> Reply:
    """One number over the flows of a journey, or one a group."""
    asked = decode(GraphBody, request.body).data.attributes
    journey, compute, groups = _read(asked)
    world = event_world_of(context, request)
    made = journey_scalar(world, journey, compute, groups)
    warnings = _warnings(made, asked.query.search)
    answers = answer(context, request, world, "QueryProductAnalyticsJourneyScalar", made.plans, warnings)
    if isinstance(answers, Reply):
        return answers
    rows = [(*row[: len(groups)], _computed(compute, row[-3:])) for row in answers[0].rows]
    unit = unit_list(_unit(compute.compute))
    columns = scalar_columns([w.group for w in groups], rows, asked.query.query_id or "query", unit)
    understood = told_journey(journey) | _told(compute)
    id = context.clock.new_id()
    return frame(id, "journey_scalar_response", {"columns": columns}, understood, warnings)


def query_journey_timeseries(context: Context, request: Request) -> Reply:
    """Numbers over the flows of a journey by the time at which they began."""
    asked = decode(GraphBody, request.body).data.attributes
    journey, compute, groups = _read(asked)
    own_ms = read_interval_ms(asked.query.compute.interval, f"{QUERY_AT}/compute/interval")
    width_ms = own_ms or read_interval_ms(asked.interval, f"{AT}/interval") or fitting_ms(journey.span)
    edges = fixed_edges(journey.span, width_ms, f"{QUERY_AT}/compute/interval" if own_ms else f"{AT}/interval")
    world = event_world_of(context, request)
    made = journey_timeseries(world, journey, compute, groups, edges)
    warnings = _warnings(made, asked.query.search)
    answers = answer(context, request, world, "QueryProductAnalyticsJourneyTimeseries", made.plans, warnings)
    if isinstance(answers, Reply):
        return answers
    rows = [(*row[:-3], _computed(compute, row[-3:])) for row in answers[0].rows]
    attributes = series_over(edges, width_ms, len(groups), rows, unit_list(_unit(compute.compute)))
    understood = told_journey(journey) | _told(compute) | {"interval": width_ms}
    id = context.clock.new_id()
    return frame(id, "journey_timeseries_response", attributes, understood, warnings)


def _warnings(made: Asked, search: JourneySearchBody) -> tuple[str, ...]:
    return (*made.warnings, *without_effect(read_dropoffs(search, read_expression(search))))


def _read(asked: GraphAttributes) -> tuple[Journey, FlowCompute, tuple[Any, ...]]:
    query, given = asked.query, asked.query.compute
    aggregation = given.aggregation or AGGREGATION_DEFAULT
    journey = read_journey(query.search, read_range(asked.from_, asked.to, AT), total=aggregation == "count")
    aliases = read_expression(query.search)
    at = f"{QUERY_AT}/compute"
    metric = CONVERSION if counts_flows(journey, given.metric) else given.metric
    if metric == CONVERSION and aggregation not in ("count", "cardinality"):
        hint = "count (every completed flow) or cardinality (each key once)"
        raise Error(Code.INVALID, f"{aggregation} of conversions has no meaning", at=f"{at}/aggregation", hint=hint)
    compute = Compute(aggregation, metric, at)
    if metric == TIME_TO_CONVERT:
        check_times(compute)
    target = read_target(given.target, aliases, f"{at}/target")
    return journey, FlowCompute(compute, target), read_flow_groups(query.group_by, aliases, aggregation)


def _computed(asked: FlowCompute, measured: tuple[Any, ...]) -> float | None:
    """The number of one row of measures: entered, converted, value."""
    entered, converted, value = measured
    match asked.compute.metric:
        case "__dd.conversion_rate":
            return _rate(converted, entered)
        case "__dd.dropoff_rate":
            return _rate(entered - converted, entered)
        case _:
            return number(value)


def _unit(compute: Compute) -> Unit | None:
    if compute.metric == TIME_TO_CONVERT:
        return MILLISECOND
    return FRACTION if compute.metric in (RATE, DROPOFF) else unit_of(compute)


def _told(asked: FlowCompute) -> dict[str, Any]:
    target = [asked.target.start, asked.target.end]
    return {"aggregation": asked.compute.aggregation, "metric": asked.compute.metric, "target_steps": target}


def query_journey_list(context: Context, request: Request) -> Reply:
    """Who converted at a target, or dropped off there: a record each."""
    asked = decode(JourneyListBody, request.body).data.attributes
    query = asked.query
    journey = read_journey(
        query.search,
        read_range(asked.from_, asked.to),
        total=False,
        identified_only=asked.exclude_anonymous_traffic or False,
        entities=query.entity_filters,
    )
    aliases = read_expression(query.search)
    groups = read_flow_groups(query.group_by, aliases)
    dropped = query.conversion_type == "drop-off"
    read = read_dropped if dropped else read_target
    limit = query.limit or LIST_LIMIT_DEFAULT
    wanted = MembersRequest(
        read(query.target, aliases, f"{QUERY_AT}/target"),
        dropped,
        tuple(dict.fromkeys(query.entity_columns or ())),
        bool(query.computed_columns),
        query.sort.facet if query.sort else None,
        (query.sort.order if query.sort else None) != "asc",
        limit,
    )
    world = event_world_of(context, request)
    made, names = journey_list(world, journey, wanted, groups)
    warnings = _warnings(made, query.search)
    answers = answer(context, request, world, "QueryProductAnalyticsJourneyList", made.plans, warnings)
    if isinstance(answers, Reply):
        return answers
    records = [dict(zip(names, map(shown, row), strict=True)) for row in answers[0].rows]
    attributes = {"entity": ENTITY_OF[journey.key], "records": records, "total_count": answers[1].rows[0][0]}
    understood = told_journey(journey) | {
        "conversion_type": "drop-off" if dropped else "conversion",
        "target_steps": [wanted.target.start, wanted.target.end],
        "limit": limit,
    }
    id = context.clock.new_id()
    return frame(id, "journey_list_response", attributes, understood, warnings)
