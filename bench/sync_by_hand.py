"""Owns the work of a sync as an engineer would write it: SQL on a database of its own with the same profiles."""

from __future__ import annotations

from pathlib import Path

import duckdb

from bench.sync_source import COLUMNS
from roster.model.schema import USER_BUILTINS
from roster.settings import Settings


class ByHand:
    """The work of a sync as statements, on a database of its own that has the same profiles."""

    def __init__(self, database: Path, settings: Settings) -> None:
        self._connection = duckdb.connect(
            str(database),
            config={
                "threads": settings.engine_threads,
                "memory_limit": settings.engine_memory,
                "checkpoint_threshold": "256MB",
                "preserve_insertion_order": False,
            },
        )

    def sync(self, path: Path) -> list[int]:
        """Store the last row of each key, join the profiles with the last row of each address; see `_COUNTS`."""
        rows = f"SELECT *, file_row_number AS n FROM read_parquet('{path}', file_row_number = true)"
        if path.suffix == ".csv":
            rows = f"SELECT *, row_number() OVER () AS n FROM read_csv('{path}')"
        run = self._connection.execute
        run(f"CREATE OR REPLACE TEMP VIEW given AS {rows}")
        run("CREATE OR REPLACE TABLE hand_rows AS FROM given WHERE n IN (SELECT max(n) FROM given GROUP BY email)")
        run(f"CREATE OR REPLACE TABLE hand_joined AS {_JOINED}")
        return [int(number) for number in run(_COUNTS).fetchall()[0]]

    def close(self) -> None:
        self._connection.close()


_OURS = "lower(trim(users.user_email))"
_LAST = """SELECT *, lower(trim(email)) AS email_key FROM hand_rows
    WHERE n IN (SELECT max(n) FROM hand_rows GROUP BY lower(trim(email)))"""
_PROFILE = ", ".join(f'users."{builtin.id}"' for builtin in USER_BUILTINS)
_JOINED = f"SELECT {_PROFILE}, last.* FROM users LEFT JOIN ({_LAST}) AS last ON last.email_key = {_OURS}"
_CELLS = " + ".join(f"count({name})" for name in COLUMNS if name != "email")
_COUNTS = f"""
    SELECT given, rows, keys, matched, cells, profiles, profiles_matched
    FROM (SELECT count(*) AS given FROM given),
        (SELECT count(*) AS rows, {_CELLS} AS cells, count(DISTINCT lower(trim(email))) AS keys FROM hand_rows),
        (SELECT count(*) AS profiles, count(email_key) AS profiles_matched FROM hand_joined),
        (SELECT count(*) AS matched FROM ({_LAST}) AS last
            WHERE email_key IN (SELECT {_OURS} FROM users))"""
"""Rows given, stored, keys among them, those that match, filled cells; profiles, those that match."""
