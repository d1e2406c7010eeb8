"""Owns talking to a far end that speaks the API: keys from the environment, requests, errors. Decides no step.

TLS is verified and no redirect is followed, so keys reach the named host only.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator, Mapping as Map
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import httpx2

from roster import __version__
from roster.base.errors import HTTP_STATUS, Code, Error
from roster.model.declaration import Declaration, DeclaredConnection, read_declaration
from roster.model.declaration_calls import SEGMENTS, TABLES, Call, mapping_path
from roster.model.declaration_far import declare_listed, declare_segments, declare_tables, name_tables
from roster.model.schema import Entity

DECLARATION = "/api/roster/declaration"
TIMEOUT_S = 120.0
PAGE_ROWS = 100
WAITS_MAX, WAIT_MAX_S = 5, 60
"""How often, and how long at most, a far end that has had enough requests is waited for."""
LOOPBACK = ("127.0.0.1", "localhost", "::1")
_NOT_SERVED = (404, 405, 501)
_PLACE = re.compile(r"(?P<message>.*) \(at (?P<at>/[^)]*)\)(?:; (?P<hint>.*))?", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Far:
    """What stands at a far end. `versions` of its mappings are known of a Roster only; `notes` say what is left out."""

    declaration: Declaration
    is_roster: bool
    versions: Map[Entity, int]
    notes: tuple[str, ...]


class FarEnd:
    """Requests to one far end."""

    def __init__(self, client: httpx2.Client, url: str) -> None:
        self._client = client
        self.url = url

    def ask(self, call: Call, *, reason: str = "") -> Any:
        """The body of an answer, None when empty. Error: what the far end says, with its place."""
        answer = self._send(call, {"X-Roster-Reason": reason} if reason else {})
        if answer.status_code in call.done:
            return None
        if not answer.is_success:
            raise _refused(call, answer)
        try:
            return answer.json() if answer.content else None
        except ValueError as error:
            raise Error(Code.INTERNAL, f"{call.verb} {call.path}: the answer is no JSON", hint=self.url) from error

    def _send(self, call: Call, headers: Map[str, str]) -> httpx2.Response:
        content = None if call.body is None else json.dumps(call.body).encode()
        for _ in range(WAITS_MAX):
            try:
                answer = self._client.request(call.verb, self.url + call.path, content=content, headers=dict(headers))
            except httpx2.TimeoutException as error:
                hint = "it may have done it nevertheless: plan again"
                raise Error(Code.TIMEOUT, f"{self.url} did not answer in {TIMEOUT_S:g} seconds", hint=hint) from error
            except httpx2.HTTPError as error:
                hint = "is it up, and --url right?"
                raise Error(Code.BUSY, f"cannot reach {self.url}: {error}", hint=hint) from error
            wait = answer.headers.get("x-ratelimit-reset", "")
            if answer.status_code != 429 or not wait.isdecimal() or int(wait) > WAIT_MAX_S:
                break
            time.sleep(int(wait) + 0.1)
        if answer.is_redirect:
            message = f"{self.url} answers that it is elsewhere: {answer.headers.get('location', '')}"
            raise Error(Code.INVALID, message, hint="keys are not sent on: give that address as --url")
        return answer

    def read(self) -> Far:
        """Everything that can be declared."""
        notes: list[str] = []
        listed = self._list("tables", notes)
        tables = None if listed is None else declare_tables(listed)
        found = self._list("segments", notes)
        segments, more = (None, ()) if found is None else declare_segments(found)
        own = self._own_declaration()
        if own is not None:
            versions = {entity: own[entity.value].pop("version") for entity in Entity}
            known = read_declaration(own)
            users, accounts = known.users, known.accounts
        else:
            versions = {}
            users, accounts = (name_tables(self._connections(e), {t.id: t.name for t in tables or ()}) for e in Entity)
        declaration = Declaration(users, accounts, tables, segments)
        return Far(declaration, own is not None, versions, (*notes, *more))

    def _own_declaration(self) -> dict[str, Any] | None:
        """What only a Roster answers; None tells that this is none, or hides it.

        Error: what else it answers. A Roster that is only busy must not be taken for another far end.
        """
        answer = self._send(Call("GET", DECLARATION), {})
        if answer.status_code in (*_NOT_SERVED, 400, 403):
            return None
        if answer.status_code != 200:
            raise _refused(Call("GET", DECLARATION), answer)
        try:
            data = answer.json()["data"]
            return data["attributes"] if data["type"] == "declaration" else None
        except (ValueError, TypeError, KeyError):
            return None

    def _connections(self, entity: Entity) -> tuple[DeclaredConnection, ...]:
        body = self.ask(Call("GET", f"{mapping_path(entity)}/connections"))
        return declare_listed((body or {}).get("data", {}).get("attributes", {}).get("connections") or [])

    def _list(self, what: str, notes: list[str]) -> list[dict[str, Any]] | None:
        """All tables or segments; None with a note where a far end does not have them."""
        try:
            return list(self._pages()) if what == "tables" else list((self.ask(Call("GET", SEGMENTS)) or {})["data"])
        except Error as error:
            if error.code not in (Code.NOT_FOUND, Code.UNSUPPORTED):
                raise
            notes.append(f"the far end serves no {what}: left out")
            return None

    def _pages(self) -> Iterator[dict[str, Any]]:
        offset = 0
        while True:
            query = f"page%5Blimit%5D={PAGE_ROWS}&page%5Boffset%5D={offset}&sort=table_name"
            page = (self.ask(Call("GET", f"{TABLES}?{query}")) or {}).get("data") or []
            yield from page
            if len(page) < PAGE_ROWS:
                return
            offset += len(page)


@contextmanager
def open_far_end(url: str, environment: Map[str, str]) -> Iterator[FarEnd]:
    """A far end at an address, with the keys of the environment. Errors: INVALID, UNAUTHENTICATED."""
    address = check_url(url)
    headers = {"Content-Type": "application/json", "Accept": "application/json"}
    headers |= {"User-Agent": f"roster/{__version__}", **credentials(environment)}
    with httpx2.Client(headers=headers, timeout=TIMEOUT_S, follow_redirects=False) as client:
        yield FarEnd(client, address)


def check_url(url: str) -> str:
    """The address without a slash at its end: https, or http on this machine. Error: INVALID."""
    hint = "such as https://api.datadoghq.eu or http://127.0.0.1:8126"
    try:
        parts = urlsplit(url.strip())
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise Error(Code.INVALID, "--url is no address", hint=hint) from error
    if parts.scheme not in ("http", "https") or not host or parts.username or parts.query or parts.fragment:
        raise Error(Code.INVALID, "--url is no plain address", hint=hint)
    if parts.scheme == "http" and host not in LOOPBACK:
        raise Error(Code.INVALID, f"http would send the keys to {host} in the clear", hint="use https")
    return f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}"


def credentials(environment: Map[str, str]) -> dict[str, str]:
    """The headers that say who asks, from ROSTER_ variables, else from DD_ ones. Error: UNAUTHENTICATED."""
    for prefix in ("ROSTER", "DD"):
        api, application, bearer = (
            environment.get(f"{prefix}_{name}", "").strip() for name in ("API_KEY", "APP_KEY", "BEARER_TOKEN")
        )
        if api and application:
            return {"DD-API-KEY": api, "DD-APPLICATION-KEY": application}
        if bearer:
            return {"Authorization": f"Bearer {bearer}"}
    hint = "set ROSTER_API_KEY and ROSTER_APP_KEY, or DD_API_KEY and DD_APP_KEY, or ROSTER_BEARER_TOKEN"
    raise Error(Code.UNAUTHENTICATED, "no keys for the far end are in the environment", hint=hint)


_CODES = {status: code for code, status in HTTP_STATUS.items() if code is not Code.TIMEOUT} | {
    status: Code.NOT_FOUND for status in _NOT_SERVED if status != 501
}


def _refused(call: Call, answer: httpx2.Response) -> Error:
    """What the far end says of a request, with its pointer when there is one."""
    code = _CODES.get(answer.status_code, Code.INTERNAL if answer.status_code >= 500 else Code.INVALID)
    told = f"the far end refuses {call.verb} {call.path.partition('?')[0]} ({answer.status_code})"
    if code is Code.FORBIDDEN or code is Code.UNAUTHENTICATED:
        return Error(code, told, hint="do the keys belong to this far end, and do they give the right?")
    try:
        errors = answer.json()["errors"]
        errors = errors if isinstance(errors, list) else [errors]
    except (ValueError, TypeError, KeyError):
        errors = [" ".join(answer.text.split())[:300]] if answer.text.strip() else []
    parts = [_part(one) for one in errors]
    text = "; ".join(filter(None, (message for message, _, _ in parts)))
    text, at, hint = parts[0] if len(parts) == 1 else (text, "", "")
    if at:  # it tells of what stands there, better than of the request
        return Error(code, text, at=at, hint=hint)
    return Error(code, f"{told}: {text}" if text else told)


def _part(error: Any) -> tuple[str, str, str]:
    """Message, pointer and hint of one error, in either of the API's forms."""
    if isinstance(error, dict):
        text = str(error.get("detail") or error.get("title") or "")
        return text, str((error.get("source") or {}).get("pointer") or ""), ""
    found = _PLACE.fullmatch(str(error))
    return (found["message"], found["at"], found["hint"] or "") if found else (str(error), "", "")
