"""Shared by the tests of sources: users, connections, runs and states as everybody sees them; a proxy, a webhook."""

from __future__ import annotations

import hmac
import json
import os
import socket
import sqlite3
import struct
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from hashlib import sha256
from http.client import HTTPException
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import quote

from servers import Answered, Server, free_port
from services import HOST, Service

WAIT_S = float(os.environ.get("ROSTER_WAIT_S", "60"))
"""How long anything may take before a test gives up."""

READ_PAUSE_S = 0.05
"""Between an answer and the next question of a reader: without it there is little left for what is read during."""
PAUSE_MIN_S, PAUSE_MAX_S = 0.02, 0.25
"""Between two looks: what is waited for needs the processor itself."""

BASE = "/api/v2/product-analytics/users"
CONNECTION = f"{BASE}/mapping/connection"
ENDED = {"done", "unchanged", "failed", "cancelled"}
BUCKETS = ("events", "audience_read", "audience_write", "reference_tables_write")
FIELDS = {"tier": "string", "score": "number"}
"""Columns of the table that most tests read, and the types of the fields over them."""


def settings(folder: Path, **more: str) -> dict[str, str]:
    """Settings of a server that may read this machine, and does not let tests wait."""
    files = folder / "files"
    files.mkdir(exist_ok=True)
    return {
        "source_hosts": json.dumps([HOST]),
        "source_loopback": "true",
        "source_folders": json.dumps([str(files)]),
        "sync_retry_s": "0.2",
        "sync_jitter": "0",
        "snapshot_ttl_s": "1",
        "apply_interval_s": "0.02",
        "rate_limits": json.dumps(dict.fromkeys(BUCKETS, "9999999/minute")),
        **more,
    }


def until(look: Callable[[], Any], what: str = "", pause_max_s: float = PAUSE_MAX_S) -> Any:
    """What `look` gives, as soon as it gives something; looked for less often the longer that takes.

    What is there for a moment only needs a small `pause_max_s`.
    """
    deadline_s, pause_s = time.monotonic() + WAIT_S, PAUSE_MIN_S
    while not (found := look()):
        assert time.monotonic() < deadline_s, f"waited in vain: {what or look}"
        time.sleep(pause_s)
        pause_s = min(pause_s * 1.5, pause_max_s)
    return found


# users and what is served of them


def add_users(server: Server, count: int) -> list[str]:
    """Users `u0`, `u1`, ... by one event each."""
    users = [f"u{n}" for n in range(count)]
    for start in range(0, count, 5000):
        events = [
            {"type": "server", "application": {"id": "shop"}, "event": {"name": "bought", "id": u}, "usr": {"id": u}}
            for u in users[start : start + 5000]
        ]
        assert server.ask("POST", "/api/v2/prodlytics", events).status == 202
    until(lambda: query(server, limit=1, select_columns=["user_id"])["total"] == count, "users")
    return users


def query(server: Server, **attributes: Any) -> dict[str, Any]:
    body = {"data": {"type": "query_users_request", "attributes": {"limit": 10_000, **attributes}}}
    answer = server.ask("POST", f"{BASE}/query", body)
    assert answer.status == 200, answer.body
    found: dict[str, Any] = answer.json()["data"]["attributes"]
    return found


def values(server: Server, *ids: str) -> dict[str, tuple[Any, ...]]:
    """The values of these fields for each user, None for what is absent."""
    hits = query(server, select_columns=["user_id", *(f"@{id}" for id in ids)])["hits"]
    return {hit["user_id"]: tuple(hit.get(f"@{id}") for id in ids) for hit in hits}


# connections, sources and runs


@dataclass(frozen=True)
class Link:
    """A connection of users, named `id`, whose fields are `<id>_<column>`; `table`: the reference table it reads."""

    server: Server
    id: str
    table: str = ""

    @property
    def name(self) -> str:
        """What the source is called."""
        return self.table or f"users/{self.id}"

    def fields(self, columns: Sequence[str] = tuple(FIELDS)) -> list[str]:
        return [f"{self.id}_{column}" for column in columns]

    def served(self, columns: Sequence[str] = tuple(FIELDS)) -> dict[str, tuple[Any, ...]]:
        return values(self.server, *self.fields(columns))

    def ask(self, verb: str, what: str = "", body: Any = None) -> Answered:
        return self.server.ask(verb, f"/api/roster/sources/{quote(self.name, safe='')}{what}", body)

    def source(self) -> dict[str, Any]:
        """The source as the API shows it."""
        answer = self.ask("GET")
        assert answer.status == 200, answer.body
        found: dict[str, Any] = answer.json()["data"]["attributes"]
        return found

    def runs(self) -> list[dict[str, Any]]:
        """All its runs, newest first."""
        answer = self.ask("GET", "/runs?page%5Blimit%5D=1000")
        assert answer.status == 200, answer.body
        return [run["attributes"] for run in answer.json()["data"]]

    def begin(self, **flags: bool) -> str:
        """The id of a run that begins after this call: one under way is waited for."""
        until(lambda: self.source()["running"] is None, f"{self.name} to be idle")
        asked = "&".join(f"{name}=true" for name, on in flags.items() if on)
        answer = self.ask("POST", f"/sync?{asked}")
        assert answer.status == 202, answer.body
        return str(answer.json()["data"]["id"])

    def sync(self, **flags: bool) -> dict[str, Any]:
        """A run from its beginning to its end."""
        return end_run(self.server, self.begin(**flags))

    def wait(self, state: str, reason: str = "") -> dict[str, Any]:
        """The source, once it is in this state, for a reason that says so, at rest."""

        def look() -> dict[str, Any] | None:
            found = self.source()
            right = found["state"] == state and reason in found["reason"] and found["running"] is None
            return found if right else None

        try:
            found: dict[str, Any] = until(look)
        except AssertionError:
            now = self.source()
            raise AssertionError(f"{self.name} is {now['state']}, not {state} {reason!r}: {now}") from None
        return found

    def connect(self, kind: str, metadata: dict[str, str], fields: dict[str, str] | None = None) -> Link:
        """Make the connection, joined on the column `user_id`."""
        fields = FIELDS if fields is None else fields
        shown = [{"id": f"{self.id}_{name}", "source_name": name, "type": type} for name, type in fields.items()]
        attributes = {"type": kind, "join_type": "user_id", "join_attribute": "user_id"}
        own = {} if self.table else {"every": "off"}
        attributes |= {"metadata": {**own, **metadata}, "fields": shown}
        body = {"data": {"type": "connection_id", "id": self.id, "attributes": attributes}}
        answer = self.server.ask("POST", CONNECTION, body)
        assert answer.status == 201, answer.body
        return self

    def remove(self) -> None:
        assert self.server.ask("DELETE", f"{BASE}/mapping/connection/{self.id}").status == 204


def end_run(server: Server, id: str) -> dict[str, Any]:
    """A run, once it has ended; its counters add up."""

    def look() -> dict[str, Any] | None:
        answer = server.ask("GET", f"/api/roster/runs/{id}")
        assert answer.status == 200, answer.body
        found: dict[str, Any] = answer.json()["data"]["attributes"]
        return found if found["phase"] in ENDED else None

    run: dict[str, Any] = until(look, f"run {id} to end")
    check_run(run)
    return run


def check_run(run: dict[str, Any]) -> None:
    """All counters of a run that filled something add up."""
    if run["phase"] != "done":
        return
    rows = run["rows"]
    assert rows["read"] == rows["stored"] + rows["duplicate"] + rows["keyless"], run
    for line in run["coverage"]:
        read, cells, profiles = line["rows"], line["cells"], line["profiles"]
        assert read["read"] == rows["read"] == read["matched"] + read["unmatched"] + read["duplicate"], run
        assert cells["read"] == cells["accepted"] + cells["null"] + cells["quarantined"], run
        assert profiles["all"] == profiles["matched"] + profiles["unmatched"], run


def put_secret(server: Server, name: str, **members: str) -> None:
    body = {"data": {"type": "secret", "attributes": {"members": members}}}
    assert server.ask("PUT", f"/api/roster/secrets/{name}", body).status == 200


def metrics(server: Server, name: str) -> dict[str, float]:
    """The states of a source in /metrics, by state."""
    found = {}
    for line in server.ask("GET", "/metrics").body.decode().splitlines():
        if line.startswith(f'roster_source_state{{source="{name}",state="'):
            state, _, number = line.partition('state="')[2].partition('"} ')
            found[state] = float(number)
    return found


def check_told(link: Link, state: str, reason: str = "") -> str:
    """That every place tells this state, since the same time and for the same reason; gives since when."""
    source = link.wait(state, reason)
    since = str(source["since"])
    assert since
    assert bool(source["reason"]) == (state != "ok"), source
    listed = link.server.ask("GET", f"{BASE}/mapping/connections").json()["data"]["attributes"]["connections"]
    (metadata,) = [c["metadata"] for c in listed if c["id"] == link.id]
    assert metadata["roster_state"] == state, metadata
    assert reason in metadata.get("roster_reason", ""), metadata
    assert metadata["roster_since"], metadata
    told = metrics(link.server, link.name)
    assert {s for s, number in told.items() if number == 1.0} == {state}, told
    assert len(told) == 6
    shown = link.server.ask("GET", "/api/roster/sources").json()["data"]
    assert [s["attributes"]["state"] for s in shown if s["attributes"]["name"] == link.name] == [state]
    return since


# our own records, as they are on disk


def kept_runs(server: Server) -> list[tuple[str, str, str]]:
    """Id, phase and step of all runs, read beside the server."""
    with suppress(sqlite3.OperationalError):
        return _read_records(server, "SELECT id, phase, step FROM sync_runs")
    return []


def readers_of(folder: Path) -> list[int]:
    """Ids of the reading processes that work in a folder."""
    found = []
    for place in Path("/proc").glob("[0-9]*/cwd"):
        with suppress(OSError):
            if place.readlink().is_relative_to(folder):
                found.append(int(place.parent.name))
    return found


def kept_tables(server: Server) -> dict[str, int]:
    """The generation that each table names."""
    return dict(_read_records(server, "SELECT id, generation FROM reference_tables"))


def _read_records(server: Server, sql: str) -> list[Any]:
    path = Path(server.env["ROSTER_DATA"]) / "roster.sqlite"
    connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=10)
    try:
        return connection.execute(sql).fetchall()
    finally:
        connection.close()


def run_folders(server: Server) -> list[str]:
    """What lies in the folder of runs."""
    folder = Path(server.env["ROSTER_DATA"]) / "syncs"
    return sorted(path.name for path in folder.glob("*"))


def check_tidied(server: Server) -> None:
    """That no run leaves its folder: it goes a moment after the end of the run can be seen, for a crash between."""
    until(lambda: run_folders(server) == [], "the folders of runs to go")


def kept_relations(server: Server) -> list[str]:
    """The tables of rows in the engine of a server that is stopped."""
    import duckdb

    path = Path(server.env["ROSTER_DATA"]) / "engine.duckdb"
    with duckdb.connect(str(path), read_only=True) as connection:
        found = connection.execute("SELECT table_name FROM duckdb_tables()").fetchall()
    return sorted(name for (name,) in found if name.startswith(("rows_", "stage_", "fresh_")))


# databases


@dataclass(frozen=True)
class Database:
    """A database server, and the words in which its kind differs from others."""

    service: Service

    @property
    def kind(self) -> str:
        return self.service.kind

    def run(self, statements: str) -> str:
        return self.service.run(statements)

    def make_table(self, name: str, rows: int, columns: str = "tier varchar(40), score double precision") -> None:
        """A table of one row for each user: `tier` is `t0`..`t2`, `score` the user's number."""
        values = ", ".join(f"('u{n}', 't{n % 3}', {n})" for n in range(rows))
        self.run(f"CREATE TABLE {name} (user_id varchar(40), {columns}); INSERT INTO {name} VALUES {values};")

    def make_user(self, name: str, password: str, table: str) -> None:
        """Somebody who may read that table."""
        words = "PASSWORD" if self.kind == "postgres" else "IDENTIFIED BY"
        self.run(f"CREATE USER {self._user(name)} {words} '{password}';")
        self.allow(name, table)

    def allow(self, name: str, table: str) -> None:
        self.run(f"GRANT SELECT ON {table} TO {self._user(name)};")

    def set_password(self, name: str, password: str) -> None:
        words = "PASSWORD" if self.kind == "postgres" else "IDENTIFIED BY"
        self.run(f"ALTER USER {self._user(name)} {words} '{password}';")

    def _user(self, name: str) -> str:
        return name if self.kind == "postgres" else f"{name}@'%'"

    def metadata(self, table: str, secret: str, port: int = 0) -> dict[str, str]:
        """What a connection says to read that table, through a proxy at `port` if there is one."""
        place = {"host": HOST, "port": str(port or self.service.port), "database": "shop"}
        return {**place, "table": table, "secret": secret}


# the network between


class Proxy:
    """Passes bytes to a server of this machine and back; can refuse, cut off or hold what comes from there.

    `limit`: bytes of one connection after which it is cut off with a reset, or held while `holding`.
    """

    def __init__(self, port: int) -> None:
        self.port = free_port()
        self.limit: int | None = None
        self.holding = False
        self.met = threading.Event()
        """Set once a connection has met the limit."""
        self.accepted = 0
        self._target = port
        self._open: set[socket.socket] = set()
        self._listener: socket.socket | None = None
        self.listen()

    def listen(self) -> None:
        self._listener = socket.create_server((HOST, self.port), backlog=50)
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def refuse(self) -> None:
        """As if the server were down: no more connections, and those that are there end."""
        if self._listener is not None:
            with suppress(OSError):
                self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
            self._listener = None
        self.reset()

    def reset(self) -> None:
        for one in list(self._open):
            _reset(one)
        self._open.clear()

    def heal(self) -> None:
        """Let everything pass."""
        self.limit, self.holding = None, False
        self.met.clear()

    def hold(self, limit: int) -> None:
        self.met.clear()
        self.limit, self.holding = limit, True

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
                server = socket.create_connection((HOST, self._target))
            except OSError:
                return
            self.accepted += 1
            self._open |= {client, server}
            threading.Thread(target=self._pass, args=(client, server, False), daemon=True).start()
            threading.Thread(target=self._pass, args=(server, client, True), daemon=True).start()

    def _pass(self, source: socket.socket, target: socket.socket, counted: bool) -> None:
        passed = 0
        with suppress(OSError):
            while data := source.recv(2**14):
                passed += len(data)
                while counted and self.limit is not None and passed >= self.limit:
                    self.met.set()
                    if not self.holding:
                        _reset(target)
                        _reset(source)
                        return
                    time.sleep(0.01)
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)

    def __enter__(self) -> Proxy:
        return self

    def __exit__(self, *_: object) -> None:
        self.heal()
        self.refuse()


def _reset(one: socket.socket) -> None:
    with suppress(OSError):
        one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        one.shutdown(socket.SHUT_RDWR)
    with suppress(OSError):
        one.close()


# who is told


@dataclass
class Receiver:
    """A webhook: keeps what it is told and how it was signed; answers 503 while it is down, or has taken enough."""

    url: str
    secret: str
    is_down: bool = False
    takes: int | None = None
    refused: int = 0
    notices: list[dict[str, Any]] = field(default_factory=list)

    def told(self, name: str) -> list[tuple[str, str]]:
        """The changes of state of one source: before and after."""
        return [(n["before"], n["state"]) for n in list(self.notices) if n["source"] == name]


@contextmanager
def receiving(secret: str) -> Iterator[Receiver]:
    """A webhook of this machine. A wrong signature is answered by 400 and fails the test at its end."""
    wrong: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            wanted = "sha256=" + hmac.new(secret.encode(), body, sha256).hexdigest()
            status = 200
            if not hmac.compare_digest(self.headers.get("x-roster-signature", ""), wanted):
                wrong.append(body.decode())
                status = 400
            elif receiver.is_down or len(receiver.notices) == receiver.takes:
                receiver.refused += 1
                status = 503
            else:
                receiver.notices.append(json.loads(body))
            self.send_response(status)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer((HOST, 0), Handler)
    server.daemon_threads = True
    receiver = Receiver(f"http://{HOST}:{server.server_port}/hook", secret)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    try:
        yield receiver
    finally:
        server.shutdown()
        server.server_close()
        assert wrong == []


# readers


def marked(found: dict[str, tuple[Any, ...]]) -> set[str]:
    """The markers in these values, as text: columns of all types bear them."""
    return {str(value).removesuffix(".0") for row in found.values() for value in row}


class Readers:
    """Threads that ask for the values of all users again and again, and check each answer for mixtures.

    Every row of the source has the same marker in all its columns, so an answer of two generations, of rows or
    of columns, shows in it. A server that is gone is asked again.
    """

    def __init__(self, server: Server, fields: Sequence[str], count: int, threads: int = 2) -> None:
        self.answers = 0
        self.wrong: list[str] = []
        self.seen: set[str] = set()
        self._server, self._fields, self._count = server, list(fields), count
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._work, daemon=True) for _ in range(threads)]

    def _work(self) -> None:
        while not self._stop.is_set():
            try:
                found = values(self._server, *self._fields)
            except (OSError, HTTPException):
                time.sleep(0.02)
                continue
            except AssertionError as error:
                self.wrong.append(f"no answer: {error}")
                time.sleep(0.02)
                continue
            self.answers += 1
            markers = marked(found)
            self.seen |= markers
            if len(markers) != 1 or len(found) != self._count:
                self.wrong.append(f"{len(found)} users with the markers {sorted(map(str, markers))[:9]}")
            self._stop.wait(READ_PAUSE_S)

    def __enter__(self) -> Readers:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(WAIT_S)

    def check(self) -> None:
        """That no answer was a mixture, and that there were answers."""
        assert self.wrong == [], self.wrong[:5]
        assert self.answers
