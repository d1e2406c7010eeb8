"""The scenarios published with the official clients, run by them: statuses, typed answers, and what they hold."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator, FormatChecker
from jsonschema.validators import extend

from clients.scenario_world import fill, stalling
from clients.test_clients import HERE, install_typescript, run
from servers import Server

pytestmark = pytest.mark.clients
Json = dict[str, Any]
CONTRACT = json.loads(files("roster.http").joinpath("contract.json").read_text("utf-8"))
OPERATIONS: dict[str, tuple[str, Json]] = {
    operation["operationId"]: (path, operation)
    for path, verbs in CONTRACT["paths"].items()
    for operation in verbs.values()
}
PUBLISHED = {200: 20, 201: 1, 202: 1, 204: 1, 400: 13, 408: 1, 413: 1}
"""How many scenarios of both tags end with each status."""
REAL = {
    "QueryUsers": "hits/0/last_seen",
    "QueryAccounts": "hits/0/mrr",
    "QueryEventFilteredUsers": "hits/0/avg_loading_time",
    "GetUserFacetInfo": "result/values/0/count",
    "GetAccountFacetInfo": "result/values/0/count",
    "GetMapping": "attributes/0/attribute",
    "ListConnections": "connections/1/fields/2/groups/1",
    "QueryProductAnalyticsScalar": "columns/0/values/0",
    "QueryProductAnalyticsTimeseries": "series/0",
    "QueryProductAnalyticsList": "records/0/@view.name",
    "QueryProductAnalyticsJourneyFunnel": "funnel_steps/0/groups/0/elapsed_time_to_next_step/avg",
    "QueryProductAnalyticsJourneyScalar": "columns/1/values/0",
    "QueryProductAnalyticsJourneyTimeseries": "series/0/group_tags/0",
    "QueryProductAnalyticsJourneyList": "records/0/A_timestamp",
    "QueryProductAnalyticsRetentionGrid": "cohorts/0/cells/0/cell_count",
    "QueryProductAnalyticsRetentionScalar": "columns/0/values/0",
    "QueryProductAnalyticsRetentionTimeseries": "series/0/group_tags/0",
    "QueryProductAnalyticsRetentionList": "records/0/@usr.email",
    "QueryProductAnalyticsSankey": "nodes/0/outgoing_value",
}
"""A place of each answer's attributes that shows that it holds something."""
PLACES = {"SubmitProductAnalyticsEvent": "/usr/id", "QueryProductAnalyticsSankey": "/data/attributes/time/from"}
"""Where the refusal of a bad request points; of all others to the time where it begins."""
MEASURES = [
    {"aggregation": "avg", "metric": "@view.loading_time"},
    {"aggregation": "cardinality", "metric": "@usr.id"},
]
RETURNS = [
    {"aggregation": aggregation, "metric": metric}
    for aggregation in ("count", "avg")
    for metric in ("__dd.retention", "__dd.retention_rate")
]
FLOWS = [
    {"aggregation": "avg", "metric": "__dd.time_to_convert"},
    {"aggregation": "count", "metric": "__dd.conversion_rate"},
    {"aggregation": "cardinality", "metric": "__dd.dropoff_rate"},
]
COMPUTES: dict[str, list[Json]] = {
    "QueryProductAnalyticsScalar": MEASURES,
    "QueryProductAnalyticsTimeseries": MEASURES,
    "QueryProductAnalyticsList": [],
    "QueryProductAnalyticsJourneyFunnel": [{"aggregation": "count"}, MEASURES[0]],
    "QueryProductAnalyticsJourneyScalar": FLOWS,
    "QueryProductAnalyticsJourneyTimeseries": FLOWS,
    "QueryProductAnalyticsJourneyList": [],
    "QueryProductAnalyticsRetentionGrid": RETURNS,
    "QueryProductAnalyticsRetentionScalar": RETURNS,
    "QueryProductAnalyticsRetentionTimeseries": RETURNS,
    "QueryProductAnalyticsRetentionList": [],
    "QueryProductAnalyticsSankey": [],
}
"""The analyses, and what else than the published they are asked to compute."""
# Clients decode 1.0 as no integer, which a plain validator takes for one.
Strict = extend(
    Draft202012Validator,
    type_checker=Draft202012Validator.TYPE_CHECKER.redefine("integer", lambda _, value: type(value) is int),
)


@dataclass(frozen=True)
class Stage:
    """A filled server, the requests of all scenarios, and how they ended in Python."""

    server: Server
    stalled_url: str
    requests_file: Path
    requests: list[Json]
    python: list[Json]


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    folder = tmp_path_factory.mktemp("scenarios")
    asked, ended = folder / "requests.json", folder / "python.json"
    script = str(HERE / "scenarios_python.py")
    with Server(folder, events_days="36500", body_timeout_s="2") as server, stalling(server.port) as stalled_url:
        segment_id = fill(server)
        run(server, sys.executable, script, segment_id, str(asked), str(ended), ROSTER_STALLED_URL=stalled_url)
        yield Stage(server, stalled_url, asked, json.loads(asked.read_text()), json.loads(ended.read_text()))


def check(stage: Stage, ended: list[Json]) -> None:
    """Every scenario ended as published; answers are typed throughout and hold something, refusals say why."""
    for asked, got in zip(stage.requests, ended, strict=True):
        told = (asked["title"], got)
        assert got["unparsed"] == [], told
        assert got["status"] in (asked["status"], None if asked["status"] < 300 else asked["status"]), told
        if asked["status"] >= 400:
            check_refusal(asked, got["body"])
        elif asked["answer"]:
            value = got["body"]["data"]["attributes"]
            for key in REAL[asked["operation"]].split("/"):
                value = value[int(key) if isinstance(value, list) else key]
            assert value, told
        else:
            assert not got["body"], told


def check_refusal(asked: Json, body: Any) -> None:
    """Texts, of events objects; the place is told where a request is bad. TypeScript hands undeclared ones over raw."""
    errors = (json.loads(body[body.index("{") : body.rindex("}") + 1]) if isinstance(body, str) else body)["errors"]
    assert errors
    form = dict if asked["operation"] == "SubmitProductAnalyticsEvent" else str
    assert all(isinstance(error, form) for error in errors), errors
    if asked["status"] == 400:
        assert PLACES.get(asked["operation"], "/data/attributes/from") in json.dumps(errors), errors


def test_all_published_scenarios_are_run(stage: Stage) -> None:
    filled = [one["status"] for one in stage.requests if not one["title"].endswith("untouched")]
    assert {status: filled.count(status) for status in set(filled)} == PUBLISHED
    assert {one["operation"] for one in stage.requests if one["answer"]} == REAL.keys()


def test_python_scenarios(stage: Stage) -> None:
    check(stage, stage.python)


@pytest.mark.skipif(shutil.which("npm") is None, reason="npm is not on this machine")
def test_typescript_scenarios(stage: Stage) -> None:
    script, ended = str(install_typescript() / "scenarios.mjs"), stage.requests_file.with_name("typescript.json")
    run(stage.server, "node", script, str(stage.requests_file), str(ended), ROSTER_STALLED_URL=stage.stalled_url)
    outcome = json.loads(ended.read_text())
    check(stage, outcome)
    for asked, there, here in zip(stage.requests, outcome, stage.python, strict=True):
        if asked["answer"] and asked["body"] and asked["status"] == 200:
            assert there["body"]["data"]["attributes"] == here["body"]["data"]["attributes"], asked["title"]


def test_answers_are_the_contracts_to_the_letter(stage: Stage) -> None:
    """Integers are written as integers, nulls stand only where the contract has them, closed objects stay closed."""
    for asked in stage.requests:
        if not asked["answer"] or not asked["body"] or asked["status"] != 200:
            continue
        path, operation = OPERATIONS[asked["operation"]]
        schema = operation["responses"]["200"]["content"]["application/json"]["schema"]
        strict = Strict(schema | {"components": CONTRACT["components"]}, format_checker=FormatChecker())
        for body in variants(asked["operation"], asked["body"]):
            answer = stage.server.ask("POST", path, body)
            assert (answer.status, answer.headers["content-type"]) == (200, "application/json"), (body, answer)
            strict.validate(answer.json())


def variants(operation: str, body: Json) -> Iterator[Json]:
    """A published body; of an analysis also one that finds nothing, one without groups, and those of other numbers."""
    yield body
    if operation not in COMPUTES:
        return
    attributes: Json = body["data"]["attributes"]
    never = {"from": 0, "to": 86_400_000}
    yield changed(body, {"time": never} if "time" in attributes else never)
    if "query" not in attributes:
        return
    bare = {name: value for name, value in attributes["query"].items() if name != "group_by"}
    yield changed(body, {"query": bare})
    for compute in COMPUTES[operation]:
        yield changed(body, {"query": attributes["query"] | {"compute": compute}})


def changed(body: Json, attributes: Json) -> Json:
    """The body with other attributes."""
    return {"data": body["data"] | {"attributes": body["data"]["attributes"] | attributes}}
