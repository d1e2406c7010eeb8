"""Owns the group of commands about mappings. Wires nothing itself."""

from __future__ import annotations

from collections.abc import Callable

from cyclopts import App
from rich.console import Console

from roster.cli_declaration import add_declaration


def add_mapping(app: App, url: str, now_ms: Callable[[], int], out: Console) -> None:
    """The commands `roster mapping ...`; `url` is where the local server answers."""
    mapping = App(name="mapping", help="What connections bring into profiles.")
    app.command(mapping)
    add_declaration(mapping, url, now_ms, out)
