"""Owns reading Salesforce through simple-salesforce: SOQL by pages, much by Bulk API 2; writes nothing there."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator
from functools import partial
from typing import Any

from roster.base.errors import Code, Error
from roster.model.sync import Fetched
from roster.sources.arrow import Rows
from roster.sources.job import Job
from roster.sources.web import TIMEOUT_S, check_address, only_allowed, tell

VERSION = "62.0"
BULK_ROWS_MIN = 50_000
"""An object with more rows than this is read by a bulk job: fewer calls of the daily number, no page that expires."""
BULK_PAGE_ROWS = 50_000
QUERY_URL_MAX = 8_000
"""A query goes into the address of a request; a longer one needs a bulk job, which has it in the body."""
_WHOLE = frozenset({"address", "location", "base64", "complexvalue", "anyType"})
"""Field types that are made of others, or are files: their parts have fields of their own."""
_NUMBERS = {"int": "BIGINT", "long": "BIGINT", "double": "DOUBLE", "currency": "DOUBLE", "percent": "DOUBLE"}
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
_TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:.]{8,12}(Z|[+-][0-9]{2}:?[0-9]{2})")
_STRINGS = re.compile(r"'(?:\\.|[^'\\])*'")
_SELECT = re.compile(r"\s*select\s+(.+?)\s+from\s", re.I | re.S)
_EFFECTS = re.compile(r"\bfor\s+(update|view|reference)\b|\bupdate\s+(tracking|viewstat)\b|;", re.I)
_GONE = frozenset({"NOT_FOUND", "INVALID_TYPE"})
_LATER = frozenset({"REQUEST_LIMIT_EXCEEDED", "SERVER_UNAVAILABLE", "QUERY_TIMEOUT", "UNABLE_TO_LOCK_ROW"})


def read(job: Job) -> Fetched | None:
    """The rows of an object or query; None when they are what was read last."""
    import requests
    from simple_salesforce.exceptions import SalesforceError, SalesforceOperationError

    try:
        with only_allowed(job.policy), _session() as session:
            return _read(job, _connect(job, session))
    except SalesforceError as error:
        raise _failure(error.status, error.content, job) from error
    except SalesforceOperationError as error:
        raise Error(Code.BUSY, f"the bulk job failed: {tell(error, job.secret)}") from error
    except requests.TooManyRedirects as error:
        raise Error(Code.FORBIDDEN, "Salesforce answered with a redirect, which is not followed") from error
    except requests.JSONDecodeError as error:
        raise Error(Code.BUSY, "Salesforce did not answer with JSON") from error
    except requests.RequestException as error:
        raise Error(Code.BUSY, f"Salesforce cannot be reached: {tell(error, job.secret)}") from error


def _session() -> Any:
    """A session that takes nothing from the environment, follows no redirect and does not wait for ever."""
    import requests

    session: Any = requests.Session()
    session.request = partial(session.request, timeout=TIMEOUT_S)
    session.trust_env = False
    session.max_redirects = 0
    return session


def _connect(job: Job, session: Any) -> Any:
    from simple_salesforce.api import Salesforce

    address = check_address(job.origin.get("instance_url"), job.policy, "instance_url")
    token = job.secret.get("access_token") or _token(job, session, address)
    client = Salesforce(instance_url=address, session_id=token, session=session, version=VERSION)
    # The library writes https:// before the host, whatever the address says.
    client.base_url = f"{address}/services/data/v{VERSION}/"
    client.bulk2_url = f"{address}/services/data/v{VERSION}/jobs/"
    return client


def _token(job: Job, session: Any, address: str) -> str:
    """A token by OAuth client credentials, asked at the organisation's own address. Error: UNAUTHENTICATED."""
    if not (job.secret.get("client_id") and job.secret.get("client_secret")):
        hint = "the secret holds access_token, or client_id and client_secret"
        raise Error(Code.UNAUTHENTICATED, "there are no credentials for Salesforce", at="secret", hint=hint)
    form = {"grant_type": "client_credentials"} | {name: job.secret[name] for name in ("client_id", "client_secret")}
    answer = session.post(f"{address}/services/oauth2/token", data=form)
    if answer.status_code == 429 or answer.status_code >= 500:
        raise Error(Code.BUSY, f"Salesforce cannot log in now: it answered {answer.status_code}")
    found = answer.json() if answer.headers.get("content-type", "").startswith("application/json") else {}
    if answer.status_code != 200 or not found.get("access_token"):
        said = tell(f"{found.get('error', answer.status_code)} {found.get('error_description', '')}", job.secret)
        raise Error(Code.UNAUTHENTICATED, f"Salesforce does not accept the credentials: {said}", at="secret")
    return str(found["access_token"])


def _read(job: Job, client: Any) -> Fetched | None:
    origin = job.origin
    cursor = origin.get("cursor")
    changes = bool(cursor and job.cursor and not job.full)
    if origin.get("query"):
        text = check_query(origin.get("query"))
        if cursor:
            hint = "read an object with `object`, or leave the cursor out"
            raise Error(Code.INVALID, "a cursor does not go with a query", at="cursor", hint=hint)
        gathered = Rows(job, dict.fromkeys(selected(text), ""))
        written = gathered.write(_pages(client, text, gathered))
    else:
        name = check_name(origin.get("object"), "object")
        types = _describe(client, name)
        where = _since(types, check_name(cursor, "cursor"), job.cursor) if changes else ""
        text = f"SELECT {', '.join(types)} FROM {name}{where}"
        gathered = Rows(job, {field: _NUMBERS.get(kind, _plain(kind)) for field, kind in types.items()})
        gathered.total = int(client.query(f"SELECT COUNT() FROM {name}{where}")["totalSize"])
        if gathered.total > BULK_ROWS_MIN or len(text) > QUERY_URL_MAX:
            rows = _bulk(client, text, types)
        else:
            rows = _pages(client, text, gathered)
        written = gathered.write(rows, cursor=cursor)
    if written.digest == job.fingerprint and not job.full:
        return None
    return Fetched(
        written.names,
        "parquet",
        written.digest,
        cursor=written.top or (job.cursor if changes else ""),
        changes_only=changes,
        rows=written.rows,
        bytes=written.bytes,
    )


def check_name(text: str, at: str) -> str:
    """The name of an object or field as it is. Error: INVALID."""
    if not _NAME.fullmatch(text):
        raise Error(Code.INVALID, f"{text!r} is no name in Salesforce", at=at)
    return text


def check_query(text: str) -> str:
    """The query, when it is a SOQL SELECT without effects. Error: INVALID."""
    bare = _STRINGS.sub("''", text)
    if not _SELECT.match(bare) or _EFFECTS.search(bare):
        hint = "one SELECT without FOR UPDATE, FOR VIEW, FOR REFERENCE or UPDATE"
        raise Error(Code.INVALID, "the query is not a single SOQL SELECT", at="query", hint=hint)
    if len(text) > QUERY_URL_MAX:
        raise Error(Code.INVALID, f"the query is longer than {QUERY_URL_MAX} characters", at="query")
    return text.strip()


def selected(text: str) -> list[str]:
    """The columns that a SOQL query names, in their order; those that only the answer tells are left out."""
    found = _SELECT.match(text)
    parts = [part.strip() for part in found[1].split(",")] if found else []
    return [part for part in parts if re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*(\.[A-Za-z][A-Za-z0-9_]*)*", part)]


def _describe(client: Any, name: str) -> dict[str, str]:
    """The fields of an object that can be read, with their types."""
    found = client.restful(f"sobjects/{name}/describe")
    return {check_name(one["name"], "object"): one["type"] for one in found["fields"] if one["type"] not in _WHOLE}


def _plain(kind: str) -> str:
    return "BOOLEAN" if kind == "boolean" else "VARCHAR"


def _since(types: dict[str, str], field: str, since: str) -> str:
    """The condition for rows changed since: SOQL has no parameters, so the value must look as its type does."""
    kind = types.get(field, "")
    if kind == "datetime" and _TIME.fullmatch(since):
        return f" WHERE {field} >= {since}"
    if kind in _NUMBERS and re.fullmatch(r"-?[0-9]+(\.[0-9]+)?", since):
        return f" WHERE {field} >= {since}"
    hint = "a date and time such as SystemModstamp, or a number"
    raise Error(Code.INVALID, f"{field!r} cannot be the cursor", at="cursor", hint=hint)


def _pages(client: Any, text: str, gathered: Rows) -> Iterator[dict[str, Any]]:
    """Rows page by page. The next page is asked for by its id, so an answer cannot send the reader elsewhere."""
    page = client.query(text)
    gathered.total = page.get("totalSize")
    while True:
        for record in page["records"]:
            yield flatten(record)
        if page.get("done", True):
            return
        page = client.query_more(str(page["nextRecordsUrl"]).rsplit("/", 1)[-1])


def flatten(record: dict[str, Any], before: str = "") -> dict[str, Any]:
    """One level of names: a parent's field is `Account.Name`; times get an offset with a colon."""
    row: dict[str, Any] = {}
    for name, value in record.items():
        if name == "attributes":
            continue
        if isinstance(value, dict) and "attributes" in value:
            row |= flatten(value, f"{before}{name}.")
        else:
            row[before + name] = spell_time(value) if isinstance(value, str) else value
    return row


def spell_time(text: str) -> str:
    """`...T10:00:00.000+0000` as `...T10:00:00.000Z`; any other text as it is."""
    return text[:-5] + "Z" if text.endswith("+0000") and _TIME.fullmatch(text) else text


def _bulk(client: Any, text: str, types: dict[str, str]) -> Iterator[dict[str, Any]]:
    """Rows of a bulk query, with the types that the REST answer would give."""
    from simple_salesforce.bulk2 import SFBulk2Handler

    handler = SFBulk2Handler(client.session_id, client.bulk2_url, session=client.session)
    for part in handler.Query.query(text, max_records=BULK_PAGE_ROWS, wait=1):
        for record in csv.DictReader(io.StringIO(str(part))):
            yield {name: _typed(value, types.get(name, "")) for name, value in record.items()}


def _typed(text: str | None, kind: str) -> Any:
    if not text:
        return None
    if kind == "boolean":
        return text == "true"
    if kind in _NUMBERS:
        return int(text) if re.fullmatch(r"-?[0-9]+", text) else float(text)
    return spell_time(text) if kind == "datetime" else text


def _failure(status: int, content: Any, job: Job) -> Error:
    """What an answer of the API means here; it is a list of errors, each with its code."""
    listed = [one for one in content if isinstance(one, dict)] if isinstance(content, list) else []
    codes = {str(one.get("errorCode", "")) for one in listed}
    said = tell("; ".join(f"{one.get('errorCode')}: {one.get('message')}" for one in listed) or status, job.secret)
    if codes & _LATER or status == 429 or status >= 500:
        return Error(Code.BUSY, f"Salesforce cannot answer now: {said}")
    if status == 401:
        return Error(Code.UNAUTHENTICATED, f"Salesforce does not accept the credentials: {said}", at="secret")
    if status == 404 or codes & _GONE:
        return Error(Code.NOT_FOUND, f"Salesforce: {said}")
    if status == 403:
        return Error(Code.FORBIDDEN, f"Salesforce: {said}")
    return Error(Code.INVALID, f"Salesforce: {said}")
