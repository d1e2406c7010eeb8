"""Owns how values become rows of our own records and back; runs no statement."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from sqlalchemy import RowMapping

from roster.base.values import Difference
from roster.model.access import Key, KeyKind
from roster.model.mapping import Version, from_json, to_json
from roster.model.reference_table import Table, Upload
from roster.model.schema import Column, Entity, Type

Record = dict[str, Any]


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One change of our own records: when, by whom, what was done (`key.created`), to what, and the particulars."""

    id: int
    at_ms: int
    who: str
    action: str
    target: str
    detail: dict[str, Any] = field(hash=False)


def record_of_key(key: Key) -> Record:
    return {**asdict(key), "kind": key.kind.value}


def key_of(row: RowMapping) -> Key:
    return Key(**{**row, "kind": KeyKind(row["kind"])})


def record_of_version(entity: Entity, version: Version) -> Record:
    return {
        "entity": entity.value,
        "version": version.version,
        "at_ms": version.at_ms,
        "who": version.who,
        "why": version.why,
        "request": version.request,
        "diff": [asdict(d) for d in version.diff],
        "mapping": to_json(version.mapping),
    }


def version_of(row: RowMapping) -> Version:
    return Version(
        version=row["version"],
        at_ms=row["at_ms"],
        who=row["who"],
        why=row["why"],
        request=row["request"],
        diff=tuple(Difference(**d) for d in row["diff"]),
        mapping=from_json(row["mapping"]),
    )


def record_of_table(table: Table) -> Record:
    columns = [{"name": c.name, "type": c.type.value} for c in table.columns]
    return {**asdict(table), "columns": columns, "tags": list(table.tags)}


def table_of(row: RowMapping) -> Table:
    columns = tuple(Column(c["name"], Type(c["type"])) for c in row["columns"])
    return Table(**{**row, "columns": columns, "tags": tuple(row["tags"])})


def record_of_upload(upload: Upload) -> Record:
    return {**asdict(upload), "headers": list(upload.headers)}


def upload_of(row: RowMapping) -> Upload:
    return Upload(**{**row, "headers": tuple(row["headers"])})
