"""Owns how MatchSteps is computed, a relation a step, as nodes of sqlglot's tree; renders no other plan.

Relations: `m` holds the rows that matter, `c1` the attempts at their start, `x2` these with the place `k2` of the row
that takes step 2, null where the attempt ends, `c2` those that go on, and so forth: as they shrink, many steps cost
little more than a few. `a` is all attempts.
Columns: `key` is the place of a row, `s1`... say which steps it is true for, `u2`... whose attempts it ends, `v1`...
are the carried values. Times do not travel: a place without its last SHIFT bits is a time in microseconds.
"""

from __future__ import annotations

from datetime import datetime

from sqlglot import exp

from roster.model.schema import Type
from roster.query.dialect import identifiers
from roster.query.expr import Expr, Literal
from roster.query.plan import MatchSteps, schema_of
from roster.query.sql_expr import Scope, call, column, identifier, is_null, is_true, operand, render_expr

SHIFT = 6
NO_STEP = 2**SHIFT - 1
END = Literal(datetime(6000, 1, 1), Type.TIMESTAMP)


def marks(plan: MatchSteps, scope: Scope) -> tuple[list[str], list[exp.Expr], list[exp.Expr]]:
    """Names and nodes of the columns the computation needs, and the conditions for rows to take part.

    The conditions are spelled plainly beside the marks, so that an engine can look them up where rows are stored.
    """
    entity, time = render_expr(plan.entity, scope), render_expr(plan.time, scope)
    conditions = {name: render_expr(where, scope) for name, where in _conditions(plan).items()}
    named = {"entity": entity, "us": call(scope.dialect.to_us, time)}
    named |= {name: is_true(node) for name, node in conditions.items()}
    named |= {name: render_expr(value, scope) for name, (_, value) in _carried(plan).items()}
    known = exp.Not(this=is_null(entity.copy()))
    placed = exp.LT(this=operand(time.copy()), expression=render_expr(END, scope))
    matters = exp.or_(*(node.copy() for node in conditions.values()), copy=False)
    return list(named), list(named.values()), [known, placed, matters]


def attempts(plan: MatchSteps, marked: exp.Select, scope: Scope) -> exp.Select:
    """The answer, over the rows with their marks."""
    steps = range(1, len(plan.steps) + 1)
    relations: dict[str, exp.Query] = {"m": _rows(plan, marked), "c1": _starts(plan)}
    for k in steps[1:]:
        relations[f"x{k}"] = _advance(plan, k, scope)
        relations[f"c{k}"] = _select(exp.Star()).from_(_table(f"x{k}")).where(_has(k))
    relations["a"] = _ended(len(steps))
    query = _select(*_answer(plan, scope)).from_(_table("a"))
    for k in steps:
        if plan.steps[k - 1].carried:
            query.append("joins", _told(plan, k))
    for name, relation in relations.items():
        kept = len(steps) > 1 and (name in ("m", "c1") or name.startswith("x"))
        query = query.with_(identifier(name), relation, materialized=True if kept else None, copy=False)
    return query


def _conditions(plan: MatchSteps) -> dict[str, Expr]:
    """The name of each mark and what it says."""
    steps = {f"s{k}": step.where for k, step in enumerate(plan.steps, 1)}
    ends = {f"u{k}": step.unless for k, step in enumerate(plan.steps, 1)}
    return steps | {name: where for name, where in ends.items() if where is not None}


def _carried(plan: MatchSteps) -> dict[str, tuple[int, Expr]]:
    """The name of each carried column here, its step and value."""
    pairs = [(k, value) for k, step in enumerate(plan.steps, 1) for _, value in step.carried]
    return {f"v{n}": pair for n, pair in enumerate(pairs, 1)}


def _rows(plan: MatchSteps, marked: exp.Select) -> exp.Select:
    ranks = [exp.If(this=column(f"s{k + 1}"), true=_number(k)) for k in range(len(plan.steps))]
    first = exp.Case(ifs=ranks, default=_number(NO_STEP))
    place = exp.Add(this=exp.Mul(this=column("us"), expression=_number(2**SHIFT)), expression=first)
    conditions = list(map(column, _conditions(plan)))
    names = [column("entity"), _named(place, "key"), *conditions, *map(column, _carried(plan))]
    return _select(*names).from_(_as(marked, "r"))


def _starts(plan: MatchSteps) -> exp.Select:
    key = column("key")
    if plan.starts == "every":
        return _select(column("entity"), _named(key, "k1")).distinct().from_(_table("m")).where(column("s1"))
    earliest = _named(exp.Min(this=key), "k1")
    return _select(column("entity"), earliest).from_(_table("m")).where(column("s1")).group_by(_number(1))


def _advance(plan: MatchSteps, k: int, scope: Scope) -> exp.Select:
    """`xk`: the attempts that reached step k-1, with the place of the row that takes step k."""
    taken = column("key", "n")
    allowed: list[exp.Expr] = []
    if plan.window_ms is not None:
        waited = exp.Sub(this=operand(_time(taken)), expression=operand(_time(column("k1", "c"))))
        allowed.append(exp.LTE(this=waited, expression=scope.parameters.bind(plan.window_ms * 1000)))
    joins = [_next(plan, k, f"s{k}", "n")]
    if plan.steps[k - 1].unless is not None:
        joins.append(_next(plan, k, f"u{k}", "u"))
        allowed.append(exp.Not(this=is_true(exp.LT(this=column("key", "u"), expression=taken.copy()))))
    place = exp.Case(ifs=[exp.If(this=exp.and_(*allowed, copy=False), true=taken.copy())]) if allowed else taken
    all_before = exp.Column(this=exp.Star(), table=identifier("c"))
    query = _select(all_before, _named(place, f"k{k}")).from_(_table(f"c{k - 1}", "c"))
    for join in joins:
        query.append("joins", join)
    return query


def _next(plan: MatchSteps, k: int, mark: str, name: str) -> exp.Join:
    """The first row with the mark after the row of step k-1.

    One attempt an entity: a hash join reads each row once. Many: an ASOF join looks each attempt's row up.
    """
    entity, last = column("entity", "c"), column(f"k{k - 1}", "c")
    if plan.starts == "every":
        going_on = exp.In(this=column("entity"), query=_select(column("entity")).from_(_table(f"c{k - 1}")).subquery())
        later = _select(column("entity"), column("key")).from_(_table("m")).where(column(mark), going_on)
        on = exp.and_(
            _equal(entity, column("entity", name)), exp.LT(this=last, expression=column("key", name)), copy=False
        )
        return exp.Join(this=_as(later, name), method="ASOF", side="LEFT", on=on)
    on = exp.and_(_equal(entity, column("entity", "m")), exp.LT(this=last, expression=column("key", "m")))
    earliest = _named(exp.Min(this=column("key", "m")), "key")
    later = _select(entity, earliest).from_(_table(f"c{k - 1}", "c")).where(column(mark, "m")).group_by(_number(1))
    later.append("joins", exp.Join(this=_table("m"), kind="INNER", on=on))
    return exp.Join(this=_as(later, name), side="LEFT", on=_equal(entity.copy(), column("entity", name)))


def _ended(steps: int) -> exp.Query:
    """`a`: the attempts that end at each level, under one another."""

    def ended(level: int) -> exp.Select:
        reached = _named(_number(level), "level"), _named(column(f"k{level}"), "last")
        last = level == steps
        query = _select(exp.Star(), *reached).from_(_table(f"c{level}" if last else f"x{level + 1}"))
        return query if last else query.where(is_null(column(f"k{level + 1}")))

    joined: exp.Query = ended(1)
    for level in range(2, steps + 1):
        joined = exp.Union(this=joined, expression=ended(level), distinct=False, by_name=True)
    return joined


def _told(plan: MatchSteps, k: int) -> exp.Join:
    """The carried columns of step k, of one row a place."""
    names = [name for name, (step, _) in _carried(plan).items() if step == k]
    least = [_named(exp.Min(this=column(name)), name) for name in names]
    rows = _select(column("entity"), column("key"), *least).from_(_table("m")).where(column(f"s{k}"))
    table = f"g{k}"
    same = _equal(column("entity", "a"), column("entity", table)), _equal(column(f"k{k}", "a"), column("key", table))
    grouped = rows.group_by(_number(1), _number(2))
    return exp.Join(this=_as(grouped, table), side="LEFT", on=exp.and_(*same, copy=False))


def _answer(plan: MatchSteps, scope: Scope) -> list[exp.Expr]:
    times = [call(scope.dialect.from_us, _time(column(f"k{k}", "a"))) for k in range(1, len(plan.steps) + 1)]
    values = [column(name, f"g{k}") for name, (k, _) in _carried(plan).items()]
    nodes = [column("entity", "a"), column("level", "a"), column("last", "a"), *times, *values]
    names = identifiers([c.name for c in schema_of(plan)])
    return [_named(node, name) for node, name in zip(nodes, names, strict=True)]


def _time(place: exp.Expr) -> exp.Expr:
    return exp.BitwiseRightShift(this=place.copy(), expression=_number(SHIFT))


def _has(k: int) -> exp.Expr:
    return exp.Not(this=is_null(column(f"k{k}")))


def _equal(left: exp.Expr, right: exp.Expr) -> exp.Expr:
    return exp.EQ(this=left, expression=right)


def _select(*nodes: exp.Expr) -> exp.Select:
    return exp.Select(expressions=list(nodes))


def _named(node: exp.Expr, name: str) -> exp.Expr:
    same = isinstance(node, exp.Column) and node.name == name
    return node if same else exp.alias_(node, name, quoted=True, copy=False)


def _as(query: exp.Query, name: str) -> exp.Subquery:
    return exp.Subquery(this=query, alias=exp.TableAlias(this=identifier(name)))


def _table(name: str, alias: str | None = None) -> exp.Table:
    return exp.Table(this=identifier(name), alias=exp.TableAlias(this=identifier(alias)) if alias else None)


def _number(value: int) -> exp.Expr:
    return exp.Literal.number(value)
