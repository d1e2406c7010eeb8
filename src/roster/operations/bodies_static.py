"""Owns the request body of static segments as strict models: the draft's, and our other ways to say who is on one."""

from __future__ import annotations

from typing import Annotated, Literal as OneOf

from pydantic import Field as Rule

from roster.operations.bodies import Body, ClosedBody, Int64
from roster.operations.bodies_journey import JourneyListQuery
from roster.operations.bodies_retention import RetentionListQuery

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


class StaticSegmentAttributes(Body):
    """Only `journey_query_object` is the draft's."""

    name: str
    description: str | None = None
    tags: list[str] | None = None
    entity: OneOf["users", "accounts"] | None = None
    journey_query_object: JourneyQueryBody | None = None
    ids: Annotated[list[str], Rule(min_length=1, max_length=IDS_MAX)] | None = None
    upload_id: str | None = None
    column: str | None = None
    match: OneOf["id", "email"] | None = None
    journey: StepBody | None = None
    retention: CellBody | None = None


class StaticSegmentData(Body):
    type: OneOf["create_static_segment_request"]
    attributes: StaticSegmentAttributes


class StaticSegmentBody(Body):
    data: StaticSegmentData
