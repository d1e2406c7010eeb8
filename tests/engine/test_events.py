"""Events are stored exactly once, whole, from segments and from files."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import duckdb
import pytest

from roster.base.errors import Code, Error
from roster.engine.connection import Duck, DuckLimits
from roster.engine.events import DuckEvents
from roster.model.schema import Entity
from roster.ports import Applied, Progress

MAPPING = {"usr.id": "user_id", "session_id": "session_id", "date": "timestamp", "view.name": "event", "type": "=view"}
SHOP = """user_id,session_id,event,timestamp,platform,note
0042,s1,home,2024-03-13 10:21:14,desktop,"one, two"
0042,s1,cart,2024-03-13 10:21:28,desktop,
u2,s2,home,1710325274,mobile,"a
b"
,s3,home,2024-03-13T12:21:14.5+02:00,mobile,x
"""


class Engine:
    """Events on a database of their own, with a way to look inside."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.duck = Duck(folder / "roster.duckdb", DuckLimits(memory="500MB", threads=2, spill="1GB"))
        self.events = DuckEvents(self.duck, lambda *_: None)

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        connection = self.duck.cursor()
        rows = connection.execute(sql).fetchall()
        connection.close()
        return rows

    def segment(self, *events: dict[str, Any] | bytes) -> Path:
        path = self.folder / "segment.ndjson"
        lines = [event if isinstance(event, bytes) else json.dumps(event).encode() for event in events]
        path.write_bytes(b"".join(line + b"\n" for line in lines))
        return path

    def file(self, name: str, content: str | bytes) -> Path:
        path = self.folder / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    def load(self, path: Path, columns: dict[str, str] | None = None, format: str | None = None) -> Applied:
        return self.events.load_file(path, format or path.suffix[1:], columns or {}, lambda _: None)

    def refused(self, path: Path, columns: dict[str, str] | None = None, format: str | None = None) -> Error:
        with pytest.raises(Error) as caught:
            self.load(path, columns, format)
        assert self.rows("SELECT * FROM events") == []
        return caught.value


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    engine = Engine(tmp_path)
    yield engine
    engine.duck.close()


def event(key: str, **more: Any) -> dict[str, Any]:
    return {"k": key, "time": 1_700_000_000_123, "type": "server", "user_id": "u"} | more


def test_a_segment_applied_twice_is_applied_once(engine: Engine) -> None:
    assert engine.events.applied_segment() == 0
    path = engine.segment(event("a", fresh=True), event("b"))
    assert engine.events.apply_segment(4, path) == Applied(2, 0)
    assert engine.events.apply_segment(4, path) == Applied(0, 0)
    assert engine.events.apply_segment(3, path) == Applied(0, 0)
    assert engine.rows("SELECT events_count FROM users") == [(2,)]
    assert engine.events.applied_segment() == 4
    engine.duck.close()
    again = Engine(engine.folder)
    assert again.events.applied_segment() == 4
    assert again.events.apply_segment(4, path) == Applied(0, 0)
    again.duck.close()


def test_an_identity_is_stored_once_and_the_first_event_wins(engine: Engine) -> None:
    first = engine.segment(event("a", city="Rome"), event("b"), event("a", city="Oslo"))
    assert engine.events.apply_segment(1, first) == Applied(2, 1)
    second = engine.segment(event("b", city="Bonn"), event("c"), event("c", city="Kiel"))
    assert engine.events.apply_segment(2, second) == Applied(1, 2)
    assert engine.rows("SELECT event_id, city FROM events ORDER BY 1") == [("a", "Rome"), ("b", None), ("c", None)]


def test_sessions_and_telemetry_of_files_are_left_out_and_told(engine: Engine) -> None:
    session = {"type": "session", "date": 1, "session": {"id": "s"}, "usr": {"id": "phantom"}}
    sent = [session, session | {"type": "telemetry"}, session | {"type": "telemetry"}, session | {"type": "action"}]
    lines = "\n".join(json.dumps(one | {"usr": {"id": one["type"]}}) for one in sent)
    rows = "kind,who,at\n" + "".join(f"{one['type']},{one['type']},1\n" for one in sent)
    columns = {"type": "kind", "usr.id": "who", "date": "at"}
    objects = "\n".join(json.dumps({"kind": one["type"], "who": one["type"], "at": 1}) for one in sent)
    for name, text, mapping in (("a.ndjson", lines, {}), ("b.csv", rows, columns), ("c.ndjson", objects, columns)):
        assert engine.load(engine.file(name, text), mapping) == Applied(1, 0, {"session": 1, "telemetry": 2})
        engine.events.settle(2_000_000_000_000)
    assert engine.rows("SELECT user_id, events_count FROM users") == [("action", 3)]
    profiles = engine.rows("FROM users")
    engine.events.rebuild_profiles()
    assert engine.rows("FROM users") == profiles
    alone = engine.file("d.csv", "who,at\nphantom,1\n")
    assert engine.load(alone, {"type": "=session", "usr.id": "who", "date": "at"}) == Applied(0, 0, {"session": 1})


def test_only_views_are_replaced(engine: Engine) -> None:
    """An event that took the identity of a view by its own `event.id` stays what it is."""
    engine.events.apply_segment(1, engine.segment(event("view:v")))
    view = event("view:v", v=5, type="view")
    assert engine.events.apply_segment(2, engine.segment(view)) == Applied(0, 1)
    assert engine.rows("SELECT type FROM events") == [("server",)]


def test_every_value_survives_the_way(engine: Engine) -> None:
    rest = {
        "text": 'q"\\\u0000\u00e9\U0001f600',
        "": {"A": 1, "a": 2, "a.b": [1, 2.5, None, {"x": []}]},
        "big": 2**64 - 1,
        "low": -(2**63),
        "flag": True,
    }
    line = event("k\u0000y", user_name="n\u0000m", rest=rest)
    engine.events.apply_segment(1, engine.segment(line, event("b", fresh=True)))
    engine.duck.checkpoint()
    rows = engine.rows("SELECT event_id, time, user_name, rest::JSON::VARCHAR FROM events ORDER BY event_id DESC")
    assert rows[0][:3] == ("k\u0000y", datetime(2023, 11, 14, 22, 13, 20, 123000), "n\u0000m")
    assert json.loads(rows[0][3]) == rest
    assert rows[1][3] is None


@pytest.mark.parametrize("bad", [b'{"k":"x","time":"soon"}', b'{"k":', b"[]", b'{"k":"\xff"}'])
def test_a_broken_line_undoes_the_whole_segment(engine: Engine, bad: bytes) -> None:
    with pytest.raises(Error) as caught:
        engine.events.apply_segment(1, engine.segment(event("a"), bad, event("b")))
    assert caught.value.code is Code.INVALID
    assert engine.rows("SELECT * FROM events") == []
    assert engine.events.applied_segment() == 0


def test_a_failure_outside_the_data_is_not_blamed_on_it(tmp_path: Path) -> None:
    """Only bad data is named as such; a fault of ours keeps the segment, a full disk is a passing state."""

    def fail(connection: duckdb.DuckDBPyConnection, entity: Entity, table: str) -> None:
        connection.execute("SELECT * FROM nowhere")

    def fill(connection: duckdb.DuckDBPyConnection, entity: Entity, table: str) -> None:
        raise duckdb.IOException("no space left on device")

    engine = Engine(tmp_path)
    with pytest.raises(Error) as caught:
        DuckEvents(engine.duck, fill).apply_segment(1, engine.segment(event("a")))
    assert caught.value.code is Code.BUSY
    events = DuckEvents(engine.duck, fail)
    with pytest.raises(duckdb.CatalogException):
        events.apply_segment(1, engine.segment(event("a")))
    assert engine.rows("SELECT * FROM events") == []
    assert events.applied_segment() == 0
    engine.duck.close()


def test_a_csv_file_becomes_events(engine: Engine) -> None:
    assert engine.load(engine.file("shop.csv", SHOP), MAPPING) == Applied(4, 0)
    rows = engine.rows(
        "SELECT user_id, session_id, view_name, type, epoch_ms(time), rest::JSON::VARCHAR FROM events ORDER BY event_id"
    )
    assert [(*row[:5], json.loads(row[5])["context"]) for row in rows] == [
        ("0042", "s1", "home", "view", 1710325274000, {"platform": "desktop", "note": "one, two"}),
        ("0042", "s1", "cart", "view", 1710325288000, {"platform": "desktop"}),
        ("u2", "s2", "home", "view", 1710325274000, {"platform": "mobile", "note": "a\nb"}),
        (None, "s3", "home", "view", 1710325274500, {"platform": "mobile", "note": "x"}),
    ]
    assert engine.rows("SELECT user_id, events_count, session_count FROM users ORDER BY 1") == [
        ("0042", 2, 1),
        ("u2", 1, 1),
    ]


def test_a_file_loaded_twice_is_stored_once(engine: Engine) -> None:
    plain = engine.file("shop.csv", SHOP)
    assert engine.load(plain, MAPPING) == Applied(4, 0)
    assert engine.load(engine.file("other [1]*.csv", SHOP), MAPPING) == Applied(0, 4)
    assert engine.load(engine.file("more.csv", SHOP + "u9,s9,home,2024-03-14,x,y\n"), MAPPING).stored == 5
    assert engine.rows("SELECT sum(events_count) FROM users") == [(7,)]


def test_many_rows_keep_their_numbers(engine: Engine) -> None:
    """However many threads read: the same row has the same identity in every load."""
    rows = "".join(f"u{n % 1000},s{n // 6},home,2024-03-13 10:21:14,desktop,{n}\n" for n in range(300_000))
    path = engine.file("big.csv", SHOP.splitlines()[0] + "\n" + rows)
    seen: list[Progress] = []
    assert engine.events.load_file(path, "csv", MAPPING, seen.append) == Applied(300_000, 0)
    assert engine.load(path, MAPPING) == Applied(0, 300_000)
    wrong = "SELECT count(*) FROM events WHERE split_part(event_id, ':', 2)::INT <> rest.context.note::INT + 1"
    assert engine.rows(wrong) == [(0,)]
    assert [(p.stage, p.done, p.total) for p in seen] == [
        ("read", 0, None),
        ("store", 0, 300_000),
        ("store", 250_000, 300_000),
        ("store", 300_000, 300_000),
        ("profiles", 0, 300_000),
        ("profiles", 300_000, 300_000),
    ]


def test_compressed_files_are_known_by_their_content(engine: Engine) -> None:
    assert engine.load(engine.file("upload-1", gzip.compress(SHOP.encode())), MAPPING, "csv") == Applied(4, 0)
    lines = b'{"type":"action","date":1700000000000,"action":{"id":"a"}}\n'
    assert engine.load(engine.file("upload-2", gzip.compress(lines)), {}, "ndjson") == Applied(1, 0)
    with pytest.raises(Error, match="broken gzip"):
        engine.load(engine.file("upload-3", gzip.compress(lines)[:-9]), {}, "ndjson")


def test_mapped_paths_constants_and_values_that_do_not_fit(engine: Engine) -> None:
    path = engine.file("e.csv", "id,at,ms,tier,o'k\"\ne1,1700000000123,12,gold,1\n,1700000000,1.5,,2\n")
    mapping = {
        "@event.id": "id",
        "timestamp": "at",
        "view.loading_time": "ms",
        "@customer.tier": "tier",
        "type": "=view",
        "country_code": "=FR",
        "plan.name": "=it's $1",
    }
    assert engine.load(path, mapping) == Applied(2, 0)
    rows = engine.rows("SELECT event_id, epoch_ms(time), loading_time, country_code, rest::JSON::VARCHAR FROM events")
    first, second = sorted(rows, key=lambda row: row[1])[::-1]
    plan = {"name": "it's $1"}
    assert first[:4] == ("e1", 1700000000123, 12, "FR")
    assert json.loads(first[4]) == {"customer": {"tier": "gold"}, "plan": plan, "context": {"o'k\"": "1"}, "view": {}}
    assert second[1:4] == (1700000000000, None, "FR")
    assert second[0].endswith(":2")
    assert json.loads(second[4]) == {
        "customer": {}, "plan": plan, "context": {"o'k\"": "2"}, "view": {"loading_time": "1.5"}
    }  # fmt: skip


FORMATS = ["csv", "ndjson", "parquet"]


def shop(engine: Engine, format: str) -> Path:
    """The same rows in each format, all values texts."""
    csv = engine.file("shop.csv", SHOP)
    path = engine.folder / f"shop.{format}"
    if format != "csv":
        kind = {"ndjson": "json", "parquet": "parquet"}[format]
        engine.rows(f"COPY (FROM read_csv('{csv}', all_varchar = true)) TO '{path}' (FORMAT {kind})")
    return path


@pytest.mark.parametrize(
    ("change", "at"),
    [
        ({"usr.id": "userid"}, "userid"),
        ({"user_id": "platform"}, "user_id"),
        ({"a..b": "platform"}, "a..b"),
        ({"customer": "platform", "customer.tier": "note"}, "customer.tier"),
        ({"view": "platform"}, "view"),
    ],
)
@pytest.mark.parametrize("format", FORMATS)
def test_a_wrong_mapping_is_refused_by_name(engine: Engine, format: str, change: dict[str, str], at: str) -> None:
    error = engine.refused(shop(engine, format), MAPPING | change)
    assert (error.code, error.at) == (Code.INVALID, at)


@pytest.mark.parametrize(
    ("change", "row", "in_table", "in_json"),
    [
        ({"date": "event"}, 1, "'event'", "/date"),
        ({"date": "=yesterday"}, 1, "'yesterday'", "/date"),
        ({"type": "note"}, 2, "'note'", "/type"),
    ],
)
@pytest.mark.parametrize("format", FORMATS)
def test_a_row_that_is_no_event_is_named(
    engine: Engine, format: str, change: dict[str, str], row: int, in_table: str, in_json: str
) -> None:
    message = engine.refused(shop(engine, format), MAPPING | change).message
    assert f"{row} of shop.{format}" in message
    assert (in_json if format == "ndjson" else in_table) in message


@pytest.mark.parametrize("format", FORMATS)
def test_a_mapped_path_does_not_hide_an_unmapped_column(engine: Engine, format: str) -> None:
    error = engine.refused(shop(engine, format), MAPPING | {"context.note": "platform"})
    assert error.code is Code.INVALID
    assert "the path context.note is taken by another column" in error.message


@pytest.mark.parametrize("missing", ["type", "date"])
def test_a_mapping_must_say_when_and_what(engine: Engine, missing: str) -> None:
    mapping = {path: column for path, column in MAPPING.items() if path != missing}
    error = engine.refused(engine.file("shop.csv", SHOP), mapping)
    assert (error.code, error.at) == (Code.INVALID, missing)


def test_the_row_without_a_time_is_named(engine: Engine) -> None:
    error = engine.refused(engine.file("shop.csv", SHOP + "u3,s4,home,later,x,y\n"), MAPPING)
    assert error.message == "row 5 of shop.csv has no time in 'timestamp'"


def test_wrong_files_are_refused(engine: Engine) -> None:
    assert engine.refused(engine.folder / "none.csv", MAPPING).code is Code.NOT_FOUND
    assert engine.refused(engine.file("a.xls", SHOP), MAPPING).hint == "allowed: csv, ndjson, parquet"
    assert engine.refused(engine.file("a.parquet", SHOP), MAPPING).code is Code.INVALID
    assert (
        engine.refused(engine.file("b.csv", SHOP.encode() + b"\xff\xfe,s,h,2024-01-01,x,y\n"), MAPPING).code
        is Code.INVALID
    )
    assert "event 2 of c.ndjson" in engine.refused(engine.file("c.ndjson", '{"type":"x","date":1}\n\n{"type"')).message
    assert "/date" in engine.refused(engine.file("d.ndjson", '{"type":"x"}\n')).message


def test_sdk_events_are_loaded_as_they_are(engine: Engine) -> None:
    wires = [
        {"type": "view", "date": 1700000000000, "view": {"id": "v", "name": n}, "_dd": {"document_version": version}}
        | {"usr": {"id": "u"}, "session": {"id": "s"}}
        for n, version in (("old", 1), ("new", 3), ("mid", 2))
    ]
    wires.append({"type": "error", "date": 1700000000000, "error": {"id": "e"}, "usr": {"id": "u"}})
    path = engine.file("rum.ndjson", "\n".join(json.dumps(w) for w in wires))
    assert engine.load(path) == Applied(2, 2)
    assert engine.load(path) == Applied(0, 4)
    assert engine.rows("SELECT event_id, view_name FROM events ORDER BY 1") == [("error:e", None), ("view:v", "new")]
    assert engine.rows("SELECT view_count, error_count, session_count FROM users") == [(1, 1, 1)]


def test_a_parquet_file_keeps_its_types(engine: Engine) -> None:
    path = engine.folder / "e.parquet"
    engine.rows(
        "COPY (SELECT 7 AS uid, TIMESTAMPTZ '2024-03-13 12:21:14+02' AS at, 1.5 AS amount, [1, 2] AS list, "
        f"{{'a': 1, 'b': NULL}} AS thing, TIMESTAMP '2024-01-01 00:00:00.5' AS due) TO '{path}' (FORMAT parquet)"
    )
    mapping = {"usr.id": "uid", "date": "at", "type": "=server"}
    assert engine.load(path, mapping) == Applied(1, 0)
    assert engine.load(path, mapping) == Applied(0, 1)
    ((user, at, rest),) = engine.rows("SELECT user_id, time, rest::JSON::VARCHAR FROM events")
    assert (user, at) == ("7", datetime(2024, 3, 13, 10, 21, 14))
    context = {"amount": 1.5, "list": [1, 2], "thing": {"a": 1}, "due": "2024-01-01T00:00:00.500Z"}
    assert json.loads(rest) == {"context": context}


def test_a_mapped_file_means_the_same_in_every_format(engine: Engine) -> None:
    found = []
    for format in FORMATS:
        with engine.duck.write() as connection:
            connection.execute("DELETE FROM events")
        assert engine.load(shop(engine, format), MAPPING) == Applied(4, 0)
        rows = engine.rows(
            "SELECT * EXCLUDE (event_id, digest, rest), rest::JSON::VARCHAR FROM events ORDER BY time, user_id"
        )
        found.append(rows)
    assert found[0] == found[1] == found[2]
    assert len(found[0]) == 4
