"""Owns the DuckDB database: opening, limits, one connection per query, one writer at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import RLock

import duckdb

from roster.base.errors import Code, Error


@dataclass(frozen=True, slots=True)
class DuckLimits:
    """Ceilings of the engine. Memory and spill are DuckDB sizes such as `4GB`."""

    memory: str
    threads: int
    spill: str


class Duck:
    """One open database file; closing it ends every connection."""

    def __init__(self, path: Path, limits: DuckLimits) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        config: dict[str, str | bool | int | float | list[str]] = {
            "memory_limit": limits.memory,
            "threads": limits.threads,
            "temp_directory": str(path.with_suffix(".spill")),
            "max_temp_directory_size": limits.spill,
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
            "checkpoint_threshold": "256MB",
            "preserve_insertion_order": False,
            "write_buffer_row_group_count": 1,  # the engine's five cost hundreds of megabytes and save no time
        }
        self.path = path
        try:
            self._root = duckdb.connect(str(path), config=config)
        except duckdb.IOException as error:
            if "lock" not in str(error).lower():
                raise
            raise Error(
                Code.BUSY,
                f"the data folder {path.parent} is in use by another process",
                hint="stop the running server, or use its HTTP API",
            ) from error
        self._writing = RLock()
        self.position = 0
        """Grows with every transaction: what was read at one position is what is read there again."""

    def cursor(self) -> duckdb.DuckDBPyConnection:
        """A connection of its own; close it after use."""
        return self._root.cursor()

    @contextmanager
    def write(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """One transaction with no other writer beside it: committed at the end, undone by any exception."""
        with self._writing:
            connection = self._root.cursor()
            connection.execute("BEGIN")
            try:
                yield connection
                connection.execute("COMMIT")
                self.position += 1
            except BaseException:
                connection.execute("ROLLBACK")
                raise
            finally:
                connection.close()

    def checkpoint(self) -> None:
        """Move the write-ahead log into the file."""
        with self._writing:
            self._root.execute("CHECKPOINT")

    def close(self) -> None:
        self._root.close()
