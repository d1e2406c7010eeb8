"""Owns putting together what analyses over events stand on."""

from __future__ import annotations

from collections.abc import Mapping as Map
from typing import Any

from pydantic_core import to_json

from roster.analyses.event_world import EventWorld
from roster.analyses.journey import Journey
from roster.analyses.members import members
from roster.analyses.scopes import World
from roster.base.errors import Error
from roster.base.time import Range
from roster.model.schema import Entity
from roster.operations.bodies import decode
from roster.operations.bodies_journey import JourneySearchBody
from roster.operations.context import Context, Request
from roster.operations.journey_requests import read_journey
from roster.operations.profiles import world_of


def event_world_of(context: Context, request: Request | None = None) -> EventWorld:
    """Users and accounts with their mappings, all segments and tables, at this moment."""
    return event_world_around(context, world_of(context, Entity.USERS, request))


def event_world_around(context: Context, world: World) -> EventWorld:
    """The world of one entity with that of the other, all segments and tables."""
    users, accounts = (world if e is world.entity else world_of(context, e) for e in Entity)
    segments = {segment.id: segment for segment in context.store.list_segments()}
    return EventWorld(users, accounts, segments, tuple(context.store.list_tables()), read_search, members)


def read_search(search: Map[str, Any], span: Range, at: str) -> Journey:
    """A journey's search as a request states it at a place, each key counted once. Errors: INVALID with the place."""
    try:
        body = decode(JourneySearchBody, to_json(search))
    except Error as error:
        raise error.under(at) from error
    return read_journey(body, span, total=False, at=at)
