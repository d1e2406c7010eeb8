"""Reference tables of a real S3-compatible store over HTTP: first sync, changes, errors, what is served meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from time import monotonic, sleep
from typing import Any

import pytest

from object_servers import S3Store, s3_store
from servers import Server
from tables import TABLES, create, drop, patch, refused, rows, table

pytestmark = pytest.mark.xdist_group("cloud tables")

WAIT_S = 60.0
ACCOUNT = "123456789000"
PLANS = {"id": "STRING", "plan": "STRING", "seats": "INT32"}
FILE = b"Id,PLAN,Seats,more\na,pro,5,x\nb,free,,x\na,pro+,6,x\n"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Store]:
    with s3_store(tmp_path_factory.mktemp("moto")) as running:
        running.put("/crm")
        yield running


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory, store: S3Store) -> Iterator[Server]:
    """A server that may read that store, and has the account's secret."""
    settings = {"source_hosts": '["127.0.0.1"]', "source_loopback": "true", "cloud_sync_every_s": "10"}
    with Server(tmp_path_factory.mktemp("reader"), **settings) as running:
        body = {"data": {"type": "secret", "attributes": {"members": store.secret}}}
        assert running.ask("PUT", f"/api/roster/secrets/aws-{ACCOUNT}", body).status in (200, 201)
        yield running


def details(path: str) -> dict[str, Any]:
    return {"aws_detail": {"aws_account_id": ACCOUNT, "aws_bucket_name": "crm", "file_path": path}}


@pytest.fixture
def make(reader: Server) -> Iterator[Callable[..., str]]:
    """Makes tables of files of the store; they go with the test."""
    made: list[str] = []

    def make(path: str, columns: dict[str, str] | None = None, *, sync_enabled: bool = False) -> str:
        metadata = {"access_details": details(path), "sync_enabled": sync_enabled}
        answer = create(reader, "clouded", columns or PLANS, None, source="S3", file_metadata=metadata)
        assert answer.status == 201, answer.body
        made.append(answer.json()["data"]["id"])
        return made[-1]

    yield make
    for id in made:
        drop(reader, id)


def until(server: Server, id: str, good: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    deadline_s = monotonic() + WAIT_S
    while not good(found := table(server, id)):
        assert monotonic() < deadline_s, found
        sleep(0.05)
    return found


def until_status(server: Server, id: str, status: str) -> dict[str, Any]:
    return until(server, id, lambda found: found["status"] == status)


def sync(server: Server, id: str) -> None:
    assert server.ask("POST", f"/api/roster/sources/{id}/sync").status == 202


def test_a_file_becomes_rows(reader: Server, store: S3Store, make: Callable[..., str]) -> None:
    store.put("/crm/people.csv", FILE)
    id = make("people.csv")
    found = until_status(reader, id, "DONE")
    assert rows(reader, id) == {
        "b": {"id": "b", "plan": "free"},
        "a": {"id": "a", "plan": "pro+", "seats": 6},
    }
    assert (found["row_count"], found["schema"]["primary_keys"]) == (2, ["id"])
    assert found["file_metadata"] == {"access_details": details("people.csv"), "sync_enabled": False}
    store.put("/crm/people.csv", b"id,plan,seats\nb,team,7\nc,pro,8\n")
    sync(reader, id)
    until(reader, id, lambda _: rows(reader, id).keys() == {"b", "c"})
    assert rows(reader, id)["b"] == {"id": "b", "plan": "team", "seats": 7}
    assert table(reader, id)["row_count"] == 2


def test_a_changed_file_is_read_on_time(reader: Server, store: S3Store, make: Callable[..., str]) -> None:
    store.put("/crm/timely.csv", b"id,plan,seats\na,old,1\n")
    id = make("timely.csv", sync_enabled=True)
    until_status(reader, id, "DONE")
    store.put("/crm/timely.csv", b"id,plan,seats\na,new,1\n")
    until(reader, id, lambda _: rows(reader, id)["a"]["plan"] == "new")


def test_a_file_that_is_gone_is_told_and_its_rows_are_served(
    reader: Server, store: S3Store, make: Callable[..., str]
) -> None:
    store.put("/crm/here.csv", FILE)
    id = make("here.csv")
    until_status(reader, id, "DONE")
    assert patch(reader, id, file_metadata={"access_details": details("absent.csv")}).status == 200
    failed = until_status(reader, id, "ERROR")
    assert failed["file_metadata"]["error_type"] == "CONFIGURATION_ERROR"
    assert "absent.csv" in failed["file_metadata"]["error_message"]
    assert failed["file_metadata"]["access_details"] == details("absent.csv")
    assert (failed["row_count"], len(rows(reader, id))) == (2, 2), "those of the last good sync"
    assert patch(reader, id, file_metadata={"access_details": details("here.csv")}).status == 200
    found = until_status(reader, id, "DONE")
    assert found["file_metadata"] == {"access_details": details("here.csv"), "sync_enabled": False}


def test_a_file_that_comes_later(reader: Server, store: S3Store, make: Callable[..., str]) -> None:
    id = make("later.csv", sync_enabled=True)
    assert until_status(reader, id, "ERROR")["file_metadata"]["error_type"] == "CONFIGURATION_ERROR"
    assert rows(reader, id) == {}
    store.put("/crm/later.csv", FILE)
    until_status(reader, id, "DONE")
    assert len(rows(reader, id)) == 2


@pytest.mark.parametrize(
    ("path", "content", "error_type", "words"),
    [
        ("no_key.csv", b"plan,seats\npro,1\n", "TABLE_SCHEMA_ERROR", "'id'"),
        ("no_table.parquet", b"id,plan\na,pro\n", "FILE_FORMAT_ERROR", ""),
        ("ragged.csv", b"id,plan,seats\na,pro\n", "FILE_FORMAT_ERROR", "line 2"),
    ],
)
def test_a_file_that_is_no_table(
    reader: Server, store: S3Store, make: Callable[..., str], path: str, content: bytes, error_type: str, words: str
) -> None:
    store.put(f"/crm/{path}", content)
    id = make(path)
    metadata = until_status(reader, id, "ERROR")["file_metadata"]
    assert metadata["error_type"] == error_type, metadata
    assert words in metadata["error_message"]
    assert rows(reader, id) == {}


def test_a_missing_column_is_told_and_the_others_are_read(
    reader: Server, store: S3Store, make: Callable[..., str]
) -> None:
    store.put("/crm/narrow.csv", FILE)
    id = make("narrow.csv")
    until_status(reader, id, "DONE")
    store.put("/crm/narrow.csv", b"id,plan\na,team\nb,team\n")
    sync(reader, id)
    found = until(reader, id, lambda found: "error_type" in found["file_metadata"])
    assert (found["status"], found["file_metadata"]["error_type"]) == ("DONE", "TABLE_SCHEMA_ERROR")
    assert "'seats'" in found["file_metadata"]["error_message"]
    assert rows(reader, id)["a"] == {"id": "a", "plan": "team", "seats": 6}, "its last good value"


def test_a_new_column_is_read_from_an_unchanged_file(reader: Server, store: S3Store, make: Callable[..., str]) -> None:
    store.put("/crm/wide.csv", FILE)
    id = make("wide.csv")
    until_status(reader, id, "DONE")
    fields = [{"name": n, "type": t} for n, t in (PLANS | {"more": "STRING"}).items()]
    assert patch(reader, id, schema={"fields": fields, "primary_keys": ["id"]}).status == 200
    until(reader, id, lambda _: rows(reader, id)["a"].get("more") == "x")


def test_a_secret_that_is_wrong(reader: Server, store: S3Store) -> None:
    """Another account has no secret here: its files are read as anybody, who may not."""
    store.put("/crm/private.csv", FILE)
    metadata = {
        "access_details": {"aws_detail": details("private.csv")["aws_detail"] | {"aws_account_id": "987654321000"}},
        "sync_enabled": False,
    }
    made = create(reader, "private", PLANS, None, source="S3", file_metadata=metadata)
    id = made.json()["data"]["id"]
    assert until_status(reader, id, "ERROR")["file_metadata"]["error_type"] == "CONFIGURATION_ERROR"
    drop(reader, id)


def test_a_table_that_is_deleted_while_it_syncs(reader: Server, store: S3Store) -> None:
    content = b"id,plan,seats\n" + b"".join(b"r%d,pro,%d\n" % (i, i) for i in range(200_000))
    store.put("/crm/large.csv", content)
    metadata = {"access_details": details("large.csv"), "sync_enabled": True}
    made = create(reader, "large", PLANS, None, source="S3", file_metadata=metadata)
    id = made.json()["data"]["id"]
    drop(reader, id)
    refused(reader.ask("GET", f"{TABLES}/{id}"), 404, "table not found")
    again = create(reader, "large", PLANS, None, source="S3", file_metadata=metadata).json()["data"]["id"]
    assert until_status(reader, again, "DONE")["row_count"] == 200_000
    drop(reader, again)
    assert '"event": "internal"' not in reader.log()
