"""Starts, kills and restarts real servers for tests, and speaks HTTP to them with nothing but the standard library."""

from __future__ import annotations

import atexit
import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any

from commands import Command, run_command

START_TIMEOUT_S = 90.0


@dataclass(frozen=True)
class Answered:
    """An HTTP answer: status, headers by lower-case name, raw body."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@cache
def _template() -> Server:
    """A server that never starts, whose keys were made by the command: making them costs more than starting one."""
    folder = Path(tempfile.mkdtemp(prefix="roster-template-"))
    atexit.register(shutil.rmtree, folder)
    (folder / "data").mkdir()
    return Server(folder)


class Server:
    """A real `roster serve` on a data folder, with an API key and an application key of its own."""

    def __init__(self, folder: Path, **settings: str) -> None:
        self.folder = folder
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.env = os.environ | {
            "ROSTER_DATA": str(folder / "data"),
            "ROSTER_PORT": str(self.port),
            "ROSTER_LOG_LEVEL": "warning",
            "PYTHONWARNINGS": "error",
            **{f"ROSTER_{name.upper()}": value for name, value in settings.items()},
        }
        self.api_key, self.app_key = self._create_keys()
        self.process: Command | None = None

    def _create_keys(self) -> tuple[str, str]:
        """An API key and an application key; a folder without data begins as a copy of one that has them."""
        data = self.folder / "data"
        if data.exists():
            return self._create_key("api"), self._create_key("application")
        template = _template()
        shutil.copytree(template.folder / "data", data)
        return template.api_key, template.app_key

    def _create_key(self, kind: str) -> str:
        shown = self.cli("key", "create", kind, "--name", "test")
        found = re.search(r"secret\s+(\S+)", shown)
        assert found, shown
        return found[1]

    def cli(self, *words: str) -> str:
        """The output of one command on the data folder; its failure is the test's."""
        done = self.run_cli(*words)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def run_cli(self, *words: str) -> subprocess.CompletedProcess[str]:
        return run_command(words, self.env, self.folder, timeout_s=120)

    def start(self) -> None:
        """Start it and wait until it answers."""
        log = self.folder / "server.log"
        self.process = Command(("serve",), self.env, self.folder, log, log)
        deadline_s = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline_s:
            if self.process.poll() is not None:
                break
            try:
                if self.ask("GET", "/health").status == 200:
                    return
            except OSError:
                time.sleep(0.02)
        raise AssertionError(f"the server did not start: {self.log()}")

    def kill(self) -> None:
        """End it at once, as a crash would."""
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self) -> None:
        """End it as an operator would."""
        if self.process is None or self.process.poll() is not None:
            return
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.kill()
            raise

    def log(self) -> str:
        path = self.folder / "server.log"
        return path.read_text() if path.exists() else ""

    def ask(
        self, verb: str, path: str, body: Any = None, *, keys: bool = True, headers: dict[str, str] | None = None
    ) -> Answered:
        """One request; a body that is not bytes is sent as JSON."""
        sent = dict(headers or {})
        if keys:
            sent = {"DD-API-KEY": self.api_key, "DD-APPLICATION-KEY": self.app_key} | sent
        raw = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        if raw is not None:
            sent.setdefault("Content-Type", "application/json")
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(verb, path, raw, sent)
            answer = connection.getresponse()
            received = {name.lower(): value for name, value in answer.getheaders()}
            return Answered(answer.status, received, answer.read())
        finally:
            connection.close()

    def __enter__(self) -> Server:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
