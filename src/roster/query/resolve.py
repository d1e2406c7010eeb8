"""Owns the meaning of a search: names against typed schemas, values against types; gives plan expressions.

One meaning for profiles and for events: only the scope differs. Reads no data and builds no SQL.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import assert_never

from roster.base.errors import Code, Error, did_you_mean
from roster.base.time import INSTANT_MS_MAX, instant
from roster.model.schema import NUMERIC, Type
from roster.query import search
from roster.query.expr import (
    FALSE,
    TRUE,
    And,
    AnyOf,
    Cast,
    Compare,
    CompareOp,
    Expr,
    In,
    InBlocks,
    IsNull,
    Item,
    Like,
    Literal,
    Not,
    Or,
    Pieces,
    Wild,
    type_of,
)

DAY_MS = 86_400_000


@dataclass(frozen=True, slots=True)
class Deep:
    """A value inside a semi-structured column; arrays on the way stand for each of their elements."""

    source: Expr
    keys: tuple[str, ...]


Target = Expr | Deep


@dataclass(frozen=True, slots=True)
class Scope:
    """What names mean here. `find` gives None for a name that means nothing; `texts` is what free text looks at."""

    find: Callable[[str], Target | None]
    texts: tuple[Expr, ...]
    every: tuple[Expr, ...]
    known: tuple[str, ...]
    terms_max: int = 200
    """Terms of one search; a free-text term costs one comparison a text column."""


@dataclass(slots=True)
class Resolved:
    """A condition, what its author should know about it, and the search as it was read."""

    where: Expr
    warnings: list[str]
    tree: search.Tree


def resolve(text: str, scope: Scope, now_ms: int) -> Resolved:
    """The condition a search string states. Errors: INVALID with the position and a hint."""
    warnings: list[str] = []
    tree = search.parse(text)
    terms = _count_terms(tree)
    if terms > scope.terms_max:
        hint = f"at most {scope.terms_max} (setting search_terms_max)"
        raise Error(Code.INVALID, f"the search has {terms} terms", hint=hint)
    return Resolved(_condition(tree, scope, now_ms, warnings), warnings, tree)


def _count_terms(tree: search.Tree) -> int:
    match tree:
        case search.And(items) | search.Or(items):
            return sum(map(_count_terms, items))
        case search.Not(item):
            return _count_terms(item)
        case _:
            return 1


def unknown_name(name: str, scope: Scope) -> str:
    """The warning for a name that means nothing."""
    hint = did_you_mean(name.lstrip("@"), scope.known)
    return f"unknown attribute {name!r}: it is treated as missing" + (f"; {hint}" if hint else "")


def wildcards(term: str) -> Pieces:
    """A term as pattern pieces: `*` and `?` are wildcards, everything else stands for itself."""
    pieces: list[str | Wild] = []
    for part in re.split(r"([*?])", term):
        if part in ("*", "?"):
            pieces.append(Wild(part))
        elif part:
            pieces.append(part)
    return tuple(pieces)


def contains(item: Expr, pieces: Pieces) -> Expr:
    """The text of a value contains the pattern, in any letter case."""
    text = item if type_of(item) is Type.STRING else Cast(item, Type.STRING)
    return Like(text, (Wild.ANY, *pieces, Wild.ANY), fold=True)


def _condition(tree: search.Tree, scope: Scope, now_ms: int, warnings: list[str]) -> Expr:
    match tree:
        case search.Everything():
            return TRUE
        case search.And(items):
            return And(tuple(_condition(i, scope, now_ms, warnings) for i in items))
        case search.Or(items):
            return Or(tuple(_condition(i, scope, now_ms, warnings) for i in items))
        case search.Not(item):
            return Not(_condition(item, scope, now_ms, warnings))
        case search.Text(pattern):
            return Or(tuple(contains(t, pattern.pieces) for t in scope.texts))
        case search.Match(key, pattern):
            return _on(key, scope, warnings, lambda e: _matches(e, pattern, now_ms))
        case search.Compare(key, op, bound):
            return _on(key, scope, warnings, lambda e: _compares(e, key, op, bound, now_ms))
        case search.Range():
            return _on(tree.key, scope, warnings, lambda e: _between(e, tree, now_ms))
        case search.Cidr(key, blocks):
            return _on(key, scope, warnings, lambda e: InBlocks(Cast(e, Type.STRING), blocks))
    assert_never(tree)


def _on(key: search.Key, scope: Scope, warnings: list[str], condition: Callable[[Expr], Expr]) -> Expr:
    """The condition on what a key names; on all attributes for `*`."""
    if key.name == "*":
        return Or(tuple(condition(e) for e in scope.every))
    target = scope.find(key.name)
    match target:
        case None:
            warnings.append(unknown_name(key.name, scope))
            return FALSE
        case Deep(source, keys):
            return AnyOf(source, keys, condition(Item()))
        case _:
            return condition(target)


def _matches(item: Expr, pattern: search.Pattern, now_ms: int) -> Expr:
    if pattern.is_any:
        return Not(IsNull(item))
    type = type_of(item)
    if not pattern.is_literal:
        return Like(item if type is Type.STRING else Cast(item, Type.STRING), pattern.pieces)
    text = pattern.text
    match type:
        case Type.STRING:
            return Compare("=", item, Literal(text, Type.STRING))
        case Type.INTEGER | Type.NUMBER:
            number = search.Bound(text).number()
            return FALSE if number is None else _against_number(item, "=", number)
        case Type.BOOLEAN:
            truth = {"true": True, "false": False}.get(text.lower())
            return FALSE if truth is None else Compare("=", item, Literal(truth, Type.BOOLEAN))
        case Type.TIMESTAMP | Type.DATE:
            return _at_instant(item, search.Bound(text), now_ms)
        case Type.ANY:
            return In(Cast(item, Type.STRING), tuple(Literal(t, Type.STRING) for t in _spellings(text)))
    assert_never(type)


def _spellings(text: str) -> list[str]:
    """The texts a semi-structured value may have that equals the one written: 5 is also 5.0."""
    number = search.Bound(text).number()
    if number is None:
        return [text]
    if isinstance(number, int):
        return list(dict.fromkeys([text, str(number), f"{number}.0"]))
    return list(dict.fromkeys([text, repr(number)]))


def _at_instant(item: Expr, bound: search.Bound, now_ms: int) -> Expr:
    start_ms = bound.instant_ms(now_ms)
    if start_ms is None:
        return FALSE
    if not bound.is_date:
        return _against_instant(item, "=", start_ms)
    return And((_against_instant(item, ">=", start_ms), _against_instant(item, "<", _next_day(start_ms))))


def _next_day(start_ms: int) -> int:
    return min(start_ms + DAY_MS, INSTANT_MS_MAX)


def _against_number(item: Expr, op: CompareOp, number: float) -> Expr:
    if type_of(item) is Type.INTEGER and isinstance(number, int) and abs(number) < 2**63:
        return Compare(op, item, Literal(number, Type.INTEGER))
    wide = item if type_of(item) is Type.NUMBER else Cast(item, Type.NUMBER)
    return Compare(op, wide, Literal(float(number), Type.NUMBER))


def _against_instant(item: Expr, op: CompareOp, at_ms: int) -> Expr:
    wide = item if type_of(item) is Type.TIMESTAMP else Cast(item, Type.TIMESTAMP)
    return Compare(op, wide, Literal(instant(at_ms), Type.TIMESTAMP))


def _compares(item: Expr, key: search.Key, op: CompareOp, bound: search.Bound, now_ms: int) -> Expr:
    """A comparison: with a number where the attribute may hold one, else with an instant."""
    number, at_ms = bound.number(), bound.instant_ms(now_ms)
    match type_of(item):
        case Type.TIMESTAMP | Type.DATE if at_ms is not None:
            return _beside_day(item, op, at_ms) if bound.is_date else _against_instant(item, op, at_ms)
        case Type.INTEGER | Type.NUMBER if number is not None:
            return _against_number(item, op, number)
        case Type.BOOLEAN:
            return FALSE
        case Type.STRING | Type.ANY if number is not None:
            return _against_number(item, op, number)
        case Type.STRING | Type.ANY if at_ms is not None:
            return _beside_day(item, op, at_ms) if bound.is_date else _against_instant(item, op, at_ms)
    wanted = "a number such as 5, 2.5 or 3s" if type_of(item) in NUMERIC else "a date such as 2025-08-14 or now-7d"
    if type_of(item) in (Type.STRING, Type.ANY):
        wanted = "a number or a date"
    raise Error(
        Code.INVALID,
        f"{key.name} cannot be compared with {bound.text!r}",
        at=f"character {key.at + 1}",
        hint=f"compare it with {wanted}",
    )


def _beside_day(item: Expr, op: CompareOp, start_ms: int) -> Expr:
    """A day without a time stands for all of it: after it means from the next day on."""
    if op in (">", "<="):
        return _against_instant(item, ">=" if op == ">" else "<", _next_day(start_ms))
    return _against_instant(item, op, start_ms)


def _between(item: Expr, tree: search.Range, now_ms: int) -> Expr:
    parts: list[Expr] = []
    if tree.low is not None:
        parts.append(_compares(item, tree.key, ">=" if tree.low_inclusive else ">", tree.low, now_ms))
    if tree.high is not None:
        parts.append(_compares(item, tree.key, "<=" if tree.high_inclusive else "<", tree.high, now_ms))
    return And(tuple(parts)) if parts else Not(IsNull(item))
