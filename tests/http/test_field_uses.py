"""Who uses a field over HTTP: segments, saved queries and callers, by which id; kept over a restart."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from time import sleep
from typing import Any

import pytest

from roster.main import SystemClock, open_store
from roster.model.schema import Entity
from servers import Server

pytestmark = pytest.mark.xdist_group("field_uses")

BASE = "/api/v2/product-analytics"
CONNECTION = f"{BASE}/users/mapping/connection"
QUERY = f"{BASE}/users/query"
NEVER = "9999"
"""Seconds between two writes: only the end of the server writes."""


def build(folder: Path, **settings: str) -> Server:
    """A server that is not started: four users with a tier and a score."""
    server = Server(folder, **settings)
    people = folder / "people.ndjson"
    people.write_text(
        "".join(
            json.dumps({"type": "view", "date": 1_760_000_000_000 + i, "view": {"id": f"v{i}"}, "usr": {"id": f"u{i}"}})
            + "\n"
            for i in range(4)
        )
    )
    crm = folder / "crm.csv"
    crm.write_text("user_id,tier,score\n" + "".join(f"u{i},{'gold' if i < 2 else 'silver'},{i}\n" for i in range(4)))
    server.cli("load", str(people))
    server.cli("table", "load", str(crm), "--name", "crm", "--key", "user_id")
    return server


def connect(server: Server) -> None:
    fields = [{"id": id, "source_name": id, "type": type} for id, type in (("tier", "string"), ("score", "number"))]
    attributes = {"type": "ref_table", "join_type": "user_id", "join_attribute": "user_id", "fields": fields}
    assert server.ask("POST", CONNECTION, {"data": {"type": "connection_id", "id": "crm", "attributes": attributes}})


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with build(tmp_path_factory.mktemp("uses")) as server:
        connect(server)
        yield server


def rename(server: Server, old: str, new: str) -> None:
    attributes = {"fields_to_update": [{"field_id": old, "updated_field_id": new}]}
    body = {"data": {"type": "connection_id", "id": "crm", "attributes": attributes}}
    assert server.ask("PUT", CONNECTION, body).status == 200


def query(server: Server, parameters: str = "", **attributes: Any) -> Any:
    body = {"data": {"type": "query_users_request", "attributes": attributes}}
    return server.ask("POST", QUERY + parameters, body)


def uses(server: Server, id: str) -> dict[str, Any]:
    answer = server.ask("GET", f"/api/roster/users/fields/{id}/uses")
    assert answer.status == 200, answer.body
    found: dict[str, Any] = answer.json()["data"]["attributes"]
    return found


def callers(server: Server, id: str) -> dict[tuple[str, str, bool], int]:
    return {(c["operation"], c["by"], c["old_id"]): c["count"] for c in uses(server, id)["callers"]}


def aliases(server: Server) -> str:
    listed = server.ask("GET", f"{BASE}/users/mapping/connections").json()["data"]["attributes"]["connections"]
    return str(listed[0]["metadata"].get("roster_aliases", ""))


def test_every_place_of_a_query_counts_once(shop: Server) -> None:
    assert callers(shop, "score") == {}
    before = uses(shop, "tier")
    assert (before["segments"], before["queries"], before["callers"], before["old_ids"]) == ([], [], [], [])
    assert query(shop, query="@tier:gold tier:g*", select_columns=["user_id", "tier", "@tier"]).status == 200
    assert query(shop, sort={"field": "score"}).status == 200
    assert query(shop, query="score:>1", select_columns=["@score"]).status == 200
    assert query(shop, "?explain=true", query="tier:gold").status == 200
    assert query(shop, query="tier:(").status == 400
    assert query(shop, wildcard_search_term="tier", query="name:tier").status == 200
    assert callers(shop, "tier") == {("QueryUsers", "tier", False): 1}
    assert callers(shop, "@score") == {("QueryUsers", "score", False): 2}
    events = {"event_query": {"query": "@tier:gold"}, "select_columns": ["@score"]}
    body = {"data": {"type": "query_event_filtered_users_request", "attributes": events}}
    assert shop.ask("POST", f"{BASE}/users/event_filtered_query", body).status == 200
    facet = {"facet_id": "@tier", "limit": 2, "search": {"query": "score:1"}}
    body = {"data": {"type": "users_facet_info_request", "attributes": facet}}
    assert shop.ask("POST", f"{BASE}/users/facet_info", body).status == 200
    for id in ("tier", "score"):
        found = callers(shop, id)
        assert found["QueryEventFilteredUsers", id, False] == found["GetUserFacetInfo", id, False] == 1
    (caller,) = {(c["caller"], c["key"]) for c in uses(shop, "tier")["callers"]}
    assert caller[1] == "test"
    assert shop.app_key not in json.dumps(uses(shop, "tier"))


def test_a_rename_shows_who_still_spells_the_old_id(shop: Server) -> None:
    segment = {"name": "gold", "data_query": {"profiles": [{"name": "a", "query": "tier:gold AND score:>0"}]}}
    made = shop.ask("POST", "/api/v2/rum/segment", {"data": {"type": "segment", "attributes": segment}})
    id = made.json()["data"]["id"]
    body = {"data": {"type": "query_users_request", "attributes": {"select_columns": ["@tier", "user_id"]}}}
    saved = {"data": {"type": "saved_query", "attributes": {"operation": "QueryUsers", "body": body}}}
    assert shop.ask("PUT", "/api/roster/queries/tiers", saved).status == 200
    before = uses(shop, "tier")
    assert before["segments"] == [{"id": id, "name": "gold", "by": ["tier"], "old_id": False}]
    assert before["queries"] == [{"name": "tiers", "operation": "QueryUsers", "by": ["tier"], "old_id": False}]
    assert uses(shop, "score")["segments"] == [{"id": id, "name": "gold", "by": ["score"], "old_id": False}]
    assert uses(shop, "score")["queries"] == []
    rename(shop, "tier", "level")
    assert aliases(shop) == "tier -> level (not used)"
    after = uses(shop, "tier")
    assert (after["field"], uses(shop, "level")) == ("level", after)
    assert [(s["by"], s["old_id"]) for s in (*after["segments"], *after["queries"])] == [(["tier"], True)] * 2
    assert after["callers"] == before["callers"], "who used it before is told, and used no old id then"
    assert [(o["old_id"], o["count"], o["last_at"]) for o in after["old_ids"]] == [("tier", 0, None)]
    assert shop.ask("POST", "/api/roster/queries/tiers/run").status == 200
    assert query(shop, query="level:gold").status == 200
    found = callers(shop, "level")
    assert (found["QueryUsers", "tier", True], found["QueryUsers", "level", False]) == (1, 1)
    (old,) = uses(shop, "level")["old_ids"]
    assert old["count"] == 1
    assert aliases(shop) == f"tier -> level (used 1 time, last {old['last_at']})"
    rename(shop, "level", "tier")
    assert query(shop, query="level:gold tier:gold").status == 200
    assert aliases(shop).startswith("level -> tier (used 1 time, last ")
    assert shop.ask("DELETE", "/api/roster/queries/tiers").status == 204


def test_a_segment_of_users_uses_a_field_of_accounts(shop: Server) -> None:
    """A field that waits for its table is one already."""
    fields = [{"id": "size", "source_name": "size", "type": "string"}]
    attributes = {"type": "ref_table", "join_type": "account_id", "join_attribute": "id", "fields": fields}
    body = {"data": {"type": "connection_id", "id": "firms", "attributes": attributes}}
    assert shop.ask("POST", f"{BASE}/accounts/mapping/connection", body).status == 201
    segment = {"name": "big", "data_query": {"accounts": [{"name": "a", "query": "size:big"}]}}
    made = shop.ask("POST", "/api/v2/rum/segment", {"data": {"type": "segment", "attributes": segment}})
    assert made.status == 201, made.body
    told = shop.ask("GET", "/api/roster/accounts/fields/size/uses").json()["data"]["attributes"]
    assert [(s["name"], s["by"]) for s in told["segments"]] == [("big", ["size"])]


def test_only_fields_have_uses(shop: Server) -> None:
    for id, said in (("teir", "did you mean 'tier'?"), ("user_id", "GetMapping"), ("x", "GetMapping")):
        answer = shop.ask("GET", f"/api/roster/users/fields/{id}/uses")
        assert answer.status == 404
        assert said in answer.json()["errors"][0]
    assert shop.ask("GET", "/api/roster/people/fields/tier/uses").status == 400


def test_uses_survive_a_restart(tmp_path: Path) -> None:
    with build(tmp_path, uses_flush_s=NEVER) as server:
        connect(server)
        rename(server, "tier", "level")
        for _ in range(3):
            assert query(server, query="tier:gold").status == 200
        found, told = uses(server, "level"), aliases(server)
        assert callers(server, "level") == {("QueryUsers", "tier", True): 3}
        server.stop()
        server.start()
        assert (uses(server, "level"), aliases(server)) == (found, told)


def test_uses_are_written_now_and_then(tmp_path: Path) -> None:
    """A crash loses those since the last write, and no more."""
    with build(tmp_path, uses_flush_s="0.05") as server:
        connect(server)
        assert query(server, query="tier:gold").status == 200
        wait_until_written(server)
        server.kill()
        server.start()
        assert callers(server, "tier") == {("QueryUsers", "tier", False): 1}


def wait_until_written(server: Server) -> None:
    store = open_store(server.folder / "data", SystemClock())
    try:
        while not store.list_uses(Entity.USERS):
            sleep(0.02)
    finally:
        store.close()
