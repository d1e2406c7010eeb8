"""Owns what reads of databases have in common: names, cursors, fingerprints. Knows no database."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Protocol

from roster.base.errors import Code, Error, did_you_mean
from roster.model.source import Origin
from roster.model.sync import Fetched
from roster.sources.job import Job
from roster.sources.parts import Item, Written, one_row, open_duck

NAMES_TOLD = 20


@dataclass(frozen=True, slots=True)
class Standing:
    """How a table with a cursor stands: its rows, the cursor's largest value as text, how many rows have that value,
    whether it has gone back.
    """

    count: int
    top: str | None
    ties: int
    back: bool = False


class Snapshot(Protocol):
    """A table or query of one database, in one transaction that sees one state. `since` is a value of the cursor."""

    items: tuple[Item, ...]

    def stand(self, cursor: Item, since: str | None) -> Standing:
        """Without reading the rows. Error: INVALID when such a column has no order."""
        ...

    def settle(self, cursor: Item | None, since: str | None) -> int | None:
        """Find out of the rows to be read what their types leave open; gives their number where that costs little."""
        ...

    def bring(self, cursor: Item | None, since: str | None, total: int | None) -> Written:
        """Write the rows: all, or those whose cursor is at least `since`."""
        ...


def read_snapshot(job: Job, snapshot: Snapshot) -> Fetched | None:
    """Read what is new. None when that is nothing.

    With a cursor, rows whose cursor is null come with full reads only.
    """
    named = job.origin.get("cursor")
    if not named:
        return _read_all(job, snapshot)
    try:
        cursor, shape = find_item(named, snapshot.items), _shape(job.origin, snapshot.items)
    except Error:
        if not job.fingerprint:
            raise
        return _read_all(job, snapshot)  # the cursor went from a source that was read: its fields must not wait for it
    since = None if job.full else _open_cursor(job.cursor, cursor, shape)
    standing = snapshot.stand(cursor, since)
    fingerprint = _digest("cursor", shape, standing.count, standing.top, standing.ties)
    if fingerprint == job.fingerprint and not job.full:
        return None
    if standing.back:
        since = None
    counted = snapshot.settle(cursor, since)
    total = standing.count if since is None else counted
    written = snapshot.bring(cursor, since, total)
    closed = "" if standing.top is None else json.dumps([cursor.kind, shape, standing.top])
    return Fetched(
        written.names, "parquet", fingerprint, closed, since is not None, written.rows, written.bytes, standing.count
    )


def _read_all(job: Job, snapshot: Snapshot) -> Fetched | None:
    total = snapshot.settle(None, None)
    written = snapshot.bring(None, None, total)
    paths = [job.folder / name for name in written.names]
    fingerprint = _digest("rows", _shape(job.origin, snapshot.items), *digest_rows(paths, len(snapshot.items)))
    if fingerprint == job.fingerprint and not job.full:
        for path in paths:
            path.unlink()
        return None
    return Fetched(written.names, "parquet", fingerprint, rows=written.rows, bytes=written.bytes, total=written.rows)


def digest_rows(paths: Sequence[Path], width: int) -> tuple[object, ...]:
    """What rows in any order have in common.

    Hashed once more, for a hash of several columns is little more than their sum: two rows that exchange a
    value would go unseen.
    """
    row = ", ".join(f"c{i}" for i in range(width))
    with open_duck() as duck:
        return one_row(
            duck.execute(
                f"""SELECT count(*), bit_xor(h), sum(h::HUGEINT)
                FROM (SELECT hash(hash({row})) FROM read_parquet($1) AS rows({row})) AS hashed(h)""",
                [[str(path) for path in paths]],
            )
        )


def _shape(origin: Origin, items: Sequence[Item]) -> str:
    """Equal as long as a row means the same: another table, query or column is not read on from a cursor."""
    asked = [origin.get(name) for name in ("database", "path", "table", "query", "cursor")]
    return _digest(*asked, *(f"{item.name}\0{item.kind}" for item in items))


def _digest(*parts: object) -> str:
    return sha256("\n".join(map(repr, parts)).encode()).hexdigest()[:32]


def _open_cursor(text: str, cursor: Item, shape: str) -> str | None:
    """The value to read on from; None when there is none or the columns are no longer what they were."""
    if not text:
        return None
    try:
        kind, before, top = json.loads(text)
    except ValueError:
        return None
    return str(top) if (kind, before) == (cursor.kind, shape) else None


def find_item(name: str, items: Sequence[Item]) -> Item:
    """The column of that name, its case as given or, when that is plain, not. Error: NOT_FOUND with the nearest."""
    exact = [item for item in items if item.name == name]
    found = exact or [item for item in items if item.name.lower() == name.lower()]
    if len(found) != 1:
        known = [item.name for item in items]
        raise Error(Code.NOT_FOUND, f"there is no column {name!r}", at="cursor", hint=nearest(name, known, "columns"))
    return found[0]


def nearest(name: str, known: Sequence[str], what: str) -> str:
    """A hint with the nearest names, else with some of them."""
    told = ", ".join(known[:NAMES_TOLD]) + (", ..." if len(known) > NAMES_TOLD else "")
    return did_you_mean(name, known) or (f"{what}: {told}" if known else f"there are no {what}")


def check_names(names: Sequence[str]) -> None:
    """Error: INVALID when two columns have one name or there is none."""
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise Error(Code.INVALID, f"two columns are named {twice[0]!r}", at="query", hint="name them apart with AS")
    if not names:
        raise Error(Code.INVALID, "the source has no columns")


def split_table(text: str, marks: str) -> list[tuple[str, bool]]:
    """The parts of a dotted name, each with whether it was quoted by one of `marks`. Error: INVALID."""
    quoted = "|".join(f"{mark}(?:[^{mark}]|{mark}{mark})+{mark}" for mark in marks)
    part = rf"{quoted}|[^.{marks}\0]+"
    plain = text.strip()
    if re.fullmatch(rf"(?:{part})(?:\.(?:{part})){{0,1}}", plain) is None:
        hint = "a name, or schema and name with a dot between; quote a name that has a dot in it"
        raise Error(Code.INVALID, f"{text!r} is no name of a table", at="table", hint=hint)
    return [
        (found[1:-1].replace(found[0] * 2, found[0]), True) if found[0] in marks else (found.strip(), False)
        for found in re.findall(part, plain)
    ]


def bare_query(origin: Origin) -> str:
    """The query without the semicolon at its end."""
    return origin.get("query").strip().rstrip(";").rstrip()


def select(items: Sequence[Item], relation: str, condition: str = "") -> str:
    """The SELECT that gives all columns, as c0, c1, ..."""
    columns = ", ".join(f"{item.source} AS c{i}" for i, item in enumerate(items))
    return f"SELECT {columns} FROM {relation} AS q" + (f" WHERE {condition}" if condition else "")
