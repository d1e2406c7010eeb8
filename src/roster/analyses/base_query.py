"""Owns base queries: the events that a search finds, also only those of whoever had enough of them. Runs nothing."""

from __future__ import annotations

from dataclasses import dataclass

from roster.analyses.event_world import EventWorld
from roster.model.schema import Type
from roster.query.expr import Column, Compare, CompareOp, Expr, IsNull, Literal, Not, conjunction
from roster.query.plan import Agg, Aggregate, Filter, Join, Measure, Plan, Project
from roster.query.relations import where


@dataclass(frozen=True, slots=True)
class Occurrences:
    """How many events that a search finds someone must have for them to count."""

    op: CompareOp
    count: int


@dataclass(frozen=True, slots=True)
class BaseQuery:
    """A search over events; `at`: where it stands in the request. `occurrences` None: every event that is found."""

    text: str
    at: str
    occurrences: Occurrences | None = None


def find_events(
    plan: Plan, world: EventWorld, query: BaseQuery, whose: Expr, name: str = "query"
) -> tuple[Plan, Expr, list[str]]:
    """The plan, maybe with a column more, the condition for its events to be of the query, and warnings.

    Occurrences are counted over the events of `plan`, for each value of `whose`. `name` tells the columns of
    several queries over one plan apart.
    """
    resolved = world.resolve(query.at, query.text)
    if query.occurrences is None:
        return plan, resolved.where, resolved.warnings
    often = Column(f"#often.{name}", Type.STRING)
    count = Column("count", Type.INTEGER)
    counted = Aggregate(where(plan, resolved.where), ((often.name, whose),), (Measure(count.name, Agg.COUNT),))
    enough = Compare(query.occurrences.op, count, Literal(query.occurrences.count, Type.INTEGER))
    held = Project(Filter(counted, conjunction(enough, Not(IsNull(often)))), ((often.name, often),))
    marked = Join(plan, held, "left", ((whose, often),))
    return marked, conjunction(resolved.where, Not(IsNull(often))), resolved.warnings
