"""Owns the mapping of an entity and a record of its history, as values; changes live in `changes`."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping as Map
from dataclasses import asdict, dataclass, field
from typing import Any

from roster.base.values import Difference, canonical, diff
from roster.model import connection
from roster.model.connection import Connection, Field
from roster.model.rules import NO_RULES, Choice, Conflict
from roster.model.schema import BUILTINS, TRAITS_PREFIX, Entity, Type


@dataclass(frozen=True, slots=True)
class Alias:
    """An id that a field had before it was renamed. `old_id` is never live, `new_id` always is."""

    old_id: str
    new_id: str
    connection_id: str
    at_ms: int


@dataclass(frozen=True, slots=True)
class Mapping:
    """All custom attributes of one entity. Field ids are unique over it and the built-ins, case ignored.

    But connections may share an id, with fields of one type, where `conflicts` says which of them counts.
    `restores` is the version whose content an undo brought back here: it tells of history, not of content.
    """

    entity: Entity
    version: int
    connections: tuple[Connection, ...] = ()
    aliases: tuple[Alias, ...] = ()
    conflicts: tuple[Conflict, ...] = ()
    restores: int | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Version:
    """One record of history: who made this mapping, when, why, by which request, and what it changed.

    `restores` is the version whose content it brought back; None for a change of its own.
    """

    version: int
    at_ms: int
    who: str
    why: str
    request: Any = field(hash=False)
    diff: tuple[Difference, ...] = field(hash=False)
    restores: int | None = None


@dataclass(frozen=True, slots=True)
class Offer:
    """A field of a connection that offers an attribute."""

    connection: Connection
    field: Field


@dataclass(frozen=True, slots=True)
class Attribute:
    """One attribute as readers see it: `id` as shown (custom ones as `@name`), `name` without the '@'.

    A custom one has offers, in the order in which they count; `choice` says how where there are several.
    Or events give it: then `trait` is its name in what they say of the user or account.
    """

    id: str
    name: str
    type: Type
    display_name: str
    description: str
    groups: tuple[str, ...]
    is_custom: bool
    offers: tuple[Offer, ...] = ()
    choice: Choice = Choice.PRECEDENCE
    trait: str = ""


def empty(entity: Entity) -> Mapping:
    """The mapping before the first change: version 0."""
    return Mapping(entity, 0)


def attributes(mapping: Mapping) -> tuple[Attribute, ...]:
    """Built-ins first, then the fields of each connection in order."""
    builtins = [
        Attribute(b.id, b.id, b.type, b.display_name, b.description, b.groups, is_custom=False)
        for b in BUILTINS[mapping.entity]
    ]
    offers: dict[str, list[Offer]] = {}
    for c in mapping.connections:
        for f in c.fields:
            offers.setdefault(f.id, []).append(Offer(c, f))
    rules = {c.field_id: c for c in mapping.conflicts}
    return (*builtins, *(_custom(given, rules.get(id)) for id, given in offers.items()))


def traits(mapping: Mapping, types: Map[str, Type]) -> tuple[Attribute, ...]:
    """The attributes that events give: `usr.plan` of what `setUser` said; a field of the mapping of that id wins."""
    prefix = TRAITS_PREFIX[mapping.entity]
    taken = {f.id.lower() for c in mapping.connections for f in c.fields}
    told = f"What events say of it last ({prefix}.*)"
    return tuple(
        Attribute(f"@{id}", id, type, humanise(name), told, (), True, trait=name)
        for name, type in types.items()
        if (id := f"{prefix}.{name}").lower() not in taken
    )


def _custom(offers: list[Offer], conflict: Conflict | None) -> Attribute:
    """The first connection's field names and describes the attribute."""
    f = offers[0].field
    order = conflict.order if conflict else ()
    ranked = sorted(offers, key=lambda o: order.index(o.connection.id) if o.connection.id in order else len(order))
    label = f.display_name or humanise(f.id)
    choice = conflict.choice if conflict else Choice.PRECEDENCE
    return Attribute(f"@{f.id}", f.id, f.type, label, f.description, f.groups, True, tuple(ranked), choice)


def humanise(id: str) -> str:
    """A label for an id: `customer_tier` is `Customer Tier`."""
    return " ".join(word[0].upper() + word[1:] for word in re.split(r"[_.-]+", id) if word) or id


def find(
    mapping: Mapping, name: str, now_ms: int, alias_ttl_ms: int, known: Map[str, Attribute] | None = None
) -> Attribute | None:
    """The attribute of that name, with or without '@'; else the one that had it until `alias_ttl_ms` ago.

    `known`: the mapping's attributes by name, where they are at hand.
    """
    plain = name.removeprefix("@")
    by_name = known or {a.name: a for a in attributes(mapping)}
    if plain in by_name:
        return by_name[plain]
    live = (a for a in mapping.aliases if a.old_id == plain and now_ms < a.at_ms + alias_ttl_ms)
    return next((by_name[a.new_id] for a in live), None)


def find_connection(mapping: Mapping, id: str) -> Connection | None:
    """The connection of that id, or None."""
    return next((c for c in mapping.connections if c.id == id), None)


def diff_versions(old: Mapping, new: Mapping) -> tuple[Difference, ...]:
    """What changed of connections, fields and old ids, each under its id; stamps are left out."""
    return diff(_outline(old), _outline(new))


def _outline(mapping: Mapping) -> dict[str, Any]:
    aliases = {a.old_id: a.new_id for a in mapping.aliases}
    conflicts = {c.field_id: {"rule": c.choice.value, "order": list(c.order)} for c in mapping.conflicts}
    connections = {c.id: _outline_connection(c) for c in mapping.connections}
    return {"connections": connections, "aliases": aliases} | ({"conflicts": conflicts} if conflicts else {})


def _outline_connection(c: Connection) -> dict[str, Any]:
    join = {"type": c.join_type, "attribute": c.join_attribute}
    fields = {f.id: _outline_field(f) for f in c.fields}
    return {"type": c.type, "join": join, "metadata": dict(c.metadata), "fields": fields}


def _outline_field(f: Field) -> dict[str, Any]:
    """A field without rules is told without them."""
    plain = {**asdict(f), "groups": list(f.groups)}
    rules = plain.pop("rules") | {"allowed": list(f.rules.allowed)}
    del plain["id"]
    return plain if f.rules == NO_RULES else plain | {"rules": rules}


def to_json(mapping: Mapping) -> dict[str, Any]:
    """Everything that is content of a mapping, as plain JSON for storing."""
    plain: dict[str, Any] = json.loads(canonical(asdict(mapping)))
    del plain["restores"]
    return plain


def from_json(plain: dict[str, Any], restores: int | None = None) -> Mapping:
    """The mapping that `to_json` wrote; `restores` is kept beside it."""
    connections = tuple(connection.from_json(c) for c in plain["connections"])
    aliases = tuple(Alias(**a) for a in plain["aliases"])
    conflicts = tuple(
        Conflict(c["field_id"], Choice(c["choice"]), tuple(c["order"])) for c in plain.get("conflicts", ())
    )
    return Mapping(Entity(plain["entity"]), plain["version"], connections, aliases, conflicts, restores)
