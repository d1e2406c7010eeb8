"""A far end's address, keys, waits and errors, as the commands of the mapping use them."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from roster.base.errors import Code, Error
from roster.cli_far_end import check_url, credentials, open_far_end
from roster.model.declaration_calls import Call

KEYS = {"DD_API_KEY": "one", "DD_APP_KEY": "two"}


@contextmanager
def answering(*answers: tuple[int, dict[str, str], Any]) -> Iterator[tuple[str, list[dict[str, str]]]]:
    """The address of a server that gives these answers in turn, and the headers of what it was asked."""
    left, asked = list(answers), []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append({name.lower(): value for name, value in self.headers.items()})
            status, headers, body = left.pop(0)
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body if isinstance(body, bytes) else json.dumps(body).encode())

        def log_message(self, format: str, *args: object) -> None:
            """Nothing: a test reads its own output."""

    served = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=served.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{served.server_port}", asked
    finally:
        served.shutdown()
        served.server_close()
        thread.join()


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("http://127.0.0.1:8126/", "http://127.0.0.1:8126"),
        ("http://[::1]:8126", "http://[::1]:8126"),
        (" https://api.datadoghq.eu ", "https://api.datadoghq.eu"),
        ("https://proxy.example.com/dd/", "https://proxy.example.com/dd"),
    ],
)
def test_addresses_that_are_taken(url: str, address: str) -> None:
    assert check_url(url) == address


@pytest.mark.parametrize(
    "url",
    ["", "api.datadoghq.eu", "ftp://x", "http://example.com", "https://u:p@x.com", "https://x.com?a", "http://[x"],
)
def test_addresses_that_are_refused(url: str) -> None:
    with pytest.raises(Error) as caught:
        check_url(url)
    assert caught.value.code is Code.INVALID
    assert "p@" not in caught.value.text()


def test_keys_of_one_kind_go_together() -> None:
    own = {"ROSTER_API_KEY": "three", "ROSTER_APP_KEY": "four"}
    assert credentials(KEYS) == {"DD-API-KEY": "one", "DD-APPLICATION-KEY": "two"}
    assert credentials(KEYS | own) == {"DD-API-KEY": "three", "DD-APPLICATION-KEY": "four"}
    assert credentials({**KEYS, "ROSTER_API_KEY": "three"}) == credentials(KEYS)
    assert credentials({"DD_BEARER_TOKEN": "t"}) == {"Authorization": "Bearer t"}
    with pytest.raises(Error, match="no keys") as caught:
        credentials({"DD_API_KEY": "one"})
    assert caught.value.code is Code.UNAUTHENTICATED


def test_enough_requests_are_waited_out() -> None:
    with (
        answering((429, {"X-RateLimit-Reset": "0"}, {"errors": ["later"]}), (200, {}, {"data": []})) as (url, asked),
        open_far_end(url, KEYS) as far_end,
    ):
        assert far_end.ask(Call("GET", "/x"), reason="why") == {"data": []}
    assert [(a["dd-api-key"], a["dd-application-key"], a["x-roster-reason"]) for a in asked] == [
        ("one", "two", "why")
    ] * 2


@pytest.mark.parametrize(
    ("status", "body", "code", "text"),
    [
        (400, {"errors": ["no such (at /data/x); try y"]}, Code.INVALID, "no such (at /data/x); try y"),
        (400, {"errors": ["a", "b (at /c)"]}, Code.INVALID, "the far end refuses GET /x (400): a; b"),
        (404, {"errors": [{"title": "Not Found", "detail": "gone"}]}, Code.NOT_FOUND, "GET /x (404): gone"),
        (409, {"errors": [{"detail": "taken", "source": {"pointer": "/d"}}]}, Code.CONFLICT, "taken (at /d)"),
        (403, {"errors": ["Forbidden"]}, Code.FORBIDDEN, "do the keys belong to this far end"),
        (503, b"<html>busy</html>", Code.BUSY, "(503): <html>busy</html>"),
        (502, b"", Code.INTERNAL, "the far end refuses GET /x (502)"),
        (422, {"errors": "odd"}, Code.INVALID, "(422)"),
        (302, b"", Code.INVALID, "keys are not sent on"),
        (200, b"{", Code.INTERNAL, "the answer is no JSON"),
    ],
)
def test_what_a_far_end_says_is_told(status: int, body: Any, code: Code, text: str) -> None:
    with answering((status, {"location": "/y"} if status == 302 else {}, body)) as (url, _):
        with open_far_end(url, KEYS) as far_end, pytest.raises(Error) as caught:
            far_end.ask(Call("GET", "/x?page=1"))
        assert caught.value.code is code
        assert text in caught.value.text()


def test_done_already_is_done() -> None:
    with answering((404, {}, {"errors": ["gone"]})) as (url, _), open_far_end(url, KEYS) as far_end:
        assert far_end.ask(Call("GET", "/x", done=(404,))) is None


def test_nobody_there() -> None:
    with open_far_end("http://127.0.0.1:1", KEYS) as far_end, pytest.raises(Error) as caught:
        far_end.ask(Call("GET", "/x"))
    assert caught.value.code is Code.BUSY
