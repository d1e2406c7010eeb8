"""Names, headers and values of reference tables."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from roster.base.errors import Code, Error
from roster.model.reference_table import (
    NAME_CHARACTERS_MAX,
    Row,
    Table,
    check_values,
    column_names,
    fits_text,
    is_header,
    match_headers,
    normalise_name,
    normalise_names,
)
from roster.model.schema import Column, Type

COLUMNS = (
    Column("id", Type.STRING),
    Column("seats", Type.INTEGER),
    Column("tier", Type.STRING),
    Column("price", Type.NUMBER),
    Column("paid", Type.BOOLEAN),
    Column("since", Type.TIMESTAMP),
    Column("renewal", Type.DATE),
)


def table(primary_key: str = "id") -> Table:
    return Table("t", "plans", COLUMNS, primary_key, "LOCAL_FILE", "", (), 0, "a", "a", 0, 0)


def refused(values: dict[str, object], id: str = "1", primary_key: str = "id") -> Error:
    with pytest.raises(Error) as caught:
        check_values(table(primary_key), Row(id, values), "/data/3")
    assert caught.value.code is Code.INVALID
    return caught.value


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("Customer Tier", "customer_tier"),
        ("  E-Mail ", "e_mail"),
        ("2nd_choice", "nd_choice"),
        ("_id", "id"),
        ("größe", "gr__e"),
        ("a.b/c", "a_b_c"),
    ],
)
def test_a_name_is_normalised_as_documented(written: str, name: str) -> None:
    assert normalise_name(written) == name


@pytest.mark.parametrize("written", ["", "  ", "123", "—", "x" * 57])
def test_a_name_without_letters_or_too_long_is_refused(written: str) -> None:
    with pytest.raises(Error) as caught:
        normalise_name(written)
    assert caught.value.code is Code.INVALID


def test_duplicate_names_are_numbered_and_never_meet_another_name() -> None:
    assert normalise_names(["File ID", "file_id", "x"]) == ["file_id1", "file_id2", "x"]
    assert normalise_names(["a", "a1", "A"]) == ["a2", "a1", "a3"]


@given(st.lists(st.text("aAb1 _", min_size=1).map(lambda t: f"a{t}"), max_size=12))
def test_normalised_names_are_distinct_and_short(written: list[str]) -> None:
    names = normalise_names([text[:NAME_CHARACTERS_MAX] for text in written])
    assert len(set(names)) == len(names) == len(written)
    assert all(len(name) <= NAME_CHARACTERS_MAX for name in names)


def test_columns_find_their_headers_by_name_or_normal_name() -> None:
    columns = (Column("tier", Type.STRING), Column("id", Type.STRING))
    assert match_headers(["ID", "#", "Tier", "12"], columns) == [2, 0]
    assert match_headers(["tier", "id", "Tier"], columns) == [0, 1]


def test_a_column_without_header_is_named_with_the_nearest() -> None:
    with pytest.raises(Error) as caught:
        match_headers(["id", "teir"], (Column("tier", Type.STRING),))
    assert "'tier'" in caught.value.message
    assert "'teir'" in caught.value.hint


def test_a_column_of_a_source_keeps_its_name_when_another_is_spelled_alike() -> None:
    assert column_names(["email", "tier", "Tier"]) == ["email", "tier", "tier1"]
    assert column_names(["TIER", "tier", "Tier", "tier1"]) == ["tier2", "tier", "tier3", "tier1"]
    assert column_names(["Tier", "TIER"]) == ["tier1", "tier2"]
    columns = (Column("tier", Type.STRING), Column("tier1", Type.STRING))
    assert match_headers(["email", "tier", "Tier"], columns) == [1, 2]
    numbered = (Column("file_id1", Type.STRING), Column("file_id2", Type.STRING))
    assert match_headers(["File ID", "file_id"], numbered) == [0, 1]


def test_a_line_is_a_header_up_to_order_and_normal_form() -> None:
    assert is_header(["ID", " Tier "], ["id", "tier"])
    assert is_header(["№", "id"], ["№", "id"])
    assert is_header(["tier", "ID"], ["id", "tier"])
    assert not is_header(["1", "2"], ["3", "4"])
    assert not is_header(["tier", "gold"], ["id", "tier"])
    for line, other in ((["id"], "'tier'"), (["E-mail", "Tier"], "'email'"), (["email", "tier", "x"], "no more")):
        with pytest.raises(Error, match="line 1 holds") as caught:
            is_header(line, ["id", "tier"] if line == ["id"] else ["email", "tier"])
        assert other in caught.value.message


def test_values_are_taken_as_their_columns_hold_them() -> None:
    given = {
        "seats": 12,
        "tier": 7,
        "price": "12.50",
        "paid": "TRUE",
        "since": "2025-08-14T06:45:12+02:00",
        "renewal": "2025-08-14",
    }
    assert check_values(table(), Row("001", given), "") == Row("001", {**given, "tier": "7"})
    assert check_values(table(), Row("1", {"price": 3, "tier": "", "seats": None}), "") == Row(
        "1", {"price": "3", "tier": "", "seats": None}
    )


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("seats", "12"),
        ("seats", 1.0),
        ("seats", True),
        ("seats", 2**31),
        ("seats", -(2**31) - 1),
        ("tier", 1.5),
        ("tier", False),
        ("tier", {"a": 1}),
        ("tier", ["a"]),
        ("tier", 2**31),
        ("tier", "half \ud83d"),
        ("price", "12,50"),
        ("price", "nan"),
        ("price", "1e999"),
        ("paid", "yes"),
        ("paid", 1),
        ("since", "14.08.2025"),
        ("since", "2025-02-30T00:00:00Z"),
        ("since", "9999-12-31T23:59:59-01:00"),
        ("renewal", "2025-08-14T00:00:00Z"),
        ("renewal", "2025-13-01"),
    ],
)
def test_a_value_its_column_does_not_take_is_refused_at_its_place(name: str, value: object) -> None:
    error = refused({name: value})
    assert error.at == f"/data/3/attributes/values/{name}"


def test_an_unknown_column_is_refused_with_the_nearest_and_all_errors_are_told() -> None:
    error = refused({"teir": "gold", "a/b": 1, "seats": "x"})
    assert error.hint == "did you mean 'tier'?"
    assert [e.at for e in (error, *error.others)] == [
        "/data/3/attributes/values/teir",
        "/data/3/attributes/values/a~1b",
        "/data/3/attributes/values/seats",
    ]


def test_the_primary_key_is_the_id_and_may_be_repeated_but_not_changed() -> None:
    assert check_values(table(), Row("1", {"id": "1", "tier": "x"}), "") == Row("1", {"tier": "x"})
    assert check_values(table("seats"), Row("007", {"seats": 7}), "") == Row("7", {})
    assert refused({"id": "2"}).at == "/data/3/attributes/values/id"
    assert refused({"id": None}).at == "/data/3/attributes/values/id"
    assert refused({}, id="  ").at == "/data/3/id"
    assert refused({}, id="seven", primary_key="seats").at == "/data/3/id"


def test_what_a_text_fits() -> None:
    assert fits_text(Type.INTEGER, " -12 ")
    assert fits_text(Type.INTEGER, str(2**63 - 1))
    assert not fits_text(Type.INTEGER, str(2**63))
    assert not fits_text(Type.INTEGER, "1" * 5000)
    assert not fits_text(Type.INTEGER, "١٢")
    assert fits_text(Type.TIMESTAMP, "2025-08-14")
    assert not fits_text(Type.TIMESTAMP, "2025-08-14T24:00:00")
    assert not fits_text(Type.TIMESTAMP, "0000-01-01")
