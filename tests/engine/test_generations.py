"""Generations of a table on a real DuckDB file: a sync fills the next one aside, readers move when it is named."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from io import StringIO
from pathlib import Path
from threading import Event, Thread
from typing import Any
from uuid import UUID, uuid4

import duckdb
import pytest
from hypothesis import given, settings, strategies as st

from roster.base.errors import Code, Error
from roster.engine.connection import Duck, DuckLimits
from roster.engine.tables import DuckTables
from roster.model.reference_table import BLANKS, Row, Table, fits_text, relation_of
from roster.model.schema import Column, Type
from roster.ports import Loaded, Merge, Staged
from roster.query.dialect import table_name

LIMITS = DuckLimits(memory="500MB", threads=2, spill="1GB")
TTL_MS = 1000
CRM = (Column("id", Type.STRING), Column("tier", Type.STRING), Column("seats", Type.INTEGER))


class World:
    """Tables in a database of their own, and the relations that were reported as changed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.changed: list[str] = []
        self.duck = Duck(folder / "data" / "engine.duckdb", LIMITS)
        self.tables = DuckTables(self.duck, self._on_changed, TTL_MS)

    def _on_changed(self, connection: duckdb.DuckDBPyConnection, relation: str, touched: str | None) -> None:
        connection.execute("SELECT 1")
        self.changed.append(relation)

    def file(self, content: str) -> Path:
        path = self.folder / f"{uuid4()}.csv"
        path.write_text(content)
        return path

    def parquet(self, *selects: str) -> list[Path]:
        paths = []
        for select in selects:
            paths.append(self.folder / f"{uuid4()}.parquet")
            duckdb.connect().execute(f"COPY ({select}) TO '{paths[-1]}' (FORMAT parquet)")
        return paths

    def first(self, content: str, columns: tuple[Column, ...] = CRM) -> Table:
        table = define(columns)
        self.tables.create_table(table, [self.file(content)], "csv")
        return table

    def stage(self, table: Table, content: str, *carried: str, changes_only: bool = False) -> tuple[Table, Staged]:
        """The definition that a sync of `table` would swap to, columns and types as `table` has them."""
        following = replace(table, generation=table.generation + 1)
        merge = Merge(table, carried, changes_only)
        staged = self.tables.stage_table(following, [self.file(content)], "csv", merge)
        return replace(following, held=staged.held), staged

    def query(self, relation: str, select: str = "* EXCLUDE _row") -> list[tuple[Any, ...]]:
        connection = self.duck.cursor()
        try:
            return connection.execute(f'SELECT {select} FROM "{table_name(relation)}" ORDER BY _row').fetchall()
        finally:
            connection.close()

    def stored(self) -> set[str]:
        """Names of all tables and views."""
        connection = self.duck.cursor()
        try:
            return {
                name for (name,) in connection.execute("SELECT table_name FROM information_schema.tables").fetchall()
            }
        finally:
            connection.close()

    def rows(self, table: Table, version: int | None = None) -> list[Row]:
        at = self.tables.table_version(table) if version is None else version
        page = self.tables.read_rows(table, at, 0, 1000)
        assert page.next_after is None
        return page.rows


def define(columns: tuple[Column, ...] = CRM) -> Table:
    return Table(str(uuid4()), "crm", columns, columns[0].name, "FILE", "", (), 0, "a", "a", 0, 0)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.duck.close()


def refused(call: Callable[[], object], code: Code) -> Error:
    with pytest.raises(Error) as caught:
        call()
    assert caught.value.code is code
    return caught.value


def test_a_staged_generation_changes_nothing_until_it_is_named(world: World) -> None:
    table = world.first("id,tier,seats\n1,x,1\n2,y,2\n")
    before = world.rows(table)
    following, staged = world.stage(table, "id,tier,seats\n2,z,9\n3,w,3\n3,v,4\n,u,1\n")
    assert staged == Staged(Loaded(2, 1, 1), 2, (), relation_of(following))
    assert world.rows(table) == before
    assert world.query(relation_of(table)) == [("1", "x", 1), ("2", "y", 2)]
    assert (world.tables.count_rows(table), world.tables.table_version(table)) == (2, 1)
    assert world.query(relation_of(following)) == [("2", "z", 9), ("3", "v", 4)]
    assert (world.tables.count_rows(following), world.tables.table_version(following)) == (2, 2)
    assert world.tables.find_rows(following, ["3", "1"]) == [Row("3", {"id": "3", "tier": "v", "seats": 4})]
    assert world.changed == [relation_of(table), relation_of(following)]
    assert world.tables.list_tables() == [table.id]


def test_a_first_sync_may_bring_nothing_at_all(world: World) -> None:
    table = define()
    staged = world.tables.stage_table(table, [], "parquet", Merge(None))
    assert staged == Staged(Loaded(0, 0, 0), 0, (), relation_of(table))
    assert world.rows(table) == []


def test_cells_that_do_not_fit_are_kept_as_text(world: World) -> None:
    types = (Type.STRING, Type.INTEGER, Type.NUMBER, Type.TIMESTAMP, Type.BOOLEAN)
    table = define(tuple(Column(name, type) for name, type in zip("iabcd", types, strict=True)))
    content = "i,a,b,c,d\n1, 12 ,2.50,2025-01-01,TRUE\n2, n/a ,x,,true\n3,3000000000,1e2,soon,false\n"
    staged = world.tables.stage_table(table, [world.file(content)], "csv", Merge(None))
    assert staged.held == (("a", Type.STRING), ("b", Type.STRING), ("c", Type.STRING))
    held = replace(table, held=staged.held)
    assert world.query(relation_of(held)) == [
        ("1", "12", "2.5", "2025-01-01T00:00:00.000Z", True),
        ("2", "n/a", "x", None, True),
        ("3", "3000000000", "100", "soon", False),
    ]
    assert [row.values["a"] for row in world.rows(held)] == [12, "n/a", "3000000000"]


def test_a_cell_that_does_not_fit_in_a_row_that_does_not_count_holds_nothing(world: World) -> None:
    table = define()
    content = "id,tier,seats\n1,x,many\n1,x,2\n ,x,few\n"
    assert world.tables.stage_table(table, [world.file(content)], "csv", Merge(None)).held == ()
    assert world.query(relation_of(table)) == [("1", "x", 2)]


def test_a_key_that_is_no_value_of_its_column_is_a_key(world: World) -> None:
    table = define((Column("id", Type.INTEGER), Column("tier", Type.STRING)))
    staged = world.tables.stage_table(table, [world.file("id,tier\n07,x\nA1,y\n7,z\n")], "csv", Merge(None))
    assert (staged.loaded, staged.held) == (Loaded(2, 1, 0), (("id", Type.STRING),))
    held = replace(table, held=staged.held)
    assert world.rows(held) == [Row("A1", {"id": "A1", "tier": "y"}), Row("7", {"id": 7, "tier": "z"})]


def test_carried_columns_keep_their_values_by_key(world: World) -> None:
    table = world.first("id,tier,seats\n1,x,1\n2,y,2\n")
    following, staged = world.stage(table, "id,tier\n3,new\n2,z\n", "seats")
    assert world.query(relation_of(following)) == [("3", "new", None), ("2", "z", 2)]
    assert staged == Staged(Loaded(2, 0, 0), 2, (), relation_of(following))
    again, _ = world.stage(following, "id,tier,seats\n2,z,no\n3,z,no\n", "seats")
    assert world.query(relation_of(again)) == [("2", "z", 2), ("3", "z", None)]
    retyped = replace(again, columns=(*CRM[:2], Column("seats", Type.TIMESTAMP)))
    last, staged = world.stage(retyped, "id,tier\n2,w\n", "seats")
    assert staged.held == (("seats", Type.INTEGER),)
    assert world.query(relation_of(last)) == [("2", "w", 2)]


def test_a_column_that_is_carried_from_nowhere_is_empty(world: World) -> None:
    table = replace(define(), columns=(*CRM, Column("late", Type.NUMBER)))
    staged = world.tables.stage_table(table, [world.file("id,tier,seats\n1,x,1\n")], "csv", Merge(None, ("late",)))
    assert staged.held == ()
    assert world.query(relation_of(table)) == [("1", "x", 1, None)]


def test_changed_rows_go_over_the_rows_before(world: World) -> None:
    table = world.first("id,tier,seats\n1,x,1\n2,y,2\n3,z,3\n")
    wider = replace(table, columns=(*CRM, Column("since", Type.DATE)))
    content = "id,tier,seats,since\n4,new,4,2025-01-01\n2,w,7,\n4,newer,5,\n"
    following, staged = world.stage(wider, content, changes_only=True)
    fresh = f"fresh:{table.id}:2"
    assert staged == Staged(Loaded(2, 1, 0), 4, (), fresh)
    assert world.query(relation_of(following)) == [
        ("1", "x", 1, None),
        ("2", "w", 7, None),
        ("3", "z", 3, None),
        ("4", "newer", 5, None),
    ]
    assert world.query(fresh) == [("2", "w", 7, None), ("4", "newer", 5, None)]
    world.tables.upsert_rows(following, [Row("5", {"tier": "asked"})], 1)
    assert [row.id for row in world.rows(following)] == ["1", "2", "3", "4", "5"]


def test_rows_before_take_the_type_a_column_has_now(world: World) -> None:
    kinds = (Type.STRING, Type.INTEGER, Type.STRING, Type.TIMESTAMP, Type.INTEGER)
    columns = tuple(Column(name, type) for name, type in zip("kabcd", kinds, strict=True))
    table = world.first("k,a,b,c,d\n1,5,07,2025-01-01T10:00:00.123456Z,1\n2,6, ,,2\n", columns)
    kinds = (Type.STRING, Type.NUMBER, Type.INTEGER, Type.STRING, Type.BOOLEAN)
    now = replace(table, columns=tuple(Column(name, type) for name, type in zip("kabcd", kinds, strict=True)))
    following, staged = world.stage(now, "k,a,b,c,d\n3,1.5,8,soon,true\n", changes_only=True)
    assert staged.held == (("d", Type.STRING),)
    assert world.query(relation_of(following)) == [
        ("1", 5.0, 7, "2025-01-01T10:00:00.123Z", "1"),
        ("2", 6.0, None, None, "2"),
        ("3", 1.5, 8, "soon", "true"),
    ]
    all_new, staged = world.stage(now, "k,a,b,c,d\n1,1,1,x,true\n2,2,2,x,false\n", changes_only=True)
    assert staged.held == ()
    assert world.query(relation_of(all_new), "d") == [(True,), (False,)]


def test_a_column_held_as_text_becomes_what_it_is_when_all_cells_fit_again(world: World) -> None:
    table = world.first("id,tier,seats\n1,x,1\n")
    held, staged = world.stage(table, "id,tier,seats\n2,y,many\n", changes_only=True)
    assert staged.held == (("seats", Type.STRING),)
    still, staged = world.stage(held, "id,tier,seats\n1,y,3\n", changes_only=True)
    assert staged.held == (("seats", Type.STRING),)
    well, staged = world.stage(still, "id,tier,seats\n2,y,4\n", changes_only=True)
    assert staged.held == ()
    assert world.query(relation_of(well), "seats") == [(3,), (4,)]


def test_rows_of_a_column_held_otherwise_can_be_changed(world: World) -> None:
    table = world.first("id,tier,seats\n1,x,1\n2,y,2\n")
    held, _ = world.stage(table, "id,tier,seats\n1,x,many\n2,y,2\n")
    world.tables.upsert_rows(held, [Row("1", {"seats": 5}), Row("2", {"seats": 2}), Row("3", {})], 1)
    assert [row.values.get("seats") for row in world.rows(held)] == [5, 2, None]
    assert world.query(relation_of(held), "seats") == [("5",), ("2",), (None,)]
    retyped = replace(table, columns=(*CRM[:2], Column("seats", Type.NUMBER)))
    carried, staged = world.stage(retyped, "id,tier\n1,x\n", "seats")
    assert staged.held == (("seats", Type.INTEGER),)
    error = refused(lambda: world.tables.upsert_rows(carried, [Row("1", {"seats": "1.5"})], 2), Code.INVALID)
    assert "does not take '1.5'" in error.message
    world.tables.upsert_rows(carried, [Row("1", {"seats": "15"})], 2)
    assert world.query(relation_of(carried), "seats") == [(15,)]


def test_pages_go_on_from_their_snapshot_over_a_swap_until_their_time_is_over(world: World) -> None:
    table = world.first("id,tier,seats\n1,x,1\n2,y,2\n3,z,3\n")
    first = world.tables.read_rows(table, 1, 0, 2)
    without = replace(table, columns=(CRM[0], CRM[2]))
    following, _ = world.stage(without, "id,seats\n9,9\n")
    assert first.next_after is not None
    rest = world.tables.read_rows(following, 1, first.next_after, 2)
    assert rest.rows == [Row("3", {"id": "3", "tier": "z", "seats": 3})]
    world.tables.upsert_rows(following, [Row("8", {"seats": 8})], 5)
    assert world.tables.table_version(following) == 3
    assert [row.id for row in world.rows(following, 2)] == ["9"]
    kept = {table.id: [2]}
    world.tables.drop_generations(kept, 10)
    world.tables.drop_generations(kept, 10 + TTL_MS - 1)
    assert len(world.rows(following, 1)) == 3
    world.changed.clear()
    world.tables.drop_generations(kept, 10 + TTL_MS)
    assert world.changed == [relation_of(table)]
    assert "expired" in refused(lambda: world.rows(following, 1), Code.CONFLICT).message
    refused(lambda: world.tables.count_rows(table), Code.NOT_FOUND)
    assert not {name for name in world.stored() if name.endswith(f"{UUID(table.id).hex}_1")}
    assert [row.id for row in world.rows(following)] == ["9", "8"]


def test_what_was_staged_and_is_named_by_nobody_goes_after_its_time(world: World) -> None:
    table, other = world.first("id,tier,seats\n1,x,1\n"), world.first("id,tier,seats\n1,x,1\n")
    following, _ = world.stage(table, "id,tier,seats\n2,y,2\n", changes_only=True)
    world.stage(other, "id,tier,seats\n2,y,2\n")
    for kept, now_ms in (((1, 2), 0), ((1,), TTL_MS), ((1,), 2 * TTL_MS - 1)):
        world.tables.drop_generations({table.id: kept}, now_ms)
        assert world.tables.count_rows(following) == 2
    world.tables.drop_generations({table.id: (1,)}, 2 * TTL_MS)
    refused(lambda: world.tables.count_rows(following), Code.NOT_FOUND)
    assert not {name for name in world.stored() if name.endswith(f"{UUID(table.id).hex}_2")}
    assert world.tables.count_rows(table) == 1
    assert world.tables.count_rows(replace(other, generation=2)) == 1


def test_a_generation_that_counts_again_is_kept(world: World) -> None:
    table = world.first("id,tier,seats\n1,x,1\n")
    world.stage(table, "id,tier,seats\n2,y,2\n")
    world.tables.drop_generations({table.id: [2]}, 0)
    world.tables.drop_generations({table.id: [1, 2]}, TTL_MS)
    world.tables.drop_generations({table.id: [2]}, TTL_MS)
    assert world.tables.count_rows(table) == 1
    world.tables.drop_generations({table.id: [2]}, 2 * TTL_MS)
    refused(lambda: world.tables.count_rows(table), Code.NOT_FOUND)


def test_a_generation_is_staged_anew_and_a_failure_leaves_the_one_that_is_there(world: World) -> None:
    table = world.first("id,tier,seats\n1,x,1\n")
    world.stage(table, "id,tier,seats\n2,y,2\n", changes_only=True)
    following, _ = world.stage(table, "id,tier,seats\n3,z,3\n")
    assert world.query(relation_of(following)) == [("3", "z", 3)]
    stored = world.stored()
    assert table_name(f"fresh:{table.id}:2") not in stored
    for content, words in (("id,tier\n1,x\n", "no column 'seats'"), ("id,tier,seats\n1,x\n", "line 2 has 2 cells")):
        error = refused(lambda text=content: world.stage(table, text), Code.INVALID)  # type: ignore[misc]
        assert words in error.message
    assert world.query(relation_of(following)) == [("3", "z", 3)]
    assert world.stored() == stored
    assert list((world.folder / "data" / "engine.loads").iterdir()) == []


def test_dropping_a_table_drops_all_generations(world: World) -> None:
    table = world.first("id,tier,seats\n1,x,1\n")
    world.stage(table, "id,tier,seats\n2,y,2\n", changes_only=True)
    world.tables.drop_table(table.id)
    assert not {name for name in world.stored() if UUID(table.id).hex in name}
    assert world.tables.list_tables() == []


def test_what_a_killed_process_left_is_removed_and_generations_are_not(tmp_path: Path) -> None:
    world = World(tmp_path)
    table = world.first("id,tier,seats\n1,x,1\n")
    following, _ = world.stage(table, "id,tier,seats\n2,y,2\n", changes_only=True)
    kept = world.stored()
    with world.duck.write() as connection:
        connection.execute("CREATE TABLE stage_7 (a INTEGER)")
        connection.execute(f"CREATE TABLE rows_{uuid4().hex}_3 (a INTEGER)")
        connection.execute(f"CREATE VIEW table_{uuid4().hex} AS SELECT 1")
    world.duck.close()
    again = World(tmp_path)
    assert again.stored() == kept
    assert len(again.rows(table)) == 1
    assert len(again.rows(following)) == 2
    again.duck.close()


def test_a_folder_of_the_layout_before_opens(tmp_path: Path) -> None:
    duck = Duck(tmp_path / "data" / "engine.duckdb", LIMITS)
    with duck.write() as connection:
        connection.execute('CREATE TABLE table_versions (id VARCHAR, version BIGINT, "at" TIMESTAMP)')
        connection.execute("INSERT INTO table_versions VALUES ('x', 1, NULL)")
        connection.execute(f"CREATE TABLE rows_{uuid4().hex} (a INTEGER)")
    duck.close()
    world = World(tmp_path)
    assert world.tables.list_tables() == []
    assert world.stored() == {"table_versions"}
    world.duck.close()


def test_who_began_to_read_sees_the_old_generation_whole(world: World) -> None:
    table = world.first("id,tier,seats\n" + "".join(f"{n},x,{n}\n" for n in range(1000)))
    reader = world.duck.cursor()
    reader.execute("BEGIN TRANSACTION READ ONLY")
    count = f"SELECT count(*), sum(seats) FROM {table_name(relation_of(table))}"
    before = reader.execute(count).fetchone()
    following, _ = world.stage(table, "id,tier,seats\n1,y,1\n")
    world.tables.upsert_rows(following, [Row("2", {})], 1)
    world.tables.drop_generations({table.id: [2]}, 0)
    world.tables.drop_generations({table.id: [2]}, TTL_MS)
    refused(lambda: world.tables.count_rows(table), Code.NOT_FOUND)
    assert reader.execute(count).fetchone() == before == (1000, 499_500)
    reader.close()


def test_staging_waits_for_no_writer_until_it_is_done(world: World) -> None:
    table = world.first("id,tier,seats\n1,x,1\n")
    begun = Event()

    def stage() -> None:
        begun.set()
        world.stage(table, "id,tier,seats\n2,y,2\n")

    staging = Thread(target=stage)
    with world.duck.write():
        staging.start()
        begun.wait()
        while not {name for name in world.stored() if name.startswith("stage_")}:
            assert staging.is_alive()
    staging.join()
    assert world.tables.count_rows(replace(table, generation=2)) == 1


TYPED = {
    "flag": (Type.BOOLEAN, "flag"),
    "small": (Type.INTEGER, "CAST(n AS TINYINT)"),
    "big": (Type.INTEGER, "CAST(n AS BIGINT) * 3074457345618258602"),
    "huge": (Type.INTEGER, "CAST(n AS DECIMAL(38, 0)) * 9223372036854775807"),
    "whole": (Type.INTEGER, "CAST(n AS DOUBLE)"),
    "count": (Type.NUMBER, "n"),
    "real": (Type.NUMBER, "list_value(0.1, 1e300, 'nan', '-inf', NULL, -0.0)[n + 3]::DOUBLE"),
    "single": (Type.NUMBER, "CAST(n AS FLOAT) / 10"),
    "price": (Type.NUMBER, "CAST(n AS DECIMAL(10, 2)) / 3"),
    "exact": (Type.NUMBER, "CAST(n AS DECIMAL(30, 20)) / 3"),
    "day": (Type.DATE, "list_value('infinity', '2025-02-28', '0001-01-01', '10000-01-01', NULL, '0002-03-04')"
            "[n + 3]::DATE"),
    "noon": (Type.TIMESTAMP, "CAST('2025-02-28' AS DATE) + CAST(n AS INTEGER)"),
    "at": (Type.TIMESTAMP, "list_value('infinity', '2025-02-28 01:02:03.456789', '9999-12-31 23:59:59.999999',"
           " '10000-01-01', NULL, '-infinity')[n + 3]::TIMESTAMP"),
    "nanos": (Type.TIMESTAMP, "CAST('2025-02-28 01:02:03.456789' AS TIMESTAMP_NS)"),
    "zoned": (Type.TIMESTAMP, "CAST('2025-02-28 01:02:03.456789+02' AS TIMESTAMPTZ)"),
    "text": (Type.STRING, "list_value('', ' a ', 'x', NULL, 'é', '0')[n + 3]"),
    "told": (Type.STRING, "n"),
    "list": (Type.STRING, "[n]"),
}  # fmt: skip


@pytest.mark.parametrize("name", TYPED)
def test_a_typed_file_gives_what_its_texts_give(world: World, name: str) -> None:
    type, made = TYPED[name]
    table = define((Column("id", Type.INTEGER), Column("x", type)))
    select = f"SELECT n AS id, {made} AS x FROM (SELECT unnest([-2, -1, 0, 1, 2, 3]) AS n, n > 0 AS flag)"
    [path] = world.parquet(select)
    straight = world.tables.stage_table(table, [path], "parquet", Merge(None))
    found = world.query(relation_of(table), "*, typeof(x)"), world.rows(table)
    shown = (
        "CASE WHEN isfinite(x) THEN CAST(x AS VARCHAR) END"
        if name in ("real", "single", "whole")
        else "CAST(x AS VARCHAR)"
    )
    whole = "regexp_replace(x, '\\.0$', '')" if name == "whole" else "x"
    utc = "SELECT id, timezone('UTC', x) AS x" if name == "zoned" else "SELECT *"
    texts = f"SELECT id, {whole} AS x FROM (SELECT id, {shown} AS x FROM ({utc} FROM ({select})))"
    [path] = world.parquet(texts)
    by_text = world.tables.stage_table(replace(table, generation=2), [path], "parquet", Merge(None))
    assert replace(by_text, fresh=straight.fresh) == straight
    again = replace(table, generation=2)
    assert (world.query(relation_of(again), "*, typeof(x)"), world.rows(again)) == found


def test_several_typed_files_are_one(world: World) -> None:
    table = define((Column("id", Type.INTEGER), Column("x", Type.NUMBER), Column("y", Type.STRING)))
    paths = world.parquet(
        "SELECT 1 AS id, 2 AS x, 'a' AS y UNION ALL SELECT 2, 3, 'b'",
        "SELECT 2 AS id, 1.5::DOUBLE AS x, NULL::INTEGER AS y, 4 AS z",
        "SELECT 'c' AS y, 3 AS id, NULL::INTEGER AS x",
    )
    assert world.tables.stage_table(table, paths, "parquet", Merge(None)).loaded == Loaded(3, 1, 0)
    assert world.query(relation_of(table)) == [(1, 2.0, "a"), (2, 1.5, None), (3, None, "c")]


# any sequence of changes, against plain Python

IDS = st.sampled_from(["a", "b", "c", "d"])
TEXTS = st.sampled_from(["", "1", "2.5", "1e2", "07", " 3 ", " ", "x"])
TYPES = st.sampled_from([Type.STRING, Type.INTEGER, Type.NUMBER])
GIVEN = st.lists(st.tuples(IDS | st.sampled_from(["", " "]), TEXTS, TEXTS), max_size=5)
ONE = st.none() | st.just("1")
STEP = st.one_of(
    st.tuples(
        st.just("stage"), TYPES, TYPES, st.sampled_from([(), ("p",), ("q",), ("p", "q")]), st.booleans(), GIVEN,
        st.booleans(),
    ),
    st.tuples(st.just("upsert"), st.dictionaries(IDS, st.dictionaries(st.sampled_from("pq"), ONE))),
    st.tuples(st.just("delete"), st.lists(IDS, max_size=2)),
    st.tuples(st.just("forget")),
)  # fmt: skip


def canonical(type: Type, text: str | None) -> tuple[str | None, bool]:
    """A cell as it is shown, and whether it is a value of the type."""
    if type is Type.STRING or text is None:
        return text, True
    bare = text.strip(BLANKS)
    if not bare:
        return None, True
    if not fits_text(type, bare):
        return bare, False
    number = float(bare)
    return (str(int(number)) if number == int(number) else repr(number)), True


@dataclass
class Model:
    """What a generation holds: the type each column is stored as, and by id its cells as they are shown."""

    types: dict[str, Type]
    rows: dict[str, dict[str, str | None]] = field(default_factory=dict)

    def shown(self, declared: dict[str, Type]) -> list[Row]:
        found = []
        for id, cells in self.rows.items():
            values: dict[str, Any] = {"id": id}
            for name, cell in cells.items():
                if cell is not None:
                    # an integer column goes out as integers, however an older generation stored it
                    is_whole = Type.INTEGER in (declared[name], self.types[name])
                    is_number = is_whole and fits_text(Type.INTEGER, cell)
                    values[name] = int(cell) if is_number else cell
            found.append(Row(id, values))
        return found

    def copy(self) -> Model:
        return Model(dict(self.types), {id: dict(cells) for id, cells in self.rows.items()})


def staged(
    before: Model | None,
    types: dict[str, Type],
    carried: Sequence[str],
    changes_only: bool,
    given: Sequence[tuple[str, str, str]],
) -> tuple[Model, Loaded]:
    """What a sync makes of the generation before."""
    keyed = [g for g in given if g[0].strip()]
    fresh: dict[str, dict[str, str]] = {}
    for id, *cells in keyed:
        fresh.pop(id, None)
        fresh[id] = dict(zip("pq", cells, strict=True))
    old = before.rows if before else {}
    after = Model(dict(types))
    places = [*old, *(id for id in fresh if id not in old)] if changes_only else list(fresh)
    after.rows = {id: {} for id in places}
    for name, type in types.items():
        if name in carried:
            after.types[name] = before.types[name] if before else type
            for id in places:
                after.rows[id][name] = old.get(id, {}).get(name)
            continue
        read = {id: canonical(type, fresh[id][name] or None) for id in fresh}
        stays = {}
        for id in places:
            if id not in fresh:
                cell = old[id][name]
                assert before is not None
                same = before.types[name] is type
                stays[id] = (cell, True) if same else canonical(type, cell)
        is_held = not all(fits for _, fits in (*read.values(), *stays.values()))
        if is_held:
            after.types[name] = Type.STRING
            stays = {id: (old[id][name], True) for id in stays}
        for id in places:
            after.rows[id][name] = (read[id] if id in fresh else stays[id])[0]
    return after, Loaded(len(fresh), len(keyed) - len(fresh), len(given) - len(keyed))


def in_csv(given: Sequence[tuple[str, str, str]], carried: Sequence[str]) -> str:
    text = StringIO()
    names = [name for name in ("id", "p", "q") if name not in carried]
    writer = csv.writer(text, quoting=csv.QUOTE_ALL)
    writer.writerow(names)
    writer.writerows([cell for name, cell in zip(("id", "p", "q"), row, strict=True) if name in names] for row in given)
    return text.getvalue()


class Story:
    """One table through a sequence of changes, beside what plain Python says of it."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.table = define((Column("id", Type.STRING), Column("p", Type.STRING), Column("q", Type.STRING)))
        world.tables.create_table(self.table, [], "csv")
        self.now_ms = 0
        self.present = Model({"p": Type.STRING, "q": Type.STRING})
        self.history: dict[int, tuple[int, int, Model]] = {1: (1, 0, self.present.copy())}
        self.superseded: dict[int, int] = {}

    def stage(self, p: Type, q: Type, carried: tuple[str, ...], changes_only: bool, given: Any, is_named: bool) -> None:
        """A sync, which may end before its swap."""
        generation = self.table.generation + 1
        columns = (Column("id", Type.STRING), Column("p", p), Column("q", q))
        following = replace(self.table, columns=columns, generation=generation, held=(), updated_ms=self.now_ms)
        path = self.world.file(in_csv(given, carried))
        found = self.world.tables.stage_table(following, [path], "csv", Merge(self.table, carried, changes_only))
        after, loaded = staged(self.present, {"p": p, "q": q}, carried, changes_only, given)
        held = tuple((n, after.types[n]) for n, declared in (("p", p), ("q", q)) if after.types[n] is not declared)
        assert (found.loaded, found.rows, found.held) == (loaded, len(after.rows), held)
        ids = {id for id, *_ in given if id.strip()}
        assert {row[0] for row in self.world.query(found.fresh, "id, _row")} == ids
        version = max(self.history) + 1
        self.history = {v: kept for v, kept in self.history.items() if kept[0] != generation}
        self.superseded.pop(generation, None)
        self.note(replace(following, held=held), after, version)
        if is_named:
            self.table, self.present = replace(following, held=held), after

    def note(self, table: Table, model: Model, version: int) -> None:
        assert self.world.tables.table_version(table) == version
        self.history[version] = (table.generation, self.now_ms, model.copy())

    def upsert(self, rows: dict[str, dict[str, str | None]]) -> None:
        before = self.present.copy()
        for id, values in rows.items():
            self.present.rows[id] = {**self.present.rows.get(id, {"p": None, "q": None}), **values}
        self.world.tables.upsert_rows(self.table, [Row(id, dict(v)) for id, v in rows.items()], self.now_ms)
        self.changed(before)

    def delete(self, ids: list[str]) -> None:
        before = self.present.copy()
        for id in ids:
            self.present.rows.pop(id, None)
        self.world.tables.delete_rows(self.table, ids, self.now_ms)
        self.changed(before)

    def changed(self, before: Model) -> None:
        if before == self.present:
            return
        mine = {v: at for v, (generation, at, _) in self.history.items() if generation == self.table.generation}
        oldest = max((v for v, at in mine.items() if at <= self.now_ms - TTL_MS), default=0)
        self.history = {v: kept for v, kept in self.history.items() if v not in mine or v >= oldest}
        self.note(self.table, self.present, max(self.history) + 1)

    def forget(self) -> None:
        present = self.table.generation
        self.world.tables.drop_generations({self.table.id: [present]}, self.now_ms)
        for generation in {g for g, _, _ in self.history.values()} - {present}:
            if self.now_ms - self.superseded.setdefault(generation, self.now_ms) >= TTL_MS:
                self.history = {v: kept for v, kept in self.history.items() if kept[0] != generation}

    def check(self) -> None:
        declared = {c.name: c.type for c in self.table.columns}
        for version in range(1, max(self.history) + 1):
            if version in self.history:
                assert self.world.rows(self.table, version) == self.history[version][2].shown(declared)
            else:
                refused(lambda at=version: self.world.rows(self.table, at), Code.CONFLICT)  # type: ignore[misc]
        assert self.world.tables.count_rows(self.table) == len(self.present.rows)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    made = World(tmp_path_factory.mktemp("generations"))
    yield made
    made.duck.close()


@settings(max_examples=60)
@given(steps=st.lists(st.tuples(STEP, st.sampled_from([0, 1, TTL_MS // 2, TTL_MS])), max_size=7))
def test_any_syncs_and_changes_give_what_plain_python_gives_at_every_version(
    shared: World, steps: list[tuple[tuple[Any, ...], int]]
) -> None:
    story = Story(shared)
    for (name, *arguments), passed_ms in steps:
        story.now_ms += passed_ms
        getattr(story, name)(*arguments)
        story.check()
    shared.tables.drop_table(story.table.id)
