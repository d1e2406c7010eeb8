"""Owns how cells of reference tables are read from text and shown as text, in DuckDB's SQL; runs nothing."""

from __future__ import annotations

from typing import assert_never

from roster.model.reference_table import BLANKS, INT32_MAX, INT32_MIN, TEXT_FORMS
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
_OFFSET = ":[0-9.]+[+-][0-9]{2}:?[0-9]{2}$"


def quoted(name: str) -> str:
    """A column name as an SQL identifier, whatever it holds."""
    return '"' + name.replace('"', '""') + '"'


def bare(text: str) -> str:
    """The text without blanks around it, null when nothing is left."""
    return f"nullif(trim({text}, {_BLANKS}), '')"


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
            years = "TIMESTAMP '0001-01-01' AND TIMESTAMP '9999-12-31 23:59:59.999999'"
            value = f"""CASE WHEN NOT regexp_matches({cell}, '{_OFFSET}') THEN TRY_CAST({cell} AS TIMESTAMP)
                WHEN {offset} BETWEEN {years} THEN {offset} END"""
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


def key_text(type: Type, cell: str) -> str:
    """The primary key a given cell stands for, written as it goes out; null when there is none."""
    if type in (Type.STRING, Type.ANY):
        return f"CASE WHEN {bare(cell)} IS NOT NULL THEN {cell} END"
    return f"CAST({shown(type, inward(type, cell))} AS VARCHAR)"


def misfit(type: Type, cell: str, *, int32_only: bool) -> str:
    """Whether a given cell fails to be a value of the type."""
    value = inward(type, cell)
    if type is Type.INTEGER and int32_only:
        value = f"CASE WHEN {value} BETWEEN {INT32_MIN} AND {INT32_MAX} THEN 0 END"
    return f"{cell} IS NOT NULL AND {value} IS NULL"


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


def narrowest(bits: int | None) -> Type:
    """The type all cells fit whose bits of `narrowness` were or-ed; integers past 2^53 do not go with fractions."""
    return _NARROWEST.get(bits or 0, Type.STRING)
