"""An API key may have a budget of its own."""

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
