"""Mapping many columns at once: which become fields, how they are named, what is refused, what is sent again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from inside import Inside, inside
from roster.base.errors import Code, Error
from roster.model.schema import Entity
from roster.operations import reference_tables

pytestmark = pytest.mark.xdist_group("rules")
PEOPLE = [("u1", "a@x.io"), ("u2", "b@x.io")]
COLUMNS = ["pk", "user", "tier", "seats", "on"]
ROWS = [["1", "u1", "gold", "3", "2024-01-01"], ["2", "u2", "iron", "4", "2024-01-02"]]
BULK = "/data/attributes/fields_from_columns"


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Inside]:
    with inside(tmp_path_factory.mktemp("bulk"), PEOPLE) as made:
        yield made


@pytest.fixture
def world(empty: Inside) -> Inside:
    """One table, and no connection."""
    for connection in empty.connections():
        empty.delete(connection["id"])
    for table in empty.context.store.list_tables():
        reference_tables.delete_table(empty.context, empty.request(id=table.id))
    empty.add_table(COLUMNS, ROWS, "pk", "crm")
    return empty


def asked(bulk: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    made: dict[str, Any] = {"type": "ref_table", "join_type": "user_id", "join_attribute": "user"}
    return made | ({} if bulk is None else {"fields_from_columns": bulk}) | more


def fields(world: Inside, id: str = "crm") -> dict[str, tuple[str, str]]:
    """Field id → column and type."""
    (connection,) = [c for c in world.connections() if c["id"] == id]
    return {f["id"]: (f["source_name"], f["type"]) for f in connection["fields"]}


def version(world: Inside) -> int:
    return world.context.store.read_mapping(Entity.USERS).version


def refused(at: str, words: str, code: Code = Code.INVALID) -> Any:
    """The `with` of a request that must be refused so."""
    fits: Callable[[Error], bool] = lambda e: (e.code, e.at) == (code, at)  # noqa: E731
    return pytest.raises(Error, match=words or None, check=fits)


def test_all_columns_but_the_keys(world: Inside) -> None:
    world.create("crm", asked({}))
    assert fields(world) == {"tier": ("tier", "string"), "seats": ("seats", "number"), "on": ("on", "timestamp")}
    assert world.values(["tier", "seats"])["u1"] == {"tier": "gold", "seats": 3}


def test_columns_left_out_and_a_naming_rule(world: Inside) -> None:
    world.create("crm", asked({"except": ["On"], "naming": "@crm_{column}"}))
    assert fields(world) == {"crm_tier": ("tier", "string"), "crm_seats": ("seats", "number")}


def test_columns_of_named_fields_are_left_out(world: Inside) -> None:
    named = [{"id": "level", "source_name": "Tier", "type": "string"}]
    world.create("crm", asked({"except": ["on", "seats"]}, fields=named))
    assert fields(world) == {"level": ("Tier", "string")}


@pytest.mark.parametrize(
    "naming", ["", "crm", "{Column}", "{column} x", "crm/{column}", "{column}{column}" + "x" * 200]
)
def test_a_naming_rule_that_cannot_be(world: Inside, naming: str) -> None:
    with refused(f"{BULK}/naming", "is no naming rule"):
        world.create("crm", asked({"naming": naming}))


def test_what_else_is_refused(world: Inside) -> None:
    with refused(f"{BULK}/except/1", "no column 'tires'"):
        world.create("crm", asked({"except": ["on", "tires"]}))
    with refused(BULK, "not known yet"):
        world.create("later", asked({}))
    with refused(f"{BULK}/but", ""):
        world.create("crm", asked({"but": ["on"]}))
    world.add_table(["user", "e mail", "user_email"], [["u1", "x", "y"]], "user", "mails")
    with refused(BULK, "built-in", Code.CONFLICT):
        world.create("mails", asked({}))
    world.create("mails", asked({"naming": "mails.{column}"}))
    assert list(fields(world, "mails")) == ["mails.e_mail", "mails.user_email"]


def test_a_preview_tells_the_fields(world: Inside) -> None:
    told = world.create("crm", asked({"naming": "crm_{column}"}), dry_run="true").body["data"]["attributes"]
    assert [(s["step"], s.get("field")) for s in told["steps"]] == [
        ("create_connection", None),
        ("add_field", "crm_tier"),
        ("add_field", "crm_seats"),
        ("add_field", "crm_on"),
    ]
    assert world.connections() == []


def test_sent_again_it_changes_nothing(world: Inside) -> None:
    for _ in range(2):
        world.create("crm", asked({"except": ["on"]}))
    before = version(world)
    for _ in range(2):
        world.update("crm", {"fields_from_columns": {"except": ["on"]}})
    assert version(world) == before
    for _ in range(2):
        world.update("crm", {"fields_from_columns": {}})
        assert version(world) == before + 1
    assert list(fields(world)) == ["tier", "seats", "on"]


def test_columns_that_come_later_become_fields_when_it_is_sent_again(world: Inside) -> None:
    world.create("crm", asked({}))
    world.update("crm", {"fields_to_update": [{"field_id": "tier", "updated_field_id": "level"}]})
    (table,) = world.context.store.list_tables()
    reference_tables.delete_table(world.context, world.request(id=table.id))
    world.add_table([*COLUMNS, "region"], [[*row, "north"] for row in ROWS], "pk", "crm")
    world.create("crm", asked({}))  # made once: it means what it made
    assert list(fields(world)) == ["level", "seats", "on"]
    world.update("crm", {"fields_from_columns": {}})
    assert list(fields(world)) == ["level", "seats", "on", "region"]
    world.update("crm", {"fields_to_delete": ["on"], "fields_from_columns": {"except": ["on"]}})
    assert list(fields(world)) == ["level", "seats", "region"]
