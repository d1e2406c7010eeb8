"""Every attribute works in every place of every analysis: one small world, each answer counted by hand.

Five people have one session each, of three events: a view, the action `buy`, and a view. What is true of a person is
true of all three events, so an answer follows from who has which value (VALUES). A new analysis is a new row of ROWS.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from inside import Inside, inside
from roster.model.schema import Entity
from roster.operations import table
from roster.operations.load import load_events

PEOPLE = ("u1", "u2", "u3", "u4", "u5")
ACCOUNTS = {"u1": "a1", "u2": "a2", "u3": "a2", "u4": "a1", "u5": "a3"}
COUNTRIES = {"u1": "DE", "u2": "FR", "u3": "FR", "u4": "FR", "u5": "DE"}
VIEWS = {"u1": "home", "u2": "home", "u3": "home", "u4": "help", "u5": "help"}
PLANS = {"u1": "pro", "u2": "free", "u3": "pro", "u4": "free", "u5": "pro"}
SKILLS = {"u1": ["sql", "art"], "u2": ["sql"], "u4": ["art", "sql", "art"], "u5": ["art"]}
TIERS = {"u1": "gold", "u2": "gold", "u3": "silver", "u4": "gold"}
SIZES = {"a1": "big", "a2": "small"}
STAGES = {"u1": "paid", "u2": "trial", "u3": "trial", "u4": "paid"}
DAY = 1_736_899_200_000
"""2025-01-15 00:00 UTC; all happens within its first hour."""


@dataclass(frozen=True)
class Kind:
    """An attribute: its name, who has which value, one of the values, and the entity whose profiles have it.

    `several`: who has several values.
    """

    facet: str
    values: dict[str, str]
    value: str
    entity: Entity | None = None
    several: dict[str, list[str]] = field(default_factory=dict)

    def having(self, value: str) -> int:
        return int(self.counts()[value])

    def counts(self, times: int = 1) -> dict[str, float]:
        several = (value for values in self.several.values() for value in {*values})
        return {value: float(n * times) for value, n in Counter([*self.values.values(), *several]).items()}


KINDS = {
    "column of the event": Kind("@view.name", VIEWS, "help"),
    "several in the event": Kind("@context.skills", {}, "sql", several=SKILLS),
    "deep in the event": Kind("@context.plan", PLANS, "free"),
    "built-in of the user": Kind("first_country_code", COUNTRIES, "FR", Entity.USERS),
    "connection of users": Kind("@tier", TIERS, "gold", Entity.USERS),
    "connection of accounts": Kind(
        "@size", {u: SIZES[a] for u, a in ACCOUNTS.items() if a in SIZES}, "big", Entity.ACCOUNTS
    ),
    "trait of the user": Kind("@usr.plan", STAGES, "paid", Entity.USERS),
}


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Inside]:
    folder = tmp_path_factory.mktemp("matrix")
    with inside(folder, []) as product:
        lines = []
        for place, user in enumerate(PEOPLE):
            for n, type in enumerate(("view", "action", "view")):
                event = {
                    "type": type,
                    "date": DAY + place * 60_000 + n * 1000,
                    "usr": {"id": user} | ({"plan": STAGES[user]} if user in STAGES else {}),
                    "account": {"id": ACCOUNTS[user]},
                    "session": {"id": f"s-{user}"},
                    "view": {"id": f"v-{user}-{n // 2}", "name": VIEWS[user]},
                    "context": {"plan": PLANS[user], "skills": SKILLS.get(user)},
                    "geo": {"country_iso_code": COUNTRIES[user]},
                }
                lines.append(event | ({"action": {"id": f"x-{user}", "name": "buy"}} if type == "action" else {}))
        path = folder / "events.ndjson"
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
        load_events(product.context, path, {}, lambda _: None)
        product.context.events.settle(product.context.clock.now_ms())
        product.add_table(["user", "tier"], [list(pair) for pair in TIERS.items()], "user", "crm")
        product.add_table(["firm", "size"], [list(pair) for pair in SIZES.items()], "firm", "firms")
        tier = {"id": "tier", "source_name": "tier", "type": "string"}
        product.create("crm", {"type": "ref_table", "join_type": "user_id", "join_attribute": "user", "fields": [tier]})
        size = {"id": "size", "source_name": "size", "type": "string"}
        product.create(
            "firms",
            {"type": "ref_table", "join_type": "account_id", "join_attribute": "firm", "fields": [size]},
            entity="accounts",
        )
        yield product


Body = dict[str, Any]
SPAN = {"from": DAY, "to": DAY + 86_400_000}


def searched(text: str) -> Body:
    return {"data_source": "product_analytics", "search": {"query": text}}


def term(kind: Kind) -> str:
    return f"{kind.facet}:{kind.value}"


def audience(kind: Kind) -> Body:
    assert kind.entity is not None
    return {kind.entity.value: [{"name": "them", "query": term(kind)}]}


def grouped(kind: Kind, **more: Any) -> list[Body]:
    return [{"facet": kind.facet, "should_exclude_missing": True} | more]


# analytics


def analytics(kind: Kind, place: str, aggregation: str = "count", metric: str | None = None) -> Body:
    query: Body = {
        "query": searched(term(kind) if place == "filter" else "*"),
        "compute": {"aggregation": aggregation, "metric": metric, "interval": 86_400_000},
    }
    if place == "group":
        query["group_by"] = grouped(kind)
    if place == "audience":
        query["audience_filters"] = audience(kind)
    return {"type": "formula_analytics_extended_request", "attributes": SPAN | {"query": query}}


def distinct(kind: Kind, _: str) -> Body:
    return analytics(kind, "metric", "cardinality", kind.facet)


def ranked(kind: Kind, _: str) -> Body:
    """People by how many values of the attribute they have: those without one come last."""
    body = analytics(kind, "sort")
    rank = {"aggregation": "cardinality", "metric": kind.facet}
    body["attributes"]["query"]["group_by"] = [{"facet": "@usr.id", "sort": rank}]
    return body


def listed(kind: Kind, place: str) -> Body:
    query: Body = {"query": searched("@type:action"), "columns": ["@usr.id"], "limit": 100}
    match place:
        case "filter":
            query["query"] = searched(f"@type:action {term(kind)}")
        case "column":
            query["columns"] = ["@usr.id", kind.facet]
        case "sort":
            query["sort"] = {"facet": kind.facet, "order": "asc"}
        case "audience":
            query["audience_filters"] = audience(kind)
    return {"type": "formula_analytics_extended_list_request", "attributes": SPAN | {"query": query}}


# pathways


def sankey(kind: Kind, place: str) -> Body:
    search: Body = {"query": term(kind) if place == "filter" else "*"}
    if place == "audience":
        search["audience_filters"] = audience(kind)
    target = kind.facet if place == "column" else "@type"
    definition = {"source": "@type", "target": target, "number_of_steps": 1, "entries_per_step": 10}
    return {"type": "sankey_request", "attributes": {"definition": definition, "search": search, "time": SPAN}}


# journeys


def steps(kind: Kind, place: str, **more: Any) -> Body:
    filters: Body = {}
    first = "@type:view"
    match place:
        case "filter":
            filters["string_filter"] = term(kind)
        case "step":
            first = f"@type:view {term(kind)}"
        case "audience":
            filters["audience_filters"] = audience(kind)
    nodes = {"look": searched(first), "buy": searched("@type:action")}
    return {"expression": "look -> buy", "node_objects": nodes, "filters": filters} | more


def funnel(kind: Kind, place: str) -> Body:
    query: Body = {"search": steps(kind, place)}
    if place == "group":
        query["group_by"] = grouped(kind)
    return {"type": "journey_request", "attributes": SPAN | {"query": query}}


def graph(kind: Kind, place: str) -> Body:
    compute = {"aggregation": "cardinality", "metric": "__dd.conversion", "interval": 86_400_000}
    query: Body = {"search": steps(kind, place), "compute": compute}
    if place == "group":
        query["group_by"] = grouped(kind)
    return {"type": "formula_journey_request", "attributes": SPAN | {"query": query}}


def flow_list(kind: Kind, place: str) -> Body:
    query: Body = {"search": steps(kind, place, join_keys={"primary": "@usr.id"}), "conversion_type": "conversion"}
    match place:
        case "profile":
            query["entity_columns"] = [kind.facet]
        case "profile filter":
            query["entity_filters"] = term(kind)
    return {"type": "journey_list_request", "attributes": SPAN | {"query": query}}


# retention


def retention(kind: Kind, place: str, type: str, metric: str, scope: Body | None = None) -> Body:
    filters: Body = {}
    first = "@type:view"
    match place:
        case "filter":
            filters["string_filter"] = term(kind)
        case "step":
            first = f"@type:view {term(kind)}"
        case "audience":
            filters["audience_filters"] = audience(kind)
    search = {
        "cohort_criteria": {
            "base_query": searched(first),
            "time_interval": {"type": "calendar", "value": {"type": "day"}},
        },
        "return_criteria": {"base_query": searched("@type:action")},
        "retention_entity": "@usr.id",
        "return_condition": "conversion_on",
        "filters": filters,
    }
    query: Body = {"search": search, "compute": {"aggregation": "count", "metric": metric}}
    if scope is not None:
        query["computation_scope"] = scope
    if place == "group":
        query["group_by"] = grouped(kind, target="cohort")
    return {"type": type, "attributes": SPAN | {"query": query}}


FIRST = {"type": "index", "value": 0}
CELL = {"type": "cell", "cohort_target": FIRST, "return_period_target": FIRST}


def grid(kind: Kind, place: str) -> Body:
    return retention(kind, place, "retention_grid_request", "__dd.retention")


def retained(kind: Kind, place: str) -> Body:
    return retention(kind, place, "formula_retention_request", "__dd.retention", {"type": "cohort", "target": FIRST})


def retained_list(kind: Kind, place: str) -> Body:
    body = retention(kind, place, "retention_list_request", "__dd.retention", CELL)
    if place == "profile":
        body["attributes"]["query"]["columns"] = [{"field": {"path": path}} for path in ("@usr.id", kind.facet)]
    return body


# reading answers


def one_number(shown: Body) -> Any:
    (column,) = shown["columns"]
    return column["values"][0]


def by_group(shown: Body) -> Any:
    groups, numbers = shown["columns"]
    return dict(zip(groups["values"], numbers["values"], strict=True))


def sums(shown: Body) -> Any:
    return sum(n for values in shown["values"] for n in values if n is not None)


def sums_by_group(shown: Body) -> Any:
    return {
        series["group_tags"][0]: sum(n for n in values if n is not None)
        for series, values in zip(shown["series"], shown["values"], strict=True)
    }


def total(shown: Body) -> Any:
    return float(shown["total_count"])


def records(shown: Body) -> Any:
    return float(len(shown["records"]))


def values_by_person(shown: Body) -> Any:
    """Of records that tell the person, maybe a time, and one value."""
    return {r["@usr.id"]: v for r in shown["records"] for name, v in r.items() if name not in ("@usr.id", "timestamp")}


def node_values(column: int) -> Callable[[Body], Any]:
    return lambda shown: {n["name"]: float(n["value"]) for n in shown["nodes"] if n["column"] == column}


def converted(shown: Body) -> Any:
    return float(shown["funnel_steps"][-1]["value"])


def converted_by_group(shown: Body) -> Any:
    return {g["group_tags"][0]: float(g["value"]) for g in shown["funnel_steps"][-1]["groups"]}


def cohort_size(shown: Body) -> Any:
    return float(sum(c["cohort_size"] for c in shown["cohorts"] if c["type"] == "raw"))


def sizes_by_group(shown: Body) -> Any:
    raw = [c for c in shown["cohorts"] if c["type"] == "raw"]
    return {c["group_tags"][0]: float(c["cohort_size"]) for c in raw if c["group_tags"]}


# rows


def of_events(kind: Kind) -> Any:
    return float(3 * kind.having(kind.value))


def of_people(kind: Kind) -> Any:
    return float(kind.having(kind.value))


def values_of_people(kind: Kind) -> Any:
    return {user: kind.values.get(user) for user in PEOPLE}


Make = Callable[[Kind, str], Body]
Read = Callable[[Body], Any]
Want = Callable[[Kind], Any]
Row = tuple[str, str, Make, Read, Want]


def rows(operation: str, make: Make, *cells: tuple[str, Read, Want]) -> list[Row]:
    return [(f"QueryProductAnalytics{operation}", place, make, read, want) for place, read, want in cells]


def _people(kind: Kind) -> list[str]:
    """People without a value last, those of one value by the time of their events."""
    return sorted(PEOPLE, key=lambda u: (u not in kind.values, kind.values.get(u, ""), PEOPLE.index(u)))


ROWS: list[Row] = [
    *rows(
        "Scalar",
        analytics,
        ("filter", one_number, of_events),
        ("group", by_group, lambda k: k.counts(3)),
        ("audience", one_number, of_events),
    ),
    *rows("Scalar", distinct, ("metric", one_number, lambda k: float(len(set(k.values.values()))))),
    *rows(
        "Scalar",
        ranked,
        (
            "sort",
            lambda shown: shown["columns"][0]["values"],
            lambda k: sorted(PEOPLE, key=lambda u: (u not in k.values, u)),
        ),
    ),
    *rows(
        "Timeseries",
        analytics,
        ("filter", sums, of_events),
        ("group", sums_by_group, lambda k: k.counts(3)),
        ("audience", sums, of_events),
    ),
    *rows("Timeseries", distinct, ("metric", sums, lambda k: float(len(set(k.values.values()))))),
    *rows(
        "List",
        listed,
        ("filter", total, of_people),
        ("column", values_by_person, values_of_people),
        ("sort", lambda shown: [r["@usr.id"] for r in shown["records"]], _people),
        ("audience", total, of_people),
    ),
    *rows(
        "Sankey",
        sankey,
        ("filter", node_values(0), lambda k: {"view": of_people(k)}),
        ("column", lambda shown: {k: v for k, v in node_values(2)(shown).items() if k != "dropoff"}, Kind.counts),
        ("audience", node_values(0), lambda k: {"view": of_people(k)}),
    ),
    *rows(
        "JourneyFunnel",
        funnel,
        ("filter", converted, of_people),
        ("step", converted, of_people),
        ("group", converted_by_group, Kind.counts),
        ("audience", converted, of_people),
    ),
    *rows(
        "JourneyScalar",
        graph,
        ("filter", one_number, of_people),
        ("step", one_number, of_people),
        ("group", by_group, Kind.counts),
        ("audience", one_number, of_people),
    ),
    *rows(
        "JourneyTimeseries",
        graph,
        ("filter", sums, of_people),
        ("step", sums, of_people),
        ("group", sums_by_group, Kind.counts),
        ("audience", sums, of_people),
    ),
    *rows(
        "JourneyList",
        flow_list,
        ("filter", total, of_people),
        ("step", total, of_people),
        ("audience", total, of_people),
        ("profile", values_by_person, values_of_people),
        ("profile filter", total, of_people),
    ),
    *rows(
        "RetentionGrid",
        grid,
        ("filter", cohort_size, of_people),
        ("step", cohort_size, of_people),
        ("group", sizes_by_group, Kind.counts),
        ("audience", cohort_size, of_people),
    ),
    *rows(
        "RetentionScalar",
        retained,
        ("filter", one_number, of_people),
        ("step", one_number, of_people),
        ("group", by_group, Kind.counts),
        ("audience", one_number, of_people),
    ),
    *rows(
        "RetentionTimeseries",
        retained,
        ("filter", sums, of_people),
        ("step", sums, of_people),
        ("group", sums_by_group, Kind.counts),
        ("audience", sums, of_people),
    ),
    *rows(
        "RetentionList",
        retained_list,
        ("filter", records, of_people),
        ("step", records, of_people),
        ("audience", records, of_people),
        ("profile", values_by_person, values_of_people),
    ),
]


def fits(place: str, kind: Kind) -> bool:
    """Audiences are of profiles; where people are listed with their profiles, those are users'.

    Several values are searched and grouped; where one is shown or measured, they are the array that they are.
    """
    if kind.several:
        return place in ("filter", "step", "group")
    if place.startswith("profile"):
        return kind.entity is Entity.USERS
    return place != "audience" or kind.entity is not None


CELLS = [(*row, name) for row in ROWS for name, kind in KINDS.items() if fits(row[1], kind)]
IDS = [f"{row[0].removeprefix('QueryProductAnalytics')}, {row[1]}, {row[-1]}" for row in CELLS]


@pytest.mark.parametrize(("operation", "place", "make", "read", "want", "name"), CELLS, ids=IDS)
def test_an_attribute_in_a_place_of_an_analysis(
    shop: Inside, operation: str, place: str, make: Make, read: Read, want: Want, name: str
) -> None:
    kind = KINDS[name]
    function = next(o.function for o in table.OPERATIONS if o.name == operation)
    reply = function(shop.context, shop.request({"data": make(kind, place)}))
    assert read(reply.body["data"]["attributes"]) == want(kind), reply.body
    assert "warnings" not in reply.body["meta"]


def test_every_analysis_is_in_the_matrix() -> None:
    analyses = {o.name for o in table.OPERATIONS if o.name.startswith("QueryProductAnalytics")}
    assert {row[0] for row in ROWS} == analyses
    for name in analyses:
        assert {"filter", "audience"} <= {row[1] for row in ROWS if row[0] == name}
