"""Owns in which state a source is, told from what is known of its syncing; pure, reads no clock."""

from __future__ import annotations

from dataclasses import replace

from roster.base.errors import Code, Error
from roster.model.connection import Connection, find_column, find_join_column, hint_columns
from roster.model.held import owner_of
from roster.model.mapping import Mapping
from roster.model.reference_table import Table
from roster.model.source import every_s
from roster.model.sync import Failure, State, Sync

WAITS = frozenset({Code.NOT_FOUND.value})
"""Failures that only say that something is not there yet."""


def interval_s(table: Table, default_s: int) -> int | None:
    """Seconds between two syncs of a table; None when it syncs on request only, or not at all."""
    if table.origin is None or not table.sync_enabled:
        return None
    return every_s(table.origin, default_s)


def state_of(
    sync: Sync, every: int | None, stale_after: float, now_ms: int, failure: Failure | None
) -> tuple[State, str]:
    """The state and its reason. `failure` is that of the last run when it failed; `every` in seconds."""
    if sync.synced_ms is None:
        if failure is None:
            return State.SYNCING, "the first sync has not ended"
        waits = failure.code in WAITS
        return (State.WAITING if waits else State.FAILING), _told(failure)
    if failure is not None:
        return State.FAILING, f"{_told(failure)}; the values of the last good sync are served"
    if every is not None and now_ms > sync.synced_ms + every * 1000 * stale_after:
        return State.STALE, f"the last good sync is older than {stale_after:g} intervals of {every} s"
    if sync.drifts:
        return State.DRIFTED, "; ".join(d.reason for d in sync.drifts)
    return State.OK, ""


def _told(failure: Failure) -> str:
    return f"{failure.message}; {failure.hint}" if failure.hint else failure.message


def settle(sync: Sync, every: int | None, stale_after: float, now_ms: int, failure: Failure | None) -> Sync:
    """The sync with its state as of now; `since_ms` moves only when the state does."""
    state, reason = state_of(sync, every, stale_after, now_ms, failure)
    since_ms = sync.since_ms if state is sync.state else now_ms
    return replace(sync, state=state, reason=reason, since_ms=since_ms)


def connection_state(
    mapping: Mapping, connection: Connection, table: Table | None, sync: Sync | None, waits_for: str
) -> tuple[State, str, int | None]:
    """State, reason and since when of one connection: its source's, or what it alone lacks."""
    if table is None:
        return State.WAITING, f"waits for {waits_for}", connection.created_ms
    if sync is not None and (sync.state is not State.DRIFTED or not table.columns):
        return sync.state, sync.reason, sync.since_ms
    try:
        find_join_column(mapping.entity, connection.join_attribute, table.columns)
    except Error as error:
        return State.DRIFTED, f"{error.message}; {error.hint}", max(connection.updated_ms, table.updated_ms)
    lacking = [f for f in connection.fields if find_column(f.source_name, table.columns) is None]
    if lacking:
        told = "; ".join(f"no column {f.source_name!r} for field {f.id!r}" for f in lacking)
        hint = hint_columns(lacking[0].source_name, table.columns)
        return State.DRIFTED, f"{table.name} has {told}; {hint}", max(connection.updated_ms, table.updated_ms)
    mine = f"{owner_of(mapping.entity, connection)}/"
    drifts = [d for d in sync.drifts if any(f.startswith(mine) for f in d.fields)] if sync else []
    if drifts:
        return State.DRIFTED, "; ".join(d.reason for d in drifts), min(d.since_ms for d in drifts)
    since_ms = sync.synced_ms if sync else max(connection.created_ms, table.created_ms)
    return State.OK, "", since_ms
