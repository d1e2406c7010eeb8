"""Scalar, timeseries, list and pathways over HTTP: bodies, defaults, refusals, and answers of the contract's shape."""

from __future__ import annotations

import json
from collections.abc import Iterator
from importlib.resources import files
from typing import Any

import pytest
from jsonschema import Draft202012Validator, FormatChecker

from servers import Answered, Server

pytestmark = pytest.mark.xdist_group("analytics")

CONTRACT = json.loads(files("roster.http").joinpath("contract.json").read_text("utf-8"))
BASE = "/api/v2/product-analytics"
START_MS = 1_759_708_800_000
MINUTE_MS, DAY_MS = 60_000, 86_400_000
SESSIONS = {
    "ann": "home search cart pay",
    "bob": "home home cart",
    "cy": "search home search cart home",
    "dan": "home",
    "eve": "home search",
}
"""A session each, of these views a minute apart, each person a day after the one before."""
Body = dict[str, Any]


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("analytics")
    server = Server(folder)
    lines = [
        {
            "type": "view",
            "date": START_MS + day * DAY_MS + minute * MINUTE_MS,
            "usr": {"id": user},
            "session": {"id": f"s-{user}"},
            "view": {"id": f"{user}-{minute}", "name": name, "loading_time": (minute + 1) * 1_000_000},
        }
        for day, (user, names) in enumerate(SESSIONS.items())
        for minute, name in enumerate(names.split())
    ]
    path = folder / "views.ndjson"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    server.cli("load", str(path))
    with server:
        yield server


def post(server: Server, path: str, type: str, attributes: Body) -> Answered:
    return server.ask("POST", f"{BASE}/{path}", {"data": {"type": type, "attributes": attributes}})


def ask(server: Server, path: str, type: str, attributes: Body) -> Body:
    """The answer of a success, its shape that of the contract."""
    answer = post(server, path, type, attributes)
    assert answer.status == 200, answer.body
    operation = CONTRACT["paths"][f"{BASE}/{path}"]["post"]
    schema = operation["responses"]["200"]["content"]["application/json"]["schema"]
    whole = schema | {"components": CONTRACT["components"]}
    Draft202012Validator(whole, format_checker=FormatChecker()).validate(answer.json())
    body: Body = answer.json()
    return body


SPAN = {"from": START_MS, "to": START_MS + 7 * DAY_MS}
NUMBERS, LIST = "formula_analytics_extended_request", "formula_analytics_extended_list_request"


def query(text: str = "@type:view", aggregation: str = "count", metric: str | None = None, **more: Any) -> Body:
    compute = {"aggregation": aggregation} | ({"metric": metric} if metric else {})
    found = {"query": {"data_source": "product_analytics", "search": {"query": text}}, "compute": compute}
    return SPAN | {"query": found | more}


def test_a_number(shop: Server) -> None:
    answer = ask(shop, "analytics/scalar", NUMBERS, query())
    assert answer["data"]["attributes"] == {
        "columns": [{"name": "query", "type": "number", "values": [15.0], "meta": {"unit": None}}]
    }
    assert answer["data"]["type"] == "scalar_response"
    assert answer["meta"]["status"] == "done"
    assert answer["meta"]["understood"]["from_time"] == "2025-10-06T00:00:00.000Z"
    asked = query() | {"request_id": "mine"}
    assert ask(shop, "analytics/scalar", NUMBERS, asked)["data"]["id"] == "mine"


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("@session.id:s-ann", 4.0),
        ("*:s-ann", 4.0),
        ("@session.id:s-ann -@type:action", 4.0),
        ("-@type:action", 15.0),
        ("@session.id:s-ann @type:session", 1.0),
        ("@session.id:s-ann @type:(view OR session)", 5.0),
    ],
)
def test_rows_of_sessions_count_only_where_they_are_asked_for(shop: Server, text: str, count: float) -> None:
    (column,) = ask(shop, "analytics/scalar", NUMBERS, query(text))["data"]["attributes"]["columns"]
    assert column["values"] == [count]


@pytest.mark.parametrize("interval", [0, -5, 1])
def test_a_number_takes_no_interval(shop: Server, interval: int) -> None:
    asked = query()
    asked["query"]["compute"]["interval"] = interval
    (column,) = ask(shop, "analytics/scalar", NUMBERS, asked)["data"]["attributes"]["columns"]
    assert column["values"] == [15.0]
    answer = post(shop, "analytics/timeseries", NUMBERS, asked)
    assert answer.status == 400
    assert "(at /data/attributes/query/compute/interval)" in answer.json()["errors"][0]


@pytest.mark.parametrize("name", ["the people", "Käufer", "AND", "x" * 101, "a(b"])
def test_an_audience_has_any_name(shop: Server, name: str) -> None:
    users = [{"name": name, "query": "user_id:ann"}, {"name": "bob", "query": "user_id:bob"}]
    one, both = {"users": users[:1]}, {"users": users}
    for count, audience in ((0.0, both), (4.0, one), (3.0, both | {"formula": "bob"})):
        answer = ask(shop, "analytics/scalar", NUMBERS, query(audience_filters=audience))
        assert answer["data"]["attributes"]["columns"][0]["values"] == [count]
    assert answer["meta"]["warnings"] == [f"audience {name!r} takes no part: the formula does not name it"]


def test_a_number_with_a_unit(shop: Server) -> None:
    (column,) = ask(shop, "analytics/scalar", NUMBERS, query("@view.name:home", "max", "@view.loading_time"))["data"][
        "attributes"
    ]["columns"]
    assert column["values"] == [5_000_000.0]
    assert [unit["name"] for unit in column["meta"]["unit"]] == ["nanosecond"]


def test_groups_are_ranked_and_limited(shop: Server) -> None:
    groups = [{"facet": "@view.name", "limit": 2, "sort": {"aggregation": "count", "order": "asc"}}]
    columns = ask(shop, "analytics/scalar", NUMBERS, query(group_by=groups))["data"]["attributes"]["columns"]
    assert [(c["name"], c["type"], c["values"]) for c in columns] == [
        ("@view.name", "group", ["pay", "cart"]),
        ("query", "number", [1.0, 3.0]),
    ]


def test_a_sort_by_a_metric_alone_takes_what_is_computed_of_it(shop: Server) -> None:
    """The longest loading of a search takes 3 ms, of home 5."""
    groups = [{"facet": "@view.name", "sort": {"metric": "@view.loading_time", "order": "asc"}}]
    asked = query("@view.name:(home OR search)", "max", "@usr.id", group_by=groups)
    columns = ask(shop, "analytics/scalar", NUMBERS, asked)["data"]["attributes"]["columns"]
    assert columns[0]["values"] == ["search", "home"]


def test_occurrences_are_of_whoever_has_enough(shop: Server) -> None:
    asked = query()
    asked["query"]["query"] = {
        "data_source": "product_analytics_occurrence",
        "search": {"query": "@view.name:home", "occurrences": {"operator": ">=", "value": "2"}},
    }
    (column,) = ask(shop, "analytics/scalar", NUMBERS, asked)["data"]["attributes"]["columns"]
    assert column["values"] == [4.0]


def test_numbers_over_time_have_an_interval_by_themselves(shop: Server) -> None:
    answer = ask(shop, "analytics/timeseries", NUMBERS, query("@view.name:home"))
    assert answer["meta"]["understood"]["interval"] == 2 * 3_600_000
    shown = answer["data"]["attributes"]
    assert shown["times"] == [START_MS + n * 7_200_000 for n in range(84)]
    assert [n for n in shown["values"][0] if n is not None] == [1.0, 2.0, 2.0, 1.0, 1.0]
    asked = query("@view.name:home")
    asked["query"]["compute"]["interval"] = DAY_MS
    shown = ask(shop, "analytics/timeseries", NUMBERS, asked)["data"]["attributes"]
    assert shown["values"] == [[1.0, 2.0, 2.0, 1.0, 1.0, None, None]]
    assert ask(shop, "analytics/timeseries", NUMBERS, query("@view.name:none"))["data"]["attributes"] == {
        "series": [],
        "times": [],
        "values": [],
        "intervals": [],
    }


def test_a_list_is_newest_first(shop: Server) -> None:
    found: Body = {"query": query("@view.name:(home OR pay)")["query"]["query"]}
    asked = SPAN | {"query": found | {"columns": ["@usr.id", "@view.name"], "limit": 2}}
    shown = ask(shop, "analytics/list", LIST, asked)["data"]["attributes"]
    assert shown == {
        "records": [{"@usr.id": "eve", "@view.name": "home"}, {"@usr.id": "dan", "@view.name": "home"}],
        "total_count": 8,
    }
    answer = ask(shop, "analytics/list", LIST, SPAN | {"query": found})
    assert answer["meta"]["understood"]["columns"] == list(answer["data"]["attributes"]["records"][0])
    assert answer["meta"]["understood"]["limit"] == 100


@pytest.mark.parametrize(
    ("change", "place"),
    [
        ({"to": START_MS}, "/data/attributes/from"),
        ({"from": -1}, "/data/attributes/from"),
        ({"query": query(aggregation="median")["query"]}, "/data/attributes/query/compute/metric"),
        ({"query": query(aggregation="avreage", metric="@x")["query"]}, "/data/attributes/query/compute/aggregation"),
        ({"query": query("(")["query"]}, "/data/attributes/query/query/search/query"),
        (
            {"query": query(group_by=[{"facet": "a", "sort": {"aggregation": "bogus"}}])["query"]},
            "/data/attributes/query/group_by/0/sort/aggregation",
        ),
        (
            {"query": query(group_by=[{"facet": "a", "source": "b"}])["query"]},
            "/data/attributes/query/group_by/0/source",
        ),
        (
            {"query": query(audience_filters={"users": [{"name": "a"}, {"name": "a"}]})["query"]},
            "/data/attributes/query/audience_filters/users/1/name",
        ),
        (
            {"query": query(audience_filters={"users": [{"name": "a"}], "formula": "a AND b"})["query"]},
            "/data/attributes/query/audience_filters/formula",
        ),
    ],
)
def test_a_refusal_names_the_place(shop: Server, change: Body, place: str) -> None:
    answer = post(shop, "analytics/scalar", NUMBERS, query() | change)
    assert answer.status == 400
    assert f"(at {place}" in answer.json()["errors"][0]


def test_too_many_buckets_are_refused_with_what_would_do(shop: Server) -> None:
    asked = query()
    asked["query"]["compute"]["interval"] = 1
    answer = post(shop, "analytics/timeseries", NUMBERS, asked)
    assert answer.status == 400
    assert "use an interval of at least" in answer.body.decode()


def test_an_unknown_segment_is_not_found(shop: Server) -> None:
    id = "00000000-0000-0000-0000-000000000000"
    asked = query(audience_filters={"segments": [{"name": "a", "segment_id": id}]})
    assert post(shop, "analytics/scalar", NUMBERS, asked).status == 404


# pathways


def paths(definition: Body, **search: Any) -> Body:
    facets = {"source": "@view.name", "target": "@view.name", "number_of_steps": 1, "entries_per_step": 1}
    return {"definition": facets | definition, "search": {"query": "@type:view"} | search, "time": SPAN}


def drawn(shop: Server, definition: Body, **search: Any) -> tuple[dict[str, int], dict[tuple[str, str], int]]:
    """Nodes and links with their values."""
    shown = ask(shop, "sankey", "sankey_request", paths(definition, **search))["data"]["attributes"]
    nodes = {node["id"]: node["value"] for node in shown["nodes"]}
    assert len(nodes) == len(shown["nodes"])
    assert len({link["id"] for link in shown["links"]}) == len(shown["links"])
    assert all(link["source"] in nodes and link["target"] in nodes for link in shown["links"])
    return nodes, {(link["source"], link["target"]): link["value"] for link in shown["links"]}


def test_pathways_of_sessions(shop: Server) -> None:
    nodes, links = drawn(shop, {})
    assert nodes == {
        "0:home": 3,
        "other:0": 1,
        "1:search": 2,
        "other:1": 2,
        "2:cart": 1,
        "other:2": 1,
        "dropoff:2": 2,
    }
    assert links == {
        ("0:home", "1:search"): 2,
        ("0:home", "other:1"): 1,
        ("other:0", "other:1"): 1,
        ("1:search", "2:cart"): 1,
        ("1:search", "dropoff:2"): 1,
        ("other:1", "other:2"): 1,
        ("other:1", "dropoff:2"): 1,
    }


def test_what_other_stands_for(shop: Server) -> None:
    shown = ask(shop, "sankey", "sankey_request", paths({}))["data"]["attributes"]
    other = next(node for node in shown["nodes"] if node["id"] == "other:1")
    assert other == {
        "id": "other:1",
        "name": "other",
        "type": "other",
        "column": 1,
        "value": 2,
        "incoming_value": 2,
        "outgoing_value": 1,
        "dropoff_value": 1,
        "aggregated_nodes": [
            {
                "id": f"1:{name}",
                "name": name,
                "type": "aggregated",
                "value": 1,
                "incoming_value": 1,
                "outgoing_value": went_on,
            }
            for name, went_on in (("cart", 0), ("home", 1))
        ],
    }


def test_zero_and_nothing_mean_five(shop: Server) -> None:
    for definition in ({"number_of_steps": 0, "entries_per_step": 0}, {}):
        body = paths(definition)
        if not definition:
            del body["definition"]["number_of_steps"], body["definition"]["entries_per_step"]
        understood = ask(shop, "sankey", "sankey_request", body)["meta"]["understood"]
        assert (understood["number_of_steps"], understood["entries_per_step"]) == (5, 5)
        assert understood["join_key"] == "@session.id"


def test_paths_begin_or_end_at_a_value(shop: Server) -> None:
    nodes, _ = drawn(shop, {"source": "sea*", "entries_per_step": 5})
    assert nodes == {"0:search": 2, "1:cart": 1, "1:home": 1, "2:pay": 1, "2:search": 1}
    nodes, _ = drawn(shop, {"target": "cart", "entries_per_step": 5})
    assert nodes == {"0:home": 2, "1:search": 2, "1:home": 1, "2:cart": 3}


def test_paths_of_users_are_those_of_their_sessions_here(shop: Server) -> None:
    assert drawn(shop, {}, join_keys={"primary": "@usr.id", "secondary": ["@session.id"]}) == drawn(shop, {})
    assert drawn(shop, {}, join_keys={"primary": "@account.id"}) == ({}, {}), "nobody has an account"


def test_an_audience_whose_name_is_empty_takes_no_part(shop: Server) -> None:
    """As published examples send it."""
    nothing = {"name": "", "segment_id": "00000000-0000-0000-0000-000000000000"}
    audience = {
        "formula": "u",
        "users": [{"name": "u", "query": "*"}],
        "accounts": [{"name": ""}],
        "segments": [nothing],
    }
    assert drawn(shop, {}, audience_filters=audience) == drawn(shop, {})
    body = paths({}, audience_filters={"accounts": [{"name": ""}]})
    refused = post(shop, "sankey", "sankey_request", body)
    assert (refused.status, "audience_filters/accounts/0/name" in refused.body.decode()) == (400, True)


@pytest.mark.parametrize(
    ("change", "place"),
    [
        ({"definition": {"source": "@view.name"}}, "/data/attributes/definition/target"),
        ({"definition": {"source": "", "target": "@view.name"}}, "/data/attributes/definition/source"),
        ({"definition": {"source": "@", "target": "@view.name"}}, "/data/attributes/definition/source"),
        (
            {"definition": {"source": "a", "target": "b", "number_of_steps": 11}},
            "/data/attributes/definition/number_of_steps",
        ),
        ({"search": {"join_keys": {"primary": "@tier"}}}, "/data/attributes/search/join_keys/primary"),
        ({"search": {"query": "("}}, "/data/attributes/search/query"),
        ({"time": {"from": 2, "to": 1}}, "/data/attributes/time/from"),
    ],
)
def test_a_refused_diagram_names_the_place(shop: Server, change: Body, place: str) -> None:
    answer = post(shop, "sankey", "sankey_request", paths({}) | change)
    assert answer.status == 400
    assert f"(at {place}" in answer.json()["errors"][0]


def test_every_analysis_explains_itself(shop: Server) -> None:
    for path, type, attributes in (
        ("analytics/scalar", NUMBERS, query()),
        ("analytics/timeseries", NUMBERS, query()),
        ("analytics/list", LIST, SPAN | {"query": {"query": query()["query"]["query"]}}),
        ("sankey", "sankey_request", paths({})),
    ):
        body = {"data": {"type": type, "attributes": attributes}}
        answer = shop.ask("POST", f"{BASE}/{path}?explain=true", body)
        assert answer.status == 200
        assert "SELECT" in answer.json()["data"]["attributes"]["queries"][0]["sql"]
