"""What is served is what the contract says: paths, statuses, what a request must have, how an answer looks."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from importlib.resources import files
from time import monotonic, sleep, time
from typing import Any
from urllib.parse import quote

import pytest
from jsonschema import Draft202012Validator, FormatChecker

from roster.http.routes import OWN_PATHS
from servers import Answered, Server

Schema = dict[str, Any]
CONTRACT = json.loads(files("roster.http").joinpath("contract.json").read_text("utf-8"))
OPERATIONS: dict[str, tuple[str, str, Schema]] = {
    operation["operationId"]: (verb.upper(), path, operation)
    for path, verbs in CONTRACT["paths"].items()
    for verb, operation in verbs.items()
}
EXTENSIONS = {"dry_run", "attribute_time"}
"""Parameters of ours on operations of the contract."""
OURS = set(OWN_PATHS)
"""Operations beside the contract."""
AUDIENCE = {
    "QueryUsers",
    "QueryAccounts",
    "QueryEventFilteredUsers",
    "GetUserFacetInfo",
    "GetAccountFacetInfo",
    "GetMapping",
    "ListConnections",
    "CreateConnection",
    "UpdateConnection",
    "DeleteConnection",
}
ONE_OF_THREE = {"/usr/id", "/account/id", "/session/id"}
"""Of these an event needs one; the contract asks for each where its object is sent, but users may be anonymous."""
RECORDED_WITHOUT_PLACE = "/data/attributes/file_metadata/upload_id"
"""Its refusal is recorded letter for letter, and says no place."""
WAIT_S = 60.0


@pytest.fixture(scope="module")
def served(server: Server) -> dict[str, tuple[str, str, Schema]]:
    """Our own document, by operation."""
    document = server.ask("GET", "/openapi.json", keys=False).json()
    paths = document["paths"].items()
    return {o["operationId"]: (verb.upper(), path, o) for path, verbs in paths for verb, o in verbs.items()}


def success(operation: Schema) -> int:
    (status,) = [int(s) for s in operation["responses"] if s.startswith("2")]
    return status


def resolve(schema: Schema) -> Schema:
    """The schema behind references; of alternatives the last, which is the one that is served."""
    while "$ref" in schema or "oneOf" in schema:
        schema = (
            CONTRACT["components"]["schemas"][schema["$ref"].split("/")[-1]]
            if "$ref" in schema
            else schema["oneOf"][-1]
        )
    return schema


def body_schema(operation: Schema) -> Schema | None:
    if "requestBody" not in operation:
        return None
    found: Schema = operation["requestBody"]["content"]["application/json"]["schema"]
    return found


def check_answer(name: str, answer: Answered) -> None:
    """Status, content type and body of a success, as the contract has them."""
    _, _, operation = OPERATIONS[name]
    status = success(operation)
    assert answer.status == status, (name, answer)
    content = operation["responses"][str(status)].get("content")
    if content is None:
        assert answer.body == b""
        return
    assert answer.headers["content-type"] == "application/json"
    whole = content["application/json"]["schema"] | {"components": CONTRACT["components"]}
    Draft202012Validator(whole, format_checker=FormatChecker()).validate(answer.json())


# the document


def test_our_document_is_the_contract_and_ours(served: dict[str, tuple[str, str, Schema]]) -> None:
    assert served.keys() - OPERATIONS.keys() == OURS
    assert served.keys() >= AUDIENCE, "all ten audience operations"
    for name in served.keys() - OURS:
        verb, path, operation = OPERATIONS[name]
        our_verb, our_path, ours = served[name]
        assert (our_verb, our_path) == (verb, path)
        previews = {"200"} if any(p["name"] == "dry_run" for p in ours["parameters"]) else set()
        statuses = {s for s in ours["responses"] if s.startswith("2")}
        assert statuses == {str(success(operation))} | previews, name
        assert ("requestBody" in ours) == ("requestBody" in operation)
        assert bool(ours["security"]) == bool(operation.get("security")), name


def test_what_is_required_there_is_required_here(served: dict[str, tuple[str, str, Schema]]) -> None:
    """Parameters: same names, same places, same bounds."""
    for name in served.keys() - OURS:
        theirs = {(p["name"], p["in"]): p for p in OPERATIONS[name][2].get("parameters", [])}
        ours = {(p["name"], p["in"]): p for p in served[name][2]["parameters"] if p["name"] not in EXTENSIONS}
        assert ours == theirs, name


def test_what_is_not_served_says_so(server: Server, served: dict[str, tuple[str, str, Schema]]) -> None:
    for name in OPERATIONS.keys() - served.keys():
        verb, path, _ = OPERATIONS[name]
        answer = server.ask(verb, path.replace("{id}", "x"), {})
        assert answer.status == 501, name
        assert name in answer.body.decode()


# requests


def sample(schema: Schema) -> Any:
    """A value of the schema with everything in it."""
    schema = resolve(schema)
    if "enum" in schema:
        return schema["enum"][0]
    match schema.get("type"):
        case "object":
            named = {name: sample(s) for name, s in schema.get("properties", {}).items()}
            more = schema.get("additionalProperties")
            return named | ({"k": sample(more)} if isinstance(more, dict) else {})
        case "array":
            return [sample(schema["items"])]
        case "integer":
            return schema.get("minimum", 1)
        case "boolean":
            return True
        case _:
            return "x"


def places(schema: Schema, pointer: str = "") -> Iterator[tuple[str, bool, Schema]]:
    """Every member of a request: its JSON pointer, whether it is required, its schema."""
    schema = resolve(schema)
    if schema.get("type") == "array":
        yield from places(schema["items"], f"{pointer}/0")
    for name, member in schema.get("properties", {}).items():
        yield f"{pointer}/{name}", name in schema.get("required", []), resolve(member)
        yield from places(member, f"{pointer}/{name}")


def without(body: Any, pointer: str) -> Any:
    parent, key = parent_of(body := copy.deepcopy(body), pointer)
    del parent[key]
    return body


def changed(body: Any, pointer: str, value: Any) -> Any:
    parent, key = parent_of(body := copy.deepcopy(body), pointer)
    parent[key] = value
    return body


def parent_of(body: Any, pointer: str) -> tuple[Any, str]:
    *keys, last = pointer[1:].split("/")
    for key in keys:
        body = body[int(key)] if isinstance(body, list) else body[key]
    return body, last


WITH_BODY = sorted(
    name
    for name, (_, path, operation) in OPERATIONS.items()
    if "requestBody" in operation and (path == "/api/v2/prodlytics" or "reference-tables" in path or name in AUDIENCE)
)
MEMBERS = [
    (name, pointer, required, schema)
    for name in WITH_BODY
    for pointer, required, schema in places(body_schema(OPERATIONS[name][2]) or {})
]
REQUIRED = [(name, pointer) for name, pointer, required, _ in MEMBERS if required]
TYPED = [
    (name, pointer, schema)
    for name, pointer, _, schema in MEMBERS
    if schema.get("type") and name != "SubmitProductAnalyticsEvent"
]


@pytest.fixture(scope="module")
def table_id(server: Server) -> Iterator[str]:
    id = make_table(server, "contract_rows", "id,plan\nc1,pro\n")["id"]
    yield id
    assert server.ask("DELETE", f"/api/v2/reference-tables/tables/{id}").status == 200


def send(server: Server, name: str, table_id: str, body: Any) -> Answered:
    verb, path, _ = OPERATIONS[name]
    return server.ask(verb, path.replace("{id}", table_id).replace("{entity}", "users"), body)


def refused_at(answer: Answered) -> set[str]:
    """The places that a refusal names."""
    assert answer.status == 400, answer
    errors = answer.json()["errors"]
    if isinstance(errors[0], dict):
        return {e["source"]["pointer"] for e in errors if "source" in e}
    return {e.split("(at ")[1].split(")")[0] for e in errors if "(at " in e}


@pytest.mark.parametrize(("name", "pointer"), REQUIRED)
def test_a_required_member_is_missed(server: Server, table_id: str, name: str, pointer: str) -> None:
    whole, place = sample(body_schema(OPERATIONS[name][2]) or {}), pointer
    if pointer in ONE_OF_THREE:
        whole = {k: v for k, v in whole.items() if k not in ("usr", "account", "session")} | {
            pointer[1:-3]: {"id": "x"}
        }
        place = "/usr/id"
    for body in (without(whole, pointer), changed(whole, pointer, None)):
        answer = send(server, name, table_id, body)
        if pointer == RECORDED_WITHOUT_PLACE:
            assert (answer.status, "upload_id" in answer.body.decode()) == (400, True)
        else:
            assert any(told.startswith(place) for told in refused_at(answer)), answer


@pytest.mark.parametrize(("name", "pointer", "schema"), TYPED, ids=lambda v: v if isinstance(v, str) else "")
def test_a_member_of_another_type_is_refused(
    server: Server, table_id: str, name: str, pointer: str, schema: Schema
) -> None:
    whole = sample(body_schema(OPERATIONS[name][2]) or {})
    wrong = {"object": [1, "x", [], True], "array": [1, "x", {}], "string": [1, {}, [], True, 1.5]}.get(
        schema["type"], ["1", 1.5, {}, [], "true"]
    )
    for value in wrong:
        told = refused_at(send(server, name, table_id, changed(whole, pointer, value)))
        assert any(place.startswith(pointer) for place in told), (value, told)


def test_other_members_are_passed_over_but_in_closed_objects(server: Server, table_id: str) -> None:
    for name in WITH_BODY:
        schema = body_schema(OPERATIONS[name][2]) or {}
        for pointer, _, member in [("", False, resolve(schema)), *places(schema)]:
            if member.get("type") != "object" or member.get("additionalProperties") not in (None, False):
                continue
            answer = send(server, name, table_id, changed(sample(schema), f"{pointer}/roster_unknown", 1))
            told = refused_at(answer) if answer.status == 400 else set()
            closed = member.get("additionalProperties") is False
            assert (f"{pointer}/roster_unknown" in told) == closed, (name, pointer)


# answers


def make_table(server: Server, name: str, content: str) -> Schema:
    """A table by the documented steps, each answer checked."""
    headers = content.split("\n", 1)[0].split(",")
    asked = {"headers": headers, "part_count": 1, "part_size": len(content), "table_name": name}
    started = server.ask(
        "POST", OPERATIONS["CreateReferenceTableUpload"][1], {"data": {"type": "upload", "attributes": asked}}
    )
    check_answer("CreateReferenceTableUpload", started)
    upload = started.json()["data"]
    (url,) = upload["attributes"]["part_urls"]
    assert server.ask("PUT", url.removeprefix(server.url), content.encode(), keys=False).status == 200
    attributes = {
        "table_name": name,
        "source": "LOCAL_FILE",
        "schema": {"fields": [{"name": h, "type": "STRING"} for h in headers], "primary_keys": headers[:1]},
        "file_metadata": {"upload_id": upload["id"]},
    }
    made = server.ask(
        "POST", OPERATIONS["CreateReferenceTable"][1], {"data": {"type": "reference_table", "attributes": attributes}}
    )
    check_answer("CreateReferenceTable", made)
    data: Schema = made.json()["data"]
    return data


class Visit:
    """Calls operations by their name and remembers which."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.seen: set[str] = set()

    def call(self, name: str, body: Any = None, query: str = "", **path: str) -> Any:
        """The answer of a success, its shape checked."""
        verb, pattern, _ = OPERATIONS[name]
        raw = pattern.format(**{k: quote(v, safe="") for k, v in path.items()})
        answer = self.server.ask(verb, raw + query, body)
        check_answer(name, answer)
        self.seen.add(name)
        return answer.json() if answer.body else None

    def ask(self, name: str, type: str, **attributes: Any) -> Any:
        return self.call(name, {"data": {"type": type, "attributes": attributes}})["data"]["attributes"]

    def connect(self, name: str, entity: str = "users", **attributes: Any) -> None:
        self.call(name, {"data": {"type": "connection_id", "id": "contract", "attributes": attributes}}, entity=entity)


BASE_QUERY = {"data_source": "product_analytics", "search": {"query": "@type:server"}}
PLAIN = {"query": BASE_QUERY, "compute": {"aggregation": "count"}, "group_by": [{"facet": "@event.name"}]}
JOURNEY = {"expression": "a -> a", "node_objects": {"a": BASE_QUERY}, "join_keys": {"primary": "@usr.id"}}
EVERY_DAY = {"type": "calendar", "value": {"type": "day"}}
RETAINED = {
    "cohort_criteria": {"base_query": BASE_QUERY, "time_interval": EVERY_DAY},
    "retention_entity": "@usr.id",
    "return_condition": "conversion_on",
}
CELL = {
    "type": "cell",
    "cohort_target": {"type": "index", "value": 0},
    "return_period_target": {"type": "index", "value": 0},
}
RATE = {"aggregation": "avg", "metric": "__dd.retention_rate"}
ANALYSES: dict[str, tuple[str, Schema]] = {
    "Scalar": ("formula_analytics_extended_request", PLAIN),
    "Timeseries": ("formula_analytics_extended_request", PLAIN),
    "List": ("formula_analytics_extended_list_request", {"query": BASE_QUERY}),
    "JourneyFunnel": ("journey_request", {"search": JOURNEY}),
    "JourneyScalar": ("formula_journey_request", {"search": JOURNEY, "compute": {"aggregation": "count"}}),
    "JourneyTimeseries": ("formula_journey_request", {"search": JOURNEY, "compute": {"aggregation": "count"}}),
    "JourneyList": ("journey_list_request", {"search": JOURNEY, "conversion_type": "drop-off"}),
    "RetentionGrid": ("retention_grid_request", {"search": RETAINED, "compute": RATE}),
    "RetentionScalar": ("formula_retention_request", {"search": RETAINED, "compute": RATE}),
    "RetentionTimeseries": ("formula_retention_request", {"search": RETAINED, "compute": RATE}),
    "RetentionList": ("retention_list_request", {"search": RETAINED, "computation_scope": CELL}),
}


def visit_analyses(visit: Visit) -> None:
    """Each analysis of the events of today, up to now."""
    now_ms = int(time() * 1000)
    span = {"from": now_ms - 86_400_000, "to": now_ms + 60_000}
    for name, (type, query) in ANALYSES.items():
        assert visit.ask(f"QueryProductAnalytics{name}", type, **span, query=query)
    definition = {"source": "@event.name", "target": "@event.name"}
    visit.ask("QueryProductAnalyticsSankey", "sankey_request", definition=definition, search={}, time=span)


def test_every_answer_of_a_whole_visit(server: Server, served: dict[str, tuple[str, str, Schema]]) -> None:
    visit = Visit(server)
    for name in ("ValidateV1", "Validate", "ValidateAPIKey"):
        visit.call(name)
    person = {
        "usr": {"id": "contract-1", "email": "one@contract.example"},
        "account": {"id": "contract-a"},
        "session": {"id": "s"},
    }
    event = {"type": "server", "application": {"id": "x"}, "event": {"name": "e"}, **person}
    visit.call("SubmitProductAnalyticsEvent", event)
    table = make_table(server, "contract_visit", "id,plan,score\ncontract-1,pro,1.5\n")
    visit.seen |= {"CreateReferenceTableUpload", "CreateReferenceTable"}
    fields = [
        {"id": "contract_plan", "source_name": "plan", "type": "string", "groups": ["G"]},
        {"id": "contract_score", "source_name": "score", "type": "number", "description": "d"},
    ]
    join: Schema = {
        "type": "ref_table",
        "join_type": "user_id",
        "join_attribute": "id",
        "metadata": {"table_name": "contract_visit"},
    }
    visit.connect("CreateConnection", **join, fields=fields)
    deadline_s = monotonic() + WAIT_S
    while not visit.ask("QueryUsers", "query_users_request", query="user_id:contract-1")["total"]:
        assert monotonic() < deadline_s
        sleep(0.05)
    (hit,) = visit.ask("QueryUsers", "query_users_request", query="user_id:contract-1")["hits"]
    assert (hit["@contract_plan"], hit["@contract_score"]) == ("pro", 1.5)
    visit.ask("QueryAccounts", "query_account_request", query="account_id:contract-a")
    visit.ask("QueryEventFilteredUsers", "query_event_filtered_users_request", event_query={"query": "@type:server"})
    for id in ("contract_plan", "contract_score", "user_id", "events_count", "last_seen", "nothing"):
        assert visit.ask("GetUserFacetInfo", "users_facet_info_request", facet_id=id, limit=5)["result"]
    visit.ask("GetAccountFacetInfo", "users_facet_info_request", facet_id="user_count", limit=5)
    visit_analyses(visit)
    visit.connect("UpdateConnection", fields_to_delete=["contract_plan"])
    for entity in ("users", "accounts"):
        visit.call("GetMapping", entity=entity)
        visit.call("ListConnections", entity=entity)
    visit.call("DeleteConnection", entity="users", id="contract")
    id = table["id"]
    visit.call("ListTables")
    visit.call("GetTable", id=id)
    visit.call(
        "UpsertRows",
        {"data": [{"id": f"r{n}", "type": "row", "attributes": {"values": {"plan": "x"}}} for n in range(5)]},
        id=id,
    )
    visit.call("GetRowsByID", query="?row_id=r1&row_id=absent", id=id)
    page = visit.call("ListReferenceTableRows", query="?page[limit]=2", id=id)
    token = page["meta"]["page"]["next_continuation_token"]
    visit.call("ListReferenceTableRows", query=f"?page[continuation_token]={quote(token)}", id=id)
    attributes = {"table_id": id, "row_ids": ["r1", "absent"]}
    found = visit.call(
        "BatchRowsQuery", {"data": {"type": "reference-tables-batch-rows-query", "attributes": attributes}}
    )
    assert [row["id"] for row in found["included"]] == ["r1"]
    visit.call("DeleteRows", {"data": [{"id": "r1", "type": "row"}]}, id=id)
    visit.call("UpdateReferenceTable", {"data": {"type": "reference_table", "attributes": {"tags": ["a"]}}}, id=id)
    visit.call("DeleteTable", id=id)
    assert visit.seen == served.keys() - OURS, "every served operation was visited"
