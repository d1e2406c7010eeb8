"""Owns reading journeys out of requests: the expression, its nodes, keys, filters, targets and groups."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from roster.analyses.base_query import BaseQuery
from roster.analyses.funnel import FlowGroup
from roster.analyses.journey import Exclusion, Journey, Key, Node, SessionFilter, Target, TimeFilter
from roster.base.errors import Code, Error, did_you_mean
from roster.base.time import Range
from roster.operations.analysis import GROUPS_MAX, QUERY_AT, read_audience, read_base_query, read_group, told_range
from roster.operations.bodies_analyses import JoinKeysBody
from roster.operations.bodies_journey import (
    ExclusionBody,
    GraphFilterBody,
    GraphGroupByBody,
    JourneySearchBody,
    NodeTargetBody,
    PathTargetBody,
)
from roster.query.expr import CompareOp

STEPS_MAX = 50
WINDOW_DEFAULT_MS = 24 * 3_600_000
SEARCH_AT = f"{QUERY_AT}/search"
DROPOFF_FILTER = "__dd.dropoff_rate"
AGGREGATION_DEFAULT = "cardinality"


def read_journey(
    body: JourneySearchBody,
    span: Range,
    *,
    total: bool,
    identified_only: bool = False,
    entities: str | None = None,
    at: str = SEARCH_AT,
) -> Journey:
    """The journey a request is about; `at`: where its search stands. Errors: INVALID with the place and what would
    be right.
    """
    aliases = read_expression(body, at)
    nodes = tuple(Node(a, read_base_query(body.node_objects[a], f"{at}/node_objects/{a}")) for a in aliases)
    key, secondary = read_keys(body.join_keys, at)
    given = body.filters
    graph = (given.graph_filters if given else None) or []
    text = (given.string_filter if given else None) or ""
    return Journey(
        span,
        nodes,
        key,
        secondary,
        read_audience(given.audience_filters if given else None, f"{at}/filters/audience_filters"),
        BaseQuery(text, f"{at}/filters/string_filter"),
        body.conversion_window_ms or (None if key is Key.SESSION else WINDOW_DEFAULT_MS),
        total,
        tuple(_filter(f, aliases, f"{at}/filters/graph_filters/{n}") for n, f in _timed(graph)),
        tuple(_exclusion(e, aliases, f"{at}/exclusions/{n}") for n, e in enumerate(body.exclusions or ())),
        body.order == "strict",
        body.clip_to_range or False,
        body.include_active_sessions or False,
        identified_only,
        BaseQuery(entities, f"{QUERY_AT}/entity_filters") if entities and entities.strip() else None,
        at,
    )


def read_expression(body: JourneySearchBody, at: str = SEARCH_AT) -> list[str]:
    """The aliases of an expression in order. Errors: INVALID for none, too many, or one without a node."""
    at = f"{at}/expression"
    aliases = [part.strip() for part in body.expression.split("->")]
    if not all(aliases):
        raise Error(Code.INVALID, "the expression has an empty step", at=at, hint="write it as A -> B -> C")
    if len(aliases) > STEPS_MAX:
        raise Error(Code.INVALID, f"{len(aliases)} steps are too many", at=at, hint=f"at most {STEPS_MAX}")
    for alias in aliases:
        if alias not in body.node_objects:
            known = tuple(body.node_objects)
            hint = did_you_mean(alias, known) or f"nodes: {', '.join(known)}"
            raise Error(Code.INVALID, f"the expression names {alias!r}, which is no node", at=at, hint=hint)
    return aliases


def read_keys(given: JoinKeysBody | None, at: str) -> tuple[Key, tuple[str, ...]]:
    """The primary key and the secondary ones; `at`: the search they belong to. Error: INVALID for an unknown one."""
    primary = (given.primary if given else None) or Key.SESSION.value
    if primary not in tuple(Key):
        hint = f"allowed: {', '.join(Key)}"
        raise Error(Code.INVALID, f"unknown join key {primary!r}", at=f"{at}/join_keys/primary", hint=hint)
    secondary = (given.secondary if given else None) or []
    return Key(primary), tuple(name for name in dict.fromkeys(secondary) if name != primary)


def _timed(filters: Sequence[GraphFilterBody]) -> list[tuple[int, GraphFilterBody]]:
    """The filters of flows; that of the drop-off rate is one of groups."""
    return [(n, f) for n, f in enumerate(filters) if f.name != DROPOFF_FILTER]


def _filter(body: GraphFilterBody, aliases: list[str], at: str) -> TimeFilter | SessionFilter:
    made = TimeFilter if body.name == "__dd.time_to_convert" else SessionFilter
    return made(read_target(body.target, aliases, f"{at}/target"), body.operator, body.value)


def _exclusion(body: ExclusionBody, aliases: list[str], at: str) -> Exclusion:
    after = 0 if body.after is None else _place(body.after, aliases, f"{at}/after")
    before = len(aliases) - 1 if body.before is None else _place(body.before, aliases, f"{at}/before")
    if after >= before:
        raise Error(Code.INVALID, "an exclusion ends before it begins", at=at, hint="after names an earlier step")
    return Exclusion(BaseQuery(body.query, f"{at}/query"), after, before)


def read_target(body: NodeTargetBody | PathTargetBody | None, aliases: list[str], at: str) -> Target:
    """From which step to which: a node from the first step on, none means all steps. Errors: INVALID."""
    match body:
        case None:
            return Target(0, len(aliases) - 1)
        case NodeTargetBody():
            return Target(0, _place(body.value, aliases, f"{at}/value"))
        case PathTargetBody():
            start, end = _place(body.start, aliases, f"{at}/start"), _place(body.end, aliases, f"{at}/end")
            if start > end:
                raise Error(Code.INVALID, f"{body.end!r} comes before {body.start!r}", at=at)
            return Target(start, end)


def read_dropped(body: NodeTargetBody | PathTargetBody | None, aliases: list[str], at: str) -> Target:
    """Where flows dropped off: at a node means that they took it and not the next one."""
    if not isinstance(body, NodeTargetBody):
        return read_target(body, aliases, at)
    place = _place(body.value, aliases, f"{at}/value")
    if place == len(aliases) - 1:
        hint = f"nobody drops off at the last step; one of {', '.join(aliases[:-1])}"
        raise Error(Code.INVALID, f"{body.value!r} is the last step", at=f"{at}/value", hint=hint)
    return Target(place, place + 1)


def _place(alias: str, aliases: list[str], at: str) -> int:
    if alias not in aliases:
        hint = did_you_mean(alias, aliases) or f"steps: {', '.join(aliases)}"
        raise Error(Code.INVALID, f"{alias!r} is no step of the expression", at=at, hint=hint)
    return aliases.index(alias)


@dataclass(frozen=True, slots=True)
class DropoffFilter:
    """Only groups whose drop-off rate between two steps, in percent, compares so."""

    target: Target
    op: CompareOp
    percent: int


def read_dropoffs(body: JourneySearchBody, aliases: list[str]) -> tuple[DropoffFilter, ...]:
    """The graph filters that choose groups of a funnel. Errors: INVALID for a target that is none."""
    given = (body.filters.graph_filters if body.filters else None) or ()
    return tuple(
        DropoffFilter(
            read_target(f.target, aliases, f"{SEARCH_AT}/filters/graph_filters/{n}/target"), f.operator, f.value
        )
        for n, f in enumerate(given)
        if f.name == DROPOFF_FILTER
    )


def without_effect(dropoffs: Sequence[DropoffFilter]) -> tuple[str, ...]:
    """A warning where such filters find no groups to choose from."""
    told = f"graph filter {DROPOFF_FILTER} chooses groups of a funnel: it has no effect here"
    return (told,) if dropoffs else ()


def read_flow_groups(
    bodies: Sequence[GraphGroupByBody] | None, aliases: list[str], aggregation: str = AGGREGATION_DEFAULT
) -> tuple[FlowGroup, ...]:
    """Groups by the value on the event of a step, by default the first one. `aggregation`: what is computed."""
    given = bodies or ()
    at = f"{QUERY_AT}/group_by"
    if len(given) > GROUPS_MAX:
        raise Error(Code.INVALID, f"{len(given)} groups are too many", at=at, hint=f"at most {GROUPS_MAX}")
    return tuple(_flow_group(body, aliases, aggregation, f"{at}/{n}") for n, body in enumerate(given))


def _flow_group(body: GraphGroupByBody, aliases: list[str], aggregation: str, at: str) -> FlowGroup:
    step = 0 if body.target is None else read_target(body.target, aliases, f"{at}/target").end
    return FlowGroup(read_group(body, at, aggregation, body.value_filters or ()), step)


def told_journey(journey: Journey) -> dict[str, Any]:
    """What was understood of a journey, defaults too."""
    told = told_range(journey.span) | {
        "steps": [node.alias for node in journey.nodes],
        "join_key": journey.key.value,
        "counted": "every completed flow" if journey.total else "each key once",
        "window_ms": journey.window_ms,
        "order": "strict" if journey.strict else "loose",
        "steps_after_to": "do not count" if journey.to_range else "count within the window",
        "anonymous_traffic": "excluded" if journey.identified_only else "included",
    }
    if journey.key is Key.SESSION:
        told["active_sessions"] = "included" if journey.active else "excluded"
    return told
