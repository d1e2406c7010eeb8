"""Owns reading Delta tables through delta-rs, in folders and object stores; writes nothing there."""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote, urlsplit

from roster.base.errors import Code, Error
from roster.model.sync import Fetched
from roster.sources.arrow import write_batches
from roster.sources.job import Job
from roster.sources.lake import find_store, object_store_options, store_failure
from roster.sources.relay import relay
from roster.sources.web import tell


def read(job: Job) -> Fetched | None:
    """The newest version of a table; None when that version was read last. Deleted rows are left out."""
    from deltalake import exceptions

    try:
        return _read(job)
    except Error:
        raise
    except exceptions.TableNotFoundError as error:
        raise Error(Code.NOT_FOUND, f"there is no Delta table: {tell(error, job.secret)}") from error
    except exceptions.DeltaProtocolError as error:
        raise Error(Code.UNSUPPORTED, f"the Delta table needs a newer reader: {tell(error, job.secret)}") from error
    except Exception as error:  # delta-rs raises plain ones for most
        raise store_failure(error, job, "the Delta table") from error


def _read(job: Job) -> Fetched | None:
    from deltalake import DeltaTable

    if not (url := job.origin.get("url")):
        return _take(job, DeltaTable(str(job.policy.open_path(job.origin.get("path")))), url)
    options = object_store_options(find_store(job, url, "url"), job.secret)
    with relay(job.policy) as proxy:
        return _take(job, DeltaTable(url, storage_options=options | {"proxy_url": proxy}), url)


def _take(job: Job, table: Any, url: str) -> Fetched | None:
    """The rows of an open table, None when the version was read last."""
    from arro3.core import RecordBatchReader
    from deltalake import QueryBuilder

    fingerprint = f"delta:{table.metadata().id}:{table.version()}"
    if fingerprint == job.fingerprint and not job.full:
        return None
    check_files(job, table.file_uris(), url)
    stream = QueryBuilder().register("source", table).execute("SELECT * FROM source")
    make = RecordBatchReader.from_batches
    written = write_batches(job, stream.schema, stream, make, total=_count(table), marked=True)
    return Fetched(written.names, "parquet", fingerprint, rows=written.rows, bytes=written.bytes)


def check_files(job: Job, files: list[str], url: str) -> None:
    """A table's log may name files anywhere: they must be where the table may be. Error: FORBIDDEN."""
    bucket = urlsplit(url).netloc
    for file in files:
        parts = urlsplit(file)
        if parts.scheme in ("", "file") and not url:
            job.policy.open_path(unquote(parts.path) if parts.scheme else file)
        elif not url or parts.netloc != bucket:
            raise Error(Code.FORBIDDEN, "the Delta table names files outside of its own place")


def _count(table: Any) -> int | None:
    """Rows by the statistics of the log; None when it has none."""
    try:
        return int(table.count())
    except Exception:  # noqa: BLE001  only the progress needs it
        return None
