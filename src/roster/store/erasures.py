"""Owns the receipts of erased users in SQL; never sees who was erased."""

from __future__ import annotations

from dataclasses import asdict

from sqlalchemy import desc, insert, select, update

from roster.model.erasure import Erasure
from roster.store.connections import Connections
from roster.store.statements import write_audit
from roster.store.tables import erasures


class ErasureRecords:
    """The part of the records that holds receipts; every method is one transaction."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections

    def add_erasure(self, erasure: Erasure) -> None:
        """Keep that an erase begins."""
        with self._connections.write() as connection:
            connection.execute(insert(erasures), asdict(erasure))

    def finish_erasure(self, erasure: Erasure) -> None:
        """Keep what an erase that was begun has removed."""
        with self._connections.write() as connection:
            changed = {"finished_ms": erasure.finished_ms, "counts": dict(erasure.counts)}
            connection.execute(update(erasures).where(erasures.c.id == erasure.id), changed)
            write_audit(
                connection, erasure.finished_ms or erasure.at_ms, erasure.who, "user.erased", erasure.id, changed
            )

    def list_erasures(self, *, subject: str | None = None, limit: int) -> list[Erasure]:
        """The newest first, of one subject when it is told."""
        latest = select(erasures).order_by(desc(erasures.c.at_ms), desc(erasures.c.id)).limit(limit)
        if subject is not None:
            latest = latest.where(erasures.c.subject == subject)
        with self._connections.read() as connection:
            rows = connection.execute(latest).mappings().all()
        return [Erasure(**row) for row in rows]
