"""Owns running the drafts of a batch through a literal list of steps, each counted and timed once a batch. No I/O."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
import structlog

from roster.base.errors import Code, Error
from roster.intake.arrival import Arrival
from roster.intake.derive import derive_agent, derive_page, keep_sender, locate, name_action, read_tags
from roster.intake.reasons import DROPPED, Reason, refused
from roster.intake.steps import (
    DEPTH_MAX,
    SKEW_MS_MAX,
    TIME_MS_MAX,
    Draft,
    Origin,
    Step,
    check_server,
    check_taken,
    check_type,
    clean,
    correct_time,
    identify,
    identify_by_event_id,
    identify_sdk,
    lift_columns,
    limit_keys,
    stamp_time,
)
from roster.intake.tally import Lap, Tally

EVENT_BYTES_MAX = 1_000_000
EVENTS_MAX = 100_000
_CHUNK = 256
"""Events worked on together: enough to share the timing of a step, few enough to stay small in memory."""
_ESCAPES = re.compile(
    rb"(\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|\\[^u]|\\u(?![dD][89a-fA-F]))"
    rb"|\\u[dD][89a-fA-F][0-9a-fA-F]{2}"
)
_DECODE = msgspec.json.Decoder().decode
_ENCODE = msgspec.json.Encoder().encode
_log = structlog.get_logger("roster.intake")


@dataclass(frozen=True, slots=True)
class Rejected:
    """One event that was not taken: its position in the batch, from 0, its text, and why.

    `key` is the identity it would have had, had it brought none.
    """

    index: int
    error: Error
    line: bytes
    key: str = ""

    @property
    def reason(self) -> Reason:
        return Reason(self.error.reason)

    @property
    def text(self) -> str:
        return self.error.text()


@dataclass(frozen=True, slots=True)
class Batch:
    """What a body gave: canonical lines without line ends, what was not taken, and what was left out on purpose."""

    lines: list[bytes]
    accepted: int
    rejected: list[Rejected] = field(default_factory=list)
    dropped: Counter[Reason] = field(default_factory=Counter)

    def reasons(self) -> Counter[Reason]:
        """How many were not taken, by reason."""
        return Counter(r.reason for r in self.rejected) + self.dropped


def parse(draft: Draft) -> None:
    """The JSON object of the event's text."""
    if len(draft.raw) > EVENT_BYTES_MAX:
        raise _too_large()
    try:
        wire = _DECODE(draft.raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        wire = decode(draft.raw)
    draft.wire = as_object(wire)


def encode(draft: Draft) -> None:
    """The canonical line. Error: when it is too long."""
    flat: dict[str, Any] = {"fresh": True} if draft.fresh else {}
    flat["k"] = draft.key
    if draft.version is not None:
        flat["v"] = draft.version
    flat.update(draft.columns)
    if draft.wire:
        flat["rest"] = draft.wire
    draft.line = line = _ENCODE(flat)
    if len(line) > EVENT_BYTES_MAX:
        raise _too_large()


def _too_large() -> Error:
    return refused(Reason.TOO_LARGE, f"the event has more than {EVENT_BYTES_MAX} bytes")


SERVER_STEPS: tuple[Step, ...] = (
    clean,
    limit_keys,
    check_server,
    stamp_time,
    identify_by_event_id,
    lift_columns,
    encode,
)
"""Events sent by servers, decoded already."""
SDK_STEPS: tuple[Step, ...] = (
    parse,
    check_type,
    check_taken,
    clean,
    limit_keys,
    correct_time,
    identify_sdk,
    lift_columns,
    keep_sender,
    derive_agent,
    derive_page,
    name_action,
    read_tags,
    locate,
    encode,
)
"""Events sent by the browser and mobile SDKs."""
FILE_STEPS: tuple[Step, ...] = (
    parse,
    clean,
    check_type,
    stamp_time,
    identify,
    lift_columns,
    derive_agent,
    derive_page,
    name_action,
    read_tags,
    encode,
)
"""Events of files, shaped as the SDKs send them; their times are taken as they are."""
MAPPED_STEPS: tuple[Step, ...] = (clean, check_type, stamp_time, identify_by_event_id, lift_columns, encode)
"""Rows of a file that a declared mapping made events of: only `event.id` identifies them, nothing is derived."""


def run_steps(drafts: Sequence[Draft], steps: tuple[Step, ...], tally: Tally | None = None) -> None:
    """Each step over all drafts before the next; a draft that a step refuses keeps its error and goes no further."""
    laps = {step.__name__: Lap() for step in steps}
    for start in range(0, len(drafts), _CHUNK):
        going = drafts[start : start + _CHUNK]
        for step in steps:
            began_s = tally.timer() if tally else 0.0
            failed = _run_step(step, going)
            lap = laps[step.__name__]
            lap.events += len(going)
            if failed:
                lap.refused += failed
                going = [draft for draft in going if draft.error is None]
            if tally:
                lap.seconds += tally.timer() - began_s
    if tally:
        tally.add_laps(laps)


def _run_step(step: Step, drafts: Sequence[Draft]) -> int:
    failed = 0
    for draft in drafts:
        try:
            step(draft)
        except Error as error:
            draft.error = error
            failed += 1
        except Exception:  # noqa: BLE001 - a fault of ours in one event must not lose the others; it can be replayed
            _log.exception("an event cannot be read", step=step.__name__)
            draft.error = refused(Reason.INTERNAL, f"the step {step.__name__} failed on it")
            failed += 1
    return failed


def gather(drafts: Sequence[Draft]) -> Batch:
    """What came of drafts that ran."""
    lines = [draft.line for draft in drafts if draft.error is None]
    batch = Batch(lines, len(lines))
    if len(lines) == len(drafts):
        return batch
    for draft in drafts:
        if draft.error is None:
            continue
        if draft.error.reason in DROPPED:
            batch.dropped[Reason(draft.error.reason)] += 1
        else:
            batch.rejected.append(Rejected(draft.index, draft.error, draft.raw, draft.key))
    return batch


def rum_events(arrival: Arrival, origin: Origin, tally: Tally | None = None) -> Batch:
    """The SDK events of a body, one JSON text a line or an array of them, each judged for itself.

    Errors: TOO_LARGE; INVALID when there is something in the body and not one JSON value.
    """
    body = arrival.body
    batch = _run_texts(_texts(body), origin, tally)
    if batch.accepted or batch.dropped or not batch.rejected:
        return batch
    reasons = {rejected.reason for rejected in batch.rejected}
    if not reasons <= {Reason.NOT_JSON, Reason.NOT_OBJECT}:
        return batch
    try:
        whole = decode(body)  # one event, written over many lines
    except Error:
        if Reason.NOT_OBJECT in reasons:
            return batch
        raise
    return _run_texts([encode_value(whole)], origin, tally) if type(whole) is dict else batch


def _texts(body: bytes) -> list[bytes]:
    if body.lstrip()[:1] == b"[":
        try:
            values = decode(body)
        except Error:
            values = None  # lines that are arrays: each is refused for itself
        if isinstance(values, list):
            check_number(len(values))
            return [encode_value(value) for value in values]
    check_number(body.count(b"\n"))
    return [line for line in body.split(b"\n") if line.strip()]


def check_number(events: int) -> None:
    """Error: TOO_LARGE for more events than one request may bring."""
    if events > EVENTS_MAX:
        raise Error(Code.TOO_LARGE, "the body holds too many events", hint=f"at most {EVENTS_MAX}")


def _run_texts(texts: list[bytes], origin: Origin, tally: Tally | None) -> Batch:
    drafts = [Draft(index, text, {}, "", origin) for index, text in enumerate(texts)]
    run_steps(drafts, SDK_STEPS, tally)
    return gather(drafts)


def replayed(drafts: Sequence[Draft], *, server: bool, tally: Tally | None = None) -> None:
    """Run kept events anew, from their texts."""
    run_steps(drafts, (parse, *SERVER_STEPS) if server else SDK_STEPS, tally)


def origin_of(arrival: Arrival, *, keep_ms: int, place: dict[str, str], keep_ip: bool) -> Origin:
    """What the steps are told of a request; events older than `keep_ms` at its arrival are not taken."""
    batch_ms = arrival.batch_ms if arrival.batch_ms and 0 < arrival.batch_ms <= TIME_MS_MAX else None
    skew_ms = arrival.received_ms - batch_ms if batch_ms is not None else 0
    return Origin(
        received_ms=arrival.received_ms,
        oldest_ms=max(0, arrival.received_ms - keep_ms),
        skew_ms=round(skew_ms / 1000) * 1000 if abs(skew_ms) > SKEW_MS_MAX else 0,
        dated=batch_ms is not None,
        tags=arrival.tags,
        source=arrival.source,
        user_agent=_clean_text(arrival.user_agent),
        peer=arrival.peer if keep_ip else "",
        place=place,
    )


def _clean_text(text: str) -> str:
    """A header as JSON can hold it."""
    return text.encode("utf-8", "replace").decode("utf-8") if not text.isascii() else text


def decode(text: bytes) -> Any:
    """One JSON value; halves of surrogate pairs, which JavaScript cuts, become U+FFFD. Error: INVALID."""
    try:
        return _decode(text)
    except Error:
        repaired = _ESCAPES.sub(lambda m: m[1] or rb"\ufffd", text) if b"\\u" in text else text
        if repaired == text:
            raise
        return _decode(repaired)


def _decode(text: bytes) -> Any:
    try:
        return _DECODE(text)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise refused(Reason.NOT_JSON, f"not JSON: {error}") from error
    except RecursionError as error:
        raise refused(Reason.TOO_DEEP, f"the event is nested deeper than {DEPTH_MAX} levels") from error


def encode_value(value: Any) -> bytes:
    """The JSON text of a value that was decoded."""
    return _ENCODE(value)


def as_object(value: Any) -> dict[str, Any]:
    """The value as an event. Error: INVALID for anything but an object."""
    if type(value) is not dict:
        raise refused(Reason.NOT_OBJECT, "an event is a JSON object")
    return value
