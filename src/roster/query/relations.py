"""Owns the two relations everything is a plan over: profiles, joined with their sources, and events.

Builds the full meaning, every attribute of every connection; leaving out what a query does not need
is the business of rewrites.
"""

from __future__ import annotations

from collections.abc import Mapping as Map
from dataclasses import dataclass

from roster.model.connection import JOIN_SYNONYMS, Connection, parse_join_type
from roster.model.mapping import Attribute, Mapping, attributes
from roster.model.reference_table import Table, column_of, relation_of, stored_columns
from roster.model.schema import (
    EVENT_SCHEMA,
    EVENT_USER,
    KEY_ATTRIBUTE,
    TRAITS,
    Column as SchemaColumn,
    Entity,
    Type,
    profile_schema,
)
from roster.query.expr import TRUE, Call, Cast, Column, Compare, Expr, Fn, IsNull, Literal, Not
from roster.query.offers import Sources, attribute_value, find_source_column, row_column
from roster.query.plan import (
    Agg,
    Aggregate,
    Filter,
    Join,
    Measure,
    Named,
    Plan,
    Project,
    Rank,
    Read,
    SortKey,
    Window,
    schema_of,
)

EVENTS = Read("events", EVENT_SCHEMA)


def profile_key(entity: Entity) -> Column:
    """The column that identifies the profiles of an entity."""
    return Column(KEY_ATTRIBUTE[entity], Type.STRING)


USER_OF_EVENT = Column(EVENT_USER.name, EVENT_USER.type)
OWNER_OF_EVENT = {Entity.USERS: USER_OF_EVENT, Entity.ACCOUNTS: Column(KEY_ATTRIBUTE[Entity.ACCOUNTS], Type.STRING)}
"""The column of events that names the profile they belong to."""
ROW = SchemaColumn("_row", Type.INTEGER)
"""Every stored table carries its rows' order of insertion: the later of two duplicates wins."""


def read_profiles(entity: Entity) -> Read:
    """The stored profiles of an entity: built-ins only."""
    return Read(entity.value, profile_schema(entity))


def profiles(mapping: Mapping, sources: Sources, traits: tuple[Attribute, ...] = ()) -> Project:
    """All attributes of an entity under their bare names; a field whose source is missing is null."""
    plan: Plan = read_profiles(mapping.entity)
    for connection in mapping.connections:
        table = sources.get(connection.id)
        if table is not None:
            plan = enrich(plan, mapping.entity, connection, table)
    held = {column.name: column.type for column in schema_of(plan)}
    shown = (*attributes(mapping), *traits)
    return Project(plan, tuple((a.name, attribute_value(a, sources, held)) for a in shown))


@dataclass(frozen=True, slots=True)
class JoinSides:
    """Which attribute of the entity meets which column of the source."""

    attribute: SchemaColumn
    column: SchemaColumn


def join_sides(entity: Entity, connection: Connection, table: Table) -> JoinSides | None:
    """Read a connection's join: `join_type` is the entity's side, `join_attribute` the source's.

    When the source has no such column but the entity has such an attribute, it names the entity's
    side and the source's primary key is used. None when neither is so.
    """
    known = {c.name: c for c in profile_schema(entity) if c != TRAITS}
    column = find_source_column(table, connection.join_attribute)
    if column is not None:
        return JoinSides(known[parse_join_type(entity, connection.join_type)], column)
    synonym = JOIN_SYNONYMS[entity].get(connection.join_attribute, connection.join_attribute)
    attribute = known.get(synonym.removeprefix("@"))
    key = column_of(table, table.primary_key)
    return JoinSides(attribute, key) if attribute and key else None


EMAIL = "user_email"


def normalise_key(expr: Expr, attribute: str) -> Expr:
    """A join key as compared: e-mails trimmed and in lower case, anything else as its text; blank is none."""
    text = Cast(expr, Type.STRING)
    return Call(Fn.NULL_IF_EMPTY, (Call(Fn.LOWER, (Call(Fn.TRIM, (text,)),)) if attribute == EMAIL else text,))


@dataclass(frozen=True, slots=True)
class Matching:
    """A source's rows as a connection joins them: `rows` have a join key and are ranked within it, the last first.

    Columns of `rows` are `connection.column` for each column of the source, and `key`, `row`, `rank`.
    `ours` is the profile's side of the join.
    """

    ours: Expr
    key: Column
    row: Column
    rank: Column
    rows: Window
    attribute: str

    def folds(self) -> bool:
        """Whether keys may differ in case or blanks only: e-mails never do, as they are compared."""
        return self.attribute != EMAIL

    def winners(self) -> Filter:
        """One row a key: the one that counts."""
        return Filter(self.rows, Compare("=", self.rank, Literal(1, Type.INTEGER)))


def match_rows(entity: Entity, connection: Connection, table: Table) -> Matching | None:
    """How a connection joins its table; None when the table lacks the join's column."""
    sides = join_sides(entity, connection, table)
    if sides is None:
        return None
    attribute = sides.attribute
    prefix = f"{connection.id}."
    key = Column(f"{prefix}#key", Type.STRING)
    rank = Column(f"{prefix}#rank", Type.INTEGER)
    row = row_column(connection)
    held = {c.name: c.type for c in stored_columns(table)}
    stored = Read(relation_of(table), (ROW, *stored_columns(table)))
    named: tuple[Named, ...] = (
        (key.name, normalise_key(declared(sides.column, held), attribute.name)),
        (row.name, Column(ROW.name, ROW.type)),
        *((prefix + c.name, declared(c, held)) for c in table.columns),
    )
    keyed = Filter(Project(stored, named), Not(IsNull(key)))
    ranked = Window(keyed, rank.name, Rank.ROW_NUMBER, None, (key,), (SortKey(row, descending=True),))
    ours = normalise_key(Column(attribute.name, attribute.type), attribute.name)
    return Matching(ours, key, row, rank, ranked, attribute.name)


PROFILES = Column("#profiles", Type.INTEGER)
NEWEST = Column("#newest", Type.INTEGER)
ROWS = Column("#rows", Type.INTEGER)


def meet(entity: Entity, matching: Matching) -> Join:
    """Each join key of the source with its rows, the place of the newest, and how many profiles have it: null for none.

    Both sides are grouped by key before they meet, so that each is read once.
    """
    measures = (Measure(NEWEST.name, Agg.MAX, matching.row), Measure(ROWS.name, Agg.COUNT))
    theirs = Aggregate(matching.rows.input, ((matching.key.name, matching.key),), measures)
    ours = Aggregate(read_profiles(entity), (("#ours", matching.ours),), (Measure(PROFILES.name, Agg.COUNT),))
    return Join(theirs, ours, "left", ((matching.key, Column("#ours", Type.STRING)),))


def declared(column: SchemaColumn, held: Map[str, Type]) -> Expr:
    """A stored column as the type it is declared as."""
    stored = Column(column.name, held[column.name])
    return stored if stored.type is column.type else Cast(stored, column.type)


def enrich(plan: Plan, entity: Entity, connection: Connection, table: Table) -> Plan:
    """Profiles plus every column of the connection's source, named `connection.column`, null without a match.

    Beside them `connection.#row`, the place of the row that was found.
    """
    matching = match_rows(entity, connection, table)
    if matching is None:
        return plan
    joined = Join(plan, matching.winners(), "left", ((matching.ours, matching.key),))
    ours = {matching.key.name, matching.rank.name}
    kept = [c for c in schema_of(joined) if c.name not in ours]
    return Project(joined, tuple((c.name, Column(c.name, c.type)) for c in kept))


def events(users: Project | None, customs: tuple[Attribute, ...]) -> Plan:
    """All events; given profiles of users, with their custom attributes beside, named `@name`."""
    if users is None or not customs:
        return EVENTS
    key = Column("@#user", Type.STRING)
    columns: tuple[Named, ...] = (
        (key.name, profile_key(Entity.USERS)),
        *((a.id, Column(a.name, a.type)) for a in customs),
    )
    return Join(EVENTS, Project(users, columns), "left", ((USER_OF_EVENT, key),))


def where(plan: Plan, condition: Expr) -> Plan:
    """The plan filtered, or itself when the condition is always true."""
    return plan if condition == TRUE else Filter(plan, condition)


def count_rows(plan: Plan, name: str = "count") -> Aggregate:
    """One row: how many rows a plan gives."""
    return Aggregate(plan, (), (Measure(name, Agg.COUNT),))
