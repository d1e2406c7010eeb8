"""Reads of real PostgreSQL and MariaDB servers: types, cursors, faults, hostile names."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pytest

from roster.base.errors import Code, Error
from roster.model.source import Origin
from roster.model.sync import Fetched
from roster.ports import Cancel, Reading, Wanted
from roster.sources import mysql, postgres
from roster.sources.job import Job
from roster.sources.process import ChildSources, SourceLimits
from services import (
    ADMIN,
    DATABASE,
    HOST,
    PASSWORD,
    Absent,
    CutProxy,
    Service,
    mariadb as start_mariadb,
    postgres as start_postgres,
)

pytestmark = pytest.mark.xdist_group("databases")
READERS = {"postgres": postgres.read, "mysql": mysql.read}
MARKS = {"postgres": '"', "mysql": "`"}
Make = Callable[..., Job]


@contextmanager
def _needed(start: Callable[..., Any], *, tls: bool) -> Iterator[Service]:
    try:
        with start(tls=tls) as service:
            yield service
    except Absent as error:
        if os.environ.get("CI") == "true" and os.environ.get("ROSTER_NEED_SERVICES") == "1":
            raise
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def pg() -> Iterator[Service]:
    with _needed(start_postgres, tls=True) as service:
        yield service


@pytest.fixture(scope="session")
def my() -> Iterator[Service]:
    with _needed(start_mariadb, tls=True) as service:
        yield service


@pytest.fixture(params=["postgres", "mysql"])
def server(request: pytest.FixtureRequest) -> Service:
    found = request.getfixturevalue({"postgres": "pg", "mysql": "my"}[request.param])
    assert isinstance(found, Service)
    return found


@pytest.fixture
def read(make_job: Make, tmp_path: Path) -> Callable[..., Fetched | None]:
    """One read of a server; its files go to a folder of their own."""
    count = 0

    def go(service: Service, before: Fetched | None = None, **asked: Any) -> Any:
        nonlocal count
        count += 1
        folder = tmp_path / f"run{count}"
        folder.mkdir()
        report = asked.pop("report", None)
        asked = {"host": HOST, "port": str(service.port), "database": DATABASE, "full": before is None} | asked
        asked.setdefault("secret", {"user": ADMIN, "password": PASSWORD})
        job = replace(make_job(service.kind, **asked), folder=folder)
        job = replace(job, report=report or job.report)
        if before is not None:
            job = replace(job, fingerprint=before.fingerprint, cursor=before.cursor)
        fetched = READERS[service.kind](job)
        if fetched is not None:
            fetched = replace(fetched, names=tuple(str(folder / name) for name in fetched.names))
        left = {path.name for path in folder.iterdir()}
        assert left == {Path(name).name for name in (fetched.names if fetched else ())}, (
            "nothing else is left in the folder"
        )
        return fetched

    return go


def rows(fetched: Fetched | None, order: str = "1") -> list[tuple[Any, ...]]:
    assert fetched is not None
    assert fetched.format == "parquet"
    with duckdb.connect() as duck:
        return duck.execute(f"SELECT * FROM read_parquet($1) ORDER BY {order}", [list(fetched.names)]).fetchall()


def types(fetched: Fetched) -> dict[str, str]:
    with duckdb.connect() as duck:
        found = duck.execute("DESCRIBE SELECT * FROM read_parquet($1)", [fetched.names[0]]).fetchall()
    return {name: kind for name, kind, *_ in found}


def refused(work: Callable[[], object]) -> Error:
    with pytest.raises(Error) as caught:
        work()
    error = caught.value
    assert PASSWORD not in f"{error.text()} {error!r} {error.__cause__!r}"
    return error


BIG = 10**37
UUID = "0b973fc9-42a0-42fd-b8a7-cf5116bf4bfe"
LONG = "12345678901234567890123456789012345678901234567890.1234567890"
# fmt: off
POSTGRES_KINDS: list[tuple[str, str, str, object, str, object]] = [
    # declared as, kept as, two values as written and as kept
    ("int2", "SMALLINT", "-3", -3, "NULL", None),
    ("int8", "BIGINT", "9223372036854775807", 2**63 - 1, "NULL", None),
    ("float4", "FLOAT", "0.5", 0.5, "'NaN'", None),
    ("float8", "DOUBLE", "0.1", 0.1, "'-Infinity'", None),
    ("numeric(12,2)", "DECIMAL(12,2)", "1234567890.12", Decimal("1234567890.12"), "'NaN'", None),
    ("numeric", "DECIMAL(23,3)", "12345678901234567890.123", Decimal("12345678901234567890.123"), "'NaN'", None),
    ("numeric", "DECIMAL(3,1)", "12", Decimal(12), "0", Decimal(0)),
    ("numeric", "VARCHAR", f"{BIG}.5", f"{BIG}.5", "1e-5", "0.00001"),
    ("numeric(60,20)", "VARCHAR", "1e39", f"{10**39}.{'0' * 20}", "NULL", None),
    ("cents", "DECIMAL(10,2)", "1.50", Decimal("1.50"), "NULL", None),
    ("bool", "BOOLEAN", "true", True, "false", False),
    ("text", "VARCHAR", "'Zoë 🙂'", "Zoë 🙂", "''", ""),
    ("varchar(20)", "VARCHAR", "'v'", "v", "''", ""),
    ("char(5)", "VARCHAR", "'ab'", "ab", "''", ""),
    ("json", "VARCHAR", """'{"a": 1}'""", '{"a": 1}', "'null'", "null"),
    ("jsonb", "VARCHAR", """'{"b":[1,null]}'""", '{"b": [1, null]}', "NULL", None),
    ("uuid", "VARCHAR", f"'{UUID}'", UUID, "NULL", None),
    ("int[]", "VARCHAR", "'{1,NULL,3}'", "[1,null,3]", "'{}'", "[]"),
    ("text[]", "VARCHAR", """ARRAY['a"b', '']""", '["a\\"b",""]', "NULL", None),
    ("int[][]", "VARCHAR", "'{{1,2},{3,4}}'", "[[1,2],[3,4]]", "NULL", None),
    ("timestamptz", "TIMESTAMP WITH TIME ZONE", "'2024-02-29 12:00:00+02'", datetime(2024, 2, 29, 10, tzinfo=UTC),
     "'infinity'", None),
    ("timestamp", "TIMESTAMP", "'2024-02-29 12:00:00.123456'", datetime(2024, 2, 29, 12, 0, 0, 123456),
     "'-infinity'", None),
    ("date", "DATE", "'2024-02-29'", date(2024, 2, 29), "'infinity'", None),
    ("time", "VARCHAR", "'23:59:59'", "23:59:59", "NULL", None),
    ("interval", "VARCHAR", "'1 day 2 hours'", "1 day 02:00:00", "NULL", None),
    ("bytea", "VARCHAR", "'\\x00ff'", "00ff", "''", ""),
    ("mood", "VARCHAR", "'glad'", "glad", "'sad'", "sad"),
    ("inet", "VARCHAR", "'10.0.0.1'", "10.0.0.1/32", "NULL", None),
    ("int4range", "VARCHAR", "'[1,5)'", "[1,5)", "NULL", None),
    ("oid", "BIGINT", "4294967295", 4294967295, "NULL", None),
    ("pair", "VARCHAR", "(1, 'x')", '{"a":1,"b":"x"}', "NULL", None),
    ("money", "VARCHAR", "12.5", "$12.50", "NULL", None),
    ("xml", "VARCHAR", "'<a/>'", "<a/>", "NULL", None),
]
MARIADB_KINDS: list[tuple[str, str, str, object, str, object]] = [
    ("tinyint", "BIGINT", "-5", -5, "NULL", None),
    ("tinyint(1)", "BOOLEAN", "1", True, "0", False),
    ("tinyint(1)", "BIGINT", "2", 2, "0", 0),
    ("smallint unsigned", "UBIGINT", "65535", 65535, "NULL", None),
    ("mediumint", "BIGINT", "-8388608", -8388608, "NULL", None),
    ("bigint", "BIGINT", "-9223372036854775808", -(2**63), "NULL", None),
    ("bigint unsigned", "UBIGINT", "18446744073709551615", 2**64 - 1, "NULL", None),
    ("float", "FLOAT", "0.5", 0.5, "16777215", 16777215.0),
    ("double", "DOUBLE", "0.1", 0.1, "NULL", None),
    ("decimal(12,2)", "DECIMAL(12,2)", "1234567890.12", Decimal("1234567890.12"), "NULL", None),
    ("decimal(60,10)", "VARCHAR", LONG, LONG, "NULL", None),
    ("char(5)", "VARCHAR", "'ab'", "ab", "''", ""),
    ("varchar(20)", "VARCHAR", "'Zoë 🙂'", "Zoë 🙂", "''", ""),
    ("varchar(9) CHARACTER SET latin1", "VARCHAR", "'Zoë'", "Zoë", "NULL", None),
    ("text", "VARCHAR", """'a\\0b"\\\\'""", 'a\0b"\\', "''", ""),
    ("longtext", "VARCHAR", "repeat('x', 300000)", "x" * 300_000, "NULL", None),
    ("varbinary(4)", "VARCHAR", "x'00ff'", "00ff", "''", ""),
    ("blob", "VARCHAR", "x'cafe'", "cafe", "NULL", None),
    ("json", "VARCHAR", """'{"a": [1, null]}'""", '{"a": [1, null]}', "NULL", None),
    ("bit(10)", "UBIGINT", "b'1000000001'", 513, "NULL", None),
    ("date", "DATE", "'2024-02-29'", date(2024, 2, 29), "'0000-00-00'", None),
    ("datetime(6)", "TIMESTAMP", "'2024-02-29 12:00:00.123456'", datetime(2024, 2, 29, 12, 0, 0, 123456),
     "'0000-00-00 00:00:00'", None),
    ("timestamp(6) NULL", "TIMESTAMP", "'2024-02-29 12:00:00.5'", datetime(2024, 2, 29, 10, 0, 0, 500000),
     "NULL", None),
    ("time(3)", "VARCHAR", "'-100:00:01.5'", "-100:00:01.500", "NULL", None),
    ("year", "SMALLINT", "2024", 2024, "0", None),
    ("enum('x', 'y')", "VARCHAR", "'y'", "y", "NULL", None),
    ("set('p', 'q')", "VARCHAR", "'p,q'", "p,q", "''", ""),
    ("point", "VARCHAR", "point(1, 2)", "POINT(1 2)", "NULL", None),
    ("uuid", "VARCHAR", f"'{UUID}'", UUID, "NULL", None),
    ("inet6", "VARCHAR", "'::1'", "::1", "NULL", None),
]
# fmt: on


def test_every_type_round_trips(server: Service, read: Any) -> None:
    is_postgres = server.kind == "postgres"
    cases = POSTGRES_KINDS if is_postgres else MARIADB_KINDS
    if is_postgres:
        server.run(
            "DROP TABLE IF EXISTS kinds; DROP TYPE IF EXISTS mood, pair; DROP DOMAIN IF EXISTS cents;"
            "CREATE TYPE mood AS ENUM ('sad', 'glad'); CREATE TYPE pair AS (a int, b text);"
            "CREATE DOMAIN cents AS numeric(10,2)"
        )
    columns = ", ".join(f"v{i} {case[0]}" for i, case in enumerate(cases))
    values = [", ".join(str(case[place]) for case in cases) for place in (2, 4)]
    zone = "" if is_postgres else "SET time_zone = '+02:00';"
    server.run(
        f"{zone} DROP TABLE IF EXISTS kinds;"
        f"CREATE TABLE kinds (id int PRIMARY KEY, {columns});"
        f"INSERT INTO kinds VALUES (1, {values[0]}), (2, {values[1]})"
    )
    fetched = read(server, table="kinds")
    assert types(fetched) == {"id": "INTEGER" if is_postgres else "BIGINT"} | {
        f"v{i}": case[1] for i, case in enumerate(cases)
    }
    for row, place in zip(rows(fetched), (3, 5), strict=True):
        for case, value in zip(cases, row[1:], strict=True):
            assert value == case[place], case[0]
    assert read(server, fetched, table="kinds") is None


def test_an_empty_table_has_its_columns(server: Service, read: Any) -> None:
    server.run("DROP TABLE IF EXISTS nothing; CREATE TABLE nothing (id int, name varchar(9), n numeric(5,1))")
    fetched = read(server, table="nothing")
    assert (rows(fetched), list(types(fetched))) == ([], ["id", "name", "n"])
    assert (fetched.rows, fetched.total, fetched.changes_only) == (0, 0, False)


def test_an_unchanged_table_is_recognised_and_any_change_is_seen(server: Service, read: Any) -> None:
    server.run(
        "DROP TABLE IF EXISTS kept; CREATE TABLE kept (id int, name varchar(9), note varchar(9));"
        "INSERT INTO kept VALUES (1, 'a', 'x'), (2, 'b', 'y'), (3, 'a', 'x'), (4, NULL, '')"
    )
    fetched = read(server, table="kept")
    assert (fetched.rows, fetched.total, fetched.cursor) == (4, 4, "")
    assert read(server, fetched, table="kept") is None
    server.run("DELETE FROM kept WHERE id = 2; INSERT INTO kept VALUES (2, 'b', 'y')")
    assert read(server, fetched, table="kept") is None, "the order of rows is no change"
    assert read(server, fetched, table="kept", full=True) is not None
    for change in (
        "UPDATE kept SET note = CASE id WHEN 1 THEN 'y' ELSE 'x' END WHERE id IN (1, 2)",
        "UPDATE kept SET name = '' WHERE id = 4",
        "INSERT INTO kept VALUES (4, '', '')",
        "ALTER TABLE kept ADD COLUMN more int",
    ):
        server.run(change)
        again = read(server, fetched, table="kept")
        assert again is not None and again.fingerprint != fetched.fingerprint, change
        fetched = again


def test_a_cursor_brings_what_changed_and_tells_how_many_rows_there_are(server: Service, read: Any) -> None:
    server.run(
        "DROP TABLE IF EXISTS moving;"
        "CREATE TABLE moving (id int PRIMARY KEY, name varchar(9), changed_at timestamp(6) NULL);"
        "INSERT INTO moving VALUES (1, 'a', '2024-01-01 00:00:00.000001'),"
        "(2, 'b', '2024-01-02'), (3, 'c', '2024-01-02'),"
        "(4, 'd', NULL)"
    )
    ask = {"table": "moving", "cursor": "changed_at"}
    first = read(server, **ask)
    assert ([row[0] for row in rows(first)], first.changes_only, first.total) == ([1, 2, 3, 4], False, 4)
    assert read(server, first, **ask) is None
    server.run("UPDATE moving SET name = 'A', changed_at = '2024-01-03' WHERE id = 1")
    second = read(server, first, **ask)
    assert ([row[:2] for row in rows(second)], second.changes_only, second.total) == (
        [(1, "A"), (2, "b"), (3, "c")],
        True,
        4,
    )
    server.run("DELETE FROM moving WHERE id = 3")
    third = read(server, second, **ask)
    assert ([row[0] for row in rows(third)], third.changes_only, third.total) == ([1], True, 3)
    assert [row[0] for row in rows(read(server, third, **ask, full=True))] == [1, 2, 4]
    server.run("DELETE FROM moving WHERE id = 1")
    back = read(server, third, **ask)
    assert ([row[0] for row in rows(back)], back.changes_only) == ([2, 4], False), "the cursor went back"
    server.run("ALTER TABLE moving ADD COLUMN more int")
    assert read(server, back, **ask).changes_only is False, "old rows have the new column too"


@pytest.mark.parametrize("kind, values", [
    ("int", ["1", "2", "3"]), ("bigint", ["9007199254740993", "9007199254740992", "9223372036854775807"]),
    ("numeric(30,10)", ["1.5", "12345678901234567890.0000000001", "12345678901234567890.0000000002"]),
    ("date", ["'2024-01-01'", "'2024-01-02'", "'2024-01-03'"]), ("varchar(20)", ["'a'", "'it''s \\\\ '", "'zoë'"]),
    ("double precision", ["0.1", "0.30000000000000004", "1e300"]),
])  # fmt: skip
def test_cursors_of_many_types(server: Service, read: Any, kind: str, values: list[str]) -> None:
    server.run(f"DROP TABLE IF EXISTS steps; CREATE TABLE steps (c {kind})")
    ask = {"table": "steps", "cursor": "c"}
    before = read(server, **ask)
    for seen, value in enumerate(values, 1):
        server.run(f"INSERT INTO steps VALUES ({value})")
        before = read(server, before, **ask)
        assert before.total == seen
        assert read(server, before, **ask) is None
    assert rows(before) == rows(read(server, **ask))[-2:], "the largest seen, and what is new"


def test_what_cannot_be_a_cursor(server: Service, read: Any) -> None:
    server.run("DROP TABLE IF EXISTS odd; CREATE TABLE odd (id int, j json, changed int)")
    error = refused(lambda: read(server, table="odd", cursor="change"))
    assert (error.code, error.message) == (Code.NOT_FOUND, "there is no column 'change'")
    assert "'changed'" in error.hint
    if server.kind == "postgres":  # to MariaDB, json is text
        assert refused(lambda: read(server, table="odd", cursor="j")).code is Code.INVALID


def test_a_query_is_read_like_a_table(server: Service, read: Any) -> None:
    server.run(
        "DROP TABLE IF EXISTS sums; CREATE TABLE sums (k int, v numeric(10,2), f boolean);"
        "INSERT INTO sums VALUES (1, 1.25, true), (1, 2.50, true), (2, NULL, false)"
    )
    query = "SELECT k, sum(v) AS total, count(*) AS n, max(v) / 3 AS part FROM sums GROUP BY k -- all of them\n ;"
    fetched = read(server, query=query)
    (first, second) = rows(fetched)
    assert first[:3] == (1, Decimal("3.75"), 2)
    assert float(first[3]) == pytest.approx(0.8333333, abs=1e-6)
    assert second == (2, None, 1, None)
    assert read(server, fetched, query=query) is None
    assert rows(read(server, query="SELECT f FROM sums WHERE k = 2")) == [(False,)]


def test_a_query_is_one_select_and_changes_nothing(server: Service, read: Any) -> None:
    server.run("DROP TABLE IF EXISTS safe; CREATE TABLE safe (id int); INSERT INTO safe VALUES (1)")
    hostile = [
        "SELECT 1; DROP TABLE safe",
        "SELECT 1) AS q; DROP TABLE safe; --",
        "SELECT 1) AS q; COMMIT; DROP TABLE safe; -- ",
        "DELETE FROM safe",
        "DELETE FROM safe RETURNING id",
        "WITH gone AS (DELETE FROM safe RETURNING id) SELECT * FROM gone",
        "SELECT 1 AS id INTO made",
        "SELECT 1 AS id) AS q; SET TRANSACTION READ WRITE; --",
        "CREATE TABLE made (id int)",
        "",
        ";",
    ]
    for query in hostile[:-2]:
        assert refused(lambda query=query: read(server, query=query)).code is Code.INVALID, query
    assert server.run("SELECT count(*) FROM safe").strip() == "1"
    assert refused(lambda: read(server, table="made")).code is Code.NOT_FOUND


def test_functions_that_write_are_refused(server: Service, read: Any) -> None:
    if server.kind == "postgres":
        server.run(
            "DROP TABLE IF EXISTS inked; CREATE TABLE inked (id int);"
            "CREATE OR REPLACE FUNCTION ink() RETURNS int LANGUAGE sql AS 'INSERT INTO inked VALUES (1) RETURNING id'"
        )
    else:
        server.run(
            "DROP TABLE IF EXISTS inked; CREATE TABLE inked (id int); DROP FUNCTION IF EXISTS ink;\nDELIMITER //\n"
            "CREATE FUNCTION ink() RETURNS int MODIFIES SQL DATA BEGIN INSERT INTO inked VALUES (1); RETURN 1; END//\n"
        )
    error = refused(lambda: read(server, query="SELECT ink() AS n"))
    assert "read" in error.message.lower() and "only" in error.message.lower()
    assert server.run("SELECT count(*) FROM inked").strip() == "0"


def test_a_wrong_query_says_where(server: Service, read: Any) -> None:
    server.run("DROP TABLE IF EXISTS there; CREATE TABLE there (id int)")
    error = refused(lambda: read(server, query="SELECT id,\nFROM there"))
    assert error.code is Code.INVALID
    assert error.at == ("query, character 12" if server.kind == "postgres" else "query, line 2")
    error = refused(lambda: read(server, query="SELECT nope FROM there"))
    assert (error.code, "nope" in error.message) == (Code.NOT_FOUND, True)
    error = refused(lambda: read(server, query="SELECT id FROM nowhere"))
    assert (error.code, "nowhere" in error.message) == (Code.NOT_FOUND, True)
    assert refused(lambda: read(server, query="SELECT id, id FROM there")).code is Code.INVALID


@pytest.mark.parametrize(
    "name", ["a b", "Robert'); DROP TABLE x;--", "sémi;colon", "MiXed", "dot.ted", 'qu"ote', "select", "back`tick"]
)
def test_hostile_names(server: Service, read: Any, name: str) -> None:
    mark = MARKS[server.kind]
    quoted = mark + name.replace(mark, mark * 2) + mark
    server.run(
        f"DROP TABLE IF EXISTS {quoted}; CREATE TABLE {quoted} ({quoted} int, other int);"
        f"INSERT INTO {quoted} VALUES (7, 8)"
    )
    fetched = read(server, table=quoted, cursor=name)
    assert (rows(fetched), list(types(fetched))) == ([(7, 8)], [name, "other"])
    server.run(f"INSERT INTO {quoted} VALUES (9, 9)")
    assert len(rows(read(server, fetched, table=quoted, cursor=name))) == 2
    server.run(f"DROP TABLE {quoted}")


def test_tables_that_are_not_there_are_named_with_the_nearest(server: Service, read: Any) -> None:
    server.run("DROP TABLE IF EXISTS customers; CREATE TABLE customers (id int)")
    assert read(server, table="Customers") is not None
    space = "public" if server.kind == "postgres" else DATABASE
    fetched = read(server, table=f"{space}.customers")
    server.run("DROP TABLE customers; CREATE TABLE customerz (id int)")
    error = refused(lambda: read(server, fetched, table="customers"))
    assert (error.code, error.message) == (Code.NOT_FOUND, "there is no table 'customers'")
    assert "'customerz'" in error.hint
    server.run("DROP TABLE customerz")
    for wrong in ("a.b.c", "a..b", 'a"b', "", "x\0y"):
        if wrong:
            assert refused(lambda wrong=wrong: read(server, table=wrong)).code in (Code.INVALID, Code.NOT_FOUND), wrong


def test_a_source_whose_cursor_is_dropped_is_read_whole(server: Service, read: Any) -> None:
    server.run("DROP TABLE IF EXISTS cut; CREATE TABLE cut (id int, updated int); INSERT INTO cut VALUES (1, 1)")
    fetched = read(server, table="cut", cursor="updated")
    server.run("ALTER TABLE cut DROP COLUMN updated")
    error = refused(lambda: read(server, table="cut", cursor="updated"))
    assert (error.code, error.message) == (Code.NOT_FOUND, "there is no column 'updated'")
    again = read(server, fetched, table="cut", cursor="updated")
    assert (again.rows, again.changes_only) == (1, False)


def test_rows_that_come_to_the_top_of_the_cursor_are_seen(server: Service, read: Any) -> None:
    server.run("DROP TABLE IF EXISTS tied; CREATE TABLE tied (id int, u int); INSERT INTO tied VALUES (1, 1), (2, 5)")
    first = read(server, table="tied", cursor="u")
    assert read(server, first, table="tied", cursor="u") is None
    server.run("UPDATE tied SET u = 5 WHERE id = 1")
    second = read(server, first, table="tied", cursor="u")
    assert (second.rows, second.changes_only) == (2, True)


def test_who_may_not_come_in(server: Service, read: Any) -> None:
    wrong = {"user": ADMIN, "password": "n0t-the-one"}
    error = refused(lambda: read(server, table="x", secret=wrong))
    assert (error.code, "n0t-the-one" in error.text()) == (Code.UNAUTHENTICATED, False)
    assert (
        refused(lambda: read(server, table="x", secret={"user": "nobody", "password": "x"})).code
        is Code.UNAUTHENTICATED
    )
    assert refused(lambda: read(server, table="x", secret={"password": "x"})).code is Code.UNAUTHENTICATED
    error = refused(lambda: read(server, table="x", database="nowhere"))
    assert (error.code, "nowhere" in error.message) == (Code.NOT_FOUND, True)


def test_who_may_not_read(server: Service, read: Any) -> None:
    if server.kind == "postgres":
        server.run(
            "DROP TABLE IF EXISTS hidden; CREATE TABLE hidden (id int); DROP ROLE IF EXISTS guest;"
            "CREATE ROLE guest LOGIN PASSWORD 'guest pass'"
        )
    else:
        server.run(
            "DROP TABLE IF EXISTS hidden, shown; CREATE TABLE hidden (id int); CREATE TABLE shown (id int);"
            "CREATE OR REPLACE USER guest@'%' IDENTIFIED BY 'guest pass';"
            f"GRANT INSERT ON {DATABASE}.hidden TO guest@'%'"
        )
    secret = {"user": "guest", "password": "guest pass"}
    assert refused(lambda: read(server, table="hidden", secret=secret)).code is Code.FORBIDDEN


def test_servers_that_cannot_be_reached(server: Service, read: Any, make_job: Make) -> None:
    error = refused(lambda: read(server, table="x", port="1"))
    assert error.code is Code.BUSY
    from roster.sources.policy import Policy

    nowhere = Policy()
    assert refused(lambda: read(server, table="x", policy=nowhere)).code is Code.FORBIDDEN
    assert refused(lambda: read(server, table="x", port="many")).code is Code.INVALID
    assert refused(lambda: read(server, table="x", sslmode="maybe")).code is Code.INVALID


ENCRYPTED = {
    "postgres": "SELECT ssl::text FROM pg_stat_ssl WHERE pid = pg_backend_pid()",
    "mysql": "SELECT if(variable_value = '', 'false', 'true') AS ssl_on FROM information_schema.session_status"
    " WHERE variable_name = 'Ssl_cipher'",
}


def test_connections_are_encrypted_and_servers_proven(
    server: Service, read: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    query = ENCRYPTED[server.kind]
    for mode, encrypted in (("", "true"), ("prefer", "true"), ("require", "true"), ("disable", "false")):
        assert rows(read(server, query=query, **({"sslmode": mode} if mode else {}))) == [(encrypted,)], mode
    for mode in ("verify-ca", "verify-full"):
        assert refused(lambda mode=mode: read(server, query=query, sslmode=mode)).code is Code.INVALID, (
            "nobody knows it"
        )
        with monkeypatch.context() as patched:
            patched.setenv("SSL_CERT_FILE", str(server.certificate))
            assert rows(read(server, query=query, sslmode=mode)) == [("true",)], mode


def fill(server: Service, count: int) -> None:
    series = (
        f"generate_series(1, {count}) AS s(i)"
        if server.kind == "postgres"
        else f"(SELECT seq AS i FROM seq_1_to_{count}) AS s"
    )
    server.run(
        f"DROP TABLE IF EXISTS many; CREATE TABLE many AS SELECT i AS id, concat('name of ', i) AS name, "
        f"concat(md5(concat(i, '')), md5(concat(i + 1, ''))) AS token, i * 1.5 AS amount FROM {series}"
    )


def test_a_huge_row(server: Service, read: Any) -> None:
    size = 64 if server.kind == "postgres" else 12  # MariaDB sends no more than max_allowed_packet
    server.run(
        "DROP TABLE IF EXISTS huge; CREATE TABLE huge (id int, t "
        f"{'text' if server.kind == 'postgres' else 'longtext'}); INSERT INTO huge VALUES (1, 'a'), (3, 'b');"
        f"INSERT INTO huge VALUES (2, repeat('é', {size * 2**19}))"
    )
    assert [(row[0], len(row[1])) for row in rows(read(server, table="huge"))] == [(1, 1), (2, size * 2**19), (3, 1)]


def test_a_read_in_a_process_of_its_own(server: Service, tmp_path: Path) -> None:
    fill(server, 1000)
    sources = ChildSources(SourceLimits(hosts=(HOST,), loopback=True))
    places = {"host": HOST, "port": str(server.port), "database": DATABASE, "table": "many"}
    origin = Origin(server.kind, tuple(sorted(places.items())))
    secret = {"user": ADMIN, "password": PASSWORD}
    fetched = sources.fetch(Wanted(origin, secret, tmp_path), lambda reading: None, Cancel())
    assert fetched is not None
    assert (fetched.rows, sorted(path.name for path in tmp_path.iterdir())) == (1000, list(fetched.names))
    again = Wanted(origin, secret, tmp_path, fingerprint=fetched.fingerprint)
    assert sources.fetch(again, lambda reading: None, Cancel()) is None
    with pytest.raises(Error) as caught:
        sources.fetch(Wanted(origin, secret | {"password": "wr0ng one"}, tmp_path), lambda reading: None, Cancel())
    assert (caught.value.code, "wr0ng" in caught.value.text()) == (Code.UNAUTHENTICATED, False)


@pytest.mark.parametrize("after", [2_000, 3_000_000])
def test_a_connection_that_is_cut(server: Service, read: Any, after: int) -> None:
    fill(server, 100_000)
    with CutProxy(server.port, after) as proxy:
        error = refused(lambda: read(server, table="many", port=str(proxy.port), sslmode="disable"))
        assert proxy.was_cut, error.text()
    assert error.code is Code.BUSY


def test_more_than_one_read_may_bring(server: Service, read: Any) -> None:
    fill(server, 100_000)
    error = refused(lambda: read(server, table="many", bytes_max=1_000_000))
    assert (error.code, "source_bytes_max" in error.hint) == (Code.TOO_LARGE, True)


def test_progress_is_told(server: Service, read: Any, readings: list[Reading]) -> None:
    fill(server, 200_000)
    fetched = read(server, table="many")
    assert fetched.rows == 200_000
    assert readings[-1] == Reading(200_000, fetched.bytes, 200_000, fetched.bytes)
    assert {reading.rows_total for reading in readings} == {200_000}
    assert [r.rows for r in readings] == sorted(r.rows for r in readings)
    assert len(fetched.names) > 1
    assert len(rows(fetched)) == 200_000


def test_a_server_that_ends_while_it_is_read(read: Any) -> None:
    for start in (start_postgres, start_mariadb):
        with _needed(start, tls=False) as service:
            fill(service, 300_000)
            error = refused(lambda service=service: read(service, table="many", sslmode="require"))
            assert error.code in (Code.INVALID, Code.BUSY), "it does not speak TLS"
            heard: list[Reading] = []

            def end(reading: Reading, service: Service = service, heard: list[Reading] = heard) -> None:
                heard.append(reading)
                if len(heard) == 1:
                    service.kill()

            error = refused(lambda service=service, end=end: read(service, table="many", report=end))
            assert (error.code, len(heard) > 0) == (Code.BUSY, True)
            assert refused(lambda service=service: read(service, table="many")).code is Code.BUSY


MEASURE = """
import json, re, sys
from pathlib import Path
from roster.model.source import Origin
from roster.sources.job import Job, ReadLimits
from roster.sources.policy import Policy
from roster.sources.reader import READERS
from importlib import import_module
kind, options, secret, folder = json.loads(sys.argv[1])
read = import_module(READERS[kind]).read
policy = Policy(("127.0.0.1",), (), True)
origin, limits = Origin(kind, tuple(sorted(options.items()))), ReadLimits(2**30, 60)
job = Job(origin, secret, Path(folder), "", "", True, policy, limits, lambda reading: None)
rows = read(job).rows
print(rows, int(re.search(r"VmHWM:\\s+([0-9]+)", Path("/proc/self/status").read_text())[1]) // 1024)
"""


def test_memory_does_not_grow_with_the_rows(server: Service, tmp_path: Path) -> None:
    used = []
    for count in (200_000, 800_000):
        fill(server, count)
        folder = tmp_path / str(count)
        folder.mkdir()
        options = {"host": HOST, "port": str(server.port), "database": DATABASE, "table": "many"}
        words = json.dumps([server.kind, options, {"user": ADMIN, "password": PASSWORD}, str(folder)])
        done = subprocess.run([sys.executable, "-c", MEASURE, words], capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        read_rows, peak_mb = map(int, done.stdout.split())
        assert read_rows == count
        used.append(peak_mb)
    assert used[1] < used[0] + 64, f"MB: {used}"
