"""Reports of any statement, type and value, through all formats, read back and compared with what psql shows.

The short form takes a few examples, the long one as many as HARBORCTL_TEST_REPORT_EXAMPLES says. Readers are not ours:
psql for CSV, the standard library for JSON and HTML, markdown-it for Markdown, DuckDB and Arrow for Parquet, openpyxl
and the standard library for spreadsheets.
"""

from __future__ import annotations

import io
import json
import math
import os
import re
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any

import duckdb
import openpyxl
import psycopg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import sqlalchemy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from sqlalchemy import Engine

from harborctl.embedded.programs import find_psql
from harborctl.embedded.server import Server
from harborctl.errors import HarborctlError
from harborctl.reports.formats import Format
from harborctl.reports.parse import parse_report
from harborctl.reports.render import Layout
from harborctl.reports.result import unique_names
from harborctl.reports.run import RunOptions, run_report
from harborctl.reports.write import write
from tests.conftest import TEST_URL, engine_of, made_database
from tests.load.sizes import REPORT_EXAMPLES
from tests.reports.test_formats import Page, cells

CELL, ROW, NULL, PART = "\x1f", "\x1e", "\x02", "\x1d"

# Sessions differ in what they make of times and money; what a report says goes by the zone alone.
SESSIONS = [
    "-c TimeZone=UTC",
    "-c TimeZone=Asia/Kathmandu -c DateStyle=German -c IntervalStyle=iso_8601 -c extra_float_digits=-10",
    "-c TimeZone=America/St_Johns -c DateStyle=SQL,DMY -c bytea_output=escape -c IntervalStyle=sql_standard",
]
# What reports are written in, whatever the session says.
WRITTEN = "-c DateStyle=ISO -c IntervalStyle=postgres -c bytea_output=hex -c extra_float_digits=1"

ODD = [
    "NULL",
    "null",
    "\\.",
    "a,b",
    "a|b",
    'q"uote',
    "it's",
    "*x* _y_ `z`",
    "<b>&amp;</b>",
    "\\",
    "_x0041_",
    "{1}",
    "=1+1",
]
ODDER = [
    "",
    " ",
    "two\nlines",
    "tab\tbed",
    "東京",
    "😀👨\u200d👩",
    "e\u0301",
    "\u00a0",
    "\u202e",
    "\u2028",
    "#",
    "- a",
    "1.",
]
TEXT = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Zl", "Zp")), max_size=8) | st.sampled_from(
    [*ODD, *ODDER, "-", "::int", ":x", "$1", "%s"]
)
# Literals of each type, as the server reads them.
VALUES: dict[str, st.SearchStrategy[str]] = {
    "int2": st.integers(-(2**15), 2**15 - 1).map(str),
    "int4": st.integers(-(2**31), 2**31 - 1).map(str),
    "int8": st.integers(-(2**63), 2**63 - 1).map(str),
    "float4": st.floats(width=32).map(repr),
    "float8": st.floats().map(repr),
    "numeric": st.decimals(allow_nan=False, allow_infinity=False, min_value=-(10**40), max_value=10**40).map(str)
    | st.sampled_from(["NaN", "Infinity", "0.00000000000000000001", "1e100"]),
    "numeric(12,4)": st.decimals(-(10**7), 10**7, places=4).map(str) | st.just("NaN"),
    "bool": st.sampled_from(["t", "f"]),
    "text": TEXT,
    "varchar(20)": TEXT,
    "bpchar(9)": TEXT,
    "name": TEXT,
    "bytea": st.binary(max_size=6).map(lambda data: "\\x" + data.hex()),
    "date": st.dates().map(str) | st.sampled_from(["infinity", "-infinity", "0044-03-15 BC", "12345-01-01"]),
    "time": st.times().map(str) | st.just("24:00"),
    "timetz": st.times().map(lambda t: f"{t}+05:45"),
    "timestamp": st.datetimes().map(str) | st.sampled_from(["infinity", "-infinity", "0044-03-15 12:00 BC"]),
    "timestamptz": st.datetimes(datetime(2, 1, 1), datetime(9998, 1, 1)).map(lambda t: f"{t}+00")
    | st.sampled_from(["infinity", "1850-06-01 12:00:00+00", "0044-03-15 12:00+00 BC"]),
    "interval": st.tuples(st.integers(-99, 99), st.integers(-99, 99), st.integers(-(10**9), 10**9)).map(
        lambda parts: "{} mons {} days {} microseconds".format(*parts)
    ),
    "uuid": st.uuids().map(str),
    "money": st.decimals(-(10**9), 10**9, places=2).map(str),
    "oid": st.integers(0, 2**32 - 1).map(str),
    "json": st.recursive(st.none() | st.booleans() | st.integers() | TEXT, lambda x: st.lists(x, max_size=3)).map(
        lambda value: json.dumps(value, indent=1)
    ),
    "jsonb": st.dictionaries(TEXT, st.integers() | TEXT, max_size=3).map(json.dumps),
    "inet": st.ip_addresses().map(str),
    "int4range": st.sampled_from(["[1,5)", "empty", "(,3]"]),
    "point": st.sampled_from(["(1,2)", "(-1.5,1e+30)"]),
}
NAMES = TEXT.filter(lambda name: 0 < len(name.encode()) <= 60)


@dataclass(frozen=True)
class Query:
    """A statement, and the types of its columns."""

    sql: str
    types: tuple[str, ...]


def literal(text: str | None, kind: str) -> str:
    return f"NULL::{kind}" if text is None else "'" + text.replace("'", "''") + f"'::{kind}"


def quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def array(elements: list[str | None]) -> str:
    parts = ["NULL" if e is None else '"' + e.replace("\\", "\\\\").replace('"', '\\"') + '"' for e in elements]
    return "{" + ",".join(parts) + "}"


@st.composite
def queries(draw: st.DrawFn) -> Query:
    """Statements of several shapes over rows of any types."""
    kinds = draw(st.lists(st.tuples(st.sampled_from(sorted(VALUES)), st.booleans()), min_size=1, max_size=5))
    types = tuple(f"{kind}[]" if is_list else kind for kind, is_list in kinds)
    strategies = [
        st.none() | (st.lists(st.none() | VALUES[kind], max_size=3).map(array) if is_list else VALUES[kind])
        for kind, is_list in kinds
    ]
    rows = draw(st.lists(st.tuples(*strategies), min_size=1, max_size=4))
    names = draw(st.lists(NAMES, min_size=len(types), max_size=len(types)))
    columns = ", ".join(f"c{number} AS {quoted(name)}" for number, name in enumerate(names))
    aliases = ", ".join(f"c{number}" for number in range(len(types)))
    values = ", ".join("(" + ", ".join(map(literal, row, types)) + ")" for row in rows)
    shapes = [
        f"SELECT {columns} FROM (VALUES {values}) AS v ({aliases})",
        f"WITH v ({aliases}) AS (VALUES {values}) -- it's :no parameter\nSELECT {columns} FROM v /* nor :this */",
        f"(SELECT {columns} FROM (VALUES {values}) AS v ({aliases}))",
        f"SELECT {columns} FROM (VALUES {values}) AS v ({aliases}) LIMIT 2 OFFSET 1",
        f"SELECT {columns} FROM (VALUES {values}) AS v ({aliases}) WHERE false",
    ]
    return Query(draw(st.sampled_from(shapes)), types)


Texts = list[list[str | None]]


def psql(url: str, options: str, sql: str, count: int) -> tuple[Texts, list[list[Any]], bytes]:
    """What psql shows: the rows, the same rows by to_json, and CSV by COPY."""
    program = find_psql()
    if program is None:
        pytest.skip("no psql")
    aliases = ", ".join(f"c{number}" for number in range(count))
    as_json = ", ".join(f"to_json(c{number})" for number in range(count))
    commands = [
        sql,
        f"SELECT '{PART}'",
        f"SELECT {as_json} FROM ({sql}\n) AS q ({aliases})",
        f"SELECT '{PART}'",
        f"COPY ({sql}\n) TO STDOUT (FORMAT csv, HEADER)",
    ]
    shown = subprocess.run(
        [
            program,
            "-X",
            "-q",
            "-A",
            "-t",
            "-F",
            CELL,
            "-R",
            ROW,
            "-P",
            f"null={NULL}",
            "-v",
            "ON_ERROR_STOP=1",
            "-d",
            url,
        ]
        + [word for command in commands for word in ("-c", command)],
        env={**os.environ, "PGOPTIONS": f"{options} {WRITTEN}", "PGCLIENTENCODING": "UTF8"},
        capture_output=True,
        check=False,
    )
    assert shown.returncode == 0, shown.stderr.decode()
    rows, documents, copied = shown.stdout.split(f"{PART}\n".encode())
    texts = list(_cells(rows.decode()))
    parsed = [
        [None if text is None else json.loads(text, parse_float=Decimal) for text in row]
        for row in _cells(documents.decode())
    ]
    return texts, parsed, copied


def _cells(shown: str) -> Iterator[list[str | None]]:
    if shown:
        for row in shown.removesuffix("\n").split(ROW):
            yield [None if cell == NULL else cell for cell in row.split(CELL)]


def written(engine: Engine, sql: str, output: Format, *, lines: bool = False) -> tuple[list[str], bytes]:
    stream = io.BytesIO()
    with run_report(engine, parse_report("r", "r.sql", sql), {}, RunOptions(lines=lines)) as result:
        write(result, output, Layout(title="T"), None, stream)
    return unique_names(result.columns), stream.getvalue()


def check(engine: Engine, url: str, options: str, query: Query) -> None:
    """All formats hold what psql shows."""
    texts, documents, copied = psql(url, options, query.sql, len(query.types))
    for lines in (False, True):
        names, data = written(engine, query.sql, Format.CSV, lines=lines)
        assert data == copied
    _check_json(query, names, texts, documents, written(engine, query.sql, Format.JSON)[1])
    by_line = written(engine, query.sql, Format.JSONL)[1].decode().split("\n")[:-1]
    _check_json(query, names, texts, documents, f"[{','.join(by_line)}]".encode())
    page = Page(written(engine, query.sql, Format.HTML)[1].decode())
    assert page.rows[1:] == texts
    _check_table(texts, written(engine, query.sql, Format.TABLE)[1].decode())
    assert _markdown(written(engine, query.sql, Format.MARKDOWN)[1].decode())[1:] == [
        ["NULL" if text is None else text.strip() for text in row] for row in texts
    ]
    _check_sheet(query, texts, written(engine, query.sql, Format.XLSX)[1])
    for lines in (False, True):
        _check_parquet(engine, query, names, texts, documents, lines=lines)


def _check_json(query: Query, names: list[str], texts: Texts, documents: list[list[Any]], data: bytes) -> None:
    found = json.loads(data, parse_float=Decimal)
    assert [list(row) for row in found] == [names] * len(texts)
    for row, shown, expected in zip(found, texts, documents, strict=True):
        for kind, value, text, document in zip(query.types, row.values(), shown, expected, strict=True):
            if text is None:
                assert value is None
            elif kind in AS_TEXT:
                assert value == text
            elif kind == "oid":  # a number to us, and text to PostgreSQL
                assert value == int(text)
            elif text.endswith("BC"):
                assert value == text
            elif kind.endswith("[]"):
                assert _plain(value) == _plain(document), kind
            else:
                assert value == document, kind


def _plain(document: Any) -> Any:
    """Without what oids, and years before Christ, are told apart by."""
    if isinstance(document, list):
        return [_plain(element) for element in document]
    return str(document).replace("T", " ").replace(":00 BC", " BC") if document is not None else None


def _check_table(texts: Texts, shown: str) -> None:
    lines = shown.split("\n")
    assert lines[-2] == f"({len(texts)} row{'' if len(texts) == 1 else 's'})"
    if any(text and ("\n" in text or "\\" in text or not text.isprintable()) for row in texts for text in row):
        return
    body = lines[-2 - len(texts) : -2]
    assert ["".join(line.split()) for line in body] == [
        "".join("".join("NULL" if text is None else text for text in row).split()) for row in texts
    ]


def _markdown(text: str) -> list[list[str]]:
    rows: list[list[str]] = []
    for token in MarkdownIt("commonmark").enable("table").parse(text):
        if token.type == "tr_open":
            rows.append([])
        elif token.type == "inline":
            parts = ["\n" if child.content == "<br>" else child.content for child in token.children or []]
            assert {child.type for child in token.children or []} <= {"text", "html_inline", "text_special"}
            rows[-1].append("".join(parts))
    return rows


def _check_sheet(query: Query, texts: Texts, data: bytes) -> None:
    filled = [row for row in texts if any(text is not None for text in row)]  # a sheet leaves out a row of nothing
    found = [row for row in cells(data)[1:] if row]
    assert len(found) == len(filled)
    for row, shown in zip(found, filled, strict=True):
        whole = [*row, *[None] * (len(shown) - len(row))]
        for kind, value, text in zip(query.types, whole, shown, strict=True):
            if isinstance(value, bool):
                assert value is (text == "t")
            elif isinstance(value, float):
                assert text is not None
                if kind in ("date", "timestamp"):
                    moment = datetime.fromisoformat(text)
                    assert abs(value * 86400 - (moment - datetime(1899, 12, 30)).total_seconds()) < 0.0005
                else:
                    assert value == float(text), kind
            elif value is None:
                assert not text
            else:
                assert re.sub("_x([0-9A-F]{4})_", lambda match: chr(int(match[1], 16)), value) == text
    _check_by_openpyxl(query, filled, data)


def _check_by_openpyxl(query: Query, filled: Texts, data: bytes) -> None:
    """openpyxl knows formats too, so that a date is one; it makes a float of each number."""
    sheet = openpyxl.load_workbook(io.BytesIO(data)).worksheets[0]
    found = [row for row in sheet.iter_rows(min_row=2, values_only=True) if any(cell not in (None, "") for cell in row)]
    assert len(found) == len([row for row in filled if any(row)])
    for row, shown in zip(found, [row for row in filled if any(row)], strict=True):
        for kind, value, text in zip(query.types, [*row, *[None] * (len(shown) - len(row))], shown, strict=True):
            if value is None:
                assert not text
            elif isinstance(value, bool):
                assert value is (text == "t")
            elif isinstance(value, datetime):
                assert kind in ("date", "timestamp")
                assert abs(value - datetime.fromisoformat(str(text))) < timedelta(milliseconds=1)
            elif isinstance(value, (int, float)):
                assert value == float(str(text)), kind
            else:
                assert str(value) == text, kind


# What Parquet's types cannot hold.
UNFIT = re.compile(r"[iI]nfinity|BC|24:00|NaN|\d{5,}-\d\d-|\{\{")


def _check_parquet(
    engine: Engine,
    query: Query,
    names: list[str],
    texts: Texts,
    documents: list[list[Any]],
    *,
    lines: bool,
) -> None:
    try:
        _, data = written(engine, query.sql, Format.PARQUET, lines=lines)
    except HarborctlError as error:
        place = names.index(str(error.column))
        digits = [len(re.sub(r"\D", "", text or "")) for row in texts for text in row[place : place + 1]]
        if not any(UNFIT.search(row[place] or "") for row in texts) and max(digits) <= 38:
            raise
        return
    table = pq.read_table(io.BytesIO(data))
    assert table.column_names == names
    _check_columns(query, table, texts, documents)
    by_duckdb = _by_duckdb(data)
    # It has no decimal of more than 38 digits, and reads one as a double.
    for place, field in enumerate(table.schema):
        if "decimal256" in str(field.type):
            by_duckdb = by_duckdb.set_column(place, str(place), table.column(place))
    _check_columns(query, by_duckdb, texts, documents)


def _by_duckdb(data: bytes) -> pa.Table:
    """What DuckDB reads in a Parquet file; it gives names that differ in case only others."""
    with tempfile.NamedTemporaryFile(suffix=".parquet") as file:
        file.write(data)
        file.flush()
        found: pa.Table | None = _duckdb().read_parquet(file.name).to_arrow_table()
    assert found is not None
    return found


@cache
def _duckdb() -> duckdb.DuckDBPyConnection:
    connection = duckdb.connect()
    connection.execute("SET TimeZone = 'UTC'")
    return connection


def _check_columns(query: Query, table: pa.Table, texts: Texts, documents: list[list[Any]]) -> None:
    assert table.num_rows == len(texts)
    for kind, column, shown, expected in zip(
        query.types, table.columns, zip(*texts, strict=True), zip(*documents, strict=True), strict=False
    ):
        for value, text, document in zip(column.to_pylist(), shown, expected, strict=True):
            if text is None or value is None:
                assert value is text
            elif kind.endswith("[]"):
                assert [element is None for element in value] == [
                    element is None for element in document
                ] or kind in JSON
                assert all(_same(*both, kind[:-2]) for both in zip(value, document, strict=True)), (kind, value, text)
            else:
                assert _same(value, document if kind in JSON else text, kind), (kind, value, text)


# Lists and objects to PostgreSQL, and text to us.
AS_TEXT = ("int2vector", "oidvector", "public.pair")
JSON = ("json", "jsonb", "json[]", "jsonb[]")


def _same(value: Any, told: Any, kind: str) -> bool:
    """Whether Parquet holds what psql shows, or what is in a list of to_json's."""
    if value is not None and kind in JSON:
        return bool(json.loads(value) == told)
    if value is None or told is None:
        return value is told
    text = str(told)
    if isinstance(value, bool):
        return text.lower() in (("t", "true") if value else ("f", "false"))
    if isinstance(value, float):
        number = float(text)
        if kind == "float4" and math.isfinite(number):  # psql shows as many digits as tell it apart from others
            number = struct.unpack("f", struct.pack("f", number))[0]
        return value == number or (math.isnan(value) and math.isnan(number))
    if isinstance(value, (int, Decimal)):
        return value == Decimal(text)
    if isinstance(value, bytes):
        return text == "\\x" + value.hex()
    if isinstance(value, (date, time)):
        return bool(value == type(value).fromisoformat(text))
    return bool(value == text)


@pytest.fixture
def sessions(database_url: str) -> Iterator[list[tuple[str, Engine]]]:
    """An engine for each kind of session."""
    engines = []
    for options in SESSIONS:
        plain = engine_of(database_url)
        engines.append((options, sqlalchemy.create_engine(plain.url, connect_args={"options": options})))
    yield engines
    for _, engine in engines:
        engine.dispose()


def test_any_report_in_all_formats_is_what_psql_shows(sessions: list[tuple[str, Engine]], database_url: str) -> None:
    @settings(max_examples=REPORT_EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
    @given(queries(), st.integers(0, len(SESSIONS) - 1))
    def any_report(query: Query, number: int) -> None:
        options, engine = sessions[number]
        check(engine, database_url, options, query)

    any_report()


# A value of each type that the catalog has.
SAMPLES = dict(
    line.split(" ", 1)
    for line in """\
"char" a
aclitem postgres=r/postgres
bit 1
bool t
box ((1,1),(0,0))
bpchar a
bytea \\x00ff
cid 5
cidr 10.0.0.0/8
circle <(0,0),1>
date 2026-11-30
datemultirange {[2026-01-01,2026-02-01)}
daterange [2026-01-01,2026-02-01)
float4 1.5
float8 1e-7
inet ::1
int2 -1
int2vector 1 2
int4 2
int4multirange {[1,3),[5,7)}
int4range [1,5)
int8 3
int8multirange {}
int8range [1,5)
interval 1 mon 2 days
json {"a": 1}
jsonb [1]
jsonpath $."a"
line {1,2,3}
lseg [(0,0),(1,1)]
macaddr 08:00:2b:01:02:03
macaddr8 08:00:2b:01:02:03:04:05
money 12.50
name n
numeric 1.50
nummultirange {[1.5,2)}
numrange [1.5,2)
oid 4000000000
oidvector 1 2
path ((0,0),(1,1))
pg_lsn 16/B374D848
pg_snapshot 10:20:10,14
point (1,2)
polygon ((0,0),(1,1))
refcursor c
regclass pg_type
regcollation "C"
regconfig english
regdatabase template1
regdictionary simple
regnamespace pg_catalog
regoper |/
regoperator +(integer,integer)
regproc now
regprocedure sin(double precision)
regrole postgres
regtype integer
text a
tid (0,1)
time 12:34:56.5
timestamp 2026-11-30 12:34:56.5
timestamptz 1850-06-01 12:00+00
timetz 12:34:56+02
tsmultirange {}
tsquery 'a' & 'b'
tsrange ["2026-01-01 00:00:00",)
tstzmultirange {}
tstzrange ["2026-01-01 00:00:00+00",)
tsvector 'a':1 'b'
txid_snapshot 10:20:10,14
uuid a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11
varbit 101
varchar a
xid 5
xid8 5
""".splitlines()
)
# Types without input, the server's own; and one that the embedded server is built without.
NO_INPUT = re.compile(r"xml|pg_(node_tree|ndistinct|dependencies|mcv_list|brin_.*|ddl_command)|gtsvector")


def test_every_type_of_the_catalog(sessions: list[tuple[str, Engine]], database_url: str) -> None:
    options, engine = sessions[2]
    check_every_type(engine, database_url, options)


@pytest.fixture
def locales(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The URL of a server that speaks Turkish and counts in German; both are made for it."""
    sources = Path("/usr/share/i18n/locales")
    if TEST_URL or not shutil.which("localedef") or not {"de_DE", "tr_TR"} <= {path.name for path in sources.glob("*")}:
        pytest.skip("makes locales, for a server of its own")
    home = Path(tempfile.mkdtemp(prefix="harborctl-locales-"))
    home.chmod(0o755)
    for name in ("de_DE", "tr_TR"):
        subprocess.run(["localedef", "--no-archive", "-i", name, "-f", "UTF-8", f"{home}/{name}.UTF-8"], check=True)
    monkeypatch.setenv("LOCPATH", str(home))
    server = Server(home / "server")
    with server.leased(), made_database(server.url, "other", template="template0", locale="tr_TR.UTF-8") as url:
        with psycopg.connect(url, autocommit=True) as connection:
            for setting in ("lc_monetary", "lc_numeric", "lc_time"):
                connection.execute(f"ALTER DATABASE other SET {setting} = 'de_DE.UTF-8'".encode())
        yield url
    shutil.rmtree(home)


def test_every_type_in_other_locales(locales: str) -> None:
    engine = engine_of(locales)
    with engine.connect() as connection:
        told = connection.exec_driver_sql(
            "SELECT lower('TITLE'), upper('i'), 1234.5::money, to_char(1234.5, '9G999D9')"
        ).one()
    assert tuple(told) == ("t\u0131tle", "İ", "1.234,50 €", " 1.234,5")
    check_every_type(engine, locales, "")
    engine.dispose()


def check_every_type(engine: Engine, url: str, options: str) -> None:
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TYPE public.mood AS ENUM ('glad', 'so so')")
        connection.exec_driver_sql("CREATE DOMAIN public.pieces AS integer CHECK (VALUE > 0)")
        connection.exec_driver_sql("CREATE TYPE public.pair AS (a integer, b text)")
        kinds = connection.exec_driver_sql(
            "SELECT format('%%I', typname) FROM pg_type WHERE typtype IN ('b', 'r', 'm') AND typarray <> 0 AND"
            " typnamespace = 'pg_catalog'::regnamespace ORDER BY 1"
        ).scalars()
        # format() quotes words of SQL's grammar, and what is called "char" is another type than char.
        named = {kind: kind if kind == '"char"' else kind.strip('"') for kind in kinds}
    samples = {kind: SAMPLES[name] for kind, name in named.items() if not NO_INPUT.fullmatch(name)}
    samples |= {"public.mood": "so so", "public.pieces": "7", "public.pair": '(1,"a b")'}
    assert len(samples) > 60
    # To to_json vectors are lists, and pairs objects; so their lists are left out.
    texts = [(kind.replace('"', ""), f"NULL::{kind}", literal(value, kind)) for kind, value in samples.items()]
    lists = [
        (f"{name}[]", f"NULL::{kind}[]", f"ARRAY[{null}, {value}]")
        for kind, (name, null, value) in zip(samples, texts, strict=True)
        if name not in AS_TEXT
    ]
    for chosen in batched([*texts, *lists], 20):
        types, nulls, values = zip(*chosen, strict=True)
        columns = ", ".join(f'{null} AS "{name}"' for name, null in zip(types, nulls, strict=True))
        check(engine, url, options, Query(f"SELECT {columns} UNION ALL SELECT {', '.join(values)}", types))


def batched(items: list[tuple[str, str, str]], size: int) -> Iterator[list[tuple[str, str, str]]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
