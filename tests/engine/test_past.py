"""What rows were, kept beside generations: writes beside a load, columns that come and go, what is removed when."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from roster.base.time import instant
from roster.engine.connection import Duck, DuckLimits
from roster.engine.duckdb import DuckEngine
from roster.engine.enriched import Enriched
from roster.engine.tables import DuckTables
from roster.model.reference_table import Row, Table, spans_of, stored_columns
from roster.model.schema import Column as SchemaColumn, Type
from roster.ports import Budget, Merge
from roster.query.over_time import FOLDED, SPAN
from roster.query.plan import Read

BUDGET = Budget(60.0, 1000)
START_MS = 1_700_000_000_000
ID, TIER, SEATS = (SchemaColumn(n, t) for n, t in (("id", Type.STRING), ("tier", Type.STRING), ("seats", Type.INTEGER)))


class World:
    """Tables in a database of their own; ticks are seconds."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.open()

    def open(self) -> None:
        folder = self.folder
        self.duck = Duck(folder / "engine.duckdb", DuckLimits("500MB", 2, "1GB"))
        enriched = Enriched(self.duck)
        self.tables = DuckTables(self.duck, enriched.change_source, snapshot_ttl_ms=0)
        self.engine = DuckEngine(self.duck, enriched)

    def file(self, content: str) -> Path:
        path = self.folder / f"{uuid4()}.csv"
        path.write_text(content)
        return path

    def first(self, content: str, *columns: SchemaColumn) -> Table:
        table = Table(str(uuid4()), "crm", columns, "id", "LOCAL_FILE", "", (), 0, "t", "t", 0, 0)
        self.tables.create_table(table, [self.file(content)], "csv", merge=Merge(None, since_ms=at(1)))
        return table

    def sync(self, table: Table, content: str, tick: int, *carried: str) -> Table:
        """The next generation, filled and not yet named."""
        following = replace(table, generation=table.generation + 1, held=())
        merge = Merge(table, carried, since_ms=at(tick))
        return replace(following, held=self.tables.stage_table(following, [self.file(content)], "csv", merge).held)

    def upsert(self, table: Table, tick: int, **tiers: str) -> None:
        self.tables.upsert_rows(table, [Row(id, {"tier": tier}) for id, tier in tiers.items()], at(tick), history=True)

    def spans(self, table: Table) -> list[tuple[Any, ...]]:
        """Key, ticks of beginning and end (None: still so), then the other columns; empty spans left out."""
        rows = self.engine.run([Read(spans_of(table), (*SPAN, *stored_columns(table)))], BUDGET)[0].rows
        found = []
        for _, id, since, until, _key, *cells in rows:
            begun, ended = tick_of(since), tick_of(until)
            if begun != ended:
                found.append((id, begun, ended, *cells))
        return sorted(found, key=str)

    def stored(self) -> set[str]:
        connection = self.duck.cursor()
        try:
            names = connection.execute("SELECT table_name FROM information_schema.tables").fetchall()
        finally:
            connection.close()
        return {
            name for (name,) in names if name.split("_")[0] in ("rows", "past", "shared", "spans", "table", "fresh")
        }


def at(tick: int) -> int:
    return START_MS + tick * 1000


def tick_of(time: datetime) -> int | None:
    return (time - instant(START_MS)) // timedelta(seconds=1) if time.year < 9999 else None


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path)
    yield world
    world.duck.close()


def test_a_generation_that_is_not_named_changes_nothing(world: World) -> None:
    first = world.first("id,tier\na,gold\nb,gold\n", ID, TIER)
    before = world.spans(first)
    world.sync(first, "id,tier\na,silver\n", 2)
    assert world.spans(first) == before == [("a", 1, None, "gold"), ("b", 1, None, "gold")]
    second = world.sync(first, "id,tier\na,bronze\nb,gold\n", 3)
    assert world.spans(second) == [("a", 1, 3, "gold"), ("a", 3, None, "bronze"), ("b", 1, None, "gold")]
    assert world.spans(first) == before


def test_rows_written_before_the_next_generation_is_named_were_written_in_vain(world: World) -> None:
    first = world.first("id,tier\na,gold\nb,gold\n", ID, TIER)
    second = world.sync(first, "id,tier\na,silver\nb,gold\n", 2)
    world.upsert(first, 3, a="late", b="late")
    assert ("b", 1, 3, "gold") in world.spans(first)
    assert ("b", 3, None, "late") in world.spans(first)
    named = [("a", 1, 2, "gold"), ("a", 2, None, "silver"), ("b", 1, None, "gold")]
    assert world.spans(second) == named
    third = world.sync(second, "id,tier\na,silver\nb,gold\n", 4)
    assert world.spans(third) == named


def test_rows_written_beside_a_generation_that_is_given_up_count(world: World) -> None:
    first = world.first("id,tier\na,gold\n", ID, TIER)
    world.sync(first, "id,tier\na,silver\n", 2)
    world.upsert(first, 3, a="bronze")
    assert world.spans(first) == [("a", 1, 3, "gold"), ("a", 3, None, "bronze")]
    second = world.sync(first, "id,tier\na,silver\n", 4)
    assert world.spans(second) == [("a", 1, 3, "gold"), ("a", 3, 4, "bronze"), ("a", 4, None, "silver")]


def test_columns_come_and_go(world: World) -> None:
    first = world.first("id,tier\na,gold\nb,\n", ID, TIER)
    wider = world.sync(replace(first, columns=(ID, TIER, SEATS)), "id,tier,seats\na,gold,7\nb,,\n", 2)
    assert world.spans(wider) == [("a", 1, 2, "gold", None), ("a", 2, None, "gold", 7), ("b", 1, None, None, None)]
    less = world.sync(replace(wider, columns=(ID, SEATS)), "id,seats\na,7\nb,\n", 3)
    assert world.spans(less) == [("a", 1, 2, None), ("a", 2, 3, 7), ("a", 3, None, 7), ("b", 1, None, None)]
    again = world.sync(replace(less, columns=(ID, TIER, SEATS)), "id,tier,seats\na,gold,7\nb,,\n", 4)
    assert [s[1:] for s in world.spans(again) if s[0] == "a"] == [
        (1, 2, "gold", None), (2, 3, "gold", 7), (3, 4, None, 7), (4, None, "gold", 7)
    ]  # fmt: skip


def test_a_column_of_another_type_is_read_as_that(world: World) -> None:
    first = world.first("id,seats\na,7\nb,8\nc,9\n", ID, SEATS)
    text = world.sync(replace(first, columns=(ID, SchemaColumn("seats", Type.STRING))), "id,seats\na,7\nb,x\nc,9\n", 2)
    assert world.spans(text) == [("a", 1, None, "7"), ("b", 1, 2, "8"), ("b", 2, None, "x"), ("c", 1, None, "9")]
    back = world.sync(replace(text, columns=(ID, SEATS)), "id,seats\na,8\nb,8\nc,9\n", 3)
    assert world.spans(back) == [
        ("a", 1, 3, 7), ("a", 3, None, 8), ("b", 1, 2, 8), ("b", 2, 3, None), ("b", 3, None, 8), ("c", 1, None, 9)
    ]  # fmt: skip


def test_a_carried_column_is_no_change(world: World) -> None:
    first = world.first("id,tier,seats\na,gold,7\n", ID, TIER, SEATS)
    second = world.sync(first, "id,seats\na,7\nb,1\n", 2, "tier")
    assert world.spans(second) == [("a", 1, None, "gold", 7), ("b", 2, None, None, 1)]


def test_new_columns_of_rows_that_stay(world: World) -> None:
    first = world.first("id,tier\na,gold\n", ID, TIER)
    wider = replace(first, columns=(ID, TIER, SEATS))
    world.tables.add_columns(wider)
    world.tables.upsert_rows(wider, [Row("a", {"seats": 3})], at(2))
    assert world.spans(wider) == [("a", 1, 2, "gold", None), ("a", 2, None, "gold", 3)]


def test_history_begins_when_it_is_asked_for(world: World) -> None:
    table = Table(str(uuid4()), "crm", (ID, TIER), "id", "LOCAL_FILE", "", (), 0, "t", "t", 0, 0)
    world.tables.create_table(table, [world.file("id,tier\na,gold\n")], "csv")
    world.tables.upsert_rows(table, [Row("b", {"tier": "gold"})], at(2))
    assert not world.tables.has_history(table)
    assert {name.split("_")[0] for name in world.stored()} == {"rows", "table"}
    world.tables.begin_history(table, at(5))
    world.tables.begin_history(table, at(6))
    assert world.spans(table) == [("a", 5, None, "gold"), ("b", 5, None, "gold")]
    assert world.tables.delete_rows(table, ["a"], at(7)) == 1
    assert world.spans(table) == [("a", 5, 7, "gold"), ("b", 5, None, "gold")]


def test_keys_that_are_written_alike_are_known(world: World) -> None:
    first = world.first("id,tier\na,gold\n", ID, TIER)
    shared = Read(f"shared:{first.id}", (FOLDED,))
    assert world.engine.run([shared], BUDGET)[0].rows == []
    world.upsert(first, 2, **{"A ": "silver", "b": "gold"})
    assert world.engine.run([shared], BUDGET)[0].rows == [("a",)]
    second = world.sync(first, "id,tier\nB,gold\n", 3)
    assert sorted(world.engine.run([shared], BUDGET)[0].rows) == [("a",), ("b",)]
    assert len(world.spans(second)) == 4


def test_a_dropped_table_leaves_no_past_and_a_restart_only_what_counts(world: World) -> None:
    first = world.first("id,tier\na,gold\n", ID, TIER)
    other = world.first("id,tier\na,gold\n", ID, TIER)
    second = world.sync(first, "id,tier\na,silver\n", 2)
    spans = world.spans(second)
    world.tables.drop_table(other.id)
    assert not [name for name in world.stored() if other.id.replace("-", "") in name]
    with world.duck.write() as connection:
        hex = uuid4().hex
        for left in (f"past_{hex}", f"shared_{hex}"):
            connection.execute(f"CREATE TABLE {left} (x BIGINT)")
    world.duck.close()
    world.open()
    assert not [name for name in world.stored() if hex in name]
    assert world.spans(second) == spans
    world.tables.drop_generations({first.id: (2,)}, at(3))
    world.tables.drop_generations({first.id: (2,)}, at(4))
    assert world.spans(second) == spans
    assert not [name for name in world.stored() if name.endswith("_1")]
