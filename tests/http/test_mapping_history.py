"""The history of a mapping over HTTP and on the command line: versions in pages, diff, undo, reads as of a version."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from copy import copy
from pathlib import Path
from shutil import copytree
from typing import Any

import pytest

from servers import Answered, Server, free_port

pytestmark = pytest.mark.xdist_group("mapping_history")

BASE = "/api/v2/product-analytics"
USERS = f"{BASE}/users/mapping"
TIER = {"id": "tier", "source_name": "tier", "type": "string"}
SCORE = {"id": "score", "source_name": "score", "type": "number"}
NO_LIMITS = json.dumps(dict.fromkeys(("audience_read", "audience_write"), "9999999/minute"))


def build(folder: Path) -> Server:
    """A server that is not started: four users of two accounts, with a tier and a score."""
    server = Server(folder, rate_limits=NO_LIMITS)
    lines = [
        {
            "type": "view",
            "date": 1_760_000_000_000 + i,
            "view": {"id": f"v{i}"},
            "usr": {"id": f"u{i}"},
            "account": {"id": f"a{i % 2}"},
        }
        for i in range(4)
    ]
    (folder / "people.ndjson").write_text("".join(json.dumps(line) + "\n" for line in lines))
    crm = folder / "crm.csv"
    crm.write_text("user_id,tier,score\n" + "".join(f"u{i},{'gold' if i < 2 else 'silver'},{i}\n" for i in range(4)))
    server.cli("load", "people.ndjson")
    server.cli("table", "load", "crm.csv", "--name", "crm", "--key", "user_id")
    return server


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Server:
    """Version 1 has a tier, version 2 a score too, version 3 calls the tier plan; the server has stopped."""
    with build(tmp_path_factory.mktemp("mapping_history")) as server:
        create(server, [TIER])
        update(server, reason="more", fields_to_add=[SCORE])
        update(server, fields_to_update=[{"field_id": "tier", "updated_field_id": "plan"}])
    return server


@pytest.fixture(scope="module")
def still(made: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """For tests that change nothing."""
    with again(made, tmp_path_factory.mktemp("still")) as server:
        yield server


@pytest.fixture
def shop(made: Server, tmp_path: Path) -> Iterator[Server]:
    """For one test that changes it."""
    with again(made, tmp_path) as server:
        yield server


def again(made: Server, folder: Path) -> Server:
    """Another server on a copy of the data, with the same keys."""
    copytree(made.folder / "data", folder / "data")
    server = copy(made)
    server.folder, server.process, server.port = folder, None, free_port()
    server.url = f"http://127.0.0.1:{server.port}"
    server.env = made.env | {"ROSTER_DATA": str(folder / "data"), "ROSTER_PORT": str(server.port)}
    return server


def create(server: Server, fields: list[dict[str, Any]], entity: str = "users") -> None:
    key = {"users": "user_id", "accounts": "account_id"}[entity]
    attributes = {"type": "ref_table", "join_type": key, "join_attribute": "user_id", "fields": fields}
    body = {"data": {"type": "connection_id", "id": "crm", "attributes": attributes}}
    assert server.ask("POST", f"{BASE}/{entity}/mapping/connection", body).status == 201


def update(server: Server, reason: str = "", **attributes: Any) -> None:
    body = {"data": {"type": "connection_id", "id": "crm", "attributes": attributes}}
    headers = {"X-Roster-Reason": reason} if reason else {}
    assert server.ask("PUT", f"{USERS}/connection", body, headers=headers).status == 200


def undo(server: Server, query: str = "", **headers: str) -> Answered:
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    return server.ask("POST", f"{USERS}/undo{query}", headers=sent)


def told(answer: Answered) -> Any:
    assert answer.status == 200, answer
    return answer.json()["data"]["attributes"]


def read(server: Server) -> tuple[bytes, bytes]:
    """What readers see of the mapping, byte for byte."""
    return server.ask("GET", USERS).body, server.ask("GET", f"{USERS}/connections").body


def customs(server: Server, query: str = "") -> list[str]:
    shown = told(server.ask("GET", f"{USERS}{query}"))["attributes"]
    return [a["attribute"] for a in shown if a["is_custom"]]


def users(server: Server, search: str, *names: str, query: str = "") -> Answered:
    attributes = {"query": search, "select_columns": ["user_id", *names]}
    body = {"data": {"type": "query_users_request", "attributes": attributes}}
    return server.ask("POST", f"{BASE}/users/query{query}", body)


def test_undo_brings_back_what_was_read_before(shop: Server) -> None:
    now = read(shop)
    update(shop, fields_to_delete=["plan"])
    assert read(shop) != now
    answer = undo(shop, X_Roster_Reason="too early")
    assert answer.headers["etag"] == '"5"'
    body = answer.json()["data"]
    assert (body["id"], body["type"]) == ("users", "mapping_undone")
    assert (body["attributes"]["version"], body["attributes"]["restores"]) == (5, 3)
    assert [d["at"] for d in body["attributes"]["diff"]] == ["/connections/crm/fields/plan", "/aliases/tier"]
    assert read(shop) == now
    newest = told(shop.ask("GET", f"{USERS}/versions"))["versions"][0]
    assert (newest["version"], newest["restores"], newest["why"]) == (5, 3, "too early")
    assert newest["request"] == {"undo": {}}
    assert newest["diff"] == body["attributes"]["diff"]
    assert told(users(shop, "plan:gold", "plan"))["total"] == 2


def test_undo_walks_back_to_nothing_and_not_further(shop: Server) -> None:
    assert [told(undo(shop))["restores"] for _ in range(3)] == [2, 1, 0]
    assert customs(shop) == []
    refused = undo(shop)
    assert refused.status == 409
    assert "nothing is left to undo" in refused.json()["errors"][0]
    assert told(undo(shop, "?to=3"))["version"] == 7
    assert customs(shop) == ["@plan", "@score"]


def test_a_version_brought_back_twice_is_one_version(shop: Server) -> None:
    first, again = undo(shop, "?to=1"), undo(shop, "?to=1")
    assert (told(first)["version"], told(again)["version"]) == (4, 4)
    assert (told(again)["restores"], told(again)["diff"]) == (1, [])
    assert customs(shop) == ["@tier"]


def test_an_undo_is_for_the_version_it_names(shop: Server) -> None:
    assert undo(shop, If_Match='"3"').status == 200
    retried = undo(shop, If_Match='"3"')  # as a client does whose answer was lost
    assert retried.status == 412
    assert customs(shop) == ["@tier", "@score"]
    assert undo(shop, "?to=2", If_Match='"3"').status == 200  # that is what is there


def test_an_undo_can_be_looked_at_first(still: Server) -> None:
    before = read(still)
    preview = told(undo(still, "?dry_run=true"))
    assert preview["version"] == {"now": 3, "next": 4}
    assert [s["step"] for s in preview["steps"]] == ["rename_field"]
    assert read(still) == before


def test_versions_that_never_were_and_bad_numbers_are_refused(still: Server) -> None:
    query = {"data": {"type": "query_users_request", "attributes": {}}}
    facet = {"data": {"type": "users_facet_info_request", "attributes": {"facet_id": "user_id", "limit": 1}}}
    accounts = {"data": {"type": "query_account_request", "attributes": {}}}
    events = {"data": {"type": "query_event_filtered_users_request", "attributes": {}}}
    asked = [
        ("POST", f"{USERS}/undo", "to", None),
        ("GET", USERS, "version", None),
        ("GET", f"{USERS}/connections", "version", None),
        ("GET", f"{USERS}/diff", "from", None),
        ("GET", f"{USERS}/diff", "to", None),
        ("POST", f"{BASE}/users/query", "mapping_version", query),
        ("POST", f"{BASE}/accounts/query", "mapping_version", accounts),
        ("POST", f"{BASE}/users/event_filtered_query", "mapping_version", events),
        ("POST", f"{BASE}/users/facet_info", "mapping_version", facet),
        ("POST", f"{BASE}/accounts/facet_info", "mapping_version", facet),
    ]
    for verb, path, name, body in asked:
        for number, status in (("4", 404), ("-1", 400), ("x", 400), ("", 400), ("1.0", 400), (str(2**70), 400)):
            answer = still.ask(verb, f"{path}?{name}={number}", body)
            assert answer.status == status, (path, number, answer)
            assert ("no version" if status == 404 else name) in answer.json()["errors"][0]
    assert undo(still, "?to=4").status == 404
    assert told(still.ask("GET", f"{USERS}/versions"))["versions"][0]["version"] == 3


def test_a_diff_tells_what_lies_between(still: Server) -> None:
    last = told(still.ask("GET", f"{USERS}/diff"))
    assert (last["from"], last["to"]) == (2, 3)
    assert [v["version"] for v in last["versions"]] == [3]
    whole = told(still.ask("GET", f"{USERS}/diff?from=0&to=2"))
    assert [d["at"] for d in whole["diff"]] == ["/connections/crm"]
    assert [(v["version"], v["why"]) for v in whole["versions"]] == [(2, "more"), (1, "")]
    assert all(v["who"] and v["at"] for v in whole["versions"])
    back = told(still.ask("GET", f"{USERS}/diff?from=2&to=1"))
    (gone,) = back["diff"]
    assert (gone["at"], gone["after"]) == ("/connections/crm/fields/score", None)
    assert [v["version"] for v in back["versions"]] == [2]
    same = told(still.ask("GET", f"{USERS}/diff?from=1&to=1"))
    assert (same["diff"], same["versions"]) == ([], [])
    empty = told(still.ask("GET", f"{BASE}/accounts/mapping/diff"))
    assert empty == {"from": 0, "to": 0, "diff": [], "versions": []}


def test_versions_come_in_pages(still: Server) -> None:
    def page(query: str) -> tuple[list[int], Any]:
        body = still.ask("GET", f"{USERS}/versions{query}").json()
        return [v["version"] for v in body["data"]["attributes"]["versions"]], body.get("meta")

    assert page("") == ([3, 2, 1], None)
    assert page("?page[limit]=2") == ([3, 2], {"page": {"limit": 2, "before": 2}})
    assert page("?page[limit]=2&page[before]=2") == ([1], None)
    assert page("?page[before]=1") == ([], None)
    for wrong in ("?page[limit]=0", "?page[limit]=1001", "?page[before]=x"):
        assert still.ask("GET", f"{USERS}/versions{wrong}").status == 400


def test_connections_are_listed_as_of_a_version(still: Server) -> None:
    def fields(query: str) -> list[list[str]]:
        shown = told(still.ask("GET", f"{USERS}/connections{query}"))["connections"]
        return [[f["id"] for f in c["fields"]] for c in shown]

    assert [fields(f"?version={n}") for n in range(4)] == [[], [["tier"]], [["tier", "score"]], [["plan", "score"]]]
    assert still.ask("GET", f"{USERS}/connections?version=1").headers["etag"] == '"1"'
    assert fields("") == [["plan", "score"]]


def test_queries_read_as_of_a_version(still: Server) -> None:
    assert told(users(still, "plan:gold", "plan"))["total"] == 2
    old = users(still, "tier:gold AND score:1", "tier", query="?mapping_version=2")
    assert told(old)["hits"] == [{"user_id": "u1", "tier": "gold"}]
    assert "meta" not in old.json()
    strange = users(still, "score:1", query="?mapping_version=1")
    assert told(strange)["total"] == 0
    assert "unknown attribute 'score'" in strange.json()["meta"]["warnings"][0]
    body = {"data": {"type": "users_facet_info_request", "attributes": {"facet_id": "tier", "limit": 9}}}
    values = told(still.ask("POST", f"{BASE}/users/facet_info?mapping_version=1", body))["result"]["values"]
    assert values == [{"value": "gold", "count": 2}, {"value": "silver", "count": 2}]
    body = {"data": {"type": "query_event_filtered_users_request", "attributes": {"query": "score:>1"}}}
    found = told(still.ask("POST", f"{BASE}/users/event_filtered_query?mapping_version=2", body))
    assert found["total"] == 2
    assert "@tier" in found["hits"][0]


def test_accounts_have_a_history_of_their_own(shop: Server) -> None:
    create(shop, [TIER], "accounts")
    assert told(shop.ask("POST", f"{BASE}/accounts/mapping/undo"))["restores"] == 0
    assert customs(shop) == ["@plan", "@score"]
    body = {"data": {"type": "query_account_request", "attributes": {"query": "tier:gold"}}}
    assert told(shop.ask("POST", f"{BASE}/accounts/query?mapping_version=1", body))["total"] == 0
    assert "meta" not in shop.ask("POST", f"{BASE}/accounts/query?mapping_version=1", body).json()


def test_the_command_line_tells_and_undoes(shop: Server) -> None:
    assert "plan" in shop.cli("mapping", "show", "users")
    shown = shop.cli("mapping", "show", "users", "--version", "1")
    assert "@tier" in shown and "score" not in shown and "version 1" in shown
    assert "more" in shop.cli("mapping", "versions", "users", "--limit", "1", "--before", "3")
    between = shop.cli("mapping", "diff", "users", "--from", "1", "--to", "2")
    assert "/connections/crm/fields/score: nothing -> {" in between
    assert "from version 1 to version 2" in between
    keyless = shop.run_cli("mapping", "undo", "users")
    assert "no keys for the far end" in keyless.stderr
    keys = {"ROSTER_API_KEY": shop.api_key, "ROSTER_APP_KEY": shop.app_key}
    command = [sys.executable, "-m", "roster", "mapping", "undo", "users", "--reason", "too early"]
    beside = subprocess.run(command, env=os.environ | shop.env | keys, capture_output=True, text=True, check=True)
    assert "version 4 has the mapping of version 2" in beside.stdout
    assert told(shop.ask("GET", f"{USERS}/versions"))["versions"][0]["why"] == "too early"
    shop.stop()
    alone = shop.cli("mapping", "undo", "users", "--to", "1")
    assert "/connections/crm/fields/score: {" in alone
    assert "version 5 has the mapping of version 1" in alone
