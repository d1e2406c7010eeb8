"""Rows that libraries give as plain dicts: what they are told apart by."""

from pathlib import Path

import pytest

from reads import make_job
from roster.sources.arrow import Rows


@pytest.mark.parametrize("name", ["r", "R", "rows", "c0", "plain"])
def test_every_cell_counts_in_the_digest_whatever_columns_are_named(tmp_path: Path, name: str) -> None:
    def digest(*rows: dict[str, str]) -> str:
        return Rows(make_job(tmp_path, "hubspot", {"object": "contacts"})).write(rows).digest

    one, two = {"id": "1", name: "x", "tier": "gold"}, {"id": "2", name: "y", "tier": "iron"}
    assert digest(one, two) == digest(two, one)
    assert digest(one, two) != digest(one | {"tier": "zinc"}, two)
    assert digest(one, two) != digest(one | {"tier": "iron"}, two | {"tier": "gold"})
