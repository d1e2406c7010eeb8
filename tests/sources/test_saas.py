"""Salesforce and HubSpot, read by the real readers from servers that speak the documented wire."""

import csv
import io
import json
import re
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from reads import LOCAL, Asked, Said, columns_of, make_job, rows_of, speaking
from roster.base.errors import Code, Error
from roster.model.source import parse_origin
from roster.ports import Cancel, Reading, Wanted
from roster.sources import hubspot, salesforce
from roster.sources.policy import Policy
from roster.sources.process import ChildSources, SourceLimits
from roster.sources.scrub import scrub
from roster.sources.web import only_allowed

TOKEN = "00Dxx!AQ4AQFtoken"
DATA = f"/services/data/v{salesforce.VERSION}"
FIELDS = {
    "Id": "id",
    "Email": "email",
    "Score__c": "double",
    "Seats__c": "int",
    "Active__c": "boolean",
    "SystemModstamp": "datetime",
    "MailingAddress": "address",
}


def contact(number: int, day: int = 1) -> dict[str, Any]:
    """A record as the API spells it."""
    return {
        "attributes": {"type": "Contact", "url": f"{DATA}/sobjects/Contact/{number}"},
        "Id": f"003{number:04}",
        "Email": f"c{number}@example.com" if number % 2 else None,
        "Score__c": number + 0.5,
        "Seats__c": number,
        "Active__c": number % 2 == 1,
        "SystemModstamp": f"2026-01-{day:02}T10:00:00.000+0000",
    }


@dataclass
class Org:
    """A Salesforce organisation with contacts, in pages of two; `fails` answers instead, by the end of a path."""

    contacts: list[dict[str, Any]]
    fails: dict[str, Said] = field(default_factory=dict)
    polls: int = 0

    def answer(self, asked: Asked) -> Said:
        for end, said in self.fails.items():
            if asked.path.endswith(end):
                return said
        if asked.path == "/services/oauth2/token":
            if asked.form() != {"grant_type": "client_credentials", "client_id": "cid", "client_secret": "s3cr3t-c"}:
                wrong = {"error": "invalid_client", "error_description": "invalid client credentials"}
                return Said(wrong, 400)
            return Said({"access_token": TOKEN, "instance_url": "https://evil.example.com", "token_type": "Bearer"})
        if asked.headers.get("authorization") != f"Bearer {TOKEN}":
            return Said([{"message": "Session expired or invalid", "errorCode": "INVALID_SESSION_ID"}], 401)
        if asked.path == f"{DATA}/sobjects/Contact/describe":
            return Said({"name": "Contact", "fields": [{"name": n, "type": t} for n, t in FIELDS.items()]})
        if asked.path.startswith(f"{DATA}/jobs/query"):
            return self.bulk(asked)
        if asked.path.startswith(f"{DATA}/query"):
            return self.query(asked)
        return Said([{"errorCode": "NOT_FOUND", "message": "The requested resource does not exist"}], 404)

    def chosen(self, text: str) -> list[dict[str, Any]]:
        since = re.search(r"WHERE SystemModstamp >= (\S+)Z", text)
        return [c for c in self.contacts if not since or c["SystemModstamp"][:23] >= since[1]]

    def query(self, asked: Asked) -> Said:
        text = asked.query.get("q", "")
        after = int(asked.path.rsplit("-", 1)[1]) if "-" in asked.path else 0
        found = self.chosen(text)
        if text.startswith("SELECT COUNT()"):
            return Said({"totalSize": len(found), "done": True, "records": []})
        last = after + 2 >= len(found)
        page = {"totalSize": len(found), "done": last, "records": found[after : after + 2]}
        return Said(page if last else page | {"nextRecordsUrl": f"https://169.254.169.254/x/query/01g00-{after + 2}"})

    def bulk(self, asked: Asked) -> Said:
        if asked.method == "POST":
            assert asked.json()["operation"] == "query"
            return Said({"id": "750x", "state": "UploadComplete"})
        if asked.path.endswith("/results"):
            after = int(asked.query.get("locator", "0"))
            text = io.StringIO()
            names = [name for name, kind in FIELDS.items() if kind != "address"]
            writer = csv.DictWriter(text, names, extrasaction="ignore", lineterminator="\n")
            writer.writeheader()
            for record in self.contacts[after : after + 3]:
                shown = {k: str(v).lower() if isinstance(v, bool) else v for k, v in record.items()}
                writer.writerow(shown)
            following = str(after + 3) if after + 3 < len(self.contacts) else "null"
            count = len(self.contacts[after : after + 3])
            headers = {"Sforce-Locator": following, "Sforce-NumberOfRecords": str(count), "content-type": "text/csv"}
            return Said(text.getvalue(), headers=headers)
        self.polls += 1
        return Said({"id": "750x", "state": "JobComplete" if self.polls > 1 else "InProgress"})


needs_salesforce = pytest.mark.skipif(
    not find_spec("simple_salesforce"), reason="the extra `salesforce` is not installed"
)


@needs_salesforce
def test_salesforce_reads_an_object_by_pages(tmp_path: Path) -> None:
    org = Org([contact(n) for n in range(1, 6)])
    told: list[Reading] = []
    with speaking(org.answer) as (url, heard):
        options = {"object": "Contact", "instance_url": url}
        secret = {"client_id": "cid", "client_secret": "s3cr3t-c"}
        job = make_job(tmp_path, "salesforce", options, secret, report=told.append)
        fetched = salesforce.read(job)
    assert columns_of(job, fetched) == {
        "Id": "VARCHAR",
        "Email": "VARCHAR",
        "Score__c": "DOUBLE",
        "Seats__c": "BIGINT",
        "Active__c": "BOOLEAN",
        "SystemModstamp": "VARCHAR",
    }
    rows = rows_of(job, fetched)
    assert len(rows) == 5
    assert rows[0] == ("0030001", "c1@example.com", 1.5, 1, True, "2026-01-01T10:00:00.000Z")
    assert rows[1][1] is None
    assert told[-1].rows == 5 and told[-1].rows_total == 5
    # three pages, each asked of the organisation itself, whatever address the answer gives
    assert [a.path.removeprefix(DATA) for a in heard][-3:] == ["/query/", "/query/01g00-2", "/query/01g00-4"]
    assert fetched is not None and (fetched.rows, fetched.changes_only) == (5, False)


@needs_salesforce
def test_salesforce_tells_unchanged_rows_and_reads_changed_ones_by_cursor(tmp_path: Path) -> None:
    org = Org([contact(n) for n in range(1, 6)])
    with speaking(org.answer) as (url, _):
        options = {"object": "Contact", "instance_url": url, "cursor": "SystemModstamp"}
        secret = {"access_token": TOKEN}
        first = salesforce.read(make_job(tmp_path, "salesforce", options, secret))
        assert first is not None and first.cursor == "2026-01-01T10:00:00.000Z"
        again = make_job(tmp_path, "salesforce", options, secret, fingerprint=first.fingerprint)
        assert salesforce.read(again) is None
        org.contacts[2] = contact(3, day=7)
        job = make_job(
            tmp_path, "salesforce", options, secret, fingerprint=first.fingerprint, cursor="2026-01-02T00:00:00.000Z"
        )
        changed = salesforce.read(job)
        assert changed is not None and changed.changes_only
        assert [row[0] for row in rows_of(job, changed)] == ["0030003"]
        assert changed.cursor == "2026-01-07T10:00:00.000Z"
        job = make_job(tmp_path, "salesforce", options, secret, cursor="2027-01-01T00:00:00.000Z")
        nothing = salesforce.read(job)
        assert nothing is not None and nothing.rows == 0 and nothing.cursor == job.cursor
        job = make_job(tmp_path, "salesforce", options, secret, cursor=changed.cursor, full=True)
        whole = salesforce.read(job)
        assert whole is not None and whole.rows == 5 and not whole.changes_only


@needs_salesforce
def test_salesforce_reads_large_objects_by_bulk_with_the_same_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    org = Org([contact(n) for n in range(1, 8)])
    with speaking(org.answer) as (url, heard):
        options = {"object": "Contact", "instance_url": url}
        job = make_job(tmp_path, "salesforce", options, {"access_token": TOKEN})
        by_pages = salesforce.read(job)
        monkeypatch.setattr(salesforce, "BULK_ROWS_MIN", 5)
        by_bulk = salesforce.read(job)
    assert by_bulk == by_pages
    assert sum(a.path.endswith("/results") for a in heard) == 3


@needs_salesforce
def test_salesforce_query_brings_parents_and_refuses_effects(tmp_path: Path) -> None:
    records = [
        {
            "attributes": {},
            "Id": "1",
            "Account": {"attributes": {}, "Name": "Acme", "Owner": {"attributes": {}, "Age": 3}},
        },
        {"attributes": {}, "Id": "2", "Account": None},
    ]
    with speaking(lambda asked: Said({"totalSize": 2, "done": True, "records": records})) as (url, _):
        options = {"query": "SELECT Id, Account.Name FROM Contact WHERE Name != 'a; b'", "instance_url": url}
        job = make_job(tmp_path, "salesforce", options, {"access_token": TOKEN})
        fetched = salesforce.read(job)
        assert rows_of(job, fetched) == [("1", "Acme", 3, None), ("2", None, None, None)]
        wrong = [
            "DELETE FROM Contact",
            "SELECT Id FROM Contact FOR UPDATE",
            "SELECT Id FROM Contact; SELECT Id FROM Lead",
            "SELECT Id FROM Knowledge UPDATE VIEWSTAT",
        ]
        for query in wrong:
            job = make_job(tmp_path, "salesforce", options | {"query": query}, {"access_token": TOKEN})
            assert failure(salesforce, job).code is Code.INVALID
        job = make_job(tmp_path, "salesforce", options | {"cursor": "Id"}, {"access_token": TOKEN})
        assert failure(salesforce, job).at == "cursor"


def test_salesforce_query_without_rows_still_has_its_columns() -> None:
    assert salesforce.selected("select Id, Account.Name,\n toLabel(Status) from Contact") == ["Id", "Account.Name"]


def failure(module: Any, job: Any) -> Error:
    with pytest.raises(Error) as caught:
        module.read(job)
    shown = caught.value.text()
    assert scrub(shown, job.secret) == shown
    return caught.value


SALESFORCE_ERRORS = [
    (401, [{"errorCode": "INVALID_SESSION_ID", "message": f"{TOKEN} expired"}], Code.UNAUTHENTICATED),
    (403, [{"errorCode": "REQUEST_LIMIT_EXCEEDED", "message": "TotalRequests Limit exceeded."}], Code.BUSY),
    (403, [{"errorCode": "API_DISABLED_FOR_ORG", "message": "API is not enabled"}], Code.FORBIDDEN),
    (400, [{"errorCode": "INVALID_TYPE", "message": "sObject type 'Contact' is not supported."}], Code.NOT_FOUND),
    (400, [{"errorCode": "INVALID_FIELD", "message": "No such column"}], Code.INVALID),
    (404, [{"errorCode": "NOT_FOUND", "message": "The requested resource does not exist"}], Code.NOT_FOUND),
    (429, "slow down", Code.BUSY),
    (500, [{"errorCode": "UNKNOWN_EXCEPTION", "message": "An unexpected error occurred."}], Code.BUSY),
    (503, "<html>maintenance</html>", Code.BUSY),
    (200, "<html>a login page</html>", Code.BUSY),
]


@needs_salesforce
@pytest.mark.parametrize(("status", "body", "code"), SALESFORCE_ERRORS)
@pytest.mark.parametrize("end", ["/describe", "/query/"])
def test_salesforce_errors(tmp_path: Path, status: int, body: Any, code: Code, end: str) -> None:
    org = Org([contact(1)], fails={end: Said(body, status)})
    with speaking(org.answer) as (url, _):
        options = {"object": "Contact", "instance_url": url}
        job = make_job(tmp_path, "salesforce", options, {"access_token": TOKEN})
        assert failure(salesforce, job).code is code


@needs_salesforce
def test_salesforce_credentials_and_places(tmp_path: Path) -> None:
    org = Org([contact(1)], fails={"/describe": Said(status=302, headers={"location": "/elsewhere"})})
    with speaking(org.answer) as (url, heard):
        options = {"object": "Contact", "instance_url": url}
        wrong = {"client_id": "cid", "client_secret": "not-the-secret"}
        assert failure(salesforce, make_job(tmp_path, "salesforce", options, wrong)).code is Code.UNAUTHENTICATED
        assert failure(salesforce, make_job(tmp_path, "salesforce", options)).code is Code.UNAUTHENTICATED
        assert (
            failure(salesforce, make_job(tmp_path, "salesforce", options, {"access_token": TOKEN})).code
            is Code.FORBIDDEN
        )
        asked = len(heard)
        refused = make_job(tmp_path, "salesforce", options, {"access_token": TOKEN}, policy=Policy(("*",)))
        assert failure(salesforce, refused).code is Code.FORBIDDEN
        named = make_job(tmp_path, "salesforce", options | {"object": "Contact WHERE"}, {"access_token": TOKEN})
        assert failure(salesforce, named).at == "object"
        assert len(heard) == asked
    assert failure(salesforce, make_job(tmp_path, "salesforce", options, {"access_token": TOKEN})).code is Code.BUSY


def test_libraries_connect_to_allowed_hosts_only() -> None:
    requests = pytest.importorskip("requests")
    with speaking(lambda asked: Said({"ok": True})) as (url, heard):
        port = url.rsplit(":", 1)[1]
        with only_allowed(Policy(("127.0.0.1", "localhost"), loopback=True)):
            assert requests.get(url, timeout=5).json() == {"ok": True}
            assert requests.get(f"http://localhost:{port}", timeout=5).json() == {"ok": True}
            for other in ("http://169.254.169.254/latest", "http://192.0.2.1"):
                with pytest.raises(Error) as caught:
                    requests.get(other, timeout=5)
                assert caught.value.code is Code.FORBIDDEN
        with only_allowed(Policy(("localhost",))):
            for other in (f"http://localhost:{port}", "http://other.example.com"):
                with pytest.raises(Error) as caught:
                    requests.get(other, timeout=5)
                assert caught.value.code is Code.FORBIDDEN
        assert len(heard) == 2
        assert requests.get(url, timeout=5).json() == {"ok": True}


PAT = "pat-na1-11111111-2222"
PROPERTIES = ("email", "plan", "seats")


@dataclass
class Portal:
    """A HubSpot account with contacts; `before` are answers given first."""

    count: int
    before: list[Said] = field(default_factory=list)

    def answer(self, asked: Asked) -> Said:
        if self.before:
            return self.before.pop(0)
        if asked.headers.get("authorization") != f"Bearer {PAT}":
            wrong = {
                "status": "error",
                "message": "Authentication credentials not found.",
                "category": "INVALID_AUTHENTICATION",
            }
            return Said(wrong, 401)
        if asked.path == f"/crm/properties/{hubspot.VERSION}/contacts":
            return Said({"results": [{"name": name, "type": "string"} for name in PROPERTIES]})
        if asked.path == f"/crm/objects/{hubspot.VERSION}/contacts":
            after, limit = int(asked.query.get("after", "0")), int(asked.query["limit"])
            names = asked.query.get("properties", "").split(",")
            last = min(after + limit, self.count)
            page: dict[str, Any] = {"results": [self.record(n, names) for n in range(after, last)]}
            more = {"paging": {"next": {"after": str(last), "link": "http://169.254.169.254/"}}}
            return Said(page | (more if last < self.count else {}))
        if asked.path == f"/crm/objects/{hubspot.VERSION}/contacts/batch/read":
            body = asked.json()
            return Said({"results": [self.record(int(one["id"]), body["properties"]) for one in body["inputs"]]})
        return Said({"status": "error", "message": "Unable to infer object type", "category": "OBJECT_NOT_FOUND"}, 404)

    @staticmethod
    def record(number: int, names: list[str]) -> dict[str, Any]:
        values = {"email": f"h{number}@example.com", "plan": None, "seats": str(number)}
        return {
            "id": str(number),
            "properties": {"hs_object_id": str(number)} | {name: values[name] for name in names if name in values},
            "createdAt": "2026-01-01T00:00:00.000Z",
            "updatedAt": "2026-02-01T00:00:00.000Z",
            "archived": False,
        }


def test_hubspot_reads_all_properties_by_pages(tmp_path: Path) -> None:
    portal = Portal(250)
    with speaking(portal.answer) as (url, heard):
        options = {"object": "contacts", "base_url": url}
        job = make_job(tmp_path, "hubspot", options, {"access_token": PAT})
        fetched = hubspot.read(job)
        assert fetched is not None and fetched.rows == 250
        assert list(columns_of(job, fetched)) == ["id", *PROPERTIES, "createdAt", "updatedAt"]
        assert set(columns_of(job, fetched).values()) == {"VARCHAR"}
        rows = rows_of(job, fetched, "CAST(id AS INT)")
        assert rows[7] == ("7", "h7@example.com", None, "7", "2026-01-01T00:00:00.000Z", "2026-02-01T00:00:00.000Z")
        assert len(heard) == 4
        again = make_job(tmp_path, "hubspot", options, {"access_token": PAT}, fingerprint=fetched.fingerprint)
        assert hubspot.read(again) is None
        some = make_job(tmp_path, "hubspot", options | {"properties": "seats, email"}, {"access_token": PAT})
        assert list(columns_of(some, hubspot.read(some))) == ["id", "seats", "email", "createdAt", "updatedAt"]


def test_hubspot_asks_for_many_properties_in_the_body(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with speaking(Portal(120).answer) as (url, heard):
        job = make_job(tmp_path, "hubspot", {"object": "contacts", "base_url": url}, {"access_token": PAT})
        in_address = hubspot.read(job)
        monkeypatch.setattr(hubspot, "ASK_URL_MAX", 10)
        assert hubspot.read(job) == in_address
    assert [len(a.json()["inputs"]) for a in heard if a.method == "POST"] == [100, 20]


def test_hubspot_of_no_records_keeps_its_columns(tmp_path: Path) -> None:
    with speaking(Portal(0).answer) as (url, _):
        job = make_job(tmp_path, "hubspot", {"object": "contacts", "base_url": url}, {"access_token": PAT})
        fetched = hubspot.read(job)
        assert rows_of(job, fetched) == []
        assert len(columns_of(job, fetched)) == 6


def test_hubspot_waits_when_told_to(tmp_path: Path) -> None:
    limited = {
        "status": "error",
        "message": "You have reached your ten_secondly_rolling limit.",
        "policyName": "TEN_SECONDLY_ROLLING",
    }
    spent = {"status": "error", "message": "You have reached your daily limit.", "policyName": "DAILY"}
    asked_to_wait = Said(limited, 429, {"Retry-After": "0"})
    with speaking(Portal(3, [asked_to_wait, Said("", 502, {"Retry-After": "0"})]).answer) as (url, heard):
        job = make_job(tmp_path, "hubspot", {"object": "contacts", "base_url": url}, {"access_token": PAT})
        fetched = hubspot.read(job)
        assert fetched is not None and fetched.rows == 3 and len(heard) == 4
    for refusal, tries in ((asked_to_wait, hubspot.ATTEMPTS), (Said(spent, 429), 1)):
        with speaking(Portal(3, [refusal] * 99).answer) as (url, heard):
            job = make_job(tmp_path, "hubspot", {"object": "contacts", "base_url": url}, {"access_token": PAT})
            assert failure(hubspot, job).code is Code.BUSY
            assert len(heard) == tries
    assert [hubspot.wait_s("7", 1), hubspot.wait_s("999", 1), hubspot.wait_s("", 1), hubspot.wait_s("-5", 1)] == [
        7,
        30,
        1,
        0,
    ]
    assert hubspot.wait_s("nan", 2) == 2


HUBSPOT_ERRORS = [
    (Said({"message": f"token {PAT} expired", "category": "EXPIRED_AUTHENTICATION"}, 401), Code.UNAUTHENTICATED),
    (Said({"message": "This app hasn't been granted all required scopes"}, 403), Code.FORBIDDEN),
    (Said({"message": "Unable to infer object type"}, 404), Code.NOT_FOUND),
    (Said({"message": "Property values were not valid"}, 400), Code.INVALID),
    (Said("", 307, {"location": "http://169.254.169.254/"}), Code.FORBIDDEN),
    (Said("<html>"), Code.BUSY),
]


@pytest.mark.parametrize(("said", "code"), HUBSPOT_ERRORS)
def test_hubspot_errors(tmp_path: Path, said: Said, code: Code) -> None:
    with speaking(Portal(1, [said]).answer) as (url, _):
        job = make_job(tmp_path, "hubspot", {"object": "contacts", "base_url": url}, {"access_token": PAT})
        assert failure(hubspot, job).code is code


def test_hubspot_stops_at_pages_without_end_and_too_much_data(tmp_path: Path) -> None:
    page = {"results": [Portal.record(1, ["email"])], "paging": {"next": {"after": "1"}}}
    with speaking(lambda asked: Said(page)) as (url, heard):
        options = {"object": "contacts", "properties": "email", "base_url": url}
        assert failure(hubspot, make_job(tmp_path, "hubspot", options, {"access_token": PAT})).code is Code.INVALID
        assert len(heard) == 2
        small = make_job(tmp_path, "hubspot", options, {"access_token": PAT}, bytes_max=10)
        assert failure(hubspot, small).code is Code.TOO_LARGE


def test_hubspot_asks_allowed_hosts_only(tmp_path: Path) -> None:
    options = {"object": "contacts"}
    for policy in (Policy(), Policy(("api.example.com",))):
        job = make_job(tmp_path, "hubspot", options, {"access_token": PAT}, policy=policy)
        assert failure(hubspot, job).code is Code.FORBIDDEN
    with pytest.raises(Error, match="more than a place"):
        parse_origin("hubspot", options | {"base_url": "https://user:pw@127.0.0.1"})
    for url in ("http://192.0.2.1", "ftp://127.0.0.1", "no address"):
        job = make_job(
            tmp_path,
            "hubspot",
            options | {"base_url": url},
            {"access_token": PAT},
            policy=Policy(("*",), loopback=True),
        )
        assert failure(hubspot, job).code is Code.INVALID
    assert failure(hubspot, make_job(tmp_path, "hubspot", options)).code is Code.UNAUTHENTICATED
    named = make_job(tmp_path, "hubspot", {"object": "../x", "base_url": "http://127.0.0.1"}, {"access_token": PAT})
    assert failure(hubspot, named).at == "object"


@needs_salesforce
def test_readers_run_in_a_process_of_their_own(tmp_path: Path) -> None:
    sources = ChildSources(SourceLimits(hosts=LOCAL, loopback=True))
    told: list[Reading] = []
    with speaking(Org([contact(n) for n in range(1, 6)]).answer) as (url, _):
        origin = parse_origin("salesforce", {"object": "Contact", "instance_url": url})
        (tmp_path / "s").mkdir()
        fetched = sources.fetch(Wanted(origin, {"access_token": TOKEN}, tmp_path / "s"), told.append, Cancel())
        assert fetched is not None and fetched.rows == 5
        with pytest.raises(Error) as caught:
            sources.fetch(Wanted(origin, {"access_token": "wrong token"}, tmp_path / "s"), told.append, Cancel())
        assert caught.value.code is Code.UNAUTHENTICATED
    with speaking(Portal(3).answer) as (url, _):
        origin = parse_origin("hubspot", {"object": "contacts", "base_url": url})
        (tmp_path / "h").mkdir()
        fetched = sources.fetch(Wanted(origin, {"access_token": PAT}, tmp_path / "h"), told.append, Cancel())
        assert fetched is not None and fetched.rows == 3
    assert json.dumps([reading.rows for reading in told])
