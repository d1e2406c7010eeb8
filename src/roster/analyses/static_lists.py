"""Owns who is put on a kept list: keys that are given or found once, and how many are profiles. Runs nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from roster.analyses.event_world import EventWorld
from roster.analyses.members import MEMBER, distinct_keys
from roster.base.errors import Code, Error, did_you_mean
from roster.model.reference_table import Table, relation_of, stored_columns
from roster.model.schema import Column as SchemaColumn, Entity, Type
from roster.query.expr import Column
from roster.query.plan import Join, Plan, Project, Read, Values
from roster.query.relations import EMAIL, count_rows, declared, normalise_key, profile_key

GIVEN = Column("#given", Type.STRING)


@dataclass(frozen=True, slots=True)
class Listing:
    """The keys of a list, and plans of one number: how many were given, how many of these are profiles, how many keys.

    The last one counts keys that are profiles.
    """

    keys: Plan
    given: Plan
    matched: Plan
    profiles: Plan


def given_ids(ids: Sequence[str]) -> Plan:
    """Texts as they came, as GIVEN."""
    return Values((SchemaColumn(GIVEN.name, GIVEN.type),), tuple((id,) for id in ids))


def given_rows(table: Table, name: str, at: str) -> Plan:
    """A column of a table, as GIVEN. Error: INVALID for one it does not have."""
    column = next((c for c in table.columns if c.name == name), None)
    if column is None:
        names = tuple(c.name for c in table.columns)
        hint = did_you_mean(name, names) or f"columns: {', '.join(names)}"
        raise Error(Code.INVALID, f"the file has no column {name!r}", at=at, hint=hint)
    held = {c.name: c.type for c in stored_columns(table)}
    return Project(Read(relation_of(table), stored_columns(table)), ((GIVEN.name, declared(column, held)),))


def match_given(world: EventWorld, entity: Entity, given: Plan, attribute: str) -> Listing:
    """The profiles that have what is given; keys that no profile has stay on the list, e-mails do not."""
    keys = distinct_keys(given, normalise_key(GIVEN, attribute))
    ours = normalise_key(Column(attribute, Type.STRING), attribute)
    if attribute != EMAIL:
        return list_of(world, entity, keys)
    profiles = world.of(entity).relation
    found = Join(profiles, keys, "semi", ((ours, MEMBER),))
    matched = Join(keys, Project(profiles, (("#ours", ours),)), "semi", ((MEMBER, Column("#ours", Type.STRING)),))
    owners = Project(found, ((MEMBER.name, profile_key(entity)),))
    return Listing(owners, count_rows(keys), count_rows(matched), count_rows(owners))


def list_of(world: EventWorld, entity: Entity, keys: Plan) -> Listing:
    """A list of keys that are found, each once, as MEMBER."""
    known = Join(keys, world.of(entity).relation, "semi", ((MEMBER, profile_key(entity)),))
    return Listing(keys, count_rows(keys), count_rows(known), count_rows(known))
