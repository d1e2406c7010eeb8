"""Owns removing one user from the engine: events, sessions, profile, links. Holds no transaction of its own.

What is gone cannot be read any more. Its bytes may stay in unused parts of the file until those are used
again or the file is written anew (`compaction`).
"""

from __future__ import annotations

import duckdb

from roster.engine.identity import reclaim
from roster.engine.profiles import Changed, recompute
from roster.model.schema import Entity
from roster.ports import Erased

_MARK = (
    """CREATE OR REPLACE TEMP TABLE gone AS
        SELECT rowid AS place, time, type, user_email, anonymous_id, account_id, session_id, view_id FROM events
        WHERE resolved_user_id = $id""",
    "CREATE OR REPLACE TEMP TABLE gone_users AS SELECT $id AS user_id",
    """CREATE OR REPLACE TEMP TABLE gone_ids AS
        SELECT anonymous_id FROM identities WHERE user_id = $id""",
    """CREATE OR REPLACE TEMP TABLE touched_sessions AS
        SELECT DISTINCT session_id FROM gone WHERE session_id IS NOT NULL""",
    """CREATE OR REPLACE TEMP TABLE touched_accounts AS
        SELECT account_id FROM gone WHERE account_id IS NOT NULL
        UNION SELECT account_id FROM user_accounts WHERE user_id = $id""",
    """CREATE OR REPLACE TEMP TABLE gone_views AS
        SELECT view_id FROM gone WHERE type IN ('view', 'view_update') AND view_id IS NOT NULL
        UNION SELECT view_id FROM view_parts WHERE line ->> '$.columns.user_id' = $id
            OR line ->> '$.columns.anonymous_id' IN (SELECT anonymous_id FROM gone_ids)""",
    """CREATE OR REPLACE TEMP TABLE gone_emails AS
        SELECT user_email FROM gone WHERE user_email <> ''
        UNION SELECT user_email FROM users WHERE user_id = $id AND user_email <> ''
        UNION SELECT line ->> '$.columns.user_email' FROM view_parts
        WHERE line ->> '$.columns.user_id' = $id AND line ->> '$.columns.user_email' <> ''""",
)
_SESSION_ROW = "type = 'session' AND session_id IN (SELECT session_id FROM touched_sessions)"
_LISTED = """list IN (SELECT list FROM static_lists WHERE entity = 'users')
    AND key IN (SELECT user_id FROM gone_users UNION SELECT anonymous_id FROM gone_ids)"""
_LOSING = """
    CREATE OR REPLACE TEMP TABLE losing_accounts AS
    SELECT DISTINCT account_id FROM gone JOIN accounts USING (account_id)
    WHERE time <= first_seen OR time >= last_seen OR time IN (account_name_at, traits_text_at)"""
"""Accounts of which a value may have come from the user's events; of others only the count of users changes."""
_COUNT_USERS = """
    UPDATE accounts SET user_count = counted.n FROM (
        SELECT touched_accounts.account_id, count(user_id) AS n FROM touched_accounts
        LEFT JOIN user_accounts USING (account_id) GROUP BY ALL) AS counted
    WHERE accounts.account_id = counted.account_id"""
_COUNTED = {
    "events": "gone WHERE type <> 'session'",
    "sessions": f"events WHERE {_SESSION_ROW}",
    "profiles": "users WHERE user_id = $id",
    "session_links": "user_sessions WHERE user_id = $id",
    "account_links": "user_accounts WHERE user_id = $id",
    "anonymous_ids": "gone_ids",
    "view_parts": "view_parts WHERE view_id IN (SELECT view_id FROM gone_views)",
    "accounts_renewed": "touched_accounts",
    "list_entries": f"static_members WHERE {_LISTED}",
}
_LEFT = """events WHERE session_id IN (SELECT session_id FROM touched_sessions) AND type NOT IN ('session', 'server')"""
_REMOVE = (
    "DELETE FROM events WHERE rowid IN (SELECT place FROM gone)",
    f"DELETE FROM events WHERE {_SESSION_ROW}",
    "DELETE FROM view_parts WHERE view_id IN (SELECT view_id FROM gone_views)",
    "DELETE FROM session_spans WHERE session_id IN (SELECT session_id FROM touched_sessions)",
    "DELETE FROM stale_sessions WHERE session_id IN (SELECT session_id FROM touched_sessions)",
    "DELETE FROM identities WHERE anonymous_id IN (SELECT anonymous_id FROM gone_ids)",
    f"DELETE FROM static_members WHERE {_LISTED}",
)
# somebody else's events in a session of theirs together: its row is made anew from what is left
_STALE = f"INSERT INTO stale_sessions SELECT session_id, min(time), max(time) FROM {_LEFT} GROUP BY session_id"


def erase(connection: duckdb.DuckDBPyConnection, user_id: str, changed: Changed, *, dry_run: bool) -> Erased:
    """Remove everything of one user, or with `dry_run` only count it. What nobody knows is nothing to remove."""
    for statement in _MARK:
        connection.execute(statement, {"id": user_id} if "$id" in statement else None)
    counts = {name: _count(connection, rows, user_id) for name, rows in _COUNTED.items()}
    found = Erased(counts, _texts(connection, "gone_emails"), _texts(connection, "gone_ids"))
    if not dry_run:
        for statement in (_LOSING, *_REMOVE, _STALE):
            connection.execute(statement)
        reclaim(connection, "gone_ids")
        recompute(connection, "gone_users", "losing_accounts")
        connection.execute(_COUNT_USERS)
        changed(connection, Entity.USERS, "gone_users")
        changed(connection, Entity.ACCOUNTS, "touched_accounts")
    return found


def _count(connection: duckdb.DuckDBPyConnection, rows: str, user_id: str) -> int:
    found = connection.execute(f"SELECT count(*) FROM {rows}", {"id": user_id} if "$id" in rows else None).fetchone()
    return int(found[0]) if found else 0


def _texts(connection: duckdb.DuckDBPyConnection, table: str) -> tuple[str, ...]:
    return tuple(str(text) for (text,) in connection.execute(f"FROM {table} ORDER BY 1").fetchall())
