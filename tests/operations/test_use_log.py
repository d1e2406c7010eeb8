"""Uses are counted in memory and written beside the queries: none is lost but by a crash, memory is bounded."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event

import pytest

from roster.base.errors import Code, Error
from roster.main import SystemClock
from roster.model.schema import Entity
from roster.model.use import Use
from roster.operations.use_log import UseLog
from roster.store.database import Database

DAY_MS = 86_400_000


class Still(SystemClock):
    """A clock that stands where it is put."""

    at_ms = 100 * DAY_MS

    def now_ms(self) -> int:
        return self.at_ms


class Records(Database):
    """Our own records, which can be made to refuse uses for a while."""

    refusing = False

    def add_uses(self, given: Sequence[Use], forget_before_ms: int) -> None:
        if self.refusing:
            raise Error(Code.BUSY, "the disk is full")
        super().add_uses(given, forget_before_ms)


@pytest.fixture
def records(tmp_path: Path) -> Iterator[Records]:
    opened = Records.open(tmp_path / "records.db", organisation_id_if_new="org-1", now_ms=1)
    assert isinstance(opened, Records)
    yield opened
    opened.close()


def counts(log: UseLog, entity: Entity = Entity.USERS) -> dict[tuple[str, str], int]:
    return {(use.attribute, use.spelled): use.count for use in log.list_uses(entity)}


def test_what_is_counted_is_listed_before_and_after_it_is_written(records: Records) -> None:
    clock = Still()
    log = UseLog(records, clock, 30 * DAY_MS)
    for _ in range(3):
        log.note(Entity.USERS, {"tier": "level", "level": "level"}, "QueryUsers", "ann", clock.at_ms)
        assert records.list_uses(Entity.USERS) == [], "no query waits for the records"
    log.note(Entity.USERS, {}, "QueryUsers", "bob", clock.at_ms)
    listed = log.list_uses(Entity.USERS)
    assert [(u.spelled, u.count, u.is_old) for u in listed] == [("level", 3, False), ("tier", 3, True)]
    log.flush()
    assert log.list_uses(Entity.USERS) == listed == records.list_uses(Entity.USERS)
    log.note(Entity.USERS, {"tier": "level"}, "QueryUsers", "ann", clock.at_ms + 1)
    assert counts(log) == {("level", "tier"): 4, ("level", "level"): 3}
    assert counts(log, Entity.ACCOUNTS) == {}
    log.flush()
    assert counts(UseLog(records, clock, DAY_MS)) == {("level", "tier"): 4, ("level", "level"): 3}


def test_old_uses_are_forgotten(records: Records) -> None:
    clock = Still()
    log = UseLog(records, clock, 30 * DAY_MS)
    log.note(Entity.USERS, {"tier": "tier"}, "QueryUsers", "ann", clock.at_ms)
    log.flush()
    clock.at_ms += 31 * DAY_MS
    assert log.list_uses(Entity.USERS) == []
    log.note(Entity.USERS, {"other": "other"}, "QueryUsers", "ann", clock.at_ms)
    log.flush()
    assert [use.attribute for use in records.list_uses(Entity.USERS)] == ["other"]


def test_what_cannot_be_written_is_written_later(records: Records) -> None:
    log = UseLog(records, Still(), 30 * DAY_MS)
    records.refusing = True
    for _ in range(2):
        log.note(Entity.USERS, {"tier": "tier"}, "QueryUsers", "ann", Still.at_ms)
        log.flush()
    assert counts(log) == {("tier", "tier"): 2}
    records.refusing = False
    log.flush()
    assert [use.count for use in records.list_uses(Entity.USERS)] == [2]


def test_memory_is_bounded(records: Records) -> None:
    log = UseLog(records, Still(), 30 * DAY_MS, places_max=10)
    for n in range(100):
        log.note(Entity.USERS, {"a": "a", f"b{n}": f"b{n}"}, "QueryUsers", "ann", Still.at_ms)
    found = counts(log)
    assert (len(found), found["a", "a"]) == (10, 100)


def test_nothing_is_counted_twice_or_lost_beside_writes_and_reads(records: Records) -> None:
    log, done = UseLog(records, Still(), 30 * DAY_MS), Event()

    def use(caller: int) -> None:
        for _ in range(500):
            log.note(Entity.USERS, {"tier": "tier"}, "QueryUsers", str(caller), Still.at_ms)

    def keep_on() -> list[int]:
        seen = []
        while not done.is_set():
            log.flush()
            seen.append(sum(u.count for u in log.list_uses(Entity.USERS)))
        return seen

    with ThreadPoolExecutor(6) as pool:
        readers = [pool.submit(keep_on) for _ in range(2)]
        list(pool.map(use, range(4)))
        done.set()
        for reader in readers:
            seen = reader.result()
            assert seen == sorted(seen)
            assert seen[-1] <= 2000
    log.flush()
    assert sum(u.count for u in records.list_uses(Entity.USERS)) == 2000
