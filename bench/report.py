"""Owns telling results: a table for people, JSON for programs, and the line about the machine."""

from __future__ import annotations

import json
import os
import platform
import sys
from pathlib import Path
from statistics import median
from typing import Any

import duckdb

from bench.measure import Contender, Outcome, quantile
from bench.world import Size, World
from roster import __version__

HEADINGS = ("workload", "how", "median", "p10..p90", "ratio", "difference")


def machine(size: Size, rounds: int) -> dict[str, Any]:
    """What the numbers hang on."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "cores": len(os.sched_getaffinity(0)),
        "memory_gb": round(memory / 1e9, 1),
        "load_at_end": round(os.getloadavg()[0], 2),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": platform.python_version(),
        "duckdb": duckdb.__version__,
        "roster": __version__,
        "profiles": size.profiles,
        "rows": size.rows,
        "events": size.events,
        "seed": size.seed,
        "rounds": rounds,
    }


def spread(contender: Contender) -> str:
    low, high = quantile(contender.samples, 0.1), quantile(contender.samples, 0.9)
    return f"{shown(low)}..{shown(high)}"


def shown(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}" if abs(value) < 10 else f"{value:.1f}"


def table(outcomes: list[Outcome]) -> str:
    """Every contender a line; ratio and difference are with its base by hand, in the same rounds."""
    lines = [HEADINGS]
    notes = []
    for outcome in outcomes:
        notes.append(f"{outcome.workload}: {outcome.note}")
        for contender in outcome.contenders:
            middle = median(contender.samples)
            ratio, difference = outcome.ratio(contender), ""
            if contender.base is not None:
                difference = shown(middle - median(outcome.named(contender.base).samples))
            told = (f"{shown(middle)} {contender.unit}", spread(contender), "" if ratio is None else f"{ratio:.2f}")
            lines.append((outcome.workload, contender.name, *told, difference))
    widths = [max(len(line[n]) for line in lines) for n in range(len(HEADINGS))]
    rows = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]
    return "\n".join([*rows, "", *notes])


def write_json(path: Path, world: World, told: dict[str, Any], outcomes: list[Outcome]) -> None:
    """All samples, with what is needed to judge them."""
    workloads = {
        outcome.workload: {
            "note": outcome.note,
            "contenders": {
                c.name: {
                    "unit": c.unit,
                    "median": median(c.samples),
                    "p10": quantile(c.samples, 0.1),
                    "p90": quantile(c.samples, 0.9),
                    "base": c.base,
                    "ratio": outcome.ratio(c),
                    "samples": c.samples,
                }
                for c in outcome.contenders
            },
        }
        for outcome in outcomes
    }
    content = {"machine": told, "argv": sys.argv[1:], "world_made_s": world.made_s, "workloads": workloads}
    path.write_text(json.dumps(content, indent=1))
