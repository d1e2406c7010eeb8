"""The official browser SDK in a real browser, against a real server: what people did is there, each thing once."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import time
import zlib
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

from node_packages import install
from proxy import Passed, Tap, tapped
from servers import Server
from tables import make

pytestmark = [pytest.mark.e2e, pytest.mark.xdist_group("browser")]

PAGE = Path(__file__).parent.parent / "browser"
BASE = "/api/v2/product-analytics"
DRIVE_TIMEOUT_S = 120.0
WAIT_S = 60.0
"""How long what was acknowledged may take to be seen before the test gives up."""

AGENT = (
    "Mozilla/5.0 (Linux; Android 14; Pixel 8) AppleWebKit/537.36 (KHTML, like Gecko) "
    "Chrome/141.0.7390.43 Mobile Safari/537.36"
)


@dataclass
class Visit:
    """One person's visit to the page. A direct one talks to the server, the others to a tap before it."""

    name: str
    version: int
    form: str = "string"
    compress: bool = False
    direct: bool = False
    lost: int = 0
    tap: Tap | None = None
    seen: dict[str, Any] = field(default_factory=dict)

    @property
    def email(self) -> str:
        return f"{self.name}@shop.example"

    @property
    def knows_anonymous(self) -> bool:
        """Older versions send nothing by which what came before signing in could be given to its user."""
        return self.version >= 6

    def requests(self) -> list[Passed]:
        assert self.tap
        return self.tap.passed

    def told(self, url: str, token: str) -> dict[str, Any]:
        """What the page and its driver are told."""
        return {
            "name": self.name,
            "version": self.version,
            "proxy": url + ("/any/path" if self.form == "string" else ""),
            "proxyForm": self.form,
            "compress": self.compress,
            "token": token,
            "lost": self.lost,
            # As people type it: joins by e-mail look through letter case.
            "user": {"id": self.name, "name": "Jane Doe", "email": self.email.title(), "plan": "pro", "seats": 5},
            "account": {"id": "acme", "name": "Acme", "tier": "gold"},
        }


VISITS = {
    v.name: v
    for v in (
        Visit("v7-plain", 7),
        Visit("v7-direct", 7, form="function", compress=True, direct=True),
        Visit("v7-packed", 7, compress=True),
        Visit("v7-lost", 7, form="function", lost=1),
        Visit("v7-packed-lost", 7, compress=True, lost=2),
        Visit("v6-plain", 6),
        Visit("v6-packed", 6, form="function", compress=True),
        Visit("v5-plain", 5, form="function"),
        Visit("v5-packed", 5, compress=True),
        Visit("v4-plain", 4),
    )
}
TAPPED = [name for name, visit in VISITS.items() if not visit.direct]


@dataclass
class Shop:
    """The server after all visits."""

    server: Server
    token: str
    began_s: int

    def ask(self, what: str, **attributes: Any) -> dict[str, Any]:
        kind = {"users/query": "query_users_request", "accounts/query": "query_account_request"}[what]
        body = {"data": {"type": kind, "attributes": attributes}}
        answer = self.server.ask("POST", f"{BASE}/{what}", body)
        assert answer.status == 200, answer.body
        found: dict[str, Any] = answer.json()["data"]["attributes"]
        return found

    def profile(self, name: str, *columns: str) -> dict[str, Any]:
        (hit,) = self.ask("users/query", query=f"user_id:{name}", select_columns=["user_id", *columns])["hits"]
        assert isinstance(hit, dict)
        return hit

    def users_who(self, search: str) -> set[str]:
        """The users with an event that the search finds."""
        frame = {"start": self.began_s - 60, "end": int(time.time()) + 60}
        asked = {"event_query": {"query": search, "time_frame": frame}, "select_columns": ["user_id"]}
        body = {"data": {"type": "query_event_filtered_users_request", "attributes": asked}}
        answer = self.server.ask("POST", f"{BASE}/users/event_filtered_query", body)
        assert answer.status == 200, answer.body
        return {hit["user_id"] for hit in answer.json()["data"]["attributes"]["hits"]}


def find_browser() -> str:
    """The browser's program. Without it the tests are left out, unless everything must be there."""
    found = shutil.which("chromium")
    if found is not None and shutil.which("npm") is not None:
        return found
    if os.environ.get("CI") == "true" and os.environ.get("ROSTER_NEED_SERVICES") == "1":
        raise AssertionError("chromium or npm is not installed")
    pytest.skip("chromium or npm is not installed")


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    """All visits at once, in one browser, and everything applied that was acknowledged."""
    browser, folder = find_browser(), install(PAGE)
    with ExitStack() as stack:
        server = stack.enter_context(Server(tmp_path_factory.mktemp("browser")))
        token = server.cli("key", "create", "client", "--name", "browser").split("secret")[1].split()[0]
        began_s = int(time.time())
        told = []
        for visit in VISITS.values():
            if not visit.direct:
                visit.tap = stack.enter_context(tapped(server.port, Tap(visit.lost)))
            told.append(visit.told(visit.tap.url if visit.tap else server.url, token))
        done = subprocess.run(
            ["node", str(folder / "drive.mjs"), browser, AGENT],
            input=json.dumps(told), capture_output=True, text=True, timeout=DRIVE_TIMEOUT_S, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        for seen in json.loads(done.stdout):
            VISITS[seen["name"]].seen = seen
        shop = Shop(server, token, began_s)
        wait(shop)
        yield shop


def wait(shop: Shop) -> None:
    """Until the last thing that every page did is in its user's profile."""
    deadline_s = time.monotonic() + WAIT_S
    while time.monotonic() < deadline_s:
        hits = shop.ask("users/query", query="view_count:3 error_count:1", select_columns=["user_id"])["hits"]
        if {hit["user_id"] for hit in hits} == VISITS.keys():
            return
        time.sleep(0.1)
    everything = shop.ask("users/query", select_columns=["user_id", "view_count", "error_count"])
    raise AssertionError(f"not all came: {everything}\n{shop.server.log()[-3000:]}")


def target(request: Passed) -> tuple[str, dict[str, list[str]]]:
    """The path and parameters that the SDK meant, direct or forwarded."""
    asked = urlsplit(request.path)
    forward = parse_qs(asked.query).get("ddforward")
    if forward:
        asked = urlsplit(forward[0])
    return asked.path, parse_qs(asked.query)


def events_of(visit: Visit) -> list[dict[str, Any]]:
    """All events that the SDK sent, those sent again included."""
    lines = []
    for request in visit.requests():
        packed = target(request)[1].get("dd-evp-encoding") == ["deflate"]
        body = zlib.decompress(request.body) if packed else request.body
        lines += body.decode().split("\n")
    return [json.loads(line) for line in lines]


def identity(event: dict[str, Any]) -> tuple[str, str]:
    return event["type"], event[event["type"]]["id"]


# what the browser saw


@pytest.mark.parametrize("name", VISITS)
def test_the_browser_saw_no_trouble(shop: Shop, name: str) -> None:
    visit = VISITS[name]
    lost = [line for line in visit.seen["console"] if "503" in line]
    assert len(lost) == visit.lost, "the browser shows the answers that got lost"
    assert [line for line in visit.seen["console"] if line not in lost] == []
    statuses = [answer["status"] for answer in visit.seen["answered"]]
    assert sorted(statuses) == [202] * (len(statuses) - visit.lost) + [503] * visit.lost
    # Leaving the page ends the reading of answers whose status it had, nothing else.
    broken = [failed for failed in visit.seen["failed"] if failed["why"] != "net::ERR_ABORTED"]
    assert broken == []
    answered = {answer["url"] for answer in visit.seen["answered"]}
    assert {asked["url"] for asked in visit.seen["asked"]} <= answered


@pytest.mark.parametrize("name", TAPPED)
def test_every_request_is_taken_without_a_question_before(shop: Shop, name: str) -> None:
    visit = VISITS[name]
    requests = visit.requests()
    assert [r.verb for r in requests if r.verb != "POST"] == [], "no preflight"
    assert {r.stored for r in requests} == {202}
    assert [r.told for r in requests if r.told != 202] == [503] * visit.lost
    for request in requests:
        path, parameters = target(request)
        assert path == "/api/v2/rum"
        assert parameters["dd-api-key"] == [shop.token]
        assert ("ddforward" in request.path) == (visit.form == "string")
        assert request.headers["origin"].startswith("http://127.0.0.1:")
        assert "content-encoding" not in request.headers
    packed = ["dd-evp-encoding" in target(r)[1] for r in requests]
    assert any(packed) == visit.compress
    words = [unquote(unquote(r.path)) for r in requests]
    ways = {found[1] for word in words if (found := re.search(r"api[=:](\w+)", word))}
    assert "beacon" in ways
    assert ways & {"fetch", "xhr"}


@pytest.mark.parametrize("name", TAPPED)
def test_a_batch_whose_answer_was_lost_came_again(shop: Shop, name: str) -> None:
    visit = VISITS[name]
    sent = [identity(event) for event in events_of(visit) if event["type"] != "view"]
    assert (len(sent) > len(set(sent))) == bool(visit.lost)


# what came of it


@pytest.mark.parametrize("name", VISITS)
def test_the_profile(shop: Shop, name: str) -> None:
    visit = VISITS[name]
    wanted = {
        "user_id": name,
        "user_email": visit.email.title(),
        "user_name": "Jane Doe",
        "first_browser_name": "Chrome Mobile",
        "last_browser_name": "Chrome Mobile",
        "last_os_name": "Android",
        "last_os_version": "14",
        "last_device_type": "mobile",
        "session_count": 1,
        "view_count": 3,
        "action_count": 4 if visit.knows_anonymous else 3,
        "error_count": 1,
    }
    profile = shop.profile(name, *wanted, "first_seen", "last_seen")
    first, last = profile.pop("first_seen"), profile.pop("last_seen")
    assert profile == wanted
    began = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(shop.began_s))
    assert began <= first < last


def test_what_the_page_said_of_people_is_in_their_profiles(shop: Shop) -> None:
    found = shop.ask("users/query", query="@usr.plan:pro @usr.seats:>=5", select_columns=["user_id", "@usr.seats"])
    assert {hit["user_id"]: hit["@usr.seats"] for hit in found["hits"]} == dict.fromkeys(VISITS, 5)


@pytest.mark.parametrize("name", TAPPED)
def test_each_event_is_there_once(shop: Shop, name: str) -> None:
    visit = VISITS[name]
    mine = [e for e in events_of(visit) if "id" in e.get("usr", {}) or visit.knows_anonymous]
    counts = shop.profile(name, "events_count", "view_count", "action_count", "error_count")
    ids = {identity(event) for event in mine}
    assert counts == {
        "user_id": name,
        "events_count": len(ids),
        "view_count": len([id for id in ids if id[0] == "view"]),
        "action_count": len([id for id in ids if id[0] == "action"]),
        "error_count": len([id for id in ids if id[0] == "error"]),
    }


@pytest.mark.parametrize(
    "search",
    [
        '@view.url_path_group:"/dashboard/?"',
        '@view.url_path_group:"/orders/?/items/?"',
        '@view.url_path:"/dashboard/123"',
        "@view.url_query.utm_source:mail @view.url_query.utm_campaign:spring",
        "@view.url_hash:offers",
        '@type:action @action.name:"Click on Add to cart"',
        "@action.name:checkout @context.cart.value:>40 @context.cart.items:3",
        '@type:error @error.message:"card refused" @context.step:pay',
        "@usr.plan:pro @usr.seats:5",
        "@service:shop-web @env:test @version:1.2.3",
        "@browser.version_major:141 @device.brand:Google @device.model:Pixel*",
        "@type:session @session.view.count:3 @session.error.count:1",
    ],
)
def test_users_are_found_by_what_they_did(shop: Shop, search: str) -> None:
    assert shop.users_who(search) == set(VISITS)


def test_what_came_before_signing_in_is_the_users(shop: Shop) -> None:
    known = {name for name, visit in VISITS.items() if visit.knows_anonymous}
    assert shop.users_who('@action.name:"looked around"') == known


def test_the_account(shop: Shop) -> None:
    known = {name for name, visit in VISITS.items() if visit.version >= 6}
    assert shop.users_who("@account.id:acme @account.tier:gold") == known
    (hit,) = shop.ask("accounts/query", select_columns=["account_id", "account_name", "user_count"])["hits"]
    assert hit == {"account_id": "acme", "account_name": "Acme", "user_count": len(known)}


def test_users_are_found_by_what_the_crm_knows_of_their_email(shop: Shop) -> None:
    """The main job: one connection, and a person of the page is found by an attribute of the CRM."""
    gold = ["v7-plain", "v4-plain"]
    lines = [f"{VISITS[name].email},{'gold' if name in gold else 'iron'}" for name in VISITS]
    make(shop.server, "crm", "\n".join(["email,tier", *lines, ""]))
    attributes = {
        "type": "ref_table",
        "join_type": "email",
        "join_attribute": "email",
        "fields": [{"id": "customer_tier", "source_name": "tier", "type": "string"}],
    }
    body = {"data": {"type": "connection_id", "id": "crm", "attributes": attributes}}
    assert shop.server.ask("POST", f"{BASE}/users/mapping/connection", body).status == 201
    deadline_s = time.monotonic() + WAIT_S
    while not shop.ask("users/query", query="@customer_tier:gold")["total"] and time.monotonic() < deadline_s:
        time.sleep(0.1)
    found = shop.ask("users/query", query="@customer_tier:gold", select_columns=["user_id", "customer_tier"])
    assert {hit["user_id"]: hit["customer_tier"] for hit in found["hits"]} == dict.fromkeys(gold, "gold")
    assert shop.users_who("@action.name:checkout @customer_tier:gold") == set(gold)


def test_the_token_is_in_no_log(shop: Shop) -> None:
    assert shop.token not in shop.server.log()
