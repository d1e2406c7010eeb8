"""Owns a real `roster serve` on loopback and the plainest HTTP client there is: what a client costs is no product's."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Mapping as Map
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from bench.measure import Contender

NO_LIMITS = dict.fromkeys(("audience_read", "audience_write", "reference_tables_write", "events"), "1000000/second")
IDLE_MAX_S = 2.0
PEAK = "memory of the server, highest"


@dataclass(frozen=True, slots=True)
class Keys:
    """The secrets of an API key and of an application key."""

    api: str
    application: str


class Wire:
    """One kept-alive connection, opened anew when it lay idle so long that the server may have closed it."""

    def __init__(self, port: int, keys: Keys) -> None:
        self._port = port
        self._keys = keys
        self._socket = self._connect()
        self._used_s = time.monotonic()

    def _connect(self) -> socket.socket:
        made = socket.create_connection(("127.0.0.1", self._port), timeout=120)
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return made

    def pack(self, verb: str, path: str, body: Any = None) -> bytes:
        """A request as it goes over the wire; a body that is not bytes is sent as JSON."""
        raw = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        head = (
            f"{verb} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
            f"DD-API-KEY: {self._keys.api}\r\nDD-APPLICATION-KEY: {self._keys.application}\r\n"
            f"Content-Length: {len(raw)}\r\n\r\n"
        )
        return head.encode() + raw

    def send(self, packed: bytes) -> bytes:
        """The body of the answer; whatever is not a success ends the benchmark."""
        if time.monotonic() - self._used_s > IDLE_MAX_S:
            self._socket.close()
            self._socket = self._connect()
        self._socket.sendall(packed)
        received = bytearray()
        while (end := received.find(b"\r\n\r\n")) < 0:
            received += self._receive()
        head = bytes(received[:end]).decode("latin-1").lower()
        length = next((int(line[15:]) for line in head.split("\r\n") if line.startswith("content-length:")), 0)
        while len(received) < end + 4 + length:
            received += self._receive()
        body = bytes(received[end + 4 :])
        self._used_s = time.monotonic()
        if not head.startswith("http/1.1 2"):
            raise RuntimeError(f"{head.splitlines()[0]}: {body[:500]!r}")
        return body

    def _receive(self) -> bytes:
        part = self._socket.recv(1 << 20)
        if not part:
            raise RuntimeError("the server closed the connection")
        return part

    def ask(self, verb: str, path: str, body: Any = None) -> Any:
        """One request and its answer's JSON, None when it has no body."""
        answered = self.send(self.pack(verb, path, body))
        return json.loads(answered) if answered else None

    def __enter__(self) -> Wire:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()


def _text(path: Path) -> str:
    """What a file says; nothing when it is gone."""
    try:
        return path.read_text()
    except OSError:
        return ""


def _sizes(pid: int) -> dict[str, int]:
    """Bytes by the names of the process's status; none when it is gone."""
    lines = (line.partition(":") for line in _text(Path(f"/proc/{pid}/status")).splitlines())
    return {name: int(rest.split()[0]) * 1024 for name, _, rest in lines if "kB" in rest}


class Server:
    """A server process on a data folder, started on entry and stopped as an operator would on exit."""

    def __init__(self, data: Path, keys: Keys, settings: Map[str, str] | None = None) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        self.data = data
        self._keys = keys
        self._settings = {f"ROSTER_{name.upper()}": text for name, text in (settings or {}).items()}
        self._process: subprocess.Popen[bytes] | None = None

    def spawn(self) -> None:
        """Start the process without waiting for it."""
        env = (
            os.environ
            | {
                "ROSTER_DATA": str(self.data),
                "ROSTER_PORT": str(self.port),
                "ROSTER_RATE_LIMITS": json.dumps(NO_LIMITS),
                "ROSTER_ANSWERS_KEPT": "0",
            }
            | self._settings
        )
        with self._log_path().open("wb") as log:
            self._process = subprocess.Popen([sys.executable, "-m", "roster", "serve"], env=env, stdout=log, stderr=log)

    def wait_open(self) -> None:
        """Return when the port takes connections."""
        assert self._process is not None
        deadline_s = time.monotonic() + 120
        while time.monotonic() < deadline_s and self._process.poll() is None:
            try:
                with self.wire():
                    return
            except ConnectionRefusedError:
                time.sleep(0.001)
        raise RuntimeError(f"the server did not start: {self._log_path().read_text()[-2000:]}")

    def wire(self) -> Wire:
        return Wire(self.port, self._keys)

    def memory_bytes(self) -> tuple[int, int]:
        """Resident memory of the process: all of it, and the part that no file backs."""
        sizes = _sizes(self._pid())
        return sizes["VmRSS"], sizes["RssAnon"]

    def processor_s(self) -> float:
        """Seconds the process has worked so far."""
        fields = _text(Path(f"/proc/{self._pid()}/stat")).rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def forget_peak(self) -> None:
        """Let `peak_bytes` speak of the time from now on."""
        Path(f"/proc/{self._pid()}/clear_refs").write_text("5")

    def peak_bytes(self) -> tuple[int, int]:
        """The most resident memory the process had, and the most its present children had, 0 without any."""
        children = Path(f"/proc/{self._pid()}/task").glob("*/children")
        found = [0]
        for child in (int(pid) for path in children for pid in _text(path).split()):
            found.append(_sizes(child).get("VmHWM", 0))
        return _sizes(self._pid())["VmHWM"], max(found)

    def peak(self) -> Contender:
        """The first of `peak_bytes` as a line of an outcome."""
        return Contender(PEAK, (self.peak_bytes()[0] / 1e6,), "MB")

    def _pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def _log_path(self) -> Path:
        return self.data.parent / "server.log"

    def __enter__(self) -> Server:
        self.spawn()
        self.wait_open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process is not None
        self._process.terminate()
        try:
            self._process.wait(300)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            raise
