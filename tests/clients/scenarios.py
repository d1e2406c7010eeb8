"""Reads the scenarios that Datadog publishes with its clients and makes requests of them; sends nothing."""

import copy
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from importlib import import_module
from typing import Any

from published import fetch

FEATURES = ("rum_audience_management", "product_analytics")
API = re.compile(r'And an instance of "(\w+)" API')
LINES = {
    "title": re.compile(r"  Scenario: (.+)"),
    "operation": re.compile(r'    (?:Given|And) new "(\w+)" request'),
    "unstable": re.compile(r'    (?:Given|And) operation "(\w+)" enabled'),
    "parameter": re.compile(r'    (?:Given|And) request contains "(\w+)" parameter from ".+"'),
    "body": re.compile(r"    (?:Given|And) body with value (.+)"),
    "status": re.compile(r"    Then the response status is (\d+) .*"),
}
PARAMETERS = {"entity": "users", "id": "crm-integration"}
"""What the placeholders of paths stand for."""
SEGMENT = "00000000-0000-0000-0000-000000000000"
"""The placeholder of segments."""
LARGE = 5_100_000
"""Characters that make an event larger than the published limit."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """One request. `model` and `answer` name the package's types of the bodies, empty where there is none."""

    title: str
    api: str
    operation: str
    unstable: bool
    status: int
    model: str
    answer: str
    parameters: dict[str, str]
    body: Any = None
    stalled: bool = False


def snake(name: str) -> str:
    """How the Python package spells an operation or an API."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()


def open_api(client: Any, name: str) -> Any:
    """The package's API of that name."""
    return getattr(import_module(f"datadog_api_client.v2.api.{snake(name)}_api"), f"{name}Api")(client)


def body_type(api: Any, operation: str) -> Any:
    """The package's type of an operation's body, or None."""
    known = getattr(api, f"_{snake(operation)}_endpoint").params_map.get("body")
    return known["openapi_types"][0] if known else None


def read(client: Any) -> list[Scenario]:
    """All scenarios of both tags as published; only the placeholders of paths are filled."""
    folder = fetch("tests/v2/features")
    texts = [(folder / f"{name}.feature").read_text("utf-8") for name in FEATURES]
    return [one for text in texts for one in _parse(text, client)]


def _parse(text: str, client: Any) -> Iterator[Scenario]:
    head, *parts = re.split(r"^(?=  Scenario:)", text, flags=re.MULTILINE)
    (name,) = API.findall(head)
    api = open_api(client, name)
    for part in parts:
        seen: dict[str, list[str]] = {
            kind: [m[1] for line in part.splitlines() if (m := form.fullmatch(line))] for kind, form in LINES.items()
        }
        (operation,), (status,), (title,) = seen["operation"], seen["status"], seen["title"]
        model = body_type(api, operation)
        answer = (getattr(api, f"_{snake(operation)}_endpoint").settings["response_type"] or (dict,))[0]
        yield Scenario(
            title,
            name,
            operation,
            bool(seen["unstable"]),
            int(status),
            model.__name__ if model else "",
            "" if answer is dict else answer.__name__,
            {parameter: PARAMETERS[parameter] for parameter in seen["parameter"]},
            json.loads(seen["body"][0]) if seen["body"] else None,
        )


def requests_of(published: list[Scenario], segment_id: str) -> list[Scenario]:
    """A request for each scenario that must end as published, then the untouched bodies that name no real segment."""
    ready = [_ready(one, segment_id) for one in published]
    first = ("CreateConnection", "UpdateConnection")
    ready.sort(key=lambda one: first.index(one.operation) if one.operation in first else 2)
    ready.sort(key=lambda one: one.operation == "DeleteConnection")
    untouched = [one for one in published if one.status == 200 and one.body and SEGMENT in json.dumps(one.body)]
    return [*ready, *(replace(one, title=f"{one.title}, untouched", status=_unfilled(one)) for one in untouched)]


def _unfilled(one: Scenario) -> int:
    """What a placeholder for a segment leads to: nothing where the formula does not name it."""
    return 404 if "NOT trial_segment" in json.dumps(one.body) else one.status


def _ready(one: Scenario, segment_id: str) -> Scenario:
    """The request that brings about the published status."""
    body = copy.deepcopy(one.body)
    match one.status:
        case 400 if one.api == "ProductAnalytics" and "data" in body:
            times = body["data"]["attributes"].get("time", body["data"]["attributes"])
            times["from"], times["to"] = times["to"], times["from"]
        case 400:
            for owner in ("usr", "account", "session"):
                del body[owner]
        case 413:
            body["more"] = "x" * LARGE
    text = json.dumps(body).replace('"name": "", "segment_id"', '"name": "nobody", "segment_id"')
    text = text.replace('"name": ""', '"name": "everybody"').replace(SEGMENT, segment_id)
    return replace(one, body=json.loads(text), stalled=one.status == 408)
