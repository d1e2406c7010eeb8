"""Mistakes in requests for journeys: each is refused with the place where it stands and what would be right."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from journeys import DAY_MS, START_MS, Body, body_of, often, post, search, timed, view
from servers import Server

AT = "/data/attributes"
SEARCH = f"{AT}/query/search"


def at(pointer: str, value: Any) -> Body:
    """A change of a request: the value at a place of its query."""
    return {"pointer": pointer, "value": value}


REFUSED: list[tuple[str, Body, str, str]] = [
    ("funnel", at("/from", START_MS + 9 * DAY_MS), f"{AT}/from", "from < to"),
    ("funnel", at("/from", -1), f"{AT}/from", "epoch milliseconds"),
    ("funnel", at("/to", "x"), f"{AT}/to", ""),
    ("funnel", at("/query/search/expression", "A -> -> B"), f"{SEARCH}/expression", "write it as A -> B -> C"),
    ("funnel", at("/query/search/expression", ""), f"{SEARCH}/expression", "write it as A -> B -> C"),
    ("funnel", at("/query/search/expression", " -> ".join("A" * 51)), f"{SEARCH}/expression", "at most 50"),
    ("funnel", at("/query/search/expression", "A -> D"), f"{SEARCH}/expression", "nodes: A, B, C"),
    ("funnel", at("/query/search/expression", None), f"{SEARCH}/expression", ""),
    ("funnel", at("/query/search/node_objects/A/data_source", "rum"), f"{SEARCH}/node_objects/A/data_source", ""),
    ("funnel", at("/query/search/node_objects/A", view("(")), f"{SEARCH}/node_objects/A/search/query", ""),
    (
        "funnel",
        at("/query/search/node_objects/A", often("A", "!=", "1")),
        f"{SEARCH}/node_objects/A/search/occurrences/operator",
        "allowed: =, >=, <=, >, <",
    ),
    (
        "funnel",
        at("/query/search/node_objects/A", often("A", "=", "one")),
        f"{SEARCH}/node_objects/A/search/occurrences/value",
        'such as "3"',
    ),
    (
        "funnel",
        at("/query/search/node_objects/A", often("A", "=", "1") | {"data_source": "product_analytics"}),
        f"{SEARCH}/node_objects/A/search/occurrences",
        "product_analytics_occurrence",
    ),
    (
        "funnel",
        at("/query/search/join_keys", {"primary": "@usr"}),
        f"{SEARCH}/join_keys/primary",
        "allowed: @session.id",
    ),
    ("funnel", at("/query/search/conversion_window_ms", 0), f"{SEARCH}/conversion_window_ms", ""),
    ("funnel", at("/query/search/order", "any"), f"{SEARCH}/order", ""),
    ("funnel", at("/query/search/exclusions", [{"query": "("}]), f"{SEARCH}/exclusions/0/query", ""),
    ("funnel", at("/query/search/exclusions", [{}]), f"{SEARCH}/exclusions/0/query", ""),
    ("funnel", at("/query/search/exclusions", [{"query": "*", "from": "A"}]), f"{SEARCH}/exclusions/0/from", ""),
    (
        "funnel",
        at("/query/search/exclusions", [{"query": "*"}, {"query": "*", "after": "D"}]),
        f"{SEARCH}/exclusions/1/after",
        "steps: A, B, C",
    ),
    (
        "funnel",
        at("/query/search/exclusions", [{"query": "*", "after": "B", "before": "B"}]),
        f"{SEARCH}/exclusions/0",
        "after names an earlier step",
    ),
    ("funnel", at("/query/search/filters", {"string_filter": "("}), f"{SEARCH}/filters/string_filter", ""),
    (
        "funnel",
        at("/query/search/filters", {"audience_filters": {"users": [{"name": "a"}, {"name": "a"}]}}),
        f"{SEARCH}/filters/audience_filters/users/1/name",
        "unique",
    ),
    (
        "funnel",
        at("/query/search/filters", {"audience_filters": {"users": [{"name": "a"}], "formula": "b"}}),
        f"{SEARCH}/filters/audience_filters/formula",
        "",
    ),
    (
        "funnel",
        at("/query/search/filters", {"graph_filters": [{"name": "__dd.time", "operator": "=", "value": 1}]}),
        f"{SEARCH}/filters/graph_filters/0/name",
        "",
    ),
    (
        "funnel",
        at("/query/search/filters", timed("!=", 1)["filters"]),
        f"{SEARCH}/filters/graph_filters/0/operator",
        "",
    ),
    (
        "funnel",
        at("/query/search/filters", timed("=", 1, {"type": "node", "value": "D"})["filters"]),
        f"{SEARCH}/filters/graph_filters/0/target/value",
        "steps: A, B, C",
    ),
    (
        "funnel",
        at(
            "/query/search/filters",
            {
                "graph_filters": [
                    {
                        "name": "__dd.dropoff_rate",
                        "operator": "=",
                        "value": 1,
                        "target": {"type": "path", "start": "A", "end": "D"},
                    }
                ]
            },
        ),
        f"{SEARCH}/filters/graph_filters/0/target/end",
        "steps: A, B, C",
    ),
    ("funnel", at("/query/compute", {"aggregation": "p90"}), f"{AT}/query/compute/aggregation", ""),
    ("funnel", at("/query/compute", {"aggregation": "avg"}), f"{AT}/query/compute/metric", "@view.loading_time"),
    (
        "funnel",
        at("/query/compute", {"metric": "__dd.conversion_rate"}),
        f"{AT}/query/compute/metric",
        "journey/scalar",
    ),
    ("funnel", at("/query/group_by", [{"limit": 1}]), f"{AT}/query/group_by/0/facet", ""),
    ("funnel", at("/query/group_by", [{"facet": "@tier"}] * 11), f"{AT}/query/group_by", "at most 10"),
    ("funnel", at("/query/group_by", [{"facet": "@tier", "limit": 0}]), f"{AT}/query/group_by/0/limit", ""),
    (
        "funnel",
        at("/query/group_by", [{"facet": "tier", "source": "users"}]),
        f"{AT}/query/group_by/0/source",
        "allowed",
    ),
    (
        "funnel",
        at("/query/group_by", [{"facet": "tier", "sort": {"aggregation": "avg"}}]),
        f"{AT}/query/group_by/0/sort/aggregation",
        "count, cardinality, or another metric",
    ),
    (
        "funnel",
        at("/query/group_by", [{"facet": "tier", "sort": {"aggregation": "averge", "metric": "@view.loading_time"}}]),
        f"{AT}/query/group_by/0/sort/aggregation",
        "",
    ),
    (
        "scalar",
        at("/query/group_by", [{"facet": "tier", "sort": {"aggregation": "bogus"}}]),
        f"{AT}/query/group_by/0/sort/aggregation",
        "allowed: count, cardinality",
    ),
    (
        "timeseries",
        at("/query/group_by", [{"facet": "tier", "sort": {"aggregation": "x", "metric": "__dd.conversion_rate"}}]),
        f"{AT}/query/group_by/0/sort/aggregation",
        "allowed: count, cardinality",
    ),
    (
        "funnel",
        at("/query/group_by", [{"facet": "tier", "sort": {"metric": "__dd.time_to_convert"}}]),
        f"{AT}/query/group_by/0/sort/aggregation",
        "median",
    ),
    (
        "list",
        at("/query/group_by", [{"facet": "tier", "sort": {"metric": "__dd.conversion_rate"}}]),
        f"{AT}/query/group_by/0/sort/metric",
        "no metric for the most flows",
    ),
    (
        "funnel",
        at("/query/group_by", [{"facet": "tier", "target": {"type": "node", "value": "D"}}]),
        f"{AT}/query/group_by/0/target/value",
        "steps: A, B, C",
    ),
    ("scalar", at("/query/compute", None), f"{AT}/query/compute", ""),
    ("scalar", at("/query/compute", {"aggregation": "avg"}), f"{AT}/query/compute/aggregation", "cardinality"),
    (
        "scalar",
        at("/query/compute", {"aggregation": "sum", "metric": "__dd.time_to_convert"}),
        f"{AT}/query/compute/aggregation",
        "median",
    ),
    (
        "scalar",
        at("/query/compute", {"aggregation": "count", "target": {"type": "path", "start": "B", "end": "A"}}),
        f"{AT}/query/compute/target",
        "",
    ),
    (
        "scalar",
        at("/query/compute", {"aggregation": "count", "target": {"type": "edge"}}),
        f"{AT}/query/compute/target",
        "",
    ),
    ("timeseries", at("/interval", 0), f"{AT}/interval", ""),
    (
        "timeseries",
        at("/query/compute", {"aggregation": "count", "interval": 1}),
        f"{AT}/query/compute/interval",
        "use an interval of at least",
    ),
    ("timeseries", at("/interval", 1), f"{AT}/interval", "use an interval of at least"),
    ("list", at("/query/limit", 0), f"{AT}/query/limit", ""),
    ("list", at("/query/conversion_type", "both"), f"{AT}/query/conversion_type", ""),
    ("list", at("/query/entity_filters", "("), f"{AT}/query/entity_filters", ""),
    ("list", at("/query/computed_columns", [{"name": "x"}]), f"{AT}/query/computed_columns/0/name", ""),
    ("list", at("/query/sort", {"order": "up"}), f"{AT}/query/sort/order", ""),
    (
        "list",
        at("/query/target", {"type": "node", "value": "C"}),
        f"{AT}/query/target/value",
        "nobody drops off at the last step",
    ),
]


@pytest.mark.parametrize(("kind", "change", "place", "hint"), REFUSED, ids=lambda v: v if isinstance(v, str) else "")
def test_a_mistake_is_told_with_its_place(server: Server, kind: str, change: Body, place: str, hint: str) -> None:
    query: Body = {"search": search()}
    query |= {"compute": {"aggregation": "count"}} if kind in ("scalar", "timeseries") else {}
    query |= {"conversion_type": "drop-off"} if kind == "list" and change["pointer"] == "/query/target" else {}
    body = copy.deepcopy(body_of(kind, query))
    *parents, last = change["pointer"][1:].split("/")
    inner = body["data"]["attributes"]
    for name in parents:
        inner = inner[name]
    inner[last] = change["value"]
    answer = post(server, kind, body)
    assert answer.status == 400, answer.body
    told = answer.json()["errors"]
    assert any(f"(at {place}" in error and hint in error for error in told), told


def test_a_segment_that_is_not_there(server: Server) -> None:
    segments = [{"name": "a", "segment_id": "6f7a3ad2-4f0f-4a3e-9a62-1f4f0c1f1b10"}]
    body = body_of("funnel", {"search": search(filters={"audience_filters": {"segments": segments}})})
    answer = post(server, "funnel", body)
    assert answer.status == 404
    assert f"(at {SEARCH}/filters/audience_filters/segments/0/segment_id" in answer.json()["errors"][0]
