"""The comparison with the oracle has teeth: each fault planted in the SQL changes the rows of some random world."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, fields, is_dataclass
from enum import Enum
from typing import Any, get_args

import duckdb
import pytest
import sqlglot
from hypothesis import HealthCheck, Phase, given, seed, settings
from sqlglot import exp, parse_one

from oracle import TooManyRows, evaluate, same_rows
from random_plans import cases, is_ordered, relations_of
from roster.model.schema import Column as SchemaColumn, Type
from roster.query.dialect import DUCKDB
from roster.query.expr import BIT_MAX, Cast, Column, Expr, Fn, Wild, type_of
from roster.query.plan import Agg, Aggregate, Measure, Plan, Rank, Values
from roster.query.sql import Rendered, render
from worlds import World, load

BATCH, BATCHES_MAX = 250, 40
pytestmark = pytest.mark.xdist_group("planted_faults")
FIXED = settings(
    max_examples=BATCH,
    database=None,
    deadline=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)


PLACE = Column("place", Type.INTEGER)
FAR_BITS = Aggregate(
    Values((SchemaColumn(PLACE.name, PLACE.type),), ((1,), (BIT_MAX + 5,))), (), (Measure("set", Agg.BITS, PLACE),)
)
"""Places beyond the last bit, which random numbers hit once in thousands of worlds."""


@dataclass(frozen=True)
class Sample:
    """One random case with its statement, as text and as a tree, and the rows it should give."""

    world: World
    plan: Plan
    rendered: Rendered
    tree: exp.Expr
    kinds: frozenset[str]
    rows: list[tuple[Any, ...]]


def sample_of(world: World, plan: Plan) -> Sample:
    rows = evaluate(plan, world.tables)
    rendered = render(plan, DUCKDB)
    tree = sqlglot.parse_one(rendered.sql, dialect="duckdb")
    return Sample(world, plan, rendered, tree, frozenset(map(kind_of, tree.walk())), rows)


class Samples:
    """Random cases, made as they are looked at: most faults are seen at once, and a rare one is looked for longer."""

    def __init__(self) -> None:
        self._batches: list[list[Sample]] = []

    def __iter__(self) -> Iterator[Sample]:
        yield sample_of(World({}, {}), FAR_BITS)
        for number in range(BATCHES_MAX):
            if number == len(self._batches):
                self._batches.append(collected(number))
            yield from self._batches[number]


def collected(number: int) -> list[Sample]:
    found: list[Sample] = []

    @seed(number)
    @FIXED
    @given(case=cases())
    def collect(case: tuple[World, Plan]) -> None:
        with suppress(TooManyRows):
            found.append(sample_of(*case))

    collect()
    return found


@pytest.fixture(scope="module")
def samples() -> Samples:
    return Samples()


@pytest.fixture(scope="module")
def connection() -> duckdb.DuckDBPyConnection:
    connection = duckdb.connect(config={"threads": 1})
    for statement in DUCKDB.setup:
        connection.execute(statement)
    return connection


Change = Callable[[exp.Expr], exp.Expr]
Fault = tuple[str, Change]
"""The kind of node that it changes, and how."""


def kind_of(node: exp.Expr) -> str:
    """The name of a function of ours, else of the node's class."""
    return node.name.lower() if isinstance(node, exp.Anonymous) else type(node).__name__


def swap(old: type[exp.Expr], new: type[exp.Expr]) -> Fault:
    return old.__name__, lambda node: new(**node.args)


def only(kind: type[exp.Expr], change: Change) -> Fault:
    return kind.__name__, change


def call_instead(old: str, new: str) -> Fault:
    """Another function, or with a type's name a plain TRY_CAST, in the place of one of ours."""

    def change(node: exp.Expr) -> exp.Expr:
        if new.isupper():
            return exp.TryCast(this=node.expressions[0], to=exp.DataType.build(new, dialect="duckdb"))
        return exp.Anonymous(this=new, expressions=node.expressions)

    return old, change


def put(**args: Any) -> Change:
    """The node with some of its parts replaced."""

    def change(node: exp.Expr) -> exp.Expr:
        for name, value in args.items():
            node.set(name, value)
        return node

    return change


def inner_part(node: exp.Expr) -> exp.Expr:
    part = node.this
    assert isinstance(part, exp.Expr)
    return part


def plain_not(node: exp.Expr) -> exp.Expr:
    if isinstance(node, exp.Not) and isinstance(node.this, exp.Is) and isinstance(node.this.expression, exp.Boolean):
        return exp.Not(this=node.this.this)
    return node


def plus_one(node: exp.Expr) -> exp.Expr:
    return exp.Limit(expression=exp.Add(this=node.expression, expression=exp.Literal.number(1)))


def not_distinct(node: exp.Expr) -> exp.Expr:
    if isinstance(node.this, exp.Distinct):
        return exp.Count(this=node.this.expressions[0])
    return node


def every_row(node: exp.Expr) -> exp.Expr:
    return node if isinstance(node.this, exp.Distinct) else put(this=exp.Star())(node)


def join_becomes(old: str, new: str) -> Change:
    def change(node: exp.Expr) -> exp.Expr:
        if old in (node.args.get("kind"), node.args.get("side")):
            node.set("side", "LEFT" if new == "LEFT" else None)
            node.set("kind", None if new == "LEFT" else new)
        return node

    return change


def without_on_null(node: exp.Expr) -> exp.Expr:
    """Null keys match each other."""
    on = node.args.get("on")
    return (
        node
        if on is None
        else put(on=on.transform(lambda n: exp.NullSafeEQ(**n.args) if isinstance(n, exp.EQ) else n))(node)
    )


def null_guard_lost(node: exp.Expr) -> exp.Expr:
    """Drops the IS NOT NULL guard of items inside an AnyOf."""
    if isinstance(node, exp.Not) and isinstance(node.this, exp.Is) and isinstance(node.this.expression, exp.Null):
        return exp.true()
    return node


def without_nulls(node: exp.Expr) -> exp.Expr:
    return parse_one(f"list_filter({node.sql(dialect='duckdb')}, LAMBDA text : text IS NOT NULL)", dialect="duckdb")


def first_text(node: exp.Expr) -> exp.Expr:
    return parse_one(f"roster_one_text({node.expressions[0].sql(dialect='duckdb')}[1])", dialect="duckdb")


def on_becomes(old: type[exp.Expr], new: type[exp.Expr]) -> Change:
    """Another comparison in the conditions of joins."""
    return lambda node: put(on=node.args["on"].transform(lambda n: new(**n.args) if type(n) is old else n))(node)


def found_last(alias: str) -> Change:
    """MAX in the place of MIN in a sub-select of MatchSteps that is joined under a name like this."""

    def change(node: exp.Expr) -> exp.Expr:
        if isinstance(node.this, exp.Subquery) and node.this.alias.rstrip("0123456789") == alias:
            return put(this=node.this.transform(lambda n: exp.Max(**n.args) if isinstance(n, exp.Min) else n))(node)
        return node

    return change


def of_any_row(node: exp.Expr) -> exp.Expr:
    if isinstance(node.this, exp.Subquery) and node.this.alias.startswith("g"):
        put(where=None)(node.this.this)
    return node


def inside(old: type[exp.Expr], change: Change) -> Change:
    """A change to the conditions under which an attempt of MatchSteps takes its next step."""

    def within(node: exp.Expr) -> exp.Expr:
        takes = isinstance(node.parent, exp.Alias) and node.parent.alias[:1] == "k" and node.find(exp.Column).table
        return node.transform(lambda n: change(n) if type(n) is old else n) if takes else node

    return within


def a_year_later(node: exp.Expr) -> exp.Expr:
    year_us = exp.Literal.number(366 * 86_400_000_000)
    return exp.LTE(this=node.this, expression=exp.Add(this=node.expression, expression=year_us))


def window_moves(node: exp.Expr) -> exp.Expr:
    if isinstance(node.parent, exp.Alias) and node.parent.alias[:1] == "k" and node.parent.alias[1:].isdigit():
        before = f"k{int(node.parent.alias[1:]) - 1}"
        return node.transform(
            lambda n: exp.column(before, "c", quoted=True) if isinstance(n, exp.Column) and n.name == "k1" else n
        )
    return node


ZERO = exp.Literal.number(0)


def is_rank(node: exp.Expr) -> bool:
    """Whether the node numbers the steps of one instant."""
    return str(node.args.get("default")) == "63"


def first_start(node: exp.Expr) -> exp.Expr:
    if not node.args["distinct"]:
        return node
    earliest = exp.alias_(exp.Min(this=exp.column("key", quoted=True)), "k1", quoted=True)
    return node.select("entity", earliest, append=False).group_by("1") if isinstance(node, exp.Select) else node


def last_start(node: exp.Expr) -> exp.Expr:
    return put(this=exp.Max(**node.this.args))(node) if node.alias == "k1" and isinstance(node.this, exp.Min) else node


def entity_guard_lost(node: exp.Expr) -> exp.Expr:
    if "us" in [column.alias for column in node.expressions]:
        put(where=exp.Where(this=exp.and_(*map(null_guard_lost, node.args["where"].this.flatten()))))(node)
    return node


def beyond_low(node: exp.Expr) -> exp.Expr:
    low, high = node.args["low"], node.args["high"]
    return exp.paren(exp.and_(exp.GT(this=node.this, expression=low), exp.LTE(this=node.this.copy(), expression=high)))


def cut_to_origin(node: exp.Expr) -> exp.Expr:
    time, ahead, width, buckets = node.expressions
    origin = exp.Sub(this=ahead, expression=exp.Mul(this=buckets, expression=width))
    return exp.Anonymous(this=node.name, expressions=[time, exp.paren(origin), width, ZERO.copy()])


def place_after_last(node: exp.Expr) -> exp.Expr:
    return put(expressions=[exp.Mod(this=exp.paren(node.expressions[0]), expression=exp.Literal.number(63))])(node)


def all_in_one_group(node: exp.Expr) -> exp.Expr:
    """Any of the groups' keys stands for all, or the engine would refuse them."""
    if node.args.get("group") is None:
        return node
    keys = len(node.args["group"].expressions)
    any_key = [
        exp.alias_(exp.AnyValue(this=n.unalias()), n.alias_or_name, quoted=True) for n in node.expressions[:keys]
    ]
    return put(group=None, expressions=[*any_key, *node.expressions[keys:]])(node)


FAULTS: dict[str, Fault] = {
    "<= as <": swap(exp.LTE, exp.LT),
    ">= as >": swap(exp.GTE, exp.GT),
    "< as <=": swap(exp.LT, exp.LTE),
    "= as null-safe =": swap(exp.EQ, exp.NullSafeEQ),
    "AND as OR": swap(exp.And, exp.Or),
    "NOT e instead of e IS NOT TRUE": only(exp.Not, plain_not),
    "nulls first": only(exp.Ordered, put(nulls_first=True)),
    "descending lost": only(exp.Ordered, put(desc=False)),
    "sort lost": only(exp.Select, put(order=None)),
    "limit one more": only(exp.Limit, plus_one),
    "where lost": only(exp.Select, put(where=None)),
    "group lost": only(exp.Select, all_in_one_group),
    "distinct lost": only(exp.Count, not_distinct),
    "count of an item counts rows": only(
        exp.Count, lambda n: n if isinstance(n.this, exp.Distinct) else put(this=exp.Star())(n)
    ),
    "min as max": swap(exp.Min, exp.Max),
    "sum as avg": swap(exp.Sum, exp.Avg),
    "quantile not interpolated": swap(exp.PercentileCont, exp.PercentileDisc),
    "bits of all in place of any": swap(exp.BitwiseOrAgg, exp.BitwiseAndAgg),
    "a bit's place without its sign": ("roster_bit", lambda n: put(expressions=[exp.Abs(this=n.expressions[0])])(n)),
    "places after the last bit begin anew": ("roster_bit", place_after_last),
    "any bit": swap(exp.BitwiseAnd, exp.BitwiseOr),
    "times before the origin rounded up": ("roster_bucket", cut_to_origin),
    "union removes duplicates": only(exp.Union, put(distinct=True)),
    "left join as inner": only(exp.Join, join_becomes("LEFT", "INNER")),
    "inner join as left": only(exp.Join, join_becomes("INNER", "LEFT")),
    "semi join as inner": only(exp.Join, join_becomes("SEMI", "INNER")),
    "anti join as semi": only(exp.Join, join_becomes("ANTI", "SEMI")),
    "semi join as anti": only(exp.Join, join_becomes("SEMI", "ANTI")),
    "null keys join": only(exp.Join, without_on_null),
    "fold ignored": only(exp.Lower, inner_part),
    "escape ignored": only(exp.Escape, inner_part),
    "prefix as substring": swap(exp.StartsWith, exp.Contains),
    "suffix as substring": swap(exp.EndsWith, exp.Contains),
    "blocks lose their first address": only(exp.Between, beyond_low),
    "is null inverted": only(exp.Is, lambda n: exp.Not(this=n)),
    "partition lost": only(exp.Window, put(partition_by=None)),
    "lag as lead": swap(exp.Lag, exp.Lead),
    "a step may follow at the same place": only(exp.Join, on_becomes(exp.LT, exp.LTE)),
    "a step need not be later": only(exp.Join, on_becomes(exp.LT, exp.NEQ)),
    "the latest next row": only(exp.Join, found_last("n")),
    "the latest row of unless": only(exp.Join, found_last("u")),
    "the largest carried value": only(exp.Join, found_last("g")),
    "carried values of rows beside the step": only(exp.Join, of_any_row),
    "end of the window excluded": only(exp.Case, inside(exp.LTE, lambda n: exp.LT(**n.args))),
    "window lost": only(exp.Case, inside(exp.LTE, a_year_later)),
    "window from the step before": only(exp.Case, window_moves),
    "unless ignored": only(exp.Case, inside(exp.Not, lambda _: exp.true())),
    "unless holds at the place of the step": only(exp.Case, inside(exp.LT, lambda n: exp.LTE(**n.args))),
    "rows of no step come first": only(exp.Case, lambda n: put(default=ZERO.copy())(n) if is_rank(n) else n),
    "rows of one instant in no order": only(exp.Case, lambda n: ZERO.copy() if is_rank(n) else n),
    "starts of one place count apart": only(exp.Select, lambda n: put(distinct=None)(n) if n.args["distinct"] else n),
    "only the first start of all": only(exp.Select, first_start),
    "the last start in place of the first": only(exp.Alias, last_start),
    "rows without entity take part": only(exp.Select, entity_guard_lost),
    "times before 1970 rounded up": only(
        exp.BitwiseRightShift, lambda n: exp.IntDiv(this=n.this, expression=exp.Literal.number(64))
    ),
    "arrays not opened": only(exp.Case, lambda n: n.args["default"] if n.find(exp.Lambda) else n),
    "nulls reached": only(exp.Not, null_guard_lost),
    "nullif lost": only(exp.Nullif, inner_part),
    "trim of spaces only": call_instead("roster_trim", "trim"),
    "text to number by the engine": call_instead("roster_text_number", "DOUBLE"),
    "text to integer by the engine": call_instead("roster_text_integer", "BIGINT"),
    "text to boolean by the engine": call_instead("roster_text_boolean", "BOOLEAN"),
    "text to time by the engine": call_instead("roster_text_timestamp", "TIMESTAMP"),
    "number to integer by rounding": call_instead("roster_number_integer", "BIGINT"),
    "number to text by the engine": call_instead("roster_number_text", "TEXT"),
    "time to text by the engine": call_instead("roster_timestamp_text", "TEXT"),
    "any to text by the engine": call_instead("roster_any_text", "TEXT"),
    "any to number by the engine": call_instead("roster_any_number", "DOUBLE"),
    "any to integer by the engine": call_instead("roster_any_integer", "BIGINT"),
    "any to boolean by the engine": call_instead("roster_any_boolean", "BOOLEAN"),
    "several texts as one": ("roster_each_text", lambda n: exp.Array(expressions=n.expressions)),
    "rows without a text left out": ("roster_each_text", without_nulls),
    "only the first text of an array": ("roster_many_texts", first_text),
    "addresses compared as text": call_instead("roster_address", "lower"),
}


def kinds_in(value: Any) -> set[str]:
    """Names of the classes in a plan, and how it casts."""
    if isinstance(value, tuple):
        return set().union(*map(kinds_in, value))
    if isinstance(value, Enum):
        return {str(value)}
    if not is_dataclass(value):
        return set()
    inner = set().union(*(kinds_in(getattr(value, field.name)) for field in fields(value)))
    casts = {f"{type_of(value.item)} as {value.type}"} if isinstance(value, Cast) else set()
    return inner | casts | {type(value).__name__}


def test_the_samples_hold_every_node_expression_and_cast(samples: Samples) -> None:
    wanted = {kind.__name__ for kind in (*get_args(Plan), *get_args(Expr))}
    wanted |= {str(value) for values in (Agg, Rank, Fn, Wild) for value in values}
    wanted |= {f"{source} as {type}" for source in Type for type in Type if source is not type}
    for sample in samples:
        wanted -= kinds_in(sample.plan)
        if not wanted:
            return
    assert wanted == set()


@pytest.mark.parametrize("name", FAULTS)
def test_fault_is_seen(name: str, samples: Samples, connection: duckdb.DuckDBPyConnection) -> None:
    kind, change = FAULTS[name]
    concerned = 0
    for sample in samples:
        if kind not in sample.kinds:
            continue
        concerned += 1
        tree = sample.tree.transform(lambda node: change(node) if kind_of(node) == kind else node)
        sql = tree.sql(dialect="duckdb", pretty=True)
        if sql != sample.rendered.sql and differs(sample, sql, connection):
            return
    pytest.fail(f"{name}: the same rows in all {concerned} worlds that it concerns")


def differs(sample: Sample, sql: str, connection: duckdb.DuckDBPyConnection) -> bool:
    """Whether the faulty statement runs and gives other rows."""
    load(connection, sample.world, relations_of(sample.plan))
    try:
        rows = connection.execute(sql, list(sample.rendered.parameters)).fetchall()
    except duckdb.Error:
        return False
    return not same_rows(sample.rows, rows, is_ordered(sample.plan))
