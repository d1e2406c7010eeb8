"""Owns the databases the store's tests run on: SQLite, or PostgreSQL when ROSTER_TEST_POSTGRES is its URL."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import create_engine, make_url, text

from roster.store.database import Database


@pytest.fixture
def where(tmp_path: Path) -> Iterator[str]:
    """A path or URL at which nothing is kept yet."""
    server = os.environ.get("ROSTER_TEST_POSTGRES")
    if server is None:
        yield str(tmp_path / "data" / "records.db")
        return
    url = make_url(server).set(drivername="postgresql+psycopg")
    name = f"roster_{tmp_path.parent.name}_{tmp_path.name}".replace("-", "_").lower()
    engine = create_engine(url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(f'CREATE DATABASE "{name}"'))
        yield url.set(database=name).render_as_string(hide_password=False)
        connection.execute(text(f'DROP DATABASE "{name}" WITH (FORCE)'))
    engine.dispose()


@pytest.fixture
def database(where: str) -> Iterator[Database]:
    opened = Database.open(where, organisation_id_if_new="org-1", now_ms=1)
    yield opened
    opened.close()
