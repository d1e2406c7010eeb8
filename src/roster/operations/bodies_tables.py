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


class FileMetadata(ClosedBody):
    """Either the local-file form (`upload_id` alone) or the cloud form; which is right depends on `source`."""

    upload_id: str | None = None
    access_details: dict[str, Any] | None = None
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
