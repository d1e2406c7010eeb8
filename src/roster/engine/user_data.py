"""Owns reading all that is kept of one user, in the shape it came in. Changes nothing."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

import duckdb

from roster.base.time import epoch_ms, instant, iso_ms
from roster.model.schema import EVENT_COLUMNS
from roster.ports import EventPage

_COLUMNS = ", ".join(f'"{column.name}"' for column in EVENT_COLUMNS)
_EVENTS = f"""
    SELECT {_COLUMNS}, rest::JSON::VARCHAR FROM events
    WHERE resolved_user_id = $id AND ($time IS NULL OR (time, event_id) < ($time::TIMESTAMP, $key))
    ORDER BY time DESC, event_id DESC LIMIT $rows"""
_ACCOUNTS = """
    SELECT account_id, first_seen, last_seen FROM user_accounts
    WHERE user_id = $id ORDER BY last_seen DESC, account_id"""
_IDENTITIES = "SELECT anonymous_id, since FROM identities WHERE user_id = $id ORDER BY since, anonymous_id"


def list_links(connection: duckdb.DuckDBPyConnection, user_id: str) -> dict[str, list[dict[str, Any]]]:
    """The accounts and the anonymous ids of a user."""
    accounts = connection.execute(_ACCOUNTS, {"id": user_id}).fetchall()
    identities = connection.execute(_IDENTITIES, {"id": user_id}).fetchall()
    return {
        "accounts": [
            {"account_id": id, "first_seen": iso_ms(first), "last_seen": iso_ms(last)} for id, first, last in accounts
        ],
        "identities": [{"anonymous_id": id, "since": iso_ms(since)} for id, since in identities],
    }


def list_events(
    connection: duckdb.DuckDBPyConnection, user_id: str, limit: int, after: tuple[int, str] | None
) -> EventPage:
    """Events of a user, the newest first, of equal times by identity."""
    time, key = (instant(after[0] / 1000), after[1]) if after else (None, "")
    rows = connection.execute(_EVENTS, {"id": user_id, "time": time, "key": key, "rows": limit + 1}).fetchall()
    events = [_wire(row) for row in rows[:limit]]
    more = len(rows) > limit
    return EventPage(events, (_microseconds(rows[limit - 1][1]), rows[limit - 1][0]) if more else None)


def _microseconds(moment: datetime) -> int:
    return epoch_ms(moment) * 1000 + moment.microsecond % 1000


def _wire(row: tuple[Any, ...]) -> dict[str, Any]:
    """The event with its columns back at their paths; what has a column is nowhere else."""
    *cells, rest = row
    event: dict[str, Any] = json.loads(rest) if rest is not None else {}
    for column, cell in zip(EVENT_COLUMNS, cells, strict=True):
        if cell is not None:
            _put(event, column.path.split("."), epoch_ms(cell) if isinstance(cell, datetime) else cell)
    return event


def _put(event: dict[str, Any], path: list[str], value: Any) -> None:
    *parents, name = path
    place = event
    for parent in parents:
        inner = place.setdefault(parent, {})
        if not isinstance(inner, dict):  # the event had something else here: the value stays at the top
            event[".".join(path)] = value
            return
        place = inner
    place[name] = value
