"""Owns the meaning of plans in slow, plain Python over lists of dicts; no SQL and nothing of the renderer."""

from __future__ import annotations

import math
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any, assert_never

from oracle_values import EPOCH, MILLISECOND, Row, constant, value_of
from roster.model.schema import Type
from roster.query.expr import type_of
from roster.query.plan import (
    Agg,
    Aggregate,
    FillTime,
    Filter,
    Join,
    Limit,
    MatchSteps,
    Measure,
    Plan,
    Project,
    Rank,
    Read,
    Sort,
    SortKey,
    Spread,
    Union,
    Values,
    Window,
    schema_of,
)
from told_texts import texts_in

Tables = dict[str, list[Row]]
ROWS_MAX = 300


class TooManyRows(Exception):
    """A join gives more rows than slow Python should walk through."""


def evaluate(plan: Plan, tables: Tables) -> list[tuple[Any, ...]]:
    """The plan's rows, values in the order of its schema."""
    names = [column.name for column in schema_of(plan)]
    return [tuple(row[name] for name in names) for row in rows_of(plan, tables)]


def rows_of(plan: Plan, tables: Tables) -> list[Row]:
    match plan:
        case Read(relation, schema):
            return [{c.name: row[c.name] for c in schema} for row in tables[relation]]
        case Values(schema, rows):
            return [{c.name: constant(v, c.type) for c, v in zip(schema, row, strict=True)} for row in rows]
        case Filter(input, where):
            return [row for row in rows_of(input, tables) if value_of(where, row) is True]
        case Project(input, columns):
            return [{name: value_of(expr, row) for name, expr in columns} for row in rows_of(input, tables)]
        case Join():
            return join(plan, tables)
        case Spread():
            return spread(plan, rows_of(plan.input, tables))
        case Aggregate():
            return aggregate(plan, rows_of(plan.input, tables))
        case Window():
            return window(plan, rows_of(plan.input, tables))
        case Union(inputs):
            names = [c.name for c in schema_of(plan)]
            parts = [rows_of(input, tables) for input in inputs]
            return [dict(zip(names, row.values(), strict=True)) for part in parts for row in part]
        case Sort(input, keys):
            return ordered(rows_of(input, tables), keys)
        case Limit(input, count):
            return rows_of(input, tables)[:count]
        case MatchSteps():
            return match_steps(plan, rows_of(plan.input, tables))
        case FillTime():
            return fill_time(plan, rows_of(plan.input, tables))
    assert_never(plan)


def spread(plan: Spread, rows: list[Row]) -> list[Row]:
    answer = []
    for row in rows:
        texts = texts_in(value_of(plan.item, row))
        kept = texts if plan.only is None else [text for text in texts if text in plan.only]
        for place, text in enumerate(kept, 1):
            answer.append(row | {plan.name: text} | ({} if plan.place is None else {plan.place: place}))
    return answer


def join(plan: Join, tables: Tables) -> list[Row]:
    right = rows_of(plan.right, tables)
    empty = {column.name: None for column in schema_of(plan.right)}
    joined: list[Row] = []
    for row in rows_of(plan.left, tables):
        matches = [other for other in right if meets(plan, row, other)]
        match plan.kind:
            case "inner":
                joined += [row | other for other in matches]
            case "left":
                joined += [row | other for other in matches or [empty]]
            case "semi":
                joined += [row] if matches else []
            case "anti":
                joined += [] if matches else [row]
        if len(joined) > ROWS_MAX:
            raise TooManyRows
    return joined


def meets(plan: Join, row: Row, other: Row) -> bool:
    if not all(equal(value_of(a, row), value_of(b, other)) for a, b in plan.on):
        return False
    if plan.during is None:
        return True
    time, since, until = (
        value_of(plan.during.time, row),
        value_of(plan.during.since, other),
        value_of(plan.during.until, other),
    )
    return None not in (time, since, until) and bool(since <= time < until)


def equal(left: Any, right: Any) -> bool:
    return left is not None and right is not None and left == right


def aggregate(plan: Aggregate, rows: list[Row]) -> list[Row]:
    groups: dict[tuple[Any, ...], list[Row]] = {} if plan.keys else {(): []}
    for row in rows:
        groups.setdefault(tuple(value_of(expr, row) for _, expr in plan.keys), []).append(row)
    names = [name for name, _ in plan.keys]
    return [
        dict(zip(names, key, strict=True)) | {m.name: measured(m, members) for m in plan.measures}
        for key, members in groups.items()
    ]


def measured(measure: Measure, rows: list[Row]) -> Any:
    if measure.item is None:
        return len(rows)
    item = measure.item
    values = [value for value in (value_of(item, row) for row in rows) if value is not None]
    match measure.agg:
        case Agg.COUNT:
            return len(values)
        case Agg.DISTINCT:
            return len(set(values))
    if not values:
        return None
    match measure.agg:
        case Agg.SUM:
            return math.fsum(values) if type_of(item) is Type.NUMBER else sum(values)
        case Agg.AVG:
            return math.fsum(values) / len(values)
        case Agg.MIN:
            return min(values)
        case Agg.MAX:
            return max(values)
        case Agg.QUANTILE:
            assert measure.quantile is not None
            return quantile([float(v) for v in values], measure.quantile)
        case Agg.BITS:
            return sum(2**place for place in {*values} & {*range(63)}) or None
    assert_never(measure.agg)


def quantile(values: list[float], fraction: float) -> float:
    values = sorted(values)
    place = fraction * (len(values) - 1)
    low, high = values[math.floor(place)], values[math.ceil(place)]
    return low + (high - low) * (place - math.floor(place))


def ordered(rows: list[Row], keys: Iterable[SortKey]) -> list[Row]:
    for key in reversed(list(keys)):
        valued = [(value_of(key.item, row), row) for row in rows]
        known = [pair for pair in valued if pair[0] is not None]
        known.sort(key=lambda pair: pair[0], reverse=key.descending)
        rows = [row for _, row in known] + [row for value, row in valued if value is None]
    return rows


def window(plan: Window, rows: list[Row]) -> list[Row]:
    parts: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        parts.setdefault(tuple(value_of(p, row) for p in plan.partition), []).append(row)
    result = []
    for members in parts.values():
        part = ordered(members, plan.order)
        values = [None if plan.item is None else value_of(plan.item, row) for row in part]
        match plan.rank:
            case Rank.ROW_NUMBER:
                added: list[Any] = list(range(1, len(part) + 1))
            case Rank.LAG:
                added = [None, *values[:-1]]
            case Rank.LEAD:
                added = [*values[1:], None]
            case _:
                assert_never(plan.rank)
        result += [row | {plan.name: value} for row, value in zip(part, added, strict=True)]
    return result


def match_steps(plan: MatchSteps, rows: list[Row]) -> list[Row]:
    entities: dict[Any, list[Row]] = {}
    for row in rows:
        time = value_of(plan.time, row)
        if value_of(plan.entity, row) is not None and time is not None and time.year < 6000:
            entities.setdefault(value_of(plan.entity, row), []).append(row)
    answer = []
    for entity, mine in entities.items():
        starts = sorted({place(plan, row) for row in mine if value_of(plan.steps[0].where, row) is True})
        for start in starts if plan.starts == "every" else starts[:1]:
            answer.append({"entity": entity} | told(plan, attempt(plan, start, mine), mine))
    return answer


def place(plan: MatchSteps, row: Row) -> int:
    true = [k for k, step in enumerate(plan.steps) if value_of(step.where, row) is True]
    return micros(value_of(plan.time, row)) * 64 + (true[0] if true else 63)


def micros(time: datetime) -> int:
    return (time - EPOCH) // timedelta(microseconds=1)


def attempt(plan: MatchSteps, start: int, rows: list[Row]) -> list[int]:
    """The places taken, one a step reached."""
    taken = [start]
    for step in plan.steps[1:]:
        later = sorted((place(plan, row), n) for n, row in enumerate(rows) if place(plan, row) > taken[-1])
        found = next((at for at, n in later if value_of(step.where, rows[n]) is True), None)
        if found is None or (plan.window_ms is not None and found // 64 - start // 64 > plan.window_ms * 1000):
            break
        if step.unless is not None:
            between = [rows[n] for at, n in later if at < found]
            if any(value_of(step.unless, row) is True for row in between):
                break
        taken.append(found)
    return taken


def told(plan: MatchSteps, taken: list[int], rows: list[Row]) -> Row:
    """An attempt's columns but the entity."""
    answer: Row = {"level": len(taken), "last": taken[-1]}
    for k in range(len(plan.steps)):
        reached = k < len(taken)
        answer[f"t{k + 1}"] = EPOCH + timedelta(microseconds=taken[k] // 64) if reached else None
    for k, step in enumerate(plan.steps):
        at = taken[k] if k < len(taken) else None
        took = [row for row in rows if place(plan, row) == at and value_of(step.where, row) is True]
        for name, value in step.carried:
            answer[name] = min((v for row in took if (v := value_of(value, row)) is not None), default=None)
    return answer


def fill_time(plan: FillTime, rows: list[Row]) -> list[Row]:
    empty = {column.name: None for column in schema_of(plan.input)}
    filled: list[Row] = []
    for at_ms in range(plan.from_ms, plan.to_ms, plan.step_ms):
        start = EPOCH + at_ms * MILLISECOND
        filled += [row for row in rows if row[plan.time] == start] or [empty | {plan.time: start}]
    return filled


def same_rows(expected: list[tuple[Any, ...]], actual: list[tuple[Any, ...]], ordered: bool) -> bool:
    """Equal rows, in order or as multisets; numbers to nine digits, types exactly."""
    left, right = [[tuple(map(key_of, row)) for row in rows] for rows in (expected, actual)]
    return left == right if ordered else sorted(left) == sorted(right)


def key_of(value: Any) -> str:
    match value:
        case float():
            return f"float {value + 0.0:.9g}"
        case dict():
            return "{" + ",".join(f"{key!r}:{key_of(value[key])}" for key in sorted(value)) + "}"
        case list():
            return "[" + ",".join(map(key_of, value)) + "]"
        case _:
            return f"{type(value).__name__} {value!r}"
