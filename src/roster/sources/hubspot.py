"""Owns reading HubSpot's CRM objects over REST, page by page and within its rate limits; writes nothing there."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from typing import Any

import httpx2

from roster.base.errors import Code, Error
from roster.model.sync import Fetched
from roster.sources.arrow import Rows
from roster.sources.job import Job
from roster.sources.outbound import open_client
from roster.sources.web import check_address, tell

ADDRESS = "https://api.hubapi.com"
VERSION = "2026-03"
PAGE_ROWS = 100
ASK_URL_MAX = 6_000
"""More properties than fit into an address are asked for in the body of a second request."""
ATTEMPTS = 6
WAIT_MAX_S = 30.0
_OBJECT = re.compile(r"[A-Za-z0-9_-]{1,100}")
_PROPERTY = re.compile(r"[A-Za-z0-9_]{1,200}")


def read(job: Job) -> Fetched | None:
    """The rows of a CRM object with its properties as columns; None when they are what was read last."""
    token = job.secret.get("access_token", "")
    if not token:
        raise Error(Code.UNAUTHENTICATED, "there are no credentials for HubSpot", at="secret", hint="access_token")
    address = check_address(job.origin.get("base_url", ADDRESS), job.policy, "base_url")
    name = job.origin.get("object")
    if not _OBJECT.fullmatch(name):
        raise Error(Code.INVALID, f"{name!r} is no name of a HubSpot object", at="object")
    with open_client(job.policy, job.limits.silence_s) as client:
        api = Api(client, job, address, {"authorization": f"Bearer {token}"})
        columns = _columns(api, job, name)
        written = Rows(job, dict.fromkeys(("id", *columns, "createdAt", "updatedAt"), "VARCHAR")).write(
            _records(api, name, columns)
        )
    if written.digest == job.fingerprint and not job.full:
        return None
    return Fetched(written.names, "parquet", written.digest, rows=written.rows, bytes=written.bytes)


def _columns(api: Api, job: Job, name: str) -> list[str]:
    """The properties asked for, or all that the object has."""
    given = [text.strip() for text in job.origin.get("properties").split(",") if text.strip()]
    wrong = [text for text in given if not _PROPERTY.fullmatch(text)]
    if wrong:
        raise Error(Code.INVALID, f"{wrong[0]!r} is no name of a property", at="properties")
    if given:
        return list(dict.fromkeys(given))
    return [str(one["name"]) for one in api.ask("GET", f"/crm/properties/{VERSION}/{name}")["results"]]


def _records(api: Api, name: str, columns: list[str]) -> Iterator[dict[str, Any]]:
    """One row a record. Properties keep HubSpot's own spelling: all are text."""
    listed = ",".join(columns)
    inline = len(listed) <= ASK_URL_MAX
    path = f"/crm/objects/{VERSION}/{name}"
    after = ""
    while True:
        params = {"limit": str(PAGE_ROWS)} | ({"properties": listed} if inline else {})
        page = api.ask("GET", path, params=params | ({"after": after} if after else {}))
        records = page["results"]
        if records and not inline:
            asked = {"inputs": [{"id": one["id"]} for one in records], "properties": columns}
            records = api.ask("POST", f"{path}/batch/read", json=asked)["results"]
        for one in records:
            values = {column: one.get("properties", {}).get(column) for column in columns}
            yield {"id": one["id"], **values, "createdAt": one.get("createdAt"), "updatedAt": one.get("updatedAt")}
        following = str(page.get("paging", {}).get("next", {}).get("after", ""))
        if not following:
            return
        if following == after:
            raise Error(Code.INVALID, "HubSpot's pages do not end: the same page comes again")
        after = following


class Api:
    """One account's API: asks again when it is told to wait, and says what other answers mean."""

    def __init__(self, client: httpx2.Client, job: Job, address: str, headers: dict[str, str]) -> None:
        self._client = client
        self._job = job
        self._address = address
        self._headers = headers

    def ask(self, method: str, path: str, **more: Any) -> Any:
        """The answer's JSON. Errors: NOT_FOUND, UNAUTHENTICATED, FORBIDDEN, INVALID, BUSY."""
        for attempt in range(1, ATTEMPTS + 1):
            answer = self._client.request(method, self._address + path, headers=self._headers, **more)
            if (answer.status_code != 429 and answer.status_code < 500) or _spent(answer):
                break
            if attempt < ATTEMPTS:
                time.sleep(wait_s(answer.headers.get("retry-after", ""), attempt))
        if not answer.is_success:
            raise self._failure(answer)
        try:
            return answer.json()
        except ValueError as error:
            raise Error(Code.BUSY, "HubSpot did not answer with JSON") from error

    def _failure(self, answer: httpx2.Response) -> Error:
        said = tell(_message(answer), self._job.secret)
        match answer.status_code:
            case 401:
                return Error(Code.UNAUTHENTICATED, f"HubSpot does not accept the credentials: {said}", at="secret")
            case 403:
                return Error(Code.FORBIDDEN, f"HubSpot: {said}", hint="the token needs the scope to read this object")
            case 404:
                return Error(Code.NOT_FOUND, f"HubSpot: {said}", at="object")
            case 429:
                return Error(Code.BUSY, f"HubSpot's rate limit is reached: {said}")
            case status if status >= 500:
                return Error(Code.BUSY, f"HubSpot cannot answer now: {said}")
            case status if status < 400:
                return Error(Code.FORBIDDEN, "HubSpot answered with a redirect, which is not followed")
        return Error(Code.INVALID, f"HubSpot: {said}")


def _spent(answer: httpx2.Response) -> bool:
    """Whether the day's number of requests is used up: waiting a little does not help then."""
    return answer.status_code == 429 and "DAILY" in answer.text[:2000]


def _message(answer: httpx2.Response) -> str:
    try:
        found = answer.json()
    except ValueError:
        return str(answer.status_code)
    return str(found.get("message", answer.status_code)) if isinstance(found, dict) else str(answer.status_code)


def wait_s(asked: str, attempt: int) -> float:
    """Seconds to wait: what the answer asks for, else longer each time; never more than a while."""
    try:
        wanted = float(int(asked))
    except ValueError:
        wanted = 0.5 * 2.0**attempt
    return min(max(wanted, 0.0), WAIT_MAX_S)
