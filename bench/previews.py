"""Owns the preview workload: what a new connection of all profiles, and an update of one, would do.

By hand: the same joins and counts as statements, on the same file in the same rounds.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import duckdb

from bench.measure import WARM_ROUNDS, Contender, Outcome, same, time_ms
from bench.queries import ENRICHED
from bench.server import Server, Wire
from bench.world import CONNECTION, FIELDS, MAPPING

CREATE, UPDATE = "preview of a new connection", "preview of an update"
CREATE_HAND, UPDATE_HAND = "joined and counted by hand", "counted by hand"
NEW = {f"new_{id}": (id, type) for id, type in FIELDS.items()}
RENAMED, DELETED, ADDED = "tier", "plan", "score_text"


def run_previews(
    connection: duckdb.DuckDBPyConnection, server: Server, wire: Wire, table_id: str, rounds: int
) -> Outcome:
    """Alternates with the work by hand round by round; every count is compared."""
    works: dict[str, Callable[[], list[int]]] = {
        CREATE: lambda: _created(wire),
        CREATE_HAND: lambda: _row(connection, _create_sql(f"table_{table_id.replace('-', '')}_1")),
        UPDATE: lambda: _updated(wire),
        UPDATE_HAND: lambda: _row(connection, _UPDATE_SQL),
    }
    samples: dict[str, list[float]] = {name: [] for name in works}
    server.forget_peak()
    for number in range(-WARM_ROUNDS, rounds):
        taken = {name: time_ms(work) for name, work in works.items()}
        same("preview, a new connection", taken[CREATE][1], taken[CREATE_HAND][1])
        same("preview, an update", taken[UPDATE][1], taken[UPDATE_HAND][1])
        if number >= 0:
            for name, (taken_ms, _) in taken.items():
                samples[name].append(taken_ms)
    bases = {CREATE: CREATE_HAND, UPDATE: UPDATE_HAND}
    made = [Contender(name, tuple(taken), base=bases.get(name)) for name, taken in samples.items()]
    note = "match rates both ways, reasons, cells, and values added, changed and lost of each name; nothing is changed"
    return Outcome("previews", note, (*made, server.peak()))


def _ask(wire: Wire, verb: str, id: str, attributes: dict[str, Any]) -> dict[str, Any]:
    body = {"data": {"type": "connection_id", "id": id, "attributes": attributes}}
    answered: dict[str, Any] = wire.ask(verb, f"{MAPPING}?dry_run=true", body)["data"]["attributes"]
    return answered


def _created(wire: Wire) -> list[int]:
    """Profiles, those matched, rows, those matched, unmatched keys, then values added of each field."""
    attributes = {
        "type": "ref_table",
        "join_type": "email",
        "join_attribute": "email",
        "metadata": {"table_name": CONNECTION},
        "fields": [{"id": id, "source_name": name, "type": type} for id, (name, type) in NEW.items()],
    }
    told = _ask(wire, "POST", "second", attributes)
    (met,) = told["connections"]
    counts = [met["profiles"]["all"], met["profiles"]["matched"], met["rows"]["read"], met["rows"]["matched"]]
    counts.append(sum(reason["rows"] for reason in met["unmatched"]))
    return counts + [line["added"] for line in told["attributes"]]


def _updated(wire: Wire) -> list[int]:
    """Values lost of the deleted field, values added of the renamed and of the new one."""
    attributes = {
        "fields_to_delete": [DELETED],
        "fields_to_update": [{"field_id": RENAMED, "updated_field_id": "level"}],
        "fields_to_add": [{"id": ADDED, "source_name": "lead_score", "type": "string"}],
    }
    lines = {line["name"]: line for line in _ask(wire, "PUT", CONNECTION, attributes)["attributes"]}
    return [lines[DELETED]["lost"], lines["level"]["added"], lines[ADDED]["added"]]


def _row(connection: duckdb.DuckDBPyConnection, sql: str) -> list[int]:
    return [int(number or 0) for number in connection.execute(sql).fetchall()[0]]


def _create_sql(table: str) -> str:
    ours, theirs = "lower(trim(user_email))", "lower(trim(email))"
    last = f"SELECT *, {theirs} AS k FROM {table} WHERE _row IN (SELECT max(_row) FROM {table} GROUP BY {theirs})"
    values = ", ".join(f"count(last.{name}) AS c{i}" for i, (name, _) in enumerate(NEW.values()))
    shown = ", ".join(f"c{i}" for i in range(len(NEW)))
    return f"""
        WITH last AS MATERIALIZED ({last})
        SELECT profiles, matched, rows, keys_matched, keys - keys_matched, {shown}
        FROM (SELECT count(*) AS profiles, count(k) AS matched, {values} FROM users LEFT JOIN last ON k = {ours}),
            (SELECT count(*) AS rows FROM {table}), (SELECT count(*) AS keys FROM last),
            (SELECT count(*) AS keys_matched FROM last WHERE k IN (SELECT {ours} FROM users))"""


_UPDATE_SQL = f"""SELECT count("{CONNECTION}.plan"), count("{CONNECTION}.tier"),
    count(CAST("{CONNECTION}.lead_score" AS VARCHAR)) FROM {ENRICHED}"""
