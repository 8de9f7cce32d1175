"""COPY is the oracle: the same random CSV file, once through COPY and once through harborctl with each writer.

Either both store the same rows, or both refuse. HARBORCTL_TEST_ORACLE_EXAMPLES=2000 asks for more examples than every
day has, and `--hypothesis-seed=7` then says which.

Where harborctl takes on purpose what COPY does not, COPY is given the same table without it: LF and CRLF in one file, a
byte order mark, UTF-16, and several spellings of NULL. Before PostgreSQL 18, COPY ends at a line `\\.`, which is data
to us.
"""

from __future__ import annotations

import codecs
import contextlib
import operator
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import reduce
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psycopg
import pytest
from hypothesis import HealthCheck, assume, event, given, settings
from hypothesis import strategies as st
from psycopg import sql

import harborctl.sources.csv.splitter
from harborctl.db.engine import Database, open_database
from harborctl.load.run.loader import LoadFailed, run_load
from harborctl.load.write.bad_row import Silent
from harborctl.model import ConnectionOptions, CsvDialect, LoadOptions, WriterName
from tests.conftest import made_database
from tests.load.sizes import FIELD_BYTES, ORACLE_EXAMPLES
from tests.load.strategies import EXTENSIONS, PLAIN_KINDS, TYPES_OF_OUR_OWN, Kind, kinds

FEATURE_NOT_SUPPORTED = "0A000"

Settings = tuple[tuple[str, str], ...]
Rows = list[tuple[str]]

SETTINGS = {
    "TimeZone": ["UTC", "Etc/UTC", "America/New_York", "Asia/Kolkata", "Pacific/Apia", "<+03>-03"],
    "DateStyle": ["ISO, MDY", "ISO, DMY", "German, DMY", "SQL, DMY", "ISO, YMD", "Postgres, MDY"],
    "IntervalStyle": ["postgres", "sql_standard", "iso_8601", "postgres_verbose"],
    "array_nulls": ["on", "off"],
    "xmloption": ["content", "document"],
    "timezone_abbreviations": ["Default", "India"],
}


@dataclass(frozen=True, slots=True)
class Column:
    name: str
    kind: Kind
    required: bool


@dataclass(frozen=True)
class Example:
    """A table, a file, and how to read it; `for_copy` is what COPY is given instead of `data`."""

    columns: list[Column]
    data: bytes
    for_copy: bytes
    dialect: CsvDialect
    encoding: str
    session: Settings
    block_bytes: int
    batch_size: int
    rows: list[list[str | None]] = field(repr=False)

    def __repr__(self) -> str:
        columns = ", ".join(f"{c.name} {c.kind.name}{' NOT NULL' * c.required}" for c in self.columns)
        data = self.data if len(self.data) < 2000 else self.data[:1000] + b"..." + self.data[-500:]
        return f"({columns})\n{data!r}\n{self.dialect}\n{self.session} {self.block_bytes} {self.batch_size}"


class Oracle:
    """A database with our types, and its sessions under each combination of settings."""

    def __init__(self, url: str, folder: Path) -> None:
        self.url = url
        self.file = folder / "x.csv"
        self._sessions: dict[Settings, tuple[psycopg.Connection[Any], Database]] = {}
        self._open: list[Any] = []
        # A new name for each example: sessions keep statements prepared for a table of this name with other types.
        self._numbers = count(1)
        self.table = "target_0"
        with psycopg.connect(url, autocommit=True) as connection:
            self.version = connection.info.server_version // 10000
            available = connection.execute("SELECT name FROM pg_available_extensions").fetchall()
            extensions = [name for name in EXTENSIONS if (name,) in available]
            for name in extensions:
                connection.execute(f"CREATE EXTENSION {name}")
            # A server without libxml (the embedded one) refuses all XML: what else is in a table would not be tested.
            with contextlib.suppress(psycopg.errors.FeatureNotSupported):
                connection.execute("SELECT CAST('<a/>' AS xml)")
                extensions.append("xml")
            self.extensions = tuple(extensions)
            connection.execute(TYPES_OF_OUR_OWN)

    def session(self, wanted: Settings) -> tuple[psycopg.Connection[Any], Database]:
        if wanted not in self._sessions:
            options = " ".join(f"-c {name}={value.replace(' ', chr(92) + ' ')}" for name, value in wanted)
            url = f"{self.url}{'&' if '?' in self.url else '?'}options={quote(options)}"
            if len(self._sessions) == 16:
                self.close()
            connection = psycopg.connect(url, autocommit=True, client_encoding="utf8")
            opened = open_database(ConnectionOptions(url=url))
            self._open += [connection, opened]
            self._sessions[wanted] = (connection, opened.__enter__())
        return self._sessions[wanted]

    def close(self) -> None:
        for connection, _ in self._sessions.values():
            connection.close()
        for opened in self._open[1::2]:
            opened.__exit__(None, None, None)
        self._open.clear()
        self._sessions.clear()

    # -- the two ways

    def create(self, connection: psycopg.Connection[Any], columns: list[Column]) -> None:
        parts = [
            sql.SQL("{} {}{}").format(
                sql.Identifier(column.name), sql.SQL(column.kind.name), sql.SQL(" NOT NULL" * column.required)
            )
            for column in columns
        ]
        connection.execute(sql.SQL("DROP TABLE IF EXISTS {}").format(sql.Identifier(self.table)))
        self.table = f"target_{next(self._numbers)}"
        connection.execute(
            # The number of a row tells the order of insertion: pages do not, an INSERT fills gaps in them.
            sql.SQL("CREATE TABLE {} (number bigint GENERATED ALWAYS AS IDENTITY, {})").format(
                sql.Identifier(self.table), sql.SQL(", ").join(parts)
            )
        )

    def copied(self, connection: psycopg.Connection[Any], example: Example) -> Rows | psycopg.Error:
        """What COPY makes of the file."""
        dialect = example.dialect
        columns = sql.SQL(", ").join(sql.Identifier(column.name) for column in example.columns)
        statement = sql.SQL(
            "COPY {} ({}) FROM STDIN (FORMAT csv, HEADER {}, DELIMITER {}, QUOTE {}, ESCAPE {}, NULL {}, ENCODING {})"
        ).format(
            sql.Identifier(self.table),
            columns,
            dialect.header,
            dialect.delimiter,
            dialect.quote,
            dialect.escape or dialect.quote,
            dialect.nulls[0],
            example.encoding,
        )
        try:
            with connection.cursor().copy(statement) as copy:
                copy.write(example.for_copy)
        except psycopg.Error as error:
            return error
        return self.stored(connection)

    def loaded(
        self, connection: psycopg.Connection[Any], database: Database, example: Example, writer: WriterName
    ) -> Rows | LoadFailed:
        """What harborctl makes of the file."""
        self.file.write_bytes(example.data)
        options = LoadOptions(
            (str(self.file),),
            table=self.table,
            dialect=example.dialect,
            writer=writer,
            ledger=False,
            batch_size=example.batch_size,
        )
        connection.execute(sql.SQL("TRUNCATE {} RESTART IDENTITY").format(sql.Identifier(self.table)))
        usual = harborctl.sources.csv.splitter.BLOCK_BYTES
        # Not too many blocks: of those before the last two dozen the copy writer no longer knows where they stood.
        harborctl.sources.csv.splitter.BLOCK_BYTES = max(example.block_bytes, len(example.data) // 16)
        try:
            result = run_load(database, options, Silent())
        except LoadFailed as error:
            assert self.stored(connection) == []
            return error
        finally:
            harborctl.sources.csv.splitter.BLOCK_BYTES = usual
        rows = self.stored(connection)
        assert result.inserted == len(rows)
        return rows

    def stored(self, connection: psycopg.Connection[Any]) -> Rows:
        statement = sql.SQL("SELECT t::text FROM {} AS t ORDER BY number").format(sql.Identifier(self.table))
        return connection.execute(statement).fetchall()


@pytest.fixture(scope="module")
def oracle(server_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Oracle]:
    with made_database(server_url, f"harborctl_oracle_{os.getpid()}", template="template0") as url:
        oracle = Oracle(url, tmp_path_factory.mktemp("oracle"))
        yield oracle
        oracle.close()


# -- examples

NAMES = ["id", "a b", "per%cent", 'q"uote', "é", "select", "C"]

dialects = st.one_of(
    st.just(CsvDialect()),
    st.builds(
        CsvDialect,
        delimiter=st.sampled_from(",;|\t :~a0."),
        quote=st.sampled_from("\"'`$\\b"),
        escape=st.sampled_from([None, None, "\\", "!", '"', "'", ","]),
        nulls=st.sampled_from(
            [("",), ("NULL",), ("\\N",), ("-",), (" ",), ("null", "n/a"), ("", "-", "none"), ("1",), ("é",)]
        ),
    ),
).filter(
    lambda d: (
        d.delimiter != d.quote and not any(character in null for null in d.nulls for character in d.delimiter + d.quote)
    )
)
sessions = st.one_of(
    st.just((("TimeZone", "UTC"),)),
    st.tuples(*(st.tuples(st.just(name), st.sampled_from(values)) for name, values in SETTINGS.items())),
)
encodings = st.sampled_from(
    [("utf-8", "UTF8")] * 5 + [("latin-1", "LATIN1"), ("cp1252", "WIN1252"), ("utf-16", "UTF8")]
)


def _field(value: str | None, dialect: CsvDialect, null: str, *, quoted: bool) -> str:
    if value is None:
        return null
    special = {dialect.delimiter, dialect.quote, "\r", "\n"}
    if not quoted and value not in dialect.nulls and not special.intersection(value):
        return value
    escape = dialect.escape or dialect.quote
    for character in dict.fromkeys((escape, dialect.quote)):
        value = value.replace(character, escape + character)
    return dialect.quote + value + dialect.quote


@st.composite
def examples(draw: st.DrawFn, extensions: tuple[str, ...]) -> Example:
    names = draw(st.permutations(NAMES))
    kind = draw(st.sampled_from([kinds(extensions), kinds(extensions), PLAIN_KINDS]))
    count = draw(st.integers(1, 4))
    columns = [Column(names[n], draw(kind), draw(st.sampled_from([False] * 5 + [True]))) for n in range(count)]
    dialect = draw(dialects)
    codec, encoding = draw(encodings)
    # Of odd texts many are refused, and one refused field hides all the others: most tables have few of them.
    oddity = draw(st.sampled_from([0, 0, 0, 1, 1, 5]))
    rows: list[list[str | None]] = []
    for _ in range(draw(st.integers(0, 6))):
        row: list[str | None] = []
        for column in columns:
            choice = draw(st.integers(0, 9))
            text = draw(column.kind.odd if choice < oddity else column.kind.usual)
            row.append(None if choice == 9 and not (column.required and oddity == 0) else text)
        rows.append(row)
    if codec != "utf-16":
        rows = [[v and v.encode(codec, "replace").decode(codec) for v in row] for row in rows]
    if rows and draw(st.sampled_from([False] * 12 + [True])):
        # Long stretches of one row after the other, so that batches of one format follow those of another.
        repeats = draw(st.sampled_from([500, 3000]))
        rows = [row for row in rows for _ in range(repeats)][:12_000]
    mutations = draw(st.sampled_from([0, 0, 0, 1, 3])) if len(rows) < 100 else 0
    if mutations:
        # Moved quotes turn data into line ends. Of CRs among them COPY would say that they differ from other line ends.
        rows = [[v and v.replace("\r", "\n") for v in row] for row in rows]
    has_header = bool(mutations) or draw(st.sampled_from([True] * 4 + [False]))
    skipped = 0 if mutations else draw(st.sampled_from([0] * 6 + [1, 3]))
    few = rows[:: max(1, len(rows) // 6)]
    quotes = draw(st.lists(st.booleans(), min_size=7, max_size=7))

    def table(ends: list[str], nulls: tuple[str, ...], skipped: int = 0) -> str:
        header = dialect.delimiter.join(_field(c.name, dialect, "", quoted=c.name in ("", *nulls)) for c in columns)
        lines = ['made "by hand, é'] * skipped + [header] * has_header
        for number, row in enumerate(rows):
            fields = [
                _field(value, dialect, nulls[number % len(nulls)], quoted=quotes[(number + place) % len(quotes)])
                for place, value in enumerate(row)
            ]
            lines.append(dialect.delimiter.join(fields))
        if "" in lines or "\n" in lines:
            ends = ends[:1]  # an empty line after a CR, and before a LF, is not there
        return "".join(line + ends[number % len(ends)] for number, line in enumerate(lines))

    one_end = draw(st.sampled_from(["\n", "\n", "\r\n", "\r"])) if not mutations else "\n"
    # A LF in a file of CRLF may be one inside the only field of a record.
    mixed = ["\r\n", "\n", "\n"] if len(columns) > 1 else ["\n", "\r\n", "\n"]
    ends = draw(st.sampled_from([[one_end], [one_end], mixed])) if not mutations else [one_end]
    data = table(ends, dialect.nulls, skipped).encode(codec)
    plain = "utf-8" if codec == "utf-16" else codec
    for_copy = table(["\n"] if len(ends) > 1 else ends, dialect.nulls[:1]).encode(plain)
    if mutations and codec != "utf-16" and len(dialect.nulls) == 1:
        data = for_copy = _mutated(draw, data, data.find(b"\n") + 1, dialect, mutations)
    if draw(st.booleans()):
        data, for_copy = _without_last_line_end(data, codec), _without_last_line_end(for_copy, plain)
    if codec == "utf-8" and draw(st.sampled_from([False] * 5 + [True])):
        data = codecs.BOM_UTF8 + data
    return Example(
        columns,
        data,
        for_copy,
        replace(
            dialect,
            encoding=codec,
            header=has_header,
            columns=() if has_header else tuple(column.name for column in columns),
            skip_lines=skipped,
        ),
        encoding,
        draw(sessions),
        draw(st.sampled_from([16, 100, 4096, 512 * 1024])),
        draw(st.sampled_from([1, 7, 1000])),
        few,
    )


def _mutated(draw: st.DrawFn, data: bytes, start: int, dialect: CsvDialect, count: int) -> bytes:
    characters = [dialect.delimiter, dialect.quote, dialect.escape or dialect.quote, "\n", "\\", " ", "1", "\x00"]
    inserted = st.one_of(
        st.sampled_from([character.encode() for character in characters]), st.sampled_from([b"\xff", b"\xc3", b""])
    )
    for _ in range(count):
        place = draw(st.integers(start, len(data)))
        data = data[:place] + draw(inserted) + data[place + draw(st.integers(0, 1)) :]
    return data


def _without_last_line_end(data: bytes, codec: str) -> bytes:
    text = data.decode(codec, "surrogateescape") if codec == "utf-8" else data.decode(codec)
    for end in ("\r\n", "\n", "\r"):
        if text.endswith(end) and text.count(end) > 1:
            return text.removesuffix(end).encode(codec, "surrogateescape" if codec == "utf-8" else "strict")
    return data


@settings(
    max_examples=ORACLE_EXAMPLES or 50,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
    print_blob=True,
)
@given(data=st.data())
def test_harborctl_stores_what_copy_stores_and_refuses_what_copy_refuses(oracle: Oracle, data: st.DataObject) -> None:
    example = data.draw(examples(oracle.extensions))
    if oracle.version < 18:
        assume(not re.search(rb"(^|[\r\n])\\\.([\r\n]|$)", example.for_copy))
    event("stored" if check(oracle, example) else "refused")


def check(oracle: Oracle, example: Example) -> bool:
    """Compare COPY with both writers; whether the rows went in."""
    connection, database = oracle.session(example.session)
    oracle.create(connection, example.columns)
    expected = oracle.copied(connection, example)
    for writer in (WriterName.COPY, WriterName.VALUES):
        got = oracle.loaded(connection, database, example, writer)
        if isinstance(expected, psycopg.Error):
            assert isinstance(got, LoadFailed), f"{writer} took what COPY refuses: {expected}"
            # What the server cannot do at all, as XML without libxml, is no row's fault.
            is_placed = got.error.location is not None or expected.sqlstate == FEATURE_NOT_SUPPORTED
            assert is_placed, f"{writer} does not say where: {got.error!r}"
        else:
            assert not isinstance(got, LoadFailed), f"{writer} refuses what COPY takes: {got} {got.error.location}"
            assert got == expected, writer
    return not isinstance(expected, psycopg.Error)


# -- what once was a difference


def example_of(
    types: str | list[str],
    data: bytes,
    *,
    dialect: CsvDialect | None = None,
    session: Settings = (),
    block_bytes: int = 16,
) -> Example:
    """A file for columns named c0, c1, … of these types."""
    columns = [
        Column(f"c{number}", Kind(name, st.nothing(), st.nothing()), required=False)
        for number, name in enumerate([types] if isinstance(types, str) else types)
    ]
    dialect = dialect or CsvDialect()
    data = dialect.delimiter.join(column.name for column in columns).encode() + b"\n" + data
    return Example(columns, data, data, dialect, "UTF8", session, block_bytes, 1000, [])


@pytest.mark.parametrize(
    "example",
    [
        example_of("date", b"0000-01-01\n"),
        example_of("date", b"0001-01-01\n9999-12-31\n"),
        example_of("timestamptz", b"0000-12-31 23:00:00-05\n"),
        example_of("timestamptz", b"0001-01-01 00:00:00+05\n"),
        example_of("numeric(10,2)", b"1e+-1\n"),
        example_of("numeric(10,2)", b"1e-1\n+1E2\n"),
        example_of("numeric(10,2)", b"1e-20000\n"),
        example_of("numeric(10,2)[]", b"{1e-20000}\n"),
        example_of("interval hour", b"5\n"),
        example_of("interval minute to second", b"1:30\n"),
        example_of("interval hour[]", b"{5}\n"),
        example_of("text", "\ufeffa\n\ufeffb\n".encode()),
        example_of(["text", "text"], b'a,b\n"",'),
        example_of(["date", "text"], b'"",b\n'),
        example_of(["numeric(5,2)", "text"], b'"",b\n'),
        example_of(["integer", "date"], b" 1 , 2020-01-01 \n"),
        example_of(["text", "text"], b"a,b\n\nc,d\n"),
        example_of(["text", "text"], b'"a\nb,"\n"c,d"'),
        example_of("text", b'"a,"b"\n', dialect=CsvDialect(escape=",")),
        example_of("mood", b"sad\n\n"),
        example_of("shadow.date", b"2020-01-01\n"),
        example_of("shadow.int4", b'"(1,2)"\n'),
        example_of("shadow.bool", b'"[1,2)"\n'),
        example_of(
            "timestamptz", b"2020-01-01 00:00:00\n2020-01-01 00:00:00+01\n", session=(("TimeZone", "Asia/Kolkata"),)
        ),
        example_of("tsvector", b"'a\n"),
        example_of("regclass", b"nothing.such\n"),
        example_of("jsonpath", b"$[\n"),
        example_of("xml", b"<a\n"),
        example_of("text", b'a\n"\\."x\nb\n'),
        example_of("text", b'a\n\xc2"\x80"\n'),
        example_of(["text", "text"], b'a,"b\n\xc3"\xa9\n'),
    ],
    ids=repr,
)
def test_known_stumbling_blocks(oracle: Oracle, example: Example) -> None:
    check(oracle, example)


def test_a_line_of_backslash_and_dot_is_data(oracle: Oracle) -> None:
    """As to COPY from PostgreSQL 18 on. Before, it ends there."""
    example = example_of("text", b"a\n\\.\nb\n")
    connection, database = oracle.session(example.session)
    oracle.create(connection, example.columns)
    for writer in (WriterName.COPY, WriterName.VALUES):
        assert oracle.loaded(connection, database, example, writer) == [("(1,a)",), ('(2,"\\\\.")',), ("(3,b)",)]


def test_a_trailing_delimiter_in_header_and_rows_is_no_column(oracle: Oracle) -> None:
    example = example_of(["integer", "text"], b"")
    data = b"c0,c1,\n1,a,\n2,b,\n"
    connection, database = oracle.session(example.session)
    oracle.create(connection, example.columns)
    for writer in (WriterName.COPY, WriterName.VALUES):
        got = oracle.loaded(connection, database, replace(example, data=data), writer)
        assert got == [("(1,1,a)",), ("(2,2,b)",)]


# -- every type, whatever the dice say

# Each type of the documentation's list: its lowest and highest, its oddest spelling.
PLAIN_TYPES: dict[str, list[str]] = {
    "smallint": ["-32768", "32767", " 7 "],
    "integer": ["-2147483648", "2147483647", "+1"],
    "bigint": ["-9223372036854775808", "9223372036854775807", "007"],
    "real": ["-3.4028235e38", "1e-45", "NaN"],
    "double precision": ["1.7976931348623157e308", "5e-324", "-Infinity"],
    "numeric": ["1" * 100 + "." + "1" * 100, "-Infinity", "NaN"],
    "numeric(15,2)": ["-9999999999999.99", "0.005", "NaN"],
    "numeric(50,20)": ["1" * 30 + ".5", "1e-30", "-.5"],
    "boolean": ["tr", "OFF", "1"],
    "char(5)": ["a", "abcde   ", "é"],
    "varchar(5)": ["", "abcde   ", "éèêëē"],
    "text": ["", "\\N", " a\nb "],
    "bytea": ["\\x00ff", "a\\000b", ""],
    "date": ["4714-11-24 BC", "5874897-12-31", "infinity"],
    "time": ["00:00", "24:00:00", "23:59:59.9999996"],
    "timestamp": ["4714-11-24 00:00:00 BC", "294276-12-31 23:59:59.999999", "-infinity"],
    "timestamptz": ["2020-01-01 00:00:00+15:59", "2020-07-01 00:00:00 America/New_York", "infinity"],
    "uuid": ["c0ffee00-1234-5678-9abc-def012345678", "{C0FFEE0012345678-9ABCDEF012345678}", "0" * 32],
    "json": ['{"a":1,"a":2}', "1.10", ' "\\u0000"'],
    "jsonb": ['{"b":1, "a":[]}', "1.10", "1e5"],
    "mood": ["sad", "a,b", "NULL"],
}
OTHER_TYPES: dict[str, list[str]] = {
    "timetz": ["00:00:00+15:59", "24:00:00-15", "12:30"],
    "timetz(2)": ["12:30:00.125+01", "2020-07-01 12:30 America/New_York", "allballs"],
    "timestamp(3)": ["2020-01-01 00:00:00.0005", "9999-12-31 23:59:59.9999", "epoch"],
    "interval": ["178000000 years", "-1 mons +3 days -04:05:06.789", "P1Y2M3DT4H5M6S"],
    "interval hour to minute": ["1:30", "1 day 2:03:04", "5"],
    "interval(2)": ["0.125 s", "1 day ago", "1-2"],
    "name": ["n" * 63, "a b", ""],
    "inet": ["10.0.0.1/8", "::ffff:1.2.3.4", "255.255.255.255"],
    "cidr": ["10", "::/0", "192.168/16"],
    "macaddr": ["08002b:010203", "0800.2b01.0203", "08-00-2b-01-02-03"],
    "macaddr8": ["08:00:2b:01:02:03", "08002b0102030405", "ff:ff:ff:ff:ff:ff:ff:ff"],
    "money": ["-92233720368547758.08", "92233720368547758.07", "$1,234.567"],
    "bit": ["0", "1", "B1"],
    "bit(9)": ["101010101", "000000000", "b111111111"],
    "varbit": ["", "x1F", "1" * 100],
    "int4range": ["empty", "(,)", "(-5,7]"],
    "int8range": ["[-9223372036854775808,9223372036854775807)", "(1,2)", "[,3]"],
    "numrange": ["[1.50,1.5]", "(,NaN)", "empty"],
    "daterange": ["[2020-01-01,infinity]", "(4713-01-01 BC,)", "(2020-01-01,2020-01-03]"],
    "tsrange": ['["2020-01-01 10:00","2020-01-01 10:30"]', "(,)", "[-infinity,infinity]"],
    "tstzrange": ['["2020-01-01 10:00+01","2020-01-01 10:30-01"]', "empty", "(,2020-01-01)"],
    "floatrange": ["[-1e3,inf)", "(0.1,0.2)", "empty"],
    "int4multirange": ["{}", "{[1,3),[2,5)}", "{(,)}"],
    "int8multirange": ["{[1,1]}", "{ }", "{(,1),(5,)}"],
    "nummultirange": ["{[1.50,2],(7,8]}", "{}", "{(,)}"],
    "datemultirange": ["{[2020-01-01,2020-01-03],[2020-01-04,)}", "{}", "{empty}"],
    "tsmultirange": ['{["2020-01-01 10:00",)}', "{}", "{(,)}"],
    "tstzmultirange": ['{["2020-01-01 10:00+01",)}', "{}", "{(,)}"],
    "integer[]": ["{}", "{{1,NULL},{3,4}}", "[0:1]={1,2}"],
    "integer[][]": ["{{{1},{2}},{{3},{4}}}", "{1}", "[2:2][3:3]={{7}}"],
    "text[]": ['{"",NULL,"NULL"}', '{{"a,b"},{"\\"\\\\"}}', "{ a b }"],
    "numeric(10,2)[]": ["{1.005,NaN}", "{1e-20000}", "{{1},{2}}"],
    "interval hour[]": ["{5,1 day}", "{{5},{NULL}}", "{}"],
    "timestamptz[]": ['{"2020-01-01 00:00:00+05:30"}', "{infinity,NULL}", "{{epoch}}"],
    "bytea[]": ['{"\\\\x00ff"}', "{}", "{NULL}"],
    "mood[]": ['{sad,"a,b"}', '{"NULL",NULL}', "{}"],
    "pair[]": ['{"(1,a)",NULL}', '{"(,\\"\\")"}', "{}"],
    "int4range[]": ['{"[1,2)",empty}', "{}", "{NULL}"],
    "jsonb[]": ['{"{\\"a\\": 1.10}"}', "{null}", "{1,2}"],
    "short": ["", "abcd   ", "é"],
    "seconds": ["2020-01-01 00:00:00.5+01", "infinity", "2020-01-01"],
    "code": ["a", "abc", "é"],
    "hours": ["5", "1 day", "2:30"],
    "few": ["{}", "{1,2,3}", "{{1},{2}}"],
    "doc": ["{}", "1.10", "[]"],
    "pair": ["(1,a)", "(,)", '(,"")'],
    "amount": ["(1.005,EUR)", "(,E)", "(NaN,)"],
    "nested": ['("(1,a)","{x,y}","2020-01-01 00:00:00.6+01",5,sad)', "(,,,,)", '(,{},,"1 day 2 hours",ok)'],
    "tsvector": ["b:2A a", "", "'it''s':3"],
    "tsquery": ["a & !b", "a <-> b", "'a b':*"],
    "point": ["(1,2)", "1,2", "(-0,1e300)"],
    "lseg": ["[(1,2),(3,4)]", "1,2,3,4", "((1,2),(3,4))"],
    "line": ["{1,2,3}", "[(1,2),(3,4)]", "{0,1,0}"],
    "box": ["(1,2),(3,4)", "3,4,1,2", "((3,4),(1,2))"],
    "path": ["[(1,2),(3,4)]", "((1,2),(3,4))", "(1,2)"],
    "polygon": ["((1,2),(3,4),(5,6))", "1,2", "((0,0),(1,1))"],
    "circle": ["<(1,2),3>", "1,2,3", "((1,2),3)"],
    "box[]": ["{(1,2),(3,4);(5,6),(7,8)}", "{}", "{NULL}"],
    "oid": ["0", "4294967295", "-1"],
    "jsonpath": ["$.a", "strict $[*] ? (@ > 1)", "$"],
}
EXTENSION_TYPES: dict[str, dict[str, list[str]]] = {
    "xml": {"xml": ["<a/>", "<a b='c'>é</a>", "a"]},
    "citext": {"citext": ["Abc", "", "É"], "citext[]": ["{A,a}", "{}", "{NULL}"]},
    "hstore": {"hstore": ["a=>1", '"a b"=>NULL, c=>"d"', ""]},
    "ltree": {"ltree": ["a.b.c", "Top.X_1", "a"]},
    "cube": {"cube": ["(1,2),(3,4)", "1", "(0.1)"]},
    "isn": {"isbn": ["978-0-393-04002-9", "0-393-04002-X", "0393040029!"]},
    "vector": {"vector": ["[1,2.5,-3e2]", "[0.1]", "[1,2]"], "vector(3)": ["[1,2,3]", "[0.1,-2e3,5]", "[0,0,0]"]},
}


def every(types: dict[str, list[str]], block_bytes: int) -> Example:
    """A column of each type: three rows of texts around one of NULLs."""

    def line(texts: list[str]) -> str:
        return ",".join('"' + text.replace('"', '""') + '"' for text in texts) + "\n"

    rows = [line(list(texts)) for texts in zip(*types.values(), strict=True)]
    text = rows[0] + "," * (len(types) - 1) + "\n" + rows[1] + rows[2]
    return example_of(list(types), text.encode(), block_bytes=block_bytes)


@pytest.mark.parametrize("block_bytes", [16, 4096])
@pytest.mark.parametrize("fast", [True, False])
def test_a_column_of_each_type(oracle: Oracle, fast: bool, block_bytes: int) -> None:
    extended = [types for name, types in EXTENSION_TYPES.items() if name in oracle.extensions]
    types = PLAIN_TYPES if fast else reduce(operator.or_, extended, PLAIN_TYPES | OTHER_TYPES)
    assert check(oracle, every(types, block_bytes))


# -- what is large


def test_as_many_columns_as_a_table_can_have(oracle: Oracle) -> None:
    # One of the 1 600 is the row's number.
    row = ",".join(str(number % 10) for number in range(1599))
    assert check(oracle, example_of(["smallint"] * 1599, f"{row}\n{row}\n".encode()))


@pytest.mark.parametrize("part", ["x", 'é"",\r\n'], ids=["plain", "quotes and line ends"])
def test_a_line_of_many_megabytes(oracle: Oracle, part: str) -> None:
    field = part * (FIELD_BYTES // len(part.encode()))
    data = f'1,a\n2,"{field}"\n3,b\n'.encode()
    assert check(oracle, example_of(["integer", "text"], data, block_bytes=512 * 1024))
