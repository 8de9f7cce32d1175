"""HTML, Parquet, spreadsheets and pictures: read back by readers that are not ours."""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections.abc import Sequence
from datetime import UTC, date, datetime, time
from decimal import Decimal
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree as ET

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sqlalchemy import Engine

from harborctl.errors import HarborctlError, UsageError
from harborctl.reports import parquet
from harborctl.reports.chart import ChartOptions
from harborctl.reports.formats import Format
from harborctl.reports.parse import parse_report
from harborctl.reports.render import Layout
from harborctl.reports.result import Column, Kind, Result
from harborctl.reports.run import RunOptions, run_report
from harborctl.reports.write import write
from tests.conftest import execute

GOLDEN = Path(__file__).parent / "golden"
SQL = (GOLDEN / "every_type.sql").read_text(encoding="utf-8")


def written(
    engine: Engine, sql: str, output: Format, chart: ChartOptions | None = None, *, lines: bool = True
) -> bytes:
    stream = io.BytesIO()
    report = parse_report("r", "r.sql", sql)
    layout = Layout(title="Every <type>", description="All & sundry")
    with run_report(engine, report, {}, RunOptions(lines=lines and output in (Format.CSV, Format.PARQUET))) as result:
        write(result, output, layout, chart, stream)
    return stream.getvalue()


# HTML.


class Page(HTMLParser):
    """The cells of a page's table, by the standard library's parser; NULL as None."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.rows: list[list[str | None]] = []
        self.outside: list[str] = []
        self._cell: list[str] | None = None
        self._null = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.outside += [value or "" for name, value in attrs if name in ("src", "href", "xlink:href")]
        if tag == "tr":
            self.rows.append([])
        if tag in ("th", "td"):
            self._cell, self._null = [], "null" in (dict(attrs).get("class") or "").split()

    def handle_data(self, data: str) -> None:
        if self._cell is not None:
            self._cell.append(data)

    def handle_endtag(self, tag: str) -> None:
        if tag in ("th", "td") and self._cell is not None:
            self.rows[-1].append(None if self._null else "".join(self._cell))
            self._cell = None


def test_html_golden(engine: Engine) -> None:
    assert written(engine, SQL, Format.HTML) == (GOLDEN / "every_type.html").read_bytes()


def test_html_is_read_back(engine: Engine) -> None:
    page = Page(written(engine, SQL, Format.HTML).decode())
    with run_report(engine, parse_report("r", "r.sql", SQL), {}) as result:
        names = [column.name for column in result.columns]
        rows = [list(row) for batch in result.batches for row in batch]
    assert page.rows == [names, *rows]
    assert page.outside == []


def test_html_takes_nothing_for_markup() -> None:
    stream = io.BytesIO()
    text = "</td><script>alert(1)</script>&amp;\x01"
    result = Result((Column(text, "text", Kind.TEXT),), iter([[(text,)]]))
    write(result, Format.HTML, Layout(title=text, description=text), None, stream)
    page = stream.getvalue().decode()
    assert page.count("<script>") == 1
    assert Page(page).rows == [[text], [text.replace("\x01", "␁")]]


def test_html_has_what_sorting_needs(engine: Engine) -> None:
    """The script goes by the button in each head, and by the classes of numbers and NULL. A wrapper that scrolls would
    keep the heads from staying in sight."""
    text = written(engine, "SELECT 2.5 AS n, 'a' AS t UNION ALL SELECT NULL, '<i>'", Format.HTML).decode()
    assert re.findall(r"<th [^>]*>.*?</th>", text) == [
        '<th scope="col" class="n"><button>n</button></th>',
        '<th scope="col"><button>t</button></th>',
    ]
    assert re.findall(r"<tbody>\n(.*)\n(.*)\n</tbody>", text) == [
        ('<tr><td class="n">2.5</td><td>a</td></tr>', '<tr><td class="n null">NULL</td><td>&lt;i&gt;</td></tr>')
    ]
    assert "position: sticky" in text
    assert "overflow-x" not in text


def test_html_with_a_chart(engine: Engine) -> None:
    sql = "SELECT * FROM (VALUES ('a', 1), ('<b>東京', 2.5)) AS v (name, n)"
    text = written(engine, sql, Format.HTML, ChartOptions("n")).decode()
    svg = ET.fromstring(text[text.index("<svg") : text.index("</svg>") + 6])  # noqa: S314  # our own
    words = [element.text for element in svg.iter("{http://www.w3.org/2000/svg}text")]
    assert "<b>東京" in words
    assert "n by name" in words
    assert "currentColor" in text
    assert "var(--mark)" in text
    assert [address for address in Page(text).outside if not address.startswith("#")] == []


# Parquet.

TYPED = """
    SELECT 1::int2 AS small, 2::int4 AS whole, 3::int8 AS big, 1.5::float4 AS single, 'NaN'::float8 AS double,
           1234567.125::numeric(12,4) AS price, 12345678901234567890.25 AS free, true AS yes,
           DATE '2026-11-30' AS day, TIME '12:34:56.5' AS clock, TIMESTAMP '2026-11-30 12:34:56.123456' AS at,
           TIMESTAMPTZ '2026-11-30 12:34:56+02' AS at_zone, INTERVAL '1 mon' AS age, '\\x00ff'::bytea AS bytes,
           '{"a": 1}'::jsonb AS document, 'two
lines, "quoted"' AS text, ARRAY[1, NULL, 3] AS numbers, ARRAY['a,b', 'NULL', NULL, ''] AS words,
           ARRAY[1.5, 22.25] AS prices, ARRAY[true, false] AS flags, ARRAY[TIMESTAMPTZ '2026-01-01 00:00:00+00'] AS ats,
           'id' AS text
    UNION ALL
    SELECT '-1', -2, -3, '-Infinity', 0.1, (-0.5)::numeric(12,4), -0.125, false, '0001-01-01', '00:00',
           '1969-12-31 23:59:59',
           '1969-12-31 23:59:59+00', NULL, '\\x', NULL, '', '{}', '{}', '{}', '{}', '{}', ''
    UNION ALL
    SELECT NULL, NULL, NULL, NULL, NULL, NULL::numeric(12,4), NULL,
           NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL,
           NULL, NULL, NULL, NULL
"""
SCHEMA = {
    "small": pa.int16(),
    "whole": pa.int32(),
    "big": pa.int64(),
    "single": pa.float32(),
    "double": pa.float64(),
    "price": pa.decimal128(12, 4),
    "free": pa.decimal128(38, 3),
    "yes": pa.bool_(),
    "day": pa.date32(),
    "clock": pa.time64("us"),
    "at": pa.timestamp("us"),
    "at_zone": pa.timestamp("us", "UTC"),
    "age": pa.string(),
    "bytes": pa.binary(),
    "document": pa.string(),
    "text": pa.string(),
    "numbers": pa.list_(pa.int32()),
    "words": pa.list_(pa.string()),
    "prices": pa.list_(pa.decimal128(38, 2)),
    "flags": pa.list_(pa.bool_()),
    "ats": pa.list_(pa.timestamp("us", "UTC")),
    "text_2": pa.string(),
}


def table(data: bytes) -> pa.Table:
    return pq.read_table(io.BytesIO(data))


@pytest.mark.parametrize("lines", [True, False])
def test_parquet_is_read_back_with_its_types(engine: Engine, lines: bool) -> None:
    found = table(written(engine, TYPED, Format.PARQUET, lines=lines))
    kinds = {
        field.name: pa.list_(field.type.value_type) if pa.types.is_list(field.type) else field.type
        for field in found.schema
    }
    assert kinds == SCHEMA
    first, second, third = found.to_pylist()
    assert str(first.pop("double")) == "nan"
    assert first == {
        "small": 1,
        "whole": 2,
        "big": 3,
        "single": 1.5,
        "price": Decimal("1234567.1250"),
        "free": Decimal("12345678901234567890.250"),
        "yes": True,
        "day": date(2026, 11, 30),
        "clock": time(12, 34, 56, 500000),
        "at": datetime(2026, 11, 30, 12, 34, 56, 123456),
        "at_zone": datetime(2026, 11, 30, 10, 34, 56, tzinfo=UTC),
        "age": "1 mon",
        "bytes": b"\x00\xff",
        "document": '{"a": 1}',
        "text": 'two\nlines, "quoted"',
        "numbers": [1, None, 3],
        "words": ["a,b", "NULL", None, ""],
        "prices": [Decimal("1.50"), Decimal("22.25")],
        "flags": [True, False],
        "ats": [datetime(2026, 1, 1, tzinfo=UTC)],
        "text_2": "id",
    }
    assert (second["free"], second["text"], second["words"], second["bytes"]) == (Decimal("-0.125"), "", [], b"")
    assert set(third.values()) == {None}


def test_parquet_golden(engine: Engine) -> None:
    """The same table; the bytes carry the version of the library that wrote them, and are the same from run to run."""
    data = written(engine, TYPED, Format.PARQUET)
    assert table(data).drop_columns("double").equals(pq.read_table(GOLDEN / "typed.parquet").drop_columns("double"))
    assert data == written(engine, TYPED, Format.PARQUET)


def test_parquet_in_several_groups(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, "GROUP_BYTES", 100_000)
    monkeypatch.setattr("harborctl.db.export.BLOCK_BYTES", 50_000)
    sql = "SELECT i, i / 8.0 AS n, CASE WHEN i % 3 > 0 THEN 'row ' || i END AS t FROM generate_series(1, 30000) AS i"
    data = written(engine, sql, Format.PARQUET)
    assert pq.ParquetFile(io.BytesIO(data)).num_row_groups > 3
    found = table(data)
    assert found["i"].to_pylist() == list(range(1, 30001))
    assert found["n"].to_pylist()[:2] == [Decimal("0.125"), Decimal("0.25")]
    assert found["t"].null_count == 10_000


def test_parquet_of_numbers_that_need_more_digits_later(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each block needs more than those before it; what has been written is kept, digit by digit."""
    monkeypatch.setattr(parquet, "GROUP_BYTES", 20_000)
    monkeypatch.setattr("harborctl.db.export.BLOCK_BYTES", 10_000)
    sql = """
        SELECT i, CASE WHEN i > 4000 THEN i * ('1e40')::numeric WHEN i > 2000 THEN i + 0.25 WHEN i > 50 THEN i + 0.5
                       WHEN i > 5 THEN i END::numeric AS n,
               CASE WHEN i > 3000 THEN ARRAY[i + 0.125, NULL] WHEN i > 9 THEN ARRAY[i, -i]::numeric[] END AS l
        FROM generate_series(1, 5000) AS i"""
    found = table(written(engine, sql, Format.PARQUET))
    assert found.schema.field("n").type == pa.decimal256(76, 2)
    assert found.schema.field("l").type.value_type == pa.decimal128(38, 3)
    assert found["i"].to_pylist() == list(range(1, 5001))
    with engine.connect() as connection:
        rows = connection.exec_driver_sql(sql).all()
    assert found["n"].to_pylist() == [row.n for row in rows]
    assert found["l"].to_pylist() == [row.l for row in rows]


@pytest.mark.parametrize("lines", [True, False])
def test_parquet_of_moments_before_there_was_a_standard_time(engine: Engine, lines: bool) -> None:
    """Zones had offsets with seconds then. What the report means by a day stays the session's business."""
    execute(engine, f"ALTER DATABASE {engine.url.database} SET TimeZone = 'Europe/Berlin'")
    engine.dispose()
    sql = """SELECT TIMESTAMPTZ '1850-06-01 12:00:00.25+00' AS old, TIMESTAMPTZ '2026-11-30 12:00+00' AS new, 1 AS n,
                    ARRAY[TIMESTAMPTZ '1850-06-01 12:00+00', NULL] AS olds,
                    TIMESTAMPTZ '2026-11-30 23:30+00'::date AS day UNION ALL SELECT NULL, NULL, NULL, NULL, NULL"""
    first, _ = table(written(engine, sql, Format.PARQUET, lines=lines)).to_pylist()
    assert first == {
        "old": datetime(1850, 6, 1, 12, 0, 0, 250000, tzinfo=UTC),
        "new": datetime(2026, 11, 30, 12, tzinfo=UTC),
        "n": 1,
        "olds": [datetime(1850, 6, 1, 12, tzinfo=UTC), None],
        "day": date(2026, 12, 1),
    }
    bad = "SELECT TIMESTAMPTZ '1850-06-01 12:00+00' AS old, 'infinity'::timestamptz AS never"
    with pytest.raises(HarborctlError) as caught:
        written(engine, bad, Format.PARQUET, lines=lines)
    assert caught.value.column == "never"


def test_parquet_of_numbers_of_more_than_38_digits(engine: Engine) -> None:
    found = table(
        written(
            engine,
            "SELECT (10::numeric ^ 45 + 0.25)::numeric(50,2) AS n UNION ALL SELECT NULL::numeric(50,2)",
            Format.PARQUET,
        )
    )
    assert found.schema.field("n").type == pa.decimal256(50, 2)
    assert found.to_pylist() == [{"n": Decimal(f"{10**45}.25")}, {"n": None}]


def test_parquet_of_no_columns(engine: Engine) -> None:
    with pytest.raises(HarborctlError, match=r"^Parquet holds columns, and the report has none$"):
        written(engine, "SELECT FROM generate_series(1, 2)", Format.PARQUET)


def test_parquet_of_nothing(engine: Engine) -> None:
    found = table(written(engine, "SELECT 1 AS a, 1.5 AS b, ARRAY[1] AS c WHERE false", Format.PARQUET))
    assert (found.num_rows, found.column_names) == (0, ["a", "b", "c"])
    one = table(written(engine, "SELECT NULL::text AS a UNION ALL SELECT ''", Format.PARQUET))
    assert one.to_pylist() == [{"a": None}, {"a": ""}]


@pytest.mark.parametrize(
    ("sql", "column", "value"),
    [
        ("SELECT 'infinity'::date AS d", "d", "infinity"),
        ("SELECT 'NaN'::numeric AS d", "d", "NaN"),
        ("SELECT 'NaN'::numeric(5,2) AS d", "d", "NaN"),
        ("SELECT 1 AS a, 'NaN'::numeric(50,2) AS d", "d", "NaN"),
        ("SELECT 'NaN'::numeric AS d UNION ALL SELECT 10::numeric ^ 60", "d", "NaN"),
        ("SELECT '0044-03-15 12:00:00+00 BC'::timestamptz AS d", "d", "0044-03-15 12:00:00+00 BC"),
        ("SELECT 1 AS a, '24:00'::time AS d", "d", "24:00:00"),
        ("SELECT ARRAY['infinity'::date] AS d", "d", "infinity"),
        ("SELECT ARRAY[TIME '12:00', '24:00'] AS d", "d", "24:00:00"),
        ("SELECT ARRAY[[1], [2]] AS d", "d", "{{1},{2}}, which has more than one dimension"),
        ("SELECT 10::numeric ^ 80 AS d", "d", "97 digits before the point and 0 behind it"),
    ],
)
def test_parquet_says_what_it_cannot_hold(engine: Engine, sql: str, column: str, value: str) -> None:
    with pytest.raises(HarborctlError) as caught:
        written(engine, sql, Format.PARQUET)
    assert (caught.value.column, caught.value.exit_code) == (column, 1)
    assert caught.value.message.endswith(f" cannot hold {value}") or value.startswith("97")


# Spreadsheets.

_SHEET = "{http://schemas.openxmlformats.org/spreadsheetml/2006/main}"


def cells(data: bytes) -> list[list[str | float | bool | None]]:
    """The sheet's cells, by the standard library."""
    with zipfile.ZipFile(io.BytesIO(data)) as book:
        root = ET.fromstring(book.read("xl/worksheets/sheet1.xml"))  # noqa: S314  # our own
        assert b"<f>" not in book.read("xl/worksheets/sheet1.xml")
    rows: list[list[str | float | bool | None]] = []
    for row in root.iter(f"{_SHEET}row"):
        found: dict[int, str | float | bool | None] = {}
        for cell in row.iter(f"{_SHEET}c"):
            index = ord(re.sub(r"\d", "", cell.attrib["r"])) - ord("A")
            kind, value = cell.attrib.get("t", "n"), cell.find(f"{_SHEET}v")
            if kind == "inlineStr":
                found[index] = "".join(text.text or "" for text in cell.iter(f"{_SHEET}t"))
            elif value is not None and value.text is not None:
                found[index] = value.text == "1" if kind == "b" else float(value.text)
        rows.append([found.get(index) for index in range(max(found, default=-1) + 1)])
    return rows


def test_xlsx_is_read_back(engine: Engine) -> None:
    sql = """SELECT 1 AS id, 12.50 AS price, 12345678901234567890 AS big, true AS yes, DATE '2026-11-30' AS day,
                    TIMESTAMP '2026-11-30 12:00' AS at, '=1+1' AS formula, 'https://x.y' AS link, 'NaN'::numeric AS nan,
                    'infinity'::date AS never, ARRAY[1, 2] AS list
             UNION ALL SELECT 2, NULL, NULL, false, NULL, NULL, '', NULL, NULL, NULL, NULL"""
    head, first, second = cells(written(engine, sql, Format.XLSX))
    assert head == ["id", "price", "big", "yes", "day", "at", "formula", "link", "nan", "never", "list"]
    assert first == [
        1.0,
        12.5,
        "12345678901234567890",
        True,
        46356.0,
        46356.5,
        "=1+1",
        "https://x.y",
        "NaN",
        "infinity",
        "{1,2}",
    ]
    assert second[:4] == [2.0, None, None, False]


def test_xlsx_keeps_text_where_a_number_would_say_less(engine: Engine) -> None:
    sql = """SELECT TIMESTAMP '2026-11-30 12:00:00.123456' AS fine, TIMESTAMP '2026-11-30 12:00:00.25' AS split,
                    '-0'::float8 AS minus, 5e-324::float8 AS tiny, 1e300::float8 AS large, '_x0041_' AS escape"""
    _, row = cells(written(engine, sql, Format.XLSX))
    assert row == ["2026-11-30 12:00:00.123456", 46356.500002893519, "-0", "5e-324", 1e300, "_x005F_x0041_"]


def test_xlsx_says_what_it_cannot_hold(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    # Of UTF-16, which takes two for an emoji.
    for sql in ("SELECT 1 AS id, repeat('x', 32768) AS a", "SELECT 1 AS id, repeat('😀', 16384) AS a"):
        with pytest.raises(
            HarborctlError, match=r"^a cell holds 32,767 characters \(of UTF-16\), and row 1 has more$"
        ) as e:
            written(engine, sql, Format.XLSX)
        assert e.value.column == "a"
    assert cells(written(engine, "SELECT repeat('😀', 16383) AS a", Format.XLSX))[1] == ["😀" * 16383]
    monkeypatch.setattr("harborctl.reports.xlsx.MOST_ROWS", 3)
    with pytest.raises(HarborctlError, match=r"^a sheet holds 3 rows and no more$"):
        written(engine, "SELECT generate_series(1, 3)", Format.XLSX)
    assert len(cells(written(engine, "SELECT generate_series(1, 2)", Format.XLSX))) == 3


# Pictures.

DAYS = "SELECT DATE '2026-01-01' + i AS day, i * i AS n FROM generate_series(0, 40) AS i"


@pytest.mark.parametrize("sql", [DAYS, "SELECT * FROM (VALUES ('$a$', -1), (NULL, NULL), ('東京', 3)) AS v (city, n)"])
def test_pictures(engine: Engine, sql: str) -> None:
    data = written(engine, sql, Format.PNG, ChartOptions("n"))
    assert data.startswith(b"\x89PNG\r\n\x1a\n")
    assert len(data) > 5_000
    svg = written(engine, sql, Format.SVG, ChartOptions("n"))
    assert ET.fromstring(svg).tag == "{http://www.w3.org/2000/svg}svg"  # noqa: S314  # our own
    assert svg == written(engine, sql, Format.SVG, ChartOptions("n"))
    assert ("東京" in svg.decode()) is ("東京" in sql)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (ChartOptions("m"), "the report has no column m"),
        (ChartOptions("n", "dya"), "the report has no column dya"),
        (ChartOptions("day"), "column day holds date, and a chart is of numbers"),
    ],
)
def test_charts_of_nothing(engine: Engine, options: ChartOptions, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        written(engine, DAYS, Format.SVG, options)
    assert caught.value.message == message


def missing(monkeypatch: pytest.MonkeyPatch, names: Sequence[str]) -> None:
    for name in names:
        monkeypatch.setitem(__import__("sys").modules, name, None)


def test_without_the_extras(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    missing(monkeypatch, ["matplotlib", "xlsxwriter"])
    with pytest.raises(UsageError) as caught:
        written(engine, DAYS, Format.PNG, ChartOptions("n"))
    assert (caught.value.code, "harborctl[charts]" in str(caught.value.hint)) == ("no_extra", True)
    with pytest.raises(UsageError) as caught:
        written(engine, DAYS, Format.XLSX)
    assert (caught.value.code, "harborctl[xlsx]" in str(caught.value.hint)) == ("no_extra", True)


def test_the_plan_as_json_is_json(engine: Engine) -> None:
    from harborctl.reports.run import explain_report

    report = parse_report("r", "r.sql", "-- param: n integer\nSELECT :n AS n")
    plan = json.loads(explain_report(engine, report, {"n": 5}, RunOptions(), as_json=True))
    assert plan[0]["Plan"]["Actual Rows"] == 1
    with pytest.raises(HarborctlError) as caught:
        explain_report(engine, parse_report("r", "r.sql", "SELECT 1,\n nope"), {}, RunOptions(), as_json=False)
    assert caught.value.location is not None
    assert caught.value.location.line == 2
    assert str(caught.value.hint).endswith("     nope\n     ^")
