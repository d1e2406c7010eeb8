"""The ports: what operations need of engines, stores, sources and clocks. Holds no implementation."""

from roster.ports.engine import (
    Answer,
    Applied,
    Budget,
    Cancel,
    Engine,
    Erased,
    EventPage,
    Events,
    Explanation,
    FileFormat,
    Forgotten,
    Progress,
)
from roster.ports.lists import KeptList, Lists
from roster.ports.records import Clock, Store, Vault
from roster.ports.sources import Jobs, Notice, Notices, Reading, SentMembers, Sources, Wanted
from roster.ports.tables import ANEW, Loaded, Merge, RowPage, Staged, Tables

__all__ = [
    "ANEW",
    "Answer",
    "Applied",
    "Budget",
    "Cancel",
    "Clock",
    "Engine",
    "Erased",
    "EventPage",
    "Events",
    "Explanation",
    "FileFormat",
    "Forgotten",
    "Jobs",
    "KeptList",
    "Lists",
    "Loaded",
    "Merge",
    "Notice",
    "Notices",
    "Progress",
    "Reading",
    "RowPage",
    "SentMembers",
    "Sources",
    "Staged",
    "Store",
    "Tables",
    "Vault",
    "Wanted",
]
