"""Owns what a run of a sync works with: the ports, the rules, and what its steps have found so far."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from roster.model.held import readers_of
from roster.model.mapping import Mapping
from roster.model.reference_table import Table
from roster.model.sync import Drift, Fetched, Run, Sync
from roster.ports import Budget, Cancel, Clock, Engine, Sources, Staged, Store, Tables, Vault
from roster.sync.columns import Columns, Readers

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Rules:
    """What a sync may do to what is held, and when a source is stale; each is a setting of `settings.py`."""

    shrink_max: float
    misfits_max: float
    every_s: int
    cloud_every_s: int
    stale_after: float
    budget: Budget


@dataclass(frozen=True, slots=True)
class Ports:
    """What a run works on."""

    store: Store
    tables: Tables
    engine: Engine
    sources: Sources
    vault: Vault
    clock: Clock
    folder: Path
    rules: Rules


@dataclass(frozen=True, slots=True)
class Work:
    """A run under way: what it began with, and what its steps have found out so far."""

    run: Run
    table: Table
    sync: Sync
    mappings: tuple[Mapping, ...]
    tables: tuple[Table, ...]
    cancel: Cancel = field(default_factory=Cancel)
    columns: Columns | None = None
    next: Table | None = None
    staged: Staged | None = None
    drifts: tuple[Drift, ...] = ()

    def readers(self) -> Readers:
        return readers_of(self.table, self.mappings, self.tables)

    def fetched(self) -> Fetched:
        """What reading gave; only after it."""
        return present(self.run.fetched)


def present(value: T | None) -> T:
    """A value that an earlier step has made."""
    assert value is not None
    return value
