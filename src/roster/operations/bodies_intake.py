"""Owns the request body of the replay of rejected events as a strict model."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field as Rule

from roster.intake.reasons import Reason
from roster.operations.bodies import ClosedBody

IDS_MAX = 10_000


class ReplayBody(ClosedBody):
    """Which rejected events: of a reason, of these ids, of both; nothing given: all."""

    reason: Annotated[Reason, Rule(strict=False)] | None = None
    ids: Annotated[list[str], Rule(max_length=IDS_MAX)] | None = None
