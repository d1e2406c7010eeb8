"""Owns where an address is: a lookup in the MMDB file a user supplies, read again when it changes. Ships no data."""

from __future__ import annotations

import threading
from collections.abc import Mapping as Map
from functools import lru_cache
from pathlib import Path
from typing import Any

import maxminddb
import structlog

CHECK_EVERY_MS = 10_000
_KNOWN_MAX = 4096
_log = structlog.get_logger("roster.intake")


class Geo:
    """Finds the country and city of addresses; without a file it finds nothing, as for an address it does not know.

    The file is read into memory: one that is written over while it is read cannot end the process.
    """

    def __init__(self, path: Path | None, *, check_every_ms: int = CHECK_EVERY_MS) -> None:
        self._path = path
        self._check_every_ms = check_every_ms
        self._turn = threading.Lock()
        self._checked_ms: int | None = None
        self._stamp: tuple[int, int, int] | None = None
        self._find: Any = None

    def place(self, address: str, now_ms: int) -> dict[str, str]:
        """What stands under `geo` of an event from there. Shared: never to be changed."""
        if self._path is None or not address:
            return {}
        self._refresh(self._path, now_ms)
        found: dict[str, str] = self._find(address) if self._find else {}
        return found

    def _refresh(self, path: Path, now_ms: int) -> None:
        last_ms = self._checked_ms
        if last_ms is not None and last_ms <= now_ms < last_ms + self._check_every_ms:
            return
        if not self._turn.acquire(blocking=False):
            return  # someone else is at it
        try:
            self._checked_ms = now_ms
            stamp = _stamp(path)
            if stamp == self._stamp:
                return
            self._stamp = stamp
            self._find = _finder(path) if stamp else None
        except (OSError, ValueError, maxminddb.InvalidDatabaseError) as error:
            _log.warning("the geo database cannot be read", path=str(path), error=str(error))
        finally:
            self._turn.release()


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        seen = path.stat()
    except FileNotFoundError:
        return None
    return seen.st_mtime_ns, seen.st_size, seen.st_ino


def _finder(path: Path) -> Any:
    """A lookup that remembers the addresses seen lately, in memory only."""
    reader = maxminddb.open_database(path, maxminddb.MODE_MEMORY)

    @lru_cache(maxsize=_KNOWN_MAX)
    def find(address: str) -> dict[str, str]:
        try:
            record = reader.get(address)
        except (ValueError, maxminddb.InvalidDatabaseError):  # no address, one of a kind the file does not hold
            return {}
        return read_record(record) if isinstance(record, dict) else {}

    return find


def read_record(record: Map[str, Any]) -> dict[str, str]:
    """The record of a city or country file as event attributes; the region's code is that of ISO 3166-2."""
    country = _object(record.get("country")) or _object(record.get("registered_country"))
    continent = _object(record.get("continent"))
    regions = record.get("subdivisions")
    region = _object(regions[0]) if isinstance(regions, list) and regions else {}
    country_code = _text(country.get("iso_code"))
    region_code = _text(region.get("iso_code"))
    found = {
        "country": _name(country),
        "country_iso_code": country_code,
        "country_subdivision": _name(region),
        "country_subdivision_iso_code": f"{country_code}-{region_code}" if country_code and region_code else "",
        "continent": _name(continent),
        "continent_code": _text(continent.get("code")),
        "city": _name(_object(record.get("city"))),
    }
    return {key: value for key, value in found.items() if value}


def _object(value: Any) -> Map[str, Any]:
    return value if isinstance(value, dict) else {}


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _name(thing: Map[str, Any]) -> str:
    """The English name, else any."""
    names = _object(thing.get("names"))
    return _text(names.get("en")) or next((_text(name) for name in names.values()), "")
