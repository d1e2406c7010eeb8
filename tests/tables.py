"""Makes, reads and changes reference tables over HTTP for tests, each answer checked against the contract."""

from __future__ import annotations

import json
from collections.abc import Mapping as Map
from importlib.resources import files
from typing import Any
from urllib.parse import urlencode

from jsonschema import Draft202012Validator, FormatChecker

from servers import Answered, Server

BASE = "/api/v2/reference-tables"
TABLES = f"{BASE}/tables"
NOBODY = "00000000-0000-0000-0000-000000000000"
CONTRACT = json.loads(files("roster.http").joinpath("contract.json").read_text("utf-8"))


def check_shape(body: Any, schema: str) -> None:
    """The body is what the contract says; most objects here take no further key."""
    whole = {"$ref": f"#/components/schemas/{schema}", "components": CONTRACT["components"]}
    Draft202012Validator(whole, format_checker=FormatChecker()).validate(body)


def refused(answer: Answered, status: int, *words: str) -> list[dict[str, Any]]:
    """Refused in the recorded form: a 400 has a generic title and no status, others have both."""
    assert (answer.status, answer.headers["content-type"]) == (status, "application/vnd.api+json"), answer
    body = answer.json()
    check_shape(body, "JSONAPIErrorResponse")
    errors: list[dict[str, Any]] = body["errors"]
    if status == 400:
        assert all("status" not in e and e["title"] == "Generic Error" for e in errors)
    else:
        assert all(e["status"] == str(status) for e in errors)
    text = json.dumps(errors)
    assert [w for w in words if w not in text] == [], text
    return errors


def start_upload(
    server: Server, headers: list[str], parts: int = 1, size: int = 5_000_000, name: str = "x"
) -> Answered:
    asked = {"headers": headers, "part_count": parts, "part_size": size, "table_name": name}
    return server.ask("POST", f"{BASE}/uploads", {"data": {"type": "upload", "attributes": asked}})


def put_part(server: Server, url: str, content: bytes) -> Answered:
    return server.ask("PUT", url.removeprefix(server.url), content, keys=False)


def upload(server: Server, headers: list[str], *parts: str) -> str:
    """The id of a finished upload."""
    started = start_upload(server, headers, len(parts))
    assert started.status == 201, started.body
    check_shape(started.json(), "CreateUploadResponse")
    data = started.json()["data"]
    assert len(data["attributes"]["part_urls"]) == len(parts)
    for url, part in zip(data["attributes"]["part_urls"], parts, strict=True):
        assert url.startswith(server.url)
        put = put_part(server, url, part.encode())
        assert (put.status, put.body) == (200, b"")
        assert put.headers["etag"]
    return str(data["id"])


def create(server: Server, name: str, columns: Map[str, str], upload_id: str | None, **changed: Any) -> Answered:
    fields = [{"name": n, "type": t} for n, t in columns.items()]
    attributes = {
        "table_name": name,
        "source": "LOCAL_FILE",
        "schema": {"fields": fields, "primary_keys": [next(iter(columns))]},
    }
    attributes |= {"file_metadata": {"upload_id": upload_id}} if upload_id else {}
    return server.ask("POST", TABLES, {"data": {"type": "reference_table", "attributes": attributes | changed}})


def make(server: Server, name: str, content: str, columns: Map[str, str] | None = None, **changed: Any) -> str:
    """The id of a table of that content."""
    headers = content.split("\n", 1)[0].split(",")
    made = create(
        server, name, columns or dict.fromkeys(headers, "STRING"), upload(server, headers, content), **changed
    )
    assert made.status == 201, made.body
    check_shape(made.json(), "TableResultV2")
    return str(made.json()["data"]["id"])


def drop(server: Server, id: str) -> None:
    answer = server.ask("DELETE", f"{TABLES}/{id}")
    assert (answer.status, answer.body) == (200, b"")


def table(server: Server, id: str) -> dict[str, Any]:
    answer = server.ask("GET", f"{TABLES}/{id}")
    assert answer.status == 200, answer.body
    check_shape(answer.json(), "TableResultV2")
    attributes: dict[str, Any] = answer.json()["data"]["attributes"]
    return attributes


def listed(server: Server, **parameters: Any) -> list[str]:
    answer = server.ask("GET", f"{TABLES}?{urlencode(parameters)}")
    assert answer.status == 200, answer.body
    check_shape(answer.json(), "TableResultV2Array")
    return [t["attributes"]["table_name"] for t in answer.json()["data"]]


def rows(server: Server, id: str) -> dict[str, dict[str, Any]]:
    """All rows, page by page."""
    found: dict[str, dict[str, Any]] = {}
    path = f"{TABLES}/{id}/rows/list"
    while path:
        page = read_page(server, path)
        found |= {row["id"]: row["attributes"]["values"] for row in page["data"]}
        path = page["links"].get("next", "")
    return found


def read_page(server: Server, path: str) -> dict[str, Any]:
    answer = server.ask("GET", path)
    assert answer.status == 200, answer.body
    check_shape(answer.json(), "ListRowsResponse")
    body: dict[str, Any] = answer.json()
    return body


def upsert(server: Server, id: str, **values: dict[str, Any]) -> Answered:
    data = [{"id": row, "type": "row", "attributes": {"values": v}} for row, v in values.items()]
    return server.ask("POST", f"{TABLES}/{id}/rows", {"data": data})


def delete_rows(server: Server, id: str, *ids: str) -> Answered:
    return server.ask("DELETE", f"{TABLES}/{id}/rows", {"data": [{"id": row, "type": "row"} for row in ids]})


def patch(server: Server, id: str, **attributes: Any) -> Answered:
    body = {"data": {"type": "reference_table", "attributes": attributes}}
    return server.ask("PATCH", f"{TABLES}/{id}", body)


def batch(server: Server, id: str, *ids: str) -> Answered:
    attributes = {"table_id": id, "row_ids": list(ids)}
    body = {"data": {"type": "reference-tables-batch-rows-query", "attributes": attributes}}
    return server.ask("POST", f"{BASE}/queries/batch-rows", body)
