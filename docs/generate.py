"""Owns the generated pages of docs/reference: each is printed from the code it describes. Decides no wording of theirs.

`python docs/generate.py` writes the pages; tests/docs/test_reference.py fails when one is stale.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from roster.base.errors import EXIT_STATUS, HTTP_STATUS, Code
from roster.cli import Wiring, build_cli
from roster.http.limits import BUCKETS
from roster.http.routes import OWN_PATHS, Binding, bindings
from roster.model.access import Right
from roster.model.connection import FIELD_TYPES, JOIN_SYNONYMS, SYNONYMS
from roster.model.schema import BUILTINS, EVENT_COLUMNS, EVENT_TEXT, KEY_ATTRIBUTE, Entity
from roster.model.source import KINDS, SYNONYMS as KIND_SYNONYMS, VIEWS, Kind
from roster.settings import Settings

FOLDER = Path(__file__).parent / "reference"
NOTE = "<!-- Made by docs/generate.py: change the code, then run `python docs/generate.py`. -->"

MEANINGS = {
    Code.INVALID: "The request is wrong as written.",
    Code.UNAUTHENTICATED: "No usable key came with the request.",
    Code.FORBIDDEN: "The key is unknown or revoked, or does not give this right.",
    Code.NOT_FOUND: "There is no such thing, or nothing at this path.",
    Code.CONFLICT: "The name or id is taken, or the thing is in another state.",
    Code.STALE: "`If-Match` names another version than the present one.",
    Code.TOO_LARGE: "The body or the answer is larger than its limit.",
    Code.UNSUPPORTED: "Roster does not do this (yet).",
    Code.RATE_LIMITED: "The key has used up its requests of this period.",
    Code.OVERLOADED: "More events come in than can be taken: send them again after `x-ratelimit-reset` seconds.",
    Code.LATE: "The body of the request did not come in time.",
    Code.BUSY: "Something is in use or full at the moment: try again.",
    Code.TIMEOUT: "The query took longer than it may.",
    Code.INTERNAL: "A fault of Roster. The answer gives an id, the log has the trace under it.",
}

RIGHTS: dict[Right, str] = {
    Right.NOTHING: "none: the signed address is the credential",
    Right.WRITE_EVENTS: "API key or client token",
    Right.READ: "API key and application key, or bearer",
    Right.WRITE_MAPPING: "API key and application key, or bearer",
    Right.WRITE_TABLES: "API key and application key, or bearer",
    Right.WRITE_SEGMENTS: "API key and application key, or bearer",
}


def grid(headings: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A Markdown table."""
    names = list(headings)
    lines = [names, ["---"] * len(names), *(list(row) for row in rows)]
    escaped = ([cell.replace("|", "\\|") for cell in line] for line in lines)
    return "\n".join(f"| {' | '.join(line)} |" for line in escaped)


def code(text: object) -> str:
    return f"`{text}`"


def page(title: str, *parts: str) -> str:
    return "\n\n".join([NOTE, f"# {title}", *parts]) + "\n"


def settings() -> str:
    """Every setting with its default."""
    fields = Settings.model_fields
    rows = [
        (code(name), code(f"ROSTER_{name.upper()}"), code(_default(field.default)), field.description or "")
        for name, field in fields.items()
        if name != "rate_limits"
    ]
    return page(
        "Settings",
        "A setting comes from an environment variable, else from `roster.toml` in the working folder, else it has its "
        "default. An unknown name in `roster.toml` is an error.",
        grid(("name", "environment", "default", "meaning"), rows),
        "## Rate limits",
        "`rate_limits` is a table of buckets, each with a text such as `600/minute`. In the environment, "
        "`ROSTER_RATE_LIMITS` is a JSON object. Requests are counted for each API key. A bucket that is left out is "
        "not limited.",
        grid(
            ("bucket", "default", "rights counted"),
            (
                (code(name), code(limit), ", ".join(code(r) for r, b in BUCKETS.items() if b == name))
                for name, limit in fields["rate_limits"].default.items()
            ),
        ),
        "## Example",
        "```toml\n"
        'data = "/var/lib/roster"\n'
        'host = "0.0.0.0"\n'
        "port = 8126\n"
        'engine_memory = "8GB"\n\n'
        "[rate_limits]\n"
        'audience_read = "6000/minute"\n'
        'audience_write = "60/minute"\n'
        'reference_tables_write = "60/minute"\n'
        'events = "60000/minute"\n'
        "```",
    )


def _default(value: Any) -> str:
    return str(value) if isinstance(value, str | Path) else json.dumps(value)


def operations() -> str:
    """Every operation of the contract and our own."""
    bound = sorted(bindings(), key=lambda b: (b.path, b.verb))
    contract = [b for b in bound if b.name not in OWN_PATHS]
    assert all(b.operation is not None for b in contract), "an operation of the contract is not served"
    own = [b for b in bound if b.name in OWN_PATHS]
    headings = ("operation", "verb", "path", "right", "success", "what it does")
    return page(
        "Operations",
        f"Roster serves all {len(contract)} operations of the API it speaks, and its own. `GET /openapi.json` "
        "describes them in full.",
        "## Of the API",
        grid(headings, map(_operation, contract)),
        "## Roster's own",
        grid(headings, map(_operation, own)),
        "Also `GET /health`, `GET /metrics` (Prometheus text) and `GET /openapi.json`. These three take no key.",
        "## Rights",
        grid(("right", "credential"), ((code(right), words) for right, words in RIGHTS.items())),
    )


def _operation(binding: Binding) -> tuple[str, ...]:
    operation = binding.operation
    assert operation is not None
    does = (operation.function.__doc__ or "").split("\n")[0]
    return (binding.name, binding.verb, code(binding.path), code(operation.right), str(binding.status), does)


def attributes() -> str:
    """Built-in attributes of profiles, columns of events, field types."""
    return page(
        "Attributes",
        "Custom attributes come from connections: see the [guide](../guide/connections.md). The mapping shows them "
        "as `@id`; queries take them with or without the `@`.",
        *(part for entity in Entity for part in _builtins(entity)),
        "## Events",
        "These paths of an event are typed columns. Every other path is kept as it came and can be searched too, such "
        "as `@context.cart.value`. Free text in an event search looks at "
        f"{', '.join(code(c.path) for c in EVENT_COLUMNS if c.name in EVENT_TEXT)}. "
        "Durations are nanoseconds, `date` is epoch milliseconds on the wire.",
        grid(("path", "column", "type"), ((code(f"@{c.path}"), code(c.name), c.type) for c in EVENT_COLUMNS)),
        "## Types of fields",
        "A field of a connection has one of these types. The synonyms are accepted and kept as the type itself.",
        grid(("type", "synonyms"), ((code(t), ", ".join(map(code, SYNONYMS[t]))) for t in FIELD_TYPES)),
        "A value that cannot be read as the type is missing for that profile. It is no error.",
    )


def _builtins(entity: Entity) -> tuple[str, ...]:
    synonyms = [f"`{short}` for `{name}`" for short, name in JOIN_SYNONYMS[entity].items()]
    joined = f"Each of them can be a `join_type`{', also ' + ', '.join(synonyms) if synonyms else ''}."
    rows = (
        (code(b.id), b.display_name, b.type, ", ".join(b.groups), b.description.replace("|", "/"))
        for b in BUILTINS[entity]
    )
    return (
        f"## {str(entity).capitalize()}",
        f"One profile for each `{KEY_ATTRIBUTE[entity]}`. {joined}",
        grid(("id", "name", "type", "group", "meaning"), rows),
    )


def errors() -> str:
    """Codes with their HTTP and exit status."""
    rows = ((code(c), str(HTTP_STATUS[c]), str(EXIT_STATUS[c]), MEANINGS[c]) for c in Code)
    return page(
        "Errors",
        "Every error has a code, a message, mostly a place (a JSON pointer into the request, or a character of a "
        "search) and mostly a hint. Over HTTP the code decides the status, on the command line the exit status.",
        grid(("code", "HTTP", "exit", "meaning"), rows),
        "## Bodies",
        "Audience and analytics operations answer text:",
        '```json\n{"errors": ["the search ends too early (at /data/attributes/query character 16); '
        'expected a number or a date"]}\n```',
        "Events and `/api/v2/validate` answer objects, each with its place when there is one:",
        '```json\n{"errors": [{"status": "400", "title": "Bad Request", "detail": "type must be \\"server\\"", '
        '"source": {"pointer": "/type"}}]}\n```',
        "Reference tables answer objects too, as `application/vnd.api+json`. A 400 there has the title "
        "`Generic Error` and no `status`. A 429 is text.",
        "Mistakes in the form of a body are all named at once, mistakes in its meaning one at a time. "
        "`GET /api/v1/validate` answers 403 for a missing "
        "key, as clients of that old path expect.",
        "A query whose caller hangs up is cancelled.",
    )


def cli() -> str:
    """The command line, from its own help."""
    nothing: Any = None  # the help runs no command
    app = build_cli(Wiring(nothing, nothing, nothing, nothing, nothing))
    text = app.generate_docs(output_format="markdown")
    contents, body = text.split("\n## roster ", 1)
    commands = contents.split("**Commands**:", 1)[1].strip()
    return page(
        "Command line",
        "`roster COMMAND --help` shows the same. The settings say which data folder a command works on. Commands that "
        "read or write events, rows or profiles need the folder for themselves: stop the server first, or use its "
        "API. `key`, `secret` and `source` commands and `table list` work beside a running server.",
        commands,
        "## roster " + body.strip().replace("```console", "```text"),
        "The exit status is 0, or that of the [error's code](errors.md). Words that the command line cannot read "
        "give 2.",
    )


def sources() -> str:
    """The options of every kind of source."""
    return page(
        "Sources",
        "`type` of a connection names the kind. Its `metadata` holds these options, all of them texts; others are "
        "refused. The [guide](../guide/sources.md) shows how sources are used. What stands under *secret* are the "
        "members of the named secret that the option `secret` names.",
        "With any type, `ref_table` included, these say how rows are looked at, not which are read:",
        grid(("option", "meaning"), [(code(option.name), option.meaning) for option in VIEWS]),
        *(part for kind in KINDS for part in _kind(kind)),
    )


def _kind(kind: Kind) -> tuple[str, ...]:
    also = [code(word) for word, name in KIND_SYNONYMS.items() if name == kind.name]
    notes = [f"Also written {', '.join(also)}."] if also else []
    if kind.either:
        notes.append(f"Exactly one of {', '.join(map(code, kind.either))} is given.")
    if kind.extra:
        notes.append(f"Needs `pip install 'roster[{kind.extra}]'`.")
    if kind.secret:
        notes.append(f"Secret: {', '.join(map(code, kind.secret))}.")
    rows = ((code(o.name), "yes" if o.required else "", o.meaning) for o in kind.options)
    return (f"## {kind.name}", " ".join(notes) or "Takes no secret.", grid(("option", "required", "meaning"), rows))


PAGES: dict[str, Callable[[], str]] = {
    "settings.md": settings,
    "operations.md": operations,
    "attributes.md": attributes,
    "cli.md": cli,
    "errors.md": errors,
    "sources.md": sources,
}


def main() -> None:
    """Write every page."""
    for name, make in PAGES.items():
        (FOLDER / name).write_text(make(), encoding="utf-8")


if __name__ == "__main__":
    main()
