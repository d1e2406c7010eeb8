"""Owns the operations that show and apply the declared connections of both entities: all of it or nothing."""

from __future__ import annotations

import json
from collections.abc import Mapping as Map
from dataclasses import dataclass, replace
from re import fullmatch
from typing import Any

from roster.base.errors import Code, Error
from roster.model.changes import delete
from roster.model.declaration import Declaration, DeclaredConnection, connection_json, read_declaration
from roster.model.declaration_calls import create_body, update_bodies
from roster.model.declaration_far import declare_mapping, name_tables
from roster.model.declaration_steps import ConnectionStep, Plan, Verb, plan_connections, step_json
from roster.model.mapping import Mapping
from roster.model.reference_table import Table
from roster.model.schema import Entity
from roster.operations.bodies import decode
from roster.operations.bodies_declaration import DeclarationBody
from roster.operations.connection_requests import read_create, read_update
from roster.operations.context import Context, Reply, Request
from roster.operations.mapping import check_source, create_on, resume_paused, update_on
from roster.operations.preview import preview
from roster.operations.profiles import envelope

AT = "/data/attributes"
_FIELD = r"/data/attributes/(fields|fields_to_add|fields_to_update|fields_to_delete)/([0-9]+)(/.*)?"
_IDS = {"fields_to_update": "field_id"}


@dataclass(frozen=True, slots=True)
class _Wanted:
    """What a request declares, and the versions of the mappings that it was made for."""

    declaration: Declaration
    versions: Map[Entity, int]
    prune: bool


def get_declaration(context: Context, request: Request) -> Reply:
    """The connections of users and accounts in the form that can be applied, with the version of each mapping."""
    tables = context.store.list_tables()
    shown = {}
    for entity in Entity:
        mapping = context.store.read_mapping(entity)
        connections = {c.id: connection_json(c) for c in _declared(mapping, tables)}
        shown[entity.value] = {"version": mapping.version, "connections": connections}
    return Reply(envelope("declaration", "declaration", shown))


def apply_declaration(context: Context, request: Request) -> Reply:
    """Make the connections of users and accounts what a declaration says: in one step, all of it or nothing."""
    wanted = _read(request.body)
    _check_sources(context, wanted)
    now_ms = context.clock.now_ms()
    tables = context.store.list_tables()
    plans: dict[Entity, Plan] = {}

    def change(present: Map[Entity, Mapping]) -> dict[Entity, Mapping]:
        changed = {}
        for entity, mapping in present.items():
            plans[entity], changed[entity] = _change(context, request, wanted, mapping, tables, now_ms)
        return changed

    if request.flag("dry_run"):
        present = {entity: context.store.read_mapping(entity) for entity in Entity}
        return _answer(present, plans, _preview(context, request, present, change(present)))
    who, why = request.caller.id, request.headers.get("x-roster-reason", "")
    kept = context.store.change_mappings(change, who=who, why=why, request=request.body.decode(), now_ms=now_ms)
    context.sources_changed()
    context.syncs.declare()
    for plan in plans.values():
        for step in plan.steps:
            if isinstance(step, ConnectionStep) and step.verb is Verb.UPDATE:
                resume_paused(context, step.entity, step.id)
    return _answer(kept, plans, {})


def _read(body: bytes) -> _Wanted:
    asked = decode(DeclarationBody, body).data.attributes
    given = {e: dict(part) for e in Entity if (part := getattr(asked, e.value)) is not None}
    versions = {}
    for entity, part in given.items():
        version = part.pop("version", None)
        if version is None:
            continue
        if not isinstance(version, int) or isinstance(version, bool):
            raise Error(Code.INVALID, "version is no integer", at=f"{AT}/{entity}/version")
        versions[entity] = version
    declaration = read_declaration({entity.value: part for entity, part in given.items()}, AT)
    return _Wanted(declaration, versions, asked.prune)


def _check_sources(context: Context, wanted: _Wanted) -> None:
    """Error: FORBIDDEN, INVALID for a source that may not be read."""
    for entity in Entity:
        for c in wanted.declaration.connections(entity) or ():
            try:
                check_source(context, c.type, c.metadata)
            except Error as error:
                raise _placed(error, {}, f"{AT}/{entity}/connections/{c.id}") from error


def _declared(mapping: Mapping, tables: list[Table]) -> tuple[DeclaredConnection, ...]:
    return name_tables(declare_mapping(mapping), {t.id: t.name for t in tables if not t.owner})


def _change(
    context: Context, request: Request, wanted: _Wanted, mapping: Mapping, tables: list[Table], now_ms: int
) -> tuple[Plan, Mapping]:
    """The steps and the next mapping; the same one when nothing is left to do. Error: STALE and those of changes."""
    entity = mapping.entity
    said = wanted.declaration.connections(entity)
    if said is None:
        return Plan(), mapping
    names = {t.id: t.name for t in tables if not t.owner}
    plan = plan_connections(entity, _declared(mapping, tables), name_tables(said, names), prune=wanted.prune)
    if not plan.steps:
        return plan, mapping
    version = wanted.versions.get(entity, mapping.version)
    if version != mapping.version:
        message = f"the mapping of {entity} has version {mapping.version}, not {version}"
        raise Error(Code.STALE, message, at=f"{AT}/{entity}/version", hint="plan again")
    next_one = mapping
    for step in plan.steps:
        assert isinstance(step, ConnectionStep)
        next_one = _take(context, request.caller.id, next_one, step, tables, now_ms)
    if replace(next_one, version=mapping.version) == mapping:
        return plan, mapping
    return plan, replace(next_one, version=mapping.version + 1)


def _take(
    context: Context, who: str, mapping: Mapping, step: ConnectionStep, tables: list[Table], now_ms: int
) -> Mapping:
    """One step on a mapping. Errors: as the change's, placed in the declaration."""
    body: dict[str, Any] = {}
    try:
        if step.verb in (Verb.DELETE, Verb.REPLACE):
            mapping = delete(mapping, step.id)
        if step.verb is Verb.UPDATE:
            (body,) = update_bodies(step, bare=False)
            return update_on(context, mapping, read_update(json.dumps(body).encode()), tables, who, now_ms)
        if step.now is not None:
            body = create_body(step.now)
            return create_on(context, mapping, read_create(json.dumps(body).encode()), tables, who, now_ms)
    except Error as error:
        raise _placed(error, body, f"{AT}/{step.entity}/connections/{step.id}") from error
    return mapping


def _placed(error: Error, body: dict[str, Any], at: str) -> Error:
    """The same error with its place in the declaration instead of the request that a step was made of."""
    found = fullmatch(_FIELD, error.at)
    place = at
    if found:
        named = body["data"]["attributes"][found[1]][int(found[2])]
        id = named if isinstance(named, str) else named.get("updated_field_id") or named[_IDS.get(found[1], "id")]
        place = f"{at}/fields/{id}"
    return Error(error.code, f"connection {at.rpartition('/')[2]}: {error.message}", at=place, hint=error.hint)


def _preview(
    context: Context, request: Request, before: Map[Entity, Mapping], after: Map[Entity, Mapping]
) -> dict[str, Any]:
    """What a dry run of each changed mapping answers: as that of one connection, over all steps at once."""
    shown = {}
    for entity, mapping in after.items():
        if mapping != before[entity]:
            body = preview(context, request, before[entity], mapping, ()).body
            shown[entity.value] = body["data"]["attributes"] | {"warnings": body.get("meta", {}).get("warnings", [])}
    return {"previews": shown}


def _answer(kept: Map[Entity, Mapping], plans: Map[Entity, Plan], more: dict[str, Any]) -> Reply:
    attributes = {
        "versions": {entity.value: mapping.version for entity, mapping in kept.items()},
        "steps": [step_json(step) for plan in plans.values() for step in plan.steps],
        "apart": [told for plan in plans.values() for told in plan.apart],
    }
    return Reply(envelope("declaration", "declaration_applied", attributes | more), status=200)
