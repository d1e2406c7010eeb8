"""A preview names the segments whose members move and everybody who names what goes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from inside import Inside, inside
from roster.operations import mapping, segments
from roster.operations.load import load_events

PEOPLE = [("u1", "ann@x.io"), ("u2", "bob@x.io"), ("u3", "cy@x.io")]
CRM = {
    "type": "ref_table",
    "join_type": "user_id",
    "join_attribute": "id",
    "fields": [
        {"id": "tier", "source_name": "tier", "type": "string"},
        {"id": "score", "source_name": "score", "type": "string"},
    ],
}


def add_segment(world: Inside, name: str, query: str) -> None:
    attributes = {"name": name, "data_query": {"profiles": [{"name": "a", "query": query}]}}
    segments.create_segment(world.context, world.request({"data": {"type": "segment", "attributes": attributes}}))


def told(world: Inside, attributes: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = world.update("crm", attributes, dry_run="true").body["data"]["attributes"]
    return found


def test_segments_that_move_and_callers_that_name_a_field(tmp_path: Path) -> None:
    with inside(tmp_path, PEOPLE) as world:
        rows = [("u1", "gold", "7"), ("u2", "gold", "x"), ("u3", "free", "9")]
        world.add_table(["id", "tier", "score"], rows, "id", "crm")
        world.create("crm", CRM)
        add_segment(world, "golden", "@tier:gold")
        add_segment(world, "scored", "@score:*")
        add_segment(world, "all", "*")
        world.values(["@tier"])
        swap = told(
            world,
            {
                "fields_to_update": [
                    {"field_id": "tier", "updated_field_id": "score"},
                    {"field_id": "score", "updated_field_id": "tier"},
                ]
            },
        )
        moved = {s["name"]: (s["before"], s["after"], s["enter"], s["leave"]) for s in swap["segments"]}
        assert moved == {"golden": (2, 0, 0, 2), "scored": (3, 3, 0, 0)}
        uses = {line["field"]: line for line in swap["used_by"]}
        assert [s["name"] for s in uses["tier"]["segments"]] == ["golden"]
        assert [c["caller"] for c in uses["tier"]["callers"]] == ["tester"]
        assert [s["name"] for s in uses["score"]["segments"]] == ["scored"]

        renamed = told(world, {"fields_to_update": [{"field_id": "tier", "updated_field_id": "level"}]})
        assert renamed["segments"] == [], "the old id goes on answering"
        assert [line["field"] for line in renamed["used_by"]] == ["tier"]

        typed = told(world, {"fields_to_update": [{"field_id": "score", "updated_type": "number"}]})
        (scored,) = typed["segments"]
        assert (scored["before"], scored["after"], scored["leave"]) == (3, 2, 1)
        assert typed["used_by"] == []

        gone = world.delete("crm", dry_run="true").body["data"]["attributes"]
        assert {s["name"]: s["leave"] for s in gone["segments"]} == {"golden": 2, "scored": 3}
        assert {line["field"] for line in gone["used_by"]} == {"tier", "score"}


FIRMS = {
    "type": "ref_table",
    "join_type": "account_id",
    "join_attribute": "id",
    "fields": [{"id": "size", "source_name": "size", "type": "string"}],
}
NODE = {"data_source": "product_analytics", "search": {"query": "*"}}
BY_SIZE = {
    "accounts": {"accounts": [{"name": "a", "query": "size:big"}]},
    "events": {"event_platforms": [{"name": "e", "query": "@size:big"}]},
    "journeys": {
        "journeys": [
            {
                "name": "j",
                "search": {
                    "expression": "a",
                    "node_objects": {"a": NODE},
                    "filters": {"audience_filters": {"accounts": [{"name": "big", "query": "size:big"}]}},
                },
            }
        ]
    },
    "own": {"entity": "accounts", "profiles": [{"name": "p", "query": "size:big"}]},
}


def test_segments_of_users_that_name_a_field_of_accounts(tmp_path: Path) -> None:
    """Two users of a big account: whoever reads the size in any rule loses its members."""
    with inside(tmp_path, []) as world:
        path = tmp_path / "views.ndjson"
        came = [("u1", "a1"), ("u2", "a1"), ("u3", "a2")]
        lines = [
            {"type": "view", "date": 1_700_000_000_000, "view": {"id": u}, "usr": {"id": u}, "account": {"id": a}}
            | {"session": {"id": u}}
            for u, a in came
        ]
        path.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
        load_events(world.context, path, {}, lambda _: None)
        world.add_table(["id", "size"], [("a1", "big"), ("a2", "small")], "id", "firms")
        body = {"data": {"type": "connection_id", "id": "firms", "attributes": FIRMS}}
        mapping.create_connection(world.context, world.request(body, "accounts"))
        for name, query in BY_SIZE.items():
            attributes = {"name": name, "data_query": query}
            body = {"data": {"type": "segment", "attributes": attributes}}
            segments.create_segment(world.context, world.request(body))
        request = world.request(None, "accounts", id="firms", dry_run="true")
        gone = mapping.delete_connection(world.context, request).body["data"]["attributes"]
        told = {s["name"]: (s["before"], s["after"], s["enter"], s["leave"]) for s in gone["segments"]}
        assert told == dict.fromkeys(BY_SIZE, (2, 0, 0, 2)) | {"own": (1, 0, 0, 1)}
        (uses,) = gone["used_by"]
        assert {s["name"] for s in uses["segments"]} == set(BY_SIZE)


def test_a_preview_tells_what_nobody_reads_and_joins_that_meet_nobody(tmp_path: Path) -> None:
    with inside(tmp_path, PEOPLE) as world:
        world.add_table(["id", "tier", "score"], [("ann", "gold", "7")], "id", "crm")
        wrong = CRM | {"metdata": {}, "fields": [CRM["fields"][0] | {"grups": []}]}  # type: ignore[index]
        told = world.create("crm", wrong, dry_run="true").body["meta"]["warnings"]
        assert "nothing reads /data/attributes/metdata; did you mean 'metadata'?" in told
        assert "nothing reads /data/attributes/fields/0/grups; did you mean 'groups'?" in told
        assert any(line.startswith("no row of crm meets a profile") for line in told)
        waiting = world.create("crn", CRM, dry_run="true").body["data"]["attributes"]["connections"][0]
        assert "did you mean 'crm'" in waiting["reason"]
