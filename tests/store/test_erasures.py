"""Receipts of erased users: kept from the beginning, finished once, found by subject; who it was is not in them."""

from __future__ import annotations

from dataclasses import replace

from roster.model.erasure import Erasure, subject_of
from roster.store.database import Database

PEPPER = b"p" * 32


def test_receipts(where: str) -> None:
    database = Database.open(where, organisation_id_if_new="org-1", now_ms=1)
    first = Erasure("r1", subject_of("ann", PEPPER), 10, "key", None, {})
    second = Erasure("r2", subject_of("bob", PEPPER), 11, "key", None, {})
    database.add_erasure(first)
    database.add_erasure(second)
    done = replace(first, finished_ms=12, counts={"events": 3})
    database.finish_erasure(done)
    assert database.list_erasures(limit=10) == [second, done]
    assert database.list_erasures(limit=1) == [second]
    assert database.list_erasures(subject=subject_of("ann", PEPPER), limit=10) == [done]
    (entry,) = database.list_audit(10)
    assert (entry.action, entry.target, entry.detail["counts"]) == ("user.erased", "r1", {"events": 3})
    database.close()


def test_a_subject_depends_on_the_secret() -> None:
    assert subject_of("ann", PEPPER) != subject_of("ann", b"q" * 32)
    assert "ann" not in subject_of("ann", PEPPER)
    assert len(subject_of("\udcff", PEPPER)) == 64
