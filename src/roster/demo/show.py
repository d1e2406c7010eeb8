"""Owns the guided tour of the demo: the main job done over HTTP against the running server, told step by step."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table as Grid

from roster.base.errors import Code, Error

BASE = "/api/v2/product-analytics"
CONNECTION = f"{BASE}/users/mapping/connection"
START_TIMEOUT_S = 30.0
SHOWN = ["user_id", "user_email", "customer_tier", "lifetime_value", "nps_score", "old_revenue_field"]

CREATE = {
    "data": {
        "id": "crm-integration",
        "type": "connection_id",
        "attributes": {
            "type": "ref_table",
            "join_type": "email",
            "join_attribute": "email",
            "metadata": {"table_name": "crm"},
            "fields": [
                {"id": "customer_tier", "source_name": "subscription_tier", "type": "string"},
                {"id": "lifetime_value", "source_name": "ltv", "type": "number", "display_name": "Lifetime Value"},
                {"id": "old_revenue_field", "source_name": "legacy_revenue", "type": "number"},
            ],
        },
    }
}
UPDATE = {
    "data": {
        "id": "crm-integration",
        "type": "connection_id",
        "attributes": {
            "fields_to_add": [
                {
                    "id": "nps_score",
                    "source_name": "net_promoter_score",
                    "type": "number",
                    "display_name": "NPS Score",
                    "groups": ["Satisfaction", "Metrics"],
                }
            ],
            "fields_to_update": [
                {
                    "field_id": "lifetime_value",
                    "updated_display_name": "Customer Lifetime Value (USD)",
                    "updated_groups": ["Financial", "Metrics"],
                }
            ],
            "fields_to_delete": ["old_revenue_field"],
        },
    }
}


@dataclass(frozen=True, slots=True)
class Tour:
    """Where the server is, its keys, and the user to look at."""

    url: str
    api_key: str
    application_key: str
    user_id: str

    def ask(self, verb: str, path: str, body: Any = None) -> Any:
        """One request and its JSON answer, None when it has none."""
        request = urllib.request.Request(
            self.url + path,
            None if body is None else json.dumps(body).encode(),
            {
                "DD-API-KEY": self.api_key,
                "DD-APPLICATION-KEY": self.application_key,
                "Content-Type": "application/json",
            },
            method=verb,
        )
        with urllib.request.urlopen(request) as answer:
            text = answer.read()
        return json.loads(text) if text else None

    def curl(self, verb: str, path: str, body: Any) -> str:
        """The same request for a shell."""
        lines = [
            f"curl -sS -X {verb} '{self.url}{path}' \\",
            f"  -H 'DD-API-KEY: {self.api_key}' -H 'DD-APPLICATION-KEY: {self.application_key}' \\",
            "  -H 'Content-Type: application/json' -d @- <<'EOF'",
            json.dumps(body, indent=2),
            "EOF",
        ]
        return "\n".join(lines)


def wait_until_up(url: str) -> None:
    """Return once the server answers. Error: TIMEOUT."""
    deadline_s = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline_s:
        try:
            with urllib.request.urlopen(f"{url}/health"):
                return
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.05)
    raise Error(Code.TIMEOUT, f"the server at {url} did not start")


def give_tour(tour: Tour, out: Console) -> None:
    """The main job: connect, look, update, look again, query."""
    wait_until_up(tour.url)
    out.rule("1. a connection brings the CRM's columns into the users", align="left")
    tour.ask("POST", CONNECTION, CREATE)
    _show_user(tour, out, "before the update")
    out.rule("2. one update adds nps_score, deletes old_revenue_field, relabels lifetime_value", align="left")
    started_s = time.perf_counter()
    tour.ask("PUT", CONNECTION, UPDATE)
    out.print(f"acknowledged after {(time.perf_counter() - started_s) * 1000:.1f} ms", highlight=False)
    _show_user(tour, out, "after the update")
    _show_label(tour, out)
    _show_facet(tour, out)
    query = _show_query(tour, out)
    out.rule("5. now you", align="left")
    out.print("The update again (sending it twice equals sending it once):", highlight=False)
    out.print(tour.curl("PUT", CONNECTION, UPDATE), highlight=False, markup=False, soft_wrap=True)
    out.print("\nThe query again:", highlight=False)
    out.print(tour.curl("POST", f"{BASE}/users/query", query), highlight=False, markup=False, soft_wrap=True)
    out.print(f"\nEvery path: {tour.url}/openapi.json", highlight=False)
    out.print("The server stays up; Ctrl-C ends it.", highlight=False)


def _query(search: str, columns: list[str], sort: str, limit: int) -> dict[str, Any]:
    attributes = {"query": search, "select_columns": columns, "sort": {"field": sort, "order": "DESC"}, "limit": limit}
    return {"data": {"type": "query_users_request", "attributes": attributes}}


def _show_user(tour: Tour, out: Console, caption: str) -> None:
    found = tour.ask("POST", f"{BASE}/users/query", _query(f"user_id:{tour.user_id}", SHOWN, "last_seen", 1))
    _print_hits(out, found["data"]["attributes"]["hits"], caption)


def _print_hits(out: Console, hits: list[dict[str, Any]], caption: str) -> None:
    grid = Grid(*hits[0], title=caption, title_justify="left")
    for hit in hits:
        grid.add_row(*("-" if value is None else str(value) for value in hit.values()))
    out.print(grid)


def _show_label(tour: Tour, out: Console) -> None:
    mapping = tour.ask("GET", f"{BASE}/users/mapping")["data"]["attributes"]["attributes"]
    label = next(a for a in mapping if a["attribute"] == "@lifetime_value")
    groups = ", ".join(label["groups"])
    out.print(f"@lifetime_value is now labelled {label['display_name']!r}, groups {groups}", highlight=False)


def _show_facet(tour: Tour, out: Console) -> None:
    out.rule("3. a facet of a CRM column", align="left")
    body = {"data": {"type": "users_facet_info_request", "attributes": {"facet_id": "customer_tier", "limit": 10}}}
    values = tour.ask("POST", f"{BASE}/users/facet_info", body)["data"]["attributes"]["result"]["values"]
    widest = max(v["count"] for v in values)
    for value in values:
        bar = "#" * max(1, round(40 * value["count"] / widest))
        out.print(f"  {value['value']:14} {value['count']:>7,} {bar}", highlight=False)


def _show_query(tour: Tour, out: Console) -> dict[str, Any]:
    search = "customer_tier:enterprise AND nps_score:>=9 AND session_count:>3"
    out.rule(f"4. users by {search}", align="left")
    query = _query(
        search, ["user_id", "user_email", "lifetime_value", "nps_score", "session_count"], "lifetime_value", 5
    )
    found = tour.ask("POST", f"{BASE}/users/query", query)["data"]["attributes"]
    _print_hits(out, found["hits"], f"{found['total']:,} users, the 5 with the highest lifetime value")
    return query
