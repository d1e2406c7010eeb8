"""Owns the request bodies of the reference-table operations as strict models."""

from __future__ import annotations

from typing import Annotated, Any, Literal as OneOf

from pydantic import Field as Rule

from roster.operations.bodies import Body, ClosedBody

COLUMNS_MAX = 200
PARTS_MAX = 20
UPSERT_ROWS_MAX = 20_971
DELETE_ROWS_MAX = 45_589


class UploadAttributes(Body):
    headers: Annotated[list[str], Rule(min_length=1, max_length=COLUMNS_MAX)]
    part_count: Annotated[int, Rule(ge=1, le=PARTS_MAX)]
    part_size: Annotated[int, Rule(ge=1, le=2**63 - 1)]
    table_name: str


class UploadData(ClosedBody):
    type: OneOf["upload"]
    attributes: UploadAttributes | None = None


class UploadBody(Body):
    data: UploadData | None = None


class ColumnBody(Body):
    name: str
    type: OneOf["STRING", "INT32"]


class SchemaBody(Body):
    fields: Annotated[list[ColumnBody], Rule(min_length=1, max_length=COLUMNS_MAX)]
    primary_keys: Annotated[list[str], Rule(min_length=1, max_length=1)]


class AwsDetail(Body):
    aws_account_id: str
    aws_bucket_name: str
    file_path: str


class AzureDetail(Body):
    azure_client_id: str
    azure_container_name: str
    azure_storage_account_name: str
    azure_tenant_id: str
    file_path: str


class GcpDetail(Body):
    file_path: str
    gcp_bucket_name: str
    gcp_project_id: str
    gcp_service_account_email: str


class AccessDetails(Body):
    """Of these the source needs one; the others may come along."""

    aws_detail: AwsDetail | None = None
    azure_detail: AzureDetail | None = None
    gcp_detail: GcpDetail | None = None


class FileMetadata(ClosedBody):
    """Either the local-file form (`upload_id` alone) or the cloud form; which is right depends on `source`."""

    upload_id: str | None = None
    access_details: AccessDetails | None = None
    sync_enabled: bool | None = None


class CreateTableAttributes(Body):
    table_name: str
    source: OneOf["LOCAL_FILE", "S3", "GCS", "AZURE"]
    table_schema: Annotated[SchemaBody, Rule(alias="schema")]
    description: str | None = None
    tags: list[str] | None = None
    file_metadata: FileMetadata | None = None


class CreateTableData(ClosedBody):
    type: OneOf["reference_table"]
    attributes: CreateTableAttributes | None = None


class CreateTableBody(Body):
    data: CreateTableData | None = None


class AwsChange(Body):
    aws_account_id: str | None = None
    aws_bucket_name: str | None = None
    file_path: str | None = None


class AzureChange(Body):
    azure_client_id: str | None = None
    azure_container_name: str | None = None
    azure_storage_account_name: str | None = None
    azure_tenant_id: str | None = None
    file_path: str | None = None


class GcpChange(Body):
    file_path: str | None = None
    gcp_bucket_name: str | None = None
    gcp_project_id: str | None = None
    gcp_service_account_email: str | None = None


class AccessChanges(Body):
    aws_detail: AwsChange | None = None
    azure_detail: AzureChange | None = None
    gcp_detail: GcpChange | None = None


class PatchFileMetadata(ClosedBody):
    """As `FileMetadata`; members of the cloud form that are left out stay as they are."""

    upload_id: str | None = None
    access_details: AccessChanges | None = None
    sync_enabled: bool | None = None


class PatchTableAttributes(Body):
    description: str | None = None
    file_metadata: PatchFileMetadata | None = None
    table_schema: Annotated[SchemaBody | None, Rule(alias="schema")] = None
    tags: list[str] | None = None


class PatchTableData(ClosedBody):
    type: OneOf["reference_table"]
    attributes: PatchTableAttributes | None = None


class PatchTableBody(Body):
    data: PatchTableData | None = None


class RowAttributes(Body):
    values: dict[str, Any]


class RowBody(Body):
    id: str
    type: OneOf["row"]
    attributes: RowAttributes | None = None


class UpsertRowsBody(Body):
    data: Annotated[list[RowBody], Rule(max_length=UPSERT_ROWS_MAX)]


class RowIdentifier(Body):
    id: str
    type: OneOf["row"]


class DeleteRowsBody(Body):
    data: Annotated[list[RowIdentifier], Rule(max_length=DELETE_ROWS_MAX)]


class BatchRowsAttributes(Body):
    row_ids: list[str]
    table_id: str


class BatchRowsData(Body):
    type: OneOf["reference-tables-batch-rows-query"]
    attributes: BatchRowsAttributes | None = None


class BatchRowsBody(Body):
    data: BatchRowsData | None = None
