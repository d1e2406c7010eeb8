"""Owns our own OpenAPI document: what is served, from the operations table and the contract's answers."""

from __future__ import annotations

import copy
from typing import Any

from pydantic.json_schema import models_json_schema

from roster import __version__
from roster.http.jsonapi import Shape, content_type
from roster.http.routes import Binding, contract
from roster.model.access import Right
from roster.operations.table import Operation


def _resource(type: str) -> dict[str, Any]:
    """One thing of ours in the API's frame."""
    return {
        "type": "object",
        "required": ["id", "type", "attributes"],
        "properties": {
            "id": {"type": "string"},
            "type": {"const": type},
            "attributes": {"type": "object"},
        },
    }


def _data(schema: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "required": ["data"], "properties": {"data": schema}}


OWN_SCHEMAS: dict[str, Any] = {
    "Sources": _data({"type": "array", "items": _resource("source")}),
    "OneSource": _data(_resource("source")),
    "Runs": _data({"type": "array", "items": _resource("run")}),
    "OneRun": _data(_resource("run")),
    "Quarantine": _data(_resource("quarantine")),
    "Segments": _data({"type": "array", "items": _resource("segment")}),
    "OneSegment": _data(_resource("segment")),
    "SegmentTemplates": _data({"type": "array", "items": _resource("template_metadata")}),
    "SegmentMembers": _data(_resource("segment_members")),
    "SegmentWhy": _data(_resource("segment_why")),
    "SegmentChanges": _data(_resource("segment_changes")),
    "SegmentFile": {"type": "string", "description": "the file, in the type that was asked for"},
    "SegmentSent": _data(_resource("segment_sent")),
    "DeletedSegment": _data(_resource("deleted_segment")),
    "People": _data(_resource("people")),
    "SavedQueries": _data({"type": "array", "items": _resource("saved_query")}),
    "OneSavedQuery": _data(_resource("saved_query")),
    "SavedQueryAnswer": {"type": "object", "required": ["data"], "properties": {"data": {"type": "object"}}},
    "FieldUses": _data(_resource("field_uses")),
    "ReceivedEvents": _data({"type": "array", "items": _resource("received_event")}),
    "RejectedEvents": _data({"type": "array", "items": _resource("rejected_event")}),
    "EventsReplayed": _data(_resource("events_replayed")),
    "Secrets": _data({"type": "array", "items": _resource("secret")}),
    "Accepted": {"type": "object", "required": ["request_id"], "properties": {"request_id": {"type": "string"}}},
    "Erased": {"anyOf": [_data(_resource("erasure")), _data(_resource("erasure_preview"))]},
    "Erasures": _data({"type": "array", "items": _resource("erasure")}),
    "UserExport": _data(_resource("user_export")),
    "Empty": {"type": "object", "additionalProperties": False},
    "MappingVersions": {
        "type": "object",
        "required": ["data"],
        "properties": {
            "data": {
                "type": "object",
                "required": ["id", "type", "attributes"],
                "properties": {
                    "id": {"type": "string"},
                    "type": {"const": "mapping_versions"},
                    "attributes": {
                        "type": "object",
                        "required": ["versions"],
                        "properties": {"versions": {"type": "array", "items": {"type": "object"}}},
                    },
                },
            }
        },
    },
    "MappingDiff": _data(_resource("mapping_diff")),
    "MappingUndone": {"anyOf": [_data(_resource("mapping_undone")), _data(_resource("mapping_preview"))]},
    "Provenance": _data(_resource("provenance")),
    "Declaration": _data(_resource("declaration")),
    "DeclarationApplied": _data(_resource("declaration_applied")),
    "MappingPreview": _data(_resource("mapping_preview")),
    "ErrorStrings": {
        "type": "object",
        "required": ["errors"],
        "properties": {"errors": {"type": "array", "minItems": 1, "items": {"type": "string"}}},
    },
    "ErrorObjects": {
        "type": "object",
        "required": ["errors"],
        "properties": {
            "errors": {
                "type": "array",
                "minItems": 1,
                "items": {
                    "type": "object",
                    "required": ["title", "detail"],
                    "properties": {
                        "status": {"type": "string"},
                        "title": {"type": "string"},
                        "detail": {"type": "string"},
                        "source": {"type": "object"},
                    },
                },
            }
        },
    },
}

DRY_RUN = {
    "name": "dry_run",
    "in": "query",
    "description": "answer what the change would do, and change nothing",
    "schema": {"type": "boolean"},
}
ATTRIBUTE_TIME = {
    "name": "attribute_time",
    "in": "query",
    "description": "whether custom attributes in the search of events are those of now or of the event's time",
    "schema": {"type": "string", "enum": ["now", "event"], "default": "now"},
}


def _parameter(name: str, type: str, meaning: str) -> dict[str, Any]:
    return {"name": name, "in": "query", "description": meaning, "schema": {"type": type}}


COLUMNS = _parameter("columns", "string", "attributes, separated by commas; the id by default")
OWN_PARAMETERS = {
    "QueryEventFilteredUsers": (ATTRIBUTE_TIME,),
    "ListSegmentMembers": (
        _parameter("limit", "integer", "members of a page"),
        _parameter("cursor", "string", "next_cursor of the page before"),
        COLUMNS,
    ),
    "ExplainSegmentMember": (_parameter("profile", "string", "the id of a user or account"),),
    "ListSegmentChanges": (
        _parameter("since", "integer", "epoch milliseconds"),
        _parameter("limit", "integer", "keys at most of those who entered, and of those who left"),
    ),
    "ExportSegment": (_parameter("format", "string", "csv, ndjson or parquet; csv by default"), COLUMNS),
    "SendSegment": (COLUMNS,),
    "ListRumSegments": (
        _parameter("sort", "string", "name, created_at, modified_at or row_count, with - before it for descending"),
        _parameter("limit", "integer", "segments at most"),
    ),
    "EraseUser": (DRY_RUN,),
    "ExportUser": (
        _parameter("limit", "integer", "events of a page"),
        _parameter("cursor", "string", "next_cursor of the page before"),
    ),
    "ListErasures": (
        _parameter("user_id", "string", "only receipts of this user"),
        _parameter("limit", "integer", "receipts at most"),
    ),
}
"""What operations take beside what the contract says, or beside their path."""
PREVIEWS = dict.fromkeys(("CreateRumSegment", "CreateRumStaticSegment", "UpdateRumSegment"), "OneSegment")
"""What dry runs answer that are about no mapping."""
ERRORS = ("400", "401", "403", "404", "409", "412", "413", "429", "501", "503")


def describe(bound: list[Binding]) -> dict[str, Any]:
    """An OpenAPI 3.1 document of everything served."""
    served = [b for b in bound if b.operation is not None]
    models = sorted({b.operation.input for b in served if b.operation and b.operation.input}, key=lambda m: m.__name__)
    _, made = models_json_schema([(m, "validation") for m in models], ref_template="#/components/schemas/{model}")
    paths: dict[str, Any] = {}
    for binding in served:
        paths.setdefault(binding.path, {})[binding.verb.lower()] = _operation(binding)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Roster", "version": __version__},
        "paths": paths,
        "components": {
            "securitySchemes": copy.deepcopy(contract()["components"]["securitySchemes"]),
            "schemas": {**contract()["components"]["schemas"], **made.get("$defs", {}), **OWN_SCHEMAS},
        },
    }


def _operation(binding: Binding) -> dict[str, Any]:
    operation = binding.operation
    assert operation is not None
    described = _contract_operation(binding)
    made: dict[str, Any] = {
        "operationId": operation.name,
        "summary": (operation.function.__doc__ or "").split("\n")[0],
        "parameters": described.get("parameters") or _path_parameters(binding.path),
        "security": _security(operation),
        "responses": {str(binding.status): _success(operation)} | {s: _error(binding, s) for s in _errors(operation)},
    }
    made["parameters"] = [*made["parameters"], *OWN_PARAMETERS.get(operation.name, ())]
    if operation.previewed:
        made["parameters"] = [*made["parameters"], DRY_RUN]
        made["responses"] |= _previewed(operation)
    if operation.input is not None:
        schema = {"$ref": f"#/components/schemas/{operation.input.__name__}"}
        made["requestBody"] = {"required": True, "content": {"application/json": {"schema": schema}}}
    elif "requestBody" in described:
        made["requestBody"] = described["requestBody"]
    return made


def _errors(operation: Operation) -> tuple[str, ...]:
    return (*ERRORS, "408") if operation.right is Right.WRITE_EVENTS else ERRORS


def _contract_operation(binding: Binding) -> dict[str, Any]:
    found: dict[str, Any] = contract()["paths"].get(binding.path, {}).get(binding.verb.lower(), {})
    return found


def _path_parameters(path: str) -> list[dict[str, Any]]:
    names = [part[1:-1] for part in path.split("/") if part.startswith("{")]
    return [{"name": n, "in": "path", "required": True, "schema": {"type": "string"}} for n in names]


def _security(operation: Operation) -> list[dict[str, list[str]]]:
    match operation.right:
        case Right.NOTHING:
            return []
        case Right.WRITE_EVENTS | Right.VALIDATE:
            return [{"apiKeyAuth": []}]
        case _:
            return [{"apiKeyAuth": [], "appKeyAuth": []}, {"AuthZ": []}]


def _success(operation: Operation) -> dict[str, Any]:
    if operation.output is None:
        return {"description": "done; the answer has no body"}
    schema = {"$ref": f"#/components/schemas/{operation.output}"}
    return {"description": "the answer", "content": {"application/json": {"schema": schema}}}


def _previewed(operation: Operation) -> dict[str, Any]:
    """What a dry run answers, beside the usual answer where both have one status."""
    names = list(dict.fromkeys([PREVIEWS.get(operation.name, "MappingPreview"), operation.output or ""]))
    schema = {"anyOf": [{"$ref": f"#/components/schemas/{name}"} for name in names if name]}
    told = "what the change would do, with `dry_run`; else as without it"
    return {"200": {"description": told, "content": {"application/json": {"schema": schema}}}}


def _error(binding: Binding, status: str) -> dict[str, Any]:
    sometimes = binding.shape in (Shape.TABLES, Shape.VALIDATE_V2)
    objects = binding.shape is Shape.OBJECTS or (sometimes and status != "429")
    schema = {"$ref": f"#/components/schemas/{'ErrorObjects' if objects else 'ErrorStrings'}"}
    told = content_type(binding.shape, int(status))
    return {"description": "refused; the errors say where and why", "content": {told: {"schema": schema}}}
