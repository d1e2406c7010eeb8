"""Proxies before a server: one hides what only a Roster has, one notes what passes and may lose an answer."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

HIDDEN = ("/api/roster/",)
OF_ONE_HOP = ("connection", "keep-alive", "transfer-encoding", "content-length")


class _Proxy(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self) -> None:
        raise NotImplementedError

    def sent(self) -> bytes:
        return self.rfile.read(int(self.headers.get("content-length", 0)))

    def tell(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if status != 204:
            self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        self.answer()

    do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = do_GET

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: a test reads its own output."""


@dataclass(frozen=True)
class Answer:
    """What the server behind said; header names are in lower case."""

    status: int
    body: bytes
    headers: dict[str, str]


def _ask(port: int, verb: str, path: str, body: bytes, headers: dict[str, str]) -> Answer:
    behind = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        behind.request(verb, path, body or None, headers)
        got = behind.getresponse()
        return Answer(got.status, got.read(), {name.lower(): value for name, value in got.getheaders()})
    finally:
        behind.close()


@contextmanager
def _serving(handler: type[_Proxy]) -> Iterator[str]:
    served = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=served.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{served.server_port}"
    finally:
        served.shutdown()
        served.server_close()
        thread.join()


@contextmanager
def hiding_proxy(port: int, meddle: Callable[[str, str], int | None] = lambda verb, path: None) -> Iterator[str]:
    """The address of a proxy before a local port; `meddle` may answer a status in place of the server."""

    class Handler(_Proxy):
        def answer(self) -> None:
            body = self.sent()
            status = 404 if self.path.startswith(HIDDEN) else meddle(self.command, self.path)
            if status is not None:
                self.tell(status, b"", {"location": "http://127.0.0.1:1/"} if status == 302 else {})
                return
            got = _ask(port, self.command, self.path.split("?dry_run")[0], body, dict(self.headers))
            kept = {n: v for n, v in got.headers.items() if n in ("content-type", "x-ratelimit-reset")}
            self.tell(got.status, got.body, kept)

    with _serving(Handler) as url:
        yield url


@dataclass(frozen=True)
class Passed:
    """One request that passed, and the status the sender was told; `stored` is the status of the server."""

    verb: str
    path: str
    headers: dict[str, str]
    body: bytes
    stored: int
    told: int


@dataclass
class Tap:
    """A proxy that changes nothing. The first `lost` answers that are good are replaced by 503."""

    lost: int = 0
    url: str = ""
    passed: list[Passed] = field(default_factory=list)
    turn: threading.Lock = field(default_factory=threading.Lock)

    def note(self, verb: str, path: str, headers: dict[str, str], body: bytes, stored: int) -> int:
        with self.turn:
            loses = self.lost > 0 and stored < 300
            self.lost -= loses
            told = 503 if loses else stored
            self.passed.append(Passed(verb, path, headers, body, stored, told))
            return told


@contextmanager
def tapped(port: int, tap: Tap) -> Iterator[Tap]:
    """The tap at work before a local port."""

    class Handler(_Proxy):
        def answer(self) -> None:
            body, headers = self.sent(), dict(self.headers)
            got = _ask(port, self.command, self.path, body, headers)
            lower = {name.lower(): value for name, value in headers.items()}
            told = tap.note(self.command, self.path, lower, body, got.status)
            self.tell(told, got.body, {n: v for n, v in got.headers.items() if n not in OF_ONE_HOP})

    with _serving(Handler) as url:
        tap.url = url
        yield tap
