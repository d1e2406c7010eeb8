"""Owns what a User-Agent header says of browser, system and device. Keeps the answers for those seen lately."""

from __future__ import annotations

from collections.abc import Mapping as Map
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

CHARACTERS_MAX = 1024
_KNOWN_MAX = 4096
_DESKTOP = frozenset(
    {"Windows", "Mac OS X", "Linux", "Ubuntu", "Debian", "Fedora", "Chrome OS", "FreeBSD", "OpenBSD", "Red Hat"}
)
_CONSOLES = ("PlayStation", "Xbox", "Nintendo")
_TELEVISIONS = ("TV", "Web0S", "CrKey", "BRAVIA", "Roku", "; AFT", "HbbTV")
_BOTS = ("bot/", "Bot/", "spider", "Spider", "crawler", "Crawler")


@dataclass(frozen=True, slots=True)
class Agent:
    """Hot columns and what else there is to say under `browser`, `os` and `device`. Shared: never to be changed."""

    browser_columns: Map[str, str]
    browser: dict[str, Any]
    os_columns: Map[str, str]
    os: dict[str, Any]
    device_type: str
    device: dict[str, Any]


def read_agent(text: str) -> Agent:
    """What a User-Agent says; whatever it is, there is an answer."""
    return _read(text if len(text) <= CHARACTERS_MAX else text[:CHARACTERS_MAX])


@lru_cache(maxsize=_KNOWN_MAX)
def _read(text: str) -> Agent:
    from ua_parser import parse  # reading its rules takes half a second, which only an intake pays

    found = parse(text)
    browser, os, device = found.user_agent, found.os, found.device
    browser_columns, browser_rest = _versioned("browser", browser)
    os_columns, os_rest = _versioned("os", os)
    named = {"name": device.family, "brand": device.brand, "model": device.model} if device else {}
    return Agent(
        browser_columns,
        browser_rest,
        os_columns,
        os_rest,
        _device_type(text, os.family if os else "", device.brand if device else None),
        {key: value for key, value in named.items() if value},
    )


def _versioned(head: str, found: Any) -> tuple[dict[str, str], dict[str, Any]]:
    """Name and version as columns, the major version beside them."""
    if found is None:
        return {}, {}
    numbers = [part for part in (found.major, found.minor, found.patch, found.patch_minor) if part]
    columns = {f"{head}_name": found.family}
    if not numbers:
        return columns, {}
    columns[f"{head}_version"] = ".".join(numbers)
    return columns, {"version_major": numbers[0]}


def _device_type(text: str, system: str, brand: str | None) -> str:
    if brand == "Spider" or any(word in text for word in _BOTS):
        return "bot"
    if any(word in text for word in _CONSOLES):
        return "gaming_console"
    if any(word in text for word in _TELEVISIONS):
        return "tv"
    if "iPad" in text or "Tablet" in text or (system == "Android" and "Mobile" not in text):
        return "tablet"
    if system in ("iOS", "Android", "Windows Phone") or "Mobile" in text:
        return "mobile"
    return "desktop" if system in _DESKTOP else "other"
