"""Owns the source that syncs are measured on: its 20 columns, its files and database."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import duckdb

from bench.world import DAY_MS, END_MS, Size, email_sql, pick_sql, unit_sql

COLUMNS = {
    "email": "string",
    "contact": "number",
    "full_name": "string",
    "company": "string",
    "title": "string",
    "phone": "string",
    "country": "string",
    "city": "string",
    "segment": "string",
    "level": "string",
    "agent": "string",
    "score": "number",
    "revenue": "number",
    "discount": "number",
    "seats": "number",
    "is_buyer": "boolean",
    "opted_in": "boolean",
    "joined": "timestamp",
    "renewal": "timestamp",
    "marker": "string",
}
"""The columns and the types of their fields; `email` is the key, `marker` is the same in all rows of a file."""
MATCHED, DOUBLED = 0.9, 1000
"""Share of rows that are of a user; one row of so many has the key of the row before, every other in other case."""
CHANGED = 100
"""One row of so many is changed in a file of changes."""
DECLARED = {"is_buyer": "BOOLEAN", "opted_in": "BOOLEAN", "joined": "TIMESTAMP", "renewal": "DATE"}
CSV_TIMES = "TIMESTAMPFORMAT '%Y-%m-%dT%H:%M:%SZ'"


def fields() -> list[dict[str, str]]:
    """Every column but the key as a field of a connection."""
    return [{"id": f"s_{name}", "source_name": name, "type": type} for name, type in COLUMNS.items() if name != "email"]


def source_sql(size: Size, generation: int, changed: int = 0) -> str:
    """The rows; another generation has other values in every row, `changed` other scores in one of a hundred."""
    salt = size.seed * 1000 + 700
    of_row = salt + 50 * generation
    score = f"floor(100 * {unit_sql('i', of_row + 3)})::INTEGER"
    if changed:
        score = f"CASE WHEN i % {CHANGED} = 7 THEN {100 + changed} ELSE {score} END"
    place = f"(i - CASE WHEN i % {DOUBLED} = {DOUBLED - 1} THEN 1 ELSE 0 END)"
    cased = f"CASE WHEN i % 7 = 0 OR i % {2 * DOUBLED} = {DOUBLED - 1} THEN upper(plain) ELSE plain END"
    return f"""
        SELECT {cased} AS email, i + 1 AS contact,
            {pick_sql("Ada Ben Cleo Dan Eva Finn", "i", salt + 1)} || ' ' || i AS full_name,
            'Company ' || floor({max(1, size.rows // 20)} * {unit_sql("i", salt + 2)})::INTEGER AS company,
            {pick_sql("Engineer Manager Analyst Director Founder", "i", salt + 3)} AS title,
            CASE WHEN i % 5 > 0 THEN '+49 30 ' || (1000000 + i * 7919 % 9000000) END AS phone,
            {pick_sql("DE US FR GB JP BR IN CA NL SE", "i", salt + 4)} AS country,
            {pick_sql("Berlin Paris London Tokyo Recife Pune Toronto", "i", salt + 5)} AS city,
            {pick_sql("gold silver bronze free", "i", of_row + 1)} AS segment,
            {pick_sql("monthly yearly none", "i", of_row + 2)} AS level,
            'Agent ' || floor(2000 * {unit_sql("i", salt + 6)})::INTEGER AS agent, {score} AS score,
            CASE WHEN i % 10 > 0 THEN round(100000 * {unit_sql("i", of_row + 4)}, 2) END AS revenue,
            (floor(4000 * {unit_sql("i", salt + 7)}) / 100)::DECIMAL(10, 2) AS discount,
            floor(500 * {unit_sql("i", salt + 8)})::INTEGER AS seats, {unit_sql("i", salt + 9)} < 0.4 AS is_buyer,
            {unit_sql("i", salt + 10)} < 0.7 AS opted_in,
            make_timestamp_ms({END_MS} - floor({1000 * DAY_MS} * {unit_sql("i", salt + 11)})::BIGINT) AS joined,
            CASE WHEN i % 10 > 2 THEN make_timestamp_ms({END_MS} + {DAY_MS} * (i % 700))::DATE END AS renewal,
            'g{generation}' AS marker
        FROM (SELECT i, CASE WHEN {place} >= {int(size.rows * MATCHED)} THEN 'lead' || {place} || '@nowhere.example'
                ELSE lower({email_sql(place)}) END AS plain
            FROM range({size.rows}) AS numbers(i))"""


def write_file(size: Size, path: Path, generation: int, changed: int = 0) -> None:
    """The rows as a Parquet or CSV file, whole from the moment on that it is there."""
    aside = path.with_name(f"aside{path.suffix}")
    options = f"HEADER, {CSV_TIMES}" if path.suffix == ".csv" else "FORMAT parquet"
    duckdb.execute(f"COPY ({source_sql(size, generation, changed)}) TO '{aside}' ({options})")
    aside.rename(path)


def write_database(size: Size, path: Path) -> None:
    """The rows as table `people` of an SQLite database; `changed` grows with the last change of a row."""
    texts = ", ".join(f"{name}::VARCHAR AS {name}" for name in ("joined", "renewal"))
    plain = f"SELECT * REPLACE ({texts}, discount::DOUBLE AS discount) FROM ({source_sql(size, 1)})"
    columns = [f"{name} {DECLARED.get(name, '')}" for name in COLUMNS]
    with closing(sqlite3.connect(path)) as database, database, duckdb.connect() as rows:
        database.execute(f"CREATE TABLE people ({', '.join(columns)}, changed)")
        rows.execute(f"SELECT *, contact AS changed FROM ({plain})")
        while batch := rows.fetchmany(10_000):
            database.executemany(f"INSERT INTO people VALUES ({', '.join('?' * (len(columns) + 1))})", batch)
        database.execute("CREATE INDEX by_change ON people (changed)")


def write_table(size: Size, path: Path) -> None:
    """The rows as lines of values that PostgreSQL and MariaDB load alike; `changed` comes last."""
    numbers = ", ".join(f"{name}::INTEGER AS {name}" for name, type in COLUMNS.items() if type == "boolean")
    times = ", ".join(f"{name}::TIMESTAMP AS {name}" for name, type in COLUMNS.items() if type == "timestamp")
    rows = f"SELECT * REPLACE ({numbers}, {times}), contact AS changed FROM ({source_sql(size, 1)})"
    duckdb.execute(f"COPY ({rows}) TO '{path}' (HEADER false, NULLSTR '\\N')")
    path.chmod(0o644)


def change_database(size: Size, path: Path, times: int) -> None:
    """Another score in one of a hundred rows."""
    with closing(sqlite3.connect(path)) as database, database:
        database.execute(
            "UPDATE people SET score = ?, changed = ? WHERE (contact - 1) % ? = 7",
            [100 + times, size.rows + times, CHANGED],
        )
