"""Owns the rules of values: what a field accepts, and which source's value an attribute takes. Reads no value."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import re2

from roster.base.errors import Code, Error

ALLOWED_MAX = 1000
ORDER_MAX = 100
PATTERN_MAX = 1000
PATTERN_BYTES_MAX = 1 << 20
"""What a compiled pattern may take: others are read row by row and would cost every query."""


class Nulls(StrEnum):
    """What a cell without a value means where several sources offer an attribute.

    SKIP: that source offers nothing, the next one counts. CLEAR: if that source counts, there is no value.
    """

    SKIP = "skip"
    CLEAR = "clear"


class Choice(StrEnum):
    """Which source counts of those that found a row for a profile.

    PRECEDENCE: the first in order. NEWEST: the one whose row changed last, by the column `changed_at` of its
    connection; rows without such a time are the oldest, among equals the order decides. NON_EMPTY: the first
    in order with a value that is not blank.
    """

    PRECEDENCE = "precedence"
    NEWEST = "newest"
    NON_EMPTY = "non_empty"


@dataclass(frozen=True, slots=True)
class Rules:
    """What a field accepts: `allowed` and `pattern` look at the value's text; empty ones accept everything."""

    nulls: Nulls = Nulls.SKIP
    allowed: tuple[str, ...] = ()
    pattern: str = ""

    def refuse(self) -> str:
        """What is wrong with a value that they do not accept."""
        if self.allowed:
            return f"is none of {', '.join(self.allowed[:5])}{' …' if len(self.allowed) > 5 else ''}"
        return f"does not match {self.pattern}"


NO_RULES = Rules()


@dataclass(frozen=True, slots=True)
class Conflict:
    """How the sources that offer one attribute agree: `order` names connections, the others follow as they stand."""

    field_id: str
    choice: Choice
    order: tuple[str, ...] = ()


def parse_nulls(text: str, at: str) -> Nulls:
    """The null rule of that name. Error: INVALID."""
    try:
        return Nulls(text.strip().lower())
    except ValueError:
        hint = f"allowed: {', '.join(Nulls)}"
        raise Error(Code.INVALID, f"unknown null rule {text!r}", at=at, hint=hint) from None


def parse_choice(text: str, at: str) -> Choice:
    """The conflict rule of that name. Error: INVALID."""
    try:
        return Choice(text.strip().lower().replace("-", "_"))
    except ValueError:
        hint = f"allowed: {', '.join(Choice)}"
        raise Error(Code.INVALID, f"unknown conflict rule {text!r}", at=at, hint=hint) from None


def parse_allowed(values: list[str], at: str) -> tuple[str, ...]:
    """The allowed values, each once. Error: INVALID for too many."""
    distinct = tuple(dict.fromkeys(values))
    if len(distinct) > ALLOWED_MAX:
        raise Error(Code.INVALID, f"{len(distinct)} allowed values are too many", at=at, hint=f"at most {ALLOWED_MAX}")
    return distinct


def parse_pattern(text: str, at: str) -> str:
    """A pattern that the whole text of a value must match; empty for none. Error: INVALID."""
    if len(text) > PATTERN_MAX:
        raise Error(
            Code.INVALID, f"a pattern of {len(text)} characters is too long", at=at, hint=f"at most {PATTERN_MAX}"
        )
    if "(?<" in text:
        hint = "name a group as (?P<name>...), or leave it without a name"
        raise Error(Code.INVALID, "the pattern cannot be read: (?<", at=at, hint=hint)
    options = re2.Options()
    options.log_errors = False
    options.max_mem = PATTERN_BYTES_MAX
    try:
        re2.compile(text, options)
    except re2.error as error:
        told = error.args[0]
        message = f"the pattern cannot be read: {told.decode() if isinstance(told, bytes) else told}"
        raise Error(Code.INVALID, message, at=at, hint="RE2 syntax: no look-around, no back-references") from error
    return text


def parse_order(ids: list[str], at: str) -> tuple[str, ...]:
    """Connection ids in order, each once. Error: INVALID for too many."""
    distinct = tuple(dict.fromkeys(ids))
    if len(distinct) > ORDER_MAX:
        raise Error(Code.INVALID, f"an order of {len(distinct)} is too long", at=at, hint=f"at most {ORDER_MAX}")
    return distinct


def check_rules(rules: Rules, at: str) -> Rules:
    """The same rules. Error: INVALID when values and a pattern are both given: a cell has one reason."""
    if rules.allowed and rules.pattern:
        hint = "keep one of them; an empty one takes it away"
        raise Error(Code.INVALID, "allowed values and a pattern exclude each other", at=at, hint=hint)
    return rules
