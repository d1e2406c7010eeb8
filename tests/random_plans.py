"""Owns random plans over random worlds."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, Literal as OneOf

from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

from random_exprs import BLOCKS, exprs, literals, paths, patterns, predicates
from roster.model.schema import NUMERIC, Column as SchemaColumn, Schema, Type
from roster.query.expr import (
    AnyOf,
    Bucket,
    Call,
    Cast,
    Column,
    Compare,
    CompareOp,
    Expr,
    Fn,
    Get,
    HasBit,
    In,
    InBlocks,
    Like,
    Literal,
    Texts,
)
from roster.query.plan import (
    Agg,
    Aggregate,
    During,
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
    Step,
    Union,
    Values,
    Window,
    inputs_of,
    schema_of,
)
from worlds import (
    ADDRESS_TEXTS,
    NAMES,
    NUMBER_TEXTS,
    PLAIN_TEXTS,
    RELATIONS,
    START,
    TIME_TEXTS,
    VALUES,
    World,
    known,
    worlds,
)

KINDS: tuple[OneOf["inner", "left", "semi", "anti"], ...] = ("inner", "left", "semi", "anti")
WINDOWS_MS = (0, 1, 3_600_000, 7_200_000, 86_400_000)
STARTS: tuple[OneOf["every", "first"], ...] = ("every", "first")
OPS: tuple[CompareOp, ...] = ("=", "<", "<=", ">", ">=")
HOUR_MS, START_MS = 3_600_000, 1_704_067_200_000
ORDERED = (Type.INTEGER, Type.NUMBER, Type.TIMESTAMP, Type.STRING)


def fresh_names(draw: DrawFn, count: int, taken: set[str]) -> list[str]:
    free = [name for name in (*NAMES, *(f"c{i}" for i in range(count + len(taken)))) if name not in taken]
    return draw(st.lists(st.sampled_from(free), min_size=count, max_size=count, unique=True))


def sortable(plan: Plan) -> Plan:
    """The plan without columns of type ANY, which have no order."""
    kept = tuple((c.name, Column(c.name, c.type)) for c in schema_of(plan) if c.type is not Type.ANY)
    if len(kept) == len(schema_of(plan)):
        return plan
    first = schema_of(plan)[0]
    return Project(plan, kept or (("n", Cast(Column(first.name, first.type), Type.STRING)),))


@st.composite
def sort_keys(draw: DrawFn, schema: Schema) -> tuple[SortKey, ...]:
    """A total order but for rows equal in all columns."""
    types = st.sampled_from([t for t in Type if t is not Type.ANY])
    chosen = draw(st.lists(types.flatmap(lambda t: exprs(schema, t, 1)), max_size=2))
    rest = draw(st.permutations([Column(c.name, c.type) for c in schema]))
    return tuple(SortKey(item, draw(st.booleans())) for item in (*chosen, *rest))


@st.composite
def projects(draw: DrawFn, input: Plan) -> Plan:
    types = draw(st.lists(st.sampled_from(Type), min_size=1, max_size=4))
    names = fresh_names(draw, len(types), set())
    schema = schema_of(input)
    return Project(input, tuple((n, draw(exprs(schema, t))) for n, t in zip(names, types, strict=True)))


@st.composite
def measures(draw: DrawFn, name: str, schema: Schema) -> Measure:
    agg = draw(st.sampled_from(Agg))
    if agg is Agg.COUNT:
        item = draw(st.none() | st.sampled_from(Type).flatmap(lambda t: exprs(schema, t, 1)))
        return Measure(name, agg, item)
    any_type = agg in (Agg.DISTINCT, Agg.MIN, Agg.MAX)
    numeric = (Type.INTEGER,) if agg is Agg.BITS else NUMERIC
    type = draw(st.sampled_from([t for t in Type if t is not Type.ANY and (any_type or t in numeric)]))
    quantile = draw(st.sampled_from([0.0, 0.25, 0.5, 0.5, 0.9, 1.0])) if agg is Agg.QUANTILE else None
    return Measure(name, agg, draw(exprs(schema, type, 1)), quantile)


@st.composite
def aggregates(draw: DrawFn, input: Plan) -> Plan:
    schema = schema_of(input)
    types = draw(st.lists(st.sampled_from([t for t in Type if t is not Type.ANY]), max_size=2))
    count = draw(st.integers(0 if types else 1, 3))
    names = fresh_names(draw, len(types) + count, set())
    keys = tuple((n, draw(exprs(schema, t, 1))) for n, t in zip(names, types, strict=False))
    return Aggregate(input, keys, tuple(draw(measures(n, schema)) for n in names[len(types) :]))


@st.composite
def joins(draw: DrawFn, left: Plan, right: Plan) -> Plan:
    kind = draw(st.sampled_from(KINDS))
    if kind in ("inner", "left") or draw(st.booleans()):
        names = fresh_names(draw, len(schema_of(right)), {c.name for c in schema_of(left)})
        pairs = zip(names, schema_of(right), strict=True)
        right = Project(right, tuple((name, Column(c.name, c.type)) for name, c in pairs))
    ours, theirs = schema_of(left), schema_of(right)
    shared = sorted({c.type for c in ours} & {c.type for c in theirs} - {Type.ANY}) or [Type.STRING]
    types = draw(st.lists(st.sampled_from(shared), min_size=kind in ("inner", "left"), max_size=2))
    on = tuple((draw(exprs(ours, t, 1)), draw(exprs(theirs, t, 1))) for t in types)
    if not draw(st.sampled_from([True, False, False])):
        return Join(left, right, kind, on)
    type = draw(st.sampled_from([t for t in shared if t in ORDERED] or [Type.TIMESTAMP]))
    during = During(draw(exprs(ours, type, 1)), draw(exprs(theirs, type, 1)), draw(exprs(theirs, type, 1)))
    return Join(left, right, kind, on, during)


@st.composite
def meetings(draw: DrawFn) -> Plan:
    """A join of rows evenly thrown: so some meet none, some one and some many."""
    dice = draw(st.randoms(use_true_random=True))

    def thrown(names: str) -> Values:
        rows = [tuple(dice.choice([0, 1, 2, 3, None]) for _ in names) for _ in range(dice.randint(1, 8))]
        return Values(tuple(SchemaColumn(name, Type.INTEGER) for name in names), tuple(rows))

    key, at, other, since, until = (Column(name, Type.INTEGER) for name in "abxyz")
    during = dice.choice([None, During(at, since, until)])
    return Join(thrown("ab"), thrown("xyz"), dice.choice(KINDS), ((key, other),), during)


@st.composite
def windows(draw: DrawFn, input: Plan) -> Plan:
    input = sortable(input)
    schema = schema_of(input)
    rank = draw(st.sampled_from(Rank))
    item = None if rank is Rank.ROW_NUMBER else draw(st.sampled_from(Type).flatmap(lambda t: exprs(schema, t, 1)))
    types = draw(st.lists(st.sampled_from([t for t in Type if t is not Type.ANY]), max_size=1))
    partition = tuple(draw(exprs(schema, t, 1)) for t in types)
    name = fresh_names(draw, 1, {c.name for c in schema})[0]
    return Window(input, name, rank, item, partition, draw(sort_keys(schema)))


@st.composite
def spreads(draw: DrawFn, input: Plan) -> Plan:
    """Rows by the texts of a value, told by itself or by a column that has them."""
    texts = Texts(draw(exprs(schema_of(input), Type.ANY, 1)), draw(paths()))
    told, each, counted = fresh_names(draw, 3, {c.name for c in schema_of(input)})
    only = draw(st.none() | st.lists(st.none() | st.sampled_from(PLAIN_TEXTS), max_size=3).map(tuple))
    place = draw(st.none() | st.just(counted))
    if draw(st.booleans()):
        return Spread(input, each, texts, only, place)
    kept = tuple((c.name, Column(c.name, c.type)) for c in schema_of(input))
    return Spread(Project(input, (*kept, (told, texts))), each, Column(told, Type.STRING), only, place)


@st.composite
def sequences(draw: DrawFn, input: Plan) -> Plan:
    """MatchSteps over `input`; seldom does an attempt get far."""
    schema = schema_of(input)
    entity = draw(st.sampled_from([Type.STRING, Type.INTEGER]).flatmap(lambda t: exprs(schema, t, 1)))
    time = draw(exprs(schema, Type.TIMESTAMP, 1))
    told = st.sampled_from([t for t in Type if t is not Type.ANY]).flatmap(lambda t: exprs(schema, t, 1))
    steps: list[Step] = []
    taken = {"entity", "level", "last", "t1", "t2", "t3"}
    for k in range(draw(st.integers(1, 3))):
        values = draw(st.lists(told, max_size=2))
        names = fresh_names(draw, len(values), taken)
        taken.update(names)
        unless = draw(st.none() | predicates(schema, 1)) if k else None
        steps.append(Step(draw(predicates(schema, 1)), tuple(zip(names, values, strict=True)), unless))
    window_ms, starts = draw(st.none() | st.sampled_from(WINDOWS_MS)), draw(st.sampled_from(STARTS))
    return MatchSteps(input, entity, time, tuple(steps), window_ms, starts)


@st.composite
def journeys(draw: DrawFn) -> Plan:
    """MatchSteps over rows of few entities, kinds and times, evenly thrown: so many attempts get far.

    Now and then before 1970.
    """
    dice = draw(st.randoms(use_true_random=True))
    x = dice.choice([t for t in Type if t is not Type.ANY])
    values = draw(st.lists(literals(x), min_size=2, max_size=5, unique_by=repr))
    gap = dice.choice([timedelta(hours=1), timedelta(microseconds=500)])
    first = dice.choice([START, START, datetime(1970, 1, 1) - 4 * gap])
    rows = [
        (
            dice.choice(["u", "u", "v", "v", None]),
            dice.choice([*(first + n * gap for n in range(6)), None]),
            dice.choice("abcde"),
            dice.choice(values).value,
        )
        for _ in range(dice.randint(8, 24))
    ]
    made = ("user", Type.STRING), ("time", Type.TIMESTAMP), ("kind", Type.STRING), ("x", x)
    user, time, kind, value = (Column(name, type) for name, type in made)

    def some(of: str) -> Expr:
        return In(kind, tuple(Literal(k, Type.STRING) for k in dice.sample(of, dice.choice([1, 2, 2, 3]))))

    steps = []
    for k in range(dice.randint(1, 5)):
        carried = tuple((f"{name}{k}", of) for name, of in (("kind", kind), ("X", value)) if dice.random() < 0.5)
        unless = some(dice.choice(["eee", "abcde"])) if k and dice.random() < 0.5 else None
        steps.append(Step(some("abcd"), carried, unless))
    input = Values(tuple(SchemaColumn(name, type) for name, type in made), tuple(rows))
    window_ms = dice.choice([None, *(n * gap // timedelta(milliseconds=1) for n in range(5))])
    return MatchSteps(input, user, time, tuple(steps), window_ms, dice.choice(STARTS))


@st.composite
def returns(draw: DrawFn) -> Plan:
    """The hours in which each of few users did something, as a set, evenly thrown: some are before the first hour."""
    dice = draw(st.randoms(use_true_random=True))
    rows = [(dice.choice("uv"), START + dice.randint(-4, 7) * timedelta(minutes=30)) for _ in range(dice.randint(2, 8))]
    made = (SchemaColumn("user", Type.STRING), SchemaColumn("time", Type.TIMESTAMP))
    hour = Bucket(Column("time", Type.TIMESTAMP), START_MS, HOUR_MS)
    user, hours = Column("user", Type.STRING), Column("hours", Type.INTEGER)
    sets = Aggregate(Values(made, tuple(rows)), ((user.name, user),), (Measure(hours.name, Agg.BITS, hour),))
    return Project(sets, (("user", user), ("hours", hours), *((f"h{k}", HasBit(hours, k)) for k in range(3))))


@st.composite
def fills(draw: DrawFn, input: Plan) -> Plan:
    times = [c.name for c in schema_of(input) if c.type is Type.TIMESTAMP]
    if not times:
        name = fresh_names(draw, 1, {c.name for c in schema_of(input)})[0]
        kept = tuple((c.name, Column(c.name, c.type)) for c in schema_of(input))
        input = Project(input, (*kept, (name, draw(exprs(schema_of(input), Type.TIMESTAMP, 1)))))
        times = [name]
    from_ms = START_MS + draw(st.integers(-1, 3)) * HOUR_MS
    to_ms = from_ms + draw(st.integers(0, 5 * HOUR_MS))
    return FillTime(input, draw(st.sampled_from(times)), from_ms, to_ms, draw(st.sampled_from([1, 2])) * HOUR_MS)


@st.composite
def unions(draw: DrawFn, world: World, input: Plan, depth: int) -> Plan:
    """Inputs of equal types; names are the first input's."""
    others = []
    for other in draw(st.lists(plans(world, depth), max_size=2)):
        named = tuple((c.name, draw(exprs(schema_of(other), c.type, 1))) for c in schema_of(input))
        others.append(Project(other, named))
    return Union((input, *others))


@st.composite
def leaves(draw: DrawFn, world: World) -> Plan:
    if draw(st.integers(0, 5)):
        relation = draw(st.sampled_from(RELATIONS))
        columns = draw(st.permutations(world.schemas[relation]))
        return Read(relation, tuple(columns[: draw(st.integers(1, len(columns)))]))
    names = draw(st.lists(st.sampled_from(NAMES), min_size=1, max_size=3, unique=True))
    schema = tuple(SchemaColumn(name, draw(st.sampled_from(Type))) for name in names)
    row = st.tuples(*(literals(c.type).map(lambda e: e.value) for c in schema))
    return Values(schema, tuple(draw(st.lists(row, max_size=4))))


@st.composite
def plans(draw: DrawFn, world: World, depth: int = 3) -> Plan:
    if depth == 0:
        return draw(leaves(world))
    input = draw(plans(world, depth - 1))
    match draw(st.integers(0, 11)):
        case 0:
            return input
        case 1:
            return Filter(input, draw(predicates(schema_of(input))))
        case 2:
            return draw(projects(input))
        case 3:
            return draw(joins(input, draw(plans(world, depth - 1))))
        case 4:
            return draw(aggregates(input))
        case 5:
            return draw(windows(input))
        case 6:
            return draw(unions(world, input, depth - 1))
        case 7 | 8 as kind:
            input = sortable(input)
            sort = Sort(input, draw(sort_keys(schema_of(input))))
            return sort if kind == 7 else Limit(sort, draw(st.integers(0, 5)))
        case 9:
            return draw(sequences(input) | journeys())
        case 10:
            return draw(spreads(input))
        case _:
            return draw(fills(input))


TOPICS: dict[str, tuple[Type, SearchStrategy[Any]]] = {
    "text": (Type.STRING, st.sampled_from(PLAIN_TEXTS)),
    "number": (Type.STRING, st.sampled_from(NUMBER_TEXTS)),
    "time": (Type.STRING, st.sampled_from(TIME_TEXTS)),
    "address": (Type.STRING, st.sampled_from(ADDRESS_TEXTS)),
    **{f"any {type}": (type, VALUES[type]) for type in Type},
}


@st.composite
def focused(draw: DrawFn) -> tuple[World, Plan]:
    """Many values of one kind: aggregated, or beside all that is particular to the kind and some random predicates."""
    topic = draw(st.sampled_from(["text", "text", "number", "time", "address", "any any", "any any", *sorted(TOPICS)]))
    type, values = TOPICS[topic]
    schema = (SchemaColumn("v", type), SchemaColumn("n", Type.INTEGER))
    rows = [{"v": v, "n": n} for n, v in enumerate(draw(st.lists(known(values), min_size=12, max_size=20)))]
    world, read = World({"events": schema}, {"events": rows}), Read("events", schema)
    column = Column("v", type)
    whole = draw(st.integers(0, 5))
    if type is Type.ANY and whole < 3:
        kept = [text for row in rows for text in texts_of(row["v"])]
        only = draw(st.none() | st.lists(st.sampled_from([None, *kept]), max_size=4).map(tuple))
        return world, Spread(read, "each", Texts(column, draw(paths())), only, draw(st.none() | st.just("place")))
    if type is not Type.ANY and whole == 0:
        order = (SortKey(Column("n", Type.INTEGER), draw(st.booleans())),)
        rank = draw(st.sampled_from(Rank))
        item = None if rank is Rank.ROW_NUMBER else column
        return world, Window(read, "w", rank, item, (Cast(column, Type.BOOLEAN),), order)
    if type is not Type.ANY and whole == 1:
        numeric = [Agg.SUM, Agg.AVG, Agg.QUANTILE] if type in NUMERIC else []
        bits = [Agg.BITS] if type is Type.INTEGER else []
        aggs = [Agg.COUNT, Agg.DISTINCT, Agg.MIN, Agg.MAX, *numeric, *bits]
        some = tuple(Measure(agg, agg, column, 0.4 if agg is Agg.QUANTILE else None) for agg in aggs)
        return world, Aggregate(read, tuple(draw(st.sampled_from([(), (("v", column),)]))), some)
    items = [*(Cast(column, t) for t in Type), *draw(particular(topic, column))]
    if type is not Type.ANY:
        bound = draw(literals(type))
        items += [Compare(op, column, bound) for op in OPS]
    items += draw(st.lists(predicates(schema), max_size=3))
    named = tuple((f"c{n}", item) for n, item in enumerate(items))
    return world, Project(read, (("n", Column("n", Type.INTEGER)), *named))


@st.composite
def particular(draw: DrawFn, topic: str, column: Column) -> list[Expr]:
    """Expressions that mean something for values of this kind only."""
    match topic:
        case "address":
            blocks = st.lists(st.sampled_from(BLOCKS), min_size=1, max_size=2).map(tuple)
            return draw(st.lists(blocks.map(lambda b: InBlocks(column, b)), min_size=2, max_size=4))
        case "text":
            likes = st.lists(st.builds(Like, st.just(column), patterns(), st.booleans()), min_size=3, max_size=6)
            return [*(Call(fn, (column,)) for fn in (Fn.LOWER, Fn.TRIM, Fn.NULL_IF_EMPTY)), *draw(likes)]
        case "any any":
            some = st.builds(AnyOf, st.just(column), paths(), predicates((), 1, inside=True))
            texts = Texts(column, draw(paths()))
            return [*(Cast(Get(column, "k"), t) for t in Type), texts, *draw(st.lists(some, min_size=1, max_size=3))]
        case _:
            return []


def texts_of(value: Any) -> list[str]:
    """Texts anywhere inside a value."""
    if isinstance(value, dict | list):
        return [text for part in (value.values() if isinstance(value, dict) else value) for text in texts_of(part)]
    return [value] if isinstance(value, str) else []


NOTHING = World({"events": (SchemaColumn("n", Type.INTEGER),)}, {"events": []})
"""For plans that bring their own rows."""


@st.composite
def cases(draw: DrawFn) -> tuple[World, Plan]:
    # Hypothesis varies a case the more often the more it draws: the small ones are offered oftener to even that out.
    match draw(st.randoms(use_true_random=True)).randrange(21):
        case 0 | 1 | 2 | 3:
            return draw(focused())
        case 4 | 5 | 6:
            return NOTHING, draw(meetings())
        case 7:
            return NOTHING, draw(returns())
        case kind if kind < 16:
            return NOTHING, draw(journeys())
    world = draw(worlds())
    return world, draw(plans(world, draw(st.sampled_from([1, 2, 3]))))


def is_ordered(plan: Plan) -> bool:
    """Whether the plan promises an order of rows."""
    match plan:
        case Sort():
            return True
        case Filter(input) | Project(input) | Limit(input):
            return is_ordered(input)
        case _:
            return False


def relations_of(plan: Plan) -> set[str]:
    if isinstance(plan, Read):
        return {plan.relation}
    return set().union(*(relations_of(p) for p in inputs_of(plan)))
