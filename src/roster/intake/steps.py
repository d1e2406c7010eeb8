"""Owns the steps that check, clean, time, identify and lift one event. No I/O, no clock; derives nothing."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import sha256
from typing import Any

import msgspec

from roster.base.errors import Error
from roster.base.time import epoch_ms
from roster.intake.reasons import Reason, refused
from roster.model.schema import EVENT_COLUMNS, EventColumn, Type

EVENT_BYTES_MAX = 1_000_000
DEPTH_MAX = 32
KEYS_MAX = 10_000
ID_CHARACTERS_MAX = 512
TIME_MS_MAX = 253_402_300_799_999
"""The last millisecond of the year 9999."""
SECONDS_MAX = 100_000_000_000
"""Numbers below are epoch seconds, others milliseconds: as milliseconds it is March 1973, as seconds the year 5138."""
SKEW_MS_MAX = 60_000
"""A sender's clock that is behind by no more is taken as it is: the way of a batch takes time too."""

_ID_KEYS = frozenset({"id", "anonymous_id"})
_LIFTED: dict[str, dict[str, EventColumn]] = {}
"""Hot columns by the two keys of their path, the first one empty for paths of one key."""
for _column in EVENT_COLUMNS:
    if _column.name not in ("event_id", "time"):
        _head, _, _key = _column.path.rpartition(".")
        _LIFTED.setdefault(_head, {})[_key] = _column
_LIFTS = [
    (head, [(key, c.name, key not in _ID_KEYS and c.type is Type.STRING, c.type) for key, c in columns.items()])
    for head, columns in _LIFTED.items()
]
"""The same as a plain list: whether a string is taken as it is stands beside each column."""
_IDENTIFIED = frozenset({"view", "action", "resource", "error", "long_task", "vital"})
_OTHERS = (*(f"{kind}:" for kind in sorted(_IDENTIFIED)), "view_update:", "session:", "sha:", "event:")
"""How identities begin that are not `event.id`: one that begins so must not take the place of another event."""
_BY_ENTRIES = frozenset({"resource", "long_task"})
"""Types whose `date` comes from the page's own timer, which the SDK corrects only when it is behind."""
_ABSENT: Any = object()
_NUMBER = re.compile(r"[0-9]{1,18}(\.[0-9]*)?")
_TO_ZERO = bytes.maketrans(b"123456789", b"0" * 9)
_MANY_DIGITS = b"0" * 19
"""No shorter number is too large for 64 bits."""


@dataclass(frozen=True, slots=True)
class Origin:
    """What the steps know of the request an event came in. Times are epoch milliseconds.

    `skew_ms` is what the sender's clock is behind, negative when it is ahead, 0 when it is right enough.
    `place` stands under `geo`.
    """

    received_ms: int
    oldest_ms: int = 0
    skew_ms: int = 0
    dated: bool = False
    tags: str = ""
    source: str = ""
    user_agent: str = ""
    peer: str = ""
    place: dict[str, str] = field(default_factory=dict)


class Draft(msgspec.Struct):
    """One event on its way through the steps: `wire` loses what `columns` gains.

    `key` starts as the identity of an event that brings none; `fresh` says that nobody else can know it.
    `raw` is its text, empty when only its value is known; `line` is what comes out, `error` why nothing does.
    """

    index: int
    raw: bytes
    wire: dict[str, Any]
    key: str = ""
    origin: Origin | None = None
    fresh: bool = False
    version: int | None = None
    columns: dict[str, Any] = {}
    line: bytes = b""
    error: Error | None = None


Step = Callable[[Draft], None]


def clean(draft: Draft) -> None:
    """Bound the nesting, and write numbers and names so that every reader agrees on them."""
    raw = draft.raw
    if not raw or (b"\\" in raw and b"\\u0000" in raw) or _MANY_DIGITS in raw.translate(_TO_ZERO):
        _clean(draft.wire, DEPTH_MAX)
    elif raw.count(b"{") + raw.count(b"[") > DEPTH_MAX:
        _bound(draft.wire, DEPTH_MAX)
    # else, as for most events: nothing in the text can be wrong, so no value needs a look


def _bound(node: Any, depth: int) -> None:
    """Refuse what is nested too deep."""
    if depth == 0:
        raise refused(Reason.TOO_DEEP, f"the event is nested deeper than {DEPTH_MAX} levels")
    for item in node.values() if type(node) is dict else node:
        if type(item) is dict or type(item) is list:
            _bound(item, depth - 1)


def _clean(node: Any, depth: int) -> None:
    """An object or array, in place; exact types and no recursion for scalars, as it sees every value of an event."""
    if depth == 0:
        raise refused(Reason.TOO_DEEP, f"the event is nested deeper than {DEPTH_MAX} levels")
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
        raise refused(Reason.BAD_NUMBER, "the event holds a number too large for any reader") from error


def limit_keys(draft: Draft) -> None:
    """Refuse an event with more names than anyone reads."""
    raw = draft.raw
    if raw and (len(raw) < 4 * KEYS_MAX or raw.count(b":") <= KEYS_MAX):
        return
    if count_keys(draft.wire) > KEYS_MAX:
        raise refused(Reason.TOO_MANY_KEYS, f"the event has more than {KEYS_MAX} keys")


def count_keys(node: Any) -> int:
    """The names in an object or array, at every depth."""
    inner = node.values() if type(node) is dict else node
    own = len(node) if type(node) is dict else 0
    return own + sum(count_keys(item) for item in inner if type(item) is dict or type(item) is list)


def check_server(draft: Draft) -> None:
    """Refuse what is no server event. Errors: INVALID with a pointer to the first wrong place."""
    wire = draft.wire
    if wire.get("type") != "server":
        raise refused(Reason.NO_TYPE, 'type must be "server"', at="/type")
    _require_id(wire, "application", "id")
    name = _at(wire, ("event", "name"))
    if not isinstance(name, str) or not name:
        raise refused(Reason.NO_NAME, "event.name must be a non-empty string", at="/event/name")
    if _at(wire, ("event", "id")) is not None:
        _require_id(wire, "event", "id")
    owners = [owner for owner in ("usr", "account", "session") if _at(wire, (owner, "id")) not in (None, "")]
    if not owners:
        hint = "at least one of usr.id, account.id and session.id is required"
        raise refused(Reason.NO_OWNER, "the event belongs to nobody", at="/usr/id", hint=hint)
    for owner in owners:
        _require_id(wire, owner, "id")


def _require_id(wire: dict[str, Any], *keys: str) -> None:
    if not _id_text(_at(wire, keys)):
        raise refused(Reason.NO_ID, f"{'.'.join(keys)} must be a non-empty string", at="/" + "/".join(keys))


def check_type(draft: Draft) -> None:
    """Refuse an event that does not say what it is."""
    kind = draft.wire.get("type")
    if not isinstance(kind, str) or not kind:
        raise refused(Reason.NO_TYPE, "type must be a non-empty string", at="/type")


def check_taken(draft: Draft) -> None:
    """Leave out what SDKs say of themselves; sessions are computed here, never taken."""
    kind = draft.wire["type"]
    if kind == "telemetry":
        raise refused(Reason.TELEMETRY, "telemetry of the SDK itself is not stored")
    if kind == "session":
        raise refused(Reason.SESSION, "sessions are computed from events, never taken", at="/type")


def stamp_time(draft: Draft) -> None:
    """The event's own time (`date`, else `timestamp`), else the time of its arrival when there is one."""
    name = _time_name(draft.wire)
    if name is None and draft.origin is None:
        raise refused(Reason.BAD_TIME, "date is missing", at="/date")
    if name is None:
        assert draft.origin is not None
        draft.columns["time"] = draft.origin.received_ms
        return
    time = instant_ms(draft.wire.pop(name))
    if time is None:
        raise _no_time(name)
    if draft.origin is not None and time < draft.origin.oldest_ms:
        raise _too_old(name)
    draft.columns["time"] = time


def _time_name(wire: dict[str, Any]) -> str | None:
    return next((n for n in ("date", "timestamp") if wire.get(n) is not None), None)


def _no_time(name: str) -> Error:
    hint = "give epoch milliseconds or ISO 8601 text"
    return refused(Reason.BAD_TIME, f"{name} is not a point in time", at=f"/{name}", hint=hint)


def _too_old(name: str) -> Error:
    hint = "events are kept for events_days"
    return refused(Reason.TOO_OLD, "the event is older than events are kept", at=f"/{name}", hint=hint)


def correct_time(draft: Draft) -> None:
    """The event's own time by our clock: no later than its arrival, no older than what is kept.

    Whole numbers are milliseconds where the sender told its clock, so that one that starts in 1970 is put right.
    """
    wire, origin = draft.wire, draft.origin
    assert origin is not None
    name = "date" if wire.get("date") is not None else _time_name(wire)
    if name is None:
        raise refused(Reason.BAD_TIME, "date is missing", at="/date")
    own = wire.pop(name)
    time = own if origin.dated and type(own) is int and 0 <= own <= TIME_MS_MAX else instant_ms(own)
    if time is None:
        raise _no_time(name)
    time += origin.skew_ms
    if wire["type"] in _BY_ENTRIES:
        time += _drift_ms(wire, always=bool(origin.skew_ms))
    time = min(time, origin.received_ms)
    if time < origin.oldest_ms:
        raise _too_old(name)
    draft.columns["time"] = time


def _drift_ms(wire: dict[str, Any], *, always: bool) -> int:
    """How far the page's timer ran ahead, as a negative number; what it is behind is in `date` already."""
    drift = _at(wire, ("_dd", "drift"))
    if isinstance(drift, bool) or not isinstance(drift, int | float) or not -TIME_MS_MAX < drift < 0:
        return 0
    return int(drift) if always or drift < -SKEW_MS_MAX else 0


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
    """The identity the SDKs give: the id of the thing the event tells of; views and their updates carry a version."""
    if not _identify_thing(draft):
        identify_by_event_id(draft)


def identify_sdk(draft: Draft) -> None:
    """As `identify`; an event without an id is known by its text, so that it is stored once however often it comes."""
    if _identify_thing(draft):
        return
    if draft.wire["type"] in ("view", "view_update"):
        message = "a view needs view.id, and an update of one its _dd.document_version too"
        raise refused(Reason.NO_ID, message, at="/view/id")
    draft.key = f"sha:{sha256(draft.raw).hexdigest()}"


def _identify_thing(draft: Draft) -> bool:
    kind = draft.wire["type"]
    update = kind == "view_update"
    if not update and kind not in _IDENTIFIED:
        return False
    thing = draft.wire.get("view" if update else kind)
    own = thing.get("id") if type(thing) is dict else None
    if not isinstance(own, str) or not 0 < len(own) <= ID_CHARACTERS_MAX:
        return False
    if update or kind == "view":
        version = _version(_at(draft.wire, ("_dd", "document_version")))
        if update and version is None:
            return False
        draft.version = version or 0
    draft.key = f"{kind}:{own}:{draft.version}" if update else f"{kind}:{own}"
    draft.fresh = False
    return True


def _version(value: Any) -> int | None:
    """A whole number, however it is written: `3`, `3.0` and `"3"` are one version."""
    if isinstance(value, str) and _NUMBER.fullmatch(value):
        value = float(value) if "." in value else int(value)
    return _whole(value)


def identify_by_event_id(draft: Draft) -> None:
    """`event.id`, when there is one."""
    text = _id_text(_at(draft.wire, ("event", "id")))
    if text:
        draft.key = f"event:{text}" if text.startswith(_OTHERS) else text
        draft.fresh = False
        del draft.wire["event"]["id"]
        if not draft.wire["event"]:
            del draft.wire["event"]


def lift_columns(draft: Draft) -> None:
    """Move every hot value of the right type into its column; anything else stays where it is."""
    wire, into = draft.wire, draft.columns
    for head, columns in _LIFTS:
        node = wire.get(head) if head else wire
        if type(node) is not dict:
            continue
        before = len(node)
        for key, name, plain, kind in columns:
            value = node.pop(key, _ABSENT)
            if value is _ABSENT:
                continue
            if plain and type(value) is str:
                into[name] = value
                continue
            typed = _typed(value, key, kind)
            if typed is None:
                node[key] = value
            else:
                into[name] = typed
        if head and before and not node:
            del wire[head]


def _typed(value: Any, key: str, type: Type) -> str | int | None:
    if key in _ID_KEYS:
        return _id_text(value)
    if type is Type.STRING:
        return value if isinstance(value, str) else None
    return _whole(value)


def _whole(value: Any) -> int | None:
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
