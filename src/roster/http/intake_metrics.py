"""Owns what the metrics say of the intake, read from its counts at each scrape. Changes nothing."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

from roster.intake.tally import Tally


class IntakeCollector(Collector):
    """Events by track and outcome, by reason, and by the step they passed."""

    def __init__(self, tally: Tally) -> None:
        self._tally = tally

    def describe(self) -> list[Metric]:
        """Nothing beforehand: which series there are is known only at a scrape."""
        return []

    def collect(self) -> Iterator[Metric]:
        """The series of this moment."""
        counts = self._tally.read()
        events = CounterMetricFamily(
            "roster_intake_events", "Events that came, by outcome", labels=["track", "outcome"]
        )
        for track, totals in counts.tracks.items():
            for outcome in ("accepted", "rejected", "dropped"):
                events.add_metric([track, outcome], getattr(totals, outcome))
        yield events
        reasons = CounterMetricFamily("roster_intake_refused", "Events not taken", labels=["track", "reason"])
        for (track, reason), number in counts.reasons.items():
            reasons.add_metric([track, reason.value], number)
        yield reasons
        passed = CounterMetricFamily("roster_intake_step_events", "Events a step worked on", labels=["step"])
        refused = CounterMetricFamily("roster_intake_step_refused", "Events a step refused", labels=["step"])
        seconds = CounterMetricFamily("roster_intake_step_seconds", "Time a step took", labels=["step"])
        for step, lap in counts.steps.items():
            passed.add_metric([step], lap.events)
            refused.add_metric([step], lap.refused)
            seconds.add_metric([step], lap.seconds)
        yield from (passed, refused, seconds)
        yield CounterMetricFamily("roster_intake_unkept", "Rejected events that could not be kept", value=counts.unkept)
