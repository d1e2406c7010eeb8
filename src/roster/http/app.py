"""Owns the HTTP application: one request through a literal row of steps, every error in its documented body."""

from __future__ import annotations

import time
import zlib
from collections.abc import Awaitable, Callable, Mapping as Map
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import anyio
import structlog
from anyio import CapacityLimiter
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Histogram, generate_latest
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request as WireRequest
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from roster.base.errors import Code, Error
from roster.http.auth import authenticate
from roster.http.jsonapi import Shape, content_type, error_body, shape_of, status_of
from roster.http.limits import RateLimits
from roster.http.openapi import describe
from roster.http.routes import Binding, Router, bindings
from roster.http.source_metrics import SourceCollector
from roster.model.access import Caller
from roster.operations.context import Context, Reply, Request
from roster.operations.table import PREVIEW_PARAMETERS
from roster.ports import Cancel

log = structlog.get_logger("roster.http")
KEPT_HEADERS = ("if-match", "x-roster-reason", "dd-idempotency-key")


@dataclass(frozen=True, slots=True)
class DoorLimits:
    """What the HTTP door allows: bytes of a body by name, requests by bucket, queries at once."""

    body_bytes: Map[str, int]
    rate_limits: Map[str, str]
    queries_at_once: int
    threads: int


@dataclass(slots=True)
class Metrics:
    """Counters of one application, so that several can live in one process."""

    registry: CollectorRegistry
    requests: Counter
    seconds: Histogram


def _metrics() -> Metrics:
    registry = CollectorRegistry()
    labels = ["operation", "status"]
    return Metrics(
        registry,
        Counter("roster_http_requests", "HTTP requests answered", labels, registry=registry),
        Histogram("roster_http_seconds", "Time to answer an HTTP request", ["operation"], registry=registry),
    )


class Door:
    """Answers requests of one context."""

    def __init__(self, context: Context, limits: DoorLimits) -> None:
        self._context = context
        self._limits = limits
        self._router = Router(bindings())
        self._rates = RateLimits(limits.rate_limits)
        self.metrics = _metrics()
        self._heavy = CapacityLimiter(limits.queries_at_once)
        self._previews = CapacityLimiter(1)
        self._light = CapacityLimiter(limits.threads)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Whatever no other route takes, in any verb."""
        response = await self.answer(WireRequest(scope, receive))
        await response(scope, receive, send)

    async def answer(self, wire: WireRequest) -> Response:
        """One request: route, read, run, tell."""
        started_s = time.perf_counter()
        raw_path = wire.scope["raw_path"].decode("latin-1").split("?")[0]
        found = self._router.find(wire.method, raw_path)
        name = found[0].name if found else "none"
        try:
            if found is None:
                raise self._unknown(wire.method, raw_path)
            response = await self._run(wire, *found)
        except Exception as error:  # noqa: BLE001 - the last place: it is told by id and logged with its trace
            shape = found[0].shape if found else shape_of(wire.url.path)
            response = _failed(error, shape, self._context.clock.new_id())
        seconds = time.perf_counter() - started_s
        self.metrics.requests.labels(name, response.status_code).inc()
        self.metrics.seconds.labels(name).observe(seconds)
        log.info("request", operation=name, verb=wire.method, status=response.status_code, ms=round(seconds * 1000, 1))
        return response

    def _unknown(self, verb: str, raw_path: str) -> Error:
        verbs = self._router.verbs(raw_path)
        if verbs:
            return Error(Code.NOT_FOUND, f"{verb} is not served here", hint=f"served: {', '.join(verbs)}")
        return Error(Code.NOT_FOUND, "there is nothing at this path", hint="/openapi.json lists every path")

    async def _run(self, wire: WireRequest, binding: Binding, path: dict[str, str]) -> Response:
        if binding.operation is None:
            raise Error(Code.UNSUPPORTED, f"{binding.name} is not served yet", hint="/openapi.json lists what is")
        operation = binding.operation
        caller, headers = await self._in_thread(
            self._light,
            lambda: self._admit(authenticate(self._context.records, wire.headers, operation.right), binding),
        )
        try:
            cancel = Cancel()
            bare = Request(caller, b"", path, _query(wire), _headers(wire), cancel)
            admit = operation.admit
            if admit is not None:
                await self._in_thread(self._light, lambda: admit(self._context, bare))
            body = await _read_body(wire, self._limits.body_bytes[operation.body_limit], operation.body_limit)
            request = replace(bare, body=body)
            lane = self._heavy if operation.heavy else self._light
            if operation.previewed:
                request.only(*PREVIEW_PARAMETERS)
            if operation.previewed and request.flag("dry_run"):
                lane = self._previews  # it may read a source for a while: queries must not wait behind it
            reply = await _run_watched(
                wire, cancel, lambda: self._in_thread(lane, lambda: operation.function(self._context, request))
            )
        except Error as error:
            return _failed(error, binding.shape, "", headers)
        return _tell(reply, reply.status or binding.status, headers)

    def _admit(self, caller: Caller, binding: Binding) -> tuple[Caller, dict[str, str]]:
        """Count the request against its key's allowance. Error: RATE_LIMITED, told with the headers."""
        assert binding.operation is not None
        now_s = self._context.clock.now_ms() / 1000
        taken = self._rates.take(binding.operation.right, caller.api_key_id, now_s)
        if taken is None:
            return caller, {}
        allowed, allowance = taken
        if not allowed:
            raise _Limited(allowance.error(), allowance.headers())
        return caller, allowance.headers()

    async def _in_thread(self, lane: CapacityLimiter, work: Callable[[], Any]) -> Any:
        return await anyio.to_thread.run_sync(work, limiter=lane)


class _Limited(Exception):
    """A refused request with the headers that say when to come back."""

    def __init__(self, error: Error, headers: dict[str, str]) -> None:
        super().__init__(error.message)
        self.error = error
        self.headers = headers


def _failed(error: Exception, shape: Shape, id: str, headers: Map[str, str] | None = None) -> Response:
    """The answer to an error; anything we did not expect is told by an id that the log explains."""
    if isinstance(error, _Limited):
        return _failed(error.error, shape, id, error.headers)
    if isinstance(error, ClientDisconnect):
        return Response(status_code=499)
    if not isinstance(error, Error):
        log.error("internal", id=id, exc_info=error)
        error = Error(Code.INTERNAL, "internal error", hint=f"the log has the trace under id {id}")
    status = status_of(error, shape)
    return JSONResponse(error_body(error, shape), status, dict(headers or {}), content_type(shape, status))


def _tell(reply: Reply, status: int, headers: Map[str, str]) -> Response:
    told = {**headers, **reply.headers}
    if reply.body is None:
        return Response(status_code=status, headers=told)
    return JSONResponse(reply.body, status, told)


def _query(wire: WireRequest) -> dict[str, list[str]]:
    return {name: wire.query_params.getlist(name) for name in wire.query_params}


def _headers(wire: WireRequest) -> dict[str, str]:
    kept = {name: wire.headers[name] for name in KEPT_HEADERS if name in wire.headers}
    host = wire.headers.get("host", wire.url.netloc)
    return kept | {"x-roster-base-url": f"{wire.url.scheme}://{host}"}


async def _read_body(wire: WireRequest, bytes_max: int, setting: str) -> bytes:
    """The body, unpacked. Error: TOO_LARGE as soon as it is, before it is all in memory."""
    too_large = Error(Code.TOO_LARGE, "the body is too large", hint=f"at most {bytes_max} bytes (setting {setting})")
    chunks: list[bytes] = []
    size = 0
    async for chunk in wire.stream():
        size += len(chunk)
        if size > bytes_max:
            raise too_large
        chunks.append(chunk)
    body = b"".join(chunks)
    match wire.headers.get("content-encoding", "identity").strip().lower():
        case "identity" | "":
            return body
        case "gzip" | "deflate":
            return _unpack(body, bytes_max, too_large)
        case other:
            raise Error(
                Code.INVALID,
                f"unknown content encoding {other!r}",
                at="header Content-Encoding",
                hint="gzip or deflate",
            )


def _unpack(body: bytes, bytes_max: int, too_large: Error) -> bytes:
    unpacker = zlib.decompressobj(wbits=zlib.MAX_WBITS | 32)
    try:
        plain = unpacker.decompress(body, bytes_max + 1)
    except zlib.error as error:
        raise Error(Code.INVALID, "the body is not what Content-Encoding says") from error
    if len(plain) > bytes_max:
        raise too_large
    if not unpacker.eof:
        raise Error(Code.INVALID, "the compressed body is cut off")
    if unpacker.unused_data:
        raise Error(Code.INVALID, "bytes follow the end of the compressed body", hint="compress it as one member")
    return plain


async def _run_watched(wire: WireRequest, cancel: Cancel, work: Callable[[], Awaitable[Reply]]) -> Reply:
    """The reply of `work`; meanwhile a caller who hangs up cancels its query."""

    async def watch() -> None:
        while (await wire.receive())["type"] != "http.disconnect":
            pass
        cancel.cancel()

    outcome: Reply | Exception
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(watch)
        try:
            outcome = await work()
        except Exception as error:  # noqa: BLE001 - raised again below: a task group would wrap it in a group
            outcome = error
        tasks.cancel_scope.cancel()
    if isinstance(outcome, Exception):
        raise outcome
    return outcome


@cache
def described() -> dict[str, Any]:
    """Our OpenAPI document, made when it is first asked for: it would slow every start."""
    return describe(bindings())


def build_app(context: Context, limits: DoorLimits, lifespan: Any = None) -> Starlette:
    """The whole HTTP door over one context."""
    door = Door(context, limits)
    door.metrics.registry.register(SourceCollector(context.store, context.clock))

    async def openapi(_: WireRequest) -> Response:
        return JSONResponse(described())

    async def health(_: WireRequest) -> Response:
        return JSONResponse({"status": "ok"})

    async def metrics(_: WireRequest) -> Response:
        return Response(generate_latest(door.metrics.registry), media_type=CONTENT_TYPE_LATEST)

    routes = [
        Route("/openapi.json", openapi),
        Route("/health", health),
        Route("/metrics", metrics),
    ]
    app = Starlette(routes=routes, lifespan=lifespan)
    app.router.default = door  # not a route: its pattern would not match a path that holds a line break
    return app
