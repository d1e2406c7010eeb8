"""Makes the people, the table and the events of one run with the official Python package; checks no query."""

import json
import secrets
import urllib.parse
import urllib.request
import uuid
from pathlib import Path
from typing import Any

import python_bodies as bodies
from datadog_api_client.v2.api.product_analytics_api import ProductAnalyticsApi
from datadog_api_client.v2.api.reference_tables_api import ReferenceTablesApi
from python_audience import FIELDS, Audience, ids, say, total
from python_client import Call, Session, poll, require

PART_BYTES_MIN = 5_000_000
SCENARIO = json.loads((Path(__file__).parent / "scenario.json").read_text(encoding="utf-8"))


class World:
    """The people, the table and the connection of one run; every id carries the run's own mark."""

    def __init__(self, session: Session, url: str) -> None:
        self.session = session
        self.url = url
        self.run = secrets.token_hex(4)
        self.domain = f"r{self.run}.example.com"
        self.table_name = f"crm_integration_{self.run}"
        self.account = {"id": f"acc-{self.run}", "name": f"Account {self.run}"}
        self.application_id = str(uuid.uuid4())
        self.everyone = f"user_email:*@{self.domain}"
        self.tables = ReferenceTablesApi(session.client)  # type: ignore[no-untyped-call]
        self.audience = Audience(session)
        self.table_id = ""

    def email(self, key: str) -> str:
        """The address of a person, written as the key is written."""
        return f"{key}@{self.domain}"

    def row(self, row: list[Any]) -> dict[str, Any]:
        """A row of the scenario by column, its key made an address."""
        return dict(zip(SCENARIO["columns"], [self.email(row[0]), *row[1:]], strict=True))

    def upload(self, columns: list[str], rows: list[list[Any]], parts: int = 1) -> str:
        """Uploads rows as a CSV file, cut into parts wherever that is; gives the id of the upload."""
        content = "".join(",".join(str(cell) for cell in line) + "\n" for line in [columns, *rows]).encode()
        body = bodies.create_upload(self.table_name, columns, parts, max(len(content), PART_BYTES_MIN))
        upload = self.session.call(self.tables.create_reference_table_upload, 201, body=body)["data"]
        part_urls = upload["attributes"]["part_urls"]
        require(len(part_urls) == parts, f"upload of {parts} parts: {part_urls}")
        step = -(-len(content) // parts)
        for at, part_url in enumerate(part_urls):
            require(urllib.parse.urlsplit(part_url).scheme in {"http", "https"}, f"part url {part_url} is not absolute")
            piece = content[at * step : (at + 1) * step]
            part = urllib.request.Request(part_url, piece, {"Content-Type": "text/csv"}, method="PUT")
            with urllib.request.urlopen(part, timeout=30) as answer:
                require(200 <= answer.status < 300, f"PUT of the part: {answer.status}")
        return str(upload["id"])

    def create_table(self) -> None:
        """Uploads the rows as a file, makes a table of it and waits until it is done."""
        rows = [list(self.row(row).values()) for row in SCENARIO["rows"]]
        upload_id = self.upload(SCENARIO["columns"], rows)
        say("upload the file of a reference table")
        body = bodies.create_table(self.table_name, SCENARIO["columns"], upload_id)
        made = self.session.call(self.tables.create_reference_table, 201, body=body)["data"]
        self.table_id = made["id"]
        poll(self.read_table, lambda got: got["status"] == "DONE", "the table is done")
        got = self.read_table()
        require(got["row_count"] == len(rows), f"get table: {got}")
        require(got["table_name"] == self.table_name and got["source"] == "LOCAL_FILE", f"get table: {got}")
        listed = self.session.call(self.tables.list_tables, 200, filter_table_name_exact=self.table_name)
        require([table["id"] for table in listed["data"]] == [self.table_id], f"list tables: {listed}")
        say("create, get and list the reference table")

    def read_table(self) -> Any:
        """The attributes of the table."""
        return self.session.call(self.tables.get_table, 200, id=self.table_id)["data"]["attributes"]

    def send_events(self) -> None:
        """Makes the people known by server-side events; some of them have ordered."""
        api = ProductAnalyticsApi(self.session.client)  # type: ignore[no-untyped-call]
        calls = []
        for person in SCENARIO["people"]:
            key = person["key"]
            user = {"id": f"{key}-{self.run}", "email": self.email(key), "name": person["name"]}
            for name in ["signed_up", "order_placed"][: 1 + person["ordered"]]:
                event = bodies.server_event(name, self.application_id, user, self.account)
                calls.append(Call(api.submit_product_analytics_event, 202, {"body": event}))
        for answer in self.session.send(calls):
            require(answer == {}, f"submit event: expected an empty object, got {answer}")
        say(f"submit {len(calls)} events")
        poll(
            lambda: self.audience.users(self.everyone, ["user_id"]),
            lambda answer: total(answer) == len(SCENARIO["people"]),
            "users made by events",
        )
        say("the users are there")

    def await_loyal(self, wanted: list[str], what: str) -> Any:
        """Polls the filtered and sorted query until it names these people in this order."""
        columns = ["user_id", "user_email", "user_name", *FIELDS]
        answer = poll(
            lambda: self.audience.users(SCENARIO["search"], columns, sort="lifetime_value", order="DESC"),
            lambda answer: ids(answer) == wanted,
            what,
        )
        require(total(answer) == len(wanted), f"{what}: total {total(answer)}")
        say(what)
        return answer
