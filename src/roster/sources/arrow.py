"""Owns writing rows that a library gives, as Arrow batches or plain dicts, to Parquet: counted, limited, digested."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping as Map
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import duckdb
import msgspec

from roster.base.errors import Code, Error
from roster.base.values import digest as digest_of
from roster.ports import Reading
from roster.sources.job import Job, check_size
from roster.sources.parts import one_row
from roster.sources.sql import digest_rows

NAME = "rows.parquet"
REPORT_ROWS = 2_000
encode = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class Written:
    """A Parquet file in the read's folder. `digest`: equal for equal rows in any order; `top`: the largest cursor."""

    names: tuple[str, ...]
    rows: int
    bytes: int
    digest: str
    top: str = ""


def write_batches(
    job: Job,
    schema: Any,
    batches: Iterable[Any],
    make_stream: Callable[[Any, Iterator[Any]], Any],
    *,
    cursor: str = "",
    total: int | None = None,
    marked: bool = False,
) -> Written:
    """Write Arrow batches of one schema; `make_stream` is the library's `RecordBatchReader.from_batches`.

    They pass one at a time: memory does not grow with their number. Errors raised by `batches` come out as they
    are. With `marked`, the source has told a mark of its own, and the rows get no digest.
    """
    caught: list[BaseException] = []
    path = job.folder / NAME
    stream = make_stream(schema, _counted(job, batches, path, total, caught))  # noqa: F841  read by DuckDB, by name
    with duckdb.connect() as connection:
        try:
            connection.execute("COPY (SELECT * FROM stream) TO ? (FORMAT parquet)", [str(path)])
        except duckdb.Error as error:
            if caught:
                raise caught[0] from None
            raise _unwritten(error) from error
        written = _written(connection, path, cursor, marked)
    check_size(job, written.bytes)
    return written


def _counted(
    job: Job, batches: Iterable[Any], path: Path, total: int | None, caught: list[BaseException]
) -> Iterator[Any]:
    """The batches as they pass. Bytes are those of the file: batches share memory, their own sizes say little."""
    rows = 0
    try:
        for batch in batches:
            rows += batch.num_rows
            size = path.stat().st_size if path.exists() else 0
            check_size(job, size)
            job.report(Reading(rows, size, rows_total=total))
            yield batch
    except BaseException as error:
        caught.append(error)
        raise


def _written(connection: duckdb.DuckDBPyConnection, path: Path, cursor: str, marked: bool) -> Written:
    names = [
        str(row[0]) for row in connection.execute("DESCRIBE SELECT * FROM read_parquet(?)", [str(path)]).fetchall()
    ]
    shown = next((name for name in names if name.lower() == cursor.lower()), "")
    if cursor and not shown:
        raise Error(
            Code.INVALID, f"there is no column {cursor!r} to be the cursor", hint=f"columns: {', '.join(names)}"
        )
    columns = ", ".join(f"c{i}" for i in range(len(names)))
    top = f"CAST(max(c{names.index(shown)}) AS VARCHAR)" if shown else "NULL"
    counted = connection.execute(f"SELECT count(*), {top} FROM read_parquet(?) AS rows({columns})", [str(path)])
    rows, highest = one_row(counted)
    digest = ""
    if not marked:
        _, mixed, total = digest_rows([path], len(names))
        digest = f"rows:{rows}:{digest_of([names, str(total), str(mixed)])}"
    return Written((path.name,), rows, path.stat().st_size, digest, highest or "")


def _unwritten(error: duckdb.Error) -> Error:
    if isinstance(error, duckdb.IOException):
        return Error(Code.BUSY, "the rows cannot be written", hint="is there space in the data folder?")
    return Error(Code.INVALID, f"the rows cannot be written: {' '.join(str(error).split())[:200]}")


@dataclass(slots=True)
class Rows:
    """Collects plain rows (text, numbers, booleans, None) in a file, then makes a Parquet file of them.

    `columns`: those known beforehand; others follow as they come. A column's type is what its values have in common.
    """

    job: Job
    columns: dict[str, str] = field(default_factory=dict)
    total: int | None = None
    rows: int = 0
    bytes: int = 0

    def write(self, rows: Iterable[Map[str, Any]], *, cursor: str = "") -> Written:
        """All rows, in Parquet. Errors: TOO_LARGE, BUSY, INVALID."""
        plain = self.job.folder / "rows.ndjson"
        try:
            with plain.open("wb") as file:
                for row in rows:
                    self._learn(row)
                    self._count(file.write(encode(row)) + file.write(b"\n"))
        except OSError as error:
            raise Error(Code.BUSY, f"the rows cannot be written: {error.strerror}") from error
        self.job.report(Reading(self.rows, self.bytes, rows_total=self.total))
        if not self.columns:
            raise Error(Code.INVALID, "the source gave no rows and no columns")
        path = self.job.folder / NAME
        types = {name: kind or "VARCHAR" for name, kind in self.columns.items()}
        with duckdb.connect() as connection:
            reading = "read_json(?, format = 'newline_delimited', columns = ?, maximum_object_size = 134217728)"
            try:
                connection.execute(
                    f"COPY (SELECT * FROM {reading}) TO ? (FORMAT parquet)", [str(plain), types, str(path)]
                )
            except duckdb.Error as error:
                raise _unwritten(error) from error
            plain.unlink()
            return _written(connection, path, cursor, marked=False)

    def _count(self, size: int) -> None:
        self.rows, self.bytes = self.rows + 1, self.bytes + size
        check_size(self.job, self.bytes)
        if self.rows % REPORT_ROWS == 0:
            self.job.report(Reading(self.rows, self.bytes, rows_total=self.total))

    def _learn(self, row: Map[str, Any]) -> None:
        for name, value in row.items():
            before = self.columns.get(name, "")
            match value:
                case None:
                    kind = before
                case bool():
                    kind = "BOOLEAN"
                case int() if -(2**63) <= value < 2**63:
                    kind = "BIGINT"
                case float():
                    kind = "DOUBLE"
                case _:
                    kind = "VARCHAR"
            if name not in self.columns or not before:
                self.columns[name] = kind
            elif kind != before:
                self.columns[name] = "DOUBLE" if {kind, before} == {"BIGINT", "DOUBLE"} else "VARCHAR"
