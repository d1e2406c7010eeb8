"""Owns the request bodies of the operations on sources and secrets as strict models."""

from __future__ import annotations

from typing import Annotated, Literal as OneOf

from pydantic import Field as Rule

from roster.operations.bodies import ClosedBody

MEMBERS_MAX = 20


class SecretAttributes(ClosedBody):
    members: Annotated[dict[str, str], Rule(min_length=1, max_length=MEMBERS_MAX)]


class SecretData(ClosedBody):
    type: OneOf["secret"]
    attributes: SecretAttributes


class SecretBody(ClosedBody):
    data: SecretData
