"""Reads of SQLite files: dynamic types, write-ahead logs, cursors, files that are none, hostile names and queries."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from datetime import date, datetime
from pathlib import Path
from typing import Any

import duckdb
import pytest

from roster.base.errors import Code, Error
from roster.model.sync import Fetched
from roster.sources import sqlite
from roster.sources.job import Job

Make = Callable[..., Job]


@pytest.fixture
def path(tmp_path: Path, make_job: Make) -> Path:
    return tmp_path / "in" / "shop.db"  # `make_job` made the folder


@pytest.fixture
def read(make_job: Make, tmp_path: Path, path: Path) -> Callable[..., Any]:
    count = 0

    def go(before: Fetched | None = None, **asked: Any) -> Any:
        nonlocal count
        count += 1
        folder = tmp_path / f"run{count}"
        folder.mkdir()
        job = make_job("sqlite", **({"path": str(path), "full": before is None} | asked))
        if before is not None:
            job = replace(job, fingerprint=before.fingerprint, cursor=before.cursor)
        fetched = sqlite.read(replace(job, folder=folder))
        assert {one.name for one in folder.iterdir()} == set(fetched.names if fetched else ())
        return fetched and replace(fetched, names=tuple(str(folder / name) for name in fetched.names))

    return go


def run(path: Path, script: str) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(script)


def content(fetched: Fetched) -> tuple[dict[str, str], list[tuple[Any, ...]]]:
    with duckdb.connect() as duck:
        relation = duck.execute("SELECT * FROM read_parquet($1) ORDER BY 1", [list(fetched.names)])
        rows = relation.fetchall()
        kinds = duck.execute("DESCRIBE SELECT * FROM read_parquet($1)", [list(fetched.names)]).fetchall()
    return {name: kind for name, kind, *_ in kinds}, rows


def refused(work: Callable[[], object]) -> Error:
    with pytest.raises(Error) as caught:
        work()
    return caught.value


def test_a_column_has_the_type_that_its_values_share(path: Path, read: Any) -> None:
    run(
        path,
        """
        CREATE TABLE kinds (id INTEGER PRIMARY KEY, whole INT, real REAL, both NUMERIC, mixed, t TEXT, b BLOB, none,
            flag BOOLEAN, flags BOOLEAN, day DATE, moment DATETIME, later TEXT, wide NUMERIC, late DATE);
        INSERT INTO kinds VALUES (1, 9223372036854775807, 0.1, 1, 'x', 'Zoë', x'00ff', NULL, 1, 1, '2024-02-29',
            '2024-02-29 12:00:00', '2024-02-29', 9007199254740993, '2024-02-30');
        INSERT INTO kinds VALUES (2, -5, 9e999, 2.5, 7, '', x'', NULL, 0, 2, '2024-03-01',
            '2024-02-29T12:00:00.5+02:00',
            '2024-03-01', 0.5, '2024-01-01');
        INSERT INTO kinds (id, mixed) VALUES (3, x'cafe');
    """,
    )
    kinds, rows = content(read(table="kinds"))
    assert kinds == {
        "id": "BIGINT", "whole": "BIGINT", "real": "DOUBLE", "both": "DOUBLE", "mixed": "VARCHAR",
        "t": "VARCHAR", "b": "VARCHAR", "none": "VARCHAR", "flag": "BOOLEAN", "flags": "BIGINT",
        "day": "DATE", "moment": "TIMESTAMP", "later": "VARCHAR",
        "wide": "VARCHAR", "late": "VARCHAR",
    }  # fmt: skip
    assert rows == [
        (1, 2**63 - 1, 0.1, 1.0, "x", "Zoë", "00ff", None, True, 1, date(2024, 2, 29), datetime(2024, 2, 29, 12),
         "2024-02-29", "9007199254740993", "2024-02-30"),
        (2, -5, None, 2.5, "7", "", "", None, False, 2, date(2024, 3, 1), datetime(2024, 2, 29, 10, 0, 0, 500000),
         "2024-03-01", "0.5", "2024-01-01"),
        (3, None, None, None, "cafe", *[None] * 10),
    ]  # fmt: skip


def test_unchanged_changed_and_empty(path: Path, read: Any) -> None:
    run(path, "CREATE TABLE t (a, b); CREATE VIEW v AS SELECT a FROM t")
    assert content(read(table="t")) == ({"a": "VARCHAR", "b": "VARCHAR"}, [])
    run(path, "INSERT INTO t VALUES (1, 'x'), (2, 'y')")
    fetched = read(table="t")
    assert (fetched.rows, fetched.total, read(fetched, table="t")) == (2, 2, None)
    run(path, "UPDATE t SET b = CASE b WHEN 'x' THEN 'y' ELSE 'x' END")
    assert content(read(fetched, table="t"))[1] == [(1, "y"), (2, "x")]
    assert content(read(table="v"))[1] == [(1,), (2,)]


@pytest.mark.parametrize("values", [(1, 2, 3), (0.1, 0.30000000000000004, 1e300), ("a", "it's: é", "zz")])
def test_cursors(path: Path, read: Any, values: tuple[Any, ...]) -> None:
    run(path, "CREATE TABLE t (id INTEGER, c)")
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("INSERT INTO t VALUES (0, NULL), (1, ?)", values[:1])
        connection.commit()
        first = read(table="t", cursor="C")
        assert (first.rows, first.changes_only, read(first, table="t", cursor="C")) == (2, False, None)
        connection.execute("INSERT INTO t VALUES (2, ?)", values[1:2])
        connection.commit()
        second = read(first, table="t", cursor="C")
        assert ([row[0] for row in content(second)[1]], second.changes_only, second.total) == ([1, 2], True, 3)
        connection.execute("DELETE FROM t WHERE id = 2")
        connection.commit()
        third = read(second, table="t", cursor="C")
        assert ([row[0] for row in content(third)[1]], third.changes_only) == ([0, 1], False)
    assert refused(lambda: read(table="t", cursor="d")).code is Code.NOT_FOUND


def test_a_file_that_is_written_meanwhile(path: Path, read: Any) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as writer:
        writer.execute("PRAGMA journal_mode = WAL")
        writer.execute("CREATE TABLE t (a)")
        writer.execute("INSERT INTO t VALUES (1)")
        writer.execute("BEGIN IMMEDIATE")
        writer.execute("INSERT INTO t VALUES (2)")
        assert content(read(table="t"))[1] == [(1,)]
        writer.execute("COMMIT")
        assert content(read(table="t"))[1] == [(1,), (2,)]


def test_a_query_reads_and_does_nothing_else(path: Path, read: Any, tmp_path: Path) -> None:
    run(path, "CREATE TABLE t (a); INSERT INTO t VALUES (1), (2)")
    other = tmp_path / "other.db"
    run(other, "CREATE TABLE secret (x)")
    assert content(read(query="WITH big AS (SELECT a FROM t WHERE a > 1) SELECT a * 2 AS d FROM big -- ok"))[1] == [
        (4,)
    ]
    for query in (
        "DELETE FROM t", "SELECT 1; DROP TABLE t", "SELECT 1) AS q; DROP TABLE t; --", f"ATTACH '{other}' AS o",
        "SELECT load_extension('x')", "PRAGMA user_version", "SELECT * FROM pragma_database_list",
        "SELEC 1",
    ):  # fmt: skip
        assert refused(lambda query=query: read(query=query)).code in (Code.INVALID, Code.FORBIDDEN, Code.NOT_FOUND), (
            query
        )
    assert content(read(table="t"))[1] == [(1,), (2,)]
    assert refused(lambda: read(query="SELECT nope FROM t")).code is Code.NOT_FOUND


@pytest.mark.parametrize("name", ["a b", "Robert'); DROP TABLE t;--", 'qu"ote', "select", "dot.ted", "zoë"])
def test_hostile_names(path: Path, read: Any, name: str) -> None:
    quoted = '"' + name.replace('"', '""') + '"'
    run(path, f"CREATE TABLE {quoted} ({quoted} INT); INSERT INTO {quoted} VALUES (7)")
    assert content(read(table=quoted, cursor=name)) == ({name: "BIGINT"}, [(7,)])


def test_what_is_not_there(path: Path, read: Any, tmp_path: Path) -> None:
    assert refused(lambda: read(table="t")).code is Code.NOT_FOUND
    path.write_bytes(b"no database at all, but long enough to look at" * 100)
    assert refused(lambda: read(table="t")).code is Code.INVALID
    path.unlink()
    run(path, "CREATE TABLE customers (a)")
    error = refused(lambda: read(table="customer"))
    assert (error.code, "'customers'" in error.hint) == (Code.NOT_FOUND, True)
    outside = tmp_path / "outside.db"
    run(outside, "CREATE TABLE t (a)")
    assert refused(lambda: read(table="t", path=str(outside))).code is Code.FORBIDDEN
    (path.parent / "link.db").symlink_to(outside)
    assert refused(lambda: read(table="t", path=str(path.parent / "link.db"))).code is Code.FORBIDDEN
    assert refused(lambda: read(table="t", path=str(path.parent))).code is Code.INVALID


def test_text_that_is_not_utf8(path: Path, read: Any) -> None:
    run(path, "CREATE TABLE t (a TEXT); INSERT INTO t VALUES (CAST(x'ff41' AS TEXT))")
    error = refused(lambda: read(table="t"))
    assert (error.code, "UTF-8" in error.message) == (Code.INVALID, True)


def test_a_locked_file(path: Path, read: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite, "BUSY_TIMEOUT_S", 0.1)
    run(path, "CREATE TABLE t (a)")
    with closing(sqlite3.connect(path, isolation_level=None)) as writer:
        writer.execute("BEGIN EXCLUSIVE")
        assert refused(lambda: read(table="t")).code is Code.BUSY


def test_many_rows_in_several_files(path: Path, read: Any) -> None:
    run(
        path,
        """
        CREATE TABLE t (id INTEGER PRIMARY KEY, token TEXT);
        WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 200000)
        INSERT INTO t SELECT i, hex(randomblob(60)) FROM n;
    """,
    )
    fetched = read(table="t")
    assert (fetched.rows, len(fetched.names) > 1) == (200_000, True)
    assert len(content(fetched)[1]) == 200_000
    assert refused(lambda: read(table="t", bytes_max=1_000_000)).code is Code.TOO_LARGE


def test_rows_that_come_to_the_top_of_the_cursor_are_seen(path: Path, read: Any) -> None:
    run(path, "CREATE TABLE t (id, u); INSERT INTO t VALUES (1, '01'), (2, '05')")
    first = read(table="t", cursor="u")
    run(path, "UPDATE t SET u = '05' WHERE id = 1")
    second = read(first, table="t", cursor="u")
    assert [row[0] for row in content(second)[1]] == [1, 2]
    assert read(second, table="t", cursor="u") is None


def test_a_source_whose_cursor_went_is_read_whole(path: Path, read: Any) -> None:
    run(path, "CREATE TABLE t (id, u); INSERT INTO t VALUES (1, 1), (2, 2)")
    with pytest.raises(Error, match="no column 'v'"):
        read(table="t", cursor="v")
    first = read(table="t", cursor="u")
    run(path, "ALTER TABLE t RENAME u TO v")
    second = read(first, table="t", cursor="u")
    assert ([row[0] for row in content(second)[1]], second.changes_only) == ([1, 2], False)
    assert read(second, table="t", cursor="u") is None
