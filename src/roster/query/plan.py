"""Owns the closed set of plan nodes and the schema each gives. Decides nothing about engines."""

from __future__ import annotations

from collections.abc import Iterator
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
    BITS is a set of small numbers: of INTEGERs the one whose binary digits are 1 at these places. Items that are
    no place, below 0 or above BIT_MAX, are ignored too.
    """

    COUNT = "count"
    DISTINCT = "distinct"
    SUM = "sum"
    AVG = "avg"
    MIN = "min"
    MAX = "max"
    QUANTILE = "quantile"
    BITS = "bits"


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
class Spread:
    """The input, each row once for each text that `item` tells as Texts does, with that text beside.

    Where `item` is null the row is there once, the text null. `only`: no other texts than these; None stands for null.
    `place`: a column more, INTEGER, counts the texts of a row from 1 on.
    """

    input: Plan
    name: str
    item: Expr
    only: tuple[str | None, ...] | None = None
    place: str | None = None


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
class Step:
    """One step of a sequence: rows for which `where` is true; `carried` tells of the row that took it (never ANY).

    A row true for `unless`, strictly between the row of the step before and this one's, ends the attempt.
    The first step has no `unless`.
    """

    where: Expr
    carried: tuple[Named, ...] = ()
    unless: Expr | None = None


@dataclass(frozen=True, slots=True)
class MatchSteps:
    """How far each attempt of an entity gets along 1 to 50 ordered steps.

    The place of a row is 64 times the microseconds of its `time`, plus the index of the first step it is true
    for, or 63: so rows of one instant follow each other as the steps do. An attempt begins at each place of
    an entity with a row true for the first step (`starts` "first": at the smallest one only). Step by step it
    takes the smallest later place with a row true for the step, at most `window_ms` (end included) after its
    start, and ends where there is none or where `unless` forbids it; it looks no further.
    Gives one row an attempt: `entity`, `level` (steps reached), `last` (place of the last row taken), the
    times `t1`, `t2`, ... of the steps, then all carried columns, null for steps not reached. Of rows that share
    entity, place and step, each carried value is the smallest. Rows without entity or time, and those of the
    year 6000 and later, take no part.
    """

    input: Plan
    entity: Expr
    time: Expr
    steps: tuple[Step, ...]
    window_ms: int | None
    starts: OneOf["every", "first"]


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


Plan = (
    Read | Values | Filter | Project | Join | Spread | Aggregate | Window | Union | Sort | Limit | MatchSteps | FillTime
)

_RANK_TYPE = {Rank.ROW_NUMBER: Type.INTEGER}


def measure_type(measure: Measure) -> Type:
    """The type of an aggregate's value."""
    match measure.agg:
        case Agg.COUNT | Agg.DISTINCT | Agg.BITS:
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
        case Spread(input, name, _, _, place):
            counted = (Column(place, Type.INTEGER),) if place is not None else ()
            return (*schema_of(input), Column(name, Type.STRING), *counted)
        case Aggregate(_, keys, measures):
            named = tuple(Column(name, type_of(expr)) for name, expr in keys)
            return named + tuple(Column(m.name, measure_type(m)) for m in measures)
        case Window(input, name, rank, item):
            type = type_of(item) if item is not None else _RANK_TYPE[rank]
            return (*schema_of(input), Column(name, type))
        case Union(inputs):
            return schema_of(inputs[0])
        case MatchSteps(_, entity, _, steps):
            reached = (Column("level", Type.INTEGER), Column("last", Type.INTEGER))
            times = tuple(Column(f"t{k}", Type.TIMESTAMP) for k in range(1, len(steps) + 1))
            carried = tuple(Column(name, type_of(expr)) for step in steps for name, expr in step.carried)
            return (Column("entity", type_of(entity)), *reached, *times, *carried)
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


def parts_of(plan: Plan) -> Iterator[Plan]:
    """The plan and all that it reads, down to the stored relations."""
    yield plan
    for each in inputs_of(plan):
        yield from parts_of(each)


def exprs_of(step: Step) -> tuple[Expr, ...]:
    """All that a step reads of a row."""
    return (step.where, *(value for _, value in step.carried), *([step.unless] if step.unless is not None else []))
