"""Owns the workloads over events as data: the request as a caller sends it, and the SQL a good engineer would write.

Each analysis runs plain, under a filter on a connection's attribute (`@tier:gold`), and in groups by one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from bench.queries import ENRICHED
from bench.world import DAY_MS, END_MS

BASE = "/api/v2/product-analytics"
FROM_MS, TO_MS = END_MS - 90 * DAY_MS, END_MS
WINDOW_MS = DAY_MS
VARIANTS = ("plain", "filter", "group")
VIEWS = ("/home", "/cart", "/checkout")
GROUPS = 10


@dataclass(frozen=True, slots=True)
class Analysis:
    """One workload; `by_hand` gives the statements in the order of the plans of the request.

    `told`: the columns of the product's rows that the statement gives too; None for all.
    """

    name: str
    note: str
    path: str
    body: dict[str, Any]
    by_hand: tuple[str, ...]


def _base(query: str) -> dict[str, Any]:
    return {"data_source": "product_analytics", "search": {"query": query}}


def _events(condition: str = "TRUE", *, variant: str, later_ms: int = 0) -> tuple[str, str]:
    """FROM and WHERE of events of the 90 days, of gold users where the variant filters."""
    during = f"e.time >= make_timestamp_ms({FROM_MS}) AND e.time < make_timestamp_ms({TO_MS + later_ms})"
    join = "" if variant == "plain" else f"LEFT JOIN {ENRICHED} u ON u.user_id = e.resolved_user_id"
    gold = "AND u.\"crm.tier\" = 'gold'" if variant == "filter" else ""
    return f"events e {join}", f"{during} AND {condition} {gold}"


TIER = "coalesce(u.\"crm.tier\", 'N/A')"
NO_SESSIONS = "e.type <> 'session'"


def _request(type: str, query: dict[str, Any]) -> dict[str, Any]:
    return {"data": {"type": type, "attributes": {"from": FROM_MS, "to": TO_MS, "query": query}}}


def _numbers() -> Iterator[Analysis]:
    """Count, distinct users, and both over time."""
    computes = {"count": ({"aggregation": "count"}, "count(*)")}
    computes["users"] = (
        {"aggregation": "cardinality", "metric": "@usr.id"},
        "count(DISTINCT e.resolved_user_id)",
    )
    for name, (compute, value) in computes.items():
        for variant in VARIANTS:
            query = _plain(compute, variant)
            source, where = _events("e.type = 'view'", variant=variant)
            shown, rest = (f"{TIER}, {value}", f"GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT {GROUPS}")
            sql = f"SELECT {value} FROM {source} WHERE {where}"
            if variant == "group":
                sql = f"SELECT {shown} FROM {source} WHERE {where} {rest}"
            yield Analysis(
                f"{name}_{variant}",
                f"{name} of views, 90 days, {variant}",
                f"{BASE}/analytics/scalar",
                _request("formula_analytics_extended_request", query),
                (sql,),
            )
            yield Analysis(
                f"{name}_daily_{variant}",
                f"{name} of views a day, 90 days, {variant}",
                f"{BASE}/analytics/timeseries",
                _request("formula_analytics_extended_request", query | {"compute": compute | {"interval": DAY_MS}}),
                (_daily(value, variant),),
            )


def _plain(compute: dict[str, Any], variant: str) -> dict[str, Any]:
    query: dict[str, Any] = {"query": _base("@type:view"), "compute": compute}
    if variant == "filter":
        query["query"] = _base("@type:view @tier:gold")
    if variant == "group":
        query["group_by"] = [{"facet": "@tier", "limit": GROUPS}]
    return query


def _daily(value: str, variant: str) -> str:
    source, where = _events("e.type = 'view'", variant=variant)
    day = f"(epoch_ms(e.time) - {FROM_MS}) // {DAY_MS}"
    if variant != "group":
        return f"SELECT {day}, {value} FROM {source} WHERE {where} GROUP BY 1 ORDER BY 1"
    return f"""WITH best AS (SELECT tier, row_number() OVER (ORDER BY n DESC, tier) AS place FROM
            (SELECT {TIER} AS tier, {value} AS n FROM {source} WHERE {where} GROUP BY 1) QUALIFY place <= {GROUPS})
        SELECT place, {TIER}, {day}, {value} FROM {source} JOIN best ON best.tier = {TIER} WHERE {where}
        GROUP BY ALL ORDER BY 1, 3"""


def _steps(count: int) -> list[tuple[str, str, str]]:
    """Alias, search and SQL condition of each step."""
    views = [*VIEWS, *(f"/product/{n}" for n in range(3, 3 + 47))][:count]
    return [
        (f"s{n}", f'@type:view @view.name:"{v}"', f"(e.type = 'view' AND e.view_name = '{v}')")
        for n, v in enumerate(views)
    ]


def _funnels() -> Iterator[Analysis]:
    for count in (3, 5, 20):
        for key in ("user", "session"):
            for variant in VARIANTS:
                steps = _steps(count)
                search: dict[str, Any] = {
                    "expression": " -> ".join(alias for alias, _, _ in steps),
                    "node_objects": {alias: _base(query) for alias, query, _ in steps},
                    "join_keys": {"primary": "@usr.id" if key == "user" else "@session.id"},
                }
                query: dict[str, Any] = {"search": search}
                if variant == "filter":
                    search["filters"] = {"string_filter": "@tier:gold"}
                if variant == "group":
                    query["group_by"] = [{"facet": "@tier", "limit": GROUPS}]
                yield Analysis(
                    f"funnel_{count}_{key}_{variant}",
                    f"funnel of {count} steps by {key}, 90 days, {variant}",
                    f"{BASE}/journey/funnel",
                    _request("journey_request", query),
                    _funnel_by_hand([sql for _, _, sql in steps], key, variant),
                )


def _funnel_by_hand(steps: list[str], key: str, variant: str) -> tuple[str, ...]:
    """Each key's best attempt, step by step over the keys that are left; all flows, then groups of them."""
    by_user = key == "user"
    entity = "coalesce(e.resolved_user_id, e.anonymous_id)" if by_user else "e.session_id"
    source, where = _events(NO_SESSIONS, variant=variant, later_ms=WINDOW_MS if by_user else 4 * 3_600_000)
    place = "CASE " + " ".join(f"WHEN {sql} THEN {n}" for n, sql in enumerate(steps)) + " END"
    marks = ", ".join(f"{sql} AS s{n}" for n, sql in enumerate(steps))
    tier = f", {TIER} AS tier" if variant == "group" else ""
    made = f"""WITH m AS MATERIALIZED (SELECT {entity} AS k, epoch_us(e.time) * 64 + {place} AS spot, {marks}{tier}
        FROM {source} WHERE {where} AND ({" OR ".join(steps)}) AND {entity} IS NOT NULL)"""
    until = (TO_MS * 1000) << 6
    made += _attempts(len(steps), until) if by_user else _chain(len(steps), until)
    measures = []
    for n in range(len(steps)):
        start, end = (n, n + 1) if n + 1 < len(steps) else (0, n)
        gap = f"(a{end} >> 6) // 1000 - (a{start} >> 6) // 1000"
        measures.append(f"count(a{n}), min({gap}), max({gap}), avg({gap})")
    overall = f"{made} SELECT {', '.join(measures)} FROM flows"
    if variant != "group":
        return (overall,)
    tiers = "(SELECT k, spot, min(tier) AS tier FROM m WHERE s0 GROUP BY ALL) g"
    grouped = f"""{made} SELECT g.tier, {", ".join(measures)} FROM flows f JOIN {tiers} ON g.k = f.k AND g.spot = f.a0
        GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT {GROUPS}"""
    return overall, grouped


def _chain(steps: int, until: int) -> str:
    """Without a window the earliest start gets farthest: the next step of each key that is left, by hash joins."""
    parts = [f", c0 AS MATERIALIZED (SELECT k, min(spot) AS a0 FROM m WHERE s0 AND spot < {until} GROUP BY 1)"]
    for n in range(1, steps):
        parts.append(
            f""", c{n} AS MATERIALIZED (SELECT m.k, min(m.spot) AS a{n} FROM m JOIN c{n - 1} USING (k)
            WHERE s{n} AND m.spot > a{n - 1} GROUP BY 1)"""
        )
    joins = " ".join(f"LEFT JOIN c{n} USING (k)" for n in range(1, steps))
    return "".join(parts) + f", flows AS (SELECT * FROM c0 {joins})"


def _attempts(steps: int, until: int) -> str:
    """Within a window every start counts: the next step after each by ASOF join; then the best attempt of a key."""
    window = (WINDOW_MS * 1000) << 6
    parts = [f", c0 AS MATERIALIZED (SELECT DISTINCT k, spot AS a0 FROM m WHERE s0 AND spot < {until})"]
    for n in range(1, steps):
        earlier = ", ".join(f"c.a{j}" for j in range(n))
        parts.append(
            f""", x{n} AS MATERIALIZED (SELECT c.k, {earlier}, m.spot AS a{n} FROM c{n - 1} c
            ASOF LEFT JOIN (SELECT k, spot FROM m WHERE s{n} AND k IN (SELECT k FROM c{n - 1})) m
                ON m.k = c.k AND m.spot > c.a{n - 1}),
            c{n} AS (SELECT * FROM x{n} WHERE (a{n} >> 6) - (a0 >> 6) <= {window >> 6})"""
        )
    parts.append(
        ", done AS (" + " UNION ALL BY NAME ".join(f"SELECT *, {n} AS n FROM c{n}" for n in range(steps)) + ")"
    )
    best = "row_number() OVER (PARTITION BY k ORDER BY n DESC, a0) = 1"
    return "".join(parts) + f", flows AS (SELECT * FROM done QUALIFY {best})"


ANALYSES = (*_numbers(), *_funnels())
