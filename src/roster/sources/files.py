"""Owns reading one file: a whole, consistent copy of it, or nothing when it is what was read last; parses none."""

from __future__ import annotations

import os
import time
from hashlib import sha256
from pathlib import Path

from roster.base.errors import Code, Error
from roster.model.source import format_of_name
from roster.model.sync import Fetched
from roster.ports import Reading
from roster.sources.job import Job, check_size
from roster.sources.landing import name_file, writing

CHUNK_BYTES = 2**20
SETTLE_S = 0.1


def read(job: Job) -> Fetched | None:
    """The file or object that the origin names."""
    url = job.origin.get("url")
    if url:
        from roster.sources.objects import read_object  # local files need no HTTP client

        return read_object(job, url)
    return read_file(job, job.origin.get("path"))


def read_file(job: Job, text: str) -> Fetched | None:
    """A copy of a local file; None when it is what was read last.

    The fingerprint has two parts: what the file system says, which costs nothing to look at, and the digest of
    the content. A file that was only touched is the same.
    """
    format = format_of_name(text, job.origin.get("format"), at="format")
    before, _, digest_before = job.fingerprint.partition(" ")
    with job.policy.open_file(text) as source:
        found = os.fstat(source)
        if before == _mark(found) and not job.full:
            return None
        check_size(job, found.st_size)
        path = job.folder / f"file.{format}"
        _settle(found, path)
        digest, size = _copy(job, source, path, found.st_size)
        if _mark(os.fstat(source)) != _mark(found) or size != found.st_size:
            raise _changed()
    if digest == digest_before and not job.full:
        path.unlink()
        return None
    return Fetched((name_file(path),), format, f"{_mark(found)} {digest}", bytes=size)


def _settle(found: os.stat_result, path: Path) -> None:
    """Let a file that was just written get older: its next change could bear the same time, and be missed."""
    with writing(path):
        pass
    if path.stat().st_mtime_ns - found.st_ctime_ns < SETTLE_S * 1e9:
        time.sleep(SETTLE_S)


def _changed() -> Error:
    return Error(Code.BUSY, "the file changed while it was read", hint="write aside, then rename")


def _mark(found: os.stat_result) -> str:
    return f"{found.st_dev}:{found.st_ino}:{found.st_size}:{found.st_mtime_ns}:{found.st_ctime_ns}"


def _copy(job: Job, source: int, path: Path, size: int) -> tuple[str, int]:
    digest, done = sha256(), 0
    with writing(path) as target:
        while chunk := os.read(source, CHUNK_BYTES):
            done += len(chunk)
            if done > size:
                raise _changed()  # one that is always written to would have no end
            digest.update(chunk)
            target.write(chunk)
            job.report(Reading(bytes=done, bytes_total=size))
    return digest.hexdigest(), done
