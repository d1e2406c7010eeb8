"""Builds the bodies that change reference tables and that make tables of buckets, from the package's own models."""

from typing import Any

from datadog_api_client.v2 import models as m

TYPES = m.ReferenceTableSchemaFieldType
ACCESS_DETAILS = {
    "aws_detail": {
        "aws_account_id": "123456789000",
        "aws_bucket_name": "example-data-bucket",
        "file_path": "reference-tables/users.csv",
    },
    "gcp_detail": {
        "file_path": "reference-tables/users.csv",
        "gcp_bucket_name": "example-data-bucket",
        "gcp_project_id": "example-gcp-project-12345",
        "gcp_service_account_email": "example-service@example-gcp-project-12345.iam.gserviceaccount.com",
    },
    "azure_detail": {
        "azure_client_id": "aaaaaaaa-1111-2222-3333-bbbbbbbbbbbb",
        "azure_container_name": "reference-data",
        "azure_storage_account_name": "examplestorageaccount",
        "azure_tenant_id": "cccccccc-4444-5555-6666-dddddddddddd",
        "file_path": "tables/users.csv",
    },
}
"""The details of all three providers, which may come at once whatever the source is."""


def patch(**attributes: Any) -> Any:
    """A change of a table."""
    kind = m.PatchTableRequestDataType.REFERENCE_TABLE
    data = m.PatchTableRequestData(type=kind, attributes=m.PatchTableRequestDataAttributes(**attributes))
    return m.PatchTableRequest(data=data)


def patch_upload(upload_id: str) -> Any:
    """All rows replaced by those of an upload."""
    return patch(file_metadata=m.PatchTableRequestDataAttributesFileMetadataLocalFile(upload_id=upload_id))


def patch_schema(types: dict[str, str], key: str) -> Any:
    """The columns there are and new ones beside them."""
    fields = [
        m.PatchTableRequestDataAttributesSchemaFieldsItems(name=name, type=TYPES(type)) for name, type in types.items()
    ]
    return patch(schema=m.PatchTableRequestDataAttributesSchema(fields=fields, primary_keys=[key]))


def patch_file_path(path: str, sync_enabled: bool) -> Any:
    """Another file in the same bucket of S3, and whether it is synced."""
    one = m.PatchTableRequestDataAttributesFileMetadataOneOfAccessDetailsAwsDetail(file_path=path)
    access = m.PatchTableRequestDataAttributesFileMetadataOneOfAccessDetails(aws_detail=one)
    cloud = m.PatchTableRequestDataAttributesFileMetadataCloudStorage(access_details=access, sync_enabled=sync_enabled)
    return patch(file_metadata=cloud)


def create_cloud_table(table_name: str, source: str) -> Any:
    """A table of a bucket, told the details of all three providers."""
    details = "CreateTableRequestDataAttributesFileMetadataOneOfAccessDetails"
    access = getattr(m, details)(
        **{
            name: getattr(m, details + name.title().replace("_", ""))(**members)
            for name, members in ACCESS_DETAILS.items()
        }
    )
    metadata = m.CreateTableRequestDataAttributesFileMetadataCloudStorage(access_details=access, sync_enabled=True)
    return _create(table_name, source, file_metadata=metadata)


def create_without_upload(table_name: str) -> Any:
    """A table of a local file that no upload is named for."""
    return _create(table_name, "LOCAL_FILE")


def _create(table_name: str, source: str, **more: Any) -> Any:
    fields = [
        m.CreateTableRequestDataAttributesSchemaFieldsItems(name="id", type=TYPES.INT32),
        m.CreateTableRequestDataAttributesSchemaFieldsItems(name="name", type=TYPES.STRING),
    ]
    attributes = m.CreateTableRequestDataAttributes(
        table_name=table_name,
        source=m.ReferenceTableCreateSourceType(source),
        schema=m.CreateTableRequestDataAttributesSchema(fields=fields, primary_keys=["id"]),
        **more,
    )
    kind = m.CreateTableRequestDataType.REFERENCE_TABLE
    return m.CreateTableRequest(data=m.CreateTableRequestData(type=kind, attributes=attributes))
