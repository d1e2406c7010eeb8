"""The door of events: what SDKs may send, what each refusal looks like, and what nobody gets past."""

from __future__ import annotations

import gzip
import json
import resource
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from hashlib import sha1
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from http_senders import (
    RUM,
    accepted,
    action,
    arrived,
    forward,
    head,
    is_whole_seconds,
    logged,
    new_token,
    open_to_pages,
    read_answer,
    refused,
    send,
    wire,
)
from servers import Answered, Server

pytestmark = pytest.mark.xdist_group("intake_door")

TRACKS = (RUM, "/api/v2/replay", "/api/v2/prodlytics")
BODY_BYTES = 20_000
ROOM_BYTES = 30_000
FOREVER_S = "3600"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Small limits, every line of the log, and events that stay in the synced log."""
    settings = {
        "log_level": "debug",
        "apply_interval_s": FOREVER_S,
        "event_body_bytes_max": str(BODY_BYTES),
        "intake_bytes_at_once_max": str(ROOM_BYTES),
        "body_timeout_s": "2",
    }
    with Server(tmp_path_factory.mktemp("door"), **settings) as running:
        yield running


@pytest.fixture(scope="module")
def token(server: Server) -> str:
    return new_token(server)


# where events may be sent


@pytest.mark.parametrize("where", ["key in the query", "key in a header", "proxied", "behind two slashes"])
def test_events_are_taken_at(server: Server, token: str, where: str) -> None:
    in_query = f"{RUM}?ddsource=browser&dd-api-key={token}"
    paths = {
        "key in a header": f"{RUM}?ddsource=ios",
        "proxied": forward(in_query),
        "behind two slashes": "/" + in_query,
    }
    headers = {"DD_API_KEY": token} if where == "key in a header" else {}
    answer = accepted(send(server, paths.get(where, in_query), action(f"at {where}"), **headers))
    assert list(answer.json()) == ["request_id"]
    assert arrived(server, f"at {where}")


def test_a_proxied_request_may_say_more_beside(server: Server, token: str) -> None:
    path = forward(f"{RUM}?dd-api-key={token}") + "&ddforwardSubdomain=evil.example"
    accepted(send(server, path, action("subdomain")))
    accepted(send(server, forward(RUM) + f"&dd-api-key={token}", action("outer key")))
    accepted(send(server, f"/health?ddforward={quote(RUM, safe='')}", action("any path"), DD_API_KEY=token))
    assert all(arrived(server, id) for id in ("subdomain", "outer key", "any path"))


def test_an_api_key_may_write_too(server: Server) -> None:
    accepted(send(server, f"{RUM}?dd-api-key={server.api_key}", action("api key")))


def test_recordings_of_sessions_are_taken_and_forgotten(server: Server, token: str) -> None:
    before = len(logged(server))
    for path in (f"/api/v2/replay?dd-api-key={token}", forward(f"/api/v2/replay?dd-api-key={token}")):
        accepted(send(server, path, b"--x\r\nnothing that we read\xff", Content_Type="multipart/form-data; boundary=x"))
    assert len(logged(server)) == before


@pytest.mark.parametrize(
    ("name", "packed", "headers"),
    [
        ("ios", zlib.compress, {"Content_Encoding": "deflate", "DD_EVP_ORIGIN": "ios"}),
        ("android", gzip.compress, {"Content_Encoding": "gzip", "DD_EVP_ORIGIN": "android"}),
    ],
)
def test_mobile_sdks(server: Server, token: str, name: str, packed: Callable[[bytes], bytes], headers: Any) -> None:
    body = action(name, source=name)
    given = headers | {
        "DD_API_KEY": token,
        "DD_EVP_ORIGIN_VERSION": "2.30.0",
        "DD_REQUEST_ID": "8f7d2f4e-2d66-4d0f-9be4-5c2ff7a6b0c1",
        "DD_IDEMPOTENCY_KEY": sha1(body).hexdigest(),
        "Content_Type": "text/plain;charset=UTF-8",
        "User_Agent": "Shop/1.2 CFNetwork (iPhone; iOS/18.1)",
    }
    path = f"{RUM}?ddsource={name}&ddtags=retry_count:1,last_failure_status:503"
    for _ in range(2):
        accepted(send(server, path, packed(body), **given))
    assert arrived(server, name)


def test_what_shares_the_beginning_of_a_path_is_untouched(server: Server) -> None:
    listed = server.ask("GET", "/api/v2/rum/segment")
    assert listed.status == 200
    assert "access-control-allow-origin" not in listed.headers
    assert server.ask("POST", "/intake", b"{}").status == 404
    assert send(server, "/intake?x=ddforward", b"{}").status == 404


@pytest.mark.parametrize(
    "target",
    [
        "https://browser-intake-datadoghq.com/api/v2/rum",
        "//evil.example/api/v2/rum",
        "/api/v2/../v2/rum",
        "/api/v2/rum/../../../metrics",
        "/api%2Fv2%2Frum",
        "/api/v2/rum%2F..%2Fsegment",
        "/api/v2/rum/segment",
        "/api/v2/product-analytics/users/query",
        "/api/v2/logs",
        "api/v2/rum",
        "\\api\\v2\\rum",
        "/api/v2/rum#",
        "/api/v2/rum\r\nX: y",
        "\0",
        "",
    ],
)
def test_nothing_else_is_forwarded_to(server: Server, token: str, target: str) -> None:
    separator = "&" if "?" in target else "?"
    answer = refused(send(server, forward(f"{target}{separator}dd-api-key={token}"), action("elsewhere")), 400)
    assert answer.json()["errors"][0]["source"] == {"parameter": "ddforward"}
    assert not arrived(server, "elsewhere")


def test_two_targets_are_none(server: Server, token: str) -> None:
    path = forward(f"{RUM}?dd-api-key={token}")
    refused(send(server, f"{path}&{path.partition('?')[2]}", action("twice")), 400)


# who may send them


@pytest.mark.parametrize("path", TRACKS)
def test_keys_are_asked_for(server: Server, path: str) -> None:
    refused(send(server, path, action("nobody")), 401)
    refused(send(server, forward(f"{path}?ddsource=browser"), action("nobody")), 401)
    for wrong in ("pub0", server.app_key, "%00", "ä"):
        refused(send(server, f"{path}?dd-api-key={quote(wrong)}", action("nobody")), 403)
    assert not arrived(server, "nobody")


def test_a_revoked_token_is_refused_at_once(server: Server) -> None:
    shown = server.cli("key", "create", "client", "--name", "brief").split()
    id, secret = shown[shown.index("id") + 1], shown[shown.index("secret") + 1]
    accepted(send(server, f"{RUM}?dd-api-key={secret}", action("before")))
    server.cli("key", "revoke", id)
    for _ in range(2):
        refused(send(server, f"{RUM}?dd-api-key={secret}", action("after")), 403)
    assert not arrived(server, "after")


# what pages may read


@pytest.mark.parametrize("path", [*TRACKS, forward(RUM), forward("/elsewhere")])
def test_a_page_may_ask_first(server: Server, path: str) -> None:
    answer = send(
        server,
        path,
        verb="OPTIONS",
        Origin="https://shop.example",
        Access_Control_Request_Method="POST",
        Access_Control_Request_Headers="content-encoding, dd-api-key",
    )
    assert answer.status == 204
    assert answer.body == b""
    open_to_pages(answer)
    assert "POST" in answer.headers["access-control-allow-methods"]
    assert {"dd-api-key", "content-encoding"} <= set(answer.headers["access-control-allow-headers"].split(", "))
    assert is_whole_seconds(answer.headers["access-control-max-age"])


def test_pages_are_told_of_other_verbs(server: Server) -> None:
    for verb in ("GET", "PUT", "DELETE", "PATCH"):
        for path in TRACKS:
            refused(send(server, path, verb=verb), 404)


def test_the_rest_of_the_api_stays_closed_to_pages(server: Server) -> None:
    for verb, path in (("GET", "/health"), ("GET", "/nothing"), ("OPTIONS", "/api/v2/product-analytics/users/query")):
        assert "access-control-allow-origin" not in server.ask(verb, path).headers


# what is too much


@pytest.mark.parametrize("length", [BODY_BYTES + 1, None], ids=["declared", "in chunks"])
def test_a_large_body_is_refused_early_and_the_connection_goes_on(
    server: Server, token: str, length: int | None
) -> None:
    body = b"x" * (BODY_BYTES + 1)
    with wire(server) as connection:
        connection.sendall(head(token, length))
        if length is None:
            connection.sendall(b"%x\r\n" % len(body) + body)
        refused(read_answer(connection), 413)
        connection.sendall(b"\r\n0\r\n\r\n" if length is None else body)
        small = action(f"after 413 {length}")
        connection.sendall(head(token, len(small)) + small)
        accepted(read_answer(connection))
    assert arrived(server, f"after 413 {length}")


def test_a_body_that_does_not_come(server: Server, token: str) -> None:
    for path in TRACKS:
        with wire(server) as connection:
            connection.sendall(head(token, 100, path) + b"{")
            refused(read_answer(connection), 408)
            assert connection.recv(1) == b"", "nobody waits for the rest"


def test_a_sender_who_hangs_up_leaves_no_room_taken(server: Server, token: str) -> None:
    for _ in range(4 * ROOM_BYTES // BODY_BYTES):
        with wire(server) as connection:
            connection.sendall(head(token, BODY_BYTES) + b" " * (BODY_BYTES - 1))
    until(lambda: send(server, RUM, action("room again") + b" " * 15_000, DD_API_KEY=token), 202)


@pytest.mark.parametrize("begun", [b"", b"{"], ids=["nothing", "one byte"])
def test_senders_who_announce_much_and_send_nothing_take_no_room(server: Server, token: str, begun: bytes) -> None:
    with ExitStack() as open_ones:
        idle = [open_ones.enter_context(wire(server)) for _ in range(4 * ROOM_BYTES // BODY_BYTES)]
        for connection in idle:
            connection.sendall(head(token, BODY_BYTES) + begun)
        body = action(f"beside idle ones {len(begun)}") + b" " * 15_000
        for _ in range(5):
            accepted(send(server, RUM, body, DD_API_KEY=token))
        for connection in idle:
            refused(read_answer(connection), 408)


def until(ask: Callable[[], Answered], status: int) -> Answered:
    """The first answer with that status: what others hold is taken and released in its own time."""
    for _ in range(1000):
        answer = ask()
        if answer.status == status:
            return answer
    raise AssertionError(f"always {answer.status}: {answer.body!r}")


@pytest.mark.parametrize("kind", ["plain", "in chunks", "packed"])
def test_too_many_bytes_at_once(server: Server, token: str, kind: str) -> None:
    held = b" " * (BODY_BYTES - len(action("held"))) + action("held")
    plain = action(f"second {kind}") + b" " * 15_000
    with wire(server) as first, wire(server) as second:
        first.sendall(head(token, len(held)) + held[:-1])

        def ask() -> Answered:
            if kind == "in chunks":
                second.sendall(head(token, None) + b"%x\r\n" % len(plain) + plain + b"\r\n0\r\n\r\n")
                return read_answer(second)
            packed = {"Content_Encoding": "gzip"} if kind == "packed" else {}
            return send(server, RUM, gzip.compress(plain) if packed else plain, DD_API_KEY=token, **packed)

        answer = refused(until(ask, 429), 429)
        assert is_whole_seconds(answer.headers["x-ratelimit-reset"])
        accepted(send(server, f"/api/v2/replay?dd-api-key={token}", b"x" * BODY_BYTES))
        first.sendall(held[-1:])
        accepted(read_answer(first))
        accepted(until(ask, 202))
    assert arrived(server, f"second {kind}")


def test_a_full_log(tmp_path: Path) -> None:
    with Server(tmp_path, apply_interval_s=FOREVER_S, log_bytes_max="3000") as server:
        path = f"{RUM}?dd-api-key={new_token(server)}"
        numbers = iter(range(1000))
        answer = refused(until(lambda: send(server, path, action(f"full {next(numbers)}")), 429), 429)
        assert is_whole_seconds(answer.headers["x-ratelimit-reset"])
        event = {"type": "server", "application": {"id": "a"}, "event": {"name": "e"}, "usr": {"id": "u"}}
        body = b"\n".join([json.dumps(event).encode()] * 20)
        refused(send(server, "/api/v2/prodlytics", body, DD_API_KEY=server.api_key), 429)


def test_a_disk_that_refuses(tmp_path: Path) -> None:
    with Server(tmp_path, apply_interval_s=FOREVER_S) as server:
        assert server.process is not None
        path = f"{RUM}?dd-api-key={new_token(server)}"
        accepted(send(server, path, action("before")))
        unlimited = resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (0, unlimited[1]))
        refused(send(server, path, action("while")), 503)
        resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, unlimited)
        accepted(send(server, path, action("after")))
        assert [arrived(server, id) for id in ("before", "while", "after")] == [True, False, True]


def test_limits_of_a_token(tmp_path: Path) -> None:
    with Server(tmp_path, rate_limits='{"events": "3/hour"}') as server:
        one, other = new_token(server), new_token(server)
        answers = [send(server, forward(f"{RUM}?dd-api-key={one}"), action(str(n))) for n in range(5)]
        assert [answer.status for answer in answers] == [202, 202, 202, 429, 429]
        limited = refused(answers[-1], 429)
        assert is_whole_seconds(limited.headers["x-ratelimit-reset"])
        assert limited.headers["x-ratelimit-name"] == "events"
        accepted(send(server, f"{RUM}?dd-api-key={other}", action("of another")))


# what nobody may see or forge


def test_tokens_reach_no_log_and_no_metric(server: Server, token: str) -> None:
    for path in (f"{RUM}?dd-api-key={token}", forward(f"{RUM}?dd-api-key={token}")):
        for body, headers in ((action("seen"), {}), (b"x", {"Content_Encoding": "br"}), (b"\xff{", {})):
            assert token not in send(server, path, body, **headers).body.decode()
    assert token.encode() not in send(server, forward(f"/elsewhere?dd-api-key={token}")).body
    with wire(server) as connection:
        connection.sendall(f"POST {RUM}?dd-api-key={token} HTTP/1.1\r\nContent-Length: x\r\n\r\n".encode())
        assert token.encode() not in connection.recv(10_000)
    told = server.ask("GET", "/metrics").body.decode() + server.log()
    assert "SubmitRumEvents" in told
    assert token not in told
    assert "ddforward" not in server.log()
    canonical = b"".join(path.read_bytes() for path in (server.folder / "data" / "log").iterdir() if path.is_file())
    assert token.encode() not in canonical


UPLOAD = {
    "data": {"type": "upload", "attributes": {"headers": ["id"], "table_name": "t", "part_count": 1, "part_size": 5}}
}


@pytest.mark.parametrize(("trusted", "scheme"), [("[]", "http"), ('["127.0.0.0/8"]', "https")])
def test_only_trusted_proxies_are_believed(tmp_path: Path, trusted: str, scheme: str) -> None:
    with Server(tmp_path, trusted_proxies=trusted) as server:
        forwarded = {"X-Forwarded-For": "203.0.113.9", "X-Forwarded-Proto": "https"}
        made = server.ask("POST", "/api/v2/reference-tables/uploads", UPLOAD, headers=forwarded).json()
        (address,) = made["data"]["attributes"]["part_urls"]
        assert address.startswith(f"{scheme}://")


def test_a_wrong_trusted_proxy_is_refused(server: Server) -> None:
    server.env["ROSTER_TRUSTED_PROXIES"] = '["everyone"]'
    done = server.run_cli("check")
    del server.env["ROSTER_TRUSTED_PROXIES"]
    assert done.returncode == 2
    assert "trusted_proxies" in done.stdout + done.stderr
