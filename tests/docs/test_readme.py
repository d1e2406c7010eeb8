"""The README says what is so: its counts are the code's, its examples run against a real server."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator

import pytest

from docs.pages import ROOT, Block, blocks_of
from roster.demo.show import CREATE, UPDATE
from roster.http.routes import OWN_PATHS, bindings
from servers import Server

README = ROOT / "README.md"
CONNECTION = "/api/v2/product-analytics/users/mapping/connection"
DEFAULT_URL = "http://127.0.0.1:8126"


@pytest.fixture
def connected(server: Server) -> Iterator[Server]:
    """A server with the demo's connection, which the README updates; its table need not be there."""
    assert server.ask("POST", CONNECTION, CREATE).status == 201
    assert server.ask("PUT", CONNECTION, UPDATE).status == 200
    yield server
    assert server.ask("DELETE", f"{CONNECTION}/crm-integration").status == 204


def run(server: Server, *command: str) -> str:
    """What a command prints, its example address replaced by that of the server."""
    words = [word.replace(DEFAULT_URL, server.url) for word in command]
    keys = {"DD_API_KEY": server.api_key, "DD_APP_KEY": server.app_key}
    done = subprocess.run(words, env=os.environ | keys, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def examples(language: str, word: str) -> list[Block]:
    found = [block for block in blocks_of(README) if block.language == language and word in block.text]
    assert found, f"no {language} example with {word}"
    return found


def test_the_python_example_runs(connected: Server) -> None:
    for block in examples("python", "datadog_api_client"):
        assert "@lifetime_value" in run(connected, sys.executable, "-c", block.text)


def test_the_curl_examples_run(connected: Server) -> None:
    printed = [run(connected, "bash", "-c", block.text) for block in examples("sh", "curl")]
    assert '"@nps_score"' in printed[0]
    assert printed[1] == "200\n"
    shown = connected.ask("GET", "/api/v2/product-analytics/users/mapping").json()["data"]["attributes"]["attributes"]
    labels = {a["attribute"]: a["display_name"] for a in shown if a["is_custom"]}
    assert labels["@lifetime_value"] == "Customer Lifetime Value (`USD`)"
    assert labels["@nps_score"] == "NPS Score"
    assert "@old_revenue_field" not in labels


def test_it_counts_the_operations_that_are_served() -> None:
    contract = [b for b in bindings() if b.name not in OWN_PATHS]
    assert all(b.operation is not None for b in contract)
    assert f"Roster serves all {len(contract)} operations" in README.read_text(encoding="utf-8")


def test_every_make_target_it_names_exists() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    for path in (README, ROOT / "CONTRIBUTING.md"):
        named = set(re.findall(r"(?:`|^)make ([a-z]+)", path.read_text(encoding="utf-8"), re.MULTILINE))
        assert named
        assert named <= targets, path.name
