"""Owns attribute types and the built-in attributes of users, accounts and events; no query logic."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Type(StrEnum):
    """What a column holds. ANY is a semi-structured value; DATE is a day without a time."""

    STRING = "string"
    INTEGER = "integer"
    NUMBER = "number"
    BOOLEAN = "boolean"
    TIMESTAMP = "timestamp"
    DATE = "date"
    ANY = "any"


NUMERIC = frozenset({Type.INTEGER, Type.NUMBER})


class Entity(StrEnum):
    USERS = "users"
    ACCOUNTS = "accounts"


KEY_ATTRIBUTE = {Entity.USERS: "user_id", Entity.ACCOUNTS: "account_id"}
"""The attribute that identifies a profile of each entity."""


@dataclass(frozen=True, slots=True)
class Column:
    """One typed column of a relation."""

    name: str
    type: Type


Schema = tuple[Column, ...]


@dataclass(frozen=True, slots=True)
class Builtin:
    """One built-in attribute of a profile, as GetMapping shows it."""

    id: str
    display_name: str
    type: Type
    description: str
    groups: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class EventColumn:
    """One typed column of events and the dotted path of the wire event it is lifted from."""

    name: str
    path: str
    type: Type


EVENT_COLUMNS: tuple[EventColumn, ...] = (
    EventColumn("event_id", "event.id", Type.STRING),
    EventColumn("time", "date", Type.TIMESTAMP),
    EventColumn("type", "type", Type.STRING),
    EventColumn("user_id", "usr.id", Type.STRING),
    EventColumn("user_email", "usr.email", Type.STRING),
    EventColumn("user_name", "usr.name", Type.STRING),
    EventColumn("anonymous_id", "usr.anonymous_id", Type.STRING),
    EventColumn("account_id", "account.id", Type.STRING),
    EventColumn("account_name", "account.name", Type.STRING),
    EventColumn("session_id", "session.id", Type.STRING),
    EventColumn("view_id", "view.id", Type.STRING),
    EventColumn("view_name", "view.name", Type.STRING),
    EventColumn("view_url", "view.url", Type.STRING),
    EventColumn("loading_time", "view.loading_time", Type.INTEGER),
    EventColumn("time_spent", "view.time_spent", Type.INTEGER),
    EventColumn("action_type", "action.type", Type.STRING),
    EventColumn("action_name", "action.name", Type.STRING),
    EventColumn("event_name", "event.name", Type.STRING),
    EventColumn("application_id", "application.id", Type.STRING),
    EventColumn("application_name", "application.name", Type.STRING),
    EventColumn("country_code", "geo.country_iso_code", Type.STRING),
    EventColumn("city", "geo.city", Type.STRING),
    EventColumn("region", "geo.country_subdivision", Type.STRING),
    EventColumn("device_type", "device.type", Type.STRING),
    EventColumn("os_name", "os.name", Type.STRING),
    EventColumn("os_version", "os.version", Type.STRING),
    EventColumn("browser_name", "browser.name", Type.STRING),
    EventColumn("browser_version", "browser.version", Type.STRING),
    EventColumn("service", "service", Type.STRING),
    EventColumn("env", "env", Type.STRING),
    EventColumn("version", "version", Type.STRING),
)
"""Hot columns of events. Durations are nanoseconds. Everything else of an event stays in `rest`."""

EVENT_REST = Column("rest", Type.ANY)
EVENT_USER = Column("resolved_user_id", Type.STRING)
"""The user an event belongs to: its own, else the first one ever identified under its anonymous id."""
EVENT_SCHEMA: Schema = (*(Column(c.name, c.type) for c in EVENT_COLUMNS), EVENT_REST, EVENT_USER)
EVENT_TEXT = ("view_name", "view_url", "action_name", "event_name", EVENT_USER.name, "user_email", "user_name")
"""Columns that free text in an event search looks at."""


@dataclass(frozen=True, slots=True)
class Tracked:
    """A profile attribute that follows an event column: the value of its earliest or latest event."""

    id: str
    column: str
    earliest: bool


def _tracked() -> tuple[Tracked, ...]:
    both = {
        "application_id": "application_id",
        "country_code": "country_code",
        "city": "city",
        "region": "region",
        "device_type": "device_type",
        "os_name": "os_name",
        "os_version": "os_version",
        "browser_name": "browser_name",
        "browser_version": "browser_version",
    }
    pairs = [
        Tracked(f"{side}_{id}", column, side == "first") for id, column in both.items() for side in ("first", "last")
    ]
    latest = [Tracked(id, id, earliest=False) for id in ("user_email", "user_name", "account_id")]
    return (*latest, *pairs)


USER_TRACKED = _tracked()
ACCOUNT_TRACKED = (Tracked("account_name", "account_name", earliest=False),)
TRACKED = {Entity.USERS: USER_TRACKED, Entity.ACCOUNTS: ACCOUNT_TRACKED}


def _first_last(stem: str, label: str, group: str, meaning: str) -> tuple[Builtin, Builtin]:
    return (
        Builtin(
            f"first_{stem}",
            f"First {label}",
            Type.STRING,
            f"{meaning} of the user's earliest event that has one",
            (group,),
        ),
        Builtin(
            f"last_{stem}", f"Last {label}", Type.STRING, f"{meaning} of the user's latest event that has one", (group,)
        ),
    )


USER_BUILTINS: tuple[Builtin, ...] = (
    Builtin("user_id", "User ID", Type.STRING, "Identifies the user (usr.id)", ("User",)),
    Builtin("user_email", "User Email", Type.STRING, "Latest e-mail address (usr.email)", ("User",)),
    Builtin("user_name", "User Name", Type.STRING, "Latest name (usr.name)", ("User",)),
    Builtin(
        "account_id", "Account ID", Type.STRING, "Current account: the one of the latest event (account.id)", ("User",)
    ),
    Builtin("first_seen", "First Seen", Type.TIMESTAMP, "Time of the user's first event"),
    Builtin("last_seen", "Last Seen", Type.TIMESTAMP, "Time of the user's latest event"),
    *_first_last("application_id", "Application ID", "Application", "Application"),
    *_first_last("country_code", "Country Code", "Geo", "ISO 3166 country code"),
    *_first_last("city", "City", "Geo", "City"),
    *_first_last("region", "Region", "Geo", "Region"),
    *_first_last("device_type", "Device Type", "Device", "Device type"),
    *_first_last("os_name", "OS Name", "OS", "Operating system"),
    *_first_last("os_version", "OS Version", "OS", "Operating system version"),
    *_first_last("browser_name", "Browser Name", "Browser", "Browser"),
    *_first_last("browser_version", "Browser Version", "Browser", "Browser version"),
    Builtin("session_count", "Session Count", Type.INTEGER, "Number of distinct sessions", ("Activity",)),
    Builtin("events_count", "Events Count", Type.INTEGER, "Number of events", ("Activity",)),
    Builtin("view_count", "View Count", Type.INTEGER, "Number of views", ("Activity",)),
    Builtin("action_count", "Action Count", Type.INTEGER, "Number of actions", ("Activity",)),
    Builtin("error_count", "Error Count", Type.INTEGER, "Number of errors", ("Activity",)),
    Builtin("avg_loading_time", "Average Loading Time", Type.NUMBER, "Mean loading time of views, ns", ("Activity",)),
)

ACCOUNT_BUILTINS: tuple[Builtin, ...] = (
    Builtin("account_id", "Account ID", Type.STRING, "Identifies the account (account.id)", ("Account",)),
    Builtin("account_name", "Account Name", Type.STRING, "Latest name (account.name)", ("Account",)),
    Builtin("first_seen", "First Seen", Type.TIMESTAMP, "Time of the account's first event"),
    Builtin("last_seen", "Last Seen", Type.TIMESTAMP, "Time of the account's latest event"),
    Builtin("user_count", "User Count", Type.INTEGER, "Number of distinct users seen in the account", ("Activity",)),
)

BUILTINS = {Entity.USERS: USER_BUILTINS, Entity.ACCOUNTS: ACCOUNT_BUILTINS}


TRAITS = Column("traits", Type.ANY)
"""What events say of a user or account beside id, name and e-mail: the latest that said something."""
TRAITS_PREFIX = {Entity.USERS: "usr", Entity.ACCOUNTS: "account"}


def profile_schema(entity: Entity) -> Schema:
    """The columns of a profile relation before any connection adds to it."""
    return (*(Column(b.id, b.type) for b in BUILTINS[entity]), TRAITS)
