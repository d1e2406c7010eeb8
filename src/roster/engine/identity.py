"""Owns who anonymous visitors are: an anonymous id belongs to the first user ever identified under it.

Holds no transaction of its own. `resolved_user_id` of an event is its own user, else the user of its anonymous
id; it is kept with the event, so that no query has to join for it.
"""

from __future__ import annotations

import duckdb

_CLAIM = "min(struct_pack(since := time, user_id := user_id))"
"""The first to be seen; of equal times the smaller user, whatever the order of arrival."""


def resolve_staged(connection: duckdb.DuckDBPyConnection) -> None:
    """Give staged events without a user of their own the one they belong to, as far as known before them."""
    connection.execute("""
        UPDATE staging SET resolved_user_id = identities.user_id FROM identities
        WHERE staging.user_id IS NULL AND staging.anonymous_id = identities.anonymous_id""")


def learn(connection: duckdb.DuckDBPyConnection) -> None:
    """Bring `identities` up to the stored events that `staging` and `replaced` touch.

    Leaves the anonymous ids whose user changed in `moved` (anonymous_id, before, after; null for nobody),
    and their anonymous events with the new user.
    """
    for statement in (
        f"""CREATE OR REPLACE TEMP TABLE claims AS
            SELECT anonymous_id, {_CLAIM} AS claim FROM staging
            WHERE anonymous_id IS NOT NULL AND user_id IS NOT NULL GROUP BY anonymous_id""",
        """CREATE OR REPLACE TEMP TABLE doubtful AS
            SELECT DISTINCT replaced.anonymous_id FROM replaced JOIN identities USING (anonymous_id)
            WHERE NOT replaced.subsumed AND replaced.user_id IS NOT NULL""",
        """CREATE OR REPLACE TEMP TABLE claimed AS
            SELECT anonymous_id, struct_pack(since := since, user_id := user_id) AS claim FROM identities
            WHERE anonymous_id IN (SELECT anonymous_id FROM claims UNION SELECT anonymous_id FROM doubtful)""",
    ):
        connection.execute(statement)
    if _any(connection, "doubtful"):
        connection.execute("""
            CREATE OR REPLACE TEMP TABLE claims AS
            SELECT * FROM claims ANTI JOIN doubtful USING (anonymous_id) UNION ALL
            SELECT doubtful.anonymous_id, min(said.claim) FROM doubtful LEFT JOIN (
                SELECT anonymous_id, struct_pack(since := time, user_id := user_id) AS claim FROM events
                WHERE user_id IS NOT NULL AND type <> 'session') AS said USING (anonymous_id)
            GROUP BY doubtful.anonymous_id""")
    for statement in (
        """CREATE OR REPLACE TEMP TABLE settled AS
            SELECT anonymous_id, claimed.claim AS held, claims.claim AS claim
            FROM claims LEFT JOIN claimed USING (anonymous_id)
            WHERE claimed.claim IS NULL OR claims.claim < claimed.claim OR (
                claims.claim IS DISTINCT FROM claimed.claim AND anonymous_id IN (SELECT anonymous_id FROM doubtful))""",
        "DELETE FROM identities WHERE anonymous_id IN (SELECT anonymous_id FROM settled)",
        """INSERT INTO identities SELECT anonymous_id, claim.user_id, claim.since FROM settled
            WHERE claim.user_id IS NOT NULL""",
        """CREATE OR REPLACE TEMP TABLE moved AS
            SELECT anonymous_id, held.user_id AS before, claim.user_id AS after FROM settled
            WHERE held.user_id IS DISTINCT FROM claim.user_id""",
    ):
        connection.execute(statement)
    if _any(connection, "moved"):
        connection.execute("""
            UPDATE events SET resolved_user_id = moved.after FROM moved
            WHERE events.anonymous_id = moved.anonymous_id AND events.user_id IS NULL""")


def relearn(connection: duckdb.DuckDBPyConnection) -> None:
    """Find out anew, from all stored events, who everyone is."""
    connection.execute("DELETE FROM identities")
    _claim_stored(connection, "anonymous_id IS NOT NULL")
    connection.execute("""
        UPDATE events SET resolved_user_id = identities.user_id FROM identities
        WHERE events.anonymous_id = identities.anonymous_id AND events.user_id IS NULL
            AND events.resolved_user_id IS DISTINCT FROM identities.user_id""")
    connection.execute("""
        UPDATE events SET resolved_user_id = NULL WHERE user_id IS NULL AND resolved_user_id IS NOT NULL
            AND anonymous_id NOT IN (SELECT anonymous_id FROM identities)""")


def reclaim(connection: duckdb.DuckDBPyConnection, anonymous_ids: str) -> None:
    """Give the anonymous ids in a table, whose user is gone, to the first user that is left under them."""
    _claim_stored(connection, f"anonymous_id IN (SELECT anonymous_id FROM {anonymous_ids})")


def _claim_stored(connection: duckdb.DuckDBPyConnection, which: str) -> None:
    """Note whose anonymous ids are by the stored events; none of them may be in `identities`."""
    connection.execute(f"""
        INSERT INTO identities SELECT anonymous_id, claim.user_id, claim.since FROM (
            SELECT anonymous_id, {_CLAIM} AS claim FROM events
            WHERE {which} AND user_id IS NOT NULL AND type <> 'session' GROUP BY anonymous_id)""")


def _any(connection: duckdb.DuckDBPyConnection, table: str) -> bool:
    return connection.execute(f"SELECT 1 FROM {table} LIMIT 1").fetchone() is not None
