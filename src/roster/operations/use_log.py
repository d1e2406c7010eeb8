"""Owns remembering who names which attribute: counted in memory, written now and then, never while a query waits."""

from __future__ import annotations

from collections.abc import Mapping as Map
from threading import Lock

import structlog

from roster.model.schema import Entity
from roster.model.use import Place, Use, add_up, latest_first
from roster.ports import Clock, Store

log = structlog.get_logger("roster.uses")
PLACES_MAX = 10_000
"""Places counted in memory between two writes; what comes beyond them is not counted."""


class UseLog:
    """Counts uses; safe to call from any thread. What was not written yet is lost by a crash."""

    def __init__(self, store: Store, clock: Clock, keep_ms: int, places_max: int = PLACES_MAX) -> None:
        self._store = store
        self._clock = clock
        self._keep_ms = keep_ms
        self._places_max = places_max
        self._lock = Lock()
        self._pending: dict[Place, tuple[int, int]] = {}
        """Count and last time by place."""
        self._writing = Lock()
        """Held while uses are neither only in memory nor only in the records."""

    def note(self, entity: Entity, named: Map[str, str], operation: str, caller: str, at_ms: int) -> None:
        """Count one query that named attributes (as spelled → id)."""
        if not named:
            return
        with self._lock:
            for spelled, attribute in named.items():
                self._add((entity.value, attribute, spelled, operation, caller), 1, at_ms)

    def _add(self, place: Place, count: int, at_ms: int) -> None:
        known = self._pending.get(place)
        if known is not None:
            self._pending[place] = (known[0] + count, max(known[1], at_ms))
        elif len(self._pending) < self._places_max:
            self._pending[place] = (count, at_ms)

    def flush(self) -> None:
        """Write what was counted. What cannot be written is kept for the next time."""
        with self._writing:
            with self._lock:
                taken, self._pending = self._pending, {}
            if not taken:
                return
            try:
                self._store.add_uses(_uses(taken), self._clock.now_ms() - self._keep_ms)
            except Exception:
                log.exception("uses could not be written, trying again later", places=len(taken))
                with self._lock:
                    for place, (count, last_ms) in taken.items():
                        self._add(place, count, last_ms)

    def list_uses(self, entity: Entity) -> list[Use]:
        """All that is remembered of an entity's attributes, the latest first."""
        with self._writing:
            with self._lock:
                pending = dict(self._pending)
            kept = self._store.list_uses(entity)
        since_ms = self._clock.now_ms() - self._keep_ms
        found = add_up([*kept, *(use for use in _uses(pending) if use.entity is entity)])
        return latest_first(use for use in found if use.last_ms >= since_ms)


def _uses(pending: Map[Place, tuple[int, int]]) -> list[Use]:
    return [
        Use(Entity(entity), attribute, spelled, operation, caller, count, last_ms)
        for (entity, attribute, spelled, operation, caller), (count, last_ms) in pending.items()
    ]
