"""The reference pages are the code's own words, and every search in them is read as it says."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

from docs.pages import ROOT
from roster.analyses.scopes import World, event_scope, profile_scope
from roster.base.errors import Code, Error
from roster.model.changes import create
from roster.model.connection import CreateRequest, Field
from roster.model.mapping import empty
from roster.model.schema import Entity, Type
from roster.query.resolve import Scope, resolve
from roster.query.search import parse

REFERENCE = ROOT / "docs" / "reference"
NOW_MS = 1_772_701_200_000


def load(path: Path) -> ModuleType:
    """A script of docs/ as a module."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


generate = load(ROOT / "docs" / "generate.py")


@pytest.mark.parametrize("name", generate.PAGES)
def test_a_page_is_what_the_code_says(name: str) -> None:
    written = (REFERENCE / name).read_text(encoding="utf-8")
    assert written == generate.PAGES[name](), "run `python docs/generate.py`"


def rows_of(heading: str) -> list[tuple[str, str]]:
    """The searches under all tables of that heading, each with the cell beside it."""
    rows = []
    lines = (REFERENCE / "search.md").read_text(encoding="utf-8").splitlines()
    inside = False
    for line in lines:
        if line.startswith(f"| {heading} |"):
            inside = True
        elif not line.startswith("|"):
            inside = False
        elif inside and (found := re.fullmatch(r"\| `(.*?)` \| (.*) \|", line)):
            rows.append((found[1], found[2]))
    assert rows, heading
    return rows


@pytest.fixture(scope="module")
def world() -> World:
    fields = (Field("tier", "tier", Type.STRING), Field("nps", "nps", Type.NUMBER))
    request = CreateRequest("crm", "ref_table", "email", "email", fields)
    mapping = create(empty(Entity.USERS), request, who="", now_ms=NOW_MS, source_columns=None)
    return World(mapping, {}, NOW_MS, 0)


def assert_means_something(search: str, scope: Scope) -> None:
    resolved = resolve(search, scope, NOW_MS)
    assert resolved.warnings == []


@pytest.mark.parametrize("search", [search for search, _ in rows_of("Profile search")])
def test_a_profile_search_resolves(search: str, world: World) -> None:
    assert_means_something(search, profile_scope(world))


@pytest.mark.parametrize("search", [search for search, _ in rows_of("Event search")])
def test_an_event_search_resolves(search: str, world: World) -> None:
    assert_means_something(search, event_scope(world))


@pytest.mark.parametrize(("search", "meaning"), rows_of("Search"))
def test_a_search_means_what_the_other_one_says(search: str, meaning: str) -> None:
    assert parse(search) == parse(meaning.strip("`"))


@pytest.mark.parametrize("search", [search for search, _ in rows_of("Refused")])
def test_a_mistake_is_refused_with_its_place(search: str, world: World) -> None:
    with pytest.raises(Error) as refused:
        resolve(search, profile_scope(world), NOW_MS)
    assert refused.value.code is Code.INVALID
    assert refused.value.at.startswith("character ")
    assert refused.value.hint


def test_an_unknown_name_warns(world: World) -> None:
    """Else the tests above could not fail for a misspelt name."""
    assert resolve("teir:gold", profile_scope(world), NOW_MS).warnings
