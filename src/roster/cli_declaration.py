"""Owns the commands that keep a mapping as a file: export, plan, apply, drift. Talks to far ends only over the API."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping as Map
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App, Parameter
from rich.console import Console

from roster.base.errors import Code, Error
from roster.base.time import instant, iso_ms
from roster.cli_steps import Previews, print_counts, print_notes, print_plan
from roster.model.declaration import Declaration, connection_json
from roster.model.declaration_calls import Call, calls_of
from roster.model.declaration_far import name_tables
from roster.model.declaration_steps import (
    ConnectionStep,
    Plan,
    plan_connections,
    plan_segments,
    plan_tables,
    step_json,
)
from roster.model.schema import Entity

if TYPE_CHECKING:
    from roster.cli_far_end import Far, FarEnd
    from roster.model.declaration_text import Places

NOTHING, DIFFERENT, FAILED = 0, 2, 1
"""Exit statuses of `plan` and `drift`."""
BODY_AT = "/data/attributes"
DECLARATION = "/api/roster/declaration"
Url = Annotated[str, Parameter(name="--url")]
Flag = Parameter(negative=())


@dataclass(frozen=True, slots=True)
class _Said:
    """A file as it was read."""

    declaration: Declaration
    places: Places


def add_declaration(mapping: App, url: str, now_ms: Callable[[], int], out: Console) -> None:
    """The commands `roster mapping export|plan|apply|drift`; `url` is the local server's."""
    _add_export(mapping, url, now_ms, out)
    _add_plan(mapping, url, out)
    _add_apply(mapping, url, out)
    _add_drift(mapping, url, out)


def _add_export(mapping: App, local: str, now_ms: Callable[[], int], out: Console) -> None:
    @mapping.command
    def export(file: Path | None = None, /, *, url: Url = local) -> None:
        """Write connections, fields, tables and segments of an organisation as YAML.

        Rows of tables are not written. Keys come from the environment: ROSTER_API_KEY and ROSTER_APP_KEY, else
        DD_API_KEY and DD_APP_KEY, or a token in ROSTER_BEARER_TOKEN or DD_BEARER_TOKEN.

        Parameters
        ----------
        file
            Where to; standard output otherwise.
        url
            The far end: a Roster, or anything that speaks the same API.
        """
        from roster.model.declaration_text import write_text

        with _open(url) as far_end:
            far = far_end.read()
        head = (f"exported from {far_end.url} at {iso_ms(instant(now_ms()))}", *far.notes)
        text = write_text(far.declaration, head)
        if file is None:
            sys.stdout.write(text)
        else:
            _write(file, text)
            out.print(f"wrote {file}", highlight=False, markup=False, soft_wrap=True)


def _add_plan(mapping: App, local: str, out: Console) -> None:
    @mapping.command
    def plan(
        file: Path,
        /,
        *,
        url: Url = local,
        prune: Annotated[bool, Flag] = False,
        as_json: Annotated[bool, Parameter(name="--json", negative=())] = False,
    ) -> int:
        """Show what `apply` would change, and what that would do to profiles.

        Exit status: 0 nothing to change, 2 something to change, 1 an error.

        Parameters
        ----------
        file
            The YAML file.
        url
            The far end: a Roster, or anything that speaks the same API.
        prune
            Also delete connections and segments that the file does not name.
        as_json
            The steps as JSON.
        """

        def look() -> int:
            said = _read(file)
            with _open(url) as far_end:
                found, previews = _plan(far_end, far_end.read(), said, prune)
            if as_json:
                _print_json(found, {"previews": previews})
            else:
                _show(out, found, previews, file)
            return DIFFERENT if found.steps else NOTHING

        return _guarded(look)


def _add_apply(mapping: App, local: str, out: Console) -> None:
    @mapping.command
    def apply(
        file: Path,
        /,
        *,
        url: Url = local,
        prune: Annotated[bool, Flag] = False,
        yes: Annotated[bool, Parameter(name=["--yes", "-y"], negative=())] = False,
        reason: str = "",
    ) -> None:
        """Make the far end what the file says.

        On a Roster all connections and fields change in one step, or nothing does. Elsewhere each step is a
        request of its own; after an interruption, apply again.

        Parameters
        ----------
        file
            The YAML file.
        url
            The far end: a Roster, or anything that speaks the same API.
        prune
            Also delete connections and segments that the file does not name.
        yes
            Do not ask first.
        reason
            Why; a Roster keeps it in the history.
        """
        said = _read(file)
        with _open(url) as far_end:
            far = far_end.read()
            found, previews = _plan(far_end, far, said, prune)
            _show(out, found, previews, file)
            if not found.steps:
                return
            if not yes and not _agreed(out, far_end.url):
                raise Error(Code.CONFLICT, "nothing was changed", hint="say --yes to apply without being asked")
            _carry_out(far_end, far, said, found, prune=prune, reason=reason)
            left, _ = _plan(far_end, far_end.read(), said, prune, preview=False)
        if left.steps:
            _show(out, left, {}, file)
            raise Error(Code.CONFLICT, "the far end still differs from the file", hint="did somebody else change it?")
        out.print("done: the far end is as the file says", highlight=False)


def _add_drift(mapping: App, local: str, out: Console) -> None:
    @mapping.command
    def drift(
        file: Path,
        /,
        *,
        url: Url = local,
        as_json: Annotated[bool, Parameter(name="--json", negative=())] = False,
    ) -> int:
        """Show how the far end differs from the file, both ways. Meant for timers.

        Exit status: 0 they are alike, 2 they differ, 1 an error.

        Parameters
        ----------
        file
            The YAML file.
        url
            The far end: a Roster, or anything that speaks the same API.
        as_json
            The differences as JSON.
        """

        def look() -> int:
            said = _read(file)
            with _open(url) as far_end:
                far = far_end.read()
            found = _drift(far, said.declaration)
            differs = bool(found.steps or found.apart)
            if as_json:
                _print_json(found, {})
            elif differs:
                out.print("+ only in the file, - only at the far end, ~ far end -> file", highlight=False)
                print_plan(out, found, {})
            else:
                print_notes(out, found.notes)
                out.print(f"no drift: the far end is as {file} says", highlight=False, markup=False, soft_wrap=True)
            return DIFFERENT if differs else NOTHING

        return _guarded(look)


def _guarded(look: Callable[[], int]) -> int:
    """The status of `look`; every error is 1, as 2 has a meaning of its own here."""
    try:
        return look()
    except Error as error:
        line = f"[red]{error.code}[/red]: "
        Console(stderr=True).print(line, error.text(), sep="", highlight=False, soft_wrap=True)
        return FAILED


def _open(url: str) -> Any:
    from roster.cli_far_end import open_far_end  # the HTTP client is slow to import, and other commands need none

    return open_far_end(url, os.environ)


def _read(file: Path) -> _Said:
    from roster.model.declaration_text import read_text

    try:
        text = file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise Error(Code.INVALID, f"{file} is not UTF-8 text") from error
    except OSError as error:
        raise Error(Code.NOT_FOUND, f"cannot read {file}: {error.strerror}") from error
    return _Said(*read_text(text, str(file)))


def _write(file: Path, text: str) -> None:
    """Whole or not at all."""
    aside = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        aside.write_text(text, encoding="utf-8")
        aside.replace(file)
    except OSError as error:
        with suppress(OSError):
            aside.unlink(missing_ok=True)
        raise Error(Code.NOT_FOUND, f"cannot write {file}: {error.strerror}") from error


def _plan(far_end: FarEnd, far: Far, said: _Said, prune: bool, *, preview: bool = True) -> tuple[Plan, dict[str, Any]]:
    """All steps in order, and what a Roster says that those of the mapping would do."""
    have, want = far.declaration, said.declaration
    plan = Plan()
    try:
        if want.tables is not None and have.tables is not None:
            plan += plan_tables(have.tables, want.tables)
        mapping = Plan()
        names = {t.id: t.name for t in have.tables or ()}
        for entity in Entity:
            connections = want.connections(entity)
            if connections is not None:
                there, wanted = have.connections(entity) or (), name_tables(connections, names)
                mapping += plan_connections(entity, there, wanted, prune=prune, bare=not far.is_roster)
        plan += mapping
        if want.segments is not None and have.segments is not None:
            plan += plan_segments(have.segments, want.segments, prune=prune)
        previews: dict[str, Any] = {}
        if preview and mapping.steps and far.is_roster:
            previews = _declare(far_end, far, want, prune, dry=True).get("previews", {})
    except Error as error:
        raise _placed(error, said) from error
    return plan + Plan(notes=far.notes), previews


def _placed(error: Error, said: _Said) -> Error:
    """The error with its line of the file, when it points into the declaration."""
    under = BODY_AT if error.at.startswith(f"{BODY_AT}/") else ""
    return said.places.tell(error, under)


def _declare(far_end: FarEnd, far: Far, want: Declaration, prune: bool, *, dry: bool, reason: str = "") -> Any:
    """Apply all connections at a Roster at once, or only ask what that would do."""
    attributes: dict[str, Any] = {"prune": prune}
    for entity in Entity:
        connections = want.connections(entity)
        if connections is not None:
            shown = {c.id: connection_json(c) for c in connections}
            attributes[entity.value] = {"version": far.versions[entity], "connections": shown}
    body = {"data": {"type": "declaration", "attributes": attributes}}
    call = Call("PUT", f"{DECLARATION}?dry_run=true" if dry else DECLARATION, body)
    return far_end.ask(call, reason=reason)["data"]["attributes"]


def _carry_out(far_end: FarEnd, far: Far, said: _Said, plan: Plan, *, prune: bool, reason: str) -> None:
    """The steps in order; at a Roster those of connections are one request."""
    declared = False
    for step in plan.steps:
        try:
            if isinstance(step, ConnectionStep) and far.is_roster:
                if not declared:
                    _declare(far_end, far, said.declaration, prune, dry=False, reason=reason)
                declared = True
                continue
            for call in calls_of(step, bare=not far.is_roster):
                far_end.ask(call)
        except Error as error:
            raise _placed(error, said) from error


def _drift(far: Far, said: Declaration) -> Plan:
    """The steps that would make both alike, deletes included; parts that the file leaves out are not compared."""
    have = far.declaration
    plan = Plan(notes=far.notes)
    if said.tables is not None and have.tables is not None:
        plan += plan_tables(have.tables, said.tables)
    for entity in Entity:
        wanted = said.connections(entity)
        if wanted is not None:
            named = name_tables(wanted, {t.id: t.name for t in have.tables or ()})
            there = have.connections(entity) or ()
            plan += plan_connections(entity, there, named, prune=True, bare=not far.is_roster)
    if said.segments is not None and have.segments is not None:
        plan += plan_segments(have.segments, said.segments, prune=True)
    return plan


def _agreed(out: Console, url: str) -> bool:
    """Whether a person says yes; nobody is there to ask off a terminal."""
    if not sys.stdin.isatty():
        return False
    return out.input(f"Apply this to {url}? Only 'yes' does it: ", markup=False).strip() == "yes"


def _show(out: Console, plan: Plan, previews: Previews, file: Path) -> None:
    if not plan.steps:
        print_notes(out, (*plan.apart, *plan.notes))
        told = "nothing that could be changed" if plan.apart else f"nothing to change: the far end is as {file} says"
        out.print(told, highlight=False, markup=False, soft_wrap=True)
        return
    print_plan(out, plan, previews)
    print_counts(out, plan)


def _print_json(plan: Plan, more: Map[str, Any]) -> None:
    told = {"steps": [step_json(step) for step in plan.steps], "apart": list(plan.apart), "notes": list(plan.notes)}
    sys.stdout.write(json.dumps(told | dict(more), ensure_ascii=False, indent=2) + "\n")
