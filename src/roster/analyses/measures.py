"""Owns aggregations by their names in requests, with the unit of what they give."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from roster.analyses.event_world import text_of
from roster.base.errors import Code, Error, did_you_mean
from roster.model.schema import NUMERIC, Type
from roster.query.expr import Cast, Expr, type_of
from roster.query.plan import Agg, Measure

AGGREGATIONS = ("count", "cardinality", "sum", "avg", "min", "max", "median", "pc50", "pc75", "pc90", "pc95", "pc99")
_AGG = {"sum": Agg.SUM, "avg": Agg.AVG, "min": Agg.MIN, "max": Agg.MAX}
_QUANTILE = re.compile(r"pc([0-9]{1,2})")
_VIEW_TIMES = (
    "cumulative_layout_shift_time",
    "dom_complete",
    "dom_content_loaded",
    "dom_interactive",
    "first_byte",
    "first_contentful_paint",
    "first_input_delay",
    "first_input_time",
    "interaction_to_next_paint",
    "interaction_to_next_paint_time",
    "interaction_to_next_view_time",
    "largest_contentful_paint",
    "load_event",
    "loading_time",
    "network_settled_time",
    "time_spent",
)
_RESOURCE_PARTS = ("connect", "dns", "download", "first_byte", "redirect", "ssl", "worker")
_DURATIONS = {
    "action.loading_time",
    "avg_loading_time",
    "freeze.duration",
    "long_task.blocking_duration",
    "long_task.duration",
    "resource.duration",
    "session.time_spent",
    "vital.duration",
    *(f"resource.{part}.{name}" for part in _RESOURCE_PARTS for name in ("duration", "start")),
    *(f"view.{name}" for name in _VIEW_TIMES),
}
"""Paths of events, and built-in attributes, that are kept in nanoseconds."""
_TIMINGS = "view.custom_timings."
"""Begins the paths of durations that have any name."""


@dataclass(frozen=True, slots=True)
class Compute:
    """An aggregation of a metric; count needs none. `at`: where it stands in the request."""

    aggregation: str
    metric: str | None
    at: str


@dataclass(frozen=True, slots=True)
class Unit:
    family: str
    name: str
    plural: str
    short_name: str
    scale_factor: float


NANOSECOND = Unit("time", "nanosecond", "nanoseconds", "ns", 1e-9)
MILLISECOND = Unit("time", "millisecond", "milliseconds", "ms", 1e-3)
FRACTION = Unit("percentage", "fraction", "fractions", "", 1.0)


def unit_of(compute: Compute) -> Unit | None:
    """What a value is measured in, None for counts and where nobody knows."""
    if compute.aggregation in ("count", "cardinality") or compute.metric is None:
        return None
    path = compute.metric.removeprefix("@")
    return NANOSECOND if path in _DURATIONS or path.startswith(_TIMINGS) else None


def check_aggregation(compute: Compute) -> None:
    """Error: INVALID for an aggregation that there is not."""
    name = compute.aggregation
    if name not in ("count", "cardinality", *_AGG) and _quantile(name) is None:
        hint = did_you_mean(name, AGGREGATIONS) or f"allowed: {', '.join(AGGREGATIONS)} and any pc0 to pc99"
        raise Error(Code.INVALID, f"unknown aggregation {name!r}", at=f"{compute.at}/aggregation", hint=hint)


def measure_of(name: str, compute: Compute, facet: Callable[[str], Expr | None]) -> Measure:
    """The aggregate a compute asks for, under a name. Errors: INVALID names the aggregation or the missing metric."""
    check_aggregation(compute)
    aggregation, quantile = compute.aggregation, _quantile(compute.aggregation)
    if aggregation == "count":
        return Measure(name, Agg.COUNT)
    if compute.metric is None:
        hint = "name a facet such as @view.loading_time"
        raise Error(Code.INVALID, f"{aggregation} needs a metric", at=f"{compute.at}/metric", hint=hint)
    item = facet(compute.metric)
    if item is None:
        raise Error(Code.INVALID, f"unknown metric {compute.metric!r}", at=f"{compute.at}/metric")
    if aggregation == "cardinality":
        return Measure(name, Agg.DISTINCT, text_of(item))
    number = item if type_of(item) in NUMERIC else Cast(item, Type.NUMBER)
    if quantile is not None:
        return Measure(name, Agg.QUANTILE, number, quantile)
    return Measure(name, _AGG[aggregation], number)


def _quantile(aggregation: str) -> float | None:
    if aggregation == "median":
        return 0.5
    found = _QUANTILE.fullmatch(aggregation)
    return int(found[1]) / 100 if found else None
