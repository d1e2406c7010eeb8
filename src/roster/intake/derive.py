"""Owns the steps that add to an event what follows from it: agent, page, action name, tags, place. No I/O."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from roster.intake.agent import read_agent
from roster.intake.page import read_page
from roster.intake.steps import Draft

NATIVE = frozenset(
    {"ios", "android", "react-native", "flutter", "kotlin-multiplatform", "roku", "unity", "rum-cpp", "maui"}
)
"""Sources whose requests are no browser's, whatever their User-Agent says."""
TAGS_CHARACTERS_MAX = 2048
_TAGGED = ("env", "service", "version")


def keep_sender(draft: Draft) -> None:
    """`session.useragent`, and `session.ip` where addresses are kept; an event may bring its own."""
    origin = draft.origin
    if origin is None or not (origin.user_agent or origin.peer):
        return
    session = _object(draft.wire, "session")
    if session is None:
        return
    if origin.user_agent:
        session.setdefault("useragent", origin.user_agent)
    if origin.peer:
        session.setdefault("ip", origin.peer)


def derive_agent(draft: Draft) -> None:
    """Browser, system and device by the User-Agent, each unless the event tells of it itself.

    An app's says nothing of a browser or a device, also where the event is of a page inside of the app.
    """
    wire, columns = draft.wire, draft.columns
    session = wire.get("session")
    text = session.get("useragent") if type(session) is dict else None
    if type(text) is not str or not text:
        return
    agent = read_agent(text)
    native = _is_native(draft)
    if not native and "browser_name" not in columns and "browser" not in wire:
        columns.update(agent.browser_columns)
        if agent.browser:
            wire["browser"] = agent.browser
    if "os_name" not in columns and "os" not in wire:
        columns.update(agent.os_columns)
        if agent.os:
            wire["os"] = agent.os
    if not native and "device_type" not in columns:
        own = wire.get("device")
        if own is None or (type(own) is dict and "type" not in own):
            columns["device_type"] = agent.device_type
            if agent.device:
                wire["device"] = {**agent.device, **own} if own else agent.device


def _is_native(draft: Draft) -> bool:
    """Whether an app sent the event: its own, or that of a page it shows, which says `browser` of itself."""
    container = draft.wire.get("container")
    sources = (
        draft.wire.get("source"),
        container.get("source") if type(container) is dict else None,
        draft.origin.source if draft.origin else None,
    )
    return any(type(source) is str and source in NATIVE for source in sources)


def derive_page(draft: Draft) -> None:
    """The parts of the view's address."""
    address = draft.columns.get("view_url")
    parts = read_page(address) if address else None
    if not parts:
        return
    own = draft.wire.get("view")
    if own is None:
        draft.wire["view"] = parts
    elif type(own) is dict:
        draft.wire["view"] = {**parts, **own}


def name_action(draft: Draft) -> None:
    """`action.name` of an action without one: what was done, on what."""
    columns = draft.columns
    if columns.get("type") != "action" or "action_name" in columns:
        return
    action = draft.wire.get("action")
    target = action.get("target") if type(action) is dict else None
    name = target.get("name") if type(target) is dict else None
    kind = columns.get("action_type")
    if type(name) is not str or not name:
        if kind:
            columns["action_name"] = kind
    elif kind == "custom" or not kind:
        columns["action_name"] = name
    else:
        columns["action_name"] = f"Click on {name}" if kind == "click" else f"{kind} on {name}"


def read_tags(draft: Draft) -> None:
    """`env`, `service` and `version` of the event's tags, else of the address's."""
    columns = draft.columns
    own = draft.wire.get("ddtags")
    if type(own) is str and own:
        _fill(columns, own)
    if draft.origin is not None and draft.origin.tags:
        _fill(columns, draft.origin.tags)


def _fill(columns: dict[str, Any], tags: str) -> None:
    for name, value in _tagged(tags if len(tags) <= TAGS_CHARACTERS_MAX else tags[:TAGS_CHARACTERS_MAX]):
        if name not in columns:
            columns[name] = value


@lru_cache(maxsize=1024)
def _tagged(tags: str) -> tuple[tuple[str, str], ...]:
    pairs = (tag.strip().partition(":") for tag in tags.split(","))
    found: dict[str, str] = {}
    for name, _, value in pairs:
        if name in _TAGGED and value:
            found.setdefault(name, value)
    return tuple(found.items())


def locate(draft: Draft) -> None:
    """`geo` by the sender's address, unless the event brings its own."""
    origin, columns = draft.origin, draft.columns
    if origin is None or not origin.place or "geo" in draft.wire:
        return
    if "country_code" in columns or "city" in columns or "region" in columns:
        return
    rest = dict(origin.place)
    for key, name in (("country_iso_code", "country_code"), ("city", "city"), ("country_subdivision", "region")):
        value = rest.pop(key, None)
        if value is not None:
            columns[name] = value
    if rest:
        draft.wire["geo"] = rest


def _object(wire: dict[str, Any], head: str) -> dict[str, Any] | None:
    """The object at a key, made when there is none; None when something else is there."""
    node = wire.setdefault(head, {})
    return node if type(node) is dict else None
