"""Who may do what with which key, how a refusal looks, and how many requests a key may make."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from time import sleep
from typing import Any
from uuid import UUID

import pytest

from roster.main import open_records
from roster.model.access import KeyKind
from roster.operations import keys
from roster.settings import Settings
from servers import Answered, Server

pytestmark = pytest.mark.xdist_group("keys")

AUDIENCE = "/api/v2/product-analytics/users"
TABLES = "/api/v2/reference-tables/tables"
EVENTS = "/api/v2/prodlytics"
EVENT = {"type": "server", "application": {"id": "a"}, "event": {"name": "e"}, "usr": {"id": "key-tester"}}
READ = ("GET", f"{AUDIENCE}/mapping", None)
BOTH_KEYS: list[tuple[str, str, Any]] = [
    READ,
    ("GET", f"{AUDIENCE}/mapping/connections", None),
    ("POST", f"{AUDIENCE}/query", {}),
    ("PUT", f"{AUDIENCE}/mapping/connection", {"data": {"type": "connection_id", "id": "x"}}),
    ("DELETE", f"{AUDIENCE}/mapping/connection/x", None),
    ("GET", "/api/v2/validate_keys", None),
]
ON_TABLES: list[tuple[str, str, Any]] = [
    ("GET", TABLES, None),
    ("POST", TABLES, {}),
    ("POST", "/api/v2/reference-tables/uploads", {}),
    ("DELETE", f"{TABLES}/00000000-0000-0000-0000-000000000000", None),
]
UNAUTHORIZED = {"errors": ["Unauthorized"]}
FORBIDDEN = {"errors": ["Forbidden"]}


@pytest.fixture(scope="module")
def token(server: Server) -> str:
    """A client token, as browsers use."""
    return create_key(server, "client")[1]


def create_key(server: Server, kind: str) -> tuple[str, str]:
    """Id and secret of a new key, made beside the running server as `roster key create` does."""
    with open_records(Settings(data=server.folder / "data")) as records:
        key, secret = keys.create_key(records, KeyKind(kind), "more")
    return key.id, secret


def ask(server: Server, request: tuple[str, str, Any], **headers: str) -> Answered:
    """A request with these credentials and no others; `API_KEY="x"` is the header DD-API-KEY."""
    names = {"API_KEY": "DD-API-KEY", "APP_KEY": "DD-APPLICATION-KEY", "BEARER": "Authorization"}
    sent = {names[name]: value for name, value in headers.items()}
    verb, path, body = request
    return server.ask(verb, path, body, keys=False, headers=sent)


def told(answer: Answered) -> tuple[int, str, Any]:
    return answer.status, answer.headers["content-type"], answer.json()


def objects(status: int, title: str, detail: str) -> dict[str, Any]:
    return {"errors": [{"status": str(status), "title": title, "detail": detail}]}


@pytest.mark.parametrize("request_", BOTH_KEYS, ids=lambda r: f"{r[0]} {r[1]}")
def test_most_operations_take_both_keys(server: Server, request_: tuple[str, str, Any]) -> None:
    api, app = server.api_key, server.app_key
    assert ask(server, request_, API_KEY=api, APP_KEY=app).status in (200, 404)
    for given in ({}, {"API_KEY": api}, {"APP_KEY": app}, {"API_KEY": "", "APP_KEY": app}, {"BEARER": "Bearer "}):
        assert told(ask(server, request_, **given)) == (401, "application/json", UNAUTHORIZED)
    for given in ({"API_KEY": api, "APP_KEY": "x"}, {"API_KEY": "x", "APP_KEY": app}, {"API_KEY": app, "APP_KEY": api}):
        assert told(ask(server, request_, **given)) == (403, "application/json", FORBIDDEN)


@pytest.mark.parametrize("request_", ON_TABLES, ids=lambda r: f"{r[0]} {r[1]}")
def test_tables_refuse_in_their_own_form(server: Server, request_: tuple[str, str, Any]) -> None:
    kind = "application/vnd.api+json"
    api, app = server.api_key, server.app_key
    assert ask(server, request_, API_KEY=api, APP_KEY=app).status in (200, 400, 404)
    unauthorized = objects(401, "Unauthorized", "Unauthorized")
    assert told(ask(server, request_, API_KEY=api)) == (401, kind, unauthorized)
    forbidden = objects(403, "Forbidden", "Forbidden")
    assert told(ask(server, request_, API_KEY=api, APP_KEY=api)) == (403, kind, forbidden)


def test_an_application_key_is_a_bearer_token(server: Server) -> None:
    api, app = server.api_key, server.app_key
    for bearer in (f"Bearer {app}", f"bearer {app}", f"BEARER  {app} "):
        assert ask(server, READ, BEARER=bearer).status == 200
    for bearer in (f"Bearer {api}", "Bearer x", f"Bearer {app}x", f"Bearer {app[:-1]}"):
        assert told(ask(server, READ, BEARER=bearer)) == (403, "application/json", FORBIDDEN)
    for no_bearer in (f"Basic {app}", app, f"Bearer{app}"):
        assert told(ask(server, READ, BEARER=no_bearer)) == (401, "application/json", UNAUTHORIZED)
    assert ask(server, READ, BEARER="Bearer x", API_KEY=api, APP_KEY=app).status == 200, "clients send all they hold"
    assert ask(server, READ, BEARER=f"Bearer {app}", API_KEY="x", APP_KEY="x").status == 200


def test_events_take_an_api_key_or_a_client_token(server: Server, token: str) -> None:
    event = ("POST", EVENTS, EVENT)
    for secret in (server.api_key, token):
        answer = ask(server, event, API_KEY=secret)
        assert (answer.status, answer.body) == (202, b"{}")
    missing = objects(401, "Unauthorized", "API key required")
    for given in ({}, {"APP_KEY": server.app_key}, {"BEARER": f"Bearer {server.app_key}"}, {"API_KEY": ""}):
        assert told(ask(server, event, **given)) == (401, "application/json", missing)
    for secret in (server.app_key, "x", f"{server.api_key} x", token.removeprefix("pub"), token.upper()):
        assert told(ask(server, event, API_KEY=secret)) == (
            403,
            "application/json",
            objects(403, "Forbidden", "Forbidden"),
        )


def test_a_client_token_writes_events_and_nothing_else(server: Server, token: str) -> None:
    for request in [*BOTH_KEYS, *ON_TABLES]:
        for given in ({"API_KEY": token, "APP_KEY": server.app_key}, {"BEARER": f"Bearer {token}"}):
            assert ask(server, request, **given).status == 403
    for path in ("/api/v1/validate", "/api/v2/validate"):
        assert ask(server, ("GET", path, None), API_KEY=token).status == 403, "it is no API key"


def test_checking_an_api_key_v1(server: Server) -> None:
    request = ("GET", "/api/v1/validate", None)
    assert told(ask(server, request, API_KEY=server.api_key)) == (200, "application/json", {"valid": True})
    missing = ask(server, request)
    assert (missing.status, missing.body) == (403, b'{"errors":["API key required"]}')
    wrong = {"status": "error", "code": 403, "errors": ["Forbidden"]}
    for secret in ("x", server.app_key):
        assert told(ask(server, request, API_KEY=secret)) == (403, "application/json", wrong)


def test_checking_an_api_key_v2(server: Server) -> None:
    request = ("GET", "/api/v2/validate", None)
    data = ask(server, request, API_KEY=server.api_key).json()["data"]
    assert str(UUID(data["id"])) == data["id"]
    attributes = data["attributes"]
    shown = server.cli("key", "list")
    assert attributes["api_key_id"] in shown
    assert (data["type"], attributes["valid"]) == ("validate_v2", True)
    assert attributes["api_key_scopes"] == ["events_write", "profiles_read", "mapping_write", "reference_tables_write"]
    forbidden = objects(403, "Forbidden", "Forbidden")
    assert told(ask(server, request, API_KEY="x")) == (403, "application/json", forbidden)
    assert ask(server, request).status in (401, 403)


def test_checking_both_keys(server: Server) -> None:
    request = ("GET", "/api/v2/validate_keys", None)
    answer = ask(server, request, API_KEY=server.api_key, APP_KEY=server.app_key)
    assert told(answer) == (200, "application/json", {"status": "ok"})
    assert ask(server, request, BEARER=f"Bearer {server.app_key}").json() == {"status": "ok"}


@pytest.mark.parametrize(
    ("kind", "request_"), [("api", READ), ("application", READ), ("client", ("POST", EVENTS, EVENT))]
)
def test_a_revoked_key_is_refused_at_once(server: Server, kind: str, request_: tuple[str, str, Any]) -> None:
    id, secret = create_key(server, kind)
    given = {
        "api": {"API_KEY": secret, "APP_KEY": server.app_key},
        "application": {"API_KEY": server.api_key, "APP_KEY": secret},
        "client": {"API_KEY": secret},
    }[kind]
    assert ask(server, request_, **given).status in (200, 202), "a new key works at once, beside a running server"
    server.cli("key", "revoke", id)
    assert ask(server, request_, **given).status == 403
    if kind == "application":
        assert ask(server, READ, BEARER=f"Bearer {secret}").status == 403
    assert server.run_cli("key", "revoke", "nobody").returncode == 4


def test_keys_that_are_no_text(server: Server) -> None:
    for secret in ("ä", "\xff\xfe", "'; --", " ", "x" * 8000):
        assert ask(server, READ, API_KEY=secret, APP_KEY=secret).status in (401, 403)


def test_secrets_are_nowhere(server: Server, token: str) -> None:
    """Neither on disk, nor in the log, nor in an answer."""
    secrets = [server.api_key.encode(), server.app_key.encode(), token.encode()]
    assert ask(server, READ, API_KEY=server.api_key, APP_KEY=server.app_key).status == 200
    kept = [path for path in server.folder.rglob("*") if path.is_file()]
    assert any(path.name == "roster.sqlite" for path in kept)
    assert [path for path in kept for secret in secrets if secret in path.read_bytes()] == []
    listed = server.cli("key", "list").encode()
    refused = ask(server, READ, API_KEY=server.api_key, APP_KEY="x").body
    assert [s for s in secrets if s in listed or s in refused] == []


# how many requests

LIMITS = {
    "audience_read": "5/minute",
    "audience_write": "3/2 second",
    "reference_tables_write": "2/hour",
    "events": "4/minute",
}
LIMITED: dict[str, tuple[tuple[str, str, Any], int, int]] = {
    "audience_read": (READ, 5, 60),
    "reference_tables_write": (ON_TABLES[3], 2, 3600),
    "events": (("POST", EVENTS, EVENT), 4, 60),
}


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that allows little."""
    with Server(tmp_path_factory.mktemp("strict"), rate_limits=json.dumps(LIMITS)) as server:
        yield server


def allowance(answer: Answered) -> dict[str, str]:
    prefix = "x-ratelimit-"
    return {name.removeprefix(prefix): v for name, v in answer.headers.items() if name.startswith(prefix)}


@pytest.mark.parametrize("bucket", LIMITED)
def test_allowances_are_told_and_kept(strict: Server, bucket: str) -> None:
    request, limit, period_s = LIMITED[bucket]
    given = {"API_KEY": create_key(strict, "api")[1], "APP_KEY": strict.app_key}
    answers = [ask(strict, request, **given) for _ in range(limit + 2)]
    for n, answer in enumerate(answers):
        left = allowance(answer)
        assert 0 < int(left.pop("reset")) <= period_s
        told = {"name": bucket, "limit": str(limit), "period": str(period_s), "remaining": str(max(0, limit - n - 1))}
        assert left == told, "also on errors: clients read them there"
    assert 429 not in {a.status for a in answers[:limit]}
    for answer in answers[limit:]:
        assert answer.status == 429
        (error,) = answer.json()["errors"]
        text = error["detail"] if bucket == "events" else error
        assert str(limit) in text
        assert "rate_limits" in text
    other = {"API_KEY": create_key(strict, "api")[1], "APP_KEY": strict.app_key}
    assert ask(strict, request, **other).status != 429, "each key has its own allowance"


def test_the_429_of_events_is_an_object(strict: Server) -> None:
    given = {"API_KEY": create_key(strict, "client")[1]}
    answers = [ask(strict, ("POST", EVENTS, EVENT), **given) for _ in range(5)]
    assert [a.status for a in answers] == [202, 202, 202, 202, 429]
    (error,) = answers[-1].json()["errors"]
    assert (error["status"], error["title"]) == ("429", "Too Many Requests")


def test_buckets_do_not_share(strict: Server) -> None:
    given = {"API_KEY": create_key(strict, "api")[1], "APP_KEY": strict.app_key}
    assert [ask(strict, READ, **given).status for _ in range(6)] == [200] * 5 + [429]
    assert ask(strict, ("POST", EVENTS, EVENT), **given).status == 202
    assert ask(strict, ON_TABLES[3], **given).status == 404
    for path in ("/health", "/openapi.json"):
        assert allowance(strict.ask("GET", path, keys=False)) == {}


def test_waiting_as_told_is_enough(strict: Server) -> None:
    given = {"API_KEY": create_key(strict, "api")[1], "APP_KEY": strict.app_key}
    write = ("DELETE", f"{AUDIENCE}/mapping/connection/x", None)
    answers = iter(lambda: ask(strict, write, **given), None)
    refused = next(answer for answer, _ in zip(answers, range(300), strict=False) if answer.status == 429)
    sleep(int(allowance(refused)["reset"]))
    assert ask(strict, write, **given).status == 404


def test_wrong_keys_do_not_use_up_an_allowance(strict: Server) -> None:
    given = {"API_KEY": create_key(strict, "api")[1], "APP_KEY": strict.app_key}
    for _ in range(20):
        assert ask(strict, READ, API_KEY=given["API_KEY"], APP_KEY="wrong").status == 403
    assert ask(strict, READ, **given).status == 200


def test_at_once_no_more_than_allowed(strict: Server) -> None:
    given = {"API_KEY": create_key(strict, "api")[1], "APP_KEY": strict.app_key}
    with ThreadPoolExecutor(16) as pool:
        statuses = list(pool.map(lambda _: ask(strict, READ, **given).status, range(40)))
    assert sorted(statuses) == [200] * 5 + [429] * 35
