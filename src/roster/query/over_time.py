"""Owns events with the custom attributes of their users as they were at the event's time. Reads no clock.

A connection whose source keeps history gives spans: each row that a source had, with the time during which it
counted. Spans of one join key are made to follow one another, so that an event meets one at most.
"""

from __future__ import annotations

from dataclasses import dataclass

from roster.model.connection import Connection
from roster.model.mapping import Attribute, Mapping
from roster.model.reference_table import Table, shared_of, spans_of, stored_columns
from roster.model.schema import EVENT_SCHEMA, Column as SchemaColumn, Type
from roster.model.source import CHANGED_AT
from roster.query.expr import Column, Compare, IsNull, Literal, Not
from roster.query.offers import Sources, attribute_value, find_source_column, row_column
from roster.query.plan import (
    Agg,
    Aggregate,
    During,
    Filter,
    Join,
    Measure,
    Named,
    Plan,
    Project,
    Rank,
    Read,
    SortKey,
    Union,
    Window,
    schema_of,
)
from roster.query.relations import (
    EVENTS,
    ROW,
    USER_OF_EVENT,
    JoinSides,
    declared,
    join_sides,
    normalise_key,
    profile_key,
    read_profiles,
)

SPAN = (
    ROW,
    SchemaColumn("_id", Type.STRING),
    SchemaColumn("_since", Type.TIMESTAMP),
    SchemaColumn("_until", Type.TIMESTAMP),
)
"""What spans have beside the columns of their table: the row's place, its key, since when and until when."""
FOLDED = SchemaColumn("_key", Type.STRING)
TIME = Column("time", Type.TIMESTAMP)


@dataclass(frozen=True, slots=True)
class _Names:
    """The columns of a connection's spans beside those of its source; no source has such a name."""

    prefix: str

    def _at(self, name: str, type: Type) -> Column:
        return Column(f"{self.prefix}#{name}", type)

    @property
    def key(self) -> Column:
        return self._at("key", Type.STRING)

    @property
    def id(self) -> Column:
        return self._at("id", Type.STRING)

    @property
    def since(self) -> Column:
        return self._at("since", Type.TIMESTAMP)

    @property
    def until(self) -> Column:
        return self._at("until", Type.TIMESTAMP)

    @property
    def user(self) -> Column:
        return self._at("user", Type.STRING)

    @property
    def ours(self) -> Column:
        return self._at("ours", Type.STRING)


def events_over_time(mapping: Mapping, sources: Sources, customs: tuple[Attribute, ...]) -> Plan:
    """All events with these attributes of their users beside, named `@name`, null where none was known.

    `sources`: those whose history can be read.
    """
    plan: Plan = EVENTS
    needed = {offer.connection.id for attribute in customs for offer in attribute.offers}
    for connection in mapping.connections:
        table = sources.get(connection.id)
        if connection.id in needed and table is not None:
            plan = _enrich(plan, mapping, connection, table, columns_used(connection, table))
    held = {c.name: c.type for c in schema_of(plan)}
    own: tuple[Named, ...] = tuple((c.name, Column(c.name, c.type)) for c in EVENT_SCHEMA)
    return Project(plan, (*own, *((a.id, attribute_value(a, sources, held)) for a in customs)))


def columns_used(connection: Connection, table: Table) -> tuple[SchemaColumn, ...]:
    """The columns that the values of a connection's fields hang on."""
    names = (*(f.source_name for f in connection.fields), dict(connection.metadata).get(CHANGED_AT, ""))
    used = {column.name for name in names if name and (column := find_source_column(table, name)) is not None}
    return tuple(c for c in table.columns if c.name in used)


def _enrich(
    plan: Plan, mapping: Mapping, connection: Connection, table: Table, columns: tuple[SchemaColumn, ...]
) -> Plan:
    """Events with what the source said of their user at their time.

    Users meet the spans first: they are fewer than events, and so events meet once what they need.
    """
    sides = join_sides(mapping.entity, connection, table)
    if sides is None:
        return plan
    names = _Names(f"{connection.id}.")
    held = {c.name: c.type for c in stored_columns(table)}
    row = row_column(connection)
    named: tuple[Named, ...] = (
        (names.key.name, normalise_key(declared(sides.column, held), sides.attribute.name)),
        *(
            (to.name, Column(c.name, c.type))
            for to, c in zip((row, names.id, names.since, names.until), SPAN, strict=True)
        ),
        *((f"{names.prefix}{c.name}", declared(c, held)) for c in columns),
    )
    spans = Filter(Project(Read(spans_of(table), (*SPAN, *stored_columns(table))), named), Not(IsNull(names.key)))
    user = profile_key(mapping.entity)
    ours = normalise_key(Column(sides.attribute.name, sides.attribute.type), sides.attribute.name)
    users = Project(read_profiles(mapping.entity), ((names.user.name, user), (names.ours.name, ours)))
    shared = _shared(spans, names, table, sides)
    lone = spans if shared is None else one_at_a_time(spans, names, row, shared)
    met = Join(users, lone, "inner", ((names.ours, names.key),))
    return Join(plan, met, "left", ((USER_OF_EVENT, names.user),), During(TIME, names.since, names.until))


def _shared(spans: Plan, names: _Names, table: Table, sides: JoinSides) -> Plan | None:
    """The join keys that several rows have or had, maybe among others; None when there can be none."""
    column = Column("#shared", Type.STRING)
    if sides.column.name == table.primary_key and sides.column.type is Type.STRING:
        if sides.attribute.name != "user_email":  # the key is what rows are told apart by
            return None
        return Project(Read(shared_of(table), (FOLDED,)), ((column.name, Column(FOLDED.name, FOLDED.type)),))
    low, high = Column("#low", Type.STRING), Column("#high", Type.STRING)
    ids = (Measure(low.name, Agg.MIN, names.id), Measure(high.name, Agg.MAX, names.id))
    by_key = Aggregate(spans, ((column.name, names.key),), ids)
    return Project(Filter(by_key, Compare("<", low, high)), ((column.name, column),))


def one_at_a_time(spans: Plan, names: _Names, row: Column, shared: Plan) -> Plan:
    """The spans such that no two of one join key meet: where several rows count at a time, the last one stays.

    Few keys have several rows. Only theirs are cut where any of their spans begins or ends, and ranked.
    """
    shared_key = Column("#shared", Type.STRING)
    alone = Join(spans, shared, "anti", ((names.key, shared_key),))
    several = Join(spans, shared, "semi", ((names.key, shared_key),))
    key, start, end = Column("#key", Type.STRING), Column("#start", Type.TIMESTAMP), Column("#end", Type.TIMESTAMP)
    ends = Union(tuple(Project(several, ((key.name, names.key), (start.name, t))) for t in (names.since, names.until)))
    starts = Aggregate(ends, ((key.name, key), (start.name, start)), ())
    pieces = Filter(Window(starts, end.name, Rank.LEAD, start, (key,), (SortKey(start),)), Not(IsNull(end)))
    covered = Join(pieces, several, "inner", ((key, names.key),), During(start, names.since, names.until))
    rank = Column("#rank", Type.INTEGER)
    order = (SortKey(row, descending=True), SortKey(names.id, descending=True))
    ranked = Window(covered, rank.name, Rank.ROW_NUMBER, None, (key, start), order)
    winners = Filter(ranked, Compare("=", rank, Literal(1, Type.INTEGER)))
    cut = {names.since.name: start, names.until.name: end}
    columns = tuple((c.name, cut.get(c.name, Column(c.name, c.type))) for c in schema_of(spans))
    return Union((alone, Project(winners, columns)))
