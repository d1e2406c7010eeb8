"""Reference tables over HTTP: the whole upload flow, rows and pages, errors letter for letter, closed objects."""

from __future__ import annotations

import json
import socket
import sqlite3
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from threading import Barrier
from time import monotonic, sleep
from typing import Any
from urllib.parse import quote, urlencode, urlsplit
from uuid import UUID

import pytest

from servers import Answered, Server
from tables import (
    BASE,
    NOBODY,
    TABLES,
    batch,
    check_shape,
    create,
    delete_rows,
    drop,
    listed,
    make,
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


@pytest.fixture
def pets(server: Server) -> Iterator[str]:
    """A table of three pets, one of them without a number."""
    id = make(
        server, "pets", "id,kind,legs\na,cat,4\nb,dog,4\nc,fish,\n", {"id": "STRING", "kind": "STRING", "legs": "INT32"}
    )
    yield id
    if server.ask("GET", f"{TABLES}/{id}").status == 200:
        drop(server, id)


# recorded answers


def test_recorded_errors_letter_for_letter(server: Server) -> None:
    fields = {"fields": [{"name": "id", "type": "STRING"}], "primary_keys": ["id"]}
    attributes = {"table_name": "recorded", "source": "LOCAL_FILE", "schema": fields}
    no_upload = server.ask("POST", TABLES, {"data": {"type": "reference_table", "attributes": attributes}})
    detail = "upload_id is required for tables with 'LOCAL_FILE' source"
    assert no_upload.body == b'{"errors":[{"title":"Generic Error","detail":"%s"}]}' % detail.encode()
    refused(no_upload, 400)
    no_uuid = server.ask("GET", f"{TABLES}/not-a-valid-uuid/rows/list")
    assert no_uuid.body == b'{"errors":[{"title":"Generic Error","detail":"table ID must be a valid UUID format"}]}'
    refused(no_uuid, 400)
    unknown = server.ask("GET", f"{TABLES}/{NOBODY}/rows/list")
    assert unknown.body == b'{"errors":[{"status":"404","title":"Not Found","detail":"table not found"}]}'
    refused(unknown, 404)


def test_unknown_tables_everywhere(server: Server) -> None:
    row = {"data": [{"id": "a", "type": "row", "attributes": {"values": {}}}]}
    for verb, tail, body in (
        ("GET", "", None),
        ("DELETE", "", None),
        ("GET", "/rows?row_id=a", None),
        ("GET", "/rows/list", None),
        ("POST", "/rows", row),
        ("DELETE", "/rows", {"data": [{"id": "a", "type": "row"}]}),
        ("PATCH", "", {"data": {"type": "reference_table"}}),
    ):
        refused(server.ask(verb, f"{TABLES}/{NOBODY}{tail}", body), 404, "table not found")
        refused(server.ask(verb, f"{TABLES}/pets{tail}", body), 400, "table ID must be a valid UUID format")
    refused(batch(server, NOBODY, "a"), 404, "table not found")
    refused(batch(server, "pets", "a"), 400, "table ID must be a valid UUID format")


# uploading


def test_a_file_in_parts_cut_anywhere(server: Server) -> None:
    content = "id,name\r\n" + "".join(f'{i},"näme, {i}"\r\n' for i in range(100))
    cuts = [content[:3], content[3:500], content[500:]]
    made = create(server, "cut", {"id": "INT32", "name": "STRING"}, upload(server, ["id", "name"], *cuts))
    assert made.status == 201, made.body
    id = made.json()["data"]["id"]
    assert rows(server, id) == {str(i): {"id": i, "name": f"näme, {i}"} for i in range(100)}
    drop(server, id)


def test_a_file_without_headers_takes_those_of_its_upload(server: Server) -> None:
    made = create(server, "bare", {"id": "STRING", "n": "INT32"}, upload(server, ["id", "n"], "a,1\nb,2\n"))
    assert made.status == 201, made.body
    id = made.json()["data"]["id"]
    assert rows(server, id) == {"a": {"id": "a", "n": 1}, "b": {"id": "b", "n": 2}}
    drop(server, id)


def test_a_part_put_again_replaces_it(server: Server) -> None:
    data = start_upload(server, ["id"]).json()["data"]
    (url,) = data["attributes"]["part_urls"]
    assert (
        put_part(server, url, b"id\nwrong\n").headers["etag"] != put_part(server, url, b"id\nright\n").headers["etag"]
    )
    made = create(server, "again", {"id": "STRING"}, data["id"])
    id = made.json()["data"]["id"]
    assert rows(server, id) == {"right": {"id": "right"}}
    refused(create(server, "once_more", {"id": "STRING"}, data["id"]), 400, "has not arrived")
    drop(server, id)


def test_parts_that_are_missing_are_named(server: Server) -> None:
    data = start_upload(server, ["id"], parts=3).json()["data"]
    put_part(server, data["attributes"]["part_urls"][1], b"id\na\n")
    refused(
        create(server, "missing", {"id": "STRING"}, data["id"]),
        400,
        "part 1, 3",
        "/data/attributes/file_metadata/upload_id",
    )


def test_addresses_of_parts_cannot_be_guessed(server: Server) -> None:
    (url, other) = start_upload(server, ["id"], parts=2).json()["data"]["attributes"]["part_urls"]
    path, query = url.removeprefix(server.url).split("?")
    signature = query.split("signature=")[1]
    for forged in (
        path,
        f"{path}?{query}0",
        f"{path}?{query.replace('expires=', 'expires=9')}",
        f"{path.replace('/parts/1', '/parts/2')}?{query}",
        f"{path.replace('/parts/1', '/parts/3')}?{query}",
        f"/api/roster/uploads/{NOBODY}/parts/1?{query}",
        f"{path}?signature={signature}",
    ):
        answer = server.ask("PUT", forged, b"id\n", keys=False)
        assert (answer.status, list(answer.json())) == (403, ["errors"])
    assert put_part(server, other, b"id\n").status == 200


@pytest.mark.parametrize(
    ("changed", "pointer"),
    [
        ({"part_count": 0}, "part_count"),
        ({"part_count": 21}, "part_count"),
        ({"part_count": 2, "part_size": 4_999_999}, "part_size"),
        ({"part_size": 0}, "part_size"),
        ({"headers": []}, "headers"),
        ({"headers": ["x"] * 201}, "headers"),
        ({"headers": "id"}, "headers"),
        ({"table_name": None}, "table_name"),
        ({"table_name": "123"}, "table_name"),
    ],
)
def test_refused_uploads(server: Server, changed: dict[str, Any], pointer: str) -> None:
    asked = {"headers": ["id"], "part_count": 1, "part_size": 10, "table_name": "x"} | changed
    answer = server.ask("POST", f"{BASE}/uploads", {"data": {"type": "upload", "attributes": asked}})
    (error,) = refused(answer, 400)
    assert error["source"]["pointer"] == f"/data/attributes/{pointer}"


# creating


def test_a_table_as_created(server: Server) -> None:
    content = "Customer ID,Plan Type ,Seats\nc1,pro,5\nc2,free,\nc1,pro+,6\n"
    columns = {"Customer ID": "STRING", "Plan Type": "STRING", "Seats": "INT32"}
    id = make(server, "My  Table!", content, columns, description="what they pay", tags=["team:x", "b"])
    found = table(server, id)
    assert UUID(found["created_by"]) == UUID(found["last_updated_by"])
    times = {found.pop(name) for name in ("created_by", "last_updated_by", "updated_at")}
    assert len(times) == 2
    assert found == {
        "description": "what they pay",
        "row_count": 2,
        "schema": {
            "fields": [
                {"name": "customer_id", "type": "STRING"},
                {"name": "plan_type", "type": "STRING"},
                {"name": "seats", "type": "INT32"},
            ],
            "primary_keys": ["customer_id"],
        },
        "source": "LOCAL_FILE",
        "status": "DONE",
        "table_name": "my__table_",
        "tags": ["team:x", "b"],
    }
    assert rows(server, id) == {
        "c2": {"customer_id": "c2", "plan_type": "free"},
        "c1": {"customer_id": "c1", "plan_type": "pro+", "seats": 6},
    }, "of two rows with one key the last"
    refused(create(server, "MY__TABLE_", {"id": "STRING"}, upload(server, ["id"], "id\n")), 400, "exists", "table_name")
    drop(server, id)


@pytest.mark.parametrize(
    ("content", "columns", "words"),
    [
        ("id,n\na,1\nb,x\n", {"id": "STRING", "n": "INT32"}, ["line 3", "'n'"]),
        ("id,n\na,2147483648\n", {"id": "STRING", "n": "INT32"}, ["line 2", "'n'"]),
        ("id,n\na,1\n,2\n", {"id": "STRING", "n": "STRING"}, ["line 3", "'id'"]),
        ("id,n\na,1\nb\n", {"id": "STRING", "n": "STRING"}, ["line 3"]),
        ('id,n\na,"1\n', {"id": "STRING", "n": "STRING"}, ["line 2"]),
        ("id,n\na,1\n", {"id": "STRING", "m": "STRING"}, ["'m'", "id, n"]),
        ("", {"id": "STRING"}, ["empty"]),
    ],
)
def test_files_that_do_not_fit_are_refused(
    server: Server, content: str, columns: dict[str, str], words: list[str]
) -> None:
    headers = (content.split("\n", 1)[0] or "id").split(",")
    refused(create(server, "misfit", columns, upload(server, headers, content)), 400, *words)
    assert "misfit" not in listed(server, **{"page[limit]": 100}), "nothing is left behind"


@pytest.mark.parametrize(
    ("status", "changed", "words"),
    [
        (
            400,
            {"schema": {"fields": [{"name": "id", "type": "STRING"}], "primary_keys": ["di"]}},
            ["/primary_keys/0", "columns: id"],
        ),
        (
            400,
            {"schema": {"fields": [{"name": "id", "type": "DOUBLE"}], "primary_keys": ["id"]}},
            ["/schema/fields/0/type"],
        ),
        (400, {"schema": {"fields": [], "primary_keys": ["id"]}}, ["/schema/fields"]),
        (400, {"schema": {"fields": [{"name": "id", "type": "STRING"}], "primary_keys": []}}, ["/schema/primary_keys"]),
        (
            400,
            {"schema": {"fields": [{"name": "id", "type": "STRING"}], "primary_keys": ["a", "b"]}},
            ["/primary_keys"],
        ),
        (400, {"source": "PAPER"}, ["/data/attributes/source"]),
        (400, {"source": None}, ["/data/attributes/source"]),
        (400, {"table_name": "1234"}, ["/data/attributes/table_name"]),
        (400, {"table_name": "x" * 57}, ["/data/attributes/table_name", "56"]),
        (400, {"tags": "x"}, ["/data/attributes/tags"]),
        (400, {"file_metadata": {"upload_id": NOBODY}}, [NOBODY, "/file_metadata/upload_id"]),
        (400, {"file_metadata": {"upload_id": NOBODY, "more": 1}}, ["/file_metadata/more"]),
        (400, {"schema": {"fields": [{"name": "7", "type": "STRING"}], "primary_keys": ["7"]}}, ["/fields/0/name"]),
        (400, {"file_metadata": {"upload_id": NOBODY, "sync_enabled": True}}, ["/file_metadata/sync_enabled"]),
    ],
)
def test_refused_tables(server: Server, status: int, changed: dict[str, Any], words: list[str]) -> None:
    refused(create(server, "refused", {"id": "STRING"}, NOBODY, **changed), status, *words)


def test_the_signature_is_looked_at_before_the_body(server: Server) -> None:
    """A forged address is refused although not one byte of the body has come."""
    (url,) = start_upload(server, ["id"]).json()["data"]["attributes"]["part_urls"]
    path = f"{urlsplit(url).path}?{urlsplit(url).query}0"
    head = f"PUT {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 60000000\r\n\r\n"
    with socket.create_connection(("127.0.0.1", server.port), timeout=WAIT_S) as wire:
        wire.sendall(head.encode())
        assert wire.recv(65536).split(b" ")[1] == b"403"


def test_abandoned_uploads_are_swept(tmp_path: Path) -> None:
    with Server(tmp_path, upload_ttl_s="0.5") as server:
        data = start_upload(server, ["id"]).json()["data"]
        assert put_part(server, data["attributes"]["part_urls"][0], b"id\na\n").status == 200
        folder = tmp_path / "data" / "uploads" / data["id"]
        assert folder.is_dir()
        deadline_s = monotonic() + WAIT_S
        while folder.exists():
            assert monotonic() < deadline_s
            sleep(0.1)
            start_upload(server, ["id"])
        refused(create(server, "late", {"id": "STRING"}, data["id"]), 400, "unknown upload", "expired")
        (url,) = data["attributes"]["part_urls"]
        assert put_part(server, url, b"id\na\n").status == 403


def test_a_closed_request_takes_no_other_key(server: Server) -> None:
    body = {"data": {"type": "reference_table", "id": "x", "attributes": None}}
    refused(server.ask("POST", TABLES, body), 400, "/data/id")
    refused(server.ask("POST", f"{BASE}/uploads", {"data": {"type": "upload", "id": "x"}}), 400, "/data/id")


def test_one_name_many_creators(server: Server) -> None:
    """Ten make a table of one name at once, and two of them of one upload: one wins, nobody breaks."""
    uploads = [upload(server, ["id"], "id\na\n") for _ in range(9)]
    together = Barrier(10)

    def run(upload_id: str) -> Answered:
        together.wait(WAIT_S)
        return create(server, "contested", {"id": "STRING"}, upload_id)

    with ThreadPoolExecutor(10) as pool:
        answers = list(pool.map(run, [*uploads, uploads[0]]))
    (won,) = [a for a in answers if a.status == 201]
    assert sorted(a.status for a in answers) == [201] + [400] * 9
    assert listed(server, **{"filter[table_name][exact]": "contested"}) == ["contested"]
    drop(server, won.json()["data"]["id"])


def test_one_upload_many_tables(server: Server) -> None:
    upload_id, together = upload(server, ["id"], "id\na\n"), Barrier(6)

    def run(n: int) -> Answered:
        together.wait(WAIT_S)
        return create(server, f"shared_{'abcdef'[n]}", {"id": "STRING"}, upload_id)

    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(run, range(6)))
    assert {a.status for a in answers} <= {201, 400}
    made = [a.json()["data"]["id"] for a in answers if a.status == 201]
    assert made
    assert len(listed(server, **{"filter[table_name][contains]": "shared_"})) == len(made)
    for id in made:
        assert rows(server, id) == {"a": {"id": "a"}}
        drop(server, id)


# listing


def test_lists_are_sorted_filtered_and_paged(server: Server) -> None:
    names = [f"listed_{c}" for c in "dbace"]
    made = {name: make(server, name, "id\na\n") for name in names}
    here = {"filter[table_name][contains]": "listed_"}
    assert listed(server, **here) == names[::-1], "the latest change first"
    assert listed(server, **here, sort="updated_at") == names
    assert listed(server, **here, sort="table_name") == sorted(names)
    assert listed(server, **here, sort="-table_name") == sorted(names)[::-1]
    assert listed(server, **here, sort="status", **{"filter[status]": "DONE"}) != []
    assert listed(server, **here, **{"filter[status]": "ERROR"}) == []
    assert listed(server, **{"filter[table_name][exact]": "listed_a"}) == ["listed_a"]
    assert listed(server, **{"filter[table_name][exact]": "listed_"}) == []
    paged = [listed(server, **here, sort="table_name", **{"page[limit]": 2, "page[offset]": n}) for n in (0, 2, 4, 6)]
    assert paged == [["listed_a", "listed_b"], ["listed_c", "listed_d"], ["listed_e"], []]
    assert upsert(server, made["listed_b"], z={}).status == 200
    assert listed(server, **here)[0] == "listed_b"
    for id in made.values():
        drop(server, id)
    assert listed(server, **here) == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("page[limit]", "0"),
        ("page[limit]", "101"),
        ("page[limit]", "x"),
        ("page[limit]", ""),
        ("page[offset]", "-1"),
        ("page[offset]", "1e3"),
        ("sort", "name"),
        ("sort", "--status"),
    ],
)
def test_refused_lists(server: Server, name: str, value: str) -> None:
    (error,) = refused(server.ask("GET", f"{TABLES}?{urlencode({name: value})}"), 400)
    assert error["source"] == {"parameter": name}


def test_a_deleted_table_is_gone(server: Server, pets: str) -> None:
    drop(server, pets)
    for verb, tail in (("GET", ""), ("DELETE", ""), ("GET", "/rows?row_id=a"), ("GET", "/rows/list")):
        refused(server.ask(verb, f"{TABLES}/{pets}{tail}"), 404, "table not found")
    refused(upsert(server, pets, a={}), 404, "table not found")


# rows


def test_rows_by_id(server: Server, pets: str) -> None:
    answer = server.ask("GET", f"{TABLES}/{pets}/rows?row_id=c&row_id=zebra&row_id=a&row_id=a&row_id=A")
    check_shape(answer.json(), "TableRowResourceArray")
    assert answer.json() == {
        "data": [
            {"id": "c", "type": "row", "attributes": {"values": {"id": "c", "kind": "fish"}}},
            {"id": "a", "type": "row", "attributes": {"values": {"id": "a", "kind": "cat", "legs": 4}}},
        ],
        "meta": {"found_count": 2, "not_found": ["zebra", "A"], "requested_count": 4},
    }
    (error,) = refused(server.ask("GET", f"{TABLES}/{pets}/rows"), 400)
    assert error["source"] == {"parameter": "row_id"}


def test_a_batch_of_rows(server: Server, pets: str) -> None:
    answer = batch(server, pets, "c", "zebra", "a", "a")
    assert (answer.status, answer.headers["content-type"]) == (200, "application/json")
    check_shape(answer.json(), "BatchRowsQueryResponse")
    body = answer.json()
    assert UUID(body["data"].pop("id"))
    found = [{"id": "c", "type": "row"}, {"id": "a", "type": "row"}]
    assert body == {
        "data": {"type": "reference-tables-batch-rows-query", "relationships": {"rows": {"data": found}}},
        "included": [
            {"id": "c", "type": "row", "attributes": {"values": {"id": "c", "kind": "fish"}}},
            {"id": "a", "type": "row", "attributes": {"values": {"id": "a", "kind": "cat", "legs": 4}}},
        ],
    }
    nobody = batch(server, pets, "zebra").json()
    assert (nobody["data"]["relationships"]["rows"]["data"], nobody["included"]) == ([], [])
    assert batch(server, pets).json()["included"] == []
    path = f"{BASE}/queries/batch-rows"
    kind = "reference-tables-batch-rows-query"
    for data in (None, {"type": kind}, {"type": "row", "attributes": {"table_id": pets, "row_ids": []}}):
        refused(server.ask("POST", path, {"data": data}), 400, "/data")
    for attributes in ({"table_id": pets}, {"row_ids": []}, {"table_id": pets, "row_ids": [1]}):
        refused(server.ask("POST", path, {"data": {"type": kind, "attributes": attributes}}), 400, "/data/attributes/")


def test_row_ids_may_be_any_text(server: Server, pets: str) -> None:
    strange = ["a b", "a/b", "a+b", "a&b=c", "ä€😀", "'; DROP TABLE x;--", "%41", '"quoted"', "\t", "a" * 3000]
    taken = [id for id in strange if id.strip()]
    assert upsert(server, pets, **{id: {"kind": id} for id in taken}).status == 200
    for id in taken:
        for encoded in (quote(id, safe=""), urlencode({"": id})[1:]):
            (row,) = server.ask("GET", f"{TABLES}/{pets}/rows?row_id={encoded}").json()["data"]
            assert row == {"id": id, "type": "row", "attributes": {"values": {"id": id, "kind": id}}}
    refused(upsert(server, pets, **{"\t": {}}), 400, "/data/0/id")
    assert delete_rows(server, pets, *taken).status == 200
    assert rows(server, pets).keys() == {"a", "b", "c"}


def test_upserts_insert_and_update(server: Server, pets: str) -> None:
    before = table(server, pets)
    answer = upsert(server, pets, a={"legs": 3}, d={"kind": "spider", "legs": 8}, c={"kind": None}, b={})
    assert (answer.status, answer.body) == (200, b"")
    assert rows(server, pets) == {
        "a": {"id": "a", "kind": "cat", "legs": 3},
        "b": {"id": "b", "kind": "dog", "legs": 4},
        "c": {"id": "c"},
        "d": {"id": "d", "kind": "spider", "legs": 8},
    }
    after = table(server, pets)
    assert (before["row_count"], after["row_count"]) == (3, 4)
    assert after["updated_at"] >= before["updated_at"]
    assert upsert(server, pets, a={"id": "a", "legs": -(2**31)}).status == 200, "the key may be among the values"
    assert rows(server, pets)["a"]["legs"] == -(2**31)


@pytest.mark.parametrize(
    ("values", "pointer"),
    [
        ({"legs": 2.5}, "legs"),
        ({"legs": "4"}, "legs"),
        ({"legs": True}, "legs"),
        ({"legs": 2**31}, "legs"),
        ({"legs": {}}, "legs"),
        ({"legs": [4]}, "legs"),
        ({"kind": 1.0}, "kind"),
        ({"kind": {}}, "kind"),
        ({"kidn": "x"}, "kidn"),
        ({"id": "other"}, "id"),
        ({"a/b~c": 1}, "a~1b~0c"),
    ],
)
def test_refused_values_say_where(server: Server, pets: str, values: dict[str, Any], pointer: str) -> None:
    before = rows(server, pets)
    (error,) = refused(upsert(server, pets, a={"kind": "bird"}, zz=values), 400)
    assert error["source"]["pointer"] == f"/data/1/attributes/values/{pointer}"
    assert rows(server, pets) == before, "all rows or none"


def test_refused_row_requests(server: Server, pets: str) -> None:
    path = f"{TABLES}/{pets}/rows"
    twice = [{"id": "a", "type": "row", "attributes": {"values": {}}}] * 2
    refused(server.ask("POST", path, {"data": twice}), 400, "'a'", "/data/1/id")
    wrong: list[Any] = [None, {}, [1], [{"type": "row"}], [{"id": "a"}], [{"id": 1, "type": "row"}]]
    for data in [*wrong, [{"id": "a", "type": "rows"}]]:
        refused(server.ask("POST", path, {"data": data}), 400, "/data")
        refused(server.ask("DELETE", path, {"data": data}), 400, "/data")
    many = [{"id": str(i), "type": "row"} for i in range(20_972)]
    refused(server.ask("POST", path, {"data": many}), 400, "/data", "20971")
    large = [{"id": f"{i:060}", "type": "row"} for i in range(20_000)]
    refused(server.ask("POST", path, {"data": large}), 413, "rows_body_bytes_max")
    refused(server.ask("DELETE", path, {"data": large}), 413, "rows_body_bytes_max")
    assert rows(server, pets).keys() == {"a", "b", "c"}
    assert server.ask("POST", path, {"data": []}).status == 200


def test_as_many_rows_as_allowed(server: Server, pets: str) -> None:
    many = json.dumps({"data": [{"id": str(i), "type": "row"} for i in range(20_971)]}, separators=(",", ":")).encode()
    assert len(many) < 1_048_576
    assert server.ask("POST", f"{TABLES}/{pets}/rows", many).status == 200
    assert table(server, pets)["row_count"] == 20_974
    assert server.ask("DELETE", f"{TABLES}/{pets}/rows", many).status == 200
    assert rows(server, pets).keys() == {"a", "b", "c"}


def test_as_many_deletes_as_allowed(server: Server, pets: str) -> None:
    """One MiB holds just as many of the shortest; absent rows are no error."""
    many = json.dumps({"data": [{"id": "", "type": "row"}] * 45_589}, separators=(",", ":")).encode()
    assert 1_048_576 - 23 < len(many) <= 1_048_576
    assert server.ask("DELETE", f"{TABLES}/{pets}/rows", many).status == 200
    assert rows(server, pets).keys() == {"a", "b", "c"}
    refused(server.ask("DELETE", f"{TABLES}/{pets}/rows", many + b" " * 23), 413, "rows_body_bytes_max")


def test_too_many_rows_are_not_listed(server: Server, pets: str) -> None:
    """Ten million and one row, as far as our records know."""
    with closing(sqlite3.connect(server.folder / "data" / "roster.sqlite", timeout=WAIT_S)) as records, records:
        records.execute("UPDATE reference_tables SET row_count = 10000001 WHERE id = ?", [pets])
    refused(server.ask("GET", f"{TABLES}/{pets}/rows/list"), 400, "10,000,000", "get rows by their id")
    assert server.ask("GET", f"{TABLES}/{pets}/rows?row_id=a").json()["meta"]["found_count"] == 1
    assert upsert(server, pets, d={}).status == 200
    assert table(server, pets)["row_count"] == 4


def test_deleted_rows_are_gone_and_absent_ones_no_error(server: Server, pets: str) -> None:
    for _ in range(2):
        answer = delete_rows(server, pets, "a", "nobody", "c")
        assert (answer.status, answer.body) == (200, b"")
        assert rows(server, pets) == {"b": {"id": "b", "kind": "dog", "legs": 4}}
        assert table(server, pets)["row_count"] == 1


def test_integer_keys(server: Server) -> None:
    id = make(server, "numbered", "n,v\n007,x\n8,y\n", {"n": "INT32", "v": "STRING"})
    assert rows(server, id) == {"7": {"n": 7, "v": "x"}, "8": {"n": 8, "v": "y"}}
    assert upsert(server, id, **{"+8": {"v": "z"}}).status == 200
    assert rows(server, id)["8"]["v"] == "z"
    refused(upsert(server, id, eight={"v": "z"}), 400, "/data/0/id")
    refused(upsert(server, id, **{"3000000000": {"v": "z"}}), 400, "/data/0/id", "2147483647")
    found = server.ask("GET", f"{TABLES}/{id}/rows?row_id=%2B08&row_id=9").json()
    assert ([row["id"] for row in found["data"]], found["meta"]["not_found"]) == (["8"], ["9"])
    assert delete_rows(server, id, "007").status == 200
    assert set(rows(server, id)) == {"8"}
    drop(server, id)


def test_columns_may_have_any_letter_and_number(server: Server) -> None:
    id = make(
        server, "letters", "id,x1,h1,n\na,1,2,3\n", {"id": "STRING", "x1": "STRING", "h1": "STRING", "n": "STRING"}
    )
    assert upsert(server, id, a={"x1": "new"}, b={"h1": "more", "n": "5"}).status == 200
    assert rows(server, id) == {
        "a": {"id": "a", "x1": "new", "h1": "2", "n": "3"},
        "b": {"id": "b", "h1": "more", "n": "5"},
    }
    drop(server, id)


# pages


def test_pages_are_one_snapshot(server: Server) -> None:
    content = "id,n\n" + "".join(f"r{i:04},{i}\n" for i in range(250))
    id = make(server, "paged", content, {"id": "STRING", "n": "INT32"})
    first = read_page(server, f"{TABLES}/{id}/rows/list")
    assert first["links"]["first"] == first["links"]["self"] == f"{TABLES}/{id}/rows/list?page[limit]=100"
    assert first["meta"]["page"]["next_continuation_token"] in first["links"]["next"]
    assert upsert(server, id, r0150={"n": -1}, r9999={"n": 1}).status == 200
    assert delete_rows(server, id, "r0200", "r0001").status == 200
    token = quote(first["meta"]["page"]["next_continuation_token"])
    second = read_page(server, f"{TABLES}/{id}/rows/list?page%5Blimit%5D=75&page%5Bcontinuation_token%5D={token}")
    last = read_page(server, second["links"]["next"])
    assert "next" not in last["links"]
    assert "meta" not in last
    seen = [row for page in (first, second, last) for row in page["data"]]
    wanted = [(f"r{i:04}", {"id": f"r{i:04}", "n": i}) for i in range(250)]
    assert [(row["id"], row["attributes"]["values"]) for row in seen] == wanted
    assert read_page(server, second["links"]["self"])["data"] == second["data"], "a page read again is the same page"
    fresh = rows(server, id)
    assert (len(fresh), fresh["r0150"]["n"], "r0200" in fresh) == (249, -1, False)
    drop(server, id)


@pytest.mark.parametrize("token", ["x", "%00", "AAAA", "MS4x.Mg", "OTk5OS4w", "MS4tMQ", "LTEuLTE", "9" * 500, "4pyT"])
def test_tokens_that_are_none(server: Server, pets: str, token: str) -> None:
    answer = server.ask("GET", f"{TABLES}/{pets}/rows/list?page[continuation_token]={token}")
    if answer.status != 200:
        refused(answer, answer.status)
    assert answer.status in (200, 400, 409)


@pytest.mark.parametrize("limit", ["0", "1001", "-5", "many", "1.5"])
def test_limits_of_pages(server: Server, pets: str, limit: str) -> None:
    (error,) = refused(server.ask("GET", f"{TABLES}/{pets}/rows/list?page[limit]={limit}"), 400, "1000")
    assert error["source"] == {"parameter": "page[limit]"}


# with others at work


def test_many_writers_of_one_table(server: Server, pets: str) -> None:
    """Every row of everybody is there, and the counted rows are the rows."""
    together = Barrier(12)

    def run(n: int) -> list[int]:
        together.wait(WAIT_S)
        return [upsert(server, pets, **{f"w{n}.{i}": {"legs": i}, "shared": {"legs": n}}).status for i in range(5)]

    with ThreadPoolExecutor(12) as pool:
        statuses = [s for made in pool.map(run, range(12)) for s in made]
    assert statuses == [200] * 60
    found = rows(server, pets)
    assert found.keys() == {"a", "b", "c", "shared"} | {f"w{n}.{i}" for n in range(12) for i in range(5)}
    assert table(server, pets)["row_count"] == len(found)


def test_writers_of_a_table_that_is_deleted(server: Server, pets: str) -> None:
    together = Barrier(6)

    def write(n: int) -> list[int]:
        together.wait(WAIT_S)
        return [upsert(server, pets, **{f"w{n}.{i}": {"legs": i}}).status for i in range(10)]

    with ThreadPoolExecutor(6) as pool:
        writers = [pool.submit(write, n) for n in range(5)]
        together.wait(WAIT_S)
        drop(server, pets)
        statuses = [s for writer in writers for s in writer.result(WAIT_S)]
    assert set(statuses) <= {200, 404}
    assert statuses.count(404) >= 5
    refused(server.ask("GET", f"{TABLES}/{pets}/rows/list"), 404)


def test_values_reach_queries_at_once(server: Server, pets: str) -> None:
    """A row written is a row seen by the very next query, in lists, searches and facets."""
    event = {"type": "server", "application": {"id": "x"}, "event": {"name": "e"}, "usr": {"id": "owner-of-a-pet"}}
    assert server.ask("POST", "/api/v2/prodlytics", event).status == 202
    field = {"id": "pet_kind", "source_name": "kind", "type": "string"}
    attributes = {"type": "ref_table", "join_type": "user_id", "join_attribute": "id", "fields": [field]}
    body = {"data": {"type": "connection_id", "id": "pets", "attributes": attributes}}
    audience = "/api/v2/product-analytics/users"
    assert server.ask("POST", f"{audience}/mapping/connection", body).status == 201

    def kinds(query: str) -> list[Any]:
        asked = {"query": query, "select_columns": ["@pet_kind"]}
        answer = server.ask("POST", f"{audience}/query", {"data": {"type": "query_users_request", "attributes": asked}})
        return [hit["@pet_kind"] for hit in answer.json()["data"]["attributes"]["hits"]]

    deadline_s = monotonic() + WAIT_S
    while kinds("user_id:owner-of-a-pet") != [None]:
        assert monotonic() < deadline_s
        sleep(0.05)
    for n in range(10):
        assert upsert(server, pets, **{"owner-of-a-pet": {"kind": f"kind {n}"}}).status == 200
        assert kinds("user_id:owner-of-a-pet") == [f"kind {n}"]
        assert kinds(f'pet_kind:"kind {n}"') == [f"kind {n}"]
    assert delete_rows(server, pets, "owner-of-a-pet").status == 200
    assert kinds("user_id:owner-of-a-pet") == [None]
    assert kinds("pet_kind:*") == []
    assert server.ask("DELETE", f"{audience}/mapping/connection/pets").status == 204
