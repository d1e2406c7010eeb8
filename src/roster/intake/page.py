"""Owns what the address of a view says: its parts, its query, and the path with ids left out."""

from __future__ import annotations

from functools import lru_cache
from typing import Any
from urllib.parse import SplitResult, unquote_plus, urlsplit

_KNOWN_MAX = 4096
_KNOWN_CHARACTERS_MAX = 2048
"""Longer addresses are read anew each time, so that what is kept of addresses stays small."""
PARAMETERS_MAX = 32
NAME_CHARACTERS_MAX = 128
VALUE_CHARACTERS_MAX = 1024
_HEX = frozenset("0123456789abcdefABCDEF")


def read_page(address: str) -> dict[str, Any]:
    """`url_scheme`, `url_host`, `url_path`, `url_path_group`, `url_hash`, `url_query`: those there are.

    Empty for what is no address, such as a screen's name. Shared: never to be changed.
    """
    return _known(address) if len(address) <= _KNOWN_CHARACTERS_MAX else _read(address)


def _read(address: str) -> dict[str, Any]:
    try:
        split = urlsplit(address)
        host = split.hostname
    except ValueError:
        return {}
    if not host and not split.path.startswith("/"):
        return {}
    parts: dict[str, Any] = {"url_scheme": split.scheme, "url_host": host}
    parts["url_path"] = path = split.path or "/"
    parts["url_path_group"] = path_group(path)
    parts["url_hash"] = split.fragment
    parts["url_query"] = _query(split)
    return {key: value for key, value in parts.items() if value}


_known = lru_cache(maxsize=_KNOWN_MAX)(_read)


def _query(split: SplitResult) -> dict[str, str]:
    """The first value of each parameter."""
    found: dict[str, str] = {}
    for pair in split.query.split("&", PARAMETERS_MAX)[:PARAMETERS_MAX] if split.query else ():
        name, _, value = pair.partition("=")
        key = _plain(name, NAME_CHARACTERS_MAX)
        if key and key not in found:
            found[key] = _plain(value, VALUE_CHARACTERS_MAX)
    return found


def _plain(text: str, characters_max: int) -> str:
    """Decoded, and cut: what is cut off is not looked at."""
    return unquote_plus(text[: characters_max * 3])[:characters_max].replace("\0", "\ufffd")


def path_group(path: str) -> str:
    """The path with `?` for each segment that looks like an id: `/dashboard/123` is `/dashboard/?`."""
    if path.isascii() and not any(map(str.isdigit, path)):
        return path
    return "/".join("?" if _is_id(segment) else segment for segment in path.split("/"))


def _is_id(segment: str) -> bool:
    """Digits, a UUID, long hexadecimal, a long mixture, or a word that is a third digits."""
    digits = sum(map(str.isdigit, segment))
    if not digits:
        return False
    if digits == len(segment):
        return True
    plain = segment.replace("-", "")
    if len(plain) >= 8 and digits >= 2 and _HEX.issuperset(plain):
        return True
    if len(segment) >= 16 and digits >= 2 and segment.lower() != segment and segment.upper() != segment:
        return True
    letters = sum(map(str.isalpha, segment))
    return digits >= 3 and digits * 3 >= digits + letters
