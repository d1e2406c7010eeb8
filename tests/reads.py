"""Makes reads for the tests of readers and shows what they brought; a small HTTP server that speaks as told."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import duckdb

from roster.model.source import parse_origin
from roster.model.sync import Fetched
from roster.ports import Reading
from roster.sources.job import Job, ReadLimits
from roster.sources.policy import Policy

LOCAL = ("127.0.0.1", "localhost")


def make_job(
    folder: Path,
    kind: str,
    options: dict[str, str],
    secret: dict[str, str] | None = None,
    *,
    fingerprint: str = "",
    cursor: str = "",
    full: bool = False,
    policy: Policy | None = None,
    bytes_max: int = 2**30,
    report: Callable[[Reading], None] = lambda reading: None,
) -> Job:
    """A read as the child process would get it; this machine is allowed."""
    place = folder / "run"
    place.mkdir(exist_ok=True)
    return Job(
        parse_origin(kind, options),
        secret or {},
        place,
        fingerprint,
        cursor,
        full,
        policy or Policy(LOCAL, (folder,), loopback=True),
        ReadLimits(bytes_max, 60.0),
        report,
    )


def rows_of(job: Job, fetched: Fetched | None, order: str = "1") -> list[tuple[Any, ...]]:
    """The rows that a read brought, in order."""
    assert fetched is not None and fetched.format == "parquet"
    paths = [str(job.folder / name) for name in fetched.names]
    with duckdb.connect() as connection:
        return connection.execute(f"SELECT * FROM read_parquet(?) ORDER BY {order}", [paths]).fetchall()


def columns_of(job: Job, fetched: Fetched | None) -> dict[str, str]:
    """Names and types of what a read brought."""
    assert fetched is not None
    with duckdb.connect() as connection:
        found = connection.execute("DESCRIBE SELECT * FROM read_parquet(?)", [str(job.folder / fetched.names[0])])
        return {row[0]: row[1] for row in found.fetchall()}


@dataclass(frozen=True, slots=True)
class Asked:
    """One request that the server got."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)

    def form(self) -> dict[str, str]:
        return {name: values[0] for name, values in parse_qs(self.body.decode()).items()}


@dataclass(slots=True)
class Said:
    """One answer: JSON, or text as it is."""

    body: Any = None
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)


@contextmanager
def speaking(answer: Callable[[Asked], Said]) -> Iterator[tuple[str, list[Asked]]]:
    """A server on this machine: its address and what it was asked."""
    heard: list[Asked] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_all(self) -> None:
            parts = urlsplit(self.path)
            length = int(self.headers.get("content-length") or 0)
            query = {name: values[0] for name, values in parse_qs(parts.query).items()}
            headers = {name.lower(): value for name, value in self.headers.items()}
            asked = Asked(self.command, parts.path, query, headers, self.rfile.read(length))
            heard.append(asked)
            said = answer(asked)
            text = said.body.encode() if isinstance(said.body, str) else json.dumps(said.body).encode()
            self.send_response(said.status)
            for name, value in ({"content-type": "application/json"} | said.headers).items():
                self.send_header(name, value)
            self.send_header("content-length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        do_GET = do_POST = handle_all

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", heard
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
