"""Changes of a mapping, for all small requests: convergence, atomicity, uniqueness, aliases, and a reference model."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeVar

from hypothesis import assume, given, settings, strategies as st

from roster.base.errors import Code, Error
from roster.model.changes import create, update
from roster.model.connection import CreateRequest, Field, FieldUpdate, UpdateRequest, ids_of, tidy_update
from roster.model.mapping import (
    Mapping,
    diff_versions,
    empty,
    find,
    find_connection,
    from_json,
    to_json,
)
from roster.model.schema import BUILTINS, Entity, Type

T = TypeVar("T")
MANY = settings(max_examples=250, deadline=None)
BUILTIN_IDS = {b.id for b in BUILTINS[Entity.USERS]}
TTL_MS = 1000

LIVE_IDS = ("a", "b", "c", "d")
ALL_IDS = (*LIVE_IDS, "e", "f", "A", "@a", "@e", "user_id", "z")
KINDS = (("s", Type.STRING), ("t", Type.NUMBER), ("s", Type.STRING, "L", "", ("G", "H")), ("t", Type.NUMBER, "L", "M"))
TEXTS = ((), ("L",), ("", "M", ()), (None, "", ("G",)), (None, None, ()))


def fields(ids: Sequence[str]) -> st.SearchStrategy[Field]:
    return st.sampled_from([Field(id, *kind) for id in ids for kind in KINDS])


def field_updates(ids: Sequence[str], targets: Sequence[str]) -> st.SearchStrategy[FieldUpdate]:
    moves = [(id, new) for id in ids for new in (None, *targets)]
    return st.sampled_from([FieldUpdate(*move, *texts) for move in moves for texts in TEXTS])


def few(items: st.SearchStrategy[T], id_of: Callable[[T], str]) -> st.SearchStrategy[tuple[T, ...]]:
    """Up to two, mostly without an id twice."""
    either = st.lists(items, max_size=2, unique_by=id_of) | st.lists(items, max_size=2)
    return either.map(tuple)


def requests(id: str = "c1") -> st.SearchStrategy[UpdateRequest]:
    """Anything; the second form is accepted more often."""
    wild = (
        few(fields(ALL_IDS), id_of),
        few(field_updates(ALL_IDS, ALL_IDS), of_id),
        few(st.sampled_from(ALL_IDS), str),
    )
    tame = (few(fields("ef"), id_of), few(field_updates("ab", "cgh"), of_id), few(st.sampled_from("cd"), str))
    return st.builds(UpdateRequest, st.just(id), *wild) | st.builds(UpdateRequest, st.just(id), *tame)


def id_of(field: Field) -> str:
    return field.id


def of_id(update: FieldUpdate) -> str:
    return update.field_id


def connected(*fields: Field) -> Mapping:
    """A mapping of version 1 whose connection c1 has these fields."""
    request = CreateRequest("c1", "ref_table", "email", "email", fields)
    return create(empty(Entity.USERS), request, who="ann", now_ms=0, source_columns=None)


@st.composite
def mappings(draw: st.DrawFn) -> Mapping:
    """Two fresh connections: c1 with some of a-d, c2 with z."""
    own = draw(st.lists(fields(LIVE_IDS), min_size=3, max_size=4, unique_by=id_of))
    second = CreateRequest("c2", "ref_table", "user_id", "id", (Field("z", "s", Type.STRING),))
    return create(connected(*own), second, who="ann", now_ms=0, source_columns=None)


def apply(mapping: Mapping, request: UpdateRequest, now_ms: int = 1) -> Mapping:
    return update(mapping, request, who="bob", now_ms=now_ms, source_columns=None)


def attempt(mapping: Mapping, request: UpdateRequest, now_ms: int = 1) -> Mapping:
    """The mapping after the request, or as it was when the request is refused."""
    try:
        return apply(mapping, request, now_ms)
    except Error:
        return mapping


def fields_of(mapping: Mapping, id: str = "c1") -> dict[str, Field]:
    found = find_connection(mapping, id)
    assert found is not None
    return {f.id: f for f in found.fields}


def forget(mapping: Mapping) -> Mapping:
    """Without the memory of whole requests: only aliases tell what was done."""
    return replace(mapping, connections=tuple(replace(c, applied=()) for c in mapping.connections))


Row = tuple[str, Type, str, str, tuple[str, ...]]


def row_of(f: Field) -> Row:
    return (f.source_name, f.type, f.display_name, f.description, f.groups)


def refer(rows: dict[str, Row], taken: set[str], request: UpdateRequest) -> dict[str, Row] | Code:
    """What an update of a mapping without history gives, told another way: rows by id, or the code of refusal."""

    def plain(ids: list[str | None]) -> list[str]:
        return [id.removeprefix("@") for id in ids if id is not None]

    added = plain([f.id for f in request.add])
    named = plain([u.field_id for u in request.update])
    targets = plain([u.updated_field_id for u in request.update])
    deleted = plain(list(request.delete))
    for ids in (added, named, targets, deleted):
        if len({id.lower() for id in ids}) < len(ids):
            return Code.INVALID
    left = [(id, row) for id, row in rows.items() if id not in deleted]
    if any(id not in dict(left) for id in named):
        return Code.NOT_FOUND
    wishes = dict(zip(named, request.update, strict=True))
    after: list[tuple[str, Row]] = []
    for id, row in left:
        wish = wishes.get(id, FieldUpdate(id))
        label = row[2] if wish.updated_display_name is None else wish.updated_display_name
        text = row[3] if wish.updated_description is None else wish.updated_description
        groups = row[4] if wish.updated_groups is None else wish.updated_groups
        after.append(((wish.updated_field_id or id).removeprefix("@"), (row[0], row[1], label, text, groups)))
    folded = [id.lower() for id, _ in after]
    if len(set(folded)) < len(folded) or taken & set(folded):
        return Code.CONFLICT
    for id, f in zip(added, request.add, strict=True):
        if (id, row_of(f)) in after:
            continue
        if id.lower() in taken or id.lower() in {known.lower() for known, _ in after}:
            return Code.CONFLICT
        after.append((id, row_of(f)))
    return dict(after)


@settings(max_examples=1000, deadline=None)
@given(mappings(), requests())
def test_update_agrees_with_the_reference(mapping: Mapping, request: UpdateRequest) -> None:
    rows = {id: row_of(f) for id, f in fields_of(mapping).items()}
    expected = refer(rows, BUILTIN_IDS | {"z"}, request)
    try:
        seen: dict[str, Row] | Code = {id: row_of(f) for id, f in fields_of(apply(mapping, request)).items()}
    except Error as error:
        seen = error.code
    assert seen == expected


histories = st.lists(st.one_of(requests("c1"), requests("c2")), max_size=6)


@MANY
@given(mappings(), histories)
def test_every_step_of_every_history_keeps_its_promises(mapping: Mapping, history: list[UpdateRequest]) -> None:
    for at, request in enumerate(history):
        before = json.dumps(to_json(mapping))
        after = attempt(mapping, request, at)
        assert json.dumps(to_json(mapping)) == before
        assert (after.version, after == mapping) in {(mapping.version, True), (mapping.version + 1, False)}
        assert attempt(after, request, at + 100) == after
        ids = [f.id for c in after.connections for f in c.fields]
        assert len({id.lower() for id in ids} | BUILTIN_IDS) == len(ids) + len(BUILTIN_IDS)
        old_ids = [a.old_id for a in after.aliases]
        assert len(set(old_ids)) == len(old_ids)
        assert not set(old_ids) & set(ids)
        assert all(a.new_id in fields_of(after, a.connection_id) for a in after.aliases)
        mapping = after


@MANY
@given(mappings(), histories)
def test_records_of_every_history_survive_json(mapping: Mapping, history: list[UpdateRequest]) -> None:
    for request in history:
        after = attempt(mapping, request)
        assert from_json(json.loads(json.dumps(to_json(after)))) == after
        mapping = after


@MANY
@given(st.text(max_size=8), st.text(max_size=8), st.lists(st.text(max_size=4)), st.dictionaries(st.text(), st.text()))
def test_any_text_survives_json(label: str, who: str, groups: list[str], metadata: dict[str, str]) -> None:
    field = Field("a", "s", Type.BOOLEAN, label, label, tuple(groups))
    request = CreateRequest("c", "ref_table", "email", "email", (field,), tuple(metadata.items()))
    mapping = create(empty(Entity.USERS), request, who=who, now_ms=0, source_columns=None)
    assert from_json(json.loads(json.dumps(to_json(mapping)))) == mapping


@MANY
@given(mappings(), requests())
def test_a_diff_is_empty_only_without_a_change_and_shows_each_field(mapping: Mapping, request: UpdateRequest) -> None:
    after = attempt(mapping, request)
    places = {d.at: d for d in diff_versions(mapping, after)}
    assert bool(places) == (after != mapping)
    old, new = fields_of(mapping), fields_of(after)
    of_fields = {p.removeprefix("/connections/c1/fields/"): d for p, d in places.items() if "/fields/" in p}
    assert {id for id, d in of_fields.items() if d.before is None} == new.keys() - old.keys()
    assert {id for id, d in of_fields.items() if d.after is None} == old.keys() - new.keys()


@MANY
@given(mappings(), requests(), st.lists(requests("c2"), max_size=4))
def test_a_retry_after_changes_of_another_connection_is_no_change(
    mapping: Mapping, request: UpdateRequest, others: list[UpdateRequest]
) -> None:
    done = attempt(mapping, request)
    assume(done != mapping)
    later = done
    for other in others:
        later = attempt(later, other)
    assert apply(later, request, 9) == later


@MANY
@given(mappings(), requests(), st.lists(requests("c1"), max_size=4))
def test_a_retry_after_changes_of_other_fields_is_no_change(
    mapping: Mapping, request: UpdateRequest, others: list[UpdateRequest]
) -> None:
    done = attempt(mapping, request)
    assume(done != mapping)
    mine = set(ids_of(tidy_update(request)))
    later = done
    for other in others:
        ids = {id.removeprefix("@") for id in ids_of(other)}
        later = later if ids & mine else attempt(later, other)
    assert apply(later, request, 9) == later


@MANY
@given(
    few(fields("pq"), id_of),
    st.lists(field_updates("abc", "dxy"), max_size=3, unique_by=of_id).map(tuple),
    st.booleans(),
)
def test_aliases_alone_make_a_request_converge(
    add: tuple[Field, ...], updates: tuple[FieldUpdate, ...], clear: bool
) -> None:
    """Also when it deletes the very field whose id a rename takes."""
    mapping = connected(*(Field(id, id, Type.STRING) for id in "abcd"))
    request = UpdateRequest("c1", add, updates, ("d",) if clear else ())
    done = attempt(mapping, request)
    assume(done != mapping)
    retried = forget(done)
    assert apply(retried, request) is retried


@MANY
@given(st.permutations(["a", "b", "c", "d"]), st.permutations(["a", "b", "c", "d"]))
def test_renames_of_one_request_happen_at_once(first: list[str], second: list[str]) -> None:
    mapping = connected(*(Field(id, f"source_{id}", Type.STRING) for id in ("old", "b", "c", "d")))
    mapping = apply(mapping, UpdateRequest("c1", update=(FieldUpdate("old", "a"),)))
    place = {id: id for id in "abcd"}
    for order in [first] if first == second else [first, second]:  # the same request twice is one request
        moves = dict(zip("abcd", order, strict=True))
        mapping = apply(mapping, UpdateRequest("c1", update=tuple(FieldUpdate(a, b) for a, b in moves.items())))
        place = {origin: moves[id] for origin, id in place.items()}
    seen = {f.source_name: id for id, f in fields_of(mapping).items()}
    assert seen == {"source_old": place["a"], **{f"source_{id}": place[id] for id in "bcd"}}
    found = find(mapping, "old", 1, TTL_MS)
    assert found is not None
    assert found.offers[0].field.source_name == "source_old"


@MANY
@given(mappings(), fields(LIVE_IDS))
def test_a_field_can_be_replaced_by_another_of_the_same_id(mapping: Mapping, field: Field) -> None:
    after = apply(mapping, UpdateRequest("c1", add=(field,), delete=(field.id,)))
    assert fields_of(after)[field.id] == field
    assert fields_of(after).keys() == fields_of(mapping).keys() | {field.id}


@MANY
@given(mappings(), fields("a"), st.lists(requests("c2"), max_size=3), st.lists(requests("c1"), max_size=3))
def test_delete_rename_add_is_done_once(
    mapping: Mapping, field: Field, others: list[UpdateRequest], same: list[UpdateRequest]
) -> None:
    """Delete x, rename a to x, add a: done twice it would lose the first a."""
    both = (Field("x", "x", Type.STRING), Field("a", "first", Type.STRING))
    start = apply(mapping, UpdateRequest("c1", both, delete=("a",)))
    request = UpdateRequest("c1", (field,), (FieldUpdate("a", "x"),), ("x",))
    done = apply(start, request)
    assert fields_of(done)["x"].source_name == "first"
    assert fields_of(done)["a"] == field
    for other in (*others, *same):
        if not {"a", "x"} & {id.removeprefix("@") for id in ids_of(other)}:
            done = attempt(done, other)
    assert apply(done, request, 9) == done


@MANY
@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.integers(0, 400)), max_size=8))
def test_every_earlier_id_answers_until_its_time(steps: list[tuple[str, int]]) -> None:
    mapping = connected(Field("start", "s", Type.STRING))
    current, now_ms, left_ms = "start", 0, {}
    for new, wait_ms in steps:
        now_ms += wait_ms
        mapping = apply(mapping, UpdateRequest("c1", update=(FieldUpdate(current, new),)), now_ms)
        if new != current:
            left_ms[current] = now_ms
            left_ms.pop(new, None)
            current = new
    for name in ["start", *"abcdef"]:
        found = find(mapping, f"@{name}", now_ms, TTL_MS)
        answers = name == current or (name in left_ms and now_ms < left_ms[name] + TTL_MS)
        assert (None if found is None else found.name) == (current if answers else None)
