"""Owns turning wire events into canonical lines by a literal list of steps. Does no I/O and reads no clock.

A canonical line is one flat JSON object: `k` identity, `fresh` true when nobody else can know that
identity, `v` document version (views only), every hot column that is present with the right type
(`time` in epoch milliseconds), and `rest`: whatever of the wire event was not lifted.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import msgspec

from roster.base.errors import Code, Error
from roster.base.time import epoch_ms
from roster.model.schema import EVENT_COLUMNS, EventColumn, Type

BYTES_MAX = 5 * 1024 * 1024
EVENT_BYTES_MAX = 1_000_000
DEPTH_MAX = 32
TIME_MS_MAX = 253_402_300_799_999
"""The last millisecond of the year 9999."""
SECONDS_MAX = 100_000_000_000
"""Numbers below are epoch seconds, others milliseconds: as milliseconds it is March 1973, as seconds the year 5138."""

_ID_KEYS = frozenset({"id", "anonymous_id"})
_LIFTED: dict[str, dict[str, EventColumn]] = {}
"""Hot columns by the two keys of their path, the first one empty for paths of one key."""
for _column in EVENT_COLUMNS:
    if _column.name not in ("event_id", "time"):
        _head, _, _key = _column.path.rpartition(".")
        _LIFTED.setdefault(_head, {})[_key] = _column
_IDENTIFIED = frozenset({"view", "action", "resource", "error", "long_task", "vital"})
_NUMBER = re.compile(r"[0-9]{1,18}(\.[0-9]*)?")
_ESCAPES = re.compile(
    rb"(\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|\\[^u]|\\u(?![dD][89a-fA-F]))"
    rb"|\\u[dD][89a-fA-F][0-9a-fA-F]{2}"
)


@dataclass(frozen=True, slots=True)
class Rejected:
    """One event that was not taken: its position in the batch, from 0, and why."""

    index: int
    reason: str


@dataclass(frozen=True, slots=True)
class Batch:
    """What a body gave: canonical lines without line ends, and the events that were not taken."""

    lines: list[bytes]
    accepted: int
    rejected: list[Rejected] = field(default_factory=list)


@dataclass(slots=True)
class Draft:
    """One event on its way through the steps: `wire` loses what `columns` gains.

    `key` starts as the identity of an event that brings none; `fresh` says that nobody else can know it.
    """

    wire: dict[str, Any]
    key: str
    received_ms: int | None = None
    fresh: bool = False
    version: int | None = None
    columns: dict[str, Any] = field(default_factory=dict)


Step = Callable[[Draft], None]
Place = Callable[[dict[str, Any]], dict[str, Any]]
"""Makes a wire event of an object of another shape."""


def clean(draft: Draft) -> None:
    """Bound the nesting, and write numbers and names so that every reader agrees on them."""
    _clean(draft.wire, DEPTH_MAX)


def _clean(node: Any, depth: int) -> None:
    """An object or array, in place; exact types and no recursion for scalars, as it sees every value of all events."""
    if depth == 0:
        raise Error(Code.INVALID, f"the event is nested deeper than {DEPTH_MAX} levels")
    for key, item in node.items() if type(node) is dict else enumerate(node):
        kind = type(item)
        if kind is dict or kind is list:
            _clean(item, depth - 1)
        elif kind is int and not -(2**63) <= item < 2**64:
            node[key] = _as_float(item)
    if type(node) is dict:
        for key in [key for key in node if "\0" in key]:
            node[key.replace("\0", "\ufffd")] = node.pop(key)


def _as_float(value: int) -> float:
    try:
        return float(value)
    except OverflowError as error:
        raise Error(Code.INVALID, "the event holds a number too large for any reader") from error


def check_server(draft: Draft) -> None:
    """Refuse what is no server event. Errors: INVALID with a pointer to the first wrong place."""
    wire = draft.wire
    if wire.get("type") != "server":
        raise Error(Code.INVALID, 'type must be "server"', at="/type")
    _require_id(wire, "application", "id")
    name = _at(wire, ("event", "name"))
    if not isinstance(name, str) or not name:
        raise Error(Code.INVALID, "event.name must be a non-empty string", at="/event/name")
    if _at(wire, ("event", "id")) is not None:
        _require_id(wire, "event", "id")
    owners = [owner for owner in ("usr", "account", "session") if _at(wire, (owner, "id")) not in (None, "")]
    if not owners:
        hint = "at least one of usr.id, account.id and session.id is required"
        raise Error(Code.INVALID, "the event belongs to nobody", at="/usr/id", hint=hint)
    for owner in owners:
        _require_id(wire, owner, "id")


def _require_id(wire: dict[str, Any], *keys: str) -> None:
    if not _id_text(_at(wire, keys)):
        raise Error(Code.INVALID, f"{'.'.join(keys)} must be a non-empty string", at="/" + "/".join(keys))


def check_type(draft: Draft) -> None:
    """Refuse an event that does not say what it is."""
    if not isinstance(draft.wire.get("type"), str) or not draft.wire["type"]:
        raise Error(Code.INVALID, "type must be a non-empty string", at="/type")


def stamp_time(draft: Draft) -> None:
    """The event's own time (`date`, else `timestamp`), else the time of its arrival when there is one."""
    name = next((n for n in ("date", "timestamp") if draft.wire.get(n) is not None), None)
    if name is None and draft.received_ms is None:
        raise Error(Code.INVALID, "date is missing", at="/date")
    time = draft.received_ms if name is None else instant_ms(draft.wire.pop(name))
    if time is None:
        hint = "give epoch milliseconds or ISO 8601 text"
        raise Error(Code.INVALID, f"{name} is not a point in time", at=f"/{name}", hint=hint)
    draft.columns["time"] = time


def instant_ms(value: Any) -> int | None:
    """Epoch milliseconds of a number (see SECONDS_MAX) or ISO text (UTC unless it says otherwise), or None."""
    if isinstance(value, str):
        text = value.strip()
        if not _NUMBER.fullmatch(text):
            return _iso_ms(text)
        value = float(text) if "." in text else int(text)
    if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
        return None
    at_ms = value * 1000 if value < SECONDS_MAX else value
    return int(at_ms) if at_ms <= TIME_MS_MAX else None


def _iso_ms(text: str) -> int | None:
    try:
        at_ms = epoch_ms(datetime.fromisoformat(text))
    except (ValueError, OverflowError):
        return None
    return at_ms if 0 <= at_ms <= TIME_MS_MAX else None


def identify(draft: Draft) -> None:
    """The identity the SDKs give: the id of the thing the event tells of; views carry a version."""
    kind = draft.wire["type"]
    own = _at(draft.wire, (kind, "id")) if kind in _IDENTIFIED else None
    if not isinstance(own, str) or not own:
        identify_by_event_id(draft)
        return
    draft.key = f"{kind}:{own}"
    draft.fresh = False
    if kind == "view":
        version = _at(draft.wire, ("_dd", "document_version"))
        draft.version = version if _is_integer(version) else 0


def identify_by_event_id(draft: Draft) -> None:
    """`event.id`, when there is one."""
    text = _id_text(_at(draft.wire, ("event", "id")))
    if text:
        draft.key = text
        draft.fresh = False
        del draft.wire["event"]["id"]
        if not draft.wire["event"]:
            del draft.wire["event"]


def lift_columns(draft: Draft) -> None:
    """Move every hot value of the right type into its column; anything else stays where it is."""
    for head, columns in _LIFTED.items():
        node = draft.wire if not head else draft.wire.get(head)
        if isinstance(node, dict) and _lift(node, columns, draft.columns) and head and not node:
            del draft.wire[head]


def _lift(node: dict[str, Any], columns: dict[str, EventColumn], into: dict[str, Any]) -> bool:
    lifted = False
    for key in [key for key in node if key in columns]:
        column = columns[key]
        value = _typed(node[key], key, column.type)
        if value is not None:
            into[column.name] = value
            del node[key]
            lifted = True
    return lifted


SERVER_STEPS: tuple[Step, ...] = (clean, check_server, stamp_time, identify_by_event_id, lift_columns)
"""Events sent by servers."""
WIRE_STEPS: tuple[Step, ...] = (clean, check_type, stamp_time, identify, lift_columns)
"""Events shaped as the SDKs send them."""
MAPPED_STEPS: tuple[Step, ...] = (clean, check_type, stamp_time, identify_by_event_id, lift_columns)
"""Rows of a file that a declared mapping made events of: only `event.id` identifies them."""


def _typed(value: Any, key: str, type: Type) -> str | int | None:
    if key in _ID_KEYS:
        return _id_text(value)
    if type is Type.STRING:
        return value if isinstance(value, str) else None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return value if _is_integer(value) else None


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and -(2**63) <= value < 2**63


def _id_text(value: Any) -> str | None:
    """Ids compare as text; an integer counts as its digits, an empty string as none."""
    if _is_integer(value):
        return str(value)
    return value if isinstance(value, str) and value else None


def _at(wire: dict[str, Any], keys: tuple[str, ...]) -> Any:
    value: Any = wire
    for key in keys:
        if not isinstance(value, dict):
            return None
        value = value.get(key)
    return value


def encode(draft: Draft) -> bytes:
    """The canonical line. Error: INVALID when it is too long."""
    flat: dict[str, Any] = {"fresh": True} if draft.fresh else {}
    flat["k"] = draft.key
    if draft.version is not None:
        flat["v"] = draft.version
    flat |= draft.columns
    if draft.wire:
        flat["rest"] = draft.wire
    line = msgspec.json.encode(flat)
    if len(line) > EVENT_BYTES_MAX:
        raise Error(Code.INVALID, f"the event has more than {EVENT_BYTES_MAX} bytes")
    return line


def run(draft: Draft, steps: tuple[Step, ...]) -> bytes:
    """The canonical line of one event."""
    for step in steps:
        step(draft)
    return encode(draft)


def decode(text: bytes) -> Any:
    """One JSON value; halves of surrogate pairs, which JavaScript cuts, become U+FFFD. Error: INVALID."""
    try:
        return _decode(text)
    except Error:
        repaired = _ESCAPES.sub(lambda m: m[1] or rb"\ufffd", text)
        if repaired == text:
            raise
        return _decode(repaired)


def _decode(text: bytes) -> Any:
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Error(Code.INVALID, f"not JSON: {error}") from error
    except RecursionError as error:
        raise Error(Code.INVALID, f"the event is nested deeper than {DEPTH_MAX} levels") from error


def _object(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise Error(Code.INVALID, "an event is a JSON object")
    return value


def _split(body: bytes) -> tuple[list[Any], bool]:
    """The values of a body, and whether it is a batch: an array, or NDJSON of more than one line."""
    try:
        whole = decode(body)
    except Error as error:
        lines = [line for line in body.split(b"\n") if line.strip()]
        if len(lines) < 2:
            raise
        return [_located(index, line, error) for index, line in enumerate(lines)], True
    return (whole, True) if isinstance(whole, list) else ([whole], False)


def _located(index: int, line: bytes, whole: Error) -> Any:
    """A line decoded; when already the first is wrong, the body was no NDJSON but one broken value."""
    try:
        return decode(line)
    except Error as error:
        raise (error.under(f"/{index}") if index else whole) from error


def canonical_events(
    body: bytes,
    *,
    received_ms: int,
    new_id: Callable[[], str],
    idempotency_key: str | None = None,
    bytes_max: int = BYTES_MAX,
) -> Batch:
    """The server events of a body: one JSON object, an array of them, or NDJSON; all or nothing.

    Errors: TOO_LARGE; INVALID, its place a JSON pointer that starts with the position in a batch.
    """
    if len(body) > bytes_max:
        hint = f"at most {bytes_max} bytes uncompressed (setting event_body_bytes_max)"
        raise Error(Code.TOO_LARGE, "the body is too large", hint=hint)
    values, batched = _split(body)
    lines = []
    for index, value in enumerate(values):
        key = f"{idempotency_key}/{index}" if idempotency_key else new_id()
        try:
            lines.append(run(Draft(_object(value), key, received_ms, fresh=not idempotency_key), SERVER_STEPS))
        except Error as error:
            raise (error.under(f"/{index}") if batched else error) from error
    return Batch(lines, len(lines))


def canonical_lines(
    objects: Iterable[bytes], *, spare_key: Callable[[int], str], first: int = 0, place: Place | None = None
) -> Batch:
    """Events one JSON text each, every one judged for itself; positions count from `first`.

    Texts are shaped as the SDKs send them, or become events by `place`.
    """
    lines, rejected = [], []
    for index, text in enumerate(objects, first):
        try:
            wire = _object(decode(text))
            draft = Draft(place(wire) if place else wire, spare_key(index))
            lines.append(run(draft, MAPPED_STEPS if place else WIRE_STEPS))
        except Error as error:
            rejected.append(Rejected(index, error.text()))
    return Batch(lines, len(lines), rejected)
