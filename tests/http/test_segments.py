"""Segments and saved queries over HTTP: what they answer and refuse, and that a count is always the present one."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest

from servers import Answered, Server

pytestmark = pytest.mark.xdist_group("segments")

SEGMENTS = "/api/v2/rum/segment"
QUERIES = "/api/roster/queries"
MAPPING = "/api/v2/product-analytics/users/mapping"


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Six users, three of them gold, in two accounts."""
    folder = tmp_path_factory.mktemp("segments")
    server = Server(folder, segments_max="5", queries_max="3")
    people = folder / "people.csv"
    rows = [f"2025-10-09T0{i}:00:00Z,v{i},u{i},u{i}@x.com,a{i % 2}" for i in range(6)]
    people.write_text("\n".join(["time,id,user,mail,account", *rows]) + "\n")
    crm = folder / "crm.csv"
    crm.write_text("mail,tier\n" + "".join(f"u{i}@x.com,{'gold' if i < 3 else 'silver'}\n" for i in range(6)))
    columns = ["date=time", "view.id=id", "usr.id=user", "usr.email=mail", "account.id=account", "type==view"]
    server.cli("load", str(people), *(word for column in columns for word in ("--map", column)))
    server.cli("table", "load", str(crm), "--name", "crm", "--key", "mail")
    (folder / "vips.csv").write_text("mail\nu1@x.com\n")
    server.cli("table", "load", str(folder / "vips.csv"), "--name", "vips", "--key", "mail")
    with server:
        attributes = {
            "type": "ref_table",
            "join_type": "email",
            "join_attribute": "mail",
            "fields": [{"id": "tier", "source_name": "tier", "type": "string"}],
        }
        connection = {"data": {"type": "connection_id", "id": "crm", "attributes": attributes}}
        assert server.ask("POST", f"{MAPPING}/connection", connection).status == 201
        yield server


def body_of(name: str, query: str = "tier:gold", id: str = "", **more: Any) -> dict[str, Any]:
    attributes = {"name": name, "data_query": {"profiles": [{"name": "a", "query": query}]}} | more
    return {"data": {"type": "segment", "attributes": attributes} | ({"id": id} if id else {})}


def create(server: Server, name: str, query: str = "tier:gold", **more: Any) -> Answered:
    return server.ask("POST", SEGMENTS, body_of(name, query, **more))


def journey_of(**search: Any) -> dict[str, Any]:
    """A segment of one journey."""
    node = {"data_source": "product_analytics", "search": {"query": "@view.name:home"}}
    rule = {"name": "a", "search": {"expression": "A", "node_objects": {"A": node}} | search}
    return body_of("x", data_query={"journeys": [rule]})


def table_of(column: str) -> dict[str, Any]:
    """A rule about who is in a column of a table."""
    return {"name": column, "table_name": "crm", "join_condition": {"column_name": column, "facet": "@usr.email"}}


def listed(server: Server, parameters: str = "") -> dict[str, dict[str, Any]]:
    answer = server.ask("GET", SEGMENTS + parameters)
    assert answer.status == 200, answer.body
    return {s["attributes"]["name"]: s["attributes"] for s in answer.json()["data"]}


@pytest.fixture
def gold(shop: Server) -> Iterator[str]:
    """The id of a segment for one test, which may leave others."""
    yield str(create(shop, "gold", description="pays", tags=["b", "a"]).json()["data"]["id"])
    for segment in shop.ask("GET", SEGMENTS).json()["data"]:
        assert shop.ask("DELETE", f"{SEGMENTS}/{segment['id']}").status == 200


def test_a_segment_is_answered_in_the_drafted_shape(shop: Server, gold: str) -> None:
    answer = shop.ask("GET", f"{SEGMENTS}/{gold}")
    assert answer.status == 200
    assert set(answer.json()) == {"data"}
    data = answer.json()["data"]
    assert (data["id"], data["type"]) == (gold, "segment")
    shown = data["attributes"]
    org_id, created, person = shown.pop("org_id"), shown.pop("created_at"), shown.pop("created_by")
    assert isinstance(org_id, int)
    assert (shown.pop("modified_at"), shown.pop("modified_by")) == (created, person)
    assert set(person) == {"id", "uuid", "handle", "name", "icon"}
    assert person["name"] == "test", "the name of the application key"
    assert len(shown.pop("hash")) == 64
    assert shown.pop("computed_at") >= created
    assert shown == {
        "uuid": gold,
        "name": "gold",
        "description": "pays",
        "tags": ["b", "a"],
        "version": 1,
        "row_count": 3,
        "source": "user_created",
        "type": "combination",
        "data_query": {"profiles": [{"name": "a", "query": "tier:gold"}]},
        "entity": "users",
    }


def test_creating_it_again_is_one_and_another_of_the_name_is_refused(shop: Server, gold: str) -> None:
    again = create(shop, "gold", description="pays", tags=["b", "a"])
    assert (again.status, again.json()["data"]["id"]) == (201, gold)
    other = create(shop, "gold", "tier:silver")
    assert other.status == 409
    assert other.json()["errors"] == ["a segment named 'gold' exists (at /data/attributes/name); choose another name"]
    assert set(listed(shop)) == {"gold"}


def test_an_update_changes_what_it_gives(shop: Server, gold: str) -> None:
    body: dict[str, Any] = {"data": {"type": "segment", "id": gold, "attributes": {"name": "rich"}}}
    for _ in range(2):
        answer = shop.ask("PUT", f"{SEGMENTS}/{gold}", body)
        assert (answer.status, answer.body) == (204, b"")
    shown = listed(shop)["rich"]
    assert (shown["version"], shown["description"], shown["row_count"]) == (2, "pays", 3)
    query = {"entity": "accounts", "profiles": [{"name": "a", "query": "account_id:a1"}], "combination": "!a"}
    body["data"]["attributes"] = {"data_query": query}
    assert shop.ask("PUT", f"{SEGMENTS}/{gold}", body).status == 204
    shown = listed(shop)["rich"]
    assert (shown["version"], shown["entity"], shown["row_count"], shown["data_query"]) == (3, "accounts", 1, query)
    assert create(shop, "second").status == 201
    body["data"]["attributes"] = {"name": "second"}
    assert shop.ask("PUT", f"{SEGMENTS}/{gold}", body).status == 409
    body["data"]["id"] = "x"
    assert "/data/id" in shop.ask("PUT", f"{SEGMENTS}/{gold}", body).json()["errors"][0]
    assert shop.ask("PUT", f"{SEGMENTS}/x", body).status == 404


def test_a_deleted_segment_is_told_and_gone(shop: Server) -> None:
    id = create(shop, "gone").json()["data"]["id"]
    answer = shop.ask("DELETE", f"{SEGMENTS}/{id}")
    data = answer.json()["data"]
    assert (answer.status, data["id"], data["type"]) == (200, id, "deleted_segment")
    assert set(data["attributes"]) == {"uuid", "name", "disabled_at", "disabled_by"}
    for verb in ("GET", "DELETE"):
        assert shop.ask(verb, f"{SEGMENTS}/{id}").status == 404
    assert "gone" not in listed(shop)


def test_the_list_has_an_order_and_a_limit(shop: Server, gold: str) -> None:
    create(shop, "all", "*")
    create(shop, "none", "tier:none")
    assert list(listed(shop)) == ["all", "gold", "none"]
    assert list(listed(shop, "?sort=-row_count&limit=2")) == ["all", "gold"]
    assert list(listed(shop, "?sort=created_at")) == ["gold", "all", "none"]
    for parameters, place in (("?sort=size", "parameter sort"), ("?limit=0", "parameter limit")):
        answer = shop.ask("GET", SEGMENTS + parameters)
        assert answer.status == 400
        assert place in answer.json()["errors"][0]


@pytest.mark.parametrize(
    ("status", "body", "place"),
    [
        (400, body_of("x", "tier:(gold"), "/data/attributes/data_query/profiles/0/query character "),
        (400, body_of("x", "first_seen:>abc"), "/data/attributes/data_query/profiles/0/query character 1"),
        (400, body_of(""), "/data/attributes/name"),
        (400, body_of("x", data_query={"profiles": []}), "/data/attributes/data_query"),
        (400, body_of("x", data_query=5), "/data/attributes/data_query"),
        (400, {"data": {"type": "segments", "attributes": {}}}, "/data/type"),
        (400, body_of("x", data_query={"event_platforms": [{"name": "a"}]}), "data_query/event_platforms/0/query"),
        (400, body_of("x", data_query={"static": [{"id": "a"}]}), "data_query/static/0/name"),
        (
            400,
            body_of(
                "x", data_query={"event_platforms": [{"name": n, "query": q} for n, q in (("a", "*"), ("b", "b:("))]}
            ),
            "(at /data/attributes/data_query/event_platforms/1/query character ",
        ),
        (400, journey_of(expression="A -> X"), "(at /data/attributes/data_query/journeys/0/search/expression)"),
        (
            400,
            journey_of(node_objects={"A": {"data_source": "rum", "search": {}}}),
            "(at /data/attributes/data_query/journeys/0/search/node_objects/A/data_source)",
        ),
        (
            400,
            journey_of(node_objects={"A": {"data_source": "rum", "search": {"query": 1}}}),
            "(at /data/attributes/data_query/journeys/0/search/node_objects/A/search/query)",
        ),
        (
            400,
            journey_of(filters={"string_filter": "a:("}),
            "(at /data/attributes/data_query/journeys/0/search/filters/string_filter character ",
        ),
        (
            400,
            body_of("x", data_query={"reference_tables": [table_of("mail"), table_of("mial")]}),
            "(at /data/attributes/data_query/reference_tables/1/join_condition/column_name)",
        ),
        (501, body_of("x", data_query={"templates": [{"template_id": "a"}]}), "data_query/templates"),
    ],
)
def test_a_wrong_segment_is_refused_with_its_place(shop: Server, status: int, body: Any, place: str) -> None:
    answer = shop.ask("POST", SEGMENTS, body)
    assert answer.status == status, answer.body
    assert any(place in text for text in answer.json()["errors"])
    assert listed(shop) == {}


def test_there_is_a_limit_that_names_its_setting(shop: Server, gold: str) -> None:
    for n in range(4):
        assert create(shop, f"more {n}").status == 201
    answer = create(shop, "too many")
    assert answer.status == 400
    assert "segments_max" in answer.json()["errors"][0]
    assert create(shop, "more 1").status == 201, "it is there already"


def test_a_changed_mapping_changes_the_count_and_is_warned_of(shop: Server, gold: str) -> None:
    """Renamed: nothing changes. Removed: unknown. Of another type that the search cannot be asked of: nobody."""
    fields: dict[str, Any] = {"fields_to_update": [{"field_id": "tier", "updated_field_id": "level"}]}
    create(shop, "above", "tier:>5s")
    update(shop, **fields)
    answer = shop.ask("GET", f"{SEGMENTS}/{gold}")
    assert (answer.json()["data"]["attributes"]["row_count"], "meta" in answer.json()) == (3, False)
    update(shop, fields_to_update=[{"field_id": "level", "updated_field_id": "tier", "updated_type": "timestamp"}])
    answer = shop.ask("GET", f"{SEGMENTS}?sort=name")
    assert [s["attributes"]["row_count"] for s in answer.json()["data"]] == [0, 0]
    (warning,) = answer.json()["meta"]["warnings"]
    assert warning.startswith("segment 'above': it has no members: tier cannot be compared with '5s'")
    update(shop, fields_to_delete=["tier"])
    answer = shop.ask("GET", f"{SEGMENTS}/{gold}")
    assert answer.json()["data"]["attributes"]["row_count"] == 0
    assert "unknown attribute 'tier'" in answer.json()["meta"]["warnings"][0]
    update(shop, fields_to_add=[{"id": "tier", "source_name": "tier", "type": "string"}])
    assert listed(shop)["gold"]["row_count"] == 3


def test_a_segment_whose_search_became_senseless_has_no_members_anywhere(shop: Server, gold: str) -> None:
    id = create(shop, "above", "tier:>5s").json()["data"]["id"]
    update(shop, fields_to_update=[{"field_id": "tier", "updated_type": "timestamp"}])
    nobody_belongs(shop, id, "above", "tier cannot be compared with '5s'", "data_query/profiles/0/query")
    repaired = body_of("above", "user_id:u1", id)
    answer = shop.ask("PUT", f"{SEGMENTS}/{id}?dry_run=true", repaired)
    assert (answer.status, answer.json()["meta"]) == (200, {"entered": 1, "left": 0})
    update(shop, fields_to_update=[{"field_id": "tier", "updated_type": "string"}])


def test_a_segment_whose_table_is_gone_has_no_members_anywhere(shop: Server, gold: str) -> None:
    join = {"column_name": "mail", "facet": "@usr.email"}
    rule = {"name": "vip", "table_name": "vips", "join_condition": join}
    made = create(shop, "vips", data_query={"reference_tables": [rule]})
    assert made.json()["data"]["attributes"]["row_count"] == 1
    tables = shop.ask("GET", "/api/v2/reference-tables/tables").json()["data"]
    (table,) = [t["id"] for t in tables if t["attributes"]["table_name"] == "vips"]
    assert shop.ask("DELETE", f"/api/v2/reference-tables/tables/{table}").status == 200
    id = made.json()["data"]["id"]
    nobody_belongs(shop, id, "vips", "there is no table 'vips'", "data_query/reference_tables/0/table_name")


def nobody_belongs(server: Server, id: str, name: str, why: str, place: str) -> None:
    """In each answer about the segment it has no members, and a warning says why."""
    told = f"it has no members: {why}"

    def warned(answer: Answered, prefix: str = "") -> Any:
        assert answer.status == 200, answer.body
        (warning,) = answer.json()["meta"]["warnings"]
        assert warning.startswith(prefix + told), warning
        assert f"(at {place}" in warning, "the place is one in the segment"
        return answer.json()["data"]["attributes"]

    segment = f"segment {name!r}: "
    assert warned(server.ask("GET", f"{SEGMENTS}/{id}"), segment)["row_count"] == 0
    page = warned(server.ask("GET", f"/api/roster/segments/{id}/members"))
    assert (page["members"], page["total"]) == ([], 0)
    because = warned(server.ask("GET", f"/api/roster/segments/{id}/why?profile=u1"))
    assert (because["member"], because["rules"], because["first_failing"]) == (False, [], None)
    file = server.ask("GET", f"/api/roster/segments/{id}/export")
    assert (file.status, file.body) == (200, b"user_id\n")
    assert told in json.loads(file.headers["x-roster-warnings"])[0]
    now_ms = int(time.time() * 1000) + 1000
    turnover = warned(server.ask("GET", f"/api/roster/segments/{id}/changes?since={now_ms}"))
    assert turnover["entered"]["count"] == 0
    for formula, count in (("s", 0.0), ("NOT s", 6.0)):
        audience = {"segments": [{"name": "s", "segment_id": id}], "formula": formula}
        found = {"data_source": "product_analytics", "search": {"query": "*"}}
        query = {"query": found, "compute": {"aggregation": "count"}, "audience_filters": audience}
        span = {"from": 1_759_968_000_000, "to": 1_760_054_400_000}
        body = {"data": {"type": "formula_analytics_extended_request", "attributes": span | {"query": query}}}
        answer = server.ask("POST", "/api/v2/product-analytics/analytics/scalar", body)
        assert warned(answer, segment)["columns"][0]["values"] == [count]


def update(server: Server, **attributes: Any) -> None:
    body = {"data": {"type": "connection_id", "id": "crm", "attributes": attributes}}
    answer = server.ask("PUT", f"{MAPPING}/connection", body)
    assert answer.status == 200, answer.body


def test_all_of_it_takes_both_keys(shop: Server) -> None:
    paths = [("GET", SEGMENTS), ("POST", SEGMENTS), ("GET", QUERIES), ("PUT", f"{QUERIES}/x")]
    paths += [("POST", f"{QUERIES}/x/run"), ("GET", "/api/roster/users/fields/tier/uses")]
    for verb, path in paths:
        assert shop.ask(verb, path, keys=False, headers={"DD-API-KEY": shop.api_key}).status == 401


def put_query(server: Server, name: str, operation: str, type: str, **attributes: Any) -> Answered:
    body = {"data": {"type": type, "attributes": attributes}}
    saved = {"type": "saved_query", "attributes": {"operation": operation, "body": body}}
    return server.ask("PUT", f"{QUERIES}/{name}", {"data": saved})


def test_a_saved_query_runs_as_its_operation(shop: Server) -> None:
    asked = {"query": "tier:gold", "select_columns": ["user_id", "@tier"]}
    answer = put_query(shop, "gold", "QueryUsers", "query_users_request", **asked)
    assert answer.status == 200
    shown = answer.json()["data"]
    assert (shown["id"], shown["type"], shown["attributes"]["operation"]) == ("gold", "saved_query", "QueryUsers")
    body = shown["attributes"]["body"]
    assert body == {"data": {"type": "query_users_request", "attributes": asked}}
    ran = shop.ask("POST", f"{QUERIES}/gold/run")
    assert ran.status == 200
    assert ran.json() == shop.ask("POST", "/api/v2/product-analytics/users/query", body).json()
    assert ran.json()["data"]["attributes"]["total"] == 3
    explained = shop.ask("POST", f"{QUERIES}/gold/run?explain=true").json()
    assert explained["data"]["type"] == "explanation"
    facet = {"facet_id": "tier", "limit": 5}
    assert put_query(shop, "facet", "GetUserFacetInfo", "users_facet_info_request", **facet).status == 200
    values = shop.ask("POST", f"{QUERIES}/facet/run").json()["data"]["attributes"]["result"]["values"]
    assert {v["value"]: v["count"] for v in values} == {"gold": 3, "silver": 3}
    names = [q["id"] for q in shop.ask("GET", QUERIES).json()["data"]]
    assert names == ["facet", "gold"]
    assert shop.ask("GET", f"{QUERIES}/gold").json()["data"] == shown
    for name in names:
        assert shop.ask("DELETE", f"{QUERIES}/{name}").status == 204
    gone = shop.ask("POST", f"{QUERIES}/gold/run")
    assert gone.status == 404
    assert shop.ask("DELETE", f"{QUERIES}/gold").status == 404


def test_a_query_that_could_not_be_run_is_not_saved(shop: Server) -> None:
    users = ("QueryUsers", "query_users_request")
    for given, place, asked in (
        (users, "/data/attributes/body/data/attributes/query character ", {"query": "tier:("}),
        (users, "/data/attributes/body/data/attributes/limit", {"limit": 0}),
        (users, "/data/attributes/body/data/attributes/sort/order", {"sort": {"order": "up"}}),
        (("QueryUsers", "query_account_request"), "/data/attributes/body/data/type", {}),
        (("CreateConnection", "connection_id"), "/data/attributes/operation", {}),
    ):
        answer = put_query(shop, "wrong", *given, **asked)
        assert answer.status == 400, answer.body
        assert place in answer.json()["errors"][0]
    assert put_query(shop, "a%20b", *users).status == 400
    assert shop.ask("GET", QUERIES).json() == {"data": []}
    warned = put_query(shop, "teir", *users, query="teir:gold")
    assert (warned.status, "'teir'" in warned.json()["meta"]["warnings"][0]) == (200, True)
    assert [put_query(shop, f"q{n}", *users).status for n in range(3)] == [200, 200, 400]
    for name in ("teir", "q0", "q1"):
        assert shop.ask("DELETE", f"{QUERIES}/{name}").status == 204
