"""Starts object stores for tests: real ones (moto, Azurite), and one that answers as a test tells it."""

from __future__ import annotations

import base64
import http.client
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from servers import free_port

START_TIMEOUT_S = 60.0
KEYS = {"access_key_id": "AKROSTERTEST", "secret_access_key": "a-secret/key+of=the tests", "region": "us-east-1"}


@dataclass
class S3Store:
    """A running moto server."""

    port: int
    log: Path
    secret: dict[str, str] = field(init=False)

    def __post_init__(self) -> None:
        self.secret = KEYS | {"endpoint": f"http://127.0.0.1:{self.port}"}

    def put(self, path: str, content: bytes = b"") -> None:
        """Make a bucket (`/bucket`) or an object (`/bucket/key`)."""
        assert self._ask("PUT", path, content) == 200

    def remove(self, path: str) -> None:
        assert self._ask("DELETE", path) == 204

    def asked(self, path: str) -> list[str]:
        """The methods by which an object was asked for, as the server's own log has them."""
        found = re.findall(r"(GET|HEAD) (/[^ ?]*)\S* HTTP", self.log.read_text())
        return [method for method, asked in found if asked == path]

    def _ask(self, method: str, path: str, content: bytes = b"") -> int:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            # moto holds objects of the anonymous open to nobody else; a signature's form is enough for it
            signed = f"AWS4-HMAC-SHA256 Credential={KEYS['access_key_id']}/20260101/us-east-1/s3/aws4_request"
            headers = {"content-type": "application/octet-stream", "authorization": signed}
            connection.request(method, path, content, headers)
            return connection.getresponse().status
        finally:
            connection.close()


@contextmanager
def s3_store(folder: Path) -> Iterator[S3Store]:
    """A moto server on loopback."""
    port = free_port()
    log = folder / "moto.log"
    with log.open("wb") as file:
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
        process = subprocess.Popen(command, stdout=file, stderr=file, env=os.environ | {"NO_COLOR": "1"})
    try:
        _wait(port, "/moto-api/data.json", process, log)
        yield S3Store(port, log)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


ACCOUNT = "devstoreaccount1"


@contextmanager
def azure_store(command: str, folder: Path) -> Iterator[int]:
    """Azurite on loopback, its account and key given by us; gives its port."""
    port = free_port()
    log = folder / "azurite.log"
    words = [*command.split(), "--blobHost", "127.0.0.1", "--blobPort", str(port), "--inMemoryPersistence"]
    with log.open("wb") as file:
        process = subprocess.Popen(words, stdout=file, stderr=file, cwd=folder, env=os.environ | AZURE_ACCOUNT)
    try:
        _wait(port, "/", process, log)
        yield port
    finally:
        process.kill()  # asked to end, it waits for its clients' idle connections
        process.wait(60)


AZURE_KEY = base64.b64encode(b"roster's tests, no secret at all").decode()
AZURE_ACCOUNT = {"AZURITE_ACCOUNTS": f"{ACCOUNT}:{AZURE_KEY}"}


def _wait(port: int, path: str, process: subprocess.Popen[bytes], log: Path) -> None:
    end_s = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < end_s and process.poll() is None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        try:
            connection.request("GET", path)
            if connection.getresponse().status < 500:
                return
        except OSError:
            time.sleep(0.05)
        finally:
            connection.close()
    raise AssertionError(f"the store did not start: {log.read_text()}")


@dataclass(frozen=True)
class Told:
    """What a scripted store answers. `size` is the length it claims, its own unless given."""

    status: int = 200
    content: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    size: int | None = None


class ScriptedStore:
    """A real HTTP server on loopback whose answers a test decides; keeps what it was asked."""

    def __init__(self, answer: Callable[[str, str], Told], host: str = "127.0.0.1") -> None:
        self.asked: list[tuple[str, str, dict[str, str], bytes]] = []
        asked = self.asked

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length") or 0))
                asked.append((self.command, self.path, {k.lower(): v for k, v in self.headers.items()}, body))
                told = answer(self.command, self.path)
                self.send_response(told.status)
                for name, value in told.headers.items():
                    self.send_header(name, value)
                self.send_header("content-length", str(len(told.content) if told.size is None else told.size))
                self.end_headers()
                if self.command != "HEAD":
                    with suppress(ConnectionError):  # who asked may be gone
                        self.wfile.write(told.content)
                self.close_connection = True

            do_HEAD = do_POST = do_GET

            def log_message(self, format: str, *words: Any) -> None:
                pass

        self._server = ThreadingHTTPServer((host, 0), Handler)
        self.port = self._server.server_port
        self.url = f"http://{host}:{self.port}"
        self.secret = KEYS | {"endpoint": self.url}
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})

    def methods(self) -> list[str]:
        return [method for method, *_ in self.asked]

    def __enter__(self) -> ScriptedStore:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
