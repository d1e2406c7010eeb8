"""Owns the counters of answered requests. Reads nothing but what it is told."""

from __future__ import annotations

from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Histogram


@dataclass(slots=True)
class Metrics:
    """Counters of one application, so that several can live in one process."""

    registry: CollectorRegistry
    requests: Counter
    seconds: Histogram

    def note(self, operation: str, status: int, seconds: float) -> None:
        """Count one answered request."""
        self.requests.labels(operation, status).inc()
        self.seconds.labels(operation).observe(seconds)


def new_metrics() -> Metrics:
    """All at zero, in a registry of their own."""
    registry = CollectorRegistry()
    labels = ["operation", "status"]
    return Metrics(
        registry,
        Counter("roster_http_requests", "HTTP requests answered", labels, registry=registry),
        Histogram("roster_http_seconds", "Time to answer an HTTP request", ["operation"], registry=registry),
    )
