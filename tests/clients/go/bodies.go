// Builds the request bodies of the flow from the official package's own types; sends nothing.
package main

import (
	"github.com/DataDog/datadog-api-client-go/v2/api/datadog"
	"github.com/DataDog/datadog-api-client-go/v2/api/datadogV2"
)

const connectionType = datadogV2.UPDATECONNECTIONREQUESTDATATYPE_CONNECTION_ID

type field = datadogV2.CreateConnectionRequestDataAttributesFieldsItems

func createConnection(id string, metadata map[string]string) datadogV2.CreateConnectionRequest {
	fields := []field{
		{
			Id: "customer_tier", SourceName: "subscription_tier", Type: "string",
			DisplayName: datadog.PtrString("Customer Tier"),
			Description: datadog.PtrString("Customer subscription tier from `CRM`"),
		},
		{
			Id: "lifetime_value", SourceName: "ltv", Type: "number",
			DisplayName: datadog.PtrString("Lifetime Value"),
			Description: datadog.PtrString("Customer lifetime value in `USD`"),
		},
	}
	attributes := datadogV2.CreateConnectionRequestDataAttributes{
		Type: "ref_table", JoinType: "email", JoinAttribute: "user_email", Fields: fields, Metadata: metadata,
	}
	data := datadogV2.CreateConnectionRequestData{Id: &id, Type: connectionType, Attributes: &attributes}
	return datadogV2.CreateConnectionRequest{Data: &data}
}

func updateConnection(id string) datadogV2.UpdateConnectionRequest {
	score := field{
		Id: "nps_score", SourceName: "net_promoter_score", Type: "number",
		DisplayName: datadog.PtrString("NPS Score"),
		Description: datadog.PtrString("Net Promoter Score from customer surveys"),
		Groups:      []string{"Satisfaction", "Metrics"},
	}
	relabel := datadogV2.UpdateConnectionRequestDataAttributesFieldsToUpdateItems{
		FieldId:            "lifetime_value",
		UpdatedDisplayName: datadog.PtrString("Customer Lifetime Value (`USD`)"),
		UpdatedGroups:      []string{"Financial", "Metrics"},
	}
	attributes := datadogV2.UpdateConnectionRequestDataAttributes{
		FieldsToAdd:    []field{score},
		FieldsToUpdate: []datadogV2.UpdateConnectionRequestDataAttributesFieldsToUpdateItems{relabel},
		FieldsToDelete: []string{"old_revenue_field"},
	}
	data := datadogV2.UpdateConnectionRequestData{Id: id, Type: connectionType, Attributes: &attributes}
	return datadogV2.UpdateConnectionRequest{Data: &data}
}

func queryUsers(query string, columns []string, by, order, term string) datadogV2.QueryUsersRequest {
	attributes := datadogV2.QueryUsersRequestDataAttributes{
		Query: &query, SelectColumns: columns, Limit: datadog.PtrInt64(100),
		Sort: &datadogV2.QueryUsersRequestDataAttributesSort{Field: &by, Order: &order},
	}
	if term != "" {
		attributes.WildcardSearchTerm = &term
	}
	kind := datadogV2.QUERYUSERSREQUESTDATATYPE_QUERY_USERS_REQUEST
	data := datadogV2.QueryUsersRequestData{Type: kind, Attributes: &attributes}
	return datadogV2.QueryUsersRequest{Data: &data}
}

func queryAccounts(query string, columns []string) datadogV2.QueryAccountRequest {
	attributes := datadogV2.QueryAccountRequestDataAttributes{
		Query: &query, SelectColumns: columns, Limit: datadog.PtrInt64(20),
		Sort: &datadogV2.QueryAccountRequestDataAttributesSort{
			Field: datadog.PtrString("account_id"), Order: datadog.PtrString("ASC"),
		},
	}
	kind := datadogV2.QUERYACCOUNTREQUESTDATATYPE_QUERY_ACCOUNT_REQUEST
	data := datadogV2.QueryAccountRequestData{Type: kind, Attributes: &attributes}
	return datadogV2.QueryAccountRequest{Data: &data}
}

func queryEventFilteredUsers(
	query, eventQuery string, startS, endS int64, columns []string,
) datadogV2.QueryEventFilteredUsersRequest {
	frame := datadogV2.QueryEventFilteredUsersRequestDataAttributesEventQueryTimeFrame{Start: &startS, End: &endS}
	attributes := datadogV2.QueryEventFilteredUsersRequestDataAttributes{
		EventQuery: &datadogV2.QueryEventFilteredUsersRequestDataAttributesEventQuery{
			Query: &eventQuery, TimeFrame: &frame,
		},
		Query: &query, IncludeRowCount: datadog.PtrBool(true), Limit: datadog.PtrInt64(25), SelectColumns: columns,
	}
	kind := datadogV2.QUERYEVENTFILTEREDUSERSREQUESTDATATYPE_QUERY_EVENT_FILTERED_USERS_REQUEST
	data := datadogV2.QueryEventFilteredUsersRequestData{Type: kind, Attributes: &attributes}
	return datadogV2.QueryEventFilteredUsersRequest{Data: &data}
}

func facetInfo(facetID, query, term string) datadogV2.FacetInfoRequest {
	attributes := datadogV2.FacetInfoRequestDataAttributes{
		FacetId: facetID, Limit: 10, Search: &datadogV2.FacetInfoRequestDataAttributesSearch{Query: &query},
	}
	if term != "" {
		attributes.TermSearch = &datadogV2.FacetInfoRequestDataAttributesTermSearch{Value: &term}
	}
	kind := datadogV2.FACETINFOREQUESTDATATYPE_USERS_FACET_INFO_REQUEST
	data := datadogV2.FacetInfoRequestData{Type: kind, Attributes: &attributes}
	return datadogV2.FacetInfoRequest{Data: &data}
}

func serverEvent(name, applicationID string, user, account identity) datadogV2.ProductAnalyticsServerSideEventItem {
	return datadogV2.ProductAnalyticsServerSideEventItem{
		Type:        datadogV2.PRODUCTANALYTICSSERVERSIDEEVENTITEMTYPE_SERVER,
		Application: datadogV2.ProductAnalyticsServerSideEventItemApplication{Id: applicationID},
		Event:       datadogV2.ProductAnalyticsServerSideEventItemEvent{Name: name},
		Usr: &datadogV2.ProductAnalyticsServerSideEventItemUsr{
			Id: user.id, AdditionalProperties: user.more,
		},
		Account: &datadogV2.ProductAnalyticsServerSideEventItemAccount{
			Id: account.id, AdditionalProperties: account.more,
		},
	}
}

func createUpload(tableName string, columns []string, sizeBytes int) datadogV2.CreateUploadRequest {
	attributes := datadogV2.CreateUploadRequestDataAttributes{
		TableName: tableName, Headers: columns, PartCount: 1, PartSize: int64(sizeBytes),
	}
	kind := datadogV2.CREATEUPLOADREQUESTDATATYPE_UPLOAD
	data := datadogV2.CreateUploadRequestData{Type: kind, Attributes: &attributes}
	return datadogV2.CreateUploadRequest{Data: &data}
}

func createTable(tableName string, columns []string, uploadID string) datadogV2.CreateTableRequest {
	fields := []datadogV2.CreateTableRequestDataAttributesSchemaFieldsItems{}
	for at, name := range columns {
		kind := datadogV2.REFERENCETABLESCHEMAFIELDTYPE_STRING
		if at >= 2 {
			kind = datadogV2.REFERENCETABLESCHEMAFIELDTYPE_INT32
		}
		fields = append(fields, datadogV2.CreateTableRequestDataAttributesSchemaFieldsItems{Name: name, Type: kind})
	}
	local := datadogV2.CreateTableRequestDataAttributesFileMetadataLocalFile{UploadId: uploadID}
	attributes := datadogV2.CreateTableRequestDataAttributes{
		TableName:   tableName,
		Description: datadog.PtrString("Customers of the official-client flow"),
		Source:      datadogV2.REFERENCETABLECREATESOURCETYPE_LOCAL_FILE,
		Schema:      datadogV2.CreateTableRequestDataAttributesSchema{Fields: fields, PrimaryKeys: columns[:1]},
		FileMetadata: &datadogV2.CreateTableRequestDataAttributesFileMetadata{
			CreateTableRequestDataAttributesFileMetadataLocalFile: &local,
		},
		Tags: []string{"flow"},
	}
	kind := datadogV2.CREATETABLEREQUESTDATATYPE_REFERENCE_TABLE
	return datadogV2.CreateTableRequest{Data: &datadogV2.CreateTableRequestData{Type: kind, Attributes: &attributes}}
}

func upsertRow(key string, values map[string]any) datadogV2.BatchUpsertRowsRequestArray {
	cells := map[string]datadogV2.BatchUpsertRowsRequestDataAttributesValue{}
	for name, value := range values {
		switch cell := value.(type) {
		case string:
			cells[name] = datadogV2.StringAsBatchUpsertRowsRequestDataAttributesValue(&cell)
		case float64:
			whole := int32(cell)
			cells[name] = datadogV2.Int32AsBatchUpsertRowsRequestDataAttributesValue(&whole)
		}
	}
	row := datadogV2.BatchUpsertRowsRequestData{
		Id: key, Type: datadogV2.TABLEROWRESOURCEDATATYPE_ROW,
		Attributes: &datadogV2.BatchUpsertRowsRequestDataAttributes{Values: cells},
	}
	return datadogV2.BatchUpsertRowsRequestArray{Data: []datadogV2.BatchUpsertRowsRequestData{row}}
}

func deleteRow(key string) datadogV2.BatchDeleteRowsRequestArray {
	row := datadogV2.TableRowResourceIdentifier{Id: key, Type: datadogV2.TABLEROWRESOURCEDATATYPE_ROW}
	return datadogV2.BatchDeleteRowsRequestArray{Data: []datadogV2.TableRowResourceIdentifier{row}}
}

func batchRows(tableID string, keys []string) datadogV2.BatchRowsQueryRequest {
	kind := datadogV2.BATCHROWSQUERYDATATYPE_REFERENCE_TABLES_BATCH_ROWS_QUERY
	attributes := datadogV2.BatchRowsQueryRequestDataAttributes{TableId: tableID, RowIds: keys}
	return datadogV2.BatchRowsQueryRequest{
		Data: &datadogV2.BatchRowsQueryRequestData{Type: kind, Attributes: &attributes},
	}
}
