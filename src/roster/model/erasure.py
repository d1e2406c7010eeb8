"""Owns the receipt of an erase as a value: what was removed, never of whom; computes only the digest."""

from __future__ import annotations

import hmac
from collections.abc import Mapping as Map
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any


@dataclass(frozen=True, slots=True)
class Erasure:
    """One erase of one user. `finished_ms` is None while it runs, and stays so when a crash ended it."""

    id: str
    subject: str
    at_ms: int
    who: str
    finished_ms: int | None
    counts: Map[str, Any] = field(hash=False)


def subject_of(user_id: str, pepper: bytes) -> str:
    """HMAC-SHA256 of a user's id under the server's secret, in hex: tells the same user again, not who it is."""
    return hmac.new(pepper, b"erased user:" + user_id.encode("utf-8", "surrogatepass"), sha256).hexdigest()
