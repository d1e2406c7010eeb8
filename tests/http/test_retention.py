"""Retention over HTTP: every field of the requests on a world small enough to count by hand, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Iterator
from importlib.resources import files
from typing import Any

import pytest
from jsonschema import Draft202012Validator, FormatChecker

from servers import Answered, Server

pytestmark = pytest.mark.xdist_group("retention")

Body = dict[str, Any]
CONTRACT = json.loads(files("roster.http").joinpath("contract.json").read_text("utf-8"))
BASE = "/api/v2/product-analytics"
START_MS = 1_759_708_800_000
"""Monday 2025-10-06 00:00 UTC."""
DAY_MS, WEEK_MS = 86_400_000, 7 * 86_400_000
TYPES = {
    "grid": "retention_grid_request",
    "scalar": "formula_retention_request",
    "timeseries": "formula_retention_request",
    "list": "retention_list_request",
}
DID: tuple[tuple[str | None, str, str], ...] = (
    ("ann", "acme", "0:home 7:home 8:buy 14:home"),
    ("bob", "acme", "1:home 2:buy 15:home"),
    ("cy", "beta", "3:home"),
    ("dan", "beta", "7:buy 9:home 16:home"),
    (None, "", "10:home"),
)
"""User, account, and views by the day after the start. The last is a visitor who was never identified."""


def events() -> list[Body]:
    made: list[Body] = []
    for user, account, views in DID:
        for day, name in (view.split(":") for view in views.split()):
            told: Body = {
                "type": "view",
                "date": START_MS + int(day) * DAY_MS,
                "session": {"id": f"{user}-{day}"},
                "view": {"id": f"{user}-{day}", "name": name},
                "usr": {"id": user, "email": f"{user}@x.com"} if user else {"anonymous_id": "visitor"},
            }
            made.append(told | ({"account": {"id": account, "name": account.upper()}} if account else {}))
    return made


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The views; ann is gold, bob is silver, and of the others no row is known."""
    folder = tmp_path_factory.mktemp("retention")
    server = Server(folder)
    (folder / "views.ndjson").write_text("".join(json.dumps(e) + "\n" for e in events()), "utf-8")
    (folder / "crm.csv").write_text("mail,tier\nann@x.com,gold\nbob@x.com,silver\n")
    server.cli("load", str(folder / "views.ndjson"))
    server.cli("table", "load", str(folder / "crm.csv"), "--name", "crm", "--key", "mail")
    with server:
        fields = [{"id": "tier", "source_name": "tier", "type": "string"}]
        attributes = {"type": "ref_table", "join_type": "email", "join_attribute": "mail", "fields": fields}
        connection = {"data": {"type": "connection_id", "id": "crm", "attributes": attributes}}
        assert server.ask("POST", f"{BASE}/users/mapping/connection", connection).status == 201
        yield server


def view(name: str) -> Body:
    return {"data_source": "product_analytics", "search": {"query": f"@view.name:{name}"}}


def every(type: str = "week", **more: Any) -> Body:
    return {"type": "calendar", "value": {"type": type, **more}}


def fixed(value: float, unit: str = "day") -> Body:
    return {"type": "fixed", "unit": unit, "value": value}


def search(returned: str | None = None, again: Body | None = None, interval: Body | None = None, **more: Any) -> Body:
    """Whoever sees home, and comes back to it or to another view."""
    told: Body = {
        "cohort_criteria": {"base_query": view("home"), "time_interval": interval or every()},
        "retention_entity": "@usr.id",
        "return_condition": "conversion_on",
    }
    if returned or again:
        told["return_criteria"] = {"base_query": view(returned or "home")} | ({"time_interval": again} if again else {})
    return told | more


RATE, COUNT = "__dd.retention_rate", "__dd.retention"


def body_of(kind: str, query: Body, days: int = 21, **attributes: Any) -> Body:
    if kind != "list":
        query = {"compute": {"aggregation": "count", "metric": RATE}} | query
    span = {"from": START_MS, "to": START_MS + days * DAY_MS}
    return {"data": {"type": TYPES[kind], "attributes": span | {"query": query} | attributes}}


def post(server: Server, kind: str, body: Body) -> Answered:
    return server.ask("POST", f"{BASE}/retention/{kind}", body)


def ask(server: Server, kind: str, query: Body, **attributes: Any) -> Any:
    """The whole answer of a success, its shape that of the contract."""
    answer = post(server, kind, body_of(kind, query, **attributes))
    assert answer.status == 200, answer.body
    operation = CONTRACT["paths"][f"{BASE}/retention/{kind}"]["post"]
    schema = operation["responses"]["200"]["content"]["application/json"]["schema"]
    whole = schema | {"components": CONTRACT["components"]}
    Draft202012Validator(whole, format_checker=FormatChecker()).validate(answer.json())
    return answer.json()


def cohorts(server: Server, query: Body, **attributes: Any) -> list[Body]:
    told: list[Body] = ask(server, "grid", query, **attributes)["data"]["attributes"]["cohorts"]
    return told


def counts(server: Server, asked: Body, **attributes: Any) -> list[list[int]]:
    """The size of each cohort, then its cells."""
    raw = [c for c in cohorts(server, {"search": asked}, **attributes) if c["type"] == "raw"]
    return [[c["cohort_size"], *(cell["cell_count"] for cell in c["cells"])] for c in raw]


def index(cohort: int | None = None, column: int | None = None) -> Body:
    """A scope: a cohort, a return period, or a cell."""
    a, b = ({"type": "index", "value": n} for n in (cohort, column))
    if cohort is None:
        return {"type": "return_period", "target": b}
    if column is None:
        return {"type": "cohort", "target": a}
    return {"type": "cell", "cohort_target": a, "return_period_target": b}


WEIGHTED = {"type": "aggregation", "value": "avg"}


# grid


def test_a_grid_in_full(shop: Server) -> None:
    answer = ask(shop, "grid", {"search": search()})
    data, meta = answer["data"], answer["meta"]
    assert data["type"] == "retention_grid_response"
    told = data["attributes"]
    assert told["retention_entity"] == "@usr.id"
    assert told["retention_periods"] == [{"unit": "week", "value": n} for n in range(3)]
    weighted, first, second, third = told["cohorts"]
    assert weighted["type"] == "aggregated"
    assert not {"cohort_size", "cohort_start_time", "cohort_index"} & weighted.keys()
    assert [c["cell_rate"] for c in weighted["cells"]] == [1.0, 3 / 6, 2 / 3]
    assert [c["cell_relative_value_change"] for c in weighted["cells"]] == [None, -0.5, pytest.approx(1 / 3)]
    assert all("cell_count" not in c and c["type"] == "aggregated" for c in weighted["cells"])
    assert {k: v for k, v in first.items() if k not in ("cells", "unit")} == {
        "cohort_index": 0,
        "cohort_size": 3,
        "cohort_start_time": START_MS,
        "cohort_end_time": START_MS + WEEK_MS,
        "group_tags": [],
        "name": "2025-10-06",
        "type": "raw",
    }
    assert first["cells"][2] == {
        "cell_count": 2,
        "cell_rate": 2 / 3,
        "cell_value": 2 / 3,
        "cell_relative_value_change": 1.0,
        "is_partial_data": False,
        "return_period_index": 2,
        "return_period_start_time": START_MS + 2 * WEEK_MS,
        "return_period_end_time": START_MS + 3 * WEEK_MS,
        "type": "raw",
    }
    assert [c["cell_count"] for c in second["cells"]] == [3, 2]
    assert [c["cell_count"] for c in third["cells"]] == [3]
    assert told["unit"][0]["name"] == first["unit"][0]["name"] == "fraction"
    understood = meta["understood"]
    assert understood["from_time"] == "2025-10-06T00:00:00.000Z"
    assert understood["cohort_interval"] == {"type": "week", "quantity": 1, "timezone": "UTC"}
    assert understood["membership"] == "every cohort with an event"


def test_counts(shop: Server) -> None:
    """dan buys before he sees home in his first week: that is no return. Of one instant it would be one."""
    assert counts(shop, search()) == [[3, 3, 1, 2], [3, 3, 2], [3, 3]]
    later = {"return_condition": "conversion_on_or_after"}
    assert counts(shop, search(**later)) == [[3, 3, 2, 2], [3, 3, 2], [3, 3]]
    assert counts(shop, search("buy")) == [[3, 1, 1, 0], [3, 1, 0], [3, 0]]
    assert counts(shop, search("buy", **later)) == [[3, 2, 1, 0], [3, 1, 0], [3, 0]]
    assert counts(shop, search(first_time_only=True)) == [[3, 3, 1, 2], [2, 2, 1], [0, 0]]
    assert counts(shop, search(), exclude_anonymous_traffic=True) == [[3, 3, 1, 2], [2, 2, 2], [3, 3]]
    assert counts(shop, search(retention_entity="@account.id")) == [[2, 2, 2, 2], [2, 2, 2], [2, 2]]


def test_intervals(shop: Server) -> None:
    weekly = [[3, 3, 1, 2], [3, 3, 2], [3, 3]]
    assert counts(shop, search(again=every())) == weekly
    assert counts(shop, search(again=fixed(7))) == weekly
    assert counts(shop, search(interval=fixed(1, "week"), again=fixed(1, "week"))) == weekly
    assert counts(shop, search(again=fixed(14))) == [[3, 3, 2], [3, 3], [3, 3]]
    assert counts(shop, search(again=fixed(10.5))) == [[3, 3, 2], [3, 3, 0], [3, 3]]
    assert counts(shop, search(interval=every("month"))) == [[5, 5]]
    assert counts(shop, search("buy", interval=every("month"), again=every())) == [[5, 0, 1, 1, 0]]
    tuesdays = search(interval=every("week", alignment="tuesday", timezone="Europe/Berlin", quantity=2))
    told = cohorts(shop, {"search": tuesdays})
    assert [c["name"] for c in told[1:]] == ["2025-09-30", "2025-10-14"]
    assert ask(shop, "grid", {"search": tuesdays})["data"]["attributes"]["retention_periods"][1] == {
        "unit": "week",
        "value": 2,
    }


@pytest.mark.parametrize(
    ("interval", "unit", "value"),
    [
        (fixed(1, "month"), "month", 1),
        (fixed(2, "month"), "month", 2),
        (fixed(14), "day", 14),
        (fixed(7), "day", 7),
        (fixed(1, "week"), "week", 1),
        (fixed(1.5), "millisecond", 129_600_000),
    ],
)
def test_fixed_periods_are_told_as_they_were_asked(shop: Server, interval: Body, unit: str, value: int) -> None:
    for asked in (search(interval=interval), search(again=interval)):
        told = ask(shop, "grid", {"search": asked})["data"]["attributes"]["retention_periods"]
        assert told[1 if len(told) > 1 else 0] == {"unit": unit, "value": value * (len(told) > 1)}


@pytest.mark.parametrize(("name", "known"), [("avg", True), ("weighted_average", True), ("p99", False), ("", False)])
def test_a_roll_up_that_there_is_not_is_told(shop: Server, name: str, known: bool) -> None:
    target = {"type": "aggregation", "value": name}
    cell = {"type": "cell", "cohort_target": target, "return_period_target": {"type": "index", "value": 1}}
    for kind, scope in (("grid", {"type": "cohort", "target": target}), ("grid", cell), ("scalar", cell)):
        meta = ask(shop, kind, {"search": search(), "computation_scope": scope})["meta"]
        told = [] if known else [f"cohorts have no aggregation {name!r}: their weighted average is taken"]
        assert meta.get("warnings", []) == told


def test_partial_periods(shop: Server) -> None:
    """The last week is not over: the weighted row leaves it out."""
    told = cohorts(shop, {"search": search()}, days=18)
    assert [[c["is_partial_data"] for c in row["cells"]] for row in told[1:]] == [
        [False, False, True],
        [False, True],
        [True],
    ]
    assert [c["cell_value"] for c in told[0]["cells"]] == [1.0, 1 / 3, None]
    assert told[0]["cells"][2]["is_partial_data"]
    assert "cell_rate" not in told[0]["cells"][2]


def test_groups(shop: Server) -> None:
    def grid(*groups: Body, **more: Any) -> list[tuple[str, int, list[int]]]:
        told = cohorts(shop, {"search": search(**more), "group_by": list(groups)})
        raw = [c for c in told if c["type"] == "raw"]
        return [("/".join(c["group_tags"]), c["cohort_size"], [x["cell_count"] for x in c["cells"]]) for c in raw]

    tier = {"facet": "@tier", "target": "cohort"}
    nobody = [("N/A", 1, [1, 0, 0]), ("N/A", 2, [2, 1]), ("N/A", 1, [1])]
    gold = [("gold", 1, [1, 1, 1]), ("gold", 1, [1, 1]), ("gold", 1, [1])]
    silver = [("silver", 1, [1, 0, 1]), ("silver", 0, [0, 0]), ("silver", 1, [1])]
    assert grid(tier) == nobody + gold + silver
    assert grid(tier | {"limit": 1}) == nobody
    assert grid(tier | {"should_exclude_missing": True, "sort": {"order": "asc"}}) == silver + gold
    assert (
        grid(tier | {"source": "product_analytics_audience_filters.users", "facet": "tier", "limit": 2})
        == nobody + gold
    )
    account = {"facet": "@account.id", "target": "cohort", "should_exclude_missing": True}
    assert grid(account)[:3] == [("acme", 2, [2, 1, 2]), ("acme", 1, [1, 1]), ("acme", 2, [2])]
    by_return = {"facet": "@session.id", "target": "return_period", "limit": 100}
    assert ("ann-8", 3, [0, 1, 0]) in grid(by_return, returned="buy")
    both = grid({"facet": "@tier", "target": "return_period"}, account)
    assert both[0][0] == "gold/acme"
    assert [(size, cells) for tags, size, cells in both if tags == "silver/acme"] == [
        (2, [1, 0, 1]),
        (1, [0, 0]),
        (2, [1]),
    ]


def test_filters(shop: Server) -> None:
    gold = {"users": [{"name": "g", "query": "tier:gold"}], "formula": "NOT g"}
    assert counts(shop, search(filters={"audience_filters": gold})) == [[2, 2, 0, 1], [2, 2, 1], [2, 2]]
    assert counts(shop, search(filters={"string_filter": "@account.id:beta"})) == [[1, 1, 0, 0], [1, 1, 1], [1, 1]]
    often = {
        "data_source": "product_analytics_occurrence",
        "search": {"query": "@view.name:home", "occurrences": {"operator": ">=", "value": "3"}},
    }
    asked = search()
    asked["cohort_criteria"] = {"base_query": often, "time_interval": every()}
    assert counts(shop, asked) == [[1, 1, 1, 1], [1, 1, 1], [1, 1]]


def test_parts_of_a_grid(shop: Server) -> None:
    (row,) = cohorts(shop, {"search": search(), "computation_scope": index(1)})
    assert (row["cohort_index"], len(row["cells"])) == (1, 2)
    told = cohorts(shop, {"search": search(), "computation_scope": index(column=2)})
    assert [[c["return_period_index"] for c in row["cells"]] for row in told] == [[2], [2]]
    (row,) = cohorts(shop, {"search": search(), "computation_scope": index(0, 1)})
    assert [c["cell_count"] for c in row["cells"]] == [1]
    (row,) = cohorts(shop, {"search": search(), "computation_scope": {"type": "cohort", "target": WEIGHTED}})
    assert row["type"] == "aggregated"


# numbers


def scalar(server: Server, scope: Body | None, metric: str = RATE, aggregation: str = "count", **query: Any) -> Any:
    asked = {"search": search(), "compute": {"aggregation": aggregation, "metric": metric}, **query}
    if scope is not None:
        asked["computation_scope"] = scope
    answer = ask(server, "scalar", asked)
    assert answer["data"]["type"] == "scalar_response"
    columns = answer["data"]["attributes"]["columns"]
    return [c["values"] for c in columns] if query else columns[0]["values"][0]


def test_scalars(shop: Server) -> None:
    assert scalar(shop, None) == pytest.approx((3 / 6 + 2 / 3) / 2)
    assert scalar(shop, None, COUNT) == 5
    assert scalar(shop, None, RATE, "max") == 2 / 3
    assert scalar(shop, index(0), COUNT) == 3
    assert scalar(shop, index(0), RATE, "min") == 1 / 3
    assert scalar(shop, index(column=1)) == 0.5
    assert scalar(shop, index(column=1), RATE, "median") == pytest.approx((1 / 3 + 2 / 3) / 2)
    assert scalar(shop, index(column=1), COUNT) == 3
    assert scalar(shop, index(column=1), COUNT, "avg") == 1.5
    assert scalar(shop, index(0, 2), COUNT) == 2
    cell = {"type": "cell", "cohort_target": WEIGHTED, "return_period_target": {"type": "index", "value": 1}}
    assert scalar(shop, cell) == 0.5
    group = [{"facet": "@tier", "target": "cohort", "limit": 2}]
    assert scalar(shop, index(column=1), group_by=group) == [["N/A", "gold"], [1 / 3, 1.0]]


def test_timeseries(shop: Server) -> None:
    def series(scope: Body | None = None, **query: Any) -> Body:
        asked = {"search": search(), **query} | ({"computation_scope": scope} if scope else {})
        answer = ask(shop, "timeseries", asked)
        assert answer["data"]["type"] == "timeseries_response"
        told: Body = answer["data"]["attributes"]
        return told

    weeks = [START_MS + n * WEEK_MS for n in range(3)]
    whole = series()
    assert (whole["times"], whole["values"]) == (weeks, [[1 / 3, 2 / 3, None]])
    assert whole["intervals"][0]["milliseconds"] == WEEK_MS
    assert series(index(column=0))["values"] == [[1.0, 1.0, 1.0]]
    along = series(index(0))
    assert (along["times"], along["values"]) == (weeks, [[1.0, 1 / 3, 2 / 3]])
    one = series(index(1, 1))
    assert (one["times"], one["values"]) == (weeks[1:2], [[2 / 3]])
    grouped = series(group_by=[{"facet": "@tier", "target": "cohort"}])
    assert [s["group_tags"] for s in grouped["series"]] == [["N/A"], ["gold"], ["silver"]]
    assert grouped["values"] == [[0.0, 0.5, None], [1.0, 1.0, None], [0.0, 0.0, None]]


# list


def test_lists(shop: Server) -> None:
    def people(asked: Body, cohort: int, column: int, *paths: str, **query: Any) -> Any:
        columns = {"columns": [{"field": {"path": p}} for p in paths]} if paths else {}
        answer = ask(shop, "list", {"search": asked, "computation_scope": index(cohort, column), **columns, **query})
        assert answer["data"]["attributes"]["retention_entity"] == asked["retention_entity"]
        return answer["data"]["attributes"]["records"], answer["meta"]

    found, meta = people(search(), 0, 2)
    assert found == [{"@usr.id": u, "user_email": f"{u}@x.com"} for u in ("ann", "bob")]
    assert meta["understood"]["total"] == 2
    assert meta["understood"]["limit"] == 100
    found, meta = people(search(), 1, 0, "user_id", "@tier", "@usr.email", "@cart", limit=2)
    assert found == [
        {"user_id": "ann", "@tier": "gold", "@usr.email": "ann@x.com", "@cart": None},
        {"user_id": "dan", "@tier": None, "@usr.email": "dan@x.com", "@cart": None},
    ]
    assert meta["understood"]["total"] == 3
    assert "@cart" in meta["warnings"][0]
    found, _ = people(search(), 1, 0, "@usr.id", limit=0)
    assert [f["@usr.id"] for f in found] == ["ann", "dan", "visitor"]
    found, _ = people(search("buy", return_condition="conversion_on_or_after"), 0, 1)
    assert [f["@usr.id"] for f in found] == ["ann"]
    found, _ = people(search(retention_entity="@account.id"), 0, 0)
    assert found == [{"@account.id": a, "account_name": a.upper()} for a in ("acme", "beta")]


# refusals


@pytest.mark.parametrize(
    ("kind", "query", "place", "hint"),
    [
        ("grid", {"compute": {"aggregation": "p99", "metric": RATE}}, "/query/compute/aggregation", "allowed: count"),
        ("grid", {"compute": {"aggregation": "count", "metric": "x"}}, "/query/compute/metric", ""),
        ("grid", {"computation_scope": index(3)}, "/computation_scope/target/value", "from 0 to 2"),
        ("scalar", {"computation_scope": index(column=3)}, "/computation_scope/target/value", "from 0 to 2"),
        ("scalar", {"computation_scope": index(1, 2)}, "/return_period_target/value", "from 0 to 1"),
        ("timeseries", {"computation_scope": {"type": "cohort", "target": WEIGHTED}}, "/computation_scope", "index"),
        ("list", {"computation_scope": index(0)}, "/query/computation_scope", ""),
        ("list", {}, "/query/computation_scope", ""),
        ("grid", {"search": search(interval=every("minute"))}, "/cohort_criteria/time_interval", "longer interval"),
        ("grid", {"search": search(interval=fixed(0.01))}, "/cohort_criteria/time_interval", "longer interval"),
        ("grid", {"search": search(again=fixed(0.01))}, "/return_criteria/time_interval", "longer interval"),
        ("grid", {"search": search(interval=fixed(1e-12))}, "/cohort_criteria/time_interval/value", "millisecond"),
        ("grid", {"search": search(interval=fixed(1e300))}, "/cohort_criteria/time_interval/value", "millisecond"),
        ("grid", {"search": search(interval=fixed(0))}, "/cohort_criteria/time_interval", ""),
        ("grid", {"search": search(interval=every(quantity=10**9))}, "/time_interval/value/quantity", "at most"),
        ("grid", {"search": search(interval=every(timezone="Mars"))}, "/time_interval/value/timezone", "IANA"),
        ("grid", {"search": search(interval=every(alignment="1st"))}, "/time_interval/value/alignment", "monday"),
        ("grid", {"search": search(retention_entity="@session.id")}, "/search/retention_entity", ""),
        ("grid", {"search": search(filters={"string_filter": "a:("})}, "/filters/string_filter", ""),
        ("grid", {"group_by": [{"facet": "@tier"}]}, "/query/group_by/0/target", ""),
        (
            "grid",
            {"group_by": [{"facet": "@tier", "target": "cohort", "sort": {"aggregation": "bogus"}}]},
            "/query/group_by/0/sort/aggregation",
            "allowed: count",
        ),
        ("grid", {"group_by": [{"facet": "t", "target": "cohort", "source": "x"}]}, "/group_by/0/source", "allowed"),
    ],
)
def test_refusals(shop: Server, kind: str, query: Body, place: str, hint: str) -> None:
    answer = post(shop, kind, body_of(kind, {"search": search()} | query))
    assert answer.status == 400, answer.body
    told = " ".join(answer.json()["errors"])
    assert place in told
    assert hint in told


def test_an_empty_range_and_explain(shop: Server) -> None:
    body = body_of("grid", {"search": search()}, days=0)
    assert post(shop, "grid", body).status == 400
    empty = ask(shop, "grid", {"search": search()} | {"search": search("nothing")})["data"]["attributes"]["cohorts"]
    assert [c["cell_rate"] for c in empty[0]["cells"]] == [0.0, 0.0, 0.0]
    answer = shop.ask("POST", f"{BASE}/retention/grid?explain=true", body_of("grid", {"search": search()}))
    assert "SELECT" in answer.json()["data"]["attributes"]["queries"][0]["sql"]


def test_a_sort_that_is_not_ours_is_told(shop: Server) -> None:
    group = {"facet": "@tier", "target": "cohort", "sort": {"aggregation": "avg", "metric": RATE}}
    assert "ranked" in ask(shop, "grid", {"search": search(), "group_by": [group]})["meta"]["warnings"][0]
