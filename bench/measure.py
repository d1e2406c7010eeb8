"""Owns measuring: contenders in alternating rounds, medians, spreads, ratios within a round."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping as Map
from dataclasses import dataclass
from statistics import median
from typing import Any, TypeVar

WARM_ROUNDS = 2
Done = TypeVar("Done")


@dataclass(frozen=True, slots=True)
class Contender:
    """One way to do a workload's work: a sample a round, in rounds shared with the others."""

    name: str
    samples: tuple[float, ...]
    unit: str = "ms"
    base: str | None = None
    """The contender it is compared with; None compares with nothing."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """One workload's contenders, and in words what was done and what was compared."""

    workload: str
    note: str
    contenders: tuple[Contender, ...]

    def named(self, name: str) -> Contender:
        return next(c for c in self.contenders if c.name == name)

    def ratio(self, contender: Contender) -> float | None:
        """Median of the ratios within each round: what disturbs a whole round cancels out."""
        if contender.base is None:
            return None
        pairs = zip(contender.samples, self.named(contender.base).samples, strict=True)
        return median(ours / theirs for ours, theirs in pairs)


def quantile(samples: tuple[float, ...], share: float) -> float:
    """By linear interpolation."""
    ordered = sorted(samples)
    place = share * (len(ordered) - 1)
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


def time_ms(work: Callable[[], Done]) -> tuple[float, Done]:
    """Milliseconds of the work, and what it gave."""
    started_s = time.perf_counter()
    done = work()
    return (time.perf_counter() - started_s) * 1000, done


def alternate(
    works: Map[str, Callable[[], object]], rounds: int, warm_rounds: int = WARM_ROUNDS
) -> dict[str, tuple[float, ...]]:
    """Milliseconds of each work in each round. Who begins changes from round to round."""
    names = list(works)
    samples: dict[str, list[float]] = {name: [] for name in names}
    for number in range(-warm_rounds, rounds):
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:
            taken_ms, _ = time_ms(works[name])
            if number >= 0:
                samples[name].append(taken_ms)
    return {name: tuple(taken) for name, taken in samples.items()}


def same(what: str, ours: Any, theirs: Any) -> None:
    """End the benchmark when two answers differ: a fast wrong answer is worth nothing."""
    if ours != theirs:
        raise RuntimeError(f"{what}: the answers differ\nours   {str(ours)[:2000]}\ntheirs {str(theirs)[:2000]}")
