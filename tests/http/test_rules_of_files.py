"""Rules over HTTP for connections of files: two sources of one attribute, quarantine, drift, provenance."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import pytest

from servers import Server

pytestmark = pytest.mark.xdist_group("rules_of_files")
WAIT_S = 60.0
BASE = "/api/v2/product-analytics/users"
USERS = ("ann", "bob", "cat")
CRM = "email,tier,at\nann@x.org,gold,2024-01-01\nbob@x.org,junk,2024-01-02\ncat@x.org,iron,2024-01-01\n"
SHOP = "email,tier,at\nann@x.org,iron,2024-01-02\nbob@x.org,gold,2024-01-01\n"


@pytest.fixture
def files(tmp_path: Path) -> Path:
    made = tmp_path / "files"
    made.mkdir()
    (made / "crm.csv").write_text(CRM)
    (made / "shop.csv").write_text(SHOP)
    return made


@pytest.fixture
def server(tmp_path: Path, files: Path) -> Iterator[Server]:
    with Server(tmp_path, source_folders=json.dumps([str(files)])) as running:
        events = [
            {"type": "server", "application": {"id": "a"}, "event": {"name": "x"}}
            | {"usr": {"id": u, "email": f"{u}@x.org"}}
            for u in USERS
        ]
        assert running.ask("POST", "/api/v2/prodlytics", events).status == 202
        yield running


def body(id: str, attributes: dict[str, Any]) -> dict[str, Any]:
    return {"data": {"type": "connection_id", "id": id, "attributes": attributes}}


def wanted(files: Path, id: str, changed_at: str = "at", **rules: Any) -> dict[str, Any]:
    metadata = {"path": str(files / f"{id}.csv"), "every": "off", "changed_at": changed_at}
    field = {"id": "tier", "source_name": "tier", "type": "string"} | rules
    join = {"type": "file", "join_type": "email", "join_attribute": "email"}
    return body(id, join | {"metadata": metadata, "fields": [field]})


def source(server: Server, id: str) -> dict[str, Any]:
    found: dict[str, Any] = server.ask("GET", f"/api/roster/sources/users%2F{id}").json()["data"]["attributes"]
    return found


def synced(server: Server, id: str, state: str = "ok") -> None:
    stop_s = monotonic() + WAIT_S
    while source(server, id)["state"] != state or source(server, id)["running"]:
        assert monotonic() < stop_s, source(server, id)
        sleep(0.05)


def sync(server: Server, id: str) -> None:
    run = server.ask("POST", f"/api/roster/sources/users%2F{id}/sync").json()["data"]["id"]
    stop_s = monotonic() + WAIT_S
    while server.ask("GET", f"/api/roster/runs/{run}").json()["data"]["attributes"]["ended"] is None:
        assert monotonic() < stop_s
        sleep(0.05)


def tiers(server: Server) -> list[str | None]:
    asked = {"select_columns": ["user_id", "tier"], "sort": {"field": "user_id", "order": "asc"}}
    answer = server.ask("POST", f"{BASE}/query", {"data": {"type": "query_users_request", "attributes": asked}})
    return [hit["tier"] for hit in answer.json()["data"]["attributes"]["hits"]]


def test_two_files_offer_one_attribute(server: Server, files: Path) -> None:
    rules = {"allowed_values": ["gold", "iron"]}
    assert server.ask("POST", f"{BASE}/mapping/connection", wanted(files, "crm", **rules)).status == 201
    synced(server, "crm")
    shop = wanted(files, "shop")
    assert server.ask("POST", f"{BASE}/mapping/connection", shop).status == 409
    shop = wanted(files, "shop", conflict={"rule": "newest", "order": ["crm"]})
    told = server.ask("POST", f"{BASE}/mapping/connection?dry_run=true", shop)
    assert told.status == 200
    assert told.json()["data"]["attributes"]["attributes"] == [
        {"name": "tier", "before": 2, "after": 3, "added": 1, "changed": 1, "lost": 0}
    ]
    assert server.ask("POST", f"{BASE}/mapping/connection", shop).status == 201
    synced(server, "shop")
    assert tiers(server) == ["iron", "gold", "iron"]
    check_provenance(server)
    check_quarantine(server)
    (files / "crm.csv").write_text(CRM.replace("gold,2024-01-01", "gold,2024-01-03"))
    sync(server, "crm")
    assert tiers(server) == ["gold", "gold", "iron"]
    check_drift(server, files)


def check_provenance(server: Server) -> None:
    told = server.ask("GET", "/api/roster/users/profiles/bob/provenance/tier").json()["data"]["attributes"]
    assert (told["value"], told["from"], told["rule"]) == ("gold", "shop", "newest")
    crm, shop = told["offers"]
    assert (crm["row_key"], crm["cell"], crm["counts"]) == ("bob@x.org", "junk", False)
    assert crm["why"] == "'junk' is none of gold, iron"
    assert (shop["changed_at"], shop["why"]) == ("2024-01-01T00:00:00.000Z", "no other row changed later")
    assert (shop["table"], shop["run"]) == ("users/shop", source(server, "shop")["run"]["id"])


def check_quarantine(server: Server) -> None:
    path = "/api/roster/sources/users%2Fcrm/quarantine"
    cells = server.ask("GET", path).json()["data"]["attributes"]["cells"]
    assert [(c["row_key"], c["reason"]) for c in cells] == [("bob@x.org", "'junk' is none of gold, iron")]


def check_drift(server: Server, files: Path) -> None:
    """The proposed update keeps the rules of its field, and the one that both sources agree on."""
    (files / "crm.csv").write_text(CRM.replace("tier", "level").replace("gold,2024-01-01", "gold,2024-01-03"))
    sync(server, "crm")
    synced(server, "crm", "drifted")
    (drift,) = source(server, "crm")["drift"]
    (repair,) = drift["repair"]
    assert server.ask("PUT", repair["put"], repair["body"]).status == 200
    synced(server, "crm")
    fields = server.ask("GET", f"{BASE}/mapping/connections").json()["data"]["attributes"]["connections"][0]["fields"]
    assert [(f["source_name"], f["allowed_values"]) for f in fields] == [("level", ["gold", "iron"])]
    assert fields[0]["conflict"] == {"rule": "newest", "order": ["crm"]}
    assert tiers(server) == ["gold", "gold", "iron"]


def test_a_time_that_is_no_column(server: Server, files: Path) -> None:
    """While the columns are not known it is taken; a preview reads them and says what will not work."""
    asked = wanted(files, "crm", "then", conflict={"rule": "newest"})
    told = server.ask("POST", f"{BASE}/mapping/connection?dry_run=true", asked)
    assert (told.status, told.json()["meta"]["warnings"]) == (
        200,
        ["tier: the source of crm has no column 'then', its 'changed_at', so its rows count as the oldest"],
    )
