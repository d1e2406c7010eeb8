"""Queries made to hurt, on an engine of 512 MB: answered, or refused readably, while events still come in."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import duckdb
import pytest

from servers import Answered, Server

pytestmark = pytest.mark.e2e
EVENTS = 100_000
FROM_MS, MONTH_MS = 1_700_000_000_000, 30 * 86_400_000
TO_MS = FROM_MS + MONTH_MS
BASE = "/api/v2/product-analytics"
PATHS = ("event.id", "date", "type", "usr.id", "session.id", "view.name", "context.unique", "context.score")
MADE = f"""COPY (SELECT 'e' || i AS "event.id", {FROM_MS} + i * 24000 AS date, 'view' AS type,
    'u' || (i * 7919 % 30000) AS "usr.id", 's' || (i // 3) AS "session.id", '/p' || (i % 60) AS "view.name",
    'x' || i AS "context.unique", i % 100 AS "context.score" FROM range({EVENTS}) r(i)) TO '{{}}' (FORMAT parquet)"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("heavy")
    duckdb.execute(MADE.format(folder / "events.parquet"))
    server = Server(folder, engine_memory="512MB", query_timeout_s="8")
    maps = [word for path in PATHS for word in ("--map", f"{path}={path}")]
    assert f"stored {EVENTS:,} events" in server.cli("load", str(folder / "events.parquet"), *maps)
    with server:
        yield server


def base(query: str = "*", **search: Any) -> dict[str, Any]:
    source = "product_analytics_occurrence" if search else "product_analytics"
    return {"data_source": source, "search": {"query": query} | search}


def body(type: str, query: dict[str, Any]) -> dict[str, Any]:
    return {"data": {"type": type, "attributes": {"from": FROM_MS, "to": TO_MS, "query": query}}}


def steps(count: int, query: str = "@view.name:/p{}", key: str = "@usr.id", **more: Any) -> dict[str, Any]:
    nodes = {f"s{n}": base(query.format(n)) for n in range(count)}
    return {"expression": " -> ".join(nodes), "node_objects": nodes, "join_keys": {"primary": key}} | more


MANY = " OR ".join(f"@context.p{n}:*a*" for n in range(40))
GROUPS = [{"facet": "@context.unique", "limit": 1_000_000}, {"facet": "@usr.id", "limit": 1_000_000}]
OFTEN = {"operator": ">=", "value": "1"}
SCALAR, JOURNEY, GRAPH = "formula_analytics_extended_request", "journey_request", "formula_journey_request"
HEAVY: dict[str, tuple[str, dict[str, Any]]] = {
    "50 steps": ("journey/funnel", body(JOURNEY, {"search": steps(50)})),
    "50 steps of any event": (
        "journey/funnel",
        body(JOURNEY, {"search": steps(50, "*", conversion_window_ms=MONTH_MS), "compute": {"aggregation": "count"}}),
    ),
    "50 steps in groups": ("journey/funnel", body(JOURNEY, {"search": steps(50), "group_by": GROUPS})),
    "a group for each event": (
        "analytics/scalar",
        body(SCALAR, {"query": base(), "compute": {"aggregation": "count"}, "group_by": GROUPS}),
    ),
    "a group for each event, by minute": (
        "analytics/timeseries",
        body(SCALAR, {"query": base(), "compute": {"aggregation": "count", "interval": 600_000}, "group_by": GROUPS}),
    ),
    "40 paths with wildcards": (
        "analytics/scalar",
        body(SCALAR, {"query": base(MANY), "compute": {"aggregation": "cardinality", "metric": "@context.unique"}}),
    ),
    "percentiles of everything by everybody": (
        "analytics/scalar",
        body(SCALAR, {
            "query": base(occurrences=OFTEN),
            "compute": {"aggregation": "pc99", "metric": "@context.score"},
            "group_by": GROUPS[1:],
        }),
    ),
    "time to convert by everybody": (
        "journey/scalar",
        body(GRAPH, {
            "search": steps(2, "*", "@account.id", filters={"string_filter": "*"}),
            "compute": {"aggregation": "pc99", "metric": "__dd.time_to_convert"},
            "group_by": GROUPS,
        }),
    ),
}  # fmt: skip


def event(server: Server, n: int) -> Answered:
    sent = {"application": {"id": "a"}, "event": {"name": f"n{n}"}, "type": "server", "usr": {"id": "u1"}}
    return server.ask("POST", "/api/v2/prodlytics", sent)


@pytest.mark.parametrize("name", HEAVY)
def test_it_is_answered_or_refused_readably(server: Server, name: str) -> None:
    path, asked = HEAVY[name]
    answer = server.ask("POST", f"{BASE}/{path}", asked)
    assert answer.status in (200, 400, 413, 503, 504), answer.body[:2000]
    if answer.status != 200:
        (told,) = answer.json()["errors"]
        assert any(word in told for word in ("memory", "longer than", "rows", "points", "at most")), told
        assert ";" in told, "a hint says what would be right"
    assert event(server, len(name)).status == 202
    small = server.ask(
        "POST", f"{BASE}/analytics/scalar", body(SCALAR, {"query": base(), "compute": {"aggregation": "count"}})
    )
    assert small.json()["data"]["attributes"]["columns"][0]["values"][0] >= EVENTS * 0.9
