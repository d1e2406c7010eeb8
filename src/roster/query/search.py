"""Owns the search language: text to tree and back. Knows no schema, no attribute's type and no SQL."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from functools import cache
from importlib.resources import files
from ipaddress import ip_network
from math import isfinite
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Literal, assert_never

from roster.base.time import epoch_ms
from roster.query.expr import Pieces, Wild
from roster.query.refusal import refusal, unreadable

if TYPE_CHECKING:
    from collections.abc import Callable

    from lark import Lark, Token

Operator = Literal["<", "<=", ">", ">="]


@dataclass(frozen=True, slots=True)
class Key:
    """An attribute as written, escapes resolved, a leading @ or # kept; `*` means all attributes.

    `at` is the 0-based character offset in the query; it takes no part in equality.
    """

    name: str
    at: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class Pattern:
    """Literal runs (merged, escapes resolved) and wildcards; in quotes there are no wildcards."""

    pieces: Pieces
    quoted: bool = False

    @property
    def is_literal(self) -> bool:
        return all(isinstance(p, str) for p in self.pieces)

    @property
    def text(self) -> str:
        """The literal text; of use only when `is_literal`."""
        return "".join(p for p in self.pieces if isinstance(p, str))

    @property
    def is_any(self) -> bool:
        return self.pieces == (Wild.ANY,)

    @property
    def is_empty(self) -> bool:
        return not self.pieces


_NUMBER = re.compile(r"([+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]{1,3})?)([A-Za-z]*)")
_WHOLE = re.compile(r"[+-]?[0-9]{1,15}")
_RELATIVE = re.compile(r"now(?:([+-][0-9]{1,15})([smhdw]))?")
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}(?:[Tt ].+)?")
_UNIT_NS = {"ns": 1, "us": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9, "d": 86400 * 10**9}
_UNIT_BYTES = {"B": 1, "kB": 10**3, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_UNITS = _UNIT_NS | _UNIT_BYTES
_RELATIVE_MS = {"s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000}
_FIRST_MS, _LAST_MS = epoch_ms(datetime.min), epoch_ms(datetime.max)


@dataclass(frozen=True, slots=True)
class Bound:
    """One end of a comparison, as written: a number with or without unit, a date, epoch milliseconds, now-7d."""

    text: str

    def number(self) -> float | int | None:
        """The number; durations in nanoseconds, sizes in bytes; None when the text is no (finite) number."""
        found = _NUMBER.fullmatch(self.text)
        if found is None or (found[2] and found[2] not in _UNITS):
            return None
        exact = Decimal(found[1])
        if found[2]:
            exact *= _UNITS[found[2]]
        if not isfinite(float(exact)):
            return None
        whole = exact == exact.to_integral_value() if found[2] else re.fullmatch("[+-]?[0-9]+", found[1])
        return int(exact) if whole else float(exact)

    def instant_ms(self, now_ms: int) -> int | None:
        """Epoch milliseconds; without a zone the text is UTC; None when it is no instant of the years 1 to 9999."""
        if _WHOLE.fullmatch(self.text):
            at_ms = int(self.text)
        elif found := _RELATIVE.fullmatch(self.text):
            at_ms = now_ms + (int(found[1]) * _RELATIVE_MS[found[2]] if found[1] else 0)
        elif (moment := self._moment()) is not None:
            at_ms = epoch_ms(moment)
        else:
            return None
        return at_ms if _FIRST_MS <= at_ms <= _LAST_MS else None

    @property
    def is_date(self) -> bool:
        """A calendar date without a time of day."""
        return len(self.text) == len("2024-01-31") and self._moment() is not None

    def _moment(self) -> datetime | None:
        if not _DATE.fullmatch(self.text):
            return None
        try:
            return datetime.fromisoformat(self.text.upper())
        except ValueError:
            return None


@dataclass(frozen=True, slots=True)
class Everything:
    """The empty query, or a bare `*`."""


@dataclass(frozen=True, slots=True)
class And:
    items: tuple[Tree, ...]


@dataclass(frozen=True, slots=True)
class Or:
    items: tuple[Tree, ...]


@dataclass(frozen=True, slots=True)
class Not:
    item: Tree


@dataclass(frozen=True, slots=True)
class Text:
    """Free text."""

    pattern: Pattern


@dataclass(frozen=True, slots=True)
class Match:
    key: Key
    pattern: Pattern


@dataclass(frozen=True, slots=True)
class Compare:
    key: Key
    op: Operator
    bound: Bound


@dataclass(frozen=True, slots=True)
class Range:
    """None is an open end."""

    key: Key
    low: Bound | None
    high: Bound | None
    low_inclusive: bool
    high_inclusive: bool


@dataclass(frozen=True, slots=True)
class Cidr:
    """An address in any of the blocks (normalised text)."""

    key: Key
    blocks: tuple[str, ...]


Tree = Everything | And | Or | Not | Text | Match | Compare | Range | Cidr


def parse(text: str, *, characters_max: int = 10_000, depth_max: int = 100) -> Tree:
    """The tree of a search string. Parentheses and negations count towards depth. Errors: INVALID, with position."""
    from lark import UnexpectedInput, UnexpectedToken  # here and not above: loading lark costs 50 ms

    if len(text) > characters_max:
        raise unreadable("the search is too long", characters_max, f"use at most {characters_max} characters")
    steps: Any = _language().parse_interactive(text)
    opened: list[tuple[int, int]] = []  # of each open parenthesis: its offset, the depth inside
    depth = 0
    try:
        for token in steps.iter_parse():
            match token.type:
                case "_LPAR" | "_CIDR":
                    depth += 1
                    opened.append((token.end_pos - 1, depth))
                case "_NOT" | "_MINUS":
                    depth += 1
                case "KEY":
                    continue
                case kind:
                    if kind == "_RPAR" and opened:
                        opened.pop()
                    depth = opened[-1][1] if opened else 0
            if depth > depth_max:
                raise unreadable("the search is nested too deeply", token.start_pos, f"nest at most {depth_max} levels")
        tree: Tree = steps.feed_eof()
        return tree
    except UnexpectedInput as error:
        at_end = isinstance(error, UnexpectedToken) and error.token.type == "$END"
        offset = len(text) if at_end else error.pos_in_stream or 0
        raise refusal(text, offset, steps.accepts(), [at for at, _ in opened]) from None


@cache
def _language() -> Lark:
    from lark import Lark

    grammar = files("roster.query").joinpath("search.lark").read_text(encoding="utf-8")
    build: Any = SimpleNamespace(**_BUILD)
    return Lark(grammar, parser="lalr", lexer="contextual", transformer=build)


def _unescaped(raw: str) -> str:
    return re.sub(r"\\([\s\S])", r"\1", raw)


def _bare(raw: str) -> Pattern:
    """Runs of `*` count as one."""
    pieces: list[str | Wild] = []
    for escaped, wild, plain in re.findall(r"\\([\s\S])|([*?])|([^\\*?]+)", raw):
        piece = Wild(wild) if wild else escaped or plain
        last = pieces[-1] if pieces else None
        if isinstance(last, str) and isinstance(piece, str):
            pieces[-1] = last + piece
        elif piece is not Wild.ANY or last is not Wild.ANY:
            pieces.append(piece)
    return Pattern(tuple(pieces))


def _quoted(raw: str) -> Pattern:
    text = _unescaped(raw[1:-1])
    return Pattern((text,) if text else (), quoted=True)


def _cidr(key: Token, *blocks: Token) -> Cidr:
    return Cidr(Key(_unescaped(key), key.start_pos or 0), tuple(_block(b) for b in blocks))


def _block(token: Token) -> str:
    try:
        network = ip_network(str(token), strict=False)
    except ValueError:
        network = None
    if network is None or "%" in token:
        hint = "write blocks such as 10.0.0.0/8 or 2001:db8::/32"
        raise unreadable(f"{str(token)!r} is no address block", token.start_pos or 0, hint)
    return str(network)


def _text(raw: str) -> Tree:
    pattern = _bare(raw)
    return Everything() if pattern.is_any else Text(pattern)


def _term(key: Token, on: Callable[[Key], Tree]) -> Tree:
    return on(Key(_unescaped(key[:-1]), key.start_pos or 0))


_BUILD: dict[str, Callable[[list[Any]], Any]] = {
    "everything": lambda _: Everything(),
    "either": lambda parts: Or(tuple(parts)),
    "both": lambda parts: And(tuple(parts)),
    "negation": lambda parts: Not(parts[0]),
    "text": lambda parts: _text(parts[0]),
    "quoted_text": lambda parts: Text(_quoted(parts[0])),
    "term": lambda parts: _term(*parts),
    "cidr": lambda parts: _cidr(*parts),
    # What stands after a key waits for it: a group gives the key to each of its values.
    "match": lambda parts: lambda key: Match(key, _bare(parts[0])),
    "quoted_match": lambda parts: lambda key: Match(key, _quoted(parts[0])),
    "compare": lambda parts: lambda key: Compare(key, _OPERATORS[parts[0]], parts[1]),
    "range": lambda parts: lambda key: Range(key, parts[1], parts[2], parts[0] == "[", parts[3] == "]"),
    "either_value": lambda parts: lambda key: Or(tuple(on(key) for on in parts)),
    "both_values": lambda parts: lambda key: And(tuple(on(key) for on in parts)),
    "negated_value": lambda parts: lambda key: Not(parts[0](key)),
    "bound": lambda parts: Bound(_unescaped(parts[0])),
    "quoted_bound": lambda parts: Bound(_unescaped(parts[0][1:-1])),
    "unbounded": lambda _: None,
}
_OPERATORS: dict[str, Operator] = {"<": "<", "<=": "<=", ">": ">", ">=": ">="}


_SPECIAL_IN_TEXT = r'[\s"():<>=*?\\“”]'
_SPECIAL_IN_VALUE = r'[\s"()*?\\“”]'


def text_of(tree: Tree) -> str:
    """A search string that parses to an equal tree: operators written out, parentheses only where needed."""
    match tree:
        case Everything():
            return "*"
        case And(items):
            return " AND ".join(_inside(i, And, Or) for i in items)
        case Or(items):
            return " OR ".join(_inside(i, Or) for i in items)
        case Not(item):
            return f"-{_inside(item, And, Or)}"
        case Text(pattern):
            return _written(pattern, _SPECIAL_IN_TEXT, r"[-!]|(?:AND|OR|NOT)\Z")
        case Match(key, pattern):
            return f"{_name(key)}:" + _written(pattern, _SPECIAL_IN_VALUE, r"[<>=\[{]")
        case Compare(key, op, bound):
            return f"{_name(key)}:{op}{_end(bound)}"
        case Range(key, low, high, low_inclusive, high_inclusive):
            opening, closing = "[" if low_inclusive else "{", "]" if high_inclusive else "}"
            return f"{_name(key)}:{opening}{_end(low)} TO {_end(high)}{closing}"
        case Cidr(key, blocks):
            return f"CIDR({', '.join((_name(key), *blocks))})"
    assert_never(tree)


def _inside(tree: Tree, *looser: type[And | Or]) -> str:
    return f"({text_of(tree)})" if isinstance(tree, looser) else text_of(tree)


def _name(key: Key) -> str:
    return key.name if key.name == "*" else re.sub(rf"^[-!]|,|{_SPECIAL_IN_TEXT}", r"\\\g<0>", key.name)


def _written(pattern: Pattern, special: str, leading: str) -> str:
    """`special` is a class of signs to escape anywhere, `leading` what cannot begin the text."""
    if pattern.quoted:
        return _in_quotes(pattern.text)
    parts = [p.value if isinstance(p, Wild) else re.sub(special, r"\\\g<0>", p) for p in pattern.pieces]
    return re.sub(f"^(?:{leading})", r"\\\g<0>", "".join(parts))


def _end(bound: Bound | None) -> str:
    if bound is None:
        return "*"
    plain = re.fullmatch(r'[^\s"()<>=*?\[\]{}\\“”]+', bound.text)
    return bound.text if plain else _in_quotes(bound.text)


def _in_quotes(text: str) -> str:
    return '"' + re.sub(r'["\\]', r"\\\g<0>", text) + '"'
