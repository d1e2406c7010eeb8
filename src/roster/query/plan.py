"""Owns the closed set of plan nodes and the schema each gives. Decides nothing about engines."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal as OneOf, assert_never

from roster.model.schema import Column, Schema, Type
from roster.query.expr import Expr, Scalar, type_of

Named = tuple[str, Expr]


class Agg(StrEnum):
    """Aggregations. Nulls are ignored; of nothing, COUNT and DISTINCT are 0, the rest null.

    COUNT without an item counts rows. SUM of INTEGER is exact, past 64 bits too. AVG and QUANTILE give
    NUMBER; QUANTILE interpolates between neighbours. Keys and items but COUNT's are never ANY.
    """

    COUNT = "count"
    DISTINCT = "distinct"
    SUM = "sum"
    AVG = "avg"
    MIN = "min"
    MAX = "max"
    QUANTILE = "quantile"


class Rank(StrEnum):
    """Window functions over the rows of a partition in order; LAG and LEAD look one row back or ahead."""

    ROW_NUMBER = "row_number"
    LAG = "lag"
    LEAD = "lead"


@dataclass(frozen=True, slots=True)
class Read:
    """All rows of a stored relation, with the columns named by `schema`."""

    relation: str
    schema: Schema


@dataclass(frozen=True, slots=True)
class Values:
    """Rows given in the plan itself."""

    schema: Schema
    rows: tuple[tuple[Scalar, ...], ...]


@dataclass(frozen=True, slots=True)
class Filter:
    input: Plan
    where: Expr


@dataclass(frozen=True, slots=True)
class Project:
    """Exactly the named columns, in this order."""

    input: Plan
    columns: tuple[Named, ...]


@dataclass(frozen=True, slots=True)
class During:
    """A time of the left side that lies in a span of the right one: `since <= time < until`; all have one type."""

    time: Expr
    since: Expr
    until: Expr


@dataclass(frozen=True, slots=True)
class Join:
    """Rows whose key pairs are all equal (null equals nothing), and which meet in time where that is asked.

    `left` keeps unmatched left rows; `semi` and `anti` keep left columns only, each row at most once.
    `inner` and `left` give the columns of both sides, whose names must not clash.
    """

    left: Plan
    right: Plan
    kind: OneOf["inner", "left", "semi", "anti"]
    on: tuple[tuple[Expr, Expr], ...]
    during: During | None = None


@dataclass(frozen=True, slots=True)
class Measure:
    """One aggregate: `item` is None only for COUNT of rows; `quantile` in 0..1 only for QUANTILE."""

    name: str
    agg: Agg
    item: Expr | None = None
    quantile: float | None = None


@dataclass(frozen=True, slots=True)
class Aggregate:
    """One row a distinct key combination (null is a key of its own); no keys: exactly one row."""

    input: Plan
    keys: tuple[Named, ...]
    measures: tuple[Measure, ...]


@dataclass(frozen=True, slots=True)
class SortKey:
    """Nulls come last in both directions. Never of type ANY."""

    item: Expr
    descending: bool = False


@dataclass(frozen=True, slots=True)
class Window:
    """The input plus one column computed over its partition. ROW_NUMBER starts at 1 and takes no item."""

    input: Plan
    name: str
    rank: Rank
    item: Expr | None
    partition: tuple[Expr, ...]
    order: tuple[SortKey, ...]


@dataclass(frozen=True, slots=True)
class Union:
    """All rows of all inputs, which have equal schemas."""

    inputs: tuple[Plan, ...]


@dataclass(frozen=True, slots=True)
class Sort:
    """The rows in order; among equals in any order. Filter, Project and Limit keep it, other nodes forget it."""

    input: Plan
    keys: tuple[SortKey, ...]


@dataclass(frozen=True, slots=True)
class Limit:
    input: Plan
    count: int


@dataclass(frozen=True, slots=True)
class MatchSteps:
    """How far each entity gets along an ordered sequence of steps, each strictly later event in order.

    An attempt begins at a row that is true for the first step and takes, step by step, the earliest
    following row that is true for the next one, within `window_ms` after its start. One row an entity
    that reached step 1: its key, `level` (steps reached, the best attempt), and `started`
    (time of the start of the best attempt, the earliest among equals).
    Rows are ordered by `time`, then `tie` (null last); of rows equal in both, neither follows the other.
    One row satisfies at most one step of an attempt. `window_ms` includes its end. Rows without entity or
    time take no part.
    """

    input: Plan
    entity: Expr
    time: Expr
    tie: Expr
    steps: tuple[Expr, ...]
    window_ms: int


@dataclass(frozen=True, slots=True)
class FillTime:
    """The input with at least one row for every bucket start from `from_ms` up to but without `to_ms`.

    Buckets without a row appear with nulls elsewhere; `time` is a TIMESTAMP column of bucket starts.
    Input rows at any other time, or none, are left out.
    """

    input: Plan
    time: str
    from_ms: int
    to_ms: int
    step_ms: int


Plan = Read | Values | Filter | Project | Join | Aggregate | Window | Union | Sort | Limit | MatchSteps | FillTime

_RANK_TYPE = {Rank.ROW_NUMBER: Type.INTEGER}


def measure_type(measure: Measure) -> Type:
    """The type of an aggregate's value."""
    match measure.agg:
        case Agg.COUNT | Agg.DISTINCT:
            return Type.INTEGER
        case Agg.AVG | Agg.QUANTILE:
            return Type.NUMBER
        case Agg.SUM | Agg.MIN | Agg.MAX:
            return type_of(measure.item) if measure.item is not None else Type.NUMBER
    assert_never(measure.agg)


def schema_of(plan: Plan) -> Schema:
    """The columns a plan gives, in order."""
    match plan:
        case Read(_, schema) | Values(schema, _):
            return schema
        case Filter(input) | Sort(input) | Limit(input) | FillTime(input):
            return schema_of(input)
        case Project(_, columns):
            return tuple(Column(name, type_of(expr)) for name, expr in columns)
        case Join(left, right, kind):
            return schema_of(left) if kind in ("semi", "anti") else schema_of(left) + schema_of(right)
        case Aggregate(_, keys, measures):
            named = tuple(Column(name, type_of(expr)) for name, expr in keys)
            return named + tuple(Column(m.name, measure_type(m)) for m in measures)
        case Window(input, name, rank, item):
            type = type_of(item) if item is not None else _RANK_TYPE[rank]
            return (*schema_of(input), Column(name, type))
        case Union(inputs):
            return schema_of(inputs[0])
        case MatchSteps(_, entity):
            return (
                Column("entity", type_of(entity)),
                Column("level", Type.INTEGER),
                Column("started", Type.TIMESTAMP),
            )
    assert_never(plan)


def inputs_of(plan: Plan) -> tuple[Plan, ...]:
    """The plans a node reads directly."""
    match plan:
        case Read() | Values():
            return ()
        case Join(left, right):
            return (left, right)
        case Union(inputs):
            return inputs
        case _:
            return (plan.input,)
