"""Journeys over random small worlds: the engine's flows and numbers are those that plain Python makes of the events."""

from __future__ import annotations

import json
from dataclasses import replace
from random import Random
from typing import Any

import duckdb
import pytest
from hypothesis import given, note, settings, strategies as st

from analyses import journey_model as model
from analyses.event_worlds import (
    FILTERS,
    HOUR_MS,
    MANY,
    PLANS,
    SEARCHES,
    SEEDS,
    WORLD,
    WORLDS,
    Meaning,
    Small,
    audiences,
    connect,
    facts_of,
    put,
    rows_of,
    small_of,
    smalls,
    untyped_order,
)
from analyses.journey_model import Body, Flow, Given
from roster.analyses.event_world import EventWorld
from roster.analyses.funnel import FlowCompute, MembersRequest, funnel, journey_list, journey_scalar, journey_timeseries
from roster.analyses.journey import Journey, Target
from roster.analyses.measures import Compute
from roster.analyses.periods import fixed_edges
from roster.base.time import Range, instant
from roster.model.schema import EVENT_SCHEMA
from roster.operations.bodies import decode
from roster.operations.bodies_journey import GraphQuery, JourneySearchBody
from roster.operations.journey_requests import read_dropped, read_flow_groups, read_journey, read_target
from worlds import World as Tables

SOME = settings(MANY, max_examples=WORLDS // 3 + 1)
"""The file has three tests and a third of the worlds for each."""
STEPS: tuple[tuple[str, Meaning], ...] = (
    ("@view.name:home", lambda e: e["type"] != "session" and e["@view.name"] == "home"),
    ("@view.name:cart", lambda e: e["type"] != "session" and e["@view.name"] == "cart"),
    ("@view.name:pay", lambda e: e["type"] != "session" and e["@view.name"] == "pay"),
    ("@view.name:(home OR cart)", lambda e: e["type"] != "session" and e["@view.name"] in ("home", "cart")),
    ("@action.name:buy", lambda e: e["type"] != "session" and e["@action.name"] == "buy"),
)
MEANS = dict((*SEARCHES, *STEPS))
ALIASES = ("a", "b", "c", "d")
FACETS = ("@view.name", "@context.plan", "@tier", "@score", "@size", "@session.id", "@view.loading_time")
OFTEN = ("1", "2", "3")
UNTYPED = "@context.plan"
"""A path that events have no column for."""


@st.composite
def worlds(draw: st.DrawFn) -> Small:
    """Few names, people and sessions, at times that often meet: journeys get far, and things happen between steps."""
    small = draw(smalls(0))
    crowded = draw(st.sampled_from((True, True, False)))
    count = draw(st.sampled_from((16, 12, 4, 20, 16, 20, 24)))
    tables = small.tables.tables | {"events": [dense_event(draw, n, small.start_ms, crowded) for n in range(count)]}
    return Small(Tables(small.tables.schemas, tables), facts_of(tables), small.start_ms)


def dense_event(draw: st.DrawFn, n: int, start_ms: int, crowded: bool) -> dict[str, Any]:
    """`crowded`: nearly all of it is one session of one user."""
    pick = st.sampled_from
    alone = crowded and draw(pick((True,) * 6 + (False,)))
    user, session = ("u0", "s0") if alone else (draw(pick(("u0", "u1", "u9", None))), draw(pick(("s0", "s1", None))))
    after_ms = draw(pick((0, 0, 1, 2, 3, 4, 24, 25, 26))) * HOUR_MS + draw(pick((0, 0, 0, 1, -1, 600_000)))
    return {c.name: None for c in EVENT_SCHEMA} | {
        "event_id": f"e{n}",
        "time": instant(start_ms + after_ms),
        "type": draw(pick(("view", "view", "view", "view", "view", "action", "session"))),
        "user_id": user,
        "resolved_user_id": user,
        "anonymous_id": draw(pick(("x", None))),
        "account_id": "a0" if alone else draw(pick(("a0", "a1", "a9", None))),
        "session_id": session,
        "view_name": draw(pick(("home", "cart", "pay", "home", "cart", "pay", "other", None))),
        "action_name": draw(pick(("buy", None))),
        "loading_time": draw(pick((None, 0, 5, 3_000_000_000))),
        "rest": draw(pick((None, *({"context": {"plan": plan}} for plan in PLANS)))),
    }


@st.composite
def nodes(draw: st.DrawFn, usual: int) -> Body:
    text, _ = draw(st.sampled_from((*(STEPS[usual],) * 60, *STEPS, *SEARCHES)))
    if draw(st.integers(0, 7)):
        return {"data_source": "product_analytics", "search": {"query": text}}
    occurrences = {
        "operator": draw(st.sampled_from(("=", "<", "<=", ">", ">="))),
        "value": draw(st.sampled_from(OFTEN)),
    }
    return {"data_source": "product_analytics_occurrence", "search": {"query": text, "occurrences": occurrences}}


def targets(aliases: list[str]) -> st.SearchStrategy[Body | None]:
    first = {alias: aliases.index(alias) for alias in aliases}
    paths = [(a, b) for a in first for b in first if first[a] <= first[b]]
    return st.one_of(
        st.none(),
        st.sampled_from([{"type": "node", "value": alias} for alias in first]),
        st.sampled_from([{"type": "path", "start": a, "end": b} for a, b in paths]),
    )


SPECIAL = ("window", "order", "exclusions", "filters", "string", "audience", "identified", "span", "now", "secondary")
"""What a draw may have beside steps and a key: few at a time, as all together let nobody through."""


@st.composite
def searches(draw: st.DrawFn, special: set[str]) -> Body:
    pick = st.sampled_from
    aliases = draw(pick((["a", "b", "c"], ["a", "b"], ["a", "b", "c"], ["a", "b", "c", "a", "b", "c"], ["a"], None)))
    aliases = aliases or draw(st.lists(pick(ALIASES), min_size=1, max_size=6))
    primary = draw(pick(("@session.id", "@session.id", "@usr.id", "@usr.id", "@account.id", None)))
    secondary = draw(pick((["@session.id"], ["@tier"], ["@context.plan"], ["@account.id", "@session.id"])))
    search: Body = {
        "expression": " -> ".join(aliases),
        "node_objects": {alias: draw(nodes(place)) for place, alias in enumerate(ALIASES)},
        "join_keys": {"primary": primary, "secondary": secondary if "secondary" in special else None},
        "include_active_sessions": draw(pick((None, False, True))) if "now" in special else True,
    }
    if "window" in special:
        search["conversion_window_ms"] = draw(pick((HOUR_MS, 2 * HOUR_MS, 25 * HOUR_MS, 1)))
    if "order" in special:
        search["order"] = draw(pick(("strict", "strict", "loose")))
    if "span" in special:
        search["clip_to_range"] = draw(pick((True, False, None)))
    if "exclusions" in special and len(set(aliases)) > 1:
        search["exclusions"] = draw(exclusions(aliases))
    filters: Body = {}
    if "filters" in special:
        filters["graph_filters"] = draw(st.lists(graph_filters(aliases), min_size=1, max_size=2))
    if "string" in special:
        filters["string_filter"] = draw(pick([text for text, _ in FILTERS]))
    return search | {"filters": filters}


@st.composite
def exclusions(draw: st.DrawFn, aliases: list[str]) -> list[Body]:
    pick = st.sampled_from
    made = []
    for _ in range(draw(pick((1, 1, 2)))):
        places = sorted({aliases.index(alias) for alias in aliases})
        low, high = sorted(draw(st.lists(pick(places), min_size=2, max_size=2, unique=True)))
        one: Body = {"query": draw(pick(STEPS + SEARCHES))[0]}
        named = draw(pick(("both", "after", "before", "none")))
        if named in ("both", "after") and low < len(aliases) - 1:
            one["after"] = aliases[low]
        if named in ("both", "before"):
            one["before"] = aliases[high]
        made.append(one)
    return made


@st.composite
def graph_filters(draw: st.DrawFn, aliases: list[str]) -> Body:
    name = draw(st.sampled_from(("__dd.time_to_convert", "__dd.session")))
    values = (0, 1, HOUR_MS, HOUR_MS + 1) if name == "__dd.time_to_convert" else (0, 1, 2)
    made: Body = {"name": name, "operator": draw(st.sampled_from(("=", "<", ">", "<=", ">=")))}
    return made | {"value": draw(st.sampled_from(values)), "target": draw(targets(aliases))}


RATE_SORTS: tuple[Body, ...] = (
    {"metric": "__dd.conversion_rate"},
    {"metric": "__dd.conversion_rate", "order": "asc"},
    {"aggregation": "count", "metric": "__dd.dropoff_rate"},
)
SORTS: tuple[Body, ...] = (
    *RATE_SORTS,
    {"metric": "__dd.conversion"},
    {"aggregation": "avg", "metric": "__dd.time_to_convert", "order": "asc"},
    {"aggregation": "max", "metric": "@score"},
    {"aggregation": "count", "metric": "@view.name", "order": "asc"},
    {"metric": "@context.plan"},
)


@st.composite
def groups_by(draw: st.DrawFn, search: Body) -> list[Body]:
    pick = st.sampled_from
    aliases = model.steps_of(search)
    facets = draw(st.lists(pick((*FACETS, *["@context.plan"] * 2)), max_size=draw(pick((0, 1, 1, 2)))))
    return [
        {
            "facet": facet,
            "limit": draw(pick((None, 1, 2))),
            "should_exclude_missing": draw(st.booleans()),
            "sort": draw(pick((None, {"order": "asc"}, {"aggregation": "count", "order": "desc"}, *SORTS))),
            "target": draw(targets(aliases)),
            "value_filters": draw(pick((None, None, [], ["home", "gold", "N/A", "pro"]))),
        }
        for facet in facets
    ]


@st.composite
def asked(draw: st.DrawFn) -> tuple[Small, Body, Given]:
    """A world, a journey's search in it, and what its words mean."""
    pick = st.sampled_from
    special = set(draw(st.lists(pick(SPECIAL), min_size=1, max_size=4)))
    small, search = draw(worlds()), draw(searches(special))
    groups, formula, admits = draw(audiences())
    if "audience" in special and groups:
        of = {kind: [{"name": n, "query": q} for n, e, q in groups if e == kind] for kind in ("users", "accounts")}
        search["filters"]["audience_filters"] = of | {"formula": formula}
    low, high = draw(pick((-1, 1, 3, 23))), draw(pick((4, 2, 25, 60)))
    low, high = (low, max(high, low + 1)) if "span" in special else (-1, 60)
    hours = draw(pick((2, 4, 26, 28, 30, 0))) if "now" in special else 2000
    span = (small.start_ms + low * HOUR_MS, small.start_ms + high * HOUR_MS)
    now_ms = small.start_ms + hours * HOUR_MS + draw(pick((0, 1, 900_000, 900_001)))
    note(json.dumps(search))
    admits = admits if "audience" in special else lambda e: True
    return (
        small,
        search,
        Given(small.facts, span, now_ms, MEANS, admits, "identified" in special, filters=dict(FILTERS)),
    )


def world_at(now_ms: int) -> EventWorld:
    return EventWorld(replace(WORLD.users, now_ms=now_ms), replace(WORLD.accounts, now_ms=now_ms))


def read(search: Body, given: Given, total: bool, entities: str | None = None) -> Journey:
    body = decode(JourneySearchBody, json.dumps(search).encode())
    span = Range(*given.span)
    return read_journey(body, span, total=total, identified_only=given.identified_only, entities=entities)


def read_groups(search: Body, groups: list[Body]) -> Any:
    body = {"search": search, "compute": {}, "group_by": groups}
    return read_flow_groups(decode(GraphQuery, json.dumps(body).encode()).group_by, model.steps_of(search))


def read_body(search: Body, target: Body | None) -> Any:
    body = {"search": search, "compute": {"target": target}}
    return decode(GraphQuery, json.dumps(body).encode()).compute.target


def near(value: Any) -> Any:
    """Numbers up to how they are rounded."""
    return pytest.approx(value, rel=1e-9) if isinstance(value, float) else value


@pytest.fixture(scope="module")
def connection() -> duckdb.DuckDBPyConnection:
    return connect()


@SOME
@given(data=st.data(), world=asked(), total=st.booleans())
def test_funnels(
    connection: duckdb.DuckDBPyConnection, data: st.DataObject, world: tuple[Small, Body, Given], total: bool
) -> None:
    small, search, meant = world
    put(connection, small)
    groups = data.draw(groups_by(search))
    compute = data.draw(st.sampled_from((None, None, *COMPUTES)))
    if compute is not None:
        total = compute[0] == "count"
    found, whole = model.flows(search, meant, total=total), (0, len(model.steps_of(search)) - 1)
    wanted = [
        (tags, model.funnel_steps(search, compute, flows)) for tags, flows in split(search, groups, found, 0, whole)
    ]
    made = funnel(
        world_at(meant.now_ms),
        read(search, meant, total),
        None if compute is None else Compute(*compute, "/c"),
        read_groups(search, groups),
    )
    names = ("count", "value", "min", "max", "avg") if compute else ("count", "min", "max", "avg")

    def row(steps: list[dict[str, Any]]) -> tuple[Any, ...]:
        return tuple(near(step[name]) for step in steps for name in names)

    (overall,) = rows_of(connection, made.plans[0])
    assert overall == row(model.funnel_steps(search, compute, found))
    if groups:
        assert rows_of(connection, made.plans[1]) == [(*tags, *row(steps)) for tags, steps in wanted]


COMPUTES = (
    ("count", "@view.loading_time"),
    ("cardinality", "@view.name"),
    ("cardinality", "@context.plan"),
    ("avg", "@view.loading_time"),
    ("sum", "@score"),
    ("min", "@score"),
    ("max", "@context.plan"),
    ("median", "@view.loading_time"),
    ("pc90", "@score"),
)
TIMES = tuple((name, "__dd.time_to_convert") for name in ("avg", "median", "min", "max", "pc75"))
RATES = tuple(
    (name, f"__dd.{metric}")
    for name in ("count", "cardinality")
    for metric in ("conversion", "conversion_rate", "dropoff_rate")
)


def split(
    search: Body, groups: list[Body], found: list[Flow], step: int, target: tuple[int, int]
) -> list[tuple[tuple[str, ...], list[Flow]]]:
    return model.split(search, groups, found, step, target) if groups else [((), found)]


@SOME
@given(data=st.data(), world=asked())
def test_numbers(connection: duckdb.DuckDBPyConnection, data: st.DataObject, world: tuple[Small, Body, Given]) -> None:
    """Scalar and timeseries."""
    small, search, meant = world
    put(connection, small)
    groups = data.draw(groups_by(search))
    aggregation, metric = data.draw(st.sampled_from(COMPUTES + TIMES + RATES))
    compute = {"aggregation": aggregation, "metric": metric, "target": data.draw(targets(model.steps_of(search)))}
    start, end = model.target_of(search, compute["target"])
    found = [f for f in model.flows(search, meant, total=aggregation == "count") if f.level > start]
    wanted = split(search, groups, found, end, (start, end))
    journey, flow_groups = read(search, meant, aggregation == "count"), read_groups(search, groups)
    target = read_target(read_body(search, compute["target"]), model.steps_of(search), "/t")
    asking = FlowCompute(Compute(aggregation, metric, "/c"), target)

    made = journey_scalar(world_at(meant.now_ms), journey, asking, flow_groups)
    rows = [(*tags, *map(near, model.computed(search, compute, flows))) for tags, flows in wanted]
    assert rows_of(connection, made.plans[0]) == rows

    width_ms = data.draw(st.sampled_from((HOUR_MS, 7 * HOUR_MS, 24 * HOUR_MS)))
    edges = fixed_edges(journey.span, width_ms, "/i")
    made = journey_timeseries(world_at(meant.now_ms), journey, asking, flow_groups, edges)
    points = []
    for tags, flows in wanted:
        for place, at_ms in enumerate(edges[:-1]):
            inside = [f for f in flows if at_ms <= (f.ms(0) or 0) < at_ms + width_ms]
            if inside:
                points.append((*tags, place, *map(near, model.computed(search, compute, inside))))
    assert [row[len(groups) :] for row in rows_of(connection, made.plans[0])] == points


ENTITIES: dict[str, list[tuple[str, Meaning]]] = {
    "@usr.id": [
        ("tier:gold", lambda e: e["has_profile"] and e["@tier"] == "gold"),
        ("-@tier:gold", lambda e: e["has_profile"] and e["@tier"] != "gold"),
        ("session_count:>=1", lambda e: e["has_profile"] and e["session_count"] >= 1),
    ],
    "@account.id": [
        ("size:big", lambda e: e["@size"] == "big"),
        ("-size:big", lambda e: e["@account.id"] in ("a0", "a1") and e["@size"] != "big"),
    ],
    "@session.id": [
        ("@view.name:home", lambda e: e["@view.name"] == "home"),
        ("@tier:gold", lambda e: e["@tier"] == "gold"),
        ("@type:session", lambda e: True),
        ("-@context.plan:pro", lambda e: e["@context.plan"] != "pro"),
    ],
}


def entities_meant(search: Body, given: Given, means: Meaning) -> Meaning:
    """Users and accounts are searched by their profile, sessions by the row that is computed of them."""
    if model.primary_of(search) != "@session.id":
        return means
    held = {e["@session.id"] for e in given.facts if e["type"] == "session" and means(e)} - {None}
    return lambda e: e["@session.id"] in held


@SOME
@given(data=st.data(), world=asked(), dropped=st.booleans(), limit=st.integers(1, 4))
def test_lists(
    connection: duckdb.DuckDBPyConnection,
    data: st.DataObject,
    world: tuple[Small, Body, Given],
    dropped: bool,
    limit: int,
) -> None:
    small, search, meant = world
    put(connection, small)
    pick = st.sampled_from
    groups, aliases = data.draw(groups_by(search)), model.steps_of(search)
    for group in groups:
        group["sort"] = None if group["sort"] in RATE_SORTS else group["sort"]
    entities, means = data.draw(pick([(None, None), *ENTITIES[model.primary_of(search)]]))
    meant = replace(meant, entities=means and entities_meant(search, meant, means))
    columns = tuple(data.draw(st.lists(pick((*FACETS, "date", "@usr.id")), max_size=3, unique=True)))
    target = data.draw(targets(aliases))
    if dropped and target and target["type"] == "node" and aliases.index(target["value"]) == len(aliases) - 1:
        target = None
    sort = data.draw(pick((None, "timestamp", "nobody has this", *columns)))
    descending = data.draw(st.booleans())
    asking = MembersRequest(
        (read_dropped if dropped else read_target)(read_body(search, target), aliases, "/t"),
        dropped,
        columns,
        data.draw(st.booleans()),
        sort,
        descending,
        limit,
    )
    assert_listed(connection, search, meant, asking, groups, target, entities)


@SOME
@given(seed=SEEDS)
def test_lists_of_many(connection: duckdb.DuckDBPyConnection, seed: int) -> None:
    """Whoever saw a page, by a path that may hold anything: few other conditions, so that there is much to order."""
    random = Random(seed)
    small = small_of(random, 24)
    put(connection, small)
    key = random.choice(("@session.id", "@usr.id"))
    node = {"data_source": "product_analytics", "search": {"query": random.choice(("", "@type:view"))}}
    search = {"expression": "a", "node_objects": {"a": node}, "join_keys": {"primary": key}, "filters": {}}
    span = (small.start_ms - HOUR_MS, small.start_ms + 60 * HOUR_MS)
    meant = Given(small.facts, span, small.start_ms + 2000 * HOUR_MS, MEANS, lambda e: True)
    columns = tuple(random.sample((UNTYPED, "@view.name", "@tier", "@score"), random.choice((2, 3))))
    ranked = {"limit": random.choice((1, 2)), "sort": random.choice([s for s in SORTS if s not in RATE_SORTS])}
    groups = random.choice(([], [{"facet": UNTYPED} | ranked], [{"facet": "@tier"} | ranked, {"facet": UNTYPED}]))
    sort, descending = random.choice((UNTYPED, *columns)), random.choice((True, False))
    asking = MembersRequest(Target(0, 0), False, columns, random.choice((True, False)), sort, descending, 100)
    assert_listed(connection, search, meant, asking, groups)


def assert_listed(
    connection: duckdb.DuckDBPyConnection,
    search: Body,
    meant: Given,
    asking: MembersRequest,
    groups: list[Body],
    target: Body | None = None,
    entities: str | None = None,
) -> None:
    """The engine's records and their count are the model's."""
    made, names = journey_list(
        world_at(meant.now_ms), read(search, meant, False, entities), asking, read_groups(search, groups)
    )
    flows = [f for f in model.flows(search, meant, total=False) if behind(search, target, asking.dropped, f)]
    sort, descending, limit = asking.sort, asking.descending, asking.limit
    untyped = sort == UNTYPED and sort in asking.columns
    told = [
        (tags, flow)
        for tags, some in split(search, groups, flows, 0, (asking.target.start, asking.step))
        for flow in some
    ]
    assert rows_of(connection, made.plans[1]) == [(len(told),)]
    records = ordered(
        [(record(search, groups, tags, asking, f), tags, f) for tags, f in told], sort, descending, untyped
    )
    for wanted, row in zip(records[:limit], rows_of(connection, made.plans[0]), strict=True):
        assert dict(zip(names, row, strict=True)) == wanted


def behind(search: Body, target: Body | None, dropped: bool, flow: Flow) -> bool:
    start, end = model.target_of(search, target)
    if dropped and target and target["type"] == "node":
        return flow.level == end + 1
    return start < flow.level <= end if dropped else flow.level > end


def record(
    search: Body, groups: list[Body], tags: tuple[str, ...], asking: MembersRequest, flow: Flow
) -> dict[str, Any]:
    made = {f"{alias}_timestamp": flow.ms(n) for n, alias in reversed(list(enumerate(model.steps_of(search))))}
    made = made if asking.timestamps else {}
    made |= {group["facet"]: tag for group, tag in reversed(list(zip(groups, tags, strict=True)))}
    made |= {name: flow.first(name) if name == UNTYPED else flow.least(0, name) for name in asking.columns}
    return made | {
        model.primary_of(search): flow.least(0, model.WHOSE[model.primary_of(search)]),
        "timestamp": flow.ms(0),
    }


def ordered(
    records: list[tuple[dict[str, Any], tuple[str, ...], Flow]], sort: str | None, descending: bool, untyped: bool
) -> list[dict[str, Any]]:
    """By a column of the record if it is one, missing values last; then the newest first, then by the groups."""
    records.sort(key=lambda one: (-(one[2].ms(0) or 0), one[2].entity, one[1]))

    def place(told: dict[str, Any]) -> Any:
        return untyped_order(told[sort or ""], descending) if untyped else told[sort or ""]

    if any(sort in told for told, _, _ in records):
        known = [one for one in records if place(one[0]) is not None]
        known.sort(key=lambda one: place(one[0]), reverse=descending)
        records = known + [one for one in records if place(one[0]) is None]
    return [told for told, _, _ in records]
