"""Owns the counts of the intake since the start: by step, by reason, by track. Reads no clock but the given one."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Mapping as Map
from dataclasses import dataclass, field

from roster.intake.reasons import DROPPED, Reason


@dataclass(slots=True)
class Lap:
    """What one step did: events it saw, events it refused, seconds it took."""

    events: int = 0
    refused: int = 0
    seconds: float = 0.0


@dataclass(slots=True)
class Totals:
    """What became of the events of one track; `received` is the sum of the others."""

    received: int = 0
    accepted: int = 0
    rejected: int = 0
    dropped: int = 0


@dataclass(slots=True)
class Counts:
    """Everything counted, at one moment; reasons by track. `unkept`: rejected events that could not be kept."""

    steps: dict[str, Lap] = field(default_factory=dict)
    reasons: Counter[tuple[str, Reason]] = field(default_factory=Counter)
    tracks: dict[str, Totals] = field(default_factory=dict)
    unkept: int = 0


class Tally:
    """Counts from many threads; `timer` gives seconds of any clock that only grows."""

    def __init__(self, timer: Callable[[], float]) -> None:
        self.timer = timer
        self._turn = threading.Lock()
        self._counts = Counts()

    def add_laps(self, laps: Map[str, Lap]) -> None:
        """Count what the steps did on one batch."""
        with self._turn:
            for name, lap in laps.items():
                total = self._counts.steps.setdefault(name, Lap())
                total.events += lap.events
                total.refused += lap.refused
                total.seconds += lap.seconds

    def add(self, track: str, accepted: int, reasons: Map[Reason, int]) -> None:
        """Count what became of one batch."""
        dropped = sum(number for reason, number in reasons.items() if reason in DROPPED)
        refused = sum(reasons.values())
        with self._turn:
            total = self._counts.tracks.setdefault(track, Totals())
            total.received += accepted + refused
            total.accepted += accepted
            total.dropped += dropped
            total.rejected += refused - dropped
            for reason, number in reasons.items():
                self._counts.reasons[track, reason] += number

    def add_unkept(self, number: int) -> None:
        """Count rejected events that could not be kept."""
        with self._turn:
            self._counts.unkept += number

    def read(self) -> Counts:
        """A copy of all counts of this moment."""
        with self._turn:
            now = self._counts
            return Counts(
                {name: Lap(lap.events, lap.refused, lap.seconds) for name, lap in now.steps.items()},
                now.reasons.copy(),
                {t: Totals(c.received, c.accepted, c.rejected, c.dropped) for t, c in now.tracks.items()},
                now.unkept,
            )
