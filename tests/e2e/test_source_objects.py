"""Objects of a real S3 server, by a source and by a cloud table: first, unchanged, changed, cut, removed, replaced.

`ROSTER_BIG=1` takes objects of 200 MB and prints what they cost; give it a larger ROSTER_WAIT_S then.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import duckdb
import pytest

from e2e.source_world import (
    Link,
    Proxy,
    add_users,
    check_tidied,
    check_told,
    end_run,
    put_secret,
    readers_of,
    settings,
    until,
)
from servers import Server, free_port
from services import HOST
from tables import TABLES

pytestmark = pytest.mark.e2e
pytest.importorskip("moto.server", reason="moto is not installed")

IS_BIG = os.environ.get("ROSTER_BIG") == "1"
SIZE_BYTES = 200_000_000 if IS_BIG else 1_000_000
USERS = 50
BUCKET = "crm-files"
ACCOUNT = "123456789012"
SIGNED = "AWS4-HMAC-SHA256 Credential=TEST/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=00"
"""The test itself is known to the S3 server by its word: it checks no signature, but strangers may not write."""
ROW_BYTES = {"csv": 110, "parquet": 111}
COLUMNS = {"tier": "string", "score": "number"}


@dataclass
class Store:
    """An S3 server, its log of requests, and a proxy in front that can hold and cut."""

    port: int
    log: Path
    proxy: Proxy

    def put(self, key: str, content: bytes) -> None:
        self._ask("PUT", key, content)

    def remove(self, key: str) -> None:
        self._ask("DELETE", key)

    def _ask(self, verb: str, key: str, content: bytes | None = None) -> None:
        connection = HTTPConnection(HOST, self.port, timeout=120)
        headers = {"Authorization": SIGNED}
        connection.request(verb, f"/{BUCKET}/{key}" if key else f"/{BUCKET}", content, headers)
        answer = connection.getresponse()
        assert answer.status in (200, 204), answer.read()
        connection.close()

    def asked(self, key: str) -> dict[str, int]:
        """How often an object was asked for, by verb."""
        found = re.findall(rf'"([A-Z]+) /{BUCKET}/{re.escape(key)}[ ?]', self.log.read_text())
        return {verb: found.count(verb) for verb in ("HEAD", "GET")}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    log, port = tmp_path_factory.mktemp("s3") / "log", free_port()
    command = [sys.executable, "-c", "from moto.server import main; main()", "-H", HOST, "-p", str(port)]
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out)
    try:
        with Proxy(port) as proxy:
            made = Store(port, log, proxy)
            until(lambda: _is_up(made), "the S3 server")
            yield made
    finally:
        process.terminate()
        process.wait(30)


def _is_up(store: Store) -> bool:
    try:
        store._ask("PUT", "")
    except OSError:
        return False
    return True


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, store: Store) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("objects")
    with Server(folder, **settings(folder)) as running:
        add_users(running, USERS)
        keys = {"access_key_id": "AKIAEXAMPLE", "secret_access_key": "example"}
        place = {"endpoint": f"http://{HOST}:{store.proxy.port}", "region": "us-east-1"}
        for name in ("s3", f"aws-{ACCOUNT}"):
            put_secret(running, name, **keys, **place)
        yield running


@dataclass
class Case:
    """One object, and the connection that shows it."""

    store: Store
    link: Link
    key: str
    format: str
    folder: Path
    generation: int = 0
    figures: list[str] = field(default_factory=list)

    def make(self) -> bytes:
        """The object's next generation: every row says its number."""
        self.generation += 1
        path = self.folder / f"made.{self.format}"
        count = SIZE_BYTES // ROW_BYTES[self.format]
        kind = "FORMAT csv, HEADER" if self.format == "csv" else "FORMAT parquet, COMPRESSION uncompressed"
        note = f"md5(i::VARCHAR || 'a{self.generation}') || md5(i::VARCHAR || 'b') || md5(i::VARCHAR || 'c')"
        with duckdb.connect() as connection:
            connection.execute(
                f"""COPY (SELECT 'u' || i AS user_id, 'g{self.generation}' AS tier, {self.generation} AS score,
                {note} AS note FROM range({count}) AS rows(i)) TO '{path}' ({kind})"""
            )
        return path.read_bytes()

    def renew(self) -> bytes:
        content = self.make()
        self.store.put(self.key, content)
        return content

    def served(self) -> set[Any]:
        """The generations that are served; more than one is a mixture."""
        return set(self.link.served(("tier",)).values())

    def is_served(self, generation: int) -> None:
        assert self.served() == {(f"g{generation}",)}
        assert {score for _, score in self.link.served().values()} == {generation}

    def gets(self) -> int:
        return self.store.asked(self.key)["GET"]


def make_case(store: Store, server: Server, folder: Path, kind: str, format: str) -> Case:
    id = f"{kind}_{format}"
    key = f"in/{id}.{format}"
    link = Link(server, id, id if kind == "table" else "")
    return Case(store, link, key, format, folder)


def connect(case: Case, kind: str) -> None:
    if kind == "source":
        case.link.connect("file", {"url": f"s3://{BUCKET}/{case.key}", "secret": "s3"}, COLUMNS)
        return
    columns = {"user_id": "STRING", "tier": "STRING", "score": "INT32"}
    place = {"aws_account_id": ACCOUNT, "aws_bucket_name": BUCKET, "file_path": case.key}
    attributes = {
        "table_name": case.link.table,
        "source": "S3",
        "schema": {"fields": [{"name": n, "type": t} for n, t in columns.items()], "primary_keys": ["user_id"]},
        "file_metadata": {"access_details": {"aws_detail": place}, "sync_enabled": False},
    }
    answer = case.link.server.ask("POST", TABLES, {"data": {"type": "reference_table", "attributes": attributes}})
    assert answer.status == 201, answer.body
    case.link.connect("ref_table", {"table_name": case.link.table}, COLUMNS)


@pytest.mark.parametrize("format", ["csv", "parquet"])
@pytest.mark.parametrize("kind", ["source", "table"])
def test_an_object(store: Store, server: Server, tmp_path: Path, kind: str, format: str) -> None:
    case = make_case(store, server, tmp_path, kind, format)
    content = case.renew()
    with Measured(case, "first", len(content)):
        connect(case, kind)
        check_told(case.link, "ok")
    case.is_served(1)
    assert case.link.source()["rows"] == SIZE_BYTES // ROW_BYTES[format]
    check_unchanged(case)
    with Measured(case, "changed", len(case.renew())):
        assert case.link.sync()["phase"] == "done"
    case.is_served(2)
    check_truncated(case)
    check_removed(case)
    check_replaced(case)
    check_cut_off(case)
    print(f"{kind} {format}, {len(content) / 1e6:.0f} MB: {'; '.join(case.figures)}")


def check_unchanged(case: Case) -> None:
    """It costs a question, and no byte of the object."""
    before = case.store.asked(case.key)
    with Measured(case, "unchanged", 0):
        run = case.link.sync()
    assert (run["phase"], run["bytes"]) == ("unchanged", 0)
    after = case.store.asked(case.key)
    assert (after["GET"], after["HEAD"]) == (before["GET"], before["HEAD"] + 1)
    check_told(case.link, "ok")


def check_truncated(case: Case) -> None:
    content = case.make()
    case.store.put(case.key, content[: len(content) * 2 // 5])
    run = case.link.sync()
    assert run["phase"] == "failed"
    assert run["failure"]["code"] in ("invalid", "conflict")
    check_told(case.link, "failing", "last good sync are served")
    case.is_served(2)
    case.store.put(case.key, content)
    assert case.link.sync()["phase"] == "done"
    check_told(case.link, "ok")
    case.is_served(3)


def check_removed(case: Case) -> None:
    case.store.remove(case.key)
    run = case.link.sync()
    assert (run["phase"], run["failure"]["code"]) == ("failed", "not_found")
    check_told(case.link, "failing", f"there is no object {case.key!r}")
    case.is_served(3)
    case.renew()
    assert case.link.sync()["phase"] == "done"
    check_told(case.link, "ok")
    case.is_served(4)


def check_replaced(case: Case) -> None:
    """What is replaced while it is read comes whole, the old or the new, and the new one in the end."""
    case.renew()
    case.store.proxy.hold(SIZE_BYTES // 3)
    id = case.link.begin()
    assert case.store.proxy.met.wait(60)
    case.renew()
    case.is_served(4)
    case.store.proxy.heal()
    end_run(case.link.server, id)
    assert case.served() in ({("g4",)}, {("g5",)}, {("g6",)})
    until(lambda: case.link.source()["state"] == "ok" and case.link.source()["running"] is None, "it to be read")
    assert case.link.sync()["phase"] in ("done", "unchanged")
    case.is_served(6)


def check_cut_off(case: Case) -> None:
    """A network that breaks in the middle: retried until it holds."""
    case.renew()
    case.store.proxy.limit = SIZE_BYTES // 3
    run = end_run(case.link.server, case.link.begin())
    assert (run["phase"], run["failure"]["code"]) == ("failed", "busy"), run
    case.store.proxy.heal()
    check_told(case.link, "ok")
    case.is_served(7)
    assert case.link.runs()[0]["trigger"] == "retry"
    check_tidied(case.link.server)


# what it costs


class Measured:
    """Notes seconds and the largest memory of the server and of its reading process meanwhile."""

    def __init__(self, case: Case, what: str, size: int) -> None:
        self._case, self._what, self._size = case, what, size
        self._peaks = {"server": 0, "reader": 0}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def _watch(self) -> None:
        server = self._case.link.server
        process = server.process
        assert process is not None
        while not self._stop.wait(0.02):
            self._note("server", process.pid, "VmRSS")
            for pid in readers_of(server.folder / "data"):
                self._note("reader", pid, "VmHWM")

    def _note(self, who: str, pid: int, member: str) -> None:
        with suppress(OSError):
            found = re.search(rf"{member}:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
            self._peaks[who] = max(self._peaks[who], int(found[1]) if found else 0)

    def __enter__(self) -> Measured:
        self._thread.start()
        self._began_s = time.monotonic()
        return self

    def __exit__(self, *_: object) -> None:
        took_s = time.monotonic() - self._began_s
        self._stop.set()
        self._thread.join()
        memory = ", ".join(f"{who} {peak / 1024:.0f} MB" for who, peak in self._peaks.items())
        self._case.figures.append(f"{self._what} {took_s:.1f} s ({memory})")
