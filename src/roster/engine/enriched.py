"""Owns the ready-made joins of profiles with their sources: a cache that is never wrong, only absent.

`<entity>_enriched_<n>` holds the profiles with every column of every connection's source, as one plan joins
them; there is one for each plan that is asked for. A plan that joins them the same way reads it instead.
Profiles that change, or meet a row that changes, are renewed in the same transaction; a source that changes
as a whole drops it in the same transaction, and it is built again in the background.

One is made beside running writes: of all profiles or, when its source is another with few rows put in, of those
that meet them, beside what is held of the others. `enriched_missed` notes the profiles that change meanwhile;
they are renewed when it is finished, in the transaction that lets it be read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from threading import Lock

import duckdb

from roster.base.values import digest
from roster.engine.connection import Duck
from roster.engine.generations import Increment, number
from roster.engine.layouts import (
    ALL,
    LATER,
    Layout,
    add_layout,
    compute_few,
    drop_layout,
    free_name,
    prepare,
    read_layouts,
    renew,
    rows_of,
    share,
    with_edition,
)
from roster.engine.newest import group_newest
from roster.model.schema import KEY_ATTRIBUTE, Entity, Schema
from roster.query.dialect import DUCKDB
from roster.query.expr import Column
from roster.query.plan import Filter, Join, Plan, Project, Read, Union, Window, schema_of
from roster.query.relations import ROW, profile_key, read_profiles
from roster.query.rewrite import map_inputs, prune, relations_of
from roster.query.sql import render

RENEWED_MAX = 10_000
"""Profiles renewed at once when rows of a source change; beyond that, building anew is cheaper."""
INCREMENT_MAX = 0.1
"""Share of the profiles that an increment may touch; beyond that little is gained, and other writers wait for long."""

Rows = Callable[[Schema], Plan]
"""Rows of a source that are looked at instead of all of it, in its shape."""


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
            prepare(connection)

    def read(self, connection: duckdb.DuckDBPyConnection, plan: Plan) -> Plan:
        """The plan reading enriched tables wherever this snapshot has the very joins it makes."""
        if not relations_of(plan) & {e.value for e in Entity}:
            return plan
        layouts = read_layouts(connection)
        return substitute(plan, layouts) if layouts else plan

    def keep(self, entity: Entity, plans: Sequence[Plan]) -> None:
        """Build a table for the joins of each plan that has none yet, then drop those of other plans."""
        wanted = {tuple(joins_of(plan)): plan for plan in plans}
        wanted.pop((), None)
        with self._keeping:
            for joins, plan in wanted.items():
                if not self._is_held(entity, joins, plan) and not self._go_on(entity, joins, plan):
                    self._build(entity, joins, plan)
            with self._duck.write() as connection:
                for layout in read_layouts(connection):
                    if layout.entity is entity and layout.joins not in wanted:
                        drop_layout(connection, layout.name)

    def _is_held(self, entity: Entity, joins: tuple[str, ...], plan: Plan) -> bool:
        with self._duck.write() as connection:
            for layout in read_layouts(connection):
                if (layout.entity, layout.joins) == (entity, joins):
                    self._plans[layout.name] = plan
                    return True
        return False

    def _build(self, entity: Entity, joins: tuple[str, ...], plan: Plan) -> None:
        with self._begin(entity, plan) as (name, snapshot):
            rendered = render(group_newest(plan), DUCKDB)
            snapshot.execute(
                f'CREATE TABLE "{rows_of(name)}" AS {with_edition(rendered.sql)}', list(rendered.parameters)
            )
            snapshot.execute("COMMIT")
            with self._duck.write() as connection:
                if not self._building[name].spoiled:
                    self._finish(connection, Layout(name, entity, joins, rows_of(name)), plan)

    def _finish(self, connection: duckdb.DuckDBPyConnection, layout: Layout, plan: Plan) -> None:
        """Let a layout be read, after renewing what changed while it was made."""
        add_layout(connection, layout, relations_of(plan))
        self._plans[layout.name] = plan
        self._renew(connection, layout.rows, f"SELECT DISTINCT key FROM enriched_missed WHERE name = '{layout.name}'")

    def _go_on(self, entity: Entity, joins: tuple[str, ...], plan: Plan) -> bool:
        """Make a table of one that is held of the sources before increments; False when building it anew is better."""
        with self._duck.write() as connection:
            if not _increments(connection, plan):
                return False
        with self._begin(entity, plan) as (name, snapshot):
            increments = _increments(snapshot, plan)
            former = _find_alone(snapshot, entity, _before(plan, increments)) if increments else None
            if former is None or self._plans.get(former.name) is None:
                return False
            touched = {relation: _touched(increment) for relation, increment in increments.items()}
            met = _meet(snapshot, plan, entity, touched)
            if met > number(snapshot, f"SELECT count(*) FROM {entity}") * INCREMENT_MAX:
                return False
            few = compute_few(snapshot, entity, plan, _MET)
            snapshot.execute(f'CREATE TABLE "{rows_of(name)}" AS {few.sql}', list(few.parameters))
            snapshot.execute("COMMIT")
            with self._duck.write() as connection:
                # a change of the source before would be among the rows that are shared
                is_current = _increments(connection, plan) == increments and former in read_layouts(connection)
                if self._building[name].spoiled or not is_current:
                    return False
                share(connection, former, rows_of(name))
                self._finish(connection, Layout(name, entity, joins, former.rows, LATER), plan)
        return True

    @contextmanager
    def _begin(self, entity: Entity, plan: Plan) -> Iterator[tuple[str, duckdb.DuckDBPyConnection]]:
        """A name, and a transaction that sees all changes up to now; those that follow are noted."""
        with self._duck.write() as connection:
            name = free_name(connection, entity, {*self._building})
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
                if rows_of(name) not in {layout.rows for layout in read_layouts(connection)}:
                    connection.execute(f'DROP TABLE IF EXISTS "{rows_of(name)}"')

    def renew_profiles(self, connection: duckdb.DuckDBPyConnection, entity: Entity, changed: str) -> None:
        """Renew the profiles whose key is in the table `changed`, inside the caller's transaction."""
        keys = f'SELECT DISTINCT "{KEY_ATTRIBUTE[entity]}" AS key FROM "{changed}"'
        for name, building in self._building.items():
            if building.entity is entity:
                connection.execute(f"INSERT INTO enriched_missed SELECT '{name}', key FROM ({keys})")
        for rows in dict.fromkeys(layout.rows for layout in read_layouts(connection) if layout.entity is entity):
            self._renew(connection, rows, keys)

    def _renew(self, connection: duckdb.DuckDBPyConnection, rows: str, keys: str) -> None:
        """Renew profiles in a table, for the layouts over it; those whose plan is not known since a restart go."""
        for layout in read_layouts(connection):
            if layout.rows == rows and layout.name not in self._plans:
                drop_layout(connection, layout.name)
        shown = [(lay, self._plans[lay.name]) for lay in read_layouts(connection) if lay.rows == rows]
        if shown:
            renew(connection, shown[0][0].entity, shown, keys)

    def change_source(
        self, connection: duckdb.DuckDBPyConnection, relation: str, touched: str | Increment | None
    ) -> None:
        """Put right what was built from a relation that changes, inside the caller's transaction.

        `touched` holds the rows that went and those that came; None when all may have. An increment: all may have,
        and are now those of another relation with some put in.
        """
        connection.execute("DELETE FROM enriched_increment WHERE relation = $1 OR before = $1", [relation])
        if isinstance(touched, Increment):
            values = [relation, touched.before, touched.fresh]
            connection.execute("INSERT INTO enriched_increment VALUES (?, ?, ?)", values)
            touched = None
        for name, building in self._building.items():
            if relation in relations_of(building.plan):
                keys = self._meeting(connection, building.entity, building.plan, relation, touched)
                building.spoiled |= keys is None
                if keys is not None:
                    connection.execute(f"INSERT INTO enriched_missed SELECT '{name}', key FROM ({keys})")
        found = connection.execute("SELECT DISTINCT name FROM enriched_source WHERE relation = ?", [relation])
        names = {name for (name,) in found.fetchall()}
        for layout in read_layouts(connection):
            if layout.name in names:
                keys = self._meeting(connection, layout.entity, self._plans.get(layout.name), relation, touched)
                if keys is None:
                    drop_layout(connection, layout.name)
                else:
                    self._renew(connection, layout.rows, keys)

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
        met = _meet(connection, plan, entity, {relation: _all_of(touched)})
        return _MET if met <= RENEWED_MAX else None


_MET = "SELECT DISTINCT key FROM temp.met"


def _meet(connection: duckdb.DuckDBPyConnection, plan: Plan, entity: Entity, touched: dict[str, Rows]) -> int:
    """Keep the keys of the profiles that meet touched rows in `temp.met`; gives how many at most."""
    rendered = render(prune(meeting(plan, entity, touched)), DUCKDB)
    connection.execute(f"CREATE OR REPLACE TEMP TABLE met AS {rendered.sql}", list(rendered.parameters))
    return number(connection, "SELECT count(*) FROM temp.met")


def _increments(connection: duckdb.DuckDBPyConnection, plan: Plan) -> dict[str, Increment]:
    """The relations of a plan that are others with rows put in, as long as neither changed since."""
    found = connection.execute("SELECT relation, before, fresh FROM enriched_increment").fetchall()
    read = relations_of(plan)
    return {relation: Increment(before, fresh) for relation, before, fresh in found if relation in read}


def _before(plan: Plan, increments: dict[str, Increment]) -> tuple[str, ...]:
    """The joins of a plan as they were before increments."""
    for relation, increment in increments.items():
        plan = _reread(plan, relation, _all_of(increment.before))
    return tuple(joins_of(plan))


def _find_alone(connection: duckdb.DuckDBPyConnection, entity: Entity, joins: tuple[str, ...]) -> Layout | None:
    """The layout of these joins, if it shares its table with no other."""
    layouts = read_layouts(connection)
    return next((lay for lay in layouts if (lay.entity, lay.joins, lay.edition) == (entity, joins, ALL)), None)


def _all_of(table: str) -> Rows:
    return lambda schema: Read(table, schema)


def _touched(increment: Increment) -> Rows:
    """The rows that an increment put in, and those in whose place."""

    def rows(schema: Schema) -> Plan:
        place = Column(ROW.name, ROW.type)
        replaced = Join(Read(increment.before, schema), Read(increment.fresh, (ROW,)), "semi", ((place, place),))
        return Union((Read(increment.fresh, schema), replaced))

    return rows


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


def meeting(plan: Plan, entity: Entity, touched: dict[str, Rows]) -> Plan:
    """The keys, as `key`, of the profiles that a join of the plan brings together with touched rows of a relation."""
    key = (("key", profile_key(entity)),)
    found: list[Plan] = []
    while isinstance(plan, Project) and isinstance(plan.input, Join):
        join = plan.input
        match join.right:
            case Filter(Window(input)):
                for relation in sorted(relations_of(input) & touched.keys()):
                    rows = _reread(input, relation, touched[relation])
                    found.append(Project(Join(read_profiles(entity), rows, "semi", join.on), key))
        plan = join.left
    return found[0] if len(found) == 1 else Union(tuple(found))


def _reread(plan: Plan, relation: str, rows: Rows) -> Plan:
    match plan:
        case Read(name, schema):
            return rows(schema) if name == relation else plan
        case _:
            return map_inputs(plan, lambda p: _reread(p, relation, rows))
