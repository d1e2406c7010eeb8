"""Owns going back in the history of a mapping, as pure changes; reads and stores nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from roster.base.errors import Code, Error
from roster.model.mapping import Mapping

Past = Callable[[int], Mapping]
"""Gives the mapping of an older version, which never changes. Error: NOT_FOUND for one that never was."""


def content_of(mapping: Mapping) -> int:
    """The version whose content a mapping has: its own, or the one that an undo brought back."""
    return mapping.version if mapping.restores is None else mapping.restores


def undo(mapping: Mapping, past: Past) -> Mapping:
    """The next version, with the content before the newest change that is not undone yet. Error: CONFLICT."""
    content = content_of(mapping)
    if content == 0:
        message = f"nothing is left to undo: the mapping of {mapping.entity} is what it was before its first change"
        raise Error(Code.CONFLICT, message, hint="`to` brings back the mapping of any version")
    return _bring_back(mapping, past(content - 1))


def restore(mapping: Mapping, past: Past, version: int) -> Mapping:
    """The next version, with the content of an older one; the same mapping when it has that. Error: NOT_FOUND."""
    wanted = past(version)
    return mapping if content_of(wanted) == content_of(mapping) else _bring_back(mapping, wanted)


def _bring_back(mapping: Mapping, wanted: Mapping) -> Mapping:
    """All of its content, stamps too: whoever reads it gets what was read then."""
    return replace(wanted, version=mapping.version + 1, restores=content_of(wanted))
