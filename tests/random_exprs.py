"""Owns random expressions over given columns, and the values that make them meet."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

from roster.model.schema import Schema, Type
from roster.query.expr import (
    BIT_MAX,
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
)
from worlds import INTEGERS, KEYS, PLAIN_TEXTS, VALUES, known, moments, texts

REGEXES = ("a.*", "(?i)[ab]+", ".", "", r"\d+|\pL*", r"a\b.*", "^b.?$", "[^a]*")
BLOCKS = ("10.0.0.0/24", "10.0.0.1/32", "0.0.0.0/0", "::1/128", "2001:db8::/32", "::/0")


def literals(type: Type) -> SearchStrategy[Literal]:
    values = VALUES[type]
    if type is Type.DATE:
        values = moments()
    if type is Type.ANY:
        values = texts() | st.sampled_from(INTEGERS) | st.booleans()
    return known(values).map(lambda value: Literal(value, type))


TELLING: tuple[tuple[str | Wild, ...], ...] = (
    *(("%", Wild.ONE), (Wild.ANY, "_", Wild.ONE), ("a", Wild.ONE, "%")),
    *((Wild.ANY, "a"), ("b", Wild.ANY)),
)
"""Characters that SQL takes for wildcards beside real ones, and ends that many texts have in their middle."""


@st.composite
def patterns(draw: DrawFn) -> tuple[str | Wild, ...]:
    """Part of a known text between wildcards, or a known text with some characters made wild or changed.

    Now and then one whose meaning most texts tell from what is near it.
    """
    if draw(st.integers(0, 7)) == 7:
        return draw(st.sampled_from(TELLING))
    text = draw(st.sampled_from(("a%b", "a_b", "a\\b", "ba%b", "aab")) | st.sampled_from(PLAIN_TEXTS))
    before, after = draw(st.sampled_from([[], [Wild.ANY]])), draw(st.sampled_from([[], [Wild.ANY]]))
    if draw(st.booleans()):
        start, end = sorted(draw(st.tuples(*[st.integers(0, len(text))] * 2)))
        return joined([*before, text[start:end], *after])
    pieces: list[str | Wild] = []
    for character in text:
        wild: dict[int, list[str | Wild]] = {
            0: [Wild.ANY],
            1: [Wild.ONE],
            2: [],
            3: [character.swapcase()],
            4: [Wild.ANY, character],
        }
        pieces += wild.get(draw(st.integers(0, 9)), [character])
    return joined([*before, *pieces, *after])


def paths() -> SearchStrategy[tuple[str, ...]]:
    """Keys to follow, of those that documents have."""
    return st.lists(st.sampled_from(KEYS[:1] * 3 + KEYS), max_size=2).map(tuple)


@st.composite
def exprs(draw: DrawFn, schema: Schema, type: Type, depth: int = 2, inside: bool = False) -> Expr:
    """An expression of `type` over columns of `schema`; `inside` an AnyOf it may use the item."""
    columns = [Column(c.name, c.type) for c in schema if c.type is type]
    leaves: list[SearchStrategy[Expr]] = [literals(type)]
    if columns:
        leaves += [st.sampled_from(columns)] * 4
    if inside:
        leaves += [st.just(Item()) if type is Type.ANY else st.just(Cast(Item(), type))] * 4
    if depth == 0:
        return draw(st.one_of(leaves))

    def inner(kind: Type) -> SearchStrategy[Expr]:
        return exprs(schema, kind, depth - 1, inside)

    present = sorted({c.type for c in schema} - {type}) or [Type.STRING]
    others = st.sampled_from(present) | st.sampled_from([t for t in Type if t is not type])
    casts = others.flatmap(inner).map(lambda e: Cast(e, type))
    if type is not Type.ANY:
        leaves.append(st.lists(inner(type), min_size=1, max_size=3).map(lambda args: Call(Fn.GREATEST, tuple(args))))
    leaves.append(st.builds(If, predicates(schema, depth - 1, inside), inner(type), inner(type)))
    match type:
        case Type.STRING:
            fn = st.sampled_from([Fn.LOWER, Fn.TRIM, Fn.NULL_IF_EMPTY])
            more: list[SearchStrategy[Expr]] = [casts, st.builds(Call, fn, st.tuples(inner(type)))]
            more.append(st.builds(Call, st.just(Fn.CONCAT), st.tuples(inner(type), inner(type))))
            more.append(st.builds(Texts, inner(Type.ANY), paths()))
        case Type.INTEGER | Type.NUMBER:
            more = [casts, st.builds(Call, st.sampled_from([Fn.ADD, Fn.SUBTRACT]), st.tuples(inner(type), inner(type)))]
            if type is Type.INTEGER:
                widths = st.sampled_from([1, 1000, 3_600_000, 604_800_000])
                more.append(st.builds(Bucket, inner(Type.TIMESTAMP), st.integers(0, 2**45), widths))
        case Type.BOOLEAN:
            more = [casts, predicates(schema, depth, inside)]
        case Type.ANY:
            more = [casts, st.builds(Get, inner(type), st.sampled_from(KEYS))]
        case _:
            more = [casts]
    return draw(st.one_of([*leaves, *more]))


@st.composite
def predicates(draw: DrawFn, schema: Schema, depth: int = 2, inside: bool = False) -> Expr:
    if depth == 0:
        return draw(exprs(schema, Type.BOOLEAN, 0, inside))
    again = predicates(schema, depth - 1, inside)
    present = sorted({c.type for c in schema if c.type is not Type.ANY}) or [Type.STRING]
    type = draw(st.sampled_from(present) | st.sampled_from([t for t in Type if t is not Type.ANY]))

    def item(kind: Type) -> SearchStrategy[Expr]:
        return exprs(schema, kind, depth - 1, inside)

    options = st.lists(literals(type), max_size=8).map(tuple)
    blocks = st.lists(st.sampled_from(BLOCKS), max_size=2).map(tuple)
    ops = st.sampled_from(["=", "<", "<=", ">", ">="])
    some = st.lists(again, max_size=3).map(tuple)
    strategies: list[SearchStrategy[Expr]] = [
        st.builds(Compare, ops, item(type), item(type) | literals(type)),
        st.builds(In, item(type), options),
        st.builds(Like, item(Type.STRING), patterns(), st.booleans()),
        st.builds(Matches, item(Type.STRING), st.sampled_from(REGEXES)),
        st.builds(InBlocks, item(Type.STRING), blocks),
        st.builds(IsNull, st.sampled_from(Type).flatmap(item)),
        st.builds(Not, again),
        st.builds(And, some),
        st.builds(Or, some),
        st.builds(HasBit, item(Type.INTEGER), st.integers(0, BIT_MAX) | st.integers(0, 3)),
        st.builds(AnyOf, item(Type.ANY), paths(), predicates(schema, depth - 1, inside=True)),
    ]
    return draw(st.one_of(strategies))


def joined(pieces: list[str | Wild]) -> tuple[str | Wild, ...]:
    """Neighbouring literal pieces as one, as a parser gives them."""
    merged: list[str | Wild] = []
    for piece in pieces:
        if merged and isinstance(piece, str) and isinstance(merged[-1], str):
            merged[-1] += piece
        else:
            merged.append(piece)
    return tuple(merged)
