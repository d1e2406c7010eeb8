"""What tests of sources share: a real S3-compatible server, and reads within this process."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from object_servers import S3Store, s3_store
from roster.model.source import Origin
from roster.ports import Reading
from roster.sources.job import Job, ReadLimits
from roster.sources.policy import Policy


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Store]:
    with s3_store(tmp_path_factory.mktemp("moto")) as running:
        yield running


@pytest.fixture
def readings() -> list[Reading]:
    return []


@pytest.fixture
def make_job(tmp_path: Path, readings: list[Reading]) -> Callable[..., Job]:
    """A read of a kind with options; loopback and `tmp_path/in` are allowed, files go to `tmp_path/run`."""
    (tmp_path / "in").mkdir()
    run = tmp_path / "run"
    run.mkdir()
    allowed = Policy(hosts=("127.0.0.1",), folders=(tmp_path / "in",), loopback=True)

    def make(
        kind: str = "file",
        *,
        secret: dict[str, str] | None = None,
        fingerprint: str = "",
        full: bool = False,
        policy: Policy = allowed,
        bytes_max: int = 2**30,
        silence_s: float = 30.0,
        **options: str,
    ) -> Job:
        origin = Origin(kind, tuple(sorted(options.items())))
        limits = ReadLimits(bytes_max, silence_s)
        return Job(origin, secret or {}, run, fingerprint, "", full, policy, limits, readings.append)

    return make
