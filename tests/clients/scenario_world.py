"""Makes the world that the upstream scenarios ask about, so that their answers hold real values; asks no question."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from time import monotonic, sleep
from typing import Any

from servers import Server
from tables import make

USERS = "/api/v2/product-analytics/users"
JOURNEYS_MS = 1_756_425_600_000
"""Friday 2025-08-29, where the published journeys, retentions and sankeys begin."""
VIEWS_MS = 1_771_300_000_000
"""Within the published range of the plain analyses."""
SLOW_MS = 1_760_200_000_000
"""Within the published range of users filtered by events."""
MINUTE_MS = 60_000
DAY_MS = 86_400_000
CROWD = 101
"""The published query of accounts wants more than 100 users."""
COUNTRIES = ("FR", "US", "US", "JP")
PAGES = ("Login", "Home", "Prices", "Cart")
WAIT_S = 60.0
PERSON = {
    "application": {"id": "shop", "name": "ecommerce-platform"},
    "account": {"id": "acme", "name": "Acme Tech"},
    "geo": {"country": "United States", "country_iso_code": "US"},
    "browser": {"name": "Chrome", "version": "142"},
    "device": {"type": "Desktop"},
}
LINKS: tuple[tuple[str, str, str, dict[str, str]], ...] = (
    ("users", "scenario_people", "user_id", {"user_org_id": "string", "geo.country": "string"}),
    (
        "accounts",
        "scenario_firms",
        "account_id",
        {
            "plan_type": "string",
            "subscription_status": "string",
            "mrr": "number",
            "user_org_id": "string",
            "first_country_code": "string",
            "first_browser_name": "string",
        },
    ),
)
"""Connections beside the published one: entity, table, attribute joined by, fields with their types."""


def fill(server: Server) -> str:
    """People, accounts, their events and tables; gives the id of a segment for the published placeholder."""
    events = [*visits(), *slow_views()]
    body = "\n".join(json.dumps(event) for event in events).encode()
    assert server.ask("POST", "/api/v2/rum?ddsource=browser", body).status == 202
    rows = [f"u{n},5001,{COUNTRIES[n % 4]}" for n in range(CROWD)]
    make(server, "scenario_people", "\n".join(["user_id,user_org_id,geo.country", *rows]) + "\n")
    columns = ",".join(["account_id", *LINKS[1][3]])
    make(server, "scenario_firms", f"{columns}\nacme,enterprise,active,1250.5,5001,US,Chrome\n")
    crm = "user_email,subscription_tier,ltv,net_promoter_score\njohn@techcorp.com,gold,1200.5,9\n"
    make(server, "crm_integration", crm)
    for entity, table, key, fields in LINKS:
        connect(server, entity, table, key, fields)
    await_users(server)
    searched = {"name": "trial", "data_query": {"profiles": [{"name": "a", "query": "user_id:u3"}]}}
    made = server.ask("POST", "/api/v2/rum/segment", {"data": {"type": "segment", "attributes": searched}})
    assert made.status in (200, 201), made
    return str(made.json()["data"]["id"])


def event(n: int, at_ms: int, type: str, id: str, **more: Any) -> dict[str, Any]:
    """One event of user n; more of the view is merged into it."""
    email = "john@techcorp.com" if n == 0 else f"u{n}@techcorp.com"
    view = {"id": id, "url": "https://shop.example/"} | more.pop("view", {})
    person = {"usr": {"id": f"u{n}", "email": email, "name": "John North" if n == 0 else f"User {n}"}}
    day = at_ms // DAY_MS
    return PERSON | person | {"type": type, "date": at_ms, "session": {"id": f"s{n}-{day}"}, "view": view} | more


def visits() -> Iterator[dict[str, Any]]:
    """Twelve users log in; two of three go on to submit, within a minute; half of them come back a week later."""
    for n in range(12):
        for day in (0, 3)[: 1 + n % 2]:
            began_ms = JOURNEYS_MS + day * DAY_MS + n * MINUTE_MS
            yield from visit(n, began_ms, pages=1 + n % 4, submits=n % 3 != 2)
        yield from visit(n, VIEWS_MS + n * MINUTE_MS, pages=1 + n % 4, submits=False)


def visit(n: int, began_ms: int, pages: int, submits: bool) -> Iterator[dict[str, Any]]:
    """Pages, ten seconds each, and perhaps a click on Submit."""
    for page, name in enumerate(PAGES[:pages]):
        view = {"name": name, "loading_time": 1_500_000_000}
        yield event(n, began_ms + page * 10_000, "view", f"{n}-{began_ms}-{page}", view=view)
    if submits:
        id = f"{n}-{began_ms}-a"
        yield event(
            n, began_ms + 45_000, "action", id, action={"id": id, "type": "click", "target": {"name": "Submit"}}
        )


def slow_views() -> Iterator[dict[str, Any]]:
    """Everybody waits once."""
    for n in range(CROWD):
        yield event(n, SLOW_MS + n * 1000, "view", f"slow-{n}", view={"name": "Home", "loading_time": 4_000_000_000})


def connect(server: Server, entity: str, table: str, key: str, fields: dict[str, str]) -> None:
    attributes = {
        "type": "ref_table",
        "join_type": key,
        "join_attribute": key,
        "metadata": {"table_name": table},
        "fields": [{"id": id, "source_name": id, "type": type} for id, type in fields.items()],
    }
    body = {"data": {"type": "connection_id", "id": table.replace("_", "-"), "attributes": attributes}}
    made = server.ask("POST", f"/api/v2/product-analytics/{entity}/mapping/connection", body)
    assert made.status == 201, made


def await_users(server: Server) -> None:
    """Until all are there, with the values of their table."""
    asked = {"data": {"type": "query_users_request", "attributes": {"query": "user_org_id:5001 geo.country:*"}}}
    stop_s = monotonic() + WAIT_S
    while (answer := server.ask("POST", f"{USERS}/query", asked)).json()["data"]["attributes"]["total"] < CROWD:
        assert monotonic() < stop_s, answer
        sleep(0.05)


@contextmanager
def stalling(port: int) -> Iterator[str]:
    """The address of a door before the server that lets the heads of requests through, and no bodies."""
    door = socket.create_server(("127.0.0.1", 0))

    def work() -> None:
        while True:
            try:
                client, _ = door.accept()
            except OSError:
                return
            with client, socket.create_connection(("127.0.0.1", port)) as server, suppress(OSError):
                client.settimeout(WAIT_S)
                server.settimeout(WAIT_S)
                stall(client, server)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{door.getsockname()[1]}"
    finally:
        door.shutdown(socket.SHUT_RDWR)
        door.close()
        thread.join(WAIT_S)


def stall(client: socket.socket, server: socket.socket) -> None:
    """The head of one request, and what the server says of it until it hangs up."""
    got = b""
    while b"\r\n\r\n" not in got and (piece := client.recv(65_536)):
        got += piece
    server.sendall(got.partition(b"\r\n\r\n")[0] + b"\r\n\r\n")
    while piece := server.recv(65_536):
        client.sendall(piece)
