"""The state of a source, for every combination of what is known of it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from roster.model.sync import Drift, DriftKind, Failure, State, Sync
from roster.sync.state import settle, state_of

DRIFT = Drift("tier", DriftKind.DROPPED, 5, "the source no longer has column 'tier'", ("users/crm/tier",))
GONE = Failure("not_found", "there is no table crm")
CUT = Failure("busy", "the connection was cut")
HOUR_MS = 3_600_000


def sync(synced_ms: int | None = None, drifts: tuple[Drift, ...] = ()) -> Sync:
    return Sync("t", State.SYNCING, 0, synced_ms=synced_ms, drifts=drifts)


@pytest.mark.parametrize(
    ("known", "failure", "now_ms", "state"),
    [
        (sync(), None, 0, State.SYNCING),
        (sync(), GONE, 0, State.WAITING),
        (sync(), CUT, 0, State.FAILING),
        (sync(0), None, 0, State.OK),
        (sync(0), GONE, 0, State.FAILING),
        (sync(0), CUT, 4 * HOUR_MS, State.FAILING),
        (sync(0), None, 3 * HOUR_MS, State.OK),
        (sync(0), None, 3 * HOUR_MS + 1, State.STALE),
        (sync(0, (DRIFT,)), None, 0, State.DRIFTED),
        (sync(0, (DRIFT,)), CUT, 0, State.FAILING),
        (sync(0, (DRIFT,)), None, 4 * HOUR_MS, State.STALE),
    ],
)
def test_the_first_state_that_holds_counts(known: Sync, failure: Failure | None, now_ms: int, state: State) -> None:
    found, reason = state_of(known, 3600, 3.0, now_ms, failure)
    assert found is state
    assert bool(reason) is (state is not State.OK)


def test_a_source_that_syncs_on_request_never_becomes_stale() -> None:
    assert state_of(sync(0), None, 3.0, 10**15, None)[0] is State.OK


def test_since_moves_only_with_the_state() -> None:
    ok = settle(sync(0), 3600, 3.0, 100, None)
    assert (ok.state, ok.since_ms) == (State.OK, 100)
    assert settle(ok, 3600, 3.0, 200, None).since_ms == 100
    failing = settle(ok, 3600, 3.0, 300, CUT)
    assert (failing.state, failing.since_ms) == (State.FAILING, 300)
    assert "last good sync are served" in failing.reason
    back = settle(replace(failing, synced_ms=400), 3600, 3.0, 400, None)
    assert (back.state, back.since_ms, back.reason) == (State.OK, 400, "")
