"""Owns readers beside a sync: loops that ask on and on, and see that no answer is of two generations."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from bench.measure import quantile
from bench.queries import BASE
from bench.server import Server, Wire
from bench.sync_runs import Samples, Syncing, take

LOOPS = 4
PAUSE_S = 0.2
"""Between an answer and the next request of a loop: readers who use up both cores would only measure themselves."""
READ_S = 4.0
"""How long they ask before a sync and after it."""
SHARES = (50, 95, 99)
PHASES_COMPARED = (", during", ", swap", ", after")
PAGE, FACET = "page", "facet"
REQUESTS: dict[str, tuple[str, dict[str, Any]]] = {
    PAGE: (
        f"{BASE}/query",
        {
            "data": {
                "type": "query_users_request",
                "attributes": {
                    "query": "@s_segment:gold AND @s_score:>50",
                    "select_columns": ["user_id", "user_email", "@s_marker", "@s_score", "@s_revenue", "last_seen"],
                    "sort": {"field": "events_count", "order": "desc"},
                    "limit": 25,
                },
            }
        },
    ),
    FACET: (
        f"{BASE}/facet_info",
        {
            "data": {
                "type": "users_facet_info_request",
                "attributes": {"facet_id": "@s_marker", "limit": 25, "search": {"query": "*"}},
            }
        },
    ),
}
NOTE = (
    f"{LOOPS} loops with {PAUSE_S * 1000:.0f} ms between an answer and the next request, in turn a page of 25 with two "
    "predicates on fields of the connection and a facet over all profiles"
)


@dataclass(frozen=True, slots=True)
class Asked:
    """One answer: what was asked, when it was sent, how long it took, and of which generation its rows are."""

    what: str
    sent_s: float
    taken_ms: float
    marker: str


@dataclass(slots=True)
class Readers:
    """Loops under way, and their answers."""

    answers: list[Asked] = field(default_factory=list)
    errors: list[Exception] = field(default_factory=list)
    done: threading.Event = field(default_factory=threading.Event)

    def between(self, from_s: float, to_s: float) -> list[Asked]:
        """Answers to requests sent within a time."""
        return [a for a in self.answers if from_s <= a.sent_s < to_s]

    def wait(self, seconds: float) -> float:
        """Let them go on for a while; gives the time before it. Error: what ended a loop."""
        started_s = time.perf_counter()
        self.done.wait(seconds)
        self.check()
        return started_s

    def check(self) -> None:
        if self.errors:
            raise self.errors[0]


def sync_beside(syncing: Syncing, samples: Samples) -> int:
    """One sync with readers before, during and after it; how many answers they had, each of one generation."""
    with reading(syncing.server) as readers:
        before_s = readers.wait(READ_S)
        begun_s = time.perf_counter()
        synced = syncing.sync("done")
        readers.wait(READ_S)
        answers = readers.between(before_s, time.perf_counter())
    swap_s = synced.began_s.get("swap", synced.ended_s)
    phases = {
        "before": [a for a in answers if a.sent_s < begun_s],
        "during": [a for a in answers if begun_s <= a.sent_s < synced.ended_s],
        "swap": [a for a in answers if swap_s <= a.sent_s < synced.ended_s],
        "after": [a for a in answers if a.sent_s >= synced.ended_s],
    }
    for what in (PAGE, FACET):
        for share in SHARES:
            for phase, of_phase in phases.items():
                taken = tuple(a.taken_ms for a in of_phase if a.what == what)
                if taken:
                    take(samples, f"{what} p{share}, {phase}", quantile(taken, share / 100))
    take(samples, "sync beside readers", synced.whole_ms())
    return len(answers)


def against_before(samples: Samples) -> dict[str, str]:
    """What each quantile of a later phase is compared with: the same before the sync."""
    return {name: f"{name.rpartition(', ')[0]}, before" for name in samples if name.endswith(PHASES_COMPARED)}


@contextmanager
def reading(server: Server) -> Iterator[Readers]:
    """Readers for as long as the block lasts."""
    readers = Readers()
    threads = [threading.Thread(target=_loop, args=(server, readers, place)) for place in range(LOOPS)]
    for thread in threads:
        thread.start()
    try:
        yield readers
    finally:
        readers.done.set()
        for thread in threads:
            thread.join()
    readers.check()


def _loop(server: Server, readers: Readers, place: int) -> None:
    """Ask until it is over. A loop that has seen a generation must never see one before it again."""
    seen: list[str] = []
    try:
        readers.done.wait(PAUSE_S * place / LOOPS)
        with server.wire() as wire:
            while not readers.done.is_set():
                for what in (PAGE, FACET):
                    asked = ask(wire, what)
                    if asked.marker not in seen[-1:]:
                        seen.append(asked.marker)
                    readers.answers.append(asked)
                    readers.done.wait(PAUSE_S)
        if len(seen) > 2:
            raise RuntimeError(f"a reader saw the generations {', '.join(seen)} during one sync")
    except Exception as error:  # noqa: BLE001  raised again in the thread that measures
        readers.errors.append(error)
        readers.done.set()


def ask(wire: Wire, what: str) -> Asked:
    """One request. Error: RuntimeError when its rows are of two generations, or there are none."""
    path, body = REQUESTS[what]
    packed = wire.pack("POST", path, body)
    sent_s = time.perf_counter()
    answered = wire.send(packed)
    taken_ms = (time.perf_counter() - sent_s) * 1000
    markers = set(_markers(what, json.loads(answered)["data"]["attributes"]))
    if len(markers) != 1:
        raise RuntimeError(f"a {what} is of the generations {sorted(map(str, markers))}")
    return Asked(what, sent_s, taken_ms, markers.pop())


def _markers(what: str, attributes: dict[str, Any]) -> Sequence[str]:
    if what == PAGE:
        return [next(value for name, value in hit.items() if name.endswith("s_marker")) for hit in attributes["hits"]]
    return [value["value"] for value in attributes["result"]["values"]]
