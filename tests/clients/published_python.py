"""Runs the examples that Datadog publishes with its Python package, their text untouched, against a running server."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from datadog_api_client.v2.api.rum_audience_management_api import RumAudienceManagementApi
from published import fetch
from python_audience import CONNECTION, FIELDS, say
from python_client import Failure, Session, configuration, environment, require

HERE = Path(__file__).parent
SUCCESS = None

Answer = dict[str, Any]


def nothing(answer: Any) -> bool:
    """The operation has no body."""
    return answer is None


def accepted(answer: Any) -> bool:
    """The operation answers an empty object."""
    return bool(answer == {})


def connections(answer: Answer) -> bool:
    """The published update is in the list, on the published connection."""
    found = {one["id"]: one for one in answer["data"]["attributes"]["connections"]}
    fields = {one["id"]: one for one in found[CONNECTION]["fields"]}
    return sorted(fields) == FIELDS and fields["lifetime_value"]["groups"] == ["Financial", "Metrics"]


def mapping(answer: Answer) -> bool:
    """The published fields are custom attributes."""
    rows = {row["attribute"]: row["is_custom"] for row in answer["data"]["attributes"]["attributes"]}
    return rows.get("user_id") is False and all(rows.get(f"@{name}") is True for name in FIELDS)


def hits(answer: Answer) -> bool:
    """A query answers rows and a total."""
    attributes = answer["data"]["attributes"]
    return isinstance(attributes["hits"], list) and attributes["total"] >= len(attributes["hits"])


def values(answer: Answer) -> bool:
    """A facet answers values with counts."""
    result = answer["data"]["attributes"]["result"]
    return all(value["count"] > 0 for value in result.get("values") or [])


def parts(answer: Answer) -> bool:
    """An upload has as many addresses as parts."""
    return len(answer["data"]["attributes"]["part_urls"]) == 1


def tables(answer: Answer) -> bool:
    """The list is there, empty or not."""
    return isinstance(answer["data"], list)


def anything(answer: Any) -> bool:
    """An answer that the client could decode."""
    return answer is not None


@dataclass(frozen=True, slots=True)
class Example:
    """A published file, the statuses it may end with (None is success) and what its answer must show."""

    file: str
    good: Callable[[Any], bool]
    statuses: frozenset[int | None] = field(default=frozenset({SUCCESS}))


# The published text names objects that no server has (an upload, a table `id`): an error is the right answer.
REFUSED = frozenset({400, 404})
AUDIENCE = [
    Example("rum-audience-management/CreateConnection.py", nothing),
    Example("rum-audience-management/UpdateConnection.py", nothing),
    Example("rum-audience-management/ListConnections.py", connections),
    Example("rum-audience-management/GetMapping.py", mapping),
    Example("rum-audience-management/QueryUsers.py", hits),
    Example("rum-audience-management/QueryAccounts.py", hits),
    Example("rum-audience-management/QueryEventFilteredUsers.py", hits),
    Example("rum-audience-management/GetUserFacetInfo.py", values),
    Example("rum-audience-management/GetAccountFacetInfo.py", values),
    Example("rum-audience-management/DeleteConnection.py", nothing, frozenset({404})),
]
REFERENCE_TABLES = [
    Example("reference-tables/ListTables.py", tables),
    Example("reference-tables/CreateReferenceTableUpload.py", parts),
    Example("reference-tables/CreateReferenceTable.py", anything, REFUSED),
    Example("reference-tables/CreateReferenceTable_3196130987.py", anything, REFUSED),
    Example("reference-tables/GetTable.py", anything, REFUSED),
    Example("reference-tables/UpdateReferenceTable.py", anything, REFUSED),
    Example("reference-tables/ListReferenceTableRows.py", anything, REFUSED),
    Example("reference-tables/GetRowsByID.py", anything, REFUSED),
    Example("reference-tables/UpsertRows.py", anything, REFUSED),
    Example("reference-tables/DeleteRows.py", anything, REFUSED),
    Example("reference-tables/BatchRowsQuery.py", anything, REFUSED),
    Example("reference-tables/DeleteTable.py", anything, REFUSED),
]
# The bearer token alone must open what it opens together with the keys.
BEARER = [
    Example("rum-audience-management/ListConnections.py", connections),
    Example("rum-audience-management/QueryUsers.py", hits),
    Example("reference-tables/ListTables.py", tables),
]
EVENTS = [Example("product-analytics/SubmitProductAnalyticsEvent.py", accepted)]


def run_example(folder: Path, example: Example, url: str, without: tuple[str, ...] = ()) -> None:
    """Runs the file in a process of its own, without the named variables, and checks how it ended."""
    path = folder / example.file
    require(path.is_file(), f"{example.file}: not in the package")
    with tempfile.NamedTemporaryFile(suffix=".json") as outcome:
        command = [sys.executable, str(HERE / "published_one.py"), url, str(path), outcome.name]
        variables = {name: value for name, value in os.environ.items() if name not in without}
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=variables, check=False)
        require(done.returncode == 0, f"{example.file}: exit status {done.returncode}\n{done.stderr}")
        got = json.loads(Path(outcome.name).read_text(encoding="utf-8"))
    status = got["status"]
    require(status in example.statuses, f"{example.file}: answered {status or 'success'}: {got.get('error')}")
    if status is not SUCCESS:
        say(f"{example.file}: {status}, as it must")
        return
    require(not got["unparsed"], f"{example.file}: the client could not parse {', '.join(got['unparsed'])}")
    require(example.good(got["answer"]), f"{example.file}: unexpected answer {got['answer']}")
    say(f"{example.file}{', without ' + ' and '.join(without) if without else ''}")


def clear(url: str) -> int | None:
    """Deletes the published connection; None when it was there, else the error's status."""
    session = Session("sync", configuration(url, environment("DD_API_KEY"), environment("DD_APP_KEY")))
    api = RumAudienceManagementApi(session.client)  # type: ignore[no-untyped-call]
    try:
        session.call(api.delete_connection, 204, id=CONNECTION, entity="users")
    except Failure as failure:
        if failure.status != 404:
            raise
        return failure.status
    finally:
        session.close()
    return SUCCESS


def run(url: str) -> None:
    """Fetches the examples and runs them in the order of a user's day."""
    environment("DD_BEARER_TOKEN")
    folder = fetch("examples/v2")
    clear(url)
    for example in [*AUDIENCE, *EVENTS, *REFERENCE_TABLES]:
        run_example(folder, example, url)
    for example in BEARER:
        run_example(folder, example, url, without=("DD_API_KEY", "DD_APP_KEY"))
    require(clear(url) is SUCCESS, f"delete connection {CONNECTION}: it was not there")
    say(f"delete connection {CONNECTION}")


def main() -> int:
    """Runs everything; the exit status is 1 at the first example that fails."""
    try:
        run(environment("ROSTER_URL"))
    except Failure as failure:
        print(f"FAIL {failure}", file=sys.stderr)
        return 1
    print("done published examples")
    return 0


if __name__ == "__main__":
    sys.exit(main())
