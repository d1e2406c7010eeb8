"""Owns the engines workload: the analyses through our door, and the same by SQL on PostgreSQL and on chDB.

Both get the columns that matter, in their own best form, and nothing else. PostgreSQL's programs must be
installed; chDB comes from the package index, into an environment of its own.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

import duckdb
from tests.services import Service, postgres

from bench.analyses import ANALYSES
from bench.elsewhere import CLICKHOUSE, POSTGRES, SHARED, statement, told
from bench.measure import Contender, Outcome, alternate, same
from bench.reads import HTTP
from bench.server import Keys, Server

CHDB = "chdb==4.4.0"
ROUNDS_MAX = 5
MADE = {
    POSTGRES: """CREATE TABLE events (us bigint, type text, view text, session text, person text, user_id text,
            id text);
        CREATE TABLE users (user_id text PRIMARY KEY, tier text);
        COPY events FROM '{events}.csv' (FORMAT csv); COPY users FROM '{users}.csv' (FORMAT csv);
        CREATE INDEX ON events (us); ANALYZE events; ANALYZE users;""",
    CLICKHOUSE: """CREATE DATABASE IF NOT EXISTS bench ENGINE = Atomic;
        CREATE TABLE bench.events (us Int64, type LowCardinality(String), view LowCardinality(Nullable(String)),
            session Nullable(String), person Nullable(String), user_id Nullable(String), id String)
            ENGINE = MergeTree ORDER BY us AS SELECT * FROM file('{events}.parquet');
        CREATE TABLE bench.users (user_id String, tier Nullable(String)) ENGINE = MergeTree ORDER BY user_id
            AS SELECT * FROM file('{users}.parquet');""",
}
SETTINGS = "SET work_mem = '2GB'; SET max_parallel_workers_per_gather = 2; SET jit = off; "
"""Of PostgreSQL."""


@dataclass(frozen=True, slots=True)
class Psql:
    """PostgreSQL by its own client; starting it is some 20 ms of each answer."""

    service: Service

    def ask(self, sql: str) -> list[list[Any]]:
        printed = self.service.run(SETTINGS + sql.replace("{b}", ""))
        return [list(map(_read, line.split("\t"))) for line in printed.splitlines()]


class Chdb:
    """chDB in a process of its own, on files in a folder."""

    def __init__(self, folder: Path) -> None:
        uv = Path(sys.executable).with_name("uv")
        command = [str(uv), "run", "--no-project", "--with", CHDB, "python", "-c", _CHDB, str(folder)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask(self, sql: str) -> list[list[Any]]:
        assert self._process.stdin and self._process.stdout
        print(json.dumps(sql.replace("{b}", "bench.")), file=self._process.stdin, flush=True)
        answered = json.loads(self._process.stdout.readline() or '{"error": "chDB ended"}')
        if "error" in answered:
            raise RuntimeError(answered["error"])
        return [[_read(str(value)) for value in row] for row in answered["rows"]]

    def __enter__(self) -> Chdb:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait()


_CHDB = """
import json, sys
from chdb import session
chdb = session.Session(sys.argv[1])
for line in sys.stdin:
    try:
        found = str(chdb.query(json.loads(line), "JSONCompactEachRow"))
        answer = {"rows": [json.loads(row) for row in found.splitlines()]}
    except Exception as error:
        answer = {"error": str(error)}
    print(json.dumps(answer), flush=True)
"""


def _read(text: str) -> Any:
    return int(text) if text.lstrip("-").isdecimal() else text


def run_engines(data: Path, keys: Keys, rounds: int) -> Iterator[Outcome]:
    """One outcome for each analysis; both must give the rows that our own are held against, SQL by hand."""
    folder = data.resolve() / "shared"
    folder.mkdir(mode=0o755)
    with duckdb.connect(str(data / "engine.duckdb"), read_only=True) as ours:
        for name, sql in SHARED.items():
            ours.execute(f"COPY ({sql}) TO '{folder / name}.parquet' (FORMAT parquet)")
            ours.execute(f"COPY ({sql}) TO '{folder / name}.csv' (FORMAT csv, HEADER false)")
        by_hand = {a.name: told(a, [ours.execute(sql).fetchall() for sql in a.by_hand]) for a in ANALYSES}
    paths = {name: str(folder / name) for name in SHARED}
    with ExitStack() as stack:
        psql, chdb = Psql(stack.enter_context(postgres())), stack.enter_context(Chdb(folder / "chdb"))
        psql.ask(MADE[POSTGRES].format(**paths))
        for made in MADE[CLICKHOUSE].format(**paths).split(";")[:-1]:
            chdb.ask(made)
        wire = stack.enter_context(stack.enter_context(Server(data, keys)).wire())
        for analysis in ANALYSES:
            ways = {kind: statement(analysis, kind) for kind in (POSTGRES, CLICKHOUSE)}
            for engine, asked in ((psql, ways[POSTGRES]), (chdb, ways[CLICKHOUSE])):
                same(f"engines, {analysis.name}", engine.ask(asked), by_hand[analysis.name])
            packed = wire.pack("POST", analysis.path, analysis.body)
            works: dict[str, Callable[[], object]] = {
                HTTP: partial(wire.send, packed),
                POSTGRES: partial(psql.ask, ways[POSTGRES]),
                CLICKHOUSE: partial(chdb.ask, ways[CLICKHOUSE]),
            }
            samples = alternate(works, min(rounds, ROUNDS_MAX), warm_rounds=1)
            contenders = [
                Contender(name, taken, base=None if name == HTTP else HTTP) for name, taken in samples.items()
            ]
            yield Outcome(f"engines {analysis.name}", analysis.note, tuple(contenders))
