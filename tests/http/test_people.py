"""The people behind a number: as many as the number says, as a list and as a segment."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
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


@contextmanager
def loaded(folder: Path, lines: Iterable[dict[str, Any]]) -> Iterator[Inside]:
    """A product with these views; each has a time."""
    with inside(folder, []) as made:
        path = folder / "visits.ndjson"
        path.write_text("".join(json.dumps({"type": "view"} | line) + "\n" for line in lines), "utf-8")
        load_events(made.context, path, {}, lambda _: None)
        yield made


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Inside]:
    lines = [
        {
            "date": FROM_MS + n * HOUR_MS + place * 60_000,
            "usr": {"id": user, "plan": PLAN[user]},
            "session": {"id": f"s-{user}"},
            "view": {"id": f"{user}-{place}", "name": name},
        }
        for n, (user, names) in enumerate(VISITS.items())
        for place, name in enumerate(names)
    ]
    with loaded(tmp_path_factory.mktemp("people"), lines) as made:
        yield made


CAME = {
    "ann": (["home", "cart", "pay", "home"], "pro"),
    "bob": (["home", "cart"], "free"),
    "cy": (["home", "cart", "pay"], "free"),
    "dee": (["home"], "free"),
    "": (["home", "cart", "pay"], "free"),
}
"""Of each session the views, half an hour apart; without a name nobody is known, and what the account's plan is."""


@pytest.fixture(scope="module")
def mall(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Inside]:
    lines = [
        {
            "date": FROM_MS + place * HOUR_MS // 2,
            "usr": {"id": user} if user else {"anonymous_id": "visitor"},
            "account": {"id": f"of-{user}"},
            "session": {"id": f"s-{user}"},
            "view": {"id": f"{user}-{place}", "name": name},
            "context": {"plan": plan},
        }
        for user, (names, plan) in CAME.items()
        for place, name in enumerate(names)
    ]
    with loaded(tmp_path_factory.mktemp("mall"), lines) as made:
        yield made


def ask(shop: Inside, operation: str, type: str, attributes: dict[str, Any], **query: str) -> Any:
    body = json.dumps({"data": {"type": type, "attributes": attributes}}).encode()
    asked = {name: [text] for name, text in query.items()}
    return FUNCTIONS[operation](shop.context, Request(CALLER, body, {}, asked)).body


def people(shop: Inside, **attributes: Any) -> list[str]:
    """Their ids; as many as the total says, and those of a static segment made of the same."""
    found = ask(shop, "QueryPeople", "people_request", attributes)["data"]["attributes"]
    ids = [id for record in found["records"] for id in record.values()]
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


@pytest.mark.parametrize("entries", [1, 10])
def test_behind_each_link(shop: Inside, entries: int) -> None:
    definition = {"source": "@view.name", "target": "@view.name", "entries_per_step": entries}
    asked = {"definition": definition, "search": {"query": "*"}, "time": RANGE}
    links = ask(shop, "QueryProductAnalyticsSankey", "sankey_request", asked)["data"]["attributes"]["links"]
    kinds = {side for link in links for side in sides(link).values()}
    assert kinds >= ({"other", "dropoff"} if entries == 1 else {"home", "cart", "pay", "dropoff"})
    for link in links:
        assert len(people(shop, sankey=asked | {"column": link["column"]} | sides(link))) == link["value"], link
    assert people(shop, sankey=asked | {"column": 0, "source_node": "home", "target_node": "pay"}) == ["eve"]
    assert people(shop, sankey=asked | {"column": 1, "source_node": "cart", "target_type": "dropoff"}) == ["bob"]


def sides(link: dict[str, Any]) -> dict[str, str]:
    """The sides of a link as a request for the people behind it names them."""
    found = {}
    for side in ("source", "target"):
        kind, _, name = link[side].partition(":")
        found |= {f"{side}_type": kind} if kind in ("other", "dropoff") else {f"{side}_node": name}
    return found


NODES = {name: base(f"@view.name:{name}") for name in ("home", "cart", "pay")}
STEPS = {"expression": "home -> cart -> pay", "node_objects": NODES, "include_active_sessions": True}


def steps(mall: Inside, attributes: dict[str, Any], **query: Any) -> dict[str, Any]:
    asked = RANGE | {"query": {"search": STEPS} | query} | attributes
    found: dict[str, Any] = ask(mall, "QueryProductAnalyticsJourneyFunnel", "journey_request", asked)
    return found["data"]["attributes"]


def listed(mall: Inside, attributes: dict[str, Any], **query: Any) -> list[str]:
    asked = RANGE | {"query": {"search": STEPS} | query} | attributes
    found = ask(mall, "QueryProductAnalyticsJourneyList", "journey_list_request", asked)["data"]["attributes"]
    assert found["total_count"] == len(found["records"])
    return sorted(record["@session.id"] for record in found["records"])


def test_behind_a_funnel_without_anonymous_traffic(mall: Inside) -> None:
    reached = {"target": {"type": "node", "value": "pay"}}
    for flag, counted, accounts in ((False, 3, ["of-", "of-ann", "of-cy"]), (True, 2, ["of-ann", "of-cy"])):
        given = {"exclude_anonymous_traffic": flag}
        assert steps(mall, given)["funnel_steps"][-1]["value"] == counted
        assert len(listed(mall, given, **reached)) == counted
        journey = RANGE | {"query": {"search": STEPS} | reached} | given
        found = people(mall, entity="accounts", journey=journey)
        assert found == accounts


def test_behind_all_flows(mall: Inside) -> None:
    """Ann came back after she paid: a flow more, which dropped off."""
    for aggregation, entered, dropped in (("cardinality", 5, ["bob", "dee"]), ("count", 6, ["ann", "bob", "dee"])):
        told = steps(mall, {}, compute={"aggregation": aggregation})
        assert (told["initial_count"], told["funnel_steps"][-1]["value"]) == (entered, 3)
        journey = RANGE | {"query": {"search": STEPS, "conversion_type": "drop-off"}, "aggregation": aggregation}
        assert people(mall, journey=journey) == dropped
        assert people(mall, journey=journey | {"query": {"search": STEPS}}) == ["ann", "cy"]


BY_PLAN = [{"facet": "@context.plan"}]


def test_behind_the_steps_of_a_group(mall: Inside) -> None:
    given = {"exclude_anonymous_traffic": True}
    for place, expected in enumerate(({"pro": ["ann"], "free": ["bob", "cy", "dee"]}, {"free": ["bob", "cy"]})):
        step = steps(mall, given, group_by=BY_PLAN)["funnel_steps"][place]
        query = {"search": STEPS, "group_by": BY_PLAN, "target": {"type": "node", "value": step["label"]}}
        for group in step["groups"]:
            found = people(mall, journey=RANGE | given | {"query": query, "group_tags": group["group_tags"]})
            assert len(found) == group["conversion_count"]
            assert expected.get(group["group_tags"][0], found) == found


def test_behind_the_cells_of_a_group(mall: Inside) -> None:
    search = {
        "cohort_criteria": {
            "base_query": base("@view.name:home"),
            "time_interval": {"type": "calendar", "value": {"type": "hour"}},
        },
        "return_criteria": {"base_query": base("@view.name:(cart OR pay)")},
        "retention_entity": "@usr.id",
        "return_condition": "conversion_on_or_after",
    }
    for target, facet in (("cohort", "@context.plan"), ("return_period", "@view.name")):
        groups = [{"facet": facet, "target": target}]
        query = {"search": search, "group_by": groups, "compute": {"aggregation": "sum", "metric": "__dd.retention"}}
        asked = RANGE | {"query": query, "exclude_anonymous_traffic": True}
        grid = ask(mall, "QueryProductAnalyticsRetentionGrid", "retention_grid_request", asked)["data"]["attributes"]
        firsts = {row["group_tags"][0]: row["cells"][:2] for row in reversed(grid["cohorts"]) if "cohort_size" in row}
        counts = {(tag, n): cell["cell_count"] for tag, cells in firsts.items() for n, cell in enumerate(cells)}
        assert len({tag for tag, column in counts if counts[tag, column]}) > 1
        found = {}
        for tag, column in counts:
            cell = {"search": search, "group_by": groups, "computation_scope": scope_of(0, column)}
            behind = RANGE | {"query": cell, "exclude_anonymous_traffic": True, "group_tags": [tag]}
            found[tag, column] = people(mall, retention=behind)
        assert {place: len(ids) for place, ids in found.items()} == counts, target


def scope_of(cohort: int, column: int) -> dict[str, Any]:
    indexes = {"cohort_target": cohort, "return_period_target": column}
    return {"type": "cell"} | {name: {"type": "index", "value": value} for name, value in indexes.items()}


OFTEN = {
    "data_source": "product_analytics_occurrence",
    "search": {"query": "@view.name:home", "occurrences": {"operator": ">=", "value": "2"}},
}


def test_behind_a_point_of_occurrences_over_the_whole_range(mall: Inside) -> None:
    query = {"query": OFTEN, "compute": {"aggregation": "count", "interval": HOUR_MS}}
    told = ask(mall, "QueryProductAnalyticsTimeseries", "formula_analytics_extended_request", RANGE | {"query": query})
    shown = told["data"]["attributes"]
    points = {time: value for time, value in zip(shown["times"], shown["values"][0], strict=True) if value}
    assert list(points.values()) == [1.0, 1.0]
    for start in points:
        bucket = {"from": start, "to": start + HOUR_MS}
        assert people(mall, analytics=RANGE | {"query": query, "bucket": bucket}) == ["ann"]


def test_behind_a_point_of_conversions(mall: Inside) -> None:
    """All flows began in the first hour, but for the second one of ann."""
    journey = RANGE | {"query": {"search": STEPS, "conversion_type": "drop-off"}, "aggregation": "count"}
    later = {"from": FROM_MS + HOUR_MS, "to": FROM_MS + 2 * HOUR_MS}
    assert people(mall, journey=journey | {"bucket": later}) == ["ann"]
    assert people(mall, journey=journey | {"bucket": later, "aggregation": "cardinality"}) == []


def test_attributes_of_theirs_are_told_and_an_unknown_one_is_warned_of(shop: Inside) -> None:
    query = {"query": base("@view.name:pay"), "compute": {"aggregation": "count"}}
    asked = {"analytics": RANGE | {"query": query}, "columns": ["user_id", "@usr.plan", "nothing"], "limit": 1}
    answer = ask(shop, "QueryPeople", "people_request", asked)
    assert answer["data"]["attributes"]["records"] == [{"user_id": "ann", "@usr.plan": "pro", "nothing": None}]
    assert answer["data"]["attributes"]["total"] == 3
    assert "'nothing'" in answer["meta"]["warnings"][0]


SCALAR = {"query": base(), "compute": {"aggregation": "count"}}
LINK = {"definition": {"source": "@view.name", "target": "@view.name"}, "search": {}, "time": RANGE}
GROUPED = {"search": STEPS, "group_by": BY_PLAN}
OUT_OF_IT = {"from": TO_MS, "to": TO_MS + 1}
COHORTS = {
    "cohort_criteria": {"base_query": base(), "time_interval": {"type": "fixed", "unit": "day", "value": 1}},
    "retention_entity": "@usr.id",
    "return_condition": "conversion_on",
}
CELL = {"search": COHORTS, "computation_scope": scope_of(0, 0)}
BY_RETURN = [{"facet": "@context.plan", "target": "return_period"}]


@pytest.mark.parametrize(
    ("attributes", "at", "said"),
    [
        ({}, "", "analytics, journey, retention, sankey"),
        ({"analytics": RANGE | {"query": SCALAR, "group_tags": ["x"]}}, "/analytics/group_tags", "0"),
        ({"analytics": {"from": 5, "to": 5, "query": SCALAR}}, "/analytics/from", "from < to"),
        ({"analytics": RANGE | {"query": SCALAR, "bucket": OUT_OF_IT}}, "/analytics/bucket", "the whole series"),
        ({"analytics": RANGE | {"query": SCALAR, "buckets": OUT_OF_IT}}, "/analytics/buckets", "not permitted"),
        ({"analytics": RANGE | {"query": SCALAR | {"groupby": []}}}, "/analytics/query/groupby", "not permitted"),
        ({"journey": RANGE | {"query": GROUPED}}, "/journey/group_tags", "give group_tags: one value for each of 1"),
        ({"journey": RANGE | {"query": GROUPED, "group_tags": ["a", "b"]}}, "/journey/group_tags", "2 group_tags"),
        ({"journey": RANGE | {"query": {"search": STEPS, "compute": {}}}}, "/journey/query/compute", "not permitted"),
        ({"journey": RANGE | {"query": {"search": STEPS}, "aggregation": "sum"}}, "/journey/aggregation", "count"),
        ({"retention": RANGE | {"query": CELL | {"group_by": BY_RETURN}}}, "/retention/group_tags", "give group_tags"),
        ({"retention": RANGE | {"query": CELL, "scope": {}}}, "/retention/scope", "not permitted"),
        ({"retention": RANGE | {"query": CELL | {"compute": {}}}}, "/retention/query/compute", "not permitted"),
        ({"sankey": LINK | {"column": 0}}, "/sankey", "source_type or target_type"),
        ({"sankey": LINK | {"column": 9, "source_node": "a"}}, "/sankey/column", "0 to 5"),
        ({"sankey": LINK | {"column": 0, "target_type": "dropoff"}}, "/sankey/column", "1 to 5"),
        (
            {"sankey": LINK | {"column": 0, "source_node": "a", "source_type": "other"}},
            "/sankey/source_node",
            "told by its type alone",
        ),
        (
            {
                "sankey": LINK
                | {"column": 1, "target_type": "dropoff", "definition": {"source": "@view.name", "target": "pay"}}
            },
            "/sankey/target_type",
            "never drop off",
        ),
        ({"sankey": LINK | {"column": 0, "source": "home"}}, "/sankey/source", "not permitted"),
        ({"analytics": RANGE | {"query": SCALAR}, "limits": 5}, "/limits", "not permitted"),
    ],
)
@pytest.mark.parametrize("operation", ["QueryPeople", "CreateRumStaticSegment"])
def test_what_is_not_clear_is_refused_with_its_place(
    shop: Inside, operation: str, attributes: dict[str, Any], at: str, said: str
) -> None:
    type = {"QueryPeople": "people_request"}.get(operation, "create_static_segment_request")
    named = attributes if operation == "QueryPeople" else {"name": "x"} | attributes
    with pytest.raises(Error) as refused:
        ask(shop, operation, type, named)
    assert (refused.value.code, refused.value.at) == (Code.INVALID, f"/data/attributes{at}")
    assert said in refused.value.text()
