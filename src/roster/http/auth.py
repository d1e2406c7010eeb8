"""Owns credentials: from the headers of a request to its caller, by the alternatives an operation allows."""

from __future__ import annotations

from collections.abc import Mapping as Map

from roster.base.errors import Code, Error
from roster.model.access import Caller, Key, KeyKind, Right
from roster.operations.context import Records
from roster.operations.keys import find_live_key

ANYONE = Caller(id="", api_key_id="")
ALONE = {Right.VALIDATE: (KeyKind.API,), Right.WRITE_EVENTS: (KeyKind.API, KeyKind.CLIENT)}
"""Rights that one key alone gives, and its kinds; every other right takes two keys or a bearer token."""


def authenticate(records: Records, headers: Map[str, str], right: Right) -> Caller:
    """Who is calling.

    Writing events takes an API key or a client token alone; everything else an API key with an
    application key, or an application key as bearer token. An empty bearer is no credential, and
    good keys win over a bad bearer: some clients send all they hold.
    """
    if right is Right.NOTHING:
        return ANYONE
    api_key = headers.get("dd-api-key", "")
    bearer = headers.get("authorization", "")
    token = bearer[7:].strip() if bearer.lower().startswith("bearer ") else ""
    if right in ALONE:
        return _by_api_key(records, api_key, ALONE[right])
    application_key = headers.get("dd-application-key", "")
    found = _by_both(records, api_key, application_key) if api_key and application_key else None
    if found is None and token:
        found = _by_token(records, token)
    if found is not None:
        return found
    if (api_key and application_key) or token:
        raise Error(Code.FORBIDDEN, "Forbidden")
    raise Error(Code.UNAUTHENTICATED, "Unauthorized")


def _by_api_key(records: Records, secret: str, kinds: tuple[KeyKind, ...]) -> Caller:
    if not secret:
        raise Error(Code.UNAUTHENTICATED, "API key required")
    key = find_live_key(records, secret, *kinds)
    if key is not None:
        return Caller(key.owner_id, key.id)
    raise Error(Code.FORBIDDEN, "Forbidden")


def _by_both(records: Records, api_key: str, application_key: str) -> Caller | None:
    api = find_live_key(records, api_key, KeyKind.API)
    application = find_live_key(records, application_key, KeyKind.APPLICATION)
    return _caller(application, api) if api and application else None


def _by_token(records: Records, token: str) -> Caller | None:
    key = find_live_key(records, token, KeyKind.APPLICATION)
    return _caller(key, key) if key else None


def _caller(application: Key, api: Key) -> Caller:
    return Caller(application.owner_id, api.id)
