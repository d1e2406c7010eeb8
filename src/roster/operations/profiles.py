"""Owns the audience queries: users, accounts, event-filtered users, facets; each can be explained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from roster.analyses.facets import FacetRequest, facet
from roster.analyses.profiles import Page, PageRequest, Selection, page
from roster.analyses.scopes import World
from roster.base.errors import Code, Error
from roster.base.time import Range, iso_ms
from roster.model.held import sources_of
from roster.model.mapping import Mapping, traits
from roster.model.reference_table import Table
from roster.model.schema import Entity
from roster.operations.bodies import (
    EventFilteredAttributes,
    EventFilteredBody,
    EventQuery,
    FacetBody,
    QueryAccountsBody,
    QueryAttributes,
    QueryUsersBody,
    decode,
)
from roster.operations.context import Context, Reply, Request, run_plans
from roster.query.outline import outline
from roster.query.plan import Plan

ORDERS = {"asc": False, "desc": True}
ATTRIBUTE_TIME = "attribute_time"
MAPPING_VERSION = "mapping_version"
COLUMNS_MAX = 1000
"""Names one request may select; a request that names none gets every attribute, however many."""


def world_of(context: Context, entity: Entity, request: Request | None = None) -> World:
    """The mapping of an entity with its sources, at this moment: the newest, or the one that a request names.

    Errors: INVALID, NOT_FOUND for a version that never was.
    """
    version = request.version(MAPPING_VERSION) if request else None
    return world_under(context, context.store.read_mapping(entity, version))


def world_under(context: Context, mapping: Mapping, more: Sequence[Table] = ()) -> World:
    """A mapping with its sources, at this moment; `more`: tables that are only on trial."""
    sources = sources_of(mapping, [*context.store.list_tables(), *more]) if mapping.connections else {}
    limits = context.limits
    given = traits(mapping, context.events.read_traits(mapping.entity))
    now_ms = context.clock.now_ms()
    return World(mapping, sources, now_ms, limits.alias_ms(), limits.search_terms_max, traits=given)


def query_users(context: Context, request: Request) -> Reply:
    """Users that match a search and a wildcard term, sorted, with the total."""
    return _answer_page(context, request, Entity.USERS, "QueryUsers", wanted_users(context, request))


def wanted_users(context: Context, request: Request) -> PageRequest:
    """What the body of QueryUsers asks for. Errors: INVALID with the place."""
    data = decode(QueryUsersBody, request.body).data
    return _wanted_page(context, (data.attributes if data else None) or QueryAttributes())


def query_accounts(context: Context, request: Request) -> Reply:
    """Accounts that match a search and a wildcard term, sorted, with the total."""
    return _answer_page(context, request, Entity.ACCOUNTS, "QueryAccounts", wanted_accounts(context, request))


def wanted_accounts(context: Context, request: Request) -> PageRequest:
    """What the body of QueryAccounts asks for. Errors: INVALID with the place."""
    data = decode(QueryAccountsBody, request.body).data
    return _wanted_page(context, (data.attributes if data else None) or QueryAttributes())


def _wanted_page(context: Context, asked: QueryAttributes) -> PageRequest:
    selection = Selection(query=asked.query or "", wildcard_term=asked.wildcard_search_term or "")
    order = ((asked.sort.order if asked.sort else None) or "desc").lower()
    if order not in ORDERS:
        raise Error(Code.INVALID, f"unknown order {order!r}", at="/data/attributes/sort/order", hint="asc or desc")
    return PageRequest(
        selection,
        _columns(asked.select_columns),
        asked.sort.field if asked.sort else None,
        ORDERS[order],
        _limit(context, asked.limit),
    )


def _answer_page(context: Context, request: Request, entity: Entity, operation: str, wanted: PageRequest) -> Reply:
    world = world_of(context, entity, request)
    return _reply_page(context, request, world, operation, page(world, wanted), count=True)


def query_event_filtered_users(context: Context, request: Request) -> Reply:
    """Users that match a search and did a matching event in a time frame (epoch seconds, half-open)."""
    asked = _asked_events(request)
    wanted = _wanted_events(context, request, asked)
    world = world_of(context, Entity.USERS, request)
    if wanted.selection.at_event_time:
        world = replace(world, timed={id: t for id, t in world.sources.items() if context.tables.has_history(t)})
    counted = asked.include_row_count is not False
    return _reply_page(context, request, world, "QueryEventFilteredUsers", page(world, wanted), count=counted)


def wanted_events(context: Context, request: Request) -> PageRequest:
    """What the body of QueryEventFilteredUsers asks for. Errors: INVALID with the place."""
    return _wanted_events(context, request, _asked_events(request))


def _asked_events(request: Request) -> EventFilteredAttributes:
    data = decode(EventFilteredBody, request.body).data
    return (data.attributes if data else None) or EventFilteredAttributes()


def _wanted_events(context: Context, request: Request, asked: EventFilteredAttributes) -> PageRequest:
    events = asked.event_query
    selection = Selection(
        query=asked.query or "",
        event_query=(events.query or "") if events else None,
        event_range=_range(events, context.clock.now_ms()) if events else None,
        at_event_time=at_event_time(request),
    )
    return PageRequest(selection, _columns(asked.select_columns), None, True, _limit(context, asked.limit))


def at_event_time(request: Request) -> bool:
    """Whether custom attributes met on events are those of the event's time. Error: INVALID."""
    asked = request.query.get(ATTRIBUTE_TIME, ["now"])[-1]
    if asked not in ("now", "event"):
        hint = "allowed: now, event"
        raise Error(Code.INVALID, f"{ATTRIBUTE_TIME} is {asked!r}", at=f"parameter {ATTRIBUTE_TIME}", hint=hint)
    return asked == "event"


def _range(events: EventQuery, now_ms: int) -> Range | None:
    """A time frame as a range; an open end is now, an open start is the beginning of time."""
    frame = events.time_frame
    if frame is None:
        return None
    start_s = frame.start if frame.start is not None else 0
    end_s = frame.end if frame.end is not None else now_ms // 1000 + 1
    at = "/data/attributes/event_query/time_frame"
    for name, value in (("start", start_s), ("end", end_s)):
        if not 0 <= value < 253_402_300_800:
            hint = "epoch seconds, not milliseconds"
            raise Error(Code.INVALID, f"{name} is not a time: {value}", at=f"{at}/{name}", hint=hint)
    if start_s >= end_s:
        raise Error(Code.INVALID, "start is not before end", at=at, hint="start < end, in epoch seconds")
    return Range(start_s * 1000, end_s * 1000)


def _columns(names: list[str] | None) -> tuple[str, ...] | None:
    """The asked columns, each once; none asked means all."""
    columns = tuple(dict.fromkeys(names or ()))
    if len(columns) > COLUMNS_MAX:
        at = "/data/attributes/select_columns"
        raise Error(Code.INVALID, f"{len(columns)} columns are too many", at=at, hint=f"at most {COLUMNS_MAX}")
    return columns or None


def _limit(context: Context, limit: int | None) -> int:
    limits = context.limits
    if limit is None:
        return limits.profiles_limit_default
    if not 1 <= limit <= limits.profiles_limit_max:
        hint = f"from 1 to {limits.profiles_limit_max} (setting profiles_limit_max)"
        raise Error(Code.INVALID, f"limit is {limit}", at="/data/attributes/limit", hint=hint)
    return limit


def _reply_page(
    context: Context, request: Request, world: World, operation: str, wanted: Page, *, count: bool
) -> Reply:
    plans = [wanted.rows, wanted.total] if count else [wanted.rows]
    if request.flag("explain"):
        return explanation(context, request, plans, wanted.warnings)
    answers = run_plans(context, request, plans)
    _note_uses(context, request, world, operation)
    hits = [dict(zip(wanted.names, map(shown, row), strict=True)) for row in answers[0].rows]
    attributes: dict[str, Any] = {"hits": hits}
    if count:
        attributes["total"] = answers[1].rows[0][0]
    return Reply(envelope("query_response", "query_response", attributes, wanted.warnings))


def _note_uses(context: Context, request: Request, world: World, operation: str) -> None:
    """Remember which custom attributes an answered query named; those of an older mapping need not be any more."""
    if MAPPING_VERSION in request.query:
        return
    context.uses.note(world.entity, world.named, operation, request.caller.id, world.now_ms)


def shown(value: Any) -> Any:
    """A value as a hit shows it: timestamps as RFC 3339 text, integral doubles as integers."""
    if isinstance(value, datetime):
        return iso_ms(value)
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return int(value)
    return value


def envelope(id: str, type: str, attributes: dict[str, Any], warnings: Sequence[str] = ()) -> dict[str, Any]:
    """An answer in the API's frame; warnings beside the data, where every client ignores them."""
    body: dict[str, Any] = {"data": {"id": id, "type": type, "attributes": attributes}}
    if warnings:
        body["meta"] = {"warnings": list(warnings)}
    return body


def explanation(context: Context, request: Request, plans: Sequence[Plan], warnings: Sequence[str]) -> Reply:
    """What a query would do: the same code, stopped before the run."""
    asked = iter(plans)
    steps = [
        ({"kept_as": made.kept_as} if made.kept_as else {"plan": outline(next(asked))})
        | {
            "settled": outline(made.plan),
            "sql": made.sql,
            "parameters": [shown(p) for p in made.parameters],
            "physical": made.physical,
            "reads": [{"relation": relation, "rows": rows} for relation, rows in made.reads],
        }
        for made in context.engine.explain(plans, context.limits.budget(request.caller.api_key_id))
    ]
    return Reply(envelope("explanation", "explanation", {"queries": steps}, warnings))


def get_user_facet_info(context: Context, request: Request) -> Reply:
    """The values of one user attribute, each with its number of users."""
    return _answer_facet(context, request, Entity.USERS, "GetUserFacetInfo")


def get_account_facet_info(context: Context, request: Request) -> Reply:
    """The values of one account attribute, each with its number of accounts."""
    return _answer_facet(context, request, Entity.ACCOUNTS, "GetAccountFacetInfo")


def wanted_facet(context: Context, request: Request) -> FacetRequest:
    """What the body of a facet operation asks for. Errors: INVALID with the place."""
    data = decode(FacetBody, request.body).data
    if data is None or data.attributes is None:
        raise Error(Code.INVALID, "the facet to answer is missing", at="/data/attributes/facet_id")
    asked = data.attributes
    return FacetRequest(
        asked.facet_id,
        (asked.search.query if asked.search else None) or "",
        (asked.term_search.value if asked.term_search else None) or "",
        _limit(context, asked.limit),
    )


def _answer_facet(context: Context, request: Request, entity: Entity, operation: str) -> Reply:
    world = world_of(context, entity, request)
    wanted = facet(world, wanted_facet(context, request))
    plans = [wanted.values, wanted.range] if wanted.range is not None else [wanted.values]
    if request.flag("explain"):
        return explanation(context, request, plans, wanted.warnings)
    answers = run_plans(context, request, plans)
    _note_uses(context, request, world, operation)
    result: dict[str, Any] = {"values": [{"value": value, "count": count} for value, count in answers[0].rows]}
    if wanted.range is not None and answers[1].rows[0][0] is not None:
        low, high = map(shown, answers[1].rows[0])
        result["range"] = {"min": {"value": low}, "max": {"value": high}}
    return Reply(envelope("facet_info_response", "users_facet_info", {"result": result}, wanted.warnings))
