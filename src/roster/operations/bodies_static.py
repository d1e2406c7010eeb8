"""Owns the request body of static segments as strict models: the draft's, and our other ways to say who is on one."""

from __future__ import annotations

from typing import Annotated, Literal as OneOf

from pydantic import Field as Rule

from roster.operations.bodies import Body, ClosedBody, Int64
from roster.operations.bodies_analyses import AnalyticsQuery
from roster.operations.bodies_journey import JourneyListQuery
from roster.operations.bodies_retention import RetentionListQuery
from roster.operations.bodies_sankey import SankeyAttributes

IDS_MAX = 10_000


class NodeFilterBody(ClosedBody):
    attribute: Annotated[str, Rule(min_length=1)]
    value: str


class QueryNodeBody(ClosedBody):
    filters: Annotated[list[NodeFilterBody], Rule(min_length=1, max_length=50)]


class JourneyQueryBody(ClosedBody):
    nodes: Annotated[list[QueryNodeBody], Rule(min_length=1, max_length=50)]


class StepBody(Body):
    """A step of a journey, as journey/list takes it."""

    from_: Int64 = Rule(alias="from")
    to: Int64
    query: JourneyListQuery


class CellBody(Body):
    """A cell of retention, as retention/list takes it."""

    from_: Int64 = Rule(alias="from")
    to: Int64
    query: RetentionListQuery
    exclude_anonymous_traffic: bool | None = None


class BarBody(Body):
    """A number over events, as analytics/scalar takes it; of a series, the range is that of the point's bucket."""

    from_: Int64 = Rule(alias="from")
    to: Int64
    query: AnalyticsQuery
    group_tags: list[str] | None = None


class LinkBody(SankeyAttributes):
    """A step of pathways, as sankey takes them: from a node of a column to one of the next, by their names."""

    column: Annotated[int, Rule(ge=0, le=11)]
    source_node: str | None = None
    target_node: str | None = None


class BehindAttributes(Body):
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


class PeopleData(Body):
    type: OneOf["people_request"]
    attributes: PeopleAttributes


class PeopleBody(Body):
    data: PeopleData
