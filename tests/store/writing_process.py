"""A process of its own that opens and changes records, for tests that race it or kill it.

writing_process.py open WHERE ORGANISATION     prints the organisation's id
writing_process.py add WHERE NAME COUNT        adds COUNT fields NAME_0, NAME_1, ... one change each
writing_process.py churn WHERE                 replaces the only field for ever, printing each version once acknowledged
writing_process.py progress WHERE COUNT        writes the progress of COUNT runs of table t1, each until it is cancelled
"""

from __future__ import annotations

import sys
from dataclasses import replace

from roster.model.changes import create, update
from roster.model.connection import CreateRequest, Field, UpdateRequest
from roster.model.mapping import Mapping
from roster.model.schema import Entity, Type
from roster.model.sync import Phase, Run, Step, Trigger
from roster.store.database import Database


def connect(mapping: Mapping) -> Mapping:
    request = CreateRequest("crm", "ref_table", "user_id", "id")
    return create(mapping, request, who="test", now_ms=1, source_columns=None)


def add_field(database: Database, id: str) -> Mapping:
    request = UpdateRequest("crm", add=(Field(id, id, Type.STRING),))
    return database.change_mapping(
        Entity.USERS,
        lambda m: update(m, request, who=id, now_ms=1, source_columns=None),
        who=id,
        why="",
        request={"add": id},
        now_ms=1,
    )


def replace_field(mapping: Mapping) -> Mapping:
    if not mapping.connections:
        return connect(mapping)
    gone = tuple(f.id for f in mapping.connections[0].fields)
    new = Field(f"field_{mapping.version}", "tier", Type.STRING, description="x" * 20_000)
    request = UpdateRequest("crm", add=(new,), delete=gone)
    return update(mapping, request, who="test", now_ms=1, source_columns=None)


def churn(database: Database) -> None:
    while True:
        new = database.change_mapping(Entity.USERS, replace_field, who="test", why="", request=None, now_ms=1)
        print(new.version, flush=True)


def progress(database: Database, count: int) -> None:
    for number in range(count):
        run = Run(f"run-{number}", "t1", Trigger.MANUAL, Phase.RUNNING, Step.READ, 1, queued_ms=number)
        database.write_run(run)
        print(run.id, "begun", flush=True)
        while not database.write_run(run):
            run = replace(run, rows=run.rows + 1)
        database.write_run(replace(run, phase=Phase.CANCELLED))
        print(run.id, run.rows, flush=True)


def main(what: str, where: str, *rest: str) -> None:
    organisation = rest[0] if what == "open" else "org-1"
    database = Database.open(where, organisation_id_if_new=organisation, now_ms=1)
    match what:
        case "open":
            print(database.organisation_id())
        case "add":
            for i in range(int(rest[1])):
                add_field(database, f"{rest[0]}_{i}")
        case "churn":
            churn(database)
        case "progress":
            progress(database, int(rest[0]))
        case _:
            raise SystemExit(f"unknown: {what}")
    database.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
