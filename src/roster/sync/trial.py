"""Owns reading a source on trial, for a preview: its rows are staged under an id of their own, and dropped after."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from roster.model.connection import Connection
from roster.model.held import make_held
from roster.model.mapping import Mapping
from roster.model.reference_table import Table
from roster.model.sync import Phase, Run, State, Step, Sync, Trigger
from roster.ports import Cancel, Loaded, Wanted
from roster.sync.run import credentials_of
from roster.sync.staging import stage
from roster.sync.work import Ports, Work, present


@contextmanager
def on_trial(ports: Ports, mapping: Mapping, connection: Connection, cancel: Cancel) -> Iterator[tuple[Table, Loaded]]:
    """The table a first sync of a connection would give, and what became of the rows read. Errors: of the source."""
    id, now_ms = ports.clock.new_id(), ports.clock.now_ms()
    table = make_held(mapping.entity, connection, id, now_ms)
    assert table.origin is not None
    folder = ports.folder / id
    try:
        folder.mkdir(parents=True)
        wanted = Wanted(table.origin, credentials_of(ports, table), folder, "", "", True)
        fetched = ports.sources.fetch(wanted, lambda _: None, cancel)
        run = Run(id, id, Trigger.MAPPING, Phase.RUNNING, Step.STAGE, 1, queued_ms=now_ms, fetched=fetched)
        work = Work(run, table, Sync(id, State.WAITING, now_ms), (mapping,), (table,), cancel)
        staged = stage(ports, work)
        yield present(staged.next), present(staged.staged).loaded
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        ports.tables.drop_table(id)
