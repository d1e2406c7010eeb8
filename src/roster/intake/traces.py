"""Owns finding one person in lines that could not be stored, and dropping those. Knows no engine.

A line is of a person when one of its values is an id of theirs, or holds an e-mail address of theirs; in text that
is no JSON, when an id stands there as a word of its own. Rather a line too many than one too few.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterable, Mapping as Map, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


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
        try:
            return self._is_in_value(json.loads(text))
        except (ValueError, RecursionError):
            return self._has_email(text) or any(
                re.search(rf"(?<![\w.@-]){re.escape(id)}(?![\w.@-])", text) for id in self.ids
            )

    def _is_in_value(self, value: Any) -> bool:
        match value:
            case dict():
                return any(self._is_in_value(k) or self._is_in_value(v) or self._is_id(k, v) for k, v in value.items())
            case list():
                return any(map(self._is_in_value, value))
            case str():
                inner = value.lstrip()[:1] in ("{", "[")  # a sample keeps the line that was sent as text
                return value in self.ids or self._has_email(value) or (inner and self._is_in_text(value))
            case _:
                return False

    def _is_id(self, key: str, value: Any) -> bool:
        """A number is an id only where one stands: others that are equal say nothing of anybody."""
        return type(value) is int and (key == "id" or key.endswith("_id")) and str(value) in self.ids

    def _has_email(self, text: str) -> bool:
        folded = text.casefold()
        return any(email in folded for email in self.emails)


Drop = Callable[[Person, bool], int]
"""Drops what is of a person, or with True only counts it; gives the number of lines."""


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
        return {name: drop(person, dry_run) for name, drop in self._places.items()}


def drop_from_folder(folder: Path, person: Person, dry_run: bool) -> int:
    """Rewrite the files of lines in a folder without those of a person; a file without lines goes."""
    dropped = 0
    for path in sorted(folder.glob("*.ndjson")) if folder.is_dir() else ():
        lines = [line for line in path.read_bytes().split(b"\n") if line]
        kept = [line for line in lines if not person.is_in(line)]
        dropped += len(lines) - len(kept)
        if len(kept) < len(lines) and not dry_run:
            _rewrite(path, kept)
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
