"""Reads connections that carry rules of values with the official Python package; the test has made them."""

import sys
from typing import Any

import python_bodies as bodies
from datadog_api_client.v2.api.rum_audience_management_api import RumAudienceManagementApi
from python_client import Failure, Session, configuration, environment, require

CONNECTIONS = ["ruled-crm", "ruled-shop"]
COLUMNS = ["user_id", "ruled_level", "@ruled_score"]


def read(session: Session) -> None:
    """Every answer that may hold a rule; one that the package cannot decode is a failure."""
    api: Any = RumAudienceManagementApi(session.client)  # type: ignore[no-untyped-call]
    listed = session.call(api.list_connections, 200, entity="users")["data"]["attributes"]["connections"]
    fields = {one["id"]: [field["id"] for field in one["fields"]] for one in listed if one["id"] in CONNECTIONS}
    wanted = {"ruled-crm": ["ruled_level"], "ruled-shop": ["ruled_level", "ruled_score"]}
    require(fields == wanted, f"list connections: {fields}")
    rows = session.call(api.get_mapping, 200, entity="users")["data"]["attributes"]["attributes"]
    named = [row["attribute"] for row in rows if row["attribute"].startswith("@ruled")]
    require(named == ["@ruled_level", "@ruled_score"], f"mapping: {named}")
    found = session.call(api.query_users, 200, body=bodies.query_users("user_id:ruled-*", COLUMNS))
    hits = [[hit.get(name) for name in COLUMNS] for hit in found["data"]["attributes"]["hits"]]
    require(hits == [["ruled-1", "gold", 5], ["ruled-2", "iron", None]], f"query users: {hits}")


def main() -> int:
    """One run in the plain mode of the package."""
    try:
        made = configuration(environment("ROSTER_URL"), environment("DD_API_KEY"), environment("DD_APP_KEY"))
        session = Session("sync", made)
        try:
            read(session)
        finally:
            session.close()
    except Failure as failure:
        print(f"FAIL {failure}", file=sys.stderr)
        return 1
    print("done")
    return 0


if __name__ == "__main__":
    sys.exit(main())
