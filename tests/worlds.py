"""Owns random small worlds (tables of rows) and loading them into DuckDB; plans over them are in random_plans.py."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import duckdb
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

from roster.model.schema import Column as SchemaColumn, Schema, Type
from roster.query.dialect import DUCKDB, table_name

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
INTEGERS = (-2, -1, 0, 1, 2, 3, 10, 62, 63, 1704067200000, 1704153600000)
NUMBERS = (-3.0, -0.5, 0.0, 0.5, 1.0, 2.25, 10.0, 123456.75, 1704067200000.0)


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
