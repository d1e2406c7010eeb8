"""What a dry run tells is what the commit does: random tables, mappings and changes, messy keys included."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st
from hypothesis.strategies import DrawFn

from inside import Inside, code_of, inside
from roster.base.errors import Error
from roster.model.schema import Entity
from roster.operations import reference_tables
from roster.operations.context import Reply

pytestmark = [
    pytest.mark.xdist_group("preview"),
    # threads of the product take random numbers of their own while data is drawn
    pytest.mark.filterwarnings("ignore:Do not use the .random. module"),
]
EXAMPLES = int(os.environ.get("ROSTER_PREVIEWS", "25"))
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
TIMES = ["2024-01-01", "2024-01-02T00:00:00Z", "2024-01-03 10:00"]
COLUMNS = ["pk", "id", "mail", "a", "b", "c"]
USUAL = {"tier": "string", "ltv": "number", "plan": "string", "flag": "boolean"}
IDS = [*USUAL, "user_email"]
TYPES = ["string", "number", "boolean", "timestamp"]
FRESH = ["level", "value", "kind", "mark"]


def mostly(usual: list[Any], seldom: list[Any]) -> st.SearchStrategy[Any]:
    """One of the usual, now and then any other: most changes must be possible, or nothing is compared."""
    often = (usual or seldom) * (1 + 4 * len(seldom) // len(usual or seldom))
    return st.sampled_from([*often, *seldom, *often])  # the first and the last are drawn most


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Inside]:
    with inside(tmp_path_factory.mktemp("preview"), PEOPLE, tables_max=10_000, query_timeout_s=300) as made:
        yield made


cells = st.sampled_from(CELLS)
keys = st.sampled_from(KEYS) | st.sampled_from([id for id, _ in PEOPLE])
rows = st.lists(
    st.tuples(keys, st.sampled_from(MAILS), cells, cells, mostly(TIMES, CELLS)),
    min_size=5,
    max_size=14,
)


@st.composite
def fields(draw: DrawFn, shared: bool, ids: list[str]) -> dict[str, Any]:
    id = draw(mostly(ids, IDS))
    usual = [USUAL[id]] if id in USUAL else TYPES
    field: dict[str, Any] = {
        "id": id,
        "source_name": draw(mostly(["a", "b", "c"], ["id", "lost"])),
        "type": draw(mostly(usual, TYPES)),
    }
    rule = draw(st.integers(0, 5))
    if rule == 0:
        field["allowed_values"] = draw(st.lists(st.sampled_from(CELLS), max_size=4))
    if rule == 1:
        field["pattern"] = draw(st.sampled_from(["(?i)g.*", r"\d.*", ".", ""]))
    if rule == 2:
        field["null_rule"] = draw(st.sampled_from(["skip", "clear"]))
    if shared:
        field["conflict"] = draw(conflicts())
    return field


@st.composite
def connections(draw: DrawFn, table: str, shared: bool, ids: list[str]) -> dict[str, Any]:
    join = draw(mostly([("user_id", "id"), ("email", "mail")], [("user_id", "pk"), ("user_id", "user_id")]))
    metadata = {"table_name": table} | draw(mostly([{"changed_at": "c"}], [{}]))
    made = {"type": "ref_table", "join_type": join[0], "join_attribute": join[1], "metadata": metadata}
    made["fields"] = draw(st.lists(fields(shared, ids), min_size=1 + shared, max_size=2, unique_by=lambda f: f["id"]))
    if draw(st.integers(0, 9)) == 0:
        made["fields_from_columns"] = {"except": ["mail"], "naming": "bulk_{column}"}
    return made


@st.composite
def updates(draw: DrawFn, shared: bool, mine: list[str], taken: list[str]) -> dict[str, Any]:
    """`mine`: the fields that the connection has; `taken`: those that others have."""
    changed: list[dict[str, Any]] = []
    for id in draw(st.lists(mostly(mine, IDS), max_size=2, unique=True)):
        change: dict[str, Any] = {"field_id": id}
        if draw(st.booleans()):
            change["updated_field_id"] = draw(mostly(FRESH, IDS))
        if draw(st.integers(0, 2)) == 0:
            change["updated_type"] = draw(st.sampled_from(TYPES))
        if draw(st.integers(0, 3)) == 0:
            change["updated_allowed_values"] = draw(st.lists(st.sampled_from(CELLS), max_size=3))
        if shared and draw(st.integers(0, 2)) == 0:
            change["updated_conflict"] = draw(conflicts())
        if draw(st.integers(0, 3)) == 0:
            change["updated_null_rule"] = draw(st.sampled_from(["skip", "clear"]))
        changed.append(change)
    free = [id for id in USUAL if id not in mine and (shared or id not in taken)]
    return {
        "fields_to_add": draw(st.lists(fields(shared, free or FRESH), max_size=2, unique_by=lambda f: f["id"])),
        "fields_to_update": changed,
        "fields_to_delete": draw(st.lists(mostly(mine, IDS), max_size=1)),
    }


def conflicts() -> st.SearchStrategy[dict[str, Any]]:
    choices = st.sampled_from(["precedence", "newest", "non_empty"])
    return st.fixed_dictionaries({"rule": choices, "order": st.permutations(["one", "two", "three"])})


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
    shared = data.draw(st.sampled_from([True, False, True]))
    for name in ("first", "second"):
        lines = [(str(n), *row) for n, row in enumerate(data.draw(rows))]
        world.add_table(COLUMNS, lines, data.draw(st.sampled_from(["pk", "pk", "id"])), name)
    for id, table, own in (("one", "first", IDS[:2]), ("two", "second", IDS[2:4])):
        if data.draw(st.integers(0, 5)):
            asked = data.draw(connections(table, shared, IDS[:2] if shared else own))
            attempt(lambda id=id, asked=asked, **query: world.create(id, asked, **query))
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
    check(told, before, dump(world, before))
    assert bool(told.body["data"]["attributes"]["steps"]) == (
        world.context.store.read_mapping(Entity.USERS).version != told.body["data"]["attributes"]["version"]["now"]
    )


@st.composite
def changes(draw: DrawFn, world: Inside, shared: bool) -> Change:
    present = {c["id"]: [f["id"] for f in c["fields"]] for c in world.connections()}
    held = [f for mine in present.values() for f in mine]
    kind = draw(st.sampled_from(["create", "update", "update", "update", "delete"]))
    id = draw(mostly(list(present), ["one", "two"]))
    if kind == "create":
        free = IDS[:2] if shared else [f for f in USUAL if f not in held]
        asked = draw(connections(draw(st.sampled_from(["first", "second", "nowhere"])), shared, free))
        return lambda **query: world.create("three", asked, **query)
    if kind == "update":
        mine = present.get(id, [])
        wanted = draw(updates(shared, mine, [f for f in held if f not in mine]))
        return lambda **query: world.update(id, wanted, **query)
    return lambda **query: world.delete(id, **query)


def dump(world: Inside, known: Iterable[str] = ()) -> dict[str, dict[str, Any]]:
    """Name → profile → value, for every name that means or meant something; None where it means nothing."""
    names = sorted({*USUAL, *FRESH, *world.attributes(), *known})
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
            "changed": sum(None not in (old[p], new[p]) and text(old[p]) != text(new[p]) for p in profiles),
        }
        line = counted.get(name)
        if line is None:
            assert old == new, f"{name} changes, and the preview does not say so"
            continue
        assert {k: line[k] for k in counts} == counts, name
        for p in profiles:
            if text(old[p]) != text(new[p]):
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
