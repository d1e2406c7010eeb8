"""Owns running a read workload: the HTTP door, the operation, the engine and two ways by hand, in the same rounds.

The server has a copy of the data folder, everything else the original in this process: only one process
can open a DuckDB file. Rows and totals of all of them are compared before anything is measured.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from bench.measure import Contender, Outcome, alternate, same
from bench.queries import Read, Source, enriched, joined
from bench.server import Wire
from bench.world import World
from roster.main import Product
from roster.operations.context import Context, Function, Reply, Request
from roster.operations.keys import LOCAL
from roster.operations.profiles import get_user_facet_info, query_event_filtered_users, query_users, shown
from roster.ports import Answer, Budget, Cancel, Engine
from roster.query.plan import Plan

FUNCTIONS = {
    "query": query_users,
    "facet_info": get_user_facet_info,
    "event_filtered_query": query_event_filtered_users,
}
"""The operation behind the last part of a path."""


class _Recorder:
    """An engine that keeps the plans it was given, to run the very same again."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.plans: tuple[Plan, ...] = ()

    def run(self, plans: Sequence[Plan], budget: Budget, cancel: Cancel | None = None) -> list[Answer]:
        self.plans = tuple(plans)
        return self._engine.run(plans, budget, cancel)
