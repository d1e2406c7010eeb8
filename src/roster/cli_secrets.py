"""Owns the commands about secrets: how values come in without being seen. Wires nothing itself."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from getpass import getpass
from pathlib import Path
from typing import TextIO

from cyclopts import App
from rich.console import Console
from rich.table import Column as Heading, Table as Grid

from roster.base.errors import Code, Error
from roster.base.time import instant, iso_ms
from roster.model.sync import Trigger
from roster.operations.context import Records
from roster.operations.keys import LOCAL
from roster.operations.secrets import MEMBER_NAMES, failing_with, keep_secret, remove_secret
from roster.operations.syncing import queue_run

FORMS = "write member=- to be asked for it, or member=@file"


def add_secrets(app: App, open_records: Callable[[], AbstractContextManager[Records]], out: Console) -> None:
    """The commands `roster secret ...`; all work beside a running server."""
    secret = App(name="secret", help="Credentials of sources, kept sealed.")
    app.command(secret)

    @secret.command(name="set")
    def set_secret(name: str, /, *members: str) -> None:
        """Keep credentials under a name, in place of what was there.

        Values never stand on the command line, where other processes could read them.

        Parameters
        ----------
        name
            What connections call it: their option `secret`.
        members
            `password=-` asks for the value, or reads a line of standard input; `private_key=@key.pem` reads a file.
            With no members, standard input is a JSON object of them.
        """
        read = read_members(members, sys.stdin) if members else read_object(sys.stdin)
        with open_records() as records:
            kept = keep_secret(records, name, read, who=LOCAL.id)
            for table in failing_with(records.store, name):
                queue_run(records.store, records.clock, table.id, Trigger.MANUAL)
        out.print(f"kept {kept.name}: {', '.join(kept.members)}", highlight=False, markup=False)

    @secret.command(name="list")
    def list_secrets() -> None:
        """Show the secrets and which members each has, never what is in them."""
        grid = Grid(Heading("name", overflow="fold"), Heading("members", overflow="fold"), "updated")
        with open_records() as records:
            for kept in records.store.list_secrets():
                grid.add_row(kept.name, ", ".join(kept.members), iso_ms(instant(kept.updated_ms)))
        out.print(grid)

    @secret.command
    def remove(name: str, /) -> None:
        """Forget a secret that nothing names any more.

        Parameters
        ----------
        name
            As `roster secret list` shows it.
        """
        with open_records() as records:
            remove_secret(records, name, who=LOCAL.id)
        out.print(f"removed {name}", highlight=False, markup=False)


def read_members(words: tuple[str, ...], given: TextIO) -> dict[str, str]:
    """The members that words such as `password=-` name, with their values. Errors: INVALID, NOT_FOUND."""
    members: dict[str, str] = {}
    for number, word in enumerate(words, 1):
        name, sign, place = word.partition("=")
        if not sign or not name:
            raise Error(Code.INVALID, f"cannot read member {number}", hint=FORMS)
        if name in members:
            raise Error(Code.INVALID, f"the member {name!r} comes twice", hint="keep one")
        if place == "-":
            members[name] = _ask(name, given)
        elif place.startswith("@"):
            members[name] = _read_file(name, Path(place.removeprefix("@")))
        else:
            shown = repr(name) if name in MEMBER_NAMES else f"member {number}"  # it may be a part of the value
            message = f"the value of {shown} stands on the command line, where other processes can read it"
            raise Error(Code.INVALID, message, hint=FORMS)
    return members


def _ask(name: str, given: TextIO) -> str:
    """The value: typed without being shown, or the next line of what is no terminal."""
    if given.isatty():
        return getpass(f"{name}: ")
    line = given.readline()
    if not line:
        raise Error(Code.INVALID, f"standard input has no line for {name!r}", hint="one line for each member=-")
    return line.removesuffix("\n").removesuffix("\r")


def _read_file(name: str, path: Path) -> str:
    """The text of a file but the line break at its end, which no editor lets one leave out."""
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise Error(Code.INVALID, f"{path}, given for {name!r}, is not UTF-8 text") from error
    except OSError as error:
        raise Error(Code.NOT_FOUND, f"cannot read {path}, given for {name!r}: {error.strerror}") from error
    return text.removesuffix("\n").removesuffix("\r")


def read_object(given: TextIO) -> dict[str, str]:
    """The members of a JSON object. Error: INVALID, which does not repeat what was read."""
    hint = 'write {"user": "...", "password": "..."}, or name members: ' + FORMS
    if given.isatty():
        raise Error(Code.INVALID, "no members are given", hint=FORMS)
    try:
        found = json.loads(given.read())
    except ValueError as error:
        raise Error(Code.INVALID, "standard input is no JSON", hint=hint) from error
    if not isinstance(found, dict) or not all(isinstance(value, str) for value in found.values()):
        raise Error(Code.INVALID, "standard input is no JSON object of strings", hint=hint)
    return found
