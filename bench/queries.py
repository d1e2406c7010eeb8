"""Owns the read workloads as data: the request as a caller sends it, and the SQL a good engineer would write.

By hand there are two ways: `enriched` reads the joined table that the product keeps ready, `joined`
joins the reference table while it reads. Each is the list of statements whose rows answer the request.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from bench.world import DAY_MS, END_MS, FIELDS
from roster.model.schema import USER_BUILTINS, Type

BASE = "/api/v2/product-analytics/users"
ENRICHED = "users_enriched_1"
ALL = (*(b.id for b in USER_BUILTINS), *(f"@{id}" for id in FIELDS))
FEW = ("user_id", "user_email", "@tier", "@lead_score", "last_seen")
TERM = "meyer"
FROM_S, TO_S = (END_MS - 30 * DAY_MS) // 1000, END_MS // 1000


@dataclass(frozen=True, slots=True)
class Source:
    """What a hand-written statement reads, and how it spells a custom attribute."""

    relation: str
    prefix: str

    def column(self, attribute: str) -> str:
        """`@tier` is the table's column, `last_seen` the profile's."""
        name = attribute.removeprefix("@")
        return f'{self.prefix}{name}"' if attribute.startswith("@") else f'"{name}"'

    def columns(self, attributes: tuple[str, ...]) -> str:
        return ", ".join(self.column(a) for a in attributes)


def enriched() -> Source:
    """The product's own joined table."""
    return Source(ENRICHED, '"crm.')


def joined(table_id: str) -> Source:
    """Users beside the current rows of the reference table, on the address in lower case without blanks."""
    on = "lower(trim(crm.email)) = lower(trim(users.user_email))"
    return Source(f"users LEFT JOIN table_{table_id.replace('-', '')}_1 AS crm ON {on}", 'crm."')


@dataclass(frozen=True, slots=True)
class Read:
    """One read workload. `by_hand` gives the statements over a source."""

    name: str
    note: str
    path: str
    body: dict[str, Any]
    columns: tuple[str, ...]
    where: str
    order: str
    limit: int = 25
    group: str | None = None

    def by_hand(self, source: Source) -> list[str]:
        """Page and total, or the values of a facet; `{@x}` in the condition stands for an attribute."""
        where = self.where
        for attribute in ("@tier", "@owner", *ALL):
            where = where.replace("{" + attribute + "}", source.column(attribute))
        where = where.replace("{term}", text_contains(source, TERM))
        if self.group:
            value = source.column(self.group)
            return [
                f"SELECT {value} AS value, count(*) AS n FROM {source.relation} WHERE {where} AND {value} IS NOT NULL "
                f"GROUP BY 1 ORDER BY n DESC, value LIMIT {self.limit}"
            ]
        return [
            f"SELECT {source.columns(self.columns)} FROM {source.relation} WHERE {where} "
            f"ORDER BY {self.order} LIMIT {self.limit}",
            f"SELECT count(*) FROM {source.relation} WHERE {where}",
        ]


def text_contains(source: Source, term: str) -> str:
    """A wildcard term looks at every text and at every custom attribute's text."""
    texts = [f'"{b.id}"' for b in USER_BUILTINS if b.type is Type.STRING]
    for id, type in FIELDS.items():
        column = source.column(f"@{id}")
        match type:
            case "string":
                texts.append(column)
            case "timestamp":
                texts.append(f"strftime({column}, '%Y-%m-%dT%H:%M:%S.%gZ')")
            case _:
                texts.append(f"{column}::VARCHAR")
    return "(" + " OR ".join(f"contains(lower({text}), '{term}')" for text in texts) + ")"


def _page(attributes: dict[str, Any]) -> dict[str, Any]:
    asked = {"limit": 25, "sort": {"field": "events_count", "order": "desc"}} | attributes
    return {"data": {"type": "query_users_request", "attributes": asked}}


SEARCH = "@tier:gold AND last_country_code:DE AND session_count:>3"
BY_HAND = "{@tier} = 'gold' AND {last_country_code} = 'DE' AND {session_count} > 3"
BUSIEST = "events_count DESC NULLS LAST, user_id"
LATEST = "last_seen DESC NULLS LAST, user_id"

READS = (
    Read(
        "page",
        f"page of 25 with total: {SEARCH}, all columns",
        f"{BASE}/query",
        _page({"query": SEARCH}),
        ALL,
        BY_HAND,
        BUSIEST,
    ),
    Read(
        "page_columns",
        f"the same page with {len(FEW)} columns",
        f"{BASE}/query",
        _page({"query": SEARCH, "select_columns": list(FEW)}),
        FEW,
        BY_HAND,
        BUSIEST,
    ),
    Read(
        "page_wildcard",
        f"page of 25 with total: session_count:>3 and the wildcard term {TERM!r} over all texts",
        f"{BASE}/query",
        _page({"query": "session_count:>3", "wildcard_search_term": TERM}),
        ALL,
        "{session_count} > 3 AND {term}",
        BUSIEST,
    ),
    Read(
        "facet",
        "facet of @owner under @tier:gold AND last_country_code:DE, 25 values",
        f"{BASE}/facet_info",
        {
            "data": {
                "type": "users_facet_info_request",
                "attributes": {
                    "facet_id": "@owner",
                    "limit": 25,
                    "search": {"query": "@tier:gold AND last_country_code:DE"},
                },
            }
        },
        (),
        "{@tier} = 'gold' AND {last_country_code} = 'DE'",
        "",
        group="@owner",
    ),
    Read(
        "event_users",
        "page of 25 with total: @tier:gold users who viewed /checkout in the last 30 days",
        f"{BASE}/event_filtered_query",
        {
            "data": {
                "type": "query_event_filtered_users_request",
                "attributes": {
                    "query": "@tier:gold",
                    "event_query": {
                        "query": "@type:view AND @view.name:/checkout",
                        "time_frame": {"start": FROM_S, "end": TO_S},
                    },
                    "include_row_count": True,
                    "limit": 25,
                },
            }
        },
        ALL,
        "{@tier} = 'gold' AND user_id IN (SELECT user_id FROM events WHERE type = 'view' AND view_name = '/checkout' "
        f"AND time >= make_timestamp_ms({FROM_S}000) AND time < make_timestamp_ms({TO_S}000))",
        LATEST,
    ),
)
