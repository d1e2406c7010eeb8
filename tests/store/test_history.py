"""What an undo brought back is kept beside the mapping, and history is read a page at a time."""

from __future__ import annotations

from dataclasses import replace

import pytest
from alembic import command
from sqlalchemy import text

from roster.base.errors import Code, Error
from roster.model.history import content_of, restore, undo
from roster.model.mapping import Mapping, diff_versions, empty, to_json
from roster.model.schema import Entity
from roster.store.connections import Connections, write_json
from roster.store.database import Database
from roster.store.migration import alembic_config
from store.writing_process import add_field, connect

USERS = Entity.USERS


def change(database: Database, how: object) -> Mapping:
    return database.change_mapping(USERS, how, who="ann", why="", request=None, now_ms=9)  # type: ignore[arg-type]


def take_back(database: Database, to: int | None = None) -> Mapping:
    def past(version: int) -> Mapping:
        return database.read_mapping(USERS, version)

    return change(database, lambda m: undo(m, past) if to is None else restore(m, past, to))


@pytest.fixture
def three(database: Database) -> Database:
    """A mapping of three versions."""
    change(database, connect)
    add_field(database, "a")
    add_field(database, "b")
    return database


def test_an_undo_is_kept_and_read_back(three: Database, where: str) -> None:
    second = three.read_mapping(USERS, 2)
    undone = take_back(three)
    assert undone == replace(second, version=4)
    newest = three.list_versions(USERS)[0]
    assert (newest.version, newest.restores, newest.diff) == (
        4,
        2,
        diff_versions(three.read_mapping(USERS, 3), second),
    )
    other = Database.open(where, organisation_id_if_new="", now_ms=1)  # one that has nothing in mind
    for kept in (three.read_mapping(USERS), three.read_mapping(USERS, 4), other.read_mapping(USERS)):
        assert (kept, content_of(kept)) == (undone, 2)
    other.close()


def test_undos_walk_back_to_the_start(three: Database) -> None:
    assert [content_of(take_back(three)) for _ in range(3)] == [2, 1, 0]
    assert three.read_mapping(USERS) == replace(empty(USERS), version=6)
    with pytest.raises(Error) as caught:
        take_back(three)
    assert caught.value.code is Code.CONFLICT
    assert take_back(three, 3) == replace(three.read_mapping(USERS, 3), version=7)
    assert add_field(three, "c").restores is None
    assert [v.restores for v in three.list_versions(USERS)] == [None, 3, 0, 1, 2, None, None, None]
    assert content_of(take_back(three)) == 3


def test_a_second_process_sees_an_undo(three: Database, where: str) -> None:
    """The mapping read last is in mind; only its number tells whether it is the newest."""
    other = Database.open(where, organisation_id_if_new="", now_ms=1)
    assert other.read_mapping(USERS).version == 3
    take_back(three)
    assert content_of(other.read_mapping(USERS)) == 2
    assert content_of(take_back(other)) == 1
    assert content_of(three.read_mapping(USERS)) == 1
    other.close()


def test_bringing_back_what_is_there_makes_no_version(three: Database) -> None:
    assert take_back(three, 3).version == 3
    take_back(three, 1)
    assert take_back(three, 1).version == take_back(three, 4).version == 4
    assert len(three.list_versions(USERS)) == 4


def test_a_version_that_never_was_is_not_brought_back(three: Database) -> None:
    with pytest.raises(Error) as caught:
        take_back(three, 4)
    assert caught.value.code is Code.NOT_FOUND
    assert len(three.list_versions(USERS)) == 3


def test_history_has_pages(three: Database) -> None:
    def read(**asked: int) -> list[int]:
        return [v.version for v in three.list_versions(USERS, **asked)]

    assert read() == [3, 2, 1]
    assert read(limit=2) == [3, 2]
    assert read(before=3, limit=1) == [2]
    assert read(before=1) == read(after=3) == read(before=2, after=1) == []
    assert read(before=2**53, after=1) == [3, 2]
    assert three.list_versions(Entity.ACCOUNTS, limit=2) == []


def test_versions_made_before_undo_are_kept(where: str) -> None:
    connections = Connections(where)
    mapping = connect(empty(USERS))
    with connections.write() as connection:
        command.upgrade(alembic_config(connection), "0002")
        connection.execute(
            text("INSERT INTO mapping_versions VALUES ('users', 1, 5, 'ann', '', 'null', '[]', :mapping)"),
            {"mapping": write_json(to_json(mapping))},
        )
    connections.close()
    database = Database.open(where, organisation_id_if_new="org-1", now_ms=1)
    assert database.read_mapping(USERS) == mapping
    assert [v.restores for v in database.list_versions(USERS)] == [None]
    assert content_of(take_back(database)) == 0
    database.close()
