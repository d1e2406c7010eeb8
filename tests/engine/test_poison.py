"""No event can hold up the others, whatever is wrong with it, nor take the place of another."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from roster.base.time import instant
from roster.engine.connection import Duck, DuckLimits
from roster.engine.events import DuckEvents
from roster.engine.retention import forget
from roster.intake.arrival import Arrival
from roster.intake.buffer import Applier, EventLog
from roster.intake.decode import origin_of, rum_events
from roster.intake.event import canonical_events
from roster.intake.traces import Person
from roster.model.schema import Entity, Type
from roster.ports import Applied

NOW_MS = 1_772_614_800_000


class Product:
    """A log and an engine, as a server has them."""

    def __init__(self, folder: Path) -> None:
        self.duck = Duck(folder / "roster.duckdb", DuckLimits("500MB", 1, "1GB"))
        self.events = DuckEvents(self.duck, lambda *_: None)
        self.log = EventLog(folder / "log", after=0)
        self.applier = Applier(self.log, self.events, lambda: NOW_MS)

    def send(self, *events: dict[str, Any], user_agent: str = "", source: str = "") -> None:
        body = b"\n".join(json.dumps({"date": NOW_MS, "session": {"id": "s"}} | event).encode() for event in events)
        arrival = Arrival(body, NOW_MS, user_agent=user_agent, source=source)
        batch, _ = rum_events(arrival, origin_of(arrival, keep_ms=10**12, place={}, keep_ip=False))
        assert batch.rejected == []
        self.log.append(batch.lines)
        self.applier.flush()

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        connection = self.duck.cursor()
        try:
            return connection.execute(sql).fetchall()
        finally:
            connection.close()


@pytest.fixture
def product(tmp_path: Path) -> Iterator[Product]:
    product = Product(tmp_path)
    yield product
    product.log.close()
    product.duck.close()


def update(version: int, **more: Any) -> dict[str, Any]:
    return {"type": "view_update", "_dd": {"document_version": version}} | {"view": {"id": "v"}} | more


@pytest.mark.parametrize(
    "wrong",
    [
        {"view": {"id": "v", "time_spent": "abc", "loading_time": [1]}},
        {"device": None},
        {"device": 5, "os": "x", "geo": [1], "usr": 7},
        {"usr": {"id": "u", "name": {"a": 1}, "email": [1]}},
        {"account": None, "action": "x", "_dd": {"document_version": 3, "page_states": "x"}},
    ],
)
def test_wrong_types_in_parts_of_views_hold_up_nothing(product: Product, wrong: dict[str, Any]) -> None:
    product.send(update(3, **wrong), user_agent="weird/1.0")
    product.send({"type": "view", "view": {"id": "after"}, "usr": {"id": "after"}})
    assert product.log.pending() == []
    assert product.rows("SELECT view_id FROM events WHERE type = 'view' ORDER BY 1") == [("after",), ("v",)]
    assert product.rows("SELECT user_name, user_email FROM events WHERE view_id = 'v' AND type = 'view'") == [
        (None, None)
    ]


class Failing:
    """An engine that falls over one line in a way that nobody foresaw."""

    def __init__(self) -> None:
        self.stored: list[bytes] = []

    def apply_segment(self, number: int, path: Path) -> Applied:
        lines = path.read_bytes().splitlines()
        if b"poison" in lines:
            raise TypeError("nobody foresaw this")
        self.stored += lines
        return Applied(len(lines), 0)

    def settle(self, now_ms: int) -> None:
        """There are no sessions here."""


def test_a_fault_of_ours_costs_one_event_not_the_rest(tmp_path: Path) -> None:
    events, log = Failing(), EventLog(tmp_path / "log", after=0)
    applier = Applier(log, events, lambda: NOW_MS)  # type: ignore[arg-type]
    log.append([b"a", b"b", b"poison", b"c"])
    for _ in range(4):
        with pytest.raises(TypeError):
            applier.flush()
    applier.flush()
    assert sorted(events.stored) == [b"a", b"b", b"c"]
    (kept,) = (tmp_path / "log" / "rejected").iterdir()
    assert kept.read_bytes() == b"poison\n"


def test_account_and_flags_of_a_view_are_added_to(product: Product) -> None:
    whole = {"type": "view", "_dd": {"document_version": 1}, "view": {"id": "v"}, "feature_flags": {"a": True}}
    product.send(whole | {"account": {"id": "acme", "name": "Acme", "tier": "a"}})
    product.send(update(2, account={"tier": "b"}, feature_flags={"b": True}))
    ((account, rest),) = product.rows("SELECT account_id, rest::JSON::VARCHAR FROM events WHERE type = 'view'")
    assert account == "acme"
    assert json.loads(rest)["account"] == {"tier": "b"}
    assert json.loads(rest)["feature_flags"] == {"a": True, "b": True}


def test_an_identity_goes_with_the_version_that_said_it(product: Product) -> None:
    view = {"type": "view", "view": {"id": "v"}}
    product.send(view | {"_dd": {"document_version": 1}, "usr": {"id": "a", "anonymous_id": "A"}})
    product.send({"type": "action", "action": {"id": "x"}, "usr": {"anonymous_id": "A"}})
    assert product.rows("SELECT events_count FROM users WHERE user_id = 'a'") == [(2,)]
    product.send(view | {"_dd": {"document_version": 2}, "usr": {"id": "b", "anonymous_id": "B"}})
    assert product.rows("SELECT * EXCLUDE (since) FROM identities") == [("B", "b")]
    assert product.rows("SELECT user_id, events_count FROM users") == [("b", 1)]


def test_an_erase_finds_the_person_in_parts_of_views(product: Product) -> None:
    view = {"type": "view", "view": {"id": "v"}, "_dd": {"document_version": 1}}
    product.send(view | {"usr": {"id": "old", "email": "old@x", "anonymous_id": "A"}})
    product.send(update(2, usr={"id": "new"}))
    erased = product.events.erase_user("old")
    assert erased.emails == ("old@x",)
    assert "old" not in str(product.rows("SELECT line::VARCHAR FROM view_parts"))


def test_a_session_that_goes_on_past_the_bound_is_made_again(product: Product) -> None:
    for hours, id in ((30, "a"), (0, "b")):
        product.send({"type": "view", "date": NOW_MS - hours * 3_600_000, "view": {"id": id}})
    forget(product.duck, instant(NOW_MS - 20 * 3_600_000), lambda *_: None)
    product.events.settle(NOW_MS)
    assert product.rows("SELECT epoch_ms(time) FROM events WHERE type = 'session'") == [(NOW_MS,)]


def test_server_events_take_no_place_of_others(product: Product) -> None:
    server = {"type": "server", "application": {"id": "x"}, "event": {"name": "n", "id": "view:v"}, "usr": {"id": "u"}}
    body = json.dumps([server]).encode()
    product.log.append(canonical_events(body, received_ms=NOW_MS, new_id=lambda: "new").lines)
    product.send({"type": "view", "view": {"id": "v"}})
    assert product.rows("SELECT event_id FROM events ORDER BY 1")[:2] == [("event:view:v",), ("session:s",)]


def test_traits_are_few_and_have_names_of_a_kind(product: Product) -> None:
    view = {"type": "view", "view": {"id": "v"}}
    product.send(view | {"usr": {"id": "u", "email": 5} | {f"k{n}": n for n in range(1500)}})
    product.send(view | {"view": {"id": "w"}, "usr": {"id": "w", "plan": "pro", "x" * 201: 1, "": 1}})
    assert product.events.read_traits(Entity.USERS) == {"plan": Type.STRING}


def test_a_number_is_an_id_only_where_ids_stand() -> None:
    person = Person.known_by(["2"], [])
    assert not person.is_in(b'{"_dd":{"format_version":2}}')
    assert person.is_in(b'{"usr":{"id":2}}')
    assert person.is_in(b'{"usr":{"id":"2"}}')


def test_an_app_is_no_browser_when_only_its_address_says_so(product: Product) -> None:
    product.send({"type": "view", "view": {"id": "v"}}, user_agent="Shop/1.0 CFNetwork/1 Darwin/1", source="ios")
    assert product.rows("SELECT browser_name FROM events WHERE type = 'view'") == [(None,)]
