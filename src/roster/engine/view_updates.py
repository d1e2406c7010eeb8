"""Owns merging partial versions of views (`view_update`) into whole ones, in whatever order they arrive.

Holds no transaction of its own. Of a view that has partial versions, the newest whole version and the partial
ones after it are kept until a newer whole version comes; the view is what they give in the order of versions.
Both are bounded. What is left out depends on the versions alone, not on the order in which they came.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import duckdb
import msgspec
import structlog

from roster.engine.places import at_ids
from roster.engine.staging import COLUMNS, SPLIT
from roster.intake.steps import EVENT_BYTES_MAX, KEYS_MAX, Draft, count_keys, lift_columns
from roster.model.schema import EVENT_COLUMNS

PARTS_MAX = 500
"""Partial versions kept of a view: SDKs send a whole one every 100, of which some may be late or lost."""
PARTS_BYTES_MAX = 4 * EVENT_BYTES_MAX
"""Bytes kept of the versions of a view: all of them are read for each new one."""
PORTION_BYTES = 32_000_000
"""Bytes of versions merged at once, over many views: they take some ten times that in memory."""
_REPLACED_WHOLE = frozenset({"context", "connectivity", "usr", "device", "privacy"})
_VIEW_REPLACED_WHOLE = frozenset({"custom_timings"})
_LIFTED = tuple((c.name, tuple(c.path.split("."))) for c in EVENT_COLUMNS if c.name not in ("event_id", "time", "type"))
_TIME = "time"

_TOUCHED = """
    CREATE OR REPLACE TEMP TABLE parted AS
    SELECT DISTINCT view_id FROM staging WHERE type = 'view_update' AND view_id IS NOT NULL
    UNION SELECT view_id FROM staging SEMI JOIN view_parts USING (view_id) WHERE type = 'view'"""
_NAMES = ", ".join(f'"{name}"' for name, _ in _LIFTED)
_LINE = f"json_object('time', epoch_ms(time), 'columns', to_json(struct_pack({_NAMES})), 'rest', rest::JSON)"
_LONE_IDS = "SELECT 'view:' || view_id AS event_id FROM parted ANTI JOIN view_parts USING (view_id)"
_KEEP_STORED = (
    f"INSERT INTO view_parts SELECT view_id, coalesce(v, 0), true, {_LINE} FROM events WHERE type = 'view' AND "
)
_KEEP_STAGED = f"""
    INSERT INTO view_parts SELECT view_id, coalesce(v, 0), type = 'view', {_LINE}
    FROM staging WHERE type IN ('view', 'view_update') AND view_id IN (SELECT view_id FROM parted)"""
_DROP_STAGED = """
    DELETE FROM staging WHERE type IN ('view', 'view_update') AND view_id IN (SELECT view_id FROM parted)"""
_DROP_OLD = """
    DELETE FROM view_parts WHERE rowid IN (
        SELECT part.rowid FROM view_parts AS part
        JOIN (SELECT view_id, max(v) AS v FROM view_parts WHERE whole GROUP BY view_id) AS newest USING (view_id)
        WHERE part.v < newest.v OR (part.v = newest.v AND NOT part.whole))"""
_DROP_TWICE = """
    DELETE FROM view_parts WHERE rowid IN (
        SELECT rowid FROM (
            SELECT rowid, row_number() OVER (PARTITION BY view_id, v, whole ORDER BY line) AS place FROM view_parts)
        WHERE place > 1)"""
_DROP_BEYOND = f"""
    DELETE FROM view_parts WHERE rowid IN (
        SELECT place FROM (
            SELECT rowid AS place, whole, count(*) FILTER (NOT whole) OVER earlier AS parts,
                sum(strlen(line::VARCHAR)) OVER earlier AS bytes
            FROM view_parts WHERE view_id IN (SELECT view_id FROM parted)
            WINDOW earlier AS (PARTITION BY view_id ORDER BY v ROWS UNBOUNDED PRECEDING))
        WHERE NOT whole AND (parts > {PARTS_MAX} OR bytes > {PARTS_BYTES_MAX}))"""
_PORTIONS = f"""
    CREATE OR REPLACE TEMP TABLE portions AS
    SELECT view_id, (sum(bytes) OVER (ORDER BY view_id ROWS UNBOUNDED PRECEDING) // {PORTION_BYTES})::BIGINT AS portion
    FROM (SELECT view_id, sum(strlen(line::VARCHAR)) AS bytes FROM view_parts
        WHERE view_id IN (SELECT view_id FROM parted) GROUP BY view_id)"""
_PORTION = """
    SELECT view_id, v, line, strlen(line::VARCHAR) FROM view_parts JOIN portions USING (view_id)
    WHERE portion = ? ORDER BY view_id, v"""
_DROP_WHOLE = """
    DELETE FROM view_parts WHERE view_id NOT IN (SELECT view_id FROM view_parts WHERE NOT whole)"""
_encode = msgspec.json.Encoder().encode
_log = structlog.get_logger("roster.engine")


@dataclass(slots=True)
class _View:
    """A view as far as its versions are merged; `bytes` and `keys` are its size, or more."""

    version: int
    wire: dict[str, Any]
    bytes: int
    keys: int
    left_out: int = 0

    def add(self, version: int, part: dict[str, Any], size: int) -> None:
        """Lay the next version on top, unless the view would be larger than an event may be."""
        merged = _merge(self.wire, part)
        bytes, keys = self.bytes + size, self.keys + count_keys(part)
        if bytes > EVENT_BYTES_MAX or keys > KEYS_MAX:  # of the parts together; what they share counts once
            bytes, keys = len(_encode(merged)), count_keys(merged)
        if bytes > EVENT_BYTES_MAX or keys > KEYS_MAX:
            self.left_out += 1
            return
        self.version, self.wire, self.bytes, self.keys = version, merged, bytes, keys


def merge_updates(connection: duckdb.DuckDBPyConnection) -> None:
    """Replace staged versions of views that have partial ones by what they come to."""
    connection.execute(_TOUCHED)
    if not connection.execute("SELECT 1 FROM parted LIMIT 1").fetchone():
        connection.execute("DELETE FROM staging WHERE type = 'view_update'")  # of no view
        return
    first = connection.execute("SELECT min(n) FROM staging").fetchone()
    connection.execute(_KEEP_STORED + at_ids(connection, _LONE_IDS))
    for statement in (_KEEP_STAGED, _DROP_STAGED, _DROP_OLD, _DROP_TWICE):
        connection.execute(statement)
    beyond = connection.execute(_DROP_BEYOND).fetchone()
    connection.execute(_PORTIONS)
    left_out = int(beyond[0]) if beyond else 0
    for (portion,) in connection.execute("SELECT DISTINCT portion FROM portions ORDER BY portion").fetchall():
        views = _views(connection.execute(_PORTION, [portion]).fetchall())
        left_out += sum(view.left_out for view in views.values())
        _stage(connection, views, first[0] if first else 0)
    connection.execute(_DROP_WHOLE)
    if left_out:
        _log.warning(
            "updates of views are left out, as too many came or their views would be too large",
            updates=left_out,
            updates_max=PARTS_MAX,
            bytes_max=EVENT_BYTES_MAX,
            keys_max=KEYS_MAX,
        )


def _views(rows: Iterable[tuple[str, int, str, int]]) -> dict[str, _View]:
    """Views merged from their versions, given in order, each with its bytes."""
    views: dict[str, _View] = {}
    for view_id, version, line, size in rows:
        part = _wire(json.loads(line))
        held = views.get(view_id)
        if held is None:
            views[view_id] = _View(version, part, size, count_keys(part))
        else:
            held.add(version, part, size)
    return views


def _wire(line: dict[str, Any]) -> dict[str, Any]:
    """The event as it was sent, columns back at their places; its time under `_TIME`."""
    wire: dict[str, Any] = line["rest"] or {}
    wire[_TIME] = line["time"]
    for name, path in _LIFTED:
        value = line["columns"][name]
        if value is not None:
            _put(wire, path, value)
    return wire


def _put(node: dict[str, Any], path: tuple[str, ...], value: Any) -> None:
    """Lay a value back where it was lifted from; whatever else stands in its way is no object and gives way."""
    for key in path[:-1]:
        inner = node.get(key)
        if not isinstance(inner, dict):
            inner = node[key] = {}
        node = inner
    node[path[-1]] = value


def _merge(whole: dict[str, Any], part: dict[str, Any]) -> dict[str, Any]:
    """A version with the next one on top: named objects are replaced, page states appended, others merged."""
    states = [*_states(whole), *_states(part)]
    merged = _lay(whole, part, _REPLACED_WHOLE)
    if states:
        merged["_dd"] = {**merged.get("_dd", {}), "page_states": states}
    return merged


def _states(wire: dict[str, Any]) -> Iterable[Any]:
    inner = wire.get("_dd")
    states = inner.get("page_states") if isinstance(inner, dict) else None
    return states if isinstance(states, list) else ()


def _lay(under: dict[str, Any], over: dict[str, Any], replaced: frozenset[str]) -> dict[str, Any]:
    merged = dict(under)
    for key, value in over.items():
        held = merged.get(key)
        if isinstance(value, dict) and isinstance(held, dict) and key not in replaced:
            merged[key] = _lay(held, value, _VIEW_REPLACED_WHOLE if key == "view" else frozenset())
        else:
            merged[key] = value
    return merged


def _stage(connection: duckdb.DuckDBPyConnection, views: dict[str, _View], first: int) -> None:
    """Stage merged views as versions that replace what is stored, whatever its version."""
    lines = []
    for view_id, view in views.items():
        at_ms = view.wire.pop(_TIME)
        draft = Draft(0, b"", view.wire)
        lift_columns(draft)
        lines.append({"k": f"view:{view_id}", "v": view.version, "at": at_ms, "rest": view.wire} | draft.columns)
    lifted = {name for name, _ in _LIFTED}
    fields = ", ".join(f"\"{name}\" := (line->>'{name}')::{type}" for name, type in COLUMNS if name in lifted)
    connection.execute(
        f"""
        INSERT INTO staging BY NAME {SPLIT} FROM (
        SELECT line->>'k' AS event_id, $first AS n, false AS fresh, true AS merged, (line->>'v')::BIGINT AS v,
            make_timestamp_ms((line->>'at')::BIGINT) AS time, 'view' AS type, line->'rest' AS said,
            unnest(struct_pack({fields}))
        FROM (SELECT unnest(from_json($lines::JSON, '["JSON"]')) AS line))
        """,
        {"first": first, "lines": json.dumps(lines)},
    )
