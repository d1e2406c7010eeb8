"""Owns boolean formulas over names, as `(a && b) && NOT(c)`: text to tree. Knows not what a name stands for."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from roster.base.errors import Code, Error, did_you_mean

CHARACTERS_MAX = 10_000
DEPTH_MAX = 50
NAME_FORM = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")
WORDS = {"and": "&&", "or": "||", "not": "!"}
"""Operators as words, in any letter case; no name may be one of them."""
_TOKEN = re.compile(r"\s*(&&|\|\||[()!]|[A-Za-z0-9_][A-Za-z0-9_.-]*)")


@dataclass(frozen=True, slots=True)
class Name:
    name: str


@dataclass(frozen=True, slots=True)
class And:
    items: tuple[Formula, ...]


@dataclass(frozen=True, slots=True)
class Or:
    items: tuple[Formula, ...]


@dataclass(frozen=True, slots=True)
class Not:
    item: Formula


Formula = Name | And | Or | Not


@dataclass(frozen=True, slots=True)
class _Token:
    """`text` is an operator in its short form, or a name; empty at the end. `at` is a 0-based offset."""

    text: str
    at: int


def parse_formula(text: str, known: Sequence[str], at: str) -> Formula:
    """The tree of a formula over known names; an empty one asks for all of them. Error: INVALID with the position.

    AND (`&&`) binds stronger than OR (`||`), NOT (`!`) strongest.
    """
    if not text.strip():
        return And(tuple(Name(name) for name in known))
    if len(text) > CHARACTERS_MAX:
        hint = f"at most {CHARACTERS_MAX} characters"
        raise Error(Code.INVALID, f"the formula has {len(text)} characters", at=at, hint=hint)
    try:
        return _Reader(_tokens(text), known).read()
    except Error as error:
        raise error.under(at) from error


def names_in(formula: Formula) -> frozenset[str]:
    """The names a formula is about."""
    match formula:
        case Name(name):
            return frozenset({name})
        case Not(item):
            return names_in(item)
        case And(items) | Or(items):
            return frozenset[str]().union(*map(names_in, items))


def _wrong(message: str, token: _Token, hint: str = "") -> Error:
    return Error(Code.INVALID, message, at=f"character {token.at + 1}", hint=hint)


def _tokens(text: str) -> list[_Token]:
    found, position = [], 0
    end = len(text.rstrip())
    while position < end:
        matched = _TOKEN.match(text, position)
        if matched is None:
            strange = position + len(text[position:]) - len(text[position:].lstrip())
            hint = "use names, AND, OR, NOT and parentheses"
            raise _wrong(f"{text[strange]!r} has no meaning in a formula", _Token("", strange), hint)
        word = matched[1]
        found.append(_Token(WORDS.get(word.lower(), word), matched.start(1)))
        position = matched.end()
    return [*found, _Token("", end)]


class _Reader:
    """Reads tokens from left to right."""

    def __init__(self, tokens: list[_Token], known: Sequence[str]) -> None:
        self._tokens = tokens
        self._known = known
        self._place = 0

    def read(self) -> Formula:
        made = self._either(0)
        if self._here.text:
            raise _wrong(f"{self._here.text!r} is not expected here", self._here, "join with AND or OR")
        return made

    @property
    def _here(self) -> _Token:
        return self._tokens[self._place]

    def _take(self, text: str) -> bool:
        if self._here.text != text:
            return False
        self._place += 1
        return True

    def _either(self, depth: int) -> Formula:
        items = [self._both(depth)]
        while self._take("||"):
            items.append(self._both(depth))
        return items[0] if len(items) == 1 else Or(tuple(items))

    def _both(self, depth: int) -> Formula:
        items = [self._one(depth)]
        while self._take("&&"):
            items.append(self._one(depth))
        return items[0] if len(items) == 1 else And(tuple(items))

    def _one(self, depth: int) -> Formula:
        token = self._here
        if depth > DEPTH_MAX:
            raise _wrong("the formula is nested too deeply", token, f"at most {DEPTH_MAX} levels")
        if self._take("!"):
            return Not(self._one(depth + 1))
        if self._take("("):
            made = self._either(depth + 1)
            if not self._take(")"):
                raise _wrong("a parenthesis is not closed", token, "write ) where its part ends")
            return made
        if not token.text or not NAME_FORM.match(token.text):
            told = f"a name is missing before {token.text!r}" if token.text else "the formula ends too early"
            raise _wrong(told, token, f"known: {', '.join(self._known)}")
        if token.text not in self._known:
            hint = did_you_mean(token.text, self._known) or f"known: {', '.join(self._known)}"
            raise _wrong(f"nothing is named {token.text!r}", token, hint)
        self._place += 1
        return Name(token.text)
