"""Owns who is behind a number of an analysis, read as the analysis itself reads its request; and listing them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from roster.analyses.event_world import EventWorld
from roster.analyses.members import Part, keys_behind
from roster.analyses.people import Cell, Passage, Stop, keys_in_cell, keys_of_events, keys_on_paths, list_people
from roster.analyses.sankey import Kind, Pathways
from roster.analyses.static_lists import Listing, list_of
from roster.base.errors import Code, Error
from roster.base.time import Range
from roster.model.schema import KEY_ATTRIBUTE, Entity
from roster.operations.analysis import AT, QUERY_AT, answer, frame, read_range, told_range
from roster.operations.analytics import read_analytics
from roster.operations.bodies import decode
from roster.operations.bodies_static import (
    BarBody,
    BehindAttributes,
    BucketBody,
    CellBody,
    LinkBody,
    PeopleBody,
    StepBody,
)
from roster.operations.context import Context, Reply, Request
from roster.operations.event_worlds import event_world_of
from roster.operations.journey_requests import (
    read_dropped,
    read_expression,
    read_flow_groups,
    read_journey,
    read_target,
    told_journey,
)
from roster.operations.profiles import COLUMNS_MAX, shown
from roster.operations.retention_requests import read_retention, read_retention_groups, read_scope, told_retention
from roster.operations.sankey import read_pathways, told_pathways

BEHIND = ("analytics", "journey", "retention", "sankey")


@dataclass(frozen=True, slots=True)
class Found:
    """Whose list, who is on it, what was understood of the request, and warnings."""

    entity: Entity
    listing: Listing
    understood: dict[str, Any]
    warnings: tuple[str, ...] = ()


def query_people(context: Context, request: Request) -> Reply:
    """The users or accounts behind a bar, a step, a cell or a link of an analysis, with attributes of theirs."""
    asked = decode(PeopleBody, request.body).data.attributes
    ways = [name for name in BEHIND if getattr(asked, name) is not None]
    if len(ways) != 1:
        raise Error(Code.INVALID, "it is not clear behind what", at=AT, hint=f"exactly one of {', '.join(BEHIND)}")
    world = event_world_of(context)
    found = find_behind(world, asked)
    limit = min(asked.limit or context.limits.profiles_limit_default, context.limits.profiles_limit_max)
    columns = tuple(dict.fromkeys(asked.columns or (KEY_ATTRIBUTE[found.entity],)))
    if len(columns) > COLUMNS_MAX:
        hint = f"at most {COLUMNS_MAX}"
        raise Error(Code.INVALID, f"{len(columns)} columns are too many", at=f"{AT}/columns", hint=hint)
    plan, doubts = list_people(world, found.entity, found.listing.keys, columns, limit)
    warnings = (*found.warnings, *doubts)
    plans = (plan, found.listing.given, found.listing.profiles)
    answers = answer(context, request, world, "QueryPeople", plans, warnings)
    if isinstance(answers, Reply):
        return answers
    attributes = {
        "entity": found.entity.value,
        "records": [dict(zip(columns, map(shown, row), strict=True)) for row in answers[0].rows],
        "total": answers[2].rows[0][0],
        "without_profile": answers[1].rows[0][0] - answers[2].rows[0][0],
    }
    return frame(context.clock.new_id(), "people", attributes, found.understood | {"limit": limit}, warnings)


def find_behind(world: EventWorld, asked: BehindAttributes) -> Found:
    """Who is behind the one number that is asked for. Errors: INVALID with the place."""
    entity = Entity(asked.entity or Entity.USERS)
    if asked.analytics is not None:
        return _of_bar(world, entity, asked.analytics)
    if asked.sankey is not None:
        return _of_link(world, entity, asked.sankey)
    if asked.retention is not None:
        return _of_cell(world, asked, asked.retention)
    assert asked.journey is not None
    return of_step(world, entity, asked.journey)


def _of_bar(world: EventWorld, entity: Entity, asked: BarBody) -> Found:
    with _placed("analytics"):
        selection, _, groups = read_analytics(asked.from_, asked.to, asked.query)
        tags, bucket = _tags(asked.group_tags, len(groups)), _bucket(asked.bucket, selection.span)
        keys, warnings = keys_of_events(world, entity, selection, groups, tags, bucket)
    understood = told_range(selection.span) | {"group_tags": list(tags)} | _told_bucket(bucket)
    return Found(entity, list_of(world, entity, keys), understood, tuple(warnings))


def _tags(given: Sequence[str] | None, groups: int) -> tuple[str, ...]:
    """The values that tell one group. Error: INVALID unless there is one for each facet of `group_by`."""
    if len(given or ()) != groups:
        told = "it is not clear which group" if given is None else f"{len(given)} group_tags"
        hint = f"give group_tags: one value for each of {groups} groups, as the answer told them"
        raise Error(Code.INVALID, told, at=f"{AT}/group_tags", hint=hint)
    return tuple(given or ())


def _bucket(given: BucketBody | None, span: Range) -> Range | None:
    """The bucket of a point. Error: INVALID where it has nothing of the range."""
    if given is None:
        return None
    bucket = read_range(given.from_, given.to, f"{AT}/bucket")
    if bucket.to_ms <= span.from_ms or bucket.from_ms >= span.to_ms:
        hint = "from and to beside it are those of the whole series"
        raise Error(Code.INVALID, "the bucket is out of the range", at=f"{AT}/bucket", hint=hint)
    return bucket


def _told_bucket(bucket: Range | None) -> dict[str, Any]:
    return {} if bucket is None else {"bucket": told_range(bucket)}


def _of_link(world: EventWorld, entity: Entity, asked: LinkBody) -> Found:
    with _placed("sankey"):
        source = _stop(asked.source_node, asked.source_type, "source")
        target = _stop(asked.target_node, asked.target_type, "target")
        if source == target == Stop():
            hint = "give source_node, target_node or both; of other and dropoff the type, as source_type or target_type"
            raise Error(Code.INVALID, "it is not clear which link", at=AT, hint=hint)
        paths, passage = read_pathways(world, asked), Passage(asked.column, source, target)
        _check_link(paths, passage)
        keys, warnings = keys_on_paths(world, entity, paths, passage)
    link = {"column": asked.column, "source_node": source.value, "target_node": target.value}
    link |= {"source_type": source.kind.value, "target_type": target.kind.value}
    return Found(entity, list_of(world, entity, keys), told_pathways(paths) | {"link": link}, tuple(warnings))


def _stop(node: str | None, type: str | None, side: str) -> Stop:
    """A side of a link. Error: INVALID for a name of what has none."""
    kind = Kind(type or Kind.REGULAR)
    if kind is not Kind.REGULAR and node is not None:
        hint = f"leave it out: {kind} is told by its type alone"
        raise Error(Code.INVALID, f"{side}_node has no meaning here", at=f"{AT}/{side}_node", hint=hint)
    return Stop(node, kind)


def _check_link(paths: Pathways, passage: Passage) -> None:
    """Error: INVALID for a link that no diagram of such paths has."""
    last = paths.columns - 2
    if passage.column > last:
        hint = f"0 to {last}"
        raise Error(Code.INVALID, f"no link starts in column {passage.column}", at=f"{AT}/column", hint=hint)
    if passage.target.kind is not Kind.DROPOFF:
        return
    if paths.ends is not None:
        raise Error(Code.INVALID, "paths that end at a value never drop off", at=f"{AT}/target_type")
    if passage.column == 0:
        hint = f"1 to {last}: only paths of two stops count"
        raise Error(Code.INVALID, "nothing drops off in column 0", at=f"{AT}/column", hint=hint)


def of_step(world: EventWorld, entity: Entity, asked: StepBody, way: str = "journey") -> Found:
    """Who converted at a step of a journey, or dropped off there; `way`: where it stands in the request."""
    query = asked.query
    span = read_range(asked.from_, asked.to, f"{AT}/{way}")
    dropped = query.conversion_type == "drop-off"
    with _placed(way):
        journey = read_journey(
            query.search,
            span,
            total=asked.aggregation == "count",
            identified_only=asked.exclude_anonymous_traffic or False,
            entities=query.entity_filters,
        )
        aliases = read_expression(query.search)
        target = (read_dropped if dropped else read_target)(query.target, aliases, f"{QUERY_AT}/target")
        groups, bucket = read_flow_groups(query.group_by, aliases), _bucket(asked.bucket, span)
        part = Part(groups, _tags(asked.group_tags, len(groups)), bucket)
        keys, warnings = keys_behind(world, entity, journey, target, dropped=dropped, part=part)
    understood = told_journey(journey) | {
        "conversion_type": "drop-off" if dropped else "conversion",
        "target_steps": [target.start, target.end],
        "group_tags": list(part.tags),
    }
    return Found(entity, list_of(world, entity, keys), understood | _told_bucket(bucket), tuple(warnings))


def _of_cell(world: EventWorld, asked: BehindAttributes, given: CellBody) -> Found:
    query, at = given.query, f"{AT}/retention"
    span: Range = read_range(given.from_, given.to, at)
    with _placed("retention"):
        identified_only = given.exclude_anonymous_traffic or False
        retention, every, again = read_retention(query.search, span, identified_only=identified_only)
        scope = read_scope(query.computation_scope, retention.periods)
        if scope.cohort is None or scope.column is None:
            place = f"{QUERY_AT}/computation_scope/cohort_target"
            raise Error(Code.INVALID, "a list needs one cohort", at=place, hint='use {"type": "index", "value": 0}')
        groups, _ = read_retention_groups(query.group_by)
        cell = Cell(scope.cohort, scope.column, groups, _tags(given.group_tags, len(groups)))
        keys, warnings = keys_in_cell(world, retention, cell)
    if asked.entity not in (None, retention.entity.value):
        hint = f"retention_entity makes it a list of {retention.entity}"
        raise Error(Code.INVALID, f"the cell has no {asked.entity}", at=f"{AT}/entity", hint=hint)
    understood = told_retention(retention, every, again)
    understood |= {"cell": {"cohort": scope.cohort, "return_period": scope.column}, "group_tags": list(cell.tags)}
    return Found(retention.entity, list_of(world, retention.entity, keys), understood, tuple(warnings))


@contextmanager
def _placed(way: str) -> Iterator[None]:
    """Errors of what is read as in a query of its own get the place that it has here."""
    try:
        yield
    except Error as error:
        at = error.at.replace(AT, f"{AT}/{way}", 1)
        raise Error(error.code, error.message, at=at, hint=error.hint) from error
