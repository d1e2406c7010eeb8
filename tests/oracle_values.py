"""Owns the meaning of expressions in slow, plain Python; the plans are in oracle.py."""

from __future__ import annotations

import ipaddress
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any, assert_never

import re2

from roster.model.schema import Type
from roster.query.expr import (
    BLANKS,
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
    Texts,
    Wild,
    type_of,
)
from told_texts import listed

Row = dict[str, Any]

EPOCH = datetime(1970, 1, 1)
MILLISECOND = timedelta(milliseconds=1)
LONG = range(-(2**63), 2**63)


@dataclass(frozen=True)
class Place:
    """What an expression sees: a row and, inside an AnyOf, the item."""

    row: Row
    item: Any = None


def value_of(expr: Expr, row: Row) -> Any:
    return value_at(expr, Place(row))


def value_at(expr: Expr, at: Place) -> Any:
    match expr:
        case Column(name, _):
            return at.row[name]
        case Literal(value, type):
            return constant(value, type)
        case Item():
            return at.item
        case Get(source, key):
            return get(value_at(source, at), key)
        case AnyOf(source, keys, where):
            reached = along(value_at(source, at), keys)
            return any(value_at(where, Place(at.row, v)) is True for v in reached if v is not None)
        case Texts(source, keys):
            reached = along(value_at(source, at), keys)
            return listed(sorted({text for v in reached if (text := converted(v, Type.ANY, Type.STRING)) is not None}))
        case Not(item):
            return value_at(item, at) is not True
        case And(items):
            return both([value_at(i, at) for i in items])
        case Or(items):
            return negated(both([negated(value_at(i, at)) for i in items]))
        case IsNull(item):
            return value_at(item, at) is None
        case Call(fn, args):
            return called(fn, [value_at(a, at) for a in args])
        case Cast(item, type):
            return converted(value_at(item, at), type_of(item), type)
        case If(where, then, other):
            return value_at(then if value_at(where, at) is True else other, at)
        case Bucket(item, origin_ms, width_ms):
            time = value_at(item, at)
            return None if time is None else (time - EPOCH - origin_ms * MILLISECOND) // (width_ms * MILLISECOND)
        case HasBit(item, place):
            number = value_at(item, at)
            return None if number is None else number // 2**place % 2 == 1
        case _:
            return tested(expr, at)


def along(value: Any, keys: tuple[str, ...]) -> list[Any]:
    """What is reached from a value along keys, arrays opened."""
    reached = opened(value)
    for key in keys:
        reached = [part for value in reached for part in opened(get(value, key))]
    return reached


def tested(expr: Compare | In | Like | Matches | InBlocks, at: Place) -> bool | None:
    """Predicates that are null when their subject is."""
    match expr:
        case Compare(op, left, right):
            a, b = value_at(left, at), value_at(right, at)
            return None if a is None or b is None else COMPARE[op](a, b)
        case In(item, options):
            value, others = value_at(item, at), [value_at(o, at) for o in options]
            if not others:
                return False
            if value is None:
                return None
            return True if value in [o for o in others if o is not None] else None if None in others else False
        case Like(item, pieces, fold):
            text = value_at(item, at)
            if text is None:
                return None
            shape = "".join(WILD[p] if isinstance(p, Wild) else re.escape(lowered(p) if fold else p) for p in pieces)
            return re.fullmatch(shape, lowered(text) if fold else text, re.DOTALL) is not None
        case Matches(item, pattern):
            text = value_at(item, at)
            return None if text is None else re2.fullmatch(pattern, text) is not None
        case InBlocks(item, blocks):
            text = value_at(item, at)
            return in_blocks(text, blocks) if text is not None or not blocks else None
    assert_never(expr)


COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "=": lambda a, b: a == b,
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
}
WILD = {Wild.ANY: ".*", Wild.ONE: "."}


def negated(truth: bool | None) -> bool | None:
    return None if truth is None else not truth


def both(truths: list[bool | None]) -> bool | None:
    return False if False in truths else None if None in truths else True


def get(value: Any, key: str) -> Any:
    return value.get(key) if isinstance(value, dict) else None


def opened(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def in_blocks(text: str | None, blocks: tuple[str, ...]) -> bool:
    address = parsed_address(text or "")
    return address is not None and any(is_in_block(address, block) for block in blocks)


def parsed_address(text: str) -> ipaddress.IPv6Address | None:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv4Address):
        return ipaddress.IPv6Address(f"::ffff:{text}")
    return None if address.scope_id else address


def is_in_block(address: ipaddress.IPv6Address, block: str) -> bool:
    network = ipaddress.ip_network(block)
    if isinstance(network, ipaddress.IPv4Network):
        return address.ipv4_mapped is not None and address.ipv4_mapped in network
    return address in network


def called(fn: Fn, values: list[Any]) -> Any:
    if fn is Fn.GREATEST:
        return max((v for v in values if v is not None), default=None)
    if None in values:
        return None
    match fn:
        case Fn.LOWER:
            return lowered(values[0])
        case Fn.TRIM:
            return values[0].strip(BLANKS)
        case Fn.NULL_IF_EMPTY:
            return values[0] or None
        case Fn.ADD:
            return values[0] + values[1]
        case Fn.CONCAT:
            return "".join(values)
        case Fn.SUBTRACT:
            return values[0] - values[1]
    assert_never(fn)


def lowered(text: str) -> str:
    """Each code point by its simple mapping; the only one that str.lower makes longer is U+0130."""
    return "".join(character.lower()[0] for character in text)


def constant(value: Any, type: Type) -> Any:
    match type:
        case Type.NUMBER:
            return None if value is None else float(value)
        case Type.TIMESTAMP:
            return value.astimezone(UTC).replace(tzinfo=None) if value is not None and value.tzinfo else value
        case Type.DATE:
            return value.date() if isinstance(value, datetime) else value
        case _:
            return value


def converted(value: Any, source: Type, type: Type) -> Any:
    """A value as another type, by way of what the value is."""
    if value is None or source is type:
        return value
    if type is Type.ANY:
        return as_text(value) if isinstance(value, date) else value
    if isinstance(value, list | dict):
        return None
    match type:
        case Type.STRING:
            return as_text(value)
        case Type.INTEGER:
            return as_integer(value)
        case Type.NUMBER:
            return as_number(value)
        case Type.BOOLEAN:
            return as_boolean(value)
        case Type.TIMESTAMP:
            return as_instant(value)
        case Type.DATE:
            moment = as_instant(value)
            return None if moment is None else moment.date()
    assert_never(type)


def as_text(value: Any) -> str:
    match value:
        case str():
            return value
        case bool():
            return "true" if value else "false"
        case float():
            return str(int(value)) if value.is_integer() and abs(value) < 1e15 else repr(value)
        case datetime():
            return value.isoformat(timespec="milliseconds") + "Z"
        case date():
            return value.isoformat()
        case _:
            return str(value)


def as_number(value: Any) -> float | None:
    match value:
        case bool():
            return None
        case str():
            shape = r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?"
            trimmed = value.strip(BLANKS)
            number = float(trimmed) if re.fullmatch(shape, trimmed) else math.nan
            return number if math.isfinite(number) else None
        case date():
            return float(epoch_ms(value))
        case _:
            return float(value)


def as_integer(value: Any) -> int | None:
    if isinstance(value, date):
        return epoch_ms(value)
    if isinstance(value, str) and re.fullmatch("[+-]?[0-9]+", value.strip(BLANKS)):
        exact: int | None = int(value.strip(BLANKS))
    elif isinstance(value, int) and not isinstance(value, bool):
        exact = value
    else:
        number = as_number(value)
        exact = int(number) if number is not None and number.is_integer() else None
    return exact if exact is not None and exact in LONG else None


def as_boolean(value: Any) -> bool | None:
    match value:
        case bool():
            return value
        case str():
            word = lowered(value.strip(BLANKS))
            return True if word in TRUE_WORDS else False if word in FALSE_WORDS else None
        case date():
            return None
        case _:
            return {0: False, 1: True}.get(value)


TRUE_WORDS = ("true", "t", "yes", "y", "1")
FALSE_WORDS = ("false", "f", "no", "n", "0")


def as_instant(value: Any) -> datetime | None:
    match value:
        case datetime():
            return value
        case date():
            return datetime(value.year, value.month, value.day)
        case str():
            return read_instant(value.strip(BLANKS))
        case _:
            since = as_integer(value)
            try:
                return None if since is None else EPOCH + since * MILLISECOND
            except OverflowError:
                return None


def epoch_ms(value: date) -> int:
    moment = as_instant(value)
    assert moment is not None
    return (moment - EPOCH) // MILLISECOND


def read_instant(text: str) -> datetime | None:
    shape = (
        r"([0-9]{4})-([0-9]{2})-([0-9]{2})"
        r"(?:[T ]([0-9]{2}):([0-9]{2})(?::([0-9]{2})(?:\.([0-9]{1,9}))?)?(Z|[+-][0-9]{2}:?[0-9]{2})?)?"
    )
    found = re.fullmatch(shape, text)
    if not found:
        return None
    year, month, day, hour, minute, second, fraction, zone = found.groups()
    clock = (int(hour or 0), int(minute or 0), int(second or 0), int(((fraction or "") + "000000")[:6]))
    try:
        moment = datetime(int(year), int(month), int(day), *clock)
        return moment if zone in (None, "Z") else moment - offset(zone)
    except (ValueError, OverflowError):
        return None


def offset(zone: str) -> timedelta:
    hours, minutes = int(zone[1:3]), int(zone[-2:])
    if hours > 23 or minutes > 59:
        raise ValueError(zone)
    return (-1 if zone[0] == "-" else 1) * timedelta(hours=hours, minutes=minutes)
