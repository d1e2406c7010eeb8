"""Static segments, members, reasons, files and changes over HTTP: what they answer and refuse, and that they agree."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars
import pytest

from e2e.source_world import Receiver, receiving
from servers import Answered, Server

pytestmark = pytest.mark.xdist_group("segment_members")

SEGMENTS = "/api/v2/rum/segment"
OURS = "/api/roster/segments"
FROM_MS, TO_MS = 1_759_968_000_000, 1_760_486_400_000
"""2025-10-09 to 2025-10-15, UTC."""


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Six users in two accounts: all see home, the first four the cart, the first two pay, a day later one is back."""
    folder = tmp_path_factory.mktemp("members")
    server = Server(folder)
    pages = {"home": 6, "cart": 4, "pay": 2}
    rows = []
    for hour, (page, people) in enumerate(pages.items()):
        rows += [f"2025-10-09T0{hour}:0{i}:00Z,{page}{i},u{i},u{i}@x.com,a{i % 2},{page}" for i in range(people)]
    rows.append("2025-10-10T00:00:00Z,back,u3,u3@x.com,a1,home")
    people = folder / "people.csv"
    people.write_text("\n".join(["time,id,user,mail,account,page", *rows]) + "\n")
    columns = ["date=time", "view.id=id", "usr.id=user", "usr.email=mail", "account.id=account", "view.name=page"]
    server.cli("load", str(people), *(w for c in [*columns, "type==view"] for w in ("--map", c)))
    with server:
        yield server


def create(server: Server, name: str, parameters: str = "", **query: Any) -> Answered:
    body = {"data": {"type": "segment", "attributes": {"name": name, "data_query": query}}}
    return server.ask("POST", SEGMENTS + parameters, body)


def fix(server: Server, name: str, parameters: str = "", **attributes: Any) -> Answered:
    """A static segment."""
    data = {"type": "create_static_segment_request", "attributes": {"name": name, **attributes}}
    return server.ask("POST", f"{SEGMENTS}/static{parameters}", {"data": data})


def members_of(server: Server, answer: Answered) -> list[str]:
    assert answer.status == 201, answer.body
    data = answer.json()["data"]
    found = server.ask("GET", f"{OURS}/{data['id']}/members").json()["data"]["attributes"]
    assert found["total"] == data["attributes"]["row_count"] == len(found["members"])
    return [member["user_id"] for member in found["members"]]


@pytest.fixture(autouse=True)
def nothing_left(shop: Server) -> Iterator[None]:
    yield
    for segment in shop.ask("GET", SEGMENTS).json()["data"]:
        assert shop.ask("DELETE", f"{SEGMENTS}/{segment['id']}").status == 200


def node(**filters: str) -> dict[str, Any]:
    return {"filters": [{"attribute": f"@{name.replace('_', '.')}", "value": value} for name, value in filters.items()]}


def search(*steps: str) -> dict[str, Any]:
    pages = {s: {"data_source": "product_analytics", "search": {"query": f"@view.name:{s}"}} for s in steps}
    return {"expression": " -> ".join(steps), "node_objects": pages, "join_keys": {"primary": "@usr.id"}}


RETENTION = {
    "search": {
        "cohort_criteria": {
            "base_query": {"data_source": "product_analytics", "search": {"query": "@view.name:home"}},
            "time_interval": {"type": "calendar", "value": {"type": "day"}},
        },
        "retention_entity": "@usr.id",
        "return_condition": "conversion_on",
    },
    "computation_scope": {
        "type": "cell",
        "cohort_target": {"type": "index", "value": 0},
        "return_period_target": {"type": "index", "value": 1},
    },
}


@pytest.mark.parametrize(
    ("given", "members", "matched", "unknown"),
    [
        ({"ids": ["u1", "u5", "u1", "nobody"]}, ["u1", "u5"], 2, 1),
        ({"ids": ["U1@x.com ", "u5@x.com", "no@x.com"], "match": "email"}, ["u1", "u5"], 2, 1),
        ({"journey_query_object": {"nodes": [node(view_name="home"), node(view_name="cart")]}}, "u0 u1 u2 u3", 4, 0),
        ({"journey_query_object": {"nodes": [node(view_name="cart", account_id="a1")]}}, ["u1", "u3"], 2, 0),
        ({"journey_query_object": {"nodes": [node(view_name="c*")]}}, [], 0, 0),
        ({"journey": {"from": FROM_MS, "to": TO_MS, "query": {"search": search("home", "cart")}}}, "u0 u1 u2 u3", 4, 0),
        (
            {
                "journey": {
                    "from": FROM_MS,
                    "to": TO_MS,
                    "query": {
                        "search": search("home", "cart", "pay"),
                        "conversion_type": "drop-off",
                        "target": {"type": "node", "value": "cart"},
                    },
                }
            },
            ["u2", "u3"],
            2,
            0,
        ),
        ({"retention": {"from": FROM_MS, "to": TO_MS, "query": RETENTION}}, ["u3"], 1, 0),
    ],
)
def test_a_list_has_who_was_found(shop: Server, given: Any, members: Any, matched: int, unknown: int) -> None:
    wanted = members.split() if isinstance(members, str) else members
    dry = fix(shop, "fixed", "?dry_run=true", **given)
    assert (dry.status, dry.json()["data"]["attributes"]["row_count"]) == (200, len(wanted))
    assert shop.ask("GET", SEGMENTS).json()["data"] == []
    answer = fix(shop, "fixed", **given)
    assert members_of(shop, answer) == wanted
    shown, meta = answer.json()["data"]["attributes"], answer.json()["meta"]
    assert (shown["type"], meta["matched"], meta["unknown"]) == ("static", matched, unknown)
    assert dry.json()["meta"]["understood"].keys() == meta["understood"].keys()
    (rule,) = shown["data_query"]["static"]
    assert set(rule) == {"id", "name", "user_count"}
    again = fix(shop, "fixed", **given)
    assert (again.status, again.json()["data"]["id"]) == (201, answer.json()["data"]["id"])
    assert fix(shop, "fixed", ids=["u0"]).status == 409


def test_a_list_of_accounts(shop: Server) -> None:
    answer = fix(shop, "firms", ids=["a1", "a9"], entity="accounts")
    assert (answer.status, answer.json()["data"]["attributes"]["row_count"]) == (201, 1)
    assert answer.json()["meta"]["unknown"] == 1


def test_a_list_of_an_uploaded_file(shop: Server) -> None:
    attributes = {"headers": ["Who", "Mail"], "part_count": 1, "part_size": 1, "table_name": "people"}
    started = shop.ask(
        "POST", "/api/v2/reference-tables/uploads", {"data": {"type": "upload", "attributes": attributes}}
    )
    data = started.json()["data"]
    early = fix(shop, "uploaded", upload_id=data["id"])
    assert early.status == 400
    assert "at /data/attributes/upload_id" in early.json()["errors"][0]
    part = data["attributes"]["part_urls"][0].split(str(shop.port))[1]
    content = b"Who,Mail\nu0,U0@X.com\nu4,no@x.com\nu4,u2@x.com\n,u1@x.com\n"
    assert shop.ask("PUT", part, content, keys=False).status == 200
    column = fix(shop, "uploaded", upload_id=data["id"], column="mial", match="email")
    assert "columns: who, mail" in column.json()["errors"][0]
    assert fix(shop, "uploaded", "?dry_run=true", upload_id=data["id"], column="Mail", match="email").status == 200
    answer = fix(shop, "uploaded", upload_id=data["id"], column="Mail", match="email")
    assert members_of(shop, answer) == ["u0", "u1", "u2"]
    assert (answer.json()["meta"]["matched"], answer.json()["meta"]["unknown"]) == (3, 1)
    assert fix(shop, "uploaded", upload_id=data["id"], column="Mail", match="email").status == 201
    assert fix(shop, "other", upload_id=data["id"]).status == 400, "the file is used up"
    assert shop.ask("GET", "/api/v2/reference-tables/tables").json()["data"] == []


@pytest.mark.parametrize(
    ("given", "place"),
    [
        ({}, "/data/attributes)"),
        ({"ids": ["a"], "upload_id": "x"}, "/data/attributes)"),
        ({"ids": []}, "/data/attributes/ids"),
        ({"ids": ["a"], "column": "a"}, "/data/attributes/column"),
        ({"ids": ["a"], "match": "email", "entity": "accounts"}, "/data/attributes/match"),
        ({"upload_id": "x"}, "/data/attributes/upload_id"),
        ({"journey_query_object": {"nodes": []}}, "/data/attributes/journey_query_object/nodes"),
        ({"journey_query_object": {"nodes": [{"filters": [{"attribute": "a"}]}]}}, "nodes/0/filters/0/value"),
        (
            {"journey": {"from": 0, "to": 5, "query": {"search": search("home") | {"expression": "hom"}}}},
            "/data/attributes/journey/query/search/expression",
        ),
        ({"journey": {"from": 5, "to": 5, "query": {"search": search("home")}}}, "/data/attributes/journey/from"),
        ({"retention": {"from": FROM_MS, "to": TO_MS, "query": RETENTION}, "entity": "accounts"}, "attributes/entity"),
    ],
)
def test_a_wrong_list_is_refused_with_its_place(shop: Server, given: Any, place: str) -> None:
    answer = fix(shop, "wrong", **given)
    assert answer.status == 400, answer.body
    assert any(place in text for text in answer.json()["errors"]), answer.body
    assert shop.ask("GET", SEGMENTS).json()["data"] == []


def test_a_list_that_is_none_cannot_be_named(shop: Server) -> None:
    answer = create(shop, "ghost", static=[{"id": "x", "name": "a", "user_count": 1}])
    assert answer.status == 400
    assert "data_query/static" in answer.json()["errors"][0]


def test_a_list_is_part_of_a_combination_and_goes_with_the_last_who_names_it(shop: Server) -> None:
    made = fix(shop, "some", ids=["u1", "u2"]).json()["data"]
    listed = made["attributes"]["data_query"]["static"]
    query = {"static": listed, "profiles": [{"name": "all", "query": "*"}], "combination": "all && !listed"}
    rest = create(shop, "rest", **query)
    assert members_of(shop, rest) == ["u0", "u3", "u4", "u5"]
    assert rest.json()["data"]["attributes"]["type"] == "combination"
    assert shop.ask("DELETE", f"{SEGMENTS}/{made['id']}").status == 200
    path = f"{SEGMENTS}/{rest.json()['data']['id']}"
    assert shop.ask("GET", path).json()["data"]["attributes"]["row_count"] == 4
    change = {"profiles": [{"name": "all", "query": "*"}]}
    body = {"data": {"type": "segment", "id": path.rpartition("/")[2], "attributes": {"data_query": change}}}
    assert shop.ask("PUT", path, body).status == 204
    assert create(shop, "again", **query).status == 400


def test_kinds_are_told_of_a_single_rule(shop: Server) -> None:
    bought = {"name": "b", "query": "@view.name:pay"}
    kinds = {
        "event_platform": {"event_platforms": [bought]},
        "journeys": {"journeys": [{"name": "j", "search": search("home", "pay")}]},
        "combination": {"event_platforms": [bought], "profiles": [{"name": "p", "query": "*"}]},
    }
    for kind, query in kinds.items():
        answer = create(shop, kind, **query)
        assert answer.json()["data"]["attributes"]["type"] == kind
        assert members_of(shop, answer) == ["u0", "u1"]


def test_templates_and_initialize_are_there(shop: Server) -> None:
    assert shop.ask("GET", f"{SEGMENTS}/templates").json() == {"data": []}
    answer = shop.ask("POST", f"{SEGMENTS}/initialize")
    assert (answer.status, answer.body) == (200, b"")


def test_a_dry_run_tells_and_changes_nothing(shop: Server) -> None:
    cart, pay = ({"event_platforms": [{"name": "e", "query": f"@view.name:{page}"}]} for page in ("cart", "pay"))
    dry = create(shop, "dry", "?dry_run=true", **cart)
    assert (dry.status, dry.json()["data"]["attributes"]["row_count"]) == (200, 4)
    assert shop.ask("GET", SEGMENTS).json()["data"] == []
    id = create(shop, "dry", **cart).json()["data"]["id"]
    assert create(shop, "dry", "?dry_run=true", **pay).status == 409
    assert create(shop, "dry", "?dry_run=true", **cart).json()["data"]["id"] == id
    query = pay | {"profiles": [{"name": "p", "query": "user_id:u5"}], "combination": "e || p"}
    body = {"data": {"type": "segment", "id": id, "attributes": {"data_query": query}}}
    told = shop.ask("PUT", f"{SEGMENTS}/{id}?dry_run=true", body)
    assert (told.status, told.json()["meta"]) == (200, {"entered": 1, "left": 2})
    assert (told.json()["data"]["attributes"]["row_count"], told.json()["data"]["attributes"]["version"]) == (3, 2)
    kept = shop.ask("GET", f"{SEGMENTS}/{id}").json()["data"]["attributes"]
    assert (kept["row_count"], kept["version"], kept["data_query"]) == (4, 1, cart)
    assert shop.ask("PUT", f"{SEGMENTS}/{id}?dry_rum=true", body).status == 400
    body["data"]["attributes"] = {"data_query": {"entity": "accounts", "profiles": [{"name": "p", "query": "*"}]}}
    assert shop.ask("PUT", f"{SEGMENTS}/{id}?dry_run=true", body).json()["meta"] == {"entered": 2, "left": 4}


def test_members_come_by_pages(shop: Server) -> None:
    id = create(shop, "all", profiles=[{"name": "p", "query": "*"}]).json()["data"]["id"]
    seen: list[Any] = []
    cursor = ""
    for _ in range(4):
        answer = shop.ask("GET", f"{OURS}/{id}/members?limit=2&columns=@user_email,events_count{cursor}").json()
        shown = answer["data"]["attributes"]
        assert (shown["total"], shown["entity"], shown["version"]) == (6, "users", 1)
        assert shown["computed_at"].endswith("Z")
        seen += shown["members"]
        if shown["next_cursor"] is None:
            break
        cursor = f"&cursor={shown['next_cursor']}"
    counts = [3, 3, 2, 3, 1, 1]
    assert seen == [{"@user_email": f"u{i}@x.com", "events_count": count} for i, count in enumerate(counts)]
    odd = shop.ask("GET", f"{OURS}/{id}/members?columns=user_id,teir").json()
    assert odd["data"]["attributes"]["members"][0] == {"user_id": "u0", "teir": None}
    assert "'teir'" in odd["meta"]["warnings"][0]
    for parameters, place in (("limit=0", "limit"), ("cursor=x", "cursor"), ("cursur=x", "cursur")):
        refused = shop.ask("GET", f"{OURS}/{id}/members?{parameters}")
        assert refused.status == 400
        assert f"parameter {place}" in refused.json()["errors"][0]
    assert shop.ask("GET", f"{OURS}/nothing/members").status == 404


def test_files_hold_all_members(shop: Server) -> None:
    id = create(shop, "all", profiles=[{"name": "p", "query": "-user_id:u1"}]).json()["data"]["id"]
    path = f"{OURS}/{id}/export?columns=user_id,events_count,first_seen,nothing&format="
    first = [["u0", 3], ["u2", 2], ["u3", 3], ["u4", 1], ["u5", 1]]
    answer = shop.ask("GET", f"{path}csv")
    assert (answer.status, answer.headers["content-type"]) == (200, "text/csv; charset=utf-8")
    assert answer.headers["x-roster-computed-at"].endswith("Z")
    assert "nothing" in answer.headers["x-roster-warnings"]
    head, *rows = csv.reader(io.StringIO(answer.body.decode(), newline=""))
    assert head == ["user_id", "events_count", "first_seen", "nothing"]
    assert [[key, int(count)] for key, count, _, _ in rows] == first
    assert rows[1][2:] == ["2025-10-09T00:02:00.000Z", ""]
    lines = [json.loads(line) for line in shop.ask("GET", f"{path}ndjson").body.splitlines()]
    assert [[line["user_id"], line["events_count"]] for line in lines] == first
    answer = shop.ask("GET", f"{path}parquet")
    frame = polars.read_parquet(io.BytesIO(answer.body))
    assert frame.select("user_id", "events_count").rows() == [tuple(row) for row in first]
    for parameters, place in (("format=xls", "format"), ("columns=user_id,USER_ID", "columns")):
        refused = shop.ask("GET", f"{OURS}/{id}/export?{parameters}")
        assert refused.status == 400
        assert f"parameter {place}" in refused.json()["errors"][0]


def test_why_names_the_clause_that_fails(shop: Server) -> None:
    listed = fix(shop, "some", ids=["u3"]).json()["data"]["attributes"]["data_query"]["static"]
    query = {
        "profiles": [{"name": "busy", "query": "events_count:>=2 user_email:*@x.com"}],
        "accounts": [{"name": "odd", "query": "account_id:a1"}],
        "event_platforms": [{"name": "e", "query": "@view.name:home", "occurrences": {"operator": ">=", "value": "2"}}],
        "journeys": [{"name": "j", "search": search("home", "cart", "pay")}],
        "static": listed,
        "combination": "busy && (e || j) && odd && !listed",
    }
    id = create(shop, "odd ones", **query).json()["data"]["id"]

    def why(key: str) -> dict[str, Any]:
        answer = shop.ask("GET", f"{OURS}/{id}/why?profile={key}")
        assert answer.status == 200, answer.body
        return answer.json()["data"]["attributes"]

    told = why("u1")
    assert (told["member"], told["first_failing"], told["would_pass"]) == (True, None, None)
    assert {rule["name"]: rule["holds"] for rule in told["rules"]} == {
        "busy": True,
        "odd": True,
        "e": False,
        "j": True,
        "listed": False,
    }
    assert told["rules"][0]["clauses"][1] == {
        "text": "user_email:*@x.com",
        "holds": True,
        "seen": {"user_email": "u1@x.com"},
    }
    told = why("u5")
    assert told["first_failing"] == {"rule": "busy", "clause": "events_count:>=2", "negated": False}
    assert told["would_pass"] == "rule 'busy': events_count:>=2 must be true; events_count is 1"
    told = why("u2")
    assert told["first_failing"]["rule"] == "e"
    assert told["would_pass"].endswith("events of @view.name:home must number >= 2; there are 1")
    (clause,) = told["rules"][3]["clauses"]
    assert clause["seen"] == {"steps_taken": 2, "steps": 3, "next_step": "pay"}
    told = why("u3")
    assert told["first_failing"] == {"rule": "listed", "clause": f"on the list {listed[0]['id']}", "negated": True}
    assert why("u0")["first_failing"]["rule"] == "odd"
    assert shop.ask("GET", f"{OURS}/{id}/why?profile=nobody").status == 404
    assert shop.ask("GET", f"{OURS}/{id}/why").status == 400


def test_who_entered_and_left_is_told_since_a_snapshot(shop: Server) -> None:
    made = create(shop, "changing", event_platforms=[{"name": "e", "query": "@view.name:cart"}]).json()["data"]
    id, path = made["id"], f"{OURS}/{made['id']}/changes"
    early = shop.ask("GET", f"{path}?since=5")
    assert early.status == 404
    first_ms = int(early.json()["errors"][0].split()[-1])
    same = shop.ask("GET", f"{path}?since={first_ms}").json()["data"]["attributes"]
    assert (same["snapshot"], same["entered"], same["left"]) == (first_ms, none := {"count": 0, "keys": []}, none)
    query = {"profiles": [{"name": "p", "query": "user_id:(u3 OR u4 OR u5)"}]}
    body = {"data": {"type": "segment", "id": id, "attributes": {"data_query": query}}}
    assert shop.ask("PUT", f"{SEGMENTS}/{id}", body).status == 204
    told = shop.ask("GET", f"{path}?since={first_ms}&limit=1").json()["data"]["attributes"]
    assert told["entered"] == {"count": 2, "keys": ["u4"]}
    assert told["left"] == {"count": 3, "keys": ["u0"]}
    now = shop.ask("GET", f"{path}?since={first_ms + 600_000}").json()["data"]["attributes"]
    assert (now["snapshot"] > first_ms, now["entered"], now["left"]) == (True, none, none)
    for parameters in ("", "?since=x", "?since=1&limit=0"):
        assert shop.ask("GET", path + parameters).status == 400


def test_all_of_it_takes_both_keys(shop: Server) -> None:
    paths = [("POST", f"{SEGMENTS}/static"), ("GET", f"{SEGMENTS}/templates"), ("POST", f"{SEGMENTS}/initialize")]
    paths += [("GET", f"{OURS}/x/{name}") for name in ("members", "why", "changes", "export")]
    for verb, path in paths:
        assert shop.ask(verb, path, keys=False, headers={"DD-API-KEY": shop.api_key}).status == 401


# sending


@pytest.fixture
def crowd(tmp_path: Path) -> Iterator[tuple[Server, Receiver]]:
    """2,500 users, every second with an e-mail, and a webhook."""
    people = tmp_path / "people.csv"
    rows = [f"2025-10-09T00:00:00Z,v{n},u{n:04},{f'u{n}@x.com' if n % 2 else ''}" for n in range(2500)]
    people.write_text("\n".join(["time,id,user,mail", *rows]) + "\n")
    columns = ["date=time", "view.id=id", "usr.id=user", "usr.email=mail", "type==view"]
    with receiving("words") as receiver:
        server = Server(tmp_path, webhook_url=receiver.url, webhook_secret=receiver.secret)
        server.cli("load", str(people), *(w for c in columns for w in ("--map", c)))
        with server:
            yield server, receiver


def send(server: Server, made: Answered, parameters: str = "") -> Answered:
    return server.ask("POST", f"{OURS}/{made.json()['data']['id']}/send{parameters}")


def test_all_members_are_sent_in_signed_portions_of_one_moment(crowd: tuple[Server, Receiver]) -> None:
    server, receiver = crowd
    made = create(server, "all", profiles=[{"name": "all", "query": "*"}])
    answer = send(server, made, "?columns=user_id,user_email,first_seen")
    assert answer.status == 200, answer.body
    told = answer.json()["data"]
    assert (told["attributes"]["sent"], told["attributes"]["portions"]) == (2500, 3)
    portions = receiver.notices
    assert [(p["place"], len(p["members"]), p["is_last"]) for p in portions] == [
        (0, 1000, False),
        (1, 1000, False),
        (2, 500, True),
    ]
    shared = {"type", "sending_id", "segment_id", "segment", "version", "entity", "computed_at"}
    assert all({name: p[name] for name in shared} == {name: portions[0][name] for name in shared} for p in portions)
    assert portions[0]["sending_id"] == told["id"]
    assert portions[0]["computed_at"] == told["attributes"]["computed_at"]
    assert (portions[0]["type"], portions[0]["segment"], portions[0]["version"]) == ("segment_members", "all", 1)
    members = [member for p in portions for member in p["members"]]
    file = server.ask(
        "GET", f"{OURS}/{portions[0]['segment_id']}/export?format=ndjson&columns=user_id,user_email,first_seen"
    )
    assert members == [json.loads(line) for line in file.body.splitlines()]
    assert members[:2] == [
        {"user_id": "u0000", "user_email": None, "first_seen": "2025-10-09T00:00:00.000Z"},
        {"user_id": "u0001", "user_email": "u1@x.com", "first_seen": "2025-10-09T00:00:00.000Z"},
    ]


def test_a_segment_without_members_is_sent_as_one_empty_portion(crowd: tuple[Server, Receiver]) -> None:
    server, receiver = crowd
    answer = send(server, create(server, "none", profiles=[{"name": "none", "query": "user_id:nobody"}]))
    assert answer.json()["data"]["attributes"]["sent"] == 0
    assert [(p["members"], p["is_last"]) for p in receiver.notices] == [([], True)]


def test_a_webhook_that_refuses_ends_a_sending_and_says_how_far_it_came(crowd: tuple[Server, Receiver]) -> None:
    server, receiver = crowd
    made = create(server, "all", profiles=[{"name": "all", "query": "*"}])
    receiver.takes = 2
    answer = send(server, made)
    assert answer.status == 503
    assert "answered 503 after 2,000 members were sent" in answer.body.decode()
    assert [p["place"] for p in receiver.notices] == [0, 1]
    receiver.takes = None
    assert send(server, made).status == 200
    assert len({p["sending_id"] for p in receiver.notices}) == 2


def test_sending_needs_a_webhook_and_columns_that_are_there(shop: Server) -> None:
    made = create(shop, "sent nowhere", profiles=[{"name": "all", "query": "*"}])
    answer = send(shop, made)
    assert answer.status == 409
    assert "set webhook_url" in answer.body.decode()
    assert send(shop, made, "?column=user_id").status == 400
    assert shop.ask("POST", f"{OURS}/00000000-0000-0000-0000-000000000000/send").status == 404
