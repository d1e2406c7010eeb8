"""Owns rate limits: fixed windows per key and bucket, told in the documented headers."""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping as Map
from dataclasses import dataclass

from limits import RateLimitItem, parse

from roster.base.errors import Code, Error
from roster.model.access import Right

BUCKETS = {
    Right.READ: "audience_read",
    Right.VALIDATE: "audience_read",
    Right.WRITE_MAPPING: "audience_write",
    Right.WRITE_TABLES: "reference_tables_write",
    Right.WRITE_SEGMENTS: "audience_write",
    Right.WRITE_EVENTS: "events",
}


@dataclass(frozen=True, slots=True)
class Allowance:
    """What is left of a window: requests and whole seconds until the next one."""

    name: str
    limit: int
    period_s: int
    remaining: int
    reset_s: int

    def headers(self) -> dict[str, str]:
        """In lower case and whole numbers, as every client reads them."""
        return {
            "x-ratelimit-limit": str(self.limit),
            "x-ratelimit-period": str(self.period_s),
            "x-ratelimit-remaining": str(self.remaining),
            "x-ratelimit-reset": str(self.reset_s),
            "x-ratelimit-name": self.name,
        }

    def error(self) -> Error:
        hint = f"try again in {self.reset_s} s (settings rate_limits)"
        message = f"rate limit of {self.limit} requests in {self.period_s} s reached"
        return Error(Code.RATE_LIMITED, message, hint=hint)


@dataclass(slots=True)
class _Window:
    """Requests of one key in one bucket since its first one; over at `end_s`."""

    end_s: float
    count: int = 0


class RateLimits:
    """Counts requests per key; limits are texts such as `600/minute`, one a bucket.

    The counting is ours: the library's store in memory starts a thread every few requests.
    """

    def __init__(self, limits: Map[str, str]) -> None:
        self._items: dict[str, RateLimitItem] = {name: parse(text) for name, text in limits.items()}
        self._windows: dict[tuple[str, str], _Window] = {}
        self._turn = threading.Lock()

    def admit(self, right: Right, key_id: str, now_s: float) -> tuple[dict[str, str], Error | None]:
        """Count one request: the headers that tell what is left, and the refusal when that is nothing."""
        taken = self.take(right, key_id, now_s)
        if taken is None:
            return {}, None
        allowed, allowance = taken
        return allowance.headers(), None if allowed else allowance.error()

    def take(self, right: Right, key_id: str, now_s: float) -> tuple[bool, Allowance] | None:
        """Count one request: whether it may go on, and what is left. None where nothing is limited."""
        name = BUCKETS.get(right, "")
        item = self._items.get(name)
        if item is None:
            return None
        period_s = item.get_expiry()
        with self._turn:
            window = self._windows.get((name, key_id))
            if window is None or not now_s < window.end_s <= now_s + period_s:  # a clock may be set back
                window = self._windows[name, key_id] = _Window(now_s + period_s)
            window.count += 1
            count, end_s = window.count, window.end_s
        reset_s = min(period_s, max(1, math.ceil(end_s - now_s)))
        return count <= item.amount, Allowance(name, item.amount, period_s, max(0, item.amount - count), reset_s)
