"""Columns that come, go and return: what the next generation has, what is missing, what is offered."""

from __future__ import annotations

from dataclasses import replace

import pytest

from roster.base.errors import Error
from roster.model.connection import Connection, Field
from roster.model.held import make_held
from roster.model.mapping import Mapping
from roster.model.reference_table import Table, column_names
from roster.model.schema import Column, Entity, Schema, Type
from roster.sync.columns import Readers, settle_columns


def field(id: str, source_name: str) -> Field:
    return Field(id, source_name, Type.STRING)


CONNECTION = Connection(
    id="crm",
    type="sqlite",
    join_type="email",
    join_attribute="email",
    fields=(field("tier", "tier"), field("plan", "Plan Name")),
    metadata=(("path", "/data/crm.db"), ("table", "people")),
    created_ms=0,
    created_by="me",
    updated_ms=0,
    updated_by="me",
)


def text(*names: str) -> Schema:
    return tuple(Column(name, Type.STRING) for name in names)


def held(*names: str, connection: Connection = CONNECTION) -> tuple[Table, Readers]:
    table = make_held(Entity.USERS, connection, "t", 0)
    if names:
        table = replace(table, columns=text(*names), primary_key="email", generation=1)
    return table, ((Mapping(Entity.USERS, 1, (connection,)), connection),)


def test_a_first_sync_takes_the_columns_of_the_source() -> None:
    settled = settle_columns(*held(), text("Email", "tier", "Plan Name", "more"), ())
    assert settled.next == text("email", "tier", "plan_name", "more")
    assert (settled.primary_key, settled.missing, settled.offered) == ("email", (), ())


def test_a_dropped_column_stays_when_a_field_uses_it() -> None:
    settled = settle_columns(*held("email", "tier", "plan_name", "more"), text("email", "plan_name"), ())
    assert settled.next == text("email", "plan_name", "tier")
    assert settled.missing == ("tier",)


def test_a_dropped_column_that_nobody_uses_goes() -> None:
    settled = settle_columns(*held("email", "tier", "plan_name", "more"), text("email", "tier", "plan_name"), ())
    assert settled.next == text("email", "tier", "plan_name")
    assert settled.missing == ()


def test_a_new_column_is_offered_until_it_is_used_or_gone() -> None:
    table, readers = held("email", "tier", "plan_name")
    found = text("email", "tier", "plan_name", "score")
    first = settle_columns(table, readers, found, ())
    assert first.offered == text("score")
    after = replace(table, columns=first.next)
    assert settle_columns(after, readers, found, first.offered).offered == text("score")
    assert settle_columns(after, readers, found[:-1], first.offered).offered == ()
    using = replace(CONNECTION, fields=(*CONNECTION.fields, field("score", "score")))
    used = ((Mapping(Entity.USERS, 2, (using,)), using),)
    assert settle_columns(after, used, found, first.offered).offered == ()


def test_a_column_that_came_back_is_neither_missing_nor_offered() -> None:
    table, readers = held("email", "plan_name", "tier")
    settled = settle_columns(table, readers, text("email", "tier", "plan_name"), ())
    assert (settled.missing, settled.offered) == ((), ())


def test_a_declared_table_keeps_its_columns() -> None:
    table, readers = held("email", "tier", "plan_name")
    declared = replace(table, owner="", name="crm")
    settled = settle_columns(declared, readers, text("email", "tier", "extra"), ())
    assert settled.next == declared.columns
    assert (settled.missing, settled.offered) == (("plan_name",), text("extra"))


def test_a_missing_join_column_is_told_even_when_an_attribute_has_its_name() -> None:
    by_attribute = replace(CONNECTION, join_attribute="user_email", metadata=(*CONNECTION.metadata, ("key", "id")))
    table, readers = held(connection=by_attribute)
    table = replace(table, columns=text("id", "user_email", "tier"), primary_key="id", generation=1)
    with pytest.raises(Error, match="joins on"):
        settle_columns(table, readers, text("id", "tier"), ())


def test_without_a_key_the_sync_says_what_to_name() -> None:
    with pytest.raises(Error, match="key of its rows") as told:
        settle_columns(*held(), text("mail", "tier"), ())
    assert "`key`" in told.value.hint


def test_headers_that_have_no_normal_form_stay_as_written() -> None:
    assert column_names(["Plan Name", "2024", "plan-name"]) == ["plan_name1", "2024", "plan_name2"]


def test_a_cursor_that_went_stays_as_a_column_and_is_told() -> None:
    crm = replace(CONNECTION, metadata=(*CONNECTION.metadata, ("cursor", "at")))
    settled = settle_columns(
        *held("email", "tier", "plan_name", "at", connection=crm), text("email", "tier", "plan_name"), ()
    )
    assert settled.missing == ("at",)
