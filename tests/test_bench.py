"""The whole benchmark at a tiny size: it runs, compares answers, and ends when they differ. Times are not judged."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.e2e
ROOT = Path(__file__).parent.parent
SIZE = ["--profiles", "1000", "--rows", "1000", "--events", "5000", "--seed", "7", "--rounds", "1"]
READS = {"page", "page_columns", "page_wildcard", "facet", "event_users"}
ANALYSES = {"count_group", "users_daily_group", "funnel_3_user_group", "funnel_3_session_filter"}
"""Some of them: there are dozens, made by the same few functions."""
ASKED = {"start", *READS, *ANALYSES, "previews", "update", "history", "intake", "stream", "steady", "soak", "syncs"}
WORKLOADS = {*ASKED, "sync_others", "sync_readers"}
WRONG = """
import sys, bench.__main__ as bench
from bench.queries import Read
right = Read.by_hand
Read.by_hand = lambda read, source: [sql.replace("'gold'", "'silver'") for sql in right(read, source)]
bench.main(sys.argv[1:])
"""


def run(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *words, *SIZE, "--folder", str(folder)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("bench")


def test_every_workload_runs_and_its_answers_are_equal(folder: Path) -> None:
    done = run(folder, "-m", "bench", *sorted(ASKED))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "profiles 1000, rows 1000, events 5000, seed 7" in done.stdout
    workloads = json.loads((folder / "results.json").read_text())["workloads"]
    assert set(workloads) == WORKLOADS
    for name, workload in workloads.items():
        assert f"{name}: {workload['note']}" in done.stdout
        contenders = workload["contenders"].values()
        assert all(len(c["samples"]) == 1 and (c["samples"][0] > 0 or c["unit"] == "%") for c in contenders)
        assert any(c["ratio"] is not None for c in contenders), "nothing was compared with work by hand"
    left = {path.name for path in next(folder.glob("1000-*")).iterdir()}
    assert left == {"data", "world.json", "server.log"}, "copies are thrown away, the world is kept"


def test_a_wrong_answer_ends_it(folder: Path) -> None:
    done = run(folder, "-c", WRONG, "facet")
    assert done.returncode == 1
    assert "RuntimeError: facet, engine: the answers differ" in done.stderr
