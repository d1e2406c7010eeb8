"""Owns bringing our own records to the newest shape; the steps themselves are in migrations/."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Connection, inspect, text

from roster.base.errors import Code, Error
from roster.store.connections import Connections
from roster.store.tables import HEAD

if TYPE_CHECKING:
    from alembic.config import Config

FOLDER = Path(__file__).parent / "migrations"


def migrate(connections: Connections) -> None:
    """Bring the database to HEAD in one transaction. Error: UNSUPPORTED when a newer Roster wrote it."""
    with connections.read() as connection:
        if read_revision(connection) == HEAD:
            return
    with connections.write() as connection:
        if read_revision(connection) != HEAD:  # another process may have had its turn in between
            _upgrade(connection)


def read_revision(connection: Connection) -> str | None:
    """The migration a database is at, None before the first."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    found = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
    return None if found is None else str(found)


def alembic_config(connection: Connection) -> Config:
    """What alembic needs to know to work on this connection, without a file."""
    from alembic.config import Config  # half a second that only a first start or an upgrade pays

    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", str(FOLDER).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config


def _upgrade(connection: Connection) -> None:
    from alembic import command
    from alembic.script import ScriptDirectory

    config = alembic_config(connection)
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    now = read_revision(connection)
    if now is not None and now not in known:
        message = f"our own records are at revision {now!r}, which this Roster does not know"
        raise Error(Code.UNSUPPORTED, message, hint="run the newer Roster that wrote them, or restore a backup")
    command.upgrade(config, HEAD)
