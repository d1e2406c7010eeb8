"""Owns the operations on the history of a mapping: its versions, their differences, undo. Keeps nothing by itself."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from roster.base.time import instant, iso_ms
from roster.base.values import Difference
from roster.model.history import content_of, restore, undo
from roster.model.mapping import Mapping, Version, diff_versions
from roster.operations.context import Context, Reply, Request, entity_of
from roster.operations.mapping import commit, etag, resume_paused
from roster.operations.profiles import envelope

VERSIONS_LISTED, VERSIONS_LISTED_MAX = 100, 1000


def list_mapping_versions(context: Context, request: Request) -> Reply:
    """Versions of the mapping, newest first: who, when, why, the request and what it changed."""
    limit = request.number("page[limit]", VERSIONS_LISTED, 1, VERSIONS_LISTED_MAX)
    before = request.version("page[before]")
    found = context.store.list_versions(entity_of(request), before=before, limit=limit + 1)
    shown = [_shown_change(v) | {"request": v.request, "diff": _shown_diff(v.diff)} for v in found[:limit]]
    body = envelope("mapping_versions", "mapping_versions", {"versions": shown})
    if len(found) > limit:
        body["meta"] = {"page": {"limit": limit, "before": shown[-1]["version"]}}
    return Reply(body)


def diff_mapping(context: Context, request: Request) -> Reply:
    """The differences between two versions of the mapping, with who, when and why of the changes between."""
    entity = entity_of(request)
    newer = context.store.read_mapping(entity, request.version("to"))
    start = request.version("from")
    older = context.store.read_mapping(entity, max(0, newer.version - 1) if start is None else start)
    low, high = sorted((older.version, newer.version))
    most = VERSIONS_LISTED_MAX
    between = context.store.list_versions(entity, before=high + 1, after=low, limit=most + 1)
    warnings = [f"only the newest {most} of the {high - low} versions between are told"] if len(between) > most else []
    attributes = {
        "from": older.version,
        "to": newer.version,
        "diff": _shown_diff(diff_versions(older, newer)),
        "versions": [_shown_change(v) for v in between[:most]],
    }
    return Reply(envelope(entity.value, "mapping_diff", attributes, warnings))


def undo_mapping(context: Context, request: Request) -> Reply:
    """Bring back the mapping before the newest change not undone yet, or that of version `to`, as a new version."""
    entity = entity_of(request)
    to = request.version("to")
    met: list[Mapping] = []

    def past(version: int) -> Mapping:
        # read beside the change's transaction, not in it: a version that is kept never changes
        return context.store.read_mapping(entity, version)

    def change(mapping: Mapping) -> Mapping:
        met[:] = [mapping, undo(mapping, past) if to is None else restore(mapping, past, to)]
        return met[1]

    def follow() -> None:
        context.syncs.declare()
        known = {c.id: c.fields for c in met[0].connections}
        for c in met[1].connections:
            if c.fields != known.get(c.id):
                resume_paused(context, entity, c.id)

    kept = {"undo": {} if to is None else {"to": to}}
    reply = commit(context, request, entity, change, context.clock.now_ms(), then=follow, kept=kept)
    if request.flag("dry_run"):
        return reply
    before, after = met
    attributes = {
        "version": after.version,
        "restores": content_of(after),
        "diff": _shown_diff(diff_versions(before, after)),
    }
    return Reply(envelope(entity.value, "mapping_undone", attributes), {"etag": etag(after.version)})


def _shown_change(version: Version) -> dict[str, Any]:
    return {
        "version": version.version,
        "at": iso_ms(instant(version.at_ms)),
        "who": version.who,
        "why": version.why,
        "restores": version.restores,
    }


def _shown_diff(diff: Iterable[Difference]) -> list[dict[str, Any]]:
    return [{"at": d.at, "before": d.before, "after": d.after} for d in diff]
