"""Who is behind a number of a random world: as many as plain Python counts there, of each group, bucket and link."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from itertools import product
from random import Random

import duckdb
import pytest
from hypothesis import given, note, settings, strategies as st

from analyses import journey_model, retention_model, sankey_model
from analyses.event_worlds import (
    HOUR_MS,
    MANY,
    NOW_MS,
    SEARCHES,
    SEEDS,
    WORLD,
    WORLDS,
    Small,
    connect,
    put,
    rows_of,
    small_of,
)
from analyses.journey_model import Body, Given
from analyses.test_journey import behind, read, read_body, read_groups
from analyses.test_retention import Case, cases
from analyses.test_sankey import case_of
from roster.analyses import members
from roster.analyses.journey import Key
from roster.analyses.people import Cell, Passage, Stop, keys_in_cell, keys_on_paths
from roster.analyses.sankey import Kind
from roster.base.time import Range
from roster.model.schema import Entity
from roster.operations.journey_requests import read_dropped, read_target

SOME = settings(MANY, max_examples=WORLDS // 3 + 1)
"""The file has three tests and a third of the worlds for each."""


@pytest.fixture(scope="module")
def connection() -> duckdb.DuckDBPyConnection:
    return connect()


@SOME
@given(case=cases(groups_min=1), place=st.tuples(st.integers(0, 9), st.integers(0, 9)))
def test_cells_of_groups(connection: duckdb.DuckDBPyConnection, case: Case, place: tuple[int, int]) -> None:
    note(f"{case.asked}\n{case.groups}")
    put(connection, case.small)
    cohort = place[0] % case.asked.periods.cohorts
    column = place[1] % case.asked.periods.columns(cohort)
    for tags, _, counts in retention_model.grid(case.meant, case.small.facts)[:4]:
        plan, _ = keys_in_cell(WORLD, case.asked, Cell(cohort, column, case.groups, tuple(tags)))
        assert len(rows_of(connection, plan)) == counts[cohort][column], tags


@dataclass(frozen=True)
class Part:
    """Flows that are asked about: of a journey in a world, its groups, a target, and when they began."""

    small: Small
    search: Body
    given: Given
    total: bool
    groups: list[Body]
    target: Body | None
    dropped: bool
    began: Range | None

    def owners(self) -> dict[tuple[str, ...], set[str]]:
        """The users behind the flows of each group."""
        found: dict[tuple[str, ...], set[str]] = defaultdict(set)
        for flow in journey_model.flows(self.search, self.given, total=self.total):
            for tags in product(*(journey_model.tags_of(self.search, group, flow) for group in self.groups)):
                inside = self.began is None or self.began.from_ms <= (flow.ms(0) or 0) < self.began.to_ms
                who = flow.least(0, "@usr.id")
                is_one = inside and behind(self.search, self.target, self.dropped, flow)
                found[tags] |= {who} if who and is_one else set()
        return found


def part_of(random: Random) -> Part:
    """Steps that many events take, so that there are flows to tell apart."""
    pick = random.choice
    small = small_of(random, 20, users=("u0", "u1", "u2", None))
    nodes = {alias: node(pick(("", "", "@type:view", "@view.name:*a*"))) for alias in "ab"}
    search = {"expression": "a -> b", "node_objects": nodes, "include_active_sessions": True}
    search |= {"join_keys": {"primary": pick(("@session.id", "@usr.id", "@account.id"))}}
    ends: list[Body | None] = [None, {"type": "node", "value": "a"}, {"type": "path", "start": "a", "end": "b"}]
    facets = random.sample(("@view.name", "@context.plan", "@tier", "@size"), pick((0, 1, 1, 2)))
    hours = pick((None, (0, 3), (3, 60)))
    return Part(
        small,
        search,
        Given(small.facts, (small.start_ms - HOUR_MS, small.start_ms + 60 * HOUR_MS), NOW_MS, dict(SEARCHES), bool),
        pick((False, True)),
        [{"facet": facet, "target": pick(ends)} for facet in facets],
        pick(ends),
        pick((False, True)),
        hours and Range(*(small.start_ms + hour * HOUR_MS for hour in hours)),
    )


def node(query: str) -> Body:
    return {"data_source": "product_analytics", "search": {"query": query}}


@SOME
@given(seed=SEEDS)
def test_flows_of_groups_and_buckets(connection: duckdb.DuckDBPyConnection, seed: int) -> None:
    part = part_of(Random(seed))
    note(f"{part.search} {part.groups} {part.target}")
    put(connection, part.small)
    target = (read_dropped if part.dropped else read_target)(read_body(part.search, part.target), ["a", "b"], "/t")
    journey = read(part.search, part.given, part.total)
    for tags, owners in sorted(part.owners().items())[:4]:
        wanted = members.Part(read_groups(part.search, part.groups), tags, part.began)
        plan, _ = members.keys_behind(WORLD, Entity.USERS, journey, target, dropped=part.dropped, part=wanted)
        assert sorted(key for (key,) in rows_of(connection, plan)) == sorted(owners), tags


def test_the_worlds_have_flows_to_tell_apart() -> None:
    parts = [part_of(Random(seed)) for seed in range(100)]
    assert sum(len({frozenset(owners) for owners in part.owners().values()}) > 1 for part in parts) > 20
    assert sum(part.owners() != replace(part, began=None).owners() for part in parts) > 20
    assert sum(part.owners() != replace(part, total=not part.total).owners() for part in parts) > 10


@SOME
@given(seed=SEEDS)
def test_links(connection: duckdb.DuckDBPyConnection, seed: int) -> None:
    """Of other and dropoff too; each user is one key of a path here."""
    case = case_of(Random(seed), ("u0", "u1", "u2", "u3"))
    wanted = replace(case.wanted, key=Key.USER, secondary=())
    note(f"{wanted}")
    put(connection, case.small)
    _, links = sankey_model.expected(case.events, replace(case.asked, keys=("person",)))
    for column, source, target, value in links:
        passage = Passage(column, stop(source, column), stop(target, column + 1))
        plan, _ = keys_on_paths(WORLD, Entity.USERS, wanted, passage)
        assert len(rows_of(connection, plan)) == value, passage


def stop(id: str, column: int) -> Stop:
    kind = next((kind for kind in (Kind.OTHER, Kind.DROPOFF) if id == f"{kind}:{column}"), None)
    return Stop(None, kind) if kind else Stop(id.removeprefix(f"{column}:"))


def test_the_worlds_have_links_of_every_kind() -> None:
    """A test of random worlds in which nothing happens would show nothing."""
    cases = [case_of(Random(seed), ("u0", "u1", "u2", "u3")) for seed in range(100)]
    made = [sankey_model.expected(c.events, replace(c.asked, keys=("person",)))[1] for c in cases]
    ends = [(link[1].split(":")[0], link[2].split(":")[0]) for links in made for link in links]
    assert sum("other" in end for end in ends) > 40
    assert sum(end[1] == "dropoff" for end in ends) > 20
