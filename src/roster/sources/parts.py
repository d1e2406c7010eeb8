"""Owns writing the rows of databases to Parquet files: streams and batches, counted and limited. Knows no database."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import msgspec

from roster.base.errors import Code, Error
from roster.ports import Reading
from roster.sources.job import Job, check_size

MEMORY = "512MB"
GROUP_BYTES = "16MB"
CHUNK_BYTES = 16 * 2**20
OBJECT_BYTES_MIN = 2**20
WATCH_S = 0.2
MAGIC = b"PAR1"
PACKED = "FORMAT parquet, COMPRESSION zstd, COMPRESSION_LEVEL 1"


@dataclass(frozen=True, slots=True)
class Item:
    """One column on its way: `source` gives it in the database's SQL, `target` makes of that, as `{0}`, what is kept.

    `kind` is its type for people and fingerprints.
    """

    name: str
    kind: str
    source: str
    target: str = "{0}"


@dataclass(frozen=True, slots=True)
class Written:
    """Parquet files in the read's folder, in the order of the rows."""

    names: tuple[str, ...]
    rows: int
    bytes: int


def quote(name: str, mark: str = '"') -> str:
    """A name as it stands in SQL, whatever it holds."""
    if "\0" in name:
        raise Error(Code.INVALID, f"{name!r} is no name")
    return mark + name.replace(mark, mark * 2) + mark


def one_row(result: duckdb.DuckDBPyConnection) -> tuple[Any, ...]:
    """The first row of a result that has one."""
    row = result.fetchone()
    assert row is not None
    return tuple(row)


@contextmanager
def open_duck() -> Iterator[duckdb.DuckDBPyConnection]:
    """DuckDB as a tool: small, on its own, without extensions from elsewhere."""
    connection = duckdb.connect(
        config={
            "memory_limit": MEMORY,
            "threads": 1,
            "preserve_insertion_order": False,
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
            "temp_directory": "",
        }
    )
    try:
        connection.execute("SET enable_progress_bar = false")
        yield connection
    finally:
        connection.close()


def trouble(error: duckdb.Error) -> Error:
    """What DuckDB ran into while it wrote rows."""
    text = str(error)
    if "No space left" in text or isinstance(error, duckdb.IOException):
        return Error(Code.BUSY, "the rows cannot be written", hint="is there space in the data folder?")
    if isinstance(error, duckdb.OutOfMemoryException):
        return Error(Code.TOO_LARGE, "some rows are so large that they do not fit into memory")
    return Error(Code.INVALID, f"the rows cannot be taken: {' '.join(text.split())[:300]}")


def write_stream(
    job: Job, duck: duckdb.DuckDBPyConnection, stream: Any, items: Sequence[Item], total: int | None
) -> Written:
    """Write an Arrow stream of c0, c1, ... to Parquet files while it comes. Errors: DuckDB's, TOO_LARGE."""
    folder = job.folder / "parts"
    sql = f"""COPY (SELECT {_targets(items)} FROM stream) TO '{quoted_path(folder)}' ({PACKED},
        ROW_GROUPS_PER_FILE 1, ROW_GROUP_SIZE_BYTES '{GROUP_BYTES}', FILENAME_PATTERN 'part{{i}}')"""
    counted: dict[Path, int] = {}

    def copy(stream: Any) -> int:
        return int(one_row(duck.execute(sql))[0])

    with ThreadPoolExecutor(1) as pool, open_duck() as counter:
        copying = pool.submit(copy, stream)
        while not wait([copying], WATCH_S).done:
            parts = _parts(folder)
            for path in parts:
                if path not in counted and _is_whole(path):
                    counted[path] = one_row(counter.execute("SELECT count(*) FROM read_parquet($1)", [str(path)]))[0]
            size = sum(path.stat().st_size for path in parts)
            job.report(Reading(sum(counted.values()), size, rows_total=total))
            if size > job.limits.bytes_max:
                duck.interrupt()
                break
        parts = _parts(folder)
        check_size(job, sum(path.stat().st_size for path in parts))
        rows = copying.result()
    return _settle_parts(job, _parts(folder), rows)


def _is_whole(path: Path) -> bool:
    """Whether a Parquet file was written to its end; the next one is begun before that."""
    with path.open("rb") as file:
        return file.seek(0, 2) > len(MAGIC) * 3 and file.seek(-len(MAGIC), 2) > 0 and file.read() == MAGIC


def quoted_path(path: Path) -> str:
    """A path of ours within a literal: COPY takes no parameter there together with options."""
    return str(path).replace("'", "''")


def _targets(items: Sequence[Item], given: Callable[[int], str] = lambda i: f"c{i}") -> str:
    return ", ".join(f"{item.target.format(given(i))} AS {quote(item.name)}" for i, item in enumerate(items))


def _parts(folder: Path) -> list[Path]:
    found = folder.glob("part*.parquet") if folder.is_dir() else iter(())
    return sorted(found, key=lambda path: int(path.stem.removeprefix("part")))


def _settle_parts(job: Job, parts: Sequence[Path], rows: int) -> Written:
    """The files where the caller looks for them, named in their order."""
    moved = [path.rename(job.folder / f"part{n:06}.parquet") for n, path in enumerate(parts)]
    shutil.rmtree(job.folder / "parts", ignore_errors=True)
    size = sum(path.stat().st_size for path in moved)
    job.report(Reading(rows, size, rows_total=rows, bytes_total=size))
    return Written(tuple(path.name for path in moved), rows, size)


class Chunks:
    """Rows of texts, numbers and None, given in batches; DuckDB turns one chunk into Parquet while the next comes.

    Every value reaches DuckDB as text, so `Item.target` casts it.
    """

    def __init__(self, job: Job, items: Sequence[Item], total: int | None) -> None:
        self._job, self._items, self._total = job, items, total
        self._folder = job.folder / "parts"
        self._folder.mkdir()
        self._encode = msgspec.json.Encoder().encode_lines
        self._rows = self._size = self._longest = self._number = self._bytes = 0
        self._stack = ExitStack()
        self._duck = self._stack.enter_context(open_duck())
        self._pool = self._stack.enter_context(ThreadPoolExecutor(1))
        self._turning: Future[None] | None = None
        self._lines = self._path("ndjson").open("wb")

    def add(self, rows: Sequence[Sequence[Any]]) -> None:
        """Take some rows. Errors: BUSY (no space), TOO_LARGE, INVALID."""
        text = self._encode(rows)
        try:
            self._lines.write(text)
        except OSError as error:
            raise Error(Code.BUSY, f"the rows cannot be written: {error.strerror}") from error
        self._rows += len(rows)
        self._size += len(text)
        self._longest = max(self._longest, len(text))
        self._job.report(Reading(self._rows, self._bytes, rows_total=self._total))
        if self._size >= CHUNK_BYTES:
            self._turn()

    def finish(self) -> Written:
        """Wait for what is under way. Errors: as `add`."""
        if self._size or not self._number:
            self._turn()
        self._await()
        return _settle_parts(self._job, _parts(self._folder), self._rows)

    def close(self) -> None:
        """Let go of everything, done or not."""
        self._lines.close()
        self._stack.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _path(self, ending: str) -> Path:
        return self._folder / f"part{self._number}.{ending}"

    def _await(self) -> None:
        if self._turning is not None:
            try:
                self._turning.result()
            except duckdb.Error as error:
                raise trouble(error) from error
            self._bytes = sum(path.stat().st_size for path in _parts(self._folder))
            check_size(self._job, self._bytes)

    def _turn(self) -> None:
        try:
            self._lines.close()
        except OSError as error:
            raise Error(Code.BUSY, f"the rows cannot be written: {error.strerror}") from error
        self._await()
        longest = max(self._longest + 1, OBJECT_BYTES_MIN)
        self._turning = self._pool.submit(self._write, self._path("ndjson"), self._path("parquet"), longest)
        self._number += 1
        self._size = self._longest = 0
        self._lines = self._path("ndjson").open("wb")

    def _write(self, lines: Path, parquet: Path, longest: int) -> None:
        self._duck.execute(
            f"""COPY (SELECT {_targets(self._items, lambda i: f"r[{i + 1}]")}
            FROM (SELECT from_json(json, '["VARCHAR"]') AS r FROM read_json_objects('{quoted_path(lines)}',
            format = 'newline_delimited', maximum_object_size = {longest})))
            TO '{quoted_path(parquet)}' ({PACKED})"""
        )
        lines.unlink()
