"""Owns journeys: ordered steps of a session, user or account, as flows: one row each with how far it got. Runs nothing.

Every surface (funnel, scalar, timeseries, list, segments) reads flows, so there is one meaning of a conversion.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from roster.analyses.audience import Audience, keys_found, restrict
from roster.analyses.base_query import BaseQuery, find_events
from roster.analyses.event_world import (
    ACCOUNT,
    IS_SESSION_ROW,
    PERSON,
    SESSION,
    TIME,
    EventWorld,
    during,
    identified,
    text_of,
)
from roster.base.errors import Code, Error
from roster.base.time import Range
from roster.model.schema import Entity, Type
from roster.query.expr import (
    And,
    Call,
    Cast,
    Column,
    Compare,
    CompareOp,
    Expr,
    Fn,
    If,
    IsNull,
    Literal,
    Not,
    Or,
    conjunction,
    type_of,
)
from roster.query.plan import (
    Aggregate,
    Filter,
    Join,
    MatchSteps,
    Named,
    Plan,
    Project,
    Rank,
    SortKey,
    Step,
    Window,
    schema_of,
)
from roster.query.relations import OWNER_OF_EVENT, profile_key, where

SESSION_IDLE_MS = 15 * 60_000
SESSION_MS_MAX = 4 * 3_600_000


class Key(StrEnum):
    """Whose journey it is: what the events of one flow share."""

    SESSION = "@session.id"
    USER = "@usr.id"
    ACCOUNT = "@account.id"


KEY_OF: dict[Key, Expr] = {Key.SESSION: SESSION, Key.USER: PERSON, Key.ACCOUNT: ACCOUNT}
PROFILES_OF = {Key.USER: Entity.USERS, Key.ACCOUNT: Entity.ACCOUNTS}


@dataclass(frozen=True, slots=True)
class Node:
    """One step: its alias in the expression, and the events that take it."""

    alias: str
    query: BaseQuery


@dataclass(frozen=True, slots=True)
class Exclusion:
    """Events that end an attempt when they come after a step and before the next one, both 0-based."""

    query: BaseQuery
    after: int
    before: int


@dataclass(frozen=True, slots=True)
class Target:
    """From which step to which, both 0-based: a node is a target from the first step on."""

    start: int
    end: int


@dataclass(frozen=True, slots=True)
class TimeFilter:
    """Only flows for which the milliseconds between two steps compare so."""

    target: Target
    op: CompareOp
    value: int


@dataclass(frozen=True, slots=True)
class SessionFilter:
    """Only flows whose steps up to the target lie in so many sessions."""

    target: Target
    op: CompareOp
    value: int


@dataclass(frozen=True, slots=True)
class Journey:
    """Which flows. `window_ms` None: as long as the session lasts.

    `total`: every completed flow counts, not each key once. `strict`: no other event between two steps.
    `to_range`: steps after the range's end do not count. `active`: sessions that still go on count too.
    """

    span: Range
    nodes: tuple[Node, ...]
    key: Key
    secondary: tuple[str, ...]
    audience: Audience
    search: BaseQuery
    window_ms: int | None
    total: bool
    filters: tuple[TimeFilter | SessionFilter, ...] = ()
    exclusions: tuple[Exclusion, ...] = ()
    strict: bool = False
    to_range: bool = False
    active: bool = False
    identified_only: bool = False
    entities: BaseQuery | None = None
    """A search that the profile of the user or account, or the row of the session, must satisfy."""
    at: str = ""
    """Where its search stands in the request."""

    @property
    def steps(self) -> int:
        return len(self.nodes)


LEVEL = Column("level", Type.INTEGER)
ENTITY = Column("entity", Type.STRING)
LAST = Column("last", Type.INTEGER)


def time_of(step: int) -> Column:
    """When a flow took a step (0-based); null when it did not."""
    return Column(f"t{step + 1}", Type.TIMESTAMP)


def milliseconds(target: Target) -> Expr:
    """From one step to another; null unless both were taken."""
    start, end = (Cast(time_of(step), Type.INTEGER) for step in (target.start, target.end))
    return Call(Fn.SUBTRACT, (end, start))


@dataclass(frozen=True, slots=True)
class Carried:
    """A value told of the event that took a step (0-based), under a name."""

    name: str
    step: int
    value: Expr


def flows(world: EventWorld, journey: Journey, carried: Sequence[Carried] = ()) -> tuple[Plan, list[str]]:
    """One row a flow: `entity`, `level` (steps taken, from 1 on), `t1`, `t2`, ..., the carried values; and warnings.

    Attempts that end with the same event are one flow, the earliest of them. Unless `total`, each entity has one:
    the one that gets farthest, the earliest of these.
    """
    entity = _entity(world, journey)
    plan, warnings = _events(world, journey)
    steps: list[Step] = []
    for place, node in enumerate(journey.nodes):
        plan, condition, doubts = find_events(plan, world, node.query, entity, f"step{place}")
        warnings += doubts
        if place == 0 and not journey.to_range:
            condition = conjunction(condition, during(journey.span))
        told = tuple((c.name, _told(c.value)) for c in carried if c.step == place)
        steps.append(Step(condition, (*told, *_sessions(journey, place)), None))
    steps, plan, doubts = _with_unless(world, journey, plan, entity, steps)
    once = not journey.total and journey.window_ms is None and all(step.unless is None for step in steps)
    attempts = MatchSteps(plan, entity, TIME, tuple(steps), journey.window_ms, "first" if once else "every")
    kept: Plan = attempts if once else _one_each(attempts, journey)
    return where(kept, conjunction(*(_admits(f) for f in journey.filters))), warnings + doubts


def _told(value: Expr) -> Expr:
    return text_of(value) if type_of(value) is Type.ANY else value


def _one_each(attempts: Plan, journey: Journey) -> Plan:
    """Attempts that are one flow, and without `total` the flows of one entity, told apart by their first."""
    partition = (ENTITY, LEVEL, LAST) if journey.total else (ENTITY,)
    order = (SortKey(LEVEL, descending=True), SortKey(time_of(0)))
    rank = Column("#flow", Type.INTEGER)
    ranked = Window(attempts, rank.name, Rank.ROW_NUMBER, None, partition, order)
    return Filter(ranked, Compare("=", rank, Literal(1, Type.INTEGER)))


def _entity(world: EventWorld, journey: Journey) -> Expr:
    """The key of a flow: the primary one, with the secondary ones when there are any."""
    parts: list[Expr] = [KEY_OF[journey.key]]
    for place, name in enumerate(journey.secondary):
        value = world.facet(name)
        if value is None:
            at = f"{journey.at}/join_keys/secondary/{place}"
            raise Error(Code.INVALID, f"unknown join key {name!r}", at=at)
        parts.append(text_of(value))
    return parts[0] if len(parts) == 1 else Call(Fn.CONCAT, tuple(_apart(parts)))


def _apart(parts: Sequence[Expr]) -> list[Expr]:
    separator = Literal("\x1f", Type.STRING)
    return [part for each in parts for part in (each, separator)][:-1]


def _events(world: EventWorld, journey: Journey) -> tuple[Plan, list[str]]:
    """The events that may take part: those of the range, and what may follow within the window."""
    span, later_ms = journey.span, journey.window_ms or SESSION_MS_MAX
    end_ms = span.to_ms if journey.to_range else span.to_ms + later_ms
    traffic = where(world.relation, during(Range(span.from_ms, end_ms)))
    plan, warnings = restrict(identified(traffic) if journey.identified_only else traffic, world, journey.audience)
    resolved = world.narrow(journey.search.at, journey.search.text)
    plan = where(plan, resolved.where)
    if journey.entities is not None:
        plan, doubts = _of_entities(plan, world, journey, journey.entities)
        warnings += doubts
    if journey.key is Key.SESSION and not journey.active and end_ms > world.now_ms - SESSION_MS_MAX:
        plan = _completed(plan, world)
    return plan, warnings + resolved.warnings


def _of_entities(plan: Plan, world: EventWorld, journey: Journey, search: BaseQuery) -> tuple[Plan, list[str]]:
    """The events of the sessions, users or accounts that a search finds."""
    entity = PROFILES_OF.get(journey.key)
    if entity is None:
        key = Column("#session", Type.STRING)
        resolved = world.narrow(search.at, search.text)
        rows = where(world.relation, conjunction(resolved.where, IS_SESSION_ROW))
        return Join(plan, Project(rows, ((key.name, SESSION),)), "semi", ((SESSION, key),)), resolved.warnings
    keys, warnings = keys_found(world.of(entity), search.at, search.text)
    return Join(plan, keys, "semi", ((OWNER_OF_EVENT[entity], profile_key(entity)),)), warnings


def _completed(plan: Plan, world: EventWorld) -> Plan:
    """Without the events of sessions that may still go on: those with an event not long ago."""
    open_ = Column("#open", Type.STRING)
    recent = where(world.relation, during(Range(world.now_ms - SESSION_IDLE_MS, world.now_ms + SESSION_MS_MAX)))
    sessions = Aggregate(where(recent, Not(IsNull(SESSION))), ((open_.name, SESSION),), ())
    return Join(plan, sessions, "anti", ((SESSION, open_),))


def _with_unless(
    world: EventWorld, journey: Journey, plan: Plan, entity: Expr, steps: list[Step]
) -> tuple[list[Step], Plan, list[str]]:
    """The steps with what must not come between them and the ones before."""
    unless: list[list[Expr]] = [
        [Not(IS_SESSION_ROW)] if journey.strict and place else [] for place in range(len(steps))
    ]
    warnings: list[str] = []
    for number, exclusion in enumerate(journey.exclusions):
        plan, condition, doubts = find_events(plan, world, exclusion.query, entity, f"exclusion{number}")
        warnings += doubts
        for place in range(exclusion.after + 1, exclusion.before + 1):
            unless[place].append(condition)
    made = [
        Step(step.where, step.carried, Or(tuple(conditions)) if len(conditions) > 1 else conditions[0])
        if conditions
        else step
        for step, conditions in zip(steps, unless, strict=True)
    ]
    return made, plan, warnings


def _sessions(journey: Journey, place: int) -> tuple[Named, ...]:
    """The session of a step, where a filter asks for it."""
    asked = any(isinstance(f, SessionFilter) and place <= f.target.end for f in journey.filters)
    return ((f"#session{place}", SESSION),) if asked else ()


def _admits(wanted: TimeFilter | SessionFilter) -> Expr:
    value = Literal(wanted.value, Type.INTEGER)
    if isinstance(wanted, TimeFilter):
        return Compare(wanted.op, milliseconds(wanted.target), value)
    return And((reached(wanted.target.end), Compare(wanted.op, _distinct_sessions(wanted.target), value)))


def _distinct_sessions(target: Target) -> Expr:
    """How many different sessions the steps of a target were taken in."""
    total: Expr = Literal(0, Type.INTEGER)
    for place in range(target.start, target.end + 1):
        mine = Column(f"#session{place}", Type.STRING)
        before = [Column(f"#session{n}", Type.STRING) for n in range(target.start, place)]
        is_old = Or(tuple(And((Not(IsNull(other)), Compare("=", mine, other))) for other in before))
        is_new = And((Not(IsNull(mine)), Not(is_old)))
        one = If(is_new, Literal(1, Type.INTEGER), Literal(0, Type.INTEGER))
        total = Call(Fn.ADD, (total, one))
    return total


def reached(step: int) -> Expr:
    """The flow took the step (0-based)."""
    return Compare(">=", LEVEL, Literal(step + 1, Type.INTEGER))


def column_in(plan: Plan, name: str) -> Column:
    """A column of flows by its name."""
    found = next(c for c in schema_of(plan) if c.name == name)
    return Column(found.name, found.type)
