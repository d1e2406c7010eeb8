"""Owns saved queries as values: a name, an operation and its body. Runs nothing."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from roster.base.errors import Code, Error, did_you_mean
from roster.base.values import canonical
from roster.model.schema import Entity

NAME_FORM = re.compile(r"[A-Za-z0-9._-]{1,100}")
RUNNABLE = {
    "QueryUsers": Entity.USERS,
    "QueryAccounts": Entity.ACCOUNTS,
    "QueryEventFilteredUsers": Entity.USERS,
    "GetUserFacetInfo": Entity.USERS,
    "GetAccountFacetInfo": Entity.ACCOUNTS,
}
"""Operations that can be saved, each with the entity whose attributes it names."""
AT = "/data/attributes"


@dataclass(frozen=True, slots=True)
class SavedQuery:
    """`body` is canonical JSON of the operation's request body."""

    name: str
    operation: str
    body: str
    created_ms: int
    updated_ms: int
    updated_by: str

    @property
    def entity(self) -> Entity:
        return RUNNABLE[self.operation]

    def raw(self) -> bytes:
        """The body as the operation takes it."""
        return self.body.encode()


def draft(name: str, operation: str, body: Any, *, who: str, now_ms: int) -> SavedQuery:
    """A query to save; its body is not looked at. Error: INVALID with the place."""
    if not NAME_FORM.fullmatch(name):
        hint = "use 1 to 100 letters (a-z, A-Z), digits, '_', '.' or '-'"
        raise Error(Code.INVALID, f"{name!r} cannot be the name of a query", at="parameter name", hint=hint)
    if operation not in RUNNABLE:
        hint = did_you_mean(operation, RUNNABLE) or f"known: {', '.join(RUNNABLE)}"
        raise Error(Code.INVALID, f"{operation!r} cannot be saved", at=f"{AT}/operation", hint=hint)
    return SavedQuery(name, operation, canonical(body), now_ms, now_ms, who)


def body_json(query: SavedQuery) -> Any:
    """The body as plain JSON."""
    return json.loads(query.body)
