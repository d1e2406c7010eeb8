"""Owns how the columns a source has now meet those it had and those that fields use; reads no rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from roster.base.errors import Code, Error
from roster.model.connection import Connection, Field, find_column, find_join_column, hint_columns
from roster.model.held import key_named, owner_of
from roster.model.mapping import Mapping
from roster.model.reference_table import Table, column_names
from roster.model.rules import Choice
from roster.model.schema import Column, Entity, Schema
from roster.model.source import CHANGED_AT

Readers = Sequence[tuple[Mapping, Connection]]


@dataclass(frozen=True, slots=True)
class Use:
    """One field over a column of the source; `ordered_by`: the column that says when a row changed, if that decides."""

    entity: Entity
    connection: Connection
    field: Field
    column: str
    ordered_by: str | None

    def name(self) -> str:
        """As drift reports name it: `users/crm/tier`."""
        return f"{owner_of(self.entity, self.connection)}/{self.field.id}"

    def joined_on(self, columns: Schema) -> str | None:
        """The column that the field's connection joins on; None when the join names an attribute, or nothing."""
        return find_column(self.connection.join_attribute, columns)

    def columns(self) -> tuple[str, ...]:
        return (self.column, self.ordered_by) if self.ordered_by else (self.column,)


@dataclass(frozen=True, slots=True)
class Columns:
    """What a sync does about columns: those of the next generation, those missing, those new and unused.

    `paused` stay as they were: the missing ones, and those that they decide about.
    """

    next: Schema
    primary_key: str
    missing: tuple[str, ...]
    offered: Schema
    paused: tuple[str, ...]


def uses_of(readers: Readers, columns: Schema) -> tuple[Use, ...]:
    """Every field over one of these columns."""
    found = []
    for mapping, connection in readers:
        newest = {c.field_id for c in mapping.conflicts if c.choice is Choice.NEWEST}
        changed_at = find_column(dict(connection.metadata).get(CHANGED_AT, ""), columns)
        for field in connection.fields:
            column = find_column(field.source_name, columns)
            if column is not None:
                ordered_by = changed_at if field.id in newest else None
                found.append(Use(mapping.entity, connection, field, column, ordered_by))
    return tuple(found)


def cursor_of(table: Table) -> str | None:
    """The column that a source is read on from."""
    return find_column(table.origin.get("cursor"), table.columns) if table.origin else None


def settle_columns(table: Table, readers: Readers, found: Schema, offered: Schema) -> Columns:
    """The columns of the next generation, from those `found` in the source now.

    A declared table keeps its columns; another takes those of the source. Columns that fields use and the
    source no longer has stay, with their last good values. `offered`: columns offered before and not used.
    Error: INVALID when the key of the rows, or of a join, is no column.
    """
    names = column_names([c.name for c in found])
    present = tuple(Column(name, c.type) for name, c in zip(names, found, strict=True))
    primary_key = _find_key(table, readers, present)
    if table.owner:
        used = {cursor_of(table), *(c for use in uses_of(readers, table.columns) for c in use.columns())}
        missing = tuple(c for c in table.columns if c.name in used and c.name not in names)
        following = (*present, *missing)
    else:
        following = table.columns
        missing = tuple(c for c in table.columns if c.name not in names)
    if table.owner:  # a shared table does not stop for one of its connections
        _check_joins(table, readers, present)
    uses = uses_of(readers, following)
    used = {c for use in uses for c in use.columns()}
    known = {c.name for c in table.columns} - {c.name for c in offered}
    new = tuple(c for c in present if table.columns and c.name not in known | used)
    gone = tuple(c.name for c in missing)
    decided = (use.column for use in uses if use.ordered_by in gone)
    return Columns(following, primary_key, gone, new, tuple(dict.fromkeys((*gone, *decided))))


def _find_key(table: Table, readers: Readers, present: Schema) -> str:
    named = key_named(table, readers[0][1] if readers else None)
    key = find_column(named, present) if named else None
    if key is not None:
        return key
    if named and (table.primary_key or (table.origin and table.origin.get("key"))):
        message = f"the source has no column {named!r}, which is the key of its rows"
        raise Error(Code.INVALID, message, hint=hint_columns(named, present))
    message = "the source does not say which of its columns is the key of its rows"
    raise Error(Code.INVALID, message, hint=f"name it as `key` in the metadata; {hint_columns(named, present)}")


def _check_joins(table: Table, readers: Readers, present: Schema) -> None:
    """A join column that vanished must not be taken for an attribute's name: that would be another join."""
    for mapping, connection in readers:
        before = find_column(connection.join_attribute, table.columns)
        if before is not None and find_column(before, present) is None:
            message = f"the source has no column {before!r}, which connection {connection.id!r} joins on"
            raise Error(Code.INVALID, message, hint=hint_columns(before, present))
        find_join_column(mapping.entity, connection.join_attribute, present)
