"""Owns the table of operations: name, input, output, right, function. Doors know operations only from here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pydantic import BaseModel

from roster.model.access import Right
from roster.operations import (
    analytics,
    behind,
    bodies,
    bodies_analyses,
    bodies_declaration,
    bodies_intake,
    bodies_journey,
    bodies_retention,
    bodies_sankey,
    bodies_segments,
    bodies_sources,
    bodies_static,
    bodies_tables,
    declaration,
    history,
    intake,
    intake_samples,
    journeys,
    keys,
    mapping,
    profiles,
    provenance,
    reference_tables,
    retention_queries,
    sankey,
    saved_queries,
    secrets,
    segment_members,
    segment_why,
    segments,
    sources,
    static_segments,
    table_changes,
    table_rows,
    uploads,
    user_rights,
    uses,
)
from roster.operations.context import Context, Reply, Request

PREVIEW_PARAMETERS = ("dry_run", "samples", "to")
"""Query parameters of what is previewed: `to` is that of an undo."""
Function = Callable[[Context, Request], Reply]


@dataclass(frozen=True, slots=True)
class Operation:
    """One use case.

    `name` is the contract's operation id where the contract has it. `input` is None when the operation
    takes no body, or takes raw bytes. `output` names a schema of the contract, None for an empty answer.
    `heavy` marks what runs on the engine and waits its turn. `admit` looks at a request before its body is
    read, and raises when there is no need to. A `previewed` one takes `dry_run` and then changes nothing.
    An `outside` one waits for somebody outside: one at a time, so that nothing else waits behind it.
    """

    name: str
    function: Function
    right: Right
    input: type[BaseModel] | None = None
    output: str | None = None
    heavy: bool = False
    body_limit: str = "body_bytes_max"
    admit: Callable[[Context, Request], None] | None = None
    previewed: bool = False
    outside: bool = False


OPERATIONS: tuple[Operation, ...] = (
    Operation("QueryUsers", profiles.query_users, Right.READ, bodies.QueryUsersBody, "QueryResponse", heavy=True),
    Operation(
        "QueryAccounts", profiles.query_accounts, Right.READ, bodies.QueryAccountsBody, "QueryResponse", heavy=True
    ),
    Operation(
        "QueryEventFilteredUsers",
        profiles.query_event_filtered_users,
        Right.READ,
        bodies.EventFilteredBody,
        "QueryResponse",
        heavy=True,
    ),
    Operation(
        "GetUserFacetInfo", profiles.get_user_facet_info, Right.READ, bodies.FacetBody, "FacetInfoResponse", heavy=True
    ),
    Operation(
        "GetAccountFacetInfo",
        profiles.get_account_facet_info,
        Right.READ,
        bodies.FacetBody,
        "FacetInfoResponse",
        heavy=True,
    ),
    Operation(
        "QueryProductAnalyticsScalar",
        analytics.query_scalar,
        Right.READ,
        bodies_analyses.AnalyticsBody,
        "ProductAnalyticsScalarResponse",
        heavy=True,
    ),
    Operation(
        "QueryProductAnalyticsTimeseries",
        analytics.query_timeseries,
        Right.READ,
        bodies_analyses.AnalyticsBody,
        "ProductAnalyticsTimeseriesResponse",
        heavy=True,
    ),
    Operation(
        "QueryProductAnalyticsList",
        analytics.query_list,
        Right.READ,
        bodies_analyses.AnalyticsListBody,
        "ProductAnalyticsAnalyticsListResponse",
        heavy=True,
    ),
    Operation(
        "QueryProductAnalyticsJourneyFunnel",
        journeys.query_funnel,
        Right.READ,
        bodies_journey.FunnelBody,
        "ProductAnalyticsJourneyFunnelResponse",
        heavy=True,
    ),
    Operation(
        "QueryProductAnalyticsJourneyScalar",
        journeys.query_journey_scalar,
        Right.READ,
        bodies_journey.GraphBody,
        "ProductAnalyticsJourneyScalarResponse",
        heavy=True,
    ),
    Operation(
        "QueryProductAnalyticsJourneyTimeseries",
        journeys.query_journey_timeseries,
        Right.READ,
        bodies_journey.GraphBody,
        "ProductAnalyticsJourneyTimeseriesResponse",
        heavy=True,
    ),
    Operation(
        "QueryProductAnalyticsJourneyList",
        journeys.query_journey_list,
        Right.READ,
        bodies_journey.JourneyListBody,
        "ProductAnalyticsJourneyListResponse",
        heavy=True,
    ),
    Operation(
        "QueryProductAnalyticsSankey",
        sankey.query_sankey,
        Right.READ,
        bodies_sankey.SankeyBody,
        "ProductAnalyticsSankeyResponse",
        heavy=True,
    ),
    Operation(
        "QueryProductAnalyticsRetentionGrid",
        retention_queries.query_retention_grid,
        Right.READ,
        bodies_retention.GridBody,
        "ProductAnalyticsRetentionGridResponse",
        heavy=True,
    ),
    Operation(
        "QueryProductAnalyticsRetentionScalar",
        retention_queries.query_retention_scalar,
        Right.READ,
        bodies_retention.FormulaRetentionBody,
        "ProductAnalyticsScalarResponse",
        heavy=True,
    ),
    Operation(
        "QueryProductAnalyticsRetentionTimeseries",
        retention_queries.query_retention_timeseries,
        Right.READ,
        bodies_retention.FormulaRetentionBody,
        "ProductAnalyticsTimeseriesResponse",
        heavy=True,
    ),
    Operation(
        "QueryProductAnalyticsRetentionList",
        retention_queries.query_retention_list,
        Right.READ,
        bodies_retention.RetentionListBody,
        "ProductAnalyticsRetentionListResponse",
        heavy=True,
    ),
    Operation("GetMapping", mapping.get_mapping, Right.READ, output="GetMappingResponse"),
    Operation("ListConnections", mapping.list_connections, Right.READ, output="ListConnectionsResponse"),
    Operation(
        "CreateConnection",
        mapping.create_connection,
        Right.WRITE_MAPPING,
        bodies.CreateConnectionBody,
        previewed=True,
    ),
    Operation(
        "UpdateConnection",
        mapping.update_connection,
        Right.WRITE_MAPPING,
        bodies.UpdateConnectionBody,
        previewed=True,
    ),
    Operation("DeleteConnection", mapping.delete_connection, Right.WRITE_MAPPING, previewed=True),
    Operation("GetDeclaration", declaration.get_declaration, Right.READ, output="Declaration"),
    Operation(
        "ApplyDeclaration",
        declaration.apply_declaration,
        Right.WRITE_MAPPING,
        bodies_declaration.DeclarationBody,
        "DeclarationApplied",
        previewed=True,
    ),
    Operation("ListMappingVersions", history.list_mapping_versions, Right.READ, output="MappingVersions"),
    Operation("DiffMapping", history.diff_mapping, Right.READ, output="MappingDiff"),
    Operation("UndoMapping", history.undo_mapping, Right.WRITE_MAPPING, output="MappingUndone", previewed=True),
    Operation(
        "SubmitProductAnalyticsEvent",
        intake.submit_product_analytics_event,
        Right.WRITE_EVENTS,
        output="Empty",
        body_limit="event_body_bytes_max",
    ),
    Operation(
        "SubmitRumEvents",
        intake.submit_rum,
        Right.WRITE_EVENTS,
        output="Accepted",
        body_limit="event_body_bytes_max",
    ),
    Operation(
        "SubmitReplay",
        intake.submit_replay,
        Right.WRITE_EVENTS,
        output="Accepted",
        body_limit="event_body_bytes_max",
    ),
    Operation("ListReceivedEvents", intake_samples.list_received, Right.READ, output="ReceivedEvents"),
    Operation("ListRejectedEvents", intake_samples.list_rejected, Right.READ, output="RejectedEvents"),
    Operation(
        "ReplayRejectedEvents",
        intake_samples.replay_rejected,
        Right.WRITE_MAPPING,
        bodies_intake.ReplayBody,
        "EventsReplayed",
    ),
    Operation(
        "CreateReferenceTableUpload",
        uploads.create_upload,
        Right.WRITE_TABLES,
        bodies_tables.UploadBody,
        "CreateUploadResponse",
    ),
    Operation(
        "PutUploadPart",
        uploads.put_upload_part,
        Right.NOTHING,
        body_limit="upload_part_bytes_max",
        admit=uploads.check_address,
    ),
    Operation(
        "CreateReferenceTable",
        reference_tables.create_reference_table,
        Right.WRITE_TABLES,
        bodies_tables.CreateTableBody,
        "TableResultV2",
        heavy=True,
    ),
    Operation("ListTables", reference_tables.list_reference_tables, Right.READ, output="TableResultV2Array"),
    Operation("GetTable", reference_tables.get_table, Right.READ, output="TableResultV2"),
    Operation(
        "UpdateReferenceTable",
        table_changes.update_reference_table,
        Right.WRITE_TABLES,
        bodies_tables.PatchTableBody,
        heavy=True,
    ),
    Operation("DeleteTable", reference_tables.delete_table, Right.WRITE_TABLES),
    Operation("GetRowsByID", table_rows.get_rows_by_id, Right.READ, output="TableRowResourceArray", heavy=True),
    Operation(
        "UpsertRows",
        table_rows.upsert_rows,
        Right.WRITE_TABLES,
        bodies_tables.UpsertRowsBody,
        heavy=True,
        body_limit="rows_body_bytes_max",
    ),
    Operation(
        "DeleteRows",
        table_rows.delete_rows,
        Right.WRITE_TABLES,
        bodies_tables.DeleteRowsBody,
        heavy=True,
        body_limit="rows_body_bytes_max",
    ),
    Operation("ListReferenceTableRows", table_rows.list_rows, Right.READ, output="ListRowsResponse", heavy=True),
    Operation(
        "BatchRowsQuery",
        table_rows.query_batch_rows,
        Right.READ,
        bodies_tables.BatchRowsBody,
        "BatchRowsQueryResponse",
        heavy=True,
    ),
    Operation("GetProvenance", provenance.get_provenance, Right.READ, output="Provenance", heavy=True),
    Operation("GetFieldUses", uses.get_field_uses, Right.READ, output="FieldUses"),
    Operation(
        "CreateRumSegment",
        segments.create_segment,
        Right.WRITE_SEGMENTS,
        bodies_segments.CreateSegmentBody,
        "OneSegment",
        heavy=True,
        previewed=True,
    ),
    Operation(
        "CreateRumStaticSegment",
        static_segments.create_static_segment,
        Right.WRITE_SEGMENTS,
        bodies_static.StaticSegmentBody,
        "OneSegment",
        heavy=True,
        previewed=True,
    ),
    Operation("ListRumSegmentTemplates", segments.list_templates, Right.READ, output="SegmentTemplates"),
    Operation("InitializeRumSegments", segments.initialize_segments, Right.WRITE_SEGMENTS),
    Operation("ListRumSegments", segments.list_segments, Right.READ, output="Segments", heavy=True),
    Operation("GetRumSegment", segments.get_segment, Right.READ, output="OneSegment", heavy=True),
    Operation(
        "UpdateRumSegment",
        segments.update_segment,
        Right.WRITE_SEGMENTS,
        bodies_segments.UpdateSegmentBody,
        heavy=True,
        previewed=True,
    ),
    Operation("ListSegmentMembers", segment_members.list_members, Right.READ, output="SegmentMembers", heavy=True),
    Operation("ExplainSegmentMember", segment_why.explain_membership, Right.READ, output="SegmentWhy", heavy=True),
    Operation("ListSegmentChanges", segment_members.list_changes, Right.READ, output="SegmentChanges", heavy=True),
    Operation("ExportSegment", segment_members.export_members, Right.READ, output="SegmentFile", heavy=True),
    Operation("SendSegment", segment_members.send_members, Right.WRITE_SEGMENTS, output="SegmentSent", outside=True),
    Operation("DeleteRumSegment", segments.delete_segment, Right.WRITE_SEGMENTS, output="DeletedSegment"),
    Operation("QueryPeople", behind.query_people, Right.READ, bodies_static.PeopleBody, "People", heavy=True),
    Operation("ListSavedQueries", saved_queries.list_saved_queries, Right.READ, output="SavedQueries"),
    Operation("GetSavedQuery", saved_queries.get_saved_query, Right.READ, output="OneSavedQuery"),
    Operation(
        "PutSavedQuery",
        saved_queries.put_saved_query,
        Right.WRITE_SEGMENTS,
        bodies_segments.SavedQueryBody,
        "OneSavedQuery",
    ),
    Operation("DeleteSavedQuery", saved_queries.delete_saved_query, Right.WRITE_SEGMENTS),
    Operation("RunSavedQuery", saved_queries.run_saved_query, Right.READ, output="SavedQueryAnswer", heavy=True),
    Operation("ListSources", sources.list_sources, Right.READ, output="Sources"),
    Operation("GetSource", sources.get_source, Right.READ, output="OneSource"),
    Operation("StartSync", sources.start_sync, Right.WRITE_TABLES, output="OneRun"),
    Operation("CancelSync", sources.cancel_sync, Right.WRITE_TABLES, output="OneRun"),
    Operation("ListRuns", sources.list_runs, Right.READ, output="Runs"),
    Operation("GetRun", sources.get_run, Right.READ, output="OneRun"),
    Operation("ListQuarantine", sources.list_quarantine, Right.READ, output="Quarantine", heavy=True),
    Operation("ListSecrets", secrets.list_secrets, Right.READ, output="Secrets"),
    Operation("PutSecret", secrets.put_secret, Right.WRITE_MAPPING, bodies_sources.SecretBody),
    Operation("DeleteSecret", secrets.delete_secret, Right.WRITE_MAPPING),
    Operation("EraseUser", user_rights.erase_user, Right.WRITE_MAPPING, output="Erased", heavy=True),
    Operation("ExportUser", user_rights.export_user, Right.READ, output="UserExport", heavy=True),
    Operation("ListErasures", user_rights.list_erasures, Right.READ, output="Erasures"),
    Operation("ValidateV1", keys.validate_v1, Right.VALIDATE, output="AuthenticationValidationResponse"),
    Operation("Validate", keys.validate_v2, Right.VALIDATE, output="ValidateV2Response"),
    Operation("ValidateAPIKey", keys.validate_keys, Right.READ, output="ValidateAPIKeyResponse"),
)
