"""Owns who is behind a number: users or accounts of a bar, a point, a node or a link, as keys. Runs nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from roster.analyses.event_world import EventWorld
from roster.analyses.explore import Selection, group_values, selected_events
from roster.analyses.groups import GroupBy, key_of, keyed
from roster.analyses.members import MEMBER, distinct_keys
from roster.analyses.profiles import attribute_columns
from roster.analyses.sankey import Pathways, steps_of_paths
from roster.model.schema import Entity, Type
from roster.query.expr import Column, Compare, Expr, Literal, conjunction
from roster.query.plan import Join, Limit, Plan, Project, Sort, SortKey
from roster.query.relations import OWNER_OF_EVENT, profile_key, where


def keys_of_events(
    world: EventWorld, entity: Entity, selection: Selection, groups: Sequence[GroupBy], tags: Sequence[str]
) -> tuple[Plan, list[str]]:
    """The users or accounts of the events of one group, told by the values of its facets; and warnings."""
    plan, warnings = selected_events(world, selection)
    values, doubts = group_values(world, groups)
    rows = keyed(plan, groups, values)
    chosen = [_is(key_of(place), tag) for place, tag in enumerate(tags)]
    return distinct_keys(where(rows, conjunction(*chosen)), OWNER_OF_EVENT[entity]), [*warnings, *doubts]


@dataclass(frozen=True, slots=True)
class Passage:
    """A step of paths: from a value in a column (0-based) to one in the next; None for any."""

    column: int
    source: str | None
    target: str | None


def keys_on_paths(world: EventWorld, entity: Entity, asked: Pathways, passage: Passage) -> tuple[Plan, list[str]]:
    """The users or accounts whose paths take a step, told by the event that the step ends with; and warnings."""
    owner = Column("#owner", Type.STRING)
    steps, warnings = steps_of_paths(world, asked, ((owner.name, OWNER_OF_EVENT[entity]),))
    chosen: list[Expr] = [Compare("=", Column("end", Type.INTEGER), Literal(passage.column + 2, Type.INTEGER))]
    for name, value in (("source", passage.source), ("target", passage.target)):
        if value is not None:
            chosen.append(_is(Column(name, Type.STRING), value))
    return distinct_keys(where(steps, conjunction(*chosen)), owner), warnings


def list_people(
    world: EventWorld, entity: Entity, keys: Plan, names: Sequence[str], limit: int
) -> tuple[Plan, list[str]]:
    """Attributes of the profiles of these keys, a column a name, in the order of their keys; and warnings."""
    profiles, key = world.of(entity), profile_key(entity)
    columns, warnings = attribute_columns(profiles, names)
    rows = Join(profiles.relation, keys, "semi", ((key, MEMBER),))
    return Project(Limit(Sort(rows, (SortKey(key),)), limit), columns), warnings


def _is(column: Column, value: str) -> Expr:
    return Compare("=", column, Literal(value, Type.STRING))
