"""Many random edits of a mapping, then undo of all: what readers get, of then and now, is byte for byte the same.

ROSTER_EDITS sets how many; 1,000 take some minutes.
"""

from __future__ import annotations

import csv
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import pytest

from inside import inside
from servers import Answered, Server

pytestmark = pytest.mark.xdist_group("many_edits")

EDITS = int(os.environ.get("ROSTER_EDITS", "100"))
SEED = int(os.environ.get("ROSTER_SEED", "20261126"))
RECORD_EVERY = 20
BASE = "/api/v2/product-analytics"
MAPPING = f"{BASE}/users/mapping"
NO_LIMITS = json.dumps(dict.fromkeys(("audience_read", "audience_write"), "9999999/minute"))

PEOPLE = [
    ("u1", "Ann@X.io"),
    ("U2", "bob@x.io"),
    (" u3", " cy@x.io"),
    ("004", "d@x.io"),
    ("ü", "ü@x.io"),
    ("u 7", ""),
    ("u8", "h@x.io"),
]
TABLES = {
    "crm": """mail,tier,score,since
 ANN@x.io ,gold,1.5,2024-01-01
ann@x.io,silver,2,2024-13-01
bob@x.io,,x,
,lost,3,2024-02-01
d@x.io, gold,1e3,2024-03-01T10:00:00Z
ü@x.io,GOLD,-4,yes
nobody@x.io,gold,5,2024-01-05
""",
    "shop": """user,tier,score,active
u1,iron,10,true
U2,zinc,,FALSE
u2,lead,20,no
 u3,gold,abc,1
4,gold,40,x
004,tin,44,true
ü,,1,
""",
    "plans": """id,tier,plan,score
u8,free,basic,8
u8,paid,pro,9
u 7,free,,0
u1,paid,pro,0.25
""",
}
JOINS = {"crm": ("email", "mail"), "shop": ("user_id", "user"), "plans": ("user_id", "id")}
COLUMNS = {name: text.split("\n", 1)[0].split(",")[1:] for name, text in TABLES.items()}
CONNECTIONS = ["crm", "shop", "plans", "twin"]
IDS = ["tier", "score", "plan", "since", "active", "level", "points", "grade"]
TYPES = ["string", "number", "boolean", "timestamp"]


def query_of(search: str, sort: str = "user_id", **more: Any) -> Any:
    attributes = {"query": search, "sort": {"field": sort, "order": "asc"}, "limit": 100} | more
    return {"data": {"type": "query_users_request", "attributes": attributes}}


def facet_of(name: str, search: str = "") -> Any:
    attributes = {"facet_id": name, "limit": 100, "search": {"query": search}}
    return {"data": {"type": "users_facet_info_request", "attributes": attributes}}


EVENTS = {"event_query": {"query": "@type:view"}, "query": "tier:* OR points:<5 OR level:g*", "limit": 100}
QUERIES: list[tuple[str, Any]] = [
    ("users/query", query_of("")),
    ("users/query", query_of("tier:gold OR level:gold OR grade:gold", select_columns=["user_id", *IDS])),
    ("users/query", query_of("score:>=2 AND -plan:basic", sort="points")),
    ("users/query", query_of("since:* OR @active:true", sort="@tier", wildcard_search_term="o")),
    ("users/facet_info", facet_of("tier")),
    ("users/facet_info", facet_of("score", "level:* OR grade:*")),
    ("users/event_filtered_query", {"data": {"type": "query_event_filtered_users_request", "attributes": EVENTS}}),
]


def build(folder: Path) -> Server:
    with inside(folder, PEOPLE) as world:
        for name, text in TABLES.items():
            columns, *rows = csv.reader(text.splitlines())
            world.add_table(columns, rows, columns[0], name)
    return Server(folder, rate_limits=NO_LIMITS)


def ask(server: Server, dice: Random, present: dict[str, list[str]]) -> Answered:
    """One random request that changes connections; `present` are their fields."""
    absent = [id for id in CONNECTIONS if id not in present]
    roll = dice.random()
    if absent and (not present or roll < 0.15):
        id = dice.choice(absent)
        table = id if id in TABLES else dice.choice(list(TABLES))
        join_type, join_attribute = JOINS[table]
        attributes = {"type": "ref_table", "join_type": join_type, "join_attribute": join_attribute}
        attributes |= {"metadata": {"table_name": table}, "fields": fields(dice, table, dice.randrange(4))}
        return server.ask("POST", f"{MAPPING}/connection", body_of(id, attributes))
    id = dice.choice(list(present))
    if roll < 0.22:
        return server.ask("DELETE", f"{MAPPING}/connection/{id}")
    return server.ask("PUT", f"{MAPPING}/connection", body_of(id, update(dice, id, present[id])))


def body_of(id: str, attributes: dict[str, Any]) -> Any:
    return {"data": {"type": "connection_id", "id": id, "attributes": attributes}}


def fields(dice: Random, table: str, count: int) -> list[dict[str, Any]]:
    made = []
    for id in dice.sample(IDS, count):
        one: dict[str, Any] = {"id": id, "source_name": dice.choice(COLUMNS[table]), "type": dice.choice(TYPES)}
        match dice.randrange(6):
            case 0:
                one["conflict"] = {"rule": dice.choice(["precedence", "non_empty"]), "order": ["shop", "crm"]}
            case 1:
                one["allowed_values"] = ["gold", "1"]
            case 2:
                one |= {"null_rule": "clear", "groups": ["A", "B"], "display_name": "Naïve `label`"}
        made.append(one)
    return made


def update(dice: Random, id: str, have: list[str]) -> dict[str, Any]:
    """Adds, deletes, renames, swaps, new labels and types, alone or together."""
    table = id if id in TABLES else "plans"
    wish: dict[str, Any] = {}
    if len(have) > 1 and dice.random() < 0.3:
        a, b = dice.sample(have, 2)
        wish["fields_to_update"] = [{"field_id": x, "updated_field_id": y} for x, y in ((a, b), (b, a))]
    elif have and dice.random() < 0.6:
        more = dice.choice(
            [
                {"updated_field_id": dice.choice(IDS)},
                {"updated_display_name": str(dice.random())},
                {"updated_type": dice.choice(TYPES)},
                {"updated_groups": []},
            ]
        )
        wish["fields_to_update"] = [{"field_id": dice.choice(have)} | more]
    if have and dice.random() < 0.3:
        wish["fields_to_delete"] = [dice.choice(have)]
    if dice.random() < 0.5:
        wish["fields_to_add"] = fields(dice, table, dice.randrange(1, 3))
    return wish


def answers(server: Server, query: str = "") -> list[tuple[int, bytes]]:
    found = [server.ask("POST", f"{BASE}/{path}{query}", body) for path, body in QUERIES]
    return [(a.status, a.body) for a in found]


@dataclass
class Recorded:
    """What readers got at each version; the answers of the queries at some of them."""

    mappings: dict[int, bytes] = field(default_factory=dict)
    answers: dict[int, list[tuple[int, bytes]]] = field(default_factory=dict)


def connect(server: Server) -> int:
    """The two connections that the test starts with; the version of the mapping then."""
    for id, own in (("crm", "tier"), ("shop", "score")):
        join_type, join_attribute = JOINS[id]
        attributes: dict[str, Any] = {"type": "ref_table", "join_type": join_type, "join_attribute": join_attribute}
        attributes["fields"] = [{"id": f"{id}_{c}", "source_name": c, "type": "string"} for c in COLUMNS[id]]
        attributes["fields"].append({"id": own, "source_name": "tier", "type": "string"})
        assert server.ask("POST", f"{MAPPING}/connection", body_of(id, attributes)).status == 201
    return 2


def edit(server: Server, dice: Random, first: int) -> Recorded:
    """Random requests, until that many of them have changed something."""
    recorded = Recorded()
    newest, asked = 0, 0
    while True:
        now = server.ask("GET", MAPPING)
        version = int(now.headers["etag"].strip('"'))
        if version != newest:
            newest = version
            recorded.mappings[version] = now.body
            if (version - first) % RECORD_EVERY == 0:
                recorded.answers[version] = answers(server)
        if newest == first + EDITS:
            break
        shown = server.ask("GET", f"{MAPPING}/connections").json()["data"]["attributes"]["connections"]
        answer = ask(server, dice, {c["id"]: [f["id"] for f in c["fields"]] for c in shown})
        assert answer.status in (200, 201, 204, 400, 404, 409), answer
        asked += 1
    print(asked, "requests,", len(set(recorded.mappings.values())), "different mappings")
    return recorded


def test_many_edits_are_undone_to_the_byte(tmp_path: Path) -> None:
    print("seed", SEED)
    with build(tmp_path) as server:
        first = connect(server)
        listed = server.ask("GET", f"{MAPPING}/connections").body
        recorded = edit(server, Random(SEED), first)
        assert sorted(recorded.mappings) == list(range(first, first + EDITS + 1))
        different = {str(found) for found in recorded.answers.values()}
        assert len(different) > len(recorded.answers) / 2, "the edits change hardly any answer"
        for content in reversed(range(first, first + EDITS)):
            undone = server.ask("POST", f"{MAPPING}/undo")
            assert undone.json()["data"]["attributes"]["restores"] == content
            assert server.ask("GET", MAPPING).body == recorded.mappings[content]
        assert server.ask("GET", f"{MAPPING}/connections").body == listed
        assert answers(server) == recorded.answers[first]
        for version, body in recorded.mappings.items():
            assert server.ask("GET", f"{MAPPING}?version={version}").body == body
        for version, then in recorded.answers.items():
            undoing = 2 * (first + EDITS) - version
            assert answers(server, f"?mapping_version={version}") == then
            assert answers(server, f"?mapping_version={undoing}") == then
