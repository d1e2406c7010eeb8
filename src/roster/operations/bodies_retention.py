"""Owns the request bodies of retention as strict models: what the contract says, and our extensions."""

from __future__ import annotations

from typing import Annotated, Literal as OneOf

from pydantic import Field as Rule

from roster.operations.bodies import Body, Int64
from roster.operations.bodies_analyses import AudienceBody, BaseQueryBody, GroupByBody, Natural, Positive


class CalendarBody(Body):
    type: OneOf["minute", "hour", "day", "week", "month", "quarter", "year"]
    quantity: Positive | None = None
    alignment: str | None = None
    timezone: str | None = None


class CalendarIntervalBody(Body):
    type: OneOf["calendar"]
    value: CalendarBody


class FixedIntervalBody(Body):
    type: OneOf["fixed"]
    unit: OneOf["day", "week", "month"]
    value: Annotated[float, Rule(gt=0)]


IntervalBody = Annotated[CalendarIntervalBody | FixedIntervalBody, Rule(discriminator="type")]


class CohortCriteriaBody(Body):
    base_query: BaseQueryBody
    time_interval: IntervalBody


class ReturnCriteriaBody(Body):
    base_query: BaseQueryBody
    time_interval: IntervalBody | None = None


class RetentionFiltersBody(Body):
    audience_filters: AudienceBody | None = None
    string_filter: str | None = None


class RetentionSearchBody(Body):
    """`first_time_only` is ours: each entity is only in its first cohort."""

    cohort_criteria: CohortCriteriaBody
    return_criteria: ReturnCriteriaBody | None = None
    retention_entity: OneOf["@usr.id", "@account.id"]
    return_condition: OneOf["conversion_on", "conversion_on_or_after"]
    filters: RetentionFiltersBody | None = None
    first_time_only: bool | None = None


class RetentionComputeBody(Body):
    aggregation: str
    metric: OneOf["__dd.retention", "__dd.retention_rate"]


class RetentionGroupBody(GroupByBody):
    target: OneOf["cohort", "return_period"]


class IndexBody(Body):
    type: OneOf["index"]
    value: Natural


class WeightedBody(Body):
    type: OneOf["aggregation"]
    value: str


CohortTargetBody = Annotated[IndexBody | WeightedBody, Rule(discriminator="type")]


class CohortScopeBody(Body):
    type: OneOf["cohort"]
    target: CohortTargetBody


class ReturnPeriodScopeBody(Body):
    type: OneOf["return_period"]
    target: IndexBody


class CellScopeBody(Body):
    type: OneOf["cell"]
    cohort_target: CohortTargetBody
    return_period_target: IndexBody


ScopeBody = Annotated[CohortScopeBody | ReturnPeriodScopeBody | CellScopeBody, Rule(discriminator="type")]


class RetentionQuery(Body):
    search: RetentionSearchBody
    compute: RetentionComputeBody
    group_by: list[RetentionGroupBody] | None = None
    computation_scope: ScopeBody | None = None


class RetentionAttributes(Body):
    from_: Int64 = Rule(alias="from")
    to: Int64
    query: RetentionQuery
    exclude_anonymous_traffic: bool | None = None


# retention/grid


class GridData(Body):
    type: OneOf["retention_grid_request"]
    attributes: RetentionAttributes


class GridBody(Body):
    data: GridData


# retention/scalar, retention/timeseries


class FormulaRetentionData(Body):
    type: OneOf["formula_retention_request"]
    attributes: RetentionAttributes


class FormulaRetentionBody(Body):
    data: FormulaRetentionData


# retention/list


class RetentionFieldBody(Body):
    path: str | None = None


class RetentionColumnBody(Body):
    field: RetentionFieldBody | None = None


class RetentionListQuery(Body):
    search: RetentionSearchBody
    computation_scope: CellScopeBody
    columns: list[RetentionColumnBody] | None = None
    limit: Natural | None = None


class RetentionListAttributes(Body):
    """`exclude_anonymous_traffic` is ours here."""

    from_: Int64 = Rule(alias="from")
    to: Int64
    query: RetentionListQuery
    exclude_anonymous_traffic: bool | None = None


class RetentionListData(Body):
    type: OneOf["retention_list_request"]
    attributes: RetentionListAttributes


class RetentionListBody(Body):
    data: RetentionListData
