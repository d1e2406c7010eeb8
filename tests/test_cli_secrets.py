"""How `roster secret set` reads values: from lines, files and objects, and never tells one in an error."""

from __future__ import annotations

import json
from io import StringIO
from pathlib import Path

import pytest

from roster.base.errors import Code, Error
from roster.cli_secrets import read_members, read_object

HIDDEN = "correct-horse-battery"


def test_each_member_takes_a_line_of_its_own() -> None:
    words = ("user=-", "password=-", "token=-")
    found = read_members(words, StringIO(f"reader\n {HIDDEN} \r\nlast"))
    assert found == {"user": "reader", "password": f" {HIDDEN} ", "token": "last"}


@pytest.mark.parametrize(("content", "value"), [("a\nb\n", "a\nb"), ("a\n\n", "a\n"), ("a", "a"), ("", ""), ("é", "é")])
def test_a_file_is_its_text_without_the_last_line_break(tmp_path: Path, content: str, value: str) -> None:
    path = tmp_path / "a file=@x"
    path.write_text(content, encoding="utf-8")
    assert read_members((f"private_key=@{path}",), StringIO()) == {"private_key": value}


@pytest.mark.parametrize(
    ("words", "given", "said"),
    [
        ((f"password={HIDDEN}",), "", "the value of 'password' stands on the command line"),
        ((f"password=-{HIDDEN}",), "", "the value of 'password' stands on the command line"),
        ((f"{HIDDEN}==",), "", "the value of member 1 stands on the command line"),
        (("user=-", HIDDEN), "reader\n", "cannot read member 2"),
        (("=-",), HIDDEN, "cannot read member 1"),
        (("user=-", "user=-"), f"a\n{HIDDEN}\n", "'user' comes twice"),
        (("user=-", "password=-"), "reader\n", "no line for 'password'"),
        (("password=@absent",), "", "cannot read absent, given for 'password'"),
        (("password=@",), "", "given for 'password'"),
    ],
)
def test_what_cannot_be_read_is_told_without_values(words: tuple[str, ...], given: str, said: str) -> None:
    with pytest.raises(Error) as caught:
        read_members(words, StringIO(given))
    assert said in caught.value.message
    assert HIDDEN not in caught.value.text()


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "key.der"
    path.write_bytes(HIDDEN.encode() + b"\xff")
    with pytest.raises(Error) as caught:
        read_members((f"private_key=@{path}",), StringIO())
    assert caught.value.code is Code.INVALID
    assert HIDDEN not in caught.value.text()


def test_an_object_is_its_members() -> None:
    assert read_object(StringIO(json.dumps({"user": "é", "password": HIDDEN}))) == {"user": "é", "password": HIDDEN}


@pytest.mark.parametrize(
    "given",
    ["", HIDDEN, f"[{HIDDEN}]", json.dumps([HIDDEN]), json.dumps(HIDDEN), json.dumps({"password": [HIDDEN]}), "null"],
)
def test_what_is_no_object_of_strings_is_refused(given: str) -> None:
    with pytest.raises(Error) as caught:
        read_object(StringIO(given))
    assert caught.value.code is Code.INVALID
    assert HIDDEN not in caught.value.text()
