"""A product without doors for the tests of syncing: real engine, real records, sources made of Python rows."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from uuid import UUID

from roster.base.errors import Error
from roster.base.values import digest
from roster.engine.connection import Duck, DuckLimits
from roster.engine.duckdb import DuckEngine
from roster.engine.enriched import Enriched
from roster.engine.events import DuckEvents
from roster.engine.tables import DuckTables
from roster.model.changes import create, update
from roster.model.connection import CreateRequest, Field, UpdateRequest
from roster.model.held import held_name, make_held, sources_of
from roster.model.mapping import Mapping
from roster.model.reference_table import Table
from roster.model.schema import Entity, Type
from roster.model.source import Origin
from roster.model.sync import Fetched, Phase, Run, State, Step, Sync, Trigger
from roster.ports import Budget, Cancel, Reading, Wanted
from roster.query.expr import Column
from roster.query.plan import Project
from roster.query.relations import profiles
from roster.store.database import Database
from roster.store.vault import AesVault
from roster.sync.run import run_sync
from roster.sync.work import Ports, Rules

BUDGET = Budget(60.0, 1_000_000)
RULES = Rules(shrink_max=0.5, misfits_max=0.5, every_s=3600, cloud_every_s=300, stale_after=3.0, budget=BUDGET)
FIELDS = (Field("tier", "tier", Type.STRING), Field("score", "score", Type.NUMBER))
Rows = list[dict[str, Any]]


class Counting:
    """A clock that goes on a second whenever it is read, and numbers for ids."""

    def __init__(self) -> None:
        self.reads = 0

    def now_ms(self) -> int:
        self.reads += 1
        return 1_700_000_000_000 + self.reads * 1000

    def new_id(self) -> str:
        self.reads += 1
        return str(UUID(int=self.reads))

    def new_secret(self) -> str:
        return f"{self.reads:064x}"


@dataclass
class RowSource:
    """The port Sources over rows of Python values, written as NDJSON; `failure` is raised instead, `during` runs first.

    With `cursor` it gives changes only, as real sources do: rows whose cursor is not below the last one.
    """

    rows: Rows = field(default_factory=list)
    cursor: str = ""
    failure: Error | None = None
    during: Callable[[], None] = lambda: None
    reads: int = 0

    def check(self, origin: Origin) -> None:
        """Every source is allowed."""

    def fetch(self, wanted: Wanted, report: Callable[[Reading], None], cancel: Cancel) -> Fetched | None:
        """The rows as one file, None when they are what was read last."""
        self.during()
        if self.failure is not None:
            raise self.failure
        fingerprint = digest(self.rows)
        if fingerprint == wanted.fingerprint:
            return None
        self.reads += 1
        since = wanted.cursor if self.cursor and not wanted.full else ""
        rows = [r for r in self.rows if not since or str(r[self.cursor]) >= since]
        report(Reading(rows=len(rows), rows_total=len(rows)))
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (wanted.folder / "rows.ndjson").write_text(lines)
        highest = max((str(r[self.cursor]) for r in self.rows), default="") if self.cursor else ""
        return Fetched(
            ("rows.ndjson",), "ndjson", fingerprint, highest, bool(since), len(rows), len(lines), len(self.rows)
        )


class World:
    """One connection `crm` of users over a source of rows, told apart by `key`, or else by their e-mail."""

    def __init__(self, folder: Path, fields: Sequence[Field] = FIELDS, rules: Rules = RULES, key: str = "") -> None:
        self.folder = folder
        self.clock = Counting()
        self.duck = Duck(folder / "engine.duckdb", DuckLimits("1GB", 2, "1GB"))
        self.enriched = Enriched(self.duck)
        self.events = DuckEvents(self.duck, self.enriched.renew_profiles)
        self.tables = DuckTables(self.duck, self.enriched.change_source)
        self.engine = DuckEngine(self.duck, self.enriched)
        self.store = Database.open(folder / "roster.sqlite", organisation_id_if_new="o", now_ms=0)
        self.source = RowSource()
        vault = AesVault(b"s" * 32, lambda: b"n" * 12)
        self.ports = Ports(
            self.store, self.tables, self.engine, self.source, vault, self.clock, folder / "syncs", rules
        )
        self.segment = 0
        metadata = (("path", "/data/crm.db"), ("table", "people"), *((("key", key),) if key else ()))
        wanted = CreateRequest("crm", "sqlite", "email", "email", tuple(fields), metadata)
        self.change(lambda m: create(m, wanted, who="t", now_ms=0, source_columns=None))
        connection = self.mapping().connections[0]
        table = make_held(Entity.USERS, connection, self.clock.new_id(), 0)
        self.store.add_table(table, who="t")
        self.table_id = table.id
        self.store.write_sync(Sync(table.id, State.SYNCING, 0))

    def close(self) -> None:
        self.duck.close()
        self.store.close()

    def change(self, change: Callable[[Mapping], Mapping]) -> None:
        self.store.change_mapping(Entity.USERS, change, who="t", why="", request={}, now_ms=0)

    def update(self, wanted: UpdateRequest) -> None:
        columns = self.table().columns
        self.change(lambda m: update(m, wanted, who="t", now_ms=1, source_columns=columns))

    def mapping(self) -> Mapping:
        return self.store.read_mapping(Entity.USERS)

    def table(self) -> Table:
        found = self.store.find_table(self.table_id)
        assert found is not None
        assert found.name == held_name(Entity.USERS, self.mapping().connections[0])
        return found

    def sync_record(self) -> Sync:
        found = self.store.read_sync(self.table_id)
        assert found is not None
        return found

    def send(self, users: dict[str, str | None]) -> None:
        """One event of each user with its e-mail."""
        self.segment += 1
        path = self.folder / f"{self.segment}.ndjson"
        lines = [
            {
                "k": f"{self.segment}-{n}",
                "time": 1_700_000_000_000 + self.segment * 1000 + n,
                "type": "view",
                "user_id": id,
            }
            | ({"user_email": email} if email is not None else {})
            for n, (id, email) in enumerate(users.items())
        ]
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
        self.events.apply_segment(self.segment, path)

    def sync(
        self, rows: Rows | None = None, *, forced: bool = False, accepted: bool = False, cancel: Cancel | None = None
    ) -> Run:
        """One run from its beginning to its end, over these rows from now on."""
        if rows is not None:
            self.source.rows = rows
        run = self.begin(forced=forced, accepted=accepted)
        return run_sync(self.ports, run, cancel or Cancel())

    def begin(self, *, forced: bool = False, accepted: bool = False) -> Run:
        clock = self.clock
        run = Run(clock.new_id(), self.table_id, Trigger.MANUAL, Phase.QUEUED, Step.READ, 1, clock.now_ms())
        run = replace(run, forced=forced, accepted=accepted)
        self.store.write_run(run)
        return run

    def served(self) -> dict[str, tuple[Any, ...]]:
        """What readers see: for each user the values of all fields, in the mapping's order."""
        mapping = self.mapping()
        relation = profiles(mapping, sources_of(mapping, self.store.list_tables()))
        fields = [f for c in mapping.connections for f in c.fields]
        columns = (("user_id", Column("user_id", Type.STRING)), *((f.id, Column(f.id, f.type)) for f in fields))
        answers = self.engine.run([Project(relation, columns)], BUDGET)
        return {row[0]: row[1:] for row in answers[0].rows}
