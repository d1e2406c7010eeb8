"""Journeys over HTTP: every field of the requests on a world small enough to count by hand, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Iterator
from importlib.resources import files
from typing import Any

import pytest
from jsonschema import Draft202012Validator, FormatChecker

from journeys import (
    ACCOUNTS,
    BASE,
    DAY_MS,
    HOUR_MS,
    MINUTE_MS,
    START_MS,
    USERS,
    VISITS,
    Body,
    body_of,
    event,
    often,
    post,
    search,
    timed,
)
from servers import Server

pytestmark = pytest.mark.xdist_group("journeys")

CONTRACT = json.loads(files("roster.http").joinpath("contract.json").read_text("utf-8"))
NONE = {"min": 0, "max": 0, "avg": 0}


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The visits; ann is gold, bob is silver, and of cy no row is known."""
    folder = tmp_path_factory.mktemp("journeys")
    server = Server(folder)
    lines = [json.dumps(event(*visit[:4], n, name)) + "\n" for visit in VISITS for n, name in enumerate(visit[4])]
    (folder / "visits.ndjson").write_text("".join(lines), "utf-8")
    (folder / "crm.csv").write_text("mail,tier\nann@x.com,gold\nbob@x.com,silver\n")
    server.cli("load", str(folder / "visits.ndjson"))
    server.cli("table", "load", str(folder / "crm.csv"), "--name", "crm", "--key", "mail")
    with server:
        fields = [{"id": "tier", "source_name": "tier", "type": "string"}]
        attributes = {"type": "ref_table", "join_type": "email", "join_attribute": "mail", "fields": fields}
        connection = {"data": {"type": "connection_id", "id": "crm", "attributes": attributes}}
        assert server.ask("POST", f"{BASE}/users/mapping/connection", connection).status == 201
        yield server


def ask(server: Server, kind: str, query: Body, **attributes: Any) -> Any:
    """The whole answer of a success, its shape that of the contract."""
    answer = post(server, kind, body_of(kind, query, **attributes))
    assert answer.status == 200, answer.body
    operation = CONTRACT["paths"][f"{BASE}/journey/{kind}"]["post"]
    schema = operation["responses"]["200"]["content"]["application/json"]["schema"]
    whole = schema | {"components": CONTRACT["components"]}
    Draft202012Validator(whole, format_checker=FormatChecker()).validate(answer.json())
    return answer.json()


def funnel(server: Server, query: Body, **attributes: Any) -> Body:
    told: Body = ask(server, "funnel", query, **attributes)["data"]["attributes"]
    return told


def values(server: Server, search: Body, aggregation: str = "cardinality", **attributes: Any) -> list[float]:
    told = funnel(server, {"search": search, "compute": {"aggregation": aggregation}}, **attributes)
    return [step["value"] for step in told["funnel_steps"]]


def scalar(server: Server, compute: Body, search: Body, **query: Any) -> list[list[Any]]:
    columns = ask(server, "scalar", {"search": search, "compute": compute, **query})["data"]["attributes"]["columns"]
    return [column["values"] for column in columns]


def records(server: Server, **query: Any) -> list[Body]:
    told = ask(server, "list", {"search": search(), **query})["data"]["attributes"]
    assert told["total_count"] == len(told["records"])
    found: list[Body] = told["records"]
    return found


# funnel


def test_a_funnel_in_full(shop: Server) -> None:
    """s1 and s2 take A at 0, B at 3, C at 4 minutes; s3 takes A and B a minute later; s4 takes A; s5 begins with B."""
    answer = ask(shop, "funnel", {"search": search()})
    data, meta = answer["data"], answer["meta"]
    first, second, whole = 140_000, 60_000, 240_000
    assert data["type"] == "funnel_response"
    assert data["attributes"] == {
        "initial_count": 4,
        "end_to_end_conversion_rate": 0.5,
        "end_to_end_elapsed_time": {"min": whole, "max": whole, "avg": whole},
        "funnel_steps": [
            step("A", 4, {"min": 60_000, "max": 180_000, "avg": first}),
            step("B", 3, {"min": second, "max": second, "avg": second}),
            step("C", 2, NONE),
        ],
    }
    assert meta["status"] == "done"
    assert meta["understood"] == {
        "from": START_MS,
        "to": START_MS + 3 * DAY_MS,
        "from_time": "2025-10-06T00:00:00.000Z",
        "to_time": "2025-10-09T00:00:00.000Z",
        "steps": ["A", "B", "C"],
        "join_key": "@session.id",
        "counted": "each key once",
        "window_ms": None,
        "order": "loose",
        "steps_after_to": "count within the window",
        "anonymous_traffic": "included",
        "active_sessions": "excluded",
        "aggregation": "cardinality",
        "metric": "@session.id",
    }
    assert "warnings" not in meta


def step(label: str, value: float, elapsed: Body, groups: list[Body] | None = None) -> Body:
    told = {"label": label, "value": value, "unit": "millisecond", "elapsed_time_to_next_step": elapsed}
    return told | {"groups": groups or []}


@pytest.mark.parametrize(
    ("search", "unique", "total"),
    [
        (search(), [4, 3, 2], [5, 4, 3]),
        (search(join_keys={"primary": None}), [4, 3, 2], [5, 4, 3]),
        (search(**USERS), [4, 4, 2], [5, 5, 3]),
        (search(**USERS, conversion_window_ms=25 * HOUR_MS), [4, 4, 3], [5, 5, 4]),
        (search(**USERS, conversion_window_ms=DAY_MS - 1), [4, 3, 2], [5, 4, 3]),
        (search(**ACCOUNTS), [2, 2, 1], [4, 4, 3]),
        (search(join_keys={"primary": "@usr.id", "secondary": ["@session.id"]}), [4, 3, 2], [5, 4, 3]),
        (search(conversion_window_ms=3 * MINUTE_MS), [4, 3, 2], [7, 6, 3]),
        (search(conversion_window_ms=MINUTE_MS), [4, 3, 0], [9, 4, 0]),
        (search("A -> A"), [4, 2], [9, 5]),
        (search("A"), [4], [9]),
        (search("C"), [3], [6]),
    ],
)
def test_unique_and_total(shop: Server, search: Body, unique: list[float], total: list[float]) -> None:
    assert values(shop, search) == unique
    assert values(shop, search, "count") == total


def sessions(operator: str, value: int) -> Body:
    return {"filters": {"graph_filters": [{"name": "__dd.session", "operator": operator, "value": value}]}}


def audience(formula: str) -> Body:
    users, accounts = [{"name": "a", "query": "tier:gold"}], [{"name": "b", "query": "account_id:acme"}]
    return {"filters": {"audience_filters": {"users": users, "accounts": accounts, "formula": formula}}}


@pytest.mark.parametrize(
    ("search", "unique"),
    [
        (search(order="strict"), [4, 3, 2]),
        (search("A -> C", order="strict"), [4, 0]),
        (search("A -> C", order="loose"), [4, 2]),
        (search("A -> C", exclusions=[{"query": "@view.name:B"}]), [4, 0]),
        (search(exclusions=[{"query": "@view.name:A"}]), [4, 3, 2]),
        (search("A -> B -> C -> A", exclusions=[{"query": "@view.name:C"}]), [4, 3, 2, 0]),
        (search("A -> B -> C -> A", exclusions=[{"query": "@view.name:C", "before": "C"}]), [4, 3, 2, 1]),
        (search("C -> A -> B", exclusions=[{"query": "@view.name:C", "after": "A"}]), [3, 1, 1]),
        (search("C -> A -> B", exclusions=[{"query": "@view.name:C", "after": "C", "before": "A"}]), [3, 1, 1]),
        (search(filters={"string_filter": "@usr.id:*"}), [3, 2, 2]),
        (search(filters={"string_filter": "-@view.name:B"}), [4, 0, 0]),
        (search(**audience("a")), [1, 1, 1]),
        (search(**audience("b AND NOT a")), [1, 1, 1]),
        (search(**timed(">", 0)), [2, 2, 2]),
        (search(**timed("<=", MINUTE_MS, {"type": "node", "value": "B"})), [1, 1, 0]),
        (search(**timed("=", MINUTE_MS, {"type": "path", "start": "B", "end": "C"})), [2, 2, 2]),
        (search(**USERS, **sessions("=", 1)), [2, 2, 2]),
        (search("A -> B", **USERS, **sessions(">", 1)), [1, 1]),
        (search() | {"node_objects": search()["node_objects"] | {"A": often("A", ">=", "4")}}, [1, 1, 1]),
        (search() | {"node_objects": search()["node_objects"] | {"A": often("A", "=", "1")}}, [2, 1, 0]),
    ],
)
def test_what_counts(shop: Server, search: Body, unique: list[float]) -> None:
    assert values(shop, search) == unique


def test_the_edges_of_the_range(shop: Server) -> None:
    """s1 takes A at minutes 0, 1, 2, B at 3 and C at 4: the first step lies in the range, the others may follow."""
    span = {"from": START_MS, "to": START_MS + 3 * MINUTE_MS}
    assert values(shop, search(), **span) == [1, 1, 1]
    assert values(shop, search(clip_to_range=True), **span) == [1, 0, 0]
    late = {"from": START_MS + 2 * MINUTE_MS + 1, "to": START_MS + 10 * MINUTE_MS}
    assert values(shop, search(), **late) == [0, 0, 0], "no A begins in it"


def test_no_anonymous_traffic(shop: Server) -> None:
    assert values(shop, search(), exclude_anonymous_traffic=True) == [3, 2, 2]


def test_nobody_is_zero(shop: Server) -> None:
    told = funnel(shop, {"search": search(**audience("a AND NOT b"))})
    steps = [step(name, 0, NONE) for name in "ABC"]
    zero = {"initial_count": 0, "end_to_end_conversion_rate": 0.0, "end_to_end_elapsed_time": NONE}
    assert told == zero | {"funnel_steps": steps}


@pytest.mark.parametrize(
    ("compute", "wanted"),
    [
        ({"aggregation": "cardinality", "metric": "@session.id"}, [4, 3, 2]),
        ({"metric": "__dd.conversion"}, [4, 3, 2]),
        ({"aggregation": "cardinality", "metric": "@usr.id"}, [3, 2, 2]),
        ({"aggregation": "count", "metric": "@view.loading_time"}, [5, 4, 3]),
        ({"aggregation": "count", "metric": "@usr.id"}, [4, 3, 3]),
        ({"aggregation": "sum", "metric": "@view.loading_time"}, [4_000, 10_000, 10_000]),
        ({"aggregation": "avg", "metric": "@view.loading_time"}, [1_000, 10_000 / 3, 5_000]),
        ({"aggregation": "min", "metric": "@view.loading_time"}, [1_000, 2_000, 5_000]),
        ({"aggregation": "max", "metric": "@view.loading_time"}, [1_000, 4_000, 5_000]),
        ({"aggregation": "median", "metric": "@view.loading_time"}, [1_000, 4_000, 5_000]),
        ({"aggregation": "pc25", "metric": "@view.loading_time"}, [1_000, 3_000, 5_000]),
        ({"aggregation": "avg", "metric": "@tier"}, [0, 0, 0]),
    ],
)
def test_values_of_steps(shop: Server, compute: Body, wanted: list[float]) -> None:
    told = funnel(shop, {"search": search(), "compute": compute})
    assert [step["value"] for step in told["funnel_steps"]] == pytest.approx(wanted)


def test_groups_of_a_funnel(shop: Server) -> None:
    """Best first by flows: nobody's tier (s3, s4), then gold (s1) and silver (s2)."""
    told = funnel(shop, {"search": search(), "group_by": [{"facet": "@tier"}]})["funnel_steps"]
    three, one = {"min": 180_000, "max": 180_000, "avg": 180_000}, {"min": 60_000, "max": 60_000, "avg": 60_000}
    assert told[0]["groups"] == [part(["N/A"], 2, one), part(["gold"], 1, three), part(["silver"], 1, three)]
    assert told[1]["groups"] == [part(["N/A"], 1, NONE), part(["gold"], 1, one), part(["silver"], 1, one)]
    assert told[2]["groups"] == [part(["N/A"], 0, NONE), part(["gold"], 1, NONE), part(["silver"], 1, NONE)]


def part(tags: list[str], value: float, elapsed: Body) -> Body:
    return {"group_tags": tags, "value": value, "conversion_count": value, "elapsed_time_to_next_step": elapsed}


RATE = {"metric": "__dd.conversion_rate"}


@pytest.mark.parametrize(
    ("groups", "wanted"),
    [
        ([{"facet": "@tier", "limit": 1}], [(["N/A"], 2)]),
        ([{"facet": "@tier", "should_exclude_missing": True}], [(["gold"], 1), (["silver"], 1)]),
        ([{"facet": "@tier", "value_filters": ["silver", "bronze"]}], [(["silver"], 1)]),
        ([{"facet": "@tier", "sort": {"order": "asc"}}], [(["gold"], 1), (["silver"], 1), (["N/A"], 2)]),
        ([{"facet": "@tier", "sort": RATE}], [(["gold"], 1), (["silver"], 1), (["N/A"], 2)]),
        ([{"facet": "@tier", "sort": RATE | {"order": "asc"}, "limit": 2}], [(["N/A"], 2), (["gold"], 1)]),
        ([{"facet": "@tier", "sort": {"metric": "__dd.dropoff_rate", "order": "asc"}, "limit": 1}], [(["gold"], 1)]),
        ([{"facet": "@tier", "sort": {"metric": "__dd.conversion"}, "limit": 1}], [(["gold"], 1)]),
        ([{"facet": "@tier", "sort": {"metric": "@session.id"}, "limit": 1}], [(["N/A"], 2)]),
        (
            [{"facet": "@tier", "sort": {"aggregation": "avg", "metric": "__dd.time_to_convert"}, "limit": 1}],
            [(["gold"], 1)],
        ),
        (
            [{"facet": "@tier", "sort": {"aggregation": "sum", "metric": "@view.loading_time", "order": "asc"}}],
            [(["gold"], 1), (["silver"], 1), (["N/A"], 2)],
        ),
        (
            [{"facet": "@tier", "sort": RATE, "limit": 1}, {"facet": "@account.id", "sort": RATE}],
            [(["gold", "acme"], 1)],
        ),
        (
            [{"facet": "tier", "source": "product_analytics_audience_filters.users", "sort": {"aggregation": "count"}}],
            [(["N/A"], 2), (["gold"], 1), (["silver"], 1)],
        ),
        (
            [{"facet": "account_id", "source": "product_analytics_audience_filters.accounts"}],
            [(["acme"], 2), (["N/A"], 1), (["beta"], 1)],
        ),
        (
            [{"facet": "@view.loading_time", "target": {"type": "node", "value": "B"}}],
            [(["4000"], 2), (["2000"], 1), (["N/A"], 1)],
        ),
        ([{"facet": "@view.name", "target": {"type": "path", "start": "A", "end": "C"}}], [(["C"], 2), (["N/A"], 2)]),
        (
            [{"facet": "@account.id", "limit": 1}, {"facet": "@tier"}],
            [(["acme", "gold"], 1), (["acme", "silver"], 1)],
        ),
    ],
)
def test_which_groups(shop: Server, groups: list[Body], wanted: list[tuple[list[str], int]]) -> None:
    told = funnel(shop, {"search": search(), "group_by": groups})["funnel_steps"][0]["groups"]
    assert [(group["group_tags"], group["conversion_count"]) for group in told] == wanted


@pytest.mark.parametrize(
    ("operator", "percent", "target", "wanted"),
    [
        ("=", 0, None, ["gold", "silver"]),
        (">", 50, None, ["N/A"]),
        ("<=", 50, {"type": "node", "value": "B"}, ["N/A", "gold", "silver"]),
        (">=", 100, {"type": "path", "start": "B", "end": "C"}, ["N/A"]),
    ],
)
def test_groups_by_their_dropoff(
    shop: Server, operator: str, percent: int, target: Body | None, wanted: list[str]
) -> None:
    """In percent: everybody without a tier drops off at C, half of them already at B."""
    dropoff = {"name": "__dd.dropoff_rate", "operator": operator, "value": percent, "target": target}
    filters = {"filters": {"graph_filters": [dropoff]}}
    told = funnel(shop, {"search": search(**filters), "group_by": [{"facet": "@tier"}]})["funnel_steps"]
    assert [[group["group_tags"][0] for group in step["groups"]] for step in told] == [wanted] * 3
    assert [step["value"] for step in told] == [4, 3, 2], "it chooses groups, not flows"


def test_a_dropoff_filter_without_groups_is_told(shop: Server) -> None:
    dropoff = {"name": "__dd.dropoff_rate", "operator": ">", "value": 50}
    asked = search(filters={"graph_filters": [dropoff]})
    warning = "graph filter __dd.dropoff_rate chooses groups of a funnel: it has no effect here"
    assert ask(shop, "funnel", {"search": asked})["meta"]["warnings"] == [warning]
    for kind in ("scalar", "timeseries"):
        compute = {"compute": {"aggregation": "count"}, "group_by": [{"facet": "@tier"}]}
        assert ask(shop, kind, {"search": asked} | compute)["meta"]["warnings"] == [warning]
    assert ask(shop, "list", {"search": asked})["meta"]["warnings"] == [warning]


def test_names_that_mean_nothing_are_missing_and_told(shop: Server) -> None:
    query = {"search": search(), "group_by": [{"facet": "tire", "source": "product_analytics_audience_filters.users"}]}
    answer = ask(shop, "funnel", query)
    assert answer["data"]["attributes"]["funnel_steps"][0]["groups"][0]["group_tags"] == ["N/A"]
    (warning,) = answer["meta"]["warnings"]
    assert warning.startswith("unknown attribute 'tire'")


# scalar and timeseries

PATH = {"type": "path", "start": "B", "end": "C"}


@pytest.mark.parametrize(
    ("compute", "wanted"),
    [
        ({"aggregation": "cardinality"}, 2.0),
        ({"aggregation": "count", "metric": "__dd.conversion"}, 3.0),
        ({"aggregation": "cardinality", "target": {"type": "node", "value": "B"}}, 3.0),
        ({"aggregation": "cardinality", "metric": "__dd.conversion_rate"}, 0.5),
        ({"aggregation": "count", "metric": "__dd.conversion_rate"}, 0.6),
        ({"aggregation": "cardinality", "metric": "__dd.conversion_rate", "target": PATH}, 2 / 3),
        ({"aggregation": "cardinality", "metric": "__dd.dropoff_rate"}, 0.5),
        ({"aggregation": "cardinality", "metric": "__dd.dropoff_rate", "target": PATH}, 1 / 3),
        ({"aggregation": "avg", "metric": "__dd.time_to_convert"}, 240_000.0),
        ({"aggregation": "median", "metric": "__dd.time_to_convert", "target": PATH}, 60_000.0),
        (
            {"aggregation": "pc50", "metric": "__dd.time_to_convert", "target": {"type": "node", "value": "B"}},
            180_000.0,
        ),
        ({"aggregation": "min", "metric": "__dd.time_to_convert", "target": {"type": "node", "value": "B"}}, 60_000.0),
        ({"aggregation": "max", "metric": "@view.loading_time"}, 5_000.0),
        ({"aggregation": "sum", "metric": "@view.loading_time", "target": {"type": "node", "value": "A"}}, 4_000.0),
        ({"aggregation": "count", "metric": "@usr.id", "target": {"type": "node", "value": "B"}}, 3.0),
        ({"aggregation": "cardinality", "metric": "@usr.id", "target": {"type": "node", "value": "B"}}, 2.0),
    ],
)
def test_numbers(shop: Server, compute: Body, wanted: float) -> None:
    assert scalar(shop, compute, search()) == [[pytest.approx(wanted)]]


@pytest.mark.parametrize("metric", ["@usr.id", "usr.id", "__dd.conversion", None, ""])
@pytest.mark.parametrize(("aggregation", "wanted"), [("cardinality", [4, 4, 2]), ("count", [5, 5, 3])])
def test_the_key_as_a_metric_is_the_flows(
    shop: Server, metric: str | None, aggregation: str, wanted: list[int]
) -> None:
    """Three users and a visitor; the visitor takes A and B, and has no user."""
    compute = {"aggregation": aggregation, "metric": metric}
    told = funnel(shop, {"search": search(**USERS), "compute": compute})
    assert [step["value"] for step in told["funnel_steps"]] == wanted
    for name, value in zip("ABC", wanted, strict=True):
        assert scalar(shop, compute | {"target": {"type": "node", "value": name}}, search(**USERS)) == [[value]]


def test_numbers_are_ranked_as_asked(shop: Server) -> None:
    """Of those without a tier one of two goes on to B, of the others all."""

    def ranked(sort: Body, **compute: Any) -> Any:
        group = {"facet": "@tier", "sort": sort}
        target = {"target": {"type": "node", "value": "B"}}
        return scalar(shop, target | compute, search(), group_by=[group])

    assert ranked(RATE | {"order": "asc"}, aggregation="cardinality")[0] == ["N/A", "gold", "silver"]
    times = {"aggregation": "avg", "metric": "__dd.time_to_convert"}
    assert ranked(times, aggregation="cardinality")[0] == ["gold", "silver", "N/A"]
    assert ranked({"metric": "__dd.time_to_convert"}, aggregation="max", metric="@view.loading_time")[0][0] == "gold"


def test_a_scalar_in_full(shop: Server) -> None:
    query = {
        "search": search(),
        "compute": {"aggregation": "avg", "metric": "__dd.time_to_convert", "target": {"type": "node", "value": "B"}},
        "group_by": [{"facet": "@tier", "sort": {"order": "asc"}}],
        "query_id": "minutes",
    }
    answer = ask(shop, "scalar", query)
    assert answer["data"]["type"] == "journey_scalar_response"
    unit = {
        "family": "time",
        "name": "millisecond",
        "plural": "milliseconds",
        "short_name": "ms",
        "scale_factor": 0.001,
    }
    assert answer["data"]["attributes"]["columns"] == [
        {"name": "@tier", "type": "group", "values": ["N/A", "gold", "silver"], "meta": {"unit": None}},
        {"name": "minutes", "type": "number", "values": [60_000.0, 180_000.0, 180_000.0], "meta": {"unit": [unit]}},
    ]
    told = answer["meta"]["understood"]
    assert (told["aggregation"], told["metric"], told["target_steps"]) == ("avg", "__dd.time_to_convert", [0, 1])
    del query["query_id"]
    assert ask(shop, "scalar", query)["data"]["attributes"]["columns"][1]["name"] == "query"


def test_nobody_has_a_rate_of_zero_and_no_times(shop: Server) -> None:
    nobody = search(**audience("a AND NOT b"))
    assert scalar(shop, {"aggregation": "cardinality", "metric": "__dd.conversion_rate"}, nobody) == [[0.0]]
    assert scalar(shop, {"aggregation": "avg", "metric": "__dd.time_to_convert"}, nobody) == [[None]]


def test_a_timeseries_in_full(shop: Server) -> None:
    """By the start of flows: on the first day three of the four sessions, two of which convert."""
    query = {"search": search(), "compute": {"aggregation": "cardinality", "metric": "__dd.conversion_rate"}}
    answer = ask(shop, "timeseries", query, interval=DAY_MS)
    times = [START_MS, START_MS + DAY_MS, START_MS + 2 * DAY_MS]
    data = answer["data"]
    assert data["type"] == "journey_timeseries_response"
    unit = {"family": "percentage", "name": "fraction", "plural": "fractions", "short_name": "", "scale_factor": 1.0}
    assert data["attributes"] == {
        "series": [{"group_tags": [], "query_index": 0, "unit": [unit]}],
        "times": times,
        "values": [[pytest.approx(2 / 3), 0.0, None]],
        "intervals": [{"milliseconds": DAY_MS, "start_time": START_MS, "times": times, "type": "fixed"}],
    }
    assert answer["meta"]["understood"]["interval"] == DAY_MS


def test_groups_and_intervals_of_a_timeseries(shop: Server) -> None:
    compute = {"aggregation": "count", "interval": DAY_MS}
    query = {"search": search(), "compute": compute, "group_by": [{"facet": "@tier"}]}
    answer = ask(shop, "timeseries", query, interval=HOUR_MS)
    assert answer["meta"]["understood"]["interval"] == DAY_MS, "that of the compute goes before"
    told = answer["data"]["attributes"]
    assert [series["group_tags"] for series in told["series"]] == [["silver"], ["gold"], ["N/A"]]
    assert told["values"] == [[2.0, None, None], [1.0, None, None], [0.0, 0.0, None]]
    query["compute"] = {"aggregation": "count"}
    assert ask(shop, "timeseries", query)["meta"]["understood"]["interval"] == HOUR_MS, "about a hundred buckets"
    nobody = {"search": search(**audience("a AND NOT b")), "compute": {"aggregation": "count"}}
    empty: Body = {"series": [], "times": [], "values": [], "intervals": []}
    assert ask(shop, "timeseries", nobody)["data"]["attributes"] == empty


# list


def test_who_converted(shop: Server) -> None:
    """The newest first: bob an hour after ann."""
    answer = ask(shop, "list", {"search": search()})
    assert answer["data"]["type"] == "journey_list_response"
    assert answer["data"]["attributes"] == {
        "entity": "session",
        "records": [
            {"@session.id": "s2", "timestamp": START_MS + HOUR_MS},
            {"@session.id": "s1", "timestamp": START_MS},
        ],
        "total_count": 2,
    }
    told = answer["meta"]["understood"]
    assert (told["conversion_type"], told["target_steps"], told["limit"]) == ("conversion", [0, 2], 100)


def test_a_record_in_full(shop: Server) -> None:
    found = records(
        shop,
        search=search(**USERS),
        entity_columns=["@tier", "@session.id", "@nothing", "@tier"],
        computed_columns=[{"name": "first_conversion_timestamps"}],
        group_by=[{"facet": "@view.name", "target": {"type": "node", "value": "C"}}],
        entity_filters="tier:gold",
    )
    assert found == [
        {
            "@usr.id": "ann",
            "timestamp": START_MS,
            "@tier": "gold",
            "@session.id": "s1",
            "@nothing": None,
            "@view.name": "C",
            "A_timestamp": START_MS,
            "B_timestamp": START_MS + 3 * MINUTE_MS,
            "C_timestamp": START_MS + 4 * MINUTE_MS,
        }
    ]


B_NODE = {"type": "node", "value": "B"}


@pytest.mark.parametrize(
    ("query", "wanted"),
    [
        ({}, ["s2", "s1"]),
        ({"conversion_type": "conversion", "target": B_NODE}, ["s3", "s2", "s1"]),
        ({"conversion_type": "drop-off"}, ["s4", "s3"]),
        ({"conversion_type": "drop-off", "target": B_NODE}, ["s3"]),
        ({"conversion_type": "drop-off", "target": {"type": "node", "value": "A"}}, ["s4"]),
        ({"conversion_type": "drop-off", "target": {"type": "path", "start": "A", "end": "B"}}, ["s4"]),
        ({"conversion_type": "drop-off", "target": {"type": "path", "start": "B", "end": "C"}}, ["s3"]),
        ({"sort": {"facet": "timestamp", "order": "asc"}}, ["s1", "s2"]),
        ({"sort": {"facet": "@session.id", "order": "asc"}}, ["s1", "s2"]),
        ({"sort": {"facet": "@session.id"}}, ["s2", "s1"]),
        ({"sort": {"facet": "@tier", "order": "asc"}}, ["s2", "s1"]),
        ({"sort": {"facet": "@tier", "order": "asc"}, "entity_columns": ["@tier"]}, ["s1", "s2"]),
        ({"entity_filters": "@view.name:A"}, []),
        ({"entity_filters": "@session.view.count:>6"}, ["s2"]),
        ({"entity_filters": "@tier:gold"}, ["s1"]),
        ({"group_by": [{"facet": "@tier", "value_filters": ["gold"]}]}, ["s1"]),
        ({"search": search(**USERS)}, ["bob", "ann"]),
        ({"search": search(**USERS), "entity_filters": "tier:silver"}, ["bob"]),
        ({"search": search(**USERS), "conversion_type": "drop-off"}, ["cy", "visitor"]),
        ({"search": search(**ACCOUNTS)}, ["acme"]),
        ({"search": search(**ACCOUNTS), "conversion_type": "drop-off", "entity_filters": "account_id:*"}, ["beta"]),
    ],
)
def test_who(shop: Server, query: Body, wanted: list[str]) -> None:
    key = ((query.get("search") or {}).get("join_keys") or {}).get("primary", "@session.id")
    assert [record[key] for record in records(shop, **query)] == wanted


def test_a_limit_leaves_the_count(shop: Server) -> None:
    told = ask(shop, "list", {"search": search(), "limit": 1})["data"]["attributes"]
    assert (told["total_count"], [r["@session.id"] for r in told["records"]]) == (2, ["s2"])


def test_columns_of_a_repeated_step_and_of_a_taken_name(shop: Server) -> None:
    """The first step of an alias names the column; a column of ours goes before an attribute of its name."""
    found = records(
        shop,
        search=search("A -> A"),
        entity_columns=["timestamp"],
        computed_columns=[{"name": "first_conversion_timestamps"}],
        limit=100,
    )
    assert found[1] == {"@session.id": "s1", "timestamp": START_MS, "A_timestamp": START_MS}


def test_it_is_explained(shop: Server) -> None:
    for kind, query in (
        ("funnel", {"search": search()}),
        ("scalar", {"search": search(), "compute": {"aggregation": "count"}}),
        ("timeseries", {"search": search(), "compute": {"aggregation": "count"}}),
        ("list", {"search": search()}),
    ):
        answer = shop.ask("POST", f"{BASE}/journey/{kind}?explain=true", body_of(kind, query))
        assert answer.status == 200, answer.body
        *kept, asked = answer.json()["data"]["attributes"]["queries"]
        assert "MatchSteps" in str(asked["plan"])
        assert ["kept_as" in query for query in kept] == ([True, False] if kind == "list" else [])


def test_a_segment_counts_its_members(shop: Server) -> None:
    attributes = {"name": "gold", "data_query": {"profiles": [{"name": "a", "query": "tier:gold"}]}}
    made = shop.ask("POST", "/api/v2/rum/segment", {"data": {"type": "segment", "attributes": attributes}})
    assert made.status == 201, made.body
    segments = [{"name": "a", "segment_id": made.json()["data"]["id"]}]
    assert values(shop, search(filters={"audience_filters": {"segments": segments}})) == [1, 1, 1]
    assert values(shop, search(filters={"audience_filters": {"segments": segments, "formula": "NOT a"}})) == [3, 2, 1]
