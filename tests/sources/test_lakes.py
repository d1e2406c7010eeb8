"""Delta and Iceberg tables, written by their own libraries, in folders and on a real S3-compatible server."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import httpx2
import pytest

from object_servers import ScriptedStore, Told
from reads import LOCAL, Asked, Said, columns_of, make_job, rows_of, speaking
from roster.base.errors import Code, Error
from roster.model.source import parse_origin
from roster.ports import Cancel, Reading, Wanted
from roster.sources import delta, iceberg
from roster.sources.policy import Policy
from roster.sources.process import ChildSources, SourceLimits
from roster.sources.relay import relay
from roster.sources.scrub import scrub

KEYS = {"access_key_id": "AKIAROSTERTEST", "secret_access_key": "lake-secret-key"}
needs_delta = pytest.mark.skipif(
    not (find_spec("deltalake") and find_spec("pyarrow")), reason="the extra `delta` (and pyarrow) is not installed"
)
needs_iceberg = pytest.mark.skipif(
    not (find_spec("pyiceberg") and find_spec("pyarrow")), reason="the extra `iceberg` is not installed"
)


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    """A server in a process of its own: delta-rs holds the interpreter while it reads."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        url = f"http://127.0.0.1:{port}"
        for _ in range(600):
            if server.poll() is not None:
                pytest.fail("the S3 server has ended")
            try:
                httpx2.put(f"{url}/lake", trust_env=False).raise_for_status()
                break
            except httpx2.HTTPError:
                time.sleep(0.1)
        yield url
    finally:
        server.terminate()
        server.wait()


def people(*ids: str) -> Any:
    """A table of people: text, number, exact number, time."""
    import pyarrow as pa

    columns: dict[str, Any] = {
        "id": pa.array(ids, pa.string()),
        "seats": pa.array(range(len(ids)), pa.int64()),
        "paid": pa.array([10 * n for n in range(len(ids))], pa.decimal128(10, 2)),
        "seen": pa.array([n * 1_000_000 for n in range(len(ids))], pa.timestamp("us", "UTC")),
    }
    return pa.table(columns)


def failure(module: Any, job: Any) -> Error:
    with pytest.raises(Error) as caught:
        module.read(job)
    shown = caught.value.text()
    assert scrub(shown, job.secret) == shown
    return caught.value


@needs_delta
def test_delta_reads_the_newest_version_without_deleted_rows(tmp_path: Path) -> None:
    from deltalake import DeltaTable, write_deltalake

    table = str(tmp_path / "people")
    write_deltalake(table, people("a", "b", "c"), partition_by=["seats"])
    write_deltalake(table, people("d"), mode="append")
    told: list[Reading] = []
    job = make_job(tmp_path, "delta", {"path": table}, report=told.append)
    first = delta.read(job)
    assert [row[0] for row in rows_of(job, first)] == ["a", "b", "c", "d"]
    assert columns_of(job, first) == {
        "id": "VARCHAR",
        "seats": "BIGINT",
        "paid": "DECIMAL(10,2)",
        "seen": "TIMESTAMP WITH TIME ZONE",
    }
    assert first is not None and first.rows == 4 and told[-1].rows == told[-1].rows_total == 4
    assert delta.read(make_job(tmp_path, "delta", {"path": table}, fingerprint=first.fingerprint)) is None
    again = delta.read(make_job(tmp_path, "delta", {"path": table}, fingerprint=first.fingerprint, full=True))
    assert again is not None and again.fingerprint == first.fingerprint
    DeltaTable(table).delete("id = 'b'")
    job = make_job(tmp_path, "delta", {"path": table}, fingerprint=first.fingerprint)
    assert [row[0] for row in rows_of(job, delta.read(job))] == ["a", "c", "d"]
    DeltaTable(table).delete()
    job = make_job(tmp_path, "delta", {"path": table})
    emptied = delta.read(job)
    assert rows_of(job, emptied) == [] and list(columns_of(job, emptied)) == ["id", "seats", "paid", "seen"]


@needs_delta
def test_delta_in_s3(tmp_path: Path, s3: str) -> None:
    from deltalake import write_deltalake

    options = {"aws_endpoint": s3, "aws_region": "us-east-1", "allow_http": "true", "aws_conditional_put": "etag"}
    options |= {"aws_access_key_id": "x", "aws_secret_access_key": "y"}
    write_deltalake("s3://lake/delta people", people("a", "b"), storage_options=options)
    secret = KEYS | {"endpoint": s3}
    job = make_job(tmp_path, "delta", {"url": "s3://lake/delta people"}, secret)
    fetched = delta.read(job)
    assert [row[0] for row in rows_of(job, fetched)] == ["a", "b"]
    assert fetched is not None
    again = make_job(tmp_path, "delta", {"url": "s3://lake/delta people"}, secret, fingerprint=fetched.fingerprint)
    assert delta.read(again) is None
    unsigned = make_job(tmp_path, "delta", {"url": "s3://lake/delta people"}, {"endpoint": s3})
    assert failure(delta, unsigned).code is Code.UNAUTHENTICATED
    for url, code in (("s3://lake/none", Code.NOT_FOUND), ("s3://no-bucket/x", Code.NOT_FOUND)):
        assert failure(delta, make_job(tmp_path, "delta", {"url": url}, secret)).code is code
    gone = KEYS | {"endpoint": "http://127.0.0.1:9"}
    assert failure(delta, make_job(tmp_path, "delta", {"url": "s3://lake/delta people"}, gone)).code is Code.BUSY


@needs_delta
def test_delta_stays_where_it_may_read(tmp_path: Path) -> None:
    from deltalake import write_deltalake

    inside, outside = tmp_path / "inside", tmp_path / "outside"
    for folder in (inside, outside):
        folder.mkdir()
        write_deltalake(str(folder / "people"), people("a"))
    policy = Policy((), (inside,))
    for path in (outside / "people", inside / ".." / "outside" / "people"):
        assert failure(delta, make_job(tmp_path, "delta", {"path": str(path)}, policy=policy)).code is Code.FORBIDDEN
    assert failure(delta, make_job(tmp_path, "delta", {"path": str(inside)}, policy=policy)).code is Code.NOT_FOUND
    absent = make_job(tmp_path, "delta", {"path": str(inside / "none")}, policy=policy)
    assert failure(delta, absent).code is Code.NOT_FOUND
    (file,) = (inside / "people").glob("*.parquet")
    secret_file = next((outside / "people").glob("*.parquet"))
    file.unlink()
    file.symlink_to(secret_file)
    linked = make_job(tmp_path, "delta", {"path": str(inside / "people")}, policy=policy)
    assert failure(delta, linked).code is Code.FORBIDDEN
    elsewhere = make_job(tmp_path, "delta", {"url": "s3://lake/x"}, KEYS, policy=policy)
    assert failure(delta, elsewhere).code is Code.FORBIDDEN
    metadata = make_job(tmp_path, "delta", {"url": "s3://lake/x"}, KEYS | {"endpoint": "http://169.254.169.254"})
    assert failure(delta, metadata).code is Code.FORBIDDEN
    for url in ("file:///etc/passwd", "https://lake/x", "s3://"):
        assert failure(delta, make_job(tmp_path, "delta", {"url": url}, KEYS)).code is Code.INVALID


@needs_delta
def test_delta_files_outside_of_the_table_are_refused(tmp_path: Path) -> None:
    job = make_job(tmp_path, "delta", {"path": str(tmp_path)})
    for files, url in ((["file:///etc/passwd"], ""), (["/etc/passwd"], ""), (["s3://other/a.parquet"], "s3://lake/t")):
        with pytest.raises(Error) as caught:
            delta.check_files(job, files, url)
        assert caught.value.code is Code.FORBIDDEN
    delta.check_files(job, ["s3://lake/t/a.parquet"], "s3://lake/t")


@needs_delta
def test_delta_damage_is_told(tmp_path: Path) -> None:
    from deltalake import write_deltalake

    table = tmp_path / "people"
    write_deltalake(str(table), people("a"))
    (file,) = table.glob("*.parquet")
    file.write_bytes(file.read_bytes()[:100])
    assert failure(delta, make_job(tmp_path, "delta", {"path": str(table)})).code is Code.INVALID
    file.unlink()
    assert failure(delta, make_job(tmp_path, "delta", {"path": str(table)})).code is Code.NOT_FOUND
    write_deltalake(str(table), people("a", "b"), mode="overwrite")
    small = make_job(tmp_path, "delta", {"path": str(table)}, bytes_max=1)
    assert failure(delta, small).code is Code.TOO_LARGE


class Lake:
    """An Iceberg warehouse with a catalog in a file."""

    def __init__(self, folder: Path, warehouse: str = "", **properties: str) -> None:
        from pyiceberg.catalog.sql import SqlCatalog

        self.file = folder / "catalog.db"
        place = warehouse or f"file://{folder}/warehouse"
        self.catalog = SqlCatalog("lake", uri=f"sqlite:///{self.file}", warehouse=place, **properties)
        self.catalog.create_namespace("crm")
        self.table = self.catalog.create_table("crm.people", schema=people().schema)

    def close(self) -> None:
        self.catalog.engine.dispose()


@pytest.fixture
def lake(tmp_path: Path) -> Iterator[Lake]:
    made = Lake(tmp_path)
    yield made
    made.close()


@needs_iceberg
def test_iceberg_reads_the_current_snapshot_without_deleted_rows(tmp_path: Path, lake: Lake) -> None:
    options = {"catalog": str(lake.file), "table": "crm.people"}
    job = make_job(tmp_path, "iceberg", options)
    empty = iceberg.read(job)
    assert rows_of(job, empty) == [] and list(columns_of(job, empty)) == ["id", "seats", "paid", "seen"]
    lake.table.append(people("a", "b"))
    lake.table.append(people("c"))
    told: list[Reading] = []
    job = make_job(tmp_path, "iceberg", options, report=told.append)
    first = iceberg.read(job)
    assert [row[0] for row in rows_of(job, first)] == ["a", "b", "c"]
    assert columns_of(job, first)["paid"] == "DECIMAL(10,2)"
    assert first is not None and told[-1].rows == told[-1].rows_total == 3
    assert iceberg.read(make_job(tmp_path, "iceberg", options, fingerprint=first.fingerprint)) is None
    lake.table.delete("id == 'b'")
    job = make_job(tmp_path, "iceberg", options, fingerprint=first.fingerprint)
    assert [row[0] for row in rows_of(job, iceberg.read(job))] == ["a", "c"]
    lake.table.refresh()
    by_file = {"metadata": lake.table.metadata_location.removeprefix("file://")}
    job = make_job(tmp_path, "iceberg", by_file)
    assert [row[0] for row in rows_of(job, iceberg.read(job))] == ["a", "c"]


@needs_iceberg
def test_iceberg_in_s3_with_credentials_of_the_secret(tmp_path: Path, s3: str) -> None:
    access = {"s3.endpoint": s3, "s3.access-key-id": "x", "s3.secret-access-key": "y", "s3.region": "us-east-1"}
    lake = Lake(tmp_path, "s3://lake/iceberg", **access)
    try:
        lake.table.append(people("a", "b"))
        options = {"catalog": str(lake.file), "table": "crm.people"}
        secret = KEYS | {"endpoint": s3}
        job = make_job(tmp_path, "iceberg", options, secret)
        assert [row[0] for row in rows_of(job, iceberg.read(job))] == ["a", "b"]
        job = make_job(tmp_path, "iceberg", {"url": lake.table.metadata_location}, secret)
        assert [row[0] for row in rows_of(job, iceberg.read(job))] == ["a", "b"]
        absent = make_job(tmp_path, "iceberg", {"url": "s3://lake/none.metadata.json"}, secret)
        assert failure(iceberg, absent).code is Code.NOT_FOUND
        refused = make_job(tmp_path, "iceberg", options, secret, policy=Policy((), (tmp_path,)))
        assert failure(iceberg, refused).code is Code.FORBIDDEN
        inner = make_job(tmp_path, "iceberg", options, KEYS | {"endpoint": "http://169.254.169.254"})
        assert failure(iceberg, inner).code is Code.FORBIDDEN
        google = make_job(tmp_path, "iceberg", {"url": "gs://lake/x.json"}, {"endpoint": s3})
        assert failure(iceberg, google).code is Code.UNSUPPORTED
    finally:
        lake.close()


@needs_iceberg
def test_iceberg_stays_where_it_may_read(tmp_path: Path, lake: Lake) -> None:
    lake.table.append(people("a"))
    options = {"catalog": str(lake.file), "table": "crm.people"}
    nothing = make_job(tmp_path, "iceberg", options, policy=Policy((), (tmp_path / "run",)))
    assert failure(iceberg, nothing).code is Code.FORBIDDEN
    (tmp_path / "data").mkdir()
    (file,) = (tmp_path / "warehouse").rglob("*.parquet")
    shutil.move(file, tmp_path / "data" / "elsewhere.parquet")
    policy = Policy((), (tmp_path / "warehouse", tmp_path / "catalog.db"))
    file.symlink_to(tmp_path / "data" / "elsewhere.parquet")
    linked = make_job(tmp_path, "iceberg", options, policy=policy)
    assert failure(iceberg, linked).code is Code.FORBIDDEN


def through(proxy: str, url: str) -> int | None:
    """The status of a GET by a proxy, None when it gives none."""
    try:
        with httpx2.Client(proxy=proxy, trust_env=False) as client:
            return client.get(url).status_code
    except httpx2.HTTPError:
        return None


def test_the_proxy_of_libraries_leads_to_allowed_hosts_only() -> None:
    policy = Policy(LOCAL, (), loopback=True)
    with (
        ScriptedStore(lambda method, path: Told(content=path.encode())) as store,
        ScriptedStore(lambda method, path: Told(), "127.0.0.2") as forbidden,
    ):
        with relay(policy) as proxy:
            port = int(proxy.rpartition(":")[2])
            with httpx2.Client(proxy=proxy, trust_env=False) as client:
                for path in ("/one?a=1", "/two"):
                    assert client.get(f"{store.url}{path}").text == path
                assert client.post(store.url, content=b"x" * 1_000_000).status_code == 200
            assert "proxy-authorization" not in store.asked[0][2] and len(store.asked[2][3]) == 1_000_000
            assert through(proxy, forbidden.url) == through(proxy, "http://169.254.169.254/") == 403
            assert through(proxy, "https://169.254.169.254/") is None
            assert through(proxy, "http://127.0.0.1:9/") == 502
            assert through(f"http://127.0.0.1:{port}", store.url) == 403
            assert through(f"http://roster:guessed@127.0.0.1:{port}", store.url) == 403
            assert os.environ["https_proxy"] == proxy
            unproven = f"CONNECT {'x' * 240}:443 HTTP/1.1\r\n\r\n".encode()
            for sent in (*[unproven] * 300, b"GET / HTTP/1.1\r\n\r\n", b"nonsense\r\n\r\n", b"x" * 100_000):
                with socket.create_connection(("127.0.0.1", port)) as raw:
                    raw.sendall(sent)
                    raw.shutdown(socket.SHUT_WR)
                    assert not raw.recv(100).startswith(b"HTTP/1.1 2")
            assert through(proxy, store.url) == 200
        assert through(proxy, store.url) is None and "https_proxy" not in os.environ
    assert forbidden.asked == [] and len(store.asked) == 4


@pytest.mark.parametrize(
    ("module", "url"),
    [
        pytest.param(delta, "s3://lake/people", marks=needs_delta),
        pytest.param(iceberg, "s3://lake/people.metadata.json", marks=needs_iceberg),
    ],
)
def test_a_redirect_leads_to_no_forbidden_host(tmp_path: Path, module: Any, url: str) -> None:
    kind = module.__name__.rpartition(".")[2]
    with ScriptedStore(lambda method, path: Told(), "127.0.0.2") as forbidden:
        for target in (forbidden.url, "https://169.254.169.254"):
            away = Told(307, headers={"location": f"{target}/lake/people"})
            with ScriptedStore(lambda method, path, away=away: away) as store:
                error = failure(module, make_job(tmp_path, kind, {"url": url}, store.secret))
                assert store.asked
    assert forbidden.asked == []
    assert error.code is Code.FORBIDDEN and "169.254.169.254" in error.message


@needs_iceberg
def test_iceberg_errors(tmp_path: Path, lake: Lake) -> None:
    options = {"catalog": str(lake.file), "table": "crm.people"}
    lake.table.append(people("a"))
    for table, code in (("crm.none", Code.NOT_FOUND), ("people", Code.INVALID)):
        assert failure(iceberg, make_job(tmp_path, "iceberg", options | {"table": table})).code is code
    other = tmp_path / "other.db"
    other.write_text("no database")
    assert failure(iceberg, make_job(tmp_path, "iceberg", options | {"catalog": str(other)})).code is Code.INVALID
    nonsense = tmp_path / "x.metadata.json"
    for text in ('{"format-version": 9}', "[]", "no json"):
        nonsense.write_text(text)
        job = make_job(tmp_path, "iceberg", {"metadata": str(nonsense)})
        assert failure(iceberg, job).code is Code.INVALID
    (file,) = (tmp_path / "warehouse").rglob("*.parquet")
    whole = file.read_bytes()
    file.write_bytes(whole[:100])
    assert failure(iceberg, make_job(tmp_path, "iceberg", options)).code is Code.INVALID
    file.unlink()
    assert failure(iceberg, make_job(tmp_path, "iceberg", options)).code is Code.NOT_FOUND


class Catalog:
    """A REST catalog with one table; `lends` is the configuration that it answers with."""

    def __init__(self, lake: Lake, lends: dict[str, str] | None = None) -> None:
        self.lake = lake
        self.lends = lends or {}

    def answer(self, asked: Asked) -> Said:
        if asked.path == "/v1/oauth/tokens":
            right = asked.form().get("client_id") == "me" and asked.form().get("client_secret") == "lake-cred"
            return Said({"access_token": "lake-token"}) if right else Said({"error": "invalid_client"}, 401)
        if asked.headers.get("authorization") != "Bearer lake-token":
            wrong = {"message": "Not authorized", "type": "NotAuthorizedException", "code": 401}
            return Said({"error": wrong}, 401)
        if asked.path == "/v1/config":
            hostile = {
                "uri": "http://169.254.169.254/",
                "auth": "x",
                "rest.sigv4-enabled": "true",
                "py-io-impl": "os.x",
            }
            return Said({"defaults": {"prefix": "main"}, "overrides": hostile})
        if asked.path == "/v1/main/namespaces/crm/tables/people":
            assert asked.headers["x-iceberg-access-delegation"] == "vended-credentials"
            metadata = json.loads(self.lake.table.metadata.model_dump_json())
            return Said(
                {"metadata-location": self.lake.table.metadata_location, "metadata": metadata, "config": self.lends}
            )
        missing = {"message": "Table does not exist", "type": "NoSuchTableException", "code": 404}
        return Said({"error": missing}, 404)


@needs_iceberg
def test_iceberg_by_a_rest_catalog(tmp_path: Path, lake: Lake) -> None:
    lake.table.append(people("a", "b"))
    with speaking(Catalog(lake).answer) as (url, heard):
        options = {"catalog": url, "table": "crm.people", "warehouse": "main"}
        for secret in ({"token": "lake-token"}, {"credential": "me:lake-cred"}):
            job = make_job(tmp_path, "iceberg", options, secret)
            assert [row[0] for row in rows_of(job, iceberg.read(job))] == ["a", "b"]
        assert {asked.query.get("warehouse") for asked in heard if asked.path == "/v1/config"} == {"main"}
        absent = make_job(tmp_path, "iceberg", options | {"table": "crm.none"}, {"token": "lake-token"})
        assert failure(iceberg, absent).code is Code.NOT_FOUND
        for wrong in ({"token": "bad"}, {"credential": "me:bad"}, {}):
            assert failure(iceberg, make_job(tmp_path, "iceberg", options, wrong)).code is Code.UNAUTHENTICATED
        refused = make_job(tmp_path, "iceberg", options, {"token": "lake-token"}, policy=Policy(("*",)))
        assert failure(iceberg, refused).code is Code.FORBIDDEN
    said = [(Said("", 302, {"location": "http://169.254.169.254/"}), Code.FORBIDDEN), (Said("", 503), Code.BUSY)]
    for answer, code in said:
        with speaking(lambda asked, answer=answer: answer) as (url, _):  # type: ignore[misc]
            job = make_job(tmp_path, "iceberg", options | {"catalog": url}, {"token": "lake-token"})
            assert failure(iceberg, job).code is code
    assert failure(iceberg, make_job(tmp_path, "iceberg", options, {"token": "lake-token"})).code is Code.BUSY


@needs_iceberg
def test_iceberg_takes_lent_credentials_but_no_lent_addresses(tmp_path: Path, s3: str) -> None:
    access = {"s3.endpoint": s3, "s3.access-key-id": "x", "s3.secret-access-key": "y", "s3.region": "us-east-1"}
    lake = Lake(tmp_path, "s3://lake/lent", **access)
    lent = {"s3.access-key-id": "LENT", "s3.secret-access-key": "lent", "s3.endpoint": "http://169.254.169.254"}
    try:
        lake.table.append(people("a"))
        with speaking(Catalog(lake, lent).answer) as (url, _):
            options = {"catalog": url, "table": "crm.people"}
            job = make_job(tmp_path, "iceberg", options, {"token": "lake-token", "endpoint": s3})
            assert [row[0] for row in rows_of(job, iceberg.read(job))] == ["a"]
    finally:
        lake.close()


@needs_delta
@needs_iceberg
def test_lakes_are_read_in_a_process_of_their_own(tmp_path: Path, lake: Lake) -> None:
    from deltalake import write_deltalake

    write_deltalake(str(tmp_path / "people"), people("a"))
    lake.table.append(people("a", "b"))
    sources = ChildSources(SourceLimits(hosts=LOCAL, folders=(tmp_path,), loopback=True))
    wanted = {
        "delta": ({"path": str(tmp_path / "people")}, 1),
        "iceberg": ({"catalog": str(lake.file), "table": "crm.people"}, 2),
    }
    for kind, (options, rows) in wanted.items():
        (tmp_path / kind).mkdir()
        asked = Wanted(parse_origin(kind, options), {}, tmp_path / kind)
        fetched = sources.fetch(asked, lambda reading: None, Cancel())
        assert fetched is not None and fetched.rows == rows
