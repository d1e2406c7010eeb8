"""Both mappings in one transaction: every one is kept, or none."""

from __future__ import annotations

from collections.abc import Mapping as Map
from dataclasses import replace

import pytest

from roster.base.errors import Code, Error
from roster.model.changes import create
from roster.model.connection import CreateRequest
from roster.model.mapping import Mapping
from roster.model.schema import Entity
from roster.store.database import Database

WISH = CreateRequest("crm", "ref_table", "", "key")
JOIN = {Entity.USERS: "user_id", Entity.ACCOUNTS: "account_id"}


def connected(present: Map[Entity, Mapping]) -> dict[Entity, Mapping]:
    return {
        entity: create(mapping, replace(WISH, join_type=JOIN[entity]), who="w", now_ms=5, source_columns=None)
        for entity, mapping in present.items()
    }


def versions(database: Database) -> list[int]:
    return [database.read_mapping(entity).version for entity in Entity]


def test_both_are_kept_with_their_history(database: Database) -> None:
    kept = database.change_mappings(connected, who="w", why="y", request={"r": 1}, now_ms=5)
    assert versions(database) == [1, 1]
    assert {entity: database.read_mapping(entity) for entity in Entity} == kept
    for entity in Entity:
        (only,) = database.list_versions(entity)
        assert (only.who, only.why, only.request) == ("w", "y", {"r": 1})
    database.change_mappings(connected, who="w", why="y", request={}, now_ms=6)
    assert versions(database) == [1, 1]


def test_one_that_changes_alone_makes_one_version(database: Database) -> None:
    database.change_mappings(
        lambda present: {**present, Entity.USERS: connected(present)[Entity.USERS]},
        who="w",
        why="",
        request={},
        now_ms=5,
    )
    assert versions(database) == [1, 0]


def test_an_error_in_the_second_leaves_the_first(database: Database) -> None:
    def half(present: Map[Entity, Mapping]) -> dict[Entity, Mapping]:
        made = connected(present)
        return made | {Entity.ACCOUNTS: replace(made[Entity.ACCOUNTS], version=7)}

    with pytest.raises(Error) as caught:
        database.change_mappings(half, who="w", why="", request={}, now_ms=5)
    assert caught.value.code is Code.INTERNAL
    assert versions(database) == [0, 0]
    assert all(database.list_versions(entity) == [] for entity in Entity)
