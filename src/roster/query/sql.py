"""Owns plans -> SQL: one SELECT where nodes allow it, sub-selects elsewhere. Renders, never decides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import assert_never

from sqlglot import exp

from roster.model.schema import Schema, Type
from roster.query.dialect import Dialect, identifiers, table_name
from roster.query.expr import Column, Expr, Literal, Scalar, columns_of
from roster.query.plan import (
    Agg,
    Aggregate,
    During,
    FillTime,
    Filter,
    Join,
    Limit,
    MatchSteps,
    Measure,
    Named,
    Plan,
    Project,
    Rank,
    Read,
    Sort,
    SortKey,
    Spread,
    Union,
    Values,
    Window,
    schema_of,
)
from roster.query.repeats import repeated_aggregates
from roster.query.sql_expr import Known, Parameters, Scope, call, cast, column, identifier, operand, render_expr
from roster.query.sql_steps import attempts, marks


@dataclass(frozen=True, slots=True)
class Rendered:
    """One statement and the values of its `$1`, `$2`, ... in order."""

    sql: str
    parameters: tuple[Scalar, ...]


def render(plan: Plan, dialect: Dialect, arrays: Known = lambda: None) -> Rendered:
    """The statement that gives the rows of `plan`, its columns in the order of the plan's schema.

    `arrays`: where arrays are, as far as it is known; they may be anywhere else.
    """
    rendering = _Rendering(dialect, repeated_aggregates(plan), arrays)
    select = _close(rendering.open(plan))
    for name, query in rendering.named.values():
        select = select.with_(identifier(name), query, materialized=True, copy=False)
    return Rendered(dialect.text(select), tuple(rendering.parameters.values))


@dataclass(frozen=True, slots=True)
class _Block:
    """A SELECT in the making: clauses are added while their order allows it.

    `columns` are what expressions may name now, in order. While `output` is None they are the answer
    too, and `*` spells them when `exact`. `alias` is the only source's, until a join adds another.
    """

    source: exp.Expr
    alias: str | None
    columns: Mapping[str, exp.Expr]
    exact: bool
    joins: tuple[exp.Expr, ...] = ()
    where: tuple[exp.Expr, ...] = ()
    output: tuple[exp.Expr, ...] | None = None
    groups: int = 0
    order: tuple[exp.Expr, ...] = ()
    limit: exp.Expr | None = None

    @property
    def is_plain(self) -> bool:
        """No clause but FROM and JOIN yet."""
        return self.is_open and not self.where

    @property
    def is_open(self) -> bool:
        """A condition, a select list or a grouping can still be added."""
        return self.output is None and not self.order and self.limit is None


def _named(names: Sequence[str], nodes: Sequence[exp.Expr]) -> tuple[exp.Expr, ...]:
    pairs = zip(nodes, identifiers(names), strict=True)
    return tuple(
        node if _is_column(node, name) else exp.alias_(node, name, quoted=True, copy=False) for node, name in pairs
    )


def _is_column(node: exp.Expr, name: str) -> bool:
    return isinstance(node, exp.Column) and node.name == name


def _columns(names: Sequence[str], table: str | None = None) -> dict[str, exp.Expr]:
    return {name: column(spelled, table) for name, spelled in zip(names, identifiers(names), strict=True)}


def _of(block: _Block) -> dict[str, exp.Expr]:
    """The columns of a block with one source, each with the source's name before it."""
    return {name: column(node.name, block.alias) for name, node in block.columns.items()}


def _list(block: _Block) -> tuple[exp.Expr, ...]:
    if block.output is not None:
        return block.output
    if block.exact:
        return (exp.Star(),)
    return _named(list(block.columns), list(block.columns.values()))


def _close(block: _Block) -> exp.Select:
    select = exp.Select(expressions=list(_list(block))).from_(block.source, copy=False)
    for join in block.joins:
        select.append("joins", join)
    if block.where:
        select = select.where(*block.where, copy=False)
    if block.groups:
        select = select.group_by(*(exp.Literal.number(n + 1) for n in range(block.groups)), copy=False)
    if block.order:
        select = select.order_by(*block.order, copy=False)
    return select if block.limit is None else select.limit(block.limit, copy=False)


class _Rendering:
    """The parameters and table names given out while one plan is rendered, and the queries given a name."""

    def __init__(self, dialect: Dialect, repeated: tuple[Aggregate, ...], arrays: Known) -> None:
        self.dialect = dialect
        self._arrays = arrays
        self.parameters = Parameters()
        self.named: dict[int, tuple[str, exp.Select]] = {}
        self._repeated = repeated
        self._aliases = 0

    def open(self, plan: Plan) -> _Block:
        match plan:
            case Read(relation, schema):
                table = table_name(relation)
                columns: dict[str, exp.Expr] = {c.name: column(c.name) for c in schema}
                return _Block(exp.Table(this=identifier(table)), table, columns, exact=False)
            case Values(schema, rows):
                return self._values(schema, rows)
            case Filter(input, where):
                block = self._reach(input)
                return replace(block, where=(*block.where, self._expr(where, block)))
            case Project(input, columns_):
                return self._project(input, columns_)
            case Join():
                return self._join(plan)
            case Spread():
                return self._spread(plan)
            case Aggregate(input, keys, measures):
                return self._named(plan) if plan in self._repeated else self._aggregate(input, keys, measures)
            case Window():
                return self._window(plan)
            case Union(inputs):
                return self._union(inputs)
            case Sort(input, keys_):
                return self._sort(input, keys_)
            case Limit(input, count):
                block = self.open(input)
                block = block if block.limit is None else self._wrap(block)
                return replace(block, limit=self.parameters.bind(count))
            case MatchSteps():
                return self._match_steps(plan)
            case FillTime():
                return self._fill_time(plan)
        assert_never(plan)

    def _alias(self) -> str:
        self._aliases += 1
        return f"t{self._aliases}"

    def _scope(self, columns: Mapping[str, exp.Expr]) -> Scope:
        return Scope(self.dialect, self.parameters, columns, self._arrays)

    def _expr(self, expr: Expr, block: _Block) -> exp.Expr:
        return render_expr(expr, self._scope(block.columns))

    def _type(self, type: Type) -> str:
        return self.dialect.types[type]

    def _from(self, query: exp.Query, names: Sequence[str]) -> _Block:
        """A block whose source is a sub-select of exactly these columns."""
        alias = self._alias()
        source = exp.Subquery(this=query, alias=exp.TableAlias(this=identifier(alias)))
        return _Block(source, alias, _columns(names), exact=True)

    def _wrap(self, block: _Block) -> _Block:
        return self._from(_close(block), list(block.columns))

    def _reach(self, input: Plan) -> _Block:
        """The input's block, wrapped unless conditions and a select list can be added to it."""
        block = self.open(input)
        return block if block.is_open else self._wrap(block)

    def _values(self, schema: Schema, rows: tuple[tuple[Scalar, ...], ...]) -> _Block:
        names = [c.name for c in schema]
        if not rows:
            nulls = _named(names, [cast(exp.null(), self._type(c.type)) for c in schema])
            return self._from(exp.Select(expressions=list(nulls)).where(exp.false()), names)
        scope = self._scope({})
        tuples = [
            exp.Tuple(expressions=[render_expr(Literal(v, c.type), scope) for v, c in zip(row, schema, strict=True)])
            for row in rows
        ]
        alias = self._alias()
        spelled = exp.TableAlias(this=identifier(alias), columns=[identifier(n) for n in identifiers(names)])
        return _Block(exp.Values(expressions=tuples, alias=spelled), alias, _columns(names), exact=True)

    def _project(self, input: Plan, columns: tuple[Named, ...]) -> _Block:
        block = self.open(input)
        names = [name for name, _ in columns]
        if block.output is not None or not _keeps_order(block, columns):
            block = self._wrap(block)
        output = _named(names, [self._expr(expr, block) for _, expr in columns])
        return replace(block, columns=_columns(names), output=output)

    def _aggregate(self, input: Plan, keys: tuple[Named, ...], measures: tuple[Measure, ...]) -> _Block:
        block = self._reach(input)
        names = [*(name for name, _ in keys), *(m.name for m in measures)]
        nodes = [*(self._expr(e, block) for _, e in keys), *(self._measure(m, block) for m in measures)]
        return replace(block, columns=_columns(names), output=_named(names, nodes), groups=len(keys))

    def _named(self, plan: Aggregate) -> _Block:
        """An aggregate that occurs more than once: one query with a name, read wherever it occurs."""
        place = self._repeated.index(plan)
        if place not in self.named:
            query = _close(self._aggregate(plan.input, plan.keys, plan.measures))
            self.named[place] = (f"q{place + 1}", query)
        name, _ = self.named[place]
        return _Block(exp.Table(this=identifier(name)), name, _columns([c.name for c in schema_of(plan)]), exact=False)

    def _measure(self, measure: Measure, block: _Block) -> exp.Expr:
        item = exp.Star() if measure.item is None else self._expr(measure.item, block)
        match measure.agg:
            case Agg.COUNT:
                return exp.Count(this=item)
            case Agg.DISTINCT:
                return exp.Count(this=exp.Distinct(expressions=[item]))
            case Agg.SUM:
                return exp.Sum(this=item)
            case Agg.AVG:
                return exp.Avg(this=item)
            case Agg.MIN:
                return exp.Min(this=item)
            case Agg.MAX:
                return exp.Max(this=item)
            case Agg.QUANTILE:
                return call(self.dialect.quantile, item, self.parameters.bind(measure.quantile))
            case Agg.BITS:
                return exp.BitwiseOrAgg(this=call(self.dialect.bit, item))
        assert_never(measure.agg)

    def _order(self, keys: tuple[SortKey, ...], block: _Block) -> list[exp.Expr]:
        """Constant keys are left out: they order nothing, and DuckDB refuses them."""
        items = [(self._expr(key.item, block), key.descending) for key in keys if columns_of(key.item)]
        return [
            exp.Ordered(this=node, desc=descending, nulls_first=False)
            for node, descending in items
            if not isinstance(node, exp.Boolean)
        ]

    def _sort(self, input: Plan, keys: tuple[SortKey, ...]) -> _Block:
        block = self.open(input)
        renamed = block.output is not None and not all(isinstance(key.item, Column) for key in keys)
        if block.order or block.limit is not None or renamed:
            block = self._wrap(block)
        return replace(block, order=tuple(self._order(keys, block)))

    def _spread(self, plan: Spread) -> _Block:
        block = self._reach(plan.input)
        texts = call(self.dialect.each_text, self._expr(plan.item, block))
        if plan.only is not None:
            among = exp.Array(expressions=[self.parameters.bind(text) for text in plan.only if text is not None])
            texts = call(self.dialect.texts_among, texts, among, exp.Boolean(this=None in plan.only))
        added = {plan.name: call("unnest", texts)}
        if plan.place is not None:
            added[plan.place] = call("generate_subscripts", texts.copy(), exp.Literal.number(1))
        return self._beside(block, added)

    def _beside(self, block: _Block, added: Mapping[str, exp.Expr]) -> _Block:
        """The block with some columns more."""
        names = [*block.columns, *added]
        spelled = identifiers(names)[len(block.columns) :]
        nodes = [exp.alias_(node, name, quoted=True) for name, node in zip(spelled, added.values(), strict=True)]
        return replace(block, columns=_columns(names), output=(*_list(block), *nodes))

    def _window(self, plan: Window) -> _Block:
        block = self._reach(plan.input)
        item = None if plan.item is None else self._expr(plan.item, block)
        match plan.rank:
            case Rank.ROW_NUMBER:
                function: exp.Expr = exp.RowNumber()
            case Rank.LAG:
                function = exp.Lag(this=item)
            case Rank.LEAD:
                function = exp.Lead(this=item)
            case _:
                assert_never(plan.rank)
        order = self._order(plan.order, block)
        node = exp.Window(
            this=function,
            partition_by=[self._expr(p, block) for p in plan.partition],
            order=exp.Order(expressions=order) if order else None,
        )
        return self._beside(block, {plan.name: node})

    def _union(self, inputs: tuple[Plan, ...]) -> _Block:
        blocks = [self.open(input) for input in inputs]
        queries = [_close(self._wrap(b) if b.order or b.limit is not None else b) for b in blocks]
        joined: exp.Query = queries[0]
        for query in queries[1:]:
            joined = exp.Union(this=joined, expression=query, distinct=False)
        return self._from(joined, list(blocks[0].columns))

    def _join(self, plan: Join) -> _Block:
        left = self.open(plan.left)
        left = left if left.is_plain else self._wrap(left)
        if left.alias is not None:
            left = replace(left, columns=_of(left), alias=None)
        right = self._named_apart(self.open(plan.right))
        joined = _of(right)
        ours, theirs = self._scope(left.columns), self._scope(joined)
        on: list[exp.Expr] = [
            exp.EQ(this=operand(render_expr(a, ours)), expression=operand(render_expr(b, theirs))) for a, b in plan.on
        ]
        on += _during(plan.during, ours, theirs)
        kind = {"side": "LEFT"} if plan.kind == "left" else {"kind": plan.kind.upper()}
        join = exp.Join(this=right.source, on=exp.and_(*on, copy=False) if on else exp.true(), **kind)
        columns = {**left.columns, **joined} if plan.kind in ("inner", "left") else left.columns
        return replace(left, columns=columns, joins=(*left.joins, join), exact=False)

    def _named_apart(self, block: _Block) -> _Block:
        """The block as one source with an alias of its own."""
        if not block.is_plain or block.joins:
            return self._wrap(block)
        if not isinstance(block.source, exp.Table):
            return block
        alias = self._alias()
        source = exp.Table(this=block.source.this, alias=exp.TableAlias(this=identifier(alias)))
        return replace(block, source=source, alias=alias)

    def _match_steps(self, plan: MatchSteps) -> _Block:
        block = self._reach(plan.input)
        scope = self._scope(block.columns)
        names, nodes, where = marks(plan, scope)
        marked = replace(block, where=(*block.where, *where), output=_named(names, nodes))
        return self._from(attempts(plan, _close(marked), scope), [c.name for c in schema_of(plan)])

    def _fill_time(self, plan: FillTime) -> _Block:
        bind = self.parameters.bind
        bounds = [bind(plan.from_ms), bind(plan.to_ms), bind(plan.step_ms)]
        numbers = exp.Table(
            this=call("range", *bounds), alias=exp.TableAlias(this=identifier("n"), columns=[identifier("ms")])
        )
        start = exp.alias_(call(self.dialect.from_ms, column("ms")), "start", quoted=True)
        starts = self._from(exp.Select(expressions=[start]).from_(numbers), ["start"])
        rows = self._named_apart(self.open(plan.input))
        columns = _of(rows)
        bucket = column("start", starts.alias)
        join = exp.Join(this=rows.source, side="LEFT", on=exp.EQ(this=columns[plan.time], expression=bucket))
        filled = {**columns, plan.time: bucket.copy()}
        return replace(starts, alias=None, columns=filled, exact=False, joins=(join,))


def _during(during: During | None, ours: Scope, theirs: Scope) -> list[exp.Expr]:
    if during is None:
        return []
    time = operand(render_expr(during.time, ours))
    since, until = (operand(render_expr(end, theirs)) for end in (during.since, during.until))
    return [exp.LTE(this=since, expression=time), exp.LT(this=time.copy(), expression=until)]


def _keeps_order(block: _Block, columns: tuple[Named, ...]) -> bool:
    """Whether a select list beside the block's ORDER BY leaves its names alone: there an alias wins over a column."""
    ordered = {node.name.lower() for key in block.order for node in key.find_all(exp.Column)}
    return not any(name.lower() in ordered and not _is_same(name, expr) for name, expr in columns)


def _is_same(name: str, expr: Expr) -> bool:
    return isinstance(expr, Column) and expr.name == name
