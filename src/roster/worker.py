"""Owns the background threads of a running product, and that they give way to those who answer requests."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import structlog

log = structlog.get_logger("roster.worker")
RETRY_S = 5.0
NICENESS = 10
Made = TypeVar("Made")


def step_behind() -> None:
    """Have this thread, and those it will start, run when others leave the processor; where threads have a rank."""
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)


def run_behind(work: Callable[[], Made]) -> Made:
    """What `work` gives, run in a thread that steps behind and ends with it: its own threads stay behind."""
    with ThreadPoolExecutor(1, initializer=step_behind) as behind:
        return behind.submit(work).result()


class Repeater:
    """Runs `work` in a thread of its own each time it is poked; pokes while it runs make one more run."""

    def __init__(self, name: str, work: Callable[[], None]) -> None:
        self._work = work
        self._poked = threading.Event()
        self._idle = threading.Event()
        self._idle.set()
        self._turn = threading.Lock()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def poke(self) -> None:
        """Have it run soon; returns at once."""
        with self._turn:
            self._idle.clear()
            self._poked.set()

    def wait_idle(self, timeout_s: float) -> bool:
        """Whether all pokes so far were worked off, or failed and wait to be tried again, within the time."""
        return self._idle.wait(timeout_s)

    def stop(self) -> None:
        """Let the present run end, then end the thread."""
        self._stopping = True
        self._poked.set()
        self._thread.join()

    def _run(self) -> None:
        step_behind()
        while True:
            self._poked.wait()
            self._poked.clear()
            if self._stopping:
                return
            try:
                self._work()
            except Exception:
                log.exception("background work failed, trying again", work=self._thread.name, retry_s=RETRY_S)
                self._idle.set()
                self._poked.wait(RETRY_S)
                self._poked.set()
                continue
            with self._turn:
                if not self._poked.is_set():
                    self._idle.set()
