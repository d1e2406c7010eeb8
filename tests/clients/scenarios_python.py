"""Runs the upstream scenarios with the official Python package; writes its requests and what came of them as JSON."""

import json
import sys
import warnings
from dataclasses import asdict
from pathlib import Path
from typing import Any

from datadog_api_client.exceptions import ApiException
from datadog_api_client.model_utils import data_to_dict
from python_client import Session, configuration, environment, find_unparsed, require
from scenarios import Scenario, body_type, open_api, read, requests_of, snake


def open_session(url: str, requests: list[Scenario]) -> Session:
    """A plain client of that server; only what the scenarios enable is enabled."""
    made = configuration(url, environment("DD_API_KEY"), environment("DD_APP_KEY"))
    for one in requests:
        if one.unstable:
            made.unstable_operations[snake(one.operation)] = True
    return Session("sync", made)


def run(session: Session, one: Scenario) -> dict[str, Any]:
    """How one request ended: its status, its body as plain values and where the package could not parse it."""
    api = open_api(session.client, one.api)
    arguments: dict[str, Any] = dict(one.parameters)
    if one.body is not None:
        made = session.client.deserialize(json.dumps(one.body), (body_type(api, one.operation),), True)
        require(not list(find_unparsed(made)), f"{one.title}: the package does not know its own body")
        sent = data_to_dict(made)  # type: ignore[no-untyped-call]
        require(sent == one.body, f"{one.title}: {one.body} would be sent as {sent}")
        arguments["body"] = made
    try:
        answer, status, _ = getattr(api, snake(one.operation))(**arguments)
    except ApiException as error:
        return {"status": error.status, "unparsed": [], "body": error.body}
    return {"status": status, "unparsed": list(find_unparsed(answer)), "body": data_to_dict(answer)}  # type: ignore[no-untyped-call]


def main(segment_id: str, requests_file: str, outcome_file: str) -> None:
    """Every request once, in order."""
    warnings.filterwarnings("ignore", message="Using unstable operation")
    reader = Session("sync", configuration("http://127.0.0.1", "", ""))
    requests = requests_of(read(reader.client), segment_id)
    reader.close()
    Path(requests_file).write_text(json.dumps([asdict(one) for one in requests]), encoding="utf-8")
    plain = open_session(environment("ROSTER_URL"), requests)
    stalled = open_session(environment("ROSTER_STALLED_URL"), requests)
    outcome = [run(stalled if one.stalled else plain, one) for one in requests]
    Path(outcome_file).write_text(json.dumps(outcome, default=str), encoding="utf-8")
    plain.close()
    stalled.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
