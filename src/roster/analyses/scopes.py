"""Owns what names mean in searches over profiles and over events. Builds no plan."""

from __future__ import annotations

from collections.abc import Mapping as Map
from dataclasses import dataclass, field
from functools import cached_property
from typing import assert_never

from roster.base.errors import Error
from roster.model import formula
from roster.model.formula import Formula
from roster.model.mapping import Attribute, Mapping, attributes, find
from roster.model.schema import EVENT_COLUMNS, EVENT_REST, EVENT_TEXT, Entity, Type
from roster.query.expr import And, Column, Expr, Not, Or
from roster.query.offers import Sources
from roster.query.plan import Project
from roster.query.relations import USER_OF_EVENT, profiles
from roster.query.resolve import Deep, Resolved, Scope, Target, resolve


@dataclass(frozen=True)
class World:
    """What profile queries stand on: the mapping, its sources, and now."""

    mapping: Mapping
    sources: Sources
    now_ms: int
    alias_ms: int
    terms_max: int = 200
    timed: Sources = field(default_factory=dict)
    """Those of the sources whose history can be read."""
    traits: tuple[Attribute, ...] = ()
    """Attributes that events give to profiles beside the mapping's own."""
    named: dict[str, str] = field(default_factory=dict, compare=False, repr=False)
    """Custom attributes met so far: as spelled, without '@', and the id. Filled by `find`, read after the query."""

    @property
    def entity(self) -> Entity:
        return self.mapping.entity

    def find(self, name: str) -> Attribute | None:
        """The attribute a name means, in either spelling, renamed ones included."""
        found = find(self.mapping, name, self.now_ms, self.alias_ms, self.by_name)
        if found is not None and found.offers:
            self.named[name.removeprefix("@")] = found.name
        return found

    @cached_property
    def attributes(self) -> tuple[Attribute, ...]:
        """Built-ins, then custom ones, then those that events give."""
        return (*attributes(self.mapping), *self.traits)

    @cached_property
    def by_name(self) -> dict[str, Attribute]:
        return {a.name: a for a in self.attributes}

    @cached_property
    def relation(self) -> Project:
        """The profiles of the entity with all attributes, under their bare names."""
        return profiles(self.mapping, self.sources, self.traits)

    def customs(self) -> tuple[Attribute, ...]:
        """Those of connections. On events the others are paths of the event itself."""
        return tuple(a for a in self.attributes if a.offers)


def profile_scope(world: World, prefix: str = "") -> Scope:
    """Built-in and custom attributes; free text looks at the text ones and every custom one.

    `prefix` stands before the names of the columns that are read.
    """
    shown = world.attributes
    columns = {a.name: Column(prefix + a.name, a.type) for a in shown}

    def target(name: str) -> Target | None:
        found = world.find(name)
        return columns[found.name] if found else None

    texts = tuple(columns[a.name] for a in shown if a.type is Type.STRING or a.is_custom)
    return Scope(target, texts, tuple(columns.values()), tuple(columns), world.terms_max)


def event_scope(world: World) -> Scope:
    """Typed event paths, then custom attributes of the event's user, then any path of the event.

    `usr.id` is the user an event belongs to, also where it was identified only later.
    """
    by_path = {c.path: Column(c.name, c.type) for c in EVENT_COLUMNS} | {"usr.id": USER_OF_EVENT}
    by_name = {column.name: column for column in by_path.values()}
    customs = {a.name: Column(a.id, a.type) for a in world.customs()} if world.entity is Entity.USERS else {}
    rest = Column(EVENT_REST.name, EVENT_REST.type)

    def target(name: str) -> Target | None:
        path = name.removeprefix("@")
        if path in by_path:
            return by_path[path]
        found = world.find(name) if customs else None
        if found is not None and found.name in customs:
            return customs[found.name]
        return Deep(rest, tuple(path.split(".")))

    return Scope(
        target, tuple(by_name[n] for n in EVENT_TEXT), tuple(by_path.values()), tuple(by_path), world.terms_max
    )


def resolve_at(pointer: str, text: str, scope: Scope, now_ms: int) -> Resolved:
    """`resolve`, its errors placed at a JSON pointer of the request."""
    try:
        return resolve(text, scope, now_ms)
    except Error as error:
        raise error.under(pointer) from error


def combine(tree: Formula, conditions: Map[str, Expr]) -> Expr:
    """What a formula states, given the condition that each of its names stands for."""
    match tree:
        case formula.Name(name):
            return conditions[name]
        case formula.Not(item):
            return Not(combine(item, conditions))
        case formula.And(items):
            return And(tuple(combine(i, conditions) for i in items))
        case formula.Or(items):
            return Or(tuple(combine(i, conditions) for i in items))
    assert_never(tree)
