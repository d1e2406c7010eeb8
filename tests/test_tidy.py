"""The house rules that a machine can check: sizes, names, words, docstrings."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent.parent / "src" / "roster"
FILES = sorted(SOURCE.rglob("*.py"))
FUNCTION_LINES_MAX = 60
FILE_LINES_MAX = 400
VAGUE = {"utils", "util", "helpers", "helper", "common", "manager", "service", "impl", "misc", "core"}
UNITLESS = re.compile(r"^(timeout|delay|interval|period|duration|ttl|age|elapsed)$")


def trees() -> list[tuple[Path, ast.Module]]:
    return [(path, ast.parse(path.read_text())) for path in FILES]


def name_of(path: Path) -> str:
    return str(path.relative_to(SOURCE))


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_a_file_is_short(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= FILE_LINES_MAX


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_a_file_says_first_what_it_owns(path: Path) -> None:
    doc = ast.get_docstring(ast.parse(path.read_text()))
    assert doc, "the first line of a module says what it owns"
    assert len(doc.splitlines()[0]) >= 20


def test_functions_are_short() -> None:
    long = [
        f"{name_of(path)}:{node.lineno} {node.name}"
        for path, tree in trees()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (node.end_lineno or 0) - node.lineno + 1 > FUNCTION_LINES_MAX
    ]
    assert long == []


def test_public_functions_have_docstrings() -> None:
    """Of modules: methods of one-line dataclasses and protocols speak for themselves."""
    silent = [
        f"{name_of(path)}:{node.lineno} {node.name}"
        for path, tree in trees()
        if "migrations" not in path.parts
        for node in tree.body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
        and not node.name.startswith("_")
        and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and len(node.body) > 1
        and ast.get_docstring(node) is None
        and (node.end_lineno or 0) - node.lineno > 6
    ]
    assert silent == []


def test_no_vague_names() -> None:
    assert [name_of(p) for p in FILES if {*p.relative_to(SOURCE).with_suffix("").parts} & VAGUE] == []


def test_no_class_is_a_visitor() -> None:
    visitors = [
        f"{name_of(path)} {node.name}"
        for path, tree in trees()
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef) and node.name.endswith(("Visitor", "Manager", "Helper", "Service", "Impl"))
    ]
    assert visitors == []


def is_number(annotation: ast.expr | None) -> bool:
    """What has a type of its own, such as a calendar interval, says its unit itself."""
    return annotation is None or any(
        isinstance(node, ast.Name) and node.id in ("int", "float") for node in ast.walk(annotation)
    )


def test_durations_carry_their_unit() -> None:
    bare = [
        f"{name_of(path)}:{arg.lineno} {arg.arg}"
        for path, tree in trees()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        for arg in [*node.args.args, *node.args.kwonlyargs]
        if UNITLESS.match(arg.arg) and is_number(arg.annotation)
    ]
    assert bare == []


def test_time_and_dice_come_in_as_arguments() -> None:
    """Only the wiring, the demo and the doors may read the clock of the machine."""
    allowed = {"main.py", "demo/show.py", "http/app.py"}
    callers = []
    for path, tree in trees():
        for node in ast.walk(tree):
            read = isinstance(node, ast.Attribute) and ast.unparse(node) in {
                "time.time",
                "time.time_ns",
                "datetime.now",
                "datetime.utcnow",
                "uuid.uuid4",
                "random.random",
            }
            if read and name_of(path) not in allowed:
                callers.append(f"{name_of(path)}:{node.lineno}")
    assert callers == []


def test_one_error_class() -> None:
    """Besides `Error`, an exception class is private to its module."""
    public = [
        f"{name_of(path)} {node.name}"
        for path, tree in trees()
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
        and any(ast.unparse(b) in ("Exception", "Error", "ValueError", "RuntimeError") for b in node.bases)
        and not node.name.startswith("_")
        and node.name != "Error"
    ]
    assert public == []


def test_sql_is_spelled_only_where_a_database_is_owned() -> None:
    spelled = re.compile(r"f[\"'](SELECT|INSERT|UPDATE|DELETE|CREATE|DROP)\b")
    rooms = ("engine/", "store/", "sources/", "query/dialect.py")
    elsewhere = [name_of(p) for p in FILES if not name_of(p).startswith(rooms) and spelled.search(p.read_text())]
    assert elsewhere == []
