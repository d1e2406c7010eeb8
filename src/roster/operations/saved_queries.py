"""Owns the operations on saved queries: put, list, get, delete, and run by the operation they name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from roster.analyses.facets import FacetRequest, facet
from roster.analyses.names import Names, names_of_facet, names_of_page
from roster.analyses.profiles import PageRequest, page
from roster.analyses.scopes import World
from roster.base.errors import Code, Error, did_you_mean
from roster.base.time import instant, iso_ms
from roster.model.saved_query import AT, RUNNABLE, SavedQuery, body_json, draft
from roster.operations import profiles
from roster.operations.bodies import decode
from roster.operations.bodies_segments import SavedQueryBody
from roster.operations.context import Context, Reply, Request
from roster.operations.keys import LOCAL
from roster.operations.profiles import world_of

Wanted = PageRequest | FacetRequest
RUN: dict[str, Callable[[Context, Request], Reply]] = {
    "QueryUsers": profiles.query_users,
    "QueryAccounts": profiles.query_accounts,
    "QueryEventFilteredUsers": profiles.query_event_filtered_users,
    "GetUserFacetInfo": profiles.get_user_facet_info,
    "GetAccountFacetInfo": profiles.get_account_facet_info,
}
READ: dict[str, Callable[[Context, Request], Wanted]] = {
    "QueryUsers": profiles.wanted_users,
    "QueryAccounts": profiles.wanted_accounts,
    "QueryEventFilteredUsers": profiles.wanted_events,
    "GetUserFacetInfo": profiles.wanted_facet,
    "GetAccountFacetInfo": profiles.wanted_facet,
}


def put_saved_query(context: Context, request: Request) -> Reply:
    """Keep the body of a query under a name, in place of what was there."""
    asked = decode(SavedQueryBody, request.body).data.attributes
    who, now_ms = request.caller.id, context.clock.now_ms()
    wanted = draft(request.path["name"], asked.operation, asked.body, who=who, now_ms=now_ms)
    try:
        warnings = _warnings(context, wanted)
    except Error as error:
        raise error.under(f"{AT}/body") from error
    held = context.store.list_queries()
    if len(held) >= context.limits.queries_max and all(q.name != wanted.name for q in held):
        hint = "delete one, or raise the setting queries_max"
        raise Error(Code.INVALID, f"there are {len(held)} saved queries already", hint=hint)
    body: dict[str, Any] = {"data": _shown(context.store.put_query(wanted))}
    return Reply(body | ({"meta": {"warnings": list(warnings)}} if warnings else {}))


def _warnings(context: Context, query: SavedQuery) -> tuple[str, ...]:
    """What the query would warn of now. Error: INVALID where it could not be run."""
    wanted, world = wanted_of(context, query), world_of(context, query.entity)
    built = page(world, wanted) if isinstance(wanted, PageRequest) else facet(world, wanted)
    return built.warnings


def wanted_of(context: Context, query: SavedQuery) -> Wanted:
    """What a saved query asks for, read as its operation reads it. Error: INVALID."""
    assert RUN.keys() == READ.keys() == RUNNABLE.keys()
    return READ[query.operation](context, Request(LOCAL, query.raw()))


def names_of_query(context: Context, world: World, query: SavedQuery) -> Names:
    """The custom attributes a saved query names. `world` is that of its entity. Error: INVALID."""
    wanted = wanted_of(context, query)
    return names_of_page(world, wanted) if isinstance(wanted, PageRequest) else names_of_facet(world, wanted)


def list_saved_queries(context: Context, request: Request) -> Reply:
    """The saved queries by name."""
    return Reply({"data": [_shown(query) for query in context.store.list_queries()]})


def get_saved_query(context: Context, request: Request) -> Reply:
    """One saved query: its operation and body."""
    return Reply({"data": _shown(_find(context, request.path["name"]))})


def delete_saved_query(context: Context, request: Request) -> Reply:
    """Forget a saved query."""
    name = request.path["name"]
    if not context.store.remove_query(name, who=request.caller.id, now_ms=context.clock.now_ms()):
        _find(context, name)
    return Reply()


def run_saved_query(context: Context, request: Request) -> Reply:
    """Run a saved query as its operation runs it; parameters such as `explain` are those of the operation."""
    query = _find(context, request.path["name"])
    return RUN[query.operation](context, replace(request, body=query.raw()))


def _find(context: Context, name: str) -> SavedQuery:
    found = context.store.find_query(name)
    if found is None:
        known = [query.name for query in context.store.list_queries()]
        hint = did_you_mean(name, known) or "GET /api/roster/queries lists them"
        raise Error(Code.NOT_FOUND, f"there is no saved query {name!r}", at="parameter name", hint=hint)
    return found


def _shown(query: SavedQuery) -> dict[str, Any]:
    attributes = {
        "name": query.name,
        "operation": query.operation,
        "body": body_json(query),
        "created_at": iso_ms(instant(query.created_ms)),
        "updated_at": iso_ms(instant(query.updated_ms)),
        "updated_by": query.updated_by,
    }
    return {"id": query.name, "type": "saved_query", "attributes": attributes}
