"""Owns how values become rows of our own records and back; runs no statement."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from sqlalchemy import RowMapping

from roster.base.values import Difference
from roster.model.access import Key, KeyKind
from roster.model.mapping import Mapping, Version, to_json
from roster.model.reference_table import Table, Upload
from roster.model.schema import Column, Entity, Schema, Type
from roster.model.segment import Segment
from roster.model.source import Origin
from roster.model.sync import (
    Coverage,
    Drift,
    DriftKind,
    Failure,
    Fetched,
    Phase,
    Run,
    Secret,
    State,
    Step,
    Sync,
    Trigger,
)
from roster.model.use import Use

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


def record_of_version(version: Version, mapping: Mapping) -> Record:
    """A record of history with the mapping that it made."""
    return {
        "entity": mapping.entity.value,
        "version": version.version,
        "at_ms": version.at_ms,
        "who": version.who,
        "why": version.why,
        "request": version.request,
        "diff": [asdict(d) for d in version.diff],
        "mapping": to_json(mapping),
        "restores": version.restores,
    }


def version_of(row: RowMapping) -> Version:
    return Version(
        version=row["version"],
        at_ms=row["at_ms"],
        who=row["who"],
        why=row["why"],
        request=row["request"],
        diff=tuple(Difference(**d) for d in row["diff"]),
        restores=row["restores"],
    )


def record_of_table(table: Table) -> Record:
    """A table as plain JSON by column; the options of its origin as an object."""
    origin = table.origin
    return {
        **asdict(table),
        "columns": _columns_to_json(table.columns),
        "tags": list(table.tags),
        "held": [[name, type.value] for name, type in table.held],
        "origin": None if origin is None else {"kind": origin.kind, "options": dict(origin.options)},
    }


def table_of(row: RowMapping) -> Table:
    """The table that `record_of_table` wrote."""
    origin = row["origin"]
    return Table(
        **{
            **row,
            "columns": _columns_from_json(row["columns"]),
            "tags": tuple(row["tags"]),
            "held": tuple((name, Type(type)) for name, type in row["held"]),
            "origin": None if origin is None else Origin(origin["kind"], tuple(sorted(origin["options"].items()))),
        }
    )


def _columns_to_json(columns: Schema) -> list[Record]:
    return [{"name": c.name, "type": c.type.value} for c in columns]


def _columns_from_json(columns: list[Record]) -> Schema:
    return tuple(Column(c["name"], Type(c["type"])) for c in columns)


def record_of_upload(upload: Upload) -> Record:
    return {**asdict(upload), "headers": list(upload.headers)}


def upload_of(row: RowMapping) -> Upload:
    return Upload(**{**row, "headers": tuple(row["headers"])})


def record_of_sync(sync: Sync) -> Record:
    return {**asdict(sync), "state": sync.state.value, "offered": _columns_to_json(sync.offered)}


def sync_of(row: RowMapping) -> Sync:
    """The sync that `record_of_sync` wrote."""
    return Sync(
        **{
            **row,
            "state": State(row["state"]),
            "drifts": tuple(_drift_from_json(d) for d in row["drifts"]),
            "offered": _columns_from_json(row["offered"]),
            "coverage": _coverage_from_json(row["coverage"]),
        }
    )


def _drift_from_json(plain: Record) -> Drift:
    return Drift(**{**plain, "kind": DriftKind(plain["kind"]), "fields": tuple(plain["fields"])})


def _coverage_from_json(plain: list[Record]) -> tuple[Coverage, ...]:
    return tuple(Coverage(**c) for c in plain)


def record_of_run(run: Run) -> Record:
    return {**asdict(run), "trigger": run.trigger.value, "phase": run.phase.value, "step": run.step.value}


def run_of(row: RowMapping) -> Run:
    """The run that `record_of_run` wrote."""
    fetched, failure = row["fetched"], row["failure"]
    return Run(
        **{
            **row,
            "trigger": Trigger(row["trigger"]),
            "phase": Phase(row["phase"]),
            "step": Step(row["step"]),
            "fetched": None if fetched is None else Fetched(**{**fetched, "names": tuple(fetched["names"])}),
            "coverage": _coverage_from_json(row["coverage"]),
            "failure": None if failure is None else Failure(**failure),
        }
    )


def record_of_secret(secret: Secret) -> Record:
    return {**asdict(secret), "members": list(secret.members)}


def secret_of(row: RowMapping) -> Secret:
    return Secret(**{**row, "members": tuple(row["members"])})


def record_of_segment(segment: Segment) -> Record:
    return {**asdict(segment), "entity": segment.entity.value, "tags": list(segment.tags)}


def segment_of(row: RowMapping) -> Segment:
    return Segment(**{**row, "entity": Entity(row["entity"]), "tags": tuple(row["tags"])})


def record_of_use(use: Use) -> Record:
    return {**asdict(use), "entity": use.entity.value}


def use_of(row: RowMapping) -> Use:
    return Use(**{**row, "entity": Entity(row["entity"])})
