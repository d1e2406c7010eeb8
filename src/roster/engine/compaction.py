"""Owns writing the engine's file anew, so that nothing of what was deleted is left in it. Nobody else may have it open.

DuckDB only marks deleted rows, and never wipes the parts of a file that it lets go of.
"""

from __future__ import annotations

import os
from pathlib import Path

from roster.engine.connection import Duck, DuckLimits


def compact(path: Path, limits: DuckLimits) -> tuple[int, int]:
    """Bytes of the file before and after. A crash leaves the old file or the new one. Error: BUSY when it is open."""
    fresh = path.with_suffix(".fresh")
    for left in (fresh, Path(f"{fresh}.wal")):
        left.unlink(missing_ok=True)
    duck = Duck(path, limits)
    try:
        duck.checkpoint()
        connection = duck.cursor()
        name, target = path.stem.replace('"', '""'), str(fresh).replace("'", "''")
        connection.execute(f"ATTACH '{target}' AS fresh")
        connection.execute(f'COPY FROM DATABASE "{name}" TO fresh')
        connection.execute("CHECKPOINT fresh")
        connection.execute("DETACH fresh")
        connection.close()
    finally:
        duck.close()
    before = path.stat().st_size
    _sync(fresh)
    fresh.replace(path)
    _sync(path.parent)
    return before, path.stat().st_size


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
