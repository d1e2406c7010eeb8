"""Owns the ports: what operations need of engines, stores and clocks. Holds no implementation."""

from __future__ import annotations

from collections.abc import Callable, Mapping as Map, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any, Protocol

from roster.model.access import Key
from roster.model.mapping import Mapping, Version
from roster.model.reference_table import Row, Table, Upload
from roster.model.schema import Entity, Schema
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

    def materialise(self, entity: Entity, plan: Plan) -> None:
        """Keep the profiles of `entity`, joined with their sources as `plan` does, ready to read.

        Only a matter of speed: answers are the same before, during and after.
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


class Tables(Protocol):
    """Keeps the rows of reference tables; every call is one transaction."""

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
        """Fill a new table from a file in parts; none: an empty table.

        `headers` name the columns of a CSV file whose first line does not. A `declared` table takes no
        integer beyond INT32 and no row without a key; another leaves such rows out and counts them.
        Errors: INVALID with line and column; nothing is changed then.
        """
        ...

    def add_columns(self, table: Table) -> None:
        """Give the stored rows the columns that the definition gained; they are empty."""
        ...

    def drop_table(self, id: str) -> None:
        """Remove the rows; an unknown id is no error."""
        ...

    def list_tables(self) -> list[str]:
        """Ids of all tables that hold rows or could."""
        ...

    def count_rows(self, id: str) -> int: ...

    def table_version(self, id: str) -> int:
        """Grows with every change of the rows."""
        ...

    def read_rows(self, table: Table, version: int, after: int, limit: int) -> RowPage:
        """Rows as of `version`. Error: CONFLICT when that version is no longer kept."""
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
