"""Owns keys: checking, creating, listing and revoking them, and who a request's keys make its caller."""

from __future__ import annotations

from roster.base.errors import Code, Error
from roster.model.access import Caller, Key, KeyKind, hash_key
from roster.operations.context import Context, Records, Reply, Request

HINT_CHARACTERS = 4
SCOPES = ["events_write", "profiles_read", "mapping_write", "reference_tables_write"]
"""What an API key together with an application key may do."""


def create_key(records: Records, kind: KeyKind, name: str) -> tuple[Key, str]:
    """A new key and its secret, which is shown this once and never kept."""
    secret = records.clock.new_secret()[: 32 if kind is KeyKind.API else 40]
    if kind is KeyKind.CLIENT:
        secret = f"pub{secret[:32]}"
    key = Key(
        id=records.clock.new_id(),
        kind=kind,
        name=name,
        hash=hash_key(secret, records.pepper),
        hint=secret[-HINT_CHARACTERS:],
        owner_id=records.clock.new_id(),
        created_ms=records.clock.now_ms(),
    )
    records.store.add_key(key)
    return key, secret


def revoke_key(records: Records, id: str) -> None:
    """End a key at once. Error: NOT_FOUND."""
    if not records.store.revoke_key(id, who=LOCAL.id, now_ms=records.clock.now_ms()):
        raise Error(Code.NOT_FOUND, f"no live key has the id {id!r}", hint="`roster key list` shows the ids")


def find_live_key(records: Records, secret: str, *kinds: KeyKind) -> Key | None:
    """The key of a secret, if it is of one of these kinds and not revoked."""
    key = records.store.find_key(hash_key(secret, records.pepper))
    return key if key is not None and key.kind in kinds and key.revoked_ms is None else None


def validate_v1(context: Context, request: Request) -> Reply:
    """The API key is good: a bad one never comes this far."""
    return Reply({"valid": True})


def validate_v2(context: Context, request: Request) -> Reply:
    """The API key is good, whose it is and what it may do."""
    attributes = {"valid": True, "api_key_id": request.caller.api_key_id, "api_key_scopes": SCOPES}
    return Reply({"data": {"id": context.store.organisation_id(), "type": "validate_v2", "attributes": attributes}})


def validate_keys(context: Context, request: Request) -> Reply:
    """Both keys are good."""
    return Reply({"status": "ok"})


LOCAL = Caller(id="00000000-0000-0000-0000-000000000000", api_key_id="00000000-0000-0000-0000-000000000000")
"""Who acts when a command works on the data folder itself."""
