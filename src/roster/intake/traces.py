"""Owns finding one person in lines that could not be stored, and dropping those. Knows no engine.

A line is of a person when one of its values is an id of theirs, or holds an e-mail address of theirs; in text that
is no JSON, when an id stands there as a word of its own, escaped or not. Rather a line too many than one too few.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping as Map, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

_BEFORE = "\ufeff \t\r\n"
_ESCAPE = re.compile(r"\\(?:u([0-9a-fA-F]{4})|([^u]))", re.DOTALL)
_CONTROLS = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}
_LEVELS = 4
"""How often text is looked at with one more escaping taken off: JSON in JSON in a log line."""


@dataclass(frozen=True, slots=True)
class Person:
    """What a person is known by."""

    ids: frozenset[str]
    emails: frozenset[str]

    @classmethod
    def known_by(cls, ids: Iterable[str], emails: Iterable[str]) -> Person:
        return cls(frozenset(ids), frozenset(email.casefold() for email in emails))

    def is_in(self, line: bytes) -> bool:
        """Whether a line is of this person."""
        return self._is_in_text(line.decode("utf-8", "replace"))

    def _is_in_text(self, text: str) -> bool:
        """A line that was sent: by its values where it is an object or array, else as it is written."""
        try:
            value = _decode(text.lstrip(_BEFORE))
        except (ValueError, RecursionError):
            value = None
        return self._is_in_value(value) if isinstance(value, tuple | list) else self._is_written_in(text)

    def _is_written_in(self, text: str) -> bool:
        words = _words(self.ids)
        return any(self._has_email(form) or words.search(form) is not None for form in _forms(text))

    def _is_in_value(self, value: Any) -> bool:
        match value:
            case tuple():
                return any(
                    self._is_in_value(k) or self._is_in_value(v) or self._is_id(k, v) or self._is_line(k, v)
                    for k, v in value
                )
            case list():
                return any(map(self._is_in_value, value))
            case str():
                inner = value.lstrip(_BEFORE)[:1] in ("{", "[")
                return value in self.ids or self._has_email(value) or (inner and self._is_in_text(value))
            case _:
                return False

    def _is_line(self, key: str, value: Any) -> bool:
        """A sample keeps the line that was sent as text, whatever it was."""
        return key == "line" and type(value) is str and self._is_in_text(value)

    def _is_id(self, key: str, value: Any) -> bool:
        """A number is an id only where one stands: others that are equal say nothing of anybody."""
        return type(value) is int and (key == "id" or key.endswith("_id")) and str(value) in self.ids

    def _has_email(self, text: str) -> bool:
        folded = text.casefold()
        return any(email in folded for email in self.emails)


_decode = json.JSONDecoder(object_pairs_hook=tuple).decode
"""Objects as pairs: of a name that comes twice each value counts."""


@lru_cache(maxsize=8)
def _words(ids: frozenset[str]) -> re.Pattern[str]:
    either = "|".join(re.escape(id) for id in sorted(ids) if id) or "(?!)"
    return re.compile(rf"(?<![\w.@-])(?:{either})(?![\w.@-])")


def _forms(text: str) -> Iterator[str]:
    """The text, and with each further level of JSON's escapes taken off."""
    yield text
    for _ in range(_LEVELS):
        if "\\" not in text:
            return
        text = _ESCAPE.sub(lambda m: chr(int(m[1], 16)) if m[1] else _CONTROLS.get(m[2], m[2]), text)
        text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        yield text


Drop = Callable[[Person, bool], list[bytes]]
"""Drops what is of a person, or with True only looks; gives the lines."""


class Traces:
    """Places beside the engine where lines of a person may lie."""

    def __init__(self, settle: Callable[[], object], places: Map[str, Drop]) -> None:
        self._settle = settle
        self._places = places

    def settle(self) -> None:
        """Have the engine store every event that was acknowledged before this call."""
        self._settle()

    def drop(self, ids: Sequence[str], emails: Sequence[str], *, dry_run: bool) -> dict[str, int]:
        """Drop the lines of a person in every place; how many by place."""
        person = Person.known_by(ids, emails)
        return {name: len(drop(person, dry_run)) for name, drop in self._places.items()}

    def read(self, ids: Sequence[str], emails: Sequence[str]) -> dict[str, list[bytes]]:
        """The lines of a person by place: what `drop` would drop."""
        person = Person.known_by(ids, emails)
        return {name: drop(person, True) for name, drop in self._places.items()}


def drop_from_folder(folder: Path, person: Person, dry_run: bool) -> list[bytes]:
    """Rewrite the files of lines in a folder without those of a person, which it gives; a file without lines goes.

    With `dry_run` nothing is written, and others may write at the same time.
    """
    dropped: list[bytes] = []
    for path in sorted(folder.glob("*.ndjson")) if folder.is_dir() else ():
        try:
            lines = [line for line in path.read_bytes().split(b"\n") if line]
        except FileNotFoundError:
            continue
        theirs: list[bytes] = []
        others: list[bytes] = []
        for line in lines:
            (theirs if person.is_in(line) else others).append(line)
        dropped += theirs
        if theirs and not dry_run:
            _rewrite(path, others)
    return dropped


def _rewrite(path: Path, lines: list[bytes]) -> None:
    if not lines:
        path.unlink()
        return
    fresh = path.with_suffix(".fresh")
    with fresh.open("wb") as file:
        file.write(b"\n".join(lines) + b"\n")
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)
