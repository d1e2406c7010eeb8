"""Owns whether a search over events asks for the rows that are computed for sessions. Builds no plan."""

from __future__ import annotations

import re
from collections.abc import Callable

from roster.query import search
from roster.query.expr import Wild

SESSION = "session"
"""The type of such rows."""
IsType = Callable[[str], bool]
"""Whether a name means the type of events."""


def decides_on_sessions(tree: search.Tree, is_type: IsType) -> bool:
    """Whether a search says by itself if it means rows of sessions: others leave them out.

    It does where all that it finds is of a type that it names, or where it names that of sessions. What it
    negates it does not name.
    """
    items = tree.items if isinstance(tree, search.And) else (tree,)
    return any(_is_of_types(item, is_type) for item in items) or _names_sessions(tree, is_type, wanted=True)


def _is_of_types(tree: search.Tree, is_type: IsType) -> bool:
    """It is made of nothing but types."""
    match tree:
        case search.And(items) | search.Or(items):
            return all(_is_of_types(item, is_type) for item in items)
        case search.Match(key) | search.Compare(key) | search.Range(key) | search.Cidr(key):
            return is_type(key.name)
        case _:
            return False


def _names_sessions(tree: search.Tree, is_type: IsType, *, wanted: bool) -> bool:
    """A part that is wanted, or not, is true of the type of sessions."""
    match tree:
        case search.And(items) | search.Or(items):
            return any(_names_sessions(item, is_type, wanted=wanted) for item in items)
        case search.Not(item):
            return _names_sessions(item, is_type, wanted=not wanted)
        case search.Match(key, pattern):
            return wanted and is_type(key.name) and _fits(pattern)
        case search.Compare(key) | search.Range(key) | search.Cidr(key):
            return wanted and is_type(key.name)
        case _:
            return False


def _fits(pattern: search.Pattern) -> bool:
    wild = {Wild.ANY: ".*", Wild.ONE: "."}
    parts = (re.escape(piece) if isinstance(piece, str) else wild[piece] for piece in pattern.pieces)
    return re.fullmatch("".join(parts), SESSION) is not None
