"""Owns the one error type of Roster and its code tables; knows nothing of HTTP bodies or terminals."""

from __future__ import annotations

from difflib import get_close_matches
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


class Code(StrEnum):
    """What went wrong, for programs. The set is closed."""

    INVALID = "invalid"
    UNAUTHENTICATED = "unauthenticated"
    FORBIDDEN = "forbidden"
    NOT_FOUND = "not_found"
    CONFLICT = "conflict"
    STALE = "stale"
    TOO_LARGE = "too_large"
    UNSUPPORTED = "unsupported"
    RATE_LIMITED = "rate_limited"
    OVERLOADED = "overloaded"
    LATE = "late"
    BUSY = "busy"
    TIMEOUT = "timeout"
    INTERNAL = "internal"


HTTP_STATUS: dict[Code, int] = {
    Code.INVALID: 400,
    Code.UNAUTHENTICATED: 401,
    Code.FORBIDDEN: 403,
    Code.NOT_FOUND: 404,
    Code.CONFLICT: 409,
    Code.STALE: 412,
    Code.TOO_LARGE: 413,
    Code.RATE_LIMITED: 429,
    Code.OVERLOADED: 429,
    Code.LATE: 408,
    Code.INTERNAL: 500,
    Code.UNSUPPORTED: 501,
    Code.BUSY: 503,
    Code.TIMEOUT: 503,
}

EXIT_STATUS: dict[Code, int] = {
    Code.INVALID: 2,
    Code.UNAUTHENTICATED: 3,
    Code.FORBIDDEN: 3,
    Code.NOT_FOUND: 4,
    Code.CONFLICT: 5,
    Code.STALE: 5,
    Code.TOO_LARGE: 2,
    Code.RATE_LIMITED: 6,
    Code.OVERLOADED: 6,
    Code.LATE: 6,
    Code.INTERNAL: 1,
    Code.UNSUPPORTED: 7,
    Code.BUSY: 6,
    Code.TIMEOUT: 6,
}


class Error(Exception):
    """The one error callers see.

    `at` is a JSON pointer into the request (`/data/attributes/query`) or a position in a search
    string (`character 12`); `hint` names the nearest right thing. `others` are further errors of the
    same request, found at once. `reason` is a finer word than `code` where its room has a closed set of them.
    """

    def __init__(
        self,
        code: Code,
        message: str,
        *,
        at: str = "",
        hint: str = "",
        others: tuple[Error, ...] = (),
        reason: str = "",
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.at = at
        self.hint = hint
        self.others = others
        self.reason = reason

    def under(self, pointer: str) -> Error:
        """The same error, its place prefixed by `pointer`: inner code need not know where it stands."""
        place = f"{pointer} {self.at}".strip() if not self.at.startswith("/") else pointer + self.at
        others = tuple(other.under(pointer) for other in self.others)
        return Error(self.code, self.message, at=place, hint=self.hint, others=others, reason=self.reason)

    def text(self) -> str:
        """One line for people: message, place, hint."""
        place = f" (at {self.at})" if self.at else ""
        hint = f"; {self.hint}" if self.hint else ""
        return f"{self.message}{place}{hint}"


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A hint with the nearest known names, or the empty string."""
    near = get_close_matches(name, list(known), n=3, cutoff=0.6)
    return f"did you mean {' or '.join(repr(n) for n in near)}?" if near else ""
