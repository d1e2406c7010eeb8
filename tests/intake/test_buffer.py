"""The event log keeps what it acknowledged, and the applier brings each line into the engine once."""

from __future__ import annotations

import errno
import os
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from roster.base.errors import Code, Error
from roster.engine.connection import Duck, DuckLimits
from roster.engine.events import DuckEvents
from roster.intake.buffer import Applier, EventLog
from roster.ports import Applied, Progress

LIMITS = DuckLimits(memory="500MB", threads=1, spill="1GB")


def written(log: EventLog) -> list[bytes]:
    """All lines of closed segments, in order."""
    log.rotate()
    return [line for _, path in log.pending() for line in path.read_bytes().splitlines()]


def test_segments_are_closed_listed_and_removed(tmp_path: Path) -> None:
    log = EventLog(tmp_path, after=7)
    assert log.rotate() is None
    log.append([b"a", b"b"])
    log.append([])
    first = log.rotate()
    assert first is not None
    assert first[0] == 8
    assert first[1].read_bytes() == b"a\nb\n"
    log.append([b"c"])
    assert log.pending() == [first]
    assert written(log) == [b"a", b"b", b"c"]
    log.remove(8)
    assert [number for number, _ in log.pending()] == [9]
    assert not first[1].exists()


def test_a_full_segment_is_closed_by_itself(tmp_path: Path) -> None:
    log = EventLog(tmp_path, after=0, segment_bytes_max=10)
    log.append([b"x" * 9])
    log.append([b"y"])
    assert [path.read_bytes() for _, path in log.pending()] == [b"x" * 9 + b"\n"]


def test_a_restart_keeps_whole_lines_and_never_reuses_a_number(tmp_path: Path) -> None:
    log = EventLog(tmp_path, after=0)
    log.append([b"a", b"b"])
    for number, content in ((5, b"c\nto"), (6, b"torn"), (7, b"")):
        (tmp_path / f"events-{number:012d}.ndjson").write_bytes(content)
    again = EventLog(tmp_path, after=3)
    again.append([b"d"])
    assert written(again) == [b"a", b"b", b"c", b"d"]
    assert [number for number, _ in again.pending()] == [1, 5, 6]
    for number, _ in again.pending():
        again.remove(number)
    third = EventLog(tmp_path, after=6)
    third.append([b"e"])
    assert third.rotate() == (7, tmp_path / "events-000000000007.ndjson")


def test_what_comes_together_is_synced_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first sync is held until all others wait: 32 callers need two syncs."""
    log = EventLog(tmp_path, after=0)
    sync, syncs, all_wait = os.fdatasync, [], threading.Event()

    def held(file: int) -> None:
        syncs.append(file)
        assert all_wait.wait(30)
        sync(file)

    monkeypatch.setattr(os, "fdatasync", held)
    threads = [threading.Thread(target=log.append, args=([b"%d" % n],)) for n in range(32)]
    for thread in threads:
        thread.start()
    while len(log._queue) < 31:
        threading.Event().wait(0.001)
    all_wait.set()
    for thread in threads:
        thread.join()
    assert len(syncs) == 2
    assert sorted(written(log), key=int) == [b"%d" % n for n in range(32)]


def test_many_threads_and_a_rotator_lose_nothing(tmp_path: Path) -> None:
    log = EventLog(tmp_path, after=0)
    ended = threading.Event()

    def append(thread: int) -> None:
        for n in range(20):
            log.append([b"%d-%d" % (thread, n)])

    def rotate() -> None:
        while not ended.is_set():
            log.rotate()

    rotator = threading.Thread(target=rotate)
    threads = [threading.Thread(target=append, args=(t,)) for t in range(32)]
    for thread in (rotator, *threads):
        thread.start()
    for thread in threads:
        thread.join()
    ended.set()
    rotator.join()
    lines = written(log)
    assert len(lines) == 640
    assert set(lines) == {b"%d-%d" % (t, n) for t in range(32) for n in range(20)}
    for thread in range(32):
        mine = [line for line in lines if line.startswith(b"%d-" % thread)]
        assert mine == [b"%d-%d" % (thread, n) for n in range(20)]


def test_too_much_waiting_is_refused_until_something_is_removed(tmp_path: Path) -> None:
    log = EventLog(tmp_path, after=0, bytes_max=10)
    log.append([b"123456"])
    with pytest.raises(Error) as caught:
        log.append([b"7890"])
    assert caught.value.code is Code.OVERLOADED
    log.append([b"78"])
    log.rotate()
    log.remove(1)
    log.append([b"7890"])
    assert written(log) == [b"7890"]


@contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    """Files of this process cannot grow beyond `size`: the nearest thing to a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_acknowledges_nothing_and_leaves_no_half_line(tmp_path: Path) -> None:
    log = EventLog(tmp_path, after=0)
    log.append([b"before"])
    with file_size_limit(100), pytest.raises(Error) as caught:
        log.append([b"x" * 60, b"y" * 60])
    assert caught.value.code is Code.BUSY
    log.append([b"after"])
    assert written(log) == [b"before", b"after"]
    with file_size_limit(0), pytest.raises(Error):
        log.append([b"z"])
    assert written(log) == [b"before", b"after"]


def test_a_failed_sync_fails_everyone_who_waited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = EventLog(tmp_path, after=0)
    all_wait = threading.Event()

    def fail(file: int) -> None:
        assert all_wait.wait(30)
        raise OSError(errno.EIO, "the disk is broken")

    outcomes: list[Code | None] = []

    def append() -> None:
        try:
            log.append([b"x"])
            outcomes.append(None)
        except Error as error:
            outcomes.append(error.code)

    monkeypatch.setattr(os, "fdatasync", fail)
    threads = [threading.Thread(target=append) for _ in range(8)]
    for thread in threads:
        thread.start()
    while len(log._queue) < 7:
        threading.Event().wait(0.001)
    all_wait.set()
    for thread in threads:
        thread.join()
    assert outcomes == [Code.BUSY] * 8
    monkeypatch.undo()
    log.append([b"y"])
    assert written(log) == [b"y"]


def test_a_split_segment_comes_after_all_others(tmp_path: Path) -> None:
    log = EventLog(tmp_path, after=0)
    log.append([b"a", b"b", b"c"])
    log.rotate()
    log.append([b"d"])
    log.split(1, [[b"a"], [b"b", b"c"]])
    log.append([b"e"])
    assert written(log) == [b"d", b"a", b"b", b"c", b"e"]
    with file_size_limit(0), pytest.raises(OSError, match="File too large"):
        log.split(2, [[b"d"], [b"d"]])
    assert sorted(written(log)) == [b"a", b"b", b"c", b"d", b"e"]
    assert len(list(tmp_path.iterdir())) == len(log.pending())


@pytest.fixture
def duck(tmp_path: Path) -> Iterator[Duck]:
    duck = Duck(tmp_path / "db" / "roster.duckdb", LIMITS)
    yield duck
    duck.close()


def stored(duck: Duck) -> list[str]:
    connection = duck.cursor()
    rows = connection.execute("SELECT event_id FROM events ORDER BY 1").fetchall()
    connection.close()
    return [id for (id,) in rows]


def line(key: str, fresh: bool = False) -> bytes:
    mark = '"fresh":true,' if fresh else ""
    return f'{{{mark}"k":"{key}","time":1700000000000,"type":"server","user_id":"u"}}'.encode()


def test_the_applier_stores_everything_once(tmp_path: Path, duck: Duck) -> None:
    events = DuckEvents(duck, lambda *_: None)
    log = EventLog(tmp_path / "log", after=events.applied_segment())
    applier = Applier(log, events, lambda: 0)
    assert applier.flush() == Applied(0, 0)
    log.append([line("a"), line("b")])
    log.rotate()
    log.append([line("b"), line("c")])
    assert applier.flush() == Applied(3, 1)
    assert log.pending() == []
    assert (stored(duck), events.applied_segment()) == (["a", "b", "c"], 2)


@pytest.mark.parametrize("place", [0, 5, 10])
def test_a_line_that_cannot_be_stored_is_put_aside_alone(tmp_path: Path, duck: Duck, place: int) -> None:
    events = DuckEvents(duck, lambda *_: None)
    log = EventLog(tmp_path / "log", after=0)
    lines = [line(f"{n:02d}", fresh=n % 2 == 0) for n in range(10)]
    lines.insert(place, b'{"k":"bad","time":"never"}')
    log.append(lines)
    assert Applier(log, events, lambda: 0).flush().stored == 10
    assert stored(duck) == [f"{n:02d}" for n in range(10)]
    kept = list((tmp_path / "log" / "rejected").iterdir())
    assert [path.read_bytes() for path in kept] == [b'{"k":"bad","time":"never"}\n']
    assert log.pending() == []


class DyingLog(EventLog):
    """A log whose process dies before it removes anything."""

    def remove(self, number: int) -> None:
        raise InterruptedError


def test_a_crash_in_the_middle_of_a_split_stores_nothing_twice(tmp_path: Path, duck: Duck) -> None:
    events = DuckEvents(duck, lambda *_: None)
    dying = DyingLog(tmp_path / "log", after=0)
    dying.append([line(f"{n:02d}", fresh=True) for n in range(6)] + [b"bad"])
    with pytest.raises(InterruptedError):
        Applier(dying, events, lambda: 0).flush()
    log = EventLog(tmp_path / "log", after=events.applied_segment())
    assert len(log.pending()) == 3
    Applier(log, events, lambda: 0).flush()
    assert stored(duck) == [f"{n:02d}" for n in range(6)]


class FlakyEvents:
    """Events that fails a number of times, then remembers what it was given."""

    def __init__(self, failures: int) -> None:
        self.failures = failures
        self.given: list[tuple[int, bytes]] = []
        self.done = threading.Event()

    def apply_segment(self, number: int, path: Path) -> Applied:
        if self.failures:
            self.failures -= 1
            raise Error(Code.BUSY, "not now")
        self.given.append((number, path.read_bytes()))
        self.done.set()
        return Applied(1, 0)

    def applied_segment(self) -> int:
        return 0

    def settle(self, now_ms: int) -> None:
        """There are no sessions here."""

    def load_file(self, path: Path, format: str, columns: object, report: Callable[[Progress], None]) -> Applied:
        raise NotImplementedError

    def rebuild_profiles(self) -> None:
        raise NotImplementedError


def test_a_passing_failure_loses_nothing_and_keeps_the_order(tmp_path: Path) -> None:
    log, events = EventLog(tmp_path, after=0), FlakyEvents(1)
    log.append([b"a"])
    with pytest.raises(Error, match="not now"):
        Applier(log, events, lambda: 0).flush()
    log.append([b"b"])
    Applier(log, events, lambda: 0).flush()
    assert events.given == [(1, b"a\n"), (2, b"b\n")]


def test_the_thread_tries_again_and_stop_applies_the_rest(tmp_path: Path) -> None:
    log, events = EventLog(tmp_path, after=0), FlakyEvents(2)
    applier = Applier(log, events, lambda: 0, interval_s=0.001, retry_max_s=0.001)
    applier.start()
    log.append([b"a"])
    assert events.done.wait(30)
    log.append([b"b"])
    applier.stop()
    assert b"".join(content for _, content in events.given) == b"a\nb\n"
    assert log.pending() == []


def test_computing_sessions_leaves_time_for_events(tmp_path: Path) -> None:
    """It takes 3 s: 3 s more belong to the events that wait. An hour, when the clock jumps, is not waited for."""
    now_ms, looks, took_ms = 0, list[int](), 3000

    class Slow(FlakyEvents):
        def settle(self, now_ms: int) -> None:
            looks.append(now_ms)
            wait(took_ms)

    def wait(ms: int) -> None:
        nonlocal now_ms
        now_ms += ms

    log = EventLog(tmp_path, after=0)
    applier = Applier(log, Slow(0), lambda: now_ms)
    for _ in range(9):
        wait(1000)
        log.append([b"a"])
        applier.step()
    assert looks == [1000, 7000, 13000]
    took_ms = 3_600_000
    for _ in range(9):
        wait(1000)
        log.append([b"a"])
        applier.step()
    assert looks[4] - looks[3] == 3_601_000


SERVER = """
import sys, threading
from pathlib import Path
from roster.engine.connection import Duck, DuckLimits
from roster.engine.events import DuckEvents
from roster.intake.buffer import Applier, EventLog

folder = Path(sys.argv[1])
events = DuckEvents(Duck(folder / "db" / "roster.duckdb", DuckLimits("500MB", 1, "1GB")), lambda *_: None)
log = EventLog(folder / "log", after=events.applied_segment(), segment_bytes_max=2000)
Applier(log, events, lambda: 0, interval_s=0.01).start()

def send(thread):
    for n in range(1_000_000):
        key = f"{sys.argv[2]}-{thread}-{n}"
        line = '{"fresh":true,"k":"%s","time":1700000000000,"type":"server","user_id":"u%d"}' % (key, n)
        log.append([line.encode()])
        sys.stdout.write(key + "\\n")
        sys.stdout.flush()

for thread in range(4):
    threading.Thread(target=send, args=(thread,)).start()
"""


def test_every_acknowledged_line_survives_a_kill_and_is_stored_once(tmp_path: Path) -> None:
    acknowledged: set[str] = set()
    for life, count in enumerate((300, 700, 500)):
        child = subprocess.Popen([sys.executable, "-c", SERVER, str(tmp_path), str(life)], stdout=subprocess.PIPE)
        assert child.stdout is not None
        for _ in range(count):
            acknowledged.add(child.stdout.readline().decode().strip())
        child.send_signal(signal.SIGKILL)
        rest = child.stdout.read().decode()
        acknowledged |= set(rest.splitlines()[:-1] if not rest.endswith("\n") else rest.splitlines())
        child.stdout.close()
        child.wait()
    duck = Duck(tmp_path / "db" / "roster.duckdb", LIMITS)
    events = DuckEvents(duck, lambda *_: None)
    Applier(EventLog(tmp_path / "log", after=events.applied_segment()), events, lambda: 0).flush()
    keys = stored(duck)
    connection = duck.cursor()
    counted = connection.execute("SELECT sum(events_count) FROM users").fetchone()
    connection.close()
    duck.close()
    assert len(acknowledged) >= 1500
    assert len(keys) == len(set(keys))
    assert acknowledged <= set(keys)
    assert counted == (len(keys),)
