"""Owns counting retention by what the events of return were like. Runs nothing."""

from __future__ import annotations

from collections.abc import Sequence

from roster.analyses.event_world import TIME, EventWorld, text_of
from roster.analyses.explore import group_values
from roster.analyses.groups import keyed, ranked
from roster.analyses.periods import place_in
from roster.analyses.retention import (
    BY_COUNT,
    COHORT,
    COUNT,
    ENTITY,
    ENTRY,
    PLACE,
    Counted,
    Retention,
    RetentionGroup,
    Traffic,
    entries_beside,
    group_names,
    own_column,
)
from roster.model.schema import Column as SchemaColumn, Type
from roster.query.expr import Column, Compare, Expr, Literal, Texts
from roster.query.plan import (
    Agg,
    Aggregate,
    Filter,
    Join,
    Measure,
    Named,
    Plan,
    Project,
    Rank,
    SortKey,
    Union,
    Values,
    Window,
    schema_of,
)

BEFORE = Column("#before", Type.INTEGER)
"""The place of the return before this one; null for the first."""
_AT = Column("#at", Type.TIMESTAMP)
_TURN = Column("#turn", Type.INTEGER)


def count_by_returns(
    world: EventWorld, asked: Retention, traffic: Traffic, groups: Sequence[RetentionGroup]
) -> Counted:
    """Sizes as `count_long` gives them, of the groups of entries. Returns: ranks and values of these, then those of
    the groups of returns, `cohort`, place, the place before, and `count` of entities whose first return there is so.

    The place is null for column 0 where entry and return are the same event.
    """
    of_entries = [g.group for g in groups if not g.returns]
    of_returns = [g.group for g in groups if g.returns]
    entry_values, warnings = group_values(world, of_entries)
    return_values, doubts = group_values(world, of_returns)
    plan, told = entries_beside(world, traffic, asked, [*entry_values, *return_values])
    at_entry = [text_of(v) for v in told[len(of_entries) :]]
    plan = ranked(
        keyed(plan, of_entries, entry_values, told[: len(of_entries)]), of_entries, (BY_COUNT,) * len(of_entries)
    )
    named = group_names(len(of_entries))
    sizes = Aggregate(plan, (*named, (COHORT.name, COHORT)), (Measure(COUNT, Agg.COUNT),))
    outer: tuple[Named, ...] = tuple((f"#of{n}", expr) for n, (_, expr) in enumerate(named))
    columns: tuple[Named, ...] = ((ENTITY.name, ENTITY), (COHORT.name, COHORT), (ENTRY.name, ENTRY), *outer)
    mine = Project(plan, (*columns, *((_value(n).name, v) for n, v in enumerate(at_entry))))
    rows = _first_returns(asked, traffic, Project(plan, columns), return_values)
    if traffic.same:
        none = Literal(None, Type.INTEGER)
        first = Project(mine, (*_kept(mine, ENTRY), (PLACE.name, none), (BEFORE.name, none)))
        rows = Union((first, Project(rows, tuple((c.name, Column(c.name, c.type)) for c in schema_of(first)))))
    texts = [_value(n) for n in range(len(of_returns))]
    several = any(isinstance(value, Texts) for value in entry_values)
    identity = (ENTITY, COHORT, PLACE) if several else ()
    ranks = (BY_COUNT,) * len(of_returns)
    rows = ranked(keyed(rows, of_returns, return_values, texts), of_returns, ranks, identity)
    kept: tuple[Named, ...] = tuple((name, Column(name, _type(rows, name))) for name, _ in outer)
    keys = (*kept, *group_names(len(of_returns)), (COHORT.name, COHORT), (PLACE.name, PLACE), (BEFORE.name, BEFORE))
    cells = Aggregate(rows, keys, (Measure(COUNT, Agg.COUNT),))
    return Counted((sizes, cells), (*traffic.warnings, *warnings, *doubts), traffic.same)


def _value(place: int) -> Column:
    return Column(f"#returned{place}", Type.STRING)


def _type(plan: Plan, name: str) -> Type:
    return next(c.type for c in schema_of(plan) if c.name == name)


def _kept(plan: Plan, *without: Column) -> tuple[Named, ...]:
    return tuple((c.name, Column(c.name, c.type)) for c in schema_of(plan) if c.name not in {w.name for w in without})


def _first_returns(asked: Retention, traffic: Traffic, entered: Plan, values: Sequence[Expr]) -> Plan:
    """A row an entity, cohort and period with its first return there: what it was like, and the place before it."""
    who = Column("#who", Type.STRING)
    texts: tuple[Named, ...] = tuple((_value(n).name, text_of(v)) for n, v in enumerate(values))
    events = Project(traffic.returning(), ((who.name, traffic.entity), (_AT.name, TIME), *texts))
    met: Plan = Filter(Join(entered, events, "inner", ((ENTITY, who),)), traffic.is_return(_AT))
    grid = asked.periods.grid
    if grid is None:
        met, place = own_column(met, asked.periods, _AT)
    else:
        place = place_in(_AT, grid)
    mine = _kept(entered, ENTRY)
    keys = (*mine, (PLACE.name, place), (_AT.name, _AT))
    smallest = tuple(Measure(name, Agg.MIN, Column(name, Type.STRING)) for name, _ in texts)
    moments = Aggregate(met, keys, smallest)
    whose = tuple(value for _, value in mine)
    turns = Window(moments, _TURN.name, Rank.ROW_NUMBER, None, (*whose, PLACE), (SortKey(_AT),))
    firsts: Plan = Filter(turns, Compare("=", _TURN, Literal(1, Type.INTEGER)))
    if traffic.same:  # whoever entered is in column 0 already
        of, base = Column("#in", Type.INTEGER), Column("#base", Type.INTEGER)
        bases = Values(
            (SchemaColumn(of.name, of.type), SchemaColumn(base.name, base.type)), tuple(enumerate(asked.periods.bases))
        )
        firsts = Filter(Join(firsts, bases, "inner", ((COHORT, of),)), Compare(">", PLACE, base))
    return Window(firsts, BEFORE.name, Rank.LAG, PLACE, whose, (SortKey(PLACE),))
