"""Owns the rewrites: pure functions plan → plan that keep every answer. Physical choices are the engine's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import assert_never

from roster.model.schema import KEY_ATTRIBUTE, Entity
from roster.query.expr import FALSE, TRUE, And, AnyOf, Cast, Column, Compare, Expr, Literal, Not, Or, columns_of
from roster.query.plan import (
    Aggregate,
    FillTime,
    Filter,
    Join,
    Limit,
    MatchSteps,
    Plan,
    Project,
    Rank,
    Read,
    Sort,
    Spread,
    Union,
    Values,
    Window,
    exprs_of,
    parts_of,
    schema_of,
)

Rewrite = Callable[[Plan], Plan]


def map_inputs(plan: Plan, rewrite: Rewrite) -> Plan:
    """The node with each of its inputs rewritten."""
    match plan:
        case Read() | Values():
            return plan
        case Join(left, right):
            return replace(plan, left=rewrite(left), right=rewrite(right))
        case Union(inputs):
            return Union(tuple(rewrite(i) for i in inputs))
        case _:
            return replace(plan, input=rewrite(plan.input))


def fold(expr: Expr) -> Expr:
    """The expression with constant parts of And, Or and Not worked out."""
    match expr:
        case And(items):
            kept = [i for i in map(fold, items) if i != TRUE]
            return FALSE if FALSE in kept else kept[0] if len(kept) == 1 else And(tuple(kept))
        case Or(items):
            kept = [i for i in map(fold, items) if i != FALSE]
            return TRUE if TRUE in kept else kept[0] if len(kept) == 1 else Or(tuple(kept))
        case Not(item):
            inner = fold(item)
            return FALSE if inner == TRUE else TRUE if inner == FALSE else Not(inner)
        case AnyOf(source, keys, where):
            return AnyOf(source, keys, fold(where))
        case Cast(Literal(None, _), type):
            return Literal(None, type)
        case _:
            return expr


def fold_filters(plan: Plan) -> Plan:
    """Constant conditions worked out; a filter that is always true is gone."""
    plan = map_inputs(plan, fold_filters)
    if not isinstance(plan, Filter):
        return plan
    condition = fold(plan.where)
    return plan.input if condition == TRUE else Filter(plan.input, condition)


def drop_empty(plan: Plan) -> Plan:
    """What can give no row because an input has none, left out."""
    plan = map_inputs(plan, drop_empty)
    match plan:
        case Join(left, right, "anti") if is_empty(right):
            return left
        case Join(left, right, kind) if is_empty(left) or (kind in ("inner", "semi") and is_empty(right)):
            return Values(schema_of(plan), ())
        case Union(inputs):
            kept = tuple(i for i in inputs if not is_empty(i)) or inputs[:1]
            return plan if schema_of(kept[0]) != schema_of(plan) else kept[0] if len(kept) == 1 else Union(kept)
        case Aggregate(input, keys) if keys and is_empty(input):
            return Values(schema_of(plan), ())
        case Filter() | Project() | Window() | Sort() | Limit() | MatchSteps() | Spread() if is_empty(plan.input):
            return Values(schema_of(plan), ())
        case _:
            return plan


def is_empty(plan: Plan) -> bool:
    """Whether the plan itself says that it has no rows."""
    return isinstance(plan, Values) and not plan.rows


def _nothing(_: Plan) -> bool:
    return False


def prune(plan: Plan, whole: Callable[[Plan], bool] = _nothing) -> Plan:
    """Columns nobody reads, and left joins that only added such columns, left out; what is `whole` stays as it is."""
    return _keep(plan, frozenset(c.name for c in schema_of(plan)), whole)


def _keep(plan: Plan, needed: frozenset[str], whole: Callable[[Plan], bool]) -> Plan:
    """The plan giving at least the needed columns."""
    if whole(plan):
        return plan
    match plan:
        case Read(relation, schema):
            kept = tuple(c for c in schema if c.name in needed)
            return Read(relation, kept or schema[:1])
        case Values() | Union() | FillTime():
            return map_inputs(plan, lambda input: prune(input, whole))
        case Filter(input, where):
            return Filter(_keep(input, needed | columns_of(where), whole), where)
        case Project(input, columns):
            named = tuple(c for c in columns if c[0] in needed) or columns[:1]
            return Project(_keep(input, _reads(*(e for _, e in named)), whole), named)
        case Join():
            return _keep_join(plan, needed, whole)
        case Spread(input, name, item, _, place):
            counted = place if place in needed else None
            return replace(plan, input=_keep(input, (needed - {name, place}) | columns_of(item), whole), place=counted)
        case Aggregate(input, keys, measures):
            reads = _reads(*(e for _, e in keys), *(m.item for m in measures if m.item is not None))
            return Aggregate(_keep(input, reads, whole), keys, measures)
        case Window(input, name, _, item, partition, order):
            reads = _reads(*partition, *(k.item for k in order), *([item] if item is not None else []))
            return replace(plan, input=_keep(input, (needed - {name}) | reads, whole))
        case Sort(input, keys):
            return Sort(_keep(input, needed | _reads(*(k.item for k in keys)), whole), keys)
        case Limit(input, count):
            return Limit(_keep(input, needed, whole), count)
        case MatchSteps(input, entity, time, steps):
            told = tuple(replace(s, carried=tuple(c for c in s.carried if c[0] in needed)) for s in steps)
            reads = _reads(entity, time, *(e for step in told for e in exprs_of(step)))
            return replace(plan, input=_keep(input, reads, whole), steps=told)
    assert_never(plan)


def _reads(*exprs: Expr) -> frozenset[str]:
    return frozenset[str]().union(*(columns_of(e) for e in exprs))


def _keep_join(join: Join, needed: frozenset[str], whole: Callable[[Plan], bool]) -> Plan:
    left_names = {c.name for c in schema_of(join.left)}
    if join.kind == "left" and needed <= left_names and unique_on(join.right, tuple(r for _, r in join.on)):
        return _keep(join.left, needed, whole)
    ours, theirs = [a for a, _ in join.on], [b for _, b in join.on]
    if join.during is not None:
        ours, theirs = [*ours, join.during.time], [*theirs, join.during.since, join.during.until]
    left = _keep(join.left, (needed & left_names) | _reads(*ours), whole)
    right_needed = frozenset[str]() if join.kind in ("semi", "anti") else needed - left_names
    return replace(join, left=left, right=_keep(join.right, right_needed | _reads(*theirs), whole))


def unique_on(plan: Plan, key: tuple[Expr, ...]) -> bool:
    """Whether no two rows of the plan agree on all of `key`: told from its shape, so False may be over-careful."""
    match plan:
        case Filter(Window(_, name, Rank.ROW_NUMBER, _, partition), Compare("=", Column(ranked, _), Literal(1, _))):
            return ranked == name and set(partition) <= set(key)
        case Filter(input) | Sort(input) | Limit(input):
            return unique_on(input, key)
        case Project(input, columns):
            origin = dict(columns)
            return unique_on(input, tuple(origin.get(k.name, k) if isinstance(k, Column) else k for k in key))
        case Aggregate(_, keys):
            return {name for name, _ in keys} <= {k.name for k in key if isinstance(k, Column)}
        case Join(left, _, "semi" | "anti"):
            return unique_on(left, key)
        case Join(left, right, "left", on):
            return unique_on(right, tuple(r for _, r in on)) and unique_on(left, key)
        case Read(relation, _):
            profiles = relation.partition("_enriched_")[0]  # the engine's ready-made joins have one row a profile too
            return any(profiles == e.value and _names(KEY_ATTRIBUTE[e], key) for e in Entity)
        case _:
            return False


def _names(name: str, key: tuple[Expr, ...]) -> bool:
    return any(isinstance(k, Column) and k.name == name for k in key)


REWRITES: tuple[Rewrite, ...] = (fold_filters, prune)
"""Applied in this order, after the engine's own."""


def rewrite_all(plan: Plan, rewrites: tuple[Rewrite, ...] = REWRITES) -> Plan:
    """The plan after every rewrite."""
    for rewrite in rewrites:
        plan = rewrite(plan)
    return plan


def relations_of(plan: Plan) -> frozenset[str]:
    """Names of the stored relations a plan reads."""
    return frozenset(part.relation for part in parts_of(plan) if isinstance(part, Read))
