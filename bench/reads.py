"""Owns running a read workload: the HTTP door, the operation, the engine and two ways by hand, in the same rounds.

The server has a copy of the data folder, everything else the original in this process: only one process
can open a DuckDB file. Rows and totals of all of them are compared before anything is measured.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import duckdb

from bench.measure import Contender, Outcome, alternate, same
from bench.queries import Read, enriched, joined
from bench.server import Wire
from roster.model.schema import Entity
from roster.operations.context import Context, Reply, Request
from roster.operations.keys import LOCAL
from roster.operations.profiles import get_user_facet_info, query_event_filtered_users, query_users, shown
from roster.ports import Answer, Budget, Cancel, Engine, Explanation
from roster.query.plan import Plan

FUNCTIONS: dict[str, Callable[[Context, Request], Reply]] = {
    "query": query_users,
    "facet_info": get_user_facet_info,
    "event_filtered_query": query_event_filtered_users,
}
"""The operation behind the last part of a path."""

HTTP, OPERATION, ENGINE = "HTTP", "operation, in process", "engine.run, in process"
BY_HAND, JOINED = "SQL on the enriched table", "SQL joining the CRM"


class Recorder:
    """An engine that keeps the plans it was given, to run the very same again."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.export = engine.export
        self.plans: tuple[Plan, ...] = ()

    def run(self, plans: Sequence[Plan], budget: Budget, cancel: Cancel | None = None) -> list[Answer]:
        self.plans = tuple(plans)
        return self._engine.run(plans, budget, cancel)

    def explain(self, plans: Sequence[Plan], budget: Budget) -> list[Explanation]:
        return self._engine.explain(plans, budget)

    def materialise(self, entity: Entity, plans: Sequence[Plan]) -> None:
        self._engine.materialise(entity, plans)


def run_read(
    read: Read, context: Context, connection: duckdb.DuckDBPyConnection, wire: Wire, table_id: str, rounds: int
) -> Outcome:
    """One read workload, every way."""
    function = FUNCTIONS[read.path.rsplit("/", 1)[1]]
    request = Request(LOCAL, json.dumps(read.body).encode())
    recorder = Recorder(context.engine)
    function(replace(context, engine=recorder), request)
    plans, budget = recorder.plans, context.limits.budget()
    by_hand, join_by_hand = read.by_hand(enriched()), read.by_hand(joined(table_id))
    packed = wire.pack("POST", read.path, read.body)

    def execute(statements: list[str]) -> list[list[tuple[Any, ...]]]:
        return [connection.execute(sql).fetchall() for sql in statements]

    found = execute(by_hand)
    if not found[0]:
        raise RuntimeError(f"{read.name}: an empty answer compares nothing")
    same(f"{read.name}, joined by hand", execute(join_by_hand), found)
    same(f"{read.name}, engine", [a.rows for a in context.engine.run(plans, budget)], found)
    same(f"{read.name}, HTTP", _rows_of(json.loads(wire.send(packed))), _as_told(found))
    samples = alternate(
        {
            HTTP: lambda: wire.send(packed),
            OPERATION: lambda: function(context, request),
            ENGINE: lambda: context.engine.run(plans, budget),
            BY_HAND: lambda: execute(by_hand),
            JOINED: lambda: execute(join_by_hand),
        },
        rounds,
    )
    note = f"{read.note}; {len(found[0])} equal rows" + (f" of {found[1][0][0]:,}" if len(found) > 1 else "")
    bases = {HTTP: BY_HAND, OPERATION: BY_HAND, ENGINE: BY_HAND, BY_HAND: None, JOINED: BY_HAND}
    return Outcome(read.name, note, tuple(Contender(name, samples[name], base=base) for name, base in bases.items()))


def _rows_of(body: dict[str, Any]) -> list[list[list[Any]]]:
    """Rows, and the total where there is one, of an answer over HTTP."""
    attributes = body["data"]["attributes"]
    if "result" in attributes:
        return [[[v["value"], v["count"]] for v in attributes["result"]["values"]]]
    return [[list(hit.values()) for hit in attributes["hits"]], [[attributes["total"]]]]


def _as_told(found: list[list[tuple[Any, ...]]]) -> list[list[list[Any]]]:
    """Rows found by hand, values as the API writes them."""
    return [[[shown(value) for value in row] for row in rows] for rows in found]
