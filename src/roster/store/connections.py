"""Owns connections to our own records: pool, pragmas, turns of writers; knows no table."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import Any

from sqlalchemy import URL, Connection, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, TimeoutError as PoolTimeoutError

from roster.base.errors import Code, Error

WAIT_S = 10
"""How long a caller waits for a connection, for its turn to write, and for another process's lock."""

DRIVERS = {"sqlite": "pysqlite", "postgresql": "psycopg"}
PRAGMAS = ("synchronous = FULL", "foreign_keys = ON")
POSTGRES_TURN = 7237651
"""The advisory lock of writers: not a table lock, because it must hold before the first table is made."""
SQLITE_BUSY, SQLITE_FULL = 5, 13
POSTGRES_LOCK_TIMEOUT, POSTGRES_FULL = "55P03", "53100"


class Connections:
    """A pool of connections to one database, safe to use from many threads; not to be carried over a fork."""

    def __init__(self, where: str | Path, wait_s: float = WAIT_S) -> None:
        """`where` is the path of an SQLite file or a database URL. Errors: INVALID, UNSUPPORTED, BUSY."""
        url = parse_where(where)
        self.dialect = url.get_backend_name()
        self._wait_s = wait_s
        self._turn = Lock()
        sqlite = self.dialect == "sqlite"
        try:
            self._engine = create_engine(
                url,
                pool_size=8,
                max_overflow=32,
                pool_timeout=wait_s,
                # isolation_level None: the driver begins nothing by itself; timeout: SQLite's busy timeout
                connect_args={"isolation_level": None, "timeout": wait_s} if sqlite else {},
                json_serializer=write_json,
            )
        except ModuleNotFoundError as error:
            message = f"the driver for {url.drivername} is missing"
            raise Error(Code.UNSUPPORTED, message, hint=f"install the package {error.name}") from error
        if sqlite:
            event.listen(self._engine, "connect", _set_pragmas)
            self._use_wal()

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A connection for selects that each stand alone; they never wait for writers. Error: BUSY."""
        with self._readable_errors(), self._engine.connect() as connection:
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """One transaction, no other writer beside it in any process: committed at the end, undone by any exception.

        Error: BUSY when the turn does not come in time. Do not nest.
        """
        # threads queue here, in order, rather than poll for the file's lock, which is left to other processes
        if not self._turn.acquire(timeout=self._wait_s):
            raise self._busy()
        try:
            with self._readable_errors(), self._engine.begin() as connection:
                self._take_turn(connection)
                yield connection
        finally:
            self._turn.release()

    def close(self) -> None:
        """End all connections; the last one out of an SQLite file folds its log back into it."""
        self._engine.dispose()

    def _take_turn(self, connection: Connection) -> None:
        if self.dialect == "sqlite":
            connection.exec_driver_sql("BEGIN IMMEDIATE")
            return
        connection.exec_driver_sql(f"SET LOCAL lock_timeout = {round(self._wait_s * 1000)}")
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({POSTGRES_TURN})")

    def _use_wal(self) -> None:
        """Turn WAL on, which stays so in the file; SQLite does not wait by itself when processes race for this."""
        deadline_s = time.monotonic() + self._wait_s
        while True:
            try:
                with self._readable_errors(), self._engine.connect() as connection:
                    connection.exec_driver_sql("PRAGMA journal_mode = WAL")
                    return
            except Error:
                if time.monotonic() > deadline_s:
                    raise
                time.sleep(0.01)

    @contextmanager
    def _readable_errors(self) -> Iterator[None]:
        """Waiting in vain, and a full disk, become BUSY; every other failure goes on as it is."""
        try:
            yield
        except PoolTimeoutError as error:
            raise self._busy() from error
        except DBAPIError as error:
            code = getattr(error.orig, "sqlite_errorcode", 0) & 0xFF  # the upper bits tell kinds of busy apart
            state = getattr(error.orig, "sqlstate", "")
            if code == SQLITE_FULL or state == POSTGRES_FULL:
                hint = "is there space in the data folder?"
                raise Error(Code.BUSY, "our own records cannot be written: the disk is full", hint=hint) from error
            if code != SQLITE_BUSY and state != POSTGRES_LOCK_TIMEOUT:
                raise
            raise self._busy() from error

    def _busy(self) -> Error:
        return Error(Code.BUSY, f"our own records were busy for {self._wait_s:g} seconds", hint="try again")


def parse_where(where: str | Path) -> URL:
    """A path or URL as the URL to connect to; the folder of an SQLite file is made. Errors: INVALID, UNSUPPORTED."""
    try:
        is_url = isinstance(where, str) and "://" in where
        url = make_url(str(where)) if is_url else URL.create("sqlite", database=str(where))
    except (ArgumentError, ValueError) as error:
        # without the URL in the message: it may hold a password
        raise Error(Code.INVALID, "the database URL cannot be read", hint="postgresql://user@host/name") from error
    backend, _, driver = url.drivername.partition("+")
    if backend not in DRIVERS or driver not in ("", DRIVERS[backend]):
        hint = "give a path, or a URL that starts with sqlite:// or postgresql://"
        raise Error(Code.UNSUPPORTED, f"our own records cannot be kept in {url.drivername!r}", hint=hint)
    if backend == "sqlite":
        if url.database in (None, "", ":memory:"):
            raise Error(Code.INVALID, "our own records need a file", hint="sqlite:////folder/records.db")
        Path(url.database).parent.mkdir(parents=True, exist_ok=True)
    return url.set(drivername=f"{backend}+{DRIVERS[backend]}")


def write_json(value: Any) -> str:
    """JSON text in the order of its members; escaped to ASCII, so that a lone surrogate can be stored too."""
    return json.dumps(value, separators=(",", ":"), allow_nan=False)


def _set_pragmas(connection: sqlite3.Connection, _: object) -> None:
    for pragma in PRAGMAS:
        connection.execute(f"PRAGMA {pragma}")
