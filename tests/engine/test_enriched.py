"""Enriched tables never change an answer: after every change, reading one equals making the join."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb
import pytest
from hypothesis import given, settings, strategies as st

from roster.engine.connection import Duck, DuckLimits
from roster.engine.enriched import Enriched
from roster.engine.events import DuckEvents
from roster.engine.newest import group_newest
from roster.engine.tables import DuckTables
from roster.model.changes import create
from roster.model.connection import CreateRequest, Field
from roster.model.mapping import Mapping, empty
from roster.model.reference_table import Row, Table
from roster.model.schema import Column, Entity, Type
from roster.ports import Merge
from roster.query.dialect import DUCKDB
from roster.query.plan import Plan, Project, Read
from roster.query.relations import profiles
from roster.query.rewrite import relations_of, rewrite_all
from roster.query.sql import render

CRM = Table(
    id="6f7a3ad2-4f0f-4a3e-9a62-1f4f0c1f1b10",
    name="crm",
    columns=(Column("email", Type.STRING), Column("tier", Type.STRING), Column("ltv", Type.STRING)),
    primary_key="email",
    source="LOCAL_FILE",
    description="",
    tags=(),
    row_count=0,
    created_by="",
    updated_by="",
    created_ms=0,
    updated_ms=0,
)


class Kept:
    """An engine with one connection whose profiles are kept enriched: of its table's generation and of the next."""

    def __init__(self, folder: Path, kind: type[Enriched] = Enriched) -> None:
        self.duck = Duck(folder / "engine.duckdb", DuckLimits("1GB", 2, "1GB"))
        self.enriched = kind(self.duck)
        self.events = DuckEvents(self.duck, self.enriched.renew_profiles)
        self.tables = DuckTables(self.duck, self.enriched.change_source)
        self.folder = folder
        self.segment = 0
        with self.duck.write() as connection:
            for statement in DUCKDB.setup:
                connection.execute(statement)
        self.table = CRM
        self.next: Table | None = None
        self.tables.create_table(CRM, [], "csv")
        fields = (Field("tier", "tier", Type.STRING), Field("ltv", "ltv", Type.NUMBER))
        request = CreateRequest("crm", "ref_table", "email", "email", fields)
        self.mapping: Mapping = create(empty(Entity.USERS), request, who="t", now_ms=0, source_columns=CRM.columns)

    @property
    def relation(self) -> Project:
        return profiles(self.mapping, {"crm": self.table})

    def relations(self) -> list[Project]:
        """Profiles over the generation that counts, and over the next one if it is filled."""
        return [profiles(self.mapping, {"crm": table}) for table in (self.table, self.next) if table is not None]

    def build(self) -> None:
        self.enriched.keep(Entity.USERS, [self.relation.input])

    def build_both(self) -> None:
        self.enriched.keep(Entity.USERS, [relation.input for relation in self.relations()])

    def stage(self, rows: list[tuple[str, str | None, str | None]], changes_only: bool = False) -> None:
        """Fill the next generation of the table."""
        path = self.folder / "rows.ndjson"
        path.write_text(
            "".join(json.dumps(dict(zip(("email", "tier", "ltv"), row, strict=True))) + "\n" for row in rows)
        )
        following = replace(self.table, generation=self.table.generation + 1)
        merge = Merge(self.table, () if rows else ("email", "tier", "ltv")[1:], changes_only)
        staged = self.tables.stage_table(following, [path] if rows else [], "ndjson", merge)
        self.next = replace(following, held=staged.held)

    def swap(self) -> None:
        """Name the next generation; the one before goes at once."""
        if self.next is not None:
            self.table, self.next = self.next, None
            for now_ms in (0, 10**9):
                self.tables.drop_generations({CRM.id: [self.table.generation]}, now_ms)

    def replace_table(self) -> None:
        self.tables.create_table(self.table, [], "csv")

    def send(self, users: list[tuple[str, str | None]]) -> None:
        """Events of users with their e-mails, one segment."""
        self.segment += 1
        path = self.folder / f"{self.segment}.ndjson"
        lines = [
            {
                "k": f"{self.segment}-{n}",
                "time": 1_700_000_000_000 + self.segment * 1000 + n,
                "type": "view",
                "user_id": id,
            }
            | ({"user_email": email} if email is not None else {})
            for n, (id, email) in enumerate(users)
        ]
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
        assert self.events.apply_segment(self.segment, path).stored == len(users)

    def upsert(self, email: str, tier: str | None, ltv: str | None) -> None:
        self.tables.upsert_rows(self.table, [Row(email, {"tier": tier, "ltv": ltv})], 0)

    def delete(self, email: str) -> None:
        self.tables.delete_rows(self.table, [email], 0)

    def answer(self, plan: Plan) -> list[tuple[Any, ...]]:
        rendered = render(plan, DUCKDB)
        connection = self.duck.cursor()
        try:
            return sorted(connection.execute(rendered.sql, list(rendered.parameters)).fetchall(), key=repr)
        finally:
            connection.close()

    def settled(self, relation: Plan | None = None) -> Plan:
        connection = self.duck.cursor()
        try:
            return rewrite_all(self.enriched.read(connection, relation or self.relation))
        finally:
            connection.close()

    def named(self, sql: str) -> set[str]:
        connection = self.duck.cursor()
        try:
            found = {str(name) for (name,) in connection.execute(sql).fetchall()}
            return {name for name in found if name.startswith("users_enriched_")}
        finally:
            connection.close()

    def stored(self) -> set[str]:
        """The enriched tables there are, as they are read."""
        return self.named("SELECT view_name FROM duckdb_views()")

    def filled(self) -> set[str]:
        """The tables that their rows are in."""
        return self.named("SELECT table_name FROM duckdb_tables()")

    def check(self, *, kept: bool, relation: Project | None = None) -> str:
        """Both ways give the same, and one reads a kept table or not; gives which."""
        asked = relation or self.relation
        settled = self.settled(asked)
        read = [name for name in relations_of(settled) if name.startswith("users_enriched_")]
        assert len(read) == kept
        assert self.answer(settled) == self.answer(rewrite_all(asked)) == self.answer(asked)
        return "".join(read)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[Kept]:
    kept = Kept(tmp_path)
    yield kept
    kept.duck.close()


def test_built_read_renewed_and_dropped(world: Kept) -> None:
    world.upsert("Ann@Example.com ", "gold", "12.5")
    world.send([("u1", "ann@example.com"), ("u2", None)])
    world.check(kept=False)
    world.build()
    world.check(kept=True)
    assert isinstance(world.settled(), Project)
    assert isinstance(world.settled().input, Read)  # type: ignore[union-attr]
    world.send([("u2", "ANN@example.com"), ("u3", "bob@example.com")])
    world.check(kept=True)
    world.replace_table()
    world.check(kept=False)
    assert world.stored() | world.filled() == set()
    world.build()
    world.check(kept=True)


def test_profiles_that_meet_a_changed_row_are_renewed_with_it(world: Kept) -> None:
    world.send([("u1", "ann@example.com"), ("u2", " ANN@example.com"), ("u3", "bob@example.com"), ("u4", None)])
    world.build()
    world.upsert("ann@example.com", "gold", "1")
    assert "gold" in repr(world.answer(world.settled()))
    world.check(kept=True)
    world.upsert("Ann@example.com ", "silver", "2")
    world.check(kept=True)
    world.delete("Ann@example.com ")
    world.check(kept=True)
    world.delete("ann@example.com")
    world.check(kept=True)
    assert "gold" not in repr(world.answer(world.settled()))


def test_the_newest_of_rows_with_one_key_counts_however_it_is_found(world: Kept) -> None:
    for email, tier in (("ann@example.com", "old"), ("ANN@example.com", "new"), (" ann@example.com", "newest")):
        world.upsert(email, tier, "1")
        world.send([("u1", "Ann@Example.com")])
        grouped = group_newest(world.relation)
        assert "ROW_NUMBER" not in render(grouped, DUCKDB).sql
        assert f"'{tier}'" in repr(world.answer(grouped))
        assert world.answer(grouped) == world.answer(world.relation)
        world.build()
        world.check(kept=True)
        world.enriched.keep(Entity.USERS, [])
    pruned = group_newest(rewrite_all(world.relation))
    assert "ROW_NUMBER" not in render(pruned, DUCKDB).sql
    assert world.answer(pruned) == world.answer(world.relation)


def test_rows_that_too_many_profiles_meet_drop_it(world: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("roster.engine.enriched.RENEWED_MAX", 1)
    world.send([("u1", "ann@example.com"), ("u2", "bob@example.com"), ("u3", "bob@example.com")])
    world.build()
    world.upsert("ann@example.com", "gold", "1")
    world.check(kept=True)
    world.upsert("bob@example.com", "gold", "1")
    world.check(kept=False)


def test_the_next_generation_is_built_beside_the_present_one(world: Kept) -> None:
    world.upsert("ann@example.com", "gold", "1")
    world.send([("u1", "ann@example.com"), ("u2", "bob@example.com")])
    world.build()
    world.stage([("ann@example.com", "silver", "n/a"), ("bob@example.com", "gold", "2")])
    present, following = world.relations()
    first = world.check(kept=True, relation=present)
    world.check(kept=False, relation=following)
    world.build_both()
    assert world.check(kept=True, relation=present) == first
    second = world.check(kept=True, relation=following)
    assert world.stored() == {first, second}
    world.send([("u3", "bob@example.com")])
    world.upsert("bob@example.com", "wood", "3")
    assert world.check(kept=True, relation=present) == first
    assert world.check(kept=True, relation=following) == second
    assert "wood" not in repr(world.answer(world.settled(following)))
    world.swap()
    assert world.check(kept=True) == second
    world.build()
    assert world.check(kept=True) == second
    assert world.stored() == {second}


def test_the_table_that_holds_most_joins_is_read(world: Kept) -> None:
    world.upsert("ann@example.com", "gold", "1")
    world.send([("u1", "ann@example.com")])
    other = replace(CRM, id="6f7a3ad2-4f0f-4a3e-9a62-1f4f0c1f1b11")
    world.tables.create_table(other, [], "csv")
    request = CreateRequest("more", "ref_table", "email", "email", (Field("extra", "tier", Type.STRING),))
    mapping = create(world.mapping, request, who="t", now_ms=0, source_columns=CRM.columns)
    both = profiles(mapping, {"crm": CRM, "more": other})
    world.build()
    first = world.check(kept=True, relation=both)
    assert f"table:{other.id}:1" in relations_of(world.enriched.read(world.duck.cursor(), both))
    world.enriched.keep(Entity.USERS, [world.relation.input, both.input])
    assert world.check(kept=True) != ""
    second = world.check(kept=True, relation=both)
    assert second != first
    assert relations_of(world.enriched.read(world.duck.cursor(), both)) == {second}
    world.enriched.keep(Entity.USERS, [])
    assert world.stored() == set()


class Interrupted(Enriched):
    """Lets something happen while a table is built, after the build has begun to see the data."""

    def __init__(self, duck: Duck) -> None:
        super().__init__(duck)
        self.meanwhile: Callable[[], None] = lambda: None

    @contextmanager
    def _begin(self, entity: Entity, plan: Plan) -> Iterator[tuple[str, duckdb.DuckDBPyConnection]]:
        with super()._begin(entity, plan) as begun:
            self.meanwhile()
            yield begun


def test_what_changes_while_it_is_built_is_not_missed(tmp_path: Path) -> None:
    world = Kept(tmp_path, Interrupted)
    assert isinstance(world.enriched, Interrupted)
    world.upsert("ann@example.com", "gold", "1")
    world.send([("u1", "ann@example.com"), ("u2", "bob@example.com")])

    def change() -> None:
        world.upsert("bob@example.com", "silver", "2")
        world.send([("u1", "bob@example.com"), ("u3", "ann@example.com")])
        world.delete("ann@example.com")
        world.check(kept=False)

    world.enriched.meanwhile = change
    world.build()
    world.check(kept=True)
    world.enriched.keep(Entity.USERS, [])
    world.enriched.meanwhile = world.replace_table
    world.build()
    world.check(kept=False)
    assert world.stored() == set()
    world.enriched.meanwhile = lambda: world.tables.drop_table(CRM.id)
    world.build()
    assert world.stored() == set()
    world.duck.close()


def test_what_a_killed_process_was_building_is_removed(world: Kept) -> None:
    world.send([("u1", "ann@example.com")])
    world.build()
    kept = world.stored() | world.filled()
    with world.duck.write() as connection:
        connection.execute("CREATE TABLE users_enriched_7 (a INTEGER)")
        connection.execute("CREATE TABLE users_enriched_rows_8 (a INTEGER)")
        connection.execute("CREATE VIEW users_enriched_8 AS FROM users_enriched_rows_8")
        connection.execute("INSERT INTO enriched_missed VALUES ('users_enriched_7', 'u1')")
    world.enriched = Enriched(world.duck)
    assert world.stored() | world.filled() == kept
    world.check(kept=True)


def test_a_restart_keeps_it_only_when_asked_for_again(world: Kept) -> None:
    world.upsert("ann@example.com", "gold", "1")
    world.send([("u1", "ann@example.com")])
    world.build()
    again = Enriched(world.duck)
    world.events = DuckEvents(world.duck, again.renew_profiles)
    world.enriched = again
    world.check(kept=True)
    world.send([("u9", "ann@example.com")])
    world.check(kept=False)
    world.build()
    world.check(kept=True)


EMAILS = st.sampled_from(["a@x.io", "A@x.io", " a@x.io", "b@x.io", "B@X.IO ", "", " ", "c@x.io"])
USERS = st.sampled_from(["u1", "u2", "u3", "u4"])
CELLS = st.none() | st.sampled_from(["gold", "1", "2.5", "n/a"])
ROW = st.tuples(EMAILS.filter(str.strip), CELLS, CELLS)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("send"), st.lists(st.tuples(USERS, st.none() | EMAILS), min_size=1, max_size=4)),
        st.tuples(st.just("upsert"), EMAILS.filter(str.strip), CELLS, CELLS),
        st.tuples(st.just("delete"), EMAILS),
        st.tuples(st.just("stage"), st.lists(ROW, max_size=3), st.booleans()),
        st.tuples(st.just("swap")),
        st.tuples(st.just("build")),
        st.tuples(st.just("build_both")),
    ),
    max_size=9,
)


@settings(max_examples=15)
@given(STEPS)
def test_no_order_of_changes_makes_it_wrong(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[Any, ...]]
) -> None:
    world = Kept(tmp_path_factory.mktemp("enriched"))
    try:
        for name, *arguments in steps:
            getattr(world, name)(*arguments)
            for relation in world.relations():
                joined = world.answer(relation)
                assert world.answer(world.settled(relation)) == joined
                assert world.answer(group_newest(relation)) == joined
    finally:
        world.duck.close()
