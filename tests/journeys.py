"""Owns a few visits small enough to count by hand, and bodies of requests for journeys over them."""

from __future__ import annotations

from typing import Any

from servers import Answered, Server

Body = dict[str, Any]
BASE = "/api/v2/product-analytics"
START_MS = 1_759_708_800_000
"""Monday 2025-10-06 00:00 UTC."""
MINUTE_MS, HOUR_MS, DAY_MS = 60_000, 3_600_000, 86_400_000
TYPES = {
    "funnel": "journey_request",
    "scalar": "formula_journey_request",
    "timeseries": "formula_journey_request",
    "list": "journey_list_request",
}
VISITS: tuple[tuple[str, str | None, str | None, int, str], ...] = (
    ("s1", "ann", "acme", 0, "AAABCC"),
    ("s2", "bob", "acme", HOUR_MS, "AAABCCABC"),
    ("s3", None, None, 2 * HOUR_MS, "AB"),
    ("s4", "cy", "beta", DAY_MS, "A"),
    ("s5", "cy", "beta", 2 * DAY_MS, "BC"),
)
"""Session, user, account, when it begins, its views a minute apart. s5 begins exactly 24 hours after s4."""


def event(session: str, user: str | None, account: str | None, begins_ms: int, place: int, name: str) -> Body:
    told: Body = {
        "type": "view",
        "date": START_MS + begins_ms + place * MINUTE_MS,
        "session": {"id": session},
        "view": {"id": f"{session}-{place}", "name": name, "loading_time": (place + 1) * 1000},
        "usr": {"anonymous_id": "visitor"} if user is None else {"id": user, "email": f"{user}@x.com"},
    }
    return told | ({"account": {"id": account}} if account else {})


def view(name: str) -> Body:
    return {"data_source": "product_analytics", "search": {"query": f"@view.name:{name}"}}


def often(name: str, operator: str, value: str) -> Body:
    search = {"query": f"@view.name:{name}", "occurrences": {"operator": operator, "value": value}}
    return {"data_source": "product_analytics_occurrence", "search": search}


def search(expression: str = "A -> B -> C", **more: Any) -> Body:
    return {"expression": expression, "node_objects": {name: view(name) for name in "ABC"}, **more}


USERS = {"join_keys": {"primary": "@usr.id"}}
ACCOUNTS = {"join_keys": {"primary": "@account.id"}}


def body_of(kind: str, query: Body, **attributes: Any) -> Body:
    span = {"from": START_MS, "to": START_MS + 3 * DAY_MS}
    return {"data": {"type": TYPES[kind], "attributes": span | {"query": query} | attributes}}


def post(server: Server, kind: str, body: Body) -> Answered:
    return server.ask("POST", f"{BASE}/journey/{kind}", body)


def timed(operator: str, value: int, target: Body | None = None) -> Body:
    wanted = {"name": "__dd.time_to_convert", "operator": operator, "value": value, "target": target}
    return {"filters": {"graph_filters": [wanted]}}
