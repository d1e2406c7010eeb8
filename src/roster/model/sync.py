"""Owns what a sync is: its runs, counters, drift and the state of a source, as values; runs nothing."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from roster.model.schema import Schema


class State(StrEnum):
    """How a source is. The set is closed.

    WAITING: what it reads is not there yet. SYNCING: its first sync runs. OK: fresh. STALE: the last good
    sync is older than it may be. FAILING: the last sync failed, the last good values are served. DRIFTED:
    some fields are paused because their column changed, the others are fresh.
    """

    WAITING = "waiting"
    SYNCING = "syncing"
    OK = "ok"
    STALE = "stale"
    FAILING = "failing"
    DRIFTED = "drifted"


class Phase(StrEnum):
    """Where a run is. UNCHANGED ended well without anything new to read."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    UNCHANGED = "unchanged"
    FAILED = "failed"
    CANCELLED = "cancelled"


ENDED = frozenset({Phase.DONE, Phase.UNCHANGED, Phase.FAILED, Phase.CANCELLED})


class Step(StrEnum):
    """The steps of a run, in their order. A run that was interrupted goes on at its step."""

    READ = "read"
    STAGE = "stage"
    CHECK = "check"
    SWAP = "swap"


class Trigger(StrEnum):
    """Why a run began."""

    CREATED = "created"
    SCHEDULE = "schedule"
    MANUAL = "manual"
    RETRY = "retry"
    MAPPING = "mapping"


@dataclass(frozen=True, slots=True)
class Coverage:
    """How the rows of one run meet the profiles of one connection; each line adds up exactly.

    rows = matched + unmatched + duplicate; cells = accepted + null + quarantined (rows that are no
    duplicates times fields); profiles = profiles_matched + profiles_unmatched.
    """

    entity: str
    connection_id: str
    rows: int
    matched: int
    unmatched: int
    duplicate: int
    cells: int
    accepted: int
    null: int
    quarantined: int
    profiles: int
    profiles_matched: int
    profiles_unmatched: int


@dataclass(frozen=True, slots=True)
class Fetched:
    """What a source gave: files in the run's folder (by name), and where the next read goes on.

    `fingerprint` is equal for equal content; empty when the source cannot tell. `changes_only`: the files
    hold changed rows only, the others stay as they are. `total`: rows the source holds in all, where it told.
    `origin`: digest of the origin that was read.
    """

    names: tuple[str, ...]
    format: str
    fingerprint: str
    cursor: str = ""
    changes_only: bool = False
    rows: int | None = None
    bytes: int = 0
    total: int | None = None
    origin: str = ""


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a run failed, as its error says."""

    code: str
    message: str
    hint: str = ""
    at: str = ""


@dataclass(frozen=True, slots=True)
class Run:
    """One sync of one table. `attempt` counts from 1; `rows` and `bytes` grow while it reads.

    After staging: `rows` read, of which `stored` were kept, `duplicate` had a later row of the same key,
    and `keyless` had no key; of the stored ones `misfits` have a cell that is no value of its declared
    column. `accepted` records that somebody allowed a loss of rows that is refused else.
    """

    id: str
    table_id: str
    trigger: Trigger
    phase: Phase
    step: Step
    attempt: int
    queued_ms: int
    started_ms: int | None = None
    ended_ms: int | None = None
    rows: int = 0
    rows_total: int | None = None
    bytes: int = 0
    bytes_total: int | None = None
    stored: int = 0
    duplicate: int = 0
    keyless: int = 0
    misfits: int = 0
    accepted: bool = False
    forced: bool = False
    cancel_asked: bool = False
    fetched: Fetched | None = None
    coverage: tuple[Coverage, ...] = ()
    failure: Failure | None = None


class DriftKind(StrEnum):
    """What happened to a column that fields use."""

    DROPPED = "dropped"
    RETYPED = "retyped"


@dataclass(frozen=True, slots=True)
class Drift:
    """A column whose fields are paused: they keep their last good values.

    `fields` are `entity/connection/field`. `renamed_to` is the new column whose values agree best with it,
    `overlap` the share of rows in which they do (0..1).
    """

    column: str
    kind: DriftKind
    since_ms: int
    reason: str
    fields: tuple[str, ...]
    renamed_to: str = ""
    overlap: float = 0.0


@dataclass(frozen=True, slots=True)
class Sync:
    """Where the syncing of one table stands. Times are epoch milliseconds, None for never.

    `total`: rows the source held in all at the last good sync, where it told.
    """

    table_id: str
    state: State
    since_ms: int
    reason: str = ""
    fingerprint: str = ""
    cursor: str = ""
    full_ms: int | None = None
    tried_ms: int | None = None
    synced_ms: int | None = None
    total: int | None = None
    failures: int = 0
    run_id: str = ""
    drifts: tuple[Drift, ...] = ()
    offered: Schema = ()
    coverage: tuple[Coverage, ...] = field(default=())
    told: str = ""
    """The state that the webhook was last told."""


@dataclass(frozen=True, slots=True)
class Secret:
    """Named credentials as we keep them: sealed, never in the clear."""

    name: str
    sealed: str = field(repr=False)
    members: tuple[str, ...]
    created_ms: int
    updated_ms: int
    updated_by: str
