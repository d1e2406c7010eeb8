"""Owns pages, files and comparisons of a segment's members as plans. Runs nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from roster.analyses.audience import nobody_because
from roster.analyses.event_world import EventWorld
from roster.analyses.members import LIST, LISTS, MEMBER, count_members, marked
from roster.analyses.profiles import attribute_columns
from roster.base.errors import Code, Error
from roster.model.schema import Type
from roster.model.segment import Segment
from roster.query.expr import FALSE, Cast, Column, Compare, Expr, Literal
from roster.query.plan import Filter, Join, Limit, Plan, Project, Sort, SortKey
from roster.query.relations import count_rows, profile_key, where
from roster.query.resolve import Scope

COLUMNS_MAX = 100
_KEPT = Column("#kept", Type.STRING)


def present(
    world: EventWorld, segment: Segment, profiles: Plan, scope: Scope | None = None, prefix: str = ""
) -> tuple[Plan, Expr, tuple[str, ...]]:
    """As `marked`, but a segment that cannot be read any more has no members, and a warning says why."""
    try:
        return marked(world, segment, profiles, profile_key(segment.entity), scope, prefix)
    except Error as error:
        return profiles, FALSE, (nobody_because(error),)


@dataclass(frozen=True, slots=True)
class MemberPage:
    """Plans of the rows of a page, each beginning with its key, and of how many members there are; and warnings."""

    rows: Plan
    total: Plan
    warnings: tuple[str, ...]


def page_members(
    world: EventWorld, segment: Segment, columns: Sequence[str], limit: int, after: str | None
) -> MemberPage:
    """Members in the order of their keys, those after a key. Names that mean nothing are empty, with a warning."""
    key = profile_key(segment.entity)
    profiles, condition, doubts = present(world, segment, world.of(segment.entity).relation)
    found = where(profiles, condition)
    named, warnings = attribute_columns(world.of(segment.entity), columns)
    later = found if after is None else Filter(found, Compare(">", key, Literal(after, Type.STRING)))
    rows = Project(Limit(Sort(later, (SortKey(key),)), limit), (("#key", key), *named))
    return MemberPage(rows, count_members(profiles, [condition]), (*doubts, *warnings))


def file_members(world: EventWorld, segment: Segment, columns: Sequence[str]) -> tuple[Plan, list[str]]:
    """All members in the order of their keys, as columns under the given names; times and nested values as text.

    Error: INVALID for two names that differ in the case of their letters only: files cannot hold both.
    """
    if len({name.lower() for name in columns}) < len(columns):
        hint = "name each column once"
        raise Error(Code.INVALID, "two columns have one name", at="parameter columns", hint=hint)
    key = profile_key(segment.entity)
    profiles, condition, doubts = present(world, segment, world.of(segment.entity).relation)
    named, warnings = attribute_columns(world.of(segment.entity), columns)
    found = Sort(where(profiles, condition), (SortKey(key),))
    return Project(found, tuple((name, _plain(v)) for name, (_, v) in zip(columns, named, strict=True))), [
        *doubts,
        *warnings,
    ]


def _plain(value: Expr) -> Expr:
    textual = isinstance(value, Column) and value.type in (Type.TIMESTAMP, Type.DATE, Type.ANY)
    return Cast(value, Type.STRING) if textual else value


@dataclass(frozen=True, slots=True)
class Turnover:
    """Plans of those who entered since a list was kept, and of those who left: how many, and the first keys.

    And warnings.
    """

    entered: Plan
    entered_count: Plan
    left: Plan
    left_count: Plan
    warnings: tuple[str, ...]


def compare_members(world: EventWorld, segment: Segment, list_id: str, limit: int) -> Turnover:
    """The members now against a list of keys."""
    key = profile_key(segment.entity)
    profiles, condition, warnings = present(world, segment, world.of(segment.entity).relation)
    now = Project(where(profiles, condition), ((MEMBER.name, key),))
    listed = Filter(LISTS, Compare("=", LIST, Literal(list_id, Type.STRING)))
    then = Project(listed, ((_KEPT.name, Column("key", Type.STRING)),))
    entered = Join(now, then, "anti", ((MEMBER, _KEPT),))
    left = Join(then, now, "anti", ((_KEPT, MEMBER),))
    first, gone = _first(entered, MEMBER, limit), _first(left, _KEPT, limit)
    return Turnover(first, count_rows(entered), gone, count_rows(left), warnings)


def _first(plan: Plan, key: Column, limit: int) -> Plan:
    return Project(Limit(Sort(plan, (SortKey(key),)), limit), (("key", key),))
