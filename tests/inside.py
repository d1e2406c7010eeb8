"""Owns a whole product inside the test's own process: profiles, tables, and operations called as a door would."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from roster.base.errors import Error
from roster.main import Product, SystemClock
from roster.model.access import Caller
from roster.model.reference_table import Table
from roster.model.schema import Entity
from roster.operations import mapping, profiles
from roster.operations.context import Context, Reply, Request
from roster.operations.load import load_events, load_table
from roster.settings import Settings

CALLER = Caller("tester", "key")


@dataclass(slots=True)
class Inside:
    """One product; `call` gives an operation's reply, `refuse` the error it ends with."""

    product: Product
    folder: Path
    tables: int = 0

    @property
    def context(self) -> Context:
        return self.product.context

    @staticmethod
    def entity() -> Entity:
        return Entity.USERS

    def request(self, body: Any = None, entity: str = "users", **query: str) -> Request:
        raw = b"" if body is None else json.dumps(body).encode()
        headers = {"x-roster-reason": query.pop("reason", "")}
        path = {"entity": entity, "id": query.pop("id", "")}
        return Request(CALLER, raw, path, {k: [v] for k, v in query.items()}, headers)

    def create(self, id: str, attributes: dict[str, Any], **query: str) -> Reply:
        body = {"data": {"type": "connection_id", "id": id, "attributes": attributes}}
        return mapping.create_connection(self.context, self.request(body, **query))

    def update(self, id: str, attributes: dict[str, Any], **query: str) -> Reply:
        body = {"data": {"type": "connection_id", "id": id, "attributes": attributes}}
        return mapping.update_connection(self.context, self.request(body, **query))

    def delete(self, id: str, **query: str) -> Reply:
        return mapping.delete_connection(self.context, self.request(id=id, **query))

    def connections(self) -> list[dict[str, Any]]:
        reply = mapping.list_connections(self.context, self.request())
        found: list[dict[str, Any]] = reply.body["data"]["attributes"]["connections"]
        return found

    def attributes(self) -> list[str]:
        """Custom attributes, without their sign."""
        shown = mapping.get_mapping(self.context, self.request()).body["data"]["attributes"]["attributes"]
        return [a["attribute"].removeprefix("@") for a in shown if a["is_custom"]]

    def values(self, names: Sequence[str], **query: str) -> dict[str, dict[str, Any]]:
        """Profile → name → value, of every profile; names without a meaning are left out."""
        attributes = {"select_columns": ["user_id", *names], "limit": 10_000}
        body = {"data": {"type": "query_users_request", "attributes": attributes}}
        hits = profiles.query_users(self.context, self.request(body, **query)).body["data"]["attributes"]["hits"]
        return {hit.pop("user_id"): hit for hit in hits}

    def add_table(self, columns: Sequence[str], rows: Sequence[Sequence[str]], key: str, name: str = "") -> Table:
        """A reference table of texts as a file has them; types are found by looking."""
        self.tables += 1
        path = self.folder / f"{name or f'table_{self.tables}'}.csv"
        with path.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([columns, *rows])
        return load_table(self.context, path, None, key)[0]


@contextmanager
def inside(folder: Path, people: Sequence[tuple[str, str]], **settings: Any) -> Iterator[Inside]:
    """A product with a profile for each user id and e-mail."""
    product = Product(Settings(data=folder / "data", **settings), SystemClock())
    product.start(serving=False)
    try:
        path = folder / "people.ndjson"
        events = [
            {"type": "view", "date": 1_700_000_000_000 + n, "usr": {"id": id, "email": email}, "view": {"id": f"v{n}"}}
            for n, (id, email) in enumerate(people)
        ]
        path.write_text("".join(json.dumps(e) + "\n" for e in events), "utf-8")
        load_events(product.context, path, {}, lambda _: None)
        yield Inside(product, folder)
    finally:
        product.stop()


def code_of(error: Error) -> tuple[str, str, str]:
    return error.code.value, error.message, error.at
