"""Owns the sources workload: a real PostgreSQL and MariaDB read by our readers, beside the bare drivers.

Bare: the same driver fetches the same rows and drops them. Each read is a process of its own, as in the
product. Also a command: `python -m bench.sources [rows] [rounds]`. The servers' programs must be installed.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

from tests.services import ADMIN, DATABASE, HOST, PASSWORD, Service, mariadb, postgres

from bench.measure import Contender, Outcome, same

ROUNDS_MAX = 5
WARM_ROUNDS = 1
SERVERS: dict[str, Callable[[], AbstractContextManager[Service]]] = {"postgres": postgres, "mysql": mariadb}
MEASURES = {"wall": "ms", "CPU": "ms", "peak memory": "MB"}

FILL = {
    "postgres": """CREATE TABLE big AS SELECT i::int8 AS id, 'user' || i || '@example.com' AS email,
        'First' || (i % 1000) AS first_name, 'Last name ' || (i % 7919) AS last_name,
        (ARRAY['free', 'basic', 'pro', 'gold'])[1 + i % 4] AS tier, (i % 100)::int4 AS score,
        (i * 37 % 100000)::int4 AS visits, (i % 10000 / 100.0)::numeric(12,2) AS spend, (i * 0.37)::float8 AS lifetime,
        i % 3 = 0 AS active, i % 7 = 0 AS vip, timestamptz '2020-01-01' + i * interval '1 minute' AS created_at,
        timestamptz '2025-01-01' + i * interval '7 second' AS updated_at, date '1970-01-01' + i % 15000 AS birthday,
        'City ' || (i % 500) AS city, (ARRAY['DE', 'FR', 'US', 'JP', 'BR'])[1 + i % 5] AS country,
        CASE WHEN i % 4 > 0 THEN '+49 30 ' || i END AS phone, 'Company ' || (i % 25000) AS company,
        md5(i::text) AS token,
        CASE WHEN i % 2 > 0 THEN 'A note of some length about customer ' || i END AS note
        FROM generate_series(1, {rows}) AS i; ANALYZE big;""",
    "mysql": """CREATE TABLE big (id bigint PRIMARY KEY, email varchar(200), first_name varchar(100),
        last_name varchar(100), tier varchar(10), score int, visits int, spend decimal(12,2), lifetime double,
        active tinyint(1), vip tinyint(1), created_at datetime, updated_at datetime(6), birthday date, city varchar(50),
        country char(2), phone varchar(30), company varchar(50), token char(32), note text) CHARACTER SET utf8mb4;
        INSERT INTO big SELECT seq, concat('user', seq, '@example.com'), concat('First', seq % 1000),
        concat('Last name ', seq % 7919), elt(1 + seq % 4, 'free', 'basic', 'pro', 'gold'), seq % 100,
        seq * 37 % 100000, seq % 10000 / 100.0, seq * 0.37, seq % 3 = 0, seq % 7 = 0,
        date_add('2020-01-01', interval seq minute), date_add('2025-01-01', interval seq * 7 second),
        date_add('1970-01-01', interval seq % 15000 day), concat('City ', seq % 500),
        elt(1 + seq % 5, 'DE', 'FR', 'US', 'JP', 'BR'), if(seq % 4 > 0, concat('+49 30 ', seq), NULL),
        concat('Company ', seq % 25000), md5(seq),
        if(seq % 2 > 0, concat('A note of some length about customer ', seq), NULL)
        FROM seq_1_to_{rows}; ANALYZE TABLE big;""",
}
"""20 columns of the kinds that customer tables have."""

_MEASURED = """
import json, re, sys, time
kind, options, secret, folder = json.loads(sys.argv[1])
{imports}
wall_s, cpu_s = time.perf_counter(), time.process_time()
{work}
peak = int(re.search(r"VmHWM:\\s+([0-9]+)", open("/proc/self/status").read())[1]) * 1024 / 1e6
print(json.dumps([rows, (time.perf_counter() - wall_s) * 1000, (time.process_time() - cpu_s) * 1000, peak]))
"""
_OURS = _MEASURED.format(
    imports="""
from importlib import import_module
from pathlib import Path
from roster.model.source import Origin
from roster.sources.job import Job, ReadLimits
from roster.sources.policy import Policy
from roster.sources.reader import READERS
read = import_module(READERS[kind]).read
origin = Origin(kind, tuple(sorted(options.items())))
policy = Policy(hosts=(options["host"],), loopback=True)
job = Job(origin, secret, Path(folder), "", "", True, policy, ReadLimits(2**40, 600.0), lambda reading: None)
""",
    work="rows = read(job).rows",
)
_BARE = {
    "postgres": _MEASURED.format(
        imports="""
import duckdb
from adbc_driver_postgresql import dbapi
duck = duckdb.connect(config={"threads": 1})
duck.execute("SET enable_progress_bar = false")
quoted = secret["password"].replace("\\\\", "\\\\\\\\").replace("'", "\\\\'")
address = f"host={options['host']} port={options['port']} dbname={options['database']} user={secret['user']} "
""",
        work="""
with dbapi.connect(address + f"password='{quoted}' sslmode=disable") as connection, connection.cursor() as cursor:
    cursor.execute("SELECT * FROM big")
    stream = cursor.fetch_arrow()
    rows = duck.execute("SELECT count(*) FROM stream").fetchone()[0]
""",
    ),
    "mysql": _MEASURED.format(
        imports="""
import asyncio, asyncmy
from asyncmy.converters import conversions
from asyncmy.cursors import SSCursor
texts = {kind: encode for kind, encode in conversions.items() if not isinstance(kind, int)}
places = dict(host=options["host"], port=int(options["port"]), database=options["database"])
async def fetch():
    count = 0
    async with asyncmy.connect(user=secret["user"], password=secret["password"], conv=texts, **places) as connection:
        async with connection.cursor(SSCursor) as cursor:
            await cursor.execute("SELECT * FROM big")
            while batch := await cursor.fetchmany(2000):
                count += len(batch)
    return count
""",
        work="rows = asyncio.run(fetch())",
    ),
}


def run_sources(rows: int, rounds: int) -> Iterator[Outcome]:
    """One outcome for each kind of server: a full read of `rows` rows of 20 columns into Parquet."""
    for kind, start in SERVERS.items():
        with start() as service:
            service.run(FILL[kind].format(rows=rows))
            yield _run_server(service, rows, min(rounds, ROUNDS_MAX))


def _run_server(service: Service, rows: int, rounds: int) -> Outcome:
    samples: dict[str, list[float]] = {f"{how}, {what}": [] for what in MEASURES for how in ("reader", "bare driver")}
    rates = []
    for number in range(-WARM_ROUNDS, rounds):
        for how, script in (("reader", _OURS), ("bare driver", _BARE[service.kind])):
            count, *taken = _measure(service, script)
            same(f"sources, rows of {service.kind} by the {how}", count, rows)
            if number < 0:
                continue
            for what, value in zip(MEASURES, taken, strict=True):
                samples[f"{how}, {what}"].append(value)
            if how == "reader":
                rates.append(rows / taken[0] * 1000)
    contenders = [Contender("reader, rate", tuple(rates), "rows/s")]
    for what, unit in MEASURES.items():
        bare = f"bare driver, {what}"
        contenders.append(Contender(f"reader, {what}", tuple(samples[f"reader, {what}"]), unit, bare))
        contenders.append(Contender(bare, tuple(samples[bare]), unit))
    note = f"{rows} rows of 20 columns into Parquet, digest included; bare: the driver fetches them and drops them"
    return Outcome(f"sources {service.kind}", note, tuple(contenders))


def _measure(service: Service, script: str) -> list[float]:
    """Rows, ms of wall and CPU, and MB at the peak of a process that runs the script."""
    options = {"host": HOST, "port": str(service.port), "database": DATABASE, "table": "big", "sslmode": "disable"}
    with tempfile.TemporaryDirectory() as folder:
        words = json.dumps([service.kind, options, {"user": ADMIN, "password": PASSWORD}, folder])
        done = subprocess.run(
            [sys.executable, "-c", script, words], capture_output=True, text=True, timeout=3600, check=False
        )
    if done.returncode:
        raise RuntimeError(done.stderr)
    return [float(value) for value in json.loads(done.stdout)]


if __name__ == "__main__":
    from bench.report import table

    row_count, round_count = map(int, (sys.argv[1:] + ["1000000", "3"][len(sys.argv) - 1 :])[:2])
    print(table(list(run_sources(row_count, round_count))))
