"""Owns what an operation is given and gives back; knows no door and no implementation of a port."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping as Map, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from roster.base.errors import Code, Error, did_you_mean
from roster.intake.state import Intake
from roster.model.access import Caller
from roster.model.connection import Connection
from roster.model.mapping import Mapping
from roster.model.reference_table import Table
from roster.model.schema import Entity
from roster.model.sync import Run, Trigger
from roster.model.use import Use
from roster.ports import (
    Answer,
    Budget,
    Cancel,
    Clock,
    Engine,
    Events,
    Lists,
    Loaded,
    Notices,
    Sources,
    Store,
    Tables,
    Vault,
)
from roster.query.plan import Plan


@dataclass(frozen=True, slots=True)
class Limits:
    """Every limit an operation obeys; each is a setting of the same name."""

    query_timeout_s: float
    query_rows_max: int
    query_reads_max: int
    query_timeout_s_of: Map[str, float]
    query_rows_max_of: Map[str, int]
    query_reads_max_of: Map[str, int]
    profiles_limit_default: int
    profiles_limit_max: int
    search_terms_max: int
    alias_days: float
    fields_max: int
    tables_max: int
    segments_max: int
    segment_snapshots_days: float
    queries_max: int
    upload_ttl_s: float
    preview_timeout_s: float
    rows_body_bytes_max: int
    event_body_bytes_max: int

    def budget(self, key_id: str = "") -> Budget:
        """What a query may use; some API keys have a budget of their own."""
        return Budget(
            timeout_s=self.query_timeout_s_of.get(key_id, self.query_timeout_s),
            rows_max=self.query_rows_max_of.get(key_id, self.query_rows_max),
            reads_max=self.query_reads_max_of.get(key_id, self.query_reads_max),
        )

    def alias_ms(self) -> int:
        return int(self.alias_days * 86_400_000)


class Desk(Protocol):
    """Where syncs are asked for; runs go on in the background."""

    def begin(self, table_id: str, trigger: Trigger, *, forced: bool = False, accepted: bool = False) -> Run:
        """Have a table synced soon; a run that has not ended yet is that run."""
        ...

    def cancel(self, table_id: str, who: str) -> Run | None:
        """Ask for the end of a table's run; None when nothing runs."""
        ...

    def declare(self) -> None:
        """Called after connections or cloud tables changed: makes, removes and schedules their tables."""
        ...

    def on_trial(
        self, mapping: Mapping, connection: Connection, cancel: Cancel
    ) -> AbstractContextManager[tuple[Table, Loaded]]:
        """The table that a connection's first sync would give, and its rows, for as long as the block lasts.

        Errors: what reading the source ends with.
        """
        ...

    def forget(self, table_id: str) -> None:
        """End what runs or waits for a table that goes."""
        ...

    def every_s(self, table: Table) -> int | None:
        """Seconds between two syncs of a table; None when it syncs on request only."""
        ...


class Uses(Protocol):
    """Remembers which custom attributes callers name."""

    def note(self, entity: Entity, named: Map[str, str], operation: str, caller: str, at_ms: int) -> None:
        """Count one query that named attributes (as spelled → id); never waits for the records."""
        ...

    def list_uses(self, entity: Entity) -> list[Use]:
        """All that is remembered of an entity's attributes, the latest first."""
        ...


class Log(Protocol):
    """The synced event log: returns only when the lines would survive a crash."""

    def append(self, lines: list[bytes]) -> None: ...


class Traces(Protocol):
    """Lines beside the engine that may be about one person: acknowledged and not stored yet, or never to be."""

    def settle(self) -> None:
        """Have the engine store every event that was acknowledged before this call."""
        ...

    def drop(self, ids: Sequence[str], emails: Sequence[str], *, dry_run: bool) -> dict[str, int]:
        """Drop the lines of a person that could not be stored; how many by place."""
        ...

    def read(self, ids: Sequence[str], emails: Sequence[str]) -> dict[str, list[bytes]]:
        """The lines that `drop` would drop, by place."""
        ...


@dataclass(frozen=True, slots=True)
class Records:
    """Our own records, what makes keys and seals secrets: all that commands beside a running server need."""

    store: Store
    clock: Clock
    pepper: bytes = field(repr=False)
    vault: Vault


@dataclass(frozen=True, slots=True)
class Context:
    """The ports and limits an operation works with."""

    engine: Engine
    events: Events
    tables: Tables
    lists: Lists
    store: Store
    log: Log
    clock: Clock
    limits: Limits
    pepper: bytes = field(repr=False)
    vault: Vault
    uploads: Path
    sources: Sources
    syncs: Desk
    notices: Notices | None
    """The webhook; None where none is set."""
    uses: Uses
    traces: Traces
    intake: Intake
    removed: Callable[[], Map[str, int]]
    """What was removed since the start because it was too old, by kind."""
    sources_changed: Callable[[], None]
    """Called after a mapping or a table changed, so that what is built from them is built again."""

    @property
    def records(self) -> Records:
        return Records(self.store, self.clock, self.pepper, self.vault)


@dataclass(frozen=True, slots=True)
class Request:
    """One call: who, with what. `body` is raw JSON; the operation decodes it into its own model."""

    caller: Caller
    body: bytes = b""
    path: Map[str, str] = field(default_factory=dict)
    query: Map[str, list[str]] = field(default_factory=dict)
    headers: Map[str, str] = field(default_factory=dict)
    cancel: Cancel | None = None

    def flag(self, name: str) -> bool:
        """A boolean query parameter, false when absent. Error: INVALID, also for one without a value."""
        value = self.query.get(name, ["false"])[-1].lower()
        if value not in ("true", "false", "1", "0"):
            raise Error(Code.INVALID, f"{name} is not a boolean", at=f"parameter {name}", hint="allowed: true, false")
        return value in ("true", "1")

    def only(self, *names: str) -> None:
        """Error: INVALID for a query parameter of another name: a mistyped `dry_run` must not be a change."""
        for name in self.query:
            if name not in names:
                hint = did_you_mean(name, names) or f"known here: {', '.join(names)}"
                raise Error(Code.INVALID, f"unknown parameter {name!r}", at=f"parameter {name}", hint=hint)

    def number(self, name: str, default: int, low: int, high: int) -> int:
        """An integer query parameter within its bounds. Error: INVALID naming the parameter."""
        text = self.query.get(name, [str(default)])[-1]
        value = int(text) if text.removeprefix("-").isdecimal() and text.isascii() and len(text) < 19 else None
        if value is None or not low <= value <= high:
            message = f"{name} is {text!r}"
            raise Error(Code.INVALID, message, at=f"parameter {name}", hint=f"an integer from {low} to {high}")
        return value

    def version(self, name: str) -> int | None:
        """A version as a query parameter, None when absent. Error: INVALID naming the parameter."""
        return self.number(name, 0, 0, 2**53) if name in self.query else None


@dataclass(frozen=True, slots=True)
class Reply:
    """What a call gives: a JSON body or none, and headers beside it; `status` where it is not the usual one.

    `stream`: the bytes of a file in place of a body; the headers name its type.
    """

    body: Any = None
    headers: Map[str, str] = field(default_factory=dict)
    status: int | None = None
    stream: Iterator[bytes] | None = None


def run_plans(context: Context, request: Request, plans: Sequence[Plan]) -> list[Answer]:
    """Answers in the order of the plans, all of one snapshot, within the budget and for as long as the caller waits."""
    return context.engine.run(plans, context.limits.budget(request.caller.api_key_id), request.cancel)


ENTITIES = {"users": Entity.USERS, "user": Entity.USERS, "accounts": Entity.ACCOUNTS, "account": Entity.ACCOUNTS}


def entity_of(request: Request) -> Entity:
    """The entity a path names. Error: INVALID for anything but users and accounts."""
    name = request.path["entity"]
    if name not in ENTITIES:
        raise Error(Code.INVALID, f"unknown entity {name!r}", at="parameter entity", hint="allowed: users, accounts")
    return ENTITIES[name]
