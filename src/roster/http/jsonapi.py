"""Owns the error bodies of the API, as documented and as recorded; knows no operation."""

from __future__ import annotations

from enum import Enum
from http import HTTPStatus
from typing import Any

from roster.base.errors import HTTP_STATUS, Code, Error


class Shape(Enum):
    """How an operation tells its errors."""

    STRINGS = "strings"
    OBJECTS = "objects"
    TABLES = "tables"
    VALIDATE_V1 = "validate_v1"
    VALIDATE_V2 = "validate_v2"


def shape_of(path: str) -> Shape:
    """The documented shape at a path: objects for events and key validation v2, recorded ones for tables."""
    if path.startswith("/api/v2/reference-tables/"):
        return Shape.TABLES
    return {
        "/api/v2/prodlytics": Shape.OBJECTS,
        "/api/v2/rum": Shape.OBJECTS,
        "/api/v2/replay": Shape.OBJECTS,
        "/api/v2/validate": Shape.VALIDATE_V2,
        "/api/v1/validate": Shape.VALIDATE_V1,
    }.get(path, Shape.STRINGS)


def status_of(error: Error, shape: Shape) -> int:
    """The HTTP status of an error; the key checks answer 403 for a missing key too."""
    if error.code is Code.UNAUTHENTICATED and shape in (Shape.VALIDATE_V1, Shape.VALIDATE_V2):
        return 403
    return HTTP_STATUS[error.code]


def error_body(error: Error, shape: Shape) -> dict[str, Any]:
    """The body of an error answer. 429 is a list of strings everywhere but for events."""
    errors = (error, *error.others)
    status = status_of(error, shape)
    if shape is Shape.OBJECTS or (shape is Shape.VALIDATE_V2 and status != 429):
        return {"errors": [_object(e, status) for e in errors]}
    if shape is Shape.TABLES and status != 429:
        return {"errors": [_recorded(e, status) for e in errors]}
    body: dict[str, Any] = {"errors": [e.text() for e in errors]}
    if shape is Shape.VALIDATE_V1 and error.code is Code.FORBIDDEN:
        return {"status": "error", "code": 403, **body}
    return body


def content_type(shape: Shape, status: int) -> str:
    """The media type of an error body, as recorded."""
    return "application/vnd.api+json" if shape is Shape.TABLES and status != 429 else "application/json"


def _object(error: Error, status: int) -> dict[str, Any]:
    made = {"status": str(status), "title": HTTPStatus(status).phrase, "detail": _detail(error)}
    return made | _source(error)


def _recorded(error: Error, status: int) -> dict[str, Any]:
    """As recorded: a 400 has no status and a generic title."""
    if status == 400:
        return {"title": "Generic Error", "detail": _detail(error)} | _source(error)
    return _object(error, status)


def _source(error: Error) -> dict[str, Any]:
    if error.at.startswith("/"):
        return {"source": {"pointer": error.at.split(" ")[0]}}
    for kind in ("parameter", "header"):
        if error.at.startswith(f"{kind} "):
            return {"source": {kind: error.at.removeprefix(f"{kind} ")}}
    return {}


def _detail(error: Error) -> str:
    return f"{error.message}; {error.hint}" if error.hint else error.message
