"""Owns the events of a server's request, all or nothing, and those of files, line by line. No I/O, no clock."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from roster.base.errors import Code, Error
from roster.intake.decode import (
    FILE_STEPS,
    MAPPED_STEPS,
    SERVER_STEPS,
    Batch,
    Rejected,
    gather,
    parse,
    refused_whole,
    run_steps,
)
from roster.intake.reasons import Reason, refused
from roster.intake.steps import EVENT_BYTES_MAX, SECONDS_MAX, TIME_MS_MAX, Draft, Origin, Step, instant_ms
from roster.intake.tally import Tally
from roster.intake.texts import decode, is_json, split

__all__ = [
    "BYTES_MAX",
    "EVENT_BYTES_MAX",
    "SECONDS_MAX",
    "TIME_MS_MAX",
    "Batch",
    "Place",
    "Rejected",
    "canonical_events",
    "canonical_lines",
    "instant_ms",
    "server_events",
]
BYTES_MAX = 5 * 1024 * 1024
_LINES = 256
Place = Callable[[dict[str, Any]], dict[str, Any]]
"""Makes a wire event of an object of another shape."""


def _split(body: bytes, bytes_max: int) -> tuple[list[bytes], bool]:
    """The texts of the events, and whether they are a batch: an array, or lines of NDJSON.

    Errors: TOO_LARGE; INVALID for a body of lines whose first is no JSON: it was no NDJSON but one broken value.
    """
    if len(body) > bytes_max:
        hint = f"at most {bytes_max} bytes uncompressed (setting event_body_bytes_max)"
        raise Error(Code.TOO_LARGE, "the body is too large", hint=hint, reason=Reason.TOO_LARGE)
    texts = split(body)
    if not texts or (len(texts) > 1 and not is_json(texts[0])):
        decode(body)
    return texts, len(texts) != 1 or texts[0] != body.strip()


def server_events(
    body: bytes,
    origin: Origin,
    *,
    new_id: Callable[[], str],
    idempotency_key: str | None = None,
    bytes_max: int = BYTES_MAX,
    tally: Tally | None = None,
) -> tuple[Batch, Error | None]:
    """The server events of a body: one JSON object, an array of them, or NDJSON; and why it is refused as a whole.

    The error is TOO_LARGE, INVALID when it is no JSON, else that of the first bad event, its place a JSON pointer
    that starts with the position in a batch.
    """
    try:
        texts, batched = _split(body, bytes_max)
    except Error as error:
        return refused_whole(body, error), error
    drafts = []
    for index, text in enumerate(texts):
        key = f"{idempotency_key}/{index}" if idempotency_key else new_id()
        drafts.append(Draft(index, text, {}, key, origin, fresh=not idempotency_key))
    run_steps(drafts, SERVER_STEPS, tally)
    batch = gather(drafts)
    first = batch.rejected[0] if batch.rejected else None
    return batch, (first.error.under(f"/{first.index}") if batched else first.error) if first else None


def canonical_events(
    body: bytes,
    *,
    received_ms: int,
    new_id: Callable[[], str],
    idempotency_key: str | None = None,
    bytes_max: int = BYTES_MAX,
) -> Batch:
    """The server events of a body; all or nothing. Error: the one that `server_events` gives."""
    batch, error = server_events(
        body, Origin(received_ms), new_id=new_id, idempotency_key=idempotency_key, bytes_max=bytes_max
    )
    if error is not None:
        raise error
    return batch


def canonical_lines(
    objects: Iterable[bytes], *, spare_key: Callable[[int], str], first: int = 0, place: Place | None = None
) -> Batch:
    """Events one JSON text each, every one judged for itself; positions count from `first`.

    Texts are shaped as the SDKs send them, or become events by `place`.
    """
    steps = (parse, _placing(place), *MAPPED_STEPS) if place else FILE_STEPS
    whole = Batch([], 0)
    drafts: list[Draft] = []
    for index, text in enumerate(objects, first):
        drafts.append(Draft(index, text, {}, spare_key(index)))
        if len(drafts) == _LINES:
            whole = _joined(whole, drafts, steps)
            drafts = []
    return _joined(whole, drafts, steps)


def _joined(whole: Batch, drafts: list[Draft], steps: tuple[Step, ...]) -> Batch:
    """Sessions of a file are left out as telemetry is: exports have them, and they should not stop a load."""
    run_steps(drafts, steps)
    batch = gather(drafts)
    whole.lines.extend(batch.lines)
    whole.dropped.update(batch.dropped)
    for rejected in batch.rejected:
        if rejected.reason is Reason.SESSION:
            whole.dropped[Reason.SESSION] += 1
        else:
            whole.rejected.append(rejected)
    return Batch(whole.lines, len(whole.lines), whole.rejected, whole.dropped)


def _placing(place: Place) -> Step:
    def place_columns(draft: Draft) -> None:
        try:
            draft.wire = place(draft.wire)
        except Error as error:
            raise refused(Reason.MISPLACED, error.message, at=error.at, hint=error.hint) from error
        draft.raw = b""

    return place_columns
