"""Owns the part of the Events port that ends the life of what is kept, and shows what is kept of one user."""

from __future__ import annotations

from typing import Any

import duckdb
import structlog

from roster.base.time import instant
from roster.engine import user_data
from roster.engine.connection import Duck
from roster.engine.erasure import erase
from roster.engine.profiles import Changed
from roster.engine.retention import forget
from roster.ports import Erased, EventPage, Forgotten

log = structlog.get_logger("roster.engine")


class DuckLifecycle:
    """Erasing, forgetting and reading one user on DuckDB."""

    def __init__(self, duck: Duck, on_profiles_changed: Changed) -> None:
        self._duck = duck
        self._on_profiles_changed = on_profiles_changed

    def erase_user(self, user_id: str, *, dry_run: bool = False) -> Erased:
        """Remove all that is kept of a user, in one transaction; see the port."""
        with self._duck.write() as connection:
            found = erase(connection, user_id, self._on_profiles_changed, dry_run=dry_run)
        if not dry_run:
            self._settle_file()
        return found

    def _settle_file(self) -> None:
        """Move the log of writes into the file: the log has the deleted rows of the last minutes."""
        try:
            self._duck.checkpoint()
        except duckdb.TransactionException as error:
            log.warning("the checkpoint after an erase waits for the next one", reason=str(error))

    def forget_before(self, before_ms: int) -> Forgotten:
        """Remove what is older than a time; see the port."""
        return forget(self._duck, instant(before_ms), self._on_profiles_changed)

    def list_links(self, user_id: str) -> dict[str, list[dict[str, Any]]]:
        """The accounts and anonymous ids of a user."""
        connection = self._duck.cursor()
        try:
            return user_data.list_links(connection, user_id)
        finally:
            connection.close()

    def list_events(self, user_id: str, *, limit: int, after: tuple[int, str] | None = None) -> EventPage:
        """The events of a user; see the port."""
        connection = self._duck.cursor()
        try:
            return user_data.list_events(connection, user_id, limit, after)
        finally:
            connection.close()
