"""Owns what can be told of a source from its options alone: may its host or path be reached. Connects to nothing."""

from __future__ import annotations

from urllib.parse import urlsplit

from roster.base.errors import Code, Error
from roster.model.source import Origin
from roster.sources.policy import Policy

HOSTS = ("host",)
ADDRESSES = ("endpoint", "base_url", "instance_url", "catalog")
PATHS = ("path", "metadata", "catalog")


def check_reach(origin: Origin, policy: Policy) -> None:
    """Errors: FORBIDDEN (with the setting that would allow it), INVALID."""
    for name, text in origin.options:
        try:
            if name in HOSTS:
                policy.check_host(text)
            elif name in ADDRESSES and "://" in text:
                policy.check_host(_host_of(text))
            elif name in PATHS:
                policy.check_path(text)
        except Error as error:
            raise error.under(f"/data/attributes/metadata/{name}") from None


def _host_of(address: str) -> str:
    try:
        host = urlsplit(address).hostname
    except ValueError:
        host = None
    if not host:
        raise Error(Code.INVALID, f"{address!r} is no address", hint="such as https://name.example.com")
    return host
