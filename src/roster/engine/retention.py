"""Owns removing what is older than it may be: events by time, and profiles that were not seen since. Reads no clock.

Works in portions, each a transaction of its own: writers and readers wait for none of it longer than a moment.
Events lie in the file in the order of their time, so old ones are found by the engine's minima and maxima,
and what holds nothing else is let go of as a whole at the next checkpoint.
"""

from __future__ import annotations

from datetime import datetime, timedelta

import duckdb

from roster.engine.connection import Duck
from roster.engine.identity import reclaim
from roster.engine.profiles import Changed
from roster.model.schema import KEY_ATTRIBUTE, Entity
from roster.ports import Forgotten

EVENTS_PORTION = 1_000_000
PROFILES_PORTION = 50_000
"""Rows removed in one transaction."""


def forget(duck: Duck, before: datetime, changed: Changed) -> Forgotten:
    """Remove events of before a time, sessions among them, and the profiles that were last seen before it."""
    events = sessions = 0
    while (bound := _next_bound(duck, before)) is not None:
        with duck.write() as connection:
            gone = _forget_events(connection, bound)
        events, sessions = events + gone[0], sessions + gone[1]
    with duck.write() as connection:
        for table in ("session_spans", "stale_sessions"):
            connection.execute(f"DELETE FROM {table} WHERE until < ?", [before])
    profiles = {entity: _forget_profiles(duck, entity, before, changed) for entity in (Entity.ACCOUNTS, Entity.USERS)}
    return Forgotten(events, sessions, profiles[Entity.USERS], profiles[Entity.ACCOUNTS])


def _next_bound(duck: Duck, before: datetime) -> datetime | None:
    """Before which time to remove next, so that it is about a portion; None when nothing is left."""
    connection = duck.cursor()
    try:
        found = connection.execute("SELECT count(*) FROM events WHERE time < ?", [before]).fetchone()
        if not found or not found[0]:
            return None
        if found[0] <= EVENTS_PORTION:
            return before
        oldest = f"SELECT max(time) FROM (SELECT time FROM events WHERE time < ? ORDER BY time LIMIT {EVENTS_PORTION})"
        found = connection.execute(oldest, [before]).fetchone()
        assert found is not None
        oldest_kept: datetime = found[0] + timedelta(microseconds=1)
        return min(before, oldest_kept)
    finally:
        connection.close()


def _forget_events(connection: duckdb.DuckDBPyConnection, bound: datetime) -> tuple[int, int]:
    """How many events and sessions went."""
    old = "events WHERE time < ?"
    connection.execute(
        f"DELETE FROM view_parts WHERE view_id IN (SELECT view_id FROM {old} AND type IN ('view', 'view_update'))",
        [bound],
    )
    found = connection.execute(f"SELECT count(*) FILTER (type = 'session') FROM {old}", [bound]).fetchone()
    sessions = int(found[0]) if found else 0
    connection.execute(
        f"""INSERT INTO stale_sessions SELECT session_id, min(time), max(time) FROM events
            WHERE time >= $bound AND type NOT IN ('session', 'server') AND session_id IN (
                SELECT session_id FROM {old.replace("?", "$bound")} AND type = 'session')
            GROUP BY session_id""",
        {"bound": bound},
    )
    gone = connection.execute(f"DELETE FROM {old}", [bound]).fetchone()
    return (int(gone[0]) if gone else 0) - sessions, sessions


def _forget_profiles(duck: Duck, entity: Entity, before: datetime, changed: Changed) -> int:
    total = 0
    while True:
        with duck.write() as connection:
            gone = _forget_portion(connection, entity, before, changed)
        total += gone
        if gone < PROFILES_PORTION:
            return total


def _forget_portion(connection: duckdb.DuckDBPyConnection, entity: Entity, before: datetime, changed: Changed) -> int:
    """Remove some profiles with their links. Accounts that lose users count anew those that are left."""
    key = KEY_ATTRIBUTE[entity]
    connection.execute(
        f"CREATE OR REPLACE TEMP TABLE gone AS SELECT {key} FROM {entity} WHERE last_seen < ? LIMIT {PROFILES_PORTION}",
        [before],
    )
    found = connection.execute("SELECT count(*) FROM gone").fetchone()
    if not found or not found[0]:
        return 0
    their = f"WHERE {key} IN (SELECT {key} FROM gone)"
    connection.execute(f"CREATE OR REPLACE TEMP TABLE fewer AS SELECT DISTINCT account_id FROM user_accounts {their}")
    for table in (entity.value, "user_accounts"):
        connection.execute(f"DELETE FROM {table} {their}")
    if entity is Entity.USERS:
        connection.execute(f"DELETE FROM user_sessions {their}")
        connection.execute(f"CREATE OR REPLACE TEMP TABLE gone_ids AS SELECT anonymous_id FROM identities {their}")
        connection.execute(f"DELETE FROM identities {their}")
        reclaim(connection, "gone_ids")
        connection.execute("""
            UPDATE accounts SET user_count = coalesce(left_over.n, 0)
            FROM fewer LEFT JOIN (SELECT account_id, count(*) AS n FROM user_accounts GROUP BY account_id) AS left_over
                USING (account_id)
            WHERE accounts.account_id = fewer.account_id""")
        changed(connection, Entity.ACCOUNTS, "fewer")
    changed(connection, entity, "gone")
    return int(found[0])
