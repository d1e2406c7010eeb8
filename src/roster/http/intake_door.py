"""Owns the door of events: its paths behind any proxy, its credentials in the query, its bounds. Decodes no event.

It stands in front of the rest of the API with threads of its own, so that events never wait behind queries.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar
from urllib.parse import parse_qsl

import anyio
import structlog
from anyio import CapacityLimiter
from starlette.requests import Request as WireRequest
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from roster.base.errors import Code, Error
from roster.http.answers import failed, told
from roster.http.auth import authenticate
from roster.http.jsonapi import Shape
from roster.http.limits import RateLimits
from roster.http.packing import inflate, too_large, unpack
from roster.http.request_metrics import Metrics
from roster.http.routes import Binding, bindings
from roster.model.access import Caller, Right, hash_key
from roster.operations.context import Context, Reply, Request

log = structlog.get_logger("roster.http")
Got = TypeVar("Got")
Query = dict[str, list[str]]

TRACKS: dict[str, Binding] = {
    b.path: b for b in bindings() if b.name in ("SubmitRumEvents", "SubmitReplay", "SubmitProductAnalyticsEvent")
}
DISCARDED = "SubmitReplay"
KEPT_HEADERS = (
    "user-agent",
    "dd-idempotency-key",
    "dd-request-id",
    "dd-evp-origin",
    "dd-evp-origin-version",
)
BACK_OFF_S = 5
"""What a sender is told to wait when there is no room: buffers are written out in less."""
PARAMETERS_MAX = 100
KNOWN_MAX = 10_000
"""Keys remembered."""
CORS = {"access-control-allow-origin": "*"}
PREFLIGHT = CORS | {
    "access-control-allow-methods": "POST",
    "access-control-allow-headers": "content-type, content-encoding, dd-api-key, dd-evp-origin, "
    "dd-evp-origin-version, dd-request-id, dd-idempotency-key",
    "access-control-max-age": "86400",
}


@dataclass(frozen=True, slots=True)
class IntakeLimits:
    """What the door of events allows; each is a setting, `bytes_at_once_max` and `threads` with `intake_` before."""

    bytes_at_once_max: int
    body_timeout_s: float
    threads: int


class Room:
    """The bytes of bodies that are in memory at the moment; any thread may ask for some."""

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._taken = 0
        self._turn = threading.Lock()

    @contextmanager
    def share(self) -> Iterator[Callable[[int], None]]:
        """A function that takes so many bytes more, until the block ends. Its error: OVERLOADED."""
        mine = 0

        def take(size: int) -> None:
            nonlocal mine
            with self._turn:
                if self._taken + size > self._bytes_max:
                    hint = f"at most {self._bytes_max} bytes at once (setting intake_bytes_at_once_max)"
                    raise Error(Code.OVERLOADED, "too many events come in at once", hint=hint)
                self._taken += size
                mine += size

        try:
            yield take
        finally:
            with self._turn:
                self._taken -= mine


class IntakeDoor:
    """Answers what is sent to a track of events, or anywhere with `ddforward`; hands on everything else."""

    def __init__(
        self,
        app: ASGIApp,
        context: Context,
        limits: IntakeLimits,
        bytes_max: int,
        rates: RateLimits,
        metrics: Metrics,
    ) -> None:
        self._app = app
        self._context = context
        self._bytes_max = bytes_max
        self._body_timeout_s = limits.body_timeout_s
        self._rates = rates
        self._metrics = metrics
        self._known: dict[str, Caller] = {}
        self._room = Room(limits.bytes_at_once_max)
        self._lane = CapacityLimiter(limits.threads)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request; what is no request of events goes on untouched."""
        asked = _asked(scope)
        if asked is None:
            await self._app(scope, receive, send)
            return
        response = await self._answer(WireRequest(scope, receive), *asked)
        await response(scope, receive, send)

    async def _answer(self, wire: WireRequest, path: str, query: Query) -> Response:
        started_s = time.perf_counter()
        name = "none"
        try:
            if wire.method == "OPTIONS":
                response = Response(status_code=204, headers=PREFLIGHT)
            else:
                binding, query = _track(wire.method, path, query)
                name = binding.name
                response = await self._take(wire, binding, query)
        except Exception as error:  # noqa: BLE001 - the last place: it is told by id and logged with its trace
            response = failed(error, Shape.OBJECTS, self._context.clock.new_id())
        response.headers.update(CORS)
        seconds = time.perf_counter() - started_s
        self._metrics.note(name, response.status_code, seconds)
        tell = log.debug if response.status_code < 400 else log.info
        tell("request", operation=name, verb=wire.method, status=response.status_code, ms=round(seconds * 1000, 1))
        return response

    async def _take(self, wire: WireRequest, binding: Binding, query: Query) -> Response:
        """Admit, then read, then run: nobody without a key has room taken for a body."""
        operation = binding.operation
        assert operation is not None
        in_query = query.pop("dd-api-key", [""])[0]
        secret = wire.headers.get("dd-api-key") or in_query
        known = self._known.get(hash_key(secret, self._context.pepper))
        caller = known if known is not None else await self._in_thread(lambda: self._authenticate(secret))
        now_s = self._context.clock.now_ms() / 1000
        headers, refusal = self._rates.admit(operation.right, caller.api_key_id, now_s)
        try:
            if refusal is not None:
                raise refusal
            with self._room.share() as take:
                packed = await self._read(wire, take, kept=binding.name != DISCARDED)
                kept = _kept(wire)

                def work() -> Reply:
                    if known is not None:
                        self._authenticate(secret)  # knowing it saved a wait, but it may be revoked by now
                    body = self._unpacked(packed, wire.headers.get("content-encoding", ""), query, take)
                    return operation.function(self._context, Request(caller, body, {}, query, kept))

                reply = await self._in_thread(work)
        except Error as error:
            return failed(error, Shape.OBJECTS, "", headers | _headers_of(error))
        return told(reply, binding.status, headers)

    def _authenticate(self, secret: str) -> Caller:
        """Who holds a key. It is remembered by its hash, so that the next body can be read without a wait."""
        hash = hash_key(secret, self._context.pepper)
        try:
            caller = authenticate(self._context.records, {"dd-api-key": secret}, Right.WRITE_EVENTS)
        except Error:
            self._known.pop(hash, None)
            raise
        if len(self._known) >= KNOWN_MAX:
            self._known.clear()
        self._known[hash] = caller
        return caller

    async def _read(self, wire: WireRequest, take: Callable[[int], None], *, kept: bool) -> bytes:
        """The body as it came, nothing of one that is not `kept`. Errors: TOO_LARGE, OVERLOADED, LATE.

        What a sender announces is believed where it is too much, and takes no room: saying it costs nothing.
        """
        self._check_size(_length(wire) or 0)
        chunks: list[bytes] = []
        size = 0
        try:
            with anyio.fail_after(self._body_timeout_s):
                async for chunk in wire.stream():
                    size += len(chunk)
                    self._check_size(size)
                    if kept:
                        take(len(chunk))
                        chunks.append(chunk)
        except TimeoutError as error:
            hint = f"send it within {self._body_timeout_s:g} s (setting body_timeout_s)"
            raise Error(Code.LATE, "the body did not come in time", hint=hint) from error
        return b"".join(chunks)

    def _check_size(self, size: int) -> None:
        if size > self._bytes_max:
            raise too_large(self._bytes_max, "event_body_bytes_max")

    def _unpacked(self, packed: bytes, encoding: str, query: Query, take: Callable[[int], None]) -> bytes:
        """What was put on last comes off first: Content-Encoding, then the SDK's own. Errors: INVALID, TOO_LARGE."""
        if not packed:
            return packed
        setting = "event_body_bytes_max"
        body = unpack(packed, encoding, self._bytes_max, setting, take)
        match query.get("dd-evp-encoding", [""])[-1].lower():
            case "" | "identity":
                return body
            case "deflate":
                return inflate(body, self._bytes_max, setting, take)
            case other:
                place = "parameter dd-evp-encoding"
                raise Error(Code.INVALID, f"unknown encoding {other[:40]!r}", at=place, hint="deflate, or none")

    async def _in_thread(self, work: Callable[[], Got]) -> Got:
        return await anyio.to_thread.run_sync(work, limiter=self._lane)


def _asked(scope: Scope) -> tuple[str, Query] | None:
    """Path and query of what this door answers, None for the rest. Decides without looking at more than it must."""
    if scope["type"] != "http":
        return None
    path = "/" + scope["raw_path"].decode("latin-1").split("?")[0].lstrip("/")
    text: bytes = scope["query_string"]
    sends = scope["method"] in ("POST", "OPTIONS")
    forwards = sends and b"ddforward" in text
    if sends and path not in TRACKS:  # a proxy function may put its own path in front
        path = next((track for track in TRACKS if path.rstrip("/").endswith(track)), path)
    if path not in TRACKS and not forwards:
        return None
    query = _parse(text.decode("latin-1"))
    return (path, query) if path in TRACKS or "ddforward" in query else None


def _parse(text: str) -> Query:
    query: Query = {}
    for name, value in parse_qsl("&".join(text.split("&", PARAMETERS_MAX)[:PARAMETERS_MAX]), keep_blank_values=True):
        query.setdefault(name, []).append(value)
    return query


def _track(verb: str, path: str, query: Query) -> tuple[Binding, Query]:
    """The track a request is for, and its query. Errors: INVALID (`ddforward` to elsewhere), NOT_FOUND."""
    forward = query.pop("ddforward", None)
    query.pop("ddforwardSubdomain", None)
    if forward is not None:
        path, _, text = forward[0].partition("?")
        if len(forward) > 1 or path not in TRACKS:
            hint = f"one path of {', '.join(TRACKS)} with its query; an address is never followed"
            raise Error(Code.INVALID, "ddforward leads elsewhere", at="parameter ddforward", hint=hint)
        query = {name: query[name] for name in ("dd-api-key",) if name in query} | _parse(text)
    if verb != "POST":
        raise Error(Code.NOT_FOUND, f"{verb} is not served here", hint="served: POST")
    return TRACKS[path], query


def _length(wire: WireRequest) -> int | None:
    """Content-Length, None for a body that comes in chunks."""
    text = wire.headers.get("content-length", "")
    return int(text) if text.isascii() and text.isdecimal() and "transfer-encoding" not in wire.headers else None


def _kept(wire: WireRequest) -> dict[str, str]:
    kept = {name: wire.headers[name] for name in KEPT_HEADERS if name in wire.headers}
    return kept | {"x-roster-peer": wire.client.host if wire.client else ""}


def _headers_of(error: Error) -> dict[str, str]:
    """When to come back, and that no more of a late body is waited for."""
    match error.code:
        case Code.OVERLOADED:
            return {"x-ratelimit-reset": str(BACK_OFF_S)}
        case Code.LATE:
            return {"connection": "close"}
        case _:
            return {}
