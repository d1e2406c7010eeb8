"""Rules of values: how sources agree about one attribute, what fields refuse, and every request that cannot be."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from inside import Inside, inside
from roster.base.errors import Code, Error
from roster.model.rules import ALLOWED_MAX, PATTERN_MAX
from roster.model.schema import Entity
from roster.operations import history, mapping, sources

pytestmark = pytest.mark.xdist_group("rules")
PEOPLE = [("u1", "a@x.io"), ("u2", "b@x.io"), ("u3", "c@x.io"), ("u4", "d@x.io")]
COLUMNS = ["user", "tier", "score", "at"]
CRM = [["u1", "gold", "1", "2024-01-01"], ["u2", "", "2", "2024-01-02"], ["u3", " ", "x", ""]]
SHOP = [["u1", "iron", "5", "2024-01-03"], ["u2", "zinc", "6", "2024-01-01"], ["u3", "lead", "7", ""]]
ADD, UPDATE = "/data/attributes/fields_to_add/0", "/data/attributes/fields_to_update/0"
FIELDS = "/data/attributes/fields"


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Inside]:
    with inside(tmp_path_factory.mktemp("rules"), PEOPLE) as made:
        made.add_table(COLUMNS, CRM, "user", "crm")
        made.add_table(COLUMNS, SHOP, "user", "shop")
        yield made


@pytest.fixture
def world(filled: Inside) -> Inside:
    """The two tables, and no connection."""
    for connection in filled.connections():
        filled.delete(connection["id"])
    return filled


def field(id: str, column: str = "tier", type: str = "string", **more: Any) -> dict[str, Any]:
    return {"id": id, "source_name": column, "type": type} | more


def rule(name: str, *order: str) -> dict[str, Any]:
    return {"rule": name, "order": list(order)}


def connect(world: Inside, id: str, *fields: dict[str, Any], **more: Any) -> None:
    world.create(id, attributes(*fields, **more))


def attributes(*fields: dict[str, Any], **more: Any) -> dict[str, Any]:
    asked = {"type": "ref_table", "join_type": "user_id", "join_attribute": "user", "fields": list(fields)}
    return asked | {"metadata": {"changed_at": "at"}} | more


def refused(code: Code, at: str, words: str = "", hint: str = "") -> Any:
    """The `with` of a request that must be refused so."""
    fits: Callable[[Error], bool] = lambda e: (e.code, e.at) == (code, at) and hint in e.hint  # noqa: E731
    return pytest.raises(Error, match=words or None, check=fits)


def version(world: Inside) -> int:
    return world.context.store.read_mapping(Entity.USERS).version


def values(world: Inside, name: str = "tier") -> list[Any]:
    found = world.values([name])
    return [found[id].get(name) for id, _ in PEOPLE]


def shared(world: Inside, name: str, *order: str, **more: Any) -> None:
    """Both sources offer `tier`, under that rule."""
    connect(world, "crm", field("tier", **more))
    connect(world, "shop", field("tier", conflict=rule(name, *order), **more))


# which source counts


@pytest.mark.parametrize(
    ("name", "order", "nulls", "told"),
    [
        ("precedence", ["crm", "shop"], "skip", ["gold", "zinc", " ", None]),
        ("precedence", ["crm", "shop"], "clear", ["gold", None, " ", None]),
        ("precedence", ["shop"], "skip", ["iron", "zinc", "lead", None]),
        ("precedence", [], "skip", ["gold", "zinc", " ", None]),
        ("newest", ["crm"], "skip", ["iron", "zinc", " ", None]),
        ("newest", ["crm"], "clear", ["iron", None, " ", None]),
        ("newest", ["shop"], "clear", ["iron", None, "lead", None]),
        ("non_empty", ["crm"], "skip", ["gold", "zinc", "lead", None]),
        ("non_empty", ["crm"], "clear", ["gold", "zinc", "lead", None]),
        ("Non-Empty", ["shop", "crm", "shop"], "CLEAR", ["iron", "zinc", "lead", None]),
    ],
)
def test_one_source_counts(world: Inside, name: str, order: list[str], nulls: str, told: list[Any]) -> None:
    shared(world, name, *order, null_rule=nulls)
    assert values(world) == told
    kept = [c["fields"][0]["conflict"] for c in world.connections()]
    assert kept == [{"rule": name.lower().replace("-", "_"), "order": list(dict.fromkeys(order))}] * 2


def test_rules_of_a_field_come_before_the_choice(world: Inside) -> None:
    connect(world, "crm", field("tier", pattern="g.*"))
    connect(world, "shop", field("tier", conflict=rule("precedence", "crm"), allowed_values=["zinc", "lead", "gold"]))
    assert values(world) == ["gold", "zinc", "lead", None]


def test_newest_without_times_is_the_order(world: Inside) -> None:
    connect(world, "crm", field("tier"), metadata={})
    connect(world, "shop", field("tier", conflict=rule("newest", "crm")), metadata={"changed_at": "at"})
    assert values(world) == ["iron", "zinc", " ", None]


def test_changed_at_names_a_column(world: Inside) -> None:
    with refused(Code.INVALID, "/data/attributes/metadata/changed_at", "no column 'ta'", "at"):
        connect(world, "crm", field("tier"), metadata={"changed_at": "ta"})
    connect(world, "crm", field("tier"), metadata={"changed_at": " "})
    asked = attributes(field("tier", conflict=rule("newest", "crm", "nobody")), metadata={"changed_at": "then"})
    told = world.create("later", asked, dry_run="true").body["meta"]["warnings"]
    assert len(told) == 2
    assert "nobody, which is no connection" in told[0]
    assert "crm has no 'changed_at'" in told[1]
    connect(world, "later", *asked["fields"], metadata=asked["metadata"])
    world.add_table(["user", "tier"], [["u1", "tin"]], "user", "later")
    told = world.update("later", {"fields_to_delete": ["no"]}, dry_run="true").body["meta"]["warnings"]
    assert "the source of later has no column 'then'" in told[-1]


# who may share an id


def test_two_sources_need_a_rule(world: Inside) -> None:
    connect(world, "crm", field("tier"))
    with refused(Code.CONFLICT, f"{FIELDS}/0/id", "'tier' is taken by connection 'crm'", "`conflict`"):
        connect(world, "shop", field("tier"))
    connect(world, "shop", field("other"))
    with refused(Code.CONFLICT, f"{ADD}/id", "taken", "`conflict`"):
        world.update("shop", {"fields_to_add": [field("tier")]})
    with refused(Code.CONFLICT, f"{UPDATE}/updated_field_id", "taken", "`conflict`"):
        world.update("shop", {"fields_to_update": [{"field_id": "other", "updated_field_id": "tier"}]})


def test_fields_that_share_an_id_are_of_one_type(world: Inside) -> None:
    connect(world, "crm", field("tier"))
    with refused(Code.CONFLICT, f"{FIELDS}/0/id", "string in connection 'crm'", "make it string"):
        connect(world, "shop", field("tier", type="number", conflict=rule("newest")))
    connect(world, "shop", field("tier", conflict=rule("newest")))
    world.update("shop", {"fields_to_update": [{"field_id": "tier", "updated_type": "number"}]})
    assert [c["fields"][0]["type"] for c in world.connections()] == ["number", "number"]


@pytest.mark.parametrize("id", ["Tier", "TIER", "@Tier"])
def test_a_shared_id_is_spelled_alike(world: Inside, id: str) -> None:
    connect(world, "crm", field("tier"))
    with refused(Code.CONFLICT, f"{FIELDS}/0/id", "taken by connection 'crm'", "another id"):
        connect(world, "shop", field(id, conflict=rule("newest")))


def test_a_built_in_is_not_shared(world: Inside) -> None:
    with refused(Code.CONFLICT, f"{FIELDS}/0/id", "built-in"):
        connect(world, "crm", field("User_Email", conflict=rule("newest")))


def test_a_field_may_be_renamed_into_a_shared_id(world: Inside) -> None:
    connect(world, "crm", field("tier"))
    connect(world, "shop", field("level", "score", "number"))
    change: dict[str, Any] = {"field_id": "level", "updated_field_id": "@tier", "updated_conflict": rule("newest")}
    with refused(Code.CONFLICT, f"{UPDATE}/updated_field_id", "of one type"):
        world.update("shop", {"fields_to_update": [change]})
    change["updated_type"] = "text"
    before = version(world)
    for _ in range(2):
        world.update("shop", {"fields_to_update": [change]})
        assert version(world) == before + 1
    assert values(world) == values(world, "level") == ["5", "6", " ", None]


def test_a_rule_goes_with_the_last_field(world: Inside) -> None:
    shared(world, "precedence", "shop")
    world.update("shop", {"fields_to_delete": ["tier"]})
    assert values(world) == ["gold", None, " ", None]
    assert world.connections()[0]["fields"][0]["conflict"] == rule("precedence", "shop")
    world.update("shop", {"fields_to_add": [field("tier")]})  # the rule still stands
    assert values(world)[0] == "iron"
    world.delete("shop")
    world.update("crm", {"fields_to_delete": ["tier"]})
    assert world.context.store.read_mapping(Entity.USERS).conflicts == ()
    assert "conflicts" not in str(mapping.get_mapping(world.context, world.request()).body)
    connect(world, "crm2", field("tier"), metadata={"table_name": "crm"})
    with refused(Code.CONFLICT, f"{FIELDS}/0/id", hint="`conflict`"):
        connect(world, "shop", field("tier"))


def test_a_version_tells_of_rules(world: Inside) -> None:
    shared(world, "precedence")
    world.update("crm", {"fields_to_update": [{"field_id": "tier", "updated_conflict": rule("newest", "crm")}]})
    world.update("crm", {"fields_to_update": [{"field_id": "tier", "updated_pattern": "g.*"}]})
    told = history.list_mapping_versions(world.context, world.request()).body["data"]["attributes"]["versions"]
    assert [d["at"] for d in told[1]["diff"]] == ["/conflicts/tier/rule", "/conflicts/tier/order"]
    assert [d["at"] for d in told[0]["diff"]] == ["/connections/crm/fields/tier/rules"]


# sent twice


def test_what_is_sent_twice_is_done_once(world: Inside) -> None:
    connect(world, "crm", field("tier"))
    before = version(world)
    for _ in range(2):
        connect(world, "shop", field("tier", conflict=rule("newest", "crm")))
        assert version(world) == before + 1
    change = {"field_id": "tier", "updated_conflict": rule("precedence", "shop"), "updated_null_rule": "clear"}
    for _ in range(2):
        world.update("shop", {"fields_to_update": [change]})
        assert version(world) == before + 2
    connect(world, "shop", field("tier", conflict=rule("newest", "crm")))  # made once, changed since
    assert version(world) == before + 2


def agree(world: Inside, id: str, name: str) -> str:
    world.update(id, {"fields_to_update": [{"field_id": "tier", "updated_conflict": rule(name)}]})
    return str(world.connections()[0]["fields"][0]["conflict"]["rule"])


@pytest.mark.parametrize("other", ["crm", "shop"])
def test_a_rule_changed_in_between_is_set_again(world: Inside, other: str) -> None:
    shared(world, "precedence")
    agree(world, "crm", "newest")
    assert agree(world, other, "non_empty") == "non_empty"
    assert agree(world, "crm", "newest") == "newest"


def test_a_rule_changed_by_a_new_connection_is_set_again(world: Inside) -> None:
    shared(world, "precedence")
    agree(world, "crm", "newest")
    connect(world, "third", field("tier", conflict=rule("non_empty")), metadata={"table_name": "shop"})
    assert agree(world, "crm", "newest") == "newest"


# what cannot be


@pytest.mark.parametrize(
    ("more", "at", "words"),
    [
        ({"allowed_values": ["gold"], "pattern": "g"}, "", "exclude each other"),
        ({"pattern": "(?=g)"}, "/pattern", "cannot be read"),
        ({"pattern": r"(g)\1"}, "/pattern", "cannot be read"),
        ({"pattern": "("}, "/pattern", "cannot be read"),
        ({"pattern": "(((a{1,100}){1,100}){1,100})"}, "/pattern", "cannot be read"),
        ({"pattern": r"\pL{999}" * 100}, "/pattern", "cannot be read"),
        ({"pattern": "x" * (PATTERN_MAX + 1)}, "/pattern", "too long"),
        ({"allowed_values": [str(n) for n in range(ALLOWED_MAX + 1)]}, "/allowed_values", "too many"),
        ({"null_rule": "keep"}, "/null_rule", "unknown null rule"),
        ({"conflict": {"rule": "loudest"}}, "/conflict/rule", "unknown conflict rule"),
        ({"conflict": {"rule": "newest", "ordre": []}}, "/conflict/ordre", ""),
        ({"conflict": {}}, "/conflict/rule", ""),
    ],
)
def test_rules_that_cannot_be(world: Inside, more: dict[str, Any], at: str, words: str) -> None:
    with refused(Code.INVALID, f"{FIELDS}/0{at}", words):
        connect(world, "crm", field("tier", **more))
    connect(world, "crm", field("other"))
    with refused(Code.INVALID, f"{ADD}{at}", words):
        world.update("crm", {"fields_to_add": [field("tier", **more)]})
    updated = {f"updated_{name}": value for name, value in more.items()}
    place = at and f"/updated_{at[1:]}"
    with refused(Code.INVALID, f"{UPDATE}{place}", words):
        world.update("crm", {"fields_to_update": [{"field_id": "other"} | updated]})


def test_a_pattern_takes_the_place_of_values_in_one_update(world: Inside) -> None:
    connect(world, "crm", field("tier", allowed_values=["gold"]))
    with refused(Code.INVALID, UPDATE, "exclude each other", "an empty one"):
        world.update("crm", {"fields_to_update": [{"field_id": "tier", "updated_pattern": ".*"}]})
    change = {"field_id": "tier", "updated_pattern": r"\s*", "updated_allowed_values": []}
    world.update("crm", {"fields_to_update": [change]})
    assert values(world) == [None, None, " ", None]


# what is refused is in quarantine


def quarantine(world: Inside, name: str = "crm") -> dict[str, str]:
    """Row key → reason."""
    reply = sources.list_quarantine(world.context, world.request(id=name))
    return {cell["row_key"]: cell["reason"] for cell in reply.body["data"]["attributes"]["cells"]}


def test_quarantine_follows_every_change_at_once(world: Inside) -> None:
    connect(world, "crm", field("score", "score"))

    def change(**updated: Any) -> dict[str, str]:
        world.update("crm", {"fields_to_update": [{"field_id": "score", **updated}]})
        return quarantine(world)

    assert quarantine(world) == {}
    assert change(updated_type="number") == {"u3": "'x' is no number"}
    assert values(world, "score") == [1, 2, None, None]
    assert change(updated_allowed_values=["2", "3"]) == {"u3": "'x' is no number", "u1": "'1' is none of 2, 3"}
    assert values(world, "score") == [None, 2, None, None]
    assert change(updated_allowed_values=[], updated_pattern="[12]") == {"u3": "'x' is no number"}
    assert change(updated_type="string") == {"u3": "'x' does not match [12]"}
    assert change(updated_pattern="") == {}
    assert values(world, "score") == ["1", "2", "x", None]


def test_empty_cells_are_in_no_quarantine(world: Inside) -> None:
    connect(world, "crm", field("tier", allowed_values=[]), field("at", "at", "timestamp", pattern="2024-01-01.*"))
    told = quarantine(world)
    assert list(told) == ["u2"]
    assert told["u2"].endswith("does not match 2024-01-01.*")


def test_a_preview_counts_what_rules_refuse(world: Inside) -> None:
    connect(world, "crm", field("tier"))
    change = {"fields_to_update": [{"field_id": "tier", "updated_allowed_values": ["gold"]}]}
    told = world.update("crm", change, dry_run="true").body["data"]["attributes"]
    (cells,) = told["connections"][0]["cells"]
    assert (cells["filled"], cells["accepted"], cells["rejected"]) == (2, 1, 1)
    assert cells["examples"] == [{"row_key": "u3", "value": " ", "reason": "' ' is none of gold"}]
    assert told["attributes"] == [{"name": "tier", "before": 2, "after": 1, "added": 0, "changed": 0, "lost": 1}]
