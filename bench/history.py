"""Owns the history workload: users by what their events' attribute was then, beside the same question of now.

The CRM gets a second generation in which every row changed half-way through the events, so users have two
versions. By hand: SQL over the same rows, the users met first, as the product does.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb

from bench.measure import Contender, Outcome, alternate, same
from bench.world import CONNECTION, DAY_MS, END_MS, FIELDS, Size, World, crm_sql
from roster.main import Product, SystemClock
from roster.model.reference_table import Table
from roster.operations.context import Context, Request
from roster.operations.keys import LOCAL
from roster.operations.load import materialise_profiles
from roster.operations.mapping import create_connection, delete_connection
from roster.operations.profiles import query_event_filtered_users
from roster.ports import Merge
from roster.settings import Settings

THEN, NOW, BY_HAND = "attribute_time=event", "attribute_time=now", "SQL as of the event, by hand"
BEGUN_MS, CHANGED_MS = END_MS - 90 * DAY_MS, END_MS - 45 * DAY_MS
ASKED = {
    "event_query": {"query": "@tier:gold"},
    "select_columns": ["user_id", "last_seen"],
    "include_row_count": True,
    "limit": 25,
}


def run_history(copy: Path, world: World, size: Size, rounds: int) -> Outcome:
    """On a copy of the world, in process: all events, whose users are found by the tier they had."""
    product = Product(Settings(data=copy), SystemClock())
    connection = product.duck.cursor()
    try:
        table = _keep_history(product.context, world.table_id, copy, size)
        statements = by_hand(table)
        body = {"data": {"type": "query_event_filtered_users_request", "attributes": ASKED}}

        def ask(time: str) -> dict[str, Any]:
            request = Request(LOCAL, json.dumps(body).encode(), query={"attribute_time": [time]})
            answer: dict[str, Any] = query_event_filtered_users(product.context, request).body["data"]["attributes"]
            return answer

        def execute() -> list[list[tuple[Any, ...]]]:
            return [connection.execute(sql).fetchall() for sql in statements]

        page, total = execute()
        found = ask("event")
        same("history, users", [hit["user_id"] for hit in found["hits"]], [user for (user,) in page])
        same("history, total", found["total"], total[0][0])
        if found["total"] == ask("now")["total"]:
            raise RuntimeError("history: what was then and what is now do not differ, which compares nothing")
        samples = alternate({THEN: lambda: ask("event"), NOW: lambda: ask("now"), BY_HAND: execute}, rounds)
    finally:
        connection.close()
        product.log.close()
        product.duck.close()
        product.store.close()
    note = f"page of 25 with total: users with an event while their tier was gold; {found['total']:,} of them"
    bases = {THEN: NOW, NOW: None, BY_HAND: NOW}
    return Outcome("history", note, tuple(Contender(n, samples[n], base=base) for n, base in bases.items()))


def _keep_history(context: Context, table_id: str, copy: Path, size: Size) -> Table:
    """The connection with history, and the table in a generation in which every row is another."""
    attributes = {
        "type": "ref_table",
        "join_type": "email",
        "join_attribute": "email",
        "metadata": {"table_id": table_id, "history": "true"},
        "fields": [{"id": id, "source_name": id, "type": type} for id, type in FIELDS.items()],
    }
    body = {"data": {"type": "connection_id", "id": CONNECTION, "attributes": attributes}}
    delete_connection(context, Request(LOCAL, path={"entity": "users", "id": CONNECTION}))
    create_connection(context, Request(LOCAL, json.dumps(body).encode(), {"entity": "users"}))
    table = context.store.find_table(table_id)
    assert table is not None
    context.tables.begin_history(table, BEGUN_MS)
    crm = copy / "later.csv"
    duckdb.execute(f"COPY ({crm_sql(replace(size, seed=size.seed + 1))}) TO '{crm}' (HEADER)")
    following = replace(table, generation=table.generation + 1)
    context.tables.create_table(following, [crm], "csv", merge=Merge(table, since_ms=CHANGED_MS))
    context.store.update_table(following, who=LOCAL.id)
    materialise_profiles(context)
    return following


def by_hand(table: Table) -> list[str]:
    """Page and total: users and the spans of gold rows meet first, then the events."""
    spans = f"spans_{table.id.replace('-', '')}_{table.generation}"
    matching = f"""SELECT e.user_id FROM events AS e JOIN (
        SELECT u.user_id, s._since, s._until FROM users AS u
        JOIN {spans} AS s ON lower(trim(s.email)) = lower(trim(u.user_email)) WHERE s.tier = 'gold') AS k
        ON e.user_id = k.user_id AND k._since <= e."time" AND e."time" < k._until"""
    return [
        f"SELECT user_id FROM users WHERE user_id IN ({matching}) ORDER BY last_seen DESC NULLS LAST, user_id LIMIT 25",
        f"SELECT count(*) FROM users WHERE user_id IN ({matching})",
    ]
