"""The port Store on a real database: what goes in comes out, each change leaves its audit row, errors leave nothing."""

from __future__ import annotations

from dataclasses import replace

import pytest

from roster.base.errors import Code, Error
from roster.model.access import Key, KeyKind
from roster.model.changes import create, update
from roster.model.connection import CreateRequest, Field, FieldUpdate, UpdateRequest
from roster.model.mapping import Mapping, diff_versions, empty
from roster.model.reference_table import Table, Upload
from roster.model.schema import Column, Entity, Type
from roster.ports import Store
from roster.store.database import Database

KEY = Key("k1", KeyKind.APPLICATION, "laptop", "ab" * 32, "9f3c", "owner-1", 1_700_000_000_000)
TABLE = Table(
    id="t1",
    name="customers",
    columns=(Column("customer_id", Type.STRING), Column("mrr", Type.NUMBER), Column("since", Type.DATE)),
    primary_key="customer_id",
    source="LOCAL_FILE",
    description="who pays — “quoted” 'text'; DROP TABLE keys",
    tags=("team:growth", "a,b"),
    row_count=3_000_000_000,
    created_by="owner-1",
    updated_by="owner-1",
    created_ms=1_700_000_000_000,
    updated_ms=1_700_000_000_000,
)
TIER = Field("customer_tier", "tier", Type.STRING, "Customer tier", "gold or silver", ("Money", "CRM"))


def connect(mapping: Mapping) -> Mapping:
    request = CreateRequest("crm", "ref_table", "email", "user_email", (TIER,), (("table_name", "customers"),))
    return create(mapping, request, who="ann", now_ms=5, source_columns=None)


def rename(mapping: Mapping) -> Mapping:
    request = UpdateRequest("crm", update=(FieldUpdate("customer_tier", "tier", updated_groups=()),))
    return update(mapping, request, who="bob", now_ms=6, source_columns=None)


def test_database_is_a_store(database: Database) -> None:
    store: Store = database
    assert store.organisation_id() == "org-1"


def test_organisation_keeps_its_id(where: str) -> None:
    Database.open(where, organisation_id_if_new="org-1", now_ms=1).close()
    again = Database.open(where, organisation_id_if_new="org-2", now_ms=2)
    assert again.organisation_id() == "org-1"
    again.close()


def test_keys_are_found_by_hash(database: Database) -> None:
    other = replace(KEY, id="k2", kind=KeyKind.CLIENT, hash="cd" * 32, created_ms=KEY.created_ms - 1)
    database.add_key(KEY)
    database.add_key(other)
    assert database.find_key(KEY.hash) == KEY
    assert database.find_key("ef" * 32) is None
    assert database.list_keys() == [other, KEY]


@pytest.mark.parametrize("twin", [replace(KEY, id="k2"), replace(KEY, hash="cd" * 32)])
def test_a_key_is_added_once(database: Database, twin: Key) -> None:
    database.add_key(KEY)
    with pytest.raises(Error) as caught:
        database.add_key(twin)
    assert caught.value.code is Code.CONFLICT
    assert database.list_keys() == [KEY]
    assert len(database.list_audit(10)) == 1


def test_revoking_keeps_the_first_time(database: Database) -> None:
    database.add_key(KEY)
    assert database.revoke_key("k1", who="ops", now_ms=7)
    assert database.revoke_key("k1", who="ops", now_ms=8)
    assert not database.revoke_key("k2", who="ops", now_ms=9)
    assert database.find_key(KEY.hash) == replace(KEY, revoked_ms=7)
    assert [(e.at_ms, e.action, e.target) for e in database.list_audit(10)] == [
        (7, "key.revoked", "k1"),
        (KEY.created_ms, "key.created", "k1"),
    ]


def test_no_secret_of_a_key_reaches_the_audit(database: Database) -> None:
    database.add_key(KEY)
    database.revoke_key("k1", who="ops", now_ms=7)
    assert KEY.hash not in repr(database.list_audit(10))


def test_a_new_mapping_is_empty(database: Database) -> None:
    for entity in Entity:
        assert database.read_mapping(entity) == empty(entity)
        assert database.list_versions(entity) == []


def test_history_keeps_every_mapping(database: Database) -> None:
    request = {"z": 1, "a": [None, "é", "\ud800"]}
    users = Entity.USERS
    first = database.change_mapping(users, connect, who="ann", why="start", request=request, now_ms=5)
    second = database.change_mapping(users, rename, who="bob", why="shorter", request=None, now_ms=6)
    assert second == rename(connect(empty(users)))
    assert database.read_mapping(users) == second
    assert [database.read_mapping(users, v) for v in (0, 1, 2)] == [empty(users), first, second]
    assert database.read_mapping(Entity.ACCOUNTS) == empty(Entity.ACCOUNTS)
    newest, oldest = database.list_versions(users)
    assert (oldest.version, oldest.at_ms, oldest.who, oldest.why) == (1, 5, "ann", "start")
    assert list(oldest.request.items()) == list(request.items())
    assert oldest.diff == diff_versions(empty(users), first)
    assert (newest.version, newest.request, newest.restores) == (2, None, None)
    assert newest.diff == diff_versions(first, second)
    assert newest.diff
    assert [(e.who, e.action, e.target, e.detail["version"]) for e in database.list_audit(10)] == [
        ("bob", "mapping.changed", "users", 2),
        ("ann", "mapping.changed", "users", 1),
    ]


def test_an_equal_mapping_makes_no_version(database: Database) -> None:
    database.change_mapping(Entity.USERS, connect, who="ann", why="", request={}, now_ms=5)
    same = database.change_mapping(Entity.USERS, connect, who="ann", why="", request={}, now_ms=9)
    assert same.version == 1
    assert len(database.list_versions(Entity.USERS)) == len(database.list_audit(10)) == 1


def test_an_error_inside_a_change_leaves_everything(database: Database) -> None:
    before = database.change_mapping(Entity.USERS, connect, who="ann", why="", request={}, now_ms=5)

    def fail(mapping: Mapping) -> Mapping:
        raise Error(Code.CONFLICT, f"no change of version {mapping.version}")

    with pytest.raises(Error, match="no change of version 1"):
        database.change_mapping(Entity.USERS, fail, who="ann", why="", request={}, now_ms=6)
    assert database.read_mapping(Entity.USERS) == before
    after = database.change_mapping(Entity.USERS, rename, who="ann", why="", request={}, now_ms=7)
    assert after.version == 2


def test_a_request_that_is_no_json_leaves_everything(database: Database) -> None:
    with pytest.raises(Exception, match="not JSON compliant"):
        database.change_mapping(Entity.USERS, connect, who="ann", why="", request=float("nan"), now_ms=5)
    assert database.read_mapping(Entity.USERS) == empty(Entity.USERS)
    assert database.list_audit(10) == []


@pytest.mark.parametrize(
    "wrong",
    [lambda m: replace(connect(m), version=m.version + 2), lambda _: replace(empty(Entity.ACCOUNTS), version=1)],
)
def test_a_change_must_give_the_next_version_of_its_entity(database: Database, wrong: object) -> None:
    with pytest.raises(Error) as caught:
        database.change_mapping(Entity.USERS, wrong, who="ann", why="", request={}, now_ms=5)  # type: ignore[arg-type]
    assert caught.value.code is Code.INTERNAL
    assert database.list_versions(Entity.USERS) == []


@pytest.mark.parametrize("version", [-1, 2, 2**70])
def test_a_version_that_never_was_is_not_found(database: Database, version: int) -> None:
    database.change_mapping(Entity.USERS, connect, who="ann", why="", request={}, now_ms=5)
    with pytest.raises(Error) as caught:
        database.read_mapping(Entity.USERS, version)
    assert caught.value.code is Code.NOT_FOUND
    assert "0 to 1" in caught.value.hint


def test_a_change_by_another_opener_is_seen_at_once(database: Database, where: str) -> None:
    other = Database.open(where, organisation_id_if_new="org-2", now_ms=2)
    database.change_mapping(Entity.USERS, connect, who="ann", why="", request={}, now_ms=5)
    assert database.read_mapping(Entity.USERS).version == 1
    changed = other.change_mapping(Entity.USERS, rename, who="bob", why="", request={}, now_ms=6)
    assert database.read_mapping(Entity.USERS) == changed
    other.close()


def test_an_unchanged_mapping_is_parsed_once(database: Database) -> None:
    database.change_mapping(Entity.USERS, connect, who="ann", why="", request={}, now_ms=5)
    assert database.read_mapping(Entity.USERS) is database.read_mapping(Entity.USERS)


def test_uploads_come_back(database: Database) -> None:
    upload = Upload("u1", "customers", ("customer_id", "mrr"), 20, 5_000_000_000, 1_700_000_000_000)
    database.add_upload(upload)
    assert database.find_upload("u1") == upload
    assert database.find_upload("u2") is None
    database.drop_uploads(upload.expires_ms)
    assert database.find_upload("u1") == upload
    database.drop_uploads(upload.expires_ms + 1)
    assert database.find_upload("u1") is None


def test_tables_come_back(database: Database) -> None:
    older = replace(TABLE, id="t2", name="orders", columns=tuple(Column(t.value, t) for t in Type), created_ms=1)
    database.add_table(TABLE, who="ann")
    database.add_table(older, who="ann")
    assert database.find_table("t1") == TABLE
    assert database.find_table("t3") is None
    assert database.list_tables() == [older, TABLE]


@pytest.mark.parametrize("twin", [replace(TABLE, id="t2"), replace(TABLE, name="orders")])
def test_names_and_ids_of_tables_are_taken_once(database: Database, twin: Table) -> None:
    database.add_table(TABLE, who="ann")
    with pytest.raises(Error) as caught:
        database.add_table(twin, who="bob")
    assert caught.value.code is Code.CONFLICT
    assert database.list_tables() == [TABLE]
    assert len(database.list_audit(10)) == 1


def test_an_updated_table_leaves_what_changed(database: Database) -> None:
    database.add_table(TABLE, who="ann")
    newer = replace(TABLE, description="who paid", tags=(), row_count=4, updated_by="bob", updated_ms=9)
    database.update_table(newer, who="bob")
    database.update_table(newer, who="bob")
    assert database.find_table("t1") == newer
    last, first = database.list_audit(10)
    assert (first.action, first.who, first.detail["name"]) == ("table.added", "ann", "customers")
    assert (last.action, last.who, last.at_ms) == ("table.updated", "bob", 9)
    assert set(last.detail) == {"/description", "/tags", "/row_count", "/updated_by", "/updated_ms"}
    assert last.detail["/row_count"] == [3_000_000_000, 4]


def test_a_table_takes_no_name_of_another(database: Database) -> None:
    orders = replace(TABLE, id="t2", name="orders")
    database.add_table(TABLE, who="ann")
    database.add_table(orders, who="ann")
    with pytest.raises(Error) as caught:
        database.update_table(replace(orders, name="customers"), who="bob")
    assert caught.value.code is Code.CONFLICT
    assert database.find_table("t2") == orders
    with pytest.raises(Error) as caught:
        database.update_table(replace(TABLE, id="t3", name="new"), who="bob")
    assert caught.value.code is Code.NOT_FOUND


def test_a_removed_table_frees_its_name(database: Database) -> None:
    database.add_table(TABLE, who="ann")
    assert database.remove_table("t1", who="bob", now_ms=9)
    assert not database.remove_table("t1", who="bob", now_ms=10)
    database.add_table(replace(TABLE, id="t2"), who="ann")
    assert [t.id for t in database.list_tables()] == ["t2"]
    assert [(e.action, e.who, e.target) for e in database.list_audit(2)] == [
        ("table.added", "ann", "t2"),
        ("table.removed", "bob", "t1"),
    ]
