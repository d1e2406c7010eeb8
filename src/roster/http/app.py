"""Owns the HTTP application: one request through a literal row of steps, every error in its documented body."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping as Map
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import anyio
import structlog
from anyio import CapacityLimiter
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request as WireRequest
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from roster.base.errors import Code, Error
from roster.http.answers import failed, told
from roster.http.auth import authenticate
from roster.http.intake_door import IntakeDoor, IntakeLimits
from roster.http.intake_metrics import IntakeCollector
from roster.http.jsonapi import shape_of
from roster.http.limits import RateLimits
from roster.http.openapi import describe
from roster.http.packing import too_large, unpack
from roster.http.request_metrics import new_metrics
from roster.http.retention_metrics import RetentionCollector
from roster.http.routes import Binding, Router, bindings
from roster.http.source_metrics import SourceCollector
from roster.operations.context import Context, Reply, Request
from roster.operations.table import PREVIEW_PARAMETERS
from roster.ports import Cancel

log = structlog.get_logger("roster.http")
KEPT_HEADERS = ("if-match", "x-roster-reason")


@dataclass(frozen=True, slots=True)
class DoorLimits:
    """What the HTTP door allows: bytes of a body by name, requests by bucket, queries at once."""

    body_bytes: Map[str, int]
    rate_limits: Map[str, str]
    queries_at_once: int
    threads: int
    intake: IntakeLimits


class Door:
    """Answers requests of one context."""

    def __init__(self, context: Context, limits: DoorLimits) -> None:
        self._context = context
        self._limits = limits
        self._router = Router(bindings())
        self.rates = RateLimits(limits.rate_limits)
        self.metrics = new_metrics()
        self._heavy = CapacityLimiter(limits.queries_at_once)
        self._previews = CapacityLimiter(1)
        self._light = CapacityLimiter(limits.threads)
        self._outside = CapacityLimiter(1)

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
            response = failed(error, shape, self._context.clock.new_id())
        seconds = time.perf_counter() - started_s
        self.metrics.note(name, response.status_code, seconds)
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
        caller = await self._in_thread(
            self._light, lambda: authenticate(self._context.records, wire.headers, operation.right)
        )
        now_s = self._context.clock.now_ms() / 1000
        headers, refusal = self.rates.admit(operation.right, caller.api_key_id, now_s)
        if refusal is not None:
            return failed(refusal, binding.shape, "", headers)
        try:
            cancel = Cancel()
            bare = Request(caller, b"", path, _query(wire), _headers(wire), cancel)
            admit = operation.admit
            if admit is not None:
                await self._in_thread(self._light, lambda: admit(self._context, bare))
            body = await _read_body(wire, self._limits.body_bytes[operation.body_limit], operation.body_limit)
            request = replace(bare, body=body)
            lane = self._heavy if operation.heavy else self._outside if operation.outside else self._light
            if operation.previewed:
                request.only(*PREVIEW_PARAMETERS)
            if operation.previewed and request.flag("dry_run"):
                lane = self._previews  # it may read a source for a while: queries must not wait behind it
            reply = await _run_watched(
                wire, cancel, lambda: self._in_thread(lane, lambda: operation.function(self._context, request))
            )
        except Error as error:
            return failed(error, binding.shape, "", headers)
        return told(reply, reply.status or binding.status, headers)

    async def _in_thread(self, lane: CapacityLimiter, work: Callable[[], Any]) -> Any:
        return await anyio.to_thread.run_sync(work, limiter=lane)


def _query(wire: WireRequest) -> dict[str, list[str]]:
    return {name: wire.query_params.getlist(name) for name in wire.query_params}


def _headers(wire: WireRequest) -> dict[str, str]:
    kept = {name: wire.headers[name] for name in KEPT_HEADERS if name in wire.headers}
    host = wire.headers.get("host", wire.url.netloc)
    return kept | {"x-roster-base-url": f"{wire.url.scheme}://{host}"}


async def _read_body(wire: WireRequest, bytes_max: int, setting: str) -> bytes:
    """The body, unpacked. Error: TOO_LARGE as soon as it is, before it is all in memory."""
    chunks: list[bytes] = []
    size = 0
    async for chunk in wire.stream():
        size += len(chunk)
        if size > bytes_max:
            raise too_large(bytes_max, setting)
        chunks.append(chunk)
    return unpack(b"".join(chunks), wire.headers.get("content-encoding", ""), bytes_max, setting)


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
    door.metrics.registry.register(IntakeCollector(context.intake.tally))
    door.metrics.registry.register(RetentionCollector(context.removed))

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
    intake = Middleware(
        IntakeDoor,
        context=context,
        limits=limits.intake,
        bytes_max=limits.body_bytes["event_body_bytes_max"],
        rates=door.rates,
        metrics=door.metrics,
    )
    app = Starlette(routes=routes, lifespan=lifespan, middleware=[intake])
    app.router.default = door  # not a route: its pattern would not match a path that holds a line break
    return app
