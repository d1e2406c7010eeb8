"""Owns the workloads over events as SQL of PostgreSQL and of chDB, each in the form that suits it best.

`{b}` stands for the database. Both have `events` and `users` with the columns of `SHARED`.
"""

from __future__ import annotations

from collections.abc import Callable

from bench.analyses import (
    CELLS,
    COLUMNS,
    FROM_MS,
    GROUPS,
    MONDAY_MS,
    PERSON,
    SESSION_MS,
    TO_MS,
    WEEK_MS,
    WEEKS,
    WINDOW_MS,
    Analysis,
    Rows,
    step_views,
)
from bench.queries import ENRICHED
from bench.world import DAY_MS

POSTGRES, CLICKHOUSE = "PostgreSQL", "chDB"
SHARED = {
    "events": f"""SELECT epoch_us(time) AS us, type, view_name AS view, session_id AS session, {PERSON} AS person,
        resolved_user_id AS user_id, event_id AS id FROM events e""",
    "users": f'SELECT user_id, "crm.tier" AS tier FROM {ENRICHED}',
}
"""What both get of our data."""

_TIER = "coalesce(u.tier, 'N/A')"
_BEST = f"ORDER BY 2 DESC, 1 LIMIT {GROUPS}"
_WEEK_US = WEEK_MS * 1000
_VALUES = {"count": "count(*)", "users": "count(DISTINCT e.user_id)"}
_KEYS = {"user": "e.person", "session": "e.session"}


def _events(variant: str, from_ms: int = FROM_MS, to_ms: int = TO_MS) -> tuple[str, str]:
    """FROM and WHERE of views in a span of time, of gold users where the variant filters."""
    join = "" if variant == "plain" else "LEFT JOIN {b}users u ON u.user_id = e.user_id"
    gold = "AND u.tier = 'gold'" if variant == "filter" else ""
    return f"{{b}}events e {join}", f"e.type = 'view' AND e.us >= {from_ms * 1000} AND e.us < {to_ms * 1000} {gold}"


def statement(analysis: Analysis, kind: str) -> str:
    """The SQL of an analysis; its name says which one it is."""
    what, *sort, variant = analysis.name.split("_")
    match what, sort:
        case (("count" | "users"), []):
            return _number(_VALUES[what], variant)
        case (("count" | "users"), ["daily"]):
            return _daily(_VALUES[what], variant, kind)
        case "funnel", [steps, key]:
            return _FUNNELS[kind](int(steps), key, variant)
        case "retention", []:
            return _retention(variant, kind)
        case "pathways", [key]:
            return _pathways(key, variant, kind)
        case _:
            raise ValueError(f"no SQL for {analysis.name}")


def told(analysis: Analysis, answers: list[Rows]) -> list[list[object]]:
    """What of our own SQL's answers both give too: of a funnel who came how far, not how long it took."""
    rows = answers[-1]
    if not analysis.name.startswith("funnel"):
        return [list(row) for row in rows]
    first = int(analysis.name.endswith("_group"))
    return [[*row[:first], *row[first::4]] for row in rows]


def _number(value: str, variant: str) -> str:
    source, where = _events(variant)
    if variant == "group":
        return f"SELECT {_TIER}, {value} FROM {source} WHERE {where} GROUP BY 1 {_BEST}"
    return f"SELECT {value} FROM {source} WHERE {where}"


def _whole(number: str, by: int, kind: str) -> str:
    return f"({number}) / {by}" if kind == POSTGRES else f"intDiv({number}, {by})"


def _daily(value: str, variant: str, kind: str) -> str:
    source, where = _events(variant)
    day = _whole(f"e.us - {FROM_MS * 1000}", DAY_MS * 1000, kind)
    if variant != "group":
        return f"SELECT {day}, {value} FROM {source} WHERE {where} GROUP BY 1 ORDER BY 1"
    return f"""WITH numbers AS (SELECT {_TIER} AS tier, {value} AS n FROM {source} WHERE {where} GROUP BY 1),
        best AS (SELECT tier, row_number() OVER (ORDER BY n DESC, tier) AS place FROM numbers),
        days AS (SELECT {_TIER} AS tier, {day} AS day, {value} AS n FROM {source} WHERE {where} GROUP BY 1, 2)
        SELECT place, days.tier, day, n FROM days JOIN best ON best.tier = days.tier
        WHERE place <= {GROUPS} ORDER BY 1, 3"""


def _steps(steps: int, key: str, variant: str) -> tuple[str, str]:
    """The views of a funnel as a relation: key, place in time and in the funnel, tier; and until when it may begin."""
    by_user = key == "user"
    source, where = _events(variant, to_ms=TO_MS + (WINDOW_MS if by_user else SESSION_MS))
    views = step_views(steps)
    place = (
        "CASE " + " ".join(f"WHEN e.view = '{view}' THEN {n}" for n, view in enumerate(views)) + f" ELSE {steps} END"
    )
    tier = f", {_TIER} AS tier" if variant == "group" else ""
    named = ", ".join(f"'{view}'" for view in views)
    return (
        f"""(SELECT {_KEYS[key]} AS k, e.us * 64 + {place} AS spot, {place} AS step{tier} FROM {source}
            WHERE {where} AND e.view IN ({named}) AND {_KEYS[key]} IS NOT NULL)""",
        f"{TO_MS * 1000 * 64}",
    )


def _farthest(per_key: str, reached: list[str], variant: str) -> str:
    """How many keys reached each step, by tier where it groups."""
    counts = ", ".join(f"sum(CASE WHEN {one} THEN 1 ELSE 0 END)" for one in reached)
    if variant != "group":
        return f"SELECT {counts} FROM {per_key} p"
    return f"SELECT tier, {counts} FROM {per_key} p WHERE {reached[0]} GROUP BY 1 {_BEST}"


def _funnel_by_windows(steps: int, key: str, variant: str) -> str:
    """Step by step the latest start that led there, by a running maximum over what came before."""
    rows, until = _steps(steps, key, variant)
    made = f"(SELECT *, CASE WHEN step = 0 AND spot < {until} THEN spot END AS b0 FROM {rows} m)"
    for n in range(1, steps):
        before = f"max(b{n - 1}) OVER (PARTITION BY k ORDER BY spot ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING)"
        inside = f" AND (spot >> 6) - (a >> 6) <= {WINDOW_MS * 1000}" if key == "user" else ""
        made = f"""(SELECT *, CASE WHEN step = {n}{inside} THEN a END AS b{n}
            FROM (SELECT {", ".join(["k", "spot", "step", *(["tier"] if variant == "group" else [])])},
                {", ".join(f"b{j}" for j in range(n))}, {before} AS a FROM {made} s{n}) t{n})"""
    best = ", ".join(f"max(b{n}) AS b{n}" for n in range(steps))
    tier = ", min(tier) AS tier" if variant == "group" else ""
    per_key = f"(SELECT k, {best}{tier} FROM {made} s GROUP BY k)"
    return _farthest(per_key, [f"b{n} IS NOT NULL" for n in range(steps)], variant)


def _funnel_by_function(steps: int, key: str, variant: str) -> str:
    """By the function that ClickHouse has for it."""
    rows, until = _steps(steps, key, variant)
    window = WINDOW_MS * 1000 * 64 + 63 if key == "user" else 2**62
    marks = ", ".join([f"step = 0 AND spot < {until}", *(f"step = {n}" for n in range(1, steps))])
    tier = ", min(tier) AS tier" if variant == "group" else ""
    per_key = f"(SELECT k, windowFunnel({window})(toUInt64(spot), {marks}) AS level{tier} FROM {rows} GROUP BY k)"
    return _farthest(per_key, [f"level > {n}" for n in range(steps)], variant)


_FUNNELS: dict[str, Callable[[int, str, str], str]] = {POSTGRES: _funnel_by_windows, CLICKHOUSE: _funnel_by_function}


def _retention(variant: str, kind: str) -> str:
    """The sizes of the cohorts, then who returns: from a mask of weeks for each person."""
    source, where = _events("plain" if variant == "group" else variant, MONDAY_MS, MONDAY_MS + WEEKS * WEEK_MS)
    week = _whole(f"e.us - {MONDAY_MS * 1000}", _WEEK_US, kind)
    mask, has, ones = {
        POSTGRES: (f"bit_or(1 << ({week})::int)", "(m & {0}) > 0", "bit_count(m::bit(32))"),
        CLICKHOUSE: (f"groupBitOr(bitShiftLeft(toUInt32(1), {week}))", "bitAnd(m, {0}) > 0", "bitCount(m)"),
    }[kind]
    both = [f"{has.format(1 << n)} AND {has.format(1 << k)}" for n, k in CELLS]
    sums = ", ".join(f"sum(CASE WHEN {one} THEN n ELSE 0 END)" for one in both)
    people = f"SELECT e.person AS person, {mask} AS m FROM {source} WHERE {where} AND e.person IS NOT NULL GROUP BY 1"
    if variant != "group":
        return f"SELECT {sums} FROM (SELECT m, count(*) AS n FROM ({people}) p GROUP BY m) q"
    alike = f"""SELECT {_TIER} AS tier, m, count(*) AS n FROM ({people}) p
        LEFT JOIN {{b}}users u ON u.user_id = p.person GROUP BY 1, 2"""
    ranked = f"ORDER BY sum(n * {ones}) DESC, tier LIMIT {GROUPS}"
    return f"SELECT tier, {sums} FROM ({alike}) q GROUP BY tier {ranked}"


def _pathways(key: str, variant: str, kind: str) -> str:
    if kind == POSTGRES:
        lag, lead, every = "lag(v) OVER (PARTITION BY k ORDER BY us, id)", "lead(v) OVER w", ""
    else:  # its lag and lead look within a frame, and give an empty text past its end unless a null is asked for
        every = " ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING"
        lag = f"lagInFrame(toNullable(v), 1, NULL) OVER (PARTITION BY k ORDER BY us, id{every})"
        lead = "leadInFrame(toNullable(v), 1, NULL) OVER w"
    source, where = _events(variant)
    return f"""WITH found AS (SELECT {_KEYS[key]} AS k, e.us AS us, e.id AS id, e.view AS v FROM {source}
            WHERE {where} AND e.view IS NOT NULL AND {_KEYS[key]} IS NOT NULL),
        beside AS (SELECT k, us, id, v, {lag} AS before FROM found),
        changes AS (SELECT v, row_number() OVER w AS n, {lead} AS after FROM beside
            WHERE before IS NULL OR before <> v WINDOW w AS (PARTITION BY k ORDER BY us, id{every}))
        SELECT n + 1 AS place, count(*) FROM changes WHERE n <= {COLUMNS + 1} AND after IS NOT NULL
        GROUP BY 1 ORDER BY 1"""
