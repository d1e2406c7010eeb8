"""Where the file of a cloud table lies, how such a table stands, and how its errors are told."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from roster.base.errors import Code, Error
from roster.http.routes import contract
from roster.model.cloud_table import AT, CLOUDS, error_type, members_of, merge_details, origin_of, shown_status
from roster.model.reference_table import Table, match_headers
from roster.model.schema import Column, Type
from roster.model.source import KINDS, Origin
from roster.model.sync import Failure, State, Step, Sync

DETAILS = {
    "aws_detail": {"aws_account_id": "123456789012", "aws_bucket_name": "crm-files", "file_path": "/in/people.csv"},
    "gcp_detail": {
        "gcp_project_id": "example.com:crm",
        "gcp_bucket_name": "crm_files",
        "gcp_service_account_email": "reader@crm.example.com",
        "file_path": "people.parquet",
    },
    "azure_detail": {
        "azure_client_id": "c",
        "azure_tenant_id": "t",
        "azure_storage_account_name": "crmfiles",
        "azure_container_name": "in",
        "file_path": "people 2.ndjson.gz",
    },
}


def without(detail: str, name: str, value: str | None = None) -> dict[str, dict[str, str]]:
    """The details with one member changed, or left out."""
    changed = {k: v for k, v in DETAILS[detail].items() if k != name} | ({name: value} if value is not None else {})
    return DETAILS | {detail: changed}


@pytest.mark.parametrize(
    ("source", "options"),
    [
        ("S3", {"url": "s3://crm-files/in/people.csv", "secret": "aws-123456789012", "format": "csv"}),
        ("GCS", {"url": "gs://crm_files/people.parquet", "secret": "gcp-example.com-crm", "format": "parquet"}),
        (
            "AZURE",
            {
                "url": "az://in/people 2.ndjson.gz",
                "secret": "azure-crmfiles",
                "format": "ndjson",
            },
        ),
    ],
)
def test_the_origin_of_each_source(source: str, options: dict[str, str]) -> None:
    assert origin_of(source, DETAILS) == Origin("file", tuple(sorted(options.items())))
    alone = {CLOUDS[source].detail: DETAILS[CLOUDS[source].detail]}
    assert origin_of(source, alone) == origin_of(source, DETAILS), "the others may come along"


@pytest.mark.parametrize("source", CLOUDS)
def test_what_is_missing_is_named(source: str) -> None:
    detail = CLOUDS[source].detail
    with pytest.raises(Error, match=f"{detail} is required") as caught:
        origin_of(source, {k: v for k, v in DETAILS.items() if k != detail})
    assert (caught.value.code, caught.value.at) == (Code.INVALID, f"{AT}/{detail}")
    for name in DETAILS[detail]:
        for value in (None, "", "  "):
            with pytest.raises(Error) as caught:
                origin_of(source, without(detail, name, value))
            assert caught.value.at == f"{AT}/{detail}/{name}"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("aws_bucket_name", "a/b"),
        ("aws_bucket_name", "a@b"),
        ("aws_bucket_name", "x y"),
        ("aws_bucket_name", "../x"),
        ("aws_account_id", "a/b"),
        ("aws_account_id", "-a"),
        ("file_path", "/"),
        ("file_path", "folder/"),
        ("file_path", "//x"),
        ("file_path", "a/../b"),
        ("file_path", "a\nb"),
        ("file_path", "x" * 1025),
    ],
)
def test_what_is_no_name_of_its_kind_is_refused(name: str, value: str) -> None:
    with pytest.raises(Error) as caught:
        origin_of("S3", without("aws_detail", name, value))
    assert (caught.value.code, caught.value.at) == (Code.INVALID, f"{AT}/aws_detail/{name}")


def test_what_the_details_of_azure_say_need_not_be_in_its_secret() -> None:
    table = Table("t", "crm", (), "id", "AZURE", "", (), 0, "a", "a", 0, 0, access_details=json.dumps(DETAILS))
    assert members_of(table) == {"account_name": "crmfiles", "client_id": "c", "tenant_id": "t"}
    assert set(members_of(table)) <= set(next(kind.secret for kind in KINDS if kind.name == "file"))
    assert members_of(replace(table, source="S3")) == {}
    assert members_of(replace(table, source="LOCAL_FILE", access_details="")) == {}


def test_given_members_replace_kept_ones() -> None:
    kept = {"aws_detail": {"aws_account_id": "1", "file_path": "a"}}
    given = {"aws_detail": {"file_path": "b"}, "gcp_detail": {"file_path": "c"}}
    assert merge_details(kept, given) == {
        "aws_detail": {"aws_account_id": "1", "file_path": "b"},
        "gcp_detail": {"file_path": "c"},
    }
    assert merge_details(kept, {}) == kept


def test_the_status_of_a_table() -> None:
    table = Table("t", "crm", (), "id", "S3", "", (), 0, "a", "a", 0, 0, origin=origin_of("S3", DETAILS))
    assert shown_status(table, None) == "PROCESSING"
    shown = {state: shown_status(table, Sync("t", state, 0)) for state in State}
    assert shown == {
        State.SYNCING: "PROCESSING",
        State.WAITING: "ERROR",
        State.FAILING: "ERROR",
        State.OK: "DONE",
        State.STALE: "DONE",
        State.DRIFTED: "DONE",
    }
    assert shown_status(Table("t", "crm", (), "id", "LOCAL_FILE", "", (), 0, "a", "a", 0, 0), None) == "DONE"


def test_every_failure_has_a_documented_type() -> None:
    schemas: dict[str, Any] = contract()["components"]["schemas"]
    documented = set(schemas["TableResultV2DataAttributesFileMetadataCloudStorageErrorType"]["enum"])
    types = {code: error_type(Failure(code.value, "told"), Step.STAGE) for code in Code}
    assert set(types.values()) <= documented
    assert types[Code.INVALID] == "FILE_FORMAT_ERROR"
    assert error_type(Failure(Code.INVALID.value, "told"), Step.READ) == "CONFIGURATION_ERROR"
    assert types[Code.NOT_FOUND] == types[Code.UNAUTHENTICATED] == types[Code.FORBIDDEN] == "CONFIGURATION_ERROR"
    assert types[Code.TOO_LARGE] == "QUOTA_EXCEEDED"
    assert types[Code.BUSY] == types[Code.TIMEOUT] == types[Code.INTERNAL] == "SYSTEM_ERROR"


def test_a_missing_column_is_told_as_one() -> None:
    with pytest.raises(Error) as caught:
        match_headers(["id", "teir"], (Column("id", Type.STRING), Column("tier", Type.STRING)))
    assert error_type(Failure(caught.value.code.value, caught.value.message), Step.STAGE) == "TABLE_SCHEMA_ERROR"
