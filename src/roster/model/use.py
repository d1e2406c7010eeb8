"""Owns what is remembered of callers who name custom attributes: which, in what spelling, how often, when last."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from roster.model.schema import Entity

Place = tuple[str, str, str, str, str]


@dataclass(frozen=True, slots=True)
class Use:
    """One caller's use of one attribute in one spelling by one operation.

    `attribute` is its id at that time and `spelled` what the caller wrote, both without '@': they differ
    where an old id was used. `caller` is an id, never a key.
    """

    entity: Entity
    attribute: str
    spelled: str
    operation: str
    caller: str
    count: int
    last_ms: int

    @property
    def place(self) -> Place:
        """What is counted as one."""
        return (self.entity.value, self.attribute, self.spelled, self.operation, self.caller)

    @property
    def is_old(self) -> bool:
        """Whether the attribute had been renamed already."""
        return self.spelled != self.attribute


def add(one: Use, more: Use) -> Use:
    """Two uses of one place as one."""
    return replace(one, count=one.count + more.count, last_ms=max(one.last_ms, more.last_ms))


def add_up(uses: Iterable[Use]) -> list[Use]:
    """One use a place, in the order of first appearance."""
    found: dict[Place, Use] = {}
    for use in uses:
        known = found.get(use.place)
        found[use.place] = use if known is None else add(known, use)
    return list(found.values())


def latest_first(uses: Iterable[Use]) -> list[Use]:
    """By their last time; equal ones by place."""
    return sorted(uses, key=lambda use: (-use.last_ms, use.place))
