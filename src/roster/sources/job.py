"""Owns one read of a source as the child sees it: what to read, what is allowed, where to report; reads nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping as Map
from dataclasses import dataclass, field
from pathlib import Path

from roster.base.errors import Code, Error
from roster.model.source import Origin
from roster.ports import Reading
from roster.sources.policy import Policy


@dataclass(frozen=True, slots=True)
class ReadLimits:
    """Ceilings of one read: bytes it may bring in all, seconds a source may send nothing."""

    bytes_max: int
    silence_s: float


@dataclass(frozen=True, slots=True)
class Job:
    """One read: see `Wanted` of the port for what its members mean.

    `report` may be called as often as one likes; what it is told at most some times a second goes on. Hosts
    and paths are reached through `policy` only. Files go into `folder`, which exists.
    """

    origin: Origin
    secret: Map[str, str] = field(repr=False)
    folder: Path
    fingerprint: str
    cursor: str
    full: bool
    policy: Policy
    limits: ReadLimits
    report: Callable[[Reading], None]


def check_size(job: Job, size: int) -> None:
    """Error: TOO_LARGE when a read brings more bytes than it may."""
    if size > job.limits.bytes_max:
        hint = f"at most {job.limits.bytes_max} bytes (source_bytes_max)"
        raise Error(Code.TOO_LARGE, "the source has more data than one read may bring", hint=hint)
