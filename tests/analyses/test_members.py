"""Members of segments are those that the searches and the formula say; names are read as queries read them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from inside import Inside, inside
from roster.analyses.event_world import EventWorld
from roster.analyses.facets import FacetRequest
from roster.analyses.members import condition_of, count_members, members
from roster.analyses.names import names_of_facet, names_of_page, names_of_segment
from roster.analyses.profiles import PageRequest, Selection
from roster.analyses.scopes import World
from roster.base.errors import Code, Error
from roster.model.changes import create, update
from roster.model.connection import CreateRequest, Field, FieldUpdate, UpdateRequest
from roster.model.mapping import empty
from roster.model.schema import Entity, Type
from roster.model.segment import Segment, draft
from roster.operations.event_worlds import event_world_of

TIERS = ("gold", "silver", "")
PEOPLE = [(f"u{i}", f"u{i}@shop.com") for i in range(9)]
SEARCHES = {
    "gold": ("tier:gold", lambda i: TIERS[i % 3] == "gold"),
    "silver": ("@tier:silv*", lambda i: TIERS[i % 3] == "silver"),
    "high": ("score:>=4", lambda i: i >= 4),
    "old": ("rank:gold", lambda i: TIERS[i % 3] == "gold"),
    "first": ("user_id:(u0 OR u1)", lambda i: i < 2),
    "nobody": ("no_such_thing:1", lambda i: False),
    "all": ("*", lambda i: True),
}
"""Name → search, and whether it finds user i."""


def segment(profiles: dict[str, str], combination: str = "", entity: str = "users") -> Segment:
    searches = [{"name": name, "query": query} for name, query in profiles.items()]
    query = {"entity": entity, "profiles": searches, "combination": combination}
    return draft("s", "s", query, "", (), who="", now_ms=0)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Inside]:
    """Nine users with a tier, empty for each third, and a score."""
    with inside(tmp_path_factory.mktemp("shop"), PEOPLE) as product:
        rows = [[email, TIERS[i % 3], str(i)] for i, (_, email) in enumerate(PEOPLE)]
        product.add_table(["email", "tier", "score"], rows, "email", "crm")
        fields = [
            {"id": "rank", "source_name": "tier", "type": "string"},
            {"id": "score", "source_name": "score", "type": "number"},
        ]
        product.create("crm", {"type": "ref_table", "join_type": "email", "join_attribute": "email", "fields": fields})
        product.update("crm", {"fields_to_update": [{"field_id": "rank", "updated_field_id": "tier"}]})
        yield product


formulas = st.recursive(
    st.sampled_from(sorted(SEARCHES)),
    lambda inner: st.one_of(
        st.tuples(st.just("!"), inner),
        st.tuples(st.sampled_from(["&&", "||"]), st.lists(inner, min_size=2, max_size=3)),
    ),
    max_leaves=6,
)


def text_of(tree: Any) -> str:
    match tree:
        case str():
            return tree
        case ("!", inner):
            return f"NOT({text_of(inner)})"
        case (op, inner):
            return "(" + f" {op} ".join(map(text_of, inner)) + ")"
    raise AssertionError(tree)


def holds(tree: Any, i: int) -> bool:
    match tree:
        case str():
            return bool(SEARCHES[tree][1](i))
        case ("!", inner):
            return not holds(inner, i)
        case ("&&", inner):
            return all(holds(t, i) for t in inner)
        case (_, inner):
            return any(holds(t, i) for t in inner)
    raise AssertionError(tree)


@settings(max_examples=40)
@given(st.lists(formulas, min_size=1, max_size=4))
def test_members_are_whom_the_formula_holds_for(shop: Inside, trees: list[Any]) -> None:
    stands_on = event_world_of(shop.context)
    world = stands_on.users
    queries = {name: query for name, (query, _) in SEARCHES.items()}
    segments = [segment(queries, text_of(tree)) for tree in trees]
    conditions = [condition_of(world, s)[0] for s in segments]
    plans = [count_members(world.relation, conditions), *(members(stands_on, s) for s in segments)]
    counted, *listed = shop.context.engine.run(plans, shop.context.limits.budget())
    found = [sorted(key for (key,) in answer.rows) for answer in listed]
    assert found == [[user for i, (user, _) in enumerate(PEOPLE) if holds(tree, i)] for tree in trees]
    assert list(counted.rows[0]) == [len(keys) for keys in found]


def pure_world(*renames: tuple[str, str], type: Type = Type.STRING) -> World:
    fields = (Field("tier", "tier", type), Field("score", "score", Type.NUMBER))
    request = CreateRequest("crm", "ref_table", "email", "email", fields)
    mapping = create(empty(Entity.USERS), request, who="", now_ms=0, source_columns=None)
    for old, new in renames:
        changed = UpdateRequest("crm", update=(FieldUpdate(old, new),))
        mapping = update(mapping, changed, who="", now_ms=1, source_columns=None)
    return World(mapping, {}, 2, 10)


def around(users: World) -> EventWorld:
    return EventWorld(users, World(empty(Entity.ACCOUNTS), {}, users.now_ms, users.alias_ms))


def test_warnings_of_a_segment() -> None:
    made = segment({"a": "teir:gold", "b": "tier:gold"}, "!a")
    _, warnings = condition_of(pure_world(), made)
    assert "unknown attribute 'teir'" in warnings[0]
    assert "'tier'" in warnings[0]
    assert warnings[1:] == ["search 'b' takes no part: the combination does not name it"]


@pytest.mark.parametrize("query", ["score:>abc", "tier:(gold"])
def test_a_wrong_search_is_told_with_its_place(query: str) -> None:
    with pytest.raises(Error) as refused:
        members(around(pure_world()), segment({"a": "tier:gold", "b": query}))
    assert refused.value.code is Code.INVALID
    assert refused.value.at.startswith("/data/attributes/data_query/profiles/1/query character ")


def test_names_are_read_as_queries_read_them() -> None:
    world = pure_world(("tier", "level"))
    made = segment({"a": "(@tier:gold OR -level:x*) @score:[1 TO 2]", "b": 'tier "score" user_id:tier *:x nothing:1'})
    assert names_of_segment(around(world), Entity.USERS, made) == {"tier": "level", "level": "level", "score": "score"}
    selection = Selection("score:>1", "tier", "@tier:gold level:x @view.url:score* score.deep:1")
    page = PageRequest(selection, ("user_id", "@tier"), "score", True, 5)
    assert names_of_page(world, page) == {"tier": "level", "level": "level", "score": "score"}
    assert names_of_page(world, PageRequest(Selection("tier"), None, None, True, 5)) == {}
    assert names_of_facet(world, FacetRequest("@tier", "score:1", "level", 5)) == {"tier": "level", "score": "score"}
    assert world.named.keys() <= {"tier", "score", "level"}


def test_a_search_whose_field_changed_its_type_still_names_it() -> None:
    world = pure_world(type=Type.TIMESTAMP)
    made = segment({"a": "tier:>5s"})
    with pytest.raises(Error):
        members(around(world), made)
    assert names_of_segment(around(world), Entity.USERS, made) == {"tier": "tier"}


def both_worlds() -> EventWorld:
    """Users have a tier and a score, accounts a size, an industry and a tier of their own."""
    ids = ("size", "industry", "tier")
    request = CreateRequest("firms", "ref_table", "account_id", "id", tuple(Field(id, id, Type.STRING) for id in ids))
    mapping = create(empty(Entity.ACCOUNTS), request, who="", now_ms=0, source_columns=None)
    users = pure_world()
    return EventWorld(users, World(mapping, {}, users.now_ms, users.alias_ms))


def journey(**search: Any) -> dict[str, Any]:
    node = {"data_source": "product_analytics", "search": {"query": None}}
    return {"journeys": [{"name": "j", "search": {"expression": "a", "node_objects": {"a": node}} | search}]}


def audience(**groups: list[dict[str, Any]]) -> dict[str, Any]:
    return journey(filters={"audience_filters": groups, "string_filter": None})


TABLE = {"name": "t", "table_name": "calls", "join_condition": {"column_name": "c", "facet": "@score"}}
OTHER = {"name": "s", "segment_id": "other"}
NODE_OF_SIZE = {"data_source": "product_analytics", "search": {"query": "@size:big"}}
NAMING: list[tuple[dict[str, Any], set[str], set[str]]] = [
    ({"accounts": [{"name": "a", "query": "size:big tier:gold"}]}, set(), {"size", "tier"}),
    ({"event_platforms": [{"name": "e", "query": "@size:big @tier:gold @view.url:score"}]}, {"tier"}, {"size"}),
    (journey(node_objects={"a": NODE_OF_SIZE}), set(), {"size"}),
    (journey(filters={"string_filter": "@tier:gold @industry:x"}), {"tier"}, {"industry"}),
    (journey(exclusions=[{"query": "@score:1 @size:big"}]), {"score"}, {"size"}),
    (journey(join_keys={"secondary": ["@industry", "score", "@view.name"]}), {"score"}, {"industry"}),
    (audience(users=[{"name": "u", "query": "tier:gold size:1"}, {"name": "v"}]), {"tier"}, set()),
    (audience(accounts=[{"name": "u", "query": "tier:gold score:1"}]), set(), {"tier"}),
    (audience(segments=[OTHER, {"name": "gone", "segment_id": "gone"}]), {"score"}, {"size"}),
    ({"reference_tables": [TABLE]}, {"score"}, set()),
    ({"static": [{"id": "l", "name": "x"}]}, set(), set()),
    ({"entity": "accounts", "profiles": [{"name": "p", "query": "tier:gold score:1"}]}, set(), {"tier"}),
    ({"entity": "accounts", "reference_tables": [TABLE]}, set(), set()),
]
"""A `data_query`, and the fields of users and of accounts that it names."""


@pytest.mark.parametrize(("query", "users", "accounts"), NAMING, ids=[str(n) for n in range(len(NAMING))])
def test_every_part_of_a_segment_that_names_a_field(query: dict[str, Any], users: set[str], accounts: set[str]) -> None:
    def drafted(id: str, query: dict[str, Any]) -> Segment:
        return draft(id, id, query, "", (), who="", now_ms=0)

    told = {"profiles": [{"name": "p", "query": "score:1"}], "accounts": [{"name": "a", "query": "size:big"}]}
    back = audience(segments=[{"name": "s", "segment_id": "s"}])
    made = drafted("s", query)
    world = replace(both_worlds(), segments={"s": made, "other": drafted("other", told | back)})
    assert set(names_of_segment(world, Entity.USERS, made)) == users
    assert set(names_of_segment(world, Entity.ACCOUNTS, made)) == accounts
    assert (world.users.named, world.accounts.named) == ({}, {}), "what a query named is another matter"
