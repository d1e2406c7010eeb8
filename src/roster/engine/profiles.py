"""Owns how profiles are built from events: merges generated from the model, and building anew.

A merge takes rows of events with a `sign`: 1 adds the event, -1 takes back what a replaced version
added to the counters. Every part commutes, so rows may come in any order and any portions.
Holds no transaction of its own.
"""

from __future__ import annotations

from collections.abc import Callable

import duckdb

from roster.model.schema import KEY_ATTRIBUTE, TRACKED, Entity, Tracked

Changed = Callable[[duckdb.DuckDBPyConnection, Entity, str], None]
"""Told, inside the transaction, which temporary table holds the keys of the profiles that changed."""

_PORTION = 2_000_000
"""Events built into profiles at once when building anew: bounds the memory."""

_COUNTS = {
    "events_count": "true",
    "view_count": "type = 'view'",
    "action_count": "type = 'action'",
    "error_count": "type = 'error'",
    "loading_time_count": "type = 'view' AND loading_time IS NOT NULL",
}
_USER_SUMS = ("session_count", *_COUNTS, "loading_time_sum")
_SUMS = {Entity.USERS: _USER_SUMS, Entity.ACCOUNTS: ("user_count",)}

_TRACKED_COLUMNS = [tracked.column for entity in Entity for tracked in TRACKED[entity]]
PROFILE_INPUTS = tuple(
    dict.fromkeys(["time", "type", "user_id", "account_id", "session_id", "loading_time", *_TRACKED_COLUMNS])
)
"""Columns of events that profiles are built from."""
_TRACED = tuple(c for c in PROFILE_INPUTS if c not in ("time", "type", "loading_time"))

SUBSUMED = " AND ".join(
    [
        "old.time = new.time",
        *(f"(old.{c} IS NULL OR old.{c} = '' OR old.{c} IS NOT DISTINCT FROM new.{c})" for c in _TRACED),
    ]
)
"""True when whatever the old version of an event left in profiles, counters aside, the new one leaves too."""


def _pick(tracked: Tracked) -> str:
    side = "min" if tracked.earliest else "max"
    value = f"struct_pack(at := time, value := {tracked.column})"
    return f"{side}({value}) FILTER (sign > 0 AND {tracked.column} <> '') AS {tracked.id}"


def _aggregates(entity: Entity) -> list[str]:
    picks = [_pick(t) for t in TRACKED[entity]]
    seen = ["min(time) FILTER (sign > 0) AS first_seen", "max(time) FILTER (sign > 0) AS last_seen"]
    if entity is Entity.ACCOUNTS:
        return [*seen, *picks]
    counts = [f"coalesce(sum(sign) FILTER ({which}), 0)::BIGINT AS {name}" for name, which in _COUNTS.items()]
    total = "coalesce(sum(sign * loading_time::HUGEINT) FILTER (type = 'view'), 0) AS loading_time_sum"
    return [*seen, *picks, *counts, total]


def _contributions(entity: Entity, rows: str, counted: str) -> str:
    """One row a key: what `rows` add to its profile. `counted` is a table of new (user, session or account) pairs."""
    key = KEY_ATTRIBUTE[entity]
    counter = "session_count" if entity is Entity.USERS else "user_count"
    picks = "".join(f", {t.id}.value AS {t.id}, {t.id}.at AS {t.id}_at" for t in TRACKED[entity])
    sums = "".join(f", {name}" for name in _SUMS[entity] if name != counter)
    return f"""
        SELECT {key}, first_seen, last_seen{picks}{sums}, coalesce({counter}, 0) AS {counter}
        FROM (SELECT {key}, {", ".join(_aggregates(entity))} FROM {rows} WHERE {key} IS NOT NULL GROUP BY {key})
        LEFT JOIN (SELECT {key}, count(*) AS {counter} FROM {counted} GROUP BY {key}) USING ({key})"""


def _newer(tracked: Tracked) -> str:
    """True when the new value comes from an earlier (later) event; of equal times the smaller (greater) value wins."""
    sign = "<" if tracked.earliest else ">"
    id, at = tracked.id, f"{tracked.id}_at"
    tie = f"(new.{at} = old.{at} AND new.{id} {sign} old.{id})"
    return f"new.{at} IS NOT NULL AND (old.{at} IS NULL OR new.{at} {sign} old.{at} OR {tie})"


def _merge(entity: Entity, rows: str, counted: str) -> str:
    key = KEY_ATTRIBUTE[entity]
    columns = [key, "first_seen", "last_seen", *_SUMS[entity]]
    updates = [
        "first_seen = least(old.first_seen, new.first_seen)",
        "last_seen = greatest(old.last_seen, new.last_seen)",
        *(f"{name} = old.{name} + new.{name}" for name in _SUMS[entity]),
    ]
    for tracked in TRACKED[entity]:
        for name in (tracked.id, f"{tracked.id}_at"):
            columns.append(name)
            updates.append(f"{name} = CASE WHEN {_newer(tracked)} THEN new.{name} ELSE old.{name} END")
    values = [f"new.{name}" for name in columns]
    if entity is Entity.USERS:
        columns.append("avg_loading_time")
        values.append(_mean("new.loading_time_sum", "new.loading_time_count"))
        total, count = (f"(old.{name} + new.{name})" for name in ("loading_time_sum", "loading_time_count"))
        updates.append(f"avg_loading_time = {_mean(total, count)}")
    return f"""
        MERGE INTO {entity} AS old USING ({_contributions(entity, rows, counted)}) AS new ON old.{key} = new.{key}
        WHEN MATCHED THEN UPDATE SET {", ".join(updates)}
        WHEN NOT MATCHED THEN INSERT ({", ".join(columns)}) VALUES ({", ".join(values)})"""


def _mean(total: str, count: str) -> str:
    return f"CASE WHEN {count} > 0 THEN {total}::DOUBLE / {count} END"


def _find_sessions(rows: str) -> str:
    return f"""
        CREATE OR REPLACE TEMP TABLE new_sessions AS
        SELECT * FROM (
            SELECT DISTINCT user_id, session_id FROM {rows}
            WHERE sign > 0 AND user_id IS NOT NULL AND session_id IS NOT NULL)
        ANTI JOIN user_sessions USING (user_id, session_id)"""


def _find_links(rows: str) -> str:
    return f"""
        CREATE OR REPLACE TEMP TABLE links AS
        SELECT user_id, account_id, min(time) AS first_seen, max(time) AS last_seen FROM {rows}
        WHERE sign > 0 AND user_id IS NOT NULL AND account_id IS NOT NULL GROUP BY user_id, account_id"""


_NEW_LINKS = """
    CREATE OR REPLACE TEMP TABLE new_links AS
    SELECT user_id, account_id FROM links ANTI JOIN user_accounts USING (user_id, account_id)"""
_MERGE_LINKS = """
    MERGE INTO user_accounts AS old USING links AS new ON old.user_id = new.user_id AND old.account_id = new.account_id
    WHEN MATCHED THEN UPDATE SET
        first_seen = least(old.first_seen, new.first_seen), last_seen = greatest(old.last_seen, new.last_seen)
    WHEN NOT MATCHED THEN INSERT VALUES (new.user_id, new.account_id, new.first_seen, new.last_seen)"""


def _merge_users(connection: duckdb.DuckDBPyConnection, rows: str) -> None:
    """Sessions, links to accounts, and users. Leaves the links that were not known before in `new_links`."""
    connection.execute(_find_sessions(rows))
    connection.execute("INSERT INTO user_sessions SELECT * FROM new_sessions")
    connection.execute(_find_links(rows))
    connection.execute(_NEW_LINKS)
    connection.execute(_MERGE_LINKS)
    connection.execute(_merge(Entity.USERS, rows, "new_sessions"))


def merge_rows(connection: duckdb.DuckDBPyConnection, rows: str) -> None:
    """Merge the rows of the table `rows` (PROFILE_INPUTS and `sign`) into all profiles."""
    _merge_users(connection, rows)
    connection.execute(_merge(Entity.ACCOUNTS, rows, "new_links"))


def _stored(condition: str) -> str:
    """Rows of stored events in the shape a merge takes."""
    return f"(SELECT 1 AS sign, {', '.join(PROFILE_INPUTS)} FROM events WHERE {condition})"


def recompute(connection: duckdb.DuckDBPyConnection, users: str, accounts: str) -> None:
    """Build the profiles whose keys are in the tables `users` and `accounts` anew from the stored events."""
    for table in ("users", "user_sessions", "user_accounts"):
        connection.execute(f"DELETE FROM {table} WHERE user_id IN (SELECT user_id FROM {users})")
    _merge_users(connection, _stored(f"user_id IN (SELECT user_id FROM {users})"))
    connection.execute(f"DELETE FROM accounts WHERE account_id IN (SELECT account_id FROM {accounts})")
    rows = _stored(f"account_id IN (SELECT account_id FROM {accounts})")
    connection.execute(_merge(Entity.ACCOUNTS, rows, "user_accounts"))


def rebuild(connection: duckdb.DuckDBPyConnection) -> None:
    """Build all profiles anew from the stored events, users by portions."""
    for table in ("users", "accounts", "user_sessions", "user_accounts"):
        connection.execute(f"DELETE FROM {table}")
    found = connection.execute("SELECT count(*) FROM events").fetchone()
    portions = 1 + (found[0] if found else 0) // _PORTION
    for portion in range(portions):
        _merge_users(connection, _stored(f"hash(user_id) % {portions} = {portion}"))
    connection.execute(_merge(Entity.ACCOUNTS, _stored("account_id IS NOT NULL"), "user_accounts"))


def list_keys(connection: duckdb.DuckDBPyConnection, rows: str, entity: Entity) -> str:
    """A temporary table of the keys of the profiles that `rows` touch. Gives its name."""
    key, name = KEY_ATTRIBUTE[entity], f"changed_{entity}"
    connection.execute(
        f"CREATE OR REPLACE TEMP TABLE {name} AS SELECT DISTINCT {key} FROM {rows} WHERE {key} IS NOT NULL"
    )
    return name
