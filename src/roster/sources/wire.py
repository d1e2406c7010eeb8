"""Owns what server and reading process say to one another: a request, then lines of answers, all JSON. Does no I/O."""

from __future__ import annotations

import msgspec

LINE_BYTES_MAX = 2**20


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """What to read and within which limits: the one line on the reading process's standard input."""

    kind: str
    options: dict[str, str]
    secret: dict[str, str]
    folder: str
    fingerprint: str
    cursor: str
    full: bool
    hosts: tuple[str, ...]
    folders: tuple[str, ...]
    loopback: bool
    bytes_max: int
    silence_s: float
    memory_max: int = 0

    def __repr__(self) -> str:
        return f"Request({self.kind})"  # the secret is in it


class Progress(msgspec.Struct, frozen=True, tag="progress"):
    """How far the read is; see `Reading` of the port."""

    rows: int
    bytes: int
    rows_total: int | None
    bytes_total: int | None


class Done(msgspec.Struct, frozen=True, tag="done"):
    """The read is over; see `Fetched` of the model."""

    names: tuple[str, ...]
    format: str
    fingerprint: str
    cursor: str
    changes_only: bool
    rows: int | None
    bytes: int
    total: int | None


class Unchanged(msgspec.Struct, frozen=True, tag="unchanged"):
    """The source is what was read last."""


class Failed(msgspec.Struct, frozen=True, tag="error"):
    """The read failed with an `Error` of these parts."""

    code: str
    message: str
    hint: str = ""
    at: str = ""


Answer = Progress | Done | Unchanged | Failed
encode = msgspec.json.Encoder().encode
decode_request = msgspec.json.Decoder(Request).decode
decode_answer = msgspec.json.Decoder(Answer).decode
