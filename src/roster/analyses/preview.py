"""Owns plans that compare the profiles under two mappings, and tell why rows meet no profile. Runs nothing."""

from __future__ import annotations

from collections.abc import Mapping as Map, Sequence
from dataclasses import dataclass, replace

from roster.analyses.scopes import World
from roster.model.connection import Connection
from roster.model.mapping import Attribute, Mapping
from roster.model.reference_table import Table
from roster.model.schema import Entity, Type
from roster.model.steps import same_source
from roster.query.expr import And, Call, Cast, Column, Compare, Expr, Fn, If, In, IsNull, Literal, Not, Or, type_of
from roster.query.narrow import narrow_to
from roster.query.offers import Sources, attribute_value
from roster.query.plan import (
    Agg,
    Aggregate,
    Filter,
    Join,
    Limit,
    Measure,
    Plan,
    Project,
    Sort,
    SortKey,
    schema_of,
)
from roster.query.relations import NEWEST, PROFILES, ROWS, enrich, match_rows, meet, profile_key, read_profiles

SIDES = ("before:", "after:")
"""What stands before the names of attributes where both sides are at hand."""
KINDS = ("added", "changed", "lost")


@dataclass(frozen=True, slots=True)
class Reading:
    """What one name answers before and after, both of one type: of two, their texts are compared."""

    name: str
    before: Expr
    after: Expr

    def kinds(self) -> dict[str, Expr]:
        """For a profile: whether its value is added, changed or lost."""
        had, has = Not(IsNull(self.before)), Not(IsNull(self.after))
        changed = And((had, has, Not(Compare("=", self.before, self.after))))
        return {"added": And((has, IsNull(self.before))), "changed": changed, "lost": And((had, IsNull(self.after)))}


@dataclass(frozen=True, slots=True)
class Comparison:
    """All profiles beside their sources before and after, and the names that may answer otherwise."""

    entity: Entity
    profiles: Plan
    key: Column
    readings: tuple[Reading, ...]
    sides: tuple[Map[str, Expr], Map[str, Expr]]
    """What each name answers before and after."""

    def counts(self) -> Plan:
        """One row: for each reading the values before and after, then for each kind how many and the first profile."""
        measures: list[Measure] = []
        for i, reading in enumerate(self.readings):
            measures.append(Measure(f"before{i}", Agg.COUNT, reading.before))
            measures.append(Measure(f"after{i}", Agg.COUNT, reading.after))
            for kind, holds in reading.kinds().items():
                profile = If(holds, self.key, Literal(None, Type.STRING))
                measures.append(Measure(f"{kind}{i}", Agg.COUNT, profile))
                measures.append(Measure(f"{kind}{i}.first", Agg.MIN, profile))
        return Aggregate(self.profiles, (), tuple(measures))

    def changed(self, limit: int) -> Plan:
        """Keys of profiles of which a value changes."""
        moved = Or(tuple(holds for reading in self.readings for holds in reading.kinds().values()))
        keys = Project(Filter(self.profiles, moved), ((self.key.name, self.key),))
        return Limit(Sort(keys, (SortKey(self.key),)), limit)

    def both_sides(self) -> Plan:
        """All profiles with the attributes of both sides, as `profile_scope` names them behind SIDES."""
        sides = zip(SIDES, self.sides, strict=True)
        return Project(self.profiles, tuple((f"{side}{name}", v) for side, named in sides for name, v in named.items()))

    def samples(self, keys: Sequence[str]) -> Plan:
        """Of these profiles the key, then for each reading its value before and after."""
        chosen = In(self.key, tuple(Literal(key, Type.STRING) for key in keys))
        few = narrow_to(self.profiles, self.entity, Filter(read_profiles(self.entity), chosen))
        values = [value for r in self.readings for value in (r.before, r.after)]
        columns = ((self.key.name, self.key), *((f"value{i}", value) for i, value in enumerate(values)))
        return Sort(Project(few, columns), (SortKey(self.key),))


def compare(before: World, after: World) -> Comparison:
    """Both mappings over one relation: every source is joined once, unless it is another one afterwards."""
    after_mapping, after_sources = _told_apart(before.mapping, after)
    plan: Plan = read_profiles(before.entity)
    joined: set[str] = set()
    for mapping, sources in ((before.mapping, before.sources), (after_mapping, after_sources)):
        for connection in mapping.connections:
            table = sources.get(connection.id)
            if table is not None and connection.id not in joined:
                plan = enrich(plan, mapping.entity, connection, table)
                joined.add(connection.id)
    held = {c.name: c.type for c in schema_of(plan)}
    told_apart = replace(after, mapping=after_mapping)
    old, new = _values(before, before.sources, held), _values(told_apart, after_sources, held)
    readings = [_reading(name, old.get(name), new.get(name)) for name in {**old, **new}]
    key = profile_key(before.entity)
    return Comparison(before.entity, plan, key, tuple(r for r in readings if r.before != r.after), (old, new))


def _told_apart(before: Mapping, after: World) -> tuple[Mapping, Sources]:
    """The mapping afterwards, with another id for a connection whose source or join is another one."""
    old = {c.id: c for c in before.connections}
    moved = {c.id: f"{c.id}~" for c in after.mapping.connections if c.id in old and not same_source(old[c.id], c)}
    connections = tuple(replace(c, id=moved.get(c.id, c.id)) for c in after.mapping.connections)
    sources = {moved.get(id, id): table for id, table in after.sources.items()}
    conflicts = tuple(replace(c, order=tuple(moved.get(id, id) for id in c.order)) for c in after.mapping.conflicts)
    return replace(after.mapping, connections=connections, conflicts=conflicts), sources


def _values(world: World, sources: Sources, held: Map[str, Type]) -> dict[str, Expr]:
    """What every name answers, ids of before a rename included."""
    found = {a.name: attribute_value(a, sources, held) for a in world.attributes}
    named: dict[str, Attribute | None] = {a.old_id: world.find(a.old_id) for a in world.mapping.aliases}
    return found | {name: found[a.name] for name, a in named.items() if a is not None}


def _reading(name: str, before: Expr | None, after: Expr | None) -> Reading:
    present = before if before is not None else after
    assert present is not None
    nothing = Literal(None, type_of(present))
    old, new = (before if before is not None else nothing), (after if after is not None else nothing)
    if type_of(old) is not type_of(new):
        old, new = Cast(old, Type.STRING), Cast(new, Type.STRING)
    return Reading(name, old, new)


MATCHED, ABSENT = "matched", "absent"


def reasons(entity: Entity, connection: Connection, table: Table) -> Plan | None:
    """For each reason the number of source keys, of profiles and of rows that have them, the place of a row; then how
    many of the keys have several rows, and the place of one of those.

    Reasons: `matched`; `case`, `blanks` and `type` where a profile's key differs only so; else `absent`.
    """
    matching = match_rows(entity, connection, table)
    if matching is None:
        return None
    met: Plan = meet(entity, matching)
    missing, near = IsNull(PROFILES), Column("#near", Type.STRING)
    told: Expr = _text(ABSENT)
    if matching.folds():
        key = Column("#ours", Type.STRING)
        ours = Project(read_profiles(entity), ((key.name, matching.ours),))
        nearest = Aggregate(ours, (("#fold", _fold(key)),), (Measure(near.name, Agg.MAX, key),))
        sought = If(missing, _fold(matching.key), Literal(None, Type.STRING))
        met = Join(met, nearest, "left", ((sought, Column("#fold", Type.STRING)),))
        told = _reason(matching.key, near)
    reason = If(missing, told, _text(MATCHED))
    several = If(Compare(">", ROWS, Literal(1, Type.INTEGER)), NEWEST, Literal(None, Type.INTEGER))
    measures = (
        Measure("keys", Agg.COUNT),
        Measure("profiles", Agg.SUM, PROFILES),
        Measure("rows", Agg.SUM, ROWS),
        Measure("row", Agg.MIN, NEWEST),
        Measure("duplicate", Agg.COUNT, several),
        Measure("duplicate.row", Agg.MIN, several),
    )
    return Aggregate(met, (("reason", reason),), measures)


def _trimmed(key: Expr) -> Expr:
    return Call(Fn.TRIM, (key,))


def _lowered(key: Expr) -> Expr:
    return Call(Fn.LOWER, (key,))


def _fold(key: Expr) -> Expr:
    """Equal for keys that differ in case, blanks or the spelling of a number only."""
    number = Cast(Cast(key, Type.NUMBER), Type.STRING)
    return If(IsNull(number), _lowered(_trimmed(key)), number)


def _reason(key: Expr, near: Expr) -> Expr:
    told: Expr = _text("type")
    same = {"blanks": (_lowered(_trimmed(key)), _lowered(_trimmed(near))), "case": (_lowered(key), _lowered(near))}
    for reason, (one, other) in same.items():
        told = If(Compare("=", one, other), _text(reason), told)
    return If(IsNull(near), _text(ABSENT), told)


def _text(value: str) -> Literal:
    return Literal(value, Type.STRING)


def rows_at(entity: Entity, connection: Connection, table: Table, places: Sequence[int]) -> Plan | None:
    """Place and join key of the rows at these places."""
    matching = match_rows(entity, connection, table)
    if matching is None:
        return None
    chosen = In(matching.row, tuple(Literal(place, Type.INTEGER) for place in places))
    named = (("row", matching.row), ("key", matching.key))
    return Limit(Project(Filter(matching.rows.input, chosen), named), len(places))
