"""Owns the workloads over events as data: the request as a caller sends it, and the SQL a good engineer would write.

Each analysis runs plain, under a filter on a connection's attribute (`@tier:gold`), and in groups by one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from bench.queries import ENRICHED
from bench.world import DAY_MS, END_MS

BASE = "/api/v2/product-analytics"
FROM_MS, TO_MS = END_MS - 90 * DAY_MS, END_MS
WEEKS, WEEK_MS = 12, 7 * DAY_MS
MONDAY_MS = END_MS - WEEKS * WEEK_MS - (END_MS // DAY_MS + 3) % 7 * DAY_MS
"""The twelve weeks of retention begin here."""
CELLS = (*((n, n) for n in range(WEEKS)), *((n, k) for n in range(WEEKS) for k in range(n + 1, WEEKS)))
"""Cohort and week of each number of retention, in its order: the sizes first."""
COLUMNS, ENTRIES = 5, 10
"""Of the pathways, between the first and the last; and the values in each."""
WINDOW_MS = DAY_MS
SESSION_MS = 4 * 3_600_000
VARIANTS = ("plain", "filter", "group")
VIEWS = ("/home", "/cart", "/checkout")
GROUPS = 10


Rows = list[tuple[Any, ...]]


@dataclass(frozen=True, slots=True)
class Analysis:
    """One workload; `by_hand` gives the statements in the order of the plans of the request.

    `told`: what of the product's rows the statement gives too; None for all.
    """

    name: str
    note: str
    path: str
    body: dict[str, Any]
    by_hand: tuple[str, ...]
    told: Callable[[Rows], Rows] | None = None


def _base(query: str) -> dict[str, Any]:
    return {"data_source": "product_analytics", "search": {"query": query}}


def _events(condition: str = "TRUE", *, variant: str, from_ms: int = FROM_MS, to_ms: int = TO_MS) -> tuple[str, str]:
    """FROM and WHERE of events of the 90 days, of gold users where the variant filters."""
    during = f"e.time >= make_timestamp_ms({from_ms}) AND e.time < make_timestamp_ms({to_ms})"
    join = "" if variant == "plain" else f"LEFT JOIN {ENRICHED} u ON u.user_id = e.resolved_user_id"
    gold = "AND u.\"crm.tier\" = 'gold'" if variant == "filter" else ""
    return f"events e {join}", f"{during} AND {condition} {gold}"


TIER = "coalesce(u.\"crm.tier\", 'N/A')"
PERSON = "coalesce(e.resolved_user_id, e.anonymous_id)"
JOIN_KEYS = {"user": "@usr.id", "session": "@session.id"}
ENTITIES = {"user": PERSON, "session": "e.session_id"}
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


def _views(variant: str) -> str:
    return "@type:view @tier:gold" if variant == "filter" else "@type:view"


def _plain(compute: dict[str, Any], variant: str) -> dict[str, Any]:
    query: dict[str, Any] = {"query": _base(_views(variant)), "compute": compute}
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


def step_views(count: int) -> list[str]:
    """The view that each step of a funnel is."""
    return [*VIEWS, *(f"/product/{n}" for n in range(3, 3 + 47))][:count]


def _steps(count: int) -> list[tuple[str, str, str]]:
    """Alias, search and SQL condition of each step."""
    return [
        (f"s{n}", f'@type:view @view.name:"{v}"', f"(e.type = 'view' AND e.view_name = '{v}')")
        for n, v in enumerate(step_views(count))
    ]


def _funnels() -> Iterator[Analysis]:
    for count in (3, 5, 20):
        for key, primary in JOIN_KEYS.items():
            for variant in VARIANTS:
                steps = _steps(count)
                search: dict[str, Any] = {
                    "expression": " -> ".join(alias for alias, _, _ in steps),
                    "node_objects": {alias: _base(query) for alias, query, _ in steps},
                    "join_keys": {"primary": primary},
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
    entity = ENTITIES[key]
    source, where = _events(NO_SESSIONS, variant=variant, to_ms=TO_MS + (WINDOW_MS if by_user else SESSION_MS))
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


def _retentions() -> Iterator[Analysis]:
    """Who is back in which of twelve weeks; by hand a mask of weeks for each user."""
    for variant in VARIANTS:
        search = {
            "retention_entity": "@usr.id",
            "return_condition": "conversion_on",
            "cohort_criteria": {
                "base_query": _base(_views(variant)),
                "time_interval": {"type": "calendar", "value": {"type": "week"}},
            },
        }
        query: dict[str, Any] = {"compute": {"aggregation": "count", "metric": "__dd.retention"}, "search": search}
        if variant == "group":
            query["group_by"] = [{"facet": "@tier", "limit": GROUPS, "target": "cohort"}]
        until_ms = MONDAY_MS + WEEKS * WEEK_MS
        attributes = {"from": MONDAY_MS, "to": until_ms, "query": query}
        yield Analysis(
            f"retention_{variant}",
            f"retention of {WEEKS} weeks, {variant}",
            f"{BASE}/retention/grid",
            {"data": {"type": "retention_grid_request", "attributes": attributes}},
            (_retention_by_hand(variant, until_ms),),
        )


def _retention_by_hand(variant: str, until_ms: int) -> str:
    inner = "plain" if variant == "group" else variant
    source, where = _events("e.type = 'view'", variant=inner, from_ms=MONDAY_MS, to_ms=until_ms)
    week = f"((epoch_ms(e.time) - {MONDAY_MS}) // {WEEK_MS})::INTEGER"
    sums = [f"coalesce(sum(n) FILTER (m & {1 << n} > 0 AND m & {1 << k} > 0), 0)::BIGINT" for n, k in CELLS]
    people = f"SELECT {PERSON} AS k, bit_or(1 << {week}) AS m FROM {source} WHERE {where} AND {PERSON} IS NOT NULL"
    alike = f"SELECT m, count(*) AS n FROM ({people} GROUP BY 1) GROUP BY 1"
    if variant != "group":
        return f"SELECT {', '.join(sums)} FROM ({alike})"
    alike = f"""SELECT {TIER} AS tier, m, count(*) AS n FROM ({people} GROUP BY 1) p
        LEFT JOIN {ENRICHED} u ON u.user_id = p.k GROUP BY 1, 2"""
    ranked = f"ORDER BY sum(n * bit_count(m)) DESC, tier LIMIT {GROUPS}"
    return f"SELECT tier, {', '.join(sums)} FROM ({alike}) GROUP BY tier {ranked}"


def _pathways() -> Iterator[Analysis]:
    """Which view follows which; by hand the changes of the value by lag, and their places by number."""
    for key, entity in ENTITIES.items():
        for variant in VARIANTS[:2]:
            definition = {"number_of_steps": COLUMNS, "entries_per_step": ENTRIES}
            attributes = {
                "definition": definition | dict.fromkeys(("source", "target"), "@view.name"),
                "search": {"query": _views(variant), "join_keys": {"primary": JOIN_KEYS[key]}},
                "time": {"from": FROM_MS, "to": TO_MS},
            }
            yield Analysis(
                f"pathways_{key}_{variant}",
                f"pathways of {COLUMNS} columns and {ENTRIES} values by {key}, 90 days, {variant}",
                f"{BASE}/sankey",
                {"data": {"type": "sankey_request", "attributes": attributes}},
                (_pathways_by_hand(entity, variant),),
                _links_by_place,
            )


def _links_by_place(rows: Rows) -> Rows:
    """How many links end in each column; rows with a rank are nodes."""
    found: dict[int, int] = {}
    for place, _, _, rank, count, _ in rows:
        if rank is None:
            found[place] = found.get(place, 0) + count
    return sorted(found.items())


def _pathways_by_hand(entity: str, variant: str) -> str:
    condition = f"e.type = 'view' AND e.view_name IS NOT NULL AND {entity} IS NOT NULL"
    source, where = _events(condition, variant=variant)
    return f"""WITH found AS (SELECT {entity} AS k, e.time AS t, e.event_id AS i, e.view_name AS v
            FROM {source} WHERE {where}),
        beside AS (SELECT *, lag(v) OVER (PARTITION BY k ORDER BY t, i) AS before FROM found),
        changes AS (SELECT v, row_number() OVER w AS n, lead(v) OVER w AS after FROM beside
            WHERE before IS NULL OR before <> v WINDOW w AS (PARTITION BY k ORDER BY t, i)),
        links AS (SELECT n + 1 AS place, v, after, count(*) AS n FROM changes
            WHERE n <= {COLUMNS + 1} AND after IS NOT NULL GROUP BY ALL)
        SELECT place, sum(n)::BIGINT FROM links GROUP BY 1 ORDER BY 1"""


ANALYSES = (*_numbers(), *_funnels(), *_retentions(), *_pathways())
