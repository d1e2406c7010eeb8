"""Runs the official clients, as their users would, against the real server; owns no expectation about the wire."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Protocol

import pytest

from node_packages import CACHE, install

HERE = Path(__file__).parent
RUN_TIMEOUT_S = 180

pytestmark = pytest.mark.clients


class Server(Protocol):
    """A running Roster and keys that may do everything."""

    url: str
    api_key: str
    app_key: str


def run(server: Server, *command: str, **more: str) -> None:
    """Runs a client script, with more variables; on failure its last lines are the reason."""
    settings = {
        "ROSTER_URL": server.url,
        "ROSTER_CLIENT_CACHE": str(CACHE),
        "DD_API_KEY": server.api_key,
        "DD_APP_KEY": server.app_key,
        "DD_BEARER_TOKEN": server.app_key,
    }
    done = subprocess.run(
        command, env=os.environ | settings | more, capture_output=True, text=True, timeout=RUN_TIMEOUT_S, check=False
    )
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}{done.stderr}"


def test_published_python_examples(server: Server) -> None:
    run(server, sys.executable, str(HERE / "published_python.py"))


@pytest.mark.parametrize("mode", ["sync", "threaded", "async"])
def test_python_flow(server: Server, mode: str) -> None:
    run(server, sys.executable, str(HERE / "flow_python.py"), mode)


@pytest.mark.skipif(shutil.which("npm") is None, reason="npm is not on this machine")
def test_typescript_flow(server: Server) -> None:
    folder = install_typescript()
    run(server, "node", str(folder / "flow.mjs"))


def install_typescript() -> Path:
    """The scripts beside their packages, and what they read."""
    folder = install(HERE / "typescript")
    shutil.copy(HERE / "scenario.json", CACHE)
    return folder


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not on this machine")
def test_curl_flow(server: Server) -> None:
    run(server, "bash", str(HERE / "flow_curl.sh"))
