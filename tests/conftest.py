"""Shared by all tests: a real server in a process of its own, on a data folder of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from servers import Server

settings.register_profile("roster", deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("roster")


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One running server for tests that only talk to it."""
    with Server(tmp_path_factory.mktemp("server")) as running:
        yield running


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[Server]:
    """A running server for one test that kills, restarts or fills it."""
    with Server(tmp_path) as running:
        yield running
