"""Owns what a change of a mapping does, step by step: told from the mappings before and after. Applies nothing."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from roster.model.connection import Connection, Field
from roster.model.mapping import Mapping


class StepKind(StrEnum):
    """The set is closed."""

    CREATE_CONNECTION = "create_connection"
    DELETE_CONNECTION = "delete_connection"
    REPLACE_CONNECTION = "replace_connection"
    ADD_FIELD = "add_field"
    RENAME_FIELD = "rename_field"
    CHANGE_FIELD = "change_field"
    DELETE_FIELD = "delete_field"
    SET_CONFLICT = "set_conflict"


@dataclass(frozen=True, slots=True)
class MappingStep:
    """One step; `field_id` as it is afterwards, `was` the field before, `now` the field after."""

    kind: StepKind
    connection_id: str
    field_id: str = ""
    was: Field | None = None
    now: Field | None = None


_ORDER = (StepKind.DELETE_FIELD, StepKind.RENAME_FIELD, StepKind.CHANGE_FIELD, StepKind.ADD_FIELD)


def steps_of(before: Mapping, after: Mapping) -> tuple[MappingStep, ...]:
    """What leads from one mapping to another: deletes, then renames and changes, then what is new."""
    old, new = {c.id: c for c in before.connections}, {c.id: c for c in after.connections}
    steps = [MappingStep(StepKind.DELETE_CONNECTION, id) for id in old if id not in new]
    renamed = {(a.connection_id, a.old_id): a.new_id for a in after.aliases}
    for id, connection in new.items():
        if id not in old:
            steps.append(MappingStep(StepKind.CREATE_CONNECTION, id))
            steps += [MappingStep(StepKind.ADD_FIELD, id, f.id, now=f) for f in connection.fields]
            continue
        if not same_source(old[id], connection):
            steps.append(MappingStep(StepKind.REPLACE_CONNECTION, id))
        steps += _field_steps(old[id], connection, renamed)
    agreed = {c.field_id: c for c in before.conflicts}
    for conflict in after.conflicts:
        if agreed.get(conflict.field_id) != conflict:
            owner = next(c.id for c in after.connections if any(f.id == conflict.field_id for f in c.fields))
            steps.append(MappingStep(StepKind.SET_CONFLICT, owner, conflict.field_id))
    return tuple(steps)


def same_source(one: Connection, other: Connection) -> bool:
    """Whether two connections of one id bring the same rows to the same profiles."""
    return _source(one) == _source(other)


def _source(c: Connection) -> tuple[object, ...]:
    return (c.type, c.join_type, c.join_attribute, c.metadata)


def _field_steps(old: Connection, new: Connection, renamed: dict[tuple[str, str], str]) -> list[MappingStep]:
    left = {f.id: f for f in old.fields}
    come = {f.id: f for f in new.fields}
    origin: dict[str, Field] = {}
    for id, f in come.items():
        if id in left and left[id].source_name == f.source_name:
            origin[id] = left.pop(id)
    for was in list(left.values()):
        target = renamed.get((old.id, was.id)) or _same_column(was, come, origin)
        if target in come and target not in origin:
            origin[target] = left.pop(was.id)
    steps = [MappingStep(StepKind.DELETE_FIELD, new.id, f.id, was=f) for f in left.values()]
    for id, f in come.items():
        was_field = origin.get(id)
        if was_field is None:
            steps.append(MappingStep(StepKind.ADD_FIELD, new.id, id, now=f))
        elif was_field.id != id:
            steps.append(MappingStep(StepKind.RENAME_FIELD, new.id, id, was_field, f))
        elif was_field != f:
            steps.append(MappingStep(StepKind.CHANGE_FIELD, new.id, id, was_field, f))
    return sorted(steps, key=lambda step: _ORDER.index(step.kind))


def _same_column(was: Field, come: dict[str, Field], origin: dict[str, Field]) -> str | None:
    """Two ids that change places leave no old id behind: then the column tells."""
    return next(
        (id for id, f in come.items() if id not in origin and (f.source_name, f.type) == (was.source_name, was.type)),
        None,
    )
