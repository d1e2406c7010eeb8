"""Owns how MatchSteps is computed with running maxima, as nodes of sqlglot's tree; renders no other plan.

Names: `us` is the time in microseconds, `s1`... say which steps a row is true for, `p2`... is the latest start
of an attempt that took all steps before this one before the row. An attempt that began later reaches as far
within its window, so the latest start decides the level; the earliest start of that level is then the earliest
row of step 1 whose window still holds the first row that completes the level.
"""

from __future__ import annotations

from sqlglot import exp

from roster.query.dialect import Dialect
from roster.query.plan import MatchSteps
from roster.query.sql_expr import Scope, call, column, identifier, is_null, is_true, render_expr

Nodes = list[exp.Expr]


def marks(plan: MatchSteps, scope: Scope) -> tuple[list[str], Nodes, Nodes]:
    """Names and nodes of the columns the computation needs, and the conditions for rows to take part."""
    entity, time = render_expr(plan.entity, scope), render_expr(plan.time, scope)
    where: Nodes = [exp.Not(this=is_null(node.copy())) for node in (entity, time)]
    steps = [is_true(render_expr(step, scope)) for step in plan.steps]
    names = ["entity", "us", "tie", *(f"s{k + 1}" for k in range(len(steps)))]
    return names, [entity, call(scope.dialect.to_us, time), render_expr(plan.tie, scope), *steps], where


def progress(k: int, window_us: exp.Expr) -> exp.Expr:
    """`pk`: the latest start that reached step k-1 at a row before this one."""
    start = column("us") if k == 2 else column(f"p{k - 1}")
    carried = exp.Case(ifs=[exp.If(this=_reached(k - 1, window_us), true=start)])
    ordered = [exp.Ordered(this=column(name), desc=False, nulls_first=False) for name in ("us", "tie")]
    before = exp.WindowSpec(
        kind="GROUPS", start="UNBOUNDED", start_side="PRECEDING", end=exp.Literal.number(1), end_side="PRECEDING"
    )
    partition = [column("entity")]
    return exp.Window(
        this=exp.Max(this=carried), partition_by=partition, order=exp.Order(expressions=ordered), spec=before
    )


def first_starts(steps: int, window_us: exp.Expr) -> tuple[list[str], Nodes]:
    """Per entity: all starts, and `dk`, the time of the first row that completes step k."""
    starts = _only(exp.ArrayAgg(this=column("us")), column("s1"))
    done: Nodes = [_only(exp.Min(this=column("us")), _reached(k, window_us)) for k in range(1, steps + 1)]
    return ["entity", "starts", *(f"d{k}" for k in range(1, steps + 1))], [column("entity"), starts, *done]


def best_attempt(steps: int, window_us: exp.Expr, dialect: Dialect) -> tuple[list[str], Nodes, Nodes]:
    """The answer's columns, and the condition that the entity reached step 1."""
    downwards = range(steps, 0, -1)
    level = exp.Case(
        ifs=[exp.If(this=_is_done(k), true=exp.Literal.number(k)) for k in downwards[:-1]],
        default=exp.Literal.number(1),
    )
    done = exp.Coalesce(this=column(f"d{steps}"), expressions=[column(f"d{k}") for k in downwards[1:]])
    in_window = exp.GTE(this=column("start"), expression=exp.Sub(this=done, expression=window_us.copy()))
    starts = call("list_filter", column("starts"), exp.Lambda(this=in_window, expressions=[identifier("start")]))
    started = call(dialect.from_us, call("list_min", starts))
    level_node = level if steps > 1 else exp.Literal.number(1)
    return ["entity", "level", "started"], [column("entity"), level_node, started], [_is_done(1)]


def _reached(k: int, window_us: exp.Expr) -> exp.Expr:
    if k == 1:
        return column("s1")
    waited = exp.Sub(this=column("us"), expression=column(f"p{k}"))
    return exp.and_(column(f"s{k}"), exp.LTE(this=waited, expression=window_us.copy()))


def _is_done(k: int) -> exp.Expr:
    return exp.Not(this=is_null(column(f"d{k}")))


def _only(aggregate: exp.Expr, where: exp.Expr) -> exp.Expr:
    return exp.Filter(this=aggregate, expression=exp.Where(this=where))
