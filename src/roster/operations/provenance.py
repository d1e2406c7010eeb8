"""Owns telling where one value of one profile comes from, what other sources offered, and why they lost."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from roster.analyses.provenance import PER_BID, bids, provenance, source_cell
from roster.analyses.scopes import World
from roster.base.errors import Code, Error, did_you_mean
from roster.base.time import instant, iso_ms
from roster.model.mapping import Attribute, Offer
from roster.model.reference_table import Table
from roster.model.rules import Choice, Nulls
from roster.operations.context import Context, Reply, Request, entity_of, run_plans
from roster.operations.profiles import envelope, shown, world_of
from roster.query.offers import OLDEST, find_source_column
from roster.query.relations import join_sides
from roster.sync.coverage import why_quarantined


@dataclass(frozen=True, slots=True)
class _Found:
    """What one source offers a profile: the place of its row, the value taken from it, whether it would win."""

    row: int | None
    value: Any
    wins: bool
    changed: datetime


def get_provenance(context: Context, request: Request) -> Reply:
    """The value of one attribute of one profile: connection, column, row, sync run, time; and every other offer."""
    world = world_of(context, entity_of(request))
    name, profile = request.path["attribute"], request.path["id"]
    attribute = world.find(name)
    if attribute is None:
        hint = did_you_mean(name.removeprefix("@"), list(world.by_name))
        raise Error(Code.NOT_FOUND, f"{world.entity} have no attribute {name!r}", at="parameter attribute", hint=hint)
    rows = run_plans(context, request, [provenance(world, attribute, profile)])[0].rows
    if not rows:
        raise Error(Code.NOT_FOUND, f"there is no profile {profile!r} of {world.entity}", at="parameter id")
    value, *cells = rows[0]
    found = {
        bid.offer.connection.id: _Found(row, offered, bool(wins), changed)
        for bid, (row, offered, wins, changed) in zip(
            bids(world, attribute), zip(*[iter(cells)] * PER_BID, strict=True), strict=True
        )
    }
    winner = next((id for id, offer in found.items() if offer.wins), None)
    body = {
        "attribute": attribute.id,
        "profile": profile,
        "value": shown(value),
        "from": winner if attribute.offers else "events",
        "rule": attribute.choice.value if len(attribute.offers) > 1 else None,
        "offers": [
            _offer(context, request, world, attribute, offer, found.get(offer.connection.id), winner)
            for offer in attribute.offers
        ],
    }
    return Reply(envelope(f"{world.entity}/{profile}/{attribute.name}", "provenance", body))


def _offer(
    context: Context,
    request: Request,
    world: World,
    attribute: Attribute,
    offer: Offer,
    found: _Found | None,
    winner: str | None,
) -> dict[str, Any]:
    connection, field = offer.connection, offer.field
    table = world.sources.get(connection.id)
    told: dict[str, Any] = {"connection": connection.id, "source_name": field.source_name}
    if table is None:
        return told | {"counts": False, "why": "its source has no rows yet"}
    told |= _source(context, world, offer, table)
    if found is None:
        return told | {"counts": False, "why": f"its source has no column {field.source_name!r}"}
    if found.row is None:
        return told | {"counts": False, "why": "no row of its source has the profile's key"}
    plan = source_cell(table, field, found.row)
    assert plan is not None
    ((row_key, cell, is_typed),) = run_plans(context, request, [plan])[0].rows or [(None, None, False)]
    told |= {"row_key": row_key, "cell": cell, "value": shown(found.value)}
    if found.changed != OLDEST.value:
        told["changed_at"] = iso_ms(found.changed)
    return told | {
        "counts": connection.id == winner,
        "why": _why(attribute, offer, found, cell, winner, is_typed=is_typed),
    }


def _source(context: Context, world: World, offer: Offer, table: Table) -> dict[str, Any]:
    """Where the rows come from, and the run that read them, or the change that brought them."""
    sync = context.store.read_sync(table.id) if table.origin else None
    sides = join_sides(world.entity, offer.connection, table)
    joined = f"{sides.attribute.name} = {sides.column.name}" if sides else None
    read_ms = sync.synced_ms if sync and sync.synced_ms is not None else table.updated_ms
    column = find_source_column(table, offer.field.source_name)
    return {
        "type": offer.connection.type,
        "table": table.owner or table.name,
        "source_column": column.name if column else None,
        "joined": joined,
        "run": sync.run_id if sync else None,
        "read_at": iso_ms(instant(read_ms)),
    }


def _why(
    attribute: Attribute, offer: Offer, found: _Found, cell: str | None, winner: str | None, *, is_typed: bool
) -> str:
    """Why an offer counts, or not."""
    field = offer.field
    if offer.connection.id == winner:
        return "it is the only one" if len(attribute.offers) == 1 else _why_it_wins(attribute, field.rules.nulls)
    if found.value is None and cell is None:
        return "the cell is empty"
    if found.value is None:
        return why_quarantined(field, cell or "", is_typed)
    if not found.wins and attribute.choice is Choice.NON_EMPTY:
        return "it is blank"
    if attribute.choice is Choice.NEWEST:
        return f"the row of {winner} is newer, or as new and before it in order"
    return f"{winner} comes before it"


def _why_it_wins(attribute: Attribute, nulls: Nulls) -> str:
    match attribute.choice:
        case Choice.NEWEST:
            return "no other row changed later"
        case Choice.NON_EMPTY:
            return "it is the first that is not blank"
        case Choice.PRECEDENCE:
            return "it is the first with a row" if nulls is Nulls.CLEAR else "it is the first with a value"
