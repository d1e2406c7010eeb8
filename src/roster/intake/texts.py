"""Owns the JSON texts of a body: reading one, and cutting a body into those of its events. Judges no event."""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import islice
from typing import Any, TypeVar

import msgspec

from roster.base.errors import Code, Error
from roster.intake.reasons import Reason, refused
from roster.intake.steps import DEPTH_MAX

Got = TypeVar("Got")
EVENTS_MAX = 100_000
_ESCAPES = re.compile(
    rb"(\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|\\[^u]|\\u(?![dD][89a-fA-F]))"
    rb"|\\u[dD][89a-fA-F][0-9a-fA-F]{2}"
)
_NEXT = re.compile(rb',(?!\s*"[^"\\]*(?:\\.[^"\\]*)*"\s*:)', re.DOTALL)
"""What stands between elements of arrays, and besides only in strings."""
_OTHERS = bytes(set(range(256)) - set(b'[]{},"'))
_RUNS = re.compile(rb",+|[\[{]+|[\]}]+")
_CHUNK_BYTES = 65_536
_DECODE = msgspec.json.Decoder().decode
_WHOLE = msgspec.json.Decoder(msgspec.Raw).decode
_ELEMENTS = msgspec.json.Decoder(list[msgspec.Raw]).decode
"""Elements as texts, unread: the values of a hostile array take twenty times its bytes."""


def split(body: bytes) -> list[bytes]:
    """The texts of the events of a body: the elements of an array, one event over many lines, else the lines.

    Error: TOO_LARGE for more than one request may bring.
    """
    whole = body.strip()
    if whole[:1] == b"[":
        _check_array(whole)
        try:
            return [bytes(text) for text in _mended(_ELEMENTS, whole)]
        except Error:
            pass  # lines that are arrays: each is refused for itself
    _check_number(whole.count(b"\n") + 1)
    line, _, more = whole.partition(b"\n")
    if more and not is_json(line) and is_json(whole):
        return [whole]
    return [line for line in whole.split(b"\n") if line.strip()]


def is_json(text: bytes) -> bool:
    """Whether a text is one JSON value, its strings aside."""
    try:
        _mended(_WHOLE, text)
    except Error:
        return False
    return True


def _check_array(body: bytes) -> None:
    """Error: TOO_LARGE for too many elements, counted in the text: taking them apart would fill the memory first."""
    if body.count(b",") < EVENTS_MAX or sum(1 for _ in islice(_NEXT.finditer(body), EVENTS_MAX)) < EVENTS_MAX:
        return
    marks = body.replace(rb"\\", b"").replace(rb"\"", b"").translate(None, _OTHERS)
    depth, elements, is_string = 0, 1, False
    for start in range(0, len(marks), _CHUNK_BYTES):
        parts = marks[start : start + _CHUNK_BYTES].split(b'"')
        for run in _RUNS.findall(b"".join(parts[is_string::2]).replace(b"{}", b"").replace(b"[]", b"")):
            match run[:1]:
                case b",":
                    elements += len(run) if depth == 1 else 0
                case b"[" | b"{":
                    depth += len(run)
                case _:
                    depth -= len(run)
        _check_number(elements)
        is_string ^= len(parts) % 2 == 0


def _check_number(events: int) -> None:
    """Error: TOO_LARGE for more events than one request may bring."""
    if events > EVENTS_MAX:
        hint = f"at most {EVENTS_MAX}"
        raise Error(Code.TOO_LARGE, "the body holds too many events", hint=hint, reason=Reason.TOO_LARGE)


def decode(text: bytes) -> Any:
    """One JSON value; halves of surrogate pairs, which JavaScript cuts, become U+FFFD. Error: INVALID."""
    return _mended(_DECODE, text)


def _mended(read: Callable[[bytes], Got], text: bytes) -> Got:
    try:
        return _read(read, text)
    except Error:
        repaired = _ESCAPES.sub(lambda m: m[1] or rb"\ufffd", text) if b"\\u" in text else text
        if repaired == text:
            raise
        return _read(read, repaired)


def _read(read: Callable[[bytes], Got], text: bytes) -> Got:
    try:
        return read(text)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise refused(Reason.NOT_JSON, f"not JSON: {error}") from error
    except RecursionError as error:
        raise refused(Reason.TOO_DEEP, f"the event is nested deeper than {DEPTH_MAX} levels") from error


def as_object(value: Any) -> dict[str, Any]:
    """The value as an event. Error: INVALID for anything but an object."""
    if type(value) is not dict:
        raise refused(Reason.NOT_OBJECT, "an event is a JSON object")
    return value
