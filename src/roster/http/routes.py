"""Owns the binding of operations to paths: the contract by operation id, then our own beside it."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any
from urllib.parse import unquote

from roster.http.jsonapi import Shape, shape_of
from roster.operations.table import OPERATIONS, Operation

OWN_PATHS: dict[str, tuple[str, str, int]] = {
    "ListMappingVersions": ("GET", "/api/v2/product-analytics/{entity}/mapping/versions", 200),
    "DiffMapping": ("GET", "/api/v2/product-analytics/{entity}/mapping/diff", 200),
    "UndoMapping": ("POST", "/api/v2/product-analytics/{entity}/mapping/undo", 200),
    "GetProvenance": ("GET", "/api/roster/{entity}/profiles/{id}/provenance/{attribute}", 200),
    "GetDeclaration": ("GET", "/api/roster/declaration", 200),
    "ApplyDeclaration": ("PUT", "/api/roster/declaration", 200),
    "SubmitRumEvents": ("POST", "/api/v2/rum", 202),
    "SubmitReplay": ("POST", "/api/v2/replay", 202),
    "CreateRumSegment": ("POST", "/api/v2/rum/segment", 201),
    "CreateRumStaticSegment": ("POST", "/api/v2/rum/segment/static", 201),
    "ListRumSegmentTemplates": ("GET", "/api/v2/rum/segment/templates", 200),
    "InitializeRumSegments": ("POST", "/api/v2/rum/segment/initialize", 200),
    "ListRumSegments": ("GET", "/api/v2/rum/segment", 200),
    "GetRumSegment": ("GET", "/api/v2/rum/segment/{segment_id}", 200),
    "UpdateRumSegment": ("PUT", "/api/v2/rum/segment/{segment_id}", 204),
    "DeleteRumSegment": ("DELETE", "/api/v2/rum/segment/{segment_id}", 200),
    "ListSegmentMembers": ("GET", "/api/roster/segments/{segment_id}/members", 200),
    "ExplainSegmentMember": ("GET", "/api/roster/segments/{segment_id}/why", 200),
    "ListSegmentChanges": ("GET", "/api/roster/segments/{segment_id}/changes", 200),
    "ExportSegment": ("GET", "/api/roster/segments/{segment_id}/export", 200),
    "SendSegment": ("POST", "/api/roster/segments/{segment_id}/send", 200),
    "QueryPeople": ("POST", "/api/roster/people", 200),
    "ListSavedQueries": ("GET", "/api/roster/queries", 200),
    "GetSavedQuery": ("GET", "/api/roster/queries/{name}", 200),
    "PutSavedQuery": ("PUT", "/api/roster/queries/{name}", 200),
    "DeleteSavedQuery": ("DELETE", "/api/roster/queries/{name}", 204),
    "RunSavedQuery": ("POST", "/api/roster/queries/{name}/run", 200),
    "GetFieldUses": ("GET", "/api/roster/{entity}/fields/{id}/uses", 200),
    "ListSources": ("GET", "/api/roster/sources", 200),
    "GetSource": ("GET", "/api/roster/sources/{id}", 200),
    "StartSync": ("POST", "/api/roster/sources/{id}/sync", 202),
    "CancelSync": ("POST", "/api/roster/sources/{id}/cancel", 202),
    "ListRuns": ("GET", "/api/roster/sources/{id}/runs", 200),
    "ListQuarantine": ("GET", "/api/roster/sources/{id}/quarantine", 200),
    "GetRun": ("GET", "/api/roster/runs/{id}", 200),
    "ListSecrets": ("GET", "/api/roster/secrets", 200),
    "PutSecret": ("PUT", "/api/roster/secrets/{name}", 200),
    "DeleteSecret": ("DELETE", "/api/roster/secrets/{name}", 204),
    "EraseUser": ("POST", "/api/roster/users/{id}/erase", 200),
    "ExportUser": ("GET", "/api/roster/users/{id}/export", 200),
    "ListErasures": ("GET", "/api/roster/erasures", 200),
    "ListReceivedEvents": ("GET", "/api/roster/intake/received", 200),
    "ListRejectedEvents": ("GET", "/api/roster/intake/rejected", 200),
    "ReplayRejectedEvents": ("POST", "/api/roster/intake/replay", 200),
    "PutUploadPart": ("PUT", "/api/roster/uploads/{id}/parts/{number}", 200),
}
"""Verb, path and success status of what the contract does not have."""


@dataclass(frozen=True, slots=True)
class Binding:
    """One verb and path; `operation` is None for what the contract has and Roster not yet."""

    verb: str
    path: str
    status: int
    shape: Shape
    name: str
    operation: Operation | None

    def pattern(self) -> re.Pattern[str]:
        """Matches the raw, still encoded path: an encoded slash stays inside its segment."""
        return re.compile(re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", self.path))


@cache
def contract() -> dict[str, Any]:
    """The API's own description, read once."""
    text = files("roster.http").joinpath("contract.json").read_text("utf-8")
    loaded: dict[str, Any] = json.loads(text)
    return loaded


def bindings() -> list[Binding]:
    """Every path served. Fails at start-up when an operation has no path, or two."""
    operations = {o.name: o for o in OPERATIONS}
    bound = []
    for path, verbs in contract()["paths"].items():
        for verb, described in verbs.items():
            name = described["operationId"]
            status = min(int(s) for s in described["responses"] if s.startswith("2"))
            bound.append(Binding(verb.upper(), path, status, shape_of(path), name, operations.get(name)))
    for name, (verb, path, status) in OWN_PATHS.items():
        bound.append(Binding(verb, path, status, shape_of(path), name, operations[name]))
    unbound = set(operations) - {b.name for b in bound}
    if unbound:
        raise LookupError(f"operations without a path: {sorted(unbound)}")
    return bound


class Router:
    """Finds the binding of a verb and a raw path."""

    def __init__(self, bound: list[Binding]) -> None:
        self._plain = {(b.verb, b.path): b for b in bound if "{" not in b.path}
        self._patterns = [(b.pattern(), b) for b in bound if "{" in b.path]

    def find(self, verb: str, raw_path: str) -> tuple[Binding, dict[str, str]] | None:
        """The binding and its decoded path parameters; leading slashes count once."""
        path = "/" + raw_path.lstrip("/")
        if (verb, path) in self._plain:
            return self._plain[verb, path], {}
        for pattern, binding in self._patterns:
            found = pattern.fullmatch(path) if binding.verb == verb else None
            if found:
                return binding, {name: unquote(text) for name, text in found.groupdict().items()}
        return None

    def verbs(self, raw_path: str) -> list[str]:
        """The verbs a path knows."""
        return [v for v in ("GET", "POST", "PUT", "PATCH", "DELETE") if self.find(v, raw_path)]
