"""Steps that change reference tables and that make tables of buckets with the official Python package."""

from typing import Any

import python_bodies as bodies
import python_table_bodies as table_bodies
from python_audience import ABSENT, say
from python_client import require
from python_world import SCENARIO, World

ADDED_COLUMN = "seen_in"
NOBODY = "00000000-0000-0000-0000-000000000000"


def check_changes(world: World) -> None:
    """Words, then a column, then all rows by a new upload: those that it does not have are gone."""
    update, where = world.tables.update_reference_table, {"id": world.table_id}
    before = world.read_table()
    world.session.call(update, 200, body=table_bodies.patch(description="Changed", tags=["flow", "changed"]), **where)
    after = world.read_table()
    require((after["description"], after["tags"]) == ("Changed", ["flow", "changed"]), f"update table: {after}")
    require(after["schema"] == before["schema"] and after["row_count"] == before["row_count"], f"update table: {after}")
    types = {field["name"]: field["type"] for field in before["schema"]["fields"]} | {ADDED_COLUMN: "STRING"}
    world.session.call(update, 200, body=table_bodies.patch_schema(types, SCENARIO["columns"][0]), **where)
    fields = world.read_table()["schema"]["fields"]
    require({field["name"]: field["type"] for field in fields} == types, f"add a column: {fields}")
    say("update the words of the table, add a column")
    replace_rows(world)


def replace_rows(world: World) -> None:
    """The new rows, in two parts."""
    columns = [*SCENARIO["columns"], ADDED_COLUMN]
    wanted = [world.row(row) | {ADDED_COLUMN: "Oslo"} for row in SCENARIO["replaced_rows"]]
    upload_id = world.upload(columns, [list(row.values()) for row in wanted], parts=2)
    body = table_bodies.patch_upload(upload_id)
    world.session.call(world.tables.update_reference_table, 200, id=world.table_id, body=body)
    page = world.session.call(world.tables.list_reference_table_rows, 200, id=world.table_id)
    got = [row["attributes"]["values"] for row in page["data"]]
    require(got == wanted, f"rows after a new upload: expected {wanted}, got {got}")
    count = world.read_table()["row_count"]
    require(count == len(wanted), f"row_count after a new upload: {count}")
    world.await_loyal(SCENARIO["loyal_after_replace"], "replace all rows by a new upload, and the profiles follow")


def check_cloud(world: World) -> None:
    """Tables of buckets are there at once and tell back how they were declared; their rows are not written."""
    session, tables = world.session, world.tables
    for source in ("S3", "GCS", "AZURE"):
        body = table_bodies.create_cloud_table(f"{source.lower()}_users_{world.run}", source)
        made = session.call(tables.create_reference_table, 201, body=body)["data"]
        check_metadata(made, source, table_bodies.ACCESS_DETAILS, sync_enabled=True)
        got = session.call(tables.get_table, 200, id=made["id"])["data"]
        check_metadata(got, source, table_bodies.ACCESS_DETAILS, sync_enabled=True)
        if source == "S3":
            check_moved(world, made["id"])
        row = bodies.upsert_row({"name": "x"}, "1")
        status = session.refused(tables.upsert_rows, id=made["id"], body=row)
        require(status == 409, f"upsert rows of {source}: expected 409, got {status}")
        session.call(tables.delete_table, 200, id=made["id"])
    say("create, read, change and delete tables of buckets")


def check_moved(world: World, id: str) -> None:
    """Another path in the same bucket; what is not given stays."""
    body = table_bodies.patch_file_path("reference-tables/other.csv", sync_enabled=False)
    world.session.call(world.tables.update_reference_table, 200, id=id, body=body)
    got = world.session.call(world.tables.get_table, 200, id=id)["data"]
    aws = table_bodies.ACCESS_DETAILS["aws_detail"] | {"file_path": "reference-tables/other.csv"}
    check_metadata(got, "S3", table_bodies.ACCESS_DETAILS | {"aws_detail": aws}, sync_enabled=False)


def check_metadata(table: Any, source: str, details: Any, *, sync_enabled: bool) -> None:
    """Source, access details and schedule as they were declared."""
    got = table["attributes"]
    require(got["source"] == source, f"table of {source}: {got}")
    require(got["status"] in {"PROCESSING", "ERROR", "DONE"}, f"table of {source}: {got}")
    require(got["file_metadata"]["access_details"] == details, f"table of {source}: {got['file_metadata']}")
    require(got["file_metadata"]["sync_enabled"] is sync_enabled, f"table of {source}: {got['file_metadata']}")


def check_recorded(world: World) -> None:
    """The errors whose bodies are recorded from the API are the same to the letter."""
    tables, wanted = world.tables, SCENARIO["recorded_errors"]
    body = table_bodies.create_without_upload(f"none_{world.run}")
    refusals = {
        "no_upload": world.session.refusal(tables.create_reference_table, body=body),
        "no_uuid": world.session.refusal(tables.list_reference_table_rows, id="not-a-valid-uuid"),
        "unknown": world.session.refusal(tables.list_reference_table_rows, id=NOBODY),
    }
    for name, (status, text) in refusals.items():
        require([status, text] == wanted[name], f"recorded error {name}: {status} {text}")
    status = world.session.refused(tables.update_reference_table, id=NOBODY, body=table_bodies.patch(tags=[]))
    require(status == ABSENT, f"update an unknown table: expected {ABSENT}, got {status}")
    status = world.session.refused(tables.batch_rows_query, body=bodies.batch_rows(NOBODY, ["a"]))
    require(status == ABSENT, f"rows of an unknown table: expected {ABSENT}, got {status}")
    say("errors as recorded, to the letter")
