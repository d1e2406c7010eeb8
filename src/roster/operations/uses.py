"""Owns what is told of an attribute's uses: segments, saved queries and recent callers that name it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from roster.analyses.names import Names, names_of_segment
from roster.base.errors import Code, Error, did_you_mean
from roster.base.time import instant, iso_ms
from roster.model.mapping import Mapping
from roster.model.saved_query import SavedQuery
from roster.model.schema import Entity
from roster.model.segment import Segment
from roster.model.use import Use
from roster.operations.context import Context, Reply, Request, entity_of
from roster.operations.event_worlds import event_world_around
from roster.operations.profiles import envelope, world_of
from roster.operations.saved_queries import names_of_query


@dataclass(frozen=True, slots=True)
class Uses:
    """Who names one attribute; beside segments and queries the spellings, of which old ids are some."""

    id: str
    segments: tuple[tuple[Segment, tuple[str, ...]], ...] = ()
    queries: tuple[tuple[SavedQuery, tuple[str, ...]], ...] = ()
    callers: tuple[Use, ...] = ()

    def is_used(self) -> bool:
        return bool(self.segments or self.queries or self.callers)


def used_by(context: Context, entity: Entity, ids: Sequence[str]) -> dict[str, Uses]:
    """Who names each of these custom attributes, by the ids asked; old ids mean what queries take them for.

    Ids that mean nothing are used by nobody. Callers: the latest first.
    """
    world = world_of(context, entity)
    around = event_world_around(context, world)
    named = {id: world.find(id) for id in ids}
    segments = [(s, _readable(partial(names_of_segment, around, entity, s))) for s in context.store.list_segments()]
    asked = [q for q in context.store.list_queries() if q.entity is entity]
    queries = [(q, _readable(partial(names_of_query, context, world, q))) for q in asked]
    callers = [(use, world.find(use.attribute)) for use in context.uses.list_uses(entity)]
    found = {}
    for id, attribute in named.items():
        if attribute is None or not attribute.is_custom:
            found[id] = Uses(id.removeprefix("@"))
            continue
        name = attribute.name
        found[id] = Uses(
            name,
            tuple((s, _spelled(names, name)) for s, names in segments if name in names.values()),
            tuple((q, _spelled(names, name)) for q, names in queries if name in names.values()),
            tuple(use for use, meant in callers if meant is not None and meant.name == name),
        )
    return found


def _readable(read: Callable[[], Names]) -> Names:
    """What something names; what cannot be read any more names nothing."""
    try:
        return read()
    except Error:
        return {}


def _spelled(names: Names, id: str) -> tuple[str, ...]:
    return tuple(spelled for spelled, meant in names.items() if meant == id)


def get_field_uses(context: Context, request: Request) -> Reply:
    """The segments, saved queries and recent callers that name a field, and which of them by an old id."""
    entity, id = entity_of(request), request.path["id"]
    world = world_of(context, entity)
    attribute = world.find(id)
    if attribute is None or not attribute.is_custom:
        customs = [a.name for a in world.customs()]
        hint = did_you_mean(id.removeprefix("@"), customs) or "GetMapping lists the attributes"
        raise Error(Code.NOT_FOUND, f"{entity} have no custom field {id!r}", at="parameter id", hint=hint)
    uses = used_by(context, entity, [attribute.name])[attribute.name]
    old_ids = [
        {"old_id": a.old_id, "until": iso_ms(instant(a.at_ms + world.alias_ms))} | _tally(_by_old_id(uses, a.old_id))
        for a in world.mapping.aliases
        if a.new_id == attribute.name and world.find(a.old_id) is attribute
    ]
    body = {"field": attribute.name, "entity": entity.value} | shown_uses(context, uses) | {"old_ids": old_ids}
    return Reply(envelope(f"{entity}/{attribute.name}", "field_uses", body))


def shown_uses(context: Context, uses: Uses) -> dict[str, Any]:
    """Uses as the API shows them: `by` are the spellings; `old_id`, whether one was renamed away already."""
    names = {key.owner_id: key.name for key in context.store.list_keys()}
    return {
        "segments": [
            {"id": s.id, "name": s.name, "by": list(by), "old_id": any(one != uses.id for one in by)}
            for s, by in uses.segments
        ],
        "queries": [
            {"name": q.name, "operation": q.operation, "by": list(by), "old_id": any(one != uses.id for one in by)}
            for q, by in uses.queries
        ],
        "callers": [
            {
                "caller": use.caller,
                "key": names.get(use.caller, ""),
                "operation": use.operation,
                "by": use.spelled,
                "old_id": use.is_old,
                "count": use.count,
                "last_at": iso_ms(instant(use.last_ms)),
            }
            for use in uses.callers
        ],
    }


def _by_old_id(uses: Uses, old_id: str) -> list[Use]:
    """Uses of an id after the field was renamed: before that, it was no old id."""
    return [use for use in uses.callers if use.spelled == old_id and use.is_old]


def _tally(uses: Sequence[Use]) -> dict[str, Any]:
    last_ms = max((use.last_ms for use in uses), default=None)
    return {
        "count": sum(use.count for use in uses),
        "last_at": None if last_ms is None else iso_ms(instant(last_ms)),
    }


def shown_aliases(context: Context, mapping: Mapping, connection_id: str) -> str:
    """The old ids of a connection's fields that still answer, and whether anybody used them since the rename."""
    now_ms, alias_ms = context.clock.now_ms(), context.limits.alias_ms()
    live = [a for a in mapping.aliases if a.connection_id == connection_id and now_ms < a.at_ms + alias_ms]
    if not live:
        return ""
    kept = context.uses.list_uses(mapping.entity)
    told = []
    for alias in live:
        uses = [u for u in kept if u.spelled == alias.old_id and u.is_old and u.last_ms >= alias.at_ms]
        tally = _tally(uses)
        times = f"{tally['count']} time{'s' if tally['count'] != 1 else ''}"
        told.append(
            f"{alias.old_id} -> {alias.new_id} "
            + (f"(used {times}, last {tally['last_at']})" if uses else "(not used)")
        )
    return "; ".join(told)
