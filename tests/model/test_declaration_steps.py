"""Steps: none for what is there already, and what is declared once they are carried out; renames, order, what stays."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings, strategies as st

from declared import carry_out, connections, renamed
from roster.base.errors import Code, Error
from roster.model.declaration import DeclaredConnection, DeclaredField, DeclaredSegment, DeclaredTable, settle
from roster.model.declaration_calls import calls_of
from roster.model.declaration_far import declare_mapping
from roster.model.declaration_steps import (
    ConnectionStep,
    Plan,
    Verb,
    plan_connections,
    plan_segments,
    plan_tables,
    step_json,
)
from roster.model.mapping import Mapping, empty
from roster.model.schema import Entity

USERS = Entity.USERS


def plan(mapping: Mapping, want: tuple[DeclaredConnection, ...], *, prune: bool = True, bare: bool = False) -> Plan:
    return plan_connections(USERS, declare_mapping(mapping), want, prune=prune, bare=bare)


def made(*want: DeclaredConnection) -> Mapping:
    return carry_out(empty(USERS), plan(empty(USERS), settle(want)))


def connection(id: str, *fields: DeclaredField) -> DeclaredConnection:
    return DeclaredConnection(id, "ref_table", "email", "email", (), fields)


def field(id: str, column: str = "c", type: str = "string", **more: str) -> DeclaredField:
    return DeclaredField(id, column, type, **more)


def outline(found: Plan) -> list[tuple[str, ...]]:
    return [
        (step.verb.value, step.id, *(f"{f.verb.value} {(f.now or f.was).id}" for f in step.fields))  # type: ignore[union-attr]
        for step in found.steps
        if isinstance(step, ConnectionStep)
    ]


@settings(max_examples=100)
@given(connections(odd=False), connections(odd=False))
def test_carried_out_it_is_as_declared(
    before: tuple[DeclaredConnection, ...], after: tuple[DeclaredConnection, ...]
) -> None:
    mapping = carry_out(empty(USERS), plan(empty(USERS), before))
    assert declare_mapping(mapping) == before
    assert plan(mapping, before).steps == ()
    try:
        steps = plan(mapping, after)
    except Error as error:
        assert error.code is Code.CONFLICT
        return
    if {f.id for c in before for f in c.fields} & {"shared"}:
        return  # a rule that stays with its id is looked at below
    reached = carry_out(mapping, steps)
    assert declare_mapping(reached) == after
    assert plan(reached, after) == Plan()


@settings(max_examples=100)
@given(connections(odd=False), connections(odd=False), st.booleans(), st.booleans())
def test_a_second_plan_is_empty(
    before: tuple[DeclaredConnection, ...], after: tuple[DeclaredConnection, ...], prune: bool, bare: bool
) -> None:
    """Also where rules stay, connections stay, or the far end has the contract's members alone."""
    try:
        mapping = carry_out(empty(USERS), plan(empty(USERS), before, bare=bare), bare=bare)
        reached = carry_out(mapping, plan(mapping, after, prune=prune, bare=bare), bare=bare)
    except Error as error:
        assert error.code is Code.CONFLICT  # ids exchanged, or taken by a connection that stays
        return
    left = plan(reached, after, prune=prune, bare=bare)
    assert left.steps == ()
    assert carry_out(reached, left) == reached


def test_a_deleted_and_an_added_field_of_one_column_are_a_rename() -> None:
    mapping = made(connection("crm", field("tier"), field("old", "x")))
    found = plan(mapping, (connection("crm", field("level"), field("new", "y")),))
    assert outline(found) == [("update", "crm", "delete old", "rename level", "create new")]
    assert step_json(found.steps[0])["fields"][1] == {
        "step": "rename",
        "field": "level",
        "from": "tier",
        "changes": {},
        "guessed": True,
    }
    reached = carry_out(mapping, found)
    assert [(a.old_id, a.new_id) for a in reached.aliases] == [("tier", "level")]


def test_a_rename_that_is_said_changes_the_type_too() -> None:
    mapping = made(connection("crm", field("tier")))
    want = renamed((connection("crm", field("tier", type="number")),), "tier", "level")
    found = plan(mapping, want)
    assert outline(found) == [("update", "crm", "rename level")]
    assert plan(carry_out(mapping, found), want) == Plan()
    assert outline(plan(mapping, want, bare=True)) == [("update", "crm", "replace level")]
    # the wish may stay in the file: it is done, or there is nothing to rename
    assert outline(plan(empty(USERS), want)) == [("create", "crm")]


def test_another_column_is_another_field_of_the_same_id() -> None:
    mapping = made(connection("crm", field("tier")))
    want = (connection("crm", field("tier", "other")),)
    found = plan(mapping, want)
    assert outline(found) == [("update", "crm", "replace tier")]
    assert len(calls_of(found.steps[0], bare=False)) == 1
    two = calls_of(plan(mapping, want, bare=True).steps[0], bare=True)
    assert [list(call.body["data"]["attributes"]) for call in two] == [["fields_to_delete"], ["fields_to_add"]]


def test_an_id_moves_to_another_connection_after_it_is_given_up() -> None:
    mapping = made(connection("erp", field("tier")), connection("crm", field("plan", "p")))
    want = settle([connection("crm", field("plan", "p"), field("tier")), connection("erp")])
    found = plan(mapping, want)
    assert outline(found) == [("update", "erp", "delete tier"), ("update", "crm", "create tier")]
    assert declare_mapping(carry_out(mapping, found)) == want


def test_ids_exchanged_by_two_connections_are_refused_before_anything_is_done() -> None:
    mapping = made(connection("crm", field("a", "x")), connection("erp", field("b", "y")))
    want = settle([connection("crm", field("b", "x")), connection("erp", field("a", "y"))])
    with pytest.raises(Error, match="crm and erp exchange field ids"):
        plan(mapping, want)


def test_what_is_not_named_stays_unless_pruned() -> None:
    mapping = made(connection("crm"), connection("erp"))
    kept = plan(mapping, (connection("crm"),), prune=False)
    assert (kept.steps, len(kept.apart)) == ((), 1)
    assert outline(plan(mapping, (connection("crm"),))) == [("delete", "erp")]


def test_another_source_is_another_connection() -> None:
    mapping = made(connection("crm", field("tier")))
    want = (replace(connection("crm", field("tier")), metadata=(("table_name", "other"),)),)
    found = plan(mapping, want)
    assert outline(found) == [("replace", "crm")]
    assert [call.verb for call in calls_of(found.steps[0], bare=True)] == ["DELETE", "POST"]
    assert declare_mapping(carry_out(mapping, found)) == want


def test_a_rule_of_a_shared_id_stays_until_the_id_goes() -> None:
    newest = (("conflict", '{"order":[],"rule":"newest"}'),)
    mapping = made(connection("crm", replace(field("tier"), rules=newest)))
    found = plan(mapping, (connection("crm", field("tier")),))
    assert (found.steps, len(found.apart)) == ((), 1)


def table(name: str = "plans", **more: object) -> DeclaredTable:
    given = {"source": "S3", "primary_key": "k", "columns": (("k", "STRING"),), "sync_enabled": True} | more
    return DeclaredTable(name, access_details='{"aws_detail":{"file_path":"a"}}', **given)  # type: ignore[arg-type]


def test_tables_are_made_and_changed_but_never_deleted() -> None:
    have = (table(id="1"), table("gone", id="2"))
    changed = table(description="d", columns=(("k", "STRING"), ("n", "INT32")))
    found = plan_tables(have, (changed, table("new")))
    assert [(step.verb, calls_of(step, bare=True)[0].verb) for step in found.steps] == [
        (Verb.UPDATE, "PATCH"),
        (Verb.CREATE, "POST"),
    ]
    assert found.apart == ("table gone is not in the file and stays",)
    assert plan_tables((changed,), (changed,)) == Plan()


def test_what_is_fixed_of_a_table_is_told_and_left() -> None:
    local = table(source="LOCAL_FILE")
    assert plan_tables((), (local,)).apart[0].startswith("table plans is not there: bring its rows")
    other = table(primary_key="n", columns=(("k", "INT32"), ("n", "INT32")))
    found = plan_tables((table(id="1"),), (other,))
    assert len(found.apart) == 2
    again = plan_tables((replace(table(id="1"), columns=(("k", "STRING"), ("n", "INT32"))),), (other,))
    assert (again.steps, again.apart) == ((), found.apart)


def test_segments_are_made_changed_and_pruned() -> None:
    have = (DeclaredSegment("a", "{}", id="1"), DeclaredSegment("b", "{}", id="2"))
    want = (DeclaredSegment("a", '{"x":1}'), DeclaredSegment("c", "{}"))
    found = plan_segments(have, want, prune=True)
    assert [(s.verb, [c.path for c in calls_of(s, bare=True)]) for s in found.steps] == [
        (Verb.DELETE, ["/api/v2/rum/segment/2"]),
        (Verb.UPDATE, ["/api/v2/rum/segment/1"]),
        (Verb.CREATE, ["/api/v2/rum/segment"]),
    ]
    assert len(plan_segments(have, want, prune=False).apart) == 1
