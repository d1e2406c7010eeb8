"""Kills the server again and again while SDKs send what people do: after all retries each thing is there once."""

from __future__ import annotations

import gzip
import hashlib
import json
import random
import re
import threading
import time
import zlib
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote
from uuid import UUID

import pytest
import zstandard

from e2e.test_crash import KILLS, SEED, SETTINGS, WAIT_S, WRITERS, ask, kill_among, query, start_again, writers
from servers import Answered, Server

pytestmark = pytest.mark.e2e

Event = dict[str, Any]
PACKINGS = {"gzip": gzip.compress, "deflate": zlib.compress, "zstd": zstandard.compress}
VIEWS_MAX = 4
LOADING_NS = 12_000_000_000
"""Loading time of a view, times its version: the mean over up to four views is a whole number."""


@dataclass(frozen=True)
class Batch:
    """One request, which a client sends again until it is answered."""

    path: str
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True)
class Counts:
    """What a user's profile must say when all batches of a visit are there, each event once."""

    session_count: int
    view_count: int
    action_count: int
    error_count: int
    avg_loading_time: int
    events_count: int


@dataclass(frozen=True)
class Visit:
    """What one user does in one session: the requests of it, and what it comes to."""

    user: str
    batches: list[Batch]
    counts: Counts


# what people do


@dataclass
class Page:
    """The SDK of one visitor: views that grow, and what has happened since the last batch."""

    dice: random.Random
    user: str
    now_ms: int
    token: str
    known: bool = False
    versions: dict[str, int] = field(default_factory=dict)
    counted: dict[str, int] = field(default_factory=lambda: dict.fromkeys(["action", "error", "resource", "server"], 0))

    def __post_init__(self) -> None:
        self.session, self.anonymous, self.view = self.new_id(), self.new_id(), ""

    def new_id(self) -> str:
        return str(UUID(int=self.dice.getrandbits(128), version=4))

    def person(self) -> dict[str, Any]:
        signed_in = {"id": self.user, "name": "Jane", "email": f"{self.user}@shop.example", "seats": 5}
        return {"anonymous_id": self.anonymous} | (signed_in if self.known else {})

    def event(self, kind: str, view: str, **more: Any) -> Event:
        self.now_ms += 1
        event = {
            "type": kind,
            "date": self.now_ms,
            "application": {"id": "11111111-2222-3333-4444-555555555555"},
            "source": "browser",
            "session": {"id": self.session, "type": "user"},
            "view": {"id": view, "url": f"https://shop.example/item/{self.dice.randrange(99)}", "referrer": ""},
            "usr": self.person(),
            "_dd": {"format_version": 2, "drift": 0},
        }
        return event | more

    def grow(self, view: str) -> Event:
        """The next version of a view."""
        self.versions[view] = version = self.versions.get(view, 0) + 1
        event = self.event("view", view)
        event["view"] |= {"time_spent": version * 1_000_000, "loading_time": version * LOADING_NS, "is_active": True}
        event["view"] |= {"action": {"count": version}, "error": {"count": 0}, "resource": {"count": 0}}
        event["_dd"]["document_version"] = version
        return event

    def do(self) -> Event:
        """One thing that happens in the view at hand."""
        kind = self.dice.choice(["action", "action", "error", "resource"])
        self.counted[kind] += 1
        what = {
            "action": {"type": "custom", "target": {"name": "checkout"}},
            "error": {"message": "card refused", "source": "custom", "handling": "handled"},
            "resource": {"type": "fetch", "url": "https://shop.example/api", "duration": 5_000_000},
        }[kind]
        note = {"note": "x" * self.dice.choice([0, 10, 2000])}
        return self.event(kind, self.view, context=note, **{kind: {"id": self.new_id()} | what})

    def flush(self) -> Batch:
        """What happened since the last batch, then every view that changed, each in its last state."""
        happened, changed = [], {}
        for _ in range(self.dice.choice([1, 1, 2, 5, 20, 60])):
            if not self.view or (len(self.versions) < VIEWS_MAX and self.dice.random() < 0.1):
                self.view = self.new_id()
                changed[self.view] = self.grow(self.view)
            happened.append(self.do())
            changed[self.view] = self.grow(self.view)
        if self.dice.random() < 0.3:
            earlier = self.dice.choice(list(self.versions))
            changed[earlier] = self.grow(earlier)
        lines = [json.dumps(event) for event in [*happened, *changed.values()]]
        if self.dice.random() < 0.2:
            lines.insert(self.dice.randrange(len(lines)), self.dice.choice(['{"type": "telemetry"}', '{"type": "vi']))
        return self.pack("\n".join(lines).encode())

    def pack(self, body: bytes) -> Batch:
        """As browsers send it, straight or through a proxy, or as mobile SDKs do."""
        form = self.dice.choice(["plain", "packed", "forwarded", *PACKINGS])
        if form in PACKINGS:
            headers = {"DD-API-KEY": self.token, "Content-Encoding": form, "Content-Type": "text/plain;charset=UTF-8"}
            key = {"DD-IDEMPOTENCY-KEY": hashlib.sha1(body).hexdigest()}
            return Batch("/api/v2/rum?ddsource=android", headers | key, PACKINGS[form](body))
        path = f"/api/v2/rum?ddsource=browser&dd-api-key={self.token}&dd-request-id={self.new_id()}"
        if form != "plain":
            path += "&dd-evp-encoding=deflate"
            body = zlib.compress(body)
        path += f"&batch_time={self.now_ms}&_dd.api=fetch"
        path = f"/any/path?ddforward={quote(path, safe='')}" if form == "forwarded" else path
        return Batch(path, {"Content-Type": "text/plain;charset=UTF-8"}, body)

    def serve(self) -> Batch:
        """What a server has to say of the user."""
        self.counted["server"] += 1
        event = {"type": "server", "application": {"id": "shop"}, "usr": {"id": self.user}}
        event |= {"event": {"name": "paid", "id": self.new_id()}, "session": {"id": self.session}}
        headers = {"DD-API-KEY": self.token, "Content-Type": "application/json"}
        return Batch("/api/v2/prodlytics", headers, json.dumps(event).encode())


def make_visit(dice: random.Random, user: str, now_ms: int, token: str) -> Visit:
    """Somebody comes, does things unknown, signs in at some time, and does more."""
    page = Page(dice, user, now_ms, token)
    batches = []
    for _ in range(dice.randrange(4)):
        batches.append(page.flush())
    page.known = True
    for _ in range(dice.randrange(1, 5)):
        batches.append(page.flush())
        if dice.random() < 0.2:
            batches.append(page.serve())
    versions, counted = page.versions, page.counted
    loading_ns = sum(versions.values()) * LOADING_NS // len(versions)
    events = len(versions) + sum(counted.values())
    return Visit(user, batches, Counts(1, len(versions), counted["action"], counted["error"], loading_ns, events))


# who sends it


@dataclass
class Ledger:
    """Every visit begun, and the batches of it that nobody has answered yet, in their order."""

    token: str
    visits: dict[str, Counts] = field(default_factory=dict)
    left: list[list[Batch]] = field(default_factory=list)
    taken: int = 0
    turn: threading.Lock = field(default_factory=threading.Lock)

    def note(self, answer: Answered | None) -> bool:
        if answer is None:
            return False
        assert answer.status == 202, answer
        with self.turn:
            self.taken += 1
        return True


def post(server: Server, batch: Batch) -> Answered | None:
    return ask(server, "POST", batch.path, batch.body, batch.headers, keys=False)


def send_visits(server: Server, ledger: Ledger, dice: random.Random, name: str) -> None:
    """One visit after the other until the server is gone; some batches arrive twice, the second time late."""
    for n in range(1_000_000):
        visit = make_visit(dice, f"{name}-{n}", time.time_ns() // 1_000_000 - 1_000, ledger.token)
        ledger.visits[visit.user] = visit.counts
        late = [batch for batch in visit.batches if dice.random() < 0.1]
        todo = [*visit.batches, *late]
        for i, batch in enumerate(todo):
            if not ledger.note(post(server, batch)):
                with ledger.turn:
                    ledger.left.append(todo[i:])
                return


def send_again(server: Server, ledger: Ledger, dice: random.Random) -> None:
    """What SDKs do with a batch that nobody answered: they send it again, some twice, and go on with the visit."""
    left, ledger.left = ledger.left, []
    for unanswered, *rest in left:
        for batch in [unanswered] * dice.choice([1, 2]) + rest:
            assert ledger.note(post(server, batch))


# what must be there


def counts_of(server: Server, name: str) -> dict[str, Counts]:
    columns = list(Counts.__dataclass_fields__)
    found = query(server, query=f"user_id:{name}-*", select_columns=["user_id", *columns])
    assert len(found["hits"]) == found["total"] <= 10_000
    return {hit["user_id"]: Counts(*(hit[column] for column in columns)) for hit in found["hits"]}


def check(server: Server, ledger: Ledger, rounds: range) -> None:
    """Every user's profile says what the visit came to, no more and no less."""
    deadline_s = time.monotonic() + WAIT_S
    for name in writers(rounds):
        wanted = {user: counts for user, counts in ledger.visits.items() if user.startswith(f"{name}-")}
        while (found := counts_of(server, name)) != wanted and time.monotonic() < deadline_s:
            time.sleep(0.05)
        assert found.keys() == wanted.keys()
        wrong = {u: (asdict(found[u]), asdict(c)) for u, c in wanted.items() if found[u] != c}
        assert wrong == {}, f"{len(wrong)} of {len(wanted)} users: found, wanted"


def users_who(server: Server, search: str) -> set[str]:
    now_s = int(time.time())
    event_query = {"query": search, "time_frame": {"start": now_s - 86_400, "end": now_s + 60}}
    asked = {"event_query": event_query, "select_columns": ["user_id"], "limit": 10_000}
    body = {"data": {"type": "query_event_filtered_users_request", "attributes": asked}}
    answer = server.ask("POST", "/api/v2/product-analytics/users/event_filtered_query", body)
    assert answer.status == 200, answer.body
    return {hit["user_id"] for hit in answer.json()["data"]["attributes"]["hits"]}


def check_sessions(server: Server, ledger: Ledger, rounds: range) -> None:
    """Every visit is one session that has counted what is in it."""
    deadline_s = time.monotonic() + WAIT_S
    for name in writers(rounds):
        for views in range(1, VIEWS_MAX + 1):
            search = f"@type:session @usr.id:{name}-* @session.view.count:{views}"
            mine = {user: counts for user, counts in ledger.visits.items() if user.startswith(f"{name}-")}
            wanted = {user for user, counts in mine.items() if counts.view_count == views}
            while (found := users_who(server, search)) != wanted and time.monotonic() < deadline_s:
                time.sleep(0.05)
            assert found == wanted, (name, views)


def test_each_event_survives_kills_and_retries_once(tmp_path: Path) -> None:
    print(f"ROSTER_SEED={SEED} ROSTER_KILLS={KILLS}")
    dice = random.Random(SEED)
    server = Server(tmp_path, **SETTINGS)
    token = server.cli("key", "create", "client", "--name", "sdk").split("secret")[1].split()[0]
    ledger = Ledger(token)
    server.start()
    try:
        for number in range(KILLS):
            enough = ledger.taken + dice.randrange(1, 400)
            work = [
                partial(send_visits, server, ledger, random.Random(dice.random()), name)
                for name in writers(range(number, number + 1))
            ]
            kill_among(server, work, lambda enough=enough: ledger.taken >= enough)
            assert len(ledger.left) == WRITERS
            start_again(server, dice)
            send_again(server, ledger, dice)
            check(server, ledger, range(number, number + 1))
            check_sessions(server, ledger, range(number, number + 1))
        check(server, ledger, range(KILLS))
        server.stop()
        stored = re.search(r"^events +([0-9,]+)$", server.cli("check"), re.MULTILINE)
        assert stored, "the events themselves are counted, not only the counters of profiles"
        sent = sum(counts.events_count + counts.session_count for counts in ledger.visits.values())
        assert stored[1] == f"{sent:,}"
        print(f"{stored[1]} events of {len(ledger.visits):,} visits in {ledger.taken:,} answered requests")
    finally:
        server.stop()
