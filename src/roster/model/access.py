"""Owns keys and rights as values; hashing takes its secret as an argument, storing is the store's."""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from enum import StrEnum
from hashlib import sha256


class KeyKind(StrEnum):
    """An API key names the organisation, an application key the caller; a client token only writes events."""

    API = "api"
    APPLICATION = "application"
    CLIENT = "client"


class Right(StrEnum):
    """What an operation asks of its caller."""

    NOTHING = "nothing"
    VALIDATE = "validate"
    WRITE_EVENTS = "write_events"
    READ = "read"
    WRITE_MAPPING = "write_mapping"
    WRITE_TABLES = "write_tables"
    WRITE_SEGMENTS = "write_segments"


@dataclass(frozen=True, slots=True)
class Key:
    """A key as we keep it: never the secret, only its hash and its last four characters."""

    id: str
    kind: KeyKind
    name: str
    hash: str
    hint: str
    owner_id: str
    created_ms: int
    revoked_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Caller:
    """Who is calling: the id of the application key's owner, or of the API key when that is all there is."""

    id: str
    api_key_id: str


def hash_key(secret: str, pepper: bytes) -> str:
    """HMAC-SHA256 of a key under the server's secret, in hex."""
    return hmac.new(pepper, secret.encode(), sha256).hexdigest()
