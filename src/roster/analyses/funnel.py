"""Owns what is asked of flows: the funnel, numbers, numbers over time, and who is behind them. Runs nothing."""

from __future__ import annotations

from collections.abc import Mapping as Map, Sequence
from dataclasses import dataclass

from roster.analyses.event_world import EventWorld, order_by
from roster.analyses.groups import BY, GroupBy, grouped, key_of, keyed, over_time, ranked
from roster.analyses.journey import (
    ENTITY,
    KEY_OF,
    Carried,
    Journey,
    Target,
    column_in,
    flows,
    milliseconds,
    reached,
    time_of,
)
from roster.analyses.measures import Compute, check_aggregation, measure_of
from roster.analyses.periods import place_in
from roster.base.errors import Code, Error
from roster.model.schema import Type
from roster.query.expr import Cast, Column, Expr, If, Literal, Not, conjunction, type_of
from roster.query.plan import Agg, Aggregate, Join, Limit, Measure, Plan, Project, Sort, SortKey
from roster.query.relations import count_rows, where

CONVERSION, RATE, TIME_TO_CONVERT, DROPOFF = (
    "__dd.conversion",
    "__dd.conversion_rate",
    "__dd.time_to_convert",
    "__dd.dropoff_rate",
)
METRICS = (CONVERSION, RATE, TIME_TO_CONVERT, DROPOFF)
_ONE, _ZERO, _NONE = Literal(1, Type.INTEGER), Literal(0, Type.INTEGER), Literal(None, Type.INTEGER)


@dataclass(frozen=True, slots=True)
class FlowGroup:
    """Groups of flows by the value of a facet on the event that took a step (0-based)."""

    group: GroupBy
    step: int


@dataclass(frozen=True, slots=True)
class Asked:
    """The plans over flows, and warnings."""

    plans: tuple[Plan, ...]
    warnings: tuple[str, ...]


def carried_groups(world: EventWorld, groups: Sequence[FlowGroup]) -> tuple[list[Carried], list[str]]:
    """What flows carry to be told apart in groups, and warnings."""
    carried: list[Carried] = []
    warnings: list[str] = []
    for place, wanted in enumerate(groups):
        value = world.group_value(wanted.group.facet, wanted.group.source)
        if value is None:
            warnings.append(f"unknown attribute {wanted.group.facet!r}: it is treated as missing")
            value = Literal(None, Type.STRING)
        carried.append(Carried(f"#facet{place}", wanted.step, value))
    return carried, warnings


def keyed_flows(plan: Plan, groups: Sequence[FlowGroup], carried: Sequence[Carried]) -> Plan:
    """Flows in groups, whose values are the first that they carry."""
    ours = carried[: len(groups)]
    values = [column_in(plan, one.name) for one in ours]
    return keyed(plan, [wanted.group for wanted in groups], [one.value for one in ours], values)


def _when(condition: Expr) -> Expr:
    """One where it is true, to be counted."""
    return If(condition, _ONE, _NONE)


def count_reached(name: str, step: int) -> Measure:
    return Measure(name, Agg.COUNT, _when(reached(step)))


def funnel(world: EventWorld, journey: Journey, compute: Compute | None, groups: Sequence[FlowGroup]) -> Asked:
    """Two plans, or one without groups: all flows in one row, and a row a group, the best first.

    Columns: the groups' values, then for each step `n` (from 0 on) `count<n>`, `value<n>` where `compute` asks for
    more than flows, and `min<n>`, `max<n>`, `avg<n>` of the ms to the next step; of the last step: from the first.
    """
    carried, warnings = carried_groups(world, groups)
    carried += _carried_ranks(world, journey, groups, journey.steps - 1)
    steps = range(journey.steps)
    if compute is not None:
        carried += [Carried(f"#metric{n}", n, _metric(world, compute)) for n in steps]
    plan, doubts = flows(world, journey, carried)
    measures: list[Measure] = []
    for n in steps:
        measures.append(count_reached(f"count{n}", n))
        if compute is not None:
            measures.append(_over(f"value{n}", compute, column_in(plan, f"#metric{n}")))
        gap = milliseconds(Target(n, n + 1) if n + 1 < journey.steps else Target(0, n))
        spread = ((Agg.MIN, "min"), (Agg.MAX, "max"), (Agg.AVG, "avg"))
        measures += [Measure(f"{name}{n}", agg, gap) for agg, name in spread]
    plans: tuple[Plan, ...] = (Aggregate(plan, (), tuple(measures)),)
    if groups:
        ranks = _ranks(journey, plan, groups, Target(0, journey.steps - 1), count_reached(BY, 0))
        plans += (grouped(keyed_flows(plan, groups, carried), [w.group for w in groups], ranks, measures),)
    return Asked(plans, (*doubts, *warnings))


def _metric(world: EventWorld, compute: Compute) -> Expr:
    value = world.facet(compute.metric or "")
    if value is None:
        raise Error(Code.INVALID, f"unknown metric {compute.metric!r}", at=f"{compute.at}/metric")
    return value


def _over(name: str, compute: Compute, item: Expr) -> Measure:
    """The aggregate of a value that flows carry; a count leaves out flows without it."""
    return (
        Measure(name, Agg.COUNT, item) if compute.aggregation == "count" else measure_of(name, compute, lambda _: item)
    )


def counts_flows(journey: Journey, metric: str | None) -> bool:
    """Whether a metric is the flows themselves: none is named, or the key that each flow is of."""
    return not metric or metric.removeprefix("@") == journey.key.value.removeprefix("@")


def check_times(compute: Compute) -> None:
    """Error: INVALID for an aggregation that times to convert do not have."""
    if compute.aggregation in ("count", "cardinality", "sum"):
        hint = "avg, median, min, max or a percentile such as pc90"
        message = f"{compute.aggregation} of times has no meaning"
        raise Error(Code.INVALID, message, at=f"{compute.at}/aggregation", hint=hint)


def _carried_ranks(world: EventWorld, journey: Journey, groups: Sequence[FlowGroup], step: int) -> list[Carried]:
    """The values that groups are ranked by, of the facets that their `sort` names."""
    ranks = [(place, wanted.group.rank) for place, wanted in enumerate(groups)]
    facets = [(place, rank) for place, rank in ranks if rank and not _of_flows(journey, rank)]
    return [Carried(f"#by{place}", step, _metric(world, rank)) for place, rank in facets]


def _of_flows(journey: Journey, rank: Compute) -> bool:
    return counts_flows(journey, rank.metric) or rank.metric in METRICS


def _ranks(
    journey: Journey, plan: Plan, groups: Sequence[FlowGroup], target: Target, default: Measure
) -> list[Measure]:
    """What each group is ranked by: what its `sort` says, else how many flows there are, whatever else is computed.

    `plan`: flows that took the target's first step.
    """
    made = []
    for place, wanted in enumerate(groups):
        rank = wanted.group.rank
        if rank is None:
            made.append(default)
            continue
        check_aggregation(rank)
        if _of_flows(journey, rank):
            made.append(_rank_of_flows(journey, rank, target, default))
        else:
            made.append(_over(BY, rank, column_in(plan, f"#by{place}")))
    return made


def _rank_of_flows(journey: Journey, rank: Compute, target: Target, default: Measure) -> Measure:
    match rank.metric:
        case "__dd.conversion_rate":
            return Measure(BY, Agg.AVG, If(reached(target.end), _ONE, _ZERO))
        case "__dd.dropoff_rate":
            return Measure(BY, Agg.AVG, If(reached(target.end), _ZERO, _ONE))
        case "__dd.time_to_convert":
            check_times(rank)
            return _over(BY, rank, milliseconds(target))
    if rank.aggregation not in ("count", "cardinality"):
        hint = "count, cardinality, or another metric"
        message = f"{rank.aggregation} of flows has no meaning"
        raise Error(Code.INVALID, message, at=f"{rank.at}/aggregation", hint=hint)
    return default if counts_flows(journey, rank.metric) else count_reached(BY, target.end)


@dataclass(frozen=True, slots=True)
class FlowCompute:
    """A number over flows: a metric of the journey, or of a facet at the target's end."""

    compute: Compute
    target: Target


VALUE, ENTERED, CONVERTED = "value", "entered", "converted"


def _measures(
    world: EventWorld, journey: Journey, asked: FlowCompute, groups: Sequence[FlowGroup]
) -> tuple[Plan, tuple[Measure, ...], list[Measure], list[str]]:
    """Flows that took the target's first step, in groups, the measures `entered`, `converted`, `value` of them, and
    what the groups are ranked by.
    """
    carried, warnings = carried_groups(world, groups)
    carried += _carried_ranks(world, journey, groups, asked.target.end)
    metric = asked.compute.metric or CONVERSION
    if metric not in METRICS:
        carried.append(Carried("#metric", asked.target.end, _metric(world, asked.compute)))
    plan, doubts = flows(world, journey, carried)
    plan = where(plan, reached(asked.target.start)) if asked.target.start else plan
    converted = count_reached(CONVERTED, asked.target.end)
    match metric:
        case "__dd.conversion" | "__dd.conversion_rate" | "__dd.dropoff_rate":
            value = count_reached(VALUE, asked.target.end)
        case "__dd.time_to_convert":
            value = _over(VALUE, asked.compute, milliseconds(asked.target))
        case _:
            value = _over(VALUE, asked.compute, column_in(plan, "#metric"))
    ranks = _ranks(journey, plan, groups, asked.target, count_reached(BY, asked.target.end))
    plan = keyed_flows(plan, groups, carried)
    return plan, (Measure(ENTERED, Agg.COUNT), converted, value), ranks, [*doubts, *warnings]


def journey_scalar(world: EventWorld, journey: Journey, asked: FlowCompute, groups: Sequence[FlowGroup]) -> Asked:
    """A row a group, the best first: the groups' values, then `entered`, `converted`, `value`."""
    plan, measures, ranks, warnings = _measures(world, journey, asked, groups)
    made = grouped(plan, [w.group for w in groups], ranks, measures)
    return Asked((made,), tuple(warnings))


def journey_timeseries(
    world: EventWorld, journey: Journey, asked: FlowCompute, groups: Sequence[FlowGroup], edges: Sequence[int]
) -> Asked:
    """A row a group and bucket in which flows began: ranks, the groups' values, the bucket's place, three measures."""
    plan, measures, ranks, warnings = _measures(world, journey, asked, groups)
    rows = ranked(plan, [w.group for w in groups], ranks)
    return Asked((over_time(rows, len(groups), place_in(time_of(0), edges), measures),), tuple(warnings))


@dataclass(frozen=True, slots=True)
class MembersRequest:
    """Whose flows converted at a target, or dropped off there: which columns, in which order, how many.

    `sort` None: the newest first.
    """

    target: Target
    dropped: bool
    columns: tuple[str, ...]
    timestamps: bool
    sort: str | None
    descending: bool
    limit: int

    @property
    def step(self) -> int:
        """The last step of the target that the flows took."""
        return self.target.start if self.dropped else self.target.end


def journey_list(
    world: EventWorld, journey: Journey, request: MembersRequest, groups: Sequence[FlowGroup]
) -> tuple[Asked, tuple[str, ...]]:
    """The plans of the rows and of how many there are; and the names of the rows' columns."""
    carried, warnings = carried_groups(world, groups)
    carried += _carried_ranks(world, journey, groups, request.step)
    untyped: dict[str, Expr] = {}
    for place, name in enumerate(request.columns):
        found = world.facet(name)
        if found is None:
            warnings.append(f"unknown attribute {name!r}: it is treated as missing")
        elif type_of(found) is Type.ANY:
            untyped[f"#column{place}"] = found
            continue
        carried.append(Carried(f"#column{place}", 0, found or Literal(None, Type.STRING)))
    carried += [Carried("#key", 0, KEY_OF[journey.key]), Carried(_EVENT.name, 0, Column("event_id", _EVENT.type))]
    plan, doubts = flows(world, journey, carried)
    plan = where(plan, behind(request.target, dropped=request.dropped))
    if groups:
        for wanted in groups:
            _check_rank_in_list(wanted.group.rank)
        ranks = _ranks(journey, plan, groups, request.target, count_reached(BY, 0))
        plan = ranked(keyed_flows(plan, groups, carried), [w.group for w in groups], ranks)
    total = count_rows(plan, "total")
    plan = _beside_events(plan, world, untyped)
    columns: list[tuple[str, Expr]] = [
        (journey.key.value, column_in(plan, "#key")),
        ("timestamp", Cast(time_of(0), Type.INTEGER)),
        *((name, column_in(plan, f"#column{place}")) for place, name in enumerate(request.columns)),
        *((w.group.facet, key_of(place)) for place, w in enumerate(groups)),
    ]
    if request.timestamps:
        nodes = enumerate(journey.nodes)
        columns += [(f"{node.alias}_timestamp", Cast(time_of(n), Type.INTEGER)) for n, node in nodes]
    first = dict(reversed(columns))
    columns = [(name, first[name]) for name in dict.fromkeys(name for name, _ in columns)]
    chosen = first.get(request.sort or "")
    order = list(order_by(chosen, descending=request.descending)) if chosen is not None else []
    order += [SortKey(time_of(0), descending=True), SortKey(ENTITY), *(SortKey(key_of(n)) for n in range(len(groups)))]
    rows = Project(
        Limit(Sort(plan, tuple(order)), request.limit), tuple((f"{n} {name}", e) for n, (name, e) in enumerate(columns))
    )
    return Asked((rows, total), (*doubts, *warnings)), tuple(name for name, _ in columns)


def _check_rank_in_list(rank: Compute | None) -> None:
    """Error: INVALID for a rate: all flows of a list converted, or none did."""
    if rank is not None and rank.metric in (RATE, DROPOFF):
        hint = f"{TIME_TO_CONVERT}, a facet, or no metric for the most flows"
        message = f"the groups of a list have no {rank.metric}"
        raise Error(Code.INVALID, message, at=f"{rank.at}/metric", hint=hint)


_EVENT = Column("#event", Type.STRING)
"""The event that took the first step; of several at once the one with the smallest id."""


def _beside_events(plan: Plan, world: EventWorld, values: Map[str, Expr]) -> Plan:
    """Flows beside values of their first event as they are, by names: flows carry no value without a type."""
    if not values:
        return plan
    id = Column("#event id", Type.STRING)
    events = Project(world.relation, ((id.name, Column("event_id", Type.STRING)), *values.items()))
    return Join(plan, events, "left", ((_EVENT, id),))


def behind(target: Target, *, dropped: bool) -> Expr:
    """Flows that converted at the target, or took its first step and not its last."""
    converted = reached(target.end)
    return conjunction(reached(target.start), Not(converted)) if dropped else converted
