"""Owns the steps from what stands at a far end to what a declaration says, as values. Carries none of them out."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from roster.base.errors import Code, Error
from roster.model.declaration import (
    CONFLICT,
    RULES,
    DeclaredConnection,
    DeclaredField,
    DeclaredSegment,
    DeclaredTable,
    connection_json,
    field_json,
    segment_json,
    settle,
    table_json,
)
from roster.model.declaration_far import merge_access
from roster.model.schema import Entity

BUCKETS = ("S3", "GCS", "AZURE")
"""Sources of tables that can be made without bringing rows."""


class Verb(StrEnum):
    """What a step does to one thing; REPLACE deletes it and makes it again. The set is closed."""

    CREATE = "create"
    RENAME = "rename"
    UPDATE = "update"
    REPLACE = "replace"
    DELETE = "delete"


@dataclass(frozen=True, slots=True)
class FieldStep:
    """One field. `guessed`: a deleted and an added field were taken for a rename."""

    verb: Verb
    was: DeclaredField | None = None
    now: DeclaredField | None = None
    guessed: bool = False


@dataclass(frozen=True, slots=True)
class ConnectionStep:
    """One connection; `fields` say what an update does."""

    verb: Verb
    entity: Entity
    id: str
    was: DeclaredConnection | None = None
    now: DeclaredConnection | None = None
    fields: tuple[FieldStep, ...] = ()


@dataclass(frozen=True, slots=True)
class TableStep:
    """One reference table, never its rows."""

    verb: Verb
    name: str
    was: DeclaredTable | None = None
    now: DeclaredTable | None = None


@dataclass(frozen=True, slots=True)
class SegmentStep:
    """One segment."""

    verb: Verb
    name: str
    was: DeclaredSegment | None = None
    now: DeclaredSegment | None = None


Step = ConnectionStep | TableStep | SegmentStep


@dataclass(frozen=True, slots=True)
class Plan:
    """Steps in an order that can be carried out. `apart` are differences that no step ends, `notes` are none."""

    steps: tuple[Step, ...] = ()
    apart: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def __add__(self, other: Plan) -> Plan:
        return Plan(self.steps + other.steps, self.apart + other.apart, self.notes + other.notes)


def plan_connections(
    entity: Entity,
    have: Sequence[DeclaredConnection],
    want: Sequence[DeclaredConnection],
    *,
    prune: bool,
    bare: bool = False,
) -> Plan:
    """The steps for the connections of one entity; those that `want` does not name go only with `prune`.

    `bare`: the far end has the contract's members alone, so rules are left out and a new type is a new field.
    Error: CONFLICT when connections exchange field ids, which no order of steps can do.
    """
    notes: tuple[str, ...] = ()
    apart = []
    if bare:
        notes = _left_out(entity, want)
        have, want = _bare(have), _bare(want)
    named = {c.id for c in want}
    stay = [] if prune else [c for c in have if c.id not in named]
    want = [c for c in settle([*want, *stay]) if c.id in named]  # those that stay offer their ids too
    there, said = {c.id: c for c in have}, {c.id: c for c in want}
    steps = []
    for id, old in there.items():
        if id not in said and prune:
            steps.append(ConnectionStep(Verb.DELETE, entity, id, was=old))
        elif id not in said:
            apart.append(f"{entity}: connection {id} is not in the file and stays; --prune deletes it")
    for id, new in said.items():
        known = there.get(id)
        if known is None:
            steps.append(ConnectionStep(Verb.CREATE, entity, id, now=new))
            continue
        step, more = _change(entity, known, new, bare)
        apart += more
        steps += [step] if step else []
    return Plan(_in_order(entity, steps), tuple(apart), notes)


def _bare(connections: Sequence[DeclaredConnection]) -> list[DeclaredConnection]:
    return [replace(c, fields=tuple(replace(f, rules=()) for f in c.fields)) for c in connections]


def _left_out(entity: Entity, want: Sequence[DeclaredConnection]) -> tuple[str, ...]:
    named = [f"{c.id}/{f.id} ({', '.join(n for n, _ in f.rules)})" for c in want for f in c.fields if f.rules]
    told = f"{entity}: the far end is no Roster and has no rules of values: left out of {', '.join(named)}"
    return (told,) if named else ()


def _change(
    entity: Entity, old: DeclaredConnection, new: DeclaredConnection, bare: bool
) -> tuple[ConnectionStep | None, list[str]]:
    source = [(c.type, c.join_type, c.join_attribute, c.metadata) for c in (old, new)]
    if source[0] != source[1]:
        return ConnectionStep(Verb.REPLACE, entity, new.id, old, new), []
    fields, apart = _field_steps(old, new, bare)
    told = [f"{entity}: {new.id}/{note}" for note in apart]
    return (ConnectionStep(Verb.UPDATE, entity, new.id, old, new, fields) if fields else None), told


def _field_steps(
    old: DeclaredConnection, new: DeclaredConnection, bare: bool
) -> tuple[tuple[FieldStep, ...], list[str]]:
    there, said = {f.id: f for f in old.fields}, {f.id: f for f in new.fields}
    left = {id: f for id, f in there.items() if id not in said}
    steps: list[FieldStep] = []
    apart: list[str] = []
    come = [f for id, f in said.items() if id not in there]
    for f in [f for f in come if f.renamed_from in left]:
        if left[f.renamed_from].source_name == f.source_name:
            steps.append(_moved(Verb.RENAME, left.pop(f.renamed_from), f, bare, guessed=False))
            come.remove(f)
    for f in list(come):
        same = [id for id, o in left.items() if (o.source_name, o.type) == (f.source_name, f.type)]
        if same and not f.renamed_from:
            steps.append(_moved(Verb.RENAME, left.pop(same[0]), f, bare, guessed=True))
            come.remove(f)
    steps = [FieldStep(Verb.DELETE, was=f) for f in left.values()] + steps
    for id in [id for id in said if id in there]:
        kept, dropped = _keep_conflict(there[id], said[id])
        apart += [f"{id}: the far end has a conflict rule, which the file does not say; it stays"] * dropped
        if kept != there[id]:
            verb = Verb.UPDATE if kept.source_name == there[id].source_name else Verb.REPLACE
            steps.append(_moved(verb, there[id], kept, bare, guessed=False))
    return (*steps, *(FieldStep(Verb.CREATE, now=f) for f in come)), apart


def _moved(verb: Verb, was: DeclaredField, now: DeclaredField, bare: bool, *, guessed: bool) -> FieldStep:
    """The contract has no change of a type: there the field is made anew."""
    return FieldStep(Verb.REPLACE if bare and was.type != now.type else verb, was, now, guessed)


def _keep_conflict(was: DeclaredField, now: DeclaredField) -> tuple[DeclaredField, bool]:
    """A conflict rule goes with its id only: one that the file does not say stays."""
    kept = dict(was.rules).get(CONFLICT)
    if kept is None or CONFLICT in dict(now.rules):
        return now, False
    return replace(now, rules=tuple(sorted((*now.rules, (CONFLICT, kept))))), True


def _ids(c: DeclaredConnection | None) -> set[str]:
    return {f.id.lower() for f in c.fields} if c else set()


def _in_order(entity: Entity, steps: list[ConnectionStep]) -> tuple[Step, ...]:
    """Deletes first, and before a step that takes an id the one that gives it up. Error: CONFLICT."""
    rank = (Verb.DELETE, Verb.UPDATE, Verb.REPLACE, Verb.CREATE)
    waiting = sorted(steps, key=lambda s: (rank.index(s.verb), s.id))
    ordered: list[Step] = []
    while waiting:
        free = [s for s in waiting if not any(_takes(s) & _gives(o) for o in waiting if o is not s)]
        if not free:
            hint = "let one of them use another id, apply, and change it then"
            named = " and ".join(s.id for s in waiting)
            raise Error(Code.CONFLICT, f"{entity}: connections {named} exchange field ids", hint=hint)
        ordered.append(free[0])
        waiting.remove(free[0])
    return tuple(ordered)


def _takes(step: ConnectionStep) -> set[str]:
    return _ids(step.now) - _ids(step.was)


def _gives(step: ConnectionStep) -> set[str]:
    return _ids(step.was) - _ids(step.now)


def plan_tables(have: Sequence[DeclaredTable], want: Sequence[DeclaredTable]) -> Plan:
    """The steps for tables; none is deleted, since rows are not declared, and what is fixed stays as it is."""
    there = {t.name: t for t in have}
    steps: list[Step] = []
    apart = []
    for t in want:
        known = there.get(t.name)
        if known is None and t.source in BUCKETS:
            steps.append(TableStep(Verb.CREATE, t.name, now=t))
        elif known is None:
            apart.append(f"table {t.name} is not there: bring its rows, which a file of this kind does not hold")
        else:
            told, fixed = _settle_table(known, t)
            apart += [f"table {t.name} has {what}: fixed, until the table is deleted" for what in fixed]
            steps += [TableStep(Verb.UPDATE, t.name, known, told)] * (told != known)
    said = {t.name for t in want}
    apart += [f"table {t.name} is not in the file and stays" for t in have if t.name not in said]
    return Plan(tuple(steps), tuple(apart))


def _settle_table(known: DeclaredTable, t: DeclaredTable) -> tuple[DeclaredTable, list[str]]:
    """The table as it can become, and what cannot: columns are only added, access details merged."""
    pairs = (("the source", known.source, t.source), ("the primary key", known.primary_key, t.primary_key))
    fixed = [f"{what} {old}, and the file says {new}" for what, old, new in pairs if old != new]
    columns = dict(known.columns)
    for name, type in t.columns:
        if columns.setdefault(name, type) != type:
            fixed.append(f"the column {name} as {columns[name]}, and the file says {type}")
    said = {name for name, _ in t.columns}
    fixed += [f"the column {name}, which the file has not" for name, _ in known.columns if name not in said]
    settled = replace(known, columns=tuple(columns.items()), description=t.description, tags=t.tags)
    if t.source in BUCKETS and t.source == known.source:
        access = merge_access(known.access_details, t.access_details)
        settled = replace(settled, access_details=access, sync_enabled=t.sync_enabled)
    return settled, fixed


def plan_segments(have: Sequence[DeclaredSegment], want: Sequence[DeclaredSegment], *, prune: bool) -> Plan:
    """The steps for segments; those that `want` does not name go only with `prune`."""
    there, said = {s.name: s for s in have}, {s.name: s for s in want}
    steps: list[Step] = []
    apart = []
    for name, old in there.items():
        if name not in said and prune:
            steps.append(SegmentStep(Verb.DELETE, name, was=old))
        elif name not in said:
            apart.append(f"segment {name} is not in the file and stays; --prune deletes it")
    for name, new in said.items():
        known = there.get(name)
        if known is None:
            steps.append(SegmentStep(Verb.CREATE, name, now=new))
        elif known != new:
            steps.append(SegmentStep(Verb.UPDATE, name, known, replace(new, id=known.id)))
    return Plan(tuple(steps), tuple(apart))


# telling


def step_json(step: Step) -> dict[str, Any]:
    """A step for programs."""
    match step:
        case ConnectionStep():
            told: dict[str, Any] = {"step": step.verb.value, "entity": step.entity.value, "connection": step.id}
            if step.verb is Verb.UPDATE:
                return told | {"fields": [field_step_json(f) for f in step.fields]}
            before = {"before": connection_json(step.was)} if step.was else {}
            return told | before | ({"after": connection_json(step.now)} if step.now else {})
        case TableStep():
            told = {"step": step.verb.value, "table": step.name}
            return told | {"changes": changes(table_json(step.was) if step.was else {}, _plain(step.now, table_json))}
        case SegmentStep():
            told = {"step": step.verb.value, "segment": step.name}
            was = segment_json(step.was) if step.was else {}
            return told | {"changes": changes(was, _plain(step.now, segment_json))}


def _plain(thing: Any, show: Any) -> dict[str, Any]:
    plain: dict[str, Any] = show(thing) if thing is not None else {}
    return plain


def field_step_json(step: FieldStep) -> dict[str, Any]:
    """A step of a field for programs; `guessed` only where a rename was."""
    named = step.now or step.was
    assert named is not None
    told: dict[str, Any] = {"step": step.verb.value, "field": named.id}
    if step.was and step.now:
        if step.was.id != step.now.id:
            told["from"] = step.was.id
        told["changes"] = field_changes(step)
    elif step.now:
        told |= {"source_name": step.now.source_name, "type": step.now.type}
    return told | ({"guessed": True} if step.guessed else {})


def field_changes(step: FieldStep) -> dict[str, Any]:
    """Members of a field that change, with their values before and after."""
    old, new = (_plain(f, field_json) for f in (step.was, step.now))
    new.pop("renamed_from", None)
    empty = {"display_name": "", "description": "", "groups": []} | RULES
    return changes(old, new, empty)


def changes(old: dict[str, Any], new: dict[str, Any], empty: dict[str, Any] | None = None) -> dict[str, Any]:
    """Members that differ, with their values before and after; what is absent is as `empty` says, else null."""
    absent = empty or {}
    names = dict.fromkeys((*old, *new))
    pairs = {name: (old.get(name, absent.get(name)), new.get(name, absent.get(name))) for name in names}
    return {
        name: {"before": before, "after": after}
        for name, (before, after) in pairs.items()
        if json.dumps(before) != json.dumps(after)
    }
