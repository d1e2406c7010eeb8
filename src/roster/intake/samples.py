"""Owns the newest events taken, in memory, so that people can see what arrives. Nothing here outlives the process."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from roster.intake.rejected import LINE_BYTES_MAX


@dataclass(frozen=True, slots=True)
class Sample:
    """A canonical line that was taken, cut when `clipped`; how it came, and when, in epoch milliseconds."""

    received_ms: int
    track: str
    key_id: str
    line: bytes
    clipped: bool


class Samples:
    """A ring: what is newer pushes out what is older."""

    def __init__(self, kept: int) -> None:
        self._kept = kept
        self._turn = threading.Lock()
        self._ring: deque[Sample] = deque(maxlen=kept)

    def add(self, received_ms: int, track: str, key_id: str, lines: Sequence[bytes]) -> None:
        """Remember the last lines of a batch."""
        newest = lines[-self._kept :] if self._kept else ()
        made = [Sample(received_ms, track, key_id, x[:LINE_BYTES_MAX], len(x) > LINE_BYTES_MAX) for x in newest]
        with self._turn:
            self._ring.extend(made)

    def read(self, limit: int) -> list[Sample]:
        """The newest first."""
        with self._turn:
            return list(self._ring)[::-1][:limit]

    def drop(self, unwanted: Callable[[bytes], bool], dry_run: bool) -> list[bytes]:
        """Forget the lines that are unwanted, or with `dry_run` only look for them; these lines."""
        with self._turn:
            kept: deque[Sample] = deque(maxlen=self._kept)
            dropped: list[bytes] = []
            for sample in self._ring:
                if unwanted(sample.line):
                    dropped.append(sample.line)
                else:
                    kept.append(sample)
            if not dry_run:
                self._ring = kept
        return dropped
