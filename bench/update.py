"""Owns the update workload: one field of a connection replaced by another of the same id, until a query shows it.

By hand: a view over the enriched table replaced in one transaction, and the same query on it.
"""

from __future__ import annotations

from typing import Any

import duckdb

from bench.measure import WARM_ROUNDS, Contender, Outcome, same, time_ms
from bench.queries import ENRICHED
from bench.server import Wire
from bench.world import CONNECTION, MAPPING, QUERY

FIELD = "bench_field"
SOURCES = ("plan", "tier")
"""Columns the field is read from in turn."""
PUT, SHOWN = "PUT acknowledged", "PUT and the first query that shows it"
REPLACED, SEEN = "view replaced by hand", "view replaced and queried by hand"


def run_update(connection: duckdb.DuckDBPyConnection, wire: Wire, rounds: int) -> Outcome:
    """Alternates with the work by hand round by round; every answer is compared."""
    samples: dict[str, list[float]] = {name: [] for name in (PUT, SHOWN, REPLACED, SEEN)}
    for number in range(-WARM_ROUNDS, rounds):
        taken = _run_round(connection, wire, SOURCES[number % 2])
        if number >= 0:
            for name, taken_ms in zip(samples, taken, strict=True):
                samples[name].append(taken_ms)
    wire.ask("PUT", MAPPING, _body({"fields_to_delete": [FIELD]}))
    connection.execute("DROP VIEW bench_users")
    bases = {PUT: REPLACED, SHOWN: SEEN, REPLACED: None, SEEN: None}
    note = "a field deleted and added under its id with another column; the first query after it had the new values"
    return Outcome("update", note, tuple(Contender(n, tuple(samples[n]), base=base) for n, base in bases.items()))


def _run_round(connection: duckdb.DuckDBPyConnection, wire: Wire, source: str) -> tuple[float, float, float, float]:
    """Milliseconds until acknowledged and until shown, then the same by hand."""
    view_sql = f'CREATE OR REPLACE VIEW bench_users AS SELECT *, "{CONNECTION}.{source}" AS {FIELD} FROM {ENRICHED}'
    page_sql = (
        f"SELECT user_id, {FIELD} FROM bench_users WHERE {FIELD} IS NOT NULL AND last_country_code = 'DE' "
        "ORDER BY user_id LIMIT 25"
    )
    put_ms, _ = time_ms(lambda: wire.ask("PUT", MAPPING, _change(source)))
    shown_ms, shown = time_ms(lambda: _page(wire))
    replaced_ms, _ = time_ms(lambda: connection.execute(view_sql))
    seen_ms, seen = time_ms(lambda: connection.execute(page_sql).fetchall())
    same("update, the first query after it", shown, seen)
    if not seen:
        raise RuntimeError("update: an empty answer compares nothing")
    return put_ms, put_ms + shown_ms, replaced_ms, replaced_ms + seen_ms


def _body(attributes: dict[str, Any]) -> dict[str, Any]:
    return {"data": {"type": "connection_id", "id": CONNECTION, "attributes": attributes}}


def _change(source: str) -> dict[str, Any]:
    field = {"id": FIELD, "source_name": source, "type": "string"}
    return _body({"fields_to_delete": [FIELD], "fields_to_add": [field]})


def _page(wire: Wire) -> list[tuple[Any, ...]]:
    attributes = {
        "query": f"@{FIELD}:* AND last_country_code:DE",
        "select_columns": ["user_id", f"@{FIELD}"],
        "sort": {"field": "user_id", "order": "asc"},
        "limit": 25,
    }
    answer = wire.ask("POST", QUERY, {"data": {"type": "query_users_request", "attributes": attributes}})
    return [tuple(hit.values()) for hit in answer["data"]["attributes"]["hits"]]
