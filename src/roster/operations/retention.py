"""Owns removing what is too old, by the clock and the setting; how is the engine's matter."""

from __future__ import annotations

from collections.abc import Mapping as Map
from dataclasses import asdict
from threading import Lock

import structlog

from roster.base.time import INSTANT_MS_MAX
from roster.ports import Clock, Events, Forgotten

log = structlog.get_logger("roster.retention")
FIRST_S = 600.0
EVERY_S = 86_400.0
"""Soon after a start, so that a server that is started every day does it too, then once a day."""


class Retention:
    """Removes events and profiles that are older than they may be; counts what went since the start."""

    def __init__(self, events: Events, clock: Clock, keep_days: float) -> None:
        self._events = events
        self._clock = clock
        self._keep_days = keep_days
        self._lock = Lock()
        self._removed = dict.fromkeys(asdict(Forgotten()), 0)

    def run(self) -> None:
        """Remove what is too old now."""
        before_ms = max(self._clock.now_ms() - int(self._keep_days * 86_400_000), -INSTANT_MS_MAX // 5)
        gone = self._events.forget_before(before_ms)
        with self._lock:
            for name, count in asdict(gone).items():
                self._removed[name] += count
        if any(asdict(gone).values()):
            log.info("removed what is too old", days=self._keep_days, **asdict(gone))

    def removed(self) -> Map[str, int]:
        """What went since the start, by kind."""
        with self._lock:
            return dict(self._removed)
