"""Owns reading MySQL and MariaDB: one read-only transaction, streamed by asyncmy. Writes nothing there."""

from __future__ import annotations

import asyncio
import re
import socket
import ssl
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, NoReturn

import asyncmy
from asyncmy.constants import FIELD_TYPE
from asyncmy.converters import conversions
from asyncmy.cursors import SSCursor
from asyncmy.errors import MySQLError

from roster.base.errors import Code, Error
from roster.model.sync import Fetched
from roster.sources.job import Job
from roster.sources.parts import Chunks, Item, Written, quote
from roster.sources.sql import Standing, bare_query, check_names, nearest, read_snapshot, select, split_table
from roster.sources.web import only_allowed

PORT = "3306"
CONNECT_TIMEOUT_S = 10
BATCH_ROWS = 2_000
RECEIVED_BYTES = 2**20
DIGITS_MAX = 38
SSL_MODES = ("disable", "prefer", "require", "verify-ca", "verify-full")
NO_CONVERSION = {kind: encode for kind, encode in conversions.items() if not isinstance(kind, int)}
"""Values stay the texts that the server sends; DuckDB reads them, many at a time."""

UNSIGNED = 32
BINARY_CHARSET = 63
WHOLE = {
    FIELD_TYPE.TINY: "tinyint",
    FIELD_TYPE.SHORT: "smallint",
    FIELD_TYPE.INT24: "mediumint",
    FIELD_TYPE.LONG: "int",
    FIELD_TYPE.LONGLONG: "bigint",
}
TEXTS = {
    FIELD_TYPE.STRING,
    FIELD_TYPE.VAR_STRING,
    FIELD_TYPE.VARCHAR,
    FIELD_TYPE.BLOB,
    FIELD_TYPE.TINY_BLOB,
    FIELD_TYPE.MEDIUM_BLOB,
    FIELD_TYPE.LONG_BLOB,
}
NUMBERS = (*WHOLE.values(), "decimal", "float", "double", "year", "bit", "boolean")
TIMES = {FIELD_TYPE.DATE: "date", FIELD_TYPE.DATETIME: "datetime", FIELD_TYPE.TIMESTAMP: "timestamp"}
"""Of these, the zero date and dates with a zero in them are no dates: they become null."""
BOOLEAN = "CAST(CAST({0} AS TINYINT) AS BOOLEAN)"

SETTINGS = (
    "SET time_zone = '+00:00'",
    "SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ",
    "START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY",
)
TABLES = """SELECT table_schema, table_name FROM information_schema.tables
    WHERE LOWER(table_schema) = LOWER({0}) ORDER BY table_name"""

CODES = {
    1044: Code.FORBIDDEN,
    1142: Code.FORBIDDEN,
    1143: Code.FORBIDDEN,
    1227: Code.FORBIDDEN,
    1370: Code.FORBIDDEN,
    1045: Code.UNAUTHENTICATED,
    1698: Code.UNAUTHENTICATED,
    1820: Code.UNAUTHENTICATED,
    1862: Code.UNAUTHENTICATED,
    3118: Code.UNAUTHENTICATED,
    1130: Code.FORBIDDEN,
    1049: Code.NOT_FOUND,
    1051: Code.NOT_FOUND,
    1054: Code.NOT_FOUND,
    1146: Code.NOT_FOUND,
    **dict.fromkeys((1040, 1053, 1077, 1079, 1129, 1152, 1158, 1159, 1160, 1161, 1203, 1205, 1213, 1226), Code.BUSY),
    **dict.fromkeys((1317, 1927, 1969, 3024, 4031), Code.BUSY),
}
"""What the server's error codes mean; the others say that the query is wrong."""
CLIENT_CODES = range(2000, 3000)
"""Codes of the connection itself."""
UNSECURED = {0, 1043, 2003, 2013, 2026}
"""Codes of a server that cannot speak TLS."""


def read(job: Job) -> Fetched | None:
    """See `Snapshot`. Types: decimals stay exact, binary becomes hex, zero dates null, times and sets text.

    A tinyint(1) is a boolean as long as it holds nothing but 0 and 1. Errors: those of the port Sources.
    """
    with ExitStack() as stack:
        stack.enter_context(only_allowed(job.policy))
        runner = stack.enter_context(asyncio.Runner())
        session = stack.enter_context(_open_session(job, runner))
        return read_snapshot(job, _open_snapshot(job, session))


@dataclass(frozen=True, slots=True)
class _Session:
    """One connection within its transaction."""

    job: Job
    run: Callable[[Coroutine[Any, Any, Any]], Any]
    connection: Any

    def rows(self, sql: str, at: str = "", take: Callable[[Sequence[Any]], None] | None = None) -> _Answer:
        """The answer to one statement; its rows go to `take` in batches where that is given."""
        answer = _Answer()
        try:
            self.run(_ask(self.connection, sql, answer, take or answer.rows.extend))
        except MySQLError as error:
            _refuse(error, at)
        except (OSError, asyncio.IncompleteReadError) as error:
            raise _broken(str(error)) from error
        return answer


@dataclass(slots=True)
class _Answer:
    """Columns as the server describes them, and rows of texts."""

    fields: Sequence[Any] = ()
    rows: list[tuple[str | None, ...]] = field(default_factory=list)


async def _ask(connection: Any, sql: str, answer: _Answer, take: Callable[[Sequence[Any]], None]) -> None:
    """A statement is prepared, since a prepared one is a single one, whatever stands in a user's query."""
    cursor = connection.cursor(SSCursor)
    await cursor.execute(f"SET @roster = _utf8mb4 0x{sql.encode().hex()}")
    await cursor.execute("PREPARE roster FROM @roster")
    await cursor.execute("EXECUTE roster")
    answer.fields = tuple(cursor._result.fields)
    while rows := await cursor.fetchmany(BATCH_ROWS):
        take(rows)
    await cursor.close()


@contextmanager
def _open_session(job: Job, runner: asyncio.Runner) -> Iterator[_Session]:
    connection = _connect(job, runner)
    try:
        for statement in SETTINGS:
            try:
                runner.run(_do(connection, statement))
            except MySQLError as error:
                _refuse(error, "")
        yield _Session(job, runner.run, connection)
    finally:
        runner.run(_close(connection))


async def _close(connection: Any) -> None:
    """At once: what the server still sends is not waited for."""
    transport = connection._transport
    connection.close()
    if transport is not None:
        transport.abort()
    for _ in range(3):  # the loop lets go of the socket in its next turns
        await asyncio.sleep(0)


async def _do(connection: Any, statement: str) -> None:
    async with connection.cursor() as cursor:
        await cursor.execute(statement)


def _connect(job: Job, runner: asyncio.Runner) -> Any:
    port, mode = job.origin.get("port", PORT), job.origin.get("sslmode", "prefer")
    if not port.isdecimal() or not 0 < int(port) < 2**16:
        raise Error(Code.INVALID, f"{port!r} is no port", at="port")
    if mode not in SSL_MODES:
        raise Error(Code.INVALID, f"{mode!r} is no sslmode", at="sslmode", hint=f"one of {', '.join(SSL_MODES)}")
    if not job.secret.get("user"):
        raise Error(Code.UNAUTHENTICATED, "the source has no user", hint="keep user and password in its secret")
    host = job.origin.get("host")
    job.policy.resolve(host, int(port))
    for context in (contexts := _contexts(mode)):
        try:
            return runner.run(_open(job, host, int(port), context))
        except MySQLError as error:
            if isinstance(error.__cause__, ssl.SSLError) and context is contexts[-1]:
                message = f"no secure connection: {error.__cause__}"
                raise Error(Code.INVALID, message, at="sslmode") from error
            if context is contexts[-1] or _code(error) not in UNSECURED:
                _refuse(error, "")
        except (OSError, asyncio.IncompleteReadError) as error:
            raise _broken(str(error)) from error
    raise Error(Code.INTERNAL, "no way to connect was tried")


async def _open(job: Job, host: str, port: int, context: ssl.SSLContext | None) -> Any:
    connection: Any = await asyncmy.connect(
        host=host,
        port=port,
        user=job.secret["user"],
        password=job.secret.get("password", "").encode(),
        database=job.origin.get("database"),
        charset="utf8mb4",
        conv=NO_CONVERSION,
        connect_timeout=CONNECT_TIMEOUT_S,
        read_timeout=job.limits.silence_s,
        program_name="roster",
        ssl=context,
    )
    # All that has come is made rows at once: more of it waits at the server.
    connection._transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVED_BYTES)
    return connection


def _contexts(mode: str) -> list[ssl.SSLContext | None]:
    """How to connect, in this order: with TLS, without."""
    if mode == "disable":
        return [None]
    context = ssl.create_default_context()
    context.check_hostname = mode == "verify-full"
    context.verify_mode = ssl.CERT_REQUIRED if mode.startswith("verify") else ssl.CERT_NONE
    return [context, None] if mode == "prefer" else [context]


@dataclass(slots=True)
class _Snapshot:
    """See `Snapshot`. `flags`: columns that are booleans if they hold nothing but 0 and 1."""

    session: _Session
    relation: str
    is_query: bool
    items: tuple[Item, ...]
    flags: frozenset[str]

    def stand(self, cursor: Item, since: str | None) -> Standing:
        if cursor.kind.startswith(("binary", "json", "geometry")):
            raise Error(Code.INVALID, f"{cursor.name!r} cannot be a cursor: it is {cursor.kind}", at="cursor")
        column = f"q.{quote(cursor.name, '`')}"
        top = f"max({column}) + 0e0" if cursor.kind in ("float", "double") else f"max({column})"
        back = f"max({column}) < {_literal(cursor, since)}" if since is not None else "0"
        answer = self.session.rows(f"SELECT count(*), CAST({top} AS CHAR), {back} FROM {self.relation} AS q")
        count, text, is_back = answer.rows[0]
        ties = f"SELECT count(*) FROM {self.relation} AS q WHERE {column} = "
        ties_found = self.session.rows(ties + _literal(cursor, text)).rows[0][0] if text is not None else 0
        return Standing(int(count or 0), text, int(ties_found or 0), is_back == "1")

    def settle(self, cursor: Item | None, since: str | None) -> int | None:
        if not self.flags and self.is_query:
            return None
        flags = [item for item in self.items if item.name in self.flags]
        others = ", ".join(["count(*)", *(f"sum({item.source} NOT IN (0, 1))" for item in flags)])
        sql = f"SELECT {others} FROM {self.relation} AS q{_condition(cursor, since)}"
        count, *found = self.session.rows(sql).rows[0]
        true = {item.name for item, other in zip(flags, found, strict=True) if not int(other or 0)}
        self.items = tuple(
            replace(item, kind="boolean", target=BOOLEAN) if item.name in true else item for item in self.items
        )
        return int(count or 0)

    def bring(self, cursor: Item | None, since: str | None, total: int | None) -> Written:
        chunks = Chunks(self.session.job, self.items, total)
        try:
            self.session.rows(select(self.items, self.relation) + _condition(cursor, since), take=chunks.add)
            return chunks.finish()
        finally:
            chunks.close()


def _condition(cursor: Item | None, since: str | None) -> str:
    if cursor is None or since is None:
        return ""
    return f" WHERE q.{quote(cursor.name, '`')} >= {_literal(cursor, since)}"


def _literal(cursor: Item, since: str) -> str:
    """A value of the cursor. Numbers stand as they are: as texts they would be compared as floats."""
    if re.fullmatch(r"-?[0-9]+(\.[0-9]+)?(e[+-]?[0-9]+)?", since) and cursor.kind.startswith(NUMBERS):
        return since
    return _text(since)


def _text(value: str) -> str:
    """A text as a literal that no setting of the server reads differently."""
    return f"_utf8mb4 0x{value.encode().hex()}" if value else "''"


def _open_snapshot(job: Job, session: _Session) -> _Snapshot:
    query = bare_query(job.origin)
    relation = f"(\n{query}\n)" if query else _find_table(job, session)
    answer = session.rows(f"SELECT * FROM {relation} AS q LIMIT 0", at="query" if query else "")
    check_names([column.name for column in answer.fields])
    flags = {c.name for c in answer.fields if c.type_code == FIELD_TYPE.TINY and c.length == 1}
    return _Snapshot(session, relation, bool(query), tuple(map(_item, answer.fields)), frozenset(flags))


def _find_table(job: Job, session: _Session) -> str:
    """The table's quoted name; its database is the source's unless it names another."""
    text = job.origin.get("table")
    *schema, (table, _) = split_table(text, '`"')
    space = schema[0][0] if schema else job.origin.get("database")
    known = [(str(row[0]), str(row[1])) for row in session.rows(TABLES.format(_text(space))).rows]
    found = [pair for pair in known if pair == (space, table)]
    found = found or [pair for pair in known if pair[1].lower() == table.lower()]
    if len(found) != 1:
        names = [f"{pair[0]}.{pair[1]}" if schema else pair[1] for pair in known]
        hint = nearest(text, names, "tables")
        raise Error(Code.NOT_FOUND, f"there is no table {text!r}", at="table", hint=hint)
    return ".".join(quote(name, "`") for name in found[0])


def _item(column: Any) -> Item:
    """A column as it is read, from what the server says of a result's columns."""
    name, code, unsigned = column.name, column.type_code, bool(column.flags & UNSIGNED)
    source = f"q.{quote(name, '`')}"
    if code in WHOLE:
        wide = "UBIGINT" if unsigned else "BIGINT"
        return Item(name, WHOLE[code] + " unsigned" * unsigned, source, f"CAST({{0}} AS {wide})")
    if code in (FIELD_TYPE.DECIMAL, FIELD_TYPE.NEWDECIMAL):
        digits, scale = column.length - (column.scale > 0) - (not unsigned), column.scale
        target = f"CAST({{0}} AS DECIMAL({digits},{scale}))" if digits <= DIGITS_MAX else "{0}"
        return Item(name, f"decimal({digits},{scale})", source, target)
    if code in (FIELD_TYPE.FLOAT, FIELD_TYPE.DOUBLE):
        # As it is, the server shows six digits of a float.
        kind = "float" if code == FIELD_TYPE.FLOAT else "double"
        return Item(name, kind, f"{source} + 0e0", f"CAST(CAST({{0}} AS DOUBLE) AS {kind})")
    if code in TIMES:
        return Item(
            name, TIMES[code], source, f"TRY_CAST({{0}} AS {'DATE' if code == FIELD_TYPE.DATE else 'TIMESTAMP'})"
        )
    if code == FIELD_TYPE.YEAR:
        return Item(name, "year", source, "nullif(CAST({0} AS SMALLINT), 0)")
    if code == FIELD_TYPE.BIT:
        return Item(name, "bit", f"{source} + 0", "CAST({0} AS UBIGINT)")
    if code == FIELD_TYPE.GEOMETRY:
        return Item(name, "geometry", f"ST_AsText({source})")
    if code == FIELD_TYPE.JSON:
        return Item(name, "json", source)
    if column.charsetnr == BINARY_CHARSET and code in TEXTS:
        return Item(name, "binary", f"LOWER(HEX({source}))")
    return Item(name, "time" if code == FIELD_TYPE.TIME else "text", source)


def _code(error: MySQLError) -> int:
    return error.args[0] if error.args and isinstance(error.args[0], int) else 0


def _refuse(error: MySQLError, at: str) -> NoReturn:
    """What the server says, as our error."""
    code = _code(error)
    message = str(error.args[-1]) if error.args else "no reason was given"
    if code in CLIENT_CODES or not code:
        raise _broken(message) from error
    place = re.search(r"at line ([0-9]+)$", message)
    if at and place is not None:
        at = f"{at}, line {max(int(place[1]) - 1, 1)}"
    raise Error(CODES.get(code, Code.INVALID), message, at=at) from error


def _broken(message: str) -> Error:
    return Error(Code.BUSY, f"the database cannot be reached: {message}")
