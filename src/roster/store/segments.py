"""Owns the records of segments and saved queries in SQL; never reads what is in one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace

from sqlalchemy import ColumnElement, Connection, delete, insert, select, update

from roster.base.errors import Code, Error
from roster.base.values import diff
from roster.model.saved_query import SavedQuery
from roster.model.segment import Segment, says_the_same
from roster.store.connections import Connections
from roster.store.records import record_of_segment, segment_of
from roster.store.statements import put_row, write_audit
from roster.store.tables import queries, segments


class SegmentRecords:
    """The part of the records that holds segments; every method is one transaction."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections

    def add_segment(self, segment: Segment) -> Segment:
        """The segment as kept: one of that name that says the same stays as it is. Error: CONFLICT for another."""
        with self._connections.write() as connection:
            named = _find(connection, segments.c.name == segment.name)
            if named is not None:
                if says_the_same(named, segment):
                    return named
                raise _taken(segment.name)
            record = record_of_segment(segment)
            connection.execute(insert(segments), record)
            write_audit(connection, segment.created_ms, segment.created_by, "segment.added", segment.id, record)
            return segment

    def find_segment(self, id: str) -> Segment | None:
        with self._connections.read() as connection:
            return _find(connection, segments.c.id == id)

    def list_segments(self) -> list[Segment]:
        """By name."""
        with self._connections.read() as connection:
            rows = connection.execute(select(segments)).mappings().all()
        return sorted((segment_of(row) for row in rows), key=lambda s: s.name)  # databases collate each in their way

    def change_segment(self, id: str, change: Callable[[Segment], Segment]) -> Segment:
        """Apply a pure change to a segment as it is kept; one that gives an equal segment is none.

        Errors: NOT_FOUND, CONFLICT for a name that is taken. `change` runs while all other writers wait.
        """
        with self._connections.write() as connection:
            old = _find(connection, segments.c.id == id)
            if old is None:
                raise Error(Code.NOT_FOUND, f"there is no segment {id!r}", at="parameter segment_id")
            new = change(old)
            if new == old:
                return old
            if new.name != old.name and _find(connection, segments.c.name == new.name) is not None:
                raise _taken(new.name)
            record = record_of_segment(new)
            connection.execute(update(segments).where(segments.c.id == id), record)
            changes = {d.at: [d.before, d.after] for d in diff(record_of_segment(old), record)}
            write_audit(connection, new.modified_ms, new.modified_by, "segment.changed", id, changes)
            return new

    def remove_segment(self, id: str, *, who: str, now_ms: int) -> Segment | None:
        """The segment that was there."""
        with self._connections.write() as connection:
            old = _find(connection, segments.c.id == id)
            if old is not None:
                connection.execute(delete(segments).where(segments.c.id == id))
                write_audit(connection, now_ms, who, "segment.removed", id, record_of_segment(old))
            return old


def _find(connection: Connection, condition: ColumnElement[bool]) -> Segment | None:
    row = connection.execute(select(segments).where(condition)).mappings().first()
    return None if row is None else segment_of(row)


def _taken(name: str) -> Error:
    return Error(
        Code.CONFLICT, f"a segment named {name!r} exists", at="/data/attributes/name", hint="choose another name"
    )


class QueryRecords:
    """The part of the records that holds saved queries; every method is one transaction."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections

    def put_query(self, query: SavedQuery) -> SavedQuery:
        """Keep a query, new or in place of the one of that name, which leaves its time of creation."""
        with self._connections.write() as connection:
            row = connection.execute(select(queries).where(queries.c.name == query.name)).mappings().first()
            old = None if row is None else SavedQuery(**row)
            if old is not None:
                query = replace(query, created_ms=old.created_ms)
                if (old.operation, old.body) == (query.operation, query.body):
                    return old
            put_row(connection, queries, "name", asdict(query))
            action = "query.added" if old is None else "query.changed"
            write_audit(connection, query.updated_ms, query.updated_by, action, query.name, asdict(query))
            return query

    def find_query(self, name: str) -> SavedQuery | None:
        with self._connections.read() as connection:
            row = connection.execute(select(queries).where(queries.c.name == name)).mappings().first()
        return None if row is None else SavedQuery(**row)

    def list_queries(self) -> list[SavedQuery]:
        """By name."""
        with self._connections.read() as connection:
            rows = connection.execute(select(queries)).mappings().all()
        return sorted((SavedQuery(**row) for row in rows), key=lambda q: q.name)

    def remove_query(self, name: str, *, who: str, now_ms: int) -> bool:
        """Whether there was such a query."""
        with self._connections.write() as connection:
            row = connection.execute(select(queries).where(queries.c.name == name)).mappings().first()
            if row is None:
                return False
            connection.execute(delete(queries).where(queries.c.name == name))
            write_audit(connection, now_ms, who, "query.removed", name, dict(row))
            return True
