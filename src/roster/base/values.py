"""Owns canonical JSON, content hashes and structural diff of plain values; knows no product type."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any


def canonical(value: Any) -> str:
    """JSON text with sorted keys and no blanks: equal values give equal text."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def digest(value: Any) -> str:
    """SHA-256 of the canonical text, in hex."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Difference:
    """One changed place: a JSON pointer, the value before and the value after (None = absent)."""

    at: str
    before: Any
    after: Any


def diff(before: Any, after: Any, at: str = "") -> tuple[Difference, ...]:
    """The places where two JSON values differ, depth first; lists are compared as whole values."""
    if before == after:
        return ()
    if not (isinstance(before, dict) and isinstance(after, dict)):
        return (Difference(at, before, after),)
    places: list[Difference] = []
    for key in [*before, *(k for k in after if k not in before)]:
        pointer = f"{at}/{str(key).replace('~', '~0').replace('/', '~1')}"
        places.extend(diff(before.get(key), after.get(key), pointer))
    return tuple(places)
