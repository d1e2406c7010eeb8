"""Snapshots of segments: one a day, the old ones go, lists nobody names go, and an erased user is on none."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from inside import CALLER, Inside, inside
from roster.main import SystemClock
from roster.model.schema import Entity
from roster.operations.context import Context, Request
from roster.operations.segment_members import list_changes
from roster.operations.segment_snapshots import DAY_MS, renew_snapshots
from roster.operations.segments import create_segment, delete_segment, update_segment
from roster.operations.static_segments import create_static_segment
from roster.operations.user_rights import erase_user

PEOPLE = [(f"u{i}", f"u{i}@x.com") for i in range(4)]


@dataclass
class Moved(SystemClock):
    """The real clock, some days ahead."""

    days: float = 0.0

    def now_ms(self) -> int:
        return super().now_ms() + int(self.days * DAY_MS)


@dataclass
class Shop:
    product: Inside
    clock: Moved
    context: Context

    def lists(self) -> list[tuple[str, int]]:
        """Whose snapshots there are, or the id of a list, with their counts."""
        return [(kept.id.split("@")[0], kept.count) for kept in self.context.lists.list_lists()]

    def request(self, body: Any = None, id: str = "", **query: str) -> Request:
        raw = json.dumps(body).encode() if body is not None else b""
        return Request(CALLER, raw, {"segment_id": id, "id": id}, {k: [v] for k, v in query.items()})

    def create(self, name: str, query: str) -> str:
        attributes = {"name": name, "data_query": {"profiles": [{"name": "p", "query": query}]}}
        reply = create_segment(self.context, self.request({"data": {"type": "segment", "attributes": attributes}}))
        return str(reply.body["data"]["id"])

    def fix(self, name: str, *ids: str) -> str:
        data = {"type": "create_static_segment_request", "attributes": {"name": name, "ids": list(ids)}}
        return str(create_static_segment(self.context, self.request({"data": data})).body["data"]["id"])

    def update(self, id: str, query: str) -> None:
        attributes = {"data_query": {"profiles": [{"name": "p", "query": query}]}}
        body = {"data": {"type": "segment", "id": id, "attributes": attributes}}
        update_segment(self.context, self.request(body, id))


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    with inside(tmp_path, PEOPLE) as product:
        clock = Moved()
        yield Shop(product, clock, replace(product.context, clock=clock))


def test_a_snapshot_a_day_for_so_many_days(shop: Shop) -> None:
    id = shop.create("two", "user_id:(u0 OR u1)")
    renew_snapshots(shop.context)
    assert shop.lists() == [(id, 2)], "today's is there"
    for day in (1, 2):
        shop.clock.days = day
        renew_snapshots(shop.context)
    assert shop.lists() == [(id, 2)] * 3
    shop.update(id, "user_id:u2")
    assert shop.lists() == [(id, 2)] * 3 + [(id, 1)]
    shop.clock.days = 36.5
    renew_snapshots(shop.context)
    assert shop.lists() == [(id, 2), (id, 1), (id, 1)]
    since = str(shop.clock.now_ms() - 34 * DAY_MS)
    told = list_changes(shop.context, shop.request(id=id, since=since)).body["data"]["attributes"]
    assert (told["entered"]["count"], told["left"]["count"]) == (0, 0)
    delete_segment(shop.context, shop.request(id=id))
    assert shop.lists() == []


def test_no_snapshots_where_none_are_wanted(shop: Shop) -> None:
    shop.context = replace(shop.context, limits=replace(shop.context.limits, segment_snapshots_days=0))
    shop.create("two", "user_id:(u0 OR u1)")
    renew_snapshots(shop.context)
    assert shop.lists() == []


def test_a_segment_that_cannot_be_read_any_more_keeps_the_others_from_nothing(shop: Shop) -> None:
    first, second = shop.create("a", "u*"), shop.create("b", "*")
    shop.context.store.change_segment(
        first, lambda s: replace(s, data_query='{"profiles":[{"name":"p","query":"first_seen:>abc"}]}', version=2)
    )
    shop.clock.days = 1
    renew_snapshots(shop.context)
    assert [id for id, _ in shop.lists()].count(second) == 2
    assert [id for id, _ in shop.lists()].count(first) == 1


def test_a_list_that_nobody_names_is_left_for_a_day(shop: Shop) -> None:
    """It may just be being made; a crash on the way leaves such ones."""
    shop.context.lists.keep_keys("orphan", Entity.USERS, ["u0"], shop.clock.now_ms())
    id = shop.fix("one", "u0")
    renew_snapshots(shop.context)
    assert ("orphan", 1) in shop.lists()
    shop.clock.days = 1.5
    renew_snapshots(shop.context)
    assert [name for name, _ in shop.lists()].count("orphan") == 0
    assert len(shop.lists()) == 3, "two snapshots, and the list itself"
    delete_segment(shop.context, shop.request(id=id))
    assert shop.lists() == []


def test_an_erased_user_is_on_no_list(shop: Shop) -> None:
    shop.fix("one", "u0", "u1", "gone")
    dry = erase_user(shop.context, shop.request(id="u0", dry_run="true")).body["data"]["attributes"]["counts"]
    assert dry["list_entries"] == 2
    assert sorted(count for _, count in shop.lists()) == [2, 3]
    erase_user(shop.context, shop.request(id="u0"))
    assert sorted(count for _, count in shop.lists()) == [1, 2]
