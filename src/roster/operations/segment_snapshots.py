"""Owns snapshots: who belonged to a segment at a time, kept as lists of its keys; and which lists are still needed."""

from __future__ import annotations

from collections.abc import Iterable

import structlog

from roster.analyses.event_world import EventWorld
from roster.analyses.members import members
from roster.base.errors import Error
from roster.model.segment import Segment, lists_of
from roster.operations.context import Context, Request
from roster.operations.event_worlds import event_world_of
from roster.ports import KeptList

log = structlog.get_logger("roster.segments")
DAY_MS = 86_400_000
DAILY_MS = DAY_MS - 3_600_000
"""A snapshot younger than this is today's: jobs do not begin at the same moment each day."""


def snapshots_of(lists: Iterable[KeptList], segment: Segment) -> list[KeptList]:
    """The snapshots of a segment that are of its present entity, the oldest first."""
    prefix = f"{segment.id}@"
    return [kept for kept in lists if kept.id.startswith(prefix) and kept.entity is segment.entity]


def keep_snapshot(context: Context, world: EventWorld, segment: Segment, request: Request | None = None) -> None:
    """Remember who belongs to a segment now. A failure is told in the log only: the next one comes in a day."""
    if context.limits.segment_snapshots_days == 0:
        return
    now_ms, cancel = world.now_ms, request.cancel if request else None
    try:
        plan = members(world, segment)
        context.lists.keep(f"{segment.id}@{now_ms}", segment.entity, plan, now_ms, context.limits.budget(), cancel)
    except Error as error:
        log.warning("a snapshot was not kept", segment=segment.id, why=error.text())


def renew_snapshots(context: Context) -> None:
    """Today's snapshot of each segment, where there is none yet; then forget what is too old or nobody's."""
    lists = context.lists.list_lists()
    for segment in context.store.list_segments():
        kept = snapshots_of(lists, segment)
        if not kept or kept[-1].kept_ms < context.clock.now_ms() - DAILY_MS:
            keep_snapshot(context, event_world_of(context), segment)
    drop_unneeded(context)


def drop_unneeded(context: Context, before: Segment | None = None) -> None:
    """Forget old snapshots, and lists that no segment names any more: those of `before`, a segment as it was, now.

    Others that nobody names may just be being made, and are left for a day.
    """
    segments = context.store.list_segments()
    named = {id for segment in segments for id in lists_of(segment)}
    known = {segment.id for segment in segments}
    theirs = {before.id, *lists_of(before)} if before else set()
    now_ms = context.clock.now_ms()
    oldest_ms = now_ms - int(context.limits.segment_snapshots_days * DAY_MS)

    def is_needed(kept: KeptList) -> bool:
        owner, is_snapshot, _ = kept.id.partition("@")
        if is_snapshot and owner in known:
            return kept.kept_ms >= oldest_ms
        return owner not in theirs and kept.kept_ms >= now_ms - DAY_MS

    kept = [one for one in context.lists.list_lists() if one.id not in named]
    context.lists.drop(*(one.id for one in kept if not is_needed(one)))
