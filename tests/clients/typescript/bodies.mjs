// Builds the request bodies of the flow in the shapes that the official TypeScript package takes; sends nothing.

export function createConnection(id, metadata) {
  const fields = [
    {
      id: "customer_tier",
      sourceName: "subscription_tier",
      type: "string",
      displayName: "Customer Tier",
      description: "Customer subscription tier from `CRM`",
    },
    {
      id: "lifetime_value",
      sourceName: "ltv",
      type: "number",
      displayName: "Lifetime Value",
      description: "Customer lifetime value in `USD`",
    },
  ];
  const attributes = { type: "ref_table", joinType: "email", joinAttribute: "user_email", fields, metadata };
  return { data: { id, type: "connection_id", attributes } };
}

export function updateConnection(id) {
  const attributes = {
    fieldsToAdd: [
      {
        id: "nps_score",
        sourceName: "net_promoter_score",
        type: "number",
        displayName: "NPS Score",
        description: "Net Promoter Score from customer surveys",
        groups: ["Satisfaction", "Metrics"],
      },
    ],
    fieldsToUpdate: [
      {
        fieldId: "lifetime_value",
        updatedDisplayName: "Customer Lifetime Value (`USD`)",
        updatedGroups: ["Financial", "Metrics"],
      },
    ],
    fieldsToDelete: ["old_revenue_field"],
  };
  return { data: { id, type: "connection_id", attributes } };
}

export function queryUsers(query, selectColumns, { field = "user_id", order = "ASC", term } = {}) {
  const attributes = { query, selectColumns, limit: 100, sort: { field, order }, wildcardSearchTerm: term };
  return { data: { id: "query_users_request", type: "query_users_request", attributes } };
}

export function queryAccounts(query, selectColumns) {
  const attributes = { query, selectColumns, limit: 20, sort: { field: "account_id", order: "ASC" } };
  return { data: { id: "query_account_request", type: "query_account_request", attributes } };
}

export function queryEventFilteredUsers(query, eventQuery, startS, endS, selectColumns) {
  const events = { query: eventQuery, timeFrame: { start: startS, end: endS } };
  const attributes = { eventQuery: events, query, includeRowCount: true, limit: 25, selectColumns };
  const type = "query_event_filtered_users_request";
  return { data: { id: type, type, attributes } };
}

export function facetInfo(facetId, query, term) {
  const attributes = { facetId, limit: 10, search: { query } };
  if (term !== undefined) attributes.termSearch = { value: term };
  return { data: { id: "facet_info_request", type: "users_facet_info_request", attributes } };
}

export function serverEvent(name, applicationId, { id, ...user }, { id: accountId, ...account }) {
  return {
    type: "server",
    application: { id: applicationId },
    event: { name },
    usr: { id, additionalProperties: user },
    account: { id: accountId, additionalProperties: account },
  };
}

export function createUpload(tableName, headers, partCount, partSize) {
  return { data: { type: "upload", attributes: { tableName, headers, partCount, partSize } } };
}

export function createTable(tableName, columns, uploadId) {
  const fields = columns.map((name, at) => ({ name, type: at < 2 ? "STRING" : "INT32" }));
  const attributes = {
    tableName,
    description: "Customers of the official-client flow",
    source: "LOCAL_FILE",
    schema: { fields, primaryKeys: columns.slice(0, 1) },
    fileMetadata: { uploadId },
    tags: ["flow"],
  };
  return { data: { type: "reference_table", attributes } };
}

export function upsertRow(id, values) {
  return { data: [{ id, type: "row", attributes: { values } }] };
}

export function deleteRow(id) {
  return { data: [{ id, type: "row" }] };
}

export function batchRows(tableId, rowIds) {
  return { data: { type: "reference-tables-batch-rows-query", attributes: { tableId, rowIds } } };
}

// The details of all three providers, which may come at once whatever the source is.
export const ACCESS_DETAILS = {
  awsDetail: {
    awsAccountId: "123456789000",
    awsBucketName: "example-data-bucket",
    filePath: "reference-tables/users.csv",
  },
  gcpDetail: {
    filePath: "reference-tables/users.csv",
    gcpBucketName: "example-data-bucket",
    gcpProjectId: "example-gcp-project-12345",
    gcpServiceAccountEmail: "example-service@example-gcp-project-12345.iam.gserviceaccount.com",
  },
  azureDetail: {
    azureClientId: "aaaaaaaa-1111-2222-3333-bbbbbbbbbbbb",
    azureContainerName: "reference-data",
    azureStorageAccountName: "examplestorageaccount",
    azureTenantId: "cccccccc-4444-5555-6666-dddddddddddd",
    filePath: "tables/users.csv",
  },
};

function createTwoColumns(tableName, source, more) {
  const fields = [
    { name: "id", type: "INT32" },
    { name: "name", type: "STRING" },
  ];
  const attributes = { tableName, source, schema: { fields, primaryKeys: ["id"] }, ...more };
  return { data: { type: "reference_table", attributes } };
}

export function createCloudTable(tableName, source) {
  return createTwoColumns(tableName, source, { fileMetadata: { accessDetails: ACCESS_DETAILS, syncEnabled: true } });
}

export function createWithoutUpload(tableName) {
  return createTwoColumns(tableName, "LOCAL_FILE", {});
}

export function patchTable(attributes) {
  return { data: { type: "reference_table", attributes } };
}
