"""Owns pathways (sankey): reading the request, and the diagram as the API shows it."""

from __future__ import annotations

from typing import Any

from roster.analyses.base_query import BaseQuery
from roster.analyses.event_world import EventWorld
from roster.analyses.explore import Selection
from roster.analyses.sankey import Diagram, Kind, Listed, Node, Pathways, diagram, pathways
from roster.base.errors import Code, Error
from roster.operations.analysis import AT, answer, frame, read_audience, read_range, told_range
from roster.operations.bodies import decode
from roster.operations.bodies_sankey import SankeyAttributes, SankeyBody
from roster.operations.context import Context, Reply, Request
from roster.operations.event_worlds import event_world_of
from roster.operations.journey_requests import read_keys
from roster.query.resolve import Deep

STEPS_DEFAULT = 5
ENTRIES_DEFAULT = 5
FACET_DEFAULT = "@view.name"


def query_sankey(context: Context, request: Request) -> Reply:
    """The paths that events take from value to value of a facet, as columns of nodes with links between them."""
    asked = decode(SankeyBody, request.body).data.attributes
    world = event_world_of(context, request)
    paths = read_pathways(world, asked)
    plan, warnings = pathways(world, paths)
    answers = answer(context, request, world, "QueryProductAnalyticsSankey", (plan,), warnings)
    if isinstance(answers, Reply):
        return answers
    made, doubts = diagram(answers[0].rows, paths)
    id = context.clock.new_id()
    return frame(id, "sankey_response", _shown(made), told_pathways(paths), (*warnings, *doubts))


def read_pathways(world: EventWorld, asked: SankeyAttributes) -> Pathways:
    """The paths a request is about. Errors: INVALID with the place and what would be right."""
    definition, search = asked.definition, asked.search
    source = _facet(world, definition.source, f"{AT}/definition/source")
    target = _facet(world, definition.target, f"{AT}/definition/target")
    key, secondary = read_keys(search.join_keys, f"{AT}/search")
    return Pathways(
        selection=Selection(
            read_range(asked.time.from_, asked.time.to, f"{AT}/time"),
            BaseQuery(search.query or "", f"{AT}/search/query"),
            read_audience(search.audience_filters, f"{AT}/search/audience_filters"),
        ),
        key=key,
        secondary=secondary,
        source=source or target or FACET_DEFAULT,
        target=target or source or FACET_DEFAULT,
        begins=None if source else definition.source,
        ends=None if target else definition.target,
        columns=(definition.number_of_steps or STEPS_DEFAULT) + 2,
        entries=definition.entries_per_step or ENTRIES_DEFAULT,
    )


def _facet(world: EventWorld, text: str, at: str) -> str | None:
    """The name of a facet, or None for a value that paths begin or end at. Error: INVALID for neither.

    A facet begins with '@', or is known.
    """
    if not text.strip(" @"):
        hint = "a facet such as @view.name, or a value such as /home"
        raise Error(Code.INVALID, f"{text!r} is no facet", at=at, hint=hint)
    known = text.startswith("@") or not isinstance(world.scope.find(text), Deep)
    return f"@{text.removeprefix('@')}" if known else None


def told_pathways(paths: Pathways) -> dict[str, Any]:
    """What was understood of pathways, defaults too."""
    told = told_range(paths.selection.span) | {
        "source": paths.source,
        "target": paths.target,
        "number_of_steps": paths.columns - 2,
        "entries_per_step": paths.entries,
        "join_key": paths.key.value,
    }
    if paths.secondary:
        told["secondary_join_keys"] = list(paths.secondary)
    if paths.begins is not None:
        told["paths_begin_at"] = paths.begins
    if paths.ends is not None:
        told["paths_end_at"] = paths.ends
    return told


def _shown(made: Diagram) -> dict[str, Any]:
    links = [
        {"id": f"link:{n}", "source": link.source, "target": link.target, "column": link.column, "value": link.value}
        for n, link in enumerate(made.links)
    ]
    return {"nodes": [_node(node) for node in made.nodes], "links": links}


def _node(node: Node) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "id": node.id,
        "name": node.name,
        "type": node.kind.value,
        "column": node.column,
        "value": node.value,
        "incoming_value": node.incoming,
        "outgoing_value": node.outgoing,
        "dropoff_value": node.dropoff,
    }
    if node.kind is Kind.OTHER:
        shown["aggregated_nodes"] = [_listed(item) for item in node.listed]
    return shown


def _listed(item: Listed) -> dict[str, Any]:
    return {
        "id": item.id,
        "name": item.name,
        "type": "aggregated",
        "value": item.value,
        "incoming_value": item.incoming,
        "outgoing_value": item.outgoing,
    }
