"""Owns telling how the rows of a connection and the profiles meet: match rates, reasons, refused cells."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from roster.analyses.preview import MATCHED, reasons, rows_at
from roster.analyses.scopes import World
from roster.base.errors import Error, did_you_mean
from roster.model.connection import Connection
from roster.model.held import is_reference
from roster.model.mapping import find_connection
from roster.model.reference_table import Table, relation_of
from roster.model.schema import Entity
from roster.operations.context import Context, Request, run_plans
from roster.ports import Answer, Loaded
from roster.sync.coverage import count_cells, count_profiles, quarantined, read_cells, read_coverage, why_quarantined

EXAMPLES = 3
Tried = tuple[Table, Loaded] | Error
"""What reading a source on trial gave."""


def meet_connection(context: Context, request: Request, world: World, id: str, tried: Tried | None) -> dict[str, Any]:
    """How a connection's rows and profiles meet, why rows meet none, and the cells that its fields refuse."""
    connection, table = find_connection(world.mapping, id), world.sources.get(id)
    assert connection is not None
    if isinstance(tried, Error):
        return {"id": id, "state": "failing", "reason": tried.text()}
    if table is None:
        return {"id": id, "state": "waiting", "reason": _waits(context, connection)}
    loaded = tried[1] if tried else Loaded(table.row_count, 0)
    answers, found = _meet(context, request, world.entity, connection, table)
    places = [m.row for m in found if m.reason != MATCHED] + [m.several_row for m in found if m.several_row is not None]
    examples = _keys_at(context, request, world.entity, connection, table, places)
    coverage = read_coverage(world.entity, connection, table, loaded, answers)
    counting = coverage.matched + coverage.unmatched
    return {
        "id": id,
        "state": "ok",
        "rows": {
            "read": coverage.rows,
            "matched": coverage.matched,
            "unmatched": coverage.unmatched,
            "duplicate": coverage.duplicate,
        },
        "profiles": {
            "all": coverage.profiles,
            "matched": coverage.profiles_matched,
            "unmatched": coverage.profiles_unmatched,
        },
        "match_rate": {
            "rows": _share(coverage.matched, counting),
            "profiles": _share(coverage.profiles_matched, coverage.profiles),
        },
        "unmatched": _reasons(examples, found, coverage.unmatched),
        "duplicates": _duplicates(examples, found),
        "cells": [
            {"field": c.field_id, "filled": c.filled, "accepted": c.accepted, "rejected": c.filled - c.accepted}
            | _examples(context, request, connection, table, c.field_id, c.filled - c.accepted)
            for c in read_cells(connection, table, answers[0])[1]
        ],
    }


def _waits(context: Context, connection: Connection) -> str:
    reason = "its rows are not here yet: it cannot be told what they match"
    named = dict(connection.metadata).get("table_name", connection.id)
    hint = did_you_mean(named, [t.name for t in context.store.list_tables() if not t.owner])
    return f"{reason}; {hint}" if is_reference(connection) and hint else reason


def _share(part: int, whole: int) -> float | None:
    return round(part / whole, 4) if whole else None


@dataclass(frozen=True, slots=True)
class _Met:
    """Join keys of one reason: how many, profiles and rows that have them, a row; those with several rows, one."""

    reason: str
    keys: int
    profiles: int | None
    rows: int
    row: int
    several: int
    several_row: int | None


def _meet(
    context: Context, request: Request, entity: Entity, connection: Connection, table: Table
) -> tuple[list[Answer], list[_Met]]:
    """What `read_coverage` wants of a connection, and why its keys meet profiles or not, most first."""
    cells, met = count_cells(connection, table, relation_of(table)), reasons(entity, connection, table)
    plans = [cells] if met is None else [cells, met, count_profiles(entity)]
    answers = run_plans(context, request, plans)
    if met is None:
        return answers, []
    found = sorted((_Met(*row) for row in answers[1].rows), key=lambda m: (-m.keys, m.reason))
    matched = next((m for m in found if m.reason == MATCHED), None)
    meetings = (sum(m.keys for m in found), matched.keys if matched else 0, matched.profiles if matched else 0)
    keyed = sum(m.rows for m in found)
    return [answers[0], Answer((), [meetings]), Answer((), [(keyed,)]), answers[2]], found


def _reasons(keys: dict[int, str], found: list[_Met], unmatched: int) -> list[dict[str, Any]]:
    """Why rows meet no profile; those without a key at last."""
    named = [m for m in found if m.reason != MATCHED]
    told: list[dict[str, Any]] = [{"reason": m.reason, "rows": m.keys, "example": keys.get(m.row)} for m in named]
    keyless = unmatched - sum(m.keys for m in named)
    return told + ([{"reason": "no key", "rows": keyless}] if keyless else [])


def _duplicates(keys: dict[int, str], found: list[_Met]) -> dict[str, Any] | None:
    several = [m for m in found if m.several_row is not None]
    if not several:
        return None
    example = keys.get(several[0].several_row or 0)
    return {"keys": sum(m.several for m in several), "example": example, "rule": "the last row of a key counts"}


def _keys_at(
    context: Context, request: Request, entity: Entity, connection: Connection, table: Table, places: list[int]
) -> dict[int, str]:
    plan = rows_at(entity, connection, table, places) if places else None
    return dict(run_plans(context, request, [plan])[0].rows) if plan is not None else {}


def _examples(
    context: Context, request: Request, connection: Connection, table: Table, field_id: str, rejected: int
) -> dict[str, Any]:
    """Some of the cells that a field refuses, with the keys of their rows and why."""
    plan = quarantined(connection, table, field_id, EXAMPLES) if rejected else None
    if plan is None:
        return {}
    field = next(f for f in connection.fields if f.id == field_id)
    cells = run_plans(context, request, [plan])[0].rows
    told = [{"row_key": key, "value": value, "reason": why_quarantined(field, value, t)} for key, value, t in cells]
    return {"examples": told}
