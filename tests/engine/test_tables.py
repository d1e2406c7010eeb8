"""Rows of reference tables on a real DuckDB file: loads, versions, pages, changes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from threading import Thread
from typing import Any
from uuid import UUID, uuid4

import duckdb
import pytest
from hypothesis import given, settings, strategies as st

from roster.base.errors import Code, Error
from roster.engine.connection import Duck, DuckLimits
from roster.engine.tables import DuckTables
from roster.model.reference_table import Row, Table, check_values, relation_of
from roster.model.schema import Column, Schema, Type
from roster.ports import Loaded, Tables
from roster.query.dialect import table_name

LIMITS = DuckLimits(memory="500MB", threads=2, spill="1GB")
TTL_MS = 1000
PLANS = (Column("id", Type.STRING), Column("tier", Type.STRING), Column("seats", Type.INTEGER))
WIDE = (
    Column("id", Type.INTEGER),
    Column("price", Type.NUMBER),
    Column("paid", Type.BOOLEAN),
    Column("since", Type.TIMESTAMP),
    Column("renewal", Type.DATE),
    Column("big", Type.INTEGER),
)


class World:
    """Tables in a database of their own, and the relations that were reported as changed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.changed: list[str] = []
        self.duck = Duck(folder / "data" / "roster.duckdb", LIMITS)
        self.tables = DuckTables(self.duck, self._on_changed, TTL_MS)

    def _on_changed(self, connection: duckdb.DuckDBPyConnection, relation: str, touched: str | None) -> None:
        connection.execute("SELECT 1")
        self.changed.append(relation)

    def file(self, content: str | bytes) -> Path:
        path = self.folder / f"{uuid4()}.csv"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    def load(self, content: str | None, columns: Schema = PLANS, **how: Any) -> Table:
        table = define(columns)
        paths = [] if content is None else [self.file(content)]
        self.tables.create_table(table, paths, "csv", **how)
        return table

    def query(self, table: Table, select: str = "*") -> list[tuple[Any, ...]]:
        """What queries see of the table."""
        connection = self.duck.cursor()
        try:
            view = table_name(relation_of(table))
            return connection.execute(f'SELECT {select} FROM "{view}" ORDER BY _row').fetchall()
        finally:
            connection.close()

    def rows(self, table: Table, version: int | None = None, limit: int = 2) -> list[Row]:
        """All rows of a version, by pages."""
        at = version or self.tables.table_version(table)
        after: int | None = 0
        rows: list[Row] = []
        while after is not None:
            page = self.tables.read_rows(table, at, after, limit)
            assert len(page.rows) <= limit
            rows += page.rows
            after = page.next_after
        return rows


def define(columns: Schema = PLANS) -> Table:
    return Table(str(uuid4()), "plans", columns, columns[0].name, "LOCAL_FILE", "", (), 0, "a", "a", 0, 0)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.duck.close()


def refused(call: Callable[[], object], code: Code = Code.INVALID) -> Error:
    with pytest.raises(Error) as caught:
        call()
    assert caught.value.code is code
    return caught.value


def test_it_is_the_port(world: World) -> None:
    port: Tables = world.tables
    assert port.list_tables() == []


def test_a_loaded_table_keeps_text_as_written_and_the_order_of_the_file(world: World) -> None:
    table = world.load("ID,Note,Tier,Seats\n007,x, gold ,12\n1,y,,\n 2,z,00123,-5\n")
    assert world.rows(table) == [
        Row("007", {"id": "007", "tier": " gold ", "seats": 12}),
        Row("1", {"id": "1"}),
        Row(" 2", {"id": " 2", "tier": "00123", "seats": -5}),
    ]
    assert world.query(table) == [(2, "007", " gold ", 12), (3, "1", None, None), (4, " 2", "00123", -5)]
    assert world.tables.count_rows(table) == 3
    assert world.tables.table_version(table) == 1
    assert world.tables.list_tables() == [table.id]
    assert world.changed == [relation_of(table)]


def test_wide_types_go_out_as_text(world: World) -> None:
    table = world.load(
        "id,price,paid,since,renewal,big\n"
        "1,12.50,TRUE,2025-08-14T06:45:12.1429+02:00,2025-08-14,3000000000\n"
        "2, 3.0 ,false,2025-08-14,,2147483647\n"
        "3,1e300,,,0001-01-01,-3\n",
        WIDE,
    )
    first = {"id": 1, "price": "12.5", "paid": "true", "renewal": "2025-08-14", "big": "3000000000"}
    assert world.rows(table) == [
        Row("1", {**first, "since": "2025-08-14T04:45:12.142Z"}),
        Row("2", {"id": 2, "price": "3", "paid": "false", "since": "2025-08-14T00:00:00.000Z", "big": 2147483647}),
        Row("3", {"id": 3, "price": "1e+300", "renewal": "0001-01-01", "big": -3}),
    ]
    kinds = ("BIGINT", "DOUBLE", "BOOLEAN", "TIMESTAMP", "DATE", "BIGINT")
    types = world.query(table, ", ".join(f"typeof({c.name})" for c in WIDE))
    assert types[0] == kinds


def test_the_last_of_rows_with_one_key_wins_and_the_others_are_counted(world: World) -> None:
    table = define((Column("id", Type.INTEGER), Column("tier", Type.STRING)))
    path = world.file("id,tier\n1,a\n2,b\n01,c\n1,d\n")
    assert world.tables.create_table(table, [path], "csv") == Loaded(2, 2)
    assert world.rows(table) == [Row("2", {"id": 2, "tier": "b"}), Row("1", {"id": 1, "tier": "d"})]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("id,tier,seats\n1,x,2\n2,y,many\n", "line 3: column 'seats' is INT32 and does not take 'many'"),
        ('id,tier,seats\n1,"x\ny",2\n2,y,3000000000\n', "line 4: column 'seats' is INT32 and does not take '3000"),
        ("id,tier,seats\n1,x,1.0\n", "line 2: column 'seats' is INT32 and does not take '1.0'"),
        ("id,tier,seats\n1,x,1\n ,y,2\n", "line 3: the primary key 'id' is empty"),
        ("id,tier,seats\n1,x,1\n,y,z\n", "line 3:"),
        ("id,tier,seats\n1,x,1\n2,y\n", "line 3 has 2 cells"),
        ("id,tier\n1,x\n", "no column 'seats'"),
    ],
)
def test_a_file_that_does_not_fit_leaves_nothing(world: World, content: str, said: str) -> None:
    table = define()
    paths = [world.file(content)]
    error = refused(lambda: world.tables.create_table(table, paths, "csv", declared=True))
    assert said in error.message
    assert world.tables.list_tables() == []
    assert refused(lambda: world.tables.count_rows(table), Code.NOT_FOUND).message == "table not found"
    assert world.changed == []
    assert list((world.folder / "data" / "roster.loads").iterdir()) == []


def test_a_row_cut_between_parts_is_one_row(world: World) -> None:
    table = define()
    content = "id,tier,seats\n1,größe,2\n2,y,3\n".encode()
    for cut in range(len(content) + 1):
        parts = [world.file(content[:cut]), world.file(content[cut:])]
        assert world.tables.create_table(table, parts, "csv") == Loaded(2, 0)
    assert [row.values["tier"] for row in world.rows(table)] == ["größe", "y"]


def test_a_file_without_header_line_is_named_by_the_headers(world: World) -> None:
    table = world.load("1,gold,3\n2,free,4\n", headers=("ID", "Tier", "Seats"))
    assert [row.values["tier"] for row in world.rows(table)] == ["gold", "free"]


def test_a_table_may_start_empty(world: World) -> None:
    table = world.load(None)
    assert world.rows(table) == []
    world.tables.upsert_rows(table, [Row("1", {"tier": "x"})], 1)
    assert world.rows(table) == [Row("1", {"id": "1", "tier": "x"})]


def test_a_new_file_replaces_all_rows_at_once_and_ends_older_pages(world: World) -> None:
    table = world.load("id,tier,seats\n1,x,1\n2,y,2\n")
    wider = replace(table, columns=(*PLANS, Column("new", Type.STRING)), updated_ms=5)
    refused(lambda: world.tables.create_table(wider, [world.file("id,tier,seats,new\n1,x\n")], "csv"))
    assert len(world.rows(table)) == 2
    world.tables.create_table(wider, [world.file("id,tier,seats,new\n2,y,2,n\n")], "csv")
    assert world.rows(wider) == [Row("2", {"id": "2", "tier": "y", "seats": 2, "new": "n"})]
    assert world.tables.table_version(table) == 2
    assert "expired" in refused(lambda: world.tables.read_rows(wider, 1, 0, 10), Code.CONFLICT).message


def test_an_upsert_changes_what_it_gives_and_keeps_the_rest(world: World) -> None:
    table = world.load("id,tier,seats\n1,x,1\n2,y,2\n3,z,3\n")
    rows = [Row("2", {"tier": "new"}), Row("4", {"seats": 4}), Row("3", {"tier": None}), Row("1", {"tier": ""})]
    world.tables.upsert_rows(table, rows, 1)
    assert world.rows(table) == [
        Row("1", {"id": "1", "tier": "", "seats": 1}),
        Row("2", {"id": "2", "tier": "new", "seats": 2}),
        Row("3", {"id": "3", "seats": 3}),
        Row("4", {"id": "4", "seats": 4}),
    ]
    assert [row[1:] for row in world.query(table)] == [("1", "", 1), ("2", "new", 2), ("3", None, 3), ("4", None, 4)]
    assert [row.id for row in world.rows(table, version=1)] == ["1", "2", "3"]


def test_the_same_upsert_again_changes_nothing(world: World) -> None:
    table = world.load("id,tier,seats\n1,x,1\n")
    rows = [Row("1", {"tier": "y"}), Row("2", {})]
    world.tables.upsert_rows(table, rows, 1)
    world.tables.upsert_rows(table, rows, 2)
    world.tables.upsert_rows(table, [], 3)
    assert world.tables.table_version(table) == 2
    assert world.changed == [relation_of(table)] * 2


def test_rows_of_one_id_in_one_request_follow_one_another(world: World) -> None:
    table = world.load("id,tier,seats\n1,x,1\n")
    world.tables.upsert_rows(table, [Row("2", {"tier": "a", "seats": 1}), Row("2", {"tier": "b"})], 1)
    assert world.rows(table)[1:] == [Row("2", {"id": "2", "tier": "b", "seats": 1})]


def test_wide_columns_take_checked_values(world: World) -> None:
    table = world.load("id,price,paid,since,renewal,big\n1,1,true,2025-01-01,2025-01-01,1\n", WIDE)
    values = {"price": "2.50", "paid": "False", "since": "2025-08-14T06:45:12-02:00", "renewal": "2025-08-14"}
    world.tables.upsert_rows(table, [check_values(table, Row("001", values), "/data/0")], 1)
    shown = {"price": "2.5", "paid": "false", "since": "2025-08-14T08:45:12.000Z", "renewal": "2025-08-14"}
    assert world.rows(table) == [Row("1", {"id": 1, **shown, "big": 1})]
    error = refused(lambda: world.tables.upsert_rows(table, [Row("2", {}), Row("3", {"price": "x"})], 2))
    assert "/data/1" in error.message
    assert world.tables.count_rows(table) == 1


def test_odd_texts_survive(world: World) -> None:
    table = world.load(None)
    texts = ['a"b', "O'Neil", "x\x00y", "🦆\n\r\t", "\\u0041", "null", "$.t1", " "]
    world.tables.upsert_rows(table, [Row(f"{n}{text}", {"tier": text}) for n, text in enumerate(texts)], 1)
    ids = [f"{n}{text}" for n, text in enumerate(texts)]
    assert [row.values["tier"] for row in world.tables.find_rows(table, ids)] == texts
    assert world.tables.delete_rows(table, ids, 2) == len(texts)


def test_rows_are_found_in_the_order_asked_each_once(world: World) -> None:
    table = world.load("id,tier,seats\n1,x,1\n2,y,2\n3,z,3\n")
    found = world.tables.find_rows(table, ["3", "none", "1", "3"])
    assert [row.id for row in found] == ["3", "1"]
    assert world.tables.find_rows(table, []) == []


def test_deleting_counts_what_was_there(world: World) -> None:
    table = world.load("id,tier,seats\n1,x,1\n2,y,2\n3,z,3\n")
    assert world.tables.delete_rows(table, ["1", "none", "1", "3"], 1) == 2
    assert world.tables.delete_rows(table, ["1"], 2) == 0
    assert world.tables.delete_rows(table, [], 3) == 0
    assert [row.id for row in world.rows(table)] == ["2"]
    assert world.tables.table_version(table) == 2
    assert len(world.changed) == 2


def test_a_version_is_kept_for_its_time_and_then_forgotten(world: World) -> None:
    table = world.load("id,tier,seats\n1,x,1\n2,y,2\n")
    world.tables.delete_rows(table, ["1"], 10)
    world.tables.upsert_rows(table, [Row("3", {})], 10 + TTL_MS - 1)
    assert [row.id for row in world.rows(table, version=1)] == ["1", "2"]
    world.tables.upsert_rows(table, [Row("4", {})], 10 + TTL_MS)
    assert refused(lambda: world.rows(table, version=1), Code.CONFLICT).message == "the page token has expired"
    assert [row.id for row in world.rows(table, version=2)] == ["2"]
    stored = world.duck.cursor()
    assert stored.execute(f"SELECT count(*) FROM rows_{UUID(table.id).hex}_1 WHERE _id = '1'").fetchall() == [(0,)]
    stored.close()
    refused(lambda: world.tables.read_rows(table, 2**70, 2**70, 1), Code.CONFLICT)


def test_added_columns_are_empty_until_rows_give_them(world: World) -> None:
    table = world.load("id,tier,seats\n1,x,1\n")
    wider = replace(table, columns=(*PLANS, Column("new", Type.NUMBER)))
    assert world.rows(wider) == [Row("1", {"id": "1", "tier": "x", "seats": 1})]
    world.tables.add_columns(wider)
    world.tables.add_columns(wider)
    assert world.query(wider, "new") == [(None,)]
    assert world.changed == [relation_of(table)] * 2
    world.tables.upsert_rows(wider, [Row("1", {"new": "1.5"})], 1)
    assert world.rows(wider)[0].values["new"] == "1.5"
    widest = replace(wider, columns=(*wider.columns, Column("more", Type.STRING)))
    world.tables.upsert_rows(widest, [Row("1", {"more": "x"})], 2)
    assert world.query(widest, "new, more") == [(1.5, "x")]


def test_dropping_leaves_nothing_and_may_be_repeated(world: World) -> None:
    table = world.load("id,tier,seats\n1,x,1\n")
    world.tables.drop_table(table.id)
    world.tables.drop_table(table.id)
    assert world.tables.list_tables() == []
    with pytest.raises(duckdb.CatalogException):
        world.query(table)
    for call in (
        lambda: world.tables.table_version(table),
        lambda: world.tables.find_rows(table, ["1"]),
        lambda: world.tables.read_rows(table, 1, 0, 1),
        lambda: world.tables.upsert_rows(table, [Row("1", {})], 1),
        lambda: world.tables.delete_rows(table, ["1"], 1),
    ):
        refused(call, Code.NOT_FOUND)
    refused(lambda: world.tables.count_rows(replace(table, id="1; DROP TABLE x")), Code.NOT_FOUND)


def test_what_fails_with_the_change_undoes_it(tmp_path: Path) -> None:
    world = World(tmp_path)
    table = world.load("id,tier,seats\n1,x,1\n")

    def fail(connection: duckdb.DuckDBPyConnection, relation: str, touched: str | None) -> None:
        raise RuntimeError(relation)

    failing = DuckTables(world.duck, fail, TTL_MS)
    with pytest.raises(RuntimeError):
        failing.upsert_rows(table, [Row("1", {"tier": "y"})], 1)
    with pytest.raises(RuntimeError):
        failing.delete_rows(table, ["1"], 1)
    with pytest.raises(RuntimeError):
        failing.drop_table(table.id)
    other = define()
    with pytest.raises(RuntimeError):
        failing.create_table(other, [world.file("id,tier,seats\n1,x,1\n")], "csv")
    assert world.tables.list_tables() == [table.id]
    assert world.rows(table) == [Row("1", {"id": "1", "tier": "x", "seats": 1})]
    assert world.tables.table_version(table) == 1
    world.duck.close()


def test_rows_are_there_after_reopening_and_leftovers_are_not(tmp_path: Path) -> None:
    world = World(tmp_path)
    table = world.load("id,tier,seats\n1,x,1\n")
    world.tables.upsert_rows(table, [Row("2", {})], 1)
    leftover = tmp_path / "data" / "roster.loads" / "dead"
    leftover.mkdir()
    world.duck.close()
    again = World(tmp_path)
    assert [row.id for row in again.rows(table)] == ["1", "2"]
    assert [row.id for row in again.rows(table, version=1)] == ["1"]
    assert not leftover.exists()
    again.duck.close()


def test_inspecting_gives_names_as_written(world: World) -> None:
    path = world.file("User ID;Größe;on\n007;1,5;2025-08-14\n")
    assert world.tables.inspect_file([path], "csv") == (
        Column("User ID", Type.STRING),
        Column("Größe", Type.STRING),
        Column("on", Type.DATE),
    )


def test_writers_at_the_same_time_lose_nothing(world: World) -> None:
    table = world.load("id,tier,seats\n0,x,0\n")

    def write(start: int) -> None:
        for n in range(start, start + 5):
            world.tables.upsert_rows(table, [Row(str(n), {"seats": n})], n)

    threads = [Thread(target=write, args=(start,)) for start in (1, 6, 11, 16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(row.values["seats"] for row in world.rows(table)) == list(range(21))
    assert world.tables.table_version(table) == 21


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    made = World(tmp_path_factory.mktemp("tables"))
    yield made
    made.duck.close()


IDS = st.sampled_from("abcdef")
VALUES = st.fixed_dictionaries(
    {},
    optional={"tier": st.none() | st.sampled_from(["", "x", "y'\""]), "seats": st.none() | st.integers(-1, 1)},
)
UPSERT = st.dictionaries(IDS, VALUES, max_size=4)
DELETE = st.lists(IDS, max_size=3)
STEP = st.tuples(UPSERT | DELETE, st.integers(0, TTL_MS))


@settings(max_examples=40)
@given(steps=st.lists(STEP, max_size=8))
def test_any_changes_give_what_a_dict_would_at_every_version(
    shared: World, steps: list[tuple[dict[str, dict[str, Any]] | list[str], int]]
) -> None:
    table = shared.load(None)
    state: dict[str, dict[str, Any]] = {}
    history = {1: (0, dict(state))}
    now_ms = 0
    for change, passed_ms in steps:
        now_ms += passed_ms
        before, state = state, dict(state)
        if isinstance(change, dict):
            for id, values in change.items():
                state[id] = {**state.get(id, {"id": id, "tier": None, "seats": None}), **values}
            shared.tables.upsert_rows(table, [Row(id, values) for id, values in change.items()], now_ms)
        else:
            for id in change:
                state.pop(id, None)
            assert shared.tables.delete_rows(table, change, now_ms) == len(before) - len(state)
        if state != before:
            oldest = max((v for v, (at, _) in history.items() if at <= now_ms - TTL_MS), default=0)
            history = {v: kept for v, kept in history.items() if v >= oldest}
            history[max(history) + 1] = (now_ms, state)
    newest = max(history)
    assert shared.tables.table_version(table) == newest
    assert shared.tables.count_rows(table) == len(state)
    for version in range(1, newest + 1):
        if version not in history:
            refused(lambda at=version: shared.rows(table, at), Code.CONFLICT)  # type: ignore[misc]
            continue
        rows = [Row(id, {k: v for k, v in row.items() if v is not None}) for id, row in history[version][1].items()]
        assert shared.rows(table, version) == rows
    assert [row[1:] for row in shared.query(table)] == [tuple(row.values()) for row in state.values()]
