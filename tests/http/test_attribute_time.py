"""`attribute_time` over HTTP: users by what an attribute was when their event happened, for tables and for sources."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic, sleep, time
from typing import Any
from urllib.parse import quote

import pytest

from servers import Answered, Server
from tables import delete_rows, make, patch, upload, upsert

pytestmark = pytest.mark.xdist_group("attribute_time")

WAIT_S = 60.0
BASE = "/api/v2/product-analytics/users"
LATER_MS = 4_000_000_000_000
USERS = ("ann", "bob")
FILE = "people.csv"


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Server]:
    """Two users, each with an event far in the future, which sees what is present."""
    folder = tmp_path / "files"
    folder.mkdir()
    with Server(tmp_path, source_folders=json.dumps([str(folder)])) as server:
        send(server, "later", LATER_MS)
        yield server


def send(server: Server, name: str, date_ms: int) -> None:
    """An event of that name for each user, at a time."""
    events = [
        {
            "type": "server",
            "application": {"id": "shop"},
            "date": date_ms,
            "event": {"name": name, "id": f"{user}-{name}"},
            "usr": {"id": user, "email": f"{user}@x.org"},
        }
        for user in USERS
    ]
    assert server.ask("POST", "/api/v2/prodlytics", events).status == 202


def connect(server: Server, id: str, type: str, metadata: dict[str, str], *fields: str) -> None:
    attributes = {
        "type": type,
        "join_type": "email",
        "join_attribute": "email",
        "metadata": metadata,
        "fields": [{"id": f, "source_name": f.split("_")[-1], "type": "string"} for f in fields],
    }
    body = {"data": {"type": "connection_id", "id": id, "attributes": attributes}}
    answer = server.ask("POST", f"{BASE}/mapping/connection", body)
    assert answer.status == 201, answer.body


def ask(server: Server, query: str, time: str = "event") -> Answered:
    attributes = {"event_query": {"query": query}, "select_columns": ["user_id"]}
    body = {"data": {"type": "query_event_filtered_users_request", "attributes": attributes}}
    return server.ask("POST", f"{BASE}/event_filtered_query?attribute_time={quote(time)}", body)


def found(server: Server, query: str, time: str = "event") -> list[str]:
    answer = ask(server, query, time)
    assert answer.status == 200, answer.body
    return sorted(hit["user_id"] for hit in answer.json()["data"]["attributes"]["hits"])


def wait(until: Callable[[], bool]) -> None:
    deadline_s = monotonic() + WAIT_S
    while not until():
        assert monotonic() < deadline_s
        sleep(0.02)


def mark(server: Server, name: str) -> None:
    """Events of this moment, at least some milliseconds away from any change."""
    sleep(0.01)
    send(server, name, int(time() * 1000))
    sleep(0.01)
    wait(lambda: len(found(server, f"@event.name:{name}")) == len(USERS))


def test_a_reference_table_and_every_way_to_change_it(shop: Server) -> None:
    id = make(shop, "crm", "email,tier\nann@x.org,gold\nBob@x.org ,gold\n")
    connect(shop, "crm", "ref_table", {"table_name": "crm", "history": "true"}, "tier")
    wait(lambda: found(shop, "@event.name:later AND @tier:gold") == ["ann", "bob"])
    mark(shop, "one")
    assert upsert(shop, id, **{"ann@x.org": {"tier": "silver"}}).status == 200
    mark(shop, "two")
    assert delete_rows(shop, id, "ann@x.org").status == 200
    mark(shop, "three")
    content = "email,tier\nann@x.org,bronze\nBob@x.org ,gold\n"
    replaced = patch(shop, id, file_metadata={"upload_id": upload(shop, ["email", "tier"], content)})
    assert replaced.status == 200, replaced.body
    mark(shop, "four")
    for name, ann in (("one", "gold"), ("two", "silver"), ("four", "bronze"), ("later", "bronze")):
        assert "ann" in found(shop, f"@event.name:{name} AND @tier:{ann}"), name
    assert found(shop, "@event.name:three AND @tier:*") == ["bob"]
    assert found(shop, "@tier:gold AND NOT @event.name:later") == ["ann", "bob"]
    assert found(shop, "@tier:gold", "now") == ["bob"]
    assert found(shop, "@event.name:one AND @tier:bronze", "now") == ["ann"]
    shop.kill()
    shop.start()
    assert found(shop, "@event.name:two AND @tier:silver") == ["ann"]


def test_an_outside_source(shop: Server) -> None:
    path = shop.folder / "files" / FILE
    path.write_text("email,tier\nann@x.org,gold\nbob@x.org,gold\n")
    metadata = {"path": str(path), "key": "email", "every": "off", "history": "true"}
    connect(shop, "files", "file", metadata, "tier")
    wait(lambda: found(shop, "@event.name:later AND @tier:gold") == ["ann", "bob"])
    mark(shop, "one")
    path.write_text("email,tier\nann@x.org,silver\nbob@x.org,gold\n")
    source = shop.ask("GET", "/api/roster/sources").json()["data"][0]["id"]
    assert shop.ask("POST", f"/api/roster/sources/{source}/sync").status == 202
    wait(lambda: found(shop, "@event.name:later AND @tier:silver") == ["ann"])
    assert found(shop, "@event.name:one AND @tier:gold") == ["ann", "bob"]
    assert found(shop, "@event.name:one AND @tier:silver") == []
    assert found(shop, "@event.name:one AND @tier:silver", "now") == ["ann"]


def test_what_is_refused(shop: Server) -> None:
    make(shop, "crm", "email,tier\nann@x.org,gold\n")
    make(shop, "plain", "email,plan\nann@x.org,free\n")
    connect(shop, "crm", "ref_table", {"table_name": "crm", "history": "true"}, "tier")
    connect(shop, "plain", "ref_table", {"table_name": "plain"}, "plan")
    refused: dict[str, Any] = {
        "@tier:gold OR @plan:free": ("event", "@plan", "`history` to `true`", "plain"),
        "@tier:gold": ("then", "attribute_time is 'then'", "allowed: now, event"),
    }
    for query, (when, *words) in refused.items():
        answer = ask(shop, query, when)
        assert answer.status == 400
        assert [w for w in words if w not in answer.body.decode()] == [], answer.body
    assert "@tier" not in ask(shop, "@plan:free").body.decode()
    wait(lambda: found(shop, "@event.name:later") == ["ann", "bob"])  # without custom attributes no history is needed
    assert found(shop, "@plan:free", "now") == ["ann"]
