"""Owns the manners of reads over the web: names by the policy, no redirects, no proxies; knows no vendor's answers."""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Iterator, Mapping as Map
from contextlib import contextmanager
from ipaddress import ip_address
from typing import Any, Protocol
from urllib.parse import urlsplit

from roster.base.errors import Code, Error
from roster.sources.scrub import scrub

TIMEOUT_S = 60.0
"""A single wait for an answer's next bytes; the read as a whole has its own limits."""
TEXT_MAX = 300
_ANSI = re.compile(r"\x1b\[[0-9;]*m")
_PORTS = {"https": 443, "http": 80}


class Names(Protocol):
    """What says which hosts may be connected to."""

    def resolve(self, host: str, port: int) -> list[str]: ...


def check_address(url: str, names: Names, at: str) -> str:
    """The address without its slash at the end, when it may be connected to: https, or http on this machine.

    Errors: INVALID for what is no such address, FORBIDDEN when its host is not allowed.
    """
    hint = "such as https://name.example.com"
    try:
        parts = urlsplit(url.strip())
        port = parts.port or _PORTS.get(parts.scheme, 0)
    except ValueError as error:
        raise Error(Code.INVALID, f"{at!r} is no address", at=at, hint=hint) from error
    if not port or not parts.hostname or parts.username or parts.password or parts.query or parts.fragment:
        raise Error(Code.INVALID, f"{at!r} is no address", at=at, hint=hint)
    found = names.resolve(parts.hostname, port)
    if parts.scheme != "https" and not all(ip_address(one).is_loopback for one in found):
        raise Error(Code.INVALID, f"{at!r} sends credentials in the clear", at=at, hint="use https")
    return f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}"


@contextmanager
def only_allowed(names: Names) -> Iterator[None]:
    """Within it, Python code of this process connects to allowed hosts only, whatever a library or redirect asks for.

    Names are looked up by the policy, so what was checked is what is connected to.
    """
    plain = socket.getaddrinfo
    asking = threading.local()

    def lookup(host: Any, port: Any, *rest: Any, **more: Any) -> Any:
        if getattr(asking, "now", False) or host is None:
            return plain(host, port, *rest, **more)
        asking.now = True
        try:
            name = host.decode() if isinstance(host, bytes) else host
            found = names.resolve(name, int(port or 0))
            return [entry for one in found for entry in plain(one, port, *rest, **more)]
        finally:
            asking.now = False

    socket.getaddrinfo = lookup
    try:
        yield
    finally:
        socket.getaddrinfo = plain


def tell(error: object, secret: Map[str, str]) -> str:
    """What a library says went wrong: one short line without credentials."""
    text = scrub(" ".join(_ANSI.sub("", str(error)).split()), secret)
    return text if len(text) <= TEXT_MAX else text[: TEXT_MAX - 1] + "…"
