"""The search language: its edge cases, its refusals and its limits."""

from __future__ import annotations

import pytest

from roster.base.errors import Code, Error
from roster.query.expr import Wild
from roster.query.search import (
    And,
    Bound,
    Cidr,
    Compare,
    Everything,
    Key,
    Match,
    Not,
    Or,
    Pattern,
    Range,
    Text,
    Tree,
    parse,
    text_of,
)

ANY, ONE = Wild.ANY, Wild.ONE


def word(*pieces: str | Wild) -> Text:
    return Text(Pattern(pieces))


def on(name: str, *pieces: str | Wild) -> Match:
    return Match(Key(name), Pattern(pieces))


def phrase(name: str, text: str) -> Match:
    return Match(Key(name), Pattern((text,) if text else (), quoted=True))


def span(name: str, low: str | None, high: str | None, ends: str = "[]") -> Range:
    low_bound, high_bound = (None if text is None else Bound(text) for text in (low, high))
    return Range(Key(name), low_bound, high_bound, ends[0] == "[", ends[1] == "]")


A, B, C = on("a", "1"), on("b", "2"), on("c", "3")

STRUCTURE: list[tuple[str, Tree]] = [
    ("", Everything()),
    (" \t\n\r\u00a0\u3000 ", Everything()),
    ("*", Everything()),
    ("**", Everything()),
    ("* AND a:1", And((Everything(), A))),
    ("-*", Not(Everything())),
    ('"*"', Text(Pattern(("*",), quoted=True))),
    ("a:1 b:2", And((A, B))),
    ("a:1 AND b:2 c:3", And((A, B, C))),
    ("a:1 OR b:2 c:3", Or((A, And((B, C))))),
    ("a:1 b:2 OR c:3", Or((And((A, B)), C))),
    ("(a:1 OR b:2) c:3", And((Or((A, B)), C))),
    ("(a:1 b:2) c:3", And((And((A, B)), C))),
    ("\u2003a:1\x0bb:2\x1c\u2028c:3\n", And((A, B, C))),
    ("-a:1 b:2", And((Not(A), B))),
    ("!a:1 b:2", And((Not(A), B))),
    ("NOT a:1 OR b:2", Or((Not(A), B))),
    ("-a:-1", Not(on("a", "-1"))),
    ("NOT (a:1 OR b:2)", Not(Or((A, B)))),
    ("NOT(a:1 OR b:2)", Not(Or((A, B)))),
    ("-(a:1)OR(b:2)", Or((Not(A), B))),
    ("--a:1", Not(Not(A))),
    ("NOT NOT -a:1", Not(Not(Not(A)))),
    ("((a:1))", A),
    ("a:1 -b:2", And((A, Not(B)))),
    ("a-b", word("a-b")),
    ("x and y", And((word("x"), word("and"), word("y")))),
    ("x or not", And((word("x"), word("or"), word("not")))),
    ("ORDER NOTE ANDROID TOM", And((word("ORDER"), word("NOTE"), word("ANDROID"), word("TOM")))),
    ('"OR" TO', And((Text(Pattern(("OR",), quoted=True)), word("TO")))),
    (r"\OR \-x", And((word("OR"), word("-x")))),
]

VALUES: list[tuple[str, Tree]] = [
    ('a:"*"', phrase("a", "*")),
    (r"a:\*", on("a", "*")),
    ('@k:""', phrase("@k", "")),
    ("@k:*", on("@k", ANY)),
    ("-@k:*", Not(on("@k", ANY))),
    ("a:*b?c*", on("a", ANY, "b", ONE, "c", ANY)),
    ("a:b**c", on("a", "b", ANY, "c")),
    (r"a:b\*\?c*", on("a", "b*?c", ANY)),
    (r'a:"say \"hi\" \\ to * and ?"', phrase("a", 'say "hi" \\ to * and ?')),
    (r'a:"\x\/"', phrase("a", "x/")),
    (r"a:b\"c\ d\x", on("a", 'b"c dx')),
    ("a:/x/y", on("a", "/x/y")),
    (r"a:\/x\/y", on("a", "/x/y")),
    ("a:http://x:80/?q=1&r=<2> b:2", And((on("a", "http://x:80/", ONE, "q=1&r=<2>"), B))),
    ("(a:http://x)", on("a", "http://x")),
    ("(a:1)", A),
    ("(a:f(x))", on("a", "f(x)")),
    ("a:/wiki/Foo_(bar_(baz)) b:2", And((on("a", "/wiki/Foo_(bar_(baz))"), B))),
    (r"a:f\(x", on("a", "f(x")),
    ("a:-5", on("a", "-5")),
    ("a:!x", on("a", "!x")),
    ("a:true", on("a", "true")),
    ("state:OR OR state:NOT", Or((on("state", "OR"), on("state", "NOT")))),
    ("a:😀 b:é*", And((on("a", "😀"), on("b", "é", ANY)))),
    ("a:x\x00\x07y", on("a", "x\x00\x07y")),
    ("a:\x00", on("a", "\x00")),
    ('a:"x\ny"', phrase("a", "x\ny")),
    ("a:(1)", A),
    ("a:(1 OR 2 3)", Or((A, And((on("a", "2"), on("a", "3")))))),
    ("a:(1 AND 2 3)", And((A, on("a", "2"), on("a", "3")))),
    ("a:((1 OR 2) -3)", And((Or((A, on("a", "2"))), on("a", "-3")))),
    ('a:(x* OR "OR" OR http://y)', Or((on("a", "x", ANY), phrase("a", "OR"), on("a", "http://y")))),
    ("a:(NOT 1 OR 2)", Or((Not(A), on("a", "2")))),
    ("-a:(1 OR 2) b:2", And((Not(Or((A, on("a", "2")))), B))),
]

KEYS: list[tuple[str, Tree]] = [
    ("@usr.id:1", on("@usr.id", "1")),
    ("#calc:1", on("#calc", "1")),
    ("a-b_c.d@e$f9:1", on("a-b_c.d@e$f9", "1")),
    ("9:1", on("9", "1")),
    ("$x:1", on("$x", "1")),
    ("@größe.名:1", on("@größe.名", "1")),
    ("a/b:1", on("a/b", "1")),
    (r"@user.first\ name:v", on("@user.first name", "v")),
    (r"a\:b:c", on("a:b", "c")),
    (r"\-a:1", on("-a", "1")),
    ("OR:1 NOT:2 CIDR:3", And((on("OR", "1"), on("NOT", "2"), on("CIDR", "3")))),
    ("*:term", on("*", "term")),
    ("*:*", on("*", ANY)),
    ("http://x", on("http", "//x")),
]

COMPARISONS: list[tuple[str, Tree]] = [
    ("a:>5", Compare(Key("a"), ">", Bound("5"))),
    ("a:>=5", Compare(Key("a"), ">=", Bound("5"))),
    ("a:<-5", Compare(Key("a"), "<", Bound("-5"))),
    ("(a:<=1.5s)", Compare(Key("a"), "<=", Bound("1.5s"))),
    ("a:> 5", Compare(Key("a"), ">", Bound("5"))),
    ("a:>now-7d", Compare(Key("a"), ">", Bound("now-7d"))),
    ('a:<"2024-01-01 10:00"', Compare(Key("a"), "<", Bound("2024-01-01 10:00"))),
    ("a:[3 TO 10]", span("a", "3", "10")),
    ("a:{1 TO 3]", span("a", "1", "3", "{]")),
    ("a:[1 TO 3}", span("a", "1", "3", "[}")),
    ("a:[ * TO -3 }", span("a", None, "-3", "[}")),
    ("a:{* TO *}", span("a", None, None, "{}")),
    ('a:["*" TO ""]', span("a", "*", "")),
    ("@x:[1s TO 3s]", span("@x", "1s", "3s")),
    ("a:[2024-01-01T00:00:00Z TO now] b:2", And((span("a", "2024-01-01T00:00:00Z", "now"), B))),
    ("(a:[1 TO 3])", span("a", "1", "3")),
    ("CIDR(@ip, 13.0.0.0/8, 2001:db8::/32)", Cidr(Key("@ip"), ("13.0.0.0/8", "2001:db8::/32"))),
    ("CIDR(ip,10.1.2.3)", Cidr(Key("ip"), ("10.1.2.3/32",))),
    ("CIDR(ip,10.1.2.3/8 , 2001:DB8:0::/48)", Cidr(Key("ip"), ("10.0.0.0/8", "2001:db8::/48"))),
    ("CIDR(*, ::1)", Cidr(Key("*"), ("::1/128",))),
    ("NOT(CIDR(ip, ::1)) a:1", And((Not(Cidr(Key("ip"), ("::1/128",))), A))),
]


@pytest.mark.parametrize(("text", "tree"), STRUCTURE + VALUES + KEYS + COMPARISONS)
def test_reads(text: str, tree: Tree) -> None:
    assert parse(text) == tree
    assert parse(text_of(tree)) == tree


REFUSED = [
    ('a:1 b:"x', 7, "quote", '"'),
    ('a:x"y"', 4, "quote", "space"),
    ('a:"x"y', 3, "closing quote", "space"),
    ("a:“x”", 3, "typographic quote", "straight"),
    ("a (b (c)", 3, "never closed", ")"),
    ("a:(b OR c", 3, "never closed", ")"),
    ("a OR b)", 7, "closes nothing", "remove"),
    ("a:f(x", 3, "balance", "quotes"),
    ("foo(bar)", 4, "parenthesis", "space"),
    ("()", 2, "')'", "a term"),
    ("a:", 2, "value is missing", "name:*"),
    ("a: b", 2, "value is missing", "name:value"),
    ("(a:)", 3, "value is missing", "name:value"),
    ("a:()", 4, "')'", "a value"),
    (":x", 1, "no attribute", "name:value"),
    ("a*:x", 1, "name cannot hold", r"\*"),
    ("a OR", 5, "too early", "a term"),
    ("a AND ", 7, "too early", "a term"),
    ("NOT", 4, "too early", "a term"),
    ("OR a", 1, "OR stands", '"OR"'),
    ("a OR AND b", 6, "AND stands", '"AND"'),
    ("a:(b OR)", 8, "')'", "a value"),
    ("a:(OR OR CA)", 4, "OR stands", '"OR"'),
    ("a - b", 3, "nothing to exclude", r"\-"),
    ("a:=5", 3, "cannot begin", "name:>=5"),
    ("a:(>5 OR 1)", 4, "cannot begin", "name:>=5"),
    ("a>5", 2, "> cannot", "name:>=5"),
    ("a:>", 4, "too early", "a number"),
    ("a:>5*", 4, "'5'", "a number"),
    ("a:[1 3]", 6, "'3'", "TO"),
    ("a:[1 to 3]", 6, "'t'", "TO"),
    ("a:[1 TO ]", 9, "']'", "a number"),
    ("a:[1 TO 3", 10, "too early", "]"),
    ("a:[1 TO", 8, "too early", "a number"),
    ("CIDR(ip, 10.0.0.0/33)", 10, "'10.0.0.0/33'", "10.0.0.0/8"),
    ("CIDR(ip, ::1, x)", 15, "'x'", "10.0.0.0/8"),
    ("CIDR(ip, fe80::1%1)", 10, "'fe80::1%1'", "10.0.0.0/8"),
    ("CIDR(ip)", 8, "')'", "comma"),
    ("a:1 b\\", 6, "backslash", r"\\"),
]


@pytest.mark.parametrize(("text", "character", "reason", "hint"), REFUSED)
def test_refuses_with_place_and_hint(text: str, character: int, reason: str, hint: str) -> None:
    with pytest.raises(Error) as caught:
        parse(text)
    error = caught.value
    assert (error.code, error.at) == (Code.INVALID, f"character {character}")
    assert reason in error.message
    assert hint in error.hint


def test_keys_know_where_they_stand() -> None:
    tree = parse("x:1 -(@y:>2 OR CIDR( z, ::1))")
    match tree:
        case And((Match(x), Not(Or((Compare(y), Cidr(z)))))):
            assert (x.at, y.at, z.at) == (0, 6, 21)
        case _:
            pytest.fail(repr(tree))


@pytest.mark.parametrize("text", ["(" * 9_000, "(" * 4_000 + "a" + ")" * 4_000, "-" * 9_000 + "a", "a:" + "(" * 9_000])
def test_refuses_deep_nesting(text: str) -> None:
    with pytest.raises(Error, match="too deeply") as caught:
        parse(text)
    assert caught.value.hint == "nest at most 100 levels"


def test_depth_counts_parentheses_and_negations_around_a_term() -> None:
    assert parse("(" * 100 + "a" + ")" * 100) == word("a")
    assert parse("-(NOT a:(b))" * 50, depth_max=4) == And((Not(Not(on("a", "b"))),) * 50)
    with pytest.raises(Error, match="too deeply") as caught:
        parse("(a) -(NOT (b))", depth_max=3)
    assert caught.value.at == "character 11"


def test_length_is_limited() -> None:
    assert parse("a" * 10_000) == word("a" * 10_000)
    with pytest.raises(Error, match="too long") as caught:
        parse("abcd", characters_max=3)
    assert (caught.value.at, caught.value.hint) == ("character 4", "use at most 3 characters")


@pytest.mark.parametrize("glue", [" ", " AND ", " OR "])
def test_reads_thousands_of_terms(glue: str) -> None:
    tree = parse(glue.join(["a:1"] * 3_000), characters_max=100_000)
    assert isinstance(tree, Or if glue == " OR " else And)
    assert tree.items == (A,) * 3_000
    assert parse(text_of(tree), characters_max=100_000) == tree


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("5", 5),
        ("-5", -5),
        ("+007", 7),
        ("2.50", 2.5),
        ("5.0", 5.0),
        (".5", 0.5),
        ("1e3", 1000.0),
        ("9007199254740993", 9007199254740993),
        ("1s", 1_000_000_000),
        ("1.5ms", 1_500_000),
        ("0.1us", 100),
        ("0.5ns", 0.5),
        ("2m", 120_000_000_000),
        ("1h", 3_600_000_000_000),
        ("-1d", -86_400_000_000_000),
        ("10B", 10),
        ("1kB", 1000),
        ("1KB", 1000),
        ("1.5MB", 1_500_000),
        ("2GB", 2_000_000_000),
        ("1TB", 1_000_000_000_000),
        *((text, None) for text in ("", "s", "1 s", "5x", "1S", "abc", "now", "nan", "inf", "٣", "1e999", "9e307TB")),
        *((text, None) for text in ("1e9999999999", "9" * 9_000, "2024-01-01", "0x10", "1_000", "--5")),
    ],
)
def test_number(text: str, number: float | None) -> None:
    found = Bound(text).number()
    assert (found, type(found)) == (number, type(number))


NOW_MS = 1_700_000_000_000
DAY_MS = 86_400_000


@pytest.mark.parametrize(
    ("text", "at_ms"),
    [
        ("1704067200000", 1_704_067_200_000),
        ("0", 0),
        ("-1", -1),
        ("2024-01-01", 1_704_067_200_000),
        ("2024-01-01T00:00", 1_704_067_200_000),
        ("2024-01-01T00:00:00Z", 1_704_067_200_000),
        ("2024-01-01t00:00:00z", 1_704_067_200_000),
        ("2024-01-01 00:00:00.250", 1_704_067_200_250),
        ("2024-01-01T02:00:00+02:00", 1_704_067_200_000),
        ("0001-01-01", -62_135_596_800_000),
        ("9999-12-31T23:59:59.999Z", 253_402_300_799_999),
        ("now", NOW_MS),
        ("now-7d", NOW_MS - 7 * DAY_MS),
        ("now+1h", NOW_MS + 3_600_000),
        ("now-1w", NOW_MS - 7 * DAY_MS),
        ("now-30m", NOW_MS - 1_800_000),
        ("now-5s", NOW_MS - 5_000),
        *(
            (text, None)
            for text in ("", "abc", "1.5", "2024-13-01", "2024-02-30", "2024-01", "20240101T", "now-", "now-7")
        ),
        *((text, None) for text in ("now-7y", "NOW", "now - 7d", "9" * 15, "now+" + "9" * 15 + "w", "9" * 9_000)),
        *(
            (text, None)
            for text in ("0001-01-01T00:00:00+14:00", "2024-01-01T25:00", "2024-01-01T00:00+99:00", "٢٠٢٤-٠١-٠١")
        ),
    ],
)
def test_instant(text: str, at_ms: int | None) -> None:
    assert Bound(text).instant_ms(NOW_MS) == at_ms


def test_only_a_calendar_day_is_a_date() -> None:
    assert Bound("2024-02-29").is_date
    assert not any(
        Bound(t).is_date for t in ("2023-02-29", "2024-02-29T00:00", "now", "1704067200000", "abcd-ef-gh", "")
    )


def test_patterns_know_their_kind() -> None:
    plain, wild, empty = Pattern(("ab",)), Pattern(("a", ONE)), Pattern((), quoted=True)
    assert (plain.is_literal, plain.text, plain.is_any, plain.is_empty) == (True, "ab", False, False)
    assert (wild.is_literal, wild.is_any, wild.is_empty) == (False, False, False)
    assert (empty.is_literal, empty.text, empty.is_any, empty.is_empty) == (True, "", False, True)
    assert Pattern((ANY,)).is_any


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("a:1 (b:2) OR NOT c:3", "a:1 AND b:2 OR -c:3"),
        ("a:(1 OR b\\ c) @d:-5", r"(a:1 OR a:b\ c) AND @d:-5"),
        ("a:{ 1 TO * ] CIDR(ip,10.1.1.1/8)", "a:{1 TO *] AND CIDR(ip, 10.0.0.0/8)"),
        ("u:http://x state:OR", "u:http://x AND state:OR"),
    ],
)
def test_writes_plainly(text: str, written: str) -> None:
    assert text_of(parse(text)) == written
