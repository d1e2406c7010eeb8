"""Owns groups: rows by the values of facets, the best ones of each, in their order. Runs nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from roster.analyses.event_world import text_of
from roster.analyses.measures import Compute, measure_of
from roster.model.schema import Entity, Type
from roster.query.expr import Column, Compare, Expr, If, In, IsNull, Literal, Not, Texts, conjunction
from roster.query.plan import (
    Aggregate,
    Filter,
    Join,
    Measure,
    Named,
    Plan,
    Project,
    Rank,
    Sort,
    SortKey,
    Spread,
    Window,
    schema_of,
)
from roster.query.relations import where

MISSING = "N/A"
"""The group of rows without a value."""
LIMIT_DEFAULT = 100
BUCKET = "bucket"
BY = "#by"
"""The column that groups are ranked by."""
_NTH = "#nth"
"""Begins the column that counts the values of a group on a row, for groups within others."""


@dataclass(frozen=True, slots=True)
class GroupBy:
    """Groups by a facet of the event, or of its user or account where `source` says so.

    At most `limit` groups within each group before, the first by `rank`: None ranks by what is computed.
    `values`: only these. `at`: where it stands in the request.
    """

    facet: str
    at: str
    limit: int = LIMIT_DEFAULT
    exclude_missing: bool = False
    source: Entity | None = None
    rank: Compute | None = None
    descending: bool = True
    values: tuple[str, ...] = ()


Facets = Callable[[str], Expr | None]


def key_of(place: int) -> Column:
    """The column of a group's value, as text."""
    return Column(f"#group{place}", Type.STRING)


def rank_of(place: int) -> Column:
    """The column of a group's place among those within the group before, from 1 on."""
    return Column(f"#rank{place}", Type.INTEGER)


def keyed(plan: Plan, groups: Sequence[GroupBy], facets: Sequence[Expr], values: Sequence[Expr] | None = None) -> Plan:
    """The rows beside the value of each group, once for each of several; rows that a group leaves out are gone.

    `facets`: of each group, on an event; `values`: where the plan has them, unless it has the facets themselves.
    """
    if not groups:
        return plan
    plan, texts = _spread(plan, groups, facets, values or facets)
    conditions: list[Expr] = []
    named: list[Named] = [(c.name, Column(c.name, c.type)) for c in schema_of(plan)]
    for place, (group, text) in enumerate(zip(groups, texts, strict=True)):
        if group.exclude_missing:
            conditions.append(Not(IsNull(text)))
        told = If(IsNull(text), Literal(MISSING, Type.STRING), text)
        if group.values:
            conditions.append(In(told, tuple(Literal(v, Type.STRING) for v in group.values)))
        named.append((key_of(place).name, told))
    return Project(where(plan, conjunction(*conditions)), tuple(named))


def in_group(tags: Sequence[str]) -> Expr:
    """The keyed row is of the group with these values, one for each facet; all rows where there are none."""
    return conjunction(*(Compare("=", key_of(place), Literal(tag, Type.STRING)) for place, tag in enumerate(tags)))


def _spread(
    plan: Plan, groups: Sequence[GroupBy], facets: Sequence[Expr], values: Sequence[Expr]
) -> tuple[Plan, list[Expr]]:
    """The rows, once for each of several values, and the text of each facet there."""
    texts = [text_of(value) for value in values]
    several = [place for place, facet in enumerate(facets) if isinstance(facet, Texts)]
    if not several:
        return plan, texts
    columns = tuple((c.name, Column(c.name, c.type)) for c in schema_of(plan))
    plan = Project(plan, (*columns, *((f"#texts{place}", texts[place]) for place in several)))
    for place in several:
        told, each = (Column(f"#{name}{place}", Type.STRING) for name in ("texts", "text"))
        kept = groups[place].values
        only = (*kept, None) if MISSING in kept else kept or None
        plan, texts[place] = Spread(plan, each.name, told, only, f"{_NTH}{place}" if place else None), each
    return plan, texts


def ranks_of(groups: Sequence[GroupBy], computed: Compute, facets: Facets) -> tuple[Measure, ...]:
    """What each group is ranked by: what it says, else what is computed."""
    return tuple(measure_of(BY, group.rank or computed, facets) for group in groups)


def ranked(plan: Plan, groups: Sequence[GroupBy], ranks: Sequence[Measure], identity: Sequence[Column] = ()) -> Plan:
    """The keyed rows of the groups that stay, beside their ranks. `ranks`: see `ranks_of`.

    `identity`: of rows that may be there more than once, and then count once.
    """
    for place, group in enumerate(groups):
        keys = [key_of(n) for n in range(place + 1)]
        rows = _once(plan, place)
        if identity:
            rows = Aggregate(rows, tuple((c.name, c) for c in (*keys, *identity)), ())
        counted = Aggregate(rows, tuple((k.name, k) for k in keys), (ranks[place],))
        best = _best(counted, place, group)
        renamed: tuple[Named, ...] = (
            *((f"#of{place}.{n}", key) for n, key in enumerate(keys)),
            (rank_of(place).name, rank_of(place)),
        )
        on = tuple((key, Column(f"#of{place}.{n}", Type.STRING)) for n, key in enumerate(keys))
        plan = Join(plan, Project(best, renamed), "inner", on)
    return plan


def _once(plan: Plan, place: int) -> Plan:
    """Each row once a group, though the groups within may have several values of it."""
    counted = [c for c in schema_of(plan) if c.name.startswith(_NTH) and int(c.name.removeprefix(_NTH)) > place]
    firsts = [Compare("=", Column(c.name, c.type), Literal(1, Type.INTEGER)) for c in counted]
    return where(plan, conjunction(*firsts))


def _best(counted: Plan, place: int, group: GroupBy) -> Plan:
    """Rows of counted groups beside their rank, those within the limit."""
    by = next(c for c in schema_of(counted) if c.name == BY)
    order = (SortKey(Column(by.name, by.type), group.descending), SortKey(key_of(place)))
    within = tuple(key_of(n) for n in range(place))
    rows = Window(counted, rank_of(place).name, Rank.ROW_NUMBER, None, within, order)
    return Filter(rows, Compare("<=", rank_of(place), Literal(group.limit, Type.INTEGER)))


def grouped(plan: Plan, groups: Sequence[GroupBy], ranks: Sequence[Measure], measures: Sequence[Measure]) -> Plan:
    """One row a group with its values and its measures, best groups first; without groups one row.

    `plan`: keyed rows.
    """
    if not groups:
        return Aggregate(plan, (), tuple(measures))
    *outer, last = groups
    plan = ranked(plan, outer, ranks)
    places = range(len(groups))
    keys = (*((rank_of(n).name, rank_of(n)) for n in places[:-1]), *((key_of(n).name, key_of(n)) for n in places))
    best = _best(Aggregate(plan, keys, (*measures, ranks[-1])), places[-1], last)
    ordered = Sort(best, tuple(SortKey(rank_of(n)) for n in places))
    types = {c.name: c.type for c in schema_of(ordered)}
    shown = (*(key_of(n).name for n in places), *(m.name for m in measures))
    return Project(ordered, tuple((name, Column(name, types[name])) for name in shown))


def over_time(rows: Plan, groups: int, bucket: Expr, measures: Sequence[Measure]) -> Plan:
    """One row a group and bucket that has rows, in order: ranks, the groups' values, `bucket`, the measures.

    `rows`: ranked ones.
    """
    ranks, keys = [rank_of(n) for n in range(groups)], [key_of(n) for n in range(groups)]
    named: tuple[Named, ...] = (*((c.name, c) for c in (*ranks, *keys)), (BUCKET, bucket))
    order = tuple(SortKey(c) for c in (*ranks, Column(BUCKET, Type.INTEGER)))
    return Sort(Aggregate(rows, named, tuple(measures)), order)
