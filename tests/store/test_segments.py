"""Segments, saved queries and uses in our own records: they come back, names are taken once, counts add up."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest

from roster.base.errors import Code, Error
from roster.model import saved_query
from roster.model.schema import Entity
from roster.model.segment import Segment, change, draft
from roster.model.use import Use
from roster.store.database import Database

QUERY: dict[str, Any] = {"profiles": [{"name": "a", "query": 'name:"é\x00\u2028" OR *'}], "combination": "!a"}
SEGMENT = draft("s1", "Gold é", QUERY, "who\npays", ("b", "a,b"), who="ann", now_ms=1_700_000_000_000)
USE = Use(Entity.USERS, "level", "tier", "QueryUsers", "ann", 2, 1_700_000_000_000)


def renamed(name: str) -> Any:
    return lambda segment: change(segment, name=name, who="bob", now_ms=9)


def test_segments_come_back(database: Database) -> None:
    others = [replace(SEGMENT, id=name, name=name) for name in ("Z", "a b", "ab")]
    for segment in (SEGMENT, *others):
        assert database.add_segment(segment) == segment
        assert database.find_segment(segment.id) == segment
    assert database.find_segment("S1") is None
    assert database.list_segments() == [SEGMENT, *others], "in the same order everywhere"


def test_a_name_is_taken_once_and_saying_it_again_is_no_change(database: Database) -> None:
    database.add_segment(SEGMENT)
    assert database.add_segment(replace(SEGMENT, id="s2", created_by="bob", created_ms=9)) == SEGMENT
    with pytest.raises(Error) as refused:
        database.add_segment(replace(SEGMENT, id="s2", description="else"))
    assert (refused.value.code, refused.value.at) == (Code.CONFLICT, "/data/attributes/name")
    database.add_segment(replace(SEGMENT, id="s2", name="Silver"))
    with pytest.raises(Error) as refused:
        database.change_segment("s2", renamed(SEGMENT.name))
    assert refused.value.code is Code.CONFLICT
    assert [s.name for s in database.list_segments()] == ["Gold é", "Silver"]


def test_a_segment_changes_from_what_is_kept(database: Database) -> None:
    database.add_segment(SEGMENT)

    def tag(n: int) -> Segment:
        return database.change_segment("s1", lambda s: change(s, tags=(*s.tags, str(n)), who="bob", now_ms=n))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(tag, range(20)))
    kept = database.find_segment("s1")
    assert kept is not None
    assert (kept.version, sorted(kept.tags)) == (21, sorted([*SEGMENT.tags, *map(str, range(20))]))
    assert database.change_segment("s1", lambda s: s) == kept
    with pytest.raises(Error) as refused:
        database.change_segment("s2", lambda s: s)
    assert refused.value.code is Code.NOT_FOUND


def test_a_removed_segment_is_gone_and_the_audit_log_has_it(database: Database) -> None:
    database.add_segment(SEGMENT)
    database.change_segment("s1", renamed("Silver"))
    assert database.remove_segment("s1", who="eve", now_ms=10) == renamed("Silver")(SEGMENT)
    assert database.remove_segment("s1", who="eve", now_ms=11) is None
    assert database.list_segments() == []
    removed, changed, added = database.list_audit(10)
    assert [(e.who, e.action, e.target) for e in (added, changed, removed)] == [
        ("ann", "segment.added", "s1"),
        ("bob", "segment.changed", "s1"),
        ("eve", "segment.removed", "s1"),
    ]
    assert changed.detail["/name"] == ["Gold é", "Silver"]
    assert removed.detail["data_query"] == SEGMENT.data_query


def test_queries_come_back_and_are_replaced(database: Database) -> None:
    query = saved_query.draft("b", "QueryUsers", {"data": {"q": "é\x00"}}, who="ann", now_ms=1)
    other = replace(query, name="B")
    assert (database.put_query(query), database.put_query(other)) == (query, other)
    assert (database.find_query("b"), database.list_queries()) == (query, [other, query])
    assert database.put_query(replace(query, updated_ms=7, updated_by="bob")) == query, "it says the same"
    newer = saved_query.draft("b", "QueryAccounts", {}, who="bob", now_ms=8)
    assert database.put_query(newer) == replace(newer, created_ms=1)
    assert database.remove_query("b", who="eve", now_ms=9)
    assert not database.remove_query("b", who="eve", now_ms=9)
    assert database.list_queries() == [other]
    told = [(e.who, e.action, e.target) for e in database.list_audit(10)]
    assert told == [
        ("eve", "query.removed", "b"),
        ("bob", "query.changed", "b"),
        ("ann", "query.added", "B"),
        ("ann", "query.added", "b"),
    ]


def test_uses_add_up_and_old_ones_are_forgotten(database: Database) -> None:
    later = replace(USE, spelled="level", last_ms=USE.last_ms + 5)
    account = replace(USE, entity=Entity.ACCOUNTS)
    database.add_uses([USE, later, account], 0)
    assert database.list_uses(Entity.USERS) == [later, USE]
    database.add_uses([replace(USE, count=3, last_ms=5), replace(later, last_ms=later.last_ms + 1), USE], 0)
    assert database.list_uses(Entity.USERS) == [
        replace(later, count=4, last_ms=later.last_ms + 1),
        replace(USE, count=7),
    ]
    assert database.list_uses(Entity.ACCOUNTS) == [account]
    database.add_uses([], USE.last_ms + 1)
    assert database.list_uses(Entity.USERS) == [replace(later, count=4, last_ms=later.last_ms + 1)]
    assert database.list_uses(Entity.ACCOUNTS) == []
    assert database.list_audit(10) == []


def test_uses_added_by_many_at_once(database: Database) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: database.add_uses([replace(USE, count=n)], 0), range(1, 21)))
    assert database.list_uses(Entity.USERS) == [replace(USE, count=210)]
