"""A database of an earlier Roster comes to the same as one that had the present tables from the start."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from roster.engine.connection import Duck, DuckLimits
from roster.engine.events import DuckEvents

NEW_COLUMNS = {
    "events": ("resolved_user_id", "v", "user_traits", "account_traits", "digest"),
    "users": ("traits", "traits_text", "traits_text_at"),
    "accounts": ("traits", "traits_text", "traits_text_at"),
}
NEW_TABLES = (
    "identities",
    "trait_kinds",
    "stale_sessions",
    "session_spans",
    "view_parts",
    "static_lists",
    "static_members",
    "array_paths",
    "engine_state",
)
SHOWN = {
    "events": "event_id, resolved_user_id, v, user_traits, account_traits, digest, rest::JSON::VARCHAR",
    "users": "user_id, events_count, session_count, traits::JSON::VARCHAR, traits_text_at",
    "accounts": "account_id, user_count, traits::JSON::VARCHAR",
    "identities": "*",
    "trait_kinds": "*",
    "session_spans": "*",
    "static_lists": "*",
    "static_members": "*",
    "array_paths": "keys::VARCHAR",
}
AT_MS = 1_700_000_000_000


def content(duck: Duck) -> dict[str, list[list[Any]]]:
    connection = duck.cursor()
    tables = {name: connection.execute(f"SELECT {shown} FROM {name}").fetchall() for name, shown in SHOWN.items()}
    connection.close()
    return {name: sorted([[_plain(cell) for cell in row] for row in rows], key=str) for name, rows in tables.items()}


def _plain(cell: Any) -> Any:
    """Objects as they are, whatever the order of their keys in the text."""
    return json.loads(cell) if isinstance(cell, str) and cell[:1] == "{" else cell


def test_an_older_database_is_brought_up(tmp_path: Path) -> None:
    duck = Duck(tmp_path / "roster.duckdb", DuckLimits("500MB", 1, "1GB"))
    events = DuckEvents(duck, lambda *_: None)
    view = {"type": "view", "session_id": "s", "anonymous_id": "n", "v": 2}
    said = {
        "usr": {"plan": "pro", "seats": 5},
        "account": {"tier": "gold"},
        "_dd": {"document_version": 2},
        "context": {"tags": ["a"]},
    }
    lines = [
        {"k": "view:a", "time": AT_MS, "view_id": "a", **view, "rest": {"_dd": {"document_version": 2}}},
        {"k": "view:b", "time": AT_MS + 1, "view_id": "b", "user_id": "u", "account_id": "c", **view, "rest": said},
        {"k": "e", "time": AT_MS + 2, "type": "server", "user_id": "w"},
    ]
    segment = tmp_path / "segment.ndjson"
    segment.write_text("".join(json.dumps(line) + "\n" for line in lines))
    events.apply_segment(1, segment)
    events.settle(AT_MS)
    wanted = content(duck)
    with duck.write() as connection:
        connection.execute("DELETE FROM events WHERE type = 'session'")
        for table, columns in NEW_COLUMNS.items():
            for column in columns:
                connection.execute(f"ALTER TABLE {table} DROP COLUMN {column}")
        for table in NEW_TABLES:
            connection.execute(f"DROP TABLE {table}")
    DuckEvents(duck, lambda *_: None).settle(AT_MS)
    assert content(duck) == wanted
    duck.close()
