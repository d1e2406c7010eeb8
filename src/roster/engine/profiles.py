"""Owns how profiles are built from events: merges generated from the model, and building anew.

A merge takes rows of events with a `sign`: 1 adds the event, -1 takes back what a replaced version
added to the counters. Every part commutes, so rows may come in any order and any portions.
Holds no transaction of its own.
"""

from __future__ import annotations

from collections.abc import Callable

import duckdb

from roster.engine.places import at_places
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

_TRAITS = "traits_text"
_TRACKED = {
    Entity.USERS: (*TRACKED[Entity.USERS], Tracked(_TRAITS, "user_traits", earliest=False)),
    Entity.ACCOUNTS: (*TRACKED[Entity.ACCOUNTS], Tracked(_TRAITS, "account_traits", earliest=False)),
}
_TRACKED_COLUMNS = [tracked.column for entity in Entity for tracked in _TRACKED[entity]]
PROFILE_INPUTS = tuple(
    dict.fromkeys(["time", "type", "user_id", "account_id", "session_id", "loading_time", *_TRACKED_COLUMNS])
)
"""Columns that profiles are built from; `user_id` is the user the event belongs to."""
OWNER = "coalesce(user_id, resolved_user_id)"
INPUTS = ", ".join(f"{OWNER} AS user_id" if name == "user_id" else name for name in PROFILE_INPUTS)
"""PROFILE_INPUTS of rows of events, stored or staged."""


_TRACED = ("anonymous_id", *(c for c in PROFILE_INPUTS if c not in ("time", "type", "loading_time", "user_id")))
_OLD_OWNER, _NEW_OWNER = (f"coalesce({side}.user_id, {side}.resolved_user_id)" for side in ("old", "new"))

SUBSUMED = " AND ".join(
    [
        "old.time = new.time",
        f"({_OLD_OWNER} IS NULL OR {_OLD_OWNER} IS NOT DISTINCT FROM {_NEW_OWNER})",
        "(old.user_id IS NULL OR old.user_id IS NOT DISTINCT FROM new.user_id)",
        *(f"(old.{c} IS NULL OR old.{c} = '' OR old.{c} IS NOT DISTINCT FROM new.{c})" for c in _TRACED),
    ]
)
"""True when whatever the old version of an event left in profiles, counters aside, the new one leaves too."""


def _pick(tracked: Tracked) -> str:
    side = "min" if tracked.earliest else "max"
    value = f"struct_pack(at := time, value := {tracked.column})"
    return f"{side}({value}) FILTER (sign > 0 AND {tracked.column} <> '') AS {tracked.id}"


def _aggregates(entity: Entity) -> list[str]:
    picks = [_pick(t) for t in _TRACKED[entity]]
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
    picks = "".join(f", {t.id}.value AS {t.id}, {t.id}.at AS {t.id}_at" for t in _TRACKED[entity])
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


def _merged(entity: Entity, held: str) -> str:
    """The new rows of `delta`'s profiles: what is held where the condition `held` says, with `delta` merged in."""
    key = KEY_ATTRIBUTE[entity]
    parts = [
        f"new.{key}",
        "least(old.first_seen, new.first_seen) AS first_seen",
        "greatest(old.last_seen, new.last_seen) AS last_seen",
        *(f"coalesce(old.{name}, 0) + new.{name} AS {name}" for name in _SUMS[entity]),
    ]
    for tracked in _TRACKED[entity]:
        for name in (tracked.id, f"{tracked.id}_at"):
            parts.append(f"CASE WHEN {_newer(tracked)} THEN new.{name} ELSE old.{name} END AS {name}")
    merged = f"""
        SELECT {", ".join(parts)} FROM delta AS new
        LEFT JOIN (SELECT * FROM {entity} WHERE {held}) AS old USING ({key})"""
    traits = f"{_TRAITS}::JSON::VARIANT AS traits"
    if entity is Entity.ACCOUNTS:
        return f"SELECT *, {traits} FROM ({merged})"
    mean = "CASE WHEN loading_time_count > 0 THEN loading_time_sum::DOUBLE / loading_time_count END"
    return f"SELECT *, {traits}, {mean} AS avg_loading_time FROM ({merged})"


def _merge(connection: duckdb.DuckDBPyConnection, entity: Entity, rows: str, counted: str) -> None:
    """Merge `rows` into the profiles of one entity.

    Changed rows are found by a scan of the key alone, then deleted and written anew: with this many
    columns that is several times cheaper than updating them in place, in time and at the next checkpoint.
    """
    key = KEY_ATTRIBUTE[entity]
    connection.execute(f"CREATE OR REPLACE TEMP TABLE delta AS {_contributions(entity, rows, counted)}")
    held = at_places(connection, entity, f"{key} IN (SELECT {key} FROM delta)")
    connection.execute(f"CREATE OR REPLACE TEMP TABLE merged AS {_merged(entity, held)}")
    connection.execute(f"DELETE FROM {entity} WHERE {held}")
    connection.execute(f"INSERT INTO {entity} BY NAME FROM merged")


def _pair(other: str) -> str:
    """A digest of a user with a session or an account: looked up several times faster than two texts."""
    return f"md5_number(length(user_id) || ':' || user_id || {other})"


def _merge_sessions(connection: duckdb.DuckDBPyConnection, rows: str) -> None:
    """Leaves the pairs that were not known before in `new_sessions`."""
    for statement in (
        f"""CREATE OR REPLACE TEMP TABLE pairs AS
            SELECT DISTINCT user_id, {_pair("session_id")} AS pair FROM {rows}
            WHERE sign > 0 AND user_id IS NOT NULL AND session_id IS NOT NULL""",
        "CREATE OR REPLACE TEMP TABLE new_sessions AS SELECT * FROM pairs ANTI JOIN user_sessions USING (pair)",
        "INSERT INTO user_sessions BY NAME FROM new_sessions",
    ):
        connection.execute(statement)


def _merge_links(connection: duckdb.DuckDBPyConnection, rows: str) -> None:
    """Leaves the pairs that were not known before in `new_links`."""
    for statement in (
        f"""CREATE OR REPLACE TEMP TABLE pairs AS
            SELECT user_id, account_id, min(time) AS first_seen, max(time) AS last_seen, {_pair("account_id")} AS pair
            FROM {rows} WHERE sign > 0 AND user_id IS NOT NULL AND account_id IS NOT NULL
            GROUP BY user_id, account_id""",
        """CREATE OR REPLACE TEMP TABLE links AS
            SELECT new.user_id, new.account_id, pair, old.rowid AS place,
                least(old.first_seen, new.first_seen) AS first_seen, greatest(old.last_seen, new.last_seen) AS last_seen
            FROM pairs AS new LEFT JOIN user_accounts AS old USING (pair)""",
        "CREATE OR REPLACE TEMP TABLE new_links AS SELECT user_id, account_id FROM links WHERE place IS NULL",
        "DELETE FROM user_accounts WHERE rowid IN (SELECT place FROM links)",
        "INSERT INTO user_accounts BY NAME SELECT * EXCLUDE (place) FROM links",
    ):
        connection.execute(statement)


def _merge_users(connection: duckdb.DuckDBPyConnection, rows: str) -> None:
    """Sessions, links to accounts, and users. Leaves new links in `new_links`."""
    _merge_sessions(connection, rows)
    _merge_links(connection, rows)
    _merge(connection, Entity.USERS, rows, "new_sessions")


def merge_rows(connection: duckdb.DuckDBPyConnection, rows: str) -> None:
    """Merge the rows of the table `rows` (PROFILE_INPUTS and `sign`) into all profiles."""
    _merge_users(connection, rows)
    _merge(connection, Entity.ACCOUNTS, rows, "new_links")


def _stored(condition: str) -> str:
    """Rows of stored events in the shape a merge takes. Sessions tell nothing that their events do not."""
    return f"(SELECT 1 AS sign, {INPUTS} FROM events WHERE type <> 'session' AND {condition})"


def recompute(connection: duckdb.DuckDBPyConnection, users: str, accounts: str) -> None:
    """Build the profiles whose keys are in the tables `users` and `accounts` anew from the stored events."""
    for table in ("users", "user_sessions", "user_accounts"):
        connection.execute(f"DELETE FROM {table} WHERE user_id IN (SELECT user_id FROM {users})")
    _merge_users(connection, _stored(f"{OWNER} IN (SELECT user_id FROM {users})"))
    connection.execute(f"DELETE FROM accounts WHERE account_id IN (SELECT account_id FROM {accounts})")
    rows = _stored(f"account_id IN (SELECT account_id FROM {accounts})")
    _merge(connection, Entity.ACCOUNTS, rows, "user_accounts")


def rebuild(connection: duckdb.DuckDBPyConnection) -> None:
    """Build all profiles anew from the stored events, users by portions."""
    for table in ("users", "accounts", "user_sessions", "user_accounts"):
        connection.execute(f"DELETE FROM {table}")
    found = connection.execute("SELECT count(*) FROM events").fetchone()
    portions = 1 + (found[0] if found else 0) // _PORTION
    for portion in range(portions):
        _merge_users(connection, _stored(f"hash({OWNER}) % {portions} = {portion}"))
    _merge(connection, Entity.ACCOUNTS, _stored("account_id IS NOT NULL"), "user_accounts")


def list_keys(connection: duckdb.DuckDBPyConnection, rows: str, entity: Entity) -> str:
    """A temporary table of the keys of the profiles that `rows` touch. Gives its name."""
    key, name = KEY_ATTRIBUTE[entity], f"changed_{entity}"
    connection.execute(
        f"CREATE OR REPLACE TEMP TABLE {name} AS SELECT DISTINCT {key} FROM {rows} WHERE {key} IS NOT NULL"
    )
    return name
