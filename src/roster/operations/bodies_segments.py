"""Owns the request bodies of the operations on segments and saved queries as strict models."""

from __future__ import annotations

from typing import Any, Literal as OneOf

from roster.operations.bodies import Body, ClosedBody


class CreateSegmentAttributes(Body):
    name: str
    data_query: dict[str, Any]
    description: str | None = None
    tags: list[str] | None = None


class CreateSegmentData(Body):
    type: OneOf["segment"]
    attributes: CreateSegmentAttributes


class CreateSegmentBody(Body):
    data: CreateSegmentData


class UpdateSegmentAttributes(Body):
    name: str | None = None
    data_query: dict[str, Any] | None = None
    description: str | None = None
    tags: list[str] | None = None


class UpdateSegmentData(Body):
    type: OneOf["segment"]
    id: str
    attributes: UpdateSegmentAttributes


class UpdateSegmentBody(Body):
    data: UpdateSegmentData


class SavedQueryAttributes(ClosedBody):
    operation: str
    body: dict[str, Any]


class SavedQueryData(ClosedBody):
    type: OneOf["saved_query"]
    attributes: SavedQueryAttributes


class SavedQueryBody(ClosedBody):
    data: SavedQueryData
