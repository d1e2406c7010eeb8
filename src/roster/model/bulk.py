"""Owns mapping many columns at once: which columns become fields, and how those are named. Reads no source."""

from __future__ import annotations

from roster.base.errors import Code, Error
from roster.model.connection import ID_FORM, ID_HINT, Bulk, Field, find_column, hint_columns
from roster.model.schema import Column, Schema, Type

COLUMN = "{column}"
FIELD_TYPES = {Type.INTEGER: Type.NUMBER, Type.DATE: Type.TIMESTAMP, Type.ANY: Type.STRING}
"""The type of a field over a column, where it is not the column's own."""


def parse_naming(text: str, at: str) -> str:
    """A naming rule: an id with `{column}` in it. Error: INVALID."""
    if COLUMN not in text or not ID_FORM.fullmatch(text.replace(COLUMN, "x").removeprefix("@")):
        hint = f"such as crm_{COLUMN}: {ID_HINT}"
        raise Error(Code.INVALID, f"{text!r} is no naming rule", at=at, hint=hint)
    return text.removeprefix("@")


def fields_of(
    bulk: Bulk, columns: Schema | None, keys: tuple[str, ...], known: tuple[Field, ...], at: str
) -> tuple[Field, ...]:
    """The fields over columns that neither are keys nor read by `known`. Error: INVALID with the place."""
    if columns is None:
        hint = "bring its rows first, or name the fields"
        raise Error(Code.INVALID, "the columns of the source are not known yet", at=at, hint=hint)
    left_out = {find_column(name, columns) for name in (*keys, *(f.source_name for f in known))}
    for i, name in enumerate(bulk.but):
        found = find_column(name, columns)
        if found is None:
            message = f"the source has no column {name!r}"
            raise Error(Code.INVALID, message, at=f"{at}/except/{i}", hint=hint_columns(name, columns))
        left_out.add(found)
    return tuple(_field(bulk, c, at) for c in columns if c.name not in left_out)


def _field(bulk: Bulk, column: Column, at: str) -> Field:
    id = bulk.naming.replace(COLUMN, column.name)
    if not ID_FORM.fullmatch(id):
        message = f"column {column.name!r} gives {id!r}, which cannot be a field id"
        raise Error(Code.INVALID, message, at=at, hint=f"leave it out with `except`; {ID_HINT}")
    return Field(id, column.name, FIELD_TYPES.get(column.type, column.type))
