"""Steps on connections and profile queries with the official Python package; makes no table and no event."""

from typing import Any

import python_bodies as bodies
from datadog_api_client.v2.api.rum_audience_management_api import RumAudienceManagementApi
from python_client import Session, require

CONNECTION = "crm-integration"
FIELDS = ["customer_tier", "lifetime_value", "nps_score"]
ABSENT = 404


def say(text: str) -> None:
    """One line per step."""
    print(f"ok   {text}", flush=True)


def ids(answer: Any) -> list[str]:
    """The user ids of an answer, without the part that only makes them unique to this run."""
    return [hit["user_id"].split("-")[0] for hit in answer["data"]["attributes"]["hits"]]


def total(answer: Any) -> int:
    """The number of matches of a profile query."""
    return int(answer["data"]["attributes"]["total"])


def facet(answer: Any) -> list[list[Any]]:
    """The values of a facet with their counts, in the order of the answer."""
    values = answer["data"]["attributes"]["result"].get("values") or []
    return [[value["value"], value["count"]] for value in values]


class Audience:
    """The steps that concern connections and profiles."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.api = RumAudienceManagementApi(session.client)  # type: ignore[no-untyped-call]

    def clear(self) -> None:
        """Removes what an earlier, broken run may have left."""
        left = self.session.call(self.api.list_connections, 200, entity="users")
        for connection in left["data"]["attributes"].get("connections") or []:
            taken = {field["id"] for field in connection.get("fields") or []}
            if connection["id"] == CONNECTION or taken & set(FIELDS):
                self.session.call(self.api.delete_connection, 204, entity="users", id=connection["id"])

    def define(self, metadata: dict[str, str] | None = None) -> None:
        """Creates and updates the connection, each twice as a repeating client would, and reads it back."""
        for _ in range(2):
            made = bodies.create_connection(CONNECTION, metadata)
            self.session.call(self.api.create_connection, 201, entity="users", body=made)
        say("create connection, and the same again")
        for _ in range(2):
            changed = bodies.update_connection(CONNECTION)
            self.session.call(self.api.update_connection, 200, entity="users", body=changed)
        say("update connection, and the same again")
        self.check_list(metadata)
        self.check_mapping()

    def find(self) -> Any:
        """The connection as the list has it, or None."""
        answer = self.session.call(self.api.list_connections, 200, entity="users")
        found = answer["data"]["attributes"].get("connections") or []
        return next((connection for connection in found if connection["id"] == CONNECTION), None)

    def check_list(self, metadata: dict[str, str] | None) -> None:
        """The list shows the definition after the update."""
        found = self.find()
        require(found is not None, f"list connections: {CONNECTION} is not there")
        require(found["type"] == "ref_table", f"list connections: type {found['type']}")
        require(found["join"] == {"attribute": "user_email", "type": "email"}, f"list connections: {found['join']}")
        fields = {field["id"]: field for field in found["fields"]}
        require(sorted(fields) == FIELDS, f"list connections: fields {sorted(fields)}")
        score, value = fields["nps_score"], fields["lifetime_value"]
        require(score["source_name"] == "net_promoter_score", f"list connections: {score}")
        require(score["groups"] == ["Satisfaction", "Metrics"], f"list connections: {score}")
        require(value["display_name"] == "Customer Lifetime Value (`USD`)", f"list connections: {value}")
        require(value["groups"] == ["Financial", "Metrics"], f"list connections: {value}")
        kept = found.get("metadata") or {}
        require((metadata or {}).items() <= kept.items(), f"list connections: metadata {kept}")
        say("list connections shows the updated definition")

    def custom(self) -> dict[str, Any]:
        """The custom attributes of the mapping by id; a built-in must be there too."""
        answer = self.session.call(self.api.get_mapping, 200, entity="users")
        rows = {row["attribute"]: row for row in answer["data"]["attributes"]["attributes"]}
        require("user_id" in rows and not rows["user_id"]["is_custom"], "mapping: user_id is not a built-in")
        return {name: row for name, row in rows.items() if row["is_custom"]}

    def check_mapping(self) -> None:
        """The mapping shows the three custom attributes under their `@` names."""
        rows = self.custom()
        require({f"@{name}" for name in FIELDS} <= set(rows), f"mapping: {sorted(rows)}")
        value = rows["@lifetime_value"]
        require(value["type"] == "number", f"mapping: {value}")
        require(value["display_name"] == "Customer Lifetime Value (`USD`)", f"mapping: {value}")
        require(rows["@customer_tier"]["type"] == "string", f"mapping: {rows['@customer_tier']}")
        say("mapping shows the custom attributes")

    def remove(self) -> None:
        """Deletes the connection; its attributes go with it and a second delete finds nothing."""
        self.session.call(self.api.delete_connection, 204, entity="users", id=CONNECTION)
        require(self.find() is None, "delete connection: it is still listed")
        left = {f"@{name}" for name in FIELDS} & set(self.custom())
        require(not left, f"delete connection: {sorted(left)} still in the mapping")
        status = self.session.refused(self.api.delete_connection, entity="users", id=CONNECTION)
        require(status == ABSENT, f"second delete connection: expected {ABSENT}, got {status}")
        say("delete connection")

    def users(self, query: str, columns: list[str], **more: str) -> Any:
        """One profile query."""
        return self.session.call(self.api.query_users, 200, body=bodies.query_users(query, columns, **more))
