"""Owns the reading process: one request from standard input, the reader of its kind, one answer. Decides no policy."""

from __future__ import annotations

import os
import resource
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

from roster.base.errors import Code, Error
from roster.model.source import Origin, find_kind
from roster.model.sync import Fetched
from roster.ports import Reading
from roster.sources import wire
from roster.sources.job import Job, ReadLimits
from roster.sources.policy import Policy
from roster.sources.scrub import scrub

READERS: dict[str, str] = {
    "file": "roster.sources.files",
    "postgres": "roster.sources.postgres",
    "mysql": "roster.sources.mysql",
    "sqlite": "roster.sources.sqlite",
    "snowflake": "roster.sources.snowflake",
    "bigquery": "roster.sources.bigquery",
    "salesforce": "roster.sources.salesforce",
    "hubspot": "roster.sources.hubspot",
    "delta": "roster.sources.delta",
    "iceberg": "roster.sources.iceberg",
}
"""The module that reads each kind: its function `read(job)` gives what it fetched, None when nothing is new."""

NEEDS: dict[str, str] = {
    "snowflake": "snowflake.connector",
    "bigquery": "google.cloud.bigquery",
    "salesforce": "simple_salesforce",
    "delta": "deltalake",
    "iceberg": "pyiceberg",
}
"""The library that comes with the extra of a kind."""

REPORT_EVERY_S = 0.25
TEXT_MAX = 500
ORPHANED = 70
OOM_FIRST = "500"


def check_installed(kind: str) -> None:
    """Error: UNSUPPORTED when the library that reads this kind is not installed."""
    needed = NEEDS.get(kind)
    try:
        found = needed is None or find_spec(needed) is not None
    except ModuleNotFoundError:
        found = False
    if not found:
        raise not_installed(kind)


def not_installed(kind: str) -> Error:
    """What is said when the library of a kind is missing."""
    known = find_kind(kind)
    extra = (known.extra if known else "") or kind
    return Error(Code.UNSUPPORTED, f"{kind} sources need an extra", hint=f"pip install 'roster[{extra}]'")


def main() -> None:
    """Answer the request on standard input; end at once when the server that asked is gone."""
    answers = _take_stdout()
    request = wire.decode_request(_read_line(0))
    threading.Thread(target=_end_with_server, daemon=True).start()
    _limit(request.memory_max)
    sending = threading.Lock()

    def send(answer: wire.Answer) -> None:
        with sending:
            _write(answers, wire.encode(answer) + b"\n")

    send(answer_of(request, throttled(send)))
    os._exit(0)  # threads of drivers are not waited for


def answer_of(request: wire.Request, report: Callable[[Reading], None]) -> wire.Done | wire.Unchanged | wire.Failed:
    """Read as asked. Whatever goes wrong is an answer too; credentials are in none."""
    job = job_of(request, report)
    try:
        fetched = _read(job)
    except Error as error:
        return _failed(job, error)
    except MemoryError:
        return _failed(job, Error(Code.TOO_LARGE, "the read needed more memory than it may have"))
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("roster"):
            return _broken(job, error)
        return _failed(job, not_installed(job.origin.kind))
    except Exception as error:  # noqa: BLE001  the server must hear of it
        return _broken(job, error)
    if fetched is None:
        return wire.Unchanged()
    return wire.Done(
        fetched.names,
        fetched.format,
        fetched.fingerprint,
        fetched.cursor,
        fetched.changes_only,
        fetched.rows,
        fetched.bytes,
        fetched.total,
    )


def _read(job: Job) -> Fetched | None:
    name = READERS.get(job.origin.kind)
    if name is None:
        raise Error(Code.UNSUPPORTED, f"there is no reader of {job.origin.kind}")
    read: Callable[[Job], Fetched | None] = import_module(name).read
    return read(job)


def job_of(request: wire.Request, report: Callable[[Reading], None]) -> Job:
    """The read that a request asks for."""
    return Job(
        origin=Origin(request.kind, tuple(sorted(request.options.items()))),
        secret=request.secret,
        folder=Path(request.folder),
        fingerprint=request.fingerprint,
        cursor=request.cursor,
        full=request.full,
        policy=Policy(request.hosts, tuple(Path(f) for f in request.folders), request.loopback),
        limits=ReadLimits(request.bytes_max, request.silence_s),
        report=report,
    )


def throttled(send: Callable[[wire.Answer], None]) -> Callable[[Reading], None]:
    """A `report` that passes on some of what it is told: enough for people to watch."""
    last_s = [-REPORT_EVERY_S]

    def report(reading: Reading) -> None:
        now_s = time.monotonic()
        if now_s - last_s[0] >= REPORT_EVERY_S:
            last_s[0] = now_s
            send(wire.Progress(reading.rows, reading.bytes, reading.rows_total, reading.bytes_total))

    return report


def _failed(job: Job, error: Error) -> wire.Failed:
    message, hint, at = (_line(scrub(text, job.secret)) for text in (error.message, error.hint, error.at))
    return wire.Failed(error.code.value, message, hint, at)


def _line(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= TEXT_MAX else f"{line[: TEXT_MAX - 3]}..."


def _broken(job: Job, error: Exception) -> wire.Failed:
    trace = "".join(traceback.format_exception(error))
    _write(2, scrub(trace, job.secret).encode())
    message = f"the reader of {job.origin.kind} failed: {type(error).__name__}"
    return wire.Failed(Code.INTERNAL.value, message, "the server's log has the trace")


def _take_stdout() -> int:
    """Standard output for answers alone: what a library prints goes to standard error."""
    answers = os.dup(1)
    os.dup2(2, 1)
    return answers


def _read_line(fd: int) -> bytes:
    text = b""
    while not text.endswith(b"\n"):
        more = os.read(fd, 2**16)
        if not more:
            os._exit(ORPHANED)
        text += more
    return text


def _end_with_server() -> None:
    while os.read(0, 2**10):
        pass
    os._exit(ORPHANED)


def _limit(memory_max: int) -> None:
    """No core files, which hold credentials; out of memory, this process goes before the server."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if memory_max:
        resource.setrlimit(resource.RLIMIT_AS, (memory_max, memory_max))
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(OOM_FIRST)


def _write(fd: int, text: bytes) -> None:
    with suppress(BrokenPipeError):
        while text:
            text = text[os.write(fd, text) :]
