"""Owns the command line: words in, operations called, readable lines out. Wires nothing itself."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, Parameter
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress as Bar, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Column as Heading, Table as Grid

from roster import __version__
from roster.base.errors import EXIT_STATUS, Code, Error
from roster.base.time import instant, iso_ms
from roster.cli_mapping import add_mapping
from roster.cli_secrets import add_secrets
from roster.cli_syncs import Doors, add_sources
from roster.cli_users import add_users
from roster.model.access import KeyKind
from roster.operations.context import Context, Records, Request
from roster.operations.keys import LOCAL, create_key, revoke_key
from roster.operations.load import load_events, load_table
from roster.operations.profiles import query_accounts, query_users
from roster.ports import Applied, Progress

EXPLAIN_FIELDS = ("kept_as", "plan", "settled", "sql", "parameters", "physical")


@dataclass(frozen=True, slots=True)
class Wiring:
    """What the wiring gives the command line: the data folder open for work, long-running commands, where it serves."""

    open_product: Callable[[], AbstractContextManager[Context]]
    open_records: Callable[[], AbstractContextManager[Records]]
    serve: Callable[[], None]
    demo: Callable[[Console], None]
    check: Callable[[], list[tuple[str, str]]]
    url: str = "http://127.0.0.1:8126"
    now_ms: Callable[[], int] = lambda: 0
    compact: Callable[[], tuple[int, int]] = lambda: (0, 0)


def build_cli(wiring: Wiring) -> App:
    """The whole command line."""
    app = App(name="roster", help="Product analytics and audiences on your own data.", version=__version__)
    out = Console()
    _add_server(app, wiring, out)
    _add_data(app, wiring, out)
    _add_keys(app, wiring, out)
    _add_queries(app, wiring, out)
    doors = Doors(wiring.open_product, wiring.open_records)
    add_sources(app, doors, out)
    add_secrets(app, wiring.open_records, out)
    add_mapping(app, doors, wiring.url, wiring.now_ms, out)
    add_users(app, wiring.open_product, wiring.compact, out)
    return app


def run_cli(app: App, words: list[str] | None = None) -> int:
    """Run one command; its exit status. An Error is told in one line."""
    try:
        app(words)
    except Error as error:
        return tell(error)
    except BrokenPipeError:
        return 0
    return 0


def tell(error: Error) -> int:
    """Print an error in one line; its exit status."""
    Console(stderr=True).print(f"[red]{error.code}[/red]: {escape(error.text())}", highlight=False, soft_wrap=True)
    return EXIT_STATUS[error.code]


def _add_server(app: App, wiring: Wiring, out: Console) -> None:
    @app.command
    def serve() -> None:
        """Start the HTTP server."""
        wiring.serve()

    @app.command
    def demo() -> None:
        """Make a believable product, connect its CRM, change the mapping, then keep serving."""
        wiring.demo(out)

    @app.command
    def check() -> None:
        """Look over the data folder: settings, records, events, profiles."""
        for name, found in wiring.check():
            out.print(f"{name:24} {found}", highlight=False, soft_wrap=True)


def _tell_applied(done: Applied, out: Console) -> None:
    """What became of the events of a file."""
    out.print(f"stored {done.stored:,} events, {done.duplicate:,} were there already", highlight=False)
    for reason, count in sorted(done.left_out.items()):
        out.print(f"left out {count:,} of type {reason}: never taken, see the guide on events", highlight=False)


def _add_data(app: App, wiring: Wiring, out: Console) -> None:
    @app.command
    def load(
        file: Path,
        /,
        *,
        map: Annotated[list[str] | None, Parameter(name=["--map", "-m"], negative=())] = None,
        format: str | None = None,
    ) -> None:
        """Load events from a CSV, NDJSON or Parquet file.

        Parameters
        ----------
        file
            The file; `.gz` is unpacked.
        map
            Where an event path comes from, once for each: `usr.id=user_id` takes a column, `type==view` a constant.
        format
            csv, ndjson or parquet; told from the file's ending otherwise.
        """
        columns = dict(_mapped(text) for text in map or [])
        with wiring.open_product() as context, show_progress(out) as report:
            done = load_events(context, file, columns, report, format)
        _tell_applied(done, out)

    table = App(name="table", help="Reference tables.")
    app.command(table)

    @table.command(name="load")
    def load_file(file: Path, /, *, name: str | None = None, key: str | None = None, format: str | None = None) -> None:
        """Make a reference table of a CSV, NDJSON or Parquet file.

        Parameters
        ----------
        file
            The file.
        name
            The table's name; the file's name otherwise.
        key
            The primary key column; the first column otherwise.
        format
            csv, ndjson or parquet; told from the file's ending otherwise.
        """
        with wiring.open_product() as context:
            made, loaded = load_table(context, file, name, key, format)
        out.print(f"table {made.name}: {made.row_count:,} rows, key {made.primary_key}, id {made.id}", highlight=False)
        for column in made.columns:
            out.print(f"  {column.name}: {column.type}", highlight=False)
        if loaded.duplicates:
            out.print(f"{loaded.duplicates:,} rows had the key of a later one, which counts", highlight=False)
        if loaded.keyless:
            out.print(f"{loaded.keyless:,} rows without a key were left out", highlight=False)

    @table.command(name="list")
    def list_tables() -> None:
        """Show the reference tables."""
        with wiring.open_records() as records:
            for held in records.store.list_tables():
                out.print(f"{held.id}  {held.name}  {held.row_count:,} rows", highlight=False)


def _mapped(text: str) -> tuple[str, str]:
    path, sign, column = text.partition("=")
    if not (path and sign and column):
        raise Error(Code.INVALID, f"cannot read the mapping {text!r}", hint="write usr.id=user_id, or type==view")
    return path.removeprefix("@"), column


@contextmanager
def show_progress(out: Console) -> Iterator[Callable[[Progress], None]]:
    """A bar with rows, rate and the time that is left."""
    columns = (
        TextColumn("{task.description:12}"),
        BarColumn(),
        TaskProgressColumn(show_speed=False),
        TextColumn("{task.completed:,.0f} rows"),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    with Bar(*columns, console=out) as bar:
        tasks: dict[str, Any] = {}

        def report(progress: Progress) -> None:
            if progress.stage not in tasks:
                tasks[progress.stage] = bar.add_task(progress.stage, total=progress.total, rate="")
            task = tasks[progress.stage]
            bar.update(task, completed=progress.done, total=progress.total)
            speed = bar.tasks[bar.task_ids.index(task)].speed
            bar.update(task, rate=f"{speed:,.0f} rows/s" if speed else "")

        yield report


def _add_keys(app: App, wiring: Wiring, out: Console) -> None:
    key = App(name="key", help="Keys of the API.")
    app.command(key)

    @key.command
    def create(kind: KeyKind, /, *, name: str = "") -> None:
        """Make a key and show its secret, this once.

        Parameters
        ----------
        kind
            api, application, or client (a token for browsers that may only write events).
        name
            What it is for.
        """
        with wiring.open_records() as records:
            made, secret = create_key(records, kind, name)
        out.print(f"id      {made.id}\nkind    {made.kind}\nsecret  {secret}", highlight=False)
        out.print("Keep the secret now: it is not stored and cannot be shown again.")

    @key.command(name="list")
    def list_keys() -> None:
        """Show the keys, never their secrets."""
        grid = Grid(Heading("id", no_wrap=True), "kind", "name", "ends with", "created", "revoked")
        with wiring.open_records() as records:
            for held in records.store.list_keys():
                revoked = iso_ms(instant(held.revoked_ms)) if held.revoked_ms is not None else ""
                created = iso_ms(instant(held.created_ms))
                grid.add_row(held.id, held.kind, held.name, held.hint, created, revoked)
        out.print(grid)

    @key.command
    def revoke(id: str, /) -> None:
        """End a key at once.

        Parameters
        ----------
        id
            The id that `roster key list` shows.
        """
        with wiring.open_records() as records:
            revoke_key(records, id)
        out.print(f"revoked {id}", highlight=False)


QUERIES = {
    "users": (query_users, "query_users_request"),
    "accounts": (query_accounts, "query_account_request"),
}


def _ask(
    wiring: Wiring, entity: str, search: str, columns: list[str] | None, limit: int, sort: str | None, explain: bool
) -> Any:
    """The attributes of an answer; warnings go to standard error."""
    if entity not in QUERIES:
        raise Error(Code.INVALID, f"unknown entity {entity!r}", hint=f"allowed: {', '.join(QUERIES)}")
    function, type = QUERIES[entity]
    attributes: dict[str, Any] = {"query": search, "limit": limit}
    if columns:
        attributes["select_columns"] = columns
    if sort:
        attributes["sort"] = {"field": sort.removeprefix("-"), "order": "desc" if sort.startswith("-") else "asc"}
    body = json.dumps({"data": {"type": type, "attributes": attributes}}).encode()
    with wiring.open_product() as context:
        reply = function(context, Request(LOCAL, body, query={"explain": [str(explain).lower()]}))
    for warning in reply.body.get("meta", {}).get("warnings", []):
        Console(stderr=True).print(f"[yellow]warning[/yellow]: {warning}", highlight=False, soft_wrap=True)
    return reply.body["data"]["attributes"]


def _add_queries(app: App, wiring: Wiring, out: Console) -> None:
    @app.command
    def query(
        entity: str,
        search: str = "",
        /,
        *,
        columns: Annotated[list[str] | None, Parameter(name=["--columns", "-c"], negative=())] = None,
        limit: int = 20,
        sort: str | None = None,
        as_json: Annotated[bool, Parameter(name="--json", negative=())] = False,
    ) -> None:
        """Show users or accounts that match a search.

        Parameters
        ----------
        entity
            users or accounts.
        search
            For example `user_email:*@example.com AND session_count:>5`; all when left out.
        columns
            Attributes to show, once for each.
        limit
            Rows at most.
        sort
            An attribute; with `-` before it, descending.
        as_json
            The answer as JSON.
        """
        found = _ask(wiring, entity, search, columns, limit, sort, explain=False)
        if as_json:
            json.dump(found, sys.stdout, ensure_ascii=False, indent=2)
            print()
            return
        names = list(found["hits"][0]) if found["hits"] else []
        grid = Grid(*names)
        for hit in found["hits"]:
            grid.add_row(*("" if hit[n] is None else str(hit[n]) for n in names))
        out.print(grid)
        out.print(f"{found['total']:,} in all", highlight=False)

    @app.command
    def explain(entity: str, search: str = "", /, *, sort: str | None = None) -> None:
        """Show what a query would do: its plan, what the engine makes of it, the SQL, the engine's own plan.

        Parameters
        ----------
        entity
            users or accounts.
        search
            As for `query`.
        sort
            As for `query`.
        """
        for step in _ask(wiring, entity, search, None, 20, sort, explain=True)["queries"]:
            for field in EXPLAIN_FIELDS:
                if field not in step:
                    continue
                out.rule(field, align="left")
                out.print(step[field], highlight=False, markup=False, soft_wrap=True)
