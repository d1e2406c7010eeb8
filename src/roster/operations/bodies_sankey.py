"""Owns the request body of pathways as a strict model: what the contract says."""

from __future__ import annotations

from typing import Annotated, Literal as OneOf

from pydantic import Field as Rule

from roster.operations.bodies import Body, Int64
from roster.operations.bodies_analyses import AudienceBody, JoinKeysBody

UpToTen = Annotated[int, Rule(ge=0, le=10)]


class SankeyDefinition(Body):
    source: str
    target: str
    number_of_steps: UpToTen | None = None
    entries_per_step: UpToTen | None = None


class SankeySearch(Body):
    query: str | None = None
    audience_filters: AudienceBody | None = None
    join_keys: JoinKeysBody | None = None


class SankeyTime(Body):
    from_: Int64 = Rule(alias="from")
    to: Int64


class SankeyAttributes(Body):
    definition: SankeyDefinition
    search: SankeySearch
    time: SankeyTime


class SankeyData(Body):
    type: OneOf["sankey_request"]
    attributes: SankeyAttributes


class SankeyBody(Body):
    data: SankeyData
