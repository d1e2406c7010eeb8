"""Random declarations for tests: odd texts, shared ids, rules, renames; and what carries steps out on a mapping."""

from __future__ import annotations

import json
from dataclasses import replace

from hypothesis import strategies as st

from roster.model.changes import create, delete, update
from roster.model.declaration import (
    CONFLICT,
    Declaration,
    DeclaredConnection,
    DeclaredField,
    DeclaredSegment,
    DeclaredTable,
    kept_rules,
    settle,
)
from roster.model.declaration_calls import create_body, update_bodies
from roster.model.declaration_steps import ConnectionStep, Plan, Verb
from roster.model.mapping import Mapping
from roster.operations.connection_requests import read_create, read_update

ODD = ["no", "yes", "012", "1:30", "2024-01-01", "1e5", "1.0", "-1", "true", "null", "~", "", " a ", "a: b", "- a"]
ODD += [
    "# a",
    "a #b",
    "|",
    ">",
    "'",
    '"',
    "\\",
    "\n",
    "a\nb",
    "a\nb\n",
    " a\n  b\n\n",
    "\ta",
    "a\r\nb",
    "\x85",
    "\u2028x",
]
ODD += [
    "é",
    "😀",
    "\x00",
    "\x7f",
    "<<",
    "=",
    "&a",
    "*a",
    "!a",
    "%a",
    "@a",
    "`a",
    "?",
    "? a",
    "0o7",
    "0x1F",
    "1_000",
    ".5",
]
WORDS = st.sampled_from(ODD) | st.text(max_size=12)
IDS = ("no", "a", "b", "c", "d.e", "F-1", "1", "true")
COLUMNS = ("s", "t", "012")
TYPES = ("string", "number")


def rules(shared: bool) -> st.SearchStrategy[tuple[tuple[str, str], ...]]:
    """Rules of a field; one of an id that several connections may offer always says which counts."""
    values = st.fixed_dictionaries(
        {"null_rule": st.sampled_from(["skip", "clear"]), "allowed_values": st.lists(WORDS, max_size=2, unique=True)}
    )
    pattern = st.sampled_from([{}, {"pattern": "^a+$", "allowed_values": []}])
    said = {CONFLICT: {"rule": "newest", "order": []}} if shared else {}
    return st.builds(lambda one, two: kept_rules(one | two | said), values, pattern)


def fields(ids: tuple[str, ...], shared: bool = False) -> st.SearchStrategy[DeclaredField]:
    groups = st.lists(WORDS, max_size=2).map(tuple)
    columns, types = st.sampled_from(COLUMNS), st.just("string") if shared else st.sampled_from(TYPES)
    return st.builds(DeclaredField, st.sampled_from(ids), columns, types, WORDS, WORDS, groups, rules(shared))


@st.composite
def connections(draw: st.DrawFn, odd: bool = True) -> tuple[DeclaredConnection, ...]:
    """Connections of one entity: each id is given to one of them, but for the shared one."""
    made, left = [], list(IDS)
    for id in draw(st.lists(st.sampled_from(["crm", "erp", "null"]), unique=True, max_size=3)):
        mine = tuple(draw(st.lists(st.sampled_from(left), unique=True, max_size=3))) if left else ()
        left = [one for one in left if one not in mine]
        own = [draw(fields((one,))) for one in mine] + (
            [draw(fields(("shared",), shared=True))] if draw(st.booleans()) else []
        )
        word = WORDS if odd else st.sampled_from(["x", "y"])
        metadata = draw(st.dictionaries(word, word, max_size=2)) if odd else {"table_name": draw(word)}
        made.append(
            DeclaredConnection(
                id, "ref_table", "email", draw(st.sampled_from(["k", "l"])), _pairs(metadata), tuple(own)
            )
        )
    return settle(made)


def _pairs(named: dict[str, str]) -> tuple[tuple[str, str], ...]:
    return tuple(sorted(named.items()))


TABLES = st.builds(
    DeclaredTable,
    WORDS,
    st.just("S3"),
    st.just("k"),
    st.lists(WORDS.filter(lambda w: w != "k"), unique=True, max_size=2).map(
        lambda names: (("k", "STRING"), *((n, "INT32") for n in names))
    ),
    WORDS,
    st.lists(WORDS, max_size=2).map(tuple),
    st.booleans(),
    st.just('{"aws_detail":{"aws_account_id":"012"}}'),
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | WORDS,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(WORDS, inner, max_size=2),
    max_leaves=4,
)
QUERIES = st.dictionaries(WORDS, VALUES, max_size=2).map(
    lambda query: json.dumps(query, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
)
SEGMENTS = st.builds(DeclaredSegment, WORDS, QUERIES, WORDS, st.lists(WORDS, max_size=2).map(tuple))


def by_name(things: st.SearchStrategy[DeclaredTable] | st.SearchStrategy[DeclaredSegment]) -> st.SearchStrategy[object]:
    some = st.lists(things, max_size=2, unique_by=lambda t: t.name)  # type: ignore[arg-type, union-attr]
    return some.map(lambda found: tuple(sorted(found, key=lambda t: t.name)))


DECLARATIONS = st.builds(
    Declaration,
    st.none() | connections(),
    st.none() | connections(),
    st.none() | by_name(TABLES),
    st.none() | by_name(SEGMENTS),
)


def carry_out(mapping: Mapping, plan: Plan, *, bare: bool = False) -> Mapping:
    """What the steps of connections make of a mapping, each by the requests that a far end would get."""
    for step in plan.steps:
        assert isinstance(step, ConnectionStep)
        if step.verb in (Verb.DELETE, Verb.REPLACE):
            mapping = delete(mapping, step.id)
        if step.verb in (Verb.CREATE, Verb.REPLACE) and step.now:
            made = read_create(json.dumps(create_body(step.now)).encode())
            mapping = create(mapping, made, who="w", now_ms=1, source_columns=None)
        if step.verb is Verb.UPDATE:
            for body in update_bodies(step, bare=bare):
                wish = read_update(json.dumps(body).encode())
                mapping = update(mapping, wish, who="w", now_ms=1, source_columns=None)
    return mapping


def renamed(declared: tuple[DeclaredConnection, ...], old: str, new: str) -> tuple[DeclaredConnection, ...]:
    """The same connections with one field under another id, which says where it comes from."""
    return settle(
        [
            replace(
                c,
                fields=tuple(replace(f, id=new, renamed_from=old) if f.id == old else f for f in c.fields),
            )
            for c in declared
        ]
    )
