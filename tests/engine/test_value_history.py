"""Values as of an event's time: after random changes of a table the engine's answers equal those of plain Python.

ROSTER_WORLDS raises the number of worlds.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, given, note, settings, strategies as st

from oracle_values import EPOCH
from roster.engine.connection import Duck, DuckLimits
from roster.engine.duckdb import DuckEngine
from roster.engine.enriched import Enriched
from roster.engine.events import DuckEvents
from roster.engine.tables import DuckTables
from roster.model.connection import Connection, Field
from roster.model.mapping import Mapping, attributes
from roster.model.reference_table import Row, Table
from roster.model.schema import Column as SchemaColumn, Entity, Type
from roster.ports import ANEW, Budget, Merge
from roster.query.expr import Column
from roster.query.over_time import events_over_time
from roster.query.plan import Project
from roster.query.relations import profiles

WORLDS = int(os.environ.get("ROSTER_WORLDS", "0")) // 4 or 10
MANY = settings(max_examples=WORLDS, deadline=None, print_blob=True, suppress_health_check=list(HealthCheck))
BUDGET = Budget(60.0, 1_000_000)
START_MS = 1_700_000_000_000
TICKS = 26
USERS = {"u1": "ann@x.org", "u2": " Bob@x.org", "u3": "eve@x.org", "u4": None}
MAILS = ("ann@x.org", "ANN@x.org ", "bob@x.org", "eve@x.org", "nobody@x.org", "")
COLUMNS = tuple(SchemaColumn(n, t) for n, t in (("id", Type.STRING), ("mail", Type.STRING), ("tier", Type.STRING)))
SEATS = SchemaColumn("seats", Type.INTEGER)
Cells = dict[str, str | None]
Span = tuple[int, float, int, str, Cells]
"""Since, until, place at the end, key and cells of a row."""


@dataclass
class Truth:
    """What a table was, change by change: the time of each and, by key, each row's place and cells."""

    snapshots: list[tuple[int, dict[str, tuple[int, Cells]]]] = field(default_factory=list)
    ended: list[Span] = field(default_factory=list)
    """What is known of a time before history was off."""

    def note(self, at: int, rows: dict[str, tuple[int, Cells]]) -> None:
        """A change at that tick, or at the last one when the clock went back; where only places change it is none."""
        last, before = self.snapshots[-1] if self.snapshots else (int(max([0, *(s[1] for s in self.ended)])), {})
        if cells_of(before) != cells_of(rows):
            last = max(at, last)
        if self.snapshots or rows:
            self.snapshots.append((last, dict(rows)))

    def stop(self) -> None:
        """History is off: until when the present rows are as they are will not be known."""
        self.ended, self.snapshots = [s for s in self.spans() if s[1] != float("inf")], []

    def spans(self) -> list[Span]:
        """Every row as long as its cells stayed the same."""
        found = list(self.ended)
        for n, (since, rows) in enumerate(self.snapshots):
            for key, (place, cells) in rows.items():
                if n and self.snapshots[n - 1][1].get(key, (0, None))[1] == cells:
                    continue
                until: float = float("inf")
                last = place
                for later, others in self.snapshots[n + 1 :]:
                    if others.get(key, (0, None))[1] != cells:
                        until = later
                        break
                    last = others[key][0]
                found.append((since, until, last, key, cells))
        return found

    def values(self, mail: str | None, at: int) -> tuple[str | None, float | None]:
        """The fields of a user at a time: of the rows of its mail that counted then, the last one's."""
        mine = (mail or "").strip().lower()
        valid = [s for s in self.spans() if s[0] <= at < s[1] and mine and (s[4]["mail"] or "").strip().lower() == mine]
        if not valid:
            return None, None
        cells = max(valid, key=lambda s: (s[2], s[3]))[4]
        return cells["tier"] or None, number(cells.get("seats"))


def cells_of(rows: dict[str, tuple[int, Cells]]) -> dict[str, Cells]:
    return {key: cells for key, (_, cells) in rows.items()}


def number(text: str | None) -> float | None:
    """What a number field over an integer column reads."""
    try:
        value = float(text) if text else None
    except ValueError:
        return None
    return value if value is not None and value == int(value) else None


class World:
    """A real engine with events of four users at every tick, and one table after another."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.open()
        lines = [
            {"k": f"{user}@{tick}", "time": START_MS + tick * 1000, "type": "view", "user_id": user}
            | ({"user_email": mail} if mail else {})
            for tick in range(TICKS)
            for user, mail in USERS.items()
        ]
        path = folder / "events.ndjson"
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
        self.events.apply_segment(1, path)

    def open(self) -> None:
        self.duck = Duck(self.folder / "engine.duckdb", DuckLimits("500MB", 2, "1GB"))
        self.enriched = Enriched(self.duck)
        self.events = DuckEvents(self.duck, self.enriched.renew_profiles)
        self.tables = DuckTables(self.duck, self.enriched.change_source, snapshot_ttl_ms=0)
        self.engine = DuckEngine(self.duck, self.enriched)

    def restart(self) -> None:
        self.duck.close()
        self.open()

    def then(self, mapping: Mapping, table: Table) -> dict[tuple[str, int], tuple[Any, ...]]:
        """User and tick -> the fields as of the event at that tick."""
        customs = tuple(a for a in attributes(mapping) if a.is_custom)
        plan = events_over_time(mapping, {"crm": table} if self.tables.has_history(table) else {}, customs)
        named = (("user_id", Type.STRING), ("time", Type.TIMESTAMP), *((a.id, a.type) for a in customs))
        answer = self.engine.run([Project(plan, tuple((n, Column(n, t)) for n, t in named))], BUDGET)[0]
        assert len(answer.rows) == TICKS * len(USERS)
        return {(user, tick_of(time)): tuple(values) for user, time, *values in answer.rows}

    def now(self, mapping: Mapping, table: Table) -> dict[str, tuple[Any, ...]]:
        """User -> the fields as they are."""
        names = [("user_id", Type.STRING), *((a.name, a.type) for a in attributes(mapping) if a.is_custom)]
        plan = Project(profiles(mapping, {"crm": table}), tuple((n, Column(n, t)) for n, t in names))
        return {row[0]: row[1:] for row in self.engine.run([plan], BUDGET)[0].rows}


def tick_of(time: datetime) -> int:
    return ((time - EPOCH) // timedelta(milliseconds=1) - START_MS) // 1000


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    world = World(tmp_path_factory.mktemp("history"))
    yield world
    world.duck.close()


class Teller:
    """Changes a table as a story says, and keeps the truth about it."""

    def __init__(self, world: World, *, by_key: bool, seats: bool) -> None:
        self.world, self.by_key = world, by_key
        columns = (*COLUMNS, SEATS) if seats else COLUMNS
        fields = [Field("tier", "tier", Type.STRING), *([Field("seats", "seats", Type.NUMBER)] if seats else [])]
        metadata = (("history", "true"),)
        crm = Connection("crm", "ref_table", "email", "mail", tuple(fields), metadata, 0, "t", 0, "t")
        self.mapping = Mapping(Entity.USERS, 1, (crm,))
        key = "mail" if by_key else "id"
        self.table = Table(str(uuid4()), "crm", columns, key, "LOCAL_FILE", "", (), 0, "t", "t", 0, 0)
        self.rows: dict[str, tuple[int, Cells]] = {}
        self.truth = Truth()
        self.begun = False
        self.tick = 1

    def file(self, rows: list[Cells]) -> Path:
        path = self.world.folder / f"{uuid4()}.csv"
        names = [c.name for c in self.table.columns]
        path.write_text("\n".join([",".join(names), *(",".join(r.get(n) or "" for n in names) for r in rows)]) + "\n")
        return path

    def key(self, cells: Cells) -> str:
        return str(cells[self.table.primary_key] or "")

    def keep(self, at: int, *, history: bool = True) -> None:
        self.begun |= history
        if self.begun:
            self.truth.note(at, self.rows)

    def fill(self, rows: list[Cells], kind: str, at: int, *, history: bool) -> None:
        """The next generation, named unless the kind says that its sync failed."""
        following = replace(self.table, generation=self.table.generation + 1, held=())
        since_ms = START_MS + at * 1000 if history else None
        kept = {self.key(r): n for n, r in enumerate(rows, 1) if self.key(r).strip()}
        merge = Merge(self.table, (), kind == "changes", since_ms)
        if kind == "upload":
            plain = merge if history else ANEW
            self.world.tables.create_table(following, [self.file(rows)], "csv", merge=plain)
        else:
            following = replace(
                following, held=self.world.tables.stage_table(following, [self.file(rows)], "csv", merge).held
            )
        if kind == "failed":
            return
        self.table = following
        last = max((place for place, _ in self.rows.values()), default=0)
        given = {key: (n, rows[n - 1]) for key, n in kept.items()}
        if kind == "changes":
            given = {k: (self.rows[k][0] if k in self.rows else last + n, cells) for k, (n, cells) in given.items()}
            given = self.rows | given
        self.rows = given
        self.begun = history
        if not history:
            self.truth.stop()
        self.keep(at, history=history)

    def upsert(self, rows: list[Cells], at: int) -> None:
        distinct = {self.key(r): r for r in rows if self.key(r).strip()}
        given = [
            Row(k, {n: v or None for n, v in r.items() if n != self.table.primary_key}) for k, r in distinct.items()
        ]
        self.world.tables.upsert_rows(self.table, given, START_MS + at * 1000, history=True)
        changed = {k: r for k, r in distinct.items() if self.rows.get(k, (0, None))[1] != r}
        last = max((place for place, _ in self.rows.values()), default=0)
        for key in (k for k in distinct if k in changed):
            last += key not in self.rows
            self.rows[key] = (self.rows[key][0] if key in self.rows else last, changed[key])
        if changed:
            self.keep(at)

    def delete(self, rows: list[Cells], at: int) -> None:
        keys = {self.key(r) for r in rows} & self.rows.keys()
        self.world.tables.delete_rows(self.table, sorted(keys), START_MS + at * 1000, history=True)
        self.rows = {k: v for k, v in self.rows.items() if k not in keys}
        if keys:
            self.keep(at)


@st.composite
def stories(draw: st.DrawFn, *, by_key: bool, seats: bool) -> list[tuple[str, int, list[Cells]]]:
    """Kinds of changes, the ticks between them and the rows they are about."""
    cells = {
        "id": st.sampled_from(["a", "b", "c", "d"]),
        "mail": st.sampled_from(MAILS),
        "tier": st.sampled_from(["gold", "silver", ""]),
    }
    if seats:
        cells["seats"] = st.sampled_from(["7", "8", "7.0", "7.5", "x", ""])
    rows = st.lists(st.fixed_dictionaries(cells), max_size=5)
    kinds = ["sync", "sync", "changes", "failed", "restart", "now"]
    kinds += ["upload", "upsert", "upsert", "delete"] if not seats else []  # these take no cell that does not fit
    step = st.tuples(st.sampled_from(kinds), st.sampled_from([0, 1, 1, 2, 3, -2]), rows)
    return draw(st.lists(step, min_size=1, max_size=8))


def tell(world: World, story: list[tuple[str, int, list[Cells]]], *, by_key: bool, seats: bool) -> None:
    teller = Teller(world, by_key=by_key, seats=seats)
    world.tables.create_table(teller.table, [], "csv")
    recorded: dict[int, dict[str, tuple[Any, ...]]] = {}
    was_off = False
    for kind, ticks, rows in story:
        teller.tick = max(1, teller.tick + ticks)
        match kind:
            case "restart":
                world.restart()
            case "upsert":
                teller.upsert(rows, teller.tick)
            case "delete":
                teller.delete(rows, teller.tick)
            case "now":
                teller.fill(rows, "sync", teller.tick, history=False)
                was_off = True
            case _:
                teller.fill(rows, kind, teller.tick, history=True)
        world.tables.drop_generations({teller.table.id: (teller.table.generation,)}, START_MS)
        if teller.truth.snapshots:
            recorded[teller.truth.snapshots[-1][0]] = world.now(teller.mapping, teller.table)
        found = world.then(teller.mapping, teller.table)
        width = len(teller.mapping.connections[0].fields)
        for (user, tick), values in found.items():
            expected = (teller.truth.values(USERS[user], tick) if teller.begun else (None, None))[:width]
            assert values == expected, (kind, user, tick)
            if by_key and not was_off:  # a place that moves says nothing of another time
                seen = max((t for t in recorded if t <= tick), default=None)
                assert values == ((None,) * width if seen is None else recorded[seen][user])
    world.tables.drop_table(teller.table.id)
    connection = world.duck.cursor()
    left = connection.execute("SELECT table_name FROM information_schema.tables").fetchall()
    connection.close()
    assert not [name for (name,) in left if teller.table.id.replace("-", "") in name]


@MANY
@given(story=stories(by_key=False, seats=False))
def test_shared_keys_and_writes_of_rows(world: World, story: list[tuple[str, int, list[Cells]]]) -> None:
    note(str(story))
    tell(world, story, by_key=False, seats=False)


@MANY
@given(story=stories(by_key=True, seats=True))
def test_cells_that_do_not_fit(world: World, story: list[tuple[str, int, list[Cells]]]) -> None:
    note(str(story))
    tell(world, story, by_key=True, seats=True)
