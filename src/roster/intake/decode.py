"""Owns running the drafts of a batch through a literal list of steps, each counted and timed once a batch. No I/O."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
import structlog

from roster.base.errors import Error
from roster.intake.arrival import Arrival
from roster.intake.derive import derive_agent, derive_page, keep_sender, locate, name_action, read_tags
from roster.intake.reasons import DROPPED, Reason, refused
from roster.intake.steps import (
    EVENT_BYTES_MAX,
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
from roster.intake.texts import as_object, decode, split

_CHUNK = 256
"""Events worked on together: enough to share the timing of a step, few enough to stay small in memory."""
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
    parse,
    clean,
    limit_keys,
    check_server,
    stamp_time,
    identify_by_event_id,
    lift_columns,
    encode,
)
"""Events sent by servers."""
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
    check_taken,
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
MAPPED_STEPS: tuple[Step, ...] = (
    clean,
    check_type,
    check_taken,
    stamp_time,
    identify_by_event_id,
    lift_columns,
    encode,
)
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


def rum_events(arrival: Arrival, origin: Origin, tally: Tally | None = None) -> tuple[Batch, Error | None]:
    """The SDK events of a body, each judged for itself, and why the sender is told that it is no body of events.

    The error is TOO_LARGE for too many of them, INVALID when something is in the body and not one JSON value.
    """
    try:
        texts = split(arrival.body)
    except Error as error:
        return refused_whole(arrival.body, error), error
    batch = _run_texts(texts, origin, tally)
    if batch.accepted or batch.dropped or not batch.rejected:
        return batch, None
    is_json = any(rejected.reason is not Reason.NOT_JSON for rejected in batch.rejected)
    return batch, None if is_json else batch.rejected[0].error


def refused_whole(body: bytes, error: Error, key: str = "") -> Batch:
    """A body that is no batch, as the one thing that was not taken."""
    return Batch([], 0, [Rejected(0, error, body, key)])


def _run_texts(texts: list[bytes], origin: Origin, tally: Tally | None) -> Batch:
    drafts = [Draft(index, text, {}, "", origin) for index, text in enumerate(texts)]
    run_steps(drafts, SDK_STEPS, tally)
    return gather(drafts)


def replayed(drafts: Sequence[Draft], *, server: bool, tally: Tally | None = None) -> None:
    """Run kept events anew, from their texts."""
    run_steps(drafts, SERVER_STEPS if server else SDK_STEPS, tally)


def origin_of(arrival: Arrival, *, keep_ms: int, place: dict[str, str], keep_ip: bool) -> Origin:
    """What the steps are told of a request; events older than `keep_ms` at its arrival are not taken."""
    batch_ms = arrival.batch_ms if arrival.batch_ms and 0 < arrival.batch_ms <= TIME_MS_MAX else None
    behind_ms = arrival.received_ms - batch_ms if batch_ms is not None else 0
    if 0 <= behind_ms <= SKEW_MS_MAX:
        behind_ms = 0
    return Origin(
        received_ms=arrival.received_ms,
        oldest_ms=max(0, arrival.received_ms - keep_ms),
        skew_ms=round(behind_ms / 1000) * 1000 if behind_ms > 0 else behind_ms,
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
