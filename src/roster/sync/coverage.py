"""Owns what a sync counts: plans that say how a source's rows, cells and profiles meet, and what they answer.

Everything is counted by plans over one snapshot, so that the lines of a Coverage add up by construction.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from roster.model.connection import Connection, Field
from roster.model.held import owner_of
from roster.model.reference_table import Table, column_of, relation_of, stored_columns
from roster.model.rules import NO_RULES
from roster.model.schema import Entity, Type
from roster.model.sync import Coverage
from roster.ports import Answer, Loaded
from roster.query.expr import And, Cast, Column, Compare, IsNull, Not, Or
from roster.query.offers import field_value, find_source_column, stored_value
from roster.query.plan import Agg, Aggregate, Filter, Join, Limit, Measure, Named, Plan, Project, Read
from roster.query.relations import NEWEST, PROFILES, ROW, Matching, match_rows, meet, read_profiles

OVERLAP_MIN = 0.5
"""Share of agreeing values from which a new column is proposed as the new name of a dropped one."""
CANDIDATES_MAX = 20
_ROWS = Measure("rows", Agg.COUNT)


@dataclass(frozen=True, slots=True)
class Cells:
    """The cells of one field among the rows a sync stored: those with a value, those that its type takes."""

    field_id: str
    column: str
    filled: int
    accepted: int

    def misfits(self) -> float:
        """Share of the filled cells that are no value of the field, 0..1."""
        return (self.filled - self.accepted) / self.filled if self.filled else 0.0


def count_cells(connection: Connection, table: Table, fresh: str) -> Plan:
    """One row: the number of rows of the relation `fresh`, then for each field filled and accepted cells."""
    measures = [Measure("rows", Agg.COUNT)]
    for i, field in enumerate(connection.fields):
        found = field_value(table, field)
        if found is not None:
            measures += [Measure(f"filled{i}", Agg.COUNT, found[0]), Measure(f"accepted{i}", Agg.COUNT, found[1])]
    return Aggregate(Read(fresh, (ROW, *stored_columns(table))), (), tuple(measures))


def count_misfits(table: Table, fresh: str) -> Plan:
    """One count: rows of the relation `fresh` with a cell that is no value of its declared column."""
    declared = {c.name: c.type for c in table.columns}
    bad = tuple(
        And((Not(IsNull(stored)), IsNull(Cast(stored, declared[name]))))
        for name, _ in table.held
        for stored in [stored_value(table, name)]
    )
    rows = Filter(Read(fresh, (ROW, *stored_columns(table))), Or(bad))
    return Aggregate(rows, (), (Measure("rows", Agg.COUNT),))


def read_cells(connection: Connection, table: Table, answer: Answer) -> tuple[int, list[Cells]]:
    """What `count_cells` answered: rows, and the cells of each field whose column is there."""
    rows, *numbers = answer.rows[0]
    cells = []
    for field in connection.fields:
        column = find_source_column(table, field.source_name)
        if column is not None:
            filled, accepted, *numbers = numbers
            cells.append(Cells(field.id, column.name, filled, accepted))
    return rows, cells


def count_matches(entity: Entity, connection: Connection, table: Table, fresh: str) -> list[Plan]:
    """One row each: how keys meet (those that count, those of them that match, matched profiles), fresh rows with a
    join key, profiles.
    """
    matching = match_rows(entity, connection, table)
    if matching is None:
        return []
    return [
        _meetings(meet(entity, matching), table, fresh),
        Aggregate(_fresh(matching, table, fresh), (), (_ROWS,)),
        count_profiles(entity),
    ]


def count_profiles(entity: Entity) -> Plan:
    """One count."""
    return Aggregate(read_profiles(entity), (), (_ROWS,))


def _meetings(met: Plan, table: Table, fresh: str) -> Plan:
    """Counts over the keys of a source; a key counts when its newest row is one that this sync stored."""
    stored: Column = NEWEST
    if fresh != relation_of(table):
        stored = Column("#fresh", Type.INTEGER)
        rows = Project(Read(fresh, (ROW,)), ((stored.name, Column(ROW.name, ROW.type)),))
        met = Join(met, rows, "left", ((NEWEST, stored),))
    both = Compare("=", stored, PROFILES)  # null when either is missing: nothing else of it is asked
    measures = (
        Measure("counting", Agg.COUNT, stored),
        Measure("matched", Agg.COUNT, both),
        Measure("profiles", Agg.SUM, PROFILES),
    )
    return Aggregate(met, (), measures)


def _fresh(matching: Matching, table: Table, fresh: str) -> Plan:
    """Rows with a join key: only those that this sync stored."""
    rows = matching.rows.input
    if fresh == relation_of(table):
        return rows
    row = Column(ROW.name, ROW.type)
    return Join(rows, Read(fresh, (ROW,)), "semi", ((matching.row, row),))


def read_coverage(
    entity: Entity, connection: Connection, table: Table, loaded: Loaded, answers: Sequence[Answer]
) -> Coverage:
    """A connection's line of counters, from the answers to `count_cells` and `count_matches` in this order."""
    rows, cells = read_cells(connection, table, answers[0])
    met = [n or 0 for answer in answers[1:] for n in answer.rows[0]]
    counting, matched, profiles_matched, keyed, profiles = met or [0] * 5
    accepted, filled = sum(c.accepted for c in cells), sum(c.filled for c in cells)
    return Coverage(
        entity=str(entity),
        connection_id=connection.id,
        rows=loaded.rows + loaded.duplicates + loaded.keyless,
        matched=matched,
        unmatched=counting - matched + rows - keyed + loaded.keyless,
        duplicate=loaded.duplicates + keyed - counting,
        cells=rows * len(cells),
        accepted=accepted,
        null=rows * len(cells) - filled,
        quarantined=filled - accepted,
        profiles=profiles,
        profiles_matched=profiles_matched,
        profiles_unmatched=profiles - profiles_matched,
    )


def quarantined(connection: Connection, table: Table, field_id: str, limit: int) -> Plan | None:
    """Row key, text and whether it is of its type of the cells that a field refuses; None when it has no column."""
    field = next((f for f in connection.fields if f.id == field_id), None)
    found = field_value(table, field) if field else None
    typed = field_value(table, replace(field, rules=NO_RULES)) if field else None
    key = column_of(table, table.primary_key)
    if found is None or typed is None or key is None:
        return None
    stored, value = found
    bad = Filter(Filter(Read(relation_of(table), (ROW, *stored_columns(table))), Not(IsNull(stored))), IsNull(value))
    shown: tuple[Named, ...] = (
        ("row_key", Cast(stored_value(table, key.name), Type.STRING)),
        ("value", Cast(stored, Type.STRING)),
        ("is_typed", Not(IsNull(typed[1]))),
    )
    return Limit(Project(bad, shown), limit)


def agreeing(before: Table, after: Table, dropped: str, candidates: Sequence[str]) -> list[Plan]:
    """Counts of the rows of one key in both generations: with a value in `dropped`, then for each candidate
    those whose values are equal as text."""
    left = _side(before, "old", (before.primary_key, dropped))
    right = _side(after, "new", (after.primary_key, *candidates))
    key = (Column(f"old.{before.primary_key}", Type.STRING), Column(f"new.{after.primary_key}", Type.STRING))
    value = Column(f"old.{dropped}", Type.STRING)
    both = Filter(Join(left, right, "inner", (key,)), Not(IsNull(value)))
    plans: list[Plan] = [both]
    plans += [Filter(both, Compare("=", value, Column(f"new.{c}", Type.STRING))) for c in candidates]
    return [Aggregate(plan, (), (Measure("rows", Agg.COUNT),)) for plan in plans]


def _side(table: Table, prefix: str, names: Sequence[str]) -> Plan:
    stored = Read(relation_of(table), (ROW, *stored_columns(table)))
    wanted = dict.fromkeys(names)
    return Project(stored, tuple((f"{prefix}.{n}", Cast(stored_value(table, n), Type.STRING)) for n in wanted))


def best_match(candidates: Sequence[str], answers: Sequence[Answer]) -> tuple[str, float]:
    """The candidate that agrees most and its share; an empty name when none agrees often enough."""
    filled, *equal = (a.rows[0][0] for a in answers)
    if not filled or not equal:
        return "", 0.0
    count, name = max(zip(equal, candidates, strict=True), key=lambda pair: pair[0])
    share = count / filled
    return (name, share) if share >= OVERLAP_MIN else ("", 0.0)


def counted_for(coverage: Coverage, entity: Entity, connection: Connection) -> bool:
    """Whether a line of counters is that of a connection."""
    return f"{coverage.entity}/{coverage.connection_id}" == owner_of(entity, connection)


def why_quarantined(field: Field, text: str, is_typed: bool) -> str:
    """For people: the cell is no value of the field's type, or one that its rules refuse."""
    return f"{text!r} {field.rules.refuse()}" if is_typed else f"{text!r} is no {field.type.value}"
