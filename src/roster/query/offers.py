"""Owns the value of an attribute out of what its sources offer: type, rules, which source counts. No joins."""

from __future__ import annotations

from collections.abc import Mapping as Map
from dataclasses import dataclass
from datetime import datetime

from roster.model.connection import Connection, Field, find_column
from roster.model.mapping import Attribute, Offer
from roster.model.reference_table import Table, column_of, stored_columns
from roster.model.rules import Choice, Nulls
from roster.model.schema import TRAITS, Column as SchemaColumn, Type
from roster.model.source import CHANGED_AT
from roster.query.expr import (
    And,
    Call,
    Cast,
    Column,
    Compare,
    Expr,
    Fn,
    Get,
    If,
    In,
    IsNull,
    Literal,
    Matches,
    Not,
)

Sources = Map[str, Table]
"""Connection id → the reference table it reads; connections that still wait are absent."""

OLDEST = Literal(datetime(1, 1, 1), Type.TIMESTAMP)


@dataclass(frozen=True, slots=True)
class Bid:
    """What one source offers a profile: the value, whether it counts, and since when its row is as it is."""

    offer: Offer
    value: Expr
    counts: Expr
    changed: Expr


def row_column(connection: Connection) -> Column:
    """Beside joined profiles: the place of the row that a connection found, null where it found none."""
    return Column(f"{connection.id}.#row", Type.INTEGER)


def find_source_column(table: Table, name: str) -> SchemaColumn | None:
    """The source column a field names."""
    found = find_column(name, table.columns)
    return column_of(table, found) if found else None


def accepted(field: Field, cell: Expr, type: Type) -> Expr:
    """A cell of that type as its field's readers see it: null where the field or its rules refuse it."""
    fits = type is field.type or (type is Type.INTEGER and field.type is Type.NUMBER)
    value = cell if fits else Cast(cell, field.type)
    rules, text = field.rules, Cast(value, Type.STRING)
    if rules.allowed:
        return If(In(text, tuple(Literal(a, Type.STRING) for a in rules.allowed)), value, Literal(None, field.type))
    if rules.pattern:
        return If(Matches(text, rules.pattern), value, Literal(None, field.type))
    return value


def stored_value(table: Table, name: str) -> Column:
    """A column as it is stored: what the source said."""
    held = {c.name: c.type for c in stored_columns(table)}
    return Column(name, held[name])


def field_value(table: Table, field: Field) -> tuple[Column, Expr] | None:
    """A field's cell as stored, and as its readers see it; None when the table lacks its column."""
    column = find_source_column(table, field.source_name)
    if column is None:
        return None
    stored = stored_value(table, column.name)
    declared: Expr = stored if stored.type is column.type else Cast(stored, column.type)
    return stored, accepted(field, declared, column.type)


def attribute_value(attribute: Attribute, sources: Sources, held: Map[str, Type]) -> Expr:
    """The attribute over profiles joined with their sources; `held`: the columns of that relation."""
    if not attribute.is_custom:
        return Column(attribute.name, attribute.type)
    if attribute.trait:
        return Cast(Get(Column(TRAITS.name, TRAITS.type), attribute.trait), attribute.type)
    bids = bids_of(attribute, sources, held)
    if len(bids) == 1 and attribute.choice is not Choice.NON_EMPTY:
        return bids[0].value
    chosen: Expr = Literal(None, attribute.type)
    for bid, wins in zip(reversed(bids), reversed(wins_of(attribute, bids)), strict=True):
        chosen = If(wins, bid.value, chosen)
    return chosen


def wins_of(attribute: Attribute, bids: tuple[Bid, ...]) -> tuple[Expr, ...]:
    """For each bid whether it would win if those before it did not: the first that is true wins."""
    if attribute.choice is not Choice.NEWEST or len(bids) < 2:
        return tuple(bid.counts for bid in bids)
    newest = Call(Fn.GREATEST, tuple(If(b.counts, b.changed, Literal(None, Type.TIMESTAMP)) for b in bids))
    return tuple(And((b.counts, Compare("=", b.changed, newest))) for b in bids)


def bids_of(attribute: Attribute, sources: Sources, held: Map[str, Type]) -> tuple[Bid, ...]:
    """What the sources that are there offer, in the order in which they count."""
    found = (_bid(offer, attribute.choice, sources, held) for offer in attribute.offers)
    return tuple(bid for bid in found if bid is not None)


def _bid(offer: Offer, choice: Choice, sources: Sources, held: Map[str, Type]) -> Bid | None:
    connection, field = offer.connection, offer.field
    cell = _cell(connection, field.source_name, sources, held)
    if cell is None:
        return None
    value = accepted(field, cell, cell.type)
    counts: Expr = Not(IsNull(value))
    if choice is Choice.NON_EMPTY and field.type is Type.STRING:
        counts = Not(IsNull(Call(Fn.NULL_IF_EMPTY, (Call(Fn.TRIM, (value,)),))))
    elif choice is not Choice.NON_EMPTY and field.rules.nulls is Nulls.CLEAR:
        counts = Not(IsNull(row_column(connection)))
    return Bid(offer, value, counts, _changed(connection, sources, held))


def _cell(connection: Connection, name: str, sources: Sources, held: Map[str, Type]) -> Column | None:
    table = sources.get(connection.id)
    source = find_source_column(table, name) if table else None
    joined = f"{connection.id}.{source.name}" if source else ""
    return Column(joined, source.type) if source and joined in held else None


def _changed(connection: Connection, sources: Sources, held: Map[str, Type]) -> Expr:
    cell = _cell(connection, dict(connection.metadata).get(CHANGED_AT, ""), sources, held)
    if cell is None:
        return OLDEST
    time = cell if cell.type is Type.TIMESTAMP else Cast(cell, Type.TIMESTAMP)
    return If(IsNull(time), OLDEST, time)
