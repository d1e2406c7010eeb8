"""Owns what retention means, in plain Python over facts of events; knows no plans, no SQL, nothing of the product."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from itertools import pairwise, product
from typing import Any
from zoneinfo import ZoneInfo

from told_texts import texts_in

Row = dict[str, Any]
Span = tuple[int, int]
Value = Callable[[Row], str | None]
Tags = list[tuple[str, ...]]
"""Of one row: the values of all groups, more than once where one has several."""
DAY_MS = 86_400_000


@dataclass(frozen=True)
class Group:
    value: Value
    returns: bool
    limit: int
    exclude_missing: bool


@dataclass(frozen=True)
class Asked:
    """`cohorts`: their periods; `columns`: of each cohort its periods of return. `at_least`: events one must have."""

    span: Span
    who: Value
    entered: Callable[[Row], bool]
    returned: Callable[[Row], bool] | None
    at_least: int
    or_after: bool
    first_only: bool
    identified: bool
    admitted: Callable[[Row], bool]
    cohorts: Sequence[Span]
    columns: Sequence[Sequence[Span]]
    groups: Sequence[Group]


@dataclass(frozen=True)
class Entry:
    """Someone in a cohort since a time; the events of entry, more than one where they are of one instant."""

    who: str
    cohort: int
    at: int
    events: tuple[Row, ...]


def within(span: Span, at: int) -> bool:
    return span[0] <= at < span[1]


def calendar(span: Span, unit: str, zone: str) -> list[Span]:
    """The days, weeks (from Monday) or months of a time zone that meet a range."""
    local = ZoneInfo(zone)
    day = datetime.fromtimestamp(span[0] / 1000, local).date() - timedelta(days=40)
    starts: list[int] = []
    while not starts or starts[-1] < span[1]:
        first = {"day": True, "week": day.weekday() == 0, "month": day.day == 1}[unit]
        if first:
            starts.append(midnight(day, local))
        day += timedelta(days=1)
    return [s for s in pairwise(starts) if s[1] > span[0]]


def midnight(day: date, zone: ZoneInfo) -> int:
    return round(datetime(day.year, day.month, day.day, tzinfo=zone).timestamp() * 1000)


def fixed(start: int, end: int, width: int) -> list[Span]:
    """Spans of one width from a start on that begin before the end."""
    return [(at, at + width) for at in range(start, end, width)]


def columns_of(cohorts: Sequence[Span], end: int, returned: tuple[str, Any, str] | None) -> list[list[Span]]:
    """The periods of return of each cohort: None its own kind, else (calendar unit or `fixed`, width, zone)."""
    if returned is None:
        return [list(cohorts[n:]) for n in range(len(cohorts))]
    unit, width, zone = returned
    if unit == "fixed":
        return [fixed(start, end, width) for start, _ in cohorts]
    spans = calendar((cohorts[0][0], end), unit, zone)
    return [[s for s in spans if s[1] > start] for start, _ in cohorts]


def traffic(asked: Asked, events: Sequence[Row]) -> list[Row]:
    """The events that count at all."""
    kept = [e for e in events if within(asked.span, e["ms"])]
    if asked.identified:
        sessions = {e["@session.id"] for e in kept if e["@usr.id"] is not None} - {None}
        kept = [e for e in kept if e["@usr.id"] is not None or e["@session.id"] in sessions]
    return [e for e in kept if asked.admitted(e)]


def often(asked: Asked, events: Sequence[Row], found: Callable[[Row], bool]) -> list[Row]:
    """The events that a query finds, of those who have enough of them."""
    hits = [e for e in events if found(e) and asked.who(e) is not None]
    had = Counter(asked.who(e) for e in hits)
    return [e for e in hits if had[asked.who(e)] >= asked.at_least]


def entries(asked: Asked, entering: Sequence[Row]) -> list[Entry]:
    by_place: dict[tuple[str, int], list[Row]] = defaultdict(list)
    for event in entering:
        for cohort, span in enumerate(asked.cohorts):
            if within(span, event["ms"]):
                by_place[asked.who(event) or "", cohort].append(event)
    made = []
    for (who, cohort), events in sorted(by_place.items()):
        if asked.first_only and cohort != min(c for w, c in by_place if w == who):
            continue
        first = min(e["ms"] for e in events)
        made.append(Entry(who, cohort, first, tuple(e for e in events if e["ms"] == first)))
    return made


def told(value: Value, events: Sequence[Row]) -> str | None:
    """The value of events of one instant: the smallest that there is."""
    return min((v for v in map(value, events) if v is not None), default=None)


def returns_in(asked: Asked, entry: Entry, column: int, returning: Sequence[Row]) -> list[Row]:
    """The events by which someone is in a cell; of column 0 the entry itself where entry and return are the same."""
    same = asked.returned is None
    if same and column == 0:
        return list(entry.events)
    since, until = asked.columns[entry.cohort][column]
    until = asked.span[1] if asked.or_after else until
    mine = [e for e in returning if asked.who(e) == entry.who and within((since, until), e["ms"])]
    return [e for e in mine if (e["ms"] > entry.at if same else e["ms"] >= entry.at)]


def earliest(events: Sequence[Row]) -> list[Row]:
    first = min(e["ms"] for e in events)
    return [e for e in events if e["ms"] == first]


def kept_tags(rows: Sequence[Tags], groups: Sequence[Group]) -> list[tuple[str, ...]]:
    """The tuples of values that stay, the best first: those of most rows, within each value before."""
    counts = [Counter(t for tags in rows for t in {t[: n + 1] for t in tags}) for n in range(len(groups))]
    alive = {t for tags in rows for t in tags}
    for n, group in enumerate(groups):
        for before in {t[:n] for t in alive}:
            values = sorted({t[: n + 1] for t in alive if t[:n] == before}, key=lambda v, n=n: (-counts[n][v], v))  # type: ignore[misc]
            gone = set(values[group.limit :])
            alive = {t for t in alive if t[: n + 1] not in gone}
    return sorted(alive, key=lambda t: [(-counts[n][t[: n + 1]], t[n]) for n in range(len(groups))])


def labels(groups: Sequence[Group], events: Sequence[Row]) -> Tags:
    """What the groups call these events: nothing when one leaves them out, more when one has several names for them."""
    texts = [texts_in(told(group.value, events)) for group in groups]
    named = [[t or "N/A" for t in ts if t or not g.exclude_missing] for g, ts in zip(groups, texts, strict=True)]
    return list(product(*named))


def grid(asked: Asked, events: Sequence[Row]) -> list[tuple[tuple[str, ...], list[int], list[list[int]]]]:
    """Of each group, the best first: its values, the size of each cohort, who returns in each column."""
    kept = traffic(asked, events)
    entering = often(asked, kept, asked.entered)
    returning = entering if asked.returned is None else often(asked, kept, asked.returned)
    of_entries = [g for g in asked.groups if not g.returns]
    of_returns = [g for g in asked.groups if g.returns]
    tagged = [(entry, labels(of_entries, entry.events)) for entry in entries(asked, entering)]
    outer = kept_tags([tags for _, tags in tagged], of_entries)
    placed = [(entry, t) for entry, tags in tagged for t in tags if t in outer]
    cells: dict[tuple[tuple[str, ...], tuple[str, ...]], Counter[tuple[int, int]]] = defaultdict(Counter)
    inner = kept_tags(return_tags(asked, placed, returning, of_returns), of_returns) if of_returns else [()]
    for entry, tags in placed:
        for column in range(len(asked.columns[entry.cohort])):
            found = returns_in(asked, entry, column, returning)
            for names in labels(of_returns, earliest(found)) if found else []:
                if names in inner:
                    cells[tags, names][entry.cohort, column] += 1
    made = []
    for tags in outer or ([()] if not asked.groups else []):
        sizes = [sum(1 for e, t in placed if t == tags and e.cohort == c) for c in range(len(asked.cohorts))]
        for kind in inner:
            if of_returns and (tags, kind) not in cells:
                continue
            counted = cells[tags, kind]
            counts = [[counted[c, i] for i in range(len(asked.columns[c]))] for c in range(len(asked.cohorts))]
            made.append((in_order(asked.groups, tags, kind), sizes, counts))
    return made


def return_tags(
    asked: Asked, placed: Sequence[tuple[Entry, tuple[str, ...]]], returning: Sequence[Row], groups: Sequence[Group]
) -> list[Tags]:
    """The values of the first return of each entry in each period: groups of returns are ranked by them."""
    made: list[Tags] = []
    for entry in {id(entry): entry for entry, _ in placed}.values():
        for column in range(len(asked.columns[entry.cohort])):
            since, until = asked.columns[entry.cohort][column]
            found = returns_in(asked, entry, column, returning)
            if not (asked.returned is None and column == 0):
                found = [e for e in found if within((since, until), e["ms"])]
            made += [labels(groups, earliest(found))] if found else []
    return made


def in_order(groups: Sequence[Group], of_entries: tuple[str, ...], of_returns: tuple[str, ...]) -> tuple[str, ...]:
    entries, returns = iter(of_entries), iter(of_returns)
    return tuple(next(returns if g.returns else entries) for g in groups)


def members(asked: Asked, events: Sequence[Row], cohort: int, column: int) -> list[str]:
    """Who is in a cell."""
    kept = traffic(asked, events)
    entering = often(asked, kept, asked.entered)
    returning = entering if asked.returned is None else often(asked, kept, asked.returned)
    placed = [e for e in entries(asked, entering) if e.cohort == cohort]
    return sorted(e.who for e in placed if returns_in(asked, e, column, returning))


def weighted(
    sizes: Sequence[int], counts: Sequence[Sequence[int]], over: Sequence[Sequence[bool]]
) -> list[float | None]:
    """The rate of each column over the cohorts whose period there is over."""
    rates: list[float | None] = []
    for column in range(len(counts[0])):
        there = [c for c in range(len(sizes)) if column < len(counts[c]) and over[c][column]]
        of = sum(sizes[c] for c in there)
        rates.append(None if not there else sum(counts[c][column] for c in there) / of if of else 0.0)
    return rates
