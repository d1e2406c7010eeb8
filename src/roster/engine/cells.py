"""Owns how cells of reference tables are read from text and shown as text, in DuckDB's SQL; runs nothing."""

from __future__ import annotations

import re
from typing import assert_never

from roster.model.reference_table import BLANKS, TEXT_FORMS
from roster.model.schema import Type

SQL_TYPES = {
    Type.STRING: "VARCHAR",
    Type.INTEGER: "BIGINT",
    Type.NUMBER: "DOUBLE",
    Type.BOOLEAN: "BOOLEAN",
    Type.TIMESTAMP: "TIMESTAMP",
    Type.DATE: "DATE",
    Type.ANY: "VARCHAR",
}

_BLANKS = "E'" + BLANKS.encode("unicode_escape").decode() + "'"
_PLAIN_INTEGER = "0|-?[1-9][0-9]*"
_PLAIN_NUMBER = r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?"
_EXACT_MAX = 2**53
_YEARS = "TIMESTAMP '0001-01-01' AND TIMESTAMP '9999-12-31 23:59:59.999999'"
WHOLE_KINDS = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "UTINYINT", "USMALLINT", "UINTEGER")
"""The engine's own types whose values are all INTEGER."""
_OFFSET = ":[0-9.]+[+-][0-9]{2}:?[0-9]{2}$"


def quoted(name: str) -> str:
    """A column name as an SQL identifier, whatever it holds."""
    return '"' + name.replace('"', '""') + '"'


def bare(text: str) -> str:
    """The text without blanks around it, null when nothing is left."""
    # Few texts have blanks around them, and trimming costs ten times as much as looking.
    return (
        f"CASE WHEN ord({text}) > 32 AND ord({text}[-1]) > 32 THEN {text} ELSE nullif(trim({text}, {_BLANKS}), '') END"
    )


def inward(type: Type, cell: str) -> str:
    """A text (bare, unless for a STRING) as a value of the type; null when it cannot be read as one."""
    match type:
        case Type.STRING | Type.ANY:
            return cell
        case Type.INTEGER | Type.BOOLEAN | Type.DATE:
            value = f"TRY_CAST({cell} AS {SQL_TYPES[type]})"
        case Type.NUMBER:
            value = f"CASE WHEN isfinite(TRY_CAST({cell} AS DOUBLE)) THEN TRY_CAST({cell} AS DOUBLE) END"
        case Type.TIMESTAMP:
            # A cast to TIMESTAMP would pass over the offset.
            offset = f"timezone('UTC', TRY_CAST({cell} AS TIMESTAMPTZ))"
            value = f"""CASE WHEN NOT regexp_matches({cell}, '{_OFFSET}') THEN TRY_CAST({cell} AS TIMESTAMP)
                WHEN {offset} BETWEEN {_YEARS} THEN {offset} END"""
        case _:
            assert_never(type)
    return f"CASE WHEN regexp_full_match({cell}, '{TEXT_FORMS[type]}') THEN {value} END"


def given(type: Type, text: str) -> str:
    """A cell of a file or a request as `inward` takes it."""
    return text if type in (Type.STRING, Type.ANY) else bare(text)


def shown(type: Type, value: str) -> str:
    """A value as it goes out: integers as they are, anything else as text."""
    match type:
        case Type.STRING | Type.INTEGER | Type.ANY:
            return value
        case Type.NUMBER:
            whole = f"{value} = trunc({value}) AND abs({value}) < 1e15"
            return f"CASE WHEN {whole} THEN CAST(CAST({value} AS BIGINT) AS VARCHAR) ELSE CAST({value} AS VARCHAR) END"
        case Type.BOOLEAN | Type.DATE:
            return f"CAST({value} AS VARCHAR)"
        case Type.TIMESTAMP:
            return f"strftime({value}, '%Y-%m-%dT%H:%M:%S.%gZ')"
        case _:
            assert_never(type)


def written(type: Type, value: str) -> str:
    """A value as text, in the form it goes out."""
    return f"CAST({shown(type, value)} AS VARCHAR)"


def turned(stored: Type, type: Type, value: str) -> str:
    """A stored value as a value of another type, by way of its text; null when it is none."""
    if SQL_TYPES[stored] == SQL_TYPES[type]:
        return value
    text = written(stored, value)
    if SQL_TYPES[type] == "VARCHAR":
        return text
    return inward(type, bare(value) if SQL_TYPES[stored] == "VARCHAR" else text)


def text_of(kind: str, value: str) -> str:
    """A value of one of the engine's own types as the text a file of texts would have."""
    if kind in ("FLOAT", "DOUBLE"):
        return f"CASE WHEN isfinite({value}) THEN {shown(Type.NUMBER, value)} END"
    if kind == "TIMESTAMP WITH TIME ZONE":
        return f"CAST(timezone('UTC', {value}) AS VARCHAR)"
    if kind.endswith("[]") or kind.startswith(("STRUCT", "MAP")):
        return f"CAST(to_json({value}) AS VARCHAR)"
    return f"CAST({value} AS VARCHAR)"


def direct(type: Type, kind: str, value: str) -> str | None:
    """A value of one of the engine's own types as the type, null when it is none; None when only its text can tell.

    The same as by way of the text, and several times cheaper.
    """
    match type:
        case Type.STRING | Type.ANY if kind == "VARCHAR":
            return f"nullif({value}, '')"
        case Type.INTEGER if kind in WHOLE_KINDS:
            return f"CAST({value} AS BIGINT)"
        case Type.NUMBER if kind == "DOUBLE":
            return f"CASE WHEN isfinite({value}) THEN {value} END"
        case Type.NUMBER if kind in WHOLE_KINDS or _is_exact_decimal(kind):
            return f"CAST({value} AS DOUBLE)"
        case Type.BOOLEAN if kind == "BOOLEAN":
            return value
        case Type.DATE if kind == "DATE":
            return f"CASE WHEN {value} BETWEEN DATE '0001-01-01' AND DATE '9999-12-31' THEN {value} END"
        case Type.TIMESTAMP if kind == "DATE" or kind.startswith("TIMESTAMP"):
            moment = f"timezone('UTC', {value})" if kind.endswith("ZONE") else value
            moment = f"TRY_CAST({moment} AS TIMESTAMP)"
            return f"CASE WHEN {moment} BETWEEN {_YEARS} THEN {moment} END"
    return None


def _is_exact_decimal(kind: str) -> bool:
    """Whether a decimal's digits and its power of ten are both exact doubles: their quotient is then well rounded."""
    found = re.fullmatch(r"DECIMAL\(([0-9]+),[0-9]+\)", kind)
    return found is not None and int(found[1]) <= 15


def key_text(type: Type, value: str) -> str:
    """The primary key that a value is, written as it goes out; null when there is none."""
    if type in (Type.STRING, Type.ANY):
        return f"CASE WHEN ord({value}) > 32 THEN {value} WHEN {bare(value)} IS NOT NULL THEN {value} END"
    return written(type, value)


def narrowness(cell: str, is_string: str) -> str:
    """A bit for the narrowest type a bare cell fits; `is_string` says that its file marks it as a string.

    Numbers count only in the form they would be written back: no `+`, no leading zeros.
    """
    number = inward(Type.NUMBER, cell)
    return f"""CASE WHEN {cell} IS NULL THEN 0
        WHEN NOT regexp_matches({cell}, '^[-0-9tTfF]') THEN 32
        WHEN {is_string} AND NOT regexp_matches({cell}, '^[0-9]{{4}}-') THEN 32
        WHEN regexp_full_match({cell}, '{_PLAIN_INTEGER}')
            THEN CASE WHEN TRY_CAST({cell} AS BIGINT) IS NULL THEN 32
                WHEN TRY_CAST({cell} AS BIGINT) BETWEEN -{_EXACT_MAX} AND {_EXACT_MAX} THEN 1 ELSE 64 END
        WHEN regexp_full_match({cell}, '{_PLAIN_NUMBER}') THEN CASE WHEN {number} IS NULL THEN 32 ELSE 2 END
        WHEN regexp_full_match({cell}, '{TEXT_FORMS[Type.BOOLEAN]}') THEN 4
        WHEN regexp_full_match({cell}, '{TEXT_FORMS[Type.DATE]}')
            THEN CASE WHEN {inward(Type.DATE, cell)} IS NULL THEN 32 ELSE 8 END
        WHEN {inward(Type.TIMESTAMP, cell)} IS NOT NULL THEN 16
        ELSE 32 END"""


_NARROWEST = {
    1: Type.INTEGER,
    64: Type.INTEGER,
    1 | 64: Type.INTEGER,
    2: Type.NUMBER,
    1 | 2: Type.NUMBER,
    4: Type.BOOLEAN,
    8: Type.DATE,
    16: Type.TIMESTAMP,
    8 | 16: Type.TIMESTAMP,
}


def narrowest(bits: int) -> Type:
    """The type all cells fit whose bits of `narrowness` were or-ed; integers past 2^53 do not go with fractions."""
    return _NARROWEST.get(bits, Type.STRING)


def narrowness_of(type: Type) -> int:
    """The bit of cells of which only the type is known."""
    return next((bit for bit, narrow in _NARROWEST.items() if narrow is type), 32)
