"""Owns how steps are shown to people: + ~ - with what changes, what a far end says of it, and counts."""

from __future__ import annotations

import json
from collections.abc import Mapping as Map, Sequence
from typing import Any

from rich.console import Console
from rich.text import Text

from roster.model.declaration import DeclaredConnection, segment_json, table_json
from roster.model.declaration_steps import (
    ConnectionStep,
    FieldStep,
    Plan,
    SegmentStep,
    Step,
    TableStep,
    Verb,
    changes,
    field_changes,
)

MARKS = {Verb.CREATE: "+", Verb.RENAME: "~", Verb.UPDATE: "~", Verb.REPLACE: "-/+", Verb.DELETE: "-"}
COLOURS = {"+": "green", "~": "yellow", "-": "red", "-/+": "magenta", "!": "cyan"}
TEXT_MAX = 60
Previews = Map[str, Map[str, Any]]


def print_plan(out: Console, plan: Plan, previews: Previews) -> None:
    """All steps, one block for each thing, with what a Roster says they would do."""
    for step in plan.steps:
        _print_step(out, step)
        if isinstance(step, ConnectionStep):
            _print_match(out, previews.get(step.entity.value, {}), step.id)
    for entity, preview in previews.items():
        _print_values(out, entity, preview)
    print_notes(out, (*plan.apart, *plan.notes))


def print_notes(out: Console, notes: Sequence[str]) -> None:
    """What is not a step, and should be known."""
    for note in notes:
        _line(out, "!", note)


def print_counts(out: Console, plan: Plan) -> None:
    """How many things are made, changed and deleted."""
    counts = {verb: sum(step.verb is verb for step in plan.steps) for verb in Verb}
    made, gone = (counts[verb] + counts[Verb.REPLACE] for verb in (Verb.CREATE, Verb.DELETE))
    out.print(f"{made} to create, {counts[Verb.UPDATE]} to change, {gone} to delete", highlight=False)


def _line(out: Console, mark: str, text: str, deep: int = 0) -> None:
    line = Text("  " * deep).append(mark, style=COLOURS.get(mark, "")).append(f" {text}" if mark else text)
    out.print(line, highlight=False, soft_wrap=True)


def _print_step(out: Console, step: Step) -> None:
    mark = MARKS[step.verb]
    match step:
        case ConnectionStep():
            _line(out, mark, f"{step.entity} connection {step.id}{_source(step)}")
            if step.verb is Verb.UPDATE:
                for field in step.fields:
                    _print_field(out, field)
            else:
                _print_whole(out, step)
        case TableStep():
            _line(out, mark, f"table {step.name}")
            was, now = (table_json(t) if t else {} for t in (step.was, step.now))
            _print_changes(out, changes(was, now))
        case SegmentStep():
            _line(out, mark, f"segment {step.name}")
            if step.verb is not Verb.DELETE:
                was, now = (segment_json(s) if s else {} for s in (step.was, step.now))
                _print_changes(out, changes(was, now))


def _source(step: ConnectionStep) -> str:
    if step.verb is Verb.UPDATE:
        return ""
    named = step.now or step.was
    assert named is not None
    return f" ({named.type}, {named.join_attribute} joined to {named.join_type})"


def _print_whole(out: Console, step: ConnectionStep) -> None:
    """A connection that comes, goes, or is made anew since the API cannot change its source."""
    if step.was and step.now:
        _line(out, "", "deleted and created again, since a source cannot be changed in place:", 1)
        old, new = (_definition(c) for c in (step.was, step.now))
        _print_changes(out, changes(old, new), 2)
    kept = {f.id for f in step.now.fields} if step.now else set()
    for f in step.was.fields if step.was else ():
        if f.id not in kept:
            _line(out, "-", f.id, 1)
    there = {f.id: f for f in step.was.fields} if step.was else {}
    for f in step.now.fields if step.now else ():
        known = there.get(f.id)
        if known != f:
            _print_field(out, FieldStep(Verb.UPDATE if known else Verb.CREATE, known, f))


def _definition(c: DeclaredConnection) -> dict[str, Any]:
    join = {"join type": c.join_type, "join attribute": c.join_attribute}
    return {"type": c.type} | join | {f"metadata {name}": text for name, text in c.metadata}


def _print_field(out: Console, step: FieldStep) -> None:
    mark = MARKS[step.verb]
    named = step.now or step.was
    assert named is not None
    if not step.was or not step.now:
        more = f"  {named.type} of column {named.source_name}" if step.now else ""
        _line(out, mark, f"{named.id}{more}", 1)
        return
    old, new = step.was.id, step.now.id
    guessed = "  (taken for a rename: column and type are the same)"
    _line(out, mark, f"{old} -> {new}{guessed if step.guessed else ''}" if old != new else new, 1)
    _print_changes(out, field_changes(step), 2)


def _print_changes(out: Console, changed: Map[str, Any], deep: int = 1) -> None:
    for name, change in changed.items():
        before, after = (_short(change[side]) for side in ("before", "after"))
        nothing = change["before"] is None
        _line(out, "", f"{name}: {after}" if nothing else f"{name}: {before} -> {after}", deep + 1)


def _short(value: Any) -> str:
    text = value if isinstance(value, str) and value else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= TEXT_MAX else f"{text[: TEXT_MAX - 1]}…"


def _print_match(out: Console, preview: Map[str, Any], id: str) -> None:
    """How the rows of a connection and the profiles would meet."""
    found = next((c for c in preview.get("connections", ()) if c.get("id") == id), None)
    if found is None:
        return
    if found.get("state") != "ok":
        _line(out, "", f"{found.get('state')}: {found.get('reason', '')}", 1)
        return
    profiles, rows = found.get("profiles", {}), found.get("rows", {})
    told = f"{profiles.get('matched', 0):,} of {profiles.get('all', 0):,} profiles find their row, "
    told += f"{rows.get('unmatched', 0):,} of {rows.get('read', 0):,} rows find no profile"
    _line(out, "", told, 1)
    for reason in found.get("unmatched") or ():
        example = f", such as {reason['example']!r}" if reason.get("example") is not None else ""
        _line(out, "", f"{reason.get('reason')}: {reason.get('rows', 0):,}{example}", 2)
    for cell in found.get("cells") or ():
        if cell.get("rejected"):
            _line(out, "!", f"{cell['field']} refuses {cell['rejected']:,} of {cell['filled']:,} cells", 1)


def _print_values(out: Console, entity: str, preview: Map[str, Any]) -> None:
    """What the values of profiles would become, over all steps at once."""
    told = [a for a in preview.get("attributes", ()) if any(a.get(kind) for kind in ("added", "changed", "lost"))]
    if told:
        _line(out, "", f"values of {entity}:")
    for a in told:
        kinds = ", ".join(f"{a[kind]:,} {kind}" for kind in ("added", "changed", "lost") if a.get(kind))
        _line(out, "", f"{a.get('name')}: {kinds}", 1)
    _print_affected(out, preview)
    for warning in preview.get("warnings", ()):
        _line(out, "!", str(warning))


def _print_affected(out: Console, preview: Map[str, Any]) -> None:
    """Segments whose members move, and who names what is renamed or deleted."""
    for segment in preview.get("segments", ()):
        if "unreadable" in segment:
            _line(out, "!", f"segment {segment['name']} cannot be read any more: {segment['unreadable']}")
        elif segment.get("enter") or segment.get("leave"):
            told = f"{segment['before']:,} members now, {segment['after']:,} then"
            _line(out, "!", f"segment {segment['name']}: {told}")
    for use in preview.get("used_by", ()):
        names = [f"segment {s['name']}" for s in use["segments"]] + [f"query {q['name']}" for q in use["queries"]]
        names += [f"{len(use['callers'])} recent callers"] if use["callers"] else []
        _line(out, "!", f"{use['field']} is named by {', '.join(names)}")
