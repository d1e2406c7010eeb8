"""Owns reading Snowflake through its own connector, as Arrow result batches; writes nothing there."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from itertools import chain
from typing import Any
from urllib.parse import urlsplit

from roster.base.errors import Code, Error
from roster.model.sync import Fetched
from roster.sources.arrow import Written, write_batches
from roster.sources.job import Job
from roster.sources.statement import quote_name, select_rows, split_name
from roster.sources.web import check_address, only_allowed, tell

DIALECT = "snowflake"
LOGIN_TIMEOUT_S = 30
ATTEMPTS = 3
NO_PLATFORM_LOOKUP = "SNOWFLAKE_DISABLE_PLATFORM_DETECTION"
"""The connector asks the link-local addresses of clouds where it runs, unless this is set."""

_WRONG_LOGIN = frozenset({390100, 390101, 390102, 390144, 390191, 390195, 390303, 390318, 390422, 394300, 394304})
_NO_SUCH_THING = frozenset({2003, 2043})
"""Does not exist or not authorized: Snowflake does not tell the two apart."""
_NOT_GRANTED = frozenset({3001, 390189, 390186})
_SUSPENDED = frozenset({606, 90073, 2140})
_UNREACHED = frozenset({250001, 250003})


def read(job: Job) -> Fetched | None:
    """The rows of a table or query; None when a table was not altered since."""
    import pyarrow as pa
    from snowflake.connector import errors

    try:
        with only_allowed(job.policy):
            connection = _connect(job)
            try:
                return _read(job, connection, pa)
            finally:
                with suppress(errors.Error):
                    connection.close()
    except errors.Error as error:
        raise _failure(error, job) from error


def _connect(job: Job) -> Any:
    """A session of its own: nothing comes from this machine's environment, files or keyring."""
    from snowflake import connector

    origin = job.origin
    account = origin.get("account")
    host = origin.get("host") or f"{account.replace('_', '-').lower()}.snowflakecomputing.com"
    protocol = origin.get("protocol", "https")
    port = origin.get("port") or ("443" if protocol == "https" else "80")
    check_address(f"{protocol}://{host}:{port}", job.policy, "host")
    os.environ[NO_PLATFORM_LOOKUP] = "true"
    place = {name: origin.get(name) for name in ("database", "schema", "warehouse", "role") if origin.get(name)}
    return connector.connect(
        account=account,
        host=host,
        port=int(port),
        protocol=protocol,
        **place,
        **_login(job),
        application="Roster",
        paramstyle="qmark",
        session_parameters={"CLIENT_TELEMETRY_ENABLED": False, "TIMEZONE": "UTC", "MULTI_STATEMENT_COUNT": 1},
        login_timeout=LOGIN_TIMEOUT_S,
        retry_max_attempts=ATTEMPTS,
        use_proxy_env=False,
        client_store_temporary_credential=False,
        server_session_keep_alive=False,
        enable_server_session_keep_alive_auto_detection=False,
    )


def _login(job: Job) -> dict[str, Any]:
    """How to log in, from the secret: a token, a key pair, or a password. Error: UNAUTHENTICATED without any."""
    secret = job.secret
    if secret.get("token"):
        return {
            "authenticator": "PROGRAMMATIC_ACCESS_TOKEN",
            "token": secret["token"],
            **({"user": secret["user"]} if "user" in secret else {}),
        }
    if secret.get("user") and secret.get("private_key"):
        login = {"authenticator": "SNOWFLAKE_JWT", "user": secret["user"], "private_key": secret["private_key"]}
        return login | ({"private_key_password": secret["password"]} if secret.get("password") else {})
    if secret.get("user") and secret.get("password"):
        return {"user": secret["user"], "password": secret["password"]}
    hint = "the secret holds user with private_key, user with password, or token"
    raise Error(Code.UNAUTHENTICATED, "there are no credentials for Snowflake", at="secret", hint=hint)


def _read(job: Job, connection: Any, pa: Any) -> Fetched | None:
    origin = job.origin
    cursor = origin.get("cursor")
    parts = split_name(origin.get("table"), DIALECT, "table") if origin.get("table") else []
    mark = _altered(connection, parts, origin.get("database"), origin.get("schema")) if parts else ""
    if mark and mark == job.fingerprint and not job.full:
        return None
    changes = bool(cursor and job.cursor and not job.full)
    column = quote_name(split_name(cursor, DIALECT, "cursor"), DIALECT) if cursor else ""
    text = select_rows(origin, quote_name(parts, DIALECT), DIALECT, f"{column} >= ?" if changes else "")
    asked = connection.cursor()
    asked.execute(text, (job.cursor,) if changes else None)
    written = _write(job, asked, pa, cursor, bool(mark))
    told = mark or written.digest
    if told == job.fingerprint and not job.full:
        return None
    return Fetched(
        written.names,
        "parquet",
        told,
        cursor=written.top or (job.cursor if changes else ""),
        changes_only=changes,
        rows=written.rows,
        bytes=written.bytes,
    )


def _write(job: Job, asked: Any, pa: Any, cursor: str, marked: bool) -> Written:
    results = asked.get_result_batches() or []
    check_places(results, job)
    tables = _tables(results) if results else iter([asked.fetch_arrow_all(force_return_table=True)])
    first = next(tables)
    columns = zip(asked.description, first.schema, strict=True)
    schema = pa.schema([pa.field(found.name, _kind(column, found.type, pa)) for column, found in columns])
    batches = (batch for table in chain([first], tables) for batch in table.cast(schema).to_batches())
    make = pa.RecordBatchReader.from_batches
    return write_batches(job, schema, batches, make, cursor=cursor, total=asked.rowcount, marked=marked)


def _tables(results: list[Any]) -> Iterator[Any]:
    """The parts of a result, one at a time. Their types differ: each number comes as narrow as its part's values."""
    return (table for result in results if (table := result.to_arrow(number_to_decimal=True)) is not None)


def _kind(column: Any, found: Any, pa: Any) -> Any:
    """One Arrow type for all parts of a column."""
    if not (pa.types.is_integer(found) or pa.types.is_decimal(found)):
        return found
    scale = column.scale or 0
    precision = column.precision or 38
    return pa.int64() if scale == 0 and precision <= 18 else pa.decimal128(precision, scale)


def check_places(results: list[Any], job: Job) -> None:
    """Parts of a large result lie on other hosts; those must be allowed too. Error: FORBIDDEN."""
    for place in {_place(result) for result in results} - {""}:
        parts = urlsplit(place)
        try:
            job.policy.resolve(parts.hostname or "", parts.port or 443)
        except Error as error:
            hint = "allow the hosts that SYSTEM$ALLOWLIST() names with type STAGE"
            raise Error(error.code, f"Snowflake keeps the result elsewhere: {error.message}", hint=hint) from error


def _place(result: Any) -> str:
    """Where a part of the result is fetched from; empty when it came with the answer."""
    chunk = result._chunk  # the connector has no public name for it
    return str(chunk.remote.url).split("?", 1)[0] if chunk.HasField("remote") else ""


def _altered(connection: Any, parts: list[str], database: str, schema: str) -> str:
    """A mark that changes whenever a base table does; empty for views and what cannot tell."""
    from snowflake.connector import errors

    folded = [name for text in (database, schema) if text for name in split_name(text, DIALECT, "schema")]
    full = [*folded[: max(0, 3 - len(parts))], *parts]
    if len(full) != 3:
        return ""
    tables = quote_name([full[0], "INFORMATION_SCHEMA", "TABLES"], DIALECT)
    asked = connection.cursor()
    try:
        asked.execute(
            f"SELECT TO_VARCHAR(LAST_ALTERED), ROW_COUNT, BYTES FROM {tables} "
            "WHERE TABLE_SCHEMA = ? AND TABLE_NAME = ? AND TABLE_TYPE = 'BASE TABLE'",
            (full[1], full[2]),
        )
        row = asked.fetchone()
    except errors.ProgrammingError:
        return ""
    return "altered:" + ":".join(str(value) for value in row) if row and row[0] is not None else ""


def _failure(error: Any, job: Job) -> Error:
    """What a failure of the connector means here."""
    number = error.errno if isinstance(error.errno, int) else -1
    said = tell(error, job.secret)
    if number in _WRONG_LOGIN:
        return Error(Code.UNAUTHENTICATED, f"Snowflake does not accept the credentials: {said}", at="secret")
    if number in _NO_SUCH_THING:
        return Error(Code.NOT_FOUND, f"Snowflake: {said}", hint="it does not exist or its role may not read it")
    if number in _NOT_GRANTED:
        return Error(Code.FORBIDDEN, f"Snowflake: {said}", at="role")
    if number in _UNREACHED or number in _SUSPENDED or type(error).__name__ == "OperationalError":
        return Error(Code.BUSY, f"Snowflake cannot be reached or used now: {said}")
    return Error(Code.INVALID, f"Snowflake: {said}")
