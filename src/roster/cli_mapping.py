"""Owns the group of commands about mappings, and those on their history: versions, diff, show, undo. Wires nothing."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from typing import Annotated, Any

from cyclopts import App, Parameter
from rich.console import Console
from rich.table import Column as Heading, Table as Grid

from roster.base.errors import Code, Error
from roster.base.time import instant, iso_ms
from roster.base.values import Difference
from roster.cli_declaration import add_declaration
from roster.cli_syncs import Doors
from roster.model.declaration_calls import Call, mapping_path
from roster.model.mapping import attributes, diff_versions
from roster.model.schema import Entity
from roster.operations.context import ENTITIES, Request
from roster.operations.history import undo_mapping
from roster.operations.keys import LOCAL


def add_mapping(app: App, doors: Doors, url: str, now_ms: Callable[[], int], out: Console) -> None:
    """The commands `roster mapping ...`; `url` is where the local server answers."""
    mapping = App(name="mapping", help="What connections bring into profiles.")
    app.command(mapping)
    add_declaration(mapping, url, now_ms, out)
    _add_looks(mapping, doors, out)
    _add_diff(mapping, doors, out)
    _add_undo(mapping, doors, url, out)


def _add_looks(mapping: App, doors: Doors, out: Console) -> None:
    @mapping.command
    def show(entity: str, /, *, version: int | None = None) -> None:
        """Show the custom attributes of a mapping, and where each comes from.

        Parameters
        ----------
        entity
            users or accounts.
        version
            An older mapping; the newest otherwise.
        """
        texts = (Heading(name, overflow="fold") for name in ("attribute", "type", "connection", "column"))
        grid = Grid(*texts)
        with doors.open_records() as records:
            found = records.store.read_mapping(_entity(entity), version)
        for a in attributes(found):
            for offer in a.offers:
                grid.add_row(a.id, a.type, offer.connection.id, offer.field.source_name)
        out.print(grid)
        restores = f", restores {found.restores}" if found.restores is not None else ""
        out.print(f"version {found.version}{restores}", highlight=False)

    @mapping.command
    def versions(entity: str, /, *, limit: int = 20, before: int | None = None) -> None:
        """Show the versions of a mapping, newest first: when, who, why, what changed.

        Parameters
        ----------
        entity
            users or accounts.
        limit
            Versions at most.
        before
            Only versions older than this one.
        """
        grid = Grid("version", Heading("at", no_wrap=True), "who", "why", "restores", "changed")
        with doors.open_records() as records:
            found = records.store.list_versions(_entity(entity), before=before, limit=max(limit, 0))
        for v in found:
            restores = "" if v.restores is None else str(v.restores)
            changed = "\n".join(d.at for d in v.diff)
            grid.add_row(str(v.version), iso_ms(instant(v.at_ms)), v.who, v.why, restores, changed)
        out.print(grid)


def _add_diff(mapping: App, doors: Doors, out: Console) -> None:
    @mapping.command
    def diff(
        entity: str,
        /,
        *,
        start: Annotated[int | None, Parameter(name="--from")] = None,
        to: int | None = None,
    ) -> None:
        """Show what differs between two versions of a mapping.

        Parameters
        ----------
        entity
            users or accounts.
        start
            A version; the one before `--to` otherwise.
        to
            A version; the newest otherwise.
        """
        named = _entity(entity)
        with doors.open_records() as records:
            newer = records.store.read_mapping(named, to)
            older = records.store.read_mapping(named, max(0, newer.version - 1) if start is None else start)
        _print_diff(out, diff_versions(older, newer))
        out.print(f"from version {older.version} to version {newer.version}", highlight=False)


def _add_undo(mapping: App, doors: Doors, local: str, out: Console) -> None:
    @mapping.command
    def undo(entity: str, /, *, to: int | None = None, reason: str = "") -> None:
        """Bring back the mapping before its newest change, as a new version; repeated, the one before that.

        Beside a running server the server does it. Then keys come from the environment, as for `export`.

        Parameters
        ----------
        entity
            users or accounts.
        to
            Bring back the mapping of this version instead.
        reason
            Why, for the history.
        """
        named = _entity(entity)
        query = {} if to is None else {"to": [str(to)]}
        headers = {"x-roster-reason": reason} if reason else {}
        try:
            with doors.open_product() as context:
                body = undo_mapping(context, Request(LOCAL, b"", {"entity": named.value}, query, headers)).body
        except Error as error:
            if error.code is not Code.BUSY:
                raise
            body = _undo_beside(local, named, to, reason)
        done = body["data"]["attributes"]
        _print_diff(out, (Difference(**d) for d in done["diff"]))
        out.print(f"version {done['version']} has the mapping of version {done['restores']}", highlight=False)


def _undo_beside(url: str, entity: Entity, to: int | None, reason: str) -> Any:
    """Ask the running server, which has the data folder."""
    from roster.cli_far_end import open_far_end

    path = f"{mapping_path(entity)}/undo" + ("" if to is None else f"?to={to}")
    with open_far_end(url, os.environ) as far_end:
        return far_end.ask(Call("POST", path), reason=reason)


def _entity(name: str) -> Entity:
    if name not in ENTITIES:
        raise Error(Code.INVALID, f"unknown entity {name!r}", hint="allowed: users, accounts")
    return ENTITIES[name]


def _print_diff(out: Console, diff: Iterable[Difference]) -> None:
    for d in diff:
        shown = f"{d.at}: {_short(d.before)} -> {_short(d.after)}"
        out.print(shown, highlight=False, markup=False, soft_wrap=True)


def _short(value: Any) -> str:
    return "nothing" if value is None else json.dumps(value, ensure_ascii=False)
