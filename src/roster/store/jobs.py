"""Owns work in the background: runs it now, later or again and again, in threads; keeps nothing over a restart."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from threading import Lock

import structlog
from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.jobstores.base import JobLookupError
from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.base import BaseTrigger
from apscheduler.triggers.date import DateTrigger
from apscheduler.triggers.interval import IntervalTrigger

from roster.base.time import EPOCH
from roster.ports import Clock

log = structlog.get_logger("roster.jobs")
logging.getLogger("apscheduler").addHandler(logging.NullHandler())  # else it tells of skipped runs on standard error

MOMENT = timedelta(microseconds=1)


@dataclass(eq=False, slots=True)
class _Job:
    """What was asked for under an id; the scheduler's own jobs point to it, outdated ones in vain."""

    id: str
    work: Callable[[], None]
    once: bool


class BackgroundJobs:
    """Jobs on a scheduler thread and a pool of workers. `clock` is the machine's: the scheduler reads that one."""

    def __init__(self, clock: Clock, at_once: int, prepare: Callable[[], None] | None = None) -> None:
        """`at_once`: how many jobs run at the same time, more wait for a free thread; `prepare`s each thread."""
        self._clock = clock
        self._lock = Lock()
        self._waiting: dict[str, _Job] = {}
        self._stopping = False
        self._workers = ThreadPoolExecutor(at_once, {"thread_name_prefix": "job", "initializer": prepare})
        self._scheduler = BackgroundScheduler(timezone=UTC, executors={"default": self._workers})
        self._scheduler.start()

    def start(self, id: str, work: Callable[[], None], after_s: float = 0.0) -> None:
        """Run once, after a while; a job of that id that has not begun is replaced."""
        at = self._now() + timedelta(seconds=after_s)
        # a former job of that id may still be running: one is no reason to lose the other
        self._add(_Job(id, work, once=True), DateTrigger(at, UTC), at, together=sys.maxsize)

    def repeat(self, id: str, work: Callable[[], None], every_s: float, first_s: float, jitter_s: float) -> None:
        """Run every so often, each time up to `jitter_s` later; in place of a schedule of that id.

        A run that is due while the one before has not ended is left out.
        """
        begin = self._now() + timedelta(seconds=first_s)
        trigger = IntervalTrigger(seconds=every_s, start_date=begin, timezone=UTC, jitter=jitter_s)
        # asked as of just before: what is due already must not wait for the next interval
        first: datetime = trigger.get_next_fire_time(None, begin - MOMENT)
        self._add(_Job(id, work, once=False), trigger, first, together=1)

    def cancel(self, id: str) -> None:
        """Forget a job or schedule that has not begun; an unknown id is no error."""
        with self._lock:
            self._forget(id)

    def ids(self) -> list[str]:
        """Of what waits to run."""
        with self._lock:
            return sorted(self._waiting)

    def stop(self) -> None:
        """Let running work end, forget the rest; what is asked for from now on is forgotten too."""
        with self._lock:
            if self._stopping:
                return
            self._stopping = True
            self._waiting.clear()
        # emptied first: a scheduler that is shut down just while it starts a job does not find that job any more
        self._scheduler.remove_all_jobs()
        # the scheduler itself would wait with its locks held, which running work may need
        self._scheduler.shutdown(wait=False)
        self._workers.shutdown(wait=True)

    def _now(self) -> datetime:
        return EPOCH + timedelta(milliseconds=self._clock.now_ms())

    def _add(self, job: _Job, trigger: BaseTrigger, at: datetime, together: int) -> None:
        with self._lock:
            if self._stopping:
                return
            self._forget(job.id)
            self._waiting[job.id] = job
            self._scheduler.add_job(
                self._run,
                trigger,
                args=(job,),
                id=job.id,
                name=job.id,
                next_run_time=at,
                max_instances=together,
                coalesce=True,
                misfire_grace_time=None,
            )

    def _forget(self, id: str) -> None:
        self._waiting.pop(id, None)
        try:
            self._scheduler.remove_job(id)
        except JobLookupError:
            return  # it was never there, has begun, or is with the workers, who will find it outdated

    def _run(self, job: _Job) -> None:
        """In a worker: the job, unless it was cancelled or replaced while it waited for this thread."""
        with self._lock:
            if self._waiting.get(job.id) is not job:
                return
            if job.once:
                del self._waiting[job.id]
        try:
            job.work()
        except BaseException:
            log.exception("background work failed", job=job.id)
