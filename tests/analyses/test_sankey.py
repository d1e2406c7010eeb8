"""Pathways: the engine's diagram is the one that plain Python makes of the same events."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Any

import duckdb
import pytest
from hypothesis import given, note

from analyses.event_worlds import (
    HOUR_MS,
    MANY,
    SEARCHES,
    SEEDS,
    WORLD,
    Fact,
    Small,
    audience_of,
    connect,
    put,
    rows_of,
    small_of,
    span_of,
)
from analyses.sankey_model import Asked, expected, paths
from roster.analyses.audience import EVERYONE, Audience, Group
from roster.analyses.base_query import BaseQuery
from roster.analyses.explore import Selection
from roster.analyses.journey import Key
from roster.analyses.sankey import Diagram, Pathways, diagram, pathways
from roster.base.time import Range, instant
from roster.model.formula import parse_formula
from roster.model.schema import EVENT_SCHEMA, Entity
from worlds import World as Tables

PERSON = {Key.SESSION: "@session.id", Key.USER: "person", Key.ACCOUNT: "@account.id"}
ANCHORS = (*[None] * 8, "home", "*art", "?ome", "*", "nowhere")
MOSTLY = (*SEARCHES[:3] * 15, *SEARCHES)


@pytest.fixture(scope="module")
def connection() -> duckdb.DuckDBPyConnection:
    return connect()


def shown(made: Diagram) -> tuple[list[Any], list[Any]]:
    nodes = []
    for n in made.nodes:
        listed = tuple((i.id, i.name, i.value, i.incoming, i.outgoing) for i in n.listed)
        counts = (n.value, n.incoming, n.outgoing, n.dropoff)
        nodes.append((n.id, n.name, n.kind.value, n.column, *counts, listed))
    return nodes, [(link.column, link.source, link.target, link.value) for link in made.links]


def asked_of(random: Random) -> Asked:
    pick = random.choice
    facets = pick(
        [("@view.name", "@view.name"), ("@view.name", "@view.name"), ("@view.name", "@action.name")] * 3
        + [("@context.plan", "@context.plan"), ("@tier", "@size")]
    )
    is_one = facets[0] == facets[1]
    return Asked(
        keys=tuple(dict.fromkeys((pick(list(Key)), *pick([(), (), (), (), ("@tier",)])))),
        source=facets[0],
        target=facets[1],
        begins=pick(ANCHORS) if is_one else None,
        ends=pick(ANCHORS) if is_one else None,
        columns=pick((3, 3, 4, 5, 7)),
        entries=pick((1, 2, 3)),
    )


@dataclass(frozen=True)
class Case:
    """A world, the same request twice, as the product has it and as the model does, and the events it is about."""

    small: Small
    wanted: Pathways
    asked: Asked
    events: list[Fact]


def case_of(random: Random, users: Sequence[str | None] = ("u0", "u0", "u1", "u1", None)) -> Case:
    small = small_of(random, 24, ("s0", "s0", "s1", "s1", None), users)
    asked = asked_of(random)
    text, finds = random.choice(MOSTLY)
    groups, formula, admits = audience_of(random, 0.85)
    from_ms, to_ms = (small.start_ms + hour * HOUR_MS for hour in span_of(random, 0.7))
    key = Key(asked.keys[0])
    selection = Selection(
        Range(from_ms, to_ms),
        BaseQuery(text, "/q"),
        Audience(
            tuple(Group(n, Entity(e), q, "/a") for n, e, q in groups),
            parse_formula(formula, [name for name, _, _ in groups], "/f"),
        ),
    )
    ends = (asked.begins, asked.ends, asked.columns, asked.entries)
    wanted = Pathways(selection, key, asked.keys[1:], asked.source, asked.target, *ends)
    events = [e for e in small.facts if from_ms <= e["ms"] < to_ms and finds(e) and admits(e)]
    return Case(small, wanted, replace(asked, keys=(PERSON[key], *asked.keys[1:])), events)


@MANY
@given(case=SEEDS.map(lambda seed: case_of(Random(seed))))
def test_the_diagram_is_that_of_the_paths(connection: duckdb.DuckDBPyConnection, case: Case) -> None:
    note(f"{case.wanted}")
    put(connection, case.small)
    plan, _ = pathways(WORLD, case.wanted)
    made, _ = diagram(rows_of(connection, plan), case.wanted)
    assert shown(made) == expected(case.events, case.asked)


def test_the_worlds_have_paths_to_compare() -> None:
    """A test of random worlds in which nothing happens would show nothing."""
    cases = [case_of(Random(seed)) for seed in range(200)]
    assert sum(len(paths(c.events, c.asked)) > 1 for c in cases) > 40
    assert sum(any(len(values) > 2 for _, values, _ in paths(c.events, c.asked)) for c in cases) > 40


def test_of_one_instant_the_event_with_the_later_id_leads_to_the_last_column(
    connection: duckdb.DuckDBPyConnection,
) -> None:
    """By hand: `buy` has the time of `cart` and a later id, so it comes after it; `look` comes before it."""
    rows = dict(small_of(Random(0), 0).tables.tables)
    events = (("e1", 0, "home", None), ("e2", 1, None, "look"), ("e3", 1, "cart", None), ("e4", 1, None, "buy"))
    rows["events"] = [
        {c.name: None for c in EVENT_SCHEMA}
        | {"event_id": id, "time": instant(hour * HOUR_MS), "type": "view", "session_id": "s"}
        | {"view_name": view, "action_name": action}
        for id, hour, view, action in events
    ]
    put(connection, Small(Tables(small_of(Random(0), 0).tables.schemas, rows), [], 0))
    selection = Selection(Range(0, HOUR_MS * 2), BaseQuery("", "/q"), EVERYONE)
    asked = Pathways(selection, Key.SESSION, (), "@view.name", "@action.name", None, None, 3, 5)
    made, _ = diagram(rows_of(connection, pathways(WORLD, asked)[0]), asked)
    assert [node.id for node in made.nodes] == ["0:home", "1:cart", "2:buy"]
