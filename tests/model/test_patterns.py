"""A pattern that is accepted is one that the engine reads, and reads alike."""

from __future__ import annotations

import duckdb
import pytest
import re2

from roster.base.errors import Error
from roster.model.rules import parse_pattern

PATTERNS = [
    "a.c",
    r"\d+\s?\w*",
    "(?i)gold|silver",
    r"\pL+",
    r"\p{Greek}",
    r"[[:alpha:]]",
    r"(?P<name>a)b",
    r"\Qa.b\E",
    r"\x{1F600}",
    r"(?s).*",
    r"(?U)a+",
    r"\C",
    r"a{2,5}",
    r"^a$",
    r"\bword\b",
    r"\A\z",
    "[^\\n]*",
    "",
    "ü+",
]
REFUSED = ["(?<n>a)", "(?=a)", r"(a)\1", "(", "[", "*", "a{5000}", r"\p{Nope}", "(?<=a)b", r"\Z"]
TEXTS = ["abc", "GOLD", "12 x", "üü", "a.b", "word", "", "aaa", "ab", "a\nb", "😀"]


@pytest.mark.parametrize("pattern", PATTERNS)
def test_the_engine_reads_what_is_accepted(pattern: str) -> None:
    try:
        parse_pattern(pattern, "")
    except Error:
        return
    for text in TEXTS:
        found = duckdb.execute("SELECT regexp_full_match($1, $2)", [text, pattern]).fetchone()
        assert found is not None
        assert found[0] == (re2.fullmatch(pattern, text) is not None), text


@pytest.mark.parametrize("pattern", REFUSED)
def test_what_no_engine_reads_is_refused(pattern: str) -> None:
    with pytest.raises(Error, match="cannot be read"):
        parse_pattern(pattern, "/at")
