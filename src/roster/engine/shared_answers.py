"""Owns answering equal queries once: callers who ask the same at a time share one run, and answers are kept
until the data changes. Decides nothing about plans; an answer is never older than the moment it is asked for.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from roster.base.errors import Code, Error
from roster.model.schema import Entity
from roster.ports import Answer, Budget, Cancel, Engine, Explanation, FileFormat
from roster.query.plan import Plan

CELLS_MAX = 20_000
"""An answer with more cells is not kept."""

Asked = tuple[tuple[Plan, ...], Budget]


@dataclass(slots=True)
class _Run:
    """A query under way; `answers` or `error` are there when `done` is set."""

    position: int
    done: threading.Event = field(default_factory=threading.Event)
    answers: list[Answer] | None = None
    error: Error | None = None


class SharedAnswers:
    """The Engine port before another engine. `position` grows with every change of the data."""

    def __init__(self, engine: Engine, position: Callable[[], int], kept: int) -> None:
        self._engine = engine
        self._position = position
        self._kept_max = kept
        self._turn = threading.Lock()
        self._running: dict[Asked, _Run] = {}
        self._kept: OrderedDict[Asked, list[Answer]] = OrderedDict()
        self._kept_at = 0

    def run(self, plans: Sequence[Plan], budget: Budget, cancel: Cancel | None = None) -> list[Answer]:
        """See the port. The answers are shared: nobody changes them."""
        asked = (tuple(plans), budget)
        while True:
            run, is_mine = self._join(asked)
            if isinstance(run, list):
                return run
            if is_mine:
                return self._lead(asked, run, cancel)
            self._wait(run, cancel)
            if run.answers is not None:
                return run.answers
            if run.error is not None:
                raise run.error

    def _join(self, asked: Asked) -> tuple[_Run | list[Answer], bool]:
        """The kept answers; else the run under way, and whether it is the caller's to make."""
        with self._turn:
            position = self._position()
            if position != self._kept_at:
                self._kept.clear()
                self._kept_at = position
            if asked in self._kept:
                self._kept.move_to_end(asked)
                return self._kept[asked], False
            running = self._running.get(asked)
            if running is not None and running.position == position:
                return running, False
            run = _Run(position)
            self._running[asked] = run
            return run, True

    def _lead(self, asked: Asked, run: _Run, cancel: Cancel | None) -> list[Answer]:
        try:
            run.answers = self._engine.run(asked[0], asked[1], cancel)
            return run.answers
        except Error as error:
            if cancel is None or not cancel.cancelled:  # when only this caller left, another one asks again
                run.error = error
            raise
        finally:
            with self._turn:
                if self._running.get(asked) is run:
                    del self._running[asked]
                if run.answers is not None:
                    self._keep(asked, run.position, run.answers)
            run.done.set()

    def _keep(self, asked: Asked, position: int, answers: list[Answer]) -> None:
        if position != self._kept_at or sum(len(a.rows) * len(a.schema) for a in answers) > CELLS_MAX:
            return
        self._kept[asked] = answers
        while len(self._kept) > self._kept_max:
            self._kept.popitem(last=False)

    def _wait(self, run: _Run, cancel: Cancel | None) -> None:
        """Until the run is over. Error: TIMEOUT when the caller leaves before."""
        if cancel is None:
            run.done.wait()
            return
        over = threading.Event()
        cancel.on_cancel(over.set)
        while not run.done.wait(0.02):
            if over.is_set():
                raise Error(Code.TIMEOUT, "the query was cancelled")

    def explain(self, plans: Sequence[Plan], budget: Budget) -> list[Explanation]:
        """See the port."""
        return self._engine.explain(plans, budget)

    def export(self, plan: Plan, format: FileFormat, budget: Budget, cancel: Cancel | None = None) -> Iterator[bytes]:
        """See the port."""
        return self._engine.export(plan, format, budget, cancel)

    def materialise(self, entity: Entity, plans: Sequence[Plan]) -> None:
        """See the port."""
        self._engine.materialise(entity, plans)
