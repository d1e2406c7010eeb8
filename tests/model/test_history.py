"""Undo and restore, against a plain model of them: a path of contents that undo walks back."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings, strategies as st

from roster.base.errors import Code, Error
from roster.model.changes import create, delete
from roster.model.connection import CreateRequest, Field
from roster.model.history import content_of, restore, undo
from roster.model.mapping import Mapping, empty
from roster.model.schema import Entity, Type

UNDO = -1


class History:
    """All versions of a mapping, as a store would keep them."""

    def __init__(self) -> None:
        self.kept = [empty(Entity.USERS)]

    def past(self, version: int) -> Mapping:
        if not 0 <= version < len(self.kept):
            raise Error(Code.NOT_FOUND, f"no version {version}")
        return self.kept[version]

    @property
    def newest(self) -> Mapping:
        return self.kept[-1]

    def keep(self, mapping: Mapping) -> None:
        if mapping != self.newest:
            assert mapping.version == len(self.kept)
            self.kept.append(mapping)

    def edit(self) -> None:
        """A change that no other equals, stamps included."""
        now_ms = len(self.kept)
        if now_ms % 3 == 0 and self.newest.connections:
            self.keep(delete(self.newest, self.newest.connections[0].id))
            return
        request = CreateRequest(f"c{now_ms}", "ref_table", "email", "email", (Field(f"f{now_ms}", "s", Type.STRING),))
        self.keep(create(self.newest, request, who=f"w{now_ms}", now_ms=now_ms, source_columns=None))


def plain(mapping: Mapping) -> Mapping:
    """All but its number."""
    return replace(mapping, version=0)


@settings(max_examples=300)
@given(st.lists(st.just(None) | st.integers(UNDO, 12), max_size=25))
def test_undo_and_restore_do_what_a_path_of_contents_says(steps: list[int | None]) -> None:
    """`before` tells of each own version what was there when it was made; undo steps along it."""
    history = History()
    before: dict[int, int] = {}
    now = 0
    contents = [0]
    for step in steps:
        count = len(history.kept)
        if step is None:
            history.edit()
            before[count] = now
            now = count
        elif step == UNDO and now == 0:
            with pytest.raises(Error, match="nothing is left to undo"):
                undo(history.newest, history.past)
        elif step == UNDO:
            history.keep(undo(history.newest, history.past))
            now = before[now]
        elif step >= count:
            with pytest.raises(Error):
                restore(history.newest, history.past, step)
        else:
            history.keep(restore(history.newest, history.past, step))
            now = contents[step]
        contents += [now] * (len(history.kept) - count)
        assert content_of(history.newest) == now
        assert plain(history.newest) == plain(history.kept[now])
    assert contents == [content_of(m) for m in history.kept]


def test_undo_skips_what_is_undone() -> None:
    history = History()
    history.edit()
    history.edit()
    history.keep(undo(history.newest, history.past))
    history.edit()
    assert [content_of(m) for m in history.kept] == [0, 1, 2, 1, 4]
    for content in (1, 0):
        history.keep(undo(history.newest, history.past))
        assert content_of(history.newest) == content
    with pytest.raises(Error) as caught:
        undo(history.newest, history.past)
    assert caught.value.code is Code.CONFLICT


def test_restoring_what_is_there_changes_nothing() -> None:
    history = History()
    history.edit()
    assert restore(history.newest, history.past, 1) is history.newest
    history.keep(undo(history.newest, history.past))
    for same in (0, 2):
        assert restore(history.newest, history.past, same) is history.newest
    history.keep(restore(history.newest, history.past, 1))
    assert (history.newest.version, history.newest.restores) == (3, 1)
