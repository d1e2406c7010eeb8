"""Secrets in our own records: they come back sealed, and the audit log knows names only."""

from __future__ import annotations

from dataclasses import replace

from roster.model.sync import Secret
from roster.store.database import Database

SECRET = Secret("crm", "v1:c2VhbGVk", ("password", "user"), 1_700_000_000_000, 1_700_000_000_000, "ann")


def test_secrets_come_back(database: Database) -> None:
    others = [replace(SECRET, name=name) for name in ("Z", "a-b", "ab")]
    for secret in (SECRET, *others):
        database.put_secret(secret)
        assert database.find_secret(secret.name) == secret
    assert database.find_secret("CRM") is None
    assert database.list_secrets() == [others[0], others[1], others[2], SECRET], "in the same order everywhere"


def test_a_secret_is_replaced_whole_and_keeps_its_age(database: Database) -> None:
    database.put_secret(SECRET)
    newer = Secret("crm", "v1:bmV3", ("token",), 9, 1_700_000_000_005, "bob")
    database.put_secret(newer)
    assert database.list_secrets() == [replace(newer, created_ms=SECRET.created_ms)]


def test_a_removed_secret_is_gone(database: Database) -> None:
    database.put_secret(SECRET)
    assert database.remove_secret("crm", who="bob", now_ms=8)
    assert not database.remove_secret("crm", who="bob", now_ms=9)
    assert (database.find_secret("crm"), database.list_secrets()) == (None, [])


def test_the_audit_log_has_names_and_nothing_sealed(database: Database) -> None:
    database.put_secret(SECRET)
    database.put_secret(replace(SECRET, members=("token",), updated_ms=7, updated_by="bob"))
    database.remove_secret("crm", who="eve", now_ms=8)
    told = [(e.at_ms, e.who, e.action, e.target, e.detail) for e in database.list_audit(10)]
    assert told == [
        (8, "eve", "secret.removed", "crm", {"members": ["token"]}),
        (7, "bob", "secret.changed", "crm", {"members": ["token"]}),
        (SECRET.updated_ms, "ann", "secret.added", "crm", {"members": ["password", "user"]}),
    ]
    assert "c2VhbGVk" not in repr(SECRET)
