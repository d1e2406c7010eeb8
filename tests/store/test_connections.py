"""Connections keep their promises to SQLite, wait their turn, and name what they cannot open."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from threading import Event, Thread

import pytest

from roster.base.errors import Code, Error
from roster.store.connections import Connections
from roster.store.database import Database


@pytest.fixture
def impatient(tmp_path: Path) -> Iterator[Connections]:
    opened = Connections(tmp_path / "records.db", wait_s=0.05)
    yield opened
    opened.close()


def pragma(connections: Connections, name: str) -> object:
    with connections.read() as connection:
        return connection.exec_driver_sql(f"PRAGMA {name}").scalar()


def test_sqlite_is_set_for_durability(tmp_path: Path) -> None:
    connections = Connections(tmp_path / "records.db")
    found = {
        name: pragma(connections, name) for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
    }
    assert found == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1, "busy_timeout": 10_000}
    connections.close()


def test_an_exception_undoes_all_of_a_write(impatient: Connections) -> None:
    with impatient.write() as connection:
        connection.exec_driver_sql("CREATE TABLE t (a INTEGER)")
    with pytest.raises(ZeroDivisionError), impatient.write() as connection:
        connection.exec_driver_sql("INSERT INTO t VALUES (1)")
        raise ZeroDivisionError
    with impatient.read() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM t").scalar() == 0


def test_readers_do_not_wait_for_a_writer(impatient: Connections) -> None:
    with impatient.write() as writing:
        writing.exec_driver_sql("CREATE TABLE t (a INTEGER)")
        with impatient.read() as reading:
            assert reading.exec_driver_sql("SELECT count(*) FROM sqlite_master").scalar() == 0
    with impatient.read() as reading:
        assert reading.exec_driver_sql("SELECT count(*) FROM sqlite_master").scalar() == 1


def test_a_lock_held_by_another_process_is_busy(impatient: Connections, tmp_path: Path) -> None:
    other = sqlite3.connect(tmp_path / "records.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(Error) as caught, impatient.write():
        pass
    assert caught.value.code is Code.BUSY
    other.execute("ROLLBACK")
    other.close()
    with impatient.write():
        pass


def test_a_turn_that_does_not_come_is_busy(impatient: Connections) -> None:
    held, done = Event(), Event()

    def hold() -> None:
        with impatient.write():
            held.set()
            done.wait()

    holder = Thread(target=hold)
    holder.start()
    held.wait()
    with pytest.raises(Error) as caught, impatient.write():
        pass
    done.set()
    holder.join()
    assert caught.value.code is Code.BUSY
    with impatient.write():
        pass


def test_a_failure_that_is_no_waiting_goes_on_as_it_is(impatient: Connections) -> None:
    with pytest.raises(Exception, match="no such table"), impatient.read() as connection:
        connection.exec_driver_sql("SELECT 1 FROM absent")


@pytest.mark.parametrize(
    ("where", "code"),
    [
        ("mysql://host/name", Code.UNSUPPORTED),
        ("sqlite+aiosqlite:///records.db", Code.UNSUPPORTED),
        ("sqlite://", Code.INVALID),
        ("sqlite:///:memory:", Code.INVALID),
        ("postgresql://user:pa:ss@host:notaport/name", Code.INVALID),
    ],
)
def test_what_cannot_be_opened_is_named(where: str, code: Code) -> None:
    with pytest.raises(Error) as caught:
        Database.open(where, organisation_id_if_new="org-1", now_ms=1)
    assert caught.value.code is code
    assert "pa:ss" not in caught.value.text()


@pytest.mark.parametrize("name", ["a b?c#d%41", "ü.db"])
def test_any_path_is_a_place(tmp_path: Path, name: str) -> None:
    path = tmp_path / "new folder" / name
    Database.open(path, organisation_id_if_new="org-1", now_ms=1).close()
    assert path.is_file()
    again = Database.open(f"sqlite:///{tmp_path}/plain.db", organisation_id_if_new="org-1", now_ms=1)
    again.close()
    assert (tmp_path / "plain.db").is_file()
