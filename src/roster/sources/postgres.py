"""Owns reading PostgreSQL: one read-only transaction, streamed by ADBC. Writes nothing there."""

from __future__ import annotations

import os
import re
import ssl
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NoReturn

import adbc_driver_postgresql  # type: ignore[import-untyped]
import duckdb
from adbc_driver_manager import Error as DriverError
from adbc_driver_postgresql import dbapi

from roster.base.errors import Code, Error
from roster.model.sync import Fetched
from roster.sources.job import Job
from roster.sources.parts import Item, Written, open_duck, quote, trouble, write_stream
from roster.sources.sql import Standing, bare_query, check_names, nearest, read_snapshot, select, split_table

PORT = "5432"
CONNECT_TIMEOUT_S = 10
BATCH_BYTES = str(4 * 2**20)
DOUBLE_DIGITS = 15
"""Whole numbers of so many digits are exact as a double."""
DIGITS_MAX = 38
SSL_MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
CA_FILES = ("/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem")

AS_TEXT = "CAST({0} AS VARCHAR)"
FINITE = "CASE WHEN isfinite({0}) THEN {0} END"
NUMERIC = "CASE WHEN {{0}} NOT IN ('nan', 'inf', '-inf') THEN CAST({{0}} AS DECIMAL({0},{1})) END"
NUMERIC_TEXT = "CASE WHEN {0} NOT IN ('nan', 'inf', '-inf') THEN {0} END"
ENDLESS = "CASE WHEN isfinite({0}) THEN {0} END"
TARGETS = {
    **dict.fromkeys(("bool", "int2", "int4", "int8", "date", "timestamp", "timestamptz"), "{0}"),
    **dict.fromkeys(("float4", "float8"), FINITE),
    **dict.fromkeys(("text", "varchar", "name", "json", "jsonb", "uuid"), AS_TEXT),
    "bytea": "lower(hex({0}))",
}
"""How DuckDB keeps what ADBC gives of these types; every other type comes as text."""
SOURCES = {
    # Infinite times come from ADBC as times of some far year.
    **dict.fromkeys(("date", "timestamp", "timestamptz"), ENDLESS),
    "bpchar": "{0}::text",
    "oid": "{0}::int8",
}

SETTINGS = """SELECT set_config('TimeZone', 'UTC', true), set_config('DateStyle', 'ISO, YMD', true),
    set_config('IntervalStyle', 'postgres', true), set_config('standard_conforming_strings', 'on', true),
    set_config('bytea_output', 'hex', true), set_config('statement_timeout', '{0}', true),
    set_config('lock_timeout', '{0}', true)"""
RELATIONS = """SELECT c.oid::int8, n.nspname::text, c.relname::text, pg_table_is_visible(c.oid)
    FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND n.nspname !~ '^pg_(toast|temp)'"""
COLUMNS = """SELECT attname::text, atttypid::int8, atttypmod FROM pg_catalog.pg_attribute
    WHERE attrelid = {0} AND attnum > 0 AND NOT attisdropped ORDER BY attnum"""
TYPES = """SELECT oid::int8, typname::text, typtype::text, typbasetype::int8, typtypmod, typcategory::text,
    pg_catalog.format_type(oid, NULL) FROM pg_catalog.pg_type WHERE oid IN ({0})"""

CODES = {
    "28": Code.UNAUTHENTICATED,
    "42501": Code.FORBIDDEN,
    "3D000": Code.NOT_FOUND,
    "42P01": Code.NOT_FOUND,
    "42703": Code.NOT_FOUND,
    "08": Code.BUSY,
    "53": Code.BUSY,
    "55": Code.BUSY,
    "57": Code.BUSY,
    "40": Code.BUSY,
    "58": Code.BUSY,
}
"""What PostgreSQL's error codes, or their classes, mean; the others say that the query is wrong."""
REFUSALS = (
    ("password authentication failed", Code.UNAUTHENTICATED),
    ("authentication failed", Code.UNAUTHENTICATED),
    ("no password supplied", Code.UNAUTHENTICATED),
    ("is not permitted to log in", Code.UNAUTHENTICATED),
    ("no pg_hba.conf entry", Code.FORBIDDEN),
    ("permission denied", Code.FORBIDDEN),
    ("does not support SSL", Code.INVALID),
    ("certificate", Code.INVALID),
    ("root certificate file", Code.INVALID),
)
"""What texts mean where PostgreSQL's client gives no code."""
_LOST_DATABASE = re.compile(r'database "(.*)" does not exist')


def read(job: Job) -> Fetched | None:
    """See `Snapshot`. Types: numeric stays exact, json, uuid, arrays and all unusual types become text, bytea hex.

    Errors: those of the port Sources.
    """
    with ExitStack() as stack:
        duck = stack.enter_context(open_duck())
        session = stack.enter_context(_open_session(job, duck))
        return read_snapshot(job, _open_snapshot(job, session))


@dataclass(frozen=True, slots=True)
class _Session:
    """One connection within its transaction."""

    job: Job
    cursor: Any
    duck: duckdb.DuckDBPyConnection

    def stream(self, sql: str, prefix: int | None = None) -> Any:
        """The Arrow stream of a statement; `prefix`: where a query of the user begins in it."""
        try:
            self.cursor.execute(sql)
            return self.cursor.fetch_arrow()
        except DriverError as error:
            _refuse(error, prefix)

    def rows(self, sql: str, prefix: int | None = None) -> list[tuple[Any, ...]]:
        """All rows of a small answer."""
        stream = self.stream(sql, prefix)  # noqa: F841  read by DuckDB, by name
        try:
            return self.duck.execute("SELECT * FROM stream").fetchall()
        except duckdb.Error as error:
            raise _cut(error) from error


@contextmanager
def _open_session(job: Job, duck: duckdb.DuckDBPyConnection) -> Iterator[_Session]:
    with ExitStack() as stack:
        try:
            connection = stack.enter_context(dbapi.connect(_address(job)))
        except DriverError as error:
            raise _unconnected(str(error)) from None
        options = {adbc_driver_postgresql.StatementOptions.BATCH_SIZE_HINT_BYTES.value: BATCH_BYTES}
        cursor = stack.enter_context(connection.cursor(adbc_stmt_kwargs=options))
        session = _Session(job, cursor, duck)
        try:
            cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        except DriverError as error:
            _refuse(error, None)
        session.rows(SETTINGS.format(int(job.limits.silence_s * 1000)))
        yield session


def _address(job: Job) -> str:
    """libpq's connection string: the name for TLS, the policy's addresses to connect to."""
    host, port = job.origin.get("host"), job.origin.get("port", PORT)
    if not port.isdecimal() or not 0 < int(port) < 2**16:
        raise Error(Code.INVALID, f"{port!r} is no port", at="port")
    mode = job.origin.get("sslmode", "prefer")
    if mode not in SSL_MODES:
        raise Error(Code.INVALID, f"{mode!r} is no sslmode", at="sslmode", hint=f"one of {', '.join(SSL_MODES)}")
    addresses = job.policy.resolve(host, int(port))
    parts = {
        "host": ",".join([host] * len(addresses)),
        "hostaddr": ",".join(addresses),
        "port": port,
        "dbname": job.origin.get("database"),
        "user": job.secret.get("user", ""),
        "password": job.secret.get("password", ""),
        "sslmode": mode,
        "sslrootcert": _ca_file() if mode.startswith("verify") else "",
        "application_name": "roster",
        "client_encoding": "UTF8",
        "connect_timeout": str(CONNECT_TIMEOUT_S),
        "keepalives_idle": "30",
        "keepalives_interval": "10",
        "keepalives_count": "3",
        "passfile": os.devnull,
    }
    if not parts["user"]:
        raise Error(Code.UNAUTHENTICATED, "the source has no user", hint="keep user and password in its secret")
    return " ".join(f"{name}={_quoted(text)}" for name, text in parts.items() if text)


def _quoted(text: str) -> str:
    if "\0" in text:
        raise Error(Code.INVALID, "a connection setting holds a null character")
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _ca_file() -> str:
    """Certificates this machine trusts: libpq itself looks into a home folder only."""
    known = (os.environ.get("SSL_CERT_FILE"), ssl.get_default_verify_paths().cafile, *CA_FILES)
    return next((path for path in known if path and Path(path).is_file()), "system")


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


@dataclass(slots=True)
class _Snapshot:
    """See `Snapshot`. `relation` is the quoted table, or the query in parentheses. `loose`: numerics of any scale."""

    session: _Session
    relation: str
    is_query: bool
    items: tuple[Item, ...]
    types: dict[str, str]
    loose: set[str] = field(default_factory=set)

    def stand(self, cursor: Item, since: str | None) -> Standing:
        column = f"q.{quote(cursor.name)}"
        back = f"max({column}) < {self._value(cursor, since)}" if since is not None else "false"
        try:
            found = self.session.rows(f"SELECT count(*), max({column})::text, {back} FROM {self.relation} AS q")
        except Error as error:
            if error.code is not Code.INVALID:
                raise
            raise Error(Code.INVALID, f"{cursor.name!r} cannot be a cursor: {error.message}", at="cursor") from error
        count, top, is_back = found[0]
        ties = f"SELECT count(*) FROM {self.relation} AS q WHERE {column} = "
        ties_found = self.session.rows(ties + self._value(cursor, top)) if top is not None else [(0,)]
        return Standing(count, top, ties_found[0][0], bool(is_back))

    def settle(self, cursor: Item | None, since: str | None) -> int | None:
        if not self.loose and self.is_query:
            return None
        measures = ["count(*)"]
        names = [item.name for item in self.items if item.name in self.loose]
        for name in names:
            column = f"q.{quote(name)}"
            finite = f"CASE WHEN {column} NOT IN ('NaN', 'Infinity', '-Infinity') THEN {column} END"
            measures += [f"max(scale(trim_scale({finite})))", f"max(length(trunc(abs({finite}))::text))"]
        condition = self._condition(cursor, since)
        count, *digits = self.session.rows(f"SELECT {', '.join(measures)} FROM {self.relation} AS q{condition}")[0]
        found = dict(zip(names, zip(digits[::2], digits[1::2], strict=True), strict=True))
        self.items = tuple(
            replace(item, target=_exact(*found[item.name])) if item.name in found else item for item in self.items
        )
        return int(count)

    def bring(self, cursor: Item | None, since: str | None, total: int | None) -> Written:
        job, duck = self.session.job, self.session.duck
        self.session.rows("SELECT set_config('statement_timeout', '0', true)")
        stream = self.session.stream(select(self.items, self.relation) + self._condition(cursor, since))
        try:
            return write_stream(job, duck, stream, self.items, total)
        except duckdb.Error as error:
            raise (_cut(error) if _is_stream(error) else trouble(error)) from error

    def _condition(self, cursor: Item | None, since: str | None) -> str:
        if cursor is None or since is None:
            return ""
        return f" WHERE q.{quote(cursor.name)} >= {self._value(cursor, since)}"

    def _value(self, cursor: Item, since: str) -> str:
        return f"{_literal(since)}::{self.types[cursor.name]}"


def _exact(scale: int | None, whole: int | None) -> str:
    """A numeric column of any scale: as a decimal that has room for all its digits, else as text.

    With at least one fraction digit, that a column of whole numbers is no integer one day and a number the next;
    but not beyond 15 digits: read as a number, two long ids would be one.
    """
    decimals, digits = max(scale or 0, 1), whole or 1
    if not scale and digits > DOUBLE_DIGITS:
        return NUMERIC_TEXT
    return NUMERIC.format(digits + decimals, decimals) if digits + decimals <= DIGITS_MAX else NUMERIC_TEXT


def _open_snapshot(job: Job, session: _Session) -> _Snapshot:
    columns: list[tuple[str, int, int]]
    query = bare_query(job.origin)
    if query:
        relation = f"(\n{query}\n)"
        head = "SELECT * FROM (\n"
        stream = session.stream(f"{head}{query}\n) AS q LIMIT 0", len(head))  # noqa: F841  read by DuckDB, by name
        names = [str(row[0]) for row in session.duck.execute("DESCRIBE SELECT * FROM stream").fetchall()]
        check_names(names)
        told = ", ".join(f"pg_typeof(q.{quote(name)})::oid::int8" for name in names)
        try:
            oids = session.rows(f"SELECT {told} FROM (SELECT 1) AS one LEFT JOIN {relation} AS q ON false")[0]
        except Error as error:
            hint = "name them apart with AS, not by upper and lower case alone"
            raise Error(Code.INVALID, "two columns have one name", at="query", hint=hint) from error
        columns = [(name, oid, -1) for name, oid in zip(names, oids, strict=True)]
    else:
        oid, relation = _find_table(job, session)
        columns = [(row[0], row[1], row[2]) for row in session.rows(COLUMNS.format(oid))]
        check_names([name for name, _, _ in columns])
    return _typed(session, relation, bool(query), columns)


def _find_table(job: Job, session: _Session) -> tuple[int, str]:
    """The table's oid and quoted name. What is not quoted is tried in lower case first, as PostgreSQL would."""
    text = job.origin.get("table")
    *schema, (table, is_quoted) = split_table(text, '"')
    known = session.rows(RELATIONS)
    for name in (table,) if is_quoted else (table.lower(), table):
        for oid, space, relation, visible in known:
            if relation == name and (_same_schema(space, *schema[0]) if schema else visible):
                return int(oid), f"{quote(space)}.{quote(relation)}"
    names = [
        r if visible else f"{s}.{r}" for _, s, r, visible in known if s not in ("pg_catalog", "information_schema")
    ]
    raise Error(Code.NOT_FOUND, f"there is no table {text!r}", at="table", hint=nearest(text, names, "tables"))


def _same_schema(space: str, name: str, is_quoted: bool) -> bool:
    return space == name or (not is_quoted and space == name.lower())


def _typed(session: _Session, relation: str, is_query: bool, columns: Sequence[tuple[str, int, int]]) -> _Snapshot:
    known: dict[int, tuple[Any, ...]] = {}
    wanted = {oid for _, oid, _ in columns}
    while wanted:
        found = session.rows(TYPES.format(", ".join(map(str, sorted(wanted)))))
        known |= {row[0]: row for row in found}
        wanted = {row[3] for row in found if row[2] == "d"} - known.keys()
    items, types, loose = [], {}, set()
    for name, oid, modifier in columns:
        item, is_loose = _item(name, oid, modifier, known)
        items.append(item)
        types[name] = known[oid][6]
        if is_loose:
            loose.add(name)
    return _Snapshot(session, relation, is_query, tuple(items), types, loose)


def _item(name: str, oid: int, modifier: int, known: dict[int, tuple[Any, ...]]) -> tuple[Item, bool]:
    """A column as it is read, and whether its digits must be measured. A domain is what it is made of."""
    _, kind, sort, base, base_modifier, category, _ = known[oid]
    if sort == "d":
        return _item(name, base, base_modifier if modifier == -1 else modifier, known)
    column = f"q.{quote(name)}"
    if kind == "numeric" and modifier >= 0:
        precision, scale = (modifier - 4) >> 16, ((modifier - 4) & 0x7FF ^ 1024) - 1024
        fits = 0 <= scale <= precision <= DIGITS_MAX
        target = NUMERIC.format(precision, scale) if fits else NUMERIC_TEXT
        return Item(name, f"numeric({precision},{scale})", column, target), False
    if kind == "numeric":
        return Item(name, kind, column, NUMERIC_TEXT), True
    if category == "A" or sort == "c":
        return Item(name, kind, f"to_json({column})::text"), False
    source = SOURCES.get(kind, "{0}" if kind in TARGETS else "{0}::text").format(column)
    return Item(name, kind, source, TARGETS.get(kind, "{0}")), False


def _refuse(error: DriverError, prefix: int | None) -> NoReturn:
    """What PostgreSQL says against a statement, as our error; the position counts from the user's own query."""
    details = {_text(name): _text(value) for name, value in error.details}
    state = error.sqlstate or ""
    message = details.get("PG_DIAG_MESSAGE_PRIMARY") or _first_line(str(error))
    code = CODES.get(state) or CODES.get(state[:2]) or Code.INVALID
    if not state:
        raise _unconnected(message) from error
    at = ""
    if prefix is not None:
        position = int(details.get("PG_DIAG_STATEMENT_POSITION", "0")) - prefix
        at = f"query, character {position}" if position > 0 else "query"
    hint = details.get("PG_DIAG_MESSAGE_HINT", "")
    raise Error(code, message, at=at, hint=hint) from error


def _text(value: str | bytes) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else value


def _unconnected(text: str) -> Error:
    """Trouble with the connection itself, which has no code."""
    line = _first_line(text.rpartition("failed: ")[2].removeprefix("FATAL:").strip() or text)
    lost = _LOST_DATABASE.search(text)
    if lost:
        return Error(Code.NOT_FOUND, f"there is no database {lost[1]!r}", at="database")
    code = next((code for part, code in REFUSALS if part in text), Code.BUSY)
    return Error(code, line if code is not Code.BUSY else f"the database cannot be reached: {line}")


def _is_stream(error: duckdb.Error) -> bool:
    return "reading the stream" in str(error) or "get_next failed" in str(error)


def _cut(error: duckdb.Error) -> Error:
    """Trouble while rows came: the server's own words within DuckDB's."""
    text = str(error)
    said = re.search(r"(?:ERROR|FATAL):\s+(.*)", text)
    if said is None or "terminating connection" in text or "server closed" in text or "shutting down" in text:
        return Error(Code.BUSY, "the connection broke while rows were read", hint=_first_line(text.rpartition(": ")[2]))
    code = Code.BUSY if "canceling statement" in text or "conflict with recovery" in text else Code.INVALID
    return Error(code, _first_line(said[1]))


def _first_line(text: str) -> str:
    return next((line.strip() for line in text.splitlines() if line.strip()), "no reason was given")
