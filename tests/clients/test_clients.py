"""Runs the official clients, as their users would, against the real server; owns no expectation about the wire."""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Protocol

import pytest

HERE = Path(__file__).parent
CACHE = Path(os.environ.get("ROSTER_CLIENT_CACHE") or Path(tempfile.gettempdir()) / "roster-client-cache")
INSTALL_TIMEOUT_S = 600
RUN_TIMEOUT_S = 180

pytestmark = pytest.mark.clients


class Server(Protocol):
    """A running Roster and keys that may do everything."""

    url: str
    api_key: str
    app_key: str


def run(server: Server, *command: str) -> None:
    """Runs a client script; on failure its last lines are the reason."""
    settings = {
        "ROSTER_URL": server.url,
        "ROSTER_CLIENT_CACHE": str(CACHE),
        "DD_API_KEY": server.api_key,
        "DD_APP_KEY": server.app_key,
        "DD_BEARER_TOKEN": server.app_key,
    }
    done = subprocess.run(
        command, env=os.environ | settings, capture_output=True, text=True, timeout=RUN_TIMEOUT_S, check=False
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
    """Copies the scripts beside their packages in the cache; installs them when the lock file has changed."""
    source, folder = HERE / "typescript", CACHE / "typescript"
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(HERE / "scenario.json", CACHE)
    lock = (source / "package-lock.json").read_bytes()
    stamp = folder / "installed-lock.json"
    for file in [*source.glob("*.mjs"), *source.glob("package*.json"), source / ".npmrc"]:
        shutil.copy(file, folder)
    if not stamp.is_file() or stamp.read_bytes() != lock:
        subprocess.run(["npm", "ci"], cwd=folder, check=True, capture_output=True, timeout=INSTALL_TIMEOUT_S)
        stamp.write_bytes(lock)
    return folder


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not on this machine")
def test_curl_flow(server: Server) -> None:
    run(server, "bash", str(HERE / "flow_curl.sh"))
