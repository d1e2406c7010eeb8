"""Owns the synced event log: segments on disk, group commit, and the thread that applies them.

An acknowledged line survives a crash. Knows nothing of what a line says, but for the `fresh` mark.
"""

from __future__ import annotations

import mmap
import os
import re
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import structlog

from roster.base.errors import Code, Error
from roster.ports import Applied, Events

_SEGMENT = re.compile(r"events-(\d{12})\.ndjson")
SETTLE_QUIET_S = 30.0
"""Seconds between two looks for sessions that ended by themselves, while nothing comes."""
SETTLE_SPAN = 2
"""While events come, rows of sessions are computed for at most one part in so many of the time: events go first."""
FAILURES_MAX = 4
"""Tries of a segment on which the engine fails in a way that nobody foresaw, before the line at fault is looked for."""
_FRESH = b'{"fresh":true,'

_log = structlog.get_logger("roster.intake")


@dataclass(slots=True)
class _Waiting:
    """Bytes one caller waits for."""

    data: bytes
    done: bool = False
    error: OSError | None = None


@dataclass(slots=True)
class _Open:
    """The segment being written; `size` counts synced bytes only."""

    number: int
    path: Path
    file: int
    size: int = 0


class EventLog:
    """Segments `events-<number>.ndjson` in one folder, which no other process may use.

    Numbers only grow and start after `after`, the newest number that was ever applied: a number that
    came twice would be taken for applied.
    """

    def __init__(
        self, folder: Path, *, after: int, bytes_max: int = 2 * 1024**3, segment_bytes_max: int = 64 * 1024**2
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._bytes_max = bytes_max
        self._segment_bytes_max = segment_bytes_max
        self._turn = threading.Condition()
        self._queue: list[_Waiting] = []
        self._queued = 0
        self._writing = False
        self._current: _Open | None = None
        self._closed: dict[int, tuple[Path, int]] = {}
        for path in sorted(folder.iterdir()):
            found = _SEGMENT.fullmatch(path.name)
            if found:
                self._close_segment(int(found[1]), path, cut_torn_tail(path))
        self._next = max([after, *self._closed]) + 1

    def append(self, lines: Sequence[bytes]) -> None:
        """Return when all lines are written and synced; callers that come together share one sync.

        Errors: OVERLOADED when too much waits to be applied, BUSY when the disk refuses; then nothing is promised.
        """
        if not lines:
            return
        mine = _Waiting(b"\n".join(lines) + b"\n")
        with self._turn:
            self._queued += len(mine.data)
            self._queue.append(mine)
            if self._bytes() > self._bytes_max:
                self._queue.remove(mine)
                self._queued -= len(mine.data)
                hint = f"at most {self._bytes_max} bytes may wait (setting log_bytes_max); try again later"
                raise Error(Code.OVERLOADED, "too many events wait to be applied", hint=hint)
            while self._writing and not mine.done:
                self._turn.wait()
            if not mine.done:
                self._lead()
        if mine.error is not None:
            hint = "is the disk full?"
            raise Error(Code.BUSY, f"the event log cannot be written: {mine.error}", hint=hint) from mine.error

    def _lead(self) -> None:
        """Write for everyone who waits. Called with the turn held, which is lent while the disk works."""
        group, self._queue = self._queue, []
        self._writing = True
        self._turn.release()
        written = False
        error = OSError("interrupted")
        try:
            self._write(b"".join(waiting.data for waiting in group))
            written = True
        except OSError as raised:
            error = raised
        finally:
            self._turn.acquire()
            self._writing = False
            for waiting in group:
                self._queued -= len(waiting.data)
                waiting.done, waiting.error = True, None if written else error
            self._turn.notify_all()
            if not written:
                self._abandon()

    def _write(self, data: bytes) -> None:
        if self._current is None:
            self._current = self._create()
        current = self._current
        _write_all(current.file, data)
        os.fdatasync(current.file)
        current.size += len(data)
        if current.size >= self._segment_bytes_max:
            self._close_current()

    def _create(self) -> _Open:
        number, self._next = self._next, self._next + 1
        path = self._folder / f"events-{number:012d}.ndjson"
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
        _sync_folder(self._folder)
        return _Open(number, path, file)

    def _abandon(self) -> None:
        """After a failed write or sync the file is never written again; only what was synced before stays."""
        current = self._current
        if current is None:
            return
        try:
            os.ftruncate(current.file, current.size)
        except OSError:
            _log.warning("cannot cut a failed write off", segment=str(current.path))
        self._close_current()

    def _close_current(self) -> None:
        current, self._current = self._current, None
        if current is not None:
            os.close(current.file)
            self._close_segment(current.number, current.path, current.size)

    def _close_segment(self, number: int, path: Path, size: int) -> None:
        if size:
            self._closed[number] = (path, size)
        else:
            path.unlink()

    def _bytes(self) -> int:
        written = self._current.size if self._current else 0
        return self._queued + written + sum(size for _, size in self._closed.values())

    def _wait_for_disk(self) -> None:
        while self._writing:
            self._turn.wait()

    def rotate(self) -> tuple[int, Path] | None:
        """Close the segment being written, when there is one; later lines go to another."""
        with self._turn:
            self._wait_for_disk()
            current = self._current
            self._close_current()
            return (current.number, current.path) if current and current.size else None

    def pending(self) -> list[tuple[int, Path]]:
        """Closed segments not yet removed, oldest first."""
        with self._turn:
            return [(number, path) for number, (path, _) in sorted(self._closed.items())]

    def remove(self, number: int) -> None:
        """Forget an applied segment. Should it come back after a crash, its number is known as applied."""
        with self._turn:
            path, _ = self._closed.pop(number)
            path.unlink()

    def split(self, number: int, pieces: Sequence[Sequence[bytes]]) -> None:
        """Replace a segment by several, which come after all others so that numbers are applied in order.

        A crash on the way can leave lines in two segments: give lines that are dropped when stored already.
        """
        with self._turn:
            self._wait_for_disk()
            self._close_current()
            written: list[tuple[_Open, int]] = []
            try:
                for lines in pieces:
                    data = b"\n".join(lines) + b"\n"
                    written.append((self._create(), len(data)))
                    _write_all(written[-1][0].file, data)
                    os.fsync(written[-1][0].file)
            except OSError:
                written = [(piece, 0) for piece, _ in written]
                raise
            finally:
                for piece, size in written:
                    os.close(piece.file)
                    self._close_segment(piece.number, piece.path, size)
        self.remove(number)

    def set_aside(self, number: int) -> Path:
        """Keep a segment that cannot be applied in `rejected/`, out of the way. Gives its new place."""
        folder = self._folder / "rejected"
        folder.mkdir(exist_ok=True)
        with self._turn:
            path, _ = self._closed.pop(number)
            kept = folder / path.name
            path.rename(kept)
        _sync_folder(folder)
        _sync_folder(self._folder)
        return kept

    def close(self) -> None:
        """Close the segment being written; what waits is applied after the next start."""
        self.rotate()


def cut_torn_tail(path: Path) -> int:
    """Cut off a last line without an end, which nobody was promised. Gives the size left, in bytes."""
    size = path.stat().st_size
    if not size:
        return 0
    with path.open("r+b") as file:
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            kept = content.rfind(b"\n") + 1
        if kept < size:
            file.truncate(kept)
            os.fsync(file.fileno())
    return kept


def _write_all(file: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(file, view) :]


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


class Applier:
    """Moves closed segments into the engine, oldest first, each once; a thread does it all the time.

    The rows of sessions follow their events every `settle_s`, later where that takes long, and at every flush.
    """

    def __init__(
        self,
        log: EventLog,
        events: Events,
        now_ms: Callable[[], int],
        *,
        interval_s: float = 0.2,
        settle_s: float = 1.0,
        retry_max_s: float = 30.0,
    ) -> None:
        self._log = log
        self._events = events
        self._now_ms = now_ms
        self._interval_s = interval_s
        self._settle_s = settle_s
        self._settled_ms = 0
        self._settling_ms = 0
        self._is_settled = False
        self._failures: dict[int, int] = {}
        self._retry_max_s = retry_max_s
        self._applying = threading.Lock()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        self._thread = threading.Thread(target=self._run, name="event-applier", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread after what it is at, then apply what is left."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()
        self.flush()

    def flush(self) -> Applied:
        """Apply everything appended before this call, with its sessions. Errors are the engine's; nothing is lost."""
        applied = self._apply_all()
        self._settle()
        return applied

    def _settle(self) -> None:
        self._settled_ms = self._now_ms()
        self._is_settled = True
        self._events.settle(self._settled_ms)
        self._settling_ms = self._now_ms() - self._settled_ms

    def step(self) -> None:
        """Apply what was appended, and have the rows of sessions follow when it is time."""
        self._is_settled &= not self._apply_all().stored
        wait_s = SETTLE_QUIET_S if self._is_settled else self._settle_s
        busy_ms = min(SETTLE_SPAN * self._settling_ms, SETTLE_QUIET_S * 1000)  # however long it waited for its turn
        if self._now_ms() - self._settled_ms >= max(wait_s * 1000, busy_ms):
            self._settle()

    def _apply_all(self) -> Applied:
        stored = duplicate = 0
        with self._applying:
            self._log.rotate()
            while pending := self._log.pending():
                applied = self._apply(*pending[0])
                stored += applied.stored
                duplicate += applied.duplicate
        return Applied(stored, duplicate)

    def _run(self) -> None:
        wait_s = self._interval_s
        while not self._stopping.wait(wait_s):
            try:
                self.step()
                wait_s = self._interval_s
            except Exception:  # noqa: BLE001 - the thread must outlive whatever the engine raises
                wait_s = min(max(wait_s, 0.1) * 2, self._retry_max_s)
                _log.exception("cannot apply events", retry_s=wait_s)

    def _apply(self, number: int, path: Path) -> Applied:
        try:
            applied = self._events.apply_segment(number, path)
        except Exception as error:
            if not self._is_hopeless(number, error):
                raise
            self._isolate(number, path, error)
            return Applied(0, 0)
        self._failures.pop(number, None)
        self._log.remove(number)
        return applied

    def _is_hopeless(self, number: int, error: Exception) -> bool:
        """Whether a segment will not be stored however often it is tried: its data is wrong, or we cannot cope."""
        if isinstance(error, Error):
            return error.code is Code.INVALID
        if isinstance(error, OSError | MemoryError):
            return False
        self._failures[number] = self._failures.get(number, 0) + 1
        return self._failures[number] > FAILURES_MAX

    def _isolate(self, number: int, path: Path, error: Exception) -> None:
        """One bad line must not hold up the rest: halve the segment until the line stands alone, and keep it."""
        failures = self._failures.pop(number, 0)
        lines = [line for line in path.read_bytes().split(b"\n") if line]
        if len(lines) < 2:
            kept = self._log.set_aside(number)
            _log.error("an event cannot be stored", reason=str(error), kept=str(kept))
            return
        before = {held for held, _ in self._log.pending()}
        known = [b"{" + line.removeprefix(_FRESH) if line.startswith(_FRESH) else line for line in lines]
        half = len(known) // 2
        self._log.split(number, [known[:half], known[half:]])
        if failures:  # its halves need not fail as often before they are halved too
            self._failures |= {held: FAILURES_MAX for held, _ in self._log.pending() if held not in before}
