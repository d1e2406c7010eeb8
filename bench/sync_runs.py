"""Owns how a benchmark has a source synced and what it sees of the run; knows no kind of source."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from bench.measure import Contender
from bench.server import PEAK, Server, Wire
from bench.sync_source import fields
from bench.world import MAPPING

SHOP = "shop"
POLL_S = 0.02
RECORD_SLACK_MS = 500.0
"""What a look may come late, on a busy machine."""
WAIT_S = 900.0
ENDED = ("done", "unchanged", "failed", "cancelled")
NEVER = "366d"
"""Between two syncs that nobody asked for."""
STEPS = ("read", "stage", "check", "swap")

Samples = dict[str, list[float]]


@dataclass(frozen=True, slots=True)
class Synced:
    """A run as it was seen: its record, when each step began and it ended (here), its highest memory in MB."""

    run: dict[str, Any]
    asked_s: float
    began_s: dict[str, float]
    ended_s: float
    server_mb: float
    child_mb: float

    def whole_ms(self) -> float:
        """From the request to the first look that shows it ended."""
        return (self.ended_s - self.asked_s) * 1000

    def commit_ms(self) -> float:
        """From the first look that shows reading over."""
        begun = [at for step, at in self.began_s.items() if step != STEPS[0]]
        return (self.ended_s - min(begun, default=self.asked_s)) * 1000

    def recorded_ms(self) -> float:
        """From begin to end as its own record says."""
        started, ended = (datetime.fromisoformat(self.run[name]) for name in ("started", "ended"))
        return (ended - started).total_seconds() * 1000

    def step_ms(self, step: str) -> float:
        """To within the time between two looks."""
        later = [at for name, at in self.began_s.items() if STEPS.index(name) > STEPS.index(step)]
        begun = self.began_s.get(step)
        return 0.0 if begun is None else (min(later, default=self.ended_s) - begun) * 1000

    def counts(self) -> list[int]:
        """What `ByHand.sync` gives."""
        (line,) = self.run["coverage"]
        rows, profiles = line["rows"], line["profiles"]
        stored, keys = self.run["rows"]["stored"], rows["read"] - rows["duplicate"]
        matched = [profiles["all"], profiles["matched"]]
        return [rows["read"], stored, keys, rows["matched"], line["cells"]["accepted"], *matched]


class Syncing:
    """A server whose source `shop` is connected, synced and let go again."""

    def __init__(self, server: Server, wire: Wire) -> None:
        self.server = server
        self._wire = wire

    def connect(self, kind: str, metadata: dict[str, str]) -> Synced:
        """Make the connection and follow its first sync."""
        attributes = {
            "type": kind,
            "join_type": "email",
            "join_attribute": "email",
            "metadata": metadata | {"every": NEVER},
            "fields": fields(),
        }
        body = {"data": {"type": "connection_id", "id": SHOP, "attributes": attributes}}

        def start() -> str:
            self._wire.ask("POST", MAPPING, body)
            deadline_s = time.monotonic() + WAIT_S
            while time.monotonic() < deadline_s:
                source = self._wire.ask("GET", f"/api/roster/sources/users%2F{SHOP}")["data"]["attributes"]
                run = source["running"] or source["run"]
                if run:
                    return str(run["id"])
                time.sleep(POLL_S)
            raise RuntimeError("the first sync did not begin")

        return self._follow(start, "done")

    def sync(self, phase: str) -> Synced:
        """Have it synced; it must end in this phase."""

        def start() -> str:
            return str(self._wire.ask("POST", f"/api/roster/sources/users%2F{SHOP}/sync")["data"]["id"])

        return self._follow(start, phase)

    def disconnect(self) -> None:
        """Let the source go."""
        self._wire.ask("DELETE", f"{MAPPING}/{SHOP}")

    def _follow(self, start: Callable[[], str], phase: str) -> Synced:
        self.server.forget_peak()
        asked_s = time.perf_counter()
        id = start()
        began_s: dict[str, float] = {}
        child = 0
        deadline_s = time.monotonic() + WAIT_S
        while time.monotonic() < deadline_s:
            run = self._wire.ask("GET", f"/api/roster/runs/{id}")["data"]["attributes"]
            if run["phase"] in ENDED:
                break
            if run["phase"] == "running":
                began_s.setdefault(run["step"], time.perf_counter())
            child = max(child, self.server.peak_bytes()[1])
            time.sleep(POLL_S)
        ended_s = time.perf_counter()
        if run["phase"] != phase:
            raise RuntimeError(f"a sync is {run['phase']}, not {phase}: {run['failure']}")
        synced = Synced(run, asked_s, began_s, ended_s, self.server.peak_bytes()[0] / 1e6, child / 1e6)
        _check_record(synced)
        return synced


def _check_record(synced: Synced) -> None:
    """Error: RuntimeError when a run's record leaves out a part of the work that was seen from here."""
    seen_ms = sum(map(synced.step_ms, STEPS))
    if synced.recorded_ms() < seen_ms - RECORD_SLACK_MS:
        raise RuntimeError(f"a run says it took {synced.recorded_ms():.0f} ms, its steps took {seen_ms:.0f} ms")


def take(samples: Samples, name: str, value: float) -> None:
    """One more sample under a name."""
    samples.setdefault(name, []).append(value)


def take_steps(samples: Samples, name: str, synced: Synced) -> None:
    """Those that were seen: in a small world a step may be over between two looks."""
    for step in STEPS:
        if synced.step_ms(step) > 0:
            take(samples, f"{name} {step}", synced.step_ms(step))


def take_by_cursor(samples: Samples, synced: Synced) -> None:
    """A sync that read the changed rows only."""
    take(samples, "1 % of the rows changed, by cursor", synced.whole_ms())
    take_steps(samples, "by cursor, step", synced)
    take(samples, f"by cursor, {PEAK}", synced.server_mb)


def contenders(samples: Samples, bases: dict[str, str]) -> tuple[Contender, ...]:
    """The samples by name; `bases` says which are told as a ratio to which."""

    def unit(name: str) -> str:
        return "MB" if "memory" in name else "ms"

    def base(name: str) -> str | None:
        """None as well when a phase was too short for an answer in some round: then rounds cannot be paired."""
        found = bases.get(name)
        return found if found and len(samples[found]) == len(samples[name]) else None

    return tuple(Contender(n, tuple(taken), unit(n), base(n)) for n, taken in samples.items())
