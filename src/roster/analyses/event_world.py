"""Owns what names mean in analyses over events: paths of the event, attributes of its user and of its account."""

from __future__ import annotations

from collections.abc import Callable, Mapping as Map, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from roster.analyses.scopes import World, resolve_at
from roster.analyses.session_rows import SESSION as SESSION_TYPE, decides_on_sessions
from roster.base.time import Range, instant
from roster.model.reference_table import Table
from roster.model.schema import EVENT_COLUMNS, EVENT_REST, EVENT_TEXT, Entity, Type
from roster.model.segment import Segment
from roster.query.expr import (
    And,
    Cast,
    Column,
    Compare,
    Expr,
    Get,
    If,
    IsNull,
    Literal,
    Not,
    Or,
    Texts,
    conjunction,
    type_of,
)
from roster.query.plan import Aggregate, Filter, Join, Named, Plan, Project, SortKey
from roster.query.relations import EVENTS, OWNER_OF_EVENT, USER_OF_EVENT, profile_key
from roster.query.resolve import Deep, Resolved, Scope, Target, unknown_name

if TYPE_CHECKING:
    from roster.analyses.journey import Journey

TIME = Column("time", Type.TIMESTAMP)
TYPE = Column("type", Type.STRING)
SESSION = Column("session_id", Type.STRING)
ACCOUNT = Column("account_id", Type.STRING)
ANONYMOUS = Column("anonymous_id", Type.STRING)
PERSON = If(IsNull(USER_OF_EVENT), ANONYMOUS, USER_OF_EVENT)
"""Whoever did it: the user, or the anonymous visitor who was never identified."""
IS_SESSION_ROW = Compare("=", TYPE, Literal(SESSION_TYPE, Type.STRING))
"""The row is computed from the events of a session, and no event itself."""


def _no_members(world: EventWorld, segment: Segment) -> Plan:
    raise LookupError("this world knows no members of segments")


def _no_journeys(search: Map[str, Any], span: Range, at: str) -> Journey:
    raise LookupError("this world reads no journeys")


@dataclass(frozen=True)
class EventWorld:
    """What analyses stand on: users and accounts with their attributes, and the segments that may be named."""

    users: World
    accounts: World
    segments: Map[str, Segment] = field(default_factory=dict)
    tables: Sequence[Table] = ()
    read_journey: Callable[[Map[str, Any], Range, str], Journey] = _no_journeys
    """Reads a journey's search as a request states it, at a place in it."""
    members: Callable[[EventWorld, Segment], Plan] = _no_members
    """The keys of the profiles that belong to a segment, each once."""

    @property
    def now_ms(self) -> int:
        return self.users.now_ms

    def of(self, entity: Entity) -> World:
        return self.users if entity is Entity.USERS else self.accounts

    @cached_property
    def relation(self) -> Plan:
        """All events, each beside all attributes of its user and its account; what nobody reads is left out later."""
        plan: Plan = EVENTS
        for entity in Entity:
            world = self.of(entity)
            key = Column(f"{entity}.#key", Type.STRING)
            columns: tuple[Named, ...] = (
                (key.name, profile_key(entity)),
                *((profile_column(entity, a.name, a.type).name, Column(a.name, a.type)) for a in world.attributes),
            )
            plan = Join(plan, Project(world.relation, columns), "left", ((OWNER_OF_EVENT[entity], key),))
        return plan

    @cached_property
    def scope(self) -> Scope:
        """Typed paths of the event, then attributes of its user or account, then any other path of the event.

        Users come before accounts. Free text looks at the names of the event.
        """
        by_path = {c.path: Column(c.name, c.type) for c in EVENT_COLUMNS} | {"usr.id": USER_OF_EVENT}
        by_name = {column.name: column for column in by_path.values()}
        rest = Column(EVENT_REST.name, EVENT_REST.type)

        def target(name: str) -> Target | None:
            path = name.removeprefix("@")
            if path in by_path:
                return by_path[path]
            found = self._attribute(name)
            return found if found is not None else Deep(rest, tuple(path.split(".")))

        texts = tuple(by_name[n] for n in EVENT_TEXT)
        return Scope(target, texts, tuple(by_path.values()), tuple(by_path), self.users.terms_max)

    def _attribute(self, name: str) -> Column | None:
        for entity in Entity:
            found = self.of(entity).find(name)
            if found is not None and not found.trait:  # a trait is a path of the event itself
                return profile_column(entity, found.name, found.type)
        return None

    def facet(self, name: str, source: Entity | None = None) -> Expr | None:
        """The value of a facet on an event; with a source, the attribute of its user or account. None: no such one.

        A path that events have no column for has type ANY.
        """
        if source is not None:
            found = self.of(source).find(name)
            return profile_column(source, found.name, found.type) if found else None
        match self.scope.find(name):
            case None:
                return None
            case Deep(rest, keys):
                value: Expr = rest
                for key in keys:
                    value = Get(value, key)
                return value
            case column:
                return column

    def group_value(self, name: str, source: Entity | None = None) -> Expr | None:
        """As `facet`, but what has no column is told by its texts: a group for each that an array holds."""
        target = None if source is not None else self.scope.find(name)
        return Texts(target.source, target.keys) if isinstance(target, Deep) else self.facet(name, source)

    def unknown(self, name: str, source: Entity) -> str:
        """What to tell of an attribute that profiles do not have."""
        known = tuple(a.name for a in self.of(source).attributes)
        return unknown_name(name, Scope(lambda _: None, (), (), known, 0))

    def resolve(self, at: str, text: str) -> Resolved:
        """A search over events as a condition; `at`: where it stands in the request.

        Rows computed for sessions take part only where the search asks for them.
        """
        resolved = self.narrow(at, text)
        if decides_on_sessions(resolved.tree, lambda name: self.scope.find(name) == TYPE):
            return resolved
        return replace(resolved, where=conjunction(Not(IS_SESSION_ROW), resolved.where))

    def narrow(self, at: str, text: str) -> Resolved:
        """As `resolve`, for a search that others follow: they decide about the rows computed for sessions."""
        return resolve_at(at, text, self.scope, self.now_ms)


def profile_column(entity: Entity, name: str, type: Type) -> Column:
    """An attribute of the event's user or account, as a column beside the event."""
    return Column(f"{entity}.{name}", type)


def text_of(value: Expr) -> Expr:
    """A value as the text that groups are told by."""
    return value if type_of(value) is Type.STRING else Cast(value, Type.STRING)


def order_by(value: Expr, *, descending: bool) -> tuple[SortKey, ...]:
    """Rows in the order of a value; of one without a type numbers by number, in either direction before other texts."""
    if type_of(value) is not Type.ANY:
        return (SortKey(value, descending),)
    return SortKey(Cast(value, Type.NUMBER), descending), SortKey(text_of(value), descending)


def during(span: Range, time: Expr = TIME) -> Expr:
    """The event, or another time, lies in the range."""
    return conjunction(
        Compare(">=", time, Literal(instant(span.from_ms), Type.TIMESTAMP)),
        Compare("<", time, Literal(instant(span.to_ms), Type.TIMESTAMP)),
    )


def identified(plan: Plan) -> Plan:
    """The events of a plan without anonymous traffic: those of a user, or of a session that has an event of one."""
    known = Column("#known", Type.STRING)
    theirs = Filter(plan, And((Not(IsNull(USER_OF_EVENT)), Not(IsNull(SESSION)))))
    sessions = Aggregate(theirs, ((known.name, SESSION),), ())
    marked = Join(plan, sessions, "left", ((SESSION, known),))
    return Filter(marked, Or((Not(IsNull(USER_OF_EVENT)), Not(IsNull(known)))))
