"""Arrays of events are noted by path, whatever way the events come, before a query could miss one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from engine.test_events import Engine, event
from roster.engine import arrays
from roster.engine.arrays import read_arrays
from roster.engine.duckdb import DuckEngine
from roster.engine.enriched import Enriched
from roster.model.schema import Column as SchemaColumn, Type
from roster.ports import Budget
from roster.query.expr import AnyOf, Cast, Column, Compare, Expr, Item, Literal, Texts
from roster.query.plan import Filter, Project, Read, Spread

AT_MS = 1_700_000_000_000
REST = Column("rest", Type.ANY)
EVENTS = Read("events", (SchemaColumn("event_id", Type.STRING), SchemaColumn("rest", Type.ANY)))
ID = ("id", Column("event_id", Type.STRING))
KEYS = ("a", "A", "b c", 'd"e.f')


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    engine = Engine(tmp_path)
    yield engine
    engine.duck.close()


def known(engine: Engine) -> set[tuple[str, ...]]:
    connection = engine.duck.cursor()
    found = read_arrays(connection).paths
    connection.close()
    return set(found)


def asking(engine: Engine) -> DuckEngine:
    return DuckEngine(engine.duck, Enriched(engine.duck))


def holds(keys: tuple[str, ...], text: str) -> Expr:
    return AnyOf(REST, keys, Compare("=", Cast(Item(), Type.STRING), Literal(text, Type.STRING)))


def found(asked: DuckEngine, keys: tuple[str, ...], text: str) -> list[str]:
    plan = Project(Filter(EVENTS, holds(keys, text)), (ID,))
    return sorted(row[0] for row in asked.run([plan], Budget(60, 1000))[0].rows)


def test_only_the_outermost_arrays_are_noted(engine: Engine) -> None:
    rest = {"a": [], "b": {"c": [1, {"d": [2]}]}, "text": "[no]", "e.f": {"g": 1}, "A": None}
    engine.events.apply_segment(1, engine.segment(event("x", rest=rest), event("y", rest={"b": 1}), event("z")))
    assert known(engine) == {("a",), ("b", "c")}


def test_a_path_that_held_texts_is_found_in_arrays_from_then_on(engine: Engine) -> None:
    asked = asking(engine)
    engine.events.apply_segment(1, engine.segment(event("x", rest={"context": {"tag": "new"}})))
    assert found(asked, ("context", "tag"), "new") == ["x"]
    assert "ITEMS" not in asked.explain([Filter(EVENTS, holds(("context", "tag"), "new"))], Budget(60, 1))[0].sql
    engine.events.apply_segment(2, engine.segment(event("y", rest={"context": {"tag": ["old", "new"]}})))
    assert found(asked, ("context", "tag"), "new") == ["x", "y"]
    engine.events.apply_segment(3, engine.segment(event("z", rest={"context": [{"tag": "new"}, {"tag": "old"}]})))
    assert found(asked, ("context", "tag"), "new") == ["x", "y", "z"]
    assert found(asked, ("context", "tag"), "old") == ["y", "z"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("e.csv", 'user,at,kind\nu,2024-01-01,"[1]"\n'),
        ("e.ndjson", '{"user": "u", "at": 1700000000, "kind": ["x", 1]}\n'),
    ],
)
def test_files_tell_theirs_too(engine: Engine, name: str, content: str) -> None:
    engine.load(engine.file(name, content), {"usr.id": "user", "date": "at", "type": "=view"})
    assert known(engine) == ({("context", "kind")} if name.endswith("ndjson") else set())


def test_lists_of_a_parquet_file_are_arrays(engine: Engine) -> None:
    path = engine.folder / "e.parquet"
    sql = "SELECT 'u' AS \"user\", 1700000000 AS at, ['x', 'y'] AS kind, {'deep': [1]} AS more"
    engine.rows(f"COPY ({sql}) TO '{path}'")
    engine.load(path, {"usr.id": "user", "date": "at", "type": "=view"})
    assert known(engine) == {("context", "kind"), ("context", "more", "deep")}
    assert len(found(asking(engine), ("context", "kind"), "y")) == 1


def test_what_updates_of_views_bring_is_noted(engine: Engine) -> None:
    view = {"time": AT_MS, "view_id": "v", "session_id": "s"}
    whole = event("view:v", type="view", v=1, rest={"context": {"tag": "x"}}) | view
    part = event("view_update:v:2", type="view_update", v=2, rest={"feature": {"flags": ["on"]}}) | view
    engine.events.apply_segment(1, engine.segment(whole))
    engine.events.apply_segment(2, engine.segment(part))
    assert found(asking(engine), ("feature", "flags"), "on") == ["view:v"]


def test_what_a_session_takes_from_its_views_is_noted(engine: Engine) -> None:
    """A sender may call anything by the names that are read from an address."""
    view = event("view:v", type="view", v=1, rest={"view": {"url_query": ["a"]}})
    engine.events.apply_segment(1, engine.segment(view | {"time": AT_MS, "view_id": "v", "session_id": "s"}))
    engine.events.settle(AT_MS)
    assert found(asking(engine), ("session", "initial_view", "url_query"), "a") == ["session:s"]


def test_too_many_paths_mean_all_that_begin_like_them_and_then_everywhere(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arrays, "PATHS_MAX", 2)
    sent = [("a", "b"), ("a", "c"), ("a", "d"), ("a", "e"), ("b", "c"), ("c", "d"), ("d", "e")]
    asked = asking(engine)
    for number, (first, second) in enumerate(sent):
        rest = {first: {second: [f"value{number}"]}}
        engine.events.apply_segment(number + 1, engine.segment(event(f"e{number}", rest=rest)))
        assert [found(asked, sent[n], f"value{n}") for n in range(number + 1)] == [[f"e{n}"] for n in range(number + 1)]
    assert known(engine) == {("a", "b"), ("a", "c"), ("a",), ("b",), ()}


def test_of_a_key_that_json_has_twice_the_last_is_looked_at(engine: Engine) -> None:
    path = engine.folder / "e.parquet"
    kind = """'{"a": 1, "a": ["x", "y"]}'::JSON AS kind"""
    engine.rows(f"COPY (SELECT 'u' AS \"user\", 1700000000 AS at, {kind}) TO '{path}'")
    engine.load(path, {"usr.id": "user", "date": "at", "type": "=view"})
    assert len(found(asking(engine), ("context", "kind", "a"), "x")) == 1


def test_what_is_too_deep_to_look_through_means_everywhere(engine: Engine) -> None:
    path = engine.folder / "e.parquet"
    deep = "repeat('{\"a\":', 1200) || '[1]' || repeat('}', 1200)"
    engine.rows(f"COPY (SELECT 'u' AS \"user\", 1700000000 AS at, ({deep})::JSON AS kind) TO '{path}'")
    assert engine.load(path, {"usr.id": "user", "date": "at", "type": "=view"}).stored == 1
    assert known(engine) == {()}


def test_a_store_that_did_not_note_them_does_so_when_it_opens(engine: Engine) -> None:
    rest = {"context": {"tags": ["x"]}}
    engine.events.apply_segment(1, engine.segment(event("e", rest=rest)))
    with engine.duck.write() as connection:
        connection.execute("DROP TABLE array_paths")
        connection.execute("DELETE FROM engine_state WHERE name = 'arrays_learned'")
    engine.duck.close()
    again = Engine(engine.folder)
    assert known(again) == {("context", "tags")}
    again.duck.close()


VALUES = st.recursive(
    st.sampled_from(["x", "[x", "", 1, 2.5, True, None]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=3),
    max_leaves=8,
)
DOCUMENTS = st.dictionaries(st.sampled_from(KEYS), VALUES, min_size=1, max_size=3)
PATHS = st.lists(st.sampled_from(KEYS), min_size=1, max_size=3).map(tuple)


@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@given(documents=st.lists(DOCUMENTS, min_size=1, max_size=6), paths=st.lists(PATHS, min_size=1, max_size=4))
def test_nothing_is_missed_by_knowing_where_arrays_are(
    tmp_path_factory: pytest.TempPathFactory, documents: list[dict[str, Any]], paths: list[tuple[str, ...]]
) -> None:
    """The same with what was noted as with looking everywhere."""
    engine = Engine(tmp_path_factory.mktemp("arrays"))
    asked = asking(engine)
    engine.events.apply_segment(1, engine.segment(*(event(f"e{n}", rest=d) for n, d in enumerate(documents))))
    plans = [
        *(Filter(EVENTS, holds(path, text)) for path in paths for text in ("x", "1", "[x")),
        *(Spread(EVENTS, "each", Texts(REST, path)) for path in paths),
    ]
    plans = [
        Project(plan, (ID, *([("each", Column("each", Type.STRING))] * isinstance(plan, Spread)))) for plan in plans
    ]
    ours = [sorted(answer.rows, key=repr) for answer in asked.run(plans, Budget(60, 1000))]
    with engine.duck.write() as connection:
        connection.execute("DELETE FROM array_paths")
        connection.execute("INSERT INTO array_paths VALUES ([])")
    assert ours == [sorted(answer.rows, key=repr) for answer in asked.run(plans, Budget(60, 1000))]
    engine.duck.close()
