"""Owns why an event is not taken: a closed set of reasons, and how an error carries one. Decides nothing."""

from __future__ import annotations

from enum import StrEnum

from roster.base.errors import Code, Error


class Reason(StrEnum):
    """Why an event was not taken, for programs and metrics. The set is closed."""

    NOT_JSON = "not_json"
    NOT_OBJECT = "not_object"
    TOO_LARGE = "too_large"
    TOO_DEEP = "too_deep"
    TOO_MANY_KEYS = "too_many_keys"
    BAD_NUMBER = "bad_number"
    NO_TYPE = "no_type"
    NO_ID = "no_id"
    NO_NAME = "no_name"
    NO_OWNER = "no_owner"
    BAD_TIME = "bad_time"
    TOO_OLD = "too_old"
    MISPLACED = "misplaced"
    SESSION = "session"
    TELEMETRY = "telemetry"
    REPLAY = "replay"
    INTERNAL = "internal"


DROPPED = frozenset({Reason.TELEMETRY, Reason.REPLAY})
"""What is left out on purpose: counted, never kept."""


def refused(reason: Reason, message: str, *, at: str = "", hint: str = "") -> Error:
    """An Error about one event, with its reason."""
    code = Code.INTERNAL if reason is Reason.INTERNAL else Code.INVALID
    return Error(code, message, at=at, hint=hint, reason=reason)
