"""Owns how replies and errors become HTTP answers; knows no route and reads no request."""

from __future__ import annotations

from collections.abc import Mapping as Map

import structlog
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse, Response, StreamingResponse

from roster.base.errors import Code, Error
from roster.http.jsonapi import Shape, content_type, error_body, status_of
from roster.operations.context import Reply

log = structlog.get_logger("roster.http")


def failed(error: Exception, shape: Shape, id: str, headers: Map[str, str] | None = None) -> Response:
    """The answer to an error; anything we did not expect is told by an id that the log explains."""
    if isinstance(error, ClientDisconnect):
        return Response(status_code=499)
    if not isinstance(error, Error):
        log.error("internal", id=id, exc_info=error)
        error = Error(Code.INTERNAL, "internal error", hint=f"the log has the trace under id {id}")
    status = status_of(error, shape)
    return JSONResponse(error_body(error, shape), status, dict(headers or {}), content_type(shape, status))


def told(reply: Reply, status: int, headers: Map[str, str]) -> Response:
    """The answer of an operation, with the headers of the door under its own."""
    all_headers = {**headers, **reply.headers}
    if reply.stream is not None:
        return StreamingResponse(reply.stream, status, all_headers)
    if reply.body is None:
        return Response(status_code=status, headers=all_headers)
    return JSONResponse(reply.body, status, all_headers)
