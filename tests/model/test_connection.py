"""Types, ids and columns as people write them."""

from __future__ import annotations

import pytest

from roster.base.errors import Code, Error
from roster.model.connection import (
    Applied,
    Connection,
    Field,
    find_column,
    find_join_column,
    from_json,
    parse_connection_id,
    parse_field_id,
    parse_join_type,
    parse_type,
    to_json,
)
from roster.model.schema import Column, Entity, Type

COLUMNS = tuple(Column(n, Type.STRING) for n in ("e_mail", "ltv"))


@pytest.mark.parametrize(
    ("text", "type"),
    [
        ("string", Type.STRING),
        ("TEXT", Type.STRING),
        ("keyword", Type.STRING),
        ("Number", Type.NUMBER),
        ("int", Type.NUMBER),
        ("double", Type.NUMBER),
        ("bool", Type.BOOLEAN),
        ("timestamp", Type.TIMESTAMP),
        ("date", Type.TIMESTAMP),
        ("datetime", Type.TIMESTAMP),
    ],
)
def test_types_have_synonyms(text: str, type: Type) -> None:
    assert parse_type(text) is type


def test_an_unknown_type_names_all_types() -> None:
    with pytest.raises(Error) as caught:
        parse_type("money", "/type")
    assert (caught.value.code, caught.value.at) == (Code.INVALID, "/type")
    assert "string (text, str, varchar, keyword); number (int," in caught.value.hint


@pytest.mark.parametrize(("text", "id"), [("@tier", "tier"), ("a.b_c-1", "a.b_c-1"), ("x" * 200, "x" * 200)])
def test_field_ids(text: str, id: str) -> None:
    assert parse_field_id(text) == id


@pytest.mark.parametrize("text", ["", "@", "@@tier", "two words", "tier\n", "x" * 201, "größe", "a/b", "a+b"])
def test_ids_of_another_form_are_refused(text: str) -> None:
    with pytest.raises(Error) as caught:
        parse_field_id(text, "/here")
    assert (caught.value.code, caught.value.at) == (Code.INVALID, "/here")
    assert "1 to 200 letters" in caught.value.hint
    with pytest.raises(Error, match="cannot be a connection id"):
        parse_connection_id(text)


def test_a_column_is_found_as_written_or_normalised() -> None:
    assert [find_column(n, COLUMNS) for n in ("ltv", "LTV", " E-Mail", "ltv2", "???")] == [
        "ltv",
        "ltv",
        "e_mail",
        None,
        None,
    ]


def test_the_join_column_is_the_sources_or_else_its_primary_key() -> None:
    assert find_join_column(Entity.USERS, "E-Mail", COLUMNS) == "e_mail"
    assert [find_join_column(Entity.USERS, n, COLUMNS) for n in ("user_email", "@user_email", "email")] == [None] * 3
    with pytest.raises(Error, match="neither a column"):
        find_join_column(Entity.ACCOUNTS, "email", COLUMNS)


def test_join_types_name_a_profile_attribute() -> None:
    assert parse_join_type(Entity.USERS, "email") == "user_email"
    assert parse_join_type(Entity.ACCOUNTS, "account_id") == "account_id"
    with pytest.raises(Error, match="accounts cannot be joined by 'email'"):
        parse_join_type(Entity.ACCOUNTS, "email")


def test_a_connection_survives_json() -> None:
    field = Field("a", "s", Type.BOOLEAN, "L", "M", ("G",))
    applied = (Applied("d", ("a", "b")),)
    c = Connection("c", "ref_table", "email", "email", (field,), (("k", "v"),), 1, "ann", 2, "bob", "x", applied)
    assert from_json(to_json(c)) == c
