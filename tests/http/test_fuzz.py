"""Throws what nobody would send at a running server; every answer must still be one that is documented."""

from __future__ import annotations

import gzip
import json
import os
import socket
import subprocess
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from servers import Answered, Server

pytestmark = pytest.mark.xdist_group("fuzz")

SEED = os.environ.get("ROSTER_SEED", "1")
EXAMPLES = os.environ.get("ROSTER_FUZZ_EXAMPLES", "3")
"""Random requests an operation; raise it to search longer."""
FUZZ_TIMEOUT_S = 300

AUDIENCE = "/api/v2/product-analytics"
TABLES = "/api/v2/reference-tables/tables"
NO_LIMITS = json.dumps(
    dict.fromkeys(("audience_read", "audience_write", "reference_tables_write", "events"), "9999999/minute")
)
NOBODY = "00000000-0000-0000-0000-000000000000"
SEARCHES = [
    "",
    "*",
    "user_id:*",
    "-user_id:u1 AND events_count:>0",
    "tier:(gold OR silver)",
    "@tier:[a TO b] first_seen:>=now-7d",
    "score:{1 TO 1e3}",
    "score:>1e308 OR score:<-9999999999999999999999",
    "CIDR(@tier, 10.0.0.0/8)",
    "NOT (tier:?o* OR @absent:1) free text",
    "first_seen:[2024-01-01 TO *]",
    'user_email:"" last_seen:1',
    "@usr.deep.path:1 @view.name:x*",
    "unbalanced:(",
    "avg_loading_time:>1ms",
]
COLUMNS = ["user_id", "@tier", "tier", "score", "last_seen", "events_count", "avg_loading_time", "nothing", ""]


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server of its own, because what is sent here would be in everybody's way."""
    folder = tmp_path_factory.mktemp("fuzz")
    server = Server(folder, rate_limits=NO_LIMITS)
    people, spare = folder / "people.csv", folder / "spare.csv"
    people.write_text("user_id,tier,score\nu1,gold,1\nu2,silver,\n")
    spare.write_text("id,a\nx,1\n")
    server.cli("table", "load", str(people), "--key", "user_id")
    server.cli("table", "load", str(spare))
    with server:
        event = {"type": "server", "application": {"id": "a"}, "event": {"name": "e"}, "usr": {"id": "u1"}}
        assert server.ask("POST", "/api/v2/prodlytics", event).status == 202
        fields = [
            {"id": "tier", "source_name": "tier", "type": "string"},
            {"id": "score", "source_name": "score", "type": "number"},
        ]
        attributes = {"type": "ref_table", "join_type": "user_id", "join_attribute": "user_id", "fields": fields}
        body = {"data": {"type": "connection_id", "id": "people", "attributes": attributes}}
        assert server.ask("POST", f"{AUDIENCE}/users/mapping/connection", body).status == 201
        yield server


def table_ids(server: Server) -> dict[str, str]:
    tables = server.ask("GET", f"{TABLES}?page[limit]=100").json()["data"]
    return {t["attributes"]["table_name"]: t["id"] for t in tables}


def narrowed(document: dict[str, Any], server: Server) -> dict[str, Any]:
    """The document with values that exist, so that random requests get past the first check; nothing gets looser."""
    ids = table_ids(server)
    for path, verbs in document["paths"].items():
        for verb, operation in verbs.items():
            for parameter in operation["parameters"]:
                if parameter["name"] == "entity":
                    parameter["schema"] = {"enum": ["users", "accounts"]}
                elif parameter["name"] == "id" and path.startswith(TABLES):
                    known = ids["spare"] if (path, verb) == (TABLES + "/{id}", "delete") else ids["people"]
                    parameter["schema"] = {"enum": [known, NOBODY]}
                elif parameter["name"] == "row_id":
                    parameter["schema"] = {"type": "array", "items": {"enum": ["u1", "u2", "", "u'1"]}}
    schemas = document["components"]["schemas"]
    schemas["BatchRowsAttributes"]["properties"]["table_id"] = {"enum": [ids["people"], NOBODY]}
    for name, (member, values) in {
        "QueryAttributes": ("query", SEARCHES),
        "EventFilteredAttributes": ("query", SEARCHES),
        "EventQuery": ("query", SEARCHES),
        "FacetSearch": ("query", SEARCHES),
        "FacetAttributes": ("facet_id", COLUMNS),
        "SortBody": ("field", COLUMNS),
        "CreateConnectionAttributes": ("type", ["ref_table"]),
        "FieldBody": ("type", ["string", "number", "boolean", "timestamp"]),
        "UpdateConnectionData": ("id", ["people", "nothing"]),
    }.items():
        schemas[name]["properties"][member] = {"anyOf": [{"enum": values}, {"type": "string", "maxLength": 40}]}
    for name in ("QueryAttributes", "EventFilteredAttributes"):
        schemas[name]["properties"]["select_columns"] = {"type": "array", "items": {"enum": COLUMNS}}
    return document


def test_every_answer_is_a_documented_one(target: Server, tmp_path: Path) -> None:
    """Statuses, content types and bodies of all operations, as /openapi.json says; 500 is no documented status."""
    document = target.ask("GET", "/openapi.json", keys=False).json()
    statuses = {s for verbs in document["paths"].values() for o in verbs.values() for s in o["responses"]}
    assert {s for s in statuses if s >= "500"} == {"501", "503"}
    path = tmp_path / "openapi.json"
    path.write_text(json.dumps(narrowed(document, target)))
    command = [str(Path(sys.executable).with_name("schemathesis")), "run", str(path), "--url", target.url]
    command += ["--header", f"DD-API-KEY: {target.api_key}", "--header", f"DD-APPLICATION-KEY: {target.app_key}"]
    command += ["--checks", "status_code_conformance,content_type_conformance,response_schema_conformance"]
    command += ["--phases", "coverage,fuzzing", "--max-examples", EXAMPLES, "--seed", SEED, "--no-shrink"]
    command += ["--continue-on-failure", "--request-timeout", "60", "--warnings", "off", "--no-color"]
    command += ["--generation-database", "none"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=FUZZ_TIMEOUT_S)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"Tested: {sum(map(len, document['paths'].values()))}" in done.stdout
    check_alive(target)


def check_alive(server: Server) -> None:
    assert server.ask("GET", "/health").status == 200
    assert '"event": "internal"' not in server.log()


POSTS = [
    f"{AUDIENCE}/users/query",
    f"{AUDIENCE}/accounts/query",
    f"{AUDIENCE}/users/event_filtered_query",
    f"{AUDIENCE}/users/facet_info",
    f"{AUDIENCE}/accounts/facet_info",
    f"{AUDIENCE}/users/mapping/connection",
    "/api/v2/reference-tables/tables",
    "/api/v2/reference-tables/uploads",
    "/api/v2/reference-tables/queries/batch-rows",
    "/api/v2/prodlytics",
]
TABLE_ERRORS = ("/api/v2/reference-tables/",)
OBJECT_ERRORS = ("/api/v2/prodlytics", "/api/v2/validate")
STRINGS = {
    "type": "object",
    "required": ["errors"],
    "properties": {"errors": {"type": "array", "minItems": 1, "items": {"type": "string", "minLength": 1}}},
    "additionalProperties": False,
}
OBJECTS = {
    "type": "object",
    "required": ["errors"],
    "properties": {
        "errors": {
            "type": "array",
            "minItems": 1,
            "items": {
                "type": "object",
                "required": ["title", "detail"],
                "properties": {
                    "status": {"type": "string"},
                    "title": {"type": "string", "minLength": 1},
                    "detail": {"type": "string", "minLength": 1},
                    "source": {"type": "object"},
                },
                "additionalProperties": False,
            },
        }
    },
    "additionalProperties": False,
}


def check_refused(answer: Answered, path: str, *statuses: int) -> None:
    """A 4xx in the shape and content type of its path."""
    assert answer.status in statuses, (answer.status, answer.body[:500])
    tables = path.startswith(TABLE_ERRORS)
    assert answer.headers["content-type"] == ("application/vnd.api+json" if tables else "application/json")
    schema = OBJECTS if tables or path in OBJECT_ERRORS else STRINGS
    Draft202012Validator(schema).validate(answer.json())


NOT_JSON: dict[str, bytes] = {
    "nothing": b"",
    "blanks": b" \n\t ",
    "a bare NaN": b"NaN",
    "NaN inside": b'{"data": NaN}',
    "minus infinity": b'{"data": -Infinity}',
    "a number past all doubles": b'{"data": 1e400}',
    "an unclosed object": b'{"data": {',
    "100,000 open brackets": b"[" * 100_000,
    "100,000 open objects": b'{"data":' * 100_000,
    "100,000 closed brackets": b"[" * 100_000 + b"]" * 100_000,
    "a number of 5,000 digits": b'{"data": ' + b"9" * 5000 + b"}",
    "two values": b"{}{}",
    "invalid UTF-8": b'{"data": "\xff\xfe"}',
    "UTF-16": '{"data": null}'.encode("utf-16"),
    "a byte-order mark": b"\xef\xbb\xbf{}",
    "a comment": b'{"data": null} // x',
    "single quotes": b"{'data': null}",
    "a trailing comma": b'{"data": null,}',
    "a raw control character": b'{"data": "\x01"}',
    "a NUL": b"\x00",
}


@pytest.mark.parametrize("path", POSTS)
@pytest.mark.parametrize("name", NOT_JSON)
def test_a_body_that_is_no_json(target: Server, path: str, name: str) -> None:
    check_refused(target.ask("POST", path, NOT_JSON[name]), path, 400)


@pytest.mark.parametrize("path", POSTS)
@pytest.mark.parametrize("body", [b"null", b"true", b"0", b'"text"', b'{"data": []}', b'{"data": "x"}', b'{"data": 1}'])
def test_a_body_of_another_shape(target: Server, path: str, body: bytes) -> None:
    check_refused(target.ask("POST", path, body), path, 400)


@pytest.mark.parametrize("path", [p for p in POSTS if "prodlytics" not in p])
def test_an_array_for_an_object(target: Server, path: str) -> None:
    check_refused(target.ask("POST", path, b"[]"), path, 400)


@pytest.mark.parametrize("text", [rb"\ud800", rb"\udfff", rb"\udfff\ud800"])
def test_half_a_surrogate_pair(target: Server, text: bytes) -> None:
    query = b'{"data": {"type": "query_users_request", "attributes": {"query": "user_id:%s"}}}' % text
    path = f"{AUDIENCE}/users/query"
    check_refused(target.ask("POST", path, query), path, 400)
    event = b'{"type":"server","application":{"id":"a"},"event":{"name":"e"},"usr":{"id":"half-%s"}}' % text
    assert target.ask("POST", "/api/v2/prodlytics", event).status == 202, "JavaScript cuts pairs; the event is good"


@pytest.mark.parametrize(
    "limit", ["0", "-1", "10001", "9223372036854775807", "9223372036854775808", "1.0", '"1"', "true"]
)
def test_a_limit_out_of_bounds(target: Server, limit: str) -> None:
    body = f'{{"data": {{"type": "query_users_request", "attributes": {{"limit": {limit}}}}}}}'.encode()
    path = f"{AUDIENCE}/users/query"
    check_refused(target.ask("POST", path, body), path, 400)


@pytest.mark.parametrize("body", [b'{"data": 1, "data": {"type": "query_users_request"}}', b'{"data": null}', b"{}"])
def test_of_duplicate_keys_the_last_one_counts(target: Server, body: bytes) -> None:
    assert target.ask("POST", f"{AUDIENCE}/users/query", body).status == 200


def test_a_request_nested_as_deep_as_its_body_allows(target: Server) -> None:
    deep = b'{"data": {"type": "query_users_request", "attributes": {"x": ' + b"[" * 900 + b"]" * 900 + b"}}}"
    assert target.ask("POST", f"{AUDIENCE}/users/query", deep).status in (200, 400)
    for query in ["(" * 5000 + ")" * 5000, "-" * 9000 + "a:b", "a:(" * 3000, "NOT " * 2000 + "a", "a OR " * 100 + "a"]:
        attributes = {"query": query}
        body = {"data": {"type": "query_users_request", "attributes": attributes}}
        path = f"{AUDIENCE}/users/query"
        answer = target.ask("POST", path, body)
        if answer.status != 200:
            check_refused(answer, path, 400)
    check_alive(target)


@pytest.mark.parametrize(
    "type", ["text/plain", "application/xml", "multipart/form-data; boundary=x", "", "application/json; charset=utf-16"]
)
def test_the_content_type_of_a_request_does_not_matter(target: Server, type: str) -> None:
    body = b'{"data": {"type": "query_users_request"}}'
    assert target.ask("POST", f"{AUDIENCE}/users/query", body, headers={"Content-Type": type}).status == 200


BOMB = gzip.compress(b" " * 300_000_000, compresslevel=9)


@pytest.mark.parametrize("path", POSTS)
def test_a_gzip_bomb(target: Server, path: str) -> None:
    assert len(BOMB) < 500_000
    check_refused(target.ask("POST", path, BOMB, headers={"Content-Encoding": "gzip"}), path, 413)


def test_compressed_bodies(target: Server) -> None:
    path = f"{AUDIENCE}/users/query"
    plain = b'{"data": {"type": "query_users_request"}}'

    def ask(body: bytes, encoding: str) -> Answered:
        return target.ask("POST", path, body, headers={"Content-Encoding": encoding})

    assert ask(gzip.compress(plain), "gzip").status == 200
    assert ask(zlib.compress(plain), "deflate").status == 200
    assert ask(plain, "identity").status == 200
    check_refused(ask(plain, "gzip"), path, 400)
    check_refused(ask(gzip.compress(plain)[:-9], "gzip"), path, 400)
    check_refused(ask(b"", "gzip"), path, 400)
    check_refused(ask(plain, "br"), path, 400)


@pytest.mark.parametrize("path", POSTS)
def test_a_body_past_its_limit(target: Server, path: str) -> None:
    check_refused(target.ask("POST", path, b" " * 5_500_000), path, 413)


@pytest.mark.parametrize("body", [None, b"null", b"", b"{}", b'{"data": null}', b'{"data": {}}', b'{"data": [null]}'])
def test_deleting_rows_with_a_strange_body(target: Server, body: bytes | None) -> None:
    path = f"{TABLES}/{table_ids(target)['people']}/rows"
    check_refused(target.ask("DELETE", path, body), path, 400)


def test_a_body_where_none_is_wanted(target: Server) -> None:
    for body in (b"null", b"{}", b"\xff" * 100):
        assert target.ask("GET", f"{AUDIENCE}/users/mapping", body).status == 200
        path = f"{AUDIENCE}/users/mapping/connection/absent"
        check_refused(target.ask("DELETE", path, body), path, 404)


@pytest.mark.parametrize("header", ["Bearer ", "Bearer", "bearer \t ", "Basic eDp5", "Bearer " + "x" * 5000])
def test_a_useless_authorization_header(target: Server, header: str) -> None:
    path = f"{AUDIENCE}/users/mapping"
    assert target.ask("GET", path, headers={"Authorization": header}).status == 200, "good keys win"
    check_refused(target.ask("GET", path, keys=False, headers={"Authorization": header}), path, 401, 403)


@pytest.mark.parametrize(
    "path",
    ["//api/v2/validate_keys", "///api/v2/validate_keys", "/api/v2/validate_keys?", "/api/v2/validate_keys?x=%ff&=&x"],
)
def test_paths_that_still_mean_the_same(target: Server, path: str) -> None:
    answer = target.ask("GET", path)
    assert (answer.status, answer.json()) == (200, {"status": "ok"})


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/api",
        "/api/v2/validate_keys/",
        "/api/v2//validate_keys",
        "/api/v2/%76alidate_keys",
        "/api/v2/../v2/validate_keys",
        "/api/v2/validate_keys%3F",
        "/api/v2/validate_keys%0A",
        "/api/v2/product-analytics/users%2Fmapping",
        "/api/v2/product-analytics//mapping",
        "/%ff%fe",
        "/" + "a" * 8000,
    ],
)
def test_paths_that_mean_nothing(target: Server, path: str) -> None:
    check_refused(target.ask("GET", path), path, 404)


@pytest.mark.parametrize("id", ["%2F", "a%2Fb", "%2e%2e", "%00", "%0A", "%ff", "..", "'", "%25", "a%20b", "x" * 4000])
def test_ids_that_are_no_ids(target: Server, id: str) -> None:
    for verb, path, status in (
        ("GET", f"{TABLES}/{id}", 400),
        ("GET", f"{TABLES}/{id}/rows/list", 400),
        ("DELETE", f"{TABLES}/{id}", 400),
        ("GET", f"{AUDIENCE}/{id}/mapping", 400),
        ("DELETE", f"{AUDIENCE}/users/mapping/connection/{id}", 404),
        ("PUT", f"/api/roster/uploads/{id}/parts/1?expires=1&signature=%ff", 403),
        ("PUT", f"/api/roster/uploads/{id}/parts/{id}", 403),
    ):
        check_refused(target.ask(verb, path), path, status)


def test_verbs_that_a_path_does_not_know(target: Server) -> None:
    for verb in ("PATCH", "OPTIONS", "TRACE", "PROPFIND", "GET"):
        path = f"{AUDIENCE}/users/query"
        check_refused(target.ask(verb, path), path, 404)
    assert target.ask("HEAD", "/api/v2/validate_keys").body == b""


def test_what_the_contract_has_and_we_not_yet(target: Server) -> None:
    document = target.ask("GET", "/openapi.json", keys=False).json()
    contract = json.loads((Path(__file__).parents[2] / "src/roster/http/contract.json").read_text())
    for path, verbs in contract["paths"].items():
        for verb in verbs:
            if verb not in document["paths"].get(path, {}):
                check_refused(target.ask(verb.upper(), path.replace("{id}", NOBODY), b"{}"), path, 501)


def exchange(server: Server, request: bytes) -> bytes:
    """What comes back on a bare socket until the server closes it."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as wire:
        wire.sendall(request)
        received = b""
        while chunk := wire.recv(65536):
            received += chunk
    return received


@pytest.mark.parametrize("host", [b"[", b"[::1", b"a b", b"x/y?z#", b"", b"\xff", b"1:2:3", b"h:99999999"])
def test_a_strange_host(target: Server, host: bytes) -> None:
    keys = f"DD-API-KEY: {target.api_key}\r\nDD-APPLICATION-KEY: {target.app_key}\r\n".encode()
    for path in (b"/api/v2/validate_keys", b"/nothing"):
        head = b"GET %s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n%s\r\n" % (path, host, keys)
        assert exchange(target, head).split(b" ")[1] in (b"200", b"400", b"404")
    check_alive(target)


def test_a_caller_who_hangs_up(target: Server) -> None:
    """Half a request, no body at all, and gone before the answer: nothing is left hanging."""
    path = f"{AUDIENCE}/users/query"
    body = b'{"data": {"type": "query_users_request"}}'
    keys = f"DD-API-KEY: {target.api_key}\r\nDD-APPLICATION-KEY: {target.app_key}\r\n"
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\n{keys}".encode()
    whole = head + b"Content-Length: %d\r\n\r\n" % len(body) + body
    halves = [
        head + b"Content-Le",
        head + b"Content-Length: 1000\r\n\r\n{",
        head + b"Transfer-Encoding: chunked\r\n\r\n5\r\nabc",
    ]
    for request in [*halves, *[whole] * 40]:
        with socket.create_connection(("127.0.0.1", target.port), timeout=20) as wire:
            wire.sendall(request)
    assert target.ask("POST", path, body).status == 200
    check_alive(target)
