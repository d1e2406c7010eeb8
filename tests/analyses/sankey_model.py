"""Owns what a diagram of pathways must show, in plain Python from lists of events; knows nothing of plans and SQL."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from analyses.event_worlds import Fact, text_of


@dataclass(frozen=True)
class Asked:
    keys: tuple[str, ...]
    source: str
    target: str
    begins: str | None
    ends: str | None
    columns: int
    entries: int


def fits(pattern: str, value: str) -> bool:
    """The whole value is the pattern, `*` standing for any text and `?` for one character."""
    spelled = "".join({"*": ".*", "?": "."}.get(c, re.escape(c)) for c in pattern)
    return re.fullmatch(spelled, value, re.DOTALL) is not None


def paths(events: Sequence[Fact], asked: Asked) -> list[tuple[int, list[str], bool]]:
    """For each key that is shown: the column its path begins in, the values, and whether it ended too early."""
    by_key: dict[Any, list[Fact]] = defaultdict(list)
    for event in sorted(events, key=lambda e: (e["ms"], e["id"])):
        key = tuple(text_of(event[k]) for k in asked.keys)
        if None not in key:
            by_key[key].append(event)
    found = []
    for theirs in by_key.values():
        path = one_path(theirs, asked)
        if path is not None:
            found.append(path)
    return found


def one_path(events: list[Fact], asked: Asked) -> tuple[int, list[str], bool] | None:
    stops: list[tuple[str, int]] = []
    for place, event in enumerate(events):
        value = text_of(event[asked.source])
        if value is not None and (not stops or stops[-1][0] != value):
            stops.append((value, place))
    if asked.begins is not None:
        first = next((n for n, (v, _) in enumerate(stops) if fits(asked.begins, v)), None)
        if first is None:
            return None
        stops = stops[first:]
    if asked.ends is not None:
        tail = 1 if asked.begins is not None else 0
        last = next((n for n, (v, _) in enumerate(stops) if n >= tail and fits(asked.ends, v)), None)
        if last is None:
            return None
        stops = stops[: last + 1]
    if len(stops) < 2:
        return None
    if asked.ends is not None and asked.begins is None:
        values = [v for v, _ in stops][-asked.columns :]
        return asked.columns - len(values), values, False
    if asked.source == asked.target:
        values = [v for v, _ in stops][: asked.columns]
    else:
        values = [v for v, _ in stops][: asked.columns - 1]
        if len(values) == asked.columns - 1:
            after = events[stops[len(values) - 1][1] + 1 :]
            values += [t for e in after if (t := text_of(e[asked.target])) is not None][:1]
    return 0, values, asked.ends is None and len(values) < asked.columns


def expected(events: Sequence[Fact], asked: Asked) -> tuple[list[Any], list[Any]]:
    """Nodes as (id, name, kind, column, value, incoming, outgoing, dropoff, listed), and links as
    (column, source, target, value), both in their order."""
    found = paths(events, asked)
    through: Counter[tuple[int, str]] = Counter()
    for start, values, _ in found:
        through.update((start + n, value) for n, value in enumerate(values))
    best = {
        column: [v for v, _ in sorted(rest, key=lambda item: (-item[1], item[0]))]
        for column in range(asked.columns)
        if (rest := [(v, n) for (c, v), n in through.items() if c == column])
    }
    kept = {column: values[: asked.entries] for column, values in best.items()}

    def id_of(column: int, value: str) -> str:
        return f"{column}:{value}" if value in kept[column] else f"other:{column}"

    value: Counter[str] = Counter()
    incoming: Counter[str] = Counter()
    outgoing: Counter[str] = Counter()
    dropped: Counter[str] = Counter()
    links: Counter[tuple[int, str, str]] = Counter()
    single: dict[tuple[int, str], list[int]] = defaultdict(lambda: [0, 0, 0])
    for start, values, ended in found:
        ids = [id_of(start + n, v) for n, v in enumerate(values)]
        for n, (id, name) in enumerate(zip(ids, values, strict=True)):
            value[id] += 1
            incoming[id] += n > 0
            outgoing[id] += n < len(ids) - 1
            counts = single[start + n, name]
            counts[0], counts[1], counts[2] = counts[0] + 1, counts[1] + (n > 0), counts[2] + (n < len(ids) - 1)
            if n:
                links[start + n - 1, ids[n - 1], id] += 1
        if ended:
            dropped[ids[-1]] += 1
            links[start + len(ids) - 1, ids[-1], f"dropoff:{start + len(ids)}"] += 1
    nodes: list[Any] = []
    for column in range(asked.columns):
        for name in kept.get(column, []):
            id = f"{column}:{name}"
            nodes.append((id, name, "regular", column, value[id], incoming[id], outgoing[id], dropped[id], ()))
        rest_names = best.get(column, [])[asked.entries :]
        if rest_names:
            id = f"other:{column}"
            listed = tuple((f"{column}:{n}", n, *single[column, n]) for n in rest_names[:100])
            nodes.append((id, "other", "other", column, value[id], incoming[id], outgoing[id], dropped[id], listed))
        end = f"dropoff:{column}"
        gone = sum(n for (_, _, target), n in links.items() if target == end)
        if gone:
            nodes.append((end, "dropoff", "dropoff", column, gone, gone, 0, 0, ()))
    return nodes, _ordered(links, nodes)


def _ordered(links: Counter[tuple[int, str, str]], nodes: list[Any]) -> list[Any]:
    """From each node in turn: to regular ones, the most taken first, then to other, then to drop-off."""
    place = {node[0]: n for n, node in enumerate(nodes)}
    kind = {node[0]: ("regular", "other", "dropoff").index(node[2]) for node in nodes}
    names = {node[0]: node[1] for node in nodes}
    items = [(column, source, target, n) for (column, source, target), n in links.items()]
    return sorted(items, key=lambda i: (place[i[1]], kind[i[2]], -i[3], names[i[2]]))
