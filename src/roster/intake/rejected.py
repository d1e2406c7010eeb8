"""Owns the events that were not taken, kept on disk for a while: files of lines by day, bounded in days and bytes.

What cannot be kept is lost and counted, never an error: the intake goes on without it.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import structlog

LINE_BYTES_MAX = 65_536
_SEGMENTS = 8
"""Parts that the bytes allowed are kept in: the oldest goes when they are full."""
_WAIT_S = 0.5
"""How long a request waits to keep what it brought: a slow disk must not hold it up for longer."""
_DAY_MS = 86_400_000
Got = TypeVar("Got")
_log = structlog.get_logger("roster.intake")


class Kept(msgspec.Struct, omit_defaults=True):
    """One event that was not taken: why, and what is known of how it came. `key` is the identity it was lent.

    The line is cut when `clipped`, or no UTF-8; such a one can be looked at, not replayed.
    """

    id: str
    received_ms: int
    reason: str
    text: str
    track: str
    line: str
    key: str = ""
    key_id: str = ""
    clipped: bool = False
    batch_ms: int | None = None
    tags: str = ""
    user_agent: str = ""
    peer: str = ""
    place: dict[str, Any] = {}


_ENCODE = msgspec.json.Encoder().encode
_DECODE = msgspec.json.Decoder(Kept).decode


class RejectedStore:
    """A folder of `<day>-<number>.ndjson`; no other process may write it."""

    def __init__(self, folder: Path, *, days: float, bytes_max: int) -> None:
        self._folder = folder
        self._keep_ms = int(days * _DAY_MS)
        self._bytes_max = bytes_max
        self._turn = threading.Lock()
        self._replaying = threading.Lock()
        self._current: Path | None = None
        self._written = 0
        self._number = max((_number(path) for path in self._paths()), default=0)

    def keep(self, kept: Sequence[Kept]) -> int:
        """Write events down, giving each its id; how many were lost."""
        if not self._turn.acquire(timeout=_WAIT_S):
            return len(kept)
        try:
            path = self._segment(kept[0].received_ms)
            lines = []
            for event in kept:
                self._written += 1
                event.id = f"{path.stem}-{self._written}"
                lines.append(_ENCODE(event) + b"\n")
            with path.open("ab") as file:
                file.write(b"".join(lines))
        except OSError as error:
            self._current = None
            _log.warning("events that were not taken cannot be kept", events=len(kept), error=str(error))
            return len(kept)
        finally:
            self._turn.release()
        return 0

    def _segment(self, now_ms: int) -> Path:
        """The file to write to; a new one for a new day, or when the last one is full."""
        day = _day(now_ms)
        path = self._current
        room = self._bytes_max // _SEGMENTS
        if path is not None and path.name.startswith(day) and path.exists() and path.stat().st_size < room:
            return path
        self._folder.mkdir(parents=True, exist_ok=True)
        self._expire(now_ms)
        self._number += 1
        self._written = 0
        self._current = self._folder / f"{day}-{self._number:06d}.ndjson"
        return self._current

    def expire(self, now_ms: int) -> None:
        """Remove what is too old, and the oldest of what is too much."""
        with self._turn:
            self._expire(now_ms)

    def _expire(self, now_ms: int) -> None:
        paths = self._paths()
        room = self._bytes_max - self._bytes_max // _SEGMENTS
        oldest = _day(max(0, now_ms - self._keep_ms))
        for path in reversed(paths):
            room -= path.stat().st_size
            if room < 0 or path.name[: len(oldest)] < oldest:
                path.unlink()

    def read(self, limit: int, now_ms: int, reason: str | None = None) -> list[Kept]:
        """The newest first."""
        found: list[Kept] = []
        for path in reversed(self._paths()):
            for event in reversed(list(_events(path))):
                if event.received_ms >= now_ms - self._keep_ms and reason in (None, event.reason):
                    found.append(event)
                    if len(found) == limit:
                        return found
        return found

    def settle(self, wanted: Callable[[Kept], bool], take: Callable[[list[Kept]], list[Kept]]) -> tuple[int, int]:
        """Offer the wanted events to `take`, oldest first, file by file; those it gives back stay.

        Gives how many went and how many stayed. What it took is gone from the file only after it returned: a crash
        between offers them again.
        """
        went = stayed = 0
        with self._replaying:
            with self._turn:
                self._current = None
                paths = self._paths()
            for path in paths:
                events = list(_events(path))
                offered = [event for event in events if wanted(event)]
                left = take(offered) if offered else []
                stayed += len(left)
                went += len(offered) - len(left)
                if len(left) < len(offered):
                    gone = {event.id for event in offered} - {event.id for event in left}
                    with self._turn:
                        self._rewrite(path, gone)
        return went, stayed

    def look(self, work: Callable[[Path], Got]) -> Got:
        """Have something else read the files of the folder; they may change meanwhile."""
        return work(self._folder)

    def change(self, work: Callable[[Path], Got]) -> Got:
        """Have something else rewrite the files of the folder, while nobody writes to them."""
        with self._replaying, self._turn:
            self._current = None
            return work(self._folder)

    def _rewrite(self, path: Path, gone: set[str]) -> None:
        kept = [_ENCODE(event) + b"\n" for event in _events(path) if event.id not in gone]
        if not kept:
            path.unlink(missing_ok=True)
            return
        fresh = path.with_suffix(".fresh")
        with fresh.open("wb") as file:
            file.write(b"".join(kept))
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)

    def _paths(self) -> list[Path]:
        """Oldest first."""
        found = self._folder.glob("*.ndjson") if self._folder.is_dir() else ()
        return sorted((path for path in found if _number(path)), key=_number)


def _number(path: Path) -> int:
    text = path.stem.rpartition("-")[2]
    return int(text) if text.isdecimal() else 0


def _day(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%Y-%m-%d")


def _events(path: Path) -> Iterator[Kept]:
    """What can be read of a file: a last line that was cut off is none."""
    try:
        lines = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        return
    for line in lines:
        try:
            if line:
                yield _DECODE(line)
        except (msgspec.DecodeError, UnicodeDecodeError):
            continue


def clip(line: bytes) -> tuple[str, bool]:
    """A line as text, and whether that is less than the line was."""
    cut = line[:LINE_BYTES_MAX]
    text = cut.decode("utf-8", "replace")
    return text, len(cut) < len(line) or text.encode() != cut
