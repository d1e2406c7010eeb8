"""Table files of all kinds and dialects, read by a real engine."""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Iterator
from io import StringIO
from itertools import pairwise
from pathlib import Path

import duckdb
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from roster.base.errors import Code, Error
from roster.engine.cells import bare, inward
from roster.engine.table_files import infer_schema, open_file
from roster.model.reference_table import BLANKS, TEXT_FORMS, fits_text
from roster.model.schema import Schema, Type


@pytest.fixture
def connection() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect(":memory:", config={"preserve_insertion_order": False, "threads": 2}) as opened:
        yield opened


Read = tuple[tuple[str, ...], list[tuple[str | None, ...]], list[str]]


def read(
    connection: duckdb.DuckDBPyConnection, folder: Path, parts: list[bytes], format: str, headers: tuple[str, ...] = ()
) -> Read:
    """Names, cells and places of all records of a file in parts."""
    paths = [folder / f"[part]*{n}.{format}" for n in range(len(parts))]
    for path, part in zip(paths, parts, strict=True):
        path.write_bytes(part)
    work = folder / "work"
    work.mkdir()
    with open_file(connection, paths, format, headers, work) as file:
        cells = ", ".join(["n", *(f"c{i}" for i in range(len(file.names)))])
        rows = connection.execute(f"SELECT {cells} FROM ({file.sql}) ORDER BY n", list(file.parameters)).fetchall()
        return file.names, [row[1:] for row in rows], [file.place(row[0]) for row in rows]


def infer(connection: duckdb.DuckDBPyConnection, folder: Path, content: bytes, format: str) -> Schema:
    path = folder / f"file.{format}"
    path.write_bytes(content)
    work = folder / "work"
    work.mkdir(exist_ok=True)
    for old in work.iterdir():
        old.unlink()
    with open_file(connection, [path], format, (), work) as file:
        return infer_schema(connection, file)


def refused(connection: duckdb.DuckDBPyConnection, folder: Path, content: bytes, format: str) -> Error:
    with pytest.raises(Error) as caught:
        read(connection, folder, [content], format)
    assert caught.value.code is Code.INVALID
    return caught.value


@pytest.mark.parametrize(
    "content",
    [
        b'id,note\n1,"a, ""b""\nc"\n2,x\n',
        b'\xef\xbb\xbfid,note\r\n1,"a, ""b""\nc"\r\n2,x',
        b'\n"id";note\n1;"a, ""b""\nc"\n\n2;x\n',
        b'id\tnote\n1\t"a, ""b""\nc"\r\n2\tx\r\n',
        b'id|note\r1|"a, ""b""\nc"\r2|x\r',
    ],
)
def test_csv_dialects_hold_the_same_rows(connection: duckdb.DuckDBPyConnection, tmp_path: Path, content: bytes) -> None:
    names, rows, _ = read(connection, tmp_path, [content], "csv")
    assert names == ("id", "note")
    assert rows == [("1", 'a, "b"\nc'), ("2", "x")]


def test_a_line_number_is_where_the_row_starts(connection: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    _, _, places = read(connection, tmp_path, [b'id,note\n\n1,"a\nb"\n2,x\n'], "csv")
    assert places == ["line 3", "line 5"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "empty"),
        (b"id,note\n1,x\n2\n", "line 3 has 1 cells, not 2"),
        (b'id,note\n1,"x\ny"\n2,x,y\n', "line 4 has 3 cells, not 2"),
        (b'id,note\n1,x\n2,"y\n3,z\n', "line 3 is no CSV"),
        (b'id,note\n1,"x"y\n', "line 2 is no CSV"),
        (b"id,note\n1,x\n2,\xe9\n", "line 3 is not UTF-8"),
        ("id,note\n".encode("utf-16"), "line 1 is not UTF-8"),
        (",".join(f"c{n}" for n in range(2001)).encode(), "2001 columns"),
    ],
)
def test_a_broken_csv_file_is_refused_naming_the_line(
    connection: duckdb.DuckDBPyConnection, tmp_path: Path, content: bytes, said: str
) -> None:
    assert said in refused(connection, tmp_path, content, "csv").message


def test_a_cell_far_past_any_use_is_refused_and_a_long_one_is_kept(
    connection: duckdb.DuckDBPyConnection, tmp_path: Path
) -> None:
    _, rows, _ = read(connection, tmp_path, [b"id,note\n1," + b"x" * 131_000 + b"\n2,y\n"], "csv")
    assert [len(row[1] or "") for row in rows] == [131_000, 1]


def test_headers_given_beside_the_file_are_recognised_in_its_first_line(
    connection: duckdb.DuckDBPyConnection, tmp_path: Path
) -> None:
    first, second = tmp_path / "1", tmp_path / "2"
    first.mkdir()
    second.mkdir()
    with_line = read(connection, first, [b"ID,Tier\n1,x\n"], "csv", ("id", "tier"))
    without = read(connection, second, [b"1,x\n2,y\n"], "csv", ("id", "tier"))
    assert with_line == (("ID", "Tier"), [("1", "x")], ["line 2"])
    assert without == (("id", "tier"), [("1", "x"), ("2", "y")], ["line 1", "line 2"])


def test_gzip_files_are_unpacked_and_broken_ones_refused(connection: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    packed = gzip.compress(b"id,note\n" + b"".join(b"%d,x\n" % n for n in range(1000)))
    (tmp_path / "a.csv.gz").write_bytes(packed)
    (tmp_path / "b.csv.gz").write_bytes(packed[:-20])
    with open_file(connection, [tmp_path / "a.csv.gz"], "csv", (), tmp_path) as file:
        assert file.count == 1000
    (tmp_path / "whole.csv").unlink()
    broken = [tmp_path / "b.csv.gz"]
    with pytest.raises(Error, match="no whole gzip"), open_file(connection, broken, "csv", (), tmp_path):
        pass


CELLS = st.text(st.characters(codec="utf-8"), max_size=6)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(st.tuples(st.sampled_from("abc"), CELLS, CELLS), max_size=8),
    delimiter=st.sampled_from(",;\t|"),
    ending=st.sampled_from(["\n", "\r\n", "\r"]),
    quote_all=st.booleans(),
    mark=st.booleans(),
    cuts=st.lists(st.integers(0, 60), max_size=3),
)
def test_any_text_survives_any_dialect_and_any_cut_into_parts(
    tmp_path_factory: pytest.TempPathFactory,
    connection: duckdb.DuckDBPyConnection,
    rows: list[tuple[str, str, str]],
    delimiter: str,
    ending: str,
    quote_all: bool,
    mark: bool,
    cuts: list[int],
) -> None:
    text = StringIO(newline="")
    # Python 3.11 quotes a line break only when it occurs in its own line end.
    quote_all = quote_all or ending != "\r\n"
    dialect: type[csv.Dialect] = csv.unix_dialect if quote_all else csv.excel
    csv.writer(text, dialect, delimiter=delimiter, lineterminator=ending).writerows([("k", "a", "b"), *rows])
    content = (b"\xef\xbb\xbf" if mark else b"") + text.getvalue().encode()
    edges = [0, *sorted(min(cut, len(content)) for cut in cuts), len(content)]
    parts = [content[start:end] for start, end in pairwise(edges)]
    names, found, _ = read(connection, tmp_path_factory.mktemp("csv"), parts, "csv")
    assert names == ("k", "a", "b")
    assert found == [tuple(cell or None for cell in row) for row in rows]


BLOCKS = st.lists(
    st.sampled_from(
        [
            "a,b",
            "1,2",
            ",",
            '"x",y',
            '"x,y",z',
            '"x\ny",z',
            '"x""y",z',
            '"",""',
            "é,🦆",
            " a , b ",
            "\x00,1",
            "",
            'a"b,c',
        ]
    ),
    min_size=1,
    max_size=12,
)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    lines=BLOCKS,
    endings=st.lists(st.sampled_from(["\n", "\r\n", "\r"]), min_size=12, max_size=12),
    size=st.integers(1, 9),
)
def test_blocks_of_any_lines_are_read_as_the_whole_file_is(
    tmp_path_factory: pytest.TempPathFactory,
    connection: duckdb.DuckDBPyConnection,
    monkeypatch: pytest.MonkeyPatch,
    lines: list[str],
    endings: list[str],
    size: int,
) -> None:
    monkeypatch.setattr("roster.engine.csv_files.BLOCK_BYTES", size)
    content = "k,v\n" + "".join(line + ending for line, ending in zip(lines, endings, strict=False))
    reader = csv.reader(StringIO(content, newline=""), strict=True)
    expected = []
    while True:
        line = reader.line_num + 1
        row = next(reader, None)
        if row is None:
            break
        if row:
            expected.append((tuple(cell or None for cell in row), f"line {line}"))
    _, rows, places = read(connection, tmp_path_factory.mktemp("csv"), [content.encode()], "csv")
    assert list(zip(rows, places, strict=True)) == expected[1:]


@pytest.mark.parametrize(
    ("cells", "type"),
    [
        (["1", "", "-20", "0"], Type.INTEGER),
        (["1", "3000000000", str(2**63 - 1)], Type.INTEGER),
        (["1", str(2**63)], Type.STRING),
        (["00123", "5"], Type.STRING),
        (["+1", "5"], Type.STRING),
        (["-0", "5"], Type.NUMBER),
        (["1", "2.50", "1e3"], Type.NUMBER),
        (["0.5", str(2**53 + 1)], Type.STRING),
        (["1e999", "1"], Type.STRING),
        (["nan", "1"], Type.STRING),
        (["1_000"], Type.STRING),
        (["true", "FALSE", ""], Type.BOOLEAN),
        (["true", "1"], Type.STRING),
        (["t", "f"], Type.STRING),
        (["2025-08-14", "2024-02-29"], Type.DATE),
        (["2025-08-14", "2023-02-29"], Type.STRING),
        (["2025-08-14", "2025-08-14T06:45:12.142Z"], Type.TIMESTAMP),
        (["2025-08-14 06:45", "2025-08-14T06:45:12+02:00"], Type.TIMESTAMP),
        (["2025-08-14T06:45:12+02:00", "12"], Type.STRING),
        (["2025"], Type.INTEGER),
        (["gold", "1"], Type.STRING),
        (["", "  "], Type.STRING),
        ([], Type.STRING),
    ],
)
def test_a_csv_column_has_the_narrowest_type_of_all_its_cells(
    connection: duckdb.DuckDBPyConnection, tmp_path: Path, cells: list[str], type: Type
) -> None:
    content = "key,value\n" + "".join(f"k,{cell}\n" for cell in cells)
    key, value = infer(connection, tmp_path, content.encode(), "csv")
    assert (key.name, key.type) == ("key", Type.STRING)
    assert (value.name, value.type) == ("value", type)


def test_a_type_is_told_from_the_last_line_as_well(connection: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    content = "a\n" + "1\n" * 50_000
    assert infer(connection, tmp_path, content.encode(), "csv")[0].type is Type.INTEGER
    assert infer(connection, tmp_path, (content + "x\n").encode(), "csv")[0].type is Type.STRING


def test_ndjson_keeps_what_is_marked_as_text(connection: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    lines = [
        {"code": "12", "n": 1, "x": 1, "flag": True, "on": "2025-08-14", "yes": "true"},
        {"code": None, "n": 2, "x": 1.5, "at": "2025-08-14T06:45:12Z", "deep": {"a": [1]}, 'q"/~': "z\x00"},
    ]
    content = "\n\n".join(json.dumps(line) for line in lines).encode()
    schema = infer(connection, tmp_path, content, "ndjson")
    assert {c.name: c.type for c in schema} == {
        "code": Type.STRING,
        "n": Type.INTEGER,
        "x": Type.NUMBER,
        "flag": Type.BOOLEAN,
        "on": Type.DATE,
        "yes": Type.STRING,
        "at": Type.TIMESTAMP,
        "deep": Type.STRING,
        'q"/~': Type.STRING,
    }
    other = tmp_path / "other"
    other.mkdir()
    names, rows, places = read(connection, other, [b"\xef\xbb\xbf" + content[:9], content[9:]], "ndjson")
    assert names == tuple(c.name for c in schema)
    assert dict(zip(names, rows[1], strict=True))['q"/~'] == "z\x00"
    assert dict(zip(names, rows[1], strict=True))["deep"] == '{"a":[1]}'
    assert places == ["line 1", "line 3"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b'{"a":1}\n{"a":}\n', "line 2 is no JSON"),
        (b'{"a":1}\n\n[1]\n', "line 3 is no JSON object"),
        (b'{"a":"\xe9"}\n', "line 1 is no JSON"),
        (b'{"a":1}\n{"a":"\\ud83d"}\n', "line 2 is no JSON"),
        (b"", "0 columns"),
    ],
)
def test_a_broken_ndjson_file_is_refused_naming_the_line(
    connection: duckdb.DuckDBPyConnection, tmp_path: Path, content: bytes, said: str
) -> None:
    assert said in refused(connection, tmp_path, content, "ndjson").message


def test_parquet_has_its_own_types(connection: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    path = tmp_path / "made.parquet"
    connection.execute(
        f"""COPY (SELECT 1::INTEGER AS "a b", 1.5::DECIMAL(10, 2) AS price, 7::DECIMAL(38, 0) AS snowflake,
            {2**64 - 1}::UBIGINT AS big, 'nan'::DOUBLE AS x, true AS flag, DATE '2025-08-14' AS day,
            TIMESTAMPTZ '2025-08-14 06:00:00+02' AS moment, [1, 2] AS list, '007' AS code) TO '{path}'"""
    )
    content = path.read_bytes()
    schema = infer(connection, tmp_path, content, "parquet")
    assert [(c.name, c.type.value) for c in schema] == [
        ("a b", "integer"),
        ("price", "number"),
        ("snowflake", "integer"),
        ("big", "string"),
        ("x", "number"),
        ("flag", "boolean"),
        ("day", "date"),
        ("moment", "timestamp"),
        ("list", "string"),
        ("code", "string"),
    ]
    other = tmp_path / "other"
    other.mkdir()
    _, rows, places = read(connection, other, [content[:100], content[100:]], "parquet")
    cells = ("1", "1.50", "7", str(2**64 - 1), None, "true", "2025-08-14", "2025-08-14 04:00:00", "[1,2]", "007")
    assert (rows, places) == ([cells], ["row 1"])


def test_what_is_no_parquet_no_format_or_no_file_is_refused(
    connection: duckdb.DuckDBPyConnection, tmp_path: Path
) -> None:
    assert "Parquet" in refused(connection, tmp_path, b"id,note\n" * 10, "parquet").message
    with pytest.raises(Error, match="unknown file format 'xls'"), open_file(connection, [], "xls", (), tmp_path):
        pass
    with pytest.raises(Error, match="no file"), open_file(connection, [tmp_path / "none"], "csv", (), tmp_path):
        pass


FORMS = st.one_of(
    st.from_regex(r"[+-]?[0-9]{1,20}", fullmatch=True),
    st.from_regex(r"[+-]?[0-9]{0,3}\.?[0-9]{0,3}([eE][+-]?[0-9]{1,3})?", fullmatch=True),
    st.from_regex(r"[0-9]{4}-[01][0-9]-[0-3][0-9]", fullmatch=True),
    st.from_regex(
        r"(0000|0001|1969|2024|9999)-(01|02|12|13)-(01|29|31)[T ][0-2][0-9]:[0-6]0"
        r"(:[0-6]0(\.[0-9]{1,10})?)?(Z|[+-](00|02|14|23|24):?(00|30|60))?",
        fullmatch=True,
    ),
    st.sampled_from(["true", "False", "TRUE", "t", "inf", "nan", "1_0", "\u0661", "", "2024-01-01T00:00:00+02"]),
    st.text(max_size=5),
)


PADS = st.sampled_from(["", " ", "\t\r\n"])


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=FORMS, before=PADS, after=PADS, type=st.sampled_from(sorted(TEXT_FORMS)))
def test_the_engine_reads_exactly_the_texts_the_model_accepts(
    connection: duckdb.DuckDBPyConnection, text: str, before: str, after: str, type: Type
) -> None:
    cell = before + text + after
    found = connection.execute(f"SELECT {inward(type, bare('$1'))} IS NOT NULL, {bare('$1')}", [cell]).fetchone()
    assert found == (fits_text(type, cell), cell.strip(BLANKS) or None)


@pytest.mark.parametrize("name", ["file_index", "FILE_INDEX", "file_row_number"])
def test_columns_may_have_the_names_of_the_engine_for_places(
    connection: duckdb.DuckDBPyConnection, tmp_path: Path, name: str
) -> None:
    parts = []
    for part in range(2):
        path = tmp_path / f"made{part}.parquet"
        rows = f'SELECT {part} AS part, i::VARCHAR AS id, 1000 - i AS "{name}" FROM range(250000) AS r(i)'
        connection.execute(f"COPY ({rows} ORDER BY i) TO '{path}' (FORMAT parquet, ROW_GROUP_SIZE 20000)")
        parts.append(path.read_bytes())
    names, cells, _ = read(connection, tmp_path, parts, "parquet")
    assert names == ("part", "id", name)
    assert cells == [(str(part), str(i), str(1000 - i)) for part in range(2) for i in range(250_000)]


@pytest.mark.parametrize(
    ("content", "names", "cells"),
    [
        ("tier,email\ngold,ada@x\n", ("tier", "email"), [("gold", "ada@x")]),
        ("ada@x,a;b;c\n", ("email", "tier"), [("ada@x", "a;b;c")]),
        ("tier,ada@x\n", ("email", "tier"), [("tier", "ada@x")]),
    ],
)
def test_declared_headers_and_the_first_line(
    connection: duckdb.DuckDBPyConnection, tmp_path: Path, content: str, names: tuple[str, ...], cells: list[object]
) -> None:
    """A header is one in any order; a line is data unless a cell names the header of its own place."""
    assert read(connection, tmp_path, [content.encode()], "csv", ("email", "tier"))[:2] == (names, cells)


def test_a_first_line_with_some_of_the_declared_headers_is_refused(
    connection: duckdb.DuckDBPyConnection, tmp_path: Path
) -> None:
    with pytest.raises(Error, match="line 1 holds 'Mail' where the headers have 'email'"):
        read(connection, tmp_path, [b"Mail,Tier\nada@x,gold\n"], "csv", ("email", "tier"))
