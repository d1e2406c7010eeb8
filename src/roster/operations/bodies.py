"""Owns the request bodies of the audience operations as strict models, and how any body is decoded."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Annotated, Any, Literal as OneOf, TypeVar

import msgspec
from pydantic import BaseModel, ConfigDict, Field as Rule, ValidationError
from pydantic_core import ErrorDetails

from roster.base.errors import Code, Error

INT64 = Rule(ge=-(2**63), le=2**63 - 1)
Int64 = Annotated[int, INT64]


class Body(BaseModel):
    """Open: unknown properties are ignored, as the API's clients may send more than we know."""

    model_config = ConfigDict(strict=True, extra="ignore", frozen=True)


class ClosedBody(BaseModel):
    """Closed: an unknown property is an error."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class ConflictBody(ClosedBody):
    rule: str
    order: list[str] | None = None


class FieldBody(Body):
    """The last four are ours: rules of its values."""

    id: str
    source_name: str
    type: str
    display_name: str | None = None
    description: str | None = None
    groups: list[str] | None = None
    conflict: ConflictBody | None = None
    null_rule: str | None = None
    allowed_values: list[str] | None = None
    pattern: str | None = None


class BulkBody(ClosedBody):
    """Ours: a field over every column but the key and these."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, serialize_by_alias=True)

    but: list[str] | None = Rule(None, alias="except")
    naming: str | None = None


class CreateConnectionAttributes(Body):
    type: str
    join_attribute: Annotated[str, Rule(min_length=1)]
    join_type: Annotated[str, Rule(min_length=1)]
    fields: list[FieldBody] | None = None
    metadata: dict[str, str] | None = None
    fields_from_columns: BulkBody | None = None


class CreateConnectionData(Body):
    type: OneOf["connection_id"]
    id: str | None = None
    attributes: CreateConnectionAttributes | None = None


class CreateConnectionBody(Body):
    data: CreateConnectionData | None = None


class FieldUpdateBody(Body):
    field_id: str
    updated_field_id: str | None = None
    updated_display_name: str | None = None
    updated_description: str | None = None
    updated_groups: list[str] | None = None
    updated_type: str | None = None
    updated_conflict: ConflictBody | None = None
    updated_null_rule: str | None = None
    updated_allowed_values: list[str] | None = None
    updated_pattern: str | None = None


class UpdateConnectionAttributes(Body):
    fields_to_add: list[FieldBody] | None = None
    fields_to_update: list[FieldUpdateBody] | None = None
    fields_to_delete: list[str] | None = None
    fields_from_columns: BulkBody | None = None


class UpdateConnectionData(Body):
    type: OneOf["connection_id"]
    id: str
    attributes: UpdateConnectionAttributes | None = None


class UpdateConnectionBody(Body):
    data: UpdateConnectionData | None = None


class SortBody(Body):
    field: str | None = None
    order: str | None = None


class QueryAttributes(Body):
    query: str | None = None
    select_columns: list[str] | None = None
    sort: SortBody | None = None
    wildcard_search_term: str | None = None
    limit: Int64 | None = None


class QueryUsersData(Body):
    type: OneOf["query_users_request"]
    id: str | None = None
    attributes: QueryAttributes | None = None


class QueryUsersBody(Body):
    data: QueryUsersData | None = None


class QueryAccountsData(Body):
    type: OneOf["query_account_request"]
    id: str | None = None
    attributes: QueryAttributes | None = None


class QueryAccountsBody(Body):
    data: QueryAccountsData | None = None


class TimeFrame(Body):
    """Epoch seconds; half-open."""

    start: Int64 | None = None
    end: Int64 | None = None


class EventQuery(Body):
    query: str | None = None
    time_frame: TimeFrame | None = None


class EventFilteredAttributes(Body):
    event_query: EventQuery | None = None
    include_row_count: bool | None = None
    query: str | None = None
    select_columns: list[str] | None = None
    limit: Int64 | None = None


class EventFilteredData(Body):
    type: OneOf["query_event_filtered_users_request"]
    id: str | None = None
    attributes: EventFilteredAttributes | None = None


class EventFilteredBody(Body):
    data: EventFilteredData | None = None


class FacetSearch(Body):
    query: str | None = None


class TermSearch(Body):
    value: str | None = None


class FacetAttributes(Body):
    facet_id: str
    limit: Int64
    search: FacetSearch | None = None
    term_search: TermSearch | None = None


class FacetData(Body):
    type: OneOf["users_facet_info_request"]
    id: str | None = None
    attributes: FacetAttributes | None = None


class FacetBody(Body):
    data: FacetData | None = None


Model = TypeVar("Model", bound=BaseModel)


def decode(model: type[Model], body: bytes) -> Model:
    """A JSON body as its model. Error: INVALID with every wrong place as a JSON pointer.

    msgspec looks first: it alone refuses NaN, infinite numbers and lone surrogates everywhere.
    """
    if not body.strip():
        raise Error(Code.INVALID, "the request has no body", hint="send a JSON object")
    try:
        given = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Error(Code.INVALID, f"the body is not JSON: {error}") from error
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        first, *rest = [_error(detail, given) for detail in error.errors(include_url=False)]
        raise Error(first.code, first.message, at=first.at, hint=first.hint, others=tuple(rest)) from error


def _error(detail: ErrorDetails, given: Any) -> Error:
    absent = detail["loc"][-1:] if detail["type"] == "missing" else ()
    present = detail["loc"][: len(detail["loc"]) - len(absent)]
    parts = (*_places(present, given), *absent)
    pointer = "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in parts)
    return Error(Code.INVALID, detail["msg"], at=pointer or "/")


def _places(loc: Iterable[int | str], given: Any) -> Iterator[int | str]:
    """The parts of a place that are in the document: pydantic also names which member of a union it tried."""
    for part in loc:
        in_list = isinstance(given, list) and isinstance(part, int) and part < len(given)
        if in_list or (isinstance(given, dict) and part in given):
            given = given[part]
            yield part
