"""Owns named secrets: putting, listing, removing. What is in one goes in and never comes out of here."""

from __future__ import annotations

import re
from collections.abc import Mapping as Map
from typing import Any

from roster.base.errors import Code, Error, did_you_mean
from roster.base.time import instant, iso_ms
from roster.model.held import is_reference, owner_of
from roster.model.reference_table import Table
from roster.model.schema import Entity
from roster.model.source import KINDS
from roster.model.sync import Secret, State, Trigger
from roster.operations.bodies import decode
from roster.operations.bodies_sources import MEMBERS_MAX, SecretBody
from roster.operations.context import Context, Records, Reply, Request
from roster.ports import Store

NAME_FORM = re.compile(r"[A-Za-z0-9._-]{1,100}")
VALUE_BYTES_MAX = 65_536
MEMBER_NAMES = tuple(dict.fromkeys([*(name for kind in KINDS for name in kind.secret), "signing_key"]))
"""What secrets may hold: what any kind of source looks for, and a key to sign with."""


def put_secret(context: Context, request: Request) -> Reply:
    """Keep credentials under a name, in place of what was there; sources that failed for want of them sync again."""
    asked = decode(SecretBody, request.body).data.attributes
    secret = keep_secret(context.records, request.path["name"], asked.members, who=request.caller.id)
    for table in failing_with(context.store, secret.name):
        context.syncs.begin(table.id, Trigger.MANUAL)
    return Reply()


def list_secrets(context: Context, request: Request) -> Reply:
    """The secrets by name: which members each has and who put it when, never what is in it."""
    return Reply({"data": [shown_secret(secret) for secret in context.store.list_secrets()]})


def delete_secret(context: Context, request: Request) -> Reply:
    """Remove a secret that no connection and no table names any more."""
    remove_secret(context.records, request.path["name"], who=request.caller.id)
    return Reply()


def keep_secret(records: Records, name: str, members: Map[str, str], *, who: str) -> Secret:
    """Seal the members and keep them under the name. Error: INVALID, which tells names and never values."""
    if not NAME_FORM.fullmatch(name):
        hint = "use 1 to 100 letters (a-z, A-Z), digits, '_', '.' or '-'"
        raise Error(Code.INVALID, f"{name!r} cannot be the name of a secret", at="parameter name", hint=hint)
    _check_members(members)
    now_ms = records.clock.now_ms()
    sealed = records.vault.seal(name, members)
    secret = Secret(name, sealed, tuple(sorted(members)), now_ms, now_ms, who)
    records.store.put_secret(secret)
    return secret


def _check_members(members: Map[str, str]) -> None:
    at = "/data/attributes/members"
    if not 1 <= len(members) <= MEMBERS_MAX:
        message = f"a secret has 1 to {MEMBERS_MAX} members, not {len(members)}"
        raise Error(Code.INVALID, message, at=at, hint=f"known: {', '.join(MEMBER_NAMES)}")
    for name, value in members.items():
        place = f"{at}/{name.replace('~', '~0').replace('/', '~1')}"
        if name not in MEMBER_NAMES:
            hint = did_you_mean(name, MEMBER_NAMES) or f"known: {', '.join(MEMBER_NAMES)}"
            raise Error(Code.INVALID, f"no source knows a member {name!r}", at=place, hint=hint)
        if not value:
            raise Error(Code.INVALID, f"the member {name!r} is empty", at=place, hint="leave it out")
        size = len(value.encode("utf-8", "surrogatepass"))
        if size > VALUE_BYTES_MAX:
            hint = f"at most {VALUE_BYTES_MAX} bytes"
            raise Error(Code.INVALID, f"the member {name!r} has {size} bytes", at=place, hint=hint)


def remove_secret(records: Records, name: str, *, who: str) -> None:
    """Forget a secret. Errors: NOT_FOUND, CONFLICT while something names it."""
    store = records.store
    known = [secret.name for secret in store.list_secrets()]
    if name in known:
        users = users_of(store, name)
        if users:
            hint = "delete what names it, or put other members under the name"
            raise Error(Code.CONFLICT, f"the secret {name!r} is used by {', '.join(users)}", hint=hint)
        if store.remove_secret(name, who=who, now_ms=records.clock.now_ms()):
            return
    hint = did_you_mean(name, known) or "GET /api/roster/secrets, or `roster secret list`, lists them"
    raise Error(Code.NOT_FOUND, f"there is no secret {name!r}", at="parameter name", hint=hint)


def users_of(store: Store, name: str) -> list[str]:
    """What names a secret: connections as `entity/connection`, cloud tables by their name."""
    mappings = [store.read_mapping(entity) for entity in Entity]
    connections = [(m.entity, c) for m in mappings for c in m.connections if not is_reference(c)]
    named = [owner_of(entity, c) for entity, c in connections if dict(c.metadata).get("secret") == name]
    return named + [table.name for table in _tables_with(store, name) if not table.owner]


def failing_with(store: Store, name: str) -> list[Table]:
    """Tables that name a secret and whose last sync failed, perhaps for want of the right one."""
    syncs = {sync.table_id: sync for sync in store.list_syncs()}
    failing = {id for id, sync in syncs.items() if sync.state in (State.FAILING, State.WAITING)}
    return [table for table in _tables_with(store, name) if table.id in failing]


def _tables_with(store: Store, name: str) -> list[Table]:
    return [t for t in store.list_tables() if t.origin is not None and t.origin.get("secret") == name]


def shown_secret(secret: Secret) -> dict[str, Any]:
    """A secret as the API shows it: names only."""
    attributes = {
        "name": secret.name,
        "members": list(secret.members),
        "created_at": iso_ms(instant(secret.created_ms)),
        "updated_at": iso_ms(instant(secret.updated_ms)),
        "updated_by": secret.updated_by,
    }
    return {"id": secret.name, "type": "secret", "attributes": attributes}
