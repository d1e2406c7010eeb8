"""Owns the SELECT that a warehouse is asked: names quoted, a given query proven to be one SELECT; runs nothing."""

from __future__ import annotations

import re

from sqlglot import exp, parse
from sqlglot.errors import SqlglotError

from roster.base.errors import Code, Error
from roster.model.source import Origin

PARTS_MAX = 3
_FORMS = {
    "snowflake": r'(?:([A-Za-z_][A-Za-z0-9_$]*)|"((?:[^"]|"")+)")',
    "bigquery": r"(?:([\w$-]+)|`([^`\\]+)`)",
}
"""A part of a name: plain, or quoted as the dialect quotes."""
_PART = {dialect: re.compile(form) for dialect, form in _FORMS.items()}
_NAME = {dialect: re.compile(rf"{form}(?:\.{form})*") for dialect, form in _FORMS.items()}
_WRITES = (exp.DML, exp.DDL, exp.Command, exp.Into, exp.Lock)


def split_name(text: str, dialect: str, at: str) -> list[str]:
    """The parts of a dotted name, folded as the dialect folds names that are not quoted. Error: INVALID."""
    parts = [found.groups() for found in _PART[dialect].finditer(text)]
    if _NAME[dialect].fullmatch(text) is None or len(parts) > PARTS_MAX:
        raise Error(Code.INVALID, f"{text!r} is no name", at=at, hint="plain or quoted parts with dots between")
    if dialect == "snowflake":
        return [plain.upper() if plain else quoted.replace('""', '"') for plain, quoted in parts]
    return [part for plain, quoted in parts for part in (plain or quoted).split(".")]


def quote_name(parts: list[str], dialect: str) -> str:
    """The name as it stands in SQL, every part quoted."""
    return ".".join(exp.to_identifier(part, quoted=True).sql(dialect=dialect) for part in parts)


def one_select(text: str, dialect: str, at: str) -> str:
    """The query as it was understood: what is checked is what is sent. Error: INVALID unless it is a single SELECT."""
    try:
        found = [one for one in parse(text, dialect=dialect) if one is not None]
    except SqlglotError as error:
        raise Error(Code.INVALID, "the query cannot be read as SQL", at=at, hint=f"dialect: {dialect}") from error
    if len(found) != 1 or not isinstance(found[0], exp.Query) or found[0].find(*_WRITES):
        raise Error(Code.INVALID, "the query is not a single SELECT", at=at, hint="one SELECT, which changes nothing")
    return found[0].sql(dialect=dialect, comments=False)


def select_rows(origin: Origin, table: str, dialect: str, condition: str) -> str:
    """The SELECT of an origin: its query, or all columns of a (quoted) table; `condition` may be empty."""
    query = origin.get("query")
    source = f"({one_select(query, dialect, 'query')}) AS q" if query else table
    return f"SELECT * FROM {source}" + (f" WHERE {condition}" if condition else "")
