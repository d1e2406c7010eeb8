"""Owns reading retention out of requests: intervals, criteria, groups, scopes, and telling what was understood."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC
from typing import Any
from zoneinfo import ZoneInfo

from roster.analyses.base_query import BaseQuery
from roster.analyses.measures import check_aggregation
from roster.analyses.periods import Interval, Step, read_interval
from roster.analyses.retention import Retention, RetentionGroup
from roster.analyses.retention_grid import AGGREGATIONS, WHOLE, Scope
from roster.analyses.retention_periods import Every, Periods, fixed, lay_out
from roster.base.errors import Code, Error, did_you_mean
from roster.base.time import Range, instant, iso_ms
from roster.model.schema import Entity
from roster.operations.analysis import (
    GROUPS_MAX,
    QUERY_AT,
    read_audience,
    read_base_query,
    read_group,
    read_range,
    told_range,
)
from roster.operations.bodies_retention import (
    CellScopeBody,
    CohortScopeBody,
    CohortTargetBody,
    FixedIntervalBody,
    IndexBody,
    IntervalBody,
    RetentionAttributes,
    RetentionComputeBody,
    RetentionGroupBody,
    RetentionSearchBody,
    ReturnPeriodScopeBody,
    ScopeBody,
    WeightedBody,
)

SEARCH_AT = f"{QUERY_AT}/search"
COHORT_AT, RETURN_AT = f"{SEARCH_AT}/cohort_criteria", f"{SEARCH_AT}/return_criteria"
SCOPE_AT = f"{QUERY_AT}/computation_scope"
ENTITIES = {"@usr.id": Entity.USERS, "@account.id": Entity.ACCOUNTS}
RATE = "__dd.retention_rate"
QUANTITY_MAX = 1000
ROLLUPS = ("avg", "average", "mean", "weightedavg", "weightedaverage", "weightedmean")
"""Names of the average over cohorts, weighted by their sizes, in small letters alone."""


def read_retention(body: RetentionSearchBody, span: Range, *, identified_only: bool) -> tuple[Retention, Every, Every]:
    """Whose retention, with the intervals of cohorts and of returns. Errors: INVALID with the place."""
    cohort, given = body.cohort_criteria, body.return_criteria
    every = _interval(cohort.time_interval, f"{COHORT_AT}/time_interval")
    again = every
    return_at = f"{COHORT_AT}/time_interval"
    if given is not None and given.time_interval is not None:
        return_at = f"{RETURN_AT}/time_interval"
        again = _interval(given.time_interval, return_at)
    filters = body.filters
    asked = Retention(
        span,
        ENTITIES[body.retention_entity],
        lay_out(span, every, again, f"{COHORT_AT}/time_interval", return_at),
        read_base_query(cohort.base_query, f"{COHORT_AT}/base_query"),
        read_base_query(given.base_query, f"{RETURN_AT}/base_query") if given else None,
        body.return_condition == "conversion_on_or_after",
        read_audience(filters.audience_filters if filters else None, f"{SEARCH_AT}/filters/audience_filters"),
        BaseQuery((filters.string_filter if filters else None) or "", f"{SEARCH_AT}/filters/string_filter"),
        body.first_time_only or False,
        identified_only,
    )
    return asked, every, again


def _interval(body: IntervalBody, at: str) -> Every:
    if isinstance(body, FixedIntervalBody):
        return fixed(body.unit, body.value, at)
    value = body.value
    if value.quantity is not None and value.quantity > QUANTITY_MAX:
        message = f"a quantity of {value.quantity:,} is too much"
        raise Error(Code.INVALID, message, at=f"{at}/value/quantity", hint=f"at most {QUANTITY_MAX:,}")
    return read_interval(value.type, value.quantity, value.alignment, value.timezone, f"{at}/value")


@dataclass(frozen=True, slots=True)
class GridRequest:
    """What is asked of the cells of a retention. `every`, `again`: the intervals of cohorts and of returns."""

    retention: Retention
    every: Every
    again: Every
    metric: str
    aggregation: str
    groups: tuple[RetentionGroup, ...]
    scope: Scope
    warnings: tuple[str, ...]

    @property
    def rates(self) -> bool:
        return self.metric == RATE


def read_grid(body: RetentionAttributes) -> GridRequest:
    """A request about cells. Errors: INVALID with the place and what would be right."""
    query = body.query
    span = read_range(body.from_, body.to)
    identified_only = body.exclude_anonymous_traffic or False
    retention, every, again = read_retention(query.search, span, identified_only=identified_only)
    groups, warnings = read_retention_groups(query.group_by)
    return GridRequest(
        retention,
        every,
        again,
        query.compute.metric,
        read_aggregation(query.compute),
        groups,
        read_scope(query.computation_scope, retention.periods),
        (*warnings, *_doubts(query.computation_scope)),
    )


def told_grid(grid: GridRequest, computed: str) -> dict[str, Any]:
    """What was understood of a request about cells; `computed`: which of them make the answer."""
    told = told_retention(grid.retention, grid.every, grid.again)
    told |= {"metric": grid.metric, "aggregation": grid.aggregation, "computed": computed}
    if grid.groups:
        told["group_by"] = [{"facet": g.group.facet, "limit": g.group.limit} for g in grid.groups]
    return told


def read_aggregation(body: RetentionComputeBody) -> str:
    """How many cells become one number. Error: INVALID names the allowed ones."""
    name = body.aggregation.strip().lower()
    if name not in AGGREGATIONS:
        hint = did_you_mean(name, AGGREGATIONS) or f"allowed: {', '.join(AGGREGATIONS)}"
        at = f"{QUERY_AT}/compute/aggregation"
        raise Error(Code.INVALID, f"unknown aggregation {body.aggregation!r}", at=at, hint=hint)
    return name


def read_retention_groups(bodies: Sequence[RetentionGroupBody] | None) -> tuple[tuple[RetentionGroup, ...], list[str]]:
    """Groups, and warnings: they are always ranked by how many they are. Errors: INVALID for too many, or a
    sort by no aggregation.
    """
    given, at = bodies or (), f"{QUERY_AT}/group_by"
    if len(given) > GROUPS_MAX:
        raise Error(Code.INVALID, f"{len(given)} groups are too many", at=at, hint=f"at most {GROUPS_MAX}")
    groups = tuple(
        RetentionGroup(read_group(body, f"{at}/{n}", "count"), body.target == "return_period")
        for n, body in enumerate(given)
    )
    ranks = [g.group.rank for g in groups if g.group.rank is not None]
    for rank in ranks:
        check_aggregation(rank)
    plain = all(r.aggregation in ("count", "cardinality") and r.metric in (None, "__dd.retention") for r in ranks)
    return groups, [] if plain else ["groups of retention are ranked by how many are in their cohorts"]


def read_scope(body: ScopeBody | None, periods: Periods) -> Scope:
    """The part of the grid that is asked for. Errors: INVALID where the grid does not reach so far."""
    match body:
        case None:
            return WHOLE
        case CohortScopeBody():
            return _cohort(body.target, periods, f"{SCOPE_AT}/target/value")
        case ReturnPeriodScopeBody():
            return Scope(column=_index(body.target, periods.columns(0), "return period", f"{SCOPE_AT}/target/value"))
        case CellScopeBody():
            scope = _cohort(body.cohort_target, periods, f"{SCOPE_AT}/cohort_target/value")
            most = periods.columns(scope.cohort or 0)
            column = _index(body.return_period_target, most, "return period", f"{SCOPE_AT}/return_period_target/value")
            return Scope(scope.cohort, scope.weighted, column)


def _doubts(body: ScopeBody | None) -> list[str]:
    """What to tell of a roll-up over cohorts that there is not: there is one."""
    match body:
        case CohortScopeBody(target=WeightedBody(value=name)) | CellScopeBody(cohort_target=WeightedBody(value=name)):
            known = re.sub("[ _-]", "", name.lower()) in ROLLUPS
            return [] if known else [f"cohorts have no aggregation {name!r}: their weighted average is taken"]
        case _:
            return []


def _cohort(target: CohortTargetBody, periods: Periods, at: str) -> Scope:
    if isinstance(target, IndexBody):
        return Scope(_index(target, periods.cohorts, "cohort", at))
    return Scope(weighted=True)


def _index(target: IndexBody, count: int, what: str, at: str) -> int:
    if target.value >= count:
        hint = f"from 0 to {count - 1}"
        raise Error(Code.INVALID, f"there is no {what} {target.value}", at=at, hint=hint)
    return target.value


def unit_of_interval(every: Every) -> tuple[str, int]:
    """What periods are told in, and how many of it one is."""
    if isinstance(every, Interval):
        return every.step.value, every.count
    return every.unit, every.count


def name_of(start_ms: int, every: Every) -> str:
    """What a cohort is called: its start in the interval's time zone, a day or a minute."""
    zone = every.zone if isinstance(every, Interval) else "UTC"
    told = instant(start_ms).replace(tzinfo=UTC).astimezone(ZoneInfo(zone))
    short = isinstance(every, Interval) and every.step not in (Step.MINUTE, Step.HOUR) and told.hour == 0
    return told.strftime("%Y-%m-%d" if short else "%Y-%m-%dT%H:%M")


def told_retention(asked: Retention, every: Every, again: Every) -> dict[str, Any]:
    """What was understood of a retention, defaults too."""
    return told_range(asked.span) | {
        "cohort_interval": told_interval(every),
        "return_interval": told_interval(again),
        "cohorts": asked.periods.cohorts,
        "first_cohort_start_time": iso_ms(instant(asked.periods.edges[0])),
        "return_event": "the event of the cohort" if asked.returned is None else "an event of its own",
        "membership": "the first cohort" if asked.first_only else "every cohort with an event",
        "anonymous_traffic": "excluded" if asked.identified_only else "included",
    }


def told_interval(every: Every) -> dict[str, Any]:
    if isinstance(every, Interval):
        told = {"type": every.step.value, "quantity": every.count, "timezone": every.zone}
        return told | ({"offset": every.offset} if every.offset else {})
    return {"type": "fixed", "milliseconds": every.width_ms}
