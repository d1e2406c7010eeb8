"""Syncs of changes only end as if all had been read from nothing: values, ready-made joins, counters, quarantine.

Random sources and increments, with profiles that come and change while the joins are made, and runs that are
stopped and go on. The source from nothing is another world, which never saw an increment.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import duckdb
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from roster.engine.connection import Duck
from roster.engine.duckdb import DuckEngine
from roster.engine.enriched import Enriched
from roster.engine.events import DuckEvents
from roster.engine.layouts import Layout, read_layouts
from roster.engine.newest import group_newest
from roster.engine.tables import DuckTables
from roster.model.connection import FieldUpdate, UpdateRequest
from roster.model.held import sources_of
from roster.model.reference_table import Row
from roster.model.schema import Entity, Type
from roster.model.sync import Phase, Run
from roster.ports import Cancel
from roster.query.dialect import DUCKDB
from roster.query.plan import Plan
from roster.query.relations import profiles
from roster.query.rewrite import relations_of, rewrite_all
from roster.query.sql import render
from roster.sync.coverage import quarantined
from roster.sync.run import STOPPING, run_sync
from sync.world import BUDGET, FIELDS, RULES, Rows, World

EXAMPLES = int(os.environ.get("ROSTER_INCREMENTS", "6"))
LOOSE = replace(RULES, shrink_max=1.0, misfits_max=1.0)
EMAILS = st.sampled_from(["a@x.org", "A@x.org", " a@x.org", "b@x.org", "B@X.ORG", "c@x.org", "d@x.org", "", None])
SCORES = st.sampled_from([None, 1, 2.5, "3", "n/a", ""])
ROW = st.fixed_dictionaries({"email": EMAILS, "tier": st.sampled_from(["gold", "free", "", None]), "score": SCORES})
IDS = st.sampled_from([f"r{n}" for n in range(8)])
ROWS = st.dictionaries(IDS, ROW, max_size=4)
"""Rows of a source by their key."""
USERS = st.dictionaries(st.sampled_from(["u1", "u2", "u3", "u4", "u5"]), EMAILS, max_size=3)
STEP = st.fixed_dictionaries({"rows": ROWS, "beside": USERS, "between": USERS}, optional={"stopped": st.booleans()})
FILLED = {"r0": {"email": "a@x.org", "tier": "gold", "score": 1}, "r1": {"email": None, "tier": "iron", "score": 2}}


class Interrupted(Enriched):
    """Lets something happen once, while a table is made."""

    meanwhile: Callable[[], None] | None = None

    @contextmanager
    def _begin(self, entity: Entity, plan: Plan) -> Iterator[tuple[str, duckdb.DuckDBPyConnection]]:
        with super()._begin(entity, plan) as begun:
            happens, self.meanwhile = self.meanwhile, None
            if happens is not None:
                happens()
            yield begun


class Checking(DuckEngine):
    """Compares all joins that were made ready with joins made by hand; a run would not fail for one that is wrong."""

    def __init__(self, world: Source, duck: Duck, enriched: Enriched) -> None:
        super().__init__(duck, enriched)
        self.world = world

    def materialise(self, entity: Entity, plans: Sequence[Plan]) -> None:
        super().materialise(entity, plans)
        self.world.compared += [is_ready(self.world, plan) for plan in plans if relations_of(plan) != {entity}]


class Source(World):
    """A world whose source has a cursor, and rows that keep their order."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, FIELDS, LOOSE, "id")
        self.rows: dict[str, dict[str, Any]] = {}
        self.at = 1000
        self.compared: list[bool] = []
        self.open()

    def open(self) -> None:
        """The engine as after a restart."""
        self.enriched = Interrupted(self.duck)
        self.events = DuckEvents(self.duck, self.enriched.renew_profiles)
        self.tables = DuckTables(self.duck, self.enriched.change_source)
        self.engine = Checking(self, self.duck, self.enriched)
        self.ports = replace(self.ports, engine=self.engine, tables=self.tables)

    def put(self, rows: dict[str, dict[str, Any]]) -> Rows:
        """Change or add rows of the source; gives all."""
        self.source.cursor = "at"
        for id, row in rows.items():
            self.at += 1
            self.rows[id] = {"id": id, **row, "at": self.at}
        return [*self.rows.values()]

    def layouts(self) -> list[Layout]:
        with self.duck.write() as connection:
            return read_layouts(connection)

    def tables_of_rows(self) -> set[str]:
        return {layout.rows for layout in self.layouts()}


def answer(world: World, plan: Plan) -> list[tuple[Any, ...]]:
    rendered = render(plan, DUCKDB)
    connection = world.duck.cursor()
    try:
        return sorted(connection.execute(rendered.sql, list(rendered.parameters)).fetchall(), key=repr)
    finally:
        connection.close()


def is_ready(world: World, plan: Plan) -> bool:
    """Whether a table is read for the plan, and gives what the plan gives."""
    connection = world.duck.cursor()
    settled = rewrite_all(world.enriched.read(connection, plan))
    connection.close()
    is_read = any("_enriched_" in relation for relation in relations_of(settled))
    return is_read and answer(world, settled) == answer(world, group_newest(plan))


def joined(world: World) -> list[tuple[Any, ...]]:
    """What readers see, by a join that was made ready: a restart may have lost it."""
    mapping = world.mapping()
    plan = profiles(mapping, sources_of(mapping, world.store.list_tables())).input
    world.engine.materialise(Entity.USERS, [plan])
    assert is_ready(world, plan)
    return [(id, *values) for id, values in sorted(world.served().items())]


def held(world: World) -> list[tuple[Any, ...]]:
    """The rows a table holds, in their order; cells as text, as a column of texts may have become one of numbers."""
    tables, table = world.tables, world.table()
    found = tables.read_rows(table, tables.table_version(table), 0, 1000).rows
    return [(row.id, *(str(row.values.get(name, "")) for name in ("email", "tier", "score"))) for row in found]


def refused(world: World) -> list[Any]:
    connection = world.mapping().connections[0]
    plans = [quarantined(connection, world.table(), field.id, 100) for field in connection.fields]
    return [sorted(a.rows) for a in world.engine.run([p for p in plans if p is not None], BUDGET)]


def run_until_joined(world: Source, run: Run) -> Run:
    """A sync that is stopped after its joins are made ready."""
    make, cancel = world.engine.materialise, Cancel()

    def stopping(entity: Entity, plans: Sequence[Plan]) -> None:
        make(entity, plans)
        cancel.cancel(STOPPING)

    world.engine.materialise = stopping  # type: ignore[method-assign]
    try:
        return run_sync(world.ports, run, cancel)
    finally:
        world.engine.materialise = make  # type: ignore[method-assign]


def take(world: Source, rows: Rows, *, stopped: bool) -> None:
    """A sync; one that is stopped after its joins are made ready goes on after a restart."""
    world.source.rows = rows
    run = world.begin()
    if stopped:
        run = run_until_joined(world, run)
        assert run.phase in (Phase.RUNNING, Phase.UNCHANGED)
        world.open()
    if run.phase is not Phase.UNCHANGED:
        run = run_sync(world.ports, run, Cancel())
    assert run.phase in (Phase.DONE, Phase.UNCHANGED), run.failure
    assert all(world.compared)
    for line in run.coverage:
        assert line.rows == run.rows == line.matched + line.unmatched + line.duplicate
        assert line.cells == line.accepted + line.null + line.quarantined
        assert line.profiles == line.profiles_matched + line.profiles_unmatched


def row(email: str, tier: str) -> dict[str, Any]:
    return {"email": email, "tier": tier, "score": 1}


@pytest.fixture
def world(tmp_path: Path) -> Iterator[Source]:
    made = Source(tmp_path)
    made.send({f"u{n}": f"u{n}@x.org" for n in range(40)})
    take(made, made.put({f"r{n}": row(f"u{n}@x.org", "gold") for n in range(40)}), stopped=False)
    yield made
    made.close()


def test_few_rows_are_put_beside_what_is_held_of_the_others(world: Source) -> None:
    before = world.tables_of_rows()
    seen: list[Any] = []

    def look(entity: Entity, plans: Sequence[Plan]) -> None:
        make(entity, plans)
        seen.append((len(plans), world.served()["u3"][0], world.tables_of_rows()))

    make, world.engine.materialise = world.engine.materialise, look  # type: ignore[method-assign]
    take(world, world.put({"r3": row("u3@x.org", "iron")}), stopped=False)
    assert seen == [(2, "gold", before), (1, "iron", before)]
    assert [answer[0] for answer in world.served().values()].count("gold") == 39


def test_a_row_that_changes_its_join_key_touches_both_profiles(world: Source) -> None:
    before = world.tables_of_rows()
    take(world, world.put({"r3": row("U4@x.org ", "iron")}), stopped=False)
    assert (world.served()["u3"], world.served()["u4"]) == ((None, None), ("gold", 1.0))  # the last row counts
    take(world, world.put({"r4": row("u3@x.org", "zinc")}), stopped=False)
    assert (world.served()["u3"], world.served()["u4"]) == (("zinc", 1.0), ("iron", 1.0))
    assert world.tables_of_rows() == before


@pytest.mark.parametrize("why", ["many", "column", "row"])
def test_all_is_built_anew_where_that_is_better_or_needed(world: Source, why: str) -> None:
    before = world.tables_of_rows()
    changed = {f"r{n}": row(f"u{n}@x.org", "iron") for n in range(5 if why == "many" else 1)}
    rows = world.put(changed)
    if why == "column":
        rows = [row | {"more": 1} for row in rows]
    if why == "row":  # of the generation that the increment was put into
        one = Row("r9", {"tier": "wood"})
        world.enriched.meanwhile = lambda: world.tables.upsert_rows(world.table(), [one], 0)
    take(world, rows, stopped=False)
    assert world.tables_of_rows() != before
    assert (world.served()["u0"][0], world.served()["u9"][0]) == ("iron", "gold")


def test_an_alias_answers_after_an_increment(world: Source) -> None:
    world.update(UpdateRequest("crm", update=(FieldUpdate("tier", "rank"),)))
    take(world, world.put({"r3": row("u3@x.org", "iron")}), stopped=False)
    assert world.served()["u3"] == ("iron", 1.0)
    assert "tier" in {alias.old_id for alias in world.mapping().aliases}


def test_a_source_removed_while_joins_are_shared_leaves_the_other(world: Source) -> None:
    before = world.tables_of_rows()
    world.source.rows = world.put({"r3": row("u3@x.org", "iron")})
    run = run_until_joined(world, world.begin())
    world.send({"u3": "u3@x.org", "u10": "u3@x.org"})
    assert world.served()["u10"] == ("gold", 1.0)
    (layout, other) = world.layouts()
    assert {layout.rows, other.rows} == before
    present = world.table()
    world.tables.drop_generations({present.id: [present.generation]}, 0)
    world.tables.drop_generations({present.id: [present.generation]}, 10**9)
    assert [left.edition for left in world.layouts()] == [0]
    assert world.served()["u10"] == ("gold", 1.0)
    assert run_sync(world.ports, run, Cancel()).phase is Phase.DONE
    assert world.served()["u10"] == ("iron", 1.0)


@pytest.mark.parametrize(
    ("cells", "more", "type"),
    [
        ([1.5, 2], 3, Type.NUMBER),
        ([1, 2], 3.5, Type.NUMBER),
        ([2**60 + 1, 1], 0.5, Type.NUMBER),
        ([1, 2], None, Type.INTEGER),
        (["1.10", "2"], 3, Type.STRING),
        (["2026-01-31T10:00:00.000Z"], "2026-02-01", Type.TIMESTAMP),
        ([True], 3, Type.STRING),
    ],
)
def test_an_increment_makes_no_column_narrower(tmp_path: Path, cells: list[Any], more: Any, type: Type) -> None:
    world = Source(tmp_path)
    before = {f"r{n}": row("", "") | {"score": cell} for n, cell in enumerate(cells)}
    take(world, world.put(before), stopped=False)
    former = [cells[-1] for cells in held(world)]
    take(world, world.put({"more": row("", "") | {"score": more}}), stopped=False)
    assert [cells[-1] for cells in held(world)][:-1] == former
    assert next(c.type for c in world.table().columns if c.name == "score") is type
    world.close()


def send_waiting(world: Source, waiting: list[dict[str, Any]]) -> None:
    """Send what was not sent yet: a sync that changes nothing, or a restart, gives no occasion on the way."""
    while waiting:
        world.send(waiting.pop())


@settings(max_examples=EXAMPLES, suppress_health_check=list(HealthCheck))
@given(base=ROWS, users=USERS, steps=st.lists(STEP, min_size=1, max_size=3))
def test_increments_end_as_all_read_from_nothing(
    tmp_path_factory: pytest.TempPathFactory, base: dict[str, Any], users: dict[str, Any], steps: list[dict[str, Any]]
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("roster.engine.enriched.INCREMENT_MAX", 10.0)
        world, anew = Source(tmp_path_factory.mktemp("part")), Source(tmp_path_factory.mktemp("whole"))
        try:
            for each in (world, anew):
                each.send({"u0": "a@x.org"} | users)
            take(world, world.put(FILLED | base), stopped=False)
            for step in steps:
                rows = world.put(step["rows"])
                waiting = [step["beside"]]
                world.enriched.meanwhile = partial(send_waiting, world, waiting)
                take(world, rows, stopped=step.get("stopped", False))
                send_waiting(world, waiting)
                world.send(step["between"])
                for between in (step["beside"], step["between"]):
                    anew.send(between)
            anew.source.cursor = ""
            take(anew, [*world.rows.values()], stopped=False)
            take(world, world.put({}), stopped=False)
            assert (joined(world), refused(world)) == (joined(anew), refused(anew))
            assert sorted(held(world)) == sorted(held(anew))
        finally:
            world.close()
            anew.close()
