"""Builds the request bodies of the flows from the official package's own models; sends nothing."""

from typing import Any

from datadog_api_client.v2 import models as m

Field = m.CreateConnectionRequestDataAttributesFieldsItems
CONNECTION = m.UpdateConnectionRequestDataType.CONNECTION_ID


def create_connection(connection_id: str, metadata: dict[str, str] | None = None) -> Any:
    """Two fields of a CRM table joined by e-mail; without metadata no table is named."""
    tier = Field(
        id="customer_tier",
        source_name="subscription_tier",
        type="string",
        display_name="Customer Tier",
        description="Customer subscription tier from `CRM`",
    )
    value = Field(
        id="lifetime_value",
        source_name="ltv",
        type="number",
        display_name="Lifetime Value",
        description="Customer lifetime value in `USD`",
    )
    attributes = m.CreateConnectionRequestDataAttributes(
        type="ref_table",
        join_type="email",
        join_attribute="user_email",
        fields=[tier, value],
        **({"metadata": metadata} if metadata else {}),
    )
    data = m.CreateConnectionRequestData(id=connection_id, type=CONNECTION, attributes=attributes)
    return m.CreateConnectionRequest(data=data)


def update_connection(connection_id: str) -> Any:
    """Adds the score, relabels the value, deletes a field that never was."""
    score = Field(
        id="nps_score",
        source_name="net_promoter_score",
        type="number",
        display_name="NPS Score",
        description="Net Promoter Score from customer surveys",
        groups=["Satisfaction", "Metrics"],
    )
    relabel = m.UpdateConnectionRequestDataAttributesFieldsToUpdateItems(
        field_id="lifetime_value",
        updated_display_name="Customer Lifetime Value (`USD`)",
        updated_groups=["Financial", "Metrics"],
    )
    attributes = m.UpdateConnectionRequestDataAttributes(
        fields_to_add=[score], fields_to_update=[relabel], fields_to_delete=["old_revenue_field"]
    )
    data = m.UpdateConnectionRequestData(id=connection_id, type=CONNECTION, attributes=attributes)
    return m.UpdateConnectionRequest(data=data)


def query_users(query: str, columns: list[str], sort: str = "user_id", order: str = "ASC", term: str = "") -> Any:
    """Profiles of users that match, sorted, at most a hundred."""
    attributes = m.QueryUsersRequestDataAttributes(
        query=query,
        select_columns=columns,
        limit=100,
        sort=m.QueryUsersRequestDataAttributesSort(field=sort, order=order),
        **({"wildcard_search_term": term} if term else {}),
    )
    kind = m.QueryUsersRequestDataType.QUERY_USERS_REQUEST
    data = m.QueryUsersRequestData(id="query_users_request", type=kind, attributes=attributes)
    return m.QueryUsersRequest(data=data)


def query_accounts(query: str, columns: list[str]) -> Any:
    """Profiles of accounts that match, sorted by id."""
    attributes = m.QueryAccountRequestDataAttributes(
        query=query,
        select_columns=columns,
        limit=20,
        sort=m.QueryAccountRequestDataAttributesSort(field="account_id", order="ASC"),
    )
    kind = m.QueryAccountRequestDataType.QUERY_ACCOUNT_REQUEST
    data = m.QueryAccountRequestData(id="query_account_request", type=kind, attributes=attributes)
    return m.QueryAccountRequest(data=data)


def query_event_filtered_users(query: str, event_query: str, start_s: int, end_s: int, columns: list[str]) -> Any:
    """Profiles of users that match and have such an event in the time frame, given in seconds."""
    frame = m.QueryEventFilteredUsersRequestDataAttributesEventQueryTimeFrame(start=start_s, end=end_s)
    events = m.QueryEventFilteredUsersRequestDataAttributesEventQuery(query=event_query, time_frame=frame)
    attributes = m.QueryEventFilteredUsersRequestDataAttributes(
        event_query=events, query=query, include_row_count=True, limit=25, select_columns=columns
    )
    kind = m.QueryEventFilteredUsersRequestDataType.QUERY_EVENT_FILTERED_USERS_REQUEST
    data = m.QueryEventFilteredUsersRequestData(
        id="query_event_filtered_users_request", type=kind, attributes=attributes
    )
    return m.QueryEventFilteredUsersRequest(data=data)


def facet_info(facet_id: str, query: str, term: str = "") -> Any:
    """The values of one attribute among the profiles that match."""
    extra: dict[str, Any] = {"term_search": m.FacetInfoRequestDataAttributesTermSearch(value=term)} if term else {}
    attributes = m.FacetInfoRequestDataAttributes(
        facet_id=facet_id, limit=10, search=m.FacetInfoRequestDataAttributesSearch(query=query), **extra
    )
    kind = m.FacetInfoRequestDataType.USERS_FACET_INFO_REQUEST
    return m.FacetInfoRequest(data=m.FacetInfoRequestData(id="facet_info_request", type=kind, attributes=attributes))


def server_event(name: str, application_id: str, user: dict[str, str], account: dict[str, str]) -> Any:
    """A server-side event; keys of user and account beyond `id` travel as extra properties."""
    return m.ProductAnalyticsServerSideEventItem(
        type=m.ProductAnalyticsServerSideEventItemType.SERVER,
        application=m.ProductAnalyticsServerSideEventItemApplication(id=application_id),
        event=m.ProductAnalyticsServerSideEventItemEvent(name=name),
        usr=m.ProductAnalyticsServerSideEventItemUsr(**user),
        account=m.ProductAnalyticsServerSideEventItemAccount(**account),
    )


def create_upload(table_name: str, columns: list[str], parts: int, size_bytes: int) -> Any:
    """Asks for parts of the given size."""
    attributes = m.CreateUploadRequestDataAttributes(
        table_name=table_name, headers=columns, part_count=parts, part_size=size_bytes
    )
    return m.CreateUploadRequest(
        data=m.CreateUploadRequestData(type=m.CreateUploadRequestDataType.UPLOAD, attributes=attributes)
    )


def create_table(table_name: str, columns: list[str], upload_id: str) -> Any:
    """A table from an upload: the first two columns are strings, the others integers, the first is the key."""
    types = m.ReferenceTableSchemaFieldType
    fields = [
        m.CreateTableRequestDataAttributesSchemaFieldsItems(name=name, type=types.STRING if at < 2 else types.INT32)
        for at, name in enumerate(columns)
    ]
    attributes = m.CreateTableRequestDataAttributes(
        table_name=table_name,
        description="Customers of the official-client flow",
        source=m.ReferenceTableCreateSourceType.LOCAL_FILE,
        schema=m.CreateTableRequestDataAttributesSchema(fields=fields, primary_keys=columns[:1]),
        file_metadata=m.CreateTableRequestDataAttributesFileMetadataLocalFile(upload_id=upload_id),
        tags=["flow"],
    )
    return m.CreateTableRequest(
        data=m.CreateTableRequestData(type=m.CreateTableRequestDataType.REFERENCE_TABLE, attributes=attributes)
    )


def upsert_row(values: dict[str, Any], key: str) -> Any:
    """One row to insert or replace."""
    attributes = m.BatchUpsertRowsRequestDataAttributes(values=values)
    row = m.BatchUpsertRowsRequestData(id=key, type=m.TableRowResourceDataType.ROW, attributes=attributes)
    return m.BatchUpsertRowsRequestArray(data=[row])


def delete_row(key: str) -> Any:
    """One row to delete."""
    row = m.TableRowResourceIdentifier(id=key, type=m.TableRowResourceDataType.ROW)
    return m.BatchDeleteRowsRequestArray(data=[row])


def batch_rows(table_id: str, keys: list[str]) -> Any:
    """Rows of a table by key."""
    kind = m.BatchRowsQueryDataType.REFERENCE_TABLES_BATCH_ROWS_QUERY
    attributes = m.BatchRowsQueryRequestDataAttributes(table_id=table_id, row_ids=keys)
    return m.BatchRowsQueryRequest(data=m.BatchRowsQueryRequestData(type=kind, attributes=attributes))
