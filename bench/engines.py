"""Owns the engines workload: some analyses through our door, and the same by SQL on PostgreSQL and on chDB.

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
from pathlib import Path
from types import TracebackType
from typing import Any

import duckdb
from tests.services import Service, postgres

from bench.analyses import ANALYSES, CELLS, COLUMNS, FROM_MS, GROUPS, MONDAY_MS, PERSON, TO_MS, WEEK_MS, WEEKS
from bench.measure import Contender, Outcome, alternate, same
from bench.queries import ENRICHED
from bench.reads import HTTP
from bench.server import Keys, Server
from bench.world import DAY_MS

CHDB = "chdb==4.4.0"
ROUNDS_MAX = 5
POSTGRES, CLICKHOUSE = "PostgreSQL", "chDB"
SHARED = {
    "events": f"""SELECT epoch_us(time) AS us, type, view_name AS view, session_id AS session, {PERSON} AS person,
        resolved_user_id AS user_id, event_id AS id FROM events e""",
    "users": f'SELECT user_id, "crm.tier" AS tier FROM {ENRICHED}',
}
"""What both get of our data."""
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

_VIEWS = f"type = 'view' AND us >= {FROM_MS * 1000} AND us < {TO_MS * 1000}"
_DAY = {
    POSTGRES: f"(us - {FROM_MS * 1000}) / {DAY_MS * 1000}",
    CLICKHOUSE: f"intDiv(us - {FROM_MS * 1000}, {DAY_MS * 1000})",
}
_TIERS = f"""SELECT coalesce(u.tier, 'N/A') AS tier, {{value}} AS n FROM {{b}}events e
    LEFT JOIN {{b}}users u ON u.user_id = e.user_id WHERE {_VIEWS} GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT {GROUPS}"""
_WEEK_US = WEEK_MS * 1000
_WEEKS = f"type = 'view' AND us >= {MONDAY_MS * 1000} AND us < {MONDAY_MS * 1000 + WEEKS * _WEEK_US}"
_LINKS = f"""WITH found AS (SELECT session AS k, us, id, view AS v FROM {{b}}events
        WHERE {_VIEWS} AND view IS NOT NULL AND session IS NOT NULL),
    beside AS (SELECT k, us, id, v, {{lag}} AS before FROM found),
    changes AS (SELECT v, row_number() OVER w AS n, {{lead}} AS after FROM beside
        WHERE before IS NULL OR before <> v WINDOW w AS (PARTITION BY k ORDER BY us, id{{all}}))
    SELECT n + 1 AS place, count(*) FROM changes WHERE n <= {COLUMNS + 1} AND after IS NOT NULL GROUP BY 1 ORDER BY 1"""


def _masks(kind: str) -> str:
    """The sizes of the cohorts, then who returns: from a mask of weeks for each person."""
    week = {
        POSTGRES: f"bit_or(1 << ((us - {MONDAY_MS * 1000}) / {_WEEK_US})::int)",
        CLICKHOUSE: f"groupBitOr(bitShiftLeft(toUInt32(1), intDiv(us - {MONDAY_MS * 1000}, {_WEEK_US})))",
    }[kind]
    has = "(m & {0}) > 0" if kind == POSTGRES else "bitAnd(m, {0}) > 0"
    both = [f"{has.format(1 << n)} AND {has.format(1 << k)}" for n, k in CELLS]
    sums = [f"sum(CASE WHEN {one} THEN n ELSE 0 END)" for one in both]
    people = f"SELECT person, {week} AS m FROM {{b}}events WHERE {_WEEKS} AND person IS NOT NULL GROUP BY 1"
    return f"SELECT {', '.join(sums)} FROM (SELECT m, count(*) AS n FROM ({people}) p GROUP BY m) q"


def _links(kind: str) -> str:
    if kind == POSTGRES:
        lag, lead, every = "lag(v) OVER (PARTITION BY k ORDER BY us, id)", "lead(v) OVER w", ""
    else:  # its lag and lead look within a frame, and give an empty text past its end unless a null is asked for
        every = " ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING"
        lag = f"lagInFrame(toNullable(v), 1, NULL) OVER (PARTITION BY k ORDER BY us, id{every})"
        lead = "leadInFrame(toNullable(v), 1, NULL) OVER w"
    return _LINKS.replace("{lag}", lag).replace("{lead}", lead).replace("{all}", every)


ASKED: dict[str, Callable[[str], str]] = {
    "count_plain": lambda kind: f"SELECT count(*) FROM {{b}}events WHERE {_VIEWS}",
    "users_plain": lambda kind: f"SELECT count(DISTINCT user_id) FROM {{b}}events WHERE {_VIEWS}",
    "users_daily_plain": lambda kind: (
        f"SELECT {_DAY[kind]}, count(DISTINCT user_id) FROM {{b}}events WHERE {_VIEWS} GROUP BY 1 ORDER BY 1"
    ),
    "count_group": lambda kind: _TIERS.replace("{value}", "count(*)"),
    "retention_plain": _masks,
    "pathways_session_plain": _links,
}
"""The SQL of each analysis, by kind; `{b}` stands for the database."""


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
        asked = [analysis for analysis in ANALYSES if analysis.name in ASKED]
        by_hand = {a.name: [list(row) for row in ours.execute(a.by_hand[0]).fetchall()] for a in asked}
    paths = {name: str(folder / name) for name in SHARED}
    with ExitStack() as stack:
        psql, chdb = Psql(stack.enter_context(postgres())), stack.enter_context(Chdb(folder / "chdb"))
        psql.ask(MADE[POSTGRES].format(**paths))
        for statement in MADE[CLICKHOUSE].format(**paths).split(";")[:-1]:
            chdb.ask(statement)
        wire = stack.enter_context(stack.enter_context(Server(data, keys)).wire())
        for analysis in asked:
            sql = {kind: ASKED[analysis.name](kind) for kind in (POSTGRES, CLICKHOUSE)}
            for engine, statement in ((psql, sql[POSTGRES]), (chdb, sql[CLICKHOUSE])):
                same(f"engines, {analysis.name}", engine.ask(statement), by_hand[analysis.name])
            packed = wire.pack("POST", analysis.path, analysis.body)
            works: dict[str, Callable[[], object]] = {
                HTTP: lambda packed=packed: wire.send(packed),
                POSTGRES: lambda asked=sql[POSTGRES]: psql.ask(asked),
                CLICKHOUSE: lambda asked=sql[CLICKHOUSE]: chdb.ask(asked),
            }
            samples = alternate(works, min(rounds, ROUNDS_MAX), warm_rounds=1)
            contenders = [
                Contender(name, taken, base=None if name == HTTP else HTTP) for name, taken in samples.items()
            ]
            yield Outcome(f"engines {analysis.name}", analysis.note, tuple(contenders))
