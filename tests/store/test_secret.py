"""The secret is made once, kept for its owner only, and never silently replaced."""

from __future__ import annotations

import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest

from roster.base.errors import Code, Error
from roster.store.secret import load_or_create_secret

FRESH = bytes(range(32))


def test_the_secret_is_made_once(tmp_path: Path) -> None:
    path = tmp_path / "data" / "secret"
    assert load_or_create_secret(path, FRESH) == FRESH
    assert load_or_create_secret(path, FRESH[::-1]) == FRESH
    assert path.read_bytes() == FRESH
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [p.name for p in path.parent.iterdir()] == ["secret"]


def test_all_that_start_at_once_get_the_same(tmp_path: Path) -> None:
    together = Barrier(16)

    def load(number: int) -> bytes:
        together.wait()
        return load_or_create_secret(tmp_path / "secret", bytes([number]) * 32)

    with ThreadPoolExecutor(16) as threads:
        found = set(threads.map(load, range(16)))
    assert found == {(tmp_path / "secret").read_bytes()}
    assert [p.name for p in tmp_path.iterdir()] == ["secret"]


@pytest.mark.parametrize("content", [b"", b"short"])
def test_a_damaged_secret_is_not_replaced(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "secret"
    path.write_bytes(content)
    with pytest.raises(Error) as caught:
        load_or_create_secret(path, FRESH)
    assert caught.value.code is Code.INTERNAL
    assert path.read_bytes() == content


def test_a_short_secret_is_not_taken(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least 32"):
        load_or_create_secret(tmp_path / "secret", b"short")
    assert list(tmp_path.iterdir()) == []
