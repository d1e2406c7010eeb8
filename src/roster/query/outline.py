"""Owns the readable form of plans: one line a node, inputs indented below. For people only."""

from __future__ import annotations

from typing import assert_never

from roster.query.expr import (
    And,
    AnyOf,
    Bucket,
    Call,
    Cast,
    Column,
    Compare,
    Expr,
    Get,
    HasBit,
    If,
    In,
    InBlocks,
    IsNull,
    Item,
    Like,
    Literal,
    Matches,
    Not,
    Or,
    Texts,
    Wild,
)
from roster.query.plan import (
    Aggregate,
    FillTime,
    Filter,
    Join,
    Limit,
    MatchSteps,
    Plan,
    Project,
    Read,
    Sort,
    Spread,
    Step,
    Union,
    Values,
    Window,
    inputs_of,
)

COLUMNS_SHOWN = 8


def outline(plan: Plan, depth: int = 0) -> str:
    """The plan as an indented tree, the last step first."""
    line = "  " * depth + _line(plan)
    return "\n".join([line, *(outline(i, depth + 1) for i in inputs_of(plan))])


def _line(plan: Plan) -> str:
    match plan:
        case Read(relation, schema):
            return f"Read {relation} [{_names([c.name for c in schema])}]"
        case Values(schema, rows):
            return f"Values {len(rows)} rows [{_names([c.name for c in schema])}]"
        case Filter(_, where):
            return f"Filter {describe(where)}"
        case Project(_, columns):
            return f"Project [{_names([name for name, _ in columns])}]"
        case Join(_, _, kind, on, during):
            met = [f"{describe(left)} = {describe(right)}" for left, right in on]
            if during is not None:
                met.append(f"{describe(during.since)} <= {describe(during.time)} < {describe(during.until)}")
            return f"Join {kind} on " + " and ".join(met)
        case Spread(_, name, item, only):
            among = "" if only is None else f" among {', '.join(map(repr, only))}"
            return f"Spread {name} = each of {describe(item)}{among}"
        case Aggregate(_, keys, measures):
            wanted = [f"{m.agg}({describe(m.item) if m.item is not None else '*'})" for m in measures]
            return f"Aggregate [{_names(wanted)}] by [{_names([name for name, _ in keys])}]"
        case Window(_, name, rank, _, partition, order):
            ordered = ", ".join(_order(describe(k.item), k.descending) for k in order)
            return f"Window {name} = {rank} over ({', '.join(map(describe, partition))}) order ({ordered})"
        case Union(inputs):
            return f"Union of {len(inputs)}"
        case Sort(_, keys):
            return "Sort " + ", ".join(_order(describe(k.item), k.descending) for k in keys)
        case Limit(_, count):
            return f"Limit {count}"
        case MatchSteps(_, entity, _, steps, window_ms, starts):
            window = "" if window_ms is None else f" within {window_ms} ms"
            return f"MatchSteps per {describe(entity)} from {starts} start{window}: {' -> '.join(map(_step, steps))}"
        case FillTime(_, time, from_ms, to_ms, step_ms):
            return f"FillTime {time} every {step_ms} ms from {from_ms} to {to_ms}"
    assert_never(plan)


def _step(step: Step) -> str:
    unless = "" if step.unless is None else f" unless {describe(step.unless)}"
    carried = f" [{_names([name for name, _ in step.carried])}]" if step.carried else ""
    return describe(step.where) + unless + carried


def _order(item: str, descending: bool) -> str:
    return f"{item} desc" if descending else item


def _names(names: list[str]) -> str:
    more = len(names) - COLUMNS_SHOWN
    return ", ".join(names[:COLUMNS_SHOWN]) + (f", {more} more" if more > 0 else "")


def describe(expr: Expr) -> str:
    """One line for an expression."""
    match expr:
        case Column(name, _):
            return name
        case Literal(value, _):
            return repr(value)
        case Get(source, key):
            return f"{describe(source)}.{key}"
        case Item():
            return "item"
        case AnyOf(source, keys, where):
            return f"any {'.'.join([describe(source), *keys])} with ({describe(where)})"
        case Texts(source, keys):
            return f"texts of {'.'.join([describe(source), *keys])}"
        case Not(item):
            return f"not ({describe(item)})"
        case And(items):
            return " and ".join(f"({describe(i)})" for i in items) or "true"
        case Or(items):
            return " or ".join(f"({describe(i)})" for i in items) or "false"
        case Compare(op, left, right):
            return f"{describe(left)} {op} {describe(right)}"
        case In(item, options):
            return f"{describe(item)} in ({', '.join(map(describe, options))})"
        case Like(item, pieces, fold):
            pattern = "".join(p.value if isinstance(p, Wild) else p for p in pieces)
            return f"{describe(item)} like {pattern!r}{' in any case' if fold else ''}"
        case Matches(item, pattern):
            return f"{describe(item)} matches {pattern!r}"
        case InBlocks(item, blocks):
            return f"{describe(item)} in {', '.join(blocks)}"
        case IsNull(item):
            return f"{describe(item)} is missing"
        case Cast(item, type):
            return f"{describe(item)} as {type}"
        case Call(fn, args):
            return f"{fn}({', '.join(map(describe, args))})"
        case If(where, then, other):
            return f"{describe(then)} if ({describe(where)}) else {describe(other)}"
        case Bucket(item, origin_ms, width_ms):
            return f"bucket({describe(item)}, from {origin_ms} by {width_ms} ms)"
        case HasBit(item, place):
            return f"{describe(item)} has bit {place}"
    assert_never(expr)
