"""Kills the server at every step of a sync while readers ask: old or new, never mixed, and the sync goes on by itself.

`ROSTER_KILLS` says how many kills, `ROSTER_SEED` repeats the random ones.
"""

from __future__ import annotations

import os
import random
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import count, cycle, islice
from pathlib import Path
from typing import Any

import pytest

from e2e.source_world import (
    CONNECTION,
    ENDED,
    Database,
    Link,
    Proxy,
    Readers,
    add_users,
    check_run,
    check_tidied,
    check_told,
    end_run,
    kept_relations,
    kept_runs,
    kept_tables,
    marked,
    put_secret,
    query,
    readers_of,
    settings,
    until,
)
from servers import Server
from services import Absent, postgres

pytestmark = pytest.mark.e2e

KILLS = int(os.environ.get("ROSTER_KILLS", "6"))
SEED = int(os.environ.get("ROSTER_SEED", "1"))
USERS = 200
ROWS = 20_000
COLUMNS = {"a": "number", "b": "string", "c": "number"}
"""Columns of one generation all say its number, so that every mixture shows."""
STEPS = ("read", "stage", "check", "swap", "any", "twice")
TTL_S = 2.0
"""How long old rows are kept."""
ROUNDS = 4
TRIES = 20
"""How often a step is tried to be met: some take a few milliseconds."""


@dataclass
class World:
    """A server with two sources, a database behind a proxy and a file; every row of a generation bears its number."""

    server: Server
    database: Database
    proxy: Proxy
    links: tuple[Link, Link]
    path: Path
    generation: int = 0
    met: Counter[str] = field(default_factory=Counter)

    def renew(self) -> None:
        """Give both sources their next generation, each in one step."""
        self.generation = n = self.generation + 1
        self.database.run(f"UPDATE people SET a = {n}, b = '{n}', c = {n};")
        aside = self.path.with_suffix(".new")
        lines = (f"u{i},{n},{n},{n},{'x' * 20}\n" for i in range(ROWS))
        aside.write_text("user_id,a,b,c,note\n" + "".join(lines))
        aside.rename(self.path)

    def served(self) -> list[set[str]]:
        """The generations that each source serves."""
        return [marked(link.served(tuple(COLUMNS))) for link in self.links]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with ExitStack() as stack:
        try:
            service = stack.enter_context(postgres())
        except Absent as absent:
            pytest.skip(str(absent))
        proxy = stack.enter_context(Proxy(service.port))
        database = Database(service)
        database.run("CREATE TABLE people (user_id text, a float8, b text, c float8, note text);")
        database.run(
            f"INSERT INTO people SELECT 'u' || n, 0, '0', 0, repeat('x', 20) FROM generate_series(0, {ROWS - 1}) n;"
        )
        database.make_user("reader", "words", "people")
        more = {"snapshot_ttl_s": str(TTL_S), "syncs_at_once": "2", "queries_at_once": "4"}
        server = Server(tmp_path, **settings(tmp_path, **more))
        made = World(server, database, proxy, (Link(server, "db"), Link(server, "file")), tmp_path / "files/people.csv")
        made.renew()
        stack.callback(server.stop)
        server.start()
        add_users(server, USERS)
        put_secret(server, "db", user="reader", password="words")
        made.links[0].connect("postgres", database.metadata("people", "db", proxy.port), COLUMNS)
        made.links[1].connect("file", {"path": str(made.path)}, COLUMNS)
        for link in made.links:
            check_told(link, "ok")
        yield made


def kill_at(world: World, step: str, dice: random.Random) -> dict[str, str]:
    """Begin a sync of both sources and kill the server at a step of either; the runs, by the name of their source."""
    for _ in range(TRIES):
        world.renew()
        if step == "read":
            world.proxy.hold(dice.randrange(2_000, 200_000))
        runs = {link.name: link.begin() for link in world.links}
        if _wait_for(world, step, set(runs.values()), dice):
            world.server.kill()
            world.met[step] += 1
            world.proxy.heal()
            return runs
        world.proxy.heal()
        for id in runs.values():
            assert end_run(world.server, id)["phase"] == "done"
    raise AssertionError(f"step {step} was never met in {TRIES} syncs")


def _wait_for(world: World, step: str, ids: set[str], dice: random.Random) -> bool:
    """Whether the step was met before all was over."""
    if step == "read":
        return world.proxy.met.wait(60)
    if step in ("any", "twice"):
        time.sleep(dice.random() * 1.5)
        return True
    while True:
        runs = [run for run in kept_runs(world.server) if run[0] in ids]
        if any(phase == "running" and at == step for _, phase, at in runs):
            return True
        if len(runs) == len(ids) and all(phase in ENDED for _, phase, _ in runs):
            return False


def go_on(world: World, runs: dict[str, str], step: str, dice: random.Random) -> None:
    """Start it again: all runs end by themselves, well, and what is served is whole and new."""
    before = {id: (phase, at) for id, phase, at in kept_runs(world.server)}
    accepted = world.proxy.accepted
    if step == "twice":
        world.server.start()
        time.sleep(dice.random() * 0.5)
        world.server.kill()
    until(lambda: readers_of(world.server.folder) == [], "the reading processes to end with their server")
    world.server.start()
    for link in world.links:
        run = end_run(world.server, runs[link.name])
        assert run["phase"] == "done", (before, run)
        assert run["rows"]["stored"] == ROWS
        check_told(link, "ok")
    assert world.served() == [{str(world.generation)}] * 2, before
    at = before[runs[world.links[0].name]][1]
    if at in ("check", "swap"):
        assert world.proxy.accepted == accepted, "what was read whole is not read again"
    check_tidied(world.server)
    assert {phase for _, phase, _ in kept_runs(world.server)} <= ENDED
    for link in world.links:
        for run in link.runs():
            check_run(run)


def test_a_sync_survives_kills_at_every_step(world: World) -> None:
    print(f"ROSTER_SEED={SEED} ROSTER_KILLS={KILLS}")
    dice = random.Random(SEED)
    with ExitStack() as stack:
        readers = [
            stack.enter_context(Readers(world.server, link.fields(tuple(COLUMNS)), USERS)) for link in world.links
        ]
        for step in islice(cycle(STEPS), KILLS):
            runs = kill_at(world, step, dice)
            go_on(world, runs, step, dice)
            for one in readers:
                one.check()
    print(f"kills: {dict(world.met)}; answers, all whole: {[r.answers for r in readers]}")
    check_left(world)


def check_left(world: World) -> None:
    """After a while only the present generations are there."""
    for _ in range(2):
        for link in world.links:
            assert link.sync()["phase"] in ("done", "unchanged")
        time.sleep(TTL_S)
    for link in world.links:
        assert link.sync()["phase"] == "unchanged"
    world.server.stop()
    kept = [f"rows_{id.replace('-', '')}_{generation}" for id, generation in kept_tables(world.server).items()]
    assert kept_relations(world.server) == sorted(kept)


# readers


def test_readers_see_whole_generations_during_swaps(world: World) -> None:
    """Many swaps, queries of values, of searches and changes of the mapping at once."""
    fields = [link.fields(tuple(COLUMNS)) for link in world.links]
    with ExitStack() as stack:
        readers = [stack.enter_context(Readers(world.server, ids, USERS)) for ids in fields]
        numbers = count()
        for _ in range(ROUNDS):
            world.renew()
            runs = [link.begin() for link in world.links]
            while not all(_has_ended(world.server, id) for id in runs):
                search(world, next(numbers))
                edit(world, next(numbers))
            for id in runs:
                assert end_run(world.server, id)["phase"] == "done"
            assert world.served() == [{str(world.generation)}] * 2
    for one in readers:
        one.check()
        assert len(one.seen) > 2 * 2
    print(f"answers, all whole: {[r.answers for r in readers]}")


def _has_ended(server: Server, id: str) -> bool:
    phase = server.ask("GET", f"/api/roster/runs/{id}").json()["data"]["attributes"]["phase"]
    return phase in ENDED


def search(world: World, number: int) -> None:
    """All users are found by a generation's number, or none."""
    link = world.links[number % 2]
    n = world.generation - number % 3 // 2
    found = query(world.server, query=f"{link.id}_a:{n} {link.id}_b:{n}", limit=1, select_columns=["user_id"])
    assert found["total"] in (0, USERS)


def edit(world: World, number: int) -> None:
    """Add a field, or take it away."""
    link = world.links[number % 2]
    id = f"{link.id}_extra"
    change: dict[str, Any] = {"fields_to_delete": [id]}
    if number % 4 < 2:
        change["fields_to_add"] = [{"id": id, "source_name": "note", "type": "string"}]
    body = {"data": {"type": "connection_id", "id": link.id, "attributes": change}}
    assert world.server.ask("PUT", CONNECTION, body).status == 200
