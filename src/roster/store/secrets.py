"""Owns the records of named secrets in SQL, always sealed; never sees what is in one."""

from __future__ import annotations

from dataclasses import replace

from sqlalchemy import delete, select

from roster.model.sync import Secret
from roster.store.connections import Connections
from roster.store.records import record_of_secret, secret_of
from roster.store.statements import put_row, write_audit
from roster.store.tables import secrets


class SecretRecords:
    """The part of the records that holds secrets; every method is one transaction. The audit log has only names."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections

    def put_secret(self, secret: Secret) -> None:
        """Keep a secret, new or in place of the one of that name, which leaves its time of creation."""
        with self._connections.write() as connection:
            created_ms = connection.execute(select(secrets.c.created_ms).where(secrets.c.name == secret.name)).scalar()
            if created_ms is not None:
                secret = replace(secret, created_ms=created_ms)
            put_row(connection, secrets, "name", record_of_secret(secret))
            action = "secret.added" if created_ms is None else "secret.changed"
            detail = {"members": list(secret.members)}
            write_audit(connection, secret.updated_ms, secret.updated_by, action, secret.name, detail)

    def find_secret(self, name: str) -> Secret | None:
        with self._connections.read() as connection:
            row = connection.execute(select(secrets).where(secrets.c.name == name)).mappings().first()
        return None if row is None else secret_of(row)

    def list_secrets(self) -> list[Secret]:
        """By name."""
        with self._connections.read() as connection:
            rows = connection.execute(select(secrets)).mappings().all()
        return sorted((secret_of(row) for row in rows), key=lambda s: s.name)  # databases collate each in their way

    def remove_secret(self, name: str, *, who: str, now_ms: int) -> bool:
        """Whether there was such a secret."""
        with self._connections.write() as connection:
            row = connection.execute(select(secrets.c.members).where(secrets.c.name == name)).first()
            if row is None:
                return False
            connection.execute(delete(secrets).where(secrets.c.name == name))
            write_audit(connection, now_ms, who, "secret.removed", name, {"members": row.members})
            return True
