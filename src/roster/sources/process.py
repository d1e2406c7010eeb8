"""Owns the port Sources: each read in a process of its own, watched, ended when it must. Imports no driver."""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import msgspec
import structlog

from roster.base.errors import Code, Error
from roster.model.source import Origin
from roster.model.sync import Fetched
from roster.ports import Cancel, Reading, Wanted
from roster.sources import wire
from roster.sources.policy import Policy
from roster.sources.reach import check_reach
from roster.sources.reader import check_installed
from roster.sources.scrub import scrub

log = structlog.get_logger("roster.sources")

STDERR_BYTES_MAX = 2**16
END_WAIT_S = 10.0
WAKE_S = 1.0
SILENCE_GRACE_S = 5.0
IDLE_SHARE = 0.01
ENVIRONMENT = (
    "PATH",
    "LANG",
    "LC_ALL",
    "LD_LIBRARY_PATH",
    "PYTHONPATH",
    "PYTHONDONTWRITEBYTECODE",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
)
"""What a reading process inherits. Credentials, proxies and home folders of the server's user are none of it."""


@dataclass(frozen=True, slots=True)
class SourceLimits:
    """Where sources may be (see `Policy`) and what one read may take.

    `timeout_s`: the whole read; `silence_s`: how long a source may send nothing; `memory_max`: bytes of
    address space, 0 for no ceiling.
    """

    hosts: tuple[str, ...] = ()
    folders: tuple[Path, ...] = ()
    loopback: bool = False
    bytes_max: int = 20 * 2**30
    timeout_s: float = 3600.0
    silence_s: float = 120.0
    memory_max: int = 0


class ChildSources:
    """Reads sources by `python -m roster.sources`, one process a read."""

    def __init__(self, limits: SourceLimits) -> None:
        self._limits = limits
        self._policy = Policy(limits.hosts, limits.folders, limits.loopback)

    def check(self, origin: Origin) -> None:
        """See the port. Needs no network; what only an answer from there can tell, `fetch` finds out."""
        check_installed(origin.kind)
        check_reach(origin, self._policy)

    def fetch(self, wanted: Wanted, report: Callable[[Reading], None], cancel: Cancel) -> Fetched | None:
        """See the port. A cancelled read ends with TIMEOUT."""
        if cancel.cancelled:
            raise _cancelled()
        with _Child.start(wanted.folder) as child:
            cancel.on_cancel(child.kill)
            child.tell(wire.encode(_request(wanted, self._limits)) + b"\n")
            try:
                answer = _Conversation(child, self._limits, report).hear()
            except Error:
                if cancel.cancelled:
                    raise _cancelled() from None
                _log_trouble(child, wanted)
                raise
        if isinstance(answer, wire.Unchanged):
            return None
        if isinstance(answer, wire.Failed):
            error = _error(answer, wanted)
            if error.code is Code.INTERNAL:
                _log_trouble(child, wanted)
            raise error
        return _fetched(answer, wanted.folder)


class _Child:
    """A running reader: its pipes, its end, and the last that it wrote to standard error."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdin and process.stdout and process.stderr
        self.process = process
        self.stdin, self.stdout, self.stderr = process.stdin, process.stdout, process.stderr
        self.said = b""

    @classmethod
    @contextmanager
    def start(cls, folder: Path) -> Iterator[_Child]:
        """Errors: BUSY when no process can be started."""
        command = [sys.executable, "-P", "-m", "roster.sources"]
        place = str(folder)
        env = {name: os.environ[name] for name in ENVIRONMENT if name in os.environ}
        env |= {"HOME": place, "TMPDIR": place, "TZ": "UTC"}  # a time without a zone is UTC, wherever we run
        pipe = subprocess.PIPE
        try:
            # a group of its own, so that Ctrl-C at a terminal reaches the server alone
            process = subprocess.Popen(
                command, stdin=pipe, stdout=pipe, stderr=pipe, cwd=place, env=env, process_group=0, bufsize=0
            )
        except OSError as error:
            raise Error(Code.BUSY, f"no reading process can be started: {error.strerror}") from error
        child = cls(process)
        try:
            yield child
        finally:
            child.kill()
            process.wait()
            for stream in (child.stdin, child.stdout, child.stderr):
                with suppress(OSError):
                    stream.close()

    def tell(self, text: bytes) -> None:
        """The request; a reader that is gone already is found out when its answer is awaited."""
        with suppress(BrokenPipeError):
            while text:
                text = text[self.stdin.write(text) or 0 :]

    def kill(self) -> None:
        """End it at once. Twice, or when it is gone, is fine."""
        self.process.kill()

    def end(self) -> int:
        """Its exit status; it is made to end if it does not soon."""
        try:
            return self.process.wait(END_WAIT_S)
        except subprocess.TimeoutExpired:
            self.kill()
            return self.process.wait()

    def note(self, text: bytes) -> None:
        self.said = (self.said + text)[-STDERR_BYTES_MAX:]

    def used_s(self) -> float:
        """Seconds of processor time that it has used; 0 when it is gone."""
        try:
            fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return 0.0
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class _Conversation:
    """Hears one reader out: progress, then its answer, within the limits of time."""

    def __init__(self, child: _Child, limits: SourceLimits, report: Callable[[Reading], None]) -> None:
        self._child = child
        self._limits = limits
        self._report = report
        self._line = b""
        self._answer: wire.Done | wire.Unchanged | wire.Failed | None = None
        self._end_s = time.monotonic() + limits.timeout_s
        self._stir()

    def hear(self) -> wire.Done | wire.Unchanged | wire.Failed:
        """The answer. Errors: TIMEOUT (the read, or the source's silence), BUSY (it died), INTERNAL (nonsense)."""
        with selectors.DefaultSelector() as selector:
            selector.register(self._child.stdout, selectors.EVENT_READ, self._take)
            selector.register(self._child.stderr, selectors.EVENT_READ, self._child.note)
            while selector.get_map():
                self._check_time()
                for key, _ in selector.select(WAKE_S):
                    text = os.read(key.fd, 2**16)
                    if text:
                        key.data(text)
                    else:
                        selector.unregister(key.fileobj)
        if self._answer is None:
            raise _died(self._child.end())
        return self._answer

    def _take(self, text: bytes) -> None:
        self._stir()
        *lines, self._line = (self._line + text).split(b"\n")
        if len(self._line) > wire.LINE_BYTES_MAX:
            raise Error(Code.INTERNAL, "the reading process gave an endless answer")
        for line in lines:
            try:
                answer = wire.decode_answer(line)
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                raise Error(Code.INTERNAL, "the reading process gave an answer that cannot be read") from error
            if isinstance(answer, wire.Progress):
                self._report(Reading(answer.rows, answer.bytes, answer.rows_total, answer.bytes_total))
            else:
                self._answer = self._answer or answer

    def _stir(self) -> None:
        self._stirred_s, self._used_s = time.monotonic(), self._child.used_s()

    def _check_time(self) -> None:
        """A reader that neither reports nor works waits for its source."""
        now_s = time.monotonic()
        if now_s > self._end_s:
            hint = f"at most {self._limits.timeout_s:g} s (source_timeout_s)"
            raise Error(Code.TIMEOUT, "the read took too long", hint=hint)
        still_s = now_s - self._stirred_s
        if still_s > self._limits.silence_s + SILENCE_GRACE_S:
            if self._child.used_s() - self._used_s > still_s * IDLE_SHARE:
                self._stir()
                return
            hint = f"at most {self._limits.silence_s:g} s (source_silence_s)"
            raise Error(Code.TIMEOUT, "the source has sent nothing for too long", hint=hint)


def _request(wanted: Wanted, limits: SourceLimits) -> wire.Request:
    return wire.Request(
        kind=wanted.origin.kind,
        options=dict(wanted.origin.options),
        secret=dict(wanted.secret),
        folder=str(wanted.folder),
        fingerprint=wanted.fingerprint,
        cursor=wanted.cursor,
        full=wanted.full,
        hosts=limits.hosts,
        folders=tuple(str(folder) for folder in limits.folders),
        loopback=limits.loopback,
        bytes_max=limits.bytes_max,
        silence_s=limits.silence_s,
        memory_max=limits.memory_max,
    )


def _fetched(done: wire.Done, folder: Path) -> Fetched:
    for name in done.names:
        path = folder / name
        if Path(name).name != name or path.is_symlink() or not path.is_file():
            raise Error(Code.INTERNAL, "the reading process named a file that it did not bring")
    return Fetched(
        names=done.names,
        format=done.format,
        fingerprint=done.fingerprint,
        cursor=done.cursor,
        changes_only=done.changes_only,
        rows=done.rows,
        bytes=done.bytes,
        total=done.total,
    )


def _error(failed: wire.Failed, wanted: Wanted) -> Error:
    message, hint, at = (scrub(text, wanted.secret) for text in (failed.message, failed.hint, failed.at))
    code = Code(failed.code) if failed.code in set(Code) else Code.INTERNAL
    return Error(code, message, at=at, hint=hint)


def _died(status: int) -> Error:
    how = f"by {signal.Signals(-status).name}" if status < 0 else f"with status {status}"
    return Error(Code.BUSY, f"the reading process ended {how}", hint="the server's log has what it said")


def _cancelled() -> Error:
    return Error(Code.TIMEOUT, "the read was cancelled")


def _log_trouble(child: _Child, wanted: Wanted) -> None:
    said = scrub(child.said.decode(errors="replace"), wanted.secret)
    log.warning("a reading process had trouble", kind=wanted.origin.kind, said=said)
