"""Runs the audience flow with the official Python package (sync, threaded or async) against a running server."""

import sys
import time
from typing import Any, get_args

import python_bodies as bodies
from python_audience import ABSENT, FIELDS, Audience, facet, ids, say, total
from python_client import Call, Failure, Mode, Session, configuration, environment, require
from python_tables import check_changes, check_cloud, check_recorded
from python_world import SCENARIO, World


def run_waiting(session: Session) -> None:
    """A connection whose table does not exist: everything works, no profile has a value."""
    audience = Audience(session)
    api = audience.api
    audience.clear()
    audience.define()
    now_s = int(time.time())
    users = bodies.query_users("customer_tier:gold", ["user_id", "customer_tier"])
    prefixed = bodies.query_users("@customer_tier:gold", ["user_id", "@customer_tier"])
    accounts = bodies.query_accounts("account_id:none-such", ["account_id", "account_name"])
    seen = bodies.query_event_filtered_users("customer_tier:gold", "@type:view", now_s - 60, now_s, ["user_id"])
    answers = session.send(
        [
            Call(api.query_users, 200, {"body": users}),
            Call(api.query_users, 200, {"body": prefixed}),
            Call(api.query_accounts, 200, {"body": accounts}),
            Call(api.query_event_filtered_users, 200, {"body": seen}),
        ]
    )
    require([total(answer) for answer in answers] == [0, 0, 0, 0], f"queries on a waiting connection: {answers}")
    say("queries on a waiting connection find nobody")
    facets = session.send(
        [
            Call(api.get_user_facet_info, 200, {"body": bodies.facet_info("customer_tier", "*")}),
            Call(api.get_account_facet_info, 200, {"body": bodies.facet_info("account_id", "account_id:none-such")}),
        ]
    )
    require([facet(answer) for answer in facets] == [[], []], f"facets on a waiting connection: {facets}")
    say("facets on a waiting connection are empty")
    audience.remove()


def check_values(world: World, answer: Any) -> None:
    """The hits carry the values of the table, numbers as numbers, and what the events said."""
    rows = {row[0].lower(): row for row in SCENARIO["rows"]}
    names = {person["key"]: person["name"] for person in SCENARIO["people"]}
    for key, hit in zip(ids(answer), answer["data"]["attributes"]["hits"], strict=True):
        wanted = [world.email(key), names[key], *rows[key][1:]]
        got = [hit.get(name) for name in ("user_email", "user_name", *FIELDS)]
        require(got == wanted, f"values of {key}: expected {wanted}, got {got}")
    say("the values of the table are on the profiles")


def check_queries(world: World) -> None:
    """Sorting, free text, facets, event filters and accounts over the enriched profiles."""
    audience, session, api = world.audience, world.session, world.audience.api
    scoped = f"{world.everyone} AND {SCENARIO['search']}"
    rising = audience.users(scoped, ["user_id", "@lifetime_value"], sort="@lifetime_value", order="ASC")
    require(ids(rising) == SCENARIO["loyal"][::-1], f"sort ascending: {ids(rising)}")
    values = [hit["@lifetime_value"] for hit in rising["data"]["attributes"]["hits"]]
    require(values == sorted(values), f"columns keep the caller's names: {rising}")
    for person in SCENARIO["people"]:
        found = audience.users(world.everyone, ["user_id", "user_name"], term=person["name"].upper())
        require(ids(found) == [person["key"]], f"wildcard_search_term {person['name'].upper()}: {ids(found)}")
    say("sort by a number, search by free text")
    tiers, one = session.send(
        [
            Call(api.get_user_facet_info, 200, {"body": bodies.facet_info("customer_tier", world.everyone)}),
            Call(api.get_user_facet_info, 200, {"body": bodies.facet_info("customer_tier", world.everyone, "GOL")}),
        ]
    )
    require(facet(tiers) == SCENARIO["tiers"], f"facet of customer_tier: {facet(tiers)}")
    require(facet(one) == SCENARIO["tiers"][:1], f"facet with term_search: {facet(one)}")
    say("facets of a custom attribute")
    check_events(world)


def check_events(world: World) -> None:
    """Users by what they did, and the account that all of them belong to."""
    session, api = world.session, world.audience.api
    now_s = int(time.time())
    search = f"@type:server AND @event.name:order_placed AND @application.id:{world.application_id}"
    body = bodies.query_event_filtered_users(
        f"{world.everyone} AND customer_tier:gold", search, now_s - 3600, now_s + 60, ["user_id", "customer_tier"]
    )
    buyers = session.call(api.query_event_filtered_users, 200, body=body)
    require(sorted(ids(buyers)) == SCENARIO["buyers"], f"event filtered users: {buyers}")
    require(total(buyers) == len(SCENARIO["buyers"]), f"event filtered users: total {total(buyers)}")
    say("event filtered users")
    account = f"account_id:{world.account['id']}"
    body = bodies.query_accounts(account, ["account_id", "account_name"])
    hits = session.call(api.query_accounts, 200, body=body)["data"]["attributes"]["hits"]
    wanted = {"account_id": world.account["id"], "account_name": world.account["name"]}
    require(hits == [wanted], f"query accounts: {hits}")
    names = session.call(api.get_account_facet_info, 200, body=bodies.facet_info("account_name", account))
    require(facet(names) == [[world.account["name"], 1]], f"facet of account_name: {names}")
    say("accounts and their facets")


def check_rows(world: World) -> None:
    """Reads and changes rows; the profiles follow."""
    session, tables = world.session, world.tables
    where = {"id": world.table_id}
    keys: list[str] = []
    token: dict[str, str] = {}
    while True:
        page = session.call(tables.list_reference_table_rows, 200, page_limit=4, **where, **token)
        keys += [row["id"] for row in page["data"]]
        require({"first", "self"} <= set(page["links"]), f"list rows: links {page['links']}")
        following = (page.get("meta", {}).get("page") or {}).get("next_continuation_token")
        require(("next" in page["links"]) == (following is not None), f"list rows: links {page['links']}")
        if following is None:
            break
        token = {"page_continuation_token": following}
    wanted = sorted(world.email(row[0]) for row in SCENARIO["rows"])
    require(sorted(keys) == wanted, f"list rows in pages: expected {wanted}, got {sorted(keys)}")
    say("list rows, page by page")
    changed = world.row(SCENARIO["upserted_row"])
    session.call(tables.upsert_rows, 200, **where, body=bodies.upsert_row(changed, changed["email"]))
    world.await_loyal(SCENARIO["loyal_after_upsert"], "upsert rows, and the profiles follow")
    check_read(world, changed)
    session.call(tables.delete_rows, 200, **where, body=bodies.delete_row(world.email(SCENARIO["deleted_row"])))
    world.await_loyal(SCENARIO["loyal_after_delete"], "delete rows, and the profiles follow")


def check_read(world: World, changed: dict[str, Any]) -> None:
    """Rows by key, with one key that no row has."""
    session, tables = world.session, world.tables
    key, absent = changed["email"], world.email("nobody")
    got = session.call(tables.get_rows_by_id, 200, id=world.table_id, row_id=[key, absent])
    require([row["attributes"]["values"] for row in got["data"]] == [changed], f"get rows by id: {got}")
    require(got["meta"]["not_found"] == [absent], f"get rows by id: {got['meta']}")
    say("get rows by id")
    got = session.call(tables.batch_rows_query, 200, body=bodies.batch_rows(world.table_id, [key, absent]))
    require([row["attributes"]["values"] for row in got["included"]] == [changed], f"batch rows query: {got}")
    named = [row["id"] for row in got["data"]["relationships"]["rows"]["data"]]
    require(named == [key], f"batch rows query: {named}")
    say("batch rows query")


def run_table(session: Session, url: str) -> None:
    """A connection with a table behind it, from the upload to the profiles and back."""
    world = World(session, url)
    world.audience.clear()
    world.create_table()
    world.send_events()
    world.audience.define({"table_name": world.table_name})
    answer = world.await_loyal(SCENARIO["loyal"], "filter and sort by custom attributes")
    check_values(world, answer)
    check_queries(world)
    check_rows(world)
    check_changes(world)
    world.audience.remove()
    session.call(world.tables.delete_table, 200, id=world.table_id)
    status = session.refused(world.tables.get_table, id=world.table_id)
    require(status == ABSENT, f"get a deleted table: expected {ABSENT}, got {status}")
    say("delete the table")
    check_cloud(world)
    check_recorded(world)


def main(arguments: list[str]) -> int:
    """Runs both flows in the mode given as the only argument."""
    modes = get_args(Mode)
    mode: Any = arguments[0] if len(arguments) == 1 else ""
    if mode not in modes:
        print(f"usage: flow_python.py {'|'.join(modes)}", file=sys.stderr)
        return 2
    try:
        url = environment("ROSTER_URL")
        session = Session(mode, configuration(url, environment("DD_API_KEY"), environment("DD_APP_KEY")))
        try:
            run_waiting(session)
            run_table(session, url)
        finally:
            session.close()
    except Failure as failure:
        print(f"FAIL {failure}", file=sys.stderr)
        return 1
    print(f"done {mode}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
