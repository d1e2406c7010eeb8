"""Runs `roster` commands in processes of their own, forked from one that has loaded the product already.

It is the same code from `main` on; loading it is most of what a short test would wait for.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import warnings
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from multiprocessing.connection import wait
from multiprocessing.context import ForkServerContext
from multiprocessing.reduction import DupFd
from pathlib import Path
from typing import Any

LOADED = ["roster.__main__", "roster.http.app", "uvicorn", "uvicorn.loops.auto", "uvicorn.protocols.http.auto"]
"""What a server loads before it listens."""


_one_at_a_time = threading.Lock()
"""A start looks at all processes for those that ended: two threads that learn of one end at once get a wrong status."""


@cache
def _forks() -> ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(LOADED)
    return context


class Shims:
    """A folder with a `roster` for shells, which has the command run in a forked process on the shell's own files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._listening = socket.socket(socket.AF_UNIX)
        self._listening.bind(str(folder / "socket"))
        self._listening.listen()
        shim = folder / "roster"
        shim.write_text(f"#!{sys.executable} -IS\n{_SHIM.replace('SOCKET', str(folder / 'socket'))}")
        shim.chmod(0o700)
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                asked, _ = self._listening.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(asked,), daemon=True).start()

    def _serve(self, asked: socket.socket) -> None:
        with asked, asked.makefile("rb") as said:
            _, files, *_ = socket.recv_fds(asked, 1, 3)
            words, folder, env = json.loads(said.read())
            process = _forks().Process(
                target=_run_for_shell, args=(tuple(words), env, Path(folder), [DupFd(f) for f in files]), daemon=True
            )
            with _one_at_a_time:
                process.start()
            for file in files:
                os.close(file)
            with suppress(OSError):  # a shim that was killed wants no answer
                asked.sendall(f"{process.pid}\n".encode())
                wait([process.sentinel])
                with _one_at_a_time:
                    process.join()
                asked.sendall(f"{process.exitcode}\n".encode())

    def close(self) -> None:
        self._listening.close()


_SHIM = """
import json, os, signal, socket, sys
stopped = []
for number in (signal.SIGTERM, signal.SIGINT):
    signal.signal(number, lambda number, _: stopped.append(number))
told = socket.socket(socket.AF_UNIX)
told.connect("SOCKET")
socket.send_fds(told, [b"."], [0, 1, 2])
told.sendall(json.dumps([sys.argv[1:], os.getcwd(), dict(os.environ)]).encode())
told.shutdown(socket.SHUT_WR)
answers = told.makefile()
pid = int(answers.readline())
for number in (signal.SIGTERM, signal.SIGINT):
    signal.signal(number, lambda number, _: os.kill(pid, number))
for number in stopped:
    os.kill(pid, number)
status = int(answers.readline())
sys.exit(status if status >= 0 else 128 - status)
"""


class Command:
    """A command under way, its output in files."""

    def __init__(self, words: tuple[str, ...], env: Mapping[str, str], folder: Path, out: Path, err: Path) -> None:
        self._words = words
        self._process = _forks().Process(target=_run, args=(words, dict(env), folder, out, err), daemon=True)
        with _one_at_a_time:
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
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    _become(words, env, folder, {1: os.open(out, flags, 0o600), 2: os.open(err, flags, 0o600)})


def _run_for_shell(words: tuple[str, ...], env: dict[str, str], folder: Path, held: list[Any]) -> None:
    """As `_run`, with the shell's own three files."""
    _become(words, env, folder, {descriptor: one.detach() for descriptor, one in enumerate(held)})


def _become(words: tuple[str, ...], env: dict[str, str], folder: Path, files: dict[int, int]) -> None:
    for descriptor, opened in files.items():
        os.dup2(opened, descriptor)
        os.close(opened)
    os.environ.clear()
    os.environ.update(env)
    os.chdir(folder)
    warnings.simplefilter("error")
    sys.argv = ["roster", *words]
    from roster.main import main

    sys.exit(main())
