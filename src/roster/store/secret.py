"""Owns the file that holds the secret under which keys are hashed; makes no randomness of its own."""

from __future__ import annotations

import os
from pathlib import Path
from tempfile import mkstemp

from roster.base.errors import Code, Error

SECRET_BYTES_MIN = 32


def load_or_create_secret(path: Path, fresh: bytes) -> bytes:
    """The secret kept at `path`; when there is none, `fresh` becomes it, readable by its owner only.

    Of many processes that start at once, one gives the secret and all get that one. Error: INTERNAL for
    a file too short to be a secret: with another secret every key would stop working.
    """
    if not path.exists():
        _create(path, fresh)
    secret = path.read_bytes()
    if len(secret) < SECRET_BYTES_MIN:
        message = f"{path} holds {len(secret)} bytes, too few for a secret"
        raise Error(Code.INTERNAL, message, hint="restore the file from a backup; removing it ends all keys")
    return secret


def _create(path: Path, fresh: bytes) -> None:
    if len(fresh) < SECRET_BYTES_MIN:
        raise ValueError(f"a secret needs at least {SECRET_BYTES_MIN} bytes")
    path.parent.mkdir(parents=True, exist_ok=True)
    # written aside and then linked: the name appears only with its whole content, and only once
    descriptor, aside = mkstemp(dir=path.parent, prefix=f".{path.name}.")  # opened O_EXCL, mode 0600
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(fresh)
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(aside, path)
        except FileExistsError:
            return  # another process was first: its secret counts
    finally:
        Path(aside).unlink()
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
