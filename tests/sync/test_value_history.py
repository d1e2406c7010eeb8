"""Runs of syncs over a source with history: values count from the start of their run, a failed run leaves none."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from roster.base.time import instant
from roster.model.changes import create, delete
from roster.model.connection import CreateRequest
from roster.model.held import keeps_history
from roster.model.reference_table import spans_of, stored_columns
from roster.model.schema import Entity
from roster.model.sync import Phase
from roster.query.over_time import SPAN
from roster.query.plan import Read
from sync.world import BUDGET, FIELDS, World

ADA, BOB = ({"email": f"{name}@x.org", "tier": "gold", "score": 1} for name in ("ada", "bob"))


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """The connection of every world, asking for history: a view of the same table, not another source."""
    world = World(tmp_path)
    (crm,) = world.mapping().connections
    metadata = (*crm.metadata, ("history", "True"))
    wanted = CreateRequest("crm", crm.type, crm.join_type, crm.join_attribute, FIELDS, metadata)
    world.change(lambda m: delete(m, "crm"))
    world.change(lambda m: create(m, wanted, who="t", now_ms=0, source_columns=None))
    yield world
    world.close()


def spans(world: World) -> list[tuple[Any, ...]]:
    """Key, since and until (None: still so) in epoch milliseconds, tier."""
    table = world.table()
    names = [c.name for c in (*SPAN, *stored_columns(table))]
    rows = world.engine.run([Read(spans_of(table), (*SPAN, *stored_columns(table)))], BUDGET)[0].rows
    found = [dict(zip(names, row, strict=True)) for row in rows]
    return sorted(((r["_id"], ms(r["_since"]), ms(r["_until"]), r["tier"]) for r in found), key=str)


def ms(time: Any) -> int | None:
    return (time - instant(0)) // timedelta(milliseconds=1) if time.year < 9999 else None


def test_values_count_from_the_start_of_their_run(world: World) -> None:
    first = world.sync([ADA, BOB])
    second = world.sync([replace_tier(ADA, "silver"), BOB])
    assert (first.phase, second.phase) == (Phase.DONE, Phase.DONE)
    expected = [
        ("ada@x.org", first.started_ms, second.started_ms, "gold"),
        ("ada@x.org", second.started_ms, None, "silver"),
        ("bob@x.org", first.started_ms, None, "gold"),
    ]
    assert spans(world) == expected
    assert world.sync().phase is Phase.UNCHANGED
    assert spans(world) == expected


def test_a_run_that_fails_after_staging_leaves_the_past_as_it_was(world: World) -> None:
    world.sync([ADA, BOB, *({**ADA, "email": f"{n}@x.org"} for n in range(3))])
    before = spans(world)
    lost = world.sync([replace_tier(ADA, "silver")])
    assert lost.phase is Phase.FAILED
    assert spans(world) == before
    done = world.sync(accepted=True, forced=True)
    assert done.phase is Phase.DONE
    after = spans(world)
    assert [s for s in after if s[2] is None] == [("ada@x.org", done.started_ms, None, "silver")]
    assert {(s[0], s[1]) for s in before} == {(s[0], s[1]) for s in after if s[2] == done.started_ms}


def test_a_paused_field_keeps_its_values_and_their_times(world: World) -> None:
    first = world.sync([ADA, BOB])
    assert world.sync([{"email": r["email"], "score": r["score"]} for r in (ADA, BOB)]).phase is Phase.DONE
    assert spans(world) == [(f"{n}@x.org", first.started_ms, None, "gold") for n in ("ada", "bob")]


def test_who_asks(world: World) -> None:
    mapping = world.mapping()
    table = world.table()
    assert keeps_history(table, [mapping], [table])
    (crm,) = mapping.connections
    for said in ("false", "", "yes"):
        other = replace(crm, metadata=(*[m for m in crm.metadata if m[0] != "history"], ("history", said)))
        assert not keeps_history(table, [replace(mapping, connections=(other,))], [table])
    assert not keeps_history(table, [replace(mapping, entity=Entity.ACCOUNTS)], [table]), "that owns another table"


def replace_tier(row: dict[str, Any], tier: str) -> dict[str, Any]:
    return {**row, "tier": tier}
