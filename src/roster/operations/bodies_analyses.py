"""Owns the request bodies of the analyses as strict models: what the contract says, and our extensions."""

from __future__ import annotations

from typing import Annotated, Literal as OneOf

from pydantic import Field as Rule

from roster.operations.bodies import Body, Int64

Positive = Annotated[int, Rule(ge=1, le=2**63 - 1)]
Natural = Annotated[int, Rule(ge=0, le=2**63 - 1)]


class OccurrencesBody(Body):
    operator: str
    value: str
    meta: dict[str, str] | None = None


class SearchBody(Body):
    query: str | None = None
    occurrences: OccurrencesBody | None = None


class BaseQueryBody(Body):
    """Either data source; `occurrences` only with the second."""

    data_source: OneOf["product_analytics", "product_analytics_occurrence"]
    search: SearchBody


class NamedQueryBody(Body):
    name: str
    query: str | None = None


class NamedSegmentBody(Body):
    name: str
    segment_id: str


class AudienceBody(Body):
    users: list[NamedQueryBody] | None = None
    accounts: list[NamedQueryBody] | None = None
    segments: list[NamedSegmentBody] | None = None
    formula: str | None = None


class JoinKeysBody(Body):
    primary: str | None = None
    secondary: list[str] | None = None


class RankBody(Body):
    aggregation: str | None = None
    metric: str | None = None
    order: OneOf["asc", "desc"] | None = None


class GroupByBody(Body):
    facet: str
    limit: Positive | None = None
    should_exclude_missing: bool | None = None
    sort: RankBody | None = None
    source: str | None = None


class ComputeBody(Body):
    """`interval` is the timeseries'."""

    aggregation: str
    metric: str | None = None
    interval: Int64 | None = None


# analytics/scalar, analytics/timeseries, analytics/list


class AnalyticsQuery(Body):
    query: BaseQueryBody
    compute: ComputeBody
    group_by: list[GroupByBody] | None = None
    audience_filters: AudienceBody | None = None
    indexes: Annotated[list[str], Rule(max_length=1)] | None = None


class AnalyticsAttributes(Body):
    from_: Int64 = Rule(alias="from")
    to: Int64
    query: AnalyticsQuery
    request_id: str | None = None
    enforced_execution_type: OneOf["simple", "background", "trino-multistep", "materialized-view"] | None = None


class AnalyticsData(Body):
    type: OneOf["formula_analytics_extended_request"]
    attributes: AnalyticsAttributes


class AnalyticsBody(Body):
    data: AnalyticsData


class ListSortBody(Body):
    facet: str | None = None
    order: OneOf["asc", "desc"] | None = None


class AnalyticsListQuery(Body):
    query: BaseQueryBody
    columns: list[str] | None = None
    limit: Annotated[int, Rule(ge=1, le=1000)] | None = None
    sort: ListSortBody | None = None
    audience_filters: AudienceBody | None = None


class AnalyticsListAttributes(Body):
    from_: Int64 = Rule(alias="from")
    to: Int64
    query: AnalyticsListQuery


class AnalyticsListData(Body):
    type: OneOf["formula_analytics_extended_list_request"]
    attributes: AnalyticsListAttributes


class AnalyticsListBody(Body):
    data: AnalyticsListData
