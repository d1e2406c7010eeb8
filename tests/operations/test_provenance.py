"""Where a value comes from is told so that anybody can work it out again: from the cell, the rules and the choice."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import re2
from hypothesis import HealthCheck, given, settings, strategies as st

from inside import Inside, code_of, inside
from operations.test_preview import COLUMNS, IDS, PEOPLE, attempt, clear, connections, rows, updates
from oracle_values import as_text, converted
from roster.base.errors import Error
from roster.demo.world import write_world
from roster.model.connection import Field, find_column
from roster.model.held import sources_of
from roster.model.mapping import Attribute, Mapping, attributes, find_connection
from roster.model.reference_table import Table
from roster.model.rules import Choice, Nulls
from roster.model.schema import Entity, Type
from roster.operations.load import load_events, load_table
from roster.operations.profiles import query_accounts
from roster.operations.provenance import get_provenance
from roster.operations.table_rows import get_rows_by_id

pytestmark = [
    pytest.mark.xdist_group("provenance"),
    pytest.mark.filterwarnings("ignore:Do not use the .random. module"),  # as in test_preview
]
EXAMPLES = int(os.environ.get("ROSTER_PROVENANCES", "12"))
Told = dict[str, Any]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Inside]:
    with inside(tmp_path_factory.mktemp("provenance"), PEOPLE, tables_max=10_000, query_timeout_s=300) as made:
        yield made


def ask(world: Inside, profile: str, attribute: str, entity: str = "users") -> Told:
    request = world.request()
    path = {"entity": entity, "id": profile, "attribute": attribute}
    found: Told = get_provenance(world.context, replace(request, path=path)).body["data"]["attributes"]
    return found


def mapping_of(world: Inside, entity: Entity = Entity.USERS) -> Mapping:
    return world.context.store.read_mapping(entity)


def sources(world: Inside, entity: Entity = Entity.USERS) -> dict[str, Table]:
    return sources_of(mapping_of(world, entity), world.context.store.list_tables())


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_a_value_can_be_worked_out_again(world: Inside, data: st.DataObject) -> None:
    clear(world)
    for name in ("first", "second"):
        lines = [(str(n), *row) for n, row in enumerate(data.draw(rows))]
        world.add_table(COLUMNS, lines, data.draw(st.sampled_from(["pk", "pk", "id"])), name)
    first = data.draw(connections("first", True, IDS[:2]))
    second = data.draw(connections(data.draw(st.sampled_from(["second", "second", "nowhere"])), True, IDS[:2]))
    for id, asked in (("one", first), ("two", second)):
        attempt(lambda id=id, asked=asked, **q: world.create(id, asked, **q))
    change = data.draw(updates(True, [f["id"] for f in first["fields"]], IDS[:2]))
    attempt(lambda **q: world.update("one", change, **q))
    tables = sources(world)
    for attribute in (a for a in attributes(mapping_of(world)) if a.is_custom):
        values = world.values([attribute.name])
        for profile, _ in PEOPLE:
            told = ask(world, profile, attribute.id)
            assert told["value"] == values[profile].get(attribute.name)
            check(attribute, tables, told)


def test_an_old_id_tells_of_the_attribute_it_means(world: Inside) -> None:
    clear(world)
    world.add_table(["id", "a"], [["u1", "gold"]], "id", "first")
    fields = [{"id": "tier", "source_name": "a", "type": "string"}]
    join = {"type": "ref_table", "join_type": "user_id", "join_attribute": "id", "metadata": {"table_name": "first"}}
    world.create("one", join | {"fields": fields})
    world.update("one", {"fields_to_update": [{"field_id": "tier", "updated_field_id": "level"}]})
    told = ask(world, "u1", "@tier")
    assert (told["attribute"], told["value"], told["from"], told["rule"]) == ("@level", "gold", "one", None)
    (offer,) = told["offers"]
    assert (offer["row_key"], offer["cell"], offer["why"]) == ("u1", "gold", "it is the only one")
    assert (offer["table"], offer["source_column"], offer["joined"]) == ("first", "a", "user_id = id")
    assert ask(world, "u1", "user_email") | {"profile": ""} == {
        "attribute": "user_email",
        "profile": "",
        "value": "ann@x.io",
        "from": "events",
        "rule": None,
        "offers": [],
    }


def test_every_loser_has_its_reason(world: Inside) -> None:
    clear(world)
    join = {"type": "ref_table", "join_type": "user_id", "join_attribute": "id"}
    for n, cell in enumerate(["  ", "tin", "gold", "iron"]):
        world.add_table(["id", "a"], [["u1", cell], ["5", ""]], "id", f"t{n}")
        field = {"id": "tier", "source_name": "a", "type": "string", "conflict": {"rule": "non_empty"}}
        world.create(f"c{n}", join | {"metadata": {"table_name": f"t{n}"}, "fields": [field]})
    world.update("c1", {"fields_to_update": [{"field_id": "tier", "updated_allowed_values": ["gold"]}]})
    assert whys(world, "u1") == [
        "it is blank",
        "'tin' is none of gold",
        "it is the first that is not blank",
        "c2 comes before it",
    ]
    assert whys(world, "5") == ["the cell is empty"] * 4
    assert whys(world, "gone") == ["no row of its source has the profile's key"] * 4
    world.update("c1", {"fields_to_update": [{"field_id": "tier", "updated_conflict": {"rule": "newest"}}]})
    assert whys(world, "u1")[0] == "no other row changed later"
    assert whys(world, "u1")[2] == "the row of c0 is newer, or as new and before it in order"


def whys(world: Inside, profile: str) -> list[str]:
    return [offer["why"] for offer in ask(world, profile, "tier")["offers"]]


@pytest.mark.parametrize(("profile", "attribute", "at"), [("u0", "user_id", "id"), ("u1", "level2", "attribute")])
def test_what_is_not_there(world: Inside, profile: str, attribute: str, at: str) -> None:
    with pytest.raises(Error) as refusal:
        ask(world, profile, attribute)
    assert code_of(refusal.value)[::2] == ("not_found", f"parameter {at}")


# worked out again from what is told


def check(attribute: Attribute, tables: dict[str, Table], told: Told) -> None:
    winners = [o["connection"] for o in told["offers"] if o["counts"]]
    assert len(winners) <= 1
    assert told["from"] == next(iter(winners), None)
    assert told["value"] is None or winners
    assert [o["connection"] for o in told["offers"]] == [o.connection.id for o in attribute.offers]
    worked = []
    for offer, given_offer in zip(told["offers"], attribute.offers, strict=True):
        if "row_key" not in offer:
            assert not offer["counts"]
            assert offer["why"].startswith(("its source has no", "no row of its source"))
            continue
        field, table = given_offer.field, tables[offer["connection"]]
        value = accepted(field, typed(table, field, offer["cell"]))
        assert plain(value) == offer["value"]
        worked.append((offer, field, value))
    winner = chosen(attribute, worked)
    assert (winner[0]["connection"] if winner else None) == told["from"]
    assert plain(winner[2] if winner else None) == told["value"]
    for offer, field, value in worked:
        check_why(attribute, told, offer, field, value)


def typed(table: Table, field: Field, cell: str | None) -> Any:
    """A cell told as text, as a value of its field: by way of its column's type."""
    name = find_column(field.source_name, table.columns)
    column = next(c for c in table.columns if c.name == name)
    return converted(converted(cell, Type.STRING, column.type), column.type, field.type)


def accepted(field: Field, value: Any) -> Any:
    if value is None:
        return None
    rules, text = field.rules, as_text(value)
    if rules.allowed:
        return value if text in rules.allowed else None
    return value if not rules.pattern or re2.fullmatch(rules.pattern, text) else None


def plain(value: Any) -> Any:
    return as_text(value) if isinstance(value, datetime) else value


Worked = tuple[Told, Field, Any]


def chosen(attribute: Attribute, worked: list[Worked]) -> Worked | None:
    if attribute.choice is Choice.NON_EMPTY:
        return next((w for w in worked if is_filled(w[2])), None)
    counting = [w for w in worked if w[2] is not None or w[1].rules.nulls is Nulls.CLEAR]
    if attribute.choice is Choice.NEWEST:
        return max(counting, key=lambda w: str(w[0].get("changed_at", "")), default=None)  # the first of equals
    return next(iter(counting), None)


def is_filled(value: Any) -> bool:
    return value is not None and bool(str(value).strip())


def check_why(attribute: Attribute, told: Told, offer: Told, field: Field, value: Any) -> None:
    why = offer["why"]
    if offer["counts"]:
        assert re.match("it is the (only|first)|no other row changed later", why)
    elif value is None and offer["cell"] is None:
        assert why == "the cell is empty"
    elif value is None:
        reason = "is no|is none of|does not match"
        assert re.fullmatch(f"{re.escape(repr(offer['cell']))} ({reason}) .*", why)
    elif attribute.choice is Choice.NON_EMPTY and not is_filled(value):
        assert why == "it is blank"
    else:
        assert told["from"] is not None
        assert told["from"] in why
        if attribute.choice is not Choice.NEWEST:
            order = [o["connection"] for o in told["offers"]]
            assert order.index(told["from"]) < order.index(offer["connection"])


# the demo


CRM = {
    "customer_tier": ("subscription_tier", "string"),
    "lifetime_value": ("ltv", "number"),
    "nps_score": ("net_promoter_score", "number"),
    "renewal": ("renewal_date", "timestamp"),
    "reference": ("is_reference", "boolean"),
}
BILLING = {"plan": ("plan_type", "string"), "mrr": ("mrr", "number"), "since": ("created_at", "timestamp")}
NOW_MS = 1_767_225_600_000


def test_every_value_of_the_demo_follows_from_its_row(tmp_path: Path) -> None:
    made = write_world(tmp_path / "world", seed=3, now_ms=NOW_MS, users=60, accounts=8, days=20)
    with inside(tmp_path, [("nobody", "nobody@example.com")]) as world:
        load_events(world.context, made.events_path, {}, lambda _: None)
        load_table(world.context, made.crm_path, "crm", "email")
        load_table(world.context, made.accounts_path, "accounts", "account_id")
        connect(world, "crm", "email", "email", CRM, "users")
        connect(world, "accounts", "account_id", "account_id", BILLING, "accounts")
        assert recomputed(world, CRM, Entity.USERS) > 100
        assert recomputed(world, BILLING, Entity.ACCOUNTS) > 15


def connect(world: Inside, id: str, join: str, key: str, asked: dict[str, tuple[str, str]], entity: str) -> None:
    fields = [{"id": id, "source_name": column, "type": type} for id, (column, type) in asked.items()]
    attributes = {"type": "ref_table", "join_type": join, "join_attribute": key, "fields": fields}
    world.create(id, attributes, entity=entity)


def recomputed(world: Inside, asked: dict[str, tuple[str, str]], entity: Entity) -> int:
    """How many values there are, each worked out again from its row as the rows operation gives it."""
    count = 0
    for profile, values in hits(world, list(asked), entity).items():
        for name, value in values.items():
            told = ask(world, profile, name, entity.value)
            assert told["value"] == value
            if value is None:
                continue
            (offer,) = told["offers"]
            assert offer["counts"]
            assert plain(from_row(world, entity, name, offer)) == value
            count += 1
    return count


def hits(world: Inside, names: list[str], entity: Entity) -> dict[str, dict[str, Any]]:
    if entity is Entity.USERS:
        return world.values(names)
    attributes = {"select_columns": ["account_id", *names], "limit": 1000}
    body = {"data": {"type": "query_account_request", "attributes": attributes}}
    reply = query_accounts(world.context, world.request(body, "accounts"))
    return {hit.pop("account_id"): hit for hit in reply.body["data"]["attributes"]["hits"]}


def from_row(world: Inside, entity: Entity, name: str, offer: Told) -> Any:
    """The value by the source row that its key names."""
    connection = find_connection(mapping_of(world, entity), offer["connection"])
    table = sources(world, entity)[offer["connection"]]
    assert connection is not None
    assert offer["table"] == table.name
    (row,) = get_rows_by_id(world.context, world.request(id=table.id, row_id=offer["row_key"])).body["data"]
    (column,) = [c for c in table.columns if c.name == offer["source_column"]]
    (field,) = [f for f in connection.fields if f.id == name]
    cell = converted(row["attributes"]["values"][column.name], Type.ANY, column.type)
    return converted(cell, column.type, field.type)
