"""Owns reading Iceberg tables through pyiceberg, each file only where it may lie; writes nothing there."""

from __future__ import annotations

import sqlite3
from typing import Any
from urllib.parse import unquote, urlsplit

from roster.base.errors import Code, Error
from roster.model.sync import Fetched
from roster.sources.arrow import write_batches
from roster.sources.iceberg_catalog import Found, ask_catalog
from roster.sources.job import Job
from roster.sources.lake import find_store, store_failure
from roster.sources.relay import relay
from roster.sources.web import only_allowed, tell

CONNECT_TIMEOUT_S = "10"
REQUEST_TIMEOUT_S = "60"


def read(job: Job) -> Fetched | None:
    """The current snapshot of a table; None when it was read last. Deleted rows are left out."""
    from pydantic import ValidationError as Malformed
    from pyiceberg import exceptions

    try:
        with only_allowed(job.policy), relay(job.policy) as proxy:
            return _read(job, proxy)
    except Error:
        raise
    except (Malformed, exceptions.ValidationError) as error:
        message = f"the metadata is not that of an Iceberg table: {type(error).__name__}"
        raise Error(Code.INVALID, message) from error
    except NotImplementedError as error:
        raise Error(Code.UNSUPPORTED, f"the Iceberg table cannot be read: {tell(error, job.secret)}") from error
    except Exception as error:  # pyiceberg and pyarrow raise what they like
        raise store_failure(error, job, "the Iceberg table") from error


def _read(job: Job, proxy: str) -> Fetched | None:
    import pyarrow as pa
    from pyiceberg.catalog.noop import NoopCatalog
    from pyiceberg.table import Table

    found = _find(job)
    io = make_io(job, found.credentials, proxy)
    metadata = found.metadata or _load(io, found.location)
    snapshot = metadata.current_snapshot_id
    fingerprint = f"iceberg:{metadata.table_uuid}:{snapshot}:{metadata.current_schema_id}"
    if fingerprint == job.fingerprint and not job.full:
        return None
    table = Table(("source",), metadata, found.location, io, NoopCatalog("roster"))
    stream = table.scan().to_arrow_batch_reader()
    make = pa.RecordBatchReader.from_batches
    written = write_batches(job, stream.schema, stream, make, total=_count(metadata), marked=True)
    return Fetched(written.names, "parquet", fingerprint, rows=written.rows, bytes=written.bytes)


def _find(job: Job) -> Found:
    """The table's metadata file: as given, or as a catalog knows it."""
    if given := job.origin.get("metadata") or job.origin.get("url"):
        return Found(given)
    catalog, name = job.origin.get("catalog"), job.origin.get("table")
    if "." not in name:
        hint = "its namespace before a dot, such as crm.people"
        raise Error(Code.INVALID, f"{name!r} is no table of a catalog", at="table", hint=hint)
    if catalog.startswith("/"):
        return Found(_ask_sqlite(job, catalog, name))
    return ask_catalog(job, catalog, name)


def _ask_sqlite(job: Job, catalog: str, name: str) -> str:
    """Where the SQL catalog in a file says that the metadata lies. Errors: NOT_FOUND, INVALID."""
    namespace, table = name.rsplit(".", 1)
    path = job.policy.open_path(catalog)
    text = "SELECT metadata_location FROM iceberg_tables WHERE table_namespace = ? AND table_name = ?"
    try:
        connection = sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)
        try:
            rows = connection.execute(text, (namespace, table)).fetchall()
        finally:
            connection.close()
    except sqlite3.Error as error:
        raise Error(Code.INVALID, f"{catalog!r} is no SQLite catalog of Iceberg: {error}", at="catalog") from error
    if not rows or not rows[0][0]:
        raise Error(Code.NOT_FOUND, f"the catalog has no table {name!r}", at="table")
    if len(rows) > 1:
        raise Error(Code.INVALID, f"several catalogs in {catalog!r} have a table {name!r}", at="table")
    return str(rows[0][0])


def _load(io: Any, location: str) -> Any:
    from pyiceberg.serializers import FromInputFile

    return FromInputFile.table_metadata(io.new_input(location))


def _count(metadata: Any) -> int | None:
    """Rows by the snapshot's own summary; None when it does not say."""
    snapshot = metadata.current_snapshot()
    try:
        return int(snapshot.summary["total-records"]) if snapshot and snapshot.summary else None
    except (KeyError, TypeError, ValueError):
        return None


def make_io(job: Job, credentials: dict[str, str], proxy: str) -> Any:
    """Access to files, every location checked: what metadata says of places is not trusted; stores by the proxy."""
    from pyiceberg.io.pyarrow import PyArrowFileIO

    io = PyArrowFileIO({})
    plain = io.new_input

    def open_checked(location: str) -> Any:
        parts = urlsplit(location)
        if parts.scheme in ("", "file"):
            path = unquote(parts.path) if parts.scheme else location
            return plain(str(job.policy.open_path(path)))
        io.properties |= _store_properties(job, location, credentials) | {"s3.proxy-uri": proxy}
        return plain(location)

    io.new_input = open_checked
    return io


def _store_properties(job: Job, location: str, credentials: dict[str, str]) -> dict[str, str]:
    """pyiceberg's names for the credentials of the secret, or those that the catalog lent."""
    store = find_store(job, location, "url")
    secret = job.secret
    if store.kind == "s3":
        names = ("access_key_id", "secret_access_key", "session_token")
        own = {f"s3.{name.replace('_', '-')}": secret[name] for name in names if secret.get(name)}
        properties = {
            "s3.region": store.region,
            "s3.connect-timeout": CONNECT_TIMEOUT_S,
            "s3.request-timeout": REQUEST_TIMEOUT_S,
            **({"s3.endpoint": store.address} if secret.get("endpoint") else {}),
            **(own or credentials),
        }
        return properties | ({} if "s3.access-key-id" in properties else {"s3.anonymous": "true"})
    if store.kind == "az" and any(secret.get(name) for name in ("account_key", "sas_token", "client_secret")):
        given = ("account_name", "account_key", "sas_token", "client_id", "client_secret", "tenant_id")
        return {f"adls.{name.replace('_', '-')}": secret[name] for name in given if secret.get(name)}
    hint = "s3:// and, with credentials, az:// can be read"
    raise Error(Code.UNSUPPORTED, f"Iceberg files in {store.kind}:// cannot be read here", hint=hint)
