"""Export and erase of one user at the door and by command, down to the bytes of the data folder."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from servers import Server

pytestmark = [pytest.mark.e2e, pytest.mark.xdist_group("user_rights")]

ID, EMAIL = "person-7f3a9c", "Person.7f3a9c@example.com"
AT = 1_790_000_000_000
PLAN = "plan-of-7f3a9c"
API = "/api/v2/product-analytics/users"
CONNECTION = {
    "data": {
        "type": "connection_id",
        "id": "crm",
        "attributes": {
            "type": "ref_table",
            "join_type": "user_id",
            "join_attribute": "id",
            "metadata": {"table_name": "crm"},
            "fields": [{"id": "tier", "source_name": "tier", "type": "string"}],
        },
    }
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("rights")
    server = Server(folder, events_days="36500")
    (folder / "crm.csv").write_text(f"id,tier\n{ID},gold\nother,free\n")
    server.cli("table", "load", "crm.csv", "--key", "id")
    with server:
        assert server.ask("POST", f"{API}/mapping/connection", CONNECTION).status == 201
        yield server


def events_of(id: str, email: str, number: int) -> list[dict[str, Any]]:
    return [
        {
            "type": "server",
            "date": AT + n,
            "application": {"id": "shop"},
            "event": {"name": "bought", "id": f"{id}-{n}"},
            "usr": {"id": id, "email": email, "plan": f"plan-of-{id[-6:]}"},
            "account": {"id": "acme"},
        }
        for n in range(number)
    ]


def send(server: Server, events: list[dict[str, Any]]) -> None:
    assert server.ask("POST", "/api/v2/prodlytics", events).status == 202


def path(action: str, id: str = ID) -> str:
    return f"/api/roster/users/{id}/{action}"


def holding(folder: Path, text: str) -> list[str]:
    """Files of a folder with the text in them, whatever the case."""
    wanted = text.casefold().encode()
    files = [p for p in sorted(folder.rglob("*")) if p.is_file()]
    return [str(p.relative_to(folder)) for p in files if wanted in p.read_bytes().lower()]


def test_export_has_all(server: Server) -> None:
    send(server, events_of(ID, EMAIL, 5) + events_of("other", "other@example.com", 3))
    first = server.ask("GET", path("export") + "?limit=3")
    assert first.status == 200, first.body
    found = first.json()["data"]["attributes"]
    assert (found["profile"]["user_id"], found["profile"]["user_email"]) == (ID, EMAIL)
    assert found["profile"]["events_count"] == 5
    assert found["profile"]["@tier"] == "gold"
    assert {name: found["sources"]["@tier"][name] for name in ("connection", "table", "source_column")} == {
        "connection": "crm",
        "table": "crm",
        "source_column": "tier",
    }
    assert [account["account_id"] for account in found["accounts"]] == ["acme"]
    rest = server.ask("GET", path("export") + f"?limit=3&cursor={found['next_cursor']}").json()["data"]["attributes"]
    sent = {e["event"]["id"]: e for e in events_of(ID, EMAIL, 5)}
    got = {e["event"]["id"]: e for e in found["events"] + rest["events"]}
    assert got.keys() == sent.keys()
    assert all({k: got[id][k] for k in sent[id]} == sent[id] for id in sent)
    assert rest["next_cursor"] is None


def set_aside(rejected: Path) -> None:
    """Lines that the engine refused: one of the person, one of somebody else, one with the e-mail deep inside."""
    rejected.mkdir(exist_ok=True)
    bad = [json.dumps({"k": name, "user_id": name, "time": "x"}) for name in (ID, "other")]
    (rejected / "events-000000000900.ndjson").write_text("\n".join(bad) + "\n")
    (rejected / "events-000000000901.ndjson").write_text(json.dumps({"line": json.dumps({"usr": {"email": EMAIL}})}))


def test_erase_leaves_nothing(server: Server) -> None:
    data = server.folder / "data"
    rejected = data / "log" / "rejected"
    set_aside(rejected)
    broken = f'data: {{"usr":{{"id":"{ID}"}}}}'
    assert server.ask("POST", "/api/v2/rum", broken.encode()).status == 400
    lines = server.ask("GET", path("export")).json()["data"]["attributes"]["lines"]
    assert [kept["line"] for kept in lines["rejected_samples"]] == [broken]
    assert [line.get("user_id", line.get("line")) for line in lines["rejected_segments"]] == [
        ID,
        json.dumps({"usr": {"email": EMAIL}}),
    ]
    dry = server.ask("POST", path("erase") + "?dry_run=true").json()["data"]
    assert dry["type"] == "erasure_preview"
    counts = dry["attributes"]["counts"]
    assert (counts["events"], counts["profiles"], counts["rejected_segments"]) == (5, 1, 2)
    assert {place: counts[place] for place in lines} == {place: len(theirs) for place, theirs in lines.items()}
    assert counts["rejected_samples"] == 1
    assert server.ask("GET", path("export")).status == 200

    done = server.ask("POST", path("erase"))
    assert done.status == 200, done.body
    receipt = done.json()["data"]
    assert receipt["attributes"]["counts"] == counts
    assert receipt["attributes"]["not_erased"]["sources"] == ["crm"]
    assert server.ask("GET", path("export")).status == 404
    assert [p.name for p in rejected.iterdir()] == ["events-000000000900.ndjson"]
    assert server.ask("GET", path("export", "other")).json()["data"]["attributes"]["profile"]["events_count"] == 3

    kept = server.ask("GET", f"/api/roster/erasures?user_id={ID}").json()["data"]
    assert [(e["id"], e["attributes"]["counts"]) for e in kept] == [(receipt["id"], counts)]
    assert kept[0]["attributes"]["finished_at"] is not None
    assert server.ask("GET", "/api/roster/erasures?user_id=nobody").json()["data"] == []


def test_no_file_has_the_erased(server: Server) -> None:
    data = server.folder / "data"
    server.stop()
    try:
        with sqlite3.connect(data / "roster.sqlite") as records:
            dump = "\n".join(records.iterdump())
        assert ID not in dump
        assert EMAIL.casefold() not in dump.casefold()
        shown = server.cli("compact")
        assert "bytes before" in shown
        assert holding(data, EMAIL) == []
        assert holding(data, PLAN) == []
        assert holding(data, ID) == ["engine.duckdb"]  # the row of the owner's table crm
        assert ID not in server.log()
    finally:
        server.start()
    answer = server.ask("GET", path("export", "other"))
    assert answer.status == 200, answer
    assert answer.json()["data"]["attributes"]["profile"]["@tier"] == "free"


def test_events_acknowledged_before_an_erase_are_erased(server: Server) -> None:
    for n in range(5):
        send(
            server,
            [
                event | {"event": {"name": "bought", "id": f"late-{n}"}}
                for event in events_of("late", "late@example.com", 1)
            ],
        )
        erased = server.ask("POST", path("erase", "late")).json()["data"]["attributes"]["counts"]
        assert erased["events"] == 1
    assert server.ask("GET", path("export", "late")).status == 404


def test_a_user_of_rejected_lines_only_has_an_export(server: Server) -> None:
    assert server.ask("GET", path("export", "unstored")).status == 404
    server.ask("POST", "/api/v2/rum", b'{"type":"view","usr":{"id":"unstored"}}\n')
    found = server.ask("GET", path("export", "unstored")).json()["data"]["attributes"]
    assert (found["profile"], found["events"], len(found["lines"]["rejected_samples"])) == (None, [], 1)
    assert server.ask("POST", path("erase", "unstored")).status == 200
    assert server.ask("GET", path("export", "unstored")).status == 404


def test_a_user_nobody_knows_is_nothing_to_erase(server: Server) -> None:
    answer = server.ask("POST", path("erase", "nobody%2Fat%20all"))
    assert answer.status == 200
    assert set(answer.json()["data"]["attributes"]["counts"].values()) == {0}


def test_what_is_wrong_is_refused(server: Server) -> None:
    assert server.ask("POST", path("erase") + "?dryrun=true").status == 400
    assert server.ask("GET", path("export") + "?cursor=nonsense").status == 400
    assert server.ask("GET", path("export") + "?limit=0").status == 400
    client = server.cli("key", "create", "client", "--name", "browser").split("secret")[1].split()[0]
    for verb, action in (("POST", "erase"), ("GET", "export")):
        assert server.ask(verb, path(action), keys=False, headers={"DD-API-KEY": client}).status in (401, 403)


def test_what_was_removed_is_a_metric(server: Server) -> None:
    metrics = server.ask("GET", "/metrics", keys=False).body.decode()
    assert 'roster_retention_removed_total{kind="events"} 0.0' in metrics


def test_commands(server: Server) -> None:
    send(server, events_of("cli-user", "cli@example.com", 2))
    server.stop()
    try:
        lines = [json.loads(line) for line in server.cli("user", "export", "cli-user").splitlines()]
        assert lines[0]["profile"]["user_id"] == "cli-user"
        assert [line["event"]["id"] for line in lines[1:]] == ["cli-user-1", "cli-user-0"]
        assert "Nothing is changed" in server.cli("user", "erase", "cli-user")
        assert "receipt" in server.cli("user", "erase", "cli-user", "--yes")
        assert server.run_cli("user", "export", "cli-user").returncode != 0
    finally:
        server.start()
