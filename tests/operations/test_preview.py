"""What a dry run tells is what the commit does: random tables, mappings and changes, messy keys included."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st
from hypothesis.strategies import DrawFn

from inside import Inside, code_of, inside
from roster.base.errors import Error
from roster.operations import reference_tables
from roster.operations.context import Reply

pytestmark = pytest.mark.xdist_group("preview")
EXAMPLES = int(os.environ.get("ROSTER_PREVIEWS", "120"))
PEOPLE = [
    ("u1", "ann@x.io"),
    ("U2", "Bob@X.io"),
    (" u3", " cy@x.io"),
    ("004", "d@x.io"),
    ("5", "e@x.io"),
    ("ü", "ü@x.io"),
    ("u 7", ""),
    ("gone", "z@x.io"),
]
KEYS = ["u1", "U1", "u2", "U2", "u3", " u3", "4", "004", "5", "5.0", "ü", "Ü", "u 7", "none", ""]
MAILS = ["ann@x.io", " ANN@x.io", "bob@x.io", "cy@x.io ", "d@x.io", "D@X.IO", "nobody@x.io", "", "ü@x.io"]
CELLS = ["gold", "GOLD", "silver", "", "  ", " gold", "1", "2.5", "1e3", "true", "no", "2024-01-01", "2024-13-01", "x"]
COLUMNS = ["pk", "id", "mail", "a", "b", "c"]
IDS = ["tier", "ltv", "plan", "flag", "user_email"]
TYPES = ["string", "number", "boolean", "timestamp"]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Inside]:
    with inside(tmp_path_factory.mktemp("preview"), PEOPLE, tables_max=10_000) as made:
        yield made


rows = st.lists(
    st.tuples(st.sampled_from(KEYS), st.sampled_from(MAILS), *[st.sampled_from(CELLS)] * 3), min_size=1, max_size=12
)


@st.composite
def fields(draw: DrawFn, shared: bool = False) -> dict[str, Any]:
    field: dict[str, Any] = {
        "id": draw(st.sampled_from(IDS)),
        "source_name": draw(st.sampled_from(["a", "b", "c", "a", "b", "c", "id", "lost"])),
        "type": draw(st.sampled_from(TYPES)),
    }
    rule = draw(st.integers(0, 5))
    if rule == 0:
        field["allowed_values"] = draw(st.lists(st.sampled_from(CELLS), max_size=4))
    if rule == 1:
        field["pattern"] = draw(st.sampled_from(["(?i)g.*", r"\d.*", ".", ""]))
    if rule == 2:
        field["null_rule"] = draw(st.sampled_from(["skip", "clear"]))
    if shared:
        choice = draw(st.sampled_from(["precedence", "newest", "non_empty"]))
        field["conflict"] = {"rule": choice, "order": draw(st.permutations(["one", "two"]))}
    return field


@st.composite
def connections(draw: DrawFn, table: str, shared: bool) -> dict[str, Any]:
    join = draw(st.sampled_from([("user_id", "id"), ("email", "mail"), ("user_id", "pk"), ("user_id", "user_id")]))
    metadata = {"table_name": table} | draw(st.sampled_from([{}, {"changed_at": "c"}]))
    made = {"type": "ref_table", "join_type": join[0], "join_attribute": join[1], "metadata": metadata}
    made["fields"] = draw(st.lists(fields(shared), max_size=3, unique_by=lambda f: f["id"]))
    if draw(st.integers(0, 9)) == 0:
        made["fields_from_columns"] = {"except": ["mail"], "naming": "bulk_{column}"}
    return made


@st.composite
def updates(draw: DrawFn, shared: bool) -> dict[str, Any]:
    changed: list[dict[str, Any]] = []
    for id in draw(st.lists(st.sampled_from(IDS), max_size=3, unique=True)):
        change: dict[str, Any] = {"field_id": id}
        if draw(st.booleans()):
            change["updated_field_id"] = draw(st.sampled_from(IDS))
        if draw(st.integers(0, 3)) == 0:
            change["updated_type"] = draw(st.sampled_from(TYPES))
        if draw(st.integers(0, 3)) == 0:
            change["updated_allowed_values"] = draw(st.lists(st.sampled_from(CELLS), max_size=3))
        changed.append(change)
    return {
        "fields_to_add": draw(st.lists(fields(shared), max_size=2, unique_by=lambda f: f["id"])),
        "fields_to_update": changed,
        "fields_to_delete": draw(st.lists(st.sampled_from(IDS), max_size=2, unique=True)),
    }


Change = Callable[..., Reply]


def attempt(change: Change, **query: str) -> tuple[Reply | None, tuple[str, str, str] | None]:
    """What a change answers, or how it is refused."""
    try:
        return change(**query), None
    except Error as error:
        return None, code_of(error)


def clear(world: Inside) -> None:
    for connection in world.connections():
        world.delete(connection["id"])
    for table in world.context.store.list_tables():
        reference_tables.delete_table(world.context, world.request(id=table.id))


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_a_preview_is_what_the_commit_does(world: Inside, data: st.DataObject) -> None:
    clear(world)
    shared = data.draw(st.booleans())
    for name in ("first", "second"):
        lines = [(str(n), *row) for n, row in enumerate(data.draw(rows))]
        world.add_table(COLUMNS, lines, data.draw(st.sampled_from(["pk", "pk", "id"])), name)
    for id, table in (("one", "first"), ("two", "second")):
        if data.draw(st.booleans()):
            attempt(lambda table=table, id=id, **q: world.create(id, data.draw(connections(table, shared)), **q))
    change = data.draw(changes(world, shared))
    before = dump(world)
    mapping = world.connections()
    told, refusal = attempt(change, dry_run="true", samples="100")
    assert (dump(world), world.connections()) == (before, mapping), "a dry run changed something"
    _, refused = attempt(change)
    assert refusal == refused
    if told is None:
        assert (dump(world), world.connections()) == (before, mapping), "a refused change left something"
        return
    check(told, before, dump(world))
    assert bool(told.body["data"]["attributes"]["steps"]) == (
        world.context.store.read_mapping(entity()).version != told.body["data"]["attributes"]["version"]["now"]
    )


def entity() -> Any:
    from roster.model.schema import Entity

    return Entity.USERS


@st.composite
def changes(draw: DrawFn, world: Inside, shared: bool) -> Change:
    kind = draw(st.sampled_from(["create", "update", "update", "update", "delete"]))
    id = draw(st.sampled_from(["one", "two"]))
    if kind == "create":
        asked = draw(connections(draw(st.sampled_from(["first", "second", "nowhere"])), shared))
        return lambda **query: world.create("three", asked, **query)
    if kind == "update":
        wanted = draw(updates(shared))
        return lambda **query: world.update(id, wanted, **query)
    return lambda **query: world.delete(id, **query)


def dump(world: Inside) -> dict[str, dict[str, Any]]:
    """Name → profile → value, for every name that may mean something; None where it means nothing."""
    names = sorted({*IDS[:4], *world.attributes()})
    values = world.values(names)
    return {name: {profile: row.get(name) for profile, row in values.items()} for name in names}


def check(told: Reply, before: dict[str, dict[str, Any]], after: dict[str, dict[str, Any]]) -> None:
    """Every count and sample of the preview against the values that queries gave before and after."""
    preview = told.body["data"]["attributes"]
    counted = {line["name"]: line for line in preview["attributes"]}
    moved: dict[str, dict[str, tuple[Any, Any]]] = {}
    for name in before.keys() | after.keys():
        profiles = [p for p, _ in PEOPLE]
        old, new = ({p: side.get(name, {}).get(p) for p in profiles} for side in (before, after))
        counts = {
            "before": sum(v is not None for v in old.values()),
            "after": sum(v is not None for v in new.values()),
            "added": sum(old[p] is None and new[p] is not None for p in profiles),
            "lost": sum(old[p] is not None and new[p] is None for p in profiles),
            "changed": sum(None not in (old[p], new[p]) and str(old[p]) != str(new[p]) for p in profiles),
        }
        line = counted.get(name)
        if line is None:
            assert old == new, f"{name} changes, and the preview does not say so"
            continue
        assert {k: line[k] for k in counts} == counts, name
        for p in profiles:
            if old[p] != new[p]:
                moved.setdefault(p, {})[name] = (old[p], new[p])
    for sample in preview["samples"]:
        seen = {name: (sample["before"][name], sample["after"][name]) for name in sample["before"]}
        texts = {name: tuple(map(text, pair)) for name, pair in moved.get(sample["profile"], {}).items()}
        assert {name: tuple(map(text, pair)) for name, pair in seen.items()} == texts
    assert bool(preview["samples"]) == bool(moved)


def text(value: Any) -> str | None:
    """A value whose type changes is told as text on both sides."""
    if value is None:
        return None
    return str(value).lower() if isinstance(value, bool) else str(value)
