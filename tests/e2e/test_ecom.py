"""Real shop data through the main job, every answer checked against polars on the same file."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import polars as pl
import pytest

from e2e.ecom_world import open_shop, people_of, read_events
from servers import Server

pytestmark = pytest.mark.e2e
BASE = "/api/v2/product-analytics"


@pytest.fixture(scope="module")
def events() -> pl.DataFrame:
    return read_events()


@pytest.fixture(scope="module")
def people(events: pl.DataFrame) -> pl.DataFrame:
    """What the answers must be."""
    return people_of(events)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory, people: pl.DataFrame) -> Iterator[Server]:
    with open_shop(tmp_path_factory.mktemp("ecom"), people) as server:
        yield server


def ask(server: Server, path: str, type: str, attributes: dict[str, Any]) -> dict[str, Any]:
    answer = server.ask("POST", f"{BASE}/users/{path}", {"data": {"type": type, "attributes": attributes}})
    assert answer.status == 200, answer.body
    found: dict[str, Any] = answer.json()["data"]["attributes"]
    return found


def query(server: Server, **attributes: Any) -> dict[str, Any]:
    return ask(server, "query", "query_users_request", attributes)


def facet(server: Server, **attributes: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = ask(server, "facet_info", "users_facet_info_request", attributes)["result"]["values"]
    return found


def counted(people: pl.DataFrame, column: str) -> list[dict[str, Any]]:
    sizes = people.group_by(column).len().sort(["len", column], descending=[True, False])
    return [{"value": value, "count": count} for value, count in sizes.iter_rows()]


def test_every_builtin_of_every_user(shop: Server, people: pl.DataFrame) -> None:
    columns = ["user_id", "events_count", "session_count", "first_seen", "last_seen"]
    found = query(shop, select_columns=columns, sort={"field": "user_id", "order": "asc"}, limit=10_000)
    stamp = "%Y-%m-%dT%H:%M:%S.000Z"
    wanted = people.sort("user_id").select(
        "user_id",
        "events_count",
        "session_count",
        pl.col("first_seen").dt.strftime(stamp),
        pl.col("last_seen").dt.strftime(stamp),
    )
    assert found["total"] == len(people)
    assert found["hits"] == wanted.to_dicts()


def test_facets_of_a_renamed_and_of_a_replaced_field(shop: Server, people: pl.DataFrame) -> None:
    assert facet(shop, facet_id="channel", limit=100) == counted(people, "acquisition_channel")
    assert facet(shop, facet_id="@user_cohort", limit=100) == counted(people, "user_lifecycle")


def test_a_facet_under_a_search_and_a_term(shop: Server, people: pl.DataFrame) -> None:
    busy = people.filter(pl.col("session_count") > 2)
    wanted = [v for v in counted(busy, "acquisition_channel") if "a" in v["value"].lower()]
    found = facet(shop, facet_id="channel", limit=100, search={"query": "session_count:>2"}, term_search={"value": "A"})
    assert found == wanted


def test_the_old_name_still_answers(shop: Server, people: pl.DataFrame) -> None:
    assert facet(shop, facet_id="acquisition_channel", limit=100) == counted(people, "acquisition_channel")


@pytest.mark.parametrize("descending", [True, False])
def test_filtered_sorted_list(shop: Server, people: pl.DataFrame, descending: bool) -> None:
    wanted = people.filter((pl.col("acquisition_channel") == "email") & (pl.col("user_lifecycle") != "new"))
    ordered = wanted.sort(["events_count", "user_id"], descending=[descending, False])
    found = query(
        shop,
        query="channel:email AND -@user_cohort:new",
        select_columns=["user_id", "@channel", "events_count"],
        sort={"field": "events_count", "order": "DESC" if descending else "ASC"},
        limit=25,
    )
    assert found["total"] == len(wanted)
    rows = ordered.head(25).select("user_id", pl.col("acquisition_channel").alias("@channel"), "events_count")
    assert found["hits"] == rows.to_dicts()


def test_sort_by_a_custom_attribute(shop: Server, people: pl.DataFrame) -> None:
    found = query(shop, select_columns=["user_id"], sort={"field": "channel", "order": "asc"}, limit=10_000)
    ordered = people.sort(["acquisition_channel", "user_id"])
    assert [hit["user_id"] for hit in found["hits"]] == ordered["user_id"].to_list()


def test_wildcard_search_reaches_custom_attributes(shop: Server, people: pl.DataFrame) -> None:
    found = query(shop, wildcard_search_term="MAI", limit=1)
    assert found["total"] == len(people.filter(pl.col("acquisition_channel").str.contains("mai")))


@pytest.mark.parametrize("step", ["add_to_cart", "cart", "home"])
def test_users_by_their_events(shop: Server, events: pl.DataFrame, people: pl.DataFrame, step: str) -> None:
    middle = events["timestamp"].median()
    assert middle is not None
    start_s, end_s = int(events["timestamp"].min().timestamp()), int(middle.timestamp())  # type: ignore[union-attr]
    inside = events.filter((pl.col("timestamp").dt.epoch("s") < end_s) & (pl.col("event") == step))
    wanted = people.filter(
        pl.col("user_id").is_in(inside["user_id"].implode()) & (pl.col("acquisition_channel") == "email")
    )
    found = ask(
        shop,
        "event_filtered_query",
        "query_event_filtered_users_request",
        {
            "query": "channel:email",
            "event_query": {"query": f"@view.name:{step}", "time_frame": {"start": start_s, "end": end_s}},
            "select_columns": ["user_id"],
            "include_row_count": True,
            "limit": 10_000,
        },
    )
    ordered = wanted.sort(["last_seen", "user_id"], descending=[True, False])
    assert found["total"] == len(wanted)
    assert [hit["user_id"] for hit in found["hits"]] == ordered["user_id"].to_list()


def test_events_searched_by_an_attribute_of_their_user(shop: Server, people: pl.DataFrame) -> None:
    found = ask(
        shop,
        "event_filtered_query",
        "query_event_filtered_users_request",
        {"event_query": {"query": "@channel:email AND @type:view"}, "limit": 1},
    )
    assert found["total"] == len(people.filter(pl.col("acquisition_channel") == "email"))
