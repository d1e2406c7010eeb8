"""Owns rate limits: fixed windows per key and bucket, told in the documented headers."""

from __future__ import annotations

import math
from collections.abc import Mapping as Map
from dataclasses import dataclass

from limits import RateLimitItem, parse
from limits.storage import MemoryStorage
from limits.strategies import FixedWindowRateLimiter

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


class RateLimits:
    """Counts requests per key; limits are texts such as `600/minute`, one a bucket."""

    def __init__(self, limits: Map[str, str]) -> None:
        self._items: dict[str, RateLimitItem] = {name: parse(text) for name, text in limits.items()}
        self._limiter = FixedWindowRateLimiter(MemoryStorage())

    def take(self, right: Right, key_id: str, now_s: float) -> tuple[bool, Allowance] | None:
        """Count one request: whether it may go on, and what is left. None where nothing is limited."""
        name = BUCKETS.get(right, "")
        item = self._items.get(name)
        if item is None:
            return None
        allowed = self._limiter.hit(item, name, key_id)
        reset_at_s, remaining = self._limiter.get_window_stats(item, name, key_id)
        reset_s = min(item.get_expiry(), max(1, math.ceil(reset_at_s - now_s)))
        return allowed, Allowance(name, item.amount, item.get_expiry(), remaining, reset_s)
