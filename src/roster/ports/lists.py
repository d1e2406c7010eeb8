"""Owns the port of kept lists: keys of profiles as they were at one moment. Holds no implementation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from roster.model.schema import Entity
from roster.ports.engine import Budget, Cancel
from roster.query.plan import Plan


@dataclass(frozen=True, slots=True)
class KeptList:
    """One list: whose keys, since when (epoch ms), how many."""

    id: str
    entity: Entity
    kept_ms: int
    count: int


class Lists(Protocol):
    """Keeps lists of keys, each key once; every call is one transaction. Plans read them as `static_members`."""

    def keep(
        self, id: str, entity: Entity, plan: Plan, at_ms: int, budget: Budget, cancel: Cancel | None = None
    ) -> None:
        """Keep the keys that the first column of a plan gives, in place of those of before. Errors: as of a run."""
        ...

    def keep_keys(self, id: str, entity: Entity, keys: Sequence[str], at_ms: int) -> None:
        """Keep these keys in place of those of before."""
        ...

    def drop(self, *ids: str) -> None:
        """Forget lists; one that is not kept is no error."""
        ...

    def list_lists(self) -> list[KeptList]:
        """All lists, empty ones too, the oldest first."""
        ...
