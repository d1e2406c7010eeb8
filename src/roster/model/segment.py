"""Owns segments as values: who belongs to them under a name, and their changes. Counts nobody, stores nothing."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import Any

from roster.base.errors import Code, Error
from roster.base.values import canonical, digest
from roster.model.schema import Entity
from roster.model.segment_query import Definition, Performed, StaticList, TableRows, TookSteps, read_definition

NAME_CHARACTERS_MAX = 200
DESCRIPTION_CHARACTERS_MAX = 5_000
TAGS_MAX = 50
AT = "/data/attributes"


@dataclass(frozen=True, slots=True)
class Segment:
    """`data_query` is canonical JSON of what was given. `version` counts its changes, from 1 on."""

    id: str
    entity: Entity
    name: str
    description: str
    tags: tuple[str, ...]
    data_query: str
    version: int
    created_ms: int
    created_by: str
    modified_ms: int
    modified_by: str

    @property
    def digest(self) -> str:
        """A hash of who belongs to it: two segments with one digest have the same members."""
        return digest([self.entity.value, json.loads(self.data_query)])


def draft(
    id: str, name: str, data_query: Any, description: str, tags: tuple[str, ...], *, who: str, now_ms: int
) -> Segment:
    """A new segment, its first version. Errors: INVALID with the place, UNSUPPORTED."""
    entity = read_definition(data_query).entity
    made = Segment(id, entity, name, description, tags, canonical(data_query), 1, now_ms, who, now_ms, who)
    _check(made)
    return made


def change(
    segment: Segment,
    *,
    name: str | None = None,
    data_query: Any = None,
    description: str | None = None,
    tags: tuple[str, ...] | None = None,
    who: str,
    now_ms: int,
) -> Segment:
    """The segment with what is given (None: unchanged) as its next version; the same one when nothing differs."""
    definition = segment if data_query is None else _redefined(segment, data_query)
    changed = replace(
        definition,
        name=segment.name if name is None else name,
        description=segment.description if description is None else description,
        tags=segment.tags if tags is None else tags,
    )
    _check(changed)
    if says_the_same(changed, segment):
        return segment
    return replace(changed, version=segment.version + 1, modified_ms=now_ms, modified_by=who)


def _redefined(segment: Segment, data_query: Any) -> Segment:
    return replace(segment, entity=read_definition(data_query).entity, data_query=canonical(data_query))


def says_the_same(one: Segment, other: Segment) -> bool:
    """Whether two segments say the same under the same name, whoever made them."""
    return _said(one) == _said(other)


def _said(segment: Segment) -> tuple[object, ...]:
    return (segment.name, segment.entity, segment.data_query, segment.description, segment.tags)


def _check(segment: Segment) -> None:
    name = segment.name
    if not name.strip() or len(name) > NAME_CHARACTERS_MAX or not name.isprintable():
        hint = f"use 1 to {NAME_CHARACTERS_MAX} printable characters"
        raise Error(Code.INVALID, f"{name!r} cannot be the name of a segment", at=f"{AT}/name", hint=hint)
    if len(segment.description) > DESCRIPTION_CHARACTERS_MAX or "\0" in segment.description:
        hint = f"at most {DESCRIPTION_CHARACTERS_MAX} characters, none of them zero"
        raise Error(Code.INVALID, "the description cannot be kept", at=f"{AT}/description", hint=hint)
    tags = segment.tags
    if len(tags) > TAGS_MAX or any(not t.isprintable() or not 1 <= len(t) <= NAME_CHARACTERS_MAX for t in tags):
        hint = f"at most {TAGS_MAX} tags of 1 to {NAME_CHARACTERS_MAX} printable characters"
        raise Error(Code.INVALID, "the tags cannot be kept", at=f"{AT}/tags", hint=hint)


def definition_of(segment: Segment) -> Definition:
    """Who belongs to a segment."""
    return read_definition(json.loads(segment.data_query))


def kind_of(segment: Segment) -> str:
    """Which of the drafted kinds a segment is: that of its only rule, else a combination."""
    definition = definition_of(segment)
    alone = len(definition.rules) == 1 and not definition.profiles
    return _KINDS.get(type(definition.rules[0]), COMBINATION) if alone else COMBINATION


COMBINATION = "combination"
_KINDS: dict[type, str] = {
    StaticList: "static",
    Performed: "event_platform",
    TookSteps: "journeys",
    TableRows: "reference_table",
}


def lists_of(segment: Segment) -> set[str]:
    """The ids of the kept lists that a segment names."""
    return {rule.id for rule in definition_of(segment).rules if isinstance(rule, StaticList)}
