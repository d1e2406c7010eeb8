"""Owns facets: the values of one attribute under a search, each with its number of profiles."""

from __future__ import annotations

from dataclasses import dataclass

from roster.analyses.profiles import Selection, selected
from roster.analyses.scopes import World, profile_scope
from roster.model.schema import NUMERIC, Type
from roster.query.expr import Cast, Column, Expr, IsNull, Literal, Not, conjunction
from roster.query.plan import Agg, Aggregate, Limit, Measure, Plan, Project, Sort, SortKey
from roster.query.relations import where
from roster.query.resolve import contains, unknown_name, wildcards


@dataclass(frozen=True, slots=True)
class FacetRequest:
    """Which attribute, under which search, values containing which term, how many values."""

    attribute: str
    query: str
    term: str
    limit: int


@dataclass(frozen=True, slots=True)
class Facet:
    """The plan of the values (value as text, count), of the range for numbers, and warnings."""

    values: Plan
    range: Plan | None
    warnings: tuple[str, ...]


def facet(world: World, request: FacetRequest) -> Facet:
    """Values by count descending, then value ascending; missing values are left out."""
    plan, warnings = selected(world, Selection(query=request.query))
    found = world.find(request.attribute)
    if found is None:
        warnings = [*warnings, unknown_name(request.attribute, profile_scope(world))]
    item: Expr = Column(found.name, found.type) if found else Literal(None, Type.STRING)
    type = found.type if found else Type.STRING
    present = where(plan, Not(IsNull(item)))
    text = Column("value", Type.STRING)
    counted: Plan = Aggregate(present, (("raw", item),), (Measure("count", Agg.COUNT),))
    named = Project(
        counted,
        (
            ("value", Column("raw", type) if type is Type.STRING else Cast(Column("raw", type), Type.STRING)),
            ("count", Column("count", Type.INTEGER)),
        ),
    )
    kept = where(named, conjunction(contains(text, wildcards(request.term)))) if request.term else named
    order = (SortKey(Column("count", Type.INTEGER), descending=True), SortKey(text))
    bounds = (Measure("min", Agg.MIN, item), Measure("max", Agg.MAX, item))
    range = Aggregate(present, (), bounds) if type in NUMERIC else None
    return Facet(Limit(Sort(kept, order), request.limit), range, tuple(dict.fromkeys(warnings)))
