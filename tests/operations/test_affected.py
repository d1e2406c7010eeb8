"""A preview names the segments whose members move and everybody who names what goes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from inside import Inside, inside
from roster.operations import segments

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
