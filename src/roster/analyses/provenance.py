"""Owns plans that tell where one value of one profile comes from: every offer, and which of them counts."""

from __future__ import annotations

from dataclasses import replace

from roster.analyses.scopes import World
from roster.model.connection import Field
from roster.model.mapping import Attribute
from roster.model.reference_table import Table, column_of, relation_of, stored_columns
from roster.model.rules import NO_RULES
from roster.model.schema import Type
from roster.query.expr import Cast, Column, Compare, Expr, IsNull, Literal, Not
from roster.query.offers import Bid, attribute_value, bids_of, field_value, row_column, stored_value, wins_of
from roster.query.plan import Filter, Named, Plan, Project, Read, schema_of
from roster.query.relations import ROW, profile_key

PER_BID = 4


def bids(world: World, attribute: Attribute) -> tuple[Bid, ...]:
    """What sources that are there offer, in the order in which they count."""
    return bids_of(attribute, world.sources, _held(world))


def _held(world: World) -> dict[str, Type]:
    return {c.name: c.type for c in schema_of(world.relation.input)}


def provenance(world: World, attribute: Attribute, profile: str) -> Plan:
    """One row, none without such a profile: the value, then for each bid its row, its value, whether it would win,
    and since when its row is as it is."""
    joined = world.relation.input
    found = bids(world, attribute)
    key = profile_key(world.entity)
    columns: list[Named] = [("value", attribute_value(attribute, world.sources, _held(world)))]
    for i, (bid, wins) in enumerate(zip(found, wins_of(attribute, found), strict=True)):
        told: tuple[Expr, ...] = (row_column(bid.offer.connection), bid.value, wins, bid.changed)
        columns += [(f"{i}.{part}", expr) for part, expr in enumerate(told)]
    return Project(Filter(joined, Compare("=", key, Literal(profile, Type.STRING))), tuple(columns))


def source_cell(table: Table, field: Field, place: int) -> Plan | None:
    """Of the row at a place of a table its key and the field's cell, both as text, and whether the cell is of the
    field's type; None without such a column."""
    found = field_value(table, replace(field, rules=NO_RULES))
    if found is None:
        return None
    cell, typed = found
    is_keyed = column_of(table, table.primary_key) is not None
    key: Expr = stored_value(table, table.primary_key) if is_keyed else Literal(None, Type.STRING)
    columns: tuple[Named, ...] = (
        ("row_key", Cast(key, Type.STRING)),
        ("cell", Cast(cell, Type.STRING)),
        ("is_typed", Not(IsNull(typed))),
    )
    rows = Read(relation_of(table), (ROW, *stored_columns(table)))
    return Project(Filter(rows, Compare("=", Column(ROW.name, ROW.type), Literal(place, Type.INTEGER))), columns)
