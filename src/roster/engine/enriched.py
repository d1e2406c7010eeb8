"""Owns the ready-made join of profiles with their sources: a cache that is never wrong, only absent.

`<entity>_enriched` holds the profiles with every column of every connection's source. A plan that
joins them the same way reads it instead. Profiles that change are renewed in the same transaction;
a source that changes drops it in the same transaction, and it is built again in the background.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from functools import lru_cache

import duckdb

from roster.base.values import digest
from roster.engine.connection import Duck
from roster.model.schema import KEY_ATTRIBUTE, Column as SchemaColumn, Entity, Type, profile_schema
from roster.query.dialect import DUCKDB
from roster.query.expr import Column
from roster.query.plan import Filter, Join, Plan, Project, Read, Window, schema_of
from roster.query.relations import read_profiles
from roster.query.rewrite import map_inputs, relations_of
from roster.query.sql import render

DDL = (
    "CREATE TABLE IF NOT EXISTS enriched_layout (entity VARCHAR, layout VARCHAR, plan VARCHAR)",
    "CREATE TABLE IF NOT EXISTS enriched_source (entity VARCHAR, relation VARCHAR)",
)


@dataclass(frozen=True, slots=True)
class Layout:
    """Which joins an enriched table holds (by digest, innermost first)."""

    joins: tuple[str, ...]


def _relation(entity: Entity) -> str:
    return f"{entity.value}_enriched"


@lru_cache(maxsize=256)
def join_digest(join: Join, columns: tuple[str, ...]) -> str:
    """Names what a join adds, whatever it is added to."""
    return digest([repr(join.right), repr(join.on), columns])


def _added(plan: Project, join: Join) -> tuple[str, ...]:
    held = {c.name for c in schema_of(join.left)}
    return tuple(name for name, _ in plan.columns if name not in held)


class Enriched:
    """Builds, renews, drops and reads the enriched tables of one database."""

    def __init__(self, duck: Duck) -> None:
        self._duck = duck
        self._plans: dict[Entity, Plan] = {}
        with duck.write() as connection:
            for statement in DDL:
                connection.execute(statement)

    def read(self, connection: duckdb.DuckDBPyConnection, plan: Plan) -> Plan:
        """The plan reading enriched tables wherever this snapshot has the very joins it makes."""
        if not relations_of(plan) & {e.value for e in Entity}:
            return plan
        rows = connection.execute("SELECT entity, layout FROM enriched_layout").fetchall()
        layouts = {Entity(entity): Layout(tuple(json.loads(layout))) for entity, layout in rows}
        return substitute(plan, layouts) if layouts else plan

    def build(self, entity: Entity, plan: Plan) -> None:
        """Build the table for the joins of `plan`, unless it is already held; no joins: drop it."""
        joins = joins_of(plan)
        with self._duck.write() as connection:
            self._plans[entity] = plan
            wanted = json.dumps(joins)
            held = connection.execute("SELECT layout FROM enriched_layout WHERE entity = ?", [entity.value]).fetchone()
            if held is not None and held[0] == wanted:
                return
            self._drop(connection, entity)
            if not joins:
                return
            rendered = render(plan, DUCKDB)
            connection.execute(f'CREATE TABLE "{_relation(entity)}" AS {rendered.sql}', list(rendered.parameters))
            connection.execute("INSERT INTO enriched_layout VALUES (?, ?, ?)", [entity.value, wanted, ""])
            for relation in sorted(relations_of(plan)):
                connection.execute("INSERT INTO enriched_source VALUES (?, ?)", [entity.value, relation])

    def _drop(self, connection: duckdb.DuckDBPyConnection, entity: Entity) -> None:
        connection.execute(f'DROP TABLE IF EXISTS "{_relation(entity)}"')
        connection.execute("DELETE FROM enriched_layout WHERE entity = ?", [entity.value])
        connection.execute("DELETE FROM enriched_source WHERE entity = ?", [entity.value])

    def renew_profiles(self, connection: duckdb.DuckDBPyConnection, entity: Entity, changed: str) -> None:
        """Renew the profiles whose key is in the table `changed`, inside the caller's transaction."""
        held = connection.execute("SELECT layout FROM enriched_layout WHERE entity = ?", [entity.value]).fetchone()
        if held is None:
            return
        plan = self._plans.get(entity)
        if plan is None or json.dumps(joins_of(plan)) != held[0]:
            self._drop(connection, entity)
            return
        key = KEY_ATTRIBUTE[entity]
        name = _relation(entity)
        rendered = render(narrow(plan, entity, changed), DUCKDB)
        connection.execute(f'DELETE FROM "{name}" WHERE "{key}" IN (SELECT "{key}" FROM "{changed}")')
        connection.execute(f'INSERT INTO "{name}" BY NAME {rendered.sql}', list(rendered.parameters))

    def drop_source(self, connection: duckdb.DuckDBPyConnection, table_id: str) -> None:
        """Drop what was built from a table that changes, inside the caller's transaction."""
        found = connection.execute(
            "SELECT DISTINCT entity FROM enriched_source WHERE relation = ?", [f"table:{table_id}"]
        )
        for (entity,) in found.fetchall():
            self._drop(connection, Entity(entity))


def joins_of(plan: Plan) -> list[str]:
    """Digests of the joins a profiles relation makes, innermost first."""
    match plan:
        case Project(Join(left, _, "left") as join, _):
            return [*joins_of(left), join_digest(join, _added(plan, join))]
        case _:
            return []


def substitute(plan: Plan, layouts: dict[Entity, Layout]) -> Plan:
    """The plan with every chain of known joins on profiles replaced by a read of the enriched table."""
    plan = map_inputs(plan, lambda p: substitute(p, layouts))
    match plan:
        case Project(Join(Read(relation, schema), _, "left") as join, _):
            for entity, layout in layouts.items():
                added = _added(plan, join)
                if relation in (entity.value, _relation(entity)) and join_digest(join, added) in layout.joins:
                    return Read(_relation(entity), (*schema, *(c for c in schema_of(plan) if c.name in added)))
    return plan


def narrow(plan: Plan, entity: Entity, changed: str) -> Plan:
    """The plan for only the profiles in the table `changed`.

    The sources are cut down before their duplicates are ranked: a rank within one key does not
    depend on other keys, so a semi-join on the key may go below it.
    """
    key = SchemaColumn(KEY_ATTRIBUTE[entity], Type.STRING)
    ids = Read(changed, (key,))
    column = Column(key.name, key.type)
    few = Join(read_profiles(entity), ids, "semi", ((column, column),))
    return _narrow(plan, entity, few)


def _narrow(plan: Plan, entity: Entity, few: Plan) -> Plan:
    match plan:
        case Project(Join(left, Filter(Window() as window, rank), "left", on) as join, columns):
            profile_keys = Project(few, tuple((c.name, Column(c.name, c.type)) for c in profile_schema(entity)))
            kept = replace(
                window, input=Join(window.input, profile_keys, "semi", tuple((theirs, ours) for ours, theirs in on))
            )
            return Project(replace(join, left=_narrow(left, entity, few), right=Filter(kept, rank)), columns)
        case Read():
            return few
        case _:
            return map_inputs(plan, lambda p: _narrow(p, entity, few))
