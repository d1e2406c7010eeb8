"""A field is renamed while a hundred mixed queries a second name its old id: no error, no other answer, use told."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from servers import Server

pytestmark = [pytest.mark.e2e, pytest.mark.xdist_group("rename")]

USERS = 200
QUERIES_A_SECOND = 100
SECONDS = 5
RENAMED_AT = {100: ("tier", "level"), 250: ("level", "rank")}
"""After how many queries the field is renamed, and how."""
START_S = 1_760_000_000
BASE = "/api/v2/product-analytics"
CONNECTION = f"{BASE}/users/mapping/connection"
TIERS = ("gold", "silver", "bronze", "")


def body(type: str, **attributes: Any) -> dict[str, Any]:
    return {"data": {"type": f"{type}_request", "attributes": attributes}}


def mixed(id: str) -> list[tuple[str, str, dict[str, Any]]]:
    """Operation, path and body of queries that name an id: pages, wildcards, facets, by events."""
    columns = ["user_id", f"@{id}"]
    frame = {"start": START_S, "end": START_S + USERS // 2}
    return [
        ("QueryUsers", f"{BASE}/users/query", body("query_users", query=f"{id}:gold", select_columns=columns)),
        ("QueryUsers", f"{BASE}/users/query", body("query_users", select_columns=columns, sort={"field": f"@{id}"})),
        (
            "QueryUsers",
            f"{BASE}/users/query",
            body("query_users", query=f"-@{id}:s?lv* {id}:*o*", select_columns=columns),
        ),
        (
            "QueryUsers",
            f"{BASE}/users/query",
            body("query_users", wildcard_search_term="u1*2", select_columns=columns),
        ),
        ("GetUserFacetInfo", f"{BASE}/users/facet_info", body("users_facet_info", facet_id=id, limit=5)),
        (
            "GetUserFacetInfo",
            f"{BASE}/users/facet_info",
            body("users_facet_info", facet_id="user_id", limit=20, search={"query": f"@{id}:(gold OR bronze)"}),
        ),
        (
            "QueryEventFilteredUsers",
            f"{BASE}/users/event_filtered_query",
            body(
                "query_event_filtered_users",
                event_query={"query": f"@{id}:gold", "time_frame": frame},
                select_columns=columns,
            ),
        ),
    ]


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Two hundred users, three quarters of them with a tier; a segment and a saved query that name it."""
    folder: Path = tmp_path_factory.mktemp("rename")
    server = Server(folder, rate_limits=json.dumps({"audience_read": "9999999/minute"}))
    people, crm = folder / "people.ndjson", folder / "crm.csv"
    with people.open("w") as file:
        for i in range(USERS):
            event = {"type": "view", "date": (START_S + i) * 1000, "view": {"id": f"v{i}"}, "usr": {"id": f"u{i}"}}
            file.write(json.dumps(event) + "\n")
    crm.write_text("user_id,tier\n" + "".join(f"u{i},{TIERS[i % 4]}\n" for i in range(USERS)))
    server.cli("load", str(people))
    server.cli("table", "load", str(crm), "--name", "crm", "--key", "user_id")
    with server:
        attributes = {
            "type": "ref_table",
            "join_type": "user_id",
            "join_attribute": "user_id",
            "fields": [{"id": "tier", "source_name": "tier", "type": "string"}],
        }
        connection = {"data": {"type": "connection_id", "id": "crm", "attributes": attributes}}
        assert server.ask("POST", CONNECTION, connection).status == 201
        definition = {"profiles": [{"name": "a", "query": "tier:gold"}]}
        segment = {"data": {"type": "segment", "attributes": {"name": "gold", "data_query": definition}}}
        assert server.ask("POST", "/api/v2/rum/segment", segment).status == 201
        saved = {
            "operation": "QueryUsers",
            "body": body("query_users", query="tier:gold", select_columns=["user_id", "tier"]),
        }
        saved_body = {"data": {"type": "saved_query", "attributes": saved}}
        assert server.ask("PUT", "/api/roster/queries/gold", saved_body).status == 200
        yield server


def rename(server: Server, old: str, new: str) -> None:
    update = {"fields_to_update": [{"field_id": old, "updated_field_id": new}]}
    request = {"data": {"type": "connection_id", "id": "crm", "attributes": update}}
    assert server.ask("PUT", CONNECTION, request).status == 200


def all_asked(id: str) -> list[tuple[str, str, str, Any]]:
    """Operation, verb, path and body of all that is asked."""
    queries: list[tuple[str, str, str, Any]] = [(name, "POST", path, given) for name, path, given in mixed(id)]
    run = ("QueryUsers", "POST", "/api/roster/queries/gold/run", None)
    return [*queries, run, ("", "GET", "/api/v2/rum/segment", None)]


def test_nobody_notices_a_rename(shop: Server) -> None:
    asked = all_asked("tier")
    expected = [answered(shop, *one[1:]) for one in asked]
    assert [e["data"][0]["attributes"]["row_count"] for e in expected[-1:]] == [50]
    started_s = time.monotonic()

    def ask(n: int) -> tuple[int, Any]:
        """The n-th query, not before its time; some of them come right after a rename."""
        time.sleep(max(0.0, started_s + n / QUERIES_A_SECOND - time.monotonic()))
        if n in RENAMED_AT:
            rename(shop, *RENAMED_AT[n])
        return n % len(asked), answered(shop, *asked[n % len(asked)][1:])

    sent = QUERIES_A_SECOND * SECONDS
    with ThreadPoolExecutor(24) as pool:
        for which, answer in pool.map(ask, range(sent)):
            assert answer == expected[which], asked[which]
    print(f"{sent / (time.monotonic() - started_s):.0f} queries a second")
    assert [answered(shop, *one[1:]) for one in asked] == expected
    check_uses(shop, [asked[n % len(asked)][0] for n in range(sent)] + 2 * [one[0] for one in asked])


def answered(server: Server, verb: str, path: str, given: Any) -> Any:
    """What is answered, but for when segments were counted; no answer is an error or has a warning."""
    answer = server.ask(verb, path, given)
    assert answer.status == 200, answer.body
    found = answer.json()
    assert "meta" not in found
    for segment in found["data"] if isinstance(found["data"], list) else ():
        del segment["attributes"]["computed_at"]
    return found


def check_uses(server: Server, operations: list[str]) -> None:
    """Every query is counted once, under the id it spelled; what came after the rename as use of an old id."""
    found = server.ask("GET", "/api/roster/users/fields/rank/uses").json()["data"]["attributes"]
    counted: Counter[str] = Counter()
    for caller in found["callers"]:
        assert caller["by"] == "tier"
        counted[caller["operation"]] += caller["count"]
    assert counted == Counter(operation for operation in operations if operation)
    old_ids = {o["old_id"]: o for o in found["old_ids"]}
    assert old_ids.keys() == {"tier", "level"}
    assert (old_ids["level"]["count"], old_ids["level"]["last_at"]) == (0, None)
    used = sum(c["count"] for c in found["callers"] if c["old_id"])
    assert 0 < old_ids["tier"]["count"] == used < sum(counted.values())
    assert [(s["name"], s["by"], s["old_id"]) for s in found["segments"]] == [("gold", ["tier"], True)]
    assert [(q["name"], q["by"], q["old_id"]) for q in found["queries"]] == [("gold", ["tier"], True)]
    listed = server.ask("GET", f"{BASE}/users/mapping/connections").json()["data"]["attributes"]["connections"]
    told = listed[0]["metadata"]["roster_aliases"]
    assert f"tier -> rank (used {used} times, last {old_ids['tier']['last_at']})" in told
    assert "level -> rank (not used)" in told
    for (name, path, given), (_, _, renamed) in zip(mixed("tier"), mixed("rank"), strict=True):
        old, new = (json.dumps(answered(server, "POST", path, one)) for one in (given, renamed))
        assert old.replace("@tier", "@rank") == new, name


def test_a_delete_lists_who_names_the_field(shop: Server) -> None:
    update = {"fields_to_delete": ["rank"]}
    request = {"data": {"type": "connection_id", "id": "crm", "attributes": update}}
    answer = shop.ask("PUT", f"{CONNECTION}?dry_run=true", request)
    assert answer.status == 200, answer.body
    (uses,) = answer.json()["data"]["attributes"]["used_by"]
    assert (uses["field"], [s["name"] for s in uses["segments"]]) == ("rank", ["gold"])
    assert [q["name"] for q in uses["queries"]] == ["gold"]
    assert {c["by"] for c in uses["callers"]} >= {"tier"}
