"""Owns what the metrics say of sources, read from our own records at each scrape. Changes nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from roster.model.reference_table import Table
from roster.model.sync import Coverage, State, Sync
from roster.ports import Clock, Store


class SourceCollector(Collector):
    """One set of series for each source that syncs."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    def describe(self) -> list[Metric]:
        """Nothing beforehand: which series there are is known only at a scrape."""
        return []

    def collect(self) -> Iterator[Metric]:
        """The series of this moment."""
        tables = {t.id: t for t in self._store.list_tables()}
        known = [(tables[s.table_id], s) for s in self._store.list_syncs() if s.table_id in tables]
        yield _states(known)
        yield _ages(known, self._clock.now_ms())
        yield _plain(known, "rows", "Rows held", lambda table, _: table.row_count)
        yield _plain(known, "failures", "Runs that failed since the last good one", lambda _, sync: sync.failures)
        yield _coverage(known, "profiles_matched", "Profiles that found a row", lambda c: c.profiles_matched)
        yield _coverage(known, "cells_quarantined", "Cells that are no value of their field", lambda c: c.quarantined)


def _name(table: Table) -> str:
    return table.owner or table.name


def _states(known: list[tuple[Table, Sync]]) -> Metric:
    made = GaugeMetricFamily("roster_source_state", "1 for the state a source is in", labels=["source", "state"])
    for table, sync in known:
        for state in State:
            made.add_metric([_name(table), state.value], float(state is sync.state))
    return made


def _ages(known: list[tuple[Table, Sync]], now_ms: int) -> Metric:
    made = GaugeMetricFamily("roster_source_age_seconds", "Since the last good sync began to count", labels=["source"])
    for table, sync in known:
        if sync.synced_ms is not None:
            made.add_metric([_name(table)], (now_ms - sync.synced_ms) / 1000)
    return made


def _plain(known: list[tuple[Table, Sync]], name: str, meaning: str, value: Callable[[Table, Sync], int]) -> Metric:
    made = GaugeMetricFamily(f"roster_source_{name}", meaning, labels=["source"])
    for table, sync in known:
        made.add_metric([_name(table)], float(value(table, sync)))
    return made


def _coverage(known: list[tuple[Table, Sync]], name: str, meaning: str, value: Callable[[Coverage], int]) -> Metric:
    made = GaugeMetricFamily(f"roster_connection_{name}", meaning, labels=["connection"])
    latest = sorted(known, key=lambda pair: pair[1].synced_ms or 0)  # a connection may have read another table once
    lines = {f"{line.entity}/{line.connection_id}": line for _, sync in latest for line in sync.coverage}
    for name_of_connection, line in lines.items():
        made.add_metric([name_of_connection], float(value(line)))
    return made
