"""The people behind a number: as many as the number says, as a list and as a segment."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from inside import CALLER, Inside, inside
from roster.base.errors import Code, Error
from roster.operations.context import Request
from roster.operations.load import load_events
from roster.operations.table import OPERATIONS

HOUR_MS = 3_600_000
FROM_MS = 1_700_000_000_000
TO_MS = FROM_MS + 100 * HOUR_MS
FUNCTIONS = {operation.name: operation.function for operation in OPERATIONS}
VISITS = {
    "ann": ["home", "cart", "pay"],
    "bob": ["home", "cart"],
    "cy": ["home", "home", "cart", "pay"],
    "dee": ["cart"],
    "eve": ["home", "pay"],
}
PLAN = {"ann": "pro", "bob": "pro", "cy": "free", "dee": "free", "eve": "free"}


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Inside]:
    folder = tmp_path_factory.mktemp("people")
    with inside(folder, []) as made:
        lines = [
            {
                "type": "view",
                "date": FROM_MS + n * HOUR_MS + place * 60_000,
                "usr": {"id": user, "plan": PLAN[user]},
                "session": {"id": f"s-{user}"},
                "view": {"id": f"{user}-{place}", "name": name},
            }
            for n, (user, names) in enumerate(VISITS.items())
            for place, name in enumerate(names)
        ]
        path = folder / "visits.ndjson"
        path.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
        load_events(made.context, path, {}, lambda _: None)
        yield made


def ask(shop: Inside, operation: str, type: str, attributes: dict[str, Any], **query: str) -> Any:
    body = json.dumps({"data": {"type": type, "attributes": attributes}}).encode()
    asked = {name: [text] for name, text in query.items()}
    return FUNCTIONS[operation](shop.context, Request(CALLER, body, {}, asked)).body


def people(shop: Inside, **attributes: Any) -> list[str]:
    """Their ids; as many as the total says, and those of a static segment made of the same."""
    found = ask(shop, "QueryPeople", "people_request", attributes)["data"]["attributes"]
    ids = [record["user_id"] for record in found["records"]]
    assert found["total"] == len(ids)
    named = {"name": json.dumps(attributes)[-180:]} | attributes
    made = ask(shop, "CreateRumStaticSegment", "create_static_segment_request", named)
    assert made["data"]["attributes"]["row_count"] == len(ids)
    return ids


def base(query: str = "*") -> dict[str, Any]:
    return {"data_source": "product_analytics", "search": {"query": query}}


RANGE = {"from": FROM_MS, "to": TO_MS}


def test_behind_each_bar(shop: Inside) -> None:
    query = {
        "query": base("@view.name:home"),
        "compute": {"aggregation": "cardinality", "metric": "@usr.id"},
        "group_by": [{"facet": "@usr.plan"}],
    }
    told = ask(shop, "QueryProductAnalyticsScalar", "formula_analytics_extended_request", RANGE | {"query": query})
    plans, counts = (column["values"] for column in told["data"]["attributes"]["columns"])
    found = {plan: people(shop, analytics=RANGE | {"query": query, "group_tags": [plan]}) for plan in plans}
    assert found == {"pro": ["ann", "bob"], "free": ["cy", "eve"]}
    assert [len(found[plan]) for plan in plans] == counts


def test_behind_a_point_of_a_series(shop: Inside) -> None:
    query = {"query": base(), "compute": {"aggregation": "count"}}
    bucket = {"from": FROM_MS + HOUR_MS, "to": FROM_MS + 2 * HOUR_MS}
    assert people(shop, analytics=bucket | {"query": query}) == ["bob"]


def test_behind_a_step_and_a_drop_off(shop: Inside) -> None:
    nodes = {name: base(f"@view.name:{name}") for name in ("home", "cart", "pay")}
    search = {"expression": "home -> cart -> pay", "node_objects": nodes}
    ends = {"conversion": ["ann", "cy"], "drop-off": ["bob", "eve"]}
    for kind, expected in ends.items():
        assert people(shop, journey=RANGE | {"query": {"search": search, "conversion_type": kind}}) == expected


def test_behind_a_cell(shop: Inside) -> None:
    every = {"type": "calendar", "value": {"type": "hour"}}
    scope = {
        "type": "cell",
        "cohort_target": {"type": "index", "value": 1},
        "return_period_target": {"type": "index", "value": 0},
    }
    search = {
        "cohort_criteria": {"base_query": base("@view.name:home"), "time_interval": every},
        "retention_entity": "@usr.id",
        "return_condition": "conversion_on",
    }
    assert people(shop, retention=RANGE | {"query": {"search": search, "computation_scope": scope}}) == ["bob"]


def test_behind_each_link(shop: Inside) -> None:
    asked = {"definition": {"source": "@view.name", "target": "@view.name"}, "search": {"query": "*"}, "time": RANGE}
    links = ask(shop, "QueryProductAnalyticsSankey", "sankey_request", asked)["data"]["attributes"]["links"]
    between = [link for link in links if not link["target"].startswith("dropoff")]
    assert between
    for link in between:
        source, target = (link[side].partition(":")[2] for side in ("source", "target"))
        step = {"column": link["column"], "source_node": source, "target_node": target}
        assert len(people(shop, sankey=asked | step)) == link["value"], link
    assert people(shop, sankey=asked | {"column": 0, "source_node": "home", "target_node": "pay"}) == ["eve"]


def test_attributes_of_theirs_are_told_and_an_unknown_one_is_warned_of(shop: Inside) -> None:
    query = {"query": base("@view.name:pay"), "compute": {"aggregation": "count"}}
    asked = {"analytics": RANGE | {"query": query}, "columns": ["user_id", "@usr.plan", "nothing"], "limit": 1}
    answer = ask(shop, "QueryPeople", "people_request", asked)
    assert answer["data"]["attributes"]["records"] == [{"user_id": "ann", "@usr.plan": "pro", "nothing": None}]
    assert answer["data"]["attributes"]["total"] == 3
    assert "'nothing'" in answer["meta"]["warnings"][0]


SCALAR = {"query": base(), "compute": {"aggregation": "count"}}
LINK = {"definition": {"source": "@view.name", "target": "@view.name"}, "search": {}, "time": RANGE}


@pytest.mark.parametrize(
    ("attributes", "at", "said"),
    [
        ({}, "/data/attributes", "exactly one of analytics, journey"),
        ({"analytics": RANGE | {"query": SCALAR, "group_tags": ["x"]}}, "/data/attributes/analytics/group_tags", "0"),
        ({"analytics": {"from": 5, "to": 5, "query": SCALAR}}, "/data/attributes/analytics/from", "from < to"),
        ({"sankey": LINK | {"column": 0}}, "/data/attributes/sankey", "source_node"),
        ({"sankey": LINK | {"column": 9, "source_node": "a"}}, "/data/attributes/sankey/column", "0 to 5"),
    ],
)
def test_what_is_not_clear_is_refused_with_its_place(
    shop: Inside, attributes: dict[str, Any], at: str, said: str
) -> None:
    with pytest.raises(Error) as refused:
        ask(shop, "QueryPeople", "people_request", attributes)
    assert (refused.value.code, refused.value.at) == (Code.INVALID, at)
    assert said in refused.value.text()
