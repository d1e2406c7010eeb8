"""Owns a server on real shop data: the loaded file, its per-user columns as a table, a connection and one update."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import polars as pl

from servers import Server

FILE = Path(__file__).parent.parent / "data" / "ecom.csv.gz"
CONNECTION = "/api/v2/product-analytics/users/mapping/connection"
MAPPED = {
    "usr.id": "user_id",
    "session.id": "session_id",
    "view.name": "event",
    "date": "timestamp",
    "device.type": "platform",
    "type": "=view",
}
PER_USER = ["acquisition_channel", "user_cohort", "user_lifecycle"]


def read_events() -> pl.DataFrame:
    return pl.read_csv(FILE, try_parse_dates=True)


def people_of(events: pl.DataFrame) -> pl.DataFrame:
    """A row a user, by polars alone."""
    ordered = events.sort("timestamp", maintain_order=True)
    return ordered.group_by("user_id").agg(
        pl.len().alias("events_count"),
        pl.col("session_id").n_unique().alias("session_count"),
        pl.col("timestamp").min().alias("first_seen"),
        pl.col("timestamp").max().alias("last_seen"),
        *(pl.col(name).first() for name in PER_USER),
    )


@contextmanager
def open_shop(folder: Path, people: pl.DataFrame) -> Iterator[Server]:
    """The server; of its users `channel` was renamed and `user_cohort` replaced in one update."""
    table = folder / "people.csv"
    people.select("user_id", *PER_USER).write_csv(table)
    server = Server(folder)
    maps = [word for path, column in MAPPED.items() for word in ("--map", f"{path}={column}")]
    assert "stored 31,106 events" in server.cli("load", str(FILE), *maps)
    assert "stored 0 events" in server.cli("load", str(FILE), *maps), "loading a file twice is loading it once"
    assert f"{len(people):,} rows" in server.cli("table", "load", str(table), "--key", "user_id")
    with server:
        _connect(server)
        yield server


def _connect(server: Server) -> None:
    fields = [{"id": name, "source_name": name, "type": "string"} for name in ("acquisition_channel", "user_cohort")]
    attributes = {
        "type": "ref_table",
        "join_type": "user_id",
        "join_attribute": "user_id",
        "metadata": {"table_name": "people"},
        "fields": fields,
    }
    body = {"data": {"type": "connection_id", "id": "people", "attributes": attributes}}
    assert server.ask("POST", CONNECTION, body).status == 201
    change = {
        "fields_to_update": [{"field_id": "acquisition_channel", "updated_field_id": "channel"}],
        "fields_to_delete": ["user_cohort"],
        "fields_to_add": [{"id": "user_cohort", "source_name": "user_lifecycle", "type": "string"}],
    }
    body = {"data": {"type": "connection_id", "id": "people", "attributes": change}}
    answer = server.ask("PUT", CONNECTION, body)
    assert (answer.status, answer.body) == (200, b"")
