"""Owns the ports: what keeps our own records, seals secrets and tells time, as protocols. Holds no implementation."""

from __future__ import annotations

from collections.abc import Callable, Mapping as Map, Sequence
from typing import Any, Protocol

from roster.model.access import Key
from roster.model.erasure import Erasure
from roster.model.mapping import Mapping, Version
from roster.model.reference_table import Table, Upload
from roster.model.saved_query import SavedQuery
from roster.model.schema import Entity
from roster.model.segment import Segment
from roster.model.sync import Run, Secret, Sync
from roster.model.use import Use


class Clock(Protocol):
    """Where time, ids and secrets come from, so that tests can give them."""

    def now_ms(self) -> int: ...
    def new_id(self) -> str:
        """A fresh UUID in its usual text form."""
        ...

    def new_secret(self) -> str:
        """32 fresh random bytes in hex."""
        ...


class Store(Protocol):
    """Our own records. Every call is one transaction; writers take turns."""

    def organisation_id(self) -> str: ...

    def add_key(self, key: Key) -> None: ...
    def find_key(self, hash: str) -> Key | None: ...
    def list_keys(self) -> list[Key]: ...
    def revoke_key(self, id: str, *, who: str, now_ms: int) -> bool: ...

    def read_mapping(self, entity: Entity, version: int | None = None) -> Mapping:
        """The newest mapping, or an older one. Error: NOT_FOUND for a version that never was."""
        ...

    def change_mapping(
        self, entity: Entity, change: Callable[[Mapping], Mapping], *, who: str, why: str, request: Any, now_ms: int
    ) -> Mapping:
        """Apply a pure change to the newest mapping and keep the result as the next version.

        A change that gives an equal mapping makes no version. An Error inside leaves everything as it was.
        """
        ...

    def change_mappings(
        self,
        change: Callable[[Map[Entity, Mapping]], Map[Entity, Mapping]],
        *,
        who: str,
        why: str,
        request: Any,
        now_ms: int,
    ) -> dict[Entity, Mapping]:
        """As `change_mapping`, for the newest mappings of all entities: every one of them is kept, or none."""
        ...

    def list_versions(
        self, entity: Entity, *, before: int | None = None, after: int = 0, limit: int | None = None
    ) -> list[Version]:
        """Newest first: at most `limit` of those before one version and after another, neither included."""
        ...

    def add_upload(self, upload: Upload) -> None: ...
    def find_upload(self, id: str) -> Upload | None: ...
    def drop_uploads(self, before_ms: int) -> None: ...

    def add_table(self, table: Table, *, who: str) -> None:
        """Error: CONFLICT when the name is taken."""
        ...

    def find_table(self, id: str) -> Table | None: ...
    def list_tables(self) -> list[Table]: ...
    def update_table(self, table: Table, *, who: str) -> None: ...
    def remove_table(self, id: str, *, who: str, now_ms: int) -> bool: ...

    def swap_table(self, table: Table, sync: Sync, run: Run) -> bool:
        """Name a table's new generation and keep its sync and run, in one step.

        Fields that others change meanwhile (description, tags, sync_enabled) stay as they are kept. False, and
        nothing changed, when the table is gone, has another origin by now, or is not at the generation before.
        """
        ...

    def read_sync(self, table_id: str) -> Sync | None: ...
    def list_syncs(self) -> list[Sync]: ...
    def write_sync(self, sync: Sync) -> None:
        """Keep where the syncing of a table stands; for a table that is gone it does nothing."""
        ...

    def change_sync(self, table_id: str, change: Callable[[Sync], Sync], ended: Run | None = None) -> None:
        """Change where the syncing of a table stands, from what is kept at this moment; none is kept: nothing.

        A run that has ended is kept in the same step.
        """
        ...

    def write_run(self, run: Run) -> bool:
        """Keep a run, new or known; gives whether somebody asked to cancel it, which nothing takes back.

        A run of a table that is gone is not kept, and counts as one to cancel.
        """
        ...

    def find_run(self, id: str) -> Run | None: ...
    def list_runs(self, table_id: str, limit: int) -> list[Run]:
        """Newest first."""
        ...

    def unfinished_runs(self) -> list[Run]:
        """Runs that have not ended, oldest first."""
        ...

    def ask_cancel(self, run_id: str, *, who: str = "", now_ms: int = 0) -> bool:
        """Ask for the end of a run, from any process; False when there is no such run or it has ended.

        The audit log has it when `who` is told.
        """
        ...

    def forget_runs(self, table_id: str, keep: int) -> None:
        """Remove all but the newest ended runs of a table."""
        ...

    def put_secret(self, secret: Secret) -> None:
        """Keep a secret, new or in place of the one of that name, which leaves its time of creation."""
        ...

    def find_secret(self, name: str) -> Secret | None: ...
    def list_secrets(self) -> list[Secret]:
        """By name."""
        ...

    def remove_secret(self, name: str, *, who: str, now_ms: int) -> bool: ...

    def add_segment(self, segment: Segment) -> Segment:
        """The segment as kept: one of that name that says the same stays as it is. Error: CONFLICT for another."""
        ...

    def find_segment(self, id: str) -> Segment | None: ...
    def list_segments(self) -> list[Segment]:
        """By name."""
        ...

    def change_segment(self, id: str, change: Callable[[Segment], Segment]) -> Segment:
        """Apply a pure change to a segment as it is kept. Errors: NOT_FOUND, CONFLICT for a name that is taken."""
        ...

    def remove_segment(self, id: str, *, who: str, now_ms: int) -> Segment | None:
        """The segment that was there."""
        ...

    def put_query(self, query: SavedQuery) -> SavedQuery:
        """Keep a query, new or in place of the one of that name, which leaves its time of creation."""
        ...

    def find_query(self, name: str) -> SavedQuery | None: ...
    def list_queries(self) -> list[SavedQuery]:
        """By name."""
        ...

    def remove_query(self, name: str, *, who: str, now_ms: int) -> bool: ...

    def add_uses(self, uses: Sequence[Use], forget_before_ms: int) -> None:
        """Add to what is kept of each place, and forget places that were last used before that time."""
        ...

    def list_uses(self, entity: Entity) -> list[Use]:
        """The latest first."""
        ...

    def add_erasure(self, erasure: Erasure) -> None:
        """Keep that an erase begins."""
        ...

    def finish_erasure(self, erasure: Erasure) -> None:
        """Keep what an erase that was begun has removed."""
        ...

    def list_erasures(self, *, subject: str | None = None, limit: int) -> list[Erasure]:
        """The newest first, of one subject when it is told."""
        ...


class Vault(Protocol):
    """Seals credentials under the server's secret. What was sealed for one name opens for no other."""

    def seal(self, name: str, members: Map[str, str]) -> str: ...

    def open(self, name: str, sealed: str) -> dict[str, str]:
        """Error: INTERNAL when the text was sealed for another name, with another key, or changed."""
        ...
