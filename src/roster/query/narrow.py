"""Owns cutting profiles and their sources down to some profiles: a rewrite that keeps the answers for those."""

from __future__ import annotations

from dataclasses import replace

from roster.model.schema import Entity, profile_schema
from roster.query.expr import Column
from roster.query.plan import Filter, Join, Plan, Project, Read, Window
from roster.query.rewrite import map_inputs


def narrow_to(plan: Plan, entity: Entity, few: Plan) -> Plan:
    """The plan, whose joins begin with all profiles, over `few` of them.

    The sources are cut down before their duplicates are ranked: a rank within one key does not depend on
    other keys, so a semi-join on the key may go below it.
    """
    match plan:
        case Project(Join(left, Filter(Window() as window, rank), "left", on) as join, columns):
            profile_keys = Project(few, tuple((c.name, Column(c.name, c.type)) for c in profile_schema(entity)))
            kept = replace(
                window, input=Join(window.input, profile_keys, "semi", tuple((theirs, ours) for ours, theirs in on))
            )
            return Project(replace(join, left=narrow_to(left, entity, few), right=Filter(kept, rank)), columns)
        case Read():
            return few
        case _:
            return map_inputs(plan, lambda p: narrow_to(p, entity, few))
