"""Lines of one person are found in whatever form they were kept, and only theirs are dropped."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from roster.intake.traces import Person, Traces, drop_from_folder

ANN = Person.known_by(["ann", "42"], ["Ann@Example.com"])
DEEP = "[" * 200_000


@pytest.mark.parametrize(
    "line",
    [
        b'{"usr": {"id": "ann"}}',
        b'{"usr": {"id": "\\u0061nn"}}',
        b'{"usr": {"id": 42}}',
        b'{"ann": 1}',
        b'{"text": "mail to ANN@example.COM, please"}',
        json.dumps({"reason": "no_type", "line": json.dumps({"usr": {"id": "ann"}})}).encode(),
        json.dumps({"reason": "not_json", "line": '{"usr": {"id": "ann"'}).encode(),
        b'{"usr": {"id": "ann"',
        b'\xff{"usr": {"id": "ann"}}',
        b'{"id": 42, "cut',
        b'{"mail": "ann@example.com',
        DEEP.encode() + b'"ann"',
    ],
)
def test_lines_of_the_person(line: bytes) -> None:
    assert ANN.is_in(line)


@pytest.mark.parametrize(
    "line",
    [
        b'{"usr": {"id": "anna"}}',
        b'{"usr": {"id": 421}}',
        b'{"text": "ann bought 42"}',
        b'{"flag": true, "none": null}',
        b'{"usr": {"id": "ann-2"',
        b'{"usr": {"id": "an',
        b"",
    ],
)
def test_lines_of_others(line: bytes) -> None:
    assert not ANN.is_in(line)


def test_files_keep_what_is_not_theirs(tmp_path: Path) -> None:
    theirs, other = b'{"id": "ann"}', b'{"id": "bob"}'
    (tmp_path / "1.ndjson").write_bytes(theirs + b"\n" + other + b"\n" + theirs)
    (tmp_path / "2.ndjson").write_bytes(theirs)
    (tmp_path / "3.ndjson").write_bytes(other)
    settled = []
    traces = Traces(
        lambda: settled.append(True), {"here": lambda person, dry_run: drop_from_folder(tmp_path, person, dry_run)}
    )
    traces.settle()
    assert settled
    assert traces.drop(["ann"], [], dry_run=True) == {"here": 3}
    assert (tmp_path / "2.ndjson").exists()
    assert traces.drop(["ann"], [], dry_run=False) == {"here": 3}
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == {"1.ndjson": other + b"\n", "3.ndjson": other}
    assert traces.drop(["ann"], [], dry_run=False) == {"here": 0}
    assert drop_from_folder(tmp_path / "absent", ANN, False) == 0
