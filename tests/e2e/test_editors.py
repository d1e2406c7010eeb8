"""A hundred people edit one connection at once: nothing is lost, history is one row of versions."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import pytest

from servers import Answered, Server

pytestmark = [pytest.mark.e2e, pytest.mark.xdist_group("editors")]

EDITORS = 100
WAIT_S = 60.0
BASE = "/api/v2/product-analytics/users/mapping"
CONNECTION = f"{BASE}/connection"


@pytest.fixture(scope="module")
def busy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that lets a hundred people write as fast as they can."""
    limits = json.dumps({"audience_write": "9999999/minute"})
    with Server(tmp_path_factory.mktemp("editors"), rate_limits=limits) as server:
        yield server


@pytest.fixture
def connection(busy: Server) -> Iterator[str]:
    """The id of a connection for one test."""
    id = "edited"
    attributes = {"type": "ref_table", "join_type": "user_id", "join_attribute": "user_id"}
    body = {"data": {"type": "connection_id", "id": id, "attributes": attributes}}
    assert busy.ask("POST", CONNECTION, body).status == 201
    yield id
    assert busy.ask("DELETE", f"{CONNECTION}/{id}").status == 204


def update(server: Server, id: str, headers: dict[str, str] | None = None, **attributes: Any) -> Answered:
    body = {"data": {"type": "connection_id", "id": id, "attributes": attributes}}
    return server.ask("PUT", CONNECTION, body, headers=headers)


def added(*ids: str) -> list[dict[str, str]]:
    return [{"id": id, "source_name": f"column_{id}", "type": "string"} for id in ids]


def renamed(old: str, new: str) -> list[dict[str, str]]:
    return [{"field_id": old, "updated_field_id": new}]


def fields(server: Server, id: str) -> dict[str, str]:
    connections = server.ask("GET", f"{BASE}/connections").json()["data"]["attributes"]["connections"]
    (found,) = [c for c in connections if c["id"] == id]
    return {f["id"]: f["source_name"] for f in found["fields"]}


def version(server: Server) -> int:
    return int(server.ask("GET", BASE).headers["etag"].strip('"'))


def history(server: Server) -> list[dict[str, Any]]:
    """Oldest first."""
    answer = server.ask("GET", f"{BASE}/versions?page[limit]=1000").json()
    found: list[dict[str, Any]] = answer["data"]["attributes"]["versions"]
    return found[::-1]


def live(server: Server, version: int, ids: set[str]) -> set[str]:
    shown = server.ask("GET", f"{BASE}?version={version}").json()["data"]["attributes"]["attributes"]
    return {a["attribute"].removeprefix("@") for a in shown if a["is_custom"]} & ids


def persist(server: Server, id: str, **attributes: Any) -> int:
    """Send an update until it is taken, and once more, as clients do that lost the answer."""
    for _ in range(100):
        answer = update(server, id, **attributes)
        if answer.status < 500:
            break
    assert (answer.status, answer.body) == (200, b""), answer
    assert update(server, id, **attributes).status == 200
    return int(answer.headers["etag"].strip('"'))


def edit(server: Server, id: str, n: int, together: Barrier) -> list[int]:
    """One editor's day: add a field; every fifth renames it, every fifth deletes it. Gives the versions made."""
    together.wait(WAIT_S)
    made = [persist(server, id, fields_to_add=added(f"f{n}"))]
    if n % 5 == 1:
        made.append(persist(server, id, fields_to_update=renamed(f"f{n}", f"g{n}")))
    if n % 5 == 2:
        made.append(persist(server, id, fields_to_delete=[f"f{n}"]))
    return made


def test_a_hundred_editors_at_once(busy: Server, connection: str) -> None:
    before = version(busy)
    together = Barrier(EDITORS)
    with ThreadPoolExecutor(EDITORS) as pool:
        work = [pool.submit(edit, busy, connection, n, together) for n in range(EDITORS)]
        made = [v for future in work for v in future.result(WAIT_S)]
    kept = {f"g{n}" if n % 5 == 1 else f"f{n}": f"column_f{n}" for n in range(EDITORS) if n % 5 != 2}
    assert fields(busy, connection) == kept
    steps = history(busy)
    assert [s["version"] for s in steps] == list(range(1, len(steps) + 1))
    assert sorted(made) == list(range(before + 1, version(busy) + 1)), "one version a change, each its editor's own"
    check_steps(busy, steps[before:], set(kept) | {f"f{n}" for n in range(EDITORS)})


def check_steps(server: Server, steps: list[dict[str, Any]], ids: set[str]) -> None:
    """Each version is the one before plus what its own request says, and nothing of anybody else."""
    present = live(server, steps[0]["version"] - 1, ids)
    for step in steps:
        asked = json.loads(step["request"])["data"]["attributes"]
        present -= set(asked.get("fields_to_delete", []))
        for rename in asked.get("fields_to_update", []):
            present.remove(rename["field_id"])
            present.add(rename["updated_field_id"])
        present |= {f["id"] for f in asked.get("fields_to_add", [])}
        assert live(server, step["version"], ids) == present
        assert step["diff"], "a version says what it changed"
    assert present == live(server, steps[-1]["version"], ids)


def test_editors_who_want_the_same_id(busy: Server, connection: str) -> None:
    """One gets it, the others are told; the same definition from everybody is one change."""
    before, together = version(busy), Barrier(20)

    def claim(n: int) -> int:
        together.wait(WAIT_S)
        field = {"id": "claimed", "source_name": f"column_{n % 4}", "type": "string"}
        return update(busy, connection, fields_to_add=[field]).status

    with ThreadPoolExecutor(20) as pool:
        statuses = list(pool.map(claim, range(20)))
    assert sorted(statuses) == [200] * 5 + [409] * 15
    assert version(busy) == before + 1
    winner = fields(busy, connection)["claimed"]
    assert [n % 4 for n, status in enumerate(statuses) if status == 200] == [int(winner[-1])] * 5


def test_editors_who_name_the_same_version(busy: Server, connection: str) -> None:
    """If-Match: exactly one of them is first."""
    before, together = version(busy), Barrier(20)
    headers = {"If-Match": f'"{before}"'}

    def claim(n: int) -> int:
        together.wait(WAIT_S)
        return update(busy, connection, headers, fields_to_add=added(f"own{n}")).status

    with ThreadPoolExecutor(20) as pool:
        statuses = list(pool.map(claim, range(20)))
    assert sorted(statuses) == [200] + [412] * 19
    assert version(busy) == before + 1
    assert fields(busy, connection).keys() == {f"own{statuses.index(200)}"}


def test_if_match(busy: Server, connection: str) -> None:
    before = version(busy)
    right, stale = {"If-Match": f'"{before}"'}, {"If-Match": f'"{before - 1}"'}
    refused = update(busy, connection, stale, fields_to_add=added("a"))
    assert refused.status == 412
    assert refused.headers["content-type"] == "application/json"
    (text,) = refused.json()["errors"]
    assert f'"{before}"' in text
    assert (version(busy), fields(busy, connection)) == (before, {})
    taken = update(busy, connection, right, fields_to_add=added("a"))
    assert (taken.status, taken.headers["etag"]) == (200, f'"{before + 1}"')
    again = update(busy, connection, right, fields_to_add=added("a"))
    assert (again.status, again.headers["etag"]) == (200, f'"{before + 1}"'), "sent again after a lost answer"
    assert update(busy, connection, right, fields_to_add=added("b")).status == 412
    assert update(busy, connection, {"If-Match": "*"}, fields_to_add=added("b")).status == 200
    assert update(busy, connection, {"If-Match": "nonsense"}, fields_to_add=added("c")).status == 412
    assert fields(busy, connection) == {"a": "column_a", "b": "column_b"}


def test_if_match_on_the_other_changes(busy: Server) -> None:
    """Creating and deleting a connection heed it too."""
    stale = {"If-Match": f'"{version(busy) + 7}"'}
    attributes = {"type": "ref_table", "join_type": "user_id", "join_attribute": "user_id"}
    body = {"data": {"type": "connection_id", "id": "matched", "attributes": attributes}}
    assert busy.ask("POST", CONNECTION, body, headers=stale).status == 412
    assert busy.ask("POST", CONNECTION, body, headers={"If-Match": f'"{version(busy)}"'}).status == 201
    assert busy.ask("DELETE", f"{CONNECTION}/matched", headers=stale).status == 412
    assert busy.ask("DELETE", f"{CONNECTION}/matched", headers={"If-Match": f'"{version(busy)}"'}).status == 204


@pytest.mark.parametrize(
    "attributes",
    [
        {"fields_to_add": added("x")},
        {"fields_to_update": renamed("old", "new")},
        {"fields_to_update": [{"field_id": "old", "updated_display_name": "Old", "updated_groups": ["G"]}]},
        {"fields_to_delete": ["old"]},
        {"fields_to_delete": ["absent"]},
        {"fields_to_delete": ["old"], "fields_to_add": added("old")},
        {"fields_to_delete": ["old"], "fields_to_update": renamed("other", "old")},
        {"fields_to_update": [*renamed("old", "other"), *renamed("other", "old")]},
        {"fields_to_update": renamed("old", "new"), "fields_to_add": added("old")},
        {},
    ],
    ids=["add", "rename", "label", "delete", "delete absent", "replace", "take over", "swap", "shift", "nothing"],
)
def test_the_same_update_twice_is_one(busy: Server, connection: str, attributes: dict[str, Any]) -> None:
    first = {"id": "old", "source_name": "first", "type": "number"}
    second = {"id": "other", "source_name": "second", "type": "string"}
    assert update(busy, connection, fields_to_add=[first, second]).status == 200
    before = version(busy)
    once = update(busy, connection, **attributes)
    after, made = fields(busy, connection), version(busy)
    changes = attributes not in ({}, {"fields_to_delete": ["absent"]})
    assert (once.status, once.body, made) == (200, b"", before + changes)
    for _ in range(3):
        again = update(busy, connection, **attributes)
        assert (again.status, again.headers["etag"]) == (200, f'"{made}"')
        assert (fields(busy, connection), version(busy)) == (after, made)


def test_a_refused_update_changes_nothing(busy: Server, connection: str) -> None:
    """All or nothing: a good part beside a bad one is not done."""
    assert update(busy, connection, fields_to_add=added("a", "b")).status == 200
    before, present = version(busy), fields(busy, connection)
    for status, attributes in (
        (404, {"fields_to_delete": ["a"], "fields_to_update": renamed("absent", "c"), "fields_to_add": added("d")}),
        (409, {"fields_to_delete": ["a"], "fields_to_update": renamed("b", "user_email")}),
        (409, {"fields_to_delete": ["a"], "fields_to_add": added("c", "user_id")}),
        (400, {"fields_to_add": [*added("c"), {"id": "d", "source_name": "d", "type": "matrix"}]}),
        (400, {"fields_to_add": added("c", "c")}),
        (400, {"fields_to_add": added("c", "no spaces")}),
        (400, {"fields_to_delete": ["a", 1]}),
    ):
        refused = update(busy, connection, **attributes)
        assert refused.status == status, refused
        assert all(isinstance(text, str) for text in refused.json()["errors"])
        assert (fields(busy, connection), version(busy)) == (present, before)


def test_an_unknown_connection_and_a_wrong_type(busy: Server) -> None:
    assert update(busy, "nobody-made-this", fields_to_add=added("a")).status == 404
    body = {"data": {"type": "connection", "id": "x", "attributes": {}}}
    assert busy.ask("PUT", CONNECTION, body).status == 400
    assert busy.ask("DELETE", f"{CONNECTION}/nobody-made-this").status == 404
