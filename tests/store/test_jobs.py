"""The port Jobs on real threads: what runs, what is replaced, what is forgotten; nothing here measures time."""

from __future__ import annotations

import time
from collections.abc import Iterator
from threading import Barrier, Event, Thread, current_thread, enumerate as all_threads
from typing import Any

import pytest
from structlog.testing import capture_logs

from roster.ports import Jobs
from roster.store.jobs import BackgroundJobs

WAIT_S = 30.0
FAR_S = 3600.0


class MachineClock:
    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def new_id(self) -> str:
        raise NotImplementedError

    def new_secret(self) -> str:
        raise NotImplementedError


@pytest.fixture
def jobs() -> Iterator[Jobs]:
    made = BackgroundJobs(MachineClock(), at_once=2)
    yield made
    made.stop()


class Blocked:
    """Work that takes a worker until it is let go."""

    def __init__(self) -> None:
        self.begun, self.released, self.ended = Event(), Event(), Event()

    def __call__(self) -> None:
        self.begun.set()
        self.released.wait(WAIT_S)
        self.ended.set()


@pytest.fixture
def busy(jobs: Jobs) -> Iterator[Blocked]:
    """Both workers taken."""
    work, other = Blocked(), Blocked()
    other.released = work.released
    jobs.start("busy", work)
    jobs.start("busy too", other)
    assert work.begun.wait(WAIT_S)
    assert other.begun.wait(WAIT_S)
    yield work
    work.released.set()


def settle(jobs: Jobs) -> None:
    """Return when a job asked for now has run: what was due before it has gone to the workers by then."""
    last = Event()
    jobs.start("~last", last.set)  # of jobs due in the same millisecond, the one whose id sorts last
    assert last.wait(WAIT_S)


@pytest.mark.parametrize("after_s", [0.0, 0.05, -5.0])
def test_a_job_runs_once(jobs: Jobs, after_s: float) -> None:
    ran: list[str] = []
    done = Event()

    def work() -> None:
        ran.append(current_thread().name)
        done.set()

    jobs.start("sync t1", work, after_s)
    assert done.wait(WAIT_S)
    settle(jobs)
    assert len(ran) == 1
    assert ran[0].startswith("job")
    assert jobs.ids() == []


def test_a_later_job_waits_and_is_replaced(jobs: Jobs) -> None:
    ran = []
    done = Event()
    jobs.start("retry t1", lambda: ran.append("old"), FAR_S)
    assert jobs.ids() == ["retry t1"]
    jobs.start("retry t1", lambda: (ran.append("new"), done.set())[0])
    assert done.wait(WAIT_S)
    assert ran == ["new"]
    assert jobs.ids() == []


def test_a_job_that_waits_for_a_worker_is_replaced_and_cancelled(jobs: Jobs, busy: Blocked) -> None:
    ran = []
    for name in ("old", "new"):
        jobs.start("replaced", lambda name=name: ran.append(name))  # type: ignore[misc]
    jobs.start("cancelled", lambda: ran.append("cancelled"))
    assert jobs.ids() == ["cancelled", "replaced"]
    jobs.cancel("cancelled")
    assert jobs.ids() == ["replaced"]
    busy.released.set()
    settle(jobs)
    assert ran == ["new"]


def test_a_job_may_be_asked_for_again_while_it_runs(jobs: Jobs) -> None:
    """As a run does that finds its table taken: it comes back under its own id."""
    done = Event()
    turns = iter(range(5))

    def work() -> None:
        if next(turns) == 4:
            done.set()
        else:
            jobs.start("run r1", work)

    jobs.start("run r1", work)
    assert done.wait(WAIT_S)


def test_two_jobs_of_an_id_may_run_when_the_first_has_begun(jobs: Jobs) -> None:
    together = Barrier(3)
    for _ in range(2):
        jobs.start("same", lambda: together.wait(WAIT_S) and None)
        while jobs.ids():
            time.sleep(0.001)
    together.wait(WAIT_S)


def test_cancelling_forgets(jobs: Jobs) -> None:
    ran: list[str] = []
    jobs.start("later", lambda: ran.append("later"), FAR_S)
    jobs.repeat("again", lambda: ran.append("again"), FAR_S, FAR_S, 0.0)
    jobs.cancel("later")
    jobs.cancel("again")
    jobs.cancel("never was")
    assert jobs.ids() == []
    assert ran == []


def test_a_schedule_runs_again_and_again(jobs: Jobs) -> None:
    times: list[int] = []
    thrice = Event()

    def work() -> None:
        times.append(len(times))
        if len(times) == 3:
            thrice.set()

    jobs.repeat("look", work, every_s=0.02, first_s=0.0, jitter_s=0.01)
    assert thrice.wait(WAIT_S)
    assert jobs.ids() == ["look"]
    jobs.cancel("look")
    assert jobs.ids() == []


def test_the_first_run_of_a_schedule_does_not_wait_for_its_interval(jobs: Jobs) -> None:
    ran = Event()
    jobs.repeat("due", ran.set, every_s=FAR_S, first_s=0.0, jitter_s=0.0)
    assert ran.wait(WAIT_S)
    assert jobs.ids() == ["due"]


def test_a_schedule_takes_the_place_of_one(jobs: Jobs) -> None:
    ran: list[str] = []
    twice = Event()
    jobs.repeat("look", lambda: ran.append("old"), FAR_S, FAR_S, 0.0)
    jobs.repeat("look", lambda: (ran.append("new"), len(ran) < 2 or twice.set())[0], 0.02, 0.0, 0.0)
    assert twice.wait(WAIT_S)
    assert set(ran) == {"new"}


def test_a_schedule_does_not_run_beside_itself(jobs: Jobs) -> None:
    work = Blocked()
    begun: list[int] = []

    def once_at_a_time() -> None:
        begun.append(1)
        work()

    jobs.repeat("slow", once_at_a_time, every_s=0.01, first_s=0.0, jitter_s=0.0)
    assert work.begun.wait(WAIT_S)
    for _ in range(5):
        settle(jobs)
    assert len(begun) == 1
    jobs.cancel("slow")
    work.released.set()


class Broken(BaseException):
    """Not even an Exception."""


@pytest.mark.parametrize("error", [ValueError("no such column"), SystemExit(3), Broken()])
def test_an_error_is_logged_and_ends_nothing(jobs: Jobs, error: BaseException, capfd: Any) -> None:
    again = Event()
    times: list[int] = []

    def work() -> None:
        times.append(1)
        if len(times) == 2:
            again.set()
        raise error

    with capture_logs() as logs:
        jobs.repeat("broken", work, 0.02, 0.0, 0.0)
        assert again.wait(WAIT_S)
        jobs.cancel("broken")
        jobs.stop()
    told = [entry for entry in logs if entry["event"] == "background work failed"]
    assert len(told) >= 2
    assert {(e["job"], e["log_level"], e["exc_info"]) for e in told} == {("broken", "error", True)}
    assert capfd.readouterr() == ("", "")


def test_stopping_waits_for_what_runs_and_forgets_the_rest(jobs: Jobs, busy: Blocked) -> None:
    ran: list[str] = []
    jobs.start("queued", lambda: ran.append("queued"))
    jobs.start("later", lambda: ran.append("later"), FAR_S)
    jobs.repeat("again", lambda: ran.append("again"), 0.01, 0.0, 0.0)
    stopper = Thread(target=jobs.stop)
    stopper.start()
    while jobs.ids():
        time.sleep(0.001)
    assert not busy.ended.is_set()
    busy.released.set()
    stopper.join(WAIT_S)
    assert not stopper.is_alive()
    assert busy.ended.is_set()
    jobs.start("too late", lambda: ran.append("too late"))
    jobs.repeat("too late as well", lambda: ran.append("too late"), 0.01, 0.0, 0.0)
    jobs.cancel("later")
    jobs.stop()
    assert jobs.ids() == []
    assert ran == []


def test_work_that_asks_for_more_does_not_hold_up_a_stop(jobs: Jobs) -> None:
    """As the end of a run does, which reschedules its table."""
    begun, released = Event(), Event()

    def work() -> None:
        begun.set()
        released.wait(WAIT_S)
        for number in range(100):
            jobs.start(f"retry {number}", work)
            jobs.repeat(f"schedule {number}", work, 1.0, 0.0, 0.0)
            jobs.cancel(f"retry {number}")

    jobs.start("run", work)
    assert begun.wait(WAIT_S)
    stopper = Thread(target=jobs.stop)
    stopper.start()
    while jobs.ids():
        time.sleep(0.001)
    released.set()
    stopper.join(WAIT_S)
    assert not stopper.is_alive()


def test_no_thread_is_left(jobs: Jobs) -> None:
    before = set(all_threads())
    other = BackgroundJobs(MachineClock(), at_once=3)
    ran = Event()
    other.start("one", ran.set)
    assert ran.wait(WAIT_S)
    other.stop()
    assert set(all_threads()) <= before
