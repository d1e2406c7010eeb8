"""Owns what journeys mean, in plain Python from facts and the request's own JSON; knows nothing of plans and SQL.

`Given` says what the words of a request mean; a flow is the events that took each step.
"""

from __future__ import annotations

import operator
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any

from analyses.event_worlds import Fact, Meaning, text_of, told_of
from told_texts import texts_in

IDLE_MS, SESSION_MS, DAY_MS = 900_000, 14_400_000, 86_400_000
WHOSE = {"@session.id": "@session.id", "@usr.id": "person", "@account.id": "@account.id"}
COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "=": operator.eq,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
Body = dict[str, Any]


@dataclass(frozen=True)
class Given:
    """All events there are, the range, the moment of asking, what searches and the audience mean."""

    facts: Sequence[Fact]
    span: tuple[int, int]
    now_ms: int
    means: Mapping[str, Meaning]
    admits: Meaning
    identified_only: bool = False
    entities: Meaning | None = None
    """Whether an event's session, user or account is asked about."""
    filters: Mapping[str, Meaning] = field(default_factory=dict)
    """What searches mean that others follow."""


@dataclass(frozen=True)
class Flow:
    entity: tuple[str, ...]
    took: tuple[tuple[Fact, ...], ...]
    last: tuple[int, int]

    @property
    def level(self) -> int:
        return len(self.took)

    def ms(self, step: int) -> int | None:
        return self.took[step][0]["ms"] if step < self.level else None

    def between(self, start: int, end: int) -> int | None:
        a, b = self.ms(start), self.ms(end)
        return None if a is None or b is None else b - a

    def least(self, step: int, name: str, text: Callable[[Any], Any] = text_of) -> Any:
        """The smallest value of what took a step at once; of what has no type, as text."""
        events = self.took[step] if step < self.level else ()
        values = [text(e[name]) if name == "@context.plan" else e.get(name) for e in events]
        return min((v for v in values if v is not None), default=None)

    def first(self, name: str) -> Any:
        """The value as it is on the event that took the first step: of several at once that with the smallest id."""
        return min(self.took[0], key=lambda event: str(event["id"]))[name]


def steps_of(search: Body) -> list[str]:
    return [alias.strip() for alias in search["expression"].split("->")]


def primary_of(search: Body) -> str:
    return str((search.get("join_keys") or {}).get("primary") or "@session.id")


def entity_of(search: Body, event: Fact) -> tuple[str, ...] | None:
    more = [k for k in (search.get("join_keys") or {}).get("secondary") or () if k != primary_of(search)]
    parts = [event[WHOSE[primary_of(search)]], *(text_of(event[k]) for k in more)]
    return None if None in parts else tuple(parts)


def window_of(search: Body) -> int | None:
    """None: as long as the session."""
    default = None if primary_of(search) == "@session.id" else DAY_MS
    return search.get("conversion_window_ms") or default


def taking_part(search: Body, given: Given) -> list[Fact]:
    low, to = given.span
    end = to if search.get("clip_to_range") else to + (window_of(search) or SESSION_MS)
    text = ((search.get("filters") or {}).get("string_filter") or "").strip()
    events = [e for e in given.facts if low <= e["ms"] < end]
    if given.identified_only:
        known = {e["@session.id"] for e in events if e["@usr.id"] is not None} - {None}
        events = [e for e in events if e["@usr.id"] is not None or e["@session.id"] in known]
    events = [e for e in events if given.admits(e) and (not text or given.filters[text](e))]
    if given.entities is not None:
        events = [e for e in events if given.entities(e)]
    if primary_of(search) == "@session.id" and not search.get("include_active_sessions"):
        now = given.now_ms
        recent = {e["@session.id"] for e in given.facts if now - IDLE_MS <= e["ms"] < now + SESSION_MS}
        if end > now - SESSION_MS:
            events = [e for e in events if e["@session.id"] not in recent]
    return events


def step_tests(search: Body, given: Given, events: Sequence[Fact]) -> list[Meaning]:
    """For each step whether an event takes it."""
    tests: list[Meaning] = []
    for place, alias in enumerate(steps_of(search)):
        asked = search["node_objects"][alias]["search"]
        means, often = given.means[asked["query"].strip()], asked.get("occurrences")
        allowed: set[Any] | None = None
        if often is not None:
            counts: dict[Any, int] = defaultdict(int)
            for event in events:
                counts[entity_of(search, event)] += means(event)
            fits = COMPARE[often["operator"]]
            allowed = {k for k, n in counts.items() if k is not None and n and fits(n, int(often["value"]))}
        inside = place == 0 and not search.get("clip_to_range")

        def test(e: Fact, means: Meaning = means, allowed: set[Any] | None = allowed, inside: bool = inside) -> bool:
            if inside and not given.span[0] <= e["ms"] < given.span[1]:
                return False
            return means(e) and (allowed is None or entity_of(search, e) in allowed)

        tests.append(test)
    return tests


def flows(search: Body, given: Given, *, total: bool) -> list[Flow]:
    events = taking_part(search, given)
    tests = step_tests(search, given, events)
    theirs: dict[tuple[str, ...], list[tuple[tuple[int, int], Fact]]] = defaultdict(list)
    for event in events:
        entity = entity_of(search, event)
        if entity is not None:
            index = next((n for n, test in enumerate(tests) if test(event)), 63)
            theirs[entity].append(((event["ms"], index), event))
    found: list[Flow] = []
    for entity, placed in theirs.items():
        placed.sort(key=lambda pair: pair[0])
        attempts = [
            attempt(search, given, entity, placed, tests, start)
            for start in dict.fromkeys(place for place, event in placed if tests[0](event))
        ]
        one: dict[Any, Flow] = {}
        for flow in attempts:  # the earliest first
            one.setdefault((flow.level, flow.last), flow)
        kept = list(one.values())
        if kept and not total:
            best = max(flow.level for flow in kept)
            kept = [next(flow for flow in kept if flow.level == best)]
        found += kept
    return [flow for flow in found if passes(search, flow)]


def attempt(
    search: Body,
    given: Given,
    entity: tuple[str, ...],
    placed: Sequence[tuple[tuple[int, int], Fact]],
    tests: Sequence[Meaning],
    start: tuple[int, int],
) -> Flow:
    window = window_of(search)
    took = [tuple(e for place, e in placed if place == start and tests[0](e))]
    last = start
    for step in range(1, len(tests)):
        later = [place for place, e in placed if place > last and tests[step](e)]
        if not later or (window is not None and later[0][0] - start[0] > window):
            break
        if any(last < place < later[0] and forbids(search, given, step, e) for place, e in placed):
            break
        last = later[0]
        took.append(tuple(e for place, e in placed if place == last and tests[step](e)))
    return Flow(entity, tuple(took), last)


def forbids(search: Body, given: Given, step: int, event: Fact) -> bool:
    """The event must not come between a step and the one before it."""
    if search.get("order") == "strict" and event["type"] != "session":
        return True
    aliases = steps_of(search)
    for exclusion in search.get("exclusions") or ():
        after = aliases.index(exclusion["after"]) if exclusion.get("after") else 0
        before = aliases.index(exclusion["before"]) if exclusion.get("before") else len(aliases) - 1
        if after < step <= before and given.means[exclusion["query"]](event):
            return True
    return False


def target_of(search: Body, body: Body | None) -> tuple[int, int]:
    aliases = steps_of(search)
    if body is None:
        return 0, len(aliases) - 1
    if body["type"] == "node":
        return 0, aliases.index(body["value"])
    return aliases.index(body["start"]), aliases.index(body["end"])


def passes(search: Body, flow: Flow) -> bool:
    """The filters of flows: the time between two steps, the number of sessions they lie in."""
    for wanted in (search.get("filters") or {}).get("graph_filters") or ():
        start, end = target_of(search, wanted.get("target"))
        fits = COMPARE[wanted["operator"]]
        if wanted["name"] == "__dd.time_to_convert":
            waited = flow.between(start, end)
            if waited is None or not fits(waited, wanted["value"]):
                return False
        if wanted["name"] == "__dd.session":
            sessions = {flow.least(n, "@session.id") for n in range(start, end + 1)} - {None}
            if flow.level <= end or not fits(len(sessions), wanted["value"]):
                return False
    return True


# groups


def tags_of(search: Body, group: Body, flow: Flow) -> list[str]:
    """A flow's values of a group; none when the group leaves it out."""
    step = target_of(search, group["target"])[1] if group.get("target") else 0
    told = flow.least(step, group["facet"], told_of)
    texts = texts_in(told) if group["facet"] == "@context.plan" else [text_of(told)]
    tags = [*([] if group.get("should_exclude_missing") else ["N/A"] if None in texts else []), *filter(None, texts)]
    return [tag for tag in tags if tag in (group.get("value_filters") or tags)]


def ranked_by(search: Body, group: Body, found: Sequence[Flow], step: int, target: tuple[int, int]) -> float | None:
    """What a group is ranked by: its `sort` by a metric of its own, else how many flows took the step."""
    asked, (start, end) = group.get("sort") or {}, target
    metric, aggregation = asked.get("metric"), asked.get("aggregation") or "cardinality"
    converted = sum(flow.level > end for flow in found)
    match metric:
        case None:
            return sum(flow.level > step for flow in found)
        case "__dd.conversion":
            return converted
        case "__dd.conversion_rate":
            return converted / len(found)
        case "__dd.dropoff_rate":
            return (len(found) - converted) / len(found)
        case "__dd.time_to_convert":
            return aggregate(aggregation, [flow.between(start, end) for flow in found])
    return (
        sum(flow.level > step for flow in found)
        if metric == primary_of(search)
        else metric_value((aggregation, metric), end, found)
    )


def split(
    search: Body, groups: Sequence[Body], found: Sequence[Flow], step: int, target: tuple[int, int]
) -> list[tuple[tuple[str, ...], list[Flow]]]:
    """The flows of each group that stays, the best group first, within each group before."""

    def rank(group: Body, flows: Sequence[Flow]) -> float | None:
        return ranked_by(search, group, flows, step, target)

    tagged = [(tags, flow) for flow in found for tags in product(*(tags_of(search, g, flow) for g in groups))]
    return inner(tagged, groups, (), rank)


def inner(
    tagged: Sequence[tuple[tuple[str, ...], Flow]],
    groups: Sequence[Body],
    before: tuple[str, ...],
    rank: Callable[[Body, Sequence[Flow]], float | None],
) -> list[tuple[tuple[str, ...], list[Flow]]]:
    if len(before) == len(groups):
        return [(before, [flow for _, flow in tagged])]
    group = groups[len(before)]
    members: dict[str, list[tuple[tuple[str, ...], Flow]]] = defaultdict(list)
    for tags, flow in tagged:
        members[tags[len(before)]].append((tags, flow))
    sign = 1 if (group.get("sort") or {}).get("order") == "asc" else -1
    once = {tag: list({id(flow): flow for _, flow in theirs}.values()) for tag, theirs in members.items()}
    by = {tag: rank(group, once[tag]) for tag in members}
    best = sorted(members, key=lambda tag: (by[tag] is None, sign * (by[tag] or 0), tag))
    return [
        row for tag in best[: group.get("limit") or 100] for row in inner(members[tag], groups, (*before, tag), rank)
    ]


# what is asked of flows


def aggregate(aggregation: str, values: Sequence[Any]) -> float | None:
    """Over values that may be missing."""
    known = [v for v in values if v is not None]
    if aggregation == "count":
        return len(known)
    if aggregation == "cardinality":
        return len({text_of(v) for v in known})
    numbers = sorted(n for n in map(number, known) if n is not None)
    if not numbers:
        return None
    match aggregation:
        case "sum":
            return sum(numbers)
        case "avg":
            return sum(numbers) / len(numbers)
        case "min":
            return numbers[0]
        case "max":
            return numbers[-1]
    place = (0.5 if aggregation == "median" else int(aggregation[2:]) / 100) * (len(numbers) - 1)
    low = int(place)
    high = min(low + 1, len(numbers) - 1)
    return numbers[low] + (numbers[high] - numbers[low]) * (place - low)


def number(value: Any) -> float | None:
    try:
        return float(value)
    except ValueError:
        return None


def funnel_steps(search: Body, compute: tuple[str, str] | None, found: Sequence[Flow]) -> list[dict[str, Any]]:
    """Of each step how many took it, the computed value, and min, max, avg ms to the next one; of the last: in all."""
    last = len(steps_of(search)) - 1
    told = []
    for n in range(last + 1):
        gaps = [flow.between(n, n + 1) if n < last else flow.between(0, last) for flow in found]
        count = sum(flow.level > n for flow in found)
        value = count if compute is None else metric_value(compute, n, found)
        told.append({"count": count, "value": value} | {name: aggregate(name, gaps) for name in ("min", "max", "avg")})
    return told


def metric_value(compute: tuple[str, str], step: int, found: Sequence[Flow]) -> float | None:
    aggregation, metric = compute
    return aggregate(aggregation, [flow.least(step, metric) for flow in found])


def computed(search: Body, compute: Body, found: Sequence[Flow]) -> tuple[int, int, float | None]:
    """Entered, converted and the value of flows that took the target's first step."""
    start, end = target_of(search, compute.get("target"))
    aggregation, metric = compute.get("aggregation", "cardinality"), compute.get("metric", "__dd.conversion")
    converted = sum(flow.level > end for flow in found)
    match metric:
        case "__dd.conversion" | "__dd.conversion_rate" | "__dd.dropoff_rate":
            return len(found), converted, converted
        case "__dd.time_to_convert":
            return len(found), converted, aggregate(aggregation, [flow.between(start, end) for flow in found])
    return len(found), converted, metric_value((aggregation, metric), end, found)
