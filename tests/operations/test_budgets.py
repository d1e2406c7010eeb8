"""A query that would read too much is refused before it runs; an API key may have a budget of its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from inside import CALLER, inside
from roster.base.errors import Code, Error
from roster.model.access import Caller
from roster.operations.context import Request
from roster.operations.profiles import query_users

BODY = b'{"data": {"type": "query_users_request", "attributes": {}}}'


def test_a_key_may_have_a_budget_of_its_own(tmp_path: Path) -> None:
    people = [("ann", "ann@x.io"), ("bob", "bob@x.io")]
    with inside(tmp_path, people, query_rows_max_of={CALLER.api_key_id: 1}, query_timeout_s_of={"slow": 7}) as shop:
        with pytest.raises(Error) as refused:
            query_users(shop.context, Request(CALLER, BODY))
        assert refused.value.code is Code.TOO_LARGE
        other = query_users(shop.context, Request(Caller("tester", "another"), BODY))
        assert other.body["data"]["attributes"]["total"] == 2
        assert shop.context.limits.budget("slow").timeout_s == 7
        assert shop.context.limits.budget().timeout_s == 30


def test_a_query_that_would_read_too_many_rows_is_refused_before_it_runs(tmp_path: Path) -> None:
    people = [(f"u{n}", f"u{n}@x.io") for n in range(5)]
    with inside(tmp_path, people, query_reads_max=9, query_reads_max_of={"heavy": 0}) as shop:
        explained = query_users(shop.context, Request(CALLER, BODY, query={"explain": ["true"]}))
        reads = [read for query in explained.body["data"]["attributes"]["queries"] for read in query["reads"]]
        assert reads == [{"relation": "users", "rows": 5}] * 2  # the page, and the total
        with pytest.raises(Error) as refused:
            query_users(shop.context, Request(CALLER, BODY))
        assert refused.value.code is Code.TOO_LARGE
        assert refused.value.message == "the query would read 10 rows (5 of users, 5 of users)"
        assert refused.value.hint == "at most 9 rows (setting query_reads_max): ask for less time"
        query_users(shop.context, Request(Caller("tester", "heavy"), BODY))
