"""Every sentence promised of connections and mappings, one small example each."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest

from roster.base.errors import Code, Error
from roster.base.values import Difference
from roster.model.changes import create, delete, update, warnings
from roster.model.connection import CreateRequest, Field, FieldUpdate, UpdateRequest
from roster.model.mapping import (
    Mapping,
    attributes,
    diff_versions,
    empty,
    find,
    find_connection,
    from_json,
    humanise,
    to_json,
)
from roster.model.schema import Column, Entity, Type

DAY_MS = 86_400_000
TTL_MS = 30 * DAY_MS
TIER = Field("customer_tier", "subscription_tier", Type.STRING, "Customer Tier", "Plan level", ("Business",))
VALUE = Field("lifetime_value", "ltv", Type.NUMBER)
COLUMNS = tuple(Column(n, Type.STRING) for n in ("email", "subscription_tier", "ltv", "nps_score"))
CRM = CreateRequest("crm-integration", "ref_table", "email", "user_email", (TIER, VALUE), (("table_name", "crm"),))


def made(request: CreateRequest, mapping: Mapping | None = None, **more: Any) -> Mapping:
    start = empty(Entity.USERS) if mapping is None else mapping
    return create(start, request, **{"who": "ann", "now_ms": 1, "source_columns": None, **more})


def changed(mapping: Mapping, id: str = "crm-integration", **more: Any) -> Mapping:
    lists = {name: tuple(more.pop(name, ())) for name in ("add", "update", "delete")}
    request = UpdateRequest(id, lists["add"], lists["update"], lists["delete"])
    return update(mapping, request, **{"who": "bob", "now_ms": 2, "source_columns": None, **more})


def fields_of(mapping: Mapping, id: str = "crm-integration") -> dict[str, Field]:
    found = find_connection(mapping, id)
    assert found is not None
    return {f.id: f for f in found.fields}


@contextmanager
def refused(code: Code, at: str, hint: str = "", message: str = "") -> Iterator[None]:
    with pytest.raises(Error) as caught:
        yield
    error = caught.value
    assert (error.code, error.at) == (code, at), error.text()
    assert hint in error.hint
    assert message in error.message


@pytest.fixture
def crm() -> Mapping:
    return made(CRM)


def test_create_keeps_what_was_asked_and_who_asked(crm: Mapping) -> None:
    (c,) = crm.connections
    assert (crm.version, c.id, c.fields, c.metadata) == (1, "crm-integration", (TIER, VALUE), (("table_name", "crm"),))
    assert (c.created_ms, c.created_by, c.updated_ms, c.updated_by) == (1, "ann", 1, "ann")


def test_the_same_create_again_is_no_change_even_after_updates(crm: Mapping) -> None:
    assert made(CRM, crm, who="eve", now_ms=9) == crm
    later = changed(crm, delete=["lifetime_value"])
    assert made(CRM, later) == later


def test_creating_what_stands_now_is_no_change(crm: Mapping) -> None:
    now = changed(crm, delete=["lifetime_value"])
    assert made(CreateRequest(CRM.connection_id, "ref_table", "email", "user_email", (TIER,), CRM.metadata), now) == now


def test_metadata_has_no_order(crm: Mapping) -> None:
    pairs = (("table_name", "crm"), ("owner", "sales"))
    request = replace(CRM, connection_id="two", fields=(), metadata=pairs)
    both = made(request, crm)
    assert made(replace(request, metadata=pairs[::-1]), both) == both


def test_another_definition_under_a_used_id_conflicts(crm: Mapping) -> None:
    with refused(Code.CONFLICT, "/data/id", message="another definition"):
        made(CreateRequest("crm-integration", "ref_table", "user_id", "user_email", (TIER, VALUE)), crm)


def test_connection_ids_differ_in_more_than_case(crm: Mapping) -> None:
    with refused(Code.CONFLICT, "/data/id", message="only in case"):
        made(replace(CRM, connection_id="CRM-integration", fields=()), crm)


def test_create_without_id_makes_the_same_one_each_time() -> None:
    request = CreateRequest("", "ref_table", "email", "email", (TIER,))
    once = made(request)
    assert once.connections[0].id.startswith("connection-")
    assert made(request, once) == once


@pytest.mark.parametrize("taken", ["user_email", "@user_email", "User_Email", "customer_tier", "CUSTOMER_TIER"])
def test_an_id_taken_elsewhere_conflicts_and_names_the_owner(crm: Mapping, taken: str) -> None:
    other = CreateRequest("other", "ref_table", "email", "email", (Field("fresh", "f", Type.STRING),))
    owner = "built-in" if "mail" in taken.lower() else "'crm-integration'"
    field = Field(taken, "x", Type.STRING)
    with refused(Code.CONFLICT, "/data/attributes/fields/1/id", message=owner):
        made(CreateRequest("other", "ref_table", "email", "email", (VALUE_2, field)), crm)
    with refused(Code.CONFLICT, "/data/attributes/fields_to_add/0/id", message=owner):
        changed(made(other, crm), "other", add=[field])
    with refused(Code.CONFLICT, "/data/attributes/fields_to_update/0/updated_field_id", message=owner):
        changed(made(other, crm), "other", update=[FieldUpdate("fresh", taken)])


VALUE_2 = Field("value_2", "x", Type.NUMBER)


def test_create_checks_kind_join_and_columns() -> None:
    def request(**more: Any) -> CreateRequest:
        plain = {"connection_id": "c", "type": "ref_table", "join_type": "email", "join_attribute": "email"}
        return CreateRequest(**{**plain, **more})

    with refused(Code.UNSUPPORTED, "/data/attributes/type", hint="ref_table"):
        made(request(type="oracle"))
    with refused(Code.INVALID, "/data/attributes/metadata/account", message="missing"):
        made(request(type="snowflake"))
    with refused(Code.INVALID, "/data/attributes/metadata/password", hint="secret"):
        made(request(type="postgres", metadata=(("password", "x"),)))
    for address in ("https://bob:hunter2@host/", "https://host/?token=abc", "https://host/#abc"):
        with refused(Code.INVALID, "/data/attributes/metadata/catalog", hint="named secret"):
            made(request(type="iceberg", metadata=(("catalog", address), ("table", "a.b"))))
    with refused(Code.INVALID, "/data/attributes/join_type", hint="email, user_id, user_email"):
        made(request(join_type="shoe_size"))
    with refused(Code.INVALID, "/data/attributes/join_type", hint="account_id"):
        made(request(join_type="email"), empty(Entity.ACCOUNTS))
    with refused(Code.INVALID, "/data/attributes/join_attribute"):
        made(request(join_attribute=" "))
    with refused(Code.INVALID, "/data/attributes/join_attribute", hint="'email'"):
        made(request(join_attribute="emial"), source_columns=COLUMNS)
    with refused(Code.INVALID, "/data/attributes/fields/0/source_name", hint="'nps_score'"):
        made(request(fields=(Field("nps", "nps_scor", Type.NUMBER),)), source_columns=COLUMNS)
    with refused(Code.INVALID, "/data/attributes/fields/1/id", message="twice"):
        made(request(fields=(TIER, Field("@customer_tier", "x", Type.STRING))))
    with refused(Code.INVALID, "/data/attributes/fields/0/source_name"):
        made(request(fields=(Field("nps", "", Type.NUMBER),)))
    with refused(Code.INVALID, "/data/attributes/fields/0/type", hint="allowed"):
        made(request(fields=(Field("nps", "x", Type.ANY),)))
    assert made(request(join_type="account_id", join_attribute="@user_email"), source_columns=COLUMNS).version == 1
    spelled = Field("nps", "NPS Score", Type.INTEGER)
    assert fields_of(made(request(fields=(spelled,)), source_columns=COLUMNS), "c")["nps"].type is Type.NUMBER


def test_text_that_is_not_unicode_is_refused(crm: Mapping) -> None:
    with refused(Code.INVALID, "/data", message="surrogate"):
        changed(crm, add=[Field("x", "x", Type.STRING, display_name="\ud800")])


def test_the_published_update_runs_on_the_published_create(crm: Mapping) -> None:
    nps = Field("nps_score", "net_promoter_score", Type.NUMBER, "NPS Score", "Net Promoter Score", ("Satisfaction",))
    relabel = FieldUpdate("lifetime_value", None, "Customer Lifetime Value (USD)", None, ("Financial", "Metrics"))
    request: dict[str, Any] = {"add": [nps], "update": [relabel], "delete": ["old_revenue_field"]}
    after = changed(crm, **request)
    ltv = Field("lifetime_value", "ltv", Type.NUMBER, "Customer Lifetime Value (USD)", "", ("Financial", "Metrics"))
    assert fields_of(after) == {"customer_tier": TIER, "lifetime_value": ltv, "nps_score": nps}
    assert after.version == 2
    c = after.connections[0]
    assert (c.created_by, c.updated_by, c.updated_ms) == ("ann", "bob", 2)
    assert changed(after, **request, now_ms=3) == after


def test_an_empty_update_is_no_change(crm: Mapping) -> None:
    assert changed(crm) is crm
    assert changed(crm, update=[FieldUpdate("customer_tier")]) is crm


def test_an_id_that_cannot_be_is_refused(crm: Mapping) -> None:
    with refused(Code.INVALID, "/data/id", hint="1 to 200 letters"):
        made(CreateRequest("a/b", "ref_table", "email", "email"))
    at = "/data/attributes"
    with refused(Code.INVALID, f"{at}/fields_to_add/0/id"):
        changed(crm, add=[Field("two words", "x", Type.STRING)])
    with refused(Code.INVALID, f"{at}/fields_to_update/0/updated_field_id"):
        changed(crm, update=[FieldUpdate("customer_tier", "")])
    with refused(Code.INVALID, f"{at}/fields_to_delete/1"):
        changed(crm, delete=["a", "@@b"])


def test_an_unknown_connection_is_not_found(crm: Mapping) -> None:
    with refused(Code.NOT_FOUND, "/data/id", hint="'crm-integration'"):
        changed(crm, "crm-integratoin")
    with refused(Code.NOT_FOUND, ""):
        delete(crm, "nobody")


def test_adding_the_same_definition_is_no_change_another_conflicts(crm: Mapping) -> None:
    assert changed(crm, add=[TIER], source_columns=()) is crm
    with refused(Code.CONFLICT, "/data/attributes/fields_to_add/0/id", hint="fields_to_update", message="'crm-int"):
        changed(crm, add=[Field("customer_tier", "other", Type.STRING)])


def test_adding_checks_the_source(crm: Mapping) -> None:
    with refused(Code.INVALID, "/data/attributes/fields_to_add/0/source_name", hint="did you mean 'nps_score'"):
        changed(crm, add=[Field("nps", "nps_scores", Type.NUMBER)], source_columns=COLUMNS)
    with refused(Code.INVALID, "/data/attributes/fields_to_add/0/source_name", hint="columns: email, sub"):
        changed(crm, add=[Field("nps", "???", Type.NUMBER)], source_columns=COLUMNS)


def test_adding_does_not_check_what_is_there_already(crm: Mapping) -> None:
    after = changed(crm, add=[TIER, VALUE_2], source_columns=(Column("x", Type.STRING),))
    assert fields_of(after).keys() == {"customer_tier", "lifetime_value", "value_2"}


def test_an_id_twice_in_one_list_is_refused(crm: Mapping) -> None:
    at = "/data/attributes"
    with refused(Code.INVALID, f"{at}/fields_to_add/1/id"):
        changed(crm, add=[VALUE_2, VALUE_2])
    with refused(Code.INVALID, f"{at}/fields_to_update/1/field_id"):
        changed(crm, update=[FieldUpdate("customer_tier"), FieldUpdate("@customer_tier")])
    with refused(Code.INVALID, f"{at}/fields_to_update/1/updated_field_id"):
        changed(crm, update=[FieldUpdate("customer_tier", "x"), FieldUpdate("lifetime_value", "x")])
    with refused(Code.INVALID, f"{at}/fields_to_delete/1"):
        changed(crm, delete=["a", "a"])


def test_omitted_labels_stay_and_an_empty_list_clears_groups(crm: Mapping) -> None:
    after = changed(crm, update=[FieldUpdate("@customer_tier", updated_groups=())])
    plain = Field("customer_tier", "subscription_tier", Type.STRING, "Customer Tier", "Plan level", ())
    assert fields_of(after)["customer_tier"] == plain


def test_updating_an_unknown_field_is_not_found(crm: Mapping) -> None:
    at = "/data/attributes/fields_to_update/0/field_id"
    with refused(Code.NOT_FOUND, at, hint="did you mean 'customer_tier'"):
        changed(crm, update=[FieldUpdate("customer_teir", "x")])
    with refused(Code.NOT_FOUND, at, hint="a built-in attribute"):
        changed(crm, update=[FieldUpdate("user_email", "x")])
    both = made(CreateRequest("other", "ref_table", "email", "email"), crm)
    with refused(Code.NOT_FOUND, at, hint="connection 'crm-integration'"):
        changed(both, "other", update=[FieldUpdate("customer_tier", "x")])
    with pytest.raises(Error) as caught:
        changed(
            changed(both, update=[FieldUpdate("customer_tier", "x")]), "other", update=[FieldUpdate("customer_tier")]
        )
    assert caught.value.hint == ""
    with refused(Code.NOT_FOUND, at, hint="deletes it first"):
        changed(crm, update=[FieldUpdate("customer_tier", "x")], delete=["customer_tier"])
    with refused(Code.NOT_FOUND, at, hint="renamed to 'tier'"):
        changed(changed(crm, update=[FieldUpdate("customer_tier", "tier")]), update=[FieldUpdate("customer_tier", "x")])


def test_renaming_onto_a_field_that_stays_conflicts(crm: Mapping) -> None:
    at = "/data/attributes/fields_to_update/0/updated_field_id"
    with refused(Code.CONFLICT, at, message="'crm-integration'"):
        changed(crm, update=[FieldUpdate("customer_tier", "lifetime_value")])
    with refused(Code.CONFLICT, at):
        changed(crm, update=[FieldUpdate("customer_tier", "lifetime_value"), FieldUpdate("lifetime_value", None, "L")])


def test_a_rename_may_change_only_the_case(crm: Mapping) -> None:
    assert "Customer_Tier" in fields_of(changed(crm, update=[FieldUpdate("customer_tier", "Customer_Tier")]))


def test_delete_touches_only_its_own_connection(crm: Mapping) -> None:
    both = made(CreateRequest("other", "ref_table", "email", "email"), crm)
    assert changed(both, "other", delete=["customer_tier", "user_email"]) is both
    told = warnings(both, UpdateRequest("other", delete=("customer_tier",)))
    assert len(told) == 1
    assert "'crm-integration'" in told[0]
    assert "/data/attributes/fields_to_delete/0" in told[0]


def test_warnings_name_the_nearest_field(crm: Mapping) -> None:
    (told,) = warnings(crm, UpdateRequest("crm-integration", delete=("customer_tier", "lifetime_valu")))
    assert "did you mean 'lifetime_value'" in told


def test_no_more_fields_than_the_limit(crm: Mapping) -> None:
    with refused(Code.INVALID, "/data/attributes/fields_to_add", hint="at most 2"):
        changed(crm, add=[VALUE_2], fields_max=2)
    with refused(Code.INVALID, "/data/attributes/fields", hint="at most 1"):
        made(CRM, fields_max=1)
    assert changed(crm, delete=["customer_tier"], add=[VALUE_2], fields_max=1).version == 2


def test_deleting_a_connection_takes_fields_and_old_ids_away(crm: Mapping) -> None:
    renamed = changed(crm, update=[FieldUpdate("customer_tier", "tier")])
    gone = delete(renamed, "crm-integration")
    assert (gone.version, gone.connections, gone.aliases) == (3, (), ())
    assert find(gone, "customer_tier", 2, TTL_MS) is None


def test_a_late_retry_after_another_update_of_the_connection_is_done_already(crm: Mapping) -> None:
    rename = [FieldUpdate("customer_tier", "tier", "Tier")]
    later = changed(changed(crm, update=rename, add=[VALUE_2]), update=[FieldUpdate("tier", None, "The tier")])
    again = changed(later, update=rename, add=[VALUE_2])
    assert fields_of(again)["tier"].display_name == "Tier"
    assert again.aliases == later.aliases
    assert fields_of(again).keys() == fields_of(later).keys()


def test_a_late_retry_does_not_delete_what_it_renamed(crm: Mapping) -> None:
    request: dict[str, Any] = {"delete": ["lifetime_value"], "update": [FieldUpdate("customer_tier", "lifetime_value")]}
    later = changed(changed(crm, **request), update=[FieldUpdate("lifetime_value", None, "Value")])
    assert changed(later, **request) is later


def test_a_rename_of_what_took_its_place_is_no_retry(crm: Mapping) -> None:
    renamed = changed(crm, update=[FieldUpdate("customer_tier", "tier")])
    with refused(Code.NOT_FOUND, "/data/attributes/fields_to_update/0/field_id", hint="renamed to 'tier'"):
        changed(renamed, update=[FieldUpdate("customer_tier", "tier", "T"), FieldUpdate("tier", "plan")])


def test_only_the_newest_standing_updates_are_remembered(crm: Mapping) -> None:
    mapping = crm
    for i in range(40):
        mapping = changed(mapping, add=[Field(f"f{i}", "x", Type.STRING)])
    swap = [FieldUpdate("f38", "f39"), FieldUpdate("f39", "f38")]
    mapping = changed(mapping, update=[FieldUpdate("f38", "f39", "A"), FieldUpdate("f39", "f38", "B")])
    assert changed(mapping, update=[FieldUpdate("f38", "f39", "A"), FieldUpdate("f39", "f38", "B")]) is mapping
    assert [a.ids for a in mapping.connections[0].applied] == [*((f"f{i}",) for i in range(8, 38)), ("f38", "f39")]
    assert changed(mapping, update=swap).version == mapping.version + 1


def test_a_toggle_is_no_retry(crm: Mapping) -> None:
    there: dict[str, Any] = {"update": [FieldUpdate("customer_tier", "tier")]}
    back: dict[str, Any] = {"update": [FieldUpdate("tier", "customer_tier")]}
    mapping = changed(changed(changed(crm, **there), **back), **there)
    assert mapping.version == 4
    assert "tier" in fields_of(mapping)
    added = changed(crm, add=[VALUE_2])
    assert "value_2" in fields_of(changed(changed(added, delete=["value_2"]), add=[VALUE_2]))


def test_attributes_show_builtins_first_and_custom_ones_with_a_sign(crm: Mapping) -> None:
    shown = attributes(crm)
    assert [a.id for a in shown[:2]] == ["user_id", "user_email"]
    tier, value = shown[-2:]
    assert (tier.id, tier.name, tier.offers[0].connection.id) == ("@customer_tier", "customer_tier", "crm-integration")
    assert tier.is_custom
    assert (tier.offers[0].field.source_name, tier.groups, tier.type) == (
        "subscription_tier",
        ("Business",),
        Type.STRING,
    )
    assert value.display_name == "Lifetime Value"
    assert not any(a.is_custom for a in shown[:-2])
    assert humanise("-") == "-"


def test_find_takes_both_spellings_and_old_ids_for_a_while(crm: Mapping) -> None:
    renamed = changed(crm, update=[FieldUpdate("customer_tier", "tier")], now_ms=1000)

    def found(name: str, now_ms: int) -> str | None:
        attribute = find(renamed, name, now_ms, TTL_MS)
        return None if attribute is None else attribute.name

    assert (found("tier", 1000), found("@tier", 1000)) == ("tier", "tier")
    assert (found("user_id", 1000), found("@user_id", 1000), found("nothing", 1000)) == ("user_id", "user_id", None)
    assert found("@customer_tier", 1000 + TTL_MS - 1) == "tier"
    assert found("customer_tier", 1000 + TTL_MS) is None


def test_an_old_id_goes_when_a_live_field_takes_it(crm: Mapping) -> None:
    renamed = changed(crm, update=[FieldUpdate("customer_tier", "tier")])
    taken = changed(renamed, add=[Field("customer_tier", "ltv", Type.NUMBER)])
    assert taken.aliases == ()
    attribute = find(taken, "customer_tier", 2, TTL_MS)
    assert attribute is not None
    assert attribute.offers[0].field.source_name == "ltv"


def test_a_diff_names_fields_by_id(crm: Mapping) -> None:
    renamed = changed(crm, update=[FieldUpdate("lifetime_value", "ltv"), FieldUpdate("customer_tier", None, "Tier")])
    at = "/connections/crm-integration/fields"
    plain = {"source_name": "ltv", "type": "number", "display_name": "", "description": "", "groups": []}
    assert diff_versions(crm, renamed) == (
        Difference(f"{at}/customer_tier/display_name", "Customer Tier", "Tier"),
        Difference(f"{at}/lifetime_value", plain, None),
        Difference(f"{at}/ltv", None, plain),
        Difference("/aliases/lifetime_value", None, "ltv"),
    )


def test_records_survive_json(crm: Mapping) -> None:
    after = changed(crm, update=[FieldUpdate("lifetime_value", "ltv", "Wert in €")])
    assert from_json(json.loads(json.dumps(to_json(after)))) == after
