"""An event whose value is an array counts in a group for each of its texts; counted by hand.

That it does so in every analysis is in the matrix of attributes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from inside import Inside, inside
from roster.operations.analytics import query_scalar, query_timeseries
from roster.operations.context import Context, Reply, Request
from roster.operations.load import load_events
from roster.operations.retention_queries import query_retention_grid

TAGS: dict[str, Any] = {
    "u1": ["new", "vip", "new"],
    "u2": "new",
    "u3": ["vip", 7, None, ["deep"]],
    "u4": [],
    "u5": "[x]",
}
PLANS = {"u1": "pro", "u2": "free", "u3": "pro", "u4": "free", "u5": "free"}
"""More events are `free`, more tags `pro`."""
DAY = 1_736_899_200_000
"""2025-01-15 00:00 UTC. Everybody looks once and buys a second later."""
SPAN = {"from": DAY, "to": DAY + 86_400_000}
EVERYBODY = {"new": 2, "vip": 2, "7": 1, "[x]": 1, "N/A": 1}


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Inside]:
    folder = tmp_path_factory.mktemp("several")
    with inside(folder, []) as product:
        lines = [
            {
                "type": type,
                "date": DAY + place * 60_000 + n * 1000,
                "usr": {"id": user},
                "session": {"id": f"s-{user}"},
                "view": {"id": f"v-{user}", "name": "home"},
                "context": {"tags": TAGS[user], "plan": PLANS[user]},
            }
            | ({"action": {"id": f"x-{user}", "name": "buy"}} if type == "action" else {})
            for place, user in enumerate(TAGS)
            for n, type in enumerate(("view", "action"))
        ]
        path = folder / "events.ndjson"
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
        load_events(product.context, path, {}, lambda _: None)
        yield product


Body = dict[str, Any]
TAGGED = {"facet": "@context.tags"}


def searched(text: str) -> Body:
    return {"data_source": "product_analytics", "search": {"query": text}}


def ask(shop: Inside, operation: Callable[[Context, Request], Reply], type: str, **query: Any) -> Body:
    body = {"data": {"type": type, "attributes": SPAN | {"query": query}}}
    answered: Body = operation(shop.context, shop.request(body)).body["data"]["attributes"]
    return answered


def rows(shown: Body) -> list[tuple[Any, ...]]:
    """The rows of an answer in columns."""
    return list(zip(*(column["values"] for column in shown["columns"]), strict=True))


def views(shop: Inside, *groups: Body, **compute: Any) -> Body:
    numbers = {"query": searched("@type:view"), "compute": {"aggregation": "count"} | compute, "group_by": [*groups]}
    operation = query_timeseries if compute else query_scalar
    return ask(shop, operation, "formula_analytics_extended_request", **numbers)


def test_an_event_counts_in_each_group_once(shop: Inside) -> None:
    assert dict(rows(views(shop, TAGGED))) == EVERYBODY


def test_an_array_without_a_text_is_missing(shop: Inside) -> None:
    found = dict(rows(views(shop, TAGGED | {"should_exclude_missing": True})))
    assert found == {tag: n for tag, n in EVERYBODY.items() if tag != "N/A"}


def test_outer_groups_are_ranked_by_events_and_not_by_the_groups_within(shop: Inside) -> None:
    plan = {"facet": "@context.plan", "limit": 1}
    free = [("free", "N/A", 1.0), ("free", "[x]", 1.0), ("free", "new", 1.0)]
    assert rows(views(shop, plan, TAGGED)) == free
    shown = views(shop, plan, TAGGED, interval=86_400_000)
    assert [series["group_tags"] for series in shown["series"]] == [[plan, tag] for plan, tag, _ in free]


def back(shop: Inside, *groups: Body) -> dict[tuple[str, ...], list[int]]:
    """The groups of retention by day, entered by any event, and how many return in column 0 and 1."""
    day = {"type": "calendar", "value": {"type": "day"}}
    search = {
        "cohort_criteria": {"base_query": searched("*"), "time_interval": day},
        "retention_entity": "@usr.id",
        "return_condition": "conversion_on",
    }
    query = {"search": search, "compute": {"aggregation": "count", "metric": "__dd.retention"}, "group_by": [*groups]}
    attributes = {"from": DAY, "to": DAY + 2 * 86_400_000, "query": query}
    body = {"data": {"type": "retention_grid_request", "attributes": attributes}}
    cohorts = query_retention_grid(shop.context, shop.request(body)).body["data"]["attributes"]["cohorts"]
    first = [c for c in cohorts if c["type"] == "raw" and c["cohort_index"] == 0 and c["group_tags"]]
    return {tuple(c["group_tags"]): [cell["cell_count"] for cell in c["cells"]] for c in first}


def test_who_enters_in_several_groups_returns_in_each_of_them(shop: Inside) -> None:
    tags, plan = TAGGED | {"target": "cohort"}, {"facet": "@context.plan", "target": "return_period"}
    found = back(shop, tags, plan)
    assert {tags for tags in found if tags[1] == "pro"} == {("new", "pro"), ("vip", "pro"), ("7", "pro")}
    assert found["vip", "pro"] == [2, 0]


def test_groups_of_returns_are_ranked_by_people_and_not_by_their_groups_of_entry(shop: Inside) -> None:
    tags, plan = TAGGED | {"target": "cohort"}, {"facet": "@context.plan", "target": "return_period", "limit": 1}
    assert {plan for _, plan in back(shop, tags, plan)} == {"free"}


def test_two_groups_by_one_array_are_all_pairs_of_its_texts(shop: Inside) -> None:
    found = {tuple(tags) for *tags, _ in rows(views(shop, TAGGED, TAGGED)) if "new" in tags}
    assert found == {("new", "new"), ("new", "vip"), ("vip", "new")}
