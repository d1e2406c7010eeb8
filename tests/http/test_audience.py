"""The ten audience operations over HTTP: what they answer, what they refuse and how, what readers see of changes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from threading import Event
from time import monotonic, sleep
from typing import Any

import pytest

from servers import Answered, Server

pytestmark = pytest.mark.xdist_group("audience")

WAIT_S = 60.0
BASE = "/api/v2/product-analytics"
TABLES = "/api/v2/reference-tables"
START_S = 1_760_000_000
HOUR_S = 3600
USERS = [f"u{i:02}" for i in range(1, 13)]
COUNTRIES = ["US", "DE", "FR"]
TIERS = ["gold", "silver", "bronze"]
NO_LIMITS = json.dumps(dict.fromkeys(("audience_read", "audience_write", "reference_tables_write"), "9999999/minute"))


def email(i: int) -> str:
    return f"u{i:02}@{'acme.com' if i % 2 else 'beta.org'}"


def events() -> list[dict[str, Any]]:
    """User i has i events, the latest i hours after the start."""
    made = []
    for i, user in enumerate(USERS, 1):
        person = {"id": user, "email": email(i), "name": f"User {i}"}
        where: dict[str, Any] = {
            "geo": {"country_iso_code": COUNTRIES[i % 3]},
            "account": {"id": f"a{i % 3}", "name": f"Account {i % 3}"},
        }
        for n in range(i):
            named = {"name": "bought" if n == 0 else "looked", "id": f"{user}-{n}"}
            base = {"type": "server", "application": {"id": "shop"}, "date": (START_S + (i - n / 100) * HOUR_S) * 1000}
            made.append({**base, "event": named, "usr": person, "session": {"id": f"s{user}"}, **where})
    return made


ROWS = "email,tier,score,active,since\n" + "".join(
    f"{'  ' + email(i).upper() + ' '},{TIERS[i % 3]},{i * 1.5},{'true' if i % 2 else 'FALSE'},2024-01-{i:02}\n"
    for i in range(1, 10)
)
"""Nine of the twelve users, their addresses written as people write them."""


def make_table(server: Server, name: str, content: str, key: str, integers: tuple[str, ...] = ()) -> str:
    """Upload a CSV file and make a table of it, as clients do. Gives its id."""
    headers = content.split("\n", 1)[0].split(",")
    asked = {"headers": headers, "part_count": 1, "part_size": len(content), "table_name": name}
    started = server.ask("POST", f"{TABLES}/uploads", {"data": {"type": "upload", "attributes": asked}})
    assert started.status == 201, started.body
    upload = started.json()["data"]
    (url,) = upload["attributes"]["part_urls"]
    assert server.ask("PUT", url.removeprefix(server.url), content.encode(), keys=False).status == 200
    fields = [{"name": h, "type": "INT32" if h in integers else "STRING"} for h in headers]
    attributes = {
        "table_name": name,
        "source": "LOCAL_FILE",
        "schema": {"fields": fields, "primary_keys": [key]},
        "file_metadata": {"upload_id": upload["id"]},
    }
    made = server.ask("POST", f"{TABLES}/tables", {"data": {"type": "reference_table", "attributes": attributes}})
    assert made.status == 201, made.body
    return str(made.json()["data"]["id"])


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Twelve users in three accounts, a table of nine of them, and a connection to it."""
    with Server(tmp_path_factory.mktemp("audience"), rate_limits=NO_LIMITS, events_days="36500") as server:
        assert server.ask("POST", "/api/v2/prodlytics", events()).status == 202
        make_table(server, "crm", ROWS, "email")
        fields = [
            field("tier"),
            field("score", type="number"),
            field("active", type="boolean"),
            field("since", type="date"),
        ]
        assert create(server, "crm", fields, join_type="email", join_attribute="user_email").status == 201
        deadline_s = monotonic() + WAIT_S
        while users(server)["total"] < len(USERS):
            assert monotonic() < deadline_s
            sleep(0.05)
        yield server


def field(id: str, source: str = "", type: str = "string", **more: Any) -> dict[str, Any]:
    return {"id": id, "source_name": source or id, "type": type, **more}


def create(
    server: Server,
    id: str | None,
    fields: list[dict[str, Any]],
    entity: str = "users",
    table: str | None = "crm",
    headers: dict[str, str] | None = None,
    **changed: Any,
) -> Answered:
    attributes: dict[str, Any] = {"type": "ref_table", "join_type": "email", "join_attribute": "email"}
    attributes["fields"] = fields
    attributes |= {"metadata": {"table_name": table}} if table else {}
    data = {"type": "connection_id", "attributes": attributes | changed} | ({"id": id} if id else {})
    return server.ask("POST", f"{BASE}/{entity}/mapping/connection", {"data": data}, headers=headers)


def update(
    server: Server, id: str, entity: str = "users", headers: dict[str, str] | None = None, **attributes: Any
) -> Answered:
    body = {"data": {"type": "connection_id", "id": id, "attributes": attributes}}
    return server.ask("PUT", f"{BASE}/{entity}/mapping/connection", body, headers=headers)


def remove(server: Server, id: str, entity: str = "users") -> Answered:
    return server.ask("DELETE", f"{BASE}/{entity}/mapping/connection/{id}")


def ask(server: Server, path: str, type: str, attributes: dict[str, Any] | None) -> Answered:
    data: dict[str, Any] = {"type": type} | ({"attributes": attributes} if attributes is not None else {})
    return server.ask("POST", f"{BASE}/{path}", {"data": data})


def ask_users(server: Server, **attributes: Any) -> Answered:
    return ask(server, "users/query", "query_users_request", attributes)


def users(server: Server, **attributes: Any) -> dict[str, Any]:
    return attributes_of(ask_users(server, **attributes))


def attributes_of(answer: Answered) -> dict[str, Any]:
    assert answer.status == 200, answer.body
    found: dict[str, Any] = answer.json()["data"]["attributes"]
    return found


def ids(server: Server, **attributes: Any) -> list[str]:
    return [hit["user_id"] for hit in users(server, select_columns=["user_id"], **attributes)["hits"]]


def facet(server: Server, id: str, entity: str = "users", limit: int = 100, **attributes: Any) -> dict[str, Any]:
    asked = {"facet_id": id, "limit": limit, **attributes}
    found: dict[str, Any] = attributes_of(ask(server, f"{entity}/facet_info", "users_facet_info_request", asked))[
        "result"
    ]
    return found


def refused(answer: Answered, status: int, *words: str) -> None:
    """Refused in the documented body, in words that help."""
    assert (answer.status, answer.headers["content-type"]) == (status, "application/json"), answer
    body = answer.json()
    assert list(body) == ["errors"]
    assert all(isinstance(text, str) for text in body["errors"])
    assert [w for w in words if w not in " ".join(body["errors"])] == [], body


def shown_mapping(server: Server, entity: str = "users", version: int | None = None) -> dict[str, dict[str, Any]]:
    path = f"{BASE}/{entity}/mapping" + (f"?version={version}" if version is not None else "")
    return {a["attribute"]: a for a in attributes_of(server.ask("GET", path))["attributes"]}


def connections(server: Server, entity: str = "users") -> dict[str, dict[str, Any]]:
    found = attributes_of(server.ask("GET", f"{BASE}/{entity}/mapping/connections"))["connections"]
    return {c["id"]: c for c in found}


# users


def test_users_in_their_frame(shop: Server) -> None:
    answer = ask_users(
        shop, select_columns=["user_id", "user_email", "last_seen", "events_count", "@tier", "score"], limit=2
    )
    wanted = [
        ("u12", email(12), "2025-10-09T20:53:20.000Z", 12, None, None),
        ("u11", email(11), "2025-10-09T19:53:20.000Z", 11, None, None),
    ]
    names = ["user_id", "user_email", "last_seen", "events_count", "@tier", "score"]
    hits = [dict(zip(names, row, strict=True)) for row in wanted]
    attributes = {"hits": hits, "total": 12}
    assert answer.json() == {"data": {"id": "query_response", "type": "query_response", "attributes": attributes}}
    assert answer.headers["content-type"] == "application/json"


def test_without_wishes_all_users_with_all_attributes(shop: Server) -> None:
    everything = users(shop)
    assert [hit["user_id"] for hit in everything["hits"]] == USERS[::-1], "latest first"
    assert all(hit.keys() == shown_mapping(shop).keys() for hit in everything["hits"])
    for body in ({}, {"data": None}, {"data": {"type": "query_users_request"}}):
        assert attributes_of(shop.ask("POST", f"{BASE}/users/query", body)) == everything


def test_both_spellings_are_echoed(shop: Server) -> None:
    columns = ["tier", "@tier", "@user_id", "user_id", "tier"]
    (hit,) = users(shop, query="user_id:u01", select_columns=columns)["hits"]
    assert list(hit.items()) == [("tier", "silver"), ("@tier", "silver"), ("@user_id", "u01"), ("user_id", "u01")]


def test_values_have_their_types(shop: Server) -> None:
    (hit,) = users(shop, query="user_id:u03", select_columns=["tier", "score", "active", "since"])["hits"]
    assert hit == {"tier": "gold", "score": 4.5, "active": True, "since": "2024-01-03T00:00:00.000Z"}
    (hit,) = users(shop, query="user_id:u02", select_columns=["score", "active"])["hits"]
    assert hit == {"score": 3, "active": False}


@pytest.mark.parametrize(
    ("query", "wanted"),
    [
        ("tier:gold", [3, 6, 9]),
        ("@tier:gold", [3, 6, 9]),
        ("-tier:gold", [1, 2, 4, 5, 7, 8, 10, 11, 12]),
        ("tier:(gold OR silver) AND score:>=6", [4, 6, 7, 9]),
        ("score:[3 TO 6]", [2, 3, 4]),
        ("active:true", [1, 3, 5, 7, 9]),
        ("since:<2024-01-03", [1, 2]),
        ("-tier:*", [10, 11, 12]),
        ("user_email:*@acme.com account_id:a0", [3, 9]),
        ("first_country_code:US", [3, 6, 9, 12]),
        ("events_count:>10", [11, 12]),
    ],
)
def test_search(shop: Server, query: str, wanted: list[int]) -> None:
    assert sorted(ids(shop, query=query)) == [USERS[i - 1] for i in wanted]
    assert users(shop, query=query, limit=1)["total"] == len(wanted), "the total ignores the limit"


def test_sort(shop: Server) -> None:
    for order in ("asc", "ASC"):
        assert ids(shop, sort={"field": "events_count", "order": order}) == USERS
    for order in ("desc", "DESC"):
        assert ids(shop, sort={"field": "user_id", "order": order}) == USERS[::-1]
    assert ids(shop, sort={"field": "user_name"}, limit=1) == ["u09"]
    known = [USERS[i - 1] for i in range(1, 10)]
    assert ids(shop, query="tier:*", sort={"field": "@score", "order": "asc"}) == known
    by_tier = [USERS[i - 1] for t in ("bronze", "gold", "silver") for i in range(1, 10) if TIERS[i % 3] == t]
    assert ids(shop, query="tier:*", sort={"field": "tier", "order": "asc"}) == by_tier, "then by id"
    refused(
        ask_users(shop, sort={"field": "user_id", "order": "up"}), 400, "/data/attributes/sort/order", "asc or desc"
    )


def test_wildcard_term(shop: Server) -> None:
    assert sorted(ids(shop, wildcard_search_term="GOLD")) == ["u03", "u06", "u09"]
    assert ids(shop, wildcard_search_term="u?2@beta") == ["u12", "u02"]
    assert ids(shop, wildcard_search_term="gold", query="events_count:>8") == ["u09"]
    assert ids(shop, wildcard_search_term="%") == []


def test_unknown_attributes_are_missing_with_a_warning(shop: Server) -> None:
    answer = ask_users(
        shop, select_columns=["user_id", "@teir"], query="-nothing:1", sort={"field": "whatever"}, limit=1
    )
    (hit,) = attributes_of(answer)["hits"]
    assert hit == {"user_id": "u01", "@teir": None}
    warnings = answer.json()["meta"]["warnings"]
    assert [w for w in warnings if "'@teir'" in w and "'tier'" in w]
    assert [w for w in warnings if "'nothing'" in w]
    assert [w for w in warnings if "'whatever'" in w]
    assert "meta" not in ask_users(shop, query="tier:gold").json()


@pytest.mark.parametrize(
    ("attributes", "words"),
    [
        ({"query": "tier:("}, ["/data/attributes/query", "character"]),
        ({"query": 'user_id:"open'}, ["/data/attributes/query", "character"]),
        ({"limit": 0}, ["/data/attributes/limit", "10000", "profiles_limit_max"]),
        ({"limit": 10_001}, ["/data/attributes/limit", "10000"]),
        ({"limit": "5"}, ["/data/attributes/limit"]),
        ({"select_columns": "user_id"}, ["/data/attributes/select_columns"]),
        ({"select_columns": [1], "limit": True}, ["/data/attributes/select_columns/0", "/data/attributes/limit"]),
        ({"sort": {"field": 1}}, ["/data/attributes/sort/field"]),
    ],
)
def test_refused_queries_say_where(shop: Server, attributes: dict[str, Any], words: list[str]) -> None:
    refused(ask_users(shop, **attributes), 400, *words)


def test_a_wrong_type_is_refused_everywhere(shop: Server) -> None:
    for path, right in (
        ("users/query", "query_users_request"),
        ("accounts/query", "query_account_request"),
        ("users/event_filtered_query", "query_event_filtered_users_request"),
        ("users/facet_info", "users_facet_info_request"),
        ("accounts/facet_info", "users_facet_info_request"),
    ):
        for wrong in ("query", right.upper(), None):
            refused(shop.ask("POST", f"{BASE}/{path}", {"data": {"type": wrong}}), 400, "/data/type", right)
        refused(shop.ask("POST", f"{BASE}/{path}", {"data": {}}), 400, "/data/type")


# accounts


def test_accounts(shop: Server) -> None:
    columns = ["account_id", "account_name", "user_count", "last_seen"]
    asked = {"select_columns": columns, "sort": {"field": "account_id", "order": "asc"}}
    answer = ask(shop, "accounts/query", "query_account_request", asked)
    hours = [12, 10, 11]
    wanted = [
        {
            "account_id": f"a{n}",
            "account_name": f"Account {n}",
            "user_count": 4,
            "last_seen": f"2025-10-09T{(8 + hours[n])}:53:20.000Z",
        }
        for n in range(3)
    ]
    assert attributes_of(answer) == {"hits": wanted, "total": 3}
    assert answer.json()["data"]["type"] == "query_response"


def test_a_connection_of_accounts(shop: Server) -> None:
    make_table(shop, "plans", "account_id,plan,seats\na0,free,3\na1,paid,40\n", "account_id", integers=("seats",))
    fields = [field("plan"), field("seats", type="int")]
    assert (
        create(shop, "plans", fields, "accounts", "plans", join_type="account_id", join_attribute="account_id").status
        == 201
    )
    assert {"@plan", "@seats"} <= shown_mapping(shop, "accounts").keys()
    assert not {"@plan", "@seats"} & shown_mapping(shop, "users").keys(), "accounts have a mapping of their own"
    asked = {
        "query": "seats:>=3",
        "select_columns": ["account_id", "@plan", "seats"],
        "sort": {"field": "seats", "order": "desc"},
    }
    hits = attributes_of(ask(shop, "accounts/query", "query_account_request", asked))["hits"]
    assert hits == [
        {"account_id": "a1", "@plan": "paid", "seats": 40},
        {"account_id": "a0", "@plan": "free", "seats": 3},
    ]
    assert facet(shop, "plan", "accounts")["values"] == [{"value": "free", "count": 1}, {"value": "paid", "count": 1}]
    assert (
        update(shop, "plans", "accounts", fields_to_update=[{"field_id": "plan", "updated_field_id": "package"}]).status
        == 200
    )
    assert facet(shop, "@package", "accounts")["values"] == facet(shop, "plan", "accounts")["values"]
    assert remove(shop, "plans", "accounts").status == 204
    assert facet(shop, "package", "accounts")["values"] == []


# users by their events


def ask_event_filtered(server: Server, **attributes: Any) -> Answered:
    return ask(server, "users/event_filtered_query", "query_event_filtered_users_request", attributes)


def frame(start_s: int | None, end_s: int | None, query: str = "") -> dict[str, Any]:
    return {"query": query, "time_frame": {"start": start_s, "end": end_s}}


def found_by_events(server: Server, events: dict[str, Any], **more: Any) -> list[str]:
    found = attributes_of(ask_event_filtered(server, event_query=events, select_columns=["user_id"], **more))
    return sorted(hit["user_id"] for hit in found["hits"])


def test_users_by_their_events(shop: Server) -> None:
    end_s = START_S + 3 * HOUR_S
    assert found_by_events(shop, frame(START_S, end_s)) == ["u01", "u02", "u03"], "u03 looked before its hour"
    assert found_by_events(shop, frame(START_S, end_s, "@event.name:bought")) == ["u01", "u02"], "the end is not in"
    assert found_by_events(shop, frame(START_S, end_s + 1, "@event.name:bought")) == ["u01", "u02", "u03"]
    assert found_by_events(shop, frame(end_s, end_s + 1, "@event.name:bought")) == ["u03"], "the start is"
    assert found_by_events(shop, frame(None, end_s), query="tier:bronze") == ["u02"]
    assert found_by_events(shop, frame(end_s, None, "@usr.id:(u01 OR u04)")) == ["u04"]
    assert found_by_events(shop, {"query": "@type:server @tier:gold"}) == ["u03", "u06", "u09"]
    assert found_by_events(shop, {"query": "@event.name:never"}) == []
    assert found_by_events(shop, {}) == USERS


def test_the_row_count_is_optional(shop: Server) -> None:
    asked = {"event_query": {"query": "@event.name:bought"}, "limit": 1, "select_columns": ["user_id"]}
    hits = [{"user_id": "u12"}]
    assert attributes_of(ask_event_filtered(shop, **asked)) == {"hits": hits, "total": 12}
    assert attributes_of(ask_event_filtered(shop, **asked, include_row_count=True)) == {"hits": hits, "total": 12}
    assert attributes_of(ask_event_filtered(shop, **asked, include_row_count=False)) == {"hits": hits}


def test_time_frames_that_are_none(shop: Server) -> None:
    at = "/data/attributes/event_query/time_frame"
    refused(ask_event_filtered(shop, event_query=frame(START_S * 1000, None)), 400, at + "/start", "seconds")
    refused(ask_event_filtered(shop, event_query=frame(5, 5)), 400, at, "start < end")
    refused(ask_event_filtered(shop, event_query=frame(-1, 5)), 400, at + "/start")
    refused(
        ask_event_filtered(shop, event_query=frame(1, 2, "a:(")), 400, "/data/attributes/event_query/query", "character"
    )


# facets


def test_facets_in_their_frame(shop: Server) -> None:
    asked = {"facet_id": "tier", "limit": 10}
    values = [{"value": v, "count": 3} for v in sorted(TIERS)]
    for entity, wanted in (("users", values), ("accounts", [])):
        answer = ask(shop, f"{entity}/facet_info", "users_facet_info_request", asked)
        attributes = {"result": {"values": wanted}}
        assert answer.json()["data"] == {
            "id": "facet_info_response",
            "type": "users_facet_info",
            "attributes": attributes,
        }


def test_facets_come_by_count_then_by_value(shop: Server) -> None:
    under: dict[str, Any] = {"search": {"query": "events_count:<8"}}
    values = [{"value": "silver", "count": 3}, {"value": "bronze", "count": 2}, {"value": "gold", "count": 2}]
    assert facet(shop, "tier", **under)["values"] == values
    assert facet(shop, "@tier", limit=2, **under)["values"] == values[:2]
    assert facet(shop, "@tier", term_search={"value": "L"}, **under)["values"] == [values[0], values[2]]
    assert facet(shop, "user_email", term_search={"value": "u1?@b"})["values"] == [
        {"value": email(i), "count": 1} for i in (10, 12)
    ]


def test_facets_of_numbers_have_a_range(shop: Server) -> None:
    found = facet(shop, "score", search={"query": "tier:gold"})
    assert found["range"] == {"min": {"value": 4.5}, "max": {"value": 13.5}}
    assert sorted((float(v["value"]), v["count"]) for v in found["values"]) == [(4.5, 1), (9.0, 1), (13.5, 1)]
    assert all(isinstance(v["value"], str) for v in found["values"])
    assert "range" not in facet(shop, "score", search={"query": "-tier:*"}), "no values, no range"
    assert "range" not in facet(shop, "tier")


def test_facets_that_are_none(shop: Server) -> None:
    answer = ask(shop, "users/facet_info", "users_facet_info_request", {"facet_id": "teir", "limit": 5})
    assert attributes_of(answer) == {"result": {"values": []}}
    assert "'tier'" in answer.json()["meta"]["warnings"][0]
    for attributes, word in (({"limit": 5}, "facet_id"), ({"facet_id": "tier"}, "limit"), (None, "facet_id")):
        refused(ask(shop, "users/facet_info", "users_facet_info_request", attributes), 400, f"/data/attributes/{word}")
    for limit in (0, -1, 10_001):
        asked = {"facet_id": "tier", "limit": limit}
        refused(ask(shop, "accounts/facet_info", "users_facet_info_request", asked), 400, "/data/attributes/limit")


# explain


@pytest.mark.parametrize(
    ("path", "type", "attributes"),
    [
        ("users/query", "query_users_request", {"query": "tier:secret"}),
        ("accounts/query", "query_account_request", {"query": "account_id:secret"}),
        (
            "users/event_filtered_query",
            "query_event_filtered_users_request",
            {"event_query": {"query": "@usr.id:secret"}},
        ),
        (
            "users/facet_info",
            "users_facet_info_request",
            {"facet_id": "tier", "limit": 3, "search": {"query": "tier:secret"}},
        ),
    ],
)
def test_explain(shop: Server, path: str, type: str, attributes: dict[str, Any]) -> None:
    body = {"data": {"type": type, "attributes": attributes}}
    answer = shop.ask("POST", f"{BASE}/{path}?explain=true", body)
    found = attributes_of(answer)
    assert answer.json()["data"]["type"] == "explanation"
    assert found["queries"]
    for query in found["queries"]:
        assert query["plan"]
        assert query["settled"]
        assert query["physical"]
        assert "SELECT" in query["sql"]
        assert "secret" not in query["sql"], "values are bound, never text"
        assert "secret" in query["parameters"]
    refused(shop.ask("POST", f"{BASE}/{path}?explain=perhaps", body), 400, "parameter explain", "true, false")
    assert "queries" not in attributes_of(shop.ask("POST", f"{BASE}/{path}?explain=false", body))


# the mapping


@pytest.mark.parametrize("entity", ["users", "accounts"])
def test_the_mapping_starts_with_the_builtins(shop: Server, entity: str) -> None:
    answer = shop.ask("GET", f"{BASE}/{entity}/mapping?version=0")
    data = answer.json()["data"]
    assert (data["id"], data["type"]) == ("get_mappings_response", "get_mappings_response")
    shown = data["attributes"]["attributes"]
    first = {"users": "user_id", "accounts": "account_id"}[entity]
    assert shown[0]["attribute"] == first
    assert all(not a["is_custom"] and not a["attribute"].startswith("@") and a["type"] != "integer" for a in shown)
    assert answer.headers["etag"] == '"0"'
    assert shop.ask("GET", f"{BASE}/{entity.removesuffix('s')}/mapping?version=0").json() == answer.json()


def test_the_mapping_shows_custom_attributes_as_given(shop: Server) -> None:
    more: dict[str, Any] = {"display_name": "The Tier", "description": "what they pay", "groups": ["Business", "CRM"]}
    assert create(shop, "shown", [field("shown_tier", "tier", **more), field("plain.name-x", "tier")]).status == 201
    mapping = shown_mapping(shop)
    assert mapping["@shown_tier"] == {"attribute": "@shown_tier", "is_custom": True, "type": "string", **more}
    assert mapping["@plain.name-x"]["display_name"] == "Plain Name X"
    assert mapping["@score"]["type"] == "number"
    change = {"field_id": "shown_tier", "updated_display_name": "Tier", "updated_groups": []}
    assert update(shop, "shown", fields_to_update=[change]).status == 200
    after = {**mapping["@shown_tier"], "display_name": "Tier", "groups": []}
    assert shown_mapping(shop)["@shown_tier"] == after, "what is omitted is unchanged"
    assert remove(shop, "shown").status == 204


def test_old_versions_of_the_mapping(shop: Server) -> None:
    answer = create(shop, "old", [field("old_tier", "tier")], headers={"X-Roster-Reason": "because"})
    made = int(answer.headers["etag"].strip('"'))
    assert remove(shop, "old").headers["etag"] == f'"{made + 1}"'
    assert "@old_tier" in shown_mapping(shop, version=made)
    assert "@old_tier" not in shown_mapping(shop, version=made - 1)
    assert "@old_tier" not in shown_mapping(shop)
    found = attributes_of(shop.ask("GET", f"{BASE}/users/mapping/versions"))["versions"]
    assert [v["version"] for v in found] == list(range(made + 1, 0, -1))
    assert (found[1]["why"], json.loads(found[1]["request"])["data"]["id"]) == ("because", "old")
    refused(shop.ask("GET", f"{BASE}/users/mapping?version={made + 2}"), 404, str(made + 2))
    for bad in ("-1", "x", "1.5", "9" * 40):
        refused(shop.ask("GET", f"{BASE}/users/mapping?version={bad}"), 400, "parameter version")


def test_an_unknown_entity_is_refused_everywhere(shop: Server) -> None:
    for answer in (
        shop.ask("GET", f"{BASE}/sessions/mapping"),
        shop.ask("GET", f"{BASE}/sessions/mapping/connections"),
        shop.ask("GET", f"{BASE}/sessions/mapping/versions"),
        create(shop, "x", [], "sessions"),
        update(shop, "x", "sessions"),
        remove(shop, "x", "sessions"),
    ):
        refused(answer, 400, "'sessions'", "users, accounts")


def test_connections_are_listed_as_created(shop: Server) -> None:
    crm = connections(shop)["crm"]
    assert (crm["type"], crm["join"]) == ("ref_table", {"attribute": "user_email", "type": "email"})
    assert [(f["id"], f["source_name"], f["type"]) for f in crm["fields"]] == [
        ("tier", "tier", "string"),
        ("score", "score", "number"),
        ("active", "active", "boolean"),
        ("since", "since", "timestamp"),
    ]
    since = crm["metadata"].pop("roster_since")
    assert datetime.fromisoformat(since) <= datetime.now(UTC)
    assert crm["metadata"] == {"table_name": "crm", "roster_state": "ok"}
    assert crm["created_at"].endswith("Z")
    assert crm["created_by"] == crm["updated_by"] != ""


# creating


def test_creating_again_changes_nothing(shop: Server) -> None:
    fields = [field("again", "tier")]
    first = create(shop, "again", fields)
    assert (first.status, first.body) == (201, b"")
    assert "content-type" not in first.headers
    again = create(shop, "again", fields)
    assert (again.status, again.body, again.headers["etag"]) == (201, b"", first.headers["etag"])
    refused(create(shop, "again", [field("again", "score")]), 409, "/data/id", "'again'")
    assert remove(shop, "again").status == 204


def test_a_connection_without_an_id_gets_one(shop: Server) -> None:
    before = connections(shop).keys()
    assert create(shop, None, [field("unnamed", "tier")]).status == 201
    (id,) = connections(shop).keys() - before
    assert create(shop, None, [field("unnamed", "tier")]).status == 201, "sent again after a lost answer"
    assert connections(shop).keys() - before == {id}
    assert remove(shop, id).status == 204


@pytest.mark.parametrize(
    ("status", "words", "id", "fields", "changed"),
    [
        (409, ["/data/attributes/fields/0/id", "built-in"], "bad", [field("user_id", "tier")], {}),
        (409, ["/data/attributes/fields/0/id", "built-in"], "bad", [field("@Last_Seen", "tier")], {}),
        (409, ["/data/attributes/fields/1/id", "'crm'"], "bad", [field("ok", "tier"), field("tier", "tier")], {}),
        (409, ["/data/id", "case"], "CRM", [field("ok", "tier")], {}),
        (400, ["/data/attributes/fields/0/source_name", "'tier'"], "bad", [field("x", "teir")], {}),
        (400, ["/data/attributes/fields/0/type", "timestamp", "datetime"], "bad", [field("x", "tier", "blob")], {}),
        (400, ["/data/attributes/fields/1/id", "twice"], "bad", [field("x", "tier"), field("@X", "tier")], {}),
        (400, ["/data/attributes/fields/0/id"], "bad", [field("a b", "tier")], {}),
        (400, ["/data/attributes/fields/0/id"], "bad", [field("x" * 201, "tier")], {}),
        (400, ["/data/id"], "no/slash", [], {}),
        (400, ["/data/attributes/join_type", "email"], "bad", [], {"join_type": "shoe_size"}),
        (400, ["/data/attributes/join_attribute", "'email'"], "bad", [], {"join_attribute": "emial"}),
        (400, ["/data/attributes/join_attribute"], "bad", [], {"join_attribute": ""}),
        (400, ["/data/attributes/metadata/x"], "bad", [], {"metadata": {"x": 1}}),
        (501, ["/data/attributes/type", "ref_table"], "bad", [], {"type": "oracle"}),
        (400, ["/data/attributes/metadata/table_name", "'table'"], "bad", [], {"type": "snowflake"}),
        (400, ["too many", "fields_max"], "bad", [field(f"x{i}", "tier") for i in range(201)], {}),
    ],
)
def test_refused_connections(
    shop: Server, status: int, words: list[str], id: str, fields: list[dict[str, Any]], changed: dict[str, Any]
) -> None:
    before = shop.ask("GET", f"{BASE}/users/mapping").headers["etag"]
    refused(create(shop, id, fields, **changed), status, *words)
    assert shop.ask("GET", f"{BASE}/users/mapping").headers["etag"] == before


def test_a_connection_waits_for_its_table(shop: Server) -> None:
    assert (
        create(
            shop, "late", [field("late_city", "city")], table="late_table", join_type="user_id", join_attribute="id"
        ).status
        == 201
    )
    waiting = connections(shop)["late"]["metadata"]
    assert (waiting["roster_state"], waiting["roster_waits_for"]) == ("waiting", "reference table late_table")
    assert "@late_city" in shown_mapping(shop)
    answer = ask_users(shop, query="user_id:u01", select_columns=["user_id", "late_city"])
    assert attributes_of(answer)["hits"] == [{"user_id": "u01", "late_city": None}]
    table = make_table(shop, "late_table", "id,city\nu01,Rome\n", "id")
    assert attributes_of(ask_users(shop, query="late_city:Rome", select_columns=["user_id"]))["total"] == 1
    assert connections(shop)["late"]["metadata"]["roster_state"] == "ok"
    assert shop.ask("DELETE", f"{TABLES}/tables/{table}").status == 200
    assert connections(shop)["late"]["metadata"]["roster_state"] == "waiting"
    assert facet(shop, "late_city")["values"] == [], "what is gone is gone, not stale"
    make_table(shop, "late_table", "id,city\nu02,Oslo\n", "id")
    assert facet(shop, "late_city")["values"] == [{"value": "Oslo", "count": 1}]
    assert remove(shop, "late").status == 204


def test_a_connection_is_named_like_its_table(shop: Server) -> None:
    make_table(shop, "Named Table", "id,city\nu01,Rome\n", "id")
    assert (
        create(
            shop, "named-table", [field("named_city", "city")], table=None, join_type="user_id", join_attribute="id"
        ).status
        == 201
    )
    assert facet(shop, "named_city")["values"] == [{"value": "Rome", "count": 1}]
    assert remove(shop, "named-table").status == 204


# updating


def test_one_request_deletes_then_renames_then_adds(shop: Server) -> None:
    fields = [field("order_a", "tier"), field("order_b", "score", "number"), field("order_c", "active")]
    assert create(shop, "order", fields).status == 201
    answer = update(
        shop,
        "order",
        fields_to_add=[field("order_b", "since"), field("order_d", "score")],
        fields_to_update=[{"field_id": "order_b", "updated_field_id": "order_a"}],
        fields_to_delete=["order_a", "order_c"],
    )
    assert (answer.status, answer.body) == (200, b"")
    assert {f["id"]: (f["source_name"], f["type"]) for f in connections(shop)["order"]["fields"]} == {
        "order_a": ("score", "number"),
        "order_b": ("since", "string"),
        "order_d": ("score", "string"),
    }
    (hit,) = users(shop, query="user_id:u03", select_columns=["order_a", "order_b", "order_c", "order_d"])["hits"]
    assert hit == {"order_a": 4.5, "order_b": "2024-01-03", "order_c": None, "order_d": "4.5"}
    refused(
        update(shop, "order", fields_to_delete=["order_a"], fields_to_update=[{"field_id": "order_a"}]),
        404,
        "deletes it first",
    )
    assert remove(shop, "order").status == 204


def test_a_renamed_field_answers_to_its_old_id(shop: Server) -> None:
    assert create(shop, "alias", [field("alias_1", "tier")]).status == 201
    for old, new in (("alias_1", "alias_2"), ("alias_2", "alias_3")):
        assert update(shop, "alias", fields_to_update=[{"field_id": old, "updated_field_id": new}]).status == 200
    for name in ("alias_1", "@alias_2", "alias_3"):
        answer = ask_users(shop, query=f"{name}:gold", select_columns=[name], limit=1)
        assert attributes_of(answer) == {"hits": [{name: "gold"}], "total": 3}
        assert "meta" not in answer.json()
        assert len(facet(shop, name)["values"]) == 3
    aliases = connections(shop)["alias"]["metadata"]["roster_aliases"]
    used = "(used 2 times, last "
    assert [a.split(used)[0] for a in sorted(aliases.split("; "))] == ["alias_1 -> alias_3 ", "alias_2 -> alias_3 "]
    assert {a for a in shown_mapping(shop) if "alias" in a} == {"@alias_3"}
    refused(update(shop, "alias", fields_to_update=[{"field_id": "alias_1", "updated_field_id": "x"}]), 404, "alias_3")
    assert update(shop, "alias", fields_to_add=[field("alias_1", "score")]).status == 200
    (hit,) = users(shop, query="user_id:u03", select_columns=["alias_1", "alias_3"])["hits"]
    assert hit == {"alias_1": "4.5", "alias_3": "gold"}, "an id that is taken again is no alias any more"
    assert remove(shop, "alias").status == 204


@pytest.mark.parametrize(
    ("status", "words", "attributes"),
    [
        (404, ["/data/attributes/fields_to_update/0/field_id", "'tier'"], {"fields_to_update": [{"field_id": "teir"}]}),
        (
            409,
            ["/data/attributes/fields_to_update/0/updated_field_id", "'score'"],
            {"fields_to_update": [{"field_id": "tier", "updated_field_id": "score"}]},
        ),
        (409, ["/data/attributes/fields_to_add/0/id"], {"fields_to_add": [field("tier", "score")]}),
        (400, ["/data/attributes/fields_to_add/0/source_name", "'score'"], {"fields_to_add": [field("x", "scoer")]}),
        (400, ["/data/attributes/fields_to_add/0/type"], {"fields_to_add": [{"id": "x", "source_name": "tier"}]}),
        (400, ["/data/attributes/fields_to_delete/1", "twice"], {"fields_to_delete": ["tier", "@tier"]}),
        (
            400,
            ["/data/attributes/fields_to_update/0/updated_groups"],
            {"fields_to_update": [{"field_id": "tier", "updated_groups": "x"}]},
        ),
    ],
)
def test_refused_updates(shop: Server, status: int, words: list[str], attributes: dict[str, Any]) -> None:
    before = connections(shop)["crm"]
    refused(update(shop, "crm", **attributes), status, *words)
    assert connections(shop)["crm"] == before


def test_an_update_without_wishes(shop: Server) -> None:
    before = shop.ask("GET", f"{BASE}/users/mapping").headers["etag"]
    assert update(shop, "crm").headers["etag"] == before
    path = f"{BASE}/users/mapping/connection"
    assert shop.ask("PUT", path, {"data": {"type": "connection_id", "id": "crm"}}).headers["etag"] == before
    refused(shop.ask("PUT", path, {"data": {"type": "connection_id"}}), 400, "/data/id")
    refused(shop.ask("PUT", path, {}), 400, "/data")
    refused(update(shop, "crn"), 404, "/data/id", "'crm'")


# deleting


def test_deleting_a_connection(shop: Server) -> None:
    assert create(shop, "gone", [field("gone_tier", "tier")]).status == 201
    assert facet(shop, "gone_tier")["values"]
    answer = remove(shop, "gone")
    assert (answer.status, answer.body) == (204, b"")
    assert "@gone_tier" not in shown_mapping(shop)
    answer = ask_users(shop, query="gone_tier:gold", select_columns=["gone_tier"])
    assert attributes_of(answer) == {"hits": [], "total": 0}
    assert "'gone_tier'" in answer.json()["meta"]["warnings"][0]
    refused(remove(shop, "gone"), 404, "'gone'")
    assert "crm" in [
        t["attributes"]["table_name"] for t in shop.ask("GET", f"{TABLES}/tables?page[limit]=100").json()["data"]
    ]


# what readers see


def test_readers_see_a_change_whole(shop: Server) -> None:
    """Two fields trade places and two more come and go, while others read: never one without the other."""
    fields = [field("left", "tier"), field("right", "active")]
    assert create(shop, "whole", fields).status == 201
    finished, pair = Event(), [field("here", "tier"), field("there", "score", "number")]
    swap = [{"field_id": "left", "updated_field_id": "right"}, {"field_id": "right", "updated_field_id": "left"}]

    def write() -> None:
        try:
            for n in range(40):
                change = {"fields_to_add": pair} if n % 2 else {"fields_to_delete": ["here", "there"]}
                assert update(shop, "whole", fields_to_update=swap, **change).status == 200
        finally:
            finished.set()

    def read() -> set[tuple[Any, ...]]:
        seen = set()
        while not finished.is_set():
            (hit,) = users(shop, query="user_id:u03", select_columns=["left", "right", "here", "there"])["hits"]
            seen.add(tuple(hit.values()))
        return seen

    def read_mapping() -> set[frozenset[str]]:
        seen = set()
        while not finished.is_set():
            seen.add(frozenset({"@left", "@right", "@here", "@there"} & shown_mapping(shop).keys()))
        return seen

    with ThreadPoolExecutor(4) as pool:
        mappings, *hits = pool.submit(read_mapping), pool.submit(read), pool.submit(read)
        pool.submit(write).result(WAIT_S)
        assert mappings.result(WAIT_S) <= {
            frozenset({"@left", "@right"}),
            frozenset({"@left", "@right", "@here", "@there"}),
        }
        seen = hits[0].result(WAIT_S) | hits[1].result(WAIT_S)
    both = {("gold", "true"), ("true", "gold")}
    assert {s[:2] for s in seen} <= both
    assert {s[2:] for s in seen} <= {(None, None), ("gold", 4.5)}
    assert len({s[:2] for s in seen}) == 2, "the readers saw both sides"
    assert remove(shop, "whole").status == 204


def test_readers_while_a_table_goes_and_comes(shop: Server) -> None:
    """A query beside a table that is deleted and made again answers with or without it, and never fails for long."""
    content, finished = "id,city\nu03,Rome\n", Event()
    assert (
        create(
            shop, "flip", [field("flip_city", "city")], table="flip", join_type="user_id", join_attribute="id"
        ).status
        == 201
    )

    def write() -> None:
        try:
            for _ in range(15):
                table = make_table(shop, "flip", content, "id")
                assert shop.ask("DELETE", f"{TABLES}/tables/{table}").status == 200
        finally:
            finished.set()

    def read() -> set[tuple[int, Any]]:
        seen = set()
        while not finished.is_set():
            answer = ask_users(shop, query="user_id:u03", select_columns=["flip_city"])
            seen.add((answer.status, attributes_of(answer)["hits"][0]["flip_city"] if answer.status == 200 else None))
        return seen

    with ThreadPoolExecutor(3) as pool:
        readers = [pool.submit(read), pool.submit(read)]
        pool.submit(write).result(WAIT_S)
        seen = readers[0].result(WAIT_S) | readers[1].result(WAIT_S)
    assert seen <= {(200, None), (200, "Rome"), (503, None)}
    assert '"event": "internal"' not in shop.log()
    assert remove(shop, "flip").status == 204
