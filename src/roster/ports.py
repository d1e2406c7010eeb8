"""Owns the ports: what operations need of engines, stores and clocks. Holds no implementation."""

from __future__ import annotations

from collections.abc import Callable, Mapping as Map, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Any, Protocol

from roster.model.access import Key
from roster.model.mapping import Mapping, Version
from roster.model.reference_table import Row, Table, Upload
from roster.model.schema import Entity, Schema, Type
from roster.model.source import Origin
from roster.model.sync import Fetched, Run, Secret, Sync
from roster.query.plan import Plan


class Clock(Protocol):
    """Where time, ids and secrets come from, so that tests can give them."""

    def now_ms(self) -> int: ...
    def new_id(self) -> str:
        """A fresh UUID in its usual text form."""
        ...

    def new_secret(self) -> str:
        """32 fresh random bytes in hex."""
        ...


class Cancel:
    """Lets one thread end the query another thread runs; cancelling twice, or before the start, is fine."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._stops: list[Callable[[], None]] = []
        self.cancelled = False

    def on_cancel(self, stop: Callable[[], None]) -> None:
        with self._lock:
            self._stops.append(stop)
            if self.cancelled:
                stop()

    def cancel(self) -> None:
        with self._lock:
            self.cancelled = True
            for stop in self._stops:
                stop()


@dataclass(frozen=True, slots=True)
class Budget:
    """What one query may use: seconds of wall time and rows of answer."""

    timeout_s: float
    rows_max: int


@dataclass(frozen=True, slots=True)
class Answer:
    """Rows of one plan, values as plain Python (timestamps as naive UTC datetimes)."""

    schema: Schema
    rows: list[tuple[Any, ...]]


@dataclass(frozen=True, slots=True)
class Explanation:
    """What the engine would do: the plan it settled on, its SQL, the bound values, its own plan."""

    plan: Plan
    sql: str
    parameters: tuple[Any, ...]
    physical: str


class Engine(Protocol):
    """Runs plans. Every run sees one snapshot; queries never wait for writes."""

    def run(self, plans: Sequence[Plan], budget: Budget, cancel: Cancel | None = None) -> list[Answer]:
        """Answers in the order of `plans`, all of one snapshot.

        Errors: TIMEOUT past the budget, BUSY when memory runs out, TOO_LARGE past rows_max.
        """
        ...

    def explain(self, plan: Plan, budget: Budget) -> Explanation: ...

    def materialise(self, entity: Entity, plans: Sequence[Plan]) -> None:
        """Keep the profiles of `entity`, joined with their sources as each plan does, ready to read.

        What was kept for other plans goes. Only a matter of speed: answers are the same before, during and after.
        """
        ...


@dataclass(frozen=True, slots=True)
class Applied:
    """What became of a batch: events stored, events dropped because their identity was already stored."""

    stored: int
    duplicate: int


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a long piece of work is: rows done of rows in all (None while unknown)."""

    stage: str
    done: int
    total: int | None


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


@dataclass(frozen=True, slots=True)
class Loaded:
    """What became of the rows of a table file."""

    rows: int
    duplicates: int
    keyless: int = 0
    """Rows left out because their key is blank."""


@dataclass(frozen=True, slots=True)
class RowPage:
    """Rows in their order of insertion, and where the next page starts (None at the end)."""

    rows: list[Row]
    next_after: int | None


@dataclass(frozen=True, slots=True)
class Merge:
    """How a sync's rows meet the generation before: `before` is that definition, None for a first sync.

    `carried`: columns of the new definition that the files do not have, or not as they should: their
    values are those of the row with the same key before, empty for new rows. `changes_only`: rows that the
    files do not have stay; else they go.
    """

    before: Table | None
    carried: tuple[str, ...] = ()
    changes_only: bool = False


@dataclass(frozen=True, slots=True)
class Staged:
    """What a sync filled: what became of the rows read, how many the generation has, what is held differently.

    `fresh` is a relation of the rows that this sync read and stored, in the shape of the generation: all of
    them, or with `changes_only` those of the files.
    """

    loaded: Loaded
    rows: int
    held: tuple[tuple[str, Type], ...]
    fresh: str


class Tables(Protocol):
    """Keeps the rows of tables in generations; every call is one transaction.

    A generation is read as the relation `relation_of(table)`. Filling one makes nothing visible: it counts
    from the moment on that the definition names it. All but the present one go after a while.
    """

    def inspect_file(self, paths: Sequence[Path], format: str) -> Schema:
        """Column names as written and the narrowest type each column's values all fit."""
        ...

    def create_table(
        self,
        table: Table,
        paths: Sequence[Path],
        format: str,
        headers: Sequence[str] = (),
        *,
        declared: bool = False,
    ) -> Loaded:
        """Fill the generation that `table` names from a file in parts, anew; no paths: it is empty.

        `headers` name the columns of a CSV file whose first line does not. A `declared` table takes no
        integer beyond INT32 and no row without a key; another leaves such rows out and counts them.
        Errors: INVALID with line and column; nothing is changed then.
        """
        ...

    def stage_table(self, table: Table, paths: Sequence[Path], format: str, merge: Merge) -> Staged:
        """Fill the generation that `table` names for a sync, anew, from files and the generation before it.

        Cells that are no value of their column are kept: such a column is held as another type (see
        `Staged.held`). Rows without a key are left out and counted, the last of equal keys counts.
        Errors: INVALID with line and column; nothing is changed then.
        """
        ...

    def add_columns(self, table: Table) -> None:
        """Give the stored rows the columns that the definition gained; they are empty."""
        ...

    def drop_table(self, id: str) -> None:
        """Remove the rows of all generations; an unknown id is no error."""
        ...

    def drop_generations(self, current: Map[str, Sequence[int]], now_ms: int) -> None:
        """Forget generations that are not current (table id -> those to keep) and no page may still read.

        Tables that `current` does not name are left alone.
        """
        ...

    def list_tables(self) -> list[str]:
        """Ids of all tables that hold rows or could."""
        ...

    def count_rows(self, table: Table) -> int:
        """Number of current rows of the present generation. Error: NOT_FOUND."""
        ...

    def table_version(self, table: Table) -> int:
        """Grows with every change of the rows and with every generation. Error: NOT_FOUND."""
        ...

    def read_rows(self, table: Table, version: int, after: int, limit: int) -> RowPage:
        """Rows as of `version`, of whatever generation. Error: CONFLICT when that version is no longer kept."""
        ...

    def find_rows(self, table: Table, ids: Sequence[str]) -> list[Row]:
        """Rows with these primary keys, in the order asked; absent ones left out."""
        ...

    def upsert_rows(self, table: Table, rows: Sequence[Row], now_ms: int) -> None: ...

    def delete_rows(self, table: Table, ids: Sequence[str], now_ms: int) -> int: ...


class Store(Protocol):
    """Our own records. Every call is one transaction; writers take turns."""

    def organisation_id(self) -> str: ...

    def add_key(self, key: Key) -> None: ...
    def find_key(self, hash: str) -> Key | None: ...
    def list_keys(self) -> list[Key]: ...
    def revoke_key(self, id: str, *, who: str, now_ms: int) -> bool: ...

    def read_mapping(self, entity: Entity, version: int | None = None) -> Mapping:
        """The newest mapping, or an older one. Error: NOT_FOUND for a version that never was."""
        ...

    def change_mapping(
        self, entity: Entity, change: Callable[[Mapping], Mapping], *, who: str, why: str, request: Any, now_ms: int
    ) -> Mapping:
        """Apply a pure change to the newest mapping and keep the result as the next version.

        A change that gives an equal mapping makes no version. An Error inside leaves everything as it was.
        """
        ...

    def list_versions(self, entity: Entity) -> list[Version]:
        """Newest first."""
        ...

    def add_upload(self, upload: Upload) -> None: ...
    def find_upload(self, id: str) -> Upload | None: ...

    def add_table(self, table: Table, *, who: str) -> None:
        """Error: CONFLICT when the name is taken."""
        ...

    def find_table(self, id: str) -> Table | None: ...
    def list_tables(self) -> list[Table]: ...
    def update_table(self, table: Table, *, who: str) -> None: ...
    def remove_table(self, id: str, *, who: str, now_ms: int) -> bool: ...

    def swap_table(self, table: Table, sync: Sync, run: Run) -> bool:
        """Name a table's new generation and keep its sync and run, in one step; False when the table is gone.

        Fields that others change meanwhile (description, tags, sync_enabled) stay as they are kept.
        """
        ...

    def read_sync(self, table_id: str) -> Sync | None: ...
    def list_syncs(self) -> list[Sync]: ...
    def write_sync(self, sync: Sync) -> None:
        """Keep where the syncing of a table stands; for a table that is gone it does nothing."""
        ...

    def write_run(self, run: Run) -> bool:
        """Keep a run, new or known; gives whether somebody asked to cancel it."""
        ...

    def find_run(self, id: str) -> Run | None: ...
    def list_runs(self, table_id: str, limit: int) -> list[Run]:
        """Newest first."""
        ...

    def unfinished_runs(self) -> list[Run]:
        """Runs that have not ended, oldest first."""
        ...

    def ask_cancel(self, run_id: str) -> bool:
        """Ask for the end of a run, from any process; False when there is no such run or it has ended."""
        ...

    def forget_runs(self, table_id: str, keep: int) -> None:
        """Remove all but the newest ended runs of a table."""
        ...

    def put_secret(self, secret: Secret) -> None:
        """Keep a secret, new or in place of the one of that name."""
        ...

    def find_secret(self, name: str) -> Secret | None: ...
    def list_secrets(self) -> list[Secret]:
        """By name."""
        ...

    def remove_secret(self, name: str, *, who: str, now_ms: int) -> bool: ...


class Vault(Protocol):
    """Seals credentials under the server's secret. What was sealed for one name opens for no other."""

    def seal(self, name: str, members: Map[str, str]) -> str: ...

    def open(self, name: str, sealed: str) -> dict[str, str]:
        """Error: INTERNAL when the text was sealed for another name, with another key, or changed."""
        ...


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
class Reading:
    """How far a read is; totals are None while unknown."""

    rows: int = 0
    bytes: int = 0
    rows_total: int | None = None
    bytes_total: int | None = None


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
