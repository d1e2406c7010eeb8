"""Random histories of a source against plain Python: what readers see and what is counted, after every sync.

Keys are messy (case, blanks, duplicates, none), cells do not fit, columns vanish and return, rows come and go.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from roster.model.sync import Phase
from sync.world import FIELDS, RULES, World

EMAILS = ["a@x.org", "A@x.org", " a@x.org", "b@x.org", "B@X.ORG", "c@x.org", "", "  ", None]
USERS = {"u1": "a@x.org", "u2": "B@x.org ", "u3": "d@x.org", "u4": None, "u5": "b@x.org"}
SCORES = [None, 1, 2.5, "3", " 4 ", "n/a", "", True]
ROW = st.fixed_dictionaries(
    {"email": st.sampled_from(EMAILS), "tier": st.sampled_from(["gold", "free", "", None])},
    optional={"score": st.sampled_from(SCORES)},
)
SOURCE = st.tuples(st.lists(ROW, min_size=1, max_size=8), st.booleans())
"""Rows, and whether the column `score` is there."""
LOOSE = replace(RULES, shrink_max=1.0, misfits_max=1.0)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    made = World(tmp_path_factory.mktemp("histories"), FIELDS, LOOSE)
    made.send(USERS)
    yield made
    made.close()


class Model:
    """What a table holds and what readers see, in plain Python."""

    def __init__(self) -> None:
        self.held: dict[str, dict[str, Any]] = {}

    def sync(self, rows: list[dict[str, Any]], scored: bool) -> dict[str, int]:
        """Take the rows of the source; gives the counters that must come out."""
        kept: dict[str, dict[str, Any]] = {}
        keyless = 0
        for row in rows:
            key = row["email"]
            if key is None or not key.strip():
                keyless += 1
                continue
            kept.pop(key, None)
            score = row.get("score") if scored else self.held.get(key, {}).get("score")
            kept[key] = {"tier": row["tier"] or None, "score": score}
        self.held = kept
        winners = {key.strip().lower(): key for key in kept}
        ours = {email.strip().lower() for email in USERS.values() if email}
        matched = len(winners.keys() & ours)
        cells = [value for row in kept.values() for value in (row["tier"], row["score"])]
        misfits = sum(number(row["score"]) is None and filled(row["score"]) for row in kept.values())
        return {
            "rows": len(rows),
            "matched": matched,
            "unmatched": len(winners) - matched + keyless,
            "duplicate": len(rows) - keyless - len(winners),
            "cells": len(cells),
            "quarantined": misfits,
            "profiles": len(USERS),
            "profiles_matched": sum(bool(e) and e.strip().lower() in winners for e in USERS.values()),
        }

    def served(self) -> dict[str, tuple[Any, ...]]:
        winners = {key.strip().lower(): row for key, row in self.held.items()}
        found = {id: winners.get(email.strip().lower()) if email else None for id, email in USERS.items()}
        return {id: (row["tier"], number(row["score"])) if row else (None, None) for id, row in found.items()}


def filled(value: Any) -> bool:
    return value is not None and value != ""


def number(value: Any) -> float | None:
    """A cell of a source as a field of type number reads it."""
    if value is True or value is None:
        return None
    try:
        return float(value)
    except ValueError:
        return None


@given(history=st.lists(SOURCE, min_size=1, max_size=4))
@settings(max_examples=12, suppress_health_check=list(HealthCheck))
def test_every_sync_of_a_random_history_is_as_told(world: World, history: list[Any]) -> None:
    model = Model()
    # every history begins with a source in which nothing is carried from the one before
    for rows, scored in [([{"email": "z@x.org", "tier": "x", "score": 0}], True), *history]:
        full = [{"email": r["email"], "tier": r["tier"]} | ({"score": r.get("score")} if scored else {}) for r in rows]
        run = world.sync(full, forced=True)
        assert run.phase is Phase.DONE, run.failure
        expected = model.sync(full, scored)
        (line,) = run.coverage
        assert {name: getattr(line, name) for name in expected} == expected
        assert line.rows == line.matched + line.unmatched + line.duplicate
        assert line.cells == line.accepted + line.null + line.quarantined
        assert line.profiles == line.profiles_matched + line.profiles_unmatched
        assert world.served() == model.served()
