"""Owns the rows of sessions among the events: computed from the events of each session, anew when one of them changes.

Holds no transaction of its own. A session is whatever bears its id, but for what servers say of it; that it goes
on is a matter of the time it is looked at.
"""

from __future__ import annotations

from datetime import datetime

import duckdb

from roster.base.time import instant
from roster.engine.arrays import learn_arrays
from roster.engine.places import DIGEST, at_places
from roster.model.schema import EVENT_COLUMNS

IDLE_MS = 15 * 60 * 1000
LENGTH_MS_MAX = 4 * 60 * 60 * 1000
PORTION = 250_000
"""Sessions computed in one transaction: of more than one row group, as smaller ones are written twice."""

_OF_USER = ("user_id", "user_email", "user_name", "anonymous_id", "account_id", "account_name")
"""What a session takes from its last view, nothing included: who logged out before it is not its user."""
_NOT_OF_SESSIONS = frozenset(
    {"event_id", "time", "type", "session_id", "view_id", "view_name", "view_url", "loading_time", "time_spent"}
    | {"action_type", "action_name", "event_name", *_OF_USER}
)
_LATEST = tuple(c.name for c in EVENT_COLUMNS if c.name not in _NOT_OF_SESSIONS)
"""What a session takes from the latest of its events that says it."""
_OBJECTS = ("usr", "account", "geo", "device", "os", "browser")
_SENDER = ("useragent", "ip")
"""What a session takes from what its last view says beside columns: whole objects, and two names under `session`."""
_URL_PARTS = ("url_scheme", "url_host", "url_path", "url_path_group", "url_hash", "url_query", "referrer")
_COUNTED = ("view", "action", "error", "resource", "long_task")

_SPENT_US = f"least(greatest(coalesce(time_spent, 0), 0) // 1000, {LENGTH_MS_MAX * 1000})"
_ENDS = f"CASE WHEN type = 'view' THEN time + to_microseconds({_SPENT_US}) ELSE time END"


def _json(pairs: dict[str, str]) -> str:
    """A JSON object without the keys that have no value, also in what is inside."""
    return f"json_merge_patch('{{}}', json_object({_pairs(pairs)}))"


def _pairs(pairs: dict[str, str]) -> str:
    return ", ".join(f"'{key}', {value}" for key, value in pairs.items())


def _each(template: str, names: tuple[str, ...]) -> str:
    return ", ".join(template.format(name) for name in names)


def _view(side: str) -> str:
    """The first or last view of a session, found beside it."""
    parts = {"id": f"{side}.view_id", "name": f"{side}.view_name", "url": f"{side}.view_url"}
    parts |= {part: f"json_extract({side}_said.view, '$.{part}')" for part in _URL_PARTS}
    return f"CASE WHEN {side}.n IS NOT NULL THEN {_json(parts)} END"


_SESSION = {
    "type": "first_type",
    "time_spent": "time_spent",
    "is_active": "is_active",
    "has_replay": "has_replay",
    "referrer": "json_extract(initial_view, '$.referrer')",
    "initial_view": "initial_view",
    "last_view": "last_view",
    **{name: name for name in _SENDER},
    **{name: f"json_object('count', {name}_count)" for name in (*_COUNTED, "frustration")},
}

_EVENTS = """time BETWEEN $since AND $until AND type NOT IN ('session', 'server')
    AND session_id IN (SELECT session_id FROM due)"""
_SAID = "variant_extract(variant_extract(rest, 'session'), '{0}')"
_FRUSTRATION = "variant_extract(variant_extract(variant_extract(rest, 'action'), 'frustration'), 'type')"
_MINE = f"""
    CREATE OR REPLACE TEMP TABLE mine AS
    SELECT session_id, time, type, view_id, view_name, view_url, {", ".join((*_OF_USER, *_LATEST))}, {_ENDS} AS ends,
        rowid AS place, row_number() OVER (ORDER BY time, event_id) AS n,
        TRY_CAST({_SAID.format("type")} AS VARCHAR) AS said_type,
        TRY_CAST({_SAID.format("has_replay")} AS BOOLEAN) AS has_replay,
        TRY_CAST({_SAID.format("is_active")} AS BOOLEAN) AS is_active,
        CASE WHEN type = 'action' THEN json_array_length({_FRUSTRATION}::JSON) END AS frustrations
    FROM events WHERE """
_TOLD = f"""
    CREATE OR REPLACE TEMP TABLE told AS
    SELECT session_id, min(time) AS since, max(ends) AS until,
        min(n) FILTER (type = 'view') AS first_view, max(n) FILTER (type = 'view') AS last_view,
        {_each("arg_max({0}, n) FILTER ({0} IS NOT NULL) AS {0}", _LATEST)},
        {_each("count(*) FILTER (type = '{0}') AS {0}_count", _COUNTED)},
        coalesce(sum(frustrations), 0)::BIGINT AS frustration_count,
        arg_min(said_type, n) FILTER (said_type IS NOT NULL) AS first_type,
        coalesce(bool_or(has_replay), false) AS has_replay, coalesce(bool_or(NOT is_active), false) AS has_ended
    FROM mine GROUP BY session_id"""
_EDGES = """time BETWEEN $since AND $until
    AND rowid IN (SELECT place FROM mine WHERE n IN (SELECT unnest([first_view, last_view]) FROM told))"""
_EDGE_ROWS = "CREATE OR REPLACE TEMP TABLE edges AS SELECT rowid AS place, rest::JSON AS rest FROM events WHERE "
_VIEWS = f"""
    CREATE OR REPLACE TEMP TABLE views AS
    SELECT place, {_each("json_extract(rest, '$.{0}') AS {0}", ("view", *_OBJECTS))},
        {_each("json_extract(rest, '$.session.{0}') AS {0}", _SENDER)} FROM edges"""
_COMPUTE = f"""
    CREATE OR REPLACE TEMP TABLE computed AS
    SELECT told.* EXCLUDE (first_view, last_view), {_each("final.{0} AS {0}", _OF_USER)},
        {_view("initial")} AS initial_view, {_view("final")} AS last_view,
        {_each("final_said.{0} AS {0}", (*_OBJECTS, *_SENDER))},
        least(epoch_ms(until) - epoch_ms(since), {LENGTH_MS_MAX}) * 1000000 AS time_spent,
        NOT has_ended AND until > $idle_since AND since > $begun_since AS is_active
    FROM told
    LEFT JOIN mine AS initial ON initial.n = told.first_view
    LEFT JOIN mine AS final ON final.n = told.last_view
    LEFT JOIN views AS initial_said ON initial_said.place = initial.place
    LEFT JOIN views AS final_said ON final_said.place = final.place"""

_COLUMNS = ", ".join((*_OF_USER, *_LATEST, "session_id"))
_REST = _json({"session": f"json_object({_pairs(_SESSION)})"} | {name: name for name in _OBJECTS})
_OPENED = f"""SELECT {_REST} AS said FROM computed
    WHERE contains(initial_view::VARCHAR, '[') OR contains(last_view::VARCHAR, '[')"""
"""Arrays inside of objects stand where the event had them, which is known already."""
_INSERT = f"""
    INSERT INTO events BY NAME
    SELECT 'session:' || session_id AS event_id, {DIGEST} AS digest, since AS time,
        'session' AS type, {_COLUMNS},
        {_REST}::VARIANT AS rest,
        coalesce(user_id, (SELECT identities.user_id FROM identities
            WHERE identities.anonymous_id = computed.anonymous_id)) AS resolved_user_id
    FROM computed"""


def note_stale(connection: duckdb.DuckDBPyConnection) -> None:
    """Remember the sessions whose events were staged or replaced."""
    connection.execute("""
        INSERT INTO stale_sessions SELECT session_id, min(time), max(time) FROM (
            SELECT session_id, time FROM staging WHERE type <> 'server'
            UNION ALL SELECT session_id, time FROM replaced)
        WHERE session_id IS NOT NULL GROUP BY session_id""")


def mark_all(connection: duckdb.DuckDBPyConnection) -> None:
    """Have every session computed anew."""
    connection.execute("""
        INSERT INTO stale_sessions SELECT session_id, min(time), max(time) FROM events
        WHERE session_id IS NOT NULL GROUP BY session_id""")


def mark_ended(connection: duckdb.DuckDBPyConnection, now_ms: int) -> None:
    """Have the sessions computed anew that have been quiet, or have gone on, for too long to be active."""
    connection.execute(
        """INSERT INTO stale_sessions SELECT session_id, since, until FROM session_spans
            WHERE is_active AND (until <= $idle_since OR since <= $begun_since)""",
        _bounds(now_ms),
    )


def _bounds(now_ms: int) -> dict[str, datetime]:
    """A session is active when it was heard of, and began, after these."""
    return {"idle_since": instant(now_ms - IDLE_MS), "begun_since": instant(now_ms - LENGTH_MS_MAX)}


def settle_portion(connection: duckdb.DuckDBPyConnection, now_ms: int) -> int:
    """Bring the rows of some stale sessions up to their events. Gives how many they were."""
    connection.execute(
        f"""
        CREATE OR REPLACE TEMP TABLE due AS
        SELECT session_id, least(min(stale.since), any_value(span.since)) AS since,
            greatest(max(stale.until), any_value(span.until)) AS until
        FROM stale_sessions AS stale LEFT JOIN session_spans AS span USING (session_id)
        WHERE session_id IN (SELECT session_id FROM stale_sessions WHERE since <= (
            SELECT max(since) FROM (SELECT since FROM stale_sessions ORDER BY since LIMIT {PORTION})))
        GROUP BY session_id ORDER BY min(stale.since) LIMIT {PORTION}
        """
    )
    found = connection.execute("SELECT count(*), min(since), max(until) FROM due").fetchone()
    if not found or not found[0]:
        return 0
    bounds = {"since": found[1], "until": found[2]}
    for select, condition in ((_MINE, _EVENTS), (_EDGE_ROWS, _EDGES)):
        found_at = at_places(connection, "events", condition, bounds)
        connection.execute(select + found_at, bounds if "$since" in found_at else None)
        if select == _MINE:
            connection.execute(_TOLD)
    connection.execute(_VIEWS)
    connection.execute(_COMPUTE, _bounds(now_ms))
    for statement in (
        "DELETE FROM stale_sessions WHERE session_id IN (SELECT session_id FROM due)",
        "DELETE FROM session_spans WHERE session_id IN (SELECT session_id FROM due)",
        "INSERT INTO session_spans BY NAME SELECT session_id, since, until, is_active FROM computed",
    ):
        connection.execute(statement)
    connection.execute(
        """DELETE FROM events WHERE type = 'session' AND time BETWEEN $since AND $until
            AND session_id IN (SELECT session_id FROM due)""",
        bounds,
    )
    learn_arrays(connection, _OPENED)
    connection.execute(_INSERT)
    return int(found[0])
