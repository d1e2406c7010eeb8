"""Owns the request body of static segments as strict models: the draft's, and our other ways to say who is on one."""

from __future__ import annotations

from typing import Annotated, Literal as OneOf

from pydantic import Field as Rule

from roster.operations.bodies import Body, ClosedBody, Int64
from roster.operations.bodies_analyses import AnalyticsQuery
from roster.operations.bodies_journey import JourneyListQuery
from roster.operations.bodies_retention import RetentionGroupBody, RetentionListQuery
from roster.operations.bodies_sankey import SankeyAttributes

IDS_MAX = 10_000


class NodeFilterBody(ClosedBody):
    attribute: Annotated[str, Rule(min_length=1)]
    value: str


class QueryNodeBody(ClosedBody):
    filters: Annotated[list[NodeFilterBody], Rule(min_length=1, max_length=50)]


class JourneyQueryBody(ClosedBody):
    nodes: Annotated[list[QueryNodeBody], Rule(min_length=1, max_length=50)]


class BucketBody(ClosedBody):
    """One point of a series, half-open."""

    from_: Int64 = Rule(alias="from")
    to: Int64


# ClosedBody comes last among the bases below: of two configurations the last one wins.


class StepQuery(JourneyListQuery, ClosedBody):
    pass


class StepBody(ClosedBody):
    """A step of a journey, as journey/list takes it; of groups the one that `group_tags` tells.

    `aggregation` is that of the number: `count` looks at every completed flow.
    """

    from_: Int64 = Rule(alias="from")
    to: Int64
    query: StepQuery
    exclude_anonymous_traffic: bool | None = None
    aggregation: OneOf["cardinality", "count"] | None = None
    group_tags: list[str] | None = None
    bucket: BucketBody | None = None


class CellQuery(RetentionListQuery, ClosedBody):
    group_by: list[RetentionGroupBody] | None = None


class CellBody(ClosedBody):
    """A cell of retention, as retention/list takes it; of groups the one that `group_tags` tells."""

    from_: Int64 = Rule(alias="from")
    to: Int64
    query: CellQuery
    exclude_anonymous_traffic: bool | None = None
    group_tags: list[str] | None = None


class BarQuery(AnalyticsQuery, ClosedBody):
    pass


class BarBody(ClosedBody):
    """A number over events, as analytics/scalar takes it; `bucket` makes it a point of a series over the range."""

    from_: Int64 = Rule(alias="from")
    to: Int64
    query: BarQuery
    group_tags: list[str] | None = None
    bucket: BucketBody | None = None


class LinkBody(SankeyAttributes, ClosedBody):
    """A step of pathways, as sankey takes them: from a node of a column to one of the next.

    Nodes are told by their names, and `other` and `dropoff` by their types.
    """

    column: Annotated[int, Rule(ge=0, le=11)]
    source_node: str | None = None
    target_node: str | None = None
    source_type: OneOf["regular", "other"] | None = None
    target_type: OneOf["regular", "other", "dropoff"] | None = None


class BehindAttributes(ClosedBody):
    """Who is behind a number: exactly one of the last four."""

    entity: OneOf["users", "accounts"] | None = None
    analytics: BarBody | None = None
    journey: StepBody | None = None
    retention: CellBody | None = None
    sankey: LinkBody | None = None


class StaticSegmentAttributes(BehindAttributes):
    """Only `journey_query_object` is the draft's."""

    name: str
    description: str | None = None
    tags: list[str] | None = None
    journey_query_object: JourneyQueryBody | None = None
    ids: Annotated[list[str], Rule(min_length=1, max_length=IDS_MAX)] | None = None
    upload_id: str | None = None
    column: str | None = None
    match: OneOf["id", "email"] | None = None


class StaticSegmentData(Body):
    type: OneOf["create_static_segment_request"]
    attributes: StaticSegmentAttributes


class StaticSegmentBody(Body):
    data: StaticSegmentData


class PeopleAttributes(BehindAttributes):
    columns: list[str] | None = None
    limit: Annotated[int, Rule(ge=1)] | None = None


class PeopleData(ClosedBody):
    type: OneOf["people_request"]
    attributes: PeopleAttributes


class PeopleBody(ClosedBody):
    data: PeopleData
