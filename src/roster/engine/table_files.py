"""Owns reading table files of any kind as a relation of texts; keeps no rows and knows no table."""

from __future__ import annotations

import gzip
import json
import shutil
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO

import duckdb

from roster.base.errors import Code, Error
from roster.engine.cells import WHOLE_KINDS, bare, narrowest, narrowness, narrowness_of, text_of
from roster.engine.csv_files import RECORD_BYTES_MAX, first_line, rewrite_csv
from roster.model.reference_table import column_names
from roster.model.schema import Column, Schema, Type

COLUMNS_MAX = 2_000
"""Of a file: fields may use any of them. What a request declares is limited where it is read."""
FILE_ROWS_MAX = 2**32
PLACES = {"file_index", "file_row_number"}
"""What the engine calls the place of a row of Parquet."""
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
    kinds: tuple[str, ...] = ()
    """The engine's own types of the columns `p0`, `p1`, ... beside the texts, where the file has types."""

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
    if format == "parquet" and len(paths) > 1 and all(map(_is_parquet, paths)):
        path = _gather(paths, folder)
    else:
        path = join_parts(paths, folder / f"whole.{format}")
    try:
        file = openers[format](connection, path, headers)
        if not 0 < len(file.names) <= COLUMNS_MAX:
            raise Error(Code.INVALID, f"the file has {len(file.names)} columns", hint=f"1 to {COLUMNS_MAX} columns")
        yield file
    except (duckdb.InvalidInputException, duckdb.IOException, duckdb.ConversionException) as error:
        raise _unreadable(path, format, error) from error


@contextmanager
def no_file(columns: Schema) -> Iterator[TextFile]:
    """What a source without any file gives: these columns, no rows."""
    names = tuple(c.name for c in columns)
    cells = "".join(f", CAST(NULL AS VARCHAR) AS c{i}" for i in range(len(names)))
    sql = f"SELECT CAST(0 AS BIGINT) AS n{cells} WHERE FALSE"
    yield TextFile(names, sql, (), (None,) * len(names), ("FALSE",) * len(names), lambda n: f"row {n}", 0)


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


def _is_parquet(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4) == b"PAR1"


def _gather(paths: Sequence[Path], folder: Path) -> Path:
    """A pattern for several whole files, in their order."""
    (folder / "whole").mkdir()
    for n, path in enumerate(paths):
        (folder / "whole" / f"{n:06}.parquet").symlink_to(path.resolve())
    return folder / "whole" / "*.parquet"


def _starts_with_bom(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(len(BOM)) == BOM


def _open_part(path: Path) -> BinaryIO | gzip.GzipFile:
    return gzip.open(path) if path.suffix.lower() == ".gz" else path.open("rb")


def _open_csv(connection: duckdb.DuckDBPyConnection, path: Path, headers: Sequence[str]) -> TextFile:
    # DuckDB's own reader drops rows after an unclosed quote without a word, and refuses mixed line
    # ends: so the file is read here, and DuckDB gets a plain copy that carries the line numbers.
    plain = path.with_name("plain.csv")
    copy = rewrite_csv(path, plain, headers)
    columns = ", ".join([*(f"'c{i}': 'VARCHAR'" for i in range(len(copy.names))), "'n': 'BIGINT'"])
    sql = f"""SELECT * FROM read_csv($1, auto_detect=false, header=false, delim='{copy.delimiter}', quote='"',
        escape='"', new_line='\\n', columns={{{columns}}}, strict_mode=true, parallel={copy.is_by_line},
        hive_partitioning=false, max_line_size={RECORD_BYTES_MAX})"""
    width = len(copy.names)
    strings = ("FALSE",) * width
    return TextFile(copy.names, sql, (str(plain),), (None,) * width, strings, lambda n: f"line {n}", copy.rows)


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
    read = "read_parquet($1, hive_partitioning=false, union_by_name=true"
    described = connection.execute(f"DESCRIBE SELECT * FROM {read})", [str(path)]).fetchall()
    names = tuple(str(row[0]) for row in described)
    kinds = tuple(str(row[1]) for row in described)
    columns = ", ".join(f"p{i}" for i in range(len(names)))
    cells = ", ".join(f"{text_of(kind, f'p{i}')} AS c{i}" for i, kind in enumerate(kinds))
    numbered = f"SELECT *, file_index FROM {read}, file_row_number=true)"
    if PLACES & {name.lower() for name in names}:  # the file's own columns hide those
        numbered = f"SELECT *, row_number() OVER () - 1, 0 FROM {read})"
    rows = f"({numbered}) AS whole({columns}, n, file)"
    sql = f"SELECT file * {FILE_ROWS_MAX} + n + 1 AS n, {columns}, {cells} FROM {rows}"
    types = tuple(_parquet_type(kind) for kind in kinds)
    return TextFile(names, sql, (str(path),), types, ("FALSE",) * len(names), _parquet_place, kinds=kinds)


def _parquet_place(n: int) -> str:
    file, row = divmod(n - 1, FILE_ROWS_MAX)
    return f"row {row + 1}" + (f" of file {file + 1}" if file else "")


def _parquet_type(kind: str) -> Type | None:
    """The type of a column as its file declares it; None for numbers too wide to tell by their kind."""
    if kind in WHOLE_KINDS:
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


def infer_schema(connection: duckdb.DuckDBPyConnection, file: TextFile, known: Schema = ()) -> Schema:
    """The columns of a file with the narrowest type that all their cells, and those `known` by that name, fit."""
    told = [i for i, type in enumerate(file.types) if type is None]
    bits = ", ".join(["count(*)", *(f"bit_or({narrowness(f'b{i}', f's{i}')})" for i in told)])
    cells = ", ".join(["n", *(f"{bare(f'c{i}')} AS b{i}, {file.strings[i]} AS s{i}" for i in told)])
    found = connection.execute(f"SELECT {bits} FROM (SELECT {cells} FROM ({file.sql}))", list(file.parameters))
    count, *codes_told = found.fetchone() or (0,)
    file.check_count(count)
    codes = [narrowness_of(type) if type else 0 for type in file.types]
    for i, code in zip(told, codes_told, strict=True):
        codes[i] = code or 0
    before = {c.name: narrowness_of(c.type) for c in known}
    types = [narrowest(code | before.get(name, 0)) for code, name in zip(codes, column_names(file.names), strict=True)]
    return tuple(Column(name, type) for name, type in zip(file.names, types, strict=True))
