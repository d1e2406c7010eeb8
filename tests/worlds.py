"""Owns random small worlds (tables of rows) and random plans over them, and loading a world into DuckDB."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import duckdb
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

from roster.model.schema import NUMERIC, Schema, Type
from roster.model.schema import Column as SchemaColumn
from roster.query.dialect import DUCKDB, table_name
from roster.query.expr import (
    And,
    AnyOf,
    Call,
    Cast,
    Column,
    Compare,
    Expr,
    Fn,
    Get,
    In,
    InBlocks,
    IsNull,
    Item,
    Like,
    Literal,
    Not,
    Or,
    Wild,
)
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
    Union,
    Values,
    Window,
    inputs_of,
    schema_of,
)

RELATIONS = ("users", "events", "table:0b5c3a4e-9d1f-4a52-8f6e-1f2d3c4b5a69")
NAMES = ("a", "A", "b", "Ab", 'q"; DROP TABLE users; --', "x y", "é", "É", "@tier", "select", "it's", "$1", "item1")
START = datetime(2024, 1, 1)
KEYS = ("k", "K", "a.b", "é")
PLAIN_TEXTS = (
    *("", " ", "a", "A", "b", "ab", "aB", "a%b", "a_b", "a\\b", "aab", "bab", "aXb", "ba%b", "a%", "_b", "line\nend"),
    *("é", "É", "ß", "İ", "ΣΑΣ", "😀", "\t a \u00a0", "\u00a0\ta", "'; DROP TABLE users; --", "$1", "%", "_", "\\"),
)
NUMBER_TEXTS = (
    *("1", " 2 ", "\t3\n", "+3", "1.5", "-2.25", "1e2", "1E-2", "0x10", "1_000", "inf", "nan", "+-5", "5.", ".5", "-0"),
    *(
        "12345678901234567890",
        "9223372036854775807",
        "9007199254740993",
        "2.0",
        "true",
        "No",
        " YES",
        "f",
        "0",
        "on",
        "1 2",
    ),
)
TIME_TEXTS = (
    *("2024-01-01", "2024-01-01T10:00:00+02:00", "2024-01-01 08:00:00Z", "2024-01-01T08:00", "2023-02-29", "2024-1-1"),
    *(
        "2024-01-01T24:00:00",
        "2024-01-01T08:00:00.1234567-0330",
        "0001-01-01T00:00:00+05:00",
        "9999-12-31T23:59:59-01:00",
    ),
    *("0000-01-01", "2024-01-01T08:00:60", "2024-01-01Z", " 2024-01-01T08 ", "20240101", "2024-01-01T08:00:00.5+15:60"),
)
ADDRESS_TEXTS = (
    *("10.0.0.0", "10.0.0.1", "10.0.0.255", "10.0.1.0", "10.0.0.01", "192.168.1.300", "1.2.3", "10.0.0.1 "),
    *(
        "::",
        "::1",
        "::ffff:10.0.0.1",
        "::ffff:a00:1",
        "2001:db8::1",
        "2001:DB8:0:0:0:0:0:1",
        "1::2::3",
        "1:2:3:4:5:6:7::",
    ),
    *(
        "::2:3:4:5:6:7:8",
        "1:2:3:4:5:6:7:8:9",
        "1:2:3:4:5:6:10.0.0.1",
        "fe80::1%eth0",
        ":::",
        "::12345",
        "1:2:3:4:5:6:7:",
    ),
)
TEXTS = PLAIN_TEXTS + NUMBER_TEXTS + TIME_TEXTS + ADDRESS_TEXTS
INTEGERS = (-2, -1, 0, 1, 2, 3, 10, 1704067200000, 1704153600000)
NUMBERS = (-3.0, -0.5, 0.0, 0.5, 1.0, 2.25, 10.0, 123456.75, 1704067200000.0)
BLOCKS = ("10.0.0.0/24", "10.0.0.1/32", "0.0.0.0/0", "::1/128", "2001:db8::/32", "::/0")
WINDOWS_MS = (0, 1, 3_600_000, 7_200_000, 86_400_000)
HOUR_MS = 3_600_000


@dataclass(frozen=True)
class World:
    """Tables by relation: their columns and rows."""

    schemas: dict[str, Schema]
    tables: dict[str, list[dict[str, Any]]]


def texts() -> SearchStrategy[str]:
    return st.sampled_from(TEXTS) | st.text(st.characters(exclude_categories=["Cs"]), max_size=4)


def moments() -> SearchStrategy[datetime]:
    """Few hours, so that times meet; now and then a microsecond off the hour."""
    near = st.sampled_from([0, 0, 0, 1, 1000, -1])
    return st.builds(lambda h, us: START + timedelta(hours=h, microseconds=us), st.integers(0, 30), near)


def json_values() -> SearchStrategy[Any]:
    scalars = st.none() | st.booleans() | st.sampled_from(INTEGERS) | st.sampled_from(NUMBERS) | texts()
    nested = st.recursive(
        scalars,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=3),
        max_leaves=6,
    )
    return nested | st.dictionaries(st.just("k"), nested, min_size=1)


def known(values: SearchStrategy[Any]) -> SearchStrategy[Any]:
    """Mostly a value, now and then null."""
    return st.one_of([values] * 5 + [st.none()])


VALUES: dict[Type, SearchStrategy[Any]] = {
    Type.STRING: texts(),
    Type.INTEGER: st.sampled_from(INTEGERS),
    Type.NUMBER: st.sampled_from(NUMBERS),
    Type.BOOLEAN: st.booleans(),
    Type.TIMESTAMP: moments(),
    Type.DATE: moments().map(lambda m: m.date()),
    Type.ANY: json_values(),
}


@st.composite
def worlds(draw: DrawFn) -> World:
    schemas: dict[str, Schema] = {}
    tables: dict[str, list[dict[str, Any]]] = {}
    for relation in RELATIONS:
        names = draw(st.lists(st.sampled_from(NAMES), min_size=1, max_size=6, unique_by=str.lower))
        schema = tuple(SchemaColumn(name, draw(st.sampled_from(Type))) for name in names)
        row = st.fixed_dictionaries({c.name: known(VALUES[c.type]) for c in schema})
        rows = draw(st.lists(row, min_size=draw(st.sampled_from([0, 3, 5])), max_size=7))
        repeated = draw(st.lists(st.sampled_from(rows), max_size=3)) if rows else []
        schemas[relation], tables[relation] = schema, rows + repeated
    return World(schemas, tables)


def literals(type: Type) -> SearchStrategy[Expr]:
    values = VALUES[type]
    if type is Type.DATE:
        values = moments()
    if type is Type.ANY:
        values = texts() | st.sampled_from(INTEGERS) | st.booleans()
    return known(values).map(lambda value: Literal(value, type))


@st.composite
def patterns(draw: DrawFn) -> tuple[str | Wild, ...]:
    """Part of a known text between wildcards, or a known text with some characters made wild or changed."""
    text = draw(st.sampled_from(PLAIN_TEXTS[2:14]) | st.sampled_from(PLAIN_TEXTS))
    before, after = draw(st.sampled_from([[], [Wild.ANY]])), draw(st.sampled_from([[], [Wild.ANY]]))
    if draw(st.booleans()):
        start, end = sorted(draw(st.tuples(*[st.integers(0, len(text))] * 2)))
        return joined([*before, text[start:end], *after])
    pieces: list[str | Wild] = []
    for character in text:
        wild = {0: [Wild.ANY], 1: [Wild.ONE], 2: [], 3: [character.swapcase()], 4: [Wild.ANY, character]}
        pieces += wild.get(draw(st.integers(0, 9)), [character])
    return joined([*before, *pieces, *after])


@st.composite
def exprs(draw: DrawFn, schema: Schema, type: Type, depth: int = 2, inside: bool = False) -> Expr:
    """An expression of `type` over columns of `schema`; `inside` an AnyOf it may use the item."""
    columns = [Column(c.name, c.type) for c in schema if c.type is type]
    leaves: list[SearchStrategy[Expr]] = [literals(type)]
    if columns:
        leaves += [st.sampled_from(columns)] * 4
    if inside:
        leaves += [st.just(Item()) if type is Type.ANY else st.just(Cast(Item(), type))] * 4
    if depth == 0:
        return draw(st.one_of(leaves))

    def inner(kind: Type) -> SearchStrategy[Expr]:
        return exprs(schema, kind, depth - 1, inside)

    present = sorted({c.type for c in schema} - {type}) or [Type.STRING]
    others = st.sampled_from(present) | st.sampled_from([t for t in Type if t is not type])
    casts = others.flatmap(inner).map(lambda e: Cast(e, type))
    match type:
        case Type.STRING:
            fn = st.sampled_from([Fn.LOWER, Fn.TRIM, Fn.NULL_IF_EMPTY])
            more: list[SearchStrategy[Expr]] = [casts, st.builds(Call, fn, st.tuples(inner(type)))]
        case Type.INTEGER | Type.NUMBER:
            more = [casts, st.builds(Call, st.just(Fn.ADD), st.tuples(inner(type), inner(type)))]
        case Type.BOOLEAN:
            more = [casts, predicates(schema, depth, inside)]
        case Type.ANY:
            more = [casts, st.builds(Get, inner(type), st.sampled_from(KEYS))]
        case _:
            more = [casts]
    return draw(st.one_of(*leaves, *more))


@st.composite
def predicates(draw: DrawFn, schema: Schema, depth: int = 2, inside: bool = False) -> Expr:
    if depth == 0:
        return draw(exprs(schema, Type.BOOLEAN, 0, inside))
    again = predicates(schema, depth - 1, inside)
    present = sorted({c.type for c in schema if c.type is not Type.ANY}) or [Type.STRING]
    type = draw(st.sampled_from(present) | st.sampled_from([t for t in Type if t is not Type.ANY]))

    def item(kind: Type) -> SearchStrategy[Expr]:
        return exprs(schema, kind, depth - 1, inside)

    options = st.lists(literals(type), max_size=8).map(tuple)
    blocks = st.lists(st.sampled_from(BLOCKS), max_size=2).map(tuple)
    ops = st.sampled_from(["=", "<", "<=", ">", ">="])
    some = st.lists(again, max_size=3).map(tuple)
    keys = st.lists(st.sampled_from(KEYS[:1] * 3 + KEYS), max_size=2).map(tuple)
    strategies: list[SearchStrategy[Expr]] = [
        st.builds(Compare, ops, item(type), item(type) | literals(type)),
        st.builds(In, item(type), options),
        st.builds(Like, item(Type.STRING), patterns(), st.booleans()),
        st.builds(InBlocks, item(Type.STRING), blocks),
        st.builds(IsNull, st.sampled_from(Type).flatmap(item)),
        st.builds(Not, again),
        st.builds(And, some),
        st.builds(Or, some),
        st.builds(AnyOf, item(Type.ANY), keys, predicates(schema, depth - 1, inside=True)),
    ]
    return draw(st.one_of(strategies))


def joined(pieces: list[str | Wild]) -> tuple[str | Wild, ...]:
    """Neighbouring literal pieces as one, as a parser gives them."""
    merged: list[str | Wild] = []
    for piece in pieces:
        if merged and isinstance(piece, str) and isinstance(merged[-1], str):
            merged[-1] += piece
        else:
            merged.append(piece)
    return tuple(merged)


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
    type = draw(st.sampled_from([t for t in Type if t is not Type.ANY and (any_type or t in NUMERIC)]))
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
    kind = draw(st.sampled_from(["inner", "left", "semi", "anti"]))
    if kind in ("inner", "left"):
        names = fresh_names(draw, len(schema_of(right)), {c.name for c in schema_of(left)})
        pairs = zip(names, schema_of(right), strict=True)
        right = Project(right, tuple((name, Column(c.name, c.type)) for name, c in pairs))
    ours, theirs = schema_of(left), schema_of(right)
    shared = sorted({c.type for c in ours} & {c.type for c in theirs} - {Type.ANY}) or [Type.STRING]
    types = draw(st.lists(st.sampled_from(shared), min_size=kind in ("inner", "left"), max_size=2))
    on = tuple((draw(exprs(ours, t, 1)), draw(exprs(theirs, t, 1))) for t in types)
    return Join(left, right, kind, on)


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
def sequences(draw: DrawFn, input: Plan) -> Plan:
    """MatchSteps over `input`, or over rows made for it."""
    if draw(st.booleans()):
        made = ("user", Type.STRING), ("time", Type.TIMESTAMP), ("tie", Type.INTEGER), ("kind", Type.STRING)
        schema = tuple(SchemaColumn(name, type) for name, type in made)
        hours = st.integers(0, 3).map(lambda h: START + timedelta(hours=h))
        row = st.tuples(st.sampled_from("uv"), known(hours), st.sampled_from([None, 1, 1, 2]), st.sampled_from("abc"))
        input = Values(schema, tuple(draw(st.lists(row, min_size=draw(st.sampled_from([0, 6, 10])), max_size=14))))
        entity, time, tie, kind = (Column(name, type) for name, type in made)
        step = st.sets(st.sampled_from("abc"), min_size=1, max_size=2)
        steps = draw(st.lists(step, min_size=1, max_size=4))
        conditions = [In(kind, tuple(Literal(k, Type.STRING) for k in sorted(s))) for s in steps]
        return MatchSteps(input, entity, time, tie, tuple(conditions), draw(st.sampled_from(WINDOWS_MS)))
    schema = schema_of(input)
    keyed = st.sampled_from([Type.STRING, Type.INTEGER])
    entity_of, time_of = draw(keyed.flatmap(lambda t: exprs(schema, t, 1))), draw(exprs(schema, Type.TIMESTAMP, 1))
    tie_of = draw(keyed.flatmap(lambda t: exprs(schema, t, 1)))
    some = tuple(draw(st.lists(predicates(schema, 1), min_size=1, max_size=3)))
    return MatchSteps(input, entity_of, time_of, tie_of, some, draw(st.sampled_from(WINDOWS_MS)))


@st.composite
def fills(draw: DrawFn, input: Plan) -> Plan:
    times = [c.name for c in schema_of(input) if c.type is Type.TIMESTAMP]
    if not times:
        name = fresh_names(draw, 1, {c.name for c in schema_of(input)})[0]
        kept = tuple((c.name, Column(c.name, c.type)) for c in schema_of(input))
        input = Project(input, (*kept, (name, draw(exprs(schema_of(input), Type.TIMESTAMP, 1)))))
        times = [name]
    from_ms = 1704067200000 + draw(st.integers(-1, 3)) * HOUR_MS
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
    match draw(st.integers(0, 10)):
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
            return draw(sequences(input))
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
    """Many values of one kind, and expressions that are about that kind."""
    topic = draw(st.sampled_from(["text", "number", "time", "address", "any any", "any any", *sorted(TOPICS)]))
    type, values = TOPICS[topic]
    schema = (SchemaColumn("v", type), SchemaColumn("n", Type.INTEGER))
    column = Column("v", type)
    rows = [{"v": v, "n": n} for n, v in enumerate(draw(st.lists(known(values), min_size=8, max_size=16)))]
    about: list[SearchStrategy[Expr]] = [st.sampled_from(Type).map(lambda t: Cast(column, t)), predicates(schema)]
    if topic == "address":
        blocks = st.lists(st.sampled_from(BLOCKS), min_size=1, max_size=2).map(tuple)
        about = [blocks.map(lambda b: InBlocks(column, b))]
    elif topic == "text":
        like = st.builds(Like, st.just(column), patterns(), st.booleans())
        calls = st.sampled_from([Fn.LOWER, Fn.TRIM, Fn.NULL_IF_EMPTY]).map(lambda fn: Call(fn, (column,)))
        about = [calls, predicates(schema), *[like] * 3]
    elif type is Type.ANY:
        keys = st.lists(st.sampled_from(KEYS[:1] * 4 + KEYS), max_size=2).map(tuple)
        about += [st.builds(AnyOf, st.just(column), keys, predicates((), 1, inside=True))]
        about += [st.sampled_from(Type).map(lambda t: Cast(Get(column, "k"), t))] * 2
    world = World({"events": schema}, {"events": rows})
    if type in NUMERIC and draw(st.booleans()):
        return world, draw(aggregates(Read("events", schema)))
    chosen = draw(st.lists(st.one_of(about), min_size=1, max_size=4))
    named = tuple((f"c{n}", expr) for n, expr in enumerate(chosen))
    return world, Project(Read("events", schema), (("n", Column("n", Type.INTEGER)), *named))


@st.composite
def cases(draw: DrawFn) -> tuple[World, Plan]:
    kind = draw(st.integers(0, 9))
    if kind < 4:
        return draw(focused())
    world = draw(worlds())
    if kind == 4:
        return world, draw(sequences(draw(leaves(world))))
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


def load(connection: duckdb.DuckDBPyConnection, world: World, relations: set[str]) -> None:
    """Make the tables of these relations anew."""
    for relation in sorted(relations):
        schema, rows = world.schemas[relation], world.tables[relation]
        table = quoted(table_name(relation))
        columns = ", ".join(f"{quoted(c.name)} {DUCKDB.types[c.type]}" for c in schema)
        connection.execute(f"CREATE OR REPLACE TABLE {table} ({columns})")
        if rows:
            cells = [f"(${n + 1}::JSON::VARIANT)" if c.type is Type.ANY else f"${n + 1}" for n, c in enumerate(schema)]
            insert = f"INSERT INTO {table} VALUES ({', '.join(cells)})"
            for row in rows:
                connection.execute(insert, [stored(row[c.name], c.type) for c in schema])


def stored(value: Any, type: Type) -> Any:
    return json.dumps(value) if type is Type.ANY and value is not None else value


def quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
