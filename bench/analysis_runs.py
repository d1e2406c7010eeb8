"""Owns running the workloads over events: the HTTP door, the engine and SQL by hand, in the same rounds.

The answers of the engine and of the SQL are compared before anything is measured.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import duckdb

from bench.analyses import Analysis
from bench.measure import Contender, Outcome, alternate, same
from bench.reads import ENGINE, HTTP, Recorder
from bench.server import Server, Wire
from roster.http.routes import bindings
from roster.operations.context import Context, Request
from roster.operations.keys import LOCAL

BY_HAND = "SQL by hand"


def run_analysis(
    analysis: Analysis,
    context: Context,
    connection: duckdb.DuckDBPyConnection,
    server: Server,
    wire: Wire,
    rounds: int,
) -> Outcome:
    """One workload, every way."""
    operation = next(b.operation for b in bindings() if b.path == analysis.path and b.operation)
    recorder = Recorder(context.engine)
    operation.function(replace(context, engine=recorder), Request(LOCAL, json.dumps(analysis.body).encode()))
    plans, budget = recorder.plans, context.limits.budget()
    packed = wire.pack("POST", analysis.path, analysis.body)

    def execute() -> list[list[tuple[Any, ...]]]:
        return [connection.execute(sql).fetchall() for sql in analysis.by_hand]

    found = execute()
    if not found[0]:
        raise RuntimeError(f"{analysis.name}: an empty answer compares nothing")
    told = analysis.told or list
    same(
        f"{analysis.name}, engine",
        _rounded([told(a.rows) for a in context.engine.run(plans, budget)]),
        _rounded(found),
    )
    server.forget_peak()
    wire.send(packed)
    samples = alternate(
        {HTTP: lambda: wire.send(packed), ENGINE: lambda: context.engine.run(plans, budget), BY_HAND: execute}, rounds
    )
    bases = {HTTP: BY_HAND, ENGINE: BY_HAND, BY_HAND: None}
    contenders = [Contender(name, samples[name], base=base) for name, base in bases.items()]
    contenders.append(server.peak())
    return Outcome(analysis.name, f"{analysis.note}; {len(found[-1])} equal rows", tuple(contenders))


def _rounded(answers: list[list[tuple[Any, ...]]]) -> list[list[tuple[Any, ...]]]:
    """Numbers to nine digits: a mean may be summed in another order."""
    return [[tuple(float(f"{v:.9g}") if isinstance(v, float) else v for v in row) for row in rows] for rows in answers]
