"""The enriched table never changes an answer: after every change, reading it equals making the join."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from roster.engine.connection import Duck, DuckLimits
from roster.engine.enriched import Enriched
from roster.engine.events import DuckEvents
from roster.engine.tables import DuckTables
from roster.model.connection import CreateRequest, Field
from roster.model.mapping import Mapping, create, empty
from roster.model.reference_table import Row, Table
from roster.model.schema import Column, Entity, Type
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
    """An engine with one connection whose profiles are kept enriched."""

    def __init__(self, folder: Path) -> None:
        self.duck = Duck(folder / "engine.duckdb", DuckLimits("1GB", 2, "1GB"))
        self.enriched = Enriched(self.duck)
        self.events = DuckEvents(self.duck, self.enriched.renew_profiles)
        self.tables = DuckTables(self.duck, self.enriched.drop_source)
        self.folder = folder
        self.segment = 0
        with self.duck.write() as connection:
            for statement in DUCKDB.setup:
                connection.execute(statement)
        self.tables.create_table(CRM, [], "csv")
        fields = (Field("tier", "tier", Type.STRING), Field("ltv", "ltv", Type.NUMBER))
        request = CreateRequest("crm", "ref_table", "email", "email", fields)
        self.mapping: Mapping = create(empty(Entity.USERS), request, who="t", now_ms=0, source_columns=CRM.columns)
        self.relation: Project = profiles(self.mapping, {"crm": CRM})

    def build(self) -> None:
        self.enriched.build(Entity.USERS, self.relation.input)

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
        self.tables.upsert_rows(CRM, [Row(email, {"tier": tier, "ltv": ltv})], 0)

    def answer(self, plan: Plan) -> list[tuple[Any, ...]]:
        rendered = render(plan, DUCKDB)
        connection = self.duck.cursor()
        try:
            return sorted(connection.execute(rendered.sql, list(rendered.parameters)).fetchall(), key=repr)
        finally:
            connection.close()

    def settled(self) -> Plan:
        connection = self.duck.cursor()
        try:
            return rewrite_all(self.enriched.read(connection, self.relation))
        finally:
            connection.close()

    def check(self, *, kept: bool) -> None:
        settled = self.settled()
        assert ("users_enriched" in relations_of(settled)) == kept
        assert self.answer(settled) == self.answer(rewrite_all(self.relation)) == self.answer(self.relation)


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
    world.upsert("bob@example.com", "silver", "n/a")
    world.check(kept=False)
    world.build()
    world.check(kept=True)
    world.tables.delete_rows(CRM, ["bob@example.com"], 0)
    world.check(kept=False)


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
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("send"), st.lists(st.tuples(USERS, st.none() | EMAILS), min_size=1, max_size=4)),
        st.tuples(st.just("upsert"), EMAILS.filter(str.strip), CELLS, CELLS),
        st.tuples(st.just("build")),
    ),
    max_size=8,
)


@settings(max_examples=25)
@given(STEPS)
def test_no_order_of_changes_makes_it_wrong(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[Any, ...]]
) -> None:
    world = Kept(tmp_path_factory.mktemp("enriched"))
    try:
        for name, *arguments in steps:
            getattr(world, name)(*arguments)
            settled = world.settled()
            assert world.answer(settled) == world.answer(world.relation)
    finally:
        world.duck.close()
