"""Owns expressions over columns: a closed union of values. Builds no SQL and reads no data.

Predicates follow SQL's three-valued logic, but a filter and `Not` ask only "is it true?":
`Not(e)` is true exactly when `e` is not true, so a missing value satisfies a negation.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import Enum, StrEnum
from typing import Literal as OneOf

from roster.model.schema import Type

Scalar = str | int | float | bool | datetime | None
CompareOp = OneOf["=", "<", "<=", ">", ">="]


BLANKS = "\t\n\v\f\r \u00a0\u1680" + "".join(map(chr, range(0x2000, 0x200B))) + "\u202f\u205f\u3000"
"""What counts as blank at the ends of a text: tab to carriage return and Unicode's space separators."""

BIT_MAX = 62
"""The highest binary digit in use: with it a set of digits is an INTEGER of 64 bits that is not negative."""


class Wild(Enum):
    """A wildcard in a pattern: any run of characters, or exactly one character."""

    ANY = "*"
    ONE = "?"


Pieces = tuple[str | Wild, ...]
"""A pattern: literal runs and wildcards."""


class Fn(StrEnum):
    """Scalar functions. The set is closed; each has one meaning in every engine.

    LOWER maps each code point by itself (Unicode's simple mapping), TRIM takes BLANKS off both ends,
    ADD and SUBTRACT take two values of one type, INTEGER (exact, never overflows) or NUMBER. Of a null, each is null.
    CONCAT joins STRINGs end to end; of a null it is null.
    GREATEST takes values of one type, not ANY, and leaves nulls out; of nulls only it is null.
    """

    LOWER = "lower"
    TRIM = "trim"
    NULL_IF_EMPTY = "null_if_empty"
    ADD = "add"
    SUBTRACT = "subtract"
    CONCAT = "concat"
    GREATEST = "greatest"


@dataclass(frozen=True, slots=True)
class Column:
    """A column of the input relation."""

    name: str
    type: Type


@dataclass(frozen=True, slots=True)
class Literal:
    """A constant; always bound as a parameter, never written into SQL. Of a DATE only the day counts."""

    value: Scalar
    type: Type


@dataclass(frozen=True, slots=True)
class Get:
    """One key of a semi-structured value (type ANY); null when absent, a JSON null, or not of an object."""

    source: Expr
    key: str


@dataclass(frozen=True, slots=True)
class Item:
    """The value at hand inside the nearest enclosing AnyOf (type ANY)."""


@dataclass(frozen=True, slots=True)
class AnyOf:
    """True when `where` holds for a value reached from `source` along `keys`, else false; never null.

    An array on the way, or at the end, stands for each of its elements; an array directly inside an array
    is not opened. Nulls are not reached.
    """

    source: Expr
    keys: tuple[str, ...]
    where: Expr


@dataclass(frozen=True, slots=True)
class Texts:
    """The values that AnyOf reaches, as text: null when none is one, as a Cast would be.

    Of several different texts, and of one that begins with `[`, it is a JSON array of them in the order of code
    points, which Spread takes apart.
    """

    source: Expr
    keys: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Not:
    item: Expr


@dataclass(frozen=True, slots=True)
class And:
    """True when all items are; no items: true."""

    items: tuple[Expr, ...]


@dataclass(frozen=True, slots=True)
class Or:
    """True when any item is; no items: false."""

    items: tuple[Expr, ...]


@dataclass(frozen=True, slots=True)
class Compare:
    """Both sides have the same type, not ANY; null beside a null. Strings compare by code point."""

    op: CompareOp
    left: Expr
    right: Expr


@dataclass(frozen=True, slots=True)
class In:
    """True when the value equals one of `options` (all Literal of its type)."""

    item: Expr
    options: tuple[Literal, ...]


@dataclass(frozen=True, slots=True)
class Like:
    """True when the whole string matches the pattern; `fold` ignores letter case (as LOWER does).

    A wildcard matches any code point, line ends too.
    """

    item: Expr
    pieces: Pieces
    fold: bool = False


@dataclass(frozen=True, slots=True)
class Matches:
    """True when the whole string matches a regular expression in RE2's syntax."""

    item: Expr
    pattern: str


@dataclass(frozen=True, slots=True)
class InBlocks:
    """True when the string is an IP address inside one of the CIDR blocks (normalised text).

    An IPv4 address and its IPv4-mapped IPv6 form (::ffff:a.b.c.d) are the same address. False for other text.
    """

    item: Expr
    blocks: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class IsNull:
    item: Expr


@dataclass(frozen=True, slots=True)
class Cast:
    """The value as another type, null where it cannot be.

    - From STRING, blanks at both ends ignored. NUMBER: decimal or scientific notation, optional sign, finite.
      INTEGER: the same, integral (exact when digits only) and of 64 bits. BOOLEAN: true t yes y 1, false f no n 0
      in any case. TIMESTAMP: ISO 8601 date or date and time (T or blank between; seconds, fraction and
      zone Z, +hh:mm, +hhmm optional; without a zone UTC; cut to microseconds), years 1 to 9999.
    - To STRING: integers in digits; numbers integral and below 1e15 in digits, others in the shortest form that
      reads back the same; booleans true/false; timestamps RFC 3339 with milliseconds (cut) and Z; dates ISO.
    - Between INTEGER or NUMBER and TIMESTAMP: epoch milliseconds (floor). NUMBER to INTEGER: integral, 64 bits.
      INTEGER and NUMBER to BOOLEAN: 1 and 0 only; BOOLEAN to a number or a time: null.
    - DATE is the UTC day of a TIMESTAMP; as anything but STRING it is its midnight.
    - From ANY: as the JSON string, number or boolean it holds; of objects, arrays and nulls: null.
    - To ANY: the JSON string, number or boolean; timestamps and dates as to STRING.
    """

    item: Expr
    type: Type


@dataclass(frozen=True, slots=True)
class Call:
    fn: Fn
    args: tuple[Expr, ...]


@dataclass(frozen=True, slots=True)
class If:
    """`then` where the condition is true, else `other`; both have one type."""

    where: Expr
    then: Expr
    other: Expr


@dataclass(frozen=True, slots=True)
class Bucket:
    """Which of the spans of `width_ms` that follow one another from `origin_ms` on a TIMESTAMP lies in: INTEGER.

    The span that begins at the origin is 0, those before it are negative.
    """

    item: Expr
    origin_ms: int
    width_ms: int


@dataclass(frozen=True, slots=True)
class HasBit:
    """True when the binary digit of an INTEGER at `place` (0, the lowest, to BIT_MAX) is 1; of a null it is null.

    The digits of negative numbers are those of two's complement.
    """

    item: Expr
    place: int


Expr = (
    Column
    | Literal
    | Get
    | Item
    | AnyOf
    | Texts
    | Not
    | And
    | Or
    | Compare
    | In
    | Like
    | Matches
    | InBlocks
    | IsNull
    | Cast
    | Call
    | If
    | Bucket
    | HasBit
)

TRUE = And(())
FALSE = Or(())


def type_of(expr: Expr) -> Type:
    """The type of the value an expression gives."""
    match expr:
        case Column(_, type) | Literal(_, type) | Cast(_, type):
            return type
        case Get() | Item():
            return Type.ANY
        case Bucket():
            return Type.INTEGER
        case Call(Fn.ADD | Fn.SUBTRACT | Fn.GREATEST, args):
            return type_of(args[0])
        case If(_, then):
            return type_of(then)
        case Call() | Texts():
            return Type.STRING
        case _:
            return Type.BOOLEAN


def columns_of(expr: Expr) -> frozenset[str]:
    """Names of the input columns an expression reads."""
    match expr:
        case Column(name, _):
            return frozenset({name})
        case Literal() | Item():
            return frozenset()
        case And(items) | Or(items) | Call(_, items):
            return frozenset().union(*(columns_of(i) for i in items))
        case Compare(_, left, right):
            return columns_of(left) | columns_of(right)
        case If(where, then, other):
            return columns_of(where) | columns_of(then) | columns_of(other)
        case AnyOf(source, _, where):
            return columns_of(source) | columns_of(where)
        case Get(item) | Cast(item) | In(item) | Like(item) | Matches(item) | InBlocks(item) | Not(item) | IsNull(item):
            return columns_of(item)
        case Bucket(item) | HasBit(item) | Texts(item):
            return columns_of(item)


def conjuncts(item: Expr) -> tuple[Expr, ...]:
    """What must all be true for the item to be."""
    return item.items if isinstance(item, And) else (item,)


def conjunction(*items: Expr) -> Expr:
    """The items joined by And, flattened, trivial ones left out."""
    flat = [part for item in items for part in conjuncts(item)]
    return flat[0] if len(flat) == 1 else And(tuple(flat))
