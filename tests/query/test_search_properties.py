"""The search language on random input: every tree survives being written and read, every text has an answer."""

from __future__ import annotations

from datetime import timedelta
from ipaddress import ip_network

from hypothesis import given, settings, strategies as st

from roster.base.errors import Code, Error
from roster.query.expr import Wild
from roster.query.search import (
    And,
    Bound,
    Cidr,
    Compare,
    Everything,
    Key,
    Match,
    Not,
    Or,
    Pattern,
    Range,
    Text,
    Tree,
    parse,
    text_of,
)


def _merged(pieces: list[str | Wild]) -> Pattern:
    merged: list[str | Wild] = []
    for piece in pieces:
        if isinstance(piece, str) and merged and isinstance(merged[-1], str):
            merged[-1] += piece
        elif piece is not Wild.ANY or not merged or merged[-1] is not Wild.ANY:
            merged.append(piece)
    return Pattern(tuple(merged))


SIGNS = st.sampled_from([*'*?"\\()[]{}<>=:,-!@#/ \t\n“”😀', "AND", "OR", "NOT", "TO", "CIDR", "now", "\x00"])
TEXTS = st.text() | st.lists(SIGNS | st.text(max_size=3), max_size=5).map("".join)
SOME_TEXT = TEXTS.filter(bool)
BARE = st.lists(SOME_TEXT | st.sampled_from(Wild), min_size=1, max_size=5).map(_merged)
QUOTED = TEXTS.map(lambda text: Pattern((text,) if text else (), quoted=True))
KEYS = st.builds(Key, SOME_TEXT)
BOUNDS = st.builds(Bound, TEXTS)
BLOCKS = st.builds(
    lambda address, prefix: str(ip_network((address, min(prefix, address.max_prefixlen)), strict=False)),
    st.ip_addresses(),
    st.integers(0, 128),
)
LEAVES = st.one_of(
    st.just(Everything()),
    st.builds(Text, BARE.filter(lambda pattern: not pattern.is_any) | QUOTED),
    st.builds(Match, KEYS, BARE | QUOTED),
    st.builds(Compare, KEYS, st.sampled_from(["<", "<=", ">", ">="]), BOUNDS),
    st.builds(Range, KEYS, st.none() | BOUNDS, st.none() | BOUNDS, st.booleans(), st.booleans()),
    st.builds(Cidr, KEYS, st.lists(BLOCKS, min_size=1, max_size=3).map(tuple)),
)


def _grown(trees: st.SearchStrategy[Tree]) -> st.SearchStrategy[Tree]:
    several = st.lists(trees, min_size=2, max_size=4).map(tuple)
    return st.builds(And, several) | st.builds(Or, several) | st.builds(Not, trees)


@settings(deadline=None, max_examples=300)
@given(st.recursive(LEAVES, _grown, max_leaves=12))
def test_every_tree_survives_being_written_and_read(tree: Tree) -> None:
    assert parse(text_of(tree), characters_max=1_000_000) == tree


FRAGMENTS = st.lists(
    SIGNS | st.sampled_from(["a", "a:", "a:b", ":[1 TO 2]", "a:>", "(a OR", "CIDR(a,1.1.1.1)"]), max_size=30
)


@settings(deadline=timedelta(seconds=5), max_examples=500)
@given(st.text() | FRAGMENTS.map("".join) | FRAGMENTS.map(" ".join))
def test_any_text_is_read_or_refused(text: str) -> None:
    refused: Error | None = None
    try:
        tree = parse(text)
    except Error as error:
        refused = error
    if refused is None:
        assert parse(text_of(tree)) == tree
        return
    assert refused.code is Code.INVALID
    assert 1 <= int(refused.at.removeprefix("character ")) <= len(text) + 1
    assert refused.message
    assert refused.hint.strip() not in ("", "expected")
