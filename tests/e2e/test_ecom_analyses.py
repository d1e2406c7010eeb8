"""Funnels, retention and pathways of real shop data through a server, against polars on the same file."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import polars as pl
import pytest

from e2e.ecom_world import open_shop, people_of, read_events
from servers import Server

pytestmark = pytest.mark.e2e
BASE = "/api/v2/product-analytics"
STEPS = ("home", "catalog", "product_view", "add_to_cart", "cart", "purchase")
DAY_MS = 86_400_000


@pytest.fixture(scope="module")
def events() -> pl.DataFrame:
    """With the time as `ms`, and the channel of the user as the table has it."""
    events = read_events().with_columns(pl.col("timestamp").dt.epoch("ms").alias("ms"))
    channels = people_of(events).select("user_id", pl.col("acquisition_channel").alias("channel"))
    return events.join(channels, on="user_id")


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory, events: pl.DataFrame) -> Iterator[Server]:
    with open_shop(tmp_path_factory.mktemp("ecom"), people_of(events)) as server:
        yield server


def span_of(events: pl.DataFrame) -> dict[str, int]:
    first, last = events["ms"].min(), events["ms"].max()
    assert isinstance(first, int) and isinstance(last, int)
    return {"from": first, "to": last + 1}


def ask(server: Server, path: str, type: str, attributes: dict[str, Any]) -> dict[str, Any]:
    answer = server.ask("POST", f"{BASE}/{path}", {"data": {"type": type, "attributes": attributes}})
    assert answer.status == 200, answer.body
    found: dict[str, Any] = answer.json()["data"]["attributes"]
    return found


def view(name: str) -> dict[str, Any]:
    return {"data_source": "product_analytics", "search": {"query": f"@view.name:{name}"}}


# funnels


def flows(events: pl.DataFrame, key: str, window_ms: int | None) -> pl.DataFrame:
    """A row a flow: the key, `level`, `m0`, `m1`, ... when it took the steps, and the channel."""
    going = first = events.filter(event=STEPS[0]).select(key, "channel", pl.col("ms").alias("m0")).unique()
    taken = [first]
    for n, name in enumerate(STEPS[1:], 1):
        # names differ, so what comes at the same instant comes later if its step does
        later = going.join(events.filter(event=name).select(key, "ms"), on=key).filter(
            pl.col("ms") >= pl.col(f"m{n - 1}")
        )
        if window_ms is not None:
            later = later.filter(pl.col("ms") - pl.col("m0") <= window_ms)
        going = later.group_by(going.columns).agg(pl.col("ms").min().alias(f"m{n}"))
        taken.append(going)
    whole = first
    for n, step in enumerate(taken[1:], 1):
        whole = whole.join(step.select(key, "m0", f"m{n}"), on=[key, "m0"], how="left")
    times = [f"m{n}" for n in range(len(STEPS))]
    level = pl.sum_horizontal(pl.col(name).is_not_null() for name in times).alias("level")
    whole = whole.with_columns(level, pl.max_horizontal(times).alias("last"))
    return whole.sort("m0").unique([key, "level", "last"], keep="first", maintain_order=True)


def once(found: pl.DataFrame, key: str) -> pl.DataFrame:
    """Of each key the flow that gets farthest, the earliest of these."""
    return found.sort(["level", "m0"], descending=[True, False]).unique([key], keep="first", maintain_order=True)


def elapsed(found: pl.DataFrame, start: int, end: int) -> dict[str, int]:
    gaps = found.select((pl.col(f"m{end}") - pl.col(f"m{start}")).alias("gap")).drop_nulls()["gap"]
    if start == end or gaps.is_empty():
        return {"min": 0, "max": 0, "avg": 0}
    return {"min": gaps.min(), "max": gaps.max(), "avg": round(gaps.mean())}  # type: ignore[arg-type, dict-item]


def steps_of(found: pl.DataFrame) -> list[tuple[int, dict[str, int]]]:
    last = len(STEPS) - 1
    return [(found.filter(pl.col("level") > n).height, elapsed(found, n, min(n + 1, last))) for n in range(last + 1)]


@pytest.mark.parametrize("aggregation", ["cardinality", "count"])
@pytest.mark.parametrize(
    ("key", "asked_ms", "window_ms"),
    [("session_id", None, None), ("user_id", None, DAY_MS), ("user_id", 7 * DAY_MS, 7 * DAY_MS)],
)
def test_a_funnel(
    shop: Server, events: pl.DataFrame, aggregation: str, key: str, asked_ms: int | None, window_ms: int | None
) -> None:
    found = flows(events, key, window_ms)
    found = once(found, key) if aggregation == "cardinality" else found
    told = ask(
        shop,
        "journey/funnel",
        "journey_request",
        span_of(events)
        | {
            "query": {
                "search": {
                    "expression": " -> ".join(STEPS),
                    "node_objects": {name: view(name) for name in STEPS},
                    "join_keys": {"primary": {"session_id": "@session.id", "user_id": "@usr.id"}[key]},
                    "conversion_window_ms": asked_ms,
                },
                "compute": {"aggregation": aggregation},
                "group_by": [{"facet": "@channel"}],
            }
        },
    )
    steps = told["funnel_steps"]
    wanted = steps_of(found)
    assert [(step["value"], step["elapsed_time_to_next_step"]) for step in steps] == wanted
    assert told["initial_count"] == wanted[0][0] > 0
    assert told["end_to_end_conversion_rate"] == pytest.approx(wanted[-1][0] / wanted[0][0])
    assert told["end_to_end_elapsed_time"] == elapsed(found, 0, len(STEPS) - 1)
    assert wanted[-1][0] > 0, "somebody buys"

    sizes = found.group_by("channel").len().sort(["len", "channel"], descending=[True, False])
    parts = {channel: steps_of(found.filter(channel=channel)) for channel in sizes["channel"]}
    for n, step in enumerate(steps):
        shown = [(g["group_tags"][0], (g["value"], g["elapsed_time_to_next_step"])) for g in step["groups"]]
        assert shown == [(channel, part[n]) for channel, part in parts.items()]


# retention


def test_weekly_retention(shop: Server, events: pl.DataFrame) -> None:
    """Users who saw `home` in a week, by the weeks in which they put something into the cart, not before it."""
    week = pl.col("timestamp").dt.truncate("1w")
    home = events.filter(event="home").with_columns(week.alias("cohort"))
    began = home.group_by("user_id", "cohort").agg(pl.col("ms").min().alias("began"))
    returns = events.filter(event="add_to_cart").select("user_id", "ms", week.alias("week"))
    back = began.join(returns, on="user_id").filter(pl.col("ms") >= pl.col("began"))
    period = ((pl.col("week") - pl.col("cohort")).dt.total_days() // 7).alias("period")
    cells = back.with_columns(period).group_by("cohort", "period").agg(pl.col("user_id").n_unique().alias("users"))
    counts = {(cohort, period): users for cohort, period, users in cells.iter_rows()}
    starts = sorted(events.select(week.alias("week"))["week"].unique().to_list())
    sizes = dict(began.group_by("cohort").len().iter_rows())

    calendar = {"type": "calendar", "value": {"type": "week"}}
    told = ask(
        shop,
        "retention/grid",
        "retention_grid_request",
        span_of(events)
        | {
            "query": {
                "compute": {"aggregation": "count", "metric": "__dd.retention"},
                "search": {
                    "retention_entity": "@usr.id",
                    "return_condition": "conversion_on",
                    "cohort_criteria": {"base_query": view("home"), "time_interval": calendar},
                    "return_criteria": {"base_query": view("add_to_cart"), "time_interval": calendar},
                },
            }
        },
    )
    rows = [cohort for cohort in told["cohorts"] if cohort["type"] == "raw"]
    assert [row["cohort_size"] for row in rows] == [sizes.get(start, 0) for start in starts]
    for place, (row, start) in enumerate(zip(rows, starts, strict=True)):
        wanted = [counts.get((start, n), 0) for n in range(len(starts) - place)]
        assert [cell["cell_count"] for cell in row["cells"]] == wanted
    assert sum(counts.values()) > 100


# pathways


def test_pathways(shop: Server, events: pl.DataFrame) -> None:
    """Of sessions without two events of one second: their order would be told by ids."""
    tied = events.filter(pl.struct("session_id", "ms").is_duplicated())["session_id"].unique().sort()
    sessions = events.filter(~pl.col("session_id").is_in(tied.implode())).sort("session_id", "ms")
    is_new = (pl.col("event") != pl.col("event").shift().over("session_id")).fill_null(value=True)
    stops = sessions.filter(is_new).with_columns(pl.int_range(pl.len()).over("session_id").alias("column"))
    stops = stops.filter(pl.len().over("session_id") > 1).select("session_id", "column", "event")

    columns, entries = 5, 4
    told = ask(
        shop,
        "sankey",
        "sankey_request",
        {
            "definition": {
                "source": "@view.name",
                "target": "@view.name",
                "number_of_steps": columns - 2,
                "entries_per_step": entries,
            },
            "search": {"query": f"-@session.id:({' OR '.join(tied)})"},
            "time": span_of(events),
        },
    )
    sizes = stops.group_by("column", "event").len().sort(["len", "event"], descending=[True, False])
    names: dict[tuple[int, str], str] = {}
    for column in range(columns):
        ranked = sizes.filter(column=column)
        best = ranked.head(entries)
        names |= {(column, name): f"{column}:{name}" for name in best["event"]}
        names |= {(column, name): f"other:{column}" for name in ranked["event"][entries:]}
        shown = [(n["name"], n["value"]) for n in told["nodes"] if (n["column"], n["type"]) == (column, "regular")]
        assert shown == list(best.select("event", "len").iter_rows())
    following = stops.with_columns(pl.col("column") + 1, pl.col("event").alias("before")).drop("event")
    pairs = stops.join(following, on=["session_id", "column"], how="inner").filter(pl.col("column") < columns)
    wanted: dict[tuple[str, str], int] = {}
    for column, event, before in pairs.select("column", "event", "before").iter_rows():
        link = names[column - 1, before], names[column, event]
        wanted[link] = wanted.get(link, 0) + 1
    ended = stops.filter(pl.col("column") == pl.col("column").max().over("session_id"), pl.col("column") < columns - 1)
    for column, event in ended.select("column", "event").iter_rows():
        link = names[column, event], f"dropoff:{column + 1}"
        wanted[link] = wanted.get(link, 0) + 1
    assert {(link["source"], link["target"]): link["value"] for link in told["links"]} == wanted
    assert len(wanted) > 50
