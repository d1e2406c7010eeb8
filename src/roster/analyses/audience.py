"""Owns audience filters: events of the users, accounts and segments that a formula admits. Runs nothing."""

from __future__ import annotations

from dataclasses import dataclass

from roster.analyses.event_world import EventWorld
from roster.analyses.scopes import World, combine, profile_scope, resolve_at
from roster.base.errors import Code, Error, did_you_mean
from roster.model import formula
from roster.model.formula import Formula, names_in
from roster.model.schema import Entity, Type
from roster.query.expr import FALSE, Column, Expr, IsNull, Not
from roster.query.plan import Filter, Join, Plan, Project
from roster.query.relations import OWNER_OF_EVENT, profile_key, where


@dataclass(frozen=True, slots=True)
class Group:
    """One named part of an audience: profiles that a search finds, or that belong to a segment.

    `entity` is None for a segment, which knows its own. `at`: where its search or id stands in the request.
    """

    name: str
    entity: Entity | None
    text: str
    at: str


@dataclass(frozen=True, slots=True)
class Audience:
    """Whose events count: the groups, and the formula over their names."""

    groups: tuple[Group, ...]
    formula: Formula


EVERYONE = Audience((), formula.And(()))


def restrict(plan: Plan, world: EventWorld, audience: Audience) -> tuple[Plan, list[str]]:
    """The events of a plan whose user and account the audience admits, and warnings.

    An event without a user is of no group of users, so it is admitted by NOT of one.
    Errors: INVALID for a search that cannot be read, NOT_FOUND for a segment.
    """
    named = names_in(audience.formula)
    warnings = [f"audience {g.name!r} takes no part: the formula does not name it" for g in audience.groups]
    warnings = [told for told, g in zip(warnings, audience.groups, strict=True) if g.name not in named]
    keys: dict[str, tuple[Entity, Plan]] = {}
    for group in audience.groups:
        if group.name in named:
            entity, plan_of_keys, doubts = _keys(world, group)
            keys[group.name] = (entity, plan_of_keys)
            warnings += doubts
    parts = audience.formula.items if isinstance(audience.formula, formula.And) else (audience.formula,)
    mixed: list[Formula] = []
    for part in parts:
        match part:
            case formula.Name(name):
                plan = Join(plan, keys[name][1], "semi", (_on(keys[name][0]),))
            case formula.Not(formula.Name(name)):
                plan = Join(plan, keys[name][1], "anti", (_on(keys[name][0]),))
            case _:
                mixed.append(part)
    return (_marked(plan, formula.And(tuple(mixed)), keys) if mixed else plan), warnings


def _on(entity: Entity) -> tuple[Expr, Expr]:
    """An event's owner and the key of profiles."""
    return OWNER_OF_EVENT[entity], profile_key(entity)


def _marked(plan: Plan, tree: Formula, keys: dict[str, tuple[Entity, Plan]]) -> Plan:
    """Each group that the tree names marks its events; then the tree decides."""
    marks: dict[str, Expr] = {}
    for name in sorted(names_in(tree)):
        entity, plan_of_keys = keys[name]
        mark = Column(f"#audience.{name}", Type.STRING)
        one = Project(plan_of_keys, ((mark.name, profile_key(entity)),))
        plan = Join(plan, one, "left", ((OWNER_OF_EVENT[entity], mark),))
        marks[name] = Not(IsNull(mark))
    return Filter(plan, combine(tree, marks))


def _keys(world: EventWorld, group: Group) -> tuple[Entity, Plan, list[str]]:
    """The entity of a group, the keys of its profiles, each once, and warnings."""
    if group.entity is None:
        segment = world.segments.get(group.text)
        if segment is None:
            hint = did_you_mean(group.text, tuple(world.segments)) or "GET /api/v2/rum/segment lists them"
            raise Error(Code.NOT_FOUND, f"there is no segment {group.text!r}", at=group.at, hint=hint)
        try:
            return segment.entity, world.members(world, segment), []
        except Error as error:
            key = profile_key(segment.entity)
            nobody = Project(Filter(world.of(segment.entity).relation, FALSE), ((key.name, key),))
            return segment.entity, nobody, [f"segment {segment.name!r}: {nobody_because(error)}"]
    return group.entity, *keys_found(world.of(group.entity), group.at, group.text)


def nobody_because(error: Error) -> str:
    """What to tell of a segment that cannot be read any more; the place is one in its own definition."""
    place = error.at.removeprefix("/data/attributes/")
    return f"it has no members: {Error(error.code, error.message, at=place, hint=error.hint).text()}"


def keys_found(profiles: World, at: str, text: str) -> tuple[Plan, list[str]]:
    """The keys of the profiles that a search finds, each once, and warnings; `at`: where it stands in the request."""
    resolved = resolve_at(at, text, profile_scope(profiles), profiles.now_ms)
    key = profile_key(profiles.entity)
    return Project(where(profiles.relation, resolved.where), ((key.name, key),)), resolved.warnings
