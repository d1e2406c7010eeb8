"""Owns what the operations of all analyses share: the world, reading common parts of requests, the answer's frame."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from roster.analyses.audience import EVERYONE, Audience, Group
from roster.analyses.base_query import BaseQuery, Occurrences
from roster.analyses.event_world import EventWorld
from roster.analyses.groups import LIMIT_DEFAULT, GroupBy
from roster.analyses.measures import Compute, Unit
from roster.base.errors import Code, Error
from roster.base.time import INSTANT_MS_MAX, Range, instant, iso_ms
from roster.model.formula import parse_formula
from roster.model.schema import Entity
from roster.operations.bodies_analyses import AudienceBody, BaseQueryBody, ComputeBody, GroupByBody, RankBody
from roster.operations.context import Context, Reply, Request, run_plans
from roster.operations.profiles import explanation
from roster.ports import Answer
from roster.query.expr import CompareOp
from roster.query.plan import Plan

AT = "/data/attributes"
QUERY_AT = f"{AT}/query"
OPERATORS: dict[str, CompareOp] = {
    "=": "=",
    "==": "=",
    "eq": "=",
    "<": "<",
    "lt": "<",
    "<=": "<=",
    "lte": "<=",
    ">": ">",
    "gt": ">",
    ">=": ">=",
    "gte": ">=",
}
SOURCES = {
    "product_analytics_audience_filters.users": Entity.USERS,
    "product_analytics_audience_filters.accounts": Entity.ACCOUNTS,
}
GROUPS_MAX = 10
AUDIENCES_MAX = 50


def read_range(from_ms: int, to_ms: int, at: str = AT) -> Range:
    """Epoch milliseconds, half-open. Errors: INVALID for no time, and where from is not before to."""
    for name, value in (("from", from_ms), ("to", to_ms)):
        if not 0 <= value <= INSTANT_MS_MAX:
            raise Error(Code.INVALID, f"{name} is not a time: {value}", at=f"{at}/{name}", hint="epoch milliseconds")
    if from_ms >= to_ms:
        hint = "from < to, in epoch milliseconds"
        raise Error(Code.INVALID, f"from ({from_ms}) is not before to ({to_ms})", at=f"{at}/from", hint=hint)
    return Range(from_ms, to_ms)


def read_base_query(body: BaseQueryBody, at: str) -> BaseQuery:
    """A base query. Errors: INVALID for an unknown operator or a value that is no number."""
    given = body.search.occurrences
    occurrences = None
    if given is not None:
        if body.data_source != "product_analytics_occurrence":
            hint = "use the data_source product_analytics_occurrence"
            raise Error(Code.INVALID, "occurrences have no meaning here", at=f"{at}/search/occurrences", hint=hint)
        op = OPERATORS.get(given.operator.strip().lower())
        if op is None:
            hint = "allowed: =, >=, <=, >, <"
            at = f"{at}/search/occurrences/operator"
            raise Error(Code.INVALID, f"unknown operator {given.operator!r}", at=at, hint=hint)
        text = given.value.strip()
        if not text.isascii() or not text.isdecimal() or len(text) > 18:
            hint = 'a whole number as a string, such as "3"'
            at = f"{at}/search/occurrences/value"
            raise Error(Code.INVALID, f"the value is {given.value!r}", at=at, hint=hint)
        occurrences = Occurrences(op, int(text))
    return BaseQuery(body.search.query or "", f"{at}/search/query", occurrences)


def read_audience(body: AudienceBody | None, at: str) -> Audience:
    """Audience filters. Errors: INVALID for names that repeat or are empty, or a formula that cannot be read."""
    if body is None:
        return EVERYONE
    groups: list[Group] = []
    for list_name, entity in (("users", Entity.USERS), ("accounts", Entity.ACCOUNTS)):
        for n, search in enumerate(getattr(body, list_name) or ()):
            groups.append(Group(search.name, entity, search.query or "", f"{at}/{list_name}/{n}/query"))
    for n, segment in enumerate(body.segments or ()):
        groups.append(Group(segment.name, None, segment.segment_id, f"{at}/segments/{n}/segment_id"))
    if len(groups) > AUDIENCES_MAX:
        raise Error(Code.INVALID, f"{len(groups)} audiences are too many", at=at, hint=f"at most {AUDIENCES_MAX}")
    taken: set[str] = set()
    formula = (body.formula or "").strip()
    for group in groups:
        if formula and not group.name:
            continue  # no formula can name it, so it takes no part: published examples send such ones
        place = f"{group.at.rpartition('/')[0]}/name"
        if not group.name:
            raise Error(Code.INVALID, "an audience has no name", at=place, hint="give it one")
        if group.name in taken:
            hint = "names are unique over users, accounts and segments"
            raise Error(Code.INVALID, f"two audiences are named {group.name!r}", at=place, hint=hint)
        taken.add(group.name)
    names = [group.name for group in groups if group.name]
    return Audience(tuple(groups), parse_formula(formula, names, f"{at}/formula"))


def read_compute(body: ComputeBody, at: str) -> Compute:
    return Compute(body.aggregation.strip().lower(), body.metric, at)


def read_interval_ms(interval_ms: int | None, at: str) -> int | None:
    """The width of the buckets of a timeseries, None for none. Error: INVALID for less than a millisecond."""
    if interval_ms is not None and interval_ms < 1:
        raise Error(Code.INVALID, f"an interval of {interval_ms} ms is none", at=at, hint="at least 1")
    return interval_ms


def read_groups(bodies: Sequence[GroupByBody] | None, at: str, aggregation: str) -> tuple[GroupBy, ...]:
    """Groups; `aggregation`: what is computed. Errors: INVALID for too many, or an unknown source."""
    given = bodies or ()
    if len(given) > GROUPS_MAX:
        raise Error(Code.INVALID, f"{len(given)} groups are too many", at=at, hint=f"at most {GROUPS_MAX}")
    return tuple(read_group(body, f"{at}/{n}", aggregation) for n, body in enumerate(given))


def read_group(body: GroupByBody, at: str, aggregation: str, values: Sequence[str] = ()) -> GroupBy:
    """One group, ranked by the aggregation of what is computed where it names a metric alone. Error: INVALID for an
    unknown source.
    """
    return GroupBy(
        facet=body.facet,
        at=at,
        limit=body.limit or LIMIT_DEFAULT,
        exclude_missing=body.should_exclude_missing or False,
        source=read_source(body.source, f"{at}/source"),
        rank=_rank(body.sort, f"{at}/sort", aggregation),
        descending=(body.sort.order if body.sort else None) != "asc",
        values=tuple(values),
    )


def read_source(text: str | None, at: str) -> Entity | None:
    """Whose attribute a facet is; None for the event's own. Error: INVALID."""
    if not text:
        return None
    if text not in SOURCES:
        raise Error(Code.INVALID, f"unknown source {text!r}", at=at, hint=f"allowed: {', '.join(SOURCES)}")
    return SOURCES[text]


def _rank(sort: RankBody | None, at: str, aggregation: str) -> Compute | None:
    if sort is None or (sort.aggregation is None and not sort.metric):
        return None
    return Compute((sort.aggregation or aggregation).strip().lower(), sort.metric or None, at)


def answer(
    context: Context,
    request: Request,
    world: EventWorld,
    operation: str,
    plans: Sequence[Plan],
    warnings: Sequence[str],
) -> list[Answer] | Reply:
    """The answers of the plans, or with `explain=true` what would be done."""
    if request.flag("explain"):
        return explanation(context, request, plans, warnings)
    answers = run_plans(context, request, plans)
    for entity in Entity:
        profiles = world.of(entity)
        context.uses.note(entity, profiles.named, operation, request.caller.id, profiles.now_ms)
    return answers


def frame(
    id: str,
    type: str,
    attributes: dict[str, Any],
    understood: dict[str, Any],
    warnings: Sequence[str],
) -> Reply:
    """An answer in the API's frame; beside it in `meta` its state, what was understood, and warnings."""
    meta: dict[str, Any] = {"status": "done", "request_id": id, "understood": understood}
    if warnings:
        meta["warnings"] = list(dict.fromkeys(warnings))
    return Reply({"data": {"id": id, "type": type, "attributes": attributes}, "meta": meta})


def told_range(span: Range) -> dict[str, Any]:
    """A range as an answer tells it: half-open, with the times spelled out."""
    return {
        "from": span.from_ms,
        "to": span.to_ms,
        "from_time": iso_ms(instant(span.from_ms)),
        "to_time": iso_ms(instant(span.to_ms)),
    }


def unit_list(unit: Unit | None) -> list[dict[str, Any]] | None:
    """A unit as columns and series carry it."""
    if unit is None:
        return None
    named = ("family", "name", "plural", "short_name", "scale_factor")
    return [{name: getattr(unit, name) for name in named}]


def number(value: Any) -> float | None:
    """A measured value as the API shows numbers."""
    return None if value is None else float(value)
