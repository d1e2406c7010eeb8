"""Owns segments as values: named profiles, told by searches and a formula over them. Counts nobody, stores nothing."""

from __future__ import annotations

import json
from collections.abc import Mapping as Map
from dataclasses import dataclass, replace
from typing import Any

from roster.base.errors import Code, Error, did_you_mean
from roster.base.values import canonical, digest
from roster.model.formula import NAME_FORM, WORDS, Formula, parse_formula
from roster.model.schema import Entity

NAME_CHARACTERS_MAX = 200
DESCRIPTION_CHARACTERS_MAX = 5_000
TAGS_MAX = 50
SEARCHES_MAX = 50
AT = "/data/attributes"
QUERY_AT = f"{AT}/data_query"
LATER = ("event_platforms", "journeys", "reference_tables", "static", "templates")
"""Members of a `data_query` that the drafted API has and Roster does not do yet."""
MEMBERS = ("entity", "profiles", "combination")


@dataclass(frozen=True, slots=True)
class ProfileSearch:
    """A search over profiles under a name."""

    name: str
    query: str


@dataclass(frozen=True, slots=True)
class Definition:
    """Who belongs to a segment: the searches, each under its name, and the formula over those names."""

    entity: Entity
    profiles: tuple[ProfileSearch, ...]
    combination: Formula


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


def read_definition(plain: Any) -> Definition:
    """The definition that a `data_query` states; its searches are not read here. Errors: INVALID, UNSUPPORTED."""
    given = _object(plain, QUERY_AT)
    for member in given:
        if member in LATER and given[member] not in ([], {}, None):
            hint = "use profiles: searches over profile attributes"
            raise Error(Code.UNSUPPORTED, f"{member} is not served yet", at=f"{QUERY_AT}/{member}", hint=hint)
        if member not in (*MEMBERS, *LATER):
            hint = did_you_mean(member, MEMBERS) or f"known: {', '.join(MEMBERS)}"
            raise Error(Code.INVALID, f"a data_query has no member {member!r}", at=QUERY_AT, hint=hint)
    entity = given.get("entity", Entity.USERS.value)
    if entity not in tuple(Entity):
        hint = "allowed: users, accounts"
        raise Error(Code.INVALID, f"unknown entity {entity!r}", at=f"{QUERY_AT}/entity", hint=hint)
    searches = _read_searches(given.get("profiles"))
    combination = given.get("combination") or ""
    at = f"{QUERY_AT}/combination"
    if not isinstance(combination, str):
        raise Error(Code.INVALID, "the combination is not a text", at=at)
    return Definition(Entity(entity), searches, parse_formula(combination, [s.name for s in searches], at))


def _read_searches(given: Any) -> tuple[ProfileSearch, ...]:
    at = f"{QUERY_AT}/profiles"
    if not isinstance(given, list) or not 1 <= len(given) <= SEARCHES_MAX:
        hint = f"a list of 1 to {SEARCHES_MAX} objects with name and query"
        raise Error(Code.INVALID, "the searches of the segment are missing or too many", at=at, hint=hint)
    searches: dict[str, ProfileSearch] = {}
    for i, one in enumerate(given):
        search = _read_search(one, f"{at}/{i}")
        if search.name in searches:
            raise Error(Code.INVALID, f"two searches are named {search.name!r}", at=f"{at}/{i}/name")
        searches[search.name] = search
    return tuple(searches.values())


def _read_search(plain: Any, at: str) -> ProfileSearch:
    given = _object(plain, at)
    name, query = given.get("name"), given.get("query")
    if not isinstance(name, str) or not NAME_FORM.fullmatch(name) or name.lower() in WORDS:
        hint = "use 1 to 100 letters (a-z, A-Z), digits, '_', '.' or '-'; not AND, OR or NOT"
        raise Error(Code.INVALID, f"{name!r} cannot be the name of a search", at=f"{at}/name", hint=hint)
    if not isinstance(query, str):
        raise Error(Code.INVALID, "the query is not a text", at=f"{at}/query", hint="for all profiles write *")
    strange = [member for member in given if member not in ("name", "query")]
    if strange:
        raise Error(Code.INVALID, f"a search has no member {strange[0]!r}", at=at, hint="known: name, query")
    return ProfileSearch(name, query)


def _object(plain: Any, at: str) -> Map[str, Any]:
    if not isinstance(plain, dict):
        raise Error(Code.INVALID, "this is not an object", at=at)
    return plain
