"""Equal queries at a time are one run; kept answers go with the first change of the data."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence

import pytest

from roster.base.errors import Code, Error
from roster.engine.shared_answers import CELLS_MAX, SharedAnswers
from roster.model.schema import Column, Entity, Type
from roster.ports import Answer, Budget, Cancel, Explanation, FileFormat
from roster.query.plan import Plan, Values

BUDGET = Budget(timeout_s=5, rows_max=10)
SCHEMA = (Column("n", Type.INTEGER),)


def plan(n: int) -> Plan:
    return Values(SCHEMA, ((n,),))


class Slow:
    """An engine whose runs go on until they are let go; counts them."""

    def __init__(self, rows: int = 1) -> None:
        self.runs = 0
        self.rows = rows
        self.began = threading.Semaphore(0)
        self.go = threading.Event()

    def run(self, plans: Sequence[Plan], budget: Budget, cancel: Cancel | None = None) -> list[Answer]:
        self.runs += 1
        left = threading.Event()
        if cancel is not None:
            cancel.on_cancel(left.set)
        self.began.release()
        while not self.go.wait(0.005):
            if left.is_set():
                raise Error(Code.TIMEOUT, "the query was cancelled")
        return [Answer(SCHEMA, [(self.runs,)] * self.rows)]

    def explain(self, plans: Sequence[Plan], budget: Budget) -> list[Explanation]:
        return [Explanation(plan, "", (), "", ()) for plan in plans]

    def export(self, plan: Plan, format: FileFormat, budget: Budget, cancel: Cancel | None = None) -> Iterator[bytes]:
        raise AssertionError

    def materialise(self, entity: Entity, plans: Sequence[Plan]) -> None:
        raise AssertionError


class Asking(threading.Thread):
    """Asks in a thread of its own."""

    def __init__(self, shared: SharedAnswers, n: int = 1, cancel: Cancel | None = None) -> None:
        super().__init__(daemon=True)
        self.answers: list[Answer] | None = None
        self.error: Error | None = None
        self._asked = (shared, n, cancel)
        self.start()

    def run(self) -> None:
        shared, n, cancel = self._asked
        try:
            self.answers = shared.run([plan(n)], BUDGET, cancel)
        except Error as error:
            self.error = error


def served(slow: Slow, kept: int = 10) -> tuple[SharedAnswers, list[int]]:
    position = [1]
    return SharedAnswers(slow, lambda: position[0], kept), position


def test_an_answer_is_kept_until_the_data_changes() -> None:
    slow = Slow()
    slow.go.set()
    shared, position = served(slow)
    for n in (1, 1, 2, 1, 2):
        shared.run([plan(n)], BUDGET)
    assert slow.runs == 2
    position[0] += 1
    assert shared.run([plan(1)], BUDGET)[0].rows == [(3,)]
    assert slow.runs == 3


@pytest.mark.parametrize(("kept", "rows", "runs"), [(0, 1, 2), (1, CELLS_MAX, 1), (1, CELLS_MAX + 1, 2)])
def test_what_is_too_large_or_too_much_is_not_kept(kept: int, rows: int, runs: int) -> None:
    slow = Slow(rows)
    slow.go.set()
    shared, _ = served(slow, kept)
    for _ in range(2):
        shared.run([plan(1)], BUDGET)
    assert slow.runs == runs


def test_the_answer_asked_for_longest_ago_goes_first() -> None:
    slow = Slow()
    slow.go.set()
    shared, _ = served(slow, 2)
    for n in (1, 2, 1, 3, 1, 2):
        shared.run([plan(n)], BUDGET)
    assert slow.runs == 4, "2 was forgotten for 3, 1 was not"


def test_equal_queries_at_a_time_are_one_run() -> None:
    slow = Slow()
    shared, _ = served(slow, 0)
    first = Asking(shared)
    assert slow.began.acquire(timeout=5)
    others = [Asking(shared) for _ in range(5)]
    different = Asking(shared, 2)
    assert slow.began.acquire(timeout=5)
    slow.go.set()
    for asking in (first, *others, different):
        asking.join(5)
    assert slow.runs <= 3, "one run for the equal ones, one for the other; at most one that came too late"
    assert all(a.answers is not None for a in (first, *others, different))


def test_a_change_while_a_query_runs_is_not_missed() -> None:
    slow = Slow()
    shared, position = served(slow)
    before = Asking(shared)
    assert slow.began.acquire(timeout=5)
    position[0] += 1
    after = Asking(shared)
    assert slow.began.acquire(timeout=5), "the one who asks after the change has a run of its own"
    slow.go.set()
    before.join(5)
    after.join(5)
    shared.run([plan(1)], BUDGET)
    assert slow.runs == 2, "the newer answer is kept, not the older one"


def test_who_leaves_takes_nobody_along() -> None:
    slow = Slow()
    shared, _ = served(slow)
    leaving, cancel = None, Cancel()
    leaving = Asking(shared, cancel=cancel)
    assert slow.began.acquire(timeout=5)
    staying = Asking(shared, cancel=Cancel())
    cancel.cancel()
    assert slow.began.acquire(timeout=5), "the one who stays asks again"
    slow.go.set()
    leaving.join(5)
    staying.join(5)
    assert leaving.error is not None
    assert leaving.error.code is Code.TIMEOUT
    assert staying.answers is not None


def test_who_only_waits_may_leave_too() -> None:
    slow = Slow()
    shared, _ = served(slow)
    first, cancel = Asking(shared), Cancel()
    assert slow.began.acquire(timeout=5)
    waiting = Asking(shared, cancel=cancel)
    cancel.cancel()
    waiting.join(5)
    assert waiting.error is not None
    slow.go.set()
    first.join(5)
    assert first.answers is not None
