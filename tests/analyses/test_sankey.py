"""Pathways: the engine's diagram is the one that plain Python makes of the same events."""

from __future__ import annotations

from random import Random
from typing import Any

import duckdb
import pytest
from hypothesis import given, note, strategies as st

from analyses.event_worlds import (
    HOUR_MS,
    MANY,
    OFTEN,
    SEEDS,
    WORLD,
    Meaning,
    Search,
    Small,
    audiences,
    connect,
    put,
    rows_of,
    smalls,
    spans,
)
from analyses.sankey_model import Asked, expected
from roster.analyses.audience import Audience, Group
from roster.analyses.base_query import BaseQuery
from roster.analyses.explore import Selection
from roster.analyses.journey import Key
from roster.analyses.sankey import Diagram, Pathways, diagram, pathways
from roster.base.time import Range
from roster.model.formula import parse_formula
from roster.model.schema import Entity

PERSON = {Key.SESSION: "@session.id", Key.USER: "person", Key.ACCOUNT: "@account.id"}
ANCHORS = (None, None, "home", "*art", "?ome", "*", "nowhere")


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


@st.composite
def pathways_asked(draw: st.DrawFn) -> Asked:
    pick = Random(draw(SEEDS)).choice
    facets = pick(
        [("@view.name", "@view.name")] * 3
        + [("@view.name", "@action.name"), ("@context.plan", "@context.plan"), ("@tier", "@size")]
    )
    is_one = facets[0] == facets[1]
    return Asked(
        keys=tuple(dict.fromkeys((pick(list(Key)), *pick([(), (), ("@tier",)])))),
        source=facets[0],
        target=facets[1],
        begins=pick(ANCHORS) if is_one else None,
        ends=pick(ANCHORS) if is_one else None,
        columns=pick((3, 3, 4, 5, 7)),
        entries=pick((1, 2, 3)),
    )


@MANY
@given(
    small=smalls(24, ("s0", "s0", "s0", "s1", None), ("u0", "u0", "u0", "u1", None)),
    asked=pathways_asked(),
    search=SEEDS.map(lambda seed: Random(seed).choice(OFTEN)),
    span=spans(),
    audience=audiences(),
)
def test_the_diagram_is_that_of_the_paths(
    connection: duckdb.DuckDBPyConnection,
    small: Small,
    asked: Asked,
    search: Search,
    span: tuple[int, int],
    audience: tuple[list[tuple[str, str, str]], str, Meaning],
) -> None:
    note(f"{asked} {search[0]!r} {span} {audience[1]!r}")
    put(connection, small)
    groups, formula, admits = audience
    from_ms, to_ms = (small.start_ms + hour * HOUR_MS for hour in span)
    names = [name for name, _, _ in groups]
    wanted = Pathways(
        Selection(
            Range(from_ms, to_ms),
            BaseQuery(search[0], "/q"),
            Audience(tuple(Group(n, Entity(e), q, "/a") for n, e, q in groups), parse_formula(formula, names, "/f")),
        ),
        Key(asked.keys[0]),
        asked.keys[1:],
        asked.source,
        asked.target,
        asked.begins,
        asked.ends,
        asked.columns,
        asked.entries,
    )
    plan, _ = pathways(WORLD, wanted)
    made, _ = diagram(rows_of(connection, plan), wanted)
    events = [e for e in small.facts if from_ms <= e["ms"] < to_ms and search[1](e) and admits(e)]
    nodes, links = shown(made)
    mine = Asked((PERSON[Key(asked.keys[0])], *asked.keys[1:]), *tuple(vars(asked).values())[1:])
    wanted_nodes, wanted_links = expected(events, mine)
    assert nodes == wanted_nodes
    assert links == wanted_links
