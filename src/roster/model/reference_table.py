"""Owns what a reference table is: its definition, names, column types and the values they take. No I/O."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from math import isfinite
from typing import Any, assert_never

from roster.base.errors import Code, Error, did_you_mean
from roster.model.schema import Column, Schema, Type
from roster.model.source import Origin

NAME_CHARACTERS_MAX = 56
INT32_MIN, INT32_MAX = -(2**31), 2**31 - 1
INT64_MIN, INT64_MAX = -(2**63), 2**63 - 1

_CLOCK = r"([01][0-9]|2[0-3]):[0-5][0-9](:[0-5][0-9](\.[0-9]{1,9})?)?"
_OFFSET = r"(Z|[+-]([01][0-9]|2[0-3]):?[0-5][0-9])"
_DAY = r"([1-9][0-9]{3}|0[1-9][0-9]{2}|00[1-9][0-9]|000[1-9])-[0-9]{2}-[0-9]{2}"
TEXT_FORMS = {
    Type.INTEGER: r"[+-]?[0-9]+",
    Type.NUMBER: r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?",
    Type.BOOLEAN: r"(?i:true|false)",
    Type.DATE: _DAY,
    Type.TIMESTAMP: rf"{_DAY}([T ]{_CLOCK}{_OFFSET}?)?",
}
"""How a value of each type may be written, as a regular expression that Python and RE2 read alike."""

BLANKS = " \t\r\n"
"""What may stand around a value that is not a STRING."""

EXAMPLES = {
    Type.STRING: "a string or an integer",
    Type.ANY: "a string or an integer",
    Type.INTEGER: f"an integer from {INT32_MIN} to {INT32_MAX}",
    Type.NUMBER: "a number as text, such as '12.5'",
    Type.BOOLEAN: "'true' or 'false' as text",
    Type.DATE: "a day as text, such as '2025-08-14'",
    Type.TIMESTAMP: "a time as text, such as '2025-08-14T06:45:12Z'",
}
"""What each type takes, for hints."""


@dataclass(frozen=True, slots=True)
class Table:
    """The definition of a table that rows are held in; the rows live in the engine.

    `columns` have the types they are declared as, or were found with. `held` names those that are stored
    as another type, because cells that do not fit must not be lost. `generation` says which of the stored
    generations of rows counts: a sync builds the next one aside, and naming it here is the swap.
    `owner` is empty for reference tables, else the connection the table belongs to. `origin` is None for
    tables whose rows come by upload, file or request. `access_details` is the JSON text that a cloud table
    was declared with.
    """

    id: str
    name: str
    columns: Schema
    primary_key: str
    source: str
    description: str
    tags: tuple[str, ...]
    row_count: int
    created_by: str
    updated_by: str
    created_ms: int
    updated_ms: int
    status: str = "DONE"
    generation: int = 1
    held: tuple[tuple[str, Type], ...] = ()
    owner: str = ""
    origin: Origin | None = None
    sync_enabled: bool = False
    access_details: str = ""


def stored_columns(table: Table) -> Schema:
    """The columns with the types their rows are stored as."""
    held = dict(table.held)
    return tuple(Column(c.name, held.get(c.name, c.type)) for c in table.columns)


def relation_of(table: Table) -> str:
    """The relation that plans read a table's rows from: its present generation."""
    return f"table:{table.id}:{table.generation}"


def spans_of(table: Table) -> str:
    """The relation of a table's present rows and all that they were, each with its span of time."""
    return f"spans:{table.id}:{table.generation}"


def shared_of(table: Table) -> str:
    """The relation of the folded primary keys that several of its rows have or had."""
    return f"shared:{table.id}"


@dataclass(frozen=True, slots=True)
class Row:
    """One row: its primary key as text and its values by column."""

    id: str
    values: dict[str, Any] = field(hash=False)


@dataclass(frozen=True, slots=True)
class Upload:
    """A started upload: the parts that are expected and until when."""

    id: str
    table_name: str
    headers: tuple[str, ...]
    part_count: int
    part_size_bytes: int
    expires_ms: int


def outward(type: Type) -> str:
    """The documented type a column is shown as: STRING or INT32."""
    return "INT32" if type is Type.INTEGER else "STRING"


def inward(name: str) -> Type:
    """The type a documented field type is kept as."""
    known = {"STRING": Type.STRING, "INT32": Type.INTEGER}
    if name not in known:
        raise Error(Code.INVALID, f"unknown column type {name!r}", at="/type", hint="allowed: STRING, INT32")
    return known[name]


def normalise_names(names: list[str]) -> list[str]:
    """Headers as column names, all distinct.

    Lower case, trimmed, leading non-letters dropped, other characters `_`, duplicates numbered from 1.
    Error: INVALID for a name that is empty or longer than 56 characters after that.
    """
    return number_duplicates([normalise_name(name) for name in names])


def column_names(headers: Sequence[str]) -> list[str]:
    """Headers of a source as column names: normalised where that is possible, else as written; all distinct.

    One that is written so already keeps its name, whatever comes beside it: sources gain columns.
    """
    return _made_distinct(headers, [_normal_or(header, header) for header in headers])


def _made_distinct(headers: Sequence[str], names: Sequence[str]) -> list[str]:
    """The names of headers, numbered where several have one name and not one alone is written so."""
    written = {name for name in names if headers.count(name) == 1}
    kept = [name if header == name and name in written else "" for header, name in zip(headers, names, strict=True)]
    others = number_duplicates([name for name, keeps in zip(names, kept, strict=True) if not keeps], written)
    left = iter(others)
    return [keeps or next(left) for keeps in kept]


def _normal_or(header: str, otherwise: str) -> str:
    try:
        return normalise_name(header)
    except Error:
        return otherwise


def number_duplicates(names: list[str], taken: Collection[str] = ()) -> list[str]:
    """Names made distinct, from those `taken` too: each that comes several times, or is taken, is numbered from 1."""
    single = {name for name in names if names.count(name) == 1} - {*taken}
    taken = {*single, *taken}
    result = []
    for name in names:
        numbered, n = name, 0
        while name not in single and (n == 0 or numbered in taken):
            n += 1
            numbered = f"{name[: NAME_CHARACTERS_MAX - len(str(n))]}{n}"
        taken.add(numbered)
        result.append(numbered)
    return result


def normalise_name(name: str) -> str:
    """One name in the documented form; see `normalise_names`."""
    text = re.sub(r"^[^a-z]+", "", name.strip().lower())
    text = re.sub(r"[^a-z0-9_]", "_", text)
    if not text:
        raise Error(Code.INVALID, f"the name {name!r} has no letter", hint="start names with a letter")
    if len(text) > NAME_CHARACTERS_MAX:
        raise Error(Code.INVALID, f"the name {text!r} is too long", hint=f"at most {NAME_CHARACTERS_MAX} characters")
    return text


def column_of(table: Table, name: str) -> Column | None:
    """The column of that name, or None."""
    return next((c for c in table.columns if c.name == name), None)


def match_headers(headers: Sequence[str], columns: Schema) -> list[int]:
    """For each column the position of its header in a file: the very name, else the name it normalises to.

    Headers of no column are passed over. Error: INVALID for a column that has no header.
    """
    # only a column that is asked for must have a name
    plain = [_normal_or(header, "") for header in headers]
    ways = (_made_distinct(headers, plain), number_duplicates(plain))
    names = {c.name for c in columns}
    normal = next((way for way in ways if names <= {*headers, *way}), ways[0])
    positions = []
    for column in columns:
        exact = [i for i, header in enumerate(headers) if header == column.name]
        found = exact if len(exact) == 1 else [i for i, name in enumerate(normal) if name == column.name]
        if not found:
            hint = did_you_mean(column.name, headers) or f"its columns: {', '.join(headers)}"
            raise Error(Code.INVALID, f"the file has no column {column.name!r}", hint=hint)
        positions.append(found[0])
    return positions


def is_header(line: Sequence[str], headers: Sequence[str]) -> bool:
    """Whether a line of a file holds these headers, in any order. Error: INVALID when it holds some of them only.

    A cell that names the header of its own place is no value.
    """
    found, wanted = [_plain(cell) for cell in line], [_plain(header) for header in headers]
    if sorted(found) == sorted(wanted):
        return True
    same = [a == b for a, b in zip(found, wanted, strict=False)]
    if not any(same):
        return False
    other = next((n for n, equal in enumerate(same) if not equal), len(same))
    said = repr(line[other]) if other < len(line) else "nothing"
    expected = repr(headers[other]) if other < len(headers) else "no more columns"
    hint = f"the headers, in any order: {', '.join(headers)}"
    raise Error(Code.INVALID, f"line 1 holds {said} where the headers have {expected}", hint=hint)


def _plain(header: str) -> str:
    """What headers of one column have in common."""
    return _normal_or(header, header.strip())


def check_values(table: Table, row: Row, at: str) -> Row:
    """The row as the engine takes it: integers as int, everything else as text, null for empty.

    The value of the primary key is the row's id, and is left out. `at` points to the row in the request.
    Error: INVALID at the first wrong place, with the others beside it.
    """
    key = column_of(table, table.primary_key)
    if key is None:
        raise Error(Code.INTERNAL, f"table {table.name!r} has no column {table.primary_key!r}")
    errors: list[Error] = []
    id = row.id
    try:
        id = check_id(key, row.id)
    except Error as error:
        errors.append(error.under(f"{at}/id"))
    values: dict[str, Any] = {}
    for name, value in row.values.items():
        place = f"{at}/attributes/values/{name.replace('~', '~0').replace('/', '~1')}"
        column = column_of(table, name)
        try:
            if column is None:
                raise _unknown_column(table, name)
            checked = check_value(column, value)
            if column is key and (checked is None or str(checked) != id):
                raise Error(Code.INVALID, f"the primary key {name!r} differs from the row's id", hint="leave it out")
            if column is not key:
                values[name] = checked
        except Error as error:
            errors.append(error.under(place))
    if errors:
        first, *others = errors
        raise Error(first.code, first.message, at=first.at, hint=first.hint, others=tuple(others))
    return Row(id, values)


def check_id(key: Column, id: str) -> str:
    """A row id as it is kept. Error: INVALID when the key does not take it."""
    if not id.strip(BLANKS):
        raise Error(Code.INVALID, "the row's id is empty")
    _check_unicode(id)
    fits = fits_text(key.type, id)
    if not fits or (key.type is Type.INTEGER and not INT32_MIN <= int(id) <= INT32_MAX):
        message = f"the id {_short(id)} is no {key.type.value}, as the primary key {key.name!r} must be"
        raise Error(Code.INVALID, message, hint=EXAMPLES[key.type])
    return kept_id(key, id)


def kept_id(key: Column, id: str) -> str:
    """A row id as it is kept: exactly as given, but integers without leading zeros or sign `+`."""
    return str(int(id)) if key.type is Type.INTEGER and fits_text(key.type, id) else id


def check_value(column: Column, value: Any) -> int | str | None:
    """One value of a request. Error: INVALID when the column does not take it."""
    match value:
        case None:
            return None
        case int() if not isinstance(value, bool):
            if not INT32_MIN <= value <= INT32_MAX:
                raise _not_taken(column, value, EXAMPLES[Type.INTEGER])
            if column.type is Type.INTEGER:
                return value
            if fits_text(column.type, str(value)):
                return str(value)
        case str() if column.type is not Type.INTEGER:
            _check_unicode(value)
            if fits_text(column.type, value):
                return value
    raise _not_taken(column, value, EXAMPLES[column.type])


def _not_taken(column: Column, value: Any, hint: str) -> Error:
    return Error(Code.INVALID, f"column {column.name!r} does not take {_short(value)}", hint=hint)


def fits_text(type: Type, text: str) -> bool:
    """Whether a text can be read as a value of the type; blanks around it do not matter."""
    bare = text.strip(BLANKS)
    if type in TEXT_FORMS and re.fullmatch(TEXT_FORMS[type], bare) is None:
        return False
    match type:
        case Type.STRING | Type.ANY | Type.BOOLEAN:
            return True
        case Type.INTEGER:
            return len(bare) <= NAME_CHARACTERS_MAX and INT64_MIN <= int(bare) <= INT64_MAX
        case Type.NUMBER:
            return isfinite(float(bare))
        case Type.DATE | Type.TIMESTAMP:
            try:
                _utc(bare)
            except (ValueError, OverflowError):
                return False
            return True
        case _:
            assert_never(type)


def _utc(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    return moment.astimezone(UTC) if moment.tzinfo else moment


def _unknown_column(table: Table, name: str) -> Error:
    known = [c.name for c in table.columns]
    hint = did_you_mean(name, known) or f"columns: {', '.join(known)}"
    return Error(Code.INVALID, f"table {table.name!r} has no column {_short(name)}", hint=hint)


def _check_unicode(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise Error(Code.INVALID, "the text has half a surrogate pair, which is no character") from error


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
