"""Connections with rules, conflicts and metadata of our own, made by plain HTTP, and read by the official clients."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from time import monotonic, sleep
from typing import Any

import pytest

from clients.test_clients import HERE, install_typescript, run
from servers import Server
from tables import drop, make

pytestmark = pytest.mark.clients
CONNECTION = "/api/v2/product-analytics/users/mapping/connection"
QUERY = "/api/v2/product-analytics/users/query"
WAIT_S = 60.0
TABLES = {
    "ruled_crm": "user,level,at\nruled-1,junk,2024-01-02\nruled-2,iron,2024-01-01\n",
    "ruled_shop": "user,level,score\nruled-1,gold,5\nruled-2,zinc,x\n",
}


@pytest.fixture
def ruled(server: Server) -> Iterator[Server]:
    """Two users and two connections of one attribute."""
    ids = [make(server, name, content) for name, content in TABLES.items()]
    people = [{"type": "server", "application": {"id": "a"}, "usr": {"id": f"ruled-{n}"}} for n in (1, 2)]
    for person in people:
        assert server.ask("POST", "/api/v2/prodlytics", person | {"event": {"name": "x"}}).status == 202
    level = {"id": "ruled_level", "source_name": "level", "type": "string", "null_rule": "skip"}
    conflict = {"rule": "newest", "order": ["ruled-crm", "ruled-shop"]}
    crm = level | {"allowed_values": ["gold", "iron"], "conflict": conflict}
    score = {"id": "ruled_score", "source_name": "score", "type": "number", "pattern": "[0-9]+"}
    for id, fields, more in (
        ("ruled-crm", [crm], {"changed_at": "at", "history": "true"}),
        ("ruled-shop", [level | {"conflict": conflict, "null_rule": "clear"}, score], {}),
    ):
        assert connect(server, id, fields, {"table_name": id.replace("-", "_")} | more) == 201
    wait(server)
    yield server
    for id in ("ruled-crm", "ruled-shop"):
        assert server.ask("DELETE", f"{CONNECTION}/{id}").status == 204
    for id in ids:
        drop(server, id)


def connect(server: Server, id: str, fields: list[dict[str, Any]], metadata: dict[str, str]) -> int:
    join = {"type": "ref_table", "join_type": "user_id", "join_attribute": "user"}
    attributes = join | {"fields": fields, "metadata": metadata}
    return server.ask(
        "POST", CONNECTION, {"data": {"type": "connection_id", "id": id, "attributes": attributes}}
    ).status


def wait(server: Server) -> None:
    """Until both users are there: events are applied after a moment."""
    asked = {"data": {"type": "query_users_request", "attributes": {"query": "user_id:ruled-*"}}}
    stop_s = monotonic() + WAIT_S
    while server.ask("POST", QUERY, asked).json()["data"]["attributes"]["total"] < 2:
        assert monotonic() < stop_s
        sleep(0.1)


def test_python_reads_rules(ruled: Server) -> None:
    run(ruled, sys.executable, str(HERE / "rules_python.py"))


@pytest.mark.skipif(shutil.which("npm") is None, reason="npm is not on this machine")
def test_typescript_reads_rules(ruled: Server) -> None:
    run(ruled, "node", str(install_typescript() / "rules.mjs"))
