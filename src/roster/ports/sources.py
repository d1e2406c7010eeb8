"""Owns the ports: what reads outside sources and runs work in the background, as protocols. Holds no implementation."""

from __future__ import annotations

from collections.abc import Callable, Mapping as Map
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from roster.model.source import Origin
from roster.model.sync import Fetched
from roster.ports.engine import Cancel


@dataclass(frozen=True, slots=True)
class Wanted:
    """One read of a source: what was read last (`fingerprint`, `cursor`; empty for nothing) and where files go.

    `full`: everything is wanted, even if the source is unchanged or could give changes only.
    """

    origin: Origin
    secret: Map[str, str] = field(repr=False)
    folder: Path
    fingerprint: str = ""
    cursor: str = ""
    full: bool = False


@dataclass(frozen=True, slots=True)
class Reading:
    """How far a read is; totals are None while unknown."""

    rows: int = 0
    bytes: int = 0
    rows_total: int | None = None
    bytes_total: int | None = None


class Sources(Protocol):
    """Reads outside sources, each read in a process of its own."""

    def check(self, origin: Origin) -> None:
        """Whether this source may be read here, told without connecting. Errors: FORBIDDEN, UNSUPPORTED, INVALID."""
        ...

    def fetch(self, wanted: Wanted, report: Callable[[Reading], None], cancel: Cancel) -> Fetched | None:
        """Bring the rows of a source as files into a folder; None when they are what was read last.

        Errors: NOT_FOUND (what it reads is not there), UNAUTHENTICATED, FORBIDDEN (not allowed here), INVALID
        (its content or settings), TOO_LARGE, UNSUPPORTED (an extra is missing), BUSY (unreachable, cut off, no
        space; worth another try), TIMEOUT.
        """
        ...


@dataclass(frozen=True, slots=True)
class Notice:
    """A source that came into another state, `before` empty the first time. Times are epoch milliseconds."""

    source_id: str
    source: str
    state: str
    before: str
    since_ms: int
    reason: str
    connections: tuple[str, ...]
    at_ms: int


@dataclass(frozen=True, slots=True)
class SentMembers:
    """A portion of the members a segment has at a moment, each by the names of columns.

    All portions of one sending bear its id; `place` counts them from 0.
    """

    sending_id: str
    segment_id: str
    segment: str
    version: int
    entity: str
    members: tuple[Map[str, Any], ...]
    place: int
    is_last: bool
    computed_at_ms: int


class Notices(Protocol):
    """Tells somebody outside."""

    def tell(self, notice: Notice | SentMembers) -> None:
        """Returns when it was taken. Error: BUSY when it was not."""
        ...


class Jobs(Protocol):
    """Runs work in the background, now, later or again and again; nothing of it is kept over a restart."""

    def start(self, id: str, work: Callable[[], None], after_s: float = 0.0) -> None:
        """Run once, after a while; a job of that id that has not begun is replaced."""
        ...

    def repeat(self, id: str, work: Callable[[], None], every_s: float, first_s: float, jitter_s: float) -> None:
        """Run every so often, each time up to `jitter_s` later; in place of a schedule of that id."""
        ...

    def cancel(self, id: str) -> None:
        """Forget a job or schedule that has not begun; an unknown id is no error."""
        ...

    def ids(self) -> list[str]:
        """Of what waits to run."""
        ...

    def stop(self) -> None:
        """Let running work end, forget the rest."""
        ...
