"""Owns expressions -> nodes of sqlglot's tree, values as numbered parameters; knows nothing of plans."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial, reduce
from ipaddress import IPv4Network, ip_network
from typing import assert_never

from sqlglot import exp
from sqlglot.dialects.duckdb import DuckDB

from roster.base.time import epoch_ms
from roster.model.schema import Type
from roster.query.dialect import Dialect, Step
from roster.query.expr import (
    And,
    AnyOf,
    Bucket,
    Call,
    Cast,
    Column,
    Compare,
    Expr,
    Fn,
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
    Pieces,
    Scalar,
    Texts,
    Wild,
    type_of,
)

_COMPARE: dict[str, type[exp.Binary]] = {"=": exp.EQ, "<": exp.LT, "<=": exp.LTE, ">": exp.GT, ">=": exp.GTE}
_LONG = range(-(2**63), 2**63)
_TIME_US_MIN = epoch_ms(datetime(1, 1, 1)) * 1000


class Parameters:
    """The values bound so far; equal values share a number."""

    def __init__(self) -> None:
        self.values: list[Scalar] = []
        self._numbers: dict[tuple[type, str], int] = {}

    def bind(self, value: Scalar) -> exp.Expr:
        """The node that stands for the value: `$1`, `$2`, ..."""
        key = (type(value), repr(value))
        if key not in self._numbers:
            self.values.append(value)
            self._numbers[key] = len(self.values)
        return exp.Parameter(this=exp.Literal.number(self._numbers[key]))


@dataclass(frozen=True, slots=True)
class Arrays:
    """What is known of columns of this name: where else than inside an array none is but at these paths."""

    column: str
    paths: frozenset[tuple[str, ...]]


Known = Callable[[], Arrays | None]
"""Asked for when it matters."""


@dataclass(frozen=True, slots=True)
class Scope:
    """What an expression may name: the columns at hand and, inside an AnyOf, the item at hand."""

    dialect: Dialect
    parameters: Parameters
    columns: Mapping[str, exp.Expr]
    arrays: Known = lambda: None
    item: exp.Expr | None = None
    depth: int = field(default=0)


def identifier(name: str) -> exp.Identifier:
    return exp.to_identifier(name, quoted=True)


def column(name: str, table: str | None = None) -> exp.Column:
    made = exp.Column(this=identifier(name), table=identifier(table) if table else None)
    for part in made.args.values():  # as in `Dialect.text`: many columns never get into a statement
        if part is not None:
            part.parent = None
    return made


def call(name: str, *args: exp.Expr) -> exp.Expr:
    return exp.Anonymous(this=name, expressions=list(args))


def cast(node: exp.Expr, type: str) -> exp.Expr:
    return exp.Cast(this=node, to=exp.DataType.build(type, dialect=DuckDB))


def is_true(node: exp.Expr) -> exp.Expr:
    return exp.Is(this=operand(node), expression=exp.true())


def is_null(node: exp.Expr) -> exp.Expr:
    return exp.Is(this=operand(node), expression=exp.null())


def operand(node: exp.Expr) -> exp.Expr:
    """The node in brackets when it would not stand safely beside an operator."""
    return exp.Paren(this=node) if isinstance(node, exp.Binary | exp.Unary | exp.In | exp.Between) else node


def render_expr(expr: Expr, scope: Scope) -> exp.Expr:
    """The node of an expression."""
    match expr:
        case Column(name, _):
            return scope.columns[name]
        case Literal(value, type):
            return _constant(value, type, scope)
        case Get(source, key):
            return call(scope.dialect.get, render_expr(source, scope), scope.parameters.bind(key))
        case Item():
            assert scope.item is not None, "Item stands outside any AnyOf"
            return scope.item.copy()
        case AnyOf():
            return _any_of(expr, scope)
        case Texts():
            return _texts(expr, scope)
        case Not(IsNull(item)):
            return exp.Not(this=is_null(render_expr(item, scope)))
        case Not(Not(item)):
            return is_true(render_expr(item, scope))
        case Not(item):
            return exp.Not(this=is_true(render_expr(item, scope)))
        case And(items):
            return exp.and_(*(render_expr(i, scope) for i in items), copy=False) if items else exp.true()
        case Or(items):
            return exp.or_(*(render_expr(i, scope) for i in items), copy=False) if items else exp.false()
        case Compare(op, left, right):
            return _COMPARE[op](this=_compared(left, scope), expression=_compared(right, scope))
        case In(_, ()) | InBlocks(_, ()):
            return exp.false()
        case In(item, options):
            return exp.In(this=_compared(item, scope), expressions=[_compared(o, scope) for o in options])
        case Like(item, pieces, fold):
            return _like(render_expr(item, scope), pieces, fold, scope)
        case Matches(item, pattern):
            return call(scope.dialect.matches, render_expr(item, scope), scope.parameters.bind(pattern))
        case InBlocks(item, blocks):
            return _in_blocks(render_expr(item, scope), blocks, scope)
        case IsNull(item):
            return is_null(render_expr(item, scope))
        case Cast(item, type):
            return _cast(item, type, scope)
        case Call(fn, args):
            return _call(fn, args, scope)
        case If(where, then, other):
            chosen = exp.If(this=render_expr(where, scope), true=render_expr(then, scope))
            return exp.Case(ifs=[chosen], default=render_expr(other, scope))
        case Bucket(item, origin_ms, width_ms):
            return _bucket(render_expr(item, scope), origin_ms * 1000, width_ms * 1000, scope)
        case HasBit(item, place):
            digit = exp.BitwiseAnd(this=operand(render_expr(item, scope)), expression=scope.parameters.bind(1 << place))
            return exp.NEQ(this=exp.Paren(this=digit), expression=exp.Literal.number(0))
    assert_never(expr)


def _constant(value: Scalar, type: Type, scope: Scope) -> exp.Expr:
    types = scope.dialect.types
    if value is None:
        return cast(exp.null(), types[type])
    bound = scope.parameters.bind(_plain(value, type))
    match type:
        case Type.INTEGER:
            return cast(bound, types[type] if value in _LONG else scope.dialect.wide_integer)
        case Type.DATE | Type.ANY:
            return cast(bound, types[type])
        case _:
            return bound


def _plain(value: Scalar, type: Type) -> Scalar:
    if type is Type.NUMBER and isinstance(value, int):
        return float(value)
    if isinstance(value, datetime) and value.tzinfo:
        return value.astimezone(UTC).replace(tzinfo=None)
    return value


def _compared(side: Expr, scope: Scope) -> exp.Expr:
    """One side of a comparison, where a bound integer needs no cast to have the right type."""
    if isinstance(side, Literal) and side.type is Type.INTEGER and side.value is not None:
        return scope.parameters.bind(side.value)
    return operand(render_expr(side, scope))


def _call(fn: Fn, args: tuple[Expr, ...], scope: Scope) -> exp.Expr:
    nodes = [render_expr(arg, scope) for arg in args]
    match fn:
        case Fn.LOWER:
            return exp.Lower(this=nodes[0])
        case Fn.TRIM:
            return call(scope.dialect.trim, nodes[0])
        case Fn.NULL_IF_EMPTY:
            return exp.Nullif(this=nodes[0], expression=exp.Literal.string(""))
        case Fn.ADD | Fn.SUBTRACT:
            if type_of(args[0]) is Type.INTEGER:
                nodes = [cast(node, scope.dialect.wide_integer) for node in nodes]
            made = exp.Add if fn is Fn.ADD else exp.Sub
            return made(this=operand(nodes[0]), expression=operand(nodes[1]))
        case Fn.CONCAT:
            return reduce(lambda left, right: exp.DPipe(this=left, expression=right), map(operand, nodes))
        case Fn.GREATEST:
            return call(scope.dialect.greatest, *nodes)
    assert_never(fn)


def _cast(item: Expr, type: Type, scope: Scope) -> exp.Expr:
    source = type_of(item)
    if source is type:
        return render_expr(item, scope)
    steps = scope.dialect.casts.get((source, type))
    if steps is None:
        return cast(exp.null(), scope.dialect.types[type])

    def take(node: exp.Expr, step: Step) -> exp.Expr:
        return cast(node, scope.dialect.types[step]) if isinstance(step, Type) else call(step, node)

    return reduce(take, steps, render_expr(item, scope))


def _bucket(time: exp.Expr, origin_us: int, width_us: int, scope: Scope) -> exp.Expr:
    """Counted from a bucket that begins before all times, and the buckets until the origin taken off."""
    ahead = -((_TIME_US_MIN - origin_us) // width_us)
    bounds = (scope.parameters.bind(n) for n in (ahead * width_us - origin_us, width_us, ahead))
    return call(scope.dialect.bucket, call(scope.dialect.to_us, time), *bounds)


def _like(item: exp.Expr, pieces: Pieces, fold: bool, scope: Scope) -> exp.Expr:
    def bound(text: str) -> exp.Expr:
        node = scope.parameters.bind(text)
        return exp.Lower(this=node) if fold else node

    item = exp.Lower(this=item) if fold else operand(item)
    match pieces:
        case ():
            return exp.EQ(this=item, expression=bound(""))
        case (str(text),):
            return exp.EQ(this=item, expression=bound(text))
        case (str(text), Wild.ANY):
            return exp.StartsWith(this=item, expression=bound(text))
        case (Wild.ANY, str(text)):
            return exp.EndsWith(this=item, expression=bound(text))
        case (Wild.ANY, str(text), Wild.ANY):
            return exp.Contains(this=item, expression=bound(text))
    like = exp.Like(this=item, expression=bound("".join(_pattern(piece) for piece in pieces)))
    return exp.Escape(this=like, expression=exp.Literal.string("\\"))


def _pattern(piece: str | Wild) -> str:
    if isinstance(piece, Wild):
        return "%" if piece is Wild.ANY else "_"
    return piece.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")


def block_bounds(block: str) -> tuple[str, str]:
    """First and last address of a CIDR block as 32 hex digits; IPv4 in its IPv4-mapped IPv6 form."""
    network = ip_network(block, strict=False)
    base = 0xFFFF << 32 if isinstance(network, IPv4Network) else 0
    return f"{base + int(network[0]):032x}", f"{base + int(network[-1]):032x}"


def _in_blocks(item: exp.Expr, blocks: tuple[str, ...], scope: Scope) -> exp.Expr:
    address = call(scope.dialect.address, item)
    ranges = []
    for block in blocks:
        low, high = (scope.parameters.bind(bound) for bound in block_bounds(block))
        ranges.append(exp.Between(this=address.copy(), low=low, high=high))
    return exp.or_(*ranges, copy=False)


Made = Callable[[exp.Expr], exp.Expr]


def _along(source: Expr, keys: tuple[str, ...], scope: Scope, several: Made, one: Made) -> exp.Expr:
    """What `several` makes of the items along a path where an array is on it, else what `one` makes of its value.

    Arrays are opened by list functions, which cost, and to look at what is on the way costs as much as to read all
    of it: so the engine should know where none is.
    """
    dialect, bind = scope.dialect, scope.parameters.bind
    path = [render_expr(source, scope)]
    for key in keys:
        path.append(call(dialect.get, path[-1].copy(), bind(key)))
    first = _first_array(source, keys, scope.arrays())
    if first is None:
        return one(path[-1])
    items = call(dialect.items, path[first].copy())
    for key in keys[first:]:
        items = call(dialect.items_at, items, bind(key))
    is_array, *on_way = (call(dialect.is_array, node.copy()) for node in reversed(path[first:]))
    if on_way:
        absent = exp.If(this=is_null(path[-1].copy()), true=exp.or_(*on_way, copy=False))
        is_array = exp.Case(ifs=[absent], default=is_array)
    return exp.Case(ifs=[exp.If(this=is_array, true=several(items))], default=one(path[-1]))


def _first_array(source: Expr, keys: tuple[str, ...], known: Arrays | None) -> int | None:
    """How many keys lead to the first value on the way that may be an array; None when there is none."""
    if known is None or not isinstance(source, Column) or source.name != known.column:
        return 0
    return next((n for n in range(len(keys) + 1) if keys[:n] in known.paths), None)


def _any_of(expr: AnyOf, scope: Scope) -> exp.Expr:
    inner = replace(scope, depth=scope.depth + 1)
    name = _fresh(f"item{inner.depth}", scope)

    def some(items: exp.Expr) -> exp.Expr:
        holds = exp.Lambda(this=_reached(column(name), expr.where, inner), expressions=[identifier(name)])
        return exp.GT(this=call("length", call("list_filter", items, holds)), expression=exp.Literal.number(0))

    return _along(expr.source, expr.keys, scope, some, lambda value: _reached(value, expr.where, inner))


def _texts(expr: Texts, scope: Scope) -> exp.Expr:
    several, one = partial(call, scope.dialect.many_texts), partial(call, scope.dialect.one_text)
    return _along(expr.source, expr.keys, scope, several, one)


def _reached(value: exp.Expr, where: Expr, scope: Scope) -> exp.Expr:
    condition = render_expr(where, replace(scope, item=value))
    return exp.and_(exp.Not(this=is_null(value.copy())), is_true(condition), copy=False)


def _fresh(name: str, scope: Scope) -> str:
    """A lambda's name that hides no column at hand."""
    taken = {node.name.lower() for node in scope.columns.values()}
    while name in taken:
        name += "_"
    return name
