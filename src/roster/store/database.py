"""Owns our own records: implements the port Store in SQL; decides nothing about what a change means."""

from __future__ import annotations

from collections.abc import Callable, Mapping as Map
from pathlib import Path
from typing import Any

from sqlalchemy import BigInteger, Connection, bindparam, delete, desc, func, insert, literal, or_, select, update

from roster.base.errors import Code, Error
from roster.base.values import diff
from roster.model.access import Key
from roster.model.mapping import Mapping, Version, diff_versions, empty, from_json
from roster.model.reference_table import Table, Upload
from roster.model.schema import Entity
from roster.store.connections import Connections
from roster.store.erasures import ErasureRecords
from roster.store.migration import migrate
from roster.store.records import (
    AuditEntry,
    key_of,
    record_of_key,
    record_of_table,
    record_of_upload,
    record_of_version,
    table_of,
    upload_of,
    version_of,
)
from roster.store.secrets import SecretRecords
from roster.store.segments import QueryRecords, SegmentRecords
from roster.store.statements import find_table_row, write_audit
from roster.store.syncs import SyncRecords, remove_syncing, with_rows_of
from roster.store.tables import audit, keys, mapping_versions, organisation, reference_tables, uploads
from roster.store.uses import UseRecords

NEWEST_VERSION = select(func.max(mapping_versions.c.version)).where(mapping_versions.c.entity == bindparam("entity"))
ONE_MAPPING = select(mapping_versions.c.mapping, mapping_versions.c.restores).where(
    mapping_versions.c.entity == bindparam("entity"), mapping_versions.c.version == bindparam("version")
)
HISTORY = select(*(column for column in mapping_versions.c if column is not mapping_versions.c.mapping))
"""Records of history without the mappings, which are large and read one at a time."""
KEY_BY_HASH = select(keys).where(keys.c.hash == bindparam("hash"))


class Database(SyncRecords, SecretRecords, SegmentRecords, QueryRecords, UseRecords, ErasureRecords):
    """Our own records in one database; every method is one transaction and may be called from any thread."""

    def __init__(self, connections: Connections, organisation_id: str) -> None:
        """For `open`, which alone knows that the database is in shape."""
        super().__init__(connections)
        self._organisation_id = organisation_id
        self._newest: dict[Entity, Mapping] = {}
        """The mapping of each entity read last; a version never changes, so only its number need be checked."""

    @classmethod
    def open(cls, where: str | Path, *, organisation_id_if_new: str, now_ms: int) -> Database:
        """Open or make the records in an SQLite file or at a database URL, brought to the newest shape.

        Errors: INVALID for a bad URL, UNSUPPORTED for a foreign or newer database, BUSY.
        """
        connections = Connections(where)
        try:
            migrate(connections)
            return cls(connections, _find_or_make_organisation(connections, organisation_id_if_new, now_ms))
        except BaseException:
            connections.close()
            raise

    def close(self) -> None:
        self._connections.close()

    def organisation_id(self) -> str:
        return self._organisation_id

    # keys

    def add_key(self, key: Key) -> None:
        """Error: CONFLICT when the key or its id is known already, revoked ones included."""
        with self._connections.write() as connection:
            taken = select(keys.c.id).where(or_(keys.c.id == key.id, keys.c.hash == key.hash))
            if connection.execute(taken).first() is not None:
                raise Error(Code.CONFLICT, f"the key {key.name!r} exists already", hint="make a new one")
            connection.execute(insert(keys), record_of_key(key))
            detail = {"kind": key.kind.value, "name": key.name, "hint": key.hint}
            write_audit(connection, key.created_ms, key.owner_id, "key.created", key.id, detail)

    def find_key(self, hash: str) -> Key | None:
        """The key with that hash, revoked or not: the caller looks at `revoked_ms`."""
        with self._connections.read() as connection:
            row = connection.execute(KEY_BY_HASH, {"hash": hash}).mappings().first()
        return None if row is None else key_of(row)

    def list_keys(self) -> list[Key]:
        """Oldest first."""
        with self._connections.read() as connection:
            rows = connection.execute(select(keys).order_by(keys.c.created_ms, keys.c.id)).mappings().all()
        return [key_of(row) for row in rows]

    def revoke_key(self, id: str, *, who: str, now_ms: int) -> bool:
        """Whether there is such a key; one revoked before keeps its time."""
        with self._connections.write() as connection:
            row = connection.execute(select(keys).where(keys.c.id == id)).mappings().first()
            if row is None:
                return False
            if row["revoked_ms"] is None:
                connection.execute(update(keys).where(keys.c.id == id).values(revoked_ms=now_ms))
                detail = {"kind": row["kind"], "name": row["name"], "hint": row["hint"]}
                write_audit(connection, now_ms, who, "key.revoked", id, detail)
            return True

    # mappings

    def read_mapping(self, entity: Entity, version: int | None = None) -> Mapping:
        """The newest mapping, or an older one; version 0 is the empty one. Error: NOT_FOUND."""
        with self._connections.read() as connection:
            if version is None:
                return self._read_newest(connection, entity)
            newest = connection.execute(NEWEST_VERSION, {"entity": entity.value}).scalar() or 0
            if not 0 <= version <= newest:
                message = f"the mapping of {entity} has no version {version}"
                raise Error(Code.NOT_FOUND, message, hint=f"versions: 0 to {newest}")
            if version == 0:
                return empty(entity)
            return _read_one(connection, entity, version)

    def change_mapping(
        self, entity: Entity, change: Callable[[Mapping], Mapping], *, who: str, why: str, request: Any, now_ms: int
    ) -> Mapping:
        """Apply a pure change to the newest mapping and keep the result as the next version.

        A change that gives an equal mapping makes no version. An Error inside leaves everything as it was.
        `change` runs while all other writers wait, and must not write itself.
        """
        with self._connections.write() as connection:
            old = self._read_newest(connection, entity)
            new = change(old)
            self._keep_version(connection, old, new, who, why, request, now_ms)
        return new

    def change_mappings(
        self,
        change: Callable[[Map[Entity, Mapping]], Map[Entity, Mapping]],
        *,
        who: str,
        why: str,
        request: Any,
        now_ms: int,
    ) -> dict[Entity, Mapping]:
        """As `change_mapping`, for the newest mappings of all entities in one transaction."""
        with self._connections.write() as connection:
            old = {entity: self._read_newest(connection, entity) for entity in Entity}
            new = dict(change(old))
            for entity, mapping in new.items():
                self._keep_version(connection, old[entity], mapping, who, why, request, now_ms)
        return new

    def _keep_version(
        self, connection: Connection, old: Mapping, new: Mapping, who: str, why: str, request: Any, now_ms: int
    ) -> None:
        if new == old:
            return
        if (new.entity, new.version) != (old.entity, old.version + 1):
            message = f"a change of {old.entity} version {old.version} gave {new.entity} version {new.version}"
            raise Error(Code.INTERNAL, message)
        version = Version(new.version, now_ms, who, why, request, diff_versions(old, new), new.restores)
        connection.execute(insert(mapping_versions), record_of_version(version, new))
        detail = {"version": new.version, "why": why}
        write_audit(connection, now_ms, who, "mapping.changed", new.entity.value, detail)

    def list_versions(
        self, entity: Entity, *, before: int | None = None, after: int = 0, limit: int | None = None
    ) -> list[Version]:
        """Newest first: at most `limit` of those before one version and after another, neither included."""
        number = mapping_versions.c.version
        history = HISTORY.where(mapping_versions.c.entity == entity.value, number > after).order_by(desc(number))
        if before is not None:
            history = history.where(number < literal(before, BigInteger))
        with self._connections.read() as connection:
            rows = connection.execute(history.limit(limit)).mappings().all()
        return [version_of(row) for row in rows]

    def _read_newest(self, connection: Connection, entity: Entity) -> Mapping:
        number = connection.execute(NEWEST_VERSION, {"entity": entity.value}).scalar()
        if number is None:
            return empty(entity)
        known = self._newest.get(entity)
        if known is not None and known.version == number:
            return known
        found = _read_one(connection, entity, number)
        self._newest[entity] = found
        return found

    # reference tables

    def add_upload(self, upload: Upload) -> None:
        with self._connections.write() as connection:
            connection.execute(insert(uploads), record_of_upload(upload))

    def find_upload(self, id: str) -> Upload | None:
        """The upload of that id, expired or not: the caller looks at `expires_ms`."""
        with self._connections.read() as connection:
            row = connection.execute(select(uploads).where(uploads.c.id == id)).mappings().first()
        return None if row is None else upload_of(row)

    def drop_uploads(self, before_ms: int) -> None:
        """Forget the uploads whose addresses expired before that."""
        with self._connections.write() as connection:
            connection.execute(delete(uploads).where(uploads.c.expires_ms < before_ms))

    def add_table(self, table: Table, *, who: str) -> None:
        """Error: CONFLICT when the name, or the id, is taken."""
        with self._connections.write() as connection:
            _refuse_taken_name(connection, table)
            if find_table_row(connection, table.id) is not None:
                raise Error(Code.CONFLICT, f"a reference table with the id {table.id!r} exists")
            record = record_of_table(table)
            connection.execute(insert(reference_tables), record)
            write_audit(connection, table.created_ms, who, "table.added", table.id, record)

    def find_table(self, id: str) -> Table | None:
        with self._connections.read() as connection:
            return find_table_row(connection, id)

    def list_tables(self) -> list[Table]:
        """Oldest first."""
        every = select(reference_tables).order_by(reference_tables.c.created_ms, reference_tables.c.id)
        with self._connections.read() as connection:
            rows = connection.execute(every).mappings().all()
        return [table_of(row) for row in rows]

    def update_table(self, table: Table, *, who: str) -> None:
        """Replace the definition of that id. Errors: NOT_FOUND, CONFLICT when its new name is taken.

        When a newer generation was named since `table` was read, what describes its rows stays as it is kept.
        """
        with self._connections.write() as connection:
            old = find_table_row(connection, table.id)
            if old is None:
                raise Error(Code.NOT_FOUND, f"there is no reference table {table.id!r}")
            if table.generation < old.generation:
                table = with_rows_of(table, old)
            if old == table:
                return
            _refuse_taken_name(connection, table)
            record = record_of_table(table)
            connection.execute(update(reference_tables).where(reference_tables.c.id == table.id), record)
            changes = {d.at: [d.before, d.after] for d in diff(record_of_table(old), record)}
            write_audit(connection, table.updated_ms, who, "table.updated", table.id, changes)

    def remove_table(self, id: str, *, who: str, now_ms: int) -> bool:
        """Whether there was such a table; its sync and its runs go with it."""
        with self._connections.write() as connection:
            old = find_table_row(connection, id)
            if old is None:
                return False
            connection.execute(delete(reference_tables).where(reference_tables.c.id == id))
            remove_syncing(connection, id)
            write_audit(connection, now_ms, who, "table.removed", id, record_of_table(old))
            return True

    # audit

    def list_audit(self, limit: int) -> list[AuditEntry]:
        """The latest changes, newest first."""
        latest = select(audit).order_by(desc(audit.c.id)).limit(limit)
        with self._connections.read() as connection:
            rows = connection.execute(latest).mappings().all()
        return [AuditEntry(**row) for row in rows]


def _read_one(connection: Connection, entity: Entity, version: int) -> Mapping:
    mapping, restores = connection.execute(ONE_MAPPING, {"entity": entity.value, "version": version}).one()
    return from_json(mapping, restores)


def _find_or_make_organisation(connections: Connections, id_if_new: str, now_ms: int) -> str:
    with connections.read() as connection:
        found = connection.execute(select(organisation.c.id)).scalar()
    if found is not None:
        return str(found)
    with connections.write() as connection:
        found = connection.execute(select(organisation.c.id)).scalar()  # another process may have been first
        if found is not None:
            return str(found)
        connection.execute(insert(organisation), {"id": id_if_new, "created_ms": now_ms})
        return id_if_new


def _refuse_taken_name(connection: Connection, table: Table) -> None:
    same = select(reference_tables.c.id).where(reference_tables.c.name == table.name, reference_tables.c.id != table.id)
    if connection.execute(same).first() is not None:
        message = f"a reference table named {table.name!r} exists"
        raise Error(Code.CONFLICT, message, at="/data/attributes/table_name", hint="choose another name")
