"""The guides do what they say: each is run from its first command to its last, in a shell, against a real server."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from commands import Shims
from docs.pages import GUIDES, PAGES, Step, agrees, blocks_of, name_of, same_json, same_text, steps_of
from roster.cli import Wiring, build_cli
from servers import free_port

PORT = "8126"
INSTALLED = ("getting-started",)
"""Guides that run the installed command; the others a forked one, as loading it is most of what they would wait for."""
SERVE = """
roster serve 2>> server.log &
trap 'kill %1; wait' EXIT
for _ in $(seq 300); do curl -sf -o /dev/null http://127.0.0.1:8126/health && break; sleep 0.1; done
"""


def script_of(steps: list[Step], port: int) -> str:
    """One shell script of all steps; what a step prints goes into a file of its own."""
    parts = ["set -euo pipefail"]
    for number, step in enumerate(steps):
        commands = SERVE if step.commands.strip() == "roster serve" else step.commands
        parts.append(f"exec > out.{number} 2>&1\n{commands}")
    return "\n".join(parts).replace(f"127.0.0.1:{PORT}", f"127.0.0.1:{port}")


@pytest.fixture(scope="session")
def shims(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    made = Shims(tmp_path_factory.mktemp("shims"))
    yield made.folder
    made.close()


@pytest.mark.e2e
@pytest.mark.parametrize("path", GUIDES, ids=name_of)
def test_a_guide_runs_as_written(path: Path, tmp_path: Path, shims: Path) -> None:
    folders = [*([] if path.stem in INSTALLED else [shims]), Path(sys.executable).parent]
    steps = steps_of(path)
    assert steps, "a guide has commands"
    port = free_port()
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("ROSTER_", "DD_"))}
    environment |= {
        "PATH": ":".join([*map(str, folders), os.environ["PATH"]]),
        "ROSTER_PORT": str(port),
        "COLUMNS": "80",
    }
    environment["ROSTER_EVENTS_DAYS"] = "36500"  # the events of the pages have fixed dates
    script = script_of(steps, port)
    done = subprocess.run(["bash", "-c", script], cwd=tmp_path, env=environment, timeout=120, check=False)
    printed = [tmp_path / f"out.{number}" for number in range(len(steps))]
    last = [file.read_text() for file in printed if file.exists()]
    assert done.returncode == 0, f"{steps[len(last) - 1].place}\n{last[-1]}"
    log = tmp_path / "server.log"
    told = log.read_text()[-4000:] if log.exists() else ""
    for step, file in zip(steps, printed, strict=True):
        text = file.read_text()
        assert step.shown is None or agrees(step.shown, text), f"{step.place} prints\n{text}\nthe server says\n{told}"


@pytest.mark.parametrize("path", PAGES, ids=name_of)
def test_json_blocks_parse(path: Path) -> None:
    for block in blocks_of(path):
        if block.language == "json":
            json.loads(block.text)


@pytest.mark.parametrize("path", PAGES, ids=name_of)
def test_json_in_shell_blocks_parses(path: Path) -> None:
    for block in blocks_of(path):
        for part in block.text.split("<<'EOF'\n")[1:] if block.language == "sh" else []:
            body = part.split("\nEOF\n")[0]
            if body.startswith("{"):
                json.loads(body.split("\n{")[0])


@pytest.mark.parametrize("path", PAGES, ids=name_of)
def test_command_lines_parse(path: Path) -> None:
    """Every `roster ...` line of a shell block is a command with parameters that exist."""
    nothing = None
    app = build_cli(Wiring(nothing, nothing, nothing, nothing, nothing))  # type: ignore[arg-type]
    for block in blocks_of(path):
        if block.language != "sh":
            continue
        for line in block.text.replace("\\\n", " ").splitlines():
            if line.startswith("roster "):
                words = shlex.split(line.split(" | ")[0].split(" || ")[0], comments=True)
                app.parse_args(words[1:], exit_on_error=False, print_error=False)


def test_pages_link_to_what_is_there() -> None:
    broken = [
        f"{name_of(path)}: {target}"
        for path in PAGES
        for target in links_of(path)
        if not (path.parent / target.split("#")[0]).exists()
    ]
    assert broken == []


def links_of(path: Path) -> list[str]:
    """Targets of relative links and pictures; code is not looked at."""
    prose = re.sub(r"```.*?```|`[^`]*`", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
    found = re.findall(r"\]\(([^)\s]+)\)", prose)
    return [target for target in found if "://" not in target and not target.startswith("#")]


def test_a_wrong_output_would_be_noticed() -> None:
    assert same_text("a ... c\n", "a b c")
    assert not same_text("a ... d", "a b c")
    assert same_json({"id": "...", "n": [1]}, {"id": "x", "n": [1]})
    assert not same_json({"n": [1]}, {"n": [2]})
    assert not same_json({"n": 1}, {"n": True})
    assert not same_json({"n": [1]}, {"n": [1], "more": 0})
