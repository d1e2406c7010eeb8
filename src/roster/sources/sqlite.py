"""Owns reading SQLite files: opened read-only, one transaction, by Python's own module. Writes nothing there."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote as quote_path

from roster.base.errors import Code, Error
from roster.model.sync import Fetched
from roster.sources.job import Job
from roster.sources.parts import Chunks, Item, Written, quote
from roster.sources.sql import Standing, bare_query, check_names, nearest, read_snapshot, select, split_table

BATCH_ROWS = 2_000
BUSY_TIMEOUT_S = 10.0
EXACT_MAX = 2**53
HARMLESS = {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE}
"""What a statement may do: nothing that opens another file or changes a setting."""
SETTINGS = ("PRAGMA trusted_schema = OFF", "PRAGMA query_only = ON", "PRAGMA cell_size_check = ON", "BEGIN")
TABLES = "SELECT name FROM sqlite_schema WHERE type IN ('table', 'view') AND name NOT LIKE 'sqlite~_%' ESCAPE '~'"
DECLARED_TIMES = ("DATE", "DATETIME", "TIMESTAMP")

AS_TEXT = "CASE typeof({0}) WHEN 'blob' THEN lower(hex({0})) ELSE CAST({0} AS TEXT) END"
IS_TIME = """({0} GLOB '[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9]*' AND julianday({0}) IS NOT NULL
    AND date(julianday(substr({0}, 1, 10))) = substr({0}, 1, 10))"""
MEASURES = (
    "count({0})",
    "sum(typeof({0}) = 'integer')",
    "sum(typeof({0}) = 'real')",
    "sum(typeof({0}) = 'text')",
    "sum(typeof({0}) = 'integer' AND {0} NOT IN (0, 1))",
    f"sum(typeof({{0}}) = 'integer' AND {{0}} NOT BETWEEN -{EXACT_MAX} AND {EXACT_MAX})",
    f"sum(typeof({{0}}) = 'text' AND {IS_TIME})",
    "sum(typeof({0}) = 'text' AND length({0}) = 10)",
)
"""Of a column's values: how many there are, and how many are integers, reals, texts, other than 0 and 1, past what a
real holds, times, of the length of a day."""
DENIED = (sqlite3.SQLITE_PERM, sqlite3.SQLITE_AUTH, sqlite3.SQLITE_READONLY)
WAITING = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_PROTOCOL)
BROKEN = (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT)


def read(job: Job) -> Fetched | None:
    """See `Snapshot`. A column has the type that all its values have; with several it is text, blobs become hex.

    Declared booleans of 0 and 1, and declared dates and times that are such, are kept as such.
    Errors: those of the port Sources.
    """
    with _open_session(job) as session:
        return read_snapshot(job, _open_snapshot(job, session))


@dataclass(frozen=True, slots=True)
class _Session:
    """One connection within its transaction."""

    job: Job
    connection: sqlite3.Connection

    def rows(self, sql: str, *values: Any, at: str = "") -> list[tuple[Any, ...]]:
        with self.refusing(at):
            return self.connection.execute(sql, values).fetchall()

    @contextmanager
    def refusing(self, at: str = "") -> Iterator[None]:
        """What SQLite says within, as our error."""
        try:
            yield
        except sqlite3.Error as error:
            raise _refused(error, at) from error


@contextmanager
def _open_session(job: Job) -> Iterator[_Session]:
    path = job.policy.open_path(job.origin.get("path"))
    if not path.is_file():
        raise Error(Code.INVALID, f"{job.origin.get('path')!r} is no file", at="path")
    with closing(_connect(path)) as connection:
        session = _Session(job, connection)
        for statement in SETTINGS:
            session.rows(statement)
        connection.set_authorizer(_allow)
        connection.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)
        yield session


def _allow(action: int, name: str | None, *_: str | None) -> int:
    told = action == sqlite3.SQLITE_PRAGMA and name == "table_info"
    return sqlite3.SQLITE_OK if told or action in HARMLESS else sqlite3.SQLITE_DENY


def _connect(path: Path) -> sqlite3.Connection:
    try:
        address = f"file:{quote_path(str(path))}?mode=ro"
        return sqlite3.connect(address, uri=True, timeout=BUSY_TIMEOUT_S, isolation_level=None)
    except sqlite3.Error as error:
        raise _refused(error, "") from error


@dataclass(slots=True)
class _Snapshot:
    """See `Snapshot`. `declared`: the types that columns were declared with, in capitals."""

    session: _Session
    relation: str
    items: tuple[Item, ...]
    declared: dict[str, str]

    def stand(self, cursor: Item, since: str | None) -> Standing:
        column = f"q.{quote(cursor.name)}"
        sql = f"SELECT count(*), max({column}), typeof(max({column})) FROM {self.relation} AS q"
        count, top, kind = self.session.rows(sql)[0]
        if kind == "blob":
            raise Error(Code.INVALID, f"{cursor.name!r} cannot be a cursor: it holds blobs", at="cursor")
        back = False
        if since is not None:
            sql = f"SELECT max({column}) < ? FROM {self.relation} AS q"
            back = bool(self.session.rows(sql, _value(since))[0][0])
        text = None if top is None else f"{kind}:{top!r}" if kind == "real" else f"{kind}:{top}"
        ties = self.session.rows(f"SELECT count(*) FROM {self.relation} AS q WHERE {column} = ?", top)[0][0]
        return Standing(count, text, ties, back)

    def settle(self, cursor: Item | None, since: str | None) -> int | None:
        measures = ["count(*)"]
        for item in self.items:
            measures += [measure.format(f"q.{quote(item.name)}") for measure in MEASURES]
        condition, values = self._condition(cursor, since)
        count, *found = self.session.rows(
            f"SELECT {', '.join(measures)} FROM {self.relation} AS q{condition}", *values
        )[0]
        width = len(MEASURES)
        self.items = tuple(
            _settled(item, self.declared.get(item.name, ""), [n or 0 for n in found[i * width : (i + 1) * width]])
            for i, item in enumerate(self.items)
        )
        return int(count)

    def bring(self, cursor: Item | None, since: str | None, total: int | None) -> Written:
        condition, values = self._condition(cursor, since)
        with closing(Chunks(self.session.job, self.items, total)) as chunks, self.session.refusing():
            rows = self.session.connection.execute(select(self.items, self.relation) + condition, values)
            while batch := rows.fetchmany(BATCH_ROWS):
                chunks.add(batch)
            return chunks.finish()

    def _condition(self, cursor: Item | None, since: str | None) -> tuple[str, tuple[Any, ...]]:
        if cursor is None or since is None:
            return "", ()
        return f" WHERE q.{quote(cursor.name)} >= ?", (_value(since),)


def _value(since: str) -> int | float | str:
    kind, _, text = since.partition(":")
    return int(text) if kind == "integer" else float(text) if kind == "real" else text


def _settled(item: Item, declared: str, found: list[int]) -> Item:
    """A column of the type that its values have in common."""
    count, integers, reals, texts, beyond, inexact, times, days = found
    column = f"q.{quote(item.name)}"
    if count and integers == count:
        if declared.startswith("BOOL") and not beyond:
            return replace(item, kind="boolean", source=column, target="CAST(CAST({0} AS TINYINT) AS BOOLEAN)")
        return replace(item, kind="integer", source=column, target="CAST({0} AS BIGINT)")
    if count and integers + reals == count and not inexact:
        finite = "CASE WHEN isfinite(CAST({0} AS DOUBLE)) THEN CAST({0} AS DOUBLE) END"
        return replace(item, kind="real", source=f"CAST({column} AS REAL)", target=finite)
    if count and texts == times == count and declared.split("(", maxsplit=1)[0].strip() in DECLARED_TIMES:
        if days == count:
            return replace(item, kind="date", source=column, target="CAST({0} AS DATE)")
        moment = "timezone('UTC', CAST({0} AS TIMESTAMPTZ))"
        return replace(item, kind="timestamp", source=column, target=moment)
    if texts == count:
        return replace(item, kind="text", source=column)
    return replace(item, kind="text", source=AS_TEXT.format(column))


def _open_snapshot(job: Job, session: _Session) -> _Snapshot:
    query = bare_query(job.origin)
    relation = f"(\n{query}\n)" if query else _find_table(job, session)
    at = "query" if query else "table"
    with session.refusing(at), closing(session.connection.execute(f"SELECT * FROM {relation} AS q LIMIT 0")) as rows:
        names = [column[0] for column in rows.description]
    check_names(names)
    declared = {} if query else dict(_declared(session, relation))
    items = tuple(Item(name, declared.get(name, "any").lower(), f"q.{quote(name)}") for name in names)
    return _Snapshot(session, relation, items, declared)


def _declared(session: _Session, relation: str) -> Iterator[tuple[str, str]]:
    yield from ((row[1], row[2].upper()) for row in session.rows(f"PRAGMA main.table_info({relation})"))


def _find_table(job: Job, session: _Session) -> str:
    text = job.origin.get("table")
    *schema, (table, _) = split_table(text, '"`')
    known = [str(row[0]) for row in session.rows(TABLES)]
    found = [name for name in known if name == table] or [name for name in known if name.lower() == table.lower()]
    if len(found) != 1 or (schema and schema[0][0].lower() != "main"):
        raise Error(Code.NOT_FOUND, f"there is no table {text!r}", at="table", hint=nearest(text, known, "tables"))
    return quote(found[0])


def _refused(error: sqlite3.Error, at: str) -> Error:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    message = str(error)
    if code in WAITING:
        return Error(Code.BUSY, f"the file is busy: {message}")
    if code in DENIED or code == sqlite3.SQLITE_CANTOPEN:
        hint = "a file in WAL mode needs its -wal and -shm files beside it" if code == sqlite3.SQLITE_CANTOPEN else ""
        return Error(Code.FORBIDDEN, message, at=at or "path", hint=hint)
    if code in BROKEN:
        return Error(Code.INVALID, f"the file is no sound SQLite database: {message}", at="path")
    if "Could not decode to UTF-8" in message:
        column = message.partition("column ")[2].split(" ")[0]
        return Error(Code.INVALID, f"a text in column {column} is not UTF-8", at=at)
    missing = message.startswith(("no such table", "no such column"))
    return Error(Code.NOT_FOUND if missing else Code.INVALID, message, at=at)
