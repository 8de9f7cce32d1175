"""Results in every format: against golden files, and read back by readers that are not ours."""

from __future__ import annotations

import csv
import json
import re
from collections import Counter
from decimal import Decimal
from io import StringIO
from pathlib import Path
from unicodedata import combining, east_asian_width

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rich.cells import cell_len
from sqlalchemy import Engine

from harborctl.plain_text import visible
from harborctl.reports.formats import Format
from harborctl.reports.parse import parse_report
from harborctl.reports.render import Layout, render
from harborctl.reports.result import Column, Kind, Result, unique_names
from harborctl.reports.run import run_report
from harborctl.reports.table import folded, plain
from tests.load.sizes import EXAMPLES

GOLDEN = Path(__file__).parent / "golden"
SQL = (GOLDEN / "every_type.sql").read_text(encoding="utf-8")


def rendered(engine: Engine, sql: str, output: Format, layout: Layout | None = None) -> str:
    with run_report(engine, parse_report("r", "r.sql", sql), {}) as result:
        return "".join(render(result, output, layout or Layout()))


def column(name: str, kind: Kind = Kind.TEXT) -> Column:
    return Column(name, "integer" if kind is Kind.NUMBER else "text", kind)


@pytest.mark.parametrize(
    ("output", "layout", "name"),
    [
        (Format.TABLE, Layout(), "every_type.txt"),
        (Format.TABLE, Layout(width=80), "every_type_80.txt"),
        (Format.CSV, Layout(), "every_type.csv"),
        (Format.JSON, Layout(), "every_type.json"),
        (Format.JSONL, Layout(), "every_type.jsonl"),
        (Format.MARKDOWN, Layout(), "every_type.md"),
    ],
)
def test_golden(engine: Engine, output: Format, layout: Layout, name: str) -> None:
    assert rendered(engine, SQL, output, layout).encode() == (GOLDEN / name).read_bytes()


def copied(engine: Engine, sql: str) -> str:
    """What COPY writes."""
    with engine.connect() as connection:
        driver = connection.connection.driver_connection
        assert driver is not None
        cursor = driver.cursor()
        with cursor.copy(f"COPY ({sql}) TO STDOUT (FORMAT csv, HEADER)") as copy:
            return b"".join(bytes(data) for data in copy).decode()


def test_csv_is_what_copy_writes(engine: Engine) -> None:
    assert rendered(engine, SQL, Format.CSV) == copied(engine, SQL.strip().removesuffix(";"))


def test_csv_of_a_header_that_ends_data(engine: Engine) -> None:
    for sql in ('SELECT 1 AS "\\."', 'SELECT 1 AS "\\.", 2 AS a'):
        assert rendered(engine, sql, Format.CSV) == copied(engine, sql)


CELL = (
    st.none()
    | st.text(st.characters(exclude_characters="\0", codec="utf-8"), max_size=6)
    | st.text(',"\r\n\\. ab', max_size=4)
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=40)
@given(st.lists(st.tuples(CELL, CELL), min_size=1, max_size=4))
def test_csv_of_any_text_is_what_copy_writes(engine: Engine, rows: list[tuple[str | None, str | None]]) -> None:
    def literal(text: str | None) -> str:
        return "NULL::text" if text is None else "'" + text.replace("'", "''") + "'"

    sql = "SELECT * FROM (VALUES " + ", ".join(f"({literal(a)}, {literal(b)})" for a, b in rows) + ') AS v (a, "b,""")'
    written = rendered(engine, sql, Format.CSV)
    assert written == copied(engine, sql)
    # Python's reader cannot tell NULL from the empty text.
    assert list(csv.reader(StringIO(written, newline=""), strict=True)) == [
        ["a", 'b,"'],
        *[[text or "" for text in row] for row in rows],
    ]


@pytest.mark.parametrize("text", ["\\.", "\\.\n", "", None])
def test_csv_of_one_column(engine: Engine, text: str | None) -> None:
    result = Result((column("a"),), iter([[(text,)]]))
    written = "".join(render(result, Format.CSV, Layout()))
    assert list(csv.reader(StringIO(written, newline=""), strict=True)) == [
        ["a"],
        *([[text]] if text is not None else [[]]),
    ]


def test_json_is_read_back_exactly(engine: Engine) -> None:
    first, second = json.loads(rendered(engine, SQL, Format.JSON), parse_float=Decimal)
    assert first["price"] == Decimal("12345678901234567890.1200")
    assert str(first["price"]) == "12345678901234567890.1200"
    assert first["big"] == 2**63 - 1
    assert first["yes"] is True
    assert first["tags"] == ["a,b", None, 'c"d\\e', "NULL", ""]
    assert first["grid"] == [[1, 2], [3, None]]
    assert first["flags"] == [True, False]
    assert first["moments"] == ["2026-11-30T12:34:56+00:00"]
    assert first["document"] == {"a": [1, 2, {"b": None}]}
    assert first["at"] == "2026-11-30T12:34:56.5"
    assert first["at_zone"] == "2026-11-30T12:34:56+00:00"
    assert list(first) == [*dict.fromkeys(first)]
    assert (first["id"], first["id_2"]) == (1, "second id")
    assert second["price"] == "NaN"
    assert second["at"] == "-infinity"
    assert second["at_zone"] == "0044-03-15 12:00:00+00 BC"
    assert [second[name] for name in ("note", "tags", "document", "yes")] == [None] * 4


def test_json_lines_hold_what_the_array_holds(engine: Engine) -> None:
    lines = rendered(engine, SQL, Format.JSONL).splitlines()
    assert [json.loads(line) for line in lines] == json.loads(rendered(engine, SQL, Format.JSON))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=40)
@given(st.lists(st.none() | st.text(st.characters(exclude_characters="\0", codec="utf-8"), max_size=6), max_size=5))
def test_json_of_any_list(engine: Engine, elements: list[str | None]) -> None:
    with engine.connect() as connection:
        driver = connection.connection.driver_connection
        assert driver is not None
        [[text]] = driver.execute("SELECT %s::text[]::text", [elements]).fetchall()
    result = Result((Column("v", "text[]", Kind.TEXT, ","),), iter([[(text,)]]))
    assert json.loads("".join(render(result, Format.JSON, Layout()))) == [{"v": elements}]


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("'[0:1]={7,8}'::int[]", [7, 8]),
        ("'{}'::int[]", []),
        ("ARRAY[box '((1,1),(0,0))', box '((2,2),(0,0))']", ["(1,1),(0,0)", "(2,2),(0,0)"]),
        ("ARRAY['{\"a\": 1}'::jsonb]", [{"a": 1}]),
        ("'1 2'::int2vector", "1 2"),
        ("ARRAY[1.50, 'NaN'::numeric]", [1.5, "NaN"]),
        ("'{\"a\":\n 1}'::json", {"a": 1}),
        ("1e100::float8", 1e100),
        ("'\\xff'::bytea", "\\xff"),
        ("'1 mon 2 days'::interval", "1 mon 2 days"),
        ("ROW(1, 'a')", "(1,a)"),
    ],
)
def test_json_of_unusual_types(engine: Engine, sql: str, expected: object) -> None:
    written = rendered(engine, f"SELECT {sql} AS v", Format.JSONL)
    assert json.loads(written) == {"v": expected}
    assert written.count("\n") == 1


def test_json_knows_a_domain_by_its_base_type(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE DOMAIN pieces AS integer CHECK (VALUE > 0)")
        connection.exec_driver_sql("CREATE TYPE mood AS ENUM ('glad', 'sad')")
    written = rendered(
        engine, "SELECT 1::pieces AS a, ARRAY[1]::pieces[] AS b, ARRAY['sad']::mood[] AS c", Format.JSONL
    )
    assert json.loads(written) == {"a": 1, "b": [1], "c": ["sad"]}


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        (Format.TABLE, "a   n\n─────\n(0 rows)\n"),
        (Format.CSV, "a,n\n"),
        (Format.JSON, "[]\n"),
        (Format.JSONL, ""),
        (Format.MARKDOWN, "| a | n |\n| --- | ---: |\n"),
    ],
)
def test_no_rows(output: Format, expected: str) -> None:
    result = Result((column("a"), column("n", Kind.NUMBER)), iter([]))
    assert "".join(render(result, output, Layout())) == expected


def test_names_are_made_unique() -> None:
    columns = tuple(map(column, ["a", "a", "a_2", "a", "", ""]))
    assert unique_names(columns) == ["a", "a_3", "a_2", "a_4", "", "_2"]


@pytest.mark.parametrize(
    ("width", "lines"),
    [
        # Where nothing has to fit, what is wider than the first batch moves what is right of it.
        (None, ["name    n   x", "─────────────", "first   1", "a       22   x", "much too long   3", "(3 rows)"]),
        # In a terminal text is folded into its column. Numbers are whole in any case.
        (
            13,
            ["name    n   x", "─────────────", "first   1", "a       22   x", "much    3", "too", "long", "(3 rows)"],
        ),
    ],
)
def test_a_table_of_several_batches_is_one_table(width: int | None, lines: list[str]) -> None:
    columns = (column("name"), column("n", Kind.NUMBER), column("x"))
    batches = iter([[("first", "1", "")], [("a", "22", "x"), ("much too long", "3", "")]])
    written = "".join(render(Result(columns, batches), Format.TABLE, Layout(width=width)))
    assert written.splitlines() == lines


def test_a_table_loses_nothing_however_wide_it_is(engine: Engine) -> None:
    """Rich left whole columns out of lines of more than 10 000 characters."""
    sql = """SELECT 1 AS id, repeat('x', 12000) AS doc, repeat('y', 12000) AS other, 7 AS last
             UNION ALL SELECT 2, '', '', 8"""
    head, _, first, second, _ = rendered(engine, sql, Format.TABLE).splitlines()
    assert head.split() == ["id", "doc", "other", "last"]
    assert first.split() == ["1", "x" * 12000, "y" * 12000, "7"]
    assert second.split() == ["2", "8"]
    assert len(second) < 3000  # one long value does not make every row as long


SHOWN = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=30) | st.text(
    "a é東😀\u0301\u200d\n ", max_size=40
)


@settings(max_examples=EXAMPLES, deadline=None)
@given(st.lists(st.tuples(st.none() | SHOWN, st.none() | SHOWN), max_size=4), st.none() | st.integers(1, 60))
def test_a_table_of_any_text(rows: list[tuple[str | None, str | None]], width: int | None) -> None:
    """It keeps to the terminal, steers nothing, and has all that is to be seen in it."""
    batches = iter([rows[:2], rows[2:]])
    lines = "".join(render(Result((column("a"), column("b")), batches), Format.TABLE, Layout(width=width))).split("\n")
    assert lines == [visible(line) for line in lines]
    if width is not None and width > 30:
        assert all(cell_len(line) <= width for line in lines)
    shown = Counter("".join(lines))
    for text in (text for row in rows for text in row if text is not None):
        shown.subtract(character for character in plain(text) if not character.isspace())
    assert min(shown.values()) >= 0


def test_what_is_drawn_as_one_character_stays_together() -> None:
    family = "👨\u200d👩\u200d👧"
    assert folded(f"{family}{family}x", 3) == [family, f"{family}x"]
    assert folded("e\u0301" * 5, 3) == ["e\u0301" * 3, "e\u0301" * 2]
    assert folded("東京都", 1) == ["東", "京", "都"]
    assert folded("  two  words here", 6) == ["  two", "words", "here"]
    assert folded("unbroken and  so", 4) == ["unbr", "oken", "and", "so"]
    assert folded("a\n\nb", 4) == ["a", "", "b"]
    assert len(folded("word " * 200_000, 20)) == 50_000


@given(st.text(st.sampled_from("ab \u00e9\u010d-"), max_size=40), st.integers(1, 9))
def test_text_of_one_cell_a_character_is_folded_as_any_other(text: str, width: int) -> None:
    """With a mark on each letter it takes as many cells, and is measured by graphemes."""
    marked = re.sub(r"\S", lambda letter: f"{letter[0]}\u0301", text)
    assert [line.replace("\u0301", "") for line in folded(marked, width)] == folded(text, width)


def test_columns_line_up_by_what_a_terminal_draws() -> None:
    """The oracle is Python's table of East Asian widths."""
    texts = ["東京", "Rome", "ｱﾞ", "naïve", "e\u0301", "😀!", "عربي", "한국어"]
    result = Result((column("city"), column("x")), iter([[(text, "|") for text in texts]]))
    for line in "".join(render(result, Format.TABLE, Layout())).splitlines()[2:-1]:
        before = line[: line.index("|")]
        cells = [0 if combining(c) else 2 if east_asian_width(c) in "WF" else 1 for c in before]
        assert sum(cells) == 6 + 3


def test_text_is_folded_into_the_terminal_and_numbers_are_not(engine: Engine) -> None:
    sql = """SELECT repeat('many words ', 5) AS words, 1234567890123 AS number, DATE '2026-11-30' AS day,
             'unbroken_' || repeat('x', 30) AS code"""
    written = rendered(engine, sql, Format.TABLE, Layout(width=60))
    assert written == (
        "words                   number   day          code\n"
        "────────────────────────────────────────────────────────────\n"
        "many words       1234567890123   2026-11-30   unbroken_xxxxx\n"
        "many words                                    xxxxxxxxxxxxxx\n"
        "many words                                    xxxxxxxxxxx\n"
        "many words\n"
        "many words\n"
        "(1 row)\n"
    )


def test_wide_characters_take_two_columns() -> None:
    result = Result((column("city"), column("x")), iter([[("東京", "1"), ("Rome", "2")]]))
    written = "".join(render(result, Format.TABLE, Layout()))
    assert written.splitlines()[2:4] == ["東京   1", "Rome   2"]


def test_text_cannot_steer_the_terminal() -> None:
    result = Result((column("a\x1b[2J"),), iter([[("\x1b]0;x\x07\x9b1m[red]a\tb\r",)]]))
    written = "".join(render(result, Format.TABLE, Layout(color=True)))
    assert "\\x1b]0;x\\x07\\x9b1m[red]a" in written
    assert "\x1b]" not in written
    assert "\x07" not in written


def test_null_is_dim_where_there_is_colour() -> None:
    result = Result((column("a"),), iter([[(None,)]]))
    assert "\x1b[2mNULL\x1b[0m" in "".join(render(result, Format.TABLE, Layout(width=80, color=True)))


def test_markdown_says_what_is_meant() -> None:
    result = Result((column("a|b"),), iter([[("*x* `y` _z_ a_b __0__ [l](u) <br> \\ &amp; A&B\r\nnew",)]]))
    written = "".join(render(result, Format.MARKDOWN, Layout()))
    assert written == (
        "| a\\|b |\n| --- |\n| \\*x\\* \\`y\\` \\_z\\_ a_b \\_\\_0\\_\\_ \\[l\\](u) \\<br> \\\\ \\&amp; A&B<br>new |\n"
    )
