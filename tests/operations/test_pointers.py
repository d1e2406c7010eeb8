"""Places of mistakes in bodies: each is a JSON pointer into the request, without the names of our models."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import BaseModel

from roster.base.errors import Error
from roster.operations.bodies import CreateConnectionBody, decode
from roster.operations.bodies_journey import GraphBody
from roster.operations.bodies_retention import GridBody, RetentionListBody

QUERY = "/data/attributes/query"
NODE = {"data_source": "product_analytics", "search": {"query": "*"}}
CALENDAR = {"type": "calendar", "value": {"type": "week"}}


def journey(**compute: Any) -> Any:
    search = {"expression": "A", "node_objects": {"A": NODE}}
    query = {"search": search, "compute": {"aggregation": "count"} | compute}
    return {"data": {"type": "formula_journey_request", "attributes": {"from": 0, "to": 1, "query": query}}}


def retention(type: str, scope: Any = None, interval: Any = None) -> Any:
    search = {
        "cohort_criteria": {"base_query": NODE, "time_interval": interval or CALENDAR},
        "retention_entity": "@usr.id",
        "return_condition": "conversion_on",
    }
    query = {"search": search, "compute": {"aggregation": "count", "metric": "__dd.retention"}}
    query |= {"computation_scope": scope} if scope else {}
    return {"data": {"type": type, "attributes": {"from": 0, "to": 1, "query": query}}}


def cell(value: Any, **more: Any) -> Any:
    return {"type": "cell", "cohort_target": {"type": "index", "value": value}} | more


GRID, LIST = "retention_grid_request", "retention_list_request"
COHORT = f"{QUERY}/search/cohort_criteria/time_interval"


@pytest.mark.parametrize(
    ("model", "body", "places"),
    [
        (GraphBody, journey(target={"type": "path", "start": "A"}), [f"{QUERY}/compute/target/end"]),
        (GraphBody, journey(target={"type": "node", "value": 1}), [f"{QUERY}/compute/target/value"]),
        (GraphBody, journey(target={"type": "edge"}), [f"{QUERY}/compute/target"]),
        (GraphBody, journey(target="A"), [f"{QUERY}/compute/target"]),
        (
            GridBody,
            retention(GRID, interval={"type": "calendar", "value": {"type": "weak"}}),
            [f"{COHORT}/value/type"],
        ),
        (GridBody, retention(GRID, interval={"type": "calendar"}), [f"{COHORT}/value"]),
        (GridBody, retention(GRID, interval={"type": "fixed", "value": 0}), [f"{COHORT}/unit", f"{COHORT}/value"]),
        (
            GridBody,
            retention(GRID, scope=cell(-1)),
            [
                f"{QUERY}/computation_scope/cohort_target/value",
                f"{QUERY}/computation_scope/return_period_target",
            ],
        ),
        (
            RetentionListBody,
            retention(LIST, scope=cell("x", return_period_target={"type": "index"})),
            [
                f"{QUERY}/computation_scope/cohort_target/value",
                f"{QUERY}/computation_scope/return_period_target/value",
            ],
        ),
        (
            CreateConnectionBody,
            {"data": {"type": "connection_id", "attributes": {"type": "a", "join_type": "b", "fields": [{"id": 1}]}}},
            [
                "/data/attributes/join_attribute",
                "/data/attributes/fields/0/id",
                "/data/attributes/fields/0/source_name",
                "/data/attributes/fields/0/type",
            ],
        ),
        (CreateConnectionBody, [], ["/"]),
    ],
)
def test_places_are_those_of_the_request(model: type[BaseModel], body: Any, places: list[str]) -> None:
    with pytest.raises(Error) as caught:
        decode(model, json.dumps(body).encode())
    assert [error.at for error in (caught.value, *caught.value.others)] == places
