"""Sources over time: schedules, staleness, restarts, commands, turns, removal, a full disk, a webhook that is down."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from e2e.source_world import (
    BASE,
    PAUSE_MIN_S,
    Database,
    Link,
    Proxy,
    Receiver,
    add_users,
    check_tidied,
    check_told,
    end_run,
    kept_relations,
    kept_runs,
    kept_tables,
    put_secret,
    receiving,
    settings,
    until,
)
from servers import Server
from services import Absent, postgres

pytestmark = pytest.mark.e2e

USERS = 20
NOTHING = {f"u{n}": (None, None) for n in range(USERS)}
DISK_BYTES = 96_000_000


def rows(tier: str, add: float = 0) -> dict[str, tuple[str, float]]:
    return {f"u{n}": (tier, n + add) for n in range(USERS)}


def write(path: Path, tier: str, header: str = "user_id,tier,score", width: int = 0, count: int = USERS) -> None:
    """A CSV file in which everybody has this tier, put into its place in one step."""
    aside = path.with_suffix(".new")
    fill = "x" * width
    aside.write_text(header + ",note\n" + "".join(f"u{n},{tier},{n},{n:08}{fill}\n" for n in range(count)))
    aside.rename(path)


@dataclass(frozen=True)
class Place:
    """A server of one test, which has not started yet, and its folder of files."""

    server: Server
    folder: Path
    receiver: Receiver

    def start(self) -> None:
        self.server.start()
        add_users(self.server, USERS)

    def file(self, id: str) -> Path:
        return self.folder / "files" / f"{id}.csv"

    def connect_file(self, id: str, tier: str = "first", **metadata: str) -> Link:
        """A connection over a file that has synced well."""
        write(self.file(id), tier)
        link = Link(self.server, id).connect("file", {"path": str(self.file(id)), **metadata})
        check_told(link, "ok")
        assert link.served() == rows(tier)
        return link


@contextmanager
def placed(folder: Path, **more: str) -> Iterator[Place]:
    with receiving("words") as receiver:
        hook = {"webhook_url": receiver.url, "webhook_secret": receiver.secret}
        server = Server(folder, **settings(folder, **hook, **more))
        try:
            yield Place(server, folder, receiver)
        finally:
            server.stop()


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    with placed(tmp_path) as made:
        yield made


@dataclass(frozen=True)
class Slow:
    """A database whose answers a proxy can hold."""

    database: Database
    proxy: Proxy

    def connect(self, link: Link, tier: str, **metadata: str) -> Link:
        """Over a new table, of which the first answer is held."""
        table = f"people_{link.id}_{tier}"
        self.database.make_table(table, USERS, "tier varchar(40), score double precision, note text")
        self.database.run(f"UPDATE {table} SET tier = '{tier}', note = repeat('x', 10000);")
        self.database.allow("reader", table)
        put_secret(link.server, "db", user="reader", password="words")
        self.proxy.hold(50_000)
        return link.connect("postgres", {**self.database.metadata(table, "db", self.proxy.port), **metadata})


@pytest.fixture(scope="module")
def slow() -> Iterator[Slow]:
    with ExitStack() as stack:
        try:
            database = Database(stack.enter_context(postgres()))
        except Absent as absent:
            pytest.skip(str(absent))
        database.run("CREATE USER reader PASSWORD 'words';")
        yield Slow(database, stack.enter_context(Proxy(database.service.port)))


# time


def test_a_schedule_fires_by_itself(place: Place) -> None:
    place.start()
    link = place.connect_file("timed", every="10s")
    write(place.file("timed"), "second")
    until(lambda: link.served() == rows("second"), "the schedule to fire")
    done = [run for run in link.runs() if run["phase"] == "done"]
    assert [run["trigger"] for run in done] == ["schedule", "created"]


def test_a_source_that_hangs_becomes_stale(tmp_path: Path, slow: Slow) -> None:
    """A sync under way makes nothing fresh; one that waits behind it neither."""
    with placed(tmp_path, stale_after="1") as place:
        place.start()
        other = place.connect_file("other", every="10s")
        link = slow.connect(Link(place.server, "hung"), "first", every="10s")
        slow.proxy.heal()
        check_told(link, "ok")
        slow.database.run("UPDATE people_hung_first SET score = score + 100;")
        slow.proxy.hold(50_000)
        for one in (link, other):
            until(lambda one=one: one.source()["state"] == "stale", f"{one.name} to become stale")
            source = one.source()
            assert "older than 1 intervals of 10 s" in source["reason"]
            assert source["running"] is not None
        assert other.served() == rows("first")
        slow.proxy.heal()
        for one in (link, other):
            until(lambda one=one: one.source()["state"] == "ok", f"{one.name} to be fresh again")
            wanted = [("", "ok"), ("ok", "stale"), ("stale", "ok")]
            until(lambda one=one, wanted=wanted: place.receiver.told(one.name)[:3] == wanted, "the webhook to hear all")


# restarts


def test_states_survive_stops_and_kills(place: Place) -> None:
    place.start()
    links = [place.connect_file(id) for id in ("good", "gone", "drifting")]
    waiting = Link(place.server, "waiting").connect("file", {"path": str(place.file("never"))})
    place.file("gone").unlink()
    write(place.file("drifting"), "second", "user_id,level,score")
    for link in links:
        link.sync()
    states = {"good": "ok", "gone": "failing", "drifting": "drifted", "waiting": "waiting"}
    found = {link.id: check_told(link, states[link.id]) for link in (*links, waiting)}
    until(lambda: len(place.receiver.notices) == 6, "the webhook to hear all")
    for end in (place.server.stop, place.server.kill):
        end()
        place.server.start()
        for link in (*links, waiting):
            assert check_told(link, states[link.id]) == found[link.id]
        for link in links:
            assert link.served() == rows("first")
    assert len(place.receiver.notices) == 6, "a restart changes no state"
    write(place.file("gone"), "back")
    links[1].sync()
    check_told(links[1], "ok")
    assert links[1].served() == rows("back")


def test_a_webhook_that_was_down_is_told_later(place: Place) -> None:
    place.start()
    link = place.connect_file("told")
    until(lambda: place.receiver.told(link.name) == [("", "ok")])
    place.receiver.is_down = True
    place.file("told").unlink()
    link.sync()
    check_told(link, "failing")
    until(lambda: place.receiver.refused > 0, "the webhook to refuse")
    place.server.kill()
    place.server.start()
    place.receiver.is_down = False
    until(lambda: len(place.receiver.told(link.name)) > 1, "the webhook to be told again")
    assert place.receiver.told(link.name) == [("", "ok"), ("ok", "failing")]
    (_, notice) = [n for n in place.receiver.notices if n["source"] == link.name]
    shown = link.source()
    assert (notice["reason"], notice["since"]) == (shown["reason"], shown["since"])
    assert notice["connections"] == [link.name]


# commands


def test_commands_work_beside_the_server_and_without_it(place: Place) -> None:
    place.start()
    link = place.connect_file("people")
    place.server.env["COLUMNS"] = "200"
    for number, beside in enumerate((True, False)):
        if not beside:
            place.server.stop()
        write(place.file("people"), f"new{number}")
        told = place.server.cli("source", "sync", "users/people")
        assert f"{USERS} rows read: {USERS} stored, 0 duplicate, 0 without a key" in told
        assert f"users/people: {USERS} of {USERS} profiles matched" in told
        assert "unchanged: nothing to do" in place.server.cli("source", "sync", "users/people")
        assert "rows read" in place.server.cli("source", "sync", "users/people", "--force")
        listed = place.server.cli("source", "list")
        assert "users/people" in listed
        assert "ok" in listed
        assert place.server.cli("source", "runs", "users/people").count("manual") == 3 + 5 * number
        write(place.file("people"), "none", count=0)
        refused = place.server.run_cli("source", "sync", "users/people")
        assert refused.returncode != 0
        assert "the source is empty" in refused.stderr + refused.stdout
        assert "failing" in place.server.cli("source", "list")
        write(place.file("people"), f"new{number}")
        place.server.cli("source", "sync", "users/people")
        assert place.server.run_cli("source", "cancel", "users/people").returncode != 0, "nothing runs"
        assert place.server.run_cli("source", "sync", "users/peopl").returncode != 0
    place.server.start()
    assert link.served() == rows("new1")


def test_a_read_is_cancelled_by_command(place: Place, slow: Slow) -> None:
    place.start()
    link = slow.connect(Link(place.server, "stopped"), "first")
    assert slow.proxy.met.wait(60)
    assert "asked to cancel" in place.server.cli("source", "cancel", "users/stopped")
    until(lambda: link.source()["running"] is None, "the run to end")
    assert link.runs()[0]["phase"] == "cancelled"
    check_tidied(place.server)
    slow.proxy.heal()
    link.sync()
    check_told(link, "ok")
    assert {tier for tier, _ in link.served().values()} == {"first"}


# at once, and gone


def reach(server: Server, step: str, link: Link) -> None:
    """Wait until a run of all is at this step, or the source has synced already: some steps are short."""
    until(
        lambda: any(r[1:] == ("running", step) for r in kept_runs(server)) or link.source()["state"] == "ok",
        step,
        PAUSE_MIN_S,
    )


def test_syncs_take_turns(place: Place, slow: Slow) -> None:
    """One at a time: the other waits, can be cancelled while it waits, and comes when it is its turn."""
    place.start()
    other = place.connect_file("other")
    link = slow.connect(Link(place.server, "first"), "first")
    assert slow.proxy.met.wait(60)
    write(place.file("other"), "second")
    waiting = other.begin()
    assert other.source()["running"]["phase"] == "queued"
    assert other.ask("POST", "/cancel").status == 202
    assert other.served() == rows("first")
    assert link.source()["running"]["phase"] == "running"
    slow.proxy.heal()
    assert end_run(place.server, waiting)["phase"] == "cancelled"
    assert other.sync()["phase"] == "done"
    assert other.served() == rows("second")
    check_told(link, "ok")


def test_what_is_accepted_while_a_sync_runs_is_not_lost(place: Place, slow: Slow) -> None:
    place.start()
    link = slow.connect(Link(place.server, "late"), "first")
    slow.proxy.heal()
    check_told(link, "ok")
    slow.database.run("DELETE FROM people_late_first WHERE score >= 5;")
    slow.proxy.hold(20_000)
    first = link.begin()
    assert slow.proxy.met.wait(60)
    answer = link.ask("POST", "/sync?accept_loss=true")
    assert answer.status == 202
    second = answer.json()["data"]["id"]
    assert second != first
    slow.proxy.heal()
    assert end_run(place.server, first)["failure"]["code"] == "conflict"
    assert end_run(place.server, second)["phase"] == "done"
    check_told(link, "ok")
    assert sum(tier is not None for tier, _ in link.served().values()) == 5


def test_a_connection_removed_while_it_syncs_leaves_nothing(place: Place, slow: Slow) -> None:
    place.start()
    kept = place.connect_file("kept")
    link = slow.connect(Link(place.server, "gone"), "first")
    assert slow.proxy.met.wait(60)
    link.remove()
    assert link.ask("GET").status == 404
    slow.proxy.heal()
    # and in the middle of what comes after reading
    for number in range(4):
        id = f"big{number}"
        write(place.file(id), "first", width=200, count=20_000)
        big = Link(place.server, id).connect("file", {"path": str(place.file(id))})
        reach(place.server, ("read", "stage", "check", "swap")[number], big)
        big.remove()
        assert big.ask("GET").status == 404
    kept.sync(force=True)
    check_tidied(place.server)
    tables = kept_tables(place.server)
    assert len(tables) == 1
    assert len(kept_runs(place.server)) == len(kept.runs())
    place.server.stop()
    (only,) = tables
    left = kept_relations(place.server)
    assert [name for name in left if only.replace("-", "") not in name] == []


def test_another_source_under_the_same_name_shows_only_its_own(place: Place, slow: Slow) -> None:
    place.start()
    link = place.connect_file("same", "mine")
    link.remove()
    assert link.server.ask("GET", f"{BASE}/mapping/connections").json()["data"]["attributes"]["connections"] == []
    slow.connect(link, "other")
    assert slow.proxy.met.wait(60)
    assert link.served() == NOTHING
    assert link.source()["state"] == "syncing"
    place.server.kill()
    place.server.start()
    assert link.served() == NOTHING
    slow.proxy.heal()
    check_told(link, "ok")
    assert {tier for tier, _ in link.served().values()} == {"other"}
    # and back again: the first source is read anew, and nothing of the second shows while it is held
    link.remove()
    write(place.file("same"), "again")
    link.connect("file", {"path": str(place.file("same"))})
    check_told(link, "ok")
    assert link.served() == rows("again")


# the disk


@contextmanager
def small_disk(folder: Path, size: int) -> Iterator[None]:
    """A file system of that many bytes at the folder. Skips the test where none can be mounted."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    if os.geteuid() != 0 or shutil.which("mount") is None or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("needs a file system of limited size, which only root may mount")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Place]:
    """A server whose data folder is small."""
    with small_disk(tmp_path / "data", DISK_BYTES), placed(tmp_path) as made:
        yield made


def test_the_disk_is_too_small_for_what_comes(small: Place) -> None:
    small.start()
    link, other = small.connect_file("big"), small.connect_file("other")
    noise = os.urandom(90_000).hex()
    aside = small.file("big").with_suffix(".new")
    cells = (f"u{n},late,{n},{n}{noise[n % 80_000 :][:9000]}" for n in range(12_000))
    aside.write_text("user_id,tier,score,note\n" + "\n".join(cells) + "\n")
    aside.rename(small.file("big"))
    run = link.sync()
    assert (run["phase"], run["failure"]["code"]) == ("failed", "busy"), run
    check_told(link, "failing", "space")
    assert link.served() == rows("first")
    write(small.file("other"), "second")
    assert other.sync()["phase"] == "done"
    assert other.served() == rows("second")
    write(small.file("big"), "second")
    link.sync()
    check_told(link, "ok")
    assert link.served() == rows("second")


@pytest.mark.parametrize("step", ["stage", "check", "swap"])
def test_the_disk_is_full_at_a_step(small: Place, step: str) -> None:
    small.start()
    link = small.connect_file("big", every="10s")
    ballast = Path(small.server.env["ROSTER_DATA"]) / "ballast"
    for number in range(20):
        write(small.file("big"), f"new{number}", width=100, count=20_000)
        reach_or_end(small.server, step, link.begin())
        fill(ballast)
        until(lambda: link.source()["running"] is None or link.source()["state"] == "failing" or is_stuck(small.server))
        if link.source()["running"] is not None or link.source()["state"] == "failing":
            break
        ballast.unlink()
    else:
        pytest.skip(f"{step} was too fast to be met")
    assert link.served() in (rows("first"), *(rows(f"new{n}") for n in range(number + 1)))
    until(lambda: small.server.ask("GET", "/health").status == 200)
    ballast.unlink()
    check_told(link, "ok")  # by itself
    until(lambda: link.served() == rows(f"new{number}"), "the last rows to be served")
    print(f"{step}: {[(r['phase'], r['step'], r['failure']) for r in link.runs()]}")
    for run in link.runs():
        if run["failure"]:
            assert run["failure"]["code"] == "busy", run
            assert "space" in run["failure"]["message"] + run["failure"]["hint"], run


def reach_or_end(server: Server, step: str, id: str) -> None:
    """Wait until a run is at this step, or beyond."""
    later = ("done", "failed"), ("running", step)
    until(
        lambda: any(r[0] == id and (r[1] in later[0] or r[1:] == later[1]) for r in kept_runs(server)),
        step,
        PAUSE_MIN_S,
    )


def is_stuck(server: Server) -> bool:
    """Whether even our own records could not be written, so that nothing could be told."""
    return "our own records cannot be written" in server.log()


def fill(path: Path) -> None:
    """Take all the space there is."""
    with path.open("wb", buffering=0) as file:
        for size in (2**20, 2**12):
            try:
                while True:
                    file.write(b"x" * size)
            except OSError:
                continue
