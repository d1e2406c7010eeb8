"""Owns running plans on DuckDB: rewrite, render, execute within a budget, one snapshot a run."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, BinaryIO

import duckdb

from roster.base.errors import Code, Error
from roster.engine.arrays import read_arrays
from roster.engine.connection import Duck
from roster.engine.enriched import Enriched
from roster.engine.generations import number
from roster.engine.newest import group_newest
from roster.engine.past import spare_search
from roster.model.schema import Entity
from roster.ports import Answer, Budget, Cancel, Explanation, FileFormat
from roster.query.dialect import DUCKDB, table_name
from roster.query.plan import Limit, Plan, schema_of
from roster.query.reads import count_reads
from roster.query.repeats import COMMON, Part, split_common
from roster.query.rewrite import prune, rewrite_all
from roster.query.sql import Rendered, render

INTERRUPT_EVERY_S = 0.02
PORTION_BYTES = 262_144
_OPTIONS: dict[FileFormat, str] = {
    "csv": "FORMAT csv, HEADER true",
    "ndjson": "FORMAT json",
    "parquet": "FORMAT parquet",
}


class DuckEngine:
    """The Engine port on DuckDB. Every run has a connection of its own, so readers never wait for writers."""

    def __init__(self, duck: Duck, enriched: Enriched) -> None:
        self._duck = duck
        self._enriched = enriched
        self._folder = duck.path.with_suffix(".files")
        shutil.rmtree(self._folder, ignore_errors=True)  # what a killed process left
        with duck.write() as connection:
            for statement in DUCKDB.setup:
                connection.execute(statement)

    def run(self, plans: Sequence[Plan], budget: Budget, cancel: Cancel | None = None) -> list[Answer]:
        """Answers in the order of `plans`, all of one snapshot. Errors: see the port."""
        with self._within(budget, cancel) as connection:
            connection.execute("BEGIN TRANSACTION READ ONLY")
            answers = []
            for part in self._admit(connection, plans, budget):
                if part.kept_as:
                    _keep(connection, part)
                else:
                    answers.append(Answer(schema_of(part.plan), _fetch(connection, part.plan, budget)))
            return answers

    @contextmanager
    def _within(self, budget: Budget, cancel: Cancel | None) -> Iterator[duckdb.DuckDBPyConnection]:
        """A connection of its own that is ended when the time is over or the caller leaves."""
        connection = self._duck.cursor()
        ending = _Ending(connection)
        timer = threading.Timer(budget.timeout_s, ending.end, ("expired",))
        timer.start()
        if cancel is not None:
            cancel.on_cancel(ending.end_soon)
        try:
            yield connection
        except duckdb.InterruptException as error:
            raise _interrupted(ending.why, budget) from error
        except duckdb.OutOfMemoryException as error:
            hint = "narrow the query, or raise the setting engine_memory or engine_spill"
            raise Error(Code.BUSY, "the query needs more memory than it may use", hint=hint) from error
        except duckdb.InvalidInputException as error:
            if "perl operator" not in str(error) and "regular expression" not in str(error).lower():
                raise
            raise Error(Code.INVALID, f"a pattern cannot be read: {error}", hint="see the rules of fields") from error
        except duckdb.CatalogException as error:
            raise Error(Code.BUSY, "a source of this query was removed while it ran", hint="try again") from error
        finally:
            timer.cancel()
            ending.close()

    def _admit(self, connection: duckdb.DuckDBPyConnection, plans: Sequence[Plan], budget: Budget) -> list[Part]:
        """The plans as they will run. Error: TOO_LARGE when they read more rows than the budget allows."""
        parts = self._settle(connection, plans)
        if budget.reads_max:
            _refuse_reads([read for part in parts for read in _count_reads(connection, part.plan)], budget)
        return parts

    def _settle(self, connection: duckdb.DuckDBPyConnection, plans: Sequence[Plan]) -> list[Part]:
        """What the plans compute alike, then the plans, as they will run."""
        met = [spare_search(connection, self._enriched.read(connection, plan)) for plan in plans]
        return [replace(part, plan=group_newest(rewrite_all(part.plan))) for part in split_common(met)]

    def explain(self, plans: Sequence[Plan], budget: Budget) -> list[Explanation]:
        """The run of plans stopped just before each execution, with DuckDB's own plan."""
        with self._within(budget, None) as connection:
            return [_explain(connection, part) for part in self._settle(connection, plans)]

    def export(self, plan: Plan, format: FileFormat, budget: Budget, cancel: Cancel | None = None) -> Iterator[bytes]:
        """The rows of a plan as a file; see the port. It is written whole first, so that errors come before bytes."""
        with self.written(plan, format, budget, cancel) as path:
            file = path.open("rb")  # it outlives its name: nothing is left when it is closed
        return _bytes_of(file)

    @contextmanager
    def written(self, plan: Plan, format: FileFormat, budget: Budget, cancel: Cancel | None = None) -> Iterator[Path]:
        """A file of the rows of a plan, which goes with the block. Errors: as of `run`; rows are not limited."""
        self._folder.mkdir(exist_ok=True)
        with TemporaryDirectory(dir=self._folder) as folder:
            path = Path(folder) / "rows"
            target = str(path).replace("'", "''")
            with self._within(budget, cancel) as connection:
                connection.execute("BEGIN TRANSACTION READ ONLY")
                made = _render(connection, self._admit(connection, [plan], budget)[0].plan)
                connection.execute(f"COPY ({made.sql}) TO '{target}' ({_OPTIONS[format]})", list(made.parameters))
            yield path

    def materialise(self, entity: Entity, plans: Sequence[Plan]) -> None:
        """Keep the profiles of `entity`, joined as in each plan, ready to read; see the port."""
        self._enriched.keep(entity, plans)


def _render(connection: duckdb.DuckDBPyConnection, settled: Plan) -> Rendered:
    return render(settled, DUCKDB, cache(lambda: read_arrays(connection)))


def _explain(connection: duckdb.DuckDBPyConnection, part: Part) -> Explanation:
    rendered = _render(connection, part.plan)
    rows = connection.execute("EXPLAIN " + rendered.sql, list(rendered.parameters)).fetchall()
    physical = "\n".join(str(text) for _, text in rows)
    if part.kept_as:
        _keep(connection, replace(part, plan=Limit(part.plan, 0)))
    reads = _count_reads(connection, part.plan)
    return Explanation(part.plan, rendered.sql, rendered.parameters, physical, reads, part.kept_as)


def _keep(connection: duckdb.DuckDBPyConnection, part: Part) -> None:
    """Hold the rows of a settled plan as a relation that goes with the connection."""
    rendered = _render(connection, part.plan)
    connection.execute(f"CREATE TEMP TABLE {table_name(part.kept_as)} AS {rendered.sql}", list(rendered.parameters))


def _fetch(connection: duckdb.DuckDBPyConnection, settled: Plan, budget: Budget) -> list[tuple[Any, ...]]:
    rendered = _render(connection, settled)
    rows: list[tuple[Any, ...]] = connection.execute(rendered.sql, list(rendered.parameters)).fetchmany(
        budget.rows_max + 1
    )
    if len(rows) > budget.rows_max:
        hint = f"at most {budget.rows_max} rows (setting query_rows_max)"
        raise Error(Code.TOO_LARGE, "the answer has too many rows", hint=hint)
    return rows


def _count_reads(connection: duckdb.DuckDBPyConnection, settled: Plan) -> tuple[tuple[str, int], ...]:
    reads = []
    for relation, counted in count_reads(settled):
        if relation.startswith(COMMON):
            continue
        rendered = render(prune(counted), DUCKDB)
        reads.append((relation, number(connection, rendered.sql, *rendered.parameters)))
    return tuple(reads)


def _refuse_reads(reads: Sequence[tuple[str, int]], budget: Budget) -> None:
    """Error: TOO_LARGE."""
    total = sum(rows for _, rows in reads)
    if total > budget.reads_max:
        told = ", ".join(f"{rows:,} of {relation}" for relation, rows in reads)
        hint = f"at most {budget.reads_max:,} rows (setting query_reads_max): ask for less time"
        raise Error(Code.TOO_LARGE, f"the query would read {total:,} rows ({told})", hint=hint)


def _bytes_of(file: BinaryIO) -> Iterator[bytes]:
    with file:
        while portion := file.read(PORTION_BYTES):
            yield portion


class _Ending:
    """Ends what a connection runs, by interrupting again and again: DuckDB forgets one that comes too early."""

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        self._connection = connection
        self._turn = threading.Lock()
        self._closed = threading.Event()
        self.why = ""

    def end(self, why: str) -> None:
        """Interrupt until the connection is closed."""
        self.why = self.why or why
        while not self._closed.is_set():
            with self._turn:
                if not self._closed.is_set():
                    self._connection.interrupt()
            self._closed.wait(INTERRUPT_EVERY_S)

    def end_soon(self) -> None:
        """`end` without waiting for it."""
        threading.Thread(target=self.end, args=("cancelled",), daemon=True).start()

    def close(self) -> None:
        with self._turn:
            self._closed.set()
            self._connection.close()


def _interrupted(why: str, budget: Budget) -> Error:
    if why == "cancelled":
        return Error(Code.TIMEOUT, "the query was cancelled")
    hint = "narrow the query, or raise the setting query_timeout_s"
    return Error(Code.TIMEOUT, f"the query ran longer than {budget.timeout_s:g} s", hint=hint)
