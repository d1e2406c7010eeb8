"""Shared by all tests: a real server in a process of its own, on a data folder of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from servers import Server

ANY = settings(deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("fixed", ANY, derandomize=True)
settings.register_profile("random", ANY)
settings.load_profile("fixed")

LONGEST = (
    "http/test_fuzz.py",
    "sources/test_databases.py",
    "e2e/test_source_faults.py",
    "e2e/test_source_states.py",
    "test_bench.py",
    "query/test_planted_faults.py",
    "e2e/test_browser.py",
    "e2e/test_source_kills.py",
    "e2e/test_crash.py",
    "e2e/test_intake_kills.py",
    "docs/test_guides.py",
    "clients/test_clients.py",
)
"""Begun first, in this order: what is long and begins last leaves the other processes without work."""
TESTS = Path(__file__).parent


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What a module makes once is made in one process; long modules go before all others."""
    for item in items:
        group = shared_by(item)
        if group and item.get_closest_marker("xdist_group") is None:
            item.add_marker(pytest.mark.xdist_group(group))
    ranks = {TESTS / name: rank for rank, name in enumerate(LONGEST)}
    items.sort(key=lambda item: ranks.get(item.path, len(ranks)))


def shared_by(item: pytest.Item) -> str:
    """A name for the tests with which one shares fixtures of its module, and their parameters; empty without any."""
    known = item._fixtureinfo.name2fixturedefs if isinstance(item, pytest.Function) else {}
    shared = [name for name, found in known.items() if found[-1].scope == "module"]
    given = item.callspec.params if isinstance(item, pytest.Function) and hasattr(item, "callspec") else {}
    words = [str(given[name]) for name in shared if name in given]
    return "-".join([item.path.relative_to(TESTS).with_suffix("").as_posix(), *words]) if shared else ""


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
