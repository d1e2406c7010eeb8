"""Owns the commands about one user: showing all that is kept, and erasing it. Wires nothing itself."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Annotated

from cyclopts import App, Parameter
from rich.console import Console

from roster.operations.context import Context, Request
from roster.operations.keys import LOCAL
from roster.operations.user_rights import erase_user, export_lines


def add_users(
    app: App,
    open_product: Callable[[], AbstractContextManager[Context]],
    compact: Callable[[], tuple[int, int]],
    out: Console,
) -> None:
    """The commands `roster user ...` and `roster compact`."""
    user = App(name="user", help="What is kept of one user.")
    app.command(user)

    @user.command(name="erase")
    def erase(id: str, /, *, yes: Annotated[bool, Parameter(negative=())] = False) -> None:
        """Remove all that is kept of a user: events, sessions, profile, links.

        Parameters
        ----------
        id
            The user's id.
        yes
            Do it. Without it the command only tells what would go.
        """
        request = Request(LOCAL, path={"id": id}, query={"dry_run": [str(not yes).lower()]})
        with open_product() as context:
            told = erase_user(context, request).body["data"]
        for name, count in told["attributes"]["counts"].items():
            out.print(f"{name:20} {count:,}", highlight=False)
        for name, kept in told["attributes"]["not_erased"].items():
            if kept:
                out.print(f"yours to look at: {name} {', '.join(kept)}", highlight=False, markup=False)
        if yes:
            out.print(f"erased; the receipt is {told['id']}", highlight=False)
        else:
            out.print("Nothing is changed. To erase, add --yes.")

    @user.command(name="export")
    def export(id: str, /) -> None:
        """Print all that is kept of a user as lines of JSON: the profile and its sources, then each event.

        Parameters
        ----------
        id
            The user's id.
        """
        with open_product() as context:
            for line in export_lines(context, Request(LOCAL, path={"id": id})):
                json.dump(line, sys.stdout, ensure_ascii=False)
                print()  # noqa: T201

    @app.command(name="compact")
    def compact_file() -> None:
        """Write the engine's file anew, so that nothing of what was deleted is left in it. The server must not run."""
        before, after = compact()
        out.print(f"{before:,} bytes before, {after:,} after", highlight=False)
