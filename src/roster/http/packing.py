"""Owns unpacking bodies: gzip, deflate and zstd, never more bytes than allowed. Reads no request."""

from __future__ import annotations

import zlib
from collections.abc import Callable

import zstandard

from roster.base.errors import Code, Error

PIECE_BYTES = 1_048_576
"""How much is unpacked between two looks at what is left of the room."""
ZSTD_WINDOW_BYTES = 8_388_608
"""What RFC 9659 lets a body ask for."""
Take = Callable[[int], None]
"""Asks for room for so many more bytes; raises when there is none."""


def too_large(bytes_max: int, setting: str) -> Error:
    """The refusal of a body over its limit."""
    return Error(Code.TOO_LARGE, "the body is too large", hint=f"at most {bytes_max} bytes (setting {setting})")


def unpack(body: bytes, encoding: str, bytes_max: int, setting: str, take: Take = lambda _: None) -> bytes:
    """The body of a Content-Encoding. Errors: INVALID, TOO_LARGE, and what `take` raises."""
    match encoding.strip().lower():
        case "identity" | "":
            return body
        case "gzip" | "x-gzip":
            return _inflate(body, zlib.MAX_WBITS | 32, bytes_max, setting, take)
        case "deflate":
            # zlib by the standard; some senders leave its frame out
            wbits = zlib.MAX_WBITS | 32 if _is_framed(body) else -zlib.MAX_WBITS
            return _inflate(body, wbits, bytes_max, setting, take)
        case "zstd":
            return _unpack_zstd(body, bytes_max, setting, take)
        case other:
            raise Error(
                Code.INVALID,
                f"unknown content encoding {other[:40]!r}",
                at="header Content-Encoding",
                hint="gzip, deflate or zstd",
            )


def inflate(body: bytes, bytes_max: int, setting: str, take: Take) -> bytes:
    """One zlib stream, as browser SDKs send it. Errors as in `unpack`."""
    return _inflate(body, zlib.MAX_WBITS, bytes_max, setting, take)


def _is_framed(body: bytes) -> bool:
    """Whether a body begins as zlib or gzip does."""
    zlib_head = len(body) > 1 and body[0] & 0x0F == 8 and int.from_bytes(body[:2], "big") % 31 == 0
    return zlib_head or body[:2] == b"\x1f\x8b"


def _inflate(body: bytes, wbits: int, bytes_max: int, setting: str, take: Take) -> bytes:
    unpacker = zlib.decompressobj(wbits=wbits)
    pieces: list[bytes] = []
    size = 0
    rest = body
    try:
        while not unpacker.eof:
            piece = unpacker.decompress(rest, min(PIECE_BYTES, bytes_max + 1 - size))
            rest = unpacker.unconsumed_tail
            if not piece and not rest:
                break
            size += len(piece)
            if size > bytes_max:
                raise too_large(bytes_max, setting)
            take(len(piece))
            pieces.append(piece)
    except zlib.error as error:
        raise _not_as_said() from error
    _check_end(unpacker.eof, unpacker.unused_data)
    return b"".join(pieces)


def _unpack_zstd(body: bytes, bytes_max: int, setting: str, take: Take) -> bytes:
    """Measured first, as the library bounds what it gives only where it does not say whether it was all."""
    unpacker = zstandard.ZstdDecompressor(max_window_size=max(ZSTD_WINDOW_BYTES, bytes_max))
    try:
        size = 0
        with unpacker.stream_reader(body) as reader:
            piece = bytearray(min(PIECE_BYTES, bytes_max + 1))
            while count := reader.readinto(piece):
                size += count
                if size > bytes_max:
                    raise too_large(bytes_max, setting)
        take(size)
        whole = unpacker.decompressobj()
        plain = whole.decompress(body)
    except zstandard.ZstdError as error:
        raise _not_as_said() from error
    _check_end(whole.eof, whole.unused_data)
    return plain


def _check_end(ended: bool, unused: bytes) -> None:
    if not ended:
        raise Error(Code.INVALID, "the compressed body is cut off")
    if unused:
        raise Error(Code.INVALID, "bytes follow the end of the compressed body", hint="compress it as one member")


def _not_as_said() -> Error:
    return Error(Code.INVALID, "the body is not packed as the request says")
