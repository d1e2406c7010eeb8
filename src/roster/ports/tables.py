"""Owns the port of tables: what keeps rows in generations, as a protocol. Holds no implementation."""

from __future__ import annotations

from collections.abc import Mapping as Map, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from roster.model.reference_table import Row, Table
from roster.model.schema import Schema, Type


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
    files do not have stay; else they go. `since_ms`: history is kept, and rows that are new or differ are so
    since then; None when none is kept.
    """

    before: Table | None
    carried: tuple[str, ...] = ()
    changes_only: bool = False
    since_ms: int | None = None


ANEW = Merge(None)
"""Rows that meet nothing and go on from nothing."""


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

    def inspect_file(self, paths: Sequence[Path], format: str, known: Schema = ()) -> Schema:
        """Column names as written and the narrowest type each column's values all fit.

        `known`: columns whose rows stay beside those of the file; no type is narrower than theirs.
        """
        ...

    def create_table(
        self,
        table: Table,
        paths: Sequence[Path],
        format: str,
        headers: Sequence[str] = (),
        *,
        declared: bool = False,
        merge: Merge = ANEW,
    ) -> Loaded:
        """Fill the generation that `table` names from a file in parts, anew; no paths: it is empty.

        `headers` name the columns of a CSV file whose first line does not. A `declared` table takes no
        integer beyond INT32 and no row without a key; another leaves such rows out and counts them. `merge` only
        says what the history of the rows goes on from.
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

    def upsert_rows(self, table: Table, rows: Sequence[Row], now_ms: int, *, history: bool = False) -> None:
        """Update or insert rows by their id; with `history` what they were is kept, as it is once that was begun."""
        ...

    def delete_rows(self, table: Table, ids: Sequence[str], now_ms: int, *, history: bool = False) -> int: ...

    def begin_history(self, table: Table, now_ms: int) -> None:
        """Keep what rows are from now on, unless that is done already. Error: NOT_FOUND."""
        ...

    def end_history(self, table: Table) -> None:
        """Forget what the rows of a table were, and keep no more; one without history is no error. Error: NOT_FOUND."""
        ...

    def has_history(self, table: Table) -> bool:
        """Whether the present generation can be read with all that its rows were, as the relation `spans_of(table)`."""
        ...
