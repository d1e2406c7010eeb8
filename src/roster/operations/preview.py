"""Owns what `dry_run` answers: the change itself, stopped before its commit, and what it would do to profiles."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict
from threading import Timer
from typing import Any

from roster.analyses.preview import KINDS, Comparison, compare
from roster.base.errors import Code, Error
from roster.model.connection import Connection, Field
from roster.model.held import is_reference
from roster.model.mapping import Mapping, find_connection
from roster.model.reference_table import Table
from roster.model.rules import Choice
from roster.model.source import CHANGED_AT
from roster.model.steps import MappingStep, StepKind, steps_of
from roster.operations.affected import tell_segments, tell_uses
from roster.operations.context import Context, Reply, Request, run_plans
from roster.operations.meeting import Tried, meet_connection
from roster.operations.profiles import envelope, shown, world_under
from roster.ports import Cancel
from roster.query.offers import Sources, find_source_column

SAMPLES_DEFAULT, SAMPLES_MAX = 5, 100


def preview(context: Context, request: Request, before: Mapping, after: Mapping, warnings: Sequence[str]) -> Reply:
    """What would change if `after` took the place of `before` at this moment. Nothing is kept."""
    samples = request.number("samples", SAMPLES_DEFAULT, 0, SAMPLES_MAX)
    steps = steps_of(before, after)
    with ExitStack() as stack:
        tried = _try_sources(context, request, steps, after, stack)
        read = {id: given for id, given in tried.items() if not isinstance(given, Error)}
        world = world_under(context, after, [table for table, _ in read.values()])
        old = world_under(context, before)
        comparison = compare(old, world)
        attributes, firsts = _count_values(context, request, comparison)
        body: dict[str, Any] = {
            "version": {"now": before.version, "next": after.version},
            "steps": [_shown_step(step, after) for step in steps],
            "connections": [
                meet_connection(context, request, world, id, tried.get(id)) for id in _concerned(steps, after)
            ],
            "attributes": attributes,
            "samples": _sample(context, request, comparison, firsts, samples) if firsts and samples else [],
            "segments": tell_segments(context, request, comparison, old, world),
            "used_by": tell_uses(context, before, steps),
        }
    told = [*warnings, *_doubts(after, world.sources), *_unmet(body["connections"])]
    return Reply(envelope(before.entity.value, "mapping_preview", body, told), status=200)


def _try_sources(
    context: Context, request: Request, steps: Sequence[MappingStep], after: Mapping, stack: ExitStack
) -> dict[str, Tried]:
    """Outside sources of new connections, read now; they are dropped when the stack is left."""
    held = world_under(context, after).sources
    made = [s.connection_id for s in steps if s.kind in (StepKind.CREATE_CONNECTION, StepKind.REPLACE_CONNECTION)]
    found = [find_connection(after, id) for id in made]
    outside = [c for c in found if c is not None and not is_reference(c) and c.id not in held]
    if not outside:
        return {}
    limit_s, late, left = context.limits.preview_timeout_s, Cancel(), request.cancel or Cancel()
    left.on_cancel(late.cancel)
    timer = Timer(limit_s, late.cancel)
    timer.start()
    stack.callback(timer.cancel)
    tried: dict[str, Tried] = {}
    for connection in outside:
        try:
            tried[connection.id] = stack.enter_context(context.syncs.on_trial(after, connection, late))
        except Error as error:
            hint = "create it, and it is read in the background; or raise the setting preview_timeout_s"
            slow = Error(Code.TIMEOUT, f"reading it takes longer than {limit_s:g} s", hint=hint)
            tried[connection.id] = slow if late.cancelled and not left.cancelled else error
    return tried


def _shown_step(step: MappingStep, after: Mapping) -> dict[str, Any]:
    shown: dict[str, Any] = {"step": step.kind.value, "connection": step.connection_id}
    if step.field_id or step.was:
        shown["field"] = step.field_id
    if step.kind is StepKind.RENAME_FIELD and step.was:
        shown["from"] = step.was.id
    if step.was and step.now:
        old, new = _plain(step.was), _plain(step.now)
        shown["changes"] = {name: {"before": old[name], "after": new[name]} for name in new if old[name] != new[name]}
    elif step.now:
        shown |= {"source_name": step.now.source_name, "type": step.now.type.value}
    if step.kind is StepKind.SET_CONFLICT:
        conflict = next(c for c in after.conflicts if c.field_id == step.field_id)
        shown["rule"], shown["order"] = conflict.choice.value, list(conflict.order)
    return shown


def _plain(field: Field) -> dict[str, Any]:
    plain = asdict(field)
    rules = plain.pop("rules")
    return plain | {"null_rule": rules["nulls"], "allowed_values": list(rules["allowed"]), "pattern": rules["pattern"]}


def _concerned(steps: Sequence[MappingStep], after: Mapping) -> list[str]:
    """Connections that are there afterwards and whose rows or cells count otherwise."""
    kinds = {StepKind.CREATE_CONNECTION, StepKind.REPLACE_CONNECTION, StepKind.ADD_FIELD, StepKind.CHANGE_FIELD}
    named = dict.fromkeys(s.connection_id for s in steps if s.kind in kinds)
    return [id for id in named if find_connection(after, id) is not None]


def _count_values(context: Context, request: Request, comparison: Comparison) -> tuple[list[dict[str, Any]], list[str]]:
    """For each name that may answer otherwise how its values change, and profiles that show it."""
    if not comparison.readings:
        return [], []
    (row,) = run_plans(context, request, [comparison.counts()])[0].rows
    told, firsts, numbers = [], [], list(row)
    for reading in comparison.readings:
        before, after, *kinds = numbers[:8]
        del numbers[:8]
        counts = dict(zip(KINDS, kinds[::2], strict=True))
        told.append({"name": reading.name, "before": before, "after": after} | counts)
        firsts += [first for first in kinds[1::2] if first is not None]
    return told, list(dict.fromkeys(firsts))


def _sample(
    context: Context, request: Request, comparison: Comparison, firsts: Sequence[str], limit: int
) -> list[dict[str, Any]]:
    """Profiles with the values that change: the first of each name and kind, then others when more are asked for."""
    keys = list(firsts[:limit])
    if len(keys) < limit and limit > SAMPLES_DEFAULT:
        more = run_plans(context, request, [comparison.changed(limit)])[0].rows
        keys = list(dict.fromkeys([*keys, *(key for (key,) in more)]))[:limit]
    sampled = []
    for key, *values in run_plans(context, request, [comparison.samples(keys)])[0].rows:
        pairs = zip(comparison.readings, values[::2], values[1::2], strict=True)
        moved = {r.name: (shown(old), shown(new)) for r, old, new in pairs if old != new}
        before, after = ({name: pair[side] for name, pair in moved.items()} for side in (0, 1))
        sampled.append({"profile": key, "before": before, "after": after})
    return sampled


def _unmet(connections: Sequence[dict[str, Any]]) -> list[str]:
    """Joins that would bring nothing to anybody."""
    hint = "join_type names the profile's side, join_attribute the source's column"
    unmet = [c["id"] for c in connections if c.get("rows", {}).get("read") and not c["profiles"]["matched"]]
    return [f"no row of {id} meets a profile: are the two sides of its join of one kind? {hint}" for id in unmet]


def _doubts(after: Mapping, sources: Sources) -> list[str]:
    """Conflict rules that would not do what they say."""
    known = {c.id for c in after.connections}
    told = []
    for conflict in after.conflicts:
        strange = [id for id in conflict.order if id not in known]
        if strange:
            named = ", ".join(strange[:5])
            told.append(f"{conflict.field_id}: its conflict rule names {named}, which is no connection")
        if conflict.choice is Choice.NEWEST:
            offering = [c for c in after.connections if any(f.id == conflict.field_id for f in c.fields)]
            doubts = [_doubt_times(c, sources.get(c.id)) for c in offering]
            told += [f"{conflict.field_id}: {doubt}, so its rows count as the oldest" for doubt in doubts if doubt]
    return told


def _doubt_times(connection: Connection, table: Table | None) -> str:
    """Why a connection cannot say when its rows changed; empty when it can, or its columns are not known."""
    name = dict(connection.metadata).get(CHANGED_AT, "")
    if not name.strip():
        return f"{connection.id} has no {CHANGED_AT!r} in its metadata"
    if table is not None and find_source_column(table, name) is None:
        return f"the source of {connection.id} has no column {name!r}, its {CHANGED_AT!r}"
    return ""
