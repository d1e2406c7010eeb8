"""Changes of reference tables over HTTP: new uploads, new columns, what is fixed; tables of buckets; owned tables."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from time import monotonic, sleep
from typing import Any

import pytest

from servers import Answered, Server
from tables import (
    NOBODY,
    TABLES,
    create,
    delete_rows,
    drop,
    listed,
    make,
    patch,
    put_part,
    read_page,
    refused,
    rows,
    start_upload,
    table,
    upload,
    upsert,
)

WAIT_S = 60.0
AUDIENCE = "/api/v2/product-analytics/users"
PLANS = {"id": "STRING", "plan": "STRING", "seats": "INT32"}
DETAILS = {
    "aws_detail": {"aws_account_id": "123456789000", "aws_bucket_name": "crm-files", "file_path": "in/people.csv"},
    "gcp_detail": {
        "file_path": "in/people.csv",
        "gcp_bucket_name": "crm-files",
        "gcp_project_id": "crm-project",
        "gcp_service_account_email": "reader@crm-project.iam.gserviceaccount.com",
    },
    "azure_detail": {
        "azure_client_id": "aaaaaaaa-1111-2222-3333-bbbbbbbbbbbb",
        "azure_container_name": "in",
        "azure_storage_account_name": "crmfiles",
        "azure_tenant_id": "cccccccc-4444-5555-6666-dddddddddddd",
        "file_path": "people.csv",
    },
}
"""As in the official test body: all three at once."""


@pytest.fixture
def plans(server: Server) -> Iterator[str]:
    """A table of three plans."""
    id = make(server, "plans", "id,plan,seats\na,pro,5\nb,free,1\nc,pro,\n", PLANS)
    yield id
    if server.ask("GET", f"{TABLES}/{id}").status == 200:
        drop(server, id)


def changed(server: Server, id: str, **attributes: Any) -> dict[str, Any]:
    """The table after a change that must succeed."""
    answer = patch(server, id, **attributes)
    assert (answer.status, answer.body) == (200, b""), answer
    return table(server, id)


def schema(columns: dict[str, str], key: str = "id") -> dict[str, Any]:
    return {"fields": [{"name": n, "type": t} for n, t in columns.items()], "primary_keys": [key]}


def refill(server: Server, id: str, content: str, **attributes: Any) -> Answered:
    """The answer to a change that replaces the rows by this file."""
    metadata = {"upload_id": upload(server, content.split("\n", 1)[0].split(","), content)}
    return patch(server, id, file_metadata=metadata, **attributes)


# words


def test_description_and_tags_are_replaced_when_given(server: Server, plans: str) -> None:
    before = table(server, plans)
    after = changed(server, plans, description="what they pay", tags=["a", "b"])
    assert after.pop("updated_at") >= before.pop("updated_at")
    assert after == before | {"description": "what they pay", "tags": ["a", "b"]}
    assert changed(server, plans, tags=[])["description"] == "what they pay"
    assert table(server, plans)["tags"] == []
    assert changed(server, plans, description="")["description"] == ""


def test_a_change_that_changes_nothing(server: Server, plans: str) -> None:
    before = table(server, plans)
    for attributes in ({}, {"description": ""}, {"tags": []}, {"schema": schema(PLANS)}, {"unknown": 1}):
        assert changed(server, plans, **attributes) == before
    assert server.ask("PATCH", f"{TABLES}/{plans}", {"data": {"type": "reference_table"}}).status == 200


@pytest.mark.parametrize(
    ("attributes", "words"),
    [
        ({"tags": "a"}, ["/data/attributes/tags"]),
        ({"description": 1}, ["/data/attributes/description"]),
        ({"file_metadata": {}}, ["upload_id is required for tables with 'LOCAL_FILE' source"]),
        ({"file_metadata": {"upload_id": NOBODY}}, [NOBODY, "/file_metadata/upload_id"]),
        ({"file_metadata": {"upload_id": NOBODY, "more": 1}}, ["/file_metadata/more"]),
        ({"file_metadata": {"sync_enabled": True}}, ["upload_id is required"]),
        ({"file_metadata": {"upload_id": NOBODY, "sync_enabled": True}}, ["/file_metadata/sync_enabled"]),
        ({"file_metadata": {"upload_id": NOBODY, "access_details": {}}}, ["/file_metadata/access_details"]),
        ({"schema": schema(PLANS, key="plan")}, ["/schema/primary_keys/0", "'id'"]),
        ({"schema": schema(PLANS, key="7")}, ["/schema/primary_keys/0"]),
        ({"schema": schema({"id": "STRING", "plan": "STRING"})}, ["/schema/fields", "'seats'", "only be added"]),
        ({"schema": schema({"id": "STRING", "tier": "STRING", "seats": "INT32"})}, ["/schema/fields", "'plan'"]),
        ({"schema": schema(PLANS | {"seats": "STRING"})}, ["/schema/fields/2/type", "INT32"]),
        ({"schema": schema(PLANS | {"x": "DOUBLE"})}, ["/schema/fields/3/type"]),
        ({"schema": schema(PLANS | {"7": "STRING"})}, ["/schema/fields/3/name"]),
        ({"schema": {"fields": [], "primary_keys": ["id"]}}, ["/schema/fields"]),
        ({"schema": schema({f"c{i}": "STRING" for i in range(201)})}, ["/schema/fields", "200"]),
    ],
)
def test_refused_changes_change_nothing(
    server: Server, plans: str, attributes: dict[str, Any], words: list[str]
) -> None:
    before = table(server, plans)
    refused(patch(server, plans, **({"description": "other"} | attributes)), 400, *words)
    assert table(server, plans) == before


def test_a_closed_change_takes_no_other_key(server: Server, plans: str) -> None:
    for data, pointer in (
        ({"type": "reference_table", "id": plans}, "/data/id"),
        ({"type": "table"}, "/data/type"),
        ({}, "/data/type"),
        (None, "/data"),
    ):
        refused(server.ask("PATCH", f"{TABLES}/{plans}", {"data": data}), 400, pointer)
    refused(server.ask("PATCH", f"{TABLES}/{plans}", b"{"), 400, "JSON")


# a new file


def test_a_new_upload_replaces_all_rows(server: Server, plans: str) -> None:
    """Rows with a known key change, others come, absent ones go; a listing that has begun goes on as it began."""
    page = read_page(server, f"{TABLES}/{plans}/rows/list?page[limit]=1")
    answer = refill(server, plans, "SEATS,Id,more,Plan\n7,a,x,pro\n9,z,x,team\n,c,x,\n8,z,x,team+\n", tags=["new"])
    assert (answer.status, answer.body) == (200, b"")
    assert rows(server, plans) == {
        "a": {"id": "a", "plan": "pro", "seats": 7},
        "z": {"id": "z", "plan": "team+", "seats": 8},
        "c": {"id": "c"},
    }
    after = table(server, plans)
    assert (after["row_count"], after["tags"], after["status"]) == (3, ["new"], "DONE")
    assert "file_metadata" not in after
    seen = list(page["data"])
    while following := page["links"].get("next"):
        page = read_page(server, following)
        seen += page["data"]
    assert [row["id"] for row in seen] == ["a", "b", "c"], "the rows of before"
    assert upsert(server, plans, b={"seats": 2}).status == 200
    assert delete_rows(server, plans, "a").status == 200
    assert rows(server, plans).keys() == {"z", "c", "b"}
    assert table(server, plans)["row_count"] == 3


def test_a_new_upload_in_parts_and_twice(server: Server, plans: str) -> None:
    content = "id,plan,seats\n" + "".join(f"r{i},p,{i}\n" for i in range(1000))
    whole = upload(server, ["id", "plan", "seats"], content[:7], content[7:5000], content[5000:])
    assert changed(server, plans, file_metadata={"upload_id": whole})["row_count"] == 1000
    assert rows(server, plans)["r999"] == {"id": "r999", "plan": "p", "seats": 999}
    refused(patch(server, plans, file_metadata={"upload_id": whole}), 400, "has not arrived")
    assert refill(server, plans, "id,plan,seats\n").status == 200
    assert (rows(server, plans), table(server, plans)["row_count"]) == ({}, 0)
    assert refill(server, plans, "id,plan,seats\nlast,,\n").status == 200
    assert rows(server, plans) == {"last": {"id": "last"}}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("id,plan,seats\na,pro,x\n", ["line 2", "'seats'"]),
        ("id,plan,seats\na,pro,2147483648\n", ["line 2", "'seats'"]),
        ("id,plan,seats\na,pro,1\n,pro,1\n", ["line 3", "'id'"]),
        ("id,plan,seats\na,pro\n", ["line 2"]),
        ("id,plan\na,pro\n", ["'seats'"]),
    ],
)
def test_a_file_that_does_not_fit_changes_nothing(server: Server, plans: str, content: str, words: list[str]) -> None:
    before, kept = table(server, plans), rows(server, plans)
    refused(refill(server, plans, content, description="other"), 400, *words)
    assert (table(server, plans), rows(server, plans)) == (before, kept)
    assert upsert(server, plans, a={"seats": 6}).status == 200
    assert rows(server, plans)["a"]["seats"] == 6


def test_missing_parts_of_a_new_upload_are_named(server: Server, plans: str) -> None:
    data = start_upload(server, ["id", "plan", "seats"], parts=2).json()["data"]
    metadata = {"upload_id": data["id"]}
    put_part(server, data["attributes"]["part_urls"][1], b"d,pro,1\n")
    refused(patch(server, plans, file_metadata=metadata), 400, "part 1", "/data/attributes/file_metadata/upload_id")
    put_part(server, data["attributes"]["part_urls"][0], b"id,plan,seats\n")
    assert changed(server, plans, file_metadata=metadata)["row_count"] == 1


def test_changes_at_once_are_whole(server: Server, plans: str) -> None:
    """Ten replace the rows at once, others write rows: what is there at the end is one file, and counted right."""
    together = Barrier(12)
    uploads = [
        upload(server, ["id", "plan", "seats"], "id,plan,seats\n" + "".join(f"r{i},p{n},{n}\n" for i in range(n + 1)))
        for n in range(10)
    ]

    def replace_rows(n: int) -> int:
        together.wait(WAIT_S)
        return patch(server, plans, file_metadata={"upload_id": uploads[n]}, description=f"file {n}").status

    def write_rows(n: int) -> int:
        together.wait(WAIT_S)
        return max(upsert(server, plans, **{f"w{n}.{i}": {"seats": i}}).status for i in range(5))

    with ThreadPoolExecutor(12) as pool:
        writers = [pool.submit(write_rows, n) for n in range(2)]
        statuses = list(pool.map(replace_rows, range(10)))
        assert {w.result(WAIT_S) for w in writers} == {200}
    assert set(statuses) <= {200, 409}
    assert 200 in statuses
    found, kept = rows(server, plans), table(server, plans)
    n = int(kept["description"].removeprefix("file "))
    assert statuses[n] == 200
    assert {id: row for id, row in found.items() if id.startswith("r")} == {
        f"r{i}": {"id": f"r{i}", "plan": f"p{n}", "seats": n} for i in range(n + 1)
    }
    assert kept["row_count"] == len(found)


# new columns


def test_columns_are_added(server: Server, plans: str) -> None:
    after = changed(server, plans, schema=schema({"New One": "INT32", **PLANS, "note": "STRING"}))
    assert [f["name"] for f in after["schema"]["fields"]] == ["id", "plan", "seats", "new_one", "note"]
    assert after["schema"]["primary_keys"] == ["id"]
    assert rows(server, plans)["a"] == {"id": "a", "plan": "pro", "seats": 5}
    assert upsert(server, plans, a={"new_one": 1, "note": "x"}).status == 200
    assert rows(server, plans)["a"] == {"id": "a", "plan": "pro", "seats": 5, "new_one": 1, "note": "x"}
    content = "id,plan,seats,new_one,note,later\nq,pro,1,2,n,l\n"
    wider = schema(PLANS | {"new_one": "INT32", "note": "STRING", "later": "STRING"})
    assert refill(server, plans, content, schema=wider).status == 200
    assert rows(server, plans) == {"q": {"id": "q", "plan": "pro", "seats": 1, "new_one": 2, "note": "n", "later": "l"}}
    refused(refill(server, plans, "id,plan,seats\nq,pro,1\n"), 400, "'new_one'")


def test_queries_see_a_change_whole(server: Server, plans: str) -> None:
    """The very next query reads the new rows and columns of a table that a connection joins."""
    event = {"type": "server", "application": {"id": "x"}, "event": {"name": "e"}, "usr": {"id": "a-planner"}}
    assert server.ask("POST", "/api/v2/prodlytics", event).status == 202
    assert upsert(server, plans, **{"a-planner": {"plan": "old", "seats": 0}}).status == 200
    fields = [{"id": f"its_{n}", "source_name": n, "type": "string"} for n in ("plan", "note")]
    attributes = {"type": "ref_table", "join_type": "user_id", "join_attribute": "id", "fields": fields[:1]}
    body = {"data": {"type": "connection_id", "id": "plans", "attributes": attributes}}
    assert server.ask("POST", f"{AUDIENCE}/mapping/connection", body).status == 201

    def values(*columns: str) -> list[Any]:
        asked = {"query": "user_id:a-planner", "select_columns": list(columns)}
        answer = server.ask("POST", f"{AUDIENCE}/query", {"data": {"type": "query_users_request", "attributes": asked}})
        return [[hit[column] for column in columns] for hit in answer.json()["data"]["attributes"]["hits"]]

    deadline_s = monotonic() + WAIT_S
    while values("@its_plan") != [["old"]]:
        assert monotonic() < deadline_s
        sleep(0.05)
    for n in range(10):
        assert refill(server, plans, f"id,plan,seats\na-planner,plan {n},1\n").status == 200
        assert values("@its_plan") == [[f"plan {n}"]]
    changed(server, plans, schema=schema(PLANS | {"note": "STRING"}))
    body["data"]["attributes"] = {"fields_to_add": fields[1:]}
    assert server.ask("PUT", f"{AUDIENCE}/mapping/connection", body).status == 200
    assert values("@its_plan", "@its_note") == [["plan 9", None]]
    assert upsert(server, plans, **{"a-planner": {"note": "hello"}}).status == 200
    assert values("@its_plan", "@its_note") == [["plan 9", "hello"]]
    assert refill(server, plans, "id,plan,seats,note\nb,x,1,y\n").status == 200
    assert values("@its_plan", "@its_note") == [[None, None]], "its row is gone"
    assert server.ask("DELETE", f"{AUDIENCE}/mapping/connection/plans").status == 204


# tables of buckets


def create_cloud(server: Server, name: str, source: str, details: Any, **changes: Any) -> Answered:
    metadata = {"access_details": details, "sync_enabled": True} | changes
    return create(server, name, PLANS, None, source=source, file_metadata=metadata)


@pytest.fixture
def bucket(server: Server) -> Iterator[str]:
    """A table of a bucket that this server may not read."""
    made = create_cloud(server, "in_a_bucket", "S3", DETAILS, sync_enabled=False)
    assert made.status == 201, made.body
    id = made.json()["data"]["id"]
    yield id
    if server.ask("GET", f"{TABLES}/{id}").status == 200:
        drop(server, id)


def await_status(server: Server, id: str, status: str) -> dict[str, Any]:
    deadline_s = monotonic() + WAIT_S
    while (found := table(server, id))["status"] != status:
        assert monotonic() < deadline_s, found
        sleep(0.05)
    return found


@pytest.mark.parametrize("source", ["S3", "GCS", "AZURE"])
@pytest.mark.parametrize("alone", [False, True])
@pytest.mark.usefixtures("plans")
def test_a_table_of_a_bucket_is_there_at_once(server: Server, source: str, alone: bool) -> None:
    mine = {"S3": "aws_detail", "GCS": "gcp_detail", "AZURE": "azure_detail"}[source]
    details = {mine: DETAILS[mine]} if alone else DETAILS
    name = f"clouded_{source.lower()}_{alone}".lower()
    made = create_cloud(server, name, source, details)
    assert made.status == 201, made.body
    found = made.json()["data"]["attributes"]
    assert (found["source"], found["row_count"], found["table_name"]) == (source, 0, name)
    assert found["status"] in ("PROCESSING", "ERROR")
    assert found["file_metadata"]["access_details"] == details
    assert found["file_metadata"]["sync_enabled"] is True
    id = made.json()["data"]["id"]
    failed = await_status(server, id, "ERROR")["file_metadata"]
    assert (failed["error_type"], failed["error_row_count"]) == ("CONFIGURATION_ERROR", 0), failed
    assert "source_hosts" in failed["error_message"], "the setting that allows it"
    assert rows(server, id) == {}
    assert name in listed(server, **{"filter[status]": "ERROR", "page[limit]": 100})
    assert name not in listed(server, **{"filter[status]": "DONE", "page[limit]": 100})
    by_status = listed(server, sort="status", **{"page[limit]": 100})
    assert by_status.index("plans") < by_status.index(name), "DONE comes before ERROR"
    drop(server, id)


def test_rows_of_a_bucket_are_not_written(server: Server, bucket: str) -> None:
    refused(upsert(server, bucket, a={"plan": "x"}), 409, "S3", "change the file")
    refused(delete_rows(server, bucket, "a"), 409, "S3", "change the file")
    assert rows(server, bucket) == {}


@pytest.mark.parametrize(
    ("source", "metadata", "pointer"),
    [
        ("S3", {"upload_id": NOBODY}, "upload_id"),
        ("S3", {"sync_enabled": True}, "access_details"),
        ("S3", {"access_details": DETAILS}, "sync_enabled"),
        ("S3", {"access_details": DETAILS, "sync_enabled": "yes"}, "sync_enabled"),
        ("S3", {"access_details": DETAILS, "sync_enabled": True, "more": 1}, "more"),
        ("S3", {"access_details": {}, "sync_enabled": True}, "access_details/aws_detail"),
        ("GCS", {"access_details": {"aws_detail": DETAILS["aws_detail"]}, "sync_enabled": True}, "access_details/gcp"),
        (
            "S3",
            {"access_details": {"aws_detail": {}}, "sync_enabled": True},
            "access_details/aws_detail/aws_account_id",
        ),
        (
            "S3",
            {"access_details": DETAILS | {"azure_detail": {"file_path": "x"}}, "sync_enabled": True},
            "access_details/azure_detail/azure_client_id",
        ),
        (
            "S3",
            {
                "access_details": {"aws_detail": DETAILS["aws_detail"] | {"aws_bucket_name": "a/b"}},
                "sync_enabled": True,
            },
            "access_details/aws_detail/aws_bucket_name",
        ),
    ],
)
def test_refused_tables_of_buckets(server: Server, source: str, metadata: dict[str, Any], pointer: str) -> None:
    answer = create(server, "refused_cloud", PLANS, None, source=source, file_metadata=metadata)
    refused(answer, 400, f"/data/attributes/file_metadata/{pointer}")
    refused(create(server, "refused_cloud", PLANS, None, source=source), 400, "/file_metadata/access_details")
    assert listed(server, **{"filter[table_name][exact]": "refused_cloud"}) == []


def test_access_details_are_merged(server: Server, bucket: str) -> None:
    moved = {"access_details": {"aws_detail": {"file_path": "in/other.csv"}}}
    after = changed(server, bucket, file_metadata=moved)["file_metadata"]
    aws = DETAILS["aws_detail"] | {"file_path": "in/other.csv"}
    assert after["access_details"] == DETAILS | {"aws_detail": aws}
    assert after["sync_enabled"] is False
    after = changed(server, bucket, file_metadata={"sync_enabled": True}, description="d")
    assert (after["file_metadata"]["sync_enabled"], after["description"]) == (True, "d")
    assert after["file_metadata"]["access_details"]["aws_detail"] == aws
    assert changed(server, bucket, file_metadata={})["file_metadata"]["sync_enabled"] is True
    for metadata, pointer in (
        ({"upload_id": NOBODY}, "upload_id"),
        ({"more": 1}, "more"),
        ({"access_details": {"aws_detail": {"aws_bucket_name": ""}}}, "access_details/aws_detail/aws_bucket_name"),
        ({"access_details": {"aws_detail": {"file_path": 1}}}, "access_details/aws_detail/file_path"),
    ):
        refused(patch(server, bucket, file_metadata=metadata), 400, f"/data/attributes/file_metadata/{pointer}")
    assert table(server, bucket)["file_metadata"]["access_details"]["aws_detail"] == aws


def test_columns_of_a_bucket_are_added(server: Server, bucket: str) -> None:
    after = changed(server, bucket, schema=schema(PLANS | {"note": "STRING"}))
    assert [f["name"] for f in after["schema"]["fields"]] == [*PLANS, "note"]
    refused(patch(server, bucket, schema=schema({"id": "STRING"})), 400, "'plan'")


def test_a_connection_reads_a_table_of_a_bucket_before_its_first_sync(server: Server, bucket: str) -> None:
    fields = [{"id": "cloud_plan", "source_name": "plan", "type": "string"}]
    attributes = {"type": "ref_table", "join_type": "user_id", "join_attribute": "id", "fields": fields}
    body = {"data": {"type": "connection_id", "id": "in_a_bucket", "attributes": attributes}}
    assert server.ask("POST", f"{AUDIENCE}/mapping/connection", body).status == 201
    asked = {"query": "cloud_plan:*", "select_columns": ["user_id", "@cloud_plan"]}
    answer = server.ask("POST", f"{AUDIENCE}/query", {"data": {"type": "query_users_request", "attributes": asked}})
    assert answer.json()["data"]["attributes"]["hits"] == []
    assert server.ask("DELETE", f"{AUDIENCE}/mapping/connection/in_a_bucket").status == 204
    await_status(server, bucket, "ERROR")
    drop(server, bucket)
    refused(server.ask("GET", f"{TABLES}/{bucket}"), 404, "table not found")


# tables of connections


def test_tables_of_connections_are_no_reference_tables(tmp_path: Path) -> None:
    folder = tmp_path / "files"
    folder.mkdir()
    path = folder / "crm.csv"
    path.write_text("id,tier\nu1,gold\n")
    with Server(tmp_path, source_folders=json.dumps([str(folder)]), tables_max="1") as server:
        attributes = {
            "type": "file",
            "join_type": "user_id",
            "join_attribute": "id",
            "metadata": {"path": str(path)},
            "fields": [{"id": "tier", "source_name": "tier", "type": "string"}],
        }
        body = {"data": {"type": "connection_id", "id": "crm", "attributes": attributes}}
        assert server.ask("POST", f"{AUDIENCE}/mapping/connection", body).status == 201
        (source,) = server.ask("GET", "/api/roster/sources").json()["data"]
        id = source["id"]
        row = {"data": [{"id": "u1", "type": "row", "attributes": {"values": {}}}]}
        for verb, tail, sent in (
            ("GET", "", None),
            ("DELETE", "", None),
            ("PATCH", "", {"data": {"type": "reference_table", "attributes": {"tags": []}}}),
            ("GET", "/rows?row_id=u1", None),
            ("GET", "/rows/list", None),
            ("POST", "/rows", row),
            ("DELETE", "/rows", {"data": [{"id": "u1", "type": "row"}]}),
        ):
            refused(server.ask(verb, f"{TABLES}/{id}{tail}", sent), 404, "table not found")
        assert listed(server) == []
        own = make(server, "crm", "id\na\n")
        assert listed(server) == ["crm"], "the one table that tables_max allows"
        refused(create(server, "second", {"id": "STRING"}, upload(server, ["id"], "id\n")), 400, "tables_max")
        refused(create_cloud(server, "third", "S3", DETAILS), 400, "tables_max")
        drop(server, own)
