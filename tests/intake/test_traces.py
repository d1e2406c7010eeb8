"""Lines of one person are found in whatever form they were kept, and only theirs are dropped."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest

from roster.intake.rejected import Kept
from roster.intake.traces import Person, Traces, drop_from_folder

ANN = Person.known_by(["ann", "42"], ["Ann@Example.com"])
DEEP = "[" * 200_000


def kept(line: str) -> bytes:
    """A rejected line as it lies on the disk."""
    return msgspec.json.encode(Kept("1", 1, "not_json", "why", "rum", line))


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
        kept('data: {"usr":{"id":"ann"}}'),
        kept('  "id": "ann",'),
        kept('\ufeff{"usr": {"id": 42}}'),
        kept('\ufeff{"usr": {"id": "ann"'),
        kept('"ann"'),
        kept("42"),
        kept('"usr=ann&plan=pro"'),
        kept("usr=ann"),
        kept('x "ann@exa\\u006dple.com"'),
        kept(r'data: {"usr":{"id":"\u0061nn"}}'),
        kept(r"{\"usr\":{\"id\":\"\u0061nn\"}}"),
        kept(json.dumps(json.dumps({"usr": {"id": "ann"}}))),
        b'{"usr": {"id": "ann"}, "usr": {}}',
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
        kept('data: {"usr":{"id":"anna"}}'),
        kept('  "id": "ann-2",'),
        kept('{"text": "ann bought 42"}'),
        kept(r'{"usr":{"id":"\u0061nna"'),
        kept("\\"),
        kept('\ufeff{"text": "ann bought 42"}'),
    ],
)
def test_lines_of_others(line: bytes) -> None:
    assert not ANN.is_in(line)


@pytest.mark.parametrize("id", ["émile", "a/b", 'say "x"', "back\\slash", "\U0001f600 smile", "tab\tid"])
def test_ids_are_found_however_they_are_escaped(id: str) -> None:
    person, other = Person.known_by([id], []), Person.known_by(["nobody"], [])
    for text in (json.dumps(id), json.dumps(id, ensure_ascii=False), json.dumps(id).replace("/", r"\/")):
        for line in (f'{{"usr":{{"id":{text}}}}}', f'data: {{"usr":{{"id":{text}', f'  "id": {text},'):
            for form in (line, json.dumps(line)[1:-1]):
                assert person.is_in(kept(form)), form
                assert not other.is_in(kept(form))


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
    assert traces.read(["ann"], []) == {"here": [theirs] * 3}
    assert (tmp_path / "2.ndjson").exists()
    assert traces.drop(["ann"], [], dry_run=False) == {"here": 3}
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == {"1.ndjson": other + b"\n", "3.ndjson": other}
    assert traces.drop(["ann"], [], dry_run=False) == {"here": 0}
    assert drop_from_folder(tmp_path / "absent", ANN, False) == []
