"""Runs `roster` commands in processes of their own, forked from one that has loaded the product already.

It is the same code from `main` on; loading it is most of what a short test would wait for.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Mapping
from functools import cache
from multiprocessing.context import ForkServerContext
from pathlib import Path

LOADED = ["roster.__main__", "roster.http.app", "uvicorn", "uvicorn.loops.auto", "uvicorn.protocols.http.auto"]
"""What a server loads before it listens."""


@cache
def _forks() -> ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(LOADED)
    return context


class Command:
    """A command under way, its output in files."""

    def __init__(self, words: tuple[str, ...], env: Mapping[str, str], folder: Path, out: Path, err: Path) -> None:
        self._words = words
        self._process = _forks().Process(target=_run, args=(words, dict(env), folder, out, err), daemon=True)
        self._process.start()

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    def poll(self) -> int | None:
        """Its exit status, None while it runs."""
        return self._process.exitcode

    def send_signal(self, sent: signal.Signals) -> None:
        if self.poll() is None:
            os.kill(self.pid, sent)

    def wait(self, timeout_s: float | None = None) -> int:
        """Its exit status. Error: TimeoutExpired."""
        self._process.join(timeout_s)
        status = self.poll()
        if status is None:
            raise subprocess.TimeoutExpired(self._words, timeout_s or 0)
        return status


def run_command(
    words: tuple[str, ...], env: Mapping[str, str], folder: Path, timeout_s: float
) -> subprocess.CompletedProcess[str]:
    """A command that ended, with what it wrote."""
    with tempfile.TemporaryDirectory() as kept:
        out, err = Path(kept) / "out", Path(kept) / "err"
        status = Command(words, env, folder, out, err).wait(timeout_s)
        return subprocess.CompletedProcess(words, status, out.read_text(), err.read_text())


def _run(words: tuple[str, ...], env: dict[str, str], folder: Path, out: Path, err: Path) -> None:
    """In the new process: what a shell would set up, then the command."""
    for path, descriptor in ((out, 1), (err, 2)):
        opened = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(opened, descriptor)
        os.close(opened)
    os.environ.clear()
    os.environ.update(env)
    os.chdir(folder)
    warnings.simplefilter("error")
    sys.argv = ["roster", *words]
    from roster.main import main

    sys.exit(main())
