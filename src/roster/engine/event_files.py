"""Owns reading event files into staging: CSV and Parquet in SQL, NDJSON through the steps of the intake.

A declared mapping says which file column becomes which path of an event: `{"usr.id": "user_id"}`, a
hot column's name serving as well as its path; a value that starts with `=` is a constant for every
row: `{"type": "=view"}`. Columns that are not mapped become `context.<column>`. Without `event.id`
an event is identified by the content of its file and the number of its row.
"""

from __future__ import annotations

import glob
import gzip
import hashlib
import tempfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping as Map
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import IO, Any

import duckdb

from roster.base.errors import Code, Error, did_you_mean
from roster.engine.staging import COLUMNS, SPLIT, stage_lines
from roster.intake.event import SECONDS_MAX, TIME_MS_MAX, Place, canonical_lines
from roster.intake.reasons import Reason
from roster.model.schema import EVENT_COLUMNS
from roster.ports import Progress

FORMATS = ("csv", "ndjson", "parquet")
_LINES = 50_000
_HOT = {c.path: c.name for c in EVENT_COLUMNS} | {"timestamp": "time"} | {c.name: c.name for c in EVENT_COLUMNS}
_PATHS = {c.name: tuple(c.path.split(".")) for c in EVENT_COLUMNS}
_IDS = frozenset(c.name for c in EVENT_COLUMNS if c.path.endswith("id"))
_SQL_TYPES = dict(COLUMNS)
_GZIP = b"\x1f\x8b"


@dataclass(frozen=True, slots=True)
class Constant:
    """The same text for every row."""

    text: str


@dataclass(frozen=True, slots=True)
class FileColumn:
    """A column of the file, by its name."""

    name: str


@dataclass(frozen=True, slots=True)
class Layout:
    """A checked mapping: what fills each hot column, and what fills each other path."""

    hot: Map[str, Constant | FileColumn]
    rest: Map[tuple[str, ...], Constant | FileColumn] = field(default_factory=dict)

    def names(self) -> set[str]:
        return {s.name for s in (*self.hot.values(), *self.rest.values()) if isinstance(s, FileColumn)}


def read_layout(columns: Map[str, str]) -> Layout:
    """Check a mapping by itself. Error: INVALID names the path."""
    hot: dict[str, Constant | FileColumn] = {}
    rest: dict[tuple[str, ...], Constant | FileColumn] = {}
    for target, text in columns.items():
        path = target.removeprefix("@")
        source = Constant(text[1:]) if text.startswith("=") else FileColumn(text)
        name = _HOT.get(path)
        keys = tuple(path.split("."))
        if not all(keys) or (name in hot if name else keys in rest):
            raise Error(Code.INVALID, f"the path {target!r} is empty or mapped twice", at=target)
        if name:
            hot[name] = source
        else:
            rest[keys] = source
    _nest((keys, True) for keys in chain((_PATHS[name] for name in hot), rest))
    for name in ("type", "time"):
        if name not in hot:
            path = ".".join(_PATHS[name])
            hint = "map it to a column, or to a constant such as =view" if name == "type" else "map it to a column"
            raise Error(Code.INVALID, f"the mapping does not say what {path} is", at=path, hint=hint)
    return Layout(hot, rest)


def stage_file(
    connection: duckdb.DuckDBPyConnection,
    path: Path,
    format: str,
    columns: Map[str, str],
    report: Callable[[Progress], None],
) -> Map[str, int]:
    """Fill staging from a file; how many events were left out on purpose, by reason.

    Errors: NOT_FOUND; INVALID names the column or the line.
    """
    if format not in FORMATS:
        raise Error(Code.INVALID, f"unknown format {format!r}", hint=f"allowed: {', '.join(FORMATS)}")
    if not path.is_file():
        raise Error(Code.NOT_FOUND, f"there is no file {path}")
    report(Progress("read", 0, None))
    layout = read_layout(columns) if columns or format != "ndjson" else None
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()[:32]
    if format == "ndjson":
        return _stage_ndjson(connection, path, layout, digest, report)
    assert layout is not None
    _stage_table(connection, path, format, layout, digest)
    return _leave_out(connection)


def _stage_ndjson(
    connection: duckdb.DuckDBPyConnection,
    path: Path,
    layout: Layout | None,
    digest: str,
    report: Callable[[Progress], None],
) -> Map[str, int]:
    seen: set[str] = set()
    left_out: Counter[str] = Counter()
    place = _placing(layout, seen) if layout else None
    done = 0
    with _open(path) as lines, tempfile.TemporaryDirectory(prefix="roster-load-") as folder:
        part = Path(folder) / "part.ndjson"
        while chunk := _read_chunk(lines, path):
            filled = [line for line in chunk if line.strip()]
            batch = canonical_lines(filled, spare_key=lambda row: f"{digest}:{row}", first=done, place=place)
            if batch.rejected:
                row, reason = batch.rejected[0].index + 1, batch.rejected[0].text
                raise Error(Code.INVALID, f"event {row} of {path.name}: {reason}")
            left_out.update({reason.value: number for reason, number in batch.dropped.items()})
            if batch.lines:
                part.write_bytes(b"\n".join(batch.lines) + b"\n")
                stage_lines(connection, part, first=done)
            done += len(filled)
            report(Progress("read", done, None))
    for name in sorted(layout.names() - seen if layout and done else ()):
        raise Error(Code.INVALID, f"{path.name} has no column {name!r}", at=name, hint=did_you_mean(name, seen))
    return left_out


def _leave_out(connection: duckdb.DuckDBPyConnection) -> Map[str, int]:
    """What the steps would not take of rows that went past them: see `check_taken`."""
    never = "FROM staging WHERE list_contains($1, type)"
    kinds = [[Reason.SESSION.value, Reason.TELEMETRY.value]]
    found = connection.execute(f"SELECT type, count(*) {never} GROUP BY type", kinds).fetchall()
    if found:
        connection.execute(f"DELETE {never}", kinds)
    return {str(kind): int(count) for kind, count in found}


def _read_chunk(lines: IO[bytes] | gzip.GzipFile, path: Path) -> list[bytes]:
    try:
        return list(islice(lines, _LINES))
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise Error(Code.INVALID, f"{path.name} is a broken gzip file: {error}") from error


def _open(path: Path) -> IO[bytes] | gzip.GzipFile:
    return gzip.open(path) if _is_gzip(path) else path.open("rb")


def _is_gzip(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(2) == _GZIP


def _placing(layout: Layout, seen: set[str]) -> Place:
    """How an object of the file becomes a wire event; the names it meets are added to `seen`."""
    targets = {_PATHS[name]: source for name, source in layout.hot.items()} | dict(layout.rest)
    used = layout.names()

    def place(row: dict[str, Any]) -> dict[str, Any]:
        seen.update(row)
        values = {
            keys: source.text if isinstance(source, Constant) else row.get(source.name)
            for keys, source in targets.items()
        }
        unmapped = ((("context", name), value) for name, value in row.items() if name not in used)
        return _nest((keys, value) for keys, value in chain(values.items(), unmapped) if value is not None)

    return place


def _nest(values: Iterable[tuple[tuple[str, ...], Any]]) -> dict[str, Any]:
    """Objects in objects from paths. Error: INVALID when one path is another's, or runs through its value."""
    tree: dict[str, Any] = {}
    for keys, value in values:
        node = tree
        for key in keys[:-1]:
            node = node.setdefault(key, {})
            if not isinstance(node, dict):
                break
        if not isinstance(node, dict) or keys[-1] in node:
            path = ".".join(keys)
            raise Error(Code.INVALID, f"the path {path} is taken by another column", at=path)
        node[keys[-1]] = value
    return tree


_RELATIONS = {
    "csv": "(SELECT *, row_number() OVER () AS file_row_number FROM read_csv($path, header = true, "
    "all_varchar = true, parallel = false, compression = $compression))",
    "parquet": "read_parquet($path, file_row_number = true)",
}
"""Read by one thread (CSV) or numbered by the reader (Parquet): a row keeps its number every time."""


def _stage_table(connection: duckdb.DuckDBPyConnection, path: Path, format: str, layout: Layout, digest: str) -> None:
    connection.execute("SET TimeZone = 'UTC'")
    parameters = {"path": glob.escape(str(path))}
    if format == "csv":
        parameters["compression"] = "gzip" if _is_gzip(path) else "none"
    relation = _RELATIONS[format]
    described = connection.execute(f"DESCRIBE SELECT * FROM {relation}", parameters).fetchall()
    types = {name: type for name, type, *_ in described if name != "file_row_number"}
    for name in sorted(layout.names() - set(types)):
        raise Error(Code.INVALID, f"{path.name} has no column {name!r}", at=name, hint=did_you_mean(name, types))
    table = _Table(types, parameters)
    columns = {name: table.hot(name, source) for name, source in layout.hot.items()}
    columns["event_id"] = f"coalesce({columns.get('event_id', 'NULL')}, $digest || ':' || file_row_number)"
    parameters["digest"] = digest
    columns["said"] = f"({table.rest(layout)})::JSON"
    if any("JSON" in type for type in types.values()):  # of a key that it has twice the last counts, as it is stored
        columns["said"] += "::VARIANT::JSON"
    connection.execute(
        f"INSERT INTO staging BY NAME {SPLIT} FROM (SELECT file_row_number AS n, false AS fresh, "
        f"{', '.join(f'{sql} AS {_quote(name)}' for name, sql in columns.items())} FROM {relation})",
        parameters,
    )
    for name in ("type", "time"):
        found = connection.execute(f"SELECT count(*), min(n) FILTER ({name} IS NULL), min(n) FROM staging").fetchone()
        if found and found[1] is not None:
            source = layout.hot[name]
            at = source.name if isinstance(source, FileColumn) else source.text
            row = found[1] - found[2] + 1
            hint = "a time is ISO 8601 text or a number of epoch seconds or milliseconds" if name == "time" else ""
            raise Error(Code.INVALID, f"row {row} of {path.name} has no {name} in {at!r}", at=at, hint=hint)


def _quote(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


class _Table:
    """SQL over the columns of one file; texts that are not its column names become parameters."""

    def __init__(self, types: Map[str, str], parameters: dict[str, str]) -> None:
        self._types = types
        self._parameters = parameters

    def _bind(self, text: str) -> str:
        name = f"text{len(self._parameters)}"
        self._parameters[name] = text
        return f"${name}::VARCHAR"

    def _source(self, source: Constant | FileColumn) -> tuple[str, str]:
        """SQL of a source and its type."""
        if isinstance(source, Constant):
            return self._bind(source.text), "VARCHAR"
        return _quote(source.name), self._types[source.name]

    def hot(self, name: str, source: Constant | FileColumn) -> str:
        """The typed value of a hot column, null where the value does not fit."""
        value, type = self._source(source)
        wanted = _SQL_TYPES[name]
        if wanted == "TIMESTAMP":
            return _time(value, type)
        if wanted == "BIGINT":
            return _integer(value)
        text = f"{value}::VARCHAR"
        return f"nullif({text}, '')" if name in _IDS or name == "type" else text

    def rest(self, layout: Layout) -> str:
        """JSON of everything without a column: mapped to other paths, not mapped, or not fitting; nulls left out."""
        values = [(keys, self._json(source)) for keys, source in layout.rest.items()]
        for name, source in layout.hot.items():
            if _SQL_TYPES[name] == "BIGINT":
                value, _ = self._source(source)
                values.append((_PATHS[name], f"CASE WHEN {_integer(value)} IS NULL THEN {value} END"))
        unmapped = (name for name in self._types if name not in layout.names())
        values += [(("context", name), self._json(FileColumn(name))) for name in unmapped]
        return f"json_merge_patch('{{}}', {self._object(_nest(values))})" if values else "NULL"

    def _json(self, source: Constant | FileColumn) -> str:
        value, type = self._source(source)
        return f"strftime({_time(value, type)}, '%Y-%m-%dT%H:%M:%S.%gZ')" if type.startswith("TIMESTAMP") else value

    def _object(self, tree: Map[str, Any]) -> str:
        parts = [
            f"{self._bind(key)}, {self._object(value) if isinstance(value, dict) else value}"
            for key, value in tree.items()
        ]
        return f"json_object({', '.join(parts)})"


def _integer(value: str) -> str:
    text = f"{value}::VARCHAR"
    return f"CASE WHEN TRY_CAST({text} AS DOUBLE) = TRY_CAST({text} AS BIGINT) THEN TRY_CAST({text} AS BIGINT) END"


def _time(value: str, type: str) -> str:
    """As `instant_ms` reads a time, given that the session is in UTC."""
    if type.startswith("TIMESTAMP") or type == "DATE":
        time = f"make_timestamp(epoch_us({value}))"
    else:
        text = f"trim({value}::VARCHAR)"
        number = f"TRY_CAST({text} AS DOUBLE)"
        at_ms = f"CASE WHEN {number} < {SECONDS_MAX} THEN {number} * 1000 ELSE {number} END"
        epoch = f"CASE WHEN {at_ms} <= {TIME_MS_MAX} THEN make_timestamp_ms(floor({at_ms})::BIGINT) END"
        moment = f"make_timestamp(epoch_us(TRY_CAST({text} AS TIMESTAMPTZ)))"
        is_number = f"regexp_full_match({text}, '[0-9]{{1,18}}(\\.[0-9]*)?')"
        time = f"CASE WHEN {is_number} THEN {epoch} ELSE date_trunc('milliseconds', {moment}) END"
    return f"CASE WHEN epoch_ms({time}) BETWEEN 0 AND {TIME_MS_MAX} THEN {time} END"
