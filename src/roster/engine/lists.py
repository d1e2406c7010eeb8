"""Owns kept lists of keys in DuckDB: storing, dropping and telling them. Decides nothing about who is on one."""

from __future__ import annotations

from collections.abc import Sequence

import duckdb

from roster.base.time import epoch_ms, instant
from roster.engine.connection import Duck
from roster.engine.duckdb import DuckEngine
from roster.model.schema import Entity
from roster.ports import Budget, Cancel, KeptList
from roster.query.expr import Column
from roster.query.plan import Plan, Project, schema_of

_KEYS = "SELECT DISTINCT $list, key FROM {rows} WHERE key IS NOT NULL"
_LISTS = """
    SELECT lists.list, entity, kept_at, count(key) FROM static_lists AS lists
    LEFT JOIN static_members AS members ON lists.list = members.list GROUP BY ALL ORDER BY kept_at, lists.list"""


class DuckLists:
    """The Lists port on DuckDB."""

    def __init__(self, duck: Duck, engine: DuckEngine) -> None:
        self._duck = duck
        self._engine = engine

    def keep(
        self, id: str, entity: Entity, plan: Plan, at_ms: int, budget: Budget, cancel: Cancel | None = None
    ) -> None:
        """Keep the keys of a plan's first column; see the port. The plan runs before the writing begins."""
        first = schema_of(plan)[0]
        keys = Project(plan, (("key", Column(first.name, first.type)),))
        with self._engine.written(keys, "parquet", budget, cancel) as path:
            self._put(id, entity, at_ms, "read_parquet($rows)", str(path))

    def keep_keys(self, id: str, entity: Entity, keys: Sequence[str], at_ms: int) -> None:
        """Keep these keys."""
        self._put(id, entity, at_ms, "(SELECT unnest($rows::VARCHAR[]) AS key)", list(keys))

    def _put(self, id: str, entity: Entity, at_ms: int, rows: str, given: str | list[str]) -> None:
        with self._duck.write() as connection:
            _drop(connection, [id])
            connection.execute("INSERT INTO static_lists VALUES (?, ?, ?)", [id, entity.value, instant(at_ms)])
            connection.execute(f"INSERT INTO static_members {_KEYS.format(rows=rows)}", {"list": id, "rows": given})

    def drop(self, *ids: str) -> None:
        """Forget lists."""
        if ids:
            with self._duck.write() as connection:
                _drop(connection, ids)

    def list_lists(self) -> list[KeptList]:
        """All lists, the oldest first."""
        connection = self._duck.cursor()
        try:
            rows = connection.execute(_LISTS).fetchall()
        finally:
            connection.close()
        return [KeptList(id, Entity(entity), epoch_ms(kept_at), count) for id, entity, kept_at, count in rows]


def _drop(connection: duckdb.DuckDBPyConnection, ids: Sequence[str]) -> None:
    for table in ("static_lists", "static_members"):
        connection.execute(f"DELETE FROM {table} WHERE list IN (SELECT unnest($ids))", {"ids": list(ids)})
