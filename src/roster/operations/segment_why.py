"""Owns the operation that tells why one profile belongs to a segment, or does not."""

from __future__ import annotations

import json
from collections.abc import Mapping as Map
from typing import Any

from roster.analyses.segment_why import Clause, blame, membership, parts_of
from roster.base.errors import Code, Error
from roster.base.time import instant, iso_ms
from roster.model.formula import names_in
from roster.model.segment import definition_of
from roster.operations.context import Context, Reply, Request, run_plans
from roster.operations.event_worlds import event_world_of
from roster.operations.profiles import shown
from roster.operations.segment_answers import told
from roster.operations.segments import find_segment


def explain_membership(context: Context, request: Request) -> Reply:
    """Why a profile is in a segment or not: each rule and clause with the values seen, and what would pass."""
    request.only("profile")
    segment = find_segment(context, request.path["segment_id"])
    key = request.query.get("profile", [""])[-1]
    if not key:
        hint = f"the id of one of {segment.entity}"
        raise Error(Code.INVALID, "profile is missing", at="parameter profile", hint=hint)
    world, tree = event_world_of(context), definition_of(segment).combination
    parts = parts_of(world, segment, key)
    belongs, warnings = membership(world, segment, key)
    member, *answers = run_plans(context, request, [belongs, *(p.plan for p in parts)])
    if not member.rows:
        raise Error(Code.NOT_FOUND, f"there is no profile {key!r} among {segment.entity}", at="parameter profile")
    clauses = {part.name: part.read(answer.rows) for part, answer in zip(parts, answers, strict=True)}
    holds = {name: all(clause.holds for clause in one) for name, one in clauses.items()}
    rules = [
        {"name": p.name, "kind": p.kind, "holds": holds[p.name], "clauses": [_shown(c) for c in clauses[p.name]]}
        for p in parts
    ]
    stated = json.loads(segment.data_query).get("combination")
    attributes: dict[str, Any] = {
        "profile": key,
        "member": member.rows[0][0] == 1,
        "combination": stated or " && ".join(clauses or sorted(names_in(tree))),
        "rules": rules,
        "version": segment.version,
        "computed_at": iso_ms(instant(world.now_ms)),
        **_failing(blame(tree, holds) if parts else None, clauses),
    }
    return told({"id": segment.id, "type": "segment_why", "attributes": attributes}, warnings)


def _shown(clause: Clause) -> dict[str, Any]:
    return {"text": clause.text, "holds": clause.holds, "seen": {name: shown(v) for name, v in clause.seen.items()}}


def _failing(blamed: tuple[str, bool] | None, clauses: Map[str, list[Clause]]) -> dict[str, Any]:
    """The first clause that keeps the profile out, and what it would need."""
    if blamed is None:
        return {"first_failing": None, "would_pass": None}
    name, wanted = blamed
    if not wanted:
        texts = " AND ".join(clause.text for clause in clauses[name])
        needs = f"rule {name!r} must not hold, and it does: {texts}"
        return {"first_failing": {"rule": name, "clause": texts, "negated": True}, "would_pass": needs}
    first = next(clause for clause in clauses[name] if not clause.holds)
    needs = f"rule {name!r}: {first.needs}"
    return {"first_failing": {"rule": name, "clause": first.text, "negated": False}, "would_pass": needs}
