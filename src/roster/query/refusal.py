"""Owns why a search string cannot be read: the place, the reason and the right thing, in people's words. Reads none."""

from __future__ import annotations

import re

from roster.base.errors import Code, Error

# What may stand at a place, in people's words, most telling first. Unlisted terminals need no mention.
_WORDS = {
    "TEXT": "a term such as country:FR",
    "VALUE": "a value",
    "ITEM": "a value",
    "BOUND": "a number or a date",
    "STAR": "* for an open end",
    "_TO": "TO, as in [1 TO 3]",
    "CLOSE": "] or }, as in [1 TO 3]",
    "CIDR_KEY": "an attribute, as in CIDR(@ip, 10.0.0.0/8)",
    "_COMMA": "a comma and an address block, as in CIDR(@ip, 10.0.0.0/8)",
    "BLOCK": "an address block such as 10.0.0.0/8",
    "_RPAR": ")",
}
_CLOSED = re.compile(r'"(?:[^"\\]|\\[\s\S])*+"')
_KEYWORD = re.compile(r'(?:AND|OR|NOT)(?![^\s()"])')
_WORD = re.compile(r'(?:[^\s"():<>=\\“”]|\\[\s\S])*+')
_VALUE = re.compile(r'(?:[^\s"\\“”]|\\[\s\S])*+')


def unreadable(message: str, offset: int, hint: str) -> Error:
    """The error for a 0-based offset."""
    return Error(Code.INVALID, message, at=f"character {offset + 1}", hint=hint)


def refusal(text: str, offset: int, accepted: set[str], opened: list[int]) -> Error:
    """Why the language ends at `offset`, where it would go on with one of the accepted terminals."""
    expected = "expected " + " or ".join(dict.fromkeys(words for kind, words in _WORDS.items() if kind in accepted))
    sign = text[offset : offset + 1]
    if not sign and opened and "_RPAR" in accepted:
        return unreadable("this parenthesis is never closed", opened[-1], r"add a ), or write \( for the sign itself")
    if not sign:
        return unreadable("the search ends too early", offset, expected)
    if sign == ")" and not opened:
        return unreadable("this parenthesis closes nothing", offset, r"remove it, or write \) for the sign itself")
    if sign == '"' and not _CLOSED.match(text, offset):
        return unreadable("this quote is never closed", offset, r'add a ", or write \" for the sign itself')
    if sign == '"' and "QUOTED" in accepted:
        return unreadable(
            "text touches the closing quote", offset, r'put a space after it; inside quotes write \" for "'
        )
    if keyword := _KEYWORD.match(text, offset):
        hint = f'{expected}; for the word itself write "{keyword[0]}"'
        return unreadable(f"{keyword[0]} stands where a term belongs", offset, hint)
    if sign in "-!" and "TEXT" in accepted:
        hint = rf"write {sign} right before what it excludes, or \{sign} for the sign itself"
        return unreadable(f"{sign} has nothing to exclude", offset, hint)
    if accepted & {"VALUE", "ITEM", "TEXT"} and sign != ")":
        return _in_word(text, offset, in_value="TEXT" not in accepted)
    return unreadable(f"{sign!r} cannot stand here", offset, expected)


def _in_word(text: str, offset: int, *, in_value: bool) -> Error:
    """Why no word (a value, or free text or a key) can be read at `offset`."""
    found = (_VALUE if in_value else _WORD).match(text, offset)
    end = found.end() if found else offset
    sign, after = text[end : end + 1], text[end + 1 : end + 2]
    match sign:
        case "“" | "”":
            return unreadable(
                "this is a typographic quote", end, f'write a straight quote ("), or \\{sign} for the sign itself'
            )
        case "\\":
            return unreadable("this backslash escapes nothing", end, r"write \\ for the sign itself")
        case '"':
            return unreadable("a quote inside a word", end, r"put a space before it, or write \" for the sign itself")
        case _ if in_value and text[offset] in "<>=[{":
            hint = f"write name:5, name:>=5 or name:[1 TO 3], each with its own name; or \\{text[offset]}"
            return unreadable(f"{text[offset]} cannot begin a value", offset, hint)
        case _ if in_value:
            return unreadable("the parentheses in this value do not balance", offset, "put the value in quotes")
        case ":" if end == offset:
            return unreadable("no attribute is named before ':'", end, "write name:value")
        case ":" if not after.strip() or after == ")":
            return unreadable(
                "a value is missing after ':'", end, r"write name:value, name:* for any value, or \: for the sign"
            )
        case ":":
            return unreadable(
                "an attribute's name cannot hold * or ?", offset, r"write \* or \? for the sign itself, or *:value"
            )
        case "(":
            return unreadable(
                "a parenthesis inside a word", end, r"put a space before it, or write \( for the sign itself"
            )
        case _:
            hint = f"write name:5 or name:>=5, with a ':'; or \\{sign} for the sign itself"
            return unreadable(f"{sign} cannot stand in a word", end, hint)
