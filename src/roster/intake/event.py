"""Owns the events of a server's request, all or nothing, and those of files, line by line. No I/O, no clock."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from roster.base.errors import Code, Error
from roster.intake.decode import (
    EVENT_BYTES_MAX,
    FILE_STEPS,
    MAPPED_STEPS,
    SERVER_STEPS,
    Batch,
    Rejected,
    as_object,
    check_number,
    decode,
    encode_value,
    gather,
    parse,
    run_steps,
)
from roster.intake.reasons import Reason, refused
from roster.intake.steps import SECONDS_MAX, TIME_MS_MAX, Draft, Origin, Step, instant_ms
from roster.intake.tally import Tally

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


def _split(body: bytes) -> tuple[list[tuple[Any, bytes]], bool]:
    """The values of a body with their texts where known, and whether it is a batch: an array, or lines of NDJSON."""
    try:
        whole = decode(body)
    except Error as error:
        lines = [line for line in body.split(b"\n") if line.strip()]
        if len(lines) < 2:
            raise
        check_number(len(lines))
        return [(_located(index, line, error), line) for index, line in enumerate(lines)], True
    if not isinstance(whole, list):
        return [(whole, body)], False
    check_number(len(whole))
    return [(value, b"") for value in whole], True


def _located(index: int, line: bytes, whole: Error) -> Any:
    """A line decoded; when already the first is wrong, the body was no NDJSON but one broken value."""
    try:
        return decode(line)
    except Error as error:
        raise (error.under(f"/{index}") if index else whole) from error


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

    Errors: TOO_LARGE; INVALID when it is no JSON. The error given is that of the first bad event, its place a
    JSON pointer that starts with the position in a batch.
    """
    if len(body) > bytes_max:
        hint = f"at most {bytes_max} bytes uncompressed (setting event_body_bytes_max)"
        raise Error(Code.TOO_LARGE, "the body is too large", hint=hint)
    values, batched = _split(body)
    drafts = []
    for index, (value, text) in enumerate(values):
        key = f"{idempotency_key}/{index}" if idempotency_key else new_id()
        draft = Draft(index, text, {}, key, origin, fresh=not idempotency_key)
        drafts.append(draft)
        try:
            draft.wire = as_object(value)
        except Error as error:
            draft.error = error
    run_steps([d for d in drafts if d.error is None], SERVER_STEPS, tally)
    for draft, (value, text) in zip(drafts, values, strict=True):
        if draft.error is not None and not text:
            draft.raw = encode_value(value)
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
    """The server events of a body; all or nothing. Errors: as `server_events`, and the one it gives."""
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
    run_steps(drafts, steps)
    batch = gather(drafts)
    whole.lines.extend(batch.lines)
    whole.rejected.extend(batch.rejected)
    return Batch(whole.lines, len(whole.lines), whole.rejected)


def _placing(place: Place) -> Step:
    def place_columns(draft: Draft) -> None:
        try:
            draft.wire = place(draft.wire)
        except Error as error:
            raise refused(Reason.MISPLACED, error.message, at=error.at, hint=error.hint) from error
        draft.raw = b""

    return place_columns
