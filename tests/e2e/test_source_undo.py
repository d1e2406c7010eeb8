"""Undo of what was done to connections of outside sources: they sync again, and paused fields are looked at."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from e2e.source_world import BASE, CONNECTION, Link, add_users, check_told, query, settings, until
from servers import Server

pytestmark = pytest.mark.e2e

PEOPLE = "user_id,tier,score\nu0,gold,1\nu1,iron,2\n"
BROKEN = "user_id,tier,score\nu0,gold,high\nu1,iron,low\n"
SERVED = {"u0": ("gold", 1), "u1": ("iron", 2)}


def undo(server: Server) -> None:
    assert server.ask("POST", f"{BASE}/mapping/undo").status == 200


def update(link: Link, **attributes: Any) -> None:
    body = {"data": {"type": "connection_id", "id": link.id, "attributes": attributes}}
    assert link.server.ask("PUT", CONNECTION, body).status == 200


def test_a_deleted_connection_comes_back_and_syncs(tmp_path: Path) -> None:
    with Server(tmp_path, **settings(tmp_path)) as server:
        add_users(server, 2)
        file = tmp_path / "files" / "crm.csv"
        file.write_text(PEOPLE)
        link = Link(server, "crm").connect("file", {"path": str(file)})
        check_told(link, "ok")
        assert link.served() == SERVED
        link.remove()
        answer = server.ask("POST", f"{BASE}/query?mapping_version=1", {"data": {"type": "query_users_request"}})
        hits = answer.json()["data"]["attributes"]["hits"]
        assert [hit["@crm_tier"] for hit in hits] == [None, None], "its rows went with it"
        undo(server)
        check_told(link, "ok")
        assert link.served() == SERVED
        assert query(server, query="crm_tier:gold")["total"] == 1


def test_a_field_that_was_paused_is_looked_at_again(tmp_path: Path) -> None:
    with Server(tmp_path, **settings(tmp_path)) as server:
        add_users(server, 2)
        file = tmp_path / "files" / "crm.csv"
        file.write_text(PEOPLE)
        link = Link(server, "crm").connect("file", {"path": str(file)}, {"tier": "string", "score": "string"})
        check_told(link, "ok")
        update(link, fields_to_update=[{"field_id": "crm_score", "updated_type": "number"}])
        file.write_text(BROKEN)
        link.sync()
        check_told(link, "drifted")
        undo(server)
        until(lambda: link.runs()[0]["trigger"] == "mapping", "the undo to have it read")
        check_told(link, "ok")
        assert link.served() == {"u0": ("gold", "high"), "u1": ("iron", "low")}
