"""What two versions of the browser SDK really sent is taken, byte for byte, once, and found again by a query."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from http_senders import keys_of, logged, new_token, recorded, replay
from servers import Server

RECORDINGS = ("browser_plain", "browser_compress", "browser_v4")
USERS = "/api/v2/product-analytics/users/query"


@pytest.fixture
def patient(tmp_path: Path) -> Iterator[Server]:
    """A server that applies nothing by itself, so that its log can be looked at."""
    with Server(tmp_path, apply_interval_s="3600") as running:
        yield running


@pytest.mark.parametrize("name", RECORDINGS)
def test_a_recording_is_taken_whole_and_found_again(patient: Server, name: str) -> None:
    requests = recorded(name, new_token(patient))
    assert len(requests) >= 2, "a visit and what its end sent"
    for request in requests:
        answer = replay(patient, request)
        assert answer.status == 202, answer.body
        assert answer.headers["access-control-allow-origin"] == "*"
        assert list(answer.json()) == ["request_id"]
    expected = [event for request in requests for event in request.events]
    lines = logged(patient)
    assert keys_of(expected) <= {line["k"] for line in lines}
    for request in requests:
        assert replay(patient, request).status == 202, "as after an answer that never arrived"
    patient.stop()
    patient.start()
    attributes = {"query": "user_email:jane@example.com", "select_columns": ["user_id", "user_name", "events_count"]}
    asked = {"data": {"type": "query_users_request", "attributes": attributes}}
    (hit,) = patient.ask("POST", USERS, asked).json()["data"]["attributes"]["hits"]
    assert (hit["user_id"], hit["user_name"]) == ("user-1", "Jane Doe")
    of_user = [event for event in expected if event.get("usr", {}).get("id") == "user-1"]
    assert hit["events_count"] == len(keys_of(of_user)), "each event once, however often it came"
