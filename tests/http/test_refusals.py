"""Requests that once slipped through: each is refused whole, and says why."""

from __future__ import annotations

import base64
import gzip
import json

from servers import Server

EVENT = {"type": "server", "application": {"id": "a"}, "event": {"name": "n"}, "usr": {"id": "refused"}}


def test_a_second_gzip_member_is_not_lost_in_silence(server: Server) -> None:
    member = gzip.compress(json.dumps(EVENT).encode())
    answer = server.ask("POST", "/api/v2/prodlytics", member + member, headers={"Content-Encoding": "gzip"})
    assert answer.status == 400
    assert "bytes follow" in answer.json()["errors"][0]["detail"]
    assert server.ask("POST", "/api/v2/prodlytics", member, headers={"Content-Encoding": "gzip"}).status == 202


def test_too_many_columns_are_refused_before_any_work(server: Server) -> None:
    attributes = {"select_columns": [f"c{n}" for n in range(1001)]}
    body = {"data": {"type": "query_users_request", "attributes": attributes}}
    answer = server.ask("POST", "/api/v2/product-analytics/users/query", body)
    assert answer.status == 400
    assert "at most 1000" in answer.json()["errors"][0]


def test_a_page_token_out_of_range_is_no_token(server: Server) -> None:
    body = {
        "type": "upload",
        "attributes": {"headers": ["id"], "part_count": 1, "part_size": 10, "table_name": "tokens"},
    }
    upload = server.ask("POST", "/api/v2/reference-tables/uploads", {"data": body}).json()["data"]
    path = upload["attributes"]["part_urls"][0].removeprefix(server.url)
    assert server.ask("PUT", path, b"id\n1\n", keys=False).status == 200
    schema = {"fields": [{"name": "id", "type": "STRING"}], "primary_keys": ["id"]}
    table = {
        "table_name": "tokens",
        "source": "LOCAL_FILE",
        "schema": schema,
        "file_metadata": {"upload_id": upload["id"]},
    }
    made = server.ask(
        "POST", "/api/v2/reference-tables/tables", {"data": {"type": "reference_table", "attributes": table}}
    )
    id = made.json()["data"]["id"]
    token = base64.urlsafe_b64encode(b"9" * 45 + b".1").decode().rstrip("=")
    answer = server.ask("GET", f"/api/v2/reference-tables/tables/{id}/rows/list?page[continuation_token]={token}")
    assert answer.status == 400
    assert server.ask("DELETE", f"/api/v2/reference-tables/tables/{id}").status == 200
