"""Owns the body that applies a declaration: its frame alone; what is declared is read by the model."""

from __future__ import annotations

from typing import Any, Literal as OneOf

from roster.operations.bodies import ClosedBody


class DeclarationAttributes(ClosedBody):
    """Each entity: `connections` by id, and the `version` of the mapping that the caller has seen."""

    users: dict[str, Any] | None = None
    accounts: dict[str, Any] | None = None
    prune: bool = False


class DeclarationData(ClosedBody):
    type: OneOf["declaration"]
    id: str | None = None
    attributes: DeclarationAttributes


class DeclarationBody(ClosedBody):
    data: DeclarationData
