"""Values depend on what sources say last, never on the order of their syncs: random sources, orders and threads.

What must come out is told by plain Python that knows the last contents only.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

import pytest
import re2
from hypothesis import HealthCheck, given, settings, strategies as st
from hypothesis.strategies import DrawFn

from oracle_values import as_text, converted
from roster.model.changes import create, delete
from roster.model.connection import Connection, CreateRequest, Field
from roster.model.held import make_held, sources_of
from roster.model.rules import Choice, Conflict, Nulls, Rules
from roster.model.schema import Entity, Type
from roster.model.source import Origin
from roster.model.sync import Fetched, Phase, Run, State, Step, Sync, Trigger
from roster.ports import Cancel, Reading, Wanted
from roster.query.expr import Column
from roster.query.plan import Project
from roster.query.relations import profiles
from roster.sync.run import run_sync
from sync.world import BUDGET, RULES, Rows, RowSource, World

pytestmark = pytest.mark.xdist_group("order")
EXAMPLES = int(os.environ.get("ROSTER_ORDERS", "6"))
LOOSE = replace(RULES, shrink_max=1.0, misfits_max=1.0)
USERS = {"u1": "a@x.org", "u2": "B@x.org ", "u3": "c@x.org", "u4": None, "u5": "b@x.org"}
KEYS = ["1", "2", "3", "4", "", None]
EMAILS = ["a@x.org", "A@x.org", " a@x.org", "b@x.org", "B@X.ORG", "c@x.org", "d@x.org", "", None]
TIMES = [None, "", "2024-01-01T00:00:00Z", "2024-01-02", "2024-01-02T00:00:00Z", "2024-01-01T22:00:00-02:00", "soon"]
CELLS: dict[Type, list[Any]] = {
    Type.STRING: ["gold", "GOLD", "free", "", "  ", " gold", None],
    Type.NUMBER: [1, 2.5, "3", " 4 ", "n/a", "", None],
    Type.BOOLEAN: [True, "no", "1", "maybe", "", None],
    Type.TIMESTAMP: ["2024-01-01", "2024-01-01T10:00:00Z", "2024-13-01", "", None],
}
PATTERNS = ["(?i)g.*", r"\d.*", "t.+", ".", "2024.*"]


RULED = {f"{c}_{n or 'mixed'}": (c, n) for c in Choice for n in (Nulls.SKIP, Nulls.CLEAR, None)}
"""An attribute for every conflict rule with every null rule; None: each source has its own."""


@dataclass(frozen=True)
class Source:
    """A file with what it says one after the other, and its fields; nothing is said when it never syncs."""

    id: str
    fields: tuple[Field, ...]
    is_timed: bool
    contents: tuple[Rows, ...]


@dataclass(frozen=True)
class Case:
    """Sources of the attributes, how they agree, and an order to sync them in: numbers of sources."""

    sources: tuple[Source, ...]
    types: dict[str, Type]
    conflicts: tuple[Conflict, ...]
    turns: tuple[int, ...]


@st.composite
def rules(draw: DrawFn, nulls: Nulls, cells: list[Any]) -> Rules:
    kind = draw(st.integers(0, 4))
    texts = sorted({as_text(c).strip() for c in cells if c is not None})
    if kind == 0:
        return Rules(nulls, allowed=tuple(draw(st.lists(st.sampled_from(texts), min_size=1, max_size=3, unique=True))))
    return Rules(nulls, pattern=draw(st.sampled_from(PATTERNS)) if kind == 1 else "")


@st.composite
def contents(draw: DrawFn, types: dict[str, Type]) -> tuple[Rows, ...]:
    cells = {name: st.sampled_from(CELLS[type]) for name, type in types.items()}
    keys = {"id": st.sampled_from(KEYS), "mail": st.sampled_from(EMAILS), "at": st.sampled_from(TIMES)}
    said = draw(st.lists(st.lists(st.fixed_dictionaries(keys | cells), max_size=7), max_size=3))
    filled = {name: CELLS[type][0] for name, type in types.items()}
    first = {"id": "0", "mail": "nobody@x.org", "at": "2024-01-01T00:00:00Z"} | filled
    # a file that never had a line has no columns: its first sync fails
    return tuple([first, *rows] if n == 0 else rows for n, rows in enumerate(said))


@st.composite
def sources(draw: DrawFn, number: int, types: dict[str, Type]) -> Source:
    fields = []
    for name, (_, nulls) in RULED.items():
        of_field = draw(st.sampled_from(Nulls)) if nulls is None else nulls
        fields.append(Field(name, name, types[name], rules=draw(rules(of_field, CELLS[types[name]]))))
    offered = fields if number == 0 else [f for f in fields if draw(st.integers(0, 5))]
    is_timed = draw(st.sampled_from([True, True, True, False]))
    return Source(f"s{number}", tuple(offered), is_timed, draw(contents(types)))


@st.composite
def cases(draw: DrawFn) -> Case:
    types = {name: draw(st.sampled_from(list(CELLS))) for name in RULED}
    made = tuple(draw(sources(n, types)) for n in range(draw(st.integers(2, 4))))
    ids = [s.id for s in made]
    conflicts = []
    for name, (choice, _) in RULED.items():
        order = draw(st.permutations(ids))[: draw(st.integers(0, len(ids)))]
        conflicts.append(Conflict(name, choice, tuple(order)))
    turns = draw(st.permutations([n for n, source in enumerate(made) for _ in source.contents]))
    return Case(made, types, tuple(conflicts), tuple(turns))


# what must come out: by the words of Choice and Nulls alone


def expected(case: Case) -> dict[str, dict[str, Any]]:
    """User → attribute → value."""
    return {user: {c.field_id: chosen(case, c, email) for c in case.conflicts} for user, email in USERS.items()}


def chosen(case: Case, conflict: Conflict, email: str | None) -> Any:
    order, offers = conflict.order, []
    for source in sorted(case.sources, key=lambda s: order.index(s.id) if s.id in order else len(order)):
        row = row_of(source, email)
        for offered in source.fields:
            if row is not None and offered.id == conflict.field_id:
                offers.append((value_of(offered, row), offered.rules.nulls, time_of(source, row)))
    if conflict.choice is Choice.NON_EMPTY:
        return next((v for v, _, _ in offers if v is not None and str(v).strip()), None)
    counting = [(v, time) for v, nulls, time in offers if v is not None or nulls is Nulls.CLEAR]
    if conflict.choice is Choice.NEWEST and counting:
        newest = max(time for _, time in counting)
        return next(v for v, time in counting if time == newest)
    return counting[0][0] if counting else None


def row_of(source: Source, email: str | None) -> dict[str, Any] | None:
    """The last row of that e-mail, of those that are the last of their key."""
    rows = source.contents[-1] if source.contents else []
    keyed = [row for row in rows if row["id"]]
    last = [row for n, row in enumerate(keyed) if row["id"] not in [later["id"] for later in keyed[n + 1 :]]]
    same = [row for row in last if email and row["mail"] and plain(row["mail"]) == plain(email)]
    return same[-1] if same else None


def plain(email: str) -> str:
    return email.strip().lower()


def value_of(offered: Field, row: dict[str, Any]) -> Any:
    cell = row[offered.source_name]
    value = None if cell is None or cell == "" else converted(cell, Type.ANY, offered.type)
    text = None if value is None else as_text(value)
    if offered.rules.allowed and text not in offered.rules.allowed:
        return None
    if offered.rules.pattern and (text is None or re2.fullmatch(offered.rules.pattern, text) is None):
        return None
    return value


def time_of(source: Source, row: dict[str, Any]) -> datetime:
    time = converted(row["at"], Type.ANY, Type.TIMESTAMP) if source.is_timed else None
    assert time is None or isinstance(time, datetime)
    return time or datetime.min


# what does come out


@dataclass
class Files:
    """The port Sources over many sources of rows, told apart by their path."""

    by_path: dict[str, RowSource] = field(default_factory=dict)

    def check(self, origin: Origin) -> None:
        """Every source is allowed."""

    def fetch(self, wanted: Wanted, report: Callable[[Reading], None], cancel: Cancel) -> Fetched | None:
        """The rows as they are now."""
        return self.by_path[wanted.origin.get("path")].fetch(wanted, report, cancel)


@dataclass
class Order:
    """A world whose connections are those of one case."""

    world: World
    files: Files
    tables: dict[str, str] = field(default_factory=dict)

    def define(self, case: Case) -> None:
        for source in case.sources:
            metadata = {"path": f"{source.id}.csv", "key": "id"} | ({"changed_at": "at"} if source.is_timed else {})
            asked = CreateRequest(
                source.id, "file", "email", "mail", source.fields, tuple(metadata.items()), case.conflicts
            )
            self.world.change(lambda m, asked=asked: create(m, asked, who="t", now_ms=0, source_columns=None))

    def forget(self) -> None:
        self.clear()
        for connection in self.connections():
            self.world.change(lambda m, id=connection.id: delete(m, id))

    def connections(self) -> list[Connection]:
        return [c for c in self.world.mapping().connections if c.id != "crm"]

    def clear(self) -> None:
        """Every source as if it had never synced."""
        for id in self.tables.values():
            self.world.store.remove_table(id, who="t", now_ms=0)
            self.world.tables.drop_table(id)
        self.tables = {}
        for connection in self.connections():
            table = make_held(Entity.USERS, connection, self.world.clock.new_id(), 0)
            self.world.store.add_table(table, who="t")
            self.world.store.write_sync(Sync(table.id, State.SYNCING, 0))
            self.tables[connection.id] = table.id
            self.files.by_path[f"{connection.id}.csv"] = RowSource()

    def queued(self, source: Source) -> Run:
        clock = self.world.clock
        table_id = self.tables[source.id]
        run = Run(clock.new_id(), table_id, Trigger.MANUAL, Phase.QUEUED, Step.READ, 1, clock.now_ms())
        self.world.store.write_run(run)
        return run

    def sync(self, source: Source, rows: Rows, run: Run) -> None:
        self.files.by_path[f"{source.id}.csv"].rows = rows
        ended = run_sync(self.world.ports, run, Cancel())
        assert ended.phase in (Phase.DONE, Phase.UNCHANGED), ended.failure

    def sync_in_order(self, sources: Sequence[Source], order: Sequence[int]) -> None:
        left = {n: iter(source.contents) for n, source in enumerate(sources)}
        for n in order:
            self.sync(sources[n], next(left[n]), self.queued(sources[n]))

    def sync_at_once(self, sources: Sequence[Source]) -> None:
        """A thread for each source; its own contents one after the other."""
        queued = [[(source, rows, self.queued(source)) for rows in source.contents] for source in sources]

        def work(turns: list[tuple[Source, Rows, Run]]) -> None:
            for turn in turns:
                self.sync(*turn)

        with ThreadPoolExecutor(len(sources)) as threads:
            list(threads.map(work, queued))

    def served(self, types: dict[str, Type]) -> dict[str, dict[str, Any]]:
        """User → attribute → value."""
        mapping = self.world.mapping()
        relation = profiles(mapping, sources_of(mapping, self.world.store.list_tables()))
        columns = {"user_id": Type.STRING} | types
        plan = Project(relation, tuple((name, Column(name, type)) for name, type in columns.items()))
        (answer,) = self.world.engine.run([plan], BUDGET)
        return {id: dict(zip(types, map(naive, values), strict=True)) for id, *values in answer.rows}


def naive(value: Any) -> Any:
    return value.replace(tzinfo=None) if isinstance(value, datetime) else value


@pytest.fixture(scope="module")
def order(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Order]:
    files = Files()
    world = World(tmp_path_factory.mktemp("order"), (), LOOSE)
    world.ports = replace(world.ports, sources=files)
    world.send(USERS)
    yield Order(world, files)
    world.close()


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
@given(case=cases())
def test_the_order_of_syncs_does_not_matter(order: Order, case: Case) -> None:
    wanted = expected(case)
    order.define(case)
    try:
        order.clear()
        order.sync_in_order(case.sources, case.turns)
        assert order.served(case.types) == wanted, "one after the other"
        order.clear()
        order.sync_at_once(case.sources)
        assert order.served(case.types) == wanted, "at once"
    finally:
        order.forget()
