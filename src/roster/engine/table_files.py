"""Owns reading table files of any kind as a relation of texts; keeps no rows and knows no table."""

from __future__ import annotations

import csv
import gzip
import json
import shutil
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from io import StringIO
from pathlib import Path
from typing import BinaryIO

import duckdb

from roster.base.errors import Code, Error
from roster.engine.cells import bare, narrowest, narrowness
from roster.model.reference_table import same_headers
from roster.model.schema import Column, Schema, Type

COLUMNS_MAX = 200
RECORD_BYTES_MAX = 16 * 2**20
SAMPLE_CHARACTERS = 2**18
DELIMITERS = ",;\t|"
BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class TextFile:
    """A file as the relation `sql`: `n` (place of the record), then `c0`, `c1`, ... as text, one for each name.

    `types` holds what the file itself says of its columns, None where only the text can tell.
    `strings` holds for each column the SQL of whether a cell is marked as a string.
    `place` names a record for people, given its `n`.
    """

    names: tuple[str, ...]
    sql: str
    parameters: tuple[object, ...]
    types: tuple[Type | None, ...]
    strings: tuple[str, ...]
    place: Callable[[int], str]
    count: int | None = None
    """How many records there must be, where that is known beforehand."""

    def check_count(self, count: int) -> None:
        """Error: INTERNAL when the engine saw another number of records than there are."""
        if self.count not in (None, count):
            raise Error(Code.INTERNAL, f"the file has {self.count} rows, but the engine saw {count}")


@contextmanager
def open_file(
    connection: duckdb.DuckDBPyConnection, paths: Sequence[Path], format: str, headers: Sequence[str], folder: Path
) -> Iterator[TextFile]:
    """A file in parts, ready to read; `folder` is for what must be written meanwhile.

    `headers` name the columns of a CSV file whose first line does not. Errors: INVALID with line.
    """
    openers = {"csv": _open_csv, "ndjson": _open_ndjson, "parquet": _open_parquet}
    if format not in openers:
        raise Error(Code.INVALID, f"unknown file format {format!r}", hint=f"allowed: {', '.join(openers)}")
    path = join_parts(paths, folder / f"whole.{format}")
    try:
        file = openers[format](connection, path, headers)
        if not 0 < len(file.names) <= COLUMNS_MAX:
            raise Error(Code.INVALID, f"the file has {len(file.names)} columns", hint=f"1 to {COLUMNS_MAX} columns")
        yield file
    except (duckdb.InvalidInputException, duckdb.IOException, duckdb.ConversionException) as error:
        raise _unreadable(path, format, error) from error


def join_parts(paths: Sequence[Path], whole: Path) -> Path:
    """One plain file of all parts (a row may be cut anywhere), without byte-order mark; `.gz` parts are unpacked.

    The result has a name of ours: DuckDB takes `[`, `*` and `=` in paths for patterns and partitions.
    """
    for path in paths:
        if not path.is_file():
            raise Error(Code.INVALID, f"there is no file {path.name}")
    if len(paths) == 1 and paths[0].suffix.lower() != ".gz" and not _starts_with_bom(paths[0]):
        whole.symlink_to(paths[0].resolve())
        return whole
    head = b""
    with whole.open("wb") as out:
        for path in paths:
            try:
                with _open_part(path) as part:
                    if len(head) < len(BOM):
                        head += part.read(len(BOM) - len(head))
                        out.write(head.removeprefix(BOM) if len(head) == len(BOM) else b"")
                    shutil.copyfileobj(part, out, 2**20)
            except (EOFError, gzip.BadGzipFile, zlib.error) as error:
                raise Error(Code.INVALID, f"{path.name} is no whole gzip file") from error
        out.write(head if len(head) < len(BOM) else b"")
    return whole


def _starts_with_bom(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(len(BOM)) == BOM


def _open_part(path: Path) -> BinaryIO | gzip.GzipFile:
    return gzip.open(path) if path.suffix.lower() == ".gz" else path.open("rb")


def _open_csv(connection: duckdb.DuckDBPyConnection, path: Path, headers: Sequence[str]) -> TextFile:
    # DuckDB's own reader drops rows after an unclosed quote without a word, and refuses mixed line
    # ends: so the file is read here, and DuckDB gets a plain copy that carries the line numbers.
    plain = path.with_name("plain.csv")
    names, count = rewrite_csv(path, plain, headers)
    columns = ", ".join([*(f"'c{i}': 'VARCHAR'" for i in range(len(names))), "'n': 'BIGINT'"])
    sql = f"""SELECT * FROM read_csv($1, auto_detect=false, header=false, delim=',', quote='"', escape='"',
        new_line='\\n', columns={{{columns}}}, strict_mode=true, parallel=false, hive_partitioning=false,
        max_line_size={RECORD_BYTES_MAX})"""
    width = len(names)
    return TextFile(names, sql, (str(plain),), (None,) * width, ("FALSE",) * width, lambda n: f"line {n}", count)


def rewrite_csv(path: Path, plain: Path, headers: Sequence[str] = ()) -> tuple[tuple[str, ...], int]:
    """Copy a CSV file in any dialect into a plain one, each row with its line number at the end.

    Gives the names of the columns and the number of rows. Errors: INVALID naming the line.
    """
    with path.open(encoding="utf-8", newline="") as text, plain.open("w", encoding="utf-8", newline="") as out:
        reader = csv.reader(text, delimiter=find_delimiter(path), strict=True)
        records = _records(reader, path)
        first = next(records, None)
        if first is None:
            raise Error(Code.INVALID, "the file is empty", hint="the first line names the columns")
        names = first[:-1]
        counter = csv.writer(out, quoting=csv.QUOTE_ALL, lineterminator="\n")
        count = 0
        if headers and not same_headers(names, headers):
            names = list(headers)
            _check_width(first, len(names))
            counter.writerow(first)
            count = 1

        def rows() -> Iterator[list[str]]:
            nonlocal count
            width = len(names) + 1
            for row in records:
                if len(row) != width:
                    _check_width(row, width - 1)
                count += 1
                yield row

        counter.writerows(rows())
    return tuple(names), count


def _records(reader: Iterator[list[str]], path: Path) -> Iterator[list[str]]:
    """Records that are no blank line, each with the number of its first line at the end."""
    line = 0
    try:
        for row in reader:
            if row:
                row.append(str(line + 1))
                yield row
            line = reader.line_num  # type: ignore[attr-defined]
    except csv.Error as error:
        reason = str(error)
        if "unexpected end" in reason or "field limit" in reason:
            reason = "a quoted cell is not closed, or very long"
        hint = "quote a cell as a whole and double the quotes in it"
        raise Error(Code.INVALID, f"line {line + 1} is no CSV: {reason}", hint=hint) from error
    except UnicodeDecodeError as error:
        line = first_line(path, bytes.decode)[0]
        raise Error(Code.INVALID, f"line {line} is not UTF-8", hint="save the file as UTF-8") from error


def _check_width(row: list[str], width: int) -> None:
    *cells, line = row
    if len(cells) != width:
        hint = "every line has as many cells as the first"
        raise Error(Code.INVALID, f"line {line} has {len(cells)} cells, not {width}", hint=hint)


def find_delimiter(path: Path) -> str:
    """The delimiter that cuts the first records most evenly; a comma when none cuts the header."""
    with path.open(encoding="utf-8", errors="replace", newline="") as text:
        sample = text.read(SAMPLE_CHARACTERS)
    best, best_score = ",", (0.0, 0)
    for delimiter in DELIMITERS:
        try:
            widths = [len(r) for r in csv.reader(StringIO(sample, newline=""), delimiter=delimiter) if r][:1000]
        except csv.Error:  # a cell past the limit: this delimiter does not cut, or the reading proper will say so
            continue
        if len(sample) == SAMPLE_CHARACTERS and len(widths) > 1:
            widths.pop()
        if widths and widths[0] > 1 and (score := (widths.count(widths[0]) / len(widths), widths[0])) > best_score:
            best, best_score = delimiter, score
    return best


def _open_ndjson(connection: duckdb.DuckDBPyConnection, path: Path, headers: Sequence[str]) -> TextFile:
    lines = f"""SELECT row_number() OVER () AS n, json FROM read_json_objects($1, format='newline_delimited',
        hive_partitioning=false, maximum_object_size={RECORD_BYTES_MAX})"""
    others = f"SELECT min(n) FROM ({lines}) WHERE json_type(json) <> 'OBJECT'"
    wrong = connection.execute(others, [str(path)]).fetchone()
    if wrong is not None and wrong[0] is not None:
        raise Error(Code.INVALID, f"{_json_place(path, wrong[0])} is no JSON object")
    found = connection.execute(
        f"""SELECT key FROM (SELECT n, unnest(json_keys(json)) AS key, generate_subscripts(json_keys(json), 1) AS i
            FROM ({lines})) GROUP BY key ORDER BY min(n), min(n * 100000 + i) LIMIT {COLUMNS_MAX + 1}""",
        [str(path)],
    )
    names = tuple(str(key) for (key,) in found.fetchall())
    pointers = ["/" + name.replace("~", "~0").replace("/", "~1") for name in names]
    cells = ", ".join(f"v[{i + 1}] AS c{i}, t[{i + 1}] = 'VARCHAR' AS s{i}" for i in range(len(names)))
    sql = f"""SELECT n, {cells} FROM (SELECT n, json_extract_string(json, $2) AS v, json_type(json, $2) AS t
        FROM ({lines}))"""
    strings = tuple(f"s{i}" for i in range(len(names)))
    return TextFile(names, sql, (str(path), pointers), (None,) * len(names), strings, partial(_json_place, path))


def _json_place(path: Path, record: int) -> str:
    with path.open("rb") as lines:
        written = (number for number, line in enumerate(lines, 1) if line.strip())
        for _ in range(record - 1):
            next(written)
        return f"line {next(written)}"


def _open_parquet(connection: duckdb.DuckDBPyConnection, path: Path, headers: Sequence[str]) -> TextFile:
    read = "read_parquet($1, hive_partitioning=false"
    described = connection.execute(f"DESCRIBE SELECT * FROM {read})", [str(path)]).fetchall()
    names = tuple(str(row[0]) for row in described)
    kinds = [str(row[1]) for row in described]
    columns = ", ".join(f"p{i}" for i in range(len(names)))
    cells = ", ".join(f"{_parquet_text(kind, f'p{i}')} AS c{i}" for i, kind in enumerate(kinds))
    sql = f"SELECT n + 1 AS n, {cells} FROM {read}, file_row_number=true) AS whole({columns}, n)"
    types = tuple(_parquet_type(kind) for kind in kinds)
    return TextFile(names, sql, (str(path),), types, ("FALSE",) * len(names), lambda n: f"row {n}")


def _parquet_text(kind: str, value: str) -> str:
    if kind in ("FLOAT", "DOUBLE"):
        return f"CASE WHEN isfinite({value}) THEN CAST({value} AS VARCHAR) END"
    if kind == "TIMESTAMP WITH TIME ZONE":
        return f"CAST(timezone('UTC', {value}) AS VARCHAR)"
    if kind.endswith("[]") or kind.startswith(("STRUCT", "MAP")):
        return f"CAST(to_json({value}) AS VARCHAR)"
    return f"CAST({value} AS VARCHAR)"


def _parquet_type(kind: str) -> Type | None:
    """The type of a column as its file declares it; None for numbers too wide to tell by their kind."""
    if kind in ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "UTINYINT", "USMALLINT", "UINTEGER"):
        return Type.INTEGER
    if kind in ("FLOAT", "DOUBLE"):
        return Type.NUMBER
    if kind.startswith("TIMESTAMP"):
        return Type.TIMESTAMP
    if kind in ("UBIGINT", "HUGEINT", "UHUGEINT") or (kind.startswith("DECIMAL") and kind.endswith(",0)")):
        return None
    if kind.startswith("DECIMAL"):
        return Type.NUMBER
    return {"BOOLEAN": Type.BOOLEAN, "DATE": Type.DATE}.get(kind, Type.STRING)


def first_line(path: Path, check: Callable[[bytes], object]) -> tuple[int, Exception | None]:
    """Number of the first line that `check` fails on, and how; (0, None) when it fails on none."""
    with path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            try:
                check(line)
            except ValueError as error:
                return number, error
    return 0, None


def _check_json(line: bytes) -> None:
    text = line.decode()
    if text.strip():
        json.dumps(json.loads(text), ensure_ascii=False).encode()


def _unreadable(path: Path, format: str, error: duckdb.Error) -> Error:
    if format == "ndjson":
        line, reason = first_line(path, _check_json)
        if reason is not None:
            hint = "one JSON object a line, in UTF-8"
            return Error(Code.INVALID, f"line {line} is no JSON: {reason}", hint=hint)
    if format == "parquet":
        return Error(Code.INVALID, "the file is no readable Parquet file")
    reason_text = str(error).splitlines()[0].replace(str(path.parent), "")
    return Error(Code.INVALID, f"the file cannot be read as {format}: {reason_text}")


def infer_schema(connection: duckdb.DuckDBPyConnection, file: TextFile) -> Schema:
    """The columns of a file with the narrowest type all their cells fit."""
    told = [i for i, type in enumerate(file.types) if type is None]
    bits = ", ".join(["count(*)", *(f"bit_or({narrowness(f'b{i}', f's{i}')})" for i in told)])
    cells = ", ".join(["n", *(f"{bare(f'c{i}')} AS b{i}, {file.strings[i]} AS s{i}" for i in told)])
    found = connection.execute(f"SELECT {bits} FROM (SELECT {cells} FROM ({file.sql}))", list(file.parameters))
    count, *codes_told = found.fetchone() or (0,)
    file.check_count(count)
    codes = dict(zip(told, codes_told, strict=True))
    types = (type or narrowest(codes[i]) for i, type in enumerate(file.types))
    return tuple(Column(name, type) for name, type in zip(file.names, types, strict=True))
