"""Owns what a reference table is: its definition, column types outward and inward, names. No rows, no I/O."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from roster.base.errors import Code, Error
from roster.model.schema import Column, Schema, Type

NAME_CHARACTERS_MAX = 56
INT32_MIN, INT32_MAX = -(2**31), 2**31 - 1


@dataclass(frozen=True, slots=True)
class Table:
    """The definition of a reference table. Columns keep their wide types; rows live in the engine."""

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
    """Headers as column names.

    Lower case, trimmed, leading non-letters dropped, other characters `_`, duplicates numbered from 1.
    Error: INVALID for a name that is empty or longer than 56 characters after that.
    """
    plain = [normalise_name(name) for name in names]
    seen: dict[str, int] = {}
    result = []
    for name in plain:
        if plain.count(name) == 1:
            result.append(name)
            continue
        seen[name] = seen.get(name, 0) + 1
        result.append(f"{name}{seen[name]}")
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
