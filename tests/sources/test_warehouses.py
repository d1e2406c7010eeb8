"""Snowflake by fakesnow's wire server and BigQuery by a server that speaks the documented REST, by the real readers."""

import datetime as dt
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from reads import LOCAL, Asked, Said, columns_of, make_job, rows_of, speaking
from roster.base.errors import Code, Error
from roster.model.source import parse_origin
from roster.ports import Cancel, Reading, Wanted
from roster.sources import bigquery, snowflake, statement
from roster.sources.policy import Policy
from roster.sources.process import ChildSources, SourceLimits
from roster.sources.scrub import scrub

HERE = Path(__file__).parent
CACHE = Path(os.environ.get("ROSTER_CLIENT_CACHE") or Path(tempfile.gettempdir()) / "roster-client-cache")
FAKESNOW = ("fakesnow[server]==0.12.1", "snowflake-connector-python==4.8.1")
"""fakesnow builds on a connector of its own, hence the environment of its own."""
INSTALL_TIMEOUT_S = 600
needs_snowflake = pytest.mark.skipif(
    not (find_spec("snowflake") and find_spec("pyarrow")), reason="the extra `snowflake` is not installed"
)
needs_bigquery = pytest.mark.skipif(
    not (find_spec("google") and find_spec("google.cloud") and find_spec("google.cloud.bigquery")),
    reason="the extra `bigquery` is not installed",
)


def failure(module: Any, job: Any) -> Error:
    with pytest.raises(Error) as caught:
        module.read(job)
    shown = caught.value.text()
    assert scrub(shown, job.secret) == shown
    return caught.value


SQL_WRONG = [
    "DELETE FROM people",
    "SELECT 1; SELECT 2",
    "SELECT 1; DROP TABLE people",
    "DROP TABLE people",
    "CALL wipe()",
    "selec nothing",
    "",
]


@pytest.mark.parametrize("dialect", ["snowflake", "bigquery"])
def test_only_a_single_select_is_sent(dialect: str) -> None:
    for text in SQL_WRONG:
        with pytest.raises(Error) as caught:
            statement.one_select(text, dialect, "query")
        assert caught.value.code is Code.INVALID
    found = statement.one_select("with a as (select 1 as x) select x from a -- remark", dialect, "query")
    assert "remark" not in found
    assert statement.one_select("select 1 as x union all select 2", dialect, "query")


def test_names_are_folded_and_quoted() -> None:
    assert statement.split_name("crm.people", "snowflake", "table") == ["CRM", "PEOPLE"]
    assert statement.split_name('crm."My people"', "snowflake", "table") == ["CRM", "My people"]
    assert statement.split_name("my-project.crm.people", "bigquery", "table") == ["my-project", "crm", "people"]
    assert statement.quote_name(['a"b'], "snowflake") == '"a""b"'
    assert statement.quote_name(["a", "b"], "bigquery") == "`a`.`b`"
    for text in (
        "people; DROP TABLE people",
        "people WHERE 1=1",
        "(SELECT 1)",
        "",
        "f(x)",
        "a.b.c.d.e",
        "people AS p",
        "people`",
    ):
        for dialect in ("snowflake", "bigquery"):
            with pytest.raises(Error):
                statement.split_name(text, dialect, "table")


PASSWORD = "right horse"


@dataclass(frozen=True)
class Snow:
    """A running fakesnow."""

    port: str

    def options(self, **more: str) -> dict[str, str]:
        place = {"account": "acme", "database": "CRM", "schema": "PUBLIC", "host": "127.0.0.1", "protocol": "http"}
        return place | {"port": self.port} | more

    def run(self, *texts: str) -> None:
        """Statements in a session of their own."""
        from snowflake import connector

        session: dict[str, Any] = {"server_session_keep_alive": False, "use_proxy_env": False}
        session["enable_server_session_keep_alive_auto_detection"] = False
        place = {"account": "acme", "host": "127.0.0.1", "port": int(self.port), "protocol": "http"}
        login = {"user": "me", "password": PASSWORD, "database": "CRM", "schema": "PUBLIC"}
        with closing(connector.connect(**place, **login, **session)) as connection:
            for text in texts:
                connection.cursor().execute(text)


@pytest.fixture(scope="module")
def snow() -> Iterator[Snow]:
    """fakesnow's server, installed into a cache when it is not there yet."""
    os.environ[snowflake.NO_PLATFORM_LOOKUP] = "true"
    python = install_fakesnow()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with (CACHE / "fakesnow.log").open("w") as log:
        server = subprocess.Popen([python, HERE / "snowflake_server.py", str(port)], stdout=log, stderr=log)
    try:
        for _ in range(600):
            if server.poll() is not None:
                pytest.fail(f"fakesnow has ended: {(CACHE / 'fakesnow.log').read_text()[-2000:]}")
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.1)
        yield Snow(str(port))
    finally:
        server.terminate()
        server.wait()
        os.environ.pop(snowflake.NO_PLATFORM_LOOKUP, None)


def install_fakesnow() -> Path:
    """The interpreter of its environment; skips when it cannot be installed."""
    folder = CACHE / "fakesnow"
    python, stamp = folder / "bin" / "python", folder / "installed.json"
    if not stamp.is_file() or json.loads(stamp.read_text()) != list(FAKESNOW):
        CACHE.mkdir(parents=True, exist_ok=True)
        make = [sys.executable, "-m", "uv", "venv", "--clear", "--quiet", "--python", sys.executable, str(folder)]
        fill = [sys.executable, "-m", "uv", "pip", "install", "--quiet", "--python", str(python), *FAKESNOW]
        for command in (make, fill):
            done = subprocess.run(command, capture_output=True, text=True, timeout=INSTALL_TIMEOUT_S)
            if done.returncode:
                pytest.skip(f"fakesnow cannot be installed: {done.stderr[-500:]}")
        stamp.write_text(json.dumps(FAKESNOW))
    return python


@pytest.fixture
def people(snow: Snow) -> Snow:
    """A server with a table of three people."""
    snow.run(
        "CREATE OR REPLACE TABLE people (id VARCHAR, seats NUMBER(38,0), paid NUMBER(10,2), score FLOAT, "
        "active BOOLEAN, seen TIMESTAMP_NTZ, born DATE)",
        "INSERT INTO people VALUES ('a', 1, 1.25, 0.5, TRUE, '2026-01-01 10:00:00', '2000-01-01'), "
        "('b', 2, NULL, 1.5, FALSE, '2026-01-02 10:00:00', NULL), "
        "('c', 12345678901234567, 3.25, NULL, NULL, '2026-01-03 10:00:00', '2000-01-03')",
    )
    return snow


LOGIN = {"user": "me", "password": PASSWORD}


@needs_snowflake
def test_snowflake_reads_a_table(tmp_path: Path, people: Snow, caplog: pytest.LogCaptureFixture) -> None:
    told: list[Reading] = []
    job = make_job(tmp_path, "snowflake", people.options(table="people"), LOGIN, report=told.append)
    caplog.clear()
    fetched = snowflake.read(job)
    assert "telemetry" not in caplog.text
    assert columns_of(job, fetched) == {
        "ID": "VARCHAR",
        "SEATS": "DECIMAL(38,0)",
        "PAID": "DECIMAL(10,2)",
        "SCORE": "DOUBLE",
        "ACTIVE": "BOOLEAN",
        "SEEN": "TIMESTAMP_NS",
        "BORN": "DATE",
    }
    rows = rows_of(job, fetched)
    assert [row[0] for row in rows] == ["a", "b", "c"]
    assert rows[2][1] == 12345678901234567 and str(rows[0][2]) == "1.25" and rows[1][6] is None
    assert fetched is not None and fetched.rows == 3 and told[-1].rows == told[-1].rows_total == 3
    again = make_job(tmp_path, "snowflake", people.options(table="people"), LOGIN, fingerprint=fetched.fingerprint)
    assert snowflake.read(again) is None
    assert snowflake.read(replace(again, full=True)) is not None


@needs_snowflake
def test_snowflake_reads_changed_rows_by_cursor(tmp_path: Path, people: Snow) -> None:
    options = people.options(table="CRM.PUBLIC.PEOPLE", cursor="seen")
    first = snowflake.read(make_job(tmp_path, "snowflake", options, LOGIN))
    assert first is not None and first.cursor == "2026-01-03 10:00:00"
    people.run("UPDATE people SET seats = 5, seen = '2026-02-01 00:00:00' WHERE id = 'a'")
    job = make_job(tmp_path, "snowflake", options, LOGIN, fingerprint="old", cursor=first.cursor)
    changed = snowflake.read(job)
    assert changed is not None and changed.changes_only and changed.cursor == "2026-02-01 00:00:00"
    assert [row[0] for row in rows_of(job, changed)] == ["a", "c"]
    by_number = people.options(query="SELECT id, seats FROM people WHERE seats > 1", cursor="SEATS")
    job = make_job(tmp_path, "snowflake", by_number, LOGIN, cursor="5")
    assert [row[0] for row in rows_of(job, snowflake.read(job))] == ["a", "c"]
    job = make_job(tmp_path, "snowflake", by_number, LOGIN, cursor="99999999999999999")
    nothing = snowflake.read(job)
    assert nothing is not None and nothing.rows == 0 and nothing.cursor == job.cursor
    assert columns_of(job, nothing) == {"ID": "VARCHAR", "SEATS": "DECIMAL(38,0)"}


@needs_snowflake
def test_snowflake_query_is_told_unchanged_by_its_rows(tmp_path: Path, people: Snow) -> None:
    options = people.options(query="SELECT id AS person, paid FROM people")
    first = snowflake.read(make_job(tmp_path, "snowflake", options, LOGIN))
    assert first is not None and first.fingerprint.startswith("rows:3:")
    assert snowflake.read(make_job(tmp_path, "snowflake", options, LOGIN, fingerprint=first.fingerprint)) is None
    people.run("UPDATE people SET paid = 9 WHERE id = 'b'")
    assert snowflake.read(make_job(tmp_path, "snowflake", options, LOGIN, fingerprint=first.fingerprint)) is not None


@needs_snowflake
def test_snowflake_errors(tmp_path: Path, people: Snow) -> None:
    wanted = [
        (people.options(table="nobody"), LOGIN, Code.NOT_FOUND),
        (people.options(query="SELECT id FROM people WHERE seats = 'many'"), LOGIN, Code.INVALID),
        (people.options(query="DELETE FROM people"), LOGIN, Code.INVALID),
        (people.options(table="people; DROP TABLE people"), LOGIN, Code.INVALID),
        (people.options(table="people", cursor="nothing"), LOGIN, Code.INVALID),
        (people.options(table="people"), {"user": "me", "password": "wrong horse"}, Code.UNAUTHENTICATED),
        (people.options(table="people"), {"user": "me"}, Code.UNAUTHENTICATED),
        (people.options(table="people") | {"port": "9"}, LOGIN, Code.BUSY),
        (people.options(table="people") | {"host": "169.254.169.254"}, LOGIN, Code.FORBIDDEN),
        (people.options(table="people") | {"host": "192.0.2.1"}, LOGIN, Code.INVALID),
    ]
    for options, secret, code in wanted:
        policy = Policy(("*",), (), loopback=True)
        found = failure(snowflake, make_job(tmp_path, "snowflake", options, secret, policy=policy))
        assert found.code is code, (options, found.text())
    not_listed = make_job(tmp_path, "snowflake", people.options(table="people"), LOGIN, policy=Policy())
    assert failure(snowflake, not_listed).code is Code.FORBIDDEN
    small = make_job(tmp_path, "snowflake", people.options(table="people"), LOGIN, bytes_max=10)
    assert failure(snowflake, small).code is Code.TOO_LARGE


@needs_snowflake
def test_snowflake_parts_elsewhere_must_be_allowed(tmp_path: Path) -> None:
    from snowflake.connector._internal.protobuf_gen.database_driver_v1_pb2 import ResultChunk
    from snowflake.connector.result_batch import ResultBatch

    def part(url: str) -> Any:
        chunk = ResultChunk()
        if url:
            chunk.remote.url = url
        return ResultBatch(chunk, [], None)

    job = make_job(tmp_path, "snowflake", {"account": "a", "database": "d", "table": "t"}, LOGIN)
    snowflake.check_places([part(""), part("https://127.0.0.1/stage/part?X-Amz-Signature=abc")], job)
    with pytest.raises(Error) as caught:
        snowflake.check_places([part("http://169.254.169.254/latest?X-Amz-Signature=abc")], job)
    assert caught.value.code is Code.FORBIDDEN and "Signature" not in caught.value.text()


SCHEMA = [("id", "STRING"), ("seats", "INTEGER"), ("score", "FLOAT"), ("active", "BOOLEAN"), ("seen", "TIMESTAMP")]
JANUARY_S = int(dt.datetime(2026, 1, 1, tzinfo=dt.UTC).timestamp())


@dataclass
class Warehouse:
    """BigQuery's REST API over one table, `acme.crm.people`; `fails` answers instead, by the end of a path."""

    rows: list[list[Any]]
    type: str = "TABLE"
    modified_ms: int = 1_767_225_600_000
    fails: dict[str, Said] = field(default_factory=dict)
    asked: list[dict[str, Any]] = field(default_factory=list)

    def answer(self, asked: Asked) -> Said:
        for end, said in self.fails.items():
            if asked.path.endswith(end):
                return said
        if asked.path == "/token":
            return Said({"access_token": "ya29.token", "token_type": "Bearer", "expires_in": 3600})
        if asked.headers.get("authorization") != "Bearer ya29.token":
            return wrong(401, "authError", "Invalid Credentials")
        place = asked.path.removeprefix("/bigquery/v2/projects/acme/")
        if place == "datasets/crm/tables/people":
            return Said(self.resource())
        if place == "datasets/crm/tables/people/data":
            return Said(self.page(asked, self.rows))
        if place == "jobs" and asked.method == "POST":
            return Said(self.insert(asked.json()))
        if place.startswith("queries/"):
            return Said(self.page(asked, self.chosen()) | {"jobComplete": True, "schema": schema()})
        if place.startswith("jobs/"):
            return Said(self.job(self.asked[-1]))
        return wrong(404, "notFound", f"Not found: {place}")

    def resource(self) -> dict[str, Any]:
        reference = {"projectId": "acme", "datasetId": "crm", "tableId": "people"}
        counts = {"numRows": str(len(self.rows)), "numBytes": "100", "lastModifiedTime": str(self.modified_ms)}
        return {"tableReference": reference, "type": self.type, "schema": schema(), **counts}

    def insert(self, body: dict[str, Any]) -> dict[str, Any]:
        self.asked.append(body)
        return self.job(body)

    def job(self, body: dict[str, Any]) -> dict[str, Any]:
        destination = {"projectId": "acme", "datasetId": "_tmp", "tableId": "anon"}
        query = body["configuration"]["query"] | {"destinationTable": destination}
        statistics = {"query": {"statementType": "SELECT", "schema": schema()}, "creationTime": "1", "startTime": "1"}
        reference = {"projectId": "acme", "jobId": body["jobReference"].get("jobId", "j"), "location": "EU"}
        configuration = body["configuration"] | {"query": query}
        return {
            "jobReference": reference,
            "configuration": configuration,
            "statistics": statistics,
            "status": {"state": "DONE"},
        }

    def chosen(self) -> list[list[Any]]:
        parameters = self.asked[-1]["configuration"]["query"].get("queryParameters", [])
        if not parameters:
            return self.rows
        (one,) = parameters
        assert one["parameterType"] == {"type": "TIMESTAMP"}
        since = dt.datetime.fromisoformat(one["parameterValue"]["value"]).timestamp() * 1e6
        return [row for row in self.rows if row[4] >= since]

    def page(self, asked: Asked, rows: list[list[Any]]) -> dict[str, Any]:
        size, after = int(asked.query.get("maxResults", "1000")), int(asked.query.get("pageToken") or "0")
        cells = [{"f": [{"v": None if v is None else str(v)} for v in row]} for row in rows[after : after + size]]
        page: dict[str, Any] = {"totalRows": str(len(rows)), "rows": cells}
        reference = {"jobReference": {"projectId": "acme", "jobId": "j", "location": "EU"}}
        following = {"pageToken": str(after + size)} if after + size < len(rows) else {}
        return page | reference | following


def schema() -> dict[str, Any]:
    return {"fields": [{"name": name, "type": kind, "mode": "NULLABLE"} for name, kind in SCHEMA]}


def wrong(status: int, reason: str, message: str) -> Said:
    body = {"code": status, "message": message, "errors": [{"reason": reason, "message": message, "domain": "global"}]}
    return Said({"error": body}, status)


def warehouse(count: int = 5) -> Warehouse:
    rows = [
        [f"u{n}", n, n + 0.5, "true" if n % 2 else None, (JANUARY_S + 86_400 * n) * 1_000_000] for n in range(count)
    ]
    return Warehouse(rows)


ACCESS = {"token": "ya29.token"}


def target(url: str, **more: str) -> dict[str, str]:
    return {"project": "acme", "dataset": "crm", "endpoint": url} | (more or {"table": "people"})


@needs_bigquery
def test_bigquery_lists_a_table_by_pages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bigquery, "PAGE_ROWS", 2)
    told: list[Reading] = []
    held = warehouse()
    with speaking(held.answer) as (url, heard):
        job = make_job(tmp_path, "bigquery", target(url), ACCESS, report=told.append)
        fetched = bigquery.read(job)
        assert columns_of(job, fetched) == {
            "id": "VARCHAR",
            "seats": "BIGINT",
            "score": "DOUBLE",
            "active": "BOOLEAN",
            "seen": "TIMESTAMP WITH TIME ZONE",
        }
        rows = rows_of(job, fetched)
        assert rows[1][:4] == ("u1", 1, 1.5, True) and rows[2][3] is None
        assert fetched is not None and fetched.rows == 5 and told[-1].rows == told[-1].rows_total == 5
        assert sum(asked.path.endswith("/data") for asked in heard) == 3 and not held.asked
        before = len(heard)
        again = make_job(tmp_path, "bigquery", target(url), ACCESS, fingerprint=fetched.fingerprint)
        assert bigquery.read(again) is None
        assert len(heard) == before + 1
        held.modified_ms += 1
        assert bigquery.read(again) is not None
        held.rows.clear()
        emptied = bigquery.read(job)
        assert rows_of(job, emptied) == [] and len(columns_of(job, emptied)) == 5


@needs_bigquery
def test_bigquery_asks_for_views_and_queries_and_changes(tmp_path: Path) -> None:
    held = warehouse()
    held.type = "VIEW"
    with speaking(held.answer) as (url, _):
        first = bigquery.read(make_job(tmp_path, "bigquery", target(url), ACCESS))
        assert first is not None and first.rows == 5 and first.fingerprint.startswith("rows:5:")
        assert held.asked[-1]["configuration"]["query"]["query"] == "SELECT * FROM `acme`.`crm`.`people`"
        again = make_job(tmp_path, "bigquery", target(url), ACCESS, fingerprint=first.fingerprint)
        assert bigquery.read(again) is None
        held.type = "TABLE"
        options = target(url, table="crm.people", cursor="seen")
        first = bigquery.read(make_job(tmp_path, "bigquery", options, ACCESS))
        assert first is not None and not first.changes_only
        job = make_job(tmp_path, "bigquery", options, ACCESS, cursor=first.cursor)
        changed = bigquery.read(job)
        assert changed is not None and changed.changes_only and changed.cursor == first.cursor
        assert [row[0] for row in rows_of(job, changed)] == ["u4"]
        sent = held.asked[-1]["configuration"]["query"]
        assert sent["query"] == "SELECT * FROM `acme`.`crm`.`people` WHERE `seen` >= @since"
        query = target(url, query="SELECT id, seen FROM crm.people", cursor="seen")
        job = make_job(tmp_path, "bigquery", query, ACCESS, cursor="2027-01-01 00:00:00+00")
        nothing = bigquery.read(job)
        assert nothing is not None and nothing.rows == 0 and nothing.cursor == job.cursor
        sent = held.asked[-1]["configuration"]["query"]
        assert sent["query"] == "SELECT * FROM (SELECT id, seen FROM crm.people) AS q WHERE `seen` >= @since"
        assert sent["useLegacySql"] is False


@needs_bigquery
def test_bigquery_logs_in_with_a_key_of_a_service_account(tmp_path: Path) -> None:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    made = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    forms = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    with speaking(warehouse().answer) as (url, heard):
        key = {
            "type": "service_account",
            "project_id": "acme",
            "private_key_id": "1",
            "private_key": made.private_bytes(*forms).decode(),
            "client_email": "roster@acme.iam.gserviceaccount.com",
            "token_uri": f"{url}/token",
        }
        job = make_job(tmp_path, "bigquery", target(url), {"service_account_key": json.dumps(key)})
        fetched = bigquery.read(job)
        assert fetched is not None and fetched.rows == 5
        assert sum(asked.path == "/token" for asked in heard) == 1
        elsewhere = {"service_account_key": json.dumps(key | {"token_uri": "http://169.254.169.254/token"})}
        assert failure(bigquery, make_job(tmp_path, "bigquery", target(url), elsewhere)).code is Code.FORBIDDEN
        for nonsense in ("no json", "[]", '{"type": "service_account"}'):
            job = make_job(tmp_path, "bigquery", target(url), {"service_account_key": nonsense})
            assert failure(bigquery, job).code is Code.INVALID
    refused = Warehouse([], fails={"/token": Said({"error": "invalid_grant", "error_description": "no"}, 400)})
    with speaking(refused.answer) as (url, _):
        again = {"service_account_key": json.dumps(key | {"token_uri": f"{url}/token"})}
        assert failure(bigquery, make_job(tmp_path, "bigquery", target(url), again)).code is Code.UNAUTHENTICATED


BIGQUERY_ERRORS = [
    (wrong(404, "notFound", "Not found: Table acme:crm.people"), Code.NOT_FOUND),
    (wrong(401, "authError", "Invalid Credentials ya29.token"), Code.UNAUTHENTICATED),
    (wrong(403, "accessDenied", "Access Denied"), Code.FORBIDDEN),
    (wrong(403, "quotaExceeded", "Quota exceeded"), Code.BUSY),
    (wrong(400, "invalidQuery", "Syntax error"), Code.INVALID),
    (Said("", 302, {"location": "/elsewhere"}), Code.FORBIDDEN),
    (Said("<html>", 200), Code.BUSY),
]


@needs_bigquery
@pytest.mark.parametrize(("said", "code"), BIGQUERY_ERRORS)
def test_bigquery_errors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: Said, code: Code) -> None:
    monkeypatch.setattr(bigquery, "RETRY_S", 0.2)
    for end, options in (("/people", {"table": "people"}), ("/jobs", {"query": "SELECT 1 AS id"})):
        with speaking(Warehouse([], fails={end: said}).answer) as (url, _):
            job = make_job(tmp_path, "bigquery", target(url, **options), ACCESS)
            found = failure(bigquery, job)
            assert found.code is code, found.text()


@needs_bigquery
def test_bigquery_settings_and_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bigquery, "RETRY_S", 0.2)
    with speaking(warehouse().answer) as (url, _):
        wanted = [
            (target(url), {}, Code.UNAUTHENTICATED),
            (target(url, query="DROP TABLE crm.people"), ACCESS, Code.INVALID),
            (target(url, table="people` WHERE 1=1"), ACCESS, Code.INVALID),
            (target(url, table="people", cursor="nothing"), ACCESS, Code.INVALID),
            ({"project": "acme", "table": "people", "endpoint": url}, ACCESS, Code.INVALID),
            (target("http://169.254.169.254"), ACCESS, Code.FORBIDDEN),
            (target("http://127.0.0.1:9"), ACCESS, Code.BUSY),
        ]
        for options, secret, code in wanted:
            found = failure(bigquery, make_job(tmp_path, "bigquery", options, secret))
            assert found.code is code, (options, found.text())
        not_listed = make_job(tmp_path, "bigquery", target(url), ACCESS, policy=Policy())
        assert failure(bigquery, not_listed).code is Code.FORBIDDEN


@needs_snowflake
@needs_bigquery
def test_warehouses_are_read_in_a_process_of_their_own(tmp_path: Path, people: Snow) -> None:
    sources = ChildSources(SourceLimits(hosts=LOCAL, loopback=True))
    with speaking(warehouse().answer) as (url, _):
        wanted = {
            "snowflake": (people.options(table="people"), LOGIN, 3),
            "bigquery": (target(url), ACCESS, 5),
        }
        for kind, (options, secret, rows) in wanted.items():
            (tmp_path / kind).mkdir()
            asked = Wanted(parse_origin(kind, options), secret, tmp_path / kind)
            fetched = sources.fetch(asked, lambda reading: None, Cancel())
            assert fetched is not None and fetched.rows == rows
