"""Owns the databases workload: a table of a real PostgreSQL and MariaDB into all profiles, whole and by cursor.

Readers ask beside the syncs by cursor. The servers' programs must be installed.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from tests.services import ADMIN, DATABASE, HOST, PASSWORD, Service

from bench.measure import Contender, Outcome, same
from bench.server import PEAK, Keys, Server
from bench.sources import SERVERS
from bench.sync_readers import against_before, sync_beside
from bench.sync_runs import Samples, Syncing, contenders, take, take_by_cursor, take_steps
from bench.sync_source import CHANGED, COLUMNS, write_table
from bench.world import CONNECTION, MAPPING, Size

ROUNDS_MAX = 3
SECRET = "bench"
KINDS = {
    "postgres": {"string": "text", "number": "float8", "boolean": "boolean", "timestamp": "timestamp"},
    "mysql": {"string": "varchar(200)", "number": "double", "boolean": "tinyint(1)", "timestamp": "datetime"},
}
FILL = {
    "postgres": "COPY people FROM '{path}' (FORMAT csv, NULL '\\N'); CREATE INDEX ON people (changed); ANALYZE people;",
    "mysql": """LOAD DATA INFILE '{path}' INTO TABLE people FIELDS TERMINATED BY ',' OPTIONALLY ENCLOSED BY '"';
        CREATE INDEX changed ON people (changed); ANALYZE TABLE people;""",
}


def run_databases(data: Path, keys: Keys, size: Size, rounds: int) -> Iterator[Outcome]:
    """One outcome for each kind of server."""
    path = data.resolve() / "people.csv"
    write_table(size, path)
    settings = {"source_hosts": json.dumps([HOST]), "source_loopback": "true", "snapshot_ttl_s": "1"}
    with Server(data, keys, settings) as server, server.wire() as wire:
        wire.ask("DELETE", f"{MAPPING}/{CONNECTION}")
        wire.ask("PUT", f"/api/roster/secrets/{SECRET}", _secret())
        for kind, start in SERVERS.items():
            with start() as service:
                service.run(_made(kind))
                service.run(FILL[kind].format(path=path))
                yield _run(Syncing(server, wire), service, size, min(rounds, ROUNDS_MAX))


def _secret() -> dict[str, object]:
    return {"data": {"type": "secret", "attributes": {"members": {"user": ADMIN, "password": PASSWORD}}}}


def _made(kind: str) -> str:
    columns = [f"{name} {KINDS[kind][type]}" for name, type in COLUMNS.items()]
    return f"CREATE TABLE people ({', '.join(columns)}, changed bigint);"


def _run(syncing: Syncing, service: Service, size: Size, rounds: int) -> Outcome:
    samples: Samples = {}
    metadata = {"host": HOST, "port": str(service.port), "database": DATABASE, "table": "people"}
    metadata |= {"secret": SECRET, "cursor": "changed", "sslmode": "disable"}
    first = syncing.connect(service.kind, metadata)
    same(f"databases, rows read of {service.kind}", first.counts()[0], size.rows)
    take(samples, "first sync", first.whole_ms())
    take_steps(samples, "first sync, step", first)
    take(samples, f"first sync, {PEAK}", first.server_mb)
    take(samples, "first sync, memory of the reading process, highest", first.child_mb)
    answers = 0
    for number in range(1, rounds + 1):
        _change(service, size, 2 * number)
        take_by_cursor(samples, syncing.sync("done"))
        _change(service, size, 2 * number + 1)
        answers += sync_beside(syncing, samples)
    syncing.disconnect()
    made = contenders(samples, against_before(samples))
    rate = Contender("first sync, rate", (size.rows / first.whole_ms() * 1000,), "rows/s")
    note = f"{size.rows:,} rows of {len(COLUMNS)} columns into {size.profiles:,} profiles by e-mail; "
    return Outcome(f"databases {service.kind}", note + f"{answers:,} answers, each of one generation", (rate, *made))


def _change(service: Service, size: Size, times: int) -> None:
    """Another score in one of a hundred rows."""
    values = f"score = {100 + times}, changed = {size.rows + times}"
    service.run(f"UPDATE people SET {values} WHERE mod(CAST(contact AS decimal(12)), {CHANGED}) = 8;")
