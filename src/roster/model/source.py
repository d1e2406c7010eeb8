"""Owns what a source is: where rows come from and how they are read, as a value; never connects to one."""

from __future__ import annotations

import re
from collections.abc import Mapping as Map
from dataclasses import dataclass

from roster.base.errors import Code, Error, did_you_mean


@dataclass(frozen=True, slots=True)
class Option:
    """One setting of a source, given as a member of a connection's `metadata`."""

    name: str
    meaning: str
    required: bool = False


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of source.

    `either`: exactly one of these options must be given. `secret`: members that its named secret may
    hold. `extra`: what to install beside Roster for it, empty when nothing is needed.
    """

    name: str
    options: tuple[Option, ...]
    either: tuple[str, ...] = ()
    secret: tuple[str, ...] = ()
    extra: str = ""


_EVERY = Option("every", "time between two syncs, such as `5m`, `1h` or `1d`; `off` syncs on request only")
_SECRET = Option("secret", "name of the secret that holds the credentials")
_KEY = Option("key", "column that identifies a row; the join attribute unless given")
_CURSOR = Option("cursor", "column that grows with every change of a row: only changed rows are read then")
_FULL_EVERY = Option(
    "full_every", "with a cursor: time between two full reads, which find deleted rows; `1d` unless given"
)
_TABLE = Option("table", "table to read, its schema before a dot")
_QUERY = Option("query", "SELECT statement to read instead of a table")
_FORMAT = Option("format", "csv, ndjson or parquet; told from the ending unless given")
_SERVER = (
    Option("host", "name or address of the server", required=True),
    Option("port", "port of the server"),
    Option("database", "database to read", required=True),
)
_ALL = (_KEY, _EVERY, _SECRET)
_SQL = (_TABLE, _QUERY, _CURSOR, _FULL_EVERY, *_ALL)
_OBJECT_SECRET = (
    "access_key_id",
    "secret_access_key",
    "session_token",
    "region",
    "endpoint",
    "service_account_key",
    "account_name",
    "account_key",
    "sas_token",
    "tenant_id",
    "client_id",
    "client_secret",
)
"""What the secret of an object store may hold: S3's members, then those of GCS and of Azure."""

KINDS: tuple[Kind, ...] = (
    Kind(
        "file",
        (
            Option("path", "file in an allowed folder"),
            Option("url", "object: s3://bucket/key, gs://bucket/key or az://container/blob"),
            _FORMAT,
            *_ALL,
        ),
        either=("path", "url"),
        secret=_OBJECT_SECRET,
    ),
    Kind("postgres", (*_SERVER, *_SQL, Option("sslmode", "libpq's sslmode")), ("table", "query"), ("user", "password")),
    Kind(
        "mysql",
        (*_SERVER, *_SQL, Option("sslmode", "disable, prefer, require, verify-ca or verify-full; prefer unless given")),
        ("table", "query"),
        ("user", "password"),
    ),
    Kind("sqlite", (Option("path", "database file in an allowed folder", required=True), *_SQL), ("table", "query")),
    Kind(
        "snowflake",
        (
            Option("account", "account identifier", required=True),
            Option("database", "database to read", required=True),
            Option("schema", "schema to read"),
            Option("warehouse", "warehouse that runs the query"),
            Option("role", "role to take"),
            Option("host", "host instead of the account's own"),
            Option("port", "port beside `host`"),
            Option("protocol", "https or http, beside `host`"),
            *_SQL,
        ),
        ("table", "query"),
        ("user", "password", "private_key", "token"),
        extra="snowflake",
    ),
    Kind(
        "bigquery",
        (
            Option("project", "project that pays for the query", required=True),
            Option("dataset", "dataset of the table"),
            Option("endpoint", "API endpoint instead of the public one"),
            *_SQL,
        ),
        ("table", "query"),
        ("service_account_key", "token"),
        extra="bigquery",
    ),
    Kind(
        "salesforce",
        (
            Option("object", "object to read with all its fields, such as Contact"),
            Option("query", "SOQL query to read instead of an object"),
            Option("instance_url", "address of the organisation", required=True),
            _CURSOR,
            _FULL_EVERY,
            *_ALL,
        ),
        ("object", "query"),
        ("access_token", "client_id", "client_secret"),
        extra="salesforce",
    ),
    Kind(
        "hubspot",
        (
            Option("object", "object to read, such as contacts or companies", required=True),
            Option("properties", "properties to read, with commas between; all unless given"),
            Option("base_url", "API address instead of the public one"),
            *_ALL,
        ),
        secret=("access_token",),
    ),
    Kind(
        "delta",
        (
            Option("path", "table folder in an allowed folder"),
            Option("url", "table in an object store: s3://, gs:// or az://"),
            *_ALL,
        ),
        ("path", "url"),
        _OBJECT_SECRET,
        extra="delta",
    ),
    Kind(
        "iceberg",
        (
            Option("catalog", "address of a REST catalog, or the path of an SQLite catalog in an allowed folder"),
            Option("metadata", "metadata file of the table, instead of a catalog: path in an allowed folder"),
            Option("url", "such a file in an object store: s3:// or az://"),
            Option("table", "table in the catalog, its namespace before a dot"),
            Option("warehouse", "warehouse of the catalog"),
            Option("token_url", "address that gives tokens for `credential`; the catalog's own unless given"),
            Option("scope", "scope of such a token; `catalog` unless given"),
            *_ALL,
        ),
        ("catalog", "metadata", "url"),
        (*_OBJECT_SECRET, "token", "credential"),
        extra="iceberg",
    ),
)
CHANGED_AT, HISTORY = "changed_at", "history"
VIEWS: tuple[Option, ...] = (
    Option(CHANGED_AT, "column that says when a row changed last, for the conflict rule `newest`"),
    Option(HISTORY, "`true` keeps what values were, for queries as of an event's time"),
)
"""Members of metadata that any connection may have: how its rows are looked at, not where and how they are read."""

SYNONYMS = {"postgresql": "postgres", "mariadb": "mysql", "files": "file"}
KIND_NAMES = tuple(kind.name for kind in KINDS)
_BY_NAME = {kind.name: kind for kind in KINDS}

CREDENTIALS = frozenset(
    {"password", "user", "username", "token", "access_token", "secret_access_key", "access_key_id", "client_secret"}
)
"""Members of metadata that belong into a secret; told apart from typing errors."""

FORMATS = {
    ".csv": "csv",
    ".tsv": "csv",
    ".ndjson": "ndjson",
    ".jsonl": "ndjson",
    ".json": "ndjson",
    ".parquet": "parquet",
}
"""The format of a file by its ending."""

UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
DAY_S = 86_400
EVERY_MIN_S = 10


@dataclass(frozen=True, slots=True)
class Origin:
    """Where the rows of a table come from: a kind of source and its options, sorted by name."""

    kind: str
    options: tuple[tuple[str, str], ...]

    def get(self, name: str, default: str = "") -> str:
        """The option of that name, or the default."""
        return dict(self.options).get(name, default)


def find_kind(name: str) -> Kind | None:
    """The kind of that name or synonym, in any case; None when there is none."""
    plain = name.strip().lower()
    return _BY_NAME.get(SYNONYMS.get(plain, plain))


def options_of(metadata: Map[str, str]) -> dict[str, str]:
    """The members of metadata that say what is read."""
    views = {option.name for option in VIEWS}
    return {name: text for name, text in metadata.items() if name not in views}


def parse_origin(type: str, metadata: Map[str, str], at: str = "/data/attributes/metadata") -> Origin:
    """The origin that a connection of that type and metadata names. Errors: INVALID with the place and the nearest."""
    kind = find_kind(type)
    if kind is None:
        raise Error(Code.INVALID, f"there is no source of type {type!r}", hint=f"types: {', '.join(KIND_NAMES)}")
    options = options_of(metadata)
    known = [option.name for option in kind.options]
    for name in options:
        if name not in known:
            raise _unknown(kind, name, at)
    given = {name: text for name, text in options.items() if text.strip()}
    for option in kind.options:
        if option.required and option.name not in given:
            raise Error(Code.INVALID, f"{option.name!r} is missing", at=f"{at}/{option.name}", hint=option.meaning)
    chosen = [name for name in kind.either if name in given]
    if kind.either and len(chosen) != 1:
        message = f"give exactly one of {' and '.join(kind.either)}"
        raise Error(Code.INVALID, message, at=at, hint=f"given: {', '.join(chosen) or 'none'}")
    for name, text in given.items():
        _refuse_credentials(text, f"{at}/{name}")
    for name in ("every", "full_every"):
        if name in given:
            parse_every(given[name], f"{at}/{name}")
    return Origin(kind.name, tuple(sorted(given.items())))


def _refuse_credentials(text: str, at: str) -> None:
    """Metadata is shown and kept in history: an address in it is a plain one. Error: INVALID."""
    found = re.match(r"[a-z][a-z0-9+.-]*://(?P<server>[^/?#]*)", text.strip(), re.IGNORECASE)
    if found is None:
        return
    web = text.strip().lower().startswith(("http://", "https://"))
    if "@" in found["server"] or (web and re.search(r"[?#]", text)):
        hint = "only scheme, host, port and path; keep credentials in a named secret"
        raise Error(Code.INVALID, "the address holds more than a place", at=at, hint=hint)


def format_of_name(name: str, format: str = "", at: str = "") -> str:
    """The format of a file: as given, else by the ending of its name; `.gz` looks at the one before. Error: INVALID."""
    known = sorted(set(FORMATS.values()))
    if format and format not in known:
        raise Error(Code.INVALID, f"unknown file format {format!r}", at=at, hint=f"allowed: {', '.join(known)}")
    ending = re.search(r"(\.[^./]*?)(\.gz)?$", name.lower())
    found = format or (FORMATS.get(ending[1]) if ending else None)
    if not found:
        shown = name.rpartition("/")[2]
        raise Error(Code.INVALID, f"cannot tell the format of {shown!r}", at=at, hint=f"give it: {', '.join(known)}")
    return found


def _unknown(kind: Kind, name: str, at: str) -> Error:
    if name in CREDENTIALS:
        hint = "keep it in a named secret (`roster secret set NAME`) and give that name as `secret`"
        return Error(Code.INVALID, f"{name!r} is a credential and not kept here", at=f"{at}/{name}", hint=hint)
    known = [option.name for option in (*kind.options, *VIEWS)]
    hint = did_you_mean(name, known) or f"known: {', '.join(known)}"
    return Error(Code.INVALID, f"a {kind.name} source has no option {name!r}", at=f"{at}/{name}", hint=hint)


def parse_every(text: str, at: str = "") -> int | None:
    """Seconds of an interval such as `5m`; None for `off`. Error: INVALID."""
    plain = text.strip().lower()
    if plain == "off":
        return None
    found = re.fullmatch(r"([0-9]{1,6})([smhd])", plain)
    seconds = int(found[1]) * UNITS_S[found[2]] if found else 0
    if not EVERY_MIN_S <= seconds <= 366 * DAY_S:
        hint = f"a number with s, m, h or d, from {EVERY_MIN_S}s to 366d, or off"
        raise Error(Code.INVALID, f"{text!r} is no time between syncs", at=at, hint=hint)
    return seconds


def every_s(origin: Origin, default_s: int) -> int | None:
    """Seconds between two syncs; None when it syncs on request only."""
    text = origin.get("every")
    return parse_every(text) if text else default_s


def full_every_s(origin: Origin) -> int | None:
    """Seconds between two full reads of a source with a cursor; None for never."""
    text = origin.get("full_every")
    return parse_every(text) if text else DAY_S
