"""Owns the ready-made joins of profiles with their sources: a cache that is never wrong, only absent.

`<entity>_enriched_<n>` holds the profiles with every column of every connection's source, as one plan joins
them; there is one for each plan that is asked for. A plan that joins them the same way reads it instead.
Profiles that change, or meet a row that changes, are renewed in the same transaction; a source that changes
as a whole drops it in the same transaction, and it is built again in the background.

A table is built beside running writes. `enriched_missed` notes the profiles that change meanwhile; they are
renewed when the table is finished, in the transaction that lets it be read.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from threading import Lock

import duckdb

from roster.base.values import digest
from roster.engine.connection import Duck
from roster.engine.newest import group_newest
from roster.engine.places import at_places
from roster.model.schema import KEY_ATTRIBUTE, Entity, profile_schema
from roster.query.dialect import DUCKDB
from roster.query.narrow import narrow_to
from roster.query.plan import Filter, Join, Plan, Project, Read, Union, Window, schema_of
from roster.query.relations import profile_key, read_profiles
from roster.query.rewrite import map_inputs, prune, relations_of
from roster.query.sql import render

DDL = (
    "CREATE TABLE IF NOT EXISTS enriched_layout (name VARCHAR, entity VARCHAR, layout VARCHAR)",
    "CREATE TABLE IF NOT EXISTS enriched_source (name VARCHAR, relation VARCHAR)",
    "CREATE TABLE IF NOT EXISTS enriched_missed (name VARCHAR, key VARCHAR)",
)
RENEWED_MAX = 10_000
"""Profiles renewed at once when rows of a source change; beyond that, building anew is cheaper."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Which joins an enriched table holds (by digest, innermost first)."""

    name: str
    entity: Entity
    joins: tuple[str, ...]


@dataclass(slots=True)
class _Building:
    """A table in the making; `spoiled` when a source changed as a whole meanwhile."""

    entity: Entity
    plan: Plan
    spoiled: bool = False


@lru_cache(maxsize=256)
def join_digest(join: Join, columns: tuple[str, ...]) -> str:
    """Names what a join adds, whatever it is added to."""
    during = [repr(join.during)] if join.during else []
    return digest([repr(join.right), repr(join.on), columns, *during])


def _added(plan: Project, join: Join) -> tuple[str, ...]:
    held = {c.name for c in schema_of(join.left)}
    return tuple(name for name, _ in plan.columns if name not in held)


class Enriched:
    """Builds, renews, drops and reads the enriched tables of one database."""

    def __init__(self, duck: Duck) -> None:
        self._duck = duck
        self._plans: dict[str, Plan] = {}
        self._building: dict[str, _Building] = {}
        self._keeping = Lock()
        with duck.write() as connection:
            _prepare(connection)

    def read(self, connection: duckdb.DuckDBPyConnection, plan: Plan) -> Plan:
        """The plan reading enriched tables wherever this snapshot has the very joins it makes."""
        if not relations_of(plan) & {e.value for e in Entity}:
            return plan
        layouts = _layouts(connection)
        return substitute(plan, layouts) if layouts else plan

    def keep(self, entity: Entity, plans: Sequence[Plan]) -> None:
        """Build a table for the joins of each plan that has none yet, then drop those of other plans."""
        wanted = {tuple(joins_of(plan)): plan for plan in plans}
        wanted.pop((), None)
        with self._keeping:
            for joins, plan in wanted.items():
                if not self._is_held(entity, joins, plan):
                    self._build(entity, joins, plan)
            with self._duck.write() as connection:
                for layout in _layouts(connection):
                    if layout.entity is entity and layout.joins not in wanted:
                        self._drop(connection, layout.name)

    def _is_held(self, entity: Entity, joins: tuple[str, ...], plan: Plan) -> bool:
        with self._duck.write() as connection:
            for layout in _layouts(connection):
                if (layout.entity, layout.joins) == (entity, joins):
                    self._plans[layout.name] = plan
                    return True
        return False

    def _build(self, entity: Entity, joins: tuple[str, ...], plan: Plan) -> None:
        with self._begin(entity, plan) as (name, snapshot):
            rendered = render(group_newest(plan), DUCKDB)
            snapshot.execute(f'CREATE TABLE "{name}" AS {rendered.sql}', list(rendered.parameters))
            snapshot.execute("COMMIT")
            with self._duck.write() as connection:
                if self._building[name].spoiled:
                    return
                _renew(
                    connection, name, entity, plan, f"SELECT DISTINCT key FROM enriched_missed WHERE name = '{name}'"
                )
                layout = [name, entity.value, json.dumps(joins)]
                connection.execute("INSERT INTO enriched_layout VALUES (?, ?, ?)", layout)
                for relation in sorted(relations_of(plan)):
                    connection.execute("INSERT INTO enriched_source VALUES (?, ?)", [name, relation])
                self._plans[name] = plan

    @contextmanager
    def _begin(self, entity: Entity, plan: Plan) -> Iterator[tuple[str, duckdb.DuckDBPyConnection]]:
        """A name, and a transaction that sees all changes up to now; those that follow are noted."""
        with self._duck.write() as connection:
            taken = {*_stored(connection), *self._building}
            name = next(n for i in range(len(taken) + 1) if (n := f"{entity.value}_enriched_{i + 1}") not in taken)
            snapshot = self._duck.cursor()
            snapshot.execute("BEGIN")
            snapshot.execute("SELECT count(*) FROM enriched_layout").fetchall()
            self._building[name] = _Building(entity, plan)
        try:
            yield name, snapshot
        finally:
            snapshot.close()
            with self._duck.write() as connection:
                del self._building[name]
                connection.execute("DELETE FROM enriched_missed WHERE name = ?", [name])
                if name not in {layout.name for layout in _layouts(connection)}:
                    connection.execute(f'DROP TABLE IF EXISTS "{name}"')

    def _drop(self, connection: duckdb.DuckDBPyConnection, name: str) -> None:
        connection.execute(f'DROP TABLE IF EXISTS "{name}"')
        connection.execute("DELETE FROM enriched_layout WHERE name = ?", [name])
        connection.execute("DELETE FROM enriched_source WHERE name = ?", [name])

    def renew_profiles(self, connection: duckdb.DuckDBPyConnection, entity: Entity, changed: str) -> None:
        """Renew the profiles whose key is in the table `changed`, inside the caller's transaction."""
        keys = f'SELECT DISTINCT "{KEY_ATTRIBUTE[entity]}" AS key FROM "{changed}"'
        for name, building in self._building.items():
            if building.entity is entity:
                connection.execute(f"INSERT INTO enriched_missed SELECT '{name}', key FROM ({keys})")
        for layout in _layouts(connection):
            if layout.entity is entity:
                plan = self._plans.get(layout.name)
                if plan is None:
                    self._drop(connection, layout.name)
                else:
                    _renew(connection, layout.name, entity, plan, keys)

    def change_source(self, connection: duckdb.DuckDBPyConnection, relation: str, touched: str | None) -> None:
        """Put right what was built from a relation that changes, inside the caller's transaction.

        `touched` holds the rows that went and those that came; None when all may have.
        """
        for name, building in self._building.items():
            if relation in relations_of(building.plan):
                keys = self._meeting(connection, building.entity, building.plan, relation, touched)
                building.spoiled |= keys is None
                if keys is not None:
                    connection.execute(f"INSERT INTO enriched_missed SELECT '{name}', key FROM ({keys})")
        found = connection.execute("SELECT DISTINCT name FROM enriched_source WHERE relation = ?", [relation])
        names = {name for (name,) in found.fetchall()}
        for layout in _layouts(connection):
            if layout.name in names:
                plan = self._plans.get(layout.name)
                keys = self._meeting(connection, layout.entity, plan, relation, touched)
                if plan is None or keys is None:
                    self._drop(connection, layout.name)
                else:
                    _renew(connection, layout.name, layout.entity, plan, keys)

    def _meeting(
        self,
        connection: duckdb.DuckDBPyConnection,
        entity: Entity,
        plan: Plan | None,
        relation: str,
        touched: str | None,
    ) -> str | None:
        """A SELECT of the keys of the profiles that meet touched rows; None when they are too many or unknown."""
        if plan is None or touched is None:
            return None
        rendered = render(prune(meeting(plan, entity, relation, touched)), DUCKDB)
        connection.execute(f"CREATE OR REPLACE TEMP TABLE met AS {rendered.sql}", list(rendered.parameters))
        found = connection.execute("SELECT count(*) FROM temp.met").fetchone()
        return "SELECT DISTINCT key FROM temp.met" if found and found[0] <= RENEWED_MAX else None


def _prepare(connection: duckdb.DuckDBPyConnection) -> None:
    """Make room for layouts, and remove what an older layout or a killed process left."""
    described = "SELECT column_name FROM duckdb_columns() WHERE table_name = 'enriched_layout'"
    if "plan" in {name for (name,) in connection.execute(described).fetchall()}:
        connection.execute("DROP TABLE enriched_layout")
        connection.execute("DROP TABLE enriched_source")
    for statement in DDL:
        connection.execute(statement)
    connection.execute("DELETE FROM enriched_missed")
    for name in _stored(connection) - {layout.name for layout in _layouts(connection)}:
        connection.execute(f'DROP TABLE "{name}"')


def _stored(connection: duckdb.DuckDBPyConnection) -> set[str]:
    found = connection.execute("SELECT table_name FROM duckdb_tables() WHERE NOT temporary").fetchall()
    return {name for (name,) in found if re.fullmatch(r"(users|accounts)_enriched(_[0-9]+)?", name)}


def _layouts(connection: duckdb.DuckDBPyConnection) -> list[Layout]:
    rows = connection.execute("SELECT name, entity, layout FROM enriched_layout ORDER BY name").fetchall()
    return [Layout(name, Entity(entity), tuple(json.loads(layout))) for name, entity, layout in rows]


def _renew(connection: duckdb.DuckDBPyConnection, name: str, entity: Entity, plan: Plan, keys: str) -> None:
    """Compute anew the profiles of a table whose key the SELECT `keys` gives."""
    key = KEY_ATTRIBUTE[entity]
    connection.execute(f'CREATE OR REPLACE TEMP TABLE renewed_keys AS SELECT key AS "{key}" FROM ({keys})')
    mine = f'"{key}" IN (SELECT "{key}" FROM temp.renewed_keys)'
    connection.execute(
        f"CREATE OR REPLACE TEMP TABLE renewed AS SELECT * FROM {entity} WHERE {at_places(connection, entity, mine)}"
    )
    rendered = render(narrow_to(plan, entity, Read("renewed", profile_schema(entity))), DUCKDB)
    connection.execute(f'DELETE FROM "{name}" WHERE {mine}')
    connection.execute(f'INSERT INTO "{name}" BY NAME {rendered.sql}', list(rendered.parameters))


def joins_of(plan: Plan) -> list[str]:
    """Digests of the joins a profiles relation makes, innermost first."""
    match plan:
        case Project(Join(left, _, "left") as join, _):
            return [*joins_of(left), join_digest(join, _added(plan, join))]
        case _:
            return []


def _base(plan: Plan) -> Plan:
    """What the joins of a profiles relation begin with."""
    match plan:
        case Project(Join(left, _, "left"), _):
            return _base(left)
        case _:
            return plan


def substitute(plan: Plan, layouts: Sequence[Layout]) -> Plan:
    """The plan with every chain of known joins on profiles replaced by a read of the table that holds most of them."""
    base = _base(plan)
    if base is not plan and isinstance(base, Read):
        joins = joins_of(plan)
        fitting = [layout for layout in layouts if layout.entity.value == base.relation]
        best = max(fitting, key=lambda layout: _held(joins, layout), default=None)
        if best is not None and _held(joins, best):
            return _replace(plan, len(joins) - _held(joins, best), best.name, layouts)
    return map_inputs(plan, lambda p: substitute(p, layouts))


def _held(joins: Sequence[str], layout: Layout) -> int:
    """How many of the innermost joins a table holds."""
    return next((n for n, join in enumerate(joins) if join not in layout.joins), len(joins))


def _replace(plan: Plan, outer: int, name: str, layouts: Sequence[Layout]) -> Plan:
    """The plan with all but its `outer` joins replaced by a read of the table of that name."""
    if outer == 0:
        return Read(name, schema_of(plan))
    match plan:
        case Project(Join(left, right, "left") as join, _):
            left = _replace(left, outer - 1, name, layouts)
            return replace(plan, input=replace(join, left=left, right=substitute(right, layouts)))
    return plan


def meeting(plan: Plan, entity: Entity, relation: str, touched: str) -> Plan:
    """The keys, as `key`, of the profiles that a join of the plan brings together with rows of the table `touched`."""
    key = (("key", profile_key(entity)),)
    found: list[Plan] = []
    while isinstance(plan, Project) and isinstance(plan.input, Join):
        join = plan.input
        match join.right:
            case Filter(Window(input)) if relation in relations_of(input):
                found.append(
                    Project(Join(read_profiles(entity), _reread(input, relation, touched), "semi", join.on), key)
                )
        plan = join.left
    return found[0] if len(found) == 1 else Union(tuple(found))


def _reread(plan: Plan, relation: str, table: str) -> Plan:
    match plan:
        case Read(name, schema):
            return Read(table, schema) if name == relation else plan
        case _:
            return map_inputs(plan, lambda p: _reread(p, relation, table))
