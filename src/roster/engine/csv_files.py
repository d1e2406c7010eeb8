"""Owns copying a CSV file in any dialect into a plain one that carries line numbers; knows no table and no engine.

Blocks of lines that are surely one row each are copied as they are, which is many times cheaper than taking
rows apart; all others go through Python's CSV reader, which decides what is a row.
"""

from __future__ import annotations

import csv
import re
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from io import StringIO
from itertools import count, repeat
from pathlib import Path
from typing import BinaryIO

from roster.base.errors import Code, Error
from roster.model.reference_table import is_header

RECORD_BYTES_MAX = 16 * 2**20
BLOCK_BYTES = 2**20
SAMPLE_CHARACTERS = 2**18
DELIMITERS = ",;\t|"


@dataclass(frozen=True, slots=True)
class PlainCsv:
    """A plain copy: cells, then the number of the line where the row starts; `\\n` ends rows, `\"` quotes.

    `is_by_line`: no row has several lines.
    """

    names: tuple[str, ...]
    rows: int
    delimiter: str
    is_by_line: bool


class _Lines:
    """The lines of a file in blocks, and how many lines came before."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._rest = b""
        self.before = 0

    def next_block(self) -> bytes:
        """The next whole lines; empty at the end."""
        held, end = self._rest, 0
        while not end:
            more = self._file.read(BLOCK_BYTES)
            held += more
            if not more:
                end = len(held)
                break
            end = held.rfind(b"\n") + 1 or held.rfind(b"\r", 0, len(held) - 1) + 1
            if not end and len(held) > RECORD_BYTES_MAX:
                raise Error(Code.INVALID, f"line {self.before + 1} is very long", hint="every row ends with its line")
        self._rest = held[end:]
        return held[:end]

    def give_back(self, lines: bytes) -> None:
        self._rest = lines + self._rest


def rewrite_csv(path: Path, plain: Path, headers: Sequence[str] = ()) -> PlainCsv:
    """Copy a CSV file in any dialect into a plain one. Errors: INVALID naming the line.

    `headers` name the columns when the first line does not.
    """
    delimiter = find_delimiter(path, len(headers))
    with path.open("rb") as file, plain.open("wb") as out:
        lines = _Lines(file)
        first = _first_record(lines, delimiter, path)
        names, rows, is_by_line = first[:-1], 0, True
        if headers and not is_header(names, headers):
            names, rows, is_by_line = list(headers), 1, False
            out.write(_quoted([first], len(names), delimiter)[0])
        row = _row_pattern(len(names), delimiter)
        while block := lines.next_block():
            copied = _numbered(block, row, len(names), delimiter, lines.before)
            if copied is None:
                with closing(_records(lines, block, delimiter, path)) as records:
                    text, found = _quoted(records, len(names), delimiter)
                is_by_line = False
            else:
                text, found = copied
                lines.before += found
            out.write(text)
            rows += found
    return PlainCsv(tuple(names), rows, delimiter, is_by_line)


def _first_record(lines: _Lines, delimiter: str, path: Path) -> list[str]:
    while block := lines.next_block():
        with closing(_records(lines, block, delimiter, path)) as records:
            for record in records:
                return record
    raise Error(Code.INVALID, "the file is empty", hint="the first line names the columns")


def _row_pattern(width: int, delimiter: str) -> re.Pattern[bytes]:
    """A row of one line whose quotes are where they should be."""
    cut = re.escape(delimiter)
    cell = rf'(?:[^"{cut}]*+|"(?:[^"]++|"")*+")'
    return re.compile(rf"{cell}(?:{cut}{cell}){{{width - 1}}}".encode())


def _numbered(
    block: bytes, row: re.Pattern[bytes], width: int, delimiter: str, before: int
) -> tuple[bytes, int] | None:
    """The lines with their numbers, and how many; None when they are not surely one row each."""
    if b"\0" in block:
        return None
    if b"\r" in block:
        if block.count(b"\r") != block.count(b"\r\n"):
            return None
        block = block.replace(b"\r\n", b"\n")
    try:
        block.decode()
    except UnicodeDecodeError:
        return None
    lines = block.removesuffix(b"\n").split(b"\n")
    cut = delimiter.encode()
    if b"" in lines or max(map(len, lines)) > csv.field_size_limit():
        return None
    bare = lines
    if b'"' in block:
        bare = [line for line in lines if b'"' not in line]
        if not all(row.fullmatch(line) for line in lines if b'"' in line):
            return None
    if not set(map(bytes.count, bare, repeat(cut))) <= {width - 1}:
        return None
    return b"".join(map(b"%b%b%d\n".__mod__, zip(lines, repeat(cut), count(before + 1)))), len(lines)


def _quoted(records: Iterator[list[str]] | list[list[str]], width: int, delimiter: str) -> tuple[bytes, int]:
    """The records with every cell in quotes, and how many."""
    text = StringIO(newline="")
    rows = 0

    def checked() -> Iterator[list[str]]:
        nonlocal rows
        for row in records:
            if len(row) != width + 1:
                hint = "every line has as many cells as the first"
                raise Error(Code.INVALID, f"line {row[-1]} has {len(row) - 1} cells, not {width}", hint=hint)
            rows += 1
            yield row

    csv.writer(text, delimiter=delimiter, quoting=csv.QUOTE_ALL, lineterminator="\n").writerows(checked())
    return text.getvalue().encode(), rows


def _records(lines: _Lines, block: bytes, delimiter: str, path: Path) -> Generator[list[str], None, None]:
    """Records that are no blank line and begin in the block, each with the number of its first line at the end."""
    pending = deque(block.splitlines(keepends=True))
    lines_of_block = len(pending)

    def texts() -> Iterator[str]:
        while True:
            if not pending:
                pending.extend(lines.next_block().splitlines(keepends=True))
            if not pending:
                return
            yield pending.popleft().decode()

    reader = csv.reader(texts(), delimiter=delimiter, strict=True)
    before = line = lines.before
    try:
        while reader.line_num < lines_of_block:
            line = before + reader.line_num
            row = next(reader, None)
            if row:
                yield [*row, str(line + 1)]
    except csv.Error as error:
        reason = str(error)
        if "unexpected end" in reason or "field limit" in reason:
            reason = "a quoted cell is not closed, or very long"
        hint = "quote a cell as a whole and double the quotes in it"
        raise Error(Code.INVALID, f"line {line + 1} is no CSV: {reason}", hint=hint) from error
    except UnicodeDecodeError as error:
        line = first_line(path, bytes.decode)[0]
        raise Error(Code.INVALID, f"line {line} is not UTF-8", hint="save the file as UTF-8") from error
    finally:
        lines.before = before + reader.line_num
        lines.give_back(b"".join(pending))


def find_delimiter(path: Path, width: int = 0) -> str:
    """The delimiter that cuts the first record into `width` cells where that is known, and the first ones most evenly;
    a comma when none cuts the first.
    """
    with path.open(encoding="utf-8", errors="replace", newline="") as text:
        sample = text.read(SAMPLE_CHARACTERS)
    best, best_score = ",", (False, 0.0, 0)
    for delimiter in DELIMITERS:
        try:
            widths = [len(r) for r in csv.reader(StringIO(sample, newline=""), delimiter=delimiter) if r][:1000]
        except csv.Error:  # a cell past the limit: this delimiter does not cut, or the reading proper will say so
            continue
        if len(sample) == SAMPLE_CHARACTERS and len(widths) > 1:
            widths.pop()
        if not widths or widths[0] < 2:
            continue
        score = (widths[0] == width, widths.count(widths[0]) / len(widths), widths[0])
        if score > best_score:
            best, best_score = delimiter, score
    return best


def first_line(path: Path, check: Callable[[bytes], object]) -> tuple[int, Exception | None]:
    """Number of the first line that `check` fails on, and how; (0, None) when it fails on none."""
    with path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            try:
                check(line)
            except ValueError as error:
                return number, error
    return 0, None
