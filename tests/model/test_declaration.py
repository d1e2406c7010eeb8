"""The declaration as YAML and as plain JSON: round trips of odd values, and errors with line and nearest name."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from declared import DECLARATIONS
from roster.base.errors import Code, Error
from roster.model.declaration import Declaration, read_declaration, to_json
from roster.model.declaration_text import read_text, write_text

SMALL = """\
# by hand
users:
  connections:
    crm:
      type: ref_table
      join: {type: email, attribute: email}
      fields:
        no:
          source_name: 'no'
          type: text
          groups: [yes, "1"]
"""


@settings(max_examples=100)
@given(DECLARATIONS)
def test_what_is_written_is_read_as_the_same(declaration: Declaration) -> None:
    text = write_text(declaration, ("from here\nand there",))
    assert read_text(text, "f.yaml")[0] == declaration
    assert write_text(read_text(text, "f.yaml")[0], ("from here and there",)) == text
    assert read_declaration(json.loads(json.dumps(to_json(declaration)))) == declaration


def test_a_file_by_hand() -> None:
    declaration, places = read_text(SMALL, "m.yaml")
    assert declaration.users is not None
    (crm,) = declaration.users
    (field,) = crm.fields
    assert (field.id, field.source_name, field.type, field.groups) == ("no", "no", "string", ("yes", "1"))
    assert places.of("/users/connections/crm/fields/no/type") == "m.yaml:10"
    assert places.of("/users/connections/crm/fields/no/description") == "m.yaml:8"
    assert (declaration.accounts, declaration.tables, declaration.segments) == (None, None, None)


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("type: text", "tipe: text", "m.yaml:10: unknown member 'tipe'; did you mean 'type'?"),
        ("type: text", "type: txt", "m.yaml:10: unknown field type 'txt'"),
        ("type: text", "type: 1", "m.yaml:10: type is no text; write it in quotes"),
        ("users:", "user:", "m.yaml:2: unknown member 'user'; did you mean 'users'?"),
        ("source_name: 'no'", "description: x", "m.yaml:8: 'source_name' is missing"),
        ("groups: [yes, ", "groups: [1, ", "m.yaml:11: groups is no list of texts"),
        ("groups: [yes", "groups: [*a", "m.yaml:11: aliases are not read"),
        ("groups: [yes", "groups: [!x yes", "m.yaml:11: the tag '!x' is not read"),
        ("groups:", "type:", "m.yaml:11: 'type' comes twice"),
        ("groups: [yes", "groups: [[yes", "m.yaml:12: "),
        ("type: text", "type: text\n  x: 1", "m.yaml:12: mapping values are not allowed here"),
        ("        no:", "        n o:", "m.yaml:8: 'n o' cannot be a field id"),
        ("type: ref_table", "type: ref_table\n      metadata: {a: 1}", "m.yaml:6: a is no text"),
        (
            "          type: text",
            "          type: text\n          conflict: {rul: x}",
            "m.yaml:11: unknown member 'rul'",
        ),
        ("          type: text", "          type: text\n          renamed_from: 'no'", "m.yaml:11: renamed_from names"),
        ("# by hand", "- x", "m.yaml:2: "),
        ("# by hand", "\x01", "m.yaml:1: a character"),
        ("# by hand", "--- {}\n---", "m.yaml:2: expected a single document"),
    ],
)
def test_what_is_wrong_is_told_with_its_line(old: str, new: str, told: str) -> None:
    assert old in SMALL
    with pytest.raises(Error) as caught:
        read_text(SMALL.replace(old, new, 1), "m.yaml")
    assert caught.value.code is Code.INVALID
    assert told in caught.value.text()


def test_an_id_of_two_connections_needs_a_conflict_rule() -> None:
    twice = SMALL + SMALL[SMALL.index("    crm:") :].replace("crm:", "erp:")
    with pytest.raises(Error, match=r"^m.yaml:16: 'no' is also a field of connection 'crm'"):
        read_text(twice, "m.yaml")
    rule = "type: text\n          conflict: {rule: newest}"
    declaration, _ = read_text(twice.replace("type: text", rule, 1), "m.yaml")
    whole = '{"order":["crm","erp"],"rule":"newest"}'
    assert [dict(c.fields[0].rules)["conflict"] for c in declaration.users or ()] == [whole, whole]


def test_deep_nesting_is_refused() -> None:
    with pytest.raises(Error, match="nested too deeply"):
        read_text("users: " + "[" * 20_000, "m.yaml")


def test_nothing_says_nothing() -> None:
    assert read_text("", "m.yaml")[0] == Declaration()
    assert read_text("users:\n", "m.yaml")[0] == Declaration(users=())


NONSENSE = st.sampled_from([None, True, 1, 1.5, "", "x", [], [1], {}, {"x": 1}, {"rule": 1}, {"type": "a"}])


@settings(max_examples=100)
@given(DECLARATIONS, st.data())
def test_nonsense_anywhere_is_an_error_with_a_place_or_is_read(declaration: Declaration, data: st.DataObject) -> None:
    plain = json.loads(json.dumps(to_json(declaration)))
    at: Any = plain
    for _ in range(data.draw(st.integers(0, 5))):
        inner = [key for key in at if isinstance(at[key], dict) and at[key]]
        if not inner:
            break
        at = at[data.draw(st.sampled_from(inner))]
    at[data.draw(st.sampled_from([*at, "unknown"]))] = data.draw(NONSENSE)
    try:
        read_declaration(plain, "/data")
    except Error as error:
        assert (error.code, error.at[:5]) == (Code.INVALID, "/data")
