"""Speaks to the intake as SDKs and as nobody should: requests of one line, recorded ones, raw bytes."""

from __future__ import annotations

import gzip
import http.client
import json
import re
import socket
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import zstandard

from roster.main import open_records
from roster.model.access import KeyKind
from roster.operations import keys
from roster.settings import Settings
from servers import Answered, Server

WIRE = Path(__file__).parent / "data" / "wire"
RECORDED_TOKEN = "pub00000000000000000000000000000000"
RUM = "/api/v2/rum"


def new_token(server: Server) -> str:
    """A client token, made beside the running server."""
    with open_records(Settings(data=server.folder / "data")) as records:
        return keys.create_key(records, KeyKind.CLIENT, "shop")[1]


def action(id: str, **more: Any) -> bytes:
    """A custom action, with what every reader of one needs."""
    event = {
        "type": "action",
        "date": time.time_ns() // 1_000_000,
        "application": {"id": "shop"},
        "session": {"id": "s1", "type": "user"},
        "view": {"id": "v1", "url": "https://shop.example/"},
        "action": {"id": id, "type": "custom", "target": {"name": "buy"}},
    }
    return json.dumps(event | more).encode()


def forward(path: str) -> str:
    """The address of a proxied request."""
    return f"/any/where?ddforward={quote(path, safe='')}"


def send(server: Server, path: str, body: bytes = b"", verb: str = "POST", **headers: str) -> Answered:
    """A request without keys of its own; `Content_Encoding="gzip"` is that header."""
    return server.ask(verb, path, body, keys=False, headers={k.replace("_", "-"): v for k, v in headers.items()})


def sync_flushed(body: bytes) -> bytes:
    """One zlib stream in the blocks that browser SDKs write: a flush after each event, an empty one at the end."""
    packer = zlib.compressobj()
    written = b"".join(packer.compress(line) + packer.flush(zlib.Z_SYNC_FLUSH) for line in body.splitlines(True))
    return written + packer.flush()


def raw_deflate(body: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return packer.compress(body) + packer.flush()


PACKERS = {
    "gzip": gzip.compress,
    "deflate": zlib.compress,
    "deflate without its frame": raw_deflate,
    "zstd": zstandard.compress,
}


@dataclass(frozen=True)
class Recorded:
    """A request as a browser sent it, its token replaced by one that is good here."""

    target: str
    headers: list[tuple[str, str]]
    events: list[dict[str, Any]]
    body: bytes


def recorded(name: str, token: str) -> list[Recorded]:
    """The requests of one recording."""
    made = []
    for request in json.loads((WIRE / f"{name}.json").read_text("utf-8")):
        plain = request["body"].encode()
        body = sync_flushed(plain) if request["packed"] else plain
        target = request["line"].split(" ")[1].replace(RECORDED_TOKEN, token)
        headers = [(k, v) for k, v in request["headers"] if k.lower() not in ("host", "content-length")]
        events = [json.loads(line) for line in plain.splitlines()]
        made.append(Recorded(target, headers, events, body))
    return made


def replay(server: Server, request: Recorded) -> Answered:
    """Send it again, header by header."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    try:
        connection.putrequest("POST", request.target, skip_accept_encoding=True)
        for name, value in request.headers:
            connection.putheader(name, value)
        connection.putheader("Content-Length", str(len(request.body)))
        connection.endheaders(request.body)
        answer = connection.getresponse()
        return Answered(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())
    finally:
        connection.close()


@contextmanager
def wire(server: Server) -> Iterator[socket.socket]:
    """A bare connection."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as connection:
        yield connection


def head(token: str, length: int | None, path: str = RUM, verb: str = "POST") -> bytes:
    """A request's head; a length of None announces chunks."""
    size = "Transfer-Encoding: chunked" if length is None else f"Content-Length: {length}"
    return f"{verb} {path} HTTP/1.1\r\nHost: x\r\nDD-API-KEY: {token}\r\n{size}\r\n\r\n".encode()


def read_answer(connection: socket.socket) -> Answered:
    """The next answer of a connection."""
    answer = http.client.HTTPResponse(connection)
    answer.begin()
    return Answered(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())


def logged(server: Server) -> list[dict[str, Any]]:
    """The canonical lines acknowledged and not yet applied."""
    paths = sorted((server.folder / "data" / "log").glob("events-*.ndjson"))
    return [json.loads(line) for path in paths for line in path.read_bytes().splitlines()]


def keys_of(events: list[dict[str, Any]]) -> set[str]:
    """The identities of events that have one of their own."""
    return {f"{e['type']}:{e[e['type']]['id']}" for e in events if isinstance(e.get(e["type"]), dict)}


def is_whole_seconds(text: str) -> bool:
    return re.fullmatch(r"[1-9][0-9]*", text) is not None


def accepted(answer: Answered) -> Answered:
    assert answer.status == 202, answer.body
    return open_to_pages(answer)


def refused(answer: Answered, status: int) -> Answered:
    """An answer in the shape of the events' API, readable by a page."""
    assert answer.status == status, answer.body
    for error in answer.json()["errors"]:
        assert error["status"] == str(status)
        assert error["title"]
        assert error["detail"]
    return open_to_pages(answer)


def open_to_pages(answer: Answered) -> Answered:
    assert answer.headers["access-control-allow-origin"] == "*"
    assert "access-control-allow-credentials" not in answer.headers
    assert "retry-after" not in answer.headers
    return answer


def arrived(server: Server, id: str) -> bool:
    return f"action:{id}" in {line["k"] for line in logged(server)}
