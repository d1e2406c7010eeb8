"""Owns what is particular to an engine's SQL: type names, casts, functions, set-up. Reads no plans."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import sqlglot
from sqlglot import exp
from sqlglot.dialects.duckdb import DuckDB

from roster.model.schema import Type
from roster.query.expr import BIT_MAX, BLANKS

Step = str | Type
"""One step of a cast: the name of a function to call, or a type to CAST to."""


@dataclass(frozen=True, slots=True)
class Dialect:
    """How one engine spells what standard SQL leaves open.

    `grammar` is what sqlglot knows of it: the class, not its name, because a class asked for by name is loaded by
    the first thread that asks, and others meet it half made.
    `setup` holds statements to run once on each opened database, in order; they may be run again.
    `casts` gives the steps from one type to another; a missing pair is always null.
    """

    grammar: type[sqlglot.Dialect]
    setup: tuple[str, ...]
    types: Mapping[Type, str]
    wide_integer: str
    casts: Mapping[tuple[Type, Type], tuple[Step, ...]]
    trim: str
    greatest: str
    matches: str
    get: str
    is_array: str
    items: str
    items_at: str
    one_text: str
    many_texts: str
    each_text: str
    texts_among: str
    address: str
    quantile: str
    from_ms: str
    from_us: str
    to_us: str
    bucket: str
    bit: str

    def text(self, tree: exp.Query) -> str:
        """The text of a tree that is done with.

        Its nodes forget their parents, so that it is freed at once and not by a collection that stops all threads.
        """
        text = tree.sql(dialect=self.grammar, pretty=True, copy=False)  # a copy takes twice as long as the text
        for node in list(tree.walk()):
            node.parent = None
        return text


def table_name(relation: str) -> str:
    """The table that holds a relation: `table:<uuid>:<n>` is `table_<hex>_<n>`."""
    return relation.replace(":", "_").replace("-", "")


def identifiers(names: Iterable[str]) -> tuple[str, ...]:
    """Names made distinct for engines that ignore letter case: a later clash gets `~2`, `~3`, ..."""
    taken: set[str] = set()
    given = []
    for name in names:
        identifier, n = name, 1
        while identifier.lower() in taken:
            n += 1
            identifier = f"{name}~{n}"
        taken.add(identifier.lower())
        given.append(identifier)
    return tuple(given)


_OCTET = r"(25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)"
_IPV4 = rf"{_OCTET}(\.{_OCTET}){{3}}"
_GROUP = "[0-9a-f]{1,4}"
_IPV6_WHOLE = f"({_GROUP}:){{7}}{_GROUP}"
_IPV6_SHORT = f"({_GROUP}(:{_GROUP})*)?::({_GROUP}(:{_GROUP})*)?"
_NUMBER = r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?"
_YEAR = r"(000[1-9]|00[1-9]\d|0[1-9]\d\d|[1-9]\d{3})"
_HOUR = r"([01]\d|2[0-3])"
_INSTANT = rf"{_YEAR}-\d\d-\d\d([T ]{_HOUR}:[0-5]\d(:[0-5]\d(\.\d{{1,9}})?)?(Z|[+-]{_HOUR}:?[0-5]\d)?)?"

_MACROS = {
    # Few texts have blanks at their ends, and trimming costs ten times as much as looking.
    "roster_has_ends(x)": "ord(x) BETWEEN 33 AND 126 AND ord(x[-1]) BETWEEN 33 AND 126",
    "roster_trim(x)": rf"""CASE WHEN roster_has_ends(x) THEN x
        WHEN regexp_matches(x, '[\t-\r]') THEN trim(x, '{BLANKS}') ELSE trim(x) END""",
    # Numbers and times.
    "roster_finite(x)": "CASE WHEN isfinite(x) THEN x END",
    "roster_number_text(x)": """CASE WHEN x = trunc(x) AND abs(x) < 1e15 THEN CAST(CAST(x AS BIGINT) AS VARCHAR)
        ELSE CAST(x AS VARCHAR) END""",
    "roster_number_integer(x)": "CASE WHEN x = trunc(x) THEN TRY_CAST(x AS BIGINT) END",
    "roster_number_boolean(x)": "CASE WHEN x = 1 THEN TRUE WHEN x = 0 THEN FALSE END",
    "roster_integer_timestamp(x)": """CASE WHEN x BETWEEN -62135596800000 AND 253402300799999
        THEN make_timestamp_ms(CAST(x AS BIGINT)) END""",
    "roster_integer_timestamp_us(x)": """CASE WHEN x BETWEEN -62135596800000000 AND 253402300799999999
        THEN make_timestamp(x) END""",
    # What is divided is never negative, because // cuts towards 0.
    "roster_bucket(us, ahead, width, buckets_ahead)": "(us + ahead) // width - buckets_ahead",
    "roster_bit(place)": f"CASE WHEN place BETWEEN 0 AND {BIT_MAX} THEN CAST(1 AS BIGINT) << CAST(place AS BIGINT) END",
    "roster_timestamp_ms(x)": "epoch_ms(date_trunc('millisecond', x))",
    "roster_timestamp_text(x)": "strftime(x, '%Y-%m-%dT%H:%M:%S.%gZ')",
    # Text to the other types.
    "roster_trimmed_number(x)": f"""CASE WHEN regexp_full_match(x, '{_NUMBER}')
        THEN roster_finite(TRY_CAST(x AS DOUBLE)) END""",
    "roster_text_number(x)": "roster_trimmed_number(roster_trim(x))",
    "roster_trimmed_integer(x)": r"""CASE WHEN regexp_full_match(x, '[+-]?\d+') THEN TRY_CAST(x AS BIGINT)
        ELSE roster_number_integer(roster_trimmed_number(x)) END""",
    "roster_text_integer(x)": "roster_trimmed_integer(roster_trim(x))",
    # Not IN nor list_contains: of more than a few words DuckDB makes a join, which computes x past any CASE.
    "roster_lowered_boolean(x)": """CASE WHEN regexp_full_match(x, 'true|t|yes|y|1') THEN TRUE
        WHEN regexp_full_match(x, 'false|f|no|n|0') THEN FALSE END""",
    "roster_text_boolean(x)": "roster_lowered_boolean(lower(roster_trim(x)))",
    "roster_trimmed_timestamp(x)": rf"""CASE WHEN NOT regexp_full_match(x, '{_INSTANT}') THEN NULL
        WHEN regexp_matches(x, '[+-]\d\d:?\d\d$')
        THEN roster_integer_timestamp_us(epoch_us(TRY_CAST(x AS TIMESTAMPTZ)))
        ELSE TRY_CAST(x AS TIMESTAMP) END""",
    "roster_text_timestamp(x)": "roster_trimmed_timestamp(roster_trim(x))",
    # Semi-structured values. Casts of objects stay behind a CASE of their own: with keys that differ in letter
    # case only they are errors, not null, and DuckDB may compute both sides of an AND. variant_typeof would
    # spell all keys of an object, which costs.
    "roster_is_array(v)": "variant_type(v) = 'ARRAY'",
    "roster_is_nested(v)": "variant_type(v) = 'ARRAY' OR variant_type(v) = 'OBJECT'",
    "roster_is_number(v)": "NOT (roster_is_nested(v) OR starts_with(variant_type(v), 'BOOL'))",
    "roster_any_text(v)": """CASE WHEN variant_type(v) = 'VARCHAR' THEN TRY_CAST(v AS VARCHAR)
        WHEN variant_type(v) IN ('DOUBLE', 'FLOAT') THEN roster_number_text(TRY_CAST(v AS DOUBLE))
        WHEN roster_is_nested(v) THEN NULL ELSE TRY_CAST(v AS VARCHAR) END""",
    "roster_any_number(v)": """CASE WHEN variant_type(v) = 'VARCHAR' THEN roster_text_number(TRY_CAST(v AS VARCHAR))
        WHEN roster_is_number(v) THEN TRY_CAST(v AS DOUBLE) END""",
    "roster_any_integer(v)": """CASE WHEN variant_type(v) = 'VARCHAR' THEN roster_text_integer(TRY_CAST(v AS VARCHAR))
        WHEN variant_type(v) IN ('DOUBLE', 'FLOAT') THEN roster_number_integer(TRY_CAST(v AS DOUBLE))
        WHEN roster_is_number(v) THEN TRY_CAST(v AS BIGINT) END""",
    "roster_any_boolean(v)": """CASE WHEN starts_with(variant_type(v), 'BOOL') THEN TRY_CAST(v AS BOOLEAN)
        WHEN variant_type(v) = 'VARCHAR' THEN roster_text_boolean(TRY_CAST(v AS VARCHAR))
        WHEN roster_is_number(v) THEN roster_number_boolean(TRY_CAST(v AS DOUBLE)) END""",
    "roster_any_timestamp(v)": """CASE WHEN variant_type(v) = 'VARCHAR'
        THEN roster_text_timestamp(TRY_CAST(v AS VARCHAR)) ELSE roster_integer_timestamp(roster_any_integer(v)) END""",
    "roster_items(v)": "CASE WHEN roster_is_array(v) THEN TRY_CAST(v AS VARIANT[]) ELSE [v] END",
    "roster_items_at(items, key)": """flatten(list_transform(items,
        LAMBDA roster_item : roster_items(variant_extract(roster_item, key))))""",
    # Texts that may be several in one: a JSON array where it is more than one, or where one looks like it.
    "roster_listed(texts)": "CAST(to_json(texts) AS VARCHAR)",
    "roster_one_told(x)": "CASE WHEN starts_with(x, '[') THEN roster_listed([x]) ELSE x END",
    "roster_told(texts)": """CASE WHEN length(texts) > 1 THEN roster_listed(texts)
        ELSE roster_one_told(texts[1]) END""",
    "roster_one_text(v)": "roster_one_told(roster_any_text(v))",
    "roster_many_texts(items)": """roster_told(list_sort(list_distinct(list_transform(items,
        LAMBDA roster_item : roster_any_text(roster_item)))))""",
    "roster_each_text(x)": "CASE WHEN starts_with(x, '[') THEN CAST(CAST(x AS JSON) AS VARCHAR[]) ELSE [x] END",
    "roster_texts_among(texts, among, missing)": """list_filter(texts, LAMBDA roster_text :
        CASE WHEN roster_text IS NULL THEN missing ELSE list_contains(CAST(among AS VARCHAR[]), roster_text) END)""",
    # IP addresses as 32 hex digits, IPv4 as the IPv4-mapped part of IPv6; '' for any other text.
    "roster_ipv4_part(x, n, m)": """format('{:02x}{:02x}', CAST(split_part(x, '.', n) AS INTEGER),
        CAST(split_part(x, '.', m) AS INTEGER))""",
    "roster_ipv6_plain(x)": rf"""CASE WHEN NOT contains(x, '.') THEN x
        WHEN regexp_full_match(x, '[0-9a-f:]*:{_IPV4}') THEN regexp_extract(x, '^.*:')
        || roster_ipv4_part(regexp_extract(x, '[^:]*$'), 1, 2) || ':'
        || roster_ipv4_part(regexp_extract(x, '[^:]*$'), 3, 4) ELSE '' END""",
    "roster_ipv6_groups(x)": f"""CASE WHEN regexp_full_match(x, '{_IPV6_WHOLE}') THEN x
        WHEN regexp_full_match(x, '{_IPV6_SHORT}') AND len(regexp_extract_all(x, '[0-9a-f]+')) < 8
        THEN replace(x, '::', ':' || repeat('0:', 8 - len(regexp_extract_all(x, '[0-9a-f]+')))) ELSE '' END""",
    "roster_ipv6_digits(x)": """array_to_string(list_transform(regexp_extract_all(x, '[0-9a-f]+'),
        LAMBDA roster_group : lpad(roster_group, 4, '0')), '')""",
    "roster_address(x)": f"""CASE WHEN x IS NULL THEN NULL WHEN regexp_full_match(x, '{_IPV4}')
        THEN '00000000000000000000ffff' || roster_ipv4_part(x, 1, 2) || roster_ipv4_part(x, 3, 4)
        WHEN contains(x, ':') THEN roster_ipv6_digits(roster_ipv6_groups(roster_ipv6_plain(lower(x)))) ELSE '' END""",
}

_S, _I, _N, _B, _T, _D, _A = (
    Type.STRING,
    Type.INTEGER,
    Type.NUMBER,
    Type.BOOLEAN,
    Type.TIMESTAMP,
    Type.DATE,
    Type.ANY,
)

_CASTS: dict[tuple[Type, Type], tuple[Step, ...]] = {
    (_S, _I): ("roster_text_integer",),
    (_S, _N): ("roster_text_number",),
    (_S, _B): ("roster_text_boolean",),
    (_S, _T): ("roster_text_timestamp",),
    (_S, _D): ("roster_text_timestamp", _D),
    (_S, _A): (_A,),
    (_I, _S): (_S,),
    (_I, _N): (_N,),
    (_I, _B): ("roster_number_boolean",),
    (_I, _T): ("roster_integer_timestamp",),
    (_I, _D): ("roster_integer_timestamp", _D),
    (_I, _A): (_A,),
    (_N, _S): ("roster_number_text",),
    (_N, _I): ("roster_number_integer",),
    (_N, _B): ("roster_number_boolean",),
    (_N, _T): ("roster_number_integer", "roster_integer_timestamp"),
    (_N, _D): ("roster_number_integer", "roster_integer_timestamp", _D),
    (_N, _A): (_A,),
    (_B, _S): (_S,),
    (_B, _A): (_A,),
    (_T, _S): ("roster_timestamp_text",),
    (_T, _I): ("roster_timestamp_ms",),
    (_T, _N): ("roster_timestamp_ms", _N),
    (_T, _D): (_D,),
    (_T, _A): ("roster_timestamp_text", _A),
    (_D, _S): (_S,),
    (_D, _I): (_T, "epoch_ms"),
    (_D, _N): (_T, "epoch_ms", _N),
    (_D, _T): (_T,),
    (_D, _A): (_S, _A),
    (_A, _S): ("roster_any_text",),
    (_A, _I): ("roster_any_integer",),
    (_A, _N): ("roster_any_number",),
    (_A, _B): ("roster_any_boolean",),
    (_A, _T): ("roster_any_timestamp",),
    (_A, _D): ("roster_any_timestamp", _D),
}

DUCKDB = Dialect(
    grammar=DuckDB,
    setup=tuple(f"CREATE OR REPLACE MACRO {head} AS {body}" for head, body in _MACROS.items()),
    types={
        _S: "TEXT",
        _I: "BIGINT",
        _N: "DOUBLE",
        _B: "BOOLEAN",
        _T: "TIMESTAMP",
        _D: "DATE",
        _A: "VARIANT",
    },
    wide_integer="INT128",
    casts=_CASTS,
    trim="roster_trim",
    greatest="greatest",
    matches="regexp_full_match",
    get="variant_extract",
    is_array="roster_is_array",
    items="roster_items",
    items_at="roster_items_at",
    one_text="roster_one_text",
    many_texts="roster_many_texts",
    each_text="roster_each_text",
    texts_among="roster_texts_among",
    address="roster_address",
    quantile="quantile_cont",
    from_ms="make_timestamp_ms",
    from_us="make_timestamp",
    to_us="epoch_us",
    bucket="roster_bucket",
    bit="roster_bit",
)
