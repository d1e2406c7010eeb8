"""Reading local files: whole, consistent, and only when they are new."""

from __future__ import annotations

import gzip
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from roster.base.errors import Code, Error
from roster.ports import Reading
from roster.sources.files import read
from roster.sources.job import Job

ROWS = b"id,tier\n1,gold\n2,silver\n"


@pytest.fixture
def path(tmp_path: Path, make_job: Callable[..., Job]) -> Path:
    path = tmp_path / "in" / "people.csv"
    path.write_bytes(ROWS)
    return path


def refusal(job: Job) -> Error:
    with pytest.raises(Error) as caught:
        read(job)
    return caught.value


def test_a_file_is_copied(path: Path, make_job: Callable[..., Job], readings: list[Reading]) -> None:
    job = make_job(path=str(path))
    fetched = read(job)
    assert fetched is not None
    assert (fetched.names, fetched.format, fetched.bytes) == (("file.csv",), "csv", len(ROWS))
    assert (job.folder / "file.csv").read_bytes() == ROWS
    assert readings[-1] == Reading(bytes=len(ROWS), bytes_total=len(ROWS))


def test_an_unchanged_file_is_not_read(path: Path, make_job: Callable[..., Job], readings: list[Reading]) -> None:
    first = read(make_job(path=str(path)))
    assert first is not None
    readings.clear()
    assert read(make_job(path=str(path), fingerprint=first.fingerprint)) is None
    assert readings == []
    assert read(make_job(path=str(path), fingerprint=first.fingerprint, full=True)) == first


def test_a_touched_file_is_the_same(path: Path, make_job: Callable[..., Job]) -> None:
    first = read(make_job(path=str(path)))
    assert first is not None
    os.utime(path, (1, 1))
    job = make_job(path=str(path), fingerprint=first.fingerprint)
    assert read(job) is None
    assert list(job.folder.glob("*.gz")) == []


def test_a_changed_file_is_read_though_size_and_time_are_as_before(path: Path, make_job: Callable[..., Job]) -> None:
    before = path.stat()
    first = read(make_job(path=str(path)))
    assert first is not None
    path.write_bytes(ROWS.replace(b"gold", b"lead"))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    second = read(make_job(path=str(path), fingerprint=first.fingerprint))
    assert second is not None
    assert second.fingerprint != first.fingerprint


def test_a_file_that_changes_while_it_is_read_is_refused(path: Path, make_job: Callable[..., Job]) -> None:
    path.write_bytes(b"id\n" + b"1\n" * 2**20)
    job = make_job(path=str(path))

    def write_on(reading: Reading) -> None:
        with path.open("ab") as file:
            file.write(b"2\n")

    changing = Job(
        job.origin, job.secret, job.folder, "", "", full=False, policy=job.policy, limits=job.limits, report=write_on
    )
    error = refusal(changing)
    assert (error.code, "rename" in error.hint) == (Code.BUSY, True)


def test_a_file_put_in_its_place_by_a_rename_changes_nothing(path: Path, make_job: Callable[..., Job]) -> None:
    job = make_job(path=str(path))

    def replace(reading: Reading) -> None:
        aside = path.with_suffix(".new")
        aside.write_bytes(b"id\n9\n")
        aside.rename(path)

    replaced = Job(
        job.origin, job.secret, job.folder, "", "", full=False, policy=job.policy, limits=job.limits, report=replace
    )
    try:
        read(replaced)
    except Error as error:  # its link count is part of what the file system says: the next try reads the new one
        assert error.code is Code.BUSY
    else:
        assert (job.folder / "file.csv").read_bytes() == ROWS


def test_a_removed_file_is_not_found(path: Path, make_job: Callable[..., Job]) -> None:
    path.unlink()
    error = refusal(make_job(path=str(path), fingerprint="any"))
    assert error.code is Code.NOT_FOUND


def test_a_file_too_large_is_refused_before_it_is_read(path: Path, make_job: Callable[..., Job]) -> None:
    job = make_job(path=str(path), bytes_max=len(ROWS) - 1)
    assert refusal(job).code is Code.TOO_LARGE
    assert list(job.folder.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "content", "options", "brought", "format"),
    [
        ("a.tsv", ROWS, {}, "file.csv", "csv"),
        ("a.CSV", ROWS, {}, "file.csv", "csv"),
        ("a.b.jsonl", b"{}\n", {}, "file.ndjson", "ndjson"),
        ("a.csv.gz", gzip.compress(ROWS, mtime=0), {}, "file.csv.gz", "csv"),
        ("a.csv", gzip.compress(ROWS, mtime=0), {}, "file.csv.gz", "csv"),
        ("a.csv.gz", ROWS, {}, "file.csv", "csv"),
        ("a.parquet", b"PAR1", {}, "file.parquet", "parquet"),
        ("a", ROWS, {"format": "csv"}, "file.csv", "csv"),
        ("empty.csv", b"", {}, "file.csv", "csv"),
    ],
)
def test_formats(
    tmp_path: Path,
    make_job: Callable[..., Job],
    name: str,
    content: bytes,
    options: dict[str, str],
    brought: str,
    format: str,
) -> None:
    (tmp_path / "in" / name).write_bytes(content)
    fetched = read(make_job(path=str(tmp_path / "in" / name), **options))
    assert fetched is not None
    assert (fetched.names, fetched.format) == ((brought,), format)


def test_what_cannot_be_told_is_asked_for(tmp_path: Path, make_job: Callable[..., Job]) -> None:
    (tmp_path / "in" / "a.xls").write_bytes(ROWS)
    (tmp_path / "in" / "a.csv").write_bytes(b"\x28\xb5\x2f\xfd...")
    assert "give it: csv, ndjson, parquet" in refusal(make_job(path=f"{tmp_path}/in/a.xls")).hint
    assert "allowed: csv" in refusal(make_job(path=f"{tmp_path}/in/a.xls", format="excel")).hint
    assert "gzip" in refusal(make_job(path=f"{tmp_path}/in/a.csv")).hint
