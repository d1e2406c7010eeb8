"""Owns the files that a read leaves in its folder: writing them, and naming them by what they hold."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from roster.base.errors import Code, Error

GZIP, ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"


@contextmanager
def writing(path: Path) -> Iterator[BinaryIO]:
    """A new file to write. Error: BUSY when the disk does not take it."""
    try:
        with path.open("wb") as file:
            yield file
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        hint = "is there space in the data folder?" if full else ""
        raise Error(Code.BUSY, f"the file cannot be copied: {error.strerror}", hint=hint) from error


def name_file(path: Path) -> str:
    """The name of a file brought, once it ends in `.gz` when its content is packed. Error: INVALID for zstd."""
    with path.open("rb") as file:
        start = file.read(4)
    if start == ZSTD:
        raise Error(Code.INVALID, "files packed by zstd are not read", hint="pack by gzip, or not at all")
    return path.rename(f"{path}.gz").name if start.startswith(GZIP) else path.name
