"""Owns the request bodies of journeys as strict models: what the contract says, and our extensions."""

from __future__ import annotations

from typing import Annotated, Literal as OneOf

from pydantic import Field as Rule

from roster.operations.bodies import Body, ClosedBody, Int64
from roster.operations.bodies_analyses import AudienceBody, BaseQueryBody, GroupByBody, JoinKeysBody, Positive

AGGREGATION = r"^(count|cardinality|avg|median|min|max|sum|pc[0-9]{1,2})$"
Aggregation = Annotated[str, Rule(pattern=AGGREGATION)]


class NodeTargetBody(Body):
    type: OneOf["node"]
    value: str


class PathTargetBody(Body):
    type: OneOf["path"]
    start: str
    end: str


TargetBody = Annotated[NodeTargetBody | PathTargetBody, Rule(discriminator="type")]


class GraphFilterBody(Body):
    name: OneOf["__dd.time_to_convert", "__dd.session", "__dd.dropoff_rate"]
    operator: OneOf["=", "<", ">", "<=", ">="]
    value: Int64
    target: TargetBody | None = None


class JourneyFiltersBody(Body):
    audience_filters: AudienceBody | None = None
    graph_filters: list[GraphFilterBody] | None = None
    string_filter: str | None = None


class ExclusionBody(ClosedBody):
    """Ours: events that end an attempt between two steps; without steps between any two."""

    query: str
    after: str | None = None
    before: str | None = None


class JourneySearchBody(Body):
    """The last five are ours."""

    expression: str
    node_objects: dict[str, BaseQueryBody]
    join_keys: JoinKeysBody | None = None
    filters: JourneyFiltersBody | None = None
    conversion_window_ms: Positive | None = None
    order: OneOf["loose", "strict"] | None = None
    exclusions: list[ExclusionBody] | None = None
    include_active_sessions: bool | None = None
    clip_to_range: bool | None = None


class GraphGroupByBody(GroupByBody):
    target: TargetBody | None = None
    value_filters: list[str] | None = None


class FunnelComputeBody(Body):
    aggregation: Aggregation | None = None
    metric: str | None = None


class FunnelQuery(Body):
    search: JourneySearchBody
    compute: FunnelComputeBody | None = None
    group_by: list[GraphGroupByBody] | None = None


class FunnelAttributes(Body):
    from_: Int64 = Rule(alias="from")
    to: Int64
    query: FunnelQuery
    exclude_anonymous_traffic: bool | None = None


class FunnelData(Body):
    type: OneOf["journey_request"]
    attributes: FunnelAttributes


class FunnelBody(Body):
    data: FunnelData


class GraphComputeBody(Body):
    """`interval` is the timeseries'."""

    aggregation: Aggregation | None = None
    interval: Int64 | None = None
    metric: str | None = None
    target: TargetBody | None = None


class GraphQuery(Body):
    search: JourneySearchBody
    compute: GraphComputeBody
    group_by: list[GraphGroupByBody] | None = None
    query_id: str | None = None


class GraphAttributes(Body):
    """`interval` is the timeseries'; that of the compute counts before it."""

    from_: Int64 = Rule(alias="from")
    to: Int64
    query: GraphQuery
    interval: Int64 | None = None


class GraphData(Body):
    type: OneOf["formula_journey_request"]
    attributes: GraphAttributes


class GraphBody(Body):
    data: GraphData


class ComputedColumnBody(Body):
    name: OneOf["first_conversion_timestamps"]


class JourneySortBody(Body):
    facet: str | None = None
    order: OneOf["asc", "desc"] | None = None


class JourneyListQuery(Body):
    search: JourneySearchBody
    conversion_type: OneOf["conversion", "drop-off"] | None = None
    entity_columns: list[str] | None = None
    entity_filters: str | None = None
    computed_columns: list[ComputedColumnBody] | None = None
    group_by: list[GraphGroupByBody] | None = None
    limit: Positive | None = None
    sort: JourneySortBody | None = None
    target: TargetBody | None = None


class JourneyListAttributes(Body):
    """`exclude_anonymous_traffic` is ours here."""

    from_: Int64 = Rule(alias="from")
    to: Int64
    query: JourneyListQuery
    exclude_anonymous_traffic: bool | None = None


class JourneyListData(Body):
    type: OneOf["journey_list_request"]
    attributes: JourneyListAttributes


class JourneyListBody(Body):
    data: JourneyListData
