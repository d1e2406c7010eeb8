"""Owns what is known of a request of events beside its body: who sent it, from where and by which clock."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Arrival:
    """One request as it came, its body unpacked. Times are epoch milliseconds; `batch_ms` is the sender's clock.

    `tags` are those of the address (`k:v,k:v`); `peer` and `user_agent` are empty when nobody knows them.
    """

    body: bytes
    received_ms: int
    batch_ms: int | None = None
    source: str = ""
    tags: str = ""
    peer: str = ""
    user_agent: str = ""
    idempotency_key: str | None = None
    key_id: str = ""
