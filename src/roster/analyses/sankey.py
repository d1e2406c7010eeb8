"""Owns pathways: which value of a facet follows which, per session, user or account, as plans and as a diagram."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, NamedTuple

from roster.analyses.event_world import TIME, EventWorld, text_of
from roster.analyses.explore import Selection, selected_events
from roster.analyses.journey import KEY_OF, Key
from roster.base.errors import Code, Error
from roster.model.schema import Column as SchemaColumn, Type
from roster.query.expr import (
    And,
    Call,
    Column,
    Compare,
    Expr,
    Fn,
    If,
    IsNull,
    Like,
    Literal,
    Not,
    Or,
    conjunction,
    type_of,
)
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
    Window as Ranked,
)
from roster.query.resolve import wildcards

LISTED_MAX = 100
"""How many of the values in an `other` node are named."""
_ID = Column("event_id", Type.STRING)
_TIME, _EVENT = Column("#time", TIME.type), Column("#event", _ID.type)
_VALUE, _BEFORE = Column("#value", Type.STRING), Column("#before", Type.STRING)
_PLACE, _FIRST, _LAST = (Column(name, Type.INTEGER) for name in ("#place", "#first", "#last"))
_END, _COUNT, _BACK = (Column(name, Type.INTEGER) for name in ("end", "count", "#back"))
_SOURCE, _TARGET, _NAME = (Column(name, Type.STRING) for name in ("source", "target", "name"))
_RANK, _IN, _OUT = (Column(name, Type.INTEGER) for name in ("rank", "incoming", "outgoing"))


@dataclass(frozen=True, slots=True)
class Pathways:
    """Which paths, and how much of them is shown.

    `source` is the facet of the columns, `target` that of the last one. `begins` and `ends` are values, `*` and `?`
    being wildcards: paths begin at the first such value, and end at the first such value (after the beginning).
    """

    selection: Selection
    key: Key
    secondary: tuple[str, ...]
    source: str
    target: str
    begins: str | None
    ends: str | None
    columns: int
    entries: int


class Kind(StrEnum):
    REGULAR = "regular"
    OTHER = "other"
    DROPOFF = "dropoff"


@dataclass(frozen=True, slots=True)
class Listed:
    """A value that an `other` node stands for."""

    id: str
    name: str
    value: int
    incoming: int
    outgoing: int


@dataclass(frozen=True, slots=True)
class Node:
    """A value in a column, all its other values, or those whose path ended in the column before."""

    id: str
    name: str
    kind: Kind
    column: int
    value: int
    incoming: int
    outgoing: int
    dropoff: int
    listed: tuple[Listed, ...] = ()


@dataclass(frozen=True, slots=True)
class Link:
    """How many paths go from a node to one of the next column."""

    column: int
    source: str
    target: str
    value: int


@dataclass(frozen=True, slots=True)
class Diagram:
    nodes: tuple[Node, ...]
    links: tuple[Link, ...]


def pathways(world: EventWorld, asked: Pathways) -> tuple[Plan, list[str]]:
    """One row a node or a sum of links, see `diagram`; and warnings.

    A place is that of a column, from 1 on. A step is told by the place it ends at.
    """
    events, warnings = selected_events(world, asked.selection)
    steps = _counted(_steps(world, asked, events))
    ranked = _ranked(_nodes(steps))
    best = Filter(ranked, Compare("<=", _RANK, _integer(asked.entries)))
    named = Filter(ranked, Compare("<=", _RANK, _integer(asked.entries + LISTED_MAX)))
    nothing = Literal(None, Type.STRING)
    rows: tuple[Named, ...] = (
        (_END.name, _PLACE),
        (_SOURCE.name, _NAME),
        (_TARGET.name, nothing),
        *_same(_RANK, _IN, _OUT),
    )
    return Union((Project(named, rows), _links(steps, best))), warnings


def steps_of_paths(world: EventWorld, asked: Pathways, carried: tuple[Named, ...]) -> tuple[Plan, list[str]]:
    """One row a step of a path: `end`, the place it ends at (from 2 on), `source` and `target`; and warnings.

    Beside them the columns of `keys_of_paths`. `carried`: what is told of the event that a step ends with.
    """
    events, warnings = selected_events(world, asked.selection)
    return _steps(world, asked, events, carried), warnings


def keys_of_paths(asked: Pathways) -> tuple[Column, ...]:
    """The columns that say whose path a step is of."""
    return _keys(1 + len(asked.secondary))


def shown_values(steps: Plan, asked: Pathways, place: int, name: str) -> Plan:
    """The values that the column of a place (from 1 on) shows by themselves, under a name. `steps`: of paths."""
    best = Filter(_ranked(_nodes(_counted(steps))), Compare("<=", _RANK, _integer(asked.entries)))
    return Project(Filter(best, Compare("=", _PLACE, _integer(place))), ((name, _NAME),))


def _counted(steps: Plan) -> Plan:
    return Aggregate(steps, _same(_END, _SOURCE, _TARGET), (Measure(_COUNT.name, Agg.COUNT),))


def _integer(value: int) -> Literal:
    return Literal(value, Type.INTEGER)


def _same(*columns: Column) -> tuple[Named, ...]:
    return tuple((c.name, c) for c in columns)


def _less(left: Expr, right: Expr) -> Expr:
    return Call(Fn.SUBTRACT, (left, right))


def _text(world: EventWorld, name: str, at: str) -> Expr:
    value = world.facet(name)
    if value is None:
        raise Error(Code.INVALID, f"unknown facet {name!r}", at=at)
    return text_of(value)


def _keys(count: int, name: str = "key") -> tuple[Column, ...]:
    return tuple(Column(f"#{name}{n}", Type.STRING) for n in range(count))


def _valued(
    world: EventWorld,
    asked: Pathways,
    events: Plan,
    facet: str,
    at: str,
    key: str = "key",
    carried: tuple[Named, ...] = (),
) -> Plan:
    """The events that have a value of the facet and all keys: keys, time, event and value."""
    at_keys = "/data/attributes/search/join_keys/secondary"
    parts = (KEY_OF[asked.key], *(_text(world, name, f"{at_keys}/{n}") for n, name in enumerate(asked.secondary)))
    keys = _keys(len(parts), key)
    named = [(key.name, part) for key, part in zip(keys, parts, strict=True)]
    told = ((_TIME.name, TIME), (_EVENT.name, _ID), (_VALUE.name, _text(world, facet, at)), *carried)
    rows = Project(events, (*named, *told))
    return Filter(rows, conjunction(*(Not(IsNull(c)) for c in (*keys, _VALUE))))


def _steps(world: EventWorld, asked: Pathways, events: Plan, carried: tuple[Named, ...] = ()) -> Plan:
    """One row a step of a path that is shown: the place it ends at, the value before and the value there."""
    keys = _keys(1 + len(asked.secondary))
    order = (SortKey(_TIME), SortKey(_EVENT))
    valued = _valued(world, asked, events, asked.source, "/data/attributes/definition/source", carried=carried)
    beside = _told(keys, carried)
    before = Ranked(valued, _BEFORE.name, Rank.LAG, _VALUE, keys, order)
    moved = Filter(before, Not(Compare("=", _BEFORE, _VALUE)))
    placed, place, shown = _anchored(Ranked(moved, _PLACE.name, Rank.ROW_NUMBER, None, keys, order), asked, keys)
    is_one = asked.source == asked.target
    inside = (Compare(">", place, _integer(1)), Compare("<=", place, _integer(asked.columns - (not is_one))))
    steps: tuple[Named, ...] = ((_END.name, place), (_SOURCE.name, _BEFORE), (_TARGET.name, _VALUE), *beside)
    plan: Plan = Project(Filter(placed, conjunction(*inside, *shown)), steps)
    if is_one:
        return plan
    last = Filter(placed, Compare("=", place, _integer(asked.columns - 1)))
    return Union((plan, _to_target(world, asked, events, last, keys, carried)))


def _anchored(placed: Plan, asked: Pathways, keys: tuple[Column, ...]) -> tuple[Plan, Expr, list[Expr]]:
    """The rows beside what the anchors need, the place each is shown at, and what rows of the path satisfy."""
    plan: Plan = placed
    place: Expr = _PLACE
    shown: list[Expr] = []
    if asked.begins is not None:
        plan = _beside(plan, placed, asked.begins, _FIRST, keys)
        place = Call(Fn.ADD, (_less(_PLACE, _FIRST), _integer(1)))
    if asked.ends is not None:
        rest = plan if asked.begins is None else Filter(plan, Compare(">", _PLACE, _FIRST))
        plan = _beside(plan, rest, asked.ends, _LAST, keys)
        shown.append(Compare("<=", _PLACE, _LAST))
        if asked.begins is None:
            place = Call(Fn.ADD, (_less(_PLACE, _LAST), _integer(asked.columns)))
            shown.append(Compare(">", _PLACE, _integer(1)))
    return plan, place, shown


def _beside(plan: Plan, rows: Plan, pattern: str, name: Column, keys: tuple[Column, ...]) -> Plan:
    """The rows of keys that have such a value among `rows`, beside the first place of one."""
    found = Filter(rows, Like(_VALUE, wildcards(pattern)))
    theirs = _keys(len(keys), f"{name.name}.")
    named = tuple((their.name, key) for their, key in zip(theirs, keys, strict=True))
    firsts = Aggregate(found, named, (Measure(name.name, Agg.MIN, _PLACE),))
    return Join(plan, firsts, "inner", tuple(zip(keys, theirs, strict=True)))


def _to_target(
    world: EventWorld, asked: Pathways, events: Plan, rows: Plan, keys: tuple[Column, ...], carried: tuple[Named, ...]
) -> Plan:
    """Steps from the last column but one to the first later value of the target's facet."""
    valued = _valued(world, asked, events, asked.target, "/data/attributes/definition/target", "target.", carried)
    since, after = Column("#since", TIME.type), Column("#after", _ID.type)
    begun = Project(rows, (*_same(*keys), (since.name, _TIME), (after.name, _EVENT), (_SOURCE.name, _VALUE)))
    theirs = _keys(len(keys), "target.")
    both = Join(begun, valued, "inner", tuple(zip(keys, theirs, strict=True)))
    tied = And((Compare("=", _TIME, since), Compare(">", _EVENT, after)))
    later = Filter(both, Or((Compare(">", _TIME, since), tied)))
    ranked = Ranked(later, _RANK.name, Rank.ROW_NUMBER, None, keys, (SortKey(_TIME), SortKey(_EVENT)))
    first = Filter(ranked, Compare("=", _RANK, _integer(1)))
    named = ((_END.name, _integer(asked.columns)), *_same(_SOURCE), (_TARGET.name, _VALUE))
    return Project(first, (*named, *_told(keys, carried)))


def _told(keys: tuple[Column, ...], carried: tuple[Named, ...]) -> tuple[Named, ...]:
    """What is told beside a step where something is carried: whose path it is, and that."""
    return (*_same(*keys), *((name, Column(name, type_of(value))) for name, value in carried)) if carried else ()


def _nodes(steps: Plan) -> Plan:
    """Each value of each column with the paths that come in and go out. `steps`: counted.

    A step is taken twice, for its end and one place back for its start, so that the steps are read once.
    """
    both = Join(steps, Values((SchemaColumn(_BACK.name, _BACK.type),), ((0,), (1,))), "inner", ())
    is_end = Compare("=", _BACK, _integer(0))
    keys: tuple[Named, ...] = (
        (_PLACE.name, _less(_END, _BACK)),
        (_NAME.name, If(is_end, _TARGET, _SOURCE)),
    )
    none = _integer(0)
    measures = (
        Measure(_IN.name, Agg.SUM, If(is_end, _COUNT, none)),
        Measure(_OUT.name, Agg.SUM, If(is_end, none, _COUNT)),
    )
    return Aggregate(both, keys, measures)


def _ranked(nodes: Plan) -> Plan:
    order = (SortKey(Call(Fn.GREATEST, (_IN, _OUT)), descending=True), SortKey(_NAME))
    return Ranked(nodes, _RANK.name, Rank.ROW_NUMBER, None, (_PLACE,), order)


def _links(steps: Plan, best: Plan) -> Plan:
    """Links between the best values of neighbouring columns; null stands for all other values of a column."""
    plan = steps
    for side, place in ((_SOURCE, _less(_END, _integer(1))), (_TARGET, _END)):
        at, best_name = Column(f"#{side.name}.place", Type.INTEGER), Column(f"#{side.name}", Type.STRING)
        known = Project(best, ((at.name, _PLACE), (best_name.name, _NAME)))
        plan = Join(plan, known, "left", ((place, at), (side, best_name)))
    keys = (*_same(_END), *((side.name, Column(f"#{side.name}", Type.STRING)) for side in (_SOURCE, _TARGET)))
    summed = Aggregate(plan, keys, (Measure(_IN.name, Agg.SUM, _COUNT),))
    nothing = Literal(None, Type.INTEGER)
    return Project(summed, (*_same(_END, _SOURCE, _TARGET), (_RANK.name, nothing), *_same(_IN), (_OUT.name, nothing)))


Sums = dict[tuple[int, str | None, str | None], int]
"""Paths by the column they start in, the name there and the next one."""


class Row(NamedTuple):
    """A node as the plan gives it."""

    place: int
    name: str
    target: None
    rank: int
    incoming: int
    outgoing: int


def diagram(rows: Sequence[tuple[Any, ...]], asked: Pathways) -> tuple[Diagram, list[str]]:
    """The nodes and links of a diagram in their order, and warnings.

    Rows: place, source, target, rank, incoming, outgoing. With a rank it is a node, named by `source`; without one,
    links that end at a place and that `incoming` paths take, null being all values of a column that are not shown.
    """
    nodes = sorted((Row(*row) for row in rows if row[3] is not None), key=lambda row: (row.place, row.rank))
    sums = {(row[0] - 2, row[1], row[2]): int(row[4]) for row in rows if row[3] is None}
    made: list[Node] = []
    links: list[Link] = []
    warnings: list[str] = []
    ended = 0
    for column in range(asked.columns):
        here = [row for row in nodes if row.place == column + 1]
        shown = [_node(asked, row.name, column, int(row.incoming), int(row.outgoing)) for row in here[: asked.entries]]
        other = _other(asked, column, here[asked.entries :], sums)
        if other is not None:
            shown.append(other)
            if sum(item.value for item in other.listed) < other.value:
                warnings.append(f"other in column {column} names only its {LISTED_MAX} most frequent values")
        if ended:
            shown.append(Node(f"dropoff:{column}", "dropoff", Kind.DROPOFF, column, ended, ended, 0, 0))
        made += shown
        ended = sum(node.dropoff for node in shown)
        links += _links_from(shown, sums)
    return Diagram(tuple(made), tuple(links)), warnings


def _id(column: int, name: str | None) -> str:
    """Values begin with a digit, so that no value is taken for one of the other two kinds."""
    return f"other:{column}" if name is None else f"{column}:{name}"


def _node(asked: Pathways, name: str | None, column: int, incoming: int, outgoing: int) -> Node:
    value = max(incoming, outgoing)
    goes_on = asked.ends is not None or column == asked.columns - 1
    kind, told = (Kind.OTHER, "other") if name is None else (Kind.REGULAR, name)
    return Node(_id(column, name), told, kind, column, value, incoming, outgoing, 0 if goes_on else value - outgoing)


def _other(asked: Pathways, column: int, rest: Sequence[Row], sums: Sums) -> Node | None:
    if not rest:
        return None
    incoming = sum(n for (start, _, target), n in sums.items() if start == column - 1 and target is None)
    outgoing = sum(n for (start, source, _), n in sums.items() if start == column and source is None)
    node = _node(asked, None, column, incoming, outgoing)
    return replace(node, listed=tuple(_listed(column, row) for row in rest[:LISTED_MAX]))


def _listed(column: int, row: Row) -> Listed:
    incoming, outgoing = int(row.incoming), int(row.outgoing)
    return Listed(_id(column, row.name), row.name, max(incoming, outgoing), incoming, outgoing)


def _links_from(shown: Sequence[Node], sums: Sums) -> list[Link]:
    """The links that start in a column: in the order of its nodes, then the most taken first, drop-off last."""
    links: list[Link] = []
    for node in shown:
        name = None if node.kind is Kind.OTHER else node.name
        if node.kind is not Kind.DROPOFF:
            taken = [(n, t) for (start, source, t), n in sums.items() if (start, source) == (node.column, name)]
            taken.sort(key=lambda item: (item[1] is None, -item[0], item[1] or ""))
            links += [Link(node.column, node.id, _id(node.column + 1, t), n) for n, t in taken]
        if node.dropoff:
            links.append(Link(node.column, node.id, f"dropoff:{node.column + 1}", node.dropoff))
    return links
