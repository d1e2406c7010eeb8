"""Attributes that several connections offer are renamed, retyped and replaced without a change of what they say."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from inside import Inside, inside
from roster.operations import declaration
from roster.operations.load import settle_histories

PEOPLE = [("u1", "ann@x.io"), ("u2", "bob@x.io")]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[Inside]:
    with inside(tmp_path, PEOPLE) as made:
        made.add_table(["id", "q"], [("u1", " "), ("u2", "7")], "id", "a")
        made.add_table(["id", "q"], [("u1", "5"), ("u2", "8")], "id", "b")
        for id in ("a", "b"):
            made.create(id, connection())
        yield made


def connection(**metadata: str) -> dict[str, Any]:
    field = {"id": "q", "source_name": "q", "type": "string"}
    field |= {"conflict": {"rule": "non_empty", "order": ["a", "b"]}}  # type: ignore[dict-item]
    return {
        "type": "ref_table",
        "join_type": "user_id",
        "join_attribute": "id",
        "metadata": metadata,
        "fields": [field],
    }


def told(world: Inside, name: str) -> list[Any]:
    values = world.values([name])
    return [values[id][name] for id, _ in PEOPLE]


def test_a_rename_takes_the_rule_along(world: Inside) -> None:
    assert told(world, "q") == ["5", "7"]
    rename = {"fields_to_update": [{"field_id": "q", "updated_field_id": "r"}]}
    world.update("a", rename)
    assert (told(world, "q"), told(world, "r")) == (["5", "8"], [None, "7"])
    world.update("b", rename)
    assert told(world, "r") == ["5", "7"]
    version = world.context.store.read_mapping(world.entity()).version
    world.update("b", rename)
    assert world.context.store.read_mapping(world.entity()).version == version


def test_a_new_type_is_that_of_every_offer(world: Inside) -> None:
    world.update("b", {"fields_to_update": [{"field_id": "q", "updated_type": "number"}]})
    assert told(world, "q") == [5, 7]
    assert [c["fields"][0]["type"] for c in world.connections()] == ["number", "number"]


def test_a_replaced_connection_keeps_its_place_in_a_preview(world: Inside) -> None:
    written = declaration.get_declaration(world.context, world.request()).body["data"]["attributes"]
    written["users"]["connections"]["a"]["metadata"] = {"note": "x", "table_name": "a"}
    body = {"data": {"type": "declaration", "attributes": written}}
    asked = world.request(body, dry_run="true")
    preview = declaration.apply_declaration(world.context, asked).body["data"]["attributes"]["previews"]["users"]
    assert {line["name"]: line["changed"] + line["lost"] for line in preview["attributes"]} in ({}, {"q": 0})
    before = told(world, "q")
    declaration.apply_declaration(world.context, world.request(body))
    assert told(world, "q") == before


def test_history_ends_when_nobody_asks_for_it(tmp_path: Path) -> None:
    with inside(tmp_path, PEOPLE) as world:
        table = world.add_table(["id", "q"], [("u1", "1")], "id", "a")
        world.create("a", connection(history="true"))
        settle_histories(world.context)
        assert world.context.tables.has_history(table)
        world.delete("a")
        settle_histories(world.context)
        assert not world.context.tables.has_history(table)
        found = world.product.duck.cursor().execute("SELECT table_name FROM duckdb_tables()").fetchall()
        assert not [name for (name,) in found if name.startswith(("past_", "shared_"))]
        world.create("a", connection(history="true"))
        settle_histories(world.context)
        assert world.context.tables.has_history(table)
