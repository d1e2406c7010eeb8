"""Owns the records of who used which attribute in SQL; counts nothing itself."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import and_, bindparam, case, delete, insert, select, update

from roster.model.schema import Entity
from roster.model.use import Use, add_up, latest_first
from roster.store.connections import Connections
from roster.store.records import record_of_use, use_of
from roster.store.tables import uses

PLACE = ("entity", "attribute", "spelled", "operation", "caller")
LATER = case((uses.c.last_ms < bindparam("b_last_ms"), bindparam("b_last_ms")), else_=uses.c.last_ms)
ADD = (
    update(uses)
    .where(and_(*(uses.c[name] == bindparam(f"b_{name}") for name in PLACE)))
    .values(count=uses.c["count"] + bindparam("b_count"), last_ms=LATER)
)


class UseRecords:
    """The part of the records that holds uses; every method is one transaction. The audit log has nothing of them."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections

    def add_uses(self, given: Sequence[Use], forget_before_ms: int) -> None:
        """Add to what is kept of each place, and forget places that were last used before that time."""
        with self._connections.write() as connection:
            connection.execute(delete(uses).where(uses.c.last_ms < forget_before_ms))
            known = {tuple(row) for row in connection.execute(select(*(uses.c[name] for name in PLACE)))}
            records = [(use.place in known, record_of_use(use)) for use in add_up(given)]
            new = [record for is_known, record in records if not is_known]
            old = [{f"b_{k}": v for k, v in record.items()} for is_known, record in records if is_known]
            if new:
                connection.execute(insert(uses), new)
            if old:
                connection.execute(ADD, old)

    def list_uses(self, entity: Entity) -> list[Use]:
        """The latest first."""
        with self._connections.read() as connection:
            rows = connection.execute(select(uses).where(uses.c.entity == entity.value)).mappings().all()
        return latest_first(use_of(row) for row in rows)
