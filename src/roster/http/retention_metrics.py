"""Owns what the metrics say of what was removed because it was old. Changes nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping as Map

from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector


class RetentionCollector(Collector):
    """One series for each kind of what is removed."""

    def __init__(self, removed: Callable[[], Map[str, int]]) -> None:
        self._removed = removed

    def collect(self) -> Iterator[Metric]:
        """The counts since the start."""
        made = CounterMetricFamily("roster_retention_removed", "Removed because it was too old", labels=["kind"])
        for kind, count in self._removed().items():
            made.add_metric([kind], float(count))
        yield made
