"""Kept lists: what is kept is what is told and read, once each, after a restart too; files hold a plan's rows."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path

import polars
import pytest

from roster.analyses.members import KEY, LIST, LISTS
from roster.base.errors import Code, Error
from roster.engine.connection import Duck, DuckLimits
from roster.engine.duckdb import DuckEngine
from roster.engine.enriched import Enriched
from roster.engine.events import DuckEvents
from roster.engine.lists import DuckLists
from roster.model.schema import Column as SchemaColumn, Entity, Type
from roster.ports import Budget, FileFormat
from roster.query.expr import Compare, Literal
from roster.query.plan import Filter, Join, Plan, Project, Values

BUDGET = Budget(timeout_s=30, rows_max=100)
ODD = ["u1", "ü", "a,b", 'say "x"', "two\nlines", "'; DROP TABLE users; --", " "]


class Opened:
    def __init__(self, folder: Path) -> None:
        self.duck = Duck(folder / "engine.duckdb", DuckLimits("500MB", 1, "1GB"))
        DuckEvents(self.duck, lambda *_: None)
        self.engine = DuckEngine(self.duck, Enriched(self.duck))
        self.lists = DuckLists(self.duck, self.engine)

    def keys(self, id: str) -> list[str]:
        rows = Project(Filter(LISTS, Compare("=", LIST, Literal(id, Type.STRING))), ((KEY.name, KEY),))
        return sorted(key for (key,) in self.engine.run([rows], BUDGET)[0].rows)


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Opened]:
    made = Opened(tmp_path)
    yield made
    made.duck.close()


def values(*keys: str | None) -> Plan:
    return Values((SchemaColumn("n", Type.STRING),), tuple((key,) for key in keys))


def test_keys_are_kept_once_each_and_replaced(opened: Opened, tmp_path: Path) -> None:
    lists = opened.lists
    lists.keep_keys("a", Entity.USERS, [*ODD, *ODD], 5)
    assert opened.keys("a") == sorted(ODD)
    lists.keep("b", Entity.ACCOUNTS, values("x", None, "y", "x"), 3, BUDGET)
    lists.keep("empty", Entity.USERS, values(None), 4, BUDGET)
    told = [(kept.id, kept.entity, kept.kept_ms, kept.count) for kept in lists.list_lists()]
    assert told == [("b", "accounts", 3, 2), ("empty", "users", 4, 0), ("a", "users", 5, len(ODD))]
    lists.keep("a", Entity.USERS, values("z"), 9, BUDGET)
    assert (opened.keys("a"), opened.keys("b")) == (["z"], ["x", "y"])
    opened.duck.close()
    again = Opened(tmp_path)
    assert again.keys("a") == ["z"]
    again.lists.drop("a", "empty", "never there")
    again.lists.drop()
    assert [kept.id for kept in again.lists.list_lists()] == ["b"]
    assert again.keys("a") == []
    again.duck.close()


def test_a_list_over_its_time_keeps_what_was_before(opened: Opened) -> None:
    opened.lists.keep_keys("a", Entity.USERS, ["x"], 0)
    many = values(*map(str, range(50)))
    for name in "bcdefg":
        many = _beside(many, name)
    with pytest.raises(Error) as caught:
        opened.lists.keep("a", Entity.USERS, many, 1, Budget(timeout_s=0.05, rows_max=1))
    assert caught.value.code in (Code.TIMEOUT, Code.BUSY)
    assert opened.keys("a") == ["x"]


def _beside(left: Plan, name: str) -> Plan:
    right = Values((SchemaColumn(name, Type.STRING),), tuple((str(n),) for n in range(50)))
    return Join(left, right, "inner", ())


@pytest.mark.parametrize("format", ["csv", "ndjson", "parquet"])
def test_a_file_holds_the_rows(opened: Opened, format: FileFormat) -> None:
    columns = (SchemaColumn("user_id", Type.STRING), SchemaColumn("@score", Type.NUMBER))
    rows = tuple((key, n / 2 if n else None) for n, key in enumerate(ODD))
    content = b"".join(opened.engine.export(Values(columns, rows), format, BUDGET))
    match format:
        case "csv":
            head, *found = csv.reader(io.StringIO(content.decode(), newline=""))
            assert head == ["user_id", "@score"]
            got = [(key, float(score) if score else None) for key, score in found]
        case "ndjson":
            lines = [json.loads(line) for line in content.decode().split("\n")[:-1]]
            got = [(line["user_id"], line["@score"]) for line in lines]
        case "parquet":
            got = polars.read_parquet(io.BytesIO(content)).rows()
    assert sorted(got) == sorted(rows, key=lambda row: row[0])
    assert list(opened.duck.path.with_suffix(".files").iterdir()) == []
