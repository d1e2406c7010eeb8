"""Migrations make exactly the tables of the code, once, in one transaction, and refuse what they do not know."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Column, Connection, Integer, MetaData, inspect, text

from roster.base.errors import Code, Error
from roster.model.reference_table import Table
from roster.model.schema import Column as TableColumn, Type
from roster.store.connections import Connections
from roster.store.database import Database
from roster.store.migration import alembic_config, migrate, read_revision
from roster.store.tables import HEAD, metadata


@pytest.fixture
def connections(where: str) -> Iterator[Connections]:
    opened = Connections(where)
    yield opened
    opened.close()


def differences(connection: Connection, tables: MetaData) -> list[Any]:
    return list(compare_metadata(MigrationContext.configure(connection), tables))


def shape(connection: Connection) -> dict[str, Any]:
    inspector = inspect(connection)
    return {
        name: [
            [(c["name"], str(c["type"]), c["nullable"], c["default"]) for c in inspector.get_columns(name)],
            inspector.get_pk_constraint(name),
            inspector.get_unique_constraints(name),
            inspector.get_foreign_keys(name),
            inspector.get_indexes(name),
        ]
        for name in inspector.get_table_names()
        if name != "alembic_version"
    }


def test_migrations_make_the_tables_of_the_code(connections: Connections) -> None:
    migrate(connections)
    with connections.read() as connection:
        assert differences(connection, metadata) == []
        migrated = shape(connection)
    with connections.write() as connection:
        metadata.drop_all(connection)
        metadata.create_all(connection)
    with connections.read() as connection:
        assert shape(connection) == migrated


def test_the_comparison_sees_a_missing_column(connections: Connections) -> None:
    migrate(connections)
    wider = MetaData()
    for table in metadata.tables.values():
        table.to_metadata(wider)
    wider.tables["keys"].append_column(Column("colour", Integer))
    with connections.read() as connection:
        assert [d[0] for d in differences(connection, wider)] == ["add_column"]


def test_head_is_the_newest_migration(connections: Connections) -> None:
    with connections.read() as connection:
        assert ScriptDirectory.from_config(alembic_config(connection)).get_current_head() == HEAD
        assert read_revision(connection) is None
    migrate(connections)
    with connections.read() as connection:
        assert read_revision(connection) == HEAD


OLD_TABLE = {
    "id": "t1",
    "name": "customers",
    "columns": '[{"name":"id","type":"string"},{"name":"mrr","type":"number"}]',
    "primary_key": "id",
    "source": "LOCAL_FILE",
    "description": "who pays",
    "tags": '["a,b"]',
    "row_count": 3_000_000_000,
    "created_by": "ann",
    "updated_by": "bob",
    "created_ms": 1_700_000_000_000,
    "updated_ms": 1_700_000_000_001,
    "status": "DONE",
}
"""A row as the first Roster kept it."""


def test_tables_made_before_syncs_are_kept(where: str, connections: Connections) -> None:
    with connections.write() as connection:
        command.upgrade(alembic_config(connection), "0001")
        connection.execute(
            text(f"INSERT INTO reference_tables VALUES ({', '.join(f':{name}' for name in OLD_TABLE)})"), OLD_TABLE
        )
    database = Database.open(where, organisation_id_if_new="org-1", now_ms=1)
    assert database.find_table("t1") == Table(
        id="t1",
        name="customers",
        columns=(TableColumn("id", Type.STRING), TableColumn("mrr", Type.NUMBER)),
        primary_key="id",
        source="LOCAL_FILE",
        description="who pays",
        tags=("a,b",),
        row_count=3_000_000_000,
        created_by="ann",
        updated_by="bob",
        created_ms=1_700_000_000_000,
        updated_ms=1_700_000_000_001,
    )
    assert (database.list_syncs(), database.unfinished_runs(), database.list_secrets()) == ([], [], [])
    twin = replace(made_table(database), id="t2")
    with pytest.raises(Error) as caught:
        database.add_table(twin, who="ann")
    assert caught.value.code is Code.CONFLICT
    database.close()
    with connections.read() as connection:
        assert differences(connection, metadata) == []


def made_table(database: Database) -> Table:
    found = database.find_table("t1")
    assert found is not None
    return found


def test_an_upgrade_that_fails_leaves_nothing(connections: Connections) -> None:
    with pytest.raises(ZeroDivisionError), connections.write() as connection:
        command.upgrade(alembic_config(connection), HEAD)
        assert inspect(connection).get_table_names()
        raise ZeroDivisionError
    with connections.read() as connection:
        assert inspect(connection).get_table_names() == []


def test_a_newer_database_is_refused(where: str, connections: Connections) -> None:
    migrate(connections)
    set_revision(connections, "9999")
    with pytest.raises(Error) as caught:
        Database.open(where, organisation_id_if_new="org-1", now_ms=1)
    assert caught.value.code is Code.UNSUPPORTED
    assert "'9999'" in caught.value.message
    set_revision(connections, HEAD)
    Database.open(where, organisation_id_if_new="org-1", now_ms=1).close()


def set_revision(connections: Connections, revision: str) -> None:
    with connections.write() as connection:
        connection.exec_driver_sql(f"UPDATE alembic_version SET version_num = '{revision}'")


def test_opening_a_database_in_shape_leaves_alembic_alone(where: str) -> None:
    Database.open(where, organisation_id_if_new="org-1", now_ms=1).close()
    program = """if True:
        import sys
        from roster.store.database import Database
        database = Database.open(sys.argv[1], organisation_id_if_new="", now_ms=1)
        print(database.organisation_id(), "alembic" in sys.modules)
        database.close()
    """
    done = subprocess.run([sys.executable, "-c", program, where], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["org-1", "False"]


def test_processes_that_open_at_once_share_one_database(where: str) -> None:
    writer = Path(__file__).with_name("writing_process.py")

    def start(number: int) -> str:
        arguments = [sys.executable, str(writer), "open", where, f"org-{number}"]
        return subprocess.run(arguments, capture_output=True, text=True, check=True).stdout.strip()

    with ThreadPoolExecutor(4) as threads:
        ids = set(threads.map(start, range(4)))
    assert len(ids) == 1
    database = Database.open(where, organisation_id_if_new="late", now_ms=1)
    assert {database.organisation_id()} == ids
    database.close()
