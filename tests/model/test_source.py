"""Members of metadata: those that say what is read, and those that say how the rows are looked at."""

from __future__ import annotations

from dataclasses import replace

import pytest

from roster.base.errors import Code, Error
from roster.model.connection import Connection
from roster.model.held import held_name, make_held
from roster.model.schema import Entity
from roster.model.source import KINDS, VIEWS, Kind, parse_origin

FILE = Connection("crm", "file", "email", "mail", (), (("key", "id"), ("path", "/data/crm.csv")), 0, "t", 0, "t")


def test_the_name_of_a_held_table_stays_as_it_was() -> None:
    """Another name would have every source synced anew."""
    assert held_name(Entity.USERS, FILE) == "users/crm@5cca282f2cbf"


@pytest.mark.parametrize(
    "view", [(("changed_at", "at"),), (("history", "true"),), (("changed_at", "at"), ("history", "x"))]
)
def test_how_rows_are_looked_at_does_not_change_what_is_read(view: tuple[tuple[str, str], ...]) -> None:
    seen = replace(FILE, metadata=(*view, *FILE.metadata))
    assert held_name(Entity.USERS, seen) == held_name(Entity.USERS, FILE)
    assert make_held(Entity.USERS, seen, "i", 0).origin == make_held(Entity.USERS, FILE, "i", 0).origin


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_no_option_is_named_as_a_view(kind: Kind) -> None:
    assert {o.name for o in kind.options}.isdisjoint(o.name for o in VIEWS)


@pytest.mark.parametrize(("name", "hint"), [("changed_ad", "changed_at"), ("histroy", "history")])
def test_a_typing_error_is_told(name: str, hint: str) -> None:
    with pytest.raises(Error) as refusal:
        parse_origin("file", {"path": "/data/crm.csv", name: "x"})
    assert refusal.value.code is Code.INVALID
    assert hint in refusal.value.hint
