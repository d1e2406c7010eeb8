"""Owns instants and ranges: UTC, half-open, milliseconds on the wire; never reads a clock."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

INSTANT_MS_MAX = 253_402_300_799_999
"""The last millisecond of the year 9999: no later instant can be told."""

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Range:
    """Half-open range of instants in epoch milliseconds: from_ms <= t < to_ms."""

    from_ms: int
    to_ms: int


def instant(at_ms: float) -> datetime:
    """Epoch milliseconds as a naive UTC datetime, the form the engine stores."""
    return (EPOCH + timedelta(milliseconds=at_ms)).replace(tzinfo=None)


def epoch_ms(moment: datetime) -> int:
    """A naive UTC or aware datetime as epoch milliseconds."""
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return (aware - EPOCH) // timedelta(milliseconds=1)


def iso_ms(moment: datetime) -> str:
    """RFC 3339 in UTC with milliseconds: 2025-08-14T06:45:12.142Z."""
    return moment.replace(tzinfo=None).isoformat(timespec="milliseconds") + "Z"
