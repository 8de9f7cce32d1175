"""Random columns and random text for them: what PostgreSQL takes, what it takes in its own way, and what it refuses.

For every type there are `usual` texts, which each supported version takes under all settings, and `odd` ones, which are
refused, or mean different things by version, setting or type modifier. Nothing here says which: COPY does.
"""

from __future__ import annotations

import json
import string
import struct
from dataclasses import dataclass, field
from datetime import date, time, timedelta

from hypothesis import strategies as st

Text = st.SearchStrategy[str]


@dataclass(frozen=True, slots=True)
class Kind:
    """A column type and texts for it."""

    name: str
    usual: Text = field(repr=False)
    odd: Text = field(repr=False)


def _words(text: str) -> Text:
    return st.sampled_from(text.split())


def _lines(text: str) -> Text:
    return st.sampled_from([line for line in text.split("\n") if line])


# What no number, date or the like is made of.
GARBAGE = st.sampled_from(
    [
        "",
        " ",
        "x",
        "NULL",
        "null",
        "-",
        "+",
        ".",
        "\\N",
        "\\.",
        "\x00",
        "1\x00",
        "\ufeff1",
        "\uff11",
        "é",
        "'1'",
        "1;2",
        "{}",
    ]
)
SPACE = st.sampled_from(["", " ", "  ", "\t", "\n", "\x0b", "\r", "\u00a0"])


def _spaced(texts: Text) -> Text:
    """Each text with white space around it."""
    return st.tuples(SPACE, texts, SPACE).map("".join)


@st.composite
def _typos(draw: st.DrawFn, texts: Text) -> str:
    """Each text with one character taken out, doubled or put in."""
    text: str = draw(texts)
    place = draw(st.integers(0, len(text)))
    inserted = draw(st.sampled_from(["", text[place - 1 : place], *" -+.:,_eExT'\"\\{}()[]0"]))
    return str(text[: place - (not inserted)] + inserted + text[place:])


def _kind(name: str, usual: Text, odd: Text | None = None) -> Kind:
    strange = [_spaced(usual), _typos(usual), GARBAGE]
    return Kind(name, usual, st.one_of(*([odd, _spaced(odd)] if odd is not None else []), *strange))


# -- numbers

_INTEGER_ODDITIES = _words("+1 -0 +0 007 0x1F 0X1f -0xF 0o17 0b101 0b2 1_000 1__0 _1 1_ 1e3 1.0 1. 0x 0x_1F - --1 1L")


def _integer(name: str, bits: int) -> Kind:
    top = 2 ** (bits - 1)
    edges = [0, -1, top - 1, -top]
    usual = st.one_of(st.integers(-top, top - 1), st.sampled_from(edges)).map(str)
    beyond = st.sampled_from(
        [str(top), str(-top - 1), "9" * 25, hex(top - 1), hex(top), hex(2 * top - 1), f"+{top - 1}"]
    )
    return _kind(name, usual, st.one_of(_INTEGER_ODDITIES, beyond))


_FLOAT_ODDITIES = _words(
    "inf -inf +inf Infinity -INFINITY +infinity nan NaN -nan +nan nan(1) NAN infx 1e400 -1e400 1e-400 -1e-400 1e39 "
    "1e-46 1e-45 1e-310 5e-324 2e-324 3.4028236e38 1.7976931348623159e308 0x10 0x1p3 1_0 1e+-1 1e+1 1E5 1e 1e+ . .e1 "
    "1. .5 +.5 -0 -0.0 0e999 0.0e-999 0x 1d3 1f 16777217 0.1 1e22 123456789.123456789 9007199254740993 1e5_0 ++1"
)


def _float(name: str, width: int) -> Kind:
    usual = st.one_of(
        st.floats(width=32 if width == 32 else 64, allow_nan=False, allow_infinity=False, allow_subnormal=False).map(
            repr
        ),
        _words("0 1 -1 0.5 1e10 1E-5 +2.5 -0 100 .25 3."),
    )
    if width == 32:
        usual = st.one_of(
            st.floats(width=32, allow_nan=False, allow_infinity=False, allow_subnormal=False).map(_shortest32), usual
        )
    return _kind(name, usual, _FLOAT_ODDITIES)


def _shortest32(value: float) -> str:
    for digits in range(1, 10):
        text = f"{value:.{digits}g}"
        if struct.pack("f", float(text)) == struct.pack("f", value):
            return text
    return repr(value)


_NUMERIC_ODDITIES = _words(
    "NaN nan -NaN Infinity -inf +Infinity inf 1e5 1E-5 1e+2 1e+-1 1e-+1 1e 1e+ 0e100 0e999999999999 1e400 1e-400 "
    "1e-20000 1e140000 0.5 0.05 0.005 -0.005 0.0049999999999999999999999 1.995 9.995 99.995 999.995 -0 -0.00 +1 007 1. "
    ".5 . 0x1F 0o7 0b1 1_000.5 1_0e1_0 1._5 1e1000000000 1,5 1.2.3 15 25 149 150 1499.99 1.10 "
    "123456789012345678901234567890.123456789"
)


@st.composite
def _numeric(draw: st.DrawFn) -> Kind:
    precision, scale = draw(
        st.one_of(
            st.sampled_from(
                [(None, None), (15, 2), (5, 2), (38, 10), (39, 4), (1000, 500), (3, -2), (2, 5), (4, None)]
            ),
            st.integers(1, 45).flatmap(lambda p: st.tuples(st.just(p), st.integers(0, p))),
        )
    )
    name = "numeric" if precision is None else f"numeric({precision})"
    name = name if scale is None else f"numeric({precision},{scale})"
    places = 6 if precision is None else scale or 0
    whole = max(0, (precision or 30) - max(places, 0) - 1)
    fraction = st.text(string.digits, min_size=0, max_size=max(places, 0) + draw(st.integers(0, 2)))
    sign = st.sampled_from(["", "-", "+"])
    usual = st.tuples(sign, st.text(string.digits, max_size=whole), fraction).map(
        lambda parts: parts[0] + (parts[1] or "0") + ("." + parts[2] if parts[2] else "")
    )
    return _kind(name, usual, _NUMERIC_ODDITIES)


_MONEY = _kind(
    "money",
    st.one_of(
        st.integers(-(10**15), 10**15).map(lambda cents: f"{cents / 100:.2f}"), _words("$1.00 -$2.50 1,234.56 0")
    ),
    _words("($5) $-5 $ 1.005 1.995 92233720368547758.07 92233720368547758.08 1e5 $$1 1.2.3 5$ NaN"),
)

_BOOLEAN = _kind(
    "boolean",
    _words("true false t f TRUE FALSE True False tr tru fal y n yes no on off 1 0 T F Y N ON OFF On Off"),
    _words("oF oN o O tRuE truee ye NO 10 01 2 -1 of 00 yess offf nul"),
)

# -- text

_ALPHABET = st.characters(codec="utf-8", exclude_characters="\x00")
_SHORT = st.one_of(
    st.text(_ALPHABET, max_size=8),
    st.text("ab \"',;|\\\n\r\té\u0301\ufeff.N", max_size=6),
    st.sampled_from(
        [
            "\\N",
            "\\.",
            "NULL",
            "",
            " ",
            "a ",
            " a",
            "\ufeff",
            "\ufeffa",
            "\\",
            '"',
            '""',
            "\x7f",
            "𐀀",
            "\u2028",
            "\\x41",
        ]
    ),
)
_LONG = st.text("abé \n", max_size=100)
_TEXT_ODDITIES = st.one_of(_LONG, st.sampled_from(["a" * 10_000, "é" * 300, "a\x00b", "\x00"]))


@st.composite
def _text(draw: st.DrawFn) -> Kind:
    name = draw(
        st.sampled_from(["text", "varchar", "char", "bpchar", "name", '"char"', "text", "varchar({})", "char({})"])
    )
    length = draw(st.integers(1, 12))
    fitting = _SHORT if "{}" not in name else _SHORT.map(lambda text: text[:length] + " " * (len(text) % 4))
    return _kind(name.format(length), _SHORT.map(lambda t: t[:1]) if name == "char" else fitting, _TEXT_ODDITIES)


_BYTEA = _kind(
    "bytea",
    st.one_of(
        st.binary(max_size=10).map(lambda raw: "\\x" + raw.hex()),
        st.binary(max_size=10).map(lambda raw: "\\x" + raw.hex().upper()),
        st.sampled_from(["", "abc", "\\x", "\\\\", "\\000\\001", "a\\377b", "é"]),
    ),
    st.sampled_from(
        ["\\xA", "\\X41", "\\x4 1", "\\x41 42", "\\xZZ", "\\", "\\1", "\\400", "\\x\n41", "\\x41 ", " \\x41"]
    ),
)

# -- dates and times

_DAYS = st.one_of(
    st.dates(date(1, 1, 1), date(9999, 12, 31)),
    st.sampled_from([date(1, 1, 1), date(9999, 12, 31), date(2000, 2, 29), date(1970, 1, 1), date(1582, 10, 10)]),
)
_TIMES = st.one_of(st.times(), st.sampled_from([time(0), time(23, 59, 59, 999999), time(12, 30)]))
_OFFSETS = _words("Z +00 -00 +01 -05 +05:30 -03:30 +0530 +14 -12 +14:59 +15 -15 +15:59 -15:59 +00:01 +12:45")
_DATE_ODDITIES = _lines("""
infinity
-infinity
+infinity
INFINITY
epoch
Epoch
0000-01-01
0001-01-01 BC
4714-11-24 BC
4714-11-23 BC
4713-01-01 BC
5874897-12-31
5874898-01-01
10000-01-01
2021-02-29
2020-02-30
2020-13-01
2020-00-10
2020-01-00
31/12/2020
12/31/2020
01/02/03
1.2.2020
20200131
200131
Jan 5 2020
5-Jan-20
2020-Jan-05
J2451187
J0
2020.123
2020-123
2020-1-5
99-12-31
January 8, 99 BC
2020-01-01 00:00:00
2020-01-01T25:00:00
2020-01-01 10:00:00+01
allballs
2020-01-01Z
+2020-01-01
-2020-01-01
2020-01-01 AD
""")
_TIME_ODDITIES = _lines("""
24:00:00
24:00:00.000001
23:59:60
23:59:59.9999999
23:59:60.5
25:00:00
12:60:00
12:00:61
12:00
12
1200
120000
T120000
allballs
1:2:3
12:00 AM
12:00 PM
13:00 PM
12:30:00.5
12:30:00.123456789
12:30:00.
12:30:00,5
-12:00:00
12:00:00+01
12:00:00 PST
2020-01-01 12:00:00
12:00:00 America/New_York
12:00:00 America/Nowhere
""")
_MOMENT_ODDITIES = _lines("""
infinity
-infinity
epoch
0000-01-01 00:00:00
0000-12-31 23:00:00-05
0001-01-01 00:00:00+05
0001-01-01 00:00:00-05
0001-01-01 00:00:00 BC
9999-12-31 23:59:59.999999-05
4714-11-24 00:00:00 BC
4714-11-23 23:59:59 BC
4714-11-24 00:00:00+00 BC
294276-12-31 23:59:59.999999
294277-01-01 00:00:00
10000-01-01 00:00:00
2020-01-01
2020-01-01 10
2020-01-01T10
2020-01-01 10:30
2020-01-01T10:30
2020-01-01t10:30:00
2020-01-01T10:30:00z
2020-01-01 10:30:00 Z
2020-01-01 10:30Z
2020-01-01 10:30:00.1234567
2020-01-01 10:30:00.9999995
2020-01-01 10:30:00.9999995+01
2020-01-01 10:30:00.
2020-01-01 24:00:00
2020-01-01 24:00:01
2020-01-01 23:59:60
2020-01-01 23:59:60Z
2020-12-31 23:59:60
2020-01-01 25:00:00
2020-02-30 10:00:00
2020-01-01 10:30:00+16
2020-01-01 10:30:00-16:00
2020-01-01 10:30:00+15:59:59
2020-01-01 10:30:00+5:30
2020-01-01 10:30:00+530
2020-01-01 10:30:00 +05:30
2020-01-01 10:30:00+05:30:15
2020-01-01 10:30:00+05:60
2020-01-01 10:30:00 EST
2020-01-01 10:30:00 IST
2020-07-01 10:30:00 America/New_York
2020-03-08 02:30:00
2020-03-08 02:30:00 America/New_York
2020-11-01 01:30:00
2011-12-30 12:00:00
20200101T103000
20200101 103000
2020-01-01  10:30:00
31/12/2020 10:30
12/31/2020 10:30 PM
Jan 5 2020 10:30
Wed Jan 01 10:30:00 2020
2020-01-01 10:30:00 AD
2020-01-01 10:30:00 BC
J2451187 10:30
2020-01-01T10:30:00.000001Z
""")
_STAMPS = st.builds(
    lambda day, clock, joint, seconds: (
        f"{day.isoformat()}{joint}{clock.isoformat('minutes' if not seconds else 'auto')}"
    ),
    _DAYS,
    _TIMES,
    st.sampled_from(" T"),
    st.sampled_from([True, True, True, False]),
)
_ZONED = st.builds("{}{}{}".format, _STAMPS, st.sampled_from(["", "", " "]), _OFFSETS)


@st.composite
def _temporal(draw: st.DrawFn) -> Kind:
    name = draw(st.sampled_from(["date", "time", "timetz", "timestamp", "timestamptz", "timestamp", "timestamptz"]))
    digits = draw(st.sampled_from(["", "", "(0)", "(1)", "(3)", "(6)"]))
    if name == "date":
        return _kind("date", _DAYS.map(date.isoformat), _DATE_ODDITIES)
    if name == "time":
        return _kind(f"time{digits}", _TIMES.map(time.isoformat), _TIME_ODDITIES)
    if name == "timetz":
        zoned = st.builds("{}{}".format, _TIMES.map(time.isoformat), _OFFSETS)
        return _kind(f"timetz{digits}", st.one_of(zoned, _TIMES.map(time.isoformat)), _TIME_ODDITIES)
    zone = " with time zone" if name == "timestamptz" else ""
    usual = draw(st.sampled_from([_STAMPS, _ZONED, st.one_of(_STAMPS, _ZONED)]))
    return _kind(f"timestamp{digits}{zone}", usual, st.one_of(_MOMENT_ODDITIES, _DATE_ODDITIES))


_INTERVAL_ODDITIES = _lines("""
infinity
-infinity
1 year 2 mons 3 days 04:05:06.789
-1 year 2 mons +3 days -04:05:06
P1Y2M3DT4H5M6S
P0001-02-03T04:05:06
P-1Y2M
PT
P
1-2
+1-2 -3 +4:05:06
-1 2:03:04
1 2
2
5.5
0.0000001
1.5 months
1.5 days
1 day ago
1 2:3
100:00
00:00:60
@ 1 hour ago
178000000 years
178956971 years
1 fortnight
1 century
04:05:06.7890123
-00:00:00.5
1 week 2 days
1y 2mon
''
""")


@st.composite
def _interval(draw: st.DrawFn) -> Kind:
    fields = draw(
        st.sampled_from(
            [
                "",
                "",
                "(0)",
                "(3)",
                " year",
                " month",
                " day",
                " hour",
                " minute",
                " second",
                " second(2)",
                " year to month",
                " day to hour",
                " day to second(1)",
                " hour to minute",
                " minute to second",
            ]
        )
    )
    usual = st.one_of(
        st.timedeltas(timedelta(-10_000), timedelta(10_000)).map(
            lambda delta: (
                f"{delta.days} days {delta.seconds // 3600:02}:{delta.seconds // 60 % 60:02}:{delta.seconds % 60:02}.5"
            )
        ),
        _lines("1 day\n01:02:03\n-5 hours\n3 mons\n2 years\n0\n1 day 00:00:00.123456\n5\n1:30"),
    )
    return _kind(f"interval{fields}", usual, _INTERVAL_ODDITIES)


# -- things with a grammar of their own

_UUID = _kind(
    "uuid",
    st.one_of(st.uuids().map(str), st.uuids().map(lambda u: str(u).upper())),
    st.one_of(
        st.uuids().map(lambda u: u.hex),
        st.uuids().map(lambda u: "{" + str(u) + "}"),
        st.uuids().map(lambda u: str(u).replace("-", "", 2)),
        st.uuids().map(lambda u: "-".join(u.hex[i : i + 4] for i in range(0, 32, 4))),
        st.uuids().map(lambda u: str(u)[:-1]),
        st.uuids().map(lambda u: "urn:uuid:" + str(u)),
        st.uuids().map(lambda u: "{" + str(u)),
    ),
)

_JSON_VALUES = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(allow_nan=False, allow_infinity=False),
        st.text(_ALPHABET, max_size=5),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(_ALPHABET, max_size=3), inner, max_size=3)
    ),
    max_leaves=4,
)
_JSON_ODDITIES = st.sampled_from(
    [
        '{"a":1,"a":2}',
        '{ "b" : 1 ,\n"a":[ ] }',
        '"\\u0000"',
        '"\\ud800"',
        '"\\ud83d\\ude00"',
        '"\\u00e9"',
        "NaN",
        "1.10",
        "1e400",
        "1e5",
        "-0",
        "-0.0",
        "01",
        "1.",
        "[1,]",
        "{'a':1}",
        "nul",
        "true false",
        '"a\tb"',
        '"a\nb"',
        "[" * 50 + "]" * 50,
        "123456789012345678901234567890.10",
        '{"":""}',
        '"\x00"',
        "\ufeff1",
        '{"a":1',
        "[1 2]",
    ]
)


def _json(name: str) -> Kind:
    usual = st.one_of(
        _JSON_VALUES.map(json.dumps),
        _JSON_VALUES.map(lambda value: json.dumps(value, ensure_ascii=False)).filter(
            lambda text: "\\u0000" not in text
        ),
    ).filter(lambda text: "\\u0000" not in text and "\\ud" not in text)
    return _kind(name, usual, _JSON_ODDITIES)


_NETWORK = [
    _kind(
        "inet",
        st.one_of(
            st.ip_addresses(v=4).map(str), st.ip_addresses(v=6).map(str), _words("10.0.0.1/8 ::1/128 1.2.3.4/32")
        ),
        _words("10.1 10 1.2.3.4/33 1.2.3.256 ::ffff:1.2.3.4 fe80::1%eth0 1.2.3.4/ 01.2.3.4 ::/0 1:2:3:4:5:6:7:8:9"),
    ),
    _kind(
        "cidr",
        _words("10.0.0.0/8 ::/0 1.2.3.4/32 192.168/16 10"),
        _words("10.0.0.1/8 1.2.3.4 ::1/64 10.0.0.0/33 10.1."),
    ),
    _kind(
        "macaddr",
        _words("08:00:2b:01:02:03 08-00-2b-01-02-03 08002b:010203 0800.2b01.0203"),
        _words("08:00:2b:01:02 8:0:2b:1:2:3 08:00:2b:01:02:03:04 gg:00:2b:01:02:03"),
    ),
    _kind(
        "macaddr8",
        _words("08:00:2b:01:02:03:04:05 08002b0102030405 08:00:2b:01:02:03"),
        _words("08:00:2b 08-00:2b-01-02-03-04-05 x"),
    ),
]

_XML = _kind(
    "xml",
    st.sampled_from(["<a/>", "<a>b</a>", "<a b='c'>é</a>", "<?xml version='1.0'?><a/>"]),
    st.sampled_from(
        [
            "abc",
            "<a>",
            "<a/><b/>",
            "<a>&lt;</a>",
            "<a>&x;</a>",
            "<!DOCTYPE a><a/>",
            '<?xml version="1.0" encoding="latin1"?><a>é</a>',
            "",
        ]
    ),
)


@st.composite
def _bits(draw: st.DrawFn) -> Kind:
    length = draw(st.integers(1, 10))
    name = draw(st.sampled_from([f"bit({length})", f"varbit({length})", "varbit", "bit"]))
    exact = 1 if name == "bit" else length
    return _kind(
        name, st.text("01", min_size=exact, max_size=exact), _words("0 1 101 x1F B101 X1f b 012 xG 10101010101")
    )


_ODD_BASES = [
    _kind("oid", _words("0 1 4294967295"), _words("-1 4294967296 +5 0x1F 1_0 -4294967296")),
    _kind("xid", _words("0 1 4294967295"), _words("-1 4294967296 0x10")),
    _kind("pg_lsn", _words("0/0 16/B374D848"), _words("0 /1 FFFFFFFF/FFFFFFFFF")),
    _kind("tid", _words("(0,1) (42,7)"), _words("(0) (4294967296,1) 0,1")),
    _kind("regtype", _words("integer text"), _words("int4[] nothing_such pg_catalog.int8 23 -")),
    _kind("regclass", _words("pg_class 1259"), _words("nothing.such pg_catalog.pg_type nosuch -")),
    _kind("point", _words("(1,2) 1,2 (-1.5,2e3)"), _words("(1,2 1 (1,inf) (nan,1) (1;2) (1,2,3)")),
    _kind("lseg", _words("[(1,2),(3,4)] ((1,2),(3,4)) 1,2,3,4"), _words("[(1,2)] (1,2,3)")),
    _kind("line", _words("{1,2,3} [(1,2),(3,4)]"), _words("{0,0,1} {1,2} [(1,2),(1,2)]")),
    _kind("box", _words("(1,2),(3,4) ((3,4),(1,2)) 1,2,3,4"), _words("(1,2) (1,2),(3 (inf,1),(2,3)")),
    _kind("path", _words("[(1,2),(3,4)] ((1,2),(3,4)) (1,2)"), _words("[(1,2),(3,4) () [] 1")),
    _kind("polygon", _words("((1,2),(3,4),(5,6)) (1,2)"), _words("((1,2),(3,4) () 1")),
    _kind("circle", _words("<(1,2),3> (1,2),3 1,2,3"), _words("<(1,2),-1> <(1,2) (1,2)")),
    _kind(
        "tsvector",
        st.sampled_from(["a b", "a:1A b:2", "'a b':3 c", "", "A a a"]),
        st.sampled_from(["'a", "a:", "a:x", "\\", "a" * 3000, "a:99999", "'it''s'"]),
    ),
    _kind(
        "tsquery",
        st.sampled_from(["a & b", "!a | b", "'a b' <-> c", "a:*"]),
        st.sampled_from(["a &", "(", "a b", "", "a <2> b"]),
    ),
    _kind(
        "jsonpath",
        st.sampled_from(["$.a", "strict $[*] ? (@ > 1)"]),
        st.sampled_from(["$[", "a", "", '$.a like_regex "("']),
    ),
    _kind("int2vector", st.sampled_from(["1 2 3", "", "7"]), st.sampled_from(["1,2", "40000", "x"])),
    _kind("pg_snapshot", _words("10:20:10,14,15 1:1:"), _words("20:10: x")),
]

# -- what the fixture of the test makes: see TYPES_OF_OUR_OWN

MOODS = ["sad", "ok", "happy day", "a,b", 'with "quotes"', "it's", "{x}", "(y)", "NULL", "\\N", "é"]
TYPES_OF_OUR_OWN = """
CREATE TYPE mood AS ENUM ('sad', 'ok', 'happy day', 'a,b', 'with "quotes"', 'it''s', '{x}', '(y)', 'NULL', '\\N', 'é');
CREATE TYPE bool_like AS ENUM ('t', 'f');
CREATE SCHEMA shadow;
CREATE TYPE shadow.date AS ENUM ('2020-01-01', 'never');
CREATE TYPE shadow.int4 AS (a integer, b integer);
CREATE TYPE shadow.bool AS RANGE (subtype = integer);
CREATE TYPE shadow.jsonb AS ENUM ('1', '{}');
CREATE DOMAIN shadow.uuid AS text;
CREATE TYPE pair AS (a integer, b text);
CREATE TYPE amount AS (value numeric(8,2), currency char(3));
CREATE TYPE nested AS (p pair, tags text[], seen timestamptz(0), hours interval hour, m mood);
CREATE TYPE floatrange AS RANGE (subtype = float8, multirange_type_name = floatmultirange);
CREATE DOMAIN positive AS integer CHECK (VALUE > 0);
CREATE DOMAIN given_text AS text NOT NULL;
CREATE DOMAIN price AS numeric(6,2) NOT NULL;
CREATE DOMAIN fair_price AS price CHECK (VALUE < 100);
CREATE DOMAIN code AS char(3);
CREATE DOMAIN short AS varchar(4) CHECK (VALUE <> 'bad');
CREATE DOMAIN seconds AS timestamptz(0);
CREATE DOMAIN hours AS interval hour;
CREATE DOMAIN few AS integer[] CHECK (cardinality(VALUE) < 4);
CREATE DOMAIN cheerful AS mood CHECK (VALUE <> 'sad');
CREATE DOMAIN plus AS amount CHECK ((VALUE).value > 0);
CREATE DOMAIN flag AS boolean;
CREATE DOMAIN doc AS jsonb CHECK (VALUE <> 'null');
CREATE DOMAIN key AS uuid;
"""
EXTENSIONS = ("citext", "hstore", "ltree", "cube", "isn", "vector")

_PAIRS = st.sampled_from(["(1,a)", "(,)", '(1,"")', '(-5,"a,""b""\\\\")', "(2,é)", "(3, b )"])
_OWN = [
    _kind("mood", st.sampled_from(MOODS), st.sampled_from(["Sad", "", "sad ", "x" * 100])),
    _kind("bool_like", _words("t f"), _words("true 1")),
    _kind("shadow.date", _words("2020-01-01 never"), _words("2020-01-02")),
    _kind("shadow.int4", st.sampled_from(["(1,2)", "(,)"]), _words("1 (1) (1,2,3)")),
    _kind("shadow.bool", st.sampled_from(["[1,2)", "empty"]), _words("t true")),
    _kind("shadow.jsonb", st.sampled_from(["1", "{}"]), _words("2")),
    _kind("shadow.uuid", _SHORT),
    _kind("pair", _PAIRS, st.sampled_from(["(1)", "(1,2,3)", "(x,1)", " (1,a) ", "(1,a) x", "(1,a", "( 1 ,a)", "()"])),
    _kind(
        "amount",
        st.sampled_from(["(1.50,EUR)", "(2.005,E)", "(,)", "(-3,)"]),
        st.sampled_from(["(1234567.1,EUR)", "(1,EURO)", "(1,EUR   )"]),
    ),
    _kind(
        "nested",
        st.sampled_from(
            ['("(1,a)","{x,y}","2020-01-01 00:00:00.6+01","5","sad")', "(,,,,)", '(,{},,"1 day 2 hours",ok)']
        ),
        st.sampled_from(["(,,,)", "((1,a),,,,)", '("(x,a)",,,,)', "(,{,,,)"]),
    ),
    _kind("positive", st.integers(1, 1000).map(str), _words("0 -1 0x1 2147483648")),
    _kind("given_text", _SHORT),
    _kind("price", st.integers(0, 999_999).map(lambda cents: f"{cents / 100:.3f}"), _NUMERIC_ODDITIES),
    _kind("fair_price", st.integers(0, 9000).map(lambda cents: f"{cents / 100:.2f}"), _words("99.994 99.995 100 NaN")),
    _kind("code", _words("abc a ab"), st.sampled_from(["abcd", "abc  ", " abc"])),
    _kind("short", _words("abcd a good"), st.sampled_from(["abcde", "bad", "abcd  ", "bad "])),
    _kind("seconds", _ZONED, _MOMENT_ODDITIES),
    _kind("hours", _lines("5\n1 day 3 hours\n2:30"), _INTERVAL_ODDITIES),
    _kind("few", _words("{} {1,2} {{1},{2}} {NULL}"), _words("{1,2,3,4} {x} {1.5}")),
    _kind("cheerful", st.sampled_from(MOODS[1:]), _words("sad")),
    _kind("plus", st.sampled_from(["(1.50,EUR)", "(,)"]), st.sampled_from(["(-1,EUR)"])),
    _kind("flag", _words("t f yes off"), _words("o maybe")),
    _kind("doc", st.sampled_from(["{}", '{"a":[1, 2]}']), st.sampled_from(["null", "{"])),
    _kind("key", st.uuids().map(str), st.uuids().map(lambda u: u.hex)),
]

_EXTENDED = {
    "xml": [_XML],
    "citext": [_kind("citext", _SHORT)],
    "hstore": [
        _kind(
            "hstore",
            st.sampled_from(["a=>1", '"a b"=>NULL, c=>"d"', "", "a=>1,a=>2"]),
            st.sampled_from(["a", "a=>", "=>1"]),
        )
    ],
    "ltree": [_kind("ltree", _words("a a.b.c Top.X_1"), st.sampled_from(["a..b", "a b", "a-b", "."]))],
    "cube": [_kind("cube", st.sampled_from(["1", "(1,2)", "(1,2),(3,4)"]), st.sampled_from(["(1", "(1,2),(3)", "x"]))],
    "isn": [_kind("isbn", _words("978-0-393-04002-9 0-393-04002-X"), _words("0-393-04002-1 x"))],
    "vector": [
        _kind(
            "vector(3)", st.sampled_from(["[1,2,3]", "[0.1, -2e3, 5]"]), st.sampled_from(["[1,2]", "[]", "[1,2,inf]"])
        )
    ],
}

# -- types made of types


def _range_of(name: str, bounds: Text) -> list[Kind]:
    pairs = st.lists(bounds, min_size=2, max_size=2)
    ranges = st.one_of(
        st.builds(
            lambda b, left, right: f'{left}"{b[0]}","{b[1]}"{right}',
            pairs,
            st.sampled_from("[("),
            st.sampled_from("])"),
        ),
        bounds.map(lambda b: f'["{b}",)'),
        bounds.map(lambda b: f'(,"{b}"]'),
        st.sampled_from(["empty", "(,)", " EMPTY "]),
    )
    odd = st.sampled_from(["[1,2", "[,]", "[2,1]", "[1;2]", "[1,1)", "(infinity,)", "[a,b]", "[1,2] x"])
    multi = st.lists(ranges, max_size=3).map(lambda parts: "{" + ", ".join(parts) + "}")
    if name == "floatrange":
        return [_kind(name, ranges, odd), _kind("floatmultirange", multi, odd)]
    return [_kind(name, ranges, odd), _kind(name.replace("range", "multirange"), multi, odd)]


_NUMBERS = st.integers(-9, 9).map(str)
_RANGES = [
    *_range_of("int4range", _NUMBERS),
    *_range_of("int8range", _NUMBERS),
    *_range_of("numrange", st.sampled_from(["1.50", "-2", "7.00001", "1e2"])),
    *_range_of("daterange", _DAYS.map(date.isoformat)),
    *_range_of("tsrange", _STAMPS),
    *_range_of("tstzrange", _ZONED),
    *_range_of("floatrange", st.sampled_from(["1.5", "-2", "inf", "1e-3"])),
]


def _quoted_element(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _array_of(element: Kind) -> Kind:
    items = st.one_of(element.usual.map(_quoted_element), st.just("NULL"))
    rows = st.lists(items, max_size=3).map(lambda parts: "{" + ",".join(parts) + "}")
    square = st.integers(1, 2).flatmap(
        lambda width: st.lists(
            st.lists(items, min_size=width, max_size=width).map(lambda parts: "{" + ",".join(parts) + "}"),
            min_size=1,
            max_size=2,
        ).map(lambda parts: "{" + ", ".join(parts) + "}")
    )
    based = items.map(lambda item: "[3:3]={" + item + "}")
    odd = st.one_of(
        element.odd.map(lambda text: "{" + _quoted_element(text) + "}"),
        element.usual.map(lambda text: "{" + text + "}"),
        element.usual,
        _words("{ {} {{}} {1,2} {NULL} {null} {1,} {{1},{2,3}} {{1,2},3} [0:1]={1,2} [0:1]={1} {1}x {,} {{},{}} {\\1}"),
    )
    return _kind(element.name + "[]", st.one_of(rows, rows, square, based), odd)


_SCALARS = st.one_of(
    st.sampled_from([_integer("smallint", 16), _integer("integer", 32), _integer("bigint", 64)]),
    st.sampled_from([_float("real", 32), _float("double precision", 64)]),
    _numeric(),
    st.sampled_from([_MONEY, _BOOLEAN, _BYTEA, _UUID, _json("json"), _json("jsonb")]),
    st.sampled_from([_BOOLEAN, _UUID, _BYTEA]),
    _text(),
    _text(),
    _temporal(),
    _temporal(),
    _interval(),
    _bits(),
    st.sampled_from([*_NETWORK, *_ODD_BASES]),
    st.sampled_from(_OWN),
    st.sampled_from(_RANGES),
)


def kinds(extensions: tuple[str, ...]) -> st.SearchStrategy[Kind]:
    """Column types, those of the given extensions among them."""
    extended = [kind for name in extensions for kind in _EXTENDED[name]]
    scalars = st.one_of(_SCALARS, st.sampled_from(extended)) if extended else _SCALARS
    # "char" and the vectors have arrays whose literals have quirks enough of their own: they come along.
    return st.one_of(scalars, scalars, scalars, scalars, scalars.map(_array_of))


# Types that the fast path reads, for examples in which it must not be given up because of a neighbour.
PLAIN_KINDS = st.one_of(
    st.sampled_from(
        [_integer("integer", 32), _integer("bigint", 64), _float("double precision", 64), _float("real", 32)]
    ),
    _numeric(),
    st.sampled_from([_BOOLEAN, _BYTEA, _UUID, _json("json"), _json("jsonb")]),
    _text(),
    _temporal(),
)
