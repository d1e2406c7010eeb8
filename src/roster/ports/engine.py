"""Owns the ports of engines: what runs plans and keeps events, as protocols. Holds no implementation."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping as Map, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Any, Literal, Protocol

from roster.model.schema import Entity, Schema, Type
from roster.query.plan import Plan


class Cancel:
    """Lets one thread end the query another thread runs; cancelling twice, or before the start, is fine."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._stops: list[Callable[[], None]] = []
        self.cancelled = False
        self.why = ""

    def on_cancel(self, stop: Callable[[], None]) -> None:
        with self._lock:
            self._stops.append(stop)
            if self.cancelled:
                stop()

    def cancel(self, why: str = "") -> None:
        with self._lock:
            self.why = self.why or why
            self.cancelled = True
            for stop in self._stops:
                stop()


@dataclass(frozen=True, slots=True)
class Budget:
    """What one query may use: seconds of wall time, rows of answer, and rows it reads, 0 for any number."""

    timeout_s: float
    rows_max: int
    reads_max: int = 0


FileFormat = Literal["csv", "ndjson", "parquet"]


@dataclass(frozen=True, slots=True)
class Answer:
    """Rows of one plan, values as plain Python (timestamps as naive UTC datetimes)."""

    schema: Schema
    rows: list[tuple[Any, ...]]


@dataclass(frozen=True, slots=True)
class Explanation:
    """What the engine would do: the plan it settled on, its SQL, the bound values, its own plan.

    `reads`: relations, each with the rows there are in the time asked for, as often as the plan reads it.
    `kept_as`: the relation that other plans find its rows in; empty for a plan that was asked for.
    """

    plan: Plan
    sql: str
    parameters: tuple[Any, ...]
    physical: str
    reads: tuple[tuple[str, int], ...]
    kept_as: str = ""


class Engine(Protocol):
    """Runs plans. Every run sees one snapshot; queries never wait for writes."""

    def run(self, plans: Sequence[Plan], budget: Budget, cancel: Cancel | None = None) -> list[Answer]:
        """Answers in the order of `plans`, all of one snapshot.

        Errors: TIMEOUT past the budget, BUSY when memory runs out, TOO_LARGE past rows_max.
        """
        ...

    def explain(self, plans: Sequence[Plan], budget: Budget) -> list[Explanation]:
        """A run stopped before each execution: what the plans compute alike first, then the plans in their order."""
        ...

    def export(self, plan: Plan, format: FileFormat, budget: Budget, cancel: Cancel | None = None) -> Iterator[bytes]:
        """The rows of a plan as the bytes of a file, its columns under their names. Errors: as of `run`, at once."""
        ...

    def materialise(self, entity: Entity, plans: Sequence[Plan]) -> None:
        """Keep the profiles of `entity`, joined with their sources as each plan does, ready to read.

        What was kept for other plans goes. Only a matter of speed: answers are the same before, during and after.
        """
        ...


@dataclass(frozen=True, slots=True)
class Applied:
    """What became of a batch: events stored, events dropped because their identity was already stored.

    `left_out`: events of a file that are never stored, by reason.
    """

    stored: int
    duplicate: int
    left_out: Map[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a long piece of work is: rows done of rows in all (None while unknown)."""

    stage: str
    done: int
    total: int | None


@dataclass(frozen=True, slots=True)
class Erased:
    """What there was of one user: rows by kind, and the texts by which traces of the user are known elsewhere."""

    counts: Map[str, int]
    emails: tuple[str, ...]
    anonymous_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Forgotten:
    """How much was removed because it was old."""

    events: int = 0
    sessions: int = 0
    users: int = 0
    accounts: int = 0


@dataclass(frozen=True, slots=True)
class EventPage:
    """Whole events as they are kept, in the shape they came in, newest first, and the place of the last of them."""

    events: list[dict[str, Any]]
    after: tuple[int, str] | None
    """Time in epoch microseconds and identity; None when no more follow."""


class Events(Protocol):
    """Keeps events and the profiles built from them; every call is one transaction."""

    def apply_segment(self, number: int, path: Path) -> Applied:
        """Store a closed segment of canonical events (NDJSON) and remember its number; twice is once."""
        ...

    def applied_segment(self) -> int:
        """Number of the newest stored segment, 0 for none."""
        ...

    def load_file(self, path: Path, format: str, columns: Map[str, str], report: Callable[[Progress], None]) -> Applied:
        """Store the events of a CSV, NDJSON or Parquet file; `columns` maps event paths to file columns.

        Loading the same file twice stores its events once. Errors: INVALID names the column or line.
        """
        ...

    def rebuild_profiles(self) -> None:
        """Compute all profiles anew from the stored events."""
        ...

    def settle(self, now_ms: int) -> None:
        """Bring the rows of sessions up to the events stored before, and end those that were quiet for too long."""
        ...

    def read_traits(self, entity: Entity) -> Map[str, Type]:
        """Attributes that events give to an entity's profiles, each with the type that fits all values seen."""
        ...

    def erase_user(self, user_id: str, *, dry_run: bool = False) -> Erased:
        """Remove all that is kept of a user and of the anonymous ids that are the user's, in one transaction.

        With `dry_run` it is only counted. A user nobody knows is no error.
        """
        ...

    def forget_before(self, before_ms: int) -> Forgotten:
        """Remove events of before a time, and profiles last seen before it; a transaction for each portion."""
        ...

    def list_links(self, user_id: str) -> dict[str, list[dict[str, Any]]]:
        """The accounts and anonymous ids of a user, under `accounts` and `identities`, with their times."""
        ...

    def list_events(self, user_id: str, *, limit: int, after: tuple[int, str] | None = None) -> EventPage:
        """The events of a user, sessions among them, after a place in the order."""
        ...
