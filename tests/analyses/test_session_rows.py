"""Which searches over events mean the rows that are computed for sessions, by what they name and what they negate."""

from __future__ import annotations

import pytest

from analyses.event_worlds import WORLD
from roster.analyses.event_world import IS_SESSION_ROW
from roster.query.expr import Not, conjuncts


@pytest.mark.parametrize(
    ("text", "left_out"),
    [
        ("", True),
        ("*", True),
        ("*:s-ann", True),
        ("free text", True),
        ("@session.id:s-ann", True),
        ("@session.id:s-ann -@type:action", True),
        ("-@type:action", True),
        ("-@type:session", True),
        ("-(@type:session @view.name:home)", True),
        ("@type:view OR @session.id:s-ann", True),
        ("@type:(view OR action) OR @session.id:s-ann", True),
        ("@context.type:session", True),
        ("@type:session", False),
        ("type:session", False),
        ("@type:*", False),
        ("@type:s?ss*", False),
        ("@type:(view OR session)", False),
        ("@type:session OR @view.name:home", False),
        ("-(-@type:session)", False),
    ],
)
def test_rows_of_sessions_are_left_out(text: str, left_out: bool) -> None:
    assert (Not(IS_SESSION_ROW) in conjuncts(WORLD.resolve("/q", text).where)) is left_out


@pytest.mark.parametrize("text", ["@type:view", "@type:(view OR action) @view.name:home"])
def test_a_search_of_types_alone_leaves_them_out_by_itself(text: str) -> None:
    """One condition more would cost time and change nothing."""
    assert WORLD.resolve("/q", text).where == WORLD.narrow("/q", text).where
