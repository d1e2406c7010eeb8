"""Owns reading BigQuery through Google's client over REST; no default credentials, no storage API, writes nothing."""

from __future__ import annotations

import json
from typing import Any

from roster.base.errors import Code, Error
from roster.model.sync import Fetched
from roster.sources.arrow import Written, write_batches
from roster.sources.job import Job
from roster.sources.statement import quote_name, select_rows, split_name
from roster.sources.web import TIMEOUT_S, check_address, only_allowed, tell

DIALECT = "bigquery"
ENDPOINT = "https://bigquery.googleapis.com"
SCOPE = "https://www.googleapis.com/auth/bigquery"
PAGE_ROWS = 20_000
RETRY_S = 30.0
_LATER = frozenset({"rateLimitExceeded", "quotaExceeded", "backendError", "jobRateLimitExceeded"})
_GONE = frozenset({"notFound"})


def read(job: Job) -> Fetched | None:
    """The rows of a table or query; None when a table was not modified since."""
    import requests
    from google.api_core import exceptions
    from google.auth import exceptions as refused

    try:
        with only_allowed(job.policy), _connect(job) as client:
            return _read(job, client)
    except exceptions.GoogleAPICallError as error:
        raise _failure(error, job) from error
    except refused.TransportError as error:
        raise Error(Code.BUSY, f"Google cannot be reached: {tell(error, job.secret)}") from error
    except refused.GoogleAuthError as error:
        message = f"Google does not accept the credentials: {tell(error, job.secret)}"
        raise Error(Code.UNAUTHENTICATED, message, at="secret") from error
    except requests.TooManyRedirects as error:
        raise Error(Code.FORBIDDEN, "BigQuery answered with a redirect, which is not followed") from error
    except (requests.RequestException, exceptions.RetryError) as error:
        raise Error(Code.BUSY, f"BigQuery cannot be reached: {tell(error, job.secret)}") from error


def _connect(job: Job) -> Any:
    from google.auth.transport.requests import AuthorizedSession, Request
    from google.cloud import bigquery
    from requests import Session

    endpoint = check_address(job.origin.get("endpoint", ENDPOINT), job.policy, "endpoint")
    plain = Session()
    session = AuthorizedSession(_credentials(job), auth_request=Request(plain))
    for each in (plain, session):
        each.trust_env = False
        each.max_redirects = 0
    return bigquery.Client(project=job.origin.get("project"), _http=session, client_options={"api_endpoint": endpoint})


def _credentials(job: Job) -> Any:
    """Those of the secret, never those of this machine. Errors: UNAUTHENTICATED, INVALID."""
    from google.oauth2 import credentials, service_account

    key, token = job.secret.get("service_account_key"), job.secret.get("token")
    if token:
        return credentials.Credentials(token=token)
    if not key:
        hint = "the secret holds service_account_key or token"
        raise Error(Code.UNAUTHENTICATED, "there are no credentials for BigQuery", at="secret", hint=hint)
    try:
        info = json.loads(key)
        found = service_account.Credentials.from_service_account_info(info, scopes=[SCOPE])
    except (ValueError, AttributeError, TypeError) as error:
        message = "service_account_key is no key of a service account"
        raise Error(Code.INVALID, message, at="secret", hint="the JSON file as Google gives it") from error
    check_address(info["token_uri"], job.policy, "token_uri")
    return found


def _read(job: Job, client: Any) -> Fetched | None:
    origin = job.origin
    cursor = origin.get("cursor")
    parts = _table_parts(job) if origin.get("table") else []
    table = client.get_table(".".join(parts), retry=_retry(), timeout=TIMEOUT_S) if parts else None
    stored = table is not None and table.table_type == "TABLE"
    mark = _modified(table) if stored else ""
    if mark and mark == job.fingerprint and not job.full:
        return None
    changes = bool(cursor and job.cursor and not job.full)
    if stored and not changes:
        rows = client.list_rows(table, page_size=PAGE_ROWS, retry=_retry(), timeout=TIMEOUT_S)
    else:
        rows = _query(job, client, parts, job.cursor if changes else "")
    written = _write(job, rows, cursor, bool(mark))
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


def _modified(table: Any) -> str:
    """A mark that changes whenever a table does; empty while rows are still streamed into it."""
    if table.modified is None or table.streaming_buffer is not None:
        return ""
    return f"modified:{table.modified.isoformat()}:{table.num_rows}:{table.num_bytes}"


def _table_parts(job: Job) -> list[str]:
    """Project, dataset and table of the table read."""
    parts = split_name(job.origin.get("table"), DIALECT, "table")
    before = [job.origin.get("project"), *([job.origin.get("dataset")] if job.origin.get("dataset") else [])]
    full = [*before[: max(0, 3 - len(parts))], *parts]
    if len(full) != 3:
        hint = "give dataset, or the table as dataset.table"
        raise Error(Code.INVALID, f"the dataset of {job.origin.get('table')!r} is not known", at="table", hint=hint)
    return full


def _query(job: Job, client: Any, parts: list[str], since: str) -> Any:
    """Rows of the query, or of a table's rows changed since. The parameter has the type of the cursor's column."""
    from google.cloud import bigquery

    table = quote_name(parts, DIALECT)
    config = bigquery.QueryJobConfig(use_legacy_sql=False)
    text = select_rows(job.origin, table, DIALECT, "")
    if since:
        name = split_name(job.origin.get("cursor"), DIALECT, "cursor")[-1]
        trial = bigquery.QueryJobConfig(use_legacy_sql=False, dry_run=True)
        planned = client.query(text, job_config=trial, retry=_retry(), timeout=TIMEOUT_S)
        kind = next((column.field_type for column in planned.schema or () if column.name.lower() == name.lower()), "")
        if not kind:
            raise Error(Code.INVALID, f"there is no column {name!r} to be the cursor", at="cursor")
        config.query_parameters = [bigquery.ScalarQueryParameter("since", _PARAMETERS.get(kind, kind), since)]
        text = select_rows(job.origin, table, DIALECT, f"{quote_name([name], DIALECT)} >= @since")
    asked = client.query(text, job_config=config, retry=_retry(), job_retry=None, timeout=TIMEOUT_S)
    return asked.result(page_size=PAGE_ROWS, retry=_retry(), job_retry=None)


_PARAMETERS = {"INTEGER": "INT64", "FLOAT": "FLOAT64", "BOOLEAN": "BOOL"}


def _write(job: Job, rows: Any, cursor: str, marked: bool) -> Written:
    import pyarrow as pa
    from google.cloud.bigquery._pandas_helpers import bq_to_arrow_schema

    schema = bq_to_arrow_schema(rows.schema)
    if schema is None:
        raise Error(Code.UNSUPPORTED, "a column has a type that cannot be read", hint="leave it out with `query`")
    batches = (batch.cast(schema) for batch in rows.to_arrow_iterable() if batch.num_rows)
    make = pa.RecordBatchReader.from_batches
    return write_batches(job, schema, batches, make, cursor=cursor, total=rows.total_rows, marked=marked)


def _retry() -> Any:
    from google.cloud.bigquery.retry import DEFAULT_RETRY

    return DEFAULT_RETRY.with_timeout(RETRY_S)


def _failure(error: Any, job: Job) -> Error:
    """What an answer of the API means here."""
    said = tell(error.message, job.secret)
    reasons = {str(one.get("reason", "")) for one in error.errors or () if isinstance(one, dict)}
    status = int(error.code or 500)
    if reasons & _LATER or status == 429 or status >= 500:
        return Error(Code.BUSY, f"BigQuery cannot answer now: {said}")
    if status == 404 or reasons & _GONE:
        return Error(Code.NOT_FOUND, f"BigQuery: {said}")
    if status == 401:
        return Error(Code.UNAUTHENTICATED, f"BigQuery does not accept the credentials: {said}", at="secret")
    if status == 403:
        return Error(Code.FORBIDDEN, f"BigQuery: {said}")
    return Error(Code.INVALID, f"BigQuery: {said}")
